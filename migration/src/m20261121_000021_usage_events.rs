use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE, TenantTable};

/// The ledger of usage, and the keys under which its events were accepted.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        events().create(manager).await?;
        keys().create(manager).await?;
        let sql = [
            MAKE_PARTITIONS.to_owned(),
            format!("REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC, {APP_ROLE}"),
            format!("GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {PLATFORM_ROLE}"),
            // What may be sent later lies in months that have begun already.
            "SELECT usage_events_partitions(4, 3)".to_owned(),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[format!("DROP FUNCTION {SIGNATURE}")]).await?;
        keys().drop(manager).await?;
        events().drop(manager).await
    }
}

/// What happened, once and for all: `created_at` is when it was accepted, `event_at` when it happened. By the latter it is
/// partitioned, since that is what every figure is asked by, and what makes it old.
fn events() -> TenantTable {
    TenantTable::new("usage_events")
        .column("meter", "text NOT NULL")
        .column("quantity", "bigint NOT NULL")
        .column("subject", "text")
        .column("event_at", "timestamptz NOT NULL")
        .column("source", "text NOT NULL")
        .column("idempotency_key", "text NOT NULL")
        .column("origin", "text NOT NULL")
        .column("properties", "jsonb")
        .column("invalidates", "uuid")
        .check("usage_events_quantity_check", "quantity >= 0")
        .check(
            "usage_events_origin_check",
            "origin IN ('api', 'cloudevents', 'server', 'backfill')",
        )
        .check("usage_events_invalidates_check", "invalidates <> id")
        .index("usage_events_meter_idx", &["meter", "event_at"])
        .index_where(
            "usage_events_invalidates_idx",
            &["invalidates"],
            "invalidates IS NOT NULL",
        )
        .partitioned_by("event_at")
        .append_only()
}

/// A unique key of a partitioned table would have to contain the time, and the same event with another time would be
/// another one. So the keys are in a table of their own, which gets its row in the transaction of the event; `id` is the
/// event's. It forgets keys that are too old to be sent again.
fn keys() -> TenantTable {
    TenantTable::new("usage_keys")
        .column("source", "text NOT NULL")
        .column("key", "text NOT NULL")
        .column("payload_hash", "text NOT NULL")
        .unique("usage_keys_key", &["source", "key"])
}

const SIGNATURE: &str = "usage_events_partitions(integer, integer)";

/// Makes the partitions of the present month, of so many before it and so many after it, where they are missing, and says
/// how many it made. It runs as the owner of the tables, because nobody else may make any, and takes nothing but two small
/// numbers. A month of which the default partition has rows already stays there: nothing is moved.
///
/// `ATTACH PARTITION` and not `PARTITION OF`, since only the former lets others read and write meanwhile.
const MAKE_PARTITIONS: &str = "\
CREATE OR REPLACE FUNCTION usage_events_partitions(before integer, after integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    month timestamp;
    part text;
    made integer := 0;
BEGIN
    IF before IS NULL OR after IS NULL OR before NOT BETWEEN 0 AND 24 OR after NOT BETWEEN 0 AND 24 THEN
        RAISE EXCEPTION 'so many months are not made' USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('tenantry.usage_events.partitions'));
    FOR ahead IN -before..after LOOP
        month := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead);
        part := 'usage_events_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass('public.' || part) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE public.%I (LIKE public.usage_events INCLUDING CONSTRAINTS)', part);
            EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', part);
            EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', part);
            EXECUTE format('REVOKE ALL ON TABLE public.%I FROM PUBLIC', part);
            EXECUTE format('ALTER TABLE public.usage_events ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                part, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
            made := made + 1;
        EXCEPTION WHEN check_violation THEN
            RAISE WARNING 'usage of % is in the default partition and stays there', to_char(month, 'YYYY-MM');
        END;
    END LOOP;
    RETURN made;
END $$";
