use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Documents and links.
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
    TenantTable::new("resources")
        .may_belong_to("project_id", "projects", OnDelete::Restrict)
        .column("name", "text NOT NULL")
        .column("kind", "text NOT NULL")
        .column("content", "text")
        .column("url", "text")
        // Kept by the database, so that what a tenant stores can be summed without reading it.
        .column(
            "size_bytes",
            "bigint NOT NULL GENERATED ALWAYS AS (coalesce(octet_length(content), 0)) STORED",
        )
        .belongs_to("created_by", "users", OnDelete::Restrict)
        .versioned()
        .soft_deleted()
        .check("resources_body_check", "(content IS NULL) <> (url IS NULL)")
        .index_where("resources_live_idx", &["created_at", "id"], "deleted_at IS NULL")
        .index_where(
            "resources_project_id_idx",
            &["project_id", "created_at", "id"],
            "project_id IS NOT NULL",
        )
}
