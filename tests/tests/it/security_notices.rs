//! Mail to users when something happens to what protects their account.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_tests::{PASSWORD, Person, World};

use crate::account_passwords::{Mailed, post};
use crate::mfa::{App, settle, with_factor};

const KEYS: &str = "/api/v1/api-keys";
const SUBJECT: &str = "[Acme Inc] ";

/// The subjects of the mails that an address got since the last time, without the tenant.
async fn subjects(mailed: &Mailed, address: &str) -> Vec<String> {
    let mails = mailed.mails_to(address).await.into_iter();
    let subjects = mails.map(|mail| mail.header("Subject").trim_start_matches(SUBJECT).to_owned());
    subjects.collect()
}

async fn make_key(world: &World, who: &Person, name: &str) -> Value {
    let body = json!({"name": name, "scopes": ["tasks.read"]});
    world.post(who, KEYS, &body).await.expect(201).json()
}

async fn give(world: &World, who: &Person, path: &str, code: &str) -> Value {
    let path = format!("/api/v1/auth/mfa/{path}");
    world
        .post(who, &path, &json!({"code": code}))
        .await
        .expect(200)
        .json()
}

async fn trust(world: &World, who: &Person, app: &App) {
    let waiting = world
        .login("acme", &who.email, PASSWORD)
        .await
        .problem(401, "mfa_required")
        .json();
    let body = json!({"mfa_token": waiting["mfa_token"], "code": app.next_code(world), "trust_device": true});
    post(world, "/api/v1/auth/mfa/verify", body).await.expect(200);
}

#[actix_web::test]
async fn each_change_of_a_factor_notifies_its_user() {
    let mailed = Mailed::new().await;
    // An address that is not verified gets a few mails a day only.
    sqlx::raw_sql("UPDATE users SET email_verified = true")
        .execute(&mut mailed.world.database.admin().await)
        .await
        .unwrap();
    let (world, member) = (&mailed.world, &mailed.world.acme.member);
    let app = with_factor(world, member).await;
    assert_eq!(
        subjects(&mailed, &member.email).await,
        ["a second factor was enabled"]
    );
    let code = app.recovery_code(0).to_owned();
    give(world, member, "step-up", &code).await;
    assert_eq!(
        subjects(&mailed, &member.email).await,
        ["a recovery code was used"]
    );
    give(world, member, "recovery-codes", &app.next_code(world)).await;
    assert_eq!(subjects(&mailed, &member.email).await, ["new recovery codes"]);
    trust(world, member, &app).await;
    let mails = mailed.mails_to(&member.email).await;
    assert!(mails[0].header("Subject").ends_with("a device is trusted"));
    assert!(
        mails[0].text().contains("Address  203.0.113.7"),
        "{}",
        mails[0].text()
    );
    let body = json!({"password": PASSWORD, "code": app.next_code(world)});
    world
        .post(member, "/api/v1/auth/mfa/disable", &body)
        .await
        .expect(204);
    assert_eq!(
        subjects(&mailed, &member.email).await,
        ["the second factor was disabled"]
    );
    // A code that is only given again is no change.
    let app = with_factor(world, member).await;
    give(world, member, "step-up", &app.next_code(world)).await;
    assert_eq!(
        subjects(&mailed, &member.email).await,
        ["a second factor was enabled"]
    );

    let admin = &world.acme.admin;
    with_factor(world, admin).await;
    settle(world, admin).await;
    let path = format!("/api/v1/users/{}/reset-mfa", member.id);
    world.post(admin, &path, &json!({})).await.expect(204);
    assert_eq!(
        subjects(&mailed, &member.email).await,
        ["the second factor was removed"]
    );
}

/// A thief who gives the account another address while mail is delayed must not be the one who is notified.
#[actix_web::test]
async fn delayed_notices_go_to_the_address_of_the_event() {
    let mut mailed = Mailed::new().await;
    let member = mailed.world.acme.member.clone();
    let verified = format!(
        "UPDATE users SET email_verified = true WHERE id = '{}'",
        member.id
    );
    mailed.world.sql(verified).await;
    mailed.server.stop();
    // One notice of each kind: of a factor, and of the password.
    with_factor(&mailed.world, &member).await;
    let body = json!({"current_password": PASSWORD, "new_password": "a staple of batteries"});
    let changed = mailed.world.post(&member, "/api/v1/auth/change-password", &body);
    changed.await.expect(204);
    crate::mail::work(&mailed.world).await;
    let moved = format!(
        "UPDATE users SET email = 'thief@acme.example' WHERE id = '{}'",
        member.id
    );
    mailed.world.sql(moved).await;
    mailed.server.restart();
    mailed.world.clock.advance(Duration::minutes(15));
    let mut told = subjects(&mailed, &member.email).await;
    told.sort();
    assert_eq!(told, ["a second factor was enabled", "your password was changed"]);
    let received = mailed.server.received();
    assert!(
        received.iter().all(|mail| mail.to == [member.email.as_str()]),
        "{received:?}"
    );
}

#[actix_web::test]
async fn api_keys_notify_who_makes_or_rotates_them() {
    let mailed = Mailed::new().await;
    let (world, admin) = (&mailed.world, &mailed.world.acme.admin);
    let made = make_key(world, admin, "Deploy\u{2028}now").await;
    let mails = mailed.mails_to(&admin.email).await;
    assert!(mails[0].header("Subject").ends_with("an API key was created"));
    assert!(
        mails[0].text().contains("The API key \"Deploy now\" was created"),
        "{}",
        mails[0].text()
    );
    assert!(!mails[0].text().contains(made["key"].as_str().unwrap()));
    let path = format!("{KEYS}/{}/rotate", made["id"].as_str().unwrap());
    world
        .post(admin, &path, &json!({"overlap_seconds": 0}))
        .await
        .expect(201);
    assert_eq!(subjects(&mailed, &admin.email).await, ["an API key was rotated"]);
}

#[actix_web::test]
async fn creator_is_notified_when_another_admin_rotates_a_key() {
    let mailed = Mailed::new().await;
    let (world, admin) = (&mailed.world, &mailed.world.acme.admin);
    let second = world.second_admin().await;
    let expires_at = world.app.ports.clock.now() + Duration::days(30);
    let robot =
        json!({"name": "Robot", "scopes": ["tasks.read"], "service_account": true, "expires_at": expires_at});
    let made = world.post(admin, KEYS, &robot).await.expect(201).json();
    mailed.mails_to(&admin.email).await;
    let path = format!("{KEYS}/{}/rotate", made["id"].as_str().unwrap());
    let rotated = world.post(&second, &path, &json!({"overlap_seconds": 0})).await;
    rotated.expect(201);
    assert_eq!(subjects(&mailed, &admin.email).await, ["an API key was rotated"]);
    let received = mailed.server.received();
    let mut told: Vec<_> = received
        .iter()
        .filter(|mail| mail.header("Subject").ends_with("an API key was rotated"))
        .map(|mail| mail.to[0].as_str())
        .collect();
    told.sort_unstable();
    assert_eq!(told, [admin.email.as_str(), second.email.as_str()]);
}

#[actix_web::test]
async fn former_address_learns_of_a_change_by_an_admin() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let path = format!("/api/v1/users/{}", acme.member.id);
    let change = json!({"email": "moved@acme.example"});
    world.patch(&acme.admin, &path, &change).await.expect(200);
    let before = mailed.server.received().len();
    crate::mail::work(world).await;
    let received = mailed.server.received().split_off(before);
    let mut sent: Vec<_> = received
        .iter()
        .map(|mail| (mail.to[0].clone(), mail.header("Subject").to_owned()))
        .collect();
    sent.sort_unstable();
    let expected = [
        (
            "member@acme.example".to_owned(),
            format!("{SUBJECT}your e-mail address was changed"),
        ),
        (
            "moved@acme.example".to_owned(),
            format!("{SUBJECT}verify your e-mail address"),
        ),
    ];
    assert_eq!(sent, expected);
    let notice = received
        .iter()
        .find(|mail| mail.to == ["member@acme.example"])
        .unwrap()
        .text();
    assert!(!notice.contains("moved@acme.example"), "{notice}");
    // Another field is no change of the address.
    world
        .patch(&acme.admin, &path, &json!({"full_name": "Bea"}))
        .await
        .expect(200);
    assert!(mailed.mails_to("moved@acme.example").await.is_empty());
}

#[actix_web::test]
async fn notices_of_a_kind_are_bounded_per_day() {
    let mailed = Mailed::new().await;
    let (world, admin) = (&mailed.world, &mailed.world.acme.admin);
    for number in 0..7 {
        make_key(world, admin, &format!("Key {number}")).await;
    }
    let mails = mailed.mails_to(&admin.email).await;
    assert_eq!(mails.len(), 5);
    let last: Vec<_> = mails
        .iter()
        .filter(|mail| mail.text().contains("More notices of this kind"))
        .collect();
    assert_eq!(last.len(), 1);
    // Another kind, and another user, have bounds of their own.
    make_key(world, &world.globex.admin, "Theirs").await;
    assert_eq!(mailed.mails_to(&world.globex.admin.email).await.len(), 1);
    with_factor(world, admin).await;
    assert_eq!(
        subjects(&mailed, &admin.email).await,
        ["a second factor was enabled"]
    );
    world.clock.advance(Duration::days(1));
    let admin = &log_in_again(world, admin).await;
    make_key(world, admin, "Tomorrow").await;
    let mails = mailed.mails_to(&admin.email).await;
    assert_eq!(
        mails
            .iter()
            .filter(|mail| mail.header("Subject").ends_with("an API key was created"))
            .count(),
        1
    );
}

/// A login with a code, a day later.
async fn log_in_again(world: &World, who: &Person) -> Person {
    sqlx::raw_sql("DELETE FROM totp_factors")
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    let done = world.login("acme", &who.email, PASSWORD).await.expect(200).json();
    Person {
        access_token: done["access_token"].as_str().unwrap().to_owned(),
        ..who.clone()
    }
}

/// Keys have secrets of their own, so a reset does not end them; its notice says so to who has made some.
#[actix_web::test]
async fn reset_keeps_api_keys_and_its_notice_names_them() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let kept = make_key(world, &acme.admin, "Kept").await;
    let revoked = make_key(world, &acme.admin, "Revoked").await;
    let path = format!("{KEYS}/{}", revoked["id"].as_str().unwrap());
    world.delete(&acme.admin, &path).await.expect(204);
    mailed.mails_to(&acme.admin.email).await;
    for (who, says) in [(&acme.admin, true), (&acme.member, false)] {
        let token = mailed.forgotten(acme, who).await;
        let body = json!({"token": token, "new_password": "a staple of batteries"});
        post(world, "/api/v1/auth/reset-password", body).await.expect(204);
        let mails = mailed.mails_to(&who.email).await;
        let [mail] = &mails[..] else {
            panic!("{} mails", mails.len())
        };
        assert!(mail.header("Subject").ends_with("your password was reset"));
        let text = mail.text();
        assert_eq!(
            text.contains("1 API key that you created stays valid"),
            says,
            "{text}"
        );
    }
    let key = kept["key"].as_str().unwrap();
    world.client.get("/api/v1/tasks").bearer(key).await.expect(200);
}

/// A thief takes a stolen key over by rotating it, so the admins get a mail.
#[actix_web::test]
async fn admins_are_notified_of_a_key_that_rotates_itself() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let expires_at = world.app.ports.clock.now() + Duration::days(30);
    let robot =
        json!({"name": "Robot", "scopes": ["tasks.read"], "service_account": true, "expires_at": expires_at});
    let made = world.post(&acme.admin, KEYS, &robot).await;
    let made = made.expect(201).json();
    mailed.mails_to(&acme.admin.email).await;
    let path = format!("{KEYS}/{}/rotate", made["id"].as_str().unwrap());
    let rotated = post(world, &path, json!({"overlap_seconds": 0}));
    let rotated = rotated.bearer(made["key"].as_str().unwrap()).await;
    let rotated = rotated.expect(201).json();
    let mails = mailed.mails_to(&acme.admin.email).await;
    assert_eq!(mails.len(), 1);
    assert!(mails[0].header("Subject").ends_with("an API key rotated itself"));
    let text = mails[0].text();
    assert!(text.contains("The API key \"Robot\" of Acme Inc"), "{text}");
    assert!(!text.contains(rotated["key"].as_str().unwrap()));
    let received = mailed.server.received();
    let notices = received
        .iter()
        .filter(|mail| mail.header("Subject").ends_with("rotated itself"));
    assert_eq!(notices.count(), 1, "only the tenant's admins get it");
}
