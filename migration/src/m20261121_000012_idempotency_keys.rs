use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Requests that carried an idempotency key, and how they were answered.
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

/// A row is stored with the change that the request made, so there is none without an answer.
fn table() -> TenantTable {
    TenantTable::new("idempotency_keys")
        .generated_id()
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("route", "text NOT NULL")
        .column("key", "text NOT NULL")
        .column("fingerprint", "bytea NOT NULL")
        .column("role", "text NOT NULL")
        .column("status", "integer NOT NULL")
        .column("headers", "jsonb NOT NULL")
        .column("sealed_body", "bytea NOT NULL")
        .column("expires_at", "timestamptz NOT NULL")
        .check("idempotency_keys_key_check", "char_length(key) BETWEEN 1 AND 255")
        .check(
            "idempotency_keys_fingerprint_check",
            "octet_length(fingerprint) = 32",
        )
        .check(
            "idempotency_keys_role_check",
            "role IN ('viewer', 'member', 'admin')",
        )
        // What failed was undone, and there is nothing to repeat.
        .check("idempotency_keys_status_check", "status BETWEEN 200 AND 299")
        .unique("idempotency_keys_request_key", &["user_id", "route", "key"])
        .index("idempotency_keys_expires_at_idx", &["expires_at"])
}
