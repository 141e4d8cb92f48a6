//! Signals and counts about deliveries of webhooks within this process. Signals only shorten waiting: what another process queues, and what a
//! signal misses, is found by looking.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::webhooks::{Backlog, DeliveryOutcome, DeliveryState};
use tokio::sync::Notify;

use crate::kernel::context::Tenancy;

/// Wakes the dispatcher when a delivery is queued, and counts what it has done.
#[derive(Debug, Default)]
pub struct DeliverySignals {
    queued: Notify,
    attempts: Mutex<BTreeMap<&'static str, u64>>,
    ended: Mutex<BTreeMap<&'static str, u64>>,
    in_flight: AtomicU64,
    backlog: Mutex<Backlog>,
}

impl Tenancy {
    /// Returns the signals and counts of deliveries of this process.
    pub fn delivery_signals(&self) -> Arc<DeliverySignals> {
        self.state()
    }
}

impl DeliverySignals {
    /// Deliveries may have been queued.
    pub(crate) fn note_queued(&self) {
        self.queued.notify_one();
    }

    /// Waits until a delivery is queued in this process. One that was queued since the last call ends the wait at once.
    pub(crate) async fn queued(&self) {
        self.queued.notified().await;
    }

    pub(crate) fn note_attempt(&self, outcome: &DeliveryOutcome) {
        *lock(&self.attempts).entry(outcome.name()).or_default() += 1;
    }

    /// So many deliveries have ended in a state, which is not pending.
    pub(crate) fn note_ended(&self, state: DeliveryState, count: u64) {
        if state != DeliveryState::Pending && count > 0 {
            *lock(&self.ended).entry(state.as_str()).or_default() += count;
        }
    }

    /// A request is in flight until the returned value is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> RequestInFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        RequestInFlight(Arc::clone(self))
    }

    pub(crate) fn measured(&self, backlog: Backlog) {
        *lock(&self.backlog) = backlog;
    }

    /// How many attempts this process has made, by the name of their outcome.
    pub fn attempts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.attempts).clone()
    }

    /// How many deliveries this process has ended, by their last state.
    pub fn ended(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.ended).clone()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What was due of all tenants when it was last measured.
    pub fn backlog(&self) -> Backlog {
        *lock(&self.backlog)
    }
}

/// Counts a request as long as it lives.
#[derive(Debug)]
pub(crate) struct RequestInFlight(Arc<DeliverySignals>);

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn dispatcher_is_woken_once_for_many_deliveries() {
        let signals = DeliverySignals::default();
        assert_eq!(signals.queued().now_or_never(), None);
        signals.note_queued();
        signals.note_queued();
        assert_eq!(signals.queued().now_or_never(), Some(()));
        assert_eq!(signals.queued().now_or_never(), None);
    }

    #[test]
    fn dropped_request_is_no_longer_in_flight() {
        let signals = Arc::new(DeliverySignals::default());
        let requests = [signals.begin_request(), signals.begin_request()];
        assert_eq!(signals.in_flight(), 2);
        drop(requests);
        assert_eq!(signals.in_flight(), 0);
        signals.note_ended(DeliveryState::Pending, 3);
        signals.note_ended(DeliveryState::Failed, 2);
        assert_eq!(signals.ended(), [("failed", 2)].into());
    }
}
