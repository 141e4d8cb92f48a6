//! Errors as problem documents (RFC 9457).

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tenantry_domain::kernel::{ErrorCode, Failure, FieldError, Invalid};

/// An error of a request.
#[derive(Debug)]
pub struct Problem(Failure);

impl<E: Into<Failure>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Failure { code, fields, cause } = self.0;
        if code.status() >= 500 {
            tracing::error!(?cause, code = code.as_str(), "request failed");
        }
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({
            "type": format!("/problems/{}", code.as_str()), "title": code.title(), "status": code.status(),
            "detail": code.about(), "code": code.as_str(), "errors": fields.iter().map(field).collect::<Value>(),
        });
        let mut response = (status, Json(body)).into_response();
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn field(field: &FieldError) -> Value {
    json!({"pointer": field.pointer, "code": field.code, "detail": field.detail})
}

/// A body that cannot be read.
pub fn unreadable(rejection: JsonRejection) -> Failure {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge.into(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType.into(),
        StatusCode::UNPROCESSABLE_ENTITY => Invalid::one("", "invalid", rejection.body_text()).into(),
        _ => ErrorCode::MalformedJson.into(),
    }
}
