use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// What tasks and resources are filed under.
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
    TenantTable::new("projects")
        .column("name", "text NOT NULL")
        .column("description", "text")
        .column("status", "text NOT NULL")
        .belongs_to("owner_id", "users", OnDelete::Restrict)
        .column("view_count", "bigint NOT NULL DEFAULT 0")
        .versioned()
        .soft_deleted()
        .check("projects_status_check", "status IN ('active', 'archived')")
        .check("projects_view_count_check", "view_count >= 0")
        // The name of a deleted project can be used again; restoring it then is a conflict.
        .unique_where("projects_name_key", &["name"], "deleted_at IS NULL")
}
