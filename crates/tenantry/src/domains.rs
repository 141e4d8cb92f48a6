//! Custom domains: what the settings say of them.

use std::sync::Arc;
use std::time::Duration;

use tenantry_dns::{DnsSettings, HickoryDns};
use tenantry_domain::tenant::{Dns, ReservedDomains};
use tenantry_tenancy::DomainPolicy;

use crate::config::{Settings, SettingsError};

/// DNS, where there are custom domains.
pub fn dns(settings: &Settings) -> Result<Option<Arc<dyn Dns>>, SettingsError> {
    let domains = &settings.domains;
    if domains.edge.is_empty() {
        return Ok(None);
    }
    let dns = HickoryDns::new(&DnsSettings {
        servers: domains.name_servers.clone(),
        timeout: Duration::from_millis(domains.timeout_ms),
    });
    let dns = dns.map_err(|error| SettingsError::invalid("domains.name_servers", error.to_string()))?;
    Ok(Some(Arc::new(dns)))
}

/// What the use cases go by.
pub fn policy(settings: &Settings) -> DomainPolicy {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let app_url = url::Url::parse(&settings.mail.app_url).ok();
    let app_host = app_url.and_then(|url| url.domain().map(str::to_owned));
    let own = [&settings.http.base_domain, &settings.domains.edge].map(String::as_str);
    let own = own.into_iter().chain(app_host.as_deref());
    let reserved = settings.domains.reserved.iter().map(String::as_str);
    DomainPolicy {
        edge: named(&settings.domains.edge),
        base_domain: named(&settings.http.base_domain),
        reserved: ReservedDomains::of(own.chain(reserved)),
        app_host,
    }
}
