use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tenantry_domain::archive::{ArchiveError, ArchiveSink, Manifest, StoredFile};
use tenantry_domain::kernel::hex;

/// The size of a header and of the unit that files are padded to.
pub(crate) const BLOCK: u64 = 512;

/// How often a file is created anew when another process creates and deletes it at the same time.
const CREATED_AGAIN: usize = 5;

/// The level of compression: a third of the size, faster than the database reads.
const LEVEL: i32 = 3;

/// An archive that is written into a file. The file has another name until it is finished, and is deleted if it never is. It is locked
/// meanwhile, so a second writer of the same archive is refused and a file that a killed one has left is replaced.
#[derive(Debug)]
pub struct FileArchiveWriter {
    tar: Option<Tar>,
    path: PathBuf,
    part: PathBuf,
    /// Holds the lock.
    locked: File,
    finished: bool,
}

impl FileArchiveWriter {
    /// Begins an archive at a path, which only this user of the machine can read. A file that is there is replaced at the end.
    ///
    /// # Errors
    /// [`ArchiveError::Busy`] while another one writes it; [`ArchiveError::Io`].
    pub fn create(path: &Path) -> Result<Self, ArchiveError> {
        let part = part_path(path);
        let file = create_locked(&part)?;
        let locked = file.try_clone().map_err(|error| named(&part, &error))?;
        Ok(Self {
            tar: Some(Tar {
                place: Place::Between(Between { file }),
                header_at: 0,
                name: String::new(),
            }),
            path: path.to_owned(),
            part,
            locked,
            finished: false,
        })
    }

    /// Runs work on the file where it blocks no other task.
    async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Tar) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let gone = || ArchiveError::Io("the archive has failed before".to_owned());
        let mut tar = self.tar.take().ok_or_else(gone)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut tar);
            (tar, done)
        });
        let (tar, done) = done.await.map_err(|error| ArchiveError::Io(error.to_string()))?;
        self.tar = Some(tar);
        done.map_err(|error| named(&self.part, &error))
    }
}

impl Drop for FileArchiveWriter {
    fn drop(&mut self) {
        if !self.finished && is_at(&self.locked, &self.part) {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

#[async_trait]
impl ArchiveSink for FileArchiveWriter {
    async fn begin(&mut self, name: &str) -> Result<(), ArchiveError> {
        let name = name.to_owned();
        self.run(move |tar| tar.begin(name)).await
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.run(move |tar| tar.write(&bytes)).await
    }

    async fn end(&mut self) -> Result<StoredFile, ArchiveError> {
        self.run(Tar::end).await
    }

    async fn finish(mut self: Box<Self>, manifest: &Manifest) -> Result<u64, ArchiveError> {
        let text =
            serde_json::to_vec_pretty(manifest).map_err(|error| ArchiveError::Io(error.to_string()))?;
        let (part, path) = (self.part.clone(), self.path.clone());
        let locked = self.locked.try_clone();
        let locked = locked.map_err(|error| named(&part, &error))?;
        let finish = move |tar: &mut Tar| {
            tar.begin(Manifest::FILE.to_owned())?;
            tar.write(&text)?;
            tar.end()?;
            let bytes = tar.close()?;
            if !is_at(&locked, &part) {
                return Err(io::Error::other("the file was replaced while it was written"));
            }
            std::fs::rename(&part, &path)?;
            Ok(bytes)
        };
        let bytes = self.run(finish).await?;
        self.finished = true;
        Ok(bytes)
    }
}

/// Creates a file that only this user can read and write, and locks it. What is at its name is not followed and not reused: it is
/// deleted, unless another writer has locked it.
fn create_locked(path: &Path) -> Result<File, ArchiveError> {
    let io = |error: io::Error| named(path, &error);
    let busy = || ArchiveError::Busy(format!("{}: another process writes it", path.display()));
    for _ in 0..CREATED_AGAIN {
        // A symbolic link is not followed, since the file must be new.
        let create = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let created = match create {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                remove_abandoned(path).map_err(|error| error.map_or_else(busy, io))?;
                continue;
            }
            Err(error) => return Err(io(error)),
        };
        match created.try_lock() {
            Ok(()) if is_at(&created, path) => return Ok(created),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    Err(busy())
}

/// Deletes what is at a path; `Err(None)` when another writer has locked it.
fn remove_abandoned(path: &Path) -> Result<(), Option<io::Error>> {
    let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(Some(error)),
    };
    // A writer has a plain file. One that this user cannot open is not locked by a writer of theirs, and deleting it may be refused.
    let held = kind
        .is_file()
        .then(|| OpenOptions::new().write(true).open(path).ok())
        .flatten();
    if let Some(held) = &held
        && is_at(held, path)
        && matches!(held.try_lock(), Err(TryLockError::WouldBlock))
    {
        return Err(None);
    }
    match std::fs::remove_file(path) {
        Err(error) if !gone(&error) => Err(Some(error)),
        _ => Ok(()),
    }
}

/// Whether an open file is the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(found)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (found.dev(), found.ino())
}

/// A tar file whose members are written without knowing their size: the header is written again behind them.
#[derive(Debug)]
struct Tar {
    place: Place,
    header_at: u64,
    name: String,
}

#[derive(Debug)]
struct Between {
    file: File,
}

enum Place {
    Between(Between),
    Plain(Counted),
    Compressed(Box<zstd::Encoder<'static, Counted>>, u64),
    Broken,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

/// What was written of a member.
struct Counted {
    file: File,
    bytes: u64,
    hash: Sha256,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Tar {
    fn begin(&mut self, name: String) -> io::Result<()> {
        let Place::Between(Between { mut file }) = self.take() else {
            return Err(io::Error::other("a file of the archive was not ended"));
        };
        self.header_at = file.stream_position()?;
        file.write_all(&[0; BLOCK as usize])?;
        let counted = Counted {
            file,
            bytes: 0,
            hash: Sha256::new(),
        };
        self.place = match name.ends_with(".zst") {
            true => Place::Compressed(Box::new(zstd::Encoder::new(counted, LEVEL)?), 0),
            false => Place::Plain(counted),
        };
        self.name = name;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.place {
            Place::Plain(counted) => counted.write_all(bytes),
            Place::Compressed(encoder, written) => {
                *written += bytes.len() as u64;
                encoder.write_all(bytes)
            }
            Place::Between(_) | Place::Broken => Err(io::Error::other("no file of the archive was begun")),
        }
    }

    fn end(&mut self) -> io::Result<StoredFile> {
        let (mut counted, bytes) = match self.take() {
            Place::Plain(counted) => {
                let bytes = counted.bytes;
                (counted, bytes)
            }
            Place::Compressed(encoder, bytes) => (encoder.finish()?, bytes),
            Place::Between(_) | Place::Broken => {
                return Err(io::Error::other("no file of the archive was begun"));
            }
        };
        let padding = (BLOCK - counted.bytes % BLOCK) % BLOCK;
        counted
            .file
            .write_all(&[0; BLOCK as usize][..usize::try_from(padding).unwrap_or_default()])?;
        let end = counted.file.stream_position()?;
        let header = header_of(&self.name, counted.bytes)?;
        counted.file.seek(SeekFrom::Start(self.header_at))?;
        counted.file.write_all(header.as_bytes())?;
        counted.file.seek(SeekFrom::Start(end))?;
        let stored = StoredFile {
            sha256: hex(&counted.hash.finalize()),
            bytes,
        };
        self.place = Place::Between(Between { file: counted.file });
        Ok(stored)
    }

    /// Writes the end of the archive and waits for the disk. Returns the size.
    fn close(&mut self) -> io::Result<u64> {
        let Place::Between(Between { mut file }) = self.take() else {
            return Err(io::Error::other("a file of the archive was not ended"));
        };
        file.write_all(&[0; 2 * BLOCK as usize])?;
        file.sync_all()?;
        file.stream_position()
    }

    fn take(&mut self) -> Place {
        std::mem::replace(&mut self.place, Place::Broken)
    }
}

/// Where an archive is written until it is finished.
pub(crate) fn part_path(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    PathBuf::from(part)
}

/// The header of a file of an archive. Each archive has the same bytes for the same file.
pub(crate) fn header_of(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// An error of a file, with its name.
pub(crate) fn named(path: &Path, error: &io::Error) -> ArchiveError {
    ArchiveError::Io(format!("{}: {error}", path.display()))
}
