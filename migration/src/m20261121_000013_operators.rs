use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// Those who run the platform, and the record of what they did.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = [OPERATORS, EVENTS, NEWEST, OF_OPERATOR, OF_TENANT]
            .map(str::to_owned)
            .to_vec();
        for table in ["operators", "operator_events"] {
            sql.push(format!(
                "REVOKE ALL ON TABLE {table} FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"
            ));
        }
        sql.push(format!(
            "GRANT SELECT, INSERT, UPDATE (full_name, password_hash, is_active, updated_at) \
             ON TABLE operators TO {PLATFORM_ROLE}"
        ));
        // Append-only: what is recorded is neither changed nor deleted, not by operators either.
        sql.push(format!(
            "GRANT SELECT, INSERT ON TABLE operator_events TO {PLATFORM_ROLE}"
        ));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = ["DROP TABLE operator_events", "DROP TABLE operators"].map(str::to_owned);
        execute_all(manager, &sql).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): operators are in no tenant, and the runtime role never sees them.
const OPERATORS: &str = "\
CREATE TABLE operators (
    id uuid NOT NULL,
    email text NOT NULL,
    full_name text NOT NULL,
    password_hash text NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT operators_pkey PRIMARY KEY (id),
    CONSTRAINT operators_email_key UNIQUE (email),
    CONSTRAINT operators_email_check CHECK (email = lower(email))
)";

/// The tenant is no foreign key: the record outlives whatever it is about. Where nobody was logged in, as with a
/// command on the server, `operator_id` is null.
const EVENTS: &str = "\
CREATE TABLE operator_events (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    operator_id uuid,
    action text NOT NULL,
    reason text,
    target_tenant uuid,
    request_id text NOT NULL,
    ip text,
    details jsonb NOT NULL,
    CONSTRAINT operator_events_pkey PRIMARY KEY (id),
    CONSTRAINT operator_events_operator_id_fkey FOREIGN KEY (operator_id) REFERENCES operators (id),
    CONSTRAINT operator_events_details_check CHECK (jsonb_typeof(details) = 'object')
)";

/// For lists, newest first.
const NEWEST: &str = "CREATE INDEX operator_events_at_idx ON operator_events (at, id)";

/// What one operator did.
const OF_OPERATOR: &str = "CREATE INDEX operator_events_operator_id_idx ON operator_events (operator_id, at)";

/// What was done to one tenant.
const OF_TENANT: &str =
    "CREATE INDEX operator_events_target_tenant_idx ON operator_events (target_tenant, at)";
