use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// Finds what is due, what was abandoned and what was given up without going through the tenants. These indexes are not led by
/// the tenant, since nobody but the platform role asks like that.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = INDEXES.map(|(name, rest)| format!("CREATE INDEX {name} ON jobs {rest}"));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = INDEXES.map(|(name, _)| format!("DROP INDEX {name}"));
        execute_all(manager, &sql).await
    }
}

const INDEXES: [(&str, &str); 3] = [
    ("jobs_due_idx", "(run_at, tenant_id) WHERE state = 'queued'"),
    (
        "jobs_leased_idx",
        "(lease_until, tenant_id) WHERE state = 'running'",
    ),
    ("jobs_dead_idx", "(tenant_id) WHERE state = 'dead'"),
];
