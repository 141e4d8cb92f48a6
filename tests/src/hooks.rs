use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest that a test waits for a request.
const DEADLINE: Duration = Duration::from_secs(120);

/// A receiver of webhooks, in threads. Each path answers as a test says; 200 when it says nothing.
#[derive(Debug)]
pub struct HookSink {
    port: u16,
    shared: Arc<Shared>,
}

/// A request as the receiver got it.
#[derive(Debug, Clone)]
pub struct Hook {
    /// The path without its slash.
    pub path: String,
    /// The header `webhook-id`.
    pub id: String,
    /// The header `webhook-signature`.
    pub signature: String,
    /// The body.
    pub body: Value,
}

/// What the receiver answers.
#[derive(Debug, Clone, Copy)]
pub enum HookReply {
    /// This status.
    Status(u16),
    /// This status, with `Retry-After` in seconds.
    Later(u16, u32),
    /// Status 200, after [`HookSink::release`].
    Held,
    /// Status 410, after [`HookSink::release`].
    HeldGone,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    replies: HashMap<String, HookReply>,
    received: Vec<Hook>,
    is_released: bool,
    at_once: usize,
    most_at_once: usize,
}

impl Default for HookSink {
    fn default() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        let shared = Arc::clone(&sink.shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, stream) = (Arc::clone(&shared), stream.unwrap());
                // An error is the end of a client.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        sink
    }
}

impl HookSink {
    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// What a path answers from now on.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn answer(&self, path: &str, reply: HookReply) {
        self.shared
            .state
            .lock()
            .unwrap()
            .replies
            .insert(path.to_owned(), reply);
    }

    /// Answers all requests that are held, and holds no more.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn release(&self) {
        self.shared.state.lock().unwrap().is_released = true;
        self.shared.released.notify_all();
    }

    /// The requests to a path so far.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn received(&self, path: &str) -> Vec<Hook> {
        let state = self.shared.state.lock().unwrap();
        let of_path = state.received.iter().filter(|hook| hook.path == path);
        of_path.cloned().collect()
    }

    /// The most requests that were answered at the same time.
    ///
    /// # Panics
    /// When a thread of the receiver has.
    pub fn most_at_once(&self) -> usize {
        self.shared.state.lock().unwrap().most_at_once
    }

    /// Waits until a path has got so many requests.
    ///
    /// # Panics
    /// When they do not come within two minutes.
    pub async fn wait(&self, path: &str, count: usize) {
        let begin = Instant::now();
        while self.received(path).len() < count {
            assert!(begin.elapsed() < DEADLINE, "{path}: {:?}", self.received(path));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let header = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map_or("", |(_, value)| value).to_owned()
            };
            let mut body = vec![0; header("content-length").parse().unwrap()];
            reader.read_exact(&mut body)?;
            let path = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
            let hook = Hook {
                id: header("webhook-id"),
                signature: header("webhook-signature"),
                body: serde_json::from_slice(&body).unwrap(),
                path,
            };
            let answer = self.answer(hook);
            reader.get_mut().write_all(answer.as_bytes())?;
        }
    }

    fn answer(&self, hook: Hook) -> String {
        let mut state = self.state.lock().unwrap();
        let reply = state.replies.get(&hook.path).copied();
        state.received.push(hook);
        state.at_once += 1;
        state.most_at_once = state.most_at_once.max(state.at_once);
        let (status, headers) = match reply.unwrap_or(HookReply::Status(200)) {
            HookReply::Status(status) => (status, String::new()),
            HookReply::Later(status, seconds) => (status, format!("Retry-After: {seconds}\r\n")),
            HookReply::Held | HookReply::HeldGone => {
                state = self
                    .released
                    .wait_while(state, |state| !state.is_released)
                    .unwrap();
                let is_gone = matches!(reply, Some(HookReply::HeldGone));
                (if is_gone { 410 } else { 200 }, String::new())
            }
        };
        state.at_once -= 1;
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 2\r\n\r\nok")
    }
}
