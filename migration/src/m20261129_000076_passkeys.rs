use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{OnDelete, TenantTable};

/// Passkeys of users, which of their registrations and logins were finished within the last minutes, and how the users of sessions have
/// authenticated.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            table.create(manager).await?;
        }
        execute_all(manager, &UP.map(str::to_owned)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await?;
        for table in tables() {
            table.drop(manager).await?;
        }
        Ok(())
    }
}

const UP: [&str; 2] = [
    "ALTER TABLE refresh_sessions ADD COLUMN methods smallint NOT NULL DEFAULT 1",
    "ALTER TABLE refresh_sessions ADD CONSTRAINT refresh_sessions_methods_check CHECK (methods BETWEEN 1 AND 15)",
];

const DOWN: &str = "ALTER TABLE refresh_sessions DROP COLUMN methods";

fn tables() -> [TenantTable; 2] {
    [
        TenantTable::new("passkeys")
            .belongs_to("user_id", "users", OnDelete::Cascade)
            .column("name", "text NOT NULL")
            .column("credential_id", "bytea NOT NULL")
            .column("public_key", "bytea NOT NULL")
            .column("sign_count", "bigint NOT NULL")
            .column("backup", "text NOT NULL")
            .column("transports", "smallint NOT NULL")
            .column("last_used_at", "timestamptz")
            .check(
                "passkeys_credential_id_check",
                "octet_length(credential_id) BETWEEN 16 AND 1023",
            )
            .check("passkeys_sign_count_check", "sign_count BETWEEN 0 AND 4294967295")
            .check(
                "passkeys_backup_check",
                "backup IN ('none', 'eligible', 'exists')",
            )
            .check("passkeys_transports_check", "transports BETWEEN 0 AND 255")
            .unique("passkeys_credential_key", &["credential_id"]),
        TenantTable::new("passkey_ceremonies")
            .generated_id()
            .belongs_to("user_id", "users", OnDelete::Cascade)
            .column("digest", "bytea NOT NULL")
            .column("ends_at", "timestamptz NOT NULL")
            .check("passkey_ceremonies_digest_check", "octet_length(digest) = 32")
            .unique("passkey_ceremonies_digest_key", &["digest"])
            .index("passkey_ceremonies_ends_at_idx", &["ends_at"]),
    ]
}
