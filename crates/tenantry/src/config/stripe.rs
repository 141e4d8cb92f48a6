use serde::{Deserialize, Serialize};

use super::range::in_range;
use super::{ConfigurationError, Profile, Secret};

/// How Stripe is reached; without a key nobody is billed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stripe {
    /// `sk_live_…`, `sk_test_…`, or a restricted key (`rk_…`).
    pub secret_key: Secret,
    /// The secrets of webhook endpoints (`whsec_…`); several while one takes the place of another.
    pub webhook_secrets: Vec<Secret>,
    /// Something that stands in for Stripe, `http://127.0.0.1:9400`; none = Stripe.
    pub api_base: String,
    /// How long a call may take.
    pub timeout_ms: u64,
}

impl Default for Stripe {
    fn default() -> Self {
        Self {
            secret_key: Secret::default(),
            webhook_secrets: Vec::new(),
            api_base: String::new(),
            timeout_ms: 10_000,
        }
    }
}

impl Stripe {
    /// What the stand-in of `tenantry dev --stripe fake` is called with; nobody is billed with it.
    pub const FAKE_KEY: &'static str = "sk_test_fake";

    pub(super) fn check(&self, profile: Profile) -> Result<(), ConfigurationError> {
        in_range(&[("billing.stripe.timeout_ms", self.timeout_ms, 100, 60_000)])?;
        let wrong = |key: &'static str, problem: &str| Err(ConfigurationError::invalid(key, problem));
        let (key, production) = (self.secret_key.reveal(), profile == Profile::Production);
        let base = self.api_base.as_str();
        if !(key.is_empty() || key.starts_with("sk_") || key.starts_with("rk_")) {
            return wrong("billing.stripe.secret_key", "must begin with sk_ or rk_");
        }
        if self
            .webhook_secrets
            .iter()
            .any(|secret| !secret.reveal().starts_with("whsec_"))
        {
            return wrong("billing.stripe.webhook_secrets", "each must begin with whsec_");
        }
        if !base.is_empty() && !is_base(base) {
            let problem = "must be http://host[:port] or https://host[:port]";
            return wrong("billing.stripe.api_base", problem);
        }
        if production && (key == Self::FAKE_KEY || base.starts_with("http:")) {
            let problem = "a stand-in for Stripe is for development; https only";
            return wrong("billing.stripe.api_base", problem);
        }
        if production && !key.is_empty() && self.webhook_secrets.is_empty() {
            let problem = "is required with a key: without it nothing that Stripe tells is believed";
            return wrong("billing.stripe.webhook_secrets", problem);
        }
        Ok(())
    }
}

/// Whether a text is `http://host[:port]` or `https://host[:port]`, with a slash at its end or without.
fn is_base(text: &str) -> bool {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    host.map(|host| host.trim_end_matches('/'))
        .is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']))
}
