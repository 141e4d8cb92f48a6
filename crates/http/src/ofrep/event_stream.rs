use std::borrow::Cow;

use actix_web::{HttpRequest, web::Bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tenantry_domain::kernel::{ErrorCode, Permission};
use tenantry_tenancy::Cx;
use tenantry_tenancy::flags::flag;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::app::event_stream::{self, EventSource, LOOK, Look};
use crate::extract::{
    api_key::{self, Credential},
    query,
};
use crate::{Answer, Api, ApiError, Ctx, permission::ReadFeatures};

/// Where the stream is.
pub(crate) const PATH: &str = "/ofrep/v1/events";

/// What tickets are sealed for.
const SEALED_FOR: &str = "ticket of an event stream";

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
    let place = event_stream::take_place(&api, &cx)?;
    let set = flag::of(&cx).await?;
    let revision = flag::revision(&cx, &set);
    let heard = match event_stream::last_id(request.headers()) {
        Some(heard) => Some(heard),
        None => parameter(&request, "since")?,
    };
    let missed = heard.is_some_and(|heard| heard != revision);
    let missed = if missed {
        refetch(&revision, &cx)
    } else {
        Default::default()
    };
    let credential = credential(&request, &api)?.into_owned();
    // What is looked at is cached, so that looking costs microseconds, and it notices schedules and changes by other instances too.
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let source = FlagChanges { cx, revision, ticks };
    Ok(event_stream::answer(
        &request,
        api,
        (source, credential, place),
        missed.as_bytes(),
    ))
}

/// Changes of the flags of a tenant.
struct FlagChanges {
    cx: Ctx<ReadFeatures>,
    revision: String,
    ticks: Interval,
}

impl EventSource for FlagChanges {
    const PERMISSION: Permission = Permission::ReadFeatures;

    fn cx(&self) -> &Cx {
        &self.cx
    }

    async fn wait(&mut self) {
        self.ticks.tick().await;
    }

    async fn look(&mut self) -> Look {
        // A store that is away now is asked again the next time.
        let Ok(set) = flag::of(&self.cx).await else {
            return Look::Nothing;
        };
        let revision = flag::revision(&self.cx, &set);
        if revision == self.revision {
            return Look::Nothing;
        }
        let frame = refetch(&revision, &self.cx);
        self.revision = revision;
        Look::Frames(Bytes::from(frame))
    }
}

fn refetch(revision: &str, cx: &Ctx<ReadFeatures>) -> String {
    let data = json!({
        "type": "refetchEvaluation",
        "etag": format!("\"{revision}\""),
        "lastModified": cx.now().timestamp(),
    });
    format!("id: {revision}\nevent: message\ndata: {data}\n\n")
}
