//! Writing the archive of a tenant.

use async_trait::async_trait;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tenantry_domain::archive::{
    AboutPerson, ArchiveError, ArchiveSink, Content, Excuse, LeftOutColumn, LeftOutTable, Manifest,
    ManifestPerson, ManifestTable, ManifestTenant, PersonRows, RowSink, Rows, Snapshot, TableContent,
    TableShape, content_of, excuses_of, person_rows_of, without_others,
};
use tenantry_domain::audit::{Salt, canonical};
use tenantry_domain::kernel::{SystemScope, Time, hex};
use tenantry_domain::tenant::{Capability, Tenant};

use crate::Tenancy;
use crate::archive::{ArchiveProgress, Notice, trust};

/// A finished archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Names every file, and is signed.
    pub manifest: Manifest,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Written {
    /// How many rows are in it.
    pub fn rows(&self) -> u64 {
        self.manifest.tables.iter().map(|table| table.rows).sum()
    }
}

/// What an archive is of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Whose rows are in the archive.
    pub tenant: &'a Tenant,
    /// The person of the tenant, when the archive has what is stored about one.
    pub person: Option<&'a AboutPerson>,
}

/// Writes everything that a tenant owns, or that is about one person of it, at this point in time. Ends with an error when `until` is over, since a snapshot keeps the
/// database from cleaning up behind it.
///
/// # Errors
/// [`ArchiveError`].
pub async fn write(
    app: &Tenancy,
    because: SystemScope,
    Subject { tenant, person }: Subject<'_>,
    mut sink: Box<dyn ArchiveSink>,
    (until, notice): (Time, Notice<'_>),
) -> Result<Written, ArchiveError> {
    if !tenant.status.allows(Capability::Export) {
        let status = tenant.status.as_str();
        return Err(ArchiveError::Refused(format!(
            "the tenant is {status}, and cannot be exported"
        )));
    }
    let mut snapshot = app.ports.tenant_archive.snapshot(because, tenant.id).await?;
    let mut manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        version: Manifest::VERSION,
        tenant: ManifestTenant {
            id: tenant.id,
            slug: tenant.slug.as_str().to_owned(),
            name: tenant.name.clone(),
        },
        person: person.map(|about| ManifestPerson {
            id: about.id,
            addresses: about.proven.clone(),
        }),
        taken_at: app.ports.clock.now(),
        schema_version: schema_version(snapshot.tables()),
        tables: Vec::new(),
        left_out: Vec::new(),
        signature: None,
    };
    let mut salt = Salt::default();
    salt.copy_from_slice(&app.ports.secrets.secret()[..16]);
    let mut rows = 0;
    for table in snapshot.tables().to_vec() {
        let part = match Part::of(&table, person) {
            Ok(Some(part)) => part,
            Ok(None) => continue,
            Err(reason) => {
                manifest.left_out.push(LeftOutTable {
                    table: table.name,
                    reason: reason.to_owned(),
                });
                continue;
            }
        };
        let mut writing = Writing {
            app,
            sink: sink.as_mut(),
            rows,
            before: rows,
            table: &table.name,
            until,
            notice,
            others: person
                .filter(|_| table.name == "audit_events")
                .map(|about| (about, salt)),
        };
        let written = writing.table(snapshot.as_mut(), &table, part).await?;
        rows += written.rows;
        manifest.tables.push(written);
    }
    snapshot.close().await;
    trust::sign(&app.ports, &mut manifest)?;
    let bytes = sink.finish(&manifest).await?;
    Ok(Written { manifest, bytes })
}

/// Equal where all tables have equal columns.
fn schema_version(tables: &[TableShape]) -> String {
    let columns = |table: &TableShape| (table.name.clone(), json!(table.columns));
    let tables: serde_json::Map<_, _> = tables.iter().map(columns).collect();
    hex(&Sha256::digest(canonical(&tables.into()))[..16])
}

/// What an archive has of a table.
struct Part<'a> {
    content: TableContent,
    excuses: Vec<Excuse>,
    about: Option<(&'a AboutPerson, PersonRows)>,
}

impl<'a> Part<'a> {
    /// `None` of a table that names no person; the reason of one that is left out.
    fn of(table: &TableShape, person: Option<&'a AboutPerson>) -> Result<Option<Self>, &'static str> {
        if let Some(about) = person {
            let rows = person_rows_of(table)?;
            return Ok(rows.map(|mut rows| Self {
                // Nothing of one person is imported.
                content: TableContent::Record,
                excuses: std::mem::take(&mut rows.left_out),
                about: Some((about, rows)),
            }));
        }
        let content = match content_of(table) {
            Content::Data => TableContent::Data,
            Content::Record(_) => TableContent::Record,
            Content::LeftOut(reason) => return Err(reason),
        };
        Ok(Some(Self {
            content,
            excuses: excuses_of(table),
            about: None,
        }))
    }
}

struct Writing<'a> {
    app: &'a Tenancy,
    sink: &'a mut dyn ArchiveSink,
    table: &'a str,
    rows: u64,
    /// The rows of the tables before this one.
    before: u64,
    until: Time,
    notice: Notice<'a>,
    /// Whose entries of the audit log are written, without what they tell about others.
    others: Option<(&'a AboutPerson, Salt)>,
}

impl Writing<'_> {
    async fn table(
        &mut self,
        snapshot: &mut dyn Snapshot,
        table: &TableShape,
        part: Part<'_>,
    ) -> Result<ManifestTable, ArchiveError> {
        if !table.has_plain_name() {
            let name = &table.name;
            return Err(ArchiveError::Misfit(format!(
                "the name of the table {name:?} cannot be that of a file"
            )));
        }
        let Part {
            content,
            excuses,
            about,
        } = part;
        let left_out: Vec<String> = excuses.iter().map(|excuse| excuse.column.clone()).collect();
        let before = self.rows;
        let (file, json_schema) = (Manifest::file_of(&table.name), Manifest::schema_of(&table.name));
        self.sink.begin(&json_schema).await?;
        let schema = serde_json::to_vec_pretty(&table.json_schema(&left_out));
        self.sink
            .write(schema.map_err(|error| ArchiveError::Io(error.to_string()))?)
            .await?;
        let json_schema_sha256 = self.sink.end().await?.sha256;
        self.sink.begin(&file).await?;
        match &about {
            Some((about, rows)) => {
                snapshot
                    .read_person(&table.name, &left_out, (about, rows), self)
                    .await?;
            }
            None => snapshot.read(&table.name, &left_out, self).await?,
        }
        let stored = self.sink.end().await?;
        let left_out = excuses.into_iter().map(|excuse| LeftOutColumn {
            column: excuse.column,
            reason: excuse.reason.to_owned(),
        });
        Ok(ManifestTable {
            name: table.name.clone(),
            content,
            rows: self.rows - before,
            bytes: stored.bytes,
            file,
            sha256: stored.sha256,
            json_schema,
            json_schema_sha256,
            left_out: left_out.collect(),
        })
    }
}

#[async_trait]
impl RowSink for Writing<'_> {
    async fn rows(&mut self, rows: Rows) -> Result<(), ArchiveError> {
        if self.app.ports.clock.now() > self.until {
            return Err(ArchiveError::Refused(
                "the export took longer than it may".to_owned(),
            ));
        }
        let lines = match &self.others {
            Some((about, salt)) => rows
                .lines
                .lines()
                .map(|row| without_others(row, about, salt) + "\n")
                .collect(),
            None => rows.lines,
        };
        self.sink.write(lines.into_bytes()).await?;
        self.rows += rows.count;
        (self.notice)(&ArchiveProgress {
            work: "export",
            table: self.table.to_owned(),
            rows: self.rows - self.before,
            total: self.rows,
        });
        Ok(())
    }
}
