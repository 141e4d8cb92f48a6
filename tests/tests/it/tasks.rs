//! Tasks: what they may hold, how they are found, and what becomes of them when two people reach for them at
//! once.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_tests::{Person, World};

const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";

async fn project(world: &World, name: &str) -> String {
    let reply = world
        .post(&world.acme.admin, "/api/v1/projects", &json!({"name": name}))
        .await
        .expect(201);
    reply.json()["id"].as_str().unwrap().to_owned()
}

/// A task of acme's project.
async fn task(world: &World, body: &Value) -> Value {
    world
        .post(&world.acme.member, &of_acme(world), body)
        .await
        .expect(201)
        .json()
}

/// The tasks of acme's project.
fn of_acme(world: &World) -> String {
    format!("/api/v1/projects/{}/tasks", world.acme.project)
}

fn at(task: &Value) -> String {
    format!("/api/v1/tasks/{}", task["id"].as_str().unwrap())
}

async fn titles(world: &World, who: &Person, path: &str) -> Vec<String> {
    let page = world.get(who, path).await.expect(200).json();
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| row["title"].as_str().unwrap().to_owned())
        .collect()
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

/// Live tasks and resources that lie in a deleted project, which must never be.
async fn orphans(world: &World) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM projects p JOIN (\
           SELECT tenant_id, project_id FROM tasks WHERE deleted_at IS NULL UNION ALL \
           SELECT tenant_id, project_id FROM resources WHERE deleted_at IS NULL) t \
         ON t.tenant_id = p.tenant_id AND t.project_id = p.id WHERE p.deleted_at IS NOT NULL",
    )
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap()
}

#[actix_web::test]
async fn a_task_is_made_read_changed_and_deleted() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let other = world.digest(&world.globex).await;
    let body = json!({
        "title": "  Build the rocket ", "description": "Two\nlines",
        "status": "in_progress", "priority": "urgent",
        "assignee_id": viewer.id, "due_at": "2030-01-31T12:00:00.5+02:00",
    });
    let made = world.post(member, &of_acme(&world), &body).await.expect(201);
    let view = made.json();
    let fields: BTreeSet<_> = view.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "assignee_id",
        "created_at",
        "description",
        "due_at",
        "id",
        "priority",
        "project_id",
        "status",
        "title",
        "updated_at",
        "version",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    assert_eq!(view["title"], "Build the rocket");
    assert_eq!(view["description"], "Two\nlines");
    assert_eq!(
        (&view["status"], &view["priority"]),
        (&json!("in_progress"), &json!("urgent"))
    );
    assert_eq!(view["assignee_id"], viewer.id.to_string());
    assert_eq!(view["due_at"], "2030-01-31T10:00:00.500Z");
    assert_eq!(view["project_id"], world.acme.project.to_string());
    assert_eq!(
        (&view["version"], &view["created_at"]),
        (&json!(1), &view["updated_at"])
    );
    assert_eq!(made.header("location"), Some(at(&view).as_str()));
    assert_eq!(made.header("etag"), Some("\"1\""));
    let read = world.get(viewer, &at(&view)).await.expect(200);
    assert_eq!((read.json(), read.header("etag")), (view.clone(), Some("\"1\"")));

    let changed = world
        .patch(member, &at(&view), &json!({"status": "done"}))
        .await
        .expect(200);
    let mut expected = view.clone();
    expected["status"] = json!("done");
    expected["version"] = json!(2);
    expected["updated_at"] = changed.json()["updated_at"].clone();
    assert_eq!(
        (changed.json(), changed.header("etag")),
        (expected, Some("\"2\""))
    );

    world.delete(member, &at(&view)).await.expect(204);
    world.get(viewer, &at(&view)).await.problem(404, "not_found");
    world
        .patch(member, &at(&view), &json!({"status": "todo"}))
        .await
        .problem(404, "not_found");
    world.delete(member, &at(&view)).await.problem(404, "not_found");
    let audit = world.audit(&world.acme).await;
    let actions: Vec<_> = audit[audit.len() - 3..]
        .iter()
        .map(|(action, _)| action.as_str())
        .collect();
    assert_eq!(actions, ["task.created", "task.updated", "task.deleted"]);
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn a_task_with_nothing_but_a_title_has_the_usual_values() {
    let world = World::new().await;
    let view = task(&world, &json!({"title": "Plain"})).await;
    assert_eq!(
        (&view["status"], &view["priority"]),
        (&json!("todo"), &json!("normal"))
    );
    for field in ["description", "assignee_id", "due_at"] {
        assert_eq!(view[field], Value::Null, "{field}");
    }
}

#[actix_web::test]
async fn viewers_read_tasks_and_write_none() {
    let world = World::new().await;
    let viewer = &world.acme.viewer;
    let before = world.digest(&world.acme).await;
    let path = format!("/api/v1/tasks/{}", world.acme.task);
    world.get(viewer, &path).await.expect(200);
    world
        .post(viewer, &of_acme(&world), &json!({"title": "x"}))
        .await
        .problem(403, "forbidden");
    world
        .patch(viewer, &path, &json!({"title": "x"}))
        .await
        .problem(403, "forbidden");
    world.delete(viewer, &path).await.problem(403, "forbidden");
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn tasks_are_found_by_project_status_and_assignee_and_by_all_of_them_at_once() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    world
        .delete(member, &format!("/api/v1/tasks/{}", world.acme.task))
        .await
        .expect(204);
    let second = project(&world, "Second").await;
    let (first, second_tasks) = (of_acme(&world), format!("/api/v1/projects/{second}/tasks"));
    let all = [
        (
            &first,
            json!({"title": "a", "assignee_id": member.id, "status": "todo"}),
        ),
        (
            &first,
            json!({"title": "b", "assignee_id": viewer.id, "status": "done"}),
        ),
        (&first, json!({"title": "c", "status": "done"})),
        (
            &second_tasks,
            json!({"title": "d", "assignee_id": member.id, "status": "done"}),
        ),
        (
            &second_tasks,
            json!({"title": "ab", "assignee_id": member.id, "status": "cancelled"}),
        ),
    ];
    for (path, body) in &all {
        world.post(member, path, body).await.expect(201);
    }
    let (project, assignee) = (world.acme.project, member.id);
    let cases = [
        (String::new(), vec!["ab", "d", "c", "b", "a"]),
        (format!("?project_id={project}"), vec!["c", "b", "a"]),
        (format!("?project_id={second}"), vec!["ab", "d"]),
        ("?status=done".into(), vec!["d", "c", "b"]),
        ("?status=in_progress".into(), vec![]),
        (format!("?assignee_id={assignee}"), vec!["ab", "d", "a"]),
        ("?q=b".into(), vec!["ab", "b"]),
        (format!("?project_id={project}&status=done"), vec!["c", "b"]),
        (
            format!("?project_id={second}&assignee_id={assignee}&status=done"),
            vec!["d"],
        ),
        (format!("?assignee_id={assignee}&q=A"), vec!["ab", "a"]),
        (
            format!("?project_id={second}&assignee_id={assignee}&status=cancelled&q=B"),
            vec!["ab"],
        ),
        (
            format!("?project_id={second}&assignee_id={assignee}&status=todo&q=B"),
            vec![],
        ),
        (format!("?project_id={NOBODY}"), vec![]),
        (format!("?assignee_id={NOBODY}"), vec![]),
        (format!("?project_id={}", world.globex.project), vec![]),
        (format!("?assignee_id={}", world.globex.member.id), vec![]),
    ];
    for (query, expected) in cases {
        assert_eq!(
            titles(&world, viewer, &format!("/api/v1/tasks{query}")).await,
            expected,
            "{query}"
        );
    }
    assert_eq!(
        titles(&world, viewer, &format!("{first}?status=done")).await,
        ["c", "b"]
    );
    assert_eq!(
        titles(&world, viewer, &format!("{first}?assignee_id={assignee}&q=A")).await,
        ["a"]
    );
    let foreign = format!("/api/v1/projects/{}/tasks", world.globex.project);
    world.get(viewer, &foreign).await.problem(404, "not_found");
    // The project is in the path here and not in the query.
    let twice = world.get(viewer, &format!("{first}?project_id={second}")).await;
    assert_eq!(
        pointer(&twice.problem(422, "unknown_field").json()),
        ("/query/project_id", "unknown_field")
    );
}

#[actix_web::test]
async fn a_filter_that_cannot_be_is_named() {
    let world = World::new().await;
    let long = format!("q={}", "x".repeat(201));
    let cases = [
        ("status=lost", "/query/status", "invalid_value"),
        ("project_id=first", "/query/project_id", "invalid_id"),
        ("assignee_id=", "/query/assignee_id", "invalid_id"),
        ("q=", "/query/q", "invalid_text"),
        (long.as_str(), "/query/q", "invalid_text"),
        ("q=a%0Ab", "/query/q", "invalid_text"),
    ];
    for (query, at, code) in cases {
        let reply = world
            .get(&world.acme.viewer, &format!("/api/v1/tasks?{query}"))
            .await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(pointer(&problem), (at, code), "{query}");
    }
}

#[actix_web::test]
async fn text_to_look_for_means_itself_whatever_the_case() {
    let world = World::new().await;
    let all = [
        "100% done",
        "100 done",
        "a_b",
        "axb",
        "C:\\temp",
        "C:temp",
        "ÄRGER",
        "Rocket 🚀",
        "it's \"quoted\"",
    ];
    for title in all {
        task(&world, &json!({"title": title})).await;
    }
    let cases = [
        ("100%25", vec!["100% done"]),
        ("%25", vec!["100% done"]),
        ("0%25%20D", vec!["100% done"]),
        ("_", vec!["a_b"]),
        ("A_B", vec!["a_b"]),
        ("%5C", vec!["C:\\temp"]),
        ("%5Ctemp", vec!["C:\\temp"]),
        ("%5C%25", vec![]),
        ("DONE", vec!["100 done", "100% done"]),
        ("%C3%A4rger", vec!["ÄRGER"]),
        ("%F0%9F%9A%80", vec!["Rocket 🚀"]),
        ("it's", vec!["it's \"quoted\""]),
        ("';%20DROP%20TABLE%20tasks;%20--", vec![]),
        ("%22", vec!["it's \"quoted\""]),
        ("inc+TASK", vec!["Acme Inc task"]),
    ];
    for (q, expected) in cases {
        let found = titles(&world, &world.acme.viewer, &format!("/api/v1/tasks?q={q}")).await;
        assert_eq!(found, expected, "{q}");
    }
}

#[actix_web::test]
async fn a_task_moves_between_projects_and_to_none_that_is_not_there() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let other = world.digest(&world.globex).await;
    let second = project(&world, "Second").await;
    let moving = task(&world, &json!({"title": "Moving"})).await;
    let moved = world
        .patch(member, &at(&moving), &json!({"project_id": second}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&moved["project_id"], &moved["title"]),
        (&json!(second), &json!("Moving"))
    );
    assert_eq!(
        titles(&world, member, &format!("/api/v1/projects/{second}/tasks")).await,
        ["Moving"]
    );
    assert_eq!(titles(&world, member, &of_acme(&world)).await, ["Acme Inc task"]);
    let gone = project(&world, "Gone").await;
    world
        .delete(admin, &format!("/api/v1/projects/{gone}"))
        .await
        .expect(204);
    let before = world.digest(&world.acme).await;
    for unknown in [&gone, &world.globex.project.to_string(), NOBODY] {
        let problem = world
            .patch(member, &at(&moving), &json!({"project_id": unknown}))
            .await;
        let problem = problem.problem(422, "validation_failed").json();
        assert_eq!(pointer(&problem), ("/project_id", "not_found"));
    }
    let problem = world
        .patch(member, &at(&moving), &json!({"project_id": null}))
        .await;
    assert_eq!(
        pointer(&problem.problem(422, "validation_failed").json()),
        ("/project_id", "required")
    );
    assert_eq!(world.digest(&world.acme).await, before);
    // What was moved goes with its new project, not with its old one.
    world
        .delete(admin, &format!("/api/v1/projects/{}", world.acme.project))
        .await
        .expect(204);
    world.get(member, &at(&moving)).await.expect(200);
    world
        .delete(admin, &format!("/api/v1/projects/{second}"))
        .await
        .expect(204);
    world.get(member, &at(&moving)).await.problem(404, "not_found");
    assert_eq!(world.digest(&world.globex).await, other);
}

#[actix_web::test]
async fn a_task_is_given_to_people_of_the_tenant_only() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let removed = json!({"email": "gone@acme.example", "full_name": "Gone"});
    let removed = world
        .post(admin, "/api/v1/users", &removed)
        .await
        .expect(201)
        .json();
    let removed = removed["id"].as_str().unwrap();
    world
        .delete(admin, &format!("/api/v1/users/{removed}"))
        .await
        .expect(204);
    let given = task(&world, &json!({"title": "Given", "assignee_id": member.id})).await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for unknown in [removed, &world.globex.member.id.to_string(), NOBODY] {
        let body = json!({"title": "x", "assignee_id": unknown});
        let made = world.post(member, &of_acme(&world), &body).await;
        let patched = world
            .patch(member, &at(&given), &json!({"assignee_id": unknown}))
            .await;
        for reply in [made, patched] {
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(pointer(&problem), ("/assignee_id", "not_found"));
        }
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    let body = json!({"assignee_id": world.acme.viewer.id});
    let view = world.patch(member, &at(&given), &body).await.expect(200).json();
    assert_eq!(view["assignee_id"], world.acme.viewer.id.to_string());
    let view = world
        .patch(member, &at(&given), &json!({"assignee_id": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(view["assignee_id"], Value::Null);
}

#[actix_web::test]
async fn a_task_cannot_be_made_in_a_project_that_is_not_there() {
    let world = World::new().await;
    let gone = project(&world, "Gone").await;
    world
        .delete(&world.acme.admin, &format!("/api/v1/projects/{gone}"))
        .await
        .expect(204);
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for unknown in [&gone, &world.globex.project.to_string(), NOBODY, "nope"] {
        let path = format!("/api/v1/projects/{unknown}/tasks");
        world
            .post(&world.acme.member, &path, &json!({"title": "x"}))
            .await
            .problem(404, "not_found");
        world
            .get(&world.acme.member, &path)
            .await
            .problem(404, "not_found");
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
}

#[actix_web::test]
async fn a_deadline_is_a_time_and_can_be_cleared() {
    let world = World::new().await;
    let member = &world.acme.member;
    let due = task(
        &world,
        &json!({"title": "Due", "due_at": "2030-06-30T23:59:59.123456789Z"}),
    )
    .await;
    assert_eq!(due["due_at"], "2030-06-30T23:59:59.123456Z");
    let kept = world
        .patch(member, &at(&due), &json!({"title": "Still due"}))
        .await
        .expect(200)
        .json();
    assert_eq!(kept["due_at"], due["due_at"]);
    let cleared = world
        .patch(member, &at(&due), &json!({"due_at": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(cleared["due_at"], Value::Null);
    let none = task(&world, &json!({"title": "No deadline", "due_at": null})).await;
    assert_eq!(none["due_at"], Value::Null);
    let before = world.digest(&world.acme).await;
    let cases = [
        (json!("tomorrow"), "invalid_value"),
        (json!("2030-01-31"), "invalid_value"),
        (json!("2030-01-31T12:00:00"), "invalid_value"),
        (json!("2030-02-30T12:00:00Z"), "invalid_value"),
        (json!("2030-06-30T23:59:60Z"), "invalid_value"),
        (json!("+12030-01-31T12:00:00Z"), "invalid_value"),
        (json!("1969-12-31T23:59:59Z"), "out_of_range"),
        (json!("0001-01-01T00:00:00+14:00"), "out_of_range"),
        (json!("9999-12-31T23:59:59-12:00"), "out_of_range"),
        (json!(""), "invalid_value"),
        (json!(1_900_000_000), "invalid_type"),
    ];
    for (due_at, code) in cases {
        let body = json!({"title": "x", "due_at": due_at});
        let made = world.post(member, &of_acme(&world), &body).await;
        let patched = world.patch(member, &at(&due), &json!({"due_at": due_at})).await;
        for reply in [made, patched] {
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(pointer(&problem), ("/due_at", code), "{due_at}");
        }
    }
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn every_field_that_breaks_a_rule_is_named_and_nothing_is_stored() {
    let world = World::new().await;
    let member = &world.acme.member;
    let stored = task(&world, &json!({"title": "Stored"})).await;
    let before = world.digest(&world.acme).await;
    let cases = [
        (json!({"title": ""}), "/title", "invalid_text"),
        (json!({"title": "\u{3000} \t"}), "/title", "invalid_text"),
        (json!({"title": "ü".repeat(201)}), "/title", "invalid_text"),
        (json!({"title": "two\nlines"}), "/title", "invalid_text"),
        (json!({"title": ["x"]}), "/title", "invalid_type"),
        (
            json!({"title": "x", "description": "x".repeat(20_001)}),
            "/description",
            "invalid_text",
        ),
        (
            json!({"title": "x", "status": "lost"}),
            "/status",
            "invalid_value",
        ),
        (
            json!({"title": "x", "status": "Done"}),
            "/status",
            "invalid_value",
        ),
        (json!({"title": "x", "status": 1}), "/status", "invalid_type"),
        (
            json!({"title": "x", "status": {"done": null}}),
            "/status",
            "invalid_type",
        ),
        (
            json!({"title": "x", "priority": ["low"]}),
            "/priority",
            "invalid_type",
        ),
        (
            json!({"title": "x", "priority": "blocker"}),
            "/priority",
            "invalid_value",
        ),
        (
            json!({"title": "x", "priority": ""}),
            "/priority",
            "invalid_value",
        ),
        (
            json!({"title": "x", "assignee_id": "me"}),
            "/assignee_id",
            "invalid_id",
        ),
        (
            json!({"title": "x", "assignee_id": true}),
            "/assignee_id",
            "invalid_type",
        ),
    ];
    for (body, at_field, code) in &cases {
        let made = world.post(member, &of_acme(&world), body).await;
        let patched = world.patch(member, &at(&stored), body).await;
        for reply in [made, patched] {
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(pointer(&problem), (*at_field, *code), "{body}");
        }
    }
    for field in ["title", "status", "priority"] {
        let reply = world.patch(member, &at(&stored), &json!({field: null})).await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(pointer(&problem), (format!("/{field}").as_str(), "required"));
    }
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn the_length_of_a_title_counts_in_characters_after_trimming() {
    let world = World::new().await;
    for character in ["x", "ü", "漢", "🚀"] {
        let widest = character.repeat(200);
        let view = task(&world, &json!({"title": format!("  {widest}\n")})).await;
        assert_eq!(view["title"], widest);
        let reread = world.get(&world.acme.viewer, &at(&view)).await.expect(200).json();
        assert_eq!(reread, view);
    }
    let description = "🚀".repeat(20_000);
    let view = task(&world, &json!({"title": "Wide", "description": description})).await;
    assert_eq!(view["description"], description);
}

#[actix_web::test]
async fn if_match_is_honoured_on_change_and_deletion() {
    let world = World::new().await;
    let member = &world.acme.member;
    let first = task(&world, &json!({"title": "First"})).await;
    let patch = |tag: &str| {
        world
            .patch(member, &at(&first), &json!({"status": "done"}))
            .header("If-Match", tag)
    };
    let stale = patch("\"2\"").await.problem(412, "stale_version").json();
    assert!(stale["detail"].as_str().unwrap().contains('1'), "{stale}");
    patch("\"1\"").await.expect(200);
    patch("\"1\"").await.problem(412, "stale_version");
    world
        .delete(member, &at(&first))
        .header("If-Match", "\"1\"")
        .await
        .problem(412, "stale_version");
    patch("nonsense").await.problem(400, "invalid_request");
    world
        .delete(member, &at(&first))
        .header("If-Match", "\"2\"")
        .await
        .expect(204);
    patch("\"2\"").await.problem(404, "not_found");
}

#[actix_web::test]
async fn of_two_changes_of_one_version_at_once_one_is_stale() {
    let world = World::new().await;
    let changed = task(&world, &json!({"title": "Contended"})).await;
    for version in 1..=10 {
        let tag = format!("\"{version}\"");
        let patch = |title: &str| {
            let body = json!({"title": title});
            world
                .patch(&world.acme.member, &at(&changed), &body)
                .header("If-Match", &tag)
                .send()
        };
        let (one, other) = join(patch("one"), patch("other")).await;
        let (won, lost, title) = if one.status == 200 {
            (one, other, "one")
        } else {
            (other, one, "other")
        };
        assert_eq!(won.expect(200).json()["version"], version + 1);
        lost.problem(412, "stale_version");
        let stored = world
            .get(&world.acme.viewer, &at(&changed))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&stored["title"], &stored["version"]),
            (&json!(title), &json!(version + 1))
        );
    }
}

#[actix_web::test]
async fn changes_of_different_fields_at_once_are_all_kept() {
    let world = World::new().await;
    let bodies = [
        json!({"title": "New title"}),
        json!({"description": "New description"}),
        json!({"status": "done"}),
        json!({"priority": "high"}),
        json!({"assignee_id": world.acme.viewer.id}),
        json!({"due_at": "2030-01-01T00:00:00Z"}),
    ];
    // A race may be won by chance once, hardly four times.
    for _ in 0..4 {
        let changed = task(&world, &json!({"title": "Contended"})).await;
        let patches = bodies
            .iter()
            .map(|body| world.patch(&world.acme.member, &at(&changed), body).send());
        for reply in join_all(patches).await {
            reply.expect(200);
        }
        let stored = world
            .get(&world.acme.viewer, &at(&changed))
            .await
            .expect(200)
            .json();
        for (field, value) in bodies.iter().filter_map(Value::as_object).flatten() {
            assert_eq!(&stored[field], value);
        }
        assert_eq!(stored["version"], 7);
    }
}

#[actix_web::test]
async fn a_task_made_while_its_project_is_deleted_never_outlives_it() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let mut made = 0;
    for round in 0..20 {
        let id = project(&world, &format!("Round {round}")).await;
        let create = world
            .post(
                member,
                &format!("/api/v1/projects/{id}/tasks"),
                &json!({"title": "Race"}),
            )
            .send();
        let delete = world.delete(admin, &format!("/api/v1/projects/{id}")).send();
        // Either may be first; both orders are tried.
        let (create, delete) = if round % 2 == 0 {
            join(create, delete).await
        } else {
            let (delete, create) = join(delete, create).await;
            (create, delete)
        };
        delete.expect(204);
        match create.status {
            201 => {
                made += 1;
                world
                    .get(member, &at(&create.json()))
                    .await
                    .problem(404, "not_found");
            }
            _ => drop(create.problem(404, "not_found")),
        }
        assert_eq!(orphans(&world).await, 0, "round {round}");
    }
    assert_eq!(
        titles(&world, member, "/api/v1/tasks").await,
        ["Acme Inc task"],
        "{made} were made"
    );
}

#[actix_web::test]
async fn a_task_moved_into_a_project_while_that_is_deleted_never_outlives_it() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    for round in 0..10 {
        let id = project(&world, &format!("Round {round}")).await;
        let moving = task(&world, &json!({"title": "Race"})).await;
        let body = json!({"project_id": id});
        let patch = world.patch(member, &at(&moving), &body).send();
        let delete = world.delete(admin, &format!("/api/v1/projects/{id}")).send();
        let (patch, delete) = join(patch, delete).await;
        delete.expect(204);
        let survives = match patch.status {
            200 => 404,
            _ => {
                assert_eq!(
                    pointer(&patch.problem(422, "validation_failed").json()),
                    ("/project_id", "not_found")
                );
                200
            }
        };
        world.get(member, &at(&moving)).await.expect(survives);
        assert_eq!(orphans(&world).await, 0, "round {round}");
    }
}

#[actix_web::test]
async fn a_task_changed_while_its_project_is_deleted_stays_deleted() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    for round in 0..10 {
        let id = project(&world, &format!("Round {round}")).await;
        let path = format!("/api/v1/projects/{id}/tasks");
        let changing = world
            .post(member, &path, &json!({"title": "Race"}))
            .await
            .expect(201)
            .json();
        let body = json!({"title": "Changed"});
        let patch = world.patch(member, &at(&changing), &body).send();
        let delete = world.delete(admin, &format!("/api/v1/projects/{id}")).send();
        let (patch, delete) = join(patch, delete).await;
        delete.expect(204);
        assert!(matches!(patch.status, 200 | 404), "{}", patch.text());
        world.get(member, &at(&changing)).await.problem(404, "not_found");
        assert_eq!(orphans(&world).await, 0, "round {round}");
    }
}

#[actix_web::test]
async fn two_requests_that_wait_for_each_other_both_get_an_answer() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    for round in 0..3 {
        let id = project(&world, &format!("Round {round}")).await;
        let path = format!("/api/v1/projects/{id}/tasks");
        let waiting = world
            .post(member, &path, &json!({"title": "Race"}))
            .await
            .expect(201)
            .json();
        // One holds the task and wants the project, the other holds the project and wants the task.
        let body = json!({"project_id": id});
        let patch = world.patch(member, &at(&waiting), &body).send();
        let delete = world.delete(admin, &format!("/api/v1/projects/{id}")).send();
        let (patch, delete) = join(patch, delete).await;
        delete.expect(204);
        assert!(matches!(patch.status, 200 | 404 | 422), "{}", patch.text());
        world.get(member, &at(&waiting)).await.problem(404, "not_found");
        assert_eq!(orphans(&world).await, 0, "round {round}");
    }
}
