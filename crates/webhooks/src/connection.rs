use std::net::SocketAddr;

use http_body_util::Full;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tenantry_domain::webhooks::{ConnectionFault, EndpointUrl};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::Host;

use crate::bounded::{Allowance, Bounded};
use crate::fault;
use crate::message::SignedMessage;

/// The most bytes of status line and headers of an answer, and the most that is read at once of its body.
const HEAD_BYTES: usize = 16 * 1_024;

/// The most headers of an answer.
const HEADERS: usize = 100;

/// A connection on which one request is made after the other. It is closed at once when it is dropped, also in the middle of an answer.
pub(crate) struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    allowance: Allowance,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a request has no answer.
pub(crate) struct Unanswered {
    pub(crate) fault: ConnectionFault,
    /// Whether the connection was closed before there was an answer. On one that was used before, that is how its end is noticed.
    pub(crate) is_closed: bool,
}

impl Connection {
    /// Connects to an address, which the caller has checked, and identifies the receiver by the host of the URL.
    pub(crate) async fn open(
        tls: &TlsConnector,
        url: &EndpointUrl,
        address: SocketAddr,
    ) -> Result<Self, ConnectionFault> {
        let of_io = |error: std::io::Error| {
            tracing::debug!(origin = url.origin(), %address, %error, "webhook connection failed");
            fault::of_io(&error)
        };
        let tcp = TcpStream::connect(address).await.map_err(of_io)?;
        tcp.set_nodelay(true).map_err(of_io)?;
        if !url.is_https() {
            return Self::start(tcp).await;
        }
        let name = match url.host() {
            Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|_| ConnectionFault::Tls)?,
            Host::Ipv4(_) | Host::Ipv6(_) => ServerName::from(address.ip()),
        };
        let stream = tls.connect(name, tcp).await.map_err(of_io)?;
        Self::start(stream).await
    }

    async fn start<S>(stream: S) -> Result<Self, ConnectionFault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let allowance = Allowance::new();
        let opened = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .handshake(TokioIo::new(Bounded::new(stream, allowance.clone())))
            .await;
        let (requests, connection) = opened.map_err(|error| fault::of_http(&error))?;
        let driver = tokio::spawn(async move {
            // Errors reach the request that is under way.
            let _ = connection.await;
        });
        Ok(Self {
            requests,
            allowance,
            driver,
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Writes a request and waits for status and headers of the answer.
    pub(crate) async fn send(&mut self, message: &SignedMessage) -> Result<Response<Incoming>, Unanswered> {
        let closed = |_| Unanswered {
            fault: ConnectionFault::Closed,
            is_closed: true,
        };
        self.requests.ready().await.map_err(closed)?;
        self.allowance.renew();
        let answered = self.requests.try_send_request(message.request()).await;
        answered.map_err(|error| {
            let was_written = error.message().is_none();
            let fault = fault::of_http(error.error());
            Unanswered {
                fault,
                is_closed: !was_written || fault == ConnectionFault::Closed,
            }
        })
    }
}
