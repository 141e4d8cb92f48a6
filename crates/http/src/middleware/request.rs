use actix_web::{HttpMessage, HttpRequest, http::header::HeaderMap};
use tenantry_domain::kernel::{IdSource, RequestId};
use tenantry_domain::operations::OperatorScope;
use tenantry_domain::tenant::{Actor, TenantScope};
use tenantry_tenancy::Traces;
use tracing::{Span, field};

use crate::ApiError;

/// What is known of a request from its first moment on; it lies in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// The `X-Request-ID`: the client's where valid, else a new one.
    pub id: RequestId,
    /// Its path, which is the `instance` of a problem.
    pub path: String,
    /// The template of its path, when it leads to a route.
    pub route: Option<String>,
    /// The span that every line logged on its behalf belongs to.
    pub span: Span,
}

impl RequestContext {
    /// The context of a request that has just come in.
    pub fn begin(request: &HttpRequest, ids: &dyn IdSource, traces: &dyn Traces) -> Self {
        let id = taken_over(request.headers()).unwrap_or_else(|| RequestId::next(ids));
        let route = request.match_pattern();
        let span = tracing::info_span!(
            "request",
            request_id = id.as_str(),
            tenant_id = field::Empty,
            user_id = field::Empty,
            operator_id = field::Empty,
            trace_id = trace_id(request.headers()),
            method = request.method().as_str(),
            route,
        );
        let parent = request.headers().get("traceparent");
        if let Some(parent) = parent.and_then(|parent| parent.to_str().ok()) {
            traces.adopt(&span, parent);
        }
        Self {
            id,
            path: request.path().to_owned(),
            route,
            span,
        }
    }

    /// The context of what could not be read as a request.
    pub fn unreadable(ids: &dyn IdSource) -> Self {
        Self {
            id: RequestId::next(ids),
            path: "/".into(),
            route: None,
            span: Span::none(),
        }
    }

    /// The context of a request.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let context = request.extensions().get::<Self>().cloned();
        context.ok_or_else(|| ApiError::wiring("a request did not pass the outermost middleware"))
    }

    /// Writes into the log fields which operator was admitted.
    pub fn identify_operator(&self, scope: &OperatorScope) {
        if let Some(operator) = scope.operator() {
            self.span.record("operator_id", field::display(operator));
        }
    }

    /// Writes into the log fields who was admitted, and where.
    pub fn identify(&self, scope: &TenantScope) {
        self.span.record("tenant_id", field::display(scope.tenant()));
        if let Actor::Operator { id, .. } = scope.actor() {
            self.span.record("operator_id", field::display(id));
        }
        if let Some(user) = scope.user() {
            self.span.record("user_id", field::display(user));
        }
    }
}

/// The caller's own id, when there is exactly one and it is sane.
fn taken_over(headers: &HeaderMap) -> Option<RequestId> {
    let mut given = headers.get_all("X-Request-ID");
    match (given.next(), given.next()) {
        (Some(id), None) => RequestId::parse(id.to_str().ok()?),
        _ => None,
    }
}

/// The trace that the caller's `traceparent` (W3C Trace Context) names.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = parent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let holds = version.len() == 2 && hex(version) && version != "ff";
    (holds && trace.len() == 32 && hex(trace) && trace.bytes().any(|b| b != b'0')).then_some(trace)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn takes_over_a_sane_request_id_only() {
        let of = |values: &[&str]| {
            let mut request = TestRequest::default();
            for value in values {
                request = request.append_header(("X-Request-ID", *value));
            }
            taken_over(request.to_http_request().headers()).map(|id| id.as_str().to_owned())
        };
        assert_eq!(of(&["abc-1"]), Some("abc-1".into()));
        assert_eq!(of(&["a b"]), None);
        assert_eq!(of(&["a", "b"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn reads_the_trace_id() {
        let of = |value: &str| {
            let request = TestRequest::default()
                .insert_header(("traceparent", value))
                .to_http_request();
            trace_id(request.headers()).map(str::to_owned)
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(&format!("00-{trace}-00f067aa0ba902b7-01")), Some(trace.into()));
        assert_eq!(
            of("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            None
        );
        assert_eq!(of("nonsense"), None);
    }
}
