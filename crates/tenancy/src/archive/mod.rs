//! Archives of tenants: exports, imports, and comparing an archive with what is stored.
//!
//! May use: `kernel`, `operations`.

pub mod diff;
pub mod export;
pub mod import;
pub mod read;
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
    /// How many rows are done, of all tables.
    pub rows: u64,
}

/// Hears how far the work is, after each batch of rows.
pub type Notice<'a> = &'a (dyn Fn(&ArchiveProgress) + Sync);
