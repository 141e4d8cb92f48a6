use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// How much usage was accepted by day, so that there are bounds for it.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        intake().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        intake().drop(manager).await
    }
}

/// Of a meter, what was accepted of the events of a day. In the row of the meter `*`, which cannot be the key of one, how many
/// events were accepted on a day, of whichever day they are.
fn intake() -> TenantTable {
    TenantTable::new("usage_intake")
        .column("meter", "text NOT NULL")
        .column("day", "timestamptz NOT NULL")
        .column("events", "bigint NOT NULL")
        .column("quantity", "bigint NOT NULL")
        .generated_id()
        .check("usage_intake_events_check", "events >= 0")
        .check("usage_intake_quantity_check", "quantity >= 0")
        .unique("usage_intake_day_key", &["meter", "day"])
}
