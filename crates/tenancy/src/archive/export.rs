//! Exports of the tenant and of one person: a job writes the archive, which is kept for a few days and downloaded by a link.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_domain::archive::{ARCHIVES_AT_ONCE, AboutPerson, ArchiveError, ArchiveStore, Export};
use tenantry_domain::audit::AuditEvent;
use tenantry_domain::kernel::{
    Constraint, ExportId, Page, PageRequest, Permission, StoreError, SystemScope, TenantId, Time, UserId, hex,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;
use tokio::time::{MissedTickBehavior, interval};

use crate::archive::export_end::{self, end_if_abandoned, settled};
use crate::archive::trust::unhex;
use crate::archive::write::{Subject, Written, write};
use crate::audit::refusal::{self, Refusal, RefusedAction, RefusedActor};
use crate::customization::security_policy;
use crate::kernel::step_up::{ActingAdmin, RecentFactor, lock_tenant, require_acting_admin};
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
    enqueue(cx, None, factor).await
}

/// Asks for an export of what is stored about a person: oneself, or by an admin anybody, also a user who was removed. It takes a recent
/// factor. A job writes the archive.
///
/// # Errors
/// [`ExportError`].
pub async fn request_of(cx: &Cx, person: UserId) -> Result<Export, ExportError> {
    require_person(cx, person)?;
    store(cx.app())?;
    let factor = cx.require_recent_factor().await??;
    enqueue(cx, Some(person), factor).await
}

/// Everybody exports what is stored about themselves, and admins what is stored about others.
fn require_person(cx: &Cx, person: UserId) -> Result<(), Refused> {
    match cx.scope().user() == Some(person) {
        true => cx.require(Permission::ManageOwnAccount),
        false => cx.require(Permission::ExportTenant),
    }
}

async fn enqueue(cx: &Cx, person: Option<UserId>, factor: RecentFactor) -> Result<Export, ExportError> {
    let export = Export::new(ExportId::next(cx.ids()), cx.scope().user(), person, cx.now());
    cx.write(async |work| {
        if person.is_none() || person != cx.scope().user() {
            // Whoever takes the role of the admin away locks the tenant first.
            lock_tenant(work).await?;
            let _: ActingAdmin = require_acting_admin(cx, work).await??;
        }
        if let Some(person) = person {
            let found = work.persons().find(person).await?;
            let is_erased = work.persons().erasure(person).await?.is_some();
            found.filter(|_| !is_erased).ok_or(ExportError::NotFound)?;
        }
        end_abandoned(cx, work, person).await?;
        let kept = work.exports().count_kept(person).await?;
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
    let event = event(
        cx,
        export,
        [PERSON_REQUESTED, "tenant.export_requested"],
        json!({}),
    );
    work.audit().record(event).await
}

const PERSON_REQUESTED: &str = "user.export_requested";

/// An entry about an export: the first action for that of a person, whom it is about; the second for that of the tenant.
fn event(cx: &Cx, export: &Export, actions: [&'static str; 2], more: Value) -> AuditEvent {
    let mut details = json!({"export_id": export.id});
    if let (Some(details), Value::Object(more)) = (details.as_object_mut(), more) {
        details.extend(more);
    }
    let [of_person, of_tenant] = actions;
    match export.person {
        Some(person) => cx.security(of_person, "user", Some(person.uuid()), details),
        None => cx.security(of_tenant, "tenant_export", Some(export.id.uuid()), details),
    }
}

/// The one that is under way may have lost its job, and nobody has read it since.
async fn end_abandoned(cx: &Cx, work: &mut Work, person: Option<UserId>) -> Result<(), StoreError> {
    let first = PageRequest {
        limit: 10,
        after: None,
    };
    for mut export in work.exports().list(person, first).await?.items {
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
    let found = cx
        .read(async |work| work.exports().list(None, page).await)
        .await?;
    Ok(Page {
        items: settled(cx, found.items).await?,
        next: found.next,
    })
}

/// One export of the tenant.
///
/// # Errors
/// [`ExportError`].
pub async fn get(cx: &Cx, id: ExportId) -> Result<Export, ExportError> {
    cx.require(Permission::ExportTenant)?;
    let found = find(cx, id).await?.filter(|export| export.person.is_none());
    settled_one(cx, found).await
}

/// One export of a person.
///
/// # Errors
/// [`ExportError`].
pub async fn get_of(cx: &Cx, person: UserId, id: ExportId) -> Result<Export, ExportError> {
    require_person(cx, person)?;
    let found = find(cx, id).await?.filter(|export| export.person == Some(person));
    settled_one(cx, found).await
}

async fn settled_one(cx: &Cx, found: Option<Export>) -> Result<Export, ExportError> {
    let found = settled(cx, found.into_iter().collect()).await?;
    found.into_iter().next().ok_or(ExportError::NotFound)
}

async fn find(cx: &Cx, id: ExportId) -> Result<Option<Export>, ExportError> {
    cx.read(async |work| Ok(work.exports().find(id).await?)).await
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

/// The link to an archive that is ready, for a caller with a recent factor, as the request of an export takes one; `None` without it.
///
/// # Errors
/// [`ExportError`].
pub async fn link(cx: &Cx, export: &Export) -> Result<Option<DownloadLink>, ExportError> {
    match export.person {
        Some(person) => require_person(cx, person)?,
        None => cx.require(Permission::ExportTenant)?,
    }
    if !export.is_ready(cx.now()) || cx.require_recent_factor().await?.is_err() {
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

/// An archive that can be downloaded: of the tenant by an admin with a recent factor, each by the bearer of its link.
///
/// # Errors
/// [`ExportError`].
pub async fn ready(cx: &Cx, id: ExportId) -> Result<Export, ExportError> {
    store(cx.app())?;
    require_read(cx)?;
    let by_link = cx.require(Permission::RunExport).is_ok();
    if !by_link {
        let _: RecentFactor = cx.require_recent_factor().await??;
    }
    let export = find(cx, id)
        .await?
        .filter(|export| by_link || export.person.is_none());
    let export = export.ok_or(ExportError::NotFound)?;
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
        actor: RefusedActor::of(cx.scope()),
        ip: cx.origin().ip.clone(),
        details: json!({"export_id": export.id, "person_id": export.person, "by_link": by_link}),
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
    cx.write(async |work| end_abandoned(cx, work, None).await).await?;
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
                let stored = settle(cx, &export, ["user.exported", "tenant.exported"]).await;
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
                settle(cx, &export, ["user.export_failed", "tenant.export_failed"]).await?;
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
    let person = match export.person {
        Some(person) => Some(
            about(cx, person)
                .await?
                .ok_or_else(|| gone("the person was erased"))?,
        ),
        None => None,
    };
    let sink = store.create(tenant.id, export.id).await?;
    let rows = AtomicU64::new(0);
    let notice = |progress: &super::ArchiveProgress| rows.store(progress.total, Ordering::Relaxed);
    let until = cx.now() + LONGEST;
    let writing = write(
        cx.app(),
        BECAUSE,
        Subject {
            tenant: &tenant,
            person: person.as_ref(),
        },
        sink,
        (until, &notice),
    );
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

/// What an archive needs to know of a person; `None` of one who is not there or was erased.
///
/// # Errors
/// Those of the store.
pub async fn about(cx: &Cx, person: UserId) -> Result<Option<AboutPerson>, StoreError> {
    cx.write(async |work| {
        let persons = work.persons();
        if persons.find(person).await?.is_none() || persons.erasure(person).await?.is_some() {
            return Ok(None);
        }
        let proven = persons.proven_addresses(person).await?;
        Ok(Some(AboutPerson {
            id: person,
            proven: proven.iter().map(|email| email.as_str().to_owned()).collect(),
        }))
    })
    .await
}

/// Stores how an export has ended, unless it has ended otherwise meanwhile, or the person was erased.
async fn settle(cx: &Cx, export: &Export, actions: [&'static str; 2]) -> Result<bool, StoreError> {
    cx.write(async |work| {
        if let Some(person) = export.person
            && work.persons().erasure(person).await?.is_some()
        {
            return Ok(false);
        }
        if !work.exports().update(export).await? {
            return Ok(false);
        }
        let details = json!({"rows": export.rows_written, "bytes": export.bytes});
        let event = event(cx, export, actions, details);
        work.audit().record(event).await?;
        Ok(true)
    })
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
