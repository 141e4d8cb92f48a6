use std::sync::Arc;
use std::time::Duration;

use tenantry_billing::plans::{PlanBook, Plans, RateError};
use tenantry_domain::customization::SettingRegistry;
use tenantry_domain::events::EventTypes;
use tenantry_domain::flags::FlagDefinition;
use tenantry_domain::identity::PasswordHasher;
use tenantry_domain::kernel::{Clock, IdSource, PermissionRegistry, StoreError};
use tenantry_domain::plans::PlanCatalogue;
use tenantry_persistence::{PgPlanVersions, Pool, PoolConfig, StatementTimeouts};
use tenantry_system::{
    AccessTokensError, Argon2Passwords, CacheConfig, PasswordCost, PasswordCostError, SigningKey,
    SystemClock, SystemIds,
};
use tenantry_tenancy::customization::product_settings;
use tenantry_tenancy::flags::code_flag::CodeFlagError;

use crate::{ConfigurationError, Credentials};

/// The cost of hashing passwords (Argon2id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordHashing {
    /// InvalidatedCache of one hash, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes of a hash.
    pub lanes: u32,
    /// How many passwords are hashed at once.
    pub at_once: usize,
    /// How many may wait for that.
    pub queue: usize,
}

/// What OWASP recommends, and two at once.
impl Default for PasswordHashing {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            lanes: 1,
            at_once: 2,
            queue: 64,
        }
    }
}

impl PasswordHashing {
    /// The hasher.
    ///
    /// # Errors
    /// [`PasswordCostError`].
    pub fn hasher(self) -> Result<Argon2Passwords, PasswordCostError> {
        let cost = PasswordCost::new(self.memory_kib, self.iterations, self.lanes)?;
        Ok(Argon2Passwords::new(cost, self.at_once, self.queue))
    }
}

/// The connections of [`Base::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools {
    /// Of the runtime role.
    pub runtime: PoolConfig,
    /// Of the platform role.
    pub platform: PoolConfig,
}

/// The stock server's, shared by all threads.
impl Default for Pools {
    fn default() -> Self {
        let runtime = PoolConfig {
            timeouts: StatementTimeouts {
                statement: Some(Duration::from_secs(30)),
                lock: Some(Duration::from_secs(5)),
                idle_in_transaction: Some(Duration::from_secs(60)),
            },
            ..PoolConfig::default()
        };
        let platform = PoolConfig {
            size: 3,
            // Its few statements look across tenants, where one plan for all values is not always the best.
            generic_plans: false,
            ..runtime.clone()
        };
        Self { runtime, platform }
    }
}

/// What the use cases are put together from.
#[derive(Clone)]
pub struct Base {
    /// Connections of the runtime role, which row-level security binds.
    pub runtime: Pool,
    /// Connections of the platform role.
    pub platform: Pool,
    /// The configured signing keys, the present one first. Servers over one database have the same.
    pub keys: Vec<SigningKey>,
    /// The issuer (`iss`) of access tokens.
    pub issuer: String,
    /// The audience (`aud`) of access tokens.
    pub audience: String,
    /// The lifetime of access tokens; 1..=3600 seconds.
    pub access_token_seconds: i64,
    /// Sizes and lifetimes of the caches.
    pub cache: CacheConfig,
    /// The hasher of passwords.
    pub passwords: Arc<dyn PasswordHasher>,
    /// Plans on offer.
    pub plans: Arc<dyn PlanCatalogue>,
    /// The settings that tenants have.
    pub settings: Arc<SettingRegistry>,
    /// The product's permissions and those of the service, which [`PermissionRegistry::new`] takes. A permission that is not
    /// in here is refused to every caller.
    pub permissions: Arc<PermissionRegistry>,
    /// Feature flags that the code of the service defines. An operator's definition with the same key replaces one.
    pub flags: Vec<FlagDefinition>,
    /// The product's types of events and those of the service, which [`EventTypes::new`] takes.
    pub event_types: Arc<EventTypes>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Source of new ids.
    pub ids: Arc<dyn IdSource>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl Base {
    /// The defaults of the stock server, over the URLs of the runtime role and of the platform role. Connects to nothing yet.
    ///
    /// # Errors
    /// [`ComposeError::Store`] for a URL that cannot be used.
    pub fn new(runtime: &str, platform: &str, keys: Vec<SigningKey>) -> Result<Self, ComposeError> {
        let pools = Pools::default();
        let platform = Pool::new(platform, &pools.platform)?;
        let plans = PlanBook::new(Plans::standard())?;
        // It only reads, so it publishes no invalidations.
        let versions = PgPlanVersions::new(platform.clone(), Arc::new(()), Arc::new(SystemIds));
        plans.refresh_from(Arc::new(versions));
        let settings = SettingRegistry::new(product_settings::definitions());
        let credentials = Credentials::default();
        Ok(Self {
            runtime: Pool::new(runtime, &pools.runtime)?,
            platform,
            keys,
            issuer: credentials.issuer,
            audience: credentials.audience,
            access_token_seconds: credentials.access_token_minutes * 60,
            cache: CacheConfig::default(),
            passwords: Arc::new(PasswordHashing::default().hasher()?),
            plans: Arc::new(plans),
            settings: Arc::new(settings.map_err(|error| StoreError::Other(error.to_string()))?),
            permissions: Arc::default(),
            flags: Vec::new(),
            event_types: Arc::default(),
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(SystemIds),
        })
    }
}

/// Why the use cases cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The signing keys, issuer, audience or lifetime of access tokens.
    #[error(transparent)]
    Tokens(#[from] AccessTokensError),
    /// A setting is missing or has a value that is not allowed.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The cost of hashing.
    #[error(transparent)]
    Passwords(#[from] PasswordCostError),
    /// The rates of a plan.
    #[error(transparent)]
    Plans(#[from] RateError),
    /// A feature flag of the code.
    #[error(transparent)]
    Flags(#[from] CodeFlagError),
    /// A URL of the database, or a setting.
    #[error(transparent)]
    Store(#[from] StoreError),
}
