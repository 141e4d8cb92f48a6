use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::DateTime;
use tenantry_domain::kernel::{TenantId, UserId};
use tenantry_domain::usage::{Call, CallSpool, EndedSpool, SpoolTally, SpoolTrouble};
use uuid::Uuid;

/// Calls on their way into the ledger, in files below a folder that processes may share.
///
/// A call is one `write(2)` of 48 bytes to the file of this process. What the system call has taken is in the
/// memory of the operating system and outlasts the process however that ends, `kill -9` included. It does not outlast the
/// machine: for that each request would have to wait for the disk.
///
/// Each process has a folder of its own, of which it holds the lock for as long as it lives; whoever gets the lock of
/// another takes over what is in it. Where there is no folder, or nothing can be written, calls are remembered in memory.
///
/// A process reads its own files through the handles with which it wrote them, so that a folder that was deleted loses nothing
/// while the process lives. With each look for batches the folder is made anew where it is gone.
#[derive(Debug)]
pub struct FileSpool {
    folder: Option<PathBuf>,
    name: String,
    own: Mutex<Own>,
    /// Folders of processes that have died, with their locks.
    adopted: Mutex<BTreeMap<String, File>>,
}

/// The bytes of a call in a file: a checksum, what there is of it, tenant, user and microseconds since 1970.
const RECORD: usize = 48;

/// After so many calls a file is closed although those before it are still there: what is read at once stays small.
const LARGEST_FILE: u64 = 200_000;

/// How many calls are remembered at the most while nothing can be written (about 50 MB).
const MOST_REMEMBERED: usize = 1_000_000;

/// Where calls are that were set aside, as they would lie in the folder itself.
const ASIDE: &str = ".aside";

const LOCK: &str = "lock";

/// Says which files of a folder hold all calls of its process, for as long as that is so.
const MANIFEST: &str = "manifest";

/// The bytes of a file from its beginning on: places that were not written to yet are a hole. So a file that was truncated is
/// known by its length.
const FILE_SIZE: u64 = LARGEST_FILE * RECORD as u64;

const EXTENSION: &str = "calls";

/// For how long trouble is reported after it was seen.
const TROUBLED: Duration = Duration::from_secs(600);

/// What this process has noted.
#[derive(Debug, Default)]
struct Own {
    /// The lock of the folder, once there is one.
    lock: Option<File>,
    open: Option<Open>,
    /// Files that are full or were closed while a thread still wrote to them: they are batches when it is done.
    closing: Vec<Open>,
    /// Closed files, by number.
    closed: BTreeMap<u64, Open>,
    next: u64,
    remembered: Vec<Call>,
    /// Closed batches of what was remembered.
    kept: BTreeMap<String, Arc<[Call]>>,
    tally: SpoolTally,
    failing: bool,
    troubled: Option<(SpoolTrouble, Instant)>,
    /// The folder of this process, once there is one.
    home: Option<PathBuf>,
    /// What the manifest in it says; `None` where there is none.
    manifest: Option<Vec<u64>>,
    /// Calls were lost.
    damaged: bool,
    /// The manifest should have been removed and could not be. Logged once.
    is_stale: bool,
}

#[derive(Debug)]
struct Open {
    number: u64,
    /// Whoever writes to it has another one.
    file: Arc<File>,
    calls: u64,
    /// How many of them could not be written and wait elsewhere.
    torn: u64,
    /// How many were found when it was read last.
    found: Option<u64>,
}

/// Where one call goes, which is nobody else's place.
struct Place {
    number: u64,
    file: Arc<File>,
    index: u64,
    /// Whether the call before could not be written.
    failing: bool,
}

impl FileSpool {
    /// A spool below a folder, or in memory where there is none, for a process of this name: one that no other process
    /// has, nor ever had.
    pub fn new(folder: Option<PathBuf>, name: String) -> Self {
        Self {
            folder,
            name,
            own: Mutex::default(),
            adopted: Mutex::default(),
        }
    }

    /// Makes the folder of this process, so that it is known before the first request whether that is possible.
    ///
    /// # Errors
    /// When it is not.
    pub fn prepare(&self) -> io::Result<()> {
        match &self.folder {
            Some(folder) => self.own().prepare(folder, &self.name),
            None => Ok(()),
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopted(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the folders of processes that have died, gives the batches in them, and removes the empty ones.
    fn inherited(&self, folder: &Path) -> Vec<String> {
        let mut adopted = self.adopted();
        let others = names(folder).into_iter();
        let others = others.filter(|name| *name != self.name && !name.starts_with('.'));
        for name in others {
            if !adopted.contains_key(&name)
                && let Some(lock) = taken(&folder.join(&name).join(LOCK))
            {
                tracing::info!(spool = name, "taking over the calls of a process that has ended");
                adopted.insert(name, lock);
            }
        }
        let mut batches = Vec::new();
        for name in adopted.keys() {
            batches.extend(batches_in(folder, name));
        }
        batches.sort_unstable();
        batches
    }

    /// Reads a file of this process through the handle that wrote it, or the file of another by its name.
    fn read_file(&self, batch: &str, each: &mut dyn FnMut(Call)) -> io::Result<Found> {
        let own = self.number(batch);
        let handle = own.and_then(|number| {
            let own = self.own();
            let closed = own.closed.get(&number)?;
            Some((Arc::clone(&closed.file), closed.calls))
        });
        let (mut file, mut places): (Box<dyn Read>, u64) = match handle {
            Some((file, calls)) => (Box::new(BufReader::new(FromStart { file, offset: 0 })), calls),
            None => {
                let file = BufReader::with_capacity(1 << 16, File::open(self.path(batch)?)?);
                (Box::new(file), u64::MAX)
            }
        };
        let (mut record, mut bytes) = ([0; RECORD], 0);
        let (mut whole, mut torn) = (0, 0);
        while places > 0
            && let Some(read) = whole_or_part(&mut file, &mut record)?
        {
            places -= 1;
            bytes += read as u64;
            if read == RECORD && record == [0; RECORD] {
                // Nothing was written here: the process was killed before, or the place was not needed.
                continue;
            }
            match decode(&record).filter(|_| read == RECORD) {
                Some(call) => {
                    whole += 1;
                    each(call);
                }
                None => torn += 1,
            }
        }
        if torn > 0 {
            tracing::warn!(batch, torn, "records of the spool are torn");
        }
        let is_intact = torn == 0 && bytes == FILE_SIZE;
        Ok(Found { whole, is_intact })
    }

    /// Takes a file that is about to be removed off the manifest of a process that has died. Where that fails the manifest is
    /// removed: without it nothing is proven.
    fn strike(&self, name: &str, number: u64) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join(name).join(MANIFEST);
        let Some(mut files) = files_in(&path) else {
            return Ok(());
        };
        files.retain(|file| *file != number);
        write_manifest(&path, &files).or_else(|_| unless_gone(std::fs::remove_file(&path)))
    }

    /// The number of a batch of this process.
    fn number(&self, batch: &str) -> Option<u64> {
        let rest = batch.strip_prefix(&self.name)?.strip_prefix('/')?;
        rest.parse().ok()
    }

    fn path(&self, batch: &str) -> io::Result<PathBuf> {
        let folder = self.folder.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(folder.join(format!("{batch}.{EXTENSION}")))
    }
}

impl CallSpool for FileSpool {
    fn note(&self, call: Call) {
        let is_wanted = self.folder.is_some();
        let place = self.own().place(self.folder.as_deref(), &self.name);
        let place = match place {
            Ok(place) => place,
            Err(error) => return self.own().failed(None, call, is_wanted, &error),
        };
        // Without the lock: whoever loses the processor in the system call keeps nobody waiting.
        match place.write(&call) {
            Ok(()) if place.failing => self.own().recovered(),
            Ok(()) => {}
            Err(error) => self.own().failed(Some(place), call, is_wanted, &error),
        }
    }

    fn batches(&self) -> Vec<String> {
        let mut batches = self
            .folder
            .as_ref()
            .map_or_else(Vec::new, |folder| self.inherited(folder));
        let mut own = self.own();
        if let Some(folder) = &self.folder {
            own.look_after(folder, &self.name);
        }
        // While earlier ones are not in the ledger yet this one goes on: an outage makes few files, not many.
        if own.closed.is_empty() && own.closing.is_empty() {
            own.close();
        }
        own.settle();
        if own.kept.is_empty() && !own.remembered.is_empty() {
            let name = format!("{}/m{:010}", self.name, own.next);
            own.next += 1;
            let remembered = std::mem::take(&mut own.remembered);
            own.kept.insert(name, remembered.into());
        }
        own.prove();
        batches.extend(own.closed.keys().map(|number| batch(&self.name, *number)));
        batches.extend(own.kept.keys().cloned());
        batches
    }

    fn read(&self, batch: &str, each: &mut dyn FnMut(Call)) -> io::Result<()> {
        let kept = self.own().kept.get(batch).cloned();
        if let Some(calls) = kept {
            calls.iter().copied().for_each(each);
            return Ok(());
        }
        let found = self.read_file(batch, each)?;
        if let Some(number) = self.number(batch)
            && let Some(closed) = self.own().closed.get_mut(&number)
        {
            closed.found = Some(found.whole);
        } else if let (false, Some(home)) = (found.is_intact, self.path(batch)?.parent()) {
            // Before the file is removed, so that whoever settles what its process held knows that calls may be missing.
            unless_gone(std::fs::remove_file(home.join(MANIFEST)))?;
        }
        Ok(())
    }

    fn remove(&self, batch: &str) -> io::Result<()> {
        let mut own = self.own();
        if own.kept.remove(batch).is_some() {
            own.prove();
            return Ok(());
        }
        let path = self.path(batch)?;
        let Some(closed) = self.number(batch).and_then(|number| own.closed.remove(&number)) else {
            if let Some((name, number)) = batch.split_once('/') {
                self.strike(name, number.parse().map_err(io::Error::other)?)?;
            }
            return std::fs::remove_file(path);
        };
        // The manifest first: a file that is not in it proves nothing and does no harm.
        own.prove();
        // A file of this process that was deleted was read through its handle.
        let removed = unless_gone(std::fs::remove_file(path));
        match &removed {
            Ok(()) => own.count_lost(batch, &closed),
            Err(_) => drop(own.closed.insert(closed.number, closed)),
        }
        own.prove();
        removed
    }

    fn set_aside(&self, batch: &str, calls: &[Call]) -> io::Result<()> {
        let (Some(folder), Some((name, number))) = (&self.folder, batch.split_once('/')) else {
            return Ok(());
        };
        let home = folder.join(ASIDE).join(name);
        private().create(&home)?;
        // Whoever moves the folder back needs nothing else: it is one of a process that has ended.
        File::create(home.join(LOCK))?;
        // What was remembered and not in a file has a letter before its number.
        let file = home.join(format!("{}.{EXTENSION}", number.trim_start_matches('m')));
        let unfinished = file.with_extension("part");
        let records: Vec<u8> = calls.iter().flat_map(encode).collect();
        std::fs::write(&unfinished, records)?;
        std::fs::rename(unfinished, file)
    }

    fn ended(&self) -> Vec<EndedSpool> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let adopted = self.adopted();
        let ended = adopted
            .keys()
            .filter(|name| batches_in(folder, name).next().is_none());
        let ended = ended.map(|name| EndedSpool {
            // A file that it names and that is not there was deleted.
            is_whole: files_in(&folder.join(name).join(MANIFEST)).is_some_and(|files| files.is_empty()),
            name: name.clone(),
        });
        ended.collect()
    }

    fn bury(&self, name: &str) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut adopted = self.adopted();
        if !adopted.contains_key(name) || batches_in(folder, name).next().is_some() {
            return Ok(());
        }
        let home = folder.join(name);
        // Whoever comes upon it half removed finds nothing in it, as we did.
        for file in [MANIFEST.to_owned(), format!("{MANIFEST}.part"), LOCK.to_owned()] {
            unless_gone(std::fs::remove_file(home.join(file)))?;
        }
        unless_gone(std::fs::remove_dir(home))?;
        adopted.remove(name);
        Ok(())
    }

    fn tally(&self) -> SpoolTally {
        let own = self.own();
        let kept: usize = own.kept.values().map(|calls| calls.len()).sum();
        let recent = own.troubled.filter(|(_, at)| at.elapsed() < TROUBLED);
        SpoolTally {
            pending: own.files().map(Open::whole).sum::<u64>() + (own.remembered.len() + kept) as u64,
            trouble: match recent {
                _ if own.failing => Some(SpoolTrouble::Unwritable),
                recent => recent.map(|(trouble, _)| trouble),
            },
            ..own.tally
        }
    }
}

impl Place {
    /// At its own place and not at the end: what a full disk took of a record is written over by the next one.
    fn write(&self, call: &Call) -> io::Result<()> {
        let at = self.index * RECORD as u64;
        self.file.write_all_at(&encode(call), at)
    }
}

impl Open {
    /// Calls that must be in the file.
    const fn whole(&self) -> u64 {
        self.calls.saturating_sub(self.torn)
    }

    /// Whether no name leads to it any more.
    fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }
}

impl Own {
    /// Makes the folder anew where it, or its lock, is gone, and goes on in a new file where the open one is: what is written
    /// to a deleted file is lost if the process is killed.
    fn look_after(&mut self, folder: &Path, name: &str) {
        let Some(lock) = &self.lock else { return };
        let there = std::fs::metadata(folder.join(name).join(LOCK));
        let is_ours = match (there, lock.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        };
        let is_deleted = self.open.as_ref().is_some_and(Open::is_deleted);
        if is_ours && !is_deleted {
            return;
        }
        if !matches!(self.troubled, Some((SpoolTrouble::Deleted, at)) if at.elapsed() < TROUBLED) {
            tracing::error!(
                spool = name,
                "the folder of the spool, or a file in it, was deleted; what was in it is still stored, and it is made anew"
            );
        }
        self.trouble(SpoolTrouble::Deleted);
        self.close();
        if !is_ours {
            self.lock = None;
            if let Err(error) = self.prepare(folder, name) {
                tracing::error!(%error, "the folder of the spool cannot be made anew");
            }
        }
    }

    fn trouble(&mut self, trouble: SpoolTrouble) {
        // What is lost is worse than what may be lost.
        if !matches!(self.troubled, Some((SpoolTrouble::Lost, at)) if at.elapsed() < TROUBLED) {
            self.troubled = Some((trouble, Instant::now()));
        }
    }

    /// Counts what was in a file and could not be read back from it.
    fn count_lost(&mut self, batch: &str, closed: &Open) {
        let lost = closed
            .found
            .map_or(0, |found| closed.whole().saturating_sub(found));
        if lost > 0 {
            self.damaged = true;
            self.tally.lost += lost;
            self.trouble(SpoolTrouble::Lost);
            tracing::error!(batch, lost, "calls are lost: their records in the spool are gone");
        }
    }

    /// The next place in the open file.
    fn place(&mut self, folder: Option<&Path>, name: &str) -> io::Result<Place> {
        self.tally.noted += 1;
        let folder = folder.ok_or(io::ErrorKind::NotFound)?;
        if self.open.as_ref().is_some_and(|open| open.calls >= LARGEST_FILE) {
            self.close();
        }
        if self.open.is_none() {
            self.open = Some(self.create(folder, name)?);
            self.prove();
        }
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        open.calls += 1;
        Ok(Place {
            number: open.number,
            file: Arc::clone(&open.file),
            index: open.calls - 1,
            failing: self.failing,
        })
    }

    fn create(&mut self, folder: &Path, name: &str) -> io::Result<Open> {
        self.prepare(folder, name)?;
        let number = self.next;
        let path = folder.join(format!("{}.{EXTENSION}", batch(name, number)));
        let create = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            options.open(&path)
        };
        let file = match create() {
            // The folder was deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.look_after(folder, name);
                create()?
            }
            created => created?,
        };
        if let Err(error) = file.set_len(FILE_SIZE) {
            unless_gone(std::fs::remove_file(&path))?;
            return Err(error);
        }
        self.next += 1;
        Ok(Open {
            number,
            file: Arc::new(file),
            calls: 0,
            torn: 0,
            found: None,
        })
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("calls are written to the spool again");
        }
    }

    /// Remembers a call that could not be written to its place.
    fn failed(&mut self, place: Option<Place>, call: Call, is_wanted: bool, error: &io::Error) {
        // The next one may have the place; if that has one behind it already, this stays a torn record.
        if let Some(place) = place {
            match &mut self.open {
                Some(open) if (open.number, open.calls) == (place.number, place.index + 1) => open.calls -= 1,
                open => {
                    let written = open.iter_mut().chain(&mut self.closing);
                    written
                        .filter(|open| open.number == place.number)
                        .for_each(|open| open.torn += 1);
                }
            }
        }
        if is_wanted && !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "calls cannot be written to the spool and are remembered instead");
        }
        self.remember(call);
        self.prove();
    }

    /// Keeps the manifest: which files hold calls of this process, as long as no call waits elsewhere or is lost. Removing it
    /// needs no room on the disk.
    fn prove(&mut self) {
        let Some(home) = &self.home else { return };
        let wanted = self
            .is_whole()
            .then(|| self.files().map(|open| open.number).collect());
        if wanted == self.manifest {
            return;
        }
        let path = home.join(MANIFEST);
        let written = wanted
            .as_ref()
            .map(|files: &Vec<u64>| write_manifest(&path, files));
        self.manifest = match written {
            Some(Ok(())) => wanted,
            Some(Err(_)) | None => match unless_gone(std::fs::remove_file(&path)) {
                Ok(()) => None,
                Err(error) => {
                    if !std::mem::replace(&mut self.is_stale, true) {
                        tracing::error!(%error, "the manifest of the spool cannot be removed");
                    }
                    return;
                }
            },
        };
        self.is_stale = false;
    }

    /// Whether the files hold every call of this process that is not in the ledger, and a name leads to each of them.
    fn is_whole(&self) -> bool {
        let is_elsewhere = self.failing || !self.remembered.is_empty() || !self.kept.is_empty();
        !self.damaged && !is_elsewhere && !self.files().any(Open::is_deleted)
    }

    /// The files with calls of this process that are not in the ledger yet.
    fn files(&self) -> impl Iterator<Item = &Open> {
        self.closed.values().chain(&self.closing).chain(&self.open)
    }

    /// Makes the folder under a name that nobody looks at, and gives it its own when its lock is held: otherwise it could
    /// be taken over in between.
    fn prepare(&mut self, folder: &Path, name: &str) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        private().create(folder)?;
        let unborn = folder.join(format!(".{name}"));
        private().create(&unborn)?;
        let lock = File::create(unborn.join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        let home = folder.join(name);
        if home.exists() {
            // Only the lock was deleted, or it is another file by now.
            std::fs::rename(unborn.join(LOCK), home.join(LOCK))?;
            std::fs::remove_dir(&unborn)?;
        } else {
            std::fs::rename(&unborn, &home)?;
            self.manifest = None;
        }
        self.lock = Some(lock);
        self.home = Some(home);
        self.prove();
        Ok(())
    }

    fn close(&mut self) {
        self.closing.extend(self.open.take_if(|open| open.calls > 0));
    }

    /// Makes batches of the closed files that nobody writes to any more.
    fn settle(&mut self) {
        let is_done = |open: &mut Open| Arc::get_mut(&mut open.file).is_some();
        let done = self.closing.extract_if(.., is_done);
        self.closed.extend(done.map(|open| (open.number, open)));
    }

    fn remember(&mut self, call: Call) {
        if self.remembered.len() < MOST_REMEMBERED {
            self.remembered.push(call);
            self.tally.remembered += 1;
        } else {
            self.damaged = true;
            self.tally.lost += 1;
        }
    }
}

/// What was in a file.
struct Found {
    /// How many records were whole.
    whole: u64,
    /// Whether the file is as long as it was made, and nothing in it was overwritten.
    is_intact: bool,
}

/// A file from its beginning, whatever others read or write of it.
struct FromStart {
    file: Arc<File>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// What was to be removed may be gone already.
fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The files that a manifest names; `None` where there is none, or where it was written before the machine was restarted: what the
/// operating system had not written to the disk then is lost.
fn files_in(manifest: &Path) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(manifest).ok()?;
    let mut lines = text.lines();
    if lines.next()? != boot() {
        return None;
    }
    lines.map(|line| line.parse().ok()).collect()
}

/// Writes a manifest as a whole or not at all.
fn write_manifest(path: &Path, files: &[u64]) -> io::Result<()> {
    let lines = files.iter().map(|number| format!("{number}\n"));
    let unfinished = path.with_extension("part");
    std::fs::write(&unfinished, format!("{}\n{}", boot(), lines.collect::<String>()))?;
    std::fs::rename(unfinished, path)
}

/// Names the present run of the operating system; the same for all where it has no such name.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
    })
}

/// The batches in the folder of a process.
fn batches_in(folder: &Path, name: &str) -> impl Iterator<Item = String> {
    let files = names(&folder.join(name)).into_iter();
    let name = name.to_owned();
    files.filter_map(move |file| number_of(&file).map(|number| batch(&name, number)))
}

/// Makes folders that nobody else may look into.
fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
}

fn batch(name: &str, number: u64) -> String {
    format!("{name}/{number:010}")
}

fn number_of(file: &str) -> Option<u64> {
    let (number, extension) = file.split_once('.')?;
    (extension == EXTENSION).then(|| number.parse().ok()).flatten()
}

/// What is in a folder; nothing where it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The lock of a folder whose process has ended.
fn taken(path: &Path) -> Option<File> {
    let lock = OpenOptions::new().write(true).open(path).ok()?;
    lock.try_lock().is_ok().then_some(lock)
}

/// Fills the record, or as much of it as there is; none at the end of the file.
fn whole_or_part(file: &mut impl Read, record: &mut [u8; RECORD]) -> io::Result<Option<usize>> {
    let mut filled = 0;
    while filled < RECORD {
        match file.read(&mut record[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((filled > 0).then_some(filled))
}

fn encode(call: &Call) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[4] = 1;
    record[5] = u8::from(call.user.is_some());
    record[8..24].copy_from_slice(call.tenant.uuid().as_bytes());
    let user = call.user.map_or_else(Uuid::nil, UserId::uuid);
    record[24..40].copy_from_slice(user.as_bytes());
    record[40..].copy_from_slice(&call.at.timestamp_micros().to_le_bytes());
    let sum = checksum(&record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
    record
}

fn decode(record: &[u8; RECORD]) -> Option<Call> {
    let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
    if record[..4] != checksum(&record[4..]).to_le_bytes() || record[4] != 1 {
        return None;
    }
    let micros = i64::from_le_bytes(record[40..].try_into().ok()?);
    Some(Call {
        tenant: TenantId::from(uuid(&record[8..24])?),
        user: if record[5] == 1 {
            Some(UserId::from(uuid(&record[24..40])?))
        } else {
            None
        },
        at: DateTime::from_timestamp_micros(micros)?,
    })
}

/// FNV-1a, 32 bits: against records that were written in part, not against anybody's intentions.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(16_777_619);
    bytes.iter().fold(2_166_136_261, step)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tenantry_domain::kernel::IdSource as _;

    use super::*;
    use crate::SystemIds;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("tenantry-spool-{}", SystemIds.uuid()));
            Self(path)
        }

        fn spool(&self) -> FileSpool {
            FileSpool::new(Some(self.0.clone()), SystemIds.uuid().to_string())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn call(micros: i64) -> Call {
        Call {
            tenant: TenantId::next(&SystemIds),
            user: (micros % 2 == 0).then(|| UserId::next(&SystemIds)),
            at: at(micros),
        }
    }

    fn at(micros: i64) -> DateTime<chrono::Utc> {
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    fn calls_of(spool: &FileSpool, batch: &str) -> Vec<Call> {
        let mut calls = Vec::new();
        spool.read(batch, &mut |call| calls.push(call)).unwrap();
        calls
    }

    fn read_all(spool: &FileSpool) -> Vec<Call> {
        let batches = spool.batches();
        batches.iter().flat_map(|batch| calls_of(spool, batch)).collect()
    }

    #[test]
    fn what_was_noted_is_read_by_whoever_comes_after_the_end_of_the_process() {
        let folder = Folder::new();
        let calls: Vec<Call> = (0..10).map(call).collect();
        let first = folder.spool();
        calls.iter().for_each(|call| first.note(*call));
        let second = folder.spool();
        assert_eq!(second.batches(), Vec::<String>::new(), "the first one lives");
        drop(first);
        assert_eq!(read_all(&second), calls);
        // Another one does not get them too, and sees the same once the second has ended.
        let third = folder.spool();
        assert_eq!(third.batches(), Vec::<String>::new());
        let names = second.batches();
        drop(second);
        assert_eq!(third.batches(), names);
        assert_eq!(read_all(&third), calls);
        assert!(
            !third
                .ended()
                .iter()
                .any(|ended| names[0].starts_with(&ended.name))
        );
        names.iter().for_each(|batch| third.remove(batch).unwrap());
        assert_eq!(third.batches(), Vec::<String>::new());
        // Its folder stays until what else is to be done for it is done.
        let ended = third.ended();
        assert!(ended.iter().any(|ended| names[0].starts_with(&ended.name)));
        assert!(ended.iter().all(|ended| ended.is_whole));
        for _ in 0..2 {
            ended.iter().for_each(|ended| third.bury(&ended.name).unwrap());
        }
        assert_eq!(third.ended(), []);
        assert_eq!(super::names(&folder.0), Vec::<String>::new());
    }

    #[test]
    fn what_was_set_aside_is_given_again_only_when_its_folder_is_moved_back() {
        let folder = Folder::new();
        let calls: Vec<Call> = (0..5).map(call).collect();
        let first = folder.spool();
        calls.iter().for_each(|call| first.note(*call));
        let batches = first.batches();
        for _ in 0..2 {
            first.set_aside(&batches[0], &calls[..2]).unwrap();
        }
        first.remove(&batches[0]).unwrap();
        assert_eq!(first.batches(), Vec::<String>::new());
        drop(first);
        let second = folder.spool();
        assert_eq!(second.batches(), Vec::<String>::new());
        let ended = second.ended();
        ended.iter().for_each(|ended| second.bury(&ended.name).unwrap());
        let name = super::names(&folder.0.join(ASIDE)).pop().unwrap();
        std::fs::rename(folder.0.join(ASIDE).join(&name), folder.0.join(&name)).unwrap();
        assert_eq!(second.batches(), batches, "under the name it had");
        assert_eq!(calls_of(&second, &batches[0]), calls[..2]);
    }

    #[test]
    fn a_batch_does_not_change_and_further_calls_are_in_the_next() {
        let folder = Folder::new();
        let spool = folder.spool();
        spool.note(call(1));
        let first = spool.batches();
        let read = calls_of(&spool, &first[0]);
        spool.note(call(2));
        assert_eq!(spool.batches(), first, "the earlier one is still there");
        assert_eq!(calls_of(&spool, &first[0]), read);
        assert_eq!(spool.tally().pending, 2);
        spool.remove(&first[0]).unwrap();
        let second = spool.batches();
        assert!(second.len() == 1 && second != first);
        spool.remove(&second[0]).unwrap();
        assert_eq!((spool.batches().len(), spool.tally().pending), (0, 0));
    }

    #[test]
    fn a_file_that_a_thread_still_writes_to_is_no_batch() {
        let folder = Folder::new();
        let spool = folder.spool();
        spool.note(call(1));
        let place = spool.own().place(Some(&folder.0), &spool.name).unwrap();
        assert_eq!(spool.batches(), Vec::<String>::new());
        spool.note(call(2));
        assert_eq!(spool.batches(), Vec::<String>::new(), "one after the other");
        assert_eq!(spool.tally().pending, 3);
        let late = call(3);
        place.write(&late).unwrap();
        drop(place);
        let first = spool.batches();
        let read = calls_of(&spool, &first[0]);
        assert_eq!(
            read.iter().map(|call| call.at).collect::<Vec<_>>(),
            [1, 3].map(at)
        );
        spool.remove(&first[0]).unwrap();
        assert_eq!(read_all(&spool).len(), 1);
    }

    #[test]
    fn the_place_of_a_call_that_could_not_be_written_is_the_next_ones() {
        let folder = Folder::new();
        let spool = folder.spool();
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let place = || spool.own().place(Some(&folder.0), &spool.name).unwrap();
        let first = place();
        spool.own().failed(Some(first), call(1), true, &error);
        spool.note(call(2));
        // Here there is one behind it, so that what is there of it is passed over.
        let (third, fourth) = (place(), place());
        spool.own().failed(Some(third), call(3), true, &error);
        fourth.write(&call(4)).unwrap();
        drop(fourth);
        let mut read: Vec<_> = read_all(&spool).iter().map(|call| call.at).collect();
        read.sort_unstable();
        assert_eq!(read, [1, 2, 3, 4].map(at));
        assert_eq!((spool.tally().noted, spool.tally().remembered), (4, 2));
    }

    #[test]
    fn torn_records_are_passed_over() {
        let folder = Folder::new();
        let spool = folder.spool();
        let calls = [call(1), call(2), call(3)];
        calls.iter().for_each(|call| spool.note(*call));
        let batch = spool.batches().remove(0);
        let path = spool.path(&batch).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[RECORD + 20] ^= 1;
        bytes.extend([1, 2, 3]);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(calls_of(&spool, &batch), [calls[0], calls[2]]);
    }

    #[test]
    fn a_deleted_folder_loses_nothing_and_is_made_anew() {
        for deleted in ["folder", "home", "files", "lock"] {
            let folder = Folder::new();
            let spool = folder.spool();
            let home = folder.0.join(&spool.name);
            let calls: Vec<Call> = (0..6).map(call).collect();
            calls[..2].iter().for_each(|call| spool.note(*call));
            let first = spool.batches();
            calls[2..4].iter().for_each(|call| spool.note(*call));
            match deleted {
                "folder" => std::fs::remove_dir_all(&folder.0).unwrap(),
                "home" => std::fs::remove_dir_all(&home).unwrap(),
                "lock" => std::fs::remove_file(home.join(LOCK)).unwrap(),
                _ => names(&home)
                    .iter()
                    .filter(|name| number_of(name).is_some())
                    .for_each(|name| std::fs::remove_file(home.join(name)).unwrap()),
            }
            assert_eq!(spool.tally().trouble, None, "nobody has looked");
            assert_eq!(spool.batches()[..1], first[..], "{deleted}");
            assert_eq!(spool.tally().trouble, Some(SpoolTrouble::Deleted), "{deleted}");
            // What comes after it outlasts the process again.
            calls[4..].iter().for_each(|call| spool.note(*call));
            let mut read = Vec::new();
            while read.len() < 4 {
                let batch = spool.batches().remove(0);
                read.extend(calls_of(&spool, &batch));
                spool.remove(&batch).unwrap();
            }
            assert_eq!(read, calls[..4], "{deleted}");
            let tally = spool.tally();
            assert_eq!((tally.lost, tally.pending), (0, 2), "{deleted}");
            drop(spool);
            let next = folder.spool();
            assert_eq!(read_all(&next), calls[4..], "{deleted}");
        }
    }

    #[test]
    fn records_that_a_truncation_removed_count_as_lost() {
        let folder = Folder::new();
        let spool = folder.spool();
        let calls: Vec<Call> = (0..5).map(call).collect();
        calls[..4].iter().for_each(|call| spool.note(*call));
        let path = folder.0.join(format!(
            "{}.{EXTENSION}",
            batch(&spool.name, spool.own().open.as_ref().unwrap().number)
        ));
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(RECORD as u64 + 7).unwrap();
        // What is written after it is at its own place, behind a hole.
        spool.note(calls[4]);
        let batch = spool.batches().remove(0);
        for _ in 0..2 {
            assert_eq!(
                calls_of(&spool, &batch),
                [calls[0], calls[4]],
                "also when it is read again"
            );
        }
        spool.remove(&batch).unwrap();
        let tally = spool.tally();
        assert_eq!((tally.noted, tally.lost, tally.pending), (5, 3, 0));
        assert_eq!(tally.trouble, Some(SpoolTrouble::Lost));
    }

    /// Ends a process with calls in two files, after something was done to them; whether its spool is proven to be whole once
    /// another process has read all that is left.
    fn is_whole_after(damage: impl FnOnce(&FileSpool, &Path)) -> bool {
        let folder = Folder::new();
        let spool = folder.spool();
        let home = folder.0.join(&spool.name);
        (0..2).for_each(|micros| spool.note(call(micros)));
        assert_eq!(spool.batches().len(), 1);
        (2..4).for_each(|micros| spool.note(call(micros)));
        damage(&spool, &home);
        drop(spool);
        let next = folder.spool();
        while let Some(batch) = next.batches().first() {
            calls_of(&next, batch);
            next.remove(batch).unwrap();
        }
        let ended = next.ended();
        let bury = |ended: &EndedSpool| next.bury(&ended.name).unwrap();
        ended.iter().for_each(bury);
        assert_eq!(names(&folder.0), Vec::<String>::new());
        ended.iter().all(|ended| ended.is_whole) && !ended.is_empty()
    }

    fn file(home: &Path, which: usize) -> PathBuf {
        let mut files: Vec<_> = names(home);
        files.retain(|name| number_of(name).is_some());
        files.sort_unstable();
        home.join(&files[which])
    }

    #[test]
    fn spool_of_a_killed_process_proves_that_it_is_whole() {
        assert!(is_whole_after(|_, _| {}));
        // A call that was under way when the process was killed, before another that was written.
        assert!(is_whole_after(|spool, home| {
            let place = || spool.own().place(home.parent(), &spool.name).unwrap();
            let (_, second) = (place(), place());
            second.write(&call(9)).unwrap();
        }));
        // Once what was remembered is in the ledger nothing is missing any more.
        assert!(is_whole_after(|spool, home| {
            let place = spool.own().place(home.parent(), &spool.name).unwrap();
            let full = io::Error::from(io::ErrorKind::StorageFull);
            spool.own().failed(Some(place), call(9), true, &full);
            spool.note(call(10));
            let batches = spool.batches();
            let remembered = batches.iter().find(|batch| batch.contains("/m")).unwrap();
            spool.remove(remembered).unwrap();
        }));
    }

    #[test]
    fn spool_that_may_miss_calls_proves_nothing() {
        let truncate = |file: PathBuf, length| {
            let file = OpenOptions::new().write(true).open(file).unwrap();
            file.set_len(length).unwrap();
        };
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(!is_whole_after(|spool, home| {
            let place = spool.own().place(home.parent(), &spool.name).unwrap();
            spool.own().failed(Some(place), call(9), true, &full());
        }));
        for which in [0, 1] {
            assert!(!is_whole_after(|_, home| {
                std::fs::remove_file(file(home, which)).unwrap();
            }));
            for length in [0, RECORD as u64, RECORD as u64 + 7] {
                assert!(!is_whole_after(|_, home| truncate(file(home, which), length)));
            }
            assert!(!is_whole_after(|_, home| {
                let file = OpenOptions::new().write(true).open(file(home, which)).unwrap();
                file.write_all_at(b"overwritten", 20).unwrap();
            }));
        }
        // Truncated, and written to afterwards.
        assert!(!is_whole_after(|spool, home| {
            truncate(file(home, 1), 0);
            spool.note(call(9));
        }));
        assert!(!is_whole_after(|_, home| std::fs::remove_file(
            home.join(MANIFEST)
        )
        .unwrap()));
        // Written before the machine was restarted.
        assert!(!is_whole_after(|_, home| {
            let path = home.join(MANIFEST);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, text.replace(boot(), "another")).unwrap();
        }));
        // Gone with its folder, which was made anew: what was in it is readable, but for this process only.
        assert!(!is_whole_after(|spool, home| {
            std::fs::remove_dir_all(home).unwrap();
            assert!(!spool.batches().is_empty());
        }));
        assert!(!is_whole_after(|_, home| std::fs::remove_dir_all(home).unwrap()));
    }

    /// Counts the errors that are logged about the manifest.
    struct AboutManifest(Arc<AtomicUsize>);

    impl tracing::Subscriber for AboutManifest {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut is_about = false;
            event.record(
                &mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                    is_about |= field.name() == "message" && format!("{value:?}").contains("manifest");
                },
            );
            if is_about && *event.metadata().level() == tracing::Level::ERROR {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_manifest_that_cannot_be_removed_is_logged_once() {
        let folder = Folder::new();
        let spool = folder.spool();
        spool.note(call(0));
        let manifest = folder.0.join(&spool.name).join(MANIFEST);
        std::fs::remove_file(&manifest).unwrap();
        // A folder is not removed as a file is.
        std::fs::create_dir(&manifest).unwrap();
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let logged = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(AboutManifest(Arc::clone(&logged)), || {
            for micros in 1..4 {
                let place = spool.own().place(Some(&folder.0), &spool.name).unwrap();
                spool.own().failed(Some(place), call(micros), true, &full);
            }
        });
        assert_eq!(logged.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn where_nothing_can_be_written_calls_are_remembered() {
        let folder = Folder::new();
        std::fs::create_dir_all(&folder.0).unwrap();
        let file = folder.0.join("file");
        std::fs::write(&file, "").unwrap();
        let blocked = FileSpool::new(Some(file), "blocked".to_owned());
        assert!(blocked.prepare().is_err());
        let nowhere = FileSpool::new(None, "nowhere".to_owned());
        nowhere.prepare().unwrap();
        for spool in [blocked, nowhere] {
            let calls = [call(1), call(2)];
            calls.iter().for_each(|call| spool.note(*call));
            let batches = spool.batches();
            assert_eq!(batches, spool.batches());
            assert_eq!(read_all(&spool), calls);
            let tally = spool.tally();
            assert_eq!((tally.noted, tally.remembered, tally.pending), (2, 2, 2));
            spool.remove(&batches[0]).unwrap();
            assert_eq!(spool.tally().pending, 0);
        }
    }

    #[test]
    fn threads_lose_nothing_of_each_other() {
        let folder = Folder::new();
        let spool = folder.spool();
        let mut read = 0;
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..2_000).for_each(|micros| spool.note(call(micros)))))
                .collect();
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                for batch in spool.batches() {
                    read += calls_of(&spool, &batch).len();
                    spool.remove(&batch).unwrap();
                }
            }
        });
        for batch in spool.batches() {
            read += calls_of(&spool, &batch).len();
        }
        assert_eq!(read, 8_000);
    }
}
