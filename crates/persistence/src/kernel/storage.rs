use async_trait::async_trait;
use sea_orm::ActiveValue::Set;
use tenantry_domain::kernel::{ResourceId, Storage, StoreError, Time};

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::{Lock, TenantTx};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "storage_usage")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub bytes: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Entity};

/// What all versions of a tenant's resources hold.
const OF_ALL: &str = "\
SELECT coalesce(sum(octet_length(r.content)), 0)::bigint AS bytes FROM resource_versions r WHERE r.tenant_id = $1";

/// What the versions of one resource hold.
const OF_ONE: &str = "\
SELECT coalesce(sum(octet_length(r.content)), 0)::bigint AS bytes \
  FROM resource_versions r WHERE r.tenant_id = $1 AND r.resource_id = $2";

#[async_trait]
impl Storage for PgStore {
    async fn used(&mut self) -> Result<u64, StoreError> {
        match self.tx.find::<Entity>().one().await? {
            Some(row) => Ok(row.bytes.unsigned_abs()),
            None => sum(&mut self.tx, OF_ALL, None).await,
        }
    }

    async fn used_for_update(&mut self, now: Time) -> Result<u64, StoreError> {
        let locked = |row: entity::Model| row.bytes.unsigned_abs();
        if let Some(row) = self.tx.find::<Entity>().lock(Lock::Update).one().await? {
            return Ok(locked(row));
        }
        // Whoever comes first makes the row; the others wait for them here and find it below.
        let row = ActiveModel {
            created_at: Set(now),
            bytes: Set(0),
            ..Default::default()
        };
        if self.tx.insert_unless_there(row).await? {
            let bytes = sum(&mut self.tx, OF_ALL, None).await?;
            self.set_used(bytes).await?;
            return Ok(bytes);
        }
        let row = self.tx.find::<Entity>().lock(Lock::Update).one().await?;
        row.map(locked)
            .ok_or_else(|| StoreError::Other("the row of the storage used is gone".into()))
    }

    async fn set_used(&mut self, bytes: u64) -> Result<(), StoreError> {
        let bytes = i64::try_from(bytes).map_err(|error| StoreError::Other(error.to_string()))?;
        let row = ActiveModel {
            bytes: Set(bytes),
            ..Default::default()
        };
        exactly_one(self.tx.update::<Entity>().set(row).run().await?)
    }

    async fn used_by(&mut self, resource: ResourceId) -> Result<u64, StoreError> {
        sum(&mut self.tx, OF_ONE, Some(resource)).await
    }
}

async fn sum(tx: &mut TenantTx, sql: &'static str, resource: Option<ResourceId>) -> Result<u64, StoreError> {
    let row = tx.fetch_fixed(sql, resource.map(|id| id.uuid().into())).await?;
    let bytes: i64 = row.map_or(Ok(0), |row| column(&row, "bytes"))?;
    Ok(bytes.unsigned_abs())
}
