use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// Tenants' invoices, and what was used as it is told to the payment provider.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        invoices().create(manager).await?;
        meter_outbox().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        meter_outbox().drop(manager).await?;
        invoices().drop(manager).await
    }
}

/// `created_at` is when the provider made it. Amounts are in the currency's minor unit.
fn invoices() -> TenantTable {
    TenantTable::new("invoices")
        .column("invoice_ref", "text NOT NULL")
        .column("customer_ref", "text NOT NULL")
        .column("subscription_ref", "text")
        .column("number", "text")
        .column("status", "text")
        .column("currency", "text NOT NULL")
        .column("total", "bigint NOT NULL")
        .column("amount_due", "bigint NOT NULL")
        .column("amount_paid", "bigint NOT NULL")
        .column("period_start", "timestamptz NOT NULL")
        .column("period_end", "timestamptz NOT NULL")
        .column("attempts", "integer NOT NULL")
        .column("next_attempt_at", "timestamptz")
        .column("url", "text")
        .column("lines", "jsonb NOT NULL")
        .column("updated_at", "timestamptz NOT NULL")
        .unique("invoices_invoice_ref_key", &["invoice_ref"])
        .check("invoices_lines_check", "jsonb_typeof(lines) = 'array'")
}

/// One row for each revision of an hour's number.
fn meter_outbox() -> TenantTable {
    TenantTable::new("meter_outbox")
        .column("meter", "text NOT NULL")
        .column("hour", "timestamptz NOT NULL")
        .column("revision", "bigint NOT NULL")
        .column("quantity", "bigint NOT NULL")
        .column("identifier", "text NOT NULL")
        .column("state", "text NOT NULL")
        .column("attempts", "integer NOT NULL")
        .column("reason", "text")
        .column("sent_at", "timestamptz")
        .unique("meter_outbox_revision_key", &["meter", "hour", "revision"])
        .index("meter_outbox_state_idx", &["state", "hour", "id"])
        .check("meter_outbox_quantity_check", "quantity >= 0 AND attempts >= 0")
        .check(
            "meter_outbox_state_check",
            "state IN ('pending', 'sent', 'replaced', 'late', 'dead')",
        )
}
