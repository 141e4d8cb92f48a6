use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// When the password of a user expires that somebody else chose. Passwords of before never expire: of these nobody knows who chose them.
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

const UP: [&str; 2] = [
    "ALTER TABLE users ADD COLUMN password_expires_at timestamptz",
    "CREATE INDEX users_password_expires_at_idx ON users (tenant_id, password_expires_at) \
     WHERE password_expires_at IS NOT NULL",
];

const DOWN: [&str; 1] = ["ALTER TABLE users DROP COLUMN password_expires_at"];
