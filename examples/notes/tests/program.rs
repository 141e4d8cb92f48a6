//! The program of this service: the commands of the stock one, with its table and routes in all of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use tenantry_tests::{DevServer, Folder, Program};

struct Notes;

impl Program for Notes {
    const PATH: &'static str = env!("CARGO_BIN_EXE_notes");
}

/// What a command beside the demo says on standard output, and whether it succeeds.
fn beside(data: &Folder, arguments: &[&str]) -> (bool, String) {
    let data = ["--data-dir", data.0.to_str().unwrap(), "--profile", "development"];
    let output = Notes::command(&[arguments, &data].concat()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.success(), text.concat())
}

/// The committed table of roles and permissions, the product's and its own.
#[test]
fn permission_matrix() {
    let permissions = notes::extension().permissions().unwrap();
    insta::assert_snapshot!(tenantry_tests::permission_matrix(&permissions));
}

#[test]
fn its_table_and_routes_are_in_every_command() {
    let data = Folder::new("notes");
    let demo = DevServer::<Notes>::start(&data.0);
    let bearer = |tenant| format!("Authorization: Bearer {}\r\n", demo.login(tenant));
    let (acme, globex) = (bearer("acme"), bearer("globex"));
    let (_, tasks) = demo.request("GET", "/api/v1/tasks", &acme, "");
    let tasks: Value = serde_json::from_str(&tasks).unwrap();
    let path = format!("/api/v1/tasks/{}/notes", tasks["data"][0]["id"].as_str().unwrap());
    let (status, made) = demo.request("POST", &path, &acme, "{\"text\":\"Ours\"}");
    assert_eq!(status, 201, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["text"], "Ours");
    let note = format!("/api/v1/notes/{}", made["id"].as_str().unwrap());
    assert_eq!(demo.request("GET", &note, &acme, "").0, 200);
    assert_eq!(demo.request("GET", &note, &globex, "").0, 404);
    assert_eq!(demo.request("POST", &path, &globex, "{\"text\":\"Ours\"}").0, 404);

    let (_, permissions) = demo.request("GET", "/api/v1/permissions", &acme, "");
    assert!(
        permissions.contains("\"notes.read\"") && permissions.contains("\"notes.write\""),
        "{permissions}"
    );
    let key = "{\"name\":\"Notes\",\"scopes\":[\"notes.read\"]}";
    let (status, key) = demo.request("POST", "/api/v1/api-keys", &acme, key);
    assert_eq!(status, 201, "{key}");
    let key: Value = serde_json::from_str(&key).unwrap();
    let key = format!("X-API-Key: {}\r\n", key["key"].as_str().unwrap());
    assert_eq!(demo.request("GET", &note, &key, "").0, 200);
    assert_eq!(demo.request("POST", &path, &key, "{\"text\":\"Ours\"}").0, 403);

    let (_, document) = beside(&data, &["openapi"]);
    assert!(document.contains("/api/v1/notes/{id}") && document.contains("/api/v1/tasks/{id}"));
    let (succeeded, status) = beside(&data, &["migrate", "status"]);
    assert!(
        succeeded && status.contains("applied m20270101_000001_notes"),
        "{status}"
    );
    record(&data);
    // It knows the table: nothing is unknown, and nothing differs from what the migrations make.
    let (succeeded, report) = beside(&data, &["doctor"]);
    assert!(succeeded, "{report}");
    let (_, help) = beside(&data, &["--help"]);
    assert!(help.contains("Usage: notes"), "{help}");
}

/// Writes what its migrations make, where that is asked for; the next build has it.
fn record(data: &Folder) {
    if std::env::var_os("TENANTRY_WRITE_CATALOGUE").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/catalogue.txt");
        assert!(beside(data, &["doctor", "--record", file]).0);
    }
}
