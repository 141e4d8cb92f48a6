use std::net::IpAddr;

use crate::identity::AllowedNetwork;

/// From which addresses a tenant takes requests: its lists of allowed and of denied networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRules {
    allowed: Vec<AllowedNetwork>,
    denied: Vec<AllowedNetwork>,
    /// Whether every address is refused.
    none: bool,
}

impl AddressRules {
    /// The maximum number of networks in each list.
    pub const MOST: usize = 100;

    /// The rules of two lists of networks in CIDR notation. An empty list of allowed networks allows all. `None` when a text is no
    /// network, which is a mistake of ours: the lists were checked when they were set.
    pub fn new(allowed: &[String], denied: &[String]) -> Option<Self> {
        let read = |texts: &[String]| -> Option<Vec<_>> {
            texts.iter().map(|text| AllowedNetwork::parse(text)).collect()
        };
        Some(Self {
            allowed: read(allowed)?,
            denied: read(denied)?,
            none: false,
        })
    }

    /// Rules that refuse every address.
    pub fn nobody() -> Self {
        Self {
            none: true,
            ..Self::default()
        }
    }

    /// Whether requests from an address are taken. A denied network wins over an allowed one. With a list, a request whose address
    /// is not known is refused.
    pub fn permit(&self, address: Option<IpAddr>) -> bool {
        if self.none {
            return false;
        }
        if self.allowed.is_empty() && self.denied.is_empty() {
            return true;
        }
        let Some(address) = address else { return false };
        let within = |networks: &[AllowedNetwork]| networks.iter().any(|network| network.contains(address));
        !within(&self.denied) && (self.allowed.is_empty() || within(&self.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: &[&str], denied: &[&str]) -> AddressRules {
        let owned = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        AddressRules::new(&owned(allowed), &owned(denied)).unwrap()
    }

    #[test]
    fn denied_network_wins_over_an_allowed_one() {
        let rules = rules(&["10.0.0.0/8", "2001:db8::/32"], &["10.9.0.0/16"]);
        let permit = |text: &str| rules.permit(text.parse().ok());
        assert!(permit("10.1.2.3") && permit("::ffff:10.1.2.3") && permit("2001:db8::1"));
        assert!(!permit("10.9.2.3") && !permit("::ffff:10.9.2.3"));
        assert!(!permit("192.0.2.1") && !permit("2001:db9::1") && !permit("::1"));
        assert!(!permit(""), "an address that is not known");
    }

    #[test]
    fn list_of_denied_networks_alone_allows_all_others() {
        let rules = rules(&[], &["203.0.113.0/24"]);
        assert!(rules.permit("192.0.2.1".parse().ok()) && rules.permit("::1".parse().ok()));
        assert!(!rules.permit("203.0.113.9".parse().ok()) && !rules.permit(None));
        assert!(AddressRules::default().permit(None));
        assert_eq!(AddressRules::new(&["10.0.0.1/8".into()], &[]), None);
    }

    #[test]
    fn mapped_networks_are_networks_of_ipv4() {
        let rules = rules(&["::ffff:10.0.0.0/104"], &[]);
        assert!(rules.permit("10.1.2.3".parse().ok()) && rules.permit("::ffff:10.1.2.3".parse().ok()));
        assert!(!rules.permit("::10.1.2.3".parse().ok()));
    }
}
