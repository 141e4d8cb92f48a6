use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Invitations to a tenant, each with the hash of the token in its latest mail.
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

/// Neither accepted nor revoked. An expired invitation is in here as well: time is not part of an index.
const UNSETTLED: &str = "accepted_at IS NULL AND revoked_at IS NULL";

fn table() -> TenantTable {
    TenantTable::new("invitations")
        .belongs_to("invited_by", "users", OnDelete::Cascade)
        .column("email", "text NOT NULL")
        .column("role", "text NOT NULL")
        .column("token_hash", "bytea NOT NULL")
        .column("sent_at", "timestamptz NOT NULL")
        .column("mails", "integer NOT NULL")
        .column("expires_at", "timestamptz NOT NULL")
        .column("accepted_at", "timestamptz")
        .column("revoked_at", "timestamptz")
        .check("invitations_role_check", "role IN ('admin', 'member', 'viewer')")
        // SHA-256, so that no token itself is stored by mistake.
        .check("invitations_token_hash_check", "octet_length(token_hash) = 32")
        .check("invitations_mails_check", "mails > 0")
        .check(
            "invitations_settled_check",
            "num_nonnulls(accepted_at, revoked_at) <= 1",
        )
        .unique_where("invitations_email_key", &["email"], UNSETTLED)
        .index_where("invitations_unsettled_idx", &["created_at", "id"], UNSETTLED)
        .index("invitations_expires_at_idx", &["expires_at"])
}
