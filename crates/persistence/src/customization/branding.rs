use async_trait::async_trait;
use sea_orm::ActiveValue::Set;
use tenantry_domain::customization::{Branding, Brandings};
use tenantry_domain::kernel::{Change, StoreError};

use crate::kernel::store::{PgStore, exactly_one};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "brandings")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i64,
        pub display_name: Option<String>,
        pub logo_url: Option<String>,
        pub favicon_url: Option<String>,
        pub primary_color: String,
        pub accent_color: String,
        pub support_email: Option<String>,
        #[sea_orm(column_type = "Text")]
        pub custom_css: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Entity, Model};

#[async_trait]
impl Brandings for PgStore {
    async fn current(&mut self) -> Result<Branding, StoreError> {
        let row = self.tx.find::<Entity>().one().await?;
        Ok(row.map(Branding::from).unwrap_or_default())
    }

    async fn store(&mut self, branding: &Branding) -> Result<(), StoreError> {
        self.changes.note(Change::Configuration(self.scope.tenant()));
        let changed_at = branding.updated_at.unwrap_or_default();
        let row = ActiveModel {
            updated_at: Set(changed_at),
            version: Set(branding.version),
            display_name: Set(branding.display_name.clone()),
            logo_url: Set(branding.logo_url.clone()),
            favicon_url: Set(branding.favicon_url.clone()),
            primary_color: Set(branding.primary_color.clone()),
            accent_color: Set(branding.accent_color.clone()),
            support_email: Set(branding.support_email.clone()),
            custom_css: Set(branding.custom_css.clone()),
            ..Default::default()
        };
        if branding.version == 1 {
            let row = ActiveModel {
                created_at: Set(changed_at),
                ..row
            };
            return self.tx.insert(row).await;
        }
        exactly_one(self.tx.update::<Entity>().set(row).run().await?)
    }
}

impl From<Model> for Branding {
    fn from(row: Model) -> Self {
        Self {
            version: row.version,
            updated_at: Some(row.updated_at),
            display_name: row.display_name,
            logo_url: row.logo_url,
            favicon_url: row.favicon_url,
            primary_color: row.primary_color,
            accent_color: row.accent_color,
            support_email: row.support_email,
            custom_css: row.custom_css,
        }
    }
}
