//! Reading an archive before anything of it is used.

use std::collections::BTreeMap;

use tenantry_domain::archive::{ArchiveError, ArchiveSource, RowCheck, TableShape, fills_of, row_columns};
use tenantry_domain::kernel::SystemScope;

use crate::Tenancy;
use crate::archive::trust::{self, Signer};
use crate::archive::values::ValueCheck;

/// Bytes of rows that are in memory at a time, and written in one transaction.
pub(super) const BATCH: usize = 512 * 1024;

/// An archive whose every byte was verified.
pub struct Verified<'a> {
    /// The archive.
    pub source: &'a mut dyn ArchiveSource,
    /// Who has signed it.
    pub signer: Signer,
}

impl std::fmt::Debug for Verified<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

/// Verifies the signature and every file. `trusted` are public keys of other installations.
///
/// # Errors
/// [`ArchiveError`] with the first file that is wrong.
pub async fn verify<'a>(
    app: &Tenancy,
    source: &'a mut dyn ArchiveSource,
    trusted: &[Vec<u8>],
) -> Result<Verified<'a>, ArchiveError> {
    let signer = trust::verify(app, source.manifest(), trusted)?;
    source.verify().await?;
    Ok(Verified { source, signer })
}

/// An archive whose rows were all compared with the tables here.
pub(super) struct CheckedArchive {
    /// The tables to write, each behind those that it refers to.
    pub tables: Vec<TableShape>,
    /// The columns that the rows of a table have.
    pub columns: BTreeMap<String, Vec<String>>,
}

/// Checks that the tables here have the columns of every row that would be written.
pub(super) async fn check(
    app: &Tenancy,
    because: SystemScope,
    source: &mut dyn ArchiveSource,
) -> Result<CheckedArchive, ArchiveError> {
    check_rows(app, because, source, |_| {}).await
}

/// The same, and shows each row.
pub(super) async fn check_rows(
    app: &Tenancy,
    because: SystemScope,
    source: &mut dyn ArchiveSource,
    mut see: impl FnMut(&str) + Send,
) -> Result<CheckedArchive, ArchiveError> {
    let shapes = app.ports.tenant_archive.tables(because).await?;
    let manifest = source.manifest().clone();
    if manifest.person.is_some() {
        let problem = "it is the archive of one person: it can be read, and not be imported";
        return Err(ArchiveError::Refused(problem.to_owned()));
    }
    manifest.check_tables(&shapes)?;
    manifest.check_content(&shapes)?;
    let tables: Vec<TableShape> = shapes
        .into_iter()
        .filter(|shape| manifest.imports(shape))
        .collect();
    // The use cases of this installation have stored what its own archives have.
    let values = match trust::is_own(&app.ports, &manifest) {
        true => None,
        false => Some(ValueCheck::new(app, because).await?),
    };
    let mut columns = BTreeMap::new();
    for table in &tables {
        source.open(&table.name).await?;
        let mut checked = RowCheck::new(table, manifest.tenant.id);
        loop {
            let rows = source.next(BATCH).await?;
            for row in &rows {
                checked.check(row)?;
                if let Some(values) = &values {
                    let holds = values.check(&table.name, row);
                    holds.map_err(|problem| checked.misfit(&problem))?;
                }
            }
            let Some(first) = rows.first() else { break };
            if !columns.contains_key(&table.name) {
                let given = row_columns(first);
                check_columns(table, &given)?;
                columns.insert(table.name.clone(), given);
            }
            rows.iter().for_each(|row| see(row));
        }
    }
    Ok(CheckedArchive { tables, columns })
}

fn check_columns(table: &TableShape, given: &[String]) -> Result<(), ArchiveError> {
    let name = &table.name;
    if let Some(column) = given.iter().find(|column| table.column(column).is_none()) {
        return Err(ArchiveError::Misfit(format!(
            "the table {name} has no column {column}"
        )));
    }
    let fills = fills_of(table, "");
    let missing = table.columns.iter().find(|column| {
        let needed = !column.nullable && !column.default && !column.generated;
        needed && !given.contains(&column.name) && fills.get(&column.name).is_none()
    });
    match missing {
        None => Ok(()),
        Some(column) => {
            let column = &column.name;
            Err(ArchiveError::Misfit(format!(
                "the archive has no column {column} of the table {name}"
            )))
        }
    }
}
