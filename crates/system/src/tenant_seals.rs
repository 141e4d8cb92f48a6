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
