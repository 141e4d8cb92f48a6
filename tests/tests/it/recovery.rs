//! Accounts that a thief or a stranger got into: what their owner's link ends, and what a factor that came later stops.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::sync::Arc;

use chrono::Duration;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_domain::identity::{Email, FACTOR_SETTLES_AFTER};
use tenantry_domain::kernel::SystemScope;
use tenantry_tenancy::identity::mfa::{self, MfaError, ResetFactors};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{Options, PASSWORD, Person, Received, Reply, World};

use crate::account_passwords::{Mailed, post};
use crate::authenticator::Authenticator;
use crate::mfa::{app_of, settle, with_factor};
use crate::passkeys::{finish_registration, log_in, register, registration};

const NEW: &str = "a staple of batteries";
const RESET: &str = "/api/v1/auth/reset-password";
const CHECK: &str = "[Acme Inc] check the factors of your account";

async fn reset(world: &World, token: &str) {
    let body = json!({"token": token, "new_password": NEW});
    post(world, RESET, body).await.expect(204);
}

/// The events of an action in Acme's audit log: the states after them.
async fn events(world: &World, action: &str) -> Vec<Value> {
    let audit = world.audit(&world.acme).await.into_iter();
    let events = audit.filter(|(one, _)| one == action);
    events.map(|(_, event)| event).collect()
}

/// The text of the mail about factors among these, with single spaces.
fn check_of(mails: &[Received]) -> String {
    let checked = mails.iter().find(|mail| mail.header("Subject") == CHECK);
    let text = checked.unwrap().text();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The user in another session, which began with the password alone.
async fn in_other_session(world: &World, who: &Person) -> Person {
    let login = world.login("acme", &who.email, PASSWORD).await.expect(200).json();
    Person {
        access_token: login["access_token"].as_str().unwrap().to_owned(),
        ..who.clone()
    }
}

async fn count(world: &World, table: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

/// A thief with the password binds a passkey and an app of their own, and the owner resets the password by mail.
#[actix_web::test]
async fn reset_by_link_ends_factors_of_the_last_day() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let (thief, globex) = (&acme.member, world.digest(&world.globex).await);
    let (authenticator, _) = register(world, thief).await;
    with_factor(world, thief).await;
    mailed.mails_to(&thief.email).await;
    let token = mailed.forgotten(acme, thief).await;
    reset(world, &token).await;
    let refused = log_in(world, thief, &authenticator).await;
    refused.problem(401, "invalid_credentials");
    // The owner is in again, without a factor that is not theirs.
    world.login("acme", &thief.email, NEW).await.expect(200);
    let text = check_of(&mailed.mails_to(&thief.email).await);
    assert!(text.contains("The authenticator app was removed"), "{text}");
    assert!(
        text.contains("were removed") && text.contains("\"Laptop\""),
        "{text}"
    );
    let removed = events(world, "passkey.removed").await;
    assert_eq!(removed[0]["after"]["user_id"], json!(thief.id));
    assert_eq!(events(world, "mfa.reset").await.len(), 1);
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn reset_by_link_keeps_settled_factors_and_names_passkeys() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let member = &acme.member;
    let (authenticator, _) = register(world, member).await;
    with_factor(world, member).await;
    mailed.mails_to(&member.email).await;
    world.clock.advance(FACTOR_SETTLES_AFTER);
    let token = mailed.forgotten(acme, member).await;
    reset(world, &token).await;
    world
        .login("acme", &member.email, NEW)
        .await
        .problem(401, "mfa_required");
    log_in(world, member, &authenticator).await.expect(200);
    let text = check_of(&mailed.mails_to(&member.email).await);
    assert!(
        text.contains("These passkeys stay") && text.contains("\"Laptop\""),
        "{text}"
    );
    assert!(!text.contains("removed, since"), "{text}");
    assert!(events(world, "mfa.reset").await.is_empty());
}

/// Where the tenant says so, a mailbox alone removes no factor, however new. What was never confirmed ends all the same.
#[actix_web::test]
async fn reset_by_link_keeps_new_factors_where_the_tenant_says_so() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let keep = json!({"security.links_keep_factors": true});
    let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &keep);
    patch.await.expect(200);
    let (authenticator, _) = register(world, &acme.member).await;
    with_factor(world, &acme.member).await;
    let enroll = world.post(&acme.viewer, "/api/v1/auth/mfa/enroll", &json!({}));
    enroll.await.expect(200);
    // The other tenant keeps the default.
    with_factor(world, &world.globex.member).await;
    for who in [&acme.member, &acme.viewer] {
        mailed.mails_to(&who.email).await;
        let token = mailed.forgotten(acme, who).await;
        reset(world, &token).await;
    }
    let globex = &world.globex;
    mailed.mails_to(&globex.member.email).await;
    let token = mailed.forgotten(globex, &globex.member).await;
    reset(world, &token).await;
    world
        .login("acme", &acme.member.email, NEW)
        .await
        .problem(401, "mfa_required");
    log_in(world, &acme.member, &authenticator).await.expect(200);
    for (slug, email) in [("acme", &acme.viewer.email), ("globex", &globex.member.email)] {
        world.login(slug, email, NEW).await.expect(200);
    }
    assert_eq!(count(world, "totp_factors").await, 1);
    assert!(events(world, "mfa.reset").await.is_empty());
}

/// An app that waits for its confirmation is no factor: it ends, and no reset of a factor is recorded.
#[actix_web::test]
async fn reset_by_link_ends_an_enrollment_without_a_record() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let enroll = world.post(&acme.member, "/api/v1/auth/mfa/enroll", &json!({}));
    enroll.await.expect(200);
    let token = mailed.forgotten(acme, &acme.member).await;
    reset(world, &token).await;
    assert_eq!(count(world, "totp_factors").await, 0);
    assert!(events(world, "mfa.reset").await.is_empty());
    let mails = mailed.mails_to(&acme.member.email).await;
    assert_eq!(mails.len(), 1, "there is nothing to say of factors");
}

/// Anybody can register with the address of somebody else, and bind a passkey.
#[actix_web::test]
async fn reset_that_first_proves_the_address_ends_a_strangers_passkey() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    // Also where links keep the factors of users whose address is proven.
    let keep = json!({"security.links_keep_factors": true});
    let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &keep);
    patch.await.expect(200);
    let victim = "victim@acme.example";
    let body = json!({"tenant_slug": "acme", "email": victim, "full_name": "Eve", "password": PASSWORD});
    let registered = post(world, "/api/v1/auth/register", body).await;
    let stranger = Person {
        email: victim.to_owned(),
        access_token: registered.expect(201).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned(),
        ..acme.viewer.clone()
    };
    let (authenticator, _) = register(world, &stranger).await;
    mailed.mails_to(victim).await;
    world.clock.advance(Duration::days(2));
    let token = mailed.forgotten(acme, &stranger).await;
    reset(world, &token).await;
    let refused = log_in(world, &stranger, &authenticator).await;
    refused.problem(401, "invalid_credentials");
    assert_eq!(count(world, "passkeys").await, 0);
    let removed = events(world, "mfa.removed_by_proof").await;
    assert_eq!(removed[0]["after"]["passkeys"], 1);
    let mails = mailed.mails_to(victim).await;
    assert!(mails.iter().any(|mail| mail.header("Subject") == CHECK));
}

/// The thief registered a passkey before moving the account; the owner's is older.
#[actix_web::test]
async fn revert_removes_the_fresh_passkey_only() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let viewer = &acme.viewer;
    let (of_owner, id) = register(world, viewer).await;
    world.sql(format!("UPDATE passkeys SET created_at = created_at - interval '24 hours', name = 'Key' WHERE id = '{id}'"),
    )
    .await;
    let (of_thief, _) = register(world, viewer).await;
    let revert = mailed.move_viewer("moved@acme.example").await;
    let body = json!({"token": revert});
    post(world, "/api/v1/auth/revert-email", body).await.expect(204);
    log_in(world, viewer, &of_thief)
        .await
        .problem(401, "invalid_credentials");
    log_in(world, viewer, &of_owner).await.expect(200);
    let removed = events(world, "passkey.removed").await;
    assert_eq!(removed.len(), 1);
    assert_eq!(
        (&removed[0]["after"]["user_id"], &removed[0]["after"]["name"]),
        (&json!(viewer.id), &json!("Laptop"))
    );
    let text = check_of(&mailed.mails_to(&viewer.email).await);
    assert!(
        text.contains("These passkeys stay") && text.contains("\"Key\""),
        "{text}"
    );
}

/// A link to the new address would remove the factor, so it takes what a reset of the factor takes.
#[actix_web::test]
async fn moving_a_user_with_a_fresh_factor_takes_a_settled_one() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let path = format!("/api/v1/users/{}", member.id);
    let move_to = async |email: &str| world.patch(admin, &path, &json!({"email": email})).await;
    move_to("one@acme.example").await.expect(200);
    with_factor(&world, member).await;
    move_to("two@acme.example").await.problem(403, "mfa_required");
    with_factor(&world, admin).await;
    move_to("two@acme.example").await.problem(403, "forbidden");
    settle(&world, admin).await;
    move_to("two@acme.example").await.expect(200);
}

async fn confirm(world: &World, who: &Person, enrollment: &Value) -> Reply {
    let body = json!({"code": app_of(enrollment).code_at(world, 0)});
    world.post(who, "/api/v1/auth/mfa/confirm", &body).await
}

/// A thief with the password enrolls an app, and confirms it after the owner has registered a passkey.
#[actix_web::test]
async fn enrollment_from_before_a_passkey_is_not_confirmed() {
    let world = World::new().await;
    let member = &world.acme.member;
    let thief = in_other_session(&world, member).await;
    let enroll = async || world.post(&thief, "/api/v1/auth/mfa/enroll", &json!({})).await;
    let begun = enroll().await.expect(200).json();
    register(&world, member).await;
    // The enrollment ended with the registration.
    assert_eq!(count(&world, "totp_factors").await, 0);
    confirm(&world, &thief, &begun).await.problem(403, "mfa_required");
    enroll().await.problem(403, "mfa_required");
    // One that was stored at the same moment is not confirmed, either.
    world.sql("DELETE FROM passkeys").await;
    let begun = enroll().await.expect(200).json();
    let row = "INSERT INTO passkeys (tenant_id, id, created_at, user_id, name, credential_id, public_key, sign_count, backup, transports) \
               SELECT tenant_id, gen_random_uuid(), now(), id, 'K', sha256('k'), 'x', 0, 'none', 0 FROM users WHERE id = ";
    world.sql(format!("{row}'{}'", member.id)).await;
    confirm(&world, &thief, &begun).await.problem(403, "mfa_required");
    assert_eq!(
        count(&world, "totp_factors WHERE confirmed_at IS NOT NULL").await,
        0
    );
}

/// A thief with the password begins to register a passkey, and finishes after the owner has confirmed an app.
#[actix_web::test]
async fn registration_from_before_an_app_is_not_finished() {
    let world = World::new().await;
    let member = &world.acme.member;
    let thief = in_other_session(&world, member).await;
    let mut begun = Vec::new();
    for who in [&thief, member] {
        let mut authenticator = Authenticator::new();
        let one = registration(&world, who).await;
        let credential = authenticator.create(&one["publicKey"]);
        begun.push((who, one["token"].clone(), credential));
    }
    world.clock.advance(Duration::seconds(1));
    with_factor(&world, member).await;
    let [(thief, token, credential), (owner, own_token, own_credential)] = &begun[..] else {
        unreachable!()
    };
    let refused = finish_registration(&world, thief, token, credential).await;
    refused.problem(403, "mfa_required");
    // In the owner's session the factor is recent, and a token of the session may be stolen.
    let refused = finish_registration(&world, owner, own_token, own_credential).await;
    refused.problem(409, "conflict");
    assert_eq!(count(&world, "passkeys").await, 0);
    register(&world, owner).await;
}

/// A passkey of another session that was registered meanwhile stops it, too.
#[actix_web::test]
async fn registration_from_before_a_passkey_is_not_finished() {
    let world = World::new().await;
    let member = &world.acme.member;
    let thief = in_other_session(&world, member).await;
    let mut authenticator = Authenticator::new();
    let begun = registration(&world, &thief).await;
    let credential = authenticator.create(&begun["publicKey"]);
    register(&world, member).await;
    let refused = finish_registration(&world, &thief, &begun["token"], &credential).await;
    refused.problem(403, "mfa_required");
    assert_eq!(count(&world, "passkeys").await, 1);
}

/// Where passkeys are not set up, a settled one does not stand in for a fresh app.
#[actix_web::test]
async fn passkey_that_cannot_be_used_settles_no_app() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    register(&world, admin).await;
    world
        .sql("UPDATE passkeys SET created_at = created_at - interval '2 days'")
        .await;
    with_factor(&world, admin).await;
    with_factor(&world, member).await;
    let without = Options {
        passkeys: None,
        ..Options::default()
    };
    let client = world.other_instance(&without).await;
    let path = format!("/api/v1/users/{}/reset-mfa", member.id);
    let reset = client.post(&path, &json!({})).bearer(&admin.access_token);
    reset.await.problem(403, "forbidden");
    let reset = world.post(admin, &path, &json!({})).await;
    reset.expect(204);
}

/// What `tenantry user reset-mfa` does: an admin who is alone in a tenant has nobody else to ask.
#[actix_web::test]
async fn operator_removes_the_factors_of_a_sole_admin() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let admin = &acme.admin;
    let (authenticator, _) = register(world, admin).await;
    with_factor(world, admin).await;
    world.set_status(acme, "suspended").await;
    mailed.mails_to(&admin.email).await;
    let because = SystemScope::because("a test of the command");
    let scope = world.app.ports.gate.system(because, acme.id).await.unwrap();
    let cx = Cx::new(Arc::clone(&world.app), scope, Origin::default());
    let reset = async |email: &str| {
        let email = Email::parse(email, "/email").unwrap();
        mfa::reset_by_operator(&world.operator_cx(), &cx, &email).await
    };
    let expected = ResetFactors {
        app: true,
        passkeys: 1,
    };
    assert_eq!(reset(&admin.email).await.unwrap(), expected);
    let again = reset(&admin.email).await;
    assert!(matches!(again, Err(MfaError::NotEnrolled)), "{again:?}");
    let other = reset(&world.globex.admin.email).await;
    assert!(matches!(other, Err(MfaError::NoSuchUser)), "{other:?}");
    world
        .get(admin, "/api/v1/auth/me")
        .await
        .problem(401, "token_revoked");
    log_in(world, admin, &authenticator)
        .await
        .problem(401, "invalid_credentials");
    world.login("acme", &admin.email, PASSWORD).await.expect(200);
    let mails = mailed.mails_to(&admin.email).await;
    assert!(
        mails[0]
            .header("Subject")
            .ends_with("the second factor was removed")
    );
    assert_eq!(events(world, "mfa.reset").await.len(), 1);
}

/// A session of before the last ten minutes gives the password beside the code.
#[actix_web::test]
async fn new_recovery_codes_take_the_password_in_an_old_session() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let renew = async |body: &Value| {
        let path = "/api/v1/auth/mfa/recovery-codes";
        world.post(member, path, body).await
    };
    renew(&json!({"code": app.next_code(&world)})).await.expect(200);
    world.clock.advance(Duration::minutes(10));
    let refused = renew(&json!({"code": app.next_code(&world)})).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["pointer"], "/password");
    let wrong = json!({"code": app.next_code(&world), "password": "wrong horse"});
    renew(&wrong).await.problem(401, "invalid_credentials");
    let right = json!({"code": app.next_code(&world), "password": PASSWORD});
    renew(&right).await.expect(200);
}
