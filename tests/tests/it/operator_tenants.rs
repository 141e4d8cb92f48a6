//! What operators do over HTTP: tenants, their plans and their jobs, and reads across tenants.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tenantry_domain::operations::OperatorRole;
use tenantry_tests::{Reply, Request, TenantWorld, World};

const TENANTS: &str = "/api/v1/admin/tenants";
const OLGA: &str = "olga@platform.example";
const REASON: &str = "ticket 4711: a user cannot log in";
const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

fn get(world: &World, token: &str, path: &str) -> Request {
    world.client.get(path).bearer(token)
}

async fn post(world: &World, token: &str, path: &str, body: Value) -> Reply {
    world.client.post(path, &body).bearer(token).await
}

async fn rows(world: &World, token: &str, path: &str) -> Reply {
    let path = format!("/api/v1/admin/{path}");
    get(world, token, &path).header("X-Bypass-Reason", REASON).await
}

/// The entries of an action in a tenant's log.
async fn logged(world: &World, tenant: &TenantWorld, action: &str) -> Vec<Value> {
    let all = world.audit(tenant).await.into_iter();
    all.filter(|(one, _)| one == action).map(|(_, row)| row).collect()
}

async fn recorded(world: &World, action: &str) -> Vec<Value> {
    let all = world.operator_events().await.into_iter();
    all.filter(|(one, _)| one == action).map(|(_, row)| row).collect()
}

fn new_tenant(slug: &str) -> Value {
    json!({
        "name": "Initech", "slug": slug, "plan": "pro",
        "admin": {"email": "bill@initech.example", "full_name": "Bill L."},
    })
}

#[actix_web::test]
async fn operator_creates_a_tenant_without_its_tokens() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let keyed = |body: &Value| {
        let request = world.client.post(TENANTS, body).bearer(&token);
        request.header("Idempotency-Key", KEY)
    };
    let made = keyed(&new_tenant("initech")).await.expect(201);
    let body = made.json();
    assert_eq!(
        (&body["tenant"]["plan"], &body["admin"]["role"]),
        (&json!("pro"), &json!("admin"))
    );
    assert!(!made.text().contains("token"), "{}", made.text());
    let again = keyed(&new_tenant("initech")).await.expect(201);
    assert_eq!(
        (again.header("idempotent-replayed"), again.json()),
        (Some("true"), body.clone())
    );
    post(&world, &token, TENANTS, new_tenant("initech"))
        .await
        .problem(409, "slug_taken");
    post(&world, &token, TENANTS, json!({"name": "X", "slug": "x"}))
        .await
        .problem(422, "validation_failed");

    let login = json!({
        "email": "bill@initech.example", "password": body["credentials"]["password"], "tenant_slug": "initech",
    });
    world.client.post("/api/v1/auth/login", &login).await.expect(200);
    let id = &body["tenant"]["id"];
    let record = recorded(&world, "tenant.created").await;
    assert_eq!(record.iter().filter(|row| row["target_tenant"] == *id).count(), 1);
    assert_eq!(recorded(&world, "tenant.creation_failed").await.len(), 1);
    let told =
        "SELECT to_jsonb(a) FROM audit_events a WHERE a.tenant_id = $1::uuid AND a.action = 'tenant.created'";
    let told: Value = sqlx::query_scalar(told)
        .bind(id.as_str().unwrap())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(
        (&told["actor_type"], &told["actor_id"]),
        (&json!("operator"), &record[0]["operator_id"])
    );
}

#[actix_web::test]
async fn plan_and_agreements_change_with_a_reason_on_record() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Billing).await;
    let globex = world.digest(&world.globex).await;
    let path = format!("{TENANTS}/{}", world.acme.id);
    let plan = format!("{path}/plan");
    let changed = post(
        &world,
        &token,
        &plan,
        json!({"plan": "enterprise", "reason": "contract 4711"}),
    )
    .await;
    let changed = changed.expect(200);
    assert_eq!(changed.json()["plan"], "enterprise");
    let unknown = post(
        &world,
        &token,
        &plan,
        json!({"plan": "gold", "reason": "contract 4711"}),
    )
    .await;
    assert_eq!(
        unknown.problem(422, "validation_failed").json()["errors"][0]["pointer"],
        "/plan"
    );
    post(&world, &token, &plan, json!({"plan": "pro"}))
        .await
        .problem(422, "validation_failed");

    let agree = async |body: Value, version: &str| {
        let request = world.client.patch(&path, &body).bearer(&token);
        request.header("If-Match", version).await
    };
    let version = changed.header("etag").unwrap().to_owned();
    let body =
        json!({"limits": {"users": 60}, "meters": {"api_calls": "unlimited"}, "reason": "contract 4711"});
    agree(body.clone(), "\"99\"").await.problem(412, "stale_version");
    agree(body, &version).await.expect(200);
    for wrong in [
        json!({"limits": {"nonsense": 1}, "reason": "x"}),
        json!({"features": {"nonsense": true}, "reason": "x"}),
        json!({"meters": {"nonsense": 1}, "reason": "x"}),
        json!({"limits": {"users": 1}, "reason": "a\nb"}),
        json!({"limits": {"users": -1}, "reason": "x"}),
        json!({"limits": {"users": 1e300}, "reason": "x"}),
    ] {
        let refused = agree(wrong.clone(), "*").await;
        assert_eq!(refused.status, 422, "{wrong} {}", refused.text());
    }
    assert_eq!(world.digest(&world.globex).await, globex);
    let told = logged(&world, &world.acme, "tenant.plan_changed").await;
    assert_eq!(
        (told.len(), &told[0]["after"]["reason"]),
        (1, &json!("contract 4711"))
    );
    assert_eq!(told[0]["actor_type"], "operator");
    let told = logged(&world, &world.acme, "tenant.agreed").await;
    assert_eq!(
        (told.len(), &told[0]["after"]["reason"]),
        (1, &json!("contract 4711"))
    );
    // Both logs name the one request.
    assert_eq!(
        logged(&world, &world.acme, "tenant.plan_changed").await[0]["request_id"],
        recorded(&world, "tenant.plan_changed").await[0]["request_id"]
    );
    // What is refused before anything is done is no change; what fails later has a second entry, with the reason.
    let changes = recorded(&world, "tenant.plan_changed").await;
    assert_eq!(
        (changes.len(), &changes[0]["reason"]),
        (1, &json!("contract 4711"))
    );
    let failed = recorded(&world, "tenant.agreement_failed").await;
    assert_eq!((failed.len(), &failed[0]["reason"]), (1, &json!("contract 4711")));
    let nobody = format!("{TENANTS}/0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11/plan");
    post(&world, &token, &nobody, json!({"plan": "pro", "reason": "x"}))
        .await
        .problem(404, "not_found");
    world.set_status(&world.acme, "deleted").await;
    post(&world, &token, &plan, json!({"plan": "pro", "reason": "x"}))
        .await
        .problem(410, "tenant_gone");
    assert_eq!(recorded(&world, "tenant.plan_changed").await.len(), 1);
}

async fn dead_job(world: &World, tenant: &TenantWorld) -> String {
    let id: uuid::Uuid = sqlx::query_scalar(
        "INSERT INTO jobs (tenant_id, id, created_at, kind, schema_version, payload, state, run_at, attempts, max_attempts,
             actor_type, request_id, last_error, finished_at)
         VALUES ($1, gen_random_uuid(), now(), 'mail.send', 1, '{\"secret\": \"of the tenant\"}', 'dead', now(), 10, 10,
             'system', 'r', 'away', now()) RETURNING id",
    )
    .bind(tenant.id.uuid())
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap();
    id.to_string()
}

#[actix_web::test]
async fn jobs_are_listed_replayed_and_cancelled_in_their_tenant_only() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    let job = dead_job(&world, &world.acme).await;
    dead_job(&world, &world.globex).await;
    let path = format!(
        "/api/v1/admin/jobs?tenant_id={}&state=dead&limit=1",
        world.acme.id
    );
    let listed = get(&world, &token, &path).await.expect(200);
    assert_eq!(
        (&listed.json()["data"][0]["id"], &listed.json()["next_cursor"]),
        (&json!(job), &Value::Null)
    );
    assert!(!listed.text().contains("secret"));
    let own = get(&world, &token, "/api/v1/admin/jobs?limit=100")
        .await
        .expect(200)
        .json();
    assert!(
        own["data"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["tenant_id"].is_null())
    );

    let (replay, cancel) = (
        format!("/api/v1/admin/jobs/{job}/replay"),
        format!("/api/v1/admin/jobs/{job}/cancel"),
    );
    let of = |tenant: &TenantWorld| json!({"tenant_id": tenant.id, "reason": "the mail server is back"});
    post(&world, &token, &replay, of(&world.globex))
        .await
        .problem(404, "not_found");
    post(&world, &token, &replay, json!({"reason": "x"}))
        .await
        .problem(404, "not_found");
    let replayed = post(&world, &token, &replay, of(&world.acme)).await.expect(200);
    assert_eq!(replayed.json()["state"], "queued");
    post(&world, &token, &replay, of(&world.acme))
        .await
        .problem(409, "conflict");
    post(&world, &token, &cancel, of(&world.acme)).await.expect(200);
    let told = logged(&world, &world.acme, "job.replayed").await;
    assert_eq!(told[0]["after"]["reason"], "the mail server is back");
    assert_eq!((&told[0]["actor_type"], told.len()), (&json!("operator"), 1));
    assert_eq!(
        recorded(&world, "job.cancelled").await[0]["reason"],
        "the mail server is back"
    );
    assert!(logged(&world, &world.globex, "job.replayed").await.is_empty());
}

/// Operators read what was agreed; the tenant's own answer stays as it was.
#[actix_web::test]
async fn operators_read_the_agreements_of_a_tenant() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Billing).await;
    let path = format!("{TENANTS}/{}", world.acme.id);
    let none = json!({"features": {}, "limits": {}, "meters": {}});
    let before = get(&world, &token, &path).await.expect(200).json();
    assert_eq!(before["agreements"], none);
    let agree = async |body: Value| {
        let request = world.client.patch(&path, &body).bearer(&token);
        request.await.expect(200).json()["agreements"].clone()
    };
    let agreed = agree(json!({
        "features": {"branding": true}, "limits": {"users": 60}, "meters": {"api_calls": "unlimited"}, "reason": "contract 4711",
    }));
    let all = json!({"features": {"branding": true}, "limits": {"users": 60}, "meters": {"api_calls": "unlimited"}});
    assert_eq!(agreed.await, all);
    let read = get(&world, &token, &path).await.expect(200).json();
    assert_eq!((&read["agreements"], &read["slug"]), (&all, &json!("acme")));
    let left =
        agree(json!({"limits": {"users": null}, "meters": {"api_calls": null}, "reason": "over"})).await;
    assert_eq!(
        left,
        json!({"features": {"branding": true}, "limits": {}, "meters": {}})
    );
    let other = format!("{TENANTS}/{}", world.globex.id);
    let other = get(&world, &token, &other).await.expect(200).json();
    assert_eq!(other["agreements"], none);
    let own = world
        .get(&world.acme.admin, "/api/v1/tenant")
        .await
        .expect(200)
        .json();
    assert!(own.get("agreements").is_none());
}

#[actix_web::test]
async fn rows_across_tenants_are_shown_with_a_reason_and_logged_in_each() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    let users = rows(&world, &token, "users").await.expect(200);
    assert!(
        !users.text().contains("argon2") && !users.text().contains("password"),
        "{}",
        users.text()
    );
    let users = users.json();
    let tenants: std::collections::BTreeSet<_> = users["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["tenant_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tenants.len(), 2);
    let event = recorded(&world, "rows.read").await[0]["id"].clone();
    for tenant in [&world.acme, &world.globex] {
        let told = logged(&world, tenant, "operator.rows_read").await;
        assert_eq!((told.len(), &told[0]["after"]["operator_event"]), (1, &event));
        assert_eq!(told[0]["actor_type"], "operator");
        // Without `tenant_id` the reason may name another tenant.
        let own = world.get(&tenant.admin, "/api/v1/audit-events?limit=100").await;
        assert!(!own.expect(200).text().contains(REASON));
    }
    for kind in ["users", "projects", "tasks"] {
        let path = format!("{kind}?tenant_id={}", world.acme.id);
        let of_acme = rows(&world, &token, &path).await.expect(200).json();
        let of_acme = of_acme["data"].as_array().unwrap();
        assert!(!of_acme.is_empty(), "{kind}");
        assert!(
            of_acme.iter().all(|row| row["tenant_id"] == json!(world.acme.id)),
            "{kind}"
        );
    }
    let of_acme = logged(&world, &world.acme, "operator.rows_read").await;
    let with_reason = of_acme.iter().filter(|row| row["after"]["reason"] == REASON);
    assert_eq!((with_reason.count(), of_acme.len()), (3, 4));
    rows(&world, &token, "usage").await.expect(200);
    let of_globex = logged(&world, &world.globex, "operator.rows_read").await;
    assert_eq!(
        (of_globex.len(), &of_globex[0]["after"]["reason"]),
        (1, &Value::Null)
    );
    let events = recorded(&world, "rows.read").await;
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|row| row["reason"] == REASON));
    assert_eq!(recorded(&world, "rows.shown").await.len(), 5);
}

#[actix_web::test]
async fn pages_across_tenants_have_every_row_once() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    let all = rows(&world, &token, "users?limit=100").await.expect(200).json();
    let (mut seen, mut path) = (Vec::new(), "users?limit=2".to_owned());
    loop {
        let page = rows(&world, &token, &path).await.expect(200).json();
        seen.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("users?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(json!(seen), all["data"]);
    rows(&world, &token, "projects?cursor=nonsense")
        .await
        .problem(400, "invalid_cursor");
}

#[actix_web::test]
async fn bypass_needs_a_reason_of_some_length() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    let path = "/api/v1/admin/users";
    get(&world, &token, path)
        .await
        .problem(400, "bypass_reason_required");
    let with = |reason: &str| get(&world, &token, path).header("X-Bypass-Reason", reason);
    with(" ").await.problem(400, "bypass_reason_required");
    with("short").await.problem(422, "validation_failed");
    with(&"x".repeat(501)).await.problem(422, "validation_failed");
    with(REASON)
        .header("X-Bypass-Reason", REASON)
        .await
        .problem(400, "invalid_request");
    rows(&world, &token, "users?tenant_id=nonsense")
        .await
        .problem(422, "validation_failed");
    rows(&world, &token, "users?q=x")
        .await
        .problem(422, "unknown_field");
    rows(
        &world,
        &token,
        "usage?from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z",
    )
    .await
    .problem(422, "validation_failed");
    assert!(recorded(&world, "rows.read").await.is_empty());
    let billing = world
        .operator_as("bill@platform.example", OperatorRole::Billing)
        .await;
    rows(&world, &billing, "users").await.problem(403, "forbidden");
    rows(&world, &billing, "usage").await.expect(200);
    world
        .get(&world.acme.admin, path)
        .header("X-Bypass-Reason", REASON)
        .await
        .expect(401);
}

/// Rows whose tenant has no log any more are not shown.
#[actix_web::test]
async fn rows_of_a_deleted_tenant_are_not_shown() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    world.set_status(&world.acme, "deleted").await;
    let users = rows(&world, &token, "users").await.expect(200).json();
    let users = users["data"].as_array().unwrap();
    assert!(users.iter().all(|row| row["tenant_id"] == json!(world.globex.id)));
    let path = format!("users?tenant_id={}", world.acme.id);
    assert_eq!(
        rows(&world, &token, &path).await.expect(200).json()["data"],
        json!([])
    );
}

/// Entries of audit logs are shown as other rows are, by the filters of tenants' own list, and without the states before and after.
#[actix_web::test]
async fn audit_entries_across_tenants_have_no_states() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    for tenant in [&world.acme, &world.globex] {
        let project = json!({"name": "Secret plans"});
        let made = world.post(&tenant.admin, "/api/v1/projects", &project).await;
        made.expect(201);
    }
    let path = "tenant-audit-events?action=project.created&entity=project&actor=user&risk=low";
    let all = rows(&world, &token, path).await.expect(200);
    assert!(!all.text().contains("Secret plans"), "{}", all.text());
    let all = all.json();
    let of = |tenant: &TenantWorld| {
        let rows = all["data"].as_array().unwrap().iter();
        let own = rows.filter(|row| row["tenant_id"] == json!(tenant.id));
        let of_admin = own.filter(|row| row["actor_id"] == json!(tenant.admin.id));
        of_admin.count()
    };
    assert!(of(&world.acme) > 0 && of(&world.globex) > 0, "{all}");
    let entry = all["data"][0].as_object().unwrap();
    assert!(!entry.contains_key("before") && !entry.contains_key("after"));
    let path = |rest: &str| format!("tenant-audit-events?tenant_id={}&{rest}", world.acme.id);
    let admin = path(&format!("actor={}&to=2100-01-01T00:00:00Z", world.acme.admin.id));
    let own = rows(&world, &token, &admin).await.expect(200).json();
    let own = own["data"].as_array().unwrap();
    assert!(!own.is_empty() && own.iter().all(|row| row["tenant_id"] == json!(world.acme.id)));
    let future = path("from=2100-01-01T00:00:00Z");
    assert_eq!(
        rows(&world, &token, &future).await.expect(200).json()["data"],
        json!([])
    );
    let before = recorded(&world, "rows.read").await.len();
    for wrong in [
        "actor=nobody",
        "risk=none",
        "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "entity_id=x",
    ] {
        let reply = rows(&world, &token, &path(wrong)).await;
        reply.problem(422, "validation_failed");
    }
    let without = get(&world, &token, "/api/v1/admin/tenant-audit-events").await;
    without.problem(400, "bypass_reason_required");
    assert_eq!(recorded(&world, "rows.read").await.len(), before);
    let told = logged(&world, &world.globex, "operator.rows_read").await;
    assert_eq!(
        (told.len(), &told[0]["after"]["rows"]),
        (1, &json!("audit_events"))
    );
    assert_eq!(logged(&world, &world.acme, "operator.rows_read").await.len(), 3);
    let billing = world.operator_as("bill@platform.example", OperatorRole::Billing);
    let refused = rows(&world, &billing.await, "tenant-audit-events").await;
    refused.problem(403, "forbidden");
}

/// The platform role reads rows only in a transaction that has stored a record with a reason, of the tenant that the record names, reads
/// no other columns, and writes nothing.
#[actix_web::test]
async fn database_shows_no_row_without_a_record() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    rows(&world, &token, "users").await.expect(200);
    let id = |rows: Vec<Value>| rows[0]["id"].as_str().unwrap().to_owned();
    let earlier = id(recorded(&world, "rows.read").await);
    let other = id(recorded(&world, "rows.shown").await);
    let mut platform = world.database.platform().await;
    let mut admin = world.database.admin().await;
    for table in ["users", "projects", "tasks", "usage_days", "audit_events"] {
        for event in ["", &other, "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", &earlier] {
            let mut tx = platform.begin().await.unwrap();
            assert_eq!(seen(&mut tx, event, table).await, 0, "{table} {event}");
        }
        let acme = world.acme.id.uuid();
        for target in [None, Some(acme)] {
            let mut tx = platform.begin().await.unwrap();
            let own = store_record(&mut tx, target).await;
            let all = format!("SELECT count(*) FROM {table} WHERE $1 IS NULL OR tenant_id = $1");
            let all = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(all)).bind(target);
            let all = all.fetch_one(&mut admin).await.unwrap();
            assert_eq!(seen(&mut tx, &own, table).await, all, "{table} {target:?}");
            tx.commit().await.unwrap();
            let mut tx = platform.begin().await.unwrap();
            assert_eq!(
                seen(&mut tx, &own, table).await,
                0,
                "the record of before, {table}"
            );
        }
        for refused in [
            format!("SELECT * FROM {table}"),
            format!("DELETE FROM {table}"),
            format!("UPDATE {table} SET tenant_id = tenant_id"),
        ] {
            let error = sqlx::query(sqlx::AssertSqlSafe(refused))
                .execute(&mut platform)
                .await
                .unwrap_err();
            let code = error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code)
                .unwrap_or_default()
                .into_owned();
            assert_eq!(code, "42501", "{table}");
        }
    }
}

/// How many rows of a table a transaction sees that names a record.
async fn seen(tx: &mut sqlx::PgConnection, event: &str, table: &str) -> i64 {
    let set = sqlx::query("SELECT set_config('app.bypass_event', $1, true)").bind(event);
    set.execute(&mut *tx).await.unwrap();
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(count).fetch_one(tx).await.unwrap()
}

/// Stores a record of a read and returns its id.
async fn store_record(tx: &mut sqlx::PgConnection, target: Option<uuid::Uuid>) -> String {
    let insert = "INSERT INTO operator_events (id, at, action, target_tenant, reason, details, request_id) \
                  VALUES (gen_random_uuid(), now(), 'rows.read', $1, 'ticket 4711', '{}', 'r') RETURNING id::text";
    sqlx::query_scalar(insert)
        .bind(target)
        .fetch_one(tx)
        .await
        .unwrap()
}

#[actix_web::test]
async fn reads_across_tenants_are_few_at_once() {
    let world = World::new().await;
    let token = world.operator_as(OLGA, OperatorRole::Support).await;
    let all = join_all((0..12).map(|_| rows(&world, &token, "users"))).await;
    for reply in &all {
        assert!([200, 429].contains(&reply.status), "{}", reply.text());
    }
    assert!(all.iter().any(|reply| reply.status == 429));
    // A place that was given back is taken again.
    rows(&world, &token, "users").await.expect(200);
}
