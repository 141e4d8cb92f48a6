//! Events: an event exists exactly if its change does, the feed is in order and passes over nothing, and no other tenant reads it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::Method;
use futures_util::future::{join, join_all};
use regex::Regex;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_domain::events::{EventType, EventTypes, Field};
use tenantry_domain::kernel::StoreError;
use tenantry_domain::operations::OperatorRole;
use tenantry_tenancy::Changed;
use tenantry_tenancy::events::publish;
use tenantry_tenancy::events::upkeep::KeepEvents;
use tenantry_tenancy::identity::erasure;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tests::{Options, PASSWORD, Person, TenantWorld, World};
use tokio::sync::Notify;

use crate::audit::{chain_in, system};
use crate::persons::{erase, found_anywhere};
use crate::source_files::{ROOT, rust_files};

pub(crate) const EVENTS: &str = "/api/v1/events";
const TYPES: &str = "/api/v1/webhooks/event-types";
pub(crate) const REASON: &str = "ticket 4711: a receiver got no event";

/// The longest that anything is waited for.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) async fn publish_all(world: &World, tenant: &TenantWorld) -> u64 {
    publish::publish(&system(world, tenant).await).await.unwrap()
}

pub(crate) async fn read(world: &World, who: &Person, query: &str) -> Value {
    let page = world.get(who, &format!("{EVENTS}{query}")).await;
    page.expect(200).json()
}

pub(crate) fn events_of(page: &Value) -> Vec<Value> {
    page["data"].as_array().unwrap().clone()
}

/// Publishes and reads the whole feed of a tenant, page by page.
pub(crate) async fn feed(world: &World, tenant: &TenantWorld) -> Vec<Value> {
    publish_all(world, tenant).await;
    let (mut all, mut query) = (Vec::new(), "?limit=7".to_owned());
    loop {
        let page = read(world, &tenant.admin, &query).await;
        all.extend(events_of(&page));
        if page["has_more"] == false {
            return all;
        }
        query = format!("?limit=7&after={}", page["next_cursor"].as_str().unwrap());
    }
}

pub(crate) async fn number(world: &World, sql: &str) -> i64 {
    let mut admin = world.database.admin().await;
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(&mut admin)
        .await
        .unwrap()
}

pub(crate) async fn rename(world: &World, tenant: &TenantWorld, title: &str) {
    let path = format!("/api/v1/tasks/{}", tenant.task);
    let change = world.patch(&tenant.member, &path, &json!({"title": title}));
    change.await.expect(200);
}

#[actix_web::test]
async fn event_exists_exactly_if_its_change_does() {
    let world = World::new().await;
    let acme = &world.acme;
    let counts = async || {
        let rows = |table: &str| format!("SELECT count(*) FROM {table} WHERE tenant_id = '{}'", acme.id);
        (
            number(&world, &rows("audit_events")).await,
            number(&world, &rows("event_outbox")).await,
        )
    };
    let before = counts().await;
    // What is refused, and what is undone, leaves no event.
    let task = format!("/api/v1/tasks/{}", acme.task);
    let stale = world.patch(&acme.member, &task, &json!({"title": "Stale"}));
    stale.header("If-Match", "\"99\"").await.expect(412);
    let cx = world.cx(&acme.admin).await;
    let undone = cx.write(async |work| {
        cx.record(work, Changed::new("task.created", acme.task.uuid()))
            .await?;
        Err::<(), _>(StoreError::Other("undone".into()))
    });
    assert!(undone.await.is_err());
    assert_eq!(counts().await, before);
    rename(&world, acme, "Renamed").await;
    assert_eq!(counts().await, (before.0 + 1, before.1 + 1));
    let orphans = "SELECT count(*) FROM event_outbox o WHERE NOT EXISTS \
                   (SELECT FROM audit_events a WHERE a.tenant_id = o.tenant_id AND a.id = o.id)";
    assert_eq!(number(&world, orphans).await, 0);
}

#[actix_web::test]
async fn event_has_the_object_its_former_values_and_the_actor() {
    let world = World::new().await;
    let acme = &world.acme;
    rename(&world, acme, "Before").await;
    rename(&world, acme, "After").await;
    let all = feed(&world, acme).await;
    let event = all.last().unwrap();
    assert_eq!(event["type"], "task.updated");
    assert_eq!(event["actor"], json!({"kind": "user", "id": acme.member.id}));
    assert_eq!(
        (&event["entity"], &event["entity_id"]),
        (&json!("task"), &json!(acme.task))
    );
    let data = &event["data"];
    assert_eq!(
        (&data["object"]["id"], &data["object"]["title"]),
        (&json!(acme.task), &json!("After"))
    );
    assert_eq!(data["object"]["project_id"], json!(acme.project));
    assert_eq!(data["previous_attributes"]["title"], "Before");
    assert!(data["previous_attributes"].get("project_id").is_none(), "{data}");
    let positions: Vec<i64> = all
        .iter()
        .map(|event| event["position"].as_i64().unwrap())
        .collect();
    assert_eq!(positions, Vec::from_iter(1..=i64::try_from(all.len()).unwrap()));
}

/// A transaction that begins before another one and commits after it: its event gets a later number.
#[actix_web::test]
async fn late_commit_is_not_passed_over() {
    let world = World::new().await;
    let acme = &world.acme;
    publish_all(&world, acme).await;
    let cursor = read(&world, &acme.admin, "?after=latest").await["next_cursor"].clone();
    let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let late = {
        let (cx, task) = (world.cx(&acme.admin).await, acme.task.uuid());
        let (begun, end) = (Arc::clone(&begun), Arc::clone(&end));
        actix_web::rt::spawn(async move {
            cx.write(async |work| {
                cx.record(work, Changed::new("task.created", task)).await?;
                begun.notify_one();
                end.notified().await;
                Ok::<_, StoreError>(())
            })
            .await
        })
    };
    begun.notified().await;
    rename(&world, acme, "Meanwhile").await;
    assert_eq!(publish_all(&world, acme).await, 1);
    let page = read(
        &world,
        &acme.admin,
        &format!("?after={}", cursor.as_str().unwrap()),
    )
    .await;
    let first = events_of(&page);
    assert_eq!((first.len(), &first[0]["type"]), (1, &json!("task.updated")));
    end.notify_one();
    late.await.unwrap().unwrap();
    assert_eq!(publish_all(&world, acme).await, 1);
    let after = page["next_cursor"].as_str().unwrap();
    let second = events_of(&read(&world, &acme.admin, &format!("?after={after}")).await);
    assert_eq!((second.len(), &second[0]["type"]), (1, &json!("task.created")));
    let position = |event: &Value| event["position"].as_i64().unwrap();
    assert_eq!(position(&second[0]), position(&first[0]) + 1);
}

/// Eight writers, two publishers and a reader at once.
#[actix_web::test]
async fn reader_misses_nothing_of_eight_writers() {
    const EACH: usize = 15;
    let world = World::new().await;
    let acme = &world.acme;
    publish_all(&world, acme).await;
    let start = read(&world, &acme.admin, "?after=latest").await["next_cursor"].clone();
    let path = format!("/api/v1/projects/{}/tasks", acme.project);
    let writers = join_all((0..8).map(|writer| {
        let (world, path) = (&world, &path);
        async move {
            for n in 0..EACH {
                let task = json!({"title": format!("{writer} {n}")});
                world.post(&acme.member, path, &task).await.expect(201);
            }
        }
    }));
    let done = AtomicBool::new(false);
    let publishers = join_all((0..2).map(|_| async {
        while !done.load(Ordering::Acquire) {
            publish::publish_due(&world.app).await;
            tokio::task::yield_now().await;
        }
    }));
    let reader = async {
        let (mut seen, mut after) = (Vec::new(), start.as_str().unwrap().to_owned());
        while seen.len() < 8 * EACH {
            let page = read(&world, &acme.admin, &format!("?limit=10&after={after}")).await;
            seen.extend(events_of(&page));
            page["next_cursor"].as_str().unwrap().clone_into(&mut after);
        }
        done.store(true, Ordering::Release);
        seen
    };
    let all = join(join(writers, publishers), reader);
    let (_, seen) = tokio::time::timeout(DEADLINE, all).await.unwrap();
    let positions: Vec<i64> = seen
        .iter()
        .map(|event| event["position"].as_i64().unwrap())
        .collect();
    assert!(
        positions.windows(2).all(|two| two[1] == two[0] + 1),
        "{positions:?}"
    );
    let mut of_writer: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for event in &seen {
        let title = event["data"]["object"]["title"].as_str().unwrap();
        let (writer, n) = title.split_once(' ').unwrap();
        of_writer
            .entry(writer.to_owned())
            .or_default()
            .push(n.parse().unwrap());
    }
    assert_eq!(of_writer.len(), 8);
    for (writer, order) in of_writer {
        assert_eq!(order, Vec::from_iter(0..EACH), "{writer}");
    }
}

/// What a process leaves unpublished when it is killed, another one publishes.
#[actix_web::test]
async fn events_of_another_process_are_published() {
    let world = World::new().await;
    let other = world.instance(&Options::default());
    rename(&world, &world.acme, "Renamed").await;
    assert!(publish::publish_due(&other.app).await > 0);
    assert_eq!(publish_all(&world, &world.acme).await, 0);
    assert_eq!(publish_all(&world, &world.globex).await, 0);
    let all = feed(&world, &world.acme).await;
    assert_eq!(all.last().unwrap()["type"], "task.updated");
}

#[actix_web::test]
async fn feed_is_read_by_admins_of_its_tenant() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let own = feed(&world, acme).await;
    let foreign = feed(&world, globex).await;
    let ids = |events: &[Value]| -> BTreeSet<String> {
        events
            .iter()
            .map(|event| event["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(!own.is_empty() && !foreign.is_empty());
    assert!(ids(&own).is_disjoint(&ids(&foreign)));
    let text = json!(own).to_string();
    for id in [globex.id.uuid(), globex.task.uuid(), globex.admin.id.uuid()] {
        assert!(!text.contains(&id.to_string()));
    }
    for who in [&acme.viewer, &acme.member] {
        world.get(who, EVENTS).await.problem(403, "forbidden");
        let types = world.get(who, TYPES).await.expect(200).json();
        assert_eq!(
            types["data"].as_array().unwrap().len(),
            EventTypes::default().all().len()
        );
    }
    // A cursor of another tenant is none.
    let cursor = read(&world, &globex.admin, "?limit=1").await["next_cursor"].clone();
    let path = format!("{EVENTS}?after={}", cursor.as_str().unwrap());
    world.get(&acme.admin, &path).await.problem(400, "invalid_cursor");
    world.get(&globex.admin, &path).await.expect(200);
    for (query, status, code) in [
        ("after=nonsense", 400, "invalid_cursor"),
        ("limit=0", 422, "validation_failed"),
        ("limit=101", 422, "validation_failed"),
        ("wait=16", 422, "validation_failed"),
        ("types=task.exploded", 422, "validation_failed"),
        ("types=", 422, "validation_failed"),
        ("cursor=x", 422, "unknown_field"),
    ] {
        let reply = world.get(&acme.admin, &format!("{EVENTS}?{query}")).await;
        reply.problem(status, code);
    }
    let key = async |scope: &str| {
        let body = json!({"name": "Receiver", "scopes": [scope]});
        let key = world.post(&acme.admin, "/api/v1/api-keys", &body).await;
        key.expect(201).json()["key"].as_str().unwrap().to_owned()
    };
    let (reads, other) = (key("events.read").await, key("tasks.read").await);
    world.client.get(EVENTS).bearer(&reads).await.expect(200);
    world
        .client
        .get(EVENTS)
        .bearer(&other)
        .await
        .problem(403, "forbidden");
}

#[actix_web::test]
async fn types_are_filtered_and_nothing_is_read_twice() {
    let world = World::new().await;
    let acme = &world.acme;
    rename(&world, acme, "One").await;
    rename(&world, acme, "Two").await;
    publish_all(&world, acme).await;
    let page = read(&world, &acme.admin, "?types=task.updated&limit=1").await;
    assert_eq!((events_of(&page).len(), &page["has_more"]), (1, &json!(true)));
    let after = page["next_cursor"].as_str().unwrap();
    let page = read(
        &world,
        &acme.admin,
        &format!("?types=task.updated,user.invited&after={after}"),
    )
    .await;
    let rest = events_of(&page);
    assert_eq!(
        (rest.len(), &rest[0]["data"]["object"]["title"]),
        (1, &json!("Two"))
    );
    let after = page["next_cursor"].as_str().unwrap();
    let page = read(&world, &acme.admin, &format!("?after={after}")).await;
    assert_eq!((events_of(&page).len(), &page["next_cursor"]), (0, &json!(after)));
}

#[actix_web::test]
async fn waiting_request_is_answered_by_the_next_event() {
    let world = World::new().await;
    let acme = &world.acme;
    publish_all(&world, acme).await;
    let cursor = read(&world, &acme.admin, "?after=latest").await["next_cursor"].clone();
    let path = format!("{EVENTS}?wait=15&after={}", cursor.as_str().unwrap());
    let began = Instant::now();
    let change = async {
        rename(&world, acme, "Renamed").await;
        publish_all(&world, acme).await;
    };
    let (reply, ()) = join(async { world.get(&acme.admin, &path).await }, change).await;
    assert_eq!(events_of(&reply.expect(200).json())[0]["type"], "task.updated");
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    let nothing = read(&world, &acme.admin, "?wait=1&after=latest").await;
    assert_eq!(
        (events_of(&nothing).len(), &nothing["has_more"]),
        (0, &json!(false))
    );
}

#[actix_web::test]
async fn waiting_requests_have_places() {
    let mut options = Options::default();
    options.http.event_streams_per_tenant = 1;
    let world = World::with(options).await;
    let path = format!("{EVENTS}?wait=2&after=latest");
    let wait = async |who: &Person| world.get(who, &path).await;
    let of_acme = join(wait(&world.acme.admin), wait(&world.acme.admin));
    let ((one, two), other) = join(of_acme, wait(&world.globex.admin)).await;
    other.expect(200);
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
    let refused = if one.status == 429 { one } else { two };
    refused.problem(429, "rate_limited");
    // The place is free again, and who does not wait needs none.
    wait(&world.acme.admin).await.expect(200);
}

#[actix_web::test]
async fn suspended_tenant_reads_its_feed_and_deleted_one_does_not() {
    let world = World::new().await;
    let acme = &world.acme;
    let before = feed(&world, acme).await;
    let token = world
        .operator_as("olga@platform.example", OperatorRole::Owner)
        .await;
    let at = |action: &str| format!("/api/v1/admin/tenants/{}/{action}", acme.id);
    let post = async |action: &str, status: u16| {
        let body = json!({"reason": REASON});
        let reply = world.client.post(&at(action), &body).bearer(&token).await;
        reply.expect(status)
    };
    // A change that is refused leaves no event.
    post("restore", 409).await;
    post("suspend", 200).await;
    let suspended = feed(&world, acme).await.split_off(before.len());
    assert_eq!(suspended.len(), 1, "{suspended:#?}");
    let event = &suspended[0];
    assert_eq!(
        (&event["type"], &event["entity_id"]),
        (&json!("tenant.suspended"), &json!(acme.id))
    );
    assert_eq!(event["actor"]["kind"], "operator");
    let object = json!({"id": acme.id, "status": "suspended", "reason": REASON});
    assert_eq!(event["data"], json!({"object": object}));
    post("resume", 200).await;
    assert_eq!(feed(&world, acme).await.last().unwrap()["type"], "tenant.resumed");
    world.set_status(acme, "deleted").await;
    world.get(&acme.admin, EVENTS).await.problem(410, "tenant_gone");
    world.get(&world.globex.admin, EVENTS).await.expect(200);
}

#[actix_web::test]
async fn old_events_are_deleted_and_their_cursors_expire() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    rename(&world, acme, "Renamed").await;
    let all = feed(&world, acme).await;
    let foreign = feed(&world, globex).await;
    let first = read(&world, &acme.admin, "?limit=1").await["next_cursor"].clone();
    let first = format!("{EVENTS}?after={}", first.as_str().unwrap());
    let age = async |through: usize| {
        let sql = format!(
            "UPDATE events SET created_at = created_at - interval '31 days' WHERE tenant_id = '{}' AND position <= {through}",
            acme.id
        );
        world.sql(sql).await;
        let cx = system(&world, acme).await;
        KeepEvents.run(&cx, Nothing {}).await.unwrap();
    };
    age(3).await;
    let kept = feed(&world, acme).await;
    assert_eq!((kept.len(), &kept[0]["position"]), (all.len() - 3, &json!(4)));
    let expired = world.get(&acme.admin, &first).await;
    let expired = expired.problem(422, "validation_failed").json();
    assert_eq!(
        (&expired["errors"][0]["pointer"], &expired["errors"][0]["code"]),
        (&json!("/query/after"), &json!("expired"))
    );
    // The last one stays, so that its number is not given again.
    age(all.len()).await;
    let kept = feed(&world, acme).await;
    assert_eq!((kept.len(), &kept[0]["position"]), (1, &json!(all.len())));
    rename(&world, acme, "Again").await;
    assert_eq!(
        feed(&world, acme).await.last().unwrap()["position"],
        all.len() + 1
    );
    assert_eq!(feed(&world, globex).await, foreign);
}

#[actix_web::test]
async fn erased_person_is_in_no_event() {
    let world = World::new().await;
    let acme = &world.acme;
    let email = acme.member.email.clone();
    let path = format!("/api/v1/users/{}", acme.member.id);
    let rename = async |name: &str| {
        let named = world.patch(&acme.admin, &path, &json!({"full_name": name}));
        named.await.expect(200);
    };
    rename("Memorable Name").await;
    let before = feed(&world, acme).await;
    assert!(json!(before).to_string().contains(&email));
    // This one stays in the outbox.
    rename("Memorable Again").await;
    let cx = system(&world, acme).await;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    chain_in(&cx).await;
    let erased = erasure::finish(&cx, acme.member.id).await.unwrap().unwrap();
    assert!(erased.finished_at.is_some());
    for text in [email.as_str(), "Memorable"] {
        let found = found_anywhere(&world, text).await;
        let found: Vec<_> = found.iter().filter(|row| row.starts_with("event")).collect();
        assert!(found.is_empty(), "{found:?}");
    }
    let after = feed(&world, acme).await;
    assert!(after.len() > before.len());
    let of_member =
        |event: &&Value| event["entity_id"] == json!(acme.member.id) && event["type"] == "user.updated";
    let gone = after.iter().find(of_member).unwrap();
    assert_eq!(
        gone["data"],
        json!({"object": {"id": acme.member.id}, "erased": true})
    );
}

#[actix_web::test]
async fn events_are_rendered_as_cloud_events() {
    let world = World::new().await;
    let acme = &world.acme;
    rename(&world, acme, "Renamed").await;
    publish_all(&world, acme).await;
    let ask = |accept: &'static str| {
        let request = world.get(&acme.admin, &format!("{EVENTS}?types=task.updated"));
        request.header("Accept", accept)
    };
    let reply = ask("text/html, application/cloudevents-batch+json; charset=utf-8").await;
    let reply = reply.expect(200);
    assert_eq!(
        reply.header("content-type"),
        Some("application/cloudevents-batch+json")
    );
    assert!(reply.header("link").unwrap().contains("&types=task.updated"));
    let batch = reply.json();
    let event = &batch[0];
    assert_eq!(batch.as_array().unwrap().len(), 1);
    assert_eq!(
        (&event["specversion"], &event["type"]),
        (&json!("1.0"), &json!("task.updated"))
    );
    assert_eq!(event["source"], json!(format!("/tenants/{}", acme.id)));
    assert_eq!(event["subject"], json!(format!("task/{}", acme.task)));
    assert_eq!(event["data"]["object"]["title"], "Renamed");
    assert_eq!(event["sequence"].as_str().unwrap().len(), 19);
    let plain = ask("application/json").await.expect(200);
    assert_eq!(plain.json()["data"][0]["id"], event["id"]);
}

#[actix_web::test]
async fn operators_read_events_with_a_reason_and_without_data() {
    let world = World::new().await;
    let token = world
        .operator_as("olga@platform.example", OperatorRole::Support)
        .await;
    for tenant in [&world.acme, &world.globex] {
        rename(&world, tenant, "Secret plans").await;
    }
    publish::publish_due(&world.app).await;
    let get = async |query: &str| {
        let request = world
            .client
            .get(&format!("/api/v1/admin/events{query}"))
            .bearer(&token);
        request.header("X-Bypass-Reason", REASON).await
    };
    let all = get("?types=task.updated").await.expect(200);
    assert!(!all.text().contains("Secret plans"), "{}", all.text());
    let all = events_of(&all.json());
    let tenants: BTreeSet<_> = all
        .iter()
        .map(|event| event["tenant_id"].as_str().unwrap())
        .collect();
    assert_eq!((all.len(), tenants.len()), (2, 2));
    assert!(
        all.iter()
            .all(|event| event["type"] == "task.updated" && event.get("data").is_none())
    );
    let own = get(&format!("?tenant_id={}", world.acme.id)).await.expect(200);
    let own = events_of(&own.json());
    assert!(own.len() > 1 && own.iter().all(|event| event["tenant_id"] == json!(world.acme.id)));
    assert_eq!(
        events_of(&get("?from=2100-01-01T00:00:00Z").await.expect(200).json()).len(),
        0
    );
    for wrong in [
        "?types=nothing",
        "?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
    ] {
        get(wrong).await.problem(422, "validation_failed");
    }
    let without = world.client.get("/api/v1/admin/events").bearer(&token).await;
    without.problem(400, "bypass_reason_required");
    let logged = world.audit(&world.globex).await;
    let reads = logged.iter().filter(|(action, _)| action == "operator.rows_read");
    assert_eq!(reads.count(), 1);
    // The platform role reads nothing else, and adds no event but those of the state of a tenant.
    let mut platform = world.database.platform().await;
    let none: i64 = sqlx::query_scalar("SELECT count(id) FROM events")
        .fetch_one(&mut platform)
        .await
        .unwrap();
    assert_eq!(none, 0);
    for forbidden in [
        "SELECT data FROM event_outbox",
        "SELECT data FROM events",
        "DELETE FROM event_outbox",
        "INSERT INTO event_outbox (tenant_id, id, created_at, kind, actor_kind, entity, data) \
         SELECT id, gen_random_uuid(), now(), 'task.created', 'system', 'task', '{}' FROM tenants",
    ] {
        let refused = sqlx::raw_sql(forbidden).execute(&mut platform).await.unwrap_err();
        assert!(
            refused.to_string().contains("denied") || refused.to_string().contains("row-level"),
            "{refused}"
        );
    }
}

/// Each type names actions that the code records: by their names, or by the three actions of an audited entity.
#[test]
fn every_type_is_emitted_by_the_code() {
    let folders = ["tenancy/src", "billing/src", "domain/src/billing"];
    let folders = folders.map(|folder| PathBuf::from(ROOT).join("crates").join(folder));
    let code: String = rust_files(folders).into_iter().map(|(_, text)| text).collect();
    let audited = Regex::new(r#"audited!\((\w+), "(\w+)"\)"#).unwrap();
    let kinds: BTreeSet<_> = audited
        .captures_iter(&code)
        .map(|found| found[2].to_owned())
        .collect();
    assert!(kinds.len() > 7, "{kinds:?}");
    for one in EventTypes::default().all() {
        for action in one.actions() {
            let of_entity = action.rsplit_once('.').is_some_and(|(kind, verb)| {
                kinds.contains(kind) && ["created", "updated", "deleted"].contains(&verb)
            });
            assert!(
                of_entity || code.contains(&format!("\"{action}\"")),
                "no entry of the audit log has the action {action} of {}",
                one.name()
            );
        }
    }
}

/// Does something of everything, and returns the types that must have been emitted.
async fn do_everything(world: &World) -> BTreeSet<&'static str> {
    let acme = &world.acme;
    let admin = &acme.admin;
    let ask = async |method: Method, path: &str, body: &Value, status: u16| {
        let request = world
            .client
            .request(method.clone(), path)
            .bearer(&admin.access_token);
        let request = if body.is_null() {
            request
        } else {
            request.body(body.to_string())
        };
        let reply = request.header("Content-Type", "application/json").await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        if reply.text().is_empty() {
            Value::Null
        } else {
            reply.json()
        }
    };
    let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
    let nothing = json!({});
    let id = |made: &Value| made["id"].as_str().unwrap().to_owned();
    let made = async |path: &str, body: Value| id(&ask(Method::POST, path, &body, 201).await);
    let user = json!({"email": "new@acme.example", "full_name": "New", "password": PASSWORD});
    let user = made("/api/v1/users", user).await;
    let project = format!(
        "/api/v1/projects/{}",
        made("/api/v1/projects", json!({"name": "New"})).await
    );
    let members = format!("{project}/members");
    ask(post.clone(), &members, &json!({"user_id": user}), 201).await;
    ask(delete.clone(), &format!("{members}/{user}"), &Value::Null, 204).await;
    let task = made(&format!("{project}/tasks"), json!({"title": "New"})).await;
    let task = format!("/api/v1/tasks/{task}");
    ask(patch.clone(), &task, &json!({"status": "done"}), 200).await;
    ask(delete.clone(), &task, &Value::Null, 204).await;
    let resource = made("/api/v1/resources", json!({"name": "New", "content": "x"})).await;
    let resource = format!("/api/v1/resources/{resource}");
    ask(patch.clone(), &resource, &json!({"content": "y"}), 200).await;
    ask(delete.clone(), &resource, &Value::Null, 204).await;
    ask(patch.clone(), &project, &json!({"name": "Newer"}), 200).await;
    ask(delete.clone(), &project, &Value::Null, 204).await;
    ask(post.clone(), &format!("{project}/restore"), &nothing, 200).await;
    let user = format!("/api/v1/users/{user}");
    ask(patch.clone(), &user, &json!({"role": "viewer"}), 200).await;
    ask(delete.clone(), &user, &Value::Null, 204).await;
    let invitation = made("/api/v1/invitations", json!({"email": "guest@acme.example"})).await;
    ask(
        delete.clone(),
        &format!("/api/v1/invitations/{invitation}"),
        &Value::Null,
        204,
    )
    .await;
    let role = json!({"name": "support", "permissions": ["tasks.read"]});
    ask(post.clone(), "/api/v1/roles", &role, 201).await;
    let change = json!({"permissions": ["projects.read"]});
    ask(patch.clone(), "/api/v1/roles/support", &change, 200).await;
    ask(delete.clone(), "/api/v1/roles/support", &Value::Null, 204).await;
    let key = made(
        "/api/v1/api-keys",
        json!({"name": "CI", "scopes": ["tasks.read"]}),
    )
    .await;
    let key = format!("/api/v1/api-keys/{key}");
    ask(patch.clone(), &key, &json!({"name": "CD"}), 200).await;
    let rotate = format!("{key}/rotate");
    ask(post.clone(), &rotate, &json!({"overlap_seconds": 60}), 201).await;
    ask(delete.clone(), &key, &Value::Null, 204).await;
    ask(
        patch.clone(),
        "/api/v1/tenant",
        &json!({"name": "Acme Renamed"}),
        200,
    )
    .await;
    let settings = json!({"notifications.digest_hour": 7});
    ask(patch.clone(), "/api/v1/tenant/settings", &settings, 200).await;
    ask(patch, "/api/v1/branding", &json!({"display_name": "Acme 7"}), 200).await;
    let domain = made(
        "/api/v1/tenant/domains",
        json!({"domain": "portal.acme-corp.com"}),
    )
    .await;
    ask(
        delete,
        &format!("/api/v1/tenant/domains/{domain}"),
        &Value::Null,
        204,
    )
    .await;
    BTreeSet::from([
        "project.created",
        "project.updated",
        "project.deleted",
        "project.restored",
        "project.member_added",
        "project.member_removed",
        "task.created",
        "task.updated",
        "task.deleted",
        "resource.created",
        "resource.updated",
        "resource.deleted",
        "user.created",
        "user.updated",
        "user.deleted",
        "user.invited",
        "invitation.revoked",
        "role.created",
        "role.updated",
        "role.deleted",
        "api_key.created",
        "api_key.updated",
        "api_key.rotated",
        "api_key.revoked",
        "tenant.created",
        "tenant.updated",
        "settings.updated",
        "branding.updated",
        "domain.created",
        "domain.deleted",
    ])
}

#[actix_web::test]
async fn emitted_events_have_the_schema_of_their_type() {
    let world = World::new().await;
    let expected = do_everything(&world).await;
    let types = EventTypes::default();
    let mut seen = BTreeSet::new();
    for event in feed(&world, &world.acme).await {
        let kind = event["type"].as_str().unwrap();
        let one = types.find(kind).unwrap();
        assert_matches(&one.schema(), &event["data"], kind);
        let object = event["data"]["object"].as_object().unwrap();
        for field in one.object() {
            assert!(
                object.contains_key(field.name()),
                "{kind} is without {}",
                field.name()
            );
        }
        seen.insert(one.name());
    }
    let missing: Vec<_> = expected.difference(&seen).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for one in types.all() {
        assert_matches(&one.schema(), &one.example(), one.name());
    }
}

/// Whether a value obeys a schema, as far as the catalogue uses JSON Schema.
fn assert_matches(schema: &Value, value: &Value, at: &str) {
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let is = |kind: &&str| match *kind {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    };
    assert!(
        kinds.is_empty() || kinds.iter().any(is),
        "{at}: {value} is no {kinds:?}"
    );
    if let (Some(format), Some(text)) = (schema["format"].as_str(), value.as_str()) {
        let holds = match format {
            "uuid" => uuid::Uuid::try_parse(text).is_ok(),
            "date-time" => text.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(text).is_ok(),
            _ => true,
        };
        assert!(holds, "{at}: {text} is no {format}");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(
            value.get(name.as_str().unwrap()).is_some(),
            "{at} is without {name}"
        );
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(member) = value.get(name) {
            assert_matches(property, member, &format!("{at}.{name}"));
        }
    }
}

#[test]
fn every_type_is_in_the_documentation() {
    let page = include_str!("../../../docs/events.md");
    for one in EventTypes::default().all() {
        assert!(
            page.contains(&format!("`{}`", one.name())),
            "docs/events.md is without {}",
            one.name()
        );
    }
}

const NOTE: &[Field] = &[Field::id("id")];

/// The type of a service: in its catalogue, in its document, and in the feed.
pub(crate) async fn assert_type_of_a_service_is_emitted() {
    let one = EventType::new("note.created", "A note was written on a task.", NOTE).since("1.2.0");
    let world = World::with(Options {
        extension: notes::extension().event(one),
        ..Options::default()
    })
    .await;
    let acme = &world.acme;
    let path = format!("/api/v1/tasks/{}/notes", acme.task);
    let note = world.post(&acme.member, &path, &json!({"text": "Ours"})).await;
    let note = note.expect(201).json();
    let all = feed(&world, acme).await;
    let event = all.last().unwrap();
    assert_eq!(
        (&event["type"], &event["entity_id"]),
        (&json!("note.created"), &note["id"])
    );
    assert_eq!(event["data"], json!({"object": {"id": note["id"]}}));
    let types = world.get(&acme.viewer, TYPES).await.expect(200).json();
    let last = types["data"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["type"], &last["since"]),
        (&json!("note.created"), &json!("1.2.0"))
    );
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let webhooks = document["webhooks"].as_object().unwrap();
    assert_eq!(webhooks.len(), EventTypes::default().all().len() + 1);
    assert_eq!(
        webhooks["note.created"]["post"]["operationId"],
        "webhook_note_created"
    );
}
