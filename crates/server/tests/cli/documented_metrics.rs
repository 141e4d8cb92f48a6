//! The metrics that the documents name, compared with what a server answers.

use std::collections::BTreeSet;
use std::fs;

use tenantry_migration::{APP_ROLE, OWNER_ROLE, PLATFORM_ROLE};

use super::*;

/// The names of metrics in the documents: every word that begins with `tenantry_`, without those of crates, of database roles
/// and of objects of Stripe, whose names have a variable part.
fn documented() -> BTreeSet<String> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let crates = fs::read_dir(root.join("crates")).unwrap();
    let crates = crates.map(|entry| format!("tenantry_{}", entry.unwrap().file_name().to_str().unwrap()));
    let roles = [APP_ROLE, OWNER_ROLE, PLATFORM_ROLE].map(str::to_owned);
    let others: BTreeSet<String> = crates
        .chain(roles)
        .chain(["tenantry_migration", "tenantry_tests"].map(str::to_owned))
        .collect();
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let files = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let files = files.chain(["README.md", "ARCHITECTURE.md"].map(|name| root.join(name)));
    let texts: Vec<String> = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let words = texts.iter().flat_map(|text| text.split(|c| !is_part(c)));
    words
        .filter(|word| word.starts_with("tenantry_") && !word.ends_with('_'))
        .filter(|word| !others.contains(*word))
        .map(str::to_owned)
        .collect()
}

/// An alert on a metric that no server has never fires.
#[test]
fn every_documented_metric_is_served() {
    let named = documented();
    for one in ["tenantry_quota_leases", "tenantry_guard_findings"] {
        assert!(named.contains(one), "the documents are read: {named:?}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let folder = Folder::new("documented");
    let port = free.port().to_string();
    let mut dev = Dev::start_with(&folder.0, &[("TENANTRY__METRICS__PORT", port.as_str())]);
    dev.get(&dev.login("acme"), "/api/v1/tasks");
    let api = std::mem::replace(&mut dev.address, free.to_string());
    let (status, text) = dev.request("GET", "/metrics", "", "");
    assert_eq!(status, 200);
    dev.address = api;
    // Each metric is described, also one that has no sample yet.
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: BTreeSet<&str> = described.filter_map(|rest| rest.split(' ').next()).collect();
    let missing: Vec<&String> = named
        .iter()
        .filter(|name| !served.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}\n{served:?}");
    assert_eq!(dev.stop(), Some(0));
}
