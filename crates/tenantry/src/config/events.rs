use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::range::in_range;
use super::{ConfigurationError, Redis};

/// Events of tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Where events are exported to.
    pub export: Export,
}

/// A broker that the events of all tenants are exported to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// Off, or the product that the broker is.
    pub kind: ExportKind,
    /// Of `redis`: the key of the stream.
    pub stream: String,
    /// Of `redis`: about how many entries the stream keeps.
    pub max_length: u64,
    /// How long the broker may take for a batch.
    pub timeout_ms: u64,
    /// The most events of a batch.
    pub batch: u32,
}

/// What events are exported to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportKind {
    /// Nothing.
    #[default]
    Off,
    /// A stream in the Redis of `redis.url`.
    Redis,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            kind: ExportKind::Off,
            stream: "tenantry:events".into(),
            max_length: 1_000_000,
            timeout_ms: 5_000,
            batch: 100,
        }
    }
}

impl Export {
    /// How long the broker may take for a batch.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

impl Events {
    /// Whether each setting has a value that can be used, and there is a Redis where the export needs one.
    pub(super) fn check(&self, redis: &Redis) -> Result<(), ConfigurationError> {
        let export = &self.export;
        in_range(&[
            (
                "events.export.max_length",
                export.max_length,
                1_000,
                1_000_000_000,
            ),
            ("events.export.timeout_ms", export.timeout_ms, 100, 60_000),
            ("events.export.batch", export.batch.into(), 1, 500),
        ])?;
        let wrong = |key: &'static str, problem: &str| Err(ConfigurationError::invalid(key, problem));
        let is_key =
            (1..=200).contains(&export.stream.len()) && export.stream.bytes().all(|b| b.is_ascii_graphic());
        match export.kind {
            ExportKind::Off => Ok(()),
            ExportKind::Redis if redis.url.is_empty() => wrong(
                "events.export.kind",
                "needs a Redis: set redis.url, or leave events.export.kind at off",
            ),
            ExportKind::Redis if !is_key => wrong(
                "events.export.stream",
                "must be 1 to 200 printable ASCII characters without spaces, for example tenantry:events",
            ),
            ExportKind::Redis => Ok(()),
        }
    }
}
