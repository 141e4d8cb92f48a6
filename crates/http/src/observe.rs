use std::{any::Any, panic::AssertUnwindSafe, time::Instant};

use actix_web::{
    Error, HttpMessage, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{ConnectionType, StatusCode, header},
    middleware::Next,
    web::Data,
};
use futures_util::FutureExt;
use tenantry_domain::ErrorCode;
use tracing::Instrument;

use crate::{
    Api, ApiError, Problem, authenticate::Admitted, deadline::Unhurried, request::RequestContext, security,
};

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
        let started = Instant::now();
        let mut tenant = None;
        let method = request.method().clone();
        let unhurried = Unhurried::default();
        request.extensions_mut().insert(unhurried.clone());
        let answer = AssertUnwindSafe(next.call(request)).catch_unwind();
        let outcome = unhurried.within(api.settings.request_timeout, answer).await;
        let (answer, logged) = match outcome {
            Some(Ok(Ok(response))) => {
                let (request, response) = response.into_parts();
                let (mut response, code) = finish(response.map_into_boxed_body(), &context);
                security::harden(&mut response, Some(&request), &context, &api.settings);
                let status = response.status();
                tenant = request
                    .extensions()
                    .get::<Admitted>()
                    .map(|admitted| admitted.scope.tenant());
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
        api.metrics()
            .answered(method.as_str(), context.route, status, took, tenant);
        answer
    }
    .instrument(span)
    .await
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
    security::harden(&mut response, None, context, &api.settings);
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
        tracing::error!(code = code.as_str(), cause, "the request failed");
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
