use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{PLATFORM_ROLE, TenantTable};

/// What each tenant has with the payment provider, and whether it is suspended because it owes something.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await?;
        let sql = [
            "ALTER TABLE tenants ADD COLUMN suspended_for_payment boolean NOT NULL DEFAULT false".to_owned(),
            // An operator who suspends or resumes takes the matter into their own hands.
            format!("GRANT UPDATE (suspended_for_payment) ON TABLE tenants TO {PLATFORM_ROLE}"),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = "ALTER TABLE tenants DROP COLUMN suspended_for_payment".to_owned();
        execute_all(manager, &[column]).await?;
        table().drop(manager).await
    }
}

/// The subscription is kept in columns, not in a table of its own: of the provider's subscriptions one counts.
fn table() -> TenantTable {
    TenantTable::new("billing_accounts")
        .column("customer_ref", "text")
        .column("subscription_ref", "text")
        .column("subscription_status", "text")
        .column("plan", "text")
        .column("plan_version", "integer")
        .column("currency", "text")
        .column("billing_interval", "text")
        .column("seats", "integer")
        .column("period_start", "timestamptz")
        .column("period_end", "timestamptz")
        .column("trial_ends_at", "timestamptz")
        .column("cancel_at_period_end", "boolean")
        .column("canceled_at", "timestamptz")
        .column("subscribed_at", "timestamptz")
        .column("cycle_anchor", "timestamptz")
        .column("dunning", "text NOT NULL")
        .column("dunning_failed_at", "timestamptz")
        .column("dunning_steps", "integer NOT NULL")
        .column("dunning_next_at", "timestamptz")
        .column("refusal", "text")
        .column("fetches", "bigint NOT NULL")
        .column("applied", "bigint NOT NULL")
        .column("synced_at", "timestamptz")
        .versioned()
        .single()
        .check(
            "billing_accounts_subscription_check",
            "num_nulls(subscription_ref, subscription_status, seats, period_start, period_end, cancel_at_period_end, \
             subscribed_at) IN (0, 7) AND (subscription_ref IS NULL OR customer_ref IS NOT NULL)",
        )
        .check(
            "billing_accounts_offer_check",
            "num_nulls(plan, plan_version, currency, billing_interval) IN (0, 4) \
             AND billing_interval IN ('month', 'year')",
        )
        .check(
            "billing_accounts_dunning_check",
            "dunning IN ('healthy', 'grace', 'suspended') AND (dunning = 'healthy') = (dunning_failed_at IS NULL) \
             AND dunning_steps >= 0",
        )
        .check("billing_accounts_applied_check", "applied >= 0 AND applied <= fetches")
}
