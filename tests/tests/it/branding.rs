//! How a tenant looks, to its people and to whoever is about to log in.

use actix_web::http::Method;
use serde_json::{Value, json};
use tenantry_tests::{Reply, World};

const BRANDING: &str = "/api/v1/branding";

async fn patch(world: &World, body: Value) -> Reply {
    world.patch(&world.acme.admin, BRANDING, &body).await
}

async fn seen(world: &World, path: &str, slug: &str) -> Reply {
    world.client.get(path).header("X-Tenant-Slug", slug).await
}

#[actix_web::test]
async fn everybody_sees_the_branding_of_the_tenant_that_is_named() {
    let world = World::new().await;
    let look = json!({"display_name": " Acme! ", "primary_color": "#0AF", "support_email": "Help@acme.example",
        "logo_url": "https://CDN.acme.example/logo.svg"});
    patch(&world, look).await.expect(200);
    let by_slug = seen(&world, BRANDING, "acme").await.expect(200);
    let view = by_slug.json();
    assert_eq!(view["display_name"], "Acme!");
    assert_eq!(
        (&view["primary_color"], &view["accent_color"]),
        (&json!("#00aaff"), &json!("#0f766e"))
    );
    assert_eq!(view["logo_url"], "https://cdn.acme.example/logo.svg");
    assert_eq!(
        (&view["support_email"], &view["version"]),
        (&json!("help@acme.example"), &json!(1))
    );
    assert_eq!(
        view["contrast"]["primary_color"],
        json!({"white": 2.56, "black": 8.19, "text": "#000000"})
    );
    let by_id = world
        .client
        .get(BRANDING)
        .header("X-Tenant-ID", world.acme.id.to_string())
        .await;
    let by_host = world
        .client
        .get(BRANDING)
        .header("Host", "acme.example.test")
        .await;
    let by_credential = world.get(&world.acme.viewer, BRANDING).await;
    for (reply, by) in [
        (&by_slug, "header"),
        (&by_id, "header"),
        (&by_host, "subdomain"),
        (&by_credential, "credential"),
    ] {
        assert_eq!(
            (reply.json(), reply.header("tenant-resolved-by")),
            (view.clone(), Some(by))
        );
    }
    assert_eq!(
        seen(&world, BRANDING, "globex").await.expect(200).json()["display_name"],
        "Globex Corp"
    );

    world.client.get(BRANDING).await.problem(400, "tenant_required");
    seen(&world, BRANDING, "nobody")
        .await
        .problem(404, "tenant_not_found");
    let other = world
        .get(&world.acme.viewer, BRANDING)
        .header("X-Tenant-Slug", "globex");
    other.await.problem(403, "tenant_mismatch");
    world
        .client
        .get(BRANDING)
        .bearer("nonsense")
        .header("X-Tenant-Slug", "acme")
        .await
        .problem(401, "unauthenticated");
    world.set_status(&world.acme, "suspended").await;
    seen(&world, BRANDING, "acme").await.expect(200);
    world.set_status(&world.acme, "deleted").await;
    seen(&world, BRANDING, "acme").await.problem(410, "tenant_gone");
}

#[actix_web::test]
async fn it_can_be_kept_by_caches_until_it_changes() {
    let world = World::new().await;
    for path in [BRANDING, "/api/v1/branding/theme.css"] {
        let first = seen(&world, path, "acme").await.expect(200);
        assert_eq!(first.header("cache-control"), Some("public, max-age=60"));
        assert_eq!(
            first.header("vary"),
            Some("Authorization, Host, X-Tenant-ID, X-Tenant-Slug")
        );
        let tag = first.header("etag").unwrap().to_owned();
        let ask = || {
            world
                .client
                .get(path)
                .header("X-Tenant-Slug", "acme")
                .header("If-None-Match", &tag)
                .send()
        };
        let same = ask().await.expect(304);
        assert!(same.bytes.is_empty() && same.header("cache-control") == Some("public, max-age=60"));
        let foreign = world
            .client
            .get(path)
            .header("X-Tenant-Slug", "globex")
            .header("If-None-Match", &tag);
        let foreign = foreign.await;
        assert!(
            path != BRANDING || foreign.status == 200,
            "another tenant's tag is not this one's"
        );
        patch(&world, json!({"primary_color": format!("#0000{}", path.len())}))
            .await
            .expect(200);
        ask().await.expect(200);
    }
    // The name is the tenant's until the branding says another.
    let tag = seen(&world, BRANDING, "acme")
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    world
        .patch(&world.acme.admin, "/api/v1/tenant", &json!({"name": "Renamed"}))
        .await
        .expect(200);
    let renamed = world
        .client
        .get(BRANDING)
        .header("X-Tenant-Slug", "acme")
        .header("If-None-Match", &tag)
        .await;
    assert_eq!(renamed.expect(200).json()["display_name"], "Renamed");
}

#[actix_web::test]
async fn put_replaces_patch_changes_and_both_need_the_version_that_was_seen() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let put = |body: Value| {
        world
            .client
            .request(Method::PUT, BRANDING)
            .bearer(&admin.access_token)
            .json(&body)
    };
    let first = put(json!({"display_name": "A", "accent_color": "#111111"}))
        .await
        .expect(200);
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.json()["version"], 1);
    let changed = patch(&world, json!({"primary_color": "#222222"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&changed["display_name"], &changed["version"]),
        (&json!("A"), &json!(2))
    );
    put(json!({}))
        .header("If-Match", &tag)
        .await
        .problem(412, "stale_version");
    let replaced = put(json!({"primary_color": "#333"})).await.expect(200).json();
    assert_eq!(
        (&replaced["display_name"], &replaced["accent_color"]),
        (&json!("Acme Inc"), &json!("#0f766e"))
    );
    let same = patch(&world, json!({"primary_color": "#333333"}))
        .await
        .expect(200)
        .json();
    assert_eq!(same["version"], 3, "a change that changes nothing is none");
    for person in [&world.acme.member, &world.acme.viewer] {
        world
            .patch(person, BRANDING, &json!({}))
            .await
            .problem(403, "forbidden");
    }
    world
        .client
        .patch(BRANDING, &json!({}))
        .header("X-Tenant-Slug", "acme")
        .await
        .problem(401, "unauthenticated");
    let audited = world.audit(&world.acme).await;
    let entries: Vec<_> = audited
        .iter()
        .filter(|(action, _)| action == "branding.updated")
        .collect();
    assert_eq!(entries.len(), 3);
    assert_eq!(
        (
            &entries[1].1["before"]["primary_color"],
            &entries[1].1["after"]["primary_color"]
        ),
        (&json!("#1d4ed8"), &json!("#222222"))
    );
    assert_eq!(entries[1].1["actor_id"], json!(admin.id));
}

#[actix_web::test]
async fn what_does_not_hold_is_named_and_nothing_of_it_is_stored() {
    let world = World::new().await;
    let before = world.digest(&world.acme).await;
    for (body, pointer, code) in [
        (json!({"display_name": " "}), "/display_name", "invalid_text"),
        (
            json!({"display_name": "x".repeat(81)}),
            "/display_name",
            "invalid_text",
        ),
        (
            json!({"primary_color": "blue"}),
            "/primary_color",
            "invalid_colour",
        ),
        (json!({"accent_color": "#12"}), "/accent_color", "invalid_colour"),
        (
            json!({"logo_url": "http://cdn.acme.example/"}),
            "/logo_url",
            "invalid_url",
        ),
        (
            json!({"logo_url": "https://169.254.169.254/latest"}),
            "/logo_url",
            "internal_address",
        ),
        (
            json!({"favicon_url": "https://[::ffff:10.0.0.1]/"}),
            "/favicon_url",
            "internal_address",
        ),
        (
            json!({"favicon_url": "https://metadata.google.internal/"}),
            "/favicon_url",
            "internal_address",
        ),
        (
            json!({"support_email": "nobody"}),
            "/support_email",
            "invalid_email",
        ),
        (
            json!({"custom_css": "a".repeat(70_000)}),
            "/custom_css",
            "too_long",
        ),
        (json!({"custom_css": 7}), "/custom_css", "invalid_type"),
    ] {
        let problem = patch(&world, body.clone())
            .await
            .problem(422, "validation_failed")
            .json();
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
            (&json!(pointer), &json!(code)),
            "{body}"
        );
    }
    patch(&world, json!({"logo": "x"}))
        .await
        .problem(422, "unknown_field");
    patch(&world, json!({"custom_css": "a".repeat(1 << 20)}))
        .await
        .problem(413, "payload_too_large");
    assert_eq!(world.digest(&world.acme).await, before);
    let low = patch(
        &world,
        json!({"primary_color": "#ffff00", "accent_color": "#000000"}),
    )
    .await
    .expect(200)
    .json();
    assert_eq!(low["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&low["warnings"][0]["pointer"], &low["warnings"][0]["code"]),
        (&json!("/primary_color"), &json!("low_contrast"))
    );
}

#[actix_web::test]
async fn the_style_sheet_has_the_variables_and_what_is_harmless_of_the_css() {
    let world = World::new().await;
    let css = "@import 'https://evil.example';\n.button { border-radius: 8px; position: fixed }\nbody { display: none }\n\
        .hero { background: url(https://cdn.acme.example/hero.png) }\n.spy { background: url(https://evil.example/) }";
    let look = json!({"logo_url": "https://cdn.acme.example/logo.svg", "primary_color": "#ffee00", "custom_css": css});
    let changed = patch(&world, look).await.expect(200).json();
    let reasons: Vec<_> = changed["css_removed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["line"].as_u64().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        reasons,
        [(1, "at_rule"), (2, "property"), (3, "selector"), (5, "url")]
    );
    let theme = seen(&world, "/api/v1/branding/theme.css", "acme")
        .await
        .expect(200);
    assert_eq!(theme.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(theme.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(
        theme.text(),
        ".tenant-brand {\n  contain: paint;\n  --brand-primary: #ffee00;\n  --brand-on-primary: #000000;\n  \
        --brand-accent: #0f766e;\n  --brand-on-accent: #ffffff;\n}\n.tenant-brand .button {\n  border-radius: 8px;\n}\n\
        .tenant-brand .hero {\n  background: url(\"https://cdn.acme.example/hero.png\");\n}\n"
    );
    // The hosts of pictures are those of logo and favicon, also when these change later.
    let moved = patch(&world, json!({"logo_url": null})).await.expect(200).json();
    assert_eq!(moved["css_removed"][0]["reason"], "url");
    assert!(
        !seen(&world, "/api/v1/branding/theme.css", "acme")
            .await
            .text()
            .contains("url(")
    );
}

#[actix_web::test]
async fn the_preview_runs_nothing_and_shows_names_as_text() {
    let world = World::new().await;
    let look = json!({"display_name": "<script>alert(1)</script>", "logo_url": "https://cdn.acme.example/\"onerror=\"x",
        "support_email": "a'b&c@acme.example", "custom_css": ".x{font-family:'</style><script>'} .y { color: red }"});
    patch(&world, look).await.expect(200);
    for path in ["/api/v1/branding/preview", "/branding/preview"] {
        let page = seen(&world, path, "acme").await.expect(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-")
                && policy.contains("img-src https://cdn.acme.example;"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"));
        let text = page.text();
        assert!(
            text.contains("<h1>&lt;script&gt;alert(1)&lt;/script&gt;</h1>")
                && text.contains("class=\"tenant-brand\"")
        );
        assert!(!text.contains("<script") && !text.contains("onerror=\"") && text.contains("color: red"));
        assert_eq!(text.matches("</style>").count(), 1);
        assert!(page.header("x-frame-options") == Some("DENY"));
    }
}
