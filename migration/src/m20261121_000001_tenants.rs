use sea_orm_migration::prelude::*;

use crate::tenant_table::{execute_all, security_sql};
use crate::{APP_ROLE, PLATFORM_ROLE};

/// The tenants themselves.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = vec![TABLE.to_owned(), INDEX.to_owned()];
        // A tenant is never deleted under its own name: the row outlives all others of the tenant.
        sql.extend(security_sql("tenants", "id", "SELECT, INSERT, UPDATE"));
        sql.extend(platform_sql());
        // Whoever starts a server has to know whether the schema is the one it was written for.
        sql.push(format!(
            "GRANT SELECT ON TABLE seaql_migrations TO {APP_ROLE}, {PLATFORM_ROLE}"
        ));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &["DROP TABLE tenants".to_owned()]).await
    }
}

/// Operators see every tenant and move it through its life. That they can change nothing else of it is for
/// the column grants to say, since policies know rows only.
fn platform_sql() -> Vec<String> {
    vec![
        format!(
            "CREATE POLICY tenants_platform_select ON tenants FOR SELECT TO {PLATFORM_ROLE} USING (true)"
        ),
        format!(
            "CREATE POLICY tenants_platform_update ON tenants FOR UPDATE TO {PLATFORM_ROLE} \
             USING (true) WITH CHECK (true)"
        ),
        format!("REVOKE ALL ON TABLE tenants FROM {PLATFORM_ROLE}"),
        format!(
            "GRANT SELECT, UPDATE (status, updated_at, deleted_at, version) ON TABLE tenants TO {PLATFORM_ROLE}"
        ),
    ]
}

/// Not a [`TenantTable`](crate::TenantTable): a tenant has no tenant, and its slug and subdomain are unique
/// among all.
const TABLE: &str = "\
CREATE TABLE tenants (
    id uuid NOT NULL,
    name text NOT NULL,
    slug text NOT NULL,
    subdomain text,
    plan text NOT NULL,
    status text NOT NULL,
    settings jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz,
    version bigint NOT NULL,
    CONSTRAINT tenants_pkey PRIMARY KEY (id),
    CONSTRAINT tenants_slug_key UNIQUE (slug),
    CONSTRAINT tenants_subdomain_key UNIQUE (subdomain),
    CONSTRAINT tenants_slug_check CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$'),
    CONSTRAINT tenants_subdomain_check CHECK (subdomain ~ '^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$'),
    CONSTRAINT tenants_status_check CHECK (status IN ('provisioning', 'active', 'suspended', 'deleted')),
    CONSTRAINT tenants_settings_check CHECK (jsonb_typeof(settings) = 'object'),
    CONSTRAINT tenants_version_check CHECK (version > 0)
)";

/// For operators' lists.
const INDEX: &str = "CREATE INDEX tenants_created_at_idx ON tenants (created_at, id)";
