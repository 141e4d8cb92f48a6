//! How many events of a tenant one transaction publishes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tenantry_domain::kernel::TenantId;

/// The most events of one transaction.
pub(crate) const MOST_EVENTS: u32 = 500;

/// The most deliveries of webhooks that one transaction queues: each event may go to each endpoint.
const MOST_DELIVERIES: u64 = 2_000;

/// The batches of tenants whose last ones have failed: each failure halves them, so that a transaction that lasts longer than a timeout allows
/// does not stop the events of the tenant, and each success adds a quarter.
#[derive(Debug, Default)]
pub(crate) struct BatchSizes(Mutex<HashMap<TenantId, u32>>);

impl BatchSizes {
    /// Returns how many events the next transaction publishes, 1 at least.
    pub(crate) fn next(&self, tenant: TenantId, endpoints: u64) -> u32 {
        let most = MOST_DELIVERIES / endpoints.max(1);
        let most = u32::try_from(most).unwrap_or(MOST_EVENTS).clamp(1, MOST_EVENTS);
        self.sizes().get(&tenant).map_or(most, |size| most.min(*size))
    }

    /// A transaction with so many events has failed.
    pub(crate) fn note_failure(&self, tenant: TenantId, size: u32) {
        self.sizes().insert(tenant, (size / 2).max(1));
    }

    /// A transaction has committed.
    pub(crate) fn note_success(&self, tenant: TenantId) {
        let mut sizes = self.sizes();
        if let Some(size) = sizes.get_mut(&tenant) {
            *size += *size / 4 + 1;
            if *size >= MOST_EVENTS {
                sizes.remove(&tenant);
            }
        }
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<TenantId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn batch_is_bounded_by_events_and_deliveries() {
        let (sizes, tenant) = (BatchSizes::default(), Uuid::from_u128(1).into());
        let of = |endpoints| sizes.next(tenant, endpoints);
        assert_eq!([0, 1, 4, 5, 100, 5_000].map(of), [500, 500, 500, 400, 20, 1]);
    }

    #[test]
    fn failure_halves_the_batches_of_its_tenant_only() {
        let [acme, globex] = [1, 2].map(|id| TenantId::from(Uuid::from_u128(id)));
        let sizes = BatchSizes::default();
        sizes.note_failure(acme, sizes.next(acme, 100));
        assert_eq!((sizes.next(acme, 100), sizes.next(globex, 100)), (10, 20));
        for _ in 0..5 {
            sizes.note_failure(acme, sizes.next(acme, 100));
        }
        assert_eq!(sizes.next(acme, 1), 1);
        for _ in 0..100 {
            sizes.note_success(acme);
        }
        assert_eq!(sizes.next(acme, 1), 500);
        assert!(sizes.sizes().is_empty());
    }
}
