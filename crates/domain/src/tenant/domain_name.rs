//! Host names that tenants bring along.

use serde::Serialize;
use url::Host;

use crate::kernel::Invalid;

/// A host name in the one form in which it is stored and compared: lower-case ASCII (IDNA), at least two labels, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DomainName(String);

/// The names that no tenant may claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservedDomains(Vec<String>);

/// The names of the product itself below which everything is reserved.
impl ReservedDomains {
    /// The registrable domains of these hosts; a host that has none stands for itself. An address is no name that anybody could claim.
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let apex = |host: &str| {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            psl::domain_str(&host).map_or(host.clone(), str::to_owned)
        };
        let is_name =
            |host: &&str| !host.is_empty() && !matches!(Host::parse(host), Ok(Host::Ipv4(_) | Host::Ipv6(_)));
        let mut names: Vec<String> = hosts.into_iter().filter(is_name).map(apex).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    /// Whether the name is one of the product's, or below it.
    fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|own| is_below(name, own))
    }
}

/// Names that lead nowhere on the public internet (RFC 6761 and its successors, and what private networks use).
const SPECIAL: [&str; 14] = [
    "alt",
    "arpa",
    "corp",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "test",
];

impl DomainName {
    /// The most characters of a name: with the label of the TXT record before it, it is still a name of DNS.
    pub const LONGEST: usize = 235;

    /// The name that a tenant claims.
    ///
    /// # Errors
    /// `invalid_domain`, `reserved_domain` or `public_suffix` at `/domain`.
    pub fn claimed(text: &str, reserved: &ReservedDomains) -> Result<Self, Invalid> {
        let refuse = |code, detail: &str| Err(Invalid::one("/domain", code, detail));
        let Some(name) = Self::parse(text) else {
            return refuse(
                "invalid_domain",
                "must be a host name of at least two labels, such as app.example.com: no address, port, path or wildcard",
            );
        };
        let top = name.0.rsplit('.').next().unwrap_or_default();
        if reserved.contain(&name.0) || SPECIAL.contains(&top) {
            return refuse(
                "reserved_domain",
                "must be a public name that is not this service's own",
            );
        }
        if psl::domain_str(&name.0).is_none() {
            return refuse(
                "public_suffix",
                "must not be a suffix under which others register their names, such as co.uk",
            );
        }
        Ok(name)
    }

    /// The name that a text means, in Unicode or in Punycode; none when it is an address, has a port or is no host name.
    pub fn parse(text: &str) -> Option<Self> {
        // The URL standard decodes percent signs, which no host name has.
        let is_plain = text.len() <= 1_000 && !text.contains('%') && !text.chars().any(char::is_whitespace);
        let text = text.strip_suffix('.').unwrap_or(text);
        match Host::parse(text) {
            Ok(Host::Domain(name)) if is_plain => Self::of_ascii(name),
            Ok(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)) | Err(_) => None,
        }
    }

    /// Whether it is the name that was registered, such as `acme.com`. The apex of a zone has records of its own, so it cannot be a
    /// CNAME.
    pub fn is_apex(&self) -> bool {
        psl::domain_str(&self.0) == Some(self.0.as_str())
    }

    /// The name in the `Host` of a request, with or without a port; none when it is an address or has one label.
    pub fn of_host(host: &str) -> Option<Self> {
        let without_port = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        let name = without_port.strip_suffix('.').unwrap_or(without_port);
        Self::of_ascii(name.to_ascii_lowercase())
    }

    /// A name that was accepted before and kept by the database.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// Letters, digits and hyphens in at least two labels. A last label of digits would make it an address.
    fn of_ascii(name: String) -> Option<Self> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        let holds = name.len() <= Self::LONGEST
            && name.contains('.')
            && name.split('.').all(is_label)
            && last.bytes().any(|b| b.is_ascii_lowercase());
        holds.then_some(Self(name))
    }

    /// Whether it is this name, or below it.
    pub fn is_within(&self, base: &str) -> bool {
        is_below(&self.0, &base.to_ascii_lowercase())
    }

    /// The label of a name directly or indirectly below `base`.
    pub fn label_below(&self, base: &str) -> Option<&str> {
        self.0.strip_suffix(&base.to_ascii_lowercase())?.strip_suffix('.')
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DomainName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_below(name: &str, base: &str) -> bool {
    name.strip_suffix(base)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reserved() -> ReservedDomains {
        ReservedDomains::of(["tenants.example.com", "edge.cdn.example.org", "localhost"])
    }

    fn code(text: &str) -> Result<String, &'static str> {
        DomainName::claimed(text, &reserved())
            .map(|name| name.0)
            .map_err(|invalid| invalid.0[0].code)
    }

    #[test]
    fn names_have_one_form() {
        for (text, name) in [
            ("app.acme.com", "app.acme.com"),
            ("APP.Acme.COM.", "app.acme.com"),
            ("bücher.de", "xn--bcher-kva.de"),
            ("xn--bcher-kva.de", "xn--bcher-kva.de"),
            ("例え.jp", "xn--r8jz45g.jp"),
            ("acme.co.uk", "acme.co.uk"),
            ("shop.github.io", "shop.github.io"),
            ("a-b.c3.dev", "a-b.c3.dev"),
        ] {
            assert_eq!(code(text), Ok(name.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_public_name_is_refused() {
        let long = format!("{}.com", "a.".repeat(116) + "abc");
        for (text, refused) in [
            ("", "invalid_domain"),
            ("acme", "invalid_domain"),
            ("127.0.0.1", "invalid_domain"),
            ("0x7f.1", "invalid_domain"),
            ("2130706433", "invalid_domain"),
            ("[::1]", "invalid_domain"),
            ("::1", "invalid_domain"),
            ("acme.com:443", "invalid_domain"),
            ("acme.com/x", "invalid_domain"),
            ("https://acme.com", "invalid_domain"),
            ("user@acme.com", "invalid_domain"),
            ("*.acme.com", "invalid_domain"),
            ("a_b.acme.com", "invalid_domain"),
            ("-a.acme.com", "invalid_domain"),
            ("a-.acme.com", "invalid_domain"),
            (".acme.com", "invalid_domain"),
            ("acme..com", "invalid_domain"),
            ("acme.com..", "invalid_domain"),
            ("acme .com", "invalid_domain"),
            ("%61cme.com", "invalid_domain"),
            ("acme\0.com", "invalid_domain"),
            ("acme.com\n", "invalid_domain"),
            ("xn--a.com", "invalid_domain"),
            (long.as_str(), "invalid_domain"),
            ("example.com", "reserved_domain"),
            ("other.example.com", "reserved_domain"),
            ("EXAMPLE.org", "reserved_domain"),
            ("acme.localhost", "reserved_domain"),
            ("acme.internal", "reserved_domain"),
            ("acme.test", "reserved_domain"),
            ("1.168.192.in-addr.arpa", "reserved_domain"),
            ("co.uk", "public_suffix"),
            ("github.io", "public_suffix"),
        ] {
            assert_eq!(code(text), Err(refused), "{text:?}");
        }
        assert_eq!(code("notexample.com"), Ok("notexample.com".into()));
    }

    #[test]
    fn hosts_are_read_with_their_port() {
        let of = |host: &str| DomainName::of_host(host).map(|name| name.0);
        assert_eq!(of("App.Acme.COM:8443"), Some("app.acme.com".into()));
        assert_eq!(of("app.acme.com."), Some("app.acme.com".into()));
        for none in [
            "",
            "localhost",
            "127.0.0.1:80",
            "[::1]:8080",
            "a..b",
            "a b.com",
            "bücher.de",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    proptest! {
        /// The form of a name is that of its own form, and a host of a request finds it.
        #[test]
        fn form_is_stable(text in "\\PC{0,60}") {
            if let Some(name) = DomainName::parse(&text) {
                prop_assert_eq!(DomainName::parse(name.as_str()), Some(name.clone()));
                prop_assert_eq!(DomainName::of_host(&format!("{}:443", name.as_str().to_ascii_uppercase())), Some(name));
            }
        }
    }
}
