use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::http::HeaderMap;
use hyper::http::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;

/// A receiver of webhooks that answers as a test says.
pub struct Sink {
    pub address: SocketAddr,
    requests: UnboundedReceiver<Received>,
    ends: UnboundedReceiver<()>,
    connections: Arc<AtomicUsize>,
}

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Received {
    pub line: String,
    pub headers: HeaderMap,
    pub body: String,
    /// The name in the handshake of TLS.
    pub server_name: Option<String>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// What the sink does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Writes this, and waits for the next request on the connection.
    Bytes(Vec<u8>),
    /// Writes this, and closes the connection.
    Last(Vec<u8>),
    /// Writes this and nothing more, and keeps the connection open.
    Stall(Vec<u8>),
    /// Writes the first, and then the second again and again.
    Endless(Vec<u8>, Vec<u8>),
}

pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn ok() -> Reply {
    Reply::Bytes(answer("200 OK", "", b"ok"))
}

impl Sink {
    /// Listens at 127.0.0.1; each request, counted from 0, gets the reply that `reply` says.
    pub async fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_tls(None, reply).await
    }

    pub async fn with_tls(
        tls: Option<TlsAcceptor>,
        reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = unbounded_channel();
        let (ended, ends) = unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let state = Arc::new(State {
            counted: AtomicUsize::new(0),
            reply: Box::new(reply),
            sender,
        });
        let accepted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (state, tls, ended) = (Arc::clone(&state), tls.clone(), ended.clone());
                tokio::spawn(async move {
                    match tls {
                        None => state.serve(stream, None).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else {
                                return;
                            };
                            let name = stream.get_ref().1.server_name().map(str::to_owned);
                            state.serve(stream, name).await;
                        }
                    }
                    let _ = ended.send(());
                });
            }
        });
        Self {
            address,
            requests,
            ends,
            connections,
        }
    }

    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook?token=1", self.address.port())
    }

    pub async fn received(&mut self) -> Received {
        let next = tokio::time::timeout(Duration::from_secs(30), self.requests.recv()).await;
        next.unwrap().unwrap()
    }

    /// Waits until a connection has ended.
    pub async fn ended(&mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.ends.recv()).await;
        ended.unwrap().unwrap();
    }

    /// How many requests came that were not looked at.
    pub fn more(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct State {
    counted: AtomicUsize,
    reply: Box<dyn Fn(usize) -> Reply + Send + Sync>,
    sender: UnboundedSender<Received>,
}

impl State {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, server_name: Option<String>) {
        while let Some(mut received) = read(&mut stream).await {
            received.server_name = server_name.clone();
            let number = self.counted.fetch_add(1, Ordering::SeqCst);
            let reply = (self.reply)(number);
            let _ = self.sender.send(received);
            match reply {
                Reply::Bytes(bytes) => {
                    if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
                Reply::Last(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                    return;
                }
                Reply::Stall(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.flush().await;
                    // Until the client has closed it.
                    let _ = stream.read(&mut [0; 1]).await;
                    return;
                }
                Reply::Endless(first, again) => {
                    let mut written = stream.write_all(&first).await;
                    while written.is_ok() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        written = stream.write_all(&again).await;
                        let _ = stream.flush().await;
                    }
                    return;
                }
            }
        }
    }
}

/// The next request on a connection; `None` when it has ended.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Received> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
        let text = std::str::from_utf8(&bytes).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let (line, rest) = head.split_once("\r\n").unwrap();
        let mut headers = HeaderMap::new();
        for header in rest.split("\r\n") {
            let (name, value) = header.split_once(": ").unwrap();
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let expected: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        if body.len() >= expected {
            return Some(Received {
                line: line.to_owned(),
                body: body.to_owned(),
                headers,
                server_name: None,
            });
        }
    }
}
