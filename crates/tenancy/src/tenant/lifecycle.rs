//! What operators see of tenants and do to them.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::kernel::{Invalid, Page, PageRequest, SystemScope, TenantId, check_text};
use tenantry_domain::tenant::{Tenant, TenantFilter, TenantStatus};

use crate::{Cx, OperatorCx, OwnReason, UseCaseError};

/// Errors of the use cases that move tenants through their life.
pub type LifecycleError = UseCaseError<LifecycleReason>;

/// Why a tenant keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleReason {
    /// The tenant's state does not allow it.
    #[error("a tenant that is {} cannot become {}", is.as_str(), wanted.as_str())]
    WrongState {
        /// The present state.
        is: TenantStatus,
        /// The state that was asked for.
        wanted: TenantStatus,
    },
}

impl OwnReason for LifecycleReason {}

/// A page of all tenants, newest first.
///
/// # Errors
/// [`LifecycleError`].
pub async fn list(
    cx: &OperatorCx,
    filter: &TenantFilter,
    page: PageRequest,
) -> Result<Page<Tenant>, LifecycleError> {
    if let Some(q) = &filter.q {
        check_text(q, 1..=120, false).map_err(|detail| Invalid::one("/query/q", "invalid_text", detail))?;
    }
    let mut work = cx.begin().await?;
    let tenants = work.tenants(filter, page).await?;
    let details = json!({"status": filter.status, "plan": filter.plan, "q": filter.q});
    work.commit(cx.record("tenants.listed", None, details)).await?;
    Ok(tenants)
}

/// One tenant, deleted or not.
///
/// # Errors
/// [`LifecycleError::NotFound`], [`LifecycleError::Store`].
pub async fn get(cx: &OperatorCx, tenant: TenantId) -> Result<Tenant, LifecycleError> {
    let mut work = cx.begin().await?;
    let found = work.tenant(tenant).await?;
    // Looking for what is not there is recorded as well.
    let record = cx.record("tenant.read", Some(tenant), json!({"found": found.is_some()}));
    work.commit(record).await?;
    found.ok_or(LifecycleError::NotFound)
}

/// Makes a tenant read-only.
///
/// # Errors
/// [`LifecycleError`].
pub async fn suspend(cx: &OperatorCx, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    change(cx, tenant, TenantStatus::Suspended, "tenant.suspended", reason).await
}

/// Lets a suspended tenant write again.
///
/// # Errors
/// [`LifecycleError`].
pub async fn resume(cx: &OperatorCx, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    change(cx, tenant, TenantStatus::Active, "tenant.resumed", reason).await
}

async fn change(
    cx: &OperatorCx,
    tenant: TenantId,
    status: TenantStatus,
    action: &'static str,
    reason: &str,
) -> Result<Tenant, LifecycleError> {
    check_text(reason, 1..=500, false).map_err(|detail| Invalid::one("/reason", "invalid_text", detail))?;
    let mut work = cx.begin().await?;
    let from = [TenantStatus::Active, TenantStatus::Suspended];
    let Some(changed) = work.set_status(tenant, &from, status, cx.now()).await? else {
        let is = work.tenant(tenant).await?.ok_or(LifecycleError::NotFound)?.status;
        return Err(LifecycleReason::WrongState { is, wanted: status }.into());
    };
    let mut record = cx.record(action, Some(tenant), json!({"status": status}));
    record.reason = Some(reason.to_owned());
    work.commit(record).await?;
    tell_the_tenant(cx, tenant, action, reason).await?;
    Ok(changed)
}

/// An entry in the tenant's own audit log. It is another transaction, as another role: what was done stands, and is
/// recorded with the operators, also when this one fails.
async fn tell_the_tenant(
    cx: &OperatorCx,
    tenant: TenantId,
    action: &'static str,
    reason: &str,
) -> Result<(), LifecycleError> {
    let because = SystemScope::because("an operator changes the state of a tenant");
    let app = cx.app();
    let scope = app.ports.gate.system(because, tenant).await?;
    let details = json!({"reason": reason, "operator_id": cx.scope().operator()});
    let operator = cx.scope().operator();
    let cx = Cx::new(Arc::clone(app), scope, cx.origin().clone()).by_operator(operator);
    cx.write(async |work| {
        let event = cx.security(action, "tenant", Some(tenant.uuid()), details.clone());
        work.audit().record(event).await
    })
    .await?;
    Ok(())
}
