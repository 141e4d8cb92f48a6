//! The OpenAPI document and what is generated from it: linters read it, Schemathesis compares it with a running server,
//! and two tenants use the generated clients.

use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;

use actix_web::dev::ServerHandle;
use serde_json::{Value, json};
use tenantry_tests::{PASSWORD, World, outside};
use tokio::process::Command;

use crate::errors;
use crate::openfeature::serve;

const OPERATOR: &str = "contract@example.com";

/// Writes the document to a file, once.
fn document() -> PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let write = || {
        let file = outside::target().join("contract/openapi.json");
        std::fs::write(
            &file,
            serde_json::to_vec_pretty(&tenantry_http::openapi()).unwrap(),
        )
        .unwrap();
        file
    };
    FILE.get_or_init(write).clone()
}

/// A program of an npm package or of the Python packages that `scripts/ensure-contract` installs.
fn program(path: &str) -> Option<PathBuf> {
    outside::installed(&format!("contract/{path}"), "ensure-contract")
}

fn command(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(outside::target().join("contract"))
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().await.unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout
}

async fn build(client: &str) -> PathBuf {
    let mut build = Command::new(outside::root().join("scripts/build-clients"));
    build
        .arg(document())
        .arg(client)
        .env("CARGO_TARGET_DIR", outside::target());
    PathBuf::from(run(build).await.trim())
}

/// A server in which payments are taken.
struct Served {
    world: World,
    url: String,
    server: ServerHandle,
}

impl Served {
    async fn start() -> Self {
        let world = errors::paying().await;
        let (url, server) = serve(&world);
        Self { world, url, server }
    }

    /// Names the server, and an admin of each tenant, to a test of a client.
    fn tell(&self, command: &mut Command) {
        let user =
            |tenant: &str, email: &str| json!({"tenant": tenant, "email": email, "password": PASSWORD});
        let users = json!([
            user("acme", &self.world.acme.admin.email),
            user("globex", &self.world.globex.admin.email),
        ]);
        command
            .env("TENANTRY_URL", &self.url)
            .env("TENANTRY_USERS", users.to_string());
    }
}

#[actix_web::test]
async fn spectral_finds_nothing() {
    let Some(spectral) = program("contract/node_modules/.bin/spectral") else {
        return;
    };
    let mut lint = command(spectral);
    let rules = outside::root().join("tests/contract/spectral.yaml");
    lint.args(["lint", "--fail-severity", "hint", "--ruleset"])
        .arg(rules)
        .arg(document());
    run(lint).await;
}

#[actix_web::test]
async fn redocly_finds_nothing() {
    let Some(redocly) = program("contract/node_modules/.bin/redocly") else {
        return;
    };
    let mut lint = command(redocly);
    // It would report how it is used, and look for a newer version of itself.
    lint.env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
    lint.args(["lint", "--extends", "recommended-strict"])
        .arg(document());
    run(lint).await;
}

#[actix_web::test]
async fn schemathesis_finds_nothing() {
    let Some(schemathesis) = program("python/bin/schemathesis") else {
        return;
    };
    let Served { world, url, server } = Served::start().await;
    let folder = outside::root().join("tests/contract");
    let mut requests = command(schemathesis);
    world.operator(OPERATOR).await;
    requests
        .env("TENANT_SLUG", world.acme.slug)
        .env("TENANT_EMAIL", &world.acme.admin.email)
        .env("GUESSER_TOKEN", &world.globex.viewer.access_token)
        .env("OPERATOR_EMAIL", OPERATOR)
        .env("PASSWORD", PASSWORD)
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["run", "--no-color", "--url", &url])
        .arg(document());
    let report = run(requests).await;
    server.stop(false).await;
    // Some need a token or a password that no generator makes. Without a valid login nearly all would be refused.
    let refused = report
        .split_once("Authentication failed: ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
    assert!(refused.unwrap_or(0) <= 30, "{report}");
}

#[actix_web::test]
async fn typescript_client_keeps_tenants_apart() {
    if program("typescript/node_modules/.bin/tsc").is_none() {
        return;
    }
    let client = build("typescript").await;
    let served = Served::start().await;
    let mut node = Command::new("node");
    node.arg("--test").arg(client.join("dist/test/two-tenants.js"));
    served.tell(&mut node);
    run(node).await;
    served.server.stop(false).await;
}

#[actix_web::test]
async fn python_client_keeps_tenants_apart() {
    let Some(python) = program("python/bin/python") else {
        return;
    };
    let client = build("python").await;
    let served = Served::start().await;
    let mut test = command(python);
    test.arg(outside::root().join("clients/python/test_two_tenants.py"))
        .env("PYTHONPATH", client);
    served.tell(&mut test);
    run(test).await;
    served.server.stop(false).await;
}

#[actix_web::test]
async fn collection_has_every_operation() {
    if program("collection/node_modules/.bin/openapi2postmanv2").is_none() {
        return;
    }
    let file = build("collection").await.join("collection.json");
    let collection: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let paths = serde_json::to_value(tenantry_http::openapi().paths).unwrap();
    let operations: usize = paths
        .as_object()
        .unwrap()
        .values()
        .map(|item| item.as_object().unwrap().len())
        .sum();
    assert_eq!(requests(&collection), operations);
}

/// How many requests a folder of a collection has.
fn requests(item: &Value) -> usize {
    let items = item["item"].as_array().into_iter().flatten();
    usize::from(item["request"].is_object()) + items.map(requests).sum::<usize>()
}
