use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::events::ConsumerName;
use tenantry_domain::tenant::TenantScope;
use tenantry_tenancy::events::consumer::{self, ConsumerState};
use tenantry_tenancy::events::feed::FeedStart;
use utoipa::ToSchema;

use crate::v1::events::event_view::binding;
use crate::{
    Answer, ApiError, Body, Ctx, Endpoint, Id, IfMatch, IfNoneMatch, NoFilter, PageView, Query, entity,
    no_content,
    permission::{ConsumeEvents, ReadEvents},
};

/// A consumer of the feed: up to where a program has processed it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventConsumer, examples(json!({
    "name": "crm", "cursor": "AAAAAAAAACoPQ2b0X3mR8mVd1uPjJ0Zs", "position": 42, "lag": 3, "expired": false,
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 7,
})))]
pub(crate) struct ConsumerView {
    name: String,
    /// Where the consumer goes on: the `after` of its next request.
    cursor: String,
    /// The position of the last event that it has processed; 0 before the first one.
    #[schema(minimum = 0)]
    position: i64,
    /// How many events of the feed are behind that position.
    #[schema(minimum = 0)]
    lag: i64,
    /// Whether events behind that position were deleted because of their age: nothing can be read from there.
    expired: bool,
    created_at: DateTime<Utc>,
    /// When the cursor was stored last.
    updated_at: DateTime<Utc>,
    /// How often the cursor was stored; the `ETag`.
    version: i64,
}

/// Up to where a consumer has processed the feed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StoreEventCursor, examples(json!({"cursor": "latest"})))]
pub(crate) struct StoreCursorBody {
    /// A `next_cursor` of the feed, an `id` of its stream, `latest` for the next event, or `oldest` for the oldest one that is kept.
    #[schema(min_length = 1, max_length = 200)]
    cursor: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/events/consumers").get(list))
        .service(
            Endpoint::at("/events/consumers/{name}")
                .get(read)
                .put(store)
                .delete(delete),
        );
}

/// List consumers of the event feed
///
/// A tenant has at most 100; all are on one page, by name. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/events/consumers", operation_id = "list_event_consumers", tag = "Events",
    responses((status = 200, description = "The consumers.", body = PageView<ConsumerView>)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed"]))),
)]
pub(crate) async fn list(cx: Ctx<ReadEvents>, _: Query<NoFilter>) -> Answer {
    let states = consumer::list(&cx).await?.into_iter();
    Ok(HttpResponse::Ok().json(PageView {
        data: states.map(|state| view(cx.scope(), state)).collect(),
        next_cursor: None,
    }))
}

/// Get a consumer of the event feed
///
/// With its lag: how many events are behind its position. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/events/consumers/{name}", operation_id = "get_event_consumer", tag = "Events",
    params(("name" = String, Path), IfNoneMatch),
    responses((status = 200, description = "The consumer.", body = ConsumerView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read(cx: Ctx<ReadEvents>, name: Id<ConsumerName>, seen: IfNoneMatch) -> Answer {
    let state = consumer::get(&cx, &name.0).await?;
    // The lag changes without the version.
    Ok(seen.answer_of(state.consumer.version, &view(cx.scope(), state)))
}

/// Store the cursor of a consumer
///
/// Creates the consumer when there is none of that name: 1 to 64 characters of `a-z`, `0-9`, `_`, `-` and `.`, the first one a letter or a digit. A
/// cursor may lie before the stored one. With `If-Match` a second instance of the consumer, which has stored another cursor meanwhile, is noticed.
/// Minimum role: admin; an API key needs the scope `events.consume`.
#[utoipa::path(
    put, path = "/api/v1/events/consumers/{name}", operation_id = "store_event_cursor", tag = "Events",
    params(("name" = String, Path), IfMatch), request_body = StoreCursorBody,
    responses((status = 200, description = "The consumer.", body = ConsumerView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["conflict", "invalid_cursor", "not_found"]))),
)]
pub(crate) async fn store(
    cx: Ctx<ConsumeEvents>,
    name: Id<ConsumerName>,
    when: IfMatch,
    body: Body<StoreCursorBody>,
) -> Answer {
    let start = start(cx.scope(), &body.0.cursor)?;
    let state = consumer::store(&cx, &name.0, &when.0, start).await?;
    Ok(entity(state.consumer.version, &view(cx.scope(), state)))
}

/// Delete a consumer of the event feed
///
/// Its events stay in the feed. Minimum role: admin; an API key needs the scope `events.consume`.
#[utoipa::path(
    delete, path = "/api/v1/events/consumers/{name}", operation_id = "delete_event_consumer", tag = "Events",
    params(("name" = String, Path), IfMatch),
    responses((status = 204, description = "The consumer is deleted.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn delete(cx: Ctx<ConsumeEvents>, name: Id<ConsumerName>, when: IfMatch) -> Answer {
    consumer::delete(&cx, &name.0, &when.0).await?;
    Ok(no_content())
}

fn start(scope: &TenantScope, cursor: &str) -> Result<FeedStart, ApiError> {
    match cursor {
        "latest" => Ok(FeedStart::Latest),
        "oldest" => Ok(FeedStart::Oldest),
        cursor => Ok(FeedStart::After(binding(scope).open_number(cursor)?)),
    }
}

fn view(scope: &TenantScope, state: ConsumerState) -> ConsumerView {
    let (consumer, ends) = (state.consumer, state.ends);
    ConsumerView {
        cursor: binding(scope).seal_number(consumer.position),
        position: consumer.position,
        lag: consumer.lag(ends),
        expired: consumer.is_expired(ends),
        name: consumer.name.as_str().to_owned(),
        created_at: consumer.created_at,
        updated_at: consumer.updated_at,
        version: consumer.version,
    }
}
