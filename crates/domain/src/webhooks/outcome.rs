use std::time::Duration;

use crate::kernel::Line;
use crate::kernel::name::named_enum;

named_enum! {
    /// The part of an attempt that took too long.
    pub enum DeliveryPhase {
        /// Resolving the name, connecting, and the handshake of TLS.
        Connect = "connect",
        /// Sending the request, and waiting for status and headers of the answer.
        Head = "head",
    }
}

named_enum! {
    /// Why there was no connection, or no answer on it.
    pub enum ConnectionFault {
        /// The name servers failed.
        NameServer = "name_server",
        /// Nothing listens at the address.
        Refused = "refused",
        /// No network leads to the address.
        Unreachable = "unreachable",
        /// The receiver closed the connection before it answered.
        Closed = "closed",
        /// The certificate has expired, or is not valid yet.
        CertificateExpired = "certificate_expired",
        /// The certificate is for another host.
        CertificateName = "certificate_name",
        /// No trusted CA has signed the certificate.
        CertificateIssuer = "certificate_issuer",
        /// TLS failed for another reason.
        Tls = "tls",
        /// The answer was not HTTP, or its headers were too large.
        Protocol = "protocol",
        /// Something else failed, such as no free port on this machine.
        Other = "other",
    }
}

/// The answer of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: u16,
    /// How long it asks to wait; see [`retry_after`](crate::webhooks::retry_after).
    pub retry_after: Option<Duration>,
    /// The beginning of its body as one line of text; see [`excerpt`].
    pub excerpt: String,
}

/// What became of an attempt. None of it shows an address: which one a name has inside a private network is not for tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver has accepted the message: a status of 2xx.
    Delivered(Answer),
    /// The receiver answered with a status that is neither 2xx nor 410. A redirect is one: it is not followed.
    Refused(Answer),
    /// The receiver wants no more messages: status 410.
    Gone(Answer),
    /// The receiver was too slow.
    TimedOut(DeliveryPhase),
    /// There was no connection, or no answer on it.
    ConnectionFailed(ConnectionFault),
    /// The URL, or one of the addresses of its name, is not allowed. Nothing was connected to.
    ForbiddenAddress,
    /// The name does not exist, or has no address.
    NameNotFound,
}

impl DeliveryOutcome {
    /// The outcome of an answer, by its status.
    pub fn of(answer: Answer) -> Self {
        match answer.status {
            200..=299 => Self::Delivered(answer),
            410 => Self::Gone(answer),
            _ => Self::Refused(answer),
        }
    }

    /// Its stable name, for attempts in the API and for metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Refused(_) => "refused",
            Self::Gone(_) => "gone",
            Self::TimedOut(_) => "timed_out",
            Self::ConnectionFailed(_) => "connection_failed",
            Self::ForbiddenAddress => "forbidden_address",
            Self::NameNotFound => "name_not_found",
        }
    }

    /// More about a failure without an answer; `None` where the name says all.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::TimedOut(phase) => Some(phase.as_str()),
            Self::ConnectionFailed(fault) => Some(fault.as_str()),
            Self::Delivered(_) | Self::Refused(_) | Self::Gone(_) => None,
            Self::ForbiddenAddress | Self::NameNotFound => None,
        }
    }

    /// The answer, if there was one.
    pub const fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Delivered(answer) | Self::Refused(answer) | Self::Gone(answer) => Some(answer),
            Self::TimedOut(_) | Self::ConnectionFailed(_) | Self::ForbiddenAddress | Self::NameNotFound => {
                None
            }
        }
    }

    /// Whether the receiver, or a proxy before it, has too much to do: fewer messages at once should follow.
    pub fn is_overloaded(&self) -> bool {
        let status = self.answer().map(|answer| answer.status);
        matches!(status, Some(429 | 502..=504))
    }
}

/// The most characters of an excerpt.
const LONGEST_EXCERPT: usize = 1_000;

/// The most bytes of a character in UTF-8.
const LONGEST_CHARACTER: usize = 4;

/// The beginning of a body as one line of at most 1,000 characters: invalid UTF-8 is replaced, control characters are spaces, and what
/// changes the direction of text is left out.
pub fn excerpt(body: &[u8]) -> String {
    let most = body.len().min((LONGEST_EXCERPT + 1) * LONGEST_CHARACTER);
    let text = String::from_utf8_lossy(&body[..most]);
    Line::within(&text, LONGEST_EXCERPT).as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(status: u16) -> DeliveryOutcome {
        DeliveryOutcome::of(Answer {
            status,
            retry_after: None,
            excerpt: String::new(),
        })
    }

    #[test]
    fn only_2xx_is_delivered() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(outcome(status).name(), "delivered", "{status}");
        }
        for status in [
            101, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 409, 411, 429, 500, 503, 999,
        ] {
            assert_eq!(outcome(status).name(), "refused", "{status}");
        }
        assert_eq!(outcome(410).name(), "gone");
        let overloaded: Vec<u16> = (100..=599)
            .filter(|status| outcome(*status).is_overloaded())
            .collect();
        assert_eq!(overloaded, [429, 502, 503, 504]);
    }

    #[test]
    fn excerpts_are_one_line() {
        assert_eq!(excerpt(b""), "");
        assert_eq!(excerpt(b"{\"ok\":true}\r\n\t\0 done"), "{\"ok\":true} done");
        assert_eq!(excerpt(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(excerpt("a\u{202e}b\u{2028}c".as_bytes()), "ab c");
        assert_eq!(
            excerpt("é".repeat(20_000).as_bytes()).chars().count(),
            LONGEST_EXCERPT
        );
    }

    proptest! {
        #[test]
        fn excerpt_of_any_bytes_is_short_and_has_no_control_character(body in proptest::collection::vec(any::<u8>(), 0..6_000)) {
            let excerpt = excerpt(&body);
            prop_assert!(excerpt.chars().count() <= LONGEST_EXCERPT);
            prop_assert!(!excerpt.chars().any(char::is_control));
        }
    }
}
