//! Alerts: seeing and acknowledging them.

use serde_json::json;
use tenantry_domain::kernel::{Check, Page, PageRequest, Permission, SecurityAlertId};
use tenantry_domain::security::{Alert, AlertFilter, AlertState};

use crate::{Cx, UseCaseError};

/// Errors of the use cases of alerts.
pub type AlertError = UseCaseError;

/// A page of alerts, newest first.
///
/// # Errors
/// [`AlertError`].
pub async fn list(cx: &Cx, filter: &AlertFilter, page: PageRequest) -> Result<Page<Alert>, AlertError> {
    cx.require(Permission::ReadAlerts)?;
    if let Some(rule) = &filter.rule {
        Check::all(|check| check.line("/query/rule", rule, 1..=40))?;
    }
    cx.read(async |work| Ok(work.security_alerts().list(filter, page).await?))
        .await
}

/// One alert.
///
/// # Errors
/// [`AlertError`].
pub async fn get(cx: &Cx, id: SecurityAlertId) -> Result<Alert, AlertError> {
    cx.require(Permission::ReadAlerts)?;
    let found = cx.read(async |work| Ok::<_, AlertError>(work.security_alerts().find(id).await?));
    found.await?.ok_or(AlertError::NotFound)
}

/// Acknowledges an alert. One that is acknowledged stays as it is, and is returned.
///
/// # Errors
/// [`AlertError`].
pub async fn acknowledge(cx: &Cx, id: SecurityAlertId, note: Option<String>) -> Result<Alert, AlertError> {
    cx.require(Permission::AcknowledgeAlerts)?;
    if let Some(note) = &note {
        Check::all(|check| check.text("/note", note, 1..=Alert::LONGEST_NOTE))?;
    }
    cx.write(async |work| {
        let found = work.security_alerts().find_for_update(id).await?;
        let mut alert = found.ok_or(AlertError::NotFound)?;
        if alert.state == AlertState::Acknowledged {
            return Ok(alert);
        }
        alert.acknowledge(cx.scope().user(), note, cx.now());
        work.security_alerts().update(&alert).await?;
        let details = json!({"rule": alert.rule, "subject": alert.subject.id, "note": alert.note});
        let event = cx.security(
            "security_alert.acknowledged",
            "security_alert",
            Some(id.uuid()),
            details,
        );
        work.audit().record(event).await?;
        Ok(alert)
    })
    .await
}
