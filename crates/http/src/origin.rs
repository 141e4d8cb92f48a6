use std::net::IpAddr;

use actix_web::{HttpRequest, http::header};
use tenantry_tenancy::Origin;

/// From where a request came. A proxy's word on the address is taken only when the operator says that there
/// is one.
pub(crate) fn of(request: &HttpRequest, trust_forwarded_for: bool) -> Origin {
    let ip = address(request, trust_forwarded_for);
    let user_agent = request.headers().get(header::USER_AGENT).map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.chars().filter(|c| !c.is_control()).take(256).collect()
    });
    Origin {
        ip: ip.map(|ip| ip.to_string()),
        user_agent,
    }
}

/// The caller's address; `None` where there is none, as on a Unix socket.
pub(crate) fn address(request: &HttpRequest, trust_forwarded_for: bool) -> Option<IpAddr> {
    let forwarded = if trust_forwarded_for {
        last_hop(request)
    } else {
        None
    };
    forwarded.or_else(|| request.peer_addr().map(|peer| peer.ip()))
}

/// The last entry is the only one that our own proxy has written; those before it are the caller's claims.
fn last_hop(request: &HttpRequest) -> Option<IpAddr> {
    let last = request
        .headers()
        .get_all(header::X_FORWARDED_FOR)
        .last()?
        .to_str()
        .ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_forwarded_address_counts_only_when_trusted() {
        let request = TestRequest::default()
            .peer_addr(([10, 0, 0, 1], 4711).into())
            .append_header((header::X_FORWARDED_FOR, "1.1.1.1, 2.2.2.2"))
            .append_header((header::USER_AGENT, "x".repeat(300)))
            .to_http_request();
        assert_eq!(of(&request, false).ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(of(&request, true).ip.as_deref(), Some("2.2.2.2"));
        assert_eq!(of(&request, true).user_agent.map(|agent| agent.len()), Some(256));
    }
}
