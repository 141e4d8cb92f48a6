use actix_web::{Error, body::BoxBody, dev::ServiceResponse, http::StatusCode};
use tenantry_domain::kernel::ErrorCode;

use crate::ApiError;

/// Whether an answer refuses what the caller may not see or do, or what does not exist. A suspended tenant, a missing second factor or a
/// plan refuse what the caller may do otherwise: a client that asks again looks for nothing.
pub(super) fn is_probe(response: &ServiceResponse<BoxBody>) -> bool {
    let code = response
        .response()
        .error()
        .and_then(Error::as_error::<ApiError>)
        .map(ApiError::code);
    match response.status() {
        StatusCode::FORBIDDEN => code.is_none_or(|code| code == ErrorCode::Forbidden),
        StatusCode::NOT_FOUND => code.is_none_or(|code| code == ErrorCode::NotFound),
        _ => false,
    }
}
