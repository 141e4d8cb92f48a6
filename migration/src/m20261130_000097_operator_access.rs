use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// The roles of operators, and what the platform role reads of tenants' rows.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = ROLES.map(str::to_owned).to_vec();
        sql.push(format!(
            "GRANT UPDATE (role, version) ON TABLE operators TO {PLATFORM_ROLE}"
        ));
        for (table, columns) in READ {
            sql.push(format!(
                "CREATE POLICY {table}_platform_select ON {table} FOR SELECT TO {PLATFORM_ROLE} USING ({BYPASS})"
            ));
            sql.push(format!(
                "GRANT SELECT ({columns}) ON TABLE {table} TO {PLATFORM_ROLE}"
            ));
        }
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = Vec::new();
        for (table, columns) in READ {
            sql.push(format!(
                "REVOKE SELECT ({columns}) ON TABLE {table} FROM {PLATFORM_ROLE}"
            ));
            sql.push(format!("DROP POLICY {table}_platform_select ON {table}"));
        }
        sql.push("ALTER TABLE operators DROP COLUMN role, DROP COLUMN version".to_owned());
        execute_all(manager, &sql).await
    }
}

/// Operators of before there were roles could do everything. The default is dropped, so that no operator becomes an owner
/// because a role was forgotten.
const ROLES: [&str; 3] = [
    "ALTER TABLE operators ADD COLUMN role text NOT NULL DEFAULT 'owner', ADD COLUMN version bigint NOT NULL DEFAULT 1",
    "ALTER TABLE operators ALTER COLUMN role DROP DEFAULT",
    "ALTER TABLE operators ADD CONSTRAINT operators_role_check CHECK (role IN ('support', 'billing', 'owner'))",
];

/// The platform role sees rows of tenants only in a transaction that has itself stored a record of the read among the events of
/// operators and names it: a record of another transaction opens nothing. Where the record names a tenant, only that tenant's rows are
/// seen. Policies know rows only, so the columns are for the grants to say.
///
/// Both subqueries stand alone, so that PostgreSQL runs each once for a statement and not for every row.
pub(crate) const BYPASS: &str = "(SELECT EXISTS (SELECT 1 FROM operator_events e \
     WHERE e.id = (nullif(current_setting('app.bypass_event', true), ''))::uuid \
       AND e.xmin = (pg_current_xact_id())::xid AND e.action = 'rows.read' AND e.reason IS NOT NULL)) \
   AND tenant_id = coalesce((SELECT e.target_tenant FROM operator_events e \
     WHERE e.id = (nullif(current_setting('app.bypass_event', true), ''))::uuid), tenant_id)";

/// The tables with the columns that operators see: neither secrets nor what users write at length.
const READ: [(&str, &str); 4] = [
    (
        "users",
        "tenant_id, id, email, full_name, role, is_active, email_verified, created_at, updated_at, deleted_at",
    ),
    (
        "projects",
        "tenant_id, id, name, status, owner_id, created_at, updated_at, deleted_at",
    ),
    (
        "tasks",
        "tenant_id, id, project_id, title, status, priority, assignee_id, due_at, created_at, updated_at, deleted_at",
    ),
    ("usage_days", "tenant_id, id, meter, day, events, quantity"),
];
