use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// The audit log.
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
    TenantTable::new("audit_events")
        .column("category", "text NOT NULL")
        .column("action", "text NOT NULL")
        .column("target_type", "text NOT NULL")
        .column("target_id", "uuid")
        .column("actor_type", "text NOT NULL")
        .column("actor_id", "uuid")
        .column("request_id", "text NOT NULL")
        .column("ip", "text")
        .column("before", "jsonb")
        .column("after", "jsonb")
        .check(
            "audit_events_category_check",
            "category IN ('change', 'security')",
        )
        .index(
            "audit_events_target_idx",
            &["target_type", "target_id", "created_at", "id"],
        )
        .append_only()
}
