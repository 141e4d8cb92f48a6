use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode, body::Incoming};
use tenantry_domain::tenant::Dns;
use tenantry_domain::webhooks::{
    Answer, Delivery, DeliveryOutcome, DeliveryPhase, EndpointRules, SendError, WebhookRequest,
    WebhookSender, excerpt, retry_after,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, Unanswered};
use crate::message::SignedMessage;
use crate::names::Names;
use crate::pool::{Pool, Route};
use crate::tls;

/// The most bytes of an answer's body that are read. Behind a body that ends within them the connection is used again.
const BODY_BYTES: usize = 16 * 1_024;

/// How many addresses of a name are tried.
const MOST_ADDRESSES: usize = 4;

/// How long the parts of an attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving the name, connecting to one of its addresses, and the handshake of TLS.
    pub connect: Duration,
    /// Writing the request, and waiting for status and headers of the answer.
    pub head: Duration,
    /// Reading the body. The status decides, so a body that takes longer is cut and changes nothing.
    pub body: Duration,
}

impl Default for Timeouts {
    /// 5 seconds to connect; 15 for the answer, as Standard Webhooks recommends; 2 for its body.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(15),
            body: Duration::from_secs(2),
        }
    }
}

/// How webhooks are sent.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// Where they may go. URLs are checked by these rules at each attempt, whatever rules they were accepted by.
    pub rules: EndpointRules,
    /// How long an attempt may take.
    pub timeouts: Timeouts,
    /// Certificates (PEM) that are trusted to sign those of receivers, beside the system's.
    pub authorities: Option<Vec<u8>>,
    /// How long the addresses of a name are cached; zero for not at all.
    pub name_ttl: Duration,
    /// How long a connection stays open without a message. Receivers close theirs after five seconds or more.
    pub idle_timeout: Duration,
    /// The most open connections without a message to one receiver.
    pub idle_per_receiver: usize,
    /// The most open connections without a message to all receivers.
    pub idle_connections: usize,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            rules: EndpointRules::default(),
            timeouts: Timeouts::default(),
            authorities: None,
            name_ttl: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(4),
            idle_per_receiver: 64,
            idle_connections: 512,
        }
    }
}

/// Why there is no sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderSetupError {
    /// The configured certificates cannot be used.
    #[error("the CA certificates cannot be used: {0}")]
    Authorities(String),
    /// Neither the system nor the configuration has a certificate.
    #[error("the system has no CA certificates: install them (ca-certificates), or configure a file of them")]
    NoAuthorities,
    /// TLS is not available.
    #[error("{0}")]
    Tls(String),
}

/// Sends webhooks over HTTP/1.1.
pub struct HttpWebhookSender {
    rules: EndpointRules,
    timeouts: Timeouts,
    tls: TlsConnector,
    names: Names,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for HttpWebhookSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpWebhookSender")
            .field("rules", &self.rules)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

impl HttpWebhookSender {
    /// A sender that resolves names with this DNS. It connects to nothing yet.
    ///
    /// # Errors
    /// [`SenderSetupError`].
    pub fn new(config: &SenderConfig, dns: Arc<dyn Dns>) -> Result<Self, SenderSetupError> {
        let tls = tls::client_config(config.authorities.as_deref())?;
        Ok(Self {
            rules: config.rules.clone(),
            timeouts: config.timeouts,
            tls: TlsConnector::from(Arc::new(tls)),
            names: Names::new(dns, config.name_ttl),
            pool: Pool::new(
                config.idle_timeout,
                config.idle_per_receiver,
                config.idle_connections,
            ),
        })
    }

    async fn attempt(&self, message: &SignedMessage) -> Result<DeliveryOutcome, DeliveryOutcome> {
        let started = Instant::now();
        let routes = self.routes(message).await?;
        let connect_until = started + self.timeouts.connect;
        let reused = routes
            .iter()
            .find_map(|route| Some((route, self.pool.take(route)?)));
        let head_until = match reused {
            Some((route, mut connection)) => {
                let until = Instant::now() + self.timeouts.head;
                match Self::head(&mut connection, message, until).await? {
                    Ok(response) => {
                        return Ok(self.finish(route, connection, response, (message, started)).await);
                    }
                    // The receiver has closed it in the meantime, so a new connection is tried; in the same time.
                    Err(unanswered) if unanswered.is_closed => Some(until),
                    Err(unanswered) => return Err(DeliveryOutcome::ConnectionFailed(unanswered.fault)),
                }
            }
            None => None,
        };
        let connect_until = head_until
            .unwrap_or(connect_until)
            .min(Instant::now() + self.timeouts.connect);
        let (route, mut connection) = self.connect(message, &routes, connect_until).await?;
        let until = head_until.unwrap_or_else(|| Instant::now() + self.timeouts.head);
        match Self::head(&mut connection, message, until).await? {
            Ok(response) => Ok(self.finish(route, connection, response, (message, started)).await),
            Err(unanswered) => Err(DeliveryOutcome::ConnectionFailed(unanswered.fault)),
        }
    }

    /// Where a message may be sent to. One forbidden address forbids all: a name with an inner address beside a public one is an attempt to
    /// get inside, or a mistake.
    async fn routes(&self, message: &SignedMessage) -> Result<Vec<Route>, DeliveryOutcome> {
        let url = &message.url;
        if let Err(error) = self.rules.check(url) {
            tracing::info!(origin = url.origin(), %error, "webhook URL is not allowed");
            return Err(DeliveryOutcome::ForbiddenAddress);
        }
        let resolved = timeout(self.timeouts.connect, self.names.addresses(url.host())).await;
        let addresses = resolved.map_err(|_| DeliveryOutcome::TimedOut(DeliveryPhase::Connect))??;
        if let Some(address) = addresses
            .iter()
            .find(|address| !self.rules.networks.permit(**address))
        {
            tracing::info!(origin = url.origin(), %address, "webhook address is not allowed");
            return Err(DeliveryOutcome::ForbiddenAddress);
        }
        let route = |address: IpAddr| Route {
            address: SocketAddr::new(address, url.port()),
            host: url.host().to_string(),
            is_https: url.is_https(),
        };
        Ok(addresses.into_iter().take(MOST_ADDRESSES).map(route).collect())
    }

    /// Connects to the first route that answers. Each has an equal share of the time that is left.
    async fn connect<'a>(
        &self,
        message: &SignedMessage,
        routes: &'a [Route],
        until: Instant,
    ) -> Result<(&'a Route, Connection), DeliveryOutcome> {
        let mut failure = DeliveryOutcome::NameNotFound;
        for (route, left) in routes
            .iter()
            .zip((1..=u32::try_from(routes.len()).unwrap_or(u32::MAX)).rev())
        {
            let time = until.saturating_duration_since(Instant::now()) / left;
            let opened = timeout(time, Connection::open(&self.tls, &message.url, route.address)).await;
            failure = match opened {
                Ok(Ok(connection)) => return Ok((route, connection)),
                Ok(Err(fault)) => DeliveryOutcome::ConnectionFailed(fault),
                Err(_) => DeliveryOutcome::TimedOut(DeliveryPhase::Connect),
            };
        }
        Err(failure)
    }

    async fn head(
        connection: &mut Connection,
        message: &SignedMessage,
        until: Instant,
    ) -> Result<Result<Response<Incoming>, Unanswered>, DeliveryOutcome> {
        let answered = timeout_at(until, connection.send(message)).await;
        answered.map_err(|_| DeliveryOutcome::TimedOut(DeliveryPhase::Head))
    }

    /// Reads the body as far as it is wanted, and keeps the connection if that was all of it.
    async fn finish(
        &self,
        route: &Route,
        connection: Connection,
        response: Response<Incoming>,
        (message, started): (&SignedMessage, Instant),
    ) -> DeliveryOutcome {
        let now = message.at + started.elapsed();
        let (head, body) = response.into_parts();
        let asked = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let mut read = Vec::new();
        let ended = timeout(self.timeouts.body, read_body(body, &mut read)).await;
        if ended == Ok(true) && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.pool.put(route.clone(), connection);
        }
        DeliveryOutcome::of(Answer {
            status: head.status.as_u16(),
            retry_after: asked.and_then(|value| retry_after(value, now)),
            excerpt: excerpt(&read),
        })
    }
}

#[async_trait]
impl WebhookSender for HttpWebhookSender {
    async fn send(&self, request: WebhookRequest) -> Result<Delivery, SendError> {
        let message = SignedMessage::new(request)?;
        let started = Instant::now();
        let (Ok(outcome) | Err(outcome)) = self.attempt(&message).await;
        Ok(Delivery {
            outcome,
            latency: started.elapsed(),
        })
    }
}

/// Reads at most [`BODY_BYTES`] of a body; whether it has ended by then.
async fn read_body(mut body: Incoming, read: &mut Vec<u8>) -> bool {
    loop {
        let data = match body.frame().await {
            None => return true,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => return false,
        };
        let room = BODY_BYTES - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return false;
        }
    }
}
