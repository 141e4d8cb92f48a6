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

/// The most invalidations that are published in one round trip.
const MOST_AT_ONCE: usize = 100;

#[derive(Default)]
struct Pending {
    queue: Mutex<Queue>,
    added: Notify,
    published: Notify,
}

#[derive(Default)]
struct Queue {
    /// `None` stands for everything.
    changes: VecDeque<Option<Change>>,
    /// So many of the first are on their way: a change that was made again since then has to be published again.
    in_flight: usize,
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
            while !self.is_empty() {
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
            let batch = self.batch();
            if batch.is_empty() {
                self.pending.added.notified().await;
            } else if self.channel.publish_all(&batch).await.is_ok() {
                self.published();
            } else {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// The messages that are published next. They stay in the queue until they are.
    fn batch(&self) -> Vec<Vec<u8>> {
        let mut queue = self.queue();
        queue.in_flight = queue.changes.len().min(MOST_AT_ONCE);
        let next = queue.changes.iter().take(queue.in_flight);
        // Ids and names of variants always have a form in JSON; without one the message would stand for everything.
        next.map(|change| serde_json::to_vec(change).unwrap_or_default())
            .collect()
    }

    /// Removes the messages that were on their way.
    fn published(&self) {
        let mut queue = self.queue();
        let count = std::mem::take(&mut queue.in_flight);
        queue.changes.drain(..count);
        drop(queue);
        self.pending.published.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.queue().changes.is_empty()
    }

    fn add(&self, change: Change) {
        let mut queue = self.queue();
        let in_flight = queue.in_flight;
        let covers = |pending: &Option<Change>| pending.is_none_or(|pending| pending == change);
        if queue.changes.iter().skip(in_flight).any(covers) {
            return;
        }
        if queue.changes.len() < MOST_PENDING {
            queue.changes.push_back(Some(change));
        } else {
            queue.changes.truncate(in_flight);
            queue.changes.push_back(None);
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.pending.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn pending(invalidations: &Invalidations) -> Vec<Option<Change>> {
        invalidations.queue().changes.iter().copied().collect()
    }

    #[test]
    fn pending_changes_are_published_once_and_those_in_flight_again() {
        let invalidations = invalidations();
        for number in [1, 2, 2, 1] {
            invalidations.publish(change(number));
        }
        assert_eq!(invalidations.batch().len(), 2);
        for number in [2, 3, 2, 3] {
            invalidations.publish(change(number));
        }
        let all = [1, 2, 2, 3].map(|number| Some(change(number)));
        assert_eq!(pending(&invalidations), all);
        invalidations.published();
        assert_eq!(pending(&invalidations), all[2..]);
    }

    #[test]
    fn too_many_pending_changes_become_one_for_everything() {
        let invalidations = invalidations();
        invalidations.publish(change(0));
        assert_eq!(invalidations.batch().len(), 1);
        for number in 1..5_000 {
            invalidations.publish(change(number));
        }
        assert_eq!(pending(&invalidations), [Some(change(0)), None]);
        invalidations.published();
        assert_eq!(pending(&invalidations), [None]);
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
