use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::customization::{Configurations, TenantConfiguration};
use tenantry_domain::kernel::{Change, Clock, InvalidatedCache, StoreError, TenantId};
use tenantry_domain::tenant::TenantScope;

use crate::{CacheConfig, CacheStats, ConfigurationCache};

/// Configurations that were read a moment ago, by tenant and by nothing else.
pub struct CachedConfigurations {
    stored: Arc<dyn Configurations>,
    cache: ConfigurationCache<TenantConfiguration>,
}

impl std::fmt::Debug for CachedConfigurations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cache.fmt(f)
    }
}

impl CachedConfigurations {
    /// Remembers what `stored` reads.
    pub fn new(stored: Arc<dyn Configurations>, clock: Arc<dyn Clock>, config: CacheConfig) -> Self {
        Self {
            stored,
            cache: ConfigurationCache::new(clock, config),
        }
    }

    /// How it does.
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

#[async_trait]
impl Configurations for CachedConfigurations {
    fn cached(&self, tenant: TenantId) -> Option<Arc<TenantConfiguration>> {
        self.cache.cached(tenant)
    }

    async fn of(&self, scope: &TenantScope) -> Result<Arc<TenantConfiguration>, StoreError> {
        let load = async || Ok(TenantConfiguration::clone(&*self.stored.of(scope).await?));
        self.cache.get(scope.tenant(), load).await
    }
}

impl InvalidatedCache for CachedConfigurations {
    fn invalidate(&self, change: Change) {
        self.cache.invalidate(change);
    }

    fn set_live(&self, live: bool) {
        self.cache.set_live(live);
    }
}
