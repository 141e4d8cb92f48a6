//! Which addresses a tenant may have us, or a browser in our name, fetch: none that leads inside.
//!
//! An address is judged twice. [`PublicUrl::parse`] looks at the text, and [`PublicUrl::check`] at what its host name
//! means at the moment. Both answers are of that moment only: a name may mean something else a second later, and a
//! server may answer with a redirect. So whoever fetches such an address asks [`PublicUrl::check`] again, connects to one
//! of the addresses that it returns and to no other, and follows no redirect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use async_trait::async_trait;
use url::{Host, Url};

/// The most characters that an address and its normal form may have.
pub const LONGEST_URL: usize = 2_000;

/// The ports at which others are called.
pub const PORTS: [u16; 1] = [443];

/// Names of which the last part leads inside, or nowhere.
const INNER_SUFFIXES: [&str; 15] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "svc",
    "onion",
    "invalid",
    "consul",
    "docker",
    "arpa",
];

/// Names under which clouds give machines their credentials.
const METADATA_HOSTS: [&str; 10] = [
    "metadata",
    "metadata.google.internal",
    "metadata.azure.internal",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.goog",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "instance-data.amazonaws.com",
    "metadata.tencentyun.com",
];

/// In every network of Azure: the host of the virtual machine, which gives its agent certificates and secrets. The address is a public one.
const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no address.
    #[error("must be an https address")]
    NotAUrl,
    /// It, or its normal form, is longer than anybody needs.
    #[error("must have at most {LONGEST_URL} characters, with those that are not ASCII percent-encoded")]
    TooLong,
    /// It is not fetched over TLS.
    #[error("must begin with https://")]
    NotHttps,
    /// It carries a user name or a password.
    #[error("must not carry a user name or a password")]
    Credentials,
    /// It has another port than [`PORTS`].
    #[error("must not name a port")]
    Port,
    /// It leads inside, as it is written or by what its name means.
    #[error("must not lead to an internal address")]
    Internal,
}

impl AddressError {
    /// Its stable name, for field errors.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAUrl | Self::TooLong | Self::NotHttps | Self::Credentials | Self::Port => "invalid_url",
            Self::Internal => "internal_address",
        }
    }
}

/// An https address that, by how it is written, does not lead inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

impl PublicUrl {
    /// Reads an address as the URL standard does, so that an IPv4 address is found in whatever form it comes
    /// (`0x7f.1`, `2130706433`, `１２７.０.０.１`).
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let url = read_url(text, &["https"])?;
        if !url.port().is_none_or(|port| PORTS.contains(&port)) {
            return Err(AddressError::Port);
        }
        match url.host().ok_or(AddressError::NotAUrl)? {
            Host::Ipv4(address) if !is_public(address.into()) => Err(AddressError::Internal),
            Host::Ipv6(address) if !is_public(address.into()) => Err(AddressError::Internal),
            Host::Domain(name) if !is_public_name(name) => Err(AddressError::Internal),
            Host::Ipv4(_) | Host::Ipv6(_) | Host::Domain(_) => Ok(Self(url)),
        }
    }

    /// The address in its normal form.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Its host: a name in ASCII, or an IP address, of version 6 in brackets.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The addresses that its host stands for at the moment, none of which leads inside; `None` when nobody knows the
    /// name.
    ///
    /// # Errors
    /// [`AddressError::Internal`] when any of them leads inside.
    pub async fn check(&self, resolver: &dyn HostResolver) -> Result<Option<Vec<IpAddr>>, AddressError> {
        let name = match self.0.host() {
            Some(Host::Ipv4(address)) => return Ok(Some(vec![address.into()])),
            Some(Host::Ipv6(address)) => return Ok(Some(vec![address.into()])),
            Some(Host::Domain(name)) => name,
            None => return Err(AddressError::NotAUrl),
        };
        match resolver.resolve(name).await {
            Ok(addresses) if addresses.is_empty() => Ok(None),
            Ok(addresses) if addresses.iter().all(|address| is_public(*address)) => Ok(Some(addresses)),
            Ok(_) => Err(AddressError::Internal),
            Err(Unresolved) => Ok(None),
        }
    }
}

/// Reads an address that names a host and carries no credentials, with one of these schemes. Forms that the URL standard forgives and
/// other readers do not are refused: the two would see different hosts.
///
/// # Errors
/// [`AddressError`], of which [`AddressError::NotHttps`] stands for every other scheme.
pub fn read_url(text: &str, schemes: &[&str]) -> Result<Url, AddressError> {
    if text.chars().count() > LONGEST_URL {
        return Err(AddressError::TooLong);
    }
    let ambiguous = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    if text.is_empty() || text.contains(ambiguous) {
        return Err(AddressError::NotAUrl);
    }
    let url = Url::parse(text).map_err(|_| AddressError::NotAUrl)?;
    // The normal form is what is stored and read again. A character that is not ASCII has up to twelve in it.
    if url.as_str().len() > LONGEST_URL {
        return Err(AddressError::TooLong);
    }
    if !schemes.contains(&url.scheme()) {
        return Err(AddressError::NotHttps);
    }
    let (scheme, rest) = text.split_once("://").ok_or(AddressError::NotAUrl)?;
    if !scheme.eq_ignore_ascii_case(url.scheme()) {
        return Err(AddressError::NotAUrl);
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(AddressError::NotAUrl);
    }
    if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Credentials);
    }
    Ok(url)
}

/// The name means nothing, or nobody answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host name could not be resolved")]
pub struct Unresolved;

/// Says what host names mean.
#[async_trait]
pub trait HostResolver: Send + Sync {
    /// Every address of a name; it answers within a few seconds.
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved>;
}

#[async_trait]
impl<T: HostResolver + ?Sized> HostResolver for Arc<T> {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        (**self).resolve(host).await
    }
}

/// Whether a host name may be asked for at all: not one of this machine, of a private network or of a cloud's metadata.
pub fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    // A name of one part is looked for in the networks that this machine belongs to.
    name.contains('.')
        && !is_metadata_name(&name)
        && !INNER_SUFFIXES.iter().any(|suffix| is_under(&name, suffix))
}

/// Whether a host name is one under which a cloud gives machines their credentials.
pub fn is_metadata_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    METADATA_HOSTS.iter().any(|host| is_under(&name, host))
}

fn is_under(name: &str, suffix: &str) -> bool {
    let rest = name.strip_suffix(suffix);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether an address is one of the public internet's, and not this machine's, a private network's or reserved.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = matches!(
        (a, b, c),
        // This network, private ones, carrier-grade NAT, loopback and link-local addresses.
        (0 | 10 | 127, _, _) | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _)
        // Protocol assignments, AS112 and AMT, 6to4 relays, documentation, benchmarks.
        | (192, 0, 0 | 2) | (192, 31, 196) | (192, 52, 193) | (192, 88, 99) | (192, 175, 48)
        | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113)
        // Multicast, reserved, broadcast.
        | (224..=255, _, _)
    );
    !reserved && address != AZURE_HOST
}

/// Of all of version 6 only 2000::/3 has been given out, and what of that stands for something else is refused as well.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    let given_out = (0x2000..=0x3fff).contains(&a);
    let special = matches!(
        (a, b, c),
        // Teredo and other protocol assignments, documentation, 6to4, AS112.
        (0x2001, 0..=0x01ff | 0x0db8, _)
            | (0x2002, _, _)
            | (0x2620, 0x004f, 0x8000)
            | (0x3fff, 0..=0x0fff, _)
    );
    given_out && !special
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_the_internet_are_taken_in_their_normal_form() {
        for (text, normal) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM:443/a?b#c", "https://example.com/a?b#c"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://93.184.216.34/x", "https://93.184.216.34/x"),
            ("https://0x5db8d822/", "https://93.184.216.34/"),
            ("https://[2606:2800:220:1::1]/", "https://[2606:2800:220:1::1]/"),
            ("https://localhost.example.com/", "https://localhost.example.com/"),
            (
                "https://a.b/?next=https://u:p@localhost",
                "https://a.b/?next=https://u:p@localhost",
            ),
        ] {
            assert_eq!(
                PublicUrl::parse(text).as_ref().map(PublicUrl::as_str),
                Ok(normal),
                "{text}"
            );
        }
    }

    #[test]
    fn whatever_leads_inside_is_refused_in_every_form() {
        for host in [
            // Version 4, as it is and in odd forms: short, decimal, octal, hexadecimal, mixed, full-width, encoded.
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0177.0.0.1",
            "017700000001",
            "0x7f.0.0.1",
            "0x7f000001",
            "0x7f.1",
            "127.0.0.1.",
            "１２７.０.０.１",
            "%31%32%37.0.0.1",
            "127。0。0。1",
            "0",
            "0.0.0.0",
            "0x0",
            "00",
            "10.0.0.1",
            "10.255.255.255",
            "167772161",
            "012.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.257",
            "3232235521",
            "0xc0a80001",
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "169.254.170.2",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "4294967295",
            // Version 6.
            "[::]",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:169.254.169.254]",
            "[::ffff:0:127.0.0.1]",
            "[fe80::1]",
            "[febf::1]",
            "[fec0::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[2001:db8::1]",
            "[3fff::1]",
            "[100::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[5f00::1]",
            "[4000::1]",
            // Names.
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "localhost.localdomain",
            "printer.local",
            "db.internal",
            "metadata.google.internal",
            "metadata.google.internal.",
            "metadata",
            "instance-data",
            "instance-data.ec2.internal",
            "metadata.goog",
            "metadata.azure.internal",
            "kubernetes.default.svc",
            "api.default.svc.cluster.local",
            "host.docker.internal",
            "gateway.docker.internal",
            "router.lan",
            "nas.home.arpa",
            "wiki.corp",
            "intranet",
            "a.onion",
            "a.invalid",
            "1.0.0.127.in-addr.arpa",
            "ｌocalhost",
        ] {
            let parsed = PublicUrl::parse(&format!("https://{host}/x"));
            assert_eq!(parsed, Err(AddressError::Internal), "{host}");
        }
    }

    #[test]
    fn what_is_no_plain_https_address_is_refused() {
        use AddressError::{Credentials, NotAUrl, NotHttps, Port, TooLong};
        let long = format!("https://a.example/{}", "x".repeat(LONGEST_URL));
        for (text, error) in [
            ("", NotAUrl),
            ("example.com", NotAUrl),
            ("/x", NotAUrl),
            ("//example.com/", NotAUrl),
            ("https://", NotAUrl),
            ("https:example.com", NotAUrl),
            ("https:/example.com", NotAUrl),
            ("https:///example.com", NotAUrl),
            ("http://example.com/", NotHttps),
            ("ftp://example.com/", NotHttps),
            ("file:///etc/passwd", NotHttps),
            ("gopher://example.com/", NotHttps),
            ("javascript:alert(1)", NotHttps),
            ("data:text/css,a{}", NotHttps),
            ("https://u@example.com/", Credentials),
            ("https://u:p@example.com/", Credentials),
            ("https://example.com@127.0.0.1/", Credentials),
            ("https://@example.com/", Credentials),
            ("https://example.com:444/", Port),
            ("https://example.com:22/", Port),
            ("https://example.com:0/", Port),
            ("https://example.com:8443/", Port),
            ("https://example.com:99999/", NotAUrl),
            (" https://example.com/", NotAUrl),
            ("https://exam\tple.com/", NotAUrl),
            ("https://exam\nple.com/", NotAUrl),
            ("https:\\\\example.com\\", NotAUrl),
            ("https://example.com\\@127.0.0.1/", NotAUrl),
            ("https://example.com\0/", NotAUrl),
            ("https://exa%00mple.com/", NotAUrl),
            ("https://127.0.0.256/", NotAUrl),
            ("https://[::1", NotAUrl),
            ("https://[fe80::1%25eth0]/", NotAUrl),
            ("https://a..b/\u{a0}", NotAUrl),
            (long.as_str(), TooLong),
        ] {
            assert_eq!(PublicUrl::parse(text), Err(error), "{text:?}");
        }
    }

    /// The first and the last address of each row of IANA's registries of special-purpose addresses, of multicast, and of what is reserved;
    /// and the host of machines in Azure.
    #[test]
    fn special_purpose_addresses_are_not_public() {
        for (first, last) in [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("168.63.129.16", "::ffff:168.63.129.16"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.31.196.0", "192.31.196.255"),
            ("192.52.193.0", "192.52.193.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("192.175.48.0", "192.175.48.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "239.255.255.255"),
            ("240.0.0.0", "255.255.255.255"),
            ("::", "::1"),
            ("::ffff:10.0.0.0", "::ffff:10.255.255.255"),
            ("64:ff9b::", "64:ff9b::ffff:ffff"),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
            ("100::", "100::ffff:ffff:ffff:ffff"),
            ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff"),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            for text in [first, last] {
                assert!(!is_public(text.parse().unwrap()), "{text}");
            }
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "192.0.1.0",
            "192.0.3.0",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2001:200::",
            "2001:db9::1",
            "2003::1",
            "2620:4f:8001::1",
            "2606:4700::1111",
            "3fff:1000::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_inner_address_is_found_in_each_of_its_forms(number in prop_oneof![
            0x7f00_0000_u32..=0x7fff_ffff, 0x0a00_0000_u32..=0x0aff_ffff, 0xac10_0000_u32..=0xac1f_ffff,
            0xc0a8_0000_u32..=0xc0a8_ffff, 0xa9fe_0000_u32..=0xa9fe_ffff, 0xe000_0000_u32..=u32::MAX, 0_u32..=0x00ff_ffff,
        ]) {
            let [a, b, c, d] = number.to_be_bytes();
            for host in [
                format!("{a}.{b}.{c}.{d}"), format!("{number}"), format!("0x{number:x}"), format!("0{number:o}"),
                format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"), format!("0x{a:X}.0x{b:x}.{}", u32::from(c) << 8 | u32::from(d)),
                format!("[::ffff:{a}.{b}.{c}.{d}]"), format!("[::{a}.{b}.{c}.{d}]"),
                format!("[64:ff9b::{a}.{b}.{c}.{d}]"), format!("[2002:{:x}:{:x}::1]", number >> 16, number & 0xffff),
            ] {
                prop_assert_eq!(PublicUrl::parse(&format!("https://{host}/")), Err(AddressError::Internal), "{}", host);
            }
        }

        #[test]
        fn whatever_is_taken_is_taken_again_and_means_the_same(text in "https://[a-z0-9.:@\\[\\]x%/?#-]{1,40}") {
            if let Ok(url) = PublicUrl::parse(&text) {
                prop_assert_eq!(PublicUrl::parse(url.as_str()), Ok(url.clone()));
                prop_assert!(url.as_str().starts_with("https://") && !url.host().is_empty());
            }
        }
    }
}
