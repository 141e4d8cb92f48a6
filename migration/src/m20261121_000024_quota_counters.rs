use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// How much of each quota is used, and which parts of it instances hold.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        counters().create(manager).await?;
        leases().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        leases().drop(manager).await?;
        counters().drop(manager).await
    }
}

/// That the numbers stay below the limit is no check here: a limit may be lowered below what is used.
fn counters() -> TenantTable {
    TenantTable::new("quota_counters")
        .column("meter", "text NOT NULL")
        .column("period_start", "timestamptz NOT NULL")
        .column("period_end", "timestamptz NOT NULL")
        .column("used", "bigint NOT NULL")
        .column("reserved", "bigint NOT NULL")
        .column("leased", "bigint NOT NULL")
        .column("alerted_included", "integer NOT NULL")
        .column("alerted_limit", "integer NOT NULL")
        .check("quota_counters_period_check", "period_start < period_end")
        .check("quota_counters_used_check", "used >= 0")
        .check("quota_counters_reserved_check", "reserved >= 0")
        .check("quota_counters_leased_check", "leased >= 0")
        .unique("quota_counters_period_key", &["meter", "period_start"])
        .index("quota_counters_period_end_idx", &["period_end"])
}

/// A lease that has expired is kept, so that its holder may still say what was used of it.
fn leases() -> TenantTable {
    TenantTable::new("quota_leases")
        .belongs_to("counter_id", "quota_counters", OnDelete::Cascade)
        .column("instance", "uuid NOT NULL")
        .column("amount", "bigint NOT NULL")
        .column("expires_at", "timestamptz NOT NULL")
        .column("expired", "boolean NOT NULL")
        .check("quota_leases_amount_check", "amount > 0")
        .index_where("quota_leases_expires_at_idx", &["expires_at"], "NOT expired")
}
