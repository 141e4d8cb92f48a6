//! The server's sockets.
//!
//! actix-web's own `HttpServer` takes its sockets as they are. That has four faults for a service that faces clients who mean
//! no good: its timeouts run on while the server itself is late, so that a complete request is answered 408 because its bytes
//! lay unread; it goes on answering a client who reads none of the answers; requests that were sent one behind the other are
//! answered without a pause for other connections; and a request that cannot be read is answered without a body. So the same
//! parts are put together here around a [`Socket`] that knows better. HTTP/2 has a module of its own.

use std::{
    future::ready,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, TcpListener},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{HttpService, KeepAlive, Protocol, Request, Response, body::BoxBody};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory as _, Service, ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service,
    map_config,
};
use actix_web::{
    Error, HttpResponse,
    dev::{AppConfig, ServiceResponse},
    http::StatusCode,
    web::BytesMut,
};
use rustix::net::{RecvFlags, recv};
use tenantry_domain::kernel::Network;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use crate::app::observe::LONGEST_TARGET;
use crate::connection::{
    connection::{Connection, Patience},
    frames::Frames,
    http2::{self, Http2},
    incoming::Incoming,
    networks::{self, Networks},
};
use crate::middleware::request::RequestContext;
use crate::{Api, ApiError, app};

/// How the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenConfig {
    /// Threads that serve; at least 1.
    pub workers: usize,
    /// Connections of each thread.
    pub max_connections: usize,
    /// Connections that one network may have open, on all threads together: the /24 of an IPv4 address, the /56 of an IPv6
    /// address; no bound when `None`. Addresses of loopback and of private networks are exempt: a proxy has one of these. A
    /// proxy with a public address needs `None`.
    pub connections_per_network: Option<usize>,
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
pub fn listen<F>(api: F, listener: TcpListener, config: ListenConfig) -> io::Result<Server>
where
    F: Fn() -> Api + Send + Clone + 'static,
{
    listen_to(api, listener, config, networks::counted)
}

/// Serves as [`listen`] does. `counted` returns the network that the connections of an address count for.
fn listen_to<F>(
    api: F,
    listener: TcpListener,
    config: ListenConfig,
    counted: fn(IpAddr) -> Option<Network>,
) -> io::Result<Server>
where
    F: Fn() -> Api + Send + Clone + 'static,
{
    let builder = ServerBuilder::new()
        .workers(config.workers)
        .max_concurrent_connections(config.max_connections)
        .shutdown_timeout(config.shutdown_seconds)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let patience = Patience {
        head: config.head_timeout,
        idle: config.idle_timeout,
    };
    let networks = Networks::new(config.connections_per_network, counted);
    let service = move || {
        let (api, stopping, networks) = (api(), stopping.clone(), Arc::clone(&networks));
        fn_factory(move || {
            let server = ConnectionServer {
                api: Arc::new(api.clone()),
                patience,
                disconnect_timeout: config.disconnect_timeout,
                networks: Arc::clone(&networks),
                stopping: stopping.clone(),
            };
            async move {
                let application = Rc::new(application(&server.api).new_service(()).await?);
                let http1 = Rc::new(server.http1(&application).new_service(()).await?);
                Ok::<_, ()>(fn_service(move |stream| {
                    let server = server.clone();
                    server.serve(stream, Rc::clone(&http1), Rc::clone(&application))
                }))
            }
        })
    };
    Ok(builder.listen("tenantry", listener, service)?.run())
}

/// With these bytes a client begins that speaks HTTP/2 without having asked (RFC 9113 section 3.4).
const PREFACE: &[u8; 12] = b"PRI * HTTP/2";

fn application(
    api: &Api,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse<BoxBody>,
    Error = HttpResponse<BoxBody>,
    InitError = (),
    Service = impl Service<
        Request,
        Response = ServiceResponse<BoxBody>,
        Error = HttpResponse<BoxBody>,
        Future: 'static,
    > + use<>,
> + use<> {
    let application = app(api.clone())
        .into_factory()
        .map_err(|error: Error| error.error_response());
    map_config(application, |()| AppConfig::default())
}

/// Serves the connections of one thread.
#[derive(Clone)]
struct ConnectionServer {
    api: Arc<Api>,
    patience: Patience,
    disconnect_timeout: Duration,
    networks: Arc<Networks>,
    stopping: GracefulShutdownSignal,
}

impl ConnectionServer {
    /// HTTP/1 as the framework speaks it.
    fn http1<S>(
        &self,
        application: &Rc<S>,
    ) -> impl ServiceFactory<
        (Socket, Option<SocketAddr>),
        Config = (),
        InitError = (),
        Service = impl Service<(Socket, Option<SocketAddr>), Response = ()> + use<S>,
    > + use<S>
    where
        S: Service<Request, Response = ServiceResponse<BoxBody>, Error = HttpResponse<BoxBody>> + 'static,
    {
        let (stopping, application) = (self.stopping.clone(), Rc::clone(application));
        HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            // The socket notices which client takes too long.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(self.disconnect_timeout)
            .on_connect_ext(|socket: &Socket, data| {
                data.insert(Rc::clone(&socket.connection));
            })
            .h1(fn_factory(move || ready(Ok::<_, ()>(Rc::clone(&application)))))
    }

    /// Serves a connection to its end.
    async fn serve<H, S>(self, stream: TcpStream, http1: Rc<H>, application: Rc<S>) -> Result<(), ()>
    where
        H: Service<(Socket, Option<SocketAddr>)>,
        S: Service<Request> + 'static,
        S::Response: Into<Response<BoxBody>>,
        S::Error: Into<Response<BoxBody>>,
        S::Future: 'static,
    {
        let peer = stream.peer_addr().ok();
        let Some(_open) = self.networks.enter(peer.map(|peer| peer.ip())) else {
            tracing::debug!("a network has too many connections open; another one is closed");
            self.api.metrics().refused_connection();
            return Ok(());
        };
        let Some(socket) = self.accept(stream).await else {
            return Ok(());
        };
        if socket.connection.is_http1() {
            return http1.call((socket, peer)).await.map(drop).map_err(drop);
        }
        let http2 = Http2 {
            connection: Rc::clone(&socket.connection),
            api: self.api,
            peer,
            disconnect_timeout: self.disconnect_timeout,
        };
        let ended = http2::serve(http2, socket, application, self.stopping).await;
        ended.map_err(|error| tracing::debug!(%error, "an HTTP/2 connection has failed"))
    }

    /// A stream with the protocol that the client's first bytes are of; none when it does not come to that.
    async fn accept(&self, mut stream: TcpStream) -> Option<Socket> {
        // Answers are written whole; what is left of one is not to wait for the client to confirm the rest.
        let _ = stream.set_nodelay(true);
        let opened = Instant::now();
        let late = opened + self.patience.head;
        let mut first = Vec::with_capacity(PREFACE.len());
        let protocol = tokio::select! {
            biased;
            protocol = timeout_at(late, begins_with(&mut stream, &mut first)) => protocol,
            () = self.stopping.notified() => return None,
        };
        let Ok(protocol) = protocol else {
            if !first.is_empty() {
                // A client that takes nothing gets nothing.
                let _ = stream.try_write(&refusal(StatusCode::REQUEST_TIMEOUT, &self.api));
            }
            return None;
        };
        let protocol = protocol.ok()?;
        let connection = Rc::new(Connection::open(protocol, self.patience, opened));
        Some(Socket {
            stream,
            incoming: Incoming::new(&first),
            frames: Frames::new(),
            connection,
            api: Arc::clone(&self.api),
            woken_at: late,
            doubted: None,
            timer: Box::pin(sleep_until(late)),
        })
    }
}

/// Reads as much as it takes to know the protocol.
async fn begins_with(stream: &mut TcpStream, first: &mut Vec<u8>) -> io::Result<Protocol> {
    loop {
        let missing = (PREFACE.len() - first.len()) as u64;
        let count = (&mut *stream).take(missing).read_buf(first).await?;
        if count == 0 || !PREFACE.starts_with(first) {
            return Ok(Protocol::Http1);
        }
        if first.len() == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
    }
}

/// A client's socket.
pub(crate) struct Socket {
    stream: TcpStream,
    incoming: Incoming,
    /// Of HTTP/2.
    frames: Frames,
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

/// How often it is looked whether a client has gone whose requests are not read to their end for now. The runtime does not
/// wake a reader for the end of a connection while there is something to read before it.
const LOOK: Duration = Duration::from_millis(250);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.is_http1() {
            return this.poll_http1(cx, buffer);
        }
        if !this.incoming.is_empty() {
            let first = this.incoming.take(buffer.remaining());
            this.frames.pass(&first);
            buffer.put_slice(&first);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                this.connection.heard(false);
                let is_complete = this.frames.pass(&buffer.filled()[before..]);
                this.connection
                    .heard_frames(is_complete, this.frames.is_in_head());
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
                this.watch(cx)
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Each request is given to the framework after all before it was sent, so what it sends begins a write.
        if this.connection.is_premature() && bytes.starts_with(CONTINUE) {
            this.connection.withheld();
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        if let Some(status) = this.bare_refusal(bytes) {
            let problem = refusal(status, &this.api);
            // Whether all of it is taken or not, it is the last that this client gets.
            ready!(Pin::new(&mut this.stream).poll_write(cx, &problem))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let taken = Pin::new(&mut this.stream).poll_write(cx, bytes)?;
        this.sent(cx, taken, bytes.len())
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
        this.sent(cx, taken, all)
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
    /// Gives the framework what it may have of a client of HTTP/1, and reads ahead of that.
    fn poll_http1(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (outcome, is_dry) = self.read_ahead(cx);
        let is_given = self.incoming.is_given();
        let may_have_more = !self.connection.is_blocked() && self.connection.reads(cx);
        let bytes = if may_have_more {
            self.incoming.next(buffer.remaining(), &self.connection)
        } else {
            BytesMut::new()
        };
        if is_dry && self.incoming.is_empty() {
            self.connection.is_read();
        }
        if !bytes.is_empty() {
            self.connection.gave(&bytes);
            buffer.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        if may_have_more && is_given && !self.incoming.is_empty() {
            // What was given may be no request; then there is more after the framework has looked at it.
            cx.waker().wake_by_ref();
        }
        outcome?;
        if self.incoming.is_over() {
            return Poll::Ready(Ok(()));
        }
        if !self.incoming.is_empty() {
            self.connection.expects_head();
            self.connection.wake_at_change(cx);
        }
        self.connection.rests();
        self.watch(cx)
    }

    /// Reads what the client has sent, up to a bound; and whether that is all that it has sent.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> (io::Result<()>, bool) {
        let mut chunk = [0; 4096];
        while !self.incoming.is_full() && !self.incoming.is_ended() {
            let mut read = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.connection.heard(!self.incoming.is_empty());
                    self.incoming.add(read.filled());
                }
                Poll::Ready(outcome) => {
                    self.incoming.end();
                    self.connection.ended();
                    return (outcome, true);
                }
                Poll::Pending => return (Ok(()), tokio::task::coop::has_budget_remaining()),
            }
        }
        if self.is_unread_to_its_end() && self.is_closed(cx) {
            self.connection.ended();
        }
        (Ok(()), self.incoming.is_ended())
    }

    /// Whether the client may have gone without being noticed, since nothing more of it is read for now.
    fn is_unread_to_its_end(&self) -> bool {
        self.incoming.is_full() && !self.incoming.is_ended() && !self.connection.has_ended()
    }

    /// Whether the client has closed the connection, or its own direction of it, behind what has not been read.
    fn is_closed(&self, cx: &mut Context<'_>) -> bool {
        let ready = pin!(self.stream.ready(Interest::READABLE)).poll(cx);
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Notes what the client has taken of what there is to send. One that takes nothing for too long has failed.
    fn sent(&mut self, cx: &mut Context<'_>, taken: Poll<usize>, of: usize) -> Poll<io::Result<usize>> {
        self.connection.sent(taken, of);
        if taken.is_pending() && self.watch(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        taken.map(Ok)
    }

    /// Waits for the client; the end once it is late.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.connection.deadline();
        if let Some(deadline) = deadline
            && deadline < self.woken_at
            && self.doubted != Some(deadline)
        {
            self.ring_at(deadline);
        }
        let looks = self.is_unread_to_its_end().then(|| Instant::now() + LOOK);
        if let Some(next) = looks.filter(|next| *next < self.woken_at) {
            self.ring_at(next);
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
                Some(deadline) => self.ring_at(looks.map_or(deadline, |next| next.min(deadline))),
                // It is the server's turn; looked at again some time after the client's begins.
                None => self.ring_at(looks.unwrap_or(now + self.connection.patience().head)),
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

    /// The status of an answer that the framework gives to what it cannot read: the application was not asked.
    fn bare_refusal(&self, bytes: &[u8]) -> Option<StatusCode> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?;
        let bare = status.starts_with(b"4")
            && self.connection.is_http1()
            && self.connection.is_unoccupied()
            && self.connection.is_given();
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

/// The answer to what is no request, after which the connection is closed.
fn refusal(status: StatusCode, api: &Api) -> Vec<u8> {
    let context = RequestContext::unreadable(api.app.ports.ids.as_ref());
    let error = ApiError::of_status(status);
    tracing::debug!(status = status.as_u16(), "a request could not be read");
    api.metrics().refused(error.code());
    api.metrics()
        .answered("", None, status.as_u16(), Duration::ZERO, None);
    error.as_last_answer(&context)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, TcpStream},
    };

    use super::*;
    use crate::{
        HttpConfig,
        metrics::{Audience, Format},
        testing::api,
    };

    const CONFIG: ListenConfig = ListenConfig {
        workers: 2,
        max_connections: 100,
        connections_per_network: Some(2),
        head_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        disconnect_timeout: Duration::from_millis(200),
        shutdown_seconds: 0,
    };

    /// What is answered to a request, until the connection is closed or there is an answer.
    fn answered(mut stream: &TcpStream) -> String {
        let _ = stream.write_all(b"GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut first = [0; 12];
        let read = stream.read(&mut first).unwrap_or_default();
        String::from_utf8_lossy(&first[..read]).into_owned()
    }

    #[actix_web::test]
    async fn connections_beyond_the_bound_of_a_network_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let api = api(HttpConfig::default());
        let of_one_network = |_| Network::site(Some(Ipv4Addr::new(203, 0, 113, 1).into()));
        let served = api.clone();
        let server = listen_to(move || served.clone(), listener, CONFIG, of_one_network).unwrap();
        let handle = server.handle();
        std::thread::spawn(|| actix_web::rt::System::new().block_on(server));
        let clients = tokio::task::spawn_blocking(move || {
            let open = || {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                let answered = answered(&stream);
                (stream, answered)
            };
            let [first, second] = [(); 2].map(|()| open());
            assert_eq!([&first.1, &second.1], ["HTTP/1.1 200"; 2]);
            assert_eq!(open().1, "");
            drop(first);
            let began = Instant::now();
            while open().1.is_empty() {
                assert!(began.elapsed() < Duration::from_secs(20), "its place is not free");
            }
        });
        clients.await.unwrap();
        handle.stop(false).await;
        let metrics = api.metrics().render(Audience::Everyone, Format::Text);
        let refused = metrics
            .lines()
            .find(|line| line.starts_with("tenantry_http_connections_refused_total "));
        assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{refused:?}");
    }
}
