//! Comparing an archive with what is stored. Each comparison reads all rows of the tenant, so it is recorded.

use std::collections::VecDeque;

use async_trait::async_trait;
use tenantry_domain::archive::{ArchiveError, ArchiveSource, RowSink, Rows, TableShape, row_id};
use tenantry_domain::kernel::{SystemScope, TenantId};

use crate::OperatorCx;
use crate::archive::forget::Forgetting;
use crate::archive::read::{BATCH, CheckedArchive, Verified, check};
use crate::archive::record::Records;

/// How the rows of a table differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDiff {
    /// Its name in the catalogue of the database.
    pub table: String,
    /// Rows that are equal.
    pub same: u64,
    /// Rows of the archive that the tenant does not have.
    pub missing: u64,
    /// Rows that are in both, and differ.
    pub different: u64,
    /// Rows that the archive does not have.
    pub surplus: u64,
    /// Whether rows can be changed; those of tables that are only added to cannot.
    pub changes: bool,
}

impl TableDiff {
    /// Whether a restoration would change anything.
    pub fn is_restorable(&self) -> bool {
        self.missing > 0 || self.changes && self.different > 0
    }
}

/// Compares the rows of an archive with those of the same tenant at this point in time.
///
/// # Errors
/// [`ArchiveError`].
pub async fn diff(
    operators: &OperatorCx,
    because: SystemScope,
    archive: Verified<'_>,
) -> Result<Vec<TableDiff>, ArchiveError> {
    let app = operators.app();
    let mut source = Forgetting::of(app, because, archive.source, false).await?;
    let checked = check(app, because, &mut source).await?;
    compare(operators, because, &mut source, &checked).await
}

pub(super) async fn compare(
    operators: &OperatorCx,
    because: SystemScope,
    source: &mut dyn ArchiveSource,
    checked: &CheckedArchive,
) -> Result<Vec<TableDiff>, ArchiveError> {
    let tenant: TenantId = source.manifest().tenant.id;
    let records = Records::of(operators, because, source.manifest())?;
    records.store(tenant, "tenant.archive_compared", &[]).await?;
    let mut snapshot = operators
        .app()
        .ports
        .tenant_archive
        .snapshot(because, tenant)
        .await?;
    let mut diffs = Vec::new();
    for table in &checked.tables {
        source.open(&table.name).await?;
        let mut compared = Compared {
            source: &mut *source,
            shape: table,
            waiting: VecDeque::new(),
            diff: TableDiff {
                table: table.name.clone(),
                changes: table.changes,
                ..TableDiff::default()
            },
        };
        snapshot
            .read(&table.name, &not_given(table, checked), &mut compared)
            .await?;
        while compared.head().await?.is_some() {
            compared.waiting.pop_front();
            compared.diff.missing += 1;
        }
        diffs.push(compared.diff);
    }
    snapshot.close().await;
    Ok(diffs)
}

/// The columns that the rows of the archive do not have.
fn not_given(table: &TableShape, checked: &CheckedArchive) -> Vec<String> {
    let Some(given) = checked.columns.get(&table.name) else {
        return Vec::new();
    };
    let names = table.columns.iter().map(|column| &column.name);
    names.filter(|name| !given.contains(name)).cloned().collect()
}

/// Both sides come in the order of their ids, so a few rows of each are in memory.
struct Compared<'a> {
    source: &'a mut dyn ArchiveSource,
    shape: &'a TableShape,
    waiting: VecDeque<String>,
    diff: TableDiff,
}

impl Compared<'_> {
    async fn head(&mut self) -> Result<Option<&String>, ArchiveError> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.source.next(BATCH).await?);
        }
        Ok(self.waiting.front())
    }
}

#[async_trait]
impl RowSink for Compared<'_> {
    async fn rows(&mut self, rows: Rows) -> Result<(), ArchiveError> {
        let shape = self.shape;
        for row in rows.lines.lines() {
            let id = row_id(row);
            loop {
                let Some(head) = self.head().await? else {
                    self.diff.surplus += 1;
                    break;
                };
                let archived = row_id(head);
                if archived > id {
                    self.diff.surplus += 1;
                    break;
                }
                let (found, equal) = (archived == id, shape.are_equal(head, row));
                let count = match (found, equal) {
                    (true, true) => &mut self.diff.same,
                    (true, false) => &mut self.diff.different,
                    (false, _) => &mut self.diff.missing,
                };
                *count += 1;
                self.waiting.pop_front();
                if found {
                    break;
                }
            }
        }
        Ok(())
    }
}
