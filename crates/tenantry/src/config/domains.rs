use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tenantry_domain::tenant::DomainName;

use super::ConfigurationError;
use super::range::in_range;

/// Custom domains of tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Domains {
    /// The name that custom domains must lead to, as CNAME or by its addresses; empty = there are no custom domains.
    pub edge: String,
    /// Further names that no tenant may claim, beside those of `http.base_domain`, `mail.app_url` and `edge`.
    pub reserved: Vec<String>,
    /// The name servers that are asked, as `address:port`; empty = those of the system.
    #[serde(deserialize_with = "name_servers")]
    pub name_servers: Vec<SocketAddr>,
    /// The timeout of a lookup.
    pub timeout_ms: u64,
}

impl Default for Domains {
    fn default() -> Self {
        Self {
            edge: String::new(),
            reserved: Vec::new(),
            name_servers: Vec::new(),
            timeout_ms: 5_000,
        }
    }
}

/// Says of a text in place of the list what the list looks like, also in a variable of the environment.
fn name_servers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    Vec::deserialize(from).map_err(|error| {
        D::Error::custom(format!(
            "must be a list of addresses with ports, for example [\"192.0.2.53:53\"]: {error}"
        ))
    })
}

impl Domains {
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[("domains.timeout_ms", self.timeout_ms, 100, 20_000)])?;
        let is_name = |text: &String| DomainName::parse(text).is_some();
        if !self.edge.is_empty() && !is_name(&self.edge) {
            let problem = "must be a host name without port, for example edge.example.com";
            return Err(ConfigurationError::invalid("domains.edge", problem));
        }
        if !self.reserved.iter().all(is_name) {
            let problem = "must be a list of host names, for example [\"example.com\"]";
            return Err(ConfigurationError::invalid("domains.reserved", problem));
        }
        Ok(())
    }
}
