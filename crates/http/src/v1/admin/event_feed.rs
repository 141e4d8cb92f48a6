use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tenantry_domain::kernel::{ErrorCode, Invalid, OperatorId, TenantId};
use tenantry_domain::operations::{OperatorPermission, PlatformEvent};
use tenantry_tenancy::admin::operator_feed::{self, LogPage, LogRequest, LogStart};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::app::event_stream::LOOK;
use crate::app::places::Place;
use crate::connection::connection::Gone;
use crate::extract::cursor::Binding;
use crate::extract::operator_permission::ReadRows;
use crate::extract::page::Lists as _;
use crate::middleware::{authenticate::bearer, request::RequestContext};
use crate::{Answer, Api, ApiError, OperatorCtx};

/// The path of the list, which cursors are bound to.
const PATH: &str = "/api/v1/admin/events";

/// The longest wait for an event, in seconds: shorter than proxies wait for an answer.
const LONGEST_WAIT: u64 = 15;

/// How long a waiting request reads nothing after a page without an event of its types.
const PAUSE: Duration = Duration::from_secs(2);

/// How many requests of an operator may wait at once on a server.
const WAITING: usize = 5;

/// A request for events of all tenants in the order in which they were published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedParams<'q> {
    pub after: Option<&'q str>,
    pub wait: Option<u64>,
    pub tenant: Option<TenantId>,
    pub types: Option<&'q str>,
    pub limit: u32,
}

/// Events of several tenants in the order in which they were published.
#[derive(Serialize)]
struct FeedView {
    data: Vec<PlatformEvent>,
    has_more: bool,
    next_cursor: String,
}

impl FeedParams<'_> {
    /// Whether the parameters go together; `is_mixed` when there are some of the list too.
    ///
    /// # Errors
    /// [`Invalid`] with the parameter at fault.
    pub(crate) fn checked(self, is_mixed: bool) -> Result<Self, Invalid> {
        let wrong = |pointer: &str, detail: &str| Err(Invalid::one(pointer, "out_of_range", detail));
        match (self.after, self.wait) {
            (None, _) => wrong("/query/wait", "goes together with `after`"),
            _ if is_mixed => wrong(
                "/query/after",
                "does not go together with `cursor`, `from` and `to`",
            ),
            (_, Some(seconds)) if seconds > LONGEST_WAIT => wrong(
                "/query/wait",
                &format!("must be an integer from 0 to {LONGEST_WAIT}"),
            ),
            _ => Ok(self),
        }
    }

    fn start(&self, binding: Binding) -> Result<LogStart, ApiError> {
        match self.after {
            None | Some("oldest") => Ok(LogStart::Oldest),
            Some("latest") => Ok(LogStart::Latest),
            Some(cursor) => Ok(LogStart::Behind(binding.open_log(cursor)?)),
        }
    }

    /// The address of the next request. Names of types need no encoding.
    fn link(&self, cursor: &str) -> String {
        let mut link = format!("{PATH}?after={cursor}&limit={}", self.limit);
        if let Some(tenant) = self.tenant {
            link += &format!("&tenant_id={tenant}");
        }
        if let Some(types) = self.types {
            link += &format!("&types={types}");
        }
        if let Some(wait) = self.wait {
            link += &format!("&wait={wait}");
        }
        link
    }
}

/// Answers with the next events, and waits for one where the request asks for that.
pub(crate) async fn answer(
    (cx, http): (&OperatorCtx<ReadRows>, &HttpRequest),
    reason: &str,
    params: FeedParams<'_>,
    kinds: Vec<&'static str>,
) -> Answer {
    let binding = Binding::new(cx.scope().binds_to(), PATH, &[]);
    let mut request = LogRequest {
        start: params.start(binding)?,
        tenant: params.tenant,
        kinds,
        limit: params.limit,
    };
    let page = match params.wait.unwrap_or(0) {
        0 => read(cx, reason, &mut request).await?,
        seconds => wait((cx, http), reason, request, seconds).await?,
    };
    let next_cursor = binding.seal_log(page.next);
    let link = format!("<{}>; rel=\"next\"", params.link(&next_cursor));
    Ok(HttpResponse::Ok()
        .insert_header((header::LINK, link))
        .json(FeedView {
            data: page.events,
            has_more: page.has_more,
            next_cursor,
        }))
}

/// Reads a page when there is something behind the place at which the request begins, and moves the request behind it.
async fn read(
    cx: &OperatorCtx<ReadRows>,
    reason: &str,
    request: &mut LogRequest,
) -> Result<LogPage, ApiError> {
    let (place, is_there) = operator_feed::look(cx, reason, (request.start, request.tenant)).await?;
    request.start = LogStart::Behind(place);
    let page = if is_there {
        operator_feed::read(cx, reason, request).await?
    } else {
        LogPage {
            events: Vec::new(),
            next: place,
            has_more: false,
        }
    };
    request.start = LogStart::Behind(page.next);
    Ok(page)
}

/// Reads until there is an event, the time is over, or the server stops. A page that is empty, since it has only events of other types, was a
/// read that is recorded: the next one comes after a pause, whatever is published meanwhile.
async fn wait(
    (cx, http): (&OperatorCtx<ReadRows>, &HttpRequest),
    reason: &str,
    mut request: LogRequest,
    seconds: u64,
) -> Result<LogPage, ApiError> {
    let api = Api::of(http)?;
    let _place = take_place(&api, cx)?;
    let (gone, ends) = (Gone::of(http), Instant::now() + Duration::from_secs(seconds));
    let mut log = cx.app().event_signals().log();
    loop {
        log.mark_unchanged();
        let before = request.start;
        let page = read(cx, reason, &mut request).await?;
        let is_over = Instant::now() >= ends || api.readiness.is_draining();
        // An empty page with more behind it ends the wait too, so that a reader who is far behind catches up.
        if !page.events.is_empty() || page.has_more || is_over {
            return Ok(page);
        }
        let was_read = !request.kinds.is_empty() && request.start != before;
        tokio::select! {
            () = gone.wait() => return Err(ApiError::new(ErrorCode::RequestTimeout)),
            _ = log.changed(), if !was_read => {}
            () = sleep_until(ends.min(Instant::now() + if was_read { PAUSE } else { LOOK })) => {}
        }
        require_admission((cx, http), &api).await?;
    }
}

/// As for any request with the same token, so that a wait does not outlive it.
async fn require_admission(
    (cx, http): (&OperatorCtx<ReadRows>, &HttpRequest),
    api: &Api,
) -> Result<(), ApiError> {
    let gate = &api.app.ports.operator_gate;
    let id = RequestContext::of(http)?.id.clone();
    let scope = gate.bearer(bearer(http.headers())?, id).await?;
    let again = tenantry_tenancy::OperatorCx::new(Arc::clone(&api.app), scope, cx.origin().clone());
    Ok(again.require(OperatorPermission::ReadRows)?)
}

fn take_place(api: &Api, cx: &OperatorCtx<ReadRows>) -> Result<Place, ApiError> {
    let holder = cx.scope().operator().map_or_else(Uuid::nil, OperatorId::uuid);
    let place = api.streams.enter(holder, (WAITING, api.config.event_streams));
    place.map_err(|full| {
        full.refused(
            format!("{WAITING} requests of an operator may wait at once."),
            "The server's limit of event streams and waiting requests is reached.",
            30,
        )
    })
}
