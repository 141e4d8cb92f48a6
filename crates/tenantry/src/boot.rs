//! Composition: settings in, application out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tenantry_billing::plans::PlanBook;
use tenantry_billing::usage::quota_lending::StoredQuotas;
use tenantry_challenge::{SiteVerify, SiteVerifySettings};
use tenantry_compose::{Base, Caches, ComposeError, DEVELOPMENT_MARK, PasswordHashing, SigningKeySettings};
use tenantry_domain::archive::ArchiveStore;
use tenantry_domain::billing::PaymentProvider;
use tenantry_domain::customization::SettingRegistry;
use tenantry_domain::identity::{
    ApiKeyFormat, ChallengePurpose, ChallengeVerifier, Challenges, PasskeyCeremonies, PasswordHasher,
};
use tenantry_domain::kernel::{
    Clock, HostResolver, InvalidatedCache, InvalidationPublisher, PermissionError, StoreError,
};
use tenantry_domain::operations::{MailLimits, Mailer};
use tenantry_domain::plans::PlanCatalogue as _;
use tenantry_http::Limits;
use tenantry_mail::TalliedMailer;
use tenantry_persistence::{PgPlanVersions, PgSpentChallenges, Pool, PoolSettings, StatementTimeouts};
use tenantry_redis::{Invalidations, Redis, RedisLimiter, RedisMode, RedisSettings, RedisUrlError};
use tenantry_stripe::{StripePayments, StripeSettings};
use tenantry_system::{
    ArchiveFolder, Argon2Passwords, CacheSettings, CachedConfigurations, CachedDirectory, CachedFlags,
    FileSpool, LocalCaches, ProofOfWork, QuotaLeases, SigningKey, SystemClock, SystemIds,
};
use tenantry_tenancy::billing::Subscriptions;
use tenantry_tenancy::customization::product_settings;
use tenantry_tenancy::plans::Entitlements;
use tenantry_tenancy::usage::{QuotaRecovery, UsageRecorder};
use tenantry_tenancy::{BillingPolicy, Policy, Ports, Tenancy, Traces};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::audit_stream;
use crate::config::{self, Cache, ChallengeProvider, Profile, Settings, SettingsError};
use crate::domains;
use crate::limits::{limits, shared};
use crate::mail;
use crate::plan::{self, KnownPlans};
use crate::routes::RouteError;

/// Why the application cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Permission(#[from] PermissionError),
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
    /// What is shared with other servers, where the settings name it; it has no connection before it is kept.
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
    /// Whom tenants pay, where the settings name a key.
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

/// What takes the place of what the settings would give. [`Default`] replaces nothing.
#[derive(Clone, Default)]
pub struct Overrides {
    /// Time.
    pub clock: Option<Arc<dyn Clock>>,
    /// The clock that payments are due by, for a stand-in of Stripe with a clock of its own.
    pub payment_clock: Option<Arc<dyn Clock>>,
    /// Connections of the runtime role.
    pub pool: Option<PoolSettings>,
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
}

/// Puts the application together; connects to nothing yet.
///
/// # Errors
/// [`BootError`].
pub fn boot(settings: &Settings) -> Result<Booted, BootError> {
    compose(settings, Overrides::default())
}

/// [`boot`], with other parts in the place of some.
///
/// # Errors
/// [`BootError`].
pub fn compose(settings: &Settings, overrides: Overrides) -> Result<Booted, BootError> {
    settings.extension.check_routes()?;
    let plans = match &overrides.plans {
        Some(given) => Arc::clone(given),
        None => Arc::new(plan::book(&settings.plans)?),
    };
    let redis = match &overrides.redis {
        Some(given) => Some(given.clone()),
        None => redis(settings)?,
    };
    let base = base(settings, &overrides, &plans)?;
    let (clock, platform) = (Arc::clone(&base.clock), base.platform.clone());
    let caches = Caches::new(&base);
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
    let shared_limits = shared(&settings.limits, redis.clone(), Arc::clone(&clock));
    let limits = limits(&settings.limits, Arc::clone(&plans), shared_limits.clone(), clock)?;
    let versions = PgPlanVersions::new(platform.clone(), Arc::clone(&publisher));
    // One name for what this process notes and for what it holds of quotas: what its calls in the ledger do not account for is
    // given back after its death.
    let instance = base.ids.uuid();
    let outside = Outside::new(settings, &base, overrides.payment_clock.clone(), instance)?;
    let ports = tenantry_compose::ports(&base, &caches, publisher).map_err(unusable)?;
    let ports = ports_of(settings, &base, overrides, &outside, ports)?;
    let ports = settings.extension.replace_ports(ports);
    let app = Arc::new(Tenancy::new(ports, policy(settings)));
    Ok(Booted {
        quotas: quotas(settings, &app, instance),
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
fn base(settings: &Settings, overrides: &Overrides, plans: &Arc<PlanBook>) -> Result<Base, BootError> {
    let permissions = Arc::new(settings.extension.permissions()?);
    let own = |size| pool(settings, size);
    let runtime = overrides.pool.clone();
    let runtime = runtime.unwrap_or_else(|| own(settings.database.pool_size));
    let size = settings.database.platform_pool_size;
    let platform = overrides.pool.clone().map(|given| PoolSettings { size, ..given });
    let platform = PoolSettings {
        // Its few statements look across tenants, where one plan for all values is not always the best.
        generic_plans: false,
        ..platform.unwrap_or_else(|| own(size))
    };
    let keys = match overrides.keys.as_slice() {
        [] => signing_keys(settings)?,
        given => given.to_vec(),
    };
    let passwords: Arc<dyn PasswordHasher> = match &overrides.passwords {
        Some(given) => Arc::clone(given),
        None => Arc::new(passwords(settings)?),
    };
    let clock = overrides.clock.clone();
    Ok(Base {
        runtime: Pool::new(settings.database.url.reveal(), &runtime)?,
        platform: Pool::new(settings.database.platform_url.reveal(), &platform)?,
        keys,
        issuer: settings.auth.issuer.clone(),
        audience: settings.auth.audience.clone(),
        access_token_seconds: settings.auth.access_token_minutes * 60,
        cache: cache_settings(&settings.cache),
        passwords,
        plans: plans.clone(),
        settings: Arc::new(registry(settings, plans)?),
        permissions,
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
        settings: &Settings,
        base: &Base,
        payment_clock: Option<Arc<dyn Clock>>,
        instance: Uuid,
    ) -> Result<Self, SettingsError> {
        let spool = &settings.metering.spool_dir;
        let folder = (!spool.as_os_str().is_empty()).then(|| spool.clone());
        Ok(Self {
            calls: Arc::new(FileSpool::new(folder, instance.to_string())),
            stripe: stripe(settings, payment_clock)?.map(Arc::new),
            mailer: Arc::new(mail::mailer(&settings.mail, Arc::clone(&base.clock))?),
        })
    }
}

/// The ports of a server: those of the settings, and those that are replaced.
fn ports_of(
    settings: &Settings,
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
    } = overrides;
    let stripe = outside.stripe.clone();
    let stripe = stripe.map(|stripe| stripe as Arc<dyn PaymentProvider>);
    let secret = base.keys[0].derive_secret("challenges");
    let challenges = match given_challenges {
        Some(given) => Some(given),
        None => challenges(settings, &secret, &base.platform, &base.clock)?,
    };
    Ok(Ports {
        passkeys: passkeys(settings)?,
        archive_store: archive_store(settings),
        traces: traces.unwrap_or_else(|| crate::traces::port(&settings.tracing)),
        calls: outside.calls.clone(),
        usage_recorder: usage_recorder.unwrap_or(ports.usage_recorder),
        quota_recovery: quota_recovery.unwrap_or(ports.quota_recovery),
        entitlements: entitlements.unwrap_or(ports.entitlements),
        subscriptions: subscriptions.unwrap_or(ports.subscriptions),
        payments: payments.or(stripe),
        mailer: mailer.unwrap_or_else(|| outside.mailer.clone()),
        challenges,
        resolver: resolver.unwrap_or(ports.resolver),
        dns: domains::dns(settings)?,
        audit_receiver: audit_stream::receiver(&settings.audit.stream)?,
        ..ports
    })
}

/// A signing key for development: the one in the file, made when there is none.
pub fn development_key(path: &Path) -> Result<(), BootError> {
    if path.exists() {
        return Ok(());
    }
    let text = format!("{DEVELOPMENT_MARK}\n{}", SigningKey::generate().to_pem());
    let failed = |error: std::io::Error| SettingsError::File {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    Ok(crate::dev::write_private(path, &text).map_err(failed)?)
}

/// The relying party of passkeys, when there is one.
fn passkeys(settings: &Settings) -> Result<Option<Arc<dyn PasskeyCeremonies>>, BootError> {
    let party = settings.auth.passkeys.relying_party()?;
    Ok(party.map(|party| Arc::new(party) as Arc<dyn PasskeyCeremonies>))
}

/// Where the archives of exports are kept, when the settings name a folder.
fn archive_store(settings: &Settings) -> Option<Arc<dyn ArchiveStore>> {
    let folder = settings.archive.directory.clone();
    (!folder.as_os_str().is_empty()).then(|| Arc::new(ArchiveFolder::new(folder)) as Arc<dyn ArchiveStore>)
}

/// What this server holds of quotas. It has a new name with each start, so that nobody takes it for the one before.
fn quotas(settings: &Settings, app: &Arc<Tenancy>, instance: Uuid) -> Option<QuotaLeases> {
    let lender = Arc::new(StoredQuotas::new(Arc::clone(app)));
    let clock = Arc::clone(&app.ports.clock);
    let ttl = Duration::from_secs(settings.quotas.lease_seconds);
    let enforced = settings.quotas.enforce_api_calls;
    enforced.then(|| QuotaLeases::new(lender, clock, instance, ttl))
}

fn cache_settings(cache: &Cache) -> CacheSettings {
    CacheSettings {
        entries: cache.entries,
        ttl_ms: cache.ttl_ms.cast_signed(),
        alone_ttl_ms: cache.alone_ttl_ms.cast_signed(),
    }
}

/// A timeout of the settings, where 0 leaves it to the role.
fn after(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn pool(settings: &Settings, size: usize) -> PoolSettings {
    PoolSettings {
        size,
        acquire_timeout: Duration::from_millis(settings.database.acquire_timeout_ms),
        connect_timeout: Duration::from_millis(settings.database.connect_timeout_ms),
        check_after_idle: Duration::from_secs(settings.database.check_after_idle_seconds),
        max_lifetime: Duration::from_secs(settings.database.max_lifetime_seconds),
        behind_pooler: settings.database.behind_pooler,
        timeouts: StatementTimeouts {
            statement: after(settings.database.statement_timeout_ms),
            lock: after(settings.database.lock_timeout_ms),
            idle_in_transaction: after(settings.database.idle_in_transaction_timeout_ms),
        },
        generic_plans: true,
        threads: settings.server.threads(),
        per_tenant: settings.database.per_tenant,
        queue: settings.database.queue,
    }
}

/// What the settings say of tokens, with the name of the setting.
fn unusable(error: ComposeError) -> BootError {
    match error {
        ComposeError::Store(error) => error.into(),
        ComposeError::Settings(error) => error.into(),
        error @ (ComposeError::Tokens(_) | ComposeError::Passwords(_) | ComposeError::Plans(_)) => {
            SettingsError::invalid("auth.signing_key", error.to_string()).into()
        }
    }
}

/// The signing keys of the settings, the present one first.
fn signing_keys(settings: &Settings) -> Result<Vec<SigningKey>, SettingsError> {
    let keys = SigningKeySettings {
        key: &settings.auth.signing_key,
        file: settings.auth.signing_key_file.as_deref(),
        previous: &settings.auth.previous_key_files,
        development: settings.profile == Profile::Development,
    };
    keys.read()
}

fn redis(settings: &Settings) -> Result<Option<Redis>, SettingsError> {
    let redis = &settings.redis;
    if redis.url.is_empty() {
        return Ok(None);
    }
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| {
            let problem = format!("{}: {error}", path.display());
            SettingsError::invalid("redis.ca_file", problem)
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
    let place = RedisSettings {
        url: redis.url.reveal().to_owned(),
        mode,
        trusted: redis.ca_file.as_ref().map(read).transpose()?,
        timeout: Duration::from_millis(redis.timeout_ms),
    };
    Redis::with(&place).map(Some).map_err(|error| match error {
        RedisUrlError::Url(problem) => SettingsError::invalid("redis.url", problem),
        RedisUrlError::Trusted(problem) => SettingsError::invalid("redis.ca_file", problem),
    })
}

fn stripe(
    settings: &Settings,
    clock: Option<Arc<dyn Clock>>,
) -> Result<Option<StripePayments>, SettingsError> {
    let stripe = &settings.billing.stripe;
    if stripe.secret_key.is_empty() {
        return Ok(None);
    }
    let wrong = |key, problem: String| SettingsError::invalid(key, problem);
    let base = (!stripe.api_base.is_empty()).then(|| stripe.api_base.parse());
    let secrets = stripe.webhook_secrets.iter();
    let settings = StripeSettings {
        secret_key: stripe.secret_key.reveal().to_owned(),
        webhook_secrets: secrets.map(|secret| secret.reveal().to_owned()).collect(),
        api_base: base
            .transpose()
            .map_err(|error: url::ParseError| wrong("billing.stripe.api_base", error.to_string()))?,
        timeout: Duration::from_millis(stripe.timeout_ms),
        clock,
    };
    let payments = StripePayments::new(&settings);
    payments
        .map(Some)
        .map_err(|error| wrong("billing.stripe.secret_key", error.to_string()))
}

/// What keeps programs from signing up. The settings were checked.
fn challenges(
    settings: &Settings,
    secret: &[u8; 32],
    platform: &Pool,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Challenges>, SettingsError> {
    let challenge = &settings.signup.challenge;
    let verifier: Arc<dyn ChallengeVerifier> = match challenge.provider {
        ChallengeProvider::None => return Ok(None),
        ChallengeProvider::ProofOfWork => Arc::new(ProofOfWork::new(
            secret,
            challenge.difficulty,
            challenge.minutes,
            Arc::new(PgSpentChallenges::new(platform.clone())),
            Arc::clone(clock),
        )),
        ChallengeProvider::Siteverify => Arc::new(site_verify(challenge)?),
    };
    let purposes = challenge.purposes.iter();
    Ok(Some(Challenges {
        verifier,
        purposes: purposes
            .filter_map(|name| ChallengePurpose::parse(name))
            .collect(),
        fail_open: challenge.fail_open,
    }))
}

fn site_verify(challenge: &config::Challenge) -> Result<SiteVerify, SettingsError> {
    let invalid = |problem: String| SettingsError::invalid("signup.challenge.url", problem);
    let url = challenge.url.parse();
    let settings = SiteVerifySettings {
        url: url.map_err(|error: url::ParseError| invalid(error.to_string()))?,
        secret: challenge.secret.reveal().to_owned(),
        site_key: challenge.site_key.clone(),
        hostnames: challenge.hostnames.clone(),
        timeout: Duration::from_millis(challenge.timeout_ms),
    };
    SiteVerify::new(settings).map_err(|error| invalid(error.to_string()))
}

fn passwords(settings: &Settings) -> Result<Argon2Passwords, SettingsError> {
    let auth = &settings.auth;
    let hashing = PasswordHashing {
        memory_kib: auth.password_memory_kib,
        iterations: auth.password_iterations,
        lanes: auth.password_lanes,
        at_once: auth.password_at_once,
        queue: auth.password_queue,
    };
    let hasher = hashing.hasher();
    hasher.map_err(|error| SettingsError::invalid("auth.password_memory_kib", error.to_string()))
}

/// The settings that tenants have. What the plans say of them must hold.
fn registry(settings: &Settings, plans: &PlanBook) -> Result<SettingRegistry, BootError> {
    let own = settings.extension.definitions.iter().cloned();
    let registry = SettingRegistry::new(product_settings::definitions().into_iter().chain(own));
    let registry = registry.map_err(|error| StoreError::Other(error.to_string()))?;
    for terms in plans.on_offer() {
        for (key, value) in &terms.settings {
            let checked = registry.check_plan(key, value);
            checked.map_err(|problem| {
                let problem = format!("plan {}, settings.{key}: {problem}", terms.name);
                SettingsError::invalid("plans.file", problem)
            })?;
        }
    }
    Ok(registry)
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        signup_enabled: settings.signup.enabled,
        default_settings: tenantry_domain::tenant::Settings {
            self_registration: settings.signup.self_registration,
            timezone: settings.signup.timezone.clone(),
            locale: settings.signup.locale.clone(),
        },
        session_days: settings.auth.session_days,
        session_max_days: settings.auth.session_max_days,
        operator_mfa_required: settings.auth.operators_need_factor(settings.profile),
        // The settings were checked.
        api_keys: ApiKeyFormat::new(&settings.auth.api_key_environment).unwrap_or_default(),
        name_quarantine_days: settings.signup.name_quarantine_days,
        purge_after_days: settings.tenants.purge_after_days,
        quota_thresholds: settings.quotas.alert_thresholds.clone(),
        enforce_api_calls: settings.quotas.enforce_api_calls,
        app_url: settings.mail.app_url.clone(),
        alert_rules: settings.alerts.rules.clone(),
        mail_limits: MailLimits {
            recipient: settings.mail.recipient_per_day,
            tenant: settings.mail.tenant_per_day,
        },
        domains: domains::policy(settings),
        billing: BillingPolicy {
            return_url: settings.billing.return_url.clone(),
            automatic_tax: settings.billing.automatic_tax,
            delete_after_days: (settings.billing.dunning.delete_after_days > 0)
                .then_some(settings.billing.dunning.delete_after_days),
        },
        distrusted_keys: settings.archive.distrusted_keys.clone(),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_compose::Pools;

    use super::*;

    /// Services over `tenantry-compose` have them without these settings.
    #[test]
    fn defaults_of_compose_are_those_of_the_settings() {
        let settings = Settings::default();
        let set = policy(&settings);
        assert_eq!(Policy::default(), set);
        let urls = "postgres://tenantry_app@localhost/x";
        let base = Base::new(urls, urls, vec![SigningKey::generate()]).unwrap();
        assert_eq!(
            (base.issuer, base.audience, base.access_token_seconds),
            (
                settings.auth.issuer.clone(),
                settings.auth.audience.clone(),
                settings.auth.access_token_minutes * 60
            )
        );
        assert_eq!(base.cache, cache_settings(&settings.cache));
        assert_eq!(
            base.permissions.all(),
            settings.extension.permissions().unwrap().all()
        );
        let alone = |pool: PoolSettings| PoolSettings { threads: 0, ..pool };
        let Pools { runtime, platform } = Pools::default();
        assert_eq!(runtime, alone(pool(&settings, settings.database.pool_size)));
        let expected = PoolSettings {
            generic_plans: false,
            ..pool(&settings, settings.database.platform_pool_size)
        };
        assert_eq!(platform, alone(expected));
    }

    /// Both read the same files and variables.
    #[test]
    fn configuration_is_a_part_of_the_settings() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config"));
        for profile in [Profile::Development, Profile::Production] {
            let settings = Settings::load(Some(folder), profile).unwrap();
            let shared = tenantry_compose::Configuration::of(Some(folder), profile.as_str()).unwrap();
            let given = (
                &settings.auth.issuer,
                &settings.auth.audience,
                &settings.auth.api_key_environment,
            );
            let auth = &shared.auth;
            assert_eq!(given, (&auth.issuer, &auth.audience, &auth.api_key_environment));
            assert_eq!(settings.auth.access_token_minutes, auth.access_token_minutes);
            assert_eq!(settings.auth.previous_key_files, auth.previous_key_files);
            assert_eq!(settings.auth.signing_key_file, auth.signing_key_file);
            assert_eq!(settings.http.trust_forwarded_for, shared.http.trust_forwarded_for);
            assert_eq!(settings.database.url, shared.database.url);
            assert_eq!(settings.database.platform_url, shared.database.platform_url);
        }
    }
}
