use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_domain::kernel::{EventId, NotificationId};
use tenantry_domain::notifications::{NoticeType, Notification};
use tenantry_tenancy::notifications::inbox;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::page::PageParams;
use crate::{Answer, Body, Ctx, Endpoint, Id, PageView, Paged, permission::ManageOwnAccount};

/// A notification of the caller about an event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Notification, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a16", "type": "task.assigned", "description": "A task was assigned to you.",
    "event_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "occurred_at": "2026-01-31T12:00:00Z",
    "actor": {"kind": "user", "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11"}, "entity": "task",
    "entity_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "parts": {"title": "Write the front page", "status": "todo"},
    "read": false, "read_at": null, "created_at": "2026-01-31T12:00:01Z",
})))]
pub(crate) struct NotificationView {
    #[schema(value_type = Uuid)]
    id: NotificationId,
    /// One of `GET /api/v1/auth/me/preferences`.
    r#type: String,
    /// A sentence about the type.
    description: &'static str,
    /// The event, as `GET /api/v1/events` shows it to admins.
    #[schema(value_type = Uuid)]
    event_id: EventId,
    /// When it happened.
    occurred_at: DateTime<Utc>,
    actor: NotificationActorView,
    /// The kind of thing it happened to.
    entity: String,
    /// The id of that thing.
    #[schema(required = true)]
    entity_id: Option<Uuid>,
    /// What to show, by name: texts of one line, and numbers. Which there are depends on the type.
    #[schema(value_type = Object)]
    parts: Map<String, Value>,
    read: bool,
    /// When it was marked as read.
    #[schema(required = true)]
    read_at: Option<DateTime<Utc>>,
    /// When the caller was notified.
    created_at: DateTime<Utc>,
}

/// What acted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotificationActor)]
pub(crate) struct NotificationActorView {
    /// `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    kind: String,
    /// The id of the user, API key or operator.
    #[schema(required = true)]
    id: Option<Uuid>,
}

/// Filters of notifications.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NotificationParams {
    /// Only those that are unread, or only those that are read.
    unread: Option<bool>,
}

/// Whether a notification is read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MarkNotification, examples(json!({"read": true})))]
pub(crate) struct MarkBody {
    read: bool,
}

/// How many notifications are unread.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnreadNotifications, examples(json!({"unread": 3})))]
pub(crate) struct UnreadView {
    #[schema(minimum = 0)]
    unread: u64,
}

/// How many notifications were marked as read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReadNotifications, examples(json!({"marked": 3})))]
pub(crate) struct MarkedView {
    #[schema(minimum = 0)]
    marked: u64,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/notifications").get(list))
        .service(Endpoint::at("/notifications/unread-count").get(count))
        .service(Endpoint::at("/notifications/read-all").post(read_all))
        .service(Endpoint::at("/notifications/{id}").patch(mark));
}

/// List own notifications
///
/// Those of the credential's user that the user may read now, newest first, up to 500 of the last 90 days. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/notifications", operation_id = "list_notifications", tag = "Notifications",
    params(NotificationParams, PageParams),
    responses(
        (status = 200, description = "The notifications, newest first.", body = PageView<NotificationView>, headers(("Link"))),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<ManageOwnAccount>, query: Paged<NotificationParams>) -> Answer {
    let page = inbox::list(&cx, query.filter.unread, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(NotificationView::from)))
}

/// Count own unread notifications
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/notifications/unread-count", operation_id = "count_unread_notifications", tag = "Notifications",
    responses((status = 200, description = "The number.", body = UnreadView)),
    security(("bearer" = [])),
)]
pub(crate) async fn count(cx: Ctx<ManageOwnAccount>) -> Answer {
    let unread = inbox::count_unread(&cx).await?;
    Ok(HttpResponse::Ok().json(UnreadView { unread }))
}

/// Mark a notification as read or unread
///
/// Also possible in a suspended tenant. Minimum role: viewer.
#[utoipa::path(
    patch, path = "/api/v1/notifications/{id}", operation_id = "mark_notification", tag = "Notifications",
    params(("id" = Uuid, Path)), request_body = MarkBody,
    responses((status = 200, description = "The notification.", body = NotificationView)),
    security(("bearer" = [])),
)]
pub(crate) async fn mark(cx: Ctx<ManageOwnAccount>, id: Id<NotificationId>, body: Body<MarkBody>) -> Answer {
    let notification = inbox::mark(&cx, id.0, body.0.read).await?;
    Ok(HttpResponse::Ok().json(NotificationView::from(notification)))
}

/// Mark all own notifications as read
///
/// Also possible in a suspended tenant. Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/notifications/read-all", operation_id = "read_all_notifications", tag = "Notifications",
    responses((status = 200, description = "How many were unread.", body = MarkedView)),
    security(("bearer" = [])),
)]
pub(crate) async fn read_all(cx: Ctx<ManageOwnAccount>) -> Answer {
    let marked = inbox::read_all(&cx).await?;
    Ok(HttpResponse::Ok().json(MarkedView { marked }))
}

impl From<Notification> for NotificationView {
    fn from(notification: Notification) -> Self {
        Self {
            id: notification.id,
            description: NoticeType::find(&notification.kind).map_or("", |notice| notice.about),
            r#type: notification.kind,
            event_id: notification.event_id,
            occurred_at: notification.occurred_at,
            actor: NotificationActorView {
                kind: notification.actor_kind,
                id: notification.actor_id,
            },
            entity: notification.entity,
            entity_id: notification.entity_id,
            parts: notification.parts,
            read: notification.read_at.is_some(),
            read_at: notification.read_at,
            created_at: notification.created_at,
        }
    }
}
