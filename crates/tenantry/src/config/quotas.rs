use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// What tenants may use of meters in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Whether a tenant whose API calls of a period are used up is refused.
    pub enforce_api_calls: bool,
    /// At which percentages of what is included and of the hard limit a tenant is told of it.
    pub alert_thresholds: Vec<u32>,
    /// For how long a part of a quota is lent to a server: so long what a killed server held cannot be told from what it used.
    pub lease_seconds: u64,
}

impl Quotas {
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[("quotas.lease_seconds", self.lease_seconds, 1, 300)])?;
        if self
            .alert_thresholds
            .iter()
            .all(|percent| (1..=100).contains(percent))
        {
            return Ok(());
        }
        let problem = "each must be a percentage from 1 to 100";
        Err(ConfigurationError::invalid("quotas.alert_thresholds", problem))
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            enforce_api_calls: true,
            alert_thresholds: vec![80, 100],
            lease_seconds: 10,
        }
    }
}
