//! View counts: reading costs no write, and nothing of one tenant's counts ends up at another's.

use chrono::Duration;
use futures_util::future::{join, join_all};
use serde_json::Value;
use tenantry_domain::kernel::{ProjectId, RequestId};
use tenantry_tenancy::work::project;
use tenantry_tenancy::{Cx, Flushed, Origin};
use tenantry_tests::{Options, Reply, TenantWorld, World};

fn path(tenant: &TenantWorld) -> String {
    format!("/api/v1/projects/{}", tenant.project)
}

async fn view(world: &World, tenant: &TenantWorld) -> Reply {
    world.get(&tenant.viewer, &path(tenant)).await.expect(200)
}

async fn flush(world: &World) -> Flushed {
    world.app.views().flush(&world.app).await
}

/// How many views of a project are stored.
async fn stored(world: &World, project: ProjectId) -> i64 {
    sqlx::query_scalar("SELECT view_count FROM projects WHERE id = $1")
        .bind(project.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

/// A project without its count.
fn but_for_the_count(reply: &Reply) -> Value {
    let mut json = reply.json();
    json.as_object_mut().unwrap().remove("view_count").unwrap();
    json
}

const fn flushed(views: i64, tenants: usize, kept: i64) -> Flushed {
    Flushed { views, tenants, kept }
}

#[actix_web::test]
async fn looking_at_a_project_costs_no_write_and_is_seen_at_once() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for count in 1..=3 {
        assert_eq!(view(&world, &world.acme).await.json()["view_count"], count);
    }
    let list = world
        .get(&world.acme.member, "/api/v1/projects")
        .await
        .expect(200)
        .json();
    assert_eq!(
        list["data"][0]["view_count"], 3,
        "a list shows the count and is no view"
    );
    assert_eq!(view(&world, &world.acme).await.json()["view_count"], 4);
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
    assert_eq!(stored(&world, world.acme.project).await, 0);
}

#[actix_web::test]
async fn stored_views_are_no_change_of_the_project() {
    let world = World::new().await;
    let first = view(&world, &world.acme).await;
    view(&world, &world.acme).await;
    let others = world.digest(&world.globex).await;
    world.clock.advance(Duration::seconds(10));
    assert_eq!(flush(&world).await, flushed(2, 1, 0));
    assert_eq!(stored(&world, world.acme.project).await, 2);
    assert_eq!(flush(&world).await, flushed(0, 0, 0), "nothing is stored twice");

    let later = view(&world, &world.acme).await;
    assert_eq!(
        later.json()["view_count"],
        3,
        "what is stored and what is not yet"
    );
    assert_eq!(but_for_the_count(&later), but_for_the_count(&first));
    assert_eq!(later.header("etag"), first.header("etag"));
    assert_eq!(later.json()["version"], 1);
    let request = world.get(&world.acme.viewer, &path(&world.acme));
    request
        .header("If-None-Match", first.header("etag").unwrap())
        .await
        .expect(304);
    // Who has read it may change it, however often it has been looked at meanwhile.
    let body = serde_json::json!({"name": "Renamed"});
    let request = world.patch(&world.acme.member, &path(&world.acme), &body);
    let renamed = request
        .header("If-Match", first.header("etag").unwrap())
        .await
        .expect(200)
        .json();
    assert_eq!(renamed["version"], 2);
    assert!(renamed["view_count"].as_i64() >= Some(3), "{renamed}");
    let audit = world.audit(&world.acme).await;
    assert!(
        audit.iter().all(|(action, _)| !action.contains("view")),
        "a view is not worth an entry"
    );
    assert_eq!(world.digest(&world.globex).await, others);
}

#[actix_web::test]
async fn a_change_of_a_project_does_not_lose_its_views() {
    let world = World::new().await;
    view(&world, &world.acme).await;
    flush(&world).await;
    view(&world, &world.acme).await;
    let body = serde_json::json!({"description": "New"});
    let json = world
        .patch(&world.acme.member, &path(&world.acme), &body)
        .await
        .expect(200)
        .json();
    assert_eq!(json["view_count"], 2);
    assert_eq!(flush(&world).await, flushed(1, 1, 0));
    assert_eq!(
        stored(&world, world.acme.project).await,
        2,
        "pending views were not stored along with the change"
    );
}

#[actix_web::test]
async fn the_views_of_two_tenants_are_kept_apart() {
    let world = World::new().await;
    for _ in 0..2 {
        view(&world, &world.acme).await;
    }
    for count in 1..=3 {
        assert_eq!(view(&world, &world.globex).await.json()["view_count"], count);
    }
    assert_eq!(view(&world, &world.acme).await.json()["view_count"], 3);
    // What one cannot see one cannot have looked at.
    let foreign = world.get(&world.acme.admin, &path(&world.globex)).await;
    foreign.problem(404, "not_found");
    assert_eq!(flush(&world).await, flushed(6, 2, 0));
    assert_eq!(stored(&world, world.acme.project).await, 3);
    assert_eq!(stored(&world, world.globex.project).await, 3);
}

#[actix_web::test]
async fn a_count_under_a_foreign_project_is_stored_nowhere() {
    let world = World::new().await;
    // As if the use case had not looked first.
    let cx = world.cx(&world.acme.admin).await;
    world.app.views().note(cx.scope(), world.globex.project);
    world.app.views().note(cx.scope(), world.acme.project);
    let globex = world.digest(&world.globex).await;
    assert_eq!(flush(&world).await.kept, 0);
    assert_eq!(
        stored(&world, world.acme.project).await,
        1,
        "the others are not held up"
    );
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn views_that_arrive_while_others_are_stored_are_not_lost() {
    let world = World::new().await;
    for _ in 0..10 {
        let views = join_all((0..5).map(|_| view(&world, &world.acme)));
        join(views, flush(&world)).await;
    }
    flush(&world).await;
    assert_eq!(stored(&world, world.acme.project).await, 50);
}

#[actix_web::test]
async fn two_instances_add_to_one_count() {
    let world = World::new().await;
    let other = world.instance(&Options::default()).app;
    let request = RequestId::next(other.ports.ids.as_ref());
    let admission = other
        .ports
        .gate
        .bearer(&world.acme.viewer.access_token, request)
        .await
        .unwrap();
    let cx = Cx::new(other.clone(), admission.scope, Origin::default());
    for _ in 0..3 {
        project::get(&cx, world.acme.project).await.unwrap();
    }
    view(&world, &world.acme).await;
    let (here, there) = join(flush(&world), other.views().flush(&other)).await;
    assert_eq!((here, there), (flushed(1, 1, 0), flushed(3, 1, 0)));
    assert_eq!(stored(&world, world.acme.project).await, 4);
}

#[actix_web::test]
async fn the_views_of_a_deleted_tenant_are_dropped() {
    let world = World::new().await;
    view(&world, &world.acme).await;
    view(&world, &world.globex).await;
    world.set_status(&world.acme, "deleted").await;
    let before = world.digest(&world.acme).await;
    assert_eq!(flush(&world).await, flushed(1, 1, 0));
    assert_eq!(world.digest(&world.acme).await, before);
    assert_eq!(stored(&world, world.globex.project).await, 1);
    world.set_status(&world.acme, "active").await;
    assert_eq!(flush(&world).await, flushed(0, 0, 0));
    assert_eq!(view(&world, &world.acme).await.json()["view_count"], 1);
}

#[actix_web::test]
async fn the_views_of_a_suspended_tenant_are_stored() {
    let world = World::new().await;
    world.set_status(&world.acme, "suspended").await;
    assert_eq!(view(&world, &world.acme).await.json()["view_count"], 1);
    assert_eq!(flush(&world).await, flushed(1, 1, 0));
    assert_eq!(stored(&world, world.acme.project).await, 1);
}

#[actix_web::test]
async fn views_of_a_project_that_is_deleted_meanwhile_hold_nothing_up() {
    let world = World::new().await;
    view(&world, &world.acme).await;
    view(&world, &world.globex).await;
    world
        .delete(&world.acme.admin, &path(&world.acme))
        .await
        .expect(204);
    let gone = world.get(&world.acme.viewer, &path(&world.acme)).await;
    gone.problem(404, "not_found");
    assert_eq!(flush(&world).await.kept, 0);
    assert_eq!(stored(&world, world.globex.project).await, 1);
    assert_eq!(
        flush(&world).await,
        flushed(0, 0, 0),
        "what is not there is not counted"
    );
}

#[actix_web::test]
async fn views_that_cannot_be_stored_are_kept() {
    let world = World::new().await;
    for _ in 0..3 {
        view(&world, &world.acme).await;
    }
    view(&world, &world.globex).await;
    world.sql("ALTER TABLE projects RENAME TO out_of_reach").await;
    assert_eq!(flush(&world).await, flushed(0, 0, 4));
    assert_eq!(
        flush(&world).await,
        flushed(0, 0, 4),
        "nor are they counted twice"
    );
    world.sql("ALTER TABLE out_of_reach RENAME TO projects").await;
    assert_eq!(view(&world, &world.acme).await.json()["view_count"], 4);
    assert_eq!(flush(&world).await, flushed(5, 2, 0));
    assert_eq!(stored(&world, world.acme.project).await, 4);
    assert_eq!(stored(&world, world.globex.project).await, 1);
}

#[actix_web::test]
async fn one_tenants_trouble_does_not_hold_up_anothers_views() {
    let world = World::new().await;
    for tenant in [&world.acme, &world.globex] {
        view(&world, tenant).await;
        view(&world, tenant).await;
    }
    let trigger = format!(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'on purpose'; END $$; \
         CREATE TRIGGER fail BEFORE UPDATE ON projects FOR EACH ROW WHEN (OLD.tenant_id = '{}') \
         EXECUTE FUNCTION fail()",
        world.acme.id
    );
    world.sql(&trigger).await;
    assert_eq!(flush(&world).await, flushed(2, 1, 2));
    assert_eq!(stored(&world, world.acme.project).await, 0);
    assert_eq!(stored(&world, world.globex.project).await, 2);
    world.sql("DROP TRIGGER fail ON projects").await;
    assert_eq!(flush(&world).await, flushed(2, 1, 0));
    assert_eq!(stored(&world, world.acme.project).await, 2);
    assert_eq!(stored(&world, world.globex.project).await, 2);
}
