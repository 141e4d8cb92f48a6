use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// The checkout of a tenant that can still be paid: its seats limit active users until it ends.
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

const UP: &str = "ALTER TABLE billing_accounts ADD COLUMN checkout_seats integer, \
    ADD COLUMN checkout_until timestamptz, ADD COLUMN checkout_number bigint, \
    ADD CONSTRAINT billing_accounts_checkout_check CHECK (checkout_seats > 0 \
    AND num_nulls(checkout_seats, checkout_until, checkout_number) IN (0, 3))";

const DOWN: &str = "ALTER TABLE billing_accounts DROP COLUMN checkout_seats, DROP COLUMN checkout_until, DROP COLUMN checkout_number";
