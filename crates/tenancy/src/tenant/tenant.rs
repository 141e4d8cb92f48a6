//! The tenant itself, as its own people see and change it.

use tenantry_domain::kernel::{Constraint, Permission, StoreError};
use tenantry_domain::tenant::{Tenant, TenantPatch};

use crate::identity::step_up::RecentFactor;
use crate::{Changed, Cx, OwnReason, Precondition, UseCaseError};

/// Errors of the tenant use cases. `NotFound` means that the tenant was purged meanwhile.
pub type TenantError = UseCaseError<TenantReason>;

/// Why a tenant stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TenantReason {
    /// Another tenant has the subdomain.
    #[error("the subdomain is taken")]
    SubdomainTaken,
}

impl OwnReason for TenantReason {
    fn of_store(error: StoreError) -> TenantError {
        match error {
            StoreError::Unique(Constraint::TenantSubdomain) => Self::SubdomainTaken.into(),
            other => UseCaseError::Store(other),
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
    cx.write_as_admin(async |work, _| {
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
