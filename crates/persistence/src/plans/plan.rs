use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, EntityTrait as _, QueryOrder as _, QueryTrait as _};
use serde_json::{Value, json};
use tenantry_domain::kernel::{
    Change, IdSource, InvalidationPublisher, OperatorEventId, RequestId, StoreError, SystemScope, Time,
};
use tenantry_domain::plans::{PlanVersion, PlanVersions};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::advisory;
use crate::kernel::store::Changes;
use crate::kernel::tx::PlatformTx;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "plan_versions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub version: i32,
        pub definition: Json,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
use entity::{ActiveModel, Column, Entity, Model};

/// The versions of plans, as the platform role.
#[derive(Clone)]
pub struct PgPlanVersions {
    platform: Pool,
    publisher: Arc<dyn InvalidationPublisher>,
    ids: Arc<dyn IdSource>,
}

impl std::fmt::Debug for PgPlanVersions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgPlanVersions")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl PgPlanVersions {
    /// Versions over a pool of the platform role; `publisher` gets every new one, and `ids` names its record.
    pub fn new(platform: Pool, publisher: Arc<dyn InvalidationPublisher>, ids: Arc<dyn IdSource>) -> Self {
        Self {
            platform,
            publisher,
            ids,
        }
    }

    /// Records in the log of operators that a version was added, by no operator.
    async fn record(
        &self,
        tx: &mut PlatformTx,
        (plan, version): (&str, i32),
        request: &RequestId,
        at: Time,
    ) -> Result<(), StoreError> {
        let arguments = [
            OperatorEventId::next(self.ids.as_ref()).uuid().into(),
            at.into(),
            request.as_str().into(),
            json!({"plan": plan, "version": version}).into(),
        ];
        tx.fetch_fixed(RECORD, arguments).await.map(|_| ())
    }
}

/// `$1` id, `$2` time, `$3` request, `$4` details.
const RECORD: &str = "\
INSERT INTO operator_events (id, at, action, request_id, details) VALUES ($1, $2, 'plan.version_added', $3, $4)";

#[async_trait]
impl PlanVersions for PgPlanVersions {
    async fn all(&self, because: SystemScope) -> Result<Vec<PlanVersion>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let all = all(&mut tx).await?;
        tx.commit().await?;
        Ok(all)
    }

    async fn keep(
        &self,
        because: SystemScope,
        definitions: &[(String, Value)],
        at: Time,
    ) -> Result<Vec<PlanVersion>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.fetch_fixed(advisory::KEEP_PLANS, []).await?;
        let kept = all(&mut tx).await?;
        let request = RequestId::next(self.ids.as_ref());
        let mut changes = Changes::new(Arc::clone(&self.publisher));
        for (name, definition) in definitions {
            let versions = || kept.iter().filter(|row| row.name == *name);
            if versions().any(|row| row.definition == *definition) {
                continue;
            }
            let newest = versions().map(|row| row.version).max().unwrap_or_default();
            let version = signed(newest + 1)?;
            let row = ActiveModel {
                name: Set(name.clone()),
                version: Set(version),
                definition: Set(definition.clone()),
                created_at: Set(at),
            };
            tx.execute(&sea_orm::Insert::one(row).into_query()).await?;
            self.record(&mut tx, (name, version), &request, at).await?;
            changes.note(Change::Catalogue);
        }
        let kept = all(&mut tx).await?;
        tx.commit().await?;
        drop(changes);
        Ok(kept)
    }
}

async fn all(tx: &mut PlatformTx) -> Result<Vec<PlanVersion>, StoreError> {
    let find = Entity::find()
        .order_by_asc(Column::Name)
        .order_by_asc(Column::Version);
    let rows = tx.fetch::<Entity>(&find.into_query()).await?;
    rows.into_iter().map(PlanVersion::try_from).collect()
}

impl TryFrom<Model> for PlanVersion {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            name: row.name,
            version: unsigned(row.version)?,
            definition: row.definition,
            created_at: row.created_at,
        })
    }
}

/// A version of a plan as the database has it.
pub(crate) fn signed(version: u32) -> Result<i32, StoreError> {
    i32::try_from(version).map_err(|_| StoreError::Other(format!("version {version} of a plan")))
}

/// A version of a plan as the domain has it.
pub(crate) fn unsigned(version: i32) -> Result<u32, StoreError> {
    u32::try_from(version).map_err(|_| StoreError::Other(format!("version {version} of a plan")))
}
