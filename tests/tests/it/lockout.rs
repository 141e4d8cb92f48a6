//! Lockout: accounts wait after wrong passwords and codes in a row, and nobody keeps an owner out with it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::kernel::SystemScope;
use tenantry_http::HttpConfig;
use tenantry_tenancy::audit::refusal;
use tenantry_tenancy::operations::job::JobHandler as _;
use tenantry_tenancy::tenant::purge::{Ended, Purge};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{Options, PASSWORD, Person, Reply, World};

use crate::account_passwords::{Mailed, post};
use crate::mfa::with_factor;

const LOGIN: &str = "/api/v1/auth/login";
/// The network of the logins with which a world begins, and others.
const HOME: &str = "203.0.113.9";
const CAFE: &str = "198.51.100.9";

fn behind_a_proxy() -> Options {
    let usual = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..usual.http
    };
    Options { http, ..usual }
}

/// A login from an address.
async fn from(world: &World, address: &str, email: &str, rest: Value) -> Reply {
    let mut body = json!({"tenant_slug": "acme", "email": email, "password": PASSWORD});
    let fields = body.as_object_mut().unwrap();
    fields.extend(rest.as_object().unwrap().clone());
    world
        .client
        .post(LOGIN, &body)
        .header("X-Forwarded-For", address)
        .await
}

async fn fail(world: &World, address: &str, email: &str, times: usize) {
    for _ in 0..times {
        let wrong = from(world, address, email, json!({"password": "wrong horse"})).await;
        wrong.problem(401, "invalid_credentials");
    }
}

/// How many seconds a locked login is asked to wait.
fn wait(reply: Reply) -> i64 {
    let reply = reply.problem(429, "account_locked");
    reply.header("Retry-After").unwrap().parse().unwrap()
}

async fn count(world: &World, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

#[actix_web::test]
async fn wrong_passwords_lock_longer_each_time() {
    let world = World::with(behind_a_proxy()).await;
    let member = &world.acme.member.email;
    fail(&world, CAFE, member, 20).await;
    assert_eq!(wait(from(&world, CAFE, member, json!({})).await), 60);
    // The same network only, of this account only, in this tenant only.
    from(&world, HOME, member, json!({})).await.expect(200);
    from(&world, CAFE, &world.acme.viewer.email, json!({}))
        .await
        .expect(200);
    world
        .login("globex", &world.globex.member.email, PASSWORD)
        .await
        .expect(200);
    for seconds in [60, 120, 240, 480] {
        world.clock.advance(Duration::seconds(seconds - 1));
        assert_eq!(wait(from(&world, CAFE, member, json!({})).await), 1);
        world.clock.advance(Duration::seconds(1));
        fail(&world, CAFE, member, 1).await;
    }
    for _ in 0..2 {
        assert_eq!(
            wait(from(&world, CAFE, member, json!({})).await),
            900,
            "the longest"
        );
        world.clock.advance(Duration::seconds(900));
        fail(&world, CAFE, member, 1).await;
    }
    world.clock.advance(Duration::seconds(900));
    from(&world, CAFE, member, json!({})).await.expect(200);
    // A right password forgets the failures.
    fail(&world, CAFE, member, 19).await;
    from(&world, CAFE, member, json!({})).await.expect(200);
}

#[actix_web::test]
async fn unknown_addresses_lock_like_known_ones() {
    let world = World::with(behind_a_proxy()).await;
    let mut answers = Vec::new();
    for email in [
        world.acme.member.email.as_str(),
        "nobody@acme.example",
        "no address",
    ] {
        let mut seen = Vec::new();
        for _ in 0..22 {
            let reply = from(&world, CAFE, email, json!({"password": "wrong horse"})).await;
            seen.push((
                reply.status,
                reply.header("Retry-After").map(str::to_owned),
                reply.comparable(),
            ));
        }
        answers.push(seen);
    }
    assert_eq!(answers[0][21].0, 429);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

/// Many networks together lock an account for all networks but those that it has lately logged in from.
#[actix_web::test]
async fn guesses_from_many_networks_lock_no_owner_out() {
    let mailed = Mailed::with(behind_a_proxy()).await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let member = &acme.member;
    let app = with_factor(world, member).await;
    let waiting = from(world, HOME, &member.email, json!({}))
        .await
        .problem(401, "mfa_required")
        .json();
    let body = json!({"mfa_token": waiting["mfa_token"], "code": app.next_code(world), "trust_device": true});
    let done = post(world, "/api/v1/auth/mfa/verify", body)
        .header("X-Forwarded-For", HOME)
        .await;
    let device = done.expect(200).json()["device_token"].clone();
    for network in 0..10 {
        fail(world, &format!("100.64.{network}.1"), &member.email, 10).await;
    }
    let elsewhere = from(world, CAFE, &member.email, json!({})).await;
    assert_eq!(wait(elsewhere), 60);
    // A known network, a trusted device, and a reset still get in.
    from(world, HOME, &member.email, json!({}))
        .await
        .problem(401, "mfa_required");
    from(world, CAFE, &member.email, json!({"device_token": device}))
        .await
        .expect(200);
    let viewer = &acme.viewer.email;
    for network in 0..10 {
        fail(world, &format!("100.64.{network}.1"), viewer, 10).await;
    }
    assert_eq!(wait(from(world, "100.100.1.1", viewer, json!({})).await), 60);
    let token = mailed.forgotten(acme, &acme.viewer).await;
    let body = json!({"token": token, "new_password": "a staple of batteries"});
    let reset = post(world, "/api/v1/auth/reset-password", body).header("X-Forwarded-For", "100.100.1.1");
    reset.await.expect(204);
    // Also when the attack goes on.
    for network in 0..10 {
        fail(world, &format!("100.64.{network}.1"), viewer, 10).await;
    }
    let new = json!({"password": "a staple of batteries"});
    from(world, "100.101.1.1", viewer, new.clone())
        .await
        .problem(429, "account_locked");
    from(world, "100.100.1.1", viewer, new).await.expect(200);
}

#[actix_web::test]
async fn wrong_codes_lock_after_five_and_notify_the_user() {
    let mailed = Mailed::with(behind_a_proxy()).await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let member = &acme.member;
    from(world, HOME, &member.email, json!({})).await.expect(200);
    let app = with_factor(world, member).await;
    mailed.mails_to(&member.email).await;
    let code = |code: &str| json!({"totp_code": code});
    for _ in 0..5 {
        from(world, CAFE, &member.email, code("000000"))
            .await
            .problem(401, "invalid_credentials");
    }
    let mails = mailed.mails_to(&member.email).await;
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0]
            .header("Subject")
            .ends_with("wrong codes of your second factor")
    );
    assert!(
        mails[0].text().contains("somebody knows your password"),
        "{}",
        mails[0].text()
    );
    assert!(mails[0].text().contains(&format!("Address  {CAFE}")));
    // The right code is not looked at either, nor a recovery code, wherever it is given from an unknown network.
    assert_eq!(
        wait(from(world, CAFE, &member.email, code(&app.code_at(world, 1))).await),
        60
    );
    assert_eq!(
        wait(from(world, CAFE, &member.email, code(app.recovery_code(0))).await),
        60
    );
    assert_eq!(
        wait(from(world, "192.0.2.1", &member.email, code(&app.code_at(world, 1))).await),
        60
    );
    let waiting = from(world, CAFE, &member.email, json!({}))
        .await
        .problem(401, "mfa_required")
        .json();
    let body = json!({"mfa_token": waiting["mfa_token"], "code": app.code_at(world, 1)});
    let verify =
        |body: &Value| post(world, "/api/v1/auth/mfa/verify", body.clone()).header("X-Forwarded-For", CAFE);
    assert_eq!(wait(verify(&body).await), 60);
    // At home the user is not held up.
    from(world, HOME, &member.email, code(&app.code_at(world, 1)))
        .await
        .expect(200);
    world.clock.advance(Duration::seconds(60));
    let body = json!({"mfa_token": waiting["mfa_token"], "code": app.next_code(world)});
    verify(&body).await.expect(200);
    // The wrong password is no wrong code.
    fail(world, CAFE, &member.email, 5).await;
    assert!(
        mailed
            .mails_to(&member.email)
            .await
            .iter()
            .all(|mail| !mail.header("Subject").contains("wrong codes"))
    );
}

/// All guesses of codes of a user are checked one after the other, so none passes because it is sent at the same time.
#[actix_web::test]
async fn parallel_wrong_codes_get_five_guesses() {
    let world = World::new().await;
    let member = &world.acme.member;
    with_factor(&world, member).await;
    let guess = || async {
        let body = json!({"tenant_slug": "acme", "email": member.email, "password": PASSWORD, "totp_code": "000000"});
        world.client.post(LOGIN, &body).await.status
    };
    let answers = join_all((0..12).map(|_| guess())).await;
    assert_eq!(
        answers.iter().filter(|status| **status == 401).count(),
        5,
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|status| **status == 429).count(),
        7,
        "{answers:?}"
    );
}

#[actix_web::test]
async fn guesses_in_a_session_are_locked_too() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let at = |path: &str, body: Value| world.post(member, &format!("/api/v1/auth/{path}"), &body);
    for path in [
        "mfa/step-up",
        "mfa/recovery-codes",
        "mfa/step-up",
        "mfa/recovery-codes",
    ] {
        at(path, json!({"code": "000000"}))
            .await
            .problem(401, "invalid_credentials");
    }
    let disable = |code: &str| json!({"password": PASSWORD, "code": code});
    at("mfa/disable", disable("000000"))
        .await
        .problem(401, "invalid_credentials");
    let code = app.code_at(&world, 1);
    for path in ["mfa/step-up", "mfa/recovery-codes"] {
        assert_eq!(wait(at(path, json!({"code": code})).await), 60);
    }
    assert_eq!(wait(at("mfa/disable", disable(&code)).await), 60);
    world.clock.advance(Duration::seconds(60));
    let code = app.code_at(&world, 0);
    at("mfa/step-up", json!({"code": code})).await.expect(200);

    let change =
        |password: &str| json!({"current_password": password, "new_password": "a staple of batteries"});
    for _ in 0..20 {
        let wrong = at("change-password", change("wrong horse")).await;
        wrong.problem(401, "invalid_credentials");
    }
    assert_eq!(wait(at("change-password", change(PASSWORD)).await), 60);
    let body = json!({"email": "new@acme.example", "password": PASSWORD});
    assert_eq!(wait(at("change-email", body).await), 60);
    assert_eq!(
        wait(at("mfa/disable", disable(&app.code_at(&world, 1))).await),
        60
    );
    world.clock.advance(Duration::seconds(60));
    at("change-password", change(PASSWORD)).await.expect(204);
}

/// A stolen session guesses from many networks; none of them is known by the session.
#[actix_web::test]
async fn guesses_in_a_session_count_for_all_networks() {
    let world = World::with(behind_a_proxy()).await;
    let member = &world.acme.member;
    from(&world, HOME, &member.email, json!({})).await.expect(200);
    let change = async |address: &str, password: &str| {
        let body = json!({"current_password": password, "new_password": "a staple of batteries"});
        let change = world.post(member, "/api/v1/auth/change-password", &body);
        change.header("X-Forwarded-For", address).await
    };
    for network in 0..10 {
        for _ in 0..10 {
            let wrong = change(&format!("100.64.{network}.1"), "wrong horse").await;
            wrong.problem(401, "invalid_credentials");
        }
    }
    assert_eq!(wait(change("100.100.1.1", PASSWORD).await), 60);
    change(HOME, PASSWORD).await.expect(204);
}

/// No wait holds a trusted device up, so its token must not be worth more than a network.
#[actix_web::test]
async fn trust_in_a_device_ends_after_wrong_passwords() {
    let world = World::with(behind_a_proxy()).await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let waiting = from(&world, HOME, &member.email, json!({}))
        .await
        .problem(401, "mfa_required");
    let body = json!({"mfa_token": waiting.json()["mfa_token"], "code": app.next_code(&world), "trust_device": true});
    let done = post(&world, "/api/v1/auth/mfa/verify", body).await;
    let device = done.expect(200).json()["device_token"].clone();
    let guess = async |network: usize, password: &str| {
        let rest = json!({"device_token": device, "password": password});
        from(&world, &format!("100.64.{network}.1"), &member.email, rest).await
    };
    for network in 0..19 {
        guess(network, "wrong horse").await.expect(401);
    }
    // A right password forgets them.
    guess(0, PASSWORD).await.expect(200);
    for _ in 0..19 {
        guess(50, "wrong horse").await.expect(401);
    }
    guess(51, PASSWORD).await.expect(200);
    for _ in 0..20 {
        guess(50, "wrong horse").await.expect(401);
    }
    // The network waits, and the token helps no more; elsewhere the login needs a code.
    assert!(wait(guess(50, PASSWORD).await) > 0);
    guess(51, PASSWORD).await.problem(401, "mfa_required");
    let actions = world.audit(&world.acme).await;
    let ended = actions
        .iter()
        .filter(|(action, _)| action == "mfa.device_distrusted");
    assert_eq!(ended.count(), 1);
}

#[actix_web::test]
async fn refused_guesses_are_recorded_once_and_counted() {
    let world = World::with(behind_a_proxy()).await;
    let member = &world.acme.member;
    fail(&world, CAFE, &member.email, 20).await;
    for _ in 0..3 {
        wait(from(&world, CAFE, &member.email, json!({})).await);
    }
    let locked = async || {
        let audit = world.audit(&world.acme).await.into_iter();
        audit
            .filter(|(action, _)| action == "account.locked")
            .map(|(_, row)| row)
            .collect::<Vec<_>>()
    };
    let entries = locked().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&entries[0]["target_id"], &entries[0]["category"]),
        (&json!(member.id), &json!("security"))
    );
    world.app.refusals().end_all();
    refusal::flush(&world.app).await;
    assert_eq!(locked().await.len(), 2);
    assert_eq!(
        world
            .audit(&world.globex)
            .await
            .iter()
            .filter(|(action, _)| action == "account.locked")
            .count(),
        0
    );
}

/// Callers without an account cause the rows, so there are few, and they are deleted a day later.
#[actix_web::test]
async fn lockout_rows_are_bounded_and_deleted() {
    let world = World::with(behind_a_proxy()).await;
    let fill = "INSERT INTO lockouts (tenant_id, created_at, account, kind, place, failures, last_at) \
        SELECT t.id, now(), substr(sha256(n::text::bytea), 1, 16), 'password', 'anywhere', 1, \
        '2020-01-01'::timestamptz + n * interval '1 second' \
        FROM tenants t, generate_series(1, 10000) n WHERE t.slug = 'acme'";
    sqlx::raw_sql(fill)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    fail(&world, CAFE, &world.acme.member.email, 1).await;
    let of_acme =
        "SELECT count(*) FROM lockouts l JOIN tenants t ON t.id = l.tenant_id WHERE t.slug = 'acme'";
    assert_eq!(count(&world, of_acme).await, 9_902);
    let oldest = "SELECT count(*) FROM lockouts WHERE last_at <= '2020-01-01T00:01:40Z'";
    assert_eq!(count(&world, oldest).await, 0, "the oldest make room");
    world.clock.advance(Duration::days(1) + Duration::seconds(1));
    let because = SystemScope::because("a test");
    let scope = world.app.ports.gate.system(because, world.acme.id).await.unwrap();
    let cx = Cx::new(std::sync::Arc::clone(&world.app), scope, Origin::default());
    Purge.run(&cx, Ended { days: 30 }).await.unwrap();
    assert_eq!(count(&world, of_acme).await, 0);
}

/// The row of an address says nothing of it, and another server sees it.
#[actix_web::test]
async fn lockouts_hold_on_every_server_and_store_no_address() {
    let options = behind_a_proxy();
    let world = World::with(options.clone()).await;
    let member: &Person = &world.acme.member;
    fail(&world, CAFE, &member.email, 20).await;
    let other = world.other_instance(&options).await;
    let body = json!({"tenant_slug": "acme", "email": member.email, "password": PASSWORD});
    let there = other.post(LOGIN, &body).header("X-Forwarded-For", CAFE).await;
    assert_eq!(wait(there), 60);
    let sql = "SELECT count(*) FROM lockouts l WHERE l::text LIKE '%member@%' OR octet_length(account) <> 16";
    assert_eq!(count(&world, sql).await, 0);
    assert_eq!(count(&world, "SELECT count(*) FROM lockouts").await, 2);
}
