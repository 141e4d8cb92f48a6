use std::{borrow::Cow, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentEncoding},
    web::{Bytes, Data},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::stream::unfold;
use serde_json::json;
use tenantry_domain::kernel::{ErrorCode, Permission};
use tenantry_tenancy::flags::flag;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::app::places::{Full, Place};
use crate::connection::connection::Gone;
use crate::extract::{
    api_key::{self, Credential},
    query,
};
use crate::{Answer, Api, ApiError, Ctx, HttpConfig, permission::ReadFeatures};

/// Where the stream is.
pub(crate) const PATH: &str = "/ofrep/v1/events";

/// What tickets are sealed for.
const SEALED_FOR: &str = "ticket of an event stream";

/// How often a stream looks whether anything is different. What it looks at is remembered, so that looking costs
/// microseconds, and it notices schedules and changes that nobody announced as well as those that were.
const LOOK: Duration = Duration::from_secs(1);

/// The address of the stream for the bearer of a token, who has seen this revision.
///
/// A browser's `EventSource` can send no `Authorization`, so the address has a ticket in it: the token, sealed. It opens
/// nothing but this stream, and ends with the token. An API key gets no ticket: it lives too long for an address, and programs
/// can send headers.
pub(crate) fn address(api: &Api, credential: &Credential<'_>, revision: &str) -> String {
    let Credential::Token(token) = credential else {
        return format!("{PATH}?since={revision}");
    };
    let sealed = api.app.ports.seal.seal(SEALED_FOR, token.as_bytes());
    format!(
        "{PATH}?since={revision}&ticket={}",
        URL_SAFE_NO_PAD.encode(sealed)
    )
}

/// Returns the credential that admits a request for the stream: its own, or the token in its ticket.
///
/// # Errors
/// [`ErrorCode::Unauthenticated`] without a credential; those of a malformed query.
pub(crate) fn credential<'a>(request: &'a HttpRequest, api: &Api) -> Result<Credential<'a>, ApiError> {
    match parameter(request, "ticket")? {
        Some(ticket) if !api_key::is_presented(request.headers()) => {
            let token = open(api, &ticket).ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated))?;
            Ok(Credential::Token(Cow::Owned(token)))
        }
        _ => api_key::presented(request.headers(), api),
    }
}

/// Returns the token in a ticket that a request has beside its bearer token. It admits nobody, but names a tenant like a
/// header does. A ticket that cannot be opened names none.
///
/// # Errors
/// Those of a malformed query.
pub(crate) fn second_token(request: &HttpRequest, api: &Api) -> Result<Option<String>, ApiError> {
    let ticket = parameter(request, "ticket")?.filter(|_| api_key::is_presented(request.headers()));
    Ok(ticket.and_then(|ticket| open(api, &ticket)))
}

fn open(api: &Api, ticket: &str) -> Option<String> {
    let sealed = URL_SAFE_NO_PAD.decode(ticket).ok()?;
    let token = api.app.ports.seal.open(SEALED_FOR, &sealed)?;
    String::from_utf8(token).ok()
}

fn parameter(request: &HttpRequest, name: &str) -> Result<Option<String>, ApiError> {
    let pairs = query::pairs(request.query_string())?;
    let found = pairs.into_iter().find(|(given, _)| given == name);
    Ok(found.map(|(_, value)| value))
}

/// Stream feature flag changes
///
/// Server-sent events of OFREP 0.3.0. The stream ends with the token, with the session, and after some minutes. A
/// client that reconnects with `Last-Event-ID` misses no change. Minimum role: viewer.
#[utoipa::path(
    get, path = "/ofrep/v1/events", operation_id = "ofrep_events", tag = "Features",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was heard."),
        ("since" = Option<String>, Query, description = "The version that was seen, in its place."),
        ("ticket" = Option<String>, Query, description = "In place of a token, for browsers; comes with an evaluation of all flags. Beside a token it must be of the same tenant."),
    ),
    responses((
        status = 200, content_type = "text/event-stream", body = String,
        description = "An event for each change: its data is `{\"type\": \"refetchEvaluation\", …}`.",
        example = "id: 42\nevent: message\ndata: {\"type\":\"refetchEvaluation\",\"lastModified\":1771622898}\n\n",
    )),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed"]))),
)]
pub(crate) async fn events(cx: Ctx<ReadFeatures>, request: HttpRequest) -> Answer {
    let api = Api::of(&request)?;
    let most = (api.config.event_streams_per_tenant, api.config.event_streams);
    let place = api.streams.enter(cx.scope().tenant(), most);
    let place = place.map_err(|full| refused(&full, &api.config))?;
    let set = flag::of(&cx).await?;
    let revision = flag::revision(&cx, &set);
    let heard = request.headers().get("Last-Event-ID");
    let heard = heard.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let heard = match heard {
        Some(heard) => Some(heard),
        None => parameter(&request, "since")?,
    };
    let missed = heard.is_some_and(|heard| heard != revision);
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let now = Instant::now();
    let stream = EventStream {
        credential: credential(&request, &api)?.into_owned(),
        ends: now + api.config.event_stream_lifetime,
        spoke: now,
        pending: Some(opening(missed.then_some(&revision), &cx)),
        revision,
        ticks,
        cx,
        api,
        gone: Gone::of(&request),
        _place: place,
    };
    let frames = unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, actix_web::Error>(frame), stream))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // A coding would hold events back until there are enough of them.
        .insert_header(ContentEncoding::Identity)
        // Proxies that collect answers before they pass them on leave this one alone.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(Box::pin(frames)))
}

/// A client that hears this polls meanwhile.
fn refused(full: &Full, config: &HttpConfig) -> ApiError {
    let most = config.event_streams_per_tenant;
    full.refused(
        format!("A tenant may have {most} streams open at once."),
        "As many streams are open as this server has places for.",
        60,
    )
}

/// An open stream.
struct EventStream {
    cx: Ctx<ReadFeatures>,
    api: Data<Api>,
    credential: Credential<'static>,
    revision: String,
    pending: Option<Bytes>,
    ticks: Interval,
    spoke: Instant,
    ends: Instant,
    gone: Gone,
    _place: Place,
}

impl EventStream {
    /// What is to be sent next, when there is something; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.pending.take() {
                self.spoke = Instant::now();
                return Some(frame);
            }
            if Instant::now() >= self.ends || self.api.readiness.is_draining() {
                return None;
            }
            tokio::select! {
                // A client that has gone keeps no place.
                () = self.gone.wait() => return None,
                _ = self.ticks.tick() => {}
            }
            if !self.still_admitted().await {
                return None;
            }
            self.look().await;
        }
    }

    /// As for any request with the same credential, so that a stream outlives neither it nor the session.
    async fn still_admitted(&self) -> bool {
        let request = self.cx.scope().request().clone();
        let admission = api_key::still_admits(&self.api, &self.credential, self.cx.origin(), request).await;
        admission.is_ok_and(|admission| admission.scope.require(Permission::ReadFeatures).is_ok())
    }

    async fn look(&mut self) {
        // A store that is away now is asked again the next time.
        if let Ok(set) = flag::of(&self.cx).await {
            let revision = flag::revision(&self.cx, &set);
            if revision != self.revision {
                self.pending = Some(refetch(&revision, &self.cx).into());
                self.revision = revision;
            }
        }
        if self.pending.is_none() && self.spoke.elapsed() >= self.api.config.event_stream_heartbeat {
            self.pending = Some(Bytes::from_static(b": still here\n\n"));
        }
    }
}

/// The first frame goes out at once, so that the client knows that it is heard.
fn opening(missed: Option<&String>, cx: &Ctx<ReadFeatures>) -> Bytes {
    let missed = missed.map(|revision| refetch(revision, cx)).unwrap_or_default();
    format!("retry: 3000\n: connected\n\n{missed}").into()
}

fn refetch(revision: &str, cx: &Ctx<ReadFeatures>) -> String {
    let data = json!({
        "type": "refetchEvaluation",
        "etag": format!("\"{revision}\""),
        "lastModified": cx.now().timestamp(),
    });
    format!("id: {revision}\nevent: message\ndata: {data}\n\n")
}
