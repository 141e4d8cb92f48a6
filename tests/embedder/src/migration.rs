use sea_orm_migration::prelude::*;
use tenantry_migration::{OnDelete, TenantTable};

/// Tenantry's migrations, and this service's behind them.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = tenantry_migration::Migrator::migrations();
        all.push(Box::new(Notes));
        all
    }
}

#[derive(DeriveMigrationName)]
struct Notes;

fn notes() -> TenantTable {
    TenantTable::new("notes")
        .belongs_to("task_id", "tasks", OnDelete::Cascade)
        .column("text", "text NOT NULL")
        // A rule that only the database knows: nobody shouts.
        .check("notes_text_is_calm", "text <> upper(text)")
}

#[async_trait::async_trait]
impl MigrationTrait for Notes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        notes().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        notes().drop(manager).await
    }
}
