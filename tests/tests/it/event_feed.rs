//! Reading the feed of events: as a stream of server-sent events, and from the cursors that consumers have stored.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::events::EventConsumer;
use tenantry_tenancy::events::follow::FeedFollower;
use tenantry_tenancy::events::upkeep::KeepEvents;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tests::{Options, Person, Reply, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::audit::system;
use crate::events::{EVENTS, events_of, feed, publish_all, read, rename};
use crate::openfeature::serve;

const CONSUMERS: &str = "/api/v1/events/consumers";

/// The longest that anything is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a stream begins with. The streams of a usual world end after that.
async fn begun(world: &World, who: &Person, query: &str, last: Option<&str>) -> Reply {
    let request = world.get(who, &format!("{EVENTS}{query}"));
    let request = request.header("Accept", "text/event-stream");
    match last {
        Some(last) => request.header("Last-Event-ID", last).await,
        None => request.await,
    }
}

/// The frames of a stream that have data: their ids and events.
fn frames(text: &str) -> Vec<(String, Value)> {
    let frame = |frame: &str| {
        let field = |name: &str| {
            let line = frame.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::to_owned)
        };
        Some((field("id: ")?, serde_json::from_str(&field("data: ")?).unwrap()))
    };
    text.split("\n\n").filter_map(frame).collect()
}

#[actix_web::test]
async fn stream_goes_on_behind_the_last_id() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    rename(&world, acme, "One").await;
    let all = feed(&world, acme).await;
    publish_all(&world, globex).await;
    let reply = begun(&world, &acme.admin, "", None).await.expect(200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let first = frames(&reply.text());
    let events: Vec<_> = first.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(events, all[..events.len()]);
    assert!(events.len() > 2 && !reply.text().contains(&globex.id.to_string()));
    // The id of a frame is the cursor behind its event, also for a request that is no stream.
    let second = begun(&world, &acme.admin, "", Some(&first[0].0))
        .await
        .expect(200);
    assert_eq!(frames(&second.text()), first[1..]);
    let page = read(&world, &acme.admin, &format!("?limit=1&after={}", first[0].0)).await;
    assert_eq!(events_of(&page)[0], first[1].1);
    // It stands above the `after` of the address, which a client repeats when it reconnects.
    let latest = begun(&world, &acme.admin, "?after=latest", None)
        .await
        .expect(200);
    assert_eq!(frames(&latest.text()), []);
    let resumed = begun(&world, &acme.admin, "?after=latest", Some(&first[0].0)).await;
    assert_eq!(frames(&resumed.expect(200).text()), first[1..]);
    let typed = begun(&world, &acme.admin, "?types=task.updated", None)
        .await
        .expect(200);
    assert_eq!(frames(&typed.text()).len(), 1);
    // A cursor of another tenant, and a viewer.
    let foreign = begun(&world, &globex.admin, "", Some(&first[0].0)).await;
    foreign.problem(400, "invalid_cursor");
    begun(&world, &acme.viewer, "", None)
        .await
        .problem(403, "forbidden");
}

#[actix_web::test]
async fn stream_from_an_expired_cursor_is_refused() {
    let world = World::new().await;
    let acme = &world.acme;
    rename(&world, acme, "One").await;
    feed(&world, acme).await;
    let first = read(&world, &acme.admin, "?limit=1").await["next_cursor"].clone();
    let sql = "UPDATE events SET created_at = created_at - interval '31 days' WHERE position <= 3";
    world.sql(sql).await;
    let cx = system(&world, acme).await;
    KeepEvents.run(&cx, Nothing {}).await.unwrap();
    let expired = begun(&world, &acme.admin, "", first.as_str()).await;
    let expired = expired.problem(422, "validation_failed").json();
    assert_eq!(expired["errors"][0]["code"], "expired");
}

/// An open stream over a socket.
struct Open {
    socket: TcpStream,
    text: String,
}

impl Open {
    async fn new(url: &str, who: &Person, query: &str) -> Self {
        let address = url.trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).await.unwrap();
        let token = &who.access_token;
        let request = format!(
            "GET {EVENTS}{query} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut open = Self {
            socket,
            text: String::new(),
        };
        open.until("\r\n\r\n").await;
        open
    }

    fn status(&self) -> &str {
        &self.text[9..12]
    }

    /// Reads until the text is there. Returns false when the stream ends before.
    async fn until(&mut self, text: &str) -> bool {
        let reading = async {
            while !self.text.contains(text) {
                let mut some = [0; 4_096];
                let read = self.socket.read(&mut some).await.unwrap_or_default();
                if read == 0 {
                    return false;
                }
                self.text.push_str(&String::from_utf8_lossy(&some[..read]));
            }
            true
        };
        timeout(DEADLINE, reading).await.unwrap()
    }
}

/// Options with streams that go on.
fn long_streams() -> Options {
    let mut options = Options::default();
    options.http.event_stream_lifetime = Duration::from_secs(3_600);
    options.http.event_stream_heartbeat = Duration::from_millis(100);
    options
}

#[actix_web::test]
async fn open_stream_gets_events_and_ends_with_its_session() {
    let mut options = long_streams();
    options.http.event_streams_per_tenant = 1;
    let world = World::with(options).await;
    let acme = &world.acme;
    publish_all(&world, acme).await;
    let (url, server) = serve(&world);
    let mut open = Open::new(&url, &acme.admin, "?after=latest&types=task.updated").await;
    assert_eq!(open.status(), "200");
    // A waiting request needs the same place.
    let waiting = world.get(&acme.admin, &format!("{EVENTS}?wait=1&after=latest"));
    waiting.await.problem(429, "rate_limited");
    assert_eq!(Open::new(&url, &world.globex.admin, "").await.status(), "200");
    rename(&world, acme, "Heard").await;
    publish_all(&world, acme).await;
    assert!(open.until("\"Heard\"").await, "{}", open.text);
    // An event of another type moves the cursor: the next heartbeat has its id.
    let path = format!("/api/v1/projects/{}", acme.project);
    let renamed = world.patch(&acme.admin, &path, &json!({"name": "Other"}));
    renamed.await.expect(200);
    publish_all(&world, acme).await;
    assert!(open.until(": still here\nid: ").await, "{}", open.text);
    let logout = world.client.request(Method::POST, "/api/v1/auth/logout");
    logout.bearer(&acme.admin.access_token).await.expect(204);
    assert!(!open.until("never").await);
    server.stop(false).await;
}

/// A client that reads nothing keeps its own stream waiting and no other.
#[actix_web::test]
async fn slow_client_of_a_stream_holds_up_no_other() {
    let world = World::with(long_streams()).await;
    let acme = &world.acme;
    let (url, server) = serve(&world);
    let slow = Open::new(&url, &acme.admin, "?after=latest").await;
    let mut quick = Open::new(&url, &acme.admin, "?after=latest").await;
    let long = "x".repeat(4_000);
    for n in 0..100 {
        rename(&world, acme, &format!("{n}")).await;
        let path = format!("/api/v1/tasks/{}", acme.task);
        let described = world.patch(
            &acme.member,
            &path,
            &json!({"description": format!("{n} {long}")}),
        );
        described.await.expect(200);
    }
    rename(&world, acme, "The last one").await;
    publish_all(&world, acme).await;
    assert!(quick.until("\"The last one\"").await);
    drop(slow);
    server.stop(false).await;
}

#[actix_web::test]
async fn consumer_goes_on_where_it_has_stored() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    rename(&world, acme, "One").await;
    let all = feed(&world, acme).await;
    let path = format!("{CONSUMERS}/crm");
    let store = async |who: &Person, cursor: &str| {
        let stored = world.put(who, &path, &json!({"cursor": cursor}));
        stored.await.expect(200).json()
    };
    // There is none yet, and an unknown name does not begin with the oldest event in silence.
    let unknown = world.get(&acme.admin, &format!("{EVENTS}?consumer=crm")).await;
    let unknown = unknown.problem(422, "validation_failed").json();
    assert_eq!(unknown["errors"][0]["code"], "unknown_consumer");
    let made = store(&acme.admin, "oldest").await;
    let count = i64::try_from(all.len()).unwrap();
    assert_eq!(
        (
            &made["position"],
            &made["lag"],
            &made["version"],
            &made["expired"]
        ),
        (&json!(0), &json!(count), &json!(1), &json!(false))
    );
    let page = read(&world, &acme.admin, "?consumer=crm&limit=2").await;
    assert_eq!(events_of(&page), all[..2]);
    let moved = store(&acme.admin, page["next_cursor"].as_str().unwrap()).await;
    assert_eq!(
        (&moved["position"], &moved["lag"]),
        (&json!(2), &json!(count - 2))
    );
    assert_eq!(moved["cursor"], page["next_cursor"]);
    let page = read(&world, &acme.admin, "?consumer=crm").await;
    assert_eq!(events_of(&page), all[2..]);
    // `after` stands above the name, and a stream begins there too.
    let page = read(&world, &acme.admin, "?consumer=crm&after=latest").await;
    assert_eq!(events_of(&page).len(), 0);
    let stream = begun(&world, &acme.admin, "?consumer=crm", None)
        .await
        .expect(200);
    assert_eq!(frames(&stream.text())[0].1, all[2]);
    let listed = world.get(&acme.admin, CONSUMERS).await.expect(200).json();
    assert_eq!(
        (
            listed["data"].as_array().unwrap().len(),
            &listed["data"][0]["name"]
        ),
        (1, &json!("crm"))
    );
    // The same name is another consumer in another tenant.
    world.get(&globex.admin, &path).await.problem(404, "not_found");
    publish_all(&world, globex).await;
    store(&globex.admin, "latest").await;
    let own = world.get(&acme.admin, &path).await.expect(200).json();
    assert_eq!(own["position"], 2);
    let foreign = json!({"cursor": moved["cursor"]});
    let foreign = world.put(&globex.admin, &path, &foreign).await;
    foreign.problem(400, "invalid_cursor");
    world.delete(&globex.admin, &path).await.expect(204);
    world.get(&acme.admin, &path).await.expect(200);
    // Creation and deletion are recorded, and not each cursor.
    let actions = |log: Vec<(String, Value)>| -> Vec<String> {
        let actions = log.into_iter().map(|(action, _)| action);
        actions
            .filter(|action| action.starts_with("event_consumer"))
            .collect()
    };
    assert_eq!(actions(world.audit(acme).await), ["event_consumer.created"]);
    assert_eq!(
        actions(world.audit(globex).await),
        ["event_consumer.created", "event_consumer.deleted"]
    );
}

#[actix_web::test]
async fn second_instance_of_a_consumer_is_noticed() {
    let world = World::new().await;
    let acme = &world.acme;
    feed(&world, acme).await;
    let path = format!("{CONSUMERS}/crm");
    let body = json!({"cursor": "latest"});
    // Of requests that create it at once, all see one consumer.
    let made =
        join_all((0..4).map(|_| async { world.put(&acme.admin, &path, &body).await.expect(200).json() }));
    let mut versions: Vec<_> = made
        .await
        .iter()
        .map(|made| made["version"].as_i64().unwrap())
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
    let with = |etag: &str| world.put(&acme.admin, &path, &body).header("If-Match", etag);
    with("\"4\"").await.expect(200);
    with("\"4\"").await.problem(412, "stale_version");
    let created = world.put(&acme.admin, &path, &body).header("If-None-Match", "*");
    created.await.problem(412, "stale_version");
    let deleted = world.delete(&acme.admin, &path).header("If-Match", "\"4\"");
    deleted.await.problem(412, "stale_version");
    world.delete(&acme.admin, &path).await.expect(204);
    world.delete(&acme.admin, &path).await.problem(404, "not_found");
    for wrong in ["A", ".x", "a%20b", &"x".repeat(65)] {
        let named = world
            .put(&acme.admin, &format!("{CONSUMERS}/{wrong}"), &body)
            .await;
        named.problem(404, "not_found");
    }
    for (body, status, code) in [
        (json!({"cursor": "nonsense"}), 400, "invalid_cursor"),
        (json!({"cursor": "latest", "more": 1}), 422, "unknown_field"),
        (json!({}), 422, "validation_failed"),
    ] {
        world.put(&acme.admin, &path, &body).await.problem(status, code);
    }
}

#[actix_web::test]
async fn consumers_are_bounded_and_need_their_scope() {
    let world = World::new().await;
    let acme = &world.acme;
    feed(&world, acme).await;
    let body = json!({"cursor": "latest"});
    let key = async |scopes: &[&str]| {
        let body = json!({"name": "Receiver", "scopes": scopes});
        let key = world.post(&acme.admin, "/api/v1/api-keys", &body).await;
        key.expect(201).json()["key"].as_str().unwrap().to_owned()
    };
    let (reads, consumes) = (key(&["events.read"]).await, key(&["events.consume"]).await);
    let path = format!("{CONSUMERS}/crm");
    let store = |key: &str| world.client.put(&path, &body).bearer(key);
    store(&reads).await.problem(403, "forbidden");
    store(&consumes).await.expect(200);
    world
        .client
        .get(&path)
        .bearer(&consumes)
        .await
        .problem(403, "forbidden");
    world.client.get(&path).bearer(&reads).await.expect(200);
    for who in [&acme.viewer, &acme.member] {
        world.put(who, &path, &body).await.problem(403, "forbidden");
        world.get(who, CONSUMERS).await.problem(403, "forbidden");
    }
    // A suspended tenant reads its feed, and stores where it is.
    world.set_status(acme, "suspended").await;
    world.put(&acme.admin, &path, &body).await.expect(200);
    world.set_status(acme, "active").await;
    let fill = format!(
        "INSERT INTO event_consumers (tenant_id, id, created_at, name, position, updated_at, version) \
         SELECT '{}', gen_random_uuid(), now(), 'c' || g, 0, now(), 1 FROM generate_series(1, {}) g",
        acme.id,
        EventConsumer::MOST - 1
    );
    world.sql(fill).await;
    let more = world.put(&acme.admin, &format!("{CONSUMERS}/more"), &body).await;
    more.problem(409, "conflict");
    world.put(&acme.admin, &path, &body).await.expect(200);
    let listed = world.get(&acme.admin, CONSUMERS).await.expect(200).json();
    assert_eq!(
        listed["data"].as_array().unwrap().len() as u64,
        EventConsumer::MOST
    );
    world.put(&world.globex.admin, &path, &body).await.expect(200);
}

#[actix_web::test]
async fn expired_consumer_says_so() {
    let world = World::new().await;
    let acme = &world.acme;
    rename(&world, acme, "One").await;
    feed(&world, acme).await;
    let path = format!("{CONSUMERS}/crm");
    let stored = world.put(&acme.admin, &path, &json!({"cursor": "oldest"}));
    let first = stored.await.expect(200).json()["cursor"].clone();
    world
        .sql("UPDATE events SET created_at = created_at - interval '31 days' WHERE position <= 3")
        .await;
    let cx = system(&world, acme).await;
    KeepEvents.run(&cx, Nothing {}).await.unwrap();
    let state = world.get(&acme.admin, &path).await.expect(200).json();
    assert_eq!((&state["expired"], &state["position"]), (&json!(true), &json!(0)));
    let refused = world.get(&acme.admin, &format!("{EVENTS}?consumer=crm")).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(
        (&refused["errors"][0]["pointer"], &refused["errors"][0]["code"]),
        (&json!("/query/consumer"), &json!("expired"))
    );
    let again = world.put(&acme.admin, &path, &json!({"cursor": first})).await;
    let again = again.problem(422, "validation_failed").json();
    assert_eq!(again["errors"][0]["pointer"], "/cursor");
    let anew = world.put(&acme.admin, &path, &json!({"cursor": "oldest"}));
    assert_eq!(anew.await.expect(200).json()["position"], 3);
    read(&world, &acme.admin, "?consumer=crm").await;
}

/// A page looks at a bounded number of positions; a wait and a stream go on until they have found an event.
#[actix_web::test]
async fn rare_type_is_found_behind_many_events() {
    let world = World::new().await;
    let acme = &world.acme;
    publish_all(&world, acme).await;
    let fill = format!(
        "INSERT INTO events (tenant_id, id, created_at, kind, actor_kind, entity, data, position) \
         SELECT '{0}', gen_random_uuid(), now(), 'project.created', 'system', 'project', '{{}}', g + \
         (SELECT max(position) FROM events WHERE tenant_id = '{0}') FROM generate_series(1, 12000) g",
        acme.id
    );
    world.sql(fill).await;
    rename(&world, acme, "The rare one").await;
    publish_all(&world, acme).await;
    let first = read(&world, &acme.admin, "?types=task.updated").await;
    assert_eq!((events_of(&first).len(), &first["has_more"]), (0, &json!(true)));
    let next = format!(
        "?types=task.updated&after={}",
        first["next_cursor"].as_str().unwrap()
    );
    let second = read(&world, &acme.admin, &next).await;
    assert_eq!(
        (events_of(&second).len(), &second["has_more"]),
        (1, &json!(false))
    );
    let waited = read(&world, &acme.admin, "?types=task.updated&wait=15").await;
    assert_eq!(events_of(&waited), events_of(&second));
}

/// Streams and waits of a tenant share looks at its feed, and those of another tenant have their own.
#[actix_web::test]
async fn followers_of_a_tenant_share_a_look() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    publish_all(&world, acme).await;
    let (cx, other) = (world.cx(&acme.admin).await, world.cx(&globex.admin).await);
    let newest = format!("SELECT max(position) FROM events WHERE tenant_id = '{}'", acme.id);
    let newest = crate::events::number(&world, &newest).await;
    let mut followers: Vec<_> = (0..50).map(|_| FeedFollower::new(&cx).unwrap()).collect();
    let looks = world.app.feed_looks();
    let found = join_all(followers.iter().map(|one| one.is_behind(&cx, newest))).await;
    assert!(found.into_iter().all(|found| !found.unwrap()));
    assert_eq!(looks.count(), 1);
    let foreign = FeedFollower::new(&other).unwrap();
    assert!(!foreign.is_behind(&other, newest).await.unwrap());
    assert_eq!(looks.count(), 2);
    assert!(foreign.is_behind(&cx, 0).await.is_err());
    // A publication wakes all of them, and one of them looks.
    rename(&world, acme, "One").await;
    publish_all(&world, acme).await;
    let cx = &cx;
    let woken = join_all(followers.iter_mut().map(|one| async move {
        one.wait().await;
        one.is_behind(cx, newest).await.unwrap()
    }));
    assert!(woken.await.into_iter().all(|found| found));
    assert_eq!(looks.count(), 3);
}

/// Some clients send the header without an id when they connect for the first time.
#[actix_web::test]
async fn empty_last_event_id_is_none() {
    let world = World::new().await;
    publish_all(&world, &world.acme).await;
    let stream = begun(&world, &world.acme.admin, "?after=latest", Some("")).await;
    assert_eq!(frames(&stream.expect(200).text()), []);
}

/// A look sends about 64 KiB, so that a client that takes little keeps little in memory; the next one goes on behind it.
#[actix_web::test]
async fn look_of_a_stream_is_bounded_in_bytes() {
    let world = World::new().await;
    let acme = &world.acme;
    publish_all(&world, acme).await;
    let start = read(&world, &acme.admin, "?after=latest").await["next_cursor"].clone();
    let long = "x".repeat(4_000);
    for n in 0..30 {
        let path = format!("/api/v1/tasks/{}", acme.task);
        let change = json!({"description": format!("{n} {long}")});
        world.patch(&acme.member, &path, &change).await.expect(200);
    }
    publish_all(&world, acme).await;
    let (mut last, mut all) = (start.as_str().unwrap().to_owned(), Vec::new());
    while all.len() < 30 {
        let part = begun(&world, &acme.admin, "", Some(&last)).await.expect(200);
        assert!(part.text().len() < 100_000, "{}", part.text().len());
        let part = frames(&part.text());
        last = part.last().unwrap().0.clone();
        all.extend(
            part.into_iter()
                .map(|(_, event)| event["position"].as_i64().unwrap()),
        );
    }
    assert!(all.windows(2).all(|two| two[1] == two[0] + 1), "{all:?}");
}
