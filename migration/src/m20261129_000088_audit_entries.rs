use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// More about each entry of the audit log, and the order in which transactions have written entries.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &UP.map(str::to_owned)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await
    }
}

/// `xact` is the transaction that has written an entry. Entries are chained in its order once all transactions before it have
/// ended, so an entry that commits late is not passed over. It is a number rather than an `xid8`, whose comparison is not
/// leakproof everywhere, and which drivers do not know. Entries of before have 0: they are chained first.
const UP: [&str; 5] = [
    "ALTER TABLE audit_events ADD COLUMN user_agent text, ADD COLUMN outcome text NOT NULL DEFAULT 'success', \
     ADD COLUMN risk text NOT NULL DEFAULT 'low', ADD COLUMN xact bigint NOT NULL DEFAULT 0",
    "ALTER TABLE audit_events ALTER COLUMN xact SET DEFAULT ((pg_current_xact_id())::text)::bigint",
    "ALTER TABLE audit_events ADD CONSTRAINT audit_events_outcome_check CHECK (outcome IN ('success', 'failure'))",
    "ALTER TABLE audit_events ADD CONSTRAINT audit_events_risk_check CHECK (risk IN ('low', 'medium', 'high'))",
    "CREATE INDEX audit_events_xact_idx ON audit_events (tenant_id, xact, id)",
];

const DOWN: &str = "ALTER TABLE audit_events DROP COLUMN user_agent, DROP COLUMN outcome, DROP COLUMN risk, DROP COLUMN xact";
