//! What the socket of a connection and its requests know of each other.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_http::Protocol;
use actix_web::{
    HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};
use tokio::{task::yield_now, time::Instant};

/// How many requests of one connection may be under way at once; only HTTP/2 comes near it.
const AT_ONCE: usize = 250;

/// How much is read of what a client sends before it is its turn: behind a request without a body, and behind one with a body
/// that is not being read. The framework parses what it is given, however much that is, and spins when it is too much.
const AHEAD: usize = 16 * 1024;
const AHEAD_OF_BODY: usize = 64 * 1024;

/// How long a client may take for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// For the head of a request.
    pub head: Duration,
    /// To begin another request, or to take something of an answer.
    pub idle: Duration,
}

/// A connection of a client, which all of its requests find in their connection data. It belongs to one thread.
#[derive(Debug)]
pub(crate) struct Connection {
    protocol: Protocol,
    patience: Patience,
    under_way: Cell<usize>,
    phase: Cell<Phase>,
    /// How long the first line of what comes next is, as far as it has come.
    line: Cell<Line>,
    /// Since when the client has taken nothing of what there is to send.
    blocked_since: Cell<Option<Instant>>,
    /// Whether all that the client has sent has been read.
    dry: Cell<bool>,
    /// Whether a request has begun since the socket was read.
    begun: Cell<bool>,
    /// How much has been read that is not known to be used.
    ahead: Cell<usize>,
    /// Whether the socket has been read as far as it may be for now.
    rests: Cell<bool>,
    /// Whether the request under way has a body.
    has_body: Cell<bool>,
    /// Whether the client has closed the connection, or its own direction of it.
    ended: Cell<bool>,
    /// Whether the framework is about to send `100 Continue`, which is too early.
    premature: Cell<bool>,
    /// Whether a body is wanted whose client waits for `100 Continue`.
    wanted: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

/// What a connection without a request is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The head of a request, since then.
    Head(Instant),
    /// The first byte of another request, since then.
    Idle(Instant),
}

/// The first line of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    length: usize,
    is_whole: bool,
}

const NO_LINE: Line = Line {
    length: 0,
    is_whole: false,
};

impl Connection {
    /// A connection that has just been opened.
    pub fn open(protocol: Protocol, patience: Patience, at: Instant) -> Self {
        Self {
            protocol,
            patience,
            under_way: Cell::new(0),
            phase: Cell::new(Phase::Head(at)),
            line: Cell::new(NO_LINE),
            blocked_since: Cell::new(None),
            dry: Cell::new(true),
            begun: Cell::new(false),
            ahead: Cell::new(0),
            rests: Cell::new(true),
            has_body: Cell::new(false),
            ended: Cell::new(false),
            premature: Cell::new(false),
            wanted: Cell::new(false),
            wakers: RefCell::default(),
        }
    }

    /// The connection of a request; none in tests without a socket, and behind other servers than ours.
    pub fn of(request: &HttpRequest) -> Option<Rc<Self>> {
        request.conn_data::<Rc<Self>>().cloned()
    }

    /// Notes that a request is under way; none when there are too many.
    pub fn begin(self: &Rc<Self>) -> Option<UnderWay> {
        let under_way = self.under_way.get();
        (under_way < AT_ONCE).then(|| {
            self.under_way.set(under_way + 1);
            UnderWay(Rc::clone(self))
        })
    }

    /// Waits until a request may be served: requests that a client has sent one behind the other take turns with those of
    /// other connections, and none begins while the client does not take the answers to those before it.
    pub async fn turn(&self) {
        if self.is_http1() && self.begun.replace(true) {
            yield_now().await;
        }
        poll_fn(|cx| self.once(self.blocked_since.get().is_none(), cx)).await;
    }

    /// Waits until the client has closed the connection.
    pub async fn end(&self) {
        poll_fn(|cx| self.once(self.ended.get(), cx)).await;
    }

    /// Whether there is nothing left to read of what the client has sent.
    pub fn is_dry(&self) -> bool {
        self.dry.get()
    }

    /// `100 Continue` is not sent until [`Connection::want_body`].
    pub fn withhold_continue(&self) {
        self.premature.set(self.is_http1());
    }

    /// The body of the request is about to be read.
    pub fn want_body(&self) {
        self.wanted.set(self.is_http1());
    }

    pub fn is_http1(&self) -> bool {
        self.protocol == Protocol::Http1
    }

    /// Whether no request is under way.
    pub fn is_unoccupied(&self) -> bool {
        self.under_way.get() == 0
    }

    /// Whether part of the head of a request may have come, or is overdue.
    pub fn is_in_head(&self) -> bool {
        matches!(self.phase.get(), Phase::Head(_))
    }

    /// How long the first line of the request is that is being read, in bytes.
    pub fn line_length(&self) -> usize {
        self.line.get().length
    }

    pub fn patience(&self) -> Patience {
        self.patience
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
    }

    /// Until when the client has to do something; none while it is the server's turn.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some(since) = self.blocked_since.get() {
            return Some(since + self.patience.idle);
        }
        let waiting = self.is_unoccupied().then(|| self.phase.get());
        waiting.map(|phase| match phase {
            Phase::Head(since) => since + self.patience.head,
            Phase::Idle(since) => since + self.patience.idle,
        })
    }

    /// The socket is being read; whether there is to be more of it before what has been read is used.
    pub fn reads(&self, cx: &Context<'_>) -> bool {
        self.begun.set(false);
        if !self.is_http1() {
            return true;
        }
        // Nothing waits to be served then but the begin of a head.
        if self.rests.replace(false) && self.is_unoccupied() {
            self.ahead.set(0);
        }
        let most = if self.has_body.get() { AHEAD_OF_BODY } else { AHEAD };
        if self.ahead.get() < most {
            return true;
        }
        if self.is_unoccupied() {
            cx.waker().wake_by_ref();
        } else {
            let _ = self.once(false, cx);
        }
        false
    }

    /// The socket is not read any further for now.
    pub fn rests(&self) {
        self.rests.set(true);
    }

    /// The request under way has a body.
    pub fn has_body(&self) {
        self.has_body.set(true);
    }

    /// Some of the body was used, or all of it.
    pub fn used_body(&self, all: bool) {
        self.has_body.set(!all);
        self.ahead.set(0);
        self.wake();
    }

    /// This was read, and there may be more.
    pub fn heard(&self, bytes: &[u8]) {
        self.dry.set(false);
        self.ahead.set(self.ahead.get() + bytes.len());
        if !self.is_unoccupied() {
            return;
        }
        let line = self.line.get();
        if !line.is_whole {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            self.line.set(Line {
                length: line.length + end.unwrap_or(bytes.len()),
                is_whole: end.is_some(),
            });
        }
        if !self.is_in_head() {
            let now = Instant::now();
            // Other frames than those of a request are as good a sign of life in HTTP/2.
            self.phase.set(if self.is_http1() {
                Phase::Head(now)
            } else {
                Phase::Idle(now)
            });
        }
    }

    /// There was nothing to read.
    pub fn is_read(&self) {
        self.dry.set(true);
    }

    /// The client has closed the connection, or its own direction of it.
    pub fn ended(&self) {
        self.ended.set(true);
        self.wake();
    }

    /// So much of what there was to send was taken.
    pub fn sent(&self, taken: Poll<usize>, of: usize) {
        match taken {
            Poll::Ready(count) if count >= of => {
                if self.blocked_since.take().is_some() {
                    self.wake();
                }
            }
            Poll::Ready(_) => {
                if self.is_blocked() {
                    self.blocked_since.set(Some(Instant::now()));
                }
            }
            Poll::Pending => {
                if !self.is_blocked() {
                    self.blocked_since.set(Some(Instant::now()));
                }
            }
        }
    }

    /// Whether a `100 Continue` in what is to be sent is too early.
    pub fn is_premature(&self) -> bool {
        self.premature.get()
    }

    /// A `100 Continue` was withheld.
    pub fn withheld(&self) {
        self.premature.set(false);
    }

    /// Whether `100 Continue` is to be sent now.
    pub fn is_body_wanted(&self) -> bool {
        self.wanted.get() && !self.premature.get()
    }

    /// `100 Continue` was sent.
    pub fn continued(&self) {
        self.wanted.set(false);
    }

    fn once(&self, holds: bool, cx: &Context<'_>) -> Poll<()> {
        if holds {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&self) {
        let wakers = self.wakers.take();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A request that is under way, until its answer has been handed over to be sent.
#[derive(Debug)]
pub(crate) struct UnderWay(Rc<Connection>);

impl UnderWay {
    /// The answer's body, which keeps the request under way until all of it has been handed over to be sent.
    pub fn until_sent(self, body: BoxBody) -> BoxBody {
        match body.size() {
            BodySize::None | BodySize::Sized(0) => body,
            BodySize::Sized(_) | BodySize::Stream => BoxBody::new(Answer { body, _way: self }),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.under_way.set(connection.under_way.get() - 1);
        connection.wanted.set(false);
        connection.has_body.set(false);
        connection.line.set(NO_LINE);
        connection.phase.set(Phase::Idle(Instant::now()));
        connection.wake();
    }
}

/// The body of an answer that is under way.
struct Answer {
    body: BoxBody,
    _way: UnderWay,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
    };

    fn at(protocol: Protocol) -> (Rc<Connection>, Instant) {
        let now = Instant::now();
        (Rc::new(Connection::open(protocol, PATIENCE, now)), now)
    }

    /// Reads what may be read before the requests in it are looked at; how much that is.
    fn read(connection: &Connection) -> usize {
        let context = Context::from_waker(Waker::noop());
        let count = std::iter::from_fn(|| {
            connection
                .reads(&context)
                .then(|| connection.heard(&[b'x'; 1024]))
        });
        let count = count.take(1_000).count();
        connection.rests();
        count * 1024
    }

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        std::pin::pin!(future).poll(&mut context).is_ready()
    }

    #[test]
    fn a_client_has_a_deadline_only_while_the_server_waits_for_it() {
        let (connection, opened) = at(Protocol::Http1);
        assert_eq!(connection.deadline(), Some(opened + PATIENCE.head));
        let way = connection.begin().unwrap();
        assert_eq!(connection.deadline(), None);
        let served = Instant::now();
        drop(way);
        assert!(connection.deadline().unwrap() >= served + PATIENCE.idle);
        connection.heard(b"GET /");
        let since_the_first_byte = connection.deadline();
        assert!(since_the_first_byte.unwrap() < served + PATIENCE.idle);
        connection.heard(b"tasks HTTP/1.1\r\nHost: x\r\n");
        assert_eq!(connection.deadline(), since_the_first_byte);
        assert_eq!(connection.line_length(), "GET /tasks HTTP/1.1\r".len());
        let _way = connection.begin().unwrap();
        connection.sent(Poll::Pending, 1);
        assert!(connection.deadline().unwrap() >= served + PATIENCE.idle);
    }

    #[tokio::test]
    async fn a_request_waits_while_earlier_answers_are_not_taken() {
        let (connection, _) = at(Protocol::Http1);
        assert!(is_ready(connection.turn()));
        assert!(!is_ready(connection.turn()), "it takes turns with others");
        read(&connection);
        connection.sent(Poll::Pending, 10);
        assert!(!is_ready(connection.turn()));
        connection.sent(Poll::Ready(4), 10);
        read(&connection);
        assert!(!is_ready(connection.turn()));
        connection.sent(Poll::Ready(6), 6);
        read(&connection);
        assert!(is_ready(connection.turn()));
    }

    #[test]
    fn little_is_read_ahead_of_a_request_that_is_under_way() {
        let (connection, _) = at(Protocol::Http1);
        for _ in 0..3 {
            assert_eq!(read(&connection), AHEAD, "a head may be longer");
        }
        let way = connection.begin().unwrap();
        assert_eq!(read(&connection), 0);
        connection.has_body();
        assert_eq!(read(&connection), AHEAD_OF_BODY - AHEAD);
        connection.used_body(false);
        assert_eq!(read(&connection), AHEAD_OF_BODY);
        connection.used_body(true);
        assert_eq!(read(&connection), AHEAD);
        drop(way);
        assert_eq!(read(&connection), AHEAD);
    }

    #[test]
    fn a_connection_has_a_bounded_number_of_requests_under_way() {
        let (connection, _) = at(Protocol::Http2);
        let mut ways: Vec<_> = std::iter::from_fn(|| connection.begin()).collect();
        assert_eq!(ways.len(), AT_ONCE);
        ways.pop();
        assert!(connection.begin().is_some());
    }

    #[test]
    fn continue_is_withheld_until_the_body_is_wanted() {
        let (connection, _) = at(Protocol::Http1);
        let way = connection.begin().unwrap();
        connection.withhold_continue();
        assert!(connection.is_premature() && !connection.is_body_wanted());
        connection.withheld();
        assert!(!connection.is_body_wanted());
        connection.want_body();
        assert!(connection.is_body_wanted());
        drop(way);
        assert!(!connection.is_body_wanted());
    }
}
