use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::Value;
use deadpool_redis::redis::aio::PubSub;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::{Away, Redis};

/// How long to wait before subscribing again after a failure.
const WAIT: Duration = Duration::from_millis(200);

/// How often the subscription is asked whether it still works, and how long it may take to say so. A server that has
/// vanished without a word is noticed within the sum of both.
const LOOK_AFTER: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_millis(500);

/// Invalidations between instances.
///
/// Every message reaches every instance that is subscribed at that moment, the sender's own included, and is gone.
/// So whoever relies on hearing of something has to know when it would not: [`Channel::live`] says whether the
/// subscription stands. After it has come back, messages may have been missed.
#[derive(Debug, Clone)]
pub struct Channel {
    redis: Redis,
    name: Arc<str>,
    live: watch::Sender<bool>,
}

impl Channel {
    /// The channel of that name.
    pub fn new(redis: Redis, name: &str) -> Self {
        Self {
            redis,
            name: name.into(),
            live: watch::Sender::new(false),
        }
    }

    /// Tells everybody who is subscribed.
    ///
    /// # Errors
    /// When Redis is away: then nobody was told.
    pub async fn publish(&self, message: impl AsRef<[u8]>) -> Result<(), Away> {
        self.publish_all(&[message]).await
    }

    /// Publishes messages in their order, in one round trip.
    ///
    /// # Errors
    /// When Redis is away: then it is not certain which of them were sent.
    pub async fn publish_all(&self, messages: &[impl AsRef<[u8]>]) -> Result<(), Away> {
        self.redis.publish(&self.name, messages).await
    }

    /// Whether messages are heard, and when that changes.
    pub fn live(&self) -> watch::Receiver<bool> {
        self.live.subscribe()
    }

    /// Whether messages are heard now.
    pub fn is_live(&self) -> bool {
        *self.live.borrow()
    }

    /// Subscribes, hands over every message, and subscribes again whenever the subscription is lost. Spawn it once; it
    /// never ends. While `hear` runs, messages wait.
    pub fn listen(
        &self,
        mut hear: impl FnMut(&[u8]) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let channel = self.clone();
        async move {
            // However this ends: nobody listens any more.
            let _silence = Silence(channel.live.clone());
            loop {
                let demotions = channel.redis.demotions();
                if let Ok(subscription) = channel.redis.subscribe(&channel.name).await {
                    channel.live.send_replace(true);
                    tracing::debug!(channel = &*channel.name, "subscribed");
                    let reason = attend(subscription, demotions, &mut hear).await;
                    channel.live.send_replace(false);
                    tracing::warn!(channel = &*channel.name, reason, "the subscription was lost");
                }
                tokio::time::sleep(WAIT).await;
            }
        }
    }
}

struct Silence(watch::Sender<bool>);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Hands over messages for as long as the subscription stands; then says why it does not.
async fn attend(
    subscription: PubSub,
    mut demotions: watch::Receiver<u64>,
    hear: &mut (impl FnMut(&[u8]) + Send),
) -> &'static str {
    let (mut sink, mut messages) = subscription.split();
    let mut look_at = Instant::now() + LOOK_AFTER;
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout_at(look_at, messages.next()) => next,
            // What others sent to the former master may not have arrived here.
            _ = demotions.changed() => return "the server has become a replica",
        };
        match next {
            Ok(Some(message)) => hear(message.get_payload_bytes()),
            Ok(None) => return "the connection ended",
            Err(_) => match timeout(PATIENCE, sink.ping::<Value>()).await {
                Ok(Ok(_)) => look_at = Instant::now() + LOOK_AFTER,
                Ok(Err(_)) => return "the connection failed",
                Err(_) => return "no answer in time",
            },
        }
    }
}
