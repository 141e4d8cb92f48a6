use std::net::IpAddr;

use actix_web::{HttpRequest, http::header};
use tenantry_tenancy::Origin;

use crate::Api;

/// From where a request came. A proxy's word on the address is taken only when the operator says that there
/// is one.
pub(crate) fn of(request: &HttpRequest, api: &Api) -> Origin {
    let user_agent = request.headers().get(header::USER_AGENT);
    Origin::of_request(
        address(request, api),
        user_agent.map(header::HeaderValue::as_bytes),
    )
}

/// The caller's address; `None` where there is none, as on a Unix socket, or behind a proxy that does not say it so that it can
/// be read.
pub(crate) fn address(request: &HttpRequest, api: &Api) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let forwarded_for = request.headers().get_all(header::X_FORWARDED_FOR).last();
    if request.headers().contains_key(header::FORWARDED) {
        api.forwarding.notice(peer);
    }
    api.forwarding
        .caller(peer, forwarded_for.map(header::HeaderValue::as_bytes))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::{HttpConfig, testing::api};

    #[test]
    fn a_forwarded_address_counts_only_when_trusted() {
        let api = |trust_forwarded_for| {
            api(HttpConfig {
                trust_forwarded_for,
                ..HttpConfig::default()
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
        let api = api(HttpConfig {
            trust_forwarded_for: true,
            ..HttpConfig::default()
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
