use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenantry_domain::kernel::{Announcer, Change, Memory};
use tokio::sync::Notify;

use crate::{Channel, Redis};

/// The channel's name.
const NAME: &str = "tenantry:changes";

/// How long to wait before telling again after a failure.
const WAIT: Duration = Duration::from_millis(100);

/// Announces changes in this process at once, and to all other instances through Redis.
///
/// What cannot be told because Redis is away is told when it is back. Instances that hear nothing remember for a short time
/// only ([`Memory::hears`]), so an outage of Redis makes no revocation late. An instance that alone is cut off from Redis is
/// the one case in which others notice its changes later: when it is back, or when their time is over.
#[derive(Clone)]
pub struct Announcements {
    memory: Arc<dyn Memory>,
    channel: Channel,
    untold: Arc<Untold>,
}

/// How many changes wait at the most. After that it is said that everything may have changed.
const WAITING: usize = 1_000;

#[derive(Default)]
struct Untold {
    /// `None` stands for all there is. The first one may be on its way.
    changes: Mutex<VecDeque<Option<Change>>>,
    more: Notify,
    fewer: Notify,
}

impl std::fmt::Debug for Announcements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcements")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl Announcements {
    /// Announcements to this memory and to those of all instances over the same Redis.
    pub fn new(redis: Redis, memory: Arc<dyn Memory>) -> Self {
        Self {
            memory,
            channel: Channel::new(redis, NAME),
            untold: Arc::default(),
        }
    }

    /// Whether changes of other instances are heard of now.
    pub fn is_live(&self) -> bool {
        self.channel.is_live()
    }

    /// Tells and hears, for as long as it is polled; it never ends. [`Redis::keep`] has to run too.
    pub async fn run(self) {
        let (memory, told) = (Arc::clone(&self.memory), Arc::clone(&self.memory));
        let listening = self.channel.listen(move |message| match read(message) {
            Some(change) => memory.forget(change),
            // Everything; or somebody speaks the language of another version, and nothing is certain any more.
            None => memory.hears(true),
        });
        let mut live = self.channel.live();
        let watching = async move {
            loop {
                told.hears(*live.borrow_and_update());
                if live.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(listening, watching, self.tell());
    }

    /// Waits until everything has been told, but for no longer than that; for commands, which end.
    pub async fn told(&self, patience: Duration) {
        let all = async {
            while self.next().is_some() {
                self.untold.fewer.notified().await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("other instances could not be told, they will notice by themselves");
        }
    }

    async fn tell(&self) {
        loop {
            let Some(change) = self.next() else {
                self.untold.more.notified().await;
                continue;
            };
            let Ok(message) = serde_json::to_vec(&change) else {
                continue;
            };
            if self.channel.publish(message).await.is_ok() {
                self.changes().pop_front();
                self.untold.fewer.notify_one();
            } else {
                tokio::time::sleep(WAIT).await;
            }
        }
    }

    fn next(&self) -> Option<Option<Change>> {
        self.changes().front().copied()
    }

    fn untold(&self, change: Change) {
        let mut changes = self.changes();
        let covers = |waiting: &Option<Change>| waiting.is_none_or(|waiting| waiting == change);
        if changes.iter().skip(1).any(covers) {
            return;
        }
        if changes.len() < WAITING {
            changes.push_back(Some(change));
        } else {
            changes.truncate(1);
            changes.push_back(None);
        }
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, VecDeque<Option<Change>>> {
        self.untold.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcer for Announcements {
    fn announce(&self, change: Change) {
        self.memory.forget(change);
        self.untold(change);
        self.untold.more.notify_one();
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

    impl Memory for Nothing {
        fn forget(&self, _: Change) {}
        fn hears(&self, _: bool) {}
    }

    fn announcements() -> Announcements {
        let redis = Redis::new("redis://127.0.0.1:1", Duration::from_millis(1)).unwrap();
        Announcements::new(redis, Arc::new(Nothing))
    }

    fn change(number: u128) -> Change {
        Change::User(Uuid::from_u128(1).into(), Uuid::from_u128(number).into())
    }

    #[test]
    fn what_waits_is_told_once_and_what_is_on_its_way_again() {
        let announcements = announcements();
        for number in [1, 2, 2, 1, 1] {
            announcements.announce(change(number));
        }
        let waiting: Vec<_> = announcements.changes().iter().copied().collect();
        assert_eq!(waiting, [1, 2, 1].map(|number| Some(change(number))));
    }

    #[test]
    fn when_too_much_waits_everything_may_have_changed() {
        let announcements = announcements();
        for number in 0..5_000 {
            announcements.announce(change(number));
        }
        let waiting: Vec<_> = announcements.changes().iter().copied().collect();
        assert_eq!(waiting, [Some(change(0)), None]);
    }

    #[test]
    fn what_cannot_be_read_may_be_anything() {
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
