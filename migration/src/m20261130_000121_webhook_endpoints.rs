use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// The endpoints to which webhooks of a tenant are sent.
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

/// Secrets and custom headers are one sealed value. `failing_since`, `last_failure_at` and `failures` are of the failures since the last
/// success: deliveries change them, and they are no part of the version. The row of a deleted
/// endpoint is removed when its deliveries are.
fn table() -> TenantTable {
    TenantTable::new("webhook_endpoints")
        .column("url", "text NOT NULL")
        .column("description", "text")
        .column("event_types", "jsonb NOT NULL")
        .column("rate_limit", "integer")
        .column("ordered", "boolean NOT NULL")
        .column("signature", "text NOT NULL")
        .column("public_key", "text")
        .column("header_names", "jsonb NOT NULL")
        .column("sealed_credentials", "bytea NOT NULL")
        .column("former_until", "timestamptz")
        .column("enabled", "boolean NOT NULL")
        .column("disabled_reason", "text")
        .column("disabled_at", "timestamptz")
        .column("failing_since", "timestamptz")
        .column("last_failure_at", "timestamptz")
        .column("failures", "integer NOT NULL DEFAULT 0")
        .check("webhook_endpoints_url_check", "url ~ '^https?://'")
        .check("webhook_endpoints_event_types_check", "jsonb_typeof(event_types) = 'array'")
        .check("webhook_endpoints_rate_limit_check", "rate_limit BETWEEN 1 AND 1000")
        .check(
            "webhook_endpoints_signature_check",
            "signature IN ('v1', 'v1a') AND (signature = 'v1a') = (public_key IS NOT NULL)",
        )
        .check(
            "webhook_endpoints_disabled_check",
            "enabled = (disabled_at IS NULL) AND (disabled_reason IS NULL OR (NOT enabled AND disabled_reason IN ('failing', 'gone')))",
        )
        .check(
            "webhook_endpoints_failures_check",
            "(failures = 0) = (failing_since IS NULL) AND (failing_since IS NULL) = (last_failure_at IS NULL) AND failures >= 0",
        )
        .check(
            "webhook_endpoints_deleted_check",
            "deleted_at IS NULL OR NOT enabled",
        )
        .soft_deleted()
        .versioned()
}
