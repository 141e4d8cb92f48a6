//! What a client may do to a connection, over real sockets.

use std::future::poll_fn;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::dev::ServerHandle;
use actix_web::web::{Bytes, Data, Path, ServiceConfig};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tenantry_http::{Api, Endpoint, ListenConfig};
use tenantry_tests::{Options, World};

/// A server on a port of its own, with one thread.
struct Listening {
    address: SocketAddr,
    handle: ServerHandle,
}

const CONFIG: ListenConfig = ListenConfig {
    workers: 1,
    max_connections: 1_000,
    connections_per_network: None,
    head_timeout: Duration::from_secs(20),
    idle_timeout: Duration::from_secs(20),
    disconnect_timeout: Duration::from_millis(200),
    shutdown_seconds: 1,
};

fn listen(api: Api, config: ListenConfig) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = tenantry_http::listen(move || api.clone(), listener, config).unwrap();
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
    let config = ListenConfig {
        head_timeout: Duration::from_secs(1),
        ..CONFIG
    };
    let server = listen(world.api.clone(), config);
    let clients = |address| {
        let [silent, slow, later, slower] = [(); 4].map(|()| connect(address));
        // HTTP/2 begins with a P as well.
        send(&slower, "P");
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
        is_problem(&rest(&slower), 408, "request_timeout");
        is_problem(&rest(&later), 408, "request_timeout");
    };
    server.serve(clients).await;

    let config = ListenConfig {
        idle_timeout: Duration::from_millis(100),
        ..CONFIG
    };
    let server = listen(world.api.clone(), config);
    let client = |address| {
        let idle = connect(address);
        (&idle).write_all(get("/health/liveness", "").as_bytes()).unwrap();
        assert!(rest(&idle).starts_with("HTTP/1.1 200"));
    };
    server.serve(client).await;
}

/// What the routes of these tests note, and whether the only thread of their server is held up.
#[derive(Debug, Default)]
struct Notes {
    held: AtomicBool,
    answered: AtomicUsize,
    served: Mutex<Vec<String>>,
}

async fn hold(notes: Data<Notes>) -> HttpResponse {
    notes.held.store(true, Ordering::SeqCst);
    // The test lets go, or fails.
    let began = Instant::now();
    while notes.held.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    HttpResponse::NoContent().finish()
}

async fn large(notes: Data<Notes>) -> HttpResponse {
    notes.answered.fetch_add(1, Ordering::SeqCst);
    HttpResponse::Ok().body(vec![b'x'; 1 << 20])
}

async fn served(notes: Data<Notes>, name: Path<String>) -> HttpResponse {
    notes.served.lock().unwrap().push(name.into_inner());
    HttpResponse::NoContent().finish()
}

impl Notes {
    /// The API with routes that write into these notes.
    fn of(world: &World) -> (Data<Self>, Api) {
        let notes = Data::new(Self::default());
        let routes = notes.clone();
        let api = world.api.clone().with_routes(move |config: &mut ServiceConfig| {
            config
                .app_data(routes.clone())
                .service(Endpoint::at("/hold").get(hold))
                .service(Endpoint::at("/large").get(large))
                .service(Endpoint::at("/served/{name}").get(served));
        });
        (notes, api)
    }

    /// Holds the server's thread up for as long as something takes.
    fn while_held<T>(&self, address: SocketAddr, bearer: &str, meanwhile: impl FnOnce() -> T) -> T {
        let holding = connect(address);
        send(&holding, &get("/api/v1/hold", bearer));
        let began = Instant::now();
        while !self.held.load(Ordering::SeqCst) {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        let outcome = meanwhile();
        self.held.store(false, Ordering::SeqCst);
        assert!(answer(&holding).starts_with("HTTP/1.1 204"));
        outcome
    }

    /// How many large answers there are once there are no more of them while another connection gets a hundred answers.
    fn answered(&self, address: SocketAddr) -> usize {
        let (other, mut answered) = (connect(address), 0);
        while self.answered.load(Ordering::SeqCst) != answered || answered == 0 {
            answered = self.answered.load(Ordering::SeqCst);
            for _ in 0..100 {
                is_alive(&other);
            }
        }
        answered
    }
}

fn send(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// The server answers on this connection.
fn is_alive(stream: &TcpStream) {
    send(stream, &get("/health/liveness", ""));
    let answer = answer(stream);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn pass(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::thread::yield_now();
    }
}

#[actix_web::test]
async fn a_late_server_blames_no_client() {
    let world = World::new().await;
    let config = ListenConfig {
        head_timeout: Duration::from_secs(2),
        ..CONFIG
    };
    let (notes, api) = Notes::of(&world);
    let server = listen(api, config);
    let bearer = bearer(&world);
    let clients = move |address| {
        let waiting = connect(address);
        is_alive(&waiting);
        // The rest of a head comes in time, and the server reads it too late.
        send(&waiting, "GET /health/liveness HTTP/1.1\r\n");
        notes.while_held(address, &bearer, || {
            send(&waiting, "Host: x\r\n\r\n");
            pass(config.head_timeout);
        });
        let late = answer(&waiting);
        assert!(late.starts_with("HTTP/1.1 200"), "{late}");
    };
    server.serve(clients).await;
}

/// How long the client of the next test may take for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(4);

/// The second part of a body comes in time, and the server reads it too late. The client waits for the server before it sends
/// the third.
#[actix_web::test]
async fn a_late_server_blames_no_client_for_its_body() {
    let mut options = Options::default();
    options.http.body_timeout = BODY_TIMEOUT;
    let world = World::with(options).await;
    let (notes, api) = Notes::of(&world);
    let server = listen(api, CONFIG);
    let (bearer, token) = (bearer(&world), world.acme.admin.access_token.clone());
    let parts = [r#"{"na"#, r#"me":"#, r#""Late"}"#];
    let clients = move |address| {
        let other = connect(address);
        // By then the server reads the body.
        let begun = || (0..20).for_each(|_| is_alive(&other));
        let http1 = connect(address);
        let length = parts.concat().len();
        let head = format!(
            "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{bearer}\r\n{}",
            parts[0]
        );
        send(&http1, &head);
        begun();
        notes.while_held(address, &bearer, || {
            send(&http1, parts[1]);
            pass(BODY_TIMEOUT);
        });
        begun();
        send(&http1, parts[2]);
        let created = answer(&http1);
        assert!(created.starts_with("HTTP/1.1 201"), "{created}");

        let mut http2 = Http2::connect(address);
        let (answered, mut body) = http2.request("POST", "/api/v1/projects", &token, false);
        let mut part = |http2: &Http2, part: &'static str, end| {
            body.send_data(part.into(), end).unwrap();
            http2.drive();
        };
        part(&http2, parts[0], false);
        begun();
        notes.while_held(address, &bearer, || {
            part(&http2, parts[1], false);
            pass(BODY_TIMEOUT);
        });
        begun();
        part(&http2, r#""Later"}"#, true);
        assert_eq!(http2.wait(answered).unwrap().status(), 201);
    };
    server.serve(clients).await;
}

#[actix_web::test]
async fn requests_wait_while_their_client_reads_no_answers() {
    let world = World::new().await;
    let (notes, api) = Notes::of(&world);
    let server = listen(api, CONFIG);
    let one = get("/api/v1/large", &bearer(&world));
    let clients = move |address| {
        let greedy = connect(address);
        send(&greedy, &one.repeat(200));
        let answered = notes.answered(address);
        assert!(
            answered < 100,
            "{answered} answers of a megabyte that nobody reads"
        );
    };
    server.serve(clients).await;
}

#[actix_web::test]
async fn streams_wait_while_their_client_reads_no_answers() {
    let world = World::new().await;
    let (notes, api) = Notes::of(&world);
    let server = listen(api, CONFIG);
    let token = world.acme.admin.access_token.clone();
    let clients = move |address| {
        let mut greedy = Http2::connect(address);
        let (warm, _) = greedy.request("GET", "/api/v1/served/warm", &token, true);
        assert_eq!(greedy.wait(warm).unwrap().status(), 204);
        let unread: Vec<_> = (0..60)
            .map(|_| greedy.request("GET", "/api/v1/large", &token, true))
            .collect();
        greedy.drive();
        let answered = notes.answered(address);
        assert!(
            answered <= 6,
            "{answered} answers of a megabyte that nobody reads"
        );
        // What is read makes room for others.
        for (answered, _) in unread {
            let answered = greedy.wait(answered).unwrap();
            assert_eq!(greedy.wait(whole(answered.into_body())), 1 << 20);
        }
    };
    server.serve(clients).await;
}

/// Runs clients of a server that waits half a second for them to take something.
async fn serve_impatiently(clients: impl FnOnce(SocketAddr) + Send + 'static) {
    let world = World::new().await;
    let config = ListenConfig {
        idle_timeout: Duration::from_millis(500),
        ..CONFIG
    };
    listen(world.api.clone(), config).serve(clients).await;
}

/// A client that closes its windows, and opens more streams than it may.
#[actix_web::test]
async fn a_client_that_takes_nothing_of_its_streams_is_closed() {
    serve_impatiently(|address| {
        let stream = connect(address);
        let closed_windows = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let mut sent = [PREFACE, &closed_windows].concat();
        for number in 0..150 {
            sent.extend(frame(1, 0b101, 2 * number + 1, GET_LIVENESS));
        }
        (&stream).write_all(&sent).unwrap();
        let frames = frames(&stream);
        let config = &frames[0];
        assert_eq!(config.kind, 4);
        let announced = |key: u8| {
            let pair = config.payload.chunks(6).find(|pair| pair[..2] == [0, key]);
            pair.map(|pair| u32::from_be_bytes(pair[2..].try_into().unwrap()))
        };
        let (table, streams, head) = (announced(1), announced(3), announced(6));
        assert_eq!((table, streams, head), (Some(0), Some(100), Some(16 * 1024)));
        let of = |kind: u8| frames.iter().filter(move |frame| frame.kind == kind);
        assert_eq!(of(1).count(), 100, "each stream that may be open is answered");
        let refused = of(3).filter(|frame| frame.payload == [0, 0, 0, REFUSED_STREAM]);
        assert_eq!(refused.count(), 50);
        assert_eq!(of(0).count(), 0, "there is no room for a body");
        let goodbye = of(7).next().unwrap();
        assert_eq!(goodbye.payload[4..8], [0, 0, 0, ENHANCE_YOUR_CALM]);
    })
    .await;
}

#[actix_web::test]
async fn a_stream_that_is_not_read_ends_and_others_go_on() {
    serve_impatiently(|address| {
        let mut client = Http2::with_room(address, 1_000);
        let (stuck, _) = client.request("GET", "/openapi.json", "", true);
        let mut stuck = client.wait(stuck).unwrap().into_body();
        let began = Instant::now();
        let mut read = 0;
        let error = loop {
            assert!(began.elapsed() < Duration::from_secs(20));
            let (alive, _) = client.request("GET", "/health/liveness", "", true);
            let alive = client.wait(alive).unwrap();
            assert_eq!(alive.status(), 200);
            client.wait(whole(alive.into_body()));
            let next = poll_fn(|cx| Poll::Ready(stuck.poll_data(cx)));
            match client.wait(next) {
                Poll::Ready(Some(Ok(chunk))) => read += chunk.len(),
                Poll::Ready(Some(Err(error))) => break error,
                Poll::Ready(None) => panic!("it was sent without room for it"),
                Poll::Pending => {}
            }
        };
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
        assert_eq!(read, 1_000);
        let (alive, _) = client.request("GET", "/health/liveness", "", true);
        assert_eq!(client.wait(alive).unwrap().status(), 200);
    })
    .await;
}

/// Of requests that are there when the thread looks, another connection's comes before the last ones of a connection that sent
/// many.
#[actix_web::test]
async fn requests_that_were_sent_together_take_turns_with_others() {
    let world = World::new().await;
    let (notes, api) = Notes::of(&world);
    let server = listen(api, CONFIG);
    let (bearer, token) = (bearer(&world), world.acme.admin.access_token.clone());
    let clients = move |address| {
        let [many, few] = [(); 2].map(|()| connect(address));
        let one = |name: &str| get(&format!("/api/v1/served/{name}"), &bearer);
        for stream in [&many, &few] {
            send(stream, &one("warm"));
            assert!(answer(stream).starts_with("HTTP/1.1 204"));
        }
        let order = || std::mem::take(&mut *notes.served.lock().unwrap());
        order();
        notes.while_held(address, &bearer, || {
            send(&many, &one("many").repeat(50));
            send(&few, &one("few"));
        });
        (0..50).for_each(|_| assert!(answer(&many).starts_with("HTTP/1.1 204")));
        assert!(answer(&few).starts_with("HTTP/1.1 204"));
        take_turns(&order());

        let [mut many, mut few] = [(); 2].map(|()| Http2::connect(address));
        let (sent, other) = notes.while_held(address, &bearer, || {
            let ask = |client: &mut Http2, name: &str| {
                client.request("GET", &format!("/api/v1/served/{name}"), &token, true)
            };
            let sent: Vec<_> = (0..50).map(|_| ask(&mut many, "many")).collect();
            many.drive();
            let other = ask(&mut few, "few");
            few.drive();
            (sent, other)
        });
        for (answered, _) in sent {
            assert_eq!(many.wait(answered).unwrap().status(), 204);
        }
        assert_eq!(few.wait(other.0).unwrap().status(), 204);
        take_turns(&order());
    };
    server.serve(clients).await;
}

fn take_turns(order: &[String]) {
    let before = order.iter().take_while(|name| *name == "many").count();
    assert!(
        before <= 2,
        "{before} requests of another connection went before: {order:?}"
    );
    assert_eq!(order.iter().filter(|name| *name == "many").count(), 50);
}

#[actix_web::test]
async fn what_is_no_request_gets_a_problem() {
    let world = World::new().await;
    let server = listen(world.api.clone(), CONFIG);
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

        // Behind requests in the same segment too.
        let alive = get("/health/liveness", "");
        let body = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345";
        let chunked = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n";
        let among = |request: &str| format!("{alive}{request}{alive}");
        for first in [alive.as_str(), body, chunked].map(among) {
            let stream = connect(address);
            send(&stream, &format!("{first}what is this\r\n\r\n"));
            answer(&stream);
            answer(&stream);
            assert!(answer(&stream).starts_with("HTTP/1.1 200"));
            is_problem(&rest(&stream), 400, "invalid_request");
        }
        // An answer to HEAD is told from those around it.
        let stream = connect(address);
        send(
            &stream,
            &format!("{alive}HEAD /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"),
        );
        assert!(answer(&stream).contains("\"status\""));
    };
    server.serve(clients).await;
}

#[actix_web::test]
async fn continue_is_sent_after_authentication() {
    let world = World::new().await;
    let server = listen(world.api.clone(), CONFIG);
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

/// A server with a place for one event stream of a tenant, and a request for it. Only the end of the client's connection frees
/// the place: neither a heartbeat, which would notice it too, nor the end of the stream does.
async fn serve_one_event_stream() -> (World, Listening, String) {
    let mut options = Options::default();
    options.http.event_streams_per_tenant = 1;
    options.http.event_stream_heartbeat = Duration::from_secs(3_600);
    options.http.event_stream_lifetime = Duration::from_secs(3_600);
    let world = World::with(options).await;
    let server = listen(world.api.clone(), CONFIG);
    let request = get("/ofrep/v1/events", &bearer(&world));
    (world, server, request)
}

#[actix_web::test]
async fn an_event_stream_gives_up_its_place_when_the_client_goes() {
    let (world, server, request) = serve_one_event_stream().await;
    let token = world.acme.admin.access_token.clone();
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
        while open().1 != "HTTP/1.1 200" {
            assert!(gone.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }

        // A stream of HTTP/2 that is reset, while its connection goes on.
        let mut client = Http2::connect(address);
        let mut open = || {
            let (answered, _) = client.request("GET", "/ofrep/v1/events", &token, true);
            client.wait(answered).unwrap()
        };
        let until_open = |open: &mut dyn FnMut() -> http::Response<h2::RecvStream>| {
            let gone = Instant::now();
            loop {
                let answered = open();
                if answered.status() == 200 {
                    return answered;
                }
                assert!(gone.elapsed() < Duration::from_secs(60));
            }
        };
        let first = until_open(&mut open);
        assert_eq!(open().status(), 429);
        drop(first);
        until_open(&mut open);
    };
    server.serve(clients).await;
}

/// A verification computes for as long as the log is long. It ends with its client, and a tenant has one at a time.
#[actix_web::test]
async fn verification_of_an_audit_log_ends_when_its_client_goes() {
    let world = World::new().await;
    let server = listen(world.api.clone(), CONFIG);
    let request = get("/api/v1/audit-events/verify", &bearer(&world));
    // No verification comes to its end while somebody else holds the table.
    let mut holding = world.database.admin().await;
    let hold = "BEGIN; LOCK TABLE audit_blocks IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(hold).execute(&mut holding).await.unwrap();
    let clients = move |address| {
        // The status of an answer that comes at once; none of a verification that goes on.
        let open = || {
            let stream = connect(address);
            send(&stream, &request);
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut first = [0; 12];
            let answered = (&stream).read_exact(&mut first).is_ok();
            (
                stream,
                answered.then(|| String::from_utf8(first.to_vec()).unwrap()),
            )
        };
        let (first, status) = open();
        assert_eq!(status, None);
        assert_eq!(open().1.as_deref(), Some("HTTP/1.1 429"));
        drop(first);
        let gone = Instant::now();
        while open().1.is_some() {
            assert!(gone.elapsed() < Duration::from_secs(60));
        }
    };
    server.serve(clients).await;
}

/// Bytes that are not read yet, as nothing more of the connection is read for now, are in front of its end.
#[actix_web::test]
async fn pipelined_requests_do_not_hide_the_end_of_an_event_stream() {
    let (_world, server, request) = serve_one_event_stream().await;
    let clients = move |address| {
        let open = || {
            let (stream, mut first) = (connect(address), [0; 12]);
            send(&stream, &request);
            (&stream).read_exact(&mut first).unwrap();
            (stream, first == *b"HTTP/1.1 200")
        };
        let until_open = || {
            let began = Instant::now();
            loop {
                if let (stream, true) = open() {
                    return stream;
                }
                assert!(began.elapsed() < Duration::from_secs(60), "the place is not free");
            }
        };
        let more = get("/health/liveness", "").repeat(40 * 1024 / 40);
        let closed = until_open();
        send(&closed, &more);
        closed.shutdown(std::net::Shutdown::Write).unwrap();
        let reset = until_open();
        send(&reset, &more);
        assert!(!open().1);
        // It has not read the answer to its end.
        drop(reset);
        until_open();
    };
    server.serve(clients).await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A head: GET and http of the static table (RFC 7541, appendix A), the path, and the authority "x".
const GET_LIVENESS: &[u8] = b"\x82\x86\x04\x10/health/liveness\x01\x01x";

const REFUSED_STREAM: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

/// A frame of HTTP/2: type, flags, stream and payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A frame as it came.
struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

/// All frames that come until the connection is closed.
fn frames(mut stream: &TcpStream) -> Vec<Frame> {
    let (mut heard, mut frames) = (Vec::new(), Vec::new());
    // A connection that is reset has ended too.
    let _ = stream.read_to_end(&mut heard);
    let mut rest = &heard[..];
    while let [a, b, c, kind, _, _, _, _, _, more @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (payload, more) = more.split_at(length.min(more.len()));
        frames.push(Frame {
            kind: *kind,
            payload: payload.to_vec(),
        });
        rest = more;
    }
    frames
}

/// Begins HTTP/2, and sends these bytes, a part at a time, until the server closes the connection.
fn is_closed_meanwhile<'a>(address: SocketAddr, parts: impl Iterator<Item = &'a [u8]>) {
    let stream = connect(address);
    let pause = Duration::from_millis(50);
    stream.set_read_timeout(Some(pause)).unwrap();
    (&stream)
        .write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
        .unwrap();
    let (began, mut heard) = (Instant::now(), [0; 1024]);
    for part in parts {
        assert!(began.elapsed() < Duration::from_secs(20), "it is still open");
        if (&stream).write_all(part).is_err() {
            return;
        }
        loop {
            match (&stream).read(&mut heard) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => return,
            }
        }
    }
    panic!("all was sent");
}

/// Neither the frames that are no request nor a slow head hold a connection of HTTP/2, each within a timeout of its own.
#[actix_web::test]
async fn pings_and_slow_heads_keep_no_http_2_connection_open() {
    let world = World::new().await;
    let (short, long) = (Duration::from_millis(500), Duration::from_secs(3_600));
    let of = |head_timeout, idle_timeout| {
        let config = ListenConfig {
            head_timeout,
            idle_timeout,
            ..CONFIG
        };
        listen(world.api.clone(), config)
    };
    let pings = |address| {
        let ping = frame(6, 0, 0, &[0; 8]);
        is_closed_meanwhile(address, std::iter::repeat(&ping[..]));
    };
    of(long, short).serve(pings).await;
    let slow_head = |address| {
        let mut head = frame(1, 0b101, 1, &[b'x'; 255]);
        // More than is sent until the test fails.
        head[1] = 0x3f;
        head.resize(0x3f00, b'x');
        is_closed_meanwhile(address, head.chunks(1));
    };
    of(short, long).serve(slow_head).await;
}

#[actix_web::test]
async fn a_longer_head_of_http_2_than_16_kib_is_refused() {
    let world = World::new().await;
    let server = listen(world.api.clone(), CONFIG);
    let client = |address| {
        let mut client = Http2::connect(address);
        let mut ask = |length: usize| {
            let fields = [("x-long", "a".repeat(length))];
            let (answered, _) = client.request_with("GET", "/health/liveness", &fields, true);
            client.wait(answered).unwrap().status()
        };
        assert_eq!(ask(15_000), 200);
        assert_eq!(ask(16 * 1024), 431);
        assert_eq!(ask(1), 200, "the connection goes on");
    };
    server.serve(client).await;
}

/// A client that refers to earlier fields: four bytes stand for most of a head of 16 KiB. It neither acknowledges the server's
/// settings nor complies with them.
#[actix_web::test]
async fn heads_of_a_connection_take_a_bounded_amount_of_memory() {
    let world = World::new().await;
    let (notes, api) = Notes::of(&world);
    let config = ListenConfig {
        idle_timeout: Duration::from_millis(500),
        ..CONFIG
    };
    let server = listen(api, config);
    let bearer = bearer(&world);
    let client = move |address| {
        let stream = connect(address);
        let long = [b'a'; 3_900];
        // A literal field that is kept, "x: aaa...", whose length has a prefix of 7 bits (RFC 7541, section 5.1).
        let first = [GET_LIVENESS, b"\x40\x01x\x7f\xbd\x1d", &long].concat();
        let again = [GET_LIVENESS, &[0xbe; 4]].concat();
        let mut sent = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0b101, 1, &first)].concat();
        for number in 1..100 {
            sent.extend(frame(1, 0b101, 2 * number + 1, &again));
        }
        // All of them are there when the thread looks.
        notes.while_held(address, &bearer, || (&stream).write_all(&sent).unwrap());
        let frames = frames(&stream);
        let refused = frames.iter().filter(|frame| frame.kind == 3).count();
        let answered = frames.iter().filter(|frame| frame.kind == 1).count();
        // One short head, and 25 of nearly 16 KiB in 400 KiB.
        assert_eq!((answered, refused), (26, 74));
    };
    server.serve(client).await;
}

#[actix_web::test]
async fn options_of_the_whole_server_are_answered_with_its_methods() {
    let mut options = Options::default();
    options.http.cors_origins = vec!["https://app.example".into()];
    for options in [Options::default(), options] {
        let world = World::with(options).await;
        let server = listen(world.api.clone(), CONFIG);
        let client = |address| {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            let stream = connect(address);
            send(&stream, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
            let answered = answer(&stream);
            assert!(answered.starts_with("HTTP/1.1 204"), "{answered}");
            assert!(
                answered.contains(&format!("\r\nallow: {allowed}\r\n")),
                "{answered}"
            );
            send(&stream, "GET * HTTP/1.1\r\nHost: x\r\n\r\n");
            is_problem(&answer(&stream), 404, "not_found");

            let mut client = Http2::connect(address);
            let (answered, _) = client.request("OPTIONS", "*", "", true);
            let answered = client.wait(answered).unwrap();
            assert_eq!(answered.status(), 204);
            assert_eq!(answered.headers()["allow"], allowed);
        };
        server.serve(client).await;
    }
}

/// A client of HTTP/2, which does nothing while nothing is waited for.
struct Http2 {
    runtime: tokio::runtime::Runtime,
    requests: SendRequest<Bytes>,
}

impl Http2 {
    fn connect(address: SocketAddr) -> Self {
        Self::with_room(address, 65_535)
    }

    /// A client that has room for so many bytes of each answer that it does not read.
    fn with_room(address: SocketAddr, room: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let requests = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let handshake = h2::client::Builder::new()
                .initial_window_size(room)
                .initial_connection_window_size(1 << 24)
                .handshake(stream);
            let (requests, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            requests
        });
        Self { runtime, requests }
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let credential = [("authorization", format!("Bearer {token}"))];
        let fields = if token.is_empty() { &[][..] } else { &credential };
        self.request_with(method, path, fields, end)
    }

    fn request_with(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, String)],
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let uri = http::Uri::builder().scheme("http").authority("x");
        let request = http::Request::builder()
            .method(method)
            .uri(uri.path_and_query(path).build().unwrap())
            .header("content-type", "application/json");
        let request = fields
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, value));
        let requests = &mut self.requests;
        self.runtime
            .block_on(poll_fn(|cx| requests.poll_ready(cx)))
            .unwrap();
        requests.send_request(request.body(()).unwrap(), end).unwrap()
    }

    /// Sends what there is to send.
    fn drive(&self) {
        self.runtime.block_on(async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        });
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let late = tokio::time::Duration::from_secs(30);
        self.runtime
            .block_on(async { tokio::time::timeout(late, future).await })
            .unwrap()
    }
}

/// Reads a body to its end; how long it is.
async fn whole(mut body: RecvStream) -> usize {
    let mut length = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        length += chunk.len();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    length
}

#[actix_web::test]
async fn a_client_that_begins_with_http_2_is_understood() {
    let world = World::new().await;
    let server = listen(world.api.clone(), CONFIG);
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
    let plain = world.client.get("/openapi.json").await.expect(200);
    let tag = plain.header("etag").unwrap().to_owned();
    for coding in ["br", "gzip", "zstd"] {
        let request = || {
            world
                .client
                .get("/openapi.json")
                .header("Accept-Encoding", coding)
        };
        let coded = request().await.expect(200);
        assert_eq!(coded.header("content-encoding"), Some(coding));
        assert_eq!(coded.header("etag"), Some(tag.as_str()));
        assert_eq!(coded.header("vary"), Some("Accept-Encoding"));
        assert!(
            coded.bytes.len() * 4 < plain.bytes.len(),
            "{coding}: {}",
            coded.bytes.len()
        );
        let known = request().header("If-None-Match", &tag).await.expect(304);
        assert!(known.bytes.is_empty());
    }
    let yaml = world.client.get("/openapi.yaml").await.expect(200);
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    assert!(
        yaml.text().starts_with("openapi: 3.1.0\n"),
        "{}",
        &yaml.text()[..40]
    );
    assert_ne!(yaml.header("etag"), Some(tag.as_str()));
    // Other answers are compressed on the way.
    let tasks = world.get(&world.acme.viewer, "/api/v1/tasks");
    let tasks = tasks.header("Accept-Encoding", "gzip").await.expect(200);
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
    let options = options.await.expect(204);
    let allowed = options.header("allow").unwrap();
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert!(allowed.split(", ").any(|one| one == method), "{allowed}");
    }
}
