use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::range::in_range;
use super::{ConfigurationError, Secret};

/// What several servers share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS; several, separated by commas, for Sentinels
    /// and clusters. Without one every server goes by what it knows itself.
    pub url: Secret,
    /// What the URL leads to.
    pub mode: RedisMode,
    /// With `sentinel`: the master's name, and the user and password of the Sentinels themselves; those in the URL are for
    /// the master.
    pub sentinel_master: String,
    pub sentinel_user: String,
    pub sentinel_password: Secret,
    /// A file with the certificates (PEM) of those whose word is taken for the server's; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// How long a request may wait for it.
    pub timeout_ms: u64,
    /// Accept a URL over a network without TLS in production. Logged at every start.
    pub allow_plaintext: bool,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            mode: RedisMode::Single,
            sentinel_master: "mymaster".into(),
            sentinel_user: String::new(),
            sentinel_password: Secret::default(),
            ca_file: None,
            timeout_ms: 50,
            allow_plaintext: false,
        }
    }
}

/// What `redis.url` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// A server.
    Single,
    /// Sentinels, which name the master.
    Sentinel,
    /// Nodes of a Redis Cluster.
    Cluster,
}

impl Redis {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[("redis.timeout_ms", self.timeout_ms, 1, 10_000)])
    }
}
