//! Turns to run transactions of the dispatcher: few at once, and one of each tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::kernel::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Bounds the transactions of the dispatcher. A transaction may wait for a connection of its tenant or for a row of it: with one transaction
/// of each tenant at once, it waits with one place, and the other places serve other tenants.
pub(crate) struct TransactionTurns {
    all: Semaphore,
    of_tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a TransactionTurns,
    tenant: TenantId,
    of_all: Option<SemaphorePermit<'a>>,
    of_tenant: Option<OwnedSemaphorePermit>,
}

impl TransactionTurns {
    /// So many transactions at once, one at least.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            all: Semaphore::new(most.max(1)),
            of_tenants: Mutex::default(),
        }
    }

    /// Waits for a turn of a tenant. The tenant's own turn comes first, so that its transactions wait for each other without a place.
    pub(crate) async fn take(&self, tenant: TenantId) -> Turn<'_> {
        let own = Arc::clone(
            self.of_tenants()
                .entry(tenant)
                .or_insert_with(|| Arc::new(Semaphore::new(1))),
        );
        let mut turn = Turn {
            turns: self,
            tenant,
            of_all: None,
            of_tenant: None,
        };
        // The semaphores are never closed.
        turn.of_tenant = own.acquire_owned().await.ok();
        turn.of_all = self.all.acquire().await.ok();
        turn
    }

    fn of_tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Semaphore>>> {
        self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    /// The last one of a tenant removes its semaphore.
    fn drop(&mut self) {
        self.of_all = None;
        self.of_tenant = None;
        let mut of_tenants = self.turns.of_tenants();
        let is_last = of_tenants
            .get(&self.tenant)
            .is_some_and(|own| Arc::strong_count(own) == 1);
        if is_last {
            of_tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use uuid::Uuid;

    use super::*;

    /// A tenant whose transaction waits leaves the other places to other tenants, however many of its lanes wait.
    #[tokio::test]
    async fn tenant_takes_one_place_of_transactions() {
        let [acme, globex] = [1, 2].map(|id| TenantId::from(Uuid::from_u128(id)));
        let turns = TransactionTurns::new(2);
        {
            let lasting = turns.take(acme).await;
            let mut second = pin!(turns.take(acme));
            assert!(poll!(second.as_mut()).is_pending());
            assert!(poll!(pin!(turns.take(globex))).is_ready());
            drop(lasting);
            assert!(poll!(second).is_ready());
        }
        assert!(
            turns.of_tenants().is_empty(),
            "nothing is left of tenants without a turn"
        );
    }
}
