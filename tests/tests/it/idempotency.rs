//! `Idempotency-Key`: what was asked for once is done once, and answered the same each time it is asked for again; a key
//! is its owner's alone, and nothing is left of a request that was not done.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::http::Method;
use chrono::Duration as Span;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tenantry_billing::BillingHandlers as _;
use tenantry_domain::kernel::{KeptAnswer, KeyTaken, Role, StoreError, UserId};
use tenantry_domain::operations::RequestKey;
use tenantry_domain::work::NewProject;
use tenantry_persistence::PoolConfig;
use tenantry_tenancy::operations::idempotency::KeyedRequest;
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tenancy::work::project;
use tenantry_tests::{Options, PASSWORD, Person, Reply, Request, TenantWorld, World};

use crate::features::definition;
use crate::{embedder, jobs};

const PROJECTS: &str = "/api/v1/projects";
const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

fn keyed(world: &World, who: &Person, path: &str, key: &str, body: &Value) -> Request {
    world.post(who, path, body).header("Idempotency-Key", key)
}

/// The request that most tests repeat.
async fn make(world: &World, who: &Person) -> Reply {
    keyed(world, who, PROJECTS, KEY, &json!({"name": "Moon base"})).await
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("Idempotent-Replayed") == Some("true")
}

#[track_caller]
fn assert_replays(first: &Reply, again: &Reply) {
    assert!(!is_replay(first), "{first:?}");
    assert!(is_replay(again), "{again:?}");
    assert_eq!(again.status, first.status, "{}", again.text());
    assert_eq!(again.bytes, first.bytes);
    let kept = |reply: &Reply| {
        let mut headers: BTreeSet<_> = reply.headers.iter().cloned().collect();
        let different = ["x-request-id", "ratelimit", "idempotent-replayed"];
        headers.retain(|(name, _)| !different.contains(&name.as_str()));
        headers
    };
    assert_eq!(kept(again), kept(first));
}

async fn count(world: &World, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {sql}")))
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

async fn run(admin: &mut PgConnection, sql: &str) -> u64 {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(admin).await;
    done.unwrap().rows_affected()
}

async fn keys(world: &World) -> i64 {
    count(world, "idempotency_keys").await
}

async fn moon_bases(world: &World) -> i64 {
    count(world, "projects WHERE name = 'Moon base'").await
}

async fn log_in(world: &World, person: &Person) -> Person {
    let slug = if person.email.contains("acme") {
        "acme"
    } else {
        "globex"
    };
    let login = world
        .login(slug, &person.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let text = |name: &str| login[name].as_str().unwrap().to_owned();
    Person {
        access_token: text("access_token"),
        refresh_token: text("refresh_token"),
        ..person.clone()
    }
}

// ------------------------------------------------------------------------------------------------------------ replays

#[actix_web::test]
async fn the_same_request_is_done_once_and_answered_the_same() {
    let world = World::new().await;
    let other = world.digest(&world.globex).await;
    let first = make(&world, &world.acme.member).await.expect(201);
    let after = world.digest(&world.acme).await;
    for _ in 0..3 {
        assert_replays(&first, &make(&world, &world.acme.member).await);
    }
    assert_eq!(world.digest(&world.acme).await, after, "audit log included");
    assert_eq!(world.digest(&world.globex).await, other);
    assert_eq!((moon_bases(&world).await, keys(&world).await), (1, 1));
}

#[actix_web::test]
async fn without_a_key_it_is_done_each_time() {
    let world = World::new().await;
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    for _ in 0..2 {
        let reply = world
            .post(&world.acme.member, &path, &json!({"title": "Again"}))
            .await;
        assert!(!is_replay(&reply.expect(201)));
    }
    assert_eq!(count(&world, "tasks WHERE title = 'Again'").await, 2);
    assert_eq!(keys(&world).await, 0);
}

#[actix_web::test]
async fn how_a_request_is_written_makes_no_difference() {
    let world = World::new().await;
    let send = |key: &str, body: &str| {
        let request = world
            .client
            .request(Method::POST, PROJECTS)
            .bearer(&world.acme.member.access_token);
        request
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", key)
            .body(body)
            .send()
    };
    let first = send("\"one\"", r#"{"name": "Moon base", "description": "é"}"#)
        .await
        .expect(201);
    for (key, body) in [
        ("one", r#"{"name": "Moon base", "description": "é"}"#),
        (" one ", r#"{"description":"é","name":"Moon base"}"#),
        (
            "\"one\"",
            "\n{ \"description\" : \"\\u00e9\",\t\"name\" : \"Moon\\u0020base\" }",
        ),
    ] {
        assert_replays(&first, &send(key, body).await);
    }
}

#[actix_web::test]
async fn a_key_stands_for_one_request_only() {
    let world = World::new().await;
    let member = &world.acme.member;
    let first = make(&world, member).await.expect(201);
    for body in [
        json!({"name": "Mars base"}),
        json!({"name": "Moon base", "description": "d"}),
    ] {
        let other = keyed(&world, member, PROJECTS, KEY, &body).await;
        other.problem(422, "idempotency_key_reused");
    }
    // The path belongs to the request: the same task in another project is another task.
    let id = first.json()["id"].as_str().unwrap().to_owned();
    let task = json!({"title": "Land"});
    for (project, status) in [(&world.acme.project.to_string(), 201), (&id, 422)] {
        let path = format!("/api/v1/projects/{project}/tasks");
        keyed(&world, member, &path, KEY, &task).await.expect(status);
    }
    assert_eq!(count(&world, "projects WHERE name = 'Mars base'").await, 0);
    assert_replays(&first, &make(&world, member).await);
}

#[actix_web::test]
async fn two_routes_do_not_share_a_key() {
    let world = World::new().await;
    let member = &world.acme.member;
    make(&world, member).await.expect(201);
    let resource = json!({"name": "Moon base", "content": "x"});
    let reply = keyed(&world, member, "/api/v1/resources", KEY, &resource).await;
    assert!(!is_replay(&reply.expect(201)));
    assert_eq!(keys(&world).await, 2);
}

#[actix_web::test]
async fn what_failed_is_tried_again() {
    let world = World::new().await;
    let member = &world.acme.member;
    let body = json!({"name": "Moon base"});
    let taken = world.post(member, PROJECTS, &body).await.expect(201).json();
    for _ in 0..2 {
        let reply = make(&world, member).await;
        assert!(!is_replay(&reply.problem(409, "conflict")));
    }
    let path = format!("/api/v1/projects/{}/tasks", taken["id"].as_str().unwrap());
    let task = json!({"title": "T", "assignee_id": world.globex.member.id});
    keyed(&world, member, &path, KEY, &task)
        .await
        .problem(422, "validation_failed");
    assert_eq!(keys(&world).await, 0);
    let path = format!("{PROJECTS}/{}", taken["id"].as_str().unwrap());
    world.delete(&world.acme.admin, &path).await.expect(204);
    let done = make(&world, member).await.expect(201);
    assert_replays(&done, &make(&world, member).await);
}

// ------------------------------------------------------------------------------------------------------ every operation

/// The POSTs that take no key, and why.
const WITHOUT_KEY: [(&str, &str); 78] = [
    ("/api/v1/notifications/read-all", "it makes nothing"),
    ("/api/v1/notifications/unsubscribe", "it makes nothing"),
    (
        "/api/v1/security/alerts/{id}/acknowledge",
        "repeated, it answers with the alert as it is",
    ),
    ("/api/v1/support-access/{id}/approve", "it is done once"),
    ("/api/v1/support-access/{id}/deny", "it is done once"),
    ("/api/v1/support-access/{id}/end", "it is done once"),
    (
        "/api/v1/admin/support-access",
        "an operator has one open access to a tenant",
    ),
    ("/api/v1/admin/support-access/{id}/withdraw", "it is done once"),
    (
        "/api/v1/admin/support-access/{id}/token",
        "tokens are stored nowhere, and one access may have any number",
    ),
    ("/api/v1/tenant/domains/{id}/verify", "it makes nothing"),
    (
        "/api/v1/webhooks/endpoints/{id}/test",
        "a test is a request to a receiver, of which there may be any number",
    ),
    (
        "/api/v1/webhooks/endpoints/{id}/recover",
        "repeated, it queues what is left",
    ),
    (
        "/api/v1/webhooks/messages/{id}/endpoints/{endpoint_id}/resend",
        "repeated, it queues the same message",
    ),
    (
        "/api/v1/webhooks/portal",
        "tokens are stored nowhere, and one session may have any number",
    ),
    ("/api/v1/tenant/exports", "one is under way at a time"),
    ("/api/v1/users/{id}/exports", "one is under way at a time"),
    ("/api/v1/users/{id}/erase", "it makes nothing"),
    (
        "/api/v1/auth/login",
        "it makes a session, of which one may have any number",
    ),
    (
        "/api/v1/auth/switch-tenant",
        "it makes a session, of which one may have any number",
    ),
    (
        "/api/v1/auth/discover",
        "it stores one request for an address at a time",
    ),
    ("/api/v1/auth/refresh", "the refresh token is the key"),
    ("/api/v1/auth/logout", "it makes nothing"),
    ("/api/v1/auth/change-password", "it makes nothing"),
    (
        "/api/v1/auth/forgot-password",
        "it sends one mail in five minutes",
    ),
    ("/api/v1/auth/reset-password", "a link works once"),
    ("/api/v1/auth/verify-email", "a link works once"),
    ("/api/v1/auth/change-email", "it sends one mail in five minutes"),
    ("/api/v1/auth/confirm-email", "a link works once"),
    ("/api/v1/auth/revert-email", "a link works once"),
    (
        "/api/v1/auth/resend-verification",
        "it sends one mail in five minutes",
    ),
    (
        "/api/v1/users/{id}/send-reset",
        "it sends one mail in five minutes",
    ),
    (
        "/api/v1/invitations/accept",
        "the token is used once; afterwards there is the login",
    ),
    (
        "/api/v1/invitations/{id}/resend",
        "it is refused for a minute afterwards",
    ),
    ("/api/v1/auth/logout-all", "it makes nothing"),
    ("/api/v1/users/{id}/end-sessions", "it makes nothing"),
    (
        "/api/v1/auth/mfa/enroll",
        "an enrollment takes the place of the one before it",
    ),
    ("/api/v1/auth/mfa/confirm", "an enrollment is confirmed once"),
    ("/api/v1/auth/mfa/disable", "a code is accepted once"),
    ("/api/v1/auth/mfa/recovery-codes", "a code is accepted once"),
    ("/api/v1/auth/mfa/step-up", "a code is accepted once"),
    ("/api/v1/auth/mfa/verify", "a code is accepted once"),
    (
        "/api/v1/auth/mfa/required/enroll",
        "an enrollment takes the place of the one before it",
    ),
    (
        "/api/v1/auth/mfa/required/confirm",
        "an enrollment is confirmed once",
    ),
    ("/api/v1/users/{id}/reset-mfa", "it makes nothing"),
    (
        "/api/v1/auth/passkeys/registration",
        "what it begins is not stored until PUT finishes it, once",
    ),
    (
        "/api/v1/auth/passkeys/login",
        "what it begins is not stored until PUT finishes it, once",
    ),
    (
        "/api/v1/admin/login",
        "it makes a token, of which one may have any number",
    ),
    (
        "/api/v1/admin/change-password",
        "the present password is given, which a change ends",
    ),
    (
        "/api/v1/admin/mfa/enroll",
        "an enrollment takes the place of the one before it",
    ),
    ("/api/v1/admin/mfa/confirm", "an enrollment is confirmed once"),
    ("/api/v1/admin/mfa/disable", "a code is accepted once"),
    ("/api/v1/admin/mfa/recovery-codes", "a code is accepted once"),
    ("/api/v1/admin/mfa/verify", "a code is accepted once"),
    (
        "/api/v1/admin/mfa/required/enroll",
        "an enrollment takes the place of the one before it",
    ),
    (
        "/api/v1/admin/mfa/required/confirm",
        "an enrollment is confirmed once",
    ),
    ("/api/v1/admin/mfa/step-up", "a code is accepted once"),
    ("/api/v1/admin/operators/{id}/end-sessions", "it makes nothing"),
    (
        "/api/v1/admin/operators/{id}/reset-password",
        "the last password counts, and is stored nowhere",
    ),
    ("/api/v1/admin/operators/{id}/reset-mfa", "it makes nothing"),
    ("/api/v1/admin/jobs/{id}/replay", "it makes nothing"),
    ("/api/v1/admin/jobs/{id}/cancel", "it makes nothing"),
    ("/api/v1/admin/tenants/{id}/plan", "it makes nothing"),
    ("/api/v1/admin/tenants/{id}/suspend", "it makes nothing"),
    ("/api/v1/admin/tenants/{id}/resume", "it makes nothing"),
    ("/api/v1/admin/tenants/{id}/delete", "it makes nothing"),
    ("/api/v1/admin/tenants/{id}/restore", "it makes nothing"),
    ("/api/v1/admin/tenants/{id}/purge", "it makes nothing"),
    ("/api/v1/admin/flags/{key}/archive", "it makes nothing"),
    (
        "/api/v1/admin/flags/{key}/rollback",
        "`If-Match` keeps it from being done twice",
    ),
    ("/api/v1/admin/dunning/simulate", "it makes nothing"),
    (
        "/api/v1/admin/segments/{key}/rollback",
        "`If-Match` keeps it from being done twice",
    ),
    ("/api/v1/usage/events", "each event has a key of its own"),
    (
        "/api/v1/usage/events/{id}/invalidate",
        "an event can be taken back once",
    ),
    (
        "/api/v1/quotas/{meter}/reservations/{id}/commit",
        "saying the same again changes nothing",
    ),
    (
        "/api/v1/billing/portal",
        "it makes a page, of which one may have any number",
    ),
    ("/webhooks/stripe", "the id of the event is the key"),
    ("/ofrep/v1/evaluate/flags", "it makes nothing"),
    ("/ofrep/v1/evaluate/flags/{key}", "it makes nothing"),
];

/// For each of the others a path and two bodies, of two different requests.
async fn requests(world: &World) -> Vec<(&'static str, String, Value, Value)> {
    let acme = &world.acme;
    let deleted = world
        .post(&acme.admin, PROJECTS, &json!({"name": "Deleted"}))
        .await;
    let deleted = format!(
        "{PROJECTS}/{}",
        deleted.expect(201).json()["id"].as_str().unwrap()
    );
    world.delete(&acme.admin, &deleted).await.expect(204);
    let project = format!("{PROJECTS}/{}", acme.project);
    let key = json!({"name": "N", "scopes": ["tasks.read"]});
    let api_key = world.post(&acme.admin, "/api/v1/api-keys", &key).await;
    let api_key = api_key.expect(201).json()["id"].as_str().unwrap().to_owned();
    let endpoint = json!({"url": "https://hooks.example.com/n"});
    let made = world
        .post(&acme.admin, "/api/v1/webhooks/endpoints", &endpoint)
        .await;
    let webhook = made.expect(201).json()["id"].as_str().unwrap().to_owned();
    for hour in [9, 10] {
        let settings = json!({"notifications.digest_hour": hour});
        let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &settings);
        patch.await.expect(200);
    }
    let operator =
        |email: &str| json!({"email": email, "full_name": "N", "role": "support", "password": PASSWORD});
    let sign_up = |slug: &str| json!({"name": "N", "slug": slug, "admin": {"email": "n@new.example", "full_name": "N"}});
    let register = |name: &str| json!({"email": "n@register.example", "full_name": name, "password": PASSWORD, "tenant_slug": "customer"});
    vec![
        (
            "/api/v1/tenants",
            "/api/v1/tenants".into(),
            sign_up("new-one"),
            Value::Null,
        ),
        (
            "/api/v1/auth/register",
            "/api/v1/auth/register".into(),
            register("N"),
            register("M"),
        ),
        (
            "/api/v1/billing/checkout",
            "/api/v1/billing/checkout".into(),
            // Seats for the users that are added below: those of an open checkout limit users.
            json!({"plan": "pro", "seats": 9}),
            json!({"plan": "pro", "seats": 10}),
        ),
        (
            "/api/v1/admin/flags",
            "/api/v1/admin/flags".into(),
            definition("keyed", json!({})),
            definition("keyed-too", json!({})),
        ),
        (
            "/api/v1/admin/tenants",
            "/api/v1/admin/tenants".into(),
            sign_up("keyed-by-operator"),
            Value::Null,
        ),
        (
            "/api/v1/admin/operators",
            "/api/v1/admin/operators".into(),
            operator("keyed@platform.example"),
            operator("other@platform.example"),
        ),
        (
            "/api/v1/admin/segments",
            "/api/v1/admin/segments".into(),
            segment("keyed"),
            segment("keyed-too"),
        ),
        (
            "/api/v1/billing/subscription",
            "/api/v1/billing/subscription".into(),
            json!({"plan": "pro", "interval": "year"}),
            json!({"plan": "pro", "seats": 2}),
        ),
        (
            "/api/v1/billing/subscription/cancel",
            "/api/v1/billing/subscription/cancel".into(),
            json!({}),
            Value::Null,
        ),
        (
            "/api/v1/billing/subscription/resume",
            "/api/v1/billing/subscription/resume".into(),
            json!({}),
            Value::Null,
        ),
        (
            "/api/v1/tenant/settings/rollback",
            "/api/v1/tenant/settings/rollback".into(),
            json!({"version": 1}),
            json!({"version": 2}),
        ),
        (
            "/api/v1/users",
            "/api/v1/users".into(),
            json!({"email": "n@acme.example", "full_name": "N"}),
            json!({"email": "m@acme.example", "full_name": "N"}),
        ),
        (
            "/api/v1/invitations",
            "/api/v1/invitations".into(),
            json!({"email": "i@acme.example"}),
            json!({"email": "j@acme.example"}),
        ),
        (
            "/api/v1/api-keys",
            "/api/v1/api-keys".into(),
            key,
            json!({"name": "M", "scopes": ["tasks.read"]}),
        ),
        (
            "/api/v1/roles",
            "/api/v1/roles".into(),
            json!({"name": "n", "permissions": ["tasks.read"]}),
            json!({"name": "m", "permissions": ["tasks.read"]}),
        ),
        (
            "/api/v1/tenant/domains",
            "/api/v1/tenant/domains".into(),
            json!({"domain": "n.acme-corp.com"}),
            json!({"domain": "m.acme-corp.com"}),
        ),
        (
            "/api/v1/webhooks/endpoints",
            "/api/v1/webhooks/endpoints".into(),
            endpoint,
            json!({"url": "https://hooks.example.com/m"}),
        ),
        (
            "/api/v1/webhooks/endpoints/{id}/rotate-secret",
            format!("/api/v1/webhooks/endpoints/{webhook}/rotate-secret"),
            json!({"grace_period_seconds": 60}),
            json!({"grace_period_seconds": 0}),
        ),
        (
            "/api/v1/api-keys/{id}/rotate",
            format!("/api/v1/api-keys/{api_key}/rotate"),
            json!({"overlap_seconds": 60}),
            json!({"overlap_seconds": 0}),
        ),
        (
            PROJECTS,
            PROJECTS.into(),
            json!({"name": "N"}),
            json!({"name": "M"}),
        ),
        (
            "/api/v1/projects/{id}/restore",
            format!("{deleted}/restore"),
            json!({}),
            Value::Null,
        ),
        (
            "/api/v1/projects/{id}/members",
            format!("{project}/members"),
            json!({"user_id": acme.member.id}),
            json!({"user_id": acme.viewer.id}),
        ),
        (
            "/api/v1/projects/{id}/tasks",
            format!("{project}/tasks"),
            json!({"title": "N"}),
            json!({"title": "M"}),
        ),
        (
            "/api/v1/resources",
            "/api/v1/resources".into(),
            json!({"name": "N", "content": "x"}),
            json!({"name": "N", "content": "y"}),
        ),
        (
            "/api/v1/quotas/{meter}/reservations",
            "/api/v1/quotas/renders/reservations".into(),
            json!({"amount": 1, "ttl_seconds": 60}),
            json!({"amount": 2, "ttl_seconds": 60}),
        ),
        (
            "/api/v1/tasks/{id}/notes",
            format!("/api/v1/tasks/{}/notes", acme.task),
            json!({"text": "Nice"}),
            json!({"text": "More"}),
        ),
    ]
}

#[actix_web::test]
async fn every_post_of_the_document_honours_the_key_or_says_why_not() {
    let world = embedder::world().await;
    let requests = requests(&world).await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let known: BTreeSet<_> = requests
        .iter()
        .map(|(template, ..)| *template)
        .chain(WITHOUT_KEY.map(|(path, _)| path))
        .collect();
    let posts = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, item)| item.get("post").is_some());
    let posts: BTreeSet<_> = posts.map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        posts, known,
        "a POST takes an IdempotencyKey and is tried here, or is on the list with a reason"
    );
    for (path, _) in WITHOUT_KEY {
        assert!(!takes_key(&document["paths"][path]["post"]), "{path}");
        assert!(!creates(&document["paths"][path]["post"]), "{path}");
    }
    let operator = Person {
        access_token: world.operator("olga@example.com").await,
        ..world.acme.admin.clone()
    };
    let customer = signed_up(&world, "customer").await;
    for (template, path, body, other) in requests {
        assert_described(template, &document["paths"][template]["post"]);
        let admin = match template {
            // All seats of the others are taken.
            "/api/v1/auth/register"
            | "/api/v1/billing/checkout"
            | "/api/v1/users"
            | "/api/v1/invitations" => &customer,
            _ if template.starts_with("/api/v1/admin/") => &operator,
            _ => &world.acme.admin,
        };
        let first = keyed(&world, admin, &path, KEY, &body).await;
        assert!(
            [200, 201, 202].contains(&first.status),
            "{template}: {}",
            first.text()
        );
        let after = world.digest(&world.acme).await;
        assert_replays(&first, &keyed(&world, admin, &path, KEY, &body).await);
        if !other.is_null() {
            let other = keyed(&world, admin, &path, KEY, &other).await;
            other.problem(422, "idempotency_key_reused");
        }
        assert_eq!(world.digest(&world.acme).await, after, "{template}");
        // One change of the subscription is done before the next is asked for.
        embedder::work(&world).await;
    }
}

fn segment(key: &str) -> Value {
    json!({"key": key, "description": "N", "when": [{"attribute": "plan", "operator": "in", "values": ["pro"]}]})
}

/// The admin of a new tenant on the default plan, which has no subscription.
async fn signed_up(world: &World, slug: &str) -> Person {
    let body = json!({"name": slug, "slug": slug, "admin": {"email": "n@new.example", "full_name": "N"}});
    let answer = world.client.post("/api/v1/tenants", &body).await;
    let token = answer.expect(201).json()["credentials"]["access_token"].clone();
    Person {
        access_token: token.as_str().unwrap().to_owned(),
        ..world.acme.admin.clone()
    }
}

fn takes_key(operation: &Value) -> bool {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters
        .into_iter()
        .any(|parameter| parameter["name"] == "Idempotency-Key" && parameter["in"] == "header")
}

/// Whether it answers 201.
fn creates(operation: &Value) -> bool {
    operation["responses"].get("201").is_some()
}

/// README says which POSTs take a key: those that answer 201, and those that it names.
#[test]
fn readme_names_the_posts_that_take_a_key() {
    let document = serde_json::to_value(tenantry_http::openapi()).unwrap();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, claim) = readme
        .split_once("Every POST that answers `201 Created` accepts a key")
        .unwrap();
    let (claim, _) = claim.split_once("The other POSTs need none").unwrap();
    let named: BTreeSet<_> = claim
        .split('`')
        .filter(|part| part.starts_with("/api/"))
        .collect();
    let paths = document["paths"].as_object().unwrap().iter();
    let posts = paths.filter_map(|(path, item)| Some((path.as_str(), item.get("post")?)));
    let (creating, others): (Vec<_>, Vec<_>) = posts.partition(|(_, post)| creates(post));
    for (path, post) in creating {
        assert!(takes_key(post), "{path}");
    }
    let keyed = others.into_iter().filter(|(_, post)| takes_key(post));
    assert_eq!(named, keyed.map(|(path, _)| path).collect());
}

fn assert_described(template: &str, operation: &Value) {
    assert!(takes_key(operation), "{template}");
    let responses = &operation["responses"];
    for (status, code) in [
        ("422", "idempotency_key_reused"),
        ("409", "idempotency_in_progress"),
    ] {
        let examples = &responses[status]["content"]["application/problem+json"]["examples"];
        assert!(examples.get(code).is_some(), "{template}: {examples}");
    }
    let success = ["201", "202"].iter().find_map(|status| responses.get(*status));
    let success = success.unwrap_or(&responses["200"]);
    assert!(
        success["headers"].get("Idempotent-Replayed").is_some(),
        "{template}: {success}"
    );
}

// ------------------------------------------------------------------------------------------------- without a credential

/// A lost answer of a sign-up is sent again, with its generated password; only to who knows the key and the request.
#[actix_web::test]
async fn sign_up_is_answered_again_with_its_password() {
    let world = World::new().await;
    let body =
        json!({"name": "New", "slug": "new-one", "admin": {"email": "n@new.example", "full_name": "N"}});
    let send = |key: &str, body: &Value| {
        let request = world.client.post("/api/v1/tenants", body);
        request.header("Idempotency-Key", key).send()
    };
    let first = send(KEY, &body).await.expect(201);
    let again = send(KEY, &body).await;
    assert_replays(&first, &again);
    let credentials = &again.json()["credentials"];
    let password = credentials["password"].as_str().unwrap();
    world
        .login("new-one", "n@new.example", password)
        .await
        .expect(200);
    assert_eq!(count(&world, "tenants WHERE slug = 'new-one'").await, 1);

    let other_key = "\"00000000-0000-4000-8000-000000000000\"";
    send(other_key, &body).await.problem(409, "slug_taken");
    let mut other = body.clone();
    other["name"] = json!("Other");
    send(KEY, &other).await.problem(422, "idempotency_key_reused");
    other["admin"]["email"] = json!("m@new.example");
    send(KEY, &other).await.problem(409, "slug_taken");
    // What is stored is sealed.
    let stored: Vec<u8> = sqlx::query_scalar("SELECT sealed_body FROM idempotency_keys")
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains(password));
}

#[actix_web::test]
async fn concurrent_sign_ups_with_one_key_create_one_tenant() {
    let world = World::with(with_pool(20)).await;
    let body =
        json!({"name": "New", "slug": "new-one", "admin": {"email": "n@new.example", "full_name": "N"}});
    let send = || {
        let request = world.client.post("/api/v1/tenants", &body);
        request.header("Idempotency-Key", KEY).send()
    };
    let replies = join_all((0..5).map(|_| send())).await;
    let first = replies
        .iter()
        .find(|reply| reply.status == 201 && !is_replay(reply));
    let first = first.unwrap();
    for reply in replies.iter().filter(|reply| is_replay(reply)) {
        assert_replays(first, reply);
    }
    assert!(replies.iter().all(|reply| [201, 409].contains(&reply.status)));
    assert_replays(first, &send().await);
    assert_eq!(count(&world, "tenants WHERE slug = 'new-one'").await, 1);
}

/// Without a credential the key is all that protects the stored answer.
#[actix_web::test]
async fn keys_of_public_requests_must_be_hard_to_guess() {
    let world = World::new().await;
    let sign_up =
        json!({"name": "New", "slug": "new-one", "admin": {"email": "n@new.example", "full_name": "N"}});
    let register =
        json!({"email": "n@new.example", "full_name": "N", "password": PASSWORD, "tenant_slug": "acme"});
    for (path, body) in [("/api/v1/tenants", sign_up), ("/api/v1/auth/register", register)] {
        let request = world
            .client
            .post(path, &body)
            .header("Idempotency-Key", "fifteen-charact");
        let refused = request.await.problem(400, "invalid_request");
        assert!(refused.text().contains("UUID"), "{}", refused.text());
    }
    assert_eq!(count(&world, "users WHERE email = 'n@new.example'").await, 0);
}

#[actix_web::test]
async fn registration_is_answered_again_in_its_tenant_only() {
    let world = World::new().await;
    let send = |slug: &str| {
        let body = json!({"email": "n@new.example", "full_name": "N", "password": PASSWORD});
        let request = world.client.post("/api/v1/auth/register", &body);
        request
            .header("Idempotency-Key", KEY)
            .header("X-Tenant-Slug", slug)
            .send()
    };
    let first = send("acme").await.expect(201);
    assert_replays(&first, &send("acme").await);
    let other = send("globex").await.expect(201);
    assert!(!is_replay(&other), "{other:?}");
    assert_ne!(other.json()["user"]["id"], first.json()["user"]["id"]);
    assert_eq!(count(&world, "users WHERE email = 'n@new.example'").await, 2);
}

// ------------------------------------------------------------------------------------------------------------ operators

#[actix_web::test]
async fn a_key_of_an_operator_is_that_operators_alone() {
    let world = World::new().await;
    let [olga, oskar] = [
        world.operator("olga@example.com").await,
        world.operator("oskar@example.com").await,
    ];
    let send = |token: &str, body: &Value| {
        let request = world.client.post("/api/v1/admin/segments", body).bearer(token);
        request.header("Idempotency-Key", KEY).send()
    };
    let first = send(&olga, &segment("keyed")).await.expect(201);
    assert_replays(&first, &send(&olga, &segment("keyed")).await);
    send(&olga, &segment("other"))
        .await
        .problem(422, "idempotency_key_reused");
    send(&oskar, &segment("keyed")).await.problem(409, "conflict");
    // A later version does not change the answer.
    let replaced =
        json!({"key": "keyed", "when": [{"attribute": "plan", "operator": "in", "values": ["free"]}]});
    let replace = world
        .client
        .request(Method::PUT, "/api/v1/admin/segments/keyed")
        .bearer(&olga);
    replace.json(&replaced).await.expect(200);
    assert_replays(&first, &send(&olga, &segment("keyed")).await);
    world.clock.advance(Span::hours(24));
    let login = json!({"email": "olga@example.com", "password": PASSWORD});
    let login = world.client.post("/api/v1/admin/login", &login).await;
    let olga = login.expect(200).json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    send(&olga, &segment("keyed")).await.problem(409, "conflict");
}

// --------------------------------------------------------------------------------------------------------- concurrency

/// One of them is done; what is asked for again later is answered as it was.
pub async fn fifty_at_once(world: &World) {
    let replies = join_all((0..50).map(|_| make(world, &world.acme.member))).await;
    let first: Vec<_> = replies
        .iter()
        .filter(|reply| reply.status == 201 && !is_replay(reply))
        .collect();
    assert_eq!(first.len(), 1);
    for reply in &replies {
        match reply.status {
            201 if is_replay(reply) => assert_replays(first[0], reply),
            201 => {}
            _ => assert_eq!(
                reply
                    .clone()
                    .problem(409, "idempotency_in_progress")
                    .header("Retry-After"),
                Some("1")
            ),
        }
    }
    let again = join_all((0..50).map(|_| make(world, &world.acme.member))).await;
    again.iter().for_each(|reply| assert_replays(first[0], reply));
    assert_eq!((moon_bases(world).await, keys(world).await), (1, 1));
    let audit = world.audit(&world.acme).await;
    let made = audit
        .iter()
        .filter(|(_, row)| row["after"]["name"] == "Moon base")
        .count();
    assert_eq!(made, 1);
}

fn with_pool(size: usize) -> Options {
    let usual = Options::default();
    let pool = PoolConfig {
        size,
        ..usual.pool.clone()
    };
    Options { pool, ..usual }
}

#[actix_web::test]
async fn of_fifty_at_once_one_is_done_and_the_others_get_its_answer_or_are_told_to_wait() {
    fifty_at_once(&World::with(with_pool(20)).await).await;
}

#[actix_web::test]
async fn fifty_at_once_get_by_with_one_connection() {
    fifty_at_once(&World::with(with_pool(1)).await).await;
}

/// Sends a request that waits in its transaction, the key taken, for a lock that `admin` holds until its transaction
/// ends.
async fn stuck(world: &World, admin: &mut PgConnection) -> tokio::task::JoinHandle<Reply> {
    let lock = format!(
        "BEGIN; SELECT 1 FROM projects WHERE id = '{}' FOR UPDATE",
        world.acme.project
    );
    run(admin, &lock).await;
    let first = actix_web::rt::spawn(add_task(world).send());
    let waits = "pg_stat_activity WHERE datname = current_database() AND usename = 'tenantry_app' \
                 AND wait_event_type = 'Lock'";
    let waiting = async {
        while count(world, waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap();
    first
}

fn add_task(world: &World) -> Request {
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    keyed(world, &world.acme.member, &path, KEY, &json!({"title": "Land"}))
}

#[actix_web::test]
async fn while_the_first_runs_the_second_is_told_to_wait() {
    let world = World::new().await;
    let mut admin = world.database.admin().await;
    let first = stuck(&world, &mut admin).await;
    for _ in 0..3 {
        let second = add_task(&world).await.problem(409, "idempotency_in_progress");
        assert_eq!(second.header("Retry-After"), Some("1"));
    }
    // It is in nobody else's way.
    make(&world, &world.acme.member).await.expect(201);
    run(&mut admin, "ROLLBACK").await;
    let first = first.await.unwrap().expect(201);
    assert_replays(&first, &add_task(&world).await);
    assert_eq!(count(&world, "tasks WHERE title = 'Land'").await, 1);
}

#[actix_web::test]
async fn a_connection_killed_in_between_leaves_no_key() {
    let world = World::new().await;
    let mut admin = world.database.admin().await;
    let first = stuck(&world, &mut admin).await;
    run(
        &mut world.database.admin().await,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
         AND usename = 'tenantry_app' AND wait_event_type = 'Lock'",
    )
    .await;
    first.await.unwrap().problem(503, "unavailable");
    run(&mut admin, "ROLLBACK").await;
    assert_eq!(keys(&world).await, 0);
    let done = add_task(&world).await.expect(201);
    assert_replays(&done, &add_task(&world).await);
    assert_eq!(count(&world, "tasks WHERE title = 'Land'").await, 1);
}

#[actix_web::test]
async fn a_request_given_up_in_between_leaves_no_key() {
    let world = World::new().await;
    let mut admin = world.database.admin().await;
    let first = stuck(&world, &mut admin).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    run(&mut admin, "ROLLBACK").await;
    let done = async {
        loop {
            let reply = add_task(&world).await;
            if reply.status != 409 {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), done).await.unwrap();
    assert!(!is_replay(&done.expect(201)));
    assert_eq!(count(&world, "tasks WHERE title = 'Land'").await, 1);
}

// ---------------------------------------------------------------------------------------------------------- whose it is

#[actix_web::test]
async fn a_key_is_of_one_user_of_one_tenant() {
    let world = World::new().await;
    let body = json!({"title": "Land"});
    let mut made = BTreeSet::new();
    for tenant in [&world.acme, &world.globex] {
        for who in [&tenant.admin, &tenant.member] {
            let path = format!("/api/v1/projects/{}/tasks", tenant.project);
            let reply = keyed(&world, who, &path, KEY, &body).await.expect(201);
            assert!(!is_replay(&reply));
            assert!(made.insert(reply.text()));
        }
    }
    assert_eq!(keys(&world).await, 4);
    // The same path, so that the fingerprint is the same too.
    let mine = make(&world, &world.acme.admin).await.expect(201);
    let theirs = make(&world, &world.globex.admin).await.expect(201);
    assert!(!is_replay(&theirs));
    assert_ne!(mine.json()["id"], theirs.json()["id"]);
}

#[actix_web::test]
async fn a_key_does_not_say_whether_another_tenant_is_using_it() {
    let world = World::new().await;
    let mut admin = world.database.admin().await;
    let first = stuck(&world, &mut admin).await;
    let path = format!("/api/v1/projects/{}/tasks", world.globex.project);
    for who in [&world.globex.admin, &world.globex.member] {
        let reply = keyed(&world, who, &path, KEY, &json!({"title": "Land"})).await;
        assert!(!is_replay(&reply.expect(201)));
    }
    run(&mut admin, "ROLLBACK").await;
    first.await.unwrap().expect(201);
}

#[actix_web::test]
async fn an_answer_moved_to_another_place_does_not_open_there() {
    let world = World::new().await;
    for who in [&world.acme.admin, &world.acme.member, &world.globex.admin] {
        let user = json!({"name": format!("Moon base of {}", who.email)});
        keyed(&world, who, PROJECTS, KEY, &user).await.expect(201);
    }
    let mut admin = world.database.admin().await;
    for (to, from) in [
        (&world.acme.admin, &world.globex.admin),
        (&world.acme.admin, &world.acme.member),
    ] {
        let moved = format!(
            "UPDATE idempotency_keys SET sealed_body = (SELECT sealed_body FROM idempotency_keys \
             WHERE user_id = '{}') WHERE user_id = '{}'",
            from.id, to.id
        );
        assert_eq!(run(&mut admin, &moved).await, 1);
        let body = json!({"name": format!("Moon base of {}", to.email)});
        let reply = keyed(&world, to, PROJECTS, KEY, &body)
            .await
            .problem(409, "conflict");
        assert!(!reply.text().contains(&from.email), "{}", reply.text());
        assert!(
            reply.json()["detail"].as_str().unwrap().contains("was done"),
            "{}",
            reply.text()
        );
    }
}

#[actix_web::test]
async fn a_replay_asks_for_credential_and_permission_like_any_request() {
    let world = World::new().await;
    let member = &world.acme.member;
    make(&world, member).await.expect(201);
    let body = json!({"name": "Moon base"});
    let anonymous = world.client.post(PROJECTS, &body).header("Idempotency-Key", KEY);
    anonymous.await.problem(401, "unauthenticated");
    let path = format!("/api/v1/users/{}", member.id);
    let change = async |patch: &Value| world.patch(&world.acme.admin, &path, patch).await.expect(200);
    change(&json!({"role": "viewer"})).await;
    make(&world, member).await.problem(403, "forbidden");
    change(&json!({"role": "member"})).await;
    assert!(is_replay(&make(&world, member).await.expect(201)));
    world.set_status(&world.acme, "suspended").await;
    make(&world, member).await.problem(403, "tenant_suspended");
    world.set_status(&world.acme, "deleted").await;
    make(&world, member).await.problem(410, "tenant_gone");
    world.set_status(&world.acme, "active").await;
    change(&json!({"is_active": false})).await;
    make(&world, member).await.problem(401, "token_revoked");
}

/// Who owns a project may staff it, and so may admins: the use case finds out by reading the project.
#[actix_web::test]
async fn who_was_demoted_is_not_told_what_came_of_it_before() {
    let world = World::new().await;
    let acme = &world.acme;
    let role = async |role: &str| {
        let path = format!("/api/v1/users/{}", acme.member.id);
        let patch = json!({"role": role});
        world.patch(&acme.admin, &path, &patch).await.expect(200);
    };
    let path = format!("/api/v1/projects/{}/members", acme.project);
    let body = json!({"user_id": acme.viewer.id});
    let add = || keyed(&world, &acme.member, &path, KEY, &body).send();
    add().await.problem(403, "forbidden");
    role("admin").await;
    let first = add().await.expect(201);
    assert_replays(&first, &add().await);
    role("member").await;
    let refused = add().await.problem(403, "forbidden");
    assert!(!refused.text().contains(&acme.viewer.email), "{}", refused.text());
    role("admin").await;
    assert_replays(&first, &add().await);
}

#[actix_web::test]
async fn a_generated_password_is_told_again_and_cannot_be_read_in_the_store() {
    let world = World::new().await;
    let body = json!({"email": "new@acme.example", "full_name": "New"});
    let send = || keyed(&world, &world.acme.admin, "/api/v1/users", KEY, &body).send();
    let first = send().await.expect(201);
    assert_replays(&first, &send().await);
    let password = first.json()["password"].as_str().unwrap().to_owned();
    world
        .login("acme", "new@acme.example", &password)
        .await
        .expect(200);
    let found: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM idempotency_keys k WHERE strpos(k::text, $1) > 0 OR strpos(k::text, encode($1::bytea, 'hex')) > 0",
    )
    .bind(&password)
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap();
    assert_eq!((found, keys(&world).await), (0, 1));
}

#[actix_web::test]
async fn keys_go_with_their_user() {
    let world = World::new().await;
    make(&world, &world.acme.member).await.expect(201);
    make(&world, &world.globex.member).await.expect(201);
    // What refers to the user otherwise is in the way of deleting the row, so that is not looked at here.
    let mut admin = world.database.admin().await;
    for table in ["project_members", "projects"] {
        let column = if table == "projects" {
            "owner_id"
        } else {
            "user_id"
        };
        let elsewhere = format!(
            "UPDATE {table} SET {column} = '{}' WHERE {column} = '{}'",
            world.acme.admin.id, world.acme.member.id
        );
        run(&mut admin, &elsewhere).await;
    }
    run(
        &mut admin,
        &format!("DELETE FROM tasks WHERE assignee_id = '{}'", world.acme.member.id),
    )
    .await;
    run(
        &mut admin,
        &format!("DELETE FROM users WHERE id = '{}'", world.acme.member.id),
    )
    .await;
    assert_eq!(keys(&world).await, 1);
}

// ------------------------------------------------------------------------------------------------------------ lifetime

async fn add_note(world: &World, who: &Person) -> Reply {
    let body = json!({"name": "Log", "content": "x"});
    keyed(world, who, "/api/v1/resources", KEY, &body).await
}

#[actix_web::test]
async fn a_key_is_free_again_after_a_day() {
    let world = World::new().await;
    let first = add_note(&world, &world.acme.member).await.expect(201);
    world.clock.advance(Span::hours(24) - Span::minutes(1));
    let member = log_in(&world, &world.acme.member).await;
    assert_replays(&first, &add_note(&world, &member).await);
    world.clock.advance(Span::minutes(1));
    let second = add_note(&world, &member).await.expect(201);
    assert!(!is_replay(&second));
    assert_ne!(second.bytes, first.bytes);
    assert_replays(&second, &add_note(&world, &member).await);
    assert_eq!(keys(&world).await, 1);
}

#[actix_web::test]
async fn another_request_may_have_a_key_that_is_free_again_and_its_failure_frees_nothing_else() {
    let world = World::new().await;
    make(&world, &world.acme.member).await.expect(201);
    world.clock.advance(Span::hours(24));
    let member = log_in(&world, &world.acme.member).await;
    // The name is taken, so this is undone, the taking over of the key included.
    make(&world, &member).await.problem(409, "conflict");
    assert_eq!(keys(&world).await, 1);
    let other = keyed(&world, &member, PROJECTS, KEY, &json!({"name": "Mars base"}))
        .await
        .expect(201);
    assert!(!is_replay(&other));
    make(&world, &member).await.problem(422, "idempotency_key_reused");
}

#[actix_web::test]
async fn keys_that_are_free_again_are_swept_within_a_day_in_each_tenant() {
    let world = World::new().await;
    let worker = [jobs::worker(&world, Handlers::standard().with_usage())];
    for tenant in [&world.acme, &world.globex] {
        make(&world, &tenant.member).await.expect(201);
    }
    world.clock.advance(Span::hours(23));
    let member = log_in(&world, &world.acme.member).await;
    let late = add_note(&world, &member).await.expect(201);
    world.clock.advance(Span::hours(1));
    jobs::hours(&world, &worker, 22).await;
    assert_eq!(keys(&world).await, 1);
    let member = log_in(&world, &member).await;
    assert_replays(&late, &add_note(&world, &member).await);
}

// -------------------------------------------------------------------------------------------------------- hostile keys

#[actix_web::test]
async fn a_key_is_data_whatever_is_in_it() {
    let world = World::new().await;
    let before = world.digest(&world.globex).await;
    let longest = "k".repeat(255);
    let hostile = [
        "\"'; DELETE FROM projects; --\"",
        "\"' OR tenant_id <> ''\"",
        "\"\\\"\\\\\"",
        "$1",
        "%s%n",
        "../../x",
        "{id}",
        "NULL",
        "\"a b\"",
        "\" \"",
        "~",
        &longest,
    ];
    for (number, key) in hostile.iter().enumerate() {
        let body = json!({"name": format!("Base {number}")});
        let send = || keyed(&world, &world.acme.member, PROJECTS, key, &body).send();
        let first = send().await.expect(201);
        assert_replays(&first, &send().await);
    }
    assert_eq!(keys(&world).await, hostile.len() as i64);
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn what_is_no_key_is_refused_before_the_body_is_read() {
    let world = World::new().await;
    let (too_long, far_too_long) = ("k".repeat(256), "k".repeat(10_000));
    for key in [
        "",
        " ",
        "\"\"",
        "a b",
        "\"a",
        "a\"b",
        "\"a\";p",
        "\"a\", \"b\"",
        "é",
        "\"a\tb\"",
        &too_long,
        &far_too_long,
    ] {
        let request = world
            .client
            .request(Method::POST, PROJECTS)
            .bearer(&world.acme.member.access_token);
        let reply = request.header("Idempotency-Key", key).body("not JSON").await;
        let reply = reply.problem(400, "invalid_request");
        assert!(
            reply.json()["detail"]
                .as_str()
                .unwrap()
                .contains("Idempotency-Key"),
            "{}",
            reply.text()
        );
    }
    let twice = keyed(
        &world,
        &world.acme.member,
        PROJECTS,
        "a",
        &json!({"name": "Moon base"}),
    );
    twice
        .header("Idempotency-Key", "a")
        .await
        .problem(400, "invalid_request");
    assert_eq!((moon_bases(&world).await, keys(&world).await), (0, 0));
}

// ----------------------------------------------------------------------------------------------- below the HTTP adapter

fn request(user: UserId) -> KeyedRequest {
    let key = RequestKey {
        user,
        route: "POST /test".into(),
        key: "k".into(),
    };
    KeyedRequest {
        key,
        role: Role::Member,
        fingerprint: [1; 32],
    }
}

fn answer(body: &str) -> Option<KeptAnswer> {
    Some(KeptAnswer {
        status: 201,
        headers: Vec::new(),
        body: body.into(),
    })
}

async fn moon_base(cx: &tenantry_tenancy::Cx) -> Result<(), project::ProjectError> {
    let data = NewProject {
        name: "Moon base".into(),
        description: None,
    };
    project::create(cx, data).await.map(|_| ())
}

#[actix_web::test]
async fn a_panic_in_between_leaves_no_key() {
    let world = World::new().await;
    let cx = world.cx(&world.acme.member).await;
    let once = cx.once(request(world.acme.member.id), |text: String| answer(&text));
    let panics = once.write(async |work| {
        work.tenants().current().await?;
        if work.scope().user().is_some() {
            panic!("in the middle of it");
        }
        Ok::<_, StoreError>(String::new())
    });
    assert!(std::panic::AssertUnwindSafe(panics).catch_unwind().await.is_err());
    let done = once.write(async |_| Ok::<_, StoreError>("done".to_owned())).await;
    assert_eq!(done, Ok("done".to_owned()));
    let again = once
        .write(async |_| Ok::<_, StoreError>("again".to_owned()))
        .await;
    assert_eq!(again, Err(KeyTaken::Done(answer("done").unwrap()).into()));
}

#[actix_web::test]
async fn work_that_returns_something_else_than_the_answer_is_made_of_is_undone() {
    let world = World::new().await;
    let cx = world.cx(&world.acme.member).await;
    let wrong = cx.once(request(world.acme.member.id), |_: u32| answer("never"));
    assert!(moon_base(&wrong).await.is_err());
    let streamed = cx.once(
        request(world.acme.member.id),
        |_: tenantry_domain::work::Project| None,
    );
    assert!(moon_base(&streamed).await.is_err());
    assert_eq!((moon_bases(&world).await, keys(&world).await), (0, 0));
}

#[actix_web::test]
async fn work_that_lost_a_race_is_run_again_with_its_key() {
    let world = World::new().await;
    let cx = world.cx(&world.acme.member).await;
    let once = cx.once(request(world.acme.member.id), |text: String| answer(&text));
    let attempts = std::sync::atomic::AtomicU32::new(0);
    let done = once.write(
        async |_| match attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Err(StoreError::Contention),
            _ => Ok("done".to_owned()),
        },
    );
    assert_eq!(done.await, Ok("done".to_owned()));
    assert_eq!(keys(&world).await, 1);
}

/// As if the lock had let both through: the key of the row still does not.
#[actix_web::test]
async fn without_the_lock_the_second_is_undone_and_finds_the_answer_of_the_first() {
    let world = World::new().await;
    let member = &world.acme.member;
    let cx = world.cx(member).await;
    let once = cx.once(request(member.id), |text: String| answer(&text));
    let stored = |world: &World, tenant: &TenantWorld| {
        format!(
            "INSERT INTO idempotency_keys (tenant_id, created_at, user_id, route, key, fingerprint, role, status, headers, \
             sealed_body, expires_at) VALUES ('{}', now(), '{}', 'POST /test', 'k', decode(repeat('01', 32), 'hex'), 'member', 201, \
             '[]', 'x', '2030-01-01')",
            tenant.id, world.acme.member.id
        )
    };
    let runs = std::sync::atomic::AtomicU32::new(0);
    let outcome = once.write(async |_| {
        if runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            run(&mut world.database.admin().await, &stored(&world, &world.acme)).await;
        }
        Ok::<_, StoreError>("second".to_owned())
    });
    assert_eq!(
        outcome.await,
        Err(KeyTaken::Unreadable.into()),
        "the row is none that we sealed"
    );
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(keys(&world).await, 1);
}
