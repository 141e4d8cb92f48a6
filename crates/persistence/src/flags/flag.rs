use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tenantry_domain::flags::{
    DefinitionVersion, FlagCatalogue, FlagDefinition, FlagDefinitions, FlagEditing, FlagProgram, FlagVersion,
    Segment, SegmentVersion,
};
use tenantry_domain::kernel::{Change, OperatorId, StoreError, SystemScope, Time};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::advisory;
use crate::kernel::error::from_json;
use crate::kernel::store::exactly_one;
use crate::kernel::tx::PlatformTx;
use crate::operations::operator::PgOperatorWork;

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

mod segment_version {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "segment_versions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub version: i64,
        pub definition: Option<Json>,
        pub operator_id: Option<Uuid>,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

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
        self.tx.fetch_fixed(advisory::EDIT_FLAGS, []).await?;
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
        versions::<version::Entity, _>(&mut self.tx, key, before, limit).await
    }

    async fn flag_version(&mut self, key: &str, version: i64) -> Result<Option<FlagVersion>, StoreError> {
        find_version::<version::Entity, _>(&mut self.tx, key, version).await
    }

    async fn store_segment(&mut self, segment: &Segment, at: Time) -> Result<(), StoreError> {
        use segment::Column;
        self.changes.note(Change::Catalogue);
        let definition = serde_json::to_value(segment).map_err(from_json)?;
        let row = segment::ActiveModel {
            key: Set(segment.key.clone()),
            definition: Set(definition.clone()),
            created_at: Set(at),
            updated_at: Set(at),
            version: Set(segment.version),
        };
        let replace = OnConflict::column(Column::Key)
            .update_columns([Column::Definition, Column::UpdatedAt, Column::Version])
            .to_owned();
        let insert = sea_orm::Insert::one(row).on_conflict(replace).into_query();
        exactly_one(self.tx.execute(&insert).await?)?;
        insert_segment_version(self, &segment.key, segment.version, Some(definition), at).await
    }

    async fn delete_segment(&mut self, key: &str, version: i64, at: Time) -> Result<(), StoreError> {
        self.changes.note(Change::Catalogue);
        let delete = segment::Entity::delete_many().filter(segment::Column::Key.eq(key));
        exactly_one(self.tx.execute(&delete.into_query()).await?)?;
        insert_segment_version(self, key, version, None, at).await
    }

    async fn segment_versions(
        &mut self,
        key: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<SegmentVersion>, StoreError> {
        versions::<segment_version::Entity, _>(&mut self.tx, key, before, limit).await
    }

    async fn segment_version(
        &mut self,
        key: &str,
        version: i64,
    ) -> Result<Option<SegmentVersion>, StoreError> {
        find_version::<segment_version::Entity, _>(&mut self.tx, key, version).await
    }
}

async fn insert_segment_version(
    work: &mut PgOperatorWork,
    key: &str,
    version: i64,
    definition: Option<Value>,
    at: Time,
) -> Result<(), StoreError> {
    let row = segment_version::ActiveModel {
        key: Set(key.to_owned()),
        version: Set(version),
        definition: Set(definition),
        operator_id: Set(work.scope.operator().map(OperatorId::uuid)),
        created_at: Set(at),
    };
    exactly_one(work.tx.execute(&sea_orm::Insert::one(row).into_query()).await?)
}

/// A table of versions of what operators define.
trait VersionTable: EntityTrait {
    /// The key of what it is a version of.
    const KEY: Self::Column;
    /// Its number.
    const VERSION: Self::Column;

    /// What is in a row. A null in place of the definition is one in JSON too.
    fn version(row: Self::Model) -> DefinitionVersion<Value>;
}

impl VersionTable for version::Entity {
    const KEY: version::Column = version::Column::Key;
    const VERSION: version::Column = version::Column::Version;

    fn version(row: version::Model) -> DefinitionVersion<Value> {
        DefinitionVersion {
            version: row.version,
            definition: row.definition,
            operator: row.operator_id.map(OperatorId::from),
            created_at: row.created_at,
        }
    }
}

impl VersionTable for segment_version::Entity {
    const KEY: segment_version::Column = segment_version::Column::Key;
    const VERSION: segment_version::Column = segment_version::Column::Version;

    fn version(row: segment_version::Model) -> DefinitionVersion<Value> {
        DefinitionVersion {
            version: row.version,
            definition: row.definition.unwrap_or(Value::Null),
            operator: row.operator_id.map(OperatorId::from),
            created_at: row.created_at,
        }
    }
}

async fn versions<E: VersionTable, T: DeserializeOwned>(
    tx: &mut PlatformTx,
    key: &str,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<DefinitionVersion<T>>, StoreError> {
    let mut find = E::find()
        .filter(E::KEY.eq(key))
        .order_by_desc(E::VERSION)
        .limit(u64::from(limit));
    if let Some(before) = before {
        find = find.filter(E::VERSION.lt(before));
    }
    let rows = tx.fetch::<E>(&find.into_query()).await?;
    rows.into_iter().map(|row| typed(E::version(row))).collect()
}

async fn find_version<E: VersionTable, T: DeserializeOwned>(
    tx: &mut PlatformTx,
    key: &str,
    version: i64,
) -> Result<Option<DefinitionVersion<T>>, StoreError> {
    let find = E::find().filter(E::KEY.eq(key)).filter(E::VERSION.eq(version));
    let rows = tx.fetch::<E>(&find.into_query()).await?;
    rows.into_iter()
        .next()
        .map(|row| typed(E::version(row)))
        .transpose()
}

fn typed<T: DeserializeOwned>(stored: DefinitionVersion<Value>) -> Result<DefinitionVersion<T>, StoreError> {
    Ok(DefinitionVersion {
        version: stored.version,
        definition: serde_json::from_value(stored.definition).map_err(from_json)?,
        operator: stored.operator,
        created_at: stored.created_at,
    })
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
