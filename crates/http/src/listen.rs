//! The server's sockets.
//!
//! actix-web's own `HttpServer` takes its sockets as they are. That has four faults for a service that faces clients who mean
//! no good: its timeouts run on while the server itself is late, so that a complete request is answered 408 because its bytes
//! lay unread; it goes on answering a client who reads none of the answers; requests that were sent one behind the other are
//! answered without a pause for other connections; and a request that cannot be read is answered without a body. So the same
//! parts are put together here around a [`Socket`] that knows better.

use std::{
    io::{self, IoSlice},
    net::{SocketAddr, TcpListener},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{HttpService, KeepAlive, Protocol, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{Error, dev::AppConfig, http::StatusCode};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until, timeout_at},
};

use crate::{
    Api, ApiError, app,
    connection::{Connection, Patience},
    observe::LONGEST_TARGET,
    request::RequestContext,
};

/// How the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenSettings {
    /// Threads that serve; at least 1.
    pub workers: usize,
    /// Connections of each thread.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request.
    pub head_timeout: Duration,
    /// How long a connection may be idle, or its client take nothing of an answer.
    pub idle_timeout: Duration,
    /// How long a client may take to let go of a connection that is closed.
    pub disconnect_timeout: Duration,
    /// How long requests may take to finish when the server stops, in seconds.
    pub shutdown_seconds: u64,
}

/// Serves an API on a listener: HTTP/1.1, and HTTP/2 for clients that begin with it. `api` is called once on each thread. The
/// server runs once its future is polled, and takes no signals.
///
/// # Errors
/// Those of the operating system.
pub fn listen<F>(api: F, listener: TcpListener, settings: ListenSettings) -> io::Result<Server>
where
    F: Fn() -> Api + Send + Clone + 'static,
{
    let builder = ServerBuilder::new()
        .workers(settings.workers)
        .max_concurrent_connections(settings.max_connections)
        .shutdown_timeout(settings.shutdown_seconds)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let patience = Patience {
        head: settings.head_timeout,
        idle: settings.idle_timeout,
    };
    let service = move || {
        let api = api();
        let (stop, stopping) = (stopping.clone(), stopping.clone());
        let application = app(api.clone())
            .into_factory()
            .map_err(|error: Error| error.error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stop = stop.clone();
                async move { stop.notified().await }
            })
            // What the client takes too long for is told by the socket.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(settings.disconnect_timeout)
            .on_connect_ext(|socket: &Socket, data| {
                data.insert(Rc::clone(&socket.connection));
            })
            .finish(map_config(application, |()| AppConfig::default()));
        let api = Arc::new(api);
        fn_service(move |stream: TcpStream| accept(stream, patience, Arc::clone(&api), stopping.clone()))
            .and_then(http)
    };
    Ok(builder.listen("tenantry", listener, service)?.run())
}

/// With these bytes a client begins that speaks HTTP/2 without having asked (RFC 9113 section 3.4).
const PREFACE: &[u8; 12] = b"PRI * HTTP/2";

/// A stream with the protocol that the client's first bytes are of.
async fn accept(
    stream: TcpStream,
    patience: Patience,
    api: Arc<Api>,
    stopping: GracefulShutdownSignal,
) -> Result<(Socket, Protocol, Option<SocketAddr>), DispatchError> {
    // Answers are written whole; what is left of one is not to wait for the client to confirm the rest.
    let _ = stream.set_nodelay(true);
    let (opened, peer) = (Instant::now(), stream.peer_addr().ok());
    let first = tokio::select! {
        biased;
        first = timeout_at(opened + patience.head, begins_with(&stream)) => first,
        () = stopping.notified() => return Err(DispatchError::DisconnectTimeout),
    };
    let protocol = first.map_err(|_| DispatchError::SlowRequestTimeout)??;
    let connection = Rc::new(Connection::open(protocol, patience, opened));
    let socket = Socket {
        stream,
        connection,
        api,
        woken_at: opened + patience.head,
        doubted: None,
        timer: Box::pin(sleep_until(opened + patience.head)),
    };
    Ok((socket, protocol, peer))
}

async fn begins_with(stream: &TcpStream) -> io::Result<Protocol> {
    let mut first = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        if count == PREFACE.len() && first == *PREFACE {
            return Ok(Protocol::Http2);
        }
        if count == 0 || !PREFACE.starts_with(&first[..count]) {
            return Ok(Protocol::Http1);
        }
        // There is no waiting for more than what there is.
        sleep(MOMENT).await;
    }
}

/// A client's socket.
struct Socket {
    stream: TcpStream,
    connection: Rc<Connection>,
    api: Arc<Api>,
    timer: Pin<Box<Sleep>>,
    /// When the timer rings.
    woken_at: Instant,
    /// The deadline that has been found to be past, while the framework had yet to look at what was read.
    doubted: Option<Instant>,
}

/// After this time a client that seems to be late is looked at again.
const MOMENT: Duration = Duration::from_millis(1);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let waits = this.connection.is_blocked() && this.connection.is_http1();
        if !this.connection.reads(cx) || waits {
            this.connection.rests();
            return this.watch(cx);
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                this.connection.heard(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(outcome) => {
                this.connection.ended();
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                if tokio::task::coop::has_budget_remaining() {
                    this.connection.is_read();
                }
                this.connection.rests();
                this.watch(cx)
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut bytes = bytes;
        if this.connection.is_premature() {
            match bytes.windows(CONTINUE.len()).position(|part| part == CONTINUE) {
                Some(0) => {
                    this.connection.withheld();
                    return Poll::Ready(Ok(CONTINUE.len()));
                }
                Some(before) => bytes = &bytes[..before],
                None => {}
            }
        }
        if let Some(status) = this.bare_refusal(bytes) {
            let problem = refusal(status, &this.api);
            // Whether all of it is taken or not, it is the last that this client gets.
            ready!(Pin::new(&mut this.stream).poll_write(cx, &problem))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let taken = Pin::new(&mut this.stream).poll_write(cx, bytes)?;
        this.connection.sent(taken, bytes.len());
        taken.map(Ok)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.connection.is_http1() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        let this = self.get_mut();
        let taken = Pin::new(&mut this.stream).poll_write_vectored(cx, slices)?;
        let all = slices.iter().map(|slice| slice.len()).sum();
        this.connection.sent(taken, all);
        taken.map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.is_body_wanted() {
            ready!(Pin::new(&mut this.stream).poll_write(cx, CONTINUE))?;
            this.connection.continued();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Socket {
    /// Waits for the client; the end once it is late.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.connection.deadline();
        if let Some(deadline) = deadline
            && deadline < self.woken_at
            && self.doubted != Some(deadline)
        {
            self.ring_at(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match deadline {
                Some(deadline) if deadline <= now => {
                    if self.is_late(deadline) {
                        return self.turn_away(cx);
                    }
                    self.ring_at(now + MOMENT);
                }
                Some(deadline) => self.ring_at(deadline),
                // It is the server's turn; looked at again some time after the client's begins.
                None => self.ring_at(now + self.connection.patience().head),
            }
        }
        Poll::Pending
    }

    fn ring_at(&mut self, at: Instant) {
        self.woken_at = at;
        self.timer.as_mut().reset(at);
    }

    /// Whether it is the client who let a deadline pass. The server may not have read all there is, or may only just have
    /// read it: the framework does not look for a request in it, nor send what the client has room for again, before the
    /// socket has nothing more. It has done both when the same deadline is met a second time.
    fn is_late(&mut self, deadline: Instant) -> bool {
        if !self.connection.is_blocked() && self.has_unread() {
            return false;
        }
        self.doubted.replace(deadline) == Some(deadline)
    }

    /// Has done with a client who is late.
    fn turn_away(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_blocked() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.connection.is_http1() && self.connection.is_in_head() {
            let problem = refusal(StatusCode::REQUEST_TIMEOUT, &self.api);
            // A client that takes nothing gets nothing.
            let _ = Pin::new(&mut self.stream).poll_write(cx, &problem);
        }
        self.connection.ended();
        Poll::Ready(Ok(()))
    }

    /// Whether there is something to read, as the system knows before the runtime does.
    fn has_unread(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut byte, flags).is_ok_and(|(_, count)| count > 0)
    }

    /// The status of an answer that the framework gives to what it cannot read. All that comes from the application has a
    /// request id.
    fn bare_refusal(&self, bytes: &[u8]) -> Option<StatusCode> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?;
        let bare = status.starts_with(b"4")
            && self.connection.is_http1()
            && self.connection.is_unoccupied()
            && !bytes
                .windows(REQUEST_ID.len())
                .any(|part| part.eq_ignore_ascii_case(REQUEST_ID));
        let status = StatusCode::from_bytes(status.get(..3)?).ok().filter(|_| bare)?;
        // The framework tells neither a line nor a field that is too long from what is malformed.
        let long = self.connection.line_length() > LONGEST_TARGET;
        Some(if long { StatusCode::URI_TOO_LONG } else { status })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.connection.ended();
    }
}

const REQUEST_ID: &[u8] = b"\r\nx-request-id: ";

/// The answer to what is no request, after which the connection is closed.
fn refusal(status: StatusCode, api: &Api) -> Vec<u8> {
    let context = RequestContext::unreadable(api.app.ports.ids.as_ref());
    let error = ApiError::of_status(status);
    tracing::debug!(status = status.as_u16(), "a request could not be read");
    api.metrics()
        .answered("", None, status.as_u16(), Duration::ZERO, None);
    error.as_last_answer(&context)
}
