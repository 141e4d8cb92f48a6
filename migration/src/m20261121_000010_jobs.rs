use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{PLATFORM_ROLE, TenantTable};

/// Work of tenants that is done later.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await?;
        execute_all(manager, &platform_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().drop(manager).await
    }
}

fn table() -> TenantTable {
    TenantTable::new("jobs")
        .column("kind", "text NOT NULL")
        .column("schema_version", "integer NOT NULL")
        .column("payload", "jsonb NOT NULL")
        .column("dedupe_key", "text")
        .column("state", "text NOT NULL")
        .column("run_at", "timestamptz NOT NULL")
        .column("attempts", "integer NOT NULL")
        .column("max_attempts", "integer NOT NULL")
        .column("lease_id", "uuid")
        .column("lease_until", "timestamptz")
        .column("worker", "text")
        .column("trace_parent", "text")
        .column("actor_type", "text NOT NULL")
        .column("actor_id", "uuid")
        .column("request_id", "text NOT NULL")
        .column("last_error", "text")
        .column("finished_at", "timestamptz")
        .check(
            "jobs_state_check",
            "state IN ('queued', 'running', 'parked', 'done', 'dead', 'cancelled')",
        )
        .check("jobs_attempts_check", "attempts >= 0 AND max_attempts > 0")
        // A job runs exactly while somebody has it.
        .check(
            "jobs_lease_check",
            "(state = 'running') = (lease_id IS NOT NULL) AND (lease_id IS NULL) = (lease_until IS NULL) \
             AND (lease_id IS NULL) = (worker IS NULL)",
        )
        .check(
            "jobs_finished_at_check",
            "(state IN ('done', 'dead', 'cancelled')) = (finished_at IS NOT NULL)",
        )
        .unique_where(
            "jobs_dedupe_key",
            &["kind", "dedupe_key"],
            "dedupe_key IS NOT NULL AND state IN ('queued', 'running', 'parked')",
        )
        // What workers look through. It leaves out what has come to its end, which is nearly all of it.
        .index_where(
            "jobs_open_idx",
            &["state", "run_at", "id"],
            "state IN ('queued', 'running', 'parked')",
        )
        .index("jobs_state_idx", &["state", "created_at", "id"])
}

/// Workers look for jobs of all tenants as the platform role. It may see that there is a job and lease it, and never
/// what is in it: that is for the runtime role within the tenant. Policies know rows only, so the columns are for the
/// grants to say. Nor can it bring a job to its end, other than cancel it.
fn platform_sql() -> Vec<String> {
    vec![
        format!("CREATE POLICY jobs_platform_select ON jobs FOR SELECT TO {PLATFORM_ROLE} USING (true)"),
        format!(
            "CREATE POLICY jobs_platform_update ON jobs FOR UPDATE TO {PLATFORM_ROLE} \
             USING (state IN ('queued', 'running', 'parked')) \
             WITH CHECK (state IN ('queued', 'running', 'cancelled'))"
        ),
        format!("REVOKE ALL ON TABLE jobs FROM {PLATFORM_ROLE}"),
        format!(
            "GRANT SELECT (tenant_id, id, kind, state, run_at, attempts, lease_id, lease_until, worker), \
             UPDATE (state, attempts, lease_id, lease_until, worker, finished_at) ON TABLE jobs TO {PLATFORM_ROLE}"
        ),
    ]
}
