//! The tenant itself, as its own people see and change it.

use tenantry_domain::kernel::{Constraint, Invalid, Permission, StoreError};
use tenantry_domain::tenant::{Refused, Tenant, TenantPatch};

use crate::identity::step_up::RecentFactor;
use crate::kernel::context::carries_store_error;
use crate::{Changed, Cx, Precondition, Stale};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The tenant has changed meanwhile.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The tenant was purged in this very moment.
    #[error("no such tenant")]
    NotFound,
    /// Another tenant has the subdomain.
    #[error("the subdomain is taken")]
    SubdomainTaken,
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}
carries_store_error!(TenantError);

impl From<StoreError> for TenantError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::TenantSubdomain) => Self::SubdomainTaken,
            other => Self::Store(other),
        }
    }
}

/// The tenant of the scope.
///
/// # Errors
/// [`TenantError`].
pub async fn get(cx: &Cx) -> Result<Tenant, TenantError> {
    cx.require(Permission::ReadTenant)?;
    cx.read(async |work| work.tenants().current().await?.ok_or(TenantError::NotFound))
        .await
}

/// Changes the tenant of the scope.
///
/// # Errors
/// [`TenantError`].
pub async fn update(cx: &Cx, when: &Precondition, patch: TenantPatch) -> Result<Tenant, TenantError> {
    cx.require(Permission::ManageTenant)?;
    if !patch.self_registration.is_keep() {
        // It decides who becomes a user.
        let _: RecentFactor = cx.require_recent_factor().await??;
    }
    cx.write(async |work| {
        let before = work
            .tenants()
            .current_for_update()
            .await?
            .ok_or(TenantError::NotFound)?;
        when.check(before.version)?;
        let mut tenant = before.clone();
        tenant.apply(patch.clone(), cx.now())?;
        work.tenants().update(&tenant).await?;
        cx.record(work, Changed::updated(&before, &tenant)).await?;
        Ok(tenant)
    })
    .await
}
