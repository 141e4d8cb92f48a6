use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// When the password of an operator expires that the operator did not choose. Passwords of before never expire: it is not known who chose
/// them.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let grant = format!("GRANT UPDATE (password_expires_at) ON TABLE operators TO {PLATFORM_ROLE}");
        execute_all(manager, &[UP.to_owned(), grant]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await
    }
}

const UP: &str = "ALTER TABLE operators ADD COLUMN password_expires_at timestamptz";

const DOWN: &str = "ALTER TABLE operators DROP COLUMN password_expires_at";
