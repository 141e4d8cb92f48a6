//! Projects: who may do what with them, what goes and comes back with them, and who is in them.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_tests::{Person, World};

const FIELDS: [&str; 10] = [
    "created_at",
    "deleted_at",
    "description",
    "id",
    "name",
    "owner_id",
    "status",
    "updated_at",
    "version",
    "view_count",
];

async fn project(world: &World, who: &Person, name: &str) -> String {
    let reply = world
        .post(who, "/api/v1/projects", &json!({"name": name}))
        .await
        .expect(201);
    reply.json()["id"].as_str().unwrap().to_owned()
}

async fn task(world: &World, who: &Person, project: &str, title: &str) -> String {
    let path = format!("/api/v1/projects/{project}/tasks");
    let reply = world.post(who, &path, &json!({"title": title})).await.expect(201);
    reply.json()["id"].as_str().unwrap().to_owned()
}

async fn resource(world: &World, who: &Person, project: &str, name: &str) -> String {
    let body = json!({"name": name, "content": "text", "project_id": project});
    let reply = world.post(who, "/api/v1/resources", &body).await.expect(201);
    reply.json()["id"].as_str().unwrap().to_owned()
}

fn path(id: &str) -> String {
    format!("/api/v1/projects/{id}")
}

/// The values of one field in a list, in its order.
async fn column(world: &World, who: &Person, path: &str, field: &str) -> Vec<Value> {
    let page = world.get(who, path).await.expect(200).json();
    page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[field].clone())
        .collect()
}

async fn actions(world: &World) -> Vec<String> {
    world
        .audit(&world.acme)
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect()
}

#[actix_web::test]
async fn a_project_is_made_read_changed_and_deleted() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let other = world.digest(&world.globex).await;
    let body = json!({"name": "  Apollo  ", "description": "To the moon\nand back"});
    let made = world.post(member, "/api/v1/projects", &body).await.expect(201);
    let view = made.json();
    let fields: Vec<_> = view.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(FIELDS)
    );
    assert_eq!(view["name"], "Apollo");
    assert_eq!(view["description"], "To the moon\nand back");
    assert_eq!(view["status"], "active");
    assert_eq!(view["owner_id"], member.id.to_string());
    assert_eq!((&view["view_count"], &view["version"]), (&json!(0), &json!(1)));
    assert_eq!(
        (&view["deleted_at"], &view["created_at"]),
        (&Value::Null, &view["updated_at"])
    );
    assert!(view["created_at"].as_str().unwrap().ends_with('Z'), "{view}");
    let path = path(view["id"].as_str().unwrap());
    assert_eq!(made.header("location"), Some(path.as_str()));
    assert_eq!(made.header("etag"), Some("\"1\""));

    let read = world.get(viewer, &path).await.expect(200);
    let mut expected = view.clone();
    expected["view_count"] = json!(1);
    assert_eq!(read.json(), expected);
    assert_eq!(read.header("etag"), Some("\"1\""));

    let changed = world
        .patch(member, &path, &json!({"status": "archived"}))
        .await
        .expect(200);
    expected["status"] = json!("archived");
    expected["version"] = json!(2);
    expected["updated_at"] = changed.json()["updated_at"].clone();
    assert_eq!(changed.json(), expected);
    assert_eq!(changed.header("etag"), Some("\"2\""));
    assert!(expected["updated_at"].as_str() > expected["created_at"].as_str());

    let deleted = world.delete(member, &path).await.expect(204);
    assert!(deleted.bytes.is_empty());
    world.get(viewer, &path).await.problem(404, "not_found");
    world
        .patch(member, &path, &json!({"name": "x"}))
        .await
        .problem(404, "not_found");
    world.delete(member, &path).await.problem(404, "not_found");
    let actions = actions(&world).await;
    assert_eq!(
        actions[actions.len() - 3..],
        ["project.created", "project.updated", "project.deleted"]
    );
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn a_patch_changes_what_it_names_and_null_clears_what_may_be_empty() {
    let world = World::new().await;
    let member = &world.acme.member;
    let body = json!({"name": "Apollo", "description": "To the moon"});
    let id = world
        .post(member, "/api/v1/projects", &body)
        .await
        .expect(201)
        .json()["id"]
        .clone();
    let path = path(id.as_str().unwrap());
    let changed = world
        .patch(member, &path, &json!({"name": "Gemini"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&changed["name"], &changed["description"]),
        (&json!("Gemini"), &json!("To the moon"))
    );
    let cleared = world
        .patch(member, &path, &json!({"description": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&cleared["name"], &cleared["description"]),
        (&json!("Gemini"), &Value::Null)
    );
    for field in ["name", "status"] {
        let problem = world.patch(member, &path, &json!({field: null})).await;
        let problem = problem.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"));
    }
    let body = json!({"owner_id": world.acme.admin.id});
    let problem = world
        .patch(member, &path, &body)
        .await
        .problem(422, "unknown_field")
        .json();
    assert_eq!(problem["errors"][0]["pointer"], "/owner_id");
    let stored = world.get(member, &path).await.expect(200).json();
    assert_eq!(
        (&stored["version"], &stored["owner_id"]),
        (&json!(3), &json!(member.id))
    );
}

#[actix_web::test]
async fn every_field_that_breaks_a_rule_is_named_and_nothing_is_stored() {
    let world = World::new().await;
    let member = &world.acme.member;
    let before = world.digest(&world.acme).await;
    let cases = [
        (json!({"name": ""}), "/name", "invalid_text"),
        (json!({"name": " \t "}), "/name", "invalid_text"),
        (json!({"name": "x".repeat(121)}), "/name", "invalid_text"),
        (json!({"name": "two\nlines"}), "/name", "invalid_text"),
        (
            json!({"name": "ok", "description": "x".repeat(10_001)}),
            "/description",
            "invalid_text",
        ),
        (
            json!({"name": "ok", "description": "bell\u{7}"}),
            "/description",
            "invalid_text",
        ),
        (json!({"description": "no name"}), "/name", "required"),
        (json!({"name": 7}), "/name", "invalid_type"),
    ];
    for (body, pointer, code) in cases {
        let problem = world.post(member, "/api/v1/projects", &body).await;
        let problem = problem.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        assert_eq!(problem["errors"][0]["code"], code, "{body}");
    }
    let both = json!({"name": "", "description": "x".repeat(10_001)});
    let problem = world
        .post(member, "/api/v1/projects", &both)
        .await
        .problem(422, "validation_failed");
    let pointers: Vec<_> = problem.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].clone())
        .collect();
    assert_eq!(pointers, ["/name", "/description"]);
    let status = json!({"status": "lost"});
    let problem = world
        .patch(member, &path(&world.acme.project.to_string()), &status)
        .await;
    assert_eq!(
        problem.problem(422, "validation_failed").json()["errors"][0]["pointer"],
        "/status"
    );
    assert_eq!(world.digest(&world.acme).await, before);
    // The limits themselves hold, in characters and not in bytes.
    let widest = json!({"name": "ü".repeat(120), "description": "🚀".repeat(10_000)});
    let stored = world
        .post(member, "/api/v1/projects", &widest)
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&stored["name"], &stored["description"]),
        (&widest["name"], &widest["description"])
    );
}

#[actix_web::test]
async fn if_match_is_honoured_on_change_and_deletion() {
    let world = World::new().await;
    let member = &world.acme.member;
    let path = path(&project(&world, member, "Apollo").await);
    let patch = |tag: &str, name: &str| {
        world
            .patch(member, &path, &json!({"name": name}))
            .header("If-Match", tag)
    };
    patch("\"1\"", "Second").await.expect(200);
    for stale in ["\"1\"", "\"3\"", "W/\"2\"", "\"1\", \"3\""] {
        patch(stale, "Stale").await.problem(412, "stale_version");
        world
            .delete(member, &path)
            .header("If-Match", stale)
            .await
            .problem(412, "stale_version");
    }
    patch("two", "Malformed").await.problem(400, "invalid_request");
    assert_eq!(patch("*", "Third").await.expect(200).json()["version"], 3);
    assert_eq!(
        patch("\"9\", \"3\"", "Fourth").await.expect(200).json()["name"],
        "Fourth"
    );
    world
        .delete(member, &path)
        .header("If-Match", "\"4\"")
        .await
        .expect(204);
}

#[actix_web::test]
async fn members_make_and_change_projects_and_viewers_only_look_at_them() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let before = world.digest(&world.acme).await;
    let id = path(&world.acme.project.to_string());
    world
        .post(viewer, "/api/v1/projects", &json!({"name": "Mine"}))
        .await
        .problem(403, "forbidden");
    world
        .patch(viewer, &id, &json!({"name": "Mine"}))
        .await
        .problem(403, "forbidden");
    world.delete(viewer, &id).await.problem(403, "forbidden");
    assert_eq!(world.digest(&world.acme).await, before);
    world.get(viewer, &id).await.expect(200);
    // Somebody else's project, too.
    world
        .patch(member, &id, &json!({"description": "by a member"}))
        .await
        .expect(200);
}

#[actix_web::test]
async fn a_project_is_deleted_by_its_owner_or_an_admin_and_by_no_other_member() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let of_admin = path(&world.acme.project.to_string());
    world.delete(member, &of_admin).await.problem(403, "forbidden");
    world.get(member, &of_admin).await.expect(200);
    let own = path(&project(&world, member, "Own").await);
    world.delete(member, &own).await.expect(204);
    let other = path(&project(&world, member, "Of a member").await);
    world.delete(admin, &other).await.expect(204);
}

#[actix_web::test]
async fn a_name_is_unique_among_live_projects() {
    let world = World::new().await;
    let member = &world.acme.member;
    let first = project(&world, member, "Apollo").await;
    let second = project(&world, member, "Gemini").await;
    let taken = json!({"name": " Apollo "});
    let before = world.digest(&world.acme).await;
    world
        .post(member, "/api/v1/projects", &taken)
        .await
        .problem(409, "conflict");
    world
        .patch(member, &path(&second), &taken)
        .await
        .problem(409, "conflict");
    assert_eq!(world.digest(&world.acme).await, before);
    // A project may keep its own name.
    world.patch(member, &path(&first), &taken).await.expect(200);
    // An archived project is alive, a deleted one is not.
    world
        .patch(member, &path(&first), &json!({"status": "archived"}))
        .await
        .expect(200);
    world
        .post(member, "/api/v1/projects", &taken)
        .await
        .problem(409, "conflict");
    world.delete(member, &path(&first)).await.expect(204);
    project(&world, member, "Apollo").await;
}

#[actix_web::test]
async fn of_ten_requests_for_one_name_at_once_exactly_one_gets_it() {
    let world = World::new().await;
    let body = json!({"name": "Apollo"});
    let requests = (0..10).map(|_| world.post(&world.acme.member, "/api/v1/projects", &body).send());
    let replies = join_all(requests).await;
    let made = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(made, 1);
    for reply in replies.into_iter().filter(|reply| reply.status != 201) {
        reply.problem(409, "conflict");
    }
    let names = column(&world, &world.acme.viewer, "/api/v1/projects", "name").await;
    assert_eq!(names, ["Apollo", "Acme Inc project"]);
}

#[actix_web::test]
async fn a_deleted_project_hides_what_is_in_it() {
    let world = World::new().await;
    let (admin, viewer) = (&world.acme.admin, &world.acme.viewer);
    let id = project(&world, admin, "Apollo").await;
    let task = task(&world, admin, &id, "Build").await;
    let resource = resource(&world, admin, &id, "Plan").await;
    let other = world.digest(&world.globex).await;
    world.delete(admin, &path(&id)).await.expect(204);
    let gone = [
        format!("/api/v1/projects/{id}/tasks"),
        format!("/api/v1/projects/{id}/members"),
        format!("/api/v1/tasks/{task}"),
        format!("/api/v1/resources/{resource}"),
        format!("/api/v1/resources/{resource}/versions"),
        format!("/api/v1/resources/{resource}/versions/1"),
    ];
    for path in gone {
        world.get(viewer, &path).await.problem(404, "not_found");
    }
    let new = json!({"title": "x"});
    world
        .post(admin, &format!("/api/v1/projects/{id}/tasks"), &new)
        .await
        .problem(404, "not_found");
    let new = json!({"user_id": viewer.id});
    world
        .post(admin, &format!("/api/v1/projects/{id}/members"), &new)
        .await
        .problem(404, "not_found");
    world
        .patch(admin, &format!("/api/v1/tasks/{task}"), &json!({"title": "x"}))
        .await
        .expect(404);
    world
        .patch(
            admin,
            &format!("/api/v1/resources/{resource}"),
            &json!({"name": "x"}),
        )
        .await
        .expect(404);
    world
        .delete(admin, &format!("/api/v1/tasks/{task}"))
        .await
        .expect(404);
    world
        .delete(admin, &format!("/api/v1/resources/{resource}"))
        .await
        .expect(404);
    for list in ["/api/v1/tasks", "/api/v1/resources"] {
        assert!(
            column(&world, viewer, &format!("{list}?project_id={id}"), "id")
                .await
                .is_empty(),
            "{list}"
        );
        assert_eq!(column(&world, viewer, list, "id").await.len(), 1, "{list}");
    }
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn restoring_brings_back_exactly_what_was_deleted_along() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let id = project(&world, member, "Apollo").await;
    let before = task(&world, member, &id, "Deleted before").await;
    let along = task(&world, member, &id, "Deleted along").await;
    let plan = resource(&world, member, &id, "Plan").await;
    let removed = resource(&world, member, &id, "Removed").await;
    world
        .delete(member, &format!("/api/v1/tasks/{before}"))
        .await
        .expect(204);
    world
        .delete(member, &format!("/api/v1/resources/{removed}"))
        .await
        .expect(204);
    let other = world.digest(&world.globex).await;
    world.delete(member, &path(&id)).await.expect(204);

    let restore = format!("/api/v1/projects/{id}/restore");
    world
        .post(member, &restore, &json!({}))
        .await
        .problem(403, "forbidden");
    let restored = world.post(admin, &restore, &json!({})).await.expect(200);
    assert_eq!(restored.header("etag"), Some("\"3\""));
    let view = restored.json();
    assert_eq!((&view["deleted_at"], &view["version"]), (&Value::Null, &json!(3)));
    assert_eq!(
        (&view["owner_id"], &view["name"]),
        (&json!(member.id), &json!("Apollo"))
    );
    assert_eq!(
        column(&world, member, &format!("/api/v1/projects/{id}/tasks"), "id").await,
        [along.as_str()]
    );
    let resources = format!("/api/v1/resources?project_id={id}");
    assert_eq!(column(&world, member, &resources, "id").await, [plan.as_str()]);
    assert_eq!(
        column(&world, member, &format!("{}/members", path(&id)), "role").await,
        ["owner"]
    );
    world
        .get(member, &format!("/api/v1/tasks/{before}"))
        .await
        .problem(404, "not_found");

    // A second round: what the first restored is deleted and restored again.
    world.delete(member, &path(&id)).await.expect(204);
    world.post(admin, &restore, &json!({})).await.expect(200);
    assert_eq!(
        column(&world, member, &format!("/api/v1/projects/{id}/tasks"), "id").await,
        [along.as_str()]
    );
    assert_eq!(world.digest(&world.globex).await, other);
    assert!(
        actions(&world)
            .await
            .ends_with(&["project.deleted".into(), "project.restored".into()])
    );
}

#[actix_web::test]
async fn a_project_cannot_be_restored_twice_or_under_a_name_that_is_taken() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let first = project(&world, admin, "Apollo").await;
    let lost = task(&world, admin, &first, "Build").await;
    world.delete(admin, &path(&first)).await.expect(204);
    let second = project(&world, admin, "Apollo").await;
    let before = world.digest(&world.acme).await;
    let restore = format!("/api/v1/projects/{first}/restore");
    world
        .post(admin, &restore, &json!({}))
        .await
        .problem(409, "conflict");
    assert_eq!(world.digest(&world.acme).await, before);
    world
        .get(admin, &format!("/api/v1/tasks/{lost}"))
        .await
        .problem(404, "not_found");
    world
        .patch(admin, &path(&second), &json!({"name": "Gemini"}))
        .await
        .expect(200);
    let none = json!({});
    let (one, other) = join(
        world.post(admin, &restore, &none).send(),
        world.post(admin, &restore, &none).send(),
    )
    .await;
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    world.post(admin, &restore, &none).await.problem(409, "conflict");
    world
        .get(admin, &format!("/api/v1/tasks/{lost}"))
        .await
        .expect(200);
}

#[actix_web::test]
async fn only_admins_see_deleted_projects_in_the_list() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let id = project(&world, admin, "Apollo").await;
    world.delete(admin, &path(&id)).await.expect(204);
    let all = "/api/v1/projects?include_deleted=true";
    for who in [&world.acme.member, &world.acme.viewer] {
        world.get(who, all).await.problem(403, "forbidden");
        assert_eq!(
            column(&world, who, "/api/v1/projects", "name").await,
            ["Acme Inc project"]
        );
        let live = "/api/v1/projects?include_deleted=false";
        assert_eq!(column(&world, who, live, "name").await, ["Acme Inc project"]);
    }
    assert_eq!(
        column(&world, admin, all, "name").await,
        ["Apollo", "Acme Inc project"]
    );
    let deleted_at = column(&world, admin, all, "deleted_at").await;
    assert!(
        deleted_at[0].is_string() && deleted_at[1].is_null(),
        "{deleted_at:?}"
    );
    assert_eq!(
        column(&world, admin, "/api/v1/projects", "name").await,
        ["Acme Inc project"]
    );
    let problem = world.get(admin, "/api/v1/projects?include_deleted=yes").await;
    let problem = problem.problem(422, "validation_failed").json();
    assert_eq!(problem["errors"][0]["pointer"], "/query/include_deleted");
}

#[actix_web::test]
async fn the_list_can_be_filtered_by_status() {
    let world = World::new().await;
    let (admin, viewer) = (&world.acme.admin, &world.acme.viewer);
    let archived = project(&world, admin, "Archived").await;
    world
        .patch(admin, &path(&archived), &json!({"status": "archived"}))
        .await
        .expect(200);
    let gone = project(&world, admin, "Archived and deleted").await;
    world
        .patch(admin, &path(&gone), &json!({"status": "archived"}))
        .await
        .expect(200);
    world.delete(admin, &path(&gone)).await.expect(204);
    let names = async |query: &str| column(&world, admin, &format!("/api/v1/projects{query}"), "name").await;
    assert_eq!(names("").await, ["Archived", "Acme Inc project"]);
    assert_eq!(names("?status=archived").await, ["Archived"]);
    assert_eq!(names("?status=active").await, ["Acme Inc project"]);
    assert_eq!(
        names("?status=archived&include_deleted=true").await,
        ["Archived and deleted", "Archived"]
    );
    let problem = world
        .get(viewer, "/api/v1/projects?status=lost")
        .await
        .problem(422, "validation_failed");
    assert_eq!(problem.json()["errors"][0]["pointer"], "/query/status");
    // An archived project is still worked in where somebody wants to.
    task(&world, admin, &archived, "Late").await;
}

#[actix_web::test]
async fn every_look_at_a_project_counts_and_a_list_shows_the_count() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let path = path(&world.acme.project.to_string());
    for seen in 1..=3 {
        let view = world.get(viewer, &path).await.expect(200).json();
        assert_eq!((&view["view_count"], &view["version"]), (&json!(seen), &json!(1)));
        assert_eq!(view["updated_at"], view["created_at"]);
    }
    assert_eq!(
        column(&world, viewer, "/api/v1/projects", "view_count").await,
        [3]
    );
    assert_eq!(
        column(&world, &world.globex.viewer, "/api/v1/projects", "view_count").await,
        [0]
    );
    let foreign = format!("/api/v1/projects/{}", world.globex.project);
    world.get(viewer, &foreign).await.problem(404, "not_found");
    assert_eq!(
        column(&world, &world.globex.viewer, "/api/v1/projects", "view_count").await,
        [0]
    );
}

#[actix_web::test]
async fn people_are_taken_into_a_project_and_out_of_it() {
    let world = World::new().await;
    let (admin, member, viewer) = (&world.acme.admin, &world.acme.member, &world.acme.viewer);
    let id = project(&world, member, "Apollo").await;
    let members = format!("{}/members", path(&id));
    let added = world
        .post(member, &members, &json!({"user_id": viewer.id, "role": "viewer"}))
        .await;
    let added = added.expect(201);
    let at = format!("{members}/{}", viewer.id);
    assert_eq!(added.header("location"), Some(at.as_str()));
    let view = added.json();
    assert_eq!(view["user_id"], viewer.id.to_string());
    assert_eq!(
        (&view["email"], &view["role"]),
        (&json!(viewer.email), &json!("viewer"))
    );
    // The role is member when nothing is said; an admin need not be in the project.
    let added = world
        .post(admin, &members, &json!({"user_id": admin.id}))
        .await
        .expect(201);
    assert_eq!(added.json()["role"], "member");

    let listed = world.get(viewer, &members).await.expect(200).json();
    let rows = listed["data"].as_array().unwrap();
    let people: Vec<_> = rows
        .iter()
        .map(|row| (row["user_id"].clone(), row["role"].clone()))
        .collect();
    let person = |who: &Person, role: &str| (json!(who.id), json!(role));
    assert_eq!(
        people,
        [
            person(admin, "member"),
            person(viewer, "viewer"),
            person(member, "owner")
        ]
    );
    assert_eq!(rows[1], view);

    world.delete(member, &at).await.expect(204);
    world.delete(member, &at).await.problem(404, "not_found");
    assert_eq!(
        column(&world, viewer, &members, "email").await,
        [admin.email.as_str(), member.email.as_str()]
    );
    let actions = actions(&world).await;
    let members: Vec<_> = actions
        .iter()
        .filter(|action| action.starts_with("project.member"))
        .collect();
    assert_eq!(
        members,
        [
            "project.member_added",
            "project.member_added",
            "project.member_removed"
        ]
    );
}

#[actix_web::test]
async fn only_the_owner_and_admins_staff_a_project() {
    let world = World::new().await;
    let (admin, member, viewer) = (&world.acme.admin, &world.acme.member, &world.acme.viewer);
    let members = format!("{}/members", path(&world.acme.project.to_string()));
    world
        .post(admin, &members, &json!({"user_id": viewer.id}))
        .await
        .expect(201);
    let before = world.digest(&world.acme).await;
    for who in [member, viewer] {
        world
            .post(who, &members, &json!({"user_id": member.id}))
            .await
            .problem(403, "forbidden");
    }
    world
        .delete(member, &format!("{members}/{}", viewer.id))
        .await
        .problem(403, "forbidden");
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn nobody_is_in_a_project_twice() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let members = format!("{}/members", path(&world.acme.project.to_string()));
    let body = json!({"user_id": member.id});
    let replies = join_all((0..6).map(|_| world.post(admin, &members, &body).send())).await;
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
    world
        .post(admin, &members, &json!({"user_id": admin.id}))
        .await
        .problem(409, "conflict");
    assert_eq!(column(&world, admin, &members, "user_id").await.len(), 2);
}

#[actix_web::test]
async fn whoever_is_nobody_of_the_tenant_cannot_be_taken_in() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let removed = json!({"email": "gone@acme.example", "full_name": "Gone"});
    let removed = world
        .post(admin, "/api/v1/users", &removed)
        .await
        .expect(201)
        .json()["id"]
        .clone();
    let removed = removed.as_str().unwrap();
    world
        .delete(admin, &format!("/api/v1/users/{removed}"))
        .await
        .expect(204);
    let members = format!("{}/members", path(&world.acme.project.to_string()));
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let foreign = world.globex.member.id.to_string();
    for user in [foreign.as_str(), removed, "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11"] {
        let problem = world.post(admin, &members, &json!({"user_id": user})).await;
        let problem = problem.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], "/user_id");
        assert_eq!(problem["errors"][0]["code"], "not_found");
    }
    let cases = [
        (json!({"user_id": "me"}), "/user_id", "invalid_id"),
        (json!({"user_id": null}), "/user_id", "invalid_type"),
        (json!({"role": "member"}), "/user_id", "required"),
        (
            json!({"user_id": world.acme.member.id, "role": "boss"}),
            "/role",
            "invalid_value",
        ),
    ];
    for (body, pointer, code) in cases {
        let problem = world
            .post(admin, &members, &body)
            .await
            .problem(422, "validation_failed")
            .json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        assert_eq!(problem["errors"][0]["code"], code, "{body}");
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
}

#[actix_web::test]
async fn the_owner_stays_and_everybody_else_may_leave() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let id = project(&world, member, "Apollo").await;
    let members = format!("{}/members", path(&id));
    for who in [admin, member] {
        world
            .delete(who, &format!("{members}/{}", member.id))
            .await
            .problem(409, "conflict");
    }
    assert_eq!(column(&world, member, &members, "role").await, ["owner"]);
    // In a project of somebody else's, the same member goes when they like.
    let members = format!("{}/members", path(&world.acme.project.to_string()));
    world
        .post(admin, &members, &json!({"user_id": member.id}))
        .await
        .expect(201);
    let own = format!("{members}/{}", member.id);
    world.delete(member, &own).await.expect(204);
    world.delete(member, &own).await.problem(404, "not_found");
    assert_eq!(
        column(&world, member, &members, "user_id").await,
        [json!(admin.id)]
    );
}

#[actix_web::test]
async fn removed_users_are_not_listed_as_members() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let members = format!("{}/members", path(&world.acme.project.to_string()));
    world
        .post(admin, &members, &json!({"user_id": member.id}))
        .await
        .expect(201);
    world
        .delete(admin, &format!("/api/v1/users/{}", member.id))
        .await
        .expect(204);
    assert_eq!(
        column(&world, admin, &members, "user_id").await,
        [json!(admin.id)]
    );
}
