//! Streaming of audit entries to receivers over the wire: HTTP with NDJSON, and syslog over TLS.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Duration as Span;
use futures_util::future::join;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tenantry::{AuditStream, AuditStreamKind};
use tenantry_domain::audit::StreamFrom;
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::OperatorRole;
use tenantry_tenancy::admin::operator_stream;
use tenantry_tenancy::audit::{chain, stream};
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::tenant::audit_upkeep::KeepAudit;
use tenantry_tenancy::{Cx, Tenancy};
use tenantry_tests::{
    Authority, HttpSiem, Options, PASSWORD, Receipt, Rejection, SyslogEnd, SyslogSiem, TenantWorld, World,
};

use crate::audit::{chain_all, chain_in, system};

const BECAUSE: SystemScope = SystemScope::because("a test of the stream");

fn over_http(siem: &HttpSiem) -> AuditStream {
    AuditStream {
        kind: AuditStreamKind::Http,
        url: siem.url("http"),
        from: StreamFrom::Beginning,
        timeout_ms: 2_000,
        ..AuditStream::default()
    }
}

fn options(audit_stream: AuditStream) -> Options {
    Options {
        audit_stream,
        ..Options::default()
    }
}

/// A world that streams to a receiver from the beginning.
async fn streaming() -> (World, HttpSiem) {
    let siem = HttpSiem::default();
    let world = World::with(options(over_http(&siem))).await;
    (world, siem)
}

async fn create(world: &World, tenant: &TenantWorld, name: &str) {
    let body = json!({"name": name});
    let created = world.post(&tenant.admin, "/api/v1/projects", &body).await;
    created.expect(201);
}

async fn chain_both(world: &World) {
    for tenant in [&world.acme, &world.globex] {
        chain_all(world, tenant).await;
    }
}

/// Sends until there is nothing more to send, or the receiver has failed.
async fn drain(app: &Arc<Tenancy>) {
    while stream::stream_due(app).await | operator_stream::stream_due(app).await {}
}

/// Waits until something holds.
async fn until(holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_paused(world: &World) -> bool {
    world.app.audit_stream().is_paused(world.app.ports.clock.now())
}

/// The numbers of a tenant's entries in the order of their arrival.
fn sequences(taken: &[Value], tenant: &TenantWorld) -> Vec<i64> {
    let of_tenant = taken
        .iter()
        .filter(|one| one["kind"] == "audit_event" && one["tenant_id"] == json!(tenant.id));
    of_tenant.map(|one| one["sequence"].as_i64().unwrap()).collect()
}

/// What has arrived of the logs of tenants.
fn of_tenants(siem: &HttpSiem) -> Vec<Value> {
    let taken = siem.taken().into_iter();
    taken.filter(|one| one["kind"] != "operator_event").collect()
}

/// The last number of a tenant's chain.
async fn end(world: &World, tenant: &TenantWorld) -> i64 {
    let cx = system(world, tenant).await;
    let tail = cx
        .read(async |work| work.audit_chain().tail().await)
        .await
        .unwrap();
    tail.sequence
}

async fn assert_whole(world: &World, siem: &HttpSiem) {
    for tenant in [&world.acme, &world.globex] {
        let expected: Vec<i64> = (1..=end(world, tenant).await).collect();
        assert_eq!(sequences(&siem.taken(), tenant), expected, "{}", tenant.slug);
    }
}

#[actix_web::test]
async fn receiver_gets_every_entry_once_in_order() {
    let (world, siem) = streaming().await;
    create(&world, &world.acme, "Apollo").await;
    create(&world, &world.globex, "Gemini").await;
    chain_both(&world).await;
    drain(&world.app).await;
    assert_whole(&world, &siem).await;
    let page = world
        .get(
            &world.acme.admin,
            "/api/v1/audit-events?action=project.created&limit=1",
        )
        .await;
    let listed = page.expect(200).json()["data"][0].clone();
    let taken = of_tenants(&siem);
    let sent = taken.iter().find(|one| one["entry_id"] == listed["id"]).unwrap();
    for member in [
        "sequence",
        "hash",
        "action",
        "entity",
        "entity_id",
        "after",
        "before",
        "address",
        "user_agent",
        "request_id",
        "outcome",
        "risk",
        "at",
    ] {
        assert_eq!(sent[member], listed[member], "{member}");
    }
    assert_eq!(sent["actor"]["id"], listed["actor"]["id"]);
    let hash = listed["hash"].as_str().unwrap();
    let id = format!("{}:{}:{}", world.acme.id, listed["sequence"], &hash[..16]);
    assert_eq!(sent["id"], json!(id));
    let ids: BTreeSet<_> = taken.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), taken.len());
    // What was acknowledged is not sent again, and a signed head follows its entry.
    for tenant in [&world.acme, &world.globex] {
        let head = chain::sign_head(&system(&world, tenant).await)
            .await
            .unwrap()
            .unwrap();
        drain(&world.app).await;
        let last = of_tenants(&siem).pop().unwrap();
        assert_eq!(
            (&last["kind"], &last["sequence"]),
            (&json!("audit_head"), &json!(head.sequence))
        );
        assert_eq!(last["at_micros"], json!(head.created_at.timestamp_micros()));
    }
    assert_eq!(of_tenants(&siem).len(), taken.len() + 2);
    let state = world.app.audit_stream();
    assert_eq!((state.waiting().tenants, state.sent()["audit_head"]), (0, 2));
}

#[actix_web::test]
async fn log_of_operators_is_streamed() {
    let (world, siem) = streaming().await;
    let token = world
        .operator_as("olga@platform.example", OperatorRole::Owner)
        .await;
    let list = world.client.get("/api/v1/admin/audit-events").bearer(&token);
    list.await.expect(200);
    drain(&world.app).await;
    // With entries of before, whose transactions may still be open in the server.
    let recorded = world.operator_events().await.len();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    let of_operators = || {
        let taken = siem.taken().into_iter();
        let own = taken.filter(|one| one["kind"] == "operator_event");
        own.map(|one| (one["id"].as_str().unwrap().to_owned(), one))
            .collect::<BTreeMap<_, _>>()
    };
    while of_operators().len() < recorded {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} of {recorded}",
            of_operators().len()
        );
        drain(&world.app).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = of_operators();
    let listed = found
        .values()
        .find(|one| one["action"] == "audit.listed")
        .unwrap();
    assert_eq!(listed["actor"]["kind"], "operator");
    let before = siem.taken().len();
    drain(&world.app).await;
    assert_eq!(siem.taken().len(), before, "sent once");
    // A record that is rolled back was never there.
    let mut platform = world.database.platform().await;
    let mut tx = platform.begin().await.unwrap();
    let insert = "INSERT INTO operator_events (id, at, action, details, request_id) \
                  VALUES (gen_random_uuid(), now(), 'undone', '{}', 'r')";
    sqlx::query(insert).execute(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    drain(&world.app).await;
    assert_eq!(siem.taken().len(), before);
}

/// A receiver that fails, closes the connection or asks to wait: nothing is lost, and requests go on.
#[actix_web::test]
async fn failing_receiver_loses_nothing() {
    let (world, siem) = streaming().await;
    chain_both(&world).await;
    let rejections = [
        Rejection::Status(500, ""),
        Rejection::Close,
        Rejection::Status(302, "Location: /elsewhere\r\n"),
        Rejection::Status(401, ""),
        Rejection::Status(429, "Retry-After: 300\r\n"),
    ];
    for (number, rejection) in rejections.into_iter().enumerate() {
        siem.then([Receipt::Reject(Vec::new(), rejection)]);
        drain(&world.app).await;
        let asked = siem.heads().len();
        drain(&world.app).await;
        assert_eq!(
            siem.heads().len(),
            asked,
            "nothing is sent in a pause: {rejection:?}"
        );
        assert!(siem.taken().is_empty());
        assert!(world.app.audit_stream().waiting().since.is_some());
        create(&world, &world.acme, &format!("Project {number}")).await;
        let waited = if matches!(rejection, Rejection::Status(429, _)) {
            assert!(is_paused(&world));
            world.clock.advance(Span::seconds(200));
            assert!(is_paused(&world));
            Span::seconds(101)
        } else {
            Span::seconds(61)
        };
        world.clock.advance(waited);
    }
    siem.then([]);
    chain_both(&world).await;
    drain(&world.app).await;
    // The first log that is acknowledged puts the blame on the others, which are tried again after some seconds.
    world.clock.advance(Span::seconds(6));
    drain(&world.app).await;
    assert_whole(&world, &siem).await;
    let failed = world.app.audit_stream().failed();
    assert!(
        failed["unacknowledged"] >= 8 && failed["unavailable"] >= 1,
        "{failed:?}"
    );
}

/// The receiver takes a batch, and is not heard in time: the batch is sent again, with the same ids.
#[actix_web::test]
async fn late_acknowledgment_sends_the_same_ids_again() {
    let siem = HttpSiem::default();
    let stream = AuditStream {
        timeout_ms: 300,
        ..over_http(&siem)
    };
    let world = World::with(options(stream)).await;
    chain_all(&world, &world.acme).await;
    siem.then([Receipt::TakeLate(Duration::from_millis(700))]);
    stream::stream_due(&world.app).await;
    assert_eq!(world.app.audit_stream().failed()["unacknowledged"], 1);
    until(|| !siem.taken().is_empty()).await;
    let first = siem.taken();
    world.clock.advance(Span::seconds(61));
    // In smaller batches: the first one may have been too large.
    while stream::stream_due(&world.app).await {}
    let taken = siem.taken();
    assert_eq!(taken[first.len()..], first[..], "the same records");
    let sent = world
        .sql("SELECT FROM audit_streams WHERE lease_id IS NOT NULL OR waiting_since IS NOT NULL")
        .await;
    assert_eq!(sent, 0);
}

/// A tenant whose entries the receiver refuses keeps only itself waiting, and a tenant with many entries takes turns with the others.
#[actix_web::test]
async fn one_tenant_never_keeps_another_waiting() {
    let siem = HttpSiem::default();
    let stream = AuditStream {
        batch_records: 3,
        ..over_http(&siem)
    };
    let world = World::with(options(stream)).await;
    for number in 0..10 {
        create(&world, &world.acme, &format!("Flood {number}")).await;
    }
    chain_both(&world).await;
    let refused = vec![world.acme.id.to_string()];
    siem.then([Receipt::Reject(refused, Rejection::Status(400, ""))]);
    drain(&world.app).await;
    let globex: Vec<i64> = (1..=end(&world, &world.globex).await).collect();
    assert_eq!(sequences(&siem.taken(), &world.globex), globex);
    assert!(sequences(&siem.taken(), &world.acme).is_empty());
    assert!(!is_paused(&world));
    siem.then([]);
    world.clock.advance(Span::seconds(6));
    create(&world, &world.globex, "Late").await;
    chain_both(&world).await;
    let before = siem.taken().len();
    assert!(stream::stream_due(&world.app).await);
    // One round: a batch of each, of one record where larger ones were refused.
    let round = siem.taken().split_off(before);
    assert_eq!(sequences(&round, &world.acme), [1]);
    assert!(!sequences(&round, &world.globex).is_empty());
    drain(&world.app).await;
    assert_whole(&world, &siem).await;
}

#[actix_web::test]
async fn batch_that_is_too_large_for_the_receiver_is_halved() {
    let (world, siem) = streaming().await;
    chain_all(&world, &world.acme).await;
    siem.then([Receipt::Answer(413, ""), Receipt::Answer(413, "")]);
    for _ in 0..20 {
        drain(&world.app).await;
        stream::stream_due(&world.app).await;
    }
    let expected: Vec<i64> = (1..=end(&world, &world.acme).await).collect();
    assert_eq!(sequences(&siem.taken(), &world.acme), expected);
    assert_eq!(world.app.audit_stream().failed()["too_large"], 2);
}

/// Two servers over one database: no batch is sent by both, while the receiver takes its time.
#[actix_web::test]
async fn two_servers_never_send_a_batch_twice() {
    let siem = HttpSiem::default();
    let options = options(AuditStream {
        batch_records: 2,
        ..over_http(&siem)
    });
    let world = World::with(options.clone()).await;
    let other = world.instance(&options).app;
    chain_both(&world).await;
    siem.then((0..6).map(|_| Receipt::TakeLate(Duration::from_millis(150))));
    join(drain(&world.app), drain(&other)).await;
    // One may have stopped while the other had the logs.
    drain(&world.app).await;
    assert_whole(&world, &siem).await;
}

/// A sender that is killed with a batch under way leaves its lease. When that has expired, another server sends the batch.
#[actix_web::test]
async fn killed_sender_is_replaced() {
    let (world, siem) = streaming().await;
    chain_all(&world, &world.acme).await;
    siem.then([Receipt::TakeLate(Duration::from_millis(1_500))]);
    let app = Arc::clone(&world.app);
    let sending = actix_web::rt::spawn(async move { stream::stream_due(&app).await });
    until(|| !siem.heads().is_empty()).await;
    sending.abort();
    let other = world.instance(&options(over_http(&siem))).app;
    stream::stream_due(&other).await;
    assert_eq!(siem.heads().len(), 1, "the lease still stands");
    let expire =
        "UPDATE audit_streams SET lease_until = now() - interval '1 second' WHERE lease_id IS NOT NULL";
    assert_eq!(world.sql(expire).await, 1);
    drain(&other).await;
    let expected: Vec<i64> = (1..=end(&world, &world.acme).await).collect();
    let mut arrived = sequences(&siem.taken(), &world.acme);
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, expected);
    let streams = world
        .sql("SELECT FROM audit_streams WHERE lease_id IS NOT NULL")
        .await;
    assert_eq!(streams, 0);
}

/// With one connection for everything a receiver that takes its time holds none.
#[actix_web::test]
async fn slow_receiver_holds_no_connection() {
    let siem = HttpSiem::default();
    let mut options = options(over_http(&siem));
    options.pool.size = 1;
    let world = World::with(options).await;
    chain_all(&world, &world.acme).await;
    siem.then([Receipt::TakeLate(Duration::from_millis(1_000))]);
    let app = Arc::clone(&world.app);
    let sending = actix_web::rt::spawn(async move { stream::stream_due(&app).await });
    until(|| !siem.heads().is_empty()).await;
    create(&world, &world.acme, "Meanwhile").await;
    assert!(siem.taken().is_empty(), "the receiver has not answered yet");
    let open = world
        .sql(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%' \
             AND backend_type = 'client backend'",
        )
        .await;
    assert_eq!(open, 0);
    assert!(sending.await.unwrap());
}

/// The stream begins with the next entry unless the settings say otherwise.
#[actix_web::test]
async fn stream_begins_where_the_settings_say() {
    let siem = HttpSiem::default();
    let world = World::new().await;
    chain_both(&world).await;
    let before = end(&world, &world.acme).await;
    let from_now = AuditStream {
        from: StreamFrom::Now,
        ..over_http(&siem)
    };
    let app = world.instance(&options(from_now)).app;
    drain(&app).await;
    create(&world, &world.acme, "After").await;
    let acme = Cx::enter(&app, BECAUSE, world.acme.id).await.unwrap().unwrap();
    chain_in(&acme).await;
    drain(&app).await;
    let expected: Vec<i64> = (before + 1..=end(&world, &world.acme).await).collect();
    assert_eq!(sequences(&siem.taken(), &world.acme), expected);
    // What a server without a receiver has chained is found by the daily upkeep.
    create(&world, &world.acme, "By another").await;
    chain_all(&world, &world.acme).await;
    drain(&app).await;
    assert_eq!(sequences(&siem.taken(), &world.acme), expected);
    KeepAudit.run(&acme, Nothing {}).await.unwrap();
    drain(&app).await;
    let expected: Vec<i64> = (before + 1..=end(&world, &world.acme).await).collect();
    assert_eq!(sequences(&siem.taken(), &world.acme), expected);
    // The other tenant's log begins with its oldest entry.
    let whole = world.instance(&options(over_http(&siem))).app;
    let globex = Cx::enter(&whole, BECAUSE, world.globex.id)
        .await
        .unwrap()
        .unwrap();
    KeepAudit.run(&globex, Nothing {}).await.unwrap();
    drain(&whole).await;
    let expected: Vec<i64> = (1..=end(&world, &world.globex).await).collect();
    assert_eq!(sequences(&siem.taken(), &world.globex), expected);
}

/// Retention waits for the stream, for thirty days. Then the receiver gets a gap.
#[actix_web::test]
async fn retention_waits_for_the_stream_and_then_leaves_a_gap() {
    let (world, siem) = streaming().await;
    let acme = &world.acme;
    chain_all(&world, acme).await;
    let unsent = end(&world, acme).await;
    let keep = async || {
        let cx = system(&world, acme).await;
        KeepAudit.run(&cx, Nothing {}).await.unwrap();
        let first = "SELECT min(first_sequence) FROM audit_blocks WHERE tenant_id = $1";
        let first = sqlx::query_scalar::<_, i64>(first).bind(acme.id.uuid());
        first.fetch_one(&mut world.database.admin().await).await.unwrap()
    };
    // `pro` keeps entries for 730 days.
    world.clock.advance(Span::days(740));
    let login = world.login("acme", &acme.admin.email, PASSWORD).await;
    login.expect(200);
    chain_all(&world, acme).await;
    assert_eq!(keep().await, 1, "nothing was sent");
    world.clock.advance(Span::days(25));
    assert_eq!(keep().await, unsent + 1, "they waited long enough");
    drain(&world.app).await;
    let taken = siem.taken();
    let gap = taken.iter().find(|one| one["kind"] == "audit_gap").unwrap();
    assert_eq!(
        (&gap["tenant_id"], &gap["first_sequence"], &gap["last_sequence"]),
        (&json!(acme.id), &json!(1), &json!(unsent))
    );
    assert_eq!(sequences(&taken, acme)[0], unsent + 1);
}

/// What a person's erasure has blackened before it was sent goes as it is, and the logs of deleted tenants wait.
#[actix_web::test]
async fn deleted_tenant_waits_and_its_row_is_its_own() {
    let (world, siem) = streaming().await;
    chain_both(&world).await;
    world.set_status(&world.acme, "deleted").await;
    drain(&world.app).await;
    assert!(sequences(&siem.taken(), &world.acme).is_empty());
    assert!(!sequences(&siem.taken(), &world.globex).is_empty());
    assert_eq!(world.app.audit_stream().waiting().tenants, 0);
    world.set_status(&world.acme, "active").await;
    world.outlive_the_cache();
    drain(&world.app).await;
    assert_whole(&world, &siem).await;
    // The platform role sees who waits, and nothing else.
    let mut platform = world.database.platform().await;
    for refused in [
        "SELECT sequence FROM audit_streams",
        "UPDATE audit_streams SET waiting_since = now()",
        "SELECT links FROM audit_blocks",
        "DELETE FROM operator_events",
    ] {
        let refused = sqlx::query(refused).execute(&mut platform).await;
        let code = refused
            .unwrap_err()
            .into_database_error()
            .unwrap()
            .code()
            .unwrap()
            .into_owned();
        assert_eq!(code, "42501");
    }
}

/// The token is in the request, and a certificate of another authority is refused before anything is sent.
#[actix_web::test]
async fn https_receiver_is_verified_and_gets_the_token() {
    let (authority, stranger) = (Arc::new(Authority::make()), Authority::make());
    let siem = HttpSiem::start(Some(Arc::clone(&authority)));
    let stream = |ca: &Authority| AuditStream {
        url: siem.url("https"),
        token: tenantry::Secret::new("s3cret".into()),
        token_scheme: "Splunk".into(),
        ca_file: Some(ca.certificate()),
        ..over_http(&siem)
    };
    let world = World::with(options(stream(&stranger))).await;
    chain_all(&world, &world.acme).await;
    drain(&world.app).await;
    assert!(siem.heads().is_empty());
    assert_eq!(world.app.audit_stream().failed()["unavailable"], 1);
    let app = world.instance(&options(stream(&authority))).app;
    drain(&app).await;
    let expected: Vec<i64> = (1..=end(&world, &world.acme).await).collect();
    assert_eq!(sequences(&siem.taken(), &world.acme), expected);
    let head = siem.heads().pop().unwrap().to_ascii_lowercase();
    assert!(head.contains("authorization: splunk s3cret"), "{head}");
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
}

fn over_syslog(siem: &SyslogSiem, authority: &Authority) -> AuditStream {
    AuditStream {
        kind: AuditStreamKind::Syslog,
        address: siem.address(),
        ca_file: Some(authority.certificate()),
        from: StreamFrom::Beginning,
        timeout_ms: 2_000,
        ..AuditStream::default()
    }
}

/// The records of syslog messages, whose heads are checked.
fn records(messages: &[String]) -> Vec<Value> {
    let record = |message: &String| {
        let parts: Vec<_> = message.splitn(8, ' ').collect();
        let [pri, at, host, app, process, kind, data, json] = parts[..] else {
            panic!("{message}");
        };
        let record: Value = serde_json::from_str(json).unwrap();
        assert_eq!((host, app, process, data), ("-", "tenantry", "-", "-"));
        assert_eq!(record["kind"], kind);
        assert!(
            at.ends_with('Z') && at.parse::<chrono::DateTime<chrono::Utc>>().is_ok(),
            "{at}"
        );
        let severity = match record["risk"].as_str() {
            Some("high") => 4,
            Some("medium") => 5,
            _ => 6,
        };
        assert_eq!(pri, format!("<{}>1", 13 * 8 + severity));
        record
    };
    messages.iter().map(record).collect()
}

#[actix_web::test]
async fn syslog_receiver_gets_framed_messages_over_tls() {
    let (authority, stranger) = (Arc::new(Authority::make()), Authority::make());
    let siem = SyslogSiem::start(Arc::clone(&authority), SyslogEnd::Notify);
    let world = World::with(options(over_syslog(&siem, &stranger))).await;
    create(&world, &world.acme, "Ümläut").await;
    chain_both(&world).await;
    drain(&world.app).await;
    assert!(siem.messages().is_empty(), "a certificate of another authority");
    let app = world.instance(&options(over_syslog(&siem, &authority))).app;
    // The receiver is killed in the middle of a batch, of each log.
    siem.then([Receipt::CutOff, Receipt::CutOff, Receipt::CutOff]);
    drain(&app).await;
    assert!(app.audit_stream().failed()["unacknowledged"] >= 2);
    assert!(siem.messages().is_empty());
    world.clock.advance(Span::seconds(61));
    siem.then([]);
    drain(&app).await;
    let taken = records(&siem.messages());
    for tenant in [&world.acme, &world.globex] {
        let expected: Vec<i64> = (1..=end(&world, tenant).await).collect();
        assert_eq!(sequences(&taken, tenant), expected);
    }
    assert!(taken.iter().any(|one| one["after"]["name"] == "Ümläut"));
}

/// A connection that ends without `close_notify` acknowledges nothing, unless the settings say so.
#[actix_web::test]
async fn end_without_close_notify_is_no_acknowledgment() {
    let authority = Arc::new(Authority::make());
    let siem = SyslogSiem::start(Arc::clone(&authority), SyslogEnd::Plain);
    let strict = over_syslog(&siem, &authority);
    let world = World::with(options(strict.clone())).await;
    chain_all(&world, &world.acme).await;
    drain(&world.app).await;
    assert!(world.app.audit_stream().failed()["unacknowledged"] >= 1);
    let unsent = "SELECT FROM audit_streams WHERE waiting_since IS NOT NULL AND sequence = 0";
    assert_eq!(world.sql(unsent).await, 1);
    let lenient = AuditStream {
        accept_plain_close: true,
        ..strict
    };
    drain(&world.instance(&options(lenient)).app).await;
    assert_eq!(world.sql(unsent).await, 0);
}
