//! Composition: configuration in, application out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tenantry_billing::plans::PlanBook;
use tenantry_billing::usage::quota_lending::StoredQuotas;
use tenantry_challenge::{PasswordRanges, SiteVerify, SiteVerifyConfig};
use tenantry_compose::{Base, Caches, ComposeError, DEVELOPMENT_MARK, PasswordHashing, SigningKeyConfig};
use tenantry_domain::archive::ArchiveStore;
use tenantry_domain::billing::PaymentProvider;
use tenantry_domain::customization::SettingRegistry;
use tenantry_domain::events::{EventExport, EventTypeError};
use tenantry_domain::identity::{
    ApiKeyFormat, BreachedPasswords, ChallengePurpose, ChallengeVerifier, Challenges, PasskeyCeremonies,
    PasswordHasher, SpentChallenges, TotpWindow,
};
use tenantry_domain::kernel::{
    Clock, HostResolver, InvalidatedCache, InvalidationPublisher, PermissionError, StoreError,
};
use tenantry_domain::operations::{MailLimits, Mailer};
use tenantry_domain::plans::PlanCatalogue as _;
use tenantry_domain::webhooks::WebhookSender;
use tenantry_http::Limits;
use tenantry_mail::TalliedMailer;
use tenantry_persistence::{PgPlanVersions, PgSpentChallenges, Pool, PoolConfig, StatementTimeouts};
use tenantry_redis::{Invalidations, Redis, RedisConfig, RedisLimiter, RedisMode, RedisUrlError};
use tenantry_stripe::{StripeConfig, StripePayments};
use tenantry_system::{
    ArchiveFolder, Argon2Passwords, CacheConfig, CachedConfigurations, CachedDirectory, CachedFlags,
    FileSpool, LocalCaches, ProofOfWork, QuotaLeases, SigningKey, SystemClock, SystemIds,
};
use tenantry_tenancy::billing::Subscriptions;
use tenantry_tenancy::customization::product_settings;
use tenantry_tenancy::flags::code_flag::CodeFlagError;
use tenantry_tenancy::plans::Entitlements;
use tenantry_tenancy::usage::{QuotaRecovery, UsageRecorder};
use tenantry_tenancy::{BillingPolicy, Policy, Ports, Tenancy, Traces};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::audit_stream;
use crate::config::{self, Cache, ChallengeProvider, Configuration, ConfigurationError, Profile};
use crate::domains;
use crate::event_export;
use crate::limits::{limits, shared};
use crate::mail;
use crate::plan::{self, KnownPlans};
use crate::routes::RouteError;
use crate::webhooks;

/// Why the application cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Permission(#[from] PermissionError),
    #[error(transparent)]
    Flag(#[from] CodeFlagError),
    #[error(transparent)]
    EventType(#[from] EventTypeError),
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// The application and what has to be closed after it.
pub struct Booted {
    pub app: Arc<Tenancy>,
    pub runtime: Pool,
    pub platform: Pool,
    /// What is remembered: of memberships and tenants' names, of settings, of flags.
    pub cache: Arc<CachedDirectory>,
    pub configurations: Arc<CachedConfigurations>,
    pub flags: Arc<CachedFlags>,
    /// What is shared with other servers, where the configuration names it; it has no connection before it is kept.
    pub redis: Option<Redis>,
    /// What other servers are told, and hear from.
    pub invalidations: Option<Invalidations>,
    /// What requests are held to.
    pub limits: Option<Limits>,
    /// What is held of quotas, where API calls are held to them.
    pub quotas: Option<QuotaLeases>,
    /// What is on offer, and on what terms tenants have it.
    pub plans: KnownPlans,
    /// Calls that wait to be recorded.
    pub calls: Arc<FileSpool>,
    /// Whom tenants pay, where the configuration names a key.
    pub stripe: Option<Arc<StripePayments>>,
    /// Whoever delivers mail, and what became of it.
    pub mailer: Arc<TalliedMailer>,
    /// The part of them that is shared with other servers.
    pub shared_limits: Option<Arc<RedisLimiter>>,
}

impl Booted {
    /// Closes the connections of a command that has done its work, after others have been told of it.
    pub async fn finish(self) {
        if let (Some(redis), Some(invalidations)) = (&self.redis, &self.invalidations) {
            let telling = tokio::spawn(invalidations.clone().run());
            let keeping = tokio::spawn(redis.keep());
            invalidations.flush(Duration::from_secs(2)).await;
            telling.abort();
            keeping.abort();
        }
        self.runtime.close();
        self.platform.close();
    }
}

/// What takes the place of what the configuration would give. [`Default`] replaces nothing.
#[derive(Clone, Default)]
pub struct Overrides {
    /// Time.
    pub clock: Option<Arc<dyn Clock>>,
    /// The clock that payments are due by, for a stand-in of Stripe with a clock of its own.
    pub payment_clock: Option<Arc<dyn Clock>>,
    /// Connections of the runtime role.
    pub pool: Option<PoolConfig>,
    /// The signing keys, the present one first.
    pub keys: Vec<SigningKey>,
    /// What hashes passwords.
    pub passwords: Option<Arc<dyn PasswordHasher>>,
    /// What is on offer.
    pub plans: Option<Arc<PlanBook>>,
    /// What is shared with other servers.
    pub redis: Option<Redis>,
    /// Traces beyond the process.
    pub traces: Option<Arc<dyn Traces>>,
    /// What host names mean.
    pub resolver: Option<Arc<dyn HostResolver>>,
    /// The payment provider.
    pub payments: Option<Arc<dyn PaymentProvider>>,
    /// What delivers mail.
    pub mailer: Option<Arc<dyn Mailer>>,
    /// What plans include.
    pub entitlements: Option<Arc<dyn Entitlements>>,
    /// What keeps programs from signing up.
    pub challenges: Option<Challenges>,
    /// What becomes of subscriptions when tenants and users come and go.
    pub subscriptions: Option<Arc<dyn Subscriptions>>,
    /// What records usage.
    pub usage_recorder: Option<Arc<dyn UsageRecorder>>,
    /// What recovers parts of quotas that were lent.
    pub quota_recovery: Option<Arc<dyn QuotaRecovery>>,
    /// Where events are exported to.
    pub event_export: Option<EventExport>,
    /// What signs and sends webhooks.
    pub webhook_sender: Option<Arc<dyn WebhookSender>>,
}

/// Puts the application together; connects to nothing yet.
///
/// # Errors
/// [`BootError`].
pub fn boot(config: &Configuration) -> Result<Booted, BootError> {
    compose(config, Overrides::default())
}

/// [`boot`], with other parts in the place of some.
///
/// # Errors
/// [`BootError`].
pub fn compose(config: &Configuration, overrides: Overrides) -> Result<Booted, BootError> {
    config.extension.check_routes()?;
    let plans = match &overrides.plans {
        Some(given) => Arc::clone(given),
        None => Arc::new(plan::book(&config.plans)?),
    };
    let redis = match &overrides.redis {
        Some(given) => Some(given.clone()),
        None => redis(config)?,
    };
    let base = base(config, &overrides, &plans)?;
    let (clock, platform) = (Arc::clone(&base.clock), base.platform.clone());
    let caches = Caches::new(&base).map_err(unusable)?;
    let plans_changed = Arc::new(Notify::new());
    let waker: Arc<dyn InvalidatedCache> = Arc::new(plan::Waker(Arc::clone(&plans_changed)));
    let local_caches = Arc::new(LocalCaches::new(caches.invalidated().into_iter().chain([waker])));
    let invalidations = redis
        .clone()
        .map(|redis| Invalidations::new(redis, local_caches.clone()));
    let publisher: Arc<dyn InvalidationPublisher> = match invalidations.clone() {
        Some(everywhere) => Arc::new(everywhere),
        None => local_caches,
    };
    let shared_limits = shared(&config.limits, redis.clone(), Arc::clone(&clock));
    let limits = limits(&config.limits, Arc::clone(&plans), shared_limits.clone(), clock)?;
    let versions = PgPlanVersions::new(platform.clone(), Arc::clone(&publisher), Arc::clone(&base.ids));
    // One name for what this process notes and for what it holds of quotas: what its calls in the ledger do not account for is
    // given back after its death.
    let instance = base.ids.uuid();
    let outside = Outside::new(config, &base, overrides.payment_clock.clone(), instance)?;
    let ports = tenantry_compose::ports(&base, &caches, publisher).map_err(unusable)?;
    let exported = event_export::broker(&config.events.export, redis.as_ref());
    let ports = ports_of(config, &base, overrides, &outside, ports)?;
    let ports = Ports {
        event_export: ports.event_export.or(exported),
        ..ports
    };
    let ports = config.extension.replace_ports(ports);
    let app = Arc::new(Tenancy::new(ports, policy(config)));
    Ok(Booted {
        quotas: quotas(config, &app, instance),
        app,
        limits: limits.map(|limits| limits.spread_by(Arc::clone(&base.ids))),
        runtime: base.runtime,
        platform,
        cache: caches.directory,
        configurations: caches.configurations,
        flags: caches.flags,
        redis,
        invalidations,
        plans: KnownPlans::new(plans, plans_changed, Arc::new(versions)),
        calls: outside.calls,
        stripe: outside.stripe,
        mailer: outside.mailer,
        shared_limits,
    })
}

/// What the use cases are put together from.
fn base(config: &Configuration, overrides: &Overrides, plans: &Arc<PlanBook>) -> Result<Base, BootError> {
    let permissions = Arc::new(config.extension.permissions()?);
    let event_types = Arc::new(config.extension.event_types()?);
    let own = |size| pool(config, size);
    let runtime = overrides.pool.clone();
    let runtime = runtime.unwrap_or_else(|| own(config.database.pool_size));
    let size = config.database.platform_pool_size;
    let platform = overrides.pool.clone().map(|given| PoolConfig { size, ..given });
    let platform = PoolConfig {
        // Its few statements look across tenants, where one plan for all values is not always the best.
        generic_plans: false,
        ..platform.unwrap_or_else(|| own(size))
    };
    let keys = match overrides.keys.as_slice() {
        [] => signing_keys(config)?,
        given => given.to_vec(),
    };
    let passwords: Arc<dyn PasswordHasher> = match &overrides.passwords {
        Some(given) => Arc::clone(given),
        None => Arc::new(passwords(config)?),
    };
    let clock = overrides.clock.clone();
    Ok(Base {
        runtime: Pool::new(config.database.url.reveal(), &runtime)?,
        platform: Pool::new(config.database.platform_url.reveal(), &platform)?,
        keys,
        issuer: config.auth.issuer.clone(),
        audience: config.auth.audience.clone(),
        access_token_seconds: config.auth.access_token_minutes * 60,
        cache: cache_settings(&config.cache),
        passwords,
        plans: plans.clone(),
        settings: Arc::new(registry(config, plans)?),
        permissions,
        flags: config.extension.flags.clone(),
        event_types,
        clock: clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
        ids: Arc::new(SystemIds),
    })
}

/// The adapters to what is outside of the database, which the server also measures and closes.
struct Outside {
    calls: Arc<FileSpool>,
    stripe: Option<Arc<StripePayments>>,
    mailer: Arc<TalliedMailer>,
}

impl Outside {
    fn new(
        config: &Configuration,
        base: &Base,
        payment_clock: Option<Arc<dyn Clock>>,
        instance: Uuid,
    ) -> Result<Self, ConfigurationError> {
        let spool = &config.metering.spool_dir;
        let folder = (!spool.as_os_str().is_empty()).then(|| spool.clone());
        Ok(Self {
            calls: Arc::new(FileSpool::new(folder, instance.to_string())),
            stripe: stripe(config, payment_clock)?.map(Arc::new),
            mailer: Arc::new(mail::mailer(&config.mail, Arc::clone(&base.clock))?),
        })
    }
}

/// The ports of a server: those of the configuration, and those that are replaced.
fn ports_of(
    config: &Configuration,
    base: &Base,
    overrides: Overrides,
    outside: &Outside,
    ports: Ports,
) -> Result<Ports, BootError> {
    // Each override is used here or a part of the base, so that a new one cannot be forgotten.
    let Overrides {
        clock: _,
        payment_clock: _,
        pool: _,
        keys: _,
        passwords: _,
        plans: _,
        redis: _,
        traces,
        resolver,
        payments,
        mailer,
        entitlements,
        challenges: given_challenges,
        subscriptions,
        usage_recorder,
        quota_recovery,
        event_export,
        webhook_sender,
    } = overrides;
    let webhook_sender = match webhook_sender {
        Some(given) => Some(given),
        None => webhooks::sender(config)?,
    };
    let stripe = outside.stripe.clone();
    let stripe = stripe.map(|stripe| stripe as Arc<dyn PaymentProvider>);
    let secret = base.keys[0].derive_secret("challenges");
    let challenges = match given_challenges {
        Some(given) => Some(given),
        None => challenges(config, &secret, &base.platform, &base.clock)?,
    };
    Ok(Ports {
        passkeys: passkeys(config)?,
        archive_store: archive_store(config),
        traces: traces.unwrap_or_else(|| crate::traces::port(&config.tracing)),
        calls: outside.calls.clone(),
        usage_recorder: usage_recorder.unwrap_or(ports.usage_recorder),
        quota_recovery: quota_recovery.unwrap_or(ports.quota_recovery),
        entitlements: entitlements.unwrap_or(ports.entitlements),
        subscriptions: subscriptions.unwrap_or(ports.subscriptions),
        payments: payments.or(stripe),
        mailer: mailer.unwrap_or_else(|| outside.mailer.clone()),
        breached_passwords: breached_passwords(config)?,
        challenges,
        resolver: resolver.unwrap_or(ports.resolver),
        dns: domains::dns(config)?,
        audit_receiver: audit_stream::receiver(&config.audit.stream)?,
        event_export,
        webhook_sender,
        ..ports
    })
}

/// A signing key for development: the one in the file, made when there is none.
pub fn development_key(path: &Path) -> Result<(), BootError> {
    if path.exists() {
        return Ok(());
    }
    let text = format!("{DEVELOPMENT_MARK}\n{}", SigningKey::generate().to_pem());
    let failed = |error: std::io::Error| ConfigurationError::File {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    Ok(crate::dev::write_private(path, &text).map_err(failed)?)
}

/// The relying party of passkeys, when there is one.
fn passkeys(config: &Configuration) -> Result<Option<Arc<dyn PasskeyCeremonies>>, BootError> {
    let party = config.auth.passkeys.relying_party()?;
    Ok(party.map(|party| Arc::new(party) as Arc<dyn PasskeyCeremonies>))
}

/// Where the archives of exports are kept, when the configuration names a folder.
fn archive_store(config: &Configuration) -> Option<Arc<dyn ArchiveStore>> {
    let folder = config.archive.directory.clone();
    (!folder.as_os_str().is_empty()).then(|| Arc::new(ArchiveFolder::new(folder)) as Arc<dyn ArchiveStore>)
}

/// What this server holds of quotas. It has a new name with each start, so that nobody takes it for the one before.
fn quotas(config: &Configuration, app: &Arc<Tenancy>, instance: Uuid) -> Option<QuotaLeases> {
    let lender = Arc::new(StoredQuotas::new(Arc::clone(app)));
    let clock = Arc::clone(&app.ports.clock);
    let ttl = Duration::from_secs(config.quotas.lease_seconds);
    let enforced = config.quotas.enforce_api_calls;
    enforced.then(|| QuotaLeases::new(lender, clock, instance, ttl))
}

fn cache_settings(cache: &Cache) -> CacheConfig {
    CacheConfig {
        entries: cache.entries,
        ttl_ms: cache.ttl_ms.cast_signed(),
        alone_ttl_ms: cache.alone_ttl_ms.cast_signed(),
    }
}

/// A timeout of the configuration, where 0 leaves it to the role.
fn after(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// What the configuration says of a pool of so many connections.
pub fn pool(config: &Configuration, size: usize) -> PoolConfig {
    PoolConfig {
        size,
        acquire_timeout: Duration::from_millis(config.database.acquire_timeout_ms),
        connect_timeout: Duration::from_millis(config.database.connect_timeout_ms),
        check_after_idle: Duration::from_secs(config.database.check_after_idle_seconds),
        max_lifetime: Duration::from_secs(config.database.max_lifetime_seconds),
        behind_pooler: config.database.behind_pooler,
        timeouts: StatementTimeouts {
            statement: after(config.database.statement_timeout_ms),
            lock: after(config.database.lock_timeout_ms),
            idle_in_transaction: after(config.database.idle_in_transaction_timeout_ms),
        },
        generic_plans: true,
        threads: config.server.threads(),
        per_tenant: config.database.per_tenant,
        queue: config.database.queue,
    }
}

/// What the configuration says of tokens, with the name of the setting.
fn unusable(error: ComposeError) -> BootError {
    match error {
        ComposeError::Store(error) => error.into(),
        ComposeError::Flags(error) => error.into(),
        ComposeError::Configuration(error) => error.into(),
        error @ (ComposeError::Tokens(_) | ComposeError::Passwords(_) | ComposeError::Plans(_)) => {
            ConfigurationError::invalid("auth.signing_key", error.to_string()).into()
        }
    }
}

/// The signing keys of the configuration, the present one first.
fn signing_keys(config: &Configuration) -> Result<Vec<SigningKey>, ConfigurationError> {
    let keys = SigningKeyConfig {
        key: &config.auth.signing_key,
        file: config.auth.signing_key_file.as_deref(),
        previous: &config.auth.previous_key_files,
        development: config.profile == Profile::Development,
    };
    keys.read()
}

fn redis(config: &Configuration) -> Result<Option<Redis>, ConfigurationError> {
    let redis = &config.redis;
    if redis.url.is_empty() {
        return Ok(None);
    }
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| {
            let problem = format!("{}: {error}", path.display());
            ConfigurationError::invalid("redis.ca_file", problem)
        })
    };
    let login = (
        redis.sentinel_user.clone(),
        redis.sentinel_password.reveal().to_owned(),
    );
    let mode = match redis.mode {
        config::RedisMode::Single => RedisMode::Single,
        config::RedisMode::Cluster => RedisMode::Cluster,
        config::RedisMode::Sentinel => RedisMode::Sentinel {
            master: redis.sentinel_master.clone(),
            login: (!login.1.is_empty()).then_some(login),
        },
    };
    let place = RedisConfig {
        url: redis.url.reveal().to_owned(),
        mode,
        trusted: redis.ca_file.as_ref().map(read).transpose()?,
        timeout: Duration::from_millis(redis.timeout_ms),
    };
    Redis::with(&place).map(Some).map_err(|error| match error {
        RedisUrlError::Url(problem) => ConfigurationError::invalid("redis.url", problem),
        RedisUrlError::Trusted(problem) => ConfigurationError::invalid("redis.ca_file", problem),
    })
}

fn stripe(
    config: &Configuration,
    clock: Option<Arc<dyn Clock>>,
) -> Result<Option<StripePayments>, ConfigurationError> {
    let stripe = &config.billing.stripe;
    if stripe.secret_key.is_empty() {
        return Ok(None);
    }
    let wrong = |key, problem: String| ConfigurationError::invalid(key, problem);
    let base = (!stripe.api_base.is_empty()).then(|| stripe.api_base.parse());
    let secrets = stripe.webhook_secrets.iter();
    let config = StripeConfig {
        secret_key: stripe.secret_key.reveal().to_owned(),
        webhook_secrets: secrets.map(|secret| secret.reveal().to_owned()).collect(),
        api_base: base
            .transpose()
            .map_err(|error: url::ParseError| wrong("billing.stripe.api_base", error.to_string()))?,
        timeout: Duration::from_millis(stripe.timeout_ms),
        clock,
    };
    let payments = StripePayments::new(&config);
    payments
        .map(Some)
        .map_err(|error| wrong("billing.stripe.secret_key", error.to_string()))
}

/// What keeps programs from signing up. The configuration was checked.
fn challenges(
    config: &Configuration,
    secret: &[u8; 32],
    platform: &Pool,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Challenges>, ConfigurationError> {
    let challenge = &config.signup.challenge;
    let store: Arc<dyn SpentChallenges> = Arc::new(PgSpentChallenges::new(platform.clone()));
    // The proof of work stores the challenge, which has many responses.
    let (verifier, spent): (Arc<dyn ChallengeVerifier>, _) = match challenge.provider {
        ChallengeProvider::None => return Ok(None),
        ChallengeProvider::ProofOfWork => {
            let (difficulty, minutes) = (challenge.difficulty, challenge.minutes);
            let work = ProofOfWork::new(secret, difficulty, minutes, store, Arc::clone(clock));
            (Arc::new(work), None)
        }
        ChallengeProvider::Siteverify => (Arc::new(site_verify(challenge)?), Some(store)),
    };
    let purposes = challenge.purposes.iter();
    Ok(Some(Challenges {
        verifier,
        purposes: purposes
            .filter_map(|name| ChallengePurpose::parse(name))
            .collect(),
        fail_open: challenge.fail_open,
        spent,
    }))
}

fn site_verify(challenge: &config::Challenge) -> Result<SiteVerify, ConfigurationError> {
    let invalid = |problem: String| ConfigurationError::invalid("signup.challenge.url", problem);
    let url = challenge.url.parse();
    let config = SiteVerifyConfig {
        url: url.map_err(|error: url::ParseError| invalid(error.to_string()))?,
        secret: challenge.secret.reveal().to_owned(),
        site_key: challenge.site_key.clone(),
        hostnames: challenge.hostnames.clone(),
        timeout: Duration::from_millis(challenge.timeout_ms),
    };
    SiteVerify::new(config).map_err(|error| invalid(error.to_string()))
}

/// The list of breached passwords, where the configuration names one.
fn breached_passwords(
    config: &Configuration,
) -> Result<Option<Arc<dyn BreachedPasswords>>, ConfigurationError> {
    let Some(ranges) = config.auth.breached_passwords.ranges()? else {
        return Ok(None);
    };
    let invalid = |problem: String| ConfigurationError::invalid("auth.breached_passwords.url", problem);
    let ranges = PasswordRanges::new(&ranges).map_err(|error| invalid(error.to_string()))?;
    Ok(Some(Arc::new(ranges)))
}

fn passwords(config: &Configuration) -> Result<Argon2Passwords, ConfigurationError> {
    let auth = &config.auth;
    let hashing = PasswordHashing {
        memory_kib: auth.password_memory_kib,
        iterations: auth.password_iterations,
        lanes: auth.password_lanes,
        at_once: auth.password_at_once,
        queue: auth.password_queue,
    };
    let hasher = hashing.hasher();
    hasher.map_err(|error| ConfigurationError::invalid("auth.password_memory_kib", error.to_string()))
}

/// The settings that tenants have. What the plans say of them must hold.
fn registry(config: &Configuration, plans: &PlanBook) -> Result<SettingRegistry, BootError> {
    let own = config.extension.definitions.iter().cloned();
    let registry = SettingRegistry::new(product_settings::definitions().into_iter().chain(own));
    let registry = registry.map_err(|error| StoreError::Other(error.to_string()))?;
    for terms in plans.on_offer() {
        for (key, value) in &terms.settings {
            let checked = registry.check_plan(key, value);
            checked.map_err(|problem| {
                let problem = format!("plan {}, settings.{key}: {problem}", terms.name);
                ConfigurationError::invalid("plans.file", problem)
            })?;
        }
    }
    Ok(registry)
}

fn policy(config: &Configuration) -> Policy {
    Policy {
        signup_enabled: config.signup.enabled,
        default_settings: tenantry_domain::tenant::Settings {
            self_registration: config.signup.self_registration,
            timezone: config.signup.timezone.clone(),
            locale: config.signup.locale.clone(),
        },
        session_days: config.auth.session_days,
        session_max_days: config.auth.session_max_days,
        operator_mfa_required: config.auth.operators_need_factor(config.profile),
        // The configuration was checked.
        totp_window: TotpWindow::around(config.auth.totp_steps_around).unwrap_or_default(),
        users_mfa_minimum: config.auth.users_mfa_minimum,
        // The configuration was checked.
        api_keys: ApiKeyFormat::new(&config.auth.api_key_environment).unwrap_or_default(),
        name_quarantine_days: config.signup.name_quarantine_days,
        purge_after_days: config.tenants.purge_after_days,
        quota_thresholds: config.quotas.alert_thresholds.clone(),
        enforce_api_calls: config.quotas.enforce_api_calls,
        app_url: config.mail.app_url.clone(),
        api_url: config.mail.api_address().to_owned(),
        alert_rules: config.alerts.rules.clone(),
        mail_limits: MailLimits {
            recipient: config.mail.recipient_per_day,
            tenant: config.mail.tenant_per_day,
        },
        domains: domains::policy(config),
        // The configuration was checked; what cannot be read allows nothing.
        webhooks: config.webhooks.rules().unwrap_or_default(),
        billing: BillingPolicy {
            return_url: config.billing.return_url.clone(),
            automatic_tax: config.billing.automatic_tax,
            delete_after_days: (config.billing.dunning.delete_after_days > 0)
                .then_some(config.billing.dunning.delete_after_days),
        },
        distrusted_keys: config.archive.distrusted_keys.clone(),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_compose::Pools;

    use super::*;

    /// Services over `tenantry-compose` have them without these settings.
    #[test]
    fn defaults_of_compose_are_those_of_the_settings() {
        let config = Configuration::default();
        let set = policy(&config);
        assert_eq!(Policy::default(), set);
        let urls = "postgres://tenantry_app@localhost/x";
        let base = Base::new(urls, urls, vec![SigningKey::generate()]).unwrap();
        assert_eq!(
            (base.issuer, base.audience, base.access_token_seconds),
            (
                config.auth.issuer.clone(),
                config.auth.audience.clone(),
                config.auth.access_token_minutes * 60
            )
        );
        assert_eq!(base.cache, cache_settings(&config.cache));
        assert_eq!(
            base.permissions.all(),
            config.extension.permissions().unwrap().all()
        );
        let alone = |pool: PoolConfig| PoolConfig { threads: 0, ..pool };
        let Pools { runtime, platform } = Pools::default();
        assert_eq!(runtime, alone(pool(&config, config.database.pool_size)));
        let expected = PoolConfig {
            generic_plans: false,
            ..pool(&config, config.database.platform_pool_size)
        };
        assert_eq!(platform, alone(expected));
    }

    /// Both read the same files and variables.
    #[test]
    fn configuration_is_a_part_of_the_settings() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config"));
        for profile in [Profile::Development, Profile::Production] {
            let config = Configuration::load(Some(folder), profile).unwrap();
            let shared = tenantry_compose::Configuration::of(Some(folder), profile.as_str()).unwrap();
            let given = (
                &config.auth.issuer,
                &config.auth.audience,
                &config.auth.api_key_environment,
            );
            let auth = &shared.auth;
            assert_eq!(given, (&auth.issuer, &auth.audience, &auth.api_key_environment));
            assert_eq!(config.auth.access_token_minutes, auth.access_token_minutes);
            assert_eq!(config.auth.previous_key_files, auth.previous_key_files);
            assert_eq!(config.auth.signing_key_file, auth.signing_key_file);
            assert_eq!(config.http.trust_forwarded_for, shared.http.trust_forwarded_for);
            assert_eq!(config.database.url, shared.database.url);
            assert_eq!(config.database.platform_url, shared.database.platform_url);
        }
    }
}
