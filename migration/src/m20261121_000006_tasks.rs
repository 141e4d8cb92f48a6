use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// What is to be done.
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
    TenantTable::new("tasks")
        .belongs_to("project_id", "projects", OnDelete::Restrict)
        .column("title", "text NOT NULL")
        .column("description", "text")
        .column("status", "text NOT NULL")
        .column("priority", "text NOT NULL")
        .may_belong_to("assignee_id", "users", OnDelete::Restrict)
        .column("due_at", "timestamptz")
        .versioned()
        .soft_deleted()
        .check(
            "tasks_status_check",
            "status IN ('todo', 'in_progress', 'done', 'cancelled')",
        )
        .check(
            "tasks_priority_check",
            "priority IN ('low', 'normal', 'high', 'urgent')",
        )
        // One for each filter of the list, in the order of the list.
        .index_where("tasks_live_idx", &["created_at", "id"], "deleted_at IS NULL")
        .index_where(
            "tasks_status_idx",
            &["status", "created_at", "id"],
            "deleted_at IS NULL",
        )
        // These two also answer for the references, so they have the deleted tasks in them: restoring a
        // project looks for those too.
        .index("tasks_project_id_idx", &["project_id", "created_at", "id"])
        .index_where(
            "tasks_assignee_id_idx",
            &["assignee_id", "created_at", "id"],
            "assignee_id IS NOT NULL",
        )
}
