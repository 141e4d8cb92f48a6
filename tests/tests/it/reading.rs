//! How requests are read: the same strict reading everywhere, and everything that is wrong with a body at once.

use actix_web::http::Method;
use serde_json::{Value, json};
use tenantry_tests::{Reply, World};

use crate::features::define;

const OLGA: &str = "olga@platform.example";

/// What is wrong: `pointer code`.
fn errors(reply: &Reply) -> Vec<String> {
    let json = reply.json();
    let errors = json["errors"].as_array().unwrap_or_else(|| panic!("{json}"));
    let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
    errors
        .iter()
        .map(|error| format!("{} {}", text(error, "pointer"), text(error, "code")))
        .collect()
}

/// A request of an admin or an operator, whoever may.
async fn send(world: &World, operator: &str, method: &str, path: &str, body: &str) -> Reply {
    let token = if path.starts_with("/api/v1/admin/") {
        operator
    } else {
        &world.acme.admin.access_token
    };
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let request = world.client.request(method, path).bearer(token);
    let request = request.header("X-Tenant-Slug", "acme");
    request
        .header("Content-Type", "application/json")
        .body(body)
        .await
}

/// A path with something in its places.
fn fill(world: &World, template: &str) -> String {
    let id = world.acme.project.to_string();
    template
        .split('/')
        .map(|part| match part {
            "{n}" | "{a}" | "{b}" => "1",
            "{meter}" => "api_calls",
            "{name}" => "support",
            part if part.starts_with('{') => &id,
            part => part,
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[actix_web::test]
async fn every_body_with_a_duplicate_member_is_refused() {
    let world = World::new().await;
    let operator = world.operator(OLGA).await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let body = r#"{"strict": [{"a": 1, "a": 2}, 99999999999999999999, "\u0000"]}"#;
    let expected = [
        "/strict/0/a duplicate_field",
        "/strict/1 invalid_value",
        "/strict/2 invalid_text",
    ];
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if !operation["requestBody"]["content"]["application/json"].is_object() {
                continue;
            }
            tried += 1;
            let reply = send(&world, &operator, method, &fill(&world, path), body).await;
            if path.starts_with("/ofrep/") {
                let reply = reply.expect(400).json();
                assert_eq!(reply["errorCode"], "PARSE_ERROR", "{path}: {reply}");
                assert_eq!(reply["errorDetails"], "`/strict/0/a` is there more than once");
                continue;
            }
            assert_eq!(reply.status, 422, "{method} {path}: {}", reply.text());
            let found = errors(&reply);
            for error in expected {
                assert!(found.iter().any(|one| one == error), "{method} {path}: {found:?}");
            }
        }
    }
    assert!(tried > 30, "{tried}");
}

#[actix_web::test]
async fn u_0000_in_paths_and_queries_is_never_a_failure_inside() {
    let world = World::new().await;
    let operator = world.operator(OLGA).await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let (mut paths, mut parameters) = (0, 0);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if path.contains('{') {
                paths += 1;
                let nul = path
                    .split('/')
                    .map(|part| if part.starts_with('{') { "a%00b" } else { part });
                let nul = nul.collect::<Vec<_>>().join("/");
                let reply = send(&world, &operator, method, &nul, "{}").await;
                assert!(
                    matches!(reply.status, 403 | 404),
                    "{method} {nul}: {}",
                    reply.text()
                );
            }
            let query = operation["parameters"].as_array().into_iter().flatten();
            for parameter in query.filter(|parameter| parameter["in"] == "query") {
                parameters += 1;
                let target = fill(&world, path);
                let name = parameter["name"].as_str().unwrap();
                let reply = send(&world, &operator, method, &format!("{target}?{name}=a%00b"), "{}").await;
                assert!(reply.status < 500, "{method} {target} {name}: {}", reply.text());
                // The stream of events passes over what it cannot read.
                if !path.starts_with("/ofrep/") && reply.status == 422 && name != "limit" {
                    let found = errors(&reply);
                    assert!(
                        found[0].starts_with("/query/") || found[0].starts_with('/'),
                        "{found:?}"
                    );
                } else {
                    assert!(
                        path.starts_with("/ofrep/") || reply.status >= 400,
                        "{method} {target} {name}"
                    );
                }
            }
        }
    }
    assert!(paths > 40 && parameters > 30, "{paths} {parameters}");
    let request = world
        .client
        .request(Method::GET, "/api/v1/admin/tenants?plan=a%00b");
    let reply = request.bearer(&operator).await.problem(422, "validation_failed");
    assert_eq!(errors(&reply), ["/query/plan invalid_text"]);
}

#[actix_web::test]
async fn all_that_does_not_fit_in_a_flag_is_reported_at_once() {
    let world = World::new().await;
    let operator = world.operator(OLGA).await;
    let flag = json!({
        "key": "a", "type": "boolan", "variants": {"on": true, "off": false}, "default_variant": "on",
        "enabled": "yes", "colour": "red",
        "rules": [
            {"level": "planet", "serve": {"variant": "on"}},
            {"level": "plan", "from": "soon", "serve": {"variant": "on"}, "wehn": []},
        ],
    });
    let reply = send(
        &world,
        &operator,
        "post",
        "/api/v1/admin/flags",
        &flag.to_string(),
    )
    .await;
    assert_eq!(
        errors(&reply.problem(422, "validation_failed")),
        [
            "/colour unknown_field",
            "/enabled invalid_type",
            "/off_variant required",
            "/rules/0/level invalid_value",
            "/rules/1/from invalid_value",
            "/rules/1/wehn unknown_field",
            "/type invalid_value",
        ]
    );
}

#[actix_web::test]
async fn a_whole_fraction_is_an_integer() {
    let world = World::new().await;
    let settings = "/api/v1/tenant/settings";
    let body = r#"{"security.session_idle_minutes": 3e1}"#;
    let changed = send(&world, "", "patch", settings, body).await.expect(200).json();
    assert_eq!(changed["settings"]["security.session_idle_minutes"]["value"], 30);
    let rollback = format!("{settings}/rollback");
    send(&world, "", "post", &rollback, r#"{"version": 1.0}"#)
        .await
        .expect(200);
    let half = send(&world, "", "post", &rollback, r#"{"version": 1.5}"#).await;
    assert_eq!(errors(&half), ["/version invalid_type"]);
}

#[actix_web::test]
async fn flags_tell_integers_beyond_2_53_apart() {
    let world = World::new().await;
    let operator = world.operator(OLGA).await;
    let flag = |value: &str| {
        format!(
            r#"{{"key": "steam", "type": "boolean", "variants": {{"on": true, "off": false}}, "client_visible": true,
            "default_variant": "off", "off_variant": "off",
            "rules": [{{"level": "user", "when": [{{"attribute": "account", "operator": "in", "values": [{value}]}}],
                "serve": {{"variant": "on"}}}}]}}"#
        )
    };
    let id = "76561198000000001";
    send(&world, &operator, "post", "/api/v1/admin/flags", &flag(id))
        .await
        .expect(201);
    let value = async |account: &str| {
        let context = format!(r#"{{"context": {{"account": {account}}}}}"#);
        let reply = send(&world, "", "post", "/ofrep/v1/evaluate/flags/steam", &context).await;
        reply.expect(200).json()["value"].clone()
    };
    for (account, on) in [
        (id, true),
        ("76561198000000000", false),
        ("76561198000000002", false),
    ] {
        assert_eq!(value(account).await, on, "{account}");
    }
    let wide = send(
        &world,
        &operator,
        "put",
        "/api/v1/admin/flags/steam",
        &flag("18446744073709551616"),
    )
    .await;
    assert_eq!(errors(&wide), ["/rules/0/when/0/values/0 invalid_value"]);
}

#[actix_web::test]
async fn of_a_list_of_events_each_is_read_by_itself() {
    let world = World::new().await;
    let event = |key: &str, more: &str| {
        format!(r#"{{"idempotency_key": "{key}", "meter": "storage_bytes", "quantity": 1{more}}}"#)
    };
    let list = [
        event("a", r#", "quantity": 900"#),
        event("b", r#", "properties": {"a": {"b": 99999999999999999999}}"#),
        event("c", r#", "surprise": 1, "subject": 5"#),
        "[]".to_owned(),
    ];
    let reply = send(
        &world,
        "",
        "post",
        "/api/v1/usage/events",
        &format!("[{}]", list.join(",")),
    )
    .await;
    let failures = reply.expect(200).json()["failures"].clone();
    let failures = failures.as_array().unwrap();
    let codes: Vec<_> = failures.iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["validation_failed"; 4]);
    let alone = send(&world, "", "post", "/api/v1/usage/events", &list[2]).await;
    assert_eq!(
        errors(&alone),
        ["/subject invalid_type", "/surprise unknown_field"]
    );
    let twice = send(&world, "", "post", "/api/v1/usage/events", &list[0]).await;
    assert_eq!(errors(&twice), ["/quantity duplicate_field"]);
    let cloud = r#"{"specversion": "1.0", "id": "1", "source": "/a", "type": "storage_bytes", "data": {"quantity": 1, "quantity": 900}}"#;
    let request = world.client.request(Method::POST, "/api/v1/usage/events");
    let request = request.bearer(&world.acme.admin.access_token);
    let request = request.header("Content-Type", "application/cloudevents+json");
    assert_eq!(
        errors(&request.body(cloud).await),
        ["/data/quantity duplicate_field"]
    );
}

#[actix_web::test]
async fn a_refused_type_names_the_types_that_are_taken() {
    let world = World::new().await;
    let post = async |path: &str, name: &str, value: &str| {
        let request = world.client.request(Method::POST, path);
        let mut request = request.bearer(&world.acme.admin.access_token).header(name, value);
        if name != "Content-Type" {
            request = request.header("Content-Type", "application/json");
        }
        let reply = request.body("{}").await;
        reply.problem(415, "unsupported_media_type")
    };
    let project = post("/api/v1/projects", "Content-Type", "text/plain").await;
    assert_eq!(project.header("accept"), Some("application/json"));
    let types = "application/json, application/cloudevents+json, application/cloudevents-batch+json";
    let usage = post("/api/v1/usage/events", "Content-Type", "text/plain").await;
    assert_eq!(usage.header("accept"), Some(types));
    assert!(usage.json()["detail"].as_str().unwrap().contains(types));
    let packed = post("/api/v1/projects", "Content-Encoding", "gzip").await;
    assert_eq!(packed.header("accept-encoding"), Some("identity"));
}

#[actix_web::test]
async fn if_none_match_keeps_a_change_from_what_exists() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let project = format!("/api/v1/projects/{}", world.acme.project);
    let before = world.digest(&world.acme).await;
    for tags in ["*", "\"1\"", "W/\"1\", \"7\""] {
        let patch = world.patch(admin, &project, &json!({"name": "Other"}));
        patch
            .header("If-None-Match", tags)
            .await
            .problem(412, "stale_version");
        let delete = world.delete(admin, &project).header("If-None-Match", tags);
        delete.await.problem(412, "stale_version");
    }
    assert_eq!(world.digest(&world.acme).await, before);
    let patch = world.patch(admin, &project, &json!({"name": "Other"}));
    patch.header("If-None-Match", "\"7\"").await.expect(200);
    // What does not exist yet is made, once.
    define(&world, "theirs", json!({"tenant_overridable": true})).await;
    let choose = || {
        let put = world.put(
            admin,
            "/api/v1/features/theirs/override",
            &json!({"variant": "on"}),
        );
        put.header("If-None-Match", "*")
    };
    choose().await.expect(200);
    choose().await.problem(412, "stale_version");
}

#[actix_web::test]
async fn an_odd_key_at_ofrep_has_an_answer_in_its_shape() {
    let world = World::new().await;
    for key in ["k".repeat(65), "k".repeat(1_000), "a%00b".into(), "%20".into()] {
        let path = format!("/ofrep/v1/evaluate/flags/{key}");
        let reply = send(&world, "", "post", &path, "{}").await.expect(404);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.json()["errorCode"], "FLAG_NOT_FOUND");
    }
}
