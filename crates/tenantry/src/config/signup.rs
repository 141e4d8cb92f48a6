use serde::{Deserialize, Serialize};

use super::range::in_range;
use super::{Challenge, ConfigurationError, Profile};

/// Who may found a tenant, and what it begins with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signup {
    pub enabled: bool,
    /// Whether a new tenant lets people register themselves until its admin says otherwise.
    pub self_registration: bool,
    pub timezone: String,
    pub locale: String,
    /// For how many days a slug or subdomain that a tenant gave up is reserved for that tenant.
    pub name_quarantine_days: u32,
    /// What keeps programs from signing up.
    pub challenge: Challenge,
}

impl Default for Signup {
    fn default() -> Self {
        Self {
            enabled: false,
            self_registration: false,
            timezone: "UTC".into(),
            locale: "en".into(),
            name_quarantine_days: 30,
            challenge: Challenge::default(),
        }
    }
}

impl Signup {
    /// Whether each number is in its range.
    pub(super) fn check(&self, profile: Profile) -> Result<(), ConfigurationError> {
        self.challenge.check(profile)?;
        in_range(&[(
            "signup.name_quarantine_days",
            self.name_quarantine_days.into(),
            0,
            3_650,
        )])
    }
}
