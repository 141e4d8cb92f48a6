//! Custom domains: what the configuration says of them.

use std::sync::Arc;
use std::time::Duration;

use tenantry_dns::{DnsConfig, HickoryDns};
use tenantry_domain::tenant::{Dns, ReservedDomains};
use tenantry_tenancy::DomainPolicy;

use crate::config::{Configuration, ConfigurationError};

/// DNS, where there are custom domains.
pub fn dns(config: &Configuration) -> Result<Option<Arc<dyn Dns>>, ConfigurationError> {
    let domains = &config.domains;
    if domains.edge.is_empty() {
        return Ok(None);
    }
    let dns = HickoryDns::new(&DnsConfig {
        servers: domains.name_servers.clone(),
        timeout: Duration::from_millis(domains.timeout_ms),
        ..DnsConfig::default()
    });
    let dns = dns.map_err(|error| ConfigurationError::invalid("domains.name_servers", error.to_string()))?;
    Ok(Some(Arc::new(dns)))
}

/// What the use cases go by.
pub fn policy(config: &Configuration) -> DomainPolicy {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let app_url = url::Url::parse(&config.mail.app_url).ok();
    let app_host = app_url.and_then(|url| url.domain().map(str::to_owned));
    let own = [&config.http.base_domain, &config.domains.edge].map(String::as_str);
    let own = own.into_iter().chain(app_host.as_deref());
    let reserved = config.domains.reserved.iter().map(String::as_str);
    DomainPolicy {
        edge: named(&config.domains.edge),
        base_domain: named(&config.http.base_domain),
        reserved: ReservedDomains::of(own.chain(reserved)),
        app_host,
    }
}
