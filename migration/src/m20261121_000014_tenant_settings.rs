use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// What each tenant has set, and every version of it.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        settings().create(manager).await?;
        versions().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        versions().drop(manager).await?;
        settings().drop(manager).await
    }
}

/// At most one row of a tenant.
fn settings() -> TenantTable {
    TenantTable::new("tenant_settings")
        .column("values", "jsonb NOT NULL")
        // By key: the sealed text in base64, and the version that it was set in.
        .column("secrets", "jsonb NOT NULL")
        .versioned()
        .generated_id()
        .single()
        .check("tenant_settings_values_check", "jsonb_typeof(values) = 'object'")
        .check(
            "tenant_settings_secrets_check",
            "jsonb_typeof(secrets) = 'object'",
        )
}

fn versions() -> TenantTable {
    TenantTable::new("tenant_setting_versions")
        .column("version", "bigint NOT NULL")
        .column("values", "jsonb NOT NULL")
        // By key: the version that it was set in, and never the secret.
        .column("secrets", "jsonb NOT NULL")
        .may_belong_to("changed_by", "users", OnDelete::Restrict)
        .column("rolled_back_to", "bigint")
        .generated_id()
        .unique("tenant_setting_versions_version_key", &["version"])
        .check("tenant_setting_versions_version_check", "version > 0")
        // History is not rewritten.
        .append_only()
}
