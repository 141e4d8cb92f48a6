use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// Counts notices of many kinds, several of each in a day, beside those that are sent at most once a day.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &UP.map(str::to_owned)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &DOWN.map(str::to_owned)).await
    }
}

const UP: [&str; 4] = [
    "ALTER TABLE account_notices ADD COLUMN sent integer NOT NULL DEFAULT 1",
    "ALTER TABLE account_notices DROP CONSTRAINT account_notices_kind_check",
    "ALTER TABLE account_notices ADD CONSTRAINT account_notices_kind_check CHECK (kind ~ '^[a-z_]{1,40}$')",
    "ALTER TABLE account_notices ADD CONSTRAINT account_notices_sent_check CHECK (sent > 0)",
];

const DOWN: [&str; 4] = [
    // Row-level security binds the owner too, so no DELETE would reach the rows of other kinds.
    "TRUNCATE account_notices",
    "ALTER TABLE account_notices DROP CONSTRAINT account_notices_kind_check",
    "ALTER TABLE account_notices ADD CONSTRAINT account_notices_kind_check \
     CHECK (kind IN ('new_network', 'token_reused'))",
    "ALTER TABLE account_notices DROP COLUMN sent",
];
