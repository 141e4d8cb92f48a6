use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// View counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Views {
    /// How often buffered views are stored.
    pub flush_seconds: u64,
}

impl Default for Views {
    fn default() -> Self {
        Self { flush_seconds: 10 }
    }
}

impl Views {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[("views.flush_seconds", self.flush_seconds, 1, 3_600)])
    }
}
