use std::{any::Any, panic::AssertUnwindSafe, rc::Rc, task::Poll, time::Instant};

use actix_web::{
    Error, HttpMessage, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{ConnectionType, Method, StatusCode, header},
    middleware::Next,
    web::Data,
};
use futures_util::{FutureExt, StreamExt as _, stream::poll_fn};
use tenantry_domain::kernel::ErrorCode;
use tracing::Instrument;

use crate::app::api::METHODS;
use crate::connection::connection::Connection;
use crate::extract::hints;
use crate::middleware::{
    authenticate::Admitted, deadline::RequestDeadline, request::RequestContext, security,
};
use crate::{Api, ApiError, Problem};

/// An error answer that is meant as it is and not to be made a problem document.
pub(crate) struct Verbatim;

/// The outermost middleware. It opens the request's span, makes every error a problem document, a panic
/// included, adds the headers that every answer has, and writes the one line of the access log.
pub(crate) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let api = Api::of(request.request())?;
    let context = RequestContext::begin(
        request.request(),
        api.app.ports.ids.as_ref(),
        api.app.ports.traces.as_ref(),
    );
    request.extensions_mut().insert(context.clone());
    let span = context.span.clone();
    async move {
        let connection = Connection::of(request.request());
        let under_way = connection.as_ref().map(Connection::begin);
        if let Some(connection) = connection.as_ref().filter(|connection| connection.is_http1()) {
            connection.turn().await;
        }
        let started = Instant::now();
        let mut tenant = None;
        let method = request.method().clone();
        let deadline = RequestDeadline::default();
        request.extensions_mut().insert(deadline.clone());
        let outcome = match refused(&request) {
            Some(error) => Some(Ok(Ok(request.error_response(error).map_into_boxed_body()))),
            None => {
                let request = follow_body(request, connection);
                let answer = AssertUnwindSafe(async {
                    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
                });
                deadline
                    .within(api.config.request_timeout, answer.catch_unwind())
                    .await
            }
        };
        let (answer, logged) = match outcome {
            Some(Ok(Ok(response))) => {
                let (request, response) = response.into_parts();
                let (mut response, code) = finish(courteous(&request, response), &context);
                security::harden(&mut response, Some(&request), &context, &api.config);
                let status = response.status();
                tenant = request
                    .extensions()
                    .get::<Admitted>()
                    .map(|admitted| admitted.scope.tenant());
                let response = match under_way {
                    Some(way) => response.map_body(|_, body| way.until_sent(body)),
                    None => response,
                };
                (Ok(ServiceResponse::new(request, response)), (status, code))
            }
            // Here the request is lost, and with it whatever a response could be tied to.
            Some(Ok(Err(error))) => give_up(HttpResponse::from_error(error), &context, &api),
            None => give_up(HttpResponse::from_error(late()), &context, &api),
            Some(Err(panic)) => give_up(HttpResponse::from_error(panicked(panic.as_ref())), &context, &api),
        };
        let (took, status) = (started.elapsed(), logged.0.as_u16());
        let duration_ms = took.as_secs_f64() * 1000.0;
        let code = logged.1.map(ErrorCode::as_str);
        tracing::info!(status, duration_ms, code, "request");
        if let Some(code) = logged.1 {
            api.metrics().refused(code);
        }
        api.metrics()
            .answered(method.as_str(), context.route, status, took, tenant);
        answer
    }
    .instrument(span)
    .await
}

/// The longest target of a request, in bytes. RFC 9110 section 4.1 asks for 8,000 at the least.
pub(crate) const LONGEST_TARGET: usize = 8_192;

/// What keeps a request from any route.
fn refused(request: &ServiceRequest) -> Option<ApiError> {
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > LONGEST_TARGET) {
        return Some(ApiError::new(ErrorCode::UriTooLong));
    }
    hints::host(request.request()).err()
}

/// Lets the connection know how the body is read. A client that waits for `100 Continue` is told to send the body when
/// something begins to read it, and not before: that is after authentication.
fn follow_body(mut request: ServiceRequest, connection: Option<Rc<Connection>>) -> ServiceRequest {
    let Some(connection) = connection.filter(|connection| connection.is_http1()) else {
        return request;
    };
    let mut payload = match request.take_payload() {
        Payload::None => return request,
        payload => payload,
    };
    connection.has_body();
    let expects = request.headers().get(header::EXPECT);
    let mut expects = expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects {
        connection.withhold_continue();
    }
    let reading = poll_fn(move |cx| {
        if std::mem::take(&mut expects) {
            connection.want_body();
        }
        let chunk = payload.poll_next_unpin(cx);
        if let Poll::Ready(chunk) = &chunk {
            connection.used_body(chunk.is_none());
        }
        chunk
    });
    request.set_payload(Payload::Stream {
        payload: Box::pin(reading),
    });
    request
}

/// A path with a slash too many leads to the one without, and OPTIONS says what may be done at a path.
fn courteous(request: &HttpRequest, mut response: HttpResponse) -> HttpResponse {
    // It only kept an answer from being compressed.
    let coding = response.headers().get(header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| coding == "identity") {
        response.headers_mut().remove(header::CONTENT_ENCODING);
    }
    if let Some(allowed) = allowed(request, &response) {
        return HttpResponse::NoContent()
            .insert_header((header::ALLOW, allowed))
            .finish();
    }
    let uri = request.uri();
    let path = uri.path().trim_end_matches('/');
    let surplus = path.len() < uri.path().len() && path.starts_with('/') && !path.starts_with("//");
    if response.status() == StatusCode::NOT_FOUND
        && surplus
        && request.match_pattern().is_none()
        && request.resource_map().has_resource(path)
    {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        return HttpResponse::PermanentRedirect()
            .insert_header((header::LOCATION, format!("{path}{query}")))
            .finish();
    }
    response
}

/// The methods that OPTIONS is answered with: those of the path, or of the server where it asks for `*` (RFC 9110 section 9.3.7).
fn allowed(request: &HttpRequest, response: &HttpResponse) -> Option<String> {
    if *request.method() != Method::OPTIONS {
        return None;
    }
    match response.status() {
        StatusCode::NOT_FOUND if request.path() == "*" => {
            Some(METHODS.map(|method| method.to_string()).join(", "))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let of_path = response.headers().get(header::ALLOW);
            let of_path = of_path.and_then(|allow| allow.to_str().ok());
            Some(of_path.map_or_else(|| "OPTIONS".to_owned(), |allow| format!("{allow}, OPTIONS")))
        }
        _ => None,
    }
}

fn late() -> ApiError {
    ApiError::new(ErrorCode::Unavailable).caused_by("the request took longer than http.request_timeout_ms")
}

/// What the access log says of an answer.
type Logged = (StatusCode, Option<ErrorCode>);

fn give_up(
    response: HttpResponse,
    context: &RequestContext,
    api: &Data<Api>,
) -> (Result<ServiceResponse<BoxBody>, Error>, Logged) {
    let (mut response, code) = finish(response, context);
    security::harden(&mut response, None, context, &api.config);
    let logged = (response.status(), code);
    (
        Err(InternalError::from_response("the request failed", response).into()),
        logged,
    )
}

/// The answer with its body made a problem document when it is an error; and which.
fn finish(response: HttpResponse, context: &RequestContext) -> (HttpResponse, Option<ErrorCode>) {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    if !failed || response.extensions().contains::<Verbatim>() {
        return (response, None);
    }
    let of_framework = ApiError::of_status(response.status());
    let error = response.error();
    let ours = error.and_then(Error::as_error::<ApiError>);
    let problem = Problem::of(ours.unwrap_or(&of_framework), context);
    let code = ours.unwrap_or(&of_framework).code();
    if problem.status >= 500 {
        let cause = ours
            .map(ApiError::cause_chain)
            .or_else(|| error.map(ToString::to_string));
        // An error is what needs mending here. Callers can bring about the others at will, and each is counted.
        match (code, &cause) {
            (ErrorCode::Internal, _) => tracing::error!(code = code.as_str(), cause, "the request failed"),
            (_, Some(cause)) if !cause.is_empty() => {
                tracing::info!(code = code.as_str(), cause, "the request was refused");
            }
            _ => tracing::debug!(code = code.as_str(), "the request was refused"),
        }
    }
    let mut answer = with_problem(response, &problem);
    if code == ErrorCode::RequestTimeout {
        // The rest of the body would be taken for the next request.
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    (answer, Some(code))
}

/// Keeps the headers (`Allow`, `Retry-After`, those of CORS) and replaces status and body.
fn with_problem(response: HttpResponse, problem: &Problem) -> HttpResponse {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = response.set_body(BoxBody::new(body));
    if let Ok(status) = StatusCode::from_u16(problem.status) {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/problem+json"),
    );
    response
}

fn panicked(panic: &(dyn Any + Send)) -> ApiError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    ApiError::new(ErrorCode::Internal).caused_by(format!("panic: {}", text.unwrap_or("without a message")))
}
