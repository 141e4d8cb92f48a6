//! The daily upkeep of audit logs: what a killed server left unchained or not noted for the stream, a signed head, and the retention; and of the record of operators'
//! accesses.

use chrono::Duration;
use tenantry_domain::kernel::Permission;

use crate::Cx;
use crate::audit::chain;
use crate::audit::log::AuditError;
use crate::audit::stream;
use crate::customization::product_settings::RETENTION_AUDIT_DAYS;
use crate::customization::setting;
use crate::identity::support_end;
use crate::operations::job::{JobFailure, JobHandler, Nothing};
use crate::security::alert;

/// Logs ends of operators' accesses that are not logged yet, chains a tenant's audit log, signs its head, and deletes what is older than the
/// setting `retention.audit_days`: entries, accesses, and alerts that were acknowledged before.
#[derive(Debug, Clone, Copy)]
pub struct KeepAudit;

impl JobHandler for KeepAudit {
    const KIND: &'static str = "audit.keep";
    // A suspended tenant's log goes on.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::KeepAudit)?;
        support_end::settle(cx).await?;
        stream::begin(cx).await.map_err(failure)?;
        chain::advance(cx).await.map_err(failure)?;
        chain::sign_head(cx).await.map_err(failure)?;
        let days = setting::find(cx, &RETENTION_AUDIT_DAYS).await?;
        // A service without the setting keeps everything.
        if let Some(days) = days {
            let before = cx.now() - Duration::days(days.clamp(30, 36_500));
            chain::retain(cx, before).await.map_err(failure)?;
            support_end::delete_before(cx, before).await?;
            let deleted = alert::retain(cx, before).await;
            deleted.map_err(|error| JobFailure::Retry(error.to_string()))?;
        }
        Ok(())
    }
}

fn failure(error: AuditError) -> JobFailure {
    match error {
        AuditError::Refused(refused) => refused.into(),
        AuditError::Store(error) => error.into(),
        other => JobFailure::Retry(other.to_string()),
    }
}
