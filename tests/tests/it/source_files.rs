//! The source files of the repository, for tests that read them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Each Rust file below some folders, at any depth, with its text.
pub(crate) fn rust_files(folders: impl IntoIterator<Item = PathBuf>) -> Vec<(PathBuf, String)> {
    let (mut found, mut open) = (Vec::new(), Vec::from_iter(folders));
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// The folder of that name of each crate that has one.
pub(crate) fn of_each_crate(folder: &str) -> Vec<PathBuf> {
    let crates = fs::read_dir(Path::new(ROOT).join("crates")).unwrap();
    let folders = crates.map(|entry| entry.unwrap().path().join(folder));
    folders.filter(|path| path.is_dir()).collect()
}
