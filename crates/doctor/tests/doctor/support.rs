//! One cluster for the process, and a database for each test, cloned from a migrated one.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry_doctor::{Options, Outcome, Report, examine, guard};
use tenantry_migration::{
    Bootstrap, CATALOGUE, DEFINER_FUNCTIONS, GLOBAL_TABLES, RolePasswords, bootstrap, up,
};
use tenantry_test_postgres::TestServer;
use tokio::sync::{Mutex, OnceCell, RwLock};

/// Roles are the whole cluster's: whoever changes one keeps everybody else out meanwhile.
pub static ROLES: RwLock<()> = RwLock::const_new(());

pub static SHARED: OnceCell<TestServer> = OnceCell::const_new();
static CLONING: Mutex<()> = Mutex::const_new(());
static COUNTER: AtomicU32 = AtomicU32::new(0);

const TEMPLATE: &str = "migrated";

pub async fn shared() -> &'static TestServer {
    SHARED.get_or_init(migrated_cluster).await
}

async fn migrated_cluster() -> TestServer {
    let cluster = TestServer::start().await;
    let passwords = RolePasswords {
        owner: "owner".to_owned(),
        app: "app".to_owned(),
        platform: "platform".to_owned(),
    };
    let plan = Bootstrap {
        admin_url: cluster.admin_url("postgres"),
        database: TEMPLATE.to_owned(),
        passwords,
        reset_passwords: false,
    };
    bootstrap(&plan).await.unwrap();
    up(&url(&cluster, "tenantry_owner", "owner", TEMPLATE), None)
        .await
        .unwrap();
    cluster
}

fn url(cluster: &TestServer, user: &str, password: &str, database: &str) -> String {
    format!(
        "postgres://{user}:{password}@127.0.0.1:{}/{database}",
        cluster.port()
    )
}

/// A database of one test.
pub struct Database {
    pub name: String,
}

impl Database {
    /// With Tenantry's schema.
    pub async fn migrated() -> Self {
        let database = Self::create(&format!("TEMPLATE {TEMPLATE} OWNER tenantry_owner")).await;
        let name = &database.name;
        // What is granted on a database is not part of its template.
        database
            .admin_runs(&format!(
                "REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO PUBLIC"
            ))
            .await;
        database
    }

    /// With nothing in it.
    pub async fn empty() -> Self {
        Self::create("TEMPLATE template0").await
    }

    async fn create(how: &str) -> Self {
        let name = format!("db_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&shared().await.admin_url("postgres"))
            .await
            .unwrap();
        // Nobody else may be connected to a template while it is cloned.
        let _turn = CLONING.lock().await;
        run(&mut admin, &format!("CREATE DATABASE {name} {how}"))
            .await
            .unwrap();
        Self { name }
    }

    pub async fn admin(&self) -> PgConnection {
        PgConnection::connect(&shared().await.admin_url(&self.name))
            .await
            .unwrap()
    }

    pub async fn connect(&self, user: &str, password: &str) -> PgConnection {
        let url = url(shared().await, user, password, &self.name);
        PgConnection::connect(&url).await.unwrap()
    }

    pub async fn owner_url(&self) -> String {
        url(shared().await, "tenantry_owner", "owner", &self.name)
    }

    pub async fn app(&self) -> PgConnection {
        self.connect("tenantry_app", "app").await
    }

    pub async fn admin_runs(&self, sql: &str) {
        let mut admin = self.admin().await;
        if let Err(error) = run(&mut admin, sql).await {
            panic!("{error}\n{sql}");
        }
        admin.close().await.unwrap();
    }

    /// Changes a setting of the server, or takes the change back, and waits until connections have it.
    pub async fn alter_system(&self, name: &str, value: Option<&str>) {
        let sql = match value {
            Some(value) => format!("ALTER SYSTEM SET {name} = {value}"),
            None => format!("ALTER SYSTEM RESET {name}"),
        };
        let setting = format!("SELECT setting FROM pg_settings WHERE name = '{name}'");
        let read = async || -> String {
            let mut admin = self.admin().await;
            sqlx::query_scalar(AssertSqlSafe(setting.clone()))
                .fetch_one(&mut admin)
                .await
                .unwrap()
        };
        let before = read().await;
        self.admin_runs(&sql).await;
        self.admin_runs("SELECT pg_reload_conf()").await;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while read().await == before {
            assert!(std::time::Instant::now() < deadline, "{sql} has no effect");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// As a superuser, on a connection of its own: what is set for a database holds from the next one on.
    pub async fn examine(&self, options: &Options) -> Report {
        examine(&mut self.admin().await, &here(options)).await.unwrap()
    }

    pub async fn guard_as_app(&self, options: &Options) -> Report {
        guard(&mut self.app().await, options).await.unwrap()
    }
}

/// What Tenantry's own schema is, whatever tables have come to it.
pub fn options() -> Options {
    Options {
        global_tables: GLOBAL_TABLES.iter().map(|&name| name.to_owned()).collect(),
        allowed_definer_functions: DEFINER_FUNCTIONS.iter().map(|&name| name.to_owned()).collect(),
        ..Options::default()
    }
}

/// The options, with what the clusters of tests are allowed: they are thrown away, and need to outlast no crash.
pub fn here(options: &Options) -> Options {
    let mut options = options.clone();
    let settings = ["fsync", "full_page_writes", "synchronous_commit"];
    for allowed in settings.map(|name| format!("setting {name} of the server")) {
        if !options.allowed_objects.contains(&allowed) {
            options.allowed_objects.push(allowed);
        }
    }
    options
}

/// The same, with the manifest of Tenantry's migrations to compare with.
pub fn expecting() -> Options {
    Options {
        expected: Some(CATALOGUE.parse().unwrap()),
        ..options()
    }
}

pub async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .map(|_| ())
}

/// The ids of the checks that found something.
pub fn failed(report: &Report) -> Vec<&'static str> {
    let found = report.checks.iter().filter(|check| !check.findings.is_empty());
    found.map(|check| check.id).collect()
}

pub fn assert_clean(report: &Report) {
    assert_eq!(report.count(Outcome::Fail), 0, "{}", report.to_human());
}
