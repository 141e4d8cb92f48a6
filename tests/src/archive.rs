//! Archives of tenants in files, written and read as jobs and commands do.

use std::path::{Path, PathBuf};

use chrono::Duration;
use tenantry_domain::archive::{AboutPerson, ArchiveError, Put};
use tenantry_domain::kernel::SystemScope;
use tenantry_system::{FileArchiveReader, FileArchiveWriter};
use tenantry_tenancy::archive::import::{self, Imported};
use tenantry_tenancy::archive::read;
use tenantry_tenancy::archive::write::{Subject, write};

use crate::World;

const BECAUSE: SystemScope = SystemScope::because("a test of archives");

impl World {
    /// Writes the archive of acme, or of one person there, into a file of that name. Nothing records it.
    pub async fn write_archive(&self, name: &str, person: Option<&AboutPerson>) -> PathBuf {
        let folder = self.database.exports();
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        let tenant = self.app.ports.tenant_rows.tenant(BECAUSE, self.acme.id).await;
        let tenant = tenant.unwrap().unwrap();
        let sink = Box::new(FileArchiveWriter::create(&file).unwrap());
        let until = self.app.ports.clock.now() + Duration::hours(1);
        let subject = Subject {
            tenant: &tenant,
            person,
        };
        write(&self.app, BECAUSE, subject, sink, (until, &|_| {}))
            .await
            .unwrap();
        file
    }

    /// Imports an archive as a new tenant of that slug.
    pub async fn import_archive(&self, file: &Path, slug: &str) -> Result<Imported, ArchiveError> {
        let mut source = FileArchiveReader::open(file).await?;
        let verified = read::verify(&self.app, &mut source, &[]).await?;
        import::as_new(&self.operator_cx(), BECAUSE, verified, (slug, None), &|_| {}).await
    }

    /// Restores the tenant of an archive from it.
    pub async fn restore_archive(&self, file: &Path) -> Result<Put, ArchiveError> {
        let mut source = FileArchiveReader::open(file).await?;
        let verified = read::verify(&self.app, &mut source, &[]).await?;
        let operators = self.operator_cx();
        let restoration = import::plan_restore(&operators, BECAUSE, verified).await?;
        restoration.run(&operators, BECAUSE, &|_| {}).await
    }
}
