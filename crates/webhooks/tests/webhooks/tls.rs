use std::sync::Arc;

use tenantry_domain::webhooks::{ConnectionFault, DeliveryOutcome, DeliveryPhase};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig, SenderSetupError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::dns::DnsServer;
use crate::support::sink::{Reply, Sink, answer, ok};
use crate::support::tls::Authority;
use crate::support::{
    PATIENT, SHORT_CONNECT, config, delivered, name_server, outcome, request, resolver, sender,
};

const NAME: &str = "hooks.example.com";

fn trusting(authority: &Authority, sink: &Sink) -> SenderConfig {
    SenderConfig {
        authorities: Some(authority.certificate()),
        ..config(&[sink.address.port()], PATIENT)
    }
}

fn url(sink: &Sink, host: &str) -> String {
    format!("https://{host}:{}/", sink.address.port())
}

fn failed(fault: ConnectionFault) -> DeliveryOutcome {
    DeliveryOutcome::ConnectionFailed(fault)
}

#[tokio::test]
async fn certificate_is_checked_for_the_name_and_not_for_the_address() {
    let authority = Authority::make();
    let mut sink = Sink::with_tls(Some(authority.acceptor(&format!("DNS:{NAME}"))), |_| ok()).await;
    let server = name_server(NAME, &["127.0.0.1"]);
    server.set_alias("other.example.com", NAME);
    let config = trusting(&authority, &sink);
    let sender = sender(&config, &server);
    for _ in 0..2 {
        let outcome = outcome(&sender, request(&url(&sink, NAME), &config.rules)).await;
        assert_eq!(outcome, delivered(200, "ok"));
        let received = sink.received().await;
        assert_eq!(received.server_name.as_deref(), Some(NAME));
        assert_eq!(received.header("host"), format!("{NAME}:{}", sink.address.port()));
    }
    assert_eq!(sink.connections(), 1);
    for host in ["other.example.com", "127.0.0.1"] {
        let outcome = outcome(&sender, request(&url(&sink, host), &config.rules)).await;
        assert_eq!(outcome, failed(ConnectionFault::CertificateName), "{host}");
    }
    assert_eq!(
        sink.more(),
        0,
        "nothing is sent before the certificate is verified"
    );
}

#[tokio::test]
async fn certificate_for_an_address_is_accepted_at_it() {
    let authority = Authority::make();
    let mut sink = Sink::with_tls(Some(authority.acceptor("IP:127.0.0.1")), |_| ok()).await;
    let config = trusting(&authority, &sink);
    let server = name_server(NAME, &["127.0.0.1"]);
    let sender = sender(&config, &server);
    let by_address = outcome(&sender, request(&url(&sink, "127.0.0.1"), &config.rules)).await;
    assert_eq!(by_address, delivered(200, "ok"));
    assert_eq!(sink.received().await.server_name, None);
    let by_name = outcome(&sender, request(&url(&sink, NAME), &config.rules)).await;
    assert_eq!(by_name, failed(ConnectionFault::CertificateName));
}

#[tokio::test]
async fn certificate_of_an_unknown_authority_is_refused() {
    let (authority, other) = (Authority::make(), Authority::make());
    let mut sink = Sink::with_tls(Some(authority.acceptor(&format!("DNS:{NAME}"))), |_| ok()).await;
    let config = trusting(&other, &sink);
    let server = name_server(NAME, &["127.0.0.1"]);
    let sender = sender(&config, &server);
    let outcome = outcome(&sender, request(&url(&sink, NAME), &config.rules)).await;
    assert_eq!(outcome, failed(ConnectionFault::CertificateIssuer));
    assert_eq!(sink.more(), 0);
}

#[tokio::test]
async fn receiver_without_tls_gets_no_request() {
    let authority = Authority::make();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent_url, plain_url) = [&silent, &plain]
        .map(|one| format!("https://{}/", one.local_addr().unwrap()))
        .into();
    let ports = [&silent, &plain].map(|one| one.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream
            .write_all(&answer("400 Bad Request", "", b""))
            .await
            .unwrap();
        let _ = stream.read(&mut [0; 1]).await;
    });
    let trusting = |timeouts| SenderConfig {
        authorities: Some(authority.certificate()),
        ..config(&ports, timeouts)
    };
    let (short, patient) = (trusting(SHORT_CONNECT), trusting(PATIENT));
    let server = DnsServer::start();
    let of_silent = outcome(&sender(&short, &server), request(&silent_url, &short.rules)).await;
    assert_eq!(of_silent, DeliveryOutcome::TimedOut(DeliveryPhase::Connect));
    let of_plain = outcome(&sender(&patient, &server), request(&plain_url, &patient.rules)).await;
    assert_eq!(of_plain, failed(ConnectionFault::Tls));
}

#[tokio::test]
async fn answer_over_tls_ends_like_one_without() {
    let authority = Authority::make();
    let acceptor = authority.acceptor(&format!("DNS:{NAME}"));
    let sink = Sink::with_tls(Some(acceptor), |_| Reply::Last(vec![])).await;
    let config = trusting(&authority, &sink);
    let server = name_server(NAME, &["127.0.0.1"]);
    let sender = sender(&config, &server);
    let outcome = outcome(&sender, request(&url(&sink, NAME), &config.rules)).await;
    assert_eq!(outcome, failed(ConnectionFault::Closed));
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let server = DnsServer::start();
    for pem in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let config = SenderConfig {
            authorities: Some(pem.into()),
            ..SenderConfig::default()
        };
        let error = HttpWebhookSender::new(&config, Arc::clone(&resolver(&server))).unwrap_err();
        assert!(
            matches!(error, SenderSetupError::Authorities(_)),
            "{pem}: {error}"
        );
    }
}
