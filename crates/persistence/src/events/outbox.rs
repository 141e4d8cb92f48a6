use sea_orm::ActiveValue::Set;
use sea_orm::QueryTrait as _;
use sea_orm::sea_query::InsertStatement;
use tenantry_domain::audit::AuditEvent;
use tenantry_domain::events::{NewEvent, TenantEvent};
use tenantry_domain::kernel::{OperatorId, StoreError};
use uuid::Uuid;

use crate::kernel::store::PgStore;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "event_outbox")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub kind: String,
        pub actor_kind: String,
        pub actor_id: Option<Uuid>,
        pub entity: String,
        pub entity_id: Option<Uuid>,
        pub trace_parent: Option<String>,
        pub data: Json,
        /// The order of insertions; the database sets it.
        pub ticket: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::ActiveModel;

/// The statement that stores an event about the state of a tenant, for the platform role.
pub(crate) fn insertion(of: TenantEvent) -> InsertStatement {
    let tenant = of.tenant.uuid();
    let row = ActiveModel {
        tenant_id: Set(tenant),
        id: Set(of.id.uuid()),
        created_at: Set(of.at),
        kind: Set(of.event.kind.to_owned()),
        actor_kind: Set(if of.operator.is_some() {
            "operator"
        } else {
            "system"
        }
        .to_owned()),
        actor_id: Set(of.operator.map(OperatorId::uuid)),
        entity: Set("tenant".to_owned()),
        entity_id: Set(Some(tenant)),
        trace_parent: Set(of.event.trace_parent),
        data: Set(of.event.data),
        ..Default::default()
    };
    sea_orm::Insert::one(row).into_query()
}

impl PgStore {
    /// Stores an event that waits for its number, with the id, time and target of the entry of the audit log.
    pub(crate) async fn emit(
        &mut self,
        event: NewEvent,
        entry: &AuditEvent,
        (actor_kind, actor_id): (&str, Option<Uuid>),
    ) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(entry.id.uuid()),
            created_at: Set(entry.at),
            kind: Set(event.kind.to_owned()),
            actor_kind: Set(actor_kind.to_owned()),
            actor_id: Set(actor_id),
            entity: Set(entry.target_type.to_owned()),
            entity_id: Set(entry.target_id),
            trace_parent: Set(event.trace_parent),
            data: Set(event.data),
            ..Default::default()
        };
        self.tx.insert(row).await
    }
}
