//! What goes around a request: ids, caches, browsers, probes, the description of the API, and the logs.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use actix_web::http::Method;
use serde_json::{Value, json};
use tenantry_http::HttpConfig;
use tenantry_tests::{Options, Reply, Request, World};
use tracing_subscriber::fmt::MakeWriter;

const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";

/// One answer of each kind: what it is, and the answer.
async fn answers(world: &World) -> Vec<(&'static str, Reply)> {
    let (acme, client) = (&world.acme, &world.client);
    let task = format!("/api/v1/tasks/{}", acme.task);
    let tasks = format!("/api/v1/projects/{}/tasks", acme.project);
    let unknown = format!("/api/v1/tasks/{NOBODY}");
    let made = world
        .post(&acme.member, &tasks, &json!({"title": "Made"}))
        .await
        .expect(201);
    let path = made.header("location").unwrap().to_owned();
    let project = json!({"name": "Acme Inc project"});
    let cross = client
        .get("/api/v1/tasks")
        .bearer(&acme.viewer.access_token)
        .header("X-Tenant-Slug", "globex");
    let text = client
        .request(Method::POST, "/api/v1/projects")
        .bearer(&acme.member.access_token)
        .body("x");
    let broken = client
        .request(Method::POST, "/api/v1/projects")
        .bearer(&acme.member.access_token);
    let broken = broken.header("Content-Type", "application/json").body("{");
    vec![
        ("200", world.get(&acme.viewer, &task).await.expect(200)),
        (
            "200 of a list",
            world.get(&acme.viewer, "/api/v1/tasks").await.expect(200),
        ),
        ("201", made),
        (
            "304",
            world
                .get(&acme.viewer, &task)
                .header("If-None-Match", "\"1\"")
                .await
                .expect(304),
        ),
        ("204", world.delete(&acme.member, &path).await.expect(204)),
        ("400", broken.await.expect(400)),
        ("401", client.get("/api/v1/tasks").await.expect(401)),
        (
            "401 of a login",
            world
                .login("acme", &acme.admin.email, "wrong horse")
                .await
                .expect(401),
        ),
        ("403", world.delete(&acme.viewer, &task).await.expect(403)),
        ("403 of two tenants", cross.await.expect(403)),
        ("404", world.get(&acme.viewer, &unknown).await.expect(404)),
        ("404 of no route", client.get("/nope").await.expect(404)),
        ("405", client.delete("/api/v1/tasks").await.expect(405)),
        (
            "409",
            world
                .post(&acme.member, "/api/v1/projects", &project)
                .await
                .expect(409),
        ),
        (
            "412",
            world
                .delete(&acme.member, &task)
                .header("If-Match", "\"9\"")
                .await
                .expect(412),
        ),
        ("415", text.await.expect(415)),
        (
            "422",
            world
                .post(&acme.member, &tasks, &json!({"title": ""}))
                .await
                .expect(422),
        ),
        (
            "a login",
            world
                .login("acme", &acme.admin.email, "correct horse")
                .await
                .expect(200),
        ),
        ("health", client.get("/health").await.expect(200)),
        ("keys", client.get("/.well-known/jwks.json").await.expect(200)),
        ("the document", client.get("/openapi.json").await.expect(200)),
        (
            "a page on a problem",
            client.get("/problems/not_found").await.expect(200),
        ),
        ("the documentation", client.get("/docs/").await.expect(200)),
    ]
}

#[actix_web::test]
async fn a_sane_request_id_is_taken_over_and_comes_back_in_header_and_problem() {
    let world = World::new().await;
    let longest = "a".repeat(128);
    for id in [
        "a",
        "req-1",
        "A.b_c:d-9",
        "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11",
        &longest,
    ] {
        let fine = world
            .get(&world.acme.viewer, "/api/v1/tasks")
            .header("X-Request-ID", id)
            .await;
        assert_eq!(fine.expect(200).header("x-request-id"), Some(id));
        let refused = world
            .client
            .get("/nope")
            .header("X-Request-ID", id)
            .await
            .problem(404, "not_found");
        assert_eq!(refused.header("x-request-id"), Some(id));
        assert_eq!(refused.json()["request_id"], id);
    }
    // It is what the audit log knows the request by.
    let body = json!({"name": "Traced"});
    let made = world
        .post(&world.acme.member, "/api/v1/projects", &body)
        .header("X-Request-ID", "trace-me");
    made.await.expect(201);
    assert_eq!(
        world.audit(&world.acme).await.last().unwrap().1["request_id"],
        "trace-me"
    );
}

#[actix_web::test]
async fn a_request_id_that_is_not_sane_is_replaced() {
    let world = World::new().await;
    let mut given_out = BTreeSet::new();
    let long = "a".repeat(129);
    for id in [
        "",
        " ",
        "a b",
        "a\tb",
        "a,b",
        "<script>",
        "id=1",
        "é",
        "\"quoted\"",
        "a/b",
        &long,
    ] {
        let reply = world
            .client
            .get("/nope")
            .header("X-Request-ID", id)
            .await
            .problem(404, "not_found");
        let given = reply.header("x-request-id").unwrap().to_owned();
        assert_ne!(given, id);
        assert!(uuid::Uuid::parse_str(&given).is_ok(), "{given}");
        assert_eq!(reply.json()["request_id"], given);
        assert_eq!(
            reply
                .headers
                .iter()
                .filter(|(name, _)| name == "x-request-id")
                .count(),
            1
        );
        given_out.insert(given);
    }
    let twice = world
        .client
        .get("/health")
        .header("X-Request-ID", "one")
        .header("X-Request-ID", "other");
    given_out.insert(twice.await.header("x-request-id").unwrap().to_owned());
    given_out.insert(
        world
            .client
            .get("/health")
            .await
            .header("x-request-id")
            .unwrap()
            .to_owned(),
    );
    assert_eq!(given_out.len(), 13);
}

#[actix_web::test]
async fn every_answer_has_the_headers_that_keep_browsers_from_doing_harm() {
    let world = World::new().await;
    for (kind, reply) in answers(&world).await {
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{kind}");
        assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{kind}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{kind}");
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'"), "{kind}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{kind}: {policy}");
        assert!(reply.header("x-request-id").is_some(), "{kind}");
        assert_eq!(reply.header("strict-transport-security"), None, "{kind}");
        for telling in ["server", "x-powered-by"] {
            assert_eq!(reply.header(telling), None, "{kind}");
        }
        let mut names: Vec<_> = reply.headers.iter().map(|(name, _)| name).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{kind} has a header twice: {:?}", reply.headers);
    }
}

#[actix_web::test]
async fn browsers_are_told_to_insist_on_https_where_the_operator_says_so() {
    let http = HttpConfig {
        hsts: true,
        ..HttpConfig::default()
    };
    let world = World::with(Options {
        http,
        ..Options::default()
    })
    .await;
    for (kind, reply) in answers(&world).await {
        let policy = reply.header("strict-transport-security").unwrap_or_default();
        assert!(policy.starts_with("max-age="), "{kind}: {policy}");
    }
}

#[actix_web::test]
async fn what_may_be_kept_by_whom_is_said_with_every_answer() {
    let world = World::new().await;
    for (kind, reply) in answers(&world).await {
        let expected = match kind {
            "200" | "304" => "private, no-cache",
            "keys" => "public, max-age=300",
            "the document" => "public, no-cache",
            "a page on a problem" | "the documentation" => "public, max-age=3600",
            _ => "no-store",
        };
        assert_eq!(reply.header("cache-control"), Some(expected), "{kind}");
        // An answer that is kept is kept for one credential.
        let vary = reply.header("vary").unwrap_or_default().to_lowercase();
        assert_eq!(
            vary.contains("authorization"),
            expected.starts_with("private"),
            "{kind}: {vary}"
        );
    }
}

#[actix_web::test]
async fn answers_say_by_what_the_tenant_was_found() {
    let world = World::new().await;
    let tasks = world.get(&world.acme.viewer, "/api/v1/tasks").await.expect(200);
    assert_eq!(tasks.header("tenant-resolved-by"), Some("credential"));
    let login = json!({"email": world.acme.admin.email, "password": "correct horse"});
    let request = || world.client.post("/api/v1/auth/login", &login);
    let by_header = request().header("X-Tenant-Slug", "acme").await.expect(200);
    assert_eq!(by_header.header("tenant-resolved-by"), Some("header"));
    let by_host = request().header("Host", "acme.example.test").await.expect(200);
    assert_eq!(by_host.header("tenant-resolved-by"), Some("subdomain"));
    let by_body = world
        .login("acme", &world.acme.admin.email, "correct horse")
        .await;
    assert_eq!(by_body.expect(200).header("tenant-resolved-by"), Some("body"));
    for path in ["/health", "/openapi.json", "/nope"] {
        assert_eq!(
            world.client.get(path).await.header("tenant-resolved-by"),
            None,
            "{path}"
        );
    }
}

#[actix_web::test]
async fn what_the_caller_has_already_is_not_sent_again() {
    let world = World::new().await;
    let acme = &world.acme;
    let cases = [
        ("/api/v1/tenant".to_owned(), json!({"name": "Another"})),
        (
            format!("/api/v1/users/{}", acme.viewer.id),
            json!({"full_name": "Another"}),
        ),
        (
            format!("/api/v1/projects/{}", acme.project),
            json!({"name": "Another"}),
        ),
        (
            format!("/api/v1/tasks/{}", acme.task),
            json!({"title": "Another"}),
        ),
        (
            format!("/api/v1/resources/{}", acme.resource),
            json!({"name": "Another"}),
        ),
    ];
    for (path, patch) in cases {
        let get = |tags: &str| {
            world
                .get(&acme.viewer, &path)
                .header("If-None-Match", tags)
                .send()
        };
        let first = world.get(&acme.viewer, &path).await.expect(200);
        let tag = first.header("etag").unwrap().to_owned();
        assert_eq!(tag, format!("\"{}\"", first.json()["version"]), "{path}");
        let list = format!("\"77\", {tag}");
        for tags in [tag.as_str(), &format!("W/{tag}"), "*", &list] {
            let unchanged = get(tags).await.expect(304);
            assert!(unchanged.bytes.is_empty(), "{path}: {}", unchanged.text());
            assert_eq!(unchanged.header("etag"), Some(tag.as_str()), "{path}");
            assert_eq!(unchanged.header("content-type"), None, "{path}");
        }
        for tags in ["\"77\"", "", "nonsense", tag.trim_matches('"')] {
            assert_eq!(
                get(tags).await.expect(200).header("etag"),
                Some(tag.as_str()),
                "{path} {tags}"
            );
        }
        world.patch(&acme.admin, &path, &patch).await.expect(200);
        let changed = get(&tag).await.expect(200);
        assert_ne!(changed.header("etag"), Some(tag.as_str()), "{path}");
        assert_eq!(get(changed.header("etag").unwrap()).await.status, 304, "{path}");
    }
    // A tag opens nothing that is closed.
    let foreign = format!("/api/v1/tasks/{}", world.globex.task);
    world
        .get(&acme.viewer, &foreign)
        .header("If-None-Match", "*")
        .await
        .problem(404, "not_found");
    let nobody = world.client.get("/api/v1/tenant").header("If-None-Match", "*");
    nobody.await.problem(401, "unauthenticated");
}

const APP: &str = "https://app.example.com";

async fn with_origins(origins: &[&str]) -> World {
    let cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let http = HttpConfig {
        cors_origins,
        ..HttpConfig::default()
    };
    World::with(Options {
        http,
        ..Options::default()
    })
    .await
}

fn preflight(world: &World, origin: &str) -> Request {
    let request = world
        .client
        .request(Method::OPTIONS, "/api/v1/projects")
        .header("Origin", origin);
    let request = request.header("Access-Control-Request-Method", "POST");
    request.header(
        "Access-Control-Request-Headers",
        "authorization,content-type,if-match,x-request-id",
    )
}

#[actix_web::test]
async fn a_browser_at_a_known_origin_may_call() {
    let world = with_origins(&[APP, "https://other.example.com"]).await;
    let allowed = preflight(&world, APP).await;
    assert!(
        matches!(allowed.status, 200 | 204),
        "{} {}",
        allowed.status,
        allowed.text()
    );
    assert_eq!(allowed.header("access-control-allow-origin"), Some(APP));
    let methods = allowed.header("access-control-allow-methods").unwrap();
    for method in ["GET", "POST", "PATCH", "DELETE"] {
        assert!(methods.contains(method), "{methods}");
    }
    for method in ["TRACE", "CONNECT"] {
        assert!(!methods.contains(method), "{methods}");
    }
    let headers = allowed
        .header("access-control-allow-headers")
        .unwrap()
        .to_lowercase();
    for header in ["authorization", "content-type", "if-match"] {
        assert!(headers.contains(header), "{headers}");
    }
    assert_eq!(allowed.header("x-content-type-options"), Some("nosniff"));
    assert!(allowed.header("x-request-id").is_some());

    let viewer = &world.acme.viewer;
    let get = |path: &str| world.get(viewer, path).header("Origin", APP).send();
    let replies = [
        get("/api/v1/tasks").await.expect(200),
        get(&format!("/api/v1/tasks/{NOBODY}"))
            .await
            .problem(404, "not_found"),
        get("/api/v1/tasks?limit=0")
            .await
            .problem(422, "validation_failed"),
        get("/nope").await.problem(404, "not_found"),
        world
            .client
            .get("/api/v1/tasks")
            .header("Origin", APP)
            .await
            .problem(401, "unauthenticated"),
        world
            .client
            .delete("/api/v1/tasks")
            .header("Origin", APP)
            .await
            .problem(405, "method_not_allowed"),
        world
            .delete(viewer, "/api/v1/auth/me")
            .header("Origin", APP)
            .await
            .problem(405, "method_not_allowed"),
    ];
    for reply in replies {
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some(APP),
            "{}",
            reply.text()
        );
        let exposed = reply
            .header("access-control-expose-headers")
            .unwrap_or_default()
            .to_lowercase();
        for header in ["etag", "link", "location", "x-request-id", "retry-after"] {
            assert!(exposed.contains(header), "{exposed}");
        }
        let vary = reply.header("vary").unwrap_or_default().to_lowercase();
        assert!(vary.contains("origin"), "{vary}");
        // Credentials are in a header and never in a cookie.
        assert_eq!(reply.header("access-control-allow-credentials"), None);
    }
    let task = format!("/api/v1/tasks/{}", world.acme.task);
    let kept = get(&task).await.expect(200);
    let vary: Vec<_> = kept
        .headers
        .iter()
        .filter(|(name, _)| name == "vary")
        .map(|(_, v)| v.to_lowercase())
        .collect();
    let vary = vary.join(", ");
    assert!(
        vary.contains("authorization") && vary.contains("origin"),
        "{vary}"
    );
}

#[actix_web::test]
async fn a_browser_at_an_unknown_origin_may_not() {
    let world = with_origins(&[APP]).await;
    for origin in [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com.evil.example",
        "null",
    ] {
        let refused = preflight(&world, origin).await;
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
        assert!(
            (400..500).contains(&refused.status),
            "{origin}: {}",
            refused.status
        );
        let code = refused.json()["code"].as_str().unwrap().to_owned();
        refused.clone().problem(refused.status, &code);
        let actual = world
            .get(&world.acme.viewer, "/api/v1/tasks")
            .header("Origin", origin)
            .await;
        assert_eq!(actual.header("access-control-allow-origin"), None, "{origin}");
    }
    // Whoever is no browser has no origin and is let through.
    world.get(&world.acme.viewer, "/api/v1/tasks").await.expect(200);
}

#[actix_web::test]
async fn an_asterisk_lets_every_origin_in() {
    let world = with_origins(&["*"]).await;
    for origin in [APP, "https://evil.example"] {
        assert_eq!(
            preflight(&world, origin)
                .await
                .header("access-control-allow-origin"),
            Some("*")
        );
        let actual = world
            .get(&world.acme.viewer, "/api/v1/tasks")
            .header("Origin", origin)
            .await;
        assert_eq!(
            actual.expect(200).header("access-control-allow-origin"),
            Some("*")
        );
    }
}

#[actix_web::test]
async fn no_browser_elsewhere_may_call_unless_the_operator_says_so() {
    let world = World::new().await;
    let refused = preflight(&world, APP).await.expect(204);
    let actual = world
        .get(&world.acme.viewer, "/api/v1/tasks")
        .header("Origin", APP)
        .await
        .expect(200);
    for reply in [refused, actual] {
        let cors = reply
            .headers
            .iter()
            .find(|(name, _)| name.starts_with("access-control-"));
        assert_eq!(cors, None);
    }
}

#[actix_web::test]
async fn probes_are_answered_without_a_tenant_or_a_credential() {
    let world = World::new().await;
    for path in ["/health", "/health/liveness", "/health/readiness"] {
        let plain = world.client.get(path).await.expect(200);
        assert_eq!(plain.json()["status"], "ok", "{path}");
        // Whatever a balancer sends along.
        let odd = world
            .client
            .get(path)
            .header("Host", "nobody.example.test")
            .header("X-Tenant-ID", "nonsense");
        let odd = odd.bearer("garbage").await.expect(200);
        assert_eq!(odd.json(), plain.json(), "{path}");
    }
    assert_eq!(
        world.client.get("/health").await.json()["checks"],
        json!({"database": "ok"})
    );
}

#[actix_web::test]
async fn a_service_that_drains_is_alive_and_not_ready() {
    let world = World::new().await;
    world.readiness.drain();
    for path in ["/health", "/health/readiness"] {
        let reply = world.client.get(path).await.expect(503);
        assert_eq!(reply.json()["status"], "draining", "{path}");
        assert!(reply.header("retry-after").is_some(), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
    world.client.get("/health/liveness").await.expect(200);
    // What is under way, or comes meanwhile, is still served.
    world.get(&world.acme.viewer, "/api/v1/tasks").await.expect(200);
}

#[actix_web::test]
async fn a_service_without_its_database_is_alive_and_not_ready() {
    let world = World::new().await;
    world.pool.close();
    for path in ["/health", "/health/readiness"] {
        let reply = world.client.get(path).await.expect(503);
        assert_eq!(
            reply.json(),
            json!({"status": "unavailable", "checks": {"database": "unavailable"}}),
            "{path}"
        );
        assert!(reply.header("retry-after").is_some(), "{path}");
    }
    world.client.get("/health/liveness").await.expect(200);
    let reply = world
        .get(&world.acme.viewer, "/api/v1/tasks")
        .await
        .problem(503, "unavailable");
    assert!(reply.header("retry-after").is_some());
    for path in ["/openapi.json", "/.well-known/jwks.json", "/problems/unavailable"] {
        world.client.get(path).await.expect(200);
    }
}

/// Every value under `$ref` in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match value.as_str() {
                    Some(target) if name == "$ref" => drop(found.insert(target.to_owned())),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(target) => document.pointer(target.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

#[actix_web::test]
async fn the_description_of_the_api_is_complete() {
    let world = World::new().await;
    let reply = world.client.get("/openapi.json").await.expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let document = reply.json();
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        document["openapi"]
    );
    assert_eq!(
        document["security"],
        Value::Null,
        "every operation speaks for itself"
    );
    for text in ["/info/title", "/info/version", "/info/description"] {
        assert!(
            document
                .pointer(text)
                .unwrap()
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{text}"
        );
    }
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let public = [
        "sign_up",
        "get_challenge",
        "login",
        "login_operator",
        "verify_operator_mfa",
        "enroll_required_operator_mfa",
        "confirm_required_operator_mfa",
        "register",
        "refresh",
        "accept_invitation",
        "verify_mfa",
        "enroll_required_mfa",
        "confirm_required_mfa",
        "begin_passkey_login",
        "finish_passkey_login",
        "forgot_password",
        "discover_workspaces",
        "reset_password",
        "verify_email",
        "resend_verification",
        "confirm_email",
        "revert_email",
        "get_branding",
        "get_branding_theme",
        "preview_branding",
        "preview_branding_page",
        // Its signature is in the query.
        "follow_export_link",
        // Their token is in the query.
        "show_unsubscribe_link",
        "unsubscribe",
        // Its signature is in a header of its own.
        "receive_stripe_event",
    ];
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"]
                .as_str()
                .unwrap_or_else(|| panic!("{method} {path} has no name"));
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert!(
                operation["summary"].is_string() && operation["tags"][0].is_string(),
                "{name}"
            );
            let system = operation["tags"][0] == "System";
            let security = operation["security"].as_array();
            assert_eq!(
                security.is_none_or(Vec::is_empty),
                system || public.contains(&name),
                "{name}: {security:?}"
            );
            for scheme in security
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .flat_map(|one| one.keys())
            {
                assert!(schemes.contains_key(scheme), "{name}: {scheme}");
            }
            let responses = operation["responses"].as_object().unwrap();
            let succeeds = responses.keys().any(|status| status.starts_with('2'));
            assert!(succeeds, "{name} never succeeds");
            let mut expected = Vec::new();
            if security.is_some_and(|schemes| !schemes.is_empty()) {
                expected.extend(["401", "500", "503"]);
            }
            if operation["security"][0].get("bearer").is_some() {
                expected.extend(["403", "410"]);
            }
            if operation["requestBody"].is_object() {
                expected.extend(["400", "413", "415", "422"]);
            }
            if path.contains("{id}") {
                expected.push("404");
            }
            for status in expected {
                assert!(responses.contains_key(status), "{name} says nothing of {status}");
            }
            for (status, response) in responses {
                let response = resolve(&document, response);
                assert!(
                    response["description"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty()),
                    "{name} {status}"
                );
                // What is not well says how, and is no problem of the request.
                let health = system || name == "health_detailed";
                if status.starts_with('4') || status.starts_with('5') && !health {
                    assert!(
                        response["content"]["application/problem+json"].is_object(),
                        "{name} {status}"
                    );
                }
            }
            let in_path: BTreeSet<_> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let described = parameters.iter().map(|parameter| resolve(&document, parameter));
            let described = described.filter(|parameter| parameter["in"] == "path");
            let described: BTreeSet<_> = described
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(described, in_path, "{name}");
        }
    }
    assert!(names.len() >= 40, "{names:?}");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for target in found {
        let pointer = target
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{target} leads elsewhere"));
        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
    }
}

/// Asserts that a value is what a schema says, as far as types, names and choices go.
fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(document, schema);
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let errors: Vec<_> = choices
                .iter()
                .map(|schema| conforms(document, schema, value, at))
                .collect();
            return if errors.iter().any(Result::is_ok) {
                Ok(())
            } else {
                Err(format!("{at}: {errors:?}"))
            };
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // Each part knows its own names only; together they have to know all.
        let mut whole = json!({"type": "object", "properties": {}, "required": []});
        for part in parts.iter().map(|part| resolve(document, part)) {
            for (name, schema) in part["properties"].as_object().into_iter().flatten() {
                whole["properties"][name] = schema.clone();
            }
            let required = part["required"].as_array().cloned().unwrap_or_default();
            whole["required"].as_array_mut().unwrap().extend(required);
        }
        return conforms(document, &whole, value, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    if !types.contains(&kind) {
        return Err(format!("{at} is {kind} and not {types:?}"));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        return Err(format!("{at} is none of {choices:?}: {value}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        conforms(document, &schema["items"], item, &format!("{at}/{index}"))?;
    }
    let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
        return Ok(());
    };
    for (name, value) in object {
        let schema = properties
            .get(name)
            .ok_or_else(|| format!("{at}/{name} is not described"))?;
        conforms(document, schema, value, &format!("{at}/{name}"))?;
    }
    let required = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let missing: Vec<_> = required.filter(|name| !object.contains_key(*name)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("{at} lacks {missing:?}"))
    }
}

#[actix_web::test]
async fn answers_are_what_the_description_says() {
    let world = World::new().await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let (acme, admin) = (&world.acme, &world.acme.admin);
    let check = |method: &str, template: &str, reply: &Reply| {
        let responses = &document["paths"][template][method]["responses"];
        let response = resolve(&document, &responses[reply.status.to_string()]);
        assert!(
            response.is_object(),
            "{method} {template} says nothing of {}",
            reply.status
        );
        let content_type = reply.header("content-type").unwrap();
        let schema = &response["content"][content_type]["schema"];
        assert!(
            schema.is_object(),
            "{method} {template} {} {content_type}",
            reply.status
        );
        let conforms = conforms(&document, schema, &reply.json(), "");
        assert_eq!(conforms, Ok(()), "{method} {template}: {}", reply.text());
    };
    let project = acme.project.to_string();
    let (task, resource, user) = (
        acme.task.to_string(),
        acme.resource.to_string(),
        acme.viewer.id.to_string(),
    );
    let reads = [
        ("/api/v1/auth/me", ""),
        ("/api/v1/tenant", ""),
        ("/api/v1/permissions", ""),
        ("/api/v1/api-keys", ""),
        ("/api/v1/roles", ""),
        ("/api/v1/tenant/domains", ""),
        ("/api/v1/webhooks/endpoints", ""),
        ("/api/v1/users", ""),
        ("/api/v1/users/{id}", &user),
        ("/api/v1/projects", ""),
        ("/api/v1/projects/{id}", &project),
        ("/api/v1/projects/{id}/members", &project),
        ("/api/v1/projects/{id}/tasks", &project),
        ("/api/v1/tasks", ""),
        ("/api/v1/tasks/{id}", &task),
        ("/api/v1/resources", ""),
        ("/api/v1/resources/{id}", &resource),
        ("/api/v1/resources/{id}/versions", &resource),
        ("/api/v1/resources/{id}/versions/{n}", &resource),
    ];
    for (template, id) in reads {
        let path = template.replace("{id}", id).replace("{n}", "1");
        check("get", template, &world.get(admin, &path).await.expect(200));
        check("get", template, &world.client.get(&path).await.expect(401));
    }
    let anew =
        |name: &str| json!({"name": name, "slug": name, "admin": {"email": "a@b.example", "full_name": "A"}});
    let writes = [
        ("/api/v1/tenants", "", anew("founded"), 201),
        ("/api/v1/tenants", "", anew("founded"), 409),
        ("/api/v1/tenants", "", json!({"name": ""}), 422),
        (
            "/api/v1/auth/login",
            "",
            json!({"tenant_slug": "acme", "email": admin.email, "password": "correct horse"}),
            200,
        ),
        (
            "/api/v1/auth/login",
            "",
            json!({"tenant_slug": "acme", "email": admin.email, "password": "wrong horse"}),
            401,
        ),
        (
            "/api/v1/auth/login",
            "",
            json!({"email": admin.email, "password": "correct horse"}),
            400,
        ),
        (
            "/api/v1/auth/refresh",
            "",
            json!({"refresh_token": acme.viewer.refresh_token}),
            200,
        ),
        (
            "/api/v1/users",
            "",
            json!({"email": "new@acme.example", "full_name": "New"}),
            201,
        ),
        (
            "/api/v1/users",
            "",
            json!({"email": "new@acme.example", "full_name": "New"}),
            409,
        ),
        (
            "/api/v1/api-keys",
            "",
            json!({"name": "New", "scopes": ["tasks.read"]}),
            201,
        ),
        (
            "/api/v1/webhooks/endpoints",
            "",
            json!({"url": "https://hooks.example.com/in", "headers": {"X-Team": "a"}}),
            201,
        ),
        ("/api/v1/webhooks/portal", "", json!({"expires_in": 60}), 200),
        ("/api/v1/projects", "", json!({"name": "New"}), 201),
        (
            "/api/v1/projects/{id}/members",
            &project,
            json!({"user_id": user}),
            201,
        ),
        (
            "/api/v1/projects/{id}/tasks",
            &project,
            json!({"title": "New", "due_at": "2030-01-01T00:00:00Z"}),
            201,
        ),
        (
            "/api/v1/projects/{id}/tasks",
            NOBODY,
            json!({"title": "New"}),
            404,
        ),
        ("/api/v1/projects/{id}/restore", &project, json!({}), 409),
        (
            "/api/v1/resources",
            "",
            json!({"name": "New", "url": "https://example.com"}),
            201,
        ),
    ];
    for (template, id, body, status) in writes {
        let reply = world
            .post(admin, &template.replace("{id}", id), &body)
            .await
            .expect(status);
        check("post", template, &reply);
    }
    for path in ["/health", "/health/liveness", "/health/readiness"] {
        check("get", path, &world.client.get(path).await.expect(200));
    }
    world.readiness.drain();
    check("get", "/health", &world.client.get("/health").await.expect(503));
}

#[actix_web::test]
async fn the_documentation_is_served_from_here_and_nowhere_else() {
    let world = World::new().await;
    let moved = world.client.get("/docs").await;
    assert!((300..400).contains(&moved.status), "{}", moved.status);
    assert_eq!(moved.header("location"), Some("/docs/"));
    let page = world.client.get("/docs/").await.expect(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let policy = page.header("content-security-policy").unwrap();
    let scripts = policy
        .split(';')
        .find(|rule| rule.trim().starts_with("script-src"))
        .unwrap();
    assert_eq!(scripts.trim(), "script-src 'self'");
    assert!(
        !page.text().contains("http://") && !page.text().contains("https://"),
        "{}",
        page.text()
    );
    let text = page.text();
    let files: Vec<_> = text
        .split('"')
        .filter(|part| part.ends_with(".js") || part.ends_with(".css"))
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let asset = world
            .client
            .get(&format!("/docs/{}", file.trim_start_matches("./")))
            .await
            .expect(200);
        let kind = asset.header("content-type").unwrap();
        assert!(
            kind.contains("javascript") || kind.contains("css"),
            "{file}: {kind}"
        );
        assert!(!asset.bytes.is_empty(), "{file}");
    }
    let start = world.client.get("/docs/swagger-initializer.js").await.expect(200);
    assert!(start.text().contains("/openapi.json"), "{}", start.text());
    for unknown in ["/docs/nope", "/docs/..%2fCargo.toml", "/docs/%00"] {
        world.client.get(unknown).await.problem(404, "not_found");
    }
}

/// What was logged, line by line.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Collects what this thread logs from now on, at every level, until the guard is dropped.
    pub fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(self.clone())
            .finish();
        tenantry_tests::listen(subscriber)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of the access log, by request id.
    fn access(&self, request_id: &str) -> Value {
        let lines: Vec<Value> = self
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let own = |line: &&Value| line["span"]["request_id"] == request_id && line["message"] == "request";
        let found: Vec<_> = lines.iter().filter(own).collect();
        assert_eq!(found.len(), 1, "{request_id}: {found:?}");
        found[0].clone()
    }
}

#[actix_web::test]
async fn each_request_leaves_one_line_that_says_whose_it_was_and_how_it_went() {
    let world = World::new().await;
    let log = Log::default();
    let guard = log.collect();
    let (acme, viewer) = (&world.acme, &world.acme.viewer);
    let task = format!("/api/v1/tasks/{}", acme.task);
    world
        .get(viewer, &task)
        .header("X-Request-ID", "seen")
        .await
        .expect(200);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let foreign = format!("/api/v1/tasks/{}", world.globex.task);
    let foreign = world.get(viewer, &foreign).header("X-Request-ID", "foreign");
    foreign
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .await
        .expect(404);
    world
        .client
        .get("/api/v1/tasks")
        .header("X-Request-ID", "nobody")
        .await
        .expect(401);
    world
        .client
        .get("/nope")
        .header("X-Request-ID", "nowhere")
        .await
        .expect(404);
    let login = json!({"tenant_slug": "acme", "email": viewer.email, "password": "correct horse"});
    world
        .client
        .post("/api/v1/auth/login", &login)
        .header("X-Request-ID", "login")
        .await
        .expect(200);
    drop(guard);

    let (tenant, user) = (json!(acme.id), json!(viewer.id));
    let line = log.access("seen");
    assert_eq!((&line["status"], &line["level"]), (&json!(200), &json!("INFO")));
    assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    let span = &line["span"];
    assert_eq!((&span["tenant_id"], &span["user_id"]), (&tenant, &user));
    assert_eq!(
        (&span["method"], &span["route"]),
        (&json!("GET"), &json!("/api/v1/tasks/{id}"))
    );
    let line = log.access("foreign");
    assert_eq!(
        (&line["status"], &line["code"]),
        (&json!(404), &json!("not_found"))
    );
    assert_eq!(
        (&line["span"]["tenant_id"], &line["span"]["trace_id"]),
        (&tenant, &json!(trace))
    );
    let line = log.access("nobody");
    assert_eq!(
        (&line["status"], &line["code"]),
        (&json!(401), &json!("unauthenticated"))
    );
    assert_eq!(
        (&line["span"]["tenant_id"], &line["span"]["user_id"]),
        (&Value::Null, &Value::Null)
    );
    let line = log.access("nowhere");
    assert_eq!(
        (&line["status"], &line["span"]["route"]),
        (&json!(404), &Value::Null)
    );
    let line = log.access("login");
    assert_eq!(
        (&line["status"], &line["span"]["tenant_id"]),
        (&json!(200), &tenant)
    );
    assert_eq!(line["span"]["route"], "/api/v1/auth/login");
}

#[actix_web::test]
async fn no_line_of_the_log_has_a_password_a_token_or_an_address_in_it() {
    let world = World::new().await;
    let log = Log::default();
    let guard = log.collect();
    let (acme, client) = (&world.acme, &world.client);
    let post = |path: &str, body: Value| client.post(path, &body).send();
    let body = json!({"tenant_slug": "acme", "email": acme.admin.email, "password": "correct horse"});
    let login = post("/api/v1/auth/login", body).await.expect(200).json();
    let wrong =
        json!({"tenant_slug": "acme", "email": "typed-password@acme.example", "password": "hunter2-wrong"});
    post("/api/v1/auth/login", wrong).await.expect(401);
    let refresh = login["refresh_token"].as_str().unwrap();
    let refreshed = post("/api/v1/auth/refresh", json!({"refresh_token": refresh}))
        .await
        .expect(200)
        .json();
    let register = json!({"tenant_slug": "acme", "email": "self@new.example", "full_name": "Self Registered",
        "password": "hunter2-register"});
    let registered = post("/api/v1/auth/register", register.clone())
        .await
        .expect(201)
        .json();
    post("/api/v1/auth/register", register).await.expect(409);
    let admin =
        json!({"email": "founder@new.example", "full_name": "Founder", "password": "hunter2-signed-up"});
    let found = json!({"name": "New", "slug": "new-one", "admin": admin});
    let founded = post("/api/v1/tenants", found.clone()).await.expect(201).json();
    post("/api/v1/tenants", found).await.expect(409);
    let user = json!({"email": "added@new.example", "full_name": "Added", "password": "short"});
    world.post(&acme.admin, "/api/v1/users", &user).await.expect(422);
    let user = json!({"email": "added@new.example", "full_name": "Added"});
    let added = world
        .post(&acme.admin, "/api/v1/users", &user)
        .await
        .expect(201)
        .json();
    world.post(&acme.admin, "/api/v1/users", &user).await.expect(409);
    world
        .get(&acme.admin, "/api/v1/tasks?q=looked-for%40new.example")
        .await
        .expect(200);
    client
        .get("/api/v1/tasks")
        .bearer("a-token-of-somebodys")
        .await
        .expect(401);
    let task = json!({"title": "confidential title", "description": "confidential text"});
    let tasks = format!("/api/v1/projects/{}/tasks", acme.project);
    world.post(&acme.admin, &tasks, &task).await.expect(201);
    // A failure inside is logged with its cause, which has none of it either.
    let mut database = world.database.admin().await;
    sqlx::raw_sql("ALTER TABLE users RENAME TO lost")
        .execute(&mut database)
        .await
        .unwrap();
    let body = json!({"tenant_slug": "acme", "email": acme.admin.email, "password": "correct horse"});
    post("/api/v1/auth/login", body).await.expect(500);
    drop(guard);

    let text = log.text();
    assert!(text.lines().count() > 30, "{text}");
    assert!(text.contains("the request failed"), "{text}");
    let secrets = [
        "correct horse",
        "hunter2",
        "@acme.example",
        "@new.example",
        "a-token-of-somebodys",
        "only-for-tests",
        "confidential",
        "$argon2",
        "looked-for",
    ];
    let tokens = [
        &login["access_token"],
        &login["refresh_token"],
        &refreshed["access_token"],
        &refreshed["refresh_token"],
        &registered["access_token"],
        &registered["refresh_token"],
        &founded["credentials"]["access_token"],
        &founded["credentials"]["refresh_token"],
        &added["password"],
    ];
    let tokens = tokens.map(|token| token.as_str().unwrap());
    let of_world = [acme.admin.access_token.as_str(), &acme.admin.refresh_token];
    for secret in secrets.into_iter().chain(tokens).chain(of_world) {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was logged");
    }
}
