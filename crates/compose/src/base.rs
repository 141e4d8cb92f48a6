use std::sync::Arc;

use tenantry_billing::plans::{PlanBook, Plans, RateError};
use tenantry_domain::customization::SettingRegistry;
use tenantry_domain::identity::PasswordHasher;
use tenantry_domain::kernel::{Clock, IdSource, StoreError};
use tenantry_domain::plans::PlanCatalogue;
use tenantry_persistence::{PgPlanVersions, Pool, PoolSettings};
use tenantry_system::{
    AccessTokensError, Argon2Passwords, CacheSettings, PasswordCost, PasswordCostError, SigningKey,
    SystemClock, SystemIds,
};
use tenantry_tenancy::customization::product_settings;

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
    pub cache: CacheSettings,
    /// The hasher of passwords.
    pub passwords: Arc<dyn PasswordHasher>,
    /// Plans on offer.
    pub plans: Arc<dyn PlanCatalogue>,
    /// The settings that tenants have.
    pub settings: Arc<SettingRegistry>,
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
        let across_tenants = PoolSettings {
            size: 2,
            // Its few statements look across tenants, where one plan for all values is not always the best.
            generic_plans: false,
            ..PoolSettings::default()
        };
        let platform = Pool::new(platform, &across_tenants)?;
        let plans = PlanBook::new(Plans::standard())?;
        // It only reads, so it publishes no invalidations.
        plans.refresh_from(Arc::new(PgPlanVersions::new(platform.clone(), Arc::new(()))));
        let settings = SettingRegistry::new(product_settings::definitions());
        Ok(Self {
            runtime: Pool::new(runtime, &PoolSettings::default())?,
            platform,
            keys,
            issuer: "tenantry".into(),
            audience: "tenantry-api".into(),
            access_token_seconds: 15 * 60,
            cache: CacheSettings::default(),
            passwords: Arc::new(Argon2Passwords::new(PasswordCost::new(19_456, 2, 1)?, 2, 64)),
            plans: Arc::new(plans),
            settings: Arc::new(settings.map_err(|error| StoreError::Other(error.to_string()))?),
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
    /// The cost of hashing.
    #[error(transparent)]
    Passwords(#[from] PasswordCostError),
    /// The rates of a plan.
    #[error(transparent)]
    Plans(#[from] RateError),
    /// A URL of the database, or a setting.
    #[error(transparent)]
    Store(#[from] StoreError),
}
