use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Exports of a tenant: archives that are being written or can be downloaded.
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
    TenantTable::new("tenant_exports")
        .may_belong_to("requested_by", "users", OnDelete::Restrict)
        .column("status", "text NOT NULL")
        .column("rows_written", "bigint NOT NULL")
        .column("bytes", "bigint")
        .column("failure", "text")
        .column("finished_at", "timestamptz")
        .column("expires_at", "timestamptz")
        // The same text in every row of an export that is under way, so that the key lets one be.
        .column("open_key", "text")
        .check(
            "tenant_exports_status_check",
            "status IN ('queued', 'running', 'ready', 'failed', 'expired')",
        )
        .check("tenant_exports_rows_check", "rows_written >= 0")
        .check(
            "tenant_exports_ready_check",
            "status <> 'ready' OR num_nonnulls(bytes, finished_at, expires_at) = 3",
        )
        .check(
            "tenant_exports_open_check",
            "(open_key IS NOT NULL) = (status IN ('queued', 'running'))",
        )
        .unique("tenant_exports_open_key", &["open_key"])
}
