//! The tenant as its own people see and change it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tests::{Person, Reply, World};

use crate::auth::overtaken;

const TENANT: &str = "/api/v1/tenant";
const PASSWORD: &str = "correct horse";

async fn patch(world: &World, who: &Person, body: Value) -> Reply {
    world.patch(who, TENANT, &body).await
}

async fn read(world: &World, who: &Person) -> Value {
    world.get(who, TENANT).await.expect(200).json()
}

/// The tenant with some members replaced.
fn with(tenant: &Value, changes: Value) -> Value {
    let mut changed = tenant.clone();
    for (name, value) in changes.as_object().unwrap() {
        changed[name] = value.clone();
    }
    changed
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

#[actix_web::test]
async fn everybody_of_a_tenant_sees_it_and_nobody_sees_another() {
    let world = World::new().await;
    for tenant in [&world.acme, &world.globex] {
        let name = if tenant.slug == "acme" {
            "Acme Inc"
        } else {
            "Globex Corp"
        };
        for who in [&tenant.admin, &tenant.member, &tenant.viewer] {
            let reply = world.get(who, TENANT).await.expect(200);
            let json = reply.json();
            let expected = json!({
                "id": tenant.id, "name": name, "slug": tenant.slug, "subdomain": tenant.slug, "plan": "pro",
                "status": "active", "created_at": json["created_at"], "updated_at": json["created_at"],
                "settings": {"self_registration": true, "timezone": "UTC", "locale": "en"},
                "suspended_at": null, "status_reason": null, "status_actor": null,
                "deleted_at": null, "purge_at": null, "row_work": null, "version": 1,
            });
            assert_eq!(json, expected);
            assert!(json["created_at"].as_str().unwrap().ends_with('Z'));
            assert_eq!(reply.header("etag"), Some("\"1\""));
        }
    }
    world.client.get(TENANT).await.problem(401, "unauthenticated");
}

#[actix_web::test]
async fn only_an_admin_changes_the_tenant() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for who in [&world.acme.member, &world.acme.viewer] {
        patch(&world, who, json!({"name": "Mine"}))
            .await
            .problem(403, "forbidden");
        // Whoever may not is told so before anything is said of the body or the version.
        let request = world
            .patch(who, TENANT, &json!({"nonsense": 1}))
            .header("If-Match", "\"99\"");
        request.await.problem(403, "forbidden");
    }
    world
        .client
        .patch(TENANT, &json!({"name": "Mine"}))
        .await
        .problem(401, "unauthenticated");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
    let changed = patch(&world, &world.acme.admin, json!({"name": "Ours"}))
        .await
        .expect(200)
        .json();
    assert_eq!(changed["name"], "Ours");
    assert_eq!(world.digest(&world.globex).await, both.1);
}

#[actix_web::test]
async fn a_patch_changes_what_it_names_and_leaves_the_rest() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let before = read(&world, admin).await;
    let settings = |timezone: &str, locale: &str, open: bool| {
        let settings = json!({"timezone": timezone, "locale": locale, "self_registration": open});
        json!({"settings": settings})
    };
    let steps = [
        (json!({"name": "  Acme Ltd "}), json!({"name": "Acme Ltd"})),
        (json!({"subdomain": null}), json!({"subdomain": null})),
        (
            json!({"settings": {"locale": "de-DE"}}),
            settings("UTC", "de-DE", true),
        ),
        (json!({"subdomain": "acme-ltd"}), json!({"subdomain": "acme-ltd"})),
        (
            json!({"settings": {"timezone": "Europe/Berlin", "self_registration": false}}),
            settings("Europe/Berlin", "de-DE", false),
        ),
        (
            json!({"name": "Acme", "subdomain": "acme"}),
            json!({"name": "Acme", "subdomain": "acme"}),
        ),
    ];
    let mut expected = before.clone();
    for (version, (body, changes)) in (2..).zip(steps) {
        world.clock.advance(chrono::Duration::seconds(1));
        let reply = patch(&world, admin, body).await.expect(200);
        let json = reply.json();
        expected = with(&expected, changes);
        expected = with(
            &expected,
            json!({"version": version, "updated_at": json["updated_at"]}),
        );
        assert_eq!(json, expected);
        assert_eq!(reply.header("etag"), Some(format!("\"{version}\"").as_str()));
        assert_eq!(
            read(&world, admin).await,
            expected,
            "what a change answers is what is stored"
        );
    }
    assert!(expected["updated_at"].as_str() > before["updated_at"].as_str());
}

#[actix_web::test]
async fn a_subdomain_that_is_cleared_leads_nowhere() {
    let world = World::new().await;
    let login = || {
        let body = json!({"email": world.acme.member.email, "password": PASSWORD});
        world
            .client
            .post("/api/v1/auth/login", &body)
            .header("Host", "acme.example.test")
            .send()
    };
    login().await.expect(200);
    patch(&world, &world.acme.admin, json!({"subdomain": null}))
        .await
        .expect(200);
    login().await.problem(404, "tenant_not_found");
    // It does not lead to another tenant either, least of all the next moment: it is still the slug.
    patch(&world, &world.globex.admin, json!({"subdomain": "acme"}))
        .await
        .problem(409, "subdomain_taken");
    patch(&world, &world.acme.admin, json!({"subdomain": "acme"}))
        .await
        .expect(200);
    login().await.expect(200);
}

#[actix_web::test]
async fn what_is_not_an_admins_to_change_is_an_unknown_field() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let cases = [
        (json!({"slug": "acme-ltd"}), "/slug"),
        (json!({"slug": "acme"}), "/slug"),
        (json!({"name": "Acme", "plan": "enterprise"}), "/plan"),
        (json!({"status": "active"}), "/status"),
        (json!({"id": world.globex.id}), "/id"),
        (json!({"tenant_id": world.globex.id}), "/tenant_id"),
        (json!({"version": 7}), "/version"),
        (json!({"deleted_at": null}), "/deleted_at"),
        (json!({"settings": {"color": "red"}}), "/settings/color"),
    ];
    for (body, pointer) in cases {
        let reply = patch(&world, &world.acme.admin, body)
            .await
            .problem(422, "unknown_field");
        assert_eq!(refused(&reply), fields(&[(pointer, "unknown_field")]));
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
}

#[actix_web::test]
async fn what_does_not_hold_is_refused_with_a_pointer() {
    let world = World::new().await;
    let before = world.digest(&world.acme).await;
    let long = "x".repeat(121);
    let cases = [
        (json!({"name": ""}), "/name", "invalid_text"),
        (json!({"name": "   "}), "/name", "invalid_text"),
        (json!({"name": long}), "/name", "invalid_text"),
        (json!({"name": "\u{200b}\u{3164}"}), "/name", "invalid_text"),
        (json!({"name": "Acme\nInc"}), "/name", "invalid_text"),
        (json!({"name": "Acme\u{0}"}), "/name", "invalid_text"),
        (json!({"name": null}), "/name", "required"),
        (json!({"name": 7}), "/name", "invalid_type"),
        (json!({"subdomain": "Acme"}), "/subdomain", "invalid_slug"),
        (json!({"subdomain": ""}), "/subdomain", "invalid_slug"),
        (json!({"subdomain": "xn--acme-9ua"}), "/subdomain", "invalid_slug"),
        (json!({"subdomain": "www"}), "/subdomain", "reserved"),
        (json!({"subdomain": ["acme"]}), "/subdomain", "invalid_type"),
        (json!({"settings": null}), "/settings", "required"),
        (json!({"settings": "UTC"}), "/settings", "invalid_type"),
        (json!({"settings": []}), "/settings", "invalid_type"),
        (
            json!({"settings": {"timezone": ""}}),
            "/settings/timezone",
            "invalid_text",
        ),
        (
            json!({"settings": {"timezone": null}}),
            "/settings/timezone",
            "required",
        ),
        (
            json!({"settings": {"locale": "x"}}),
            "/settings/locale",
            "invalid_text",
        ),
        (
            json!({"settings": {"locale": null}}),
            "/settings/locale",
            "required",
        ),
        (
            json!({"settings": {"self_registration": null}}),
            "/settings/self_registration",
            "required",
        ),
        (
            json!({"settings": {"self_registration": "yes"}}),
            "/settings/self_registration",
            "invalid_type",
        ),
    ];
    for (body, pointer, code) in cases {
        let reply = patch(&world, &world.acme.admin, body.clone())
            .await
            .problem(422, "validation_failed");
        assert_eq!(refused(&reply), fields(&[(pointer, code)]), "{body}");
    }
    let body = json!({"name": " ", "subdomain": "-", "settings": {"timezone": "", "locale": null}});
    let reply = patch(&world, &world.acme.admin, body)
        .await
        .problem(422, "validation_failed");
    let expected = fields(&[
        ("/name", "invalid_text"),
        ("/subdomain", "invalid_slug"),
        ("/settings/timezone", "invalid_text"),
        ("/settings/locale", "required"),
    ]);
    assert_eq!(refused(&reply), expected);
    assert_eq!(world.digest(&world.acme).await, before, "nothing was half done");
    // As long as it may be, in characters and not in bytes.
    patch(&world, &world.acme.admin, json!({"name": "ü".repeat(120)}))
        .await
        .expect(200);
}

#[actix_web::test]
async fn a_subdomain_of_another_tenant_is_taken() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let body = json!({"name": "Acme Ltd", "subdomain": "globex"});
    patch(&world, &world.acme.admin, body.clone())
        .await
        .problem(409, "subdomain_taken");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
    // A tenant that is deleted may come back.
    world.set_status(&world.globex, "deleted").await;
    patch(&world, &world.acme.admin, body)
        .await
        .problem(409, "subdomain_taken");
    // Its own is not in its way.
    patch(&world, &world.acme.admin, json!({"subdomain": "acme"}))
        .await
        .expect(200);
}

#[actix_web::test]
async fn if_match_guards_against_lost_updates() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let send = |name: &str, tag: &str| {
        world
            .patch(admin, TENANT, &json!({"name": name}))
            .header("If-Match", tag)
            .send()
    };
    let first = world
        .get(admin, TENANT)
        .await
        .expect(200)
        .header("etag")
        .unwrap()
        .to_owned();
    let second = send("Two", &first)
        .await
        .expect(200)
        .header("etag")
        .unwrap()
        .to_owned();
    assert_ne!(first, second);
    let before = world.digest(&world.acme).await;
    for stale in [
        first.as_str(),
        "\"99\"",
        "\"\"",
        "\"x\"",
        "W/\"2\"",
        "\"02\"",
        "\"1\", \"3\"",
    ] {
        let reply = send("Lost", stale).await.problem(412, "stale_version");
        assert!(!reply.text().contains("Lost"));
    }
    for nonsense in ["2", "\"2", "nonsense"] {
        send("Lost", nonsense).await.expect(400);
    }
    assert_eq!(world.digest(&world.acme).await, before);
    send("Three", &format!("\"99\", {second}")).await.expect(200);
    send("Four", "*").await.expect(200);
    // Two lines of a field are one list (RFC 9110 section 5.3).
    let request = world
        .patch(admin, TENANT, &json!({"name": "Five"}))
        .header("If-Match", "\"7\"");
    request.header("If-Match", "\"4\"").await.expect(200);
    patch(&world, admin, json!({"name": "Six"})).await.expect(200);
    let now = read(&world, admin).await;
    assert_eq!((&now["name"], &now["version"]), (&json!("Six"), &json!(6)));
}

#[actix_web::test]
async fn of_three_changes_at_once_to_one_version_exactly_one_succeeds() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let bodies: Vec<_> = (0..3).map(|n| json!({"name": format!("Name {n}")})).collect();
    let send = |body| {
        world
            .patch(admin, TENANT, body)
            .header("If-Match", "\"1\"")
            .send()
    };
    // All of them are on their way before the first one gets to the row.
    let lock = format!(
        "SELECT FROM tenants WHERE id = '{}' FOR NO KEY UPDATE",
        world.acme.id
    );
    let replies = overtaken(&world, &lock, 3, join_all(bodies.iter().map(send))).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 2));
    for reply in lost {
        reply.problem(412, "stale_version");
    }
    assert_eq!(read(&world, admin).await, won[0].json());
}

#[actix_web::test]
async fn who_has_the_present_version_is_not_sent_it_again() {
    let world = World::new().await;
    let send = |tag: &str| {
        world
            .get(&world.acme.viewer, TENANT)
            .header("If-None-Match", tag)
            .send()
    };
    for known in ["\"1\"", "W/\"1\"", "\"7\", \"1\"", "*"] {
        let reply = send(known).await.expect(304);
        assert!(reply.bytes.is_empty());
        assert_eq!(reply.header("etag"), Some("\"1\""));
    }
    send("\"2\"").await.expect(200);
    patch(&world, &world.acme.admin, json!({"name": "Two"}))
        .await
        .expect(200);
    let reply = send("\"1\"").await.expect(200);
    assert_eq!(
        (reply.json()["name"].as_str(), reply.header("etag")),
        (Some("Two"), Some("\"2\""))
    );
}

#[actix_web::test]
async fn a_change_is_audited_with_what_was_and_what_is() {
    let world = World::new().await;
    let known = world.audit(&world.acme).await.len();
    let globex = world.digest(&world.globex).await;
    let body = json!({"name": "Acme Ltd", "settings": {"locale": "de"}});
    let request = world
        .patch(&world.acme.admin, TENANT, &body)
        .header("X-Request-ID", "rename-1");
    let after = request.await.expect(200).json();
    // What was refused is no change.
    patch(&world, &world.acme.admin, json!({"name": ""}))
        .await
        .expect(422);
    patch(&world, &world.acme.viewer, json!({"name": "Mine"}))
        .await
        .expect(403);

    let entries = world.audit(&world.acme).await.split_off(known);
    let [(action, row)] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (action.as_str(), &row["category"]),
        ("tenant.updated", &json!("change"))
    );
    assert_eq!(
        (&row["target_type"], &row["target_id"]),
        (&json!("tenant"), &json!(world.acme.id))
    );
    assert_eq!(
        (&row["actor_type"], &row["actor_id"]),
        (&json!("user"), &json!(world.acme.admin.id))
    );
    assert_eq!(
        (&row["request_id"], &row["ip"]),
        (&json!("rename-1"), &json!("203.0.113.7"))
    );
    assert_eq!(
        (&row["before"]["name"], &row["after"]["name"]),
        (&json!("Acme Inc"), &json!("Acme Ltd"))
    );
    assert_eq!(
        (&row["before"]["version"], &row["after"]["version"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(row["before"]["settings"]["locale"], "en");
    // The log has more than the API shows: the version of the plan, and what was agreed beside it.
    let mut logged = row["after"].clone();
    logged
        .as_object_mut()
        .unwrap()
        .retain(|field, _| after.get(field).is_some());
    let mut shown = after.clone();
    shown
        .as_object_mut()
        .unwrap()
        .retain(|field, _| row["after"].get(field).is_some());
    assert_eq!(logged, shown);
    // What has not changed is not repeated in the log.
    assert!(row["after"].get("slug").is_none() && row["before"].get("slug").is_none());
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn a_suspended_tenant_is_read_only() {
    let world = World::new().await;
    world.set_status(&world.acme, "suspended").await;
    let (acme, before) = (&world.acme, world.digest(&world.acme).await);
    let task = format!("/api/v1/tasks/{}", acme.task);
    let user = format!("/api/v1/users/{}", acme.viewer.id);
    for who in [&acme.admin, &acme.member, &acme.viewer] {
        assert_eq!(read(&world, who).await["status"], "suspended");
        for path in [
            task.as_str(),
            &user,
            "/api/v1/users",
            "/api/v1/projects",
            "/api/v1/auth/me",
        ] {
            world.get(who, path).await.expect(200);
        }
        let me = format!("/api/v1/users/{}", who.id);
        world
            .patch(who, &me, &json!({"full_name": "New"}))
            .await
            .problem(403, "tenant_suspended");
    }
    for body in [json!({"name": "Acme Ltd"}), json!({}), json!({"nonsense": 1})] {
        patch(&world, &acme.admin, body)
            .await
            .problem(403, "tenant_suspended");
    }
    world
        .delete(&acme.admin, &user)
        .await
        .problem(403, "tenant_suspended");
    world
        .post(&acme.member, "/api/v1/projects", &json!({"name": "New"}))
        .await
        .problem(403, "tenant_suspended");
    // Who could not do it anyway is told that.
    patch(&world, &acme.viewer, json!({"name": "Mine"}))
        .await
        .problem(403, "forbidden");
    world
        .post(&acme.viewer, "/api/v1/projects", &json!({"name": "New"}))
        .await
        .problem(403, "forbidden");
    assert_eq!(world.digest(acme).await, before);
    patch(&world, &world.globex.admin, json!({"name": "Globex"}))
        .await
        .expect(200);
}

#[actix_web::test]
async fn suspending_and_resuming_hold_at_once_and_are_audited() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let known = world.audit(&world.acme).await.len();
    lifecycle::suspend(&world.operator_cx(), world.acme.id, "unpaid")
        .await
        .unwrap();
    patch(&world, &world.acme.admin, json!({"name": "Acme Ltd"}))
        .await
        .problem(403, "tenant_suspended");
    lifecycle::resume(&world.operator_cx(), world.acme.id, "paid")
        .await
        .unwrap();
    patch(&world, &world.acme.admin, json!({"name": "Acme Ltd"}))
        .await
        .expect(200);
    let entries = world.audit(&world.acme).await.split_off(known);
    let told: Vec<_> = entries
        .iter()
        .map(|(action, row)| (action.as_str(), row["after"]["reason"].as_str()))
        .collect();
    let expected = [
        ("tenant.suspended", Some("unpaid")),
        ("tenant.resumed", Some("paid")),
        ("tenant.updated", None),
    ];
    assert_eq!(told, expected);
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn a_deleted_tenant_is_gone_for_everybody() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, world.digest(&world.globex).await);
    world.set_status(acme, "deleted").await;
    let before = world.digest(acme).await;
    let mut seen = BTreeSet::new();
    for who in [&acme.admin, &acme.member, &acme.viewer] {
        let user = format!("/api/v1/users/{}", who.id);
        let project = format!("/api/v1/projects/{}", acme.project);
        for path in [
            TENANT,
            "/api/v1/auth/me",
            "/api/v1/users",
            "/api/v1/projects",
            "/api/v1/tasks",
            &user,
            &project,
        ] {
            seen.insert(
                world
                    .get(who, path)
                    .await
                    .problem(410, "tenant_gone")
                    .comparable(),
            );
        }
        let replies = [
            patch(&world, who, json!({"name": "Acme Ltd"})).await,
            world.post(who, "/api/v1/projects", &json!({"name": "New"})).await,
            world.delete(who, &user).await,
            world.post(who, "/api/v1/auth/logout", &json!({})).await,
            world
                .client
                .post(
                    "/api/v1/auth/refresh",
                    &json!({"refresh_token": who.refresh_token}),
                )
                .await,
            world.login("acme", &who.email, PASSWORD).await,
            world.login("acme", &who.email, "wrong horse").await,
        ];
        seen.extend(
            replies
                .into_iter()
                .map(|reply| reply.problem(410, "tenant_gone").comparable()),
        );
    }
    let register =
        json!({"tenant_slug": "acme", "email": "g@example.com", "password": PASSWORD, "full_name": "G"});
    let reply = world.client.post("/api/v1/auth/register", &register).await;
    seen.insert(reply.problem(410, "tenant_gone").comparable());
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!(
        (world.digest(acme).await, world.digest(&world.globex).await),
        (before, globex)
    );
    // What happens to one tenant is nothing to another.
    read(&world, &world.globex.viewer).await;
    world
        .login("globex", &world.globex.viewer.email, PASSWORD)
        .await
        .expect(200);
}
