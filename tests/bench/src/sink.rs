//! A receiver of the audit log that takes everything and counts it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;

/// It receives as long as the process lives.
pub struct Sink {
    address: SocketAddr,
    records: Arc<AtomicU64>,
}

impl Sink {
    /// Listens on a free port.
    pub async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let records = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&records);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, Arc::clone(&counted)));
            }
        });
        Ok(Self { address, records })
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many records were received.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Waits until so many were received.
    pub async fn until(&self, records: u64) -> Result<(), Failure> {
        let began = Instant::now();
        while self.records() < records {
            if began.elapsed() > Duration::from_secs(600) {
                return Err(
                    "audit entries are not streamed after ten minutes: see target/bench/server.log".into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// Answers each request of a connection with 200.
async fn receive(stream: TcpStream, records: Arc<AtomicU64>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let lines = body.iter().filter(|byte| **byte == b'\n').count();
        records.fetch_add(lines as u64, Ordering::Relaxed);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).await?;
    }
}
