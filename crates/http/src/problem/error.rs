use std::{borrow::Cow, error::Error as StdError, fmt};

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use tenantry_domain::kernel::{AsStoreError, ErrorCode, FieldError, KeptAnswer, KeyTaken, StoreError};

use crate::middleware::request::RequestContext;
use crate::{Excess, FactorNeeded, Problem};

/// The challenge (RFC 6750 section 3.1) for a token that was given but is no good.
pub(crate) const INVALID_TOKEN: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_token\"");

/// An error as it leaves the service: a code of the API, and what may be told about this occurrence.
///
/// It becomes a [`Problem`](crate::Problem) in the outermost middleware, where request id and path are known.
#[derive(Debug)]
pub struct ApiError {
    code: ErrorCode,
    detail: Cow<'static, str>,
    errors: Box<[FieldError]>,
    violated_policies: Box<[&'static str]>,
    excess: Option<Box<Excess>>,
    factor: Option<Box<FactorNeeded>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ApiError {
    /// An error of this code with the explanation that belongs to the code.
    pub fn new(code: ErrorCode) -> Self {
        let detail = Cow::Borrowed(code.about());
        Self {
            code,
            detail,
            errors: Box::default(),
            violated_policies: Box::default(),
            excess: None,
            factor: None,
            headers: Vec::new(),
            source: None,
        }
    }

    /// The service is put together wrongly: a 500, and `what` is for the log.
    pub fn wiring(what: &'static str) -> Self {
        Self::new(ErrorCode::Internal).caused_by(what)
    }

    /// Says what is wrong this time. A failure inside (5xx) never does.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Names the fields that do not hold.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors.into_boxed_slice();
        self
    }

    /// Names the rate limits that the request would have exceeded.
    #[must_use]
    pub fn with_violated_policies(mut self, policies: Vec<&'static str>) -> Self {
        self.violated_policies = policies.into_boxed_slice();
        self
    }

    /// Says of what it is too much.
    #[must_use]
    pub fn with_excess(mut self, excess: Excess) -> Self {
        self.excess = Some(Box::new(excess));
        self
    }

    /// An error for a request that needs a second factor: 401 at a login, 403 in a session.
    pub fn factor_needed(factor: FactorNeeded) -> Self {
        let mut error = Self::new(ErrorCode::MfaRequired);
        error.factor = Some(Box::new(factor));
        error
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Keeps the cause for the log; clients never see it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the stable error code of the problem.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What is wrong this time.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The fields that do not hold.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The rate limits that the request would have exceeded.
    pub fn violated_policies(&self) -> &[&'static str] {
        &self.violated_policies
    }

    /// Of what it is too much.
    pub fn excess(&self) -> Option<&Excess> {
        self.excess.as_deref()
    }

    /// Which second factor is needed.
    pub fn factor(&self) -> Option<&FactorNeeded> {
        self.factor.as_deref()
    }

    /// What stands for an answer that some other part of the stack gave without a problem document.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        Self::new(match status {
            StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorCode::Forbidden,
            StatusCode::NOT_FOUND => ErrorCode::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => ErrorCode::NotAcceptable,
            StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
            StatusCode::CONFLICT => ErrorCode::Conflict,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
            StatusCode::URI_TOO_LONG => ErrorCode::UriTooLong,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ErrorCode::HeadersTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
            StatusCode::UNPROCESSABLE_ENTITY => ErrorCode::ValidationFailed,
            StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
            StatusCode::SERVICE_UNAVAILABLE => ErrorCode::Unavailable,
            status if status.is_server_error() => ErrorCode::Internal,
            _ => ErrorCode::InvalidRequest,
        })
    }

    /// The whole answer to what is no request, as HTTP/1.1 writes it; then the connection is closed.
    pub(crate) fn as_last_answer(&self, context: &RequestContext) -> Vec<u8> {
        let problem = Problem::of(self, context);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             connection: close\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
             x-request-id: {}\r\n\r\n",
            body.len(),
            context.id.as_str()
        );
        [head.into_bytes(), body].concat()
    }

    /// The answer that was given when the request was done, when that is what kept it from being done again.
    pub(crate) fn kept_answer(&self) -> Option<&KeptAnswer> {
        match self.as_store_error() {
            Some(StoreError::Key(KeyTaken::Done(answer))) => Some(answer),
            _ => None,
        }
    }

    /// The cause and the causes of the cause, for the log.
    pub(crate) fn cause_chain(&self) -> String {
        let chain = std::iter::successors(StdError::source(self), |error| (*error).source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    /// The headers that the code asks for, and those that were added.
    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let dead_token = matches!(self.code, ErrorCode::TokenExpired | ErrorCode::TokenRevoked);
        let in_progress = self.code == ErrorCode::IdempotencyInProgress;
        let of_code = match self.status_code().as_u16() {
            401 if dead_token => Some((header::WWW_AUTHENTICATE, INVALID_TOKEN)),
            401 => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            503 => Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
            409 if in_progress => Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => None,
        };
        of_code.into_iter().chain(self.headers.iter().cloned())
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Units of work may fail with an [`ApiError`] of their own: contention is seen through it.
impl AsStoreError for ApiError {
    fn as_store_error(&self) -> Option<&StoreError> {
        self.source.as_deref()?.downcast_ref()
    }
}

impl ResponseError for ApiError {
    /// That of the code. A session that needs a recent second factor is no missing credential, so that is 403.
    fn status_code(&self) -> StatusCode {
        if let Some(FactorNeeded::Recent { .. } | FactorNeeded::Enrollment { .. }) = self.factor() {
            return StatusCode::FORBIDDEN;
        }
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Everything but the body, which the outermost middleware writes.
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::new(self.status_code());
        for (name, value) in self.headers() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_that_http_knows() {
        for code in ErrorCode::ALL {
            assert_eq!(ApiError::new(*code).status_code().as_u16(), code.status());
        }
    }

    #[test]
    fn a_status_of_the_framework_keeps_its_number_where_a_code_has_it() {
        for status in [
            401, 403, 404, 405, 406, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503,
        ] {
            let code = ApiError::of_status(StatusCode::from_u16(status).unwrap()).code();
            assert_eq!(code.status(), status);
        }
        assert_eq!(
            ApiError::of_status(StatusCode::BAD_GATEWAY).code(),
            ErrorCode::Internal
        );
        assert_eq!(
            ApiError::of_status(StatusCode::IM_A_TEAPOT).code(),
            ErrorCode::InvalidRequest
        );
    }

    #[test]
    fn the_cause_chain_names_every_cause() {
        let error = ApiError::new(ErrorCode::Internal).caused_by(ApiError::wiring("inner"));
        assert_eq!(
            error.cause_chain(),
            format!("internal: {}: inner", ErrorCode::Internal.about())
        );
    }
}
