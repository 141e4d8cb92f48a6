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

use crate::archive::trust::unhex;
use crate::archive::write::{Written, write};
use crate::kernel::step_up::RecentFactor;
use crate::operations::job::{self, JobFailure, JobHandler, Terms};
use crate::{Cx, OwnReason, Tenancy, UseCaseError};

/// So many archives of a tenant are kept at once.
const MOST_KEPT: u64 = 5;

/// So long an archive may be written: its snapshot keeps the database from cleaning up.
const LONGEST: chrono::Duration = chrono::Duration::hours(1);

/// An export that is under way for so long was given up by its job.
const ABANDONED: chrono::Duration = chrono::Duration::hours(6);

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
    /// So many are kept already.
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
    cx.write(async |work| {
        give_up_abandoned(cx, work).await?;
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
    let asked = job::enqueue::<WriteExport>(cx, work, &which, Terms::default()).await;
    asked.map_err(job::store_error)?;
    let target = Some(export.id.uuid());
    let details = json!({"export_id": export.id});
    let event = cx.security("tenant.export_requested", "tenant_export", target, details);
    work.audit().record(event).await
}

/// A worker that was killed too often has given its job up, and nobody else has noticed.
async fn give_up_abandoned(cx: &Cx, work: &mut Work) -> Result<(), StoreError> {
    let first = PageRequest {
        limit: 10,
        after: None,
    };
    for mut export in work.exports().list(first).await?.items {
        if export.is_open() && export.created_at + ABANDONED < cx.now() {
            export.fail("the job that wrote it was given up", cx.now());
            work.exports().update(&export).await?;
        }
    }
    Ok(())
}

/// A page of the exports, newest first.
///
/// # Errors
/// [`ExportError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<Export>, ExportError> {
    cx.require(Permission::ExportTenant)?;
    cx.read(async |work| Ok(work.exports().list(page).await?)).await
}

/// One export.
///
/// # Errors
/// [`ExportError`].
pub async fn get(cx: &Cx, id: ExportId) -> Result<Export, ExportError> {
    require_read(cx)?;
    let found = cx
        .read(async |work| Ok::<_, ExportError>(work.exports().find(id).await?))
        .await?;
    found.ok_or(ExportError::NotFound)
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

/// Admits the bearer of a link to the tenant that it names, for this archive.
///
/// # Errors
/// [`ExportReason::WrongLink`]; [`ExportError::NotFound`] once the tenant is gone.
pub async fn open_link(
    app: &Arc<Tenancy>,
    export: ExportId,
    (tenant, expires, signature): (TenantId, i64, &str),
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
    Cx::enter(app, because, tenant)
        .await?
        .ok_or(ExportError::NotFound)
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

/// Records that a download was begun.
///
/// # Errors
/// [`ExportError`].
pub async fn record_download(cx: &Cx, export: &Export) -> Result<(), ExportError> {
    require_read(cx)?;
    cx.write(async |work| {
        let details = json!({"export_id": export.id});
        let event = cx.security(
            "tenant.export_downloaded",
            "tenant_export",
            Some(export.id.uuid()),
            details,
        );
        Ok(work.audit().record(event).await?)
    })
    .await
}

/// Bytes of an archive.
///
/// # Errors
/// [`ExportError`].
pub async fn part(
    app: &Tenancy,
    (tenant, export): (TenantId, ExportId),
    offset: u64,
    at_most: usize,
) -> Result<Vec<u8>, ExportError> {
    let read = store(app)?.read(tenant, export, offset, at_most).await;
    read.map_err(ExportReason::from)?.ok_or(ExportError::NotFound)
}

/// Deletes the archives whose time is over.
///
/// # Errors
/// [`JobFailure`].
pub async fn expire(cx: &Cx) -> Result<(), JobFailure> {
    let Some(store) = &cx.ports().archive_store else {
        return Ok(());
    };
    let now = cx.now();
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
    const KIND: &'static str = "tenant.export";
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
                if stored.is_err() {
                    remove(cx, export.id).await;
                }
                Ok(stored?)
            }
            Err(ArchiveError::Store(error @ (StoreError::Unavailable(_) | StoreError::Contention))) => {
                Err(error.into())
            }
            Err(error) => {
                tracing::error!(%error, export = %export.id, "an export of a tenant has failed");
                // What is wrong with the server's disk or database is none of the tenant's business.
                let failure = match &error {
                    ArchiveError::Refused(problem) | ArchiveError::Misfit(problem) => problem.as_str(),
                    _ => "the archive could not be written; ask the operator",
                };
                export.fail(failure, cx.now());
                Ok(settle(cx, &export, "tenant.export_failed").await?)
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
    let notice = |progress: &super::ArchiveProgress| rows.store(progress.rows, Ordering::Relaxed);
    let until = cx.now() + LONGEST;
    let writing = write(cx.app(), BECAUSE, &tenant, sink, (until, &notice));
    let showing = async {
        let mut ticks = interval(SHOWN_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut export = export.clone();
            export.progress(rows.load(Ordering::Relaxed));
            if let Err(error) = cx.write(async |work| work.exports().update(&export).await).await {
                tracing::warn!(%error, "the progress of an export is not stored");
            }
        }
    };
    tokio::select! {
        written = writing => written,
        () = showing => unreachable!("it shows the progress for ever"),
    }
}

async fn settle(cx: &Cx, export: &Export, action: &'static str) -> Result<(), StoreError> {
    cx.write(async |work| {
        work.exports().update(export).await?;
        let details = json!({"export_id": export.id, "rows": export.rows_written, "bytes": export.bytes});
        let event = cx.security(action, "tenant_export", Some(export.id.uuid()), details);
        work.audit().record(event).await
    })
    .await
}

async fn remove(cx: &Cx, export: ExportId) {
    if let Some(store) = &cx.ports().archive_store
        && let Err(error) = store.remove(cx.scope().tenant(), export).await
    {
        tracing::warn!(%error, %export, "an archive that nobody can download is not deleted");
    }
}
