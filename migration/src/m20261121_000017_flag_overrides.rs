use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// What tenants have chosen of the flags that are theirs to choose.
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

/// The flag is no foreign key: the runtime role does not see the definitions, and flags of code have no row.
fn table() -> TenantTable {
    TenantTable::new("flag_overrides")
        .column("flag", "text NOT NULL")
        .column("variant", "text NOT NULL")
        .versioned()
        .unique("flag_overrides_flag_key", &["flag"])
}
