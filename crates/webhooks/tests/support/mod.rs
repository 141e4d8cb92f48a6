//! A receiver over real sockets, name servers, certificates, and senders that may reach this machine.

#[expect(dead_code, reason = "the tests of domains use the rest of it")]
#[path = "../../../../tests/src/dns.rs"]
pub mod dns;
pub mod sink;
pub mod tls;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tenantry_dns::{DnsConfig, HickoryDns};
use tenantry_domain::kernel::Time;
use tenantry_domain::tenant::Dns;
use tenantry_domain::webhooks::{
    Answer, CustomHeaders, DeliveryOutcome, EndpointRules, MessageId, NetworkRules, SignatureKind,
    SigningSecret, WebhookKeys as _, WebhookRequest, WebhookSender as _,
};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig, StandardKeys, Timeouts};

use dns::{DnsAnswer, DnsRecord, DnsServer};
use sink::Sink;

/// Longer than anything takes: a test that meets it fails.
pub const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(30),
    head: Duration::from_secs(30),
    body: Duration::from_secs(30),
};

/// What a test waits for to pass: each shortens the part that the test is about, so that a slow machine fails none.
pub const SHORT: Duration = Duration::from_millis(300);
pub const SHORT_CONNECT: Timeouts = Timeouts {
    connect: SHORT,
    ..PATIENT
};
pub const SHORT_HEAD: Timeouts = Timeouts {
    head: SHORT,
    ..PATIENT
};
pub const SHORT_BODY: Timeouts = Timeouts {
    body: SHORT,
    ..PATIENT
};

/// A sender that may use http at these ports, and of this machine reach 127.0.0.1 alone.
pub fn config(ports: &[u16], timeouts: Timeouts) -> SenderConfig {
    SenderConfig {
        rules: rules(ports, &["127.0.0.1"]),
        timeouts,
        name_ttl: Duration::ZERO,
        ..SenderConfig::default()
    }
}

pub fn rules(ports: &[u16], allowed: &[&str]) -> EndpointRules {
    let allowed: Vec<String> = allowed.iter().map(|network| (*network).to_owned()).collect();
    EndpointRules {
        ports: ports.to_vec(),
        allow_http: true,
        networks: NetworkRules::new(&allowed, &[]).unwrap(),
    }
}

pub fn sender(config: &SenderConfig, server: &DnsServer) -> HttpWebhookSender {
    HttpWebhookSender::new(config, resolver(server)).unwrap()
}

pub fn resolver(server: &DnsServer) -> Arc<dyn Dns> {
    let config = DnsConfig {
        servers: vec![server.address()],
        timeout: Duration::from_secs(10),
        ..DnsConfig::default()
    };
    Arc::new(HickoryDns::new(&config).unwrap())
}

/// A name server that knows a name with these addresses.
pub fn name_server(name: &str, addresses: &[&str]) -> DnsServer {
    let server = DnsServer::start();
    server.set(name, records(addresses));
    server
}

pub fn records(addresses: &[&str]) -> DnsAnswer {
    let records = addresses
        .iter()
        .map(|address| DnsRecord::Address(address.parse().unwrap()));
    DnsAnswer::Records(records.collect())
}

/// A request to a URL that these rules accept.
pub fn request(url: &str, rules: &EndpointRules) -> WebhookRequest {
    WebhookRequest {
        id: MessageId::parse("msg_1").unwrap(),
        at: now(),
        url: rules.parse(url).unwrap(),
        secrets: vec![secret(SignatureKind::Hmac)],
        headers: CustomHeaders::default(),
        body: r#"{"type":"project.created"}"#.to_owned(),
    }
}

pub fn secret(kind: SignatureKind) -> SigningSecret {
    StandardKeys.generate(kind).unwrap().secret
}

pub async fn outcome(sender: &HttpWebhookSender, request: WebhookRequest) -> DeliveryOutcome {
    sender.send(request).await.unwrap().outcome
}

#[expect(
    clippy::disallowed_methods,
    reason = "the public library compares with the present time"
)]
pub fn now() -> Time {
    Time::from(SystemTime::now())
}

pub fn delivered(status: u16, excerpt: &str) -> DeliveryOutcome {
    DeliveryOutcome::Delivered(Answer {
        status,
        retry_after: None,
        excerpt: excerpt.to_owned(),
    })
}

/// A server inside, which must never be reached. A connection waits in its queue until somebody looks.
pub struct InternalServer(TcpListener);

impl InternalServer {
    /// Listens at another address of this machine.
    pub fn start() -> Self {
        Self::at(0)
    }

    /// The same at the port of a sink.
    pub fn beside(sink: &Sink) -> Self {
        Self::at(sink.address.port())
    }

    fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.2", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn assert_never_reached(&self) {
        let accepted = self.0.accept().map(|(_, from)| from);
        let error = accepted.expect_err("a connection to the inside");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}
