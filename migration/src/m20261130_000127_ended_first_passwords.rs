use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// Changes nothing on the way up. On the way down it replaces expired first passwords, before the migration `first_passwords` drops the
/// time of their expiry: without that time they would work again, and for good.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &DOWN.map(str::to_owned)).await
    }
}

/// The owner of the tables sees no row while row-level security is forced. The new hash is of no password: salt and hash are random, 16
/// and 32 bytes in base64 without padding. The user chooses another password by a mailed link, as before.
const DOWN: [&str; 3] = [
    "ALTER TABLE users NO FORCE ROW LEVEL SECURITY",
    "UPDATE users SET password_hash = '$argon2id$v=19$m=19456,t=2,p=1$' \
     || rtrim(encode(uuid_send(gen_random_uuid()), 'base64'), '=') || '$' \
     || rtrim(encode(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'base64'), '=') \
     WHERE password_expires_at <= now()",
    "ALTER TABLE users FORCE ROW LEVEL SECURITY",
];
