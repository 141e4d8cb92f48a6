//! Notifications by servers that are killed.

use serde_json::{Value, json};

use super::serving::{Serving, beside, row, until};
use super::*;

/// Servers are killed at any point between the commit of an assignment and its notification. In the end each assignment has notified once.
#[test]
fn killed_servers_notify_once_of_each_assignment() {
    let folder = Folder::new("notifications");
    let dev = Dev::start_with(&folder.0, NOTHING);
    let token = dev.login("acme");
    let mut config = beside(&folder.0);
    // Another server takes over what a killed one was doing after this.
    config.push(("TENANTRY__JOBS__LEASE_SECONDS", "5".to_owned()));
    let projects: Value = serde_json::from_str(&dev.get(&token, "/api/v1/projects?limit=1")).unwrap();
    let path = format!(
        "/api/v1/projects/{}/tasks",
        projects["data"][0]["id"].as_str().unwrap()
    );
    let (member,): (String,) = row(
        &folder.0,
        "SELECT id::text FROM users WHERE email = 'member@acme.example'",
    );
    let header = format!("Authorization: Bearer {token}\r\n");
    for round in 0..4 {
        let serving = Serving::start(&config);
        for number in 0..8 {
            let task = json!({"title": format!("Kept {round}-{number}"), "assignee_id": member}).to_string();
            let (status, answer) = request(&serving.address, ("POST", &path), &header, &task);
            assert_eq!(status, 201, "{answer}");
        }
        serving.end("KILL");
    }
    let counts = "SELECT (SELECT count(*) FROM tasks WHERE title LIKE 'Kept %')::bigint, \
                  (SELECT count(*) FROM notifications WHERE parts->>'title' LIKE 'Kept %')::bigint, \
                  (SELECT count(DISTINCT entity_id) FROM notifications WHERE parts->>'title' LIKE 'Kept %')::bigint";
    until("each assignment has notified", || {
        let (tasks, notifications, distinct): (i64, i64, i64) = row(&folder.0, counts);
        assert_eq!(notifications, distinct);
        tasks == 32 && distinct == tasks
    });
    assert_eq!(dev.stop(), Some(0));
}
