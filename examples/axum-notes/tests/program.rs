//! The program of this service, over the database of a Tenantry server that logs its users in.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tenantry_domain::kernel::Clock as _;
use tenantry_system::{SigningKey, SystemClock};
use tenantry_tests::{ManualClock, Options, Program, World, request};

struct AxumNotes;

impl Program for AxumNotes {
    const PATH: &'static str = env!("CARGO_BIN_EXE_axum-notes");
}

/// The settings of the world's server, as it and this service read them.
type Environment = Vec<(&'static str, String)>;

struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Running {
    fn start(environment: &Environment) -> Self {
        let mut child = AxumNotes::command(&[])
            .envs(environment.iter().cloned())
            .env("LISTEN", "127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("serving address=") {
            line.clear();
            assert!(
                stderr.read_line(&mut line).unwrap() > 0,
                "it ended before it served"
            );
        }
        let address = line.split("address=").nth(1).unwrap().trim().to_owned();
        Self {
            child,
            stderr,
            address,
        }
    }

    /// Stops it with a signal; whether it ended well, and what it logged.
    fn stop(mut self, signal: &str) -> (bool, String) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &pid])
            .status();
        assert!(sent.unwrap().success());
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().success(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program says before it fails.
fn failure(arguments: &[&str], environment: &Environment) -> String {
    let output = AxumNotes::command(arguments)
        .envs(environment.iter().cloned())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// A world by the system's clock, and the settings of its server.
async fn world() -> (World, Environment) {
    let pem = SigningKey::generate().to_pem();
    let options = Options {
        keys: vec![pem.clone()],
        clock: Some(Arc::new(ManualClock::at(SystemClock::new().now()))),
        ..Options::default()
    };
    let world = World::with(options).await;
    let environment = vec![
        ("TENANTRY__DATABASE__URL", world.database.app_url()),
        ("TENANTRY__DATABASE__PLATFORM_URL", world.database.platform_url()),
        ("TENANTRY__AUTH__SIGNING_KEY", pem),
        ("TENANTRY__AUTH__API_KEY_ENVIRONMENT", "test".to_owned()),
    ];
    (world, environment)
}

fn migrate(world: &World) {
    let mut command = AxumNotes::command(&["migrate"]);
    command.env("DATABASE_URL", world.database.owner_url());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_written_and_read_until_a_signal() {
    let (world, environment) = world().await;
    migrate(&world);
    record(&world).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let (acme, globex) = (&world.acme.member.access_token, &world.globex.admin.access_token);
    for signal in ["TERM", "INT"] {
        let service = Running::start(&environment);
        let send = |method, path: &str, token: &str, body: &str| {
            request(&service.address, (method, path), &bearer(token), body)
        };
        let (status, made) = send("POST", "/notes", acme, "{\"text\":\"Ours\"}");
        assert_eq!(status, 201, "{made}");
        let made: Value = serde_json::from_str(&made).unwrap();
        let path = format!("/notes/{}", made["id"].as_str().unwrap());
        let (status, read) = send("GET", &path, acme, "");
        assert_eq!((status, serde_json::from_str(&read).unwrap()), (200, made));
        assert_eq!(send("GET", &path, globex, "").0, 404);
        let (ended_well, log) = service.stop(signal);
        assert!(ended_well && log.contains("stopped"), "{signal}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_one_line_that_names_the_setting() {
    let (world, environment) = world().await;
    migrate(&world);
    let without = |name: &str| {
        let mut rest = environment.clone();
        rest.retain(|(other, _)| *other != name);
        rest
    };
    let with = |name: &'static str, value: &str| {
        let mut changed = without(name);
        changed.push((name, value.to_owned()));
        changed
    };
    let (url, key) = ("TENANTRY__DATABASE__URL", "TENANTRY__AUTH__SIGNING_KEY");
    for (arguments, environment, named) in [
        (&[][..], without(url), url),
        (
            &[],
            without("TENANTRY__DATABASE__PLATFORM_URL"),
            "TENANTRY__DATABASE__PLATFORM_URL",
        ),
        (&[], without(key), key),
        (&[], with(key, "no key"), key),
        (&[], with(url, "nonsense"), url),
        (&[], with(url, "postgres://tenantry_app:hush@127.0.0.1:1/x"), url),
        (
            &[],
            with("TENANTRY__AUTH__API_KEY_ENVIRONMENT", "No!"),
            "TENANTRY__AUTH__API_KEY_ENVIRONMENT",
        ),
        (
            &[],
            with("TENANTRY__HTTP__TRUST_FORWARDED_FOR", "maybe"),
            "trust_forwarded_for",
        ),
        (&[], with("LISTEN", "nowhere"), "LISTEN"),
        (&["migrate"], environment.clone(), "DATABASE_URL"),
        (&["fly"], environment.clone(), "usage"),
    ] {
        let said = failure(arguments, &environment);
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("axum-notes: "))
            .collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(named) && !said.contains("hush"), "{named}: {said}");
    }
    let superuser = with(url, &world.database.admin_url());
    let refused = failure(&[], &superuser);
    assert!(refused.contains("ROLE001"), "{refused}");
}

/// What its migrations make is what the committed catalogue says; written anew where that is asked for.
async fn record(world: &World) {
    let mut connection = tenantry_doctor::connect(&world.database.owner_url())
        .await
        .unwrap();
    let options = tenantry_doctor::Options::default();
    let made = tenantry_doctor::record(&mut connection, &options).await.unwrap();
    let known: Vec<&str> = tenantry_migration::CATALOGUE.lines().collect();
    let made = made.to_string();
    let own = made.lines().filter(|line| !known.contains(line));
    let own = own.fold(String::new(), |text, line| text + line + "\n");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/catalogue.txt");
    if std::env::var_os("TENANTRY_WRITE_CATALOGUE").is_some() {
        std::fs::write(file, &own).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), own);
}
