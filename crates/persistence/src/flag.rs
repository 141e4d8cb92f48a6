use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tenantry_domain::{
    Change, FlagCatalogue, FlagDefinition, FlagDefinitions, FlagEditing, FlagProgram, FlagVersion, Mode,
    OperatorId, Segment, StoreError, SystemScope, Time,
};

use crate::Pool;
use crate::error::from_json;
use crate::operator::PgOperatorWork;
use crate::store::exactly_one;
use crate::tx::PlatformTx;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "flags")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: String,
        pub definition: Json,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
use entity::{ActiveModel, Column, Entity};

mod version {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "flag_versions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub version: i64,
        pub definition: Json,
        pub operator_id: Option<Uuid>,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod segment {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "segments")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: String,
        pub definition: Json,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Whoever changes definitions waits for whoever does: each write is checked against all others.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtext('tenantry.flags.edit'))";

/// The definitions of flags, as the platform role; the runtime role has no grant on their tables.
#[derive(Debug, Clone)]
pub struct PgFlags {
    platform: Pool,
}

impl PgFlags {
    /// Definitions over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl FlagDefinitions for PgFlags {
    async fn program(&self, because: SystemScope) -> Result<Arc<FlagProgram>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let catalogue = catalogue(&mut tx).await?;
        tx.commit().await?;
        Ok(Arc::new(FlagProgram::compile(Arc::new(catalogue))))
    }
}

#[async_trait]
impl FlagEditing for PgOperatorWork {
    async fn catalogue_for_update(&mut self) -> Result<FlagCatalogue, StoreError> {
        self.tx.fetch_fixed(ONE_AT_A_TIME, []).await?;
        catalogue(&mut self.tx).await
    }

    async fn store_flag(&mut self, flag: &FlagDefinition, at: Time) -> Result<(), StoreError> {
        self.changes.note(Change::Catalogue);
        let definition = serde_json::to_value(flag).map_err(from_json)?;
        let row = ActiveModel {
            key: Set(flag.key.clone()),
            definition: Set(definition.clone()),
            created_at: Set(at),
            updated_at: Set(at),
            version: Set(flag.version),
        };
        let replace = OnConflict::column(Column::Key)
            .update_columns([Column::Definition, Column::UpdatedAt, Column::Version])
            .to_owned();
        let insert = sea_orm::Insert::one(row).on_conflict(replace).into_query();
        exactly_one(self.tx.execute(&insert).await?)?;
        let row = version::ActiveModel {
            key: Set(flag.key.clone()),
            version: Set(flag.version),
            definition: Set(definition),
            operator_id: Set(self.scope.operator().map(OperatorId::uuid)),
            created_at: Set(at),
        };
        exactly_one(self.tx.execute(&sea_orm::Insert::one(row).into_query()).await?)
    }

    async fn flag_versions(
        &mut self,
        key: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<FlagVersion>, StoreError> {
        let mut find = version::Entity::find()
            .filter(version::Column::Key.eq(key))
            .order_by_desc(version::Column::Version)
            .limit(u64::from(limit));
        if let Some(before) = before {
            find = find.filter(version::Column::Version.lt(before));
        }
        let rows = self.tx.fetch::<version::Entity>(&find.into_query()).await?;
        rows.into_iter().map(FlagVersion::try_from).collect()
    }

    async fn flag_version(&mut self, key: &str, version: i64) -> Result<Option<FlagVersion>, StoreError> {
        let find = version::Entity::find()
            .filter(version::Column::Key.eq(key))
            .filter(version::Column::Version.eq(version));
        let rows = self.tx.fetch::<version::Entity>(&find.into_query()).await?;
        rows.into_iter().next().map(FlagVersion::try_from).transpose()
    }

    async fn store_segment(&mut self, segment: &Segment, at: Time) -> Result<(), StoreError> {
        use segment::Column;
        self.changes.note(Change::Catalogue);
        let row = segment::ActiveModel {
            key: Set(segment.key.clone()),
            definition: Set(serde_json::to_value(segment).map_err(from_json)?),
            created_at: Set(at),
            updated_at: Set(at),
            version: Set(segment.version),
        };
        let replace = OnConflict::column(Column::Key)
            .update_columns([Column::Definition, Column::UpdatedAt, Column::Version])
            .to_owned();
        let insert = sea_orm::Insert::one(row).on_conflict(replace).into_query();
        exactly_one(self.tx.execute(&insert).await?)
    }

    async fn delete_segment(&mut self, key: &str) -> Result<(), StoreError> {
        self.changes.note(Change::Catalogue);
        let delete = segment::Entity::delete_many().filter(segment::Column::Key.eq(key));
        exactly_one(self.tx.execute(&delete.into_query()).await?)
    }
}

async fn catalogue(tx: &mut PlatformTx) -> Result<FlagCatalogue, StoreError> {
    let flags = tx.fetch::<Entity>(&Entity::find().into_query()).await?;
    let segments = tx
        .fetch::<segment::Entity>(&segment::Entity::find().into_query())
        .await?;
    Ok(FlagCatalogue::new(
        flags
            .into_iter()
            .filter_map(|row| readable("flag", &row.key, row.definition)),
        segments
            .into_iter()
            .filter_map(|row| readable("segment", &row.key, row.definition)),
    ))
}

/// A definition, unless this program cannot read it: one that a newer program wrote while servers are being replaced
/// must not take all other flags away.
fn readable<T: DeserializeOwned>(what: &'static str, key: &str, definition: Value) -> Option<T> {
    serde_json::from_value(definition)
        .inspect_err(
            |error| tracing::error!(what, key, %error, "a definition cannot be read and is left out"),
        )
        .ok()
}

impl TryFrom<version::Model> for FlagVersion {
    type Error = StoreError;

    fn try_from(row: version::Model) -> Result<Self, StoreError> {
        Ok(Self {
            definition: serde_json::from_value(row.definition).map_err(from_json)?,
            operator: row.operator_id.map(OperatorId::from),
            created_at: row.created_at,
        })
    }
}
