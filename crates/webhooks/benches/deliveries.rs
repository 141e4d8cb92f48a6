//! How many webhooks a second one sender delivers to a receiver on this machine: `cargo bench -p tenantry-webhooks`. The receiver is a part
//! of the same process, so both share its processors.
#![expect(clippy::print_stdout, reason = "the figure is the output")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tenantry_domain::kernel::Time;
use tenantry_domain::tenant::{Dns, DnsError, DnsRoute, TxtRecords};
use tenantry_domain::webhooks::{
    CustomHeaders, EndpointRules, MessageId, NetworkRules, SignatureKind, WebhookKeys as _, WebhookRequest,
    WebhookSender as _,
};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig, StandardKeys};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const MESSAGES: u32 = 20_000;
const AT_ONCE: usize = 64;
const BODY_BYTES: usize = 1_000;

struct Local;

#[async_trait]
impl Dns for Local {
    async fn txt(&self, _: &str) -> Result<TxtRecords, DnsError> {
        Err(DnsError::NotFound)
    }

    async fn route(&self, _: &str) -> Result<DnsRoute, DnsError> {
        Ok(DnsRoute {
            names: Vec::new(),
            addresses: vec![[127, 0, 0, 1].into()],
        })
    }
}

/// A receiver that knows where a request ends by its length alone, so that it costs little.
async fn receiver() -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut buffer, mut length) = ([0; 4_096], 0);
                while let Ok(read @ 1..) = stream.read(&mut buffer[length..]).await {
                    length += read;
                    if buffer[..length].ends_with(b"\"end\"}") {
                        length = 0;
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(port)
}

async fn measure(url: &str, config: &SenderConfig) -> Result<f64, Box<dyn std::error::Error>> {
    let sender = Arc::new(HttpWebhookSender::new(config, Arc::new(Local))?);
    let request = WebhookRequest {
        id: MessageId::parse("msg_1").ok_or("an id")?,
        at: Time::from_timestamp(1_800_000_000, 0).ok_or("a time")?,
        url: config.rules.parse(url)?,
        secrets: vec![StandardKeys.generate(SignatureKind::Hmac)?.secret],
        headers: CustomHeaders::default(),
        body: format!("{{\"data\":\"{}\",\"x\":\"end\"}}", "x".repeat(BODY_BYTES)),
    };
    let left = Arc::new(AtomicU32::new(MESSAGES));
    let started = Instant::now();
    let senders: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (sender, request, left) = (sender.clone(), request.clone(), left.clone());
            tokio::spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let delivery = sender.send(request.clone()).await;
                    let name = delivery.map(|delivery| delivery.outcome.name());
                    assert_eq!(name, Ok("delivered"));
                }
            })
        })
        .collect();
    for task in senders {
        task.await?;
    }
    Ok(f64::from(MESSAGES) / started.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = receiver().await?;
    let config = SenderConfig {
        rules: EndpointRules {
            ports: vec![port],
            allow_http: true,
            networks: NetworkRules::new(&["127.0.0.0/8".to_owned()], &[])?,
        },
        ..SenderConfig::default()
    };
    let url = format!("http://sink.example.com:{port}/hook");
    let reused = measure(&url, &config).await?;
    let single = SenderConfig {
        idle_connections: 0,
        idle_timeout: Duration::from_secs(1),
        ..config
    };
    let opened = measure(&url, &single).await?;
    println!("{reused:.0} deliveries a second over open connections, {opened:.0} over new ones");
    Ok(())
}
