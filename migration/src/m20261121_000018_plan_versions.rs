use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// The versions of plans, and which one each tenant has.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            TABLE.to_owned(),
            format!("REVOKE ALL ON TABLE plan_versions FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            // A version that somebody bought is never changed.
            format!("GRANT SELECT, INSERT ON TABLE plan_versions TO {PLATFORM_ROLE}"),
            // Whoever is there already has what was on offer first.
            "ALTER TABLE tenants ADD COLUMN plan_version integer NOT NULL DEFAULT 1".to_owned(),
            "ALTER TABLE tenants ADD CONSTRAINT tenants_plan_version_check CHECK (plan_version > 0)"
                .to_owned(),
            // What was agreed beside the plan: limits and features by name.
            "ALTER TABLE tenants ADD COLUMN agreed jsonb NOT NULL DEFAULT '{}'".to_owned(),
            "ALTER TABLE tenants ADD CONSTRAINT tenants_agreed_check CHECK (jsonb_typeof(agreed) = 'object')"
                .to_owned(),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            "ALTER TABLE tenants DROP COLUMN agreed".to_owned(),
            "ALTER TABLE tenants DROP COLUMN plan_version".to_owned(),
            "DROP TABLE plan_versions".to_owned(),
        ];
        execute_all(manager, &sql).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): plans are the operator's. Tenants name them and do not refer to them, since a
/// server that starts for the first time founds tenants before it has stored anything of its plans.
const TABLE: &str = "\
CREATE TABLE plan_versions (
    name text NOT NULL,
    version integer NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT plan_versions_pkey PRIMARY KEY (name, version),
    CONSTRAINT plan_versions_version_check CHECK (version > 0)
)";
