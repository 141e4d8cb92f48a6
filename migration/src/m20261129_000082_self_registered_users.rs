use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// Which users registered, so that nobody but them has named the address of the account. Users of before count as added by
/// others: row-level security binds the owner, too, so a migration cannot look for them.
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

const UP: &str = "ALTER TABLE users ADD COLUMN self_registered boolean NOT NULL DEFAULT false";

const DOWN: &str = "ALTER TABLE users DROP COLUMN self_registered";
