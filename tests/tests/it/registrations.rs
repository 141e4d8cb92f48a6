//! Registrations: what the proof of the address keeps of one, and what waits for it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::sync::Arc;

use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::kernel::{PageRequest, Role, SystemScope};
use tenantry_tenancy::identity::user_import::{self, ImportUser, Imported};
use tenantry_tenancy::operations::job::JobHandler as _;
use tenantry_tenancy::tenant::purge::{Ended, Purge};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{PASSWORD, Person, Reply, World};

use crate::account_passwords::{Mailed, is_unusable, post};
use crate::mfa::{settle, with_factor};
use crate::passkeys::{log_in, register as register_passkey};
use crate::plans::{book, options};

const VERIFY: &str = "/api/v1/auth/verify-email";
const RESET: &str = "/api/v1/auth/reset-password";
const ME: &str = "/api/v1/auth/me";
const NEW: &str = "a staple of batteries";
const SELF: &str = "self@acme.example";

async fn register(world: &World, email: &str) -> Reply {
    let body = json!({"tenant_slug": "acme", "email": email, "full_name": "Self", "password": PASSWORD});
    post(world, "/api/v1/auth/register", body).await
}

/// Registers where no proof is needed, and returns the user in the session.
async fn registered(world: &World, email: &str) -> Person {
    let reply = register(world, email).await.expect(201).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Person {
        email: email.to_owned(),
        id: text(&reply["user"]["id"]).parse().unwrap(),
        access_token: text(&reply["access_token"]),
        refresh_token: text(&reply["refresh_token"]),
    }
}

async fn verify(world: &World, body: Value) -> Reply {
    post(world, VERIFY, body).await
}

async fn set(world: &World, settings: Value) {
    let path = "/api/v1/tenant/settings";
    let patch = world.patch(&world.acme.admin, path, &settings);
    patch.await.expect(200);
}

async fn require_proof(world: &World) {
    set(world, json!({"security.require_verified_email": true})).await;
}

/// How many users with an address there are, removed ones included.
async fn rows(world: &World, email: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM users WHERE email = $1")
        .bind(email)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

async fn system(world: &World) -> Cx {
    let because = SystemScope::because("a test of registrations");
    let scope = world.app.ports.gate.system(because, world.acme.id).await.unwrap();
    Cx::new(Arc::clone(&world.app), scope, Origin::default())
}

async fn actions(world: &World) -> Vec<String> {
    let audit = world.audit(&world.acme).await.into_iter();
    audit.map(|(action, _)| action).collect()
}

// -------------------------------------------------------------------------------------------------------------- proof

/// The owner of the address opens the link of a stranger's registration: nobody but the owner is in then.
#[actix_web::test]
async fn link_alone_keeps_nothing_of_a_registration() {
    let mailed = Mailed::new().await;
    let (world, globex) = (&mailed.world, mailed.world.digest(&mailed.world.globex).await);
    let stranger = registered(world, SELF).await;
    let token = mailed.token_for(SELF).await;
    let (authenticator, _) = register_passkey(world, &stranger).await;
    with_factor(world, &stranger).await;
    let key = format!(
        "INSERT INTO api_keys (tenant_id, id, created_at, name, user_id, service_account, scopes, allowed_networks, secret_hash, \
         expires_at, notified, updated_at, version) SELECT tenant_id, gen_random_uuid(), now(), 'K', id, false, '[]', '[]', \
         sha256('k'), now() + interval '1 year', 'far', now(), 1 FROM users WHERE id = '{}'",
        stranger.id
    );
    world.sql(key).await;
    mailed.mails_to(SELF).await;

    verify(world, json!({"token": token})).await.expect(204);
    world.get(&stranger, ME).await.problem(401, "token_revoked");
    let refresh = json!({"refresh_token": stranger.refresh_token});
    post(world, "/api/v1/auth/refresh", refresh)
        .await
        .problem(401, "token_revoked");
    world
        .login("acme", SELF, PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    log_in(world, &stranger, &authenticator)
        .await
        .problem(401, "invalid_credentials");
    let actions = actions(world).await;
    for action in ["mfa.removed_by_proof", "api_key.revoked", "user.email_verified"] {
        assert!(actions.iter().any(|one| one == action), "{action}: {actions:?}");
    }
    // The owner chooses a password with the link that is mailed at once.
    let mails = mailed.mails_to(SELF).await;
    let link = mails.iter().find(|mail| mail.text().contains("#token=")).unwrap();
    let body = json!({"token": crate::account_passwords::token(link), "new_password": NEW});
    post(world, RESET, body).await.expect(204);
    let login = world.login("acme", SELF, NEW).await.expect(200).json();
    assert_eq!(login["user"]["email_verified"], true);
    assert_eq!(world.digest(&world.globex).await, globex);
}

/// The registrant is told by the password, or by a session of the account.
#[actix_web::test]
async fn registrant_keeps_password_and_session() {
    for way in ["password", "session"] {
        let mailed = Mailed::new().await;
        let world = &mailed.world;
        let registrant = registered(world, SELF).await;
        let token = mailed.token_for(SELF).await;
        let proven = match way {
            "password" => {
                let wrong = json!({"token": token, "password": "wrong horse"});
                verify(world, wrong).await.problem(401, "invalid_credentials");
                verify(world, json!({"token": token, "password": PASSWORD})).await
            }
            _ => world.post(&registrant, VERIFY, &json!({"token": token})).await,
        };
        proven.expect(204);
        let me = world.get(&registrant, ME).await.expect(200).json();
        assert_eq!(me["user"]["email_verified"], true, "{way}");
        world.login("acme", SELF, PASSWORD).await.expect(200);
        is_unusable(verify(world, json!({"token": token, "password": PASSWORD})).await);
    }
}

/// The session of another user, an ended one, and an API key are no sign of the registrant.
#[actix_web::test]
async fn sessions_of_others_keep_no_registration() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let registrant = registered(world, SELF).await;
    let token = mailed.token_for(SELF).await;
    let other = world.post(&world.acme.member, VERIFY, &json!({"token": token}));
    other.await.expect(204);
    world.get(&registrant, ME).await.problem(401, "token_revoked");

    let second = "second@acme.example";
    let registrant = registered(world, second).await;
    let token = mailed.token_for(second).await;
    let out = world.post(&registrant, "/api/v1/auth/logout", &json!({}));
    out.await.expect(204);
    let late = world.post(&registrant, VERIFY, &json!({"token": token}));
    late.await.expect(204);
    world
        .login("acme", second, PASSWORD)
        .await
        .problem(401, "invalid_credentials");
}

/// Of a user whom an admin added the link alone proves the address, and the password stays.
#[actix_web::test]
async fn users_that_admins_add_keep_their_password() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let body = json!({"email": SELF, "full_name": "Added", "password": PASSWORD});
    let added = world.post(&acme.admin, "/api/v1/users", &body).await;
    added.expect(201);
    let token = mailed.token_for(SELF).await;
    verify(world, json!({"token": token})).await.expect(204);
    world.login("acme", SELF, PASSWORD).await.expect(200);
}

/// An admin who corrects the address of a registration does not vouch for who registered.
#[actix_web::test]
async fn moved_registration_is_still_a_strangers() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    // To move an account whose factors a link would remove takes what a reset of them takes.
    with_factor(world, &acme.admin).await;
    settle(world, &acme.admin).await;
    for (name, is_registrant) in [("stranger", false), ("owner", true)] {
        let registrant = registered(world, &format!("{name}-typo@acme.example")).await;
        let (passkey, _) = register_passkey(world, &registrant).await;
        // The links to the mistyped address and the notice go before.
        mailed.mails_to(&registrant.email).await;
        // A passkey is a factor, which is settled after a day.
        world
            .sql("UPDATE passkeys SET created_at = created_at - interval '25 hours'")
            .await;
        let (path, email) = (user_path(&registrant), format!("{name}@acme.example"));
        let moved = world.patch(&acme.admin, &path, &json!({"email": email}));
        moved.await.expect(200);
        let body = json!({"token": mailed.token_for(&email).await});
        let proof = if is_registrant {
            world.post(&registrant, VERIFY, &body).await
        } else {
            verify(world, body).await
        };
        proof.expect(204);
        let (me, password, key) = if is_registrant {
            (200, 200, 200)
        } else {
            (401, 401, 401)
        };
        assert_eq!(world.get(&registrant, ME).await.status, me, "{name}");
        let login = world.login("acme", &email, PASSWORD).await;
        assert_eq!(login.status, password, "{name}: {}", login.text());
        assert_eq!(log_in(world, &registrant, &passkey).await.status, key, "{name}");
    }
}

// ------------------------------------------------------------------------------------------------------------ pending

fn user_path(user: &Person) -> String {
    format!("/api/v1/users/{}", user.id)
}

/// Registers where the address has to be proven first, and returns the user, who has no session.
async fn pending(world: &World, email: &str) -> Person {
    register(world, email).await.expect(202);
    let id: uuid::Uuid = sqlx::query_scalar("SELECT id FROM users WHERE email = $1 AND deleted_at IS NULL")
        .bind(email)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    Person {
        email: email.to_owned(),
        id: id.into(),
        ..world.acme.viewer.clone()
    }
}

async fn set_active(world: &World, user: &Person, is_active: bool) -> Reply {
    let body = json!({"is_active": is_active});
    let change = world.patch(&world.acme.admin, &user_path(user), &body);
    change.await
}

/// An admin made of a registration would be whoever registered, or nobody for ever.
#[actix_web::test]
async fn pending_registration_keeps_role_and_address() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    require_proof(world).await;
    let user = pending(world, SELF).await;
    let role = json!({"name": "reader", "permissions": ["tasks.read"]});
    let role = world.post(&acme.admin, "/api/v1/roles", &role).await;
    role.expect(201);
    let change = async |body: Value| world.patch(&acme.admin, &user_path(&user), &body).await;
    for body in [
        json!({"role": "admin"}),
        json!({"role": "viewer", "full_name": "X"}),
        json!({"custom_role": "reader"}),
        json!({"email": "other@acme.example"}),
        json!({"is_active": false, "role": "admin"}),
    ] {
        change(body).await.problem(409, "registration_pending");
    }
    // What changes nothing is no change.
    let same = json!({"role": "member", "email": SELF, "full_name": "New"});
    assert_eq!(change(same).await.expect(200).json()["full_name"], "New");
    let body = json!({"token": mailed.token_for(SELF).await, "password": PASSWORD});
    verify(world, body).await.expect(204);
    change(json!({"role": "admin"})).await.expect(200);
}

/// One from before registrations kept their role.
#[actix_web::test]
async fn pending_registration_counts_as_no_admin() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    require_proof(world).await;
    let user = pending(world, SELF).await;
    world
        .sql(format!(
            "UPDATE users SET role = 'admin' WHERE id = '{}'",
            user.id
        ))
        .await;
    let admin = &acme.admin;
    let demoted = world.patch(admin, &user_path(admin), &json!({"role": "member"}));
    demoted.await.problem(409, "last_admin");
    let gone = world.delete(admin, &user_path(admin)).await;
    gone.problem(409, "last_admin");
    let all = PageRequest {
        limit: 100,
        after: None,
    };
    let admins = system(world)
        .await
        .read(async |work| work.users().list_acting_admins(all).await)
        .await
        .unwrap();
    let admins: Vec<_> = admins.items.iter().map(|admin| admin.id).collect();
    assert_eq!(admins, [admin.id]);
}

/// A stranger learns nothing of who has an account; its owner gets the way into it.
#[actix_web::test]
async fn registration_with_a_taken_address_is_answered_alike() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    require_proof(world).await;
    let verified = "UPDATE users SET email_verified = true WHERE id =";
    world.sql(format!("{verified} '{}'", acme.member.id)).await;
    let free = register(world, SELF).await.expect(202);
    mailed.token_for(SELF).await;
    for email in [&acme.member.email, &acme.viewer.email] {
        let taken = register(world, email).await;
        assert_eq!((taken.status, &taken.bytes), (free.status, &free.bytes));
        let mails = mailed.mails_to(email).await;
        assert_eq!(mails.len(), 1, "{email}");
        assert_eq!(rows(world, email).await, 1);
    }
    // The password of the account is what it was.
    world
        .login("acme", &acme.member.email, PASSWORD)
        .await
        .expect(200);
    // Without the proof the caller is logged in, so the answers differ.
    set(world, json!({"security.require_verified_email": false})).await;
    register(world, &acme.member.email)
        .await
        .problem(409, "email_taken");
}

/// Otherwise whoever was locked out would register anew, or prove the address.
#[actix_web::test]
async fn deactivated_registration_stays_and_keeps_its_address() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    require_proof(world).await;
    let user = pending(world, SELF).await;
    let token = mailed.token_for(SELF).await;
    set_active(world, &user, false).await.expect(200);
    register(world, SELF).await.expect(202);
    let invited = json!({"email": SELF, "role": "member"});
    let invited = world.post(&acme.admin, "/api/v1/invitations", &invited).await;
    invited.problem(409, "email_taken");
    let added = json!({"email": SELF, "full_name": "Added"});
    let added = world.post(&acme.admin, "/api/v1/users", &added).await;
    added.problem(409, "email_taken");
    is_unusable(verify(world, json!({"token": token, "password": PASSWORD})).await);
    world.clock.advance(Duration::days(8));
    Purge.run(&system(world).await, Ended { days: 30 }).await.unwrap();
    assert_eq!(rows(world, SELF).await, 1);
    let system = system(world).await;
    let waiting = system.read(async |work| work.users().count_unproven().await);
    assert_eq!(waiting.await.unwrap(), 0, "it makes no room for others");
    // An admin who removes it frees the address.
    let verified = format!(
        "UPDATE users SET email_verified = true WHERE id = '{}'",
        acme.admin.id
    );
    world.sql(verified).await;
    let login = world.login("acme", &acme.admin.email, PASSWORD).await;
    let login = login.expect(200).json();
    let gone = world.client.request("DELETE".parse().unwrap(), &user_path(&user));
    let gone = gone.bearer(login["access_token"].as_str().unwrap());
    let gone = gone.await;
    gone.expect(204);
    register(world, SELF).await.expect(202);
}

#[actix_web::test]
async fn reactivated_registration_takes_no_seat() {
    let mailed = full_but_one().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let user = pending(world, SELF).await;
    set_active(world, &user, false).await.expect(200);
    let last = json!({"email": "last@acme.example", "full_name": "Last"});
    let last = world.post(&acme.admin, "/api/v1/users", &last).await;
    last.expect(201);
    set_active(world, &user, true).await.expect(200);
}

/// That a row could not be deleted says nothing about who refers to it.
#[actix_web::test]
async fn failed_deletion_of_a_registration_is_tried_again() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    require_proof(world).await;
    register(world, SELF).await.expect(202);
    let invited = json!({"email": SELF, "role": "member"});
    let invited = world.post(&acme.admin, "/api/v1/invitations", &invited).await;
    invited.expect(201);
    let run = async |sql: &str| {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        sql.execute(&mut world.database.admin().await).await.unwrap();
    };
    run(
        "CREATE FUNCTION refuse_deletion() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$; \
         CREATE TRIGGER refuse_deletion BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION refuse_deletion()",
    )
    .await;
    let purge = async || Purge.run(&system(world).await, Ended { days: 30 }).await;
    assert!(purge().await.is_err());
    run("DROP TRIGGER refuse_deletion ON users; DROP FUNCTION refuse_deletion()").await;
    purge().await.unwrap();
    assert_eq!(rows(world, SELF).await, 0);
}

// -------------------------------------------------------------------------------------------------------------- seats

/// Acme may have four users, of which three are there.
async fn full_but_one() -> Mailed {
    let mailed = Mailed::with(options(&book(4, 100, 1_000))).await;
    require_proof(&mailed.world).await;
    mailed
}

#[actix_web::test]
async fn registration_takes_its_place_with_the_proof() {
    let mailed = full_but_one().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let mut tokens = Vec::new();
    for name in ["one", "two", "three"] {
        let email = format!("{name}@acme.example");
        register(world, &email).await.expect(202);
        tokens.push((email.clone(), mailed.token_for(&email).await));
    }
    // They take no place, and three proofs at once take the one that is left.
    let proofs = tokens.iter().map(|(_, token)| {
        let body = json!({"token": token, "password": PASSWORD});
        verify(world, body)
    });
    let replies = join_all(proofs).await;
    let proven: Vec<_> = (0..3).filter(|n| replies[*n].status == 204).collect();
    assert_eq!(proven.len(), 1);
    for (number, reply) in replies.into_iter().enumerate() {
        if !proven.contains(&number) {
            let refused = reply.problem(403, "plan_limit_reached").json();
            assert_eq!(
                refused.get("allowed"),
                None,
                "a stranger sees no figures of the plan"
            );
        }
    }
    // The link works when there is a place again; a reset of the password takes it as well.
    let free = (0..3).find(|n| !proven.contains(n)).unwrap();
    let path = format!("/api/v1/users/{}", acme.viewer.id);
    world.delete(&acme.admin, &path).await.expect(204);
    let body = json!({"token": tokens[free].1, "password": PASSWORD});
    verify(world, body).await.expect(204);
    world.login("acme", &tokens[free].0, PASSWORD).await.expect(200);
    let last = (0..3).find(|n| !proven.contains(n) && *n != free).unwrap();
    let last = Person {
        email: tokens[last].0.clone(),
        ..acme.viewer.clone()
    };
    let reset = mailed.forgotten(acme, &last).await;
    let body = json!({"token": reset, "new_password": NEW});
    let refused = post(world, RESET, body).await;
    refused.problem(403, "plan_limit_reached");
}

/// Otherwise registrations with made-up addresses would keep those who are invited out.
#[actix_web::test]
async fn registrations_leave_places_for_others() {
    let mailed = full_but_one().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for number in 0..5 {
        let email = format!("n{number}@acme.example");
        register(world, &email).await.expect(202);
    }
    let body = json!({"email": "invited@acme.example", "role": "member"});
    let invited = world.post(&acme.admin, "/api/v1/invitations", &body).await;
    invited.expect(201);
}

/// The domain was allowed at the registration.
#[actix_web::test]
async fn proof_asks_again_whether_the_domain_is_allowed() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    set(world, json!({"security.allowed_email_domains": ["acme.example"]})).await;
    register(world, SELF).await.expect(202);
    let token = mailed.token_for(SELF).await;
    set(
        world,
        json!({"security.allowed_email_domains": ["other.example"]}),
    )
    .await;
    let refused = verify(world, json!({"token": token, "password": PASSWORD})).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["code"], "domain_not_allowed");
    set(world, json!({"security.allowed_email_domains": []})).await;
    let proven = verify(world, json!({"token": token, "password": PASSWORD})).await;
    proven.expect(204);
}

// --------------------------------------------------------------------------------------------------------- superseded

/// Whoever is named by others has the address, and the registration's link opens nothing.
#[actix_web::test]
async fn registration_makes_room_for_users_that_others_name() {
    for way in ["invite", "create", "import", "move", "change"] {
        let mailed = Mailed::new().await;
        let (world, acme) = (&mailed.world, &mailed.world.acme);
        require_proof(world).await;
        register(world, SELF).await.expect(202);
        let token = mailed.token_for(SELF).await;
        match way {
            "invite" => {
                let body = json!({"email": SELF, "role": "member"});
                let invited = world.post(&acme.admin, "/api/v1/invitations", &body);
                invited.await.expect(201);
            }
            "create" => {
                let body = json!({"email": SELF, "full_name": "Added"});
                let added = world.post(&acme.admin, "/api/v1/users", &body);
                added.await.expect(201);
            }
            "import" => {
                let user = ImportUser {
                    email: SELF.into(),
                    full_name: "Moved".into(),
                    custom_role: None,
                    role: Role::Member,
                    password_hash: None,
                    email_verified: true,
                };
                let imported = user_import::import(&system(world).await, user).await;
                assert_eq!(imported.unwrap(), Imported::Created);
            }
            "move" => {
                let path = format!("/api/v1/users/{}", acme.viewer.id);
                let moved = world.patch(&acme.admin, &path, &json!({"email": SELF}));
                moved.await.expect(200);
            }
            _ => {
                let body = json!({"email": SELF, "password": PASSWORD});
                let change = world.post(&acme.viewer, "/api/v1/auth/change-email", &body);
                change.await.expect(202);
                let confirm = json!({"token": mailed.token_for(SELF).await});
                post(world, "/api/v1/auth/confirm-email", confirm)
                    .await
                    .expect(204);
            }
        }
        is_unusable(verify(world, json!({"token": token, "password": PASSWORD})).await);
        let superseded = "user.registration_superseded";
        assert!(actions(world).await.iter().any(|one| one == superseded), "{way}");
    }
}

/// A user who has a session, or whose address is proven, is there already.
#[actix_web::test]
async fn users_make_no_room_for_others() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    registered(world, SELF).await;
    let body = json!({"email": SELF, "role": "member"});
    let invited = world.post(&acme.admin, "/api/v1/invitations", &body).await;
    invited.problem(409, "email_taken");
    let body = json!({"email": SELF, "full_name": "Added"});
    let added = world.post(&acme.admin, "/api/v1/users", &body).await;
    added.problem(409, "email_taken");
}

// -------------------------------------------------------------------------------------------------------------- purge

#[actix_web::test]
async fn registration_without_proof_is_purged_after_seven_days() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let open = registered(world, "open@acme.example").await;
    require_proof(world).await;
    register(world, SELF).await.expect(202);
    register(world, "assigned@acme.example").await.expect(202);
    register(world, "named@acme.example").await.expect(202);
    let named = json!({"email": "named@acme.example", "role": "member"});
    let named = world.post(&world.acme.admin, "/api/v1/invitations", &named);
    named.await.expect(201);
    let globex = world.digest(&world.globex).await;
    // Somebody gave this one a task, so its row stays, as that of every removed user.
    let assign = "UPDATE tasks SET assignee_id = (SELECT id FROM users WHERE email = 'assigned@acme.example') \
                  WHERE id = (SELECT t.id FROM tasks t JOIN users u ON u.tenant_id = t.tenant_id \
                  AND u.email = 'assigned@acme.example' LIMIT 1)";
    let project = json!({"name": "Assigned"});
    let project = world.post(&world.acme.member, "/api/v1/projects", &project).await;
    let path = format!(
        "/api/v1/projects/{}/tasks",
        project.expect(201).json()["id"].as_str().unwrap()
    );
    let task = world.post(&world.acme.member, &path, &json!({"title": "Assigned"}));
    task.await.expect(201);
    world.sql(assign).await;

    let purge = async || Purge.run(&system(world).await, Ended { days: 30 }).await.unwrap();
    world.clock.advance(Duration::days(7) - Duration::seconds(1));
    purge().await;
    assert_eq!(rows(world, SELF).await, 1);
    // One that made room for a user whom others named is deleted at the next turn.
    assert_eq!(rows(world, "named@acme.example").await, 0);
    world.clock.advance(Duration::seconds(2));
    purge().await;
    assert_eq!(rows(world, SELF).await, 0);
    assert_eq!(rows(world, "assigned@acme.example").await, 1);
    // A registration that needed no proof has been in use.
    assert_eq!(rows(world, &open.email).await, 1);
    world
        .login("acme", &open.email, PASSWORD)
        .await
        .problem(403, "email_not_verified");
    let expired = "user.registration_expired";
    let actions = actions(world).await;
    assert_eq!(actions.iter().filter(|one| *one == expired).count(), 2);
    assert_eq!(world.digest(&world.globex).await, globex);
    register(world, SELF).await.expect(202);
    register(world, "assigned@acme.example").await.expect(202);
    // What stays is not looked at again.
    purge().await;
    assert_eq!(rows(world, "assigned@acme.example").await, 2);
}

/// Anybody can register, so nobody fills the table.
#[actix_web::test]
async fn oldest_registration_makes_room_beyond_a_thousand() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    require_proof(world).await;
    let waiting = format!(
        "INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash, created_at, updated_at, \
         version, self_registered) SELECT '{}', gen_random_uuid(), 'w' || g || '@acme.example', 'W', 'member', true, false, 'pending:x', \
         '2020-01-01', timestamptz '2020-01-01' + g * interval '1 second', 1, true FROM generate_series(1, 999) g",
        world.acme.id
    );
    world.sql(waiting).await;
    let live = async |email: &str| {
        let sql = "SELECT count(*) FROM users WHERE email = $1 AND deleted_at IS NULL";
        let count = sqlx::query_scalar::<_, i64>(sql).bind(email);
        count.fetch_one(&mut world.database.admin().await).await.unwrap()
    };
    register(world, "one@acme.example").await.expect(202);
    assert_eq!(live("w1@acme.example").await, 1);
    register(world, "two@acme.example").await.expect(202);
    assert_eq!(live("w1@acme.example").await, 0);
    for email in ["w2@acme.example", "one@acme.example", "two@acme.example"] {
        assert_eq!(live(email).await, 1, "{email}");
    }
}
