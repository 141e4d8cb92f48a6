//! The second factor of operators, and the lockout of their accounts.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use chrono::Duration;
use futures_util::future::join;
use serde_json::{Value, json};
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::{Operator, OperatorRole};
use tenantry_http::HttpConfig;
use tenantry_system::SigningKey;
use tenantry_tenancy::OperatorCx;
use tenantry_tenancy::admin::operator::{self, CreatedOperator, NewOperator, OperatorError};
use tenantry_tenancy::admin::operator_mfa;
use tenantry_tests::{Options, PASSWORD, Reply, Request, World};

use crate::mfa::{App, app_of, codes_of};

const OLGA: &str = "olga@platform.example";
const OTTO: &str = "otto@platform.example";
const LOGIN: &str = "/api/v1/admin/login";
const VERIFY: &str = "/api/v1/admin/mfa/verify";
const ENROLL: &str = "/api/v1/admin/mfa/enroll";
const CONFIRM: &str = "/api/v1/admin/mfa/confirm";
const DISABLE: &str = "/api/v1/admin/mfa/disable";
const RENEW: &str = "/api/v1/admin/mfa/recovery-codes";
const ENROLL_REQUIRED: &str = "/api/v1/admin/mfa/required/enroll";
const CONFIRM_REQUIRED: &str = "/api/v1/admin/mfa/required/confirm";
const TENANTS: &str = "/api/v1/admin/tenants";
const HOME: &str = "203.0.113.9";
const CAFE: &str = "198.51.100.9";

async fn post(world: &World, path: &str, body: Value) -> Reply {
    world.client.post(path, &body).await
}

async fn create(world: &World, email: &str, role: OperatorRole) {
    let new = NewOperator {
        email: email.to_owned(),
        full_name: "Olga".to_owned(),
        role,
        password: Some(PASSWORD.to_owned()),
        is_own_password: true,
    };
    operator::create(&world.operator_cx(), new).await.unwrap();
}

async fn reset_password(world: &World, email: &str) -> Result<CreatedOperator, OperatorError> {
    let cx = world.operator_cx();
    let id = operator::id_of(&cx, email).await?;
    operator::reset_password(&cx, id, Some(PASSWORD.to_owned())).await
}

async fn reset_mfa(cx: &OperatorCx, email: &str) -> Result<Operator, OperatorError> {
    let id = operator::id_of(cx, email).await?;
    operator_mfa::reset(cx, id).await
}

/// A login with the right password, and perhaps a code.
async fn login(world: &World, email: &str, code: Option<&str>) -> Reply {
    let body = json!({"email": email, "password": PASSWORD, "totp_code": code});
    post(world, LOGIN, body).await
}

/// The token of a login that waits.
async fn waiting(world: &World, email: &str) -> String {
    let reply = login(world, email, None).await.problem(401, "mfa_required");
    reply.json()["mfa_token"].as_str().unwrap().to_owned()
}

async fn verify(world: &World, token: &str, code: &str) -> Reply {
    post(world, VERIFY, json!({"mfa_token": token, "code": code})).await
}

async fn own(world: &World, token: &str, path: &str, body: Value) -> Reply {
    world.client.post(path, &body).bearer(token).await
}

fn tenants(world: &World, token: &str) -> Request {
    world.client.get(TENANTS).bearer(token)
}

fn token_of(reply: &Reply) -> String {
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

/// An operator with a confirmed app: the operator's token and the app, whose present step is used up.
pub(crate) async fn with_factor(world: &World, email: &str) -> (String, App) {
    let token = world.operator(email).await;
    let enrolled = own(world, &token, ENROLL, json!({"password": PASSWORD})).await;
    let mut app = app_of(&enrolled.expect(200).json());
    let body = json!({"code": app.code_at(world, 0)});
    let confirmed = own(world, &token, CONFIRM, body).await.expect(200);
    app.set_recovery_codes(codes_of(&confirmed));
    (token, app)
}

async fn actions(world: &World) -> Vec<String> {
    let events = world.operator_events().await.into_iter();
    events.map(|(action, _)| action).collect()
}

fn count(actions: &[String], action: &str) -> usize {
    actions.iter().filter(|one| *one == action).count()
}

fn required() -> Options {
    Options {
        operator_mfa_required: true,
        ..Options::default()
    }
}

#[actix_web::test]
async fn operator_with_a_factor_logs_in_with_password_and_code() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    // Until it is confirmed, an enrollment changes nothing.
    let enrolled = own(&world, &token, ENROLL, json!({"password": PASSWORD})).await;
    let enrolled = enrolled.expect(200).json();
    assert!(
        enrolled["otpauth_uri"]
            .as_str()
            .unwrap()
            .contains("olga%40platform.example")
    );
    assert!(enrolled["qr_svg"].as_str().unwrap().contains("<svg"));
    login(&world, OLGA, None).await.expect(200);
    let app = app_of(&enrolled);
    own(&world, &token, CONFIRM, json!({"code": "000000"}))
        .await
        .problem(401, "invalid_credentials");
    let body = json!({"code": app.code_at(&world, 0)});
    let confirmed = own(&world, &token, CONFIRM, body.clone()).await.expect(200);
    assert_eq!(codes_of(&confirmed).len(), 10);
    own(&world, &token, CONFIRM, body).await.problem(409, "conflict");
    own(&world, &token, ENROLL, json!({"password": PASSWORD}))
        .await
        .problem(409, "conflict");

    let reply = login(&world, OLGA, None).await.problem(401, "mfa_required");
    let problem = reply.json();
    assert!(problem.get("access_token").is_none());
    assert_eq!(problem["methods"], json!(["totp", "recovery_code"]));
    assert_eq!(problem["expires_in"], 300);
    let code = app.next_code(&world);
    let done = verify(&world, problem["mfa_token"].as_str().unwrap(), &code).await;
    let done = done.expect(200);
    assert_eq!(done.json()["operator"]["email"], OLGA);
    tenants(&world, &token_of(&done)).await.expect(200);
    // Both at once.
    let code = app.next_code(&world);
    let both = login(&world, OLGA, Some(&code)).await.expect(200);
    tenants(&world, &token_of(&both)).await.expect(200);
    let actions = actions(&world).await;
    for (action, times) in [
        ("operator.mfa_enrolled", 1),
        ("operator.mfa_enabled", 1),
        ("operator.mfa_required", 1),
        ("mfa.failed", 1),
        ("operator.logged_in", 4),
    ] {
        assert_eq!(count(&actions, action), times, "{action} {actions:?}");
    }
}

#[actix_web::test]
async fn stolen_operator_token_cannot_bind_a_factor() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    own(&world, &token, ENROLL, json!({}))
        .await
        .problem(422, "validation_failed");
    own(&world, &token, ENROLL, json!({"password": "wrong horse"}))
        .await
        .problem(401, "invalid_credentials");
    let body = json!({"code": "123456"});
    own(&world, &token, CONFIRM, body.clone())
        .await
        .problem(409, "conflict");
    own(&world, &token, RENEW, body).await.problem(409, "conflict");
    let both = json!({"password": PASSWORD, "code": "123456"});
    own(&world, &token, DISABLE, both).await.problem(409, "conflict");
    login(&world, OLGA, None).await.expect(200);
}

#[actix_web::test]
async fn operators_code_works_once_also_at_once() {
    let world = World::new().await;
    let (_, app) = with_factor(&world, OLGA).await;
    let code = app.next_code(&world);
    login(&world, OLGA, Some(&code)).await.expect(200);
    login(&world, OLGA, Some(&code))
        .await
        .problem(401, "invalid_credentials");
    world.clock.advance(Duration::seconds(1));
    let token = waiting(&world, OLGA).await;
    verify(&world, &token, &code)
        .await
        .problem(401, "invalid_credentials");
    let code = app.next_code(&world);
    let both = join(verify(&world, &token, &code), verify(&world, &token, &code)).await;
    let statuses = [both.0.status, both.1.status];
    assert!(statuses.contains(&200) && statuses.contains(&401), "{statuses:?}");
}

#[actix_web::test]
async fn operators_recovery_codes_work_once_and_are_renewed() {
    let world = World::new().await;
    let (token, app) = with_factor(&world, OLGA).await;
    let first = app.recovery_code(0).to_uppercase().replace('-', " ");
    login(&world, OLGA, Some(&first)).await.expect(200);
    login(&world, OLGA, Some(&first))
        .await
        .problem(401, "invalid_credentials");
    let waits = waiting(&world, OLGA).await;
    verify(&world, &waits, app.recovery_code(1)).await.expect(200);
    // The codes of another operator are worth nothing here.
    let (_, other) = with_factor(&world, OTTO).await;
    login(&world, OLGA, Some(other.recovery_code(3)))
        .await
        .problem(401, "invalid_credentials");
    let body = json!({"code": app.recovery_code(2)});
    let renewed = own(&world, &token, RENEW, body).await.expect(200);
    let renewed = codes_of(&renewed);
    assert_eq!(renewed.len(), 10);
    login(&world, OLGA, Some(app.recovery_code(4)))
        .await
        .problem(401, "invalid_credentials");
    login(&world, OLGA, Some(&renewed[0])).await.expect(200);
    let actions = actions(&world).await;
    assert_eq!(count(&actions, "operator.recovery_code_used"), 4);
    assert_eq!(count(&actions, "operator.mfa_failed"), 3);
    assert_eq!(count(&actions, "operator.recovery_codes_renewed"), 1);
}

#[actix_web::test]
async fn waiting_operator_login_ends_with_time_use_and_changes() {
    let world = World::new().await;
    let (_, app) = with_factor(&world, OLGA).await;
    let late = waiting(&world, OLGA).await;
    world.clock.advance(Duration::seconds(300));
    verify(&world, &late, &app.next_code(&world))
        .await
        .problem(401, "token_revoked");
    let (first, second) = (waiting(&world, OLGA).await, waiting(&world, OLGA).await);
    verify(&world, &first, &app.next_code(&world)).await.expect(200);
    for used in [&first, &second] {
        verify(&world, used, &app.next_code(&world))
            .await
            .problem(401, "token_revoked");
    }
    let waits = waiting(&world, OLGA).await;
    reset_password(&world, OLGA).await.unwrap();
    verify(&world, &waits, &app.next_code(&world))
        .await
        .problem(401, "token_revoked");
    let waits = waiting(&world, OLGA).await;
    operator::deactivate(&world.operator_cx(), OLGA).await.unwrap();
    verify(&world, &waits, &app.next_code(&world))
        .await
        .problem(401, "token_revoked");
    for rubbish in ["", "a", "äöü", &"A".repeat(10_000)] {
        verify(&world, rubbish, "123456")
            .await
            .problem(401, "token_revoked");
    }
}

#[actix_web::test]
async fn operators_pending_token_opens_nothing_else() {
    let world = World::new().await;
    let (token, app) = with_factor(&world, OLGA).await;
    let waits = waiting(&world, OLGA).await;
    tenants(&world, &waits).await.problem(401, "unauthenticated");
    world
        .client
        .get("/api/v1/auth/me")
        .bearer(&waits)
        .await
        .problem(401, "unauthenticated");
    let code = app.next_code(&world);
    let body = json!({"mfa_token": waits, "code": code});
    post(&world, "/api/v1/auth/mfa/verify", body)
        .await
        .problem(401, "token_revoked");
    // An enrollment takes a login that needs one.
    post(&world, ENROLL_REQUIRED, json!({"mfa_token": waits}))
        .await
        .problem(409, "conflict");
    // An access token of the operator, and the pending login of a user, are no pending login of an operator.
    verify(&world, &token, &code).await.problem(401, "token_revoked");
    crate::mfa::with_factor(&world, &world.acme.member).await;
    let user = world
        .login("acme", &world.acme.member.email, PASSWORD)
        .await
        .problem(401, "mfa_required");
    let user = user.json()["mfa_token"].as_str().unwrap().to_owned();
    verify(&world, &user, &code).await.problem(401, "token_revoked");
    verify(&world, &waits, &code).await.expect(200);
}

#[actix_web::test]
async fn required_factor_of_an_operator_is_enrolled_at_login() {
    let world = World::with(required()).await;
    create(&world, OLGA, OperatorRole::Owner).await;
    let reply = login(&world, OLGA, None).await.problem(401, "mfa_required");
    assert_eq!(reply.json()["methods"], json!(["enroll"]));
    let waits = reply.json()["mfa_token"].as_str().unwrap().to_owned();
    let body = json!({"mfa_token": waits, "code": "123456"});
    verify(&world, &waits, "123456")
        .await
        .problem(401, "token_revoked");
    post(&world, CONFIRM_REQUIRED, body)
        .await
        .problem(409, "conflict");
    // A code does not stand in for an app that is not there.
    login(&world, OLGA, Some("123456"))
        .await
        .problem(401, "mfa_required");
    let enrolled = post(&world, ENROLL_REQUIRED, json!({"mfa_token": waits})).await;
    let app = app_of(&enrolled.expect(200).json());
    let wrong = json!({"mfa_token": waits, "code": "000000"});
    post(&world, CONFIRM_REQUIRED, wrong)
        .await
        .problem(401, "invalid_credentials");
    let body = json!({"mfa_token": waits, "code": app.code_at(&world, 0)});
    let done = post(&world, CONFIRM_REQUIRED, body).await.expect(200);
    assert_eq!(codes_of(&done).len(), 10);
    let token = token_of(&done);
    tenants(&world, &token).await.expect(200);
    let both = json!({"password": PASSWORD, "code": app.next_code(&world)});
    own(&world, &token, DISABLE, both).await.problem(409, "conflict");
    waiting(&world, OLGA).await;
    let actions = actions(&world).await;
    for action in [
        "operator.mfa_enrolled",
        "operator.mfa_enabled",
        "operator.logged_in",
    ] {
        assert_eq!(count(&actions, action), 1, "{action} {actions:?}");
    }
}

#[actix_web::test]
async fn disabling_an_operators_factor_takes_password_and_code() {
    let world = World::new().await;
    let (token, app) = with_factor(&world, OLGA).await;
    let code = app.next_code(&world);
    let disable = async |password: &str, code: &str| {
        own(
            &world,
            &token,
            DISABLE,
            json!({"password": password, "code": code}),
        )
        .await
    };
    disable("wrong horse", &code)
        .await
        .problem(401, "invalid_credentials");
    disable(PASSWORD, "000000")
        .await
        .problem(401, "invalid_credentials");
    disable(PASSWORD, &code).await.expect(204);
    login(&world, OLGA, None).await.expect(200);
    let left = "SELECT (SELECT count(*) FROM operator_totp_factors) + (SELECT count(*) FROM operator_recovery_codes)";
    let left: i64 = sqlx::query_scalar(left)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[actix_web::test]
async fn reset_mfa_removes_the_factor_and_ends_tokens() {
    let world = World::new().await;
    let (token, app) = with_factor(&world, OLGA).await;
    let waits = waiting(&world, OLGA).await;
    let cx = world.operator_cx();
    let reset = reset_mfa(&cx, "Olga@Platform.example").await.unwrap();
    assert_eq!(reset.email.as_str(), OLGA);
    tenants(&world, &token).await.problem(401, "token_revoked");
    verify(&world, &waits, &app.next_code(&world))
        .await
        .problem(401, "token_revoked");
    login(&world, OLGA, None).await.expect(200);
    let again = reset_mfa(&cx, OLGA).await;
    assert!(matches!(again, Err(OperatorError::NotEnrolled)), "{again:?}");
    let unknown = reset_mfa(&cx, "nobody@platform.example").await;
    assert!(matches!(unknown, Err(OperatorError::NotFound)), "{unknown:?}");
    assert_eq!(count(&actions(&world).await, "operator.mfa_reset"), 1);
}

/// A world in which tests choose their address.
async fn behind_a_proxy() -> World {
    let usual = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..usual.http
    };
    World::with(Options { http, ..usual }).await
}

async fn from(world: &World, address: &str, email: &str, password: &str, code: Option<&str>) -> Reply {
    let body = json!({"email": email, "password": password, "totp_code": code});
    let request = world.client.post(LOGIN, &body);
    request.header("X-Forwarded-For", address).await
}

/// How many seconds a locked login is asked to wait.
fn wait(reply: Reply) -> i64 {
    let reply = reply.problem(429, "account_locked");
    reply.header("Retry-After").unwrap().parse().unwrap()
}

#[actix_web::test]
async fn wrong_passwords_lock_operators_and_unknown_addresses_alike() {
    let world = behind_a_proxy().await;
    world.operator(OLGA).await;
    from(&world, HOME, OLGA, PASSWORD, None).await.expect(200);
    let mut answers = Vec::new();
    for email in [OLGA, "nobody@platform.example", "no address"] {
        let mut seen = Vec::new();
        for _ in 0..21 {
            let reply = from(&world, CAFE, email, "wrong horse", None).await;
            let after = reply.header("Retry-After").map(str::to_owned);
            seen.push((reply.status, after, reply.comparable()));
        }
        answers.push(seen);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(wait(from(&world, CAFE, OLGA, PASSWORD, None).await), 60);
    // The same network only, and this account only.
    from(&world, HOME, OLGA, PASSWORD, None).await.expect(200);
    world.clock.advance(Duration::seconds(60));
    let again = from(&world, CAFE, OLGA, "wrong horse", None).await;
    again.problem(401, "invalid_credentials");
    assert_eq!(wait(from(&world, CAFE, OLGA, PASSWORD, None).await), 120);
    // A command on the server ends the wait.
    reset_password(&world, OLGA).await.unwrap();
    from(&world, CAFE, OLGA, PASSWORD, None).await.expect(200);
    assert_eq!(count(&actions(&world).await, "account.locked"), 3);
}

#[actix_web::test]
async fn guesses_from_many_networks_lock_no_known_operator_out() {
    let world = behind_a_proxy().await;
    world.operator(OLGA).await;
    from(&world, HOME, OLGA, PASSWORD, None).await.expect(200);
    for network in 0..100 {
        let address = format!("198.51.{network}.1");
        let wrong = from(&world, &address, OLGA, "wrong horse", None).await;
        wrong.problem(401, "invalid_credentials");
    }
    assert_eq!(wait(from(&world, CAFE, OLGA, PASSWORD, None).await), 60);
    from(&world, HOME, OLGA, PASSWORD, None).await.expect(200);
}

#[actix_web::test]
async fn wrong_operator_codes_lock_after_five() {
    let world = behind_a_proxy().await;
    let (_, app) = with_factor(&world, OLGA).await;
    let right = app.next_code(&world);
    let wrong = if right == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        let reply = from(&world, CAFE, OLGA, PASSWORD, Some(wrong)).await;
        reply.problem(401, "invalid_credentials");
    }
    assert_eq!(wait(from(&world, CAFE, OLGA, PASSWORD, Some(&right)).await), 60);
    // The code that was refused unseen is not used up.
    world.clock.advance(Duration::seconds(60));
    let right = app.code_at(&world, 0);
    from(&world, CAFE, OLGA, PASSWORD, Some(&right)).await.expect(200);
    let actions = actions(&world).await;
    assert_eq!(count(&actions, "operator.mfa_failed"), 5);
    assert_eq!(count(&actions, "account.locked"), 1);
}

/// A stolen token guesses from many networks; none of them is known by the token.
#[actix_web::test]
async fn guesses_with_an_operators_token_count_for_all_networks() {
    let world = behind_a_proxy().await;
    world.operator(OLGA).await;
    let login = from(&world, HOME, OLGA, PASSWORD, None).await.expect(200);
    let token = login.json()["access_token"].as_str().unwrap().to_owned();
    let enroll = async |address: &str, password: &str| {
        let request = world.client.post(ENROLL, &json!({"password": password}));
        let request = request.bearer(&token).header("X-Forwarded-For", address);
        request.await
    };
    for network in 0..10 {
        for _ in 0..10 {
            let wrong = enroll(&format!("100.64.{network}.1"), "wrong horse").await;
            wrong.problem(401, "invalid_credentials");
        }
    }
    assert_eq!(wait(enroll("100.100.1.1", PASSWORD).await), 60);
    enroll(HOME, PASSWORD).await.expect(200);
}

#[actix_web::test]
async fn operators_secrets_and_codes_are_not_in_the_database() {
    let world = World::new().await;
    let (_, app) = with_factor(&world, OLGA).await;
    login(&world, OLGA, Some(app.recovery_code(0))).await.expect(200);
    let stored = "SELECT string_agg(row, ' ') FROM (\
        SELECT f::text AS row FROM operator_totp_factors f UNION ALL \
        SELECT c::text FROM operator_recovery_codes c UNION ALL \
        SELECT e::text FROM operator_events e) AS stored";
    let stored: String = sqlx::query_scalar(stored)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    let plain = app.recovery_code(1).replace('-', "");
    for secret in [
        app.base32(),
        app.recovery_code(0),
        app.recovery_code(1),
        plain.as_str(),
    ] {
        assert!(!stored.contains(secret), "{secret}");
    }
}

#[actix_web::test]
async fn operators_secrets_are_sealed_anew_with_a_new_key() {
    let old = SigningKey::generate().to_pem().to_string();
    let options = Options {
        keys: vec![old.clone()],
        ..Options::default()
    };
    let world = World::with(options.clone()).await;
    let (_, app) = with_factor(&world, OLGA).await;
    let keys = |keys: Vec<String>| {
        world
            .instance(&Options {
                keys,
                ..options.clone()
            })
            .app
    };
    let reseal = async |app| {
        let because = SystemScope::because("a test seals factors anew");
        operator_mfa::reseal(&OperatorCx::command(&app, because))
            .await
            .unwrap()
    };
    let new = SigningKey::generate().to_pem().to_string();
    let (resealed, unreadable) = reseal(keys(vec![new.clone()])).await;
    assert_eq!((resealed, unreadable.len()), (0, 1), "without the former key");
    assert_eq!(reseal(keys(vec![new.clone(), old])).await, (1, Vec::new()));
    let only_new = keys(vec![new]);
    assert_eq!(reseal(only_new.clone()).await, (0, Vec::new()));
    let client = world.client_of(only_new, &options).await;
    let code = app.next_code(&world);
    let body = json!({"email": OLGA, "password": PASSWORD, "totp_code": code});
    client.post(LOGIN, &body).await.expect(200);
}
