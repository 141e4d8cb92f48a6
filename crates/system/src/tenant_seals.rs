use std::sync::Arc;

use tenantry_domain::kernel::{Change, Clock, InvalidatedCache, TenantId, Time};
use tenantry_domain::tenant::{SealEpoch, TenantSeal, TenantSeals};

use crate::epochs::Epochs;
use crate::single_flight::{BoundedCache, bounded_cache};

/// A seal is never used for longer than this after it was loaded, in milliseconds. A former data key is destroyed days later, so
/// no server seals under a key that is gone.
const LONGEST_MS: i64 = 60_000;

/// A bounded cache of the seals of tenants in this process. A change of a tenant, of its data keys or of its configuration
/// invalidates its entry.
///
/// Callers load with the transaction that they have open: a load that waited for another connection could wait for itself.
pub struct CachedTenantSeals {
    clock: Arc<dyn Clock>,
    epochs: Epochs,
    entries: BoundedCache<TenantId, Arc<Entry>>,
}

struct Entry {
    seal: Arc<TenantSeal>,
    epoch: SealEpoch,
    kept_at: Time,
}

impl std::fmt::Debug for CachedTenantSeals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedTenantSeals")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl CachedTenantSeals {
    /// An empty cache of at most about so many tenants.
    pub fn new(clock: Arc<dyn Clock>, entries: u64) -> Self {
        Self {
            clock,
            epochs: Epochs::default(),
            entries: bounded_cache(entries),
        }
    }
}

impl TenantSeals for CachedTenantSeals {
    fn cached(&self, tenant: TenantId) -> Option<Arc<TenantSeal>> {
        let entry = self.entries.get(&tenant)?;
        let age = (self.clock.now() - entry.kept_at).num_milliseconds();
        // A clock that was set back makes nothing younger.
        let is_fresh = entry.epoch == self.epoch(tenant) && (0..LONGEST_MS).contains(&age);
        is_fresh.then(|| Arc::clone(&entry.seal))
    }

    fn epoch(&self, tenant: TenantId) -> SealEpoch {
        SealEpoch(self.epochs.of_configuration(tenant).sum())
    }

    fn keep(&self, epoch: SealEpoch, seal: &Arc<TenantSeal>) {
        let tenant = seal.tenant();
        if epoch == self.epoch(tenant) {
            let entry = Entry {
                seal: Arc::clone(seal),
                epoch,
                kept_at: self.clock.now(),
            };
            self.entries.insert(tenant, Arc::new(entry));
        }
    }
}

impl InvalidatedCache for CachedTenantSeals {
    fn invalidate(&self, change: Change) {
        self.epochs.advance_configuration(change, self.clock.now());
        if let Change::Tenant(tenant) | Change::Configuration(tenant) = change {
            self.entries.remove(&tenant);
        }
    }

    /// Entries expire within a minute in any case.
    fn set_live(&self, _: bool) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use chrono::{Duration, TimeZone as _, Utc};
    use tenantry_domain::kernel::Seal as _;
    use tenantry_domain::tenant::DataKey;
    use uuid::Uuid;

    use super::*;
    use crate::AeadSeal;

    struct StandingClock(Mutex<Time>);

    impl Clock for StandingClock {
        fn now(&self) -> Time {
            *self.0.lock().unwrap()
        }
    }

    fn world() -> (Arc<StandingClock>, CachedTenantSeals) {
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let clock = Arc::new(StandingClock(Mutex::new(start)));
        (clock.clone(), CachedTenantSeals::new(clock, 10))
    }

    fn tenant(number: u128) -> TenantId {
        Uuid::from_u128(number).into()
    }

    fn seal_of(tenant: TenantId) -> Arc<TenantSeal> {
        let server = Arc::new(AeadSeal::new(&[7; 32]));
        let key = DataKey {
            number: 1,
            sealed: server.new_data_key(&DataKey::place(tenant, 1)),
            created_at: Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap(),
        };
        Arc::new(TenantSeal::new(tenant, server, &[key]))
    }

    #[test]
    fn seal_is_cached_for_its_tenant_and_a_minute() {
        let (clock, cache) = world();
        cache.keep(cache.epoch(tenant(1)), &seal_of(tenant(1)));
        assert_eq!(cache.cached(tenant(1)).unwrap().tenant(), tenant(1));
        assert!(cache.cached(tenant(2)).is_none());
        *clock.0.lock().unwrap() += Duration::milliseconds(LONGEST_MS - 1);
        assert!(cache.cached(tenant(1)).is_some());
        *clock.0.lock().unwrap() += Duration::milliseconds(1);
        assert!(cache.cached(tenant(1)).is_none());
    }

    #[test]
    fn change_invalidates_also_a_load_that_is_under_way() {
        let (_, cache) = world();
        for change in [Change::Tenant(tenant(1)), Change::Configuration(tenant(1))] {
            let epoch = cache.epoch(tenant(1));
            cache.keep(epoch, &seal_of(tenant(1)));
            assert!(cache.cached(tenant(1)).is_some());
            cache.invalidate(change);
            assert!(cache.cached(tenant(1)).is_none());
            cache.keep(epoch, &seal_of(tenant(1)));
            assert!(cache.cached(tenant(1)).is_none(), "loaded before the change");
        }
    }

    #[test]
    fn newest_key_that_opens_seals_and_others_open() {
        let tenant = tenant(1);
        let server: Arc<AeadSeal> = Arc::new(AeadSeal::new(&[7; 32]));
        let key = |number: i32, by: &AeadSeal| DataKey {
            number,
            sealed: by.new_data_key(&DataKey::place(tenant, number)),
            created_at: Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap(),
        };
        let stranger = AeadSeal::new(&[8; 32]);
        let (one, two, lost) = (key(1, &server), key(2, &server), key(3, &stranger));
        let of = |keys: &[DataKey]| TenantSeal::new(tenant, server.clone(), keys);
        let (first, both) = (
            of(std::slice::from_ref(&one)),
            of(&[one.clone(), two.clone(), lost]),
        );
        let (by_one, by_two) = (first.seal("here", b"text"), both.seal("here", b"text"));
        assert_eq!((both.current(), both.unreadable().collect()), (Some(2), vec![3]));
        assert_eq!(by_two[..8], DataKey::prefix(2));
        assert_eq!(both.open("here", &by_one).as_deref(), Some(&b"text"[..]));
        assert!(!both.is_current("here", &by_one) && both.is_current("here", &by_two));
        assert_eq!(first.open("here", &by_two), None);
        assert!(first.lacks_key_of(&by_two) && !both.lacks_key_of(&by_two));
        // Under the number of the other key, or in another place, it does not open.
        let swapped = [&DataKey::prefix(2)[..], &by_one[8..]].concat();
        assert_eq!(both.open("here", &swapped), None);
        assert_eq!(both.open("there", &by_two), None);
        let digest = first.digest("here", b"text");
        assert!(both.is_digest("here", b"text", &digest) && !both.is_digest("there", b"text", &digest));
        // Values of the server's key, from before there were data keys.
        let former = of(&[]).seal("here", b"text");
        assert_eq!(both.open("here", &former).as_deref(), Some(&b"text"[..]));
        assert!(!both.is_current("here", &former) && of(&[]).is_current("here", &former));
    }
}
