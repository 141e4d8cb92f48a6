//! A service without billing: tenancy over the plain defaults of its ports.

use serde_json::json;
use tenantry_domain::kernel::SystemScope;
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::job::{Handlers, JobHandler as _};
use tenantry_tenancy::tenant::purge::{Ended, Purge};
use tenantry_tests::{Options, World};

use crate::plans;

/// A world whose plan allows less than its tenants have, in a service that asks no plan.
async fn world() -> World {
    World::with(Options {
        without_billing: true,
        ..plans::options(&plans::book(1, 1, 1))
    })
    .await
}

#[actix_web::test]
async fn service_without_billing_has_no_limits() {
    let world = world().await;
    let globex = world.digest(&world.globex).await;
    let acme = &world.acme;
    for (who, path, body) in [
        (&acme.member, "/api/v1/projects", json!({"name": "One more"})),
        (
            &acme.admin,
            "/api/v1/users",
            json!({"email": "more@acme.example", "full_name": "More", "role": "viewer"}),
        ),
        (
            &acme.member,
            "/api/v1/resources",
            json!({"name": "Long", "content": "x".repeat(1_000)}),
        ),
    ] {
        world.post(who, path, &body).await.expect(201);
    }
    let look = json!({"display_name": "Acme"});
    world
        .patch(&acme.admin, "/api/v1/branding", &look)
        .await
        .expect(200);
    assert_eq!(world.digest(&world.globex).await, globex);
}

/// Bytes are counted by tenancy, so that limits hold from the day on which the service gets billing.
#[actix_web::test]
async fn service_without_billing_counts_bytes_and_meters_nothing() {
    let world = world().await;
    let before = stored(&world).await;
    let body = json!({"name": "Long", "content": "x".repeat(1_000)});
    let made = world.post(&world.acme.member, "/api/v1/resources", &body);
    let id = made.await.expect(201).json()["id"].clone();
    assert_eq!(stored(&world).await, before + 1_000);
    let path = format!("/api/v1/resources/{}", id.as_str().unwrap());
    world.delete(&world.acme.admin, &path).await.expect(204);
    assert_eq!(stored(&world).await, before);
    let events = "SELECT count(*) FROM usage_events WHERE meter = 'storage_bytes'";
    let events: i64 = sqlx::query_scalar(events)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(events, 0);
}

#[actix_web::test]
async fn service_without_billing_signs_up_and_purges() {
    let world = world().await;
    let body = json!({
        "slug": "umbrella", "name": "Umbrella",
        "admin": {"email": "admin@umbrella.example", "full_name": "Admin", "password": "a good long one"},
    });
    let created = world.client.post("/api/v1/tenants", &body);
    created.await.expect(201);
    let because = SystemScope::because("a test without billing");
    let cx = Cx::enter(&world.app, because, world.acme.id).await.unwrap();
    Purge.run(&cx.unwrap(), Ended { days: 30 }).await.unwrap();
    let handlers = format!("{:?}", Handlers::standard());
    for prefix in ["billing.", "usage.", "quota."] {
        assert!(!handlers.contains(&format!("\"{prefix}")), "{handlers}");
    }
}

async fn stored(world: &World) -> i64 {
    let used = "SELECT coalesce(sum(bytes), 0)::bigint FROM storage_usage WHERE tenant_id = $1";
    sqlx::query_scalar(used)
        .bind(world.acme.id.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}
