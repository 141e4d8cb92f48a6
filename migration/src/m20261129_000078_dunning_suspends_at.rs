use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// When a tenant that owes something is suspended: set when the debt begins, whatever plan the tenant has later.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[UP.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[DOWN.to_owned()]).await
    }
}

const UP: &str = "ALTER TABLE billing_accounts ADD COLUMN dunning_suspends_at timestamptz";

const DOWN: &str = "ALTER TABLE billing_accounts DROP COLUMN dunning_suspends_at";
