//! Importing an archive: as a new tenant, or to restore rows of the tenant that it is of.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_domain::archive::{
    ArchiveError, ArchiveSource, IdMap, Manifest, Put, RowBatch, TableShape, fills_of,
};
use tenantry_domain::kernel::{Constraint, RequestId, StoreError, SystemScope, TenantId, hex};
use tenantry_domain::tenant::{Capability, NewTenant, Slug, StatusChange, Tenant, TenantStatus};

use crate::archive::diff::{TableDiff, compare};
use crate::archive::forget::Forgetting;
use crate::archive::read::{BATCH, Fit, Verified, fit};
use crate::archive::trust::Signer;
use crate::archive::{ArchiveProgress, Notice};
use crate::{Cx, OperatorCx, Origin, Tenancy};

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
    app: &Arc<Tenancy>,
    because: SystemScope,
    archive: Verified<'_>,
    (slug, plan): (&str, Option<&str>),
    notice: Notice<'_>,
) -> Result<Imported, ArchiveError> {
    let mut forgetting = Forgetting::of(app, because, archive.source, true).await?;
    let source: &mut dyn ArchiveSource = &mut forgetting;
    let fit = fit(app, because, source).await?;
    let import = Import::of(source.manifest())?;
    let tenant = import.tenant(app, because, slug, plan).await?;
    if tenant.status != TenantStatus::Provisioning {
        return Ok(Imported {
            tenant,
            put: Put::default(),
        });
    }
    let ids = fit.ids.clone().to(tenant.id);
    let writer = Writer {
        app,
        because,
        tenant: tenant.id,
        ids: Some(&ids),
        notice,
    };
    let put = writer.all(source, &fit.tables).await?;
    let tenant = import.finish(app, because, tenant.id, put).await?;
    Ok(Imported { tenant, put })
}

/// How a tenant differs from its archive, before it is restored.
///
/// # Errors
/// [`ArchiveError::Refused`] for an archive of another installation, and for a tenant that is not there or cannot be written to.
pub async fn plan_restore<'a>(
    app: &'a Arc<Tenancy>,
    because: SystemScope,
    archive: Verified<'a>,
) -> Result<Restoration<'a>, ArchiveError> {
    if archive.signer != Signer::Own {
        let problem = "only an archive of this installation can be restored; import it with --as-new";
        return Err(ArchiveError::Refused(problem.to_owned()));
    }
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
    let fit = fit(app, because, &mut source).await?;
    let diffs = compare(app, because, &mut source, &fit).await?;
    Ok(Restoration {
        source,
        fit,
        tenant,
        diffs,
    })
}

/// A restoration that was not begun.
pub struct Restoration<'a> {
    source: Forgetting<'a>,
    fit: Fit,
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
    /// Writes what is missing or differs. Rows that the archive does not have stay.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn run(
        mut self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        notice: Notice<'_>,
    ) -> Result<Put, ArchiveError> {
        let writer = Writer {
            app,
            because,
            tenant: self.tenant.id,
            ids: None,
            notice,
        };
        let put = writer.all(&mut self.source, &self.fit.tables).await?;
        app.ports.tenant_archive.settle(because, self.tenant.id).await?;
        let import = Import::of(self.source.manifest())?;
        let cx = OperatorCx::command(app, because);
        let mut work = cx.begin().await?;
        // Publishes that the tenant has changed, since what is cached of its users is not true any more.
        if let Some(tenant) = work.tenant_for_update(self.tenant.id).await? {
            work.update_lifecycle(&tenant).await?;
        }
        let details = import.details(put);
        work.commit(cx.record("tenant.archive_restored", Some(self.tenant.id), details))
            .await?;
        import
            .record(app, because, self.tenant.id, "tenant.archive_restored", put)
            .await?;
        Ok(put)
    }
}

/// What identifies an archive.
struct Import {
    name: String,
    digest: String,
}

impl Import {
    fn of(manifest: &Manifest) -> Result<Self, ArchiveError> {
        Ok(Self {
            name: manifest.tenant.name.clone(),
            digest: hex(&Sha256::digest(manifest.message()?)),
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

    fn details(&self, put: Put) -> Value {
        json!({"archive": self.digest, "inserted": put.inserted, "replaced": put.replaced})
    }

    /// The tenant of an earlier run, or a new one.
    async fn tenant(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        slug: &str,
        plan: Option<&str>,
    ) -> Result<Tenant, ArchiveError> {
        let invalid = |problem: String| ArchiveError::Refused(problem);
        let parsed = Slug::parse(slug).ok_or_else(|| invalid(format!("'{slug}' cannot be a slug")))?;
        if let Some(found) = app.ports.tenant_rows.tenant_named(because, &parsed).await? {
            let change = found.status_change.as_ref();
            if change.is_some_and(|change| change.reason == self.reason()) {
                return Ok(found);
            }
            return Err(invalid(format!("the slug '{slug}' is taken by another tenant")));
        }
        let request = RequestId::next(app.ports.ids.as_ref());
        let scope = app.ports.gate.found(because, request);
        let cx = Cx::new(Arc::clone(app), scope, Origin::default());
        let plans = &app.ports.plans;
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
        let settings = app.policy.default_settings.clone();
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
        let inserted = cx.write(async |work| work.tenants().insert(&tenant).await).await;
        match inserted {
            Ok(()) => Ok(tenant),
            Err(StoreError::Unique(Constraint::TenantSlug | Constraint::TenantSubdomain)) => {
                Err(invalid(format!("the slug '{slug}' is taken by another tenant")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The tenant is in use from here on.
    async fn finish(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        id: TenantId,
        put: Put,
    ) -> Result<Tenant, ArchiveError> {
        let cx = OperatorCx::command(app, because);
        let mut work = cx.begin().await?;
        let gone = || ArchiveError::Refused("the tenant is gone".to_owned());
        let mut tenant = work.tenant_for_update(id).await?.ok_or_else(gone)?;
        let activated = tenant.activate(self.change()?, cx.now());
        activated.map_err(|error| ArchiveError::Refused(error.to_string()))?;
        work.update_lifecycle(&tenant).await?;
        work.commit(cx.record("tenant.imported", Some(id), self.details(put)))
            .await?;
        self.record(app, because, id, "tenant.imported", put).await?;
        Ok(tenant)
    }

    /// The entry in the tenant's own log.
    async fn record(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        tenant: TenantId,
        action: &'static str,
        put: Put,
    ) -> Result<(), ArchiveError> {
        let Some(cx) = Cx::enter(app, because, tenant).await? else {
            return Ok(());
        };
        cx.write(async |work| {
            let event = cx.security(action, "tenant", Some(tenant.uuid()), self.details(put));
            work.audit().record(event).await
        })
        .await?;
        Ok(())
    }
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
    async fn all(&self, source: &mut dyn ArchiveSource, tables: &[TableShape]) -> Result<Put, ArchiveError> {
        let (mut put, mut left) = (Put::default(), u64::MAX);
        loop {
            let mut waiting = Waiting::default();
            for table in tables {
                source.open(&table.name).await?;
                self.table(source, table, &mut put, &mut waiting).await?;
            }
            match waiting.error {
                None => return Ok(put),
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
                rows: put.inserted + put.replaced,
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
                ArchiveError::Refused(format!(
                    "a row of the table {name} has what another row must have alone: {constraint:?}"
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
