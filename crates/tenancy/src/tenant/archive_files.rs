//! The archives of a tenant's exports are files in a folder, and go with the tenant.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::Duration;
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};

use crate::Tenancy;
use crate::operations::job::{JobFailure, Nothing, SystemJobHandler};
use crate::tenant::lifecycle::{LifecycleError, LifecycleReason};

const BECAUSE: SystemScope = SystemScope::because("the archives of a tenant are deleted before its rows");

/// Checks that this process can delete the archives of a tenant that is to be purged: its rows are the only trace of them.
///
/// # Errors
/// [`LifecycleReason::ArchivesElsewhere`] where the tenant may have archives and this process has no folder for them; those of the
/// store.
pub async fn require_folder(app: &Tenancy, tenant: TenantId) -> Result<(), LifecycleError> {
    if app.ports.archive_store.is_none() && app.ports.tenant_rows.has_archives(BECAUSE, tenant).await? {
        return Err(LifecycleReason::ArchivesElsewhere.into());
    }
    Ok(())
}

/// Deletes the archives of a tenant that is purged.
///
/// # Errors
/// Those of [`require_folder`] and of the folder.
pub(super) async fn remove(app: &Tenancy, tenant: TenantId) -> Result<(), LifecycleError> {
    let Some(store) = &app.ports.archive_store else {
        return require_folder(app, tenant).await;
    };
    let removed = store.remove_all(tenant).await;
    removed.map_err(|error| StoreError::Other(error.to_string()))?;
    Ok(())
}

/// When this process has last said that a purge is left to another server.
#[derive(Default)]
struct SaidAt(Mutex<Option<Time>>);

/// Says once a day that the purge of a tenant is left to a server that has the folder.
pub(super) fn leave_to_another_server(app: &Tenancy, tenant: TenantId) {
    let said: Arc<SaidAt> = app.state();
    let mut said = said.0.lock().unwrap_or_else(PoisonError::into_inner);
    let now = app.ports.clock.now();
    if said.is_none_or(|at| now - at >= Duration::days(1)) {
        *said = Some(now);
        tracing::warn!(%tenant, "a purge is left to a server that has archive.directory");
    }
}

/// Deletes what is left in the folder of tenants that were purged: an export that was being written during the purge begins its folder
/// anew, and so does one that a killed server has left behind.
#[derive(Debug, Clone, Copy)]
pub struct SweepArchives;

impl SystemJobHandler for SweepArchives {
    const KIND: &'static str = "tenant.sweep_archives";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let Some(store) = &app.ports.archive_store else {
            return Ok(());
        };
        let retry = |error: tenantry_domain::archive::ArchiveError| JobFailure::Retry(error.to_string());
        let tenants = store.tenants().await.map_err(retry)?;
        let purged = app.ports.tenant_rows.purged_among(because, &tenants).await?;
        for tenant in &purged {
            store.remove_all(*tenant).await.map_err(retry)?;
        }
        if !purged.is_empty() {
            tracing::info!(tenants = purged.len(), "archives of purged tenants were deleted");
        }
        Ok(())
    }

    /// Each hour, so that within a day one of the servers that have the folder has its turn.
    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::hours(1), Nothing {}))
    }
}
