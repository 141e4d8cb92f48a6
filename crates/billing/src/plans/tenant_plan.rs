//! Plans of tenants, as operators change them: with a reason, and on record.

use serde_json::json;
use tenantry_domain::kernel::{Check, Invalid, OperatorEventId, SystemScope, TenantId, pointer_segment};
use tenantry_domain::operations::OperatorPermission;
use tenantry_domain::tenant::{Denied, Tenant};
use tenantry_tenancy::{Cx, OperatorCx, Precondition, UseCaseError};

use crate::plans::plan::{self, Agreement, PlanChangeError, Ruling};

/// Errors of the use cases of operators' plans.
pub type TenantPlanError = UseCaseError;

const BECAUSE: SystemScope = SystemScope::because("an operator changes the plan of a tenant");

/// Puts a tenant on what a plan grants now.
///
/// # Errors
/// [`TenantPlanError`]; `unknown_plan` at `/plan`.
pub async fn change(
    cx: &OperatorCx,
    tenant: TenantId,
    plan: &str,
    reason: &str,
) -> Result<Tenant, TenantPlanError> {
    cx.require(OperatorPermission::ManagePlans)?;
    put(cx, tenant, plan, reason, |_| Ruling::with_reason(reason)).await
}

/// Moves a tenant, one of many, to what its plan grants now. The operators' log has the reason; the tenant's log has the id of that entry,
/// since the reason may be about other tenants.
///
/// # Errors
/// As [`change`].
pub async fn upgrade(
    cx: &OperatorCx,
    tenant: TenantId,
    plan: &str,
    reason: &str,
) -> Result<Tenant, TenantPlanError> {
    cx.require(OperatorPermission::ManagePlans)?;
    put(cx, tenant, plan, reason, Ruling::by_event).await
}

async fn put(
    cx: &OperatorCx,
    tenant: TenantId,
    plan: &str,
    reason: &str,
    ruling: impl FnOnce(OperatorEventId) -> Ruling,
) -> Result<Tenant, TenantPlanError> {
    Check::all(|check| check.line("/reason", reason, 1..=500))?;
    plan::on_offer(cx.app().ports.plans.as_ref(), plan).map_err(map_error)?;
    let inside = inside(cx, tenant).await?;
    let mut record = cx.record("tenant.plan_changed", Some(tenant), json!({"plan": plan}));
    record.reason = Some(reason.to_owned());
    let ruling = ruling(record.id);
    cx.act(record, "tenant.plan_change_failed", async {
        plan::change_in(&inside, plan, &ruling).await.map_err(map_error)
    })
    .await
}

/// Agrees with a tenant on something beside its plan. What is not named stays as it was agreed.
///
/// # Errors
/// [`TenantPlanError`]; `unknown_name` where no plan knows a name.
pub async fn agree(
    cx: &OperatorCx,
    tenant: TenantId,
    when: &Precondition,
    agreement: Agreement,
    reason: &str,
) -> Result<Tenant, TenantPlanError> {
    cx.require(OperatorPermission::ManagePlans)?;
    Check::all(|check| check.line("/reason", reason, 1..=500))?;
    if let Some((kind, name)) = agreement.unknown_name(cx.app().ports.plans.as_ref()) {
        let detail = format!("no plan knows '{name}'");
        let pointer = format!("/{kind}/{}", pointer_segment(&name));
        return Err(Invalid::one(pointer, "unknown_name", detail).into());
    }
    let details = json!({
        "features": agreement.features, "limits": agreement.limits,
        "meters": agreement.meters.iter().map(|(key, limit)| (key.to_string(), limit)).collect::<std::collections::BTreeMap<_, _>>(),
    });
    let inside = inside(cx, tenant).await?;
    let mut record = cx.record("tenant.agreed", Some(tenant), details);
    record.reason = Some(reason.to_owned());
    cx.act(record, "tenant.agreement_failed", async {
        let ruling = Ruling {
            when: when.clone(),
            ..Ruling::with_reason(reason)
        };
        plan::agree_in(&inside, &agreement, &ruling)
            .await
            .map_err(map_error)
    })
    .await
}

async fn inside(cx: &OperatorCx, tenant: TenantId) -> Result<Cx, TenantPlanError> {
    let scope = cx.app().ports.gate.system(BECAUSE, tenant).await;
    let scope = scope.map_err(|denied| map_error(denied.into()))?;
    Ok(cx.inside(scope))
}

fn map_error(error: PlanChangeError) -> TenantPlanError {
    match error {
        PlanChangeError::Unknown { on_offer, .. } => {
            let detail = format!("must be one of {}", on_offer.join(", "));
            Invalid::one("/plan", "unknown_plan", detail).into()
        }
        PlanChangeError::Denied(Denied::TenantNotFound) => TenantPlanError::NotFound,
        PlanChangeError::Denied(denied) => denied.into(),
        PlanChangeError::Stale(stale) => stale.into(),
        PlanChangeError::Store(error) => error.into(),
    }
}
