use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenantry_domain::tenant::{Dns, DnsError};
use tenantry_domain::webhooks::{ConnectionFault, DeliveryOutcome, DeliveryPhase};
use tokio::time::Instant;
use url::Host;

/// The most names that are known at once.
const MOST_NAMES: usize = 10_000;

/// How long a failure is cached at most: the first retry of a message comes after a few seconds, and asks anew.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// The addresses of names, cached for seconds: an endpoint that gets thousands of messages a second is not resolved for each. Addresses
/// from the cache are checked by the sender like others, and connected to as they are, so a stale one opens nothing.
///
/// Of a name one lookup is under way at a time, and those who wait share its answer. So a name whose name servers are silent takes one of
/// the resolver's turns, and not one for each of its messages.
pub(crate) struct Names {
    dns: Arc<dyn Dns>,
    ttl: Duration,
    known: Mutex<HashMap<String, Slot>>,
}

/// What is known of a name. Locked while it is looked up.
type Slot = Arc<tokio::sync::Mutex<Option<Known>>>;

struct Known {
    since: Instant,
    answer: Result<Vec<IpAddr>, DeliveryOutcome>,
}

impl Names {
    pub(crate) fn new(dns: Arc<dyn Dns>, ttl: Duration) -> Self {
        Self {
            dns,
            ttl,
            known: Mutex::default(),
        }
    }

    /// Every address of a host, one at least. Those of IPv4 come first: not each server has a way to the others.
    pub(crate) async fn addresses(&self, host: Host<&str>) -> Result<Vec<IpAddr>, DeliveryOutcome> {
        let name = match host {
            Host::Ipv4(address) => return Ok(vec![address.into()]),
            Host::Ipv6(address) => return Ok(vec![IpAddr::from(address).to_canonical()]),
            Host::Domain(name) => name,
        };
        let arrived = Instant::now();
        let slot = self.slot(name);
        let mut known = slot.lock().await;
        // An answer that came while this attempt waited is as new as one of its own.
        if let Some(found) = known
            .as_ref()
            .filter(|known| known.since >= arrived || self.is_fresh(known))
        {
            return found.answer.clone();
        }
        let answer = self.look_up(name).await;
        *known = Some(Known {
            since: Instant::now(),
            answer: answer.clone(),
        });
        answer
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, DeliveryOutcome> {
        let route = self.dns.route(name).await.map_err(|error| match error {
            DnsError::NotFound => DeliveryOutcome::NameNotFound,
            DnsError::Failed => DeliveryOutcome::ConnectionFailed(ConnectionFault::NameServer),
            DnsError::Timeout => DeliveryOutcome::TimedOut(DeliveryPhase::Connect),
        })?;
        if route.addresses.is_empty() {
            return Err(DeliveryOutcome::NameNotFound);
        }
        let mut addresses: Vec<_> = route.addresses.iter().map(IpAddr::to_canonical).collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }

    fn is_fresh(&self, known: &Known) -> bool {
        let ttl = match known.answer {
            Ok(_) => self.ttl,
            Err(_) => self.ttl.min(FAILURE_TTL),
        };
        known.since.elapsed() < ttl
    }

    /// The slot of a name. Where there are too many, those that nobody uses make room.
    fn slot(&self, name: &str) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.get(name) {
            return Arc::clone(slot);
        }
        let slot = Slot::default();
        if known.len() >= MOST_NAMES {
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        if known.len() < MOST_NAMES {
            known.insert(name.to_owned(), Arc::clone(&slot));
        }
        slot
    }
}
