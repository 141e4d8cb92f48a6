//! Endpoints of webhooks: what admins do with them, their secrets, what deliveries mean for them, and the portal.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;

use actix_web::http::Method;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_billing::plans::plan::Agreement;
use tenantry_domain::kernel::{Clock as _, Limit, Time, WebhookEndpointId};
use tenantry_domain::webhooks::{
    Answer, DeliveryOutcome, DisablingRule, EndpointCredentials, MessageId, WebhookEndpoint, WebhookRequest,
};
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::job::{Handlers, JobHandler as _, Nothing};
use tenantry_tenancy::tenant::data_key::{self, KeepDataKeys};
use tenantry_tenancy::webhooks::delivery_state;
use tenantry_tenancy::webhooks::removal::{DeletedEndpoint, RemoveEndpoint};
use tenantry_tests::{Lines, Options, PASSWORD, Person, Reply, TenantWorld, World, operator_cx};

use crate::jobs::worker;
use crate::mfa::with_factor;
use crate::persons::{erase, run_jobs, system};

const ENDPOINTS: &str = "/api/v1/webhooks/endpoints";
const PORTAL: &str = "/api/v1/webhooks/portal";
const TYPES: &str = "/api/v1/webhooks/event-types";

/// What must be shown nowhere.
const HEADER: &str = "header-s3cret";
const TOKEN: &str = "url-t0ken";

fn new() -> Value {
    json!({
        "url": format!("https://hooks.example.com/in?token={TOKEN}"), "description": "Orders", "event_types": ["task.*"],
        "rate_limit": 5, "headers": {"Authorization": HEADER},
    })
}

async fn create(world: &World, who: &Person, body: &Value) -> Value {
    world.post(who, ENDPOINTS, body).await.expect(201).json()
}

fn at(endpoint: &Value) -> String {
    format!("{ENDPOINTS}/{}", endpoint["id"].as_str().unwrap())
}

fn id(endpoint: &Value) -> WebhookEndpointId {
    endpoint["id"].as_str().unwrap().parse().unwrap()
}

async fn stored(cx: &Cx, id: WebhookEndpointId) -> Option<WebhookEndpoint> {
    let found = cx.read(async |work| work.webhook_endpoints().find(id).await);
    found.await.unwrap()
}

async fn credentials(cx: &Cx, endpoint: &WebhookEndpoint) -> Option<EndpointCredentials> {
    let opened = cx.read(async |work| delivery_state::credentials(cx, work, endpoint).await);
    opened.await.unwrap()
}

/// Reports an attempt of now, and returns the endpoint when that has disabled it.
async fn report(cx: &Cx, id: WebhookEndpointId, status: u16) -> Option<WebhookEndpoint> {
    let outcome = DeliveryOutcome::of(Answer {
        status,
        retry_after: None,
        excerpt: String::new(),
    });
    let rule = DisablingRule::default();
    let now = cx.now();
    let settled = cx.write(async |work| delivery_state::settle(cx, work, id, (&outcome, now), &rule).await);
    settled.await.unwrap()
}

async fn actions(world: &World, tenant: &TenantWorld) -> Vec<String> {
    let entries = world.audit(tenant).await.into_iter();
    let of_endpoints = entries.filter(|(action, _)| action.starts_with("webhook"));
    of_endpoints.map(|(action, _)| action).collect()
}

async fn rows(world: &World, tenant: &TenantWorld) -> i64 {
    let sql = "SELECT count(*) FROM webhook_endpoints WHERE tenant_id = $1";
    let count = sqlx::query_scalar(sql).bind(tenant.id.uuid());
    count.fetch_one(&mut world.database.admin().await).await.unwrap()
}

fn pointers(reply: &Reply) -> Vec<String> {
    let problem = reply.json();
    let errors = problem["errors"].as_array().unwrap().iter();
    errors
        .map(|error| error["pointer"].as_str().unwrap().to_owned())
        .collect()
}

/// Does what a tenant does with an endpoint, for the tests of statements.
pub async fn use_an_endpoint(world: &World) {
    let admin = &world.acme.admin;
    let made = create(world, admin, &new()).await;
    world.get(admin, &at(&made)).await.expect(200);
    let change = world.patch(admin, &at(&made), &json!({"description": null}));
    change.await.expect(200);
    let rotate = format!("{}/rotate-secret", at(&made));
    world.post(admin, &rotate, &json!({})).await.expect(200);
    let cx = system(world, &world.acme).await;
    let enabled = cx.read(async |work| work.webhook_endpoints().count_enabled().await);
    assert!(enabled.await.unwrap() > 0);
    for status in [500, 410] {
        report(&cx, id(&made), status).await;
    }
    world.delete(admin, &at(&made)).await.expect(204);
    let endpoint = id(&made);
    RemoveEndpoint
        .run(&cx, DeletedEndpoint { endpoint })
        .await
        .unwrap();
    world.post(admin, PORTAL, &json!({})).await.expect(200);
}

#[actix_web::test]
async fn endpoint_is_created_read_changed_and_deleted() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let reply = world.post(admin, ENDPOINTS, &new()).await.expect(201);
    let made = reply.json();
    assert_eq!(reply.header("location"), Some(at(&made).as_str()));
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"), "{made}");
    assert_eq!(
        (&made["signature"], &made["public_key"]),
        (&json!("v1"), &Value::Null)
    );
    assert_eq!(made["header_names"], json!(["authorization"]));
    assert_eq!(
        (&made["enabled"], &made["ordered"]),
        (&json!(true), &json!(false))
    );
    let etag = reply.header("etag").unwrap().to_owned();

    let read = world.get(admin, &at(&made)).await.expect(200);
    let shown = read.json();
    assert_eq!(shown.get("secret"), None);
    assert_eq!(
        shown["url"],
        format!("https://hooks.example.com/in?token={TOKEN}")
    );
    let unchanged = world.get(admin, &at(&made)).header("If-None-Match", &etag);
    assert_eq!(unchanged.await.status, 304);
    let listed = world.get(admin, ENDPOINTS).await.expect(200).json();
    assert_eq!(listed["data"], json!([shown]));

    let patch = json!({"url": "https://hooks.example.com/out", "event_types": null, "rate_limit": null, "ordered": true});
    let changed = world.patch(admin, &at(&made), &patch).header("If-Match", &etag);
    let changed = changed.await.expect(200).json();
    assert_eq!(
        (&changed["version"], &changed["event_types"]),
        (&json!(2), &json!([]))
    );
    assert_eq!(
        (&changed["rate_limit"], &changed["ordered"]),
        (&Value::Null, &json!(true))
    );
    let stale = world.patch(admin, &at(&made), &patch).header("If-Match", &etag);
    stale.await.problem(412, "stale_version");
    world.delete(admin, &at(&made)).await.expect(204);
    world.get(admin, &at(&made)).await.problem(404, "not_found");
    let expected = ["created", "updated", "deleted"].map(|verb| format!("webhook_endpoint.{verb}"));
    assert_eq!(actions(&world, &world.acme).await, expected);
}

#[actix_web::test]
async fn invalid_fields_are_refused_and_named() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let before = world.digest(&world.acme).await;
    for (body, pointer) in [
        (
            json!({"url": "https://example.com/", "event_types": ["task.created", "task.flown"]}),
            "/event_types/1",
        ),
        (
            json!({"url": "https://example.com/", "event_types": ["*"]}),
            "/event_types/0",
        ),
        (
            json!({"url": "https://example.com/", "rate_limit": 1001}),
            "/rate_limit",
        ),
        (
            json!({"url": "https://example.com/", "headers": {"Host": "x"}}),
            "/headers/Host",
        ),
        (
            json!({"url": "https://example.com/", "headers": {"X": "a\r\nb"}}),
            "/headers/X",
        ),
        (
            json!({"url": "https://example.com/", "description": "x".repeat(501)}),
            "/description",
        ),
    ] {
        let refused = world.post(admin, ENDPOINTS, &body).await;
        let refused = refused.problem(422, "validation_failed");
        assert_eq!(pointers(&refused), [pointer], "{body}");
    }
    let channels = json!({"url": "https://example.com/", "channels": ["one"]});
    world
        .post(admin, ENDPOINTS, &channels)
        .await
        .problem(422, "unknown_field");
    assert_eq!(world.digest(&world.acme).await, before);
}

/// What leads inside is refused in every spelling, at the creation and at a change.
#[actix_web::test]
async fn urls_that_lead_inside_are_refused_at_creation_and_change() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let made = create(&world, admin, &json!({"url": "https://hooks.example.com/"})).await;
    for (url, code) in [
        ("http://example.com/", "invalid_url"),
        ("https://127.0.0.1/", "internal_address"),
        ("https://127.1/", "internal_address"),
        ("https://2130706433/", "internal_address"),
        ("https://0177.0.0.1/", "internal_address"),
        ("https://0x7f.1/", "internal_address"),
        ("https://10.0.0.1/", "internal_address"),
        ("https://169.254.169.254/latest/meta-data", "internal_address"),
        ("https://metadata.google.internal/", "internal_address"),
        ("https://localhost/", "internal_address"),
        ("https://[::1]/", "internal_address"),
        ("https://[::ffff:10.0.0.1]/", "internal_address"),
        ("https://[::ffff:a9fe:a9fe]/", "internal_address"),
        ("https://[64:ff9b::7f00:1]/", "internal_address"),
        ("https://[fd00:ec2::254]/", "internal_address"),
        ("https://１２７.０.０.１/", "internal_address"),
        ("https://user:secret@example.com/", ""),
        ("https://example.com:22/", "invalid_url"),
        ("https://example.com/#fragment", "invalid_url"),
        ("file:///etc/passwd", "invalid_url"),
        ("", ""),
    ] {
        let body = json!({ "url": url });
        let refusals = [
            world.post(admin, ENDPOINTS, &body).await,
            world.patch(admin, &at(&made), &body).await,
        ];
        for refused in refusals {
            let refused = refused.problem(422, "validation_failed");
            assert_eq!(pointers(&refused), ["/url"], "{url}");
            let error = &refused.json()["errors"][0];
            assert!(code.is_empty() || error["code"] == code, "{url}: {error}");
            assert!(!refused.text().contains("secret"), "{url}: {}", refused.text());
        }
    }
    assert_eq!(rows(&world, &world.acme).await, 1);
}

#[actix_web::test]
async fn endpoints_of_another_tenant_are_not_found() {
    let world = World::new().await;
    let theirs = create(&world, &world.globex.admin, &new()).await;
    let before = world.digest(&world.globex).await;
    let admin = &world.acme.admin;
    let path = at(&theirs);
    let rotate = format!("{path}/rotate-secret");
    for reply in [
        world.get(admin, &path).await,
        world.patch(admin, &path, &json!({"enabled": false})).await,
        world.delete(admin, &path).await,
        world.post(admin, &rotate, &json!({})).await,
    ] {
        reply.problem(404, "not_found");
    }
    let listed = world.get(admin, ENDPOINTS).await.expect(200).json();
    assert_eq!(listed["data"], json!([]));
    assert_eq!(world.digest(&world.globex).await, before);
    // The credentials of one tenant do not open as those of another.
    let (acme, globex) = (
        system(&world, &world.acme).await,
        system(&world, &world.globex).await,
    );
    assert_eq!(stored(&acme, id(&theirs)).await, None);
    let endpoint = stored(&globex, id(&theirs)).await.unwrap();
    assert!(credentials(&globex, &endpoint).await.is_some());
    assert_eq!(credentials(&acme, &endpoint).await, None);
}

#[actix_web::test]
async fn roles_and_scopes_decide_who_manages_endpoints() {
    let world = World::new().await;
    let acme = &world.acme;
    let made = create(&world, &acme.admin, &new()).await;
    for who in [&acme.member, &acme.viewer] {
        world.get(who, ENDPOINTS).await.problem(403, "forbidden");
        world.get(who, &at(&made)).await.problem(403, "forbidden");
        world.post(who, ENDPOINTS, &new()).await.problem(403, "forbidden");
        world
            .post(who, PORTAL, &json!({}))
            .await
            .problem(403, "forbidden");
        world.get(who, TYPES).await.expect(200);
    }
    let key = async |scope: &str| {
        let body = json!({"name": scope, "scopes": [scope]});
        let key = world.post(&acme.admin, "/api/v1/api-keys", &body).await;
        key.expect(201).json()["key"].as_str().unwrap().to_owned()
    };
    let (reads, writes) = (key("webhooks.read").await, key("webhooks.write").await);
    let by = |key: &str, body: Option<Value>| match body {
        Some(body) => world.client.post(ENDPOINTS, &body).bearer(key),
        None => world.client.get(ENDPOINTS).bearer(key),
    };
    by(&reads, None).await.expect(200);
    by(&reads, Some(new())).await.problem(403, "forbidden");
    by(&writes, None).await.problem(403, "forbidden");
    by(&writes, Some(new())).await.expect(201);
    // No scope opens the portal.
    let body = json!({"name": "portal", "scopes": ["webhooks.open_portal"]});
    let refused = world.post(&acme.admin, "/api/v1/api-keys", &body).await;
    refused.problem(422, "validation_failed");
    let portal = world.client.post(PORTAL, &json!({})).bearer(&writes);
    portal.await.problem(403, "forbidden");
    // A suspended tenant reads.
    world.set_status(acme, "suspended").await;
    world.get(&acme.admin, ENDPOINTS).await.expect(200);
    let refused = world.post(&acme.admin, ENDPOINTS, &new()).await;
    refused.problem(403, "tenant_suspended");
}

#[actix_web::test]
async fn last_place_of_the_plan_is_given_once_under_contention() {
    let world = World::new().await;
    let agreement = Agreement {
        limits: [("webhook_endpoints".to_owned(), Some(Limit::Of(3)))].into(),
        ..Agreement::default()
    };
    world.agree(world.acme.id, agreement).await;
    let admin = &world.acme.admin;
    let url = |n: usize| json!({"url": format!("https://hooks.example.com/{n}")});
    let bodies: Vec<_> = (0..10).map(url).collect();
    let replies = join_all(
        bodies
            .iter()
            .map(|body| world.post(admin, ENDPOINTS, body).send()),
    )
    .await;
    let (made, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 201);
    assert_eq!((made.len(), rows(&world, &world.acme).await), (3, 3));
    for reply in refused {
        let problem = reply.problem(403, "plan_limit_reached").json();
        assert_eq!(
            (&problem["limit"], &problem["allowed"]),
            (&json!("webhook_endpoints"), &json!(3))
        );
    }
    // The other tenant has its own places.
    create(&world, &world.globex.admin, &new()).await;
    world.delete(admin, &at(&made[0].json())).await.expect(204);
    create(&world, admin, &new()).await;
}

/// Secrets of an endpoint are in no answer but the one to its creation, in no record, and in no file.
#[actix_web::test]
async fn secrets_are_shown_once_and_recorded_nowhere() {
    let world = World::new().await;
    let acme = &world.acme;
    let lines = Lines::default();
    let guard = lines.listen();
    let made = create(&world, &acme.admin, &new()).await;
    let rotate = format!("{}/rotate-secret", at(&made));
    let rotated = world.post(&acme.admin, &rotate, &json!({"grace_period_seconds": 60}));
    let rotated = rotated.await.expect(200).json();
    let headers = json!({"headers": {"X-Other": HEADER}});
    world.patch(&acme.admin, &at(&made), &headers).await.expect(200);
    report(&system(&world, acme).await, id(&made), 410).await;
    let shown = [
        world.get(&acme.admin, &at(&made)).await.expect(200).text(),
        world.get(&acme.admin, ENDPOINTS).await.expect(200).text(),
    ];
    drop(guard);
    let asked = world
        .post(&acme.admin, "/api/v1/tenant/exports", &json!({}))
        .await;
    let export = asked.expect(202).header("location").unwrap().to_owned();
    worker(&world, Handlers::standard()).run_once().await.unwrap();
    let export = world.get(&acme.admin, &export).await.expect(200).json();
    let archive = world.client.get(export["download_url"].as_str().unwrap()).await;
    let archive = archive.expect(200);
    let recorded = [
        json!(world.audit(acme).await).to_string(),
        dump(&world, "event_outbox").await,
        dump(&world, "events").await,
        dump(&world, "webhook_endpoints").await,
    ];
    for secret in [
        made["secret"].as_str().unwrap(),
        rotated["secret"].as_str().unwrap(),
        HEADER,
    ] {
        let raw = secret.as_bytes();
        let found = archive.bytes.windows(raw.len()).any(|window| window == raw);
        assert!(!found, "the archive has {secret}");
        assert_eq!(lines.count(secret), 0, "the log has {secret}");
        for text in shown.iter().chain(&recorded) {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    // The URL may hold a token: records have its origin.
    assert!(!recorded[..3].iter().any(|text| text.contains(TOKEN)));
    assert!(recorded[0].contains("https://hooks.example.com"));
}

/// The rows of a table as text.
async fn dump(world: &World, table: &str) -> String {
    let sql = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t");
    let text = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
    text.fetch_one(&mut world.database.admin().await).await.unwrap()
}

/// A receiver on this machine: its address, and the request that it got.
fn receiver() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        while !request.ends_with("{}") {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the request ends early: {request}");
            request.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        let answer = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
        tell.send(request).unwrap();
    });
    (url, told)
}

/// Sends a message as the deliveries do, and returns the request that the receiver got.
async fn send(cx: &Cx, endpoint: &WebhookEndpoint, told: &mpsc::Receiver<String>, now: Time) -> String {
    let credentials = credentials(cx, endpoint).await.unwrap();
    let request = WebhookRequest {
        id: MessageId::parse("msg_1").unwrap(),
        at: now,
        url: endpoint.url.clone(),
        secrets: credentials.secrets.signing(now),
        headers: credentials.headers,
        body: "{}".to_owned(),
    };
    let sender = cx.ports().webhook_sender.clone().unwrap();
    let delivery = sender.send(request).await.unwrap();
    assert!(
        matches!(delivery.outcome, DeliveryOutcome::Delivered(_)),
        "{delivery:?}"
    );
    told.recv().unwrap()
}

/// Whether a receiver that knows a secret accepts a request.
fn verifies(request: &str, secret: &str) -> bool {
    let header = |name: &str| {
        let found = request.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        found.unwrap()
    };
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let content = format!("{}.{}.{{}}", header("webhook-id"), header("webhook-timestamp"));
    let signatures = header("webhook-signature");
    signatures.split(' ').any(|signature| {
        let signature = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, content.as_bytes(), &signature).is_ok()
    })
}

#[actix_web::test]
async fn both_secrets_sign_during_the_grace_period() {
    let webhooks = tenantry::Webhooks {
        allow_http: true,
        ports: Vec::new(),
        allowed_networks: vec!["127.0.0.1".to_owned()],
        ..tenantry::Webhooks::default()
    };
    let world = World::with(Options {
        webhooks,
        ..Options::default()
    })
    .await;
    let acme = &world.acme;
    let cx = system(&world, acme).await;
    let (url, _) = receiver();
    let made = create(
        &world,
        &acme.admin,
        &json!({"url": url, "headers": {"X-Team": "a"}}),
    )
    .await;
    let rotate = async |seconds: Value| {
        let path = format!("{}/rotate-secret", at(&made));
        let rotated = world.post(&acme.admin, &path, &seconds).await;
        rotated.expect(200).json()["secret"].as_str().unwrap().to_owned()
    };
    let first = made["secret"].as_str().unwrap().to_owned();
    let second = rotate(json!({"grace_period_seconds": 60})).await;
    assert_ne!(first, second);
    let sent = async || {
        let (url, told) = receiver();
        let patch = json!({"url": url, "headers": {"X-Team": "a"}});
        world.patch(&acme.admin, &at(&made), &patch).await.expect(200);
        let endpoint = stored(&cx, id(&made)).await.unwrap();
        send(&cx, &endpoint, &told, world.clock.now()).await
    };
    let request = sent().await;
    assert!(
        verifies(&request, &first) && verifies(&request, &second),
        "{request}"
    );
    assert!(request.contains("x-team: a"), "{request}");
    let shown = world.get(&acme.admin, &at(&made)).await.expect(200).json();
    assert!(shown["former_secret_until"].is_string());
    world.clock.advance(Duration::seconds(61));
    let request = sent().await;
    assert!(
        !verifies(&request, &first) && verifies(&request, &second),
        "{request}"
    );
    // Without a grace period the one before signs nothing more: it may have leaked.
    let third = rotate(json!({"grace_period_seconds": 0})).await;
    let request = sent().await;
    assert!(
        !verifies(&request, &second) && verifies(&request, &third),
        "{request}"
    );
    // A day when it is not said, and a week at the most.
    rotate(json!({})).await;
    let until = stored(&cx, id(&made)).await.unwrap().former_until.unwrap();
    let left = (until - world.clock.now()).num_seconds();
    assert!((86_390..=86_400).contains(&left), "{left}");
    for seconds in [-1, 604_801] {
        let path = format!("{}/rotate-secret", at(&made));
        let body = json!({ "grace_period_seconds": seconds });
        let refused = world.post(&acme.admin, &path, &body).await;
        let refused = refused.problem(422, "validation_failed");
        assert_eq!(pointers(&refused), ["/grace_period_seconds"]);
    }
}

#[actix_web::test]
async fn ed25519_endpoint_shows_its_public_key_alone() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let body = json!({"url": "https://hooks.example.com/", "signature": "v1a"});
    let made = create(&world, admin, &body).await;
    assert_eq!(made["secret"], Value::Null);
    let public = made["public_key"].as_str().unwrap().to_owned();
    assert!(public.starts_with("whpk_"), "{made}");
    let rotate = format!("{}/rotate-secret", at(&made));
    let rotated = world.post(admin, &rotate, &json!({})).await.expect(200).json();
    assert_ne!(rotated["public_key"], made["public_key"]);
    let cx = system(&world, &world.acme).await;
    let endpoint = stored(&cx, id(&made)).await.unwrap();
    let signing = credentials(&cx, &endpoint)
        .await
        .unwrap()
        .secrets
        .signing(cx.now());
    assert_eq!(signing.len(), 2);
    for secret in signing {
        assert!(!rotated.to_string().contains(secret.expose()));
        assert!(secret.expose().starts_with("whsk_"));
    }
}

#[actix_web::test]
async fn custom_headers_do_not_follow_to_another_host() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let made = create(&world, admin, &new()).await;
    let moved = json!({"url": "https://evil.example/in"});
    let refused = world.patch(admin, &at(&made), &moved).await;
    let refused = refused.problem(422, "validation_failed");
    assert_eq!(pointers(&refused), ["/headers"]);
    let without = json!({"url": "https://other.example/in", "headers": null});
    let changed = world.patch(admin, &at(&made), &without).await.expect(200).json();
    assert_eq!(changed["header_names"], json!([]));
    let cx = system(&world, &world.acme).await;
    let endpoint = stored(&cx, id(&made)).await.unwrap();
    let headers = credentials(&cx, &endpoint).await.unwrap().headers;
    assert_eq!(headers.iter().count(), 0);
}

#[actix_web::test]
async fn failing_endpoint_is_disabled_and_enabled_without_failures() {
    let world = World::new().await;
    let acme = &world.acme;
    let made = create(&world, &acme.admin, &new()).await;
    let other = create(&world, &acme.admin, &new()).await;
    let mut disabled = None;
    for hour in 0..200 {
        let cx = system(&world, acme).await;
        disabled = report(&cx, id(&made), 500).await;
        if disabled.is_some() {
            assert_eq!(hour, 120);
            break;
        }
        let version = stored(&cx, id(&made)).await.unwrap().version;
        assert_eq!(version, 1, "failures are no part of the version");
        world.clock.advance(Duration::hours(1));
    }
    assert!(disabled.is_some());
    let cx = system(&world, acme).await;
    // A late report, also of a success, changes nothing more.
    for status in [200, 500, 410] {
        assert_eq!(report(&cx, id(&made), status).await, None);
    }
    let enabled = cx.read(async |work| work.webhook_endpoints().count_enabled().await);
    assert_eq!(enabled.await.unwrap(), 1);
    assert!(stored(&cx, id(&other)).await.unwrap().state.is_enabled());
    let login = world.login("acme", &acme.admin.email, PASSWORD).await.expect(200);
    let admin = Person {
        access_token: login.json()["access_token"].as_str().unwrap().to_owned(),
        ..acme.admin.clone()
    };
    let shown = world.get(&admin, &at(&made)).await.expect(200).json();
    assert_eq!(
        (&shown["enabled"], &shown["disabled_reason"]),
        (&json!(false), &json!("failing"))
    );
    let enable = world.patch(&admin, &at(&made), &json!({"enabled": true}));
    let shown = enable.await.expect(200).json();
    assert_eq!(
        (&shown["enabled"], &shown["disabled_at"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(stored(&cx, id(&made)).await.unwrap().streak, None);
    assert_eq!(
        report(&cx, id(&made), 500).await,
        None,
        "it begins without failures"
    );
    let gone = report(&cx, id(&other), 410).await.unwrap();
    assert_eq!(gone.state.disabled_reason().unwrap().as_str(), "gone");
    let by_admin = world.patch(&admin, &at(&made), &json!({"enabled": false}));
    assert_eq!(by_admin.await.expect(200).json()["disabled_reason"], Value::Null);
    let expected = [
        "created", "created", "disabled", "enabled", "disabled", "disabled",
    ];
    let expected = expected.map(|verb| format!("webhook_endpoint.{verb}"));
    assert_eq!(actions(&world, acme).await, expected);
    let sql = "SELECT kind FROM event_outbox WHERE tenant_id = $1 AND kind LIKE 'webhook_endpoint.%' \
               UNION ALL SELECT kind FROM events WHERE tenant_id = $1 AND kind LIKE 'webhook_endpoint.%'";
    let kinds = sqlx::query_scalar(sql).bind(acme.id.uuid());
    let kinds: Vec<String> = kinds.fetch_all(&mut world.database.admin().await).await.unwrap();
    assert_eq!(kinds.len(), expected.len());
}

#[actix_web::test]
async fn credentials_are_sealed_anew_under_a_new_data_key() {
    let world = World::new().await;
    let acme = &world.acme;
    let made = create(&world, &acme.admin, &new()).await;
    let before = stored(&system(&world, acme).await, id(&made)).await.unwrap();
    data_key::rotate(&operator_cx(&world.app), acme.id).await.unwrap();
    world.outlive_the_cache();
    world.clock.advance(Duration::minutes(2));
    let cx = system(&world, acme).await;
    KeepDataKeys.run(&cx, Nothing {}).await.unwrap();
    let after = stored(&cx, id(&made)).await.unwrap();
    assert_ne!(after.sealed_credentials, before.sealed_credentials);
    assert_eq!(after.version, before.version);
    let opened = credentials(&cx, &after).await.unwrap();
    assert_eq!(opened.secrets.current.expose(), made["secret"].as_str().unwrap());
    assert!(data_key::check(&world.app, acme.id).await.unwrap().is_empty());
    // What no key opens is named.
    let broken = "UPDATE webhook_endpoints SET sealed_credentials = decode(repeat('00', 60), 'hex')";
    world.sql(broken).await;
    let found = data_key::check(&world.app, acme.id).await.unwrap();
    assert_eq!(
        found,
        [format!("no known key opens the webhook endpoint {}", id(&made))]
    );
}

#[actix_web::test]
async fn purge_deletes_endpoints_and_an_erasure_keeps_them() {
    let world = World::new().await;
    let admin = world.second_admin().await;
    let made = create(&world, &admin, &new()).await;
    create(&world, &world.globex.admin, &new()).await;
    erase(&world, &world.acme.admin, &admin).await.expect(202);
    run_jobs(&world).await;
    // It is the tenant's, and names nobody.
    world.get(&world.acme.admin, &at(&made)).await.expect(200);
    assert!(
        !dump(&world, "webhook_endpoints")
            .await
            .contains(&admin.id.to_string())
    );
    world.purge(&world.acme).await;
    assert_eq!(rows(&world, &world.acme).await, 0);
    assert_eq!(rows(&world, &world.globex).await, 1);
}

async fn portal(world: &World, who: &Person, seconds: i64) -> Person {
    let issued = world.post(who, PORTAL, &json!({ "expires_in": seconds })).await;
    let issued = issued.expect(200).json();
    assert_eq!(
        (&issued["token_type"], &issued["expires_in"]),
        (&json!("Bearer"), &json!(seconds))
    );
    Person {
        access_token: issued["token"].as_str().unwrap().to_owned(),
        ..who.clone()
    }
}

/// A path with ids that nothing has.
fn concrete(template: &str) -> String {
    let some = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
    let mut path = String::new();
    for part in template.split_inclusive('}') {
        let (fixed, name) = part.split_once('{').unwrap_or((part, ""));
        path.push_str(fixed);
        path.push_str(match name {
            "" => "",
            "meter}" | "feature}" => "api_calls",
            "n}" | "a}" | "b}" => "1",
            "key}" => "shown",
            "name}" => "some",
            _ => some,
        });
    }
    path
}

/// Every operation of the document with a portal token: those below `/webhooks` are open, and all others are refused.
#[actix_web::test]
async fn portal_token_opens_webhooks_and_nothing_else() {
    let world = World::new().await;
    let acme = &world.acme;
    let bearer = portal(&world, &acme.admin, 3_600).await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let mut opened = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            if !security.iter().any(|way| way.get("bearer").is_some()) {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = world.client.request(method.clone(), &concrete(template));
            let reply = request.bearer(&bearer.access_token).await;
            let name = format!("{method} {template}");
            let is_open = template.starts_with("/api/v1/webhooks/") && template != PORTAL;
            if is_open {
                assert!(![401, 403].contains(&reply.status), "{name}: {}", reply.text());
                opened += 1;
            } else {
                assert!([401, 403].contains(&reply.status), "{name}: {}", reply.text());
            }
        }
    }
    assert!(opened >= 7, "{opened}");
    // It is a token of its tenant.
    let theirs = create(&world, &world.globex.admin, &new()).await;
    world.get(&bearer, &at(&theirs)).await.problem(404, "not_found");
    let elsewhere = world.get(&bearer, ENDPOINTS);
    let elsewhere = elsewhere.header("X-Tenant-ID", world.globex.id.to_string());
    elsewhere.await.problem(403, "tenant_mismatch");
    // What is done with it is done by its issuer.
    let made = create(&world, &bearer, &new()).await;
    world.delete(&bearer, &at(&made)).await.expect(204);
    let entries = world.audit(acme).await;
    let deleted = entries
        .iter()
        .find(|(action, _)| action == "webhook_endpoint.deleted");
    assert_eq!(deleted.unwrap().1["actor_id"], json!(acme.admin.id));
    assert!(
        actions(&world, acme)
            .await
            .contains(&"webhooks.portal_opened".to_owned())
    );
}

#[actix_web::test]
async fn portal_token_ends_with_its_time_its_session_and_its_role() {
    let world = World::new().await;
    let admin = world.second_admin().await;
    for seconds in [0, 59, 3_601] {
        let refused = world
            .post(&admin, PORTAL, &json!({ "expires_in": seconds }))
            .await;
        let refused = refused.problem(422, "validation_failed");
        assert_eq!(pointers(&refused), ["/expires_in"]);
    }
    let (short, long) = (
        portal(&world, &admin, 60).await,
        portal(&world, &admin, 3_600).await,
    );
    world.get(&short, ENDPOINTS).await.expect(200);
    world.clock.advance(Duration::seconds(91));
    world.get(&short, ENDPOINTS).await.problem(401, "token_expired");
    world.get(&long, ENDPOINTS).await.expect(200);
    let all = world.post(&admin, "/api/v1/auth/logout-all", &json!({}));
    all.await.expect(204);
    world.get(&long, ENDPOINTS).await.problem(401, "token_revoked");
    // The role is read at each request.
    let login = world.login("acme", &admin.email, PASSWORD).await.expect(200);
    let admin = Person {
        access_token: login.json()["access_token"].as_str().unwrap().to_owned(),
        ..admin
    };
    let bearer = portal(&world, &admin, 3_600).await;
    let demote = format!("/api/v1/users/{}", admin.id);
    let demoted = world.patch(&world.acme.admin, &demote, &json!({"role": "member"}));
    demoted.await.expect(200);
    let refused = world.get(&bearer, ENDPOINTS).await;
    assert!([401, 403].contains(&refused.status), "{}", refused.text());
}

/// The factor is asked for when the token is issued. Its bearer has none to give.
#[actix_web::test]
async fn portal_token_needs_the_factor_once() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    with_factor(&world, admin).await;
    let bearer = portal(&world, admin, 3_600).await;
    world.clock.advance(Duration::minutes(11));
    let refused = world.post(admin, PORTAL, &json!({})).await;
    refused.problem(403, "mfa_required");
    world
        .post(admin, ENDPOINTS, &new())
        .await
        .problem(403, "mfa_required");
    create(&world, &bearer, &new()).await;
}
