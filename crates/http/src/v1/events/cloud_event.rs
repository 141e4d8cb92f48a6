//! Events in the format of CloudEvents 1.0.

use actix_web::{HttpRequest, http::header};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tenantry_domain::events::Event;
use tenantry_domain::kernel::TenantId;
use utoipa::ToSchema;

/// The media type of a batch of events (CloudEvents 1.0, JSON batch format).
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

/// An event in the format of CloudEvents 1.0.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutgoingCloudEvent, examples(json!({
    "specversion": "1.0", "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "source": "/tenants/0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a10",
    "type": "task.deleted", "subject": "task/0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "time": "2026-01-31T12:00:00Z",
    "datacontenttype": "application/json", "sequence": "0000000000000000042",
    "data": {"object": {"id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12"}},
})))]
pub(crate) struct CloudEvent {
    specversion: &'static str,
    /// The id of the event. With `source` it identifies the event.
    #[schema(value_type = Uuid)]
    id: String,
    /// The tenant: `/tenants/` and its id.
    source: String,
    r#type: String,
    /// What it happened to: the kind and the id.
    subject: String,
    time: DateTime<Utc>,
    datacontenttype: &'static str,
    /// The position in the feed, with leading zeros, so that its order as a text is that of the feed (extension "sequence").
    #[schema(pattern = "^[0-9]{19}$")]
    sequence: String,
    /// The W3C `traceparent` of the request or job that caused it (extension "distributed tracing").
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[schema(value_type = Object)]
    data: Value,
}

impl CloudEvent {
    /// An event of a tenant.
    pub fn of(tenant: TenantId, event: Event) -> Self {
        let subject = match event.entity_id {
            Some(id) => format!("{}/{id}", event.entity),
            None => event.entity,
        };
        Self {
            specversion: "1.0",
            id: event.id.to_string(),
            source: format!("/tenants/{tenant}"),
            r#type: event.kind,
            subject,
            time: event.at,
            datacontenttype: "application/json",
            sequence: format!("{:019}", event.position),
            traceparent: event.trace_parent,
            data: event.data,
        }
    }
}

/// Whether a request asks for a batch of CloudEvents.
pub(crate) fn is_asked_for(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT);
    let mut kinds = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case(BATCH)
    })
}
