//! API keys: what they open, what ends them, and what a caller learns of a key that is refused.

use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::identity::ApiKeyFormat;
use tenantry_domain::kernel::{SystemScope, Time};
use tenantry_domain::operations::{Rate, TenantRates};
use tenantry_tenancy::identity::api_key_expiry::NotifyOfExpiry;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{Options, PASSWORD, Person, Reply, Request, World};
use uuid::Uuid;

const KEYS: &str = "/api/v1/api-keys";
const TASKS: &str = "/api/v1/tasks";

/// A key that was created.
struct Key {
    id: String,
    text: String,
}

impl Key {
    async fn new(world: &World, who: &Person, body: &Value) -> Self {
        let reply = world.post(who, KEYS, body).await.expect(201).json();
        Self::of(&reply)
    }

    fn of(reply: &Value) -> Self {
        Self {
            id: reply["id"].as_str().unwrap().to_owned(),
            text: reply["key"].as_str().unwrap().to_owned(),
        }
    }

    fn path(&self) -> String {
        format!("{KEYS}/{}", self.id)
    }

    fn get(&self, world: &World, path: &str) -> Request {
        world.client.get(path).bearer(&self.text)
    }

    fn post(&self, world: &World, path: &str, body: &Value) -> Request {
        world.client.post(path, body).bearer(&self.text)
    }

    async fn lists_tasks(&self, world: &World) -> Reply {
        self.get(world, TASKS).await
    }
}

fn scoped(scopes: &[&str]) -> Value {
    json!({"name": "CI", "scopes": scopes})
}

fn service(world: &World, scopes: &[&str]) -> Value {
    let expires_at = world.app.ports.clock.now() + Duration::days(30);
    json!({"name": "Robot", "scopes": scopes, "service_account": true, "expires_at": expires_at})
}

/// The text of a key with every scope.
pub(crate) async fn with_every_scope(world: &World, who: &Person) -> String {
    let permissions = world.app.ports.permissions.all().iter();
    let scopes = permissions.filter(|permission| permission.is_scope());
    let scopes: Vec<_> = scopes.map(|permission| permission.as_str()).collect();
    Key::new(world, who, &scoped(&scopes)).await.text
}

/// The reasons of refused keys in acme's audit log.
async fn reasons(world: &World) -> Vec<String> {
    let events = world.audit(&world.acme).await.into_iter();
    let refused = events.filter(|(action, _)| action == "api_key.refused");
    refused
        .map(|(_, row)| row["after"]["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[actix_web::test]
async fn a_key_opens_what_its_scopes_say_by_either_header() {
    let world = World::new().await;
    let key = Key::new(
        &world,
        &world.acme.admin,
        &scoped(&["tasks.read", "projects.read"]),
    )
    .await;
    let reply = key.lists_tasks(&world).await.expect(200);
    assert_eq!(reply.header("tenant-resolved-by"), Some("credential"));
    let by_header = world.client.get(TASKS).header("X-API-Key", &key.text);
    assert_eq!(by_header.await.expect(200).json(), reply.json());
    let by_both = key.get(&world, TASKS).header("X-API-Key", &key.text);
    by_both.await.expect(200);
    let other = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    for credential in [&other.text, &world.acme.admin.access_token] {
        let differing = world
            .client
            .get(TASKS)
            .bearer(credential)
            .header("X-API-Key", &key.text);
        differing.await.problem(401, "unauthenticated");
    }
    let token = world
        .client
        .get(TASKS)
        .header("X-API-Key", &world.acme.admin.access_token);
    token.await.problem(401, "unauthenticated");
    let two = world
        .client
        .get(TASKS)
        .header("X-API-Key", &key.text)
        .header("X-API-Key", &key.text);
    two.await.problem(400, "invalid_request");
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    let write = key.post(&world, &path, &json!({"title": "New"}));
    write.await.problem(403, "forbidden");
    key.get(&world, "/api/v1/users").await.problem(403, "forbidden");
}

#[actix_web::test]
async fn a_key_opens_nothing_of_sessions_users_or_keys() {
    let world = World::new().await;
    let text = with_every_scope(&world, &world.acme.admin).await;
    let key = Key {
        id: String::new(),
        text,
    };
    for path in ["/api/v1/auth/me", KEYS] {
        key.get(&world, path).await.problem(403, "forbidden");
    }
    let user = format!("/api/v1/users/{}", world.acme.admin.id);
    for (path, body) in [
        ("/api/v1/auth/logout", json!({})),
        (
            "/api/v1/users",
            json!({"email": "x@x.example", "full_name": "X", "role": "admin"}),
        ),
        (KEYS, scoped(&["tasks.read"])),
    ] {
        key.post(&world, path, &body).await.problem(403, "forbidden");
    }
    for (path, body) in [
        (user.as_str(), json!({"full_name": "X"})),
        ("/api/v1/tenant", json!({"name": "X"})),
        ("/api/v1/tenant/settings", json!({"notifications.digest_hour": 9})),
    ] {
        let change = world.client.patch(path, &body).bearer(&key.text);
        change.await.problem(403, "forbidden");
    }
    // What only admins may beyond a permission, a key of an admin may not: the project is another user's.
    let body = json!({"name": "Of a member"});
    let made = world.post(&world.acme.member, "/api/v1/projects", &body).await;
    let project = format!(
        "/api/v1/projects/{}",
        made.expect(201).json()["id"].as_str().unwrap()
    );
    let delete = world.client.delete(&project).bearer(&key.text);
    delete.await.problem(403, "forbidden");
}

#[actix_web::test]
async fn what_a_key_does_is_recorded_under_the_key() {
    let world = World::new().await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.write", "tasks.read"])).await;
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    key.post(&world, &path, &json!({"title": "By a key"}))
        .await
        .expect(201);
    let events = world.audit(&world.acme).await;
    let (action, row) = events.last().unwrap();
    assert_eq!(action, "task.created");
    assert_eq!(
        (&row["actor_type"], &row["actor_id"]),
        (&json!("api_key"), &json!(key.id))
    );
    let (_, created) = events
        .iter()
        .find(|(action, _)| action == "api_key.created")
        .unwrap();
    assert_eq!(created["after"]["scopes"], json!(["tasks.read", "tasks.write"]));
    assert!(created["after"].get("secret_hash").is_none());
}

#[actix_web::test]
async fn a_key_is_shown_once_and_only_its_hash_is_stored() {
    let world = World::new().await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    let read = world.get(&world.acme.admin, &key.path()).await.expect(200).json();
    assert_eq!(read.get("key"), None);
    assert_eq!(read["created_by"], json!(world.acme.admin.id));
    assert_eq!(read["service_account"], false);
    let secret = &key.text[key.text.len() - 49..key.text.len() - 6];
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT k::text FROM api_keys k UNION ALL SELECT a::text FROM audit_events a")
            .fetch_all(&mut world.database.admin().await)
            .await
            .unwrap();
    assert!(rows.iter().all(|row| !row.contains(secret)));
    let listed = world.get(&world.acme.admin, KEYS).await.expect(200);
    assert!(!listed.text().contains(secret));
    assert_eq!(listed.json()["data"], json!([read]));
    for who in [&world.acme.member, &world.acme.viewer] {
        world.get(who, KEYS).await.problem(403, "forbidden");
        let create = world.post(who, KEYS, &scoped(&["tasks.read"]));
        create.await.problem(403, "forbidden");
    }
}

#[actix_web::test]
async fn every_refused_key_answers_alike_and_the_log_says_why() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let revoked = Key::new(&world, admin, &scoped(&["tasks.read"])).await;
    world.delete(admin, &revoked.path()).await.expect(204);
    world.get(admin, &revoked.path()).await.problem(404, "not_found");
    world
        .delete(admin, &revoked.path())
        .await
        .problem(404, "not_found");
    let elsewhere = json!({"name": "CI", "scopes": ["tasks.read"], "allowed_networks": ["10.0.0.0/8"]});
    let elsewhere = Key::new(&world, admin, &elsewhere).await;
    let soon = world.app.ports.clock.now() + Duration::seconds(60);
    let expired = json!({"name": "CI", "scopes": ["tasks.read"], "expires_at": soon});
    let expired = Key::new(&world, admin, &expired).await;
    expired.lists_tasks(&world).await.expect(200);
    world.clock.advance(Duration::seconds(60));
    let format = ApiKeyFormat::new("test").unwrap();
    let forged = |id: Uuid| format.issue(world.acme.id, id.into(), [3; 32]).text;
    let unknown = forged(Uuid::from_u128(77));
    let guessed = forged(elsewhere.id.parse().unwrap());
    let nowhere = format
        .issue(Uuid::from_u128(5).into(), Uuid::from_u128(6).into(), [3; 32])
        .text;
    let production = ApiKeyFormat::default()
        .issue(world.acme.id, Uuid::from_u128(6).into(), [3; 32])
        .text;
    let broken = format!("{}0", &elsewhere.text[..elsewhere.text.len() - 1]);
    let mut answers = Vec::new();
    for text in [
        &revoked.text,
        &elsewhere.text,
        &expired.text,
        &unknown,
        &guessed,
        &nowhere,
        &production,
        &broken,
        "tk_",
        "tk_test_",
    ] {
        let reply = world.client.get(TASKS).bearer(text).await;
        let reply = reply.problem(401, "unauthenticated");
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Bearer error=\"invalid_token\"")
        );
        answers.push(reply.comparable());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let expected = ["revoked", "network", "expired", "unknown", "wrong_secret"];
    assert_eq!(reasons(&world).await, expected);
    assert!(
        world
            .audit(&world.globex)
            .await
            .iter()
            .all(|(action, _)| action != "api_key.refused")
    );
}

#[actix_web::test]
async fn a_network_list_lets_its_addresses_in() {
    let world = World::new().await;
    let body = json!({"name": "CI", "scopes": ["tasks.read"], "allowed_networks": ["203.0.113.0/24", "2001:db8::/32"]});
    let key = Key::new(&world, &world.acme.admin, &body).await;
    key.lists_tasks(&world).await.expect(200);
    // Forwarded addresses are not taken from a proxy that is not trusted.
    let forwarded = key.get(&world, TASKS).header("X-Forwarded-For", "10.1.1.1");
    forwarded.await.expect(200);
    let change = |body: Value| world.patch(&world.acme.admin, &key.path(), &body);
    let narrow = change(json!({"allowed_networks": ["10.0.0.0/8"]})).await;
    assert_eq!(
        narrow.expect(200).json()["allowed_networks"],
        json!(["10.0.0.0/8"])
    );
    key.lists_tasks(&world).await.problem(401, "unauthenticated");
    let wide = change(json!({"allowed_networks": null})).await;
    assert_eq!(wide.expect(200).json()["allowed_networks"], Value::Null);
    key.lists_tasks(&world).await.expect(200);
}

#[actix_web::test]
async fn a_key_loses_at_once_what_its_creator_loses() {
    let world = World::new().await;
    let second = world.second_admin().await;
    let key = Key::new(
        &world,
        &second,
        &scoped(&["tasks.read", "tasks.write", "usage.record"]),
    )
    .await;
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    let write = async || key.post(&world, &path, &json!({"title": "New"})).await;
    write().await.expect(201);
    let user = format!("/api/v1/users/{}", second.id);
    let change = async |body: Value| {
        let change = world.patch(&world.acme.admin, &user, &body).await;
        change.expect(200);
    };
    change(json!({"role": "viewer"})).await;
    write().await.problem(403, "forbidden");
    key.lists_tasks(&world).await.expect(200);
    change(json!({"role": "member"})).await;
    write().await.expect(201);
    change(json!({"is_active": false})).await;
    key.lists_tasks(&world).await.problem(401, "unauthenticated");
    change(json!({"is_active": true})).await;
    key.lists_tasks(&world).await.expect(200);
    world.delete(&world.acme.admin, &user).await.expect(204);
    key.lists_tasks(&world).await.problem(401, "unauthenticated");
    assert_eq!(reasons(&world).await, ["creator_inactive"]);
}

#[actix_web::test]
async fn a_service_account_outlives_its_creator() {
    let world = World::new().await;
    let second = world.second_admin().await;
    let without = json!({"name": "Robot", "scopes": ["tasks.read"], "service_account": true});
    let refused = world.post(&second, KEYS, &without).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["pointer"], "/expires_at");
    let scopes = [
        "tasks.read",
        "tasks.write",
        "projects.write",
        "projects.read",
        "resources.write",
    ];
    let key = Key::new(&world, &second, &service(&world, &scopes)).await;
    let user = format!("/api/v1/users/{}", second.id);
    world.delete(&world.acme.admin, &user).await.expect(204);
    key.lists_tasks(&world).await.expect(200);
    let project = key.post(&world, "/api/v1/projects", &json!({"name": "By a robot"}));
    let project = project.await.expect(201).json();
    assert_eq!(project["owner_id"], json!(second.id));
    let resource = json!({"name": "By a robot", "content": "x"});
    key.post(&world, "/api/v1/resources", &resource).await.expect(201);
    let path = format!("/api/v1/projects/{}", world.acme.project);
    let delete = world.client.delete(&path).bearer(&key.text);
    delete.await.problem(403, "forbidden");
    key.get(&world, "/api/v1/auth/me").await.problem(403, "forbidden");
}

#[actix_web::test]
async fn a_service_account_rotates_its_own_key_and_no_other() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let robot = Key::new(&world, admin, &service(&world, &["tasks.read"])).await;
    let other = Key::new(&world, admin, &service(&world, &["tasks.read"])).await;
    let personal = Key::new(&world, admin, &scoped(&["tasks.read"])).await;
    let rotate = |by: &Key, which: &Key| {
        by.post(
            &world,
            &format!("{}/rotate", which.path()),
            &json!({"overlap_seconds": 0}),
        )
    };
    rotate(&robot, &other).await.problem(403, "forbidden");
    rotate(&personal, &personal).await.problem(403, "forbidden");
    rotate(&personal, &robot).await.problem(403, "forbidden");
    let new = Key::of(&rotate(&robot, &robot).await.expect(201).json());
    assert_eq!(new.id, robot.id);
    robot.lists_tasks(&world).await.problem(401, "unauthenticated");
    new.lists_tasks(&world).await.expect(200);
    let events = world.audit(&world.acme).await;
    let (_, rotated) = events
        .iter()
        .find(|(action, _)| action == "api_key.rotated")
        .unwrap();
    assert_eq!(rotated["actor_id"], json!(robot.id));
}

/// A personal key acts as its creator. An admin who got its secret by a rotation would keep it after being removed.
#[actix_web::test]
async fn personal_key_is_rotated_by_its_creator_alone() {
    let world = World::new().await;
    let (admin, second) = (&world.acme.admin, &world.second_admin().await);
    let personal = Key::new(&world, admin, &scoped(&["tasks.read"])).await;
    let robot = Key::new(&world, admin, &service(&world, &["tasks.read"])).await;
    let globex = world.digest(&world.globex).await;
    let rotate = async |who: &Person, key: &Key| {
        let path = format!("{}/rotate", key.path());
        world.post(who, &path, &json!({"overlap_seconds": 0})).await
    };
    let refused = rotate(second, &personal).await.problem(403, "forbidden");
    assert!(
        refused.text().contains("belongs to another user"),
        "{}",
        refused.text()
    );
    personal.lists_tasks(&world).await.expect(200);
    let personal = Key::of(&rotate(admin, &personal).await.expect(201).json());
    personal.lists_tasks(&world).await.expect(200);
    // The key of a service account is the tenant's.
    let robot = Key::of(&rotate(second, &robot).await.expect(201).json());
    robot.lists_tasks(&world).await.expect(200);
    // Any admin may end a key.
    world.delete(second, &personal.path()).await.expect(204);
    personal.lists_tasks(&world).await.problem(401, "unauthenticated");
    assert_eq!(world.digest(&world.globex).await, globex);
}

/// A secret that leaked, for which reason the owner rotated the key, must not take the key over.
#[actix_web::test]
async fn replaced_secret_rotates_no_key() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let old = Key::new(&world, admin, &service(&world, &["tasks.read"])).await;
    let path = format!("{}/rotate", old.path());
    let rotated = world.post(admin, &path, &json!({"overlap_seconds": 86_400}));
    let new = Key::of(&rotated.await.expect(201).json());
    let globex = world.digest(&world.globex).await;
    for overlap in [0, 60] {
        let taken = old.post(&world, &path, &json!({"overlap_seconds": overlap}));
        let refused = taken.await.problem(403, "forbidden");
        assert!(refused.text().contains("replaced"), "{}", refused.text());
    }
    for key in [&old, &new] {
        key.lists_tasks(&world).await.expect(200);
    }
    assert_eq!(reasons(&world).await, ["former_secret"]);
    let again = new.post(&world, &path, &json!({"overlap_seconds": 0}));
    let newest = Key::of(&again.await.expect(201).json());
    newest.lists_tasks(&world).await.expect(200);
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn of_self_rotations_at_once_one_succeeds() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    for overlap in [0, 600] {
        let robot = Key::new(&world, admin, &service(&world, &["tasks.read"])).await;
        let path = format!("{}/rotate", robot.path());
        let body = json!({"overlap_seconds": overlap});
        let rotate = || robot.post(&world, &path, &body).send();
        let replies = join_all((0..10).map(|_| rotate())).await;
        let (made, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 201);
        assert_eq!(made.len(), 1, "overlap {overlap}");
        assert!(refused.iter().all(|reply| [401, 403].contains(&reply.status)));
        Key::of(&made[0].json()).lists_tasks(&world).await.expect(200);
    }
}

#[actix_web::test]
async fn both_secrets_work_until_the_overlap_is_over() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let old = Key::new(&world, admin, &scoped(&["tasks.read"])).await;
    let path = format!("{}/rotate", old.path());
    for overlap in [json!(-1), json!(604_801), json!("60"), json!(null)] {
        let wrong = world.post(admin, &path, &json!({"overlap_seconds": overlap}));
        wrong.await.problem(422, "validation_failed");
    }
    let rotated = world.post(admin, &path, &json!({"overlap_seconds": 60}));
    let rotated = rotated.await.expect(201).json();
    let until = rotated["former_secret_until"].as_str().unwrap();
    let until: Time = until.parse().unwrap();
    let left = until - world.app.ports.clock.now();
    assert!((59_000..=60_000).contains(&left.num_milliseconds()), "{left}");
    let new = Key::of(&rotated);
    assert_eq!(new.text[..52], old.text[..52]);
    assert_ne!(new.text, old.text);
    for key in [&old, &new] {
        key.lists_tasks(&world).await.expect(200);
    }
    world.clock.advance(Duration::seconds(60));
    old.lists_tasks(&world).await.problem(401, "unauthenticated");
    new.lists_tasks(&world).await.expect(200);
    world.clock.advance(Duration::days(90));
    let token = world
        .login("acme", &admin.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let late = world.client.post(&path, &json!({"overlap_seconds": 60}));
    let late = late.bearer(token["access_token"].as_str().unwrap());
    late.await.problem(409, "conflict");
}

#[actix_web::test]
async fn a_revoked_key_ends_here_at_once_and_elsewhere_in_a_second() {
    let world = World::new().await;
    let other = world.other_instance(&Options::default()).await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    let elsewhere = async || other.get(TASKS).bearer(&key.text).await;
    elsewhere().await.expect(200);
    key.lists_tasks(&world).await.expect(200);
    world.delete(&world.acme.admin, &key.path()).await.expect(204);
    key.lists_tasks(&world).await.problem(401, "unauthenticated");
    world.outlive_the_cache();
    elsewhere().await.problem(401, "unauthenticated");
}

#[actix_web::test]
async fn expiry_can_be_moved_in_both_directions() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let key = Key::new(&world, admin, &scoped(&["tasks.read"])).await;
    let now = world.app.ports.clock.now();
    let patch = |body: Value| world.patch(admin, &key.path(), &body);
    for days in [1, 366] {
        let at = json!({"expires_at": now + Duration::days(days)});
        assert_eq!(
            patch(at.clone()).await.expect(200).json()["expires_at"],
            at["expires_at"]
        );
    }
    for at in [
        json!(now),
        json!(now + Duration::days(367)),
        json!(null),
        json!("tomorrow"),
    ] {
        patch(json!({"expires_at": at}))
            .await
            .problem(422, "validation_failed");
    }
    patch(json!({"service_account": true}))
        .await
        .problem(422, "unknown_field");
    patch(json!({"scopes": ["users.manage"]}))
        .await
        .problem(422, "validation_failed");
    let stale = patch(json!({"name": "New"})).header("If-Match", "\"1\"");
    stale.await.problem(412, "stale_version");
    let narrowed = patch(json!({"scopes": ["projects.read"]})).await.expect(200);
    assert_eq!(narrowed.json()["scopes"], json!(["projects.read"]));
    key.lists_tasks(&world).await.problem(403, "forbidden");
}

#[actix_web::test]
async fn invalid_keys_are_not_created() {
    let world = World::new().await;
    let cases = [
        (json!({"name": "", "scopes": ["tasks.read"]}), "/name"),
        (json!({"name": "a\u{0}b", "scopes": ["tasks.read"]}), "/name"),
        (
            json!({"name": "x".repeat(121), "scopes": ["tasks.read"]}),
            "/name",
        ),
        (json!({"name": "CI", "scopes": []}), "/scopes"),
        (json!({"name": "CI", "scopes": ["tasks.fly"]}), "/scopes/0"),
        (
            json!({"name": "CI", "scopes": ["tasks.read", "api_keys.manage"]}),
            "/scopes/1",
        ),
        (json!({"name": "CI", "scopes": ["mail.send"]}), "/scopes/0"),
        (
            json!({"name": "CI", "scopes": ["tasks.read"], "allowed_networks": []}),
            "/allowed_networks",
        ),
        (
            json!({"name": "CI", "scopes": ["tasks.read"], "allowed_networks": ["10.0.0.1/8"]}),
            "/allowed_networks/0",
        ),
    ];
    for (body, pointer) in cases {
        let reply = world.post(&world.acme.admin, KEYS, &body).await;
        assert_eq!(reply.status, 422, "{body}: {}", reply.text());
        let problem = reply.json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM api_keys")
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(count, 0);
}

#[actix_web::test]
async fn guessing_keys_is_held_to_the_rate_of_the_address() {
    let options = Options {
        visitor_rate: Rate::new(5, 5).unwrap(),
        ..Options::default()
    };
    let world = World::with(options).await;
    let known = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    known.lists_tasks(&world).await.expect(200);
    let format = ApiKeyFormat::new("test").unwrap();
    let guess = |n: u128| {
        format
            .issue(world.acme.id, Uuid::from_u128(n).into(), [3; 32])
            .text
    };
    let mut statuses = Vec::new();
    for n in 100..110 {
        statuses.push(world.client.get(TASKS).bearer(&guess(n)).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429, 429, 429]);
    // A key in use is not kept out by whoever guesses from the same address.
    known.lists_tasks(&world).await.expect(200);
    // A wrong checksum costs nothing and tells nothing.
    let broken = world.client.get(TASKS).bearer(&guess(1)[..90]);
    broken.await.problem(401, "unauthenticated");
}

#[actix_web::test]
async fn good_keys_give_back_what_their_first_use_took() {
    let options = Options {
        visitor_rate: Rate::new(5, 5).unwrap(),
        ..Options::default()
    };
    let world = World::with(options).await;
    for _ in 0..12 {
        let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
        key.lists_tasks(&world).await.expect(200);
        // What is given back is given back by a task of its own.
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn a_key_that_names_another_tenant_is_refused_and_recorded() {
    let world = World::new().await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    let other = key
        .get(&world, TASKS)
        .header("X-Tenant-ID", world.globex.id.to_string());
    other.await.problem(403, "tenant_mismatch");
    let (_, row) = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(
        (&row["action"], &row["actor_id"]),
        (&json!("tenant.mismatch"), &json!(key.id))
    );
    let foreign = format!("{TASKS}/{}", world.globex.task);
    key.get(&world, &foreign).await.problem(404, "not_found");
    let path = format!("{KEYS}/{}", key.id);
    world
        .get(&world.globex.admin, &path)
        .await
        .problem(404, "not_found");
    world
        .delete(&world.globex.admin, &path)
        .await
        .problem(404, "not_found");
    // The same ids with another tenant in the text are no key of that tenant.
    let format = ApiKeyFormat::new("test").unwrap();
    let moved = format
        .issue(world.globex.id, key.id.parse::<Uuid>().unwrap().into(), [3; 32])
        .text;
    world
        .client
        .get(TASKS)
        .bearer(&moved)
        .await
        .problem(401, "unauthenticated");
    key.lists_tasks(&world).await.expect(200);
}

#[actix_web::test]
async fn a_key_of_a_suspended_tenant_reads_and_can_be_revoked() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let key = Key::new(&world, admin, &scoped(&["tasks.read", "tasks.write"])).await;
    world.set_status(&world.acme, "suspended").await;
    key.lists_tasks(&world).await.expect(200);
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    let write = key.post(&world, &path, &json!({"title": "New"}));
    write.await.problem(403, "tenant_suspended");
    let create = world.post(admin, KEYS, &scoped(&["tasks.read"]));
    create.await.problem(403, "tenant_suspended");
    world.delete(admin, &key.path()).await.expect(204);
    key.lists_tasks(&world).await.problem(401, "unauthenticated");
    let key = Key::new(&world, &world.globex.admin, &scoped(&["tasks.read"])).await;
    world.set_status(&world.globex, "deleted").await;
    key.lists_tasks(&world).await.problem(410, "tenant_gone");
}

#[actix_web::test]
async fn last_use_is_stored_later_and_at_most_every_five_minutes() {
    let world = World::new().await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    let last_used = async || {
        let read = world.get(&world.acme.admin, &key.path()).await;
        read.expect(200).json()["last_used_at"].clone()
    };
    let before = world.digest(&world.acme).await;
    key.lists_tasks(&world).await.expect(200);
    assert_eq!(
        world.digest(&world.acme).await,
        before,
        "a request writes nothing"
    );
    assert_eq!(last_used().await, Value::Null);
    assert_eq!(world.app.key_uses().flush(&world.app).await, 1);
    let first = last_used().await;
    assert!(first.is_string(), "{first}");
    world.clock.advance(Duration::seconds(299));
    key.lists_tasks(&world).await.expect(200);
    assert_eq!(world.app.key_uses().flush(&world.app).await, 0);
    assert_eq!(last_used().await, first);
    world.clock.advance(Duration::seconds(1));
    key.lists_tasks(&world).await.expect(200);
    assert_eq!(world.app.key_uses().flush(&world.app).await, 1);
    assert_ne!(last_used().await, first);
    // No version of the key: it is no change of it.
    let read = world.get(&world.acme.admin, &key.path()).await.expect(200);
    assert_eq!(read.json()["version"], 1);
}

#[actix_web::test]
async fn idempotency_keys_of_a_key_are_its_own() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let create = || {
        world
            .post(admin, KEYS, &scoped(&["projects.write", "projects.read"]))
            .header("Idempotency-Key", "k1")
    };
    let first = create().await.expect(201);
    let again = create().await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json(), first.json());
    let key = Key::of(&first.json());
    let project = |name: &str| {
        key.post(&world, "/api/v1/projects", &json!({"name": name}))
            .header("Idempotency-Key", "k2")
    };
    let made = project("One").await.expect(201).json();
    assert_eq!(project("One").await.expect(201).json(), made);
    project("Two").await.problem(422, "idempotency_key_reused");
    // The creator's key of the same text stands for another request.
    let own = world
        .post(admin, "/api/v1/projects", &json!({"name": "Three"}))
        .header("Idempotency-Key", "k2");
    own.await.expect(201);
}

#[actix_web::test]
async fn a_key_and_its_creator_do_not_use_up_each_others_rate() {
    let options = Options {
        rates: std::sync::Arc::new(TenantRates {
            tenant: Rate::new(1_000, 1_000),
            user: Rate::new(6, 6),
        }),
        ..Options::default()
    };
    let world = World::with(options).await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    for _ in 0..6 {
        key.lists_tasks(&world).await.expect(200);
    }
    key.lists_tasks(&world).await.problem(429, "rate_limited");
    world.get(&world.acme.admin, TASKS).await.expect(200);
}

#[actix_web::test]
async fn last_place_for_a_key_is_taken_once() {
    let world = World::new().await;
    let fill = format!(
        "INSERT INTO api_keys (tenant_id, id, created_at, name, user_id, service_account, scopes, allowed_networks, secret_hash, \
         expires_at, notified, updated_at, version) SELECT tenant_id, gen_random_uuid(), now(), 'K', id, false, '[]', '[]', \
         sha256('x'), now(), 'far', now(), 1 FROM users, generate_series(1, 199) WHERE id = '{}'",
        world.acme.admin.id
    );
    world.sql(&fill).await;
    let create = || {
        world
            .post(&world.acme.admin, KEYS, &scoped(&["tasks.read"]))
            .send()
    };
    let mut statuses: Vec<u16> = join_all((0..5).map(|_| create()))
        .await
        .iter()
        .map(|reply| reply.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409]);
    let problem = create().await.problem(409, "conflict").json();
    assert_eq!(
        problem["detail"],
        "The tenant has 200 API keys, which is the maximum: revoke one first."
    );
    Key::new(&world, &world.globex.admin, &scoped(&["tasks.read"])).await;
}

#[actix_web::test]
async fn revoked_keys_are_bounded_in_number() {
    let world = World::new().await;
    let fill = format!(
        "INSERT INTO api_keys (tenant_id, id, created_at, name, user_id, service_account, scopes, allowed_networks, secret_hash, \
         expires_at, notified, revoked_at, updated_at, version) SELECT tenant_id, gen_random_uuid(), now(), 'K', id, false, '[]', '[]', \
         sha256('x'), now(), 'far', '2020-01-01'::timestamptz + n * interval '1 minute', now(), 1 \
         FROM users, generate_series(1, 250) n WHERE id = '{}'",
        world.acme.admin.id
    );
    world.sql(&fill).await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    world.delete(&world.acme.admin, &key.path()).await.expect(204);
    let kept: Vec<bool> = sqlx::query_scalar(
        "SELECT id = $1 FROM api_keys WHERE revoked_at IS NOT NULL ORDER BY revoked_at DESC",
    )
    .bind(key.id.parse::<Uuid>().unwrap())
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    assert_eq!((kept.len(), kept[0]), (200, true));
}

#[actix_web::test]
async fn admins_are_mailed_once_before_and_once_after_the_end() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let now = world.app.ports.clock.now();
    for (name, days) in [("Deploy", 20), ("Backup", 21), ("Late", 300), ("Short", 2)] {
        let body = json!({"name": name, "scopes": ["tasks.read"], "expires_at": now + Duration::days(days)});
        Key::new(&world, admin, &body).await;
    }
    Key::new(&world, &world.globex.admin, &scoped(&["tasks.read"])).await;
    let run = async || {
        let because = SystemScope::because("a test of expiry");
        for tenant in [world.acme.id, world.globex.id] {
            let scope = world.app.ports.gate.system(because, tenant).await.unwrap();
            let cx = Cx::new(world.app.clone(), scope, Origin::default());
            NotifyOfExpiry.run(&cx, Nothing {}).await.unwrap();
        }
    };
    let mails = async || -> Vec<String> {
        let sql =
            "SELECT j.payload->'notice'->'keys' FROM jobs j WHERE kind = 'mail.send' ORDER BY created_at, id";
        let rows: Vec<Value> = sqlx::query_scalar(sql)
            .fetch_all(&mut world.database.admin().await)
            .await
            .unwrap();
        let text = |key: &Value| format!("{} {}", key["name"].as_str().unwrap(), key["is_over"]);
        rows.iter()
            .map(|keys| {
                keys.as_array()
                    .unwrap()
                    .iter()
                    .map(text)
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .collect()
    };
    run().await;
    assert_eq!(mails().await, [""; 0]);
    world.clock.advance(Duration::days(14));
    run().await;
    run().await;
    let first = "Short true, Deploy false, Backup false";
    assert_eq!(mails().await, [first]);
    world.clock.advance(Duration::days(7));
    run().await;
    run().await;
    assert_eq!(mails().await, [first, "Deploy true, Backup true"]);
    let events = world.audit(&world.acme).await;
    let count = |wanted: &str| events.iter().filter(|(action, _)| action == wanted).count();
    assert_eq!((count("api_key.expires_soon"), count("api_key.expired")), (2, 3));
}

#[actix_web::test]
async fn a_key_that_changes_while_it_is_used_is_never_used_stale() {
    let world = World::new().await;
    let key = Key::new(&world, &world.acme.admin, &scoped(&["tasks.read"])).await;
    for _ in 0..10 {
        key.lists_tasks(&world).await.expect(200);
        let hits = world.cache.stats().hits;
        key.lists_tasks(&world).await.expect(200);
        assert!(
            world.cache.stats().hits > hits,
            "the second use needs no look into the database"
        );
        let change = json!({"scopes": ["projects.read"]});
        world
            .patch(&world.acme.admin, &key.path(), &change)
            .await
            .expect(200);
        key.lists_tasks(&world).await.problem(403, "forbidden");
        let change = json!({"scopes": ["tasks.read"]});
        world
            .patch(&world.acme.admin, &key.path(), &change)
            .await
            .expect(200);
    }
}

#[actix_web::test]
async fn a_key_of_another_tenant_does_not_log_in_to_this_one() {
    let world = World::new().await;
    let key = Key::new(&world, &world.globex.admin, &scoped(&["tasks.read"])).await;
    let body = json!({"tenant_slug": "acme", "email": world.acme.admin.email, "password": PASSWORD});
    let login = world
        .client
        .post("/api/v1/auth/login", &body)
        .header("X-API-Key", &key.text);
    login.await.problem(403, "tenant_mismatch");
}
