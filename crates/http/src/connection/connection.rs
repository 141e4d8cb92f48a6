//! What the socket of a connection and its requests know of each other.
//!
//! # States
//!
//! The way of a request (HTTP/2 has no buffer of [`incoming`](crate::connection::incoming); there h2 reads the socket itself):
//!
//! ```text
//! kernel's buffer --read--> incoming --give--> framework --parse--> request under way --answer--> kernel's buffer
//!      dry                              ahead, given, rests         under_way, begun       blocked_since, unread
//! ```
//!
//! | State | What it says | It becomes true, or grows | It becomes false, or 0 |
//! | --- | --- | --- | --- |
//! | `dry` | All that the client has sent was read. Only then a client can be late. | A read finds nothing more. | Bytes are read. |
//! | `ahead` | Bytes that the framework was given and perhaps has not used (HTTP/1). The bound on it is what keeps a client from filling the memory. | Bytes are given. | Part of a body is used, or the framework asks again after `rests` and no request is under way: then it has used all. |
//! | `given` | The framework was given bytes since the last request began (HTTP/1). If it writes a 4xx now, these bytes are no request. | Bytes are given between requests. | A request begins. |
//! | `rests` | The framework asked for bytes and got none (HTTP/1), so it has looked at all that it was given. | A read ends as pending. | The framework asks again. |
//! | `under_way` | Requests that wait for their turn or are served, until their answers are handed over. | A request is parsed. | Its answer is handed over. |
//! | `begun` | One of the requests that the client sent together has had its turn, so the next one first lets other connections go on. | A request gets its turn. | The client sends something after its requests were answered. |
//! | `blocked_since` | The client's window or the kernel's buffer is full, and since when nothing was taken. | A write is refused. | A write is taken whole. |
//! | `unread` | Bytes of answers that wait for room in the client's window (HTTP/2). | Part of an answer is ready. | The client has room for it. |
//!
//! While no request is under way, [`Phase`] says what the connection waits for, which is what its deadline follows from:
//!
//! ```text
//! open --> Head --(HTTP/1: a request; HTTP/2: the preface)--> [ request under way ] --answered--> Idle
//! Idle --(HTTP/1: first byte; HTTP/2: frame header of HEADERS)--> Head --(the head is complete)--> [ request under way ]
//! ```

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_http::Protocol;
use actix_web::{
    HttpMessage as _, HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};
use tokio::{
    sync::Semaphore,
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::connection::incoming::AHEAD;

/// How many bytes the framework is given of a body that is not being read. It spins when it is given too much.
const AHEAD_OF_BODY: usize = 64 * 1024;

/// With so many bytes of answers that the client has no room for, no further request of its connection begins (HTTP/2).
///
/// It is no bound on memory: requests that have begun are answered all the same, and all streams of a connection may have begun
/// before the first answer is there. To let fewer run at once would make the requests of a proxy's many clients wait for the
/// slowest of them, and the protocol has no way to announce it.
const UNREAD: usize = 4 * 1024 * 1024;

/// How often a deadline that has passed is checked again because the client's bytes are not read yet. Two or three times are
/// enough to read what came in time; a client that never stops sending gets no more time than others.
const ROUNDS: usize = 100;

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
    /// How many requests have been answered.
    answered: Cell<u64>,
    /// Lets one request after the other begin, in the order in which they came.
    turns: Semaphore,
    phase: Cell<Phase>,
    /// How long the first line of what comes next is, as far as it has come.
    line: Cell<Line>,
    /// Since when the client has taken nothing of what there is to send.
    blocked_since: Cell<Option<Instant>>,
    /// Whether all that the client has sent has been read.
    dry: Cell<bool>,
    /// Whether a request has begun of those that the client sent together.
    begun: Cell<bool>,
    /// Whether the framework was given something since the last request began.
    given: Cell<bool>,
    /// How much has been given that is not known to be used.
    ahead: Cell<usize>,
    /// How many bytes of answers wait for the client to have room for them (HTTP/2).
    unread: Cell<usize>,
    /// When the client last had room for something (HTTP/2).
    took_at: Cell<Instant>,
    /// Whether the connection is to be closed because its client takes nothing (HTTP/2).
    given_up: Cell<bool>,
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

/// The client of a request, who may close the connection before the answer.
pub(crate) struct Gone(Option<Rc<Connection>>);

impl Gone {
    /// The client of a request.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        Self(Connection::of(request))
    }

    /// Waits until the client has closed the connection; for ever where the connection is not known.
    pub(crate) async fn wait(&self) {
        match &self.0 {
            Some(connection) => connection.end().await,
            None => std::future::pending().await,
        }
    }
}

impl Connection {
    /// A connection that has just been opened.
    pub fn open(protocol: Protocol, patience: Patience, at: Instant) -> Self {
        Self {
            protocol,
            patience,
            under_way: Cell::new(0),
            answered: Cell::new(0),
            turns: Semaphore::new(1),
            phase: Cell::new(Phase::Head(at)),
            line: Cell::new(NO_LINE),
            blocked_since: Cell::new(None),
            dry: Cell::new(true),
            begun: Cell::new(false),
            given: Cell::new(false),
            ahead: Cell::new(0),
            unread: Cell::new(0),
            took_at: Cell::new(at),
            given_up: Cell::new(false),
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
        let of_http1 = request.conn_data::<Rc<Self>>().cloned();
        of_http1.or_else(|| request.extensions().get::<Rc<Self>>().cloned())
    }

    /// Notes that a request is under way.
    pub fn begin(self: &Rc<Self>) -> UnderWay {
        self.given.set(false);
        self.under_way.set(self.under_way.get() + 1);
        UnderWay(Rc::clone(self))
    }

    /// Waits until a request may be served. Of the requests that a client has sent together one begins each time that the
    /// thread has looked what others have sent, and has served them; and none begins while the client does not take the
    /// answers to those before it.
    pub async fn turn(&self) {
        // It is never closed.
        let _first = self.turns.acquire().await;
        if self.begun.replace(true) {
            yield_now().await;
        }
        poll_fn(|cx| self.once(!self.is_blocked() && self.unread.get() < UNREAD, cx)).await;
    }

    /// Waits for what the client has to do until a deadline; none when it has not done it. It is the server that is late, and
    /// not the client, while there is something of the client's to read, for [`ROUNDS`] at the most.
    pub async fn wait<T>(
        connection: Option<&Self>,
        deadline: Instant,
        mut done: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        let mut is_doubted = false;
        for _ in 0..ROUNDS {
            if let Ok(done) = timeout_at(deadline, poll_fn(&mut done)).await {
                return Some(done);
            }
            // A client that takes nothing is not read to the end either.
            let is_dry = connection.is_none_or(|connection| connection.dry.get() || connection.is_blocked());
            if is_dry && std::mem::replace(&mut is_doubted, true) {
                return None;
            }
            // HTTP/2, whose connection is a task of its own, has yet to find out what there is to read.
            yield_now().await;
        }
        None
    }

    /// Waits until the connection is to be closed because its client takes nothing.
    pub async fn given_up(&self) {
        poll_fn(|cx| self.once(self.given_up.get(), cx)).await;
    }

    /// Part of an answer waits for the client to have room for it.
    pub fn hold(self: &Rc<Self>, bytes: usize) -> Unread {
        self.unread.set(self.unread.get() + bytes);
        Unread {
            connection: Rc::clone(self),
            bytes,
            since: Instant::now(),
        }
    }

    /// The client has begun as its protocol wants it, and may send requests now.
    pub fn greeted(&self) {
        self.phase.set(Phase::Idle(Instant::now()));
    }

    /// How many requests have been answered.
    pub fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Whether the framework has been given something that is no request so far.
    pub fn is_given(&self) -> bool {
        self.given.get()
    }

    /// Waits until the client has closed the connection.
    pub async fn end(&self) {
        poll_fn(|cx| self.once(self.ended.get(), cx)).await;
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

    /// The framework asks for more; whether it is to be given more before it has used what it was given (HTTP/1).
    pub fn reads(&self, cx: &Context<'_>) -> bool {
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
            self.wake_at_change(cx);
        }
        false
    }

    /// The framework is given nothing more for now.
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

    /// Something was read; whether the client had sent something before that the framework was not given yet.
    pub fn heard(&self, is_behind: bool) {
        self.dry.set(false);
        if !self.is_unoccupied() {
            return;
        }
        if !is_behind && self.turns.available_permits() > 0 {
            self.begun.set(false);
        }
        if self.is_http1() {
            self.expects_head();
        }
    }

    /// Part of a head has come.
    pub fn expects_head(&self) {
        if self.is_unoccupied() && !self.is_in_head() {
            self.phase.set(Phase::Head(Instant::now()));
        }
    }

    /// Frames have come (HTTP/2): whether they complete the head of a request, and whether another head is incomplete. Only a
    /// complete head renews the idle time. Other frames do not, a PING for example: a client could hold a connection with them.
    pub fn heard_frames(&self, is_complete: bool, is_in_head: bool) {
        if is_complete {
            self.phase.set(Phase::Idle(Instant::now()));
        }
        if is_in_head {
            self.expects_head();
        }
    }

    /// The framework was given this.
    pub fn gave(&self, bytes: &[u8]) {
        self.ahead.set(self.ahead.get() + bytes.len());
        if !self.is_unoccupied() {
            return;
        }
        self.given.set(true);
        let line = self.line.get();
        if !line.is_whole {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            self.line.set(Line {
                length: line.length + end.unwrap_or(bytes.len()),
                is_whole: end.is_some(),
            });
        }
    }

    /// There was nothing to read, or there is nothing left of what was read.
    pub fn is_read(&self) {
        self.dry.set(true);
    }

    /// The client has closed the connection, or its own direction of it.
    pub fn ended(&self) {
        if !self.ended.replace(true) {
            self.wake();
        }
    }

    /// Whether the client has closed the connection, or its own direction of it.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
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

    /// Wakes when the request under way is answered, and when the client takes something of an answer.
    pub fn wake_at_change(&self, cx: &Context<'_>) {
        let _ = self.once(false, cx);
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
        connection.answered.set(connection.answered.get() + 1);
        connection.wanted.set(false);
        connection.has_body.set(false);
        connection.line.set(NO_LINE);
        connection.phase.set(Phase::Idle(Instant::now()));
        connection.wake();
    }
}

/// Part of an answer that waits for the client to have room for it (HTTP/2).
#[derive(Debug)]
pub(crate) struct Unread {
    connection: Rc<Connection>,
    bytes: usize,
    /// When the client last had room for some of it.
    since: Instant,
}

impl Unread {
    /// Until when the client has to make room.
    pub fn deadline(&self) -> Instant {
        self.since + self.connection.patience.idle
    }

    /// The client had room for so many bytes.
    pub fn took(&mut self, bytes: usize) {
        let (now, connection) = (Instant::now(), &self.connection);
        self.since = now;
        self.bytes -= bytes;
        connection.took_at.set(now);
        connection.unread.set(connection.unread.get() - bytes);
        connection.wake();
    }

    /// The client made no room in time. If it made none for other answers either, its connection is given up.
    pub fn give_up(self) {
        if self.connection.took_at.get() <= self.since {
            self.connection.given_up.set(true);
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.unread.set(connection.unread.get() - self.bytes);
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

    /// Gives what may be given before the framework looks at it; how much that is.
    fn give(connection: &Connection) -> usize {
        let context = Context::from_waker(Waker::noop());
        let count = std::iter::from_fn(|| connection.reads(&context).then(|| connection.gave(&[b'x'; 1024])));
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
        let way = connection.begin();
        assert_eq!(connection.deadline(), None);
        let served = Instant::now();
        drop(way);
        assert!(connection.deadline().unwrap() >= served + PATIENCE.idle);
        connection.heard(false);
        let since_the_first_byte = connection.deadline();
        assert!(since_the_first_byte.unwrap() < served + PATIENCE.idle);
        connection.heard(true);
        assert_eq!(connection.deadline(), since_the_first_byte);
        connection.gave(b"GET /");
        connection.gave(b"tasks HTTP/1.1\r\nHost: x\r\n");
        assert_eq!(connection.line_length(), "GET /tasks HTTP/1.1\r".len());
        let _way = connection.begin();
        connection.sent(Poll::Pending, 1);
        assert!(connection.deadline().unwrap() >= served + PATIENCE.idle);
    }

    #[test]
    fn only_the_head_of_a_request_renews_the_idle_time_of_http_2() {
        let (connection, _) = at(Protocol::Http2);
        connection.greeted();
        let idle = connection.deadline();
        // A PING, for example. The clock of the test may stand still meanwhile.
        let greeted = Instant::now();
        while Instant::now() <= greeted {}
        connection.heard(false);
        connection.heard_frames(false, false);
        assert_eq!(connection.deadline(), idle);
        connection.heard_frames(false, true);
        let late = connection.deadline();
        assert!(connection.is_in_head() && late.unwrap() >= greeted + PATIENCE.head && late < idle);
        let begun = Instant::now();
        while Instant::now() <= begun {}
        connection.heard_frames(false, true);
        assert_eq!(connection.deadline(), late, "the head has one timeout");
        connection.heard_frames(true, false);
        assert!(connection.deadline() > idle);
        connection.heard_frames(true, true);
        assert!(connection.is_in_head(), "another head has begun");
    }

    #[tokio::test]
    async fn a_request_waits_while_earlier_answers_are_not_taken() {
        let (connection, _) = at(Protocol::Http1);
        assert!(is_ready(connection.turn()));
        assert!(
            !is_ready(connection.turn()),
            "it was sent together with the first"
        );
        connection.heard(false);
        connection.sent(Poll::Pending, 10);
        assert!(!is_ready(connection.turn()));
        connection.sent(Poll::Ready(4), 10);
        connection.heard(false);
        assert!(!is_ready(connection.turn()));
        connection.sent(Poll::Ready(6), 6);
        connection.heard(false);
        assert!(is_ready(connection.turn()));
    }

    #[tokio::test]
    async fn a_request_waits_while_too_much_is_unread() {
        let (connection, _) = at(Protocol::Http2);
        let mut unread = connection.hold(UNREAD + 1);
        assert!(!is_ready(connection.turn()));
        unread.took(2);
        connection.heard(false);
        assert!(is_ready(connection.turn()));
        let more = connection.hold(2);
        connection.heard(false);
        assert!(!is_ready(connection.turn()));
        drop(more);
        connection.heard(false);
        assert!(is_ready(connection.turn()));
        drop(unread);
        assert_eq!(connection.unread.get(), 0);
    }

    #[test]
    fn a_connection_is_given_up_when_none_of_its_answers_is_taken() {
        let (connection, _) = at(Protocol::Http2);
        let (mut read, stuck) = (connection.hold(2), connection.hold(1));
        // The clock of the test may stand still meanwhile.
        while Instant::now() <= stuck.since {}
        read.took(1);
        stuck.give_up();
        assert!(!connection.given_up.get(), "another answer was taken");
        read.give_up();
        assert!(connection.given_up.get());
    }

    #[test]
    fn a_request_that_waits_and_is_gone_keeps_nobody_waiting() {
        let (connection, _) = at(Protocol::Http2);
        connection.sent(Poll::Pending, 1);
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut gone = std::pin::pin!(connection.turn());
            assert!(gone.as_mut().poll(&mut context).is_pending());
        }
        connection.sent(Poll::Ready(1), 1);
        connection.heard(false);
        assert!(is_ready(connection.turn()));
    }

    /// A client of HTTP/2 can always have sent another PING.
    #[tokio::test]
    async fn a_client_that_never_stops_sending_meets_its_deadline() {
        let (connection, opened) = at(Protocol::Http2);
        connection.heard(false);
        let never = Connection::wait(Some(&connection), opened, |_| Poll::<()>::Pending);
        let ended = tokio::time::timeout(PATIENCE.head, never).await;
        assert_eq!(ended, Ok(None));
    }

    #[test]
    fn little_is_given_ahead_of_a_request_that_is_under_way() {
        let (connection, _) = at(Protocol::Http1);
        for _ in 0..3 {
            assert_eq!(give(&connection), AHEAD, "a head may be longer");
        }
        let way = connection.begin();
        assert_eq!(give(&connection), 0);
        connection.has_body();
        assert_eq!(give(&connection), AHEAD_OF_BODY - AHEAD);
        connection.used_body(false);
        assert_eq!(give(&connection), AHEAD_OF_BODY);
        connection.used_body(true);
        assert_eq!(give(&connection), AHEAD);
        drop(way);
        assert_eq!(give(&connection), AHEAD);
    }

    #[test]
    fn continue_is_withheld_until_the_body_is_wanted() {
        let (connection, _) = at(Protocol::Http1);
        let way = connection.begin();
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
