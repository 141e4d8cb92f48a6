//! Which tenant a request is about.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tenantry_tests::{Person, Reply, Request, World};

const LOGIN: &str = "/api/v1/auth/login";
const TENANT: &str = "/api/v1/tenant";
const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12";

fn credentials(who: &Person) -> Value {
    json!({"email": who.email, "password": "correct horse"})
}

/// A login that names no tenant in its body.
fn login(world: &World, who: &Person) -> Request {
    world.client.post(LOGIN, &credentials(who))
}

/// A login with headers.
async fn login_with(world: &World, who: &Person, headers: &[(&str, &str)]) -> Reply {
    headers
        .iter()
        .fold(login(world, who), |request, (name, value)| {
            request.header(name, value)
        })
        .await
}

/// Makes the subdomains differ from the slugs, so that neither passes for the other.
async fn with_subdomains() -> World {
    let world = World::new().await;
    for tenant in [&world.acme, &world.globex] {
        let body = json!({"subdomain": format!("{}-shop", tenant.slug)});
        world.patch(&tenant.admin, TENANT, &body).await.expect(200);
    }
    world
}

#[actix_web::test]
async fn a_header_the_host_or_the_body_select_the_tenant_of_a_login() {
    let world = with_subdomains().await;
    for tenant in [&world.acme, &world.globex] {
        let id = tenant.id.to_string();
        let host = format!("{}-shop.example.test", tenant.slug);
        for (name, value, by) in [
            ("X-Tenant-ID", id.clone(), "header"),
            ("X-Tenant-ID", id.to_uppercase(), "header"),
            ("x-tenant-id", id, "header"),
            ("X-Tenant-Slug", tenant.slug.to_owned(), "header"),
            ("Host", format!("{host}:8080"), "subdomain"),
            ("Host", host.to_uppercase(), "subdomain"),
            ("Host", host, "subdomain"),
        ] {
            let reply = login_with(&world, &tenant.viewer, &[(name, &value)])
                .await
                .expect(200);
            assert_eq!(reply.json()["tenant"]["id"], json!(tenant.id), "{name}: {value}");
            assert_eq!(reply.header("tenant-resolved-by"), Some(by), "{name}: {value}");
        }
        let mut body = credentials(&tenant.viewer);
        body["tenant_slug"] = json!(tenant.slug);
        let reply = world.client.post(LOGIN, &body).await.expect(200);
        assert_eq!(reply.json()["tenant"]["id"], json!(tenant.id));
    }
    // A name for one purpose is none for another.
    let viewer = &world.acme.viewer;
    login_with(&world, viewer, &[("X-Tenant-Slug", "acme-shop")])
        .await
        .problem(404, "tenant_not_found");
    login_with(&world, viewer, &[("Host", "acme.example.test")])
        .await
        .problem(404, "tenant_not_found");
}

#[actix_web::test]
async fn of_several_names_the_first_in_order_selects() {
    let world = with_subdomains().await;
    let (acme, globex) = (world.acme.id.to_string(), world.globex.id.to_string());
    let (id, slug, host) = ("X-Tenant-ID", "X-Tenant-Slug", "Host");
    let acmes = [
        vec![
            (id, acme.as_str()),
            (slug, "globex"),
            (host, "globex-shop.example.test"),
        ],
        vec![(host, "globex-shop.example.test"), (slug, "nobody"), (id, &acme)],
        vec![(slug, "acme"), (host, "globex-shop.example.test")],
        vec![(slug, "acme"), (host, "nobody.example.test")],
        vec![(host, "acme-shop.example.test")],
    ];
    for headers in &acmes {
        let reply = login_with(&world, &world.acme.viewer, headers).await.expect(200);
        assert_eq!(reply.json()["tenant"]["slug"], "acme", "{headers:?}");
        login_with(&world, &world.globex.viewer, headers)
            .await
            .problem(401, "invalid_credentials");
    }
    // A first one that names nobody is not passed over.
    for headers in [
        vec![(id, NOBODY), (slug, "acme"), (host, "acme-shop.example.test")],
        vec![(id, "nonsense"), (slug, "acme")],
        vec![(slug, "nobody"), (host, "acme-shop.example.test")],
        vec![(slug, "No Body"), (host, "acme-shop.example.test")],
    ] {
        login_with(&world, &world.acme.viewer, &headers)
            .await
            .problem(404, "tenant_not_found");
    }
    let reply = login_with(&world, &world.globex.viewer, &[(slug, "acme"), (id, &globex)])
        .await
        .expect(200);
    assert_eq!(reply.json()["tenant"]["slug"], "globex");
}

#[actix_web::test]
async fn a_request_without_a_credential_has_to_name_a_tenant() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    login(&world, &world.acme.viewer)
        .await
        .problem(400, "tenant_required");
    let register = json!({"email": "g@example.com", "password": "battery staple", "full_name": "Grace"});
    let request = world.client.post("/api/v1/auth/register", &register);
    request.await.problem(400, "tenant_required");
    // That the address is known in one tenant only does not tell which is meant.
    let request = login(&world, &world.globex.admin).header("Host", "localhost:8080");
    request.await.problem(400, "tenant_required");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
}

#[actix_web::test]
async fn a_name_that_is_nobodys_and_one_that_cannot_be_are_the_same() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let mut seen = BTreeSet::new();
    let simple = world.acme.id.to_string().replace('-', "");
    for (name, value) in [
        ("X-Tenant-ID", NOBODY),
        ("X-Tenant-ID", "00000000-0000-0000-0000-000000000000"),
        ("X-Tenant-ID", "nonsense"),
        ("X-Tenant-ID", &simple),
        ("X-Tenant-ID", "' OR true --"),
        ("X-Tenant-ID", &world.acme.admin.id.to_string()),
        ("X-Tenant-Slug", "nobody"),
        ("X-Tenant-Slug", "ACME"),
        ("X-Tenant-Slug", "acme%"),
        ("X-Tenant-Slug", "a"),
        ("X-Tenant-Slug", "'; DROP TABLE tenants --"),
        ("Host", "nobody.example.test"),
        ("Host", "www.acme.example.test"),
        ("Host", "a_b.example.test"),
    ] {
        let reply = login_with(&world, &world.acme.viewer, &[(name, value)])
            .await
            .problem(404, "tenant_not_found");
        assert_eq!(reply.header("tenant-resolved-by"), None);
        seen.insert(reply.comparable());
    }
    for slug in ["nobody", "ACME", "", "a b"] {
        let mut body = credentials(&world.acme.viewer);
        body["tenant_slug"] = json!(slug);
        seen.insert(
            world
                .client
                .post(LOGIN, &body)
                .await
                .problem(404, "tenant_not_found")
                .comparable(),
        );
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
}

#[actix_web::test]
async fn a_deleted_tenant_is_gone_by_whatever_name() {
    let world = World::new().await;
    world.set_status(&world.acme, "deleted").await;
    let id = world.acme.id.to_string();
    for header in [
        ("X-Tenant-ID", id.as_str()),
        ("X-Tenant-Slug", "acme"),
        ("Host", "acme.example.test:8080"),
    ] {
        login_with(&world, &world.acme.viewer, &[header])
            .await
            .problem(410, "tenant_gone");
    }
    let mut body = credentials(&world.acme.viewer);
    body["tenant_slug"] = json!("acme");
    world.client.post(LOGIN, &body).await.problem(410, "tenant_gone");
    login_with(&world, &world.globex.viewer, &[("X-Tenant-Slug", "globex")])
        .await
        .expect(200);
}

#[actix_web::test]
async fn a_body_that_disagrees_with_header_or_host_is_refused() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let acme = world.acme.id.to_string();
    let headers = [
        ("X-Tenant-ID", acme.as_str()),
        ("X-Tenant-Slug", "acme"),
        ("Host", "acme.example.test"),
    ];
    for (name, value) in headers {
        for slug in ["globex", "nobody", "", "ACME"] {
            for who in [&world.acme.viewer, &world.globex.viewer] {
                let mut body = credentials(who);
                body["tenant_slug"] = json!(slug);
                let reply = world.client.post(LOGIN, &body).header(name, value).await;
                reply.problem(403, "tenant_mismatch");
            }
        }
    }
    let register = json!({
        "tenant_slug": "globex", "email": "g@example.com", "password": "battery staple", "full_name": "Grace",
    });
    let request = world
        .client
        .post("/api/v1/auth/register", &register)
        .header("X-Tenant-Slug", "acme");
    request.await.problem(403, "tenant_mismatch");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
    let mut body = credentials(&world.acme.viewer);
    body["tenant_slug"] = json!("acme");
    for (name, value) in headers {
        world
            .client
            .post(LOGIN, &body)
            .header(name, value)
            .await
            .expect(200);
    }
}

#[actix_web::test]
async fn with_a_credential_a_name_may_agree() {
    let world = with_subdomains().await;
    let before = world.audit(&world.acme).await.len();
    let (acme, upper) = (
        world.acme.id.to_string(),
        world.acme.id.to_string().to_uppercase(),
    );
    let cases = [
        vec![],
        vec![("X-Tenant-ID", acme.as_str())],
        vec![("X-Tenant-ID", &upper)],
        vec![("X-Tenant-Slug", "acme")],
        vec![("Host", "acme-shop.example.test:8080")],
        vec![("Host", "ACME-shop.Example.Test")],
        vec![
            ("X-Tenant-ID", &acme),
            ("X-Tenant-Slug", "acme"),
            ("Host", "acme-shop.example.test"),
        ],
        vec![("Host", "localhost:8080")],
    ];
    for headers in cases {
        let request = world.get(&world.acme.viewer, TENANT);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        let reply = request.await.expect(200);
        assert_eq!(reply.json()["id"], json!(world.acme.id), "{headers:?}");
        assert_eq!(
            reply.header("tenant-resolved-by"),
            Some("credential"),
            "{headers:?}"
        );
    }
    assert_eq!(world.audit(&world.acme).await.len(), before);
}

#[actix_web::test]
async fn with_a_credential_a_name_that_disagrees_is_refused_and_audited() {
    let world = with_subdomains().await;
    let globex = world.digest(&world.globex).await;
    let known = world.audit(&world.acme).await.len();
    let (own, theirs) = (world.acme.id.to_string(), world.globex.id.to_string());
    let cases = [
        vec![("X-Tenant-ID", theirs.as_str())],
        vec![("X-Tenant-ID", NOBODY)],
        vec![("X-Tenant-ID", "nonsense")],
        vec![("X-Tenant-ID", "")],
        vec![("X-Tenant-Slug", "globex")],
        vec![("X-Tenant-Slug", "nobody")],
        vec![("X-Tenant-Slug", "'; DROP TABLE tenants --")],
        vec![("Host", "globex-shop.example.test")],
        vec![("Host", "nobody.example.test")],
        vec![("Host", "www.acme-shop.example.test")],
        vec![("Host", "acme.example.test")],
        vec![("X-Tenant-ID", &own), ("X-Tenant-Slug", "globex")],
        vec![("X-Tenant-Slug", "acme"), ("Host", "globex-shop.example.test")],
        vec![
            ("X-Tenant-ID", &theirs),
            ("X-Tenant-Slug", "acme"),
            ("Host", "acme-shop.example.test"),
        ],
    ];
    let mut seen = BTreeSet::new();
    for (number, headers) in cases.iter().enumerate() {
        let request = world
            .get(&world.acme.viewer, TENANT)
            .header("X-Request-ID", format!("wrong-{number}"));
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        let reply = request.await.problem(403, "tenant_mismatch");
        // Whether somebody has the name is not told.
        seen.insert(reply.comparable());
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
    let entries = world.audit(&world.acme).await.split_off(known);
    assert_eq!(entries.len(), cases.len());
    for (number, ((action, row), headers)) in entries.iter().zip(&cases).enumerate() {
        assert_eq!(
            (action.as_str(), &row["category"]),
            ("tenant.mismatch", &json!("security"))
        );
        assert_eq!(
            (&row["actor_type"], &row["actor_id"]),
            (&json!("user"), &json!(world.acme.viewer.id))
        );
        assert_eq!(
            (&row["request_id"], &row["ip"]),
            (&json!(format!("wrong-{number}")), &json!("203.0.113.7"))
        );
        for (name, value) in headers {
            let (member, value) = match *name {
                "X-Tenant-ID" => ("tenant_id", *value),
                "X-Tenant-Slug" => ("tenant_slug", *value),
                _ => ("subdomain", value.strip_suffix(".example.test").unwrap()),
            };
            assert_eq!(row["after"][member], value, "{row}");
        }
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn a_write_under_a_name_that_disagrees_is_not_done_in_either_tenant() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let request = world.post(&world.acme.admin, "/api/v1/projects", &json!({"name": "Lost"}));
    request
        .header("X-Tenant-Slug", "globex")
        .await
        .problem(403, "tenant_mismatch");
    let path = format!("/api/v1/projects/{}", world.globex.project);
    for slug in ["globex", "acme"] {
        let request = world
            .delete(&world.acme.admin, &path)
            .header("X-Tenant-Slug", slug);
        assert_eq!(request.await.status, if slug == "globex" { 403 } else { 404 });
    }
    let projects = world
        .get(&world.acme.admin, "/api/v1/projects")
        .await
        .expect(200)
        .json();
    assert_eq!(projects["data"].as_array().unwrap().len(), 1);
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn a_mismatch_is_recorded_in_a_suspended_tenant_too() {
    let world = World::new().await;
    world.set_status(&world.acme, "suspended").await;
    let request = world
        .get(&world.acme.viewer, TENANT)
        .header("X-Tenant-Slug", "globex");
    request.await.problem(403, "tenant_mismatch");
    assert_eq!(world.audit(&world.acme).await.pop().unwrap().0, "tenant.mismatch");
}

#[actix_web::test]
async fn a_credential_that_is_no_good_is_told_so_whatever_tenant_is_named() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for slug in ["acme", "globex", "nobody"] {
        let request = world
            .client
            .get(TENANT)
            .bearer("nonsense")
            .header("X-Tenant-Slug", slug);
        request.await.problem(401, "unauthenticated");
        // A name is no credential.
        let request = world.client.get(TENANT).header("X-Tenant-Slug", slug);
        request.await.problem(401, "unauthenticated");
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
}

#[actix_web::test]
async fn hosts_of_the_product_and_of_others_name_nobody() {
    let world = World::new().await;
    let hosts = [
        "example.test",
        "example.test:8080",
        "www.example.test",
        "api.example.test:443",
        "app.example.test",
        "admin.example.test",
        "API.EXAMPLE.TEST",
        "acme.example.org",
        "acme.example.test.evil.example",
        "acmeexample.test",
        "acme",
        "localhost:8080",
        "127.0.0.1:8080",
        "[::1]:8080",
    ];
    for host in hosts {
        login_with(&world, &world.acme.viewer, &[("Host", host)])
            .await
            .problem(400, "tenant_required");
        let headers = [("Host", host), ("X-Tenant-Slug", "acme")];
        let reply = login_with(&world, &world.acme.viewer, &headers).await.expect(200);
        assert_eq!(reply.header("tenant-resolved-by"), Some("header"), "{host}");
        world
            .get(&world.acme.viewer, TENANT)
            .header("Host", host)
            .await
            .expect(200);
    }
    // What a client claims that somebody before us was asked for is not the host.
    for name in ["X-Forwarded-Host", "Forwarded", "X-Original-Host"] {
        let headers = [(name, "acme.example.test"), ("Host", "example.test")];
        login_with(&world, &world.acme.viewer, &headers)
            .await
            .problem(400, "tenant_required");
    }
}

#[actix_web::test]
async fn a_header_that_is_there_twice_names_nobody() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let (acme, globex) = (world.acme.id.to_string(), world.globex.id.to_string());
    for (name, first, second) in [
        ("X-Tenant-ID", acme.as_str(), globex.as_str()),
        ("X-Tenant-ID", &acme, &acme),
        ("X-Tenant-Slug", "acme", "globex"),
        ("X-Tenant-Slug", "acme", "acme"),
        ("Host", "acme.example.test", "globex.example.test"),
    ] {
        let twice = [(name, first), (name, second)];
        login_with(&world, &world.acme.viewer, &twice)
            .await
            .problem(400, "invalid_request");
        let request = world
            .get(&world.acme.viewer, TENANT)
            .header(name, first)
            .header(name, second);
        request.await.problem(400, "invalid_request");
    }
    let (own, theirs) = (&world.acme.viewer.access_token, &world.globex.viewer.access_token);
    world
        .client
        .get(TENANT)
        .bearer(own)
        .bearer(theirs)
        .await
        .problem(400, "invalid_request");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
}

#[actix_web::test]
async fn a_refresh_token_is_a_credential_of_its_tenant() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let token = &world.acme.viewer.refresh_token;
    let body = json!({"refresh_token": token});
    let refresh = || world.client.post("/api/v1/auth/refresh", &body);
    let known = world.audit(&world.acme).await.len();
    let theirs = world.globex.id.to_string();
    let wrong = [
        ("X-Tenant-ID", theirs.as_str()),
        ("X-Tenant-ID", "nonsense"),
        ("X-Tenant-Slug", "globex"),
        ("X-Tenant-Slug", "nobody"),
        ("Host", "globex.example.test"),
    ];
    for (name, value) in wrong {
        refresh()
            .header(name, value)
            .await
            .problem(403, "tenant_mismatch");
    }
    let entries = world.audit(&world.acme).await.split_off(known);
    assert_eq!(entries.len(), wrong.len());
    assert!(
        entries.iter().all(|(action, _)| action == "tenant.mismatch"),
        "{entries:?}"
    );
    assert_eq!(world.digest(&world.globex).await, globex);
    // It was not used up by that: the first use that succeeds is the first use.
    world.clock.advance(chrono::Duration::seconds(30));
    let reply = refresh()
        .header("Host", "acme.example.test")
        .header("X-Tenant-Slug", "acme")
        .await
        .expect(200);
    assert_eq!(reply.header("tenant-resolved-by"), Some("credential"));
    assert_eq!(reply.json()["tenant"]["slug"], "acme");
    assert_ne!(reply.json()["refresh_token"], json!(token));
}
