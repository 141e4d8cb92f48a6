//! Quotas hold with several servers, whoever is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::serving::{Serving, beside, row, until};
use super::*;

#[test]
fn four_servers_of_which_one_is_killed_use_up_a_quota_to_the_unit_and_not_beyond() {
    const LIMIT: i64 = 2_000;
    let folder = Folder::new("quotas");
    let dev = Dev::start_with(&folder.0, &[("TENANTRY__QUOTAS__ENFORCE_API_CALLS", "false")]);
    let mut config = beside(&folder.0);
    for (key, value) in [
        ("TENANTRY__SERVER__WORKERS", "1"),
        ("TENANTRY__SERVER__DRAIN_SECONDS", "0"),
        ("TENANTRY__QUOTAS__LEASE_SECONDS", "2"),
    ] {
        config.push((key, value.to_owned()));
    }
    let meter = format!("api_calls={LIMIT}");
    let agreed = output(
        &["plan", "agree", "acme", "--meter", &meter, "--reason", "a test"],
        &config,
    );
    let said = String::from_utf8(agreed.stdout.clone()).unwrap();
    assert!(
        said.contains(&format!("\"api_calls\":{LIMIT}")),
        "{said} {}",
        stderr(&agreed)
    );
    let unknown = output(
        &[
            "plan",
            "agree",
            "acme",
            "--meter",
            "nothing=1",
            "--reason",
            "a test",
        ],
        &config,
    );
    assert!(
        stderr(&unknown).contains("no plan knows 'nothing'"),
        "{}",
        stderr(&unknown)
    );
    let token = dev.login("acme");
    let mut servers: Vec<_> = (0..4).map(|_| Serving::start(&config)).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();

    // Two callers of each, who go on until nothing is left that could be granted; those of the server that is killed until they
    // notice that.
    let (over, never) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let killed = addresses.last().cloned();
    let call = |address: String, token: String, over: Arc<AtomicBool>| {
        let (mut answered, mut lost) = (0_i64, 0_i64);
        while !over.load(Ordering::SeqCst) {
            match Serving::get(&address, &token, "/api/v1/projects?limit=1") {
                Some(200) => answered += 1,
                // A lease may come back from another server.
                Some(429) => std::thread::sleep(std::time::Duration::from_millis(20)),
                Some(status) => panic!("{status}"),
                // It was killed; whether the last request was counted nobody knows.
                None => {
                    lost += 1;
                    break;
                }
            }
        }
        (answered, lost)
    };
    let callers: Vec<_> = addresses
        .iter()
        .chain(&addresses)
        .map(|address| {
            let ends = if killed.as_ref() == Some(address) {
                &never
            } else {
                &over
            };
            let (address, token, ends) = (address.clone(), token.clone(), Arc::clone(ends));
            std::thread::spawn(move || call(address, token, ends))
        })
        .collect();
    let used = "SELECT coalesce(sum(used), 0)::bigint, coalesce(sum(leased), 0)::bigint, \
                coalesce(sum(reserved), 0)::bigint FROM quota_counters WHERE meter = 'api_calls'";
    until("a quarter is used", || {
        row::<(i64, i64, i64)>(&folder.0, used).0 >= LIMIT / 4
    });
    servers.pop().unwrap().child.kill().unwrap();
    until("all of the quota is used, and no server holds any", || {
        row::<(i64, i64, i64)>(&folder.0, used) == (LIMIT, 0, 0)
    });
    over.store(true, Ordering::SeqCst);
    let (answered, lost) = callers
        .into_iter()
        .map(|caller| caller.join().unwrap())
        .fold((0, 0), |(a, l), (answered, lost)| (a + answered, l + lost));
    assert_eq!(lost, 2, "the killed server's callers notice");
    let (counted, leased, reserved): (i64, i64, i64) = row(&folder.0, used);
    assert_eq!(
        (counted, leased, reserved),
        (LIMIT, 0, 0),
        "all of it is used, and nobody holds any"
    );
    // What it held when it died counts as used: a part of the quota at the most, and a lease never is more than a quarter.
    assert!(
        answered <= LIMIT && answered >= LIMIT - LIMIT / 4 - lost,
        "{answered} of {LIMIT}"
    );
    eprintln!(
        "{answered} of {LIMIT} answered, {} died with the killed server",
        LIMIT - answered
    );
    // Whoever is refused still sees why, and a server that stops leaves nothing behind.
    assert_eq!(
        Serving::get(&addresses[0], &token, "/api/v1/entitlements/api_calls"),
        Some(200)
    );
    for server in servers {
        server.signal("TERM");
        assert_eq!(server.ended(), Some(0));
    }
    assert_eq!(row::<(i64, i64, i64)>(&folder.0, used).0, LIMIT);
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn what_a_killed_server_held_is_shown_and_given_back_on_the_command_line() {
    let folder = Folder::new("reconcile");
    let dev = Dev::start_with(&folder.0, &[("TENANTRY__QUOTAS__ENFORCE_API_CALLS", "false")]);
    let mut config = beside(&folder.0);
    config.push(("TENANTRY__QUOTAS__LEASE_SECONDS", "60".to_owned()));
    let agreed = output(
        &[
            "plan",
            "agree",
            "acme",
            "--meter",
            "api_calls=100000",
            "--reason",
            "a test",
        ],
        &config,
    );
    assert!(agreed.status.success(), "{}", stderr(&agreed));
    let token = dev.login("acme");
    let serving = Serving::start(&config);
    let leased = "SELECT coalesce(sum(leased), 0)::bigint FROM quota_counters WHERE meter = 'api_calls'";
    while row::<(i64,)>(&folder.0, leased).0 == 0 {
        assert_eq!(
            Serving::get(&serving.address, &token, "/api/v1/projects"),
            Some(200)
        );
    }
    let reconcile = |more: &[&str]| {
        let arguments = [&["quota", "reconcile"], more].concat();
        let told = output(&arguments, &config);
        assert!(told.status.success(), "{}", stderr(&told));
        String::from_utf8(told.stdout).unwrap()
    };
    let told = reconcile(&["--tenant", "acme"]);
    assert!(
        told.starts_with("acme api_calls 20") && told.ends_with(" lent\n"),
        "{told}"
    );
    serving.end("KILL");
    let age = "WITH aged AS (UPDATE quota_leases SET expires_at = now() - interval '2 hours' RETURNING amount) \
               SELECT sum(amount)::bigint FROM aged";
    let (held,) = row::<(i64,)>(&folder.0, age);
    // Of all tenants the one that differs is shown.
    let told = reconcile(&[]);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains(&format!(" lent 0 lost {held} lost could give back ")),
        "{told}"
    );
    let back: i64 = told.split_whitespace().last().unwrap().parse().unwrap();
    assert!((1..=held).contains(&back), "{told}");
    let used = "SELECT used + leased FROM quota_counters WHERE meter = 'api_calls' AND leased = 0";
    let told = reconcile(&["--tenant", "acme", "--repair"]);
    assert!(told.ends_with(&format!(" gave back {back}\n")), "{told}");
    let (after,) = row::<(i64,)>(&folder.0, used);
    // Once, and never for another tenant.
    let told = reconcile(&["--tenant", "acme", "--repair"]);
    assert!(!told.contains("back") && told.contains(" lost 0 "), "{told}");
    assert_eq!(row::<(i64,)>(&folder.0, used).0, after);
    assert_eq!(reconcile(&["--tenant", "globex"]), "");
    let unknown = output(&["quota", "reconcile", "--tenant", "nobody"], &config);
    assert!(stderr(&unknown).contains("nobody"), "{}", stderr(&unknown));
    assert_eq!(dev.stop(), Some(0));
}

/// What a killed server held and did not use comes back once its calls are in the ledger: the next one over its folder stores
/// them. So a tenant gets what it has bought, although eight servers die.
#[test]
fn eight_killed_servers_use_up_no_unit_that_nobody_used() {
    const LIMIT: i64 = 400;
    let folder = Folder::new("killed-eight");
    let dev = Dev::start_with(&folder.0, &[("TENANTRY__QUOTAS__ENFORCE_API_CALLS", "false")]);
    let spool = folder.0.join("calls-of-test");
    let mut config = beside(&folder.0);
    for (key, value) in [
        ("TENANTRY__METERING__SPOOL_DIR", spool.to_str().unwrap()),
        ("TENANTRY__METERING__FLUSH_INTERVAL_MS", "100"),
        // Nothing lapses while the test runs: what comes back comes by the calls.
        ("TENANTRY__QUOTAS__LEASE_SECONDS", "300"),
        ("TENANTRY__SERVER__WORKERS", "1"),
    ] {
        config.push((key, value.to_owned()));
    }
    let meter = format!("api_calls={LIMIT}");
    let agreed = output(
        &["plan", "agree", "acme", "--meter", &meter, "--reason", "a test"],
        &config,
    );
    assert!(agreed.status.success(), "{}", stderr(&agreed));
    let token = dev.login("acme");
    let leases = "SELECT count(*) FROM quota_leases";
    let (mut answered, mut held) = (0, 0);
    for _ in 0..8 {
        let serving = Serving::start(&config);
        until("the leases of the dead one are settled", || {
            row::<(i64,)>(&folder.0, leases).0 == 0
        });
        for _ in 0..25 {
            assert_eq!(
                Serving::get(&serving.address, &token, "/api/v1/projects?limit=1"),
                Some(200)
            );
            answered += 1;
        }
        serving.end("KILL");
        let leased = "SELECT coalesce(sum(leased), 0)::bigint FROM quota_counters";
        held += row::<(i64,)>(&folder.0, leased).0;
    }
    assert!(held > 0, "they held something when they died");
    let serving = Serving::start(&config);
    until("the leases of the dead one are settled", || {
        row::<(i64,)>(&folder.0, leases).0 == 0
    });
    let told = output(&["quota", "reconcile", "--tenant", "acme"], &config);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.contains(&format!(" counted {answered} ledger {answered} ")),
        "{told}"
    );
    while Serving::get(&serving.address, &token, "/api/v1/projects?limit=1") == Some(200) {
        answered += 1;
    }
    assert_eq!(answered, LIMIT);
    serving.end("TERM");
    let corrected = output(
        &[
            "quota",
            "correct",
            "acme",
            "--meter",
            "api_calls",
            "--used",
            "10",
            "--reason",
            "a gift",
        ],
        &config,
    );
    let told = String::from_utf8(corrected.stdout.clone()).unwrap();
    assert!(
        told.ends_with(&format!(" used {LIMIT} now 10\n")),
        "{told} {}",
        stderr(&corrected)
    );
    for wrong in [
        ["--used", "10", "--reason", ""],
        ["--used", "x", "--reason", "why"],
    ] {
        let refused = output(
            &[
                &["quota", "correct", "acme", "--meter", "api_calls"][..],
                &wrong[..],
            ]
            .concat(),
            &config,
        );
        assert!(!refused.status.success());
    }
    assert_eq!(dev.stop(), Some(0));
}
