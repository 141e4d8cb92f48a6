//! How a Redis is reached: one server, the master that Sentinels name, or a cluster. The pools and managers are those of
//! `deadpool-redis`.

use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::sentinel::{SentinelClient, SentinelServerType};
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
    cmd,
};
use deadpool_redis::{PoolConfig, Runtime, Timeouts, cluster, sentinel};
use tokio::sync::Mutex;

use crate::config::{RedisConfig, RedisMode, RedisUrlError};
use crate::slots;

/// How long connecting may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// Connections of the pool; only what is off the path of requests takes them.
const POOLED: usize = 4;

/// The pool of one kind of Redis, and what subscriptions connect with, which no pool has.
pub(crate) enum Backend {
    Single {
        pool: deadpool_redis::Pool,
        client: Box<Client>,
    },
    Sentinel {
        pool: sentinel::Pool,
        sentinels: Box<Mutex<SentinelClient>>,
    },
    Cluster {
        pool: cluster::Pool,
        nodes: Vec<Client>,
    },
}

/// A connection that many tasks use at once. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Connection {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection of the pool, given back with this value.
pub(crate) enum Pooled {
    Single(deadpool_redis::Connection),
    Sentinel(sentinel::Connection),
    Cluster(cluster::Connection),
}

/// Why a pool has no connection.
pub(crate) enum Unconnected {
    Timeout,
    Failed(RedisError),
}

impl Backend {
    /// Returns the backend of these settings. It connects to nothing yet.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisUrlError> {
        let infos = infos(config)?;
        let pools = PoolConfig {
            timeouts: Timeouts {
                wait: Some(CONNECT),
                create: Some(CONNECT),
                recycle: Some(config.timeout),
            },
            ..PoolConfig::new(POOLED)
        };
        match &config.mode {
            RedisMode::Single => single(infos, config.timeout, pools),
            RedisMode::Sentinel { master, login } => of_sentinels(infos, master, login.as_ref(), pools),
            RedisMode::Cluster => of_cluster(infos, pools),
        }
    }

    /// Opens a connection that the pool does not keep, for the path of requests.
    pub(crate) async fn connect(&self) -> Result<Connection, Unconnected> {
        Ok(match self.pooled().await? {
            Pooled::Single(connection) => Connection::Node(deadpool_redis::Connection::take(connection)),
            Pooled::Sentinel(connection) => Connection::Node(sentinel::Connection::take(connection)),
            Pooled::Cluster(connection) => Connection::Cluster(cluster::Connection::take(connection)),
        })
    }

    /// Takes a connection from the pool.
    pub(crate) async fn pooled(&self) -> Result<Pooled, Unconnected> {
        Ok(match self {
            Self::Single { pool, .. } => Pooled::Single(pool.get().await?),
            Self::Sentinel { pool, .. } => Pooled::Sentinel(pool.get().await?),
            Self::Cluster { pool, .. } => Pooled::Cluster(pool.get().await?),
        })
    }

    /// Closes the idle connections of the pool: they may lead to a server that is no master any more.
    pub(crate) fn clear(&self) {
        match self {
            Self::Single { pool, .. } => drop(pool.retain(|_, _| false)),
            Self::Sentinel { pool, .. } => drop(pool.retain(|_, _| false)),
            Self::Cluster { pool, .. } => drop(pool.retain(|_, _| false)),
        }
    }

    /// Opens a connection for messages. In a cluster every node delivers every message.
    pub(crate) async fn messages(&self) -> RedisResult<PubSub> {
        match self {
            Self::Single { client, .. } => client.get_async_pubsub().await,
            Self::Sentinel { sentinels, .. } => {
                let master = sentinels.lock().await.async_get_client().await?;
                master.get_async_pubsub().await
            }
            Self::Cluster { nodes, .. } => {
                let mut failure = RedisError::from((ErrorKind::InvalidClientConfig, "there are no nodes"));
                for node in nodes {
                    match node.get_async_pubsub().await {
                        Ok(messages) => return Ok(messages),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }
}

impl Pooled {
    /// A handle to the connection, good for as long as this value.
    pub(crate) fn connection(&self) -> Connection {
        match self {
            Self::Single(connection) => Connection::Node((**connection).clone()),
            Self::Sentinel(connection) => Connection::Node((**connection).clone()),
            Self::Cluster(connection) => Connection::Cluster((**connection).clone()),
        }
    }
}

impl Connection {
    /// Lets this handle wait so long for each answer. Other handles of the connection keep their time.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        // One of a cluster is held to the timeout of its caller alone.
        if let Self::Node(connection) = self {
            connection.set_response_timeout(timeout);
        }
    }

    /// Returns the hash tags of the keys that a probe uses: one for each server that requests may come to.
    pub(crate) async fn probes(&mut self) -> RedisResult<Vec<String>> {
        match self {
            Self::Node(_) => Ok(vec!["probe".to_owned()]),
            Self::Cluster(connection) => {
                let answer = cmd("CLUSTER").arg("SLOTS").query_async(connection).await?;
                slots::names(&answer)
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl From<deadpool_redis::PoolError> for Unconnected {
    fn from(error: deadpool_redis::PoolError) -> Self {
        match error {
            deadpool_redis::PoolError::Backend(error) => Self::Failed(error),
            // The pool is never closed and has a runtime and no hooks, so only its timeouts are left.
            _ => Self::Timeout,
        }
    }
}

fn single(
    infos: Vec<ConnectionInfo>,
    timeout: Duration,
    pools: PoolConfig,
) -> Result<Backend, RedisUrlError> {
    let [info] = <[ConnectionInfo; 1]>::try_from(infos)
        .map_err(|_| refused("must be one URL; several are for redis.mode sentinel and cluster"))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(timeout));
    let manager = deadpool_redis::Manager::new_with_config(info.clone(), config).map_err(unusable)?;
    let pool = deadpool_redis::Pool::builder(manager).config(pools);
    Ok(Backend::Single {
        pool: pool.runtime(Runtime::Tokio1).build().map_err(no_pool)?,
        client: Box::new(Client::open(info).map_err(unusable)?),
    })
}

fn of_sentinels(
    infos: Vec<ConnectionInfo>,
    master: &str,
    login: Option<&(String, String)>,
    pools: PoolConfig,
) -> Result<Backend, RedisUrlError> {
    let first = infos.first().ok_or_else(|| refused("must name a Sentinel"))?;
    let node = first.redis_settings().clone();
    let tls = matches!(first.addr(), ConnectionAddr::TcpTls { .. });
    // The URL's user, password and database are those of the master.
    let mut at_sentinels = RedisConnectionInfo::default();
    if let Some((user, password)) = login {
        at_sentinels = at_sentinels.set_password(password);
        if !user.is_empty() {
            at_sentinels = at_sentinels.set_username(user);
        }
    }
    let infos: Vec<_> = infos
        .into_iter()
        .map(|info| info.set_redis_settings(at_sentinels.clone()))
        .collect();
    let at_node = sentinel::SentinelNodeConnectionInfo {
        tls_mode: tls.then_some(sentinel::TlsMode::Secure),
        redis_connection_info: Some(node.clone().into()),
    };
    let manager = sentinel::Manager::new(
        infos.clone(),
        master.to_owned(),
        Some(at_node),
        sentinel::SentinelServerType::Master,
    );
    let pool = sentinel::Pool::builder(manager.map_err(unusable)?).config(pools);
    let mut at_node = deadpool_redis::redis::sentinel::SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(node);
    if tls {
        at_node = at_node.set_tls_mode(TlsMode::Secure);
    }
    let sentinels = SentinelClient::build(infos, master, Some(at_node), SentinelServerType::Master);
    Ok(Backend::Sentinel {
        pool: pool.runtime(Runtime::Tokio1).build().map_err(no_pool)?,
        sentinels: Box::new(Mutex::new(sentinels.map_err(unusable)?)),
    })
}

fn of_cluster(infos: Vec<ConnectionInfo>, pools: PoolConfig) -> Result<Backend, RedisUrlError> {
    let manager = cluster::Manager::new(infos.clone(), false).map_err(unusable)?;
    let pool = cluster::Pool::builder(manager).config(pools);
    let nodes: RedisResult<Vec<_>> = infos.into_iter().map(Client::open).collect();
    Ok(Backend::Cluster {
        pool: pool.runtime(Runtime::Tokio1).build().map_err(no_pool)?,
        nodes: nodes.map_err(unusable)?,
    })
}

/// The addresses of the settings. Those behind the first have its user, password and database.
fn infos(config: &RedisConfig) -> Result<Vec<ConnectionInfo>, RedisUrlError> {
    let urls = config.url.split(',').map(str::trim);
    let infos: Result<Vec<_>, _> = urls.map(|url| info(url, config)).collect();
    let infos = infos?;
    let first = infos.first().map(|info| info.redis_settings().clone());
    let shared = |info: ConnectionInfo| match &first {
        Some(first) => info.set_redis_settings(first.clone()),
        None => info,
    };
    Ok(infos.into_iter().map(shared).collect())
}

fn info(url: &str, config: &RedisConfig) -> Result<ConnectionInfo, RedisUrlError> {
    let info = url.into_connection_info().map_err(unusable)?;
    let trusted = config.trusted.as_deref();
    if trusted.is_some() && !matches!(config.mode, RedisMode::Single) {
        return Err(RedisUrlError::Trusted(
            "can be used with redis.mode single only; elsewhere the system's certificates are trusted"
                .to_owned(),
        ));
    }
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: false, .. } => over_tls(info, trusted),
        ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) if trusted.is_none() => Ok(info),
        ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) => Err(refused(
            "must begin with rediss:// where a certificate is to be checked",
        )),
        _ => Err(refused(
            "must begin with redis://, rediss:// or unix://; a certificate that is not checked is none",
        )),
    }
}

fn over_tls(info: ConnectionInfo, trusted: Option<&[u8]>) -> Result<ConnectionInfo, RedisUrlError> {
    // It fails when a provider is there already, and then there is nothing to do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(trusted) = trusted else { return Ok(info) };
    if !has_certificate(trusted) {
        return Err(RedisUrlError::Trusted(
            "there is no certificate in PEM to trust".to_owned(),
        ));
    }
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(trusted.to_owned()),
    };
    let client = Client::build_with_tls(info, certificates);
    let client = client.map_err(|error| RedisUrlError::Trusted(error.to_string()))?;
    Ok(client.get_connection_info().clone())
}

/// A file without any would be taken, and trust nobody.
fn has_certificate(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----")
}

fn refused(problem: &str) -> RedisUrlError {
    RedisUrlError::Url(problem.to_owned())
}

/// The problem without the URL, which may contain a password.
fn unusable(error: RedisError) -> RedisUrlError {
    refused(error.detail().unwrap_or("not a Redis URL"))
}

fn no_pool(error: deadpool_redis::BuildError) -> RedisUrlError {
    refused(&error.to_string())
}
