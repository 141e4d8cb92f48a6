use async_trait::async_trait;
use sea_orm::ActiveValue::Set;
use tenantry_domain::audit::{AuditEvent, AuditLog};
use tenantry_domain::kernel::StoreError;

use crate::kernel::store::PgStore;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub category: String,
        pub action: String,
        pub target_type: String,
        pub target_id: Option<Uuid>,
        pub actor_type: String,
        pub actor_id: Option<Uuid>,
        pub request_id: String,
        pub ip: Option<String>,
        pub before: Option<Json>,
        pub after: Option<Json>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

#[async_trait]
impl AuditLog for PgStore {
    async fn record(&mut self, event: AuditEvent) -> Result<(), StoreError> {
        let actor = self.scope.actor();
        let row = entity::ActiveModel {
            id: Set(event.id.uuid()),
            created_at: Set(event.at),
            category: Set(event.category.as_str().to_owned()),
            action: Set(event.action.to_owned()),
            target_type: Set(event.target_type.to_owned()),
            target_id: Set(event.target_id),
            actor_type: Set(actor.as_str().to_owned()),
            actor_id: Set(actor.id()),
            request_id: Set(self.scope.request().as_str().to_owned()),
            ip: Set(event.ip),
            before: Set(event.before),
            after: Set(event.after),
            ..Default::default()
        };
        self.tx.insert(row).await
    }
}
