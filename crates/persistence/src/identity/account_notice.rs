use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::identity::{RareNotice, RareNotices};
use tenantry_domain::kernel::{AccountNoticeId, StoreError, Time, UserId};

use crate::kernel::store::PgStore;

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "account_notices")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub user_id: Uuid,
        pub kind: String,
        pub created_at: DateTimeUtc,
        pub sent_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity};

#[async_trait]
impl RareNotices for PgStore {
    async fn note(
        &mut self,
        id: AccountNoticeId,
        user: UserId,
        kind: RareNotice,
        now: Time,
        since: Time,
    ) -> Result<bool, StoreError> {
        let again = ActiveModel {
            sent_at: Set(now),
            ..Default::default()
        };
        let update = self
            .tx
            .update::<Entity>()
            .set(again)
            .filter(Column::UserId.eq(user.uuid()))
            .filter(Column::Kind.eq(kind.as_str()))
            .filter(Column::SentAt.lte(since));
        if update.run().await? > 0 {
            return Ok(true);
        }
        let first = ActiveModel {
            id: Set(id.uuid()),
            user_id: Set(user.uuid()),
            kind: Set(kind.as_str().to_owned()),
            created_at: Set(now),
            sent_at: Set(now),
            ..Default::default()
        };
        self.tx.insert_unless_there(first).await
    }
}
