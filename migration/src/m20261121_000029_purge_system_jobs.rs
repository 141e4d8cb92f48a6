use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// Lets the platform role delete the system's jobs that are over: those that come round every minute would fill the
/// table.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let grant = format!("GRANT DELETE ON TABLE system_jobs TO {PLATFORM_ROLE}");
        execute_all(manager, &[grant, FINISHED.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let revoke = format!("REVOKE DELETE ON TABLE system_jobs FROM {PLATFORM_ROLE}");
        execute_all(
            manager,
            &["DROP INDEX system_jobs_finished_idx".to_owned(), revoke],
        )
        .await
    }
}

/// What the purge looks through.
const FINISHED: &str =
    "CREATE INDEX system_jobs_finished_idx ON system_jobs (finished_at) WHERE state IN ('done', 'cancelled')";
