use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::server::{PASSWORD, Server, block_on};

/// A database of one test, cloned from the migrated template and dropped with this value.
#[derive(Debug)]
pub struct Database {
    name: String,
    has_bypass_role: AtomicBool,
}

impl Database {
    /// A fresh database.
    pub async fn new() -> Self {
        Self::like(&Server::get().template()).await
    }

    /// A copy of another database, to which nobody is connected.
    pub async fn like(template: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let server = Server::get();
        let name = server.name(NEXT.fetch_add(1, Ordering::Relaxed));
        let strategy = server.copy_strategy();
        let create =
            format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\" OWNER tenantry_owner {strategy}");
        // The privileges of a database are not part of its template.
        let privileges = format!(
            "REVOKE ALL ON DATABASE \"{name}\" FROM PUBLIC; \
             GRANT CONNECT ON DATABASE \"{name}\" TO tenantry_app, tenantry_platform"
        );
        admin(&[&create, &privileges]).await;
        Self {
            name,
            has_bypass_role: AtomicBool::new(false),
        }
    }

    /// Ends all connections to it: a database can be copied only while nobody is connected.
    pub async fn disconnect_all(&self) {
        let name = &self.name;
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        admin(&[&end]).await;
    }

    /// As the runtime role: what the application uses.
    pub fn app_url(&self) -> String {
        Server::get().role_url("tenantry_app", &self.name)
    }

    /// As the platform role.
    pub fn platform_url(&self) -> String {
        Server::get().role_url("tenantry_platform", &self.name)
    }

    /// As the owner of the tables.
    pub fn owner_url(&self) -> String {
        Server::get().role_url("tenantry_owner", &self.name)
    }

    /// As a superuser, whom row-level security does not bind: for looking at what really is there.
    pub fn admin_url(&self) -> String {
        Server::get().admin_url(&self.name)
    }

    /// Makes a role that may do what the runtime role may, and that row-level security does not bind. It is dropped
    /// with the database.
    pub async fn make_bypass_role(&self) {
        let name = &self.name;
        self.has_bypass_role.store(true, Ordering::Relaxed);
        let create =
            format!("CREATE ROLE \"{name}\" LOGIN BYPASSRLS IN ROLE tenantry_app PASSWORD '{PASSWORD}'");
        admin(&[&create]).await;
    }

    /// As that role.
    pub fn bypass_url(&self) -> String {
        Server::get().role_url(&self.name, &self.name)
    }

    /// A superuser's connection.
    pub async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.admin_url()).await.unwrap()
    }

    /// A connection of the runtime role.
    pub async fn app(&self) -> PgConnection {
        PgConnection::connect(&self.app_url()).await.unwrap()
    }

    /// A connection of the platform role.
    pub async fn platform(&self) -> PgConnection {
        PgConnection::connect(&self.platform_url()).await.unwrap()
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its tenants' exports, which goes with the database.
    pub fn exports(&self) -> std::path::PathBuf {
        let all = std::env::temp_dir().join("tenantry-test-exports");
        all.join(&self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.exports());
        let mut drops = vec![format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name)];
        if self.has_bypass_role.load(Ordering::Relaxed) {
            drops.push(format!("DROP ROLE IF EXISTS \"{}\"", self.name));
        }
        // A runtime may be running here, so the work is done on a thread without one.
        let dropping = async move {
            let drops: Vec<&str> = drops.iter().map(String::as_str).collect();
            admin(&drops).await;
        };
        let dropped = std::thread::spawn(move || block_on(dropping)).join();
        if dropped.is_err() && !std::thread::panicking() {
            panic!("the test's database cannot be dropped");
        }
    }
}

/// Runs statements one after the other over one connection of a superuser. Several in one text run in one transaction, which
/// CREATE DATABASE does not allow.
async fn admin(statements: &[&str]) {
    let mut connection = PgConnection::connect(&Server::get().admin_url("postgres"))
        .await
        .unwrap();
    for sql in statements {
        // Cloning needs the template for itself; two clones at once wait for each other on the server only for so long.
        for attempt in 1.. {
            let run = sqlx::raw_sql(AssertSqlSafe((*sql).to_owned()));
            match run.execute(&mut connection).await {
                Ok(_) => break,
                Err(error)
                    if attempt < 50 && error.to_string().contains("is being accessed by other users") =>
                {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{sql}: {error}"),
            }
        }
    }
}
