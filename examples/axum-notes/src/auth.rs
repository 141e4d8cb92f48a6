//! The tower layer that admits callers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::{middleware::Next, response::Response};
use tenantry_domain::kernel::{ErrorCode, RequestId};
use tenantry_tenancy::tenant::access;
use tenantry_tenancy::{Cx, Forwarding, Origin, Tenancy};

use crate::Problem;

/// Admits the bearer of an access token or an API key, and leaves the context of its tenant in the request. Nothing of the body has
/// been read.
pub async fn authenticate(
    State((app, forwarding)): State<(Arc<Tenancy>, Arc<Forwarding>)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let origin = origin(&request, &forwarding);
    let credential = bearer(request.headers()).ok_or(ErrorCode::Unauthenticated)?;
    let id = RequestId::next(app.ports.ids.as_ref());
    let admission = access::admit(&app, credential, &origin, id).await?;
    let cx = Cx::new(app, admission.scope, origin);
    request.extensions_mut().insert(cx);
    Ok(next.run(request).await)
}

/// From where the request came: API keys may be bound to networks.
fn origin(request: &Request, forwarding: &Forwarding) -> Origin {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let headers = request.headers();
    let hops = headers.get_all("x-forwarded-for").iter().next_back();
    let caller = forwarding.caller(peer.map(|peer| peer.0.ip()), hops.map(HeaderValue::as_bytes));
    let agent = headers.get(header::USER_AGENT);
    Origin::of_request(caller, agent.map(HeaderValue::as_bytes))
}

/// The credential of the one `Authorization: Bearer ...`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (one, None) = (given.next()?, given.next()) else {
        return None;
    };
    let (scheme, credential) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(credential.trim())
}
