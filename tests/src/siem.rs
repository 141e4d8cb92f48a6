use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::Authority;

/// What a receiver of audit entries does with a batch.
#[derive(Debug, Clone)]
pub enum Receipt {
    /// It takes and acknowledges it.
    Take,
    /// It takes it and does not say so in time.
    TakeLate(Duration),
    /// It answers with this status and these lines of headers.
    Answer(u16, &'static str),
    /// It rejects each batch with one of these texts, every batch where there are none, and takes the others, until it is told
    /// something else.
    Reject(Vec<String>, Rejection),
    /// It closes the connection in the middle of the batch.
    CutOff,
}

/// What a receiver does with a batch that it rejects.
#[derive(Debug, Clone, Copy)]
pub enum Rejection {
    /// It answers with this status and these lines of headers.
    Status(u16, &'static str),
    /// It closes the connection.
    Close,
    /// It says nothing for so long, and closes the connection.
    Silence(Duration),
}

impl Receipt {
    /// What it does with a batch that it rejects; `None` when it takes it.
    fn rejection(&self, batch: &str) -> Option<Rejection> {
        let Self::Reject(texts, rejection) = self else {
            return None;
        };
        let is_rejected = texts.is_empty() || texts.iter().any(|text| batch.contains(text));
        is_rejected.then_some(*rejection)
    }
}

/// A receiver over HTTP, in a thread.
#[derive(Debug, Clone)]
pub struct HttpSiem {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What it does with the next batches; it takes all others.
    next: Mutex<VecDeque<Receipt>>,
    /// The records of acknowledged batches, in the order of their arrival.
    taken: Mutex<Vec<Value>>,
    /// The heads of all requests.
    heads: Mutex<Vec<String>>,
}

impl Shared {
    fn next(&self) -> Receipt {
        let mut next = self.next.lock().unwrap();
        match next.front() {
            // It stays until it is cleared.
            Some(reject @ Receipt::Reject(..)) => reject.clone(),
            _ => next.pop_front().unwrap_or(Receipt::Take),
        }
    }

    fn take(&self, lines: &str) {
        let records = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        self.taken.lock().unwrap().extend(records);
    }
}

impl Default for HttpSiem {
    fn default() -> Self {
        Self::start(None)
    }
}

impl HttpSiem {
    /// Starts a receiver, with TLS where there is an authority.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(authority: Option<Arc<Authority>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let siem = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        let shared = Arc::clone(&siem.shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, authority) = (Arc::clone(&shared), authority.clone());
                let stream = stream.unwrap();
                thread::spawn(move || match authority {
                    None => drop(serve_http(&shared, stream)),
                    Some(authority) => drop(serve_http(&shared, authority.serve(stream))),
                });
            }
        });
        siem
    }

    /// Where batches are posted to.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/ingest", self.port)
    }

    /// What it does with the next batches.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn then(&self, receipts: impl IntoIterator<Item = Receipt>) {
        *self.shared.next.lock().unwrap() = receipts.into_iter().collect();
    }

    /// The records of acknowledged batches.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn taken(&self) -> Vec<Value> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// The heads of all requests.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }
}

fn serve_http(shared: &Shared, stream: impl std::io::Read + std::io::Write) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap()];
    shared.heads.lock().unwrap().push(head);
    let receipt = shared.next();
    if matches!(receipt, Receipt::CutOff) {
        let half = body.len() / 2;
        return reader.read_exact(&mut body[..half]);
    }
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let (status, headers) = match receipt {
        Receipt::Take | Receipt::CutOff => (200, ""),
        Receipt::Reject(..) => match receipt.rejection(&body) {
            None => (204, ""),
            Some(Rejection::Status(status, headers)) => (status, headers),
            Some(Rejection::Close) => return Ok(()),
            Some(Rejection::Silence(time)) => {
                thread::sleep(time);
                return Ok(());
            }
        },
        Receipt::TakeLate(time) => {
            thread::sleep(time);
            (200, "")
        }
        Receipt::Answer(status, headers) => (status, headers),
    };
    if (200..300).contains(&status) {
        shared.take(&body);
    }
    let answer = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n");
    reader.get_mut().write_all(answer.as_bytes())
}

/// A receiver of syslog over TLS, in a thread.
#[derive(Debug)]
pub struct SyslogSiem {
    port: u16,
    shared: Arc<Shared>,
    messages: Arc<Mutex<Vec<String>>>,
}

/// How a receiver of syslog ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogEnd {
    /// With `close_notify`.
    Notify,
    /// Without.
    Plain,
}

impl SyslogSiem {
    /// Starts a receiver.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(authority: Arc<Authority>, end: SyslogEnd) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let siem = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
            messages: Arc::default(),
        };
        let (shared, messages) = (Arc::clone(&siem.shared), Arc::clone(&siem.messages));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let _ = serve_syslog(&shared, &messages, (stream, &authority), end);
            }
        });
        siem
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it does with the next batches.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn then(&self, receipts: impl IntoIterator<Item = Receipt>) {
        *self.shared.next.lock().unwrap() = receipts.into_iter().collect();
    }

    /// The messages of acknowledged batches, without their lengths.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().unwrap().clone()
    }
}

fn serve_syslog(
    shared: &Shared,
    messages: &Mutex<Vec<String>>,
    (stream, authority): (TcpStream, &Authority),
    end: SyslogEnd,
) -> std::io::Result<()> {
    let mut tls = authority.serve_tls(stream);
    // The handshake, of which a client that trusts another authority sees no end.
    let mut first = [0; 1];
    tls.read_exact(&mut first)?;
    let mut bytes = first.to_vec();
    let receipt = shared.next();
    if matches!(receipt, Receipt::CutOff) {
        return Ok(());
    }
    tls.read_to_end(&mut bytes)?;
    if receipt.rejection(&String::from_utf8_lossy(&bytes)).is_some() {
        return Ok(());
    }
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
        let (message, behind) = rest[space + 1..].split_at(length);
        found.push(String::from_utf8(message.to_vec()).unwrap());
        rest = behind;
    }
    messages.lock().unwrap().extend(found);
    if end == SyslogEnd::Notify {
        tls.conn.send_close_notify();
        tls.flush()?;
    }
    Ok(())
}
