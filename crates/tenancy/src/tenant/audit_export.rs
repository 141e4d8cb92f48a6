//! Exports of the audit log.

use serde_json::json;
use tenantry_domain::audit::{AuditFilter, AuditRecord};
use tenantry_domain::kernel::{Page, PageRequest, Permission, Position};

use crate::Cx;
use crate::audit::log::{AuditError, check_filter};
use crate::plans::Feature;

/// How many entries are read at a time: so many are in memory.
const ROWS: u32 = 500;

/// Allows an export and records it. The filter that it returns ends at the present, so that the export has an end.
///
/// # Errors
/// [`AuditError`].
pub async fn begin(cx: &Cx, filter: &AuditFilter, format: &'static str) -> Result<AuditFilter, AuditError> {
    cx.require(Permission::ExportAudit)?;
    cx.require_feature(Feature::AUDIT_EXPORT)?;
    check_filter(filter)?;
    let now = cx.now();
    let details = json!({
        "format": format,
        "actor": filter.actor_id,
        "actor_kind": filter.actor_kind,
        "risk": filter.risk,
        "action": filter.action,
        "entity": filter.entity,
        "entity_id": filter.entity_id,
        "from": filter.from,
        "to": filter.to,
    });
    cx.write(async |work| {
        let event = cx.security("audit.exported", "audit_log", None, details.clone());
        work.audit().record(event).await
    })
    .await?;
    Ok(AuditFilter {
        to: Some(filter.to.map_or(now, |to| to.min(now))),
        ..filter.clone()
    })
}

/// The next entries of an export, newest first.
///
/// # Errors
/// [`AuditError`].
pub async fn next(
    cx: &Cx,
    filter: &AuditFilter,
    after: Option<Position>,
) -> Result<Page<AuditRecord>, AuditError> {
    cx.require(Permission::ExportAudit)?;
    let page = PageRequest { limit: ROWS, after };
    cx.read(async |work| Ok(work.audit().list(filter, page).await?))
        .await
}
