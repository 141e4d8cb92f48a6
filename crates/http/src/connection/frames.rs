//! How far the frames of an HTTP/2 client have come (RFC 9113 section 4.1).
//!
//! The socket needs to know where a request's head begins and ends: only a request renews the idle time of a connection, and a
//! head that has begun has a timeout. h2 tells neither.

/// The length of the client's preface.
const PREFACE: usize = 24;

/// The length of a frame's header: length (3 bytes), type, flags, stream (4 bytes).
const HEADER: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The flag of the last frame of a head.
const END_HEADERS: u8 = 4;

/// A parser of frame headers.
#[derive(Debug)]
pub(crate) struct Frames {
    /// How many bytes are left of the preface, or of a frame's payload.
    left: usize,
    /// The header of the next frame, of which `length` bytes have come.
    header: [u8; HEADER],
    length: usize,
    head: Head,
}

/// The head of a request: a HEADERS frame and any number of CONTINUATION frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// None has begun.
    None,
    /// More frames of it follow.
    Open,
    /// Its last frame has begun.
    Last,
}

impl Frames {
    /// Before the first byte of the preface.
    pub fn new() -> Self {
        Self {
            left: PREFACE,
            header: [0; HEADER],
            length: 0,
            head: Head::None,
        }
    }

    /// Whether the frame header of a request's head has come, and not yet all of the head.
    pub fn is_in_head(&self) -> bool {
        self.head != Head::None
    }

    /// Follows the next bytes; whether they complete the head of a request.
    pub fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_complete = false;
        loop {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            bytes = &bytes[passed..];
            if self.left == 0 && self.head == Head::Last {
                self.head = Head::None;
                is_complete = true;
            }
            let Some((byte, rest)) = bytes.split_first() else {
                return is_complete;
            };
            bytes = rest;
            self.header[self.length] = *byte;
            self.length += 1;
            if self.length == HEADER {
                self.length = 0;
                self.begin();
            }
        }
    }

    /// Begins the frame of a complete header.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.head = match flags & END_HEADERS {
                0 => Head::Open,
                _ => Head::Last,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Whether a head was incomplete after each byte, and how many were completed.
    fn followed(frames: &mut Frames, bytes: &[u8]) -> (Vec<bool>, usize) {
        let mut complete = 0;
        let in_head = bytes.iter().map(|byte| {
            complete += usize::from(frames.pass(&[*byte]));
            frames.is_in_head()
        });
        (in_head.collect(), complete)
    }

    #[test]
    fn a_head_lasts_from_its_frame_header_to_its_last_byte() {
        let mut frames = Frames::new();
        let other = [
            &[b'x'; PREFACE][..],
            &frame(4, 4, b"")[..],
            &frame(6, 4, b"12345678"),
        ]
        .concat();
        let (in_head, complete) = followed(&mut frames, &other);
        assert!(!in_head.contains(&true) && complete == 0);
        let one = frame(HEADERS, END_HEADERS, b"abc");
        let (in_head, complete) = followed(&mut frames, &one);
        assert_eq!(in_head.iter().position(|is| *is), Some(HEADER - 1));
        assert_eq!((in_head.last(), complete), (Some(&false), 1));
        let parts = [frame(HEADERS, 0, b"abc"), frame(CONTINUATION, 0, b"")].concat();
        let (in_head, complete) = followed(&mut frames, &parts);
        assert_eq!((in_head.last(), complete), (Some(&true), 0));
        // An empty last frame, the frame header of another head, and all at once.
        let last = frame(CONTINUATION, END_HEADERS, b"");
        assert!(frames.pass(&[&last[..], &one[..HEADER]].concat()));
        assert!(frames.is_in_head());
        assert!(frames.pass(&one[HEADER..]) && !frames.is_in_head());
    }
}
