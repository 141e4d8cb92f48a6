//! Whether a proxy may get a certificate for a host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration as Wait;

use chrono::Duration;
use tenantry_domain::kernel::{StoreError, Time};
use tenantry_domain::tenant::{Capability, DomainName, Slug, TenantSelector};
use tokio::time::timeout;

use crate::Tenancy;
use crate::tenant::host_lookup::HostLookups;

/// The most hosts of which the last answer is kept.
const MOST: usize = 50_000;

/// So long an answer stands in for the database while that is away.
const LONGEST: Duration = Duration::days(1);

/// How long a question waits for the store. A proxy waits for some 10 seconds.
const TIMEOUT: Wait = Wait::from_secs(8);

/// The hosts that were served when they were last asked about, so that a proxy renews their certificates while the database is away,
/// and those that are being looked up.
#[derive(Default)]
pub struct ServedHosts {
    hosts: Mutex<HashMap<String, Time>>,
    lookups: HostLookups,
}

impl ServedHosts {
    fn note(&self, host: &str, is_served: bool, now: Time) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_served {
            hosts.remove(host);
        } else if hosts.len() < MOST || hosts.contains_key(host) {
            hosts.insert(host.to_owned(), now);
        }
    }

    fn was_served(&self, host: &str, now: Time) -> bool {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(host).is_some_and(|at| now - *at <= LONGEST)
    }
}

/// Whether requests for a host are served here: it is one of the product's own, a subdomain of a tenant, or an active custom domain.
/// Hosts of deleted tenants are not. No question is refused because of others: whatever is asked about meanwhile, the answer comes from
/// the cache of tenants' names or from the store.
///
/// # Errors
/// [`StoreError`] when the store failed, or gave no answer in 8 seconds, and the host was not served within the last day.
pub async fn is_served(app: &Arc<Tenancy>, host: &str) -> Result<bool, StoreError> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let selector = match lookup(app, &host) {
        Lookup::Own => return Ok(true),
        Lookup::Unknown => return Ok(false),
        Lookup::Tenant(selector) => selector,
    };
    let (hosts, now) = (app.state::<ServedHosts>(), app.ports.clock.now());
    let found = match app.ports.gate.find_cached(&selector) {
        Some(tenant) => Ok(tenant.status.allows(Capability::Login)),
        None => timeout(TIMEOUT, hosts.lookups.is_served(app, &selector))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("a lookup of a host took too long".into()))),
    };
    match found {
        Ok(is_served) => {
            hosts.note(&host, is_served, now);
            Ok(is_served)
        }
        Err(error) if hosts.was_served(&host, now) => {
            tracing::warn!(%error, host, "certificate allowed by the last answer: the store failed");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// How a host is looked up.
enum Lookup {
    /// It is the product's.
    Own,
    /// Nobody can have it.
    Unknown,
    /// A tenant may have it.
    Tenant(TenantSelector),
}

fn lookup(app: &Tenancy, host: &str) -> Lookup {
    let domains = &app.policy.domains;
    let is = |own: &Option<String>| own.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(host));
    if is(&domains.base_domain) || is(&domains.edge) || is(&domains.app_host) {
        return Lookup::Own;
    }
    // A proxy asks for the host alone.
    let Some(name) = DomainName::of_host(host).filter(|name| name.as_str() == host) else {
        return Lookup::Unknown;
    };
    let base = domains.base_domain.as_deref();
    match base.and_then(|base| name.label_below(base)) {
        // Without an edge no request is resolved by a custom domain.
        None if domains.edge.is_none() => Lookup::Unknown,
        None => Lookup::Tenant(TenantSelector::Domain(name)),
        Some(label) => match Slug::parse(label) {
            Some(slug) if slug.is_reserved() => Lookup::Own,
            Some(slug) => Lookup::Tenant(TenantSelector::Subdomain(slug)),
            None => Lookup::Unknown,
        },
    }
}
