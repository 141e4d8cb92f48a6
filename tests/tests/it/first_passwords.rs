//! First passwords: those that the server generates, or that somebody else chooses for a user, expire.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};
use tenantry_domain::kernel::{Clock as _, SystemScope};
use tenantry_tenancy::identity::first_password::NotifyOfFirstPasswords;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{PASSWORD, Person, World};

use crate::account_passwords::{Mailed, ask};
use crate::mfa::{App, with_factor};

const USERS: &str = "/api/v1/users";
const CHANGE: &str = "/api/v1/auth/change-password";
const FORGOT: &str = "/api/v1/auth/forgot-password";
const RESET: &str = "/api/v1/auth/reset-password";
const SETTINGS: &str = "/api/v1/tenant/settings";
const OWN: &str = "a staple of batteries";

/// Adds a member of acme, with a password or a generated one, and returns the answer.
async fn added(world: &World, name: &str, password: Option<&str>) -> Value {
    let email = format!("{name}@acme.example");
    let mut body = json!({"email": email, "full_name": name, "role": "member"});
    if let Some(password) = password {
        body["password"] = json!(password);
    }
    let added = world.post(&world.acme.admin, USERS, &body).await;
    added.expect(201).json()
}

fn expires_at(answer: &Value) -> DateTime<Utc> {
    answer["password_expires_at"].as_str().unwrap().parse().unwrap()
}

/// Whether the time in an answer is so many days from now, but for what the test has taken.
fn is_in_days(world: &World, answer: &Value, days: i64) -> bool {
    let left = expires_at(answer) - world.clock.now();
    left <= Duration::days(days) && left > Duration::days(days) - Duration::minutes(1)
}

fn session(login: &Value) -> Person {
    Person {
        id: login["user"]["id"].as_str().unwrap().parse().unwrap(),
        email: login["user"]["email"].as_str().unwrap().to_owned(),
        access_token: login["access_token"].as_str().unwrap().to_owned(),
        refresh_token: login["refresh_token"].as_str().unwrap().to_owned(),
    }
}

/// A stranger cannot tell an expired first password from a wrong one, nor from an unknown address. The log of the tenant can, and a mailed
/// link leads to another password.
#[actix_web::test]
async fn expired_first_password_is_answered_like_a_wrong_one() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let answer = added(world, "grace", None).await;
    let (email, first) = ("grace@acme.example", answer["password"].as_str().unwrap());
    assert!(is_in_days(world, &answer, 7), "{answer}");
    // It works at once, and says until when.
    let login = world.login("acme", email, first).await.expect(200).json();
    assert_eq!(expires_at(&login), expires_at(&answer));
    world.clock.advance(Duration::days(7) - Duration::minutes(1));
    let late = world.login("acme", email, first).await.expect(200).json();
    world.clock.advance(Duration::minutes(1));
    let late = session(&late);
    // Nor does a session that goes on take it: whoever handed it out could choose the password for good.
    let body = json!({"current_password": first, "new_password": OWN});
    let changed = world.post(&late, CHANGE, &body).await;
    changed.problem(401, "invalid_credentials");
    let expired = world.login("acme", email, first).await;
    let expired = expired.problem(401, "invalid_credentials").comparable();
    let wrong = world.login("acme", email, "wrong horse").await;
    assert_eq!(wrong.problem(401, "invalid_credentials").comparable(), expired);
    let unknown = world.login("acme", "nobody@acme.example", first).await;
    assert_eq!(unknown.problem(401, "invalid_credentials").comparable(), expired);
    let entries = world.audit(&world.acme).await;
    let reasons: Vec<_> = entries
        .iter()
        .filter(|(action, _)| action == "login.failed")
        .map(|(_, entry)| entry["after"]["reason"].clone())
        .filter(|reason| !reason.is_null())
        .collect();
    assert_eq!(reasons, [json!("password_expired")]);
    // Passwords that users chose themselves go on to work, here and in the other tenant.
    for tenant in [&world.acme, &world.globex] {
        let login = world.login(tenant.slug, &tenant.member.email, PASSWORD).await;
        let login = login.expect(200).json();
        assert_eq!(login.get("password_expires_at"), None);
    }

    mailed.mails_to(email).await;
    ask(world, FORGOT, "acme", email).await.expect(202);
    let token = mailed.token_for(email).await;
    let reset = async |password: &str| {
        let body = json!({"token": token, "new_password": password});
        world.client.post(RESET, &body).await
    };
    // The first password would stay.
    let same = reset(first).await.problem(422, "validation_failed").json();
    assert_eq!(
        (&same["errors"][0]["pointer"], &same["errors"][0]["code"]),
        (&json!("/new_password"), &json!("weak_password"))
    );
    reset(OWN).await.expect(204);
    world.clock.advance(Duration::days(100));
    let login = world.login("acme", email, OWN).await.expect(200).json();
    assert_eq!(login.get("password_expires_at"), None);
}

/// A password that an admin chose expires, too, also when it was used; the user replaces it, by another one only.
#[actix_web::test]
async fn password_of_an_admins_choice_expires_unless_it_is_changed() {
    let world = World::new().await;
    let days = json!({"security.first_password_days": 1});
    world.patch(&world.acme.admin, SETTINGS, &days).await.expect(200);
    for days in [0, 91] {
        let wrong = json!({"security.first_password_days": days});
        world
            .patch(&world.acme.admin, SETTINGS, &wrong)
            .await
            .problem(422, "validation_failed");
    }
    for name in ["kept", "changed"] {
        let answer = added(&world, name, Some(PASSWORD)).await;
        assert!(is_in_days(&world, &answer, 1), "{answer}");
        assert_eq!(answer.get("password"), None);
    }
    let login = |name: &str, password: &'static str| {
        let email = format!("{name}@acme.example");
        let world = &world;
        async move { world.login("acme", &email, password).await }
    };
    login("kept", PASSWORD).await.expect(200);
    let user = session(&login("changed", PASSWORD).await.expect(200).json());
    let change = async |new: &str| {
        let body = json!({"current_password": PASSWORD, "new_password": new});
        world.post(&user, CHANGE, &body).await
    };
    let same = change(PASSWORD).await.problem(422, "validation_failed").json();
    assert_eq!(same["errors"][0]["pointer"], "/new_password");
    change(OWN).await.expect(204);
    world.clock.advance(Duration::days(1));
    login("kept", PASSWORD).await.problem(401, "invalid_credentials");
    let changed = login("changed", OWN).await.expect(200).json();
    assert_eq!(changed.get("password_expires_at"), None);
}

/// A first password that was replaced is refused later, too, however many others came between. Another user may choose the same text.
#[actix_web::test]
async fn first_password_does_not_come_back() {
    const NEXT: &str = "a bundle of galoshes";
    const LAST: &str = "a wagon of pinecones";
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let answer = added(world, "grace", None).await;
    let (email, first) = ("grace@acme.example", answer["password"].as_str().unwrap());
    let user = session(&world.login("acme", email, first).await.expect(200).json());
    let change = async |who: &Person, from: &str, to: &str| {
        let body = json!({"current_password": from, "new_password": to});
        world.post(who, CHANGE, &body).await
    };
    change(&user, first, OWN).await.expect(204);
    for (from, to) in [(OWN, NEXT), (NEXT, LAST)] {
        let refused = change(&user, from, first).await.problem(422, "validation_failed");
        assert_eq!(refused.json()["errors"][0]["code"], json!("weak_password"));
        change(&user, from, to).await.expect(204);
    }
    mailed.mails_to(email).await;
    ask(world, FORGOT, "acme", email).await.expect(202);
    let token = mailed.token_for(email).await;
    let reset = async |password: &str| {
        let body = json!({"token": token, "new_password": password});
        world.client.post(RESET, &body).await
    };
    reset(first).await.problem(422, "validation_failed");
    // Passwords that users chose themselves may come back, and the first one of one user is refused to no other.
    reset(OWN).await.expect(204);
    world.login("acme", email, OWN).await.expect(200);
    change(&world.globex.member, PASSWORD, first).await.expect(204);
}

/// The generated password of a sign-up expires, and so does whatever password an operator gives; that of an owner who signs up does not.
#[actix_web::test]
async fn first_passwords_of_new_tenants_expire() {
    let world = World::new().await;
    let operator = world.operator("olga@example.com").await;
    let body = |slug: &str, password: Option<&str>| {
        let email = format!("owner@{slug}.example");
        let mut admin = json!({"email": email, "full_name": "Owner"});
        if let Some(password) = password {
            admin["password"] = json!(password);
        }
        json!({"name": "A tenant", "slug": slug, "admin": admin})
    };
    let sign_up = async |slug: &str, password: Option<&str>| {
        let created = world.client.post("/api/v1/tenants", &body(slug, password)).await;
        created.expect(201).json()["credentials"].clone()
    };
    let create = async |slug: &str, password: Option<&str>| {
        let request = world.client.post("/api/v1/admin/tenants", &body(slug, password));
        request.bearer(&operator).await.expect(201).json()["credentials"].clone()
    };
    let own = sign_up("own-one", Some(PASSWORD)).await;
    assert_eq!(own.get("password_expires_at"), None);
    let generated = sign_up("made-one", None).await;
    let given = create("given-one", Some(PASSWORD)).await;
    let by_operator = create("made-two", None).await;
    for credentials in [&generated, &given, &by_operator] {
        assert!(is_in_days(&world, credentials, 7), "{credentials}");
    }
    let login = |slug: &'static str, password: &str| {
        let (world, password) = (&world, password.to_owned());
        async move {
            world
                .login(slug, &format!("owner@{slug}.example"), &password)
                .await
        }
    };
    let password = |credentials: &Value| credentials["password"].as_str().unwrap().to_owned();
    let expiring = [
        ("made-one", password(&generated)),
        ("given-one", PASSWORD.to_owned()),
        ("made-two", password(&by_operator)),
    ];
    for (slug, password) in &expiring {
        login(slug, password).await.expect(200);
    }
    world.clock.advance(Duration::days(7));
    for (slug, password) in &expiring {
        login(slug, password).await.problem(401, "invalid_credentials");
    }
    login("own-one", PASSWORD).await.expect(200);
}

/// Users get one mail before the password expires, unless they have changed it.
#[actix_web::test]
async fn users_are_notified_once_before_a_first_password_expires() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    added(world, "grace", None).await;
    added(world, "changed", Some(PASSWORD)).await;
    let login = world.login("acme", "changed@acme.example", PASSWORD).await;
    let user = session(&login.expect(200).json());
    let body = json!({"current_password": PASSWORD, "new_password": OWN});
    world.post(&user, CHANGE, &body).await.expect(204);
    let run = async || {
        for tenant in [world.acme.id, world.globex.id] {
            let because = SystemScope::because("a test of first passwords");
            let scope = world.app.ports.gate.system(because, tenant).await.unwrap();
            let cx = Cx::new(world.app.clone(), scope, Origin::default());
            NotifyOfFirstPasswords.run(&cx, Nothing {}).await.unwrap();
        }
    };
    let subjects = async || -> Vec<String> {
        let before = mailed.server.received().len();
        crate::mail::work(world).await;
        let received = mailed.server.received().split_off(before);
        let subject =
            |mail: &tenantry_tests::Received| format!("{} {}", mail.to.join(" "), mail.header("Subject"));
        let subjects = received.iter().map(subject);
        subjects.filter(|text| text.contains("expires soon")).collect()
    };
    run().await;
    assert_eq!(subjects().await, [""; 0]);
    world.clock.advance(Duration::days(5) + Duration::minutes(1));
    run().await;
    run().await;
    let got = subjects().await;
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].starts_with("grace@acme.example "), "{got:?}");
    world.clock.advance(Duration::days(1));
    run().await;
    assert_eq!(subjects().await, [""; 0]);
    let entries = world.audit(&world.acme).await;
    let noted = entries
        .iter()
        .filter(|(action, _)| action == "user.password_expires_soon");
    assert_eq!(noted.count(), 1);
}

/// A login that waits for its code lives for five minutes, and no longer than the first password that it began with. A password that its
/// user chose does not end it.
#[actix_web::test]
async fn waiting_login_ends_with_its_first_password() {
    let world = World::new().await;
    let answer = added(&world, "grace", None).await;
    let first = answer["password"].as_str().unwrap().to_owned();
    let login = world.login("acme", "grace@acme.example", &first).await;
    let grace = with_factor(&world, &session(&login.expect(200).json())).await;
    let own = with_factor(&world, &world.globex.member).await;
    let waiting = async |slug: &str, email: &str, password: &str| {
        let login = world.login(slug, email, password).await;
        login.problem(401, "mfa_required").json()["mfa_token"].clone()
    };
    let verify = async |token: &Value, app: &App| {
        let body = json!({"mfa_token": token, "code": app.next_code(&world)});
        world.client.post("/api/v1/auth/mfa/verify", &body).await
    };
    world.clock.advance(Duration::days(7) - Duration::minutes(3));
    let token = waiting("acme", "grace@acme.example", &first).await;
    verify(&token, &grace).await.expect(200);
    let late = waiting("acme", "grace@acme.example", &first).await;
    let of_other = waiting("globex", &world.globex.member.email, PASSWORD).await;
    world.clock.advance(Duration::minutes(3));
    verify(&late, &grace).await.problem(401, "token_revoked");
    verify(&of_other, &own).await.expect(200);
}
