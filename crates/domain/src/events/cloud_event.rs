use serde::Serialize;
use serde_json::Value;

use crate::events::Event;
use crate::kernel::{TenantId, Time};

/// An event in the format of CloudEvents 1.0, as receivers outside get it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CloudEvent {
    /// The version of the specification.
    pub specversion: &'static str,
    /// The id of the event. With `source` it identifies the event.
    pub id: String,
    /// The tenant: `/tenants/` and its id.
    pub source: String,
    /// The name of the type, for example `task.updated`.
    pub r#type: String,
    /// What it happened to: the kind and the id.
    pub subject: String,
    /// When it happened.
    pub time: Time,
    /// The media type of `data`.
    pub datacontenttype: &'static str,
    /// The position in the feed in 19 digits, so that its order as a text is that of the feed (extension "sequence").
    pub sequence: String,
    /// The W3C `traceparent` of the request or job that caused it (extension "distributed tracing").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What happened.
    pub data: Value,
}

impl CloudEvent {
    /// Returns an event of a tenant in this format.
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
