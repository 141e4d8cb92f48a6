//! The tower layer that admits callers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::{middleware::Next, response::Response};
use tenantry_domain::kernel::{ErrorCode, RequestId};
use tenantry_tenancy::tenant::access;
use tenantry_tenancy::{Cx, Origin, Tenancy};

use crate::Problem;

/// Admits the bearer of an access token or an API key, and leaves the context of its tenant in the request. Nothing of the body has
/// been read.
pub async fn authenticate(
    State(app): State<Arc<Tenancy>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let origin = Origin {
        ip: peer.map(|peer| peer.0.ip().to_string()),
        user_agent: None,
    };
    let credential = bearer(request.headers()).ok_or(ErrorCode::Unauthenticated)?;
    let id = RequestId::next(app.ports.ids.as_ref());
    let admission = access::admit(&app, credential, &origin, id).await?;
    let cx = Cx::new(app, admission.scope, origin);
    request.extensions_mut().insert(cx);
    Ok(next.run(request).await)
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
