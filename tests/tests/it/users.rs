//! The people of a tenant.

use std::collections::BTreeSet;

use actix_web::http::Method;
use futures_util::future::join;
use serde_json::{Value, json};
use tenantry_tests::{Person, Reply, Request, TenantWorld, World};

use crate::auth::overtaken;

const USERS: &str = "/api/v1/users";
const PASSWORD: &str = "correct horse";
/// Nobody's id.
const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12";

fn path(id: impl std::fmt::Display) -> String {
    format!("{USERS}/{id}")
}

fn patch(world: &World, who: &Person, id: impl std::fmt::Display, body: Value) -> Request {
    world.patch(who, &path(id), &body)
}

fn grace() -> Value {
    let email = "grace@acme.example";
    json!({"email": email, "full_name": "Grace Hopper", "role": "member", "password": "battery staple"})
}

fn refused(reply: &Reply) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = reply.json()["errors"].as_array().unwrap().clone();
    errors
        .iter()
        .map(|error| (text(&error["pointer"]), text(&error["code"])))
        .collect()
}

fn fields(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected
        .iter()
        .map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned()))
        .collect()
}

/// The addresses in a list of users, as they came.
async fn listed(world: &World, who: &Person, query: &str) -> Vec<String> {
    let json = world
        .get(who, &format!("{USERS}{query}"))
        .await
        .expect(200)
        .json();
    assert_eq!(json["next_cursor"], Value::Null);
    json["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["email"].as_str().unwrap().to_owned())
        .collect()
}

async fn acting_admins(world: &World, tenant: &TenantWorld) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM users \
         WHERE tenant_id = $1 AND role = 'admin' AND is_active AND deleted_at IS NULL",
    )
    .bind(tenant.id.uuid())
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap()
}

#[actix_web::test]
async fn an_admin_adds_a_user_who_can_then_be_read_and_log_in() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let reply = world.post(&world.acme.admin, USERS, &grace()).await.expect(201);
    let mut json = reply.json();
    let expires_at = json
        .as_object_mut()
        .unwrap()
        .remove("password_expires_at")
        .unwrap();
    assert!(expires_at.is_string(), "an admin chose the password");
    let expected = json!({
        "id": json["id"], "email": "grace@acme.example", "full_name": "Grace Hopper", "role": "member",
        "custom_role": null, "is_active": true, "email_verified": false, "created_at": json["created_at"],
        "updated_at": json["created_at"], "version": 1,
    });
    assert_eq!(json, expected, "and no password, since it was given");
    assert_eq!(reply.header("etag"), Some("\"1\""));
    let location = reply.header("location").unwrap();
    assert_eq!(location, path(json["id"].as_str().unwrap()));
    let read = world.get(&world.acme.viewer, location).await.expect(200);
    assert_eq!((read.json(), read.header("etag")), (json.clone(), Some("\"1\"")));
    let login = world
        .login("acme", "grace@acme.example", "battery staple")
        .await
        .expect(200)
        .json();
    assert_eq!(login["user"], json);
    assert_eq!(
        listed(&world, &world.acme.viewer, "?limit=100").await[0],
        "grace@acme.example",
        "newest first"
    );
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn a_generated_password_is_shown_once_and_works() {
    let world = World::new().await;
    let add = |email: &str| {
        world
            .post(
                &world.acme.admin,
                USERS,
                &json!({"email": email, "full_name": "Somebody"}),
            )
            .send()
    };
    let json = add("one@acme.example").await.expect(201).json();
    let password = json["password"].as_str().unwrap();
    assert!(password.len() >= 22, "{password}");
    assert_ne!(
        add("two@acme.example").await.expect(201).json()["password"],
        password
    );
    assert_eq!(json["role"], "member", "the role when none is given");
    let read = world
        .get(&world.acme.admin, &path(json["id"].as_str().unwrap()))
        .await
        .expect(200);
    assert_eq!(read.json().get("password"), None);
    world
        .login("acme", "one@acme.example", password)
        .await
        .expect(200);
    world
        .login("acme", "two@acme.example", password)
        .await
        .problem(401, "invalid_credentials");
    let audit = world.audit(&world.acme).await;
    assert!(audit.iter().all(|(_, row)| !row.to_string().contains(password)));
}

#[actix_web::test]
async fn everybody_reads_users_and_only_admins_manage_them() {
    let world = World::new().await;
    let acme = &world.acme;
    let other = world.post(&acme.admin, USERS, &grace()).await.expect(201).json()["id"].clone();
    let other = path(other.as_str().unwrap());
    let body = json!({"email": "new@acme.example", "full_name": "New", "password": PASSWORD});
    let both = (world.digest(acme).await, world.digest(&world.globex).await);
    for who in [&acme.viewer, &acme.member] {
        world.get(who, USERS).await.expect(200);
        world.get(who, &other).await.expect(200);
        world.post(who, USERS, &body).await.problem(403, "forbidden");
        world
            .patch(who, &other, &json!({"full_name": "Other"}))
            .await
            .problem(403, "forbidden");
        world
            .patch(who, &other, &json!({"role": "viewer"}))
            .await
            .problem(403, "forbidden");
        world.delete(who, &other).await.problem(403, "forbidden");
        world.delete(who, &path(who.id)).await.problem(403, "forbidden");
    }
    for (method, at) in [
        (Method::GET, USERS),
        (Method::POST, USERS),
        (Method::GET, &other),
        (Method::PATCH, &other),
        (Method::DELETE, &other),
    ] {
        world
            .client
            .request(method, at)
            .json(&body)
            .await
            .problem(401, "unauthenticated");
    }
    assert_eq!(
        (world.digest(acme).await, world.digest(&world.globex).await),
        both
    );
    world.get(&acme.admin, USERS).await.expect(200);
    world.get(&acme.admin, &other).await.expect(200);
    world.post(&acme.admin, USERS, &body).await.expect(201);
    world
        .patch(
            &acme.admin,
            &other,
            &json!({"full_name": "Other", "role": "viewer"}),
        )
        .await
        .expect(200);
    let reply = world.delete(&acme.admin, &other).await.expect(204);
    assert!(reply.bytes.is_empty());
    assert_eq!(world.digest(&world.globex).await, both.1);
}

#[actix_web::test]
async fn another_tenants_user_is_as_unknown_as_nobody() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let admin = &world.acme.admin;
    for id in [
        world.globex.admin.id.to_string(),
        world.globex.viewer.id.to_string(),
    ] {
        for (theirs, nobodys) in [
            (world.get(admin, &path(&id)), world.get(admin, &path(NOBODY))),
            (
                patch(&world, admin, &id, json!({"role": "viewer"})),
                patch(&world, admin, NOBODY, json!({"role": "viewer"})),
            ),
            (
                world.delete(admin, &path(&id)),
                world.delete(admin, &path(NOBODY)),
            ),
            (
                world.delete(admin, &path(&id)).header("If-Match", "\"1\""),
                world.delete(admin, &path(NOBODY)).header("If-Match", "\"1\""),
            ),
        ] {
            let (theirs, nobodys) = (theirs.await, nobodys.await.problem(404, "not_found"));
            assert_eq!(theirs.comparable(), nobodys.comparable());
        }
    }
    let listed = listed(&world, admin, "").await;
    assert_eq!(
        listed,
        ["viewer@acme.example", "member@acme.example", "admin@acme.example"]
    );
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn users_are_listed_by_role_and_activity() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    for (name, role) in [("m1", "member"), ("m2", "member"), ("v1", "viewer")] {
        let body = json!({"email": format!("{name}@acme.example"), "full_name": name, "role": role});
        let id = world.post(admin, USERS, &body).await.expect(201).json()["id"].clone();
        if name != "m1" {
            patch(&world, admin, id.as_str().unwrap(), json!({"is_active": false}))
                .await
                .expect(200);
        }
    }
    let at = |names: &[&str]| {
        names
            .iter()
            .map(|name| format!("{name}@acme.example"))
            .collect::<Vec<_>>()
    };
    for (query, expected) in [
        ("", at(&["v1", "m2", "m1", "viewer", "member", "admin"])),
        ("?role=admin", at(&["admin"])),
        ("?role=member", at(&["m2", "m1", "member"])),
        ("?is_active=false", at(&["v1", "m2"])),
        ("?is_active=true", at(&["m1", "viewer", "member", "admin"])),
        ("?role=member&is_active=true", at(&["m1", "member"])),
        ("?role=admin&is_active=false", at(&[])),
    ] {
        assert_eq!(
            listed(&world, &world.acme.viewer, query).await,
            expected,
            "{query}"
        );
    }
    for (query, pointer, code) in [
        ("?role=owner", "/query/role", "validation_failed"),
        ("?role=Admin", "/query/role", "validation_failed"),
        ("?is_active=1", "/query/is_active", "validation_failed"),
        (
            "?tenant_id=0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12",
            "/query/tenant_id",
            "unknown_field",
        ),
    ] {
        let reply = world
            .get(admin, &format!("{USERS}{query}"))
            .await
            .problem(422, code);
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer);
    }
}

#[actix_web::test]
async fn everything_that_is_wrong_with_a_user_is_said_at_once() {
    let world = World::new().await;
    let before = world.digest(&world.acme).await;
    let body = json!({"email": "grace", "full_name": " ", "role": "viewer", "password": "short"});
    let reply = world
        .post(&world.acme.admin, USERS, &body)
        .await
        .problem(422, "validation_failed");
    let expected = fields(&[
        ("/email", "invalid_email"),
        ("/full_name", "invalid_text"),
        ("/password", "weak_password"),
    ]);
    assert_eq!(refused(&reply), expected);
    let reply = world.post(&world.acme.admin, USERS, &json!({}));
    let reply = reply.await.problem(422, "validation_failed");
    let missing = fields(&[("/email", "required"), ("/full_name", "required")]);
    assert_eq!(refused(&reply), missing);
    let with = |name: &str, value: Value| {
        let mut body = grace();
        body[name] = value;
        body
    };
    for (body, code, pointer, field) in [
        (
            json!({"email": "grace@acme.example"}),
            "validation_failed",
            "/full_name",
            "required",
        ),
        (
            with("role", json!("owner")),
            "validation_failed",
            "/role",
            "invalid_value",
        ),
        (
            with("email", Value::Null),
            "validation_failed",
            "/email",
            "invalid_type",
        ),
        (with("id", json!(NOBODY)), "unknown_field", "/id", "unknown_field"),
        (
            with("tenant_id", json!(world.globex.id)),
            "unknown_field",
            "/tenant_id",
            "unknown_field",
        ),
        (
            with("email_verified", json!(true)),
            "unknown_field",
            "/email_verified",
            "unknown_field",
        ),
    ] {
        let reply = world
            .post(&world.acme.admin, USERS, &body)
            .await
            .problem(422, code);
        assert_eq!(refused(&reply), fields(&[(pointer, field)]), "{body}");
    }
    let id = world.acme.member.id;
    for (body, code, pointer, field) in [
        (json!({"email": null}), "validation_failed", "/email", "required"),
        (
            json!({"email": "@"}),
            "validation_failed",
            "/email",
            "invalid_email",
        ),
        (
            json!({"full_name": null}),
            "validation_failed",
            "/full_name",
            "required",
        ),
        (
            json!({"full_name": ""}),
            "validation_failed",
            "/full_name",
            "invalid_text",
        ),
        (json!({"role": null}), "validation_failed", "/role", "required"),
        (
            json!({"role": "owner"}),
            "validation_failed",
            "/role",
            "invalid_value",
        ),
        (
            json!({"is_active": null}),
            "validation_failed",
            "/is_active",
            "required",
        ),
        (
            json!({"is_active": "no"}),
            "validation_failed",
            "/is_active",
            "invalid_type",
        ),
        (
            json!({"password": "battery staple"}),
            "unknown_field",
            "/password",
            "unknown_field",
        ),
        (
            json!({"email_verified": true}),
            "unknown_field",
            "/email_verified",
            "unknown_field",
        ),
        (
            json!({"tenant_id": world.globex.id}),
            "unknown_field",
            "/tenant_id",
            "unknown_field",
        ),
    ] {
        let reply = patch(&world, &world.acme.admin, id, body.clone())
            .await
            .problem(422, code);
        assert_eq!(refused(&reply), fields(&[(pointer, field)]), "{body}");
    }
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn everybody_edits_their_own_name_and_address_but_nothing_else() {
    let world = World::new().await;
    for who in [&world.acme.viewer, &world.acme.member] {
        let name = patch(&world, who, who.id, json!({"full_name": " New Name "}))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&name["full_name"], &name["version"]),
            (&json!("New Name"), &json!(2))
        );
        let email = json!({"email": format!("new-{}", who.email)});
        let refused = patch(&world, who, who.id, email).await;
        let refused = refused.problem(422, "validation_failed").json();
        assert_eq!(refused["errors"][0]["code"], "confirmation_required");
        let json = world.get(who, &path(who.id)).await.expect(200).json();
        assert_eq!(json, name);

        let before = world.digest(&world.acme).await;
        for body in [
            json!({"role": "admin"}),
            json!({"role": json["role"]}),
            json!({"is_active": true}),
            json!({"is_active": false}),
            json!({"full_name": "Newer", "role": "admin"}),
        ] {
            patch(&world, who, who.id, body).await.problem(403, "forbidden");
        }
        for other in [
            &world.acme.admin,
            if who.id == world.acme.viewer.id {
                &world.acme.member
            } else {
                &world.acme.viewer
            },
        ] {
            patch(&world, who, other.id, json!({"full_name": "Newer"}))
                .await
                .problem(403, "forbidden");
        }
        // Who may not edit others cannot find out either who is there.
        patch(&world, who, NOBODY, json!({"full_name": "Newer"}))
            .await
            .problem(403, "forbidden");
        patch(&world, who, world.globex.admin.id, json!({"full_name": "Newer"}))
            .await
            .problem(403, "forbidden");
        assert_eq!(world.digest(&world.acme).await, before);
    }
}

#[actix_web::test]
async fn a_new_address_has_to_be_proven_again() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    world
        .sql(format!(
            "UPDATE users SET email_verified = true WHERE id = '{}'",
            member.id
        ))
        .await;
    for same in [
        json!({"full_name": "New"}),
        json!({"email": "Member@ACME.example"}),
        json!({"role": "viewer"}),
    ] {
        let json = patch(&world, admin, member.id, same).await.expect(200).json();
        assert_eq!(
            (&json["email_verified"], &json["email"]),
            (&json!(true), &json!("member@acme.example"))
        );
    }
    let json = patch(&world, admin, member.id, json!({"email": "M@acme.example"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&json["email_verified"], &json["email"]),
        (&json!(false), &json!("m@acme.example"))
    );
    let json = patch(&world, admin, member.id, json!({"email": "member@acme.example"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        json["email_verified"],
        json!(false),
        "the old address is not proven by having been"
    );
}

#[actix_web::test]
async fn an_address_belongs_to_one_user_of_a_tenant() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let both = (world.digest(acme).await, world.digest(globex).await);
    for email in ["viewer@acme.example", "Viewer@Acme.EXAMPLE"] {
        let mut body = grace();
        body["email"] = json!(email);
        world
            .post(&acme.admin, USERS, &body)
            .await
            .problem(409, "email_taken");
        patch(&world, &acme.admin, acme.member.id, json!({"email": email}))
            .await
            .problem(409, "email_taken");
    }
    assert_eq!((world.digest(acme).await, world.digest(globex).await), both);
    // One's own is not in the way, nor is another tenant's.
    let same = json!({"email": "MEMBER@acme.example"});
    patch(&world, &acme.member, acme.member.id, same)
        .await
        .expect(200);
    patch(
        &world,
        &acme.admin,
        acme.member.id,
        json!({"email": globex.viewer.email}),
    )
    .await
    .expect(200);
    assert_eq!(world.digest(globex).await, both.1);
}

#[actix_web::test]
async fn an_address_is_free_again_once_its_user_is_removed() {
    let world = World::new().await;
    let (admin, viewer) = (&world.acme.admin, &world.acme.viewer);
    // Being inactive is not being removed.
    patch(&world, admin, viewer.id, json!({"is_active": false}))
        .await
        .expect(200);
    let mut body = grace();
    body["email"] = json!(viewer.email);
    world.post(admin, USERS, &body).await.problem(409, "email_taken");
    for _ in 0..2 {
        let id = listed_id(&world, &viewer.email).await;
        world.delete(admin, &path(id)).await.expect(204);
        let json = world.post(admin, USERS, &body).await.expect(201).json();
        assert_ne!(json["id"], json!(viewer.id));
        world
            .login("acme", &viewer.email, PASSWORD)
            .await
            .problem(401, "invalid_credentials");
        let login = world
            .login("acme", &viewer.email, "battery staple")
            .await
            .expect(200)
            .json();
        assert_eq!(login["user"]["id"], json["id"]);
    }
}

async fn listed_id(world: &World, email: &str) -> String {
    let json = world.get(&world.acme.admin, USERS).await.expect(200).json();
    let found = json["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["email"] == email)
        .unwrap()
        .clone();
    found["id"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn a_removed_user_is_as_unknown_as_nobody() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    world.delete(admin, &path(member.id)).await.expect(204);
    let before = world.digest(&world.acme).await;
    for (theirs, nobodys) in [
        (
            world.get(admin, &path(member.id)),
            world.get(admin, &path(NOBODY)),
        ),
        (
            patch(&world, admin, member.id, json!({"role": "viewer"})),
            patch(&world, admin, NOBODY, json!({"role": "viewer"})),
        ),
        (
            patch(&world, admin, member.id, json!({"is_active": true})),
            patch(&world, admin, NOBODY, json!({"is_active": true})),
        ),
        (
            world.delete(admin, &path(member.id)),
            world.delete(admin, &path(NOBODY)),
        ),
    ] {
        let (theirs, nobodys) = (theirs.await, nobodys.await.problem(404, "not_found"));
        assert_eq!(theirs.comparable(), nobodys.comparable());
    }
    for query in ["", "?role=member", "?is_active=false"] {
        assert!(
            !listed(&world, admin, query).await.contains(&member.email),
            "{query}"
        );
    }
    assert_eq!(world.digest(&world.acme).await, before);
    // What they have made and what they were given stays.
    let task = world
        .get(admin, &format!("/api/v1/tasks/{}", world.acme.task))
        .await
        .expect(200)
        .json();
    assert_eq!(task["assignee_id"], json!(member.id));
}

#[actix_web::test]
async fn the_last_admin_cannot_be_demoted_deactivated_or_removed() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let before = world.digest(&world.acme).await;
    for body in [
        json!({"role": "member"}),
        json!({"role": "viewer", "full_name": "Somebody"}),
        json!({"is_active": false}),
        json!({"role": "viewer", "is_active": false}),
    ] {
        patch(&world, admin, admin.id, body)
            .await
            .problem(409, "last_admin");
    }
    world
        .delete(admin, &path(admin.id))
        .await
        .problem(409, "last_admin");
    assert_eq!(world.digest(&world.acme).await, before);
    // What takes no admin away is allowed, also when it says so.
    patch(
        &world,
        admin,
        admin.id,
        json!({"role": "admin", "is_active": true, "full_name": "A"}),
    )
    .await
    .expect(200);
}

#[actix_web::test]
async fn only_an_acting_admin_counts_as_another_one() {
    let world = World::new().await;
    let (admin, second) = (&world.acme.admin, world.second_admin().await);
    let demote = || patch(&world, admin, admin.id, json!({"role": "member"})).send();
    patch(&world, admin, second.id, json!({"is_active": false}))
        .await
        .expect(200);
    demote().await.problem(409, "last_admin");
    patch(
        &world,
        admin,
        second.id,
        json!({"is_active": true, "role": "member"}),
    )
    .await
    .expect(200);
    demote().await.problem(409, "last_admin");
    patch(&world, admin, second.id, json!({"role": "admin"}))
        .await
        .expect(200);
    world.delete(admin, &path(second.id)).await.expect(204);
    // An admin of another tenant is none of this one.
    demote().await.problem(409, "last_admin");
    assert_eq!(
        (
            acting_admins(&world, &world.acme).await,
            acting_admins(&world, &world.globex).await
        ),
        (1, 1)
    );
    patch(&world, admin, world.acme.viewer.id, json!({"role": "admin"}))
        .await
        .expect(200);
    demote().await.expect(200);
    world
        .delete(&world.acme.viewer, &path(admin.id))
        .await
        .expect(204);
}

#[actix_web::test]
async fn of_two_admins_one_may_go() {
    let world = World::new().await;
    let second = world.second_admin().await;
    world.delete(&second, &path(second.id)).await.expect(204);
    world
        .get(&second, "/api/v1/auth/me")
        .await
        .problem(401, "token_revoked");
    let admin = &world.acme.admin;
    world
        .delete(admin, &path(admin.id))
        .await
        .problem(409, "last_admin");
}

/// Two admins do the same to each other at the same time, twenty times.
async fn exactly_one_of_two_admins_remains(attack: impl Fn(&World, &Person, &Person) -> Request) {
    let world = World::new().await;
    let (first, second) = (world.acme.admin.clone(), world.second_admin().await);
    let globex = world.digest(&world.globex).await;
    let lock = format!(
        "SELECT FROM tenants WHERE id = '{}' FOR NO KEY UPDATE",
        world.acme.id
    );
    let both = format!("('{}', '{}')", first.id, second.id);
    let restore = format!(
        "UPDATE users SET role = 'admin', is_active = true, deleted_at = NULL WHERE id IN {both}; \
         UPDATE refresh_sessions SET revoked_at = NULL WHERE user_id IN {both}"
    );
    for round in 0..20 {
        let attacks = join(
            attack(&world, &first, &second).send(),
            attack(&world, &second, &first).send(),
        );
        // In every other round both have been let in before either gets further.
        let forced = round % 2 == 0;
        let replies = if forced {
            overtaken(&world, &lock, 2, attacks).await
        } else {
            attacks.await
        };
        let (won, lost) = if replies.0.status < 300 {
            replies
        } else {
            (replies.1, replies.0)
        };
        assert!(matches!(won.status, 200 | 204), "{}", won.text());
        // Who comes when it is over already is not even let in.
        match lost.status {
            403 if !forced => lost.problem(403, "forbidden"),
            401 if !forced => lost.problem(401, "token_revoked"),
            _ => lost.problem(409, "last_admin"),
        };
        assert_eq!(acting_admins(&world, &world.acme).await, 1, "round {round}");
        world.sql(restore.clone()).await;
        // Nobody announced that, and a request that came late may have been remembered as refused.
        world.outlive_the_cache();
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn of_two_admins_who_demote_each_other_at_once_exactly_one_succeeds() {
    exactly_one_of_two_admins_remains(|world, who, whom| {
        patch(world, who, whom.id, json!({"role": "member"}))
    })
    .await;
}

#[actix_web::test]
async fn of_two_admins_who_deactivate_each_other_at_once_exactly_one_succeeds() {
    exactly_one_of_two_admins_remains(|world, who, whom| {
        patch(world, who, whom.id, json!({"is_active": false}))
    })
    .await;
}

#[actix_web::test]
async fn of_two_admins_who_remove_each_other_at_once_exactly_one_succeeds() {
    exactly_one_of_two_admins_remains(|world, who, whom| world.delete(who, &path(whom.id))).await;
}

#[actix_web::test]
async fn of_two_admins_who_give_up_at_once_exactly_one_succeeds() {
    exactly_one_of_two_admins_remains(|world, who, _| patch(world, who, who.id, json!({"role": "viewer"})))
        .await;
}

#[actix_web::test]
async fn if_match_guards_users_against_lost_updates() {
    let world = World::new().await;
    let (admin, viewer) = (&world.acme.admin, &world.acme.viewer);
    let rename = |name: &str, tag: &str| {
        patch(&world, admin, viewer.id, json!({"full_name": name}))
            .header("If-Match", tag)
            .send()
    };
    let reply = rename("Two", "\"1\"").await.expect(200);
    assert_eq!(
        (reply.header("etag"), &reply.json()["version"]),
        (Some("\"2\""), &json!(2))
    );
    let before = world.digest(&world.acme).await;
    for stale in ["\"1\"", "\"3\"", "W/\"2\"", "\"1\", \"3\""] {
        rename("Lost", stale).await.problem(412, "stale_version");
        let request = world.delete(admin, &path(viewer.id)).header("If-Match", stale);
        request.await.problem(412, "stale_version");
    }
    assert_eq!(world.digest(&world.acme).await, before);
    rename("Three", "\"7\", \"2\"").await.expect(200);
    rename("Four", "*").await.expect(200);
    world
        .delete(admin, &path(viewer.id))
        .header("If-Match", "\"4\"")
        .await
        .expect(204);
    world.get(admin, &path(viewer.id)).await.problem(404, "not_found");
}

#[actix_web::test]
async fn who_has_the_present_version_of_a_user_is_not_sent_it_again() {
    let world = World::new().await;
    let member = &world.acme.member;
    let read = |tag: &str| {
        world
            .get(&world.acme.viewer, &path(member.id))
            .header("If-None-Match", tag)
            .send()
    };
    for known in ["\"1\"", "W/\"1\"", "\"7\", \"1\""] {
        let reply = read(known).await.expect(304);
        assert!(reply.bytes.is_empty());
        assert_eq!(reply.header("etag"), Some("\"1\""));
    }
    patch(&world, member, member.id, json!({"full_name": "New"}))
        .await
        .expect(200);
    assert_eq!(read("\"1\"").await.expect(200).json()["full_name"], "New");
}

#[actix_web::test]
async fn changes_of_users_are_audited_without_their_passwords() {
    let world = World::new().await;
    let (admin, known) = (&world.acme.admin, world.audit(&world.acme).await.len());
    let globex = world.digest(&world.globex).await;
    let added = world.post(admin, USERS, &grace()).await.expect(201).json();
    let id = added["id"].as_str().unwrap();
    patch(&world, admin, id, json!({"role": "viewer"}))
        .await
        .expect(200);
    world.delete(admin, &path(id)).await.expect(204);
    let mut entries = world.audit(&world.acme).await.split_off(known);
    entries.retain(|(action, _)| action != "account_link.sent");
    let told: Vec<_> = entries
        .iter()
        .map(|(action, row)| {
            (
                action.as_str(),
                row["before"]["role"].as_str(),
                row["after"]["role"].as_str(),
            )
        })
        .collect();
    let expected = [
        ("user.created", None, Some("member")),
        ("user.updated", Some("member"), Some("viewer")),
        ("user.deleted", Some("viewer"), None),
    ];
    assert_eq!(told, expected);
    for (_, row) in &entries {
        assert_eq!(
            (&row["target_type"], &row["target_id"]),
            (&json!("user"), &added["id"])
        );
        assert_eq!(
            (&row["actor_type"], &row["actor_id"]),
            (&json!("user"), &json!(admin.id))
        );
        let text = row.to_string();
        assert!(
            !text.contains("battery staple") && !text.contains("$argon2"),
            "{text}"
        );
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}
