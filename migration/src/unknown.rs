//! Migrations that were applied and are not known here: those of another service over the same database.
//!
//! sea-orm-migration refuses to do anything while there is one. They are shown to it as migrations that are applied, so that
//! ours can be.

use std::marker::PhantomData;

use sea_orm_migration::prelude::*;
use sqlx::postgres::PgPool;

use crate::connection::failed;
use crate::{MigrationError, migration_names};

tokio::task_local! {
    static OTHERS: Vec<String>;
}

/// The migrations of `M`, and those of others that [`beside`] names.
pub(crate) struct Beside<M>(PhantomData<M>);

impl<M: MigratorTrait> MigratorTrait for Beside<M> {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let others = OTHERS.try_with(Clone::clone).unwrap_or_default();
        let others = others
            .into_iter()
            .map(|name| Box::new(Other(name)) as Box<dyn MigrationTrait>);
        M::migrations().into_iter().chain(others).collect()
    }
}

/// Runs something while these migrations count as known.
pub(crate) async fn beside<T>(others: Vec<String>, run: impl Future<Output = T>) -> T {
    OTHERS.scope(others, run).await
}

/// The names of the migrations that were applied and are not among `M`'s, oldest first.
pub(crate) async fn names<M: MigratorTrait>(pool: &PgPool) -> Result<Vec<String>, MigrationError> {
    let asked = "look for migrations of others";
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('public.seaql_migrations') IS NOT NULL")
        .fetch_one(pool)
        .await
        .map_err(|cause| failed(asked, cause))?;
    if !is_there {
        return Ok(Vec::new());
    }
    let sql = "SELECT version FROM public.seaql_migrations ORDER BY version";
    let applied: Vec<String> = sqlx::query_scalar(sql)
        .fetch_all(pool)
        .await
        .map_err(|cause| failed(asked, cause))?;
    let ours = migration_names::<M>();
    Ok(applied.into_iter().filter(|name| !ours.contains(name)).collect())
}

/// A migration of another service.
struct Other(String);

impl MigrationName for Other {
    fn name(&self) -> &str {
        &self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Other {
    async fn up(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Custom(format!("{} is another service's", self.0)))
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Custom(format!("{} is another service's", self.0)))
    }
}
