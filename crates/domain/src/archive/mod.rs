//! Archives of tenants: what is in one, how it is signed, how ids are remapped, and exports.
//!
//! An archive is a tar file: `tables/NAME.ndjson.zst` with the rows of each table, `schemas/NAME.json` with a JSON Schema of them, and
//! `manifest.json`, which names every file with its SHA-256 and is signed.
//! May use: `kernel`, `audit`.

mod content;
mod error;
mod export;
mod file;
mod id_map;
mod manifest;
mod person;
mod row;
mod row_check;
mod shape;
mod version;

pub use content::{Content, Excuse, Fill, content_of, excuses_of, fills_of};
pub use error::ArchiveError;
pub use export::{Export, ExportStatus, Exports};
pub use file::{ArchiveSink, ArchiveSource, ArchiveStore, StoredFile};
pub use id_map::{IdMap, row_columns, row_id};
pub use manifest::{
    LeftOutColumn, LeftOutTable, Manifest, ManifestPerson, ManifestSignature, ManifestTable, ManifestTenant,
    TableContent,
};
pub use person::{AboutPerson, PersonRows, erased_user, person_rows_of, without_others};
pub use row::{ARCHIVES_AT_ONCE, ErasedPerson, Put, RowBatch, RowSink, Rows, Snapshot, TenantArchive};
pub use row_check::RowCheck;
pub use shape::{ColumnShape, ReferenceShape, TableShape};
