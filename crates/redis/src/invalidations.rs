use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenantry_domain::kernel::{Change, InvalidatedCache, InvalidationPublisher};
use tokio::sync::Notify;

use crate::{Channel, Redis};

/// The channel's name.
const NAME: &str = "tenantry:changes";

/// The pause before an invalidation is published again after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Publishes invalidations: to the caches of this process at once, and to all other instances through Redis.
///
/// Invalidations that cannot be published because Redis is away are published when it is back. Instances that receive none
/// keep cached values for a short time only ([`InvalidatedCache::set_live`]), so an outage of Redis delays no revocation. One
/// case is left: an instance that alone is cut off from Redis. Others see its changes when it is back, or when their cached
/// values expire.
#[derive(Clone)]
pub struct Invalidations {
    caches: Arc<dyn InvalidatedCache>,
    channel: Channel,
    pending: Arc<Pending>,
}

/// The most invalidations that wait. Beyond that, one message says that everything may have changed.
const MOST_PENDING: usize = 1_000;

#[derive(Default)]
struct Pending {
    /// `None` stands for everything. The first one may be on its way.
    changes: Mutex<VecDeque<Option<Change>>>,
    added: Notify,
    published: Notify,
}

impl std::fmt::Debug for Invalidations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invalidations")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl Invalidations {
    /// Invalidations of these caches and of those of all instances over the same Redis.
    pub fn new(redis: Redis, caches: Arc<dyn InvalidatedCache>) -> Self {
        Self {
            caches,
            channel: Channel::new(redis, NAME),
            pending: Arc::default(),
        }
    }

    /// Returns whether invalidations by other instances arrive now.
    pub fn is_live(&self) -> bool {
        self.channel.is_live()
    }

    /// Publishes and receives invalidations while it is polled; it never ends. [`Redis::keep`] has to run too.
    pub async fn run(self) {
        let (caches, watched) = (Arc::clone(&self.caches), Arc::clone(&self.caches));
        let listening = self.channel.listen(move |message| match read(message) {
            Some(change) => caches.invalidate(change),
            // Everything, or a message of another version that this one cannot read: every cached value may be stale.
            None => caches.set_live(true),
        });
        let mut live = self.channel.live();
        let watching = async move {
            loop {
                watched.set_live(*live.borrow_and_update());
                if live.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(listening, watching, self.publish_pending());
    }

    /// Waits until all pending invalidations are published, at most for `timeout`. For processes that are about to end.
    pub async fn flush(&self, timeout: Duration) {
        let all = async {
            while self.next().is_some() {
                self.pending.published.notified().await;
            }
        };
        if tokio::time::timeout(timeout, all).await.is_err() {
            tracing::warn!(
                "invalidations not published: cached values of other instances live until they expire"
            );
        }
    }

    async fn publish_pending(&self) {
        loop {
            let Some(change) = self.next() else {
                self.pending.added.notified().await;
                continue;
            };
            let Ok(message) = serde_json::to_vec(&change) else {
                continue;
            };
            if self.channel.publish(message).await.is_ok() {
                self.changes().pop_front();
                self.pending.published.notify_one();
            } else {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    fn next(&self) -> Option<Option<Change>> {
        self.changes().front().copied()
    }

    fn add(&self, change: Change) {
        let mut changes = self.changes();
        let covers = |pending: &Option<Change>| pending.is_none_or(|pending| pending == change);
        if changes.iter().skip(1).any(covers) {
            return;
        }
        if changes.len() < MOST_PENDING {
            changes.push_back(Some(change));
        } else {
            changes.truncate(1);
            changes.push_back(None);
        }
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, VecDeque<Option<Change>>> {
        self.pending
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl InvalidationPublisher for Invalidations {
    fn publish(&self, change: Change) {
        self.caches.invalidate(change);
        self.add(change);
        self.pending.added.notify_one();
    }
}

fn read(message: &[u8]) -> Option<Change> {
    serde_json::from_slice::<Option<Change>>(message).ok().flatten()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    struct Nothing;

    impl InvalidatedCache for Nothing {
        fn invalidate(&self, _: Change) {}
        fn set_live(&self, _: bool) {}
    }

    fn invalidations() -> Invalidations {
        let redis = Redis::new("redis://127.0.0.1:1", Duration::from_millis(1)).unwrap();
        Invalidations::new(redis, Arc::new(Nothing))
    }

    fn change(number: u128) -> Change {
        Change::User(Uuid::from_u128(1).into(), Uuid::from_u128(number).into())
    }

    #[test]
    fn pending_changes_are_published_once_and_one_in_flight_again() {
        let invalidations = invalidations();
        for number in [1, 2, 2, 1, 1] {
            invalidations.publish(change(number));
        }
        let waiting: Vec<_> = invalidations.changes().iter().copied().collect();
        assert_eq!(waiting, [1, 2, 1].map(|number| Some(change(number))));
    }

    #[test]
    fn too_many_pending_changes_become_one_for_everything() {
        let invalidations = invalidations();
        for number in 0..5_000 {
            invalidations.publish(change(number));
        }
        let waiting: Vec<_> = invalidations.changes().iter().copied().collect();
        assert_eq!(waiting, [Some(change(0)), None]);
    }

    #[test]
    fn unreadable_messages_stand_for_everything() {
        let tenant = Change::Tenant(Uuid::from_u128(1).into());
        for said in [tenant, change(7)] {
            assert_eq!(read(&serde_json::to_vec(&Some(said)).unwrap()), Some(said));
        }
        for message in [
            &b"null"[..],
            b"",
            b"{}",
            b"\xff",
            b"{\"tenant\":\"nobody\"}",
            b"[[[[[",
        ] {
            assert_eq!(read(message), None);
        }
    }
}
