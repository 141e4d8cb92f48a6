use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use serde_json::json;
use tenantry_domain::kernel::{ApiKeyId, Network, Permission, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::tenant::Denied;

use crate::{Cx, Origin, Tenancy};

/// A use is noted at most once in so long, so that a key costs at most one write in that time.
const COARSE: Duration = Duration::minutes(5);

/// When API keys were last used, noted in memory and stored from time to time, so that no request waits for a write. A
/// killed server loses what it had not stored.
#[derive(Debug, Default)]
pub struct KeyUses {
    uses: Mutex<Uses>,
    networks: Mutex<HashMap<(TenantId, ApiKeyId), Networks>>,
}

/// The networks that a key was used from since the process began.
#[derive(Debug, Default)]
struct Networks {
    /// So many at the most; for a key with more, which has no usual network, no others are recorded.
    seen: Vec<Network>,
    /// The addresses whose networks are to be recorded.
    unrecorded: Vec<IpAddr>,
}

/// The most networks of a key that are recorded.
const NETWORKS: usize = 20;

/// The most keys whose networks are known; beyond that they begin anew.
const KEYS: usize = 20_000;

type Uses = HashMap<TenantId, HashMap<ApiKeyId, Use>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Use {
    at: Time,
    is_stored: bool,
}

impl Tenancy {
    /// Returns when API keys were last used.
    pub fn key_uses(&self) -> Arc<KeyUses> {
        self.state()
    }
}

impl KeyUses {
    /// Notes that a key is used, unless it was a few minutes ago.
    pub fn note(&self, tenant: TenantId, key: ApiKeyId, now: Time) {
        let mut uses = self.uses();
        let of_tenant = uses.entry(tenant).or_default();
        let is_recent = |one: &Use| now - one.at < COARSE;
        if !of_tenant.get(&key).is_some_and(is_recent) {
            let first = Use {
                at: now,
                is_stored: false,
            };
            of_tenant.insert(key, first);
        }
    }

    /// Notes from which network a key is used. The first use from each becomes an entry of the audit log.
    pub fn note_network(&self, tenant: TenantId, key: ApiKeyId, address: Option<IpAddr>) {
        let (Some(address), Some(network)) = (address, Network::site(address)) else {
            return;
        };
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if networks.len() >= KEYS && !networks.contains_key(&(tenant, key)) {
            networks.clear();
        }
        let of_key = networks.entry((tenant, key)).or_default();
        if of_key.seen.len() < NETWORKS && !of_key.seen.contains(&network) {
            of_key.seen.push(network);
            of_key.unrecorded.push(address);
        }
    }

    /// Records the networks that keys were used from. What cannot be recorded now is recorded with the next use.
    async fn record_networks(&self, app: &Arc<Tenancy>) {
        let unrecorded: Vec<_> = {
            let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
            let with_news = networks
                .iter_mut()
                .filter(|(_, of_key)| !of_key.unrecorded.is_empty());
            let taken = with_news.map(|(key, of_key)| (*key, std::mem::take(&mut of_key.unrecorded)));
            taken.collect()
        };
        for ((tenant, key), addresses) in unrecorded {
            for address in addresses {
                let recorded = record_network(app, (tenant, key), address).await;
                if let Err(error) = recorded {
                    tracing::warn!(%tenant, %error, "the network of an API key could not be recorded");
                    let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
                    networks.remove(&(tenant, key));
                }
            }
        }
    }

    /// Stores what was noted, tenant by tenant, each in its own scope; how many keys that were. What cannot be stored now is
    /// kept; what belongs to a tenant that is gone is dropped.
    pub async fn flush(&self, app: &Arc<Tenancy>) -> usize {
        let mut stored = 0;
        for (tenant, uses) in self.unstored() {
            match store(app, tenant, &uses).await {
                Ok(()) => {
                    stored += uses.len();
                    self.mark(tenant, &uses);
                }
                Err(Denied::TenantGone | Denied::TenantNotFound) => {
                    self.uses().remove(&tenant);
                }
                Err(error) => {
                    tracing::warn!(%tenant, %error, "uses of API keys could not be stored, they are kept");
                }
            }
        }
        self.evict(app.ports.clock.now());
        self.record_networks(app).await;
        stored
    }

    /// In one order everywhere, so that two servers that store at once cannot deadlock.
    fn unstored(&self) -> Vec<(TenantId, Vec<(ApiKeyId, Time)>)> {
        let uses = self.uses();
        let of_tenant = |(tenant, uses): (&TenantId, &HashMap<ApiKeyId, Use>)| {
            let open = uses.iter().filter(|(_, one)| !one.is_stored);
            let mut open: Vec<_> = open.map(|(key, one)| (*key, one.at)).collect();
            open.sort_unstable();
            (!open.is_empty()).then_some((*tenant, open))
        };
        uses.iter().filter_map(of_tenant).collect()
    }

    fn mark(&self, tenant: TenantId, stored: &[(ApiKeyId, Time)]) {
        let mut uses = self.uses();
        let Some(of_tenant) = uses.get_mut(&tenant) else {
            return;
        };
        for (key, at) in stored {
            if let Some(one) = of_tenant.get_mut(key).filter(|one| one.at == *at) {
                one.is_stored = true;
            }
        }
    }

    /// Drops what is stored and old enough to be noted again, so that memory is bounded by the keys in use.
    fn evict(&self, now: Time) {
        self.uses().retain(|_, uses| {
            uses.retain(|_, one| !one.is_stored || now - one.at < COARSE);
            !uses.is_empty()
        });
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn store(app: &Arc<Tenancy>, tenant: TenantId, uses: &[(ApiKeyId, Time)]) -> Result<(), Denied> {
    let because = SystemScope::because("store when API keys were used");
    let cx = Cx::enter(app, because, tenant).await?.ok_or(Denied::TenantGone)?;
    cx.require(Permission::RecordApiKeyUse)
        .map_err(|refused| StoreError::Other(refused.to_string()))?;
    cx.write(async |work| {
        for (key, at) in uses {
            work.api_keys().record_use(*key, *at).await?;
        }
        Ok::<_, StoreError>(())
    })
    .await?;
    Ok(())
}

/// A tenant that is gone has no log.
async fn record_network(
    app: &Arc<Tenancy>,
    (tenant, key): (TenantId, ApiKeyId),
    address: IpAddr,
) -> Result<(), StoreError> {
    let because = SystemScope::because("record the networks of API keys");
    let Some(cx) = Cx::enter(app, because, tenant).await? else {
        return Ok(());
    };
    cx.require(Permission::RecordApiKeyUse)
        .map_err(|refused| StoreError::Other(refused.to_string()))?;
    let cx = cx.with_origin(Origin {
        ip: Some(address.to_string()),
        user_agent: None,
    });
    cx.write(async |work| {
        let details = json!({"network": Network::site(Some(address)).map(|network| network.to_string())});
        let event = cx.security("api_key.network_seen", "api_key", Some(key.uuid()), details);
        work.audit().record(event).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_use_is_noted_once_in_five_minutes() {
        let uses = KeyUses::default();
        let (tenant, key) = (Uuid::from_u128(1).into(), Uuid::from_u128(2).into());
        let at = |seconds| Time::UNIX_EPOCH + Duration::seconds(seconds);
        uses.note(tenant, key, at(0));
        uses.note(tenant, key, at(299));
        assert_eq!(uses.unstored(), [(tenant, vec![(key, at(0))])]);
        uses.mark(tenant, &[(key, at(0))]);
        assert!(uses.unstored().is_empty());
        uses.evict(at(299));
        uses.note(tenant, key, at(299));
        assert!(uses.unstored().is_empty());
        uses.note(tenant, key, at(300));
        assert_eq!(uses.unstored(), [(tenant, vec![(key, at(300))])]);
        uses.mark(tenant, &[(key, at(0))]);
        assert_eq!(uses.unstored().len(), 1, "what was noted meanwhile is not lost");
        uses.mark(tenant, &[(key, at(300))]);
        uses.evict(at(600));
        assert!(uses.uses().is_empty());
    }
}
