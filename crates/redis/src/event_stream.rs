use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{Pipeline, pipe};
use tenantry_domain::events::{EventSink, EventSinkError, ExportedEvent};

use crate::{Away, Redis};

/// Exports events to one Redis stream: an entry for each event, with the fields `id`, `tenant`, `type`, `position` and `event`, which is the event
/// as a CloudEvent in JSON. Readers use consumer groups of Redis. The stream keeps about as many entries as its maximum, the newest ones.
#[derive(Debug, Clone)]
pub struct RedisEventSink {
    redis: Redis,
    stream: Arc<str>,
    max_length: u64,
    timeout: Duration,
}

impl RedisEventSink {
    /// Returns a sink that appends to the stream with this key.
    pub fn new(redis: Redis, stream: &str, max_length: u64, timeout: Duration) -> Self {
        Self {
            redis,
            stream: stream.into(),
            max_length,
            timeout,
        }
    }

    /// All entries in one transaction of Redis, so that a batch is there in whole or not at all.
    fn commands(&self, events: &[ExportedEvent]) -> Pipeline {
        let mut commands = pipe();
        commands.atomic();
        for event in events {
            commands
                .cmd("XADD")
                .arg(&*self.stream)
                .arg("MAXLEN")
                .arg("~")
                .arg(self.max_length)
                .arg("*")
                .arg("id")
                .arg(event.id.to_string())
                .arg("tenant")
                .arg(event.tenant.to_string())
                .arg("type")
                .arg(&event.kind)
                .arg("position")
                .arg(event.position)
                .arg("event")
                .arg(&event.json)
                .ignore();
        }
        commands
    }
}

#[async_trait]
impl EventSink for RedisEventSink {
    async fn send(&self, events: &[ExportedEvent]) -> Result<(), EventSinkError> {
        let sent = self.redis.run_in(self.timeout, &self.commands(events)).await;
        sent.map_err(|error| match error {
            Away::Refused(_) => EventSinkError::Refused(error.to_string()),
            Away::NotThere | Away::Silent | Away::Lost(_) => EventSinkError::Away(error.to_string()),
        })
    }
}
