use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Which users are in which projects.
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
    TenantTable::new("project_members")
        .belongs_to("project_id", "projects", OnDelete::Cascade)
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("role", "text NOT NULL")
        .junction("project_members_member_key", &["project_id", "user_id"])
        .check(
            "project_members_role_check",
            "role IN ('owner', 'member', 'viewer')",
        )
        .index(
            "project_members_project_id_idx",
            &["project_id", "created_at", "user_id"],
        )
        .index("project_members_user_id_idx", &["user_id"])
}
