use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shape::is_plain;
use super::{ArchiveError, TableShape};
use crate::audit::canonical;
use crate::kernel::name::named_enum;
use crate::kernel::{TenantId, Time, UserId};

named_enum! {
    /// What an import does with the rows of a table.
    pub enum TableContent {
        /// It writes them.
        Data = "data",
        /// It leaves them in the archive, where they can be read.
        Record = "record",
    }
}

/// What is in an archive: every file with its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`Manifest::FORMAT`].
    pub format: String,
    /// [`Manifest::VERSION`].
    pub version: u32,
    /// Whose rows are in the archive.
    pub tenant: ManifestTenant,
    /// The person that the rows are about, of an archive of one person. Such an archive is not imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<ManifestPerson>,
    /// The point in time at which all rows were as they are in the archive.
    pub taken_at: Time,
    /// Identifies the columns of all tables: equal where they are equal.
    pub schema_version: String,
    /// The tables, each behind those that it refers to.
    pub tables: Vec<ManifestTable>,
    /// The tables of which nothing is in the archive.
    pub left_out: Vec<LeftOutTable>,
    /// The signature of everything above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ManifestSignature>,
}

/// The tenant of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestTenant {
    /// Identifies it in the installation that has signed the archive.
    pub id: TenantId,
    /// Its slug when the archive was taken.
    pub slug: String,
    /// Its display name when the archive was taken.
    pub name: String,
}

/// The person of an archive of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestPerson {
    /// Identifies the account within the tenant.
    pub id: UserId,
    /// The addresses that the account is known to have or to have had.
    pub addresses: Vec<String>,
}

/// A table in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestTable {
    /// The name of the table.
    pub name: String,
    /// What an import does with its rows.
    pub content: TableContent,
    /// How many rows there are.
    pub rows: u64,
    /// How many bytes the rows have, before they are compressed.
    pub bytes: u64,
    /// The file with the rows.
    pub file: String,
    /// The SHA-256 of the file, as it is in the archive.
    pub sha256: String,
    /// The file with the JSON Schema of a row.
    pub json_schema: String,
    /// The SHA-256 of that.
    pub json_schema_sha256: String,
    /// Columns that the rows do not have.
    pub left_out: Vec<LeftOutColumn>,
}

/// A column that is not in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOutColumn {
    /// Its name in the catalogue of the database.
    pub column: String,
    /// Why it is not.
    pub reason: String,
}

/// A table that is not in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOutTable {
    /// Its name in the catalogue of the database.
    pub table: String,
    /// Why it is not.
    pub reason: String,
}

/// The signature of a manifest. Bytes are in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSignature {
    /// The name of the key.
    pub kid: String,
    /// `EdDSA` (Ed25519).
    pub alg: String,
    /// The public key, to verify the archive anywhere.
    pub public_key: String,
    /// The public key, sealed by the installation that has signed: there it is trusted when the key itself is gone.
    pub sealed_key: String,
    /// The signature of [`Manifest::message`].
    pub value: String,
}

impl Manifest {
    /// The name of the format.
    pub const FORMAT: &'static str = "tenantry-archive";

    /// The version of the format.
    pub const VERSION: u32 = 1;

    /// The name of the manifest in an archive.
    pub const FILE: &'static str = "manifest.json";

    /// Maximum number of tables of an archive.
    pub const MOST_TABLES: usize = 1_000;

    /// The place that the public key of a signature is sealed for.
    pub fn place(kid: &str) -> String {
        format!("archive signed by {kid}")
    }

    /// The name of the file with the rows of a table.
    pub fn file_of(table: &str) -> String {
        format!("tables/{table}.ndjson.zst")
    }

    /// The name of the file with the JSON Schema of a table.
    pub fn schema_of(table: &str) -> String {
        format!("schemas/{table}.json")
    }

    /// What is signed: the manifest without its signature, in the canonical form of RFC 8785.
    ///
    /// # Errors
    /// [`ArchiveError::Malformed`].
    pub fn message(&self) -> Result<String, ArchiveError> {
        let unsigned = Self {
            signature: None,
            ..self.clone()
        };
        let value: Value =
            serde_json::to_value(&unsigned).map_err(|error| ArchiveError::Malformed(error.to_string()))?;
        Ok(format!("{}\n{}", Self::FORMAT, canonical(&value)))
    }

    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&ManifestTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The tables that an import writes.
    pub fn data(&self) -> impl Iterator<Item = &ManifestTable> {
        self.tables
            .iter()
            .filter(|table| table.content == TableContent::Data)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ArchiveError::Malformed`] for a manifest of another version, or with names of files that no archive has.
    pub fn read(bytes: &[u8]) -> Result<Self, ArchiveError> {
        // A file of any content is shown in one short line.
        let malformed = |problem: String| {
            let problem: String = problem.chars().filter(|c| !c.is_control()).take(200).collect();
            ArchiveError::Malformed(format!("{}: {problem}", Self::FILE))
        };
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if manifest.format != Self::FORMAT || manifest.version != Self::VERSION {
            let (format, version) = (&manifest.format, manifest.version);
            return Err(malformed(format!(
                "format {format} version {version} is not known"
            )));
        }
        if manifest.tables.len() > Self::MOST_TABLES {
            return Err(malformed(format!("more than {} tables", Self::MOST_TABLES)));
        }
        let mut names = BTreeSet::new();
        for table in &manifest.tables {
            let name = &table.name;
            if !is_plain(name) || !names.insert(name) {
                return Err(malformed(format!(
                    "the table {name:?} is there twice, or has no proper name"
                )));
            }
            if table.file != Self::file_of(name) || table.json_schema != Self::schema_of(name) {
                return Err(malformed(format!(
                    "the files of the table {name} have other names"
                )));
            }
        }
        Ok(manifest)
    }

    /// Whether the rows of the data tables fit the tables of a database.
    ///
    /// # Errors
    /// [`ArchiveError::Misfit`] names the first table that is not there.
    pub fn check_tables(&self, tables: &[TableShape]) -> Result<(), ArchiveError> {
        let missing = self
            .data()
            .find(|table| !tables.iter().any(|known| known.name == table.name));
        match missing {
            None => Ok(()),
            Some(table) => Err(ArchiveError::Misfit(format!("there is no table {}", table.name))),
        }
    }
}
