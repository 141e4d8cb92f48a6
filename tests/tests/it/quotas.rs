//! Quotas: whatever the number of those who use them at once, the hard limit is not exceeded by one unit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_billing::plans::plan::Agreement;
use tenantry_billing::plans::tenant_plan;
use tenantry_billing::usage::metering;
use tenantry_billing::usage::quota::{self, QuotaError, QuotaReason};
use tenantry_billing::usage::quota_alert::{TellAlert, Which};
use tenantry_billing::usage::quota_drift::{self, Repair};
use tenantry_billing::usage::quota_lending::StoredQuotas;
use tenantry_billing::usage::quota_recovery::{Lapse, LapseAll};
use tenantry_domain::kernel::{Clock as _, IdSource as _, Limit, StoreError, SystemScope, TenantId};
use tenantry_domain::operations::{Counting, QuotaAsk, QuotaGate as _, QuotaLender as _, QuotaLoan, Spent};
use tenantry_domain::usage::{MeterKey, QuotaDrift, QuotaFinding};
use tenantry_http::Quotas;
use tenantry_persistence::PoolConfig;
use tenantry_system::{FileSpool, QuotaLeases, SystemIds};
use tenantry_tenancy::operations::job::{Handlers, JobHandler as _};
use tenantry_tenancy::tenant::purge::{Ended, Purge};
use tenantry_tenancy::{Cx, Origin, Tenancy};
use tenantry_tests::{Client, Options, Reply, TenantWorld, World, operator_cx, use_up};

const BECAUSE: SystemScope = SystemScope::because("a test of quotas");
const TTL: Duration = Duration::from_secs(10);

fn calls() -> MeterKey {
    MeterKey::api_calls()
}

/// A meter that is not the server's own.
fn renders() -> MeterKey {
    MeterKey::parse("renders").unwrap()
}

/// Agrees on a hard limit.
pub async fn limit(world: &World, tenant: &TenantWorld, meter: &str, limit: u64) {
    let agreement = Agreement {
        meters: [(MeterKey::parse(meter).unwrap(), Some(Limit::Of(limit)))].into(),
        ..Agreement::default()
    };
    world.agree(tenant.id, agreement).await;
}

/// What the API says of one meter.
async fn standing(world: &World, tenant: &TenantWorld, meter: &str) -> Value {
    let path = format!("/api/v1/entitlements/{meter}");
    world.get(&tenant.viewer, &path).await.expect(200).json()
}

async fn system(app: &Arc<Tenancy>, tenant: TenantId) -> Cx {
    let scope = app.ports.gate.system(BECAUSE, tenant).await.unwrap();
    Cx::new(Arc::clone(app), scope, Origin::default())
}

/// An instance with a gate of its own over the world's database.
fn gate(app: &Arc<Tenancy>) -> QuotaLeases {
    let lender = Arc::new(StoredQuotas::new(Arc::clone(app)));
    let (clock, instance) = (Arc::clone(&app.ports.clock), app.ports.ids.uuid());
    QuotaLeases::new(lender, clock, instance, TTL)
}

async fn guarded(world: &World, gate: &QuotaLeases) -> Client {
    Client::new(world.api.clone().with_quotas(Quotas::new(Arc::new(gate.clone())))).await
}

fn of_exceeded(error: &QuotaError) -> (u64, u64) {
    match error {
        QuotaError::Own(QuotaReason::Exceeded(exceeded)) => (exceeded.limit, exceeded.used),
        other => panic!("{other}"),
    }
}

// ------------------------------------------------------------------------------------------------------- consuming

#[actix_web::test]
async fn of_two_hundred_at_the_last_unit_one_gets_it() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let cx = world.cx(&world.acme.admin).await;
    let meter = &calls();
    quota::consume(&cx, meter, 99).await.unwrap();
    let all = join_all((0..200).map(|_| quota::consume(&cx, meter, 1))).await;
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1);
    for refused in all.into_iter().filter_map(Result::err) {
        assert_eq!(of_exceeded(&refused), (100, 100));
    }
    assert_eq!(standing(&world, &world.acme, "api_calls").await["used"], 100);
    assert_eq!(standing(&world, &world.globex, "api_calls").await["used"], 0);
}

#[actix_web::test]
async fn forty_times_three_fit_thirty_three_times_into_a_hundred_from_the_first_row_on() {
    for size in [1, 8] {
        let pool = PoolConfig {
            size,
            per_tenant: 100,
            acquire_timeout: Duration::from_secs(30),
            ..PoolConfig::default()
        };
        let world = World::with(Options {
            pool,
            ..Options::default()
        })
        .await;
        limit(&world, &world.acme, "api_calls", 100).await;
        let cx = world.cx(&world.acme.admin).await;
        let meter = &calls();
        let all = join_all((0..40).map(|_| quota::consume(&cx, meter, 3))).await;
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 33);
        let stands = standing(&world, &world.acme, "api_calls").await;
        assert_eq!((&stands["used"], &stands["balance"]), (&json!(99), &json!(1)));
    }
}

#[actix_web::test]
async fn several_meters_are_used_together_or_not_at_all_and_in_any_order_without_a_deadlock() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 1_000).await;
    limit(&world, &world.acme, "storage_bytes", 50).await;
    let cx = world.cx(&world.acme.admin).await;
    let cx = &cx;
    let storage = MeterKey::parse("storage_bytes").unwrap();
    let uses = [(storage.clone(), 1), (calls(), 1)];
    let reversed = [(calls(), 1), (storage.clone(), 1)];
    let (uses, reversed) = (&uses, &reversed);
    let both = (0..100).map(|number| async move {
        let uses = if number % 2 == 0 { uses } else { reversed };
        cx.write(async |work| quota::consume_in(cx, work, uses).await)
            .await
    });
    let all = join_all(both).await;
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 50);
    // What is refused of one is not used of the other either.
    assert_eq!(standing(&world, &world.acme, "api_calls").await["used"], 50);
    // Nor is anything used in a transaction that comes to nothing.
    let undone = cx
        .write(async |work| {
            quota::consume_in(cx, work, &[(calls(), 7)]).await?;
            Err::<(), QuotaError>(StoreError::Other("changed my mind".into()).into())
        })
        .await;
    undone.unwrap_err();
    assert_eq!(standing(&world, &world.acme, "api_calls").await["used"], 50);
}

#[actix_web::test]
async fn amounts_that_cannot_be_are_refused_and_nothing_is_nothing() {
    let world = World::new().await;
    let cx = world.cx(&world.acme.admin).await;
    quota::consume(&cx, &calls(), 0).await.unwrap();
    for amount in [u64::MAX, u64::MAX / 2 + 1] {
        // Also where there is no limit but that of numbers.
        of_exceeded(&quota::consume(&cx, &calls(), amount).await.unwrap_err());
    }
    quota::consume(&cx, &calls(), u64::MAX / 2).await.unwrap();
    of_exceeded(&quota::consume(&cx, &calls(), 1).await.unwrap_err());
    let unknown = MeterKey::parse("nothing").unwrap();
    let refused = quota::consume(&cx, &unknown, 1).await.unwrap_err();
    assert!(matches!(refused, QuotaError::Own(QuotaReason::UnknownMeter(_))));
}

#[actix_web::test]
async fn a_new_period_begins_at_nothing() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 5).await;
    let cx = world.cx(&world.acme.admin).await;
    quota::consume(&cx, &calls(), 5).await.unwrap();
    let stands = standing(&world, &world.acme, "api_calls").await;
    assert_eq!(
        (&stands["has_access"], &stands["resets_at"]),
        (&json!(false), &json!("2026-02-01T00:00:00Z"))
    );
    world.clock.advance(chrono::Duration::days(17));
    let cx = system(&world.app, world.acme.id).await;
    quota::consume(&cx, &calls(), 5).await.unwrap();
    of_exceeded(&quota::consume(&cx, &calls(), 1).await.unwrap_err());
}

#[actix_web::test]
async fn a_limit_that_is_agreed_on_holds_from_the_next_request_on() {
    let world = World::new().await;
    let cx = async || world.cx(&world.acme.admin).await;
    limit(&world, &world.acme, "api_calls", 2).await;
    quota::consume(&cx().await, &calls(), 2).await.unwrap();
    of_exceeded(&quota::consume(&cx().await, &calls(), 1).await.unwrap_err());
    limit(&world, &world.acme, "api_calls", 3).await;
    quota::consume(&cx().await, &calls(), 1).await.unwrap();
    // Lowered below what is used.
    limit(&world, &world.acme, "api_calls", 1).await;
    let refused = quota::consume(&cx().await, &calls(), 1).await.unwrap_err();
    assert_eq!(of_exceeded(&refused), (1, 3));
    let stands = standing(&world, &world.acme, "api_calls").await;
    assert_eq!(
        (
            &stands["limit"],
            &stands["used"],
            &stands["balance"],
            &stands["overage"],
            &stands["source"]
        ),
        (
            &json!(1),
            &json!(3),
            &json!(0),
            &json!(2),
            &json!("tenant_override")
        )
    );
    assert_eq!(
        standing(&world, &world.globex, "api_calls").await["source"],
        "plan"
    );
}

#[actix_web::test]
async fn limit_agreed_within_a_period_counts_from_the_ledger() {
    let world = World::new().await;
    let (acme, now) = (world.acme.id, world.clock.now());
    let used = async || standing(&world, &world.acme, "api_calls").await["used"].clone();
    let agree = async |calls_limit| {
        let agreement = Agreement {
            meters: [(calls(), calls_limit)].into(),
            ..Agreement::default()
        };
        world.agree(acme, agreement).await;
    };
    use_up(&world.app, acme, "api_calls", now, 16).await;
    use_up(&world.app, world.globex.id, "api_calls", now, 4).await;
    agree(Some(Limit::Of(20))).await;
    assert_eq!(used().await, 16);
    let cx = world.cx(&world.acme.admin).await;
    quota::consume(&cx, &calls(), 4).await.unwrap();
    let refused = quota::consume(&cx, &calls(), 1).await.unwrap_err();
    assert_eq!(of_exceeded(&refused), (20, 20));
    let alerts = world.get(&world.acme.viewer, "/api/v1/quotas/alerts").await;
    let alerts = alerts.expect(200).json();
    let told: Vec<_> = [0, 1]
        .map(|n| (&alerts["data"][n]["percent"], &alerts["data"][n]["used"]))
        .into();
    assert_eq!(told, [(&json!(100), &json!(20)), (&json!(80), &json!(16))]);
    // While it is limited the counter says what is used, and another limit changes nothing of that.
    use_up(&world.app, acme, "api_calls", now, 90).await;
    agree(Some(Limit::Of(30))).await;
    assert_eq!(used().await, 20);
    // Limited again after a while, it has caught up; after a change of plan too.
    agree(Some(Limit::Unlimited)).await;
    agree(Some(Limit::Of(200))).await;
    assert_eq!(used().await, 106);
    agree(None).await;
    use_up(&world.app, acme, "api_calls", now, 1).await;
    tenant_plan::change(&operator_cx(&world.app), acme, "free", "a test")
        .await
        .unwrap();
    assert_eq!(used().await, 107);
    tenant_plan::change(&operator_cx(&world.app), world.globex.id, "free", "a test")
        .await
        .unwrap();
    assert_eq!(standing(&world, &world.globex, "api_calls").await["used"], 4);
}

// ---------------------------------------------------------------------------------------------------- entitlements

#[actix_web::test]
async fn entitlements_tell_of_features_limits_and_meters_in_one_form() {
    let world = World::new().await;
    limit(&world, &world.acme, "renders", 1_000).await;
    let cx = world.cx(&world.acme.admin).await;
    quota::consume(&cx, &renders(), 640).await.unwrap();
    quota::reserve(&cx, &renders(), 10, 60).await.unwrap();
    let metered = standing(&world, &world.acme, "renders").await;
    let wanted = json!({
        "feature": "renders", "has_access": true, "kind": "metered", "limit": 1_000, "used": 640, "reserved": 10,
        "balance": 350, "overage": 0, "resets_at": "2026-02-01T00:00:00Z", "source": "tenant_override",
        "config": {"unit": "one", "aggregation": "sum", "reset": "billing_cycle", "included": 1_000},
    });
    assert_eq!(metered, wanted);
    let branding = standing(&world, &world.acme, "branding").await;
    assert_eq!(
        (
            &branding["kind"],
            &branding["has_access"],
            &branding["source"],
            &branding["limit"]
        ),
        (&json!("boolean"), &json!(true), &json!("plan"), &Value::Null)
    );
    let users = standing(&world, &world.acme, "users").await;
    assert_eq!((&users["kind"], &users["used"]), (&json!("static"), &json!(3)));
    let all = world
        .get(&world.acme.viewer, "/api/v1/entitlements")
        .await
        .expect(200)
        .json();
    let names: Vec<_> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["feature"].as_str().unwrap())
        .collect();
    assert!(names.is_sorted());
    for name in [
        "active_users",
        "api_calls",
        "branding",
        "projects",
        "storage_bytes",
        "users",
    ] {
        assert_eq!(names.iter().filter(|one| **one == name).count(), 1, "{name}");
    }
    let get = world.get(&world.acme.viewer, "/api/v1/entitlements/unknown");
    get.await.problem(404, "not_found");
    let quotas = world
        .get(&world.acme.viewer, "/api/v1/quotas")
        .await
        .expect(200)
        .json();
    let quota = &quotas["data"][2];
    assert_eq!(
        (
            &quota["meter"],
            &quota["used"],
            &quota["reserved"],
            &quota["leased"],
            &quota["balance"]
        ),
        (&json!("renders"), &json!(640), &json!(10), &json!(0), &json!(350))
    );
}

// ---------------------------------------------------------------------------------------------------- reservations

const RESERVATIONS: &str = "/api/v1/quotas/renders/reservations";

async fn reserve(world: &World, amount: u64) -> Reply {
    let body = json!({"amount": amount, "ttl_seconds": 60});
    world.post(&world.acme.member, RESERVATIONS, &body).await
}

fn location(reply: &Reply) -> String {
    reply.header("Location").unwrap().to_owned()
}

async fn commit(world: &World, reservation: &str, actual: u64) -> Reply {
    let path = format!("{reservation}/commit");
    world
        .post(&world.acme.member, &path, &json!({"actual": actual}))
        .await
}

#[actix_web::test]
async fn what_is_reserved_is_kept_until_it_is_committed_or_released() {
    let world = World::new().await;
    limit(&world, &world.acme, "renders", 10).await;
    let first = reserve(&world, 6).await.expect(201);
    assert_eq!(first.json()["status"], "open");
    let refused = reserve(&world, 5).await.problem(429, "quota_exceeded");
    let problem = refused.json();
    assert_eq!(
        (
            &problem["meter"],
            &problem["limit"],
            &problem["used"],
            &problem["resets_at"]
        ),
        (
            &json!("renders"),
            &json!(10),
            &json!(6),
            &json!("2026-02-01T00:00:00Z")
        )
    );
    // From noon of the 15th to the end of the month, less what the test took.
    let wait: u64 = refused.header("Retry-After").unwrap().parse().unwrap();
    assert_eq!(wait.div_ceil(60), 16 * 24 * 60 + 12 * 60);
    let second = reserve(&world, 4).await.expect(201);
    let (first, second) = (location(&first), location(&second));
    // Less than was reserved: the rest is free again.
    let done = commit(&world, &first, 2).await.expect(200).json();
    assert_eq!(
        (&done["status"], &done["actual"]),
        (&json!("committed"), &json!(2))
    );
    commit(&world, &first, 2).await.expect(200);
    commit(&world, &first, 3).await.problem(409, "conflict");
    let release = async |path: &str| world.delete(&world.acme.member, path).await;
    release(&first).await.problem(409, "conflict");
    let stands = standing(&world, &world.acme, "renders").await;
    assert_eq!((&stands["used"], &stands["reserved"]), (&json!(2), &json!(4)));
    // More than was reserved, as far as there is more.
    commit(&world, &second, 9).await.problem(429, "quota_exceeded");
    commit(&world, &second, 8).await.expect(200);
    let stands = standing(&world, &world.acme, "renders").await;
    assert_eq!((&stands["used"], &stands["reserved"]), (&json!(10), &json!(0)));
    limit(&world, &world.acme, "renders", 12).await;
    let third = location(&reserve(&world, 2).await.expect(201));
    release(&third).await.expect(204);
    release(&third).await.expect(204);
    commit(&world, &third, 1).await.problem(409, "conflict");
    let read = world.get(&world.acme.viewer, &third).await.expect(200).json();
    assert_eq!(
        (&read["status"], &read["actual"]),
        (&json!("released"), &Value::Null)
    );
    assert_eq!(standing(&world, &world.acme, "renders").await["balance"], 2);
}

#[actix_web::test]
async fn a_reservation_whose_time_is_over_holds_nothing_and_its_work_still_counts() {
    let world = World::new().await;
    limit(&world, &world.acme, "renders", 10).await;
    let late = location(&reserve(&world, 10).await.expect(201));
    let lost = format!(
        "UPDATE {} SET expires_at = now() - interval '1 second'",
        "quota_reservations"
    );
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(lost))
        .execute(&mut admin)
        .await
        .unwrap();
    let read = world.get(&world.acme.viewer, &late).await.expect(200).json();
    assert_eq!(read["status"], "expired");
    assert_eq!(standing(&world, &world.acme, "renders").await["reserved"], 0);
    // Somebody else needs it.
    let other = location(&reserve(&world, 7).await.expect(201));
    commit(&world, &late, 4).await.problem(429, "quota_exceeded");
    commit(&world, &late, 3).await.expect(200);
    commit(&world, &other, 7).await.expect(200);
    assert_eq!(standing(&world, &world.acme, "renders").await["used"], 10);
}

#[actix_web::test]
async fn what_cannot_be_reserved_is_refused_and_a_key_reserves_once() {
    let world = World::new().await;
    let member = &world.acme.member;
    for (body, pointer) in [
        (json!({"amount": 0, "ttl_seconds": 60}), "/amount"),
        (json!({"amount": u64::MAX, "ttl_seconds": 60}), "/amount"),
        (json!({"amount": 1, "ttl_seconds": 0}), "/ttl_seconds"),
        (json!({"amount": 1, "ttl_seconds": 86_401}), "/ttl_seconds"),
        (json!({"amount": -1, "ttl_seconds": 60}), "/amount"),
    ] {
        let reply = world.post(member, RESERVATIONS, &body).await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    let body = json!({"amount": 1, "ttl_seconds": 60});
    for path in [
        "/api/v1/quotas/unknown/reservations",
        "/api/v1/quotas/No%20Meter/reservations",
    ] {
        world.post(member, path, &body).await.problem(404, "not_found");
    }
    let viewer = world.post(&world.acme.viewer, RESERVATIONS, &body);
    viewer.await.problem(403, "forbidden");
    let keyed = async || {
        let request = world
            .post(member, RESERVATIONS, &body)
            .header("Idempotency-Key", "one");
        request.await.expect(201).json()["id"].clone()
    };
    assert_eq!(keyed().await, keyed().await);
    // Of the meter that it was made of, and no other.
    let other = location(&world.post(member, RESERVATIONS, &body).await.expect(201));
    let other = other.replace("renders", "storage_bytes");
    world.get(member, &other).await.problem(404, "not_found");
    commit(&world, &other, 1).await.problem(404, "not_found");
    world.delete(member, &other).await.problem(404, "not_found");
}

/// A member who could reserve the tenant's calls and commit them would lock everybody out for the rest of the month.
#[actix_web::test]
async fn meters_of_the_server_take_no_reservations() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let body = json!({"amount": 100, "ttl_seconds": 60});
    for meter in ["api_calls", "storage_bytes", "active_users"] {
        let path = format!("/api/v1/quotas/{meter}/reservations");
        for person in [&world.acme.member, &world.acme.admin] {
            let reply = world.post(person, &path, &body).await;
            reply.problem(422, "meter_reserved");
        }
    }
    let stands = standing(&world, &world.acme, "api_calls").await;
    assert_eq!(
        (&stands["reserved"], &stands["balance"]),
        (&json!(0), &json!(100))
    );
}

#[actix_web::test]
async fn open_reservations_are_listed_by_page() {
    let world = World::new().await;
    let mut made = Vec::new();
    for amount in 1..=4 {
        made.push(reserve(&world, amount).await.expect(201).json()["id"].clone());
    }
    world
        .post(
            &world.globex.member,
            RESERVATIONS,
            &json!({"amount": 9, "ttl_seconds": 60}),
        )
        .await
        .expect(201);
    let list = async |query: &str| {
        let get = world.get(&world.acme.viewer, &format!("{RESERVATIONS}{query}"));
        get.await.expect(200).json()
    };
    let ids = |page: &Value| -> Vec<Value> {
        let data = page["data"].as_array().unwrap();
        data.iter().map(|one| one["id"].clone()).collect()
    };
    let first = list("?limit=3").await;
    made.reverse();
    assert_eq!(ids(&first), made[..3]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = list(&format!("?limit=3&cursor={cursor}")).await;
    assert_eq!(
        (ids(&second), &second["next_cursor"]),
        (made[3..].to_vec(), &Value::Null)
    );
    // What is committed, given up or over is not open.
    let at = |number: usize| format!("{RESERVATIONS}/{}", made[number].as_str().unwrap());
    commit(&world, &at(0), 1).await.expect(200);
    world.delete(&world.acme.member, &at(1)).await.expect(204);
    world
        .sql("UPDATE quota_reservations SET expires_at = now() - interval '1 second' WHERE amount = 1")
        .await;
    assert_eq!(ids(&list("").await), [made[2].clone()]);
    let unknown = world.get(&world.acme.viewer, "/api/v1/quotas/unknown/reservations");
    unknown.await.problem(404, "not_found");
}

#[actix_web::test]
async fn an_operator_corrects_a_counter_and_it_is_recorded() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let cx = world.cx(&world.acme.admin).await;
    quota::consume(&cx, &calls(), 100).await.unwrap();
    let correct = async |meter: &str, used: u64, reason: &str| {
        let meter = MeterKey::parse(meter).unwrap();
        quota::correct(
            &operator_cx(&world.app),
            BECAUSE,
            world.acme.id,
            (&meter, used, reason),
        )
        .await
    };
    let corrected = correct("api_calls", 40, "reserved by mistake").await.unwrap();
    assert_eq!((corrected.before, corrected.after), (100, 40));
    assert_eq!(standing(&world, &world.acme, "api_calls").await["balance"], 60);
    quota::consume(&cx, &calls(), 60).await.unwrap();
    let audit = world.audit(&world.acme).await;
    let (_, entry) = audit
        .iter()
        .find(|(action, _)| action == "quota.corrected")
        .unwrap();
    assert_eq!(
        (
            &entry["after"]["before"],
            &entry["after"]["after"],
            &entry["after"]["reason"]
        ),
        (&json!(100), &json!(40), &json!("reserved by mistake"))
    );
    for (meter, used, reason) in [
        ("api_calls", 1, ""),
        ("api_calls", u64::MAX, "why"),
        ("unknown", 1, "why"),
    ] {
        assert!(
            correct(meter, used, reason).await.is_err(),
            "{meter} {used} {reason}"
        );
    }
    assert_eq!(standing(&world, &world.globex, "api_calls").await["used"], 0);
}

#[actix_web::test]
async fn of_a_hundred_who_end_a_reservation_at_once_it_is_counted_once() {
    let world = World::new().await;
    limit(&world, &world.acme, "renders", 100).await;
    let held = location(&reserve(&world, 5).await.expect(201));
    let all = join_all((0..100).map(|number| {
        let (world, held) = (&world, &held);
        async move {
            match number % 3 {
                0 => commit(world, held, 5).await,
                1 => commit(world, held, 4).await,
                _ => world.delete(&world.acme.member, held).await,
            }
        }
    }));
    assert!(
        all.await
            .iter()
            .all(|reply| [200, 204, 409].contains(&reply.status))
    );
    let stands = standing(&world, &world.acme, "renders").await;
    let read = world.get(&world.acme.viewer, &held).await.expect(200).json();
    assert_eq!(stands["reserved"], 0);
    assert_eq!(
        stands["used"].as_u64(),
        Some(read["actual"].as_u64().unwrap_or(0))
    );
}

// ---------------------------------------------------------------------------------------------------------- alerts

#[actix_web::test]
async fn fifty_who_reach_a_threshold_at_once_raise_it_once_and_it_is_told_once() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let cx = world.cx(&world.acme.admin).await;
    let meter = &calls();
    quota::consume(&cx, meter, 70).await.unwrap();
    let none = world
        .get(&world.acme.viewer, "/api/v1/quotas/alerts")
        .await
        .expect(200);
    assert_eq!(none.json()["data"], json!([]));
    join_all((0..50).map(|_| quota::consume(&cx, meter, 1))).await;
    let alerts = async || {
        let get = world.get(&world.acme.viewer, "/api/v1/quotas/alerts");
        get.await.expect(200).json()["data"].as_array().unwrap().clone()
    };
    let raised = alerts().await;
    let told = |alert: &Value| {
        (
            alert["percent"].clone(),
            alert["of"].clone(),
            alert["used"].clone(),
        )
    };
    assert_eq!(
        raised.iter().map(told).collect::<Vec<_>>(),
        [
            (json!(100), json!("limit"), json!(100)),
            (json!(80), json!("limit"), json!(80))
        ]
    );
    let system = system(&world.app, world.acme.id).await;
    let jobs = tenantry_tenancy::operations::job::list(
        &world.app,
        world.acme.id,
        tenantry_domain::operations::JobFilter::default(),
        100,
    );
    let kinds: Vec<_> = jobs
        .await
        .unwrap()
        .into_iter()
        .filter(|job| job.kind == TellAlert::KIND)
        .collect();
    assert_eq!(kinds.len(), 2);
    for job in &kinds {
        let which: Which = serde_json::from_value(job.payload.clone()).unwrap();
        // A worker that dies after the work does it again.
        for run in join_all((0..5).map(|_| TellAlert.run(&system, which))).await {
            run.unwrap();
        }
    }
    let audit = world.audit(&world.acme).await;
    let told = audit
        .iter()
        .filter(|(action, _)| action == "quota.threshold_reached");
    assert_eq!(told.count(), 2);
    // Raised or lowered meanwhile, it is the same period.
    limit(&world, &world.acme, "api_calls", 1_000).await;
    let cx = world.cx(&world.acme.admin).await;
    quota::consume(&cx, &calls(), 900).await.unwrap();
    assert_eq!(alerts().await.len(), 2);
    let globex = world.get(&world.globex.viewer, "/api/v1/quotas/alerts").await;
    assert_eq!(globex.expect(200).json()["data"], json!([]));
}

#[actix_web::test]
async fn what_is_included_has_thresholds_of_its_own() {
    let world = World::new().await;
    // `pro` includes a million calls and has no limit.
    let cx = world.cx(&world.acme.admin).await;
    quota::consume(&cx, &calls(), 800_000).await.unwrap();
    let alerts = world
        .get(&world.acme.viewer, "/api/v1/quotas/alerts")
        .await
        .expect(200)
        .json();
    let alert = &alerts["data"][0];
    assert_eq!(
        (&alert["of"], &alert["percent"], &alert["amount"]),
        (&json!("included"), &json!(80), &json!(1_000_000))
    );
    quota::consume(&cx, &calls(), 300_000).await.unwrap();
    assert_eq!(
        standing(&world, &world.acme, "api_calls").await["overage"],
        100_000
    );
}

// --------------------------------------------------------------------------------------------------------- leasing

async fn lend(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    (now, block): (u64, u64),
    spent: Vec<Spent>,
) -> QuotaLoan {
    let ask = QuotaAsk {
        instance: app.ports.ids.uuid(),
        now,
        block,
        ttl: TTL,
        spent,
        counting: None,
    };
    StoredQuotas::new(Arc::clone(app))
        .lend(tenant, &calls(), &ask)
        .await
        .unwrap()
}

fn spent(loan: &QuotaLoan, used: u64) -> Spent {
    Spent {
        lease: loan.lease.unwrap().0,
        start: loan.period.start,
        used,
    }
}

#[actix_web::test]
async fn requests_of_two_instances_reach_the_limit_to_the_unit_and_can_still_see_why() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 120).await;
    let gates = [gate(&world.app), gate(&world.app)];
    let clients = [guarded(&world, &gates[0]).await, guarded(&world, &gates[1]).await];
    let get = |number: usize| {
        let request = clients[number % 2].request(Method::GET, "/api/v1/projects");
        request.bearer(&world.acme.viewer.access_token).send()
    };
    let mut allowed = 0;
    for _ in 0..5 {
        let replies = join_all((0..60).map(get)).await;
        for reply in replies {
            match reply.status {
                200 => allowed += 1,
                _ => drop(reply.problem(429, "quota_exceeded")),
            }
        }
    }
    assert!(allowed <= 120, "{allowed}");
    // What one holds it returns; the other uses the rest to the unit.
    gates[0].close().await;
    let returned = async {
        while allowed < 120 {
            match get(1).await.status {
                200 => allowed += 1,
                // It asks again for units that there were not after a second.
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), returned)
        .await
        .unwrap();
    let reply = get(1).await;
    drop(reply.problem(429, "quota_exceeded"));
    gates[1].close().await;
    assert_eq!(allowed, 120);
    let stands = standing(&world, &world.acme, "api_calls").await;
    assert_eq!((&stands["used"], &stands["reserved"]), (&json!(120), &json!(0)));
    let bearer = &world.acme.viewer.access_token;
    for path in [
        "/api/v1/entitlements/api_calls",
        "/api/v1/quotas",
        "/api/v1/tenant",
        "/api/v1/auth/me",
    ] {
        clients[0].get(path).bearer(bearer).await.expect(200);
    }
    let refused = clients[0]
        .get("/api/v1/projects")
        .bearer(bearer)
        .await
        .problem(429, "quota_exceeded");
    assert!(refused.header("Retry-After").unwrap().parse::<u64>().unwrap() > 1_000_000);
    // The neighbour has nothing to do with it.
    for client in &clients {
        client
            .get("/api/v1/projects")
            .bearer(&world.globex.viewer.access_token)
            .await
            .expect(200);
    }
    // More is agreed on, and it goes on.
    limit(&world, &world.acme, "api_calls", 121).await;
    clients[1]
        .get("/api/v1/projects")
        .bearer(bearer)
        .await
        .expect(200);
}

#[actix_web::test]
async fn what_an_instance_that_died_held_counts_as_used_until_somebody_knows_better() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let lost = lend(&world.app, world.acme.id, (1, 10), Vec::new()).await;
    assert_eq!((lost.bought, lost.lease.unwrap().1), (1, 10));
    let stands = standing(&world, &world.acme, "api_calls").await;
    assert_eq!((&stands["used"], &stands["reserved"]), (&json!(1), &json!(10)));
    world.sql("UPDATE quota_leases SET expires_at = now()").await;
    let stands = standing(&world, &world.acme, "api_calls").await;
    assert_eq!((&stands["used"], &stands["reserved"]), (&json!(11), &json!(0)));
    // Whoever comes next finds it so; it may be the one that held it, who was only slow.
    assert_eq!(
        lend(&world.app, world.acme.id, (100, 0), Vec::new()).await.bought,
        89
    );
    let back = lend(&world.app, world.acme.id, (100, 0), vec![spent(&lost, 4)]).await;
    assert_eq!(back.bought, 6, "and what it did not use can be used");
    // Saying it again changes nothing.
    assert_eq!(
        lend(&world.app, world.acme.id, (100, 0), vec![spent(&lost, 4)])
            .await
            .bought,
        0
    );
}

/// How the counter of the calls of acme stands beside the ledger, and what was put right of it.
async fn reconciled(world: &World, repair: Repair) -> (QuotaDrift, Option<u64>) {
    let system = system(&world.app, world.acme.id).await;
    let all = quota_drift::reconcile(&system, repair).await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    let one = all.into_iter().next().unwrap();
    (one.drift, one.given_back)
}

#[actix_web::test]
async fn what_servers_that_died_held_is_found_in_the_ledger_or_given_back() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let now = world.clock.now();
    let held = lend(&world.app, world.acme.id, (1, 10), Vec::new()).await;
    let gone = lend(&world.app, world.acme.id, (0, 10), Vec::new()).await;
    use_up(&world.app, world.acme.id, "api_calls", now, 5).await;
    // While a lease is out nothing can be said, and nothing is put right whoever asks.
    let (drift, back) = reconciled(&world, Repair::All).await;
    assert_eq!((drift.finding(), back), (QuotaFinding::Lent, None));
    // Expired just now: whoever held it may be slow.
    world.sql("UPDATE quota_leases SET expires_at = now()").await;
    let (drift, back) = reconciled(&world, Repair::All).await;
    assert_eq!((drift.tally.used, drift.lost, back), (21, 20, None));
    assert_eq!(drift.finding(), QuotaFinding::Lost(16), "it is seen at once");
    // One is heard of after all, the other is not: of its ten units the ledger knows two.
    lend(&world.app, world.acme.id, (0, 0), vec![spent(&held, 2)]).await;
    world
        .sql("UPDATE quota_leases SET expires_at = now() - interval '2 hours'")
        .await;
    let (drift, back) = reconciled(&world, Repair::Ended).await;
    assert_eq!((drift.tally.used, drift.ledger, drift.lost), (13, 5, 10));
    assert_eq!(
        (drift.finding(), back),
        (QuotaFinding::Lost(8), None),
        "the period runs"
    );
    assert_eq!(reconciled(&world, Repair::Nothing).await.1, None);
    assert_eq!(reconciled(&world, Repair::All).await.1, Some(8));
    // Once: neither the next who looks nor the one that held it gives anything back again.
    let (drift, back) = reconciled(&world, Repair::All).await;
    assert_eq!(
        (drift.finding(), drift.tally.used, back),
        (QuotaFinding::Agrees, 5, None)
    );
    let returned = lend(&world.app, world.acme.id, (0, 0), vec![spent(&gone, 1)]).await;
    assert_eq!(returned.standing.used, 5);
    // The other tenant has no part in any of this.
    let globex = system(&world.app, world.globex.id).await;
    assert_eq!(quota_drift::reconcile(&globex, Repair::All).await.unwrap(), []);
}

#[actix_web::test]
async fn what_was_lost_is_put_right_every_day_once_the_period_is_over() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    lend(&world.app, world.acme.id, (3, 10), Vec::new()).await;
    world
        .sql("UPDATE quota_leases SET expires_at = now() - interval '2 hours'")
        .await;
    let purge = async || {
        let system = system(&world.app, world.acme.id).await;
        Purge.run(&system, Ended { days: 30 }).await.unwrap();
    };
    purge().await;
    let numbers = "SELECT used, leased, (SELECT count(*) FROM quota_leases) FROM quota_counters";
    assert_eq!(counted(&world, numbers).await, (13, 0, 1), "the period runs");
    world.clock.advance(chrono::Duration::days(17));
    purge().await;
    // The three that were used at once stay: nobody lost them.
    assert_eq!(counted(&world, numbers).await, (3, 0, 0));
}

async fn counted(world: &World, sql: &str) -> (i64, i64, i64) {
    let mut admin = world.database.admin().await;
    sqlx::query_as(sqlx::AssertSqlSafe(sql.to_owned()))
        .fetch_one(&mut admin)
        .await
        .unwrap()
}

#[actix_web::test]
async fn clocks_that_are_ten_minutes_off_take_no_lease_from_anybody() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let held = lend(&world.app, world.acme.id, (0, 20), Vec::new()).await;
    for (reserved, minutes) in [(0, 10), (1, -20)] {
        world.clock.advance(chrono::Duration::minutes(minutes));
        let standing = lend(&world.app, world.acme.id, (0, 0), Vec::new()).await.standing;
        assert_eq!(standing.used, 20);
        let stands = self::standing(&world, &world.acme, "renders").await;
        assert_eq!(stands["reserved"], reserved);
        reserve(&world, 1).await.expect(201);
    }
    let returned = lend(&world.app, world.acme.id, (0, 0), vec![spent(&held, 5)]).await;
    assert_eq!(returned.standing.used, 5);
}

#[actix_web::test]
async fn a_lease_of_the_period_before_is_settled_there() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let gate = gate(&world.app);
    for _ in 0..4 {
        gate.take(world.acme.id, &calls(), 100).decision().await.unwrap();
    }
    world.clock.advance(chrono::Duration::days(17));
    gate.take(world.acme.id, &calls(), 100).decision().await.unwrap();
    gate.close().await;
    let mut admin = world.database.admin().await;
    let rows: Vec<(i64, i64)> =
        sqlx::query_as("SELECT used, leased FROM quota_counters ORDER BY period_start")
            .fetch_all(&mut admin)
            .await
            .unwrap();
    assert_eq!(rows, [(4, 0), (1, 0)]);
    assert_eq!(gate.stats().leases, 0);
    // A month later nobody needs the first any more; the second period is not over for so long.
    world.clock.advance(chrono::Duration::days(30));
    let system = system(&world.app, world.acme.id).await;
    Purge.run(&system, Ended { days: 30 }).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM quota_counters")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(left, 1);
}

#[actix_web::test]
async fn the_purge_takes_back_what_nobody_returned() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    lend(&world.app, world.acme.id, (0, 10), Vec::new()).await;
    reserve(&world, 5).await.expect(201);
    world
        .sql("UPDATE quota_leases SET expires_at = now(); UPDATE quota_reservations SET expires_at = now()")
        .await;
    let system = system(&world.app, world.acme.id).await;
    Purge.run(&system, Ended { days: 30 }).await.unwrap();
    let mut admin = world.database.admin().await;
    let rows: Vec<(String, i64, i64, i64)> =
        sqlx::query_as("SELECT meter, used, reserved, leased FROM quota_counters ORDER BY meter")
            .fetch_all(&mut admin)
            .await
            .unwrap();
    assert_eq!(
        rows,
        [("api_calls".into(), 10, 0, 0), ("renders".into(), 0, 0, 0)]
    );
}

/// Nobody has to ask for the quota: what has expired counts as used within a minute, and its alert is raised.
#[actix_web::test]
async fn leases_lapse_by_the_clock_and_raise_their_alerts() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    lend(&world.app, world.acme.id, (78, 5), Vec::new()).await;
    let worker = crate::jobs::worker(&world, Handlers::default().with_system(LapseAll).with(Lapse));
    let numbers = "SELECT used, leased, (SELECT count(*) FROM quota_alerts) FROM quota_counters";
    worker.run_once().await.unwrap();
    assert_eq!(counted(&world, numbers).await, (78, 5, 0), "its time is not over");
    world
        .sql("UPDATE quota_leases SET expires_at = now() - interval '1 second'")
        .await;
    world.clock.advance(chrono::Duration::minutes(1));
    worker.run_once().await.unwrap();
    assert_eq!(counted(&world, numbers).await, (83, 0, 1));
    world.clock.advance(chrono::Duration::minutes(1));
    worker.run_once().await.unwrap();
    assert_eq!(counted(&world, numbers).await, (83, 0, 1));
}

/// A server that bought two units of the API's calls, has a lease of 20 and took seven out of it, and the calls in its spool.
async fn lender_of_twenty(world: &World, folder: &Path) -> FileSpool {
    limit(world, &world.acme, "api_calls", 100).await;
    let (id, holder) = (world.acme.id, SystemIds.uuid());
    let ask = |block: u64, taken: u64| QuotaAsk {
        instance: holder,
        now: 1,
        block,
        ttl: TTL,
        spent: Vec::new(),
        counting: Some(Counting {
            start: "2026-01-01T00:00:00Z".parse().unwrap(),
            since: world.clock.now(),
            taken,
        }),
    };
    let lender = StoredQuotas::new(Arc::clone(&world.app));
    for (block, taken) in [(0, 0), (20, 1)] {
        lender.lend(id, &calls(), &ask(block, taken)).await.unwrap();
    }
    let spool = FileSpool::new(Some(folder.to_owned()), holder.to_string());
    for _ in 0..9 {
        let call = tenantry_domain::usage::Call {
            tenant: id,
            user: None,
            at: world.clock.now(),
        };
        tenantry_domain::usage::CallSpool::note(&spool, call);
    }
    spool
}

async fn world_with_spool(folder: &Path) -> World {
    World::with(Options {
        spool: Some(folder.to_owned()),
        ..Options::default()
    })
    .await
}

fn new_folder() -> PathBuf {
    std::env::temp_dir().join(format!("tenantry-quotas-{}", SystemIds.uuid()))
}

/// Only what a dead server's spool proves is given back: where calls may be missing in it, all of its lease counts as used, and
/// the drift report says so.
#[actix_web::test]
async fn leases_of_a_dead_server_that_lost_calls_count_as_used() {
    for damage in ["nothing", "files", "truncated", "manifest", "folder"] {
        let folder = new_folder();
        let world = world_with_spool(&folder).await;
        let spool = lender_of_twenty(&world, &folder).await;
        let home = std::fs::read_dir(&folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let files: Vec<PathBuf> = std::fs::read_dir(&home)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "calls"))
            .collect();
        match damage {
            "files" => files.iter().for_each(|file| std::fs::remove_file(file).unwrap()),
            "truncated" => files.iter().for_each(|file| std::fs::write(file, "").unwrap()),
            "manifest" => std::fs::remove_file(home.join("manifest")).unwrap(),
            "folder" => std::fs::remove_dir_all(&home).unwrap(),
            _ => {}
        }
        drop(spool);
        metering::flush(&world.app).await;
        assert!(!home.exists(), "{damage}");
        world
            .sql("UPDATE quota_leases SET expires_at = now() - interval '1 second'")
            .await;
        let stands = standing(&world, &world.acme, "api_calls").await;
        let (drift, _) = reconciled(&world, Repair::Nothing).await;
        let (used, lost) = if damage == "nothing" { (9, 0) } else { (22, 20) };
        assert_eq!(
            (&stands["used"], &stands["reserved"]),
            (&json!(used), &json!(0)),
            "{damage}"
        );
        assert_eq!((drift.tally.used, drift.lost), (used, lost), "{damage}");
        assert_eq!(
            drift.finding().as_str(),
            if lost == 0 { "agrees" } else { "lost" },
            "{damage}"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// A server that dies leaves its calls in its folder. Once they are in the ledger it is known what of its leases was not used.
#[actix_web::test]
async fn leases_of_a_dead_server_are_settled_by_its_calls() {
    for lapsed in [false, true] {
        let folder = new_folder();
        let world = world_with_spool(&folder).await;
        let spool = lender_of_twenty(&world, &folder).await;
        let living = lend(&world.app, world.acme.id, (0, 4), Vec::new()).await;
        assert_eq!(living.lease.unwrap().1, 4);
        if lapsed {
            world
                .sql("UPDATE quota_leases SET expires_at = now() - interval '1 second' WHERE amount = 20")
                .await;
            assert_eq!(standing(&world, &world.acme, "api_calls").await["used"], 22);
        }
        metering::flush(&world.app).await;
        assert_eq!(
            standing(&world, &world.acme, "api_calls").await["reserved"],
            if lapsed { 4 } else { 24 }
        );
        drop(spool);
        for _ in 0..2 {
            metering::flush(&world.app).await;
            let stands = standing(&world, &world.acme, "api_calls").await;
            assert_eq!(
                (&stands["used"], &stands["reserved"], &stands["balance"]),
                (&json!(9), &json!(4), &json!(87)),
                "lapsed: {lapsed}"
            );
        }
        let (drift, _) = reconciled(&world, Repair::Nothing).await;
        assert_eq!((drift.tally.used, drift.lost), (9, 0));
        let left = "SELECT count(*), count(*) FILTER (WHERE expired), sum(amount)::bigint FROM quota_leases";
        assert_eq!(
            counted(&world, left).await,
            (1, 0, 4),
            "the other server's is its own"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[actix_web::test]
async fn many_instances_over_leases_never_exceed_the_limit_and_lose_nothing_they_return() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 1_000).await;
    let gates: Vec<_> = (0..4).map(|_| gate(&world.app)).collect();
    let id = world.acme.id;
    let hammer = |gate: QuotaLeases| async move {
        let mut taken = 0;
        for _ in 0..40 {
            let meter = calls();
            let all = join_all((0..20).map(|_| gate.take(id, &meter, 1_000).decision())).await;
            taken += all.iter().filter(|one| one.is_ok()).count();
        }
        taken
    };
    // One of them dies in the middle, with what it holds.
    let (taken, died) = {
        let mut running: Vec<_> = gates.iter().cloned().map(hammer).collect();
        let last = running.pop().unwrap();
        let died = async {
            let last = std::pin::pin!(last);
            futures_util::future::select(
                last,
                std::pin::pin!(tokio::time::sleep(Duration::from_millis(40))),
            )
            .await;
        };
        let (taken, ()) = tokio::join!(join_all(running), died);
        (taken.iter().sum::<usize>() as u64, gates[3].stats())
    };
    assert!(died.taken + died.waited + taken <= 1_000);
    for gate in &gates[..3] {
        gate.close().await;
        assert_eq!((gate.stats().leases, gate.stats().units), (0, 0));
    }
    world.sql("UPDATE quota_leases SET expires_at = now()").await;
    let rest = lend(&world.app, id, (1_000, 0), Vec::new()).await.bought;
    let over = 1_000 - rest - taken;
    let (used, held) = (died.taken + died.waited, died.units);
    assert!(
        over >= used && over <= used + held + 40,
        "{over} of {died:?} count as used"
    );
}

#[actix_web::test]
async fn a_tenant_that_is_gone_and_a_database_that_is_away_are_no_reason_to_let_anybody_through() {
    let world = World::new().await;
    limit(&world, &world.acme, "api_calls", 100).await;
    let gate = gate(&world.app);
    let client = guarded(&world, &gate).await;
    // What is remembered of the user is no permission to use anything.
    world
        .get(&world.acme.viewer, "/api/v1/projects")
        .await
        .expect(200);
    world.pool.close();
    let refused = gate
        .take(world.acme.id, &calls(), 100)
        .decision()
        .await
        .unwrap_err();
    assert!(
        matches!(refused, tenantry_domain::operations::QuotaRefusal::Denied(_)),
        "{refused}"
    );
    let bearer = &world.acme.viewer.access_token;
    client
        .get("/api/v1/projects")
        .bearer(bearer)
        .await
        .problem(503, "unavailable");
    assert_eq!((gate.stats().failed, gate.stats().unanswered), (2, 2));
}
