use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::kernel::{Change, StoreError};
use tenantry_domain::tenant::{DataKey, DataKeys, StoredDataKeys};

use crate::kernel::store::{PgStore, exactly_one};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "data_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub number: i32,
        pub sealed: Vec<u8>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl DataKeys for PgStore {
    async fn list(&mut self) -> Result<StoredDataKeys, StoreError> {
        let find = self.tx.find::<Entity>().order_by_asc(Column::Number);
        let rows = find.all().await?;
        Ok(StoredDataKeys {
            keys: rows.into_iter().map(DataKey::from).collect(),
            changed_here: self.changes.has(self.change()),
        })
    }

    async fn insert(&mut self, key: &DataKey) -> Result<(), StoreError> {
        self.changes.note(self.change());
        let row = ActiveModel {
            created_at: Set(key.created_at),
            number: Set(key.number),
            sealed: Set(key.sealed.clone()),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn reseal(&mut self, number: i32, sealed: &[u8]) -> Result<(), StoreError> {
        self.changes.note(self.change());
        let row = ActiveModel {
            sealed: Set(sealed.to_vec()),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(row);
        exactly_one(update.filter(Column::Number.eq(number)).run().await?)
    }

    async fn delete(&mut self, number: i32) -> Result<(), StoreError> {
        self.changes.note(self.change());
        let delete = self.tx.delete::<Entity>();
        exactly_one(delete.filter(Column::Number.eq(number)).run().await?)
    }
}

impl PgStore {
    /// The keys are cached with the tenant's configuration.
    fn change(&self) -> Change {
        Change::Configuration(self.scope.tenant())
    }
}

impl From<Model> for DataKey {
    fn from(row: Model) -> Self {
        Self {
            number: row.number,
            sealed: row.sealed,
            created_at: row.created_at,
        }
    }
}
