//! Addresses of accounts: proving one, and what a tenant may ask of it.

use chrono::Duration;
use serde_json::json;
use tenantry_http::HttpConfig;
use tenantry_tests::{Options, PASSWORD, Person, Reply, TenantWorld, World};

use crate::account_passwords::{Mailed, ask, is_unusable, post, token};
use crate::mail;
use crate::mfa::{settle, with_factor};

const VERIFY: &str = "/api/v1/auth/verify-email";
const RESEND: &str = "/api/v1/auth/resend-verification";
const NEW_PASSWORD: &str = "battery staple";

async fn is_verified(world: &World, tenant: &TenantWorld, email: &str) -> bool {
    let sql = "SELECT email_verified FROM users WHERE tenant_id = $1 AND email = $2";
    sqlx::query_scalar(sql)
        .bind(tenant.id.uuid())
        .bind(email)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

/// From now on the tenant lets only users with a proven address in.
async fn require_verified(world: &World, tenant: &TenantWorld) {
    let settings = json!({"security.require_verified_email": true});
    let patch = world.patch(&tenant.admin, "/api/v1/tenant/settings", &settings);
    patch.await.expect(200);
}

#[actix_web::test]
async fn new_users_get_a_link_that_verifies_their_address() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let added = json!({"email": "added@acme.example", "full_name": "Added"});
    world.post(&acme.admin, "/api/v1/users", &added).await.expect(201);
    let registered = json!({"tenant_slug": "acme", "email": "self@acme.example", "full_name": "Self",
        "password": "battery staple"});
    post(world, "/api/v1/auth/register", registered).await.expect(201);
    let founded =
        json!({"name": "New", "slug": "new-one", "admin": {"email": "new@new.example", "full_name": "N"}});
    post(world, "/api/v1/tenants", founded).await.expect(201);
    mail::work(world).await;
    let received = mailed.server.received();
    let mut to: Vec<_> = received.iter().map(|mail| mail.to[0].as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, ["added@acme.example", "new@new.example", "self@acme.example"]);
    for received in &received {
        assert!(received.header("Subject").ends_with("verify your e-mail address"));
        let token = token(received);
        let verify = || post(world, VERIFY, json!({"token": token})).send();
        verify().await.expect(204);
        is_unusable(verify().await);
    }
    assert!(is_verified(world, acme, "self@acme.example").await);
    assert!(is_verified(world, acme, "added@acme.example").await);
    assert!(!is_verified(world, acme, &acme.viewer.email).await);
    assert!(
        mailed
            .audit(acme)
            .await
            .contains(&"user.email_verified".to_owned())
    );
}

#[actix_web::test]
async fn verification_is_sent_again_until_the_address_is_verified() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    ask(world, RESEND, "acme", &acme.viewer.email).await.expect(202);
    let first = mailed.token_for(&acme.viewer.email).await;
    world.clock.advance(Duration::minutes(60));
    is_unusable(post(world, VERIFY, json!({"token": first})).await);
    ask(world, RESEND, "acme", &acme.viewer.email).await.expect(202);
    let second = mailed.token_for(&acme.viewer.email).await;
    post(world, VERIFY, json!({"token": second})).await.expect(204);
    world.clock.advance(Duration::minutes(60));
    for address in [acme.viewer.email.as_str(), "nobody@acme.example"] {
        ask(world, RESEND, "acme", address).await.expect(202);
        assert!(mailed.mails_to(address).await.is_empty(), "{address}");
    }
}

/// A link proves the address that it was sent to, and no other one.
#[actix_web::test]
async fn link_to_a_former_address_verifies_nothing() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    ask(world, RESEND, "acme", &acme.viewer.email).await.expect(202);
    let token = mailed.token_for(&acme.viewer.email).await;
    let path = format!("/api/v1/users/{}", acme.viewer.id);
    let other = json!({"email": "other@acme.example"});
    world.patch(&acme.admin, &path, &other).await.expect(200);
    is_unusable(post(world, VERIFY, json!({"token": token})).await);
    assert!(!is_verified(world, acme, "other@acme.example").await);
}

#[actix_web::test]
async fn unverified_users_stay_out_where_the_tenant_says_so() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .expect(200);
    require_verified(world, acme).await;
    let login = || world.login("acme", &acme.viewer.email, PASSWORD);
    login().await.problem(403, "email_not_verified");
    // Only who knows the password learns of it.
    world
        .login("acme", &acme.viewer.email, "wrong horse")
        .await
        .problem(401, "invalid_credentials");
    world
        .login("acme", "nobody@acme.example", PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    world
        .login("globex", &world.globex.viewer.email, PASSWORD)
        .await
        .expect(200);
    let refresh = || {
        let body = json!({"refresh_token": acme.viewer.refresh_token});
        post(world, "/api/v1/auth/refresh", body).send()
    };
    refresh().await.problem(403, "email_not_verified");
    ask(world, RESEND, "acme", &acme.viewer.email).await.expect(202);
    let token = mailed.token_for(&acme.viewer.email).await;
    post(world, VERIFY, json!({"token": token})).await.expect(204);
    refresh().await.expect(200);
    login().await.expect(200);
}

/// Otherwise a caller with a made-up address of the company would be a member of its tenant.
#[actix_web::test]
async fn registration_opens_no_session_before_verification() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for (settings, name) in [
        (json!({"security.require_verified_email": true}), "one"),
        (
            json!({"security.require_verified_email": false, "security.allowed_email_domains": ["acme.example"]}),
            "two",
        ),
    ] {
        let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &settings);
        patch.await.expect(200);
        let email = format!("{name}@acme.example");
        let registered =
            json!({"tenant_slug": "acme", "email": email, "full_name": "Self", "password": NEW_PASSWORD});
        let register = || post(world, "/api/v1/auth/register", registered.clone());
        let key = "5d0f0b9c-8f0e-4a59-9f5a-0e8d4f1d2c33".replace("5d0f", name);
        let first = register().header("Idempotency-Key", &key).await.expect(202);
        assert!(first.bytes.is_empty(), "{}", first.text());
        let again = register().header("Idempotency-Key", &key).await.expect(202);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        // The same answer as for an address that nobody has; the mail has the truth.
        register().await.expect(202);
        let login = |password: &'static str| world.login("acme", &email, password);
        login(NEW_PASSWORD).await.problem(403, "email_not_verified");
        login("wrong horse").await.problem(401, "invalid_credentials");
        // The link proves the address, also when the settings are looser by then.
        let loose = json!({"security.require_verified_email": false, "security.allowed_email_domains": []});
        let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &loose);
        patch.await.expect(200);
        login(NEW_PASSWORD).await.problem(403, "email_not_verified");
        let token = mailed.token_for(&email).await;
        post(world, VERIFY, json!({"token": token, "password": NEW_PASSWORD}))
            .await
            .expect(204);
        login(NEW_PASSWORD).await.expect(200);
    }
    // An address that an admin vouches for needs no proof where only domains are listed.
    let settings = json!({"security.allowed_email_domains": ["acme.example"]});
    let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &settings);
    patch.await.expect(200);
    world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .expect(200);
}

/// A reset of the password proves the address, too.
#[actix_web::test]
async fn reset_lets_a_registered_user_in() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    require_verified(world, acme).await;
    let email = "self@acme.example";
    let registered =
        json!({"tenant_slug": "acme", "email": email, "full_name": "Self", "password": NEW_PASSWORD});
    post(world, "/api/v1/auth/register", registered).await.expect(202);
    mailed.token_for(email).await;
    ask(world, "/api/v1/auth/forgot-password", "acme", email)
        .await
        .expect(202);
    let body = json!({"token": mailed.token_for(email).await, "new_password": "a staple of horses"});
    post(world, "/api/v1/auth/reset-password", body).await.expect(204);
    world.login("acme", email, "a staple of horses").await.expect(200);
    world
        .login("acme", email, NEW_PASSWORD)
        .await
        .problem(401, "invalid_credentials");
}

// ------------------------------------------------------------------------------------------------------------- change

const NEW: &str = "moved@acme.example";

async fn change(world: &World, who: &Person, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    world.post(who, "/api/v1/auth/change-email", &body).await
}

async fn redeem(world: &World, what: &str, token: &str) -> Reply {
    let path = format!("/api/v1/auth/{what}-email");
    post(world, &path, json!({"token": token})).await
}

async fn email(world: &World, who: &Person) -> String {
    sqlx::query_scalar("SELECT email FROM users WHERE id = $1")
        .bind(who.id.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

impl Mailed {
    /// The address of the viewer is verified.
    async fn verify_viewer(&self) {
        let sql = "UPDATE users SET email_verified = true WHERE id = $1";
        let viewer = sqlx::query(sql).bind(self.world.acme.viewer.id.uuid());
        let mut admin = self.world.database.admin().await;
        viewer.execute(&mut admin).await.unwrap();
    }

    /// Moves the viewer to an address, and returns the token that takes it back.
    pub(crate) async fn move_viewer(&self, to: &str) -> String {
        let viewer = &self.world.acme.viewer;
        self.verify_viewer().await;
        let from = email(&self.world, viewer).await;
        change(&self.world, viewer, to, PASSWORD).await.expect(202);
        let confirm = self.token_for(to).await;
        redeem(&self.world, "confirm", &confirm).await.expect(204);
        self.token_for(&from).await
    }
}

#[actix_web::test]
async fn new_address_is_proven_before_it_is_taken_over() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    mailed.verify_viewer().await;
    let globex = world.digest(&world.globex).await;
    change(world, &acme.viewer, NEW, "wrong horse")
        .await
        .problem(401, "invalid_credentials");
    change(world, &acme.viewer, "no address", PASSWORD)
        .await
        .problem(422, "validation_failed");
    change(world, &acme.viewer, &acme.viewer.email, PASSWORD)
        .await
        .problem(422, "validation_failed");
    change(world, &acme.viewer, NEW, PASSWORD).await.expect(202);
    assert_eq!(email(world, &acme.viewer).await, acme.viewer.email);
    let confirm = mailed.token_for(NEW).await;
    is_unusable(redeem(world, "revert", &confirm).await);
    is_unusable(redeem(world, "verify", &confirm).await);
    redeem(world, "confirm", &confirm).await.expect(204);
    is_unusable(redeem(world, "confirm", &confirm).await);
    assert_eq!(email(world, &acme.viewer).await, NEW);
    assert!(is_verified(world, acme, NEW).await);
    world.login("acme", NEW, PASSWORD).await.expect(200);
    world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .expect(401);
    let mails = mailed.mails_to(&acme.viewer.email).await;
    assert_eq!(mails.len(), 1, "the former address is notified");
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn taken_address_is_found_out_only_by_who_reads_its_mail() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let free = change(world, &acme.viewer, NEW, PASSWORD).await.expect(202);
    let taken = change(world, &acme.viewer, &acme.member.email, PASSWORD)
        .await
        .expect(202);
    assert_eq!(free.bytes, taken.bytes);
    let confirm = mailed.token_for(&acme.member.email).await;
    redeem(world, "confirm", &confirm)
        .await
        .problem(409, "email_taken");
    assert_eq!(email(world, &acme.viewer).await, acme.viewer.email);
    // The address of a user of another tenant is free here.
    let theirs = &world.globex.viewer.email;
    mailed.move_viewer(theirs).await;
    assert_eq!(&email(world, &acme.viewer).await, theirs);
}

#[actix_web::test]
async fn former_address_takes_the_change_back_for_seven_days() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let revert = mailed.move_viewer(NEW).await;
    world.clock.advance(Duration::days(6));
    let login = world.login("acme", NEW, PASSWORD).await.expect(200).json();
    redeem(world, "revert", &revert).await.expect(204);
    is_unusable(redeem(world, "revert", &revert).await);
    assert_eq!(email(world, &acme.viewer).await, acme.viewer.email);
    let token = login["access_token"].as_str().unwrap();
    world
        .client
        .get("/api/v1/auth/me")
        .bearer(token)
        .await
        .problem(401, "token_revoked");
    let reset = mailed.token_for(&acme.viewer.email).await;
    let body = json!({"token": reset, "new_password": "a staple of horses"});
    post(world, "/api/v1/auth/reset-password", body).await.expect(204);
    world
        .login("acme", &acme.viewer.email, "a staple of horses")
        .await
        .expect(200);
}

#[actix_web::test]
async fn change_of_address_cannot_be_taken_back_after_seven_days() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let revert = mailed.move_viewer(NEW).await;
    world.clock.advance(Duration::days(7));
    is_unusable(redeem(world, "revert", &revert).await);
    assert_eq!(email(world, &world.acme.viewer).await, NEW);
}

/// Who moves an account twice takes neither link from its owner, and loses the own one when the owner uses theirs.
#[actix_web::test]
async fn owner_takes_back_an_account_that_was_moved_twice() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let of_owner = mailed.move_viewer(NEW).await;
    let of_thief = mailed.move_viewer("again@acme.example").await;
    redeem(world, "revert", &of_owner).await.expect(204);
    is_unusable(redeem(world, "revert", &of_thief).await);
    assert_eq!(email(world, &acme.viewer).await, acme.viewer.email);
}

#[actix_web::test]
async fn address_is_changed_five_times_in_seven_days_at_the_most() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for number in 0..5 {
        mailed.move_viewer(&format!("n{number}@acme.example")).await;
    }
    change(world, &acme.viewer, NEW, PASSWORD)
        .await
        .problem(409, "conflict");
}

/// Else a stolen session would take the account: by another address, and a link to reset the password.
#[actix_web::test]
async fn session_alone_changes_no_own_address() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for who in [&acme.viewer, &acme.admin] {
        let path = format!("/api/v1/users/{}", who.id);
        let patch = world.patch(who, &path, &json!({"email": NEW}));
        let refused = patch.await.problem(422, "validation_failed").json();
        assert_eq!(refused["errors"][0]["code"], "confirmation_required");
        assert_eq!(email(world, who).await, who.email);
    }
    mail::work(world).await;
    assert!(mailed.mails_to(NEW).await.is_empty());
}

/// A user who mistyped an address corrects it at once, and its reader cannot take the account.
#[actix_web::test]
async fn corrected_address_ends_the_mistyped_link_at_once() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let mistyped = "mvoed@acme.example";
    change(world, &acme.viewer, mistyped, PASSWORD).await.expect(202);
    let wrong = mailed.token_for(mistyped).await;
    change(world, &acme.viewer, NEW, PASSWORD).await.expect(202);
    is_unusable(redeem(world, "confirm", &wrong).await);
    // The same address gets no second mail within five minutes.
    let right = mailed.token_for(NEW).await;
    change(world, &acme.viewer, NEW, PASSWORD).await.expect(202);
    assert!(mailed.mails_to(NEW).await.is_empty());
    redeem(world, "confirm", &right).await.expect(204);
    assert_eq!(email(world, &acme.viewer).await, NEW);
}

/// It may be the address of a stranger, by a typo.
#[actix_web::test]
async fn former_address_that_was_not_verified_takes_nothing_back() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    change(world, &acme.viewer, NEW, PASSWORD).await.expect(202);
    let confirm = mailed.token_for(NEW).await;
    redeem(world, "confirm", &confirm).await.expect(204);
    assert!(mailed.mails_to(&acme.viewer.email).await.is_empty());
}

impl Mailed {
    /// Chooses a new password for the viewer with the one link that was mailed, and logs in with it.
    async fn log_in_anew(&self) -> Reply {
        let viewer = &self.world.acme.viewer;
        let reset = self.token_for(&viewer.email).await;
        let body = json!({"token": reset, "new_password": "a staple of horses"});
        let reset = post(&self.world, "/api/v1/auth/reset-password", body);
        reset.await.expect(204);
        self.world
            .login("acme", &viewer.email, "a staple of horses")
            .await
    }

    /// The viewer has a factor that was enabled so long before the present address was taken over.
    async fn factor_since(&self, before: &str) {
        let sql = format!(
            "INSERT INTO totp_factors (tenant_id, id, created_at, user_id, sealed_secret, confirmed_at) \
             SELECT u.tenant_id, gen_random_uuid(), now(), u.id, 's', l.created_at - interval '{before}' FROM users u \
             JOIN account_links l ON l.user_id = u.id AND l.purpose = 'revert_email' WHERE u.id = $1"
        );
        let factor = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(self.world.acme.viewer.id.uuid());
        let mut admin = self.world.database.admin().await;
        assert_eq!(factor.execute(&mut admin).await.unwrap().rows_affected(), 1);
    }
}

/// Otherwise the password and any session would be enough to make an address of the thief's a former one, and to remove the
/// factor by taking the change back.
#[actix_web::test]
async fn password_and_session_change_no_address_without_a_factor() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let app = with_factor(world, &acme.viewer).await;
    world.clock.advance(Duration::seconds(600));
    change(world, &acme.viewer, NEW, PASSWORD)
        .await
        .problem(403, "mfa_required");
    assert!(mailed.mails_to(NEW).await.is_empty());
    let code = json!({"code": app.next_code(world)});
    let step_up = world.post(&acme.viewer, "/api/v1/auth/mfa/step-up", &code);
    let stepped = step_up.await.expect(200).json();
    let viewer = Person {
        access_token: stepped["access_token"].as_str().unwrap().to_owned(),
        ..acme.viewer.clone()
    };
    change(world, &viewer, NEW, PASSWORD).await.expect(202);
}

/// A factor that its user has had for a day stays; one that a thief enrolled before or after the change does not, unless the tenant keeps
/// all of them.
#[actix_web::test]
async fn revert_keeps_a_settled_factor_only() {
    for (before, kept, stays) in [
        ("24 hours", false, true),
        ("23 hours 59 minutes", false, false),
        ("-1 hour", false, false),
        ("-1 hour", true, true),
    ] {
        let mailed = Mailed::new().await;
        let (world, acme) = (&mailed.world, &mailed.world.acme);
        let settings = json!({"security.links_keep_factors": kept});
        let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &settings);
        patch.await.expect(200);
        let revert = mailed.move_viewer(NEW).await;
        mailed.factor_since(before).await;
        redeem(world, "revert", &revert).await.expect(204);
        let login = mailed.log_in_anew().await;
        if stays {
            login.problem(401, "mfa_required");
        } else {
            login.expect(200);
        }
        let resets = mailed
            .audit(acme)
            .await
            .iter()
            .filter(|action| *action == "mfa.reset")
            .count();
        assert_eq!(resets, usize::from(!stays), "{before}");
    }
}

/// The thief who moved the account knows the password.
#[actix_web::test]
async fn password_ends_when_a_change_of_address_is_taken_back() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let revert = mailed.move_viewer(NEW).await;
    redeem(world, "revert", &revert).await.expect(204);
    for address in [NEW, &acme.viewer.email] {
        world
            .login("acme", address, PASSWORD)
            .await
            .problem(401, "invalid_credentials");
    }
    mailed.log_in_anew().await.expect(200);
}

/// An admin who moves a moved account once more takes nothing from its owner.
#[actix_web::test]
async fn owner_takes_an_account_back_from_admins() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let revert = mailed.move_viewer(NEW).await;
    let path = format!("/api/v1/users/{}", acme.viewer.id);
    let moved = json!({"email": "again@acme.example"});
    world.patch(&acme.admin, &path, &moved).await.expect(200);
    redeem(world, "revert", &revert).await.expect(204);
    mailed.log_in_anew().await.expect(200);
}

/// An ended session may be the one that asked for the link.
#[actix_web::test]
async fn link_to_confirm_an_address_ends_with_the_sessions() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    with_factor(world, &acme.admin).await;
    settle(world, &acme.admin).await;
    let at_viewer = format!("/api/v1/users/{}", acme.viewer.id);
    let active = |is_active: bool| world.patch(&acme.admin, &at_viewer, &json!({"is_active": is_active}));
    for way in ["end-sessions", "logout-all", "deactivate", "reset-mfa"] {
        let login = world
            .login("acme", &acme.viewer.email, PASSWORD)
            .await
            .expect(200)
            .json();
        let viewer = Person {
            access_token: login["access_token"].as_str().unwrap().to_owned(),
            ..acme.viewer.clone()
        };
        let address = format!("{way}@acme.example");
        change(world, &viewer, &address, PASSWORD).await.expect(202);
        let confirm = mailed.token_for(&address).await;
        let ended = match way {
            "logout-all" => world.post(&viewer, "/api/v1/auth/logout-all", &json!({})),
            "deactivate" => active(false),
            _ => {
                if way == "reset-mfa" {
                    with_factor(world, &viewer).await;
                }
                world.post(&acme.admin, &format!("{at_viewer}/{way}"), &json!({}))
            }
        };
        let ended = ended.await;
        assert!(ended.status < 300, "{way}: {}", ended.text());
        active(true).await.expect(200);
        is_unusable(redeem(world, "confirm", &confirm).await);
        assert_eq!(email(world, &acme.viewer).await, acme.viewer.email, "{way}");
        world.clock.advance(Duration::minutes(1));
    }
}

/// The link is refused while the domain is not allowed, and is not used up by that.
#[actix_web::test]
async fn tightened_domains_hold_for_open_links() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let allow = async |domains: serde_json::Value| {
        let settings = json!({"security.allowed_email_domains": domains});
        let patch = world.patch(&acme.admin, "/api/v1/tenant/settings", &settings);
        patch.await.expect(200);
    };
    change(world, &acme.viewer, "moved@other.example", PASSWORD)
        .await
        .expect(202);
    let confirm = mailed.token_for("moved@other.example").await;
    allow(json!(["acme.example"])).await;
    let refused = redeem(world, "confirm", &confirm).await;
    let refused = refused.problem(422, "validation_failed").json();
    let error = &refused["errors"][0];
    assert_eq!(
        (&error["pointer"], &error["code"]),
        (&json!("/token"), &json!("domain_not_allowed"))
    );
    assert_eq!(email(world, &acme.viewer).await, acme.viewer.email);
    allow(json!([])).await;
    redeem(world, "confirm", &confirm).await.expect(204);
    // The former address was the user's, whatever the tenant allows by now.
    assert_eq!(email(world, &acme.viewer).await, "moved@other.example");
}

// ------------------------------------------------------------------------------------------------------------ notices

/// A world behind a proxy, so that a test says from where a request comes.
async fn proxied() -> Mailed {
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..Options::default().http
    };
    Mailed::with(Options {
        http,
        ..Options::default()
    })
    .await
}

impl Mailed {
    /// The viewer logs in from an address; the subjects of the mails that follow.
    async fn log_in_from(&self, address: &str) -> Vec<String> {
        let viewer = &self.world.acme.viewer;
        let body = json!({"tenant_slug": "acme", "email": viewer.email, "password": PASSWORD});
        let login = post(&self.world, "/api/v1/auth/login", body);
        login.header("X-Forwarded-For", address).await.expect(200);
        let mails = self.mails_to(&viewer.email).await;
        mails.iter().map(|mail| mail.header("Subject")).collect()
    }
}

const NOTICE: &str = "[Acme Inc] a login from a new network";

#[actix_web::test]
async fn login_from_a_new_network_is_notified_once_a_day() {
    let mailed = proxied().await;
    let none = Vec::<String>::new();
    assert_eq!(mailed.log_in_from("198.51.100.1").await, none, "the first login");
    assert_eq!(mailed.log_in_from("198.51.100.9").await, none, "the same network");
    assert_eq!(mailed.log_in_from("192.0.2.1").await, [NOTICE]);
    assert_eq!(mailed.log_in_from("203.0.113.1").await, none, "one a day");
    mailed.world.clock.advance(Duration::days(1));
    assert_eq!(mailed.log_in_from("192.0.2.2").await, none, "seen before");
    assert_eq!(mailed.log_in_from("2001:db8::1").await, [NOTICE]);
    mailed.world.clock.advance(Duration::days(31));
    assert_eq!(
        mailed.log_in_from("2001:db8::1").await,
        [NOTICE],
        "not seen for 30 days"
    );
}

#[actix_web::test]
async fn reuse_of_a_refresh_token_is_notified_once_a_day() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let refresh = |token: &str| post(world, "/api/v1/auth/refresh", json!({"refresh_token": token})).send();
    let mut tokens = vec![acme.viewer.refresh_token.clone()];
    let login = world
        .login("acme", &acme.viewer.email, PASSWORD)
        .await
        .expect(200)
        .json();
    tokens.push(login["refresh_token"].as_str().unwrap().to_owned());
    for token in &tokens {
        refresh(token).await.expect(200);
    }
    world.clock.advance(Duration::seconds(11));
    for (token, notices) in tokens.iter().zip([1, 0]) {
        refresh(token).await.problem(401, "token_revoked");
        let mails = mailed.mails_to(&acme.viewer.email).await;
        assert_eq!(mails.len(), notices);
        assert!(
            mails
                .iter()
                .all(|mail| mail.header("Subject") == "[Acme Inc] a session was ended")
        );
    }
}
