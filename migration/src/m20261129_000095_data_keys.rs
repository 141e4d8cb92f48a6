use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// The data keys of tenants: what is sealed for a tenant is sealed under one of its own, which the server's key seals.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await
    }

    /// What was sealed under data keys cannot be opened any more: enrolled apps, secrets of settings and kept answers.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().drop(manager).await
    }
}

/// A rotation adds a row. A tenant from before this table has none until its first upkeep; until then the server's key seals.
fn table() -> TenantTable {
    TenantTable::new("data_keys")
        .generated_id()
        .column("number", "integer NOT NULL")
        .column("sealed", "bytea NOT NULL")
        .check("data_keys_number_check", "number > 0")
        .check(
            "data_keys_sealed_check",
            "octet_length(sealed) BETWEEN 32 AND 256",
        )
        .unique("data_keys_number_key", &["number"])
}
