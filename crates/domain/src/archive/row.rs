use async_trait::async_trait;
use serde_json::Value;

use super::{ArchiveError, TableShape};
use crate::kernel::{StoreError, SystemScope, TenantId};

/// Maximum number of archives that a process reads or writes at once.
pub const ARCHIVES_AT_ONCE: u32 = 2;

/// Some rows of a table: JSON objects, each on a line that ends with `\n`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// JSON text, in UTF-8.
    pub lines: String,
    /// How many there are.
    pub count: u64,
}

/// Takes the rows of a table in the order of the primary key, a few at a time.
#[async_trait]
pub trait RowSink: Send {
    /// Takes the next rows.
    async fn rows(&mut self, rows: Rows) -> Result<(), ArchiveError>;
}

/// The rows of one tenant at one point in time.
#[async_trait]
pub trait Snapshot: Send {
    /// The tables at that time, each behind those that it refers to.
    fn tables(&self) -> &[TableShape];

    /// Reads all rows of a table, without some columns. A bounded part of them is in memory.
    async fn read(
        &mut self,
        table: &str,
        left_out: &[String],
        sink: &mut dyn RowSink,
    ) -> Result<(), ArchiveError>;

    /// Ends it.
    async fn close(self: Box<Self>);
}

/// Rows that are written into a table of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct RowBatch<'a> {
    /// Its name in the catalogue of the database.
    pub table: &'a str,
    /// A JSON array of rows.
    pub rows: &'a str,
    /// What columns get that the rows do not have, where a row is inserted.
    pub fills: &'a Value,
    /// Whether rows that are there and differ are changed.
    pub replace: bool,
}

/// What became of written rows. The others were there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Put {
    /// How many were missing.
    pub inserted: u64,
    /// How many differed.
    pub replaced: u64,
}

/// The rows of tenants, for archives: read and written as the runtime role, under row-level security. Its connections are not those
/// of requests.
#[async_trait]
pub trait TenantArchive: Send + Sync {
    /// All tables that have rows of tenants, each behind those that it refers to; that of the tenants first.
    async fn tables(&self, because: SystemScope) -> Result<Vec<TableShape>, StoreError>;

    /// The rows of a tenant at this point in time.
    async fn snapshot(&self, because: SystemScope, tenant: TenantId)
    -> Result<Box<dyn Snapshot>, StoreError>;

    /// Writes rows in a transaction of its own. Doing it twice is the same as once.
    async fn put(
        &self,
        because: SystemScope,
        tenant: TenantId,
        batch: RowBatch<'_>,
    ) -> Result<Put, StoreError>;

    /// Has what is derived from the rows computed anew when it is next used.
    async fn settle(&self, because: SystemScope, tenant: TenantId) -> Result<(), StoreError>;
}
