//! The second factor: enrollment, codes that work once, logins that wait for one, and step-up.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Duration;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_domain::identity::{MfaRequirement, OneTimeCodes as _, TotpSecret};
use tenantry_domain::kernel::{Clock as _, SystemScope};
use tenantry_domain::operations::{AccountRates, Rate};
use tenantry_system::{HmacOneTimeCodes, SigningKey};
use tenantry_tenancy::identity::reseal;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::tenant::data_key::KeepDataKeys;
use tenantry_tenancy::tenant::purge::{Ended, Purge};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{Client, Options, PASSWORD, Person, Reply, World, operator_cx};

const LOGIN: &str = "/api/v1/auth/login";
const VERIFY: &str = "/api/v1/auth/mfa/verify";
const ENROLL: &str = "/api/v1/auth/mfa/enroll";
const CONFIRM: &str = "/api/v1/auth/mfa/confirm";
const DISABLE: &str = "/api/v1/auth/mfa/disable";
const RENEW: &str = "/api/v1/auth/mfa/recovery-codes";
const ENROLL_REQUIRED: &str = "/api/v1/auth/mfa/required/enroll";
const CONFIRM_REQUIRED: &str = "/api/v1/auth/mfa/required/confirm";
const DEVICES: &str = "/api/v1/auth/mfa/devices";
const STEP_UP: &str = "/api/v1/auth/mfa/step-up";
const SETTINGS: &str = "/api/v1/tenant/settings";
const ME: &str = "/api/v1/auth/me";

/// The authenticator app of a user.
pub(crate) struct App {
    secret: TotpSecret,
    base32: String,
    recovery_codes: Vec<String>,
}

impl App {
    /// The code of a step, counted from the present one.
    pub(crate) fn code_at(&self, world: &World, steps: i64) -> String {
        let step = world.clock.now().timestamp() / 30 + steps;
        HmacOneTimeCodes.code(&self.secret, step.try_into().unwrap())
    }

    /// The secret as people type it into an app.
    pub(crate) fn base32(&self) -> &str {
        &self.base32
    }

    /// Notes the codes that came with the confirmation.
    pub(crate) fn set_recovery_codes(&mut self, codes: Vec<String>) {
        self.recovery_codes = codes;
    }

    /// One of the ten recovery codes.
    pub(crate) fn recovery_code(&self, index: usize) -> &str {
        &self.recovery_codes[index]
    }

    /// The code of a step that has not been used, half a minute later.
    pub(crate) fn next_code(&self, world: &World) -> String {
        world.clock.advance(Duration::seconds(30));
        self.code_at(world, 0)
    }
}

pub(crate) fn app_of(enrollment: &Value) -> App {
    let base32 = enrollment["secret"].as_str().unwrap().to_owned();
    let bits = base32.chars().flat_map(|character| {
        let value = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(character).unwrap();
        (0..5).rev().map(move |bit| value >> bit & 1 == 1)
    });
    let bits: Vec<_> = bits.collect();
    let byte = |bits: &[bool]| bits.iter().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
    let bytes: Vec<_> = bits.chunks(8).map(byte).collect();
    App {
        secret: TotpSecret::new(bytes.try_into().unwrap()),
        base32,
        recovery_codes: Vec::new(),
    }
}

async fn enroll(world: &World, who: &Person) -> App {
    let enrollment = world.post(who, ENROLL, &json!({})).await.expect(200);
    app_of(&enrollment.json())
}

pub(crate) fn codes_of(reply: &Reply) -> Vec<String> {
    serde_json::from_value(reply.json()["recovery_codes"].clone()).unwrap()
}

/// Enrolls and confirms an app, in a step that is over then.
pub(crate) async fn with_factor(world: &World, who: &Person) -> App {
    let mut app = enroll(world, who).await;
    let body = json!({"code": app.code_at(world, 0)});
    let confirmed = world.post(who, CONFIRM, &body).await.expect(200);
    app.recovery_codes = codes_of(&confirmed);
    app
}

/// Lets a factor have been enabled a day earlier, so that it counts for requests that concern the factors of others.
pub(crate) async fn settle(world: &World, who: &Person) {
    let sql = "UPDATE totp_factors SET confirmed_at = confirmed_at - interval '24 hours' WHERE user_id = $1";
    let factor = sqlx::query(sql).bind(who.id.uuid());
    factor.execute(&mut world.database.admin().await).await.unwrap();
}

async fn login_with(client: &Client, who: &Person, code: Option<&str>) -> Reply {
    let slug = who.email.split(['@', '.']).nth(1).unwrap();
    let mut body = json!({"tenant_slug": slug, "email": who.email, "password": PASSWORD});
    if let Some(code) = code {
        body["totp_code"] = json!(code);
    }
    client.post(LOGIN, &body).await
}

async fn begun(world: &World, who: &Person) -> String {
    let waiting = login_with(&world.client, who, None).await;
    let waiting = waiting.problem(401, "mfa_required").json();
    waiting["mfa_token"].as_str().unwrap().to_owned()
}

async fn verify(world: &World, token: &str, code: &str) -> Reply {
    let body = json!({"mfa_token": token, "code": code});
    world.client.post(VERIFY, &body).await
}

async fn give(world: &World, who: &Person, path: &str, code: &str) -> Reply {
    world.post(who, path, &json!({"code": code})).await
}

async fn count(world: &World, sql: &'static str) -> i64 {
    let mut admin = world.database.admin().await;
    sqlx::query_scalar(sql).fetch_one(&mut admin).await.unwrap()
}

async fn actions(world: &World) -> Vec<String> {
    let audit = world.audit(&world.acme).await.into_iter();
    let actions = audit.map(|(action, _)| action);
    actions.filter(|action| action.starts_with("mfa.")).collect()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn text(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap().to_owned()
}

/// The token of a device that is trusted with the code.
async fn trusting(world: &World, token: &str, code: &str) -> String {
    let body = json!({"mfa_token": token, "code": code, "trust_device": true});
    let done = world.client.post(VERIFY, &body).await.expect(200);
    text(&done.json(), "device_token")
}

async fn login_on(world: &World, who: &Person, device: &str) -> Reply {
    let slug = who.email.split(['@', '.']).nth(1).unwrap();
    let body = json!({"tenant_slug": slug, "email": who.email, "password": PASSWORD, "device_token": device});
    world.client.post(LOGIN, &body).await
}

/// Everything that can be done with a second factor, for tests of statements.
pub(crate) async fn use_all(world: &World) {
    let who = &world.globex.viewer;
    let app = with_factor(world, who).await;
    let token = begun(world, who).await;
    verify(world, &token, "000000").await.expect(401);
    let device = trusting(world, &token, &app.next_code(world)).await;
    login_on(world, who, &device).await.expect(200);
    world.get(who, DEVICES).await.expect(200);
    world.delete(who, DEVICES).await.expect(204);
    give(world, who, STEP_UP, &app.next_code(world)).await.expect(200);
    give(world, who, RENEW, &app.recovery_codes[0]).await.expect(200);
    let body = json!({"password": PASSWORD, "code": app.next_code(world)});
    world.post(who, DISABLE, &body).await.expect(204);
    reseal::reseal(&operator_cx(&world.app), world.globex.id)
        .await
        .unwrap();
}

#[actix_web::test]
async fn login_with_a_factor_takes_two_steps() {
    let world = World::new().await;
    let (admin, other) = (&world.acme.admin, world.digest(&world.globex).await);
    let enrollment = world.post(admin, ENROLL, &json!({})).await.expect(200).json();
    let mut app = app_of(&enrollment);
    let uri = text(&enrollment, "otpauth_uri");
    let expected = format!(
        "otpauth://totp/Acme%20Inc:admin%40acme.example?secret={}&issuer=Acme%20Inc",
        app.base32
    );
    assert!(uri.starts_with(&expected), "{uri}");
    assert!(text(&enrollment, "qr_svg").contains("<svg"));
    let confirmed = give(&world, admin, CONFIRM, &app.code_at(&world, 0))
        .await
        .expect(200);
    app.recovery_codes = codes_of(&confirmed);
    let distinct: BTreeSet<_> = app.recovery_codes.iter().collect();
    assert_eq!(distinct.len(), 10);

    let waiting = login_with(&world.client, admin, None)
        .await
        .problem(401, "mfa_required")
        .json();
    assert_eq!(waiting["methods"], json!(["totp", "recovery_code"]));
    assert_eq!(waiting["expires_in"], 300);
    assert_eq!(waiting["access_token"], Value::Null);
    let token = text(&waiting, "mfa_token");
    let login = verify(&world, &token, &app.next_code(&world))
        .await
        .expect(200)
        .json();
    assert_eq!(login["user"]["email"], admin.email);
    assert_eq!(login["tenant"]["slug"], "acme");
    let access = text(&login, "access_token");
    assert_eq!(claims(&access)["amr"], json!(["pwd", "otp", "mfa"]));
    assert!(claims(&access)["mfa_at"].is_i64());
    world.client.get(ME).bearer(&access).await.expect(200);
    // A refreshed token still says when the factor was given.
    let body = json!({"refresh_token": login["refresh_token"]});
    let refreshed = world.client.post("/api/v1/auth/refresh", &body).await.expect(200);
    let refreshed = text(&refreshed.json(), "access_token");
    assert_eq!(claims(&refreshed)["mfa_at"], claims(&access)["mfa_at"]);
    assert_eq!(actions(&world).await, ["mfa.enrolled", "mfa.enabled"]);
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn totp_code_at_login_does_both_at_once() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let code = app.next_code(&world);
    login_with(&world.client, member, Some(&code)).await.expect(200);
    for wrong in [
        code.as_str(),
        "000000",
        "",
        "12345",
        "1234567",
        &"9".repeat(10_000),
    ] {
        let refused = login_with(&world.client, member, Some(wrong)).await;
        refused.problem(401, "invalid_credentials");
        // After the fifth, the account waits.
        world.clock.advance(Duration::seconds(120));
    }
    let recovery = app.recovery_codes[3].to_uppercase();
    login_with(&world.client, member, Some(&recovery))
        .await
        .expect(200);
    let again = login_with(&world.client, member, Some(&recovery)).await;
    again.problem(401, "invalid_credentials");
    // A user without a factor may send a code all the same, as before.
    login_with(&world.client, &world.acme.viewer, Some("123456"))
        .await
        .expect(200);
    assert!(actions(&world).await.contains(&"mfa.failed".to_owned()));
}

#[actix_web::test]
async fn unconfirmed_enrollment_changes_no_login() {
    let world = World::new().await;
    let member = &world.acme.member;
    give(&world, member, CONFIRM, "123456")
        .await
        .problem(409, "conflict");
    let first = enroll(&world, member).await;
    login_with(&world.client, member, None).await.expect(200);
    let second = enroll(&world, member).await;
    let old = give(&world, member, CONFIRM, &first.code_at(&world, 0)).await;
    old.problem(401, "invalid_credentials");
    give(&world, member, CONFIRM, &second.code_at(&world, 0))
        .await
        .expect(200);
    for (path, body) in [
        (ENROLL, json!({})),
        (CONFIRM, json!({"code": second.next_code(&world)})),
    ] {
        world.post(member, path, &body).await.problem(409, "conflict");
    }
    // Nothing of it concerns others.
    login_with(&world.client, &world.acme.admin, None)
        .await
        .expect(200);
    login_with(&world.client, &world.globex.member, None)
        .await
        .expect(200);
}

#[actix_web::test]
async fn code_is_accepted_once_wherever_it_is_given() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = enroll(&world, member).await;
    let code = app.code_at(&world, 0);
    give(&world, member, CONFIRM, &code).await.expect(200);
    let token = begun(&world, member).await;
    verify(&world, &token, &code)
        .await
        .problem(401, "invalid_credentials");
    give(&world, member, STEP_UP, &code)
        .await
        .problem(401, "invalid_credentials");
    // The one before it is over, too.
    let before = app.code_at(&world, -1);
    give(&world, member, STEP_UP, &before)
        .await
        .problem(401, "invalid_credentials");
    let next = app.next_code(&world);
    give(&world, member, STEP_UP, &next).await.expect(200);
    give(&world, member, RENEW, &next)
        .await
        .problem(401, "invalid_credentials");
    verify(&world, &token, &next)
        .await
        .problem(401, "invalid_credentials");
    verify(&world, &token, &app.next_code(&world)).await.expect(200);
}

#[actix_web::test]
async fn code_works_one_step_early_and_late() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    // To the first second of a step.
    world
        .clock
        .advance(Duration::seconds(300 - world.clock.now().timestamp() % 30));
    let now = app.code_at(&world, 0);
    world.clock.advance(Duration::seconds(-31));
    give(&world, member, STEP_UP, &now)
        .await
        .problem(401, "invalid_credentials");
    world.clock.advance(Duration::seconds(31 + 59));
    let two_late = app.code_at(&world, -2);
    give(&world, member, STEP_UP, &two_late)
        .await
        .problem(401, "invalid_credentials");
    give(&world, member, STEP_UP, &now).await.expect(200);
    let early = app.code_at(&world, 1);
    give(&world, member, STEP_UP, &early).await.expect(200);
}

/// Where the server says so, a code is accepted for 30 seconds.
#[actix_web::test]
async fn code_is_accepted_in_its_own_step_only_where_configured() {
    let options = Options {
        totp_steps_around: 0,
        ..Options::default()
    };
    let world = World::with(options).await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    // To the first second of a step.
    world
        .clock
        .advance(Duration::seconds(60 - world.clock.now().timestamp() % 30));
    for steps in [-1, 1] {
        let around = app.code_at(&world, steps);
        give(&world, member, STEP_UP, &around)
            .await
            .problem(401, "invalid_credentials");
    }
    let present = app.code_at(&world, 0);
    give(&world, member, STEP_UP, &present).await.expect(200);
    give(&world, member, STEP_UP, &present)
        .await
        .problem(401, "invalid_credentials");
}

#[actix_web::test]
async fn same_code_at_once_opens_one_session() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let code = app.next_code(&world);
    let logins = (0..4).map(|_| login_with(&world.client, member, Some(&code)));
    let replies = join_all(logins).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    // One token with two good codes opens one session, too.
    let token = begun(&world, member).await;
    let (one, other) = (app.next_code(&world), app.recovery_codes[0].clone());
    let (one, other) = join(verify(&world, &token, &one), verify(&world, &token, &other)).await;
    let statuses = BTreeSet::from([one.status, other.status]);
    assert_eq!(statuses, BTreeSet::from([200, 401]));
    // One recovery code with two tokens as well.
    let tokens = [begun(&world, member).await, begun(&world, member).await];
    let code = &app.recovery_codes[1];
    let (one, other) = join(verify(&world, &tokens[0], code), verify(&world, &tokens[1], code)).await;
    assert_eq!(
        BTreeSet::from([one.status, other.status]),
        BTreeSet::from([200, 401])
    );
}

#[actix_web::test]
async fn recovery_codes_work_once_and_end_with_new_ones() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let old = &app.recovery_codes;
    let token = begun(&world, member).await;
    verify(&world, &token, &old[0].replace('-', " "))
        .await
        .expect(200);
    give(&world, member, STEP_UP, &old[0])
        .await
        .problem(401, "invalid_credentials");
    // Not those of another user, nor of another tenant.
    let others = with_factor(&world, &world.globex.member).await;
    give(&world, member, STEP_UP, &others.recovery_codes[0])
        .await
        .problem(401, "invalid_credentials");
    let renewed = codes_of(
        &give(&world, member, RENEW, &app.next_code(&world))
            .await
            .expect(200),
    );
    assert_eq!(renewed.len(), 10);
    give(&world, member, STEP_UP, &old[1])
        .await
        .problem(401, "invalid_credentials");
    give(&world, member, STEP_UP, &renewed[1]).await.expect(200);
    assert_eq!(count(&world, "SELECT count(*) FROM recovery_codes").await, 19);
}

#[actix_web::test]
async fn disabling_takes_password_and_code() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let disable = async |password: &str, code: &str| {
        let body = json!({"password": password, "code": code});
        world.post(member, DISABLE, &body).await
    };
    let code = app.next_code(&world);
    disable("wrong horse", &code)
        .await
        .problem(401, "invalid_credentials");
    disable(PASSWORD, "000000")
        .await
        .problem(401, "invalid_credentials");
    let waiting = begun(&world, member).await;
    disable(PASSWORD, &code).await.expect(204);
    login_with(&world.client, member, None).await.expect(200);
    verify(&world, &waiting, &app.next_code(&world))
        .await
        .problem(401, "token_revoked");
    disable(PASSWORD, &code).await.problem(409, "conflict");
    for path in [STEP_UP, RENEW] {
        give(&world, member, path, &code).await.problem(409, "conflict");
    }
    for table in [
        "totp_factors",
        "recovery_codes",
        "mfa_challenges",
        "trusted_devices",
    ] {
        let rows = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let mut admin = world.database.admin().await;
        let rows: i64 = sqlx::query_scalar(rows).fetch_one(&mut admin).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    assert!(actions(&world).await.contains(&"mfa.disabled".to_owned()));
}

#[actix_web::test]
async fn mfa_token_opens_nothing_else() {
    let world = World::new().await;
    let (member, theirs) = (&world.acme.member, &world.globex.member);
    let app = with_factor(&world, member).await;
    let token = begun(&world, member).await;
    world
        .client
        .get(ME)
        .bearer(&token)
        .await
        .problem(401, "unauthenticated");
    let refresh = world
        .client
        .post("/api/v1/auth/refresh", &json!({"refresh_token": token}));
    refresh.await.problem(401, "token_revoked");
    let code = app.next_code(&world);
    let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    let mut tampered: Vec<String> = (0..bytes.len())
        .step_by(7)
        .map(|place| {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            URL_SAFE_NO_PAD.encode(changed)
        })
        .collect();
    tampered.extend([
        member.access_token.clone(),
        member.refresh_token.clone(),
        theirs.access_token.clone(),
    ]);
    tampered.extend(["", "a.b.c", "ü", &"A".repeat(10_000), &token[1..]].map(str::to_owned));
    for wrong in tampered {
        verify(&world, &wrong, &code).await.problem(401, "token_revoked");
    }
    // Of another tenant than the request names.
    let body = json!({"mfa_token": token, "code": code});
    for (name, value) in [
        ("X-Tenant-Slug", "globex"),
        ("X-Tenant-ID", &world.globex.id.to_string()),
    ] {
        let request = world.client.post(VERIFY, &body).header(name, value);
        request.await.problem(403, "tenant_mismatch");
    }
    let request = world.client.post(VERIFY, &body).bearer(&theirs.access_token);
    request.await.problem(403, "tenant_mismatch");
    verify(&world, &token, &code).await.expect(200);
    verify(&world, &token, &app.next_code(&world))
        .await
        .problem(401, "token_revoked");
}

#[actix_web::test]
async fn mfa_token_expires_after_five_minutes() {
    let world = World::new().await;
    let app = with_factor(&world, &world.acme.member).await;
    let (early, late) = (
        begun(&world, &world.acme.member).await,
        begun(&world, &world.acme.member).await,
    );
    world.clock.advance(Duration::seconds(299));
    verify(&world, &early, &app.code_at(&world, 0)).await.expect(200);
    world.clock.advance(Duration::seconds(1));
    verify(&world, &late, &app.code_at(&world, 1))
        .await
        .problem(401, "token_revoked");
    // What is over is deleted.
    assert_eq!(count(&world, "SELECT count(*) FROM mfa_challenges").await, 1);
    let because = SystemScope::because("a test of what is deleted");
    let scope = world.app.ports.gate.system(because, world.acme.id).await.unwrap();
    let cx = Cx::new(std::sync::Arc::clone(&world.app), scope, Origin::default());
    Purge.run(&cx, Ended { days: 30 }).await.unwrap();
    assert_eq!(count(&world, "SELECT count(*) FROM mfa_challenges").await, 0);
}

#[actix_web::test]
async fn changed_account_ends_a_waiting_login() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    for change in [
        "password_hash = password_hash || '!'",
        "is_active = false",
        "deleted_at = now()",
    ] {
        world
            .sql(format!(
                "UPDATE users SET is_active = true, deleted_at = NULL WHERE id = '{}'",
                member.id
            ))
            .await;
        world
            .sql("UPDATE users SET password_hash = rtrim(password_hash, '!')")
            .await;
        let token = begun(&world, member).await;
        world
            .sql(format!("UPDATE users SET {change} WHERE id = '{}'", member.id))
            .await;
        let refused = verify(&world, &token, &app.next_code(&world)).await;
        refused.problem(401, "token_revoked");
    }
    let waiting = begun(&world, &with_admin(&world).await).await;
    world.set_status(&world.acme, "deleted").await;
    verify(&world, &waiting, "000000")
        .await
        .problem(410, "tenant_gone");
}

/// The admin, with a factor.
async fn with_admin(world: &World) -> Person {
    with_factor(world, &world.acme.admin).await;
    world.acme.admin.clone()
}

#[actix_web::test]
async fn suspended_tenant_still_lets_users_log_in() {
    let world = World::new().await;
    let app = with_factor(&world, &world.acme.member).await;
    world.set_status(&world.acme, "suspended").await;
    let token = begun(&world, &world.acme.member).await;
    verify(&world, &token, &app.next_code(&world)).await.expect(200);
}

/// Logins of a suspended tenant need the factor, so its users can do with it what they could before.
#[actix_web::test]
async fn suspended_tenant_manages_factors() {
    let world = World::new().await;
    let member = &world.acme.member;
    world.set_status(&world.acme, "suspended").await;
    let app = with_factor(&world, member).await;
    give(&world, member, STEP_UP, &app.next_code(&world))
        .await
        .expect(200);
    give(&world, member, RENEW, &app.next_code(&world))
        .await
        .expect(200);
    world.delete(member, DEVICES).await.expect(204);
    let body = json!({"password": PASSWORD, "code": app.next_code(&world)});
    world.post(member, DISABLE, &body).await.expect(204);
}

#[actix_web::test]
async fn sessions_of_trusted_devices_are_listed_as_such() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let token = begun(&world, member).await;
    let device = trusting(&world, &token, &app.next_code(&world)).await;
    login_on(&world, member, &device).await.expect(200);
    login_with(&world.client, member, Some(&app.next_code(&world)))
        .await
        .expect(200);
    let trusted = async || {
        let page = world
            .get(member, "/api/v1/auth/sessions")
            .await
            .expect(200)
            .json();
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|row| row["trusted"].as_bool().unwrap())
            .collect::<Vec<_>>()
    };
    // Newest first: with a code, on the trusted device, with the code that made it trusted, and the first one.
    assert_eq!(trusted().await, [false, true, true, false]);
    world.delete(member, DEVICES).await.expect(204);
    assert_eq!(trusted().await, [false; 4]);
}

#[actix_web::test]
async fn five_wrong_codes_end_the_mfa_token() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let (token, other) = (begun(&world, member).await, begun(&world, member).await);
    let right = app.next_code(&world);
    for _ in 0..5 {
        verify(&world, &token, "000000")
            .await
            .problem(401, "invalid_credentials");
    }
    verify(&world, &token, &right).await.problem(401, "token_revoked");
    verify(&world, &other, &right)
        .await
        .problem(429, "account_locked");
    world.clock.advance(Duration::seconds(60));
    verify(&world, &other, &app.next_code(&world)).await.expect(200);
    let audit = world.audit(&world.acme).await;
    let failed: Vec<_> = audit
        .iter()
        .filter(|(action, _)| action == "mfa.failed")
        .collect();
    // What repeats within the hour is counted, not stored again.
    let [(_, row)] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert_eq!(
        (&row["target_id"], &row["category"]),
        (&json!(member.id), &json!("security"))
    );
}

#[actix_web::test]
async fn wrong_codes_count_as_failed_logins_of_the_account() {
    let world = World::with(Options {
        account_rates: AccountRates {
            network: Rate::new(1, 3).unwrap(),
            anywhere: Rate::new(1, 3).unwrap(),
        },
        ..Options::default()
    })
    .await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let token = begun(&world, member).await;
    verify(&world, &token, "000000")
        .await
        .problem(401, "invalid_credentials");
    give(&world, member, STEP_UP, "000000")
        .await
        .problem(401, "invalid_credentials");
    let wrong = login_with(&world.client, member, Some("000000")).await;
    wrong.problem(401, "invalid_credentials");
    let code = app.code_at(&world, 1);
    verify(&world, &token, &code).await.problem(429, "rate_limited");
    give(&world, member, STEP_UP, &code)
        .await
        .problem(429, "rate_limited");
    login_with(&world.client, member, Some(&code))
        .await
        .problem(429, "rate_limited");
    // Others are not concerned, and a minute later the user is not either.
    login_with(&world.client, &world.acme.admin, None)
        .await
        .expect(200);
    login_with(&world.client, &world.globex.member, None)
        .await
        .expect(200);
    world.clock.advance(Duration::seconds(60));
    verify(&world, &token, &app.code_at(&world, 0)).await.expect(200);
}

#[actix_web::test]
async fn waiting_logins_of_a_user_are_bounded() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let oldest = begun(&world, member).await;
    let mut newest = String::new();
    for _ in 0..20 {
        newest = begun(&world, member).await;
    }
    assert_eq!(count(&world, "SELECT count(*) FROM mfa_challenges").await, 20);
    let code = app.next_code(&world);
    verify(&world, &oldest, &code).await.problem(401, "token_revoked");
    verify(&world, &newest, &code).await.expect(200);
}

#[actix_web::test]
async fn security_settings_need_a_recent_factor() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let change = async |token: &str, minutes: i64| {
        let body = json!({"security.session_idle_minutes": minutes});
        world.client.patch(SETTINGS, &body).bearer(token).await
    };
    // Without a factor there is nothing to ask for.
    change(&admin.access_token, 30).await.expect(200);
    let app = with_factor(&world, admin).await;
    change(&admin.access_token, 31).await.expect(200);
    world.clock.advance(Duration::seconds(601));
    let stale = change(&admin.access_token, 32).await.problem(403, "mfa_required");
    assert_eq!(stale.json()["max_age"], 600);
    assert_eq!(stale.header("www-authenticate"), None);
    let rollback = json!({"version": 1});
    let rollback = world.post(admin, "/api/v1/tenant/settings/rollback", &rollback);
    rollback.await.problem(403, "mfa_required");
    let other = json!({"notifications.digest_hour": 9});
    world.patch(admin, SETTINGS, &other).await.expect(200);

    give(&world, admin, STEP_UP, "000000")
        .await
        .problem(401, "invalid_credentials");
    let fresh = give(&world, admin, STEP_UP, &app.code_at(&world, 0))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&fresh["token_type"], &fresh["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    let fresh = text(&fresh, "access_token");
    assert_eq!(claims(&fresh)["sid"], claims(&admin.access_token)["sid"]);
    change(&fresh, 33).await.expect(200);
    world.clock.advance(Duration::seconds(599));
    let rollback = json!({"version": 1});
    let rollback = world.client.post("/api/v1/tenant/settings/rollback", &rollback);
    rollback.bearer(&fresh).await.expect(200);
    world.clock.advance(Duration::seconds(2));
    change(&fresh, 34).await.problem(403, "mfa_required");
}

#[actix_web::test]
async fn step_up_of_one_session_is_not_of_another() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let other = login_with(&world.client, admin, None).await.expect(200).json();
    let app = with_factor(&world, admin).await;
    let body = json!({"security.session_idle_minutes": 30});
    let elsewhere = world
        .client
        .patch(SETTINGS, &body)
        .bearer(&text(&other, "access_token"));
    elsewhere.await.problem(403, "mfa_required");
    give(&world, admin, STEP_UP, &app.next_code(&world))
        .await
        .expect(200);
    let elsewhere = world
        .client
        .patch(SETTINGS, &body)
        .bearer(&text(&other, "access_token"));
    elsewhere.await.problem(403, "mfa_required");
}

#[actix_web::test]
async fn secrets_and_codes_are_not_in_the_database() {
    let world = World::new().await;
    let app = with_factor(&world, &world.acme.member).await;
    let device = trusting(
        &world,
        &begun(&world, &world.acme.member).await,
        &app.next_code(&world),
    )
    .await;
    let token = begun(&world, &world.acme.member).await;
    let hex: String = app
        .secret
        .bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT t::text FROM totp_factors t UNION ALL SELECT r::text FROM recovery_codes r \
         UNION ALL SELECT m::text FROM mfa_challenges m UNION ALL SELECT d::text FROM trusted_devices d UNION ALL SELECT a::text FROM audit_events a",
    )
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    assert!(rows.len() > 12);
    for secret in app
        .recovery_codes
        .iter()
        .chain([&app.base32, &hex, &token, &device])
    {
        let plain = secret.replace('-', "");
        let found = rows
            .iter()
            .any(|row| row.contains(secret) || row.contains(&plain));
        assert!(!found, "{secret}");
    }
}

#[actix_web::test]
async fn secrets_outlive_a_rotation_of_the_signing_key() {
    let (old, new) = (SigningKey::generate().to_pem(), SigningKey::generate().to_pem());
    let keys = |keys: &[&String]| Options {
        keys: keys.iter().map(|key| (*key).clone()).collect(),
        ..Options::default()
    };
    let world = World::with(keys(&[&old])).await;
    let (acme, globex) = (&world.acme.member, &world.globex.member);
    let apps = [with_factor(&world, acme).await, with_factor(&world, globex).await];
    let both = world.instance(&keys(&[&new, &old])).app;
    let resealed = reseal::reseal(&operator_cx(&both), world.acme.id).await.unwrap();
    // The data key is sealed anew, and what is under it stays as it is.
    assert_eq!(
        (resealed.resealed_keys, resealed.resealed, resealed.current),
        (1, 0, 1)
    );
    let again = reseal::reseal(&operator_cx(&both), world.acme.id).await.unwrap();
    assert_eq!((again.resealed_keys, again.current), (0, 1));
    // The daily upkeep has the same effect.
    let because = SystemScope::because("a test");
    let cx = Cx::enter(&both, because, world.globex.id).await.unwrap().unwrap();
    KeepDataKeys.run(&cx, Nothing {}).await.unwrap();
    let client = world.other_instance(&keys(&[&new])).await;
    for (who, app) in [(acme, &apps[0]), (globex, &apps[1])] {
        let code = app.next_code(&world);
        login_with(&client, who, Some(&code)).await.expect(200);
    }
}

async fn require(world: &World, of: &str) {
    let body = json!({"security.mfa_required": of});
    world.patch(&world.acme.admin, SETTINGS, &body).await.expect(200);
}

#[actix_web::test]
async fn required_factor_is_enrolled_at_the_next_login() {
    let world = World::new().await;
    let member = &world.acme.member;
    require(&world, "everyone").await;
    // A session that is open goes on.
    world.get(member, ME).await.expect(200);
    let waiting = login_with(&world.client, member, Some("123456")).await;
    let waiting = waiting.problem(401, "mfa_required").json();
    assert_eq!(waiting["methods"], json!(["enroll"]));
    let token = text(&waiting, "mfa_token");
    verify(&world, &token, "123456")
        .await
        .problem(401, "token_revoked");
    world
        .client
        .post(ENROLL, &json!({}))
        .bearer(&token)
        .await
        .problem(401, "unauthenticated");

    let confirm = async |token: &str, code: &str| {
        let body = json!({"mfa_token": token, "code": code});
        world.client.post(CONFIRM_REQUIRED, &body).await
    };
    confirm(&token, "123456").await.problem(409, "conflict");
    let enrollment = world
        .client
        .post(ENROLL_REQUIRED, &json!({"mfa_token": token}))
        .await;
    let app = app_of(&enrollment.expect(200).json());
    confirm(&token, "000000")
        .await
        .problem(401, "invalid_credentials");
    let done = confirm(&token, &app.code_at(&world, 0)).await.expect(200);
    assert_eq!(codes_of(&done).len(), 10);
    let access = text(&done.json(), "access_token");
    assert!(claims(&access)["mfa_at"].is_i64());
    world.client.get(ME).bearer(&access).await.expect(200);
    confirm(&token, &app.next_code(&world))
        .await
        .problem(401, "token_revoked");

    // A login that waits for a code does not open an enrollment.
    let waiting = begun(&world, member).await;
    let body = json!({"mfa_token": waiting});
    world
        .client
        .post(ENROLL_REQUIRED, &body)
        .await
        .problem(409, "conflict");
    confirm(&waiting, &app.next_code(&world))
        .await
        .problem(409, "conflict");
    for nonsense in ["", "nonsense", member.access_token.as_str()] {
        let body = json!({"mfa_token": nonsense});
        world
            .client
            .post(ENROLL_REQUIRED, &body)
            .await
            .problem(401, "token_revoked");
        confirm(nonsense, "000000").await.problem(401, "token_revoked");
    }
    // Users who register would have a session without a factor.
    let body =
        json!({"tenant_slug": "acme", "email": "n@acme.example", "password": PASSWORD, "full_name": "N"});
    let closed = world.client.post("/api/v1/auth/register", &body).await;
    let closed = closed.problem(403, "forbidden");
    assert!(
        closed.text().contains("need a second factor"),
        "{}",
        closed.text()
    );
    login_with(&world.client, &world.globex.member, None)
        .await
        .expect(200);
}

#[actix_web::test]
async fn factor_can_be_required_of_admins_only() {
    let world = World::new().await;
    require(&world, "admins").await;
    login_with(&world.client, &world.acme.member, None)
        .await
        .expect(200);
    let admin = &world.acme.admin;
    let waiting = login_with(&world.client, admin, None)
        .await
        .problem(401, "mfa_required");
    assert_eq!(waiting.json()["methods"], json!(["enroll"]));
    let app = with_factor(&world, admin).await;
    let body = json!({"password": PASSWORD, "code": app.next_code(&world)});
    world.post(admin, DISABLE, &body).await.problem(409, "conflict");
    require(&world, "off").await;
    world.post(admin, DISABLE, &body).await.expect(204);
    login_with(&world.client, admin, None).await.expect(200);
}

#[actix_web::test]
async fn failures_end_a_required_enrollment_too() {
    let world = World::new().await;
    require(&world, "everyone").await;
    let token = begun(&world, &world.acme.member).await;
    let enrollment = world
        .client
        .post(ENROLL_REQUIRED, &json!({"mfa_token": token}))
        .await;
    let app = app_of(&enrollment.expect(200).json());
    for (code, refusal) in [("000000", "invalid_credentials"); 5]
        .into_iter()
        .chain([(app.code_at(&world, 0).as_str(), "token_revoked")])
    {
        let body = json!({"mfa_token": token, "code": code});
        world
            .client
            .post(CONFIRM_REQUIRED, &body)
            .await
            .problem(401, refusal);
    }
}

#[actix_web::test]
async fn admin_resets_the_factor_of_another_user() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    with_factor(&world, member).await;
    let other = world.digest(&world.globex).await;
    let waiting = begun(&world, member).await;
    let reset = async |who: &Person, id: String| {
        let path = format!("/api/v1/users/{id}/reset-mfa");
        world.post(who, &path, &json!({})).await
    };
    let id = member.id.to_string();
    reset(member, id.clone()).await.problem(403, "forbidden");
    reset(admin, world.globex.member.id.to_string())
        .await
        .problem(404, "not_found");
    reset(admin, admin.id.to_string()).await.problem(409, "conflict");
    let app = with_factor(&world, admin).await;
    settle(&world, admin).await;
    reset(admin, id.clone()).await.expect(204);
    world.get(member, ME).await.problem(401, "token_revoked");
    verify(&world, &waiting, "000000")
        .await
        .problem(401, "token_revoked");
    login_with(&world.client, member, None).await.expect(200);
    assert!(actions(&world).await.contains(&"mfa.reset".to_owned()));
    // Nothing happens to a user without a factor.
    reset(admin, id.clone()).await.expect(204);
    assert_eq!(
        actions(&world)
            .await
            .iter()
            .filter(|action| *action == "mfa.reset")
            .count(),
        1
    );
    // The admin gives their own factor first.
    world.clock.advance(Duration::seconds(600));
    reset(admin, id.clone()).await.problem(403, "mfa_required");
    let stepped = give(&world, admin, STEP_UP, &app.code_at(&world, 0)).await;
    let stepped = Person {
        access_token: text(&stepped.expect(200).json(), "access_token"),
        ..admin.clone()
    };
    reset(&stepped, id).await.expect(204);
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn trusted_device_logs_in_without_a_code_for_30_days() {
    let world = World::new().await;
    let (member, admin) = (&world.acme.member, &world.acme.admin);
    let app = with_factor(&world, member).await;
    let token = begun(&world, member).await;
    let device = trusting(&world, &token, &app.next_code(&world)).await;
    let login = login_on(&world, member, &device).await.expect(200).json();
    // It is no factor that was given now.
    assert_eq!(claims(&text(&login, "access_token"))["mfa_at"], Value::Null);
    let listed = world.get(member, DEVICES).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert!(!listed.to_string().contains(&device));
    // It is of one user, and of one tenant.
    with_factor(&world, admin).await;
    login_on(&world, admin, &device)
        .await
        .problem(401, "mfa_required");
    with_factor(&world, &world.globex.member).await;
    login_on(&world, &world.globex.member, &device)
        .await
        .problem(401, "mfa_required");
    for wrong in ["", &device[1..], &device.to_uppercase(), &"0".repeat(64)] {
        login_on(&world, member, wrong).await.problem(401, "mfa_required");
    }
    let body = json!({"tenant_slug": "acme", "email": member.email, "password": "wrong horse", "device_token": device});
    world
        .client
        .post(LOGIN, &body)
        .await
        .problem(401, "invalid_credentials");
    world.clock.advance(Duration::days(30) - Duration::minutes(1));
    login_on(&world, member, &device).await.expect(200);
    world.clock.advance(Duration::minutes(1));
    login_on(&world, member, &device)
        .await
        .problem(401, "mfa_required");
}

#[actix_web::test]
async fn trust_ends_with_password_factor_and_wish() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let mut app = with_factor(&world, member).await;
    let trusted = async |app: &App| {
        let token = begun(&world, member).await;
        trusting(&world, &token, &app.next_code(&world)).await
    };
    let device = trusted(&app).await;
    world.delete(member, DEVICES).await.expect(204);
    login_on(&world, member, &device)
        .await
        .problem(401, "mfa_required");
    let device = trusted(&app).await;
    let of_admin = format!("(SELECT password_hash FROM users WHERE id = '{}')", admin.id);
    world
        .sql(format!(
            "UPDATE users SET password_hash = {of_admin} WHERE id = '{}'",
            member.id
        ))
        .await;
    login_on(&world, member, &device)
        .await
        .problem(401, "mfa_required");
    assert_eq!(
        world.get(member, DEVICES).await.expect(200).json()["data"],
        json!([])
    );
    let device = trusted(&app).await;
    let body = json!({"password": PASSWORD, "code": app.next_code(&world)});
    world.post(member, DISABLE, &body).await.expect(204);
    app = with_factor(&world, member).await;
    login_on(&world, member, &device)
        .await
        .problem(401, "mfa_required");
    // No more than ten are trusted.
    let oldest = trusted(&app).await;
    for _ in 0..10 {
        trusted(&app).await;
    }
    assert_eq!(count(&world, "SELECT count(*) FROM trusted_devices").await, 10);
    login_on(&world, member, &oldest)
        .await
        .problem(401, "mfa_required");
    assert!(actions(&world).await.contains(&"mfa.devices_revoked".to_owned()));
}

/// A tenant adds to the minimum of the server and takes nothing from it. Its admins see what is in force.
#[actix_web::test]
async fn minimum_of_the_server_holds_in_every_tenant() {
    let world = World::with(Options {
        users_mfa_minimum: MfaRequirement::Admins,
        ..Options::default()
    })
    .await;
    let admin = &world.acme.admin;
    let policy = "/api/v1/security/policy";
    let set = async |value: Value| {
        let changed = world.patch(admin, policy, &json!({"mfa_required": value})).await;
        changed.expect(200).json()["mfa_required"].clone()
    };
    let needs = async |who: &Person| {
        let login = login_with(&world.client, who, None).await;
        if login.status == 200 {
            return false;
        }
        let waiting = login.problem(401, "mfa_required").json();
        assert_eq!(waiting["methods"], json!(["enroll"]));
        true
    };
    let read = world.get(admin, policy).await.expect(200).json();
    assert_eq!(read["mfa_required"], "admins");
    for value in [json!("off"), json!("admins"), json!(null)] {
        assert_eq!(set(value).await, json!("admins"));
        assert!(needs(admin).await && needs(&world.globex.admin).await);
        assert!(!needs(&world.acme.member).await);
    }
    assert_eq!(set(json!("everyone")).await, json!("everyone"));
    assert!(needs(&world.acme.member).await);
    assert!(!needs(&world.globex.member).await);
}
