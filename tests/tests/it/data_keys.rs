//! The data keys of tenants: what is sealed for a tenant opens with its own key only, and with none after a purge.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::sync::Arc;

use chrono::Duration;
use futures_util::future::{join, join_all};
use serde_json::json;
use tenantry_domain::identity::TotpFactor;
use tenantry_domain::kernel::{Clock as _, Seal as _, StoreError, SystemScope, UserId};
use tenantry_domain::tenant::{DataKey, TenantSeal};
use tenantry_persistence::PoolConfig;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::tenant::data_key::{self, DataKeyError, DataKeyReason, DataKeyState, KeepDataKeys};
use tenantry_tenancy::{Cx, Tenancy};
use tenantry_tests::{Client, Options, PASSWORD, Person, Reply, TenantWorld, World, operator_cx};

use crate::mfa::with_factor;

const LOGIN: &str = "/api/v1/auth/login";
const BECAUSE: SystemScope = SystemScope::because("a test");

async fn login(client: &Client, who: &Person, code: &str) -> Reply {
    let slug = who.email.split(['@', '.']).nth(1).unwrap();
    let body = json!({"tenant_slug": slug, "email": who.email, "password": PASSWORD, "totp_code": code});
    client.post(LOGIN, &body).await
}

/// The answer to a code of an app whose secret no known key opens.
fn lost(reply: Reply) {
    let refused = reply.problem(401, "invalid_credentials").json();
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        detail.contains("lost the key") && detail.contains("recovery code"),
        "{detail}"
    );
}

/// The sealed secret of a user's app, as it is stored.
async fn stored(world: &World, user: UserId) -> Vec<u8> {
    sqlx::query_scalar("SELECT sealed_secret FROM totp_factors WHERE user_id = $1")
        .bind(user.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

async fn store(world: &World, user: UserId, sealed: &[u8]) {
    sqlx::query("UPDATE totp_factors SET sealed_secret = $2 WHERE user_id = $1")
        .bind(user.uuid())
        .bind(sealed)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
}

async fn keys_of(world: &World, tenant: &TenantWorld) -> Vec<(i32, Vec<u8>)> {
    sqlx::query_as("SELECT number, sealed FROM data_keys WHERE tenant_id = $1 ORDER BY number")
        .bind(tenant.id.uuid())
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap()
}

async fn numbers(world: &World, tenant: &TenantWorld) -> Vec<i32> {
    let keys = keys_of(world, tenant).await;
    keys.into_iter().map(|(number, _)| number).collect()
}

/// Lets caches expire.
fn minute(world: &World) {
    world.clock.advance(Duration::seconds(61));
}

async fn keep(app: &Arc<Tenancy>, tenant: &TenantWorld) {
    let cx = Cx::enter(app, BECAUSE, tenant.id).await.unwrap().unwrap();
    KeepDataKeys.run(&cx, Nothing {}).await.unwrap();
}

async fn states(world: &World) -> Vec<(i32, DataKeyState)> {
    let listed = data_key::list(&world.app, world.acme.id).await.unwrap();
    listed.into_iter().map(|key| (key.number, key.state)).collect()
}

#[actix_web::test]
async fn secret_opens_with_the_data_key_of_its_tenant_only() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme.member, &world.globex.member);
    let apps = [with_factor(&world, acme).await, with_factor(&world, globex).await];
    let sealed = stored(&world, acme.id).await;
    assert_eq!(sealed[..8], DataKey::prefix(1));
    let place = TotpFactor::place(world.acme.id, acme.id);
    let server = &world.app.ports.seal;
    assert_eq!(server.open(&place, &sealed[8..]), None, "the server's key alone");
    let seal = world.cx(acme).await.seal_alone(&sealed).await.unwrap();
    assert!(seal.open(&place, &sealed).is_some());
    assert_eq!(
        seal.open(&TotpFactor::place(world.acme.id, globex.id), &sealed),
        None
    );
    // In a row of the other tenant, also with the key of the other tenant's row.
    let own = stored(&world, globex.id).await;
    store(&world, globex.id, &sealed).await;
    for app in &apps {
        lost(login(&world.client, globex, &app.next_code(&world)).await);
    }
    let found = data_key::check(&world.app, world.globex.id).await.unwrap();
    assert_eq!(
        found,
        [format!(
            "no known key opens the second factor of user {}",
            globex.id
        )]
    );
    let keys =
        "UPDATE data_keys k SET sealed = (SELECT o.sealed FROM data_keys o WHERE o.tenant_id <> k.tenant_id)";
    world
        .sql(format!("{keys} WHERE k.tenant_id = '{}'", world.globex.id))
        .await;
    minute(&world);
    lost(login(&world.client, globex, &apps[0].next_code(&world)).await);
    let found = data_key::check(&world.app, world.globex.id).await.unwrap();
    assert_eq!(found[0], "no key of the server opens data key 1");
    assert_ne!(own, sealed);
    assert_eq!(data_key::check(&world.app, world.acme.id).await.unwrap(), [""; 0]);
}

/// What a backup without the key table has, the server's key and what is left in the database open nothing.
#[actix_web::test]
async fn purge_destroys_what_opens_copies_of_the_rows() {
    let world = World::new().await;
    let who = &world.acme.admin;
    with_factor(&world, who).await;
    let sealed = stored(&world, who.id).await;
    let place = TotpFactor::place(world.acme.id, who.id);
    let server = Arc::clone(&world.app.ports.seal);
    let [(number, key)] = keys_of(&world, &world.acme).await.try_into().unwrap();
    let copy = DataKey {
        number,
        sealed: key,
        created_at: world.clock.now(),
    };
    let with_key = TenantSeal::new(world.acme.id, server.clone(), &[copy]);
    assert!(with_key.open(&place, &sealed).is_some(), "before the purge");
    let other = world.instance(&Options::default()).app;
    let cx = Cx::enter(&other, BECAUSE, world.acme.id).await.unwrap().unwrap();
    cx.seal_alone(&sealed).await.unwrap();

    world.purge(&world.acme).await;
    assert_eq!(numbers(&world, &world.acme).await, [0; 0]);
    assert!(world.app.ports.tenant_seals.cached(world.acme.id).is_none());
    let left: Vec<(i32, Vec<u8>)> = sqlx::query_as("SELECT number, sealed FROM data_keys")
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap();
    assert!(!left.is_empty());
    let left: Vec<DataKey> = left
        .into_iter()
        .map(|(number, sealed)| DataKey {
            number,
            sealed,
            created_at: world.clock.now(),
        })
        .collect();
    let without = TenantSeal::new(world.acme.id, server.clone(), &left);
    assert_eq!(without.open(&place, &sealed), None);
    assert_eq!(server.open(&place, &sealed), None);
    assert_eq!(server.open(&place, &sealed[8..]), None);
    // Another process, which had the key in memory.
    minute(&world);
    assert!(other.ports.tenant_seals.cached(world.acme.id).is_none());
}

#[actix_web::test]
async fn rotation_seals_anew_and_destroys_former_keys_later() {
    let world = World::new().await;
    let who = &world.acme.member;
    let app = with_factor(&world, who).await;
    let body = json!({"name": "Once"});
    let path = "/api/v1/projects";
    let once = async || {
        let asked = world.post(&world.acme.admin, path, &body);
        asked.header("Idempotency-Key", "k").await.expect(201)
    };
    let first = once().await;
    let before = stored(&world, who.id).await;
    minute(&world);
    assert_eq!(
        data_key::rotate(&operator_cx(&world.app), world.acme.id)
            .await
            .unwrap(),
        2
    );
    let states = states(&world).await;
    assert!(
        matches!(states[..], [(1, DataKeyState::Opens { until }), (2, DataKeyState::Seals)]
            if until > world.clock.now() + DataKey::KEPT - Duration::minutes(1)),
        "{states:?}"
    );
    // What is sealed by the former key opens, and a login seals it anew.
    let again = once().await;
    assert_eq!(again.header("Idempotent-Replayed"), Some("true"));
    assert_eq!(again.json(), first.json());
    assert_eq!(stored(&world, who.id).await, before);
    // The command was killed after the rotation: its job is there.
    let jobs = "SELECT 1 FROM jobs WHERE kind = 'data_key.keep'";
    assert_eq!(world.sql(jobs).await, 1);
    keep(&world.app, &world.acme).await;
    assert_eq!(stored(&world, who.id).await[..8], DataKey::prefix(2));
    assert_eq!(numbers(&world, &world.acme).await, [1, 2]);
    login(&world.client, who, &app.next_code(&world))
        .await
        .expect(200);

    world.clock.advance(DataKey::KEPT);
    keep(&world.app, &world.acme).await;
    assert_eq!(numbers(&world, &world.acme).await, [2]);
    login(&world.client, who, &app.next_code(&world))
        .await
        .expect(200);
    keep(&world.app, &world.acme).await;
    let actions = world.audit(&world.acme).await;
    let of_keys: Vec<_> = actions
        .iter()
        .filter(|(action, _)| action.starts_with("data_key.") || action == "settings.resealed")
        .map(|(action, _)| action.as_str())
        .collect();
    assert_eq!(
        of_keys,
        ["data_key.rotated", "settings.resealed", "data_key.destroyed"]
    );
    assert_eq!(numbers(&world, &world.globex).await, [1]);
}

/// Rows from before there were data keys.
#[actix_web::test]
async fn values_under_the_servers_key_open_and_are_sealed_anew() {
    let world = World::new().await;
    let who = &world.acme.member;
    let app = with_factor(&world, who).await;
    let place = TotpFactor::place(world.acme.id, who.id);
    let sealed = stored(&world, who.id).await;
    let seal = world.cx(who).await.seal_alone(&sealed).await.unwrap();
    let plain = seal.open(&place, &sealed).unwrap();
    store(&world, who.id, &world.app.ports.seal.seal(&place, &plain)).await;
    world
        .sql(format!(
            "DELETE FROM data_keys WHERE tenant_id = '{}'",
            world.acme.id
        ))
        .await;
    minute(&world);
    login(&world.client, who, &app.next_code(&world))
        .await
        .expect(200);
    let found = data_key::check(&world.app, world.acme.id).await.unwrap();
    assert_eq!(
        found,
        ["the tenant has no data key: its upkeep or `tenantry keys rotate` adds one"]
    );
    keep(&world.app, &world.acme).await;
    assert_eq!(stored(&world, who.id).await[..8], DataKey::prefix(1));
    login(&world.client, who, &app.next_code(&world))
        .await
        .expect(200);
    assert_eq!(data_key::check(&world.app, world.acme.id).await.unwrap(), [""; 0]);
}

#[actix_web::test]
async fn rotations_at_once_add_one_key_each() {
    let world = World::new().await;
    let who = &world.acme.member;
    let app = with_factor(&world, who).await;
    let other = world.instance(&Options::default()).app;
    let tenant = world.acme.id;
    let (one, two) = join(
        data_key::rotate(&operator_cx(&world.app), tenant),
        data_key::rotate(&operator_cx(&other), tenant),
    )
    .await;
    let mut made = [one.unwrap(), two.unwrap()];
    made.sort_unstable();
    assert_eq!(made, [2, 3]);
    join(keep(&world.app, &world.acme), keep(&other, &world.acme)).await;
    assert_eq!(stored(&world, who.id).await[..8], DataKey::prefix(3));
    login(&world.client, who, &app.next_code(&world))
        .await
        .expect(200);
    // Their number is bounded.
    for _ in 3..DataKey::MOST {
        data_key::rotate(&operator_cx(&world.app), tenant).await.unwrap();
    }
    let refused = data_key::rotate(&operator_cx(&world.app), tenant)
        .await
        .unwrap_err();
    assert!(matches!(refused, DataKeyError::Own(DataKeyReason::TooMany)));
    keep(&world.app, &world.acme).await;
    login(&world.client, who, &app.next_code(&world))
        .await
        .expect(200);
}

/// The other server has cached the former keys, and no invalidation reaches it.
#[actix_web::test]
async fn server_opens_at_once_what_another_sealed_under_a_newer_key() {
    let world = World::new().await;
    let who = &world.acme.member;
    let other = world.instance(&Options::default()).app;
    let elsewhere = world.client_of(other.clone(), &Options::default()).await;
    let cx = Cx::enter(&other, BECAUSE, world.acme.id).await.unwrap().unwrap();
    assert_eq!(cx.seal_alone(b"").await.unwrap().current(), Some(1));
    data_key::rotate(&operator_cx(&world.app), world.acme.id)
        .await
        .unwrap();
    let app = with_factor(&world, who).await;
    assert_eq!(stored(&world, who.id).await[..8], DataKey::prefix(2));
    assert_eq!(cx.seal_alone(b"").await.unwrap().current(), Some(1), "cached");
    world.clock.advance(Duration::seconds(1));
    login(&elsewhere, who, &app.next_code(&world)).await.expect(200);
}

#[actix_web::test]
async fn lost_data_key_is_named_and_a_recovery_code_logs_in() {
    let world = World::new().await;
    let who = &world.acme.member;
    let app = with_factor(&world, who).await;
    let overwritten = "UPDATE data_keys SET sealed = sha256(sealed) || sha256(sealed)";
    world
        .sql(format!("{overwritten} WHERE tenant_id = '{}'", world.acme.id))
        .await;
    minute(&world);
    lost(login(&world.client, who, &app.next_code(&world)).await);
    login(&world.client, who, app.recovery_code(0)).await.expect(200);
    let user = format!("no known key opens the second factor of user {}", who.id);
    assert_eq!(
        data_key::check(&world.app, world.acme.id).await.unwrap(),
        ["no key of the server opens data key 1", user.as_str()]
    );
    assert_eq!(states(&world).await, [(1, DataKeyState::Unreadable)]);
    // Requests go on, and the next key seals. The lost one is kept: the server's former key may come back.
    let body = json!({"name": "Once"});
    let asked = world.post(&world.acme.admin, "/api/v1/projects", &body);
    asked.header("Idempotency-Key", "k").await.expect(201);
    data_key::rotate(&operator_cx(&world.app), world.acme.id)
        .await
        .unwrap();
    let other = &world.acme.viewer;
    let app = with_factor(&world, other).await;
    world.clock.advance(DataKey::KEPT);
    keep(&world.app, &world.acme).await;
    assert_eq!(numbers(&world, &world.acme).await, [1, 2]);
    login(&world.client, other, &app.next_code(&world))
        .await
        .expect(200);
}

/// A key that is not committed yet is not cached: what would be sealed under it could be lost.
#[actix_web::test]
async fn key_of_an_undone_transaction_is_not_cached() {
    let world = World::new().await;
    let tenant = world.acme.id;
    let cx = Cx::enter(&world.app, BECAUSE, tenant).await.unwrap().unwrap();
    minute(&world);
    let key = DataKey {
        number: 2,
        sealed: world.app.ports.seal.new_data_key(&DataKey::place(tenant, 2)),
        created_at: world.clock.now(),
    };
    let undone = cx
        .write(async |work| {
            work.data_keys().insert(&key).await?;
            assert_eq!(cx.seal(work).await?.current(), Some(2));
            Err::<(), _>(StoreError::Other("undone".into()))
        })
        .await;
    assert!(undone.is_err());
    assert_eq!(cx.seal_alone(b"").await.unwrap().current(), Some(1));
}

/// With one connection a load that wanted a second one would wait for itself.
#[actix_web::test]
async fn keys_are_loaded_with_the_only_connection() {
    let world = World::new().await;
    let options = Options {
        pool: PoolConfig {
            size: 1,
            ..PoolConfig::default()
        },
        ..Options::default()
    };
    let client = world.other_instance(&options).await;
    for round in 0..3 {
        let asked = (0..8).map(async |number| {
            let name = format!("{round}-{number}");
            let request = client.post("/api/v1/projects", &json!({ "name": name }));
            let who = [&world.acme.admin, &world.globex.admin][number % 2];
            let request = request.bearer(&who.access_token);
            request.header("Idempotency-Key", &name).await.expect(201)
        });
        join_all(asked).await;
        minute(&world);
    }
}
