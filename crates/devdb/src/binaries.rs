use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::DevDbError;

/// Finds the folder of the PostgreSQL server programs.
///
/// `TENANTRY_PG_BIN` decides when it is set. Otherwise the newest version in the places where Debian,
/// Red Hat, SUSE, Alpine, Homebrew and Postgres.app install, then `/usr/local/pgsql`, then `PATH`.
///
/// # Errors
///
/// [`DevDbError::WrongBinaries`] when `TENANTRY_PG_BIN` names a folder without `initdb`, `pg_ctl` and
/// `postgres`; [`DevDbError::BinariesMissing`] when there is none anywhere.
pub fn find_binaries() -> Result<PathBuf, DevDbError> {
    if let Some(chosen) = std::env::var_os("TENANTRY_PG_BIN").filter(|value| !value.is_empty()) {
        let path = PathBuf::from(chosen);
        return if is_complete(&path) {
            Ok(path)
        } else {
            Err(DevDbError::WrongBinaries { path })
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    VERSIONED
        .iter()
        .flat_map(newest_first)
        .chain(FIXED.iter().map(PathBuf::from))
        .chain(std::env::split_paths(&path).filter(|dir| dir.is_absolute()))
        .find(|dir| is_complete(dir))
        .ok_or(DevDbError::BinariesMissing)
}

/// A parent folder, what precedes the version in a child's name, and where the programs are in the child.
type Versioned = (&'static str, &'static str, &'static str);

const VERSIONED: &[Versioned] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

const FIXED: &[&str] = &["/opt/homebrew/opt/postgresql/bin", "/usr/local/pgsql/bin"];

const NEEDED: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// A client package installs some of these names but not all, so one of them is no proof.
fn is_complete(dir: &Path) -> bool {
    NEEDED.iter().all(|program| dir.join(program).is_file())
}

fn newest_first(&(parent, prefix, below): &Versioned) -> Vec<PathBuf> {
    let children = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = children
        .filter_map(|child| Some((version(&child.file_name(), prefix)?, child.path().join(below))))
        .collect();
    found.sort_by(|left, right| right.0.cmp(&left.0));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// Compares by number, because as text 9.6 is newer than 17.
fn version(name: &OsStr, prefix: &str) -> Option<Vec<u32>> {
    let digits = name.to_str()?.strip_prefix(prefix)?;
    digits.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_not_text() {
        let seventeen = version(OsStr::new("17"), "").unwrap();
        assert!(seventeen > version(OsStr::new("9.6"), "").unwrap());
        assert_eq!(
            version(OsStr::new("postgresql@16"), "postgresql@"),
            Some(vec![16])
        );
        assert_eq!(version(OsStr::new("latest"), ""), None);
        assert_eq!(version(OsStr::new("pgsql-"), "pgsql-"), None);
    }

    #[test]
    fn a_folder_with_the_client_only_is_not_enough() {
        let dir = std::env::temp_dir().join(format!("tenantry-devdb-client-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("pg_ctl"), "").unwrap();
        assert!(!is_complete(&dir));
        for program in NEEDED {
            std::fs::write(dir.join(program), "").unwrap();
        }
        assert!(is_complete(&dir));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
