use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Units of quotas that are set aside, and thresholds that were reached.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        reservations().create(manager).await?;
        alerts().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        alerts().drop(manager).await?;
        reservations().drop(manager).await
    }
}

fn reservations() -> TenantTable {
    TenantTable::new("quota_reservations")
        .belongs_to("counter_id", "quota_counters", OnDelete::Cascade)
        .column("meter", "text NOT NULL")
        .column("period_start", "timestamptz NOT NULL")
        .column("period_end", "timestamptz NOT NULL")
        .column("amount", "bigint NOT NULL")
        .column("state", "text NOT NULL")
        .column("actual", "bigint")
        .column("expires_at", "timestamptz NOT NULL")
        .check("quota_reservations_amount_check", "amount > 0")
        .check(
            "quota_reservations_state_check",
            "state IN ('open', 'committed', 'released', 'expired')",
        )
        .check(
            "quota_reservations_actual_check",
            "(state = 'committed') = (actual IS NOT NULL) AND actual >= 0",
        )
        .index_where(
            "quota_reservations_expires_at_idx",
            &["expires_at"],
            "state = 'open'",
        )
}

/// There is one for each threshold of a period.
fn alerts() -> TenantTable {
    TenantTable::new("quota_alerts")
        .belongs_to("counter_id", "quota_counters", OnDelete::Cascade)
        .column("meter", "text NOT NULL")
        .column("period_start", "timestamptz NOT NULL")
        .column("period_end", "timestamptz NOT NULL")
        .column("base", "text NOT NULL")
        .column("percent", "integer NOT NULL")
        .column("amount", "bigint NOT NULL")
        .column("used", "bigint NOT NULL")
        .column("told_at", "timestamptz")
        .unique("quota_alerts_threshold_key", &["counter_id", "base", "percent"])
}
