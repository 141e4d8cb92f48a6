//! What is measured on: a private PostgreSQL, many tenants with many tasks, and a token for each tenant.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tenantry_devdb::{Cluster, ClusterOptions, Durability};
use tenantry_domain::identity::{
    AccessClaims, AccessTokens, ApiKeyFormat, AuthMethods, CallerClass, CallerGroup, HashingCaller, Password,
    PasswordHasher,
};
use tenantry_domain::kernel::{Clock, Role};
use tenantry_migration::{Bootstrap, RolePasswords, bootstrap, up};
use tenantry_system::{
    Argon2Passwords, JwtAccessTokens, PasswordCost, SigningKey, SigningKeyRing, SystemClock, SystemIds,
};
use uuid::Uuid;

use crate::Failure;

/// Numbers of tenants have six digits, so that SQL and Lua can make an id of one by appending it.
pub const FIRST: usize = 100_000;

/// The password of everybody.
pub const PASSWORD: &str = "correct horse battery";

/// How many tenants are made in one transaction.
const BATCH: usize = 100;

const DATABASE: &str = "tenantry_bench";

/// The tables that a run writes to besides those of its scenarios.
const LEFT_BEHIND: &str =
    "jobs, system_jobs, usage_events, usage_keys, usage_dirty, usage_hours, usage_days, audit_streams";

/// How much there is.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Size {
    /// Tenants with many tasks.
    pub tenants: usize,
    /// How many tasks each of those has.
    pub tasks: usize,
    /// Further tenants, with ten tasks each.
    pub small_tenants: usize,
}

/// The database, ready.
pub struct Ground {
    pub cluster: Cluster,
    pub size: Size,
    pub key: SigningKey,
    /// Where calls wait until they are in this database's ledger.
    pub spool: PathBuf,
    passwords: RolePasswords,
}

impl Ground {
    /// Starts PostgreSQL in the folder and fills it.
    pub async fn prepare(folder: &Path, size: Size) -> Result<Self, Failure> {
        say("starting PostgreSQL");
        let options = ClusterOptions {
            data_dir: folder.join("postgres"),
            durability: Durability::Tuned,
        };
        let cluster = Cluster::start(options).await?;
        cluster.stop_when_process_ends()?;
        let passwords = RolePasswords {
            owner: "owner-of-the-bench".into(),
            app: "runtime-of-the-bench".into(),
            platform: "platform-of-the-bench".into(),
        };
        let ground = Self {
            cluster,
            size,
            key: SigningKey::generate(),
            spool: folder.join("usage"),
            passwords,
        };
        ground.migrate().await?;
        ground.seed().await?;
        ground.clear().await?;
        ground.define_flag().await?;
        Ok(ground)
    }

    /// As the runtime role, which pgbench uses too.
    pub fn app_url(&self) -> String {
        self.url("tenantry_app", &self.passwords.app)
    }

    /// As the role of the directory.
    pub fn platform_url(&self) -> String {
        self.url("tenantry_platform", &self.passwords.platform)
    }

    /// An access token of the admin of each tenant in the range, for an hour.
    pub fn tokens(&self, tenants: impl Iterator<Item = usize>) -> Result<Vec<String>, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let key = SigningKey::from_pem(&self.key.to_pem())?;
        let tokens = JwtAccessTokens::new(
            Arc::new(SigningKeyRing::new(vec![key], Arc::clone(&clock))?),
            "tenantry".into(),
            "tenantry-api".into(),
            3_600,
            Arc::clone(&clock),
            Arc::new(SystemIds),
        )?;
        let now = clock.now();
        let claims = |tenant: usize| AccessClaims {
            tenant: tenant_id(tenant).into(),
            user: tenant_id(tenant).into(),
            session: tenant_id(tenant).into(),
            role: Role::Admin,
            factor_at: None,
            methods: AuthMethods::PASSWORD,
            issued_at: now,
            expires_at: now + chrono::Duration::hours(1),
        };
        Ok(tenants.map(|tenant| tokens.sign(&claims(tenant))).collect())
    }

    /// An API key of each tenant in the range.
    pub fn api_keys(&self, tenants: impl Iterator<Item = usize>) -> Vec<String> {
        let key = |tenant: usize| {
            let id = tenant_id(tenant);
            ApiKeyFormat::default().issue(id.into(), id.into(), SECRET).text
        };
        tenants.map(key).collect()
    }

    fn url(&self, role: &str, password: &str) -> String {
        format!(
            "postgres://{role}:{password}@127.0.0.1:{}/{DATABASE}",
            self.cluster.port()
        )
    }

    async fn migrate(&self) -> Result<(), Failure> {
        bootstrap(&Bootstrap {
            admin_url: self.cluster.admin_url("postgres"),
            database: DATABASE.into(),
            passwords: self.passwords.clone(),
            reset_passwords: true,
        })
        .await?;
        up(&self.url("tenantry_owner", &self.passwords.owner), None).await?;
        Ok(())
    }

    /// A flag that is split between tenants.
    async fn define_flag(&self) -> Result<(), Failure> {
        let definition = r#"{"key": "new-checkout", "type": "boolean", "variants": {"on": true, "off": false},
            "default_variant": "off", "off_variant": "off", "client_visible": true, "version": 1, "rules": [{"level":
            "global", "serve": {"split": {"by": "tenant", "parts": [{"variant": "on", "percent": 20}]}}}]}"#;
        let sql = format!(
            "INSERT INTO flags (key, definition, created_at, updated_at, version) \
             VALUES ('new-checkout', '{definition}', now(), now(), 1) ON CONFLICT DO NOTHING"
        );
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        run(&mut admin, &sql).await
    }

    /// Takes away what earlier runs have left for the server to do, and what they have metered: every run begins with the same
    /// ground. Calls that wait in the spool would be stored while something else is measured.
    async fn clear(&self) -> Result<(), Failure> {
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        run(&mut admin, &format!("TRUNCATE {LEFT_BEHIND}")).await?;
        let nobody = Uuid::nil();
        let issued = ApiKeyFormat::default().issue(nobody.into(), nobody.into(), SECRET);
        let hash: String = issued
            .secret_hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let keys = format!(
            "TRUNCATE api_keys;
             INSERT INTO api_keys (tenant_id, id, created_at, name, user_id, service_account, scopes, allowed_networks,
                                   secret_hash, expires_at, notified, updated_at, version)
             SELECT id, id, now(), 'Bench', id, false, '[\"tasks.read\"]', '[]', decode('{hash}', 'hex'),
                    now() + interval '1 day', 'far', now(), 1 FROM tenants"
        );
        run(&mut admin, &keys).await?;
        run(&mut admin, PEOPLE).await?;
        self.forget_calls()
    }

    /// Removes the spool; no server may run.
    pub fn forget_calls(&self) -> Result<(), Failure> {
        match std::fs::remove_dir_all(&self.spool) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether the tenant of many rows is there, as a run that was broken off leaves it.
    pub async fn has_large(&self) -> Result<bool, Failure> {
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        let there =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM tenants WHERE slug = $1)").bind(LARGE_SLUG);
        Ok(there.fetch_one(&mut admin).await?)
    }

    /// Makes a tenant with so many tasks.
    pub async fn make_large(&self, tasks: usize) -> Result<(), Failure> {
        let tenant = format!("'{TENANT_PREFIX}000001'");
        let settings = r#"{"self_registration":false,"timezone":"UTC","locale":"en"}"#;
        let sql = format!(
            "BEGIN;
             INSERT INTO tenants (id, name, slug, plan, status, settings, created_at, updated_at, version)
             VALUES ({tenant}, 'Large', '{LARGE_SLUG}', 'enterprise', 'active', '{settings}', now(), now(), 1);
             INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash,
                                created_at, updated_at, version)
             VALUES ({tenant}, {tenant}, 'admin@bench.example', 'Admin', 'admin', true, true, '!', now(), now(), 1);
             INSERT INTO projects (tenant_id, id, name, status, owner_id, created_at, updated_at, version)
             VALUES ({tenant}, {tenant}, 'Project', 'active', {tenant}, now(), now(), 1);
             INSERT INTO tasks (tenant_id, id, project_id, title, status, priority, created_at, updated_at, version)
             SELECT {tenant}, gen_random_uuid(), {tenant}, 'Task number ' || k, 'todo', 'normal',
                    now() - k * interval '1 second', now(), 1
               FROM generate_series(1, {tasks}) k;
             COMMIT"
        );
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        run(&mut admin, &sql).await?;
        run(&mut admin, "VACUUM ANALYZE tasks").await
    }

    /// Adds so many entries to the audit log of the large tenant, which nothing chains by itself.
    pub async fn add_entries(&self, entries: usize) -> Result<(), Failure> {
        let tenant = format!("'{TENANT_PREFIX}000001'::uuid");
        let sql = format!(
            "INSERT INTO audit_events (tenant_id, id, created_at, category, action, target_type, target_id, actor_type,
                                       actor_id, request_id, ip, before, after)
             SELECT {tenant}, gen_random_uuid(), now(), 'change', 'task.updated', 'task', gen_random_uuid(), 'user', {tenant},
                    gen_random_uuid()::text, '127.0.0.1', '{{\"title\": \"A task\"}}', '{{\"title\": \"A changed task\"}}'
               FROM generate_series(1, {entries})"
        );
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        run(&mut admin, &sql).await
    }

    /// Adds so many events to the outbox of each of these tenants, as changes of tasks leave them.
    pub async fn add_events(&self, tenants: Range<usize>, events: usize) -> Result<(), Failure> {
        let (first, last) = (FIRST + tenants.start, FIRST + tenants.end - 1);
        let sql = format!(
            "INSERT INTO event_outbox (tenant_id, id, created_at, kind, actor_kind, entity, entity_id, data)
             SELECT ('{TENANT_PREFIX}' || t)::uuid, gen_random_uuid(), now(), 'task.updated', 'system', 'task', gen_random_uuid(),
                    '{{\"object\": {{\"title\": \"A changed task\", \"status\": \"done\", \"version\": 2}}}}'
               FROM generate_series({first}, {last}) t, generate_series(1, {events})"
        );
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        run(&mut admin, &sql).await
    }

    /// How many webhooks of a tenant wait for an attempt.
    pub async fn queued_webhooks(&self, tenant: usize) -> Result<usize, Failure> {
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        let sql = "SELECT count(*) FROM webhook_deliveries WHERE tenant_id = $1 AND state = 'pending'";
        let count = sqlx::query_scalar::<_, i64>(sql).bind(tenant_id(tenant));
        Ok(usize::try_from(count.fetch_one(&mut admin).await?)?)
    }

    /// Removes endpoints of webhooks, with everything that was queued for them, and events.
    pub async fn forget_webhooks(&self) -> Result<(), Failure> {
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        run(
            &mut admin,
            "TRUNCATE webhook_attempts, webhook_deliveries, webhook_lanes, webhook_endpoints, event_outbox, events",
        )
        .await
    }

    /// As a superuser, whom row-level security does not bind: a million rows, so many tenants in one transaction.
    async fn seed(&self) -> Result<(), Failure> {
        let mut admin = PgConnection::connect(&self.cluster.admin_url(DATABASE)).await?;
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM tenants WHERE slug LIKE 'bench-%'")
            .fetch_one(&mut admin)
            .await?;
        let wanted = self.size.tenants + self.size.small_tenants;
        if there == i64::try_from(wanted)? {
            return Ok(());
        }
        if there != 0 {
            return Err("the bench's data folder holds another size: remove it and run again".into());
        }
        let hash = hash_of_password().await?;
        let began = Instant::now();
        let large = (0..self.size.tenants, self.size.tasks);
        for (tenants, tasks) in [large, (self.size.tenants..wanted, 10)] {
            for first in tenants.clone().step_by(BATCH) {
                let end = (first + BATCH).min(tenants.end);
                fill(&mut admin, first + FIRST, end + FIRST, tasks, &hash).await?;
                bar(end, wanted, began);
            }
        }
        eprintln!();
        run(&mut admin, "VACUUM ANALYZE").await?;
        run(&mut admin, "CHECKPOINT").await
    }
}

/// The id of a tenant, of its admin, of that one's session and of its project.
pub fn tenant_id(tenant: usize) -> Uuid {
    Uuid::parse_str(&format!("{TENANT_PREFIX}{}", FIRST + tenant)).unwrap_or_default()
}

/// A session of each admin, whose token a run uses, and a viewer for the logins: a user has a bounded number of sessions, and
/// logins of the admin would end that one. Users that earlier runs have added go.
const PEOPLE: &str = "DELETE FROM refresh_sessions;
    DELETE FROM users WHERE email LIKE 'user-%@bench.example';
    INSERT INTO refresh_sessions (tenant_id, id, user_id, token_hash, created_at, expires_at)
    SELECT id, id, id, sha256(slug::bytea), now(), now() + interval '30 days' FROM tenants;
    INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash, created_at, updated_at,
                       version)
    SELECT tenant_id, gen_random_uuid(), 'login@bench.example', 'Login', 'viewer', true, true, password_hash, now(), now(), 1
      FROM users WHERE email = 'admin@bench.example'
    ON CONFLICT DO NOTHING";

/// The slug of the tenant of many rows.
pub const LARGE_SLUG: &str = "large";

/// The secret of every API key.
const SECRET: [u8; 32] = [7; 32];

/// What the number of a tenant is appended to.
pub const TENANT_PREFIX: &str = "00000000-0000-7000-8000-000000";

/// What the numbers of a tenant and of a task are appended to.
pub const TASK_PREFIX: &str = "00000000-0000-7000-9000-";

/// To the person who waits.
pub fn say(text: &str) {
    eprintln!("bench: {text}");
}

async fn fill(
    admin: &mut PgConnection,
    first: usize,
    end: usize,
    tasks: usize,
    hash: &str,
) -> Result<(), Failure> {
    let tenant = format!("('{TENANT_PREFIX}' || t)::uuid");
    let tenants = format!("generate_series({first}, {}) t", end - 1);
    let settings = r#"{"self_registration":false,"timezone":"UTC","locale":"en"}"#;
    run(
        admin,
        &format!(
            "BEGIN;
             INSERT INTO tenants (id, name, slug, plan, status, settings, created_at, updated_at, version)
             SELECT {tenant}, 'Tenant ' || t, 'bench-' || t, 'enterprise', 'active', '{settings}', now(), now(), 1
               FROM {tenants};
             INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash,
                                created_at, updated_at, version)
             SELECT {tenant}, {tenant}, 'admin@bench.example', 'Admin', 'admin', true, true, '{hash}', now(), now(), 1
               FROM {tenants};
             INSERT INTO projects (tenant_id, id, name, status, owner_id, created_at, updated_at, version)
             SELECT {tenant}, {tenant}, 'Project', 'active', {tenant}, now(), now(), 1 FROM {tenants};
             INSERT INTO tasks (tenant_id, id, project_id, title, status, priority, created_at, updated_at, version)
             SELECT {tenant}, ('{TASK_PREFIX}' || t || k)::uuid, {tenant}, 'Task number ' || k,
                    (ARRAY['todo', 'in_progress', 'done'])[1 + k % 3], 'normal', now() - k * interval '1 second', now(), 1
               FROM {tenants}, generate_series({FIRST}, {}) k;
             COMMIT",
            FIRST + tasks - 1
        ),
    )
    .await
}

async fn run(admin: &mut PgConnection, sql: &str) -> Result<(), Failure> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(admin)
        .await?;
    Ok(())
}

/// As the server makes it with its default settings.
async fn hash_of_password() -> Result<String, Failure> {
    let hasher = Argon2Passwords::new(PasswordCost::new(19_456, 2, 1)?, 1, 1);
    let caller = HashingCaller::new(CallerClass::Guest, CallerGroup::SignUp, None);
    let hash = hasher.hash(&caller, Password::presented(PASSWORD.into())).await?;
    Ok(hash.as_str().to_owned())
}

fn bar(done: usize, of: usize, began: Instant) {
    let filled = done * 40 / of.max(1);
    let seconds = began.elapsed().as_secs();
    eprint!(
        "\rbench: seeding [{:<40}] {done}/{of} tenants, {seconds} s",
        "#".repeat(filled)
    );
}
