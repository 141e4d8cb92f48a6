use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Postgres};

use crate::MigrationError;

/// How long a process waits for another one that is migrating.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);

/// The key of the advisory lock, the same for roles and schema: "tenantry" in ASCII.
const LOCK_KEY: i64 = 0x7465_6e61_6e74_7279;

/// Reads a URL. Statements are not logged, because some of them have passwords in them.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, MigrationError> {
    let options = PgConnectOptions::from_str(url).map_err(|cause| MigrationError::Url { cause })?;
    Ok(options
        .application_name("tenantry-migration")
        .disable_statement_logging())
}

/// One connection.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, MigrationError> {
    let failed = |cause| MigrationError::Connect {
        target: describe(options),
        cause,
    };
    match tokio::time::timeout(CONNECT, PgConnection::connect_with(options)).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(_) => Err(failed(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}

/// A pool that is one connection for as long as it lives.
///
/// The migration lock belongs to the connection. So the pool never retires it, and never replaces a broken
/// one unasked: the next statement fails instead of running without the lock.
pub(crate) async fn single(options: &PgConnectOptions) -> Result<PgPool, MigrationError> {
    // The pool would try again and again when nobody listens; a plain connection says so at once.
    connect(options).await?.close().await.ok();
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await
        .map_err(|cause| MigrationError::Connect {
            target: describe(options),
            cause,
        })
}

/// Runs SQL that gives no rows. `step` is what an error says was being done: the SQL itself may be secret.
pub(crate) async fn run<'e, E>(executor: E, step: &str, sql: String) -> Result<(), MigrationError>
where
    E: Executor<'e, Database = Postgres>,
{
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).execute(executor).await;
    outcome.map(|_| ()).map_err(|cause| failed(step, cause))
}

/// The error of a step.
pub(crate) fn failed(step: &str, cause: sqlx::Error) -> MigrationError {
    MigrationError::Step {
        step: step.to_owned(),
        cause,
    }
}

/// Takes the migration lock for the connection; it goes when the connection does.
///
/// It is asked for again and again rather than waited for: a session that waits in a statement holds a
/// snapshot, and a `CREATE INDEX CONCURRENTLY` of the one that migrates would wait for that snapshot for
/// ever.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<(), MigrationError> {
    let started = tokio::time::Instant::now();
    let mut told = false;
    loop {
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK_KEY)
            .fetch_one(&mut *connection)
            .await
            .map_err(|cause| failed("take the migration lock", cause))?;
        if taken {
            return Ok(());
        }
        if started.elapsed() >= PATIENCE {
            return Err(MigrationError::Locked {
                seconds: PATIENCE.as_secs(),
            });
        }
        if !told {
            tracing::info!("another process is migrating, waiting for it");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn describe(options: &PgConnectOptions) -> String {
    let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
    let database = options.get_database().unwrap_or(user);
    format!("database {database} on {host}:{port} as {user}")
}
