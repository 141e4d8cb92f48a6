use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::header::{self, HeaderName, HeaderValue},
};
use tenantry_tenancy::tenant::access::ResolvedBy;

use crate::HttpConfig;
use crate::middleware::{limits, request::RequestContext};

/// Adds what every answer carries: the request id, by what the tenant was found, how the request
/// stands with its limits, and the headers that keep
/// browsers and caches from doing harm. What a handler has set itself stays.
pub(crate) fn harden(
    response: &mut HttpResponse,
    request: Option<&HttpRequest>,
    context: &RequestContext,
    config: &HttpConfig,
) {
    let mut set = |name: HeaderName, value: HeaderValue| {
        let headers = response.headers_mut();
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    };
    for (name, value) in ALWAYS {
        set(name, HeaderValue::from_static(value));
    }
    if config.hsts {
        set(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    if let Ok(id) = HeaderValue::from_str(context.id.as_str()) {
        set(HeaderName::from_static("x-request-id"), id);
    }
    if let Some(by) = request.and_then(|request| request.extensions().get::<ResolvedBy>().copied()) {
        set(
            HeaderName::from_static("tenant-resolved-by"),
            HeaderValue::from_static(name(by)),
        );
    }
    for (name, value) in request.and_then(limits::fields).into_iter().flatten() {
        set(name, value);
    }
}

/// An API has nothing to show, embed or cache; the pages for people relax this for themselves.
const ALWAYS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

const fn name(by: ResolvedBy) -> &'static str {
    match by {
        ResolvedBy::Credential => "credential",
        ResolvedBy::Header => "header",
        ResolvedBy::Subdomain => "subdomain",
        ResolvedBy::CustomDomain => "custom_domain",
        ResolvedBy::Body => "body",
    }
}
