use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// Since when a tenant is suspended, who changed its state and why, when it is purged, and what is still to be done to its rows.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            COLUMNS.to_owned(),
            CHECKS.to_owned(),
            ROW_WORK.to_owned(),
            PURGE_AT.to_owned(),
            // The accounts of a deleted tenant leave the index of addresses when its users are marked as deleted, and are back when
            // they are restored. Until then the lists leave the tenant out by its state.
            "DROP TRIGGER tenants_addresses_update ON tenants".to_owned(),
            // Jobs of a deleted tenant wait until it is restored.
            format!(
                "ALTER POLICY jobs_platform_update ON jobs WITH CHECK (state IN ({OPEN}, 'parked', 'cancelled'))"
            ),
            format!("GRANT UPDATE ({PLATFORM_COLUMNS}) ON TABLE tenants TO {PLATFORM_ROLE}"),
            format!("SET LOCAL ROLE {PLATFORM_ROLE}"),
            OF_SUSPENDED.to_owned(),
            OF_DELETED.to_owned(),
            "RESET ROLE".to_owned(),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            format!("SET LOCAL ROLE {PLATFORM_ROLE}"),
            // An earlier release does not know the state; the rows that are left are those of a deleted tenant.
            "UPDATE tenants SET status = 'deleted' WHERE status = 'purged'".to_owned(),
            "RESET ROLE".to_owned(),
            format!("ALTER POLICY jobs_platform_update ON jobs WITH CHECK (state IN ({OPEN}, 'cancelled'))"),
            ADDRESSES.to_owned(),
            DOWN.to_owned(),
        ];
        execute_all(manager, &sql).await
    }
}

const OPEN: &str = "'queued', 'running'";

const COLUMNS: &str = "\
ALTER TABLE tenants
    ADD COLUMN suspended_at timestamptz,
    ADD COLUMN purge_at timestamptz,
    ADD COLUMN status_reason text,
    ADD COLUMN status_actor text,
    ADD COLUMN status_actor_id uuid,
    ADD COLUMN row_work text,
    ADD COLUMN row_counts jsonb NOT NULL DEFAULT '{}'";

const CHECKS: &str = "\
ALTER TABLE tenants
    DROP CONSTRAINT tenants_status_check,
    ADD CONSTRAINT tenants_status_check
        CHECK (status IN ('provisioning', 'active', 'suspended', 'deleted', 'purged')),
    ADD CONSTRAINT tenants_status_reason_check CHECK (char_length(status_reason) BETWEEN 1 AND 500),
    ADD CONSTRAINT tenants_status_actor_check CHECK ((status_reason IS NULL) = (status_actor IS NULL)),
    ADD CONSTRAINT tenants_row_work_check CHECK (row_work IN ('delete', 'restore', 'purge')),
    ADD CONSTRAINT tenants_row_counts_check CHECK (jsonb_typeof(row_counts) = 'object')";

/// For the job that works through the rows.
const ROW_WORK: &str = "CREATE INDEX tenants_row_work_idx ON tenants (id) WHERE row_work IS NOT NULL";

/// For the job that purges tenants when their time is over.
const PURGE_AT: &str = "CREATE INDEX tenants_purge_at_idx ON tenants (purge_at) WHERE status = 'deleted'";

/// What operators and that job change besides the columns of before.
const PLATFORM_COLUMNS: &str =
    "suspended_at, purge_at, status_reason, status_actor, status_actor_id, row_work, row_counts";

const OF_SUSPENDED: &str = "UPDATE tenants SET suspended_at = updated_at WHERE status = 'suspended'";

/// Their rows were never marked, and nobody was told of a purge.
const OF_DELETED: &str = "\
UPDATE tenants SET deleted_at = coalesce(deleted_at, updated_at), purge_at = now() + interval '30 days', row_work = 'delete'
 WHERE status = 'deleted'";

const ADDRESSES: &str = "\
CREATE TRIGGER tenants_addresses_update AFTER UPDATE OF status ON tenants FOR EACH ROW WHEN (NEW.status = 'deleted')
    EXECUTE FUNCTION user_addresses_drop()";

const DOWN: &str = "\
ALTER TABLE tenants
    DROP CONSTRAINT tenants_status_check,
    ADD CONSTRAINT tenants_status_check CHECK (status IN ('provisioning', 'active', 'suspended', 'deleted')),
    DROP COLUMN suspended_at, DROP COLUMN purge_at, DROP COLUMN status_reason, DROP COLUMN status_actor,
    DROP COLUMN status_actor_id, DROP COLUMN row_work, DROP COLUMN row_counts";
