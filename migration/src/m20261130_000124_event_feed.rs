use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE, TenantTable};

/// Positions of consumers in feeds of events, how far the log of all tenants and the export are, and that log.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        consumers().create(manager).await?;
        progress().create(manager).await?;
        execute_all(manager, &log_sql()).await?;
        execute_all(manager, &[ERASED.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            "ALTER TABLE erasures DROP COLUMN event_position",
            "DROP TABLE event_log",
            "DROP TABLE event_log_state",
            "DROP POLICY event_progress_platform_select ON event_progress",
            "DROP POLICY event_progress_platform_update ON event_progress",
        ];
        execute_all(manager, &sql.map(str::to_owned)).await?;
        progress().drop(manager).await?;
        consumers().drop(manager).await
    }
}

/// Up to where programs of the tenant have processed its feed, by their names.
fn consumers() -> TenantTable {
    TenantTable::new("event_consumers")
        .column("name", "text NOT NULL")
        .column("position", "bigint NOT NULL")
        .versioned()
        .check("event_consumers_position_check", "position >= 0")
        .check(
            "event_consumers_name_check",
            "name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'",
        )
        .unique("event_consumers_name_key", &["name"])
}

/// The last position that was published, that is in the log of all tenants, that was exported, and that was deleted because of its age. A process
/// exports until `lease_until`.
fn progress() -> TenantTable {
    TenantTable::new("event_progress")
        .generated_id()
        .column("published", "bigint NOT NULL")
        .column("listed", "bigint NOT NULL DEFAULT 0")
        .column("exported", "bigint NOT NULL DEFAULT 0")
        .column("deleted", "bigint NOT NULL DEFAULT 0")
        .column("lease_id", "uuid")
        .column("lease_until", "timestamptz")
        .check("event_progress_listed_check", "listed >= 0 AND exported >= 0")
        .check(
            "event_progress_lease_check",
            "(lease_id IS NULL) = (lease_until IS NULL)",
        )
        .index_where("event_progress_listed_idx", &["listed"], "listed < published")
        .index_where(
            "event_progress_exported_idx",
            &["exported"],
            "exported < published",
        )
        .single()
}

/// The platform role sees which tenants have published events that are not in the log or not exported, and notes what it has added to the log.
fn log_sql() -> Vec<String> {
    let mut sql = vec![
        format!("REVOKE ALL ON TABLE event_progress FROM {PLATFORM_ROLE}"),
        format!(
            "CREATE POLICY event_progress_platform_select ON event_progress FOR SELECT TO {PLATFORM_ROLE} USING (true)"
        ),
        format!(
            "CREATE POLICY event_progress_platform_update ON event_progress FOR UPDATE TO {PLATFORM_ROLE} \
             USING (listed < published) WITH CHECK (listed <= published)"
        ),
        format!(
            "GRANT SELECT (tenant_id, published, listed, exported, deleted, lease_until) ON TABLE event_progress TO {PLATFORM_ROLE}"
        ),
        format!("GRANT UPDATE (listed) ON TABLE event_progress TO {PLATFORM_ROLE}"),
    ];
    sql.extend([LOG, OF_TENANT, STATE, FIRST_STATE].map(str::to_owned));
    for table in ["event_log", "event_log_state"] {
        sql.push(format!(
            "REVOKE ALL ON TABLE {table} FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"
        ));
    }
    sql.push(format!(
        "GRANT SELECT, INSERT, DELETE ON TABLE event_log TO {PLATFORM_ROLE}"
    ));
    sql.push(format!(
        "GRANT SELECT, UPDATE (last, floor) ON TABLE event_log_state TO {PLATFORM_ROLE}"
    ));
    sql
}

/// Not a [`TenantTable`]: the numbers are one order over all tenants. It says which positions of a tenant's feed were published, and nothing of
/// the events. The entries of a tenant go with it.
const LOG: &str = "\
CREATE TABLE event_log (
    number bigint NOT NULL,
    of_tenant uuid NOT NULL,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT event_log_pkey PRIMARY KEY (number),
    CONSTRAINT event_log_number_check CHECK (number > 0),
    CONSTRAINT event_log_position_check CHECK (first_position > 0 AND last_position >= first_position)
)";

const OF_TENANT: &str = "CREATE INDEX event_log_of_tenant_idx ON event_log (of_tenant, number)";

/// One row: the last number that was given, and the last number that was deleted. Its lock is held until the commit, so numbers are committed in
/// their order. They are not taken from the log, whose last entries may be those of a tenant that is gone.
const STATE: &str = "\
CREATE TABLE event_log_state (
    only_row boolean NOT NULL DEFAULT true,
    last bigint NOT NULL DEFAULT 0,
    floor bigint NOT NULL DEFAULT 0,
    CONSTRAINT event_log_state_pkey PRIMARY KEY (only_row),
    CONSTRAINT event_log_state_only_row_check CHECK (only_row),
    CONSTRAINT event_log_state_floor_check CHECK (floor >= 0 AND floor <= last)
)";

/// Up to which position of the feed a person was erased, so that the erasure of a long feed goes on where it was stopped.
const ERASED: &str = "ALTER TABLE erasures ADD COLUMN event_position bigint NOT NULL DEFAULT 0";

const FIRST_STATE: &str = "INSERT INTO event_log_state DEFAULT VALUES";
