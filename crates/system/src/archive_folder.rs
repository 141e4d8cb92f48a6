use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tenantry_domain::archive::{ArchiveError, ArchiveSink, ArchiveStore};
use tenantry_domain::kernel::{ExportId, TenantId};

use crate::FileArchiveWriter;
use crate::archive_writer::{named, part_path};

/// The archives of exports, in a folder with a folder for each tenant. Servers over one database share it.
#[derive(Debug, Clone)]
pub struct ArchiveFolder {
    folder: PathBuf,
}

impl ArchiveFolder {
    /// A folder, which is made when it is first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn of(&self, tenant: TenantId) -> PathBuf {
        self.folder.join(tenant.to_string())
    }

    fn path(&self, tenant: TenantId, export: ExportId) -> PathBuf {
        self.of(tenant).join(format!("{export}.tar"))
    }
}

#[async_trait]
impl ArchiveStore for ArchiveFolder {
    async fn create(&self, tenant: TenantId, export: ExportId) -> Result<Box<dyn ArchiveSink>, ArchiveError> {
        let folder = self.of(tenant);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| named(&folder, &error))?;
        Ok(Box::new(FileArchiveWriter::create(&self.path(tenant, export))?))
    }

    async fn read(
        &self,
        tenant: TenantId,
        export: ExportId,
        offset: u64,
        at_most: usize,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        let path = self.path(tenant, export);
        let read = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || part_of(&path, offset, at_most)).await
        };
        let read = read.map_err(|error| ArchiveError::Io(error.to_string()))?;
        read.map_err(|error| named(&path, &error))
    }

    async fn remove(&self, tenant: TenantId, export: ExportId) -> Result<(), ArchiveError> {
        let path = self.path(tenant, export);
        // A server that was killed while it wrote the archive has left a part of it.
        for path in [part_path(&path), path] {
            if_there(std::fs::remove_file(&path)).map_err(|error| named(&path, &error))?;
        }
        Ok(())
    }

    async fn remove_all(&self, tenant: TenantId) -> Result<(), ArchiveError> {
        let folder = self.of(tenant);
        if_there(std::fs::remove_dir_all(&folder)).map_err(|error| named(&folder, &error))
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, ArchiveError> {
        let folder = self.folder.clone();
        let found = tokio::task::spawn_blocking(move || tenants_in(&folder)).await;
        let found = found.map_err(|error| ArchiveError::Io(error.to_string()))?;
        found.map_err(|error| named(&self.folder, &error))
    }
}

/// Files and folders with other names, such as those of an operator's exports, are left alone.
fn tenants_in(folder: &Path) -> io::Result<Vec<TenantId>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut tenants = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let name = entry.file_name();
            tenants.extend(name.to_str().and_then(|name| name.parse::<TenantId>().ok()));
        }
    }
    Ok(tenants)
}

fn part_of(path: &Path, offset: u64, at_most: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mut bytes, mut filled) = (vec![0; at_most], 0);
    while filled < at_most {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}

fn if_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
