use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// The system's own work that is done later.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let grants = [
            format!("REVOKE ALL ON TABLE system_jobs FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            format!("GRANT SELECT, INSERT, UPDATE ON TABLE system_jobs TO {PLATFORM_ROLE}"),
        ];
        let mut sql = vec![TABLE.to_owned(), INDEX.to_owned(), NEWEST.to_owned()];
        sql.extend(grants);
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &["DROP TABLE system_jobs".to_owned()]).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): these jobs are no tenant's, and the runtime role never sees them.
const TABLE: &str = "\
CREATE TABLE system_jobs (
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    kind text NOT NULL,
    schema_version integer NOT NULL,
    payload jsonb NOT NULL,
    dedupe_key text,
    state text NOT NULL,
    run_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    max_attempts integer NOT NULL,
    lease_id uuid,
    lease_until timestamptz,
    worker text,
    last_error text,
    finished_at timestamptz,
    CONSTRAINT system_jobs_pkey PRIMARY KEY (id),
    CONSTRAINT system_jobs_dedupe_key UNIQUE (kind, dedupe_key),
    CONSTRAINT system_jobs_state_check CHECK (state IN ('queued', 'running', 'done', 'dead', 'cancelled')),
    CONSTRAINT system_jobs_attempts_check CHECK (attempts >= 0 AND max_attempts > 0),
    CONSTRAINT system_jobs_lease_check CHECK ((state = 'running') = (lease_id IS NOT NULL)
        AND (lease_id IS NULL) = (lease_until IS NULL) AND (lease_id IS NULL) = (worker IS NULL)),
    CONSTRAINT system_jobs_finished_at_check
        CHECK ((state IN ('done', 'dead', 'cancelled')) = (finished_at IS NOT NULL))
)";

/// What workers look through.
const INDEX: &str =
    "CREATE INDEX system_jobs_open_idx ON system_jobs (run_at, id) WHERE state IN ('queued', 'running')";

/// For operators' lists.
const NEWEST: &str = "CREATE INDEX system_jobs_created_at_idx ON system_jobs (created_at, id)";
