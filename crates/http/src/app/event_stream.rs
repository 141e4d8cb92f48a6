//! Streams of server-sent events: what every one of them has. A stream takes one of the tenant's places, ends with the credential and its
//! session, after some minutes and when the server stops, and sends a comment when there was nothing to send for a while. The next frames are
//! made when the client has taken the former ones, so a slow client keeps one part of a stream in memory.

use std::time::Duration;

use actix_web::http::header::{self, ContentEncoding, HeaderMap};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::unfold;
use tenantry_domain::kernel::Permission;
use tenantry_tenancy::Cx;
use tokio::time::Instant;

use crate::app::places::{Full, Place};
use crate::connection::connection::Gone;
use crate::extract::api_key::{self, Credential};
use crate::{Api, ApiError};

/// The media type of a stream.
pub(crate) const MEDIA_TYPE: &str = "text/event-stream";

/// How often a stream looks by itself whether there is something to send.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// What a look has found.
pub(crate) enum Look {
    /// There is nothing to send.
    Nothing,
    /// Frames to send.
    Frames(Bytes),
    /// Nothing can be sent any more.
    End,
}

/// What a stream sends.
pub(crate) trait EventSource {
    /// The stream ends when its credential has this permission no more.
    const PERMISSION: Permission;

    /// Returns the context in which the stream was begun.
    fn cx(&self) -> &Cx;

    /// Waits until there may be something to send; at the longest for about a second, so that the credential is looked at again.
    async fn wait(&mut self);

    /// Looks what there is to send.
    async fn look(&mut self) -> Look;

    /// Returns what is sent when there was nothing to send for a while.
    fn heartbeat(&mut self) -> Bytes {
        Bytes::from_static(b": still here\n\n")
    }
}

/// Takes one of the places for streams of the tenant.
///
/// # Errors
/// `rate_limited` when the tenant has as many streams and waiting requests as it may, `unavailable` when the server has.
pub(crate) fn take_place(api: &Api, cx: &Cx) -> Result<Place, ApiError> {
    let most = (api.config.event_streams_per_tenant, api.config.event_streams);
    let place = api.streams.enter(cx.scope().tenant(), most);
    place.map_err(|full| refused(&full, most.0))
}

/// Returns the id of the last event that a client has got, from `Last-Event-ID`. It is empty at the first request of some clients.
pub(crate) fn last_id(headers: &HeaderMap) -> Option<String> {
    let last = headers.get("Last-Event-ID")?;
    let last = String::from_utf8_lossy(last.as_bytes()).into_owned();
    Some(last).filter(|last| !last.is_empty())
}

/// A client that gets this polls meanwhile.
pub(crate) fn refused(full: &Full, most: usize) -> ApiError {
    full.refused(
        format!("A tenant may have {most} event streams and waiting requests at once."),
        "The server's limit of event streams and waiting requests is reached.",
        60,
    )
}

/// Returns the answer that is a stream. It begins with the interval after which a client connects again, and `first`.
pub(crate) fn answer(
    request: &HttpRequest,
    api: Data<Api>,
    (source, credential, place): (impl EventSource + 'static, Credential<'static>, Place),
    first: &[u8],
) -> HttpResponse {
    let now = Instant::now();
    // The first frame goes out at once, so that the client knows that it is connected.
    let opening = [b"retry: 3000\n: connected\n\n".as_slice(), first].concat();
    let stream = EventStream {
        source,
        credential,
        ends: now + api.config.event_stream_lifetime,
        sent_at: now,
        pending: Some(opening.into()),
        gone: Gone::of(request),
        api,
        _place: place,
    };
    let frames = unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, actix_web::Error>(frame), stream))
    });
    HttpResponse::Ok()
        .content_type(MEDIA_TYPE)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // A coding would hold events back until there are enough of them.
        .insert_header(ContentEncoding::Identity)
        // Proxies that collect answers before they pass them on leave this one alone.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(Box::pin(frames))
}

/// An open stream.
struct EventStream<S> {
    source: S,
    api: Data<Api>,
    credential: Credential<'static>,
    pending: Option<Bytes>,
    sent_at: Instant,
    ends: Instant,
    gone: Gone,
    _place: Place,
}

impl<S: EventSource> EventStream<S> {
    /// What is to be sent next, when there is something; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.pending.take() {
                self.sent_at = Instant::now();
                return Some(frame);
            }
            if Instant::now() >= self.ends || self.api.readiness.is_draining() {
                return None;
            }
            tokio::select! {
                // A client that has gone keeps no place.
                () = self.gone.wait() => return None,
                () = self.source.wait() => {}
            }
            if !self.still_admitted().await {
                return None;
            }
            match self.source.look().await {
                Look::Frames(frames) => self.pending = Some(frames),
                Look::End => return None,
                Look::Nothing if self.sent_at.elapsed() >= self.api.config.event_stream_heartbeat => {
                    self.pending = Some(self.source.heartbeat());
                }
                Look::Nothing => {}
            }
        }
    }

    /// As for any request with the same credential, so that a stream outlives neither it nor the session.
    async fn still_admitted(&self) -> bool {
        let cx = self.source.cx();
        let id = cx.scope().request().clone();
        let admission = api_key::still_admits(&self.api, &self.credential, cx.origin(), id).await;
        admission.is_ok_and(|admission| admission.scope.require(S::PERMISSION).is_ok())
    }
}
