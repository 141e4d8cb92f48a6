use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// A user may have several links for a purpose, and former addresses are found by themselves.
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

const UP: [&str; 3] = [
    "DROP INDEX account_links_user_purpose_key",
    "CREATE INDEX account_links_user_purpose_idx ON account_links (tenant_id, user_id, purpose, created_at)",
    "CREATE INDEX account_links_former_idx ON account_links (tenant_id, email) WHERE purpose = 'revert_email'",
];

/// Links are short-lived: where a user has several for a purpose, all are dropped, and the user asks for another one.
const DOWN: [&str; 4] = [
    "DROP INDEX account_links_former_idx",
    "DROP INDEX account_links_user_purpose_idx",
    "TRUNCATE account_links",
    "CREATE UNIQUE INDEX account_links_user_purpose_key ON account_links (tenant_id, user_id, purpose) \
     WHERE purpose <> 'revert_email'",
];
