//! Plans: what they allow, under races, over versions, and between servers.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_billing::plans::plan;
use tenantry_billing::plans::tenant_plan::{self, TenantPlanError};
use tenantry_billing::plans::{PlanBook, Plans};
use tenantry_domain::kernel::{Clock as _, Invalid, Limit, SystemScope};
use tenantry_domain::plans::{PlanCatalogue as _, PlanVersions as _};
use tenantry_persistence::{PgPlanVersions, Pool, PoolConfig};
use tenantry_tenancy::plans::Feature;
use tenantry_tests::{Options, Person, World, operator_cx};

const BECAUSE: SystemScope = SystemScope::because("a test of plans");

/// Two plans, of which the tenants of a world have the first.
pub(crate) fn book(users: u32, projects: u32, storage: u32) -> Arc<PlanBook> {
    let rates = "requests_per_minute = 1000\nrequests_burst = 1000\nuser_requests_per_minute = 1000\n\
                 user_requests_burst = 1000";
    let text = format!(
        "[[plan]]\nname = 'pro'\ntitle = 'Pro'\ndescription = 'For tests.'\ndefault = true\n\
         [plan.limits]\nusers = {users}\nprojects = {projects}\nstorage_bytes = {storage}\n{rates}\n\
         [[plan]]\nname = 'max'\ntitle = 'Max'\ndescription = 'For more tests.'\nfeatures = ['branding', 'sso']\n\
         [plan.limits]\nusers = 'unlimited'\nprojects = 100\nstorage_bytes = 'unlimited'\n{rates}"
    );
    Arc::new(PlanBook::new(Plans::parse(&text).unwrap()).unwrap())
}

async fn world(plans: &Arc<PlanBook>) -> World {
    World::with(options(plans)).await
}

pub(crate) fn options(plans: &Arc<PlanBook>) -> Options {
    Options {
        plans: Some(Arc::clone(plans)),
        ..Options::default()
    }
}

pub(crate) fn store(world: &World) -> PgPlanVersions {
    let pool = Pool::new(&world.database.platform_url(), &PoolConfig::default()).unwrap();
    PgPlanVersions::new(pool, Arc::new(()), Arc::clone(&world.app.ports.ids))
}

/// The statuses of requests that are sent together, sorted, and the body of one that was refused.
async fn together(world: &World, who: &Person, path: &str, bodies: Vec<Value>) -> (Vec<u16>, Value) {
    let sent = bodies.iter().map(|body| world.post(who, path, body).send());
    let replies = join_all(sent).await;
    let refused = replies.iter().find(|reply| reply.status == 403);
    let refused = refused.map_or(Value::Null, |reply| reply.json());
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    (statuses, refused)
}

async fn capabilities(world: &World, who: &Person) -> Value {
    let path = "/api/v1/tenant/capabilities";
    world.get(who, path).await.expect(200).json()
}

fn limit(capabilities: &Value, name: &str) -> (Option<u64>, Option<u64>) {
    let limits = capabilities["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["name"] == name).unwrap();
    (limit["allowed"].as_u64(), limit["used"].as_u64())
}

/// The sum of what is stored, as a superuser counts it.
async fn stored(world: &World) -> u64 {
    let sum =
        "SELECT coalesce(sum(octet_length(content)), 0)::bigint FROM resource_versions WHERE tenant_id = $1";
    let bytes: i64 = sqlx::query_scalar(sum)
        .bind(world.acme.id.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    bytes.unsigned_abs()
}

#[actix_web::test]
async fn of_fifty_that_want_the_last_place_one_gets_it() {
    let world = world(&book(4, 2, 1_000)).await;
    let other = world.digest(&world.globex).await;
    let names = (0..50)
        .map(|number| json!({"name": format!("Project {number}")}))
        .collect();
    let (statuses, refused) = together(&world, &world.acme.member, "/api/v1/projects", names).await;
    assert_eq!((statuses[0], statuses[1]), (201, 403));
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 49);
    let expected = json!({"limit": "projects", "allowed": 2, "used": 2, "current_plan": "pro", "required_plans": ["max"]});
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&refused[member], value, "{refused}");
    }
    assert_eq!(refused["code"], "plan_limit_reached");
    assert_eq!(
        refused["detail"],
        "The plan 'pro' allows 2 projects, and there are 2; 'max' allows more."
    );

    let people = (0..50)
        .map(|number| json!({"email": format!("user{number}@acme.example"), "full_name": "U", "role": "viewer"}))
        .collect();
    let (statuses, refused) = together(&world, &world.acme.admin, "/api/v1/users", people).await;
    assert_eq!((statuses[0], statuses[1]), (201, 403));
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 49);
    assert_eq!(
        (&refused["limit"], &refused["used"]),
        (&json!("users"), &json!(4))
    );
    assert_eq!(
        world.digest(&world.globex).await,
        other,
        "the other tenant has its own limits"
    );
    let project = json!({"name": "Theirs"});
    let theirs = world.post(&world.globex.member, "/api/v1/projects", &project);
    theirs.await.expect(201);
}

#[actix_web::test]
async fn restoring_takes_a_place_too_and_deleting_gives_one_back() {
    let world = world(&book(9, 2, 1_000)).await;
    let admin = &world.acme.admin;
    let project = format!("/api/v1/projects/{}", world.acme.project);
    world.delete(admin, &project).await.expect(204);
    for name in ["One", "Two"] {
        let made = world.post(admin, "/api/v1/projects", &json!({"name": name}));
        made.await.expect(201);
    }
    let restore = format!("{project}/restore");
    let refused = world.post(admin, &restore, &json!({})).await.expect(403);
    assert_eq!(refused.json()["code"], "plan_limit_reached");
    let listed = world.get(admin, "/api/v1/projects").await.expect(200).json();
    let one = listed["data"][0]["id"].as_str().unwrap();
    world
        .delete(admin, &format!("/api/v1/projects/{one}"))
        .await
        .expect(204);
    world.post(admin, &restore, &json!({})).await.expect(200);
    assert_eq!(
        limit(&capabilities(&world, admin).await, "projects"),
        (Some(2), Some(2))
    );
}

#[actix_web::test]
async fn whoever_registers_is_told_that_there_is_no_place_and_nothing_of_the_plan() {
    let world = world(&book(3, 9, 1_000)).await;
    let path = "/api/v1/auth/register";
    let body = json!({"email": "new@acme.example", "full_name": "New", "password": "long enough to hold", "tenant_slug": "acme"});
    let refused = world.client.post(path, &body).await.expect(403).json();
    assert_eq!(refused["code"], "plan_limit_reached");
    for member in ["limit", "allowed", "used", "current_plan", "required_plans"] {
        assert!(refused.get(member).is_none(), "{refused}");
    }
}

#[actix_web::test]
async fn what_is_stored_is_counted_to_the_byte_under_races_and_never_exceeds_the_plan() {
    let world = world(&book(9, 9, 100)).await;
    let (member, path) = (&world.acme.member, "/api/v1/resources");
    let before = stored(&world).await;
    assert!(before < 40, "what the world begins with");
    let documents = (0..20)
        .map(|number| json!({"name": format!("Document {number}"), "content": "x".repeat(20)}))
        .collect();
    let (statuses, refused) = together(&world, member, path, documents).await;
    let made = statuses.iter().filter(|status| **status == 201).count() as u64;
    assert_eq!(made, (100 - before) / 20);
    assert_eq!(refused["limit"], "storage_bytes");
    let now = stored(&world).await;
    assert_eq!(now, before + made * 20);
    assert_eq!(
        limit(&capabilities(&world, member).await, "storage_bytes"),
        (Some(100), Some(now))
    );

    let one = format!("{path}/{}", world.acme.resource);
    let long = json!({"content": "y".repeat(60)});
    world.patch(member, &one, &long).await.expect(403);
    assert_eq!(stored(&world).await, now, "what was refused was not stored");
    let listed = world.get(member, path).await.expect(200).json();
    let ids = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned());
    let paths: Vec<_> = ids.map(|id| format!("{path}/{id}")).collect();
    let deleted = join_all(paths.iter().map(|path| world.delete(member, path).send())).await;
    assert!(deleted.iter().all(|reply| reply.status == 204));
    assert_eq!(stored(&world).await, 0);
    assert_eq!(
        limit(&capabilities(&world, member).await, "storage_bytes"),
        (Some(100), Some(0))
    );
}

#[actix_web::test]
async fn another_plan_holds_at_once_here_and_elsewhere_within_a_second() {
    let plans = book(3, 1, 1_000);
    let world = world(&plans).await;
    let elsewhere = world.other_instance(&options(&plans)).await;
    let admin = &world.acme.admin;
    let create = |name: &str| json!({"name": name});
    let here = world.post(admin, "/api/v1/projects", &create("Here"));
    here.await.expect(403);
    let there = |name: &str| {
        elsewhere
            .post("/api/v1/projects", &create(name))
            .bearer(&admin.access_token)
    };
    there("There").await.expect(403);

    let changed = tenant_plan::change(&operator_cx(&world.app), world.acme.id, "max", "a test")
        .await
        .unwrap();
    assert_eq!((changed.plan.as_str(), changed.version), ("max", 2));
    let seen = capabilities(&world, admin).await;
    assert_eq!(seen["plan"], json!({"name": "max", "title": "Max", "version": 1}));
    assert_eq!(limit(&seen, "users"), (None, Some(3)));
    assert!(
        seen["features"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "sso", "included": true, "origin": "plan"}))
    );
    world
        .post(admin, "/api/v1/projects", &create("Here"))
        .await
        .expect(201);
    world.outlive_the_cache();
    there("There").await.expect(201);

    let action: String = sqlx::query_scalar(
        "SELECT action FROM audit_events WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET 2",
    )
    .bind(world.acme.id.uuid())
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap();
    assert_eq!(action, "tenant.plan_changed");
    let theirs = capabilities(&world, &world.globex.viewer).await;
    assert_eq!(theirs["plan"]["name"], "pro");

    // With less than it has, a tenant reads and deletes and adds nothing.
    tenant_plan::change(&operator_cx(&world.app), world.acme.id, "pro", "a test")
        .await
        .unwrap();
    assert_eq!(
        limit(&capabilities(&world, admin).await, "projects"),
        (Some(1), Some(3))
    );
    world
        .post(admin, "/api/v1/projects", &create("More"))
        .await
        .expect(403);
    let path = format!("/api/v1/projects/{}", world.acme.project);
    world.delete(admin, &path).await.expect(204);
    let unknown = tenant_plan::change(&operator_cx(&world.app), world.acme.id, "free", "a test").await;
    let Err(TenantPlanError::Invalid(Invalid(errors))) = unknown else {
        panic!("{unknown:?}")
    };
    assert_eq!(errors[0].detail, "must be one of pro, max");
}

#[actix_web::test]
async fn a_tenant_keeps_the_terms_it_bought_until_it_is_moved() {
    let old = book(4, 1, 1_000);
    let world = world(&old).await;
    let store = store(&world);
    old.sync(&store, world.clock.now()).await.unwrap();
    let new = book(4, 5, 1_000);
    new.sync(&store, world.clock.now()).await.unwrap();
    assert_eq!(new.current("pro").unwrap().version, 2);
    let restarted = world.instance(&options(&new)).app;
    let subscribed = plan::subscribed(&restarted, BECAUSE).await.unwrap();
    assert_eq!((subscribed[0].version, subscribed[0].tenants.len()), (1, 2));
    let terms = |version| new.terms("pro", version).limit("projects");
    assert_eq!((terms(1), terms(2)), (Limit::Of(1), Limit::Of(5)));

    let client = world.other_instance(&options(&new)).await;
    let create = |who: &Person, name: &str| {
        client
            .post("/api/v1/projects", &json!({"name": name}))
            .bearer(&who.access_token)
    };
    create(&world.acme.admin, "Second").await.expect(403);
    let moved = tenant_plan::change(&operator_cx(&restarted), world.acme.id, "pro", "a test")
        .await
        .unwrap();
    assert_eq!(moved.plan_version, 2);
    let again = tenant_plan::change(&operator_cx(&restarted), world.acme.id, "pro", "a test")
        .await
        .unwrap();
    assert_eq!(again.version, moved.version, "it is there already");
    world.outlive_the_cache();
    create(&world.acme.admin, "Second").await.expect(201);
    create(&world.globex.admin, "Second").await.expect(403);

    assert_eq!(old.terms("pro", 2).version, 1, "it has not heard of the other");
    old.reload(&store).await.unwrap();
    assert_eq!(old.terms("pro", 2).limit("projects"), Limit::Of(5));
}

#[actix_web::test]
async fn servers_that_start_together_store_a_plan_once() {
    let world = World::new().await;
    let (store, now) = (store(&world), world.clock.now());
    let books: Vec<_> = (0..8).map(|_| book(4, 4, 4)).collect();
    let synced = join_all(books.iter().map(|book| book.sync(&store, now))).await;
    assert!(synced.iter().all(Result::is_ok), "{synced:?}");
    let all = store.all(BECAUSE).await.unwrap();
    let all: Vec<_> = all.iter().map(|row| (row.name.as_str(), row.version)).collect();
    assert_eq!(all, [("max", 1), ("pro", 1)]);
    // Each version has one record, of the transaction that stored it.
    let sql = "SELECT details->>'plan' || ' ' || (details->>'version') FROM operator_events \
               WHERE action = 'plan.version_added' AND operator_id IS NULL ORDER BY 1";
    let recorded: Vec<String> = sqlx::query_scalar(sql)
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(recorded, ["max 1", "pro 1"]);
    // A command that reads stores nothing and says which version a server would add.
    let newer = book(5, 4, 4);
    newer.preview(&store).await.unwrap();
    assert_eq!(newer.current("pro").unwrap().version, 2);
    assert_eq!(store.all(BECAUSE).await.unwrap().len(), 2);
    assert!(books.iter().all(|book| book.current("pro").unwrap().version == 1));
}

#[actix_web::test]
async fn what_is_agreed_with_a_tenant_is_its_own_and_can_be_taken_back() {
    let world = world(&book(3, 1, 1_000)).await;
    let admin = &world.acme.admin;
    let create = |name: &str| {
        world
            .post(admin, "/api/v1/projects", &json!({"name": name}))
            .send()
    };
    let agreement = plan::Agreement {
        features: [("sso".to_owned(), Some(true))].into(),
        limits: [("projects".to_owned(), Some(Limit::Of(2)))].into(),
        ..plan::Agreement::default()
    };
    world.agree(world.acme.id, agreement).await;
    create("Second").await.expect(201);
    let refused = create("Third").await.expect(403).json();
    assert_eq!((&refused["allowed"], &refused["used"]), (&json!(2), &json!(2)));
    let seen = capabilities(&world, admin).await;
    let sso = json!({"name": "sso", "included": true, "origin": "tenant"});
    assert!(seen["features"].as_array().unwrap().contains(&sso), "{seen}");
    let cx = world.cx(admin).await;
    cx.require_feature(Feature("sso")).unwrap();
    let refused = cx.require_feature(Feature::BRANDING).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the plan 'pro' does not include branding; 'max' includes it"
    );
    let other = world.cx(&world.globex.admin).await;
    other.require_feature(Feature("sso")).unwrap_err();

    let back = plan::Agreement {
        features: [("sso".to_owned(), None)].into(),
        limits: [("projects".to_owned(), None)].into(),
        ..plan::Agreement::default()
    };
    world.agree(world.acme.id, back).await;
    let cx = world.cx(admin).await;
    cx.require_feature(Feature("sso")).unwrap_err();
    assert_eq!(
        limit(&capabilities(&world, admin).await, "projects"),
        (Some(1), Some(2))
    );
}

#[actix_web::test]
async fn what_the_plan_does_not_have_is_refused_before_the_body_is_read() {
    let world = world(&book(3, 3, 1_000)).await;
    let change = json!({"display_name": "Acme"});
    let path = "/api/v1/branding";
    let refused = world
        .patch(&world.acme.admin, path, &change)
        .await
        .expect(403)
        .json();
    let told = json!({"feature": "branding", "current_plan": "pro", "required_plans": ["max"], "code": "plan_feature_required"});
    for (member, value) in told.as_object().unwrap() {
        assert_eq!(&refused[member], value, "{refused}");
    }
    assert_eq!(
        refused["detail"],
        "The plan 'pro' does not include branding; 'max' includes it."
    );
    let senseless = world.patch(&world.acme.admin, path, &json!({"no such field": 1}));
    assert_eq!(
        senseless.await.expect(403).json()["code"],
        "plan_feature_required"
    );
    let member = world.patch(&world.acme.member, path, &change).await;
    assert_eq!(
        member.expect(403).json()["code"],
        "forbidden",
        "the role is asked first"
    );

    tenant_plan::change(&operator_cx(&world.app), world.acme.id, "max", "a test")
        .await
        .unwrap();
    world.patch(&world.acme.admin, path, &change).await.expect(200);
    world.patch(&world.globex.admin, path, &change).await.expect(403);
}
