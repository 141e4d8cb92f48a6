use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tenantry_domain::archive::{ArchiveError, ArchiveSource, Manifest, ManifestTable};
use tenantry_domain::kernel::hex;

use crate::archive_writer::{BLOCK, header_of, named};

/// The largest manifest, and the largest JSON Schema of a table.
const LARGEST_TEXT: u64 = 16 * 1024 * 1024;

/// Maximum bytes of a row, which are in memory at a time.
const LONGEST_ROW: u64 = 64 * 1024 * 1024;

/// Maximum window of the compression, 2^23 bytes, which is the memory that reading takes.
const WINDOW_LOG: u32 = 23;

/// An archive that is read from a file. The file is from anywhere, so nothing of it is believed: it is never unpacked, only the members
/// that an archive has are looked at, and no more is decompressed than the manifest says.
#[derive(Debug)]
pub struct FileArchiveReader {
    path: PathBuf,
    file: File,
    manifest: Manifest,
    members: BTreeMap<String, Member>,
    open: Option<OpenTable>,
}

/// Where a member lies.
#[derive(Debug, Clone, Copy)]
struct Member {
    at: u64,
    size: u64,
}

impl FileArchiveReader {
    /// Reads the list of members and the manifest.
    ///
    /// # Errors
    /// [`ArchiveError`] for a file that is no archive: a member with another name or twice, or that is no plain file.
    pub async fn open(path: &Path) -> Result<Self, ArchiveError> {
        let path = path.to_owned();
        blocking(move || Self::read(path)).await
    }

    fn read(path: PathBuf) -> Result<Self, ArchiveError> {
        let file = File::open(&path).map_err(|error| named(&path, &error))?;
        let members = members(&file)?;
        let missing = || ArchiveError::Malformed(format!("there is no {}", Manifest::FILE));
        let member = *members.get(Manifest::FILE).ok_or_else(missing)?;
        let manifest = Manifest::read(&text(&file, Manifest::FILE, member)?)?;
        Ok(Self {
            manifest,
            path,
            file,
            members,
            open: None,
        })
    }

    fn handle(&self) -> Result<File, ArchiveError> {
        self.file.try_clone().map_err(|error| named(&self.path, &error))
    }

    fn table(&self, name: &str) -> Result<OpenTable, ArchiveError> {
        let table = self.manifest.table(name).cloned();
        let table = table.ok_or_else(|| ArchiveError::Malformed(format!("there is no table {name}")))?;
        let member = self.members.get(&table.file).copied();
        let member = member.ok_or_else(|| ArchiveError::tampered(&table.file, "it is missing"))?;
        OpenTable::new(self.handle()?, member, table)
    }

    fn verify_all(&self) -> Result<(), ArchiveError> {
        self.verify_frame()?;
        for table in &self.manifest.tables {
            let name = &table.json_schema;
            let member = self.members.get(name).copied();
            let member = member.ok_or_else(|| ArchiveError::tampered(name, "it is missing"))?;
            if hex(&Sha256::digest(text(&self.file, name, member)?)) != table.json_schema_sha256 {
                return Err(ArchiveError::tampered(name, "its SHA-256 is another"));
            }
            let mut open = self.table(&table.name)?;
            while !open.next(1024 * 1024)?.is_empty() {}
        }
        let files = |table: &ManifestTable| [table.file.clone(), table.json_schema.clone()];
        let named: Vec<String> = self.manifest.tables.iter().flat_map(files).collect();
        let surplus = self
            .members
            .keys()
            .find(|name| *name != Manifest::FILE && !named.contains(name));
        match surplus {
            None => Ok(()),
            Some(name) => Err(ArchiveError::tampered(name, "the manifest does not name it")),
        }
    }

    /// Compares what is around the files with what a writer writes: the headers, the padding and the end of the tar file, and the form
    /// of the manifest, of which the signature covers the values alone.
    fn verify_frame(&self) -> Result<(), ArchiveError> {
        let text = text(&self.file, Manifest::FILE, self.members[Manifest::FILE])?;
        let written = serde_json::to_vec_pretty(&self.manifest);
        if written.map_err(|error| ArchiveError::Io(error.to_string()))? != text {
            let problem = "it is not as an export writes it";
            return Err(ArchiveError::tampered(Manifest::FILE, problem));
        }
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|(_, member)| member.at);
        let (mut at, mut last) = (0, Manifest::FILE);
        for (name, member) in members {
            let header = header_of(name, member.size);
            let header = header.map_err(|error| ArchiveError::tampered(name, error.to_string()))?;
            let end = member.at.saturating_add(member.size);
            let padded = end.checked_next_multiple_of(BLOCK).unwrap_or(end);
            if member.at != at + BLOCK || self.bytes(at, BLOCK)? != header.as_bytes() {
                return Err(ArchiveError::tampered(
                    name,
                    "its header is not as an export writes it",
                ));
            }
            if self.bytes(end, padded - end)?.iter().any(|byte| *byte != 0) {
                return Err(ArchiveError::tampered(
                    name,
                    "there is something between it and the next file",
                ));
            }
            (at, last) = (padded, name.as_str());
        }
        // One byte more than there may be shows that there is more.
        let rest = self.bytes(at, 2 * BLOCK + 1)?;
        match rest.len() as u64 == 2 * BLOCK && rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(ArchiveError::tampered(last, "the archive does not end behind it")),
        }
    }

    /// Some bytes of the tar file; fewer at its end.
    fn bytes(&self, at: u64, count: u64) -> Result<Vec<u8>, ArchiveError> {
        let failed = |error: io::Error| named(&self.path, &error);
        let mut handle = self.handle()?;
        handle.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut bytes = Vec::new();
        handle.take(count).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

#[async_trait]
impl ArchiveSource for FileArchiveReader {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    async fn verify(&mut self) -> Result<(), ArchiveError> {
        let other = Self {
            path: self.path.clone(),
            file: self.handle()?,
            manifest: self.manifest.clone(),
            members: self.members.clone(),
            open: None,
        };
        blocking(move || other.verify_all()).await
    }

    async fn open(&mut self, table: &str) -> Result<(), ArchiveError> {
        self.open = Some(self.table(table)?);
        Ok(())
    }

    async fn next(&mut self, bytes: usize) -> Result<Vec<String>, ArchiveError> {
        let Some(mut open) = self.open.take() else {
            return Ok(Vec::new());
        };
        let read = move || {
            let lines = open.next(bytes)?;
            Ok((open, lines))
        };
        let (open, lines) = blocking(read).await?;
        self.open = (!lines.is_empty()).then_some(open);
        Ok(lines)
    }
}

/// The rows of a table that is read.
struct OpenTable {
    lines: BufReader<zstd::Decoder<'static, BufReader<Hashed>>>,
    table: ManifestTable,
    bytes: u64,
    rows: u64,
}

impl std::fmt::Debug for OpenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenTable")
            .field("table", &self.table.name)
            .finish_non_exhaustive()
    }
}

impl OpenTable {
    fn new(file: File, member: Member, table: ManifestTable) -> Result<Self, ArchiveError> {
        let wrong = |error: io::Error| ArchiveError::tampered(&table.file, error.to_string());
        let hashed = Hashed {
            file,
            at: member.at,
            left: member.size,
            hash: Sha256::new(),
        };
        let mut decoder = zstd::Decoder::new(hashed).map_err(wrong)?;
        decoder.window_log_max(WINDOW_LOG).map_err(wrong)?;
        Ok(Self {
            lines: BufReader::new(decoder),
            table,
            bytes: 0,
            rows: 0,
        })
    }

    /// The next rows; at the end, what was read is compared with the manifest.
    fn next(&mut self, bytes: usize) -> Result<Vec<String>, ArchiveError> {
        let (mut lines, mut read) = (Vec::new(), 0);
        while read < bytes {
            let Some(line) = self.line()? else {
                if lines.is_empty() {
                    self.compare()?;
                }
                break;
            };
            read += line.len();
            lines.push(line);
        }
        Ok(lines)
    }

    fn line(&mut self) -> Result<Option<String>, ArchiveError> {
        let wrong = |problem: String| ArchiveError::tampered(&self.table.file, problem);
        let left = self.table.bytes - self.bytes;
        let mut line = Vec::new();
        // One byte more than there may be shows that there is more.
        let most = left.saturating_add(1).min(LONGEST_ROW);
        let read = (&mut self.lines).take(most).read_until(b'\n', &mut line);
        let read = read.map_err(|error| wrong(error.to_string()))? as u64;
        if read == 0 {
            return Ok(None);
        }
        if read > left {
            return Err(wrong("it is larger than the manifest says".to_owned()));
        }
        if line.pop() != Some(b'\n') {
            return Err(wrong("a row is too long, or has no end".to_owned()));
        }
        let line = String::from_utf8(line).map_err(|error| wrong(error.to_string()))?;
        (self.bytes, self.rows) = (self.bytes + read, self.rows + 1);
        Ok(Some(line))
    }

    fn compare(&mut self) -> Result<(), ArchiveError> {
        let wrong = |problem: &str| Err(ArchiveError::tampered(&self.table.file, problem));
        if (self.rows, self.bytes) != (self.table.rows, self.table.bytes) {
            return wrong("it has another number of rows or bytes");
        }
        let mut rest = Vec::new();
        let hashed = self.lines.get_mut().get_mut().get_mut();
        let drained = hashed.take(4096).read_to_end(&mut rest);
        // What is behind the compressed rows belongs to the file as well.
        let drained = drained.is_ok() && hashed.left == 0;
        match drained && hex(&hashed.hash.clone().finalize()) == self.table.sha256 {
            true => Ok(()),
            false => wrong("its SHA-256 is another"),
        }
    }
}

/// The stored bytes of a member, which are hashed as they are read.
struct Hashed {
    file: File,
    at: u64,
    left: u64,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.at, self.left) = (self.at + read as u64, self.left - read as u64);
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// The members of an archive. Only headers are read.
fn members(file: &File) -> Result<BTreeMap<String, Member>, ArchiveError> {
    let malformed = |problem: String| ArchiveError::Malformed(problem);
    // The message of the error is not shown: it quotes bytes of the file, which may be a file of another kind.
    let failed = |_: io::Error| malformed("it is no complete tar file".to_owned());
    let mut tar = tar::Archive::new(file);
    let mut members = BTreeMap::new();
    // Raw: extensions of the format, such as names of any length, are entries that an archive does not have.
    for entry in tar.entries_with_seek().map_err(failed)?.raw(true) {
        let entry = entry.map_err(failed)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !entry.header().entry_type().is_file() {
            return Err(malformed(format!("{name:?} is no plain file")));
        }
        if !is_member(&name) {
            return Err(malformed(format!("an archive has no file {name:?}")));
        }
        let member = Member {
            at: entry.raw_file_position(),
            size: entry.size(),
        };
        if members.insert(name.clone(), member).is_some() {
            return Err(malformed(format!("{name:?} is there twice")));
        }
        if members.len() > 2 * Manifest::MOST_TABLES + 1 {
            return Err(malformed("it has too many files".to_owned()));
        }
    }
    Ok(members)
}

/// Whether an archive may have a file of that name.
fn is_member(name: &str) -> bool {
    let table = |name: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !name.is_empty() && name.chars().all(plain)
    };
    let rows = name
        .strip_prefix("tables/")
        .and_then(|rest| rest.strip_suffix(".ndjson.zst"));
    let schema = name
        .strip_prefix("schemas/")
        .and_then(|rest| rest.strip_suffix(".json"));
    name == Manifest::FILE || rows.or(schema).is_some_and(table)
}

/// A small member as it is.
fn text(file: &File, name: &str, member: Member) -> Result<Vec<u8>, ArchiveError> {
    if member.size > LARGEST_TEXT {
        return Err(ArchiveError::tampered(name, "it is too large"));
    }
    let mut hashed = Hashed {
        file: file
            .try_clone()
            .map_err(|error| ArchiveError::Io(error.to_string()))?,
        at: member.at,
        left: member.size,
        hash: Sha256::new(),
    };
    let mut bytes = Vec::new();
    match hashed.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(ArchiveError::tampered(name, error.to_string())),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ArchiveError::Io(error.to_string()))?
}
