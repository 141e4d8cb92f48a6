//! A cluster of this process's own: roles belong to the whole cluster, and some tests make and unmake them.

use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry_migration::{Bootstrap, RolePasswords, bootstrap, up};
use tenantry_test_postgres::TestServer;
use tokio::sync::OnceCell;
use uuid::Uuid;

pub const A: Uuid = Uuid::from_u128(0xa);
pub const B: Uuid = Uuid::from_u128(0xb);

static SHARED: OnceCell<TestServer> = OnceCell::const_new();
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The cluster that most tests share, each with a database of its own.
pub async fn shared() -> &'static TestServer {
    SHARED.get_or_init(cluster).await
}

/// A server without any of our roles.
pub async fn cluster() -> TestServer {
    TestServer::start().await
}

pub fn plan(admin_url: String, database: &str) -> Bootstrap {
    let passwords = RolePasswords {
        owner: "o'wner \\ \" pass".to_owned(),
        app: "app".to_owned(),
        platform: "platform".to_owned(),
    };
    Bootstrap {
        admin_url,
        database: database.to_owned(),
        passwords,
        reset_passwords: false,
    }
}

/// A database with its roles ready.
pub struct Database {
    pub name: String,
    pub port: u16,
    pub admin_url: String,
}

impl Database {
    /// An empty one.
    pub async fn empty() -> Self {
        let name = format!("db_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let cluster = shared().await;
        bootstrap(&plan(cluster.admin_url("postgres"), &name))
            .await
            .unwrap();
        Self {
            port: cluster.port(),
            admin_url: cluster.admin_url(&name),
            name,
        }
    }

    /// One with all tables.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        up(&database.owner_url(), None).await.unwrap();
        database
    }

    /// One with all tables and the tenants A and B, each with a row in every table.
    pub async fn populated() -> Self {
        let database = Self::migrated().await;
        database.populate().await;
        database
    }

    pub async fn populate(&self) {
        let mut app = self.app().await;
        populate_tenant(&mut app, A, 'a').await;
        populate_tenant(&mut app, B, 'b').await;
    }

    /// Where the passwords of the plan work, percent-encoded.
    pub fn url(&self, user: &str, password: &str) -> String {
        format!(
            "postgres://{user}:{password}@127.0.0.1:{}/{}",
            self.port, self.name
        )
    }

    pub fn owner_url(&self) -> String {
        self.url("tenantry_owner", "o%27wner%20%5C%20%22%20pass")
    }

    pub fn app_url(&self) -> String {
        self.url("tenantry_app", "app")
    }

    pub async fn admin(&self) -> PgConnection {
        connect(&self.admin_url).await.unwrap()
    }

    pub async fn owner(&self) -> PgConnection {
        connect(&self.owner_url()).await.unwrap()
    }

    pub async fn app(&self) -> PgConnection {
        connect(&self.app_url()).await.unwrap()
    }

    pub async fn platform(&self) -> PgConnection {
        connect(&self.url("tenantry_platform", "platform")).await.unwrap()
    }
}

pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect_with(&PgConnectOptions::from_str(url).unwrap()).await
}

pub async fn run(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Runs SQL in a transaction of a tenant.
pub async fn run_in(connection: &mut PgConnection, tenant: Uuid, sql: &str) -> Result<u64, sqlx::Error> {
    run(
        connection,
        &format!("BEGIN; SET LOCAL app.current_tenant = '{tenant}'"),
    )
    .await
    .unwrap();
    let outcome = run(connection, sql).await;
    run(connection, if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" })
        .await
        .unwrap();
    outcome
}

pub async fn count_in(connection: &mut PgConnection, tenant: Uuid, sql: &str) -> i64 {
    run(
        connection,
        &format!("BEGIN; SET LOCAL app.current_tenant = '{tenant}'"),
    )
    .await
    .unwrap();
    let count = value(connection, sql).await;
    run(connection, "COMMIT").await.unwrap();
    count
}

pub async fn value<T>(connection: &mut PgConnection, sql: &str) -> T
where
    T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
{
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap()
}

pub async fn names(connection: &mut PgConnection, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_all(connection)
        .await
        .unwrap()
}

/// The SQLSTATE of a statement that was refused.
pub fn code<T: std::fmt::Debug>(outcome: Result<T, sqlx::Error>) -> String {
    let error = outcome.unwrap_err();
    error
        .as_database_error()
        .and_then(DatabaseError::code)
        .unwrap_or_default()
        .into_owned()
}

/// One row in each table. Ids are the same in every tenant: nothing but the tenant keeps them apart.
async fn populate_tenant(app: &mut PgConnection, tenant: Uuid, slug: char) {
    let sql = POPULATE
        .replace("{tenant}", &tenant.to_string())
        .replace("{slug}", &slug.to_string().repeat(3));
    run_in(app, tenant, &sql).await.unwrap();
}

const POPULATE: &str = "
INSERT INTO tenants (id, name, slug, subdomain, plan, status, settings, created_at, updated_at, version)
    VALUES ('{tenant}', 'T', '{slug}', '{slug}', 'free', 'active', '{}', now(), now(), 1);
INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash,
                   created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000001', 'ada@example.com', 'Ada', 'admin', true, true, 'x',
            now(), now(), 1);
INSERT INTO refresh_sessions (tenant_id, id, user_id, token_hash, created_at, expires_at)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000001',
            sha256('x'), now(), now());
INSERT INTO api_keys (tenant_id, id, name, user_id, service_account, scopes, allowed_networks, secret_hash, expires_at,
                      notified, created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000009', 'K', '00000000-0000-0000-0000-000000000001', false, '[]',
            '[]', sha256('s'), now(), 'far', now(), now(), 1);
INSERT INTO custom_roles (tenant_id, id, name, description, base_role, permissions, created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000010', 'support', '', 'member', '[]', now(), now(), 1);
INSERT INTO tenant_domains (tenant_id, id, domain, state, token, claimed_until, created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000011', 'portal.acme-corp.com', 'pending', 't', now(), now(), now(), 1);
INSERT INTO webhook_endpoints (tenant_id, id, url, event_types, ordered, signature, header_names, sealed_credentials, enabled,
    created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000012', 'https://hooks.acme-corp.com/', '[]', false, 'v1', '[]', '', true,
            now(), now(), 1);
INSERT INTO projects (tenant_id, id, name, status, owner_id, created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000003', 'P', 'active',
            '00000000-0000-0000-0000-000000000001', now(), now(), 1);
INSERT INTO project_members (tenant_id, project_id, user_id, role, created_at)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-000000000001',
            'owner', now());
INSERT INTO tasks (tenant_id, id, project_id, title, status, priority, assignee_id, created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000004', '00000000-0000-0000-0000-000000000003', 'T', 'todo',
            'normal', '00000000-0000-0000-0000-000000000001', now(), now(), 1);
INSERT INTO resources (tenant_id, id, project_id, name, kind, content, created_by, created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000005', '00000000-0000-0000-0000-000000000003', 'R',
            'document', 'grün', '00000000-0000-0000-0000-000000000001', now(), now(), 1);
INSERT INTO resource_versions (tenant_id, resource_id, version, name, kind, content, created_by, created_at)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000005', 1, 'R', 'document', 'grün',
            '00000000-0000-0000-0000-000000000001', now());
INSERT INTO audit_events (tenant_id, id, category, action, target_type, actor_type, request_id, created_at)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000006', 'change', 'project.created', 'project', 'user', 'r',
            now());
INSERT INTO jobs (tenant_id, id, kind, schema_version, payload, state, run_at, attempts, max_attempts, actor_type,
                  request_id, created_at)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000007', 'tenant.purge', 1, '[30]', 'queued', now(), 0,
            10, 'system', 'r', now());
INSERT INTO flag_overrides (tenant_id, id, flag, variant, created_at, updated_at, version)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000008', 'f', 'on', now(), now(), 1);
INSERT INTO idempotency_keys (tenant_id, user_id, route, key, fingerprint, role, status, headers, sealed_body,
                              expires_at, created_at)
    VALUES ('{tenant}', '00000000-0000-0000-0000-000000000001', 'POST /', 'k', sha256('f'), 'member', 201, '[]', 'sealed',
            now(), now());
INSERT INTO tenant_settings (tenant_id, values, secrets, created_at, updated_at, version)
    VALUES ('{tenant}', '{}', '{}', now(), now(), 1);
INSERT INTO tenant_setting_versions (tenant_id, version, values, secrets, changed_by, created_at)
    VALUES ('{tenant}', 1, '{}', '{}', '00000000-0000-0000-0000-000000000001', now());
INSERT INTO brandings (tenant_id, primary_color, accent_color, custom_css, created_at, updated_at, version)
    VALUES ('{tenant}', '#000000', '#ffffff', '', now(), now(), 1);
";
