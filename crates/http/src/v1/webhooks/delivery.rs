use actix_web::{HttpResponse, http::header, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{EventId, WebhookEndpointId};
use tenantry_domain::webhooks::{
    AttemptLatency, DeliveryState, DeliveryStats, MessageId, RecordedAttempt, TEST_MESSAGE,
};
use tenantry_tenancy::webhooks::delivery::{self, Recovered};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, Moment, PageView, Paged,
    permission::{ReadWebhooks, WriteWebhooks},
};

/// An attempt to deliver a message to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookAttempt, examples(json!({
    "id": "0198f3a2-6c1e-4c3a-9d55-0d9f6b1f2a13", "message_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "type": "task.updated",
    "number": 1, "attempted_at": "2026-01-31T12:00:00Z", "outcome": "refused", "detail": null, "status": 503, "latency_ms": 84,
    "response": "try again later", "delivery_state": "pending", "next_attempt_at": "2026-01-31T12:01:07Z",
})))]
pub(crate) struct AttemptView {
    id: Uuid,
    /// The message: the event, or the test.
    #[schema(value_type = Uuid)]
    message_id: EventId,
    /// The type of the message.
    r#type: String,
    /// The how-many-th attempt of this message at this endpoint it was.
    #[schema(minimum = 1)]
    number: u32,
    attempted_at: DateTime<Utc>,
    /// `delivered`, `refused` (another status than 2xx), `gone` (410), `timed_out`, `connection_failed`, `forbidden_address` or
    /// `name_not_found`.
    outcome: String,
    /// More about a failure without an answer, such as `certificate_expired`.
    #[schema(required = true)]
    detail: Option<String>,
    /// The status of the answer, if there was one.
    #[schema(required = true)]
    status: Option<u16>,
    latency_ms: u32,
    /// The beginning of the body of the answer as one line, at most 1,000 characters.
    #[schema(required = true)]
    response: Option<String>,
    /// How far the message is on its way to this endpoint now.
    #[schema(value_type = schema::DeliveryState)]
    delivery_state: DeliveryState,
    /// When it is tried again; null unless it is pending.
    #[schema(required = true)]
    next_attempt_at: Option<DateTime<Utc>>,
}

/// What became of the messages to an endpoint in the last 24 hours.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookStats, examples(json!({
    "since": "2026-01-30T12:00:00Z", "success": 1204, "pending": 3, "failed": 2, "canceled": 0,
    "latency_ms": {"p50": 41, "p95": 180, "p99": 420}, "failing_since": null, "failures_in_a_row": 0,
})))]
pub(crate) struct StatsView {
    /// Messages whose events happened since then are counted.
    since: DateTime<Utc>,
    /// Messages that were accepted.
    success: u64,
    /// Messages that wait for an attempt.
    pending: u64,
    /// Messages whose attempts have all failed.
    failed: u64,
    /// Messages that were canceled, since the endpoint was disabled.
    canceled: u64,
    /// How long the last 1,000 attempts of this time took; null without attempts.
    #[schema(required = true)]
    latency_ms: Option<LatencyView>,
    /// When the first attempt failed since the last success; null after a success.
    #[schema(required = true)]
    failing_since: Option<DateTime<Utc>>,
    /// How many attempts have failed since the last success.
    failures_in_a_row: u32,
}

/// How long attempts took, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookLatency)]
pub(crate) struct LatencyView {
    p50: u32,
    p95: u32,
    p99: u32,
}

/// A test that is on its way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookTest, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "webhook_id": "msg_0198f3a26c1e7c3a9d550d9f6b1f2a14", "type": "webhook.test",
})))]
pub(crate) struct TestView {
    /// The id of the message, for `GET /api/v1/webhooks/messages/{id}`.
    #[schema(value_type = Uuid)]
    id: EventId,
    /// The header `webhook-id` of the request.
    webhook_id: String,
    r#type: &'static str,
}

/// Which events are sent again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecoverWebhooks, examples(json!({"since": "2026-01-30T12:00:00Z"})))]
pub(crate) struct RecoverBody {
    /// Events that happened since then.
    #[schema(value_type = DateTime<Utc>)]
    since: Moment,
    /// Events that happened until then; until now when absent.
    #[schema(value_type = DateTime<Utc>, required = false)]
    until: Option<Moment>,
}

/// What was queued.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecoveredWebhooks, examples(json!({"queued": 12, "has_more": false})))]
pub(crate) struct RecoveredView {
    /// How many messages were queued by this request.
    #[schema(maximum = 10_000)]
    queued: u64,
    /// Whether there may be more: the same request queues them.
    has_more: bool,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/webhooks/endpoints/{id}/test").post(test))
        .service(Endpoint::at("/webhooks/endpoints/{id}/recover").post(recover))
        .service(Endpoint::at("/webhooks/endpoints/{id}/attempts").get(attempts))
        .service(Endpoint::at("/webhooks/endpoints/{id}/stats").get(stats));
}

/// Send a test to an endpoint
///
/// Sends a message of the type `webhook.test`, whatever the filter of the endpoint says. There is one attempt; its result is in
/// `GET /api/v1/webhooks/endpoints/{id}/attempts` a moment later. 409 `conflict` for a disabled endpoint. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/webhooks/endpoints/{id}/test", operation_id = "test_webhook_endpoint", tag = "Webhooks",
    params(("id" = Uuid, Path)),
    responses((status = 202, description = "The test is on its way.", body = TestView, headers(("Location")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict"]))),
)]
pub(crate) async fn test(cx: Ctx<WriteWebhooks>, id: Id<WebhookEndpointId>) -> Answer {
    let message = delivery::test(&cx, id.0).await?;
    let view = TestView {
        id: message,
        webhook_id: MessageId::of(message.uuid()).as_str().to_owned(),
        r#type: TEST_MESSAGE,
    };
    let location = format!("/api/v1/webhooks/messages/{message}");
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .json(view))
}

/// Recover the messages of an endpoint
///
/// Sends the events of a period that the endpoint did not get: those whose attempts have failed, that were canceled, or that happened while it
/// was disabled or did not let them through its filter. Messages that are pending or were accepted stay as they are, so the same request sends
/// nothing twice. A request queues up to 10,000 messages, the oldest first; with `has_more` send it again. 409 `conflict` for a disabled
/// endpoint. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/webhooks/endpoints/{id}/recover", operation_id = "recover_webhook_endpoint", tag = "Webhooks",
    params(("id" = Uuid, Path)), request_body = RecoverBody,
    responses((status = 202, description = "The messages are queued.", body = RecoveredView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict"]))),
)]
pub(crate) async fn recover(
    cx: Ctx<WriteWebhooks>,
    id: Id<WebhookEndpointId>,
    body: Body<RecoverBody>,
) -> Answer {
    let period = (body.0.since.into(), body.0.until.map(Into::into));
    let recovered = delivery::recover(&cx, id.0, period).await?;
    Ok(HttpResponse::Accepted().json(RecoveredView::from(recovered)))
}

/// List the attempts at an endpoint
///
/// The latest first, as long as events are kept. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/webhooks/endpoints/{id}/attempts", operation_id = "list_webhook_attempts", tag = "Webhooks",
    params(("id" = Uuid, Path), PageParams),
    responses((status = 200, description = "The attempts.", body = PageView<AttemptView>, headers(("Link")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn attempts(
    cx: Ctx<ReadWebhooks>,
    id: Id<WebhookEndpointId>,
    query: Paged<NoParams>,
) -> Answer {
    let page = delivery::attempts(&cx, id.0, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(AttemptView::from)))
}

/// Get the statistics of an endpoint
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/webhooks/endpoints/{id}/stats", operation_id = "get_webhook_stats", tag = "Webhooks",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The statistics.", body = StatsView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn stats(cx: Ctx<ReadWebhooks>, id: Id<WebhookEndpointId>) -> Answer {
    let (endpoint, since, stats) = delivery::stats(&cx, id.0).await?;
    let streak = endpoint.streak;
    let DeliveryStats {
        pending,
        succeeded,
        failed,
        canceled,
        latency,
    } = stats;
    Ok(HttpResponse::Ok().json(StatsView {
        since,
        success: succeeded,
        pending,
        failed,
        canceled,
        latency_ms: latency.map(LatencyView::from),
        failing_since: streak.map(|streak| streak.first),
        failures_in_a_row: streak.map_or(0, |streak| streak.failures),
    }))
}

impl From<RecordedAttempt> for AttemptView {
    fn from(attempt: RecordedAttempt) -> Self {
        Self {
            id: attempt.id,
            message_id: attempt.message,
            r#type: attempt.kind,
            number: attempt.number,
            attempted_at: attempt.at,
            outcome: attempt.outcome,
            detail: attempt.detail,
            status: attempt.status,
            latency_ms: attempt.latency_ms,
            response: attempt.excerpt,
            delivery_state: attempt.state,
            next_attempt_at: attempt.next,
        }
    }
}

impl From<AttemptLatency> for LatencyView {
    fn from(latency: AttemptLatency) -> Self {
        Self {
            p50: latency.p50_ms,
            p95: latency.p95_ms,
            p99: latency.p99_ms,
        }
    }
}

impl From<Recovered> for RecoveredView {
    fn from(recovered: Recovered) -> Self {
        Self {
            queued: recovered.queued,
            has_more: recovered.has_more,
        }
    }
}
