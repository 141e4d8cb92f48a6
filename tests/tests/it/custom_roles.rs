//! Custom roles: what they leave of a user's role, who may give them, and what becomes of them.

use serde_json::{Value, json};
use tenantry_domain::kernel::Role;
use tenantry_tenancy::identity::user::UserError;
use tenantry_tenancy::identity::user_import::{self, ImportUser};
use tenantry_tests::{Options, PASSWORD, Person, Reply, TenantWorld, World, operator_cx};

const ROLES: &str = "/api/v1/roles";
const TASKS: &str = "/api/v1/tasks";
const USERS: &str = "/api/v1/users";

async fn create(world: &World, tenant: &TenantWorld, name: &str, permissions: &[&str]) -> Value {
    let body = json!({"name": name, "permissions": permissions});
    let made = world.post(&tenant.admin, ROLES, &body).await;
    made.expect(201).json()
}

/// Gives a custom role to a user, or takes it away with `null`.
async fn give(world: &World, who: &Person, custom_role: Value) -> Reply {
    let path = format!("{USERS}/{}", who.id);
    let body = json!({"custom_role": custom_role});
    world.patch(&world.acme.admin, &path, &body).await
}

/// Whether somebody may list tasks, and create one.
async fn may(world: &World, who: &Person) -> (u16, u16) {
    let read = world.get(who, TASKS).await.status;
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    let write = world.post(who, &path, &json!({"title": "New"})).await.status;
    (read, write)
}

#[actix_web::test]
async fn roles_are_created_read_changed_and_deleted() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let body =
        json!({"name": "support", "description": "Answers.", "permissions": ["tasks.write", "tasks.read"]});
    let made = world.post(admin, ROLES, &body).await.expect(201);
    assert_eq!(made.header("location"), Some("/api/v1/roles/support"));
    let made = made.json();
    assert_eq!(made["permissions"], json!(["tasks.read", "tasks.write"]));
    assert_eq!(made["base_role"], "member");
    assert_eq!(
        (&made["description"], &made["version"]),
        (&json!("Answers."), &json!(1))
    );
    let path = format!("{ROLES}/support");
    let read = world.get(&world.acme.viewer, &path).await.expect(200);
    assert_eq!(read.json(), made);
    let list = world.get(&world.acme.viewer, ROLES).await.expect(200);
    assert_eq!(list.json()["data"], json!([made]));
    let again = world.post(admin, ROLES, &body).await;
    again.problem(409, "conflict");
    let change = json!({"permissions": ["tasks.read"]});
    let stale = world.patch(admin, &path, &change).header("If-Match", "\"7\"");
    stale.await.problem(412, "stale_version");
    let changed = world.patch(admin, &path, &change).await.expect(200).json();
    assert_eq!(
        (&changed["permissions"], &changed["version"]),
        (&json!(["tasks.read"]), &json!(2))
    );
    world.delete(admin, &path).await.expect(204);
    world.get(admin, &path).await.problem(404, "not_found");
    let audited = world.audit(&world.acme).await;
    for action in ["role.created", "role.updated", "role.deleted"] {
        assert!(audited.iter().any(|(done, _)| done == action), "{action}");
    }
}

#[actix_web::test]
async fn roles_that_do_not_hold_are_refused() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    for (body, pointer) in [
        (json!({"name": "admin", "permissions": ["tasks.read"]}), "/name"),
        (json!({"name": "No Name", "permissions": ["tasks.read"]}), "/name"),
        (json!({"name": "a", "permissions": []}), "/permissions"),
        (
            json!({"name": "a", "permissions": ["tasks.fly"]}),
            "/permissions/0",
        ),
        // What decides who may do what is for people with all of their role.
        (
            json!({"name": "a", "permissions": ["tasks.read", "users.manage"]}),
            "/permissions/1",
        ),
        (
            json!({"name": "a", "permissions": ["tasks.read"], "description": "x".repeat(201)}),
            "/description",
        ),
        (
            json!({"name": "a", "permissions": ["tasks.read"], "description": "a\nb"}),
            "/description",
        ),
        (
            json!({"name": "a", "permissions": ["tasks.read", "tasks.write"], "base_role": "viewer"}),
            "/permissions/1",
        ),
        (
            json!({"name": "a", "permissions": vec!["tasks.fly"; 10_000]}),
            "/permissions",
        ),
    ] {
        let refused = world.post(admin, ROLES, &body).await;
        let refused = refused.problem(422, "validation_failed").json();
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}");
    }
    let nul = json!({"name": "a", "permissions": ["tasks.read"], "description": "a\u{0}b"});
    let refused = world.post(admin, ROLES, &nul).await;
    assert!([400, 422].contains(&refused.status), "{}", refused.status);
    let body = json!({"name": "a", "permissions": ["tasks.read"]});
    for who in [&world.acme.member, &world.acme.viewer] {
        world.post(who, ROLES, &body).await.problem(403, "forbidden");
    }
    let many = "INSERT INTO custom_roles (tenant_id, id, created_at, name, description, base_role, permissions, updated_at, version) \
        SELECT t.id, gen_random_uuid(), now(), 'r' || g, '', 'member', '[]', now(), 1 FROM tenants t, generate_series(1, 50) g \
        WHERE t.slug = 'acme'";
    world.sql(many).await;
    let refused = world.post(admin, ROLES, &body).await;
    let refused = refused.problem(409, "conflict").json();
    assert!(refused["detail"].as_str().unwrap().contains("50"), "{refused}");
}

#[actix_web::test]
async fn a_custom_role_narrows_a_role_with_the_next_request() {
    let world = World::new().await;
    let member = &world.acme.member;
    create(&world, &world.acme, "reader", &["tasks.read", "projects.restore"]).await;
    assert_eq!(may(&world, member).await, (200, 201));
    let given = give(&world, member, json!("reader")).await.expect(200).json();
    assert_eq!(
        (&given["role"], &given["custom_role"]),
        (&json!("member"), &json!("reader"))
    );
    assert_eq!(may(&world, member).await, (200, 403));
    // It widens nothing: a member cannot restore projects.
    let restore = format!("/api/v1/projects/{}/restore", world.acme.project);
    world
        .post(member, &restore, &json!({}))
        .await
        .problem(403, "forbidden");
    // What every user has stays.
    let me = world.get(member, "/api/v1/auth/me").await.expect(200).json();
    assert_eq!(me["user"]["custom_role"].as_str(), Some("reader"));
    let own = format!("{USERS}/{}", member.id);
    world
        .patch(member, &own, &json!({"full_name": "Mia"}))
        .await
        .expect(200);
    world.get(member, "/api/v1/auth/sessions").await.expect(200);
    let users = async |name: &str| {
        let path = format!("{USERS}?custom_role={name}");
        let page = world.get(&world.acme.admin, &path).await.expect(200).json();
        page["data"].as_array().unwrap().len()
    };
    assert_eq!((users("reader").await, users("other").await), (1, 0));
    // No user widens their own role.
    world
        .patch(member, &own, &json!({"custom_role": null}))
        .await
        .problem(403, "forbidden");
    let change = json!({"permissions": ["tasks.write"]});
    let path = format!("{ROLES}/reader");
    world.patch(&world.acme.admin, &path, &change).await.expect(200);
    assert_eq!(may(&world, member).await, (403, 201));
    give(&world, member, Value::Null).await.expect(200);
    assert_eq!(may(&world, member).await, (200, 201));
}

/// The tokens and keys that there are already are held to it too.
#[actix_web::test]
async fn api_keys_of_a_narrowed_admin_are_narrowed() {
    let world = World::new().await;
    let second = world.second_admin().await;
    let body = json!({"name": "CI", "scopes": ["tasks.read", "projects.read"]});
    let key = world.post(&second, "/api/v1/api-keys", &body).await;
    let key = key.expect(201).json()["key"].as_str().unwrap().to_owned();
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    give(&world, &second, json!("reader")).await.expect(200);
    world.client.get(TASKS).bearer(&key).await.expect(200);
    world
        .client
        .get("/api/v1/projects")
        .bearer(&key)
        .await
        .problem(403, "forbidden");
    let change = json!({"permissions": ["projects.read"]});
    let path = format!("{ROLES}/reader");
    world.patch(&world.acme.admin, &path, &change).await.expect(200);
    world
        .client
        .get(TASKS)
        .bearer(&key)
        .await
        .problem(403, "forbidden");
    world
        .client
        .get("/api/v1/projects")
        .bearer(&key)
        .await
        .expect(200);
}

#[actix_web::test]
async fn an_admin_with_a_custom_role_is_no_admin() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let permissions = world.app.ports.permissions.all();
    let scopes = permissions.iter().filter(|permission| permission.is_scope());
    let scopes: Vec<_> = scopes.map(|permission| permission.as_str()).collect();
    create(&world, &world.acme, "everything", &scopes).await;
    // The last admin stays one.
    give(&world, admin, json!("everything"))
        .await
        .problem(409, "last_admin");
    let second = world.second_admin().await;
    give(&world, &second, json!("everything")).await.expect(200);
    for (path, body) in [
        (USERS, json!({"email": "x@acme.example", "full_name": "X"})),
        (ROLES, json!({"name": "x", "permissions": ["tasks.read"]})),
        ("/api/v1/invitations", json!({"email": "x@acme.example"})),
        ("/api/v1/api-keys", json!({"name": "x", "scopes": ["tasks.read"]})),
    ] {
        world.post(&second, path, &body).await.problem(403, "forbidden");
    }
    let own = format!("{USERS}/{}", second.id);
    for body in [json!({"custom_role": null}), json!({"role": "admin"})] {
        world.patch(&second, &own, &body).await.problem(403, "forbidden");
    }
    // Not what admins may beyond their permissions: the project is another user's.
    let path = format!("/api/v1/projects/{}", world.acme.project);
    world.delete(&second, &path).await.problem(403, "forbidden");
    // Nor does it count as another admin.
    let demoted = world.patch(
        admin,
        &format!("{USERS}/{}", admin.id),
        &json!({"role": "member"}),
    );
    demoted.await.problem(409, "last_admin");
}

#[actix_web::test]
async fn a_role_in_use_is_not_deleted() {
    let world = World::new().await;
    let path = format!("{ROLES}/support");
    create(&world, &world.acme, "support", &["tasks.read"]).await;
    give(&world, &world.acme.member, json!("support"))
        .await
        .expect(200);
    let body = json!({"email": "new@acme.example", "custom_role": "support"});
    let invited = world.post(&world.acme.admin, "/api/v1/invitations", &body).await;
    let invited = invited.expect(201).json();
    assert_eq!(invited["custom_role"], "support");
    let refused = world.delete(&world.acme.admin, &path).await;
    let refused = refused.problem(409, "conflict").json();
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("1 user and 1 invitation"), "{detail}");
    // A removed user has none any more.
    let member = format!("{USERS}/{}", world.acme.member.id);
    world.delete(&world.acme.admin, &member).await.expect(204);
    let invitation = format!("/api/v1/invitations/{}", invited["id"].as_str().unwrap());
    world
        .delete(&world.acme.admin, &path)
        .await
        .problem(409, "conflict");
    world.delete(&world.acme.admin, &invitation).await.expect(204);
    world.delete(&world.acme.admin, &path).await.expect(204);
}

#[actix_web::test]
async fn accepted_invitation_gives_its_custom_role() {
    let world = World::new().await;
    create(&world, &world.acme, "support", &["tasks.read"]).await;
    let cx = world.cx(&world.acme.admin).await;
    let issued = tenantry_tenancy::identity::invitation::create(
        &cx,
        "new@acme.example",
        Role::Member,
        Some("support"),
    );
    let invitation = issued.await.unwrap();
    // Its token is in the mail only, so it gets one here.
    let token = world
        .app
        .ports
        .invitation_tokens
        .issue(world.acme.id, invitation.id);
    let hash: String = token.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    world
        .sql(&format!(
            "UPDATE invitations SET token_hash = decode('{hash}', 'hex')"
        ))
        .await;
    let body = json!({"token": token.token, "full_name": "New", "password": "a long enough passphrase"});
    let accepted = world.client.post("/api/v1/invitations/accept", &body).await;
    let accepted = accepted.expect(200).json();
    assert_eq!(accepted["user"]["custom_role"], "support");
    let new = Person {
        access_token: accepted["access_token"].as_str().unwrap().to_owned(),
        ..world.acme.member.clone()
    };
    assert_eq!(may(&world, &new).await, (200, 403));
}

#[actix_web::test]
async fn without_the_plan_feature_roles_stay_and_none_is_given() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    give(&world, &world.acme.member, json!("reader"))
        .await
        .expect(200);
    let invited = json!({"email": "sent@acme.example", "role": "member", "custom_role": "reader"});
    let invited = world.post(admin, "/api/v1/invitations", &invited).await;
    let invited = invited.expect(201).json()["id"].as_str().unwrap().to_owned();
    world
        .sql("UPDATE tenants SET plan = 'free', plan_version = 1 WHERE slug = 'acme'")
        .await;
    world.outlive_the_cache();
    assert_eq!(may(&world, &world.acme.member).await, (200, 403));
    // To send it again is to give the role again.
    let resend = format!("/api/v1/invitations/{invited}/resend");
    let refused = world.post(admin, &resend, &json!({})).await;
    refused.problem(403, "plan_feature_required");
    let gone = world.delete(admin, &format!("/api/v1/invitations/{invited}"));
    gone.await.expect(204);
    let body = json!({"name": "other", "permissions": ["tasks.read"]});
    let refused = world.post(admin, ROLES, &body).await;
    refused.problem(403, "plan_feature_required");
    give(&world, &world.acme.viewer, json!("reader"))
        .await
        .problem(403, "plan_feature_required");
    for (path, body) in [
        (
            USERS,
            json!({"email": "x@acme.example", "full_name": "X", "custom_role": "reader"}),
        ),
        (
            "/api/v1/invitations",
            json!({"email": "x@acme.example", "custom_role": "reader"}),
        ),
    ] {
        world
            .post(admin, path, &body)
            .await
            .problem(403, "plan_feature_required");
    }
    // What there is can be narrowed, taken away and deleted.
    let path = format!("{ROLES}/reader");
    let change = json!({"permissions": ["projects.read"]});
    world.patch(admin, &path, &change).await.expect(200);
    assert_eq!(may(&world, &world.acme.member).await, (403, 403));
    give(&world, &world.acme.member, Value::Null).await.expect(200);
    world.delete(admin, &path).await.expect(204);
}

#[actix_web::test]
async fn roles_of_another_tenant_are_unknown() {
    let world = World::new().await;
    create(&world, &world.globex, "theirs", &["tasks.read"]).await;
    let path = format!("{ROLES}/theirs");
    let admin = &world.acme.admin;
    world.get(admin, &path).await.problem(404, "not_found");
    let change = world.patch(admin, &path, &json!({"permissions": ["tasks.write"]}));
    change.await.problem(404, "not_found");
    world.delete(admin, &path).await.problem(404, "not_found");
    let unknown = |reply: Reply| {
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["code"], "unknown_role");
        assert_eq!(problem["errors"][0]["pointer"], "/custom_role");
    };
    for name in ["theirs", "admin", "", "'; DROP TABLE users"] {
        unknown(give(&world, &world.acme.member, json!(name)).await);
        let body = json!({"email": "x@acme.example", "full_name": "X", "custom_role": name});
        unknown(world.post(admin, USERS, &body).await);
        let body = json!({"email": "x@acme.example", "custom_role": name});
        unknown(world.post(admin, "/api/v1/invitations", &body).await);
    }
    give(&world, &world.acme.member, json!("a\u{0}b"))
        .await
        .problem(422, "validation_failed");
    // Each tenant has its own of that name.
    create(&world, &world.acme, "theirs", &["projects.read"]).await;
    give(&world, &world.acme.member, json!("theirs"))
        .await
        .expect(200);
    assert_eq!(may(&world, &world.acme.member).await, (403, 403));
    world.delete(&world.globex.admin, &path).await.expect(204);
}

#[actix_web::test]
async fn a_role_is_given_or_deleted_and_never_both() {
    let world = World::new().await;
    let path = format!("{ROLES}/racer");
    for _ in 0..5 {
        create(&world, &world.acme, "racer", &["tasks.read"]).await;
        let delete = async { world.delete(&world.acme.admin, &path).await.status };
        let give = async { give(&world, &world.acme.member, json!("racer")).await.status };
        let statuses = futures_util::join!(delete, give);
        assert!([(204, 422), (409, 200)].contains(&statuses), "{statuses:?}");
        if statuses.1 == 200 {
            self::give(&world, &world.acme.member, Value::Null)
                .await
                .expect(200);
            world.delete(&world.acme.admin, &path).await.expect(204);
        }
    }
}

#[actix_web::test]
async fn users_are_imported_with_a_custom_role() {
    let world = World::new().await;
    create(&world, &world.acme, "support", &["tasks.read"]).await;
    let cx = user_import::begin(&operator_cx(&world.app), world.acme.id, true)
        .await
        .unwrap();
    let user = |name: &str, custom_role: &str| ImportUser {
        email: format!("{name}@moved.example"),
        full_name: name.to_owned(),
        role: Role::Member,
        custom_role: Some(custom_role.to_owned()),
        password_hash: None,
        email_verified: true,
    };
    user_import::import(&cx, user("one", "support")).await.unwrap();
    let unknown = user_import::import(&cx, user("two", "boss")).await;
    let Err(UserError::Invalid(invalid)) = unknown else {
        panic!("{unknown:?}")
    };
    assert_eq!(invalid.0[0].pointer, "/custom_role");
    let users = world.get(&world.acme.admin, USERS).await.expect(200).json();
    let users = users["data"].as_array().unwrap().clone();
    let moved = users
        .iter()
        .find(|user| user["email"] == "one@moved.example")
        .unwrap();
    assert_eq!(moved["custom_role"], "support");
}

/// A change is heard of by another server within the time that memberships are cached for.
#[actix_web::test]
async fn a_narrowed_role_is_narrowed_on_other_servers() {
    let world = World::new().await;
    let other = world.other_instance(&Options::default()).await;
    let member = &world.acme.member;
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    other.get(TASKS).bearer(&member.access_token).await.expect(200);
    give(&world, member, json!("reader")).await.expect(200);
    let change = json!({"permissions": ["projects.read"]});
    let path = format!("{ROLES}/reader");
    world.patch(&world.acme.admin, &path, &change).await.expect(200);
    world.outlive_the_cache();
    other
        .get(TASKS)
        .bearer(&member.access_token)
        .await
        .problem(403, "forbidden");
}

/// The base role is a ceiling too: an admin with a custom role of viewers is a viewer.
#[actix_web::test]
async fn base_role_bounds_the_role_of_the_user() {
    let world = World::new().await;
    let second = world.second_admin().await;
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    give(&world, &second, json!("reader")).await.expect(200);
    // As if a permission had become one of members since.
    world
        .sql("UPDATE custom_roles SET permissions = '[\"tasks.read\", \"tasks.write\"]'")
        .await;
    world.outlive_the_cache();
    assert_eq!(may(&world, &second).await, (200, 403));
    let path = format!("{ROLES}/reader");
    let lower =
        |base_role: &str| json!({"base_role": base_role, "permissions": ["tasks.read", "tasks.write"]});
    let admin = &world.acme.admin;
    let refused = world.patch(admin, &path, &lower("viewer")).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["code"], "not_in_base_role");
    world.patch(admin, &path, &lower("member")).await.expect(200);
    assert_eq!(may(&world, &second).await, (200, 201));
}

/// Names of a service that is not part of the program stay in a role and grant nothing.
#[actix_web::test]
async fn permissions_of_unlinked_services_stay_and_grant_nothing() {
    let world = World::new().await;
    let (admin, path) = (&world.acme.admin, format!("{ROLES}/clerk"));
    create(&world, &world.acme, "clerk", &["tasks.read"]).await;
    give(&world, &world.acme.member, json!("clerk")).await.expect(200);
    world
        .sql("UPDATE custom_roles SET permissions = '[\"notes.read\", \"tasks.read\"]'")
        .await;
    world.outlive_the_cache();
    assert_eq!(may(&world, &world.acme.member).await, (200, 403));
    let described = world.patch(admin, &path, &json!({"description": "Reads."})).await;
    assert_eq!(
        described.expect(200).json()["permissions"],
        json!(["notes.read", "tasks.read"])
    );
    let kept = json!({"permissions": ["notes.read", "projects.read"]});
    world.patch(admin, &path, &kept).await.expect(200);
    assert_eq!(may(&world, &world.acme.member).await, (403, 403));
    let another = json!({"permissions": ["notes.read", "notes.write"]});
    let refused = world.patch(admin, &path, &another).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["pointer"], "/permissions/1");
    // Nor can another role be given them.
    let body = json!({"name": "other", "permissions": ["notes.read"]});
    world
        .post(admin, ROLES, &body)
        .await
        .problem(422, "validation_failed");
}

#[actix_web::test]
async fn two_admins_who_narrow_each_other_leave_one() {
    let world = World::new().await;
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    let second = world.second_admin().await;
    let body = json!({"custom_role": "reader"});
    let narrow = async |by: &Person, whom: &Person| {
        let path = format!("{USERS}/{}", whom.id);
        world.patch(by, &path, &body).await.status
    };
    let statuses = futures_util::join!(
        narrow(&world.acme.admin, &second),
        narrow(&second, &world.acme.admin)
    );
    // The second to come is refused as the last admin, or as no admin any more.
    assert!(
        [(200, 409), (200, 403), (409, 200), (403, 200)].contains(&statuses),
        "{statuses:?}"
    );
}

/// A scope is of the time when the request began, and its body may come much later.
#[actix_web::test]
async fn request_begun_before_narrowing_changes_nothing() {
    let world = World::new().await;
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    let second = world.second_admin().await;
    let change = format!(
        "SELECT 1 FROM tenants WHERE id = '{}' FOR UPDATE; UPDATE users SET custom_role = 'reader' WHERE id = '{}'",
        world.acme.id, second.id
    );
    let undo = format!("UPDATE users SET custom_role = NULL WHERE id = '{}'", second.id);
    let user = |of: &Person| format!("{USERS}/{}", of.id);
    let key = json!({"name": "x", "scopes": ["tasks.read"]});
    for (method, path, body) in [
        ("PATCH", user(&second), json!({"custom_role": null})),
        ("PATCH", user(&world.acme.member), json!({"role": "admin"})),
        ("DELETE", user(&world.acme.member), json!(null)),
        (
            "POST",
            USERS.into(),
            json!({"email": "x@acme.example", "full_name": "X", "role": "admin"}),
        ),
        (
            "POST",
            "/api/v1/invitations".into(),
            json!({"email": "x@acme.example", "role": "admin"}),
        ),
        (
            "POST",
            ROLES.into(),
            json!({"name": "x", "permissions": ["tasks.read"]}),
        ),
        ("DELETE", format!("{ROLES}/reader"), json!(null)),
        ("POST", "/api/v1/api-keys".into(), key),
    ] {
        let request = match method {
            "PATCH" => world.patch(&second, &path, &body),
            "DELETE" => world.delete(&second, &path),
            _ => world.post(&second, &path, &body),
        };
        let refused = crate::auth::overtaken(&world, &change, 1, request.send()).await;
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.text());
        world.sql(&undo).await;
        world.outlive_the_cache();
    }
}

/// Keys of service accounts belong to the tenant, and their scopes are their only ceiling.
#[actix_web::test]
async fn service_accounts_are_not_narrowed_with_their_creator() {
    let world = World::new().await;
    let second = world.second_admin().await;
    let expires_at = (world.app.ports.clock.now() + chrono::Duration::days(30)).to_rfc3339();
    let body =
        json!({"name": "CI", "scopes": ["projects.read"], "service_account": true, "expires_at": expires_at});
    let key = world.post(&second, "/api/v1/api-keys", &body).await;
    let key = key.expect(201).json()["key"].as_str().unwrap().to_owned();
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    give(&world, &second, json!("reader")).await.expect(200);
    let projects = world.client.get("/api/v1/projects").bearer(&key);
    projects.await.expect(200);
    let tasks = world.client.get(TASKS).bearer(&key);
    tasks.await.problem(403, "forbidden");
}

/// What an admin was answered under an idempotency key may hold a generated password.
#[actix_web::test]
async fn a_narrowed_admin_is_replayed_nothing_of_admins() {
    let world = World::new().await;
    let second = world.second_admin().await;
    let body = json!({"email": "new@acme.example", "full_name": "New"});
    let add = async || {
        let request = world
            .post(&second, USERS, &body)
            .header("Idempotency-Key", "once");
        request.await
    };
    assert!(add().await.expect(201).json()["password"].is_string());
    create(&world, &world.acme, "reader", &["tasks.read", "users.read"]).await;
    give(&world, &second, json!("reader")).await.expect(200);
    add().await.problem(403, "forbidden");
}

/// An admin who becomes none could otherwise return by an invitation.
#[actix_web::test]
async fn invitations_of_a_narrowed_admin_are_revoked() {
    let world = World::new().await;
    let second = world.second_admin().await;
    let body = json!({"email": "back@acme.example", "role": "admin"});
    let invited = world.post(&second, "/api/v1/invitations", &body).await;
    invited.expect(201);
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    give(&world, &second, json!("reader")).await.expect(200);
    let open = world.get(&world.acme.admin, "/api/v1/invitations").await;
    assert_eq!(open.expect(200).json()["data"], json!([]));
}

/// The rank in an access token that was issued before counts for nothing.
#[actix_web::test]
async fn a_new_login_of_a_narrowed_admin_is_narrowed() {
    let world = World::new().await;
    let second = world.second_admin().await;
    create(&world, &world.acme, "reader", &["tasks.read"]).await;
    give(&world, &second, json!("reader")).await.expect(200);
    let login = world
        .login("acme", &second.email, PASSWORD)
        .await
        .expect(200)
        .json();
    assert_eq!(login["user"]["custom_role"], "reader");
    let again = Person {
        access_token: login["access_token"].as_str().unwrap().into(),
        ..second
    };
    assert_eq!(may(&world, &again).await, (200, 403));
}
