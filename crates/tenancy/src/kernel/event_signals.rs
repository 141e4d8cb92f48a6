//! Signals about events within this process. They only shorten waiting: what another process does, and what a signal misses, is found by
//! looking.

use std::sync::Arc;

use tenantry_domain::kernel::TenantId;
use tokio::sync::{Notify, broadcast, watch};

use crate::kernel::context::Tenancy;

/// How many publications a slow reader may miss before it looks whatever they were about.
const KEPT: usize = 256;

/// Wakes the publisher when an event is recorded, and readers when events of their tenant are published.
#[derive(Debug)]
pub struct EventSignals {
    recorded: Notify,
    published: broadcast::Sender<TenantId>,
    count: watch::Sender<u64>,
    logged: watch::Sender<u64>,
}

impl Default for EventSignals {
    fn default() -> Self {
        let (published, _) = broadcast::channel(KEPT);
        Self {
            recorded: Notify::new(),
            published,
            count: watch::Sender::new(0),
            logged: watch::Sender::new(0),
        }
    }
}

impl Tenancy {
    /// Returns the signals about events of this process.
    pub fn event_signals(&self) -> Arc<EventSignals> {
        self.state()
    }
}

impl EventSignals {
    /// An event is being recorded: its transaction commits soon.
    pub(crate) fn note_recorded(&self) {
        self.recorded.notify_one();
    }

    /// Waits until an event is recorded in this process. One that was recorded since the last call ends the wait at once.
    pub async fn recorded(&self) {
        self.recorded.notified().await;
    }

    /// So many events of a tenant are in its feed.
    pub(crate) fn note_published(&self, tenant: TenantId, count: u64) {
        self.count.send_modify(|all| *all += count);
        // An error says that nobody waits.
        let _ = self.published.send(tenant);
    }

    /// How many events this process has published.
    pub fn published(&self) -> u64 {
        *self.count.borrow()
    }

    /// Notifies when events of any tenant are published in this process.
    pub fn publications(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Published events were added to the log of all tenants.
    pub(crate) fn note_logged(&self) {
        self.logged.send_modify(|count| *count += 1);
    }

    /// Notifies when this process adds published events to the log of all tenants.
    pub fn log(&self) -> watch::Receiver<u64> {
        self.logged.subscribe()
    }

    /// Begins to listen for publications.
    pub fn listen(&self) -> EventListener {
        EventListener(self.published.subscribe())
    }
}

/// Hears of publications from its creation on.
#[derive(Debug)]
pub struct EventListener(broadcast::Receiver<TenantId>);

impl EventListener {
    /// Waits until events of a tenant are published in this process.
    pub async fn published(&mut self, tenant: TenantId) {
        loop {
            match self.0.recv().await {
                Ok(other) if other != tenant => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The application is gone.
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn reader_is_woken_by_its_own_tenant() {
        let signals = EventSignals::default();
        let [one, two] = [1, 2].map(|id| TenantId::from(Uuid::from_u128(id)));
        signals.note_published(one, 1);
        let mut listener = signals.listen();
        assert_eq!(listener.published(one).now_or_never(), None);
        signals.note_published(two, 1);
        assert_eq!(listener.published(one).now_or_never(), None);
        signals.note_published(one, 1);
        assert_eq!(listener.published(one).now_or_never(), Some(()));
        assert_eq!(listener.published(one).now_or_never(), None);
        for _ in 0..=KEPT {
            signals.note_published(two, 1);
        }
        assert_eq!(listener.published(one).now_or_never(), Some(()));
        assert_eq!(signals.published(), 3 + KEPT as u64 + 1);
    }

    #[test]
    fn publisher_is_woken_once_for_many_events() {
        let signals = EventSignals::default();
        assert_eq!(signals.recorded().now_or_never(), None);
        signals.note_recorded();
        signals.note_recorded();
        assert_eq!(signals.recorded().now_or_never(), Some(()));
        assert_eq!(signals.recorded().now_or_never(), None);
    }
}
