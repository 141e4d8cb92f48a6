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

/// How many questions of a second are looked up in the store. A proxy asks once for each certificate, so this is far more than it needs,
/// and few enough that clients which connect with made-up names cost the store little.
const PER_SECOND: u32 = 100;

/// The hosts that were served when they were last asked about: while the database is away a proxy still renews their certificates, and
/// questions about made-up names do not keep theirs from an answer.
#[derive(Default)]
pub struct ServedHosts {
    hosts: Mutex<HashMap<String, Time>>,
    looked_up: Mutex<Option<(Time, u32)>>,
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

    /// Whether another host that is not known to be served is looked up in this second.
    fn admits(&self, now: Time) -> bool {
        let mut window = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        let is_now = |since: Time| (Duration::zero()..Duration::seconds(1)).contains(&(now - since));
        let (since, count) = window.filter(|(since, _)| is_now(*since)).unwrap_or((now, 0));
        *window = Some((since, count.saturating_add(1)));
        count < PER_SECOND
    }
}

/// Why a question about a host is not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// As many other hosts as are looked up in a second were asked about in this one.
    #[error("too many questions, ask again in a second")]
    TooMany,
    /// The store failed, and nothing is known of the host.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether requests for a host are served here: it is one of the product's own, a subdomain of a tenant, or an active custom domain.
/// Hosts of deleted tenants are not. Only hosts that have to be looked up, and were not served when they were last, are bounded.
///
/// # Errors
/// [`AskError`].
pub async fn is_served(app: &Tenancy, host: &str) -> Result<bool, AskError> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let selector = match lookup(app, &host) {
        Lookup::Own => return Ok(true),
        Lookup::Unknown => return Ok(false),
        Lookup::Tenant(selector) => selector,
    };
    let (hosts, now) = (app.state::<ServedHosts>(), app.ports.clock.now());
    if !hosts.was_served(&host, now) && !hosts.admits(now) {
        return Err(AskError::TooMany);
    }
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
        Err(error) => Err(error.into()),
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
