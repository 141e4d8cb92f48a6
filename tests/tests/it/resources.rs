//! Resources: documents and links, and the history that every change adds to.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_tests::{Person, World};

const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";

async fn resource(world: &World, body: &Value) -> Value {
    world
        .post(&world.acme.member, "/api/v1/resources", body)
        .await
        .expect(201)
        .json()
}

fn at(resource: &Value) -> String {
    format!("/api/v1/resources/{}", resource["id"].as_str().unwrap())
}

async fn rows(world: &World, who: &Person, path: &str) -> Vec<Value> {
    world.get(who, path).await.expect(200).json()["data"]
        .as_array()
        .unwrap()
        .clone()
}

fn column(rows: &[Value], field: &str) -> Vec<Value> {
    rows.iter().map(|row| row[field].clone()).collect()
}

#[track_caller]
fn pointer(problem: &Value) -> (&str, &str) {
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{problem}");
    (
        errors[0]["pointer"].as_str().unwrap(),
        errors[0]["code"].as_str().unwrap(),
    )
}

/// How many rows there are of a resource and of its history, as a superuser sees them.
async fn stored(world: &World, resource: &Value) -> (i64, i64) {
    let id = resource["id"].as_str().unwrap();
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM resources WHERE id = $1::uuid), \
                (SELECT count(*) FROM resource_versions WHERE resource_id = $1::uuid)",
    )
    .bind(id)
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap()
}

#[actix_web::test]
async fn a_resource_is_made_read_changed_and_deleted() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let other = world.digest(&world.globex).await;
    let body = json!({"name": " Flight plan ", "content": "Up.\n", "project_id": world.acme.project});
    let made = world.post(member, "/api/v1/resources", &body).await.expect(201);
    let view = made.json();
    let fields: BTreeSet<_> = view.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "content",
        "created_at",
        "created_by",
        "id",
        "kind",
        "name",
        "project_id",
        "updated_at",
        "url",
        "version",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    assert_eq!(
        (&view["name"], &view["content"]),
        (&json!("Flight plan"), &json!("Up.\n"))
    );
    assert_eq!((&view["kind"], &view["url"]), (&json!("document"), &Value::Null));
    assert_eq!(
        (&view["created_by"], &view["version"]),
        (&json!(member.id), &json!(1))
    );
    assert_eq!(view["project_id"], world.acme.project.to_string());
    assert_eq!(made.header("location"), Some(at(&view).as_str()));
    assert_eq!(made.header("etag"), Some("\"1\""));
    assert_eq!(world.get(viewer, &at(&view)).await.expect(200).json(), view);

    let changed = world
        .patch(member, &at(&view), &json!({"content": "Up, and away."}))
        .await
        .expect(200);
    let mut expected = view.clone();
    expected["content"] = json!("Up, and away.");
    expected["version"] = json!(2);
    expected["updated_at"] = changed.json()["updated_at"].clone();
    assert_eq!(
        (changed.json(), changed.header("etag")),
        (expected.clone(), Some("\"2\""))
    );
    assert_eq!(world.get(viewer, &at(&view)).await.expect(200).json(), expected);

    let free = world
        .patch(member, &at(&view), &json!({"project_id": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(free["project_id"], Value::Null);
    world.delete(member, &at(&view)).await.expect(204);
    world.get(viewer, &at(&view)).await.problem(404, "not_found");
    world
        .patch(member, &at(&view), &json!({"name": "x"}))
        .await
        .problem(404, "not_found");
    world.delete(member, &at(&view)).await.problem(404, "not_found");
    let audit = world.audit(&world.acme).await;
    let actions: Vec<_> = audit[audit.len() - 4..]
        .iter()
        .map(|(action, _)| action.as_str())
        .collect();
    assert_eq!(
        actions,
        [
            "resource.created",
            "resource.updated",
            "resource.updated",
            "resource.deleted"
        ]
    );
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn viewers_read_resources_and_write_none() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let before = world.digest(&world.acme).await;
    let path = format!("/api/v1/resources/{}", world.acme.resource);
    world.get(viewer, &path).await.expect(200);
    let body = json!({"name": "x", "content": "x"});
    world
        .post(viewer, "/api/v1/resources", &body)
        .await
        .problem(403, "forbidden");
    world
        .patch(viewer, &path, &json!({"name": "x"}))
        .await
        .problem(403, "forbidden");
    world.delete(viewer, &path).await.problem(403, "forbidden");
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn every_change_keeps_the_former_version_with_its_author() {
    let world = World::new().await;
    let (admin, member, viewer) = (&world.acme.admin, &world.acme.member, &world.acme.viewer);
    let first = resource(&world, &json!({"name": "Plan", "content": "one"})).await;
    let second = world
        .patch(admin, &at(&first), &json!({"content": "two"}))
        .await
        .expect(200)
        .json();
    let link = json!({"name": "Link", "kind": "link", "content": null, "url": "https://example.com/"});
    let third = world.patch(member, &at(&first), &link).await.expect(200).json();
    let versions = rows(&world, viewer, &format!("{}/versions", at(&first))).await;
    let fields: BTreeSet<_> = versions[0]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "content",
        "created_at",
        "created_by",
        "kind",
        "name",
        "resource_id",
        "url",
        "version",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    assert_eq!(column(&versions, "version"), [3, 2, 1]);
    assert_eq!(
        column(&versions, "content"),
        [Value::Null, json!("two"), json!("one")]
    );
    assert_eq!(
        column(&versions, "url"),
        [json!("https://example.com/"), Value::Null, Value::Null]
    );
    assert_eq!(column(&versions, "name"), ["Link", "Plan", "Plan"]);
    assert_eq!(column(&versions, "kind"), ["link", "document", "document"]);
    assert_eq!(
        column(&versions, "created_by"),
        [json!(member.id), json!(admin.id), json!(member.id)]
    );
    let times = [&third["updated_at"], &second["updated_at"], &first["created_at"]].map(Clone::clone);
    assert_eq!(column(&versions, "created_at"), times);
    for version in &versions {
        assert_eq!(version["resource_id"], first["id"]);
        let path = format!("{}/versions/{}", at(&first), version["version"]);
        assert_eq!(&world.get(viewer, &path).await.expect(200).json(), version);
    }
    // A change that is refused leaves no version.
    world
        .patch(member, &at(&first), &json!({"name": ""}))
        .await
        .problem(422, "validation_failed");
    let stale = world
        .patch(member, &at(&first), &json!({"name": "x"}))
        .header("If-Match", "\"2\"");
    stale.await.problem(412, "stale_version");
    assert_eq!(stored(&world, &first).await, (1, 3));
}

#[actix_web::test]
async fn the_history_comes_in_pages_newest_first() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let first = resource(&world, &json!({"name": "Plan", "content": "1"})).await;
    for version in 2..=7 {
        let body = json!({"content": version.to_string()});
        world.patch(member, &at(&first), &body).await.expect(200);
    }
    let mut path = format!("{}/versions?limit=3", at(&first));
    let mut pages = Vec::new();
    loop {
        let page = world.get(viewer, &path).await.expect(200).json();
        pages.push(column(page["data"].as_array().unwrap(), "version"));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        // Whatever is added meanwhile is newer than all that is left.
        world
            .patch(member, &at(&first), &json!({"content": "more"}))
            .await
            .expect(200);
        path = format!("{}/versions?limit=3&cursor={cursor}", at(&first));
    }
    assert_eq!(pages, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
}

#[actix_web::test]
async fn a_version_that_is_not_there_is_not_found() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let first = resource(&world, &json!({"name": "Plan", "content": "one"})).await;
    for number in [
        "0",
        "2",
        "-1",
        "01",
        "+1",
        "1.0",
        "one",
        "9223372036854775807",
        "9223372036854775808",
    ] {
        let path = format!("{}/versions/{number}", at(&first));
        world.get(viewer, &path).await.problem(404, "not_found");
    }
    let foreign = format!("/api/v1/resources/{}/versions", world.globex.resource);
    world.get(viewer, &foreign).await.problem(404, "not_found");
    world
        .get(viewer, &format!("{foreign}/1"))
        .await
        .problem(404, "not_found");
}

#[actix_web::test]
async fn deleting_a_resource_removes_it_and_its_history_for_good() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let kept = resource(&world, &json!({"name": "Kept", "content": "one"})).await;
    let first = resource(&world, &json!({"name": "Plan", "content": "hidden from the log"})).await;
    world
        .patch(member, &at(&first), &json!({"name": "Changed"}))
        .await
        .expect(200);
    assert_eq!(stored(&world, &first).await, (1, 2));
    world
        .delete(member, &at(&first))
        .header("If-Match", "\"1\"")
        .await
        .problem(412, "stale_version");
    assert_eq!(stored(&world, &first).await, (1, 2));
    let other = world.digest(&world.globex).await;
    world
        .delete(member, &at(&first))
        .header("If-Match", "\"2\"")
        .await
        .expect(204);
    assert_eq!(stored(&world, &first).await, (0, 0));
    assert_eq!(stored(&world, &kept).await, (1, 1));
    for path in ["/versions", "/versions/1"] {
        world
            .get(viewer, &format!("{}{path}", at(&first)))
            .await
            .problem(404, "not_found");
    }
    // What is gone for good is not in the audit log either; that it went is.
    let audit = world.audit(&world.acme).await;
    assert_eq!(audit.last().unwrap().0, "resource.deleted");
    assert!(
        audit
            .iter()
            .all(|(_, row)| !row.to_string().contains("hidden from the log"))
    );
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn a_resource_has_content_or_an_address_and_never_both() {
    let world = World::new().await;
    let member = &world.acme.member;
    let document = resource(&world, &json!({"name": "Document", "content": ""})).await;
    let link = resource(
        &world,
        &json!({"name": "Link", "url": "https://example.com/?q=1#a"}),
    )
    .await;
    assert_eq!(
        (&document["kind"], &document["content"]),
        (&json!("document"), &json!(""))
    );
    assert_eq!((&link["kind"], &link["content"]), (&json!("link"), &Value::Null));
    assert_eq!(link["url"], "https://example.com/?q=1#a");
    let before = world.digest(&world.acme).await;
    let both = json!({"name": "x", "content": "x", "url": "https://example.com"});
    let neither = json!({"name": "x"});
    let nulls = json!({"name": "x", "content": null, "url": null});
    for (body, at_field) in [(both, "/url"), (neither, "/content"), (nulls, "/content")] {
        let problem = world.post(member, "/api/v1/resources", &body).await;
        assert_eq!(
            pointer(&problem.problem(422, "validation_failed").json()),
            (at_field, "one_of"),
            "{body}"
        );
    }
    let patches = [
        (&document, json!({"url": "https://example.com"}), "/url"),
        (&document, json!({"content": null}), "/content"),
        (&link, json!({"content": "x"}), "/url"),
        (&link, json!({"url": null}), "/content"),
    ];
    for (resource, body, at_field) in patches {
        let problem = world.patch(member, &at(resource), &body).await;
        assert_eq!(
            pointer(&problem.problem(422, "validation_failed").json()),
            (at_field, "one_of"),
            "{body}"
        );
    }
    assert_eq!(world.digest(&world.acme).await, before);
    let body = json!({"content": "text", "url": null});
    let document = world.patch(member, &at(&link), &body).await.expect(200).json();
    assert_eq!(
        (&document["content"], &document["url"]),
        (&json!("text"), &Value::Null)
    );
}

#[actix_web::test]
async fn a_kind_is_a_short_label() {
    let world = World::new().await;
    let member = &world.acme.member;
    let widest = format!("a{}", "-".repeat(39));
    for kind in ["a", "meeting-notes_2", &widest] {
        let view = resource(&world, &json!({"name": "x", "content": "x", "kind": kind})).await;
        assert_eq!(view["kind"], kind);
    }
    let long = "a".repeat(41);
    let wrong = [
        "", "Document", "1st", "-a", "_a", "a b", "ä", "a.b", "a/b", "a\n", &long,
    ];
    for kind in wrong {
        let body = json!({"name": "x", "content": "x", "kind": kind});
        let made = world.post(member, "/api/v1/resources", &body).await;
        let path = format!("/api/v1/resources/{}", world.acme.resource);
        let patched = world.patch(member, &path, &json!({"kind": kind})).await;
        for reply in [made, patched] {
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(pointer(&problem), ("/kind", "invalid_kind"), "{kind:?}");
        }
    }
    // Null is the same as nothing at creation, and no value at a change.
    let view = resource(
        &world,
        &json!({"name": "x", "url": "http://example.com", "kind": null}),
    )
    .await;
    assert_eq!(view["kind"], "link");
    let problem = world.patch(member, &at(&view), &json!({"kind": null})).await;
    assert_eq!(
        pointer(&problem.problem(422, "validation_failed").json()),
        ("/kind", "required")
    );
}

#[actix_web::test]
async fn content_has_a_limit_in_characters_and_names_have_one_too() {
    let world = World::new().await;
    let member = &world.acme.member;
    for widest in ["x".repeat(262_144), "ü".repeat(262_144)] {
        let view = resource(&world, &json!({"name": "n".repeat(200), "content": widest})).await;
        assert_eq!(view["content"], widest);
        assert_eq!(world.get(member, &at(&view)).await.expect(200).json(), view);
    }
    let before = world.digest(&world.acme).await;
    let cases = [
        (
            json!({"name": "x", "content": "x".repeat(262_145)}),
            "/content",
            "invalid_text",
        ),
        (
            json!({"name": "x", "content": "bell\u{7}"}),
            "/content",
            "invalid_text",
        ),
        (
            json!({"name": "n".repeat(201), "content": ""}),
            "/name",
            "invalid_text",
        ),
        (json!({"name": " ", "content": ""}), "/name", "invalid_text"),
        (json!({"content": ""}), "/name", "required"),
    ];
    for (body, at_field, code) in cases {
        let problem = world.post(member, "/api/v1/resources", &body).await;
        assert_eq!(
            pointer(&problem.problem(422, "validation_failed").json()),
            (at_field, code)
        );
    }
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn an_address_is_http_or_https() {
    let world = World::new().await;
    let member = &world.acme.member;
    let widest = format!("https://example.com/{}", "x".repeat(1_980));
    for url in [
        "http://a",
        "https://example.com",
        "https://example.com:8443/a?b=c#d",
        "http://[::1]/",
        &widest,
    ] {
        let view = resource(&world, &json!({"name": "x", "url": url})).await;
        assert_eq!(view["url"], url);
    }
    let path = format!("/api/v1/resources/{}", world.acme.resource);
    for url in [
        "ftp://example.com",
        "javascript:alert(1)",
        "data:text/html,x",
        "//example.com",
        "example.com",
        "http://",
        "https://",
        "https:///path",
        "https://?query",
        "https://exa mple.com",
        "https://example.com\u{a0}",
        " https://example.com",
        "file:///etc/passwd",
    ] {
        let made = world
            .post(member, "/api/v1/resources", &json!({"name": "x", "url": url}))
            .await;
        let patched = world
            .patch(member, &path, &json!({"content": null, "url": url}))
            .await;
        for reply in [made, patched] {
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(pointer(&problem), ("/url", "invalid_url"), "{url:?}");
        }
    }
    let long = json!({"name": "x", "url": format!("{widest}x")});
    let problem = world
        .post(member, "/api/v1/resources", &long)
        .await
        .problem(422, "validation_failed");
    assert_eq!(pointer(&problem.json()), ("/url", "invalid_text"));
}

#[actix_web::test]
async fn a_resource_is_filed_under_projects_of_the_tenant_only() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let gone = world
        .post(admin, "/api/v1/projects", &json!({"name": "Gone"}))
        .await
        .expect(201)
        .json();
    let gone = gone["id"].as_str().unwrap();
    world
        .delete(admin, &format!("/api/v1/projects/{gone}"))
        .await
        .expect(204);
    let path = format!("/api/v1/resources/{}", world.acme.resource);
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for unknown in [gone, &world.globex.project.to_string(), NOBODY] {
        let body = json!({"name": "x", "content": "x", "project_id": unknown});
        let made = world.post(member, "/api/v1/resources", &body).await;
        let patched = world.patch(member, &path, &json!({"project_id": unknown})).await;
        for reply in [made, patched] {
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(pointer(&problem), ("/project_id", "not_found"));
        }
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
}

#[actix_web::test]
async fn the_list_can_be_filtered_by_project() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let free = resource(&world, &json!({"name": "Free", "content": "x"})).await;
    let of_project = json!({"name": "Filed", "content": "x", "project_id": world.acme.project});
    let filed = resource(&world, &of_project).await;
    let all = rows(&world, viewer, "/api/v1/resources").await;
    let old = json!(world.acme.resource);
    assert_eq!(
        column(&all, "id"),
        [filed["id"].clone(), free["id"].clone(), old.clone()]
    );
    let path = format!("/api/v1/resources?project_id={}", world.acme.project);
    assert_eq!(
        column(&rows(&world, viewer, &path).await, "id"),
        [filed["id"].clone(), old]
    );
    let foreign = format!("/api/v1/resources?project_id={}", world.globex.project);
    assert!(rows(&world, viewer, &foreign).await.is_empty());
    let problem = world
        .get(viewer, "/api/v1/resources?project_id=x")
        .await
        .problem(422, "validation_failed");
    assert_eq!(pointer(&problem.json()), ("/query/project_id", "invalid_id"));
}

#[actix_web::test]
async fn changes_at_once_give_consecutive_versions_without_gaps() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    // A race may be won by chance once, hardly four times.
    for round in 0..4 {
        let first = resource(&world, &json!({"name": "Plan", "content": "0"})).await;
        let bodies: Vec<_> = (1..=12)
            .map(|number| json!({"content": number.to_string()}))
            .collect();
        let patches = bodies
            .iter()
            .map(|body| world.patch(member, &at(&first), body).send());
        let replies = join_all(patches).await.into_iter();
        let answered: BTreeSet<_> = replies
            .map(|reply| reply.expect(200).json()["version"].as_i64())
            .collect();
        assert_eq!(answered, (2..=13).map(Some).collect(), "round {round}");
        let versions = rows(&world, viewer, &format!("{}/versions", at(&first))).await;
        assert_eq!(column(&versions, "version"), (1..=13).rev().collect::<Vec<_>>());
        let contents: BTreeSet<_> = versions
            .iter()
            .map(|version| version["content"].to_string())
            .collect();
        assert_eq!(contents.len(), 13, "every change is there once");
        let present = world.get(viewer, &at(&first)).await.expect(200).json();
        assert_eq!(
            (&present["version"], &present["content"]),
            (&json!(13), &versions[0]["content"])
        );
    }
}

#[actix_web::test]
async fn a_resource_made_while_its_project_is_deleted_never_outlives_it() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    for round in 0..10 {
        let name = json!({"name": format!("Round {round}")});
        let project = world
            .post(admin, "/api/v1/projects", &name)
            .await
            .expect(201)
            .json();
        let path = format!("/api/v1/projects/{}", project["id"].as_str().unwrap());
        let body = json!({"name": "Race", "content": "x", "project_id": project["id"]});
        let create = world.post(member, "/api/v1/resources", &body).send();
        let (create, delete) = join(create, world.delete(admin, &path).send()).await;
        delete.expect(204);
        match create.status {
            201 => world
                .get(member, &at(&create.json()))
                .await
                .problem(404, "not_found"),
            _ => create.problem(422, "validation_failed"),
        };
        let live: i64 =
            sqlx::query_scalar("SELECT count(*) FROM resources WHERE name = 'Race' AND deleted_at IS NULL")
                .fetch_one(&mut world.database.admin().await)
                .await
                .unwrap();
        assert_eq!(live, 0, "round {round}");
    }
}
