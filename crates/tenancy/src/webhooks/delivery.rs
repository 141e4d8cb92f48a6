//! Deliveries, as admins see and repeat them: tests, messages that are sent again, attempts and their statistics.

use tenantry_domain::kernel::{
    EventId, Invalid, Page, PageRequest, Permission, StoreError, Time, WebhookEndpointId,
};
use tenantry_domain::store::Work;
use tenantry_domain::webhooks::{
    DeliveryStats, RecordedAttempt, Recovery, WebhookEndpoint, WebhookMessage, message_body, test_data,
};

use crate::{Changed, Cx, OwnReason, UseCaseError};

/// How many messages one call of [`recover`] queues.
pub const RECOVERED_AT_ONCE: u32 = 10_000;

/// The period of statistics.
pub const STATS_PERIOD: chrono::Duration = chrono::Duration::hours(24);

/// Errors of the use cases of deliveries.
pub type DeliveryError = UseCaseError<DeliveryReason>;

/// Why nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryReason {
    /// The endpoint is disabled.
    #[error("the webhook endpoint is disabled: enable it first")]
    Disabled,
}

impl OwnReason for DeliveryReason {}

/// A message and what the next attempt sends of it.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageWithBody {
    /// The message with its deliveries.
    pub message: WebhookMessage,
    /// The body that the next attempt sends; `None` when the event is not kept any more.
    pub body: Option<serde_json::Value>,
}

/// What one call of [`recover`] has queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// How many messages.
    pub queued: u64,
    /// Whether there may be more in the period: another call queues them.
    pub has_more: bool,
}

/// Queues a test of an endpoint: one attempt, whatever its filter says, also while it rests. Returns the id of the message.
///
/// # Errors
/// [`DeliveryError`].
pub async fn test(cx: &Cx, endpoint: WebhookEndpointId) -> Result<EventId, DeliveryError> {
    cx.require(Permission::WriteWebhooks)?;
    let message = EventId::next(cx.ids());
    let queued = cx.write(async |work| {
        enabled(work, endpoint).await?;
        let data = test_data(endpoint);
        work.webhook_deliveries()
            .queue_test(message, endpoint, &data, cx.now())
            .await?;
        wake(cx, work, endpoint).await?;
        cx.record(work, Changed::new("webhook_endpoint.tested", endpoint.uuid()))
            .await?;
        Ok(message)
    });
    noted(cx, queued.await)
}

/// Sends a message to an endpoint again, as if it was never sent: one that was delivered, has failed or was never queued for the endpoint.
///
/// # Errors
/// [`DeliveryError`].
pub async fn resend(cx: &Cx, message: EventId, endpoint: WebhookEndpointId) -> Result<(), DeliveryError> {
    cx.require(Permission::WriteWebhooks)?;
    let queued = cx.write(async |work| {
        enabled(work, endpoint).await?;
        if !work
            .webhook_deliveries()
            .resend(message, endpoint, cx.now())
            .await?
        {
            return Err(DeliveryError::NotFound);
        }
        wake(cx, work, endpoint).await?;
        let changed = Changed::new("webhook_endpoint.message_resent", endpoint.uuid());
        Ok(cx.record(work, changed).await?)
    });
    noted(cx, queued.await)
}

/// Queues the events of a period that the endpoint did not get: those that have failed, were canceled, or happened while it was disabled. What
/// is pending or was delivered stays as it is, so a second call queues nothing twice.
///
/// # Errors
/// [`DeliveryError`].
pub async fn recover(
    cx: &Cx,
    endpoint: WebhookEndpointId,
    (since, until): (Time, Option<Time>),
) -> Result<Recovered, DeliveryError> {
    cx.require(Permission::WriteWebhooks)?;
    let recovery = Recovery {
        endpoint,
        since,
        until: until.unwrap_or_else(|| cx.now()),
    };
    if recovery.since > recovery.until {
        return Err(Invalid::one(
            "/since",
            "out_of_range",
            "must not be after `until`, nor in the future",
        )
        .into());
    }
    let queued = cx.write(async |work| {
        enabled(work, endpoint).await?;
        let queued = work
            .webhook_deliveries()
            .recover(&recovery, RECOVERED_AT_ONCE, cx.now())
            .await?;
        if queued > 0 {
            cx.record(work, Changed::new("webhook_endpoint.recovered", endpoint.uuid()))
                .await?;
        }
        Ok(Recovered {
            queued,
            has_more: queued == u64::from(RECOVERED_AT_ONCE),
        })
    });
    noted(cx, queued.await)
}

/// Returns a page of the attempts at an endpoint, the latest first.
///
/// # Errors
/// [`DeliveryError`].
pub async fn attempts(
    cx: &Cx,
    endpoint: WebhookEndpointId,
    page: PageRequest,
) -> Result<Page<RecordedAttempt>, DeliveryError> {
    cx.require(Permission::ReadWebhooks)?;
    cx.read(async |work| {
        found(work, endpoint).await?;
        Ok(work.webhook_deliveries().attempts(endpoint, page).await?)
    })
    .await
}

/// Returns what became of the messages to an endpoint in the last [`STATS_PERIOD`].
///
/// # Errors
/// [`DeliveryError`].
pub async fn stats(
    cx: &Cx,
    endpoint: WebhookEndpointId,
) -> Result<(WebhookEndpoint, Time, DeliveryStats), DeliveryError> {
    cx.require(Permission::ReadWebhooks)?;
    let since = cx.now() - STATS_PERIOD;
    cx.read(async |work| {
        let endpoint = found(work, endpoint).await?;
        let stats = work.webhook_deliveries().stats(endpoint.id, since).await?;
        Ok((endpoint, since, stats))
    })
    .await
}

/// Returns a page of messages, the latest first.
///
/// # Errors
/// [`DeliveryError`].
pub async fn messages(cx: &Cx, page: PageRequest) -> Result<Page<WebhookMessage>, DeliveryError> {
    cx.require(Permission::ReadWebhooks)?;
    cx.read(async |work| Ok(work.webhook_deliveries().messages(page).await?))
        .await
}

/// Returns a message with its body and its deliveries.
///
/// # Errors
/// [`DeliveryError`].
pub async fn message(cx: &Cx, id: EventId) -> Result<MessageWithBody, DeliveryError> {
    cx.require(Permission::ReadWebhooks)?;
    let found = cx.read(async |work| work.webhook_deliveries().message(id).await);
    let found: Option<_> = found
        .await
        .map_err(|error: StoreError| DeliveryError::from(error))?;
    let (message, data) = found.ok_or(DeliveryError::NotFound)?;
    let body = data.map(|data| message_body(&message.kind, message.at, &data));
    Ok(MessageWithBody { message, body })
}

/// Makes the lane of an endpoint due at once, also where it rests.
///
/// # Errors
/// Those of the store.
pub(crate) async fn wake(cx: &Cx, work: &mut Work, endpoint: WebhookEndpointId) -> Result<(), StoreError> {
    work.webhook_lanes().wake(endpoint, cx.now()).await?;
    cx.app().delivery_signals().note_queued();
    Ok(())
}

async fn found(work: &mut Work, endpoint: WebhookEndpointId) -> Result<WebhookEndpoint, DeliveryError> {
    let found = work.webhook_endpoints().find(endpoint).await?;
    found.ok_or(DeliveryError::NotFound)
}

/// The endpoint, locked against its deletion. A disabled one gets nothing.
async fn enabled(work: &mut Work, endpoint: WebhookEndpointId) -> Result<WebhookEndpoint, DeliveryError> {
    let found = work.webhook_endpoints().find_for_update(endpoint).await?;
    let endpoint = found.ok_or(DeliveryError::NotFound)?;
    if !endpoint.state.is_enabled() {
        return Err(DeliveryReason::Disabled.into());
    }
    Ok(endpoint)
}

/// Wakes the dispatcher after the commit.
fn noted<T>(cx: &Cx, queued: Result<T, DeliveryError>) -> Result<T, DeliveryError> {
    if queued.is_ok() {
        cx.app().delivery_signals().note_queued();
    }
    queued
}
