use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_domain::webhooks::{EndpointRules, NetworkRules, NetworkRulesError};

use super::range::in_range;
use super::{ConfigurationError, Profile};

/// Outgoing webhooks of tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// Whether endpoints may have `http` URLs; only outside of production.
    pub allow_http: bool,
    /// The ports that endpoints may listen on; empty = every port, only outside of production.
    pub ports: Vec<u16>,
    /// Parts of private networks that endpoints may be in.
    pub allowed_networks: Vec<String>,
    /// Networks that no endpoint may be in, whatever else says so.
    pub denied_networks: Vec<String>,
    /// The timeout of the connection, with name and TLS.
    pub connect_timeout_ms: u64,
    /// The timeout of the answer's head.
    pub answer_timeout_ms: u64,
    /// The timeout of the answer's body.
    pub body_timeout_ms: u64,
    /// A file with the certificates (PEM) trusted to sign receivers', beside those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Default for Webhooks {
    fn default() -> Self {
        let rules = EndpointRules::default();
        Self {
            allow_http: rules.allow_http,
            ports: rules.ports,
            allowed_networks: Vec::new(),
            denied_networks: Vec::new(),
            connect_timeout_ms: 5_000,
            answer_timeout_ms: 15_000,
            body_timeout_ms: 2_000,
            ca_file: None,
        }
    }
}

impl Webhooks {
    /// Which URLs endpoints may have.
    ///
    /// # Errors
    /// [`ConfigurationError`] with the name of the setting.
    pub fn rules(&self) -> Result<EndpointRules, ConfigurationError> {
        let networks = NetworkRules::new(&self.allowed_networks, &self.denied_networks);
        let networks = networks.map_err(|error| {
            let is_of = |list: &[String], text: &String| list.contains(text);
            let key = match &error {
                NetworkRulesError::NotANetwork(text) if !is_of(&self.allowed_networks, text) => {
                    "webhooks.denied_networks"
                }
                NetworkRulesError::NotANetwork(_) | NetworkRulesError::NotPrivate(_) => {
                    "webhooks.allowed_networks"
                }
            };
            ConfigurationError::invalid(key, error.to_string())
        })?;
        Ok(EndpointRules {
            ports: self.ports.clone(),
            allow_http: self.allow_http,
            networks,
        })
    }

    /// The timeouts of the connection, the answer's head and its body.
    pub const fn timeouts(&self) -> [Duration; 3] {
        [
            Duration::from_millis(self.connect_timeout_ms),
            Duration::from_millis(self.answer_timeout_ms),
            Duration::from_millis(self.body_timeout_ms),
        ]
    }

    pub(super) fn check(&self, profile: Profile) -> Result<(), ConfigurationError> {
        in_range(&[
            (
                "webhooks.connect_timeout_ms",
                self.connect_timeout_ms,
                100,
                30_000,
            ),
            ("webhooks.answer_timeout_ms", self.answer_timeout_ms, 100, 60_000),
            ("webhooks.body_timeout_ms", self.body_timeout_ms, 100, 30_000),
        ])?;
        let wrong = |key: &'static str, problem: &str| Err(ConfigurationError::invalid(key, problem));
        if profile == Profile::Production && self.allow_http {
            let problem = "must be false in production: everybody on the way can read and change what is sent over http";
            return wrong("webhooks.allow_http", problem);
        }
        if profile == Profile::Production && self.ports.is_empty() {
            let problem = "must list ports in production, for example [443, 8443]";
            return wrong("webhooks.ports", problem);
        }
        if self.ports.contains(&0) {
            return wrong("webhooks.ports", "must be a list of ports from 1 to 65535");
        }
        self.rules().map(drop)
    }
}
