use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{OnDelete, TenantTable};

/// The second factors of users, the logins that wait for one, and when one was last given in a session.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            table.create(manager).await?;
        }
        execute_all(manager, &[UP.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await?;
        for table in tables() {
            table.drop(manager).await?;
        }
        Ok(())
    }
}

const UP: &str = "ALTER TABLE refresh_sessions ADD COLUMN factor_at timestamptz";
const DOWN: &str = "ALTER TABLE refresh_sessions DROP COLUMN factor_at";

fn tables() -> [TenantTable; 3] {
    [
        TenantTable::new("totp_factors")
            .generated_id()
            .belongs_to("user_id", "users", OnDelete::Cascade)
            .column("sealed_secret", "bytea NOT NULL")
            .column("confirmed_at", "timestamptz")
            .column("last_step", "bigint")
            .unique("totp_factors_user_key", &["user_id"]),
        // A code that was used is deleted, so a user has ten rows at the most.
        TenantTable::new("recovery_codes")
            .generated_id()
            .belongs_to("user_id", "users", OnDelete::Cascade)
            .column("code_hash", "bytea NOT NULL")
            .check("recovery_codes_code_hash_check", "octet_length(code_hash) = 32")
            .unique("recovery_codes_code_key", &["user_id", "code_hash"]),
        TenantTable::new("mfa_challenges")
            .belongs_to("user_id", "users", OnDelete::Cascade)
            .column("password_digest", "bytea NOT NULL")
            .column("failures", "integer NOT NULL")
            .column("expires_at", "timestamptz NOT NULL")
            .check(
                "mfa_challenges_password_digest_check",
                "octet_length(password_digest) = 32",
            )
            .check("mfa_challenges_failures_check", "failures >= 0")
            .index("mfa_challenges_expires_at_idx", &["expires_at"]),
    ]
}
