use async_trait::async_trait;
use sea_orm::ActiveValue::Set;
use tenantry_domain::kernel::{SecurityDetectionId, StoreError, Time};
use tenantry_domain::security::{Detection, Detections};

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "security_detections")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub sequence: i64,
        pub counted: Json,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Entity, Model};

/// `$2` since when.
const FIRST_SINCE: &str =
    "SELECT min(b.first_sequence) AS first FROM audit_blocks b WHERE b.tenant_id = $1 AND b.max_at >= $2";

#[async_trait]
impl Detections for PgStore {
    async fn current_for_update(&mut self) -> Result<Option<Detection>, StoreError> {
        let row = self.tx.find::<Entity>().lock(Lock::Update).one().await?;
        row.map(Detection::try_from).transpose()
    }

    async fn begin_since(&mut self, since: Time) -> Result<Option<i64>, StoreError> {
        let row = self.tx.fetch_fixed(FIRST_SINCE, [since.into()]).await?;
        let first: Option<i64> = row.map_or(Ok(None), |row| column(&row, "first"))?;
        Ok(first.map(|first| first - 1))
    }

    async fn insert(
        &mut self,
        id: SecurityDetectionId,
        detection: &Detection,
        now: Time,
    ) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(id.uuid()),
            created_at: Set(now),
            ..changes(detection)?
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, detection: &Detection) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(detection)?);
        exactly_one(update.run().await?)
    }

    async fn update_sequence(&mut self, sequence: i64) -> Result<(), StoreError> {
        let moved = ActiveModel {
            sequence: Set(sequence),
            ..Default::default()
        };
        exactly_one(self.tx.update::<Entity>().set(moved).run().await?)
    }
}

fn changes(detection: &Detection) -> Result<ActiveModel, StoreError> {
    let counted = serde_json::to_value(detection).map_err(|error| StoreError::Other(error.to_string()))?;
    Ok(ActiveModel {
        sequence: Set(detection.sequence),
        counted: Set(counted),
        ..Default::default()
    })
}

impl TryFrom<Model> for Detection {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let mut detection: Self =
            serde_json::from_value(row.counted).map_err(|error| StoreError::Other(error.to_string()))?;
        detection.sequence = row.sequence;
        Ok(detection)
    }
}
