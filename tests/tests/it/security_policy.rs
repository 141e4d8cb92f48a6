//! The security policy of a tenant: lists of networks, lifetimes of sessions, lengths of passwords.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::time::Duration as StdDuration;

use chrono::Duration;
use futures_util::future::join;
use serde_json::{Value, json};
use tenantry_http::HttpConfig;
use tenantry_tenancy::customization::setting;
use tenantry_tests::{Client, Options, PASSWORD, Person, Reply, World, operator_cx};

const POLICY: &str = "/api/v1/security/policy";
const ME: &str = "/api/v1/auth/me";
const PROJECTS: &str = "/api/v1/projects";
const LOGIN: &str = "/api/v1/auth/login";
/// The address of all requests without a proxy.
const OURS: &str = "203.0.113.7";

async fn change(world: &World, rules: Value) -> Reply {
    world.patch(&world.acme.admin, POLICY, &rules).await
}

/// A world whose requests come by a trusted proxy.
async fn proxied() -> World {
    let options = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..options.http
    };
    World::with(Options { http, ..options }).await
}

async fn from(client: &Client, token: &str, path: &str, address: &str) -> Reply {
    let request = client.get(path).bearer(token);
    request.header("X-Forwarded-For", address).await
}

async fn change_from(world: &World, address: &str, rules: Value) -> Reply {
    let request = world.patch(&world.acme.admin, POLICY, &rules);
    request.header("X-Forwarded-For", address).await
}

fn refused(reply: Reply) {
    let problem = reply.problem(403, "forbidden").json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("does not allow requests from your address"),
        "{detail}"
    );
}

fn login(client: &Client, who: &Person) -> tenantry_tests::Request {
    let slug = who.email.split(['@', '.']).nth(1).unwrap();
    let body = json!({"tenant_slug": slug, "email": who.email, "password": PASSWORD});
    client.post(LOGIN, &body)
}

#[actix_web::test]
async fn lists_apply_to_sessions_keys_and_logins_at_once() {
    let world = proxied().await;
    let (admin, viewer) = (&world.acme.admin, &world.acme.viewer);
    let body = json!({"name": "Reports", "scopes": ["projects.read"]});
    let made = world.post(admin, "/api/v1/api-keys", &body).await;
    let key = made.expect(201).json()["key"].as_str().unwrap().to_owned();
    from(&world.client, &viewer.access_token, PROJECTS, "192.0.2.1")
        .await
        .expect(200);
    let rules = json!({
        "allowed_networks": ["10.0.0.0/8", "2001:db8::/32", "::ffff:198.51.100.0/120"], "denied_networks": ["10.9.0.0/16"],
    });
    let changed = change_from(&world, "10.1.1.1", rules).await.expect(200).json();
    assert_eq!(
        changed["allowed_networks"],
        json!(["10.0.0.0/8", "2001:db8::/32", "198.51.100.0/24"])
    );
    assert_eq!(changed["your_address"], "10.1.1.1");
    for token in [&viewer.access_token, &key] {
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7", "198.51.100.9"] {
            from(&world.client, token, PROJECTS, address).await.expect(200);
        }
        for address in ["192.0.2.1", "10.9.0.1", "::ffff:10.9.0.1", "2001:db9::1", "::1"] {
            refused(from(&world.client, token, PROJECTS, address).await);
        }
    }
    // What begins a session, too; a visitor still sees the branding.
    let outside = |request: tenantry_tests::Request| request.header("X-Forwarded-For", "192.0.2.1");
    refused(outside(login(&world.client, viewer)).await);
    let body = json!({"refresh_token": viewer.refresh_token});
    refused(outside(world.client.post("/api/v1/auth/refresh", &body)).await);
    let visit = world
        .client
        .get("/api/v1/branding")
        .header("X-Tenant-Slug", "acme");
    outside(visit).await.expect(200);
    // The other tenant has no lists.
    from(
        &world.client,
        &world.globex.viewer.access_token,
        PROJECTS,
        "192.0.2.1",
    )
    .await
    .expect(200);
    outside(login(&world.client, &world.globex.viewer))
        .await
        .expect(200);
    let entries = world.audit(&world.acme).await;
    let entry = entries.iter().find(|(action, _)| action == "network.refused");
    assert!(entry.is_some(), "{entries:?}");
    // Another server learns of it within a second.
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..Options::default().http
    };
    let options = Options {
        http,
        ..Options::default()
    };
    let elsewhere = world.other_instance(&options).await;
    change_from(&world, "10.1.1.1", json!({"denied_networks": ["10.8.0.0/16"]}))
        .await
        .expect(200);
    world.outlive_the_cache();
    refused(from(&elsewhere, &viewer.access_token, PROJECTS, "10.8.0.1").await);
    from(&elsewhere, &viewer.access_token, PROJECTS, "10.9.0.1")
        .await
        .expect(200);
}

/// Without a trusted proxy the header is a claim of the caller.
#[actix_web::test]
async fn claimed_address_does_not_count_without_a_trusted_proxy() {
    let world = World::new().await;
    change(&world, json!({"denied_networks": ["10.0.0.0/8"]}))
        .await
        .expect(200);
    let viewer = &world.acme.viewer.access_token;
    from(&world.client, viewer, ME, "10.1.1.1").await.expect(200);
    change(&world, json!({"allowed_networks": ["203.0.113.0/24"]}))
        .await
        .expect(200);
    let sql = "UPDATE tenant_settings SET values = '{\"security.allowed_networks\": [\"10.0.0.0/8\"]}'";
    world.sql(sql).await;
    world.clock.advance(Duration::seconds(61));
    refused(from(&world.client, viewer, ME, "10.1.1.1").await);
}

/// A list that is stored and cannot be read any more is no empty list, which would let everybody in.
#[actix_web::test]
async fn list_that_cannot_be_read_opens_nothing() {
    let world = World::new().await;
    let viewer = &world.acme.viewer.access_token;
    let store = async |values: &str| {
        world
            .sql(&format!("UPDATE tenant_settings SET values = '{values}'"))
            .await;
        world.clock.advance(Duration::seconds(61));
    };
    change(&world, json!({"denied_networks": ["10.0.0.0/8"]}))
        .await
        .expect(200);
    for list in [
        r#"["10.0.0.0/8", 7]"#,
        r#"["10.0.0.0/8", "x"]"#,
        r#""10.0.0.0/8""#,
    ] {
        for key in ["denied", "allowed"] {
            store(&format!(r#"{{"security.{key}_networks": {list}}}"#)).await;
            let reply = world.client.get(ME).bearer(viewer).await;
            refused(reply);
        }
        store("{}").await;
        let reply = world.client.get(ME).bearer(viewer).await;
        reply.expect(200);
        store(&format!(r#"{{"security.allowed_email_domains": {list}}}"#)).await;
        let user = json!({"email": "new@acme.example", "full_name": "New", "role": "member"});
        let reply = world.post(&world.acme.admin, "/api/v1/users", &user).await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["code"], "domain_not_allowed");
    }
}

#[actix_web::test]
async fn admin_cannot_lock_themselves_out() {
    let world = World::new().await;
    for (rules, pointer) in [
        (json!({"allowed_networks": ["10.0.0.0/8"]}), "/allowed_networks"),
        (json!({"denied_networks": ["203.0.113.0/24"]}), "/denied_networks"),
        (
            json!({"allowed_networks": [OURS], "denied_networks": ["::ffff:203.0.113.7"]}),
            "/denied_networks",
        ),
    ] {
        let reply = change(&world, rules)
            .await
            .problem(422, "validation_failed")
            .json();
        assert_eq!(reply["errors"][0]["pointer"], pointer);
        assert_eq!(reply["errors"][0]["code"], "locks_out");
        let detail = reply["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(OURS), "{detail}");
    }
    let settings = json!({"security.allowed_networks": ["10.0.0.0/8"]});
    let by_settings = world.patch(&world.acme.admin, "/api/v1/tenant/settings", &settings);
    by_settings.await.problem(422, "validation_failed");
    world.get(&world.acme.admin, ME).await.expect(200);
    // Nor by going back to a version, which another address had set.
    let key = "security.allowed_networks";
    let far = Some(json!(["10.0.0.0/8"]));
    setting::operate(&operator_cx(&world.app), world.acme.id, key, far)
        .await
        .unwrap();
    world.clock.advance(Duration::seconds(61));
    refused(world.get(&world.acme.admin, ME).await);
    // The way out for operators: `tenantry settings set acme security.allowed_networks null`.
    setting::operate(&operator_cx(&world.app), world.acme.id, key, None)
        .await
        .unwrap();
    world.get(&world.acme.admin, ME).await.expect(200);
    let back = world.post(
        &world.acme.admin,
        "/api/v1/tenant/settings/rollback",
        &json!({"version": 1}),
    );
    let reply = back.await.problem(422, "validation_failed").json();
    assert_eq!(reply["errors"][0]["code"], "locks_out");
    // What holds already keeps nobody from changing other rules.
    change(&world, json!({"session_max_days": 7})).await.expect(200);
}

#[actix_web::test]
async fn policy_is_read_and_changed_by_admins_only() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let read = world.get(admin, POLICY).await.expect(200);
    let tag = read.header("etag").unwrap().to_owned();
    let policy = read.json();
    assert_eq!(policy["your_address"], OURS);
    for (rule, value) in [
        ("password_min_length", json!(12)),
        ("first_password_days", json!(7)),
        ("session_idle_minutes", json!(60)),
        ("session_max_days", json!(365)),
        ("sessions_per_user", json!(20)),
        ("mfa_required", json!("off")),
        ("links_keep_factors", json!(false)),
        ("session_end_step_up", json!(false)),
        ("require_verified_email", json!(false)),
        ("allow_tenant_switch", json!(true)),
        ("allowed_email_domains", json!([])),
        ("allowed_networks", json!([])),
        ("denied_networks", json!([])),
    ] {
        assert_eq!(policy[rule], value, "{rule}");
    }
    for who in [&world.acme.member, &world.acme.viewer] {
        world.get(who, POLICY).await.problem(403, "forbidden");
        let patch = world.patch(who, POLICY, &json!({"session_max_days": 7}));
        patch.await.problem(403, "forbidden");
    }
    let many: Vec<_> = (0..101).map(|n| format!("10.0.0.{n}")).collect();
    for (rules, pointer) in [
        (json!({"allowed_networks": ["10.0.0.1/8"]}), "/allowed_networks/0"),
        (
            json!({"allowed_networks": [OURS, "10.0.0.0/33"]}),
            "/allowed_networks/1",
        ),
        (json!({"denied_networks": ["a\u{0}b"]}), "/denied_networks/0"),
        (json!({"denied_networks": [5]}), "/denied_networks/0"),
        (json!({"denied_networks": "10.0.0.0/8"}), "/denied_networks"),
        (json!({ "denied_networks": many }), "/denied_networks"),
        (json!({"session_max_days": 0}), "/session_max_days"),
        (json!({"password_min_length": 11}), "/password_min_length"),
        (json!({"no_such_rule": true}), "/no_such_rule"),
    ] {
        let reply = change(&world, rules.clone()).await;
        assert_eq!(reply.json()["status"], 422, "{rules}");
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{rules}");
    }
    let request = world.patch(admin, POLICY, &json!({"session_max_days": 7}));
    request.header("If-Match", &tag).await.expect(200);
    let request = world.patch(admin, POLICY, &json!({"session_max_days": 8}));
    request
        .header("If-Match", &tag)
        .await
        .problem(412, "stale_version");
    let again = change(&world, json!({"session_max_days": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(again["session_max_days"], 365);
    assert_eq!(
        world.get(&world.globex.admin, POLICY).await.expect(200).json()["version"],
        0
    );
}

#[actix_web::test]
async fn session_ends_at_the_tenants_maximum() {
    let world = World::new().await;
    change(
        &world,
        json!({"session_idle_minutes": 43_200, "session_max_days": 2}),
    )
    .await
    .expect(200);
    let refresh = async |who: &Person| {
        let body = json!({"refresh_token": who.refresh_token});
        world.client.post("/api/v1/auth/refresh", &body).await
    };
    world.clock.advance(Duration::days(2) + Duration::hours(1));
    let ended = refresh(&world.acme.member).await.problem(401, "token_revoked");
    let detail = ended.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("at most 2 days"), "{detail}");
}

#[actix_web::test]
async fn chosen_passwords_have_the_tenants_length() {
    let world = World::new().await;
    change(&world, json!({"password_min_length": 20}))
        .await
        .expect(200);
    let user = |email: &str, password: &str| json!({"email": email, "full_name": "New User", "role": "viewer", "password": password});
    let create = async |who: &Person, email: &str, password: &str| {
        world.post(who, "/api/v1/users", &user(email, password)).await
    };
    let short = create(&world.acme.admin, "new@acme.example", "umbrella-kettle7").await;
    let short = short.problem(422, "validation_failed").json();
    assert_eq!(short["errors"][0]["pointer"], "/password");
    assert_eq!(short["errors"][0]["code"], "weak_password");
    create(&world.acme.admin, "new@acme.example", "umbrella-kettle7-harbor")
        .await
        .expect(201);
    create(&world.globex.admin, "new@globex.example", "umbrella-kettle7")
        .await
        .expect(201);
    let body = json!({"current_password": PASSWORD, "new_password": "umbrella-kettle7"});
    let changed = world.post(&world.acme.member, "/api/v1/auth/change-password", &body);
    let changed = changed.await.problem(422, "validation_failed").json();
    assert_eq!(changed["errors"][0]["pointer"], "/new_password");
    // The password that a user has stays good.
    login(&world.client, &world.acme.viewer).await.expect(200);
}

#[actix_web::test]
async fn open_event_stream_ends_when_its_address_is_denied() {
    let options = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        event_stream_lifetime: StdDuration::from_secs(600),
        ..options.http
    };
    let world = World::with(Options { http, ..options }).await;
    let viewer = &world.acme.viewer.access_token;
    // What a stream needs is cached, so that it is open before the lists change.
    let flags = world.post(&world.acme.viewer, "/ofrep/v1/evaluate/flags", &json!({}));
    flags.await.expect(200);
    let stream = from(&world.client, viewer, "/ofrep/v1/events", "192.0.2.1");
    let denied = async {
        for _ in 0..5 {
            from(&world.client, viewer, ME, "192.0.2.1").await.expect(200);
        }
        change_from(&world, "10.1.1.1", json!({"denied_networks": ["192.0.2.0/24"]}))
            .await
            .expect(200);
    };
    let both = tokio::time::timeout(StdDuration::from_secs(60), join(stream, denied));
    let (stream, ()) = both.await.unwrap();
    stream.expect(200);
    refused(from(&world.client, viewer, "/ofrep/v1/events", "192.0.2.1").await);
}
