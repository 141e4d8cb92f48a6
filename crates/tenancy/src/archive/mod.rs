//! Archives of tenants: exports, imports, and comparing an archive with what is stored.
//!
//! May use: `kernel`, `audit`, `operations`, `customization`.

pub mod diff;
pub mod export;
mod export_end;
pub mod file_export;
mod forget;
pub mod import;
pub mod read;
mod record;
pub mod trust;
mod values;
pub mod write;

/// How far the work on an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveProgress {
    /// What is done.
    pub work: &'static str,
    /// The table that is worked on.
    pub table: String,
    /// How many of its rows are done.
    pub rows: u64,
    /// How many rows are done, of all tables.
    pub total: u64,
}

/// Called after each batch of rows.
pub type Notice<'a> = &'a (dyn Fn(&ArchiveProgress) + Sync);
