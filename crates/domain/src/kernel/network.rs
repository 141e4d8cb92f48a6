use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network that a caller's address is in, as large as one holder usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The widest network there is in [`Network::of`], in bits: a customer of an IPv6 provider has up to a /48.
    pub const WIDEST_V6: u8 = 48;

    /// The networks of an address, the smallest first: the /24 of an IPv4 address; the /64, the /56 and the /48 of an IPv6
    /// address, since providers give out networks of these sizes. None of a missing address and of a loopback address.
    pub fn of(address: Option<IpAddr>) -> Vec<Self> {
        match address.map(|address| address.to_canonical()) {
            None => Vec::new(),
            Some(address) if address.is_loopback() => Vec::new(),
            Some(IpAddr::V4(address)) => {
                let masked = address.to_bits() & (u32::MAX << 8);
                let address = IpAddr::V4(Ipv4Addr::from_bits(masked));
                vec![Self { address, bits: 24 }]
            }
            Some(IpAddr::V6(address)) => {
                let within = |bits: u8| {
                    let masked = address.to_bits() & (u128::MAX << (128 - u32::from(bits)));
                    let address = IpAddr::V6(Ipv6Addr::from_bits(masked));
                    Self { address, bits }
                };
                vec![within(64), within(56), within(Self::WIDEST_V6)]
            }
        }
    }

    /// The network that logins are told apart by, about what one household or office has: the /24 of an IPv4 address, the /56
    /// of an IPv6 address; none of a missing and of a loopback address.
    pub fn site(address: Option<IpAddr>) -> Option<Self> {
        let sites = [24, 56];
        Self::of(address)
            .into_iter()
            .find(|network| sites.contains(&network.bits))
    }

    /// How many bits of an address it fixes.
    pub const fn bits(self) -> u8 {
        self.bits
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_networks_that_providers_give_out() {
        let of = |text: &str| -> Vec<String> {
            let networks = Network::of(Some(text.parse().unwrap()));
            networks.iter().map(ToString::to_string).collect()
        };
        assert_eq!(of("203.0.113.7"), ["203.0.113.0/24"]);
        assert_eq!(of("::ffff:203.0.113.7"), ["203.0.113.0/24"]);
        assert_eq!(
            of("2001:db8:1:2345:6:7:8:9"),
            ["2001:db8:1:2345::/64", "2001:db8:1:2300::/56", "2001:db8:1::/48"]
        );
        assert_eq!(of("127.0.0.1"), [""; 0]);
        assert_eq!(of("::1"), [""; 0]);
        assert_eq!(Network::of(None), []);
    }

    #[test]
    fn logins_are_told_apart_by_the_site() {
        let site = |text: &str| Network::site(text.parse().ok()).map(|network| network.to_string());
        assert_eq!(site("203.0.113.7").as_deref(), Some("203.0.113.0/24"));
        assert_eq!(
            site("2001:db8:1:2345::1").as_deref(),
            Some("2001:db8:1:2300::/56")
        );
        assert_eq!(site("127.0.0.1"), None);
        assert_eq!(site(""), None);
    }
}
