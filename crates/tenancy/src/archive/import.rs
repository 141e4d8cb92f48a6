//! Importing an archive: as a new tenant, or to restore rows of the tenant that it is of.

use std::sync::Arc;

use serde_json::{Value, json};
use tenantry_domain::archive::{
    ArchiveError, ArchiveSource, IdMap, Manifest, Put, RowBatch, TableShape, fills_of,
};
use tenantry_domain::audit::AuditFilter;
use tenantry_domain::kernel::{Constraint, PageRequest, StoreError, SystemScope, TenantId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Capability, NewTenant, Slug, StatusChange, Tenant, TenantStatus};

use crate::archive::diff::{TableDiff, compare};
use crate::archive::forget::Forgetting;
use crate::archive::read::{BATCH, CheckedArchive, Verified, check, check_rows};
use crate::archive::record::{Records, counts, digest};
use crate::archive::trust::Signer;
use crate::archive::{ArchiveProgress, Notice};
use crate::{Changed, Cx, OperatorCx, Origin, Tenancy};

/// A tenant that an archive was imported into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// As it is when the import ends.
    pub tenant: Tenant,
    /// What was written by this run. Rows of an earlier run are not in it.
    pub put: Put,
}

/// Imports an archive as a new tenant with new ids. The tenant is `provisioning` until its last row is there; a run that was
/// killed goes on when it is started again.
///
/// # Errors
/// [`ArchiveError`]; no row is written unless every file is verified and fits. People who were erased from the tenant since are anonymous.
pub async fn as_new(
    operators: &OperatorCx,
    because: SystemScope,
    archive: Verified<'_>,
    (slug, plan): (&str, Option<&str>),
    notice: Notice<'_>,
) -> Result<Imported, ArchiveError> {
    let app = operators.app();
    let mut forgetting = Forgetting::of(app, because, archive.source, true).await?;
    let source: &mut dyn ArchiveSource = &mut forgetting;
    let from = source.manifest().tenant.id;
    let mut ids = IdMap::new(from, from);
    let checked = check_rows(app, because, source, |row| ids.learn(row)).await?;
    let import = Import::of(operators, because, source.manifest())?;
    let mut put = Put::default();
    let tenant = import.tenant(slug, plan).await?;
    if tenant.status == TenantStatus::Provisioning {
        let ids = ids.to(tenant.id);
        let writer = Writer {
            app,
            because,
            tenant: tenant.id,
            ids: Some(&ids),
            notice,
        };
        let written = writer.all(source, &checked.tables, &mut put).await;
        if let Err(error) = &written {
            let failed = "tenant.import_failed";
            import
                .records
                .store_failure(tenant.id, failed, error, &counts(put))
                .await;
        }
        written?;
    }
    let tenant = import.finish(tenant.id, put).await?;
    Ok(Imported { tenant, put })
}

/// How a tenant differs from its archive, before it is restored.
///
/// # Errors
/// [`ArchiveError::Refused`] for an archive of another installation, and for a tenant that is not there or is deleted. A suspended tenant
/// can be restored: only operators do it, and while it is suspended nobody else changes its rows.
pub async fn plan_restore<'a>(
    operators: &'a OperatorCx,
    because: SystemScope,
    archive: Verified<'a>,
) -> Result<Restoration<'a>, ArchiveError> {
    if archive.signer != Signer::Own {
        let problem = "only an archive of this installation can be restored; import it with --as-new";
        return Err(ArchiveError::Refused(problem.to_owned()));
    }
    let app = operators.app();
    let source = archive.source;
    let id = source.manifest().tenant.id;
    let tenant = app.ports.tenant_rows.tenant(because, id).await?;
    let tenant = tenant.ok_or_else(|| {
        ArchiveError::Refused(format!(
            "there is no tenant {id}; import the archive with --as-new"
        ))
    })?;
    if !tenant.status.allows(Capability::Read) {
        let status = tenant.status.as_str();
        return Err(ArchiveError::Refused(format!(
            "the tenant is {status}; restore the tenant first"
        )));
    }
    let mut source = Forgetting::of(app, because, source, false).await?;
    let checked = check(app, because, &mut source).await?;
    let diffs = compare(operators, because, &mut source, &checked).await?;
    Ok(Restoration {
        source,
        checked,
        tenant,
        diffs,
    })
}

/// A restoration that was not begun.
pub struct Restoration<'a> {
    source: Forgetting<'a>,
    checked: CheckedArchive,
    /// As it is before anything is written.
    pub tenant: Tenant,
    /// How its tables differ from the archive.
    pub diffs: Vec<TableDiff>,
}

impl std::fmt::Debug for Restoration<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restoration")
            .field("diffs", &self.diffs)
            .finish_non_exhaustive()
    }
}

impl Restoration<'_> {
    /// Writes what is missing or differs. Rows that the archive does not have stay. The beginning is recorded before the first row, and
    /// so is the end or the failure with the numbers of rows that were written until then. Where nothing is to be written, what an
    /// earlier run that was killed has left to do is done.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn run(
        mut self,
        operators: &OperatorCx,
        because: SystemScope,
        notice: Notice<'_>,
    ) -> Result<Put, ArchiveError> {
        let (app, tenant) = (operators.app(), self.tenant.id);
        let records = Records::of(operators, because, self.source.manifest())?;
        let mut put = Put::default();
        let mut written = Ok(());
        if self.diffs.iter().any(TableDiff::is_restorable) {
            records.store(tenant, "tenant.archive_restore_begun", &[]).await?;
            let writer = Writer {
                app,
                because,
                tenant,
                ids: None,
                notice,
            };
            written = writer.all(&mut self.source, &self.checked.tables, &mut put).await;
        }
        // Also after a failure: what was written until then counts.
        let settled = app.ports.tenant_archive.settle(because, tenant).await;
        let done = written.and(settled.map_err(ArchiveError::from));
        let recorded = end(&records, tenant, (&done, put)).await;
        match (done, recorded) {
            (Ok(()), recorded) => recorded.map(|()| put),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(lost)) => {
                tracing::warn!(%lost, "the failure of a restoration is not recorded");
                Err(error)
            }
        }
    }
}

/// Records how a restoration has ended, and publishes that the tenant has changed: what is cached of its users is stale.
async fn end(
    records: &Records<'_>,
    tenant: TenantId,
    (done, put): (&Result<(), ArchiveError>, Put),
) -> Result<(), ArchiveError> {
    let action = match done {
        Ok(()) => "tenant.archive_restored",
        Err(_) => "tenant.archive_restore_failed",
    };
    let error = done
        .as_ref()
        .err()
        .map(|error| ("error", json!(error.to_string())));
    let details: Vec<_> = counts(put).into_iter().chain(error).collect();
    let cx = records.operators();
    let mut work = cx.begin().await?;
    if let Some(tenant) = work.tenant_for_update(tenant).await? {
        work.update_lifecycle(&tenant).await?;
    }
    work.commit(cx.record(action, Some(tenant), records.details(&details)))
        .await?;
    // What is wrong with the server is for its operators.
    records.store_in_tenant(tenant, action, &counts(put)).await?;
    Ok(())
}

/// An archive that becomes a new tenant.
struct Import<'a> {
    app: &'a Arc<Tenancy>,
    because: SystemScope,
    records: Records<'a>,
    name: String,
    digest: String,
}

impl<'a> Import<'a> {
    fn of(
        operators: &'a OperatorCx,
        because: SystemScope,
        manifest: &Manifest,
    ) -> Result<Self, ArchiveError> {
        Ok(Self {
            app: operators.app(),
            because,
            records: Records::of(operators, because, manifest)?,
            name: manifest.tenant.name.clone(),
            digest: digest(manifest)?,
        })
    }

    /// Why the tenant is in its state: how a later run recognizes the tenant of an earlier one.
    fn reason(&self) -> String {
        format!("import of the archive {}", self.digest)
    }

    fn change(&self) -> Result<StatusChange, ArchiveError> {
        let change = StatusChange::by("system", None, &self.reason());
        change.map_err(|bad| ArchiveError::Refused(bad.to_string()))
    }

    /// The tenant of an earlier run, or a new one.
    async fn tenant(&self, slug: &str, plan: Option<&str>) -> Result<Tenant, ArchiveError> {
        let invalid = |problem: String| ArchiveError::Refused(problem);
        let parsed = Slug::parse(slug).ok_or_else(|| invalid(format!("'{slug}' cannot be a slug")))?;
        if let Some(found) = self.begun(&parsed).await? {
            return Ok(found);
        }
        let (cx, tenant) = self.new_tenant(slug, plan)?;
        let record = self.records.operators().record(
            "tenant.import_begun",
            Some(tenant.id),
            self.records.details(&[("slug", json!(slug))]),
        );
        self.records.operators().announce(record).await?;
        let inserted = cx
            .write(async |work| {
                work.tenants().insert(&tenant, &cx.first_data_key()).await?;
                cx.record(work, Changed::created(&tenant)).await?;
                let details = self.records.details(&[]);
                let event = cx.security("tenant.import_begun", "tenant", Some(tenant.id.uuid()), details);
                work.audit().record(event).await
            })
            .await;
        let (found, failure) = match inserted {
            Ok(()) => return Ok(tenant),
            // Two runs of an import may begin at once: this one goes on with the tenant of the other.
            Err(StoreError::Unique(Constraint::TenantSlug | Constraint::TenantSubdomain)) => {
                match self.begun(&parsed).await {
                    Ok(Some(found)) => (
                        Some(found),
                        invalid("another run has begun the import".to_owned()),
                    ),
                    Ok(None) => (None, taken(&parsed)),
                    Err(error) => (None, error),
                }
            }
            Err(error) => (None, error.into()),
        };
        let failed = "tenant.import_failed";
        self.records.store_failure(tenant.id, failed, &failure, &[]).await;
        found.ok_or(failure)
    }

    /// The tenant that a run of this import has begun.
    async fn begun(&self, slug: &Slug) -> Result<Option<Tenant>, ArchiveError> {
        let rows = &self.app.ports.tenant_rows;
        let Some(found) = rows.tenant_named(self.because, slug).await? else {
            return Ok(None);
        };
        let change = found.status_change.as_ref();
        let is_ours = change.is_some_and(|change| change.reason == self.reason());
        if is_ours {
            Ok(Some(found))
        } else {
            Err(taken(slug))
        }
    }

    /// A tenant that is not stored yet, with the context that may store it.
    fn new_tenant(&self, slug: &str, plan: Option<&str>) -> Result<(Cx, Tenant), ArchiveError> {
        let invalid = |problem: String| ArchiveError::Refused(problem);
        let request = self.records.operators().scope().request().clone();
        let scope = self.app.ports.gate.found(self.because, request);
        let cx = Cx::new(Arc::clone(self.app), scope, Origin::default());
        let plans = &self.app.ports.plans;
        let plan = plan.unwrap_or_else(|| plans.default_plan());
        let terms = plans.current(plan).filter(|_| plans.offers(plan));
        let terms =
            terms.ok_or_else(|| invalid(format!("the plan must be one of {}", plans.names().join(", "))))?;
        let new = NewTenant {
            name: self.name.clone(),
            slug: slug.to_owned(),
            subdomain: None,
            plan: None,
        };
        let settings = self.app.policy.default_settings.clone();
        let tenant = Tenant::new(
            cx.scope().tenant(),
            new,
            (plan.to_owned(), terms.version),
            settings,
            cx.now(),
        );
        let mut tenant = tenant.map_err(|bad| invalid(bad.to_string()))?;
        tenant.status = TenantStatus::Provisioning;
        tenant.status_change = Some(self.change()?);
        Ok((cx, tenant))
    }

    /// The tenant is in use from here on, and becomes a customer where payments are taken: its admins are there now. A later run does
    /// what one that was killed behind the activation has left, and records nothing where there is nothing to do.
    async fn finish(&self, id: TenantId, put: Put) -> Result<Tenant, ArchiveError> {
        let gone = || ArchiveError::Refused("the tenant is gone".to_owned());
        let cx = self.records.operators();
        let mut work = cx.begin().await?;
        let mut tenant = work.tenant_for_update(id).await?.ok_or_else(gone)?;
        if tenant.status == TenantStatus::Provisioning {
            let activated = tenant.activate(self.change()?, cx.now());
            activated.map_err(|error| ArchiveError::Refused(error.to_string()))?;
            work.update_lifecycle(&tenant).await?;
            let record = cx.record("tenant.imported", Some(id), self.records.details(&counts(put)));
            work.commit(record).await?;
        } else {
            drop(work);
        }
        let details = self.records.details(&counts(put));
        let cx = self.records.enter(id).await?.ok_or_else(gone)?;
        cx.write(async |work| {
            // Two runs that end at once come one after the other.
            work.tenants().current_for_update().await?;
            if is_recorded(work, id).await? {
                return Ok(());
            }
            let subscriptions = &cx.ports().subscriptions;
            subscriptions.provision(&cx, work, &tenant.plan).await?;
            let event = cx.security("tenant.imported", "tenant", Some(id.uuid()), details.clone());
            work.audit().record(event).await
        })
        .await?;
        Ok(tenant)
    }
}

fn taken(slug: &Slug) -> ArchiveError {
    let slug = slug.as_str();
    ArchiveError::Refused(format!("the slug '{slug}' is taken by another tenant"))
}

/// Whether the log of a tenant says that the tenant was imported. The entry is added in the transaction that makes it a customer.
async fn is_recorded(work: &mut Work, id: TenantId) -> Result<bool, StoreError> {
    let filter = AuditFilter {
        action: Some("tenant.imported".to_owned()),
        entity_id: Some(id.uuid()),
        ..AuditFilter::default()
    };
    let page = PageRequest {
        limit: 1,
        after: None,
    };
    Ok(!work.audit().list(&filter, page).await?.items.is_empty())
}

/// Writes rows into a tenant. Without a map of ids, rows that differ are changed.
struct Writer<'a> {
    app: &'a Tenancy,
    because: SystemScope,
    tenant: TenantId,
    ids: Option<&'a IdMap>,
    notice: Notice<'a>,
}

impl Writer<'_> {
    /// Writes all tables. A row that refers to one that is not there yet is written in a later pass, as long as there is progress.
    /// What was written before an error is counted.
    async fn all(
        &self,
        source: &mut dyn ArchiveSource,
        tables: &[TableShape],
        put: &mut Put,
    ) -> Result<(), ArchiveError> {
        let mut left = u64::MAX;
        loop {
            let mut waiting = Waiting::default();
            for table in tables {
                source.open(&table.name).await?;
                self.table(source, table, put, &mut waiting).await?;
            }
            match waiting.error {
                None => return Ok(()),
                Some(error) if waiting.rows >= left => return Err(error),
                Some(_) => left = waiting.rows,
            }
        }
    }

    async fn table(
        &self,
        source: &mut dyn ArchiveSource,
        table: &TableShape,
        put: &mut Put,
        waiting: &mut Waiting,
    ) -> Result<(), ArchiveError> {
        let unusable = self.app.ports.passwords.unusable();
        let fills = fills_of(table, unusable.as_str());
        let before = put.inserted + put.replaced;
        loop {
            let rows = source.next(BATCH).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let rows: Vec<String> = match self.ids {
                Some(ids) => rows.iter().map(|row| ids.row(row, table)).collect(),
                None => rows,
            };
            match self.batch(table, &rows, &fills).await {
                Err(ArchiveError::Store(StoreError::Reference(_))) => {
                    for row in &rows {
                        match self.batch(table, std::slice::from_ref(row), &fills).await {
                            Err(error @ ArchiveError::Store(StoreError::Reference(_))) => waiting.add(error),
                            done => add(put, done?),
                        }
                    }
                }
                done => add(put, done?),
            }
            (self.notice)(&ArchiveProgress {
                work: "import",
                table: table.name.clone(),
                rows: put.inserted + put.replaced - before,
                total: put.inserted + put.replaced,
            });
        }
    }

    async fn batch(&self, table: &TableShape, rows: &[String], fills: &Value) -> Result<Put, ArchiveError> {
        let batch = RowBatch {
            table: &table.name,
            rows: &format!("[{}]", rows.join(",")),
            fills,
            replace: self.ids.is_none(),
        };
        let done = self
            .app
            .ports
            .tenant_archive
            .put(self.because, self.tenant, batch)
            .await;
        done.map_err(|error| match error {
            StoreError::Unique(constraint) => {
                let name = &table.name;
                let constraint = match constraint {
                    Constraint::Other(name) => name,
                    known => format!("{known:?}"),
                };
                ArchiveError::Refused(format!(
                    "a row of the table {name} violates the unique constraint {constraint}"
                ))
            }
            other => other.into(),
        })
    }
}

/// Rows that wait for others.
#[derive(Default)]
struct Waiting {
    rows: u64,
    error: Option<ArchiveError>,
}

impl Waiting {
    fn add(&mut self, error: ArchiveError) {
        self.rows += 1;
        self.error.get_or_insert(error);
    }
}

fn add(all: &mut Put, more: Put) {
    all.inserted += more.inserted;
    all.replaced += more.replaced;
}
