//! HTTP/2 (RFC 9113), for clients that begin with it.
//!
//! actix-http's own announces no maximum of streams, takes no notice of one that is reset before the next byte is to be sent,
//! and goes on for a client whose windows are closed. Here a connection has a bounded number of streams, its answers wait for
//! the client within bounds, and an answer ends with its stream.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_http::{
    BoxedPayloadStream, Method, Payload, Request, Response, ResponseHead, StatusCode, Uri, Version,
    body::{BodySize, BoxBody, MessageBody},
    error::PayloadError,
    header::{self, HeaderName, HeaderValue},
};
use actix_server::GracefulShutdownSignal;
use actix_service::Service;
use actix_web::{HttpMessage as _, rt::spawn, web::Bytes};
use futures_util::{Stream, future::poll_fn};
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::Api;
use crate::connection::connection::Connection;

/// How many streams of a connection may be open at once.
const STREAMS: u32 = 100;

/// The longest head of a request, as HTTP/2 counts it: in bytes, with 32 more for each field. It is much less than HTTP/1 may
/// have, since the heads of all streams of a connection may be here at once.
const LONGEST_HEAD: u32 = 16 * 1024;

/// How many bytes the heads of all requests of a connection may have together that are not answered yet, counted in the same
/// way. A further stream is refused, and its client may send the request again (RFC 9113 section 8.7).
///
/// Few bytes can stand for a long head: one is enough for a field of the static table.
const HEADS: usize = 4 * 1024 * STREAMS as usize;

/// How much of earlier heads a client may refer to: nothing, so that fewer short heads stand for long ones. h2 does not force
/// a client to comply: what a client keeps on referring to is bound by [`HEADS`] alone.
const HEADER_TABLE: u32 = 0;

/// How many bytes of a request's body may be unread, and of all bodies of a connection: as much as of each, so that a body
/// that is not read yet keeps no other from coming.
const STREAM_WINDOW: u32 = 32 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// How many bytes of an answer are on their way to the socket at once.
const SEND_BUFFER: usize = 16 * 1024;

/// A connection and who serves it.
pub(crate) struct Http2 {
    pub connection: Rc<Connection>,
    pub api: Arc<Api>,
    pub peer: Option<SocketAddr>,
    /// How long a client may take to let go of a connection that is given up.
    pub disconnect_timeout: Duration,
}

/// Serves a connection to its end.
///
/// # Errors
/// Those of the socket, and of a client that breaks the protocol.
pub(crate) async fn serve<T, S>(
    server: Http2,
    socket: T,
    application: Rc<S>,
    stopping: GracefulShutdownSignal,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request> + 'static,
    S::Response: Into<Response<BoxBody>>,
    S::Error: Into<Response<BoxBody>>,
    S::Future: 'static,
{
    let server = Rc::new(server);
    let mut streams = Builder::new()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(LONGEST_HEAD)
        .header_table_size(HEADER_TABLE)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(socket)
        .await?;
    server.connection.greeted();
    let places = Arc::new(Semaphore::new(STREAMS as usize));
    let heads = Arc::new(Semaphore::new(HEADS));
    let mut is_stopping = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.connection.given_up() => {
                tracing::debug!("a client takes no answers; its connection is closed");
                streams.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let closed = poll_fn(|cx| streams.poll_closed(cx));
                return timeout(server.disconnect_timeout, closed).await.unwrap_or(Ok(()));
            }
            accepted = streams.accept() => accepted,
            () = stopping.notified(), if !is_stopping => {
                is_stopping = true;
                streams.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (request, mut answer) = accepted?;
        // The protocol does not count streams that were reset; what they have begun may still be going on.
        let place = Arc::clone(&places).try_acquire_owned();
        let head = Arc::clone(&heads).try_acquire_many_owned(length(&request));
        let (Ok(place), Ok(head)) = (place, head) else {
            answer.send_reset(Reason::REFUSED_STREAM);
            continue;
        };
        let (server, application) = (Rc::clone(&server), Rc::clone(&application));
        // Each request waits for its turn there; so what came together is taken here without a pause, and what is refused
        // of it takes no memory.
        spawn(async move {
            server.answer((request, head), answer, application.as_ref()).await;
            drop(place);
        });
    }
}

/// The length of a request's head as HTTP/2 counts it, in bytes.
fn length<T>(request: &http::Request<T>) -> u32 {
    let field = |name: usize, value: usize| name + value + 32;
    let uri = request.uri();
    let target = [
        (":method", request.method().as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (
            ":authority",
            uri.authority().map_or("", |authority| authority.as_str()),
        ),
        (":path", uri.path_and_query().map_or("", |path| path.as_str())),
    ];
    let target = target.map(|(name, value)| field(name.len(), value.len()));
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| field(name.as_str().len(), value.len()));
    u32::try_from(target.into_iter().chain(fields).sum::<usize>()).unwrap_or(u32::MAX)
}

/// The target of a request as the framework knows it. A URI that is written out has no place for `*`, which is a path of its own.
fn target(uri: &http::Uri) -> Option<Uri> {
    if uri.path() != "*" {
        return uri.to_string().parse().ok();
    }
    let mut parts = Uri::builder().path_and_query("*");
    if let Some(scheme) = uri.scheme_str() {
        parts = parts.scheme(scheme);
    }
    if let Some(authority) = uri.authority() {
        parts = parts.authority(authority.as_str());
    }
    parts.build().ok()
}

impl Http2 {
    /// The request as the framework knows it; none when it is none.
    fn request(&self, request: http::Request<RecvStream>) -> Option<Request> {
        let (parts, body) = request.into_parts();
        let payload = if body.is_end_stream() {
            Payload::None
        } else {
            Payload::Stream {
                payload: Box::pin(RequestBody(body)) as BoxedPayloadStream,
            }
        };
        let mut request = Request::with_payload(payload);
        let head = request.head_mut();
        head.method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
        head.uri = target(&parts.uri)?;
        head.version = Version::HTTP_2;
        head.peer_addr = self.peer;
        for (name, value) in &parts.headers {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
            let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            head.headers.append(name, value);
        }
        request.extensions_mut().insert(Rc::clone(&self.connection));
        Some(request)
    }

    /// Answers a request, whose head is counted until there is an answer. One whose stream is reset before its turn is not
    /// begun, and an answer ends with its stream.
    async fn answer<S>(
        &self,
        (request, head): (http::Request<RecvStream>, OwnedSemaphorePermit),
        mut answer: SendResponse<Bytes>,
        application: &S,
    ) where
        S: Service<Request>,
        S::Response: Into<Response<BoxBody>>,
        S::Error: Into<Response<BoxBody>>,
    {
        let is_head = request.method() == http::Method::HEAD;
        let _way = self.connection.begin();
        tokio::select! {
            biased;
            _ = poll_fn(|cx| answer.poll_reset(cx)) => return,
            () = self.connection.turn() => {}
        }
        let Some(request) = self.request(request) else {
            return answer.send_reset(Reason::PROTOCOL_ERROR);
        };
        // What has begun is done to its end: to break it off would cost a database connection each time.
        let response = application.call(request).await;
        drop(head);
        let response: Response<BoxBody> = response.map_or_else(Into::into, Into::into);
        let (response, body) = response.into_parts();
        let size = body.size();
        let is_empty = is_head || matches!(size, BodySize::None | BodySize::Sized(0));
        let head = self.head(response.head(), size);
        // An error means that the stream or the connection has ended.
        let Ok(mut stream) = answer.send_response(head, is_empty) else {
            return;
        };
        if is_empty {
            return;
        }
        let mut body = pin!(body);
        loop {
            let chunk = tokio::select! {
                biased;
                _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
                chunk = poll_fn(|cx| body.as_mut().poll_next(cx)) => chunk,
            };
            match chunk {
                Some(Ok(chunk)) => {
                    if !self.send(&mut stream, chunk).await {
                        return;
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "an answer could not be made to its end");
                    return stream.send_reset(Reason::INTERNAL_ERROR);
                }
                None => {
                    let _ = stream.send_data(Bytes::new(), true);
                    return;
                }
            }
        }
    }

    /// Sends part of an answer as the client has room for it; whether all of it was sent. A stream whose client has no room for
    /// too long is reset.
    async fn send(&self, stream: &mut SendStream<Bytes>, mut chunk: Bytes) -> bool {
        let mut unread = self.connection.hold(chunk.len());
        while !chunk.is_empty() {
            stream.reserve_capacity(chunk.len().min(SEND_BUFFER));
            let deadline = unread.deadline();
            // The room that is there already is not announced again.
            let room = Connection::wait(Some(&self.connection), deadline, |cx| match stream.capacity() {
                0 => stream.poll_capacity(cx),
                room => Poll::Ready(Some(Ok(room))),
            });
            let room = match room.await {
                Some(Some(Ok(room))) => room,
                // It was reset, or the connection has ended.
                Some(_) => return false,
                None => {
                    stream.send_reset(Reason::CANCEL);
                    unread.give_up();
                    return false;
                }
            };
            let part = chunk.split_to(room.min(chunk.len()));
            let count = part.len();
            if stream.send_data(part, false).is_err() {
                return false;
            }
            unread.took(count);
        }
        true
    }

    /// The head of an answer. Fields that are about an HTTP/1 connection are left out.
    fn head(&self, of: &ResponseHead, size: BodySize) -> http::Response<()> {
        let mut head = http::Response::new(());
        *head.status_mut() = http::StatusCode::from_u16(of.status.as_u16()).unwrap_or_default();
        let fields = head.headers_mut();
        let is_sized = size != BodySize::Stream;
        for (name, value) in &of.headers {
            if is_of_http1(name) || (is_sized && name == header::CONTENT_LENGTH) {
                continue;
            }
            append(fields, name.as_str(), value.as_bytes());
        }
        let has_no_length = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&of.status);
        if let BodySize::Sized(length) = size
            && !has_no_length
        {
            append(fields, "content-length", length.to_string().as_bytes());
        }
        if !of.headers.contains_key(header::DATE) {
            let now = self.api.app.ports.clock.now();
            let date = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            append(fields, "date", date.as_bytes());
        }
        head
    }
}

fn is_of_http1(name: &HeaderName) -> bool {
    let framing = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    framing.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Adds a field, which is as good in one version of the `http` crate as in the other.
fn append(fields: &mut http::HeaderMap, name: &str, value: &[u8]) {
    let name = http::HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
        fields.append(name, value);
    }
}

/// The body of a request. The client may send more of it as it is read.
struct RequestBody(RecvStream);

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let broken = |error: h2::Error| PayloadError::Io(std::io::Error::other(error));
        self.0.poll_data(cx).map(|chunk| {
            let chunk = chunk?.and_then(|chunk| {
                self.0.flow_control().release_capacity(chunk.len())?;
                Ok(chunk)
            });
            Some(chunk.map_err(broken))
        })
    }
}
