use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError,
    RedisResult, TlsCertificates,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long to wait before connecting again; twice as long each further time, up to the other.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How often the connection is asked whether it still works when nobody uses it.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// A Redis, and the one connection to it that everybody shares. Cheap to clone.
///
/// It has no connection until [`Redis::keep`] runs, and none while Redis is away; whoever asks then is told at
/// once.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("is_there", &self.is_there())
            .finish_non_exhaustive()
    }
}

struct Shared {
    client: Client,
    patience: Duration,
    connection: RwLock<Option<Connection>>,
    lost: Notify,
    there: watch::Sender<bool>,
}

/// A connection and its number, so that a late complaint about an earlier one does no harm.
#[derive(Clone)]
struct Connection {
    number: u64,
    inner: MultiplexedConnection,
}

/// Why there can be no connection with what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// The URL leads to no Redis.
    #[error("{0}")]
    Url(String),
    /// The certificates to trust are none.
    #[error("{0}")]
    Trusted(String),
}

/// Redis did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Away {
    /// There is no connection.
    #[error("Redis is away")]
    NotThere,
    /// There was no answer in time.
    #[error("Redis did not answer in time")]
    Silent,
    /// The connection failed.
    #[error("the connection to Redis failed: {0}")]
    Lost(RedisError),
    /// It answered with an error; the connection is fine.
    #[error("Redis refused: {0}")]
    Refused(RedisError),
}

impl Redis {
    /// The Redis at a URL, `redis://[user:password@]host[:port][/database]`, the same with `rediss://` for TLS, or
    /// `unix:///path`. Whoever asks it for something waits for at most `patience`. With TLS the certificate has to be
    /// for the host, and from somebody whom the system trusts.
    ///
    /// # Errors
    /// When the URL is none of these. It is not repeated, since it may contain a password.
    pub fn new(url: &str, patience: Duration) -> Result<Self, RedisUrlError> {
        Self::of(url, patience, None)
    }

    /// The same over TLS, with a certificate from one of those in `trusted` (PEM) in place of the system's.
    ///
    /// # Errors
    /// As [`Redis::new`]; also when the URL is not of TLS, or `trusted` holds no certificate.
    pub fn trusting(trusted: Vec<u8>, url: &str, patience: Duration) -> Result<Self, RedisUrlError> {
        Self::of(url, patience, Some(trusted))
    }

    fn of(url: &str, patience: Duration, trusted: Option<Vec<u8>>) -> Result<Self, RedisUrlError> {
        let client = client(url, trusted)?;
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                patience,
                connection: RwLock::new(None),
                lost: Notify::new(),
                there: watch::Sender::new(false),
            }),
        })
    }

    /// Whether there is a connection.
    pub fn is_there(&self) -> bool {
        *self.shared.there.borrow()
    }

    /// Tells when Redis goes and comes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.shared.there.subscribe()
    }

    /// Connects, and connects again whenever the connection is lost. Spawn it once; it never ends.
    pub fn keep(&self) -> impl Future<Output = ()> + Send + 'static {
        let redis = self.clone();
        async move {
            let mut wait = FIRST_WAIT;
            let mut told = false;
            for number in 0_u64.. {
                match redis.connect().await {
                    Ok(inner) => {
                        tracing::info!("Redis is there");
                        let since = Instant::now();
                        redis.hold(Connection { number, inner }).await;
                        // Whoever lost it has told.
                        told = true;
                        if since.elapsed() > LONGEST_WAIT {
                            wait = FIRST_WAIT;
                        }
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(%error, "Redis is away");
                        }
                    }
                }
                // A connection that is lost again and again is no better than none.
                tokio::time::sleep(wait).await;
                wait = (2 * wait).min(LONGEST_WAIT);
            }
        }
    }

    /// Whether it answers, in the time that requests wait for it.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn ping(&self) -> Result<(), Away> {
        self.ask(ping).await
    }

    /// Asks Redis for something, and waits no longer than one may.
    ///
    /// # Errors
    /// [`Away`].
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Away> {
        let connection = self.connection().ok_or(Away::NotThere)?;
        let number = connection.number;
        let outcome = timeout(self.shared.patience, question(connection.inner)).await;
        let failure = match outcome {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if !is_of_connection(&error) => return Err(Away::Refused(error)),
            Ok(Err(error)) if error.is_timeout() => Away::Silent,
            Ok(Err(error)) => Away::Lost(error),
            Err(_) => Away::Silent,
        };
        self.lose(number, &failure);
        Err(failure)
    }

    /// A connection of one's own that messages come over.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<redis::aio::PubSub, Away> {
        let connecting = async {
            let mut connection = self.shared.client.get_async_pubsub().await?;
            connection.subscribe(channel).await?;
            Ok(connection)
        };
        let connected = timeout(CONNECT, connecting).await;
        connected.map_err(|_| Away::Silent)?.map_err(Away::Lost)
    }

    fn connection(&self) -> Option<Connection> {
        let connection = self.shared.connection.read();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Away> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(self.shared.patience));
        let connecting = async {
            let client = &self.shared.client;
            let connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            // One that is loading its data, or is stopped, takes connections too.
            ping(connection.clone()).await?;
            Ok(connection)
        };
        let connected = timeout(CONNECT, connecting).await;
        connected.map_err(|_| Away::Silent)?.map_err(Away::Lost)
    }

    /// Lets everybody use the connection until it is lost.
    async fn hold(&self, connection: Connection) {
        self.set(Some(connection));
        loop {
            match timeout(LOOK_AFTER, self.shared.lost.notified()).await {
                Ok(()) => return,
                // Who loses the connection over this says so in the same way.
                Err(_) => drop(self.ask(ping).await),
            }
        }
    }

    fn lose(&self, number: u64, failure: &Away) {
        let mut connection = self
            .shared
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if connection
            .as_ref()
            .is_some_and(|present| present.number == number)
        {
            *connection = None;
            drop(connection);
            self.shared.there.send_replace(false);
            tracing::warn!(error = %failure, "Redis is away");
            self.shared.lost.notify_one();
        }
    }

    fn set(&self, connection: Option<Connection>) {
        let there = connection.is_some();
        *self
            .shared
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner) = connection;
        self.shared.there.send_replace(there);
    }
}

fn client(url: &str, trusted: Option<Vec<u8>>) -> Result<Client, RedisUrlError> {
    let refused = |problem: &str| RedisUrlError::Url(problem.to_owned());
    let told = |error: RedisError| refused(error.detail().unwrap_or("not a Redis URL"));
    let info = url.into_connection_info().map_err(told)?;
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: false, .. } => over_tls(info, trusted),
        ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) if trusted.is_none() => {
            Client::open(info).map_err(told)
        }
        ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) => Err(refused(
            "must begin with rediss:// where a certificate is to be checked",
        )),
        _ => Err(refused(
            "must begin with redis://, rediss:// or unix://; a certificate that is not checked is none",
        )),
    }
}

fn over_tls(info: ConnectionInfo, trusted: Option<Vec<u8>>) -> Result<Client, RedisUrlError> {
    if !trusted.as_deref().is_none_or(has_certificate) {
        return Err(RedisUrlError::Trusted(
            "there is no certificate in PEM to trust".to_owned(),
        ));
    }
    // It fails when a provider is there already, and then there is nothing to do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: trusted,
    };
    Client::build_with_tls(info, certificates).map_err(|error| RedisUrlError::Trusted(error.to_string()))
}

/// A file without any would be taken, and trust nobody.
fn has_certificate(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----")
}

async fn ping(mut connection: MultiplexedConnection) -> RedisResult<()> {
    redis::cmd("PING").query_async(&mut connection).await
}

/// Whether the connection is to blame, and not what was asked.
fn is_of_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_timeout()
        || error.is_unrecoverable_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_leads_nowhere_is_refused_without_repeating_it() {
        let open = |url: &str| Redis::new(url, CONNECT).map(|_| ());
        assert_eq!(open("redis://127.0.0.1"), Ok(()));
        assert_eq!(open("redis://:hunter2@cache:6380/1"), Ok(()));
        assert_eq!(open("unix:///run/redis.sock"), Ok(()));
        assert_eq!(open("rediss://:hunter2@cache:6380/1"), Ok(()));
        for url in [
            "",
            "cache",
            "http://cache",
            "rediss://:hunter2@cache/#insecure",
            "redis://:hunter2@cache/x",
        ] {
            let error = open(url).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn who_is_trusted_is_said_in_certificates_and_for_tls_only() {
        let open = |url: &str, trusted: &str| Redis::trusting(trusted.into(), url, CONNECT).map(|_| ());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (url, trusted) in [
            ("rediss://cache", ""),
            ("rediss://cache", "a key"),
            ("rediss://cache", broken),
            ("redis://cache", broken),
            ("unix:///run/redis.sock", broken),
        ] {
            assert!(
                !open(url, trusted).unwrap_err().to_string().is_empty(),
                "{url} {trusted}"
            );
        }
    }

    #[tokio::test]
    async fn without_a_connection_one_is_told_at_once() {
        let redis = Redis::new("redis://127.0.0.1:1", CONNECT).unwrap();
        assert!(!redis.is_there());
        assert!(matches!(redis.ask(ping).await, Err(Away::NotThere)));
    }
}
