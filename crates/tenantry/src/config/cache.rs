use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// What is remembered of tenants, users and tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// At most so many memberships, names of tenants and tokens each.
    pub entries: u64,
    /// For how long, while changes made by other instances are heard of.
    pub ttl_ms: u64,
    /// For how long while they are not: a revocation made elsewhere goes unnoticed for so long.
    pub alone_ttl_ms: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            entries: 50_000,
            ttl_ms: 60_000,
            alone_ttl_ms: 1_000,
        }
    }
}

impl Cache {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[
            ("cache.entries", self.entries, 1, 100_000_000),
            ("cache.ttl_ms", self.ttl_ms, 0, 3_600_000),
            ("cache.alone_ttl_ms", self.alone_ttl_ms, 0, 60_000),
        ])
    }
}
