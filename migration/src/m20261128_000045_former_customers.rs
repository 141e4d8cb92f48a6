use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// Which customers a tenant was before: those that the payment provider no longer had. What it tells of them late still finds
/// the tenant.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let grant = format!("GRANT UPDATE (former_refs) ON TABLE provider_customers TO {PLATFORM_ROLE}");
        execute_all(manager, &[UP.to_owned(), INDEX.to_owned(), grant]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await
    }
}

const UP: &str = "ALTER TABLE provider_customers ADD COLUMN former_refs text[] NOT NULL DEFAULT '{}'";

const INDEX: &str = "\
CREATE INDEX provider_customers_former_refs_idx ON provider_customers USING gin (former_refs)";

const DOWN: &str = "ALTER TABLE provider_customers DROP COLUMN former_refs";
