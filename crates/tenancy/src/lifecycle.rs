//! What operators do to tenants.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::{Denied, StoreError, SystemScope, Tenant, TenantId, TenantStatus};

use crate::{Cx, Origin, Tenancy};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// No such tenant, or it is deleted.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a tenant read-only.
///
/// # Errors
/// [`LifecycleError`].
pub async fn suspend(app: &Arc<Tenancy>, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    change(app, tenant, TenantStatus::Suspended, "tenant.suspended", reason).await
}

/// Lets a suspended tenant write again.
///
/// # Errors
/// [`LifecycleError`].
pub async fn resume(app: &Arc<Tenancy>, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    change(app, tenant, TenantStatus::Active, "tenant.resumed", reason).await
}

async fn change(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    status: TenantStatus,
    action: &'static str,
    reason: &str,
) -> Result<Tenant, LifecycleError> {
    let because = SystemScope::because("an operator changes the state of a tenant");
    let scope = app.ports.gate.system(because, tenant).await?;
    let cx = Cx::new(Arc::clone(app), scope, Origin::default());
    let changed = app
        .ports
        .registry
        .set_status(because, tenant, status, cx.now())
        .await?;
    let changed = changed.ok_or(Denied::TenantNotFound)?;
    cx.write(async |work| {
        let event = cx.security(action, "tenant", Some(tenant.uuid()), json!({"reason": reason}));
        work.audit().record(event).await
    })
    .await?;
    Ok(changed)
}
