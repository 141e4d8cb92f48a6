use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use serde::{Deserialize, Serialize};
use tenantry_domain::events::{CloudEvent, ConsumerName};
use tenantry_domain::kernel::{ErrorCode, Invalid, Permission};
use tenantry_tenancy::events::consumer;
use tenantry_tenancy::events::feed::{self, FeedPage, FeedRequest, FeedStart};
use tenantry_tenancy::events::follow::FeedFollower;
use tokio::time::{Instant, sleep_until};
use utoipa::{IntoParams, ToSchema};

use crate::app::event_stream;
use crate::app::places::Place;
use crate::connection::connection::Gone;
use crate::extract::api_key;
use crate::v1::events::cloud_event::{self, CloudEventDocument};
use crate::v1::events::event_stream::FeedEvents;
use crate::v1::events::event_view::{EventView, PATH, binding};
use crate::{Answer, Api, ApiError, Ctx, Endpoint, Query, permission::ReadEvents};

/// The longest wait for an event, in seconds: shorter than proxies wait for an answer.
const LONGEST_WAIT: u64 = 15;

/// Which events are read.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// The `next_cursor` of the answer before, or `latest` to begin with the next event. Without it the feed begins with the oldest event that is kept.
    #[param(min_length = 1)]
    after: Option<String>,
    /// The name of a consumer: without `after` the feed begins behind the position that is stored for it.
    #[param(min_length = 1, max_length = 64)]
    consumer: Option<String>,
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

/// Events of the feed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventFeed)]
pub(crate) struct FeedView {
    /// The events, the oldest first.
    data: Vec<EventView>,
    /// Whether there is more to read at once. With `types` it can be so without an event here: then only others were found so far.
    has_more: bool,
    /// The `after` of the next request. It is there also when there are no events.
    next_cursor: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/events").without_deadline().get(list));
}

/// Read the event feed
///
/// The events of the tenant in their order, the oldest first. Store `next_cursor` after you have processed the events, here under the name of a
/// `consumer` or elsewhere, and read on with it as `after`: no event is missed, and none comes twice. With `wait` the request waits up to 15 seconds
/// for an event when there is none. A page with `types` may be empty while `has_more` is true: read on. With `Accept: text/event-stream` the answer
/// is a stream of server-sent events: the `id` of each is a cursor, and
/// a client that reconnects with it as `Last-Event-ID` misses none; `limit` and `wait` have no meaning then. Streams and waiting requests take places
/// of a tenant's event streams: others are 429 `rate_limited` or 503 `unavailable` until one is free. A stream ends with the token or key, with the
/// session, and after some minutes, when the client takes what was sent.
/// With `Accept: application/cloudevents-batch+json` the events are CloudEvents 1.0, and `Link` has the next
/// request. A cursor whose events were deleted because of their age is 422 with the code `expired`. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "read_events", tag = "Events",
    params(EventParams, ("Last-Event-ID" = Option<String>, Header, description = "Of a stream: the id of the last event that was received, in place of `after`.")),
    responses((
        status = 200, description = "The events.", headers(("Link")),
        content(
            (FeedView = "application/json"), (Vec<CloudEventDocument> = "application/cloudevents-batch+json"),
            (String = "text/event-stream", example = "id: AAAAAAAAACo\ndata: {\"id\":\"0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14\",\"position\":42}\n\n"),
        ),
    )),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed", "invalid_cursor"]))),
)]
pub(crate) async fn list(cx: Ctx<ReadEvents>, http: HttpRequest, query: Query<EventParams>) -> Answer {
    if accepts(&http, event_stream::MEDIA_TYPE) {
        let last = event_stream::last_id(http.headers());
        let request = query.0.request(&cx, last.as_deref()).await?;
        return FeedEvents::stream(cx, &http, request).await;
    }
    let request = query.0.request(&cx, None).await?;
    let page = match query.0.wait()? {
        None => feed::read(&cx, &request).await?,
        Some(wait) => Waiting::begin(&cx, &http, wait)?.read(request).await?,
    };
    Ok(query.0.answer(&cx, &http, page))
}

/// Whether a request asks for a media type. Its quality is not compared: who names one of these formats wants it.
fn accepts(request: &HttpRequest, media_type: &str) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT);
    let mut kinds = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case(media_type)
    })
}

impl EventParams {
    async fn request(&self, cx: &Ctx<ReadEvents>, last_id: Option<&str>) -> Result<FeedRequest, ApiError> {
        let limit = self.limit.unwrap_or(50);
        if !(1..=100).contains(&limit) {
            let detail = "must be an integer from 1 to 100";
            return Err(Invalid::one("/query/limit", "out_of_range", detail).into());
        }
        Ok(FeedRequest {
            start: self.start(cx, last_id).await?,
            kinds: cx.ports().event_types.named(self.types.as_deref())?,
            limit,
        })
    }

    async fn start(&self, cx: &Ctx<ReadEvents>, last_id: Option<&str>) -> Result<FeedStart, ApiError> {
        match (last_id.or(self.after.as_deref()), self.consumer.as_deref()) {
            (Some("latest"), _) => Ok(FeedStart::Latest),
            (Some(cursor), _) => Ok(FeedStart::After(binding(cx.scope()).open_number(cursor)?)),
            (None, Some(name)) => Ok(consumer::start(cx, ConsumerName::parse(name).as_ref()).await?),
            (None, None) => Ok(FeedStart::Oldest),
        }
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
        let next_cursor = binding(cx.scope()).seal_number(page.next);
        let mut response = HttpResponse::Ok();
        response.insert_header((
            header::LINK,
            format!("<{}>; rel=\"next\"", self.link(&next_cursor)),
        ));
        response.insert_header((header::VARY, header::ACCEPT.as_str()));
        if accepts(http, cloud_event::BATCH) {
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
        Ok(Self {
            cx,
            http,
            ends: Instant::now() + wait,
            _place: event_stream::take_place(&api, cx)?,
        })
    }

    /// Reads until there is an event, the time is over, or the server stops.
    async fn read(&self, mut request: FeedRequest) -> Result<FeedPage, ApiError> {
        let api = Api::of(self.http)?;
        let gone = Gone::of(self.http);
        let mut follower = FeedFollower::new(self.cx)?;
        let mut page = feed::read(self.cx, &request).await?;
        loop {
            let is_over = Instant::now() >= self.ends || api.readiness.is_draining();
            if !page.events.is_empty() || is_over {
                return Ok(page);
            }
            request.start = FeedStart::After(page.next);
            if !page.has_more {
                tokio::select! {
                    () = gone.wait() => return Err(ApiError::new(ErrorCode::RequestTimeout)),
                    () = follower.wait() => {}
                    () = sleep_until(self.ends) => {}
                }
            }
            self.require_admission(&api).await?;
            if page.has_more || follower.is_behind(self.cx, page.next).await? {
                page = feed::read(self.cx, &request).await?;
            }
        }
    }

    /// As for any request with the same credential, so that a wait outlives neither it nor the session.
    async fn require_admission(&self, api: &Api) -> Result<(), ApiError> {
        let credential = api_key::presented(self.http.headers(), api)?;
        let id = self.cx.scope().request().clone();
        let admission = api_key::still_admits(api, &credential, self.cx.origin(), id).await;
        let admission = admission.map_err(ApiError::from)?;
        Ok(admission.scope.require(Permission::ReadEvents)?)
    }
}
