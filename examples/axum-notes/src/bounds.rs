//! What a client may keep busy, and for how long: `axum::serve` bounds none of it.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::{Router, middleware::Next, response::Response};
use http_body_util::LengthLimitError;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tenantry_domain::kernel::ErrorCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Problem;

/// The bounds of connections, requests and the end of the service.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long a client may take to send the head of a request, and how long a connection may be idle.
    pub head: Duration,
    /// How long a client may take to send a body.
    pub body: Duration,
    /// The largest body.
    pub body_bytes: usize,
    /// How long a request may take until its answer begins.
    pub answer: Duration,
    /// How long requests in flight may take after the service was told to stop.
    pub drain: Duration,
}

/// The stock server's, with small bodies.
impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(15),
            body_bytes: 16 * 1024,
            answer: Duration::from_secs(30),
            drain: Duration::from_secs(20),
        }
    }
}

/// Reads the body of a request that was admitted.
pub async fn read_body(
    State(bounds): State<Bounds>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let read = timeout(bounds.body, to_bytes(body, bounds.body_bytes)).await;
    let read = read.map_err(|_| ErrorCode::RequestTimeout)?;
    let bytes = read.map_err(|error| {
        let is_large = error.source().is_some_and(<dyn Error>::is::<LengthLimitError>);
        if is_large {
            ErrorCode::PayloadTooLarge
        } else {
            ErrorCode::InvalidRequest
        }
    })?;
    Ok(next.run(Request::from_parts(head, Body::from(bytes))).await)
}

/// Drops a request that takes too long, and with it its transaction, which is rolled back.
pub async fn answer_in_time(
    State(bounds): State<Bounds>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let answer = timeout(bounds.answer, next.run(request)).await;
    answer.map_err(|_| ErrorCode::Unavailable.into())
}

/// Serves connections until `shutdown` ends, and then lets the requests in flight finish within [`Bounds::drain`].
pub async fn serve(
    routes: Router,
    listener: TcpListener,
    bounds: Bounds,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(());
    let mut open = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    open.spawn(connection(stream, peer, routes.clone(), bounds.head, stopped.clone()));
                }
                Err(error) => {
                    // Too many open files, for example: connections that end make room.
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
    drop((listener, stop));
    let drained = timeout(bounds.drain, async { while open.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            connections = open.len(),
            "connections are closed with requests in flight"
        );
        open.shutdown().await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    head: Duration,
    mut stopped: watch::Receiver<()>,
) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // It is an error: the sender is gone.
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
