//! Calls are counted once, whoever is killed.

use super::serving::{Serving, beside, row};
use super::*;

#[test]
fn what_was_answered_is_counted_once_although_servers_are_killed_and_the_database_crashes() {
    let folder = Folder::new("kill");
    let dev = Dev::start(&folder.0);
    let token = dev.login("acme");
    let spool = folder.0.join("spool");
    let mut settings = beside(&folder.0);
    settings.push((
        "TENANTRY__METERING__SPOOL_DIR",
        spool.to_str().unwrap().to_owned(),
    ));
    settings.push(("TENANTRY__METERING__FLUSH_INTERVAL_MS", "100".to_owned()));
    let (mut answered, mut unknown) = (0, 0);
    for round in 0..6 {
        let serving = Serving::start(&settings);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| load(&serving.address, &token)))
                .collect();
            // Under load for a while, and killed in another moment of the flush each round: whenever that is, nothing may be lost.
            std::thread::sleep(std::time::Duration::from_millis(700 + 50 * round));
            if round % 3 == 1 {
                crash_postgres(&folder.0);
                std::thread::sleep(std::time::Duration::from_millis(1_000));
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
    let serving = Serving::start(&settings);
    let waited = std::time::Instant::now();
    while waiting(&spool) > 0 {
        assert!(waited.elapsed().as_secs() < 60, "calls are still waiting");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    serving.end("TERM");
    let of_tenant = "tenant_id = (SELECT id FROM tenants WHERE slug = 'acme') AND meter = 'api_calls'";
    let sql = format!("SELECT coalesce(sum(quantity), 0)::bigint FROM usage_events WHERE {of_tenant}");
    let (counted,): (i64,) = row(&folder.0, &sql);
    let counted = counted.unsigned_abs();
    assert!(
        answered > 500 && unknown <= 6 * 4 * 2,
        "{answered} answered, {unknown} not"
    );
    assert!(
        (answered..=answered + unknown).contains(&counted),
        "{answered} answered, {unknown} not, {counted} counted"
    );
    assert_eq!(dev.stop(), Some(0));
}

/// Sends requests until nobody listens any more: how many were answered with a success, and of how many nobody knows,
/// since their answer never came. Those that were answered with a failure of the server count for nothing.
fn load(address: &str, token: &str) -> (u64, u64) {
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
            Some(b"HTTP/1.1 200") => answered += 1,
            Some(status) => assert!(status.starts_with(b"HTTP/1.1 5"), "{status:?}"),
            None => unknown += 1,
        }
    }
    (answered, unknown)
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
