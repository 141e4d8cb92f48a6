use std::path::{Path, PathBuf};

use crate::DevDbError;
use crate::account::Account;
use crate::files;

/// The data folder of one cluster and the names in it.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// The real place, without symbolic links.
    pub(crate) root: PathBuf,
    /// The user who runs the server there.
    pub(crate) account: Account,
    /// The folder did not exist before.
    pub(crate) created: bool,
}

impl Folder {
    /// Makes the folder where it was asked for, or in `/var/tmp` when the server's user cannot get there.
    pub(crate) fn open(requested: &Path) -> Result<Folder, DevDbError> {
        let asked = std::path::absolute(requested).map_err(DevDbError::file(requested))?;
        if let Some(parent) = asked.parent() {
            std::fs::create_dir_all(parent).map_err(DevDbError::file(parent))?;
        }
        let account = Account::choose(&asked.join("pg"))?;
        let created = files::make_dir(&asked, root_mode(account))?;
        let root = asked.canonicalize().map_err(DevDbError::file(&asked))?;
        refuse_shell_characters(&root)?;
        if account.other.is_none() || account.can_enter(&root)? {
            return Ok(Folder {
                root,
                account,
                created,
            });
        }
        let moved = Folder::open_elsewhere(&root, account)?;
        let note = format!("{}\n", moved.root.display());
        files::replace_file(&root.join("moved-to"), &note, |_| Ok(()))?;
        Ok(moved)
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.root.join("pg")
    }

    pub(crate) fn partial_cluster(&self) -> PathBuf {
        self.root.join("pg.partial")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    pub(crate) fn password(&self) -> PathBuf {
        self.root.join("superuser.password")
    }

    pub(crate) fn port(&self) -> PathBuf {
        self.root.join("port")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Everything that can lie in the folder, for its removal: nothing else in it is ours.
    pub(crate) fn contents(&self) -> Vec<PathBuf> {
        let names = ["superuser.partial", "port.partial"];
        let mut all: Vec<PathBuf> = names.iter().map(|name| self.root.join(name)).collect();
        all.extend([
            self.cluster(),
            self.partial_cluster(),
            self.log(),
            self.password(),
            self.port(),
        ]);
        all.extend([self.lock(), self.socket_dir()]);
        all
    }

    /// The directory of the Unix socket: in the folder, or in `/tmp` when the path would be too long for a
    /// socket address or would need quoting in the server's settings.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        let inside = self.root.join("run");
        if fits_a_socket(&inside) {
            return inside;
        }
        PathBuf::from(format!(
            "/tmp/tenantry-{}-{}",
            self.account.own_uid,
            digest(&inside)
        ))
    }

    /// Makes that directory and gives it to the server's user.
    pub(crate) fn make_socket_dir(&self) -> Result<PathBuf, DevDbError> {
        let dir = self.socket_dir();
        files::claim_dir(&dir, 0o700, &[self.account.own_uid, self.account.uid()])?;
        self.account.give(&dir)?;
        Ok(dir)
    }

    fn open_elsewhere(requested: &Path, account: Account) -> Result<Folder, DevDbError> {
        let name = format!("tenantry-{}-{}", account.own_uid, digest(requested));
        let root = PathBuf::from("/var/tmp").join(name);
        let account = Account::choose(&root.join("pg"))?;
        let created = files::claim_dir(&root, root_mode(account), &[account.own_uid])?;
        let root = root.canonicalize().map_err(DevDbError::file(&root))?;
        Ok(Folder {
            root,
            account,
            created,
        })
    }
}

/// The folder itself stays with this process's user, so that the server's user cannot plant links in it
/// for root to follow; it only has to be walked through.
fn root_mode(account: Account) -> u32 {
    if account.other.is_some() { 0o711 } else { 0o700 }
}

/// `pg_ctl` starts the server through a shell and puts paths between double quotes only.
fn refuse_shell_characters(path: &Path) -> Result<(), DevDbError> {
    let harmless = |text: &str| !text.contains(['"', '\'', '\\', '$', '`', '\n', '\r']);
    if path.to_str().is_some_and(harmless) {
        return Ok(());
    }
    Err(DevDbError::UnusablePath {
        path: path.to_owned(),
    })
}

/// A socket address holds 103 bytes on macOS (107 on Linux), of which PostgreSQL needs 15 for the name.
fn fits_a_socket(dir: &Path) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    dir.to_str()
        .is_some_and(|text| text.len() <= 88 && text.chars().all(plain))
}

/// FNV-1a, because a hash that names durable data must not change with the standard library.
fn digest(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_paths_get_a_short_socket_directory() {
        assert!(fits_a_socket(Path::new("/home/dev/tenantry/data/postgres/run")));
        assert!(!fits_a_socket(Path::new(&format!("/{}/run", "x".repeat(90)))));
        assert!(!fits_a_socket(Path::new("/home/dev/my clone/run")));
    }

    #[test]
    fn a_path_that_a_shell_would_read_is_refused() {
        assert!(refuse_shell_characters(Path::new("/home/dev/my clone")).is_ok());
        assert!(refuse_shell_characters(Path::new("/home/$(id)")).is_err());
        assert!(refuse_shell_characters(Path::new("/home/a\"b")).is_err());
    }

    #[test]
    fn the_digest_is_the_published_one() {
        assert_eq!(digest(Path::new("a")), "af63dc4c8601ec8c");
    }
}
