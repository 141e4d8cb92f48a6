//! Step-up: which requests need a recent second factor, and who may bind or remove one.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::operations::{AccountRates, Rate};
use tenantry_domain::tenant::Refused;
use tenantry_tenancy::identity::mfa::{self, MfaError};
use tenantry_tests::{Options, PASSWORD, Person, Reply, Request, World};

use crate::auth::overtaken;
use crate::mfa::{App, settle, with_factor};
use crate::source_files::{ROOT, rust_files};

const ENROLL: &str = "/api/v1/auth/mfa/enroll";
const STEP_UP: &str = "/api/v1/auth/mfa/step-up";
const SETTINGS: &str = "/api/v1/tenant/settings";
const ME: &str = "/api/v1/auth/me";
const ENDPOINTS: &str = "/api/v1/webhooks/endpoints";

/// Gives the factor again, and returns the user with the fresh access token.
async fn stepped_up(world: &World, who: &Person, app: &App) -> Person {
    let body = json!({"code": app.next_code(world)});
    let fresh = world.post(who, STEP_UP, &body).await.expect(200).json();
    Person {
        access_token: fresh["access_token"].as_str().unwrap().to_owned(),
        ..who.clone()
    }
}

async fn new_user(world: &World, name: &str, role: &str) -> String {
    let body = json!({"email": format!("{name}@acme.example"), "full_name": name, "role": role});
    let added = world.post(&world.acme.admin, "/api/v1/users", &body).await;
    added.expect(201).json()["id"].as_str().unwrap().to_owned()
}

async fn new_key(world: &World) -> String {
    let body = json!({"name": "A key", "scopes": ["tasks.read"]});
    let made = world.post(&world.acme.admin, "/api/v1/api-keys", &body).await;
    made.expect(201).json()["id"].as_str().unwrap().to_owned()
}

async fn new_invitation(world: &World, email: &str, role: &str) -> String {
    let body = json!({"email": email, "role": role});
    let made = world.post(&world.acme.admin, "/api/v1/invitations", &body).await;
    made.expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// Every request that needs a recent factor: its operation in the document, and how it is sent.
async fn sensitive(world: &World) -> Vec<(&'static str, &'static str, String, Value)> {
    let (user, gone) = (
        new_user(world, "one", "member").await,
        new_user(world, "two", "member").await,
    );
    let (other, key) = (new_user(world, "three", "admin").await, new_key(world).await);
    let invited = new_invitation(world, "seven@acme.example", "admin").await;
    for name in ["one", "two"] {
        let body = json!({"name": name, "permissions": ["tasks.read"]});
        let made = world.post(&world.acme.admin, "/api/v1/roles", &body).await;
        made.expect(201);
    }
    let erased = new_user(world, "ten", "member").await;
    let body = json!({"url": "https://hooks.example.com/one"});
    let endpoint = world.post(&world.acme.admin, ENDPOINTS, &body).await;
    let endpoint = endpoint.expect(201).json()["id"].as_str().unwrap().to_owned();
    let endpoint = format!("{ENDPOINTS}/{endpoint}");
    let patch = |path: &str, body| ("PATCH", path.to_owned(), body);
    let post = |path: &str, body| ("POST", path.to_owned(), body);
    let at_user = |id: &str| format!("/api/v1/users/{id}");
    let admin =
        |name: &str| json!({"email": format!("{name}@acme.example"), "full_name": name, "role": "admin"});
    let requests = [
        ("create_user", post("/api/v1/users", admin("four"))),
        ("update_user", patch(&at_user(&user), json!({"role": "admin"}))),
        ("update_user", patch(&at_user(&user), json!({"is_active": false}))),
        (
            "update_user",
            patch(&at_user(&user), json!({"email": "moved@acme.example"})),
        ),
        ("delete_user", ("DELETE", at_user(&gone), json!(null))),
        (
            "send_reset",
            post(&format!("{}/send-reset", at_user(&other)), json!({})),
        ),
        (
            "end_user_sessions",
            post(&format!("{}/end-sessions", at_user(&other)), json!({})),
        ),
        (
            "reset_mfa",
            post(&format!("{}/reset-mfa", at_user(&other)), json!({})),
        ),
        (
            "export_user",
            post(&format!("{}/exports", at_user(&other)), json!({})),
        ),
        (
            "erase_user",
            post(
                &format!("{}/erase", at_user(&erased)),
                json!({"confirm_email": "ten@acme.example"}),
            ),
        ),
        (
            "create_invitation",
            post(
                "/api/v1/invitations",
                json!({"email": "five@acme.example", "role": "admin"}),
            ),
        ),
        (
            "resend_invitation",
            post(&format!("/api/v1/invitations/{invited}/resend"), json!({})),
        ),
        (
            "change_email",
            post(
                "/api/v1/auth/change-email",
                json!({"email": "eight@acme.example", "password": PASSWORD}),
            ),
        ),
        (
            "create_api_key",
            post(
                "/api/v1/api-keys",
                json!({"name": "Two", "scopes": ["tasks.read"]}),
            ),
        ),
        (
            "update_api_key",
            patch(&format!("/api/v1/api-keys/{key}"), json!({"name": "Three"})),
        ),
        (
            "rotate_api_key",
            post(
                &format!("/api/v1/api-keys/{key}/rotate"),
                json!({"overlap_seconds": 0}),
            ),
        ),
        (
            "create_webhook_endpoint",
            post(ENDPOINTS, json!({"url": "https://hooks.example.com/two"})),
        ),
        (
            "update_webhook_endpoint",
            patch(&endpoint, json!({"url": "https://hooks.example.com/three"})),
        ),
        (
            "rotate_webhook_secret",
            post(
                &format!("{endpoint}/rotate-secret"),
                json!({"grace_period_seconds": 0}),
            ),
        ),
        (
            "open_webhook_portal",
            post("/api/v1/webhooks/portal", json!({"expires_in": 60})),
        ),
        (
            "update_user",
            patch(&at_user(&user), json!({"custom_role": "one"})),
        ),
        (
            "create_role",
            post(
                "/api/v1/roles",
                json!({"name": "three", "permissions": ["tasks.read"]}),
            ),
        ),
        (
            "update_role",
            patch("/api/v1/roles/one", json!({"permissions": ["projects.read"]})),
        ),
        (
            "delete_role",
            ("DELETE", "/api/v1/roles/two".to_owned(), json!(null)),
        ),
        (
            "update_settings",
            patch(SETTINGS, json!({"security.session_idle_minutes": 45})),
        ),
        (
            "roll_back_settings",
            post(&format!("{SETTINGS}/rollback"), json!({"version": 1})),
        ),
        ("export_tenant", post("/api/v1/tenant/exports", json!({}))),
        (
            "update_security_policy",
            patch("/api/v1/security/policy", json!({"session_max_days": 14})),
        ),
        (
            "update_security_rules",
            patch(
                "/api/v1/security/rules",
                json!({"mass_reading": {"threshold": 7}}),
            ),
        ),
        (
            "update_tenant",
            patch(
                "/api/v1/tenant",
                json!({"settings": {"self_registration": false}}),
            ),
        ),
        (
            "change_password",
            post(
                "/api/v1/auth/change-password",
                json!({"current_password": PASSWORD, "new_password": "a staple of batteries"}),
            ),
        ),
    ];
    let flat = |(operation, (method, path, body))| (operation, method, path, body);
    requests.into_iter().map(flat).collect()
}

fn request(world: &World, who: &Person, method: &str, path: &str, body: &Value) -> Request {
    match method {
        "PATCH" => world.patch(who, path, body),
        "DELETE" if body.is_null() => world.delete(who, path),
        "DELETE" => world.delete(who, path).json(body),
        _ => world.post(who, path, body),
    }
}

/// The operations of users that answer 403 `mfa_required` according to the document: each request, as the pages write it, with its
/// name. Those of operators are in `operator_roles`.
async fn documented(world: &World) -> Vec<(String, String)> {
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let mut found = Vec::new();
    let of_users = |path: &str| !path.starts_with("/api/v1/admin/");
    let paths = document["paths"].as_object().unwrap().iter();
    for (path, item) in paths.filter(|(path, _)| of_users(path)) {
        for (method, operation) in item.as_object().unwrap() {
            let refused = operation["responses"]["403"].to_string();
            if refused.contains("mfa_required_403") {
                let request = format!("{} {}", method.to_uppercase(), path.trim_start_matches("/api/v1"));
                found.push((request, operation["operationId"].as_str().unwrap().to_owned()));
            }
        }
    }
    found
}

/// The table of docs/mfa.md has each request that needs a recent factor, and no other.
#[actix_web::test]
async fn page_lists_each_request_that_needs_a_factor() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mfa.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## Give the factor again\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split('|').next().unwrap());
    let listed: BTreeSet<_> = cells
        .flat_map(|cell| cell.split("`, `"))
        .map(|request| request.trim_matches(['`', ' ']).to_owned())
        .collect();
    let world = World::new().await;
    let documented = documented(&world).await.into_iter().map(|(request, _)| request);
    assert_eq!(listed, documented.collect());
}

/// Each of them is refused without a recent factor and changes nothing, and is done with one.
#[actix_web::test]
async fn sensitive_requests_need_a_recent_factor() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    world
        .patch(admin, SETTINGS, &json!({"security.session_idle_minutes": 30}))
        .await
        .expect(200);
    world
        .patch(admin, SETTINGS, &json!({"security.session_idle_minutes": 40}))
        .await
        .expect(200);
    let mut sensitive = sensitive(&world).await;
    // The last one: the tenant is gone afterwards.
    let confirmed = json!({"confirm_slug": "acme"});
    sensitive.push(("delete_tenant", "DELETE", "/api/v1/tenant".into(), confirmed));
    // Of a user who has a passkey these ask for it, see `passkeys::passkey_alone_is_a_factor_for_sensitive_requests`; those that
    // finish what was begun, see `recovery`.
    let others = [
        // Of a user whose mailbox is proven: `workspaces::stolen_access_token_opens_no_other_tenant`.
        "switch_tenant",
        // Of an access that an operator has asked for: `support_access`.
        "approve_support_access",
        // Of an archive that a job has written: `exports::archives_are_given_out_for_a_recent_factor`.
        "download_tenant_export",
        // Where the tenant asks for it: `sessions::ending_other_sessions_takes_a_factor_where_the_tenant_asks`.
        "end_session",
        "logout_all",
        "begin_passkey_registration",
        "confirm_mfa",
        "enroll_mfa",
        "finish_passkey_registration",
        "remove_passkey",
    ];
    let names: BTreeSet<_> = sensitive
        .iter()
        .map(|(operation, ..)| *operation)
        .chain(others)
        .map(str::to_owned)
        .collect();
    let documented = documented(&world).await.into_iter().map(|(_, name)| name);
    assert_eq!(names, documented.collect());

    let app = with_factor(&world, admin).await;
    settle(&world, admin).await;
    world.clock.advance(Duration::seconds(600));
    let before = world.digest(&world.acme).await;
    for (operation, method, path, body) in &sensitive {
        let refused = request(&world, admin, method, path, body).await;
        let refused = refused.problem(403, "mfa_required").json();
        assert_eq!(refused["max_age"], 600, "{operation}");
        assert_eq!(refused.get("methods"), None, "{operation}");
    }
    assert_eq!(world.digest(&world.acme).await, before);
    let admin = &stepped_up(&world, admin, &app).await;
    for (operation, method, path, body) in &sensitive {
        let done = request(&world, admin, method, path, body).await;
        assert!(done.status < 300, "{operation}: {} {}", done.status, done.text());
    }
}

/// An admin who loses the role, or the session, while a request waits finishes nothing: a slow body could give everything back.
#[actix_web::test]
async fn lost_admins_finish_nothing_that_they_began() {
    let world = World::new().await;
    let admin = &world.second_admin().await;
    for minutes in [30, 40] {
        let values = json!({"security.session_idle_minutes": minutes});
        world.patch(admin, SETTINGS, &values).await.expect(200);
    }
    let mut requests = sensitive(&world).await;
    requests.retain(|(operation, ..)| !operation.starts_with("change_"));
    let (key, invited) = (
        new_key(&world).await,
        new_invitation(&world, "nine@acme.example", "member").await,
    );
    let rename = format!("/api/v1/users/{}", world.acme.member.id);
    requests.extend([
        (
            "revoke_api_key",
            "DELETE",
            format!("/api/v1/api-keys/{key}"),
            json!(null),
        ),
        (
            "revoke_invitation",
            "DELETE",
            format!("/api/v1/invitations/{invited}"),
            json!(null),
        ),
        (
            "update_tenant",
            "PATCH",
            "/api/v1/tenant".into(),
            json!({"name": "X"}),
        ),
        ("update_user", "PATCH", rename, json!({"full_name": "X"})),
        (
            "update_settings",
            "PATCH",
            SETTINGS.into(),
            json!({"notifications.digest_hour": 3}),
        ),
    ]);
    with_factor(&world, admin).await;
    settle(&world, admin).await;
    let before = world.digest(&world.acme).await;
    let lock = format!("SELECT 1 FROM tenants WHERE id = '{}' FOR UPDATE", world.acme.id);
    for (change, undo) in [
        (
            "UPDATE users SET role = 'member' WHERE id",
            "UPDATE users SET role = 'admin' WHERE id",
        ),
        (
            "UPDATE refresh_sessions SET revoked_at = now() WHERE user_id",
            "UPDATE refresh_sessions SET revoked_at = NULL WHERE user_id",
        ),
    ] {
        let change = format!("{lock}; {change} = '{}'", admin.id);
        for (operation, method, path, body) in &requests {
            let sent = request(&world, admin, method, path, body).send();
            let refused = overtaken(&world, &change, 1, sent).await;
            assert_eq!(refused.status, 403, "{operation}, {change}: {}", refused.text());
            refused.problem(403, "forbidden");
            world.sql(format!("{undo} = '{}'", admin.id)).await;
            world.outlive_the_cache();
        }
    }
    assert_eq!(world.digest(&world.acme).await, before);
}

/// With `rotate`, a thief who has tokens of the session has none any more. The session goes on under another id, no longer than before.
#[actix_web::test]
async fn rotating_step_up_ends_all_earlier_tokens_of_the_session() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let login = world
        .login("acme", &admin.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let other = with_tokens(admin, &login);
    let app = with_factor(&world, admin).await;
    let refresh = async |token: &str| {
        let body = json!({"refresh_token": token});
        world.client.post("/api/v1/auth/refresh", &body).await
    };
    let later = refresh(&admin.refresh_token).await.expect(200).json();
    let later = with_tokens(admin, &later);
    let before = sessions_of(&world, &later).await;
    world.clock.advance(Duration::minutes(5));
    let rotate = |code: String| json!({"code": code, "rotate": true});
    let wrong = world.post(&later, STEP_UP, &rotate("000000".into())).await;
    wrong.problem(401, "invalid_credentials");
    let body = json!({"code": app.next_code(&world), "rotate": "yes"});
    let unread = world.post(&later, STEP_UP, &body).await;
    unread.problem(422, "validation_failed");
    let plain = json!({"code": app.next_code(&world)});
    let plain = world.post(&later, STEP_UP, &plain).await.expect(200).json();
    assert_eq!(plain.get("refresh_token"), None);
    world.get(&later, ME).await.expect(200);

    let rotated = world.post(&later, STEP_UP, &rotate(app.next_code(&world))).await;
    let fresh = with_tokens(admin, &rotated.expect(200).json());
    let stepped = with_access_token(admin, &plain);
    for ended in [admin, &later, &stepped] {
        world.get(ended, ME).await.problem(401, "token_revoked");
    }
    for ended in [&later.refresh_token, &admin.refresh_token] {
        refresh(ended).await.problem(401, "token_revoked");
    }
    world.get(&other, ME).await.expect(200);
    let after = sessions_of(&world, &fresh).await;
    assert_eq!(after.len(), before.len());
    let present = |sessions: &[Value]| {
        sessions
            .iter()
            .find(|one| one["current"] == true)
            .cloned()
            .unwrap()
    };
    assert_ne!(present(&after)["id"], present(&before)["id"]);
    assert_eq!(present(&after)["created_at"], present(&before)["created_at"]);

    // The factor is in the session, as that of a login is.
    let next = refresh(&fresh.refresh_token).await.expect(200).json();
    let idle = json!({"security.session_idle_minutes": 45});
    let changed = world.patch(&with_tokens(admin, &next), SETTINGS, &idle).await;
    changed.expect(200);
    let audit = world.audit(&world.acme).await;
    let ended = audit
        .iter()
        .filter(|(action, entry)| action == "session.ended" && entry["after"]["reason"] == "replaced");
    assert_eq!(ended.count(), 1);
}

#[actix_web::test]
async fn two_rotations_at_once_leave_one_session() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let rotations = [0, 1].map(|index| {
        let body = json!({"code": app.recovery_code(index), "rotate": true});
        world.post(member, STEP_UP, &body)
    });
    let [first, second] = rotations;
    let (first, second) = futures_util::future::join(first.send(), second.send()).await;
    let (done, refused) = match first.status {
        200 => (first, second),
        _ => (second, first),
    };
    assert!([401, 403].contains(&refused.status), "{}", refused.text());
    let fresh = with_tokens(member, &done.expect(200).json());
    assert_eq!(sessions_of(&world, &fresh).await.len(), 1);
    world.get(member, ME).await.problem(401, "token_revoked");
}

fn with_access_token(who: &Person, reply: &Value) -> Person {
    Person {
        access_token: reply["access_token"].as_str().unwrap().to_owned(),
        ..who.clone()
    }
}

fn with_tokens(who: &Person, reply: &Value) -> Person {
    Person {
        refresh_token: reply["refresh_token"].as_str().unwrap().to_owned(),
        ..with_access_token(who, reply)
    }
}

async fn sessions_of(world: &World, who: &Person) -> Vec<Value> {
    let page = world.get(who, "/api/v1/auth/sessions").await.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

/// A scope may be a minute old, and its session over by then.
#[actix_web::test]
async fn ended_session_takes_no_factor() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let cx = world.cx(member).await;
    let ended = format!(
        "UPDATE refresh_sessions SET revoked_at = now() WHERE user_id = '{}'",
        member.id
    );
    world.sql(ended).await;
    world.clock.advance(Duration::seconds(30));
    let given = mfa::step_up(&cx, &app.next_code(&world), false).await;
    assert!(
        matches!(given, Err(MfaError::Refused(Refused::Forbidden))),
        "{given:?}"
    );
}

#[actix_web::test]
async fn harmless_requests_need_no_recent_factor() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    with_factor(&world, admin).await;
    world.clock.advance(Duration::seconds(600));
    new_user(&world, "six", "member").await;
    let invited = json!({"email": "invited@acme.example", "role": "member"});
    let invited = world.post(admin, "/api/v1/invitations", &invited).await;
    let invited = invited.expect(201).json()["id"].clone();
    world.clock.advance(Duration::seconds(60));
    let resend = format!("/api/v1/invitations/{}/resend", invited.as_str().unwrap());
    world.post(admin, &resend, &json!({})).await.expect(202);
    let own = format!("/api/v1/users/{}", admin.id);
    world
        .patch(admin, &own, &json!({"full_name": "Ada"}))
        .await
        .expect(200);
    let member = format!("/api/v1/users/{}", world.acme.member.id);
    world
        .patch(admin, &member, &json!({"full_name": "Bea"}))
        .await
        .expect(200);
    let end = format!("{member}/end-sessions");
    world.post(admin, &end, &json!({})).await.expect(202);
    world
        .patch(admin, "/api/v1/tenant", &json!({"name": "Acme"}))
        .await
        .expect(200);
}

/// A stolen password of an admin without a factor that is a day old must not be enough to take the factors of all others away.
#[actix_web::test]
async fn admin_without_a_settled_factor_resets_none() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    with_factor(&world, member).await;
    let path = format!("/api/v1/users/{}/reset-mfa", member.id);
    let refused = world.post(admin, &path, &json!({})).await;
    let refused = refused.problem(403, "mfa_required").json();
    assert_eq!(
        (&refused["methods"], &refused["max_age"]),
        (&json!(["enroll"]), &json!(600))
    );
    world.get(member, ME).await.expect(200);
    world
        .login("acme", &member.email, PASSWORD)
        .await
        .problem(401, "mfa_required");
    // Nor is it enough to enroll a factor with that password first: its owner is notified, and has a day to act.
    let app = with_factor(&world, admin).await;
    let reset = async |who: &Person| world.post(who, &path, &json!({})).await;
    let refused = reset(admin).await.problem(403, "forbidden");
    assert!(refused.text().contains("24 hours"), "{}", refused.text());
    world.clock.advance(Duration::minutes(24 * 60 - 1));
    let log_in = async || {
        let body = json!({"tenant_slug": "acme", "email": admin.email, "password": PASSWORD,
            "totp_code": app.code_at(&world, 0)});
        let login = world.client.post("/api/v1/auth/login", &body).await;
        Person {
            access_token: login.expect(200).json()["access_token"]
                .as_str()
                .unwrap()
                .to_owned(),
            ..admin.clone()
        }
    };
    let admin = log_in().await;
    reset(&admin).await.problem(403, "forbidden");
    world
        .login("acme", &member.email, PASSWORD)
        .await
        .problem(401, "mfa_required");
    world.clock.advance(Duration::minutes(1));
    reset(&admin).await.expect(204);
    world.login("acme", &member.email, PASSWORD).await.expect(200);
}

/// What decides is the role and the values that the change finds, not those that were seen before it.
#[actix_web::test]
async fn factor_is_asked_for_by_what_the_change_finds() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    for minutes in [30, 40] {
        let values = json!({"security.session_idle_minutes": minutes});
        world.patch(admin, SETTINGS, &values).await.expect(200);
    }
    with_factor(&world, admin).await;
    world.clock.advance(Duration::seconds(600));
    // The values of version 1 are those in force when the rollback begins, and differ once it has the row.
    let former = "UPDATE tenant_settings SET values = values || '{\"security.session_idle_minutes\": 30}'";
    let of_acme = format!("WHERE tenant_id = '{}'", world.acme.id);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("{former} {of_acme}")))
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    let change = format!(
        "SELECT 1 FROM tenants WHERE id = '{}' FOR UPDATE; UPDATE tenant_settings SET values = \
         values || '{{\"security.session_idle_minutes\": 55}}' {of_acme}",
        world.acme.id
    );
    let back = json!({"version": 1});
    let back = world.post(admin, &format!("{SETTINGS}/rollback"), &back).send();
    overtaken(&world, &change, 1, back)
        .await
        .problem(403, "mfa_required");
    // A member who becomes an admin meanwhile.
    let change = format!("UPDATE users SET role = 'admin' WHERE id = '{}'", member.id);
    let path = format!("/api/v1/users/{}/end-sessions", member.id);
    let end = world.post(admin, &path, &json!({})).send();
    overtaken(&world, &change, 1, end)
        .await
        .problem(403, "mfa_required");
}

fn needs_password(reply: Reply) {
    let errors = reply.problem(422, "validation_failed").json()["errors"].clone();
    assert_eq!(
        (&errors[0]["pointer"], &errors[0]["code"]),
        (&json!("/password"), &json!("required"))
    );
}

#[actix_web::test]
async fn stolen_session_cannot_bind_a_factor() {
    let rate = Rate::new(1, 2).unwrap();
    let account_rates = AccountRates {
        network: rate,
        anywhere: rate,
    };
    let world = World::with(Options {
        account_rates,
        ..Options::default()
    })
    .await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    // Just after the login the password was given already. A request without a body is the same as an empty object.
    world
        .client
        .request("POST".parse().unwrap(), ENROLL)
        .bearer(&member.access_token)
        .await
        .expect(200);
    world.clock.advance(Duration::seconds(599));
    world.post(member, ENROLL, &json!({})).await.expect(200);
    world.clock.advance(Duration::seconds(1));
    needs_password(world.post(member, ENROLL, &json!({})).await);
    needs_password(world.post(member, ENROLL, &json!({"password": null})).await);
    let with = |password: &str| world.post(member, ENROLL, &json!({"password": password}));
    with(PASSWORD).await.expect(200);
    for wrong in ["", "wrong horse"] {
        with(wrong).await.problem(401, "invalid_credentials");
    }
    // Guesses count as failed logins, those of this user alone.
    with(PASSWORD).await.problem(429, "rate_limited");
    world
        .post(viewer, ENROLL, &json!({"password": PASSWORD}))
        .await
        .expect(200);
    let unknown = world.post(viewer, ENROLL, &json!({"code": "1"}));
    unknown.await.problem(422, "unknown_field");
}

/// The person with the tokens that the refresh token leads to.
async fn refreshed(world: &World, who: &Person) -> Person {
    let body = json!({"refresh_token": who.refresh_token});
    let next = world.client.post("/api/v1/auth/refresh", &body).await;
    let next = next.expect(200).json();
    let text = |name: &str| next[name].as_str().unwrap().to_owned();
    Person {
        access_token: text("access_token"),
        refresh_token: text("refresh_token"),
        ..who.clone()
    }
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Which factor a user adds first.
#[derive(Debug, Clone, Copy)]
enum First {
    App,
    Passkey,
}

/// A thief has the refresh token of an older session. Its owner adds the first factor, an app or a passkey, which counts in the session
/// and shows in no token that is refreshed. Each request that asks for the password of a session without a recent login still asks.
#[actix_web::test]
async fn refreshed_token_after_a_first_factor_is_no_presence() {
    // `workspaces::refreshed_token_after_a_first_factor_opens_no_other_tenant` has the last of them.
    let asking = [
        ("/api/v1/auth/passkeys/registration", json!({})),
        (ENROLL, json!({})),
        ("/api/v1/auth/mfa/recovery-codes", json!({"code": "000000"})),
    ];
    for first in [First::App, First::Passkey] {
        let world = World::new().await;
        let (member, bystander) = (&world.acme.member, &world.globex.member);
        world.clock.advance(Duration::seconds(599));
        match first {
            First::App => {
                with_factor(&world, member).await;
            }
            First::Passkey => {
                crate::passkeys::register(&world, member).await;
            }
        }
        world.clock.advance(Duration::seconds(2));
        let thief = &refreshed(&world, member).await;
        let shown = claims(&thief.access_token);
        assert_eq!(
            (&shown["mfa_at"], &shown["amr"]),
            (&Value::Null, &Value::Null),
            "{first:?}"
        );
        for (path, body) in &asking {
            needs_password(world.post(thief, path, body).await);
        }
        // What needed no password before the factor does not become harder for its owner at once.
        let own = json!({"full_name": "Mona"});
        let path = format!("/api/v1/users/{}", member.id);
        world.patch(thief, &path, &own).await.expect(200);
        let with_password = json!({"password": PASSWORD});
        world
            .post(thief, "/api/v1/auth/passkeys/registration", &with_password)
            .await
            .expect(200);
        world.get(bystander, ME).await.expect(200);
    }
}

/// The factor of a login is of every token of its session, so its refreshed tokens are the presence of their holder, for as long as
/// the login is recent.
#[actix_web::test]
async fn factor_of_a_login_shows_in_refreshed_tokens() {
    let world = World::new().await;
    let member = &world.acme.member;
    let app = with_factor(&world, member).await;
    let body = json!({"tenant_slug": "acme", "email": member.email, "password": PASSWORD, "totp_code": app.next_code(&world)});
    let login = world.client.post("/api/v1/auth/login", &body).await;
    let login = login.expect(200).json();
    let who = Person {
        access_token: login["access_token"].as_str().unwrap().to_owned(),
        refresh_token: login["refresh_token"].as_str().unwrap().to_owned(),
        ..member.clone()
    };
    let next = refreshed(&world, &who).await;
    assert_eq!(
        claims(&next.access_token)["mfa_at"],
        claims(&who.access_token)["mfa_at"]
    );
    assert!(claims(&next.access_token)["mfa_at"].is_i64());
    let path = "/api/v1/auth/passkeys/registration";
    world.post(&next, path, &json!({})).await.expect(200);
    world.clock.advance(Duration::seconds(600));
    let later = refreshed(&world, &next).await;
    let refused = world.post(&later, path, &json!({})).await;
    refused.problem(403, "mfa_required");
}

/// A new place that asks for presence belongs into the tests of refreshed tokens.
#[test]
fn places_that_ask_for_presence_are_known() {
    let root = Path::new(ROOT).join("crates/tenancy/src");
    let asks = ["account::require_presence(", "require_password(cx, work"];
    let mut found: Vec<_> = rust_files([root.clone()])
        .into_iter()
        .flat_map(|(path, text)| {
            let file = path.strip_prefix(&root).unwrap().display().to_string();
            let count = asks.map(|ask| text.matches(ask).count()).iter().sum::<usize>();
            (count > 0).then_some((file, count))
        })
        .collect();
    found.sort();
    let expected = [
        // `enroll` and `recovery-codes`.
        ("identity/mfa.rs", 2),
        ("identity/passkey.rs", 1),
        ("identity/workspace_switch.rs", 1),
    ];
    assert_eq!(found, expected.map(|(file, count)| (file.to_owned(), count)));
}

/// A thief has an access token of an older session. Its owner adds the first factor, which is in the session then.
#[actix_web::test]
async fn first_factor_of_the_owner_is_no_presence_of_a_thief() {
    let world = World::new().await;
    let member = &world.acme.member;
    world.clock.advance(Duration::seconds(599));
    with_factor(&world, member).await;
    world.clock.advance(Duration::seconds(2));
    let register = async |body: Value| {
        world
            .post(member, "/api/v1/auth/passkeys/registration", &body)
            .await
    };
    needs_password(register(json!({})).await);
    register(json!({"password": PASSWORD})).await.expect(200);
}

#[actix_web::test]
async fn promoted_admin_without_a_required_factor_logs_in_again() {
    let world = World::new().await;
    let (admin, member, viewer) = (&world.acme.admin, &world.acme.member, &world.acme.viewer);
    with_factor(&world, viewer).await;
    let promote = async |who: &Person, role: &str| {
        let path = format!("/api/v1/users/{}", who.id);
        world
            .patch(admin, &path, &json!({"role": role}))
            .await
            .expect(200);
    };
    // Where no factor is required, a session goes on with its new role.
    promote(member, "admin").await;
    world.get(member, ME).await.expect(200);
    promote(member, "member").await;
    world
        .patch(admin, SETTINGS, &json!({"security.mfa_required": "admins"}))
        .await
        .expect(200);
    promote(member, "viewer").await;
    world.get(member, ME).await.expect(200);
    promote(member, "admin").await;
    world.get(member, ME).await.problem(401, "token_revoked");
    let refresh = json!({"refresh_token": member.refresh_token});
    let refresh = world.client.post("/api/v1/auth/refresh", &refresh).await;
    refresh.problem(401, "token_revoked");
    let login = world
        .login("acme", &member.email, PASSWORD)
        .await
        .problem(401, "mfa_required");
    assert_eq!(login.json()["methods"], json!(["enroll"]));
    // Who has a factor keeps the session.
    promote(viewer, "admin").await;
    world.get(viewer, ME).await.expect(200);
}

/// A thief with another token of the session gains nothing by the code that its owner gives: neither the access token of before nor what
/// the refresh token leads to says that a factor was given.
#[actix_web::test]
async fn step_up_counts_for_its_own_token_only() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let app = with_factor(&world, admin).await;
    world.clock.advance(Duration::seconds(600));
    let change = async |token: &str, minutes: i64| {
        let body = json!({"security.session_idle_minutes": minutes});
        world.client.patch(SETTINGS, &body).bearer(token).await
    };
    let before = world.digest(&world.globex).await;
    let fresh = stepped_up(&world, admin, &app).await;
    let refused = change(&admin.access_token, 30).await;
    assert_eq!(refused.problem(403, "mfa_required").json()["max_age"], 600);
    // Nor does it take the place of the password.
    let begin = json!({});
    let begun = world.post(admin, "/api/v1/auth/passkeys/registration", &begin);
    begun.await.problem(403, "mfa_required");
    let body = json!({"refresh_token": admin.refresh_token});
    let refreshed = world.client.post("/api/v1/auth/refresh", &body).await;
    let refreshed = refreshed.expect(200).json();
    let refreshed = refreshed["access_token"].as_str().unwrap();
    change(refreshed, 31).await.problem(403, "mfa_required");
    // The session goes on with all of its tokens, and that of the step-up alone counts.
    world.get(admin, ME).await.expect(200);
    change(&fresh.access_token, 32).await.expect(200);
    assert_eq!(world.digest(&world.globex).await, before);
}

/// A further factor, which takes a recent one, is none of the session's other tokens.
#[actix_web::test]
async fn further_factor_counts_for_no_other_token() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let app = with_factor(&world, admin).await;
    world.clock.advance(Duration::seconds(600));
    let fresh = stepped_up(&world, admin, &app).await;
    crate::passkeys::register(&world, &fresh).await;
    let body = json!({"security.session_idle_minutes": 30});
    let other = world.patch(admin, SETTINGS, &body).await;
    other.problem(403, "mfa_required");
    world.patch(&fresh, SETTINGS, &body).await.expect(200);
}
