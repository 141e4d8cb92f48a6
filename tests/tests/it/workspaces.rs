//! Workspaces of one person: switching to another tenant with a proven mailbox, and the mailed list of an address.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::Duration;
use futures_util::future::join;
use serde_json::{Value, json};
use tenantry_domain::kernel::UserId;
use tenantry_domain::operations::{AccountRates, Rate};
use tenantry_http::HttpConfig;
use tenantry_tenancy::customization::setting;
use tenantry_tenancy::identity::workspace::{self, DroppedRequests};
use tenantry_tenancy::tenant::{lifecycle, row_work};
use tenantry_tests::{Options, PASSWORD, Person, Reaction, Received, Reply, TenantWorld, World, operator_cx};

use crate::account_passwords::{Mailed, ask, is_unusable, token};
use crate::api_keys::with_every_scope;
use crate::authenticator::Authenticator;
use crate::mail;
use crate::mfa::with_factor;

const SWITCH: &str = "/api/v1/auth/switch-tenant";
const DISCOVER: &str = "/api/v1/auth/discover";
const FORGOT: &str = "/api/v1/auth/forgot-password";
const RESET: &str = "/api/v1/auth/reset-password";
const VERIFY_EMAIL: &str = "/api/v1/auth/verify-email";
const ME: &str = "/api/v1/auth/me";
const REGISTRATION: &str = "/api/v1/auth/passkeys/registration";
const PASSKEY_LOGIN: &str = "/api/v1/auth/passkeys/login";

/// The person with accounts in both tenants.
const BOB: &str = "bob@both.example";

/// The password that only Bob knows; the admins choose [`PASSWORD`].
const OWN: &str = "a staple of batteries";

/// Both tenants have an account of Bob, added by their admins, for which Bob has not opened any link.
async fn added() -> Mailed {
    added_with(Options::default()).await
}

async fn added_with(options: Options) -> Mailed {
    let mailed = Mailed::with(options).await;
    for tenant in [&mailed.world.acme, &mailed.world.globex] {
        add(&mailed.world, tenant).await;
    }
    mailed
}

/// An account may be named twice a minute.
fn two_a_minute() -> Options {
    let two = Rate::new(2, 2).unwrap();
    Options {
        account_rates: AccountRates {
            network: two,
            anywhere: two,
        },
        ..Options::default()
    }
}

/// Bob has verified his address in globex, and then chosen his password in acme through a mailed link. Returns his session
/// there.
async fn proven(mailed: &Mailed) -> Person {
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    verify_in(world, globex).await;
    prove(mailed, acme).await;
    log_in(world, acme, OWN).await
}

async fn add(world: &World, tenant: &TenantWorld) -> String {
    let body = json!({"email": BOB, "full_name": "Bob", "password": PASSWORD});
    let added = world.post(&tenant.admin, "/api/v1/users", &body).await;
    added.expect(201).json()["id"].as_str().unwrap().to_owned()
}

async fn verify_in(world: &World, tenant: &TenantWorld) {
    let change = "UPDATE users SET email_verified = true WHERE email =";
    world
        .sql(format!("{change} '{BOB}' AND tenant_id = '{}'", tenant.id))
        .await;
}

/// Chooses Bob's own password with a mailed link.
async fn prove(mailed: &Mailed, tenant: &TenantWorld) {
    let world = &mailed.world;
    mail::work(world).await;
    world.clock.advance(Duration::minutes(6));
    ask(world, FORGOT, tenant.slug, BOB).await.expect(202);
    let body = json!({"token": mailed.token_for(BOB).await, "new_password": OWN});
    world.client.post(RESET, &body).await.expect(204);
}

fn session(reply: &Reply) -> Person {
    let json = reply.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Person {
        id: UserId::from(
            json["user"]["id"]
                .as_str()
                .unwrap()
                .parse::<uuid::Uuid>()
                .unwrap(),
        ),
        email: text(&json["user"]["email"]),
        access_token: text(&json["access_token"]),
        refresh_token: text(&json["refresh_token"]),
    }
}

async fn log_in(world: &World, tenant: &TenantWorld, password: &str) -> Person {
    session(&world.login(tenant.slug, BOB, password).await.expect(200))
}

async fn switch(world: &World, who: &Person, slug: &str) -> Reply {
    world.post(who, SWITCH, &json!({"tenant_slug": slug})).await
}

#[track_caller]
fn is_unproven(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.json()["code"].as_str()),
        (403, Some("mailbox_proof_required")),
        "{}",
        reply.text()
    );
}

/// Registers a passkey in a session that has just begun.
async fn register_passkey(world: &World, who: &Person) -> Authenticator {
    let mut authenticator = Authenticator::new();
    let begun = world.post(who, REGISTRATION, &json!({})).await.expect(200).json();
    let credential = authenticator.create(&begun["publicKey"]);
    let body = json!({"token": begun["token"], "credential": credential});
    world.put(who, REGISTRATION, &body).await.expect(201);
    authenticator
}

async fn log_in_with_passkey(world: &World, tenant: &TenantWorld, authenticator: &Authenticator) -> Person {
    let body = json!({"tenant_slug": tenant.slug});
    let begun = world.client.post(PASSKEY_LOGIN, &body).await.expect(200).json();
    let body = json!({"token": begun["token"], "credential": authenticator.get(&begun["publicKey"])});
    session(&world.client.put(PASSKEY_LOGIN, &body).await.expect(200))
}

/// Every id of a tenant and of Bob's account in it.
async fn ids(world: &World, tenant: &TenantWorld) -> Vec<String> {
    let select = "SELECT id FROM users WHERE tenant_id = $1 UNION SELECT id FROM refresh_sessions WHERE tenant_id = $1";
    let rows: Vec<uuid::Uuid> = sqlx::query_scalar(select)
        .bind(tenant.id.uuid())
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap();
    let rows = rows.into_iter().map(|id| id.to_string());
    rows.chain([tenant.id.to_string(), tenant.slug.to_owned()])
        .collect()
}

#[track_caller]
fn assert_names_none(ids: &[String], text: &str) {
    let named = ids.iter().find(|id| text.contains(id.as_str()));
    assert_eq!(named, None, "{text}");
}

// -------------------------------------------------------------------------------------------------------------- switch

#[actix_web::test]
async fn proven_mailbox_opens_the_same_persons_other_account() {
    let mailed = added().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let (of_acme, of_globex) = (ids(world, acme).await, ids(world, globex).await);
    let before = (world.audit(acme).await.len(), world.audit(globex).await.len());
    let reply = switch(world, &bob, "globex").await.expect(200);
    assert_names_none(&of_acme, &reply.text());
    let there = session(&reply);
    assert_eq!(reply.json()["tenant"]["slug"], "globex");
    assert_ne!(there.id, bob.id);
    let me = world.get(&there, ME).await.expect(200).json();
    assert_eq!(me["tenant"]["id"], globex.id.to_string());
    assert_eq!(me["user"]["email"], BOB);
    let path = |project| format!("/api/v1/projects/{project}");
    world.get(&there, &path(globex.project)).await.expect(200);
    world
        .get(&there, &path(acme.project))
        .await
        .problem(404, "not_found");
    let named = world.get(&there, ME).header("X-Tenant-Slug", "acme").await;
    named.problem(403, "tenant_mismatch");
    // The session that it began with goes on, in its own tenant.
    world.get(&bob, &path(acme.project)).await.expect(200);
    // Each tenant's log has its own half.
    let (acme_log, globex_log) = (world.audit(acme).await, world.audit(globex).await);
    let (acme_log, globex_log) = (&acme_log[before.0..], &globex_log[before.1..]);
    assert!(
        acme_log
            .iter()
            .any(|(action, _)| action == "session.switch_asked")
    );
    assert!(globex_log.iter().any(|(action, _)| action == "session.started"));
    let request = |log: &[(String, Value)]| {
        log.iter()
            .map(|(_, row)| row["request_id"].to_string())
            .collect::<BTreeSet<_>>()
    };
    assert!(request(acme_log).is_disjoint(&request(&globex_log[..1])));
    assert_names_none(&of_globex, &json!(acme_log).to_string());
    assert_names_none(
        &of_acme,
        &json!(globex_log.iter().take(1).collect::<Vec<_>>()).to_string(),
    );
    // The other way about, the account in globex proves nothing: its password is the admin's choice.
    is_unproven(&switch(world, &there, "acme").await);
    is_unproven(&switch(world, &log_in(world, globex, PASSWORD).await, "acme").await);
}

#[actix_web::test]
async fn accepted_invitation_is_no_proof_until_a_reset() {
    let mailed = Mailed::new().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    add(world, globex).await;
    verify_in(world, globex).await;
    mail::work(world).await;
    world.clock.advance(Duration::minutes(1));
    let body = json!({"email": BOB, "role": "viewer"});
    let invited = world.post(&acme.admin, "/api/v1/invitations", &body).await;
    invited.expect(201);
    let body = json!({"token": mailed.token_for(BOB).await, "full_name": "Bob", "password": OWN});
    let accepted = world.client.post("/api/v1/invitations/accept", &body).await;
    let bob = session(&accepted.expect(200));
    // Its token may be seven days old, and in other hands than the mailbox is by now.
    is_unproven(&switch(world, &bob, "globex").await);
    prove(&mailed, acme).await;
    let later = log_in(world, acme, OWN).await;
    switch(world, &later, "globex").await.expect(200);
}

/// Somebody who read the mailbox for a while keeps a link, and its owner resets the password at globex before it is used.
#[actix_web::test]
async fn link_from_before_the_owners_reset_proves_nothing() {
    let mailed = added().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    mail::work(world).await;
    world.clock.advance(Duration::minutes(6));
    ask(world, FORGOT, acme.slug, BOB).await.expect(202);
    let kept = mailed.token_for(BOB).await;
    world.clock.advance(Duration::minutes(1));
    prove(&mailed, globex).await;
    world.clock.advance(Duration::minutes(1));
    let body = json!({"token": kept, "new_password": OWN});
    world.client.post(RESET, &body).await.expect(204);
    let thief = log_in(world, acme, OWN).await;
    switch(world, &thief, "globex")
        .await
        .problem(404, "tenant_not_found");
}

/// The admin of acme adds a person of globex with a password of the admin's choice, and the person opens the link that verifies the
/// address.
#[actix_web::test]
async fn admin_who_chose_the_password_gets_nowhere() {
    let mailed = Mailed::new().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    add(world, globex).await;
    verify_in(world, globex).await;
    mail::work(world).await;
    let before = world.digest(globex).await;
    add(world, acme).await;
    let admins = log_in(world, acme, PASSWORD).await;
    let passkey = register_passkey(world, &admins).await;
    let link = mailed.mails_to(BOB).await;
    let link = link
        .iter()
        .find(|mail| mail.text().contains("verify-email"))
        .unwrap();
    // Even where the page sends the token of a session along.
    let verify = world.client.post(VERIFY_EMAIL, &json!({"token": token(link)}));
    verify.bearer(&admins.access_token).await.expect(204);
    is_unproven(&switch(world, &admins, "globex").await);
    is_unproven(&switch(world, &log_in(world, acme, PASSWORD).await, "globex").await);
    is_unproven(&switch(world, &log_in_with_passkey(world, acme, &passkey).await, "globex").await);
    assert_eq!(world.digest(globex).await, before, "globex is not touched");
    // The person resets the password a day later, so the passkey that the admin left behind stays. It logs in to acme, and no further.
    world.clock.advance(Duration::hours(25));
    prove(&mailed, acme).await;
    // The day has had its upkeep.
    let before = world.digest(globex).await;
    world.login("acme", BOB, PASSWORD).await.expect(401);
    let left = log_in_with_passkey(world, acme, &passkey).await;
    is_unproven(&switch(world, &left, "globex").await);
    let second = register_passkey(world, &left).await;
    is_unproven(&switch(world, &log_in_with_passkey(world, acme, &second).await, "globex").await);
    assert_eq!(world.digest(globex).await, before, "globex is not touched");
}

#[actix_web::test]
async fn passkey_of_a_proven_session_carries_the_proof() {
    let mailed = added().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let bob = proven(&mailed).await;
    let passkey = register_passkey(world, &bob).await;
    let later = log_in_with_passkey(world, acme, &passkey).await;
    switch(world, &later, "globex").await.expect(200);
    // With another reset it is too old; who has the new password may have lost the device. A passkey of less than a day would end.
    world.clock.advance(Duration::hours(25));
    prove(&mailed, acme).await;
    let later = log_in_with_passkey(world, acme, &passkey).await;
    is_unproven(&switch(world, &later, "globex").await);
}

#[actix_web::test]
async fn changed_password_keeps_the_proof_of_its_owner() {
    let mailed = added().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let bob = proven(&mailed).await;
    let body = json!({"current_password": OWN, "new_password": "batteries of a staple"});
    let changed = world.post(&bob, "/api/v1/auth/change-password", &body).await;
    changed.expect(204);
    switch(world, &bob, "globex").await.expect(200);
    let later = log_in(world, acme, "batteries of a staple").await;
    switch(world, &later, "globex").await.expect(200);
}

/// An admin gives an account whose mailbox is proven the address of another person, and back.
#[actix_web::test]
async fn another_address_takes_the_proof_away() {
    let mailed = added().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let bob = proven(&mailed).await;
    let passkey = register_passkey(world, &bob).await;
    // Then the factor is settled, and any admin may change the address.
    world.clock.advance(Duration::hours(25));
    let bob = log_in_with_passkey(world, acme, &passkey).await;
    let admin = session(&world.login("acme", &acme.admin.email, PASSWORD).await.expect(200));
    let path = format!("/api/v1/users/{}", bob.id);
    for email in ["eve@both.example", BOB] {
        let moved = world.patch(&admin, &path, &json!({"email": email})).await;
        moved.expect(200);
        world.clock.advance(Duration::seconds(1));
        is_unproven(&switch(world, &bob, "globex").await);
    }
    verify_in(world, acme).await;
    is_unproven(&switch(world, &bob, "globex").await);
    is_unproven(&switch(world, &log_in(world, acme, OWN).await, "globex").await);
    is_unproven(&switch(world, &log_in_with_passkey(world, acme, &passkey).await, "globex").await);
}

/// The attacker proves a mailbox of their own first.
#[actix_web::test]
async fn proof_of_another_mailbox_opens_nothing() {
    let mailed = added().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    verify_in(world, globex).await;
    let viewer = &acme.viewer;
    mail::work(world).await;
    let forgotten = mailed.forgotten(acme, viewer).await;
    let body = json!({"token": forgotten, "new_password": OWN});
    world.client.post(RESET, &body).await.expect(204);
    let eve = session(&world.login("acme", &viewer.email, OWN).await.expect(200));
    let path = |id| format!("/api/v1/users/{id}");
    let bobs: Value = world.get(&acme.admin, "/api/v1/users").await.expect(200).json();
    let bobs = bobs["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["email"] == BOB)
        .unwrap();
    let gone = path(bobs["id"].as_str().unwrap().to_owned());
    world.delete(&acme.admin, &gone).await.expect(204);
    let body = json!({"email": BOB});
    let moved = world.patch(&acme.admin, &path(eve.id.to_string()), &body).await;
    moved.expect(200);
    verify_in(world, acme).await;
    is_unproven(&switch(world, &eve, "globex").await);
    is_unproven(&switch(world, &log_in(world, acme, OWN).await, "globex").await);
}

/// The address may have gone to another person since.
#[actix_web::test]
async fn younger_account_is_not_opened_by_an_old_proof() {
    let mailed = Mailed::new().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    add(world, acme).await;
    prove(&mailed, acme).await;
    let old = log_in(world, acme, OWN).await;
    world.clock.advance(Duration::seconds(1));
    add(world, globex).await;
    verify_in(world, globex).await;
    let none = switch(world, &old, "nowhere-at-all")
        .await
        .problem(404, "tenant_not_found");
    let young = switch(world, &old, "globex")
        .await
        .problem(404, "tenant_not_found");
    assert_eq!(young.comparable(), none.comparable());
    prove(&mailed, acme).await;
    let bob = log_in(world, acme, OWN).await;
    switch(world, &bob, "globex").await.expect(200);
    // A reset there shuts out what is older than it.
    prove(&mailed, globex).await;
    let shut = switch(world, &bob, "globex")
        .await
        .problem(404, "tenant_not_found");
    assert_eq!(shut.comparable(), none.comparable());
}

#[actix_web::test]
async fn all_reasons_of_not_found_are_answered_alike() {
    let mailed = added().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let mut answers = BTreeSet::new();
    let of_globex = |set: &str| {
        format!(
            "UPDATE users SET {set} WHERE email = '{BOB}' AND tenant_id = '{}'",
            globex.id
        )
    };
    for set in [
        "email_verified = false",
        "email_verified = true, is_active = false",
        "is_active = true, email = 'other@both.example'",
        "email = 'bob@both.example2', deleted_at = now()",
    ] {
        world.sql(of_globex(set)).await;
        answers.insert(
            switch(world, &bob, "globex")
                .await
                .problem(404, "tenant_not_found")
                .comparable(),
        );
    }
    for slug in [
        "nowhere-at-all",
        "",
        "GLOBEX",
        "x' OR 1=1 --",
        &"x".repeat(10_000),
    ] {
        answers.insert(
            switch(world, &bob, slug)
                .await
                .problem(404, "tenant_not_found")
                .comparable(),
        );
    }
    world.set_status(globex, "deleted").await;
    answers.insert(
        switch(world, &bob, "globex")
            .await
            .problem(404, "tenant_not_found")
            .comparable(),
    );
    assert_eq!(answers.len(), 1, "{answers:?}");
    for body in [
        json!({}),
        json!({"tenant_slug": "globex\0"}),
        json!({"tenant_slug": null}),
    ] {
        let unnamed = world.post(&bob, SWITCH, &body).await;
        unnamed.problem(422, "validation_failed");
    }
}

#[actix_web::test]
async fn suspended_tenants_are_left_and_entered_as_by_login() {
    let mailed = added().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    let bob = proven(&mailed).await;
    world.set_status(globex, "suspended").await;
    let there = session(&switch(world, &bob, "globex").await.expect(200));
    let body = json!({"name": "New"});
    let path = format!("/api/v1/projects/{}", globex.project);
    world.get(&there, &path).await.expect(200);
    world
        .sql(format!("UPDATE users SET role = 'member' WHERE email = '{BOB}'"))
        .await;
    world.outlive_the_cache();
    let write = world.post(&there, "/api/v1/projects", &body).await;
    write.problem(403, "tenant_suspended");
    world.set_status(acme, "suspended").await;
    switch(world, &bob, "globex").await.expect(200);
    world.set_status(acme, "deleted").await;
    switch(world, &bob, "globex").await.problem(410, "tenant_gone");
}

#[actix_web::test]
async fn target_asks_for_its_own_second_factor() {
    let mailed = added().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let bob = proven(&mailed).await;
    // A factor in acme is none in globex.
    let there = log_in(world, globex, PASSWORD).await;
    let app = with_factor(world, &there).await;
    let waiting = switch(world, &bob, "globex")
        .await
        .problem(401, "mfa_required")
        .json();
    assert_eq!(waiting["access_token"], Value::Null);
    let body = json!({"mfa_token": waiting["mfa_token"], "code": app.next_code(world)});
    let verified = world.client.post("/api/v1/auth/mfa/verify", &body).await;
    let there = session(&verified.expect(200));
    assert_eq!(there.email, BOB);
    world.get(&there, ME).await.expect(200);
    is_unproven(&switch(world, &there, "acme").await);
    // A login that waits ends with the address of the account, which any admin changes when the factor is a day old.
    world.clock.advance(Duration::hours(25));
    let bob = log_in(world, &world.acme, OWN).await;
    let admin = session(
        &world
            .login("globex", &globex.admin.email, PASSWORD)
            .await
            .expect(200),
    );
    let waiting = switch(world, &bob, "globex")
        .await
        .problem(401, "mfa_required")
        .json();
    let moved = world.patch(
        &admin,
        &format!("/api/v1/users/{}", there.id),
        &json!({"email": "eve@both.example"}),
    );
    moved.await.expect(200);
    let body = json!({"mfa_token": waiting["mfa_token"], "code": app.next_code(world)});
    let late = world.client.post("/api/v1/auth/mfa/verify", &body).await;
    late.problem(401, "token_revoked");
}

/// The networks of the other tenant hold for a switch. The caller learns as much as of a tenant that is not there.
#[actix_web::test]
async fn switch_obeys_the_networks_of_the_other_tenant() {
    let mailed = added().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let far = Some(json!(["10.0.0.0/8"]));
    let key = "security.allowed_networks";
    setting::operate(&operator_cx(&world.app), globex.id, key, far)
        .await
        .unwrap();
    let nowhere = switch(world, &bob, "nowhere").await;
    let hidden = switch(world, &bob, "globex").await;
    for reply in [&nowhere, &hidden] {
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (404, &json!("tenant_not_found"))
        );
    }
    let told = world.audit(globex).await;
    assert!(told.iter().any(|(action, _)| action == "network.refused"));
    setting::operate(&operator_cx(&world.app), globex.id, key, None)
        .await
        .unwrap();
    switch(world, &bob, "globex").await.expect(200);
}

#[actix_web::test]
async fn required_factor_is_enrolled_after_the_switch() {
    let mailed = added().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let body = json!({"security.mfa_required": "everyone"});
    let required = world.patch(&globex.admin, "/api/v1/tenant/settings", &body).await;
    required.expect(200);
    let waiting = switch(world, &bob, "globex")
        .await
        .problem(401, "mfa_required")
        .json();
    assert_eq!(waiting["methods"], json!(["enroll"]));
}

/// The session shows no password, so it counts as none that was given lately: it must not bind a factor of a thief's.
#[actix_web::test]
async fn switched_session_counts_as_no_recent_login() {
    let mailed = added().await;
    let world = &mailed.world;
    let bob = proven(&mailed).await;
    let there = session(&switch(world, &bob, "globex").await.expect(200));
    let enroll = world.post(&there, "/api/v1/auth/mfa/enroll", &json!({})).await;
    enroll.problem(422, "validation_failed");
    let register = world.post(&there, REGISTRATION, &json!({})).await;
    register.problem(422, "validation_failed");
    let body = json!({"refresh_token": there.refresh_token});
    let refreshed = world.client.post("/api/v1/auth/refresh", &body).await;
    let there = session(&refreshed.expect(200));
    is_unproven(&switch(world, &there, "acme").await);
}

/// What ends the sessions of an account ends what could begin others.
#[actix_web::test]
async fn ended_access_ends_proofs_of_other_tenants() {
    let mailed = added().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let there = session(&switch(world, &bob, "globex").await.expect(200));
    let admin = async |path: &str, body: Value| {
        let path = format!("/api/v1/users/{}{path}", there.id);
        let login = world.login("globex", &globex.admin.email, PASSWORD).await;
        let admin = session(&login.expect(200));
        let request = match path.ends_with("end-sessions") {
            true => world.post(&admin, &path, &body),
            false => world.patch(&admin, &path, &body),
        };
        let done = request.await;
        assert!(done.status < 300, "{}", done.text());
    };
    let mut old = bob;
    for way in ["password", "own end", "admin's end", "deactivation", "reset"] {
        world.clock.advance(Duration::seconds(1));
        match way {
            "password" => {
                let here = log_in(world, globex, PASSWORD).await;
                let body = json!({"current_password": PASSWORD, "new_password": OWN});
                let changed = world.post(&here, "/api/v1/auth/change-password", &body).send();
                changed.await.expect(204);
            }
            "own end" => {
                let here = log_in(world, globex, OWN).await;
                let ended = world.post(&here, "/api/v1/auth/logout-all", &json!({})).send();
                ended.await.expect(204);
            }
            "admin's end" => admin("/end-sessions", json!({})).await,
            "deactivation" => {
                admin("", json!({"is_active": false})).await;
                admin("", json!({"is_active": true})).await;
            }
            _ => prove(&mailed, globex).await,
        }
        let shut = switch(world, &old, "globex").await;
        assert_eq!(shut.status, 404, "{way}: {}", shut.text());
        // The account here is as open as before, and a younger proof opens the other one.
        world.clock.advance(Duration::seconds(1));
        prove(&mailed, acme).await;
        old = log_in(world, acme, OWN).await;
        switch(world, &old, "globex").await.expect(200);
    }
}

/// The other tenant would not see that the token is stolen.
#[actix_web::test]
async fn stolen_access_token_opens_no_other_tenant() {
    let mailed = added().await;
    let world = &mailed.world;
    let bob = proven(&mailed).await;
    let with = async |who: &Person, password: Value| {
        let body = json!({"tenant_slug": "globex", "password": password});
        world.post(who, SWITCH, &body).await
    };
    world.clock.advance(Duration::seconds(599));
    switch(world, &bob, "globex").await.expect(200);
    world.clock.advance(Duration::seconds(1));
    for refused in [switch(world, &bob, "globex").await, with(&bob, json!(null)).await] {
        let errors = refused.problem(422, "validation_failed").json()["errors"].clone();
        assert_eq!(
            (&errors[0]["pointer"], &errors[0]["code"]),
            (&json!("/password"), &json!("required"))
        );
    }
    with(&bob, json!(PASSWORD))
        .await
        .problem(401, "invalid_credentials");
    with(&bob, json!(OWN)).await.expect(200);
    // A user with a factor gives it.
    let bob = log_in(world, &world.acme, OWN).await;
    let app = with_factor(world, &bob).await;
    switch(world, &bob, "globex").await.expect(200);
    world.clock.advance(Duration::minutes(10));
    let refused = with(&bob, json!(OWN)).await.problem(403, "mfa_required");
    assert_eq!(refused.json()["max_age"], 600);
    let body = json!({"code": app.next_code(world)});
    let stepped_up = world.post(&bob, "/api/v1/auth/mfa/step-up", &body).await;
    let stepped_up = stepped_up.expect(200).json();
    let bob = Person {
        access_token: stepped_up["access_token"].as_str().unwrap().to_owned(),
        ..bob
    };
    switch(world, &bob, "globex").await.expect(200);
}

/// A thief with the refresh token of an older session gains nothing by the first factor that its owner adds.
#[actix_web::test]
async fn refreshed_token_after_a_first_factor_opens_no_other_tenant() {
    for with_app in [true, false] {
        let mailed = added().await;
        let world = &mailed.world;
        let bob = proven(&mailed).await;
        world.clock.advance(Duration::seconds(599));
        if with_app {
            with_factor(world, &bob).await;
        } else {
            register_passkey(world, &bob).await;
        }
        world.clock.advance(Duration::seconds(2));
        let body = json!({"refresh_token": bob.refresh_token});
        let thief = world.client.post("/api/v1/auth/refresh", &body).await;
        let thief = session(&thief.expect(200));
        let refused = switch(world, &thief, "globex").await;
        let errors = refused.problem(422, "validation_failed").json()["errors"].clone();
        assert_eq!(
            (&errors[0]["pointer"], &errors[0]["code"]),
            (&json!("/password"), &json!("required"))
        );
        let own = json!({"tenant_slug": "globex", "password": OWN});
        world.post(&thief, SWITCH, &own).await.expect(200);
    }
}

#[actix_web::test]
async fn switched_session_ends_with_the_login_it_began_with() {
    let mailed = added().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let idle = json!({"security.session_idle_minutes": 43_200});
    let idle = world.patch(&globex.admin, "/api/v1/tenant/settings", &idle).await;
    idle.expect(200);
    // The login is 29 days old, of the 30 that a session lasts.
    world
        .sql(format!(
            "UPDATE refresh_sessions SET created_at = created_at - interval '29 days' WHERE user_id = '{}'",
            bob.id
        ))
        .await;
    let body = json!({"tenant_slug": "globex", "password": OWN});
    let mut there = session(&world.post(&bob, SWITCH, &body).await.expect(200));
    for hours in [12, 11] {
        world.clock.advance(Duration::hours(hours));
        let body = json!({"refresh_token": there.refresh_token});
        let refreshed = world.client.post("/api/v1/auth/refresh", &body).await;
        there = session(&refreshed.expect(200));
    }
    world.get(&there, ME).await.expect(200);
    world.clock.advance(Duration::hours(1));
    world.outlive_the_cache();
    world.get(&there, ME).await.expect(401);
    let body = json!({"refresh_token": there.refresh_token});
    let late = world.client.post("/api/v1/auth/refresh", &body).await;
    late.problem(401, "token_revoked");
}

#[actix_web::test]
async fn tenant_may_refuse_switches() {
    let mailed = added().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let there = log_in(world, globex, PASSWORD).await;
    let app = with_factor(world, &there).await;
    let waiting = switch(world, &bob, "globex")
        .await
        .problem(401, "mfa_required")
        .json();
    let none = switch(world, &bob, "nowhere-at-all")
        .await
        .problem(404, "tenant_not_found");
    let set = json!({"security.allow_tenant_switch": false});
    let set = world.patch(&globex.admin, "/api/v1/tenant/settings", &set).await;
    set.expect(200);
    let refused = switch(world, &bob, "globex")
        .await
        .problem(404, "tenant_not_found");
    assert_eq!(refused.comparable(), none.comparable());
    let body = json!({"mfa_token": waiting["mfa_token"], "code": app.next_code(world)});
    let late = world.client.post("/api/v1/auth/mfa/verify", &body).await;
    late.problem(401, "token_revoked");
}

/// The account may have changed hands while the login waits for its factor.
#[actix_web::test]
async fn waiting_login_of_a_switch_ends_with_its_proof() {
    let mailed = added().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let bob = proven(&mailed).await;
    let there = log_in(world, globex, PASSWORD).await;
    let app = with_factor(world, &there).await;
    let wait = async || {
        let waiting = switch(world, &bob, "globex").await;
        waiting.problem(401, "mfa_required").json()["mfa_token"].clone()
    };
    let finish = async |token: &Value| {
        let body = json!({"mfa_token": token, "code": app.next_code(world)});
        world.client.post("/api/v1/auth/mfa/verify", &body).await
    };
    finish(&wait().await).await.expect(200);
    let token = wait().await;
    world.clock.advance(Duration::minutes(1));
    let end = format!("/api/v1/users/{}/end-sessions", there.id);
    let ended = world.post(&globex.admin, &end, &json!({})).await;
    ended.expect(202);
    finish(&token).await.problem(401, "token_revoked");
}

/// Invites an address to a tenant; the mailed token.
async fn invited(mailed: &Mailed, tenant: &TenantWorld, email: &str) -> String {
    let body = json!({"email": email, "role": "member"});
    let invited = mailed.world.post(&tenant.admin, "/api/v1/invitations", &body);
    invited.await.expect(201);
    mailed.token_for(email).await
}

async fn switch_invited(world: &World, who: &Person, slug: &str, token: &str) -> Reply {
    let body = json!({"tenant_slug": slug, "invitation_token": token});
    world.post(who, SWITCH, &body).await
}

/// Bob's account in acme, whose mailbox is proven; globex has none.
async fn proven_in_acme_only() -> (Mailed, Person) {
    let mailed = Mailed::new().await;
    add(&mailed.world, &mailed.world.acme).await;
    prove(&mailed, &mailed.world.acme).await;
    let bob = log_in(&mailed.world, &mailed.world.acme, OWN).await;
    (mailed, bob)
}

#[actix_web::test]
async fn invitation_is_accepted_with_an_account_of_another_tenant() {
    let (mailed, bob) = proven_in_acme_only().await;
    let (world, globex) = (&mailed.world, &mailed.world.globex);
    let token = invited(&mailed, globex, BOB).await;
    let login = switch_invited(world, &bob, "globex", &token)
        .await
        .expect(200)
        .json();
    assert_eq!(login["tenant"]["id"], globex.id.to_string());
    let user = &login["user"];
    assert_eq!(
        (
            &user["email"],
            &user["full_name"],
            &user["role"],
            &user["email_verified"]
        ),
        (&json!(BOB), &json!("Bob"), &json!("member"), &json!(true))
    );
    assert_ne!(user["id"], bob.id.to_string());
    // The token is used up; the account is entered by switching again, and by no password that anybody has.
    let again = switch_invited(world, &bob, "globex", &token).await;
    again.problem(401, "token_revoked");
    switch(world, &bob, "globex").await.expect(200);
    for password in [OWN, PASSWORD] {
        let guess = world.login("globex", BOB, password).await;
        guess.problem(401, "invalid_credentials");
    }
    world.clock.advance(Duration::minutes(6));
    ask(world, FORGOT, "globex", BOB).await.expect(202);
    let body = json!({"token": mailed.token_for(BOB).await, "new_password": OWN});
    world.client.post(RESET, &body).await.expect(204);
    world.login("globex", BOB, OWN).await.expect(200);
}

#[actix_web::test]
async fn invitation_is_accepted_by_nobody_but_its_proven_address() {
    let (mailed, bob) = proven_in_acme_only().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    let of_other = invited(&mailed, globex, "eve@both.example").await;
    let of_acme = invited(&mailed, acme, "dan@both.example").await;
    let token = invited(&mailed, globex, BOB).await;
    let refused = async |who: &Person, slug: &str, token: &str| {
        switch_invited(world, who, slug, token)
            .await
            .problem(401, "token_revoked");
    };
    refused(&bob, "globex", &of_other).await;
    refused(&bob, "globex", &of_acme).await;
    refused(&bob, "globex", "no token of ours").await;
    // The right token in the wrong tenant.
    refused(&bob, "acme", &token).await;
    let unproven = switch_invited(world, &acme.member, "globex", &token).await;
    is_unproven(&unproven);
    let settings = json!({"security.allow_tenant_switch": false});
    let refuse = world.patch(&globex.admin, "/api/v1/tenant/settings", &settings);
    refuse.await.expect(200);
    refused(&bob, "globex", &token).await;
    let settings = json!({"security.allow_tenant_switch": true});
    let admit = world.patch(&globex.admin, "/api/v1/tenant/settings", &settings);
    admit.await.expect(200);
    // Twice at once: one account.
    let both = join(
        switch_invited(world, &bob, "globex", &token),
        switch_invited(world, &bob, "globex", &token),
    );
    let (one, other) = both.await;
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
}

#[actix_web::test]
async fn only_users_with_a_session_switch() {
    let mailed = added().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    proven(&mailed).await;
    let key = with_every_scope(world, &acme.admin).await;
    let switch = |token: &str| {
        world
            .client
            .post(SWITCH, &json!({"tenant_slug": "globex"}))
            .bearer(token)
    };
    switch(&key).await.problem(403, "forbidden");
    let operator = world.operator("olga@platform.example").await;
    switch(&operator).await.problem(401, "unauthenticated");
    let none = world.client.post(SWITCH, &json!({"tenant_slug": "globex"})).await;
    none.problem(401, "unauthenticated");
}

#[actix_web::test]
async fn switches_are_held_to_a_rate() {
    let mailed = added_with(two_a_minute()).await;
    let world = &mailed.world;
    let bob = proven(&mailed).await;
    for _ in 0..2 {
        switch(world, &bob, "nowhere-at-all")
            .await
            .problem(404, "tenant_not_found");
    }
    switch(world, &bob, "globex").await.problem(429, "rate_limited");
    world.clock.advance(Duration::minutes(1));
    switch(world, &bob, "globex").await.expect(200);
}

// ------------------------------------------------------------------------------------------------------------ discover

async fn discover(world: &World, email: &str) -> Reply {
    world.client.post(DISCOVER, &json!({"email": email})).await
}

/// The lists that were mailed to an address since the last time.
async fn lists(mailed: &Mailed, email: &str) -> Vec<Received> {
    let before = mailed.server.received().len();
    workspace::answer_due(&mailed.world.app).await.unwrap();
    let received = mailed.server.received().split_off(before);
    received.into_iter().filter(|mail| mail.to == [email]).collect()
}

#[actix_web::test]
async fn list_goes_to_the_address_and_only_if_it_has_accounts() {
    let mailed = added().await;
    let world = &mailed.world;
    proven(&mailed).await;
    let known = discover(world, "  BOB@both.example ").await.expect(202);
    let unknown = discover(world, "nobody@both.example").await.expect(202);
    assert_eq!((known.text(), unknown.text()), (String::new(), String::new()));
    let fields = |reply: &Reply| {
        ["content-type", "content-length", "cache-control"].map(|name| reply.header(name).map(str::to_owned))
    };
    assert_eq!(fields(&known), fields(&unknown));
    assert_eq!(mailed.count("workspace_requests").await, 2);
    let before = mailed.server.received().len();
    let mails = lists(&mailed, BOB).await;
    assert_eq!(mailed.server.received().len(), before + 1);
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert!(
        mail.header("Subject").ends_with("] your workspaces"),
        "{}",
        mail.header("Subject")
    );
    let text = mail.text();
    for workspace in [
        "Acme Inc (acme)",
        "(globex)",
        "/login?workspace=acme",
        "/login?workspace=globex",
    ] {
        assert!(text.contains(workspace), "{text}");
    }
    assert!(mail.html().contains("Acme Inc (acme)"), "{}", mail.html());
    assert_eq!(mail.html().matches("<a href=").count(), 2, "{}", mail.html());
    assert_eq!(waiting(&mailed).await, 0);
    discover(world, "no address")
        .await
        .problem(422, "validation_failed");
    discover(world, "bob@both.example\r\nBcc: eve@example.com")
        .await
        .problem(422, "validation_failed");
}

/// How many requests wait for their answer.
async fn waiting(mailed: &Mailed) -> i64 {
    mailed.count("workspace_requests WHERE answered_at IS NULL").await
}

/// Asks for a list when the one before it is no longer remembered.
async fn discover_later(world: &World, email: &str) -> Reply {
    world.clock.advance(Duration::minutes(5));
    discover(world, email).await
}

/// Otherwise anybody could have a mailbox filled. Unknown addresses are treated alike, so that the time of an answer says nothing.
#[actix_web::test]
async fn answered_address_gets_no_other_list_for_five_minutes() {
    let mailed = added().await;
    let world = &mailed.world;
    proven(&mailed).await;
    for email in [BOB, "nobody@both.example"] {
        discover(world, email).await.expect(202);
    }
    assert_eq!(lists(&mailed, BOB).await.len(), 1);
    for seconds in [0, 299] {
        world.clock.advance(Duration::seconds(seconds));
        for email in [BOB, "nobody@both.example"] {
            discover(world, email).await.expect(202);
        }
        assert_eq!(
            (waiting(&mailed).await, mailed.count("workspace_requests").await),
            (0, 2)
        );
        assert!(lists(&mailed, BOB).await.is_empty());
    }
    world.clock.advance(Duration::seconds(1));
    discover(world, BOB).await.expect(202);
    assert_eq!(lists(&mailed, BOB).await.len(), 1);
    assert_eq!(
        mailed.count("workspace_requests").await,
        1,
        "the other one is deleted"
    );
    let dropped = world.app.state::<DroppedRequests>().counts();
    assert_eq!(dropped.map(|(_, count)| count), [4, 0, 0]);
}

/// A /48 is what one customer of a provider gets: 65,536 networks of the smallest size.
#[actix_web::test]
async fn one_network_keeps_no_other_from_asking() {
    let usual = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..usual.http
    };
    let mailed = added_with(Options { http, ..usual }).await;
    let world = &mailed.world;
    let fill = "INSERT INTO workspace_requests (id, email, requested_at, attempts, due_at, network) \
                SELECT gen_random_uuid(), n || '@full.example', now(), 0, now(), '2001:db8:1::/48' FROM generate_series(1, 199) n";
    world.sql(fill.to_owned()).await;
    for (number, (address, stored)) in [
        ("2001:db8:1:2345::1", 200),
        ("2001:db8:1:9999::1", 200),
        ("2001:db8:2::1", 201),
        ("198.51.100.9", 202),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"email": format!("{number}@both.example")});
        let asked = world
            .client
            .post(DISCOVER, &body)
            .header("X-Forwarded-For", address);
        asked.await.expect(202);
        assert_eq!(mailed.count("workspace_requests").await, stored, "{address}");
    }
    let dropped = world.app.state::<DroppedRequests>().counts();
    assert_eq!(dropped.map(|(_, count)| count), [0, 1, 0]);
}

/// A request that the database cannot answer holds up no other one, and is given up in the end.
#[actix_web::test]
async fn request_that_cannot_be_answered_is_given_up() {
    let mailed = added().await;
    let world = &mailed.world;
    proven(&mailed).await;
    let run = async |sql: &str| {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        sql.execute(&mut world.database.admin().await).await.unwrap();
    };
    run("REVOKE SELECT ON user_addresses FROM tenantry_platform").await;
    discover(world, BOB).await.expect(202);
    discover(world, "nobody@both.example").await.expect(202);
    for _ in 0..15 {
        assert_eq!(waiting(&mailed).await, 2);
        assert_eq!(workspace::answer_due(&world.app).await.unwrap(), 2);
        world.clock.advance(Duration::hours(1));
    }
    assert_eq!(waiting(&mailed).await, 0);
    run("GRANT SELECT ON user_addresses TO tenantry_platform").await;
    discover(world, BOB).await.expect(202);
    assert_eq!(lists(&mailed, BOB).await.len(), 1);
}

#[actix_web::test]
async fn list_has_verified_accounts_of_live_tenants_only() {
    let mailed = added().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    mail::work(world).await;
    discover(world, BOB).await.expect(202);
    assert!(lists(&mailed, BOB).await.is_empty(), "neither is verified");
    verify_in(world, acme).await;
    world
        .sql(format!(
            "UPDATE tenants SET name = E'<b>Ac&me</b>\\r\\nBcc: eve@example.com' WHERE id = '{}'",
            acme.id
        ))
        .await;
    discover_later(world, BOB).await.expect(202);
    let mails = lists(&mailed, BOB).await;
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert!(!mail.text().contains("globex"), "{}", mail.text());
    assert!(
        mail.html().contains("b Ac&amp;me b Bcc eve") && !mail.html().contains("<b>"),
        "{}",
        mail.html()
    );
    assert!(!mail.header_names().contains(&"Bcc".to_owned()));
    world.set_status(acme, "suspended").await;
    discover_later(world, BOB).await.expect(202);
    assert_eq!(
        lists(&mailed, BOB).await.len(),
        1,
        "a suspended tenant lets users log in"
    );
    verify_in(world, globex).await;
    world.set_status(acme, "deleted").await;
    discover_later(world, BOB).await.expect(202);
    let mails = lists(&mailed, BOB).await;
    assert!(mails[0].text().contains("(globex)") && !mails[0].text().contains("(acme)"));
}

#[actix_web::test]
async fn two_servers_mail_a_list_once() {
    let mailed = added().await;
    let world = &mailed.world;
    proven(&mailed).await;
    let options = Options::default();
    let other = world.instance(&options);
    discover(world, BOB).await.expect(202);
    // Asked for again before it is sent.
    discover(world, BOB).await.expect(202);
    assert_eq!(mailed.count("workspace_requests").await, 1);
    let because = tenantry_domain::kernel::SystemScope::because("a test takes requests");
    let now = tenantry_domain::kernel::Clock::now(world.clock.as_ref());
    let take = |app: &Arc<tenantry_tenancy::Tenancy>| {
        let workspaces = Arc::clone(&app.ports.workspaces);
        async move { workspaces.take_due(because, now).await.unwrap() }
    };
    let (one, two) = join(take(&world.app), take(&other.app)).await;
    assert_eq!(
        [one.is_some(), two.is_some()]
            .iter()
            .filter(|taken| **taken)
            .count(),
        1
    );
    assert!(lists(&mailed, BOB).await.is_empty(), "it is leased");
    // The server that took it has died.
    world.clock.advance(Duration::minutes(5));
    assert_eq!(lists(&mailed, BOB).await.len(), 1);
    assert!(lists(&mailed, BOB).await.is_empty());
}

#[actix_web::test]
async fn list_waits_until_the_mail_server_is_back() {
    let mailed = added().await;
    let world = &mailed.world;
    proven(&mailed).await;
    mailed.server.react(Reaction::AtEnd(451));
    discover(world, BOB).await.expect(202);
    assert!(lists(&mailed, BOB).await.is_empty());
    assert_eq!(waiting(&mailed).await, 1);
    assert!(lists(&mailed, BOB).await.is_empty(), "not at once");
    world.clock.advance(Duration::minutes(1));
    assert_eq!(lists(&mailed, BOB).await.len(), 1);
    assert_eq!(waiting(&mailed).await, 0);
    // What is refused for good is not tried again.
    mailed.server.react(Reaction::AtEnd(550));
    discover_later(world, BOB).await.expect(202);
    assert!(lists(&mailed, BOB).await.is_empty());
    assert_eq!(waiting(&mailed).await, 0);
    // Nor is anything for ever.
    for _ in 0..15 {
        mailed.server.react(Reaction::AtEnd(451));
    }
    discover_later(world, BOB).await.expect(202);
    for _ in 0..15 {
        assert_eq!(waiting(&mailed).await, 1);
        assert!(lists(&mailed, BOB).await.is_empty());
        world.clock.advance(Duration::hours(1));
    }
    assert_eq!(waiting(&mailed).await, 0);
    // A server that takes each and does not answer: three copies.
    for _ in 0..4 {
        mailed.server.react(Reaction::TakeAndVanish);
    }
    discover_later(world, BOB).await.expect(202);
    let mut copies = 0;
    for _ in 0..15 {
        copies += lists(&mailed, BOB).await.len();
        world.clock.advance(Duration::hours(1));
    }
    assert_eq!((copies, waiting(&mailed).await), (3, 0));
}

#[actix_web::test]
async fn requests_for_lists_are_bounded() {
    let mailed = added_with(two_a_minute()).await;
    let world = &mailed.world;
    for email in [BOB, "nobody@both.example"] {
        for _ in 0..2 {
            discover(world, email).await.expect(202);
        }
        discover(world, email).await.problem(429, "rate_limited");
    }
    let fill = "INSERT INTO workspace_requests SELECT gen_random_uuid(), n || '@full.example', now(), 0, now() \
                FROM generate_series(1, 9998) n";
    world.sql(fill.to_owned()).await;
    discover(world, "one-more@both.example").await.expect(202);
    assert_eq!(mailed.count("workspace_requests").await, 10_000);
}

#[actix_web::test]
async fn one_address_gets_a_bounded_number_of_lists_a_day() {
    let mailed = added().await;
    let world = &mailed.world;
    proven(&mailed).await;
    let mut sent = 0;
    for _ in 0..28 {
        discover_later(world, BOB).await.expect(202);
        sent += lists(&mailed, BOB).await.len();
    }
    assert_eq!(sent, 20);
}

// --------------------------------------------------------------------------------------------------------------- index

async fn indexed(world: &World, email: &str) -> i64 {
    let count = "SELECT count(*) FROM user_addresses WHERE address_digest = sha256(convert_to($1, 'UTF8'))";
    sqlx::query_scalar(count)
        .bind(email)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

#[actix_web::test]
async fn index_follows_each_account() {
    let mailed = added().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    assert_eq!(indexed(world, BOB).await, 0);
    let bob = proven(&mailed).await;
    assert_eq!(indexed(world, BOB).await, 2);
    let path = format!("/api/v1/users/{}", bob.id);
    let patch = async |body: Value| {
        world.patch(&acme.admin, &path, &body).await.expect(200);
    };
    patch(json!({"is_active": false})).await;
    assert_eq!(indexed(world, BOB).await, 1);
    patch(json!({"is_active": true})).await;
    assert_eq!(indexed(world, BOB).await, 2);
    patch(json!({"email": "bob@new.example"})).await;
    assert_eq!(
        (indexed(world, BOB).await, indexed(world, "bob@new.example").await),
        (1, 0)
    );
    world
        .sql("UPDATE users SET email_verified = true WHERE email = 'bob@new.example'".to_owned())
        .await;
    assert_eq!(indexed(world, "bob@new.example").await, 1);
    world.delete(&acme.admin, &path).await.expect(204);
    assert_eq!(indexed(world, "bob@new.example").await, 0);
    let operator = world.operator_cx();
    lifecycle::delete(&operator, globex.id, "a test").await.unwrap();
    row_work::settle(&world.app, globex.id, None, &|_| {})
        .await
        .unwrap();
    assert_eq!(indexed(world, BOB).await, 0);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM user_addresses WHERE of_tenant = $1")
        .bind(globex.id.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(rows, 0);
    row_work::restore(&operator, globex.id, "a test", None)
        .await
        .unwrap();
    assert_eq!(indexed(world, BOB).await, 1);
}

#[actix_web::test]
async fn runtime_role_learns_nothing_of_the_index() {
    let mailed = added().await;
    let world = &mailed.world;
    proven(&mailed).await;
    let mut app = world.database.app().await;
    for statement in [
        "SELECT count(*) FROM user_addresses",
        "DELETE FROM user_addresses",
        "INSERT INTO user_addresses VALUES (gen_random_uuid(), gen_random_uuid(), sha256('x'))",
        "SELECT count(*) FROM workspace_requests",
        "INSERT INTO workspace_requests VALUES (gen_random_uuid(), 'x@x.example', now(), 0, now())",
        "SELECT user_addresses_keep()",
        "SELECT user_addresses_drop()",
    ] {
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut app)
            .await
            .unwrap_err();
        let code = refused
            .as_database_error()
            .and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused}");
    }
    // A tenant adds a user whose address has accounts elsewhere, and one whose address has none: no error, the same rows.
    let admin = &world.acme.admin;
    for email in [world.globex.member.email.as_str(), "nobody@both.example"] {
        let body = json!({"email": email, "full_name": "New", "password": PASSWORD});
        world.post(admin, "/api/v1/users", &body).await.expect(201);
    }
    // An unusable link tells nothing either.
    let wrong = world.client.post(VERIFY_EMAIL, &json!({"token": "lt_x"})).await;
    is_unusable(wrong);
}
