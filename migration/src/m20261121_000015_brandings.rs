use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// How each tenant looks.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().drop(manager).await
    }
}

/// At most one row of a tenant.
fn table() -> TenantTable {
    TenantTable::new("brandings")
        .column("display_name", "text")
        .column("logo_url", "text")
        .column("favicon_url", "text")
        .column("primary_color", "text NOT NULL")
        .column("accent_color", "text NOT NULL")
        .column("support_email", "text")
        .column("custom_css", "text NOT NULL")
        .versioned()
        .generated_id()
        .single()
        .check(
            "brandings_colors_check",
            "primary_color ~ '^#[0-9a-f]{6}$' AND accent_color ~ '^#[0-9a-f]{6}$'",
        )
        .check("brandings_custom_css_check", "octet_length(custom_css) <= 65536")
}
