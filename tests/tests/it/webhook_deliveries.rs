//! Deliveries of webhooks over real sockets: each event reaches each endpoint that wants it, at least once, in its tenant only, by the clock of
//! the retries, and whatever other endpoints do.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Duration as Span;
use futures_util::future::join;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry::Webhooks;
use tenantry_domain::kernel::{Clock as _, StoreError};
use tenantry_persistence::PoolConfig;
use tenantry_tenancy::events::publish;
use tenantry_tenancy::events::upkeep::KeepEvents;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::webhooks::dispatcher::{Dispatcher, DispatcherConfig};
use tenantry_tenancy::webhooks::removal::{DeletedEndpoint, RemoveEndpoint};
use tenantry_tenancy::{Changed, Tenancy};
use tenantry_tests::{Hook, HookReply, HookSink, Options, TenantWorld, World};
use tokio::sync::oneshot;

use crate::audit::system;
use crate::persons::run_jobs;

const ENDPOINTS: &str = "/api/v1/webhooks/endpoints";
const MESSAGES: &str = "/api/v1/webhooks/messages";

/// The longest that anything is waited for.
const DEADLINE: Duration = Duration::from_secs(120);

/// Endpoints on this machine are allowed.
pub(crate) fn options() -> Options {
    Options {
        webhooks: Webhooks {
            allow_http: true,
            ports: Vec::new(),
            allowed_networks: vec!["127.0.0.1".to_owned()],
            ..Webhooks::default()
        },
        ..Options::default()
    }
}

/// A world whose events of before are published, so that no endpoint gets them.
async fn world() -> (World, HookSink) {
    world_with(options()).await
}

async fn world_with(options: Options) -> (World, HookSink) {
    let world = World::with(options).await;
    publish::publish_due(&world.app).await;
    (world, HookSink::default())
}

fn dispatcher(app: &Arc<Tenancy>) -> Dispatcher {
    Dispatcher::new(Arc::clone(app), DispatcherConfig::default()).unwrap()
}

async fn send(world: &World) -> usize {
    dispatcher(&world.app).run_once().await
}

/// An endpoint for the events of tasks at a path of the sink.
async fn endpoint(world: &World, tenant: &TenantWorld, sink: &HookSink, path: &str) -> String {
    endpoint_with(world, tenant, sink, path, json!({})).await
}

async fn endpoint_with(
    world: &World,
    tenant: &TenantWorld,
    sink: &HookSink,
    path: &str,
    with: Value,
) -> String {
    let mut body = json!({"url": sink.url(path), "event_types": ["task.*"]});
    for (name, value) in with.as_object().unwrap() {
        body[name] = value.clone();
    }
    let made = world.post(&tenant.admin, ENDPOINTS, &body).await.expect(201);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// Records so many events of a tenant, and publishes them.
async fn emit(world: &World, tenant: &TenantWorld, count: usize) {
    record(world, tenant, count).await;
    publish::publish(&system(world, tenant).await).await.unwrap();
}

/// Records so many events of a tenant.
async fn record(world: &World, tenant: &TenantWorld, count: usize) {
    let cx = system(world, tenant).await;
    for _ in 0..count {
        let changed = Changed::new("task.updated", tenant.task.uuid());
        let recorded = cx.write(async |work| cx.record(work, changed).await);
        recorded.await.unwrap();
    }
}

/// The states of the deliveries of a tenant, with how many each has.
async fn states(world: &World, tenant: &TenantWorld) -> Vec<(String, i64)> {
    let sql = format!(
        "SELECT state, count(*) FROM webhook_deliveries WHERE tenant_id = '{}' GROUP BY state ORDER BY state",
        tenant.id
    );
    let mut admin = world.database.admin().await;
    sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(&mut admin)
        .await
        .unwrap()
}

fn all(state: &str, count: i64) -> Vec<(String, i64)> {
    vec![(state.to_owned(), count)]
}

async fn number(world: &World, sql: &str) -> i64 {
    let mut admin = world.database.admin().await;
    let found = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    found.fetch_one(&mut admin).await.unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ids(hooks: &[Hook]) -> BTreeSet<&str> {
    hooks.iter().map(|hook| hook.id.as_str()).collect()
}

async fn get(world: &World, path: &str) -> Value {
    world.get(&world.acme.admin, path).await.expect(200).json()
}

async fn post(world: &World, path: &str, body: &Value) -> Value {
    let reply = world.post(&world.acme.admin, path, body).await.expect(202);
    serde_json::from_str(&reply.text()).unwrap_or(Value::Null)
}

/// The paths of what can be read of an endpoint and a message, for the tests of statements.
pub(crate) async fn readable(world: &World) -> Vec<String> {
    let endpoint = endpoint(world, &world.acme, &HookSink::default(), "read").await;
    let at = format!("{ENDPOINTS}/{endpoint}");
    let test = post(world, &format!("{at}/test"), &json!({})).await;
    let message = format!("{MESSAGES}/{}", test["id"].as_str().unwrap());
    vec![format!("{at}/attempts"), format!("{at}/stats"), message]
}

/// Does what admins and the dispatcher do with deliveries, for the tests of statements.
pub(crate) async fn use_deliveries(world: &World) {
    let sink = HookSink::default();
    let endpoint = endpoint(world, &world.acme, &sink, "statements").await;
    emit(world, &world.acme, 1).await;
    let at = format!("{ENDPOINTS}/{endpoint}");
    post(world, &format!("{at}/test"), &json!({})).await;
    dispatcher(&world.app).run_once().await;
    let since = world.clock.now() - Span::hours(1);
    post(world, &format!("{at}/recover"), &json!({"since": since})).await;
    let message = get(world, &format!("{MESSAGES}?limit=1")).await["data"][0]["id"].clone();
    let resend = format!(
        "{MESSAGES}/{}/endpoints/{endpoint}/resend",
        message.as_str().unwrap()
    );
    post(world, &resend, &json!({})).await;
    sink.answer("statements", HookReply::Status(410));
    dispatcher(&world.app).run_once().await;
}

#[actix_web::test]
async fn delivery_exists_exactly_if_its_event_is_published() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    endpoint(&world, acme, &sink, "acme").await;
    let cx = world.cx(&acme.admin).await;
    let undone = cx.write(async |work| {
        cx.record(work, Changed::new("task.updated", acme.task.uuid()))
            .await?;
        Err::<(), _>(StoreError::Other("undone".into()))
    });
    assert!(undone.await.is_err());
    let path = format!("/api/v1/tasks/{}", acme.task);
    let renamed = world.patch(&acme.member, &path, &json!({"title": "Renamed"}));
    renamed.await.expect(200);
    assert_eq!(states(&world, acme).await, []);
    publish::publish_due(&world.app).await;
    assert_eq!(states(&world, acme).await, all("pending", 1));
    send(&world).await;
    let received = sink.received("acme");
    assert_eq!(received.len(), 1);
    let event = get(&world, "/api/v1/events?types=task.updated").await["data"][0].clone();
    let expected = json!({"type": "task.updated", "timestamp": event["timestamp"], "data": event["data"]});
    assert_eq!(received[0].body, expected);
    let id = event["id"].as_str().unwrap().replace('-', "");
    assert_eq!(received[0].id, format!("msg_{id}"));
    assert!(received[0].signature.starts_with("v1,"), "{:?}", received[0]);
    assert_eq!(states(&world, acme).await, all("succeeded", 1));
    assert_eq!(send(&world).await, 0);
}

#[actix_web::test]
async fn endpoint_gets_the_events_of_its_filter_and_tenant_only() {
    let (world, sink) = world().await;
    let (acme, globex) = (&world.acme, &world.globex);
    endpoint(&world, acme, &sink, "tasks").await;
    endpoint_with(
        &world,
        acme,
        &sink,
        "projects",
        json!({"event_types": ["project.*"]}),
    )
    .await;
    endpoint_with(
        &world,
        acme,
        &sink,
        "one",
        json!({"event_types": ["task.updated"]}),
    )
    .await;
    endpoint_with(
        &world,
        acme,
        &sink,
        "other",
        json!({"event_types": ["task.created"]}),
    )
    .await;
    endpoint_with(&world, acme, &sink, "off", json!({"enabled": false})).await;
    endpoint(&world, globex, &sink, "globex").await;
    emit(&world, acme, 2).await;
    emit(&world, globex, 1).await;
    send(&world).await;
    let counts = ["tasks", "projects", "one", "other", "off", "globex"].map(|path| sink.received(path).len());
    assert_eq!(counts, [2, 0, 2, 0, 0, 1]);
    for (path, tenant) in [("tasks", acme), ("one", acme), ("globex", globex)] {
        for hook in sink.received(path) {
            assert_eq!(hook.body["data"]["object"]["id"], json!(tenant.task), "{path}");
        }
    }
}

#[actix_web::test]
async fn failed_message_is_retried_by_the_clock_with_its_id() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    endpoint(&world, acme, &sink, "x").await;
    sink.answer("x", HookReply::Status(500));
    emit(&world, acme, 1).await;
    send(&world).await;
    // The first wait is 5 seconds, a fifth shorter or longer.
    world.clock.advance(Span::milliseconds(3_900));
    assert_eq!((send(&world).await, sink.received("x").len()), (0, 1));
    world.clock.advance(Span::milliseconds(2_200));
    send(&world).await;
    assert_eq!(sink.received("x").len(), 2);
    // The second one is 5 minutes.
    sink.answer("x", HookReply::Status(204));
    world.clock.advance(Span::seconds(200));
    assert_eq!(send(&world).await, 0);
    world.clock.advance(Span::seconds(170));
    send(&world).await;
    let received = sink.received("x");
    assert_eq!((received.len(), ids(&received).len()), (3, 1));
    assert_eq!(states(&world, acme).await, all("succeeded", 1));
    let attempts = "SELECT count(*) FROM webhook_attempts WHERE number BETWEEN 1 AND 3";
    assert_eq!(number(&world, attempts).await, 3);
}

#[actix_web::test]
async fn wait_that_a_receiver_asks_for_is_kept() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    endpoint(&world, acme, &sink, "x").await;
    sink.answer("x", HookReply::Later(429, 120));
    emit(&world, acme, 1).await;
    send(&world).await;
    sink.answer("x", HookReply::Status(200));
    world.clock.advance(Span::seconds(110));
    emit(&world, acme, 1).await;
    assert_eq!((send(&world).await, sink.received("x").len()), (0, 1));
    world.clock.advance(Span::seconds(40));
    send(&world).await;
    assert_eq!(sink.received("x").len(), 3);
    assert_eq!(states(&world, acme).await, all("succeeded", 2));
}

/// The endpoint is disabled, what is queued is canceled, admins get a mail, and what was missed can be sent later.
#[actix_web::test]
async fn gone_receiver_disables_its_endpoint_at_once() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    let id = endpoint_with(&world, acme, &sink, "x", json!({"ordered": true})).await;
    sink.answer("x", HookReply::Status(410));
    emit(&world, acme, 3).await;
    send(&world).await;
    assert_eq!(sink.received("x").len(), 1);
    let expected = [("canceled".to_owned(), 2), ("failed".to_owned(), 1)];
    assert_eq!(states(&world, acme).await, expected);
    let at = format!("{ENDPOINTS}/{id}");
    let shown = get(&world, &at).await;
    assert_eq!(
        (&shown["enabled"], &shown["disabled_reason"]),
        (&json!(false), &json!("gone"))
    );
    let mails = format!(
        "SELECT count(*) FROM jobs WHERE kind = 'mail.send' AND tenant_id = '{}'",
        acme.id
    );
    assert_eq!(number(&world, &mails).await, 1);
    let told = "SELECT count(*) FROM event_outbox WHERE kind = 'webhook_endpoint.disabled'";
    assert_eq!(number(&world, told).await, 1);
    // Nothing is queued while it is disabled.
    emit(&world, acme, 1).await;
    assert_eq!(states(&world, acme).await, expected);
    for path in [format!("{at}/test"), format!("{at}/recover")] {
        let body = if path.ends_with("test") {
            json!({})
        } else {
            json!({"since": "2026-01-01T00:00:00Z"})
        };
        world
            .post(&acme.admin, &path, &body)
            .await
            .problem(409, "conflict");
    }

    sink.answer("x", HookReply::Status(200));
    world
        .patch(&acme.admin, &at, &json!({"enabled": true}))
        .await
        .expect(200);
    let since = world.clock.now() - Span::minutes(5);
    let recover = async || post(&world, &format!("{at}/recover"), &json!({"since": since})).await;
    let recovered = recover().await;
    assert_eq!(recovered["has_more"], false);
    // Of the world's own events some are of tasks as well.
    let queued = recovered["queued"].as_i64().unwrap();
    assert!(queued >= 4, "{recovered}");
    assert_eq!(recover().await["queued"], 0);
    send(&world).await;
    assert_eq!(recover().await["queued"], 0);
    assert_eq!(states(&world, acme).await, all("succeeded", queued));
}

#[actix_web::test]
async fn days_of_failures_disable_an_endpoint() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    let id = endpoint(&world, acme, &sink, "x").await;
    sink.answer("x", HookReply::Status(500));
    let enabled = format!("SELECT count(*) FROM webhook_endpoints WHERE id = '{id}' AND enabled");
    for half_day in 0..12 {
        assert_eq!(number(&world, &enabled).await, 1, "{half_day}");
        emit(&world, acme, 1).await;
        send(&world).await;
        world.clock.advance(Span::hours(11));
    }
    // Five days have passed since the first failure.
    emit(&world, acme, 1).await;
    send(&world).await;
    let failing =
        format!("SELECT count(*) FROM webhook_endpoints WHERE id = '{id}' AND disabled_reason = 'failing'");
    assert_eq!(number(&world, &failing).await, 1);
    assert_eq!(
        number(
            &world,
            "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'"
        )
        .await,
        0
    );
}

#[actix_web::test]
async fn admins_see_and_repeat_what_was_sent() {
    let (world, sink) = world().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let id = endpoint_with(&world, acme, &sink, "x", json!({"event_types": ["project.*"]})).await;
    let at = format!("{ENDPOINTS}/{id}");
    sink.answer("x", HookReply::Status(503));
    let test = post(&world, &format!("{at}/test"), &json!({})).await;
    send(&world).await;
    let received = sink.received("x");
    assert_eq!(
        (received.len(), &received[0].body["type"]),
        (1, &json!("webhook.test"))
    );
    assert_eq!(json!(received[0].id), test["webhook_id"]);
    let attempts = get(&world, &format!("{at}/attempts")).await["data"].clone();
    assert_eq!(attempts.as_array().unwrap().len(), 1);
    let one = &attempts[0];
    assert_eq!(one["message_id"], test["id"]);
    assert_eq!(
        (&one["outcome"], &one["status"], &one["response"], &one["number"]),
        (&json!("refused"), &json!(503), &json!("ok"), &json!(1))
    );
    assert_eq!(
        (&one["delivery_state"], &one["next_attempt_at"]),
        (&json!("failed"), &Value::Null)
    );

    // The event of a task passes no filter of the endpoint, and is sent to it all the same when an admin says so.
    emit(&world, acme, 1).await;
    assert_eq!(send(&world).await, 0);
    let event = get(&world, "/api/v1/events?types=task.updated").await["data"][0].clone();
    let resend = |message: &str| format!("{MESSAGES}/{message}/endpoints/{id}/resend");
    sink.answer("x", HookReply::Status(200));
    world.clock.advance(Span::minutes(2));
    for message in [&event["id"], &test["webhook_id"]] {
        post(&world, &resend(message.as_str().unwrap()), &json!({})).await;
    }
    send(&world).await;
    assert_eq!(sink.received("x").len(), 3);
    let stats = get(&world, &format!("{at}/stats")).await;
    let counts = ["success", "pending", "failed", "canceled"].map(|name| stats[name].as_i64().unwrap());
    assert_eq!(counts, [2, 0, 0, 0], "{stats}");
    assert!(
        stats["latency_ms"]["p99"].is_u64() && stats["failing_since"].is_null(),
        "{stats}"
    );

    let first = get(&world, &format!("{MESSAGES}?limit=1")).await;
    let next = first["next_cursor"].as_str().unwrap();
    let second = get(&world, &format!("{MESSAGES}?limit=1&cursor={next}")).await;
    let listed = [&first, &second].map(|page| page["data"][0]["id"].clone());
    assert_eq!(listed, [event["id"].clone(), test["id"].clone()]);
    let shown = get(
        &world,
        &format!("{MESSAGES}/{}", test["webhook_id"].as_str().unwrap()),
    )
    .await;
    assert_eq!(shown["body"], sink.received("x")[0].body);
    assert_eq!(
        shown["deliveries"],
        json!([{"endpoint_id": id, "state": "succeeded", "attempts": 2, "next_attempt_at": null}])
    );

    // Nothing of it is there for the other tenant.
    let message = event["id"].as_str().unwrap();
    let foreign = [
        world.get(&globex.admin, &format!("{at}/attempts")).await,
        world.get(&globex.admin, &format!("{at}/stats")).await,
        world.get(&globex.admin, &format!("{MESSAGES}/{message}")).await,
        world.post(&globex.admin, &format!("{at}/test"), &json!({})).await,
        world.post(&globex.admin, &resend(message), &json!({})).await,
    ];
    for reply in foreign {
        reply.problem(404, "not_found");
    }
    let messages = world.get(&globex.admin, MESSAGES).await.expect(200).json();
    assert_eq!(messages["data"], json!([]));
    let actions = world.audit(acme).await.into_iter().map(|(action, _)| action);
    let actions: Vec<_> = actions
        .filter(|action| action.starts_with("webhook_endpoint."))
        .collect();
    let resent = "webhook_endpoint.message_resent";
    let expected = [
        "webhook_endpoint.created",
        "webhook_endpoint.tested",
        resent,
        resent,
    ];
    assert_eq!(
        BTreeSet::from_iter(actions.iter().map(String::as_str)),
        BTreeSet::from(expected)
    );
}

#[actix_web::test]
async fn another_tenants_event_never_reaches_an_endpoint() {
    let (world, sink) = world().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let own = endpoint(&world, acme, &sink, "acme").await;
    let foreign = endpoint(&world, globex, &sink, "globex").await;
    emit(&world, globex, 1).await;
    // An admin who knows the id of a foreign event does not get it.
    let sql = format!(
        "SELECT id FROM events WHERE tenant_id = '{}' ORDER BY position DESC LIMIT 1",
        globex.id
    );
    let event: uuid::Uuid = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    let resend = format!("{MESSAGES}/{event}/endpoints/{own}/resend");
    world
        .post(&acme.admin, &resend, &json!({}))
        .await
        .problem(404, "not_found");
    let forge = |tenant: &TenantWorld, endpoint: &str| {
        format!(
            "BEGIN; SET LOCAL app.current_tenant = '{}'; INSERT INTO webhook_deliveries (tenant_id, created_at, message_id, endpoint_id, \
             kind, position, state, next_attempt_at) VALUES ('{}', now(), '{event}', '{endpoint}', 'task.updated', 1, 'pending', now())",
            acme.id, tenant.id
        )
    };
    for (sql, refused) in [
        (forge(globex, &foreign), "row-level security"),
        (forge(acme, &foreign), "webhook_deliveries_endpoint_id_fkey"),
    ] {
        let mut app = world.database.app().await;
        let error = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut app)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(refused), "{error}");
    }
    // A delivery of the own tenant that names a foreign event has nothing to send.
    let forged = format!(
        "INSERT INTO webhook_deliveries (tenant_id, created_at, message_id, endpoint_id, kind, position, state, next_attempt_at) \
         VALUES ('{0}', now(), '{event}', '{own}', 'task.updated', 1, 'pending', now()); \
         INSERT INTO webhook_lanes (tenant_id, created_at, endpoint_id, due_at, send_window) VALUES ('{0}', now(), '{own}', '2026-01-01', 8); \
         UPDATE webhook_deliveries SET next_attempt_at = '2026-01-01' WHERE tenant_id = '{0}'",
        acme.id
    );
    world.sql(forged).await;
    send(&world).await;
    assert_eq!(
        (sink.received("acme").len(), sink.received("globex").len()),
        (0, 1)
    );
    assert_eq!(states(&world, acme).await, all("canceled", 1));
}

#[actix_web::test]
async fn two_dispatchers_send_each_message_once() {
    const EVENTS: usize = 40;
    let (world, sink) = world().await;
    let other = world.instance(&options());
    let paths = ["a", "b", "c", "d", "e", "f"];
    for path in paths {
        endpoint(&world, &world.acme, &sink, path).await;
    }
    emit(&world, &world.acme, EVENTS).await;
    join(
        dispatcher(&world.app).run_once(),
        dispatcher(&other.app).run_once(),
    )
    .await;
    until("all are delivered", async || {
        send(&world).await;
        states(&world, &world.acme).await == all("succeeded", 240)
    })
    .await;
    for path in paths {
        let received = sink.received(path);
        assert_eq!((received.len(), ids(&received).len()), (EVENTS, EVENTS), "{path}");
    }
}

#[actix_web::test]
async fn lapsed_lease_is_taken_over() {
    let (world, sink) = world().await;
    endpoint(&world, &world.acme, &sink, "x").await;
    emit(&world, &world.acme, 1).await;
    let lease = |until: &str| {
        format!(
            "UPDATE webhook_lanes SET lease_id = gen_random_uuid(), lease_until = now() + interval '{until}'"
        )
    };
    assert_eq!(world.sql(lease("1 hour")).await, 1);
    assert_eq!((send(&world).await, sink.received("x").len()), (0, 0));
    world.sql(lease("-1 second")).await;
    send(&world).await;
    assert_eq!(states(&world, &world.acme).await, all("succeeded", 1));
}

/// A server that was stuck longer than its lease stores nothing; the message is sent again, with the same id.
#[actix_web::test]
async fn result_of_a_lost_lease_is_not_stored() {
    let (world, sink) = world().await;
    endpoint(&world, &world.acme, &sink, "x").await;
    sink.answer("x", HookReply::Held);
    emit(&world, &world.acme, 1).await;
    let lose = async {
        sink.wait("x", 1).await;
        let lost =
            "UPDATE webhook_lanes SET lease_id = gen_random_uuid(), lease_until = now() + interval '1 hour'";
        world.sql(lost).await;
        sink.release();
    };
    join(send(&world), lose).await;
    assert_eq!(states(&world, &world.acme).await, all("pending", 1));
    assert_eq!(number(&world, "SELECT count(*) FROM webhook_attempts").await, 0);
    world
        .sql("UPDATE webhook_lanes SET lease_until = now() - interval '1 second'")
        .await;
    send(&world).await;
    let received = sink.received("x");
    assert_eq!((received.len(), ids(&received).len()), (2, 1));
    assert_eq!(states(&world, &world.acme).await, all("succeeded", 1));
}

#[actix_web::test]
async fn slow_endpoint_delays_no_other_and_a_stop_waits_for_it() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    endpoint(&world, acme, &sink, "slow").await;
    endpoint(&world, acme, &sink, "fast").await;
    sink.answer("slow", HookReply::Held);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = dispatcher(&world.app).run(async {
        let _ = stopped.await;
    });
    let test = async {
        for round in 1..=3 {
            emit(&world, acme, 1).await;
            sink.wait("fast", round).await;
        }
        sink.wait("slow", 1).await;
        stop.send(()).unwrap();
        sink.release();
    };
    join(running, test).await;
    let slow = "SELECT count(*) FROM webhook_attempts a JOIN webhook_endpoints e ON e.id = a.endpoint_id WHERE e.url LIKE '%slow'";
    let answered = i64::try_from(sink.received("slow").len()).unwrap();
    assert_eq!(number(&world, slow).await, answered);
    let leased = "SELECT count(*) FROM webhook_lanes WHERE lease_id IS NOT NULL";
    assert_eq!(number(&world, leased).await, 0, "leases are given back");
}

#[actix_web::test]
async fn suspended_tenant_gets_webhooks_and_deleted_one_does_not() {
    let (world, sink) = world().await;
    for (tenant, path) in [(&world.acme, "acme"), (&world.globex, "globex")] {
        endpoint(&world, tenant, &sink, path).await;
        emit(&world, tenant, 1).await;
    }
    world.set_status(&world.acme, "suspended").await;
    world.set_status(&world.globex, "deleted").await;
    send(&world).await;
    assert_eq!(
        (sink.received("acme").len(), sink.received("globex").len()),
        (1, 0)
    );
    world.set_status(&world.globex, "active").await;
    send(&world).await;
    assert_eq!(sink.received("globex").len(), 1);
}

#[actix_web::test]
async fn rate_of_an_endpoint_is_kept() {
    let (world, sink) = world().await;
    endpoint_with(&world, &world.acme, &sink, "x", json!({"rate_limit": 2})).await;
    emit(&world, &world.acme, 5).await;
    for expected in [2, 4, 5] {
        send(&world).await;
        assert_eq!(sink.received("x").len(), expected);
        world.clock.advance(Span::seconds(1));
    }
}

#[actix_web::test]
async fn ordered_endpoint_waits_for_the_message_before() {
    let (world, sink) = world().await;
    endpoint_with(&world, &world.acme, &sink, "x", json!({"ordered": true})).await;
    sink.answer("x", HookReply::Status(500));
    emit(&world, &world.acme, 3).await;
    send(&world).await;
    assert_eq!(sink.received("x").len(), 1);
    sink.answer("x", HookReply::Status(200));
    world.clock.advance(Span::seconds(7));
    send(&world).await;
    let received = sink.received("x");
    assert_eq!((received.len(), received[0].id == received[1].id), (4, true));
    let events = get(&world, "/api/v1/events?types=task.updated").await["data"].clone();
    let in_order = events.as_array().unwrap().iter();
    let in_order = in_order.map(|event| format!("msg_{}", event["id"].as_str().unwrap().replace('-', "")));
    assert!(
        received[1..].iter().map(|hook| hook.id.clone()).eq(in_order),
        "{received:?}"
    );
    assert_eq!(sink.most_at_once(), 1);
}

/// What is in memory is sent with the data as it was read, so changed data shows how much that is: it does not grow with what is sent.
#[actix_web::test]
async fn lane_has_few_messages_in_memory() {
    const EVENTS: usize = 500;
    let (world, sink) = world().await;
    endpoint(&world, &world.acme, &sink, "x").await;
    emit(&world, &world.acme, EVENTS).await;
    let change = async {
        sink.wait("x", 300).await;
        let changed = "UPDATE events SET data = '{\"changed\": true}' WHERE kind = 'task.updated'";
        world.sql(changed).await;
        // Those that were sent before this statement had committed.
        sink.received("x").len()
    };
    let (_, before) = join(send(&world), change).await;
    let received = sink.received("x");
    let former = received
        .iter()
        .filter(|hook| hook.body["data"]["changed"] != true);
    let former = former.count();
    assert_eq!(received.len(), EVENTS);
    // What is in flight is not received yet.
    assert!(former <= before + 32, "{former} of {before}");
}

/// An admin's change of the endpoint, or one that hangs, does not keep a place for transactions from other tenants.
#[actix_web::test]
async fn success_is_stored_while_its_endpoint_is_locked() {
    let (world, sink) = world().await;
    for (tenant, path) in [(&world.acme, "acme"), (&world.globex, "globex")] {
        endpoint(&world, tenant, &sink, path).await;
        emit(&world, tenant, 2).await;
    }
    let mut admin = world.database.admin().await;
    let lock = "BEGIN; SELECT id FROM webhook_endpoints FOR NO KEY UPDATE";
    sqlx::raw_sql(lock).execute(&mut admin).await.unwrap();
    send(&world).await;
    for tenant in [&world.acme, &world.globex] {
        assert_eq!(states(&world, tenant).await, all("succeeded", 2));
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut admin).await.unwrap();
}

/// A tenant with many endpoints publishes few events in a transaction, so that those of others do not wait for it.
#[actix_web::test]
async fn transaction_queues_a_bounded_number_of_deliveries() {
    let (world, sink) = world().await;
    for tenant in [&world.acme, &world.globex] {
        endpoint(&world, tenant, &sink, "x").await;
        record(&world, tenant, 60).await;
    }
    let more = format!(
        "INSERT INTO webhook_endpoints (tenant_id, id, created_at, url, event_types, ordered, signature, header_names, sealed_credentials, \
         enabled, updated_at, version) \
         SELECT tenant_id, gen_random_uuid(), now(), url, event_types, ordered, signature, header_names, sealed_credentials, enabled, now(), 1 \
         FROM webhook_endpoints, generate_series(1, 99) WHERE tenant_id = '{}'",
        world.acme.id
    );
    world.sql(more).await;
    publish::publish_due(&world.app).await;
    assert_eq!(states(&world, &world.acme).await, all("pending", 6_000));
    assert_eq!(states(&world, &world.globex).await, all("pending", 60));
    let most = "SELECT max(n.count) FROM (SELECT count(*) FROM webhook_deliveries GROUP BY xmin::text) AS n";
    assert_eq!(number(&world, most).await, 2_000);
}

/// A batch that the database does not finish in time is made smaller until it does. The limit here is on rows.
#[actix_web::test]
async fn batch_that_fails_is_halved() {
    let (world, sink) = world().await;
    endpoint(&world, &world.acme, &sink, "x").await;
    record(&world, &world.acme, 300).await;
    for sql in [
        "CREATE FUNCTION cancel_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF (SELECT count(*) FROM queued) > 100 THEN RAISE 'too slow' USING ERRCODE = 'query_canceled'; END IF; RETURN NULL; END $$",
        "CREATE TRIGGER cancel_many AFTER INSERT ON webhook_deliveries REFERENCING NEW TABLE AS queued \
         FOR EACH STATEMENT EXECUTE FUNCTION cancel_many()",
    ] {
        world.sql(sql).await;
    }
    for _ in 0..40 {
        publish::publish_due(&world.app).await;
    }
    assert_eq!(states(&world, &world.acme).await, all("pending", 300));
}

/// Slow and new endpoints have half of the places, so that those of others find one.
#[actix_web::test]
async fn slow_endpoints_take_half_of_the_places() {
    let (world, sink) = world().await;
    for path in ["slow", "slower"] {
        endpoint(&world, &world.acme, &sink, path).await;
        sink.answer(path, HookReply::Held);
    }
    endpoint(&world, &world.globex, &sink, "fast").await;
    emit(&world, &world.globex, 1).await;
    send(&world).await;
    world.sql("UPDATE webhook_lanes SET send_window = 8").await;
    emit(&world, &world.acme, 20).await;
    let config = DispatcherConfig {
        in_flight: 4,
        lanes: 4,
        ..DispatcherConfig::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let running = Dispatcher::new(Arc::clone(&world.app), config)
        .unwrap()
        .run(async {
            let _ = stopped.await;
        });
    let test = async {
        let held = || sink.received("slow").len() + sink.received("slower").len();
        until("two are held", async || held() == 2).await;
        emit(&world, &world.globex, 5).await;
        sink.wait("fast", 6).await;
        assert_eq!(held(), 2);
        stop.send(()).unwrap();
        sink.release();
    };
    join(running, test).await;
}

/// The former receiver answers 410 to a request that was under way when the admin changed the URL.
#[actix_web::test]
async fn answer_of_a_former_url_disables_nothing() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    let at = format!("{ENDPOINTS}/{}", endpoint(&world, acme, &sink, "former").await);
    world
        .sql("UPDATE webhook_endpoints SET failing_since = now(), last_failure_at = now(), failures = 9")
        .await;
    sink.answer("former", HookReply::HeldGone);
    emit(&world, acme, 1).await;
    let change = async {
        sink.wait("former", 1).await;
        world.clock.advance(Span::seconds(1));
        let patch = json!({"url": sink.url("new")});
        world.patch(&acme.admin, &at, &patch).await.expect(200);
        sink.release();
    };
    join(send(&world), change).await;
    let shown = get(&world, &at).await;
    assert_eq!(
        (&shown["enabled"], &shown["disabled_reason"]),
        (&json!(true), &Value::Null)
    );
    let failures = "SELECT failures::bigint FROM webhook_endpoints";
    assert_eq!(number(&world, failures).await, 0, "those of the former URL");
    // The present one disables it.
    sink.answer("new", HookReply::Status(410));
    emit(&world, acme, 1).await;
    send(&world).await;
    assert_eq!(get(&world, &at).await["disabled_reason"], "gone");
}

/// A receiver has asked for a day of rest; the next one has not.
#[actix_web::test]
async fn endpoint_with_another_url_rests_no_more() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    let at = format!("{ENDPOINTS}/{}", endpoint(&world, acme, &sink, "former").await);
    sink.answer("former", HookReply::Later(503, 80_000));
    emit(&world, acme, 1).await;
    send(&world).await;
    // A test is sent while the endpoint rests.
    post(&world, &format!("{at}/test"), &json!({})).await;
    send(&world).await;
    let tests = sink.received("former").into_iter();
    assert_eq!(
        tests.filter(|hook| hook.body["type"] == "webhook.test").count(),
        1
    );
    emit(&world, acme, 1).await;
    assert_eq!((send(&world).await, sink.received("former").len()), (0, 2));
    let patch = json!({"url": sink.url("new")});
    world.patch(&acme.admin, &at, &patch).await.expect(200);
    send(&world).await;
    assert!(!sink.received("new").is_empty());
}

#[actix_web::test]
async fn ordered_endpoint_that_is_not_any_more_sends_the_rest() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    let made = endpoint_with(&world, acme, &sink, "x", json!({"ordered": true})).await;
    sink.answer("x", HookReply::Status(500));
    emit(&world, acme, 3).await;
    send(&world).await;
    sink.answer("x", HookReply::Status(200));
    send(&world).await;
    assert_eq!(sink.received("x").len(), 1);
    let at = format!("{ENDPOINTS}/{made}");
    world
        .patch(&acme.admin, &at, &json!({"ordered": false}))
        .await
        .expect(200);
    send(&world).await;
    assert_eq!(sink.received("x").len(), 3);
}

#[actix_web::test]
async fn unreadable_endpoint_stops_no_other() {
    let (world, sink) = world().await;
    for path in ["broken", "whole"] {
        endpoint(&world, &world.acme, &sink, path).await;
    }
    endpoint(&world, &world.globex, &sink, "globex").await;
    for tenant in [&world.acme, &world.globex] {
        emit(&world, tenant, 1).await;
    }
    let broken = "UPDATE webhook_endpoints SET event_types = '[1]' WHERE url LIKE '%broken'";
    assert_eq!(world.sql(broken).await, 1);
    send(&world).await;
    let received = ["broken", "whole", "globex"].map(|path| sink.received(path).len());
    assert_eq!(received, [0, 1, 1]);
}

/// A server that dies in the upkeep leaves no event without the delivery that says that it was accepted.
#[actix_web::test]
async fn deliveries_of_kept_events_are_kept() {
    let (world, sink) = world().await;
    let made = endpoint(&world, &world.acme, &sink, "x").await;
    emit(&world, &world.acme, 2).await;
    send(&world).await;
    let cx = system(&world, &world.acme).await;
    let later = world.clock.now() + Span::days(1);
    let deleted = cx.write(async |work| work.webhook_deliveries().delete_before(later, 100).await);
    assert_eq!(deleted.await.unwrap(), 0);
    let since = json!({"since": world.clock.now() - Span::seconds(5)});
    let recovered = post(&world, &format!("{ENDPOINTS}/{made}/recover"), &since).await;
    assert!(recovered["queued"].is_i64());
    send(&world).await;
    let received = sink.received("x");
    assert_eq!(ids(&received).len(), received.len(), "nothing is sent twice");
}

#[actix_web::test]
async fn one_connection_is_enough() {
    let pool = PoolConfig {
        size: 1,
        ..options().pool
    };
    let (world, sink) = world_with(Options { pool, ..options() }).await;
    for path in ["a", "b"] {
        endpoint(&world, &world.acme, &sink, path).await;
    }
    emit(&world, &world.acme, 50).await;
    send(&world).await;
    assert_eq!(states(&world, &world.acme).await, all("succeeded", 100));
}

#[actix_web::test]
async fn deleting_an_endpoint_stops_what_is_queued() {
    let (world, sink) = world().await;
    let acme = &world.acme;
    let deleted = endpoint(&world, acme, &sink, "deleted").await;
    let disabled = endpoint(&world, acme, &sink, "disabled").await;
    emit(&world, acme, 2).await;
    let at = |id: &str| format!("{ENDPOINTS}/{id}");
    world.delete(&acme.admin, &at(&deleted)).await.expect(204);
    world
        .patch(&acme.admin, &at(&disabled), &json!({"enabled": false}))
        .await
        .expect(200);
    send(&world).await;
    assert_eq!(
        (sink.received("deleted").len(), sink.received("disabled").len()),
        (0, 0)
    );
    assert_eq!(states(&world, acme).await, all("canceled", 4));
    run_jobs(&world).await;
    assert_eq!(states(&world, acme).await, all("canceled", 2));
    assert_eq!(number(&world, "SELECT count(*) FROM webhook_endpoints").await, 1);
}

/// The request marks the endpoint, and a job removes in batches what an endpoint has had. Nothing of others goes with it.
#[actix_web::test]
async fn deletion_lasts_no_longer_with_many_deliveries() {
    let (world, _sink) = world().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let mut made = Vec::new();
    for tenant in [acme, globex] {
        made.push(endpoint(&world, tenant, &HookSink::default(), "x").await);
    }
    for sql in [
        "INSERT INTO webhook_deliveries (tenant_id, created_at, message_id, endpoint_id, kind, position, state, attempts, tries) \
         SELECT p.tenant_id, now(), gen_random_uuid(), p.id, 'task.updated', n, 'succeeded', 1, 1 \
         FROM webhook_endpoints p, generate_series(1, 2500) n",
        "INSERT INTO webhook_attempts (tenant_id, created_at, delivery_id, endpoint_id, number, outcome, latency_ms) \
         SELECT tenant_id, now(), id, endpoint_id, 1, 'delivered', 5 FROM webhook_deliveries",
    ] {
        world.sql(sql).await;
    }
    let at = format!("{ENDPOINTS}/{}", made[0]);
    world.delete(&acme.admin, &at).await.expect(204);
    world.get(&acme.admin, &at).await.problem(404, "not_found");
    assert_eq!(states(&world, acme).await, all("succeeded", 2500));
    let wiped = "SELECT count(*) FROM webhook_endpoints WHERE deleted_at IS NOT NULL AND NOT enabled AND sealed_credentials = ''";
    assert_eq!(number(&world, wiped).await, 1);
    // A job that names a live endpoint deletes nothing.
    let alive = DeletedEndpoint {
        endpoint: made[1].parse().unwrap(),
    };
    RemoveEndpoint
        .run(&system(&world, globex).await, alive)
        .await
        .unwrap();
    run_jobs(&world).await;
    assert_eq!(states(&world, acme).await, []);
    assert_eq!(states(&world, globex).await, all("succeeded", 2500));
    assert_eq!(
        number(&world, "SELECT count(*) FROM webhook_attempts").await,
        2500
    );
    assert_eq!(number(&world, "SELECT count(*) FROM webhook_endpoints").await, 1);
}

#[actix_web::test]
async fn deliveries_are_kept_as_long_as_their_events() {
    let (world, sink) = world().await;
    endpoint(&world, &world.acme, &sink, "x").await;
    emit(&world, &world.acme, 3).await;
    send(&world).await;
    let keep = async || {
        KeepEvents
            .run(&system(&world, &world.acme).await, Nothing {})
            .await
            .unwrap();
    };
    keep().await;
    assert_eq!(states(&world, &world.acme).await, all("succeeded", 3));
    world.clock.advance(Span::days(31));
    // The newest event is kept whatever its age.
    emit(&world, &world.acme, 1).await;
    keep().await;
    assert_eq!(states(&world, &world.acme).await, all("pending", 1));
    assert_eq!(number(&world, "SELECT count(*) FROM webhook_attempts").await, 0);
}
