use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

/// Finds the address of a caller, with or without a proxy in front of the service. One value for a process.
///
/// ```
/// use tenantry_tenancy::Forwarding;
///
/// let (proxy, header) = ("10.0.0.1".parse().ok(), "203.0.113.9, 198.51.100.7:5678");
/// let behind_a_proxy = Forwarding::new(true);
/// assert_eq!(behind_a_proxy.caller(proxy, Some(header.as_bytes())), "198.51.100.7".parse().ok());
/// assert_eq!(Forwarding::new(false).caller(proxy, Some(header.as_bytes())), proxy);
/// ```
#[derive(Debug, Default)]
pub struct Forwarding {
    trusted: bool,
    noticed: AtomicBool,
}

impl Forwarding {
    /// `trusted` means that all requests come through a proxy of the operator's, which sets `X-Forwarded-For`
    /// (`http.trust_forwarded_for`).
    pub fn new(trusted: bool) -> Self {
        Self {
            trusted,
            noticed: AtomicBool::new(false),
        }
    }

    /// Returns the caller's address. `peer` is the other end of the connection; `forwarded_for` is the value of the last
    /// `X-Forwarded-For` of the request.
    ///
    /// Of a trusted header the last entry counts, which is the only one that the operator's proxy has written; those before it are
    /// the caller's claims. `None` where the entry is no address: it is not replaced by the proxy's, since a key that is allowed in
    /// the proxy's network would be open to all.
    pub fn caller(&self, peer: Option<IpAddr>, forwarded_for: Option<&[u8]>) -> Option<IpAddr> {
        match forwarded_for {
            Some(hops) if self.trusted => last_hop(hops),
            Some(_) => {
                self.notice(peer);
                peer
            }
            None => peer,
        }
    }

    /// Logs once that requests have a forwarding header which is ignored. Any caller can send one.
    pub fn notice(&self, peer: Option<IpAddr>) {
        if self.trusted || self.noticed.load(Ordering::Relaxed) || self.noticed.swap(true, Ordering::Relaxed)
        {
            return;
        }
        tracing::warn!(
            peer = peer.map(tracing::field::display),
            "a request has a forwarding header, which is ignored: behind a proxy all callers share the limits of its \
             address; set http.trust_forwarded_for if a proxy of yours sets X-Forwarded-For"
        );
    }
}

/// The last entry of `X-Forwarded-For`, which may have a port.
fn last_hop(hops: &[u8]) -> Option<IpAddr> {
    let hops = std::str::from_utf8(hops).ok()?;
    let last = hops.rsplit(',').next()?.trim();
    let bare = last.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let with_port = || last.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.unwrap_or(last).parse().ok().or_else(with_port)
}
