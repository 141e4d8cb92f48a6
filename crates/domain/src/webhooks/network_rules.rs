use std::net::IpAddr;

use crate::identity::AllowedNetwork;
use crate::kernel::is_public;

/// The networks of which an operator may allow parts: private ones, those of shared addresses and of benchmarks, and this machine. What an
/// address in others would mean depends on where a packet happens to be, so no configuration allows it.
const PRIVATE: [&str; 8] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "::1/128",
    "fc00::/7",
];

/// Where clouds give machines their credentials, in networks of [`PRIVATE`] (Alibaba, AWS, Google, Oracle, Scaleway). The others are
/// link-local, or of the host itself (Azure), which is never allowed.
const METADATA: [&str; 5] = [
    "100.100.100.200/32",
    "fd00:ec2::/32",
    "fd20:ce::/32",
    "fd00:c1::a9fe:a9fe/128",
    "fd00:42::42/128",
];

/// Which addresses webhooks may be sent to: those of the public internet, parts of private networks that the operator allows, and none that
/// the operator denies. Every tenant can reach what is allowed, at the ports of the configuration, and sees the beginning of its answers: allow
/// the receivers, and not the network that they are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRules {
    allowed: Vec<AllowedNetwork>,
    denied: Vec<AllowedNetwork>,
}

/// What is wrong with a configured network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkRulesError {
    /// The text is no network.
    #[error("`{0}` is not a network: write 10.1.0.0/16 or a single address")]
    NotANetwork(String),
    /// The network has addresses that are not private.
    #[error("`{0}` cannot be allowed: it must be a part of one of {networks}", networks = PRIVATE.join(", "))]
    NotPrivate(String),
}

impl NetworkRules {
    /// The rules of two lists of networks in CIDR notation: private networks that are allowed, and networks that are denied whatever they
    /// are, such as the operator's own public addresses or a NAT64 prefix. A denied network wins.
    ///
    /// # Errors
    /// [`NetworkRulesError`] with the first text that cannot be used.
    pub fn new(allowed: &[String], denied: &[String]) -> Result<Self, NetworkRulesError> {
        let read = |text: &String| {
            AllowedNetwork::parse(text).ok_or_else(|| NetworkRulesError::NotANetwork(text.clone()))
        };
        let private = |text: &String| {
            let network = read(text)?;
            let is_private = networks(&PRIVATE).any(|private| network.is_within(private));
            is_private
                .then_some(network)
                .ok_or_else(|| NetworkRulesError::NotPrivate(text.clone()))
        };
        Ok(Self {
            allowed: allowed.iter().map(private).collect::<Result<_, _>>()?,
            denied: denied.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    /// Whether an address may be connected to. An IPv4 address that is written as an IPv6 address (`::ffff:10.0.0.1`) is an IPv4 address;
    /// other IPv6 addresses with an IPv4 address in them are never permitted, since a gateway decides where they lead.
    pub fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[AllowedNetwork]| networks.iter().any(|network| network.contains(address));
        let is_metadata = networks(&METADATA).any(|network| network.contains(address));
        !is_metadata && !within(&self.denied) && (is_public(address) || within(&self.allowed))
    }

    /// Whether some private network is allowed, so that names which only mean something inside can lead somewhere.
    pub fn allow_private(&self) -> bool {
        !self.allowed.is_empty()
    }
}

fn networks(texts: &[&'static str]) -> impl Iterator<Item = AllowedNetwork> {
    texts.iter().filter_map(|text| AllowedNetwork::parse(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(allowed: &[&str], denied: &[&str]) -> Result<NetworkRules, NetworkRulesError> {
        let owned = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        NetworkRules::new(&owned(allowed), &owned(denied))
    }

    #[test]
    fn constants_are_networks() {
        assert_eq!(networks(&PRIVATE).count(), PRIVATE.len());
        assert_eq!(networks(&METADATA).count(), METADATA.len());
    }

    #[test]
    fn only_parts_of_private_networks_can_be_allowed() {
        for text in [
            "10.0.0.0/8",
            "10.1.2.3",
            "127.0.0.1",
            "::1",
            "fd12::/16",
            "::ffff:10.0.0.0/104",
        ] {
            assert!(rules(&[text], &[]).is_ok(), "{text}");
        }
        for text in [
            "0.0.0.0/0",
            "::/0",
            "8.0.0.0/5",
            "169.254.169.254",
            "fe80::/10",
            "64:ff9b::/96",
            "224.0.0.0/4",
            "1.1.1.1",
        ] {
            let refused = Err(NetworkRulesError::NotPrivate(text.to_owned()));
            assert_eq!(rules(&[text], &[]), refused, "{text}");
        }
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "fe80::1%eth0"] {
            let refused = Err(NetworkRulesError::NotANetwork(text.to_owned()));
            assert_eq!(rules(&[text], &[]), refused, "{text}");
            assert_eq!(rules(&[], &[text]), refused, "{text}");
        }
        let error = rules(&["0.0.0.0/0"], &[]).unwrap_err().to_string();
        assert!(
            error.contains("`0.0.0.0/0`") && error.contains("10.0.0.0/8"),
            "{error}"
        );
    }

    #[test]
    fn allowed_networks_open_themselves_and_nothing_else() {
        let rules = rules(
            &["10.1.0.0/16", "fd00::/8", "100.64.0.0/10"],
            &["10.1.9.0/24", "93.184.216.0/24"],
        )
        .unwrap();
        let permit = |text: &str| rules.permit(text.parse().unwrap());
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "100.64.0.1", "1.1.1.1"] {
            assert!(permit(text), "{text}");
        }
        for text in [
            "10.1.9.1",
            "::ffff:10.1.9.1",
            "10.2.0.1",
            "::10.1.2.3",
            "64:ff9b::10.1.2.3",
            "2002:a01:203::1",
            "fe80::1",
            "127.0.0.1",
            "93.184.216.34",
            "169.254.169.254",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "100.100.100.200",
            "168.63.129.16",
            "::ffff:168.63.129.16",
        ] {
            assert!(!permit(text), "{text}");
        }
        assert!(rules.allow_private() && !NetworkRules::default().allow_private());
    }

    proptest! {
        #[test]
        fn without_a_list_only_public_addresses_are_permitted(v4: u32, v6: u128) {
            let rules = NetworkRules::default();
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                prop_assert_eq!(rules.permit(address), is_public(address), "{}", address);
            }
        }

        #[test]
        fn mapped_address_is_judged_as_the_address_in_it(v4: u32) {
            let rules = rules(&["10.0.0.0/8"], &["1.0.0.0/8"]).unwrap();
            let address = std::net::Ipv4Addr::from(v4);
            prop_assert_eq!(rules.permit(address.into()), rules.permit(address.to_ipv6_mapped().into()));
            prop_assert!(!rules.permit(address.to_ipv6_compatible().into()));
        }
    }
}
