use std::str::FromStr;

use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tenantry_domain::kernel::{EventId, ParseIdError, WebhookEndpointId};
use tenantry_domain::webhooks::{DeliveryState, MessageDelivery, MessageId, WebhookMessage};
use tenantry_tenancy::webhooks::delivery::{self, MessageWithBody};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::extract::page::{NoParams, PageParams};
use crate::extract::path::Ids;
use crate::v1::kernel::schema;
use crate::{
    Answer, Ctx, Endpoint, Id, PageView, Paged,
    permission::{ReadWebhooks, WriteWebhooks},
};

/// A message: an event that was queued for endpoints, or a test of one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookMessage, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "webhook_id": "msg_0198f3a26c1e7c3a9d550d9f6b1f2a14", "type": "task.updated",
    "timestamp": "2026-01-31T12:00:00Z",
    "deliveries": [
        {"endpoint_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "state": "succeeded", "attempts": 1, "next_attempt_at": null},
    ],
})))]
pub(crate) struct MessageView {
    /// The id of the event, or of the test.
    #[schema(value_type = Uuid)]
    id: EventId,
    /// The header `webhook-id` of each attempt.
    webhook_id: String,
    r#type: String,
    /// When the event happened.
    timestamp: DateTime<Utc>,
    /// One for each endpoint that the message was queued for, unless it was deleted.
    deliveries: Vec<MessageDeliveryView>,
}

/// The delivery of a message to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub(crate) struct MessageDeliveryView {
    #[schema(value_type = Uuid)]
    endpoint_id: WebhookEndpointId,
    #[schema(value_type = schema::DeliveryState)]
    state: DeliveryState,
    /// How many attempts were made.
    attempts: u32,
    /// When it is tried again; null unless it is pending.
    #[schema(required = true)]
    next_attempt_at: Option<DateTime<Utc>>,
}

/// A message with the body that the next attempt sends.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookMessageWithBody)]
pub(crate) struct MessageWithBodyView {
    #[serde(flatten)]
    message: MessageView,
    /// The body that the next attempt sends: `type`, `timestamp` and `data`. Null when the event is not kept any more.
    #[schema(value_type = Option<Object>, required = true)]
    body: Option<Value>,
}

/// The id of a message in a path, as the API or the header `webhook-id` has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessagePath(EventId);

impl FromStr for MessagePath {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The header has the id without hyphens.
        let hyphenated = |simple| Uuid::try_parse(simple).map(|id| id.to_string());
        let id = match text.strip_prefix("msg_") {
            Some(simple) => hyphenated(simple).unwrap_or_default().parse(),
            None => text.parse(),
        };
        id.map(Self)
    }
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/webhooks/messages").get(list))
        .service(Endpoint::at("/webhooks/messages/{id}").get(read))
        .service(Endpoint::at("/webhooks/messages/{id}/endpoints/{endpoint_id}/resend").post(resend));
}

/// List messages
///
/// The events that were queued for endpoints, and tests, the latest first. They are kept as long as events. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/webhooks/messages", operation_id = "list_webhook_messages", tag = "Webhooks",
    params(PageParams),
    responses((status = 200, description = "The messages.", body = PageView<MessageView>, headers(("Link")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadWebhooks>, query: Paged<NoParams>) -> Answer {
    let page = delivery::messages(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(MessageView::from)))
}

/// Get a message
///
/// With its body and its deliveries. The `id` may also be the header `webhook-id`. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/webhooks/messages/{id}", operation_id = "get_webhook_message", tag = "Webhooks",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The message.", body = MessageWithBodyView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadWebhooks>, id: Id<MessagePath>) -> Answer {
    let MessageWithBody { message, body } = delivery::message(&cx, id.0.0).await?;
    Ok(HttpResponse::Ok().json(MessageWithBodyView {
        message: message.into(),
        body,
    }))
}

/// Send a message again
///
/// Queues a message for an endpoint as if it was never sent, with the same `webhook-id`: one that was accepted or has failed, or an event that
/// was never queued for this endpoint. 409 `conflict` for a disabled endpoint. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/webhooks/messages/{id}/endpoints/{endpoint_id}/resend", operation_id = "resend_webhook_message",
    tag = "Webhooks",
    params(("id" = Uuid, Path), ("endpoint_id" = Uuid, Path)),
    responses((status = 202, description = "The message is queued.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict"]))),
)]
pub(crate) async fn resend(
    cx: Ctx<WriteWebhooks>,
    Ids(message, endpoint): Ids<MessagePath, WebhookEndpointId>,
) -> Answer {
    delivery::resend(&cx, message.0, endpoint).await?;
    Ok(HttpResponse::Accepted().finish())
}

impl From<WebhookMessage> for MessageView {
    fn from(message: WebhookMessage) -> Self {
        Self {
            id: message.id,
            webhook_id: MessageId::of(message.id.uuid()).as_str().to_owned(),
            r#type: message.kind,
            timestamp: message.at,
            deliveries: message.deliveries.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<MessageDelivery> for MessageDeliveryView {
    fn from(delivery: MessageDelivery) -> Self {
        Self {
            endpoint_id: delivery.endpoint,
            state: delivery.state,
            attempts: delivery.attempts,
            next_attempt_at: delivery.next,
        }
    }
}
