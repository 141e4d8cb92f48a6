use std::time::Duration;

/// Which Redis, and how it is reached.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`, the same with `rediss://` for TLS, or `unix:///path`. Several,
    /// separated by commas, for Sentinels and clusters; user, password and database are those of the first.
    pub url: String,
    /// What the URL leads to.
    pub mode: RedisMode,
    /// Certificates (PEM) trusted to sign the server's, in place of the system's; for a single server over TLS.
    pub trusted: Option<Vec<u8>>,
    /// How long a request may wait for an answer.
    pub timeout: Duration,
}

/// What a URL leads to.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisMode {
    /// A server.
    Single,
    /// Sentinels, which know where the master is. User, password and database of the URL are those of the master.
    Sentinel {
        /// The master's name at the Sentinels.
        master: String,
        /// User (may be empty) and password at the Sentinels.
        login: Option<(String, String)>,
    },
    /// Nodes of a Redis Cluster; the others are found through them.
    Cluster,
}

impl std::fmt::Debug for RedisMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Single => f.write_str("Single"),
            Self::Sentinel { master, .. } => f
                .debug_struct("Sentinel")
                .field("master", master)
                .finish_non_exhaustive(),
            Self::Cluster => f.write_str("Cluster"),
        }
    }
}

impl RedisConfig {
    /// A single server at a URL, over TLS with the system's certificates.
    pub fn single(url: &str, timeout: Duration) -> Self {
        Self {
            url: url.to_owned(),
            mode: RedisMode::Single,
            trusted: None,
            timeout,
        }
    }
}

/// Why there can be no connection with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// The URL leads to no Redis.
    #[error("{0}")]
    Url(String),
    /// The certificates to trust are none.
    #[error("{0}")]
    Trusted(String),
}
