//! Whether a proxy may get a certificate for a host.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::Duration;
use tenantry_domain::kernel::{StoreError, Time};
use tenantry_domain::tenant::{Capability, DomainName, Slug, TenantSelector};

use crate::Tenancy;

/// The most hosts of which the last answer is kept.
const MOST: usize = 50_000;

/// So long an answer stands in for the database while that is away.
const LONGEST: Duration = Duration::days(1);

/// The hosts that were served when they were last asked about: while the database is away a proxy still renews their certificates.
#[derive(Default)]
pub struct ServedHosts(Mutex<HashMap<String, Time>>);

impl ServedHosts {
    fn note(&self, host: &str, is_served: bool, now: Time) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_served {
            hosts.remove(host);
        } else if hosts.len() < MOST || hosts.contains_key(host) {
            hosts.insert(host.to_owned(), now);
        }
    }

    fn was_served(&self, host: &str, now: Time) -> bool {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(host).is_some_and(|at| now - *at <= LONGEST)
    }
}

/// Whether requests for a host are served here: it is one of the product's own, a subdomain of a tenant, or an active custom domain.
/// Hosts of deleted tenants are not.
///
/// # Errors
/// [`StoreError`] when the store fails and nothing is known of the host.
pub async fn is_served(app: &Tenancy, host: &str) -> Result<bool, StoreError> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let selector = match lookup(app, &host) {
        Lookup::Own => return Ok(true),
        Lookup::Unknown => return Ok(false),
        Lookup::Tenant(selector) => selector,
    };
    let (hosts, now) = (app.state::<ServedHosts>(), app.ports.clock.now());
    match app.ports.gate.find(&selector).await {
        Ok(found) => {
            let is_served = found.is_some_and(|tenant| tenant.status.allows(Capability::Login));
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
    if is(&domains.base_domain) || is(&domains.edge) {
        return Lookup::Own;
    }
    // A proxy asks for the host alone.
    let Some(name) = DomainName::of_host(host).filter(|name| name.as_str() == host) else {
        return Lookup::Unknown;
    };
    let base = domains.base_domain.as_deref();
    match base.and_then(|base| name.label_below(base)) {
        None => Lookup::Tenant(TenantSelector::Domain(name)),
        Some(label) => match Slug::parse(label) {
            Some(slug) if slug.is_reserved() => Lookup::Own,
            Some(slug) => Lookup::Tenant(TenantSelector::Subdomain(slug)),
            None => Lookup::Unknown,
        },
    }
}
