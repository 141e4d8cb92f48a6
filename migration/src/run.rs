use sea_orm_migration::sea_orm::{DatabaseConnection, SqlxPostgresConnector};
use sea_orm_migration::{MigrationStatus, MigratorTrait};
use sqlx::postgres::PgPool;

use crate::connection::{failed, lock, options, single};
use crate::unknown::{self, Beside};
use crate::{MigrationError, Migrator, OWNER_ROLE};

/// Applies the next `steps` migrations of [`Migrator`], or all that are missing; gives the names of those
/// applied.
///
/// `url` is that of `tenantry_owner`. Two processes may do it at once: the second waits for the first and
/// finds nothing left to do. Migrations of another service, which are not known here, stay as they are.
///
/// # Errors
/// No connection, another role than the owner, or a migration that fails; it and those after it are not
/// applied.
pub async fn up(url: &str, steps: Option<u32>) -> Result<Vec<String>, MigrationError> {
    up_with::<Migrator>(url, steps).await
}

/// Like [`up`], for the migrations of another service.
///
/// # Errors
/// As for [`up`].
pub async fn up_with<M: MigratorTrait>(url: &str, steps: Option<u32>) -> Result<Vec<String>, MigrationError> {
    let session = Session::begin::<M>(url).await?;
    let before = session.applied::<M>().await?;
    unknown::beside(session.others.clone(), Beside::<M>::up(&session.database, steps))
        .await
        .map_err(MigrationError::Migration)?;
    let after = session.applied::<M>().await?;
    let names: Vec<String> = after.into_iter().filter(|name| !before.contains(name)).collect();
    tracing::info!(
        applied = names.len(),
        "the schema is up to date with what was asked"
    );
    session.end().await;
    Ok(names)
}

/// Takes back the last `steps` migrations of [`Migrator`], or all, with the data in their tables; gives the
/// names of those taken back.
///
/// # Errors
/// As for [`up`]; and a migration of another service, since its tables may refer to ours.
pub async fn down(url: &str, steps: Option<u32>) -> Result<Vec<String>, MigrationError> {
    down_with::<Migrator>(url, steps).await
}

/// Like [`down`], for the migrations of another service.
///
/// # Errors
/// As for [`up`].
pub async fn down_with<M: MigratorTrait>(
    url: &str,
    steps: Option<u32>,
) -> Result<Vec<String>, MigrationError> {
    let session = Session::begin::<M>(url).await?;
    let before = session.applied::<M>().await?;
    if let Some(first) = session.others.first().cloned() {
        session.end().await;
        return Err(MigrationError::Refused(format!(
            "{first} is a migration of another service, whose tables may refer to ours: take it back with that service first"
        )));
    }
    M::down(&session.database, steps)
        .await
        .map_err(MigrationError::Migration)?;
    let after = session.applied::<M>().await?;
    let names: Vec<String> = before
        .into_iter()
        .rev()
        .filter(|name| !after.contains(name))
        .collect();
    tracing::info!(taken_back = names.len(), "migrations were taken back");
    session.end().await;
    Ok(names)
}

/// Drops every table of the schema, whatever is in it, and applies all migrations of [`Migrator`].
///
/// # Errors
/// As for [`up`].
pub async fn fresh(url: &str) -> Result<Vec<String>, MigrationError> {
    fresh_with::<Migrator>(url).await
}

/// Like [`fresh`], for the migrations of another service.
///
/// # Errors
/// As for [`up`].
pub async fn fresh_with<M: MigratorTrait>(url: &str) -> Result<Vec<String>, MigrationError> {
    let session = Session::begin::<M>(url).await?;
    M::fresh(&session.database)
        .await
        .map_err(MigrationError::Migration)?;
    let names = session.applied::<M>().await?;
    tracing::info!(applied = names.len(), "the schema was made afresh");
    session.end().await;
    Ok(names)
}

/// The migrations of [`Migrator`] in order, each with whether it has been applied.
///
/// It changes nothing and waits for nobody, so any of the three roles may ask.
///
/// # Errors
/// No connection.
pub async fn status(url: &str) -> Result<Vec<(String, bool)>, MigrationError> {
    status_with::<Migrator>(url).await
}

/// Like [`status`], for the migrations of another service.
///
/// # Errors
/// As for [`status`].
pub async fn status_with<M: MigratorTrait>(url: &str) -> Result<Vec<(String, bool)>, MigrationError> {
    let pool = single(&options(url)?).await?;
    let found = look_up::<M>(&pool).await;
    pool.close().await;
    let found = found?;
    let missing = found.iter().filter(|(_, applied)| !applied).count();
    tracing::info!(
        applied = found.len() - missing,
        pending = missing,
        "migrations were looked up"
    );
    Ok(found)
}

/// The migrations of [`Migrator`] that have yet to be applied.
///
/// # Errors
/// As for [`status`].
pub async fn pending(url: &str) -> Result<Vec<String>, MigrationError> {
    pending_with::<Migrator>(url).await
}

/// Like [`pending`], for the migrations of another service.
///
/// # Errors
/// As for [`status`].
pub async fn pending_with<M: MigratorTrait>(url: &str) -> Result<Vec<String>, MigrationError> {
    let found = status_with::<M>(url).await?;
    Ok(found
        .into_iter()
        .filter(|(_, applied)| !applied)
        .map(|(name, _)| name)
        .collect())
}

/// The migrations that were applied and that the service does not know, oldest first: another service's, or those of a later version.
///
/// # Errors
/// As for [`status`].
pub async fn unknown_with<M: MigratorTrait>(url: &str) -> Result<Vec<String>, MigrationError> {
    let pool = single(&options(url)?).await?;
    let found = unknown::names::<M>(&pool).await;
    pool.close().await;
    found
}

/// The one connection of a run, which holds the migration lock.
struct Session {
    pool: PgPool,
    database: DatabaseConnection,
    /// The migrations of other services. No process adds one while the lock is held.
    others: Vec<String>,
}

impl Session {
    async fn begin<M: MigratorTrait>(url: &str) -> Result<Self, MigrationError> {
        let pool = single(&options(url)?).await?;
        let mut connection = pool
            .acquire()
            .await
            .map_err(|cause| failed("take the connection", cause))?;
        let user: String = sqlx::query_scalar("SELECT current_user::text")
            .fetch_one(&mut *connection)
            .await
            .map_err(|cause| failed("ask who is connected", cause))?;
        // Tables would belong to whoever makes them, and the runtime role's rights are granted by their
        // owner.
        if user != OWNER_ROLE {
            let why = format!("migrations run as {OWNER_ROLE}, but this connection is {user}'s");
            return Err(MigrationError::Refused(why));
        }
        lock(&mut connection).await?;
        drop(connection);
        let database = database(&pool);
        let others = unknown::names::<M>(&pool).await?;
        Ok(Self {
            pool,
            database,
            others,
        })
    }

    async fn applied<M: MigratorTrait>(&self) -> Result<Vec<String>, MigrationError> {
        let found = known::<M>(&self.pool, &self.others).await?;
        Ok(found
            .into_iter()
            .filter(|(_, applied)| *applied)
            .map(|(name, _)| name)
            .collect())
    }

    /// Closes the connection, and so gives the lock back before the caller goes on.
    async fn end(self) {
        self.pool.close().await;
    }
}

fn database(pool: &PgPool) -> DatabaseConnection {
    SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone())
}

async fn look_up<M: MigratorTrait>(pool: &PgPool) -> Result<Vec<(String, bool)>, MigrationError> {
    let others = unknown::names::<M>(pool).await?;
    known::<M>(pool, &others).await
}

async fn known<M: MigratorTrait>(
    pool: &PgPool,
    others: &[String],
) -> Result<Vec<(String, bool)>, MigrationError> {
    let database = database(pool);
    let found = unknown::beside(
        others.to_vec(),
        Beside::<M>::get_migration_with_status_read_only(&database),
    );
    let found = found.await.map_err(MigrationError::Migration)?;
    Ok(found
        .iter()
        .map(|one| (one.name().to_owned(), one.status() == MigrationStatus::Applied))
        .filter(|(name, _)| !others.contains(name))
        .collect())
}
