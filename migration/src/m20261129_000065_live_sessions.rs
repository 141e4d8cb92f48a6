use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// Finds the sessions of a user that have not ended, however many of the user's sessions have.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[UP.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await
    }
}

const UP: &str = "CREATE INDEX refresh_sessions_open_idx ON refresh_sessions (tenant_id, user_id, created_at, id) \
    WHERE revoked_at IS NULL";

const DOWN: &str = "DROP INDEX refresh_sessions_open_idx";
