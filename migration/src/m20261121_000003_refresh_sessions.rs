use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Login sessions, each with the hash of the refresh token that is valid now.
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
    TenantTable::new("refresh_sessions")
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("token_hash", "bytea NOT NULL")
        .column("previous_hash", "bytea")
        .column("rotated_at", "timestamptz")
        .column("expires_at", "timestamptz NOT NULL")
        .column("revoked_at", "timestamptz")
        .column("user_agent", "text")
        .column("ip", "text")
        // SHA-256, so that nobody stores a token itself by mistake.
        .check(
            "refresh_sessions_token_hash_check",
            "octet_length(token_hash) = 32",
        )
        .check(
            "refresh_sessions_previous_hash_check",
            "octet_length(previous_hash) = 32",
        )
        .index("refresh_sessions_user_id_idx", &["user_id", "created_at", "id"])
}
