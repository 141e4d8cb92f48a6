//! Usage: each event counts once and for one tenant, whatever is sent twice, late, at once or taken back, and every total
//! equals the ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::http::Method;
use chrono::{Duration, Timelike as _};
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_billing::BillingHandlers as _;
use tenantry_billing::plans::plan;
use tenantry_billing::usage;
use tenantry_billing::usage::quota_drift::{self, Repair};
use tenantry_billing::usage::usage_rollup::{Keep, RollUp};
use tenantry_billing::usage::{metering, quota};
use tenantry_domain::kernel::{
    Clock as _, IdSource as _, Limit, Period, StoreError, SystemScope, TenantId, Time, UsageEventId,
};
use tenantry_domain::usage::{
    Aggregation, Call, Granularity, MeterKey, NewUsage, Rollup, UsageEvent, UsageKey, UsageOrigin, total_of,
};
use tenantry_persistence::PoolConfig;
use tenantry_system::SystemIds;
use tenantry_tenancy::operations::job::{Handlers, JobHandler as _, Nothing};
use tenantry_tenancy::{Cx, Origin, Tenancy};
use tenantry_tests::{
    ManualClock, Options, Person, Reply, TenantWorld, World, operator_cx, plans_with_meters,
};

use crate::jobs;

const EVENTS: &str = "/api/v1/usage/events";

fn options() -> Options {
    Options {
        plans: Some(plans_with_meters()),
        ..Options::default()
    }
}

async fn world() -> World {
    World::with(options()).await
}

fn meter(name: &str) -> MeterKey {
    MeterKey::parse(name).unwrap()
}

fn event(key: &str, quantity: u64) -> Value {
    json!({"idempotency_key": key, "meter": "sum_meter", "quantity": quantity})
}

async fn send(world: &World, tenant: &TenantWorld, body: &Value) -> Reply {
    world.post(&tenant.admin, EVENTS, body).await
}

async fn send_cloud(world: &World, kind: &str, body: &Value) -> Reply {
    let request = world.client.request(Method::POST, EVENTS).body(body.to_string());
    let request = request.bearer(&world.acme.admin.access_token);
    request.header("Content-Type", kind).await
}

/// A context of the system's in a tenant.
async fn system(app: &Arc<Tenancy>, tenant: TenantId) -> Cx {
    let because = SystemScope::because("a test");
    let scope = app.ports.gate.system(because, tenant).await.unwrap();
    Cx::new(Arc::clone(app), scope, Origin::default())
}

async fn total(world: &World, tenant: &TenantWorld, name: &str) -> u64 {
    let now = world.clock.now();
    let period = Period {
        start: now - Duration::days(100),
        end: now + Duration::days(1),
    };
    total_in(world, tenant, name, period).await
}

async fn total_in(world: &World, tenant: &TenantWorld, name: &str, period: Period) -> u64 {
    let cx = system(&world.app, tenant.id).await;
    let meter = &cx.ports().plans.meters()[name].clone();
    cx.read(async |work| work.usage().total(&meter.key, meter.aggregation, period).await)
        .await
        .unwrap()
}

async fn roll_up(app: &Arc<Tenancy>, tenant: TenantId) {
    RollUp.run(&system(app, tenant).await, Nothing {}).await.unwrap();
}

/// What jobs do of a tenant's usage.
pub(crate) async fn look_after(app: &Arc<Tenancy>, tenant: TenantId) {
    Keep.run(&system(app, tenant).await, Nothing {}).await.unwrap();
    roll_up(app, tenant).await;
}

async fn count(world: &World, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {sql}")))
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

async fn run(world: &World, sql: &str) {
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut admin)
        .await
        .unwrap();
}

// ------------------------------------------------------------------------------------------------------------- ingest

#[actix_web::test]
async fn an_event_counts_once_however_often_it_is_sent() {
    let world = world().await;
    let first = send(&world, &world.acme, &event("one", 3))
        .await
        .expect(200)
        .json();
    assert_eq!(first["accepted"], 1);
    let after = world.digest(&world.acme).await;
    let again = send(&world, &world.acme, &event("one", 3))
        .await
        .expect(200)
        .json();
    assert_eq!(
        again,
        json!({"accepted": 0, "duplicates": 1, "failures": [], "ids": first["ids"], "over_limit": []})
    );
    let problem = send(&world, &world.acme, &event("one", 4)).await;
    problem.problem(409, "usage_conflict");
    assert_eq!(world.digest(&world.acme).await, after);
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 3);
    // Another tenant's keys are its own.
    send(&world, &world.globex, &event("one", 4)).await.expect(200);
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 3);
    assert_eq!(total(&world, &world.globex, "sum_meter").await, 4);
}

#[actix_web::test]
async fn a_list_is_answered_event_by_event() {
    let world = world().await;
    send(&world, &world.acme, &event("there", 1)).await.expect(200);
    let now = world.clock.now();
    let at = |offset: Duration| json!((now + offset).to_rfc3339());
    let old = json!({"idempotency_key": "old", "meter": "sum_meter", "quantity": 1, "occurred_at": at(-Duration::hours(25))});
    let early = json!({"idempotency_key": "early", "meter": "sum_meter", "quantity": 1, "occurred_at": at(Duration::minutes(6))});
    let body = json!([
        event("new", 1),
        event("there", 1),
        event("there", 2),
        event("new", 1),
        event("new", 2),
        {"idempotency_key": "a", "meter": "nothing", "quantity": 1},
        {"idempotency_key": "b", "meter": "api_calls", "quantity": 1},
        {"idempotency_key": "c", "meter": "unique_meter", "quantity": 1},
        {"idempotency_key": "d", "meter": "sum_meter", "quantity": -1},
        {"idempotency_key": "e", "meter": "sum_meter"},
        {"idempotency_key": "f", "meter": "sum_meter", "quantity": 1, "more": 1},
        17,
        old,
        early,
    ]);
    let reply = send(&world, &world.acme, &body).await.expect(200).json();
    assert_eq!((&reply["accepted"], &reply["duplicates"]), (&json!(1), &json!(2)));
    let failures: BTreeMap<u64, &str> = reply["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| {
            (
                failure["index"].as_u64().unwrap(),
                failure["code"].as_str().unwrap(),
            )
        })
        .collect();
    let invalid = "validation_failed";
    assert_eq!(
        failures.into_iter().collect::<Vec<_>>(),
        [
            (2, "usage_conflict"),
            (4, "usage_conflict"),
            (5, "unknown_meter"),
            (6, "meter_reserved"),
            (7, invalid),
            (8, invalid),
            (9, invalid),
            (10, invalid),
            (11, invalid),
            (12, "usage_too_old"),
            (13, "usage_in_future"),
        ]
    );
    assert_eq!(reply["ids"][0], reply["ids"][3]);
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 2);
}

#[actix_web::test]
async fn alone_an_event_that_is_not_taken_is_a_problem() {
    let world = world().await;
    let at = (world.clock.now() - Duration::hours(25)).to_rfc3339();
    for (body, status, code) in [
        (
            json!({"idempotency_key": "a", "meter": "nothing", "quantity": 1}),
            422,
            "unknown_meter",
        ),
        (
            json!({"idempotency_key": "a", "meter": "api_calls", "quantity": 1}),
            422,
            "meter_reserved",
        ),
        (
            json!({"idempotency_key": "a", "meter": "sum_meter", "quantity": 1, "occurred_at": at}),
            422,
            "usage_too_old",
        ),
        (
            json!({"idempotency_key": "a", "meter": "sum_meter", "quantity": 1.5}),
            422,
            "validation_failed",
        ),
        (
            json!({"idempotency_key": "", "meter": "sum_meter", "quantity": 1}),
            422,
            "validation_failed",
        ),
        (
            json!({"idempotency_key": "a", "meter": "sum_meter", "quantity": 9_007_199_254_740_992_u64}),
            422,
            "validation_failed",
        ),
        (
            json!({"idempotency_key": "a", "meter": "sum_meter", "quantity": 1, "properties": {"a": "\u{0}"}}),
            422,
            "validation_failed",
        ),
        (json!([]), 422, "validation_failed"),
        (json!(vec![event("a", 1); 1_001]), 422, "validation_failed"),
    ] {
        send(&world, &world.acme, &body).await.problem(status, code);
    }
    assert_eq!(
        count(&world, "usage_keys").await,
        2,
        "those of the resources' bytes"
    );
}

#[actix_web::test]
async fn what_is_older_is_taken_from_whoever_says_so_and_marked() {
    let world = world().await;
    let now = world.clock.now();
    let at = |key: &str, ago: Duration| json!({"idempotency_key": key, "meter": "sum_meter", "quantity": 1, "occurred_at": (now - ago).to_rfc3339()});
    let path = format!("{EVENTS}?backfill=true");
    let body = json!([
        at("a", Duration::days(89)),
        at("b", Duration::hours(1)),
        at("c", Duration::days(91))
    ]);
    let reply = world
        .post(&world.acme.admin, &path, &body)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&reply["accepted"], &reply["failures"][0]["code"]),
        (&json!(2), &json!("usage_too_old"))
    );
    assert_eq!(
        count(
            &world,
            "usage_events WHERE origin = 'backfill' AND idempotency_key = 'a'"
        )
        .await,
        1
    );
    assert_eq!(
        count(
            &world,
            "usage_events WHERE origin = 'api' AND idempotency_key = 'b'"
        )
        .await,
        1
    );
    // What was sent in time is the same event when it is sent again later.
    world.clock.advance(Duration::days(2));
    world.outlive_the_cache();
    let login = world
        .login("acme", &world.acme.admin.email, tenantry_tests::PASSWORD)
        .await
        .expect(200)
        .json();
    let token = login["access_token"].as_str().unwrap();
    let again = world
        .client
        .post(&path, &at("b", Duration::hours(1)))
        .bearer(token)
        .await;
    assert_eq!(again.expect(200).json()["duplicates"], 1);
}

#[actix_web::test]
async fn cloud_events_are_known_by_source_and_id() {
    let world = world().await;
    let (one, list) = (
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    );
    let event = |source: &str, id: &str, quantity: u64| {
        json!({"specversion": "1.0", "id": id, "source": source, "type": "sum_meter", "comexampleext": 1,
               "time": "2026-01-15T11:59:00Z", "subject": "s", "data": {"quantity": quantity, "format": "pdf"}})
    };
    let reply = send_cloud(&world, one, &event("/a", "1", 2))
        .await
        .expect(200)
        .json();
    assert_eq!(reply["accepted"], 1);
    let body = json!([
        event("/a", "1", 2),
        event("/b", "1", 3),
        event("/a", "1", 9),
        event("tenantry:server", "1", 1)
    ]);
    let reply = send_cloud(&world, list, &body).await.expect(200).json();
    assert_eq!((&reply["accepted"], &reply["duplicates"]), (&json!(1), &json!(1)));
    assert_eq!(reply["failures"][0]["code"], "usage_conflict");
    assert_eq!(reply["failures"][1]["code"], "validation_failed");
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 5);
    send_cloud(&world, list, &event("/c", "1", 1))
        .await
        .problem(422, "validation_failed");
    send_cloud(&world, one, &body)
        .await
        .problem(422, "validation_failed");
    let old = json!({"specversion": "0.3", "id": "1", "source": "/", "type": "sum_meter"});
    send_cloud(&world, one, &old)
        .await
        .problem(422, "validation_failed");
    let kinds = "usage_events WHERE origin = 'cloudevents' AND properties = '{\"format\": \"pdf\"}' AND subject = 's'";
    assert_eq!(count(&world, kinds).await, 2);
}

/// What was accepted of one CloudEvent: its meter, quantity, properties, source and key.
async fn only_event(world: &World) -> (String, i64, Option<Value>, String, String) {
    let sql = "DELETE FROM usage_events WHERE meter = 'sum_meter' \
               RETURNING meter, quantity, properties, source, idempotency_key";
    let mut admin = world.database.admin().await;
    sqlx::query_as(sql).fetch_one(&mut admin).await.unwrap()
}

#[actix_web::test]
async fn cloud_events_come_structured_binary_and_as_base64() {
    let world = world().await;
    let structured = "application/cloudevents+json";
    let encoded = |id: &str, data: &str| json!({"specversion": "1.0", "id": id, "source": "/a", "type": "sum_meter", "data_base64": data});
    // {"quantity": 7, "format": "pdf"}
    let reply = send_cloud(
        &world,
        structured,
        &encoded("1", "eyJxdWFudGl0eSI6IDcsICJmb3JtYXQiOiAicGRmIn0="),
    )
    .await;
    assert_eq!(reply.expect(200).json()["accepted"], 1);
    let wanted = |quantity, source: &str, key: &str| {
        let properties = Some(json!({"format": "pdf"}));
        (
            "sum_meter".to_owned(),
            quantity,
            properties,
            source.to_owned(),
            key.to_owned(),
        )
    };
    assert_eq!(only_event(&world).await, wanted(7, "/a", "1"));
    for (data, why) in [
        ("%%%", "no Base64"),
        ("bm90IGpzb24=", "no JSON"),
        ("WzFd", "no object"),
    ] {
        let problem = send_cloud(&world, structured, &encoded("2", data)).await;
        let problem = problem.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], "/data_base64", "{why}");
    }
    // What breaks a rule is named as the event names it.
    let large = "x".repeat(NewUsage::LARGEST_PROPERTIES);
    for (event, pointer) in [
        (json!({"id": "a\u{7f}b"}), "/id"),
        (json!({"id": "x".repeat(256)}), "/id"),
        (
            json!({"data": {"quantity": NewUsage::MOST + 1}}),
            "/data/quantity",
        ),
        (
            json!({"data": {"quantity": NewUsage::MOST_OF_A_DAY + 1}}),
            "/data/quantity",
        ),
        (json!({"data": {"large": large}}), "/data"),
    ] {
        let mut all = json!({"specversion": "1.0", "id": "9", "source": "/a", "type": "sum_meter"});
        let changed = event.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(changed);
        let problem = send_cloud(&world, structured, &all).await;
        let problem = problem.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let mut both = encoded("3", "e30=");
    both["data"] = json!({});
    let mut stray =
        json!({"specversion": "1.0", "id": "4", "source": "/a", "type": "sum_meter", "quantity": 900});
    for (event, pointer) in [(&both, "/data_base64"), (&stray, "/quantity")] {
        let problem = send_cloud(&world, structured, event)
            .await
            .problem(422, "validation_failed")
            .json();
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    stray["quantity"].take();
    send_cloud(&world, structured, &stray)
        .await
        .problem(422, "validation_failed");
    assert_eq!(count(&world, "usage_events WHERE meter = 'sum_meter'").await, 0);

    // Binary: attributes in headers, percent-encoded, and the data as the body.
    let binary = async |headers: &[(&str, &str)], body: &str| {
        let request = world.client.request(Method::POST, EVENTS).body(body.to_owned());
        let request = request.bearer(&world.acme.admin.access_token);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        request.await
    };
    let json = ("Content-Type", "application/json; charset=utf-8");
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-id", "5"),
        ("ce-source", "/caf%C3%A9"),
        ("ce-type", "sum_meter"),
        ("ce-time", "2026-01-15T11:59:00Z"),
        ("ce-comexampleext", "1"),
    ];
    let all = [&[json][..], &attributes[..]].concat();
    let body = r#"{"quantity": 8, "format": "pdf"}"#;
    assert_eq!(binary(&all, body).await.expect(200).json()["accepted"], 1);
    assert_eq!(binary(&all, body).await.expect(200).json()["duplicates"], 1);
    assert_eq!(only_event(&world).await, wanted(8, "/café", "5"));
    // Without data it counts one.
    let bare = [&attributes[..1], &[("ce-id", "6")][..], &attributes[2..]].concat();
    assert_eq!(binary(&bare, "").await.expect(200).json()["accepted"], 1);
    assert_eq!(only_event(&world).await.1, 1);
    for (more, without, pointer) in [
        (Some(("ce-quantity", "9")), "", "/quantity"),
        (Some(("ce-id", "twice")), "", "/id"),
        (Some(("ce-data", "{}")), "", "/data"),
        (None, "ce-specversion", "/specversion"),
        (None, "ce-source", "/source"),
        (Some(("ce-id", "a%00b")), "ce-id", "/id"),
        (Some(("ce-id", "")), "ce-id", "/id"),
        (Some(("ce-source", "a%00b")), "ce-source", "/source"),
        (Some(("ce-subject", "a%00b")), "", "/subject"),
    ] {
        let mut headers = all.clone();
        headers.retain(|(name, _)| *name != without);
        headers.extend(more);
        let problem = binary(&headers, body)
            .await
            .problem(422, "validation_failed")
            .json();
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let text = [&[("Content-Type", "text/plain")][..], &attributes[..]].concat();
    binary(&text, "7").await.problem(415, "unsupported_media_type");
}

/// Agrees with acme on how many events it may send in a day.
async fn bound(world: &World, events: u64) {
    let limits = [("usage_events_per_day".to_owned(), Some(Limit::Of(events)))].into();
    let agreement = plan::Agreement {
        limits,
        ..plan::Agreement::default()
    };
    world.agree(world.acme.id, agreement).await;
}

/// What the API says of a meter or a limit of acme.
async fn entitlement(world: &World, name: &str) -> Value {
    let path = format!("/api/v1/entitlements/{name}");
    let get = world.get(&world.acme.viewer, &path);
    get.await.expect(200).json()
}

#[actix_web::test]
async fn events_of_a_day_are_bounded_by_the_plan_to_the_event() {
    let world = world().await;
    bound(&world, 10).await;
    let three = |batch: usize| json!([0, 1, 2].map(|number| event(&format!("{batch}-{number}"), 1)));
    let bodies: Vec<Value> = (0..12).map(three).collect();
    let sent = join_all(bodies.iter().map(|body| send(&world, &world.acme, body))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = sent.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((taken.len(), refused.len()), (3, 9));
    assert_eq!(
        count(&world, "usage_events WHERE meter = 'sum_meter'").await,
        9,
        "nothing of a list that was refused"
    );
    for reply in refused {
        let problem = reply.problem(429, "quota_exceeded");
        // It is noon.
        assert_eq!(
            problem
                .header("Retry-After")
                .map(|wait| wait.parse::<u64>().unwrap().div_ceil(60)),
            Some(720)
        );
        let problem = problem.json();
        assert_eq!(
            (&problem["meter"], &problem["limit"], &problem["resets_at"]),
            (
                &json!("usage_events_per_day"),
                &json!(10),
                &json!("2026-01-16T00:00:00Z")
            )
        );
    }
    send(&world, &world.acme, &event("last", 1)).await.expect(200);
    send(&world, &world.acme, &event("more", 1))
        .await
        .problem(429, "quota_exceeded");
    // What was accepted before is no further event, and another tenant has a bound of its own.
    assert_eq!(
        send(&world, &world.acme, &event("last", 1))
            .await
            .expect(200)
            .json()["duplicates"],
        1
    );
    send(&world, &world.globex, &event("more", 1)).await.expect(200);
    let stands = entitlement(&world, "usage_events_per_day").await;
    assert_eq!(
        (&stands["limit"], &stands["used"], &stands["has_access"]),
        (&json!(10), &json!(10), &json!(false))
    );
    assert_eq!(stands["resets_at"], "2026-01-16T00:00:00Z");
    assert_eq!(entitlement(&world, "projects").await["resets_at"], json!(null));
    world.clock.advance(Duration::hours(12));
    let login = world
        .login("acme", &world.acme.admin.email, tenantry_tests::PASSWORD)
        .await;
    let login = login.expect(200).json();
    let token = login["access_token"].as_str().unwrap();
    let tomorrow = world.client.post(EVENTS, &event("more", 1)).bearer(token);
    tomorrow.await.expect(200);
}

/// A list that is refused says which events fit, so that its sender can go on with them.
#[actix_web::test]
async fn list_beyond_a_bound_of_a_day_says_what_fits() {
    const DAY: u64 = NewUsage::MOST_OF_A_DAY;
    let world = world().await;
    bound(&world, 4).await;
    send(&world, &world.acme, &json!([event("a", 1), event("b", 1)]))
        .await
        .expect(200);
    // Duplicates and events that are refused for themselves take no place.
    let list = json!([
        event("a", 1), {"idempotency_key": "x", "meter": "unknown", "quantity": 1}, event("c", 1), event("c", 1),
        event("d", 1), event("e", 1), event("b", 1), event("f", 1),
    ]);
    let refused = send(&world, &world.acme, &list).await;
    let refused = refused.problem(429, "quota_exceeded").json();
    assert_eq!(
        (&refused["index"], &refused["fitting"], &refused["used"]),
        (&json!(5), &json!(2), &json!(2))
    );
    assert_eq!(count(&world, "usage_events WHERE meter = 'sum_meter'").await, 2);
    let fitting = json!(list.as_array().unwrap()[..5]);
    let sent = send(&world, &world.acme, &fitting).await.expect(200).json();
    assert_eq!((&sent["accepted"], &sent["duplicates"]), (&json!(2), &json!(2)));
    let single = send(&world, &world.acme, &event("e", 1)).await;
    let single = single.problem(429, "quota_exceeded").json();
    assert_eq!((&single["index"], &single["fitting"]), (&json!(0), &json!(0)));
    // Quantities: the first event that does not fit is named.
    bound(&world, 100).await;
    let list = json!([event("g", DAY - 4), {"idempotency_key": "h", "meter": "max_meter", "quantity": 9}, event("i", 1)]);
    let refused = send(&world, &world.acme, &list).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["pointer"], "/2/quantity");
    let fitting = json!(list.as_array().unwrap()[..2]);
    send(&world, &world.acme, &fitting).await.expect(200);
    // Of two days that are exceeded, the one of the earlier event.
    let yesterday = (world.clock.now() - Duration::hours(23)).to_rfc3339();
    let of_yesterday = |key: &str| json!({"idempotency_key": key, "meter": "sum_meter", "quantity": DAY, "occurred_at": yesterday});
    let list = json!([event("j", 9), of_yesterday("k"), of_yesterday("l")]);
    let refused = send(&world, &world.acme, &list).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["pointer"], "/0/quantity");
    let cloud = json!([{"specversion": "1.0", "id": "1", "source": "/a", "type": "sum_meter"}]);
    let refused = send_cloud(&world, "application/cloudevents-batch+json", &cloud).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["pointer"], "/0/data/quantity");
}

/// The bound of events is one of what is stored, and an invalidated event stays stored; the bound of quantities is one of totals,
/// in which it no longer counts.
#[actix_web::test]
async fn invalidation_gives_back_the_quantity_and_not_the_event() {
    const DAY: u64 = NewUsage::MOST_OF_A_DAY;
    let world = world().await;
    bound(&world, 2).await;
    let wrong = send(&world, &world.acme, &event("wrong", DAY))
        .await
        .expect(200)
        .json();
    let right = event("right", 7);
    let refused = send(&world, &world.acme, &right).await;
    refused.problem(422, "validation_failed");
    let path = format!(
        "/api/v1/usage/events/{}/invalidate",
        wrong["ids"][0].as_str().unwrap()
    );
    let reason = json!({"reason": "a wrong unit"});
    world.post(&world.acme.admin, &path, &reason).await.expect(200);
    assert_eq!(entitlement(&world, "usage_events_per_day").await["used"], 1);
    send(&world, &world.acme, &right).await.expect(200);
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 7);
    let third = send(&world, &world.acme, &event("third", 1)).await;
    third.problem(429, "quota_exceeded");
    let intake = "SELECT quantity FROM usage_intake WHERE meter = 'sum_meter'";
    let mut admin = world.database.admin().await;
    let quantity: i64 = sqlx::query_scalar(intake).fetch_one(&mut admin).await.unwrap();
    assert_eq!(quantity, 7);
}

/// A correction is not undone by what is recorded after it, nor by a limit that is lifted and comes back.
#[actix_web::test]
async fn correction_outlasts_the_usage_that_follows() {
    let world = world().await;
    let because = SystemScope::because("a test");
    let used = async |name: &str| entitlement(&world, name).await["used"].clone();
    let correct = async |name: &str, used: u64| {
        let correction = (&meter(name), used, "a test");
        quota::correct(&operator_cx(&world.app), because, world.acme.id, correction)
            .await
            .unwrap()
    };
    let of = |name: &str, key: &str, quantity: u64| json!({"idempotency_key": key, "meter": name, "quantity": quantity});
    for name in ["sum_meter", "count_meter"] {
        crate::quotas::limit(&world, &world.acme, name, 1_000).await;
        for key in 0..100 {
            send(&world, &world.acme, &of(name, &format!("{name}{key}"), 1))
                .await
                .expect(200);
        }
        assert_eq!(used(name).await, 100);
        assert_eq!(correct(name, 40).await.before, 100);
        send(&world, &world.acme, &of(name, &format!("{name}next"), 1))
            .await
            .expect(200);
        assert_eq!(used(name).await, 41);
        let agree = async |limit: Limit| {
            let meters = [(meter(name), Some(limit))].into();
            let agreement = plan::Agreement {
                meters,
                ..plan::Agreement::default()
            };
            world.agree(world.acme.id, agreement).await;
        };
        agree(Limit::Unlimited).await;
        send(&world, &world.acme, &of(name, &format!("{name}last"), 1))
            .await
            .expect(200);
        assert_eq!(used(name).await, 42, "without a limit too");
        agree(Limit::Of(1_000)).await;
        assert_eq!(used(name).await, 42);
        let cx = system(&world.app, world.acme.id).await;
        let drifts = quota_drift::reconcile(&cx, Repair::Nothing).await.unwrap();
        let drift = &drifts
            .iter()
            .find(|one| one.drift.meter.as_str() == name)
            .unwrap()
            .drift;
        assert_eq!(
            (drift.finding().as_str(), drift.ledger, drift.adjustment),
            ("agrees", 102, -60)
        );
    }
    // Higher than the ledger, and without a limit from the beginning.
    assert_eq!(correct("max_meter", 50).await.before, 0);
    send(&world, &world.acme, &of("max_meter", "max", 3))
        .await
        .expect(200);
    assert_eq!(used("max_meter").await, 53);
    // The latest quantity is a measurement: the next one replaces what was corrected.
    send(&world, &world.acme, &of("last_meter", "l1", 100))
        .await
        .expect(200);
    correct("last_meter", 40).await;
    assert_eq!(used("last_meter").await, 40);
    send(&world, &world.acme, &of("last_meter", "l2", 41))
        .await
        .expect(200);
    assert_eq!(used("last_meter").await, 41);
    assert_eq!(total(&world, &world.globex, "sum_meter").await, 0);
}

/// What is recorded has happened: it is accepted and shown as overage, and what is asked for after it is refused.
#[actix_web::test]
async fn usage_beyond_a_hard_limit_is_accepted_and_reported() {
    let world = world().await;
    crate::quotas::limit(&world, &world.acme, "sum_meter", 10).await;
    let reply = send(&world, &world.acme, &event("a", 8)).await.expect(200).json();
    assert_eq!(reply["over_limit"], json!([]));
    let body =
        json!([event("b", 3), event("c", 1), {"idempotency_key": "d", "meter": "max_meter", "quantity": 99}]);
    let reply = send(&world, &world.acme, &body).await.expect(200).json();
    assert_eq!(reply["accepted"], 3);
    let over = json!([{"meter": "sum_meter", "limit": 10, "used": 12, "overage": 2}]);
    assert_eq!(reply["over_limit"], over);
    let stands = entitlement(&world, "sum_meter").await;
    assert_eq!(
        (&stands["used"], &stands["balance"], &stands["has_access"]),
        (&json!(12), &json!(0), &json!(false))
    );
    let reserve = json!({"amount": 1, "ttl_seconds": 60});
    let path = "/api/v1/quotas/sum_meter/reservations";
    let reserve = world.post(&world.acme.member, path, &reserve);
    reserve.await.problem(429, "quota_exceeded");
    let alerts = world.get(&world.acme.viewer, "/api/v1/quotas/alerts");
    let alerts = alerts.await.expect(200).json();
    let told: Vec<_> = alerts["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| alert["percent"].clone())
        .collect();
    assert_eq!(told, [json!(100), json!(80)]);
    // A lower total takes nothing back, so that nobody frees a quota by taking usage back.
    let reply = send(&world, &world.globex, &event("a", 99))
        .await
        .expect(200)
        .json();
    assert_eq!(reply["over_limit"], json!([]), "the other tenant has no limit");
}

/// Quantities near what a day may have: a total is one number wherever it is shown, or the event is refused.
#[actix_web::test]
async fn totals_at_the_limits_are_one_number_everywhere() {
    const DAY: u64 = NewUsage::MOST_OF_A_DAY;
    let world = world().await;
    let now = world.clock.now();
    let quantities = [0, 1, DAY / 2, DAY - 1, DAY];
    let strategy = prop::collection::vec((0_usize..5, 0_i64..24, 0_usize..METERS.len()), 40);
    let steps = strategy
        .new_tree(&mut TestRunner::deterministic())
        .unwrap()
        .current();
    let mut ledger: Vec<UsageEvent> = Vec::new();
    let mut days = BTreeMap::<Time, u64>::new();
    for (number, (quantity, hours, meter_number)) in steps.into_iter().enumerate() {
        let (name, at) = (METERS[meter_number], now - Duration::hours(hours));
        let quantity = quantities[quantity];
        let event = json!({"idempotency_key": format!("k{number}"), "meter": name, "quantity": quantity,
                           "occurred_at": at, "subject": format!("s{}", number % 3)});
        let reply = send(&world, &world.acme, &event).await;
        let day = days.entry(Period::day_of(at).start).or_default();
        if name == "sum_meter" && *day + quantity > DAY {
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(problem["errors"][0]["pointer"], "/quantity");
            continue;
        }
        if name == "sum_meter" {
            *day += quantity;
        }
        let id = reply.expect(200).json()["ids"][0]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let cx = system(&world.app, world.acme.id).await;
        ledger.push(found(&cx, id).await);
        if number % 10 == 9 {
            roll_up(&world.app, world.acme.id).await;
        }
    }
    assert!(
        days.values().any(|day| *day > DAY / 2),
        "the bounds are reached: {days:?}"
    );
    for pass in 0..2 {
        one_number(&world, &ledger, pass).await;
        roll_up(&world.app, world.acme.id).await;
    }
    for (name, quantity, refused) in [
        ("sum_meter", DAY + 1, true),
        ("max_meter", NewUsage::MOST, false),
        ("max_meter", NewUsage::MOST + 1, true),
    ] {
        let event =
            json!({"idempotency_key": format!("{name}{quantity}"), "meter": name, "quantity": quantity});
        let reply = send(&world, &world.acme, &event).await;
        assert_eq!(reply.status, if refused { 422 } else { 200 }, "{name} {quantity}");
    }
}

/// What the summary says of each meter is what the ledger says, and of those that add up what hours and days come to.
async fn one_number(world: &World, ledger: &[UsageEvent], pass: usize) {
    let get = async |path: &str| world.get(&world.acme.viewer, path).await.expect(200).json();
    let summary = get("/api/v1/usage/summary").await;
    for used in summary["meters"].as_array().unwrap() {
        let name = used["meter"].as_str().unwrap();
        if !METERS.contains(&name) {
            continue;
        }
        let aggregation = Aggregation::parse(used["aggregation"].as_str().unwrap()).unwrap();
        let time = |field: &str| used[field].as_str().unwrap().parse::<Time>().unwrap();
        let period = Period {
            start: time("period_start"),
            end: time("resets_at"),
        };
        let expected = total_of(ledger, &meter(name), aggregation, period);
        assert_eq!(used["used"].as_u64(), Some(expected), "{name} {pass}");
        assert!(expected <= NewUsage::MOST, "every reader of JSON keeps it");
        if !aggregation.adds_up() {
            continue;
        }
        for (granularity, from) in [("hour", "2026-01-10T00:00:00Z"), ("day", "2026-01-01T00:00:00Z")] {
            let to = "2026-01-31T00:00:00Z";
            let path = format!("/api/v1/usage?meter={name}&granularity={granularity}&from={from}&to={to}");
            let series = get(&path).await;
            let points = series["series"].as_array().unwrap().iter();
            let sum: u64 = points.map(|point| point["quantity"].as_u64().unwrap()).sum();
            assert_eq!(sum, expected, "{name} by {granularity} {pass}");
        }
    }
}

#[actix_web::test]
async fn a_series_outside_the_years_that_can_be_shown_is_refused() {
    let world = world().await;
    let get = async |from: &str, to: &str| {
        let path = format!("/api/v1/usage?meter=sum_meter&granularity=day&from={from}&to={to}");
        world.get(&world.acme.viewer, &path).await
    };
    for (from, to, pointer) in [
        ("1969-12-31T00:00:00Z", "1970-01-02T00:00:00Z", "/query/from"),
        ("9998-12-31T00:00:00Z", "9999-01-02T00:00:00Z", "/query/to"),
        ("9999-12-30T00:00:00Z", "9999-12-31T23:59:59Z", "/query/from"),
    ] {
        let problem = get(from, to).await.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{from}");
    }
    for year in [2262, 2263, 9998] {
        let series = get(
            &format!("{year}-05-01T12:00:00Z"),
            &format!("{year}-05-03T12:00:00Z"),
        )
        .await;
        let series = series.expect(200).json();
        let starts: Vec<_> = series["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| point["start"].clone())
            .collect();
        let days = [1, 2, 3].map(|day| json!(format!("{year}-05-0{day}T00:00:00Z")));
        assert_eq!(starts, days);
    }
}

#[actix_web::test]
async fn admins_record_and_everybody_looks() {
    let world = world().await;
    let acme = &world.acme;
    for (who, status) in [(&acme.viewer, 403), (&acme.member, 403), (&acme.admin, 200)] {
        world.post(who, EVENTS, &event("k", 1)).await.expect(status);
        world.get(who, "/api/v1/usage/summary").await.expect(200);
    }
    world.set_status(acme, "suspended").await;
    world
        .post(&acme.admin, EVENTS, &event("l", 1))
        .await
        .problem(403, "tenant_suspended");
    world
        .get(&acme.viewer, "/api/v1/usage?meter=sum_meter")
        .await
        .expect(200);
}

#[actix_web::test]
async fn of_many_who_send_the_same_at_once_one_is_first() {
    let world = world().await;
    let events: Vec<Value> = (0..50).map(|n| event(&format!("k{n}"), 1)).collect();
    let mut reversed = events.clone();
    reversed.reverse();
    let bodies = [json!(events), json!(reversed)];
    let sent = join_all((0..12).map(|n| send(&world, &world.acme, &bodies[n % 2]))).await;
    let sum = |replies: &[Value], name: &str| -> u64 {
        replies.iter().map(|reply| reply[name].as_u64().unwrap()).sum()
    };
    let replies: Vec<Value> = sent.into_iter().map(|reply| reply.expect(200).json()).collect();
    assert_eq!(
        (sum(&replies, "accepted"), sum(&replies, "duplicates")),
        (50, 550)
    );
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 50);
}

// ------------------------------------------------------------------------------------------------------- invalidation

#[actix_web::test]
async fn an_event_is_taken_back_once_and_by_its_own_tenant() {
    let world = world().await;
    let reply = send(&world, &world.acme, &json!([event("a", 5), event("b", 2)]))
        .await
        .expect(200)
        .json();
    let path = format!("{EVENTS}/{}/invalidate", reply["ids"][0].as_str().unwrap());
    let reason = json!({"reason": "counted twice"});
    roll_up(&world.app, world.acme.id).await;
    world
        .post(&world.globex.admin, &path, &reason)
        .await
        .problem(404, "not_found");
    world
        .post(&world.acme.member, &path, &reason)
        .await
        .problem(403, "forbidden");
    let blank = json!({"reason": " "});
    world
        .post(&world.acme.admin, &path, &blank)
        .await
        .problem(422, "validation_failed");
    let at_once = join_all((0..4).map(|_| world.post(&world.acme.admin, &path, &reason).send())).await;
    let mut statuses: Vec<u16> = at_once.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409]);
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 2);
    roll_up(&world.app, world.acme.id).await;
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 2);
    assert_eq!(
        count(&world, "usage_events WHERE meter = 'sum_meter'").await,
        3,
        "nothing is changed or gone"
    );
    // Neither is an invalidation taken back, nor what the server counted.
    let done = at_once
        .into_iter()
        .find(|reply| reply.status == 200)
        .unwrap()
        .json();
    let path = format!("{EVENTS}/{}/invalidate", done["id"].as_str().unwrap());
    world
        .post(&world.acme.admin, &path, &reason)
        .await
        .problem(404, "not_found");
    let sql = "SELECT id::text FROM usage_events WHERE meter = 'storage_bytes' AND tenant_id = $1";
    let own: String = sqlx::query_scalar(sql)
        .bind(world.acme.id.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    let path = format!("{EVENTS}/{own}/invalidate");
    world
        .post(&world.acme.admin, &path, &reason)
        .await
        .problem(403, "forbidden");
    let audit = world.audit(&world.acme).await;
    assert_eq!(
        audit
            .iter()
            .filter(|(action, _)| action == "usage.invalidated")
            .count(),
        1
    );
}

// ------------------------------------------------------------------------------------------------------------- totals

/// An event of a property test: which meter, when in minutes since some day, how much, of whom.
type Made = (usize, i64, u64, u8);

const METERS: [&str; 5] = [
    "sum_meter",
    "count_meter",
    "max_meter",
    "last_meter",
    "unique_meter",
];

#[derive(Debug, Clone)]
enum Step {
    /// Sends these events, by their number, new or not.
    Send(Vec<usize>),
    /// Takes one back.
    Invalidate(usize),
    RollUp,
}

fn steps() -> impl Strategy<Value = (Vec<Made>, Vec<Step>)> {
    let event = (0..5_usize, 0..3 * 24 * 60_i64, 0..50_u64, 0..4_u8);
    let step = prop_oneof![
        5 => prop::collection::vec(0..40_usize, 1..12).prop_map(Step::Send),
        2 => (0..40_usize).prop_map(Step::Invalidate),
        2 => Just(Step::RollUp),
    ];
    (
        prop::collection::vec(event, 40),
        prop::collection::vec(step, 1..25),
    )
}

#[actix_web::test]
async fn totals_equal_the_ledger_whatever_is_sent_twice_late_or_taken_back() {
    let world = world().await;
    let mut runner = TestRunner::deterministic();
    for case in 0..24 {
        let (made, steps) = steps().new_tree(&mut runner).unwrap().current();
        // Each case has days of its own.
        let origin = world.clock.now() - Duration::days(85) + Duration::days(3 * case);
        let origin = Period::day_of(origin).start;
        let mut ledger = Vec::new();
        let cx = system(&world.app, world.acme.id).await;
        for step in &steps {
            take(&cx, case, origin, &made, step, &mut ledger).await;
        }
        let days = Period {
            start: origin,
            end: origin + Duration::days(3),
        };
        check(&cx, &ledger, days).await;
        roll_up(&world.app, world.acme.id).await;
        check(&cx, &ledger, days).await;
        assert_eq!(
            count(&world, "usage_dirty WHERE meter <> 'storage_bytes'").await,
            0
        );
    }
    assert_eq!(
        count(
            &world,
            &format!(
                "usage_events WHERE tenant_id = '{}' AND meter <> 'storage_bytes'",
                world.globex.id
            )
        )
        .await,
        0
    );
}

async fn take(cx: &Cx, case: i64, origin: Time, made: &[Made], step: &Step, ledger: &mut Vec<UsageEvent>) {
    let key = |number: usize| UsageKey::new("test", format!("{case}:{number}"));
    match step {
        Step::Send(numbers) => {
            let mut numbers = numbers.clone();
            numbers.sort_unstable();
            numbers.dedup();
            let new = |number: &usize| {
                let (meter_number, minute, quantity, subject) = made[*number];
                NewUsage {
                    key: key(*number),
                    meter: meter(METERS[meter_number]),
                    quantity,
                    event_at: Some(origin + Duration::minutes(minute)),
                    subject: Some(subject.to_string()),
                    properties: None,
                    origin: UsageOrigin::Server,
                }
            };
            let events: Vec<NewUsage> = numbers.iter().map(new).collect();
            let appended = cx
                .write(async |work| usage::record(cx, work, &events).await)
                .await
                .unwrap();
            for outcome in appended {
                if let tenantry_domain::usage::Appended::Accepted(id) = outcome {
                    ledger.push(found(cx, id).await);
                }
            }
        }
        Step::Invalidate(number) => {
            let Some(event) = ledger.iter().find(|event| event.key == key(*number)).cloned() else {
                return;
            };
            let correction = UsageEvent {
                id: UsageEventId::from(SystemIds.uuid()),
                quantity: 0,
                accepted_at: cx.now(),
                key: UsageKey::new(UsageKey::INVALIDATION, event.id.to_string()),
                invalidates: Some(event.id),
                ..event
            };
            let keyed = tenantry_domain::usage::KeyedUsage {
                event: correction.clone(),
                payload_hash: String::new(),
            };
            let appended = cx
                .write(async |work| work.usage().append(std::slice::from_ref(&keyed)).await)
                .await
                .unwrap();
            if matches!(appended[0], tenantry_domain::usage::Appended::Accepted(_)) {
                ledger.push(correction);
            }
        }
        Step::RollUp => RollUp.run(cx, Nothing {}).await.unwrap(),
    }
}

async fn found(cx: &Cx, id: UsageEventId) -> UsageEvent {
    let found = cx.read(async |work| work.usage().find(id).await).await.unwrap();
    found.unwrap()
}

/// Each aggregation over the whole, over a period that begins and ends within hours, and over each hour and day.
async fn check(cx: &Cx, ledger: &[UsageEvent], days: Period) {
    let odd = Period {
        start: days.start + Duration::minutes(90),
        end: days.end - Duration::minutes(100),
    };
    for name in METERS {
        let key = meter(name);
        let aggregation = cx.ports().plans.meters()[name].aggregation;
        for period in [days, odd] {
            let total = cx
                .read(async |work| work.usage().total(&key, aggregation, period).await)
                .await
                .unwrap();
            // What is latest may be of an earlier case.
            let before = total_of(ledger, &key, aggregation, period);
            if aggregation != Aggregation::Last
                || ledger
                    .iter()
                    .any(|event| event.event_at < period.end && counts(ledger, event, &key))
            {
                assert_eq!(total, before, "{name} {period:?}");
            }
        }
        let dirty = cx
            .read(async |work| work.usage().dirty_hours(&key, days).await)
            .await;
        if dirty.unwrap().is_empty() {
            check_rollups(cx, ledger, &key, aggregation, days).await;
        }
    }
}

fn counts(ledger: &[UsageEvent], event: &UsageEvent, key: &MeterKey) -> bool {
    let invalid = ledger.iter().any(|other| other.invalidates == Some(event.id));
    event.meter == *key && event.invalidates.is_none() && !invalid
}

async fn check_rollups(
    cx: &Cx,
    ledger: &[UsageEvent],
    key: &MeterKey,
    aggregation: Aggregation,
    days: Period,
) {
    for granularity in Granularity::ALL {
        let rollups: Vec<Rollup> = cx
            .read(async |work| work.usage().rollups(key, granularity, days).await)
            .await
            .unwrap();
        let by_start: BTreeMap<Time, Rollup> =
            rollups.into_iter().map(|rollup| (rollup.start, rollup)).collect();
        let mut start = days.start;
        while start < days.end {
            let part = granularity.around(start);
            let of_part = ledger.iter().filter(|event| part.contains(event.event_at));
            let events = of_part.filter(|event| counts(ledger, event, key)).count() as u64;
            let rollup = by_start.get(&start);
            let measured = rollup.map(|rollup| rollup.measured).unwrap_or_default();
            let expected = if events == 0 {
                0
            } else {
                total_of(ledger, key, aggregation, part)
            };
            assert_eq!(
                (measured.quantity, measured.events),
                (expected, events),
                "{key} {start}"
            );
            start = part.end;
        }
    }
}

#[actix_web::test]
async fn an_event_that_commits_after_its_hour_was_totalled_is_not_missed() {
    let world = world().await;
    let cx = system(&world.app, world.acme.id).await;
    let new = |key: &str| NewUsage {
        key: UsageKey::new("test", key),
        meter: meter("sum_meter"),
        quantity: 1,
        event_at: None,
        subject: None,
        properties: None,
        origin: UsageOrigin::Server,
    };
    let (first, second) = (new("first"), new("second"));
    let (appended, wait) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let late = cx.write(async |work| {
        usage::record(&cx, work, std::slice::from_ref(&first)).await?;
        appended.notify_one();
        wait.notified().await;
        Ok::<_, StoreError>(())
    });
    let meanwhile = async {
        appended.notified().await;
        cx.write(async |work| usage::record(&cx, work, std::slice::from_ref(&second)).await)
            .await
            .unwrap();
        roll_up(&world.app, world.acme.id).await;
        assert_eq!(total(&world, &world.acme, "sum_meter").await, 1);
        wait.notify_one();
    };
    let (late, ()) = tokio::join!(late, meanwhile);
    late.unwrap();
    assert_eq!(
        total(&world, &world.acme, "sum_meter").await,
        2,
        "before it is totalled anew"
    );
    assert_eq!(
        count(
            &world,
            "usage_hours WHERE meter = 'sum_meter' AND quantity = 1 AND revision = 1"
        )
        .await,
        1
    );
    roll_up(&world.app, world.acme.id).await;
    assert_eq!(
        count(
            &world,
            "usage_hours WHERE meter = 'sum_meter' AND quantity = 2 AND revision = 2"
        )
        .await,
        1
    );
    // Done once more it comes to the same.
    roll_up(&world.app, world.acme.id).await;
    assert_eq!(
        count(
            &world,
            "usage_hours WHERE meter = 'sum_meter' AND quantity = 2 AND revision = 2"
        )
        .await,
        1
    );
}

#[actix_web::test]
async fn an_hour_of_many_events_of_which_some_were_taken_back_is_totalled_in_no_time() {
    let world = world().await;
    // Without statistics, as after a burst.
    let insert = |rest: &str| {
        format!(
            "INSERT INTO usage_events (tenant_id, id, created_at, meter, quantity, event_at, source, idempotency_key, origin, \
             invalidates) {rest}"
        )
    };
    let acme = world.acme.id;
    let events = format!(
        "SELECT '{acme}', gen_random_uuid(), now(), 'sum_meter', 2, '2026-01-15T11:30:00Z', 's', g::text, 'api', NULL \
         FROM generate_series(1, 30000) g"
    );
    let corrections = format!(
        "SELECT '{acme}', gen_random_uuid(), now(), meter, 0, event_at, 's', 'i' || idempotency_key, 'api', id \
         FROM usage_events WHERE meter = 'sum_meter' LIMIT 1000"
    );
    run(&world, &insert(&events)).await;
    run(&world, &insert(&corrections)).await;
    run(
        &world,
        &format!(
            "INSERT INTO usage_dirty (tenant_id, id, created_at, meter, hour) \
         VALUES ('{acme}', gen_random_uuid(), now(), 'sum_meter', '2026-01-15T11:00:00Z')"
        ),
    )
    .await;
    let began = std::time::Instant::now();
    roll_up(&world.app, acme).await;
    // A fraction of a second; with each event looked up through all of them it is minutes.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    assert_eq!(
        count(
            &world,
            "usage_hours WHERE meter = 'sum_meter' AND quantity = 58000 AND events = 29000"
        )
        .await,
        1
    );
}

#[actix_web::test]
async fn an_hour_is_totalled_when_it_is_over_or_its_changes_have_waited_in_every_tenant() {
    let world = world().await;
    let worker = jobs::worker(&world, Handlers::standard().with_usage());
    // The clock of the tests begins at the beginning of an hour.
    worker.run_once().await.unwrap();
    world.set_status(&world.globex, "suspended").await;
    send(&world, &world.acme, &event("a", 1)).await.expect(200);
    let totals = async |minutes: i64| {
        world.clock.advance(Duration::minutes(minutes));
        worker.run_once().await.unwrap();
        let hours = "usage_hours WHERE meter = 'sum_meter' AND events = quantity";
        (count(&world, hours).await, count(&world, "usage_dirty").await)
    };
    assert_eq!(
        totals(1).await,
        (0, 3),
        "of what has just changed nobody needs the total"
    );
    let (totalled, waiting) = totals(9).await;
    assert_eq!((totalled, waiting), (1, 0));
    send(&world, &world.acme, &event("b", 1)).await.expect(200);
    send(&world, &world.globex, &event("b", 1)).await.expect(403);
    let until_the_hour_is_over = 60 - i64::from(world.clock.now().minute());
    assert_eq!(totals(until_the_hour_is_over).await, (1, 0), "replaced");
    assert_eq!(
        count(&world, "usage_hours WHERE meter = 'sum_meter' AND quantity = 2").await,
        1
    );
    assert_eq!(
        count(&world, "jobs WHERE kind LIKE 'usage.%'").await,
        0,
        "no job is needed where all goes well"
    );
}

#[actix_web::test]
async fn a_thousand_changes_of_an_hour_are_totalled_at_once() {
    let world = world().await;
    let due = async || {
        let now = world.clock.now();
        let upkeep = &world.app.ports.usage_upkeep;
        let because = SystemScope::because("a test of usage");
        upkeep.with_changes(because, now, None, 10).await.unwrap()
    };
    let acme = world.acme.id;
    let mark = |count: u32| {
        format!(
            "INSERT INTO usage_dirty (tenant_id, id, created_at, meter, hour) \
             SELECT '{acme}', gen_random_uuid(), '{now}', 'sum_meter', date_trunc('hour', '{now}'::timestamptz) \
             FROM generate_series(1, {count})",
            now = world.clock.now().to_rfc3339(),
        )
    };
    run(&world, "DELETE FROM usage_dirty").await;
    run(&world, &mark(999)).await;
    assert_eq!(due().await, []);
    run(&world, &mark(1)).await;
    assert_eq!(due().await, [acme]);
}

// -------------------------------------------------------------------------------------------------------------- shown

#[actix_web::test]
async fn a_series_has_no_gaps() {
    let world = world().await;
    let at = |key: &str, meter: &str, at: &str, quantity: u64| json!({"idempotency_key": key, "meter": meter, "quantity": quantity, "occurred_at": at});
    let body = json!([
        at("a", "sum_meter", "2026-01-15T09:59:59.999999Z", 1),
        at("b", "sum_meter", "2026-01-15T10:00:00Z", 2),
        at("c", "sum_meter", "2026-01-15T11:30:00Z", 4),
        at("d", "last_meter", "2026-01-15T08:30:00Z", 7),
        at("e", "last_meter", "2026-01-15T10:30:00Z", 9),
    ]);
    send(&world, &world.acme, &body).await.expect(200);
    let series = async |query: &str| -> Vec<(String, u64)> {
        let path = format!("/api/v1/usage?{query}");
        let reply = world.get(&world.acme.viewer, &path).await.expect(200).json();
        let point = |point: &Value| {
            (
                point["start"].as_str().unwrap()[11..16].to_owned(),
                point["quantity"].as_u64().unwrap(),
            )
        };
        reply["series"].as_array().unwrap().iter().map(point).collect()
    };
    let hours = "granularity=hour&from=2026-01-15T09:30:00Z&to=2026-01-15T12:00:00Z";
    for _ in 0..2 {
        let sum = series(&format!("meter=sum_meter&{hours}")).await;
        assert_eq!(
            sum,
            [
                ("09:00".to_owned(), 1),
                ("10:00".to_owned(), 2),
                ("11:00".to_owned(), 4)
            ]
        );
        let last = series(&format!("meter=last_meter&{hours}")).await;
        assert_eq!(
            last,
            [
                ("09:00".to_owned(), 7),
                ("10:00".to_owned(), 9),
                ("11:00".to_owned(), 9)
            ]
        );
        let days =
            series("meter=sum_meter&granularity=day&from=2026-01-14T00:00:00Z&to=2026-01-15T12:00:00Z").await;
        assert_eq!(
            days.iter().map(|(_, quantity)| *quantity).collect::<Vec<_>>(),
            [0, 7]
        );
        // The second time from what was totalled.
        roll_up(&world.app, world.acme.id).await;
    }
    assert_eq!(
        series("meter=sum_meter").await.len(),
        25,
        "of 24 hours, begun in the middle of one"
    );
    for query in [
        "meter=nothing",
        "meter=sum_meter&granularity=month",
        "meter=sum_meter&from=2026-01-15T12:00:00Z&to=2026-01-15T12:00:00Z",
        "meter=sum_meter&from=2025-01-15T12:00:00Z&to=2026-01-15T12:00:00Z",
        "meter=sum_meter&granularity=day&from=2020-01-15T12:00:00Z&to=2026-01-15T12:00:00Z",
    ] {
        let path = format!("/api/v1/usage?{query}");
        world
            .get(&world.acme.viewer, &path)
            .await
            .problem(422, "validation_failed");
    }
    assert_eq!(series("meter=sum_meter").await, series("meter=sum_meter").await);
    let path = format!("/api/v1/usage?meter=sum_meter&{hours}");
    let others = world.get(&world.globex.viewer, &path).await.expect(200).json();
    assert!(
        others["series"]
            .as_array()
            .unwrap()
            .iter()
            .all(|point| point["quantity"] == 0)
    );
}

#[actix_web::test]
async fn the_summary_tells_of_every_meter_what_is_used_and_when_it_begins_again() {
    let world = world().await;
    send(&world, &world.acme, &json!([event("a", 5), event("b", 7)]))
        .await
        .expect(200);
    // Of last month.
    run(
        &world,
        "UPDATE usage_events SET event_at = '2025-12-31T23:59:59Z' WHERE idempotency_key = 'b'",
    )
    .await;
    let reply = world
        .get(&world.acme.viewer, "/api/v1/usage/summary")
        .await
        .expect(200)
        .json();
    let meters = reply["meters"].as_array().unwrap();
    assert_eq!(meters.len(), 8);
    let of = |name: &str| {
        meters
            .iter()
            .find(|meter| meter["meter"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        of("sum_meter"),
        json!({
            "meter": "sum_meter", "title": "sum", "unit": "one", "aggregation": "sum", "used": 5, "included": 10,
            "limit": null, "period_start": "2026-01-01T00:00:00Z", "resets_at": "2026-02-01T00:00:00Z",
        })
    );
    let stored = of("storage_bytes");
    let sql = "SELECT bytes FROM storage_usage WHERE tenant_id = $1";
    let bytes: i64 = sqlx::query_scalar(sql)
        .bind(world.acme.id.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(stored["used"], bytes);
}

// ------------------------------------------------------------------------------------------------------------ storage

#[actix_web::test]
async fn stored_bytes_are_recorded_with_every_change_and_clocks_may_differ() {
    let world = world().await;
    let ahead = Arc::new(ManualClock::default());
    ahead.advance(Duration::minutes(10));
    let other = world.instance_at(&options(), ahead).app;
    let cx = |app: &Arc<Tenancy>| {
        let (app, scope) = (Arc::clone(app), world.cx(&world.acme.admin));
        async move { Cx::new(app, scope.await.scope().clone(), Origin::default()) }
    };
    let (here, there) = (cx(&world.app).await, cx(&other).await);
    let before = total(&world, &world.acme, "storage_bytes").await;
    let mut bytes = before;
    for (number, cx) in [&there, &here, &there, &here].into_iter().enumerate() {
        let new = tenantry_domain::work::NewResource {
            name: format!("r{number}"),
            content: Some("x".repeat(10 + number)),
            ..jobs_resource()
        };
        tenantry_tenancy::work::resource::create(cx, new).await.unwrap();
        bytes += 10 + number as u64;
        assert_eq!(total(&world, &world.acme, "storage_bytes").await, bytes);
    }
    // Every day there is an event of it, so that no month is without.
    world.clock.advance(Duration::days(40));
    world.outlive_the_cache();
    Keep.run(&system(&world.app, world.acme.id).await, Nothing {})
        .await
        .unwrap();
    let month = Period {
        start: world.clock.now() - Duration::days(1),
        end: world.clock.now(),
    };
    let cx = system(&world.app, world.acme.id).await;
    let measured = cx
        .read(async |work| {
            work.usage()
                .measure(&meter("storage_bytes"), Aggregation::Last, month)
                .await
        })
        .await
        .unwrap();
    assert_eq!((measured.quantity, measured.events), (bytes, 1));
}

fn jobs_resource() -> tenantry_domain::work::NewResource {
    tenantry_domain::work::NewResource {
        project_id: None,
        name: String::new(),
        kind: None,
        content: None,
        url: None,
    }
}

// -------------------------------------------------------------------------------------------------------------- calls

/// A folder of one test, removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("tenantry-usage-{}", SystemIds.uuid())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn spooled(folder: &Folder) -> Options {
    Options {
        spool: Some(folder.0.clone()),
        ..options()
    }
}

#[actix_web::test]
async fn calls_are_counted_that_were_answered_and_not_refused_for_being_too_many() {
    let world = world().await;
    let acme = &world.acme;
    for _ in 0..3 {
        world.get(&acme.viewer, "/api/v1/tasks").await.expect(200);
    }
    world.get(&acme.admin, "/api/v1/tasks").await.expect(200);
    world.get(&acme.admin, "/api/v1/tasks/nothing").await.expect(404);
    world
        .post(&acme.viewer, "/api/v1/projects", &json!({}))
        .await
        .expect(403);
    // These are nobody's, or lead nowhere.
    world.client.get("/api/v1/tasks").await.expect(401);
    world.get(&acme.admin, "/api/v1/nowhere").await.expect(404);
    world.client.get("/health").await.expect(200);
    assert_eq!(total(&world, acme, "api_calls").await, 0, "they wait");
    let stored = metering::flush(&world.app).await;
    assert_eq!((stored.calls, stored.kept), (6, 0));
    assert_eq!(total(&world, acme, "api_calls").await, 6);
    assert_eq!(total(&world, acme, "active_users").await, 2);
    assert_eq!(total(&world, &world.globex, "api_calls").await, 0);
    // In the next hour they are active again, and still two.
    world.clock.advance(Duration::minutes(14));
    world.get(&acme.viewer, "/api/v1/tasks").await.expect(200);
    metering::flush(&world.app).await;
    world.clock.advance(Duration::minutes(60));
    metering::flush(&world.app).await;
    assert_eq!(total(&world, acme, "api_calls").await, 7);
    assert_eq!(total(&world, acme, "active_users").await, 2);
    assert_eq!(metering::flush(&world.app).await.calls, 0);
}

#[actix_web::test]
async fn who_dies_after_storing_and_before_forgetting_counts_nothing_twice() {
    let folder = Folder::new();
    let world = World::with(spooled(&folder)).await;
    for tenant in [&world.acme, &world.globex] {
        for who in [&tenant.admin, &tenant.member, &tenant.viewer] {
            world.get(who, "/api/v1/tasks").await.expect(200);
        }
    }
    // What is in the folder when the process dies, which is before the batch is removed.
    let batches = world.app.ports.calls.batches();
    let copy = Folder::new();
    copy_all(&folder.0, &copy.0);
    assert_eq!(metering::flush(&world.app).await.calls, 6);
    assert_eq!(batches.len(), 1);
    let after = world.digest(&world.acme).await;
    for _ in 0..2 {
        let again = Folder::new();
        copy_all(&copy.0, &again.0);
        let survivor = world.instance(&spooled(&again)).app;
        assert_eq!(
            metering::flush(&survivor).await.calls,
            6,
            "they are read and stored once more"
        );
        assert_eq!(world.digest(&world.acme).await, after);
    }
    assert_eq!(total(&world, &world.acme, "api_calls").await, 3);
    assert_eq!(total(&world, &world.globex, "api_calls").await, 3);
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[actix_web::test]
async fn while_the_database_is_away_calls_wait_and_are_stored_once_when_it_is_back() {
    let folder = Folder::new();
    let world = World::with(spooled(&folder)).await;
    let name: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    let mut admin = world.database.admin().await;
    for round in 1..=5_u64 {
        world.get(&world.acme.admin, "/api/v1/tasks").await.expect(200);
        let connections = |most: i32| format!("ALTER DATABASE \"{name}\" WITH CONNECTION LIMIT {most}");
        sqlx::raw_sql(AssertSqlSafe(connections(0)))
            .execute(&mut admin)
            .await
            .unwrap();
        // The connections die before it, and every other time in the middle of it.
        let mut killing = async || {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            sqlx::raw_sql(sql).execute(&mut admin).await.unwrap();
        };
        if round % 2 == 0 {
            let (during, ()) = tokio::join!(metering::flush(&world.app), killing());
            assert!(during.calls + during.kept as u64 >= 1, "{during:?}");
        } else {
            killing().await;
            let during = metering::flush(&world.app).await;
            assert_eq!((during.calls, during.kept), (0, 1));
        }
        sqlx::raw_sql(AssertSqlSafe(connections(-1)))
            .execute(&mut admin)
            .await
            .unwrap();
        while metering::flush(&world.app).await.kept > 0 {}
        assert_eq!(total(&world, &world.acme, "api_calls").await, round);
    }
}

#[actix_web::test]
async fn two_servers_over_one_folder_and_one_database_count_together() {
    let folder = Folder::new();
    let world = World::with(spooled(&folder)).await;
    let other = spooled(&folder);
    let client = world.other_instance(&other).await;
    for _ in 0..5 {
        world.get(&world.acme.admin, "/api/v1/tasks").await.expect(200);
        let get = client.get("/api/v1/tasks").bearer(&world.acme.admin.access_token);
        get.await.expect(200);
    }
    // The second one ends without a word, and the first takes over what it has left.
    assert_eq!(metering::flush(&world.app).await.calls, 5);
    drop(client);
    assert_eq!(metering::flush(&world.app).await.calls, 5);
    assert_eq!(total(&world, &world.acme, "api_calls").await, 10);
    assert_eq!(total(&world, &world.acme, "active_users").await, 1);
}

#[actix_web::test]
async fn one_connection_is_enough_for_everything() {
    let pool = PoolConfig {
        size: 1,
        ..options().pool
    };
    let world = World::with(Options { pool, ..options() }).await;
    let recording = (0..10).map(|n| {
        let world = &world;
        async move {
            send(world, &world.acme, &json!([event(&format!("k{n}"), 1)]))
                .await
                .expect(200)
        }
    });
    tokio::join!(
        join_all(recording),
        metering::flush(&world.app),
        roll_up(&world.app, world.acme.id)
    );
    metering::flush(&world.app).await;
    roll_up(&world.app, world.acme.id).await;
    assert_eq!(total(&world, &world.acme, "sum_meter").await, 10);
    assert_eq!(total(&world, &world.acme, "api_calls").await, 10);
}

#[actix_web::test]
async fn calls_of_a_deleted_tenant_are_dropped_and_those_of_others_are_not() {
    let world = world().await;
    world.get(&world.acme.admin, "/api/v1/tasks").await.expect(200);
    world.get(&world.globex.admin, "/api/v1/tasks").await.expect(200);
    world.set_status(&world.globex, "deleted").await;
    let stored = metering::flush(&world.app).await;
    assert_eq!((stored.calls, stored.kept), (2, 0));
    assert_eq!(total(&world, &world.acme, "api_calls").await, 1);
    assert_eq!(count(&world, "usage_events WHERE meter = 'api_calls'").await, 1);
}

#[actix_web::test]
async fn calls_of_a_tenant_that_nobody_knows_keep_no_other_call_from_the_ledger() {
    let world = world().await;
    let get = async |person: &Person| world.get(person, "/api/v1/tasks").await.expect(200);
    get(&world.acme.admin).await;
    world.app.ports.calls.note(Call {
        tenant: TenantId::next(&SystemIds),
        user: None,
        at: world.clock.now(),
    });
    get(&world.globex.admin).await;
    let stored = metering::flush(&world.app).await;
    assert_eq!((stored.calls, stored.set_aside, stored.kept), (2, 1, 0));
    assert_eq!(metering::Metering::of(&world.app).tally().set_aside, 1);
    for tenant in [&world.acme, &world.globex] {
        assert_eq!(total(&world, tenant, "api_calls").await, 1);
    }
    assert_eq!(
        metering::flush(&world.app).await.kept,
        0,
        "nothing is tried again"
    );
}

#[actix_web::test]
async fn keys_are_forgotten_when_what_they_stand_for_is_too_old_to_be_sent() {
    let world = world().await;
    send(&world, &world.acme, &event("k", 1)).await.expect(200);
    let cx = system(&world.app, world.acme.id).await;
    let keys = "usage_keys WHERE source = 'tenantry:api'";
    world.clock.advance(Duration::days(119));
    Keep.run(&cx, Nothing {}).await.unwrap();
    assert_eq!(count(&world, keys).await, 1);
    world.clock.advance(Duration::days(2));
    Keep.run(&cx, Nothing {}).await.unwrap();
    assert_eq!(count(&world, keys).await, 0);
    assert_eq!(
        count(&world, "usage_events WHERE source = 'tenantry:api'").await,
        1
    );
}
