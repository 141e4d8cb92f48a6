use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;

/// The trigger that keeps the index of addresses has the same definition after a dump and a restoration.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[trigger(FLAT)]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[trigger(ROWS)]).await
    }
}

/// PostgreSQL stores the comparison of two rows as an OR within an OR, which `pg_dump` writes and PostgreSQL reads back as one OR of all
/// columns. The doctor compares definitions, so a restored database would differ from what the migrations make.
const ROWS: &str = "(OLD.email, OLD.email_since, OLD.email_verified, OLD.is_active, OLD.deleted_at) \
                    IS DISTINCT FROM (NEW.email, NEW.email_since, NEW.email_verified, NEW.is_active, NEW.deleted_at)";

/// The same condition, column by column.
const FLAT: &str = "OLD.email IS DISTINCT FROM NEW.email OR OLD.email_since IS DISTINCT FROM NEW.email_since \
                    OR OLD.email_verified IS DISTINCT FROM NEW.email_verified \
                    OR OLD.is_active IS DISTINCT FROM NEW.is_active OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at";

fn trigger(condition: &str) -> String {
    format!(
        "CREATE OR REPLACE TRIGGER users_addresses_update \
         AFTER UPDATE OF email, email_since, email_verified, is_active, deleted_at ON users FOR EACH ROW \
         WHEN ({condition}) EXECUTE FUNCTION user_addresses_keep()"
    )
}
