use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// Which meters a tenant's subscription charges and since when, and when it ended: for the hours within which that began or
/// ended. A tenant whose subscription was stored before has none until the provider is asked, which the next report of its
/// usage does.
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

const UP: &str = "ALTER TABLE billing_accounts ADD COLUMN ended_at timestamptz, \
    ADD COLUMN charged_meters jsonb NOT NULL DEFAULT '[]', \
    ADD CONSTRAINT billing_accounts_charged_meters_check CHECK (jsonb_typeof(charged_meters) = 'array')";

const DOWN: &str = "ALTER TABLE billing_accounts DROP COLUMN charged_meters, DROP COLUMN ended_at";
