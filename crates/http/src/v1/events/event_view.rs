use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tenantry_domain::events::Event;
use tenantry_domain::kernel::EventId;
use tenantry_domain::tenant::TenantScope;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::extract::cursor::Binding;
use crate::extract::page::Lists as _;

/// The path of the feed, which cursors are bound to.
pub(crate) const PATH: &str = "/api/v1/events";

/// Cursors are bound to the tenant, and are valid for all types: they say a position of its feed.
pub(crate) fn binding(scope: &TenantScope) -> Binding {
    Binding::new(scope.binds_to(), PATH, &[])
}

/// An event: something has changed in the tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "position": 42, "type": "task.updated", "timestamp": "2026-01-31T12:00:00Z",
    "actor": {"kind": "user", "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11"}, "entity": "task",
    "entity_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "trace_parent": null,
    "data": {
        "object": {"id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "title": "Write the front page", "status": "done", "version": 2},
        "previous_attributes": {"status": "todo", "version": 1},
    },
})))]
pub(crate) struct EventView {
    /// Identifies the event; it is also the id of the audit entry of the change.
    #[schema(value_type = Uuid)]
    id: EventId,
    /// The number in the tenant's feed, from 1 on without gaps.
    #[schema(minimum = 1)]
    position: i64,
    /// One of `GET /api/v1/webhooks/event-types`.
    r#type: String,
    /// When it happened.
    timestamp: DateTime<Utc>,
    actor: EventActorView,
    /// The kind of thing it happened to.
    entity: String,
    /// The id of that thing.
    #[schema(required = true)]
    entity_id: Option<Uuid>,
    /// The W3C `traceparent` of the request or job that caused it.
    #[schema(required = true)]
    trace_parent: Option<String>,
    /// What happened, by the schema of the type: `object` is the thing as the change left it, and `previous_attributes` has the former values
    /// of what the change has changed.
    #[schema(value_type = Object)]
    data: Value,
}

/// What acted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventActor)]
pub(crate) struct EventActorView {
    /// `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    kind: String,
    /// The id of the user, API key or operator; of a job that of the user for whom it ran.
    #[schema(required = true)]
    id: Option<Uuid>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            position: event.position,
            r#type: event.kind,
            timestamp: event.at,
            actor: EventActorView {
                kind: event.actor_kind,
                id: event.actor_id,
            },
            entity: event.entity,
            entity_id: event.entity_id,
            trace_parent: event.trace_parent,
            data: event.data,
        }
    }
}
