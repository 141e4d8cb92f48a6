use std::collections::BTreeMap;

use crate::kernel::{Check, Invalid, pointer_segment};

/// Names that the sender sets itself, that belong to one connection, or that would change how the receiver reads the request: its method,
/// its path, or the client that it comes from. `x-vault-request` opens an agent of Vault, which knows programs of its machine by it.
const RESERVED: [&str; 28] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-aws-ec2-metadata-token",
    "x-client-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-vault-request",
];

/// Beginnings of such names. The last ones open the metadata services of clouds to a request.
const RESERVED_PREFIXES: [&str; 4] = ["webhook-", "x-forwarded-", "metadata", "x-google-metadata"];

/// Headers that a tenant adds to the requests of an endpoint, such as `Authorization`. Names are in lower case, each once. Values are secrets
/// of the receiver, so `Debug` does not show them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CustomHeaders(BTreeMap<String, String>);

impl CustomHeaders {
    /// The most headers.
    pub const MOST: usize = 10;

    /// The most bytes of a name.
    pub const LONGEST_NAME: usize = 64;

    /// The most bytes of a value.
    pub const LONGEST_VALUE: usize = 1_024;

    /// Checks headers: names are tokens of HTTP, values visible ASCII with spaces between.
    ///
    /// # Errors
    /// [`Invalid`] with each header that cannot be sent, at `{pointer}/{name}`.
    pub fn parse(pointer: &str, headers: &BTreeMap<String, String>) -> Result<Self, Invalid> {
        let mut check = Check::new();
        if headers.len() > Self::MOST {
            let detail = format!("must have at most {} headers, has {}", Self::MOST, headers.len());
            check.fail(pointer, "too_many", detail);
            return check.verdict().map(|()| Self::default());
        }
        let mut found = BTreeMap::new();
        for (name, value) in headers {
            let place = format!("{pointer}/{}", pointer_segment(name));
            let lower = name.to_ascii_lowercase();
            if let Some(problem) = name_problem(&lower).or_else(|| value_problem(value)) {
                check.fail(&place, "invalid_header", problem);
            } else if found.insert(lower, value.clone()).is_some() {
                check.fail(
                    &place,
                    "invalid_header",
                    "must be given once: names of headers have no case",
                );
            }
        }
        check.verdict().map(|()| Self(found))
    }

    /// Headers that were checked before they were stored.
    pub const fn stored(headers: BTreeMap<String, String>) -> Self {
        Self(headers)
    }

    /// The headers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Debug for CustomHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn name_problem(name: &str) -> Option<&'static str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !(1..=CustomHeaders::LONGEST_NAME).contains(&name.len()) || !name.bytes().all(is_token) {
        return Some("must have a name of 1 to 64 letters, digits and hyphens");
    }
    let is_reserved =
        RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    is_reserved.then_some("must not be a header that the server sets or that HTTP reserves")
}

fn value_problem(value: &str) -> Option<&'static str> {
    let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let holds = (1..=CustomHeaders::LONGEST_VALUE).contains(&value.len())
        && value.bytes().all(is_visible)
        && value.trim() == value;
    (!holds).then_some("must have a value of 1 to 1024 visible ASCII characters, with no space at its ends")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(headers: &[(&str, &str)]) -> Result<CustomHeaders, Invalid> {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        CustomHeaders::parse("/headers", &headers.collect())
    }

    #[test]
    fn ordinary_headers_are_accepted_and_hidden() {
        let headers = parse(&[("Authorization", "Bearer s3cret"), ("X-Team", "a b")]).unwrap();
        let found: Vec<_> = headers.iter().collect();
        assert_eq!(found, [("authorization", "Bearer s3cret"), ("x-team", "a b")]);
        assert_eq!(format!("{headers:?}"), r#"{"authorization", "x-team"}"#);
    }

    #[test]
    fn headers_that_change_the_request_are_refused() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "Webhook-Id",
            "webhook-signature",
            "X-Forwarded-For",
            "Metadata",
            "Metadata-Flavor",
            "X-aws-ec2-metadata-token",
            "X-HTTP-Method-Override",
            "X-Original-URL",
            "X-Real-IP",
            "X-Vault-Request",
            "",
            "a b",
            "a:b",
            "a\r\nb",
            "é",
        ] {
            assert!(parse(&[(name, "x")]).is_err(), "{name:?}");
        }
        for value in [
            "",
            " a",
            "a ",
            "a\r\nb: c",
            "a\0",
            "é",
            "a\tb",
            "x".repeat(1_025).as_str(),
        ] {
            assert!(parse(&[("x-a", value)]).is_err(), "{value:?}");
        }
        let Invalid(errors) = parse(&[("X-A", "1"), ("x-a", "2")]).unwrap_err();
        assert_eq!(errors[0].pointer, "/headers/x-a");
        let many: BTreeMap<_, _> = (0..=CustomHeaders::MOST)
            .map(|n| (format!("x-{n}"), "1".to_owned()))
            .collect();
        assert!(CustomHeaders::parse("", &many).is_err());
    }

    proptest! {
        #[test]
        fn accepted_header_fits_on_one_line(name in ".{0,20}", value in ".{0,20}") {
            if let Ok(headers) = parse(&[(&name, &value)]) {
                for (name, value) in headers.iter() {
                    prop_assert!(!name.contains([':', ' ', '\r', '\n']) && !value.contains(char::is_control));
                }
            }
        }
    }
}
