use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// What becomes of tenants that are deleted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    /// So many days after its deletion a tenant is purged, and can be restored until then.
    pub purge_after_days: u32,
}

impl Default for Tenants {
    fn default() -> Self {
        Self { purge_after_days: 30 }
    }
}

impl Tenants {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[("tenants.purge_after_days", self.purge_after_days.into(), 1, 3_650)])
    }
}
