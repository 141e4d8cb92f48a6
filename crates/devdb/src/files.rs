//! Small safe steps with files.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::DevDbError;

const LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what another process does, which tells nobody when it is done.
pub(crate) const PAUSE: Duration = Duration::from_millis(25);

/// Makes one folder with exactly this mode. Says whether it was made; an existing one is left as it is.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<bool, DevDbError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // The mode above went through the umask, which may have taken something away.
            std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(DevDbError::file(path))?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(DevDbError::file(path)(error)),
    }
}

/// Makes a folder in a place that everybody can write to, or takes one that only `owners` can have made.
/// Whoever else made it could read our data, or lead us elsewhere with a symbolic link.
pub(crate) fn claim_dir(path: &Path, mode: u32, owners: &[u32]) -> Result<bool, DevDbError> {
    if make_dir(path, mode)? {
        return Ok(true);
    }
    let found = std::fs::symlink_metadata(path).map_err(DevDbError::file(path))?;
    if found.is_dir() && owners.contains(&found.uid()) && found.mode() & 0o022 == 0 {
        return Ok(false);
    }
    Err(DevDbError::FolderNotOurs {
        path: path.to_owned(),
    })
}

/// Makes an empty file that only its owner can read. Says whether it was made.
pub(crate) fn make_private_file(path: &Path) -> Result<Option<File>, DevDbError> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(DevDbError::file(path)(error)),
    }
}

/// Replaces a file in one step: a reader sees the former or the new content, never a part.
pub(crate) fn replace_file(
    path: &Path,
    content: &str,
    prepare: impl FnOnce(&Path) -> Result<(), DevDbError>,
) -> Result<(), DevDbError> {
    let partial = path.with_extension("partial");
    remove_if_there(&partial)?;
    let file = make_private_file(&partial)?;
    let mut file = file.ok_or_else(|| DevDbError::FolderNotOurs {
        path: partial.clone(),
    })?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(DevDbError::file(&partial))?;
    prepare(&partial)?;
    std::fs::rename(&partial, path).map_err(DevDbError::file(path))
}

/// The trimmed text of a file; nothing when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, DevDbError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DevDbError::file(path)(error)),
    }
}

/// Removes a file; it is fine when there is none.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), DevDbError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(DevDbError::file(path)(error)),
        _ => Ok(()),
    }
}

/// Removes the files (not the folders) in a folder.
pub(crate) fn empty_dir(path: &Path) -> Result<(), DevDbError> {
    for entry in std::fs::read_dir(path).map_err(DevDbError::file(path))? {
        let entry = entry.map_err(DevDbError::file(path))?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Waits for the exclusive lock on a file, which is released when the returned handle is dropped or when
/// this process ends in whichever way.
pub(crate) fn lock(path: &Path) -> Result<File, DevDbError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    while Instant::now() < deadline {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        let file = file.map_err(DevDbError::file(path))?;
        match file.try_lock() {
            // Whoever held the lock may have removed the folder; then this is a lock on nothing.
            Ok(()) if is_same_file(&file, path) => return Ok(file),
            Ok(()) | Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(DevDbError::file(path)(error)),
        }
    }
    Err(DevDbError::Busy {
        path: path.parent().unwrap_or(path).to_owned(),
    })
}

/// The last five lines of a text on one line.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// What was written to a file after its first `offset` bytes; nothing when it cannot be read.
pub(crate) fn text_from(path: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)
    });
    read.map(|_| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Random bytes from the operating system as 48 hexadecimal digits.
pub(crate) fn random_hex() -> Result<String, DevDbError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 24];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(DevDbError::file(source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("tenantry-devdb-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_link_in_a_shared_place_is_not_followed() {
        let (link, target) = (scratch("link"), scratch("target"));
        make_dir(&target, 0o700).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let owner = std::fs::metadata(&target).unwrap().uid();
        let claimed = claim_dir(&link, 0o700, &[owner]);
        assert!(
            matches!(claimed, Err(DevDbError::FolderNotOurs { .. })),
            "{claimed:?}"
        );
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_dir(&target).unwrap();
    }

    #[test]
    fn a_strangers_folder_is_refused_and_our_own_taken() {
        let dir = scratch("claim");
        let own = || std::fs::metadata(&dir).unwrap().uid();
        assert!(claim_dir(&dir, 0o711, &[]).unwrap());
        assert!(!claim_dir(&dir, 0o711, &[own()]).unwrap());
        let stranger = claim_dir(&dir, 0o711, &[own() + 1]);
        assert!(
            matches!(stranger, Err(DevDbError::FolderNotOurs { .. })),
            "{stranger:?}"
        );
        std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        let open = claim_dir(&dir, 0o711, &[own()]);
        assert!(matches!(open, Err(DevDbError::FolderNotOurs { .. })), "{open:?}");
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_tail_is_five_lines_on_one() {
        assert_eq!(tail("1\n2\n\n3\n4\n5\n6\n"), "2 | 3 | 4 | 5 | 6");
        assert_eq!(tail(""), "");
    }

    #[test]
    fn passwords_differ() {
        let (one, other) = (random_hex().unwrap(), random_hex().unwrap());
        assert_eq!(one.len(), 48);
        assert_ne!(one, other);
    }
}
