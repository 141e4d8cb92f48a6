use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tenantry_domain::kernel::{Change, Clock, InvalidatedCache, StoreError, TenantId, Time};

use crate::epochs::{Epoch, Epochs};
use crate::freshness::Freshness;
use crate::single_flight::SingleFlight;
use crate::{CacheConfig, CacheStats};

/// A tenant's configuration is never used for longer than this after it was loaded, in milliseconds.
const LONGEST_MS: i64 = 30_000;

/// A cache of what is derived from each tenant's configuration: its settings, its flags.
///
/// The key is the tenant and nothing else. Loads for the same tenant wait for one another. A loaded value is used until
/// a change of the tenant or of the catalogue invalidates it, or it expires. Callers that come after an invalidation never
/// get a load that began before it.
pub struct ConfigurationCache<V> {
    clock: Arc<dyn Clock>,
    epochs: Epochs,
    entries: SingleFlight<TenantId, Entry<V>>,
    freshness: Freshness,
    hits: AtomicU64,
    loads: AtomicU64,
}

struct Entry<V> {
    found: Result<Arc<V>, StoreError>,
    epoch: Epoch,
    loaded_at: Time,
}

impl<V> std::fmt::Debug for ConfigurationCache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigurationCache")
            .field("freshness", &self.freshness)
            .finish_non_exhaustive()
    }
}

impl<V: Send + Sync + 'static> ConfigurationCache<V> {
    /// An empty cache. The short TTL applies until [`InvalidatedCache::set_live`] says otherwise; no TTL is longer than thirty
    /// seconds.
    pub fn new(clock: Arc<dyn Clock>, config: CacheConfig) -> Self {
        let longest = CacheConfig {
            ttl_ms: config.ttl_ms.min(LONGEST_MS),
            ..config
        };
        Self {
            clock,
            freshness: Freshness::new(longest),
            epochs: Epochs::default(),
            entries: SingleFlight::new(config.entries),
            hits: AtomicU64::new(0),
            loads: AtomicU64::new(0),
        }
    }

    /// Returns the cached value of a tenant without waiting, if it is fresh.
    pub fn cached(&self, tenant: TenantId) -> Option<Arc<V>> {
        let entry = self.entries.get(&tenant)?;
        let found = self.holds(tenant, &entry).then(|| entry.found.clone())?.ok()?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// Returns a tenant's value: the cached one, or else that of `load`.
    ///
    /// # Errors
    /// Those of `load`, which are not cached.
    pub async fn get<F>(&self, tenant: TenantId, load: impl Fn() -> F) -> Result<Arc<V>, StoreError>
    where
        F: Future<Output = Result<V, StoreError>>,
    {
        if let Some(found) = self.cached(tenant) {
            return Ok(found);
        }
        let began = self.clock.now();
        let holds = |entry: &Entry<V>| self.holds(tenant, entry);
        let entry = self
            .entries
            .get_or_load(&tenant, holds, self.load(tenant, &load))
            .await;
        if entry.found.is_err() || entry.loaded_at >= began || self.holds(tenant, &entry) {
            return entry.found.clone();
        }
        // It was loaded for somebody who came before the last change.
        self.load(tenant, &load).await.found
    }

    /// How it does.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            loads: self.loads.load(Ordering::Relaxed),
            entries: self.entries.len(),
        }
    }

    async fn load<F>(&self, tenant: TenantId, load: &impl Fn() -> F) -> Entry<V>
    where
        F: Future<Output = Result<V, StoreError>>,
    {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let (epoch, loaded_at) = (self.epochs.of_configuration(tenant), self.clock.now());
        let found = load().await.map(Arc::new);
        Entry {
            found,
            epoch,
            loaded_at,
        }
    }

    fn holds(&self, tenant: TenantId, entry: &Entry<V>) -> bool {
        let now = self.clock.now();
        let quiet_for = self.epochs.quiet_for(tenant, None, now);
        entry.found.is_ok()
            && entry.epoch == self.epochs.of_configuration(tenant)
            && self.freshness.is_young(entry.loaded_at, true, quiet_for, now)
    }
}

impl<V: Send + Sync + 'static> InvalidatedCache for ConfigurationCache<V> {
    fn invalidate(&self, change: Change) {
        self.epochs.advance_configuration(change, self.clock.now());
    }

    fn set_live(&self, live: bool) {
        self.freshness.set_live(live, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use chrono::{Duration, TimeZone as _, Utc};
    use tenantry_domain::kernel::UserId;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::*;

    struct StandingClock(Mutex<Time>);

    impl Clock for StandingClock {
        fn now(&self) -> Time {
            *self.0.lock().unwrap()
        }
    }

    struct World {
        clock: Arc<StandingClock>,
        cache: ConfigurationCache<(TenantId, u64)>,
        stored: AtomicU64,
    }

    impl World {
        fn new() -> Self {
            let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
            let clock = Arc::new(StandingClock(Mutex::new(start)));
            let cache = ConfigurationCache::new(clock.clone(), CacheConfig::default());
            Self {
                clock,
                cache,
                stored: AtomicU64::new(0),
            }
        }

        async fn get(&self, tenant: TenantId) -> u64 {
            let load = || async { Ok((tenant, self.stored.load(Ordering::SeqCst))) };
            let found = self.cache.get(tenant, load).await.unwrap();
            assert_eq!(found.0, tenant, "it is another tenant's");
            found.1
        }

        fn pass(&self, milliseconds: i64) {
            *self.clock.0.lock().unwrap() += Duration::milliseconds(milliseconds);
        }
    }

    fn tenant(number: u128) -> TenantId {
        Uuid::from_u128(number).into()
    }

    #[tokio::test]
    async fn what_is_loaded_is_used_until_its_time_is_over() {
        let world = World::new();
        assert_eq!(world.get(tenant(1)).await, 0);
        world.stored.store(1, Ordering::SeqCst);
        world.pass(999);
        assert_eq!(world.get(tenant(1)).await, 0);
        world.pass(1);
        assert_eq!(
            world.get(tenant(1)).await,
            1,
            "a second, while no invalidations arrive"
        );
        world.cache.set_live(true);
        world.pass(1_000);
        world.stored.store(2, Ordering::SeqCst);
        assert_eq!(
            world.get(tenant(1)).await,
            2,
            "loaded before invalidations arrived"
        );
        world.stored.store(3, Ordering::SeqCst);
        world.pass(LONGEST_MS - 1);
        assert_eq!(world.get(tenant(1)).await, 2);
        world.pass(1);
        assert_eq!(world.get(tenant(1)).await, 3, "never longer than thirty seconds");
    }

    #[tokio::test]
    async fn invalidation_is_seen_at_once_by_those_it_concerns() {
        let world = World::new();
        for (change, first, second) in [
            (Change::Configuration(tenant(1)), true, false),
            (Change::Tenant(tenant(2)), false, true),
            (Change::Catalogue, true, true),
            (
                Change::User(tenant(1), UserId::from(Uuid::from_u128(9))),
                false,
                false,
            ),
        ] {
            let before = (world.get(tenant(1)).await, world.get(tenant(2)).await);
            let now = world.stored.fetch_add(1, Ordering::SeqCst) + 1;
            world.cache.invalidate(change);
            let expected = (
                if first { now } else { before.0 },
                if second { now } else { before.1 },
            );
            assert_eq!(
                (world.get(tenant(1)).await, world.get(tenant(2)).await),
                expected,
                "{change:?}"
            );
        }
    }

    #[tokio::test]
    async fn overtaken_loads_and_errors_are_not_cached() {
        let world = World::new();
        let gate = Semaphore::new(0);
        let slow = || async {
            let seen = world.stored.load(Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            Ok((tenant(1), seen))
        };
        let change = async {
            world.stored.store(5, Ordering::SeqCst);
            world.cache.invalidate(Change::Configuration(tenant(1)));
            gate.add_permits(1);
        };
        let (first, ()) = tokio::join!(world.cache.get(tenant(1), slow), change);
        assert_eq!(
            first.unwrap().1,
            0,
            "a caller that asked before the change may get the former value"
        );
        assert!(world.cache.cached(tenant(1)).is_none());
        assert_eq!(world.get(tenant(1)).await, 5);

        let failing = || async { Err(StoreError::Unavailable("gone".into())) };
        assert!(world.cache.get(tenant(2), failing).await.is_err());
        assert_eq!(world.get(tenant(2)).await, 5);
    }
}
