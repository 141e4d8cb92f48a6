use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::flags::{FlagDefinitions, FlagProgram, FlagSet, FlagSource};
use tenantry_domain::kernel::{Change, Clock, Memory, StoreError, SystemScope, TenantId};
use tenantry_domain::tenant::TenantScope;
use uuid::Uuid;

use crate::{CacheSettings, CacheStats, ConfigurationCache};

/// The definitions of flags, remembered once for everybody.
///
/// It is kept by [`CachedFlags`], which passes on what it hears.
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
    pub fn new(inner: Arc<dyn FlagDefinitions>, clock: Arc<dyn Clock>, settings: CacheSettings) -> Self {
        Self {
            inner,
            cache: ConfigurationCache::new(clock, halved(settings)),
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

/// The flags of each tenant, remembered. A change of a tenant's choices or plan is noticed for that tenant, a change of
/// the definitions for all of them.
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
    /// A memory before `inner`, which puts together what holds in a tenant out of these definitions.
    pub fn new(
        definitions: Arc<CachedDefinitions>,
        inner: Arc<dyn FlagSource>,
        clock: Arc<dyn Clock>,
        settings: CacheSettings,
    ) -> Self {
        Self {
            definitions,
            inner,
            cache: ConfigurationCache::new(clock, halved(settings)),
        }
    }

    /// How it does.
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

/// A set is made of definitions that are remembered themselves: each for half of the time, so that together it is no
/// longer than the settings say.
fn halved(settings: CacheSettings) -> CacheSettings {
    CacheSettings {
        ttl_ms: settings.ttl_ms.min(30_000) / 2,
        alone_ttl_ms: settings.alone_ttl_ms / 2,
        ..settings
    }
}

#[async_trait]
impl FlagSource for CachedFlags {
    async fn flags(&self, scope: &TenantScope) -> Result<Arc<FlagSet>, StoreError> {
        let load = || self.inner.flags(scope);
        Ok(Arc::clone(&*self.cache.get(scope.tenant(), load).await?))
    }

    fn remembered(&self, scope: &TenantScope) -> Option<Arc<FlagSet>> {
        let set = self.cache.remembered(scope.tenant())?;
        Some(Arc::clone(&*set))
    }
}

impl Memory for CachedFlags {
    /// The definitions first: a set that is put together from now on must not find the old ones.
    fn forget(&self, change: Change) {
        self.definitions.cache.forget(change);
        self.cache.forget(change);
    }

    fn hears(&self, others: bool) {
        self.definitions.cache.hears(others);
        self.cache.hears(others);
    }
}
