use std::collections::BTreeSet;
use std::time::Duration;

use tenantry_domain::webhooks::{ConnectionFault, DeliveryOutcome, DeliveryPhase, WebhookSender as _};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig, Timeouts};

use crate::support::dns::DnsServer;
use crate::support::sink::{Reply, Sink, answer, ok};
use crate::support::{
    InternalServer, PATIENT, SHORT, SHORT_BODY, SHORT_HEAD, config, delivered, outcome, request, sender,
};

/// A sink that replies like this, and a sender for it.
async fn world(
    timeouts: Timeouts,
    reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> (Sink, SenderConfig, HttpWebhookSender) {
    let sink = Sink::start(reply).await;
    let config = config(&[sink.address.port()], timeouts);
    let sender = sender(&config, &DnsServer::start());
    (sink, config, sender)
}

/// The outcome of one attempt whose request gets this reply.
async fn outcome_of(timeouts: Timeouts, reply: Reply) -> DeliveryOutcome {
    let (sink, config, sender) = world(timeouts, move |_| reply.clone()).await;
    outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await
}

fn failed(fault: ConnectionFault) -> DeliveryOutcome {
    DeliveryOutcome::ConnectionFailed(fault)
}

#[tokio::test]
async fn status_decides_the_outcome() {
    for (status, name) in [
        ("200 OK", "delivered"),
        ("204 No Content", "delivered"),
        ("304 Not Modified", "refused"),
        ("400 Bad Request", "refused"),
        ("404 Not Found", "refused"),
        ("410 Gone", "gone"),
        ("500 Internal Server Error", "refused"),
    ] {
        let headers = if status.starts_with("204") || status.starts_with("304") {
            ""
        } else {
            "Content-Length: 2\r\n"
        };
        let body = if headers.is_empty() { "" } else { "no" };
        let reply = Reply::Bytes(format!("HTTP/1.1 {status}\r\n{headers}\r\n{body}").into_bytes());
        let outcome = outcome_of(PATIENT, reply).await;
        assert_eq!(outcome.name(), name, "{status}");
        let answer = outcome.answer().unwrap();
        assert_eq!(
            (answer.status.to_string().as_str(), answer.excerpt.as_str()),
            (&status[..3], body)
        );
    }
}

#[tokio::test]
async fn receiver_asks_to_wait_in_seconds_or_until_a_date() {
    let later = crate::support::now() + Duration::from_secs(600);
    let date = later.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (value, least, most) in [
        ("120", 120, 120),
        (date.as_str(), 560, 600),
        ("9999999", 86_400, 86_400),
    ] {
        let headers = format!("Retry-After: {value}\r\n");
        let reply = Reply::Bytes(answer("429 Too Many Requests", &headers, b""));
        let outcome = outcome_of(PATIENT, reply).await;
        assert!(outcome.is_overloaded());
        let asked = outcome.answer().unwrap().retry_after.unwrap().as_secs();
        assert!((least..=most).contains(&asked), "{value}: {asked}");
    }
    let unclear = Reply::Bytes(answer("503 Service Unavailable", "Retry-After: soon\r\n", b""));
    assert_eq!(
        outcome_of(PATIENT, unclear).await.answer().unwrap().retry_after,
        None
    );
}

#[tokio::test]
async fn redirects_are_failures_and_not_followed() {
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let internal = InternalServer::start();
        let location = format!("Location: http://{}/\r\n", internal.address());
        let reply = answer(status, &location, b"");
        let (mut sink, config, sender) = world(PATIENT, move |_| Reply::Bytes(reply.clone())).await;
        let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!(
            (outcome.name(), &status[..3]),
            ("refused", outcome.answer().unwrap().status.to_string().as_str())
        );
        internal.assert_never_reached();
        assert_eq!((sink.more(), sink.connections()), (1, 1));
    }
}

#[tokio::test]
async fn body_is_cut_and_becomes_one_line_of_text() {
    let hostile = Reply::Bytes(answer("200 OK", "", b"a\xff\x1b[31m\r\nb\0\xe2\x80\xaec"));
    assert_eq!(
        outcome_of(PATIENT, hostile).await,
        delivered(200, "a\u{fffd} [31m b c")
    );
    let long = Reply::Bytes(answer("200 OK", "", "é".repeat(7_000).as_bytes()));
    let outcome = outcome_of(PATIENT, long).await;
    assert_eq!(outcome.answer().unwrap().excerpt.chars().count(), 1_000);
}

#[tokio::test]
async fn endless_body_ends_the_connection_and_delivers() {
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let (sink, config, sender) = world(PATIENT, move |_| Reply::Endless(head.clone(), chunk.clone())).await;
    for connections in 1..=2 {
        let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!(outcome.name(), "delivered");
        assert!(outcome.answer().unwrap().excerpt.starts_with("xxx"));
        assert_eq!(
            sink.connections(),
            connections,
            "the connection is not used again"
        );
    }
}

#[tokio::test]
async fn slow_body_is_cut_and_delivers() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin".to_vec();
    let outcome = outcome_of(SHORT_BODY, Reply::Stall(head)).await;
    assert_eq!(outcome, delivered(200, "begin"));
    let torn = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin".to_vec();
    assert_eq!(
        outcome_of(PATIENT, Reply::Last(torn)).await,
        delivered(200, "begin")
    );
}

#[tokio::test]
async fn silent_or_slow_head_times_out() {
    let head = DeliveryOutcome::TimedOut(DeliveryPhase::Head);
    for reply in [
        Reply::Stall(vec![]),
        Reply::Stall(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec()),
        Reply::Endless(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec(), b"a".to_vec()),
        Reply::Endless(vec![], b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
    ] {
        assert_eq!(outcome_of(SHORT_HEAD, reply.clone()).await, head, "{reply:?}");
    }
}

#[tokio::test]
async fn latency_covers_the_whole_attempt() {
    let (sink, config, sender) = world(SHORT_HEAD, |_| Reply::Stall(vec![])).await;
    let delivery = sender
        .send(request(&sink.url("127.0.0.1"), &config.rules))
        .await
        .unwrap();
    assert!(delivery.latency >= SHORT, "{:?}", delivery.latency);
}

#[tokio::test]
async fn answers_that_are_no_http_are_faults_of_the_protocol() {
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    for reply in [
        "nonsense\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
        format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(100_000)),
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"),
    ] {
        let start: String = reply.chars().take(40).collect();
        let outcome = outcome_of(PATIENT, Reply::Last(reply.into_bytes())).await;
        assert_eq!(outcome, failed(ConnectionFault::Protocol), "{start}");
    }
}

/// Each byte of an answer is replaced in turn: whatever a receiver says, an attempt ends with an outcome.
#[tokio::test]
async fn damaged_answers_end_in_an_outcome() {
    let intact = answer("200 OK", "Retry-After: 5\r\nX-A: b\r\n", b"ok");
    let replies: Vec<Vec<u8>> = (0..intact.len())
        .flat_map(|place| [b'\0', b'\n', b'9', 0xff].map(|byte| (place, byte)))
        .map(|(place, byte)| {
            let mut reply = intact.clone();
            reply[place] = byte;
            reply
        })
        .collect();
    let attempts = replies.len();
    let mut sink = Sink::start(move |number| Reply::Last(replies[number].clone())).await;
    // Without a pool, so that each answer has a connection of its own and none is asked for twice.
    let config = SenderConfig {
        idle_connections: 0,
        ..config(&[sink.address.port()], PATIENT)
    };
    let sender = sender(&config, &DnsServer::start());
    let mut names = BTreeSet::new();
    for _ in 0..attempts {
        names.insert(
            outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules))
                .await
                .name(),
        );
    }
    assert_eq!(sink.more(), attempts);
    assert_eq!(
        Vec::from_iter(names),
        ["connection_failed", "delivered", "refused"]
    );
}

#[tokio::test]
async fn upgrade_is_refused_and_its_connection_closed() {
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_vec();
    let (sink, config, sender) = world(PATIENT, move |number| match number {
        0 => Reply::Stall(switching.clone()),
        _ => ok(),
    })
    .await;
    let first = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
    assert_eq!(first.name(), "refused");
    let second = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
    assert_eq!((second, sink.connections()), (delivered(200, "ok"), 2));
}

#[tokio::test]
async fn nothing_listens_and_closed_connections_are_told_apart() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = config(&[free.port()], PATIENT);
    let sender = sender(&config, &DnsServer::start());
    let refused = outcome(&sender, request(&format!("http://{free}/"), &config.rules)).await;
    assert_eq!(refused, failed(ConnectionFault::Refused));

    let (mut sink, config, sender) = world(PATIENT, |_| Reply::Last(vec![])).await;
    let closed = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
    assert_eq!(closed, failed(ConnectionFault::Closed));
    assert_eq!(
        (sink.more(), sink.connections()),
        (1, 1),
        "a new connection is not tried twice"
    );
}

#[tokio::test]
async fn connection_is_used_again() {
    let (mut sink, config, sender) = world(PATIENT, |_| ok()).await;
    for _ in 0..5 {
        let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!(outcome, delivered(200, "ok"));
    }
    assert_eq!((sink.more(), sink.connections()), (5, 1));
}

#[tokio::test]
async fn connection_behind_a_longer_body_is_not_used_again() {
    for (bytes, connections) in [(16 * 1_024, 1), (16 * 1_024 + 1, 2)] {
        let reply = answer("200 OK", "", &vec![b'x'; bytes]);
        let (sink, config, sender) = world(PATIENT, move |_| Reply::Bytes(reply.clone())).await;
        for _ in 0..2 {
            let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
            assert_eq!(outcome.name(), "delivered");
        }
        assert_eq!(sink.connections(), connections, "{bytes} bytes");
    }
}

/// A receiver may close a connection in the moment in which the next message is written.
#[tokio::test]
async fn message_is_sent_again_when_a_used_connection_was_closed() {
    let (mut sink, config, sender) = world(PATIENT, |number| match number {
        1 => Reply::Last(vec![]),
        _ => ok(),
    })
    .await;
    for _ in 0..2 {
        let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!(outcome, delivered(200, "ok"));
    }
    assert_eq!((sink.more(), sink.connections()), (3, 2));

    let (mut sink, config, sender) = world(PATIENT, |_| Reply::Last(answer("200 OK", "", b"ok"))).await;
    for connections in 1..=4 {
        let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!((outcome, sink.connections()), (delivered(200, "ok"), connections));
    }
    assert_eq!(sink.more(), 4);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut sink = Sink::start(|_| ok()).await;
    let config = SenderConfig {
        idle_timeout: Duration::from_millis(20),
        ..config(&[sink.address.port()], PATIENT)
    };
    let sender = sender(&config, &DnsServer::start());
    outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
    // The sender is still there, so only the sweep can have closed it.
    sink.ended().await;
    assert_eq!((sink.more(), sink.connections()), (1, 1));
    drop(sender);
}

#[tokio::test]
async fn slow_receiver_delays_no_other() {
    let (slow, _, _) = world(PATIENT, |_| Reply::Stall(vec![])).await;
    let (fast, _, _) = world(PATIENT, |_| ok()).await;
    let config = config(&[slow.address.port(), fast.address.port()], PATIENT);
    let sender = std::sync::Arc::new(sender(&config, &DnsServer::start()));
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let (sender, request) = (sender.clone(), request(&slow.url("127.0.0.1"), &config.rules));
            tokio::spawn(async move { sender.send(request).await })
        })
        .collect();
    let outcome = outcome(&sender, request(&fast.url("127.0.0.1"), &config.rules)).await;
    assert_eq!(outcome, delivered(200, "ok"));
    assert!(waiting.iter().all(|task| !task.is_finished()));
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}
