//! Webhooks: how many are delivered in a second, what other tenants notice of one whose messages all fail, and what a long queue takes of memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::ground::{self, say};
use crate::report::Webhooks;
use crate::server::{self, Server};
use crate::{Bench, Failure, percentile};

/// The tenants that share the throughput, each with two endpoints.
const TENANTS: usize = 20;
const ENDPOINTS: usize = 2;

/// How many other tenants are watched, how long, and how often a task of one of them is changed.
const OTHERS: usize = 10;
const WATCHED: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(50);

/// The most that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// A receiver on this machine is for development only.
const SETTINGS: [(&str, &str); 4] = [
    ("TENANTRY_PROFILE", "development"),
    ("TENANTRY__WEBHOOKS__ALLOW_HTTP", "true"),
    ("TENANTRY__WEBHOOKS__PORTS", "[]"),
    ("TENANTRY__WEBHOOKS__ALLOWED_NETWORKS", "[\"127.0.0.1\"]"),
];

impl Bench<'_> {
    /// No server may run.
    pub async fn webhooks(&self) -> Result<Webhooks, Failure> {
        self.ground.forget_webhooks().await?;
        let server = self.start(&SETTINGS).await?;
        let receiver = Receiver::start().await?;
        let (deliveries, per_second) = self.throughput(&receiver).await?;
        let delays = self.beside_failing(&receiver).await?;
        let (queued, rss_mb) = self.queue(&server, &receiver).await?;
        drop(server);
        self.ground.forget_webhooks().await?;
        Ok(Webhooks {
            deliveries,
            per_second,
            failing: self.failing_messages(),
            other_p50_ms: percentile(&delays, 50) / 1_000.0,
            other_p99_ms: percentile(&delays, 99) / 1_000.0,
            queued,
            rss_mb,
        })
    }

    fn failing_messages(&self) -> usize {
        if self.args.quick { 5_000 } else { 50_000 }
    }

    /// Events of twenty tenants at once, from their outbox to the receiver.
    async fn throughput(&self, receiver: &Receiver) -> Result<(usize, f64), Failure> {
        let events = if self.args.quick { 200 } else { 1_000 };
        let deliveries = TENANTS * ENDPOINTS * events;
        say(&format!("webhooks: {deliveries} deliveries of {TENANTS} tenants"));
        for tenant in 0..TENANTS {
            for number in 0..ENDPOINTS {
                self.add_endpoint(tenant, &receiver.url(&format!("ok/{number}")))
                    .await?;
            }
        }
        let before = receiver.accepted();
        self.ground.add_events(0..TENANTS, events).await?;
        let wanted = before + deliveries as u64;
        let first = receiver.until(before + 1).await?;
        let last = receiver.until(wanted).await?;
        let seconds = last.duration_since(first).as_secs_f64().max(0.001);
        Ok((deliveries, deliveries as f64 / seconds))
    }

    /// How long the events of ten tenants take to the receiver while another one has many that fail.
    async fn beside_failing(&self, receiver: &Receiver) -> Result<Vec<Duration>, Failure> {
        let failing = TENANTS;
        say(&format!(
            "webhooks: {} messages that fail, and other tenants",
            self.failing_messages()
        ));
        self.add_endpoint(failing, &receiver.url("fail")).await?;
        for tenant in 0..OTHERS {
            self.add_endpoint(tenant, &receiver.url("watch")).await?;
        }
        self.ground
            .add_events(failing..failing + 1, self.failing_messages())
            .await?;
        let began = Instant::now();
        let mut sent = Vec::new();
        while began.elapsed() < WATCHED {
            let (title, at) = (format!("webhook {}", sent.len()), Instant::now());
            self.rename(sent.len() % OTHERS, &title).await?;
            sent.push((title, at));
            tokio::time::sleep(EVERY).await;
        }
        let mut delays = Vec::with_capacity(sent.len());
        for (title, at) in sent {
            let arrived = receiver.arrival(&title).await?;
            delays.push(arrived.saturating_duration_since(at));
        }
        delays.sort_unstable();
        Ok(delays)
    }

    /// A queue of an endpoint that has too much to do. Returns how long it is, and the memory of the server.
    async fn queue(&self, server: &Server, receiver: &Receiver) -> Result<(usize, u64), Failure> {
        let queued = if self.args.quick { 10_000 } else { 100_000 };
        say(&format!("webhooks: {queued} messages in a queue"));
        let tenant = TENANTS + 1;
        self.add_endpoint(tenant, &receiver.url("busy")).await?;
        self.ground.add_events(tenant..tenant + 1, queued).await?;
        let began = Instant::now();
        while self.ground.queued_webhooks(tenant).await? < queued {
            if began.elapsed() > PATIENCE {
                return Err("events are not queued after ten minutes: see target/bench/server.log".into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok((queued, server::resident_mib(server.process())))
    }

    async fn add_endpoint(&self, tenant: usize, url: &str) -> Result<(), Failure> {
        let body = format!("{{\"url\":\"{url}\",\"event_types\":[\"task.updated\"]}}");
        self.call(tenant, "POST /api/v1/webhooks/endpoints", &body).await
    }

    async fn rename(&self, tenant: usize, title: &str) -> Result<(), Failure> {
        let (prefix, first) = (ground::TASK_PREFIX, ground::FIRST);
        let patch = format!("PATCH /api/v1/tasks/{prefix}{}{first}", first + tenant);
        self.call(tenant, &patch, &format!("{{\"title\":\"{title}\"}}"))
            .await
    }

    /// A request of the admin of a tenant, which succeeds.
    async fn call(&self, tenant: usize, request: &str, body: &str) -> Result<(), Failure> {
        let token = self.tokens.get(tenant).ok_or("there are too few tenants")?;
        let message = format!(
            "{request} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            server::ADDRESS,
            body.len()
        );
        let mut stream = TcpStream::connect(server::ADDRESS).await?;
        stream.write_all(message.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.starts_with("HTTP/1.1 2") {
            return Ok(());
        }
        Err(format!("{request} is refused: {answer}").into())
    }
}

/// A receiver of webhooks: 200 below `/ok` and at `/watch`, 500 at `/fail`, 503 at `/busy`.
struct Receiver {
    address: SocketAddr,
    state: Arc<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    accepted: AtomicU64,
    /// When a message about a task of this title came to `/watch` first.
    at: Mutex<HashMap<String, Instant>>,
}

impl Receiver {
    async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Arrivals::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, state })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Waits until so many were accepted. Returns when that was.
    async fn until(&self, accepted: u64) -> Result<Instant, Failure> {
        let began = Instant::now();
        while self.accepted() < accepted {
            if began.elapsed() > PATIENCE {
                return Err(
                    "webhooks are not delivered after ten minutes: see target/bench/server.log".into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Instant::now())
    }

    /// Waits until a message about a task of this title is there. Returns when it came.
    async fn arrival(&self, title: &str) -> Result<Instant, Failure> {
        let began = Instant::now();
        loop {
            let found = self.state.at().get(title).copied();
            match found {
                Some(at) => return Ok(at),
                None if began.elapsed() > PATIENCE => return Err(format!("{title} is not delivered").into()),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Arrivals {
    fn at(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(stream: TcpStream, state: Arc<Arrivals>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length, mut path) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(rest) = header.strip_prefix("post ") {
                path = rest.split(' ').next().unwrap_or_default().to_owned();
            } else if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let status = match path.as_str() {
            "/fail" => "500 Internal Server Error",
            "/busy" => "503 Service Unavailable",
            path => {
                if path == "/watch" {
                    let message: serde_json::Value = serde_json::from_slice(&body)?;
                    let title = message["data"]["object"]["title"].as_str().unwrap_or_default();
                    state.at().entry(title.to_owned()).or_insert_with(Instant::now);
                }
                state.accepted.fetch_add(1, Ordering::Relaxed);
                "200 OK"
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).await?;
    }
}
