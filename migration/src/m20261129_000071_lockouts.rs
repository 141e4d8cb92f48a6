use sea_orm_migration::prelude::*;

use crate::TenantTable;
use crate::tenant_table::execute_all;

/// Failed guesses of passwords and codes in a row, of each account from each network and from all together; and from which
/// trusted device a session began, which its lockout does not hold up.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await?;
        execute_all(manager, &[UP.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await?;
        table().drop(manager).await
    }
}

const UP: &str = "ALTER TABLE refresh_sessions ADD COLUMN device_hash bytea";
const DOWN: &str = "ALTER TABLE refresh_sessions DROP COLUMN device_hash";

fn table() -> TenantTable {
    TenantTable::new("lockouts")
        .generated_id()
        // Of an address that no user may have, so it does not refer to one.
        .column("account", "bytea NOT NULL")
        .column("kind", "text NOT NULL")
        .column("place", "text NOT NULL")
        .column("failures", "integer NOT NULL")
        .column("last_at", "timestamptz NOT NULL")
        .column("locked_until", "timestamptz")
        .column("exempt_until", "timestamptz")
        // A part of a SHA-256, so that no address itself is stored by mistake.
        .check("lockouts_account_check", "octet_length(account) = 16")
        .check("lockouts_kind_check", "kind IN ('password', 'code')")
        .check("lockouts_place_check", "length(place) BETWEEN 1 AND 60")
        .check("lockouts_failures_check", "failures >= 0")
        .unique("lockouts_account_key", &["account", "kind", "place"])
        .index("lockouts_last_at_idx", &["last_at"])
}
