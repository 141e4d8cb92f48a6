//! Lists in pages: every list of the API is walked from end to end, whatever is added meanwhile, and a cursor
//! is good for nothing but the list, the filter and the tenant it was given out for.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tenantry_tests::{Reply, TenantWorld, World};

/// A list of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Users,
    Projects,
    Members,
    Tasks,
    ProjectTasks,
    Resources,
    Versions,
}

impl List {
    const ALL: [Self; 7] = [
        Self::Users,
        Self::Projects,
        Self::Members,
        Self::Tasks,
        Self::ProjectTasks,
        Self::Resources,
        Self::Versions,
    ];

    fn path(self, tenant: &TenantWorld) -> String {
        match self {
            Self::Users => "/api/v1/users".into(),
            Self::Projects => "/api/v1/projects".into(),
            Self::Members => format!("/api/v1/projects/{}/members", tenant.project),
            Self::Tasks => "/api/v1/tasks".into(),
            Self::ProjectTasks => format!("/api/v1/projects/{}/tasks", tenant.project),
            Self::Resources => "/api/v1/resources".into(),
            Self::Versions => format!("/api/v1/resources/{}/versions", tenant.resource),
        }
    }

    /// The field that tells rows apart.
    fn key(self) -> &'static str {
        match self {
            Self::Members => "user_id",
            Self::Versions => "version",
            _ => "id",
        }
    }

    /// Adds a row; its key.
    async fn add(self, world: &World, tenant: &TenantWorld, label: &str) -> Value {
        let admin = &tenant.admin;
        let post = async |path: &str, body: Value| world.post(admin, path, &body).await.expect(201).json();
        let path = self.path(tenant);
        let row = match self {
            Self::Users => {
                post(
                    &path,
                    json!({"email": format!("{label}@x.example"), "full_name": label}),
                )
                .await
            }
            Self::Projects => post(&path, json!({"name": label})).await,
            Self::Members => {
                let email = format!("{label}@x.example");
                let user = post("/api/v1/users", json!({"email": email, "full_name": label})).await;
                post(&path, json!({"user_id": user["id"]})).await
            }
            Self::Tasks | Self::ProjectTasks => {
                post(&Self::ProjectTasks.path(tenant), json!({"title": label})).await
            }
            Self::Resources => post(&path, json!({"name": label, "content": label})).await,
            Self::Versions => {
                let path = format!("/api/v1/resources/{}", tenant.resource);
                let changed = world.patch(admin, &path, &json!({"content": label})).await;
                changed.expect(200).json()
            }
        };
        row[self.key()].clone()
    }
}

/// The page that `Link` leads to, which is the one of `next_cursor`.
fn next(page: &Reply) -> Option<String> {
    let link = page.header("link").map(|link| {
        let target = link
            .strip_prefix('<')
            .and_then(|link| link.strip_suffix(">; rel=\"next\""));
        target.unwrap_or_else(|| panic!("{link}")).to_owned()
    });
    match (link, page.json()["next_cursor"].as_str()) {
        (Some(link), Some(cursor)) => {
            assert!(
                link.contains(&format!("cursor={cursor}")),
                "{link} is not the page of {cursor}"
            );
            Some(link)
        }
        (None, None) => {
            assert_eq!(page.json()["next_cursor"], Value::Null);
            None
        }
        (link, cursor) => panic!("Link and next_cursor disagree: {link:?}, {cursor:?}"),
    }
}

fn keys(list: List, page: &Reply) -> Vec<Value> {
    page.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[list.key()].clone())
        .collect()
}

async fn page(world: &World, path: &str) -> Reply {
    world.get(&world.acme.viewer, path).await.expect(200)
}

/// The keys of every page, by following `Link`.
async fn walk(world: &World, list: List, path: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(at) = path {
        let page = page(world, &at).await;
        pages.push(keys(list, &page));
        path = next(&page);
        assert!(pages.len() < 1_000, "the walk of {list:?} does not end");
    }
    pages
}

fn with(path: &str, parameter: &str) -> String {
    format!("{path}{}{parameter}", if path.contains('?') { '&' } else { '?' })
}

#[actix_web::test]
async fn every_list_is_walked_newest_first_in_pages_of_any_size() {
    let world = World::new().await;
    let before = world.digest(&world.globex).await;
    for list in List::ALL {
        let path = list.path(&world.acme);
        let mut added = Vec::new();
        for number in 0..4 {
            added.push(
                list.add(&world, &world.acme, &format!("walk-{list:?}-{number}"))
                    .await,
            );
        }
        let all = keys(list, &page(&world, &with(&path, "limit=100")).await);
        added.reverse();
        assert_eq!(all[..4], added, "{list:?}");
        assert!(all.len() > 4, "{list:?}: {all:?}");
        for limit in 1..=3 {
            let pages = walk(&world, list, &with(&path, &format!("limit={limit}"))).await;
            assert_eq!(pages.concat(), all, "{list:?} by {limit}");
            let (last, full) = pages.split_last().unwrap();
            assert!(
                full.iter().all(|page| page.len() == limit),
                "{list:?} by {limit}: {pages:?}"
            );
            assert!(
                (1..=limit).contains(&last.len()),
                "{list:?} by {limit}: {pages:?}"
            );
        }
    }
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn rows_added_during_a_walk_move_nothing() {
    let world = World::new().await;
    for list in List::ALL {
        let path = list.path(&world.acme);
        for number in 0..3 {
            list.add(&world, &world.acme, &format!("before-{list:?}-{number}"))
                .await;
        }
        let there = keys(list, &page(&world, &path).await);
        let mut seen = Vec::new();
        let mut at = Some(with(&path, "limit=1"));
        while let Some(path) = at {
            let page = page(&world, &path).await;
            seen.extend(keys(list, &page));
            at = next(&page);
            let number = seen.len();
            list.add(&world, &world.acme, &format!("during-{list:?}-{number}"))
                .await;
        }
        assert_eq!(seen, there, "{list:?}");
    }
}

#[actix_web::test]
async fn a_walk_goes_on_after_the_row_it_stands_on_was_deleted() {
    let world = World::new().await;
    for number in 0..4 {
        List::Tasks
            .add(&world, &world.acme, &format!("Task {number}"))
            .await;
    }
    let all = keys(List::Tasks, &page(&world, "/api/v1/tasks").await);
    let first = page(&world, "/api/v1/tasks?limit=2").await;
    let on = format!("/api/v1/tasks/{}", all[1].as_str().unwrap());
    world.delete(&world.acme.member, &on).await.expect(204);
    let rest = walk(&world, List::Tasks, &next(&first).unwrap()).await.concat();
    assert_eq!(rest, all[2..]);
}

#[actix_web::test]
async fn the_last_page_says_so_even_when_it_is_full() {
    let world = World::new().await;
    for list in List::ALL {
        let path = list.path(&world.acme);
        for number in 0..2 {
            list.add(&world, &world.acme, &format!("last-{list:?}-{number}"))
                .await;
        }
        let all = keys(list, &page(&world, &path).await).len();
        let exactly = page(&world, &with(&path, &format!("limit={all}"))).await;
        assert_eq!(keys(list, &exactly).len(), all, "{list:?}");
        assert_eq!(next(&exactly), None, "{list:?}");
        let fewer = page(&world, &with(&path, &format!("limit={}", all - 1))).await;
        assert!(next(&fewer).is_some(), "{list:?}");
    }
    let nothing = page(&world, "/api/v1/tasks?status=cancelled").await;
    assert_eq!(nothing.json(), json!({"data": [], "next_cursor": null}));
    assert_eq!(next(&nothing), None);
}

#[actix_web::test]
async fn the_limit_is_1_to_100_and_50_when_nothing_is_said() {
    let world = World::new().await;
    let wrong = [
        "0",
        "101",
        "abc",
        "-1",
        "1.5",
        "",
        "%20",
        "1e1",
        "99999999999999999999",
        "%00",
        "%EF%BC%90",
    ];
    for list in List::ALL {
        let path = list.path(&world.acme);
        for limit in wrong {
            let path = with(&path, &format!("limit={limit}"));
            let reply = world.get(&world.acme.viewer, &path).await;
            let problem = reply.problem(422, "validation_failed").json();
            assert_eq!(problem["errors"][0]["pointer"], "/query/limit", "{path}");
            assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{path}");
        }
    }
    add_tasks(&world, &world.acme, 150).await;
    assert_eq!(keys(List::Tasks, &page(&world, "/api/v1/tasks").await).len(), 50);
    assert_eq!(
        keys(List::Tasks, &page(&world, "/api/v1/tasks?limit=100").await).len(),
        100
    );
    assert_eq!(
        keys(List::Tasks, &page(&world, "/api/v1/tasks?limit=1").await).len(),
        1
    );
}

#[actix_web::test]
async fn a_cursor_is_good_for_its_own_list_filter_and_tenant_only() {
    let world = World::new().await;
    let mut cursors = Vec::new();
    for tenant in [&world.acme, &world.globex] {
        for list in List::ALL {
            for number in 0..2 {
                list.add(&world, tenant, &format!("cursor-{list:?}-{number}"))
                    .await;
            }
            let path = list.path(tenant);
            let page = world
                .get(&tenant.viewer, &with(&path, "limit=1"))
                .await
                .expect(200);
            cursors.push((
                tenant.slug,
                list,
                page.json()["next_cursor"].as_str().unwrap().to_owned(),
            ));
        }
    }
    let long = "A".repeat(5_000);
    let garbage = [
        "",
        "x",
        "null",
        "0",
        "%25",
        "AAAA",
        "%F0%9F%9A%80",
        "../../etc/passwd",
        "' OR 1=1 --",
        &long,
    ];
    let mut refused = 0;
    for list in List::ALL {
        let path = list.path(&world.acme);
        let others = cursors
            .iter()
            .filter(|(slug, of, _)| *slug != "acme" || *of != list);
        let others = others.map(|(_, _, cursor)| cursor.as_str());
        for cursor in others.chain(garbage) {
            let path = with(&path, &format!("cursor={}", cursor.replace(' ', "%20")));
            let reply = world.get(&world.acme.viewer, &path).await;
            reply.problem(400, "invalid_cursor");
            refused += 1;
        }
        let (_, _, own) = cursors
            .iter()
            .find(|(slug, of, _)| *slug == "acme" && *of == list)
            .unwrap();
        // How many rows a page has is no part of what a cursor is bound to.
        for limit in ["", "&limit=1", "&limit=100"] {
            page(&world, &with(&path, &format!("cursor={own}{limit}"))).await;
        }
    }
    assert_eq!(refused, 7 * (13 + 10));
}

#[actix_web::test]
async fn a_cursor_belongs_to_the_filter_it_was_given_out_for() {
    let world = World::new().await;
    add_tasks(&world, &world.acme, 5).await;
    let project = world.acme.project;
    let filters = [
        String::new(),
        "status=todo".into(),
        "status=done".into(),
        "q=task".into(),
        "q=TASK".into(),
        format!("project_id={project}"),
        format!("project_id={project}&status=todo"),
    ];
    let mut cursors = Vec::new();
    for filter in &filters {
        let page = page(&world, &with("/api/v1/tasks?limit=1", filter).replace("&&", "&")).await;
        cursors.push(page.json()["next_cursor"].as_str().map(str::to_owned));
    }
    assert_eq!(
        cursors.iter().flatten().count(),
        6,
        "nothing is done: {cursors:?}"
    );
    for (index, filter) in filters.iter().enumerate() {
        for (given_for, cursor) in cursors.iter().enumerate() {
            let Some(cursor) = cursor else { continue };
            let path = format!("/api/v1/tasks?cursor={cursor}&{filter}");
            let reply = world.get(&world.acme.viewer, path.trim_end_matches('&')).await;
            if index == given_for {
                reply.expect(200);
            } else {
                reply.problem(400, "invalid_cursor");
            }
        }
    }
    // The order of parameters means nothing.
    let cursor = cursors[6].clone().unwrap();
    page(
        &world,
        &format!("/api/v1/tasks?status=todo&cursor={cursor}&project_id={project}&limit=2"),
    )
    .await;
    let deleted = world
        .get(&world.acme.admin, "/api/v1/projects?include_deleted=true&limit=1")
        .await;
    assert_eq!(deleted.expect(200).json()["next_cursor"], Value::Null);
}

#[actix_web::test]
async fn a_cursor_that_was_tampered_with_leads_nowhere_else() {
    let world = World::new().await;
    add_tasks(&world, &world.acme, 5).await;
    let cursor = page(&world, "/api/v1/tasks?limit=2").await.json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let own: BTreeSet<_> = keys(List::Tasks, &page(&world, "/api/v1/tasks").await)
        .into_iter()
        .map(|id| id.to_string())
        .collect();
    for index in 0..cursor.len() {
        for replacement in ["A", "_", "9"] {
            let mut tampered = cursor.clone();
            tampered.replace_range(index..=index, replacement);
            let path = format!("/api/v1/tasks?cursor={tampered}");
            let reply = world.get(&world.acme.viewer, &path).await;
            if reply.status == 200 {
                let seen = keys(List::Tasks, &reply);
                assert!(
                    seen.iter().all(|id| own.contains(&id.to_string())),
                    "{tampered}: {seen:?}"
                );
            } else {
                reply.problem(400, "invalid_cursor");
            }
        }
        let path = format!("/api/v1/tasks?cursor={}", &cursor[..index]);
        world
            .get(&world.acme.viewer, &path)
            .await
            .problem(400, "invalid_cursor");
    }
}

#[actix_web::test]
async fn the_link_keeps_the_filter_whatever_is_in_it() {
    let world = World::new().await;
    let tasks = List::ProjectTasks.path(&world.acme);
    for number in 0..3 {
        let title = format!("50% & more=<é> + {number} \"quoted\"");
        world
            .post(&world.acme.member, &tasks, &json!({"title": title}))
            .await
            .expect(201);
    }
    let q = "50%25%20%26%20more%3D%3C%C3%A9%3E+%2B";
    for path in [
        format!("/api/v1/tasks?q={q}&limit=1"),
        format!("{tasks}?limit=1&q={q}&status=todo"),
        format!("/api/v1/tasks?limit=1&assignee_id={}", world.acme.member.id),
    ] {
        let all = keys(
            List::Tasks,
            &page(&world, &path.replace("limit=1", "limit=50")).await,
        );
        assert!(!all.is_empty(), "{path}");
        assert_eq!(walk(&world, List::Tasks, &path).await.concat(), all, "{path}");
    }
    // Without a limit in the request there is none in the link.
    add_tasks(&world, &world.acme, 60).await;
    let link = next(&page(&world, "/api/v1/tasks").await).unwrap();
    assert!(
        link.starts_with("/api/v1/tasks?cursor=") && !link.contains("limit"),
        "{link}"
    );
}

#[actix_web::test]
async fn ten_thousand_tasks_are_walked_completely() {
    let world = World::new().await;
    // Many of one moment, so that ids have to tell them apart; the other tenant's at the same moments.
    add_tasks(&world, &world.acme, 10_000).await;
    add_tasks(&world, &world.globex, 500).await;
    let expected: Vec<String> = sqlx::query_scalar(
        "SELECT id::text FROM tasks WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC",
    )
    .bind(world.acme.id.uuid())
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    assert_eq!(expected.len(), 10_001);
    let pages = walk(&world, List::Tasks, "/api/v1/tasks?limit=100").await;
    assert_eq!(pages.len(), 101);
    let seen: Vec<_> = pages
        .concat()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(seen, expected);
}

/// Tasks straight into the table, seven at each moment, all older than those of the world.
async fn add_tasks(world: &World, tenant: &TenantWorld, count: i32) {
    sqlx::query(
        "INSERT INTO tasks \
           (tenant_id, id, project_id, title, status, priority, created_at, updated_at, version) \
         SELECT $1, gen_random_uuid(), $2, 'Task ' || g, 'todo', 'normal', at, at, 1 \
         FROM generate_series(1, $3) g, \
              LATERAL (SELECT timestamptz '2026-01-01 00:00:00Z' + (g / 7) * interval '1 second' AS at) t",
    )
    .bind(tenant.id.uuid())
    .bind(tenant.project.uuid())
    .bind(count)
    .execute(&mut world.database.admin().await)
    .await
    .unwrap();
}
