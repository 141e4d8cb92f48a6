//! Exports of the tenant: a job writes the archive, which is kept for a few days and downloaded by a link.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::archive::{ARCHIVES_AT_ONCE, ArchiveError, ArchiveStore, Export};
use tenantry_domain::kernel::{
    Constraint, ExportId, Page, PageRequest, Permission, StoreError, SystemScope, TenantId, Time, hex,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;
use tokio::time::{MissedTickBehavior, interval};

use crate::archive::export_end::{self, end_if_abandoned, settled};
use crate::archive::trust::unhex;
use crate::archive::write::{Written, write};
use crate::audit::refusal::{self, Refusal, RefusedAction};
use crate::customization::security_policy;
use crate::kernel::step_up::RecentFactor;
use crate::operations::job::{self, JobFailure, JobHandler};
use crate::{Cx, Origin, OwnReason, Tenancy, UseCaseError};

/// Maximum number of archives of a tenant that are kept at once.
const MOST_KEPT: u64 = 5;

/// Maximum time that an archive may be written: its snapshot keeps the database from cleaning up.
const LONGEST: chrono::Duration = chrono::Duration::hours(1);

/// How often the number of written rows is stored.
const SHOWN_EVERY: Duration = Duration::from_secs(2);

const BECAUSE: SystemScope = SystemScope::because("a tenant is exported");

/// Errors of the use cases of exports.
pub type ExportError = UseCaseError<ExportReason>;

/// Why there is no export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportReason {
    /// The operator has not set up where archives are kept.
    #[error("this server keeps no archives")]
    NotSetUp,
    /// Another one is under way.
    #[error("another export is under way")]
    UnderWay,
    /// The maximum number is kept already.
    #[error("{0} exports are kept already")]
    TooMany(u64),
    /// It is not finished, or has failed.
    #[error("the export is not ready")]
    NotReady,
    /// The link is not one of this server's, or its time is over.
    #[error("the link is wrong or its time is over")]
    WrongLink,
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] ArchiveError),
}

impl OwnReason for ExportReason {
    fn of_store(error: StoreError) -> ExportError {
        match error {
            StoreError::Unique(Constraint::Other(name)) if name == "tenant_exports_open_key" => {
                Self::UnderWay.into()
            }
            other => ExportError::Store(other),
        }
    }
}

/// Asks for an export, with a recent factor: it holds all that the tenant has. A job writes the archive.
///
/// # Errors
/// [`ExportError`].
pub async fn request(cx: &Cx) -> Result<Export, ExportError> {
    cx.require(Permission::ExportTenant)?;
    store(cx.app())?;
    let factor = cx.require_recent_factor().await??;
    let export = Export::new(ExportId::next(cx.ids()), cx.scope().user(), cx.now());
    cx.write_as_admin(async |work, _| {
        end_abandoned(cx, work).await?;
        let kept = work.exports().count_kept().await?;
        if kept >= MOST_KEPT {
            return Err(ExportReason::TooMany(kept).into());
        }
        add(cx, work, &export, factor).await?;
        Ok(export.clone())
    })
    .await
}

/// Stores an export, its job and the entry of the audit log.
async fn add(cx: &Cx, work: &mut Work, export: &Export, _: RecentFactor) -> Result<(), StoreError> {
    work.exports().insert(export).await?;
    let which = Which { export: export.id };
    let asked = job::enqueue::<WriteExport>(cx, work, &which, export_end::terms(export.id)).await;
    asked.map_err(job::store_error)?;
    let target = Some(export.id.uuid());
    let details = json!({"export_id": export.id});
    let event = cx.security("tenant.export_requested", "tenant_export", target, details);
    work.audit().record(event).await
}

/// The one that is under way may have lost its job, and nobody has read it since.
async fn end_abandoned(cx: &Cx, work: &mut Work) -> Result<(), StoreError> {
    let first = PageRequest {
        limit: 10,
        after: None,
    };
    for mut export in work.exports().list(first).await?.items {
        end_if_abandoned(cx, work, &mut export).await?;
    }
    Ok(())
}

/// A page of the exports, newest first.
///
/// # Errors
/// [`ExportError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<Export>, ExportError> {
    cx.require(Permission::ExportTenant)?;
    let found = cx.read(async |work| work.exports().list(page).await).await?;
    Ok(Page {
        items: settled(cx, found.items).await?,
        next: found.next,
    })
}

/// One export.
///
/// # Errors
/// [`ExportError`].
pub async fn get(cx: &Cx, id: ExportId) -> Result<Export, ExportError> {
    require_read(cx)?;
    let found = cx.read(async |work| work.exports().find(id).await).await?;
    let found = settled(cx, found.into_iter().collect()).await?;
    found.into_iter().next().ok_or(ExportError::NotFound)
}

/// An admin reads exports, and so does the system for the bearer of a link, whose context it is.
fn require_read(cx: &Cx) -> Result<(), Refused> {
    let by_link = cx.require(Permission::RunExport);
    by_link.or_else(|_| cx.require(Permission::ExportTenant))
}

/// A link to an archive, which needs no credential and works for some minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadLink {
    /// Whose archive it leads to.
    pub tenant: TenantId,
    /// When it stops working.
    pub expires_at: Time,
    /// The signature, in hexadecimal digits.
    pub signature: String,
}

const PLACE: &str = "link to an export";

fn message(tenant: TenantId, export: ExportId, expires: i64) -> Vec<u8> {
    format!("{tenant}|{export}|{expires}").into_bytes()
}

/// The link to an archive that is ready.
///
/// # Errors
/// [`ExportError`].
pub fn link(cx: &Cx, export: &Export) -> Result<Option<DownloadLink>, ExportError> {
    cx.require(Permission::ExportTenant)?;
    if !export.is_ready(cx.now()) {
        return Ok(None);
    }
    let tenant = cx.scope().tenant();
    let expires = (cx.now() + chrono::Duration::minutes(Export::LINK_MINUTES)).timestamp();
    let signature = cx
        .ports()
        .seal
        .digest(PLACE, &message(tenant, export.id, expires));
    Ok(Some(DownloadLink {
        tenant,
        expires_at: DateTime::from_timestamp(expires, 0).unwrap_or_else(|| cx.now()),
        signature: hex(&signature),
    }))
}

/// Admits the bearer of a link to the tenant that it names, for this archive, from an address that its security policy allows.
///
/// # Errors
/// [`ExportReason::WrongLink`]; [`ExportError::Denied`] from another address; [`ExportError::NotFound`] once the tenant is gone.
pub async fn open_link(
    app: &Arc<Tenancy>,
    export: ExportId,
    (tenant, expires, signature): (TenantId, i64, &str),
    origin: Origin,
) -> Result<Cx, ExportError> {
    let wrong = || ExportError::from(ExportReason::WrongLink);
    let digest: [u8; 32] = unhex(signature)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(wrong)?;
    let ports = &app.ports;
    let signed = ports
        .seal
        .is_digest(PLACE, &message(tenant, export, expires), &digest);
    if !signed || expires < ports.clock.now().timestamp() {
        return Err(wrong());
    }
    let because = SystemScope::because("a signed link to an export is followed");
    let entered = Cx::enter(app, because, tenant).await?;
    let cx = entered.ok_or(ExportError::NotFound)?.with_origin(origin);
    security_policy::check_address(app, cx.scope(), cx.origin()).await?;
    Ok(cx)
}

/// An archive that can be downloaded.
///
/// # Errors
/// [`ExportError`].
pub async fn ready(cx: &Cx, id: ExportId) -> Result<Export, ExportError> {
    store(cx.app())?;
    let export = get(cx, id).await?;
    match export.is_ready(cx.now()) {
        true => Ok(export),
        false if export.is_open() => Err(ExportReason::NotReady.into()),
        false => Err(ExportError::NotFound),
    }
}

/// Records that a caller downloads an archive, or any part of it: the first time at once, and the repeats of an hour with their number.
///
/// # Errors
/// [`ExportError`].
pub async fn record_download(cx: &Cx, export: &Export) -> Result<(), ExportError> {
    require_read(cx)?;
    let by_link = cx.require(Permission::RunExport).is_ok();
    let download = Refusal {
        action: RefusedAction::Download,
        target_type: "tenant_export",
        target: Some(export.id.uuid()),
        actor: cx.scope().user(),
        ip: cx.origin().ip.clone(),
        details: json!({"export_id": export.id, "by_link": by_link}),
    };
    Ok(refusal::record(cx, download).await?)
}

/// Bytes of an archive.
///
/// # Errors
/// [`ExportError`].
pub async fn part(cx: &Cx, export: ExportId, offset: u64, at_most: usize) -> Result<Vec<u8>, ExportError> {
    require_read(cx)?;
    let read = store(cx.app())?
        .read(cx.scope().tenant(), export, offset, at_most)
        .await;
    read.map_err(ExportReason::from)?.ok_or(ExportError::NotFound)
}

/// Deletes the archives whose time is over, and ends an export that has lost its job.
///
/// # Errors
/// [`JobFailure`].
pub async fn expire(cx: &Cx) -> Result<(), JobFailure> {
    let Some(store) = &cx.ports().archive_store else {
        return Ok(());
    };
    let now = cx.now();
    cx.write(async |work| end_abandoned(cx, work).await).await?;
    let overdue = cx.read(async |work| work.exports().overdue(now).await).await?;
    for mut export in overdue {
        let removed = store.remove(cx.scope().tenant(), export.id).await;
        removed.map_err(|error| JobFailure::Retry(error.to_string()))?;
        export.expire();
        cx.write(async |work| work.exports().update(&export).await)
            .await?;
    }
    Ok(())
}

fn store(app: &Tenancy) -> Result<&Arc<dyn ArchiveStore>, ExportReason> {
    app.ports.archive_store.as_ref().ok_or(ExportReason::NotSetUp)
}

/// Writes the archive of an export.
#[derive(Debug, Clone, Copy)]
pub struct WriteExport;

/// Which export is written.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Which {
    /// Identifies the archive to write.
    pub export: ExportId,
}

impl JobHandler for WriteExport {
    const KIND: &'static str = export_end::JOB;
    /// A suspended tenant can be exported.
    const WRITES: bool = false;
    /// Each needs a connection of archives while it runs.
    const AT_ONCE: Option<u32> = Some(ARCHIVES_AT_ONCE);
    type Payload = Which;

    async fn run(&self, cx: &Cx, which: Which) -> Result<(), JobFailure> {
        cx.require(Permission::RunExport)?;
        let found = cx
            .read(async |work| work.exports().find(which.export).await)
            .await?;
        let Some(mut export) = found.filter(Export::is_open) else {
            return Ok(());
        };
        match run(cx, &export).await {
            Ok(written) => {
                export.finish(written.rows(), written.bytes, cx.now());
                let stored = settle(cx, &export, "tenant.exported").await;
                if !matches!(stored, Ok(true)) {
                    remove_unless_ready(cx, export.id).await;
                }
                stored?;
                Ok(())
            }
            // The other writer ends the export; should it die, a later attempt does.
            Err(ArchiveError::Busy(problem)) => Err(JobFailure::Retry(problem)),
            Err(ArchiveError::Store(error @ (StoreError::Unavailable(_) | StoreError::Contention))) => {
                Err(error.into())
            }
            Err(error) => {
                tracing::error!(%error, export = %export.id, "an export of a tenant has failed");
                // The tenant's admins are not told what is wrong with the disk or the database of the server.
                let failure = match &error {
                    ArchiveError::Refused(problem) | ArchiveError::Misfit(problem) => problem.as_str(),
                    _ => "the archive could not be written; ask the operator",
                };
                export.fail(failure, cx.now());
                settle(cx, &export, "tenant.export_failed").await?;
                Ok(())
            }
        }
    }
}

async fn run(cx: &Cx, export: &Export) -> Result<Written, ArchiveError> {
    let gone = |problem: &str| ArchiveError::Refused(problem.to_owned());
    let store = store(cx.app()).map_err(|reason| gone(&reason.to_string()))?;
    let tenant = cx.read(async |work| work.tenants().current().await).await?;
    let tenant = tenant.ok_or_else(|| gone("the tenant is gone"))?;
    let sink = store.create(tenant.id, export.id).await?;
    let rows = AtomicU64::new(0);
    let notice = |progress: &super::ArchiveProgress| rows.store(progress.total, Ordering::Relaxed);
    let until = cx.now() + LONGEST;
    let writing = write(cx.app(), BECAUSE, &tenant, sink, (until, &notice));
    let showing = async {
        let mut ticks = interval(SHOWN_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut export = export.clone();
            export.progress(rows.load(Ordering::Relaxed));
            match cx.write(async |work| work.exports().update(&export).await).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => tracing::warn!(%error, "the progress of an export is not stored"),
            }
        }
    };
    tokio::select! {
        written = writing => written,
        () = showing => Err(gone("the export was ended while it was written")),
    }
}

/// Stores how an export has ended, unless it has ended otherwise meanwhile.
async fn settle(cx: &Cx, export: &Export, action: &'static str) -> Result<bool, StoreError> {
    cx.write(async |work| export_end::store(cx, work, export, action).await)
        .await
}

/// Deletes an archive that nobody can download. Another worker may have finished the same export.
async fn remove_unless_ready(cx: &Cx, export: ExportId) {
    let found = cx.read(async |work| work.exports().find(export).await).await;
    if found.is_ok_and(|found| found.is_some_and(|found| found.is_ready(cx.now()))) {
        return;
    }
    if let Some(store) = &cx.ports().archive_store
        && let Err(error) = store.remove(cx.scope().tenant(), export).await
    {
        tracing::warn!(%error, %export, "an archive that nobody can download is not deleted");
    }
}
