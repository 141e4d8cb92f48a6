use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// What the payment provider tells of, and which of its customers is which tenant.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = [EVENTS, NEWEST, WATERMARK, CUSTOMERS, OPEN]
            .map(str::to_owned)
            .to_vec();
        for table in ["provider_events", "provider_watermark", "provider_customers"] {
            sql.push(format!(
                "REVOKE ALL ON TABLE {table} FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"
            ));
        }
        // What an event said is never changed; its message may be forgotten.
        sql.push(format!(
            "GRANT SELECT, INSERT, UPDATE (body, state, reason, attempts, settled_at) \
             ON TABLE provider_events TO {PLATFORM_ROLE}"
        ));
        // Whose customer it is cannot be changed at all.
        sql.push(format!(
            "GRANT SELECT, INSERT, UPDATE (customer_ref, removed_at) ON TABLE provider_customers TO {PLATFORM_ROLE}"
        ));
        sql.push(format!(
            "GRANT SELECT, INSERT, UPDATE (looked_until) ON TABLE provider_watermark TO {PLATFORM_ROLE}"
        ));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = ["provider_customers", "provider_watermark", "provider_events"];
        let sql = tables.map(|table| format!("DROP TABLE {table}"));
        execute_all(manager, &sql).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): an event belongs to nobody until the customer that it names is found below.
const EVENTS: &str = "\
CREATE TABLE provider_events (
    id text NOT NULL,
    kind text NOT NULL,
    created_at timestamptz NOT NULL,
    object text,
    object_id text,
    customer_ref text,
    subscription_ref text,
    body bytea,
    received_at timestamptz NOT NULL,
    state text NOT NULL,
    reason text,
    attempts integer NOT NULL,
    settled_at timestamptz,
    CONSTRAINT provider_events_pkey PRIMARY KEY (id),
    CONSTRAINT provider_events_state_check CHECK (state IN ('pending', 'done', 'ignored', 'dead')),
    CONSTRAINT provider_events_settled_at_check CHECK ((state = 'pending') = (settled_at IS NULL)),
    CONSTRAINT provider_events_attempts_check CHECK (attempts >= 0)
)";

/// For operators' lists.
const NEWEST: &str = "CREATE INDEX provider_events_received_at_idx ON provider_events (received_at, id)";

/// Until when the provider was asked for what it had not told of: one row at most.
const WATERMARK: &str = "\
CREATE TABLE provider_watermark (
    id boolean NOT NULL DEFAULT true,
    looked_until timestamptz NOT NULL,
    CONSTRAINT provider_watermark_pkey PRIMARY KEY (id),
    CONSTRAINT provider_watermark_id_check CHECK (id)
)";

/// Written before the provider is asked to make a customer, so that none is forgotten when whoever asked goes away.
const CUSTOMERS: &str = "\
CREATE TABLE provider_customers (
    of_tenant uuid NOT NULL,
    customer_ref text,
    created_at timestamptz NOT NULL,
    removed_at timestamptz,
    CONSTRAINT provider_customers_pkey PRIMARY KEY (of_tenant),
    CONSTRAINT provider_customers_customer_ref_key UNIQUE (customer_ref),
    CONSTRAINT provider_customers_of_tenant_fkey FOREIGN KEY (of_tenant) REFERENCES tenants (id) ON DELETE RESTRICT
)";

/// For sweeps over customers.
const OPEN: &str =
    "CREATE INDEX provider_customers_open_idx ON provider_customers (of_tenant) WHERE removed_at IS NULL";
