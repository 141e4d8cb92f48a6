use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{PLATFORM_ROLE, TenantTable};

/// Totals of usage by hour and by day, and which hours have changed since they were made.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        rollup("usage_hours", "hour").create(manager).await?;
        rollup("usage_days", "day").create(manager).await?;
        dirty().create(manager).await?;
        execute_all(manager, &platform_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dirty().drop(manager).await?;
        rollup("usage_days", "day").drop(manager).await?;
        rollup("usage_hours", "hour").drop(manager).await
    }
}

/// `revision` grows each time the number changes.
fn rollup(name: &str, period: &str) -> TenantTable {
    TenantTable::new(name)
        .column("meter", "text NOT NULL")
        .column(period, "timestamptz NOT NULL")
        .column("quantity", "bigint NOT NULL")
        .column("events", "bigint NOT NULL")
        .column("revision", "bigint NOT NULL")
        .column("computed_at", "timestamptz NOT NULL")
        .generated_id()
        .unique(&format!("{name}_key"), &["meter", period])
        .check(&format!("{name}_quantity_check"), "quantity >= 0 AND events >= 0")
        .check(&format!("{name}_revision_check"), "revision > 0")
}

/// A row for each transaction that added events of an hour, stored with them: it is seen when they are, in whichever order
/// transactions commit. The same hour may be there any number of times; if it were there once, one who found it there
/// would leave no mark of events that nobody sees yet.
fn dirty() -> TenantTable {
    TenantTable::new("usage_dirty")
        .column("meter", "text NOT NULL")
        .column("hour", "timestamptz NOT NULL")
        .index("usage_dirty_hour_idx", &["meter", "hour"])
}

/// The platform role learns which tenants have something to be totalled, and nothing else of it.
fn platform_sql() -> Vec<String> {
    vec![
        format!(
            "CREATE POLICY usage_dirty_platform_select ON usage_dirty FOR SELECT TO {PLATFORM_ROLE} USING (true)"
        ),
        format!("REVOKE ALL ON TABLE usage_dirty FROM {PLATFORM_ROLE}"),
        format!("GRANT SELECT (tenant_id, hour, created_at) ON TABLE usage_dirty TO {PLATFORM_ROLE}"),
    ]
}
