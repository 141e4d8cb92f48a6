use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns Cargo's target folder, where `scripts/ensure-*` install what tests need.
pub fn target() -> PathBuf {
    let default = || root().join("target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

/// Returns the folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns a path below the target folder that a script of `scripts/` has installed, or skips the calling test.
///
/// `SKIPPED_TESTS` names the file that lists skipped tests; `scripts/test` prints it at the end of a run. A test without
/// its programs never passes silently: where there is no list, and in continuous integration (`CI`), it fails.
///
/// # Panics
/// When the path is missing and the test cannot be listed as skipped.
pub fn installed(path: &str, script: &str) -> Option<PathBuf> {
    let path = target().join(path);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("{} is missing: run scripts/{script}", path.display()));
    None
}

/// Returns a command for a program of the machine that `scripts/ensure` installs, or skips the calling test as [`installed`] does.
///
/// # Panics
/// When the program is missing and the test cannot be listed as skipped.
pub fn program(name: &str) -> Option<Command> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if found {
        return Some(Command::new(name));
    }
    skip(&format!("{name} is missing: run scripts/ensure {name}"));
    None
}

/// Returns a command for a program beside PostgreSQL's server programs, such as `pg_dump`, or skips the calling test as [`installed`] does.
///
/// # Panics
/// When there are no server programs, or when the program is missing and the test cannot be listed as skipped.
pub fn postgres_program(name: &str) -> Option<Command> {
    let path = tenantry_test_postgres::find_binaries().unwrap().join(name);
    if path.is_file() {
        return Some(Command::new(path));
    }
    skip(&format!(
        "{} is missing: install PostgreSQL's client programs",
        path.display()
    ));
    None
}

fn skip(reason: &str) {
    let list = list_of_skipped(std::env::var_os("SKIPPED_TESTS"), std::env::var_os("CI"));
    let Some(list) = list else { panic!("{reason}") };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let mut list = OpenOptions::new().create(true).append(true).open(list).unwrap();
    writeln!(list, "{test}: {reason}").unwrap();
}

/// The file that lists skipped tests; none where a test that cannot run has to fail.
fn list_of_skipped(list: Option<OsString>, ci: Option<OsString>) -> Option<OsString> {
    list.filter(|_| ci.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_skipped_in_continuous_integration() {
        let list = || Some(OsString::from("/tmp/list"));
        assert_eq!(list_of_skipped(list(), None), list());
        assert_eq!(list_of_skipped(list(), Some("true".into())), None);
        assert_eq!(list_of_skipped(None, None), None);
        let script = |path| std::fs::read_to_string(root().join(path)).unwrap();
        assert!(script(".ci/run").lines().any(|line| line == "export CI=true"));
        assert!(script("scripts/test").contains("tests were SKIPPED"));
    }
}
