use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// API keys, each with the hash of its secret.
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
    TenantTable::new("api_keys")
        .column("name", "text NOT NULL")
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("service_account", "boolean NOT NULL")
        .column("scopes", "jsonb NOT NULL")
        .column("allowed_networks", "jsonb NOT NULL")
        .column("secret_hash", "bytea NOT NULL")
        .column("former_hash", "bytea")
        .column("former_until", "timestamptz")
        .column("expires_at", "timestamptz NOT NULL")
        .column("notified", "text NOT NULL")
        .column("last_used_at", "timestamptz")
        .column("revoked_at", "timestamptz")
        .versioned()
        // SHA-256, so that nobody stores a secret itself by mistake.
        .check("api_keys_secret_hash_check", "octet_length(secret_hash) = 32")
        .check(
            "api_keys_former_check",
            "octet_length(former_hash) = 32 AND num_nulls(former_hash, former_until) IN (0, 2)",
        )
        .check("api_keys_notified_check", "notified IN ('far', 'ahead', 'over')")
        .index("api_keys_user_id_idx", &["user_id"])
        .index_where("api_keys_valid_idx", &["created_at", "id"], "revoked_at IS NULL")
        .index_where(
            "api_keys_revoked_at_idx",
            &["revoked_at"],
            "revoked_at IS NOT NULL",
        )
}
