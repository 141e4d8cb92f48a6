use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// Work that is done in the background.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// Whether this server runs jobs; it may leave them to others.
    pub enabled: bool,
    /// How often it looks for jobs.
    pub poll_ms: u64,
    /// How many jobs it runs at once.
    pub at_once: u32,
    /// How many jobs of one tenant run at once, with those of other servers.
    pub per_tenant: u32,
    /// After how long without a sign of life its jobs are taken over by others.
    pub lease_seconds: u64,
    /// How long running jobs may take to finish when it is told to stop.
    pub grace_seconds: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            enabled: true,
            poll_ms: 1_000,
            at_once: 8,
            per_tenant: 4,
            lease_seconds: 60,
            grace_seconds: 10,
        }
    }
}

impl Jobs {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[
            ("jobs.poll_ms", self.poll_ms, 10, 60_000),
            ("jobs.at_once", self.at_once.into(), 1, 1_000),
            ("jobs.per_tenant", self.per_tenant.into(), 1, 1_000),
            ("jobs.lease_seconds", self.lease_seconds, 5, 3_600),
            ("jobs.grace_seconds", self.grace_seconds, 0, 600),
        ])
    }
}
