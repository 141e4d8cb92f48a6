use std::sync::Arc;

use tenantry_domain::kernel::InvalidatedCache;
use tenantry_domain::store::Units;
use tenantry_persistence::{PgDirectory, PgFlags, PgUnits};
use tenantry_system::{
    CachedConfigurations, CachedDefinitions, CachedDirectory, CachedFlags, CachedTenantSeals,
};
use tenantry_tenancy::customization::setting::StoredConfigurations;
use tenantry_tenancy::flags::code_flag::CodeFlags;
use tenantry_tenancy::flags::flag::StoredFlags;

use crate::{Base, ComposeError};

/// What is cached of tenants.
#[derive(Clone)]
pub struct Caches {
    /// Memberships, API keys and names of tenants.
    pub directory: Arc<CachedDirectory>,
    /// Settings and branding.
    pub configurations: Arc<CachedConfigurations>,
    /// Feature flags.
    pub flags: Arc<CachedFlags>,
    /// Data keys.
    pub seals: Arc<CachedTenantSeals>,
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caches")
    }
}

impl Caches {
    /// Empty caches over the database.
    ///
    /// # Errors
    /// [`ComposeError::Flags`].
    pub fn new(base: &Base) -> Result<Self, ComposeError> {
        let clock = || Arc::clone(&base.clock);
        let directory = PgDirectory::new(base.runtime.clone(), base.platform.clone(), clock());
        // It only reads, so it publishes no invalidations.
        let reading = Units::new(Arc::new(PgUnits::new(
            base.runtime.clone(),
            Arc::new(()),
            clock(),
        )));
        let stored = Arc::new(PgFlags::new(base.platform.clone()));
        let with_code = Arc::new(CodeFlags::new(stored, base.flags.clone())?);
        let definitions = Arc::new(CachedDefinitions::new(with_code, clock(), base.cache));
        let in_tenants = Arc::new(StoredFlags::new(definitions.clone(), reading.clone()));
        let (settings, plans) = (Arc::clone(&base.settings), Arc::clone(&base.plans));
        let configurations = Arc::new(StoredConfigurations::new(reading, settings, plans));
        Ok(Self {
            directory: Arc::new(CachedDirectory::new(Arc::new(directory), clock(), base.cache)),
            configurations: Arc::new(CachedConfigurations::new(configurations, clock(), base.cache)),
            flags: Arc::new(CachedFlags::new(definitions, in_tenants, clock(), base.cache)),
            seals: Arc::new(CachedTenantSeals::new(clock(), base.cache.entries)),
        })
    }

    /// Returns the caches that take invalidations.
    pub fn invalidated(&self) -> [Arc<dyn InvalidatedCache>; 4] {
        [
            self.directory.clone(),
            self.configurations.clone(),
            self.flags.clone(),
            self.seals.clone(),
        ]
    }
}
