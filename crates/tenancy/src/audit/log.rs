//! Reading the audit log.

use tenantry_domain::audit::{AuditFilter, AuditRecord};
use tenantry_domain::kernel::{Check, Invalid, Page, PageRequest, Permission};

use crate::{Cx, UseCaseError};

/// Errors of the use cases of the audit log.
pub type AuditError = UseCaseError;

/// A page of the tenant's audit log, newest first.
///
/// # Errors
/// [`AuditError`].
pub async fn list(cx: &Cx, filter: &AuditFilter, page: PageRequest) -> Result<Page<AuditRecord>, AuditError> {
    cx.require(Permission::ReadAudit)?;
    check_filter(filter)?;
    cx.read(async |work| Ok(work.audit().list(filter, page).await?))
        .await
}

/// Names of actions and entities are those of code, so their length is all there is to check.
pub(crate) fn check_filter(filter: &AuditFilter) -> Result<(), Invalid> {
    let texts = [
        ("/query/action", &filter.action),
        ("/query/entity", &filter.entity),
    ];
    for (pointer, text) in texts {
        if let Some(text) = text {
            Check::all(|check| check.line(pointer, text, 1..=100))?;
        }
    }
    match (filter.from, filter.to) {
        (Some(from), Some(to)) if from >= to => {
            let detail = "must be later than `from`";
            Err(Invalid::one("/query/to", "out_of_range", detail))
        }
        _ => Ok(()),
    }
}
