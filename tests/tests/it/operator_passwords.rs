//! Passwords of operators: first ones expire, and operators change their own.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use chrono::{DateTime, Duration, Utc};
use futures_util::future::join;
use serde_json::{Value, json};
use tenantry_domain::kernel::Clock as _;
use tenantry_tests::{PASSWORD, Reply, World};

use crate::operator_mfa::with_factor;

const OLGA: &str = "olga@platform.example";
const SAM: &str = "sam@platform.example";
const OPERATORS: &str = "/api/v1/admin/operators";
const LOGIN: &str = "/api/v1/admin/login";
const CHANGE: &str = "/api/v1/admin/change-password";
const ENROLL: &str = "/api/v1/admin/mfa/enroll";
const STEP_UP: &str = "/api/v1/admin/mfa/step-up";
const TENANTS: &str = "/api/v1/admin/tenants";
const OWN: &str = "a staple of batteries";

async fn send(world: &World, token: &str, path: &str, body: Value) -> Reply {
    world.client.post(path, &body).bearer(token).await
}

async fn login(world: &World, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    world.client.post(LOGIN, &body).await
}

async fn change(world: &World, token: &str, current: &str, new: &str) -> Reply {
    let body = json!({"current_password": current, "new_password": new});
    send(world, token, CHANGE, body).await
}

fn token_of(reply: &Value) -> &str {
    reply["access_token"].as_str().unwrap()
}

/// Sam, whom Olga has added: the id and the generated password.
async fn added(world: &World, owner: &str) -> (String, String) {
    let body = json!({"email": SAM, "full_name": "Sam", "role": "support"});
    let made = send(world, owner, OPERATORS, body).await.expect(201).json();
    assert!(expires_in_a_week(world, &made["operator"]), "{made}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["operator"]["id"]), text(&made["password"]))
}

/// Whether the password of an operator expires 7 days from now, but for what the test has taken.
fn expires_in_a_week(world: &World, operator: &Value) -> bool {
    let expires_at: DateTime<Utc> = operator["password_expires_at"].as_str().unwrap().parse().unwrap();
    let left = expires_at - world.clock.now();
    left <= Duration::days(7) && left > Duration::days(7) - Duration::minutes(1)
}

/// The records of an action, oldest first.
async fn records(world: &World, action: &str) -> Vec<Value> {
    let events = world.operator_events().await.into_iter();
    events
        .filter(|(one, _)| one == action)
        .map(|(_, row)| row)
        .collect()
}

/// A stranger cannot tell an expired first password from a wrong one; the log of operators can. An owner resets it.
#[actix_web::test]
async fn first_passwords_of_operators_expire() {
    let world = World::new().await;
    let owner = world.operator(OLGA).await;
    let (id, first) = added(&world, &owner).await;
    world.clock.advance(Duration::days(7) - Duration::minutes(1));
    let late = login(&world, SAM, &first).await.expect(200).json();
    assert!(late["operator"]["password_expires_at"].is_string(), "{late}");
    world.clock.advance(Duration::minutes(1));
    let expired = login(&world, SAM, &first)
        .await
        .problem(401, "invalid_credentials");
    let wrong = login(&world, SAM, "wrong horse").await;
    assert_eq!(
        wrong.problem(401, "invalid_credentials").comparable(),
        expired.comparable()
    );
    // Nor does a session that goes on take it: the operator who handed it out could choose the password for good.
    let late = token_of(&late);
    change(&world, late, &first, OWN)
        .await
        .problem(401, "invalid_credentials");
    send(&world, late, ENROLL, json!({"password": first}))
        .await
        .problem(401, "invalid_credentials");
    let reasons: Vec<_> = records(&world, "operator.login_failed")
        .await
        .iter()
        .map(|row| row["details"]["reason"].clone())
        .collect();
    assert!(reasons.contains(&json!("password_expired")), "{reasons:?}");
    // Passwords that operators chose themselves go on to work.
    let owner = login(&world, OLGA, PASSWORD).await.expect(200).json();
    assert_eq!(owner["operator"].get("password_expires_at"), None);
    let reset = format!("{OPERATORS}/{id}/reset-password");
    let reset = send(&world, token_of(&owner), &reset, json!({}))
        .await
        .expect(200)
        .json();
    assert!(expires_in_a_week(&world, &reset["operator"]), "{reset}");
    let second = reset["password"].as_str().unwrap();
    login(&world, SAM, second).await.expect(200);
    world.clock.advance(Duration::days(7));
    login(&world, SAM, second)
        .await
        .problem(401, "invalid_credentials");
}

/// A change ends all tokens of the operator, those of a thief among them, and of no other operator. The answer has the one to go on with.
#[actix_web::test]
async fn changed_password_ends_the_operators_other_tokens() {
    let world = World::new().await;
    let owner = world.operator(OLGA).await;
    let (id, first) = added(&world, &owner).await;
    let tenants = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    // A user's token is none of an operator, whatever password is given.
    change(&world, &world.acme.admin.access_token, PASSWORD, OWN)
        .await
        .problem(401, "unauthenticated");
    let stolen = login(&world, SAM, &first).await.expect(200).json();
    world.clock.advance(Duration::minutes(5));
    let present = login(&world, SAM, &first).await.expect(200).json();
    let present = token_of(&present);
    change(&world, present, "wrong horse", OWN)
        .await
        .problem(401, "invalid_credentials");
    // The first password would stay; the others break the rules of sign-up.
    for new in [first.as_str(), "short", "password1234", "my tenantry login"] {
        let reply = change(&world, present, &first, new).await;
        let reply = reply.problem(422, "validation_failed").json();
        assert_eq!(reply["errors"][0]["pointer"], "/new_password", "{new}");
    }
    let get = |token: &str| world.client.get(TENANTS).bearer(token).send();
    get(token_of(&stolen)).await.expect(200);
    world.clock.advance(Duration::minutes(5));
    let changed = change(&world, present, &first, OWN).await.expect(200).json();
    let fresh = token_of(&changed);
    get(fresh).await.expect(200);
    for ended in [token_of(&stolen), present] {
        get(ended).await.problem(401, "token_revoked");
    }
    get(&owner).await.expect(200);
    // A change does not extend the login.
    assert!(changed["expires_in"].as_i64().unwrap() <= 600, "{changed}");
    assert_eq!(changed["operator"].get("password_expires_at"), None);
    world.clock.advance(Duration::minutes(11));
    get(fresh).await.problem(401, "token_expired");
    login(&world, SAM, &first)
        .await
        .problem(401, "invalid_credentials");
    world.clock.advance(Duration::days(100));
    login(&world, SAM, OWN).await.expect(200);
    let recorded = records(&world, "operator.password_changed").await;
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0]["operator_id"], json!(id));
    let text = recorded[0].to_string();
    assert!(!text.contains(OWN) && !text.contains("argon2"), "{text}");
    let after = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    assert_eq!(after, tenants);
}

/// A password and a token that are stolen must not be enough to keep an operator out who has a second factor.
#[actix_web::test]
async fn operators_password_change_takes_a_recent_factor() {
    let world = World::new().await;
    // The login of this token was before the factor.
    let (before, app) = with_factor(&world, OLGA).await;
    let refused = change(&world, &before, PASSWORD, OWN).await;
    assert_eq!(refused.problem(403, "mfa_required").json()["max_age"], 600);
    let body = json!({"email": OLGA, "password": PASSWORD, "totp_code": app.next_code(&world)});
    let token = world.client.post(LOGIN, &body).await.expect(200).json();
    let token = token_of(&token);
    world.clock.advance(Duration::minutes(10));
    change(&world, token, PASSWORD, OWN)
        .await
        .problem(403, "mfa_required");
    login(&world, OLGA, PASSWORD).await.problem(401, "mfa_required");
    let code = json!({"code": app.next_code(&world)});
    let stepped = send(&world, token, STEP_UP, code).await.expect(200).json();
    let changed = change(&world, token_of(&stepped), PASSWORD, OWN).await;
    let changed = changed.expect(200).json();
    // The factor that was given still counts.
    added(&world, token_of(&changed)).await;
    login(&world, OLGA, PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    login(&world, OLGA, OWN).await.problem(401, "mfa_required");
}

#[actix_web::test]
async fn two_password_changes_at_once_leave_one_password() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let other = login(&world, OLGA, PASSWORD).await.expect(200).json();
    let others = "a battery of staples";
    let (first, second) = join(
        change(&world, &token, PASSWORD, OWN),
        change(&world, token_of(&other), PASSWORD, others),
    )
    .await;
    let statuses = [first.status, second.status];
    let done = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(done, 1, "{} {}", first.text(), second.text());
    assert!(
        statuses.iter().all(|status| [200, 401, 403].contains(status)),
        "{statuses:?}"
    );
    let (kept, lost) = match first.status {
        200 => (OWN, others),
        _ => (others, OWN),
    };
    login(&world, OLGA, kept).await.expect(200);
    for wrong in [lost, PASSWORD] {
        login(&world, OLGA, wrong)
            .await
            .problem(401, "invalid_credentials");
    }
    assert_eq!(records(&world, "operator.password_changed").await.len(), 1);
}
