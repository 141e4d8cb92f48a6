//! The keys that sign access tokens, and their rotation.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::identity::SigningKeyState;
use tenantry_domain::kernel::SystemScope;
use tenantry_system::SigningKey;
use tenantry_tenancy::OperatorCx;
use tenantry_tenancy::identity::signing_key::{self, KeyUsage, SigningKeyError};
use tenantry_tests::{Client, Options, World};

const JWKS: &str = "/.well-known/jwks.json";
const ME: &str = "/api/v1/auth/me";

fn command(world: &World) -> OperatorCx {
    OperatorCx::command(&world.app, SystemScope::because("a test of signing keys"))
}

async fn rotate(world: &World) -> String {
    signing_key::rotate(&command(world), 600).await.unwrap().kid
}

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn published(client: &Client) -> BTreeSet<String> {
    let keys = client.get(JWKS).await.expect(200).json();
    let keys = keys["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn refresh(client: &Client, token: &str) -> (String, String) {
    let body = json!({ "refresh_token": token });
    let reply = client
        .post("/api/v1/auth/refresh", &body)
        .await
        .expect(200)
        .json();
    let text = |name: &str| reply[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

/// Two servers read the keys at different times, and no request of a session is refused in between.
#[actix_web::test]
async fn a_rotation_ends_no_session_on_any_server() {
    let world = World::new().await;
    let other = world.instance(&Options::default()).app;
    let elsewhere = world.client_of(other.clone(), &Options::default()).await;
    let (here, who) = (&world.client, &world.acme.member);
    let before = kid(&who.access_token);

    let new = rotate(&world).await;
    signing_key::refresh(&world.app).await.unwrap();
    assert_eq!(
        published(here).await,
        BTreeSet::from([before.clone(), new.clone()])
    );
    assert_eq!(published(&elsewhere).await, BTreeSet::from([before.clone()]));
    let (token, rotated) = refresh(here, &who.refresh_token).await;
    assert_eq!(kid(&token), before, "it is published and does not sign yet");

    signing_key::refresh(&other).await.unwrap();
    world.clock.advance(Duration::seconds(600));
    let (next, rotated) = refresh(here, &rotated).await;
    assert_eq!(kid(&next), new);
    for client in [here, &elsewhere] {
        for token in [&token, &next] {
            client.get(ME).bearer(token).await.expect(200);
        }
    }
    let (after, _) = refresh(&elsewhere, &rotated).await;
    assert_eq!(kid(&after), new, "both agree by the clock");
}

#[actix_web::test]
async fn a_former_key_is_deleted_when_its_tokens_have_expired() {
    let world = World::new().await;
    let one = rotate(&world).await;
    world.clock.advance(Duration::seconds(600));
    signing_key::refresh(&world.app).await.unwrap();
    let operator = world.operator("olga@example.com").await;
    assert_eq!(kid(&operator), one, "operators' tokens have the same keys");
    let (last, rotated) = refresh(&world.client, &world.acme.admin.refresh_token).await;
    assert_eq!(kid(&last), one);

    let two = rotate(&world).await;
    signing_key::refresh(&world.app).await.unwrap();
    let refused = signing_key::rotate(&command(&world), 600).await.unwrap_err();
    assert!(
        matches!(&refused, SigningKeyError::Pending { kid, .. } if *kid == two),
        "{refused}"
    );
    world.clock.advance(Duration::seconds(600));
    world.client.get(ME).bearer(&last).await.expect(200);
    let admin = world.client.get("/api/v1/admin/tenants").bearer(&operator);
    admin.await.expect(200);

    let (_, rotated) = refresh(&world.client, &rotated).await;
    world.clock.advance(Duration::seconds(3_500));
    let (_, rotated) = refresh(&world.client, &rotated).await;
    world.clock.advance(Duration::seconds(191));
    assert!(
        !published(&world.client).await.contains(&one),
        "by the clock alone"
    );
    signing_key::refresh(&world.app).await.unwrap();
    let listed = signing_key::list(&command(&world)).await.unwrap();
    let stored: Vec<_> = listed.iter().filter(|key| key.signs_from.is_some()).collect();
    let [key] = &stored[..] else { panic!("{listed:?}") };
    assert_eq!(
        (&key.kid, key.usage),
        (&two, KeyUsage::Stored(SigningKeyState::Signing))
    );
    refresh(&world.client, &rotated).await;
    let actions: Vec<_> = world
        .operator_events()
        .await
        .into_iter()
        .map(|event| event.0)
        .collect();
    let of_keys: Vec<_> = actions
        .iter()
        .filter(|action| action.starts_with("signing_key."))
        .collect();
    assert_eq!(
        of_keys,
        [
            "signing_key.created",
            "signing_key.created",
            "signing_key.deleted"
        ]
    );
}

/// The private keys are sealed by the configured key: they follow its change, and without it they sign nothing.
#[actix_web::test]
async fn stored_keys_follow_a_change_of_the_configured_key() {
    let (old, new) = (SigningKey::generate().to_pem(), SigningKey::generate().to_pem());
    let keys = |keys: &[&String]| Options {
        keys: keys.iter().map(|key| (*key).clone()).collect(),
        ..Options::default()
    };
    let world = World::with(keys(&[&old])).await;
    let kid = rotate(&world).await;
    let usage = async |app| {
        let cx = OperatorCx::command(app, SystemScope::because("a test of signing keys"));
        let listed = signing_key::list(&cx).await.unwrap();
        listed.into_iter().find(|key| key.kid == kid).unwrap().usage
    };
    let alone = world.instance(&keys(&[&new])).app;
    assert_eq!(
        signing_key::refresh(&alone).await.unwrap(),
        std::slice::from_ref(&kid)
    );
    assert_eq!(usage(&alone).await, KeyUsage::Unreadable);

    let both = world.instance(&keys(&[&new, &old])).app;
    let cx = OperatorCx::command(&both, SystemScope::because("a test of signing keys"));
    assert_eq!(signing_key::reseal(&cx).await.unwrap(), (1, vec![]));
    assert_eq!(signing_key::reseal(&cx).await.unwrap(), (0, vec![]));
    assert_eq!(signing_key::refresh(&alone).await.unwrap(), [""; 0]);
    assert_eq!(usage(&alone).await, KeyUsage::Stored(SigningKeyState::Published));
}

#[actix_web::test]
async fn two_rotations_at_once_create_one_key() {
    let world = World::new().await;
    let (one, other) = (command(&world), command(&world));
    let done = tokio::join!(signing_key::rotate(&one, 600), signing_key::rotate(&other, 600));
    let created = [&done.0, &done.1].iter().filter(|done| done.is_ok()).count();
    assert_eq!(created, 1, "{done:?}");
    for seconds in [i64::MIN, 0, 359, 604_801, i64::MAX] {
        let refused = signing_key::rotate(&one, seconds).await.unwrap_err();
        assert!(matches!(refused, SigningKeyError::Invalid(_)), "{seconds}");
    }
}

/// Others may cache the keys for less time than a new key is published before it signs.
#[actix_web::test]
async fn published_keys_are_cached_for_less_than_a_key_is_published() {
    let world = World::new().await;
    let reply = world.client.get(JWKS).await.expect(200);
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
}
