use std::{future::Future, ops::Deref, pin::Pin};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, dev::Payload, error::PayloadError, http::header, web::BytesMut,
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tenantry_domain::kernel::{ErrorCode, Invalid};
use tokio::time::Instant;

use crate::connection::connection::Connection;
use crate::extract::{
    idempotency::note_body,
    json::{self, Checked, Unreadable},
    shape::{Leaves, Tree},
};
use crate::{Api, ApiError, middleware::limits};

/// A JSON object as a request body.
///
/// Use it with types that `deny_unknown_fields`. Everything in the body that does not fit the type is reported at once,
/// with members that are there twice, U+0000 and integers that 64 bits do not hold, wherever they are.
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

impl<T> Deref for Body<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            require_json(&request)?;
            let bytes = read(&request, payload).await?;
            let body = decode(&bytes)?;
            note_body(&request, &bytes);
            Ok(Self(body))
        })
    }
}

/// A JSON object as a request body that may be absent. An empty body counts as absent, whatever its type.
#[derive(Debug, Clone)]
pub struct OptionalBody<T>(pub Option<T>);

impl<T: DeserializeOwned + 'static> FromRequest for OptionalBody<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let bytes = read(&request, payload).await?;
            note_body(&request, &bytes);
            if bytes.is_empty() {
                return Ok(Self(None));
            }
            require_json(&request)?;
            Ok(Self(Some(decode(&bytes)?)))
        })
    }
}

pub(crate) fn require_json(request: &HttpRequest) -> Result<(), ApiError> {
    require_type(request, "application/json")
}

/// Refuses a body that is not of a JSON type. `wanted` are the types that the endpoint takes, as in `Accept`.
pub(crate) fn require_type(request: &HttpRequest, wanted: &'static str) -> Result<(), ApiError> {
    let refuse = || ApiError::new(ErrorCode::UnsupportedMediaType);
    let essence = request.content_type().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/");
    if !subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json")) {
        return Err(refuse()
            .with_detail(format!(
                "Send the body with one of these as Content-Type: {wanted}."
            ))
            .with_header(header::ACCEPT, header::HeaderValue::from_static(wanted)));
    }
    // A compressed body could be a thousand times as large as it looks.
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(refuse()
            .with_detail("Send the body without a Content-Encoding.")
            .with_header(
                header::ACCEPT_ENCODING,
                header::HeaderValue::from_static("identity"),
            )),
        _ => Ok(()),
    }
}

/// The whole body, which is paid for by its length.
pub(crate) async fn read(request: &HttpRequest, payload: Payload) -> Result<BytesMut, ApiError> {
    let bytes = read_to_end(request, payload).await?;
    limits::take_of_body(request, bytes.len()).await?;
    Ok(bytes)
}

async fn read_to_end(request: &HttpRequest, mut payload: Payload) -> Result<BytesMut, ApiError> {
    let api = Api::of(request)?;
    let limit = api.config.body_limit_bytes;
    let too_large = || {
        ApiError::new(ErrorCode::PayloadTooLarge)
            .with_detail(format!("The body may have up to {limit} bytes."))
    };
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large());
    }
    let connection = Connection::of(request);
    let timeout = api.config.body_timeout;
    let mut deadline = Instant::now() + timeout;
    let mut bytes = BytesMut::new();
    loop {
        let chunk = Connection::wait(connection.as_deref(), deadline, |cx| payload.poll_next_unpin(cx));
        let chunk = match chunk.await {
            Some(Some(chunk)) => chunk.map_err(broken_off)?,
            Some(None) => return Ok(bytes),
            None => return Err(ApiError::new(ErrorCode::RequestTimeout)),
        };
        if Instant::now() > deadline {
            // It came in time, and the server was late. The client may have waited for it.
            deadline = Instant::now() + timeout;
        }
        if bytes.len() + chunk.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
}

fn broken_off(error: PayloadError) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest)
        .with_detail("The body could not be read to its end.")
        .caused_by(error.to_string())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let Checked { value, errors } = checked(bytes)?;
    if !value.is_object() {
        return Err(Invalid::one("", "invalid_type", "must be an object").into());
    }
    let tree = Tree {
        value: &value,
        leaves: Leaves::Typed,
        root: "",
        size: bytes.len(),
    };
    Ok(tree.read(errors)?)
}

/// A body as a tree. One that is not JSON is that and nothing else, whatever its first fields may hold.
pub(crate) fn checked(bytes: &[u8]) -> Result<Checked, ApiError> {
    let malformed = |detail: String| ApiError::new(ErrorCode::MalformedJson).with_detail(detail);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(malformed("The body is empty.".into()));
    }
    json::read(bytes).map_err(|error| match error {
        Unreadable::TooDeep => Invalid::one("", "too_deep", error.to_string()).into(),
        Unreadable::Malformed(error) => malformed(format!("{error}.")),
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use tenantry_domain::kernel::{Patch, ProjectId};
    use tenantry_domain::work::TaskStatus;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether they can be read matters")]
    struct Sample {
        name: String,
        #[serde(default)]
        project_id: Patch<ProjectId>,
        #[serde(default)]
        status: Patch<TaskStatus>,
        #[serde(default)]
        inner: Inner,
        #[serde(default)]
        count: u32,
        #[serde(default)]
        list: Vec<bool>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether they can be read matters")]
    struct Inner {
        #[serde(rename = "a/b")]
        slashed: String,
    }

    fn errors_of(body: &str) -> (ErrorCode, Vec<(String, &'static str, String)>) {
        let error = decode::<Sample>(body.as_bytes()).unwrap_err();
        let fields = error
            .errors()
            .iter()
            .map(|e| (e.pointer.clone(), e.code, e.detail.clone()))
            .collect();
        (error.code(), fields)
    }

    #[test]
    fn every_complaint_has_a_pointer_and_a_code() {
        use ErrorCode::{UnknownField, ValidationFailed};
        let cases = [
            ("[]", ValidationFailed, "", "invalid_type", "must be an object"),
            ("\"x\"", ValidationFailed, "", "invalid_type", "must be an object"),
            ("{}", ValidationFailed, "/name", "required", "is required"),
            (
                r#"{"name":1}"#,
                ValidationFailed,
                "/name",
                "invalid_type",
                "must be a string",
            ),
            (
                r#"{"name":"a","list":[true],"count":1.5}"#,
                ValidationFailed,
                "/count",
                "invalid_type",
                "must be an integer in range",
            ),
            (
                r#"{"name":"a\u0000"}"#,
                ValidationFailed,
                "/name",
                "invalid_text",
                "must not contain U+0000",
            ),
            (
                r#"{"name":"a","count":18446744073709551616}"#,
                ValidationFailed,
                "/count",
                "invalid_value",
                "must be an integer of 64 bits; send a larger one as text",
            ),
            (
                r#"{"name":null}"#,
                ValidationFailed,
                "/name",
                "invalid_type",
                "must be a string",
            ),
            (
                r#"{"name":"a","name":"b"}"#,
                ValidationFailed,
                "/name",
                "duplicate_field",
                "is there more than once",
            ),
            (
                r#"{"name":"a","x/y":1}"#,
                UnknownField,
                "/x~1y",
                "unknown_field",
                "is not known here",
            ),
            (
                r#"{"name":"a","project_id":"b"}"#,
                ValidationFailed,
                "/project_id",
                "invalid_id",
                "must be a UUID",
            ),
            (
                r#"{"name":"a","count":-1}"#,
                ValidationFailed,
                "/count",
                "invalid_value",
                "must be an integer in range",
            ),
            (
                r#"{"name":"a","list":[true,2]}"#,
                ValidationFailed,
                "/list/1",
                "invalid_type",
                "must be a boolean",
            ),
            (
                r#"{"name":"a","inner":["b"]}"#,
                ValidationFailed,
                "/inner",
                "invalid_type",
                "must be an object",
            ),
            (
                r#"{"name":"a","inner":{}}"#,
                ValidationFailed,
                "/inner/a~1b",
                "required",
                "is required",
            ),
            (
                r#"{"name":"a","inner":{"a/b":1}}"#,
                ValidationFailed,
                "/inner/a~1b",
                "invalid_type",
                "must be a string",
            ),
            (
                r#"{"name":"a","inner":{"a/b":"x","c":1}}"#,
                UnknownField,
                "/inner/c",
                "unknown_field",
                "is not known here",
            ),
        ];
        for (body, code, pointer, field_code, detail) in cases {
            assert_eq!(
                errors_of(body),
                (code, vec![(pointer.into(), field_code, detail.into())]),
                "{body}"
            );
        }
        let (_, fields) = errors_of(r#"{"name":"a","status":"lost"}"#);
        let detail = "must be one of `todo`, `in_progress`, `done`, `cancelled`";
        assert_eq!(fields, [("/status".into(), "invalid_value", detail.into())]);
    }

    #[test]
    fn errors_of_all_kinds_are_reported_together() {
        let body = r#"{"name":"a\u0000","status":"lost","count":"x","inner":{"a/b":1,"a/b":2,"c":3},"d":4}"#;
        let (code, fields) = errors_of(body);
        let fields: Vec<_> = fields
            .iter()
            .map(|(pointer, code, _)| (pointer.as_str(), *code))
            .collect();
        assert_eq!(code, ErrorCode::ValidationFailed);
        assert_eq!(
            fields,
            [
                ("/count", "invalid_type"),
                ("/d", "unknown_field"),
                ("/inner/a~1b", "duplicate_field"),
                ("/inner/c", "unknown_field"),
                ("/name", "invalid_text"),
                ("/status", "invalid_value"),
            ]
        );
    }

    #[test]
    fn a_whole_fraction_is_an_integer() {
        for count in ["7.0", "7e0", "70e-1"] {
            let read = decode::<Sample>(format!(r#"{{"name":"a","count":{count}}}"#).as_bytes()).unwrap();
            assert_eq!(read.count, 7);
        }
    }

    #[test]
    fn what_is_no_json_is_malformed_whatever_it_begins_with() {
        for body in [
            "",
            " \n",
            "{",
            r#"{"unknown":1"#,
            r#"{"name":1} x"#,
            "nil",
            r#"{"name":"\ud800"}"#,
            "\u{feff}{}",
        ] {
            assert_eq!(errors_of(body), (ErrorCode::MalformedJson, vec![]), "{body}");
        }
        let error = decode::<Sample>(b"{\"name\":\"\xff\"}").unwrap_err();
        assert_eq!(error.code(), ErrorCode::MalformedJson);
        let deep = "[".repeat(100_000);
        assert_eq!(errors_of(&deep).0, ErrorCode::MalformedJson);
    }

    #[test]
    fn nothing_of_the_input_is_echoed() {
        let (_, fields) = errors_of(r#"{"name":{"secret":"hunter2"}}"#);
        assert!(!format!("{fields:?}").contains("secret"));
        let (_, fields) = errors_of(r#"{"name":"a","status":"hunter2, expected"}"#);
        assert!(!format!("{fields:?}").contains("hunter2"));
    }
}
