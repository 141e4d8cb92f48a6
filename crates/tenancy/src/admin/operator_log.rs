//! The log of operators.

use serde_json::json;
use tenantry_domain::kernel::{Check, Page, PageRequest, StoreError};
use tenantry_domain::operations::{OperatorEventFilter, OperatorPermission, RecordedOperatorEvent};

use crate::admin::operator_guess;
use crate::audit::refusal::RefusedAction;
use crate::{OperatorCx, UseCaseError};

/// A page of what operators and commands on the server have done, newest first. Reading it is recorded.
///
/// # Errors
/// [`UseCaseError`].
pub async fn list(
    cx: &OperatorCx,
    filter: &OperatorEventFilter,
    page: PageRequest,
) -> Result<Page<RecordedOperatorEvent>, UseCaseError> {
    cx.require(OperatorPermission::ReadAudit)?;
    if let Some(action) = &filter.action {
        Check::all(|check| check.line("/query/action", action, 1..=100))?;
    }
    let mut work = cx.begin().await?;
    let events = work.events(filter, page).await?;
    let details = json!({
        "operator": filter.operator, "actor": filter.actor, "action": filter.action, "from": filter.from, "to": filter.to,
    });
    work.commit(cx.record("audit.listed", filter.tenant, details))
        .await?;
    Ok(events)
}

/// Records that an operator asked for what the role does not allow, or counts it.
///
/// # Errors
/// Those of the store.
pub async fn record_refusal(cx: &OperatorCx, lacking: OperatorPermission) -> Result<(), StoreError> {
    let details = json!({"permission": lacking, "operator": cx.scope().operator()});
    operator_guess::refuse(cx, RefusedAction::OperatorPermission, details).await
}
