use url::{Host, Url};

use crate::kernel::{AddressError, is_metadata_name, is_public_name, read_url};
use crate::webhooks::network_rules::NetworkRules;

/// The most characters of a name in DNS, and of one of its labels (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Which URLs an endpoint may have, by the server's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRules {
    /// The ports that an endpoint may listen on; every port when empty, which is for development.
    pub ports: Vec<u16>,
    /// Whether `http` is accepted as well. It is for development: anybody on the way can read and change what is sent.
    pub allow_http: bool,
    /// The addresses that an endpoint may have.
    pub networks: NetworkRules,
}

impl Default for EndpointRules {
    /// Only `https`, at the ports 443 and 8443 of public addresses.
    fn default() -> Self {
        Self {
            ports: vec![443, 8443],
            allow_http: false,
            networks: NetworkRules::default(),
        }
    }
}

/// Why a URL cannot be that of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointUrlError {
    /// It is no URL, too long, has another scheme, carries credentials, or leads inside.
    #[error(transparent)]
    Address(AddressError),
    /// It has a fragment, which is never sent.
    #[error("must not have a fragment (#...)")]
    Fragment,
    /// Its port is not among those that the server's configuration lists.
    #[error("must use one of these ports: {ports}", ports = list(.0))]
    Port(Vec<u16>),
    /// Its host name cannot be one in DNS.
    #[error("must have a host name of letters, digits, hyphens and dots")]
    Host,
}

impl EndpointUrlError {
    /// Its stable name, for field errors.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Address(error) => error.code(),
            Self::Fragment | Self::Port(_) | Self::Host => "invalid_url",
        }
    }
}

fn list(ports: &[u16]) -> String {
    let texts: Vec<_> = ports.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The URL of an endpoint: it has a scheme, host and port that rules accept. Path and query may hold a token of the receiver, so neither
/// `Debug` nor [`EndpointUrl::origin`] shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl(Url);

impl EndpointRules {
    /// Reads a URL as the URL standard does, so that an IPv4 address is recognized in every form (`0x7f.1`, `2130706433`), and a name is in
    /// ASCII. A dot at the end of the host is removed: it changes nothing for a complete name, and certificates do not have it.
    ///
    /// The name is not resolved. An accepted URL may still lead inside, so the addresses of its name are checked at each delivery.
    ///
    /// # Errors
    /// [`EndpointUrlError`].
    pub fn parse(&self, text: &str) -> Result<EndpointUrl, EndpointUrlError> {
        let schemes: &[&str] = if self.allow_http {
            &["https", "http"]
        } else {
            &["https"]
        };
        let mut url = read_url(text, schemes).map_err(EndpointUrlError::Address)?;
        if let Some(name) = url
            .domain()
            .and_then(|name| name.strip_suffix('.'))
            .map(str::to_owned)
        {
            url.set_host(Some(&name)).map_err(|_| EndpointUrlError::Host)?;
        }
        let url = EndpointUrl(url);
        self.check(&url)?;
        Ok(url)
    }

    /// Checks a URL once more: it may have been accepted by another configuration.
    ///
    /// # Errors
    /// [`EndpointUrlError`].
    pub fn check(&self, url: &EndpointUrl) -> Result<(), EndpointUrlError> {
        if !url.is_https() && !self.allow_http {
            return Err(EndpointUrlError::Address(AddressError::NotHttps));
        }
        if url.0.fragment().is_some() {
            return Err(EndpointUrlError::Fragment);
        }
        if !self.ports.is_empty() && !self.ports.contains(&url.port()) {
            return Err(EndpointUrlError::Port(self.ports.clone()));
        }
        let may_lead_out = match url.host() {
            Host::Ipv4(address) => self.networks.permit(address.into()),
            Host::Ipv6(address) => self.networks.permit(address.into()),
            Host::Domain(name) if !is_dns_name(name) => return Err(EndpointUrlError::Host),
            // Where a private network is allowed, its names are too: the addresses that they stand for decide.
            Host::Domain(name) if self.networks.allow_private() => !is_metadata_name(name),
            Host::Domain(name) => is_public_name(name),
        };
        may_lead_out
            .then_some(())
            .ok_or(EndpointUrlError::Address(AddressError::Internal))
    }
}

impl EndpointUrl {
    /// A URL that was accepted before it was stored; `None` when the text is no such URL. The present rules may refuse it:
    /// [`EndpointRules::check`].
    pub fn stored(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        url.has_host().then_some(Self(url))
    }

    /// The URL in its normal form, as it is stored.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Scheme, host and port: what may be logged.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.0.scheme(), self.authority())
    }

    /// A name in ASCII, or an address.
    pub fn host(&self) -> Host<&str> {
        // Every URL of these schemes has a host; the name without a part is one that no rules accept.
        self.0.host().unwrap_or(Host::Domain(""))
    }

    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The port, also where it is the one of the scheme.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// Host and port as the `Host` header has them: no port where it is the one of the scheme.
    pub fn authority(&self) -> String {
        let host = self.host();
        match self.0.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        }
    }

    /// Path and query, as the request line has them.
    pub fn target(&self) -> String {
        match self.0.query() {
            Some(query) => format!("{}?{query}", self.0.path()),
            None => self.0.path().to_owned(),
        }
    }
}

impl std::fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EndpointUrl").field(&self.origin()).finish()
    }
}

fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn internal() -> EndpointUrlError {
        EndpointUrlError::Address(AddressError::Internal)
    }

    #[test]
    fn accepted_urls_have_one_normal_form() {
        let rules = EndpointRules::default();
        for (text, normal) in [
            ("https://example.com", "https://example.com/"),
            ("https://example.com./a", "https://example.com/a"),
            ("HTTPS://Example.COM:443/a?b=c", "https://example.com/a?b=c"),
            ("https://example.com:8443/", "https://example.com:8443/"),
            ("https://example.com.:8443/", "https://example.com:8443/"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://0x5db8d822/", "https://93.184.216.34/"),
            ("https://93.184.216.34.:8443/", "https://93.184.216.34:8443/"),
            ("https://[2606:2800:220:1::1]/", "https://[2606:2800:220:1::1]/"),
            (
                "https://_hooks.example.com/a%20b",
                "https://_hooks.example.com/a%20b",
            ),
        ] {
            let parsed = rules.parse(text);
            assert_eq!(parsed.as_ref().map(EndpointUrl::as_str), Ok(normal), "{text}");
        }
    }

    #[test]
    fn urls_that_cannot_be_used_are_refused() {
        use AddressError::{Credentials, NotAUrl, NotHttps, TooLong};
        let long_label = format!("https://{}.example/", "a".repeat(64));
        let long_name = format!("https://{}example/", "abcdefg.".repeat(32));
        let long = format!("https://a.example/{}", "x".repeat(2_000));
        let long_when_encoded = format!("https://a.example/{}", "é".repeat(400));
        let port = || EndpointUrlError::Port(vec![443, 8443]);
        for (text, error) in [
            ("", EndpointUrlError::Address(NotAUrl)),
            ("example.com", EndpointUrlError::Address(NotAUrl)),
            ("https:example.com", EndpointUrlError::Address(NotAUrl)),
            ("https://[fe80::1%25eth0]/", EndpointUrlError::Address(NotAUrl)),
            ("https://[fe80::1%eth0]/", EndpointUrlError::Address(NotAUrl)),
            ("https://exam\nple.com/", EndpointUrlError::Address(NotAUrl)),
            (
                "https://example.com\\@127.0.0.1/",
                EndpointUrlError::Address(NotAUrl),
            ),
            ("http://example.com/", EndpointUrlError::Address(NotHttps)),
            ("ftp://example.com/", EndpointUrlError::Address(NotHttps)),
            ("file:///etc/passwd", EndpointUrlError::Address(NotHttps)),
            ("https://u@example.com/", EndpointUrlError::Address(Credentials)),
            ("https://u:p@example.com/", EndpointUrlError::Address(Credentials)),
            ("https://@example.com/", EndpointUrlError::Address(Credentials)),
            ("https://example.com/#a", EndpointUrlError::Fragment),
            ("https://example.com/#", EndpointUrlError::Fragment),
            ("https://example.com:22/", port()),
            ("https://example.com:80/", port()),
            ("https://example.com:0/", port()),
            ("https://example..com/", EndpointUrlError::Host),
            ("https://.example.com/", EndpointUrlError::Host),
            ("https://example.com../", EndpointUrlError::Host),
            ("https://exa!mple.com/", EndpointUrlError::Host),
            ("https://exa*mple.com/", EndpointUrlError::Host),
            (long_label.as_str(), EndpointUrlError::Host),
            (long_name.as_str(), EndpointUrlError::Host),
            (long.as_str(), EndpointUrlError::Address(TooLong)),
            (long_when_encoded.as_str(), EndpointUrlError::Address(TooLong)),
            ("https://localhost/", internal()),
            ("https://metadata.google.internal./", internal()),
            ("https://169.254.169.254/", internal()),
            ("https://127.1/", internal()),
            ("https://2130706433/", internal()),
            ("https://0177.0.0.1/", internal()),
            ("https://0x7f.1/", internal()),
            ("https://127.0.0.1./", internal()),
            ("https://[::ffff:127.0.0.1]/", internal()),
            ("https://[::127.0.0.1]/", internal()),
            ("https://[64:ff9b::7f00:1]/", internal()),
            ("https://[2002:7f00:1::]/", internal()),
            ("https://１２７.０.０.１/", internal()),
        ] {
            assert_eq!(EndpointRules::default().parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn errors_say_what_is_accepted() {
        let error = EndpointRules::default()
            .parse("https://example.com:22/")
            .unwrap_err();
        assert_eq!(error.to_string(), "must use one of these ports: 443, 8443");
        assert_eq!(
            (error.code(), internal().code()),
            ("invalid_url", "internal_address")
        );
    }

    #[test]
    fn configuration_opens_http_ports_and_private_networks() {
        let networks = NetworkRules::new(&["10.0.0.0/8".into()], &["10.9.0.0/16".into()]).unwrap();
        let rules = EndpointRules {
            ports: vec![80, 443],
            allow_http: true,
            networks,
        };
        for text in [
            "http://example.com/",
            "http://10.1.2.3/",
            "http://167772161/",
            "https://sink/",
            "http://hooks.internal/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            let url = rules.parse(text).unwrap();
            assert_eq!(rules.check(&url), Ok(()), "{text}");
        }
        for text in [
            "http://10.9.0.1/",
            "http://192.168.0.1/",
            "http://127.0.0.1/",
            "http://metadata/",
            "http://metadata.google.internal/",
            "http://100.100.100.200/",
        ] {
            assert_eq!(rules.parse(text), Err(internal()), "{text}");
        }
        let url = rules.parse("http://10.1.2.3/").unwrap();
        assert!(
            EndpointRules::default().check(&url).is_err(),
            "another configuration"
        );
    }

    #[test]
    fn parts_are_those_of_a_request() {
        let rules = EndpointRules::default();
        let url = rules.parse("https://Example.com:8443/hook?t=s").unwrap();
        assert_eq!(
            (url.authority().as_str(), url.target().as_str()),
            ("example.com:8443", "/hook?t=s")
        );
        assert_eq!((url.port(), url.is_https()), (8443, true));
        let url = rules.parse("https://[2606:2800:220:1::1]").unwrap();
        assert_eq!(
            (url.authority().as_str(), url.target().as_str()),
            ("[2606:2800:220:1::1]", "/")
        );
        assert_eq!(url.port(), 443);
    }

    #[test]
    fn debug_output_hides_path_and_query() {
        let url = EndpointRules::default()
            .parse("https://example.com/s3cret?t=s3cret")
            .unwrap();
        assert!(!format!("{url:?}").contains("s3cret") && !url.origin().contains("s3cret"));
    }

    proptest! {
        #[test]
        fn accepted_url_is_accepted_again_and_means_the_same(
            text in prop_oneof!["https?://[a-z0-9.:@\\[\\]x%/?#_-]{1,40}", "https://a\\.example/[a-zé?%😀]{300,600}"],
        ) {
            let rules = EndpointRules { allow_http: true, ports: vec![80, 443], ..EndpointRules::default() };
            if let Ok(url) = rules.parse(&text) {
                let again = rules.parse(url.as_str());
                prop_assert_eq!(again.as_ref().map(EndpointUrl::as_str), Ok(url.as_str()));
                prop_assert!(!url.authority().contains('@') && url.target().starts_with('/'));
                match url.host() {
                    Host::Ipv4(address) => prop_assert!(rules.networks.permit(address.into())),
                    Host::Ipv6(address) => prop_assert!(rules.networks.permit(address.into())),
                    Host::Domain(name) => prop_assert!(is_public_name(name) && !name.ends_with('.')),
                }
            }
        }

        #[test]
        fn inner_address_is_refused_in_each_of_its_forms(number in prop_oneof![
            0x7f00_0000_u32..=0x7fff_ffff, 0x0a00_0000_u32..=0x0aff_ffff, 0xac10_0000_u32..=0xac1f_ffff,
            0xc0a8_0000_u32..=0xc0a8_ffff, 0xa9fe_0000_u32..=0xa9fe_ffff, 0xe000_0000_u32..=u32::MAX, 0_u32..=0x00ff_ffff,
        ]) {
            let [a, b, c, d] = number.to_be_bytes();
            let rest = number & 0x00ff_ffff;
            for host in [
                format!("{a}.{b}.{c}.{d}"), format!("{a}.{b}.{c}.{d}."), format!("{number}"), format!("0x{number:x}"),
                format!("0{number:o}"), format!("{a}.{rest}"), format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
                format!("0{a:o}.0x{b:x}.{c}.{d}"), format!("[::ffff:{a}.{b}.{c}.{d}]"), format!("[::{a}.{b}.{c}.{d}]"),
                format!("[64:ff9b::{a}.{b}.{c}.{d}]"), format!("[2002:{:x}:{:x}::1]", number >> 16, number & 0xffff),
            ] {
                let parsed = EndpointRules::default().parse(&format!("https://{host}/"));
                prop_assert_eq!(parsed, Err(internal()), "{}", host);
            }
        }
    }
}
