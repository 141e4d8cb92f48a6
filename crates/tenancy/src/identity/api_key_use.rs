use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use tenantry_domain::kernel::{ApiKeyId, Permission, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::tenant::Denied;

use crate::{Cx, Tenancy};

/// A use is noted at most once in so long, so that a key costs at most one write in that time.
const COARSE: Duration = Duration::minutes(5);

/// When API keys were last used, noted in memory and stored from time to time, so that no request waits for a write. A
/// killed server loses what it had not stored.
#[derive(Debug, Default)]
pub struct KeyUses {
    uses: Mutex<Uses>,
}

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
