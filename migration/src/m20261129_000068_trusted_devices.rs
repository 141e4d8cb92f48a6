use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Devices on which a user logs in without the second factor for a while.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().drop(manager).await
    }
}

fn table() -> TenantTable {
    TenantTable::new("trusted_devices")
        .generated_id()
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("token_hash", "bytea NOT NULL")
        .column("password_digest", "bytea NOT NULL")
        .column("user_agent", "text")
        .column("ip", "text")
        .column("expires_at", "timestamptz NOT NULL")
        .check(
            "trusted_devices_token_hash_check",
            "octet_length(token_hash) = 32",
        )
        .check(
            "trusted_devices_password_digest_check",
            "octet_length(password_digest) = 32",
        )
        .unique("trusted_devices_token_key", &["user_id", "token_hash"])
        .index("trusted_devices_expires_at_idx", &["expires_at"])
}
