//! Export of events to a broker: each event at least once, those of a tenant in their order, and none is lost while the broker is away.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use deadpool_redis::redis;
use serde_json::Value;
use tenantry_domain::events::{EventExport, EventSink, EventSinkError, ExportedEvent};
use tenantry_domain::kernel::SystemScope;
use tenantry_redis::{Redis, RedisEventSink};
use tenantry_tenancy::events::upkeep::KeepEvents;
use tenantry_tenancy::events::{export, rewind};
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::{OperatorCx, Tenancy};
use tenantry_tests::{Options, RedisServer, TenantWorld, World};

use crate::audit::system;
use crate::events::{feed, number, publish_all, rename};

/// What a broker answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Taken,
    /// It has taken the events, and its answer is lost.
    Lost,
    Away,
}

/// A broker in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broker(Arc<Mutex<(Vec<ExportedEvent>, Answer)>>);

#[async_trait]
impl EventSink for Broker {
    async fn send(&self, events: &[ExportedEvent]) -> Result<(), EventSinkError> {
        let mut state = self.0.lock().unwrap();
        if state.1 != Answer::Away {
            state.0.extend_from_slice(events);
        }
        match state.1 {
            Answer::Taken => Ok(()),
            Answer::Lost | Answer::Away => Err(EventSinkError::Away("a test".into())),
        }
    }
}

impl Broker {
    pub(crate) fn export(&self) -> EventExport {
        EventExport {
            sink: Arc::new(self.clone()),
            timeout: Duration::from_secs(5),
            batch: 7,
        }
    }

    fn answers(&self, answer: Answer) {
        self.0.lock().unwrap().1 = answer;
    }

    fn taken(&self) -> Vec<ExportedEvent> {
        self.0.lock().unwrap().0.clone()
    }

    fn positions(&self, tenant: &TenantWorld) -> Vec<i64> {
        let taken = self.taken().into_iter();
        taken
            .filter(|event| event.tenant == tenant.id)
            .map(|event| event.position)
            .collect()
    }
}

async fn exporting() -> (World, Broker) {
    let broker = Broker::default();
    let options = Options {
        event_export: Some(broker.export()),
        ..Options::default()
    };
    (World::with(options).await, broker)
}

async fn publish_both(world: &World) {
    for tenant in [&world.acme, &world.globex] {
        publish_all(world, tenant).await;
    }
}

/// Exports until there is nothing more, or the broker has failed.
async fn drain(app: &Arc<Tenancy>) {
    while export::export_due(app).await {}
}

async fn newest(world: &World, tenant: &TenantWorld) -> i64 {
    let sql = format!(
        "SELECT max(position) FROM events WHERE tenant_id = '{}'",
        tenant.id
    );
    number(world, &sql).await
}

#[actix_web::test]
async fn broker_gets_every_event_once_in_order() {
    let (world, broker) = exporting().await;
    rename(&world, &world.acme, "Exported").await;
    publish_both(&world).await;
    drain(&world.app).await;
    for tenant in [&world.acme, &world.globex] {
        let all = Vec::from_iter(1..=newest(&world, tenant).await);
        assert_eq!(broker.positions(tenant), all, "{}", tenant.slug);
    }
    let last = broker
        .taken()
        .into_iter()
        .rfind(|event| event.tenant == world.acme.id);
    let last = last.unwrap();
    let event: Value = serde_json::from_str(&last.json).unwrap();
    assert_eq!(
        (last.kind.as_str(), &event["type"]),
        ("task.updated", &"task.updated".into())
    );
    assert_eq!(event["id"], last.id.to_string());
    assert_eq!(event["source"], format!("/tenants/{}", world.acme.id));
    assert_eq!(event["data"]["object"]["title"], "Exported");
    // Nothing is exported twice, and what comes later comes alone.
    let before = broker.taken().len();
    rename(&world, &world.acme, "Later").await;
    publish_both(&world).await;
    drain(&world.app).await;
    assert_eq!(broker.taken().len(), before + 1);
    assert_eq!(world.app.event_export().exported_total(), before as u64 + 1);
    assert_eq!(world.app.event_export().backlog().events, 0);
}

#[actix_web::test]
async fn nothing_is_lost_while_the_broker_is_away() {
    let (world, broker) = exporting().await;
    publish_both(&world).await;
    broker.answers(Answer::Away);
    drain(&world.app).await;
    let state = world.app.event_export();
    assert!(state.is_failing() && broker.taken().is_empty());
    // It waits, also when it is asked again at once, and says how much.
    rename(&world, &world.acme, "Meanwhile").await;
    publish_both(&world).await;
    broker.answers(Answer::Taken);
    drain(&world.app).await;
    assert!(broker.taken().is_empty() && state.backlog().events > 2);
    world.clock.advance(chrono::Duration::seconds(90));
    drain(&world.app).await;
    for tenant in [&world.acme, &world.globex] {
        let all = Vec::from_iter(1..=newest(&world, tenant).await);
        assert_eq!(broker.positions(tenant), all, "{}", tenant.slug);
    }
    assert!(!state.is_failing() && state.failed_attempts()["away"] > 0);
}

/// The events are sent again with the same ids, so that readers recognize them.
#[actix_web::test]
async fn lost_answer_repeats_events_with_their_ids() {
    let (world, broker) = exporting().await;
    publish_all(&world, &world.acme).await;
    broker.answers(Answer::Lost);
    drain(&world.app).await;
    broker.answers(Answer::Taken);
    world.clock.advance(chrono::Duration::seconds(90));
    drain(&world.app).await;
    let taken = broker.taken();
    let ids: BTreeSet<_> = taken.iter().map(|event| event.id).collect();
    let all = usize::try_from(newest(&world, &world.acme).await).unwrap();
    assert!(ids.len() == all && taken.len() > all, "{} of {all}", taken.len());
}

/// A process that was killed with a batch keeps it for the time of its lease; then another one exports it.
#[actix_web::test]
async fn killed_exporter_is_replaced_after_its_lease() {
    let (world, broker) = exporting().await;
    publish_all(&world, &world.acme).await;
    let cx = system(&world, &world.acme).await;
    let lease = uuid::Uuid::from_u128(7);
    let taken = cx.write(async |work| work.event_exports().lease(lease, 60).await);
    assert_eq!(taken.await.unwrap(), Some((0, newest(&world, &world.acme).await)));
    drain(&world.app).await;
    assert!(broker.taken().is_empty());
    world
        .sql("UPDATE event_progress SET lease_until = now() - interval '1 second'")
        .await;
    drain(&world.app).await;
    assert_eq!(
        broker.positions(&world.acme),
        Vec::from_iter(1..=newest(&world, &world.acme).await)
    );
    // Its late acknowledgment changes nothing.
    let late = cx.write(async |work| work.event_exports().acknowledge(lease, 1).await);
    assert!(!late.await.unwrap());
    drain(&world.app).await;
    assert_eq!(
        broker.positions(&world.acme).len() as i64,
        newest(&world, &world.acme).await
    );
}

#[actix_web::test]
async fn export_of_a_deleted_tenant_waits_for_its_restoration() {
    let (world, broker) = exporting().await;
    publish_both(&world).await;
    world.set_status(&world.acme, "deleted").await;
    drain(&world.app).await;
    assert!(broker.positions(&world.acme).is_empty() && !broker.positions(&world.globex).is_empty());
    world.set_status(&world.acme, "suspended").await;
    drain(&world.app).await;
    assert_eq!(
        broker.positions(&world.acme),
        Vec::from_iter(1..=newest(&world, &world.acme).await)
    );
}

/// Makes all events of acme older than the retention, and deletes all but the newest one.
async fn expire(world: &World) {
    let sql = format!(
        "UPDATE events SET created_at = created_at - interval '31 days' WHERE tenant_id = '{}'",
        world.acme.id
    );
    world.sql(sql).await;
    let cx = system(world, &world.acme).await;
    KeepEvents.run(&cx, Nothing {}).await.unwrap();
}

/// Events that were deleted because of their age while the broker was away are counted, and hold up nothing.
#[actix_web::test]
async fn events_deleted_before_their_export_are_counted() {
    let (world, broker) = exporting().await;
    publish_all(&world, &world.acme).await;
    drain(&world.app).await;
    let exported = newest(&world, &world.acme).await;
    for title in ["One", "Two", "Three"] {
        rename(&world, &world.acme, title).await;
    }
    publish_all(&world, &world.acme).await;
    expire(&world).await;
    drain(&world.app).await;
    let mut expected = Vec::from_iter(1..=exported);
    expected.push(exported + 3);
    assert_eq!(broker.positions(&world.acme), expected);
    assert_eq!(world.app.event_export().lost(), 2);
}

/// What was deleted before there was an export was not lost, and does not wait.
#[actix_web::test]
async fn export_that_begins_later_has_lost_nothing() {
    let (world, broker) = exporting().await;
    feed(&world, &world.acme).await;
    expire(&world).await;
    let last = newest(&world, &world.acme).await;
    assert!(last > 2);
    broker.answers(Answer::Away);
    drain(&world.app).await;
    assert_eq!(world.app.event_export().backlog().events, 1);
    broker.answers(Answer::Taken);
    world.clock.advance(chrono::Duration::seconds(90));
    drain(&world.app).await;
    assert_eq!(broker.positions(&world.acme), [last]);
    assert_eq!(world.app.event_export().lost(), 0);
}

/// What the broker has acknowledged and lost is exported again by a command, which is on record, and of no other tenant.
#[actix_web::test]
async fn rewound_export_sends_events_again() {
    let (world, broker) = exporting().await;
    publish_both(&world).await;
    drain(&world.app).await;
    let cx = system(&world, &world.acme).await;
    let because = SystemScope::because("a test sets the export back");
    let operators = OperatorCx::command(&world.app, because);
    let first = newest(&world, &world.acme).await;
    let waiting = rewind::rewind(&operators, &cx, None).await.unwrap();
    assert_eq!(waiting, first.unsigned_abs());
    drain(&world.app).await;
    let all = Vec::from_iter(1..=first);
    assert_eq!(broker.positions(&world.acme), [&all[..], &all[..]].concat());
    assert_eq!(
        broker.positions(&world.globex),
        Vec::from_iter(1..=newest(&world, &world.globex).await)
    );
    // From a time on, and a batch that was taken before is not acknowledged.
    world.clock.advance(chrono::Duration::seconds(60));
    let since = world.app.ports.clock.now();
    rename(&world, &world.acme, "Later").await;
    publish_both(&world).await;
    let lease = uuid::Uuid::from_u128(7);
    let taken = cx.write(async |work| work.event_exports().lease(lease, 60).await);
    assert!(taken.await.unwrap().is_some());
    let waiting = rewind::rewind(&operators, &cx, Some(since)).await.unwrap();
    assert_eq!(waiting, 1);
    let late = cx.write(async |work| work.event_exports().acknowledge(lease, first + 1).await);
    assert!(!late.await.unwrap());
    drain(&world.app).await;
    assert_eq!(rewind::rewind(&operators, &cx, Some(since)).await.unwrap(), 1);
    drain(&world.app).await;
    let again = broker.positions(&world.acme).split_off(2 * all.len());
    assert_eq!(again, [first + 1, first + 1]);
    let rewound = |(action, _): &(String, Value)| action == "event_export.rewound";
    assert_eq!(
        world
            .audit(&world.acme)
            .await
            .iter()
            .filter(|one| rewound(one))
            .count(),
        3
    );
    assert_eq!(
        world
            .audit(&world.globex)
            .await
            .iter()
            .filter(|one| rewound(one))
            .count(),
        0
    );
    assert_eq!(
        world
            .operator_events()
            .await
            .iter()
            .filter(|one| rewound(one))
            .count(),
        3
    );
}

/// The entries of a stream by a group of readers, who acknowledge nothing.
async fn read_group(server: &RedisServer, stream: &str, reader: &str) -> Vec<Vec<String>> {
    let mut connection = server.connection().await;
    // The group may be there already.
    let _: Result<(), _> = redis::cmd("XGROUP")
        .arg(&["CREATE", stream, "readers", "0", "MKSTREAM"])
        .query_async(&mut connection)
        .await;
    let found: redis::Value = redis::cmd("XREADGROUP")
        .arg(&[
            "GROUP", "readers", reader, "COUNT", "1000", "STREAMS", stream, ">",
        ])
        .query_async(&mut connection)
        .await
        .unwrap();
    type Entry = (String, Vec<String>);
    let streams: Option<Vec<(String, Vec<Entry>)>> = redis::from_redis_value(found).unwrap();
    let entries = streams
        .unwrap_or_default()
        .into_iter()
        .flat_map(|(_, entries)| entries);
    entries.map(|(_, fields)| fields).collect()
}

fn field<'e>(entry: &'e [String], name: &str) -> &'e str {
    let at = entry.iter().position(|field| field == name).unwrap();
    &entry[at + 1]
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix_web::test]
async fn redis_stream_is_read_by_consumer_groups() {
    const STREAM: &str = "tests:events";
    let mut server = RedisServer::start();
    let redis = Redis::new(&server.url(), Duration::from_millis(500)).unwrap();
    tokio::spawn(redis.keep());
    until("Redis is there", || redis.is_there()).await;
    let timeout = Duration::from_secs(5);
    let sink = RedisEventSink::new(redis.clone(), STREAM, 1_000_000, timeout);
    let options = Options {
        event_export: Some(EventExport {
            sink: Arc::new(sink),
            timeout,
            batch: 5,
        }),
        ..Options::default()
    };
    let world = World::with(options).await;
    publish_both(&world).await;
    drain(&world.app).await;
    let entries = read_group(&server, STREAM, "one").await;
    let (acme, globex) = (
        newest(&world, &world.acme).await,
        newest(&world, &world.globex).await,
    );
    assert_eq!(entries.len() as i64, acme + globex);
    let of_acme = entries
        .iter()
        .filter(|entry| field(entry, "tenant") == world.acme.id.to_string());
    let of_acme: Vec<_> = of_acme.collect();
    let positions: Vec<i64> = of_acme
        .iter()
        .map(|entry| field(entry, "position").parse().unwrap())
        .collect();
    assert_eq!(positions, Vec::from_iter(1..=acme));
    let event: Value = serde_json::from_str(field(of_acme[0], "event")).unwrap();
    assert_eq!(
        (&event["specversion"], &event["id"]),
        (&"1.0".into(), &field(of_acme[0], "id").into())
    );
    assert_eq!(event["type"], field(of_acme[0], "type"));
    // Another reader of the group gets what was not delivered, and nothing else.
    assert!(read_group(&server, STREAM, "two").await.is_empty());
    // Redis is away: the events wait, and nothing else does.
    server.kill();
    until("Redis is away", || !redis.is_there()).await;
    rename(&world, &world.acme, "While Redis is away").await;
    publish_both(&world).await;
    drain(&world.app).await;
    assert!(world.app.event_export().is_failing());
    server.restart();
    until("Redis is back", || redis.is_there()).await;
    world.clock.advance(chrono::Duration::seconds(90));
    drain(&world.app).await;
    let entries = read_group(&server, STREAM, "one").await;
    assert_eq!(entries.len(), 1);
    assert!(field(&entries[0], "event").contains("While Redis is away"));
    assert!(!world.app.event_export().is_failing());
}

#[actix_web::test]
async fn redis_stream_keeps_about_its_maximum() {
    let server = RedisServer::start();
    let redis = Redis::new(&server.url(), Duration::from_millis(500)).unwrap();
    tokio::spawn(redis.keep());
    until("Redis is there", || redis.is_there()).await;
    let sink = RedisEventSink::new(redis, "tests:short", 1_000, Duration::from_secs(5));
    let event = |n: i64| ExportedEvent {
        tenant: uuid::Uuid::from_u128(1).into(),
        id: uuid::Uuid::from_u128(n.unsigned_abs().into()).into(),
        kind: "task.updated".into(),
        position: n,
        json: "{}".into(),
    };
    for batch in 0..10 {
        let events: Vec<_> = (batch * 500..(batch + 1) * 500).map(event).collect();
        sink.send(&events).await.unwrap();
    }
    let kept: u64 = redis::cmd("XLEN")
        .arg("tests:short")
        .query_async(&mut server.connection().await)
        .await
        .unwrap();
    assert!((1_000..2_000).contains(&kept), "{kept}");
}
