use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::flags::{FlagOverride, FlagOverrides};
use tenantry_domain::kernel::{Change, StoreError};

use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "flag_overrides")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub flag: String,
        pub variant: String,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl FlagOverrides for PgStore {
    async fn list(&mut self) -> Result<Vec<FlagOverride>, StoreError> {
        let rows = self.tx.find::<Entity>().order_by_asc(Column::Flag).all().await?;
        Ok(rows.into_iter().map(FlagOverride::from).collect())
    }

    async fn find_for_update(&mut self, flag: &str) -> Result<Option<FlagOverride>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Flag.eq(flag));
        Ok(find.lock(Lock::Update).one().await?.map(FlagOverride::from))
    }

    async fn insert(&mut self, chosen: &FlagOverride) -> Result<(), StoreError> {
        self.changes.note(Change::Configuration(self.scope.tenant()));
        let row = ActiveModel {
            id: Set(chosen.id.uuid()),
            flag: Set(chosen.flag.clone()),
            created_at: Set(chosen.created_at),
            ..changes(chosen)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, chosen: &FlagOverride) -> Result<(), StoreError> {
        self.changes.note(Change::Configuration(self.scope.tenant()));
        let update = self.tx.update::<Entity>().set(changes(chosen));
        exactly_one(update.filter(Column::Id.eq(chosen.id.uuid())).run().await?)
    }

    async fn delete(&mut self, flag: &str) -> Result<(), StoreError> {
        self.changes.note(Change::Configuration(self.scope.tenant()));
        let delete = self.tx.delete::<Entity>().filter(Column::Flag.eq(flag));
        exactly_one(delete.run().await?)
    }
}

impl From<Model> for FlagOverride {
    fn from(row: Model) -> Self {
        Self {
            id: row.id.into(),
            flag: row.flag,
            variant: row.variant,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

/// All columns that may change.
fn changes(chosen: &FlagOverride) -> ActiveModel {
    ActiveModel {
        variant: Set(chosen.variant.clone()),
        updated_at: Set(chosen.updated_at),
        version: Set(chosen.version),
        ..Default::default()
    }
}
