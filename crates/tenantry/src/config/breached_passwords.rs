use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_challenge::PasswordRangesConfig;
use url::Url;

use super::range::in_range;
use super::{ConfigurationError, Profile};

/// The list of breached passwords that new ones are compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreachedPasswords {
    /// The address before `/range/`; none when it is empty.
    pub url: String,
    pub timeout_ms: u64,
}

impl Default for BreachedPasswords {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout_ms: 2_000,
        }
    }
}

impl BreachedPasswords {
    /// How the list is reached, if there is one.
    ///
    /// # Errors
    /// [`ConfigurationError`] for an address that is none.
    pub fn ranges(&self) -> Result<Option<PasswordRangesConfig>, ConfigurationError> {
        if self.url.is_empty() {
            return Ok(None);
        }
        let url = self.url.parse::<Url>().ok().filter(Url::has_host);
        let url = url.filter(|url| url.query().is_none() && url.fragment().is_none());
        let url = url.ok_or_else(wrong_url)?;
        let timeout = Duration::from_millis(self.timeout_ms);
        Ok(Some(PasswordRangesConfig { url, timeout }))
    }

    pub(super) fn check(&self, profile: Profile) -> Result<(), ConfigurationError> {
        in_range(&[("auth.breached_passwords.timeout_ms", self.timeout_ms, 100, 10_000)])?;
        match self.ranges()?.as_ref().map(|ranges| ranges.url.scheme()) {
            None | Some("https") => Ok(()),
            Some("http") if profile != Profile::Production => Ok(()),
            Some(_) => Err(wrong_url()),
        }
    }
}

fn wrong_url() -> ConfigurationError {
    ConfigurationError::invalid(
        "auth.breached_passwords.url",
        "must be the https address before /range/, for example https://api.pwnedpasswords.com",
    )
}
