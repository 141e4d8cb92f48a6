use async_trait::async_trait;

use super::{ArchiveError, Manifest};
use crate::kernel::{ExportId, TenantId};

/// A file of an archive, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredFile {
    /// The SHA-256 of the stored bytes, in hexadecimal.
    pub sha256: String,
    /// How many bytes were written, before they were compressed.
    pub bytes: u64,
}

/// An archive that is being written. Dropped before it is finished, nothing of it is left.
#[async_trait]
pub trait ArchiveSink: Send {
    /// Begins a file. One whose name ends with `.zst` is compressed.
    async fn begin(&mut self, name: &str) -> Result<(), ArchiveError>;

    /// Adds to the file.
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), ArchiveError>;

    /// Ends the file.
    async fn end(&mut self) -> Result<StoredFile, ArchiveError>;

    /// Adds the manifest and makes the archive last. Returns its size in bytes.
    async fn finish(self: Box<Self>, manifest: &Manifest) -> Result<u64, ArchiveError>;
}

/// An archive that is read.
#[async_trait]
pub trait ArchiveSource: Send {
    /// The manifest. What it says is not verified.
    fn manifest(&self) -> &Manifest;

    /// Compares every file with the manifest. Never reads more than the manifest says.
    ///
    /// # Errors
    /// [`ArchiveError::Tampered`] with the first file that is wrong.
    async fn verify(&mut self) -> Result<(), ArchiveError>;

    /// Begins to read the rows of a table.
    async fn open(&mut self, table: &str) -> Result<(), ArchiveError>;

    /// The next rows, of about so many bytes; none at the end, where the file is compared with the manifest again.
    async fn next(&mut self, bytes: usize) -> Result<Vec<String>, ArchiveError>;
}

/// Where the archives of exports are kept.
#[async_trait]
pub trait ArchiveStore: Send + Sync {
    /// Begins an archive, in place of what an earlier attempt has left.
    async fn create(&self, tenant: TenantId, export: ExportId) -> Result<Box<dyn ArchiveSink>, ArchiveError>;

    /// Bytes of a finished archive; fewer than asked for at the end, `None` when it is gone.
    async fn read(
        &self,
        tenant: TenantId,
        export: ExportId,
        offset: u64,
        at_most: usize,
    ) -> Result<Option<Vec<u8>>, ArchiveError>;

    /// Deletes an archive. One that is gone already is no error.
    async fn remove(&self, tenant: TenantId, export: ExportId) -> Result<(), ArchiveError>;

    /// Deletes all archives of a tenant.
    async fn remove_all(&self, tenant: TenantId) -> Result<(), ArchiveError>;

    /// The tenants that archives may be of: those with a folder, be it empty.
    async fn tenants(&self) -> Result<Vec<TenantId>, ArchiveError>;
}
