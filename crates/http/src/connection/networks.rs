//! Bounds on the open connections of one network.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tenantry_domain::kernel::Network;

/// The open connections of each network, on all threads together.
#[derive(Debug)]
pub(crate) struct Networks {
    most: Option<usize>,
    counted: fn(IpAddr) -> Option<Network>,
    open: Mutex<HashMap<Network, usize>>,
}

/// An open connection. It is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Option<(Arc<Networks>, Network)>);

/// Returns the network that the connections of an address count for: its [`Network::site`]; none for an address of loopback or
/// of a private network. A proxy or a load balancer has such an address, and its connections are those of many clients.
pub(crate) fn counted(address: IpAddr) -> Option<Network> {
    let is_private = match address.to_canonical() {
        IpAddr::V4(address) => {
            // 100.64.0.0/10 is shared by the customers of a provider, and by the nodes of some clusters (RFC 6598).
            let is_shared = address.to_bits() >> 22 == 0b01_1001_0001;
            address.is_private() || address.is_link_local() || is_shared
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    if is_private {
        None
    } else {
        Network::site(Some(address))
    }
}

impl Networks {
    /// Allows each network that is `counted` so many open connections; any number when `most` is `None`.
    pub fn new(most: Option<usize>, counted: fn(IpAddr) -> Option<Network>) -> Arc<Self> {
        Arc::new(Self {
            most,
            counted,
            open: Mutex::default(),
        })
    }

    /// Counts a connection from an address; none when its network has all that it may have.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Open> {
        let Some((most, network)) = self.most.zip(address.and_then(self.counted)) else {
            return Some(Open(None));
        };
        let mut open = self.open();
        let count = open.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Open(Some((Arc::clone(self), network))))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some((networks, network)) = self.0.take() else {
            return;
        };
        let mut open = networks.open();
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_a_bounded_number_of_open_connections() {
        let networks = Networks::new(Some(2), counted);
        let enter = |address: &str| networks.enter(Some(address.parse().unwrap()));
        let (first, second) = (enter("203.0.113.1"), enter("::ffff:203.0.113.200"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("203.0.113.3").is_none());
        let other = enter("203.0.114.1");
        assert!(other.is_some());
        drop(first);
        let third = enter("203.0.113.3");
        assert!(third.is_some() && enter("203.0.113.3").is_none());
        let v6 = [enter("2001:db8:0:100::1"), enter("2001:db8:0:1ff::1")];
        assert!(v6.iter().all(Option::is_some) && enter("2001:db8:0:1aa::1").is_none());
        drop((second, third, other, v6));
        assert!(
            networks.open().is_empty(),
            "nothing is kept of connections that are closed"
        );
    }

    /// A proxy in front opens any number of connections.
    #[test]
    fn connections_of_proxies_are_not_counted() {
        let networks = Networks::new(Some(0), counted);
        for address in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(
                networks.enter(Some(address.parse().unwrap())).is_some(),
                "{address}"
            );
        }
        for address in ["100.63.255.255", "100.128.0.0", "8.8.8.8", "2001:db8::1"] {
            assert!(
                networks.enter(Some(address.parse().unwrap())).is_none(),
                "{address}"
            );
        }
        assert!(networks.enter(None).is_some());
        let unbounded = Networks::new(None, counted);
        assert!(unbounded.enter("8.8.8.8".parse().ok()).is_some());
    }
}
