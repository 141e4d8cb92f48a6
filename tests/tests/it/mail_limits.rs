//! How much mail an address, a tenant and an account get, and whom an address is kept for.

use std::time::Duration as StdDuration;

use chrono::Duration;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_domain::identity::AccountLink;
use tenantry_domain::kernel::{Clock as _, Role, SystemScope};
use tenantry_domain::operations::{AccountRates, MailDecision, MailLimits, MessageId, OutgoingMail, Rate};
use tenantry_http::HttpConfig;
use tenantry_tenancy::identity::user::UserError;
use tenantry_tenancy::identity::user_import::{self, ImportUser};
use tenantry_tenancy::operations::job::{Nothing, SystemJobHandler as _};
use tenantry_tenancy::tenant::purge::PurgeSentMails;
use tenantry_tests::{Options, PASSWORD, Person, Reaction, Reply, TenantWorld, World, operator_cx};
use uuid::Uuid;

use crate::account_passwords::{Mailed, ask, post};
use crate::mail;

const FORGOT: &str = "/api/v1/auth/forgot-password";
const STRANGER: &str = "stranger@elsewhere.example";

/// One address gets 4 mails a day, of which one tenant may send 2.
async fn limited() -> Mailed {
    let mail_limits = MailLimits {
        recipient: 4,
        tenant: 5,
    };
    Mailed::with(Options {
        mail_limits,
        ..Options::default()
    })
    .await
}

async fn invite(world: &World, admin: &Person, email: &str) -> Reply {
    let body = json!({"email": email, "role": "member"});
    world.post(admin, "/api/v1/invitations", &body).await
}

async fn add_user(world: &World, admin: &Person, email: &str) -> Reply {
    let body = json!({"email": email, "full_name": "Somebody", "password": PASSWORD});
    world.post(admin, "/api/v1/users", &body).await
}

async fn sign_up(world: &World, slug: &str, name: &str, email: &str) -> Value {
    let admin = json!({"email": email, "full_name": "Call +49 30 1234567 or http://evil.example"});
    let body = json!({"name": name, "slug": slug, "admin": admin});
    let signed_up = post(world, "/api/v1/tenants", body).await;
    signed_up.expect(201).json()
}

/// How often a tenant's log says that a mail was not sent.
async fn withheld(mailed: &Mailed, tenant: Uuid) -> i64 {
    let sql = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'mail.not_sent'";
    sqlx::query_scalar(sql)
        .bind(tenant)
        .fetch_one(&mut mailed.world.database.admin().await)
        .await
        .unwrap()
}

// --------------------------------------------------------------------------------------------------------- floods

/// Neither revoking an invitation nor deleting a user gives a mail back.
#[actix_web::test]
async fn one_tenant_mails_a_stranger_a_few_times_a_day() {
    let mailed = limited().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for _ in 0..2 {
        let user = add_user(world, &acme.admin, STRANGER).await.expect(201).json();
        let path = format!("/api/v1/users/{}", user["id"].as_str().unwrap());
        assert_eq!(mailed.mails_to(STRANGER).await.len(), 1);
        world.delete(&acme.admin, &path).await.expect(204);
    }
    for email in [
        STRANGER,
        "stranger+1@elsewhere.example",
        "stranger+2@elsewhere.example",
    ] {
        let invited = invite(world, &acme.admin, email).await;
        invited.expect(201);
        assert!(mailed.mails_to(email).await.is_empty(), "{email}");
    }
    // Once, with the others counted.
    assert_eq!(withheld(&mailed, acme.id.uuid()).await, 1);
    assert_eq!(withheld(&mailed, world.globex.id.uuid()).await, 0);
    let counts = world.app.unsent_mails().counts();
    assert!(counts.contains(&(MailDecision::Account, 3)), "{counts:?}");
    invite(world, &acme.admin, "other@elsewhere.example")
        .await
        .expect(201);
    assert_eq!(mailed.mails_to("other@elsewhere.example").await.len(), 1);
}

/// The tenant whose mail is not sent cannot see that others have mailed the address.
#[actix_web::test]
async fn all_tenants_together_mail_a_stranger_a_few_times() {
    let mailed = limited().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    for admin in [&acme.admin, &acme.admin, &globex.admin, &globex.admin] {
        let invited = invite(world, admin, STRANGER).await.expect(201).json();
        assert_eq!(mailed.mails_to(STRANGER).await.len(), 1);
        let path = format!("/api/v1/invitations/{}", invited["id"].as_str().unwrap());
        world.delete(admin, &path).await.expect(204);
    }
    let mut answers = Vec::new();
    for (slug, email) in [("first", STRANGER), ("other", "nobody@elsewhere.example")] {
        let signed_up = sign_up(world, slug, "New", email).await;
        let sent = mailed.mails_to(email).await.len();
        assert_eq!(sent, usize::from(email != STRANGER));
        let tenant = signed_up["tenant"]["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(withheld(&mailed, tenant).await, 0);
        let fields: Vec<String> = signed_up.as_object().unwrap().keys().cloned().collect();
        answers.push(fields);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(
        world
            .app
            .unsent_mails()
            .counts()
            .contains(&(MailDecision::Recipient, 1))
    );
    world.clock.advance(Duration::days(1));
    ask(world, "/api/v1/auth/resend-verification", "first", STRANGER)
        .await
        .expect(202);
    assert_eq!(mailed.mails_to(STRANGER).await.len(), 1, "the next day");
}

#[actix_web::test]
async fn one_tenant_mails_a_bounded_number_of_strangers_a_day() {
    let mailed = limited().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for number in 0..7 {
        add_user(world, &acme.admin, &format!("n{number}@acme.example"))
            .await
            .expect(201);
    }
    mail::work(world).await;
    assert_eq!(mailed.server.received().len(), 5);
    assert_eq!(withheld(&mailed, acme.id.uuid()).await, 1);
    add_user(world, &world.globex.admin, "n0@globex.example")
        .await
        .expect(201);
    assert_eq!(mailed.mails_to("n0@globex.example").await.len(), 1);
    // Users who have verified their address get theirs.
    verify(&mailed, &acme.viewer).await;
    ask(world, FORGOT, "acme", &acme.viewer.email).await.expect(202);
    assert_eq!(mailed.mails_to(&acme.viewer.email).await.len(), 1);
}

/// The server took the first and its answer was lost.
#[actix_web::test]
async fn mail_that_is_tried_again_counts_once() {
    let mailed = limited().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    mailed.server.react(Reaction::TakeAndVanish);
    invite(world, &acme.admin, STRANGER).await.expect(201);
    mail::work(world).await;
    world.clock.advance(Duration::minutes(20));
    assert_eq!(mailed.mails_to(STRANGER).await.len(), 1, "again");
    assert_eq!(mailed.count("sent_mails").await, 1);
}

#[actix_web::test]
async fn mails_at_once_exceed_no_limit() {
    let world = World::new().await;
    let because = SystemScope::because("a test counts mails");
    let admit = |number: u128| {
        let mail = OutgoingMail {
            id: MessageId::once(Uuid::from_u128(number)),
            tenant: world.acme.id,
            recipient: [7; 32],
            kind: "test",
            is_verified: false,
            at: world.clock.now(),
        };
        let sent = &world.app.ports.sent_mails;
        async move { sent.admit(because, &mail, MailLimits::default()).await.unwrap() }
    };
    let decisions = join_all((0..20).map(admit)).await;
    let admitted = decisions
        .iter()
        .filter(|decision| **decision == MailDecision::Send);
    assert_eq!(admitted.count(), 6, "{decisions:?}");
}

#[actix_web::test]
async fn records_of_mails_are_deleted_after_a_day() {
    let mailed = limited().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    invite(world, &acme.admin, STRANGER).await.expect(201);
    mail::work(world).await;
    let because = SystemScope::because("a test deletes records of mails");
    let purge = async || PurgeSentMails.run(&world.app, because, Nothing {}).await.unwrap();
    world.clock.advance(Duration::hours(23));
    purge().await;
    assert_eq!(mailed.count("sent_mails").await, 1);
    world.clock.advance(Duration::hours(2));
    purge().await;
    assert_eq!(mailed.count("sent_mails").await, 0);
}

#[actix_web::test]
async fn address_is_stored_as_a_digest_only() {
    let mailed = limited().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    invite(world, &acme.admin, STRANGER).await.expect(201);
    mail::work(world).await;
    let rows: Vec<String> = sqlx::query_scalar("SELECT m::text FROM sent_mails m")
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert!(
        !rows[0].contains("stranger") && !rows[0].contains("elsewhere"),
        "{rows:?}"
    );
}

#[actix_web::test]
async fn names_are_no_links_in_mail_to_a_stranger() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let name = "] Win at https://evil.example/x?a@b, call +49 30 1234567 [";
    sign_up(world, "evil", name, STRANGER).await;
    let mails = mailed.mails_to(STRANGER).await;
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(
        mail.header("Subject"),
        "[Win at https evil. example x?a b, call +] verify your e-mail address"
    );
    assert!(!mail.header("To").contains("Call"), "{}", mail.header("To"));
    let text = mail.text();
    assert_eq!(text.matches("://").count(), 1, "{text}");
    assert!(
        !text.contains("evil.example") && !text.contains("1234567"),
        "{text}"
    );
}

// ---------------------------------------------------------------------------------------------------------- links

async fn verify(mailed: &Mailed, who: &Person) {
    let sql = "UPDATE users SET email_verified = true WHERE id = $1";
    sqlx::query(sql)
        .bind(who.id.uuid())
        .execute(&mut mailed.world.database.admin().await)
        .await
        .unwrap();
}

/// A caller who asks for links to an account all day neither ends those of its owner, nor keeps the owner out.
#[actix_web::test]
async fn account_gets_a_bounded_number_of_links_a_day() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    verify(&mailed, &acme.viewer).await;
    let (mut sent, mut last) = (0, 0);
    for minutes in (0..24 * 60).step_by(5) {
        let before = mailed.server.received().len();
        ask(world, FORGOT, "acme", &acme.viewer.email).await.expect(202);
        mail::work(world).await;
        let new = mailed.server.received().len() - before;
        // Three within the hour; after 20 of them one in 50 minutes, so that there is always a link that works.
        assert!(new == 0 || sent >= 20 || minutes % 60 < 15, "{minutes}");
        assert!(new == 1 || minutes - last <= 50, "{minutes}");
        if new == 1 {
            (sent, last) = (sent + 1, minutes);
        }
        world.clock.advance(Duration::minutes(5));
    }
    assert_eq!(sent, 41);
    assert!(withheld(&mailed, acme.id.uuid()).await > 0);
    // Other mail to the account has places of its own.
    let body = json!({"current_password": PASSWORD, "new_password": "a staple of batteries"});
    let login = world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let change = world.client.post("/api/v1/auth/change-password", &body);
    let change = change.bearer(login["access_token"].as_str().unwrap());
    change.await.expect(204);
    assert_eq!(mailed.mails_to(&acme.viewer.email).await.len(), 1);
    // So has an admin's link.
    ask(world, FORGOT, "acme", &acme.viewer.email).await.expect(202);
    assert!(mailed.mails_to(&acme.viewer.email).await.is_empty());
    world.clock.advance(AccountLink::PAUSE);
    let login = world.login("acme", &acme.admin.email, PASSWORD).await.expect(200);
    let path = format!("/api/v1/users/{}/send-reset", acme.viewer.id);
    let by_admin = post(world, &path, json!({})).bearer(login.json()["access_token"].as_str().unwrap());
    by_admin.await.expect(202);
    let token = mailed.token_for(&acme.viewer.email).await;
    let body = json!({"token": token, "new_password": PASSWORD});
    let reset = post(world, "/api/v1/auth/reset-password", body).await;
    reset.expect(204);
}

/// Callers without a credential cause links. They keep neither a notice from the owner of an unverified address, nor for long a link.
#[actix_web::test]
async fn links_for_strangers_keep_no_notice_from_an_unverified_owner() {
    let mailed = limited().await;
    let (world, viewer) = (&mailed.world, &mailed.world.acme.viewer);
    for sent in [1, 1, 0] {
        ask(world, FORGOT, "acme", &viewer.email).await.expect(202);
        assert_eq!(mailed.mails_to(&viewer.email).await.len(), sent);
        world.clock.advance(AccountLink::PAUSE);
    }
    let login = world.login("acme", &viewer.email, PASSWORD).await.expect(200);
    let body = json!({"current_password": PASSWORD, "new_password": "a staple of batteries"});
    let change = post(world, "/api/v1/auth/change-password", body);
    let change = change.bearer(login.json()["access_token"].as_str().unwrap());
    change.await.expect(204);
    assert_eq!(mailed.mails_to(&viewer.email).await.len(), 1, "the notice");
    world.clock.advance(MailLimits::ALWAYS_UNVERIFIED);
    ask(world, FORGOT, "acme", &viewer.email).await.expect(202);
    assert_eq!(mailed.mails_to(&viewer.email).await.len(), 1, "a link");
}

/// A bucket of all networks together would be emptied by strangers.
#[actix_web::test]
async fn requests_from_other_networks_keep_no_owner_from_asking() {
    let two = Rate::new(2, 2).unwrap();
    let usual = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..usual.http
    };
    let account_rates = AccountRates {
        network: two,
        anywhere: two,
    };
    let mailed = Mailed::with(Options {
        http,
        account_rates,
        ..usual
    })
    .await;
    let (world, viewer) = (&mailed.world, &mailed.world.acme.viewer);
    let from = async |address: &str, email: &str| {
        let body = json!({"email": email, "tenant_slug": "acme"});
        let asked = post(world, FORGOT, body).header("X-Forwarded-For", address);
        asked.await
    };
    for email in [&*viewer.email, "nobody@acme.example"] {
        for network in 0..7 {
            let address = format!("198.51.{network}.9");
            for _ in 0..2 {
                from(&address, email).await.expect(202);
            }
            from(&address, email).await.problem(429, "rate_limited");
        }
        from("203.0.113.9", email).await.expect(202);
    }
    assert_eq!(mailed.mails_to(&viewer.email).await.len(), 1);
}

// ------------------------------------------------------------------------------------------------------- addresses

/// Moves the viewer of acme to another address; the token that takes it back.
async fn move_viewer(mailed: &Mailed, to: &str) -> String {
    let (world, viewer) = (&mailed.world, &mailed.world.acme.viewer);
    verify(mailed, viewer).await;
    let body = json!({"email": to, "password": PASSWORD});
    let change = world.post(viewer, "/api/v1/auth/change-email", &body).await;
    change.expect(202);
    let token = mailed.token_for(to).await;
    let confirm = post(world, "/api/v1/auth/confirm-email", json!({"token": token}));
    confirm.await.expect(204);
    mailed.token_for(&viewer.email).await
}

fn register(world: &World, tenant: &TenantWorld, email: &str) -> tenantry_tests::Request {
    let body = json!({"tenant_slug": tenant.slug, "email": email, "full_name": "Eve", "password": PASSWORD});
    post(world, "/api/v1/auth/register", body)
}

/// Somebody who took the address meanwhile would keep the owner from taking the change back.
#[actix_web::test]
async fn former_address_is_kept_for_its_owner_for_seven_days() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let former = &acme.viewer.email;
    let revert = move_viewer(&mailed, "new@acme.example").await;
    let taken = |reply: Reply| reply.problem(409, "email_taken");
    taken(register(world, acme, former).await);
    taken(invite(world, &acme.admin, former).await);
    taken(add_user(world, &acme.admin, former).await);
    let path = format!("/api/v1/users/{}", acme.member.id);
    let patch = json!({"email": former});
    taken(world.patch(&acme.admin, &path, &patch).await);
    let body = json!({"email": former, "password": PASSWORD});
    let change = world.post(&acme.member, "/api/v1/auth/change-email", &body).await;
    change.expect(202);
    let confirm = json!({"token": mailed.token_for(former).await});
    taken(post(world, "/api/v1/auth/confirm-email", confirm).await);
    let cx = user_import::begin(&operator_cx(&world.app), acme.id, true)
        .await
        .unwrap();
    let import = ImportUser {
        email: former.clone(),
        full_name: "Eve".into(),
        role: Role::Member,
        custom_role: None,
        password_hash: None,
        email_verified: true,
    };
    let Err(UserError::Invalid(refused)) = user_import::import(&cx, import).await else {
        panic!("the import took the address")
    };
    assert_eq!(refused.0[0].code, "email_reserved");
    // In another tenant it is free.
    add_user(world, &world.globex.admin, former).await.expect(201);
    let revert = post(world, "/api/v1/auth/revert-email", json!({"token": revert}));
    revert.await.expect(204);
}

#[actix_web::test]
async fn former_address_is_free_after_seven_days_and_for_its_owner() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    move_viewer(&mailed, "new@acme.example").await;
    // The owner moves back.
    let body = json!({"email": acme.viewer.email, "password": PASSWORD});
    let change = world.post(&acme.viewer, "/api/v1/auth/change-email", &body).await;
    change.expect(202);
    let confirm = json!({"token": mailed.token_for(&acme.viewer.email).await});
    post(world, "/api/v1/auth/confirm-email", confirm)
        .await
        .expect(204);
    register(world, acme, "new@acme.example")
        .await
        .problem(409, "email_taken");
    world.clock.advance(Duration::days(7));
    register(world, acme, "new@acme.example").await.expect(201);
}

/// The expired invitation reserves the address for nobody; a user takes it and gives it up.
#[actix_web::test]
async fn former_address_is_kept_from_an_expired_invitation() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let invited = invite(world, &acme.admin, STRANGER).await.expect(201).json();
    mail::work(world).await;
    world.clock.advance(Duration::days(8));
    let registered = register(world, acme, STRANGER).await.expect(201).json();
    let stranger = registered["access_token"].as_str().unwrap();
    let token = mailed.token_for(STRANGER).await;
    let verify = post(world, "/api/v1/auth/verify-email", json!({"token": token}));
    verify.bearer(stranger).await.expect(204);
    let body = json!({"email": "new@elsewhere.example", "password": PASSWORD});
    let change = post(world, "/api/v1/auth/change-email", body).bearer(stranger);
    change.await.expect(202);
    let token = mailed.token_for("new@elsewhere.example").await;
    let confirm = post(world, "/api/v1/auth/confirm-email", json!({"token": token}));
    confirm.await.expect(204);
    let admin = world.login("acme", &acme.admin.email, PASSWORD).await.expect(200);
    let path = format!("/api/v1/invitations/{}/resend", invited["id"].as_str().unwrap());
    let resend = post(world, &path, json!({})).bearer(admin.json()["access_token"].as_str().unwrap());
    resend.await.problem(409, "email_taken");
}

/// Each goes to an address of the user's choice, and counts for the tenant, which mails a bounded number of strangers.
#[actix_web::test]
async fn one_user_confirms_a_bounded_number_of_addresses_a_day() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let change = async |who: &Person, email: &str| {
        let body = json!({"email": email, "password": PASSWORD});
        let change = world.post(who, "/api/v1/auth/change-email", &body);
        world.clock.advance(Duration::minutes(1));
        change.await
    };
    for number in 0..10 {
        change(&acme.viewer, &format!("n{number}@elsewhere.example"))
            .await
            .expect(202);
    }
    let refused = change(&acme.viewer, "n10@elsewhere.example").await;
    refused.problem(409, "conflict");
    let of_viewer = "account_links WHERE purpose = 'confirm_email'";
    assert_eq!(mailed.count(of_viewer).await, 1, "the last one still works");
    change(&acme.member, "n11@elsewhere.example").await.expect(202);
    world.clock.advance(Duration::days(1));
    let login = world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .expect(200);
    let viewer = Person {
        access_token: login.json()["access_token"].as_str().unwrap().to_owned(),
        ..acme.viewer.clone()
    };
    change(&viewer, "n12@elsewhere.example").await.expect(202);
}

// ------------------------------------------------------------------------------------------------ invite and register

/// Both wait for the tenant's row, and the second sees what the first has done.
#[actix_web::test]
async fn address_is_registered_or_invited_and_not_both() {
    for _ in 0..3 {
        let mailed = Mailed::new().await;
        let (world, acme) = (&mailed.world, &mailed.world.acme);
        let mut admin = world.database.admin().await;
        let lock = format!("BEGIN; SELECT 1 FROM tenants WHERE id = '{}' FOR UPDATE", acme.id);
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock))
            .execute(&mut admin)
            .await
            .unwrap();
        let unlock = async {
            let waiting = async { while waiting(world).await < 2 {} };
            tokio::time::timeout(StdDuration::from_secs(60), waiting)
                .await
                .unwrap();
            sqlx::raw_sql("COMMIT").execute(&mut admin).await.unwrap();
        };
        let both = join(
            register(world, acme, STRANGER).send(),
            invite(world, &acme.admin, STRANGER),
        );
        let ((registered, invited), ()) = join(both, unlock).await;
        let mut statuses = [registered.status, invited.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409]);
    }
}

/// How many transactions wait for a lock.
async fn waiting(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'tenantry_app' \
               AND wait_event_type = 'Lock'";
    let count = sqlx::query_scalar(sql)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    tokio::time::sleep(StdDuration::from_millis(5)).await;
    count
}

/// At the limit of users, an invited address gets the answer that any other one gets.
#[actix_web::test]
async fn full_tenant_answers_alike_for_invited_addresses() {
    let options = crate::plans::options(&crate::plans::book(4, 100, 1_000));
    let mailed = Mailed::with(options).await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    invite(world, &acme.admin, STRANGER).await.expect(201);
    let mut answers = Vec::new();
    for email in [STRANGER, &acme.member.email, "free@elsewhere.example"] {
        let refused = register(world, acme, email).await;
        answers.push(refused.problem(403, "plan_limit_reached").comparable());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

// -------------------------------------------------------------------------------------------------- language and look

/// The locale and the branding of the tenant decide, of its own mails only.
#[actix_web::test]
async fn mail_is_in_the_language_and_color_of_its_tenant() {
    let mailed = Mailed::new().await;
    let (world, acme, globex) = (&mailed.world, &mailed.world.acme, &mailed.world.globex);
    let tenant = world.get(&acme.admin, "/api/v1/tenant").await.expect(200).json();
    let locale = json!({"settings": {"locale": "de-AT"}});
    let patch = world.patch(&acme.admin, "/api/v1/tenant", &locale);
    patch.await.expect(200);
    assert_eq!(tenant["settings"]["locale"], "en");
    let look = json!({"display_name": "Acme <b>&amp;</b>", "primary_color": "#facc15"});
    let patch = world.patch(&acme.admin, "/api/v1/branding", &look);
    patch.await.expect(200);
    for tenant in [acme, globex] {
        ask(world, FORGOT, tenant.slug, &tenant.viewer.email)
            .await
            .expect(202);
    }
    let mails = mailed.mails_to(&acme.viewer.email).await;
    assert!(
        mails[0].header("Subject").ends_with("Passwort zurücksetzen"),
        "{mails:?}"
    );
    assert!(mails[0].text().starts_with("Guten Tag "), "{}", mails[0].text());
    let html = mails[0].html();
    assert!(html.contains("background:#facc15;color:#000000"), "{html}");
    assert!(!html.contains("<b>") && html.contains("&amp;amp;"), "{html}");
    let received = mailed.server.received();
    let theirs = received
        .iter()
        .find(|mail| mail.to == [globex.viewer.email.as_str()])
        .unwrap();
    assert_eq!(theirs.header("Subject"), "[Globex Corp] reset your password");
    assert!(theirs.html().contains("background:#1d4ed8"), "{}", theirs.html());
}
