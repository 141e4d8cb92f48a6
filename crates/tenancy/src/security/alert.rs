//! Alerts: seeing and acknowledging them.

use serde_json::json;
use tenantry_domain::kernel::{Check, Page, PageRequest, Permission, SecurityAlertId, Time};
use tenantry_domain::security::{Alert, AlertFilter, AlertState};
use tenantry_domain::store::Work;

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
        // Locked before the alert, as the search does.
        let detection = work.security_detections().current_for_update().await?;
        let found = work.security_alerts().find_for_update(id).await?;
        let mut alert = found.ok_or(AlertError::NotFound)?;
        if alert.state == AlertState::Acknowledged {
            return Ok(alert);
        }
        alert.acknowledge(cx.scope().user(), note, cx.now());
        work.security_alerts().update(&alert).await?;
        if let Some(mut detection) = detection
            && detection.forget(&alert)
        {
            work.security_detections().update(&detection).await?;
        }
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

/// How many alerts are deleted in one transaction.
const DELETED_AT_ONCE: u64 = 500;

/// Deletes the alerts that were acknowledged before a time, in bounded transactions. Returns how many.
///
/// # Errors
/// [`AlertError`].
pub(crate) async fn retain(cx: &Cx, before: Time) -> Result<u64, AlertError> {
    cx.require(Permission::RaiseAlerts)?;
    let mut all = 0;
    loop {
        let delete = async |work: &mut Work| {
            let alerts = work.security_alerts();
            Ok::<_, AlertError>(alerts.delete_acknowledged(before, DELETED_AT_ONCE).await?)
        };
        let deleted = cx.write(delete).await?;
        all += deleted;
        if deleted < DELETED_AT_ONCE {
            return Ok(all);
        }
    }
}
