use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE, TenantTable};

/// Up to where audit logs were sent to a receiver outside.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        streams().create(manager).await?;
        let mut sql = platform_sql();
        sql.extend([OUTBOX, STREAM, NOTE, TRIGGER].map(str::to_owned));
        sql.push("REVOKE ALL ON FUNCTION operator_events_note() FROM PUBLIC".to_owned());
        sql.push(format!(
            "GRANT EXECUTE ON FUNCTION operator_events_note() TO {PLATFORM_ROLE}"
        ));
        for table in ["operator_event_outbox", "operator_event_stream"] {
            sql.push(format!(
                "REVOKE ALL ON TABLE {table} FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"
            ));
        }
        sql.push(format!(
            "GRANT SELECT, INSERT, DELETE ON TABLE operator_event_outbox TO {PLATFORM_ROLE}"
        ));
        sql.push(format!(
            "GRANT SELECT, INSERT, UPDATE (seeded, lease_id, lease_until) ON TABLE operator_event_stream TO {PLATFORM_ROLE}"
        ));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            "DROP TRIGGER operator_events_note ON operator_events",
            "DROP FUNCTION operator_events_note()",
            "DROP TABLE operator_event_outbox",
            "DROP TABLE operator_event_stream",
            "DROP POLICY audit_streams_platform_select ON audit_streams",
        ];
        execute_all(manager, &sql.map(str::to_owned)).await?;
        streams().drop(manager).await
    }
}

/// The numbers of the last entry and the last head that the receiver has acknowledged. `waiting_since` is null when all of the log was
/// sent. A sender has the log until `lease_until`.
fn streams() -> TenantTable {
    TenantTable::new("audit_streams")
        .generated_id()
        .column("sequence", "bigint NOT NULL")
        .column("head_sequence", "bigint NOT NULL")
        .column("waiting_since", "timestamptz")
        .column("lease_id", "uuid")
        .column("lease_until", "timestamptz")
        .check(
            "audit_streams_sequence_check",
            "sequence >= 0 AND head_sequence >= 0",
        )
        .check(
            "audit_streams_lease_check",
            "(lease_id IS NULL) = (lease_until IS NULL)",
        )
        .index_where(
            "audit_streams_waiting_since_idx",
            &["waiting_since"],
            "waiting_since IS NOT NULL",
        )
        .single()
}

/// Senders look for tenants with something to send. They see which, and since when.
fn platform_sql() -> Vec<String> {
    vec![
        format!(
            "CREATE POLICY audit_streams_platform_select ON audit_streams FOR SELECT TO {PLATFORM_ROLE} USING (true)"
        ),
        format!("REVOKE ALL ON TABLE audit_streams FROM {PLATFORM_ROLE}"),
        format!(
            "GRANT SELECT (tenant_id, waiting_since, lease_until) ON TABLE audit_streams TO {PLATFORM_ROLE}"
        ),
    ]
}

/// The entries of the log of operators that were not sent yet. The log is append-only, so this is no column of it. A cursor would pass over
/// an entry that commits late.
const OUTBOX: &str = "\
CREATE TABLE operator_event_outbox (
    event_id uuid NOT NULL,
    CONSTRAINT operator_event_outbox_pkey PRIMARY KEY (event_id),
    CONSTRAINT operator_event_outbox_event_id_fkey FOREIGN KEY (event_id) REFERENCES operator_events (id)
)";

/// One row from the time on at which the log is streamed. `begun_xact` is the transaction that has added the row: the entries of all later
/// ones are noted. When the stream begins with the oldest entry, the earlier ones are added once those transactions have ended that did not see
/// the row, and `seeded` says that it was done.
const STREAM: &str = "\
CREATE TABLE operator_event_stream (
    only_row boolean NOT NULL DEFAULT true,
    begun_xact bigint NOT NULL DEFAULT ((pg_current_xact_id())::text)::bigint,
    seeded boolean NOT NULL,
    lease_id uuid,
    lease_until timestamptz,
    CONSTRAINT operator_event_stream_pkey PRIMARY KEY (only_row),
    CONSTRAINT operator_event_stream_only_row_check CHECK (only_row),
    CONSTRAINT operator_event_stream_lease_check CHECK ((lease_id IS NULL) = (lease_until IS NULL))
)";

/// It runs as the role that stores the entry. Without a stream it adds nothing.
const NOTE: &str = "\
CREATE OR REPLACE FUNCTION operator_events_note() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.operator_event_outbox (event_id) SELECT NEW.id FROM public.operator_event_stream;
    RETURN NULL;
END $$";

const TRIGGER: &str = "\
CREATE TRIGGER operator_events_note AFTER INSERT ON operator_events FOR EACH ROW EXECUTE FUNCTION operator_events_note()";
