use actix_web::{HttpResponse, web::ServiceConfig};
use serde::Serialize;
use serde_json::Value;
use tenantry_domain::events::EventType;
use tenantry_tenancy::events::feed;
use utoipa::ToSchema;

use crate::{Answer, Ctx, Endpoint, NoFilter, PageView, Query, permission::ReadEventTypes};

/// A type of events, as the catalogue has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventType, examples(json!({
    "type": "user.erased", "description": "The erasure of a person has begun.", "since": "0.1.0",
    "schema": {"type": "object", "required": ["object"], "properties": {"object": {"type": "object"}}},
    "example": {"object": {"id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "erasure_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12"}},
})))]
pub(crate) struct EventTypeView {
    /// The name, for example `task.updated`.
    r#type: &'static str,
    description: &'static str,
    /// The version of the service in which it came.
    since: &'static str,
    /// The JSON Schema (2020-12) of the `data` of its events. Events may have further fields.
    #[schema(value_type = Object)]
    schema: Value,
    /// An example of the `data`.
    #[schema(value_type = Object)]
    example: Value,
}

impl From<&EventType> for EventTypeView {
    fn from(one: &EventType) -> Self {
        Self {
            r#type: one.name(),
            description: one.about(),
            since: one.added_in(),
            schema: one.schema(),
            example: one.example(),
        }
    }
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/webhooks/event-types").get(list));
}

/// List the types of events
///
/// The catalogue of events, with a JSON Schema and an example of each. All types are on one page. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/webhooks/event-types", operation_id = "list_event_types", tag = "Events",
    responses((status = 200, description = "The types.", body = PageView<EventTypeView>)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed"]))),
)]
pub(crate) async fn list(cx: Ctx<ReadEventTypes>, _: Query<NoFilter>) -> Answer {
    let types = feed::types(&cx)?.iter();
    Ok(HttpResponse::Ok().json(PageView {
        data: types.map(EventTypeView::from).collect(),
        next_cursor: None,
    }))
}
