//! Deliveries: which message goes to which endpoint, how far it is, and the attempts that were made.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::kernel::name::named_enum;
use crate::kernel::{EventId, Page, PageRequest, StoreError, Time, WebhookEndpointId};
use crate::webhooks::outcome::DeliveryOutcome;
use crate::webhooks::schedule::{NextStep, RetrySchedule};

/// The type of the message that a test sends. No event of the catalogue has it, and filters let it through.
pub const TEST_MESSAGE: &str = "webhook.test";

named_enum! {
    /// How far a message is on its way to an endpoint.
    pub enum DeliveryState {
        /// It waits for its first or next attempt.
        Pending = "pending",
        /// The receiver has accepted it.
        Succeeded = "succeeded",
        /// Every attempt has failed, or the receiver wants no more messages.
        Failed = "failed",
        /// The endpoint was disabled before it was delivered, or the event is not kept any more.
        Canceled = "canceled",
    }
}

/// A message to one endpoint whose next attempt is due.
#[derive(Debug, Clone, PartialEq)]
pub struct DueDelivery {
    /// Identifies the delivery: the message and the endpoint.
    pub id: Uuid,
    /// The message: the event, or the test.
    pub message: EventId,
    /// Its type.
    pub kind: String,
    /// When the event happened.
    pub at: Time,
    /// How many attempts were made since it was queued last.
    pub tries: u32,
    /// Whether there is one attempt only.
    pub once: bool,
    /// When the attempt is due.
    pub due_at: Time,
    /// What happened, as receivers see it; `None` when the event is not kept any more.
    pub data: Option<Value>,
}

impl DueDelivery {
    /// The body of the message, by Standard Webhooks: type, time and data. It is made for each attempt from the data as
    /// it was read: what was erased from an event before is not sent. With data of an event it has less than 20 kB.
    pub fn body(&self) -> Option<String> {
        let data = self.data.as_ref()?;
        Some(message_body(&self.kind, self.at, data).to_string())
    }

    /// What follows an attempt, for the delivery: its state, and when the next attempt is due.
    pub fn after(
        &self,
        outcome: &DeliveryOutcome,
        (schedule, random): (&RetrySchedule, u32),
        now: Time,
    ) -> (DeliveryState, Option<Time>) {
        let made = usize::try_from(self.tries)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        match schedule.after(made, outcome, random) {
            NextStep::Done => (DeliveryState::Succeeded, None),
            NextStep::Retry(wait) if !self.once => (DeliveryState::Pending, Some(now + wait)),
            NextStep::Retry(_) | NextStep::GiveUp | NextStep::Disable => (DeliveryState::Failed, None),
        }
    }
}

/// The body of a message as JSON.
pub fn message_body(kind: &str, at: Time, data: &Value) -> Value {
    json!({"type": kind, "timestamp": at, "data": data})
}

/// What a test of an endpoint says, in the place of what happened.
pub fn test_data(endpoint: WebhookEndpointId) -> Value {
    json!({"object": {"endpoint_id": endpoint, "text": "This is a test of the endpoint."}})
}

/// An attempt that was made, and what follows for its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptResult {
    /// The delivery that it was an attempt of.
    pub delivery: Uuid,
    /// When the attempt was made.
    pub at: Time,
    /// What became of it.
    pub outcome: DeliveryOutcome,
    /// How long it took.
    pub latency: Duration,
    /// The state of the delivery from now on.
    pub state: DeliveryState,
    /// When the next attempt is due; of a pending delivery alone.
    pub next: Option<Time>,
}

/// An attempt, as the tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedAttempt {
    /// Identifies the attempt.
    pub id: Uuid,
    /// Which message was sent.
    pub message: EventId,
    /// The type of the message.
    pub kind: String,
    /// The how-many-th attempt of the delivery it was, from 1.
    pub number: u32,
    /// When it was made.
    pub at: Time,
    /// The name of its outcome; see [`DeliveryOutcome::name`].
    pub outcome: String,
    /// More about a failure without an answer; see [`DeliveryOutcome::detail`].
    pub detail: Option<String>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub latency_ms: u32,
    /// The beginning of the body of the answer, if there was one.
    pub excerpt: Option<String>,
    /// The state of the delivery now.
    pub state: DeliveryState,
    /// When the next attempt of the delivery is due.
    pub next: Option<Time>,
}

/// A message with its deliveries.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookMessage {
    /// Identifies the message: the event, or the test.
    pub id: EventId,
    /// Its type.
    pub kind: String,
    /// When the event happened.
    pub at: Time,
    /// Its deliveries, by endpoint.
    pub deliveries: Vec<MessageDelivery>,
}

/// The delivery of a message to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageDelivery {
    /// Where it goes.
    pub endpoint: WebhookEndpointId,
    /// How far it is.
    pub state: DeliveryState,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the next attempt is due.
    pub next: Option<Time>,
}

/// What became of the messages to an endpoint in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryStats {
    /// Messages that wait for an attempt.
    pub pending: u64,
    /// Messages that were accepted.
    pub succeeded: u64,
    /// Messages whose attempts have all failed.
    pub failed: u64,
    /// Messages that were canceled.
    pub canceled: u64,
    /// How long the latest attempts took; `None` without attempts.
    pub latency: Option<AttemptLatency>,
}

/// How long attempts took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLatency {
    /// Half of them took at most this long.
    pub p50_ms: u32,
    /// 95 of 100 took at most this long.
    pub p95_ms: u32,
    /// 99 of 100 took at most this long.
    pub p99_ms: u32,
}

/// What can be sent again: the events of a period, to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Where they are sent.
    pub endpoint: WebhookEndpointId,
    /// From when on they happened.
    pub since: Time,
    /// Until when they happened.
    pub until: Time,
}

/// The deliveries of the scope's tenant, and their attempts.
#[async_trait]
pub trait WebhookDeliveries: Send {
    /// Queues the last `published` events of the feed for each enabled endpoint whose filter lets them through. It runs in the transaction that
    /// publishes the events, so that a delivery exists exactly if its event is in the feed. Returns how many were queued.
    async fn queue_published(&mut self, published: u64, now: Time) -> Result<u64, StoreError>;

    /// Queues a test of an endpoint: a message of one attempt whose body is stored with it.
    async fn queue_test(
        &mut self,
        message: EventId,
        endpoint: WebhookEndpointId,
        data: &Value,
        now: Time,
    ) -> Result<(), StoreError>;

    /// Queues a message for an endpoint anew, as if it was never sent: a delivery that is there, or the event of the feed. Returns whether there
    /// is one.
    async fn resend(
        &mut self,
        message: EventId,
        endpoint: WebhookEndpointId,
        now: Time,
    ) -> Result<bool, StoreError>;

    /// Queues up to `limit` events whose delivery has failed, was canceled or never was, the oldest first. Returns how many.
    async fn recover(&mut self, recovery: &Recovery, limit: u32, now: Time) -> Result<u64, StoreError>;

    /// Up to `limit` deliveries of an endpoint that are due, those that have waited longest first, without `except`.
    async fn due(
        &mut self,
        endpoint: WebhookEndpointId,
        (limit, except): (u32, &[Uuid]),
        now: Time,
    ) -> Result<Vec<DueDelivery>, StoreError>;

    /// The pending delivery of an endpoint whose event came first, due or not.
    async fn first(&mut self, endpoint: WebhookEndpointId) -> Result<Option<DueDelivery>, StoreError>;

    /// Stores attempts, and what follows for their deliveries. Those of a delivery that was deleted meanwhile are not stored.
    async fn store(&mut self, results: &[AttemptResult]) -> Result<(), StoreError>;

    /// Cancels up to `limit` pending deliveries of an endpoint. Returns how many.
    async fn cancel(&mut self, endpoint: WebhookEndpointId, limit: u32) -> Result<u64, StoreError>;

    /// Cancels these deliveries.
    async fn cancel_these(&mut self, deliveries: &[Uuid]) -> Result<u64, StoreError>;

    /// A page of the attempts at an endpoint, the latest first.
    async fn attempts(
        &mut self,
        endpoint: WebhookEndpointId,
        page: PageRequest,
    ) -> Result<Page<RecordedAttempt>, StoreError>;

    /// What became of the messages to an endpoint whose events happened since a time.
    async fn stats(&mut self, endpoint: WebhookEndpointId, since: Time) -> Result<DeliveryStats, StoreError>;

    /// A page of messages, the latest first.
    async fn messages(&mut self, page: PageRequest) -> Result<Page<WebhookMessage>, StoreError>;

    /// A message with the data that it has now.
    async fn message(&mut self, id: EventId) -> Result<Option<(WebhookMessage, Option<Value>)>, StoreError>;

    /// Deletes up to `limit` deliveries of events that happened before a time and were deleted, with their attempts. Returns how many deliveries were deleted.
    async fn delete_before(&mut self, before: Time, limit: u32) -> Result<u64, StoreError>;

    /// Deletes up to `limit` deliveries of an endpoint that is marked as deleted, with their attempts; none of another endpoint. Returns how
    /// many were deleted.
    async fn delete_of_removed(&mut self, endpoint: WebhookEndpointId, limit: u32)
    -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::outcome::Answer;

    fn due(tries: u32, once: bool) -> DueDelivery {
        DueDelivery {
            id: Uuid::from_u128(1),
            message: Uuid::from_u128(2).into(),
            kind: "task.created".into(),
            at: Time::UNIX_EPOCH,
            tries,
            once,
            due_at: Time::UNIX_EPOCH,
            data: Some(json!({"object": {"id": 1}})),
        }
    }

    fn answer(status: u16) -> DeliveryOutcome {
        DeliveryOutcome::of(Answer {
            status,
            retry_after: None,
            excerpt: String::new(),
        })
    }

    #[test]
    fn body_has_type_time_and_data() {
        let body: Value = serde_json::from_str(&due(0, false).body().unwrap()).unwrap();
        let expected = json!({
            "type": "task.created", "timestamp": "1970-01-01T00:00:00Z", "data": {"object": {"id": 1}},
        });
        assert_eq!(body, expected);
        let gone = DueDelivery {
            data: None,
            ..due(0, false)
        };
        assert_eq!(gone.body(), None);
    }

    #[test]
    fn failed_attempt_is_retried_until_the_schedule_ends() {
        let schedule = RetrySchedule::new(vec![Duration::from_secs(10)]).unwrap();
        let after =
            |due: DueDelivery, status| due.after(&answer(status), (&schedule, u32::MAX), Time::UNIX_EPOCH);
        let retried = (
            DeliveryState::Pending,
            Some(Time::UNIX_EPOCH + Duration::from_secs(12)),
        );
        assert_eq!(after(due(0, false), 500), retried);
        assert_eq!(after(due(1, false), 500), (DeliveryState::Failed, None));
        assert_eq!(after(due(0, true), 500), (DeliveryState::Failed, None));
        assert_eq!(after(due(0, false), 410), (DeliveryState::Failed, None));
        assert_eq!(after(due(1, false), 204), (DeliveryState::Succeeded, None));
    }
}
