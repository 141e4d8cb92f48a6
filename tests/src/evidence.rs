use std::path::PathBuf;

use serde_json::{Value, json};
use tenantry_domain::Clock;
use tenantry_system::SystemClock;

/// Writes down what a test counted: `target/test-evidence/<name>.json`, where `tenantry doctor --certificate` finds it.
///
/// # Panics
/// When it cannot be written.
pub fn record(name: &str, counts: &Value) {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from);
    let folder = target.join("test-evidence");
    std::fs::create_dir_all(&folder).unwrap();
    let at = Clock::now(&SystemClock::new()).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let evidence = json!({"at": at, "version": env!("CARGO_PKG_VERSION"), "counts": counts});
    std::fs::write(folder.join(format!("{name}.json")), format!("{evidence:#}\n")).unwrap();
}
