use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use deadpool_redis::redis::aio::PubSub;
use deadpool_redis::redis::{ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, pipe};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::backend::{Backend, CONNECT, Connection, Unconnected};
use crate::config::{RedisConfig, RedisUrlError};

/// How long to wait before connecting again: exponential backoff between these two.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How often the shared connection is probed.
const PROBE: Duration = Duration::from_secs(2);

/// A Redis: one connection that all requests share, and a pool for everything else. Cheap to clone.
///
/// The shared connection comes from the pool's manager and is multiplexed, because that answers 3.5 times as many requests
/// a second as a pool. There is none until [`Redis::keep`] runs, while Redis is away, and while it refuses scripts that write
/// (a replica after a failover, out of memory, no permission): callers are then answered [`Away`] at once, and decide alone.
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
    backend: Backend,
    timeout: Duration,
    /// What rate limits ask; probes ask it too, so that whatever Redis refuses of it is noticed.
    take: Script,
    connection: RwLock<Option<Numbered>>,
    lost: Notify,
    there: watch::Sender<bool>,
    demotions: watch::Sender<u64>,
}

/// A connection and its number, so that a late failure of an earlier one does no harm.
#[derive(Clone)]
struct Numbered {
    number: u64,
    inner: Connection,
}

/// Why Redis did not do what it was asked to.
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
    /// It answered with an error.
    #[error("Redis refused: {0}")]
    Refused(RedisError),
}

impl Redis {
    /// A single Redis at a URL, see [`RedisConfig::single`].
    ///
    /// # Errors
    /// As [`Redis::with`].
    pub fn new(url: &str, timeout: Duration) -> Result<Self, RedisUrlError> {
        Self::with(&RedisConfig::single(url, timeout))
    }

    /// The Redis of these settings. It connects to nothing yet.
    ///
    /// # Errors
    /// When a URL is none of Redis, or the certificates to trust are none or cannot be used. The URL is not repeated, since it
    /// may contain a password.
    pub fn with(config: &RedisConfig) -> Result<Self, RedisUrlError> {
        Ok(Self {
            shared: Arc::new(Shared {
                backend: Backend::new(config)?,
                timeout: config.timeout,
                take: Script::new(include_str!("take.lua")),
                connection: RwLock::new(None),
                lost: Notify::new(),
                there: watch::Sender::new(false),
                demotions: watch::Sender::new(0),
            }),
        })
    }

    /// Whether there is a connection over which Redis does what it is asked to.
    pub fn is_there(&self) -> bool {
        *self.shared.there.borrow()
    }

    /// Notifies when Redis goes and comes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.shared.there.subscribe()
    }

    /// Connects, and connects again whenever the connection is lost. Spawn it once; it never ends.
    pub fn keep(&self) -> impl Future<Output = ()> + Send + 'static {
        let redis = self.clone();
        async move {
            let mut wait = FIRST_WAIT;
            let mut logged = false;
            for number in 0_u64.. {
                match redis.connect().await {
                    Ok(inner) => {
                        tracing::info!("Redis is there");
                        let since = Instant::now();
                        redis.hold(Numbered { number, inner }).await;
                        // Whatever lost it has logged that.
                        logged = true;
                        if since.elapsed() > LONGEST_WAIT {
                            wait = FIRST_WAIT;
                        }
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut logged, true) {
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

    /// Whether it does what requests ask of it, in the time that they wait for it.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn probe(&self) -> Result<(), Away> {
        let connection = self.connection().ok_or(Away::NotThere)?;
        self.waited_for(connection.number, probe(&self.shared.take, connection.inner))
            .await
    }

    /// Runs the script of rate limits over the shared connection, and waits no longer than the timeout. `rules` are key and
    /// arguments of each bucket.
    ///
    /// # Errors
    /// [`Away`].
    pub(crate) async fn take(
        &self,
        rules: impl Iterator<Item = (String, [i64; 3])>,
    ) -> Result<Vec<u64>, Away> {
        let Numbered { number, mut inner } = self.connection().ok_or(Away::NotThere)?;
        let mut call = self.shared.take.prepare_invoke();
        for (key, arguments) in rules {
            call.key(key).arg(&arguments);
        }
        self.waited_for(number, call.invoke_async(&mut inner)).await
    }

    /// Sends a message to all subscribers of a channel, over a connection of the pool.
    ///
    /// # Errors
    /// [`Away`]: then it is not certain that it was sent.
    pub(crate) async fn publish(&self, channel: &str, messages: &[impl AsRef<[u8]>]) -> Result<(), Away> {
        if !self.is_there() {
            return Err(Away::NotThere);
        }
        let publishing = async {
            let pooled = self.shared.backend.pooled().await?;
            let mut connection = pooled.connection();
            let mut commands = pipe();
            for message in messages {
                commands
                    .cmd("PUBLISH")
                    .arg(channel)
                    .arg(message.as_ref())
                    .ignore();
            }
            commands
                .query_async(&mut connection)
                .await
                .map_err(Unconnected::Failed)
        };
        let published = timeout(CONNECT, publishing).await;
        published.map_err(|_| Away::Silent)?.map_err(away)
    }

    /// Runs commands over a connection of the pool, which may take as long as the timeout says.
    ///
    /// # Errors
    /// [`Away`]: then it is not certain whether they were done, unless Redis refused them.
    pub(crate) async fn run_in(&self, within: Duration, commands: &Pipeline) -> Result<(), Away> {
        if !self.is_there() {
            return Err(Away::NotThere);
        }
        let running = async {
            let pooled = self.shared.backend.pooled().await?;
            let mut connection = pooled.connection();
            // Connections of the pool are given less time, since requests may wait for them.
            connection.set_timeout(within);
            commands
                .query_async(&mut connection)
                .await
                .map_err(Unconnected::Failed)
        };
        let run = timeout(within, running).await;
        run.map_err(|_| Away::Silent)?.map_err(away)
    }

    /// Opens a connection that messages of a channel come over.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, Away> {
        let connecting = async {
            let mut connection = self.shared.backend.messages().await?;
            connection.subscribe(channel).await?;
            Ok(connection)
        };
        let connected = timeout(CONNECT, connecting).await;
        connected.map_err(|_| Away::Silent)?.map_err(Away::Lost)
    }

    /// Notifies when a server that was written to has become a replica. Messages sent to it meanwhile reached nobody.
    pub(crate) fn demotions(&self) -> watch::Receiver<u64> {
        self.shared.demotions.subscribe()
    }

    fn connection(&self) -> Option<Numbered> {
        let connection = self.shared.connection.read();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an answer over a connection, which is lost with anything but success.
    async fn waited_for<T>(
        &self,
        number: u64,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Away> {
        let failure = match timeout(self.shared.timeout, answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => away(Unconnected::Failed(error)),
            Err(_) => Away::Silent,
        };
        self.lose(number, &failure);
        Err(failure)
    }

    async fn connect(&self) -> Result<Connection, Away> {
        let connecting = async {
            let connection = self.shared.backend.connect().await?;
            // One that loads its data, is stopped, or takes no writes accepts connections too.
            let probed = probe(&self.shared.take, connection.clone()).await;
            probed.map_err(Unconnected::Failed)?;
            Ok(connection)
        };
        let connected = timeout(CONNECT, connecting).await;
        connected.map_err(|_| Away::Silent)?.map_err(away)
    }

    /// Lets everybody use the connection until it is lost.
    async fn hold(&self, connection: Numbered) {
        self.set(Some(connection));
        loop {
            match timeout(PROBE, self.shared.lost.notified()).await {
                Ok(()) => return,
                // A failure loses the connection, which is notified in the same way.
                Err(_) => drop(self.probe().await),
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
            self.shared.backend.clear();
            tracing::warn!(error = %failure, "Redis is away");
            if is_demotion(failure) {
                self.shared.demotions.send_modify(|count| *count += 1);
            }
            self.shared.lost.notify_one();
        }
    }

    fn set(&self, connection: Option<Numbered>) {
        let there = connection.is_some();
        *self
            .shared
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner) = connection;
        self.shared.there.send_replace(there);
    }
}

/// Takes nothing from a bucket of one unit that no request uses, at each master of a cluster: any of them may refuse what the
/// others do.
async fn probe(take: &Script, mut connection: Connection) -> RedisResult<()> {
    for name in connection.probes().await? {
        let mut call = take.prepare_invoke();
        call.key(format!("rl:{{{name}}}")).arg(&[1, 1, 0]);
        let _: Vec<u64> = call.invoke_async(&mut connection).await?;
    }
    Ok(())
}

fn away(error: Unconnected) -> Away {
    match error {
        Unconnected::Timeout => Away::Silent,
        Unconnected::Failed(error) if error.is_timeout() => Away::Silent,
        Unconnected::Failed(error) if is_of_connection(&error) => Away::Lost(error),
        Unconnected::Failed(error) => Away::Refused(error),
    }
}

/// Whether the connection is to blame, and not what was asked.
fn is_of_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

/// Whether a script was refused because the server is a replica now. In a script the code stands in the message.
fn is_demotion(failure: &Away) -> bool {
    matches!(failure, Away::Refused(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error.to_string().contains("READONLY"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RedisMode;

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
            "redis://:hunter2@one,redis://two",
        ] {
            let error = open(url).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn several_urls_are_for_sentinels_and_clusters() {
        let sentinel = RedisMode::Sentinel {
            master: "mymaster".into(),
            login: Some((String::new(), "hunter2".into())),
        };
        for mode in [sentinel, RedisMode::Cluster] {
            let open = |url: &str, trusted: Option<&str>| {
                let config = RedisConfig {
                    mode: mode.clone(),
                    trusted: trusted.map(Into::into),
                    ..RedisConfig::single(url, CONNECT)
                };
                Redis::with(&config).map(|_| ())
            };
            assert_eq!(open("redis://:hunter2@one, redis://two:6380", None), Ok(()));
            assert_eq!(open("rediss://one", None), Ok(()));
            assert!(open("redis://one,two", None).is_err());
            let trusted = open("rediss://one", Some("-----BEGIN CERTIFICATE-----"));
            assert!(matches!(trusted, Err(RedisUrlError::Trusted(_))), "{trusted:?}");
            assert!(!format!("{mode:?}").contains("hunter2"));
        }
    }

    #[test]
    fn who_is_trusted_is_said_in_certificates_and_for_tls_only() {
        let open = |url: &str, trusted: &str| {
            let config = RedisConfig {
                trusted: Some(trusted.into()),
                ..RedisConfig::single(url, CONNECT)
            };
            Redis::with(&config).map(|_| ())
        };
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
    async fn without_a_connection_callers_are_answered_at_once() {
        let redis = Redis::new("redis://127.0.0.1:1", CONNECT).unwrap();
        assert!(!redis.is_there());
        assert!(matches!(redis.probe().await, Err(Away::NotThere)));
        assert!(matches!(
            redis.publish("tests", &[b""]).await,
            Err(Away::NotThere)
        ));
    }
}
