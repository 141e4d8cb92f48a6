//! The log of what was published in all feeds, and the events that operators' services read in its order: no event is passed over.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_domain::kernel::StoreError;
use tenantry_domain::operations::OperatorRole;
use tenantry_tenancy::events::upkeep::KeepEvents;
use tenantry_tenancy::events::{log, publish};
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tests::{Options, Reply, TenantWorld, World};
use tokio::sync::Notify;

use crate::audit::system;
use crate::events::{REASON, events_of, number, publish_all, rename};

/// The longest that anything is waited for.
const DEADLINE: Duration = Duration::from_secs(120);

async fn support(world: &World) -> String {
    world
        .operator_as("sam@platform.example", OperatorRole::Support)
        .await
}

async fn ask(world: &World, token: &str, query: &str) -> Reply {
    let request = world.client.get(&format!("/api/v1/admin/events{query}"));
    request.bearer(token).header("X-Bypass-Reason", REASON).await
}

async fn page(world: &World, token: &str, query: &str) -> Value {
    ask(world, token, query).await.expect(200).json()
}

/// Publishes the events of both tenants and adds them to the log.
async fn log_all(world: &World) {
    for tenant in [&world.acme, &world.globex] {
        publish_all(world, tenant).await;
    }
    log::append_due(&world.app).await;
}

/// The cursor behind everything that is in the log.
async fn latest(world: &World, token: &str) -> String {
    let page = page(world, token, "?after=latest").await;
    assert_eq!((events_of(&page).len(), &page["has_more"]), (0, &json!(false)));
    page["next_cursor"].as_str().unwrap().to_owned()
}

/// Reads from a cursor on until there is nothing more; what was read, and the next cursor.
async fn follow(world: &World, token: &str, cursor: &str, limit: u32) -> (Vec<Value>, String) {
    let (mut all, mut cursor) = (Vec::new(), cursor.to_owned());
    loop {
        let page = page(world, token, &format!("?limit={limit}&after={cursor}")).await;
        all.extend(events_of(&page));
        page["next_cursor"].as_str().unwrap().clone_into(&mut cursor);
        if page["has_more"] == false {
            return (all, cursor);
        }
    }
}

/// The positions of each tenant in the order of reading.
fn positions(events: &[Value]) -> BTreeMap<String, Vec<i64>> {
    let mut of_tenant: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events {
        let tenant = event["tenant_id"].as_str().unwrap().to_owned();
        let position = event["position"].as_i64().unwrap();
        of_tenant.entry(tenant).or_default().push(position);
    }
    of_tenant
}

fn titles(events: &[Value], tenant: &TenantWorld) -> usize {
    let of_tenant = events
        .iter()
        .filter(|event| event["tenant_id"] == json!(tenant.id));
    of_tenant.filter(|event| event["type"] == "task.updated").count()
}

#[actix_web::test]
async fn operators_read_all_tenants_forward() {
    let world = World::new().await;
    let token = support(&world).await;
    for tenant in [&world.acme, &world.globex] {
        rename(&world, tenant, "Secret plans").await;
    }
    log_all(&world).await;
    let (all, end) = follow(&world, &token, "oldest", 3).await;
    assert!(
        !json!(all).to_string().contains("Secret plans") && all.iter().all(|one| one.get("data").is_none())
    );
    for (tenant, positions) in positions(&all) {
        let newest = format!("SELECT max(position) FROM events WHERE tenant_id = '{tenant}'");
        let newest = number(&world, &newest).await;
        assert_eq!(positions, Vec::from_iter(1..=newest), "{tenant}");
    }
    assert_eq!(positions(&all).len(), 2);
    assert_eq!(end, latest(&world, &token).await);
    // What comes later is behind the cursor, and nothing else is.
    rename(&world, &world.globex, "Later").await;
    log_all(&world).await;
    let (later, _) = follow(&world, &token, &end, 100).await;
    assert_eq!((later.len(), titles(&later, &world.globex)), (1, 1));
    // Filters pass over other events and never hold the cursor.
    let typed = page(&world, &token, "?after=oldest&types=task.updated").await;
    assert_eq!(events_of(&typed).len(), 3);
    assert_eq!(
        typed["next_cursor"].as_str().unwrap(),
        latest(&world, &token).await
    );
    let own = format!("?after=oldest&tenant_id={}", world.acme.id);
    let own = events_of(&page(&world, &token, &own).await);
    assert!(own.len() > 2 && own.iter().all(|event| event["tenant_id"] == json!(world.acme.id)));
    let reply = ask(&world, &token, "?after=oldest&types=task.updated&limit=1").await;
    let link = reply.expect(200);
    assert!(
        link.header("link")
            .unwrap()
            .contains("&limit=1&types=task.updated")
    );
}

/// The transaction of a publisher that is open when others commit: its events come later, and are not passed over.
#[actix_web::test]
async fn open_transaction_of_a_publisher_is_not_passed_over() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let start = latest(&world, &token).await;
    rename(&world, &world.acme, "Held up").await;
    let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let late = {
        let cx = system(&world, &world.acme).await;
        let (begun, end) = (Arc::clone(&begun), Arc::clone(&end));
        actix_web::rt::spawn(async move {
            cx.write(async |work| {
                assert_eq!(work.events().publish(500).await?, 1);
                begun.notify_one();
                end.notified().await;
                Ok::<_, StoreError>(())
            })
            .await
        })
    };
    begun.notified().await;
    rename(&world, &world.globex, "Meanwhile").await;
    publish_all(&world, &world.globex).await;
    // It waits for no open transaction either.
    assert_eq!(log::append_due(&world.app).await, 1);
    let (first, next) = follow(&world, &token, &start, 100).await;
    assert_eq!((first.len(), titles(&first, &world.globex)), (1, 1));
    end.notify_one();
    late.await.unwrap().unwrap();
    assert_eq!(log::append_due(&world.app).await, 1);
    let (second, _) = follow(&world, &token, &next, 100).await;
    assert_eq!((second.len(), titles(&second, &world.acme)), (1, 1));
}

/// The transaction that gives numbers is open when a reader looks: the numbers behind it are not given before it ends.
#[actix_web::test]
async fn numbers_of_the_log_are_committed_in_their_order() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let start = latest(&world, &token).await;
    for tenant in [&world.acme, &world.globex] {
        rename(&world, tenant, "One").await;
        publish_all(&world, tenant).await;
    }
    // As a process would that is stopped between the numbers and its commit, with the numbers of one tenant.
    let mut platform = world.database.platform().await;
    let held = format!(
        "BEGIN; SELECT last FROM event_log_state FOR UPDATE; \
         INSERT INTO event_log SELECT s.last + 1, p.tenant_id, p.listed + 1, p.published, now() FROM event_log_state s, event_progress p \
         WHERE p.tenant_id = '{0}'; UPDATE event_progress SET listed = published WHERE tenant_id = '{0}'; \
         UPDATE event_log_state SET last = last + 1",
        world.acme.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(held))
        .execute(&mut platform)
        .await
        .unwrap();
    let app = Arc::clone(&world.app);
    let waiting = actix_web::rt::spawn(async move { log::append_due(&app).await });
    let deadline = Instant::now() + DEADLINE;
    while world.waiting_for_locks().await == 0 {
        assert!(Instant::now() < deadline, "no transaction waits for the lock");
        tokio::task::yield_now().await;
    }
    let (none, next) = follow(&world, &token, &start, 100).await;
    assert_eq!(none.len(), 0);
    sqlx::raw_sql("COMMIT").execute(&mut platform).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 1);
    let (both, _) = follow(&world, &token, &next, 100).await;
    assert_eq!((titles(&both, &world.acme), titles(&both, &world.globex)), (1, 1));
}

/// Writers of two tenants, publishers of two processes that number at once, and a reader.
#[actix_web::test]
async fn reader_of_all_tenants_misses_nothing() {
    const EACH: usize = 12;
    let world = World::new().await;
    let token = support(&world).await;
    let other = world.instance(&Options::default());
    log_all(&world).await;
    let start = latest(&world, &token).await;
    let writers = join_all([&world.acme, &world.globex].map(|tenant| {
        let world = &world;
        async move {
            let path = format!("/api/v1/projects/{}/tasks", tenant.project);
            for n in 0..EACH {
                let task = json!({"title": format!("{n}")});
                world.post(&tenant.member, &path, &task).await.expect(201);
            }
        }
    }));
    let done = AtomicBool::new(false);
    let publishers = join_all([&world.app, &other.app].map(|app| {
        let done = &done;
        async move {
            while !done.load(Ordering::Acquire) {
                publish::publish_due(app).await;
                log::append_due(app).await;
                tokio::task::yield_now().await;
            }
        }
    }));
    let reader = async {
        let (mut seen, mut cursor) = (Vec::new(), start);
        while seen.len() < 2 * EACH {
            let (more, next) = follow(&world, &token, &cursor, 5).await;
            seen.extend(more);
            cursor = next;
        }
        done.store(true, Ordering::Release);
        seen
    };
    let all = join(join(writers, publishers), reader);
    let (_, seen) = tokio::time::timeout(DEADLINE, all).await.unwrap();
    assert_eq!(seen.len(), 2 * EACH);
    for (tenant, positions) in positions(&seen) {
        assert_eq!(positions.len(), EACH, "{tenant}");
        assert!(
            positions.windows(2).all(|two| two[1] == two[0] + 1),
            "{positions:?}"
        );
    }
}

#[actix_web::test]
async fn each_page_is_recorded_and_an_empty_look_is_not() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let start = latest(&world, &token).await;
    let reads = async |tenant: &TenantWorld| {
        let log = world.audit(tenant).await.into_iter();
        log.filter(|(action, _)| action == "operator.rows_read").count()
    };
    let records = async || {
        let events = world.operator_events().await.into_iter();
        events.filter(|(action, _)| action.starts_with("rows.")).count()
    };
    assert_eq!((reads(&world.acme).await, records().await), (0, 0));
    rename(&world, &world.acme, "One").await;
    log_all(&world).await;
    let (read, end) = follow(&world, &token, &start, 100).await;
    assert_eq!(read.len(), 1);
    assert_eq!(
        (
            reads(&world.acme).await,
            reads(&world.globex).await,
            records().await
        ),
        (1, 0, 2)
    );
    page(&world, &token, &format!("?after={end}")).await;
    page(&world, &token, &format!("?after={end}&wait=1")).await;
    assert_eq!(records().await, 2);
    // Without a reason, or with one that says nothing, there is no look either.
    let bare = world.client.get(&format!("/api/v1/admin/events?after={end}"));
    bare.bearer(&token).await.problem(400, "bypass_reason_required");
    let short = world.client.get(&format!("/api/v1/admin/events?after={end}"));
    let short = short.bearer(&token).header("X-Bypass-Reason", "x").await;
    short.problem(422, "validation_failed");
    let stranger = world
        .operator_as("bill@platform.example", OperatorRole::Billing)
        .await;
    ask(&world, &stranger, "?after=oldest")
        .await
        .problem(403, "forbidden");
    let user = &world.acme.admin.access_token;
    assert_eq!(ask(&world, user, "?after=oldest").await.status, 401);
    for wrong in [
        "?wait=1".to_owned(),
        format!("?after={end}&wait=16"),
        format!("?after={end}&from=2026-01-01T00:00:00Z"),
        format!("?after={end}&cursor=x"),
    ] {
        ask(&world, &token, &wrong)
            .await
            .problem(422, "validation_failed");
    }
    ask(&world, &token, "?after=nonsense")
        .await
        .problem(400, "invalid_cursor");
    // The cursor of the list is none of the order, nor that of another operator.
    let list = page(&world, &token, "?limit=1").await["next_cursor"].clone();
    let list = format!("?after={}", list.as_str().unwrap());
    ask(&world, &token, &list).await.problem(400, "invalid_cursor");
}

#[actix_web::test]
async fn waiting_operator_is_answered_by_the_next_event() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let end = latest(&world, &token).await;
    let began = Instant::now();
    let query = format!("?after={end}&wait=15");
    let change = async {
        rename(&world, &world.globex, "Renamed").await;
        log_all(&world).await;
    };
    let (found, ()) = join(page(&world, &token, &query), change).await;
    assert_eq!(titles(&events_of(&found), &world.globex), 1);
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
}

#[actix_web::test]
async fn old_entries_of_the_log_expire_with_their_cursors() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let first = page(&world, &token, "?after=oldest&limit=1").await["next_cursor"].clone();
    world
        .sql("UPDATE event_log SET created_at = created_at - interval '31 days'")
        .await;
    let end = latest(&world, &token).await;
    rename(&world, &world.acme, "One").await;
    log_all(&world).await;
    let expired = ask(&world, &token, &format!("?after={}", first.as_str().unwrap())).await;
    let expired = expired.problem(422, "validation_failed").json();
    assert_eq!(
        (&expired["errors"][0]["pointer"], &expired["errors"][0]["code"]),
        (&json!("/query/after"), &json!("expired"))
    );
    // A reader who has read them goes on, and one who begins anew begins behind them.
    for cursor in [end.as_str(), "oldest"] {
        let (found, _) = follow(&world, &token, cursor, 100).await;
        assert_eq!((found.len(), titles(&found, &world.acme)), (1, 1), "{cursor}");
    }
}

/// Events that are gone because of their age are a gap in the positions of their tenant.
#[actix_web::test]
async fn events_that_are_gone_hold_up_no_reader() {
    let world = World::new().await;
    let token = support(&world).await;
    rename(&world, &world.acme, "One").await;
    log_all(&world).await;
    let sql = format!(
        "UPDATE events SET created_at = created_at - interval '31 days' WHERE tenant_id = '{}'",
        world.acme.id
    );
    world.sql(sql).await;
    let cx = system(&world, &world.acme).await;
    KeepEvents.run(&cx, Nothing {}).await.unwrap();
    let (all, _) = follow(&world, &token, "oldest", 2).await;
    let of_acme = positions(&all)[&world.acme.id.to_string()].clone();
    assert!(of_acme.len() == 1 && of_acme[0] > 1, "{of_acme:?}");
    // Of a deleted tenant nothing is shown.
    world.set_status(&world.globex, "deleted").await;
    let (all, _) = follow(&world, &token, "oldest", 2).await;
    assert_eq!(positions(&all).len(), 1);
}

/// Entries have a bounded length, so a page after a long outage reads a bounded number of rows.
#[actix_web::test]
async fn many_events_of_a_tenant_are_several_entries() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let start = latest(&world, &token).await;
    let fill = format!(
        "INSERT INTO event_outbox (tenant_id, id, created_at, kind, actor_kind, entity, data) \
         SELECT '{}', gen_random_uuid(), now(), 'task.created', 'system', 'task', '{{}}' FROM generate_series(1, 2500)",
        world.acme.id
    );
    world.sql(fill).await;
    assert_eq!(publish_all(&world, &world.acme).await, 2_500);
    assert_eq!(log::append_due(&world.app).await, 3);
    let longest = number(
        &world,
        "SELECT max(last_position - first_position + 1) FROM event_log",
    )
    .await;
    assert_eq!(longest, 1_000);
    let (all, _) = follow(&world, &token, &start, 100).await;
    let of_acme = positions(&all)[&world.acme.id.to_string()].clone();
    assert_eq!(of_acme.len(), 2_500);
    assert!(of_acme.windows(2).all(|two| two[1] == two[0] + 1));
}

/// A tenant takes its entries of the log with it, and its numbers are not given again.
#[actix_web::test]
async fn purged_tenant_leaves_no_entry_and_no_number_to_reuse() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    rename(&world, &world.acme, "One").await;
    log_all(&world).await;
    let end = latest(&world, &token).await;
    let last = "SELECT last FROM event_log_state";
    let before = number(&world, last).await;
    world.purge(&world.acme).await;
    let left = format!(
        "SELECT count(*) FROM event_log WHERE of_tenant = '{}'",
        world.acme.id
    );
    assert_eq!(
        (number(&world, &left).await, number(&world, last).await),
        (0, before)
    );
    rename(&world, &world.globex, "Two").await;
    publish_all(&world, &world.globex).await;
    log::append_due(&world.app).await;
    let (found, _) = follow(&world, &token, &end, 100).await;
    assert_eq!((found.len(), titles(&found, &world.globex)), (1, 1));
    // The runtime role has no part in the log, and the platform role changes nothing of a tenant but what it has logged.
    let mut platform = world.database.platform().await;
    for forbidden in [
        "UPDATE event_progress SET exported = 0",
        "UPDATE event_progress SET listed = 0",
        "DELETE FROM event_progress",
        "SELECT name FROM event_consumers",
        "UPDATE event_log SET first_position = 1",
    ] {
        let refused = sqlx::raw_sql(forbidden).execute(&mut platform).await;
        let unchanged = refused.as_ref().is_ok_and(|done| done.rows_affected() == 0);
        assert!(unchanged || refused.is_err(), "{forbidden}");
    }
}

/// An operator follows one tenant while another one publishes: the log of the followed tenant says nothing of that, and the wait lasts.
#[actix_web::test]
async fn follower_of_a_quiet_tenant_leaves_no_entry_there() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let start = latest(&world, &token).await;
    let reads = async |tenant: &TenantWorld| {
        let log = world.audit(tenant).await.into_iter();
        log.filter(|(action, _)| action == "operator.rows_read").count()
    };
    let began = Instant::now();
    let query = format!("?after={start}&tenant_id={}&wait=2", world.acme.id);
    let others = async {
        for n in 0..5 {
            rename(&world, &world.globex, &format!("{n}")).await;
            publish_all(&world, &world.globex).await;
            log::append_due(&world.app).await;
        }
    };
    let (found, ()) = join(page(&world, &token, &query), others).await;
    assert_eq!((events_of(&found).len(), &found["has_more"]), (0, &json!(false)));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(reads(&world.acme).await, 0);
    // The cursor has passed the others, so that it does not expire.
    let end = latest(&world, &token).await;
    assert_eq!(found["next_cursor"].as_str().unwrap(), end);
    // A page without an event of its types leaves none either, and one with events does.
    rename(&world, &world.acme, "One").await;
    log_all(&world).await;
    let of_acme = format!("tenant_id={}", world.acme.id);
    let none = page(
        &world,
        &token,
        &format!("?after={end}&types=project.created&{of_acme}"),
    )
    .await;
    assert_eq!((events_of(&none).len(), reads(&world.acme).await), (0, 0));
    let one = page(&world, &token, &format!("?after={end}&{of_acme}")).await;
    assert_eq!(titles(&events_of(&one), &world.acme), 1);
    assert_eq!((reads(&world.acme).await, reads(&world.globex).await), (1, 0));
}

/// Events of other types neither end a wait nor fill the log of operators.
#[actix_web::test]
async fn wait_for_a_type_goes_on_behind_other_types() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let start = latest(&world, &token).await;
    let began = Instant::now();
    let query = format!("?after={start}&types=tenant.suspended&wait=3");
    let others = async {
        for n in 0..10 {
            rename(&world, &world.globex, &format!("{n}")).await;
            publish_all(&world, &world.globex).await;
            log::append_due(&world.app).await;
        }
    };
    let (found, ()) = join(page(&world, &token, &query), others).await;
    assert_eq!(events_of(&found).len(), 0);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    let records = world.operator_events().await.into_iter();
    let records = records.filter(|(action, _)| action.starts_with("rows.")).count();
    assert!(records <= 6, "{records}");
}

/// A page looks at a bounded number of positions, and its cursor moves although none of its types is there.
#[actix_web::test]
async fn rare_type_in_a_long_log_is_found_page_by_page() {
    let world = World::new().await;
    let token = support(&world).await;
    log_all(&world).await;
    let start = latest(&world, &token).await;
    let fill = format!(
        "INSERT INTO event_outbox (tenant_id, id, created_at, kind, actor_kind, entity, data) \
         SELECT '{}', gen_random_uuid(), now(), 'project.created', 'system', 'project', '{{}}' FROM generate_series(1, 7000)",
        world.acme.id
    );
    world.sql(fill).await;
    rename(&world, &world.acme, "The rare one").await;
    log_all(&world).await;
    let typed = format!("?types=task.updated&after={start}");
    let first = page(&world, &token, &typed).await;
    assert_eq!((events_of(&first).len(), &first["has_more"]), (0, &json!(true)));
    let next = first["next_cursor"].as_str().unwrap();
    let second = page(&world, &token, &format!("?types=task.updated&after={next}")).await;
    assert_eq!(titles(&events_of(&second), &world.acme), 1);
}
