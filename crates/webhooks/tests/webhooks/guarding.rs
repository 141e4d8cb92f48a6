use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tenantry_domain::tenant::{Dns, DnsError, DnsRoute, TxtRecords};
use tenantry_domain::webhooks::{
    ConnectionFault, DeliveryOutcome, DeliveryPhase, EndpointRules, NetworkRules,
};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig};
use tokio::sync::Notify;

use crate::support::dns::{DnsAnswer, DnsServer};
use crate::support::sink::{Sink, ok};
use crate::support::{
    InternalServer, PATIENT, SHORT_CONNECT, config, delivered, name_server, outcome, records, request,
    resolver, rules, sender,
};

const NAME: &str = "hooks.example.com";

/// Name servers whose answer changes as soon as it was given: whoever asks again to connect gets to the inside.
struct Rebinding {
    inner: Arc<dyn Dns>,
    server: Arc<DnsServer>,
}

#[async_trait]
impl Dns for Rebinding {
    async fn txt(&self, name: &str) -> Result<TxtRecords, DnsError> {
        self.inner.txt(name).await
    }

    async fn route(&self, name: &str) -> Result<DnsRoute, DnsError> {
        let route = self.inner.route(name).await;
        self.server.set(name, records(&["127.0.0.2"]));
        route
    }
}

#[tokio::test]
async fn name_that_changes_between_check_and_connect_leads_to_the_checked_address() {
    let mut sink = Sink::start(|_| ok()).await;
    let internal = InternalServer::beside(&sink);
    let server = Arc::new(name_server(NAME, &["127.0.0.1"]));
    let dns = Rebinding {
        inner: resolver(&server),
        server: server.clone(),
    };
    let config = config(&[sink.address.port()], PATIENT);
    let sender = HttpWebhookSender::new(&config, Arc::new(dns)).unwrap();
    let request = request(&sink.url(NAME), &config.rules);
    assert_eq!(outcome(&sender, request.clone()).await, delivered(200, "ok"));
    assert_eq!(
        sink.received().await.header("host"),
        format!("{NAME}:{}", sink.address.port())
    );
    // The connection to the checked address is open, and yet the name is checked again.
    assert_eq!(outcome(&sender, request).await, DeliveryOutcome::ForbiddenAddress);
    assert_eq!((sink.more(), sink.connections()), (0, 1));
    internal.assert_never_reached();
}

#[tokio::test]
async fn one_forbidden_record_forbids_the_name() {
    let sink = Sink::start(|_| ok()).await;
    let internal = InternalServer::beside(&sink);
    let config = config(&[sink.address.port()], PATIENT);
    for others in [
        ["127.0.0.2"].as_slice(),
        &["::1"],
        &["::ffff:127.0.0.2"],
        &["::127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::1"],
        &["fe80::1"],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["fd00:ec2::254"],
        &["0.0.0.0"],
        &["255.255.255.255"],
        &["224.0.0.1"],
        &["93.184.216.34", "127.0.0.2"],
    ] {
        let all: Vec<&str> = std::iter::once("127.0.0.1")
            .chain(others.iter().copied())
            .collect();
        let server = name_server(NAME, &all);
        server.set_alias("alias.example.com", NAME);
        let sender = sender(&config, &server);
        for name in [NAME, "alias.example.com"] {
            let outcome = outcome(&sender, request(&sink.url(name), &config.rules)).await;
            assert_eq!(outcome, DeliveryOutcome::ForbiddenAddress, "{name} {others:?}");
        }
    }
    assert_eq!(sink.connections(), 0);
    internal.assert_never_reached();
}

#[tokio::test]
async fn present_rules_decide_whatever_accepted_the_url() {
    let sink = Sink::start(|_| ok()).await;
    let internal = InternalServer::beside(&sink);
    let port = sink.address.port();
    let lax = rules(&[port], &["127.0.0.0/8"]);
    let server = name_server(NAME, &["127.0.0.1"]);
    let strict = |change: &dyn Fn(&mut EndpointRules)| {
        let mut config = config(&[port], PATIENT);
        change(&mut config.rules);
        sender(&config, &server)
    };
    let no_http = strict(&|rules| rules.allow_http = false);
    let other_port = strict(&|rules| rules.ports = vec![443]);
    let no_private = strict(&|rules| rules.networks = NetworkRules::default());
    for (sender, host) in [
        (&no_http, NAME),
        (&other_port, NAME),
        (&no_private, NAME),
        (&no_private, "127.0.0.1"),
        (&no_private, "127.0.0.2"),
        (&strict(&|_| ()), "127.0.0.2"),
        (&strict(&|_| ()), "[::ffff:127.0.0.2]"),
    ] {
        let outcome = outcome(sender, request(&sink.url(host), &lax)).await;
        assert_eq!(outcome, DeliveryOutcome::ForbiddenAddress, "{host}");
    }
    assert_eq!(sink.connections(), 0);
    internal.assert_never_reached();
}

#[tokio::test]
async fn address_of_ipv4_in_ipv6_is_the_address_of_ipv4() {
    let sink = Sink::start(|_| ok()).await;
    let config = config(&[sink.address.port()], PATIENT);
    let server = name_server(NAME, &["::ffff:127.0.0.1"]);
    let sender = sender(&config, &server);
    for host in ["[::ffff:127.0.0.1]", "2130706433", NAME] {
        let outcome = outcome(&sender, request(&sink.url(host), &config.rules)).await;
        assert_eq!(outcome, delivered(200, "ok"), "{host}");
    }
    assert_eq!(sink.connections(), 3, "connections are not shared between hosts");
}

#[tokio::test]
async fn next_address_is_tried_when_one_does_not_answer() {
    let sink = Sink::start(|_| ok()).await;
    let port = sink.address.port();
    let rules = rules(&[port], &["127.0.0.0/29", "::1"]);
    let config = SenderConfig {
        rules,
        ..config(&[port], PATIENT)
    };
    // Nothing listens at the others, and those of IPv6 come last.
    let server = name_server(NAME, &["::1", "127.0.0.3", "127.0.0.1"]);
    let sender = sender(&config, &server);
    let outcome = outcome(&sender, request(&sink.url(NAME), &config.rules)).await;
    assert_eq!(outcome, delivered(200, "ok"));
}

#[tokio::test]
async fn names_without_an_address_are_told_apart() {
    let server = DnsServer::start();
    server.set("failing.example.com", DnsAnswer::Code(2));
    server.set_txt("text.example.com", &["x"]);
    server.set("silent.example.com", DnsAnswer::Silence);
    let (patient, short) = (config(&[80], PATIENT), config(&[80], SHORT_CONNECT));
    let failed = DeliveryOutcome::ConnectionFailed(ConnectionFault::NameServer);
    let timed_out = DeliveryOutcome::TimedOut(DeliveryPhase::Connect);
    for (name, config, expected) in [
        ("missing.example.com", &patient, DeliveryOutcome::NameNotFound),
        ("text.example.com", &patient, DeliveryOutcome::NameNotFound),
        ("failing.example.com", &patient, failed),
        ("silent.example.com", &short, timed_out),
    ] {
        let request = request(&format!("http://{name}/"), &config.rules);
        assert_eq!(
            outcome(&sender(config, &server), request).await,
            expected,
            "{name}"
        );
    }
}

/// Name servers that answer when the test lets them, and count the lookups.
#[derive(Default)]
struct Gated {
    lookups: AtomicUsize,
    gate: Notify,
    is_open: AtomicBool,
}

#[async_trait]
impl Dns for Gated {
    async fn txt(&self, _: &str) -> Result<TxtRecords, DnsError> {
        Err(DnsError::NotFound)
    }

    async fn route(&self, _: &str) -> Result<DnsRoute, DnsError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        if !self.is_open.load(Ordering::SeqCst) {
            self.gate.notified().await;
        }
        Ok(DnsRoute {
            names: vec![],
            addresses: vec![[127, 0, 0, 1].into()],
        })
    }
}

#[tokio::test]
async fn attempts_that_wait_share_one_lookup() {
    let mut sink = Sink::start(|_| ok()).await;
    let config = config(&[sink.address.port()], PATIENT);
    let dns = Arc::new(Gated::default());
    let sender = Arc::new(HttpWebhookSender::new(&config, dns.clone()).unwrap());
    let request = request(&sink.url(NAME), &config.rules);
    let attempts: Vec<_> = (0..20)
        .map(|_| {
            let (sender, request) = (sender.clone(), request.clone());
            tokio::spawn(async move { outcome(&sender, request).await })
        })
        .collect();
    // On the one thread of this test each of them now runs until it waits for the name.
    tokio::task::yield_now().await;
    dns.is_open.store(true, Ordering::SeqCst);
    dns.gate.notify_one();
    for attempt in attempts {
        assert_eq!(attempt.await.unwrap(), delivered(200, "ok"));
    }
    assert_eq!((dns.lookups.load(Ordering::SeqCst), sink.more()), (1, 20));
    assert_eq!(outcome(&sender, request).await, delivered(200, "ok"));
    assert_eq!(
        dns.lookups.load(Ordering::SeqCst),
        2,
        "nothing is cached with a TTL of zero"
    );
}

#[tokio::test]
async fn failed_lookup_is_repeated_although_names_are_cached() {
    let sink = Sink::start(|_| ok()).await;
    let server = DnsServer::start();
    let config = SenderConfig {
        name_ttl: Duration::from_secs(3_600),
        ..config(&[sink.address.port()], PATIENT)
    };
    let sender = sender(&config, &server);
    let request = request(&sink.url(NAME), &config.rules);
    assert_eq!(
        outcome(&sender, request.clone()).await,
        DeliveryOutcome::NameNotFound
    );
    server.set(NAME, records(&["127.0.0.1"]));
    let deadline = Instant::now() + Duration::from_secs(30);
    while outcome(&sender, request.clone()).await != delivered(200, "ok") {
        assert!(Instant::now() < deadline, "the failure is cached for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn addresses_are_cached_for_their_ttl() {
    let sink = Sink::start(|_| ok()).await;
    let internal = InternalServer::beside(&sink);
    let server = name_server(NAME, &["127.0.0.1"]);
    let config = SenderConfig {
        name_ttl: Duration::from_secs(3_600),
        ..config(&[sink.address.port()], PATIENT)
    };
    let sender = sender(&config, &server);
    let request = request(&sink.url(NAME), &config.rules);
    assert_eq!(outcome(&sender, request.clone()).await, delivered(200, "ok"));
    let asked = server.questions();
    server.set(NAME, records(&["127.0.0.2"]));
    assert_eq!(outcome(&sender, request).await, delivered(200, "ok"));
    assert_eq!(server.questions(), asked);
    internal.assert_never_reached();
}

/// Runs a test of this file once more in a process whose environment names a proxy at which nobody listens.
#[test]
fn proxies_of_the_environment_are_not_used() {
    let proxy = "http://127.0.0.1:1";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "guarding::next_address_is_tried_when_one_does_not_answer",
    ]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command
            .env(name, proxy)
            .env(name.to_lowercase(), proxy)
            .env_remove("NO_PROXY");
    }
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}
