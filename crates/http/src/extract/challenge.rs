use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header::HeaderValue};
use tenantry_domain::kernel::ErrorCode;
use tenantry_tenancy::identity::challenge::ChallengeResponse;
use utoipa::IntoParams;

use crate::ApiError;

/// The header with the response to a challenge.
const HEADER: &str = "challenge-response";
/// The longest response, in bytes: the tokens of providers have up to 4,096.
const LONGEST: usize = 4_096;

/// The response to a challenge that a request brings, if it brings one.
pub(crate) struct Response(pub ChallengeResponse);

/// The header with the response to a challenge.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes what `Response` reads")]
pub(crate) struct ChallengeHeader {
    /// The response to the challenge of `GET /auth/challenge`, where that says that one is required.
    #[param(rename = "Challenge-Response", max_length = 4096)]
    response: Option<String>,
}

impl FromRequest for Response {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request))
    }
}

fn read(request: &HttpRequest) -> Result<Response, ApiError> {
    let invalid = |detail| Err(ApiError::new(ErrorCode::InvalidRequest).with_detail(detail));
    let mut values = request.headers().get_all(HEADER);
    let first = values.next();
    if values.next().is_some() {
        return invalid("Challenge-Response must be there once.");
    }
    match first.map(HeaderValue::to_str) {
        None => Ok(Response(ChallengeResponse(None))),
        Some(Ok(text)) if text.len() <= LONGEST => Ok(Response(ChallengeResponse(Some(text.to_owned())))),
        Some(_) => invalid("Challenge-Response must be visible ASCII of up to 4,096 characters."),
    }
}
