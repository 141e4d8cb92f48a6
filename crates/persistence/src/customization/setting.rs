use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use serde::{Deserialize, Serialize};
use tenantry_domain::customization::{SealedSecret, SettingSheet, SettingSheets, SettingVersion};
use tenantry_domain::kernel::{Change, StoreError, UserId};

use crate::kernel::error::from_json;
use crate::kernel::store::{PgStore, exactly_one};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenant_settings")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i64,
        pub values: Json,
        pub secrets: Json,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Entity, Model};

pub(crate) mod version {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenant_setting_versions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub version: i64,
        pub values: Json,
        pub secrets: Json,
        pub changed_by: Option<Uuid>,
        pub rolled_back_to: Option<i64>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

/// A secret in its column.
#[derive(Serialize, Deserialize)]
struct Secret {
    sealed: String,
    since: i64,
}

#[async_trait]
impl SettingSheets for PgStore {
    async fn current(&mut self) -> Result<SettingSheet, StoreError> {
        let row = self.tx.find::<Entity>().one().await?;
        row.map_or_else(|| Ok(SettingSheet::default()), SettingSheet::try_from)
    }

    async fn store(&mut self, sheet: &SettingSheet, version: &SettingVersion) -> Result<(), StoreError> {
        self.changes.note(Change::Configuration(self.scope.tenant()));
        let row = ActiveModel {
            updated_at: Set(version.created_at),
            version: Set(sheet.version),
            ..changes(sheet)?
        };
        if sheet.version == 1 {
            let row = ActiveModel {
                created_at: Set(version.created_at),
                ..row
            };
            self.tx.insert(row).await?;
        } else {
            exactly_one(self.tx.update::<Entity>().set(row).run().await?)?;
        }
        let entry = version::ActiveModel {
            created_at: Set(version.created_at),
            version: Set(version.version),
            values: Set(serde_json::to_value(&version.values).map_err(from_json)?),
            secrets: Set(serde_json::to_value(&version.secrets).map_err(from_json)?),
            changed_by: Set(version.changed_by.map(UserId::uuid)),
            rolled_back_to: Set(version.rolled_back_to),
            ..Default::default()
        };
        self.tx.insert(entry).await
    }

    async fn store_resealed(&mut self, sheet: &SettingSheet) -> Result<(), StoreError> {
        self.changes.note(Change::Configuration(self.scope.tenant()));
        exactly_one(self.tx.update::<Entity>().set(changes(sheet)?).run().await?)
    }

    async fn find_version(&mut self, version: i64) -> Result<Option<SettingVersion>, StoreError> {
        let find = self.tx.find::<version::Entity>();
        let row = find.filter(version::Column::Version.eq(version)).one().await?;
        row.map(SettingVersion::try_from).transpose()
    }

    async fn list_versions(
        &mut self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<SettingVersion>, StoreError> {
        let mut find = self.tx.find::<version::Entity>();
        if let Some(before) = before {
            find = find.filter(version::Column::Version.lt(before));
        }
        let rows = find
            .order_by_desc(version::Column::Version)
            .limit(u64::from(limit))
            .all()
            .await?;
        rows.into_iter().map(SettingVersion::try_from).collect()
    }
}

impl TryFrom<Model> for SettingSheet {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let secrets: BTreeMap<String, Secret> = serde_json::from_value(row.secrets).map_err(from_json)?;
        let secret = |(key, secret): (String, Secret)| {
            let sealed = STANDARD.decode(secret.sealed);
            let sealed = sealed.map_err(|error| StoreError::Other(format!("a sealed secret: {error}")))?;
            let since = secret.since;
            Ok((key, SealedSecret { sealed, since }))
        };
        Ok(Self {
            version: row.version,
            updated_at: Some(row.updated_at),
            values: serde_json::from_value(row.values).map_err(from_json)?,
            secrets: secrets
                .into_iter()
                .map(secret)
                .collect::<Result<_, StoreError>>()?,
        })
    }
}

impl TryFrom<version::Model> for SettingVersion {
    type Error = StoreError;

    fn try_from(row: version::Model) -> Result<Self, StoreError> {
        Ok(Self {
            version: row.version,
            values: serde_json::from_value(row.values).map_err(from_json)?,
            secrets: serde_json::from_value(row.secrets).map_err(from_json)?,
            changed_by: row.changed_by.map(Into::into),
            rolled_back_to: row.rolled_back_to,
            created_at: row.created_at,
        })
    }
}

/// What is set.
fn changes(sheet: &SettingSheet) -> Result<ActiveModel, StoreError> {
    let secrets = sheet.secrets.iter().map(|(key, secret)| {
        let sealed = STANDARD.encode(&secret.sealed);
        (
            key,
            Secret {
                sealed,
                since: secret.since,
            },
        )
    });
    let secrets: BTreeMap<_, _> = secrets.collect();
    Ok(ActiveModel {
        values: Set(serde_json::to_value(&sheet.values).map_err(from_json)?),
        secrets: Set(serde_json::to_value(secrets).map_err(from_json)?),
        ..Default::default()
    })
}
