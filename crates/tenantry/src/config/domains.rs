use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
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
