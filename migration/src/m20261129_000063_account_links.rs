use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Links that were sent to users by mail and were not used yet, each with the hash of its token; and when a user got a notice
/// of a kind that is sent at most once a day.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        links().create(manager).await?;
        notices().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        notices().drop(manager).await?;
        links().drop(manager).await
    }
}

fn links() -> TenantTable {
    TenantTable::new("account_links")
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("purpose", "text NOT NULL")
        .column("token_hash", "bytea NOT NULL")
        .column("email", "text NOT NULL")
        .column("expires_at", "timestamptz NOT NULL")
        .check(
            "account_links_purpose_check",
            "purpose IN ('reset_password', 'verify_email', 'confirm_email', 'revert_email')",
        )
        // SHA-256, so that no token itself is stored by mistake.
        .check("account_links_token_hash_check", "octet_length(token_hash) = 32")
        // A new link takes the place of the one before it, except that each former address keeps its own.
        .unique_where(
            "account_links_user_purpose_key",
            &["user_id", "purpose"],
            "purpose <> 'revert_email'",
        )
        .index("account_links_expires_at_idx", &["expires_at"])
}

fn notices() -> TenantTable {
    TenantTable::new("account_notices")
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("kind", "text NOT NULL")
        .column("sent_at", "timestamptz NOT NULL")
        .check(
            "account_notices_kind_check",
            "kind IN ('new_network', 'token_reused')",
        )
        .unique("account_notices_user_kind_key", &["user_id", "kind"])
}
