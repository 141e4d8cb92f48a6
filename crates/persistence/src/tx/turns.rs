use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::{StoreError, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections of a pool one tenant may use at once, so that none can keep all others waiting.
///
/// Whoever wants more waits behind the same tenant's own requests, and not in front of the pool. There is an entry only
/// for each tenant that uses or wants a connection just now.
#[derive(Debug)]
pub(super) struct Turns {
    each: usize,
    /// How many requests of one tenant wait at the most; the next one is refused at once.
    queue: usize,
    tenants: Mutex<HashMap<TenantId, Tenant>>,
}

#[derive(Debug)]
struct Tenant {
    connections: Arc<Semaphore>,
    /// How many have one or wait for one.
    interested: usize,
}

/// A tenant's leave to use one connection.
pub(super) struct Turn {
    // In this order: the permit goes to the next one before the entry may go.
    _permit: OwnedSemaphorePermit,
    _interest: Interest,
}

/// Somebody who has a connection or waits for one.
struct Interest {
    turns: Arc<Turns>,
    tenant: TenantId,
}

impl Turns {
    /// `each` connections for a tenant, at least one, and a queue of so many.
    pub(super) fn new(each: usize, queue: usize) -> Self {
        Self {
            each: each.max(1),
            queue,
            tenants: Mutex::default(),
        }
    }

    /// Waits until the tenant may use another connection.
    pub(super) async fn take(self: &Arc<Self>, tenant: TenantId) -> Result<Turn, StoreError> {
        let (connections, interest) = self.line_up(tenant)?;
        let permit = connections.acquire_owned().await;
        Ok(Turn {
            _permit: permit.map_err(|error| StoreError::Other(error.to_string()))?,
            _interest: interest,
        })
    }

    fn line_up(self: &Arc<Self>, tenant: TenantId) -> Result<(Arc<Semaphore>, Interest), StoreError> {
        let mut tenants = self.tenants();
        let entry = tenants.entry(tenant).or_insert_with(|| Tenant {
            connections: Arc::new(Semaphore::new(self.each)),
            interested: 0,
        });
        if entry.interested >= self.each + self.queue {
            let problem = "too many requests of this tenant wait for the database";
            return Err(StoreError::Unavailable(problem.into()));
        }
        entry.interested += 1;
        let interest = Interest {
            turns: Arc::clone(self),
            tenant,
        };
        Ok((Arc::clone(&entry.connections), interest))
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Tenant>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut tenants = self.turns.tenants();
        if let Some(entry) = tenants.get_mut(&self.tenant) {
            entry.interested -= 1;
            if entry.interested == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        Uuid::from_u128(number).into()
    }

    /// The turn, if it is to be had without waiting.
    fn at_once(turns: &Arc<Turns>, number: u128) -> Option<Result<Turn, StoreError>> {
        let take = pin!(turns.take(tenant(number)));
        match take.poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(turn) => Some(turn),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn a_tenant_gets_its_part_and_another_tenant_its_own() {
        let turns = Arc::new(Turns::new(2, 10));
        let held: Vec<_> = (0..2).map(|_| at_once(&turns, 1).unwrap().unwrap()).collect();
        assert!(at_once(&turns, 1).is_none());
        assert!(at_once(&turns, 2).is_some());
        drop(held);
        assert!(at_once(&turns, 1).is_some());
        assert!(turns.tenants().is_empty(), "nobody is interested any more");
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_next_one_and_nobody_waits_behind_a_full_queue() {
        let turns = Arc::new(Turns::new(1, 1));
        let first = turns.take(tenant(1)).await.unwrap();
        let mut second = Box::pin(turns.take(tenant(1)));
        assert!(
            second
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        assert!(matches!(
            turns.take(tenant(1)).await,
            Err(StoreError::Unavailable(_))
        ));
        drop(first);
        let second = second.await.unwrap();
        let waiting = Box::pin(turns.take(tenant(1)));
        drop(waiting);
        drop(second);
        assert!(turns.tenants().is_empty());
    }
}
