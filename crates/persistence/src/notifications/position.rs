//! The number in the feed up to which events have notified.

use sea_orm::ActiveValue::Set;
use tenantry_domain::kernel::{StoreError, Time};

use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "notification_positions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub position: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Entity};

impl PgStore {
    /// The number, locked.
    pub(super) async fn notified_until(&mut self) -> Result<Option<i64>, StoreError> {
        let row = self.tx.find::<Entity>().lock(Lock::Update).one().await?;
        Ok(row.map(|row| row.position))
    }

    /// Stores the first number unless there is one, and locks it.
    pub(super) async fn begin_notifying(&mut self, position: i64, now: Time) -> Result<(), StoreError> {
        let row = ActiveModel {
            created_at: Set(now),
            position: Set(position),
            ..Default::default()
        };
        self.tx.insert_unless_there(row).await?;
        self.notified_until().await.map(|_| ())
    }

    /// Moves the number.
    pub(super) async fn notify_until(&mut self, position: i64) -> Result<(), StoreError> {
        let moved = ActiveModel {
            position: Set(position),
            ..Default::default()
        };
        exactly_one(self.tx.update::<Entity>().set(moved).run().await?)
    }
}
