//! Passkeys: registration, login, forged responses, and looking after them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_domain::identity::FACTOR_SETTLES_AFTER;
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::{AccountRates, Rate};
use tenantry_tenancy::operations::job::JobHandler as _;
use tenantry_tenancy::tenant::purge::{Ended, Purge};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{Options, PASSWORD, Person, Reply, World, outside};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::authenticator::Authenticator;
use crate::headers::Log;
use crate::mfa::with_factor;
use crate::sql::Statements;

const REGISTRATION: &str = "/api/v1/auth/passkeys/registration";
const LOGIN: &str = "/api/v1/auth/passkeys/login";
const PASSKEYS: &str = "/api/v1/auth/passkeys";
const PASSWORD_LOGIN: &str = "/api/v1/auth/login";
const SETTINGS: &str = "/api/v1/tenant/settings";
const ME: &str = "/api/v1/auth/me";

fn text(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap().to_owned()
}

fn slug_of(who: &Person) -> &str {
    who.email.split(['@', '.']).nth(1).unwrap()
}

/// A registration that has begun.
pub(crate) async fn registration(world: &World, who: &Person) -> Value {
    let body = json!({"password": PASSWORD});
    let begun = world.post(who, REGISTRATION, &body).await;
    begun.expect(200).json()
}

pub(crate) async fn finish_registration(
    world: &World,
    who: &Person,
    token: &Value,
    credential: &Value,
) -> Reply {
    let body = json!({"token": token, "credential": credential, "name": "Laptop"});
    world.put(who, REGISTRATION, &body).await
}

/// Registers a passkey, and returns it with its id.
pub(crate) async fn register(world: &World, who: &Person) -> (Authenticator, String) {
    let mut authenticator = Authenticator::new();
    let begun = registration(world, who).await;
    let credential = authenticator.create(&begun["publicKey"]);
    let done = finish_registration(world, who, &begun["token"], &credential).await;
    (authenticator, text(&done.expect(201).json(), "id"))
}

/// A login that has begun, in the tenant of a user.
async fn login(world: &World, slug: &str) -> Value {
    let begun = world.client.post(LOGIN, &json!({"tenant_slug": slug})).await;
    begun.expect(200).json()
}

async fn finish_login(world: &World, token: &Value, credential: &Value) -> Reply {
    let body = json!({"token": token, "credential": credential});
    world.client.put(LOGIN, &body).await
}

/// Logs in with an honest response.
pub(crate) async fn log_in(world: &World, who: &Person, authenticator: &Authenticator) -> Reply {
    let begun = login(world, slug_of(who)).await;
    finish_login(world, &begun["token"], &authenticator.get(&begun["publicKey"])).await
}

async fn log_in_with_password(world: &World, who: &Person) -> Reply {
    let body = json!({"tenant_slug": slug_of(who), "email": who.email, "password": PASSWORD});
    world.client.post(PASSWORD_LOGIN, &body).await
}

/// The person in another session.
fn in_session(who: &Person, login: &Reply) -> Person {
    Person {
        access_token: text(&login.json(), "access_token"),
        ..who.clone()
    }
}

async fn require_factor(world: &World, of: &str) {
    let body = json!({"security.mfa_required": of});
    let change = world.patch(&world.acme.admin, SETTINGS, &body);
    change.await.expect(200);
}

async fn count(world: &World, table: &'static str) -> i64 {
    let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    let mut admin = world.database.admin().await;
    sqlx::query_scalar(sql).fetch_one(&mut admin).await.unwrap()
}

async fn actions(world: &World) -> Vec<String> {
    let audit = world.audit(&world.acme).await.into_iter();
    let actions = audit.map(|(action, _)| action);
    actions.filter(|action| action.starts_with("passkey.")).collect()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Everything that can be done with passkeys, for tests of statements.
pub(crate) async fn use_all(world: &World) {
    let (who, admin) = (&world.globex.viewer, &world.globex.admin);
    register(world, admin).await;
    let (authenticator, id) = register(world, who).await;
    log_in(world, who, &authenticator).await.expect(200);
    world.get(who, PASSKEYS).await.expect(200);
    let path = format!("{PASSKEYS}/{id}");
    world
        .patch(who, &path, &json!({"name": "Phone"}))
        .await
        .expect(200);
    world.delete(who, &path).await.expect(204);
    register(world, who).await;
    // A factor of today resets none of others.
    sqlx::raw_sql("UPDATE passkeys SET created_at = created_at - interval '1 day'")
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    let reset = format!("/api/v1/users/{}/reset-mfa", who.id);
    world.post(admin, &reset, &json!({})).await.expect(204);
}

#[actix_web::test]
async fn passkey_is_registered_used_renamed_and_removed() {
    let world = World::new().await;
    let (member, other) = (&world.acme.member, world.digest(&world.globex).await);
    let begun = registration(&world, member).await;
    let options = &begun["publicKey"];
    assert_eq!(options["rp"], json!({"id": "example.test", "name": "Acme Inc"}));
    assert_eq!(options["user"]["name"], member.email);
    assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
    assert_eq!(begun["expires_in"], 300);
    let mut authenticator = Authenticator::new();
    let credential = authenticator.create(options);
    let done = finish_registration(&world, member, &begun["token"], &credential)
        .await
        .expect(201);
    let id = text(&done.json(), "id");
    assert_eq!(done.header("location"), Some(format!("{PASSKEYS}/{id}").as_str()));
    assert_eq!(
        (
            &done.json()["name"],
            &done.json()["synced"],
            &done.json()["last_used_at"]
        ),
        (&json!("Laptop"), &json!(true), &Value::Null)
    );

    let session = log_in(&world, member, &authenticator).await.expect(200);
    assert_eq!(session.json()["user"]["email"], member.email);
    assert_eq!(session.json()["tenant"]["slug"], "acme");
    let member = in_session(member, &session);
    assert!(claims(&member.access_token)["mfa_at"].is_i64());
    // It may be on several devices, so the key is in software.
    assert_eq!(claims(&member.access_token)["amr"], json!(["swk", "user", "mfa"]));
    world.get(&member, ME).await.expect(200);
    let listed = world.get(&member, PASSKEYS).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert!(listed["data"][0]["last_used_at"].is_string());

    let path = format!("{PASSKEYS}/{id}");
    let renamed = world.patch(&member, &path, &json!({"name": " Phone "})).await;
    assert_eq!(renamed.expect(200).json()["name"], "Phone");
    for wrong in ["", " ", "a\nb", &"x".repeat(61)] {
        let renamed = world.patch(&member, &path, &json!({"name": wrong})).await;
        renamed.problem(422, "validation_failed");
    }
    for stranger in [&world.acme.admin, &world.globex.member] {
        let renamed = world.patch(stranger, &path, &json!({"name": "Mine"})).await;
        renamed.problem(404, "not_found");
        world.delete(stranger, &path).await.problem(404, "not_found");
    }
    world.delete(&member, &path).await.expect(204);
    world.delete(&member, &path).await.problem(404, "not_found");
    log_in(&world, &member, &authenticator)
        .await
        .problem(401, "invalid_credentials");
    assert_eq!(
        actions(&world).await,
        [
            "passkey.registered",
            "passkey.used",
            "passkey.renamed",
            "passkey.removed"
        ]
    );
    assert_eq!(world.digest(&world.globex).await, other);
}

/// The time of an answer must not say whether a passkey is known: its response is verified in the same way, with the same statements.
#[actix_web::test]
async fn unknown_passkey_costs_the_same_work() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (mut known, _) = register(&world, member).await;
    let mut unknown = Authenticator::new();
    unknown.create(&registration(&world, member).await["publicKey"]);
    let refusal = async |authenticator: &Authenticator| {
        let begun = login(&world, "acme").await;
        let response = authenticator.get(&begun["publicKey"]);
        let (log, statements) = (Log::default(), Statements::default());
        let guard = log.collect();
        finish_login(&world, &begun["token"], &response)
            .await
            .problem(401, "invalid_credentials");
        drop(guard);
        let lines = log.text();
        let mut lines = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let refused = lines.find(|line| line["message"] == "a login with a passkey is not accepted");
        let begun = login(&world, "acme").await;
        let response = authenticator.get(&begun["publicKey"]);
        let guard = tenantry_tests::listen(tracing_subscriber::registry().with(statements.clone()));
        finish_login(&world, &begun["token"], &response)
            .await
            .problem(401, "invalid_credentials");
        drop(guard);
        (refused.unwrap()["refusal"].clone(), statements.taken())
    };
    known.spoilt = true;
    // The first refusal of a kind is recorded, the others are counted.
    refusal(&unknown).await;
    refusal(&known).await;
    let (of_known, of_unknown) = (refusal(&known).await, refusal(&unknown).await);
    // The signature of an unknown one is verified, too, before it is refused.
    let reason = of_unknown.0.as_str().unwrap();
    assert!(reason.contains("signature"), "{of_unknown:?}");
    assert_eq!(of_known, of_unknown);
}

#[actix_web::test]
async fn forged_logins_are_refused_alike() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (mut real, _) = register(&world, member).await;
    let (theirs, _) = register(&world, &world.globex.member).await;
    let other = world.digest(&world.globex).await;
    let sessions = count(&world, "refresh_sessions").await;

    let mut replies = Vec::new();
    // A passkey of another tenant, and one of nobody.
    replies.push(log_in(&world, member, &theirs).await);
    let mut unknown = Authenticator::new();
    unknown.create(&registration(&world, member).await["publicKey"]);
    replies.push(log_in(&world, member, &unknown).await);
    // Another key under the id of the real one.
    let handle = registration(&world, member).await["publicKey"]["user"]["id"].clone();
    unknown.pretend(&real.id(), handle);
    replies.push(log_in(&world, member, &unknown).await);
    // The real key for another user.
    let admin = registration(&world, &world.acme.admin).await["publicKey"]["user"]["id"].clone();
    let (mut confused, _) = register(&world, member).await;
    confused.pretend(&confused.id(), admin);
    replies.push(log_in(&world, member, &confused).await);
    let lies: [fn(&mut Authenticator); 10] = [
        |lie| lie.origin = "https://app.example.test.evil.example",
        |lie| lie.origin = "http://app.example.test",
        |lie| lie.origin = "https://example.test",
        |lie| lie.domain = "evil.example",
        |lie| lie.verified = false,
        |lie| lie.present = false,
        |lie| lie.kind = Some("webauthn.create"),
        |lie| lie.challenge = Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
        |lie| lie.cross_origin = true,
        |lie| lie.spoilt = true,
    ];
    for lie in lies {
        lie(&mut real);
        replies.push(log_in(&world, member, &real).await);
        let honest = Authenticator::new();
        (real.origin, real.domain, real.kind) = (honest.origin, honest.domain, honest.kind);
        (real.verified, real.present, real.challenge) = (true, true, None);
        (real.cross_origin, real.spoilt) = (false, false);
    }
    let bodies: BTreeSet<_> = replies
        .into_iter()
        .map(|reply| reply.problem(401, "invalid_credentials").comparable())
        .collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(count(&world, "refresh_sessions").await, sessions);
    log_in(&world, member, &real).await.expect(200);
    // The response is honest, and of another login.
    let (one, other_login) = (login(&world, "acme").await, login(&world, "acme").await);
    let credential = real.get(&one["publicKey"]);
    let reply = finish_login(&world, &other_login["token"], &credential).await;
    reply.problem(401, "invalid_credentials");
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn forged_registrations_are_refused() {
    let world = World::new().await;
    let member = &world.acme.member;
    let lies: [fn(&mut Authenticator); 9] = [
        |lie| lie.origin = "https://evil.example",
        |lie| lie.domain = "evil.example",
        |lie| lie.verified = false,
        |lie| lie.present = false,
        |lie| lie.kind = Some("webauthn.get"),
        |lie| lie.challenge = Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
        |lie| lie.cross_origin = true,
        // RS1, which is not offered, and ES256K, which is not known.
        |lie| lie.algorithm = -65,
        |lie| lie.algorithm = -47,
    ];
    for lie in lies {
        let mut liar = Authenticator::new();
        lie(&mut liar);
        let begun = registration(&world, member).await;
        let credential = liar.create(&begun["publicKey"]);
        let refused = finish_registration(&world, member, &begun["token"], &credential).await;
        let refused = refused.problem(422, "validation_failed").json();
        assert_eq!(refused["errors"][0]["pointer"], "/credential");
    }
    let begun = registration(&world, member).await;
    for nonsense in [
        json!({}),
        json!({"id": "AAAA"}),
        json!({"id": "\u{0}"}),
        json!({"response": {}}),
    ] {
        let refused = finish_registration(&world, member, &begun["token"], &nonsense).await;
        assert!([400, 422].contains(&refused.status), "{nonsense}");
    }
    assert_eq!(count(&world, "passkeys").await, 0);
    assert_eq!(actions(&world).await, Vec::<String>::new());
}

#[actix_web::test]
async fn login_is_finished_once_even_at_once() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (authenticator, _) = register(&world, member).await;
    let begun = login(&world, "acme").await;
    let credential = authenticator.get(&begun["publicKey"]);
    let logins = (0..4).map(|_| finish_login(&world, &begun["token"], &credential));
    let replies = join_all(logins).await;
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 401).count(),
        3,
        "{statuses:?}"
    );
    let replayed = finish_login(&world, &begun["token"], &credential).await;
    replayed.problem(401, "token_revoked");
    // What is noted of it goes an hour after it would have ended.
    assert_eq!(count(&world, "passkey_ceremonies").await, 2);
    world.clock.advance(Duration::seconds(300 + 3_600));
    let because = SystemScope::because("a test of what is deleted");
    let scope = world.app.ports.gate.system(because, world.acme.id).await.unwrap();
    let cx = Cx::new(Arc::clone(&world.app), scope, Origin::default());
    Purge.run(&cx, Ended { days: 30 }).await.unwrap();
    assert_eq!(count(&world, "passkey_ceremonies").await, 0);
    let replayed = finish_login(&world, &begun["token"], &credential).await;
    replayed.problem(401, "token_revoked");
}

#[actix_web::test]
async fn registration_is_finished_once() {
    let world = World::new().await;
    let member = &world.acme.member;
    let mut authenticator = Authenticator::new();
    let begun = registration(&world, member).await;
    let credential = authenticator.create(&begun["publicKey"]);
    let finish = async || finish_registration(&world, member, &begun["token"], &credential).await;
    let id = text(&finish().await.expect(201).json(), "id");
    finish().await.problem(409, "conflict");
    let path = format!("{PASSKEYS}/{id}");
    world.delete(member, &path).await.expect(204);
    // Nor does it bring a removed passkey back.
    finish().await.problem(409, "conflict");
    assert_eq!(count(&world, "passkeys").await, 0);
}

#[actix_web::test]
async fn ceremonies_end_after_five_minutes() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (authenticator, _) = register(&world, member).await;
    let mut second = Authenticator::new();
    let (early, late) = (login(&world, "acme").await, login(&world, "acme").await);
    let begun = registration(&world, member).await;
    world.clock.advance(Duration::seconds(299));
    let credential = authenticator.get(&early["publicKey"]);
    finish_login(&world, &early["token"], &credential)
        .await
        .expect(200);
    world.clock.advance(Duration::seconds(1));
    let credential = authenticator.get(&late["publicKey"]);
    let refused = finish_login(&world, &late["token"], &credential).await;
    refused.problem(401, "token_revoked");
    let credential = second.create(&begun["publicKey"]);
    let refused = finish_registration(&world, member, &begun["token"], &credential).await;
    refused.problem(409, "conflict");
}

#[actix_web::test]
async fn token_works_for_its_ceremony_user_session_and_tenant() {
    let world = World::new().await;
    let (member, theirs) = (&world.acme.member, &world.globex.member);
    let (authenticator, _) = register(&world, member).await;
    let mut second = Authenticator::new();
    let begun = registration(&world, member).await;
    let credential = second.create(&begun["publicKey"]);
    let elsewhere = in_session(member, &log_in_with_password(&world, member).await.expect(200));
    for stranger in [&world.acme.admin, theirs, &elsewhere] {
        let refused = finish_registration(&world, stranger, &begun["token"], &credential).await;
        refused.problem(409, "conflict");
    }
    let entering = login(&world, "acme").await;
    let refused = finish_registration(&world, member, &entering["token"], &credential).await;
    refused.problem(409, "conflict");
    let response = authenticator.get(&entering["publicKey"]);
    let mut wrong: Vec<Value> = [
        "",
        "nonsense",
        "ü",
        &"A".repeat(10_000),
        member.access_token.as_str(),
    ]
    .map(Value::from)
    .into();
    let bytes = URL_SAFE_NO_PAD.decode(text(&entering, "token")).unwrap();
    wrong.extend((0..bytes.len()).step_by(7).map(|place| {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        Value::from(URL_SAFE_NO_PAD.encode(changed))
    }));
    wrong.push(begun["token"].clone());
    for token in wrong {
        let refused = finish_login(&world, &token, &response).await;
        refused.problem(401, "token_revoked");
    }
    // Of another tenant than the request names.
    let body = json!({"token": entering["token"], "credential": response});
    let request = world.client.put(LOGIN, &body).header("X-Tenant-Slug", "globex");
    request.await.problem(403, "tenant_mismatch");
    let request = world.client.put(LOGIN, &body).bearer(&theirs.access_token);
    request.await.problem(403, "tenant_mismatch");
    // A login of the other tenant does not open this one's account.
    let entering = login(&world, "globex").await;
    let response = authenticator.get(&entering["publicKey"]);
    let refused = finish_login(&world, &entering["token"], &response).await;
    refused.problem(401, "invalid_credentials");
    finish_registration(&world, member, &begun["token"], &credential)
        .await
        .expect(201);
}

#[actix_web::test]
async fn counter_that_does_not_grow_refuses_and_alarms() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (mut authenticator, _) = register(&world, member).await;
    // One that does not count is fine.
    log_in(&world, member, &authenticator).await.expect(200);
    authenticator.counter = 5;
    log_in(&world, member, &authenticator).await.expect(200);
    let sessions = count(&world, "refresh_sessions").await;
    for counter in [5, 4, 0] {
        authenticator.counter = counter;
        let refused = log_in(&world, member, &authenticator).await;
        refused.problem(401, "invalid_credentials");
    }
    assert_eq!(count(&world, "refresh_sessions").await, sessions);
    let audit = world.audit(&world.acme).await;
    let alarms: Vec<_> = audit
        .iter()
        .filter(|(action, _)| action == "passkey.cloned")
        .collect();
    assert_eq!(alarms.len(), 3);
    let mails = "SELECT payload->>'notice' FROM jobs WHERE kind = 'account.security_notice'";
    let mails: Vec<String> = sqlx::query_scalar(mails)
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap();
    let of = |kind: &str| mails.iter().filter(|notice| notice.contains(kind)).count();
    assert_eq!((of("passkey_added"), of("passkey_cloned")), (1, 3), "{mails:?}");
    let details = &alarms[0].1["after"];
    assert_eq!(
        (&details["stored"], &details["presented"]),
        (&json!(5), &json!(5))
    );
    authenticator.counter = 6;
    log_in(&world, member, &authenticator).await.expect(200);
}

#[actix_web::test]
async fn login_options_are_the_same_for_everybody() {
    let world = World::new().await;
    let before = login(&world, "acme").await;
    register(&world, &world.acme.member).await;
    let without_challenge = |begun: &Value| {
        let mut options = begun["publicKey"].clone();
        options["challenge"] = Value::Null;
        options
    };
    let after = login(&world, "acme").await;
    assert_eq!(without_challenge(&before), without_challenge(&after));
    assert_eq!(
        without_challenge(&before),
        without_challenge(&login(&world, "globex").await)
    );
    assert_eq!(before["publicKey"]["allowCredentials"], json!([]));
    assert_ne!(before["publicKey"]["challenge"], after["publicKey"]["challenge"]);
    // Nothing is stored of a login that only begins.
    assert_eq!(count(&world, "passkey_ceremonies").await, 1);
    world
        .client
        .post(LOGIN, &json!({}))
        .await
        .problem(400, "tenant_required");
    let with_address = json!({"tenant_slug": "acme", "email": world.acme.member.email});
    world
        .client
        .post(LOGIN, &with_address)
        .await
        .problem(422, "unknown_field");
    // A body is not needed where a header names the tenant.
    let request = world.client.request(actix_web::http::Method::POST, LOGIN);
    request.header("X-Tenant-Slug", "acme").await.expect(200);
}

#[actix_web::test]
async fn passkey_login_follows_tenant_and_user() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (authenticator, _) = register(&world, member).await;
    let id = member.id;
    world
        .sql(format!("UPDATE users SET is_active = false WHERE id = '{id}'"))
        .await;
    log_in(&world, member, &authenticator)
        .await
        .problem(401, "invalid_credentials");
    world
        .sql(format!("UPDATE users SET is_active = true WHERE id = '{id}'"))
        .await;
    // Where logins need a verified address, these do, too.
    let body = json!({"security.require_verified_email": true});
    world.patch(&world.acme.admin, SETTINGS, &body).await.expect(200);
    world
        .sql(format!(
            "UPDATE users SET email_verified = false WHERE id = '{id}'"
        ))
        .await;
    log_in(&world, member, &authenticator)
        .await
        .problem(403, "email_not_verified");
    world
        .sql(format!(
            "UPDATE users SET email_verified = true WHERE id = '{id}'"
        ))
        .await;
    world.set_status(&world.acme, "suspended").await;
    log_in(&world, member, &authenticator).await.expect(200);
    let waiting = login(&world, "acme").await;
    world.set_status(&world.acme, "deleted").await;
    let credential = authenticator.get(&waiting["publicKey"]);
    let refused = finish_login(&world, &waiting["token"], &credential).await;
    refused.problem(410, "tenant_gone");
}

#[actix_web::test]
async fn deleted_user_keeps_no_passkey() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (authenticator, _) = register(&world, member).await;
    let path = format!("/api/v1/users/{}", member.id);
    with_factor(&world, member).await;
    world.delete(&world.acme.admin, &path).await.expect(204);
    log_in(&world, member, &authenticator)
        .await
        .problem(401, "invalid_credentials");
    for table in ["passkeys", "totp_factors", "recovery_codes"] {
        assert_eq!(count(&world, table).await, 0, "{table}");
    }
}

#[actix_web::test]
async fn passkey_is_the_factor_that_a_tenant_requires() {
    let world = World::new().await;
    let member = &world.acme.member;
    let (authenticator, id) = register(&world, member).await;
    // Where no factor is required the password goes on to work alone.
    log_in_with_password(&world, member).await.expect(200);
    require_factor(&world, "everyone").await;
    let waiting = log_in_with_password(&world, member)
        .await
        .problem(401, "mfa_required")
        .json();
    assert_eq!(waiting["methods"], json!(["passkey"]));
    // The password alone adds no app beside the passkey.
    for (path, code) in [("enroll", None), ("confirm", Some("000000"))] {
        let mut body = json!({"mfa_token": waiting["mfa_token"]});
        if let Some(code) = code {
            body["code"] = json!(code);
        }
        let path = format!("/api/v1/auth/mfa/required/{path}");
        world.client.post(&path, &body).await.problem(409, "conflict");
    }
    let session = log_in(&world, member, &authenticator).await.expect(200);
    let member = in_session(member, &session);
    let path = format!("{PASSKEYS}/{id}");
    world.delete(&member, &path).await.problem(409, "conflict");
    // The factor has to be recent for what matters.
    world.clock.advance(Duration::seconds(601));
    world.delete(&member, &path).await.problem(403, "mfa_required");
    let begin = world.post(&member, REGISTRATION, &json!({"password": PASSWORD}));
    begin.await.problem(403, "mfa_required");
    let enroll = world.post(&member, "/api/v1/auth/mfa/enroll", &json!({}));
    enroll.await.problem(403, "mfa_required");
    let session = log_in(&world, &member, &authenticator).await.expect(200);
    let member = in_session(&member, &session);
    let (second, _) = register(&world, &member).await;
    world.delete(&member, &path).await.expect(204);
    log_in(&world, &member, &second).await.expect(200);
}

#[actix_web::test]
async fn passkey_takes_the_place_of_a_code() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let (authenticator, id) = register(&world, admin).await;
    let app = with_factor(&world, admin).await;
    let waiting = log_in_with_password(&world, admin)
        .await
        .problem(401, "mfa_required")
        .json();
    assert_eq!(waiting["methods"], json!(["totp", "recovery_code", "passkey"]));
    // It is a recent factor, for requests that need one.
    world.clock.advance(Duration::seconds(601));
    let change = json!({"security.session_idle_minutes": 30});
    world
        .patch(admin, SETTINGS, &change)
        .await
        .problem(403, "mfa_required");
    let session = log_in(&world, admin, &authenticator).await.expect(200);
    let admin = in_session(admin, &session);
    world.patch(&admin, SETTINGS, &change).await.expect(200);
    // Where a factor is required, either may go, and not both.
    require_factor_by(&world, &admin, "admins").await;
    let disable = json!({"password": PASSWORD, "code": app.next_code(&world)});
    let disabled = world.post(&admin, "/api/v1/auth/mfa/disable", &disable);
    disabled.await.expect(204);
    let path = format!("{PASSKEYS}/{id}");
    world.delete(&admin, &path).await.problem(409, "conflict");
    require_factor_by(&world, &admin, "off").await;
    world.delete(&admin, &path).await.expect(204);
}

/// A passkey is a factor also where the tenant requires none: the password alone does not do what matters.
#[actix_web::test]
async fn passkey_alone_is_a_factor_for_sensitive_requests() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let (authenticator, id) = register(&world, admin).await;
    let by_password = in_session(admin, &log_in_with_password(&world, admin).await.expect(200));
    let key = json!({"name": "k", "scopes": ["tasks.read"]});
    let path = format!("{PASSKEYS}/{id}");
    let reset = format!("/api/v1/users/{}/reset-mfa", world.acme.member.id);
    for request in [
        world.post(&by_password, "/api/v1/api-keys", &key),
        world.post(&by_password, &reset, &json!({})),
        world.delete(&by_password, &path),
        world.post(&by_password, REGISTRATION, &json!({"password": PASSWORD})),
        world.post(
            &by_password,
            "/api/v1/auth/mfa/enroll",
            &json!({"password": PASSWORD}),
        ),
    ] {
        request.await.problem(403, "mfa_required");
    }
    let by_passkey = in_session(admin, &log_in(&world, admin, &authenticator).await.expect(200));
    world
        .post(&by_passkey, "/api/v1/api-keys", &key)
        .await
        .expect(201);
    // Not yet, for a thief could have registered it.
    let early = world.post(&by_passkey, &reset, &json!({})).await;
    early.problem(403, "forbidden");
    // A refreshed token says the same.
    let login = log_in(&world, admin, &authenticator).await.expect(200).json();
    let body = json!({"refresh_token": login["refresh_token"]});
    let refreshed = world.client.post("/api/v1/auth/refresh", &body).await;
    let refreshed = claims(&text(&refreshed.expect(200).json(), "access_token"));
    assert_eq!(refreshed["amr"], json!(["swk", "user", "mfa"]));
    // The registration gave the factor in the first session, whose next token says so.
    world.delete(admin, &path).await.expect(204);
    world.delete(&by_password, &path).await.problem(404, "not_found");
}

/// A user who becomes an admin where admins need a factor may have logged in with the password alone.
#[actix_web::test]
async fn new_admin_with_a_passkey_logs_in_again_with_it() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let (authenticator, _) = register(&world, member).await;
    require_factor(&world, "admins").await;
    let path = format!("/api/v1/users/{}", member.id);
    let promoted = world.patch(admin, &path, &json!({"role": "admin"})).await;
    promoted.expect(200);
    world.get(member, ME).await.problem(401, "token_revoked");
    let waiting = log_in_with_password(&world, member).await;
    let waiting = waiting.problem(401, "mfa_required").json();
    assert_eq!(waiting["methods"], json!(["passkey"]));
    let session = log_in(&world, member, &authenticator).await.expect(200);
    let users = world.get(&in_session(member, &session), "/api/v1/invitations");
    users.await.expect(200);
}

async fn require_factor_by(world: &World, who: &Person, of: &str) {
    let body = json!({"security.mfa_required": of});
    world.patch(who, SETTINGS, &body).await.expect(200);
}

#[actix_web::test]
async fn registration_asks_for_password_or_factor() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let begin = async |who: &Person, body: Value| world.post(who, REGISTRATION, &body).await;
    // A fresh session needs neither.
    begin(member, json!({})).await.expect(200);
    let app = with_factor(&world, viewer).await;
    begin(viewer, json!({})).await.expect(200);
    world.clock.advance(Duration::seconds(601));
    let missing = begin(member, json!({}))
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(missing["errors"][0]["pointer"], "/password");
    let wrong = begin(member, json!({"password": "wrong horse"})).await;
    wrong.problem(401, "invalid_credentials");
    begin(member, json!({"password": PASSWORD})).await.expect(200);
    // Nor does it need a body.
    let fresh = in_session(member, &log_in_with_password(&world, member).await.expect(200));
    let request = world.client.request(actix_web::http::Method::POST, REGISTRATION);
    request.bearer(&fresh.access_token).await.expect(200);
    // A user with a factor gives it.
    begin(viewer, json!({"password": PASSWORD}))
        .await
        .problem(403, "mfa_required");
    let code = json!({"code": app.next_code(&world)});
    let stepped = world.post(viewer, "/api/v1/auth/mfa/step-up", &code);
    let stepped = stepped.await.expect(200).json();
    let viewer = &Person {
        access_token: stepped["access_token"].as_str().unwrap().to_owned(),
        ..viewer.clone()
    };
    begin(viewer, json!({})).await.expect(200);
}

#[actix_web::test]
async fn passkeys_of_a_user_are_bounded_even_at_once() {
    let world = World::new().await;
    let member = &world.acme.member;
    let mut begun = Vec::new();
    for _ in 0..12 {
        let mut authenticator = Authenticator::new();
        let one = registration(&world, member).await;
        let credential = authenticator.create(&one["publicKey"]);
        begun.push((one["token"].clone(), credential));
    }
    let finishing = begun
        .iter()
        .map(|(token, credential)| finish_registration(&world, member, token, credential));
    let replies = join_all(finishing).await;
    let made = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(made, 10);
    for refused in replies.into_iter().filter(|reply| reply.status != 201) {
        refused.problem(409, "conflict");
    }
    let more = world.post(member, REGISTRATION, &json!({})).await;
    more.problem(409, "conflict");
    assert_eq!(count(&world, "passkeys").await, 10);
    // Others are not concerned.
    register(&world, &world.acme.admin).await;
}

#[actix_web::test]
async fn credential_is_registered_once_in_a_tenant() {
    let world = World::new().await;
    let (member, admin) = (&world.acme.member, &world.acme.admin);
    let (mut authenticator, _) = register(&world, member).await;
    for who in [member, admin] {
        let begun = registration(&world, who).await;
        let credential = authenticator.create(&begun["publicKey"]);
        let again = finish_registration(&world, who, &begun["token"], &credential).await;
        again.problem(409, "conflict");
    }
    // Another tenant does not know of it.
    let begun = registration(&world, &world.globex.member).await;
    let credential = authenticator.create(&begun["publicKey"]);
    let theirs = finish_registration(&world, &world.globex.member, &begun["token"], &credential).await;
    theirs.expect(201);
    // The options exclude the passkeys that there are.
    let (second, _) = register(&world, member).await;
    let begun = registration(&world, member).await;
    let excluded: BTreeSet<_> = begun["publicKey"]["excludeCredentials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(one, "id"))
        .collect();
    assert_eq!(excluded, BTreeSet::from([authenticator.id(), second.id()]));
}

#[actix_web::test]
async fn admin_resets_passkeys_and_a_new_password_does_not() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let (authenticator, _) = register(&world, member).await;
    let (of_admin, _) = register(&world, admin).await;
    let body = json!({"current_password": PASSWORD, "new_password": "a staple for the battery"});
    let changed = world.post(member, "/api/v1/auth/change-password", &body);
    changed.await.expect(204);
    world.clock.advance(FACTOR_SETTLES_AFTER);
    let session = log_in(&world, member, &authenticator).await.expect(200);
    let member = in_session(member, &session);
    let admin = in_session(admin, &log_in(&world, admin, &of_admin).await.expect(200));
    let path = format!("/api/v1/users/{}/reset-mfa", member.id);
    world.post(&admin, &path, &json!({})).await.expect(204);
    world.get(&member, ME).await.problem(401, "token_revoked");
    log_in(&world, &member, &authenticator)
        .await
        .problem(401, "invalid_credentials");
    let audit = world.audit(&world.acme).await;
    let (_, reset) = audit.iter().find(|(action, _)| action == "mfa.reset").unwrap();
    assert_eq!(reset["after"]["passkeys"], 1);
}

#[actix_web::test]
async fn server_without_a_relying_party_says_so() {
    let world = World::new().await;
    let member = &world.acme.member;
    register(&world, member).await;
    require_factor(&world, "everyone").await;
    let without = Options {
        passkeys: None,
        ..Options::default()
    };
    let client = world.other_instance(&without).await;
    let begin = client.post(REGISTRATION, &json!({})).bearer(&member.access_token);
    begin.await.problem(404, "passkeys_unavailable");
    let begin = client.post(LOGIN, &json!({"tenant_slug": "acme"}));
    begin.await.problem(404, "passkeys_unavailable");
    // A passkey that cannot be used is no factor: its user enrolls one.
    let body = json!({"tenant_slug": "acme", "email": member.email, "password": PASSWORD});
    let waiting = client.post(PASSWORD_LOGIN, &body).await;
    let waiting = waiting.problem(401, "mfa_required").json();
    assert_eq!(waiting["methods"], json!(["enroll"]));
    let list = client.get(PASSKEYS).bearer(&member.access_token).await;
    assert_eq!(list.expect(200).json()["data"].as_array().unwrap().len(), 1);
}

#[actix_web::test]
async fn failed_passkey_logins_are_limited_and_lock_nobody_out() {
    let world = World::with(Options {
        account_rates: AccountRates {
            network: Rate::new(1, 3).unwrap(),
            anywhere: Rate::new(1, 3).unwrap(),
        },
        ..Options::default()
    })
    .await;
    let member = &world.acme.member;
    let (mut authenticator, _) = register(&world, member).await;
    let (second, _) = register(&world, member).await;
    authenticator.spoilt = true;
    for _ in 0..3 {
        log_in(&world, member, &authenticator)
            .await
            .problem(401, "invalid_credentials");
    }
    authenticator.spoilt = false;
    log_in(&world, member, &authenticator)
        .await
        .problem(429, "rate_limited");
    log_in(&world, member, &second).await.expect(200);
    log_in_with_password(&world, member).await.expect(200);
    // An unknown one is held to the same.
    let mut unknown = Authenticator::new();
    unknown.create(&registration(&world, member).await["publicKey"]);
    for _ in 0..3 {
        log_in(&world, member, &unknown)
            .await
            .problem(401, "invalid_credentials");
    }
    log_in(&world, member, &unknown)
        .await
        .problem(429, "rate_limited");
    world.clock.advance(Duration::seconds(60));
    log_in(&world, member, &authenticator).await.expect(200);
    let audit = world.audit(&world.acme).await;
    assert!(audit.iter().any(|(action, _)| action == "login.failed"));
}

/// A Chromium with a virtual authenticator, on a page of this machine.
struct Browser {
    process: Child,
    input: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    origin: String,
}

impl Browser {
    /// `None` where Chromium or Node is missing, and the calling test is listed as skipped.
    fn start() -> Option<Self> {
        outside::program("chromium")?;
        let mut node = outside::program("node")?;
        let script = outside::root().join("tests/browser/passkeys.mjs");
        let mut process = node
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let origin = answers.next().expect("the browser starts").unwrap();
        Some(Self {
            process,
            input,
            answers,
            origin,
        })
    }

    fn ask(&mut self, method: &str, options: &Value) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{}", json!({method: options})).unwrap();
        let answer = self.answers.next().expect("the browser answers").unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn credential(&mut self, method: &str, options: &Value) -> Value {
        let answer = self.ask(method, options);
        assert!(answer["credential"].is_object(), "{answer}");
        answer["credential"].clone()
    }
}

impl Drop for Browser {
    /// The script ends, and Chromium with it, when there is nothing more to read.
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

#[actix_web::test]
async fn chromium_registers_a_passkey_and_logs_in() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let world = World::with(Options {
        passkeys: Some(("localhost", browser.origin.clone())),
        ..Options::default()
    })
    .await;
    let member = &world.acme.member;
    let begun = registration(&world, member).await;
    let credential = browser.credential("create", &begun["publicKey"]);
    let done = finish_registration(&world, member, &begun["token"], &credential).await;
    done.expect(201);
    // The authenticator has a passkey of this user, and makes no other.
    let begun = registration(&world, member).await;
    let refused = browser.ask("create", &begun["publicKey"]);
    assert!(
        refused["error"].as_str().unwrap().contains("InvalidStateError"),
        "{refused}"
    );

    // It counts its signatures.
    for _ in 0..2 {
        let begun = login(&world, "acme").await;
        let credential = browser.credential("get", &begun["publicKey"]);
        let session = finish_login(&world, &begun["token"], &credential)
            .await
            .expect(200);
        assert_eq!(session.json()["user"]["email"], member.email);
        // It stays on its device, so the key is in hardware.
        let access_token = text(&session.json(), "access_token");
        assert_eq!(claims(&access_token)["amr"], json!(["hwk", "user", "mfa"]));
        let replayed = finish_login(&world, &begun["token"], &credential).await;
        replayed.problem(401, "token_revoked");
    }
    let begun = login(&world, "globex").await;
    let credential = browser.credential("get", &begun["publicKey"]);
    let refused = finish_login(&world, &begun["token"], &credential).await;
    refused.problem(401, "invalid_credentials");
    let counter: i64 = sqlx::query_scalar("SELECT sign_count FROM passkeys")
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert!(counter > 1, "{counter}");
}
