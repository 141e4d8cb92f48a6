//! Everything that can be wrong with a request, and what may go wrong inside: a problem document each time,
//! and nothing half-done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpServer;
use actix_web::dev::ServerHandle;
use actix_web::http::Method;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_domain::kernel::{ErrorCode, StoreError};
use tenantry_http::{Api, Endpoint, HttpConfig};
use tenantry_persistence::PoolConfig;
use tenantry_tests::{Client, ManualClock, MemoryPayments, Options, Payments, Person, Reply, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// The default limit of a body.
const LIMIT: usize = 1024 * 1024;

async fn send(world: &World, who: &Person, method: &Method, path: &str, body: &[u8]) -> Reply {
    let request = world
        .client
        .request(method.clone(), path)
        .bearer(&who.access_token);
    request
        .header("Content-Type", "application/json")
        .body(body)
        .await
}

async fn new_project(world: &World, body: &[u8]) -> Reply {
    send(world, &world.acme.member, &Method::POST, "/api/v1/projects", body).await
}

/// What is wrong with the fields: pointers and codes.
fn fields(problem: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = problem["errors"]
        .as_array()
        .unwrap_or_else(|| panic!("{problem}"));
    errors
        .iter()
        .map(|error| (text(&error["pointer"]), text(&error["code"])))
        .collect()
}

/// The id of an invitation that [`invite`] makes.
const INVITATION: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a18";

/// The id of an API key that [`invite`] makes.
const API_KEY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a17";

/// The id of a custom domain that [`invite`] makes.
const DOMAIN: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a16";

/// The id of an endpoint of webhooks that [`invite`] makes.
const ENDPOINT: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15";

/// Makes an invitation, since all seats are taken and no request can make one, and an API key with a known id.
async fn invite(world: &World) {
    let sql = format!(
        "INSERT INTO invitations (tenant_id, id, created_at, invited_by, email, role, token_hash, sent_at, mails, expires_at) \
         SELECT tenant_id, '{INVITATION}', now(), id, 'grace@acme.example', 'viewer', sha256('t'), now(), 1, now() \
         FROM users WHERE id = '{admin}'; \
         INSERT INTO api_keys (tenant_id, id, created_at, name, user_id, service_account, scopes, allowed_networks, secret_hash, \
         expires_at, notified, updated_at, version) SELECT tenant_id, '{API_KEY}', now(), 'Key', id, false, '[]', '[]', sha256('s'), \
         now(), 'far', now(), 1 FROM users WHERE id = '{admin}'; \
         INSERT INTO tenant_domains (tenant_id, id, created_at, domain, state, token, claimed_until, updated_at, version) \
         SELECT tenant_id, '{DOMAIN}', now(), 'portal.acme-corp.com', 'pending', 't', now(), now(), 1 FROM users WHERE id = '{admin}'; \
         INSERT INTO webhook_endpoints (tenant_id, id, created_at, url, event_types, ordered, signature, header_names, sealed_credentials, \
         enabled, updated_at, version) SELECT tenant_id, '{ENDPOINT}', now(), 'https://hooks.acme-corp.com/', '[]', false, 'v1', '[]', '', \
         true, now(), 1 FROM users WHERE id = '{admin}'; \
         INSERT INTO custom_roles (tenant_id, id, created_at, name, description, base_role, permissions, updated_at, version) \
         SELECT tenant_id, gen_random_uuid(), now(), 'support', '', 'member', '[]', now(), 1 FROM users WHERE id = '{admin}'; \
         INSERT INTO event_consumers (tenant_id, id, created_at, name, position, updated_at, version) \
         SELECT tenant_id, gen_random_uuid(), now(), 'support', 0, now(), 1 FROM users WHERE id = '{admin}'",
        admin = world.acme.admin.id
    );
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .unwrap();
}

/// The id of a reservation that [`reserve`] makes.
const RESERVATION: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a19";

async fn reserve(world: &World) {
    let body = serde_json::json!({"amount": 1, "ttl_seconds": 60});
    let reserve = world.post(&world.acme.member, "/api/v1/quotas/renders/reservations", &body);
    reserve.await.expect(201);
    let name = format!("UPDATE quota_reservations SET id = '{RESERVATION}'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(name))
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
}

/// A world in which payments are taken and the tenants are customers.
pub async fn paying() -> World {
    let clock = Arc::new(ManualClock::default());
    let world = World::with(Options {
        payments: Some(Payments(MemoryPayments::new(clock.clone()))),
        clock: Some(clock),
        ..Options::default()
    });
    let world = world.await;
    crate::embedder::work(&world).await;
    world
}

/// The template of a path with ids of acme's rows in it.
fn fill(world: &World, template: &str) -> String {
    let acme = &world.acme;
    if template.contains("{key}") {
        return template.replace("{key}", "shown").replace("{n}", "1");
    }
    if template == "/api/v1/billing/preview" {
        return format!("{template}?plan=enterprise");
    }
    if template == "/api/v1/notifications/unsubscribe" {
        return crate::notifications::link(world, acme, &acme.admin);
    }
    if template == "/api/v1/auth/challenge" {
        return format!("{template}?purpose=sign_up");
    }
    let template = template
        .replace("{meter}", "renders")
        .replace("{feature}", "api_calls");
    let (prefix, rest) = template.split_once("{id}").unwrap_or((&template, ""));
    let id = match prefix {
        "/api/v1/quotas/renders/reservations/" => RESERVATION.to_owned(),
        "/api/v1/users/" => acme.viewer.id.to_string(),
        "/api/v1/projects/" => acme.project.to_string(),
        "/api/v1/admin/tenants/" => acme.id.to_string(),
        // Of no operator and of no job, which is asked after the body.
        "/api/v1/admin/operators/" | "/api/v1/admin/jobs/" => acme.id.to_string(),
        "/api/v1/tasks/" => acme.task.to_string(),
        "/api/v1/resources/" => acme.resource.to_string(),
        // Of no event, which is asked after the body.
        "/api/v1/usage/events/" => acme.id.to_string(),
        // Of no session.
        "/api/v1/auth/sessions/" => acme.id.to_string(),
        // Of no passkey, which is asked after the body.
        "/api/v1/auth/passkeys/" => acme.id.to_string(),
        // Of no export: a job writes them.
        "/api/v1/tenant/exports/" => acme.id.to_string(),
        // Of no notification, which is asked after the body.
        "/api/v1/notifications/" => acme.id.to_string(),
        // Of no alert.
        "/api/v1/security/alerts/" => acme.id.to_string(),
        "/api/v1/export-links/" => acme.id.to_string(),
        // Of no support access.
        "/api/v1/support-access/" | "/api/v1/admin/support-access/" => acme.id.to_string(),
        "/api/v1/tenant/domains/" => DOMAIN.to_owned(),
        "/api/v1/webhooks/endpoints/" => ENDPOINT.to_owned(),
        // Of no message.
        "/api/v1/webhooks/messages/" => acme.id.to_string(),
        "/api/v1/invitations/" => INVITATION.to_owned(),
        "/api/v1/api-keys/" => API_KEY.to_owned(),
        _ => String::new(),
    };
    let prefix = prefix.replace("{name}", "support");
    let rest = rest.replace("{user_id}", &acme.viewer.id.to_string());
    // Of no export: a job writes them.
    let rest = rest.replace("{export_id}", &acme.id.to_string());
    let rest = rest.replace("{endpoint_id}", ENDPOINT);
    let path = format!("{prefix}{id}{rest}").replace("{code}", "not_found");
    ["{n}", "{a}", "{b}"]
        .iter()
        .fold(path, |path, number| path.replace(number, "1"))
}

async fn document(world: &World) -> Value {
    world.client.get("/openapi.json").await.expect(200).json()
}

/// The methods of each path of the document.
fn methods(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let of_path = |item: &Value| {
        item.as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
            .collect()
    };
    document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| (path.clone(), of_path(item)))
        .collect()
}

/// The rows of acme apart from its audit log, in which refused logins are recorded.
async fn rows(world: &World) -> Vec<(String, String)> {
    let digest = world.digest(&world.acme).await;
    digest
        .into_iter()
        // A wrong password in a body counts as a failed guess.
        .filter(|(table, _)| table != "audit_events" && table != "lockouts")
        .collect()
}

#[actix_web::test]
async fn a_body_that_is_no_json_is_malformed() {
    let world = World::new().await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let bodies: [&[u8]; 20] = [
        b"",
        b" \r\n\t",
        b"{",
        b"}",
        b"{\"name\"",
        b"{\"name\":}",
        b"{\"name\":\"x\"",
        b"{\"name\":\"x\",}",
        b"{\"name\":\"x\"} trailing",
        b"{\"name\":\"x\"}{}",
        b"{'name':'x'}",
        b"{name:\"x\"}",
        b"nil",
        b"{\"name\":NaN}",
        b"{\"name\":\"line\nbreak\"}",
        b"{\"name\":\"\\x\"}",
        b"{\"name\":\"\\ud800\"}",
        b"{\"name\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{\"name\":\"x\"}",
        b"name=x",
    ];
    for body in bodies {
        let reply = new_project(&world, body).await;
        let problem = reply.problem(400, "malformed_json").json();
        assert_eq!(
            problem["errors"],
            Value::Null,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
}

#[actix_web::test]
async fn a_body_has_to_say_that_it_is_json() {
    let world = World::new().await;
    let post = |types: &[&str], name: &str| {
        let request = world.client.request(Method::POST, "/api/v1/projects");
        let request = request.bearer(&world.acme.member.access_token);
        let request = types
            .iter()
            .fold(request, |request, value| request.header("Content-Type", value));
        request.body(format!("{{\"name\":\"{name}\"}}")).send()
    };
    let before = world.digest(&world.acme).await;
    let wrong = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/jsonx",
        "application/xml",
        "json",
        "",
        "application/",
    ];
    for content_type in wrong {
        post(&[content_type], "x")
            .await
            .problem(415, "unsupported_media_type");
    }
    post(&[], "x").await.problem(415, "unsupported_media_type");
    let compressed = world.post(&world.acme.member, "/api/v1/projects", &json!({"name": "x"}));
    compressed
        .header("Content-Encoding", "gzip")
        .await
        .problem(415, "unsupported_media_type");
    assert_eq!(world.digest(&world.acme).await, before);
    let right = [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/merge-patch+json",
    ];
    for (number, content_type) in right.into_iter().enumerate() {
        post(&[content_type], &format!("Project {number}"))
            .await
            .expect(201);
    }
    // What takes no body does not ask for one.
    let path = format!("/api/v1/projects/{}", world.acme.project);
    world.delete(&world.acme.admin, &path).await.expect(204);
    let restore = world.client.request(Method::POST, &format!("{path}/restore"));
    restore.bearer(&world.acme.admin.access_token).await.expect(200);
}

#[actix_web::test]
async fn a_body_may_have_a_mebibyte_and_no_byte_more() {
    let world = World::new().await;
    let padded = |name: &str, length: usize| {
        let mut body = format!("{{\"name\":\"{name}\"}}").into_bytes();
        body.resize(length, b' ');
        body
    };
    new_project(&world, &padded("As large as can be", LIMIT))
        .await
        .expect(201);
    let before = world.digest(&world.acme).await;
    new_project(&world, &padded("Too large", LIMIT + 1))
        .await
        .problem(413, "payload_too_large");
    // Whoever may not write is told so before the body is looked at.
    let huge = padded("x", 3 * LIMIT);
    send(
        &world,
        &world.acme.viewer,
        &Method::POST,
        "/api/v1/projects",
        &huge,
    )
    .await
    .problem(403, "forbidden");
    let nobody = world
        .client
        .request(Method::POST, "/api/v1/projects")
        .header("Content-Type", "application/json");
    nobody.body(huge).await.problem(401, "unauthenticated");
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn the_operator_decides_how_large_a_body_may_be() {
    let http = HttpConfig {
        body_limit_bytes: 64,
        ..HttpConfig::default()
    };
    let world = World::with(Options {
        http,
        ..Options::default()
    })
    .await;
    new_project(&world, format!("{{\"name\":\"{}\"}}", "x".repeat(53)).as_bytes())
        .await
        .expect(201);
    let reply = new_project(&world, format!("{{\"name\":\"{}\"}}", "y".repeat(54)).as_bytes()).await;
    reply.problem(413, "payload_too_large");
}

#[actix_web::test]
async fn every_field_that_does_not_fit_is_named_with_a_pointer() {
    let world = World::new().await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let projects = "/api/v1/projects";
    let tasks = &format!("/api/v1/projects/{}/tasks", world.acme.project);
    let cases = [
        (projects, json!({}), "validation_failed", "/name", "required"),
        (
            projects,
            json!({"name": null}),
            "validation_failed",
            "/name",
            "invalid_type",
        ),
        (
            projects,
            json!({"name": 7}),
            "validation_failed",
            "/name",
            "invalid_type",
        ),
        (
            projects,
            json!({"name": {"first": "x"}}),
            "validation_failed",
            "/name",
            "invalid_type",
        ),
        (
            projects,
            json!({"name": "x", "nmae": "x"}),
            "unknown_field",
            "/nmae",
            "unknown_field",
        ),
        (
            projects,
            json!({"name": "x", "id": "1"}),
            "unknown_field",
            "/id",
            "unknown_field",
        ),
        (
            projects,
            json!({"name": "x", "tenant_id": world.globex.id}),
            "unknown_field",
            "/tenant_id",
            "unknown_field",
        ),
        (
            projects,
            json!({"name": "x", "owner_id": world.acme.viewer.id}),
            "unknown_field",
            "/owner_id",
            "unknown_field",
        ),
        (
            projects,
            json!({"name": "x", "a/b~c": 1}),
            "unknown_field",
            "/a~1b~0c",
            "unknown_field",
        ),
        (
            projects,
            json!({"name": "x", "": 1}),
            "unknown_field",
            "/",
            "unknown_field",
        ),
        (
            tasks,
            json!({"title": "x", "assignee_id": 1}),
            "validation_failed",
            "/assignee_id",
            "invalid_type",
        ),
        (
            tasks,
            json!({"title": "x", "status": "lost"}),
            "validation_failed",
            "/status",
            "invalid_value",
        ),
        (
            "/api/v1/tenants",
            json!({"name": "x", "slug": "new"}),
            "validation_failed",
            "/admin",
            "required",
        ),
        (
            "/api/v1/tenants",
            json!({"name": "x", "slug": "new", "admin": {"email": 1, "full_name": "x"}}),
            "validation_failed",
            "/admin/email",
            "invalid_type",
        ),
        (
            "/api/v1/tenants",
            json!({"name": "x", "slug": "new", "admin": {"email": "a@b.example"}}),
            "validation_failed",
            "/admin/full_name",
            "required",
        ),
        (
            "/api/v1/tenants",
            json!({"name": "x", "slug": "new", "admin": {"email": "a@b.example", "full_name": "x", "a": 1}}),
            "unknown_field",
            "/admin/a",
            "unknown_field",
        ),
        (
            "/api/v1/tenants",
            json!({"name": "x", "slug": "new", "admin": ["a@b.example", "x", null]}),
            "validation_failed",
            "/admin",
            "invalid_type",
        ),
    ];
    for (path, body, code, pointer, field_code) in cases {
        let problem = world
            .post(&world.acme.admin, path, &body)
            .await
            .problem(422, code)
            .json();
        assert_eq!(
            fields(&problem),
            [(pointer.to_owned(), field_code.to_owned())],
            "{path} {body}"
        );
    }
    let patches = [
        (
            json!({"settings": {"timezone": 7}}),
            "validation_failed",
            "/settings/timezone",
            "invalid_type",
        ),
        (
            json!({"settings": {"zone": "UTC"}}),
            "unknown_field",
            "/settings/zone",
            "unknown_field",
        ),
        (
            json!({"settings": [true]}),
            "validation_failed",
            "/settings",
            "invalid_type",
        ),
        (
            json!({"settings": null}),
            "validation_failed",
            "/settings",
            "required",
        ),
        (
            json!({"settings": {"self_registration": "yes"}}),
            "validation_failed",
            "/settings/self_registration",
            "invalid_type",
        ),
        (
            json!({"slug": "other"}),
            "unknown_field",
            "/slug",
            "unknown_field",
        ),
        (
            json!({"status": "active"}),
            "unknown_field",
            "/status",
            "unknown_field",
        ),
        (
            json!({"plan": "business"}),
            "unknown_field",
            "/plan",
            "unknown_field",
        ),
    ];
    for (body, code, pointer, field_code) in patches {
        let problem = world
            .patch(&world.acme.admin, "/api/v1/tenant", &body)
            .await
            .problem(422, code)
            .json();
        assert_eq!(
            fields(&problem),
            [(pointer.to_owned(), field_code.to_owned())],
            "{body}"
        );
    }
    let twice = new_project(&world, br#"{"name":"a","name":"b"}"#)
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(fields(&twice), [("/name".into(), "duplicate_field".into())]);
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
}

#[actix_web::test]
async fn a_body_that_is_no_object_is_refused_also_where_its_values_would_fit() {
    let world = World::new().await;
    let before = rows(&world).await;
    for body in [
        "[]",
        "[\"name\",\"description\"]",
        "[{\"name\":\"x\"}]",
        "\"name\"",
        "1",
        "null",
        "true",
        "-0.5e3",
    ] {
        // Usage is taken as a list too; what is no event in it is refused by itself.
        let operations = operations_with_body(&document(&world).await).into_iter();
        for (path, method) in operations.filter(|(path, _)| path != "/api/v1/usage/events") {
            let reply = send(
                &world,
                &world.acme.admin,
                &method,
                &fill(&world, &path),
                body.as_bytes(),
            )
            .await;
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(
                fields(&problem),
                [(String::new(), "invalid_type".into())],
                "{method} {path} {body}"
            );
        }
    }
    assert_eq!(rows(&world).await, before);
}

#[actix_web::test]
async fn deeply_nested_json_is_refused_and_crashes_nothing() {
    let world = World::new().await;
    let before = world.digest(&world.acme).await;
    let depth = 200_000;
    let objects = "{\"a\":".repeat(depth / 2);
    let cases = [
        ("[".repeat(depth), 400),
        (format!("{}{}", "[".repeat(depth), "]".repeat(depth)), 422),
        (objects.clone(), 400),
        (format!("{objects}1{}", "}".repeat(depth / 2)), 422),
        (
            format!("{{\"name\":{}{}}}", "[".repeat(depth), "]".repeat(depth)),
            422,
        ),
        (
            format!(
                "{{\"name\":\"x\",\"unknown\":{}{}}}",
                "[".repeat(depth),
                "]".repeat(depth)
            ),
            422,
        ),
        (format!("{{\"name\":{}", "[".repeat(depth)), 400),
    ];
    for (body, status) in cases {
        assert!(body.len() < LIMIT);
        let reply = new_project(&world, body.as_bytes()).await;
        let code = reply.json()["code"].as_str().unwrap().to_owned();
        let expected = if status == 400 {
            ["malformed_json"; 2]
        } else {
            ["validation_failed", "unknown_field"]
        };
        assert!(expected.contains(&code.as_str()), "{code}");
        reply.problem(status, &code);
    }
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn a_nul_character_is_refused_in_every_text() {
    let world = World::new().await;
    let acme = &world.acme;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let nul = "a\u{0}b";
    let founding = |field: &str| {
        let mut body =
            json!({"name": "New", "slug": "new", "admin": {"email": "a@new.example", "full_name": "A"}});
        *body.pointer_mut(field).unwrap() = json!(nul);
        body
    };
    let project = format!("/api/v1/projects/{}", acme.project);
    let task = format!("/api/v1/tasks/{}", acme.task);
    let resource = format!("/api/v1/resources/{}", acme.resource);
    let user = format!("/api/v1/users/{}", acme.viewer.id);
    let tasks = format!("{project}/tasks");
    let (post, patch) = (Method::POST, Method::PATCH);
    let cases = [
        (&post, "/api/v1/tenants", founding("/name"), "/name"),
        (&post, "/api/v1/tenants", founding("/slug"), "/slug"),
        (&post, "/api/v1/tenants", founding("/admin/email"), "/admin/email"),
        (
            &post,
            "/api/v1/tenants",
            founding("/admin/full_name"),
            "/admin/full_name",
        ),
        (
            &post,
            "/api/v1/tenants",
            json!({"name": "New", "slug": "new", "subdomain": nul,
            "admin": {"email": "a@new.example", "full_name": "A"}}),
            "/subdomain",
        ),
        (
            &post,
            "/api/v1/tenants",
            json!({"name": "New", "slug": "new", "plan": nul,
            "admin": {"email": "a@new.example", "full_name": "A"}}),
            "/plan",
        ),
        (
            &post,
            "/api/v1/auth/register",
            json!({"tenant_slug": "acme", "email": nul, "full_name": "A",
            "password": "correct horse"}),
            "/email",
        ),
        (
            &post,
            "/api/v1/auth/register",
            json!({"tenant_slug": "acme", "email": "a@new.example", "full_name": nul,
            "password": "correct horse"}),
            "/full_name",
        ),
        (&patch, "/api/v1/tenant", json!({"name": nul}), "/name"),
        (&patch, "/api/v1/tenant", json!({"subdomain": nul}), "/subdomain"),
        (
            &patch,
            "/api/v1/tenant",
            json!({"settings": {"timezone": nul}}),
            "/settings/timezone",
        ),
        (
            &patch,
            "/api/v1/tenant",
            json!({"settings": {"locale": nul}}),
            "/settings/locale",
        ),
        (
            &post,
            "/api/v1/users",
            json!({"email": nul, "full_name": "A"}),
            "/email",
        ),
        (
            &post,
            "/api/v1/users",
            json!({"email": "a@new.example", "full_name": nul}),
            "/full_name",
        ),
        (
            &post,
            "/api/v1/users",
            json!({"email": "a@new.example", "full_name": "A", "role": nul}),
            "/role",
        ),
        (&patch, &user, json!({"email": nul}), "/email"),
        (&patch, &user, json!({"full_name": nul}), "/full_name"),
        (&post, "/api/v1/projects", json!({"name": nul}), "/name"),
        (
            &post,
            "/api/v1/projects",
            json!({"name": "A", "description": nul}),
            "/description",
        ),
        (&patch, &project, json!({"name": nul}), "/name"),
        (&patch, &project, json!({"description": nul}), "/description"),
        (&patch, &project, json!({"status": nul}), "/status"),
        (&post, &tasks, json!({"title": nul}), "/title"),
        (
            &post,
            &tasks,
            json!({"title": "A", "description": nul}),
            "/description",
        ),
        (&patch, &task, json!({"title": nul}), "/title"),
        (&patch, &task, json!({"description": nul}), "/description"),
        (
            &post,
            "/api/v1/resources",
            json!({"name": nul, "content": "x"}),
            "/name",
        ),
        (
            &post,
            "/api/v1/resources",
            json!({"name": "A", "content": nul}),
            "/content",
        ),
        (
            &post,
            "/api/v1/resources",
            json!({"name": "A", "content": "x", "kind": nul}),
            "/kind",
        ),
        (
            &post,
            "/api/v1/resources",
            json!({"name": "A", "url": format!("https://{nul}")}),
            "/url",
        ),
        (&patch, &resource, json!({"name": nul}), "/name"),
        (&patch, &resource, json!({"kind": nul}), "/kind"),
        (&patch, &resource, json!({"content": nul}), "/content"),
        (
            &patch,
            &resource,
            json!({"content": null, "url": format!("https://{nul}")}),
            "/url",
        ),
    ];
    for (method, path, body, pointer) in cases {
        let reply = send(&world, &acme.admin, method, path, body.to_string().as_bytes()).await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(fields(&problem)[0].0, pointer, "{method} {path} {body}");
    }
    for path in [
        "/api/v1/tasks?q=a%00b",
        "/api/v1/tasks?q=%00",
        &format!("{tasks}?q=a%00b"),
    ] {
        let problem = world
            .get(&acme.viewer, path)
            .await
            .problem(422, "validation_failed")
            .json();
        assert_eq!(
            fields(&problem),
            [("/query/q".into(), "invalid_text".into())],
            "{path}"
        );
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    // Text that is only compared is read in the same way.
    let credentials = [
        ("acme", nul, "correct horse"),
        ("acme", acme.admin.email.as_str(), "correct\u{0}horse"),
        (nul, acme.admin.email.as_str(), "correct horse"),
    ];
    for (slug, email, password) in credentials {
        let reply = world.login(slug, email, password).await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(fields(&problem)[0].1, "invalid_text");
    }
    let refresh = world
        .client
        .post("/api/v1/auth/refresh", &json!({"refresh_token": nul}))
        .await;
    refresh.problem(422, "validation_failed");
}

#[actix_web::test]
async fn numbers_beyond_all_bounds_and_huge_texts_are_refused() {
    let world = World::new().await;
    let before = world.digest(&world.acme).await;
    for number in [
        "1e400",
        "-1e400",
        "99999999999999999999999999",
        "0.1",
        "-0",
        "1E+2",
    ] {
        let body = format!("{{\"name\":{number}}}");
        let reply = new_project(&world, body.as_bytes()).await;
        let code = reply.json()["code"].as_str().unwrap().to_owned();
        assert!(matches!(reply.status, 400 | 422), "{number}: {}", reply.text());
        reply.clone().problem(reply.status, &code);
    }
    let huge = "x".repeat(1_000_000);
    let tasks = format!("/api/v1/projects/{}/tasks", world.acme.project);
    let cases = [
        ("/api/v1/projects", json!({"name": huge}), "/name"),
        (
            "/api/v1/projects",
            json!({"name": "x", "description": huge}),
            "/description",
        ),
        (tasks.as_str(), json!({"title": huge}), "/title"),
        (tasks.as_str(), json!({"title": "x", "status": huge}), "/status"),
        (
            "/api/v1/resources",
            json!({"name": "x", "url": format!("https://{huge}")}),
            "/url",
        ),
        (
            "/api/v1/users",
            json!({"email": format!("{huge}@x.example"), "full_name": "x"}),
            "/email",
        ),
        (
            "/api/v1/users",
            json!({"email": "x@x.example", "full_name": "x", "password": huge}),
            "/password",
        ),
    ];
    for (path, body, pointer) in cases {
        let reply = world
            .post(&world.acme.admin, path, &body)
            .await
            .problem(422, "validation_failed");
        assert_eq!(fields(&reply.json())[0].0, pointer, "{path}");
        // What was sent does not come back.
        assert!(reply.bytes.len() < 2_000, "{path}: {} bytes", reply.bytes.len());
    }
    let unknown = format!("{{\"name\":\"x\",\"{}\":1}}", "k".repeat(1_000));
    new_project(&world, unknown.as_bytes())
        .await
        .problem(422, "unknown_field");
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn a_path_that_leads_nowhere_is_a_404_for_everybody() {
    let world = World::new().await;
    let project = format!("/api/v1/projects/{}", world.acme.project);
    let paths = [
        "/nope",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/nope",
        "/api/v2/projects",
        "//api/v1/projects",
        "/API/V1/PROJECTS",
        "/api/v1/project",
        "/health/nope",
        "/nope/",
        "/index.html",
        "/.env",
        "/%",
        "/%zz",
        "/%ff",
        "/api/v1/%00",
        &format!("{project}/nope"),
        &format!("{project}/restore/again"),
    ];
    for path in paths {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let request = || world.client.request(method.clone(), path);
            let without = request().await.problem(404, "not_found");
            let with = request()
                .bearer(&world.acme.admin.access_token)
                .await
                .problem(404, "not_found");
            let garbage = request().bearer("garbage").await.problem(404, "not_found");
            for reply in [with, garbage] {
                assert_eq!(reply.comparable(), without.comparable(), "{method} {path}");
            }
        }
    }
}

#[actix_web::test]
async fn a_method_that_a_path_does_not_have_is_a_405_that_says_which_it_has() {
    let world = World::new().await;
    let mut refused = 0;
    for (template, described) in methods(&document(&world).await) {
        let path = fill(&world, &template);
        let mut expected = described.clone();
        if expected.contains("GET") {
            expected.insert("HEAD".into());
        }
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND",
        ] {
            if expected.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            for token in [None, Some(&world.acme.viewer.access_token)] {
                let request = world.client.request(method.clone(), &path);
                let request = if let Some(token) = token {
                    request.bearer(token)
                } else {
                    request
                };
                let reply = request.await;
                let (reply, expected) = if method == Method::OPTIONS {
                    let options = ["OPTIONS".to_owned()];
                    (
                        reply.expect(204),
                        expected.iter().cloned().chain(options).collect(),
                    )
                } else {
                    (reply.problem(405, "method_not_allowed"), expected.clone())
                };
                let allowed = reply
                    .header("allow")
                    .unwrap_or_default()
                    .split(',')
                    .map(|name| name.trim().to_owned());
                assert_eq!(allowed.collect::<BTreeSet<_>>(), expected, "{method} {path}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[actix_web::test]
async fn head_answers_like_get() {
    let world = paying().await;
    // There is a first version of the settings to look at.
    let settings = json!({"notifications.digest_hour": 9});
    let patch = world.patch(&world.acme.admin, "/api/v1/tenant/settings", &settings);
    patch.await.expect(200);
    let document = document(&world).await;
    crate::features::define(&world, "shown", serde_json::json!({})).await;
    reserve(&world).await;
    invite(&world).await;
    for (template, methods) in methods(&document) {
        if !methods.contains("GET") || is_for_operators(&document["paths"][&template]["get"]) {
            continue;
        }
        // A job writes what is there: `exports` asks for it.
        if template.contains("/exports/{") || template.contains("/export-links/") {
            continue;
        }
        // An operator asks for what is there: `support_access` reads it.
        if template.contains("/support-access/{id}") {
            continue;
        }
        // A rule raises what is there: `alerts` reads it.
        if template.contains("/security/alerts/{id}") {
            continue;
        }
        // A published event makes what is there: `webhook_deliveries` reads it.
        if template.contains("/webhooks/messages/{id}") {
            continue;
        }
        let path = fill(&world, &template);
        let ask = |method: Method| {
            let request = world.client.request(method, &path);
            if template == "/metrics" {
                // Only an operator's token is good there.
                return request.send();
            }
            request.bearer(&world.acme.admin.access_token).send()
        };
        let (head, get) = (
            ask(Method::HEAD).await.expect(200),
            ask(Method::GET).await.expect(200),
        );
        let names = |reply: &Reply| {
            let names = reply.headers.iter().map(|(name, _)| name.clone());
            names.collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&head), names(&get), "{path}");
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
    world.client.request(Method::HEAD, "/nope").await.expect(404);
    world
        .client
        .request(Method::HEAD, "/api/v1/tasks")
        .await
        .expect(401);
}

#[actix_web::test]
async fn parameters_that_a_list_does_not_know_or_that_come_twice_are_refused() {
    let world = World::new().await;
    let acme = &world.acme;
    let project = format!("/api/v1/projects/{}", acme.project);
    let lists = [
        "/api/v1/users".to_owned(),
        "/api/v1/projects".to_owned(),
        "/api/v1/tasks".to_owned(),
        "/api/v1/resources".to_owned(),
        format!("{project}/tasks"),
        format!("{project}/members"),
        format!("/api/v1/resources/{}/versions", acme.resource),
    ];
    for list in &lists {
        for (query, pointer) in [
            ("offset=1", "/query/offset"),
            ("page=1", "/query/page"),
            ("tenant_id=x", "/query/tenant_id"),
            ("Limit=1", "/query/Limit"),
            ("limit=1&LIMIT=1", "/query/LIMIT"),
        ] {
            let reply = world.get(&acme.viewer, &format!("{list}?{query}")).await;
            let problem = reply.problem(422, "unknown_field").json();
            assert_eq!(
                fields(&problem),
                [(pointer.into(), "unknown_field".into())],
                "{list}?{query}"
            );
        }
        for name in ["limit", "cursor"] {
            let reply = world
                .get(&acme.viewer, &format!("{list}?{name}=1&{name}=1"))
                .await;
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(
                fields(&problem),
                [(format!("/query/{name}"), "duplicate_field".into())],
                "{list}"
            );
        }
    }
    for query in ["status=todo&status=done", "q=a&q=a"] {
        let reply = world.get(&acme.viewer, &format!("/api/v1/tasks?{query}")).await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(fields(&problem)[0].1, "duplicate_field", "{query}");
    }
}

#[actix_web::test]
async fn a_query_that_is_oddly_encoded_is_never_a_failure_inside() {
    let world = World::new().await;
    let long = "x".repeat(8_000);
    let queries = [
        "%",
        "%zz",
        "q=%",
        "q=%zz",
        "q=%2",
        "=",
        "&&",
        "=x",
        "q",
        "q[]=a",
        "q=%F0%9F%9A%80",
        "&limit=1&",
        "limit",
        "%71=a",
        "q=a;b",
        "?",
        "q=%E2%80%AE",
        "%00=1",
        "limit=1%00",
        "status=%74odo",
    ];
    let long = format!("q={long}");
    for query in queries.into_iter().chain([long.as_str()]) {
        let reply = world
            .get(&world.acme.viewer, &format!("/api/v1/tasks?{query}"))
            .await;
        if reply.status != 200 {
            let code = reply.json()["code"].as_str().unwrap().to_owned();
            reply.problem(422, &code);
        }
    }
    for query in ["q=%ff", "q=%C3%28", "%ff=1", "q=%ED%A0%80"] {
        let reply = world
            .get(&world.acme.viewer, &format!("/api/v1/tasks?{query}"))
            .await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(
            fields(&problem),
            [("/query".into(), "invalid_value".into())],
            "{query}"
        );
    }
}

/// The paths and methods of the document that take a body.
/// What no user gets into; its tests are those of operators.
fn is_for_operators(operation: &Value) -> bool {
    operation["security"][0].get("operator").is_some()
}

fn operations_with_body(document: &Value) -> Vec<(String, Method)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // OFREP has shapes of its own for what is wrong with a body, and tests of its own.
            let ofrep = path.starts_with("/ofrep/");
            if operation["requestBody"].is_object() && !is_for_operators(operation) && !ofrep {
                found.push((
                    path.clone(),
                    Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
                ));
            }
        }
    }
    assert!(found.len() >= 13, "{found:?}");
    found
}

/// The schema of an operation's body, with an example of a body that is right.
fn schema<'a>(document: &'a Value, path: &str, method: &Method) -> &'a Value {
    let operation = &document["paths"][path][method.as_str().to_lowercase()];
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let name = schema["$ref"]
        .as_str()
        .unwrap_or_else(|| panic!("{method} {path}: {schema}"));
    document.pointer(name.strip_prefix('#').unwrap()).unwrap()
}

#[actix_web::test]
async fn no_bad_value_in_any_field_of_any_body_is_a_failure_inside_or_half_written() {
    let world = paying().await;
    let document = document(&world).await;
    let other = world.digest(&world.globex).await;
    let huge = "x".repeat(300_000);
    let bad = [
        json!(7),
        json!(-0.5),
        json!([]),
        json!([[{}]]),
        json!("\u{0}"),
        json!(""),
        json!(huge),
        json!(u64::MAX),
    ];
    let raw = [
        "",
        "{",
        "[]",
        "null",
        "0",
        "\"\"",
        "{\"\":1}",
        "{\"unknown\":null}",
        "{\"__proto__\":{}}",
        "\u{0}",
    ];
    let mut tried = 0;
    for (path, method) in operations_with_body(&document) {
        let (schema, target) = (schema(&document, &path, &method), fill(&world, &path));
        // Settings are known by the tenant's schema only.
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let example = if schema["example"].is_object() {
            schema["example"].clone()
        } else {
            json!({})
        };
        let mut bodies: Vec<String> = raw.iter().map(|body| (*body).to_owned()).collect();
        // Where the body is optional, none is as good as an empty object.
        let operation = &document["paths"][&path][method.as_str().to_lowercase()];
        bodies.retain(|body| !body.is_empty() || operation["requestBody"]["required"] == true);
        for name in properties.keys() {
            for value in &bad {
                let mut body = example.clone();
                body[name] = value.clone();
                bodies.push(body.to_string());
            }
        }
        let before = rows(&world).await;
        let mut accepted = Vec::new();
        for body in &bodies {
            let reply = send(&world, &world.acme.admin, &method, &target, body.as_bytes()).await;
            tried += 1;
            if (200..300).contains(&reply.status) {
                accepted.push(body.chars().take(80).collect::<String>());
            } else {
                let code = reply.json()["code"].as_str().unwrap().to_owned();
                assert!(reply.status < 500, "{method} {path} {body:.80}: {}", reply.text());
                reply.clone().problem(reply.status, &code);
            }
        }
        // An empty text is right for a description or a content, and nothing else of these is.
        let harmless = |body: &String| {
            body.contains("\"description\":\"\"")
                || body.contains("\"custom_css\":\"\"")
                || body.contains("\"content\":\"\"")
                || body.contains(&format!("\"content\":\"{}", "x".repeat(20)))
        };
        let (harmless, wrong): (Vec<_>, Vec<_>) = accepted.into_iter().partition(harmless);
        assert_eq!(wrong, Vec::<String>::new(), "{method} {path}");
        if harmless.is_empty() {
            assert_eq!(rows(&world).await, before, "{method} {path}");
        }
    }
    assert!(tried > 400, "{tried}");
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn every_code_has_a_page_that_explains_it() {
    let world = World::new().await;
    let all = world.client.get("/problems").await.expect(200);
    assert_eq!(all.header("content-type"), Some("text/html; charset=utf-8"));
    for code in ErrorCode::ALL {
        let path = format!("/problems/{}", code.as_str());
        let page = world.client.get(&path).await.expect(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let text = page.text();
        for part in [code.as_str(), code.title(), &code.status().to_string()] {
            let part = part.replace('\'', "&#39;");
            assert!(
                text.contains(&part) || text.contains(&part.replace("&#39;", "'")),
                "{path}: {text}"
            );
        }
        assert!(all.text().contains(&format!("href=\"{path}\"")), "{path}");
    }
    for unknown in ["nope", "NOT_FOUND", "%3Cscript%3E", "not_found%00", ".."] {
        let reply = world.client.get(&format!("/problems/{unknown}")).await;
        assert!(!reply.text().contains("<script>"), "{}", reply.text());
        reply.problem(404, "not_found");
    }
}

/// Asserts that a failure is told as one and nothing of the inside with it.
#[track_caller]
fn assert_says_nothing(reply: Reply, status: u16, code: &str, secrets: &[&str]) {
    let reply = reply.problem(status, code);
    let problem = reply.json();
    assert_eq!(problem["detail"], ErrorCode::parse(code).unwrap().about());
    assert_eq!(problem["errors"], Value::Null);
    let path = problem["instance"].as_str().unwrap().to_owned();
    let told = format!("{:?} {}", reply.headers, reply.text())
        .replace(&path, "")
        .to_lowercase();
    let inside = [
        "select", "sqlstate", "42p01", "relation", "sqlx", "postgres", "panicked", "crates/", ".rs", "pool",
    ];
    for word in inside.iter().chain(secrets) {
        assert!(!told.contains(&word.to_lowercase()), "{word}: {told}");
    }
}

#[actix_web::test]
async fn a_failure_inside_says_nothing_of_the_inside() {
    let world = World::new().await;
    let member = &world.acme.member;
    let mut admin = world.database.admin().await;
    sqlx::raw_sql("DROP TABLE tasks CASCADE")
        .execute(&mut admin)
        .await
        .unwrap();
    let before = world.audit(&world.acme).await;
    let tasks = format!("/api/v1/projects/{}/tasks", world.acme.project);
    let secret = ["tasks", "title of a task"];
    let reply = world.get(member, "/api/v1/tasks").await;
    assert_says_nothing(reply, 500, "internal", &secret);
    let reply = world
        .post(member, &tasks, &json!({"title": "title of a task"}))
        .await;
    assert_says_nothing(reply, 500, "internal", &secret);
    // A deletion that fails half-way leaves the project as it was.
    let path = format!("/api/v1/projects/{}", world.acme.project);
    assert_says_nothing(
        world.delete(&world.acme.admin, &path).await,
        500,
        "internal",
        &secret,
    );
    assert_eq!(world.audit(&world.acme).await, before);
    let project = world.get(member, &path).await.expect(200).json();
    assert_eq!(
        (&project["version"], &project["deleted_at"]),
        (&json!(1), &Value::Null)
    );
    // And everything else goes on, on the same connections.
    let replies = join_all((0..8).map(|_| world.get(member, "/api/v1/projects").send())).await;
    replies.into_iter().for_each(|reply| drop(reply.expect(200)));
    new_project(&world, b"{\"name\":\"Goes on\"}").await.expect(201);
}

#[actix_web::test]
async fn a_panic_in_a_handler_is_a_failure_like_any_other() {
    async fn panics() -> &'static str {
        panic!("a secret of the inside")
    }
    let world = World::new().await;
    let routes = |config: &mut actix_web::web::ServiceConfig| {
        config.service(Endpoint::at("/panics").get(panics));
    };
    let api = Api::new(
        Arc::clone(&world.app),
        HttpConfig::default(),
        Arc::clone(&world.readiness),
    );
    let client = Client::new(api.with_routes(routes)).await;
    client.get("/api/v1/panics").await.problem(401, "unauthenticated");
    for _ in 0..2 {
        let request = client
            .get("/api/v1/panics")
            .bearer(&world.acme.viewer.access_token);
        let reply = request.header("X-Request-ID", "req-4711").await;
        assert_eq!(reply.header("x-request-id"), Some("req-4711"));
        assert_eq!(reply.json()["request_id"], "req-4711");
        assert_says_nothing(reply, 500, "internal", &["a secret of the inside"]);
    }
    client
        .get("/api/v1/tasks")
        .bearer(&world.acme.viewer.access_token)
        .await
        .expect(200);
}

#[actix_web::test]
async fn no_connection_in_time_is_a_503_that_says_when_to_ask_again() {
    let pool = PoolConfig {
        size: 1,
        acquire_timeout: Duration::from_millis(50),
        ..Options::default().pool
    };
    let world = World::with(Options {
        pool,
        ..Options::default()
    })
    .await;
    let (held, release) = (Notify::new(), Notify::new());
    let cx = world.cx(&world.acme.admin).await;
    let before = world.digest(&world.acme).await;
    let holder = cx.read(async |_| {
        held.notify_one();
        release.notified().await;
        Ok::<_, StoreError>(())
    });
    let asker = async {
        held.notified().await;
        let read = world.get(&world.acme.viewer, "/api/v1/tasks").await;
        let write = new_project(&world, b"{\"name\":\"x\"}").await;
        let login = world
            .login("acme", &world.acme.admin.email, "correct horse")
            .await;
        let ready = world.client.get("/health/readiness").await;
        let alive = world.client.get("/health/liveness").await;
        release.notify_one();
        (read, write, login, ready, alive)
    };
    let (held, (read, write, login, ready, alive)) = join(holder, asker).await;
    held.unwrap();
    for reply in [read, write, login] {
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_says_nothing(reply, 503, "unavailable", &["connection", "database"]);
    }
    ready.expect(503);
    alive.expect(200);
    assert_eq!(world.digest(&world.acme).await, before);
    world.get(&world.acme.viewer, "/api/v1/tasks").await.expect(200);
}

#[actix_web::test]
async fn a_database_that_closes_its_connections_is_noticed_by_nobody_once_it_is_back() {
    let world = World::new().await;
    let requests = || (0..4).map(|_| world.get(&world.acme.viewer, "/api/v1/tasks").send());
    join_all(requests())
        .await
        .into_iter()
        .for_each(|reply| drop(reply.expect(200)));
    let mut admin = world.database.admin().await;
    let mut of_others = async |what: &str| -> i64 {
        let sql = format!(
            "SELECT count({what}) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        );
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(world.database.name());
        query.fetch_one(&mut admin).await.unwrap()
    };
    assert!(of_others("pg_terminate_backend(pid)").await > 0);
    while of_others("*").await > 0 {}
    join_all(requests())
        .await
        .into_iter()
        .for_each(|reply| drop(reply.expect(200)));
}

/// The application behind a socket, for what no client in this process can send.
async fn serve(world: &World) -> (SocketAddr, ServerHandle) {
    let app = world.instance(&Options::default()).app;
    let api = Api::new(app, HttpConfig::default(), Arc::clone(&world.readiness));
    let server = HttpServer::new(move || tenantry_http::app(api.clone()))
        .workers(1)
        .disable_signals();
    let server = server.bind(("127.0.0.1", 0)).unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (address, handle)
}

/// What comes back for these bytes: head and body.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that has heard enough may close before everything is said.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    (head.to_lowercase(), body.to_owned())
}

#[actix_web::test]
async fn on_the_wire_head_has_no_body_and_a_chunked_body_has_the_same_limit() {
    let world = World::new().await;
    let (address, handle) = serve(&world).await;
    let token = &world.acme.admin.access_token;
    let ask = |method: &str| {
        format!(
            "{method} /api/v1/tenant HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\n\r\n"
        )
    };
    let (get_head, get_body) = exchange(address, ask("GET").as_bytes()).await;
    let (head_head, head_body) = exchange(address, ask("HEAD").as_bytes()).await;
    assert!(
        get_head.starts_with("http/1.1 200") && head_head.starts_with("http/1.1 200"),
        "{get_head}\n{head_head}"
    );
    assert!(get_body.contains("\"slug\":\"acme\""), "{get_body}");
    assert_eq!(head_body, "");
    let length = |head: &str| {
        head.lines()
            .find(|line| line.starts_with("content-length"))
            .map(str::to_owned)
    };
    assert_eq!(length(&head_head), length(&get_head));
    assert_eq!(
        length(&get_head),
        Some(format!("content-length: {}", get_body.len()))
    );

    let before = world.digest(&world.acme).await;
    let chunked = |chunks: usize| {
        let chunk = " ".repeat(0x10000);
        let head = format!(
            "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
            Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
        let body = "{\"name\":\"In chunks\"}";
        let first = format!("{:x}\r\n{body}\r\n", body.len());
        format!(
            "{head}{first}{}0\r\n\r\n",
            format!("10000\r\n{chunk}\r\n").repeat(chunks)
        )
    };
    let (head, body) = exchange(address, chunked(17).as_bytes()).await;
    assert!(head.starts_with("http/1.1 413"), "{head}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(body.contains("payload_too_large"), "{body}");
    assert_eq!(world.digest(&world.acme).await, before);
    let (head, _) = exchange(address, chunked(3).as_bytes()).await;
    assert!(head.starts_with("http/1.1 201"), "{head}");
    handle.stop(false).await;
}

#[actix_web::test]
async fn on_the_wire_nonsense_is_refused_and_the_server_goes_on() {
    let world = World::new().await;
    let (address, handle) = serve(&world).await;
    let get =
        |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes();
    let requests = [
        b"\r\n\r\nnonsense\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        get("/a b c"),
        get("/\u{7f}"),
        get("/%"),
        get("/%00"),
        get("/..%2f..%2fetc/passwd"),
        get("/../../etc/passwd"),
        get("/docs/..%2f..%2fCargo.toml"),
        get("/\u{e9}"),
        get(&format!("/{}", "a".repeat(70_000))),
        get(&format!("/api/v1/tasks?q={}", "a".repeat(300_000))),
        get("http://other.example/api/v1/nope"),
        get("*"),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
            "a".repeat(300_000)
        )
        .into_bytes(),
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n".to_vec(),
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: nonsense\r\n\r\n".to_vec(),
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_vec(),
    ];
    for bytes in requests {
        let (head, body) = exchange(address, &bytes).await;
        let request = String::from_utf8_lossy(&bytes)
            .chars()
            .take(60)
            .collect::<String>();
        assert!(
            head.starts_with("http/1.1 4") || head.starts_with("http/1.0 4"),
            "{request:?}: {head}"
        );
        assert!(
            !body.contains("root:") && !body.contains("[workspace"),
            "{request:?}: {body}"
        );
        let (head, _) = exchange(address, &get("/health/liveness")).await;
        assert!(head.starts_with("http/1.1 200"), "after {request:?}: {head}");
    }
    handle.stop(false).await;
}
