use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::{HOUR_MS, in_range};

/// What tenants use, counted by the server itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metering {
    /// The folder in which calls wait until they are stored, so that a killed server loses none; empty = in memory, where
    /// they are lost with it. Servers over one database may share it, servers over different ones must not.
    pub spool_dir: PathBuf,
    /// How often they are stored: each time an event of each tenant that was active.
    pub flush_interval_ms: u64,
}

impl Default for Metering {
    fn default() -> Self {
        Self {
            spool_dir: PathBuf::new(),
            flush_interval_ms: 30_000,
        }
    }
}

impl Metering {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[("metering.flush_interval_ms", self.flush_interval_ms, 100, HOUR_MS)])
    }
}
