//! What is measured tells how the service does, and nothing of what is in it.

use serde_json::json;
use tenantry_tests::World;

#[actix_web::test]
async fn requests_are_measured_by_route_template_and_status() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let own = format!("/api/v1/tasks/{}", world.acme.task);
    let foreign = format!("/api/v1/tasks/{}", world.globex.task);
    for _ in 0..2 {
        world.get(viewer, &own).send().await.expect(200);
    }
    world.get(viewer, &foreign).send().await.expect(404);
    world
        .client
        .get("/no/such/place?secret=1")
        .send()
        .await
        .expect(404);
    let reply = world.client.get("/metrics").send().await.expect(200);
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
    let busiest = format!(
        "tenantry_busiest_tenants_requests{{tenant=\"{}\"}} 3",
        world.acme.id
    );
    assert!(text.contains(&busiest), "{text}");
    assert!(!text.contains(&world.globex.id.to_string()), "it did nothing");
}

#[actix_web::test]
async fn what_is_refused_before_a_tenant_is_known_is_counted_for_nobody() {
    let world = World::new().await;
    let body = json!({"tenant_slug": "acme", "email": "x@y.example", "password": "wrong"});
    world
        .client
        .post("/api/v1/auth/login", &body)
        .send()
        .await
        .expect(401);
    world.client.get("/api/v1/tasks").send().await.expect(401);
    let text = world.client.get("/metrics").send().await.expect(200).text();
    assert!(!text.contains("tenantry_busiest_tenants_requests{"), "{text}");
    assert!(
        text.contains(r#"route="/api/v1/auth/login",status="401"} 1"#),
        "{text}"
    );
}
