use serde::{Deserialize, Serialize};

use super::range::in_range;
use super::{ConfigurationError, Stripe};

/// Payments.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Billing {
    /// Where people come back to from the payment provider's pages.
    pub return_url: String,
    /// Whether the provider works out taxes.
    pub automatic_tax: bool,
    pub dunning: Dunning,
    pub stripe: Stripe,
}

impl Default for Billing {
    fn default() -> Self {
        Self {
            return_url: "http://127.0.0.1:8080/".into(),
            automatic_tax: false,
            dunning: Dunning::default(),
            stripe: Stripe::default(),
        }
    }
}

/// What becomes of tenants that do not pay.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dunning {
    /// So many days after it was suspended a tenant is deleted; 0 = never.
    pub delete_after_days: u32,
}

impl Billing {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[(
            "billing.dunning.delete_after_days",
            self.dunning.delete_after_days.into(),
            0,
            3_650,
        )])
    }
}
