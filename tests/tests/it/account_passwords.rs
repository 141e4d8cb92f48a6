//! Passwords of accounts: changing one with the old one, and resetting it with a link.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::Duration;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_domain::identity::FACTOR_SETTLES_AFTER;
use tenantry_domain::operations::{AccountRates, Rate};
use tenantry_tests::{
    ManualClock, Options, PASSWORD, Person, Reaction, Received, Reply, Request, SmtpServer, TenantWorld,
    World,
};

use crate::mail;
use crate::mfa::with_factor;

const CHANGE: &str = "/api/v1/auth/change-password";
const FORGOT: &str = "/api/v1/auth/forgot-password";
const RESET: &str = "/api/v1/auth/reset-password";
const NEW: &str = "a staple of batteries";

/// A world whose mail goes to a server of its own.
pub(crate) struct Mailed {
    pub world: World,
    pub server: SmtpServer,
}

impl Mailed {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let server = SmtpServer::start();
        let world = World::with(mail::mailing(options, &server, |_| {})).await;
        Self { world, server }
    }

    /// Does all jobs, and returns the mails that were sent to an address since the last time.
    pub async fn mails_to(&self, address: &str) -> Vec<Received> {
        let before = self.server.received().len();
        mail::work(&self.world).await;
        let received = self.server.received().split_off(before);
        received.into_iter().filter(|mail| mail.to == [address]).collect()
    }

    /// Does all jobs, and returns the token of the one link that was sent to an address.
    pub async fn token_for(&self, address: &str) -> String {
        let mut mails = self.mails_to(address).await;
        mails.retain(|mail| mail.text().contains("#token="));
        let [mail] = &mails[..] else {
            panic!("{} mails to {address}", mails.len())
        };
        token(mail)
    }

    /// The token of a link to reset a password, which a user has asked for.
    pub async fn forgotten(&self, tenant: &TenantWorld, who: &Person) -> String {
        ask(&self.world, FORGOT, tenant.slug, &who.email)
            .await
            .expect(202);
        self.token_for(&who.email).await
    }

    /// The actions in a tenant's audit log.
    pub async fn audit(&self, tenant: &TenantWorld) -> Vec<String> {
        sqlx::query_scalar("SELECT action FROM audit_events WHERE tenant_id = $1 ORDER BY created_at, id")
            .bind(tenant.id.uuid())
            .fetch_all(&mut self.world.database.admin().await)
            .await
            .unwrap()
    }

    pub async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut self.world.database.admin().await)
            .await
            .unwrap()
    }
}

/// The token of the link in a mail.
pub(crate) fn token(mail: &Received) -> String {
    let text = mail.text();
    let (_, rest) = text.split_once("#token=").expect(&text);
    rest.split_whitespace().next().unwrap().to_owned()
}

pub(crate) async fn ask(world: &World, path: &str, slug: &str, email: &str) -> Reply {
    let body = json!({"email": email, "tenant_slug": slug});
    world.client.post(path, &body).await
}

pub(crate) fn post(world: &World, path: &str, body: Value) -> Request {
    world.client.post(path, &body)
}

async fn reset(world: &World, token: &str, password: &str) -> Reply {
    let body = json!({"token": token, "new_password": password});
    post(world, RESET, body).await
}

async fn change(world: &World, who: &Person, current: &str, new: &str) -> Reply {
    let body = json!({"current_password": current, "new_password": new});
    world.post(who, CHANGE, &body).await
}

/// The token of a link does not work.
#[track_caller]
pub(crate) fn is_unusable(reply: Reply) -> String {
    let reply = reply.problem(422, "validation_failed");
    let errors = reply.json()["errors"].clone();
    assert_eq!(errors[0]["pointer"], "/token");
    assert_eq!(errors[0]["code"], "invalid_token");
    reply.comparable()
}

async fn log_in(world: &World, tenant: &TenantWorld, who: &Person, password: &str) -> Person {
    let reply = world.login(tenant.slug, &who.email, password).await.expect(200);
    let text = |name: &str| reply.json()[name].as_str().unwrap().to_owned();
    Person {
        access_token: text("access_token"),
        refresh_token: text("refresh_token"),
        ..who.clone()
    }
}

async fn me(world: &World, who: &Person) -> u16 {
    world.get(who, "/api/v1/auth/me").await.status
}

async fn refresh(world: &World, who: &Person) -> u16 {
    let body = json!({"refresh_token": who.refresh_token});
    post(world, "/api/v1/auth/refresh", body).await.status
}

// ------------------------------------------------------------------------------------------------------------- change

#[actix_web::test]
async fn changed_password_ends_all_other_sessions_at_once() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let globex = world.digest(&world.globex).await;
    let other = log_in(world, acme, &acme.viewer, PASSWORD).await;
    assert_eq!(me(world, &other).await, 200);
    change(world, &acme.viewer, PASSWORD, NEW).await.expect(204);
    assert_eq!(
        (me(world, &acme.viewer).await, me(world, &other).await),
        (200, 401)
    );
    assert_eq!(
        (refresh(world, &acme.viewer).await, refresh(world, &other).await),
        (200, 401)
    );
    assert_eq!(me(world, &acme.member).await, 200, "others keep their sessions");
    world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    log_in(world, acme, &acme.viewer, NEW).await;
    let mails = mailed.mails_to(&acme.viewer.email).await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].header("Subject"), "[Acme Inc] your password was changed");
    assert_eq!(mailed.server.received().len(), 1, "nobody else is notified");
    assert!(
        mailed
            .audit(acme)
            .await
            .contains(&"user.password_changed".to_owned())
    );
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn wrong_current_password_changes_nothing_and_counts() {
    let three = Rate::new(3, 3).unwrap();
    let options = Options {
        account_rates: AccountRates {
            network: three,
            anywhere: three,
        },
        ..Options::default()
    };
    let mailed = Mailed::with(options).await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for _ in 0..5 {
        // Right ones use nothing up.
        change(world, &acme.viewer, PASSWORD, PASSWORD).await.expect(204);
    }
    for _ in 0..3 {
        let reply = change(world, &acme.viewer, "wrong horse", NEW).await;
        reply.problem(401, "invalid_credentials");
    }
    change(world, &acme.viewer, PASSWORD, NEW)
        .await
        .problem(429, "rate_limited");
    world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .problem(429, "rate_limited");
    change(world, &acme.member, PASSWORD, NEW).await.expect(204);
    world.clock.advance(Duration::minutes(5));
    log_in(world, acme, &acme.viewer, PASSWORD).await;
    let refused = "password.confirmation_failed";
    let audit = mailed.audit(acme).await;
    assert_eq!(
        audit.iter().filter(|action| *action == refused).count(),
        1,
        "repeats are counted"
    );
}

#[actix_web::test]
async fn chosen_passwords_obey_the_rules_of_sign_up() {
    let world = World::new().await;
    let acme = &world.acme;
    let before = world.digest(acme).await;
    let long = "x".repeat(129);
    for weak in [
        "",
        "short",
        "password123",
        "viewer at work",
        "acme forever",
        &long,
    ] {
        let reply = change(&world, &acme.viewer, PASSWORD, weak).await;
        let errors = reply.problem(422, "validation_failed").json()["errors"].clone();
        assert_eq!(errors[0]["pointer"], "/new_password", "{weak}");
        assert_eq!(errors[0]["code"], "weak_password", "{weak}");
    }
    let reply = change(&world, &acme.viewer, PASSWORD, "nul\0 in the middle").await;
    reply.problem(422, "validation_failed");
    assert_eq!(world.digest(acme).await, before);
}

#[actix_web::test]
async fn suspended_tenants_users_can_change_their_password() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    world.set_status(acme, "suspended").await;
    change(world, &acme.viewer, PASSWORD, NEW).await.expect(204);
    log_in(world, acme, &acme.viewer, NEW).await;
    let token = mailed.forgotten(acme, &acme.member).await;
    reset(world, &token, NEW).await.expect(204);
    log_in(world, acme, &acme.member, NEW).await;
}

/// Both verified the same old password; the second finds another one.
#[actix_web::test]
async fn two_changes_at_once_do_not_both_succeed() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let (one, other) = join(
        change(&world, viewer, PASSWORD, NEW),
        change(&world, viewer, PASSWORD, "another staple of horses"),
    )
    .await;
    let statuses = BTreeSet::from([one.status, other.status]);
    assert_eq!(statuses, BTreeSet::from([204, 401]));
}

// -------------------------------------------------------------------------------------------------------------- reset

#[actix_web::test]
async fn reset_link_works_once_and_ends_all_sessions() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let globex = world.digest(&world.globex).await;
    let token = mailed.forgotten(acme, &acme.viewer).await;
    assert_eq!(me(world, &acme.viewer).await, 200, "asking changes nothing");
    reset(world, &token, NEW).await.expect(204);
    assert_eq!(
        (me(world, &acme.viewer).await, refresh(world, &acme.viewer).await),
        (401, 401)
    );
    world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .expect(401);
    let login = world
        .login("acme", &acme.viewer.email, NEW)
        .await
        .expect(200)
        .json();
    assert_eq!(
        login["user"]["email_verified"], true,
        "the mail was read at that address"
    );
    is_unusable(reset(world, &token, "yet another horse").await);
    log_in(world, acme, &acme.viewer, NEW).await;
    let mails = mailed.mails_to(&acme.viewer.email).await;
    assert_eq!(mails[0].header("Subject"), "[Acme Inc] your password was reset");
    let audit = mailed.audit(acme).await;
    assert!(
        audit.contains(&"account_link.sent".to_owned()) && audit.contains(&"user.password_reset".to_owned())
    );
    assert_eq!(mailed.count("account_links").await, 0);
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn one_of_many_simultaneous_resets_wins() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let token = mailed.forgotten(acme, &acme.viewer).await;
    let passwords: Vec<_> = (0..8).map(|n| format!("staple number {n} of many")).collect();
    let replies = join_all(passwords.iter().map(|password| reset(world, &token, password))).await;
    let won: Vec<_> = (0..8).filter(|n| replies[*n].status == 204).collect();
    assert_eq!(won.len(), 1);
    log_in(world, acme, &acme.viewer, &passwords[won[0]]).await;
}

/// The answer is the same for all addresses, and what is done before it, too.
#[actix_web::test]
async fn forgot_password_does_not_reveal_whether_an_address_exists() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let path = format!("/api/v1/users/{}", acme.member.id);
    let off = json!({"is_active": false});
    world.patch(&acme.admin, &path, &off).await.expect(200);
    mail::work(world).await;
    let addresses = [
        acme.viewer.email.clone(),
        acme.member.email.clone(),
        "nobody@acme.example".into(),
        world.globex.viewer.email.clone(),
    ];
    let mut answers = BTreeSet::new();
    for address in &addresses {
        let jobs = mailed.count("jobs").await;
        let reply = ask(world, FORGOT, "acme", address).await.expect(202);
        answers.insert((reply.status, reply.bytes));
        assert_eq!(mailed.count("jobs").await, jobs + 1, "{address}");
        assert_eq!(mailed.count("account_links").await, 0, "{address}");
    }
    assert_eq!(answers.len(), 1);
    mail::work(world).await;
    let to: Vec<_> = mailed
        .server
        .received()
        .into_iter()
        .flat_map(|mail| mail.to)
        .collect();
    assert_eq!(
        to,
        std::slice::from_ref(&acme.viewer.email),
        "active users of this tenant only"
    );
    ask(world, FORGOT, "acme", "no address")
        .await
        .problem(422, "validation_failed");
    ask(world, FORGOT, "nowhere", &acme.viewer.email)
        .await
        .problem(404, "tenant_not_found");
}

/// A stranger who asks for links does not end those that the owner has.
#[actix_web::test]
async fn three_links_work_at_once_and_using_one_ends_all() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let first = mailed.forgotten(acme, &acme.viewer).await;
    for _ in 0..3 {
        ask(world, FORGOT, "acme", &acme.viewer.email.to_uppercase())
            .await
            .expect(202);
        assert!(mailed.mails_to(&acme.viewer.email).await.is_empty());
    }
    world.clock.advance(Duration::minutes(5));
    let second = mailed.forgotten(acme, &acme.viewer).await;
    world.clock.advance(Duration::minutes(5));
    let third = mailed.forgotten(acme, &acme.viewer).await;
    for _ in 0..3 {
        world.clock.advance(Duration::minutes(5));
        ask(world, FORGOT, "acme", &acme.viewer.email).await.expect(202);
        assert!(mailed.mails_to(&acme.viewer.email).await.is_empty());
    }
    assert_eq!(mailed.count("account_links").await, 3);
    reset(world, &first, NEW).await.expect(204);
    for token in [first, second, third] {
        is_unusable(reset(world, &token, NEW).await);
    }
    assert_eq!(mailed.count("account_links").await, 0);
}

#[actix_web::test]
async fn unusable_links_are_refused_alike() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let token = mailed.forgotten(acme, &acme.viewer).await;
    let mut forged = token.clone().into_bytes();
    forged[90] = if forged[90] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let before = world.digest(acme).await;
    let mut seen = BTreeSet::new();
    for wrong in [
        "",
        "lt_",
        &token[3..],
        &forged,
        &acme.viewer.refresh_token,
        &"lt_".repeat(9_000),
    ] {
        seen.insert(is_unusable(reset(world, wrong, NEW).await));
    }
    // It is a link for something else.
    let verify = post(world, "/api/v1/auth/verify-email", json!({"token": token})).await;
    seen.insert(is_unusable(verify));
    // A weak password does not use it up.
    let weak = reset(world, &token, "password")
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(weak["errors"][0]["pointer"], "/new_password");
    // A request that names another tenant does not, either.
    let body = json!({"token": token, "new_password": NEW});
    let elsewhere = post(world, RESET, body).header("X-Tenant-Slug", "globex");
    elsewhere.await.problem(403, "tenant_mismatch");
    world.clock.advance(Duration::minutes(60));
    seen.insert(is_unusable(reset(world, &token, NEW).await));
    assert_eq!(seen.len(), 1, "{seen:#?}");
    let rows = |digest: Vec<(String, String)>| -> Vec<_> {
        digest
            .into_iter()
            .filter(|(table, _)| table != "audit_events")
            .collect()
    };
    assert_eq!(rows(world.digest(acme).await), rows(before));
}

#[actix_web::test]
async fn links_of_removed_users_and_deleted_tenants_open_nothing() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let tokens = [
        mailed.forgotten(acme, &acme.viewer).await,
        mailed.forgotten(acme, &acme.member).await,
        mailed.forgotten(acme, &acme.admin).await,
    ];
    let viewer = format!("/api/v1/users/{}", acme.viewer.id);
    world.delete(&acme.admin, &viewer).await.expect(204);
    let member = format!("/api/v1/users/{}", acme.member.id);
    world
        .patch(&acme.admin, &member, &json!({"is_active": false}))
        .await
        .expect(200);
    for token in &tokens[..2] {
        is_unusable(reset(world, token, NEW).await);
    }
    world.set_status(acme, "deleted").await;
    reset(world, &tokens[2], NEW).await.problem(410, "tenant_gone");
}

#[actix_web::test]
async fn reset_lifts_the_limit_of_failed_logins() {
    let two = Rate::new(2, 2).unwrap();
    let options = Options {
        account_rates: AccountRates {
            network: two,
            anywhere: two,
        },
        ..Options::default()
    };
    let mailed = Mailed::with(options).await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for _ in 0..2 {
        world
            .login("acme", &acme.viewer.email, "wrong horse")
            .await
            .expect(401);
    }
    world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .problem(429, "rate_limited");
    // Asking for links is counted apart.
    let token = mailed.forgotten(acme, &acme.viewer).await;
    reset(world, &token, NEW).await.expect(204);
    log_in(world, acme, &acme.viewer, NEW).await;
    ask(world, FORGOT, "acme", &acme.viewer.email).await.expect(202);
    for address in [&acme.viewer.email, "nobody@acme.example"] {
        while ask(world, FORGOT, "acme", address).await.status == 202 {}
        ask(world, FORGOT, "acme", address)
            .await
            .problem(429, "rate_limited");
    }
    ask(world, FORGOT, "globex", &world.globex.viewer.email)
        .await
        .expect(202);
}

/// Anybody can register with the address of somebody else. A user whom an admin added keeps the factor.
#[actix_web::test]
async fn reset_that_first_proves_the_address_ends_a_strangers_factor() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let victim = "victim@elsewhere.example";
    let body = json!({"tenant_slug": "acme", "email": victim, "full_name": "Eve", "password": PASSWORD});
    let registered = post(world, "/api/v1/auth/register", body).await;
    let registered = registered.expect(201).json();
    let stranger = Person {
        email: victim.to_owned(),
        access_token: registered["access_token"].as_str().unwrap().to_owned(),
        ..acme.viewer.clone()
    };
    with_factor(world, &stranger).await;
    with_factor(world, &acme.member).await;
    mailed.mails_to(victim).await;
    world.clock.advance(FACTOR_SETTLES_AFTER);
    for who in [&stranger, &acme.member] {
        world.clock.advance(Duration::minutes(5));
        let token = mailed.forgotten(acme, who).await;
        reset(world, &token, NEW).await.expect(204);
    }
    world.login("acme", victim, NEW).await.expect(200);
    let member = world.login("acme", &acme.member.email, NEW).await;
    member.problem(401, "mfa_required");
    let audit = mailed.audit(acme).await;
    let removed = audit.iter().filter(|action| *action == "mfa.removed_by_proof");
    assert_eq!(removed.count(), 1);
    // The address is proven now, so the next factor outlives a reset once it is settled.
    let login = world.login("acme", victim, NEW).await.expect(200).json();
    let owner = Person {
        access_token: login["access_token"].as_str().unwrap().to_owned(),
        ..stranger
    };
    with_factor(world, &owner).await;
    mailed.mails_to(victim).await;
    world.clock.advance(FACTOR_SETTLES_AFTER);
    let token = mailed.forgotten(acme, &owner).await;
    reset(world, &token, PASSWORD).await.expect(204);
    world
        .login("acme", victim, PASSWORD)
        .await
        .problem(401, "mfa_required");
}

/// A stolen password of an admin, who gives an account an address of the thief's, is not enough to take its factor away.
#[actix_web::test]
async fn reset_to_an_address_that_an_admin_set_keeps_the_factor() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let (first, second) = ("ada@elsewhere.example", "thief@elsewhere.example");
    let body = json!({"tenant_slug": "acme", "email": first, "full_name": "Ada Else", "password": PASSWORD});
    let registered = post(world, "/api/v1/auth/register", body).await;
    let registered = registered.expect(201).json();
    let ada = Person {
        email: first.to_owned(),
        access_token: registered["access_token"].as_str().unwrap().to_owned(),
        ..acme.viewer.clone()
    };
    with_factor(world, &ada).await;
    let id = registered["user"]["id"].as_str().unwrap();
    let path = format!("/api/v1/users/{id}");
    let admin = async || {
        let login = world.login("acme", &acme.admin.email, PASSWORD).await.expect(200);
        Person {
            access_token: login.json()["access_token"].as_str().unwrap().to_owned(),
            ..acme.admin.clone()
        }
    };
    let moved = async |admin: &Person| world.patch(admin, &path, &json!({"email": second})).await;
    moved(&admin().await).await.problem(403, "mfa_required");
    world.clock.advance(FACTOR_SETTLES_AFTER);
    // A link to the new address would still remove it: the user may be a stranger to the first one.
    moved(&admin().await).await.problem(403, "mfa_required");
    world
        .sql(format!(
            "UPDATE users SET email_verified = true, self_registered = false WHERE id = '{id}'"
        ))
        .await;
    moved(&admin().await).await.expect(200);
    mailed.mails_to(second).await;
    world.clock.advance(Duration::minutes(5));
    let ada = Person {
        email: second.to_owned(),
        ..ada
    };
    let token = mailed.forgotten(acme, &ada).await;
    reset(world, &token, NEW).await.expect(204);
    let login = world.login("acme", second, NEW).await;
    login.problem(401, "mfa_required");
}

#[actix_web::test]
async fn links_are_stored_hashed_and_sealed_only() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let token = mailed.forgotten(acme, &acme.viewer).await;
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT j::text FROM jobs j UNION ALL SELECT l::text FROM account_links l UNION ALL SELECT a::text FROM audit_events a",
    )
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    assert!(rows.len() > 3);
    for row in rows {
        assert!(!row.contains(&token), "{row}");
    }
}

/// The server took the mail and its answer was lost: the mail that is sent again has the same id and the same link.
#[actix_web::test]
async fn mail_that_is_sent_again_carries_the_same_link() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    mailed.server.react(Reaction::TakeAndVanish);
    ask(world, FORGOT, "acme", &acme.viewer.email).await.expect(202);
    mail::work(world).await;
    world.clock.advance(Duration::minutes(20));
    mail::work(world).await;
    let received = mailed.server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(token(&received[0]), token(&received[1]));
    assert_eq!(received[0].header("Message-ID"), received[1].header("Message-ID"));
    reset(world, &token(&received[0]), NEW).await.expect(204);
}

#[actix_web::test]
async fn jobs_of_callers_without_account_are_deleted_soon() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let before = mailed.count("jobs").await;
    for number in 0..20 {
        ask(world, FORGOT, "acme", &format!("n{number}@nowhere.example"))
            .await
            .expect(202);
        // While it waits, the same is asked for once.
        ask(world, FORGOT, "acme", &format!("n{number}@nowhere.example"))
            .await
            .expect(202);
    }
    assert_eq!(mailed.count("jobs").await, before + 20);
    mail::work(world).await;
    world.clock.advance(Duration::minutes(61));
    ask(world, FORGOT, "acme", "last@nowhere.example")
        .await
        .expect(202);
    mail::work(world).await;
    let kept = mailed.count("jobs WHERE kind = 'account.ask_link'").await;
    assert_eq!(kept, 1);
}

#[actix_web::test]
async fn admin_sends_a_reset_link_and_never_sees_it() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let path = |who: &Person| format!("/api/v1/users/{}/send-reset", who.id);
    let send = async |who: &Person, to: &str| world.post(who, to, &json!({})).await;
    let reply = send(&acme.admin, &path(&acme.viewer)).await.expect(202);
    assert!(reply.bytes.is_empty());
    let token = mailed.token_for(&acme.viewer.email).await;
    log_in(world, acme, &acme.viewer, PASSWORD).await;
    reset(world, &token, NEW).await.expect(204);
    send(&acme.member, &path(&acme.viewer))
        .await
        .problem(403, "forbidden");
    send(&acme.admin, &path(&world.globex.viewer))
        .await
        .problem(404, "not_found");
    let member = format!("/api/v1/users/{}", acme.member.id);
    world
        .patch(&acme.admin, &member, &json!({"is_active": false}))
        .await
        .expect(200);
    send(&acme.admin, &path(&acme.member))
        .await
        .problem(409, "conflict");
}

/// Another server with the same keys and another clock reads the same links.
#[actix_web::test]
async fn a_link_works_on_every_instance() {
    let clock = Arc::new(ManualClock::default());
    let options = Options {
        clock: Some(clock),
        ..Options::default()
    };
    let mailed = Mailed::with(options.clone()).await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let token = mailed.forgotten(acme, &acme.viewer).await;
    let other = world.other_instance(&options).await;
    let body = json!({"token": token, "new_password": NEW});
    other.post(RESET, &body).await.expect(204);
    log_in(world, acme, &acme.viewer, NEW).await;
}
