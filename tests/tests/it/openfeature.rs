//! From outside: the public OpenFeature SDKs and OFREP providers, as they are on npm, read flags over a socket.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use actix_web::HttpServer;
use actix_web::dev::ServerHandle;
use serde_json::{Value, json};
use tenantry_domain::flags::Bucket;
use tenantry_http::HttpConfig;
use tenantry_tests::{Options, World, outside};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::features::{define, redefine};

/// The packages that `scripts/ensure-openfeature` has installed.
fn packages() -> Option<PathBuf> {
    let folder = outside::installed("openfeature/fetched", "ensure-openfeature")?;
    Some(folder.with_file_name("node_modules"))
}

/// A script of `tests/openfeature` with the packages.
fn script(name: &str, modules: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("openfeature")
                .join(name),
        )
        .env("NODE_PATH", modules)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn world() -> World {
    let options = Options::default();
    let http = HttpConfig {
        event_stream_lifetime: Duration::from_secs(60),
        ..options.http
    };
    World::with(Options { http, ..options }).await
}

/// Serves the world's API, and says where.
pub fn serve(world: &World) -> (String, ServerHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let api = world.api.clone();
    let server = HttpServer::new(move || tenantry_http::app(api.clone()));
    let server = server
        .workers(1)
        .disable_signals()
        .listen(listener)
        .unwrap()
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (url, handle)
}

fn rollout(salt: &str, percent: u32) -> Value {
    json!({"salt": salt, "rules": [{"level": "global",
        "serve": {"split": {"by": "tenant", "parts": [{"variant": "on", "percent": percent}]}}}]})
}

#[actix_web::test]
async fn a_rollout_of_20_and_then_50_percent_of_tenants_is_read_through_an_openfeature_sdk() {
    let Some(modules) = packages() else { return };
    let world = world().await;
    let bucket =
        |salt: &str, tenant: &tenantry_tests::TenantWorld| Bucket::of(salt, &tenant.id.to_string()).number();
    // With this salt the one tenant is among the first 20 %, and the other among the first 50 %.
    let salt = (0..).map(|number| format!("salt-{number}"));
    let salt = salt
        .into_iter()
        .find(|salt| {
            bucket(salt, &world.acme) < 2_000 && (2_000..5_000).contains(&bucket(salt, &world.globex))
        })
        .unwrap();
    let of = |kind: &str, one: Value, two: Value| json!({"type": kind, "variants": {"one": one, "two": two}, "default_variant": "one", "off_variant": "one"});
    let mut colour = of("string", json!("red"), json!("blue"));
    colour["rules"] = json!([{"level": "user", "when": [{"attribute": "country", "operator": "in", "values": ["de"]}],
        "serve": {"variant": "two"}}]);
    define(&world, "colour", colour).await;
    define(&world, "size", of("number", json!(2.5), json!(3))).await;
    define(&world, "layout", of("object", json!({"columns": 3}), json!({}))).await;
    define(&world, "rollout", rollout(&salt, 20)).await;
    let (url, server) = serve(&world);
    let read = async || {
        let tokens = [&world.acme.viewer.access_token, &world.globex.viewer.access_token];
        let output = script("read.cjs", &modules)
            .arg(&url)
            .args(tokens)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let on = json!({"value": true, "variant": "on", "reason": "SPLIT", "level": "global"});
    let off = json!({"value": false, "variant": "off", "reason": "UNKNOWN", "level": "default"});
    let first = read().await;
    assert_eq!([&first[0]["rollout"], &first[1]["rollout"]], [&on, &off]);
    redefine(&world, "rollout", rollout(&salt, 50)).await;
    let second = read().await;
    assert_eq!([&second[0]["rollout"], &second[1]["rollout"]], [&on, &on]);
    let of_acme = &second[0];
    assert_eq!(
        of_acme["colour"],
        json!({"value": "blue", "variant": "two", "reason": "TARGETING_MATCH", "level": "user"})
    );
    assert_eq!(
        (&of_acme["size"]["value"], &of_acme["layout"]["value"]),
        (&json!(2.5), &json!({"columns": 3}))
    );
    for (name, value, code) in [
        ("missing", true, "FLAG_NOT_FOUND"),
        ("wrongType", true, "TYPE_MISMATCH"),
        ("otherTenant", false, "INVALID_CONTEXT"),
    ] {
        let told = &of_acme[name];
        assert_eq!(
            (&told["value"], &told["errorCode"]),
            (&json!(value), &json!(code)),
            "{told}"
        );
    }
    server.stop(false).await;
}

#[actix_web::test]
async fn a_browsers_provider_hears_of_a_change_over_the_event_stream() {
    let Some(modules) = packages() else { return };
    let world = world().await;
    define(&world, "shown", json!({})).await;
    let (url, server) = serve(&world);
    let mut child = script("watch.cjs", &modules)
        .args([url.as_str(), &world.acme.viewer.access_token, "shown"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || {
        tokio::time::timeout(Duration::from_secs(60), lines.next_line())
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(line().await.as_deref(), Some("ready false"));
    redefine(&world, "shown", json!({"default_variant": "on"})).await;
    assert_eq!(line().await.as_deref(), Some("changed true"));
    child.wait().await.unwrap();
    server.stop(false).await;
}

#[actix_web::test]
async fn a_stream_ends_with_its_session() {
    let world = world().await;
    define(&world, "shown", json!({})).await;
    let (url, server) = serve(&world);
    let address = url.strip_prefix("http://").unwrap();
    let who = &world.acme.viewer;
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /ofrep/v1/events HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        who.access_token
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes())
        .await
        .unwrap();
    let mut lines = BufReader::new(socket).lines();
    let mut until = async |wanted: Option<&str>| {
        loop {
            let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line())
                .await
                .unwrap()
                .unwrap();
            match (&line, wanted) {
                (Some(line), Some(wanted)) if line.contains(wanted) => return,
                (None, None) => return,
                (None, Some(wanted)) => panic!("the stream ended before {wanted}"),
                (Some(_), _) => {}
            }
        }
    };
    until(Some(": connected")).await;
    redefine(&world, "shown", json!({"enabled": false})).await;
    until(Some("refetchEvaluation")).await;
    let logout = world
        .client
        .request(actix_web::http::Method::POST, "/api/v1/auth/logout");
    logout.bearer(&who.access_token).await.expect(204);
    until(None).await;
    server.stop(false).await;
}
