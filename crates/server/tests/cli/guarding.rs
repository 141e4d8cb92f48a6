//! The doctor as a command, and the guard of a running server.

use super::serving::{Serving, beside};
use super::*;

/// The body of an answer that anybody gets.
fn body(address: &str, path: &str) -> String {
    request(address, ("GET", path), "", "").1
}

/// Waits until an answer has a part in it.
fn wait_for(address: &str, path: &str, part: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        let answer = body(address, path);
        if answer.contains(part) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no {part} in {answer}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Has the guard check the database now.
fn check_again(serving: &Serving) {
    let pid = serving.child.id().to_string();
    let sent = Command::new("kill").args(["-s", "HUP", &pid]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn sighup_checks_the_database_again() {
    let folder = Folder::new("sighup");
    let dev = Dev::start(&folder.0);
    let serving = Serving::start(&beside(&folder.0));
    let address = serving.address.clone();
    let readiness = body(&address, "/health/readiness");
    assert!(readiness.contains("\"isolation\":\"ok\""), "{readiness}");
    assert!(body(&address, "/metrics").contains("tenantry_guard_findings 0"));

    execute(
        &folder.0,
        "GRANT SELECT ON operators TO tenantry_app; ALTER ROLE tenantry_platform BYPASSRLS",
    );
    check_again(&serving);
    wait_for(&address, "/health/readiness", "\"isolation\":\"degraded\"");
    // The grant, what the role is, and that it is something else than the installation made.
    wait_for(&address, "/metrics", "tenantry_guard_findings 3");

    execute(
        &folder.0,
        "REVOKE SELECT ON operators FROM tenantry_app; ALTER ROLE tenantry_platform NOBYPASSRLS",
    );
    check_again(&serving);
    wait_for(&address, "/health/readiness", "\"isolation\":\"ok\"");
    wait_for(&address, "/metrics", "tenantry_guard_findings 0");
    serving.end("TERM");
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn failed_guard_check_degrades_readiness() {
    let folder = Folder::new("unguarded");
    let dev = Dev::start(&folder.0);
    let serving = Serving::start(&beside(&folder.0));
    let address = serving.address.clone();
    let metrics = body(&address, "/metrics");
    assert!(
        metrics.contains("tenantry_guard_check_outcome{outcome=\"ok\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("tenantry_guard_check_age_seconds "), "{metrics}");

    // Connections that are open stay; the guard opens one for each check.
    execute(&folder.0, "ALTER ROLE tenantry_app CONNECTION LIMIT 0");
    check_again(&serving);
    wait_for(&address, "/health/readiness", "\"isolation\":\"degraded\"");
    wait_for(
        &address,
        "/metrics",
        "tenantry_guard_check_outcome{outcome=\"failed\"} 1",
    );

    execute(&folder.0, "ALTER ROLE tenantry_app CONNECTION LIMIT -1");
    check_again(&serving);
    wait_for(&address, "/health/readiness", "\"isolation\":\"ok\"");
    wait_for(
        &address,
        "/metrics",
        "tenantry_guard_check_outcome{outcome=\"ok\"} 1",
    );
    serving.end("TERM");
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn doctor_fails_with_every_failed_check() {
    let folder = Folder::new("verdict");
    let dev = Dev::start(&folder.0);
    for role in ["tenantry_app", "tenantry_platform", "tenantry_owner"] {
        let (healthy, report) = doctor(&folder.0, &["--role", role]);
        assert!(healthy, "{report}");
    }
    let recorded = folder.0.join("recorded");
    let recorded = recorded.to_str().unwrap();
    let (written, report) = doctor(&folder.0, &["--record", recorded]);
    assert!(written, "{report}");

    execute(&folder.0, "CREATE PUBLICATION elsewhere FOR TABLE tasks");
    let (healthy, report) = doctor(&folder.0, &[]);
    assert!(
        !healthy && report.contains("FAIL  PUB001") && report.contains("FAIL  CAT009"),
        "{report}"
    );
    execute(&folder.0, "DROP PUBLICATION elsewhere; CREATE SCHEMA reports");
    let (healthy, report) = doctor(&folder.0, &["--expect", recorded]);
    assert!(!healthy && report.contains("FAIL  CAT010"), "{report}");
    let (healthy, report) = doctor(&folder.0, &["--expect", recorded, "--allow", "schema reports"]);
    assert!(healthy, "{report}");
    assert_eq!(dev.stop(), Some(0));
}

tenantry_migration::migrator! {
    /// Those of another service over the same database.
    Bills {
        "m20270101_000001_bills" => tenantry_migration::TenantTable::new("bills")
            .column("number", "text NOT NULL")
            .unique("bills_number_key", &["number"]),
    }
}

#[test]
fn tables_of_another_service_do_not_degrade_readiness() {
    let folder = Folder::new("beside");
    let dev = Dev::start(&folder.0);
    let owner = url(&folder.0, "tenantry_owner");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(tenantry_migration::up_with::<Bills>(&owner, None))
        .unwrap();
    let (healthy, report) = doctor(&folder.0, &[]);
    assert!(healthy && report.contains("public.bills"), "{report}");
    let serving = Serving::start(&beside(&folder.0));
    let readiness = body(&serving.address, "/health/readiness");
    assert!(readiness.contains("\"isolation\":\"ok\""), "{readiness}");

    let catalogue = folder.0.join("bills.txt");
    let catalogue = catalogue.to_str().unwrap();
    let (written, report) = doctor(&folder.0, &["--record", catalogue, "--beyond-own"]);
    assert!(written, "{report}");
    let recorded = std::fs::read_to_string(catalogue).unwrap();
    assert!(recorded.lines().all(|line| line.contains("bills")), "{recorded}");
    let (healthy, report) = doctor(&folder.0, &["--catalogue", catalogue]);
    assert!(healthy && !report.contains("public.bills"), "{report}");
    let mut config = beside(&folder.0);
    config.push(("TENANTRY__GUARD__CATALOGUES", format!("[{catalogue:?}]")));
    let comparing = Serving::start(&config);

    execute(&folder.0, "ALTER TABLE bills ADD COLUMN further text");
    check_again(&serving);
    check_again(&comparing);
    wait_for(
        &comparing.address,
        "/health/readiness",
        "\"isolation\":\"degraded\"",
    );
    execute(&folder.0, "ALTER TABLE bills NO FORCE ROW LEVEL SECURITY");
    check_again(&serving);
    wait_for(
        &serving.address,
        "/health/readiness",
        "\"isolation\":\"degraded\"",
    );
    serving.end("TERM");
    comparing.end("TERM");
    assert_eq!(dev.stop(), Some(0));
}
