use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::kernel::{Permission, ProjectId, StoreError, SystemScope, TenantId};
use tenantry_domain::tenant::{Denied, TenantScope};

use crate::{Cx, Origin, Tenancy};

/// Counts views of projects in memory, so that reading never costs a write. The counts are stored per tenant from
/// time to time and on a clean shutdown; a killed process loses those it had not stored.
#[derive(Debug, Default)]
pub struct ViewCounter {
    pending: Mutex<Pending>,
}

type Pending = HashMap<TenantId, HashMap<ProjectId, i64>>;

/// What a flush did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flushed {
    /// How many views were stored.
    pub views: i64,
    /// Of how many tenants.
    pub tenants: usize,
    /// How many views wait for the next flush, because the store failed.
    pub kept: i64,
}

impl Tenancy {
    /// Returns the views that are counted but not stored yet.
    pub fn views(&self) -> Arc<ViewCounter> {
        self.state()
    }
}

impl ViewCounter {
    /// Counts a view of a project by whoever has the scope.
    pub fn note(&self, scope: &TenantScope, project: ProjectId) {
        self.add(scope.tenant(), project, 1);
    }

    /// Views of a project that are counted but not stored yet.
    pub fn pending(&self, scope: &TenantScope, project: ProjectId) -> i64 {
        self.counts()
            .get(&scope.tenant())
            .and_then(|views| views.get(&project))
            .copied()
            .unwrap_or(0)
    }

    /// Stores all counts, tenant by tenant, each in its own scope. What cannot be stored now is kept; what belongs
    /// to a tenant that is gone is dropped. Stopped in the middle, it keeps what is not stored.
    pub async fn flush(&self, app: &Arc<Tenancy>) -> Flushed {
        let tenants: Vec<_> = self.counts().keys().copied().collect();
        let mut flushed = Flushed::default();
        for tenant in tenants {
            let Some(mut taken) = self.take_out(tenant) else {
                continue;
            };
            let sum: i64 = taken.views.values().sum();
            match store(app, tenant, &taken.views).await {
                Ok(()) => {
                    flushed.views += sum;
                    flushed.tenants += 1;
                    taken.views.clear();
                }
                Err(Denied::TenantGone | Denied::TenantNotFound) => taken.views.clear(),
                Err(error) => {
                    tracing::warn!(%tenant, %error, "view counts could not be stored, they are kept");
                    flushed.kept += sum;
                }
            }
        }
        flushed
    }

    /// Returns how many views of all tenants are counted but not stored yet.
    pub fn waiting(&self) -> i64 {
        self.counts().values().flat_map(HashMap::values).sum()
    }

    fn add(&self, tenant: TenantId, project: ProjectId, count: i64) {
        *self
            .counts()
            .entry(tenant)
            .or_default()
            .entry(project)
            .or_default() += count;
    }

    fn take_out(&self, tenant: TenantId) -> Option<TakenOut<'_>> {
        let views = self.counts().remove(&tenant)?;
        Some(TakenOut {
            counter: self,
            tenant,
            views,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts of a tenant that are being stored; what is left of them counts again.
struct TakenOut<'a> {
    counter: &'a ViewCounter,
    tenant: TenantId,
    views: HashMap<ProjectId, i64>,
}

impl Drop for TakenOut<'_> {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.views);
        left.into_iter()
            .for_each(|(project, count)| self.counter.add(self.tenant, project, count));
    }
}

async fn store(app: &Arc<Tenancy>, tenant: TenantId, views: &HashMap<ProjectId, i64>) -> Result<(), Denied> {
    let scope = app
        .ports
        .gate
        .system(SystemScope::because("store view counts"), tenant)
        .await?;
    let cx = Cx::new(Arc::clone(app), scope, Origin::default());
    cx.require(Permission::CountViews)
        .map_err(|refused| StoreError::Other(refused.to_string()))?;
    let mut sorted: Vec<_> = views.iter().collect();
    // One order for everybody, so that two instances that flush at once cannot deadlock.
    sorted.sort_unstable();
    cx.write(async |work| {
        for (project, count) in &sorted {
            work.projects().add_views(**project, **count).await?;
        }
        Ok::<_, StoreError>(())
    })
    .await?;
    Ok(())
}
