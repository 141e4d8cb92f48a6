use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// Makes a migrator of a service that embeds these crates: Tenantry's migrations, and behind them the tables of the service
/// in their order. Each table is made by a migration of its own, and dropped when that is taken back.
///
/// ```
/// use tenantry_migration::{OnDelete, TenantTable, migrator};
///
/// migrator! {
///     /// The tables of this service.
///     pub Migrator {
///         "m20270101_000001_notes" => TenantTable::new("notes")
///             .column("body", "text NOT NULL")
///             .belongs_to("task_id", "tasks", OnDelete::Cascade),
///     }
/// }
/// ```
#[macro_export]
macro_rules! migrator {
    ($(#[$meta:meta])* $visibility:vis $name:ident { $($migration:literal => $table:expr),* $(,)? }) => {
        $(#[$meta])*
        $visibility struct $name;

        impl $crate::MigratorTrait for $name {
            fn migrations() -> Vec<Box<dyn $crate::MigrationTrait>> {
                let mut all = <$crate::Migrator as $crate::MigratorTrait>::migrations();
                $(all.push($crate::table_migration($migration, || $table));)*
                all
            }
        }
    };
}

/// A migration that makes a table, for [`migrator!`].
#[doc(hidden)]
pub fn table_migration(name: &'static str, table: fn() -> TenantTable) -> Box<dyn MigrationTrait> {
    Box::new(TableMigration { name, table })
}

struct TableMigration {
    name: &'static str,
    table: fn() -> TenantTable,
}

impl MigrationName for TableMigration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for TableMigration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        (self.table)().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        (self.table)().drop(manager).await
    }
}
