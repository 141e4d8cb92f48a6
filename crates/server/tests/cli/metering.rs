//! Calls are counted once, whoever is killed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::serving::{Serving, beside, row, until};
use super::*;

#[test]
fn what_was_answered_is_counted_once_although_servers_are_killed_and_the_database_crashes() {
    let folder = Folder::new("kill");
    let dev = Dev::start(&folder.0);
    let token = dev.login("acme");
    let spool = folder.0.join("spool");
    let mut config = beside(&folder.0);
    config.push((
        "TENANTRY__METERING__SPOOL_DIR",
        spool.to_str().unwrap().to_owned(),
    ));
    config.push(("TENANTRY__METERING__FLUSH_INTERVAL_MS", "100".to_owned()));
    let (mut answered, mut unknown, mut least) = (0, 0, 0);
    for round in 0..6 {
        let serving = Serving::start(&config);
        let of_round = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| load(&serving.address, &token, &of_round)))
                .collect();
            // Killed in the middle of the load, and in another moment of the flush each round: whenever that is, nothing may be
            // lost. It is counted in answers, so that a slow machine takes longer and does the same.
            least += 40 + 7 * round;
            answers(&of_round, 40 + 7 * round);
            if round % 3 == 1 {
                crash_postgres(&folder.0);
                least += 20;
                answers(&of_round, 20);
            }
            let pid = serving.child.id().to_string();
            Command::new("kill").args(["-s", "KILL", &pid]).status().unwrap();
            for client in clients {
                let of_client = client.join().unwrap();
                answered += of_client.0;
                unknown += of_client.1;
            }
        });
        serving.end("KILL");
    }
    // What the last one left behind is stored by the next one, which is asked nothing.
    let serving = Serving::start(&config);
    until("no call waits any more", || waiting(&spool) == 0);
    serving.end("TERM");
    let of_tenant = "tenant_id = (SELECT id FROM tenants WHERE slug = 'acme') AND meter = 'api_calls'";
    let sql = format!("SELECT coalesce(sum(quantity), 0)::bigint FROM usage_events WHERE {of_tenant}");
    let (counted,): (i64,) = row(&folder.0, &sql);
    let counted = counted.unsigned_abs();
    assert!(
        answered >= least && unknown <= 6 * 4 * 2,
        "{answered} answered of at least {least}, {unknown} not"
    );
    assert!(
        (answered..=answered + unknown).contains(&counted),
        "{answered} answered, {unknown} not, {counted} counted"
    );
    assert_eq!(dev.stop(), Some(0));
}

/// Sends requests until nobody listens any more: how many were answered with a success, and of how many nobody knows,
/// since their answer never came. Those that were answered with a failure of the server count for nothing.
fn load(address: &str, token: &str, of_all: &AtomicU64) -> (u64, u64) {
    let (mut answered, mut unknown) = (0, 0);
    while let Ok(mut stream) = TcpStream::connect(address) {
        let request = format!(
            "GET /api/v1/tasks?limit=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let mut answer = Vec::new();
        let _ = stream.write_all(request.as_bytes());
        // Of an answer that was broken off the beginning is enough.
        let _ = stream.read_to_end(&mut answer);
        match answer.get(..12) {
            Some(b"HTTP/1.1 200") => {
                answered += 1;
                of_all.fetch_add(1, Ordering::Relaxed);
            }
            Some(status) => assert!(status.starts_with(b"HTTP/1.1 5"), "{status:?}"),
            None => unknown += 1,
        }
    }
    (answered, unknown)
}

/// Waits until there are so many answers more.
fn answers(so_far: &AtomicU64, more: u64) {
    let enough = so_far.load(Ordering::Relaxed) + more;
    until("there are enough answers", || {
        so_far.load(Ordering::Relaxed) >= enough
    });
}

/// A folder that is deleted under a running server loses no call, and the server says that something was wrong.
#[test]
fn a_deleted_spool_folder_loses_no_call_and_is_made_anew() {
    let folder = Folder::new("deleted-spool");
    let dev = Dev::start(&folder.0);
    let token = dev.login("acme");
    let spool = folder.0.join("calls-of-test");
    let mut config = beside(&folder.0);
    config.push((
        "TENANTRY__METERING__SPOOL_DIR",
        spool.to_str().unwrap().to_owned(),
    ));
    config.push(("TENANTRY__METERING__FLUSH_INTERVAL_MS", "100".to_owned()));
    let serving = Serving::start(&config);
    let counted = || {
        let of_tenant = "tenant_id = (SELECT id FROM tenants WHERE slug = 'acme') AND meter = 'api_calls'";
        let sql = format!("SELECT coalesce(sum(quantity), 0)::bigint FROM usage_events WHERE {of_tenant}");
        row::<(i64,)>(&folder.0, &sql).0
    };
    let call = || Serving::get(&serving.address, &token, "/api/v1/tasks?limit=1");
    let readiness = || request(&serving.address, ("GET", "/health/readiness"), "", "").1;
    assert!(readiness().contains("\"spool\":\"ok\""), "{}", readiness());
    let mut answered = 0;
    for round in 0..3 {
        for _ in 0..20 {
            assert_eq!(call(), Some(200));
            answered += 1;
        }
        match round {
            0 => std::fs::remove_dir_all(&spool).unwrap(),
            1 => std::fs::read_dir(&spool).unwrap().for_each(|home| {
                let _ = std::fs::remove_file(home.unwrap().path().join("lock"));
            }),
            _ => {}
        }
        // It looks after its folder with each flush.
        until("the folder is made anew", || {
            let homes = std::fs::read_dir(&spool).into_iter().flatten();
            homes
                .into_iter()
                .any(|home| home.unwrap().path().join("lock").exists())
        });
    }
    until("every call is counted", || counted() == answered);
    assert!(readiness().contains("\"spool\":\"degraded\""), "{}", readiness());
    // What is answered after it outlasts the server again.
    for _ in 0..5 {
        assert_eq!(call(), Some(200));
        answered += 1;
    }
    serving.end("KILL");
    let serving = Serving::start(&config);
    until("every call is counted", || counted() == answered);
    serving.end("TERM");
    assert_eq!(dev.stop(), Some(0));
}

/// A server whose database is stuck where refusals are recorded stores the calls, ends, and logs what is left. Where calls are
/// stuck, which come first, it logs the refusals of the running hour as well.
#[test]
fn stop_with_a_stuck_table_stores_calls_and_counts_the_rest() {
    let folder = Folder::new("stuck");
    let dev = Dev::start(&folder.0);
    let token = dev.login("acme");
    let mut config = beside(&folder.0);
    let spool = folder.0.join("spool").to_str().unwrap().to_owned();
    for (key, value) in [
        ("TENANTRY__METERING__SPOOL_DIR", spool.as_str()),
        ("TENANTRY__METERING__FLUSH_INTERVAL_MS", "3600000"),
        ("TENANTRY__SERVER__DRAIN_SECONDS", "0"),
        ("TENANTRY__SERVER__SHUTDOWN_SECONDS", "1"),
    ] {
        config.push((key, value.to_owned()));
    }
    for (table, calls) in [("audit_events", "calls=0 "), ("usage_dirty", "calls=1 ")] {
        stop_with_a_stuck_table(&config, &folder.0, &token, table, calls);
    }
}

/// Stops a server with a call and three refusals while a table is locked; the log says that so many calls are left.
fn stop_with_a_stuck_table(config: &[(&str, String)], folder: &Path, token: &str, table: &str, calls: &str) {
    let (serving, log) = Serving::start_with_log(config);
    let status = Serving::get(&serving.address, token, "/api/v1/projects");
    assert_eq!(status, Some(200));
    // The first one is recorded, the others are counted.
    let of_another = format!("{token}\r\nX-Tenant-Slug: globex");
    for _ in 0..3 {
        let status = Serving::get(&serving.address, &of_another, "/api/v1/projects");
        assert_eq!(status, Some(403));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let held = runtime.block_on(async {
        use sqlx::Connection as _;
        let mut admin = sqlx::PgConnection::connect(&url(folder, "postgres"))
            .await
            .unwrap();
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock))
            .execute(&mut admin)
            .await
            .unwrap();
        admin
    });
    serving.signal("TERM");
    assert_eq!(serving.ended(), Some(0));
    drop(held);
    let log = log.join().unwrap();
    let left = log
        .lines()
        .find(|line| line.contains("not everything could be stored"));
    let left = left.unwrap_or_else(|| panic!("{log}"));
    assert!(
        left.contains(calls) && left.contains("refusals=1"),
        "{table}: {left}"
    );
}

/// A busy server that is stopped stores all its calls on connections that are still good.
#[test]
fn a_busy_server_stopped_fifty_times_stores_every_call() {
    let folder = Folder::new("stops");
    let dev = Dev::start(&folder.0);
    let token = dev.login("acme");
    let spool = folder.0.join("calls-of-test");
    let mut config = beside(&folder.0);
    for (key, value) in [
        ("TENANTRY__METERING__SPOOL_DIR", spool.to_str().unwrap()),
        // What is flushed is flushed at the end.
        ("TENANTRY__METERING__FLUSH_INTERVAL_MS", "600000"),
        ("TENANTRY__SERVER__WORKERS", "2"),
        ("TENANTRY__SERVER__DRAIN_SECONDS", "0"),
        ("TENANTRY__JOBS__POLL_MS", "50"),
    ] {
        config.push((key, value.to_owned()));
    }
    for round in 0..50 {
        let (serving, log) = Serving::start_with_log(&config);
        let of_round = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| load(&serving.address, &token, &of_round));
            }
            answers(&of_round, 4);
            serving.signal("INT");
        });
        assert_eq!(serving.ended(), Some(0), "round {round}");
        // The framework says this of a connection that arrives after its workers have stopped.
        let log = log.join().unwrap().replace("ERROR No workers", "");
        for wrong in ["could not be stored", "being shutdown", "ERROR"] {
            assert!(!log.contains(wrong), "round {round}: {log}");
        }
        assert_eq!(waiting(&spool), 0, "round {round}: {log}");
    }
    assert_eq!(dev.stop(), Some(0));
}

/// Kills a process of PostgreSQL, so that all of it recovers as after a crash.
fn crash_postgres(data: &Path) {
    let file = std::fs::read_to_string(data.join("postgres/pg/postmaster.pid")).unwrap();
    let postmaster = file.lines().next().unwrap().trim();
    let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    let first = children.split_whitespace().next().unwrap();
    Command::new("kill").args(["-s", "KILL", first]).status().unwrap();
}

/// How many files with calls are in a spool.
pub fn waiting(spool: &Path) -> usize {
    let homes = std::fs::read_dir(spool).unwrap().map(|home| home.unwrap().path());
    let files = homes.filter_map(|home| std::fs::read_dir(home).ok()).flatten();
    files
        .filter(|file| {
            file.as_ref()
                .is_ok_and(|file| file.path().extension().is_some_and(|it| it == "calls"))
        })
        .count()
}
