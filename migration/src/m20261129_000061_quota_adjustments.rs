use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// What an operator has corrected of a counter, beside what the ledger says: a correction lasts until the period ends.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = ["ALTER TABLE quota_counters ADD COLUMN adjustment bigint NOT NULL DEFAULT 0".to_owned()];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = ["ALTER TABLE quota_counters DROP COLUMN adjustment".to_owned()];
        execute_all(manager, &sql).await
    }
}
