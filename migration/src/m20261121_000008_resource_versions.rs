use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Every version of every resource, as it was.
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

fn table() -> TenantTable {
    TenantTable::new("resource_versions")
        .belongs_to("resource_id", "resources", OnDelete::Cascade)
        .column("version", "bigint NOT NULL")
        .column("name", "text NOT NULL")
        .column("kind", "text NOT NULL")
        .column("content", "text")
        .column("url", "text")
        .belongs_to("created_by", "users", OnDelete::Restrict)
        .generated_id()
        .unique("resource_versions_version_key", &["resource_id", "version"])
        .check("resource_versions_version_check", "version > 0")
        .check(
            "resource_versions_body_check",
            "(content IS NULL) <> (url IS NULL)",
        )
        // History is not rewritten. It goes only with its resource, and a cascade needs no grant.
        .append_only()
}
