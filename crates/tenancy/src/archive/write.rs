//! Writing the archive of a tenant.

use async_trait::async_trait;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tenantry_domain::archive::{
    ArchiveError, ArchiveSink, Content, LeftOutColumn, LeftOutTable, Manifest, ManifestTable, ManifestTenant,
    RowSink, Rows, Snapshot, TableContent, TableShape, content_of, excuses_of,
};
use tenantry_domain::audit::canonical;
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

/// Writes everything that a tenant owns at this point in time. Ends with an error when `until` is over, since a snapshot keeps the
/// database from cleaning up behind it.
///
/// # Errors
/// [`ArchiveError`].
pub async fn write(
    app: &Tenancy,
    because: SystemScope,
    tenant: &Tenant,
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
        taken_at: app.ports.clock.now(),
        schema_version: schema_version(snapshot.tables()),
        tables: Vec::new(),
        left_out: Vec::new(),
        signature: None,
    };
    let mut rows = 0;
    for table in snapshot.tables().to_vec() {
        let content = match content_of(&table) {
            Content::Data => TableContent::Data,
            Content::Record(_) => TableContent::Record,
            Content::LeftOut(reason) => {
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
        };
        let written = writing.table(snapshot.as_mut(), &table, content).await?;
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

struct Writing<'a> {
    app: &'a Tenancy,
    sink: &'a mut dyn ArchiveSink,
    table: &'a str,
    rows: u64,
    /// The rows of the tables before this one.
    before: u64,
    until: Time,
    notice: Notice<'a>,
}

impl Writing<'_> {
    async fn table(
        &mut self,
        snapshot: &mut dyn Snapshot,
        table: &TableShape,
        content: TableContent,
    ) -> Result<ManifestTable, ArchiveError> {
        if !table.has_plain_name() {
            let name = &table.name;
            return Err(ArchiveError::Misfit(format!(
                "the name of the table {name:?} cannot be that of a file"
            )));
        }
        let excuses = excuses_of(table);
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
        snapshot.read(&table.name, &left_out, self).await?;
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
        self.sink.write(rows.lines.into_bytes()).await?;
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
