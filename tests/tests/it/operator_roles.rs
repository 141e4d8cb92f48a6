//! Roles of operators: which requests each allows, who manages operators, and what needs a recent second factor.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use actix_web::http::Method;
use chrono::Duration;
use futures_util::future::join;
use serde_json::{Value, json};
use tenantry_domain::kernel::{RequestId, SystemScope};
use tenantry_domain::operations::{OperatorPermission, OperatorRole};
use tenantry_tenancy::admin::operator::{self, OperatorError};
use tenantry_tenancy::admin::{operator_login, operator_mfa};
use tenantry_tenancy::{OperatorCx, Origin};
use tenantry_tests::{PASSWORD, Reply, Request, World};

use crate::mfa::{app_of, codes_of};

const OPERATORS: &str = "/api/v1/admin/operators";

fn call(world: &World, token: &str, method: &str, path: &str, body: &Value) -> Request {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = world.client.request(method, path).bearer(token);
    let request = request.header("X-Bypass-Reason", "a test of the roles of operators");
    if body.is_null() {
        request
    } else {
        request.json(body)
    }
}

async fn send(world: &World, token: &str, method: &str, path: &str, body: Value) -> Reply {
    call(world, token, method, path, &body).await
}

async fn login(world: &World, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    world.client.post("/api/v1/admin/login", &body).await
}

fn token_of(reply: &Reply) -> String {
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

/// The id of the operator with a mail address, as an owner sees it.
async fn id_of(world: &World, owner: &str, email: &str) -> String {
    let all = send(world, owner, "GET", OPERATORS, Value::Null)
        .await
        .expect(200)
        .json();
    let all = all["data"].as_array().unwrap();
    let one = all.iter().find(|one| one["email"] == email).unwrap();
    one["id"].as_str().unwrap().to_owned()
}

#[test]
fn operator_permissions_are_printed_into_the_docs() {
    let head = OperatorRole::ALL.map(OperatorRole::as_str).join(" | ");
    let mut table = format!(
        "| Permission | {head} | recent factor | What it allows |\n| --- | --- | --- | --- | --- | --- |\n"
    );
    for permission in OperatorPermission::ALL {
        let cells = OperatorRole::ALL.map(|role| if role.has(permission) { "yes" } else { "" });
        let recent = if permission.needs_recent_factor() {
            "yes"
        } else {
            ""
        };
        table.push_str(&format!(
            "| `{}` | {} | {recent} | {} |\n",
            permission.as_str(),
            cells.join(" | "),
            permission.about()
        ));
    }
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operators.md")).unwrap();
    assert!(docs.contains(&table), "docs/operators.md lacks:\n{table}");
}

/// The operations of operators in the handlers' sources, each with the permission that it needs.
fn permissions_in_sources() -> Vec<(String, OperatorPermission)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/http/src/v1/admin");
    let files = std::fs::read_dir(folder).unwrap();
    let between = |text: &str, start: &str, end: &str| {
        let (_, rest) = text.split_once(start)?;
        Some(rest.split_once(end)?.0.to_owned())
    };
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for handler in text.split("#[utoipa::path(").skip(1) {
            let Some(name) = between(handler, "OperatorCtx<may::", ">") else {
                continue;
            };
            let mut all = OperatorPermission::ALL.into_iter();
            let permission = all.find(|permission| format!("{permission:?}") == name).unwrap();
            let operation = between(handler, "operation_id = \"", "\"").unwrap();
            found.push((operation, permission));
        }
    }
    found
}

/// The OpenAPI document says of each request of operators that a role may not be enough, and of those that need a recent factor, and of
/// no other, that too.
#[actix_web::test]
async fn document_names_what_refuses_operators() {
    let world = World::new().await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let items = document["paths"].as_object().unwrap().values();
    let operations: Vec<_> = items
        .flat_map(|item| item.as_object().unwrap().values())
        .collect();
    let permissions = permissions_in_sources();
    assert!(permissions.len() > 50, "{permissions:?}");
    for (name, permission) in permissions {
        let mut named = operations.iter().filter(|it| it["operationId"] == name.as_str());
        let refused =
            &named.next().unwrap()["responses"]["403"]["content"]["application/problem+json"]["examples"];
        assert!(refused["forbidden"].is_object(), "{name}");
        let documented = refused["mfa_required"].to_string().contains("mfa_required_403");
        assert_eq!(documented, permission.needs_recent_factor(), "{name}");
    }
}

/// Every request of operators with the permission that it needs. The first of each kind is enough.
fn requests(world: &World) -> Vec<(&'static str, String, Value, OperatorPermission)> {
    use OperatorPermission as May;
    let none = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
    let tenant = format!("/api/v1/admin/tenants/{}", world.acme.id);
    let reason = json!({"reason": "a test"});
    let at = |path: &str| format!("/api/v1/admin{path}");
    let of = |what: &str| format!("{tenant}/{what}");
    let operator = |what: &str| format!("{OPERATORS}/{none}{what}");
    vec![
        ("GET", at("/tenants"), Value::Null, May::ReadTenants),
        ("POST", at("/tenants"), json!({}), May::CreateTenants),
        (
            "PATCH",
            tenant.clone(),
            json!({"reason": "a test"}),
            May::ManagePlans,
        ),
        (
            "POST",
            of("plan"),
            json!({"plan": "free", "reason": "a test"}),
            May::ManagePlans,
        ),
        ("POST", of("suspend"), reason.clone(), May::SuspendTenants),
        ("POST", of("resume"), reason.clone(), May::SuspendTenants),
        ("POST", of("restore"), reason.clone(), May::RestoreTenants),
        ("POST", of("purge"), reason.clone(), May::PurgeTenants),
        ("GET", at("/jobs"), Value::Null, May::ReadJobs),
        (
            "POST",
            at(&format!("/jobs/{none}/replay")),
            reason.clone(),
            May::ManageJobs,
        ),
        (
            "POST",
            at(&format!("/jobs/{none}/cancel")),
            reason.clone(),
            May::ManageJobs,
        ),
        ("GET", at("/users"), Value::Null, May::ReadRows),
        ("GET", at("/projects"), Value::Null, May::ReadRows),
        ("GET", at("/tasks"), Value::Null, May::ReadRows),
        ("GET", at("/events"), Value::Null, May::ReadRows),
        ("GET", at("/usage"), Value::Null, May::ReadUsage),
        ("GET", at("/support-access"), Value::Null, May::ReadSupportAccess),
        (
            "POST",
            at(&format!("/support-access/{none}/token")),
            Value::Null,
            May::UseSupportAccess,
        ),
        ("GET", at("/audit-events"), Value::Null, May::ReadAudit),
        ("GET", at("/billing/accounts"), Value::Null, May::ReadBilling),
        ("GET", at("/billing/events"), Value::Null, May::ReadBilling),
        ("GET", at("/flags"), Value::Null, May::ReadFlags),
        ("POST", at("/flags"), json!({}), May::ManageFlags),
        ("POST", at("/segments"), json!({}), May::ManageFlags),
        ("GET", at("/operators"), Value::Null, May::ReadOperators),
        ("GET", operator(""), Value::Null, May::ReadOperators),
        ("POST", at("/operators"), json!({}), May::ManageOperators),
        ("PATCH", operator(""), json!({}), May::ManageOperators),
        ("DELETE", operator(""), Value::Null, May::ManageOperators),
        (
            "POST",
            operator("/end-sessions"),
            Value::Null,
            May::ManageOperators,
        ),
        (
            "POST",
            operator("/reset-password"),
            Value::Null,
            May::ManageOperators,
        ),
        ("POST", operator("/reset-mfa"), Value::Null, May::ManageOperators),
        (
            "POST",
            at("/mfa/recovery-codes"),
            json!({"code": "123456"}),
            May::ManageOwnAccount,
        ),
        (
            "POST",
            at("/change-password"),
            json!({"current_password": "wrong horse", "new_password": "a staple of batteries"}),
            May::ChangeOwnPassword,
        ),
        ("POST", of("delete"), reason, May::DeleteTenants),
    ]
}

#[actix_web::test]
async fn each_role_gets_what_the_table_says() {
    let world = World::new().await;
    for role in OperatorRole::ALL {
        let email = format!("{}@platform.example", role.as_str());
        let token = world.operator_as(&email, role).await;
        for (method, path, body, permission) in requests(&world) {
            let reply = send(&world, &token, method, &path, body).await;
            let refused = reply.status == 403 && reply.json()["code"] == "forbidden";
            assert_eq!(
                refused,
                !role.has(permission),
                "{role:?} {method} {path}: {}",
                reply.text()
            );
        }
    }
    let events = world.operator_events().await;
    let refused: Vec<_> = events
        .iter()
        .filter(|(action, _)| action == "operator.refused")
        .collect();
    assert!(
        refused
            .iter()
            .any(|(_, row)| row["details"]["permission"] == "operators.manage")
    );
    assert!(refused.iter().all(|(_, row)| row["operator_id"].is_string()));
}

#[actix_web::test]
async fn owner_creates_changes_and_deactivates_operators() {
    let world = World::new().await;
    let owner = world.operator("olga@platform.example").await;
    let body = json!({"email": "Sam@Platform.example", "full_name": "Sam", "role": "support"});
    let made = send(&world, &owner, "POST", OPERATORS, body.clone())
        .await
        .expect(201);
    let id = made.json()["operator"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made.header("location"),
        Some(format!("{OPERATORS}/{id}").as_str())
    );
    assert_eq!(made.json()["operator"]["role"], "support");
    let password = made.json()["password"].as_str().unwrap().to_owned();
    let taken = send(&world, &owner, "POST", OPERATORS, body).await;
    let taken = taken.problem(409, "email_taken").json();
    assert_eq!(taken["detail"], "Another operator has this address.");
    let sam = token_of(&login(&world, "sam@platform.example", &password).await.expect(200));
    let suspend = format!("/api/v1/admin/tenants/{}/suspend", world.acme.id);
    let reason = json!({"reason": "a test"});
    send(&world, &sam, "POST", &suspend, reason.clone())
        .await
        .problem(403, "forbidden");

    // A changed role counts for tokens that exist.
    let path = format!("{OPERATORS}/{id}");
    let stale = call(&world, &owner, "PATCH", &path, &json!({"role": "billing"})).header("If-Match", "\"7\"");
    stale.await.problem(412, "stale_version");
    let changed = send(&world, &owner, "PATCH", &path, json!({"role": "billing"}))
        .await
        .expect(200);
    assert_eq!(
        (changed.header("etag"), &changed.json()["role"]),
        (Some("\"2\""), &json!("billing"))
    );
    send(&world, &sam, "POST", &suspend, reason).await.expect(200);
    send(&world, &owner, "PATCH", &path, json!({"role": "root"}))
        .await
        .problem(422, "validation_failed");
    send(&world, &owner, "PATCH", &path, json!({"email": "x@x.example"}))
        .await
        .problem(422, "unknown_field");

    let ended = send(
        &world,
        &owner,
        "POST",
        &format!("{path}/end-sessions"),
        Value::Null,
    )
    .await;
    ended.expect(204);
    let tenants = "/api/v1/admin/tenants";
    send(&world, &sam, "GET", tenants, Value::Null)
        .await
        .problem(401, "token_revoked");
    let reset = send(
        &world,
        &owner,
        "POST",
        &format!("{path}/reset-password"),
        Value::Null,
    )
    .await;
    let password = reset.expect(200).json()["password"].as_str().unwrap().to_owned();
    let sam = token_of(&login(&world, "sam@platform.example", &password).await.expect(200));
    send(&world, &owner, "DELETE", &path, Value::Null)
        .await
        .expect(204);
    send(&world, &sam, "GET", tenants, Value::Null)
        .await
        .problem(401, "token_revoked");
    login(&world, "sam@platform.example", &password)
        .await
        .problem(401, "invalid_credentials");
    assert_eq!(
        send(&world, &owner, "GET", &path, Value::Null)
            .await
            .expect(200)
            .json()["is_active"],
        false
    );
    let events: Vec<_> = world.operator_events().await;
    for action in [
        "created",
        "updated",
        "sessions_ended",
        "password_reset",
        "deactivated",
    ] {
        let action = format!("operator.{action}");
        assert!(
            events
                .iter()
                .any(|(one, row)| *one == action && row["operator_id"].is_string()),
            "{action}"
        );
    }
    assert!(events.iter().all(|(_, row)| !row.to_string().contains(&password)));
}

/// The password is in the first answer only, since it is stored nowhere.
#[actix_web::test]
async fn repeated_creation_of_an_operator_is_one() {
    let world = World::new().await;
    let owner = world.operator("olga@platform.example").await;
    let body = json!({"email": "sam@platform.example", "full_name": "Sam", "role": "support"});
    let keyed =
        |body: &Value| call(&world, &owner, "POST", OPERATORS, body).header("Idempotency-Key", "key-4711");
    let first = keyed(&body).await.expect(201);
    let again = keyed(&body).await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(
        (&again.json()["operator"], &again.json()["password"]),
        (&first.json()["operator"], &Value::Null)
    );
    let other = json!({"email": "otto@platform.example", "full_name": "Otto", "role": "support"});
    keyed(&other).await.problem(422, "idempotency_key_reused");
}

#[actix_web::test]
async fn last_owner_stays() {
    let world = World::new().await;
    let olga = world.operator("olga@platform.example").await;
    world
        .operator_as("sam@platform.example", OperatorRole::Support)
        .await;
    let own = format!(
        "{OPERATORS}/{}",
        id_of(&world, &olga, "olga@platform.example").await
    );
    for body in [json!({"role": "billing"}), json!({"is_active": false})] {
        send(&world, &olga, "PATCH", &own, body)
            .await
            .problem(409, "conflict");
    }
    send(&world, &olga, "DELETE", &own, Value::Null)
        .await
        .problem(409, "conflict");
    send(&world, &olga, "PATCH", &own, json!({"full_name": "Olga O."}))
        .await
        .expect(200);
}

/// Each may remove the other, and the second is no owner any more when it is their turn.
#[actix_web::test]
async fn owners_who_remove_each_other_leave_one() {
    let world = World::new().await;
    let olga = world.operator("olga@platform.example").await;
    let otto = world.operator("otto@platform.example").await;
    let path_of_olga = format!(
        "{OPERATORS}/{}",
        id_of(&world, &olga, "olga@platform.example").await
    );
    let path_of_otto = format!(
        "{OPERATORS}/{}",
        id_of(&world, &olga, "otto@platform.example").await
    );
    let lower = json!({"role": "support"});
    let (one, other) = join(
        send(&world, &olga, "PATCH", &path_of_otto, lower.clone()),
        send(&world, &otto, "PATCH", &path_of_olga, lower),
    )
    .await;
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403], "{} {}", one.text(), other.text());
    let owners = "SELECT count(*) FROM operators WHERE role = 'owner' AND is_active";
    let left: i64 = sqlx::query_scalar(owners)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(left, 1);
}

#[actix_web::test]
async fn destructive_requests_need_a_recent_factor() {
    let world = World::new().await;
    let owner = world.operator("olga@platform.example").await;
    let enroll = json!({"password": PASSWORD});
    let enrolled = send(&world, &owner, "POST", "/api/v1/admin/mfa/enroll", enroll)
        .await
        .expect(200);
    let mut app = app_of(&enrolled.json());
    let code = json!({"code": app.code_at(&world, 0)});
    let confirmed = send(&world, &owner, "POST", "/api/v1/admin/mfa/confirm", code)
        .await
        .expect(200);
    app.set_recovery_codes(codes_of(&confirmed));
    let body =
        json!({"email": "olga@platform.example", "password": PASSWORD, "totp_code": app.next_code(&world)});
    let token = token_of(&world.client.post("/api/v1/admin/login", &body).await.expect(200));
    let delete = format!("/api/v1/admin/tenants/{}/delete", world.acme.id);
    let reason = json!({"reason": "a test"});
    world.clock.advance(Duration::minutes(11));
    let needed = send(&world, &token, "POST", &delete, reason.clone())
        .await
        .problem(403, "mfa_required");
    assert_eq!(needed.json()["max_age"], 600);
    send(&world, &token, "GET", "/api/v1/admin/users", Value::Null)
        .await
        .problem(403, "mfa_required");
    // What is not destructive goes on.
    send(&world, &token, "GET", "/api/v1/admin/tenants", Value::Null)
        .await
        .expect(200);
    let step_up = "/api/v1/admin/mfa/step-up";
    send(&world, &token, "POST", step_up, json!({"code": "000000"}))
        .await
        .problem(401, "invalid_credentials");
    let code = json!({"code": app.next_code(&world)});
    let stepped = send(&world, &token, "POST", step_up, code.clone())
        .await
        .expect(200);
    send(&world, &token, "POST", step_up, code)
        .await
        .problem(401, "invalid_credentials");
    // A code extends no login.
    assert!(
        stepped.json()["expires_in"].as_i64().unwrap() <= 240,
        "{}",
        stepped.text()
    );
    send(&world, &token, "POST", &delete, reason.clone())
        .await
        .problem(403, "mfa_required");
    send(&world, &token_of(&stepped), "POST", &delete, reason)
        .await
        .expect(202);
    // With `rotate`, no other token of the operator goes on to work.
    let code = json!({"code": app.next_code(&world), "rotate": true});
    let rotated = send(&world, &token, "POST", step_up, code).await.expect(200);
    for ended in [&token, &token_of(&stepped)] {
        send(&world, ended, "GET", "/api/v1/admin/tenants", Value::Null)
            .await
            .problem(401, "token_revoked");
    }
    send(
        &world,
        &token_of(&rotated),
        "GET",
        "/api/v1/admin/operators",
        Value::Null,
    )
    .await
    .expect(200);
}

/// A request that was admitted before the operator's sessions ended, and whose body comes later, gets no new token.
#[actix_web::test]
async fn ended_session_gets_no_token_by_a_late_step_up() {
    let world = World::new().await;
    let olga = world.operator("olga@platform.example").await;
    let enroll = json!({"password": PASSWORD});
    let enrolled = send(&world, &olga, "POST", "/api/v1/admin/mfa/enroll", enroll).await;
    let mut app = app_of(&enrolled.expect(200).json());
    let code = json!({"code": app.next_code(&world)});
    let confirmed = send(&world, &olga, "POST", "/api/v1/admin/mfa/confirm", code).await;
    app.set_recovery_codes(codes_of(&confirmed.expect(200)));

    let request = RequestId::next(world.app.ports.ids.as_ref());
    let scope = world
        .app
        .ports
        .operator_gate
        .bearer(&olga, request)
        .await
        .unwrap();
    let id = scope.operator().unwrap();
    let late = OperatorCx::new(world.app.clone(), scope, Origin::default());
    assert!(operator_mfa::own_email(&late).await.is_ok());
    let because = SystemScope::because("a test");
    let command = OperatorCx::command(&world.app, because);
    operator::end_sessions(&command, id).await.unwrap();
    let code = app.next_code(&world);
    let refused = operator_login::step_up(&late, &code, false).await.unwrap_err();
    assert!(matches!(refused, OperatorError::Refused(_)), "{refused:?}");
    assert!(operator_mfa::own_email(&late).await.is_err());
}

#[actix_web::test]
async fn factor_of_another_operator_is_removed_and_not_ones_own() {
    let world = World::new().await;
    let olga = world.operator("olga@platform.example").await;
    let sam = world
        .operator_as("sam@platform.example", OperatorRole::Support)
        .await;
    let enroll = json!({"password": PASSWORD});
    let enrolled = send(&world, &sam, "POST", "/api/v1/admin/mfa/enroll", enroll)
        .await
        .expect(200);
    let code = json!({"code": app_of(&enrolled.json()).code_at(&world, 0)});
    send(&world, &sam, "POST", "/api/v1/admin/mfa/confirm", code)
        .await
        .expect(200);
    login(&world, "sam@platform.example", PASSWORD)
        .await
        .problem(401, "mfa_required");
    let of = |id: String| format!("{OPERATORS}/{id}/reset-mfa");
    let own = of(id_of(&world, &olga, "olga@platform.example").await);
    send(&world, &olga, "POST", &own, Value::Null)
        .await
        .problem(409, "conflict");
    let of_sam = of(id_of(&world, &olga, "sam@platform.example").await);
    send(&world, &olga, "POST", &of_sam, Value::Null)
        .await
        .expect(204);
    send(&world, &olga, "POST", &of_sam, Value::Null)
        .await
        .problem(409, "conflict");
    login(&world, "sam@platform.example", PASSWORD).await.expect(200);
}
