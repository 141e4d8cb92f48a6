//! What a client may do to a connection, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::dev::ServerHandle;
use actix_web::web::ServiceConfig;
use tenantry_http::{Api, Endpoint, ListenSettings};
use tenantry_tests::{Options, World};

/// A server on a port of its own, with one thread.
struct Listening {
    address: SocketAddr,
    handle: ServerHandle,
}

const SETTINGS: ListenSettings = ListenSettings {
    workers: 1,
    max_connections: 1_000,
    head_timeout: Duration::from_secs(20),
    idle_timeout: Duration::from_secs(20),
    disconnect_timeout: Duration::from_millis(200),
    shutdown_seconds: 1,
};

fn listen(api: Api, settings: ListenSettings) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = tenantry_http::listen(move || api.clone(), listener, settings).unwrap();
    let handle = server.handle();
    std::thread::spawn(|| actix_web::rt::System::new().block_on(server));
    Listening { address, handle }
}

impl Listening {
    /// Runs clients on a thread of their own: the database connections belong to this one.
    async fn serve(self, clients: impl FnOnce(SocketAddr) + Send + 'static) {
        let address = self.address;
        let clients = tokio::task::spawn_blocking(move || clients(address));
        clients.await.unwrap();
        self.handle.stop(false).await;
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// A request without a body, as bytes.
fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n")
}

fn bearer(world: &World) -> String {
    format!("Authorization: Bearer {}\r\n", world.acme.admin.access_token)
}

/// All that comes until the connection is closed.
fn rest(mut stream: &TcpStream) -> String {
    let mut heard = Vec::new();
    // A connection that is reset has ended too.
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8_lossy(&heard).into_owned()
}

/// One answer that tells its length.
fn answer(mut stream: &TcpStream) -> String {
    let (mut heard, mut byte) = (Vec::new(), [0]);
    while !heard.ends_with(b"\r\n\r\n") {
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&heard)
        );
        heard.push(byte[0]);
    }
    let head = String::from_utf8(heard).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8_lossy(&body)
}

fn is_problem(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    for part in [
        "content-type: application/problem+json",
        "x-request-id: ",
        &format!("\"code\":\"{code}\""),
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[actix_web::test]
async fn a_slow_head_is_answered_408_and_an_idle_connection_is_closed() {
    let world = World::new().await;
    let settings = ListenSettings {
        head_timeout: Duration::from_secs(1),
        ..SETTINGS
    };
    let server = listen(world.api.clone(), settings);
    let clients = |address| {
        let [silent, slow, later] = [(); 3].map(|()| connect(address));
        (&slow)
            .write_all(b"GET /health/liveness HTTP/1.1\r\nHost:")
            .unwrap();
        (&later)
            .write_all(get("/health/liveness", "").as_bytes())
            .unwrap();
        assert!(answer(&later).starts_with("HTTP/1.1 200"));
        (&later).write_all(b"GET").unwrap();
        assert_eq!(rest(&silent), "");
        is_problem(&rest(&slow), 408, "request_timeout");
        is_problem(&rest(&later), 408, "request_timeout");
    };
    server.serve(clients).await;

    let settings = ListenSettings {
        idle_timeout: Duration::from_millis(100),
        ..SETTINGS
    };
    let server = listen(world.api.clone(), settings);
    let client = |address| {
        let idle = connect(address);
        (&idle).write_all(get("/health/liveness", "").as_bytes()).unwrap();
        assert!(rest(&idle).starts_with("HTTP/1.1 200"));
    };
    server.serve(client).await;
}

/// Whether the only thread of the server is to be held up.
static HELD: AtomicBool = AtomicBool::new(false);

async fn hold() -> HttpResponse {
    HELD.store(true, Ordering::SeqCst);
    // The test lets go, or fails.
    let began = Instant::now();
    while HELD.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    HttpResponse::NoContent().finish()
}

fn until_held() {
    let began = Instant::now();
    while !HELD.load(Ordering::SeqCst) {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
}

fn held_up(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/hold").get(hold));
}

#[actix_web::test]
async fn a_late_server_blames_no_client() {
    let world = World::new().await;
    let settings = ListenSettings {
        head_timeout: Duration::from_secs(2),
        ..SETTINGS
    };
    let server = listen(world.api.clone().with_routes(held_up), settings);
    let bearer = bearer(&world);
    let clients = move |address| {
        let (holding, waiting) = (connect(address), connect(address));
        let send = |mut stream: &TcpStream, text: &str| stream.write_all(text.as_bytes()).unwrap();
        send(&waiting, &get("/health/liveness", ""));
        assert!(answer(&waiting).starts_with("HTTP/1.1 200"));

        // The rest of a head comes in time, and the server reads it too late.
        send(&waiting, "GET /health/liveness HTTP/1.1\r\n");
        send(&holding, &get("/api/v1/hold", &bearer));
        until_held();
        send(&waiting, "Host: x\r\n\r\n");
        let held = Instant::now();
        while held.elapsed() < settings.head_timeout {
            std::thread::yield_now();
        }
        HELD.store(false, Ordering::SeqCst);
        let late = answer(&waiting);
        assert!(late.starts_with("HTTP/1.1 200"), "{late}");
        assert!(answer(&holding).starts_with("HTTP/1.1 204"));
    };
    server.serve(clients).await;
}

static ANSWERED: AtomicUsize = AtomicUsize::new(0);

async fn large() -> HttpResponse {
    ANSWERED.fetch_add(1, Ordering::SeqCst);
    HttpResponse::Ok().body(vec![b'x'; 1 << 20])
}

#[actix_web::test]
async fn requests_wait_while_their_client_reads_no_answers() {
    let world = World::new().await;
    let routes = |config: &mut ServiceConfig| {
        config.service(Endpoint::at("/large").get(large));
    };
    let server = listen(world.api.clone().with_routes(routes), SETTINGS);
    let one = get("/api/v1/large", &bearer(&world));
    let clients = move |address| {
        let (greedy, other) = (connect(address), connect(address));
        (&greedy).write_all(one.repeat(200).as_bytes()).unwrap();
        // Until there is no more answer while another connection gets a hundred.
        let mut answered = 0;
        while ANSWERED.load(Ordering::SeqCst) != answered || answered == 0 {
            answered = ANSWERED.load(Ordering::SeqCst);
            for _ in 0..100 {
                (&other)
                    .write_all(get("/health/liveness", "").as_bytes())
                    .unwrap();
                assert!(answer(&other).starts_with("HTTP/1.1 200"));
            }
        }
        assert!(
            answered < 100,
            "{answered} answers of a megabyte that nobody reads"
        );
    };
    server.serve(clients).await;
}

#[actix_web::test]
async fn what_is_no_request_gets_a_problem() {
    let world = World::new().await;
    let server = listen(world.api.clone(), SETTINGS);
    let clients = |address| {
        let ask = |request: &str| {
            let stream = connect(address);
            // The server may close before it has read all.
            let _ = (&stream).write_all(request.as_bytes());
            rest(&stream)
        };
        let path = |length: usize| format!("/{}", "a".repeat(length));
        let close = "Connection: close\r\n";
        let long = format!("X-Long: {}\r\n", "a".repeat(200_000));
        is_problem(&ask("what is this\r\n\r\n"), 400, "invalid_request");
        let no_host = "GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n";
        is_problem(&ask(no_host), 400, "invalid_request");
        is_problem(&ask(&get(&path(8_000), close)), 404, "not_found");
        is_problem(&ask(&get(&path(8_192), close)), 414, "uri_too_long");
        is_problem(&ask(&get(&path(80_000), close)), 414, "uri_too_long");
        is_problem(&ask(&get("/", &long)), 431, "headers_too_large");
    };
    server.serve(clients).await;
}

#[actix_web::test]
async fn continue_is_sent_after_authentication() {
    let world = World::new().await;
    let server = listen(world.api.clone(), SETTINGS);
    let bearer = bearer(&world);
    let clients = move |address| {
        let body = r#"{"name":"Expected"}"#;
        let head = |credential: &str| {
            format!(
                "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\nExpect: 100-continue\r\n{credential}\r\n",
                body.len()
            )
        };
        let stranger = connect(address);
        (&stranger).write_all(head("").as_bytes()).unwrap();
        is_problem(&answer(&stranger), 401, "unauthenticated");
        let known = connect(address);
        (&known).write_all(head(&bearer).as_bytes()).unwrap();
        assert_eq!(answer(&known), "HTTP/1.1 100 Continue\r\n\r\n");
        (&known).write_all(body.as_bytes()).unwrap();
        let created = answer(&known);
        assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    };
    server.serve(clients).await;
}

#[actix_web::test]
async fn an_event_stream_gives_up_its_place_when_the_client_goes() {
    let mut options = Options::default();
    options.http.event_streams_per_tenant = 1;
    options.http.event_stream_lifetime = Duration::from_secs(600);
    let world = World::with(options).await;
    let server = listen(world.api.clone(), SETTINGS);
    let request = get("/ofrep/v1/events", &bearer(&world));
    let clients = move |address| {
        let open = || {
            let (stream, mut first) = (connect(address), [0; 12]);
            (&stream).write_all(request.as_bytes()).unwrap();
            (&stream).read_exact(&mut first).unwrap();
            (stream, String::from_utf8(first.to_vec()).unwrap())
        };
        let (stream, status) = open();
        assert_eq!(status, "HTTP/1.1 200");
        assert_eq!(open().1, "HTTP/1.1 429");
        drop(stream);
        let gone = Instant::now();
        // By itself it would be noticed at the second heartbeat.
        while open().1 != "HTTP/1.1 200" {
            assert!(gone.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    };
    server.serve(clients).await;
}

/// A frame of HTTP/2: type, flags, stream and payload.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[actix_web::test]
async fn a_client_that_begins_with_http_2_is_understood() {
    let world = World::new().await;
    let server = listen(world.api.clone(), SETTINGS);
    let client = |address| {
        let stream = connect(address);
        // The preface in two parts; then GET http / of the static table (RFC 7541, appendix A), and the authority "x".
        (&stream).write_all(b"PRI * ").unwrap();
        (&stream).write_all(b"HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let headers = frame(1, 0b101, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'x']);
        (&stream)
            .write_all(&[frame(4, 0, 0, &[]), headers].concat())
            .unwrap();
        let mut kinds = Vec::new();
        while !kinds.contains(&(1, 1)) {
            let mut head = [0; 9];
            (&stream).read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            (&stream).read_exact(&mut payload).unwrap();
            kinds.push((head[3], head[8]));
        }
        assert_eq!(kinds[0], (4, 0), "its settings come first");
    };
    server.serve(client).await;
}

#[actix_web::test]
async fn the_document_is_served_in_every_coding_with_a_tag() {
    let world = World::new().await;
    let plain = world.client.get("/openapi.json").send().await.expect(200);
    let tag = plain.header("etag").unwrap().to_owned();
    for coding in ["br", "gzip", "zstd"] {
        let request = || {
            world
                .client
                .get("/openapi.json")
                .header("Accept-Encoding", coding)
        };
        let coded = request().send().await.expect(200);
        assert_eq!(coded.header("content-encoding"), Some(coding));
        assert_eq!(coded.header("etag"), Some(tag.as_str()));
        assert_eq!(coded.header("vary"), Some("Accept-Encoding"));
        assert!(
            coded.bytes.len() * 4 < plain.bytes.len(),
            "{coding}: {}",
            coded.bytes.len()
        );
        let known = request().header("If-None-Match", &tag).send().await.expect(304);
        assert!(known.bytes.is_empty());
    }
    let yaml = world.client.get("/openapi.yaml").send().await.expect(200);
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    assert!(
        yaml.text().starts_with("openapi: 3.1.0\n"),
        "{}",
        &yaml.text()[..40]
    );
    assert_ne!(yaml.header("etag"), Some(tag.as_str()));
    // Other answers are compressed on the way.
    let tasks = world.get(&world.acme.viewer, "/api/v1/tasks");
    let tasks = tasks.header("Accept-Encoding", "gzip").send().await.expect(200);
    assert_eq!(tasks.header("content-encoding"), Some("gzip"));
}

#[actix_web::test]
async fn paths_that_people_try_lead_somewhere() {
    let world = World::new().await;
    let get = |path: &str| world.client.get(path).send();
    assert_eq!(get("/").await.header("location"), Some("/docs/"));
    for path in ["/healthz", "/livez", "/readyz"] {
        get(path).await.expect(200);
    }
    let moved = get("/api/v1/tasks/?limit=1").await.expect(308);
    assert_eq!(moved.header("location"), Some("/api/v1/tasks?limit=1"));
    for nowhere in ["/nope/", "//evil.example/", "/api/v1/tasks//x/", "/api/v1/"] {
        get(nowhere).await.problem(404, "not_found");
    }
    let options = world
        .client
        .request(actix_web::http::Method::OPTIONS, "/api/v1/tasks");
    let options = options.send().await.expect(204);
    let allowed = options.header("allow").unwrap();
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert!(allowed.split(", ").any(|one| one == method), "{allowed}");
    }
}
