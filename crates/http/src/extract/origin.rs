use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderValue},
};
use tenantry_tenancy::Origin;

use crate::Api;

/// From where a request came. A proxy's word on the address is taken only when the operator says that there
/// is one.
pub(crate) fn of(request: &HttpRequest, api: &Api) -> Origin {
    let ip = address(request, api);
    let user_agent = request.headers().get(header::USER_AGENT).map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.chars().filter(|c| !c.is_control()).take(256).collect()
    });
    Origin {
        ip: ip.map(|ip| ip.to_string()),
        user_agent,
    }
}

/// The caller's address; `None` where there is none, as on a Unix socket, or behind a proxy that does not say it so that it can
/// be read.
pub(crate) fn address(request: &HttpRequest, api: &Api) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|peer| peer.ip());
    if api.settings.trust_forwarded_for {
        return match request.headers().get_all(header::X_FORWARDED_FOR).last() {
            Some(hops) => last_hop(hops),
            None => peer,
        };
    }
    api.untrusted_proxy.notice(request, peer);
    peer
}

/// Whether requests have come through a proxy whose word on addresses is not taken. All its callers then share the bounds of
/// one address.
#[derive(Debug, Default)]
pub(crate) struct UntrustedProxy(AtomicBool);

impl UntrustedProxy {
    /// Logs the first request with a forwarding header. Any caller can send one, so it is logged once.
    fn notice(&self, request: &HttpRequest, peer: Option<IpAddr>) {
        let is_forwarded = || {
            let headers = [header::X_FORWARDED_FOR, header::FORWARDED];
            headers.iter().any(|name| request.headers().contains_key(name))
        };
        if !self.0.load(Ordering::Relaxed) && is_forwarded() && !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                "a request has a forwarding header, which is ignored: behind a proxy all callers share the limits of its \
                 address; set http.trust_forwarded_for if a proxy of yours sets X-Forwarded-For"
            );
        }
    }
}

/// The last entry is the only one that our own proxy has written; those before it are the caller's claims. It may have a port. An
/// entry that is no address is not replaced by the proxy's: a key that may be used in the proxy's network would be open to all.
fn last_hop(hops: &HeaderValue) -> Option<IpAddr> {
    let last = hops.to_str().ok()?.rsplit(',').next()?.trim();
    let bare = last.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let with_port = || last.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.unwrap_or(last).parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::{HttpSettings, testing::api};

    #[test]
    fn a_forwarded_address_counts_only_when_trusted() {
        let api = |trust_forwarded_for| {
            api(HttpSettings {
                trust_forwarded_for,
                ..HttpSettings::default()
            })
        };
        let request = TestRequest::default()
            .peer_addr(([10, 0, 0, 1], 4711).into())
            .append_header((header::X_FORWARDED_FOR, "1.1.1.1, 2.2.2.2"))
            .append_header((header::USER_AGENT, "x".repeat(300)))
            .to_http_request();
        assert_eq!(of(&request, &api(false)).ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(of(&request, &api(true)).ip.as_deref(), Some("2.2.2.2"));
        assert_eq!(
            of(&request, &api(true)).user_agent.map(|agent| agent.len()),
            Some(256)
        );
    }

    #[test]
    fn unreadable_hop_is_not_the_proxy() {
        let api = api(HttpSettings {
            trust_forwarded_for: true,
            ..HttpSettings::default()
        });
        let peer = ([10, 0, 0, 1], 4711).into();
        for (hops, address) in [
            ("198.51.100.7:5678", Some("198.51.100.7")),
            ("10.0.0.9, [2001:db8::1]:80", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("1.1.1.1, unknown", None),
            ("1.1.1.1,", None),
            ("_hidden", None),
            ("", None),
            ("1.2.3.4:99999", None),
            ("[10.0.0.9]x", None),
        ] {
            let request = TestRequest::default().peer_addr(peer);
            let request = request.append_header((header::X_FORWARDED_FOR, hops));
            let origin = of(&request.to_http_request(), &api);
            assert_eq!(origin.ip.as_deref(), address, "{hops}");
        }
        let direct = TestRequest::default().peer_addr(peer).to_http_request();
        assert_eq!(of(&direct, &api).ip.as_deref(), Some("10.0.0.1"));
    }
}
