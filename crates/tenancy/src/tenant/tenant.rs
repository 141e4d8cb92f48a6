//! The tenant itself, as its own people see and change it.

use tenantry_domain::kernel::{Constraint, Invalid, Permission, StoreError};
use tenantry_domain::tenant::{Denied, StatusChange, Tenant, TenantPatch};

use crate::kernel::step_up::{ActingAdmin, RecentFactor, require_acting_admin};
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

/// Deletes the tenant of the scope, whose slug confirms it: it is gone for everybody at once, and its rows are marked by a job.
/// Until it is purged an operator can restore it.
///
/// # Errors
/// [`TenantError`]; `mismatch` at `/confirm_slug`.
pub async fn delete(cx: &Cx, confirm_slug: &str) -> Result<Tenant, TenantError> {
    cx.require(Permission::DeleteTenant)?;
    let _: RecentFactor = cx.require_recent_factor().await??;
    let change = StatusChange::by(
        "user",
        cx.scope().actor().id(),
        "an admin of the tenant deleted it",
    )?;
    cx.write(async |work| {
        let before = work.tenants().current_for_update().await?;
        let before = before.ok_or(TenantError::NotFound)?;
        let _: ActingAdmin = require_acting_admin(cx, work).await??;
        if confirm_slug != before.slug.as_str() {
            let detail = "must be the slug of the tenant, to confirm the deletion";
            return Err(Invalid::one("/confirm_slug", "mismatch", detail).into());
        }
        let mut tenant = before.clone();
        let purge_at = cx.app().policy.purge_at(cx.now());
        let deleted = tenant.delete(change.clone(), cx.now(), purge_at);
        // Another request has deleted it meanwhile.
        deleted.map_err(|_| Denied::TenantGone)?;
        work.tenants().update(&tenant).await?;
        let changed = Changed::with("tenant.deleted", Some(&before), &tenant);
        cx.record(work, changed).await?;
        Ok(tenant)
    })
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
