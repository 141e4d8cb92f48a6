//! Settings: defaults here, `<profile>.toml` above them, `TENANTRY__SECTION__KEY` on top. All of it is checked at
//! start, and every complaint names its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::{Deserialize, Serialize};
use tenantry_billing::PlanOverride;
use tenantry_domain::{ApiKeyFormat, Mailbox, is_language_tag, is_time_zone};
use tenantry_persistence::Transport;

/// How strict the checks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// On somebody's own machine: keys are made as needed, sign-up is open.
    Development,
    /// For others: secrets must be given, and weak ones are refused.
    #[default]
    Production,
}

impl Profile {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}

/// A setting that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() {
            "Secret()"
        } else {
            "Secret(…)"
        })
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Chosen by `--profile`, never by a file.
    #[serde(skip)]
    pub profile: Profile,
    pub server: Server,
    pub database: Database,
    pub http: Http,
    pub auth: Auth,
    pub signup: Signup,
    pub views: Views,
    pub metering: Metering,
    pub jobs: Jobs,
    pub cache: Cache,
    pub metrics: Metrics,
    pub limits: Limits,
    pub quotas: Quotas,
    pub redis: Redis,
    pub guard: Guard,
    pub plans: Plans,
    pub billing: Billing,
    pub mail: Mail,
    pub log: Log,
    pub tracing: Tracing,
}

/// Where and how to listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub host: String,
    pub port: u16,
    /// Threads that serve requests; 0 = one per core.
    pub workers: usize,
    /// How long readiness says no before listening ends, so that a load balancer notices.
    pub drain_seconds: u64,
    /// How long requests in flight may take to finish.
    pub shutdown_seconds: u64,
    /// Connections of each thread; further ones wait in the backlog.
    pub max_connections: usize,
    /// Connections of one network (/24 of IPv4, /56 of IPv6), loopback and private networks excepted; 0 = no bound. Not in
    /// effect behind a proxy whose word on addresses is taken.
    pub connections_per_network: usize,
    /// How many connections may wait to be taken.
    pub backlog: u32,
}

impl Server {
    /// How many threads serve requests.
    pub fn threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get),
            workers => workers,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            workers: 0,
            drain_seconds: 0,
            shutdown_seconds: 20,
            max_connections: 25_000,
            connections_per_network: 1_000,
            backlog: 1_024,
        }
    }
}

/// Which database, as which roles.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// As the runtime role `tenantry_app`.
    pub url: Secret,
    /// As the directory's and operators' role `tenantry_platform`.
    pub platform_url: Secret,
    /// As `tenantry_owner`, for `tenantry migrate` only.
    pub owner_url: Secret,
    /// As an administrator, for `tenantry migrate --bootstrap` and `tenantry dev` only.
    pub admin_url: Secret,
    pub pool_size: usize,
    pub platform_pool_size: usize,
    /// How many connections one tenant may use at once; 0 = half of them, and a quarter while other tenants are there.
    pub per_tenant: usize,
    /// How many requests may wait for a connection; the next one is answered 503 at once.
    pub queue: usize,
    pub acquire_timeout_ms: u64,
    pub connect_timeout_ms: u64,
    /// How long a statement may run, how long it may wait for a lock, and how long a transaction may do nothing; 0 = as
    /// the role has it.
    pub statement_timeout_ms: u64,
    pub lock_timeout_ms: u64,
    pub idle_in_transaction_timeout_ms: u64,
    pub check_after_idle_seconds: u64,
    pub max_lifetime_seconds: u64,
    /// The URLs lead to PgBouncer in transaction mode.
    pub behind_pooler: bool,
    /// Accept URLs over a network without `sslmode=verify-full` in production. Logged at every start.
    pub allow_plaintext: bool,
}

impl Database {
    /// Whether the settings name a database, whichever role it is for.
    pub fn is_named(&self) -> bool {
        let urls = [&self.url, &self.platform_url, &self.owner_url, &self.admin_url];
        urls.into_iter().any(|url| !url.is_empty())
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            platform_url: Secret::default(),
            owner_url: Secret::default(),
            admin_url: Secret::default(),
            pool_size: 10,
            platform_pool_size: 3,
            per_tenant: 0,
            queue: 1_000,
            acquire_timeout_ms: 5_000,
            connect_timeout_ms: 5_000,
            statement_timeout_ms: 30_000,
            lock_timeout_ms: 5_000,
            idle_in_transaction_timeout_ms: 60_000,
            check_after_idle_seconds: 30,
            max_lifetime_seconds: 1_800,
            behind_pooler: false,
            allow_plaintext: false,
        }
    }
}

/// What HTTP looks like from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `example.com` makes `acme.example.com` name the tenant with the subdomain `acme`; empty = not used.
    pub base_domain: String,
    pub body_limit_bytes: usize,
    /// Origins that browsers may call from; `*` = any; none = no CORS.
    pub cors_origins: Vec<String>,
    /// Send `Strict-Transport-Security`; only when every client comes by https.
    pub hsts: bool,
    /// Take the caller's address from the last hop of `X-Forwarded-For`; only behind a proxy that sets it.
    pub trust_forwarded_for: bool,
    /// How long a request may take until its answer begins.
    pub request_timeout_ms: u64,
    /// How long a client may take to send the head of a request, and its body.
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    /// How long a connection may be idle between requests.
    pub keep_alive_ms: u64,
    /// How long a connection that is closed here may take to be closed by the client.
    pub disconnect_timeout_ms: u64,
    /// How many streams of events may be open here, of all tenants and of one.
    pub event_streams: usize,
    pub event_streams_per_tenant: usize,
    /// How long a stream stays open; then the client opens it again.
    pub event_stream_seconds: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            base_domain: String::new(),
            body_limit_bytes: 1_048_576,
            cors_origins: Vec::new(),
            hsts: false,
            trust_forwarded_for: false,
            request_timeout_ms: 30_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 15_000,
            keep_alive_ms: 75_000,
            disconnect_timeout_ms: 1_000,
            event_streams: 10_000,
            event_streams_per_tenant: 100,
            event_stream_seconds: 600,
        }
    }
}

/// Tokens and passwords.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// The Ed25519 key that signs access tokens, PKCS#8 PEM; or a file with it.
    pub signing_key: Secret,
    pub signing_key_file: Option<PathBuf>,
    /// Files with earlier keys, whose tokens are still accepted.
    pub previous_key_files: Vec<PathBuf>,
    pub issuer: String,
    pub audience: String,
    pub access_token_minutes: i64,
    pub session_days: i64,
    /// The second part of the text of API keys; keys of another environment are refused.
    pub api_key_environment: String,
    /// Argon2id: memory, passes, lanes.
    pub password_memory_kib: u32,
    pub password_iterations: u32,
    pub password_lanes: u32,
    /// How many passwords are hashed at once, and how many may wait for that.
    pub password_at_once: usize,
    pub password_queue: usize,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            signing_key: Secret::default(),
            signing_key_file: None,
            previous_key_files: Vec::new(),
            issuer: "tenantry".into(),
            audience: "tenantry-api".into(),
            access_token_minutes: 15,
            session_days: 30,
            api_key_environment: "live".into(),
            password_memory_kib: 19_456,
            password_iterations: 2,
            password_lanes: 1,
            password_at_once: 2,
            password_queue: 64,
        }
    }
}

/// Who may found a tenant, and what it begins with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signup {
    pub enabled: bool,
    /// Whether a new tenant lets people register themselves until its admin says otherwise.
    pub self_registration: bool,
    pub timezone: String,
    pub locale: String,
    /// For how many days a slug or subdomain that a tenant gave up is reserved for that tenant.
    pub name_quarantine_days: u32,
}

impl Default for Signup {
    fn default() -> Self {
        Self {
            enabled: false,
            self_registration: false,
            timezone: "UTC".into(),
            locale: "en".into(),
            name_quarantine_days: 30,
        }
    }
}

/// View counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Views {
    /// How often buffered views are stored.
    pub flush_seconds: u64,
}

impl Default for Views {
    fn default() -> Self {
        Self { flush_seconds: 10 }
    }
}

/// What tenants use, counted by the server itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metering {
    /// The folder in which calls wait until they are stored, so that a killed server loses none; empty = in memory, where
    /// they are lost with it. Servers over one database may share it, servers over different ones must not.
    pub spool_dir: PathBuf,
    /// How often they are stored: each time an event of each tenant that was active.
    pub flush_interval_ms: u64,
}

impl Default for Metering {
    fn default() -> Self {
        Self {
            spool_dir: PathBuf::new(),
            flush_interval_ms: 30_000,
        }
    }
}

/// Work that is done in the background.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// Whether this server runs jobs; it may leave them to others.
    pub enabled: bool,
    /// How often it looks for jobs.
    pub poll_ms: u64,
    /// How many jobs it runs at once.
    pub at_once: u32,
    /// How many jobs of one tenant run at once, with those of other servers.
    pub per_tenant: u32,
    /// After how long without a sign of life its jobs are taken over by others.
    pub lease_seconds: u64,
    /// How long running jobs may take to finish when it is told to stop.
    pub grace_seconds: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            enabled: true,
            poll_ms: 1_000,
            at_once: 8,
            per_tenant: 4,
            lease_seconds: 60,
            grace_seconds: 10,
        }
    }
}

/// What is remembered of tenants, users and tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// At most so many memberships, names of tenants and tokens each.
    pub entries: u64,
    /// For how long, while changes made by other instances are heard of.
    pub ttl_ms: u64,
    /// For how long while they are not: a revocation made elsewhere goes unnoticed for so long.
    pub alone_ttl_ms: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            entries: 50_000,
            ttl_ms: 60_000,
            alone_ttl_ms: 1_000,
        }
    }
}

/// Measurements for Prometheus.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Whether `/metrics` is served at all. Beside the API it names the busiest tenants for operators only.
    pub enabled: bool,
    /// A port of its own for it, on `server.host`; 0 = beside the API.
    pub port: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 0,
        }
    }
}

/// How much may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whether requests are held to any limit.
    pub enabled: bool,
    /// Whether servers over one Redis share their buckets, which costs each request a round trip to it.
    pub shared: bool,
    /// How many servers share the load: each one alone gives its part of every limit.
    pub instances: u32,
    /// Every limit is so many times what plans and settings say.
    pub factor: u32,
    /// What one address may ask for where a credential is presented or made, and how much of it at once.
    pub credential_per_minute: u32,
    pub credential_burst: u32,
    /// What one address may ask for of what is open to everybody, and how much of it at once.
    pub visitor_per_minute: u32,
    pub visitor_burst: u32,
    /// How many logins to one account (a mail address in a tenant, or an operator's) may fail from one network, and how many
    /// of them at once.
    pub account_per_minute: u32,
    pub account_burst: u32,
    /// How much a tenant may ask for of what calls the payment provider, and how much of it at once; a unit is about a call.
    pub billing_per_minute: u32,
    pub billing_burst: u32,
    /// The same from all networks together. Networks from which the account has lately logged in are exempt.
    pub account_anywhere_per_minute: u32,
    pub account_anywhere_burst: u32,
    /// By slug: what was agreed with single tenants in place of what their plan says.
    pub overrides: BTreeMap<String, AgreedRates>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            enabled: true,
            shared: true,
            instances: 1,
            factor: 1,
            credential_per_minute: 60,
            credential_burst: 60,
            visitor_per_minute: 600,
            visitor_burst: 600,
            account_per_minute: 10,
            account_burst: 20,
            billing_per_minute: 60,
            billing_burst: 60,
            account_anywhere_per_minute: 20,
            account_anywhere_burst: 100,
            overrides: BTreeMap::new(),
        }
    }
}

/// What tenants may use of meters in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Whether a tenant whose API calls of a period are used up is refused.
    pub enforce_api_calls: bool,
    /// At which percentages of what is included and of the hard limit a tenant is told of it.
    pub alert_thresholds: Vec<u32>,
    /// For how long a part of a quota is lent to a server: so long what a killed server held cannot be told from what it used.
    pub lease_seconds: u64,
}

impl Quotas {
    fn check(&self) -> Result<(), SettingsError> {
        if self
            .alert_thresholds
            .iter()
            .all(|percent| (1..=100).contains(percent))
        {
            return Ok(());
        }
        let problem = "each must be a percentage from 1 to 100";
        Err(SettingsError::invalid("quotas.alert_thresholds", problem))
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            enforce_api_calls: true,
            alert_thresholds: vec![80, 100],
            lease_seconds: 10,
        }
    }
}

/// What several servers share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS; several, separated by commas, for Sentinels
    /// and clusters. Without one every server goes by what it knows itself.
    pub url: Secret,
    /// What the URL leads to.
    pub mode: RedisMode,
    /// With `sentinel`: the master's name, and the user and password of the Sentinels themselves; those in the URL are for
    /// the master.
    pub sentinel_master: String,
    pub sentinel_user: String,
    pub sentinel_password: Secret,
    /// A file with the certificates (PEM) of those whose word is taken for the server's; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// How long a request may wait for it.
    pub timeout_ms: u64,
    /// Accept a URL over a network without TLS in production. Logged at every start.
    pub allow_plaintext: bool,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            mode: RedisMode::Single,
            sentinel_master: "mymaster".into(),
            sentinel_user: String::new(),
            sentinel_password: Secret::default(),
            ca_file: None,
            timeout_ms: 50,
            allow_plaintext: false,
        }
    }
}

/// What `redis.url` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// A server.
    Single,
    /// Sentinels, which name the master.
    Sentinel,
    /// Nodes of a Redis Cluster.
    Cluster,
}

/// What was agreed with one tenant; what is absent stays as its plan has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgreedRates {
    pub requests_per_minute: Option<u32>,
    pub requests_burst: Option<u32>,
    pub user_requests_per_minute: Option<u32>,
    pub user_requests_burst: Option<u32>,
}

/// What is asked of the database before anything is served, and from time to time afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Serve although the database does not keep tenants apart. Logged at every start, told by readiness.
    pub serve_anyway: bool,
    /// Tables of an embedding service that are nobody's.
    pub global_tables: Vec<String>,
    /// Objects that no migration of Tenantry makes and that are meant all the same, as `tenantry doctor` names them:
    /// `trigger audit on public.tasks`.
    pub allow: Vec<String>,
    /// Minutes between two checks of a running server, 1 to 1,440.
    pub every_minutes: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            serve_anyway: false,
            global_tables: Vec::new(),
            allow: Vec::new(),
            every_minutes: 60,
        }
    }
}

/// The plan catalogue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plans {
    /// A file like `config/plans.toml`; that one, as compiled in, when absent.
    pub file: Option<PathBuf>,
    /// By plan: limits and features in place of what the file says.
    pub overrides: BTreeMap<String, PlanOverride>,
}

/// Payments.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Billing {
    /// Where people come back to from the payment provider's pages.
    pub return_url: String,
    /// Whether the provider works out taxes.
    pub automatic_tax: bool,
    pub dunning: Dunning,
    pub stripe: Stripe,
}

impl Default for Billing {
    fn default() -> Self {
        Self {
            return_url: "http://127.0.0.1:8080/".into(),
            automatic_tax: false,
            dunning: Dunning::default(),
            stripe: Stripe::default(),
        }
    }
}

/// What becomes of tenants that do not pay.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dunning {
    /// So many days after it was suspended a tenant is deleted; 0 = never.
    pub delete_after_days: u32,
}

/// How Stripe is reached; without a key nobody is billed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stripe {
    /// `sk_live_…`, `sk_test_…`, or a restricted key (`rk_…`).
    pub secret_key: Secret,
    /// The secrets of webhook endpoints (`whsec_…`); several while one takes the place of another.
    pub webhook_secrets: Vec<Secret>,
    /// Something that stands in for Stripe, `http://127.0.0.1:9400`; none = Stripe.
    pub api_base: String,
    /// How long a call may take.
    pub timeout_ms: u64,
}

impl Default for Stripe {
    fn default() -> Self {
        Self {
            secret_key: Secret::default(),
            webhook_secrets: Vec::new(),
            api_base: String::new(),
            timeout_ms: 10_000,
        }
    }
}

impl Stripe {
    /// What the stand-in of `tenantry dev --stripe fake` is called with; nobody is billed with it.
    pub const FAKE_KEY: &'static str = "sk_test_fake";

    fn check(&self, profile: Profile) -> Result<(), SettingsError> {
        let wrong = |key: &'static str, problem: &str| Err(SettingsError::invalid(key, problem));
        let (key, production) = (self.secret_key.reveal(), profile == Profile::Production);
        let base = self.api_base.as_str();
        if !(key.is_empty() || key.starts_with("sk_") || key.starts_with("rk_")) {
            return wrong("billing.stripe.secret_key", "must begin with sk_ or rk_");
        }
        if self
            .webhook_secrets
            .iter()
            .any(|secret| !secret.reveal().starts_with("whsec_"))
        {
            return wrong("billing.stripe.webhook_secrets", "each must begin with whsec_");
        }
        if !base.is_empty() && !is_base(base) {
            let problem = "must be http://host[:port] or https://host[:port]";
            return wrong("billing.stripe.api_base", problem);
        }
        if production && (key == Self::FAKE_KEY || base.starts_with("http:")) {
            let problem = "a stand-in for Stripe is for development; https only";
            return wrong("billing.stripe.api_base", problem);
        }
        if production && !key.is_empty() && self.webhook_secrets.is_empty() {
            let problem = "is required with a key: without it nothing that Stripe tells is believed";
            return wrong("billing.stripe.webhook_secrets", problem);
        }
        Ok(())
    }
}

/// Whether a text is `http://host[:port]` or `https://host[:port]`, with a slash at its end or without.
fn is_base(text: &str) -> bool {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    host.map(|host| host.trim_end_matches('/'))
        .is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']))
}

/// Mail to people of tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// Who mail is from: `no-reply@example.com`, or `Example <no-reply@example.com>`.
    pub from: String,
    /// Where people use the product; mails lead there.
    pub app_url: String,
    /// Whether the log says who would have got which mail while there is no server to send it with.
    pub log_contents: bool,
    pub smtp: Smtp,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            from: String::new(),
            app_url: "http://127.0.0.1:8080/".into(),
            log_contents: false,
            smtp: Smtp::default(),
        }
    }
}

/// The server that mail is handed to; without one it is written to the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Smtp {
    pub host: String,
    /// 0 = the usual one: 587 with `starttls`, 465 with `tls`, 25 with `none`.
    pub port: u16,
    pub tls: SmtpTls,
    /// Whom to log in as; empty = not at all.
    pub user: String,
    pub password: Secret,
    /// A file with the certificates (PEM) of those whose word is taken for the server's; those of the system
    /// when absent.
    pub ca_file: Option<PathBuf>,
    /// How long it may take until the server takes mail, and how long handing over a mail may take.
    pub connect_timeout_ms: u64,
    pub timeout_ms: u64,
    /// How many connections are kept for the next mails.
    pub pool_size: usize,
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 0,
            tls: SmtpTls::Starttls,
            user: String::new(),
            password: Secret::default(),
            ca_file: None,
            connect_timeout_ms: 5_000,
            timeout_ms: 30_000,
            pool_size: 2,
        }
    }
}

impl Smtp {
    /// Where the server listens.
    pub const fn port(&self) -> u16 {
        match (self.port, self.tls) {
            (0, SmtpTls::Starttls) => 587,
            (0, SmtpTls::Tls) => 465,
            (0, SmtpTls::None) => 25,
            (port, _) => port,
        }
    }
}

/// Whether and when the connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Before anything is said; a server that cannot is not used.
    Starttls,
    /// From the beginning.
    Tls,
    /// Never.
    None,
}

impl Mail {
    /// Everything that sending relies on.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong = |key: &'static str, problem: &str| Err(SettingsError::invalid(key, problem));
        let smtp = &self.smtp;
        if !is_address(&self.app_url) {
            return wrong(
                "mail.app_url",
                "must be an address that begins with https:// or http://",
            );
        }
        if !smtp.host.is_empty() || !self.from.is_empty() {
            self.sender()?;
        }
        if smtp
            .host
            .contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '[' | ']'))
        {
            return wrong(
                "mail.smtp.host",
                "must be the name or address of a server, and nothing else",
            );
        }
        if smtp.user.is_empty() != smtp.password.is_empty() {
            return wrong(
                "mail.smtp.password",
                "must be set with mail.smtp.user, and only then",
            );
        }
        if smtp.tls == SmtpTls::None && !smtp.user.is_empty() {
            return wrong(
                "mail.smtp.tls",
                "must be starttls or tls where a password is sent",
            );
        }
        if smtp.tls == SmtpTls::None && smtp.ca_file.is_some() {
            return wrong("mail.smtp.ca_file", "is of use with starttls or tls only");
        }
        Ok(())
    }

    /// Who mail is from.
    pub fn sender(&self) -> Result<Mailbox, SettingsError> {
        Mailbox::parse(&self.from).ok_or_else(|| {
            let problem = "must be no-reply@example.com, or Example <no-reply@example.com>";
            SettingsError::invalid("mail.from", problem)
        })
    }
}

/// Whether a text is an http or https address that can stand in a mail as it is.
fn is_address(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let plain = |rest: &str| !rest.starts_with('/') && rest.bytes().all(|byte| byte.is_ascii_graphic());
    text.len() <= 200 && rest.is_some_and(|rest| !rest.is_empty() && plain(rest))
}

/// Logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,tenantry_persistence=debug`.
    pub level: String,
}

/// Traces, logs and metrics, sent to a collector with OTLP over HTTP (protobuf).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// The collector, `http://host[:port][/path]` or `https://…`; `/v1/traces` and its like are appended. Empty = nothing is
    /// sent.
    pub otlp_endpoint: String,
    /// Headers of each request, `name=value,name=value`, percent-encoded as in `OTEL_EXPORTER_OTLP_HEADERS`.
    pub otlp_headers: Secret,
    /// What is sent.
    pub otlp_signals: Vec<OtlpSignal>,
    /// The share of the traces beginning here that is sent, 0 to 1. The decision in a caller's `traceparent` stands.
    pub sampling_ratio: f64,
    /// The name under which this service appears.
    pub service_name: String,
}

/// What can be sent to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpSignal {
    Traces,
    Logs,
    Metrics,
}

impl OtlpSignal {
    /// Its name in settings and in the paths of collectors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            otlp_headers: Secret::default(),
            otlp_signals: vec![OtlpSignal::Traces],
            sampling_ratio: 1.0,
            service_name: "tenantry".into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Pretty,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: "info".into(),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("settings: {0}")]
    Read(String),
    #[error("setting {key}: {problem} (set it in {env} or the profile's TOML file)")]
    Invalid {
        key: &'static str,
        env: String,
        problem: String,
    },
}

impl SettingsError {
    pub fn invalid(key: &'static str, problem: impl Into<String>) -> Self {
        let env = format!("TENANTRY__{}", key.to_uppercase().replace('.', "__"));
        Self::Invalid {
            key,
            env,
            problem: problem.into(),
        }
    }
}

/// Passwords that people leave in place.
const WEAK: [&str; 12] = [
    "admin",
    "changeme",
    "change-me",
    "default",
    "demo-password",
    "password",
    "postgres",
    "root",
    "secret",
    "tenantry",
    "tenantry_app",
    "test",
];

impl Settings {
    /// Reads the settings of a profile; `<config_dir>/<profile>.toml` may be missing.
    pub fn load(config_dir: &Path, profile: Profile) -> Result<Self, SettingsError> {
        let file = config_dir.join(format!("{}.toml", profile.as_str()));
        let figment = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(file))
            .merge(Env::prefixed("TENANTRY__").split("__"));
        let mut settings: Self = figment
            .extract()
            .map_err(|error| SettingsError::Read(describe(&error)))?;
        settings.profile = profile;
        Ok(settings)
    }

    /// The settings of a running demo, with those of the environment on top.
    pub fn load_over(demo: &Self) -> Result<Self, SettingsError> {
        let figment =
            Figment::from(Serialized::defaults(demo)).merge(Env::prefixed("TENANTRY__").split("__"));
        let mut settings: Self = figment
            .extract()
            .map_err(|error| SettingsError::Read(describe(&error)))?;
        settings.profile = Profile::Development;
        Ok(settings)
    }

    /// The same settings for a process with another working directory.
    pub fn with_absolute_paths(&self) -> Self {
        let mut settings = self.clone();
        let optional = [
            &mut settings.auth.signing_key_file,
            &mut settings.redis.ca_file,
            &mut settings.plans.file,
            &mut settings.mail.smtp.ca_file,
        ];
        let paths = optional.into_iter().flatten();
        let paths = paths.chain(&mut settings.auth.previous_key_files);
        for path in paths.chain([&mut settings.metering.spool_dir]) {
            // An empty path is a setting that is not set, and has no absolute form.
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
        settings
    }

    /// Everything that `serve` relies on.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.check_ranges()?;
        self.check_order()?;
        self.quotas.check()?;
        self.tracing.check()?;
        self.billing.stripe.check(self.profile)?;
        self.mail.check()?;
        check_url("database.url", &self.database.url, self.profile)?;
        check_url("database.platform_url", &self.database.platform_url, self.profile)?;
        self.check_transport()?;
        if !is_time_zone(&self.signup.timezone) {
            let problem = "must be the name of a time zone of the IANA database, for example Europe/Berlin";
            return Err(SettingsError::invalid("signup.timezone", problem));
        }
        if !is_language_tag(&self.signup.locale) {
            let problem = "must be a language tag of BCP 47, for example de-CH";
            return Err(SettingsError::invalid("signup.locale", problem));
        }
        if ApiKeyFormat::new(&self.auth.api_key_environment).is_none() {
            let problem = "must be 1 to 16 characters of a-z and 0-9, for example live";
            return Err(SettingsError::invalid("auth.api_key_environment", problem));
        }
        if self.profile == Profile::Production {
            let given = !self.auth.signing_key.is_empty() || self.auth.signing_key_file.is_some();
            if !given {
                let problem = "an Ed25519 key in PKCS#8 PEM is required, or signing_key_file; \
                               make one with: openssl genpkey -algorithm ed25519";
                return Err(SettingsError::invalid("auth.signing_key", problem));
            }
        }
        Ok(())
    }

    /// In production everything that leaves the machine is encrypted and its server is verified, unless a setting says
    /// otherwise. URLs of PostgreSQL that the driver cannot read are refused in each profile.
    pub fn check_transport(&self) -> Result<(), SettingsError> {
        let database = &self.database;
        let urls = [
            ("database.url", &database.url),
            ("database.platform_url", &database.platform_url),
            ("database.owner_url", &database.owner_url),
            ("database.admin_url", &database.admin_url),
        ];
        for (key, url) in urls.into_iter().filter(|(_, url)| !url.is_empty()) {
            self.check_database_transport(key, url.reveal())?;
        }
        let accepted = self.profile != Profile::Production || self.redis.allow_plaintext;
        if !accepted && !are_protected(self.redis.url.reveal()) {
            let problem = "must begin with rediss:// and verify the server, as it leads over a network; set \
                           redis.allow_plaintext where the network protects it";
            return Err(SettingsError::invalid("redis.url", problem));
        }
        Ok(())
    }

    /// The same for one URL of PostgreSQL, which need not be in the settings.
    pub fn check_database_transport(&self, key: &'static str, url: &str) -> Result<(), SettingsError> {
        let transport = Transport::of(url).map_err(|error| SettingsError::invalid(key, error.to_string()))?;
        let accepted = self.profile != Profile::Production || self.database.allow_plaintext;
        if transport == Transport::Open && !accepted {
            let problem = "must have sslmode=verify-full, as it leads over a network; set database.allow_plaintext \
                           where the network protects it";
            return Err(SettingsError::invalid(key, problem));
        }
        Ok(())
    }

    /// What is accepted without TLS in production: the keys of the settings that say so.
    pub fn plaintext(&self) -> Vec<&'static str> {
        let allowed = [
            (self.database.allow_plaintext, "database.allow_plaintext"),
            (self.redis.allow_plaintext, "redis.allow_plaintext"),
        ];
        let production = self.profile == Profile::Production;
        let set = allowed.into_iter().filter(|(set, _)| production && *set);
        set.map(|(_, key)| key).collect()
    }

    fn check_ranges(&self) -> Result<(), SettingsError> {
        let ranges: &[(&'static str, u64, u64, u64)] = &[
            (
                "billing.stripe.timeout_ms",
                self.billing.stripe.timeout_ms,
                100,
                60_000,
            ),
            ("guard.every_minutes", self.guard.every_minutes, 1, 1_440),
            ("database.pool_size", self.database.pool_size as u64, 1, 1_000),
            ("database.per_tenant", self.database.per_tenant as u64, 0, 1_000),
            ("database.queue", self.database.queue as u64, 1, 1_000_000),
            (
                "database.platform_pool_size",
                self.database.platform_pool_size as u64,
                1,
                100,
            ),
            (
                "database.acquire_timeout_ms",
                self.database.acquire_timeout_ms,
                1,
                600_000,
            ),
            (
                "database.connect_timeout_ms",
                self.database.connect_timeout_ms,
                1,
                600_000,
            ),
            (
                "database.max_lifetime_seconds",
                self.database.max_lifetime_seconds,
                1,
                86_400,
            ),
            (
                "http.body_limit_bytes",
                self.http.body_limit_bytes as u64,
                1_024,
                104_857_600,
            ),
            (
                "auth.access_token_minutes",
                self.auth.access_token_minutes.max(0).unsigned_abs(),
                1,
                60,
            ),
            (
                "auth.session_days",
                self.auth.session_days.max(0).unsigned_abs(),
                1,
                365,
            ),
            ("auth.password_at_once", self.auth.password_at_once as u64, 1, 64),
            (
                "billing.dunning.delete_after_days",
                self.billing.dunning.delete_after_days.into(),
                0,
                3_650,
            ),
            (
                "mail.smtp.connect_timeout_ms",
                self.mail.smtp.connect_timeout_ms,
                100,
                60_000,
            ),
            ("mail.smtp.timeout_ms", self.mail.smtp.timeout_ms, 100, 600_000),
            ("mail.smtp.pool_size", self.mail.smtp.pool_size as u64, 1, 100),
            (
                "signup.name_quarantine_days",
                self.signup.name_quarantine_days.into(),
                0,
                3_650,
            ),
            ("views.flush_seconds", self.views.flush_seconds, 1, 3_600),
            (
                "metering.flush_interval_ms",
                self.metering.flush_interval_ms,
                100,
                HOUR_MS,
            ),
            ("cache.entries", self.cache.entries, 1, 100_000_000),
            ("cache.ttl_ms", self.cache.ttl_ms, 0, 3_600_000),
            ("cache.alone_ttl_ms", self.cache.alone_ttl_ms, 0, 60_000),
            ("limits.instances", self.limits.instances.into(), 1, 1_000),
            ("limits.factor", self.limits.factor.into(), 1, 1_000),
            (
                "limits.credential_per_minute",
                self.limits.credential_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.credential_burst",
                self.limits.credential_burst.into(),
                1,
                1_000_000,
            ),
            (
                "limits.visitor_per_minute",
                self.limits.visitor_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.visitor_burst",
                self.limits.visitor_burst.into(),
                1,
                1_000_000,
            ),
            (
                "limits.account_per_minute",
                self.limits.account_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.account_burst",
                self.limits.account_burst.into(),
                1,
                1_000_000,
            ),
            (
                "limits.billing_per_minute",
                self.limits.billing_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.account_anywhere_per_minute",
                self.limits.account_anywhere_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.billing_burst",
                self.limits.billing_burst.into(),
                1,
                1_000_000,
            ),
            (
                "limits.account_anywhere_burst",
                self.limits.account_anywhere_burst.into(),
                1,
                1_000_000,
            ),
            ("quotas.lease_seconds", self.quotas.lease_seconds, 1, 300),
            ("redis.timeout_ms", self.redis.timeout_ms, 1, 10_000),
            ("jobs.poll_ms", self.jobs.poll_ms, 10, 60_000),
            ("jobs.at_once", self.jobs.at_once.into(), 1, 1_000),
            ("jobs.per_tenant", self.jobs.per_tenant.into(), 1, 1_000),
            ("jobs.lease_seconds", self.jobs.lease_seconds, 5, 3_600),
            ("jobs.grace_seconds", self.jobs.grace_seconds, 0, 600),
            ("server.shutdown_seconds", self.server.shutdown_seconds, 1, 600),
            (
                "server.connections_per_network",
                self.server.connections_per_network as u64,
                0,
                1_000_000,
            ),
            (
                "server.max_connections",
                self.server.max_connections as u64,
                1,
                1_000_000,
            ),
            ("server.backlog", self.server.backlog.into(), 1, 65_535),
            (
                "http.request_timeout_ms",
                self.http.request_timeout_ms,
                100,
                HOUR_MS,
            ),
            (
                "http.header_timeout_ms",
                self.http.header_timeout_ms,
                100,
                HOUR_MS,
            ),
            ("http.body_timeout_ms", self.http.body_timeout_ms, 100, HOUR_MS),
            ("http.keep_alive_ms", self.http.keep_alive_ms, 100, HOUR_MS),
            (
                "http.disconnect_timeout_ms",
                self.http.disconnect_timeout_ms,
                1,
                60_000,
            ),
            ("http.event_streams", self.http.event_streams as u64, 1, 1_000_000),
            (
                "http.event_streams_per_tenant",
                self.http.event_streams_per_tenant as u64,
                1,
                1_000_000,
            ),
            (
                "http.event_stream_seconds",
                self.http.event_stream_seconds,
                1,
                86_400,
            ),
            (
                "database.statement_timeout_ms",
                self.database.statement_timeout_ms,
                0,
                HOUR_MS,
            ),
            (
                "database.lock_timeout_ms",
                self.database.lock_timeout_ms,
                0,
                HOUR_MS,
            ),
            (
                "database.idle_in_transaction_timeout_ms",
                self.database.idle_in_transaction_timeout_ms,
                0,
                HOUR_MS,
            ),
        ];
        for &(key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(SettingsError::invalid(
                    key,
                    format!("must be in {least}..={most}, is {value}"),
                ));
            }
        }
        Ok(())
    }
}

impl Tracing {
    /// Whether a signal is sent.
    pub fn sends(&self, signal: OtlpSignal) -> bool {
        !self.otlp_endpoint.is_empty() && self.otlp_signals.contains(&signal)
    }

    /// The headers, decoded; `None` when they cannot be read.
    pub fn headers(&self) -> Option<Vec<(String, String)>> {
        let pairs = self.otlp_headers.reveal().split(',').map(str::trim);
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let (name, value) = (name.trim(), decoded(value.trim())?);
            let is_name = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
            let is_value = |c: u8| c == b' ' || c.is_ascii_graphic();
            let holds = !name.is_empty() && name.bytes().all(is_name) && value.bytes().all(is_value);
            holds.then(|| (name.to_owned(), value))
        };
        pairs.filter(|pair| !pair.is_empty()).map(read).collect()
    }

    fn check(&self) -> Result<(), SettingsError> {
        let host = self
            .otlp_endpoint
            .strip_prefix("http://")
            .or_else(|| self.otlp_endpoint.strip_prefix("https://"));
        let plain =
            |rest: &str| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', '@', ' ']);
        if !self.otlp_endpoint.is_empty() && !host.is_some_and(plain) {
            let problem = "must be http://host[:port] or https://host[:port], with a path or without; \
                           credentials belong into tracing.otlp_headers";
            return Err(SettingsError::invalid("tracing.otlp_endpoint", problem));
        }
        if self.headers().is_none() {
            let problem = "must be name=value,name=value, with other characters than printable ASCII, and commas, as %XX";
            return Err(SettingsError::invalid("tracing.otlp_headers", problem));
        }
        if !(0.0..=1.0).contains(&self.sampling_ratio) {
            let problem = format!("must be in 0..=1, is {}", self.sampling_ratio);
            return Err(SettingsError::invalid("tracing.sampling_ratio", problem));
        }
        Ok(())
    }
}

/// Text without percent-encoding; `None` when it is broken.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

impl Settings {
    /// What must be in order among the settings: a deadline that lies behind another is never met.
    fn check_order(&self) -> Result<(), SettingsError> {
        let (database, http) = (&self.database, &self.http);
        let request = ("http.request_timeout_ms", http.request_timeout_ms);
        let statement = ("database.statement_timeout_ms", database.statement_timeout_ms);
        let acquire = ("database.acquire_timeout_ms", database.acquire_timeout_ms);
        let connect = ("database.connect_timeout_ms", database.connect_timeout_ms);
        let below = [acquire, connect, ("redis.timeout_ms", self.redis.timeout_ms)];
        for (key, value) in below {
            if value >= request.1 {
                return Err(out_of_order((key, value), "less than", request));
            }
        }
        let pool = ("database.pool_size", database.pool_size as u64);
        let not_above = [
            (("http.body_timeout_ms", http.body_timeout_ms), request),
            (statement, request),
            (("database.lock_timeout_ms", database.lock_timeout_ms), statement),
            (("database.per_tenant", database.per_tenant as u64), pool),
            (
                (
                    "http.event_streams_per_tenant",
                    http.event_streams_per_tenant as u64,
                ),
                ("http.event_streams", http.event_streams as u64),
            ),
            (
                ("cache.alone_ttl_ms", self.cache.alone_ttl_ms),
                ("cache.ttl_ms", self.cache.ttl_ms),
            ),
        ];
        for (less, more) in not_above {
            // 0 leaves the statement's timeout to the role, so there is nothing to compare with.
            if less.1 > more.1 && more != (statement.0, 0) {
                return Err(out_of_order(less, "at most", more));
            }
        }
        Ok(())
    }
}

/// A complaint that names both settings.
fn out_of_order(key: (&'static str, u64), relation: &str, other: (&'static str, u64)) -> SettingsError {
    let problem = format!("must be {relation} {} ({}), is {}", other.0, other.1, key.1);
    SettingsError::invalid(key.0, problem)
}

const HOUR_MS: u64 = 3_600_000;

/// Refuses a URL that is missing or, outside of development, has a password that anybody would guess.
pub fn check_url(key: &'static str, url: &Secret, profile: Profile) -> Result<(), SettingsError> {
    if url.is_empty() {
        return Err(SettingsError::invalid(key, "a PostgreSQL URL is required"));
    }
    let rest = url
        .reveal()
        .strip_prefix("postgres://")
        .or_else(|| url.reveal().strip_prefix("postgresql://"));
    let rest = rest.ok_or_else(|| SettingsError::invalid(key, "must begin with postgres://"))?;
    let user = rest
        .split('@')
        .next()
        .filter(|_| rest.contains('@'))
        .unwrap_or_default();
    let password = user.split_once(':').map(|(_, password)| password);
    match (profile, password) {
        (Profile::Production, Some(password)) if WEAK.contains(&password) || password.len() < 12 => Err(
            SettingsError::invalid(key, "the password is a default or shorter than 12 characters"),
        ),
        (Profile::Production | Profile::Development, _) => Ok(()),
    }
}

/// Whether each of these URLs of Redis leads to this machine, or over TLS with a verified certificate. An empty one leads
/// nowhere.
fn are_protected(urls: &str) -> bool {
    urls.split(',').all(|url| is_protected(url.trim()))
}

fn is_protected(url: &str) -> bool {
    let Ok(parsed) = url::Url::parse(url) else {
        // What is wrong with it is said where it is read.
        return true;
    };
    let local = match parsed.host() {
        Some(url::Host::Domain(name)) => {
            name.eq_ignore_ascii_case("localhost")
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.to_canonical().is_loopback())
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => std::net::IpAddr::V6(address).to_canonical().is_loopback(),
        // A path of a Unix socket.
        None => true,
    };
    let verified = matches!(parsed.scheme(), "rediss" | "valkeys") && parsed.fragment() != Some("insecure");
    local || verified
}

/// One line that names key and source.
fn describe(error: &figment::Error) -> String {
    let first = error.clone().into_iter().next();
    let Some(first) = first else {
        return error.to_string();
    };
    let key = first.path.join(".");
    let source = first
        .metadata
        .as_ref()
        .map(|metadata| metadata.name.to_string())
        .unwrap_or_default();
    let key = if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    };
    format!("{key}{} (in {source})", first.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Settings {
        let mut settings = Settings::default();
        let url = |role: &str| format!("postgres://{role}:a-long-password@db/tenantry?sslmode=verify-full");
        settings.database.url = Secret::new(url("tenantry_app"));
        settings.database.platform_url = Secret::new(url("tenantry_platform"));
        settings.auth.signing_key = Secret::new("PEM".into());
        settings
    }

    fn complaint(settings: &Settings) -> String {
        settings
            .validate()
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn complete_settings_hold() {
        assert_eq!(complaint(&complete()), "");
    }

    #[test]
    fn a_missing_signing_key_is_named() {
        let mut settings = complete();
        settings.auth.signing_key = Secret::default();
        assert!(
            complaint(&settings).contains("auth.signing_key"),
            "{}",
            complaint(&settings)
        );
        assert!(complaint(&settings).contains("TENANTRY__AUTH__SIGNING_KEY"));
    }

    #[test]
    fn default_and_short_passwords_are_refused_outside_development() {
        for password in ["postgres", "tenantry_app", "hunter2"] {
            let mut settings = complete();
            settings.database.url = Secret::new(format!("postgres://tenantry_app:{password}@db/tenantry"));
            assert!(complaint(&settings).contains("database.url"), "{password}");
            assert!(
                !complaint(&settings).contains(password) || password == "tenantry_app",
                "it is not repeated"
            );
            settings.profile = Profile::Development;
            assert_eq!(complaint(&settings), "", "{password}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_named_with_its_range() {
        let mut settings = complete();
        settings.database.pool_size = 0;
        assert!(complaint(&settings).contains("database.pool_size: must be in 1..=1000, is 0"));
    }

    /// The driver would look it up as a name at the first connection.
    #[test]
    fn an_ipv6_address_in_brackets_is_refused_with_the_key() {
        type Change = fn(&mut Settings, Secret);
        let changes: [(Change, &str); 4] = [
            (|it, url| it.database.url = url, "database.url"),
            (|it, url| it.database.platform_url = url, "database.platform_url"),
            (|it, url| it.database.owner_url = url, "database.owner_url"),
            (|it, url| it.database.admin_url = url, "database.admin_url"),
        ];
        for (change, key) in changes {
            for profile in [Profile::Production, Profile::Development] {
                let mut settings = complete();
                settings.profile = profile;
                change(
                    &mut settings,
                    Secret::new("postgres://app:a-long-password@[2001:db8::1]:5433/x".into()),
                );
                let complaint = complaint(&settings);
                assert!(complaint.starts_with(&format!("setting {key}: ")), "{complaint}");
                assert!(
                    complaint.contains("?host=2001:db8::1") && !complaint.contains('\n'),
                    "{complaint}"
                );
                assert!(!complaint.contains("a-long-password"), "{complaint}");
            }
        }
        let mut settings = complete();
        settings.database.url = Secret::new("postgres://app:a-long-password@localhost/x?host=::1".into());
        assert_eq!(complaint(&settings), "");
    }

    #[test]
    fn production_refuses_a_network_without_tls_unless_told() {
        type Change = fn(&mut Settings);
        let secret = |url: &str| Secret::new(url.into());
        let cases: [(Change, &str, Change); 7] = [
            (
                |it| it.database.url = Secret::new("postgres://app:a-long-password@db/x".into()),
                "database.url: must have sslmode=verify-full",
                |it| it.database.allow_plaintext = true,
            ),
            (
                |it| it.database.platform_url = Secret::new("postgres://p@db/x?sslmode=require".into()),
                "database.platform_url: must have sslmode=verify-full",
                |it| it.database.allow_plaintext = true,
            ),
            (
                |it| it.database.owner_url = Secret::new("postgres://owner@db/x?sslmode=verify-ca".into()),
                "database.owner_url: must have sslmode=verify-full",
                |it| it.database.allow_plaintext = true,
            ),
            (
                |it| it.database.admin_url = Secret::new("postgres://root@db/x".into()),
                "database.admin_url: must have sslmode=verify-full",
                |it| it.database.allow_plaintext = true,
            ),
            (
                |it| it.redis.url = Secret::new("redis://:secret@cache:6379/0".into()),
                "redis.url: must begin with rediss://",
                |it| it.redis.allow_plaintext = true,
            ),
            (
                |it| it.redis.url = Secret::new("rediss://cache/#insecure".into()),
                "redis.url: must begin with rediss://",
                |it| it.redis.allow_plaintext = true,
            ),
            (
                |it| it.redis.url = Secret::new("rediss://a:26379,redis://[2001:db8::1]/".into()),
                "redis.url: must begin with rediss://",
                |it| it.redis.allow_plaintext = true,
            ),
        ];
        for (change, expected, allow) in cases {
            let mut settings = complete();
            change(&mut settings);
            assert!(
                complaint(&settings).contains(expected),
                "{expected}: {}",
                complaint(&settings)
            );
            assert!(!complaint(&settings).contains("secret"), "it is not repeated");
            assert_eq!(settings.plaintext(), [""; 0]);
            allow(&mut settings);
            assert_eq!(complaint(&settings), "", "{expected}");
            assert_eq!(settings.plaintext().len(), 1, "it is logged");
            settings = complete();
            settings.profile = Profile::Development;
            change(&mut settings);
            assert_eq!(complaint(&settings), "", "{expected}");
        }
        for url in [
            "redis://127.0.0.1",
            "redis://localhost:6380/1",
            "redis://[::1]",
            "redis+unix:///run/redis.sock",
            "unix:///run/redis.sock",
            "rediss://cache:6380",
        ] {
            let mut settings = complete();
            settings.redis.url = secret(url);
            assert_eq!(complaint(&settings), "", "{url}");
        }
        for url in [
            "postgres://app:a-long-password@127.0.0.1/x",
            "postgres:///x?host=/var/run/postgresql",
        ] {
            let mut settings = complete();
            settings.database.url = secret(url);
            assert_eq!(complaint(&settings), "", "{url}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_named_together() {
        type Change = fn(&mut Settings);
        let cases: [(Change, &str); 9] = [
            (
                |it| it.http.request_timeout_ms = 5_000,
                "database.acquire_timeout_ms: must be less than http.request_timeout_ms (5000), is 5000",
            ),
            (
                |it| it.database.connect_timeout_ms = 30_000,
                "database.connect_timeout_ms: must be less than http.request_timeout_ms (30000), is 30000",
            ),
            (
                |it| it.http.body_timeout_ms = 30_001,
                "http.body_timeout_ms: must be at most http.request_timeout_ms (30000), is 30001",
            ),
            (
                |it| it.database.statement_timeout_ms = 30_001,
                "database.statement_timeout_ms: must be at most http.request_timeout_ms (30000), is 30001",
            ),
            (
                |it| it.database.statement_timeout_ms = 4_000,
                "database.lock_timeout_ms: must be at most database.statement_timeout_ms (4000), is 5000",
            ),
            (
                |it| it.database.per_tenant = 11,
                "database.per_tenant: must be at most database.pool_size (10), is 11",
            ),
            (
                |it| it.cache.ttl_ms = 500,
                "cache.alone_ttl_ms: must be at most cache.ttl_ms (500), is 1000",
            ),
            (
                |it| it.http.event_streams = 99,
                "http.event_streams_per_tenant: must be at most http.event_streams (99), is 100",
            ),
            (|it| it.database.statement_timeout_ms = 0, ""),
        ];
        for (change, expected) in cases {
            let mut settings = complete();
            change(&mut settings);
            let complaint = complaint(&settings);
            assert!(complaint.contains(expected), "{expected}: {complaint}");
            assert_eq!(complaint.is_empty(), expected.is_empty(), "{complaint}");
        }
    }

    #[test]
    fn where_traces_go_is_checked() {
        for (endpoint, holds) in [
            ("", true),
            ("http://127.0.0.1:4318", true),
            ("http://collector", true),
            ("https://collector", true),
            ("https://api.example.com/otlp", true),
            ("http://", false),
            ("collector:4318", false),
            ("https://me:secret@collector", false),
            ("https://collector?key=secret", false),
        ] {
            let mut settings = complete();
            settings.tracing.otlp_endpoint = endpoint.into();
            assert_eq!(complaint(&settings).is_empty(), holds, "{endpoint}");
        }
        let mut settings = complete();
        for (headers, read) in [
            ("", Some(vec![])),
            (
                "Authorization=Basic%20dTpw, x-team = a",
                Some(vec![("Authorization", "Basic dTpw"), ("x-team", "a")]),
            ),
            ("x-key=a%2Cb=c", Some(vec![("x-key", "a,b=c")])),
            ("x-key", None),
            ("=hush-hush", None),
            ("x-key=hush%0Ahush", None),
            ("x-key=hush%2", None),
            ("x key=hush", None),
        ] {
            settings.tracing.otlp_headers = Secret::new(headers.into());
            let pairs = settings.tracing.headers();
            let pairs = pairs.as_ref().map(|pairs| {
                let pair = |(name, value): &'_ (String, String)| (name.clone(), value.clone());
                pairs.iter().map(pair).collect::<Vec<_>>()
            });
            let read = read.map(|pairs| {
                let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                pairs.into_iter().map(owned).collect::<Vec<_>>()
            });
            assert_eq!(pairs, read, "{headers}");
            assert_eq!(complaint(&settings).is_empty(), read.is_some(), "{headers}");
            assert!(!complaint(&settings).contains("hush"), "{headers}");
        }
        let mut settings = complete();
        settings.tracing.sampling_ratio = 1.5;
        assert!(complaint(&settings).contains("tracing.sampling_ratio: must be in 0..=1, is 1.5"));
    }

    #[test]
    fn how_stripe_is_reached_is_checked() {
        let complaint_of = |key: &str, webhook: &str, base: &str, profile| {
            let mut settings = complete();
            settings.profile = profile;
            let secrets = [webhook].into_iter().filter(|secret| !secret.is_empty());
            settings.billing.stripe = Stripe {
                secret_key: Secret::new(key.into()),
                webhook_secrets: secrets.map(|secret| Secret::new(secret.into())).collect(),
                api_base: base.into(),
                ..Stripe::default()
            };
            complaint(&settings)
        };
        use Profile::{Development, Production};
        let (fake, local) = (Stripe::FAKE_KEY, "http://127.0.0.1:9400");
        for (key, webhook, base, profile, expected) in [
            ("", "", "", Production, ""),
            ("sk_live_1", "whsec_1", "", Production, ""),
            ("rk_live_1", "whsec_1", "https://stripe.example", Production, ""),
            ("sk_live_1", "", "", Production, "billing.stripe.webhook_secrets"),
            ("sk_test_1", "", "", Development, ""),
            (fake, "whsec_1", local, Development, ""),
            (fake, "whsec_1", local, Production, "billing.stripe.api_base"),
            (fake, "whsec_1", "", Production, "billing.stripe.api_base"),
            (
                "sk_live_1",
                "whsec_1",
                local,
                Production,
                "billing.stripe.api_base",
            ),
            (
                "pk_live_1",
                "whsec_1",
                "",
                Production,
                "billing.stripe.secret_key",
            ),
            (
                "sk_live_1",
                "secret",
                "",
                Production,
                "billing.stripe.webhook_secrets",
            ),
            ("", "", "127.0.0.1:9400", Development, "billing.stripe.api_base"),
            ("", "", "http://host/v1", Development, "billing.stripe.api_base"),
            ("", "", "https://a@b", Development, "billing.stripe.api_base"),
        ] {
            let complaint = complaint_of(key, webhook, base, profile);
            assert!(
                complaint.contains(expected),
                "{key} {webhook} {base}: {complaint}"
            );
            assert_eq!(
                complaint.is_empty(),
                expected.is_empty(),
                "{key} {webhook} {base}: {complaint}"
            );
            assert!(!complaint.contains("live_1"), "it is not repeated: {complaint}");
        }
    }

    #[test]
    fn how_mail_is_sent_is_checked() {
        type Change = fn(&mut Mail);
        let cases: [(Change, &str); 19] = [
            (|_| {}, ""),
            (|it| it.smtp.host = "smtp.example.com".into(), ""),
            (|it| it.smtp.host = "127.0.0.1".into(), ""),
            (|it| it.smtp.host = "::1".into(), ""),
            (|it| it.from = "Ex Ample <no-reply@example.com>".into(), ""),
            (
                |it| (it.smtp.host, it.from) = ("smtp.example.com".into(), String::new()),
                "mail.from: must be no-reply@example.com, or Example <no-reply@example.com>",
            ),
            (|it| it.from = "no-reply".into(), "mail.from"),
            (
                |it| it.from = "A\r\nBcc: e@example.com <a@example.com>".into(),
                "mail.from",
            ),
            (|it| it.smtp.host = "smtp://example.com".into(), "mail.smtp.host"),
            (
                |it| it.smtp.host = "smtp.example.com\r\nQUIT".into(),
                "mail.smtp.host",
            ),
            (
                |it| it.smtp.user = "me".into(),
                "mail.smtp.password: must be set with mail.smtp.user",
            ),
            (
                |it| it.smtp.password = Secret::new("hush-hush".into()),
                "mail.smtp.password",
            ),
            (
                |it| {
                    it.smtp.user = "me".into();
                    it.smtp.password = Secret::new("hush-hush".into());
                    it.smtp.tls = SmtpTls::None;
                },
                "mail.smtp.tls: must be starttls or tls where a password is sent",
            ),
            (
                |it| {
                    it.smtp.tls = SmtpTls::None;
                    it.smtp.ca_file = Some("ca.pem".into());
                },
                "mail.smtp.ca_file",
            ),
            (|it| it.app_url = "app.example.com".into(), "mail.app_url"),
            (|it| it.app_url = "javascript:alert(1)".into(), "mail.app_url"),
            (
                |it| it.smtp.timeout_ms = 99,
                "mail.smtp.timeout_ms: must be in 100..=600000, is 99",
            ),
            (
                |it| it.smtp.connect_timeout_ms = 60_001,
                "mail.smtp.connect_timeout_ms: must be in 100..=60000, is 60001",
            ),
            (
                |it| it.smtp.pool_size = 0,
                "mail.smtp.pool_size: must be in 1..=100, is 0",
            ),
        ];
        for (change, expected) in cases {
            let mut settings = complete();
            settings.mail.from = "no-reply@example.com".into();
            change(&mut settings.mail);
            let complaint = complaint(&settings);
            assert!(complaint.contains(expected), "{expected}: {complaint}");
            assert_eq!(
                complaint.is_empty(),
                expected.is_empty(),
                "{expected}: {complaint}"
            );
            assert!(!complaint.contains("hush-hush"), "{complaint}");
        }
        let ports = [(SmtpTls::Starttls, 587), (SmtpTls::Tls, 465), (SmtpTls::None, 25)];
        for (tls, port) in ports {
            let smtp = Smtp {
                tls,
                ..Smtp::default()
            };
            assert_eq!((smtp.port(), Smtp { port: 2525, ..smtp }.port()), (port, 2525));
        }
    }

    #[test]
    fn unknown_keys_and_wrong_types_name_the_key() {
        let unknown = Figment::from(Serialized::defaults(Settings::default()))
            .merge(Toml::string("[database]\npool_sice = 3"))
            .extract::<Settings>();
        assert!(describe(&unknown.unwrap_err()).contains("pool_sice"));
        let wrong = Figment::from(Serialized::defaults(Settings::default()))
            .merge(Toml::string("[database]\npool_size = 'many'"))
            .extract::<Settings>();
        assert!(describe(&wrong.unwrap_err()).starts_with("database.pool_size: "));
    }

    /// Who reads the table must not be surprised by a file.
    #[test]
    fn readme_names_what_a_profile_sets_differently() {
        let readme = include_str!("../../../README.md");
        let defaults = serde_json::to_value(Settings::default()).unwrap();
        for (profile, file) in [
            ("development", include_str!("../../../config/development.toml")),
            ("production", include_str!("../../../config/production.toml")),
        ] {
            let sections: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
                Figment::from(Toml::string(file)).extract().unwrap();
            let set = sections.iter().flat_map(|(section, keys)| {
                keys.iter()
                    .map(move |(key, value)| (section.as_str(), key.as_str(), value))
            });
            for (section, key, value) in
                set.filter(|(section, key, value)| defaults[*section][*key] != **value)
            {
                let name = format!("{section}.{key}");
                let of = |row: &&str| row.split(" | ").next().is_some_and(|cell| cell.contains(&name));
                let row = readme.lines().filter(|line| line.starts_with("| `")).find(of);
                let row = row.unwrap_or_else(|| panic!("README has no row of {name}"));
                assert!(row.contains(&format!("in {profile}")), "{profile}: {name}: {row}");
                let shown = value.as_array().map_or(value, |list| &list[0]).to_string();
                let shown = shown.trim_matches('"');
                assert!(row.contains(&format!("`{shown}`")), "{shown}: {row}");
            }
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut settings = complete();
        settings.mail.smtp.password = Secret::new("hush-hush".into());
        let shown = format!("{settings:?}");
        assert!(!shown.contains("a-long-password") && !shown.contains("hush-hush"));
    }
}
