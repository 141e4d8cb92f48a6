use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// Where and how to listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub host: String,
    pub port: u16,
    /// Threads that serve requests; 0 = one per core.
    pub workers: usize,
    /// How long readiness says no before listening ends, so that a load balancer notices.
    pub drain_seconds: u64,
    /// How long requests in flight may take to finish.
    pub shutdown_seconds: u64,
    /// Connections of each thread; further ones wait in the backlog.
    pub max_connections: usize,
    /// Connections of one network (/24 of IPv4, /56 of IPv6), loopback and private networks excepted; 0 = no bound. Not in
    /// effect behind a proxy whose word on addresses is taken.
    pub connections_per_network: usize,
    /// How many connections may wait to be taken.
    pub backlog: u32,
}

impl Server {
    /// How many threads serve requests.
    pub fn threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get),
            workers => workers,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            workers: 0,
            drain_seconds: 0,
            shutdown_seconds: 20,
            max_connections: 25_000,
            connections_per_network: 1_000,
            backlog: 1_024,
        }
    }
}

impl Server {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[
            ("server.shutdown_seconds", self.shutdown_seconds, 1, 600),
            (
                "server.connections_per_network",
                self.connections_per_network as u64,
                0,
                1_000_000,
            ),
            (
                "server.max_connections",
                self.max_connections as u64,
                1,
                1_000_000,
            ),
            ("server.backlog", self.backlog.into(), 1, 65_535),
        ])
    }
}
