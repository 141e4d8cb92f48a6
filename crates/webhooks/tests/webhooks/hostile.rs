//! Receivers that answer with more, earlier or otherwise than HTTP expects.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::tenant::{Dns, DnsError, DnsRoute, TxtRecords};
use tenantry_domain::webhooks::{ConnectionFault, DeliveryOutcome};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig};

use crate::support::dns::DnsServer;
use crate::support::sink::{Reply, Sink, answer, ok};
use crate::support::{InternalServer, PATIENT, config, delivered, outcome, request, sender};

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A sink that gives the first request this reply and others an ordinary one, and a sender for it.
async fn world(first: Reply) -> (Sink, SenderConfig, HttpWebhookSender) {
    let sink = Sink::start(move |number| if number == 0 { first.clone() } else { ok() }).await;
    let config = config(&[sink.address.port()], PATIENT);
    let sender = sender(&config, &DnsServer::start());
    (sink, config, sender)
}

#[tokio::test]
async fn flood_of_interim_answers_ends_the_attempt_before_its_timeout() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(200);
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(200);
    for flood in [interim, hints] {
        let (sink, config, sender) = world(Reply::Endless(vec![], flood)).await;
        let flooded = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!(
            flooded,
            DeliveryOutcome::ConnectionFailed(ConnectionFault::Protocol)
        );
        let next = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!((next, sink.connections()), (delivered(200, "ok"), 2));
    }
}

#[tokio::test]
async fn few_interim_answers_are_skipped() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let reply = [interim.as_slice(), &answer("201 Created", "", b"made")].concat();
    let (sink, config, sender) = world(Reply::Bytes(reply)).await;
    let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
    assert_eq!(outcome, delivered(201, "made"));
}

/// An answer without a request would otherwise be the answer to the next message, which may be another tenant's.
#[tokio::test]
async fn second_answer_to_a_request_is_not_the_answer_to_the_next() {
    for (second, is_kept) in [
        (b"".to_vec(), true),
        (answer("410 Gone", "", b"forged"), false),
        (b"\r\n".to_vec(), false),
    ] {
        let reply = [answer("200 OK", "", b"first"), second].concat();
        let (sink, config, sender) = world(Reply::Bytes(reply)).await;
        for expected in ["first", "ok"] {
            let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
            assert_eq!(outcome, delivered(200, expected));
        }
        assert_eq!(sink.connections() == 1, is_kept);
    }
}

#[tokio::test]
async fn body_in_tiny_or_decorated_chunks_is_cut_and_delivers() {
    let extended = format!("1;{}\r\nx\r\n", "a".repeat(1_000)).into_bytes();
    let trailers = b"X-A: b\r\n".repeat(100);
    let ended = [CHUNKED, b"1\r\nx\r\n0\r\n"].concat();
    for reply in [
        Reply::Endless(CHUNKED.to_vec(), b"1\r\nx\r\n".repeat(1_000)),
        Reply::Endless(CHUNKED.to_vec(), extended),
        Reply::Endless(ended, trailers),
    ] {
        let (sink, config, sender) = world(reply).await;
        let cut = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!(cut.name(), "delivered");
        let next = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!((next, sink.connections()), (delivered(200, "ok"), 2));
    }
}

#[tokio::test]
async fn compressed_body_stays_compressed() {
    // 10 MiB of zeros would be 1,000 times as long as their gzip form: nothing is asked for in it, and nothing is expanded.
    let body = b"\x1f\x8b\x08\x00zeros";
    let reply = answer("200 OK", "Content-Encoding: gzip\r\n", body);
    let (mut sink, config, sender) = world(Reply::Bytes(reply)).await;
    let outcome = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
    assert!(
        outcome.answer().unwrap().excerpt.ends_with("zeros"),
        "{outcome:?}"
    );
    assert!(!sink.received().await.headers.contains_key("accept-encoding"));
}

#[tokio::test]
async fn older_protocols_are_read_as_what_they_are() {
    for (reply, expected) in [
        (
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
            delivered(200, "until the end"),
        ),
        (
            "<html>HTTP/0.9 has no status</html>",
            DeliveryOutcome::ConnectionFailed(ConnectionFault::Protocol),
        ),
    ] {
        let (sink, config, sender) = world(Reply::Last(reply.into())).await;
        let of_old = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!(of_old, expected, "{reply}");
        let next = outcome(&sender, request(&sink.url("127.0.0.1"), &config.rules)).await;
        assert_eq!((next, sink.connections()), (delivered(200, "ok"), 2));
    }
}

#[tokio::test]
async fn path_that_looks_like_a_host_stays_a_path() {
    let (mut sink, config, sender) = world(ok()).await;
    let port = sink.address.port();
    for (path, line) in [
        ("//other.example:443/a", "POST //other.example:443/a HTTP/1.1"),
        ("/http://other.example/", "POST /http://other.example/ HTTP/1.1"),
        ("/a/../../b?c=@d", "POST /b?c=@d HTTP/1.1"),
        ("?x", "POST /?x HTTP/1.1"),
        ("/é%0d%0aX: y", "POST /%C3%A9%0d%0aX:%20y HTTP/1.1"),
    ] {
        let url = format!("http://127.0.0.1:{port}{path}");
        let of_path = outcome(&sender, request(&url.replace(' ', "%20"), &config.rules)).await;
        assert_eq!(of_path, delivered(200, "ok"));
        let received = sink.received().await;
        assert_eq!(received.line, line);
        assert_eq!(received.header("host"), format!("127.0.0.1:{port}"));
    }
}

/// Name servers that answer every question with these addresses.
struct Addresses(Vec<IpAddr>);

#[async_trait]
impl Dns for Addresses {
    async fn txt(&self, _: &str) -> Result<TxtRecords, DnsError> {
        Err(DnsError::NotFound)
    }

    async fn route(&self, _: &str) -> Result<DnsRoute, DnsError> {
        Ok(DnsRoute {
            names: vec![],
            addresses: self.0.clone(),
        })
    }
}

#[tokio::test]
async fn forbidden_address_is_found_among_many() {
    let sink = Sink::start(|_| ok()).await;
    let internal = InternalServer::beside(&sink);
    let config = config(&[sink.address.port()], PATIENT);
    let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into(); 127];
    let attempt = async |addresses: &[IpAddr]| {
        let dns = Arc::new(Addresses(addresses.to_vec()));
        let sender = HttpWebhookSender::new(&config, dns).unwrap();
        outcome(&sender, request(&sink.url("many.example.com"), &config.rules)).await
    };
    assert_eq!(attempt(&addresses).await, delivered(200, "ok"));
    addresses.push([127, 0, 0, 2].into());
    assert_eq!(attempt(&addresses).await, DeliveryOutcome::ForbiddenAddress);
    assert_eq!(sink.connections(), 1);
    internal.assert_never_reached();
}
