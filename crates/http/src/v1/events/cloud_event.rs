//! Events in the format of CloudEvents 1.0.

use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// The media type of a batch of events (CloudEvents 1.0, JSON batch format).
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

/// An event in the format of CloudEvents 1.0.
#[derive(ToSchema)]
#[schema(as = OutgoingCloudEvent, examples(json!({
    "specversion": "1.0", "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "source": "/tenants/0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a10",
    "type": "task.deleted", "subject": "task/0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "time": "2026-01-31T12:00:00Z",
    "datacontenttype": "application/json", "sequence": "0000000000000000042",
    "data": {"object": {"id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12"}},
})))]
#[expect(dead_code, reason = "it only describes `tenantry_domain::events::CloudEvent`")]
pub(crate) struct CloudEventDocument {
    specversion: String,
    /// The id of the event. With `source` it identifies the event.
    id: Uuid,
    /// The tenant: `/tenants/` and its id.
    source: String,
    r#type: String,
    /// What it happened to: the kind and the id.
    subject: String,
    time: DateTime<Utc>,
    datacontenttype: String,
    /// The position in the feed, with leading zeros, so that its order as a text is that of the feed (extension "sequence").
    #[schema(pattern = "^[0-9]{19}$")]
    sequence: String,
    /// The W3C `traceparent` of the request or job that caused it (extension "distributed tracing").
    traceparent: Option<String>,
    #[schema(value_type = Object)]
    data: Value,
}
