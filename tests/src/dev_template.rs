//! The data folder of a demo that was started once: the demos of further tests begin with a copy of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::Program;

/// What the name of a template begins with; the id of the process follows.
const NAME: &str = "tenantry-test-template-";

/// Fills a data folder in which no demo was started with the data of a fresh one. To make the cluster, migrate and seed takes
/// seconds, and a copy of the result a fraction of one. Where it cannot be copied the folder stays as it is, and the demo makes all
/// of it itself.
pub fn prepare<P: Program>(data: &Path) {
    if data.join("postgres").exists() {
        return;
    }
    let Some(template) = template::<P>() else { return };
    let from = template.join(".");
    // Owners of files too: PostgreSQL refuses a folder of another user.
    let copied = Command::new("cp").arg("-a").arg(from).arg(data).status();
    assert!(
        copied.unwrap().success(),
        "the template of a demo cannot be copied"
    );
}

/// The template of a program, made at the first call in this process.
fn template<P: Program>() -> Option<PathBuf> {
    static TEMPLATES: Mutex<BTreeMap<&str, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    let number = templates.len();
    templates
        .entry(P::PATH)
        .or_insert_with(|| make::<P>(number))
        .clone()
}

fn make<P: Program>(number: usize) -> Option<PathBuf> {
    remove_leftovers();
    let path = std::env::temp_dir().join(format!("{NAME}{}-{number}", std::process::id()));
    // Of a process that had the same id.
    let _ = std::fs::remove_dir_all(&path);
    let made = P::command(&["dev", "--check", "--data-dir", path.to_str()?])
        .env("TENANTRY__SERVER__PORT", "0")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let postgres = path.join("postgres");
    if postgres.join("moved-to").exists() {
        // The server's user cannot get there, so the cluster is elsewhere.
        return None;
    }
    // Each copy takes a port of its own.
    std::fs::remove_file(postgres.join("port")).unwrap();
    Some(path)
}

/// Removes the templates of processes that have ended. A process cannot remove its own: statics are not dropped.
fn remove_leftovers() {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| name.strip_prefix(NAME));
        let Some((process, _)) = of.and_then(|of| of.split_once('-')) else {
            continue;
        };
        let alive = Command::new("kill").args(["-0", process]).output();
        if alive.is_ok_and(|asked| !asked.status.success()) {
            // Another run may be faster.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
