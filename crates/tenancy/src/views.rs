use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tenantry_domain::{Denied, Permission, ProjectId, StoreError, SystemScope, TenantId, TenantScope};

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

impl ViewCounter {
    /// Counts a view of a project by whoever has the scope.
    pub fn note(&self, scope: &TenantScope, project: ProjectId) {
        self.add(scope.tenant(), project, 1);
    }

    /// Views of a project that are counted but not stored yet.
    pub fn pending(&self, scope: &TenantScope, project: ProjectId) -> i64 {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending
            .get(&scope.tenant())
            .and_then(|views| views.get(&project))
            .copied()
            .unwrap_or(0)
    }

    /// Stores all counts, tenant by tenant, each in its own scope. What cannot be stored now is kept; what belongs
    /// to a tenant that is gone is dropped.
    pub async fn flush(&self, app: &Arc<Tenancy>) -> Flushed {
        let taken = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let mut flushed = Flushed::default();
        for (tenant, views) in taken {
            let sum: i64 = views.values().sum();
            match store(app, tenant, &views).await {
                Ok(()) => {
                    flushed.views += sum;
                    flushed.tenants += 1;
                }
                Err(Denied::TenantGone | Denied::TenantNotFound) => {}
                Err(error) => {
                    tracing::warn!(%tenant, %error, "view counts could not be stored, they are kept");
                    flushed.kept += sum;
                    views
                        .into_iter()
                        .for_each(|(project, count)| self.add(tenant, project, count));
                }
            }
        }
        flushed
    }

    fn add(&self, tenant: TenantId, project: ProjectId, count: i64) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending.entry(tenant).or_default().entry(project).or_default() += count;
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
