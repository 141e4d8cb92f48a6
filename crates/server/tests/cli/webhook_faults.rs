//! Webhooks of servers that are killed between the steps from a change to its delivery.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_tests::{Hook, HookReply, HookSink};

use super::serving::{Serving, beside, row, until};
use super::*;

/// A receiver on this machine, which only a server in development may reach.
const SETTINGS: [(&str, &str); 3] = [
    ("TENANTRY__WEBHOOKS__ALLOW_HTTP", "true"),
    ("TENANTRY__WEBHOOKS__PORTS", "[]"),
    ("TENANTRY__WEBHOOKS__ALLOWED_NETWORKS", "[\"127.0.0.1\"]"),
];

/// Servers are killed with `kill -9` while they publish events, and while requests are in flight. Each event of a change arrives at least
/// once, with one id; no message has no change.
#[test]
fn killed_servers_lose_no_webhook_and_invent_none() {
    let folder = Folder::new("webhooks");
    let sink = HookSink::default();
    let dev = Dev::start_with(
        &folder.0,
        &[&SETTINGS[..], &[("TENANTRY__JOBS__ENABLED", "false")]].concat(),
    );
    let token = dev.login("acme");
    let header = format!("Authorization: Bearer {token}\r\n");
    let endpoint = json!({"url": sink.url("acme"), "event_types": ["task.updated"]}).to_string();
    let (status, answer) = dev.request("POST", "/api/v1/webhooks/endpoints", &header, &endpoint);
    assert_eq!(status, 201, "{answer}");
    let tasks: Value = serde_json::from_str(&dev.get(&token, "/api/v1/tasks?limit=1")).unwrap();
    let path = format!("/api/v1/tasks/{}", tasks["data"][0]["id"].as_str().unwrap());
    let mut config = beside(&folder.0);
    config.extend(SETTINGS.map(|(key, value)| (key, value.to_owned())));
    let rename = |serving: &Serving, title: &str| {
        let body = json!({"title": title}).to_string();
        let (status, answer) = request(&serving.address, ("PATCH", &path), &header, &body);
        assert_eq!(status, 200, "{answer}");
    };

    // With answers that are held, a server dies while requests are in flight.
    sink.answer("acme", HookReply::Held);
    for round in 0..3 {
        let serving = Serving::start(&config);
        for number in 0..4 {
            rename(&serving, &format!("Held {round}-{number}"));
        }
        if round == 0 {
            until("a request is in flight", || !sink.received("acme").is_empty());
        }
        serving.end("KILL");
    }
    sink.release();
    sink.answer("acme", HookReply::Status(200));
    // Without, it dies anywhere between the change and the stored result.
    for round in 0..4_u64 {
        let serving = Serving::start(&config);
        for number in 0..4 {
            rename(&serving, &format!("Title {round}-{number}"));
        }
        std::thread::sleep(Duration::from_millis(round * 40));
        serving.end("KILL");
    }
    let serving = Serving::start(&config);
    rename(&serving, "The last one");
    let titles = |sink: &HookSink| -> BTreeSet<String> {
        let received = sink.received("acme").into_iter();
        let title = |hook: Hook| hook.body["data"]["object"]["title"].as_str().unwrap().to_owned();
        received.map(title).collect()
    };
    let mut expected = BTreeSet::from(["The last one".to_owned()]);
    expected.extend((0..3).flat_map(|round| (0..4).map(move |number| format!("Held {round}-{number}"))));
    expected.extend((0..4).flat_map(|round| (0..4).map(move |number| format!("Title {round}-{number}"))));
    // A lease of a killed server stands for half a minute.
    until("every message has arrived", || {
        titles(&sink).is_superset(&expected)
    });
    let left = "SELECT count(*), count(*) FILTER (WHERE state = 'succeeded') FROM webhook_deliveries";
    until("every result is stored", || {
        let (all, delivered): (i64, i64) = row(&folder.0, left);
        delivered == all
    });
    // Each message is an event of the feed, and each change has one message, however often it came.
    let events = "SELECT coalesce(string_agg('msg_' || replace(e.id::text, '-', ''), ' '), '') FROM events e \
                  WHERE e.id IN (SELECT d.message_id FROM webhook_deliveries d)";
    let (ids,): (String,) = row(&folder.0, events);
    let queued: BTreeSet<&str> = ids.split(' ').collect();
    let received = sink.received("acme");
    let arrived: BTreeSet<&str> = received.iter().map(|hook| hook.id.as_str()).collect();
    assert_eq!(arrived, queued);
    for title in &expected {
        let of_title = received
            .iter()
            .filter(|hook| hook.body["data"]["object"]["title"] == json!(title));
        let ids: BTreeSet<&str> = of_title.map(|hook| hook.id.as_str()).collect();
        assert_eq!(ids.len(), 1, "{title}");
    }
    serving.end("TERM");
    assert_eq!(dev.stop(), Some(0));
}
