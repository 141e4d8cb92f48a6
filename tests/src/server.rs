//! The PostgreSQL server of a test run: `TEST_DATABASE_URL`, else Docker, else a private cluster.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{Connection as _, PgConnection};
use tenantry_migration::{Bootstrap, RolePasswords};
use tenantry_test_postgres::TestServer;

/// The password of all three roles; the server is there for tests only.
pub const PASSWORD: &str = "only-for-tests";

/// A server with the three roles and a migrated template database.
#[derive(Debug)]
pub struct Server {
    /// Up to and without the database's name.
    admin: String,
    parameters: String,
    /// Distinguishes this run's databases from another's on the same server.
    run: String,
    /// Whether copies of databases are copies of files.
    copies_files: bool,
    _own: Option<TestServer>,
}

impl Server {
    /// The server of this process. Started on first use, on a thread of its own: each test has its own runtime, and
    /// the server must outlive the first test's.
    pub fn get() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| std::thread::spawn(|| block_on(start())).join().unwrap())
    }

    /// The template's name.
    pub fn template(&self) -> String {
        format!("tenantry_test_{}_template", self.run)
    }

    /// A new name for a database of this run.
    pub fn name(&self, number: u64) -> String {
        format!("tenantry_test_{}_{number}", self.run)
    }

    /// How a database is copied, as a clause of CREATE DATABASE. A copy of the files takes a third of the time of one through the
    /// log, unless each of the 900 files is forced to disk.
    pub fn copy_strategy(&self) -> &'static str {
        if self.copies_files {
            "STRATEGY FILE_COPY"
        } else {
            ""
        }
    }

    /// A superuser's URL.
    pub fn admin_url(&self, database: &str) -> String {
        format!("{}/{database}{}", self.admin, self.parameters)
    }

    /// A role's URL.
    pub fn role_url(&self, role: &str, database: &str) -> String {
        let (scheme, rest) = self.admin.split_once("://").unwrap();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!(
            "{scheme}://{role}:{PASSWORD}@{host}/{database}{}",
            self.parameters
        )
    }
}

/// Runs a future to its end on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn start() -> Server {
    let (url, own) = find().await;
    let (base, parameters) = url
        .split_once('?')
        .map_or((url.as_str(), String::new()), |(b, p)| (b, format!("?{p}")));
    let (scheme, rest) = base.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    let admin = format!("{scheme}://{authority}");
    #[expect(
        clippy::disallowed_methods,
        reason = "the name of a run is no business of the clock port"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let run = format!("{}_{}", std::process::id(), since.as_millis() % 100_000_000);
    let mut server = Server {
        copies_files: false,
        admin,
        parameters,
        run,
        _own: own,
    };
    server.copies_files = copies_files(&server.admin_url("postgres")).await;
    hold(server.admin_url("postgres"), server.run.clone());
    let template = server.template();
    let passwords = RolePasswords {
        owner: PASSWORD.into(),
        app: PASSWORD.into(),
        platform: PASSWORD.into(),
    };
    let admin_url = server.admin_url("postgres");
    let plan = Bootstrap {
        admin_url,
        database: template.clone(),
        passwords,
        reset_passwords: true,
    };
    tenantry_migration::bootstrap(&plan).await.unwrap();
    tenantry_migration::up(&server.role_url("tenantry_owner", &template), None)
        .await
        .unwrap();
    drop_leftovers(&server).await;
    server
}

/// Whether the server forces nothing to disk, and knows the strategy (PostgreSQL 15).
async fn copies_files(url: &str) -> bool {
    let mut admin = PgConnection::connect(url).await.unwrap();
    let sql = "SELECT current_setting('fsync') = 'off' AND current_setting('server_version_num')::integer >= 150000";
    sqlx::query_scalar(sql).fetch_one(&mut admin).await.unwrap()
}

async fn find() -> (String, Option<TestServer>) {
    if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
        return (url, None);
    }
    let server = TestServer::start().await;
    (server.admin_url("postgres"), Some(server))
}

/// The key of the advisory lock that a run holds as long as it goes on.
const LOCK: &str = "hashtextextended('tenantry test run ' || $1, 0)";

/// Holds the lock of a run until this process ends.
fn hold(url: String, run: String) {
    let (held, is_held) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        block_on(async move {
            let _connection = locked(&url, &run).await;
            held.send(()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    is_held.recv().unwrap();
}

/// A connection that holds the lock of a run.
async fn locked(url: &str, run: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let lock = format!("SELECT pg_advisory_lock({LOCK})");
    let locking = sqlx::query(sqlx::AssertSqlSafe(lock)).bind(run.to_owned());
    locking.execute(&mut connection).await.unwrap();
    connection
}

/// Drops the databases of runs that ended badly. Those of a run that goes on stay, also while nothing is connected to them.
async fn drop_leftovers(server: &Server) {
    let mut admin = PgConnection::connect(&server.admin_url("postgres"))
        .await
        .unwrap();
    let sql = "SELECT datname FROM pg_database WHERE datname LIKE 'tenantry\\_test\\_%'";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut admin).await.unwrap();
    for name in names {
        let Some((run, _)) = name.trim_start_matches("tenantry_test_").rsplit_once('_') else {
            continue;
        };
        let lock = format!("SELECT pg_try_advisory_lock({LOCK})");
        let lock = sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(lock)).bind(run.to_owned());
        if !lock.fetch_one(&mut admin).await.unwrap() {
            continue;
        }
        let drop = format!("DROP DATABASE IF EXISTS \"{name}\"");
        // Another run may be faster.
        let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut admin).await;
        let unlock = format!("SELECT pg_advisory_unlock({LOCK})");
        let unlock = sqlx::query(sqlx::AssertSqlSafe(unlock)).bind(run.to_owned());
        unlock.execute(&mut admin).await.unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_live_runs_are_not_dropped() {
        let server = Server::get();
        let url = server.admin_url("postgres");
        let left = block_on(async {
            let mut admin = PgConnection::connect(&url).await.unwrap();
            let _live = locked(&url, "1_live").await;
            for name in ["tenantry_test_1_live_7", "tenantry_test_1_dead_7"] {
                let create = format!("CREATE DATABASE {name}");
                sqlx::raw_sql(sqlx::AssertSqlSafe(create))
                    .execute(&mut admin)
                    .await
                    .unwrap();
            }
            drop_leftovers(server).await;
            let sql =
                "SELECT datname FROM pg_database WHERE datname LIKE 'tenantry\\_test\\_1\\_%' ORDER BY 1";
            let left: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut admin).await.unwrap();
            sqlx::raw_sql("DROP DATABASE tenantry_test_1_live_7")
                .execute(&mut admin)
                .await
                .unwrap();
            left
        });
        assert_eq!(left, ["tenantry_test_1_live_7"]);
        let template = server.template();
        let connects = block_on(PgConnection::connect(&server.admin_url(&template)));
        assert!(connects.is_ok(), "the template of this run is still there");
    }
}
