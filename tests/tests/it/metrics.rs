//! What is measured tells how the service does, and nothing of what is in it.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::operations::{Rate, TenantRates};
use tenantry_tests::{Options, World};

#[actix_web::test]
async fn requests_are_measured_by_route_template_and_status() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let own = format!("/api/v1/tasks/{}", world.acme.task);
    let foreign = format!("/api/v1/tasks/{}", world.globex.task);
    for _ in 0..2 {
        world.get(viewer, &own).await.expect(200);
    }
    world.get(viewer, &foreign).await.expect(404);
    world.client.get("/no/such/place?secret=1").await.expect(404);
    let reply = world.client.get("/metrics").await.expect(200);
    let text = reply.text();
    let count = |status: u16| {
        let line = format!(
            r#"tenantry_http_requests_total{{method="GET",route="/api/v1/tasks/{{id}}",status="{status}"}} "#
        );
        text.lines()
            .find_map(|one| one.strip_prefix(&line)?.parse::<u64>().ok())
    };
    assert_eq!((count(200), count(404)), (Some(2), Some(1)), "{text}");
    let nowhere = r#"tenantry_http_requests_total{method="GET",route="",status="404"} 1"#;
    assert!(text.contains(nowhere), "{text}");
    for secret in [
        world.acme.task.to_string(),
        viewer.email.clone(),
        "secret".to_owned(),
    ] {
        assert!(!text.contains(&secret), "{secret}");
    }
    assert!(!text.contains(&world.acme.id.to_string()), "{text}");
}

#[actix_web::test]
async fn only_operators_read_which_tenants_are_busiest() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    for _ in 0..3 {
        world.get(viewer, "/api/v1/tasks").await.expect(200);
    }
    let operator = world.operator("olga@platform.example").await;
    let metrics = || world.client.get("/metrics");
    let text = metrics().bearer(&operator).await.expect(200).text();
    let busiest = format!(
        "tenantry_busiest_tenants_requests{{tenant=\"{}\"}} 3",
        world.acme.id
    );
    assert!(text.contains(&busiest), "{text}");
    assert!(!text.contains(&world.globex.id.to_string()), "it did nothing");
    let text = metrics().await.expect(200).text();
    assert!(!text.contains("busiest"), "{text}");
    for token in [viewer.access_token.as_str(), "nonsense"] {
        metrics().bearer(token).await.problem(401, "unauthenticated");
    }
}

#[actix_web::test]
async fn a_scrape_gets_the_format_it_accepts() {
    let world = World::new().await;
    world.client.get("/health").await.expect(200);
    let scrape = async |accept: &str| {
        let reply = world.client.get("/metrics").header("Accept", accept).await;
        let reply = reply.expect(200);
        (reply.header("content-type").unwrap().to_owned(), reply.text())
    };
    let (kind, text) = scrape("text/plain").await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(
        text.contains("# TYPE tenantry_http_requests_total counter\n"),
        "{text}"
    );
    let (kind, text) = scrape("application/openmetrics-text").await;
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    assert!(text.contains("# TYPE tenantry_http_requests counter\n") && text.ends_with("# EOF\n"));
}

#[actix_web::test]
async fn what_is_refused_before_a_tenant_is_known_is_counted_for_nobody() {
    let world = World::new().await;
    let body = json!({"tenant_slug": "acme", "email": "x@y.example", "password": "wrong"});
    world.client.post("/api/v1/auth/login", &body).await.expect(401);
    world.client.get("/api/v1/tasks").await.expect(401);
    let operator = world.operator("olga@platform.example").await;
    let metrics = world.client.get("/metrics").bearer(&operator);
    let text = metrics.await.expect(200).text();
    assert!(!text.contains("tenantry_busiest_tenants_requests{"), "{text}");
    assert!(
        text.contains(r#"route="/api/v1/auth/login",status="401"} 1"#),
        "{text}"
    );
}

#[actix_web::test]
async fn decisions_about_rates_are_counted_and_refusals_by_the_limit_they_exceed() {
    let rate = Rate::new(1, 2).unwrap();
    let world = World::with(Options {
        rates: Arc::new(TenantRates {
            tenant: Rate::new(1_000, 1_000),
            user: Some(rate),
        }),
        ..Options::default()
    })
    .await;
    for status in [200, 200, 429, 429, 429] {
        world
            .get(&world.acme.viewer, "/api/v1/projects")
            .await
            .expect(status);
    }
    world
        .login("acme", &world.acme.viewer.email, "wrong")
        .await
        .expect(401);
    let text = world.client.get("/metrics").await.expect(200).text();
    for line in [
        r#"tenantry_rate_limit_decisions_total{class="tenant",outcome="allowed"} 2"#,
        r#"tenantry_rate_limit_decisions_total{class="tenant",outcome="refused"} 3"#,
        r#"tenantry_rate_limit_decisions_total{class="credential",outcome="allowed"} 1"#,
        r#"tenantry_rate_limit_violations_total{policy="user"} 3"#,
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert!(!text.contains(r#"violations_total{policy="tenant"}"#), "{text}");
}
