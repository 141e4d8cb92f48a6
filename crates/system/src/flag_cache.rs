use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::flags::{FlagDefinitions, FlagProgram, FlagSet, FlagSource};
use tenantry_domain::kernel::{Change, Clock, InvalidatedCache, StoreError, SystemScope, TenantId};
use tenantry_domain::tenant::TenantScope;
use uuid::Uuid;

use crate::{CacheConfig, CacheStats, ConfigurationCache};

/// A cache of the definitions of flags, one for all tenants.
///
/// [`CachedFlags`] holds it and passes invalidations on to it.
pub struct CachedDefinitions {
    inner: Arc<dyn FlagDefinitions>,
    cache: ConfigurationCache<Arc<FlagProgram>>,
}

impl std::fmt::Debug for CachedDefinitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CachedDefinitions").field(&self.cache).finish()
    }
}

impl CachedDefinitions {
    /// A memory before the definitions as they are stored.
    pub fn new(inner: Arc<dyn FlagDefinitions>, clock: Arc<dyn Clock>, config: CacheConfig) -> Self {
        Self {
            inner,
            cache: ConfigurationCache::new(clock, halved(config)),
        }
    }
}

/// Under this key, which is no tenant's, is what all tenants have in common.
fn everybody() -> TenantId {
    Uuid::nil().into()
}

#[async_trait]
impl FlagDefinitions for CachedDefinitions {
    async fn program(&self, because: SystemScope) -> Result<Arc<FlagProgram>, StoreError> {
        let load = || self.inner.program(because);
        Ok(Arc::clone(&*self.cache.get(everybody(), load).await?))
    }
}

/// A cache of each tenant's flags. A change of a tenant's choices or plan invalidates that tenant's, a change of
/// the definitions those of all tenants.
pub struct CachedFlags {
    definitions: Arc<CachedDefinitions>,
    inner: Arc<dyn FlagSource>,
    cache: ConfigurationCache<Arc<FlagSet>>,
}

impl std::fmt::Debug for CachedFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CachedFlags").field(&self.cache).finish()
    }
}

impl CachedFlags {
    /// An empty cache before `inner`, which derives the flags of a tenant from these definitions.
    pub fn new(
        definitions: Arc<CachedDefinitions>,
        inner: Arc<dyn FlagSource>,
        clock: Arc<dyn Clock>,
        config: CacheConfig,
    ) -> Self {
        Self {
            definitions,
            inner,
            cache: ConfigurationCache::new(clock, halved(config)),
        }
    }

    /// Hits, loads and size.
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

/// Sets are derived from definitions that are cached themselves: each has half of the TTL, so that the sum is not
/// longer than the settings say.
fn halved(config: CacheConfig) -> CacheConfig {
    CacheConfig {
        ttl_ms: config.ttl_ms.min(30_000) / 2,
        alone_ttl_ms: config.alone_ttl_ms / 2,
        ..config
    }
}

#[async_trait]
impl FlagSource for CachedFlags {
    async fn flags(&self, scope: &TenantScope) -> Result<Arc<FlagSet>, StoreError> {
        let load = || self.inner.flags(scope);
        Ok(Arc::clone(&*self.cache.get(scope.tenant(), load).await?))
    }

    fn cached(&self, scope: &TenantScope) -> Option<Arc<FlagSet>> {
        let set = self.cache.cached(scope.tenant())?;
        Some(Arc::clone(&*set))
    }
}

impl InvalidatedCache for CachedFlags {
    /// The definitions first: a set that is put together from now on must not find the old ones.
    fn invalidate(&self, change: Change) {
        self.definitions.cache.invalidate(change);
        self.cache.invalidate(change);
    }

    fn set_live(&self, live: bool) {
        self.definitions.cache.set_live(live);
        self.cache.set_live(live);
    }
}
