//! A service with another web framework over the same database: `examples/axum-notes` beside the API that logs its users in.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use actix_web::http::Method;
use axum_notes::{Bounds, ReadNotes, WriteNotes};
use cargo_metadata::{DependencyKind, MetadataCommand};
use chrono::Duration;
use serde_json::{Value, json};
use tenantry::Extension;
use tenantry_compose::{Base, Upkeep};
use tenantry_domain::identity::ApiKeyFormat;
use tenantry_domain::kernel::{RequestId, SystemScope};
use tenantry_system::SigningKey;
use tenantry_tenancy::identity::signing_key;
use tenantry_tenancy::tenant::access;
use tenantry_tenancy::{Forwarding, OperatorCx, Origin, Policy, Tenancy};
use tenantry_tests::{Options, World};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The service on a port, as the runtime role of the world's database.
struct Service {
    address: String,
    app: Arc<Tenancy>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.json(status);
        assert!(self.head.contains("application/problem+json"), "{}", self.head);
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&json!(code), &json!(status))
        );
        assert_eq!(
            self.head.contains("www-authenticate: Bearer"),
            status == 401,
            "{}",
            self.head
        );
        problem
    }
}

impl Service {
    async fn over(world: &World, pem: &str) -> Self {
        Self::with(world, pem, Forwarding::default(), Bounds::default()).await
    }

    async fn with(world: &World, pem: &str, forwarding: Forwarding, bounds: Bounds) -> Self {
        let database = &world.database;
        tenantry_migration::up_with::<axum_notes::Migrator>(&database.owner_url(), None)
            .await
            .unwrap();
        let app = application(world, pem);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&app);
        let task = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or(()) };
            axum_notes::serve(served, forwarding, bounds, listener, stopped).await;
        });
        Self {
            address,
            app,
            stop: Some(stop),
            task,
        }
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        );
        let answer = self.raw(request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split_whitespace().nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// Sends bytes, and reads until the service closes the connection.
    async fn raw(&self, request: String) -> String {
        let address = self.address.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        answer.await.unwrap()
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        self.send("GET", path, &bearer(token), "").await
    }

    async fn post(&self, token: &str, body: &str) -> Answer {
        let headers = format!("{}Content-Type: application/json\r\n", bearer(token));
        self.send("POST", "/notes", &headers, body).await
    }

    async fn note(&self, token: &str, text: &str) -> Value {
        let body = json!({ "text": text }).to_string();
        self.post(token, &body).await.json(201)
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The application of the service over the world's database.
fn application(world: &World, pem: &str) -> Arc<Tenancy> {
    let database = &world.database;
    let keys = vec![SigningKey::from_pem(pem).unwrap()];
    let base = Base {
        clock: world.clock.clone(),
        passwords: Arc::clone(&world.app.ports.passwords),
        permissions: Arc::new(axum_notes::permissions().unwrap()),
        ..Base::new(&database.app_url(), &database.platform_url(), keys).unwrap()
    };
    let policy = Policy {
        api_keys: ApiKeyFormat::new("test").unwrap(),
        ..Policy::default()
    };
    tenantry_compose::application(&base, policy).unwrap()
}

async fn world() -> (World, Service) {
    let (world, pem) = keyed_world().await;
    let service = Service::over(&world, &pem).await;
    (world, service)
}

/// A world whose server gives API keys the permissions of the service, and its signing key.
async fn keyed_world() -> (World, String) {
    let pem = SigningKey::generate().to_pem();
    let extension = Extension::new("beside-axum-notes");
    let options = Options {
        keys: vec![pem.clone()],
        extension: extension.permission::<ReadNotes>().permission::<WriteNotes>(),
        ..Options::default()
    };
    (World::with(options).await, pem)
}

/// The created note, under the path of its id.
fn path(note: &Value) -> String {
    format!("/notes/{}", note["id"].as_str().unwrap())
}

#[actix_web::test]
async fn tenants_see_their_own_notes_only() {
    let (world, service) = world().await;
    let (acme, globex) = (&world.acme.member.access_token, &world.globex.admin.access_token);
    let theirs = service.note(globex, "Theirs").await;
    let globex_before = world.digest(&world.globex).await;
    let ours = service.note(acme, "Ours").await;
    assert_eq!(service.get(acme, &path(&ours)).await.json(200), ours);
    assert_eq!(
        service.get(acme, "/notes").await.json(200),
        json!({"data": [ours], "has_more": false})
    );
    assert_eq!(
        service.get(globex, "/notes").await.json(200)["data"],
        json!([theirs])
    );

    // A foreign id is answered as a random one is.
    let random = format!("/notes/{}", Uuid::from_u128(7));
    let unknown = service.get(acme, &random).await;
    unknown.problem(404, "not_found");
    assert_eq!(service.get(acme, &path(&theirs)).await.body, unknown.body);

    let viewer = &world.acme.viewer.access_token;
    service
        .post(viewer, "{\"text\":\"No\"}")
        .await
        .problem(403, "forbidden");
    let audited = world.audit(&world.acme).await;
    let made = audited.iter().filter(|(action, _)| action == "axum_note.created");
    let targets: Vec<_> = made.map(|(_, row)| &row["target_id"]).collect();
    assert_eq!(targets, [&ours["id"]]);
    assert_eq!(world.digest(&world.globex).await, globex_before);
}

#[actix_web::test]
async fn dead_and_foreign_credentials_are_refused() {
    let (world, service) = world().await;
    service
        .send("GET", "/notes", "", "")
        .await
        .problem(401, "unauthenticated");
    let twice = bearer(&world.acme.admin.access_token) + &bearer(&world.acme.admin.access_token);
    for headers in [
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearer \r\n",
        &twice,
    ] {
        let refused = service.send("GET", "/notes", headers, "").await;
        refused.problem(401, "unauthenticated");
    }
    // Signed with the key of another installation, for tenants of the same names.
    let elsewhere = World::new().await;
    for token in [&elsewhere.acme.admin.access_token, "e30.e30.AAAA", "tk_test_none"] {
        let refused = service.get(token, "/notes").await;
        refused.problem(401, "unauthenticated");
    }

    let member = &world.acme.member;
    service.get(&member.access_token, "/notes").await.json(200);
    let logout = world.client.request(Method::POST, "/api/v1/auth/logout");
    logout.bearer(&member.access_token).await.expect(204);
    world.outlive_the_cache();
    let refused = service.get(&member.access_token, "/notes").await;
    refused.problem(401, "token_revoked");

    world.set_status(&world.acme, "suspended").await;
    let admin = &world.acme.admin.access_token;
    service.get(admin, "/notes").await.json(200);
    let refused = service.post(admin, "{\"text\":\"No\"}").await;
    refused.problem(403, "tenant_suspended");
    world.set_status(&world.acme, "deleted").await;
    service.get(admin, "/notes").await.problem(410, "tenant_gone");
    world.clock.advance(Duration::hours(1));
    let late = service.get(&world.globex.admin.access_token, "/notes").await;
    late.problem(401, "token_expired");
}

#[actix_web::test]
async fn api_keys_do_what_their_scopes_allow_until_they_are_revoked() {
    let (world, service) = world().await;
    let admin = &world.acme.admin;
    let body = json!({"name": "CI", "scopes": ["axum_notes.read"]});
    let key = world.post(admin, "/api/v1/api-keys", &body).await;
    let key = key.expect(201).json();
    let (id, text) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    let ours = service.note(&admin.access_token, "Ours").await;
    let theirs = service.note(&world.globex.admin.access_token, "Theirs").await;
    assert_eq!(service.get(text, "/notes").await.json(200)["data"], json!([ours]));
    service.get(text, &path(&theirs)).await.problem(404, "not_found");
    let refused = service.post(text, "{\"text\":\"No\"}").await;
    refused.problem(403, "forbidden");

    tenantry_compose::store_notes(&service.app).await;
    let path = format!("/api/v1/api-keys/{id}");
    let used = world.get(admin, &path).await.expect(200).json();
    assert!(used["last_used_at"].is_string(), "{used}");

    let revoked = world.delete(admin, &path);
    revoked.await.expect(204);
    world.outlive_the_cache();
    service.get(text, "/notes").await.problem(401, "unauthenticated");
    let audited = world.audit(&world.acme).await;
    let refused = audited.iter().find(|(action, _)| action == "api_key.refused");
    assert_eq!(refused.unwrap().1["after"]["reason"], "revoked");
}

#[actix_web::test]
async fn a_key_that_another_server_rotated_is_accepted() {
    let (world, service) = world().await;
    let because = SystemScope::because("a test of signing keys");
    let cx = OperatorCx::command(&world.app, because);
    signing_key::rotate(&cx, 600).await.unwrap();
    world.clock.advance(Duration::seconds(600));
    signing_key::refresh(&world.app).await.unwrap();
    let login = world
        .login("acme", &world.acme.admin.email, tenantry_tests::PASSWORD)
        .await;
    let login = login.expect(200).json();
    let token = login["access_token"].as_str().unwrap();
    tenantry_compose::read_keys(&service.app).await.unwrap();
    service.get(token, "/notes").await.json(200);
}

#[actix_web::test]
async fn bad_input_is_a_problem_and_stores_nothing() {
    let (world, service) = world().await;
    let token = &world.acme.member.access_token;
    for text in [json!(""), json!("a\0b"), json!("x".repeat(1_001))] {
        let refused = service.post(token, &json!({ "text": text }).to_string()).await;
        let problem = refused.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/text", "{problem}");
    }
    for body in [
        "{}",
        "{\"text\":1}",
        "{\"text\":\"a\",\"tenant_id\":\"00000000-0000-0000-0000-000000000000\"}",
        "{\"text\":\"a\",\"text\":\"b\"}",
    ] {
        service.post(token, body).await.problem(422, "validation_failed");
    }
    service.post(token, "{").await.problem(400, "malformed_json");
    let large = json!({ "text": "x".repeat(20_000) }).to_string();
    service
        .post(token, &large)
        .await
        .problem(413, "payload_too_large");
    let headers = bearer(token) + "Content-Type: text/plain\r\n";
    let plain = service.send("POST", "/notes", &headers, "{\"text\":\"a\"}").await;
    plain.problem(415, "unsupported_media_type");
    for (method, path, status, code) in [
        ("PUT", "/notes", 405, "method_not_allowed"),
        ("GET", "/notes/none", 404, "not_found"),
        ("GET", "/notes/%FF", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
    ] {
        let refused = service.send(method, path, &bearer(token), "").await;
        refused.problem(status, code);
    }
    assert_eq!(service.get(token, "/notes").await.json(200)["data"], json!([]));
}

/// Repeats a question until its answer is yes.
async fn until(what: &str, ask: impl AsyncFn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !ask().await {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// What a credential is answered by an application that serves nothing itself.
async fn admitted(app: &Arc<Tenancy>, credential: &str) -> bool {
    let request = RequestId::next(app.ports.ids.as_ref());
    access::admit(app, credential, &Origin::default(), request)
        .await
        .is_ok()
}

#[actix_web::test]
async fn keys_are_read_and_counts_stored_while_it_runs() {
    let (world, pem) = keyed_world().await;
    let app = application(&world, &pem);
    let key = key_within(&world, &[]).await;
    let because = || SystemScope::because("a test of signing keys");
    let cx = OperatorCx::command(&world.app, because());
    signing_key::rotate(&cx, 600).await.unwrap();
    world.clock.advance(Duration::seconds(600));
    signing_key::refresh(&world.app).await.unwrap();
    let login = world
        .login("acme", &world.acme.admin.email, tenantry_tests::PASSWORD)
        .await;
    let token = login.expect(200).json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(!admitted(&app, &token).await, "a key that it has not read");

    let often = std::time::Duration::from_millis(5);
    let upkeep = Upkeep {
        keys: often,
        notes: often,
    };
    let cx = world
        .app
        .ports
        .gate
        .bearer(&token, RequestId::next(world.app.ports.ids.as_ref()));
    let scope = cx.await.unwrap().scope;
    let running = upkeep.beside(&app, async {
        until("a key that another server stored is accepted", async || {
            admitted(&app, &token).await
        })
        .await;
        assert!(admitted(&app, &key).await);
        app.views().note(&scope, world.acme.project);
        until("counts are stored", async || stored(&world).await == (1, 1)).await;
    });
    running.await;
}

#[actix_web::test]
async fn counts_are_stored_at_the_end() {
    let (world, pem) = keyed_world().await;
    let app = application(&world, &pem);
    let key = key_within(&world, &[]).await;
    let never = std::time::Duration::from_secs(3_600);
    let upkeep = Upkeep {
        keys: never,
        notes: never,
    };
    let cx = world.cx(&world.acme.admin).await;
    let elsewhere = key_within(&world, &["203.0.113.0/24"]).await;
    let running = upkeep.beside(&app, async {
        // The first round is at once; what comes after it waits for the end.
        tokio::task::yield_now().await;
        for _ in 0..2 {
            assert!(admitted(&app, &key).await && !admitted(&app, &elsewhere).await);
            app.views().note(cx.scope(), world.acme.project);
        }
    });
    running.await;
    assert_eq!(stored(&world).await, (2, 1));
    assert_eq!((app.views().waiting(), app.refusals().waiting()), (0, 0));
    let refused = world.audit(&world.acme).await;
    let refused = refused.iter().filter(|(action, _)| action == "api_key.refused");
    assert_eq!(refused.count(), 2, "the first one, and the repeats as one");
}

/// The views of acme's project and its used keys, as they are stored.
async fn stored(world: &World) -> (i64, i64) {
    let sql = "SELECT (SELECT view_count::bigint FROM projects WHERE id = $1), \
               (SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL)";
    let stored = sqlx::query_as(sql).bind(world.acme.project.uuid());
    stored.fetch_one(&mut world.database.admin().await).await.unwrap()
}

/// An API key of an admin of acme for this service, with a note to read.
async fn key_within(world: &World, networks: &[&str]) -> String {
    let networks = (!networks.is_empty()).then_some(networks);
    let body = json!({"name": "CI", "scopes": ["axum_notes.read"], "allowed_networks": networks});
    let key = world
        .post(&world.acme.admin, "/api/v1/api-keys", &body)
        .await
        .expect(201)
        .json();
    key["key"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn networks_of_keys_are_compared_with_the_client() {
    let (world, pem) = keyed_world().await;
    let with = async |trusted| Service::with(&world, &pem, Forwarding::new(trusted), Bounds::default()).await;
    let (direct, proxied) = (with(false).await, with(true).await);
    let clients = key_within(&world, &["198.51.100.0/24", "2001:db8::/32"]).await;
    let peers = key_within(&world, &["127.0.0.0/8"]).await;
    let get = async |service: &Service, key: &str, hops: Option<&str>| {
        let hops = hops.map_or_else(String::new, |hops| format!("X-Forwarded-For: {hops}\r\n"));
        service
            .send("GET", "/notes", &(bearer(key) + &hops), "")
            .await
            .status
    };
    for (hops, through_clients, through_peers) in [
        (Some("198.51.100.7"), 200, 401),
        (Some("10.0.0.9, 198.51.100.7:5678"), 200, 401),
        (Some("[2001:db8::1]:80"), 200, 401),
        (Some("198.51.100.7, 203.0.113.1"), 401, 401),
        (Some("198.51.100.7, unknown"), 401, 401),
        (Some("127.0.0.1"), 401, 200),
        (None, 401, 200),
    ] {
        assert_eq!(get(&proxied, &clients, hops).await, through_clients, "{hops:?}");
        assert_eq!(get(&proxied, &peers, hops).await, through_peers, "{hops:?}");
        // Without a proxy the header is a claim of the caller.
        assert_eq!(get(&direct, &clients, hops).await, 401, "{hops:?}");
        assert_eq!(get(&direct, &peers, hops).await, 200, "{hops:?}");
    }
}

#[actix_web::test]
async fn slow_and_large_requests_are_ended() {
    let (world, pem) = keyed_world().await;
    let moment = std::time::Duration::from_millis(50);
    let bounds = Bounds {
        head: moment,
        body: moment,
        ..Bounds::default()
    };
    let service = Service::with(&world, &pem, Forwarding::default(), bounds).await;
    let token = bearer(&world.acme.member.access_token);
    // The head never ends: the connection does.
    let unfinished = service.raw("GET /notes HTTP/1.1\r\nHost: x\r\n".into()).await;
    assert!(
        unfinished.is_empty() || unfinished.contains(" 408 "),
        "{unfinished}"
    );
    let post = format!("POST /notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{token}");
    let slow = service.raw(format!("{post}Content-Length: 12\r\n\r\n{{")).await;
    assert!(
        slow.contains(" 408 ") && slow.contains("request_timeout"),
        "{slow}"
    );
    let chunk = "x".repeat(17 * 1024);
    let large = format!(
        "{post}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n",
        chunk.len()
    );
    let large = service
        .raw(large.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nConnection: close\r\n"))
        .await;
    assert!(
        large.contains(" 413 ") && large.contains("payload_too_large"),
        "{large}"
    );
    // What is refused for its credential has nothing of its body read.
    let guest = "POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{".to_owned();
    let refused = service.raw(guest).await;
    assert!(refused.contains(" 401 "), "{refused}");

    let hasty = Bounds {
        answer: std::time::Duration::ZERO,
        ..Bounds::default()
    };
    let service = Service::with(&world, &pem, Forwarding::default(), hasty).await;
    let late = service
        .post(&world.acme.member.access_token, "{\"text\":\"Late\"}")
        .await;
    late.problem(503, "unavailable");
}

#[actix_web::test]
async fn draining_ends_in_time() {
    let (world, pem) = keyed_world().await;
    let bounds = Bounds {
        drain: std::time::Duration::from_millis(50),
        ..Bounds::default()
    };
    let mut service = Service::with(&world, &pem, Forwarding::default(), bounds).await;
    // A client that does not send the body it has announced.
    let mut stuck = TcpStream::connect(&service.address).unwrap();
    let token = bearer(&world.acme.member.access_token);
    write!(
        stuck,
        "POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n{token}\r\n{{"
    )
    .unwrap();
    // A request behind it is answered, so the service has taken the connection.
    service
        .get(&world.acme.member.access_token, "/notes")
        .await
        .json(200);
    service.stop.take().unwrap().send(()).unwrap();
    (&mut service.task).await.unwrap();
    let closed = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        // Closed with or without a reset.
        let _ = stuck.read_to_end(&mut rest);
        rest
    });
    assert_eq!(closed.await.unwrap(), Vec::<u8>::new());
    assert!(TcpStream::connect(&service.address).is_err());
}

#[actix_web::test]
async fn a_broken_rule_of_its_table_is_named() {
    let (world, service) = world().await;
    let refused = service
        .post(&world.acme.member.access_token, "{\"text\":\"LOUD\"}")
        .await;
    let problem = refused.problem(422, "validation_failed");
    assert_eq!(
        problem["errors"],
        json!([{"pointer": "", "code": "check_violated", "detail": "breaks the rule `axum_notes_text_is_calm`"}])
    );
}

/// Whatever it depends on, and whatever that depends on.
#[test]
fn it_does_without_actix() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(["--locked".into()])
        .exec()
        .unwrap();
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    let name = |id| metadata[id].name.as_str();
    let mut open: Vec<_> = nodes.iter().map(|node| &node.id).collect();
    open.retain(|id| name(*id) == "axum-notes");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(name(id).to_owned()) {
            let node = nodes.iter().find(|node| node.id == *id).unwrap();
            let built = node.deps.iter().filter(|dependency| {
                let kinds = &dependency.dep_kinds;
                kinds.iter().any(|kind| kind.kind != DependencyKind::Development)
            });
            open.extend(built.map(|dependency| &dependency.pkg));
        }
    }
    assert!(seen.contains("axum") && seen.contains("tenantry-persistence"));
    let actix: Vec<_> = seen.iter().filter(|name| name.starts_with("actix")).collect();
    assert_eq!(actix, Vec::<&String>::new());
    assert!(!seen.contains("tenantry-http") && !seen.contains("tenantry"));
}
