//! The stream of audit entries of servers that are killed.

use serde_json::{Value, json};
use tenantry_tests::{HttpSiem, Receipt};

use super::serving::{Serving, beside, row, until};
use super::*;

/// The numbers of the entries of a tenant in the order of their arrival.
fn sequences(taken: &[Value], tenant: &str) -> Vec<i64> {
    let of_tenant = taken
        .iter()
        .filter(|one| one["kind"] == "audit_event" && one["tenant_id"] == json!(tenant));
    of_tenant.map(|one| one["sequence"].as_i64().unwrap()).collect()
}

/// Servers are killed while a batch is under way, which the receiver takes later than the server lives. What the receiver has is the whole
/// log: each entry at least once, and for the first time in order.
#[test]
fn killed_servers_lose_no_audit_entry() {
    let folder = Folder::new("stream");
    let siem = HttpSiem::default();
    let url = siem.url("http");
    let stream = [
        ("TENANTRY__AUDIT__STREAM__KIND", "http"),
        ("TENANTRY__AUDIT__STREAM__URL", url.as_str()),
        ("TENANTRY__AUDIT__STREAM__FROM", "beginning"),
        ("TENANTRY__AUDIT__STREAM__BATCH_RECORDS", "2"),
        // A batch of a killed server is sent again 15 seconds later than this.
        ("TENANTRY__AUDIT__STREAM__TIMEOUT_MS", "5000"),
    ];
    // The demo streams too: a server that does not leaves what it chains until another one chains the next entry.
    let dev = Dev::start_with(&folder.0, &stream);
    let token = dev.login("acme");
    let mut config = beside(&folder.0);
    config.extend(stream.map(|(key, value)| (key, value.to_owned())));
    let tasks: Value = serde_json::from_str(&dev.get(&token, "/api/v1/tasks?limit=1")).unwrap();
    let path = format!("/api/v1/tasks/{}", tasks["data"][0]["id"].as_str().unwrap());
    let header = format!("Authorization: Bearer {token}\r\n");
    let rename = |serving: &Serving, title: &str| {
        let body = json!({"title": title}).to_string();
        let (status, answer) = request(&serving.address, ("PATCH", &path), &header, &body);
        assert_eq!(status, 200, "{answer}");
    };
    let late = Receipt::TakeLate(std::time::Duration::from_millis(700));
    for round in 0..3 {
        let asked = siem.heads().len();
        siem.then([late.clone(), late.clone(), late.clone()]);
        let serving = Serving::start(&config);
        for number in 0..6 {
            rename(&serving, &format!("Title {round}-{number}"));
        }
        until("a batch is under way", || siem.heads().len() >= asked + 3);
        serving.end("KILL");
    }
    siem.then([]);
    let serving = Serving::start(&config);
    // What the killed ones have not chained is chained with the tenant's next entry.
    rename(&serving, "The last one");
    let of_acme = "(SELECT id FROM tenants WHERE slug = 'acme')";
    let (tenant,): (String,) = row(&folder.0, &format!("SELECT {of_acme}::text"));
    let chained = format!(
        "SELECT (SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM audit_blocks WHERE tenant_id = {of_acme})::bigint, \
         (SELECT count(*) FROM audit_events WHERE tenant_id = {of_acme})::bigint"
    );
    let mut entries = 0;
    until("every entry is chained", || {
        let (chained, all): (i64, i64) = row(&folder.0, &chained);
        entries = all;
        chained == all
    });
    let mut arrived = Vec::new();
    until("the last entry has arrived", || {
        arrived = sequences(&siem.taken(), &tenant);
        arrived.contains(&entries)
    });
    // Each for the first time.
    let mut seen = std::collections::BTreeSet::new();
    let first: Vec<i64> = arrived.iter().copied().filter(|one| seen.insert(*one)).collect();
    let expected: Vec<i64> = (1..=entries).collect();
    assert!(first.starts_with(&expected), "{arrived:?}");
    serving.end("TERM");
    assert_eq!(dev.stop(), Some(0));
}
