use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tenantry::{Challenge, ChallengeProvider, Extension, Overrides, Secret, compose};
use tenantry_billing::plans::plan::Agreement;
use tenantry_billing::plans::tenant_plan;
use tenantry_billing::plans::{PlanBook, PlanOverride, Plans};
use tenantry_domain::billing::PaymentProvider;
use tenantry_domain::customization::Definition;
use tenantry_domain::events::EventExport;
use tenantry_domain::identity::{ChallengePurpose, Challenges, MfaRequirement};
use tenantry_domain::kernel::{
    Clock, Limit, ProjectId, RequestId, ResourceId, Role, SystemScope, TaskId, TenantId, Time, UserId,
};
use tenantry_domain::operations::OperatorRole;
use tenantry_domain::operations::{
    AccountRates, MailLimits, Mailer, Rate, RateBook, RateLimiter, TenantRates,
};
use tenantry_domain::tenant::NewTenant;
use tenantry_domain::work::{NewProject, NewResource, NewTask, Priority, TaskStatus};
use tenantry_http::{AddressRates, Api, HttpConfig, Limits, OperatorRates, Readiness};
use tenantry_persistence::{Pool, PoolConfig};
use tenantry_redis::{Invalidations, Redis};
use tenantry_system::{
    Argon2Passwords, CacheConfig, CachedConfigurations, CachedDirectory, LocalLimiter, PasswordCost,
    SigningKey,
};
use tenantry_tenancy::admin::operator::{self, NewOperator};
use tenantry_tenancy::admin::operator_job::{self, JobStep, JobSummary, OperatorJobError};
use tenantry_tenancy::billing::Unbilled;
use tenantry_tenancy::identity::claim::SecondFactor;
use tenantry_tenancy::identity::user;
use tenantry_tenancy::identity::user::AddUser;
use tenantry_tenancy::plans::Unlimited;
use tenantry_tenancy::tenant::provision::{self, NewAdmin};
use tenantry_tenancy::tenant::{lifecycle, row_work};
use tenantry_tenancy::usage::Unmetered;
use tenantry_tenancy::work::{project, resource, task};
use tenantry_tenancy::{BillingPolicy, Cx, NoTraces, OperatorCx, Origin, Precondition, Tenancy, Traces};

use crate::server::block_on;
use crate::{Client, Database, KnownHosts, ManualClock, PgBouncer, Request};

/// The password of everybody in the world.
pub const PASSWORD: &str = "correct horse";

/// How a world differs from the usual one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections of the runtime role.
    pub pool: PoolConfig,
    /// HTTP settings.
    pub http: HttpConfig,
    /// Whether sign-up is open.
    pub signup_enabled: bool,
    /// How long a session lives from its login, in days.
    pub session_max_days: i64,
    /// Whether operators need a second factor.
    pub operator_mfa_required: bool,
    /// How many steps before and after the present one a code of an app is accepted in.
    pub totp_steps_around: u8,
    /// Which users of every tenant need a second factor.
    pub users_mfa_minimum: MfaRequirement,
    /// Whether new tenants let people register.
    pub self_registration: bool,
    /// The runtime role is one that row-level security does not bind, made for this world and dropped with it: what
    /// then still keeps tenants apart is the application.
    pub bypass_row_security: bool,
    /// A pooler that both roles connect through.
    pub pooler: Option<SocketAddr>,
    /// What is on offer; when absent the standard catalogue, in which `pro` allows any number of things.
    pub plans: Option<Arc<PlanBook>>,
    /// What tenants and users may ask for.
    pub rates: Arc<dyn RateBook>,
    /// What an address may ask for with credentials.
    pub credential_rate: Rate,
    /// What an address may ask for of what is open to everybody.
    pub visitor_rate: Rate,
    /// How often logins to one account may fail.
    pub account_rates: AccountRates,
    /// What a tenant may ask for of what calls the payment provider.
    pub billing_rate: Rate,
    /// What an operator may ask for.
    pub operator_rates: OperatorRates,
    /// What hashes passwords; a cheap one of its own when absent.
    pub passwords: Option<Arc<Argon2Passwords>>,
    /// Where the buckets are; in this process, by the world's clock, when absent.
    pub limiter: Option<Arc<dyn RateLimiter>>,
    /// A Redis through which instances tell one another what has changed; nobody is told when absent.
    pub redis: Option<Redis>,
    /// Traces beyond the process.
    pub traces: Arc<dyn Traces>,
    /// What host names mean.
    pub resolver: Arc<KnownHosts>,
    /// The DNS server that is asked about custom domains; nothing answers when absent.
    pub dns: Option<SocketAddr>,
    /// Whether the operator has set up no custom domains.
    pub without_edge: bool,
    /// Whether the operator has named no folder for the archives of exports.
    pub without_archives: bool,
    /// Where audit entries are streamed to; nowhere when absent.
    pub audit_stream: tenantry::AuditStream,
    /// Where events are exported to; nowhere when absent.
    pub event_export: Option<EventExport>,
    /// Where webhooks may be sent, and how.
    pub webhooks: tenantry::Webhooks,
    /// Settings beside those of the product.
    pub definitions: Vec<Definition>,
    /// The signing keys, the present one first; one for the whole process when absent.
    pub keys: Vec<String>,
    /// The folder in which calls wait to be recorded; they wait in memory when absent.
    pub spool: Option<PathBuf>,
    /// Whoever takes the money; nobody does when absent.
    pub payments: Option<Payments>,
    /// How much mail an address and a tenant get within a day.
    pub mail_limits: MailLimits,
    /// Whoever delivers mail; it is written to the log when absent.
    pub mailer: Option<Mailing>,
    /// Time; a clock of its own when absent.
    pub clock: Option<Arc<ManualClock>>,
    /// The id of the relying party of passkeys and the origin of its pages; none when absent.
    pub passkeys: Option<(&'static str, String)>,
    /// What the operator decided about payments.
    pub billing: BillingPolicy,
    /// Whether tenancy has the plain defaults of its ports in place of those of `tenantry-billing`: a service without billing.
    pub without_billing: bool,
    /// The requests that need a proof of work of eight bits.
    pub proof_of_work: BTreeSet<ChallengePurpose>,
    /// The address of a list of breached passwords; new passwords are compared with none when absent.
    pub breached_passwords: Option<String>,
    /// The challenges of a provider.
    pub challenges: Option<Challenges>,
    /// A service built on Tenantry: its migrations and its routes are part of the world.
    pub extension: Extension,
}

/// Whoever takes the money of a world.
#[derive(Clone)]
pub struct Payments(pub Arc<dyn PaymentProvider>);

impl std::fmt::Debug for Payments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payments")
    }
}

/// Whoever delivers the mail of a world.
#[derive(Clone)]
pub struct Mailing(pub Arc<dyn Mailer>);

impl std::fmt::Debug for Mailing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailing")
    }
}

impl Default for Options {
    fn default() -> Self {
        let http = HttpConfig {
            base_domain: Some("example.test".into()),
            // A stream ends after what is to be said at once, so that its answer can be read to the end.
            event_stream_lifetime: Duration::ZERO,
            ..HttpConfig::default()
        };
        let pool = PoolConfig {
            size: 4,
            // Requests of one tenant race each other for a row, with a connection each.
            per_tenant: 100,
            acquire_timeout: Duration::from_secs(10),
            ..PoolConfig::default()
        };
        Self {
            pool,
            http,
            signup_enabled: true,
            session_max_days: 30,
            operator_mfa_required: false,
            totp_steps_around: 1,
            users_mfa_minimum: MfaRequirement::Off,
            self_registration: true,
            bypass_row_security: false,
            pooler: None,
            plans: None,
            rates: Arc::new(TenantRates {
                tenant: Some(generous()),
                user: Some(generous()),
            }),
            credential_rate: generous(),
            visitor_rate: generous(),
            account_rates: AccountRates {
                network: generous(),
                anywhere: generous(),
            },
            billing_rate: generous(),
            operator_rates: OperatorRates {
                admin: generous(),
                support: generous(),
            },
            passwords: None,
            limiter: None,
            redis: None,
            traces: Arc::new(NoTraces),
            resolver: Arc::default(),
            dns: None,
            without_edge: false,
            without_archives: false,
            audit_stream: tenantry::AuditStream::default(),
            event_export: None,
            webhooks: tenantry::Webhooks::default(),
            definitions: Vec::new(),
            keys: Vec::new(),
            spool: None,
            payments: None,
            mail_limits: MailLimits::default(),
            mailer: None,
            clock: None,
            passkeys: Some((PASSKEY_DOMAIN, PASSKEY_ORIGIN.into())),
            billing: BillingPolicy::default(),
            without_billing: false,
            proof_of_work: BTreeSet::new(),
            breached_passwords: None,
            challenges: None,
            extension: Extension::default(),
        }
    }
}

/// The name that custom domains of a world must lead to.
pub const EDGE: &str = "edge.example.test";

/// The domain that passkeys of a world are bound to.
pub const PASSKEY_DOMAIN: &str = "example.test";

/// Where the pages of a world are that use passkeys.
pub const PASSKEY_ORIGIN: &str = "https://app.example.test";

/// Two tenants with somebody of each role in each, a project, a task and a resource in each, and an API over them.
///
/// The second tenant is there even when a test does not need it.
pub struct World {
    /// The tenant that tests act in.
    pub acme: TenantWorld,
    /// The tenant that must stay as it is.
    pub globex: TenantWorld,
    /// The API.
    pub client: Client,
    /// The same API, for serving it on a socket.
    pub api: Api,
    /// The application.
    pub app: Arc<Tenancy>,
    /// Time.
    pub clock: Arc<ManualClock>,
    /// What the API remembers of tenants and users.
    pub cache: Arc<CachedDirectory>,
    /// What it remembers of tenants' settings and looks.
    pub configurations: Arc<CachedConfigurations>,
    /// What it tells other instances and hears from them.
    pub invalidations: Option<Invalidations>,
    /// The runtime role's connections.
    pub pool: Pool,
    /// Readiness of the API.
    pub readiness: Arc<Readiness>,
    /// The database; last, so that it is dropped when nobody uses it any more.
    pub database: Database,
}

/// One tenant of the world.
#[derive(Debug, Clone)]
pub struct TenantWorld {
    /// Its id.
    pub id: TenantId,
    /// Its slug (and subdomain).
    pub slug: &'static str,
    /// Its admin.
    pub admin: Person,
    /// A member; owner of nothing.
    pub member: Person,
    /// A viewer.
    pub viewer: Person,
    /// A project of the admin's.
    pub project: ProjectId,
    /// A task in it.
    pub task: TaskId,
    /// A resource in it.
    pub resource: ResourceId,
}

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// Their address.
    pub email: String,
    /// Their access token.
    pub access_token: String,
    /// Their refresh token.
    pub refresh_token: String,
}

/// The two tenants of the usual world, made once in a process: further worlds start from a copy of their database.
struct Seed {
    database: Database,
    tenants: [TenantWorld; 2],
    /// When the last of it was made: worlds go on from there.
    ended_at: Time,
}

impl Seed {
    /// The seed, where nothing that these options change takes part in making it.
    fn of(options: &Options) -> Option<&'static Self> {
        static SEED: OnceLock<Seed> = OnceLock::new();
        // All of them, so that a new one is decided upon here.
        let Options {
            signup_enabled: true,
            self_registration: true,
            plans: None,
            passwords: None,
            payments: None,
            clock: None,
            without_billing: false,
            keys,
            pool: _,
            http: _,
            session_max_days: _,
            operator_mfa_required: _,
            totp_steps_around: _,
            users_mfa_minimum: _,
            bypass_row_security: _,
            pooler: _,
            rates: _,
            credential_rate: _,
            visitor_rate: _,
            account_rates: _,
            billing_rate: _,
            operator_rates: _,
            limiter: _,
            redis: _,
            traces: _,
            resolver: _,
            dns: _,
            without_archives: _,
            without_edge: _,
            definitions: _,
            spool: _,
            mail_limits: _,
            mailer: _,
            passkeys: _,
            billing: _,
            proof_of_work: _,
            breached_passwords: _,
            challenges: _,
            extension: _,
            audit_stream: _,
            event_export: _,
            webhooks: _,
        } = options
        else {
            return None;
        };
        if !keys.is_empty() {
            return None;
        }
        // On a thread of its own: the seed outlives the runtime of the first test.
        Some(SEED.get_or_init(|| std::thread::spawn(|| block_on(Self::make())).join().unwrap()))
    }

    async fn make() -> Self {
        let database = Database::new().await;
        let clock = Arc::new(ManualClock::default());
        let instance = application(
            &database,
            &Options::default(),
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        let tenants = tenants(&instance.app, &database).await;
        database.disconnect_all().await;
        Self {
            database,
            tenants,
            ended_at: clock.now(),
        }
    }
}

/// The context of a command on a server, for calling operators' use cases directly.
pub fn operator_cx(app: &Arc<Tenancy>) -> OperatorCx {
    OperatorCx::command(app, SystemScope::because("a test in an operator's place"))
}

impl World {
    /// The usual world.
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// A world that differs.
    pub async fn with(options: Options) -> Self {
        let seed = Seed::of(&options);
        let database = match seed {
            Some(seed) => Database::like(seed.database.name()).await,
            None => Database::new().await,
        };
        // The template has Tenantry's own.
        if options.extension.has_migrations() {
            options.extension.migrate(&database.owner_url()).await.unwrap();
        }
        if options.bypass_row_security {
            database.make_bypass_role().await;
        }
        let own_clock = || seed.map_or_else(Arc::default, |seed| Arc::new(ManualClock::at(seed.ended_at)));
        let clock = options.clock.clone().unwrap_or_else(own_clock);
        let instance = application(&database, &options, Arc::clone(&clock) as Arc<dyn Clock>);
        let Instance {
            app,
            pool,
            cache,
            configurations,
            invalidations,
        } = instance;
        let readiness = Arc::new(Readiness::new().with_check("database", Arc::new(PoolCheck(pool.clone()))));
        let api = Api::new(Arc::clone(&app), options.http.clone(), Arc::clone(&readiness))
            .with_limits(limits(&options, &clock));
        let api = options.extension.extend(api);
        let client = Client::new(api.clone()).await;
        let [acme, globex] = match seed {
            Some(seed) => seed.tenants.clone(),
            None => tenants(&app, &database).await,
        };
        Self {
            acme,
            globex,
            client,
            api,
            app,
            clock,
            cache,
            configurations,
            invalidations,
            pool,
            readiness,
            database,
        }
    }

    /// A second instance over the same database, with its own pool: another process, as far as state goes.
    pub fn instance(&self, options: &Options) -> Instance {
        application(&self.database, options, Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    /// The same with a clock of its own.
    pub fn instance_at(&self, options: &Options, clock: Arc<dyn Clock>) -> Instance {
        application(&self.database, options, clock)
    }

    /// A client of another instance over the same database, with the limits of these options: its buckets are its
    /// own unless the options say where they are.
    pub async fn other_instance(&self, options: &Options) -> Client {
        self.client_of(self.instance(options).app, options).await
    }

    /// A client of an instance, with the limits of these options.
    pub async fn client_of(&self, app: Arc<Tenancy>, options: &Options) -> Client {
        let api = Api::new(app, options.http.clone(), Arc::clone(&self.readiness));
        Client::new(api.with_limits(limits(options, &self.clock))).await
    }

    /// A request of somebody's.
    pub fn get(&self, who: &Person, path: &str) -> Request {
        self.client.get(path).bearer(&who.access_token)
    }

    /// A request of somebody's.
    pub fn post(&self, who: &Person, path: &str, body: &Value) -> Request {
        self.client.post(path, body).bearer(&who.access_token)
    }

    /// A request of somebody's.
    pub fn patch(&self, who: &Person, path: &str, body: &Value) -> Request {
        self.client.patch(path, body).bearer(&who.access_token)
    }

    /// A request of somebody's.
    pub fn put(&self, who: &Person, path: &str, body: &Value) -> Request {
        self.client.put(path, body).bearer(&who.access_token)
    }

    /// A request of somebody's.
    pub fn delete(&self, who: &Person, path: &str) -> Request {
        self.client.delete(path).bearer(&who.access_token)
    }

    /// The context of a command on the server, for calling operators' use cases directly.
    pub fn operator_cx(&self) -> OperatorCx {
        operator_cx(&self.app)
    }

    /// Deletes a tenant and purges it at once, to its last row.
    pub async fn purge(&self, tenant: &TenantWorld) {
        let operators = self.operator_cx();
        lifecycle::delete(&operators, tenant.id, "a test").await.unwrap();
        lifecycle::purge(&operators, tenant.id, "a test").await.unwrap();
        let settled = row_work::settle(&self.app, tenant.id, None, &|_| {}).await;
        assert_eq!(settled.unwrap(), row_work::Settled::Done);
    }

    /// Agrees with a tenant on something else than its plan says.
    pub async fn agree(&self, tenant: TenantId, agreement: Agreement) {
        let operators = self.operator_cx();
        tenant_plan::agree(&operators, tenant, &Precondition::None, agreement, "a test")
            .await
            .unwrap();
    }

    /// Replays or cancels a job of a tenant in an operator's place.
    pub async fn step_job(
        &self,
        tenant: TenantId,
        job: uuid::Uuid,
        step: JobStep,
    ) -> Result<JobSummary, OperatorJobError> {
        operator_job::step(&self.operator_cx(), Some(tenant), job, step, "a test").await
    }

    /// The access token of an owner among the operators, who is made for it.
    pub async fn operator(&self, email: &str) -> String {
        self.operator_as(email, OperatorRole::Owner).await
    }

    /// The access token of an operator with a role, who is made for it.
    pub async fn operator_as(&self, email: &str, role: OperatorRole) -> String {
        let new = NewOperator {
            email: email.to_owned(),
            full_name: "Olga Operator".to_owned(),
            role,
            password: Some(PASSWORD.to_owned()),
            is_own_password: true,
        };
        operator::create(&self.operator_cx(), new).await.unwrap();
        let body = json!({"email": email, "password": PASSWORD});
        let login = self.client.post("/api/v1/admin/login", &body).await.expect(200);
        login.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// The audit of operators, oldest first: action and the whole row as JSON.
    pub async fn operator_events(&self) -> Vec<(String, Value)> {
        sqlx::query_as("SELECT action, to_jsonb(e) FROM operator_events e ORDER BY at, id")
            .fetch_all(&mut self.database.admin().await)
            .await
            .unwrap()
    }

    /// The context of somebody, for calling use cases directly.
    pub async fn cx(&self, who: &Person) -> Cx {
        cx(&self.app, &who.access_token).await
    }

    /// Puts a tenant into a state behind the application's back, as an operator with a database shell would, and waits
    /// until what the API remembers is too old.
    pub async fn set_status(&self, tenant: &TenantWorld, status: &str) {
        let deleted = if status == "deleted" { "now()" } else { "NULL" };
        let sql = format!(
            "UPDATE tenants SET status = '{status}', deleted_at = {deleted} WHERE id = '{}'",
            tenant.id
        );
        self.sql(sql).await;
        self.outlive_the_cache();
    }

    /// Runs a statement behind the application's back, as a superuser. Returns how many rows it changed.
    pub async fn sql(&self, sql: impl Into<String>) -> u64 {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.into()))
            .execute(&mut self.database.admin().await)
            .await;
        done.unwrap().rows_affected()
    }

    /// Adds another admin of acme and logs them in.
    pub async fn second_admin(&self) -> Person {
        let email = "second@acme.example";
        let body = json!({"email": email, "full_name": "Second", "role": "admin", "password": PASSWORD});
        let added = self.post(&self.acme.admin, "/api/v1/users", &body);
        let added = added.await.expect(201).json();
        let login = self.login("acme", email, PASSWORD).await.expect(200).json();
        Person {
            id: added["id"].as_str().unwrap().parse().unwrap(),
            email: email.into(),
            access_token: login["access_token"].as_str().unwrap().into(),
            refresh_token: login["refresh_token"].as_str().unwrap().into(),
        }
    }

    /// Lets so much time pass that what the API remembers is too old to be used.
    pub fn outlive_the_cache(&self) {
        let longest = CacheConfig::default().alone_ttl_ms;
        self.clock.advance(chrono::Duration::milliseconds(longest));
    }

    /// How many connections of this world's database wait for a lock just now.
    pub async fn waiting_for_locks(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        sqlx::query_scalar(sql)
            .fetch_one(&mut self.database.admin().await)
            .await
            .unwrap()
    }

    /// A digest of every row of a tenant in every table, as a superuser sees them: equal digests mean that nothing
    /// of the tenant changed.
    pub async fn digest(&self, tenant: &TenantWorld) -> Vec<(String, String)> {
        let mut admin = self.database.admin().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
             WHERE a.attname = 'tenant_id' AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 1",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert!(tables.len() >= 8, "{tables:?}");
        let mut digests = Vec::new();
        for (table, column) in tables
            .iter()
            .map(|table| (table.as_str(), "tenant_id"))
            .chain([("tenants", "id")])
        {
            let sql = format!(
                "SELECT count(*) || ' ' || coalesce(md5(string_agg(r::text, '|' ORDER BY r::text)), '') \
                 FROM \"{table}\" r WHERE {column} = '{}'",
                tenant.id
            );
            let digest: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_one(&mut admin)
                .await
                .unwrap();
            digests.push((table.to_owned(), digest));
        }
        digests
    }

    /// The audit entries of a tenant, oldest first: action and the whole row as JSON.
    pub async fn audit(&self, tenant: &TenantWorld) -> Vec<(String, Value)> {
        sqlx::query_as(
            "SELECT action, to_jsonb(a) FROM audit_events a WHERE tenant_id = $1 ORDER BY created_at, id",
        )
        .bind(tenant.id.uuid())
        .fetch_all(&mut self.database.admin().await)
        .await
        .unwrap()
    }

    /// The answer to a login.
    pub async fn login(&self, slug: &str, email: &str, password: &str) -> crate::Reply {
        let body = json!({"tenant_slug": slug, "email": email, "password": password});
        self.client.post("/api/v1/auth/login", &body).await
    }
}

fn limits(options: &Options, clock: &Arc<ManualClock>) -> Limits {
    let limiter = options.limiter.clone();
    let limiter = limiter.unwrap_or_else(|| Arc::new(LocalLimiter::new(clock.clone())));
    let addresses = AddressRates {
        credential: options.credential_rate,
        visitor: options.visitor_rate,
        account: options.account_rates,
    };
    Limits::new(
        limiter,
        Arc::clone(&options.rates),
        addresses,
        options.billing_rate,
    )
    .operators(options.operator_rates)
}

/// What no test asks for without wanting to.
fn generous() -> Rate {
    Rate::new(1_000_000, 1_000_000).unwrap()
}

/// One process, as far as state goes.
pub struct Instance {
    /// The application.
    pub app: Arc<Tenancy>,
    /// The runtime role's connections.
    pub pool: Pool,
    /// What it remembers.
    pub cache: Arc<CachedDirectory>,
    /// What it remembers of tenants' settings and looks.
    pub configurations: Arc<CachedConfigurations>,
    /// What it tells others and hears from them.
    pub invalidations: Option<Invalidations>,
}

fn application(database: &Database, options: &Options, clock: Arc<dyn Clock>) -> Instance {
    let overrides = Overrides {
        clock: Some(clock),
        pool: Some(options.pool.clone()),
        keys: signing_keys(options),
        passwords: Some(options.passwords.clone().unwrap_or_else(cheap_passwords)),
        plans: Some(options.plans.clone().unwrap_or_else(standard_plans)),
        redis: options.redis.clone(),
        traces: Some(Arc::clone(&options.traces)),
        resolver: Some(options.resolver.clone()),
        payments: options.payments.as_ref().map(|payments| Arc::clone(&payments.0)),
        challenges: options.challenges.clone(),
        mailer: options.mailer.as_ref().map(|mailing| Arc::clone(&mailing.0)),
        event_export: options.event_export.clone(),
        ..billing_ports(options)
    };
    let booted = compose(&settings(database, options), overrides).unwrap();
    if let Some(everywhere) = &booted.invalidations {
        tokio::spawn(everywhere.clone().run());
    }
    Instance {
        app: booted.app,
        pool: booted.runtime,
        cache: booted.cache,
        configurations: booted.configurations,
        invalidations: booted.invalidations,
    }
}

/// What tenancy asks of billing: the plain defaults for a service without billing.
fn billing_ports(options: &Options) -> Overrides {
    if !options.without_billing {
        return Overrides::default();
    }
    Overrides {
        entitlements: Some(Arc::new(Unlimited)),
        subscriptions: Some(Arc::new(Unbilled)),
        usage_recorder: Some(Arc::new(Unmetered)),
        quota_recovery: Some(Arc::new(Unmetered)),
        ..Overrides::default()
    }
}

/// The settings of a server over this database.
fn settings(database: &Database, options: &Options) -> tenantry::Configuration {
    let role = if options.bypass_row_security {
        database.bypass_url()
    } else {
        database.app_url()
    };
    let mut settings = tenantry::Configuration::default();
    settings.extension = options.extension.clone().settings(options.definitions.clone());
    settings.database.url = Secret::new(pooled(role, options));
    settings.database.platform_url = Secret::new(pooled(database.platform_url(), options));
    settings.database.platform_pool_size = 2;
    settings.signup.enabled = options.signup_enabled;
    settings.signup.self_registration = options.self_registration;
    settings.auth.session_max_days = options.session_max_days;
    settings.auth.operator_mfa_required = Some(options.operator_mfa_required);
    settings.auth.totp_steps_around = options.totp_steps_around;
    settings.auth.users_mfa_minimum = options.users_mfa_minimum;
    if !options.proof_of_work.is_empty() {
        let purposes = options.proof_of_work.iter();
        settings.signup.challenge = Challenge {
            provider: ChallengeProvider::ProofOfWork,
            difficulty: 8,
            purposes: purposes.map(|purpose| purpose.as_str().to_owned()).collect(),
            ..Challenge::default()
        };
    }
    settings.auth.breached_passwords.url = options.breached_passwords.clone().unwrap_or_default();
    settings.auth.api_key_environment = "test".into();
    if let Some((domain, origin)) = &options.passkeys {
        (*domain).clone_into(&mut settings.auth.passkeys.rp_id);
        settings.auth.passkeys.origins = vec![origin.clone()];
    }
    settings.mail.recipient_per_day = options.mail_limits.recipient;
    settings.mail.tenant_per_day = options.mail_limits.tenant;
    settings.mail.app_url = "https://app.example.test/".into();
    settings.audit.stream = options.audit_stream.clone();
    settings.webhooks = options.webhooks.clone();
    settings.domains.edge = if options.without_edge { "" } else { EDGE }.into();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    settings.domains.name_servers = vec![options.dns.unwrap_or(nobody)];
    settings.domains.timeout_ms = 1_000;
    settings.http.base_domain = options.http.base_domain.clone().unwrap_or_default();
    settings.metering.spool_dir = options.spool.clone().unwrap_or_default();
    if !options.without_archives {
        settings.archive.directory = database.exports();
    }
    settings
        .billing
        .return_url
        .clone_from(&options.billing.return_url);
    settings.billing.automatic_tax = options.billing.automatic_tax;
    settings.billing.dunning.delete_after_days = options.billing.delete_after_days.unwrap_or(0);
    settings
}

impl World {
    /// Deletes the links to verify addresses of users that a test has added, with their mails.
    pub async fn forget_links(&self) {
        forget_links(&self.database).await;
    }
}

/// Deletes the links to verify addresses that nobody in the world has asked for, with their mails: tests see those that they
/// cause themselves.
async fn forget_links(database: &Database) {
    let sql = "DELETE FROM account_links; DELETE FROM jobs WHERE kind = 'account.link'; \
               DELETE FROM audit_events WHERE action = 'account_link.sent'";
    sqlx::raw_sql(sql)
        .execute(&mut database.admin().await)
        .await
        .unwrap();
}

fn cheap_passwords() -> Arc<Argon2Passwords> {
    Arc::new(Argon2Passwords::new(PasswordCost::for_tests(), 2, 1_000))
}

fn pooled(url: String, options: &Options) -> String {
    options
        .pooler
        .map_or_else(|| url.clone(), |pooler| PgBouncer::route(&url, pooler))
}

fn signing_keys(options: &Options) -> Vec<SigningKey> {
    if options.keys.is_empty() {
        return vec![signing_key()];
    }
    let keys = options.keys.iter();
    keys.map(|pem| SigningKey::from_pem(pem).unwrap()).collect()
}

/// One key for the process, so that two instances over one database accept each other's tokens.
fn standard_plans() -> Arc<PlanBook> {
    let generous = PlanOverride {
        limits: [
            "users",
            "projects",
            "domains",
            "webhook_endpoints",
            "storage_bytes",
        ]
        .map(|limit| (limit.to_owned(), Limit::Unlimited))
        .into(),
        features: None,
    };
    let plans = with_meters(&["renders"], "unlimited", |_| "sum");
    let plans = plans.overridden(&[("pro".to_owned(), generous)].into());
    Arc::new(PlanBook::new(plans.unwrap()).unwrap())
}

/// The standard catalogue with further meters, of which each plan includes so much and limits nothing.
fn with_meters(keys: &[&str], included: &str, aggregation: fn(&str) -> &str) -> Plans {
    let meters: String = keys
        .iter()
        .map(|key| {
            let (aggregation, title) = (aggregation(key), key.trim_end_matches("_meter"));
            format!(
                "[[meter]]\nkey = \"{key}\"\ntitle = \"{title}\"\nunit = \"one\"\naggregation = \"{aggregation}\"\n\
                 reset = \"billing_cycle\"\n\n"
            )
        })
        .collect();
    let included = match included {
        "unlimited" => "\"unlimited\"",
        number => number,
    };
    let terms: String = keys
        .iter()
        .map(|key| format!("[plan.meters.{key}]\nincluded = {included}\nlimit = \"unlimited\"\n\n"))
        .collect();
    let standard = include_str!("../../config/plans.toml");
    let own = "[plan.meters.active_users]";
    let text = standard.replace(own, &format!("{terms}{own}"));
    let text = text.replacen("\n[[meter]]", &format!("\n{meters}[[meter]]"), 1);
    Plans::parse(&text).unwrap()
}

/// The standard catalogue with two more plans that cost nothing: `internal`, and `partner`, which is open to sign-up.
pub fn plans_without_prices() -> Arc<PlanBook> {
    let standard = include_str!("../../config/plans.toml");
    let free = standard.find("[[plan]]\nname = \"free\"").unwrap();
    let pro = standard.find("[[plan]]\nname = \"pro\"").unwrap();
    let like_free = |name: &str, signup: &str| {
        let named = standard[free..pro].replacen("\"free\"", &format!("\"{name}\""), 1);
        named.replacen("default = true", signup, 1)
    };
    let (internal, partner) = (like_free("internal", ""), like_free("partner", "signup = true"));
    let plans = Plans::parse(&format!("{standard}\n{internal}\n{partner}"));
    Arc::new(PlanBook::new(plans.unwrap()).unwrap())
}

/// The standard catalogue with a meter of each kind that anybody may record usage of, by the names of their aggregations:
/// `sum_meter` and so on.
pub fn plans_with_meters() -> Arc<PlanBook> {
    let keys = [
        "sum_meter",
        "count_meter",
        "max_meter",
        "last_meter",
        "unique_meter",
    ];
    let plans = with_meters(&keys, "10", |key| key.trim_end_matches("_meter"));
    Arc::new(PlanBook::new(plans).unwrap())
}

fn signing_key() -> SigningKey {
    static KEY: OnceLock<String> = OnceLock::new();
    SigningKey::from_pem(KEY.get_or_init(|| SigningKey::generate().to_pem())).unwrap()
}

async fn tenants(app: &Arc<Tenancy>, database: &Database) -> [TenantWorld; 2] {
    let acme = tenant(app, "acme", "Acme Inc").await;
    let globex = tenant(app, "globex", "Globex Corp").await;
    forget_links(database).await;
    [acme, globex]
}

async fn tenant(app: &Arc<Tenancy>, slug: &'static str, name: &str) -> TenantWorld {
    let new = NewTenant {
        name: name.into(),
        slug: slug.into(),
        subdomain: None,
        plan: Some("pro".into()),
    };
    let admin = NewAdmin {
        email: format!("admin@{slug}.example"),
        full_name: "Ada Admin".into(),
        password: Some(PASSWORD.into()),
    };
    let because = SystemScope::because("a world for a test");
    let request = RequestId::next(app.ports.ids.as_ref());
    let founded = provision::found(app, because, Origin::default(), request, new, admin)
        .await
        .unwrap()
        .login;
    let admin = Person {
        id: founded.user.id,
        email: founded.user.email.as_str().to_owned(),
        access_token: founded.access_token,
        refresh_token: founded.refresh_token,
    };
    let cx = cx(app, &admin.access_token).await;
    let member = person(&cx, app, slug, Role::Member).await;
    let viewer = person(&cx, app, slug, Role::Viewer).await;
    let data = NewProject {
        name: format!("{name} project"),
        description: None,
    };
    let project = project::create(&cx, data).await.unwrap().id;
    let data = NewTask {
        title: format!("{name} task"),
        description: Some(format!("secret of {slug}")),
        status: TaskStatus::Todo,
        priority: Priority::Normal,
        assignee_id: Some(member.id),
        due_at: None,
    };
    let task = task::create(&cx, project, data).await.unwrap().id;
    let data = NewResource {
        project_id: Some(project),
        name: format!("{name} resource"),
        kind: None,
        content: Some(format!("secret of {slug}")),
        url: None,
    };
    let resource = resource::create(&cx, data).await.unwrap().id;
    TenantWorld {
        id: founded.tenant.id,
        slug,
        admin,
        member,
        viewer,
        project,
        task,
        resource,
    }
}

async fn person(cx: &Cx, app: &Arc<Tenancy>, slug: &str, role: Role) -> Person {
    let email = format!("{}@{slug}.example", role.as_str());
    let data = AddUser {
        email: email.clone(),
        full_name: format!("{} of {slug}", role.as_str()),
        role,
        custom_role: None,
        password: Some(PASSWORD.into()),
        is_own_password: true,
    };
    let id = user::create(cx, data).await.unwrap().user.id;
    let selector = tenantry_domain::tenant::TenantSelector::Id(cx.scope().tenant());
    let guest = app
        .ports
        .gate
        .guest(&selector, cx.scope().request().clone())
        .await
        .unwrap();
    let guest = Cx::new(Arc::clone(app), guest.scope, Origin::default());
    let password = tenantry_domain::identity::Password::presented(PASSWORD.into());
    let login = tenantry_tenancy::identity::auth::login(&guest, &email, password, SecondFactor::default())
        .await
        .unwrap();
    Person {
        id,
        email,
        access_token: login.access_token,
        refresh_token: login.refresh_token,
    }
}

async fn cx(app: &Arc<Tenancy>, token: &str) -> Cx {
    let request = RequestId::next(app.ports.ids.as_ref());
    let admission = app.ports.gate.bearer(token, request).await.unwrap();
    Cx::new(Arc::clone(app), admission.scope, Origin::default())
}

struct PoolCheck(Pool);

#[async_trait::async_trait]
impl tenantry_http::HealthCheck for PoolCheck {
    async fn check(&self) -> Result<(), String> {
        self.0.ping().await.map_err(|error| error.to_string())
    }
}
