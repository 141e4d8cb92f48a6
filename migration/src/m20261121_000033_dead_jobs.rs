use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// Counts what was given up without going through the tenants.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = "CREATE INDEX jobs_dead_idx ON jobs (tenant_id) WHERE state = 'dead'";
        execute_all(manager, &[index.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &["DROP INDEX jobs_dead_idx".to_owned()]).await
    }
}
