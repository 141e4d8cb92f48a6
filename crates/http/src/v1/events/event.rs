use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::events::Event;
use tenantry_domain::kernel::{ErrorCode, EventId, Invalid};
use tenantry_tenancy::events::feed::{self, FeedPage, FeedRequest, FeedStart};
use tokio::time::{Instant, sleep_until};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::places::{Full, Place};
use crate::connection::connection::Gone;
use crate::extract::api_key;
use crate::extract::cursor::Binding;
use crate::extract::page::Lists as _;
use crate::v1::events::cloud_event::{self, CloudEvent};
use crate::{Answer, Api, ApiError, Ctx, Endpoint, Query, permission::ReadEvents};

/// The path of the feed, which cursors are bound to.
const PATH: &str = "/api/v1/events";

/// The longest wait for an event, in seconds: shorter than proxies wait for an answer.
const LONGEST_WAIT: u64 = 15;

/// How often a waiting request looks by itself. Events that this process publishes wake it at once.
const LOOK: Duration = Duration::from_secs(1);

/// Which events are read.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// The `next_cursor` of the answer before, or `latest` to begin with the next event. Without it the feed begins with the oldest event that is kept.
    #[param(min_length = 1)]
    after: Option<String>,
    /// Only events of these types, separated by commas.
    #[param(min_length = 1)]
    types: Option<String>,
    /// The maximum number of events.
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u32>,
    /// For how many seconds to wait for an event when there is none.
    #[param(minimum = 0, maximum = 15, default = 0)]
    wait: Option<u64>,
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

/// Events of the feed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventFeed)]
pub(crate) struct FeedView {
    /// The events, the oldest first.
    data: Vec<EventView>,
    /// Whether there are more events to read at once.
    has_more: bool,
    /// The `after` of the next request. It is there also when there are no events.
    next_cursor: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/events").without_deadline().get(list));
}

/// Read the event feed
///
/// The events of the tenant in their order, the oldest first. Store `next_cursor` after you have processed the events, and read on with it as
/// `after`: no event is missed, and none comes twice. With `wait` the request waits up to 15 seconds for an event when there is none; waiting
/// requests take places of a tenant's event streams: others are 429 `rate_limited` or 503 `unavailable` until one is free. With
/// `Accept: application/cloudevents-batch+json` the events are CloudEvents 1.0, and `Link` has the next request. A cursor whose events were deleted
/// because of their age is 422 with the code `expired`. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "read_events", tag = "Events",
    params(EventParams),
    responses((
        status = 200, description = "The events.", headers(("Link")),
        content((FeedView = "application/json"), (Vec<CloudEvent> = "application/cloudevents-batch+json")),
    )),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed", "invalid_cursor"]))),
)]
pub(crate) async fn list(cx: Ctx<ReadEvents>, http: HttpRequest, query: Query<EventParams>) -> Answer {
    let request = query.0.request(&cx)?;
    let page = match query.0.wait()? {
        None => feed::read(&cx, &request).await?,
        Some(wait) => Waiting::begin(&cx, &http, wait)?.read(request).await?,
    };
    Ok(query.0.answer(&cx, &http, page))
}

impl EventParams {
    fn request(&self, cx: &Ctx<ReadEvents>) -> Result<FeedRequest, ApiError> {
        let limit = self.limit.unwrap_or(50);
        if !(1..=100).contains(&limit) {
            let detail = "must be an integer from 1 to 100";
            return Err(Invalid::one("/query/limit", "out_of_range", detail).into());
        }
        let start = match self.after.as_deref() {
            None => FeedStart::Oldest,
            Some("latest") => FeedStart::Latest,
            Some(cursor) => FeedStart::After(binding(cx).open_number(cursor)?),
        };
        Ok(FeedRequest {
            start,
            kinds: cx.ports().event_types.named(self.types.as_deref())?,
            limit,
        })
    }

    fn wait(&self) -> Result<Option<Duration>, ApiError> {
        match self.wait.unwrap_or(0) {
            0 => Ok(None),
            seconds if seconds <= LONGEST_WAIT => Ok(Some(Duration::from_secs(seconds))),
            _ => {
                let detail = format!("must be an integer from 0 to {LONGEST_WAIT}");
                Err(Invalid::one("/query/wait", "out_of_range", detail).into())
            }
        }
    }

    fn answer(&self, cx: &Ctx<ReadEvents>, http: &HttpRequest, page: FeedPage) -> HttpResponse {
        let next_cursor = binding(cx).seal_number(page.next);
        let mut response = HttpResponse::Ok();
        response.insert_header((
            header::LINK,
            format!("<{}>; rel=\"next\"", self.link(&next_cursor)),
        ));
        response.insert_header((header::VARY, header::ACCEPT.as_str()));
        if cloud_event::is_asked_for(http) {
            let tenant = cx.scope().tenant();
            let events = page.events.into_iter();
            let batch: Vec<_> = events.map(|event| CloudEvent::of(tenant, event)).collect();
            response.content_type(cloud_event::BATCH);
            return response.json(batch);
        }
        response.json(FeedView {
            data: page.events.into_iter().map(EventView::from).collect(),
            has_more: page.has_more,
            next_cursor,
        })
    }

    /// The address of the next request. Names of types need no encoding.
    fn link(&self, cursor: &str) -> String {
        let mut link = format!("{PATH}?after={cursor}");
        if let Some(types) = &self.types {
            link += &format!("&types={types}");
        }
        if let Some(limit) = self.limit {
            link += &format!("&limit={limit}");
        }
        if let Some(wait) = self.wait {
            link += &format!("&wait={wait}");
        }
        link
    }
}

/// Cursors are bound to the tenant, and are valid for all types: they say a position of its feed.
fn binding(cx: &Ctx<ReadEvents>) -> Binding {
    Binding::new(cx.scope().binds_to(), PATH, &[])
}

/// A request that waits for an event.
struct Waiting<'r> {
    cx: &'r Ctx<ReadEvents>,
    http: &'r HttpRequest,
    ends: Instant,
    _place: Place,
}

impl<'r> Waiting<'r> {
    fn begin(cx: &'r Ctx<ReadEvents>, http: &'r HttpRequest, wait: Duration) -> Result<Self, ApiError> {
        let api = Api::of(http)?;
        let most = (api.config.event_streams_per_tenant, api.config.event_streams);
        let place = api.streams.enter(cx.scope().tenant(), most);
        Ok(Self {
            cx,
            http,
            ends: Instant::now() + wait,
            _place: place.map_err(|full| refused(&full, most.0))?,
        })
    }

    /// Reads until there is an event, the time is over, or the server stops.
    async fn read(&self, mut request: FeedRequest) -> Result<FeedPage, ApiError> {
        let api = Api::of(self.http)?;
        let gone = Gone::of(self.http);
        let mut listener = self.cx.app().event_signals().listen();
        loop {
            let page = feed::read(self.cx, &request).await?;
            let is_over = Instant::now() >= self.ends || api.readiness.is_draining();
            if !page.events.is_empty() || is_over {
                return Ok(page);
            }
            request.start = FeedStart::After(page.next);
            tokio::select! {
                () = gone.wait() => return Err(ApiError::new(ErrorCode::RequestTimeout)),
                () = listener.published(self.cx.scope().tenant()) => {}
                () = sleep_until(self.ends.min(Instant::now() + LOOK)) => {}
            }
            self.require_admission(&api).await?;
        }
    }

    /// As for any request with the same credential, so that a wait outlives neither it nor the session.
    async fn require_admission(&self, api: &Api) -> Result<(), ApiError> {
        let credential = api_key::presented(self.http.headers(), api)?;
        let id = self.cx.scope().request().clone();
        let admission = api_key::still_admits(api, &credential, self.cx.origin(), id).await;
        let admission = admission.map_err(ApiError::from)?;
        Ok(admission
            .scope
            .require(tenantry_domain::kernel::Permission::ReadEvents)?)
    }
}

fn refused(full: &Full, most: usize) -> ApiError {
    full.refused(
        format!("A tenant may have {most} event streams and waiting requests at once."),
        "The server's limit of event streams and waiting requests is reached.",
        30,
    )
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
