use serde_json::{Value, json};
use tenantry_domain::kernel::Clock;
use tenantry_system::SystemClock;

use crate::outside;

/// Writes down what a test counted: `target/test-evidence/<name>.json`, where `tenantry doctor --certificate` finds it.
///
/// # Panics
/// When it cannot be written.
pub fn record(name: &str, counts: &Value) {
    let folder = outside::target().join("test-evidence");
    std::fs::create_dir_all(&folder).unwrap();
    let at = Clock::now(&SystemClock::new()).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let evidence = json!({"at": at, "version": env!("CARGO_PKG_VERSION"), "counts": counts});
    std::fs::write(folder.join(format!("{name}.json")), format!("{evidence:#}\n")).unwrap();
}
