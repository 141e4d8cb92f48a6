use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// How many bytes each tenant stores.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().drop(manager).await
    }
}

/// It is made when it is first needed, out of what is stored.
fn table() -> TenantTable {
    TenantTable::new("storage_usage")
        .column("bytes", "bigint NOT NULL")
        .generated_id()
        .single()
        .check("storage_usage_bytes_check", "bytes >= 0")
}
