//! The end of an export: its job ends it, and so does the end of the job, such as when it was cancelled or given up.

use serde_json::json;
use tenantry_domain::archive::Export;
use tenantry_domain::kernel::{ExportId, StoreError, SystemScope};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::operations::job::Terms;

/// The kind of the jobs that write exports.
pub(super) const JOB: &str = "tenant.export";

/// The terms of the job of an export, by which it is found again.
pub(super) fn terms(export: ExportId) -> Terms {
    Terms {
        dedupe_key: Some(export.to_string()),
        ..Terms::default()
    }
}

/// Returns the exports as they are now: those whose job has ended without ending them have failed.
///
/// # Errors
/// Those of the store.
pub(super) async fn settled(cx: &Cx, exports: Vec<Export>) -> Result<Vec<Export>, StoreError> {
    let open = || exports.iter().filter(|export| export.is_open());
    if open().count() == 0 {
        return Ok(exports);
    }
    let abandoned = cx
        .read(async |work| {
            let mut abandoned = false;
            for export in open() {
                abandoned |= !has_job(work, export.id).await?;
            }
            Ok::<_, StoreError>(abandoned)
        })
        .await?;
    let because = SystemScope::because("the job of an export has ended");
    let system = match abandoned {
        true => Cx::enter(cx.shared_app(), because, cx.scope().tenant()).await?,
        false => None,
    };
    let Some(system) = system else {
        return Ok(exports);
    };
    system
        .write(async |work| {
            let mut settled = exports.clone();
            for export in &mut settled {
                end_if_abandoned(&system, work, export).await?;
            }
            Ok(settled)
        })
        .await
}

/// Ends an export whose job has ended without ending it.
///
/// # Errors
/// Those of the store.
pub(super) async fn end_if_abandoned(
    cx: &Cx,
    work: &mut Work,
    export: &mut Export,
) -> Result<(), StoreError> {
    if !export.is_open() || has_job(work, export.id).await? {
        return Ok(());
    }
    // It is read after the job: a job that ends as it should ends its export before.
    if let Some(found) = work.exports().find(export.id).await? {
        *export = found;
    }
    if !export.is_open() {
        return Ok(());
    }
    export.fail("the job that wrote it was cancelled or given up", cx.now());
    store(cx, work, export, "tenant.export_failed").await?;
    Ok(())
}

/// Stores the end of an export with its entry in the log, and returns whether it was open until then.
///
/// # Errors
/// Those of the store.
pub(super) async fn store(
    cx: &Cx,
    work: &mut Work,
    export: &Export,
    action: &'static str,
) -> Result<bool, StoreError> {
    let stored = work.exports().update(export).await?;
    if stored {
        let details = json!({
            "export_id": export.id,
            "rows": export.rows_written,
            "bytes": export.bytes,
            "failure": export.failure,
        });
        let event = cx.security(action, "tenant_export", Some(export.id.uuid()), details);
        work.audit().record(event).await?;
    }
    Ok(stored)
}

async fn has_job(work: &mut Work, export: ExportId) -> Result<bool, StoreError> {
    Ok(work.jobs().find_open(JOB, &export.to_string()).await?.is_some())
}
