//! Looks up many hosts with one statement, for questions that anybody can cause.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use tenantry_domain::kernel::StoreError;
use tenantry_domain::tenant::{Capability, TenantSelector};
use tokio::sync::oneshot::{self, Receiver, Sender, error::TryRecvError};

use crate::Tenancy;

/// How many hosts one statement looks up.
const AT_ONCE: usize = 2_000;

/// Hosts that wait to be looked up in the store.
///
/// One statement at a time looks up all that wait, so a flood of made-up names costs the store one connection, and a host that is
/// served waits for two statements, not for a place that made-up names have taken. How many wait is bounded by the connections of the
/// listener, on each of which one question is open.
#[derive(Default)]
pub(crate) struct HostLookups {
    waiting: Mutex<VecDeque<Waiting>>,
    /// Held by the question that looks up for all.
    turn: tokio::sync::Mutex<()>,
}

/// A host, and where the answer goes.
struct Waiting {
    host: TenantSelector,
    answer: Sender<Result<bool, StoreError>>,
}

impl HostLookups {
    /// Whether a host leads to a tenant whose requests are served.
    pub(crate) async fn is_served(&self, app: &Tenancy, host: &TenantSelector) -> Result<bool, StoreError> {
        let mut answer = self.enqueue(host);
        loop {
            let _turn = self.turn.lock().await;
            match answer.try_recv() {
                Ok(found) => return found,
                Err(TryRecvError::Empty) => self.look_up_next(app).await,
                // The question that looked it up was dropped meanwhile.
                Err(TryRecvError::Closed) => answer = self.enqueue(host),
            }
        }
    }

    fn enqueue(&self, host: &TenantSelector) -> Receiver<Result<bool, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(Waiting {
            host: host.clone(),
            answer: sender,
        });
        receiver
    }

    /// The hosts that have waited longest, without those that nobody waits for any more.
    fn next(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|one| !one.answer.is_closed());
        let count = waiting.len().min(AT_ONCE);
        waiting.drain(..count).collect()
    }

    async fn look_up_next(&self, app: &Tenancy) {
        let batch = self.next();
        let (mut labels, mut domains) = (HashSet::new(), HashSet::new());
        for one in &batch {
            match &one.host {
                TenantSelector::Subdomain(label) => {
                    labels.insert(label.clone());
                }
                TenantSelector::Domain(domain) => {
                    domains.insert(domain.clone());
                }
                TenantSelector::Id(_) | TenantSelector::Slug(_) => {}
            }
        }
        let (labels, domains): (Vec<_>, Vec<_>) =
            (labels.into_iter().collect(), domains.into_iter().collect());
        let found = app.ports.gate.find_by_hosts(&labels, &domains).await;
        let served = found.map(|found| -> HashSet<TenantSelector> {
            let served = found
                .into_iter()
                .filter(|(_, tenant)| tenant.status.allows(Capability::Login));
            served.map(|(host, _)| host).collect()
        });
        for Waiting { host, answer } in batch {
            let is_served = served
                .as_ref()
                .map(|served| served.contains(&host))
                .map_err(Clone::clone);
            // Nobody waits for it any more when this fails.
            let _ = answer.send(is_served);
        }
    }
}
