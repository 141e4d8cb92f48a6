//! What a client of HTTP/1 has sent and the framework has not been given yet.
//!
//! actix-http parses all requests that it is given before it serves the first of them. A client that pipelines would take a
//! turn for each of them, a `HEAD` would take the body from the answer before it, and what cannot be read would be refused
//! without a body. So the framework is given one request at a time.

use actix_web::web::BytesMut;

use crate::connection::connection::Connection;

/// How many bytes are read of what a client sends before it is its turn. A longer head is given as it comes.
pub(crate) const AHEAD: usize = 16 * 1024;

/// The bytes that a client has sent ahead, and where in a request the next one of them is.
#[derive(Debug)]
pub(crate) struct Incoming {
    buffer: BytesMut,
    part: Part,
    /// How many bytes of the buffer are known not to end a head.
    searched: usize,
    /// Whether the client sends nothing more.
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The head of a request, of which not all may be there.
    Head,
    /// So many bytes that belong to one request.
    Rest(u64),
    /// The rest of a head, in bytes, and a chunked body.
    Chunked(u64, Chunk),
    /// A request has been given, and the framework has yet to look at it.
    Given,
    /// A request whose length its head does not tell, while so many requests have been answered.
    Unbounded(u64),
}

impl Incoming {
    /// What a client has sent until now.
    pub fn new(first: &[u8]) -> Self {
        Self {
            buffer: BytesMut::from(first),
            part: Part::Head,
            searched: 0,
            ended: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() >= AHEAD
    }

    /// Adds what was read.
    pub fn add(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The client sends nothing more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether a whole request has been given, at which the framework has yet to look.
    pub fn is_given(&self) -> bool {
        self.part == Part::Given
    }

    /// Whether all has been given of a client that sends nothing more.
    pub fn is_over(&self) -> bool {
        self.ended && self.is_empty()
    }

    /// Whatever there is, up to so many bytes.
    pub fn take(&mut self, most: usize) -> BytesMut {
        self.searched = 0;
        let count = most.min(self.buffer.len());
        self.buffer.split_to(count)
    }

    /// What the framework may be given now: up to so many bytes of one request.
    pub fn next(&mut self, most: usize, connection: &Connection) -> BytesMut {
        if self.part == Part::Given {
            self.part = Part::Head;
            return BytesMut::new();
        }
        let answered = connection.answered();
        if matches!(self.part, Part::Unbounded(before) if before != answered) && connection.is_unoccupied() {
            self.part = Part::Head;
        }
        if self.part == Part::Head {
            if !connection.is_unoccupied() || self.is_empty() {
                return BytesMut::new();
            }
            match self.request(answered) {
                Some(part) => self.part = part,
                None if self.ended || self.is_full() => self.part = Part::Unbounded(answered),
                None => return BytesMut::new(),
            }
        }
        match self.part {
            Part::Head | Part::Given | Part::Unbounded(_) => self.take(most),
            Part::Rest(length) => {
                let (bytes, left) = self.take_of(length, most);
                self.part = if left == 0 { Part::Given } else { Part::Rest(left) };
                bytes
            }
            Part::Chunked(0, mut chunk) => {
                let count = chunk.pass(&self.buffer[..most.min(self.buffer.len())]);
                self.part = match chunk {
                    Chunk::Over => Part::Given,
                    chunk => Part::Chunked(0, chunk),
                };
                self.take(count)
            }
            Part::Chunked(head, chunk) => {
                let (bytes, left) = self.take_of(head, most);
                self.part = Part::Chunked(left, chunk);
                bytes
            }
        }
    }

    /// Bytes of a part of this length, and how many of it are left.
    fn take_of(&mut self, length: u64, most: usize) -> (BytesMut, u64) {
        let bytes = self.take(usize::try_from(length).map_or(most, |length| length.min(most)));
        let left = length - bytes.len() as u64;
        (bytes, left)
    }

    /// What the request consists of that the buffer begins with; none before its head is whole.
    fn request(&mut self, answered: u64) -> Option<Part> {
        let from = self.searched.saturating_sub(2);
        let Some(end) = end_of_head(&self.buffer[from..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let head = from + end;
        Some(match body(&self.buffer[..head]) {
            Body::Sized(length) => Part::Rest(length.saturating_add(head as u64)),
            Body::Chunked => Part::Chunked(head as u64, Chunk::BEGIN),
            Body::Unknown => Part::Unbounded(answered),
        })
    }
}

/// How far a chunked body has come (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the line before a chunk: its length as far as it has come, and whether its digits are over.
    Line(u64, bool),
    /// So many bytes are left of a chunk and of the end of its line.
    Bytes(u64),
    /// In a line behind the last chunk: whether there is nothing in it so far, and whether a CR came last.
    Trailer(bool, bool),
    /// Behind the body.
    Over,
}

impl Chunk {
    const BEGIN: Self = Self::Line(0, false);

    /// Goes on over what came next; how many bytes of it belong to the body.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).filter(|_| *self != Self::Over) {
            at += 1;
            *self = match (*self, byte) {
                (Self::Line(0, _), b'\n') => Self::Trailer(true, false),
                (Self::Line(length, _), b'\n') => Self::Bytes(length.saturating_add(2)),
                (Self::Line(length, false), digit) if digit.is_ascii_hexdigit() => {
                    let digit = char::from(*digit).to_digit(16).map_or(0, u64::from);
                    Self::Line(length.saturating_mul(16).saturating_add(digit), false)
                }
                (Self::Line(length, _), _) => Self::Line(length, true),
                (Self::Bytes(left), _) => {
                    // This byte is one of them.
                    let more = (left - 1).min((bytes.len() - at) as u64);
                    at += usize::try_from(more).unwrap_or(usize::MAX);
                    match left - 1 - more {
                        0 => Self::BEGIN,
                        left => Self::Bytes(left),
                    }
                }
                (Self::Trailer(true, true), b'\n') | (Self::Over, _) => Self::Over,
                // Lines end with CR LF, as for the framework. Where this saw the end before the framework does, the rest of
                // the body would never be given to it.
                (Self::Trailer(is_empty, _), b'\r') => Self::Trailer(is_empty, true),
                (Self::Trailer(_, is_cr), byte) => Self::Trailer(is_cr && *byte == b'\n', false),
            };
        }
        at
    }
}

/// Where the empty line of a head ends. Lines may end with LF alone, which the framework's parser takes too.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    lines
        .map(|(at, _)| at + 1)
        .find_map(|next| match bytes.get(next..)? {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        })
}

/// What a head says of the body behind it.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    /// It has so many bytes.
    Sized(u64),
    /// It tells itself where it ends.
    Chunked,
    /// Only the framework finds out, or refuses it.
    Unknown,
}

/// What a head says of its body. This is about how much the framework is given at once, and not about what it takes for a body.
fn body(head: &[u8]) -> Body {
    let mut lines = head.split(|byte| *byte == b'\n');
    if lines.next().is_none_or(|line| line.starts_with(b"CONNECT")) {
        return Body::Unknown;
    }
    let mut body = Body::Sized(0);
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':').map(<[u8]>::trim_ascii);
        let (Some(name), value) = (parts.next(), parts.next().unwrap_or_default()) else {
            continue;
        };
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("upgrade") {
            return Body::Unknown;
        }
        if is("transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case(b"chunked");
            body = if is_chunked {
                Body::Chunked
            } else {
                return Body::Unknown;
            };
        }
        if is("content-length") && body != Body::Chunked {
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|length| length.parse().ok());
            body = length.map_or(Body::Unknown, Body::Sized);
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use actix_http::Protocol;
    use tokio::time::Instant;

    use super::*;
    use crate::connection::connection::Patience;

    fn connection() -> Rc<Connection> {
        let patience = Patience {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        };
        Rc::new(Connection::open(Protocol::Http1, patience, Instant::now()))
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\n12345";

    /// What the framework gets before it looks at it.
    fn given(incoming: &mut Incoming, connection: &Connection) -> String {
        let mut all = Vec::new();
        loop {
            let part = incoming.next(10, connection);
            if part.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend_from_slice(&part);
        }
    }

    #[test]
    fn one_request_is_given_at_a_time() {
        let connection = connection();
        let mut incoming = Incoming::new(format!("{GET}{POST}{GET}").as_bytes());
        for request in [GET, POST, GET] {
            assert_eq!(given(&mut incoming, &connection), request);
            let way = connection.begin();
            assert_eq!(given(&mut incoming, &connection), "");
            drop(way);
        }
        assert!(incoming.is_empty());
    }

    #[test]
    fn an_incomplete_head_is_given_when_it_is_whole_or_too_long() {
        let connection = connection();
        let mut incoming = Incoming::new(&GET.as_bytes()[..GET.len() - 1]);
        assert_eq!(given(&mut incoming, &connection), "");
        incoming.add(b"\nGET");
        assert_eq!(given(&mut incoming, &connection), GET);
        assert_eq!(given(&mut incoming, &connection), "");
        incoming.end();
        assert_eq!(given(&mut incoming, &connection), "GET");
        assert!(incoming.is_over());

        let mut incoming = Incoming::new(&[b'x'; AHEAD]);
        assert_eq!(given(&mut incoming, &connection).len(), AHEAD);
    }

    #[test]
    fn a_chunked_body_is_given_to_its_end() {
        let connection = connection();
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let body = "a;b=c\r\n0123456789\r\n2\r\n\r\n\r\n0\r\nTrailer: x\r\n\r\n";
        let mut incoming = Incoming::new(head.as_bytes());
        assert_eq!(given(&mut incoming, &connection), head);
        let way = connection.begin();
        for part in body.as_bytes() {
            incoming.add(&[*part]);
            assert_eq!(given(&mut incoming, &connection).as_bytes(), [*part]);
        }
        incoming.add(GET.as_bytes());
        assert_eq!(given(&mut incoming, &connection), "");
        drop(way);
        assert_eq!(given(&mut incoming, &connection), GET);
        let mut incoming = Incoming::new(format!("{head}{body}{GET}").as_bytes());
        assert_eq!(given(&mut incoming, &connection), format!("{head}{body}"));
    }

    /// The framework reads on behind bare LFs, so it is given what follows.
    #[test]
    fn a_trailer_ends_with_cr_lf_only() {
        let connection = connection();
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, rest) in [
            ("0\r\nA: b\n\nGET / HTTP/1.1\r\n\r\n", ""),
            ("0\r\nA: b\r\n\r\n", GET),
            ("0\r\n\r\n", GET),
            ("0\r\n\rA: b\r\n\r\n", GET),
        ] {
            let mut incoming = Incoming::new(format!("{head}{body}{rest}").as_bytes());
            assert_eq!(given(&mut incoming, &connection), format!("{head}{body}"));
        }
    }

    #[test]
    fn a_request_of_unknown_length_is_given_as_it_comes() {
        let connection = connection();
        let upgrade = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        let mut incoming = Incoming::new(upgrade.as_bytes());
        assert_eq!(given(&mut incoming, &connection), upgrade);
        let way = connection.begin();
        incoming.add(b"more");
        assert_eq!(given(&mut incoming, &connection), "more");
        drop(way);
        incoming.add(GET.repeat(2).as_bytes());
        assert_eq!(given(&mut incoming, &connection), GET);
    }

    #[test]
    fn what_a_head_says_of_its_body_is_read_as_the_framework_reads_it() {
        let of = |fields: &str| body(format!("POST / HTTP/1.1\n{fields}\n").as_bytes());
        assert_eq!(of("A: b\n"), Body::Sized(0));
        assert_eq!(of("Content-Length: 12\r\n"), Body::Sized(12));
        assert_eq!(of("Transfer-Encoding: chunked\r\n"), Body::Chunked);
        for unknown in [
            "Content-Length: -1",
            "Transfer-Encoding: gzip, chunked",
            "Upgrade: x",
        ] {
            assert_eq!(of(&format!("{unknown}\r\n")), Body::Unknown, "{unknown}");
        }
        assert_eq!(end_of_head(b"a\nb\n\nc"), Some(5));
    }
}
