use std::{
    future::{Ready, ready},
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder,
    body::MessageBody,
    dev::Payload,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue},
    },
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tenantry_domain::kernel::{ErrorCode, KeptAnswer, Role, UserId};
use tenantry_domain::operations::RequestKey;
use tenantry_domain::tenant::Refused;
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::idempotency::{KeyedRegistration, KeyedRequest, OperatorRequest};
use utoipa::{
    IntoParams,
    openapi::{
        ObjectBuilder, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use crate::extract::hints;
use crate::{Answer, ApiError};

/// The header that says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How many characters a key has at the least where no credential is needed to get the stored response.
const UNGUESSABLE: usize = 16;

/// `Idempotency-Key`: the name that a caller gives to a request, to send it again without having it done again
/// (draft-ietf-httpapi-idempotency-key-header).
///
/// Every handler of a POST that makes something takes it, before the body, and answers through [`Self::once`]. For a
/// day the key stands for this request of this user at this route.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    key: Option<String>,
    request: HttpRequest,
}

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request).map(|key| Self {
            key,
            request: request.clone(),
        }))
    }
}

impl IdempotencyKey {
    /// Does the work and answers, or gives the answer of the first time. Without the header it is done each time.
    ///
    /// The work is one use case, which stores everything in one [`Cx::write`] and returns what that returns; the
    /// answer is made of it, and kept with it. What fails is undone and not kept.
    ///
    /// # Errors
    /// Those of the work; `idempotency_in_progress` while the first request runs, and `idempotency_key_reused` when
    /// the key stands for another request.
    pub async fn once<T: Clone + 'static, E: Into<ApiError>>(
        self,
        cx: &Cx,
        work: impl AsyncFnOnce(&Cx) -> Result<T, E>,
        answer: impl Fn(T) -> HttpResponse + Send + Sync + 'static,
    ) -> Answer {
        let Some(keyed) = self.keyed(cx)? else {
            return work(cx).await.map(answer).map_err(Into::into);
        };
        let answer = Arc::new(answer);
        let kept = Arc::clone(&answer);
        let cx = cx.once(keyed, move |done: T| keep(kept(done)));
        settle(work(&cx).await, |done| answer(done))
    }

    /// As [`Self::once`], for a request without a credential that creates its user: whose e-mail address the request has,
    /// and which the result of the work names. The key is the only secret that a repetition shows, so it has at least
    /// [`UNGUESSABLE`] characters.
    ///
    /// # Errors
    /// See [`Self::once`]; `invalid_request` for a shorter key.
    pub(crate) async fn once_registered<T: Clone + 'static, E: Into<ApiError>>(
        self,
        cx: &Cx,
        email: String,
        user: fn(&T) -> UserId,
        work: impl AsyncFnOnce(&Cx) -> Result<T, E>,
        answer: impl Fn(T) -> HttpResponse + Send + Sync + 'static,
    ) -> Answer {
        let Some(key) = self.key.clone() else {
            return work(cx).await.map(answer).map_err(Into::into);
        };
        if key.len() < UNGUESSABLE {
            let detail = "Idempotency-Key must have at least 16 characters here, because no credential protects the response: use a UUID.";
            return Err(ApiError::new(ErrorCode::InvalidRequest).with_detail(detail));
        }
        let keyed = KeyedRegistration {
            email,
            route: self.route()?,
            key,
            fingerprint: fingerprint(&self.request),
        };
        let answer = Arc::new(answer);
        let kept = Arc::clone(&answer);
        let cx = cx.once_registered(keyed, user, move |done: T| keep(kept(done)));
        settle(work(&cx).await, |done| answer(done))
    }

    /// The key as the record of an operator's event has it, `None` without the header.
    ///
    /// # Errors
    /// `internal` where the path has no template.
    pub(crate) fn of_operator(&self) -> Result<Option<OperatorRequest>, ApiError> {
        let request = self.key.clone().map(|key| {
            Ok::<_, ApiError>(OperatorRequest {
                route: self.route()?,
                key,
                fingerprint: fingerprint(&self.request),
            })
        });
        request.transpose()
    }

    /// Method and path template.
    fn route(&self) -> Result<String, ApiError> {
        let template = self
            .request
            .match_pattern()
            .ok_or_else(|| ApiError::wiring("a handler runs at a path without a template"))?;
        Ok(format!("{} {template}", self.request.method()))
    }

    /// The key with all that it stands for.
    fn keyed(&self, cx: &Cx) -> Result<Option<KeyedRequest>, ApiError> {
        let Some(key) = self.key.clone() else {
            return Ok(None);
        };
        let scope = cx.scope();
        let (route, role) = match scope.api_key() {
            // Keys share idempotency keys neither with one another nor with their creator.
            Some(id) => (format!("{} api_key {id}", self.route()?), Some(Role::Viewer)),
            None => match scope.support_access() {
                // Nor does an operator see what the admin who has approved the access was answered.
                Some(id) => (format!("{} support {id}", self.route()?), scope.role()),
                None => (self.route()?, scope.role()),
            },
        };
        let user = scope.author().ok_or(Refused::Forbidden)?;
        Ok(Some(KeyedRequest {
            key: RequestKey { user, route, key },
            role: role.ok_or(Refused::Forbidden)?,
            fingerprint: fingerprint(&self.request),
        }))
    }
}

/// Answers with the result of the work, or with the stored response when the work was done before.
fn settle<T, E: Into<ApiError>>(done: Result<T, E>, answer: impl FnOnce(T) -> HttpResponse) -> Answer {
    let failed = match done {
        Ok(done) => return Ok(answer(done)),
        Err(error) => error.into(),
    };
    match failed.kept_answer() {
        Some(kept) => replay(kept),
        None => Err(failed),
    }
}

/// Marks a response as that of an earlier request.
pub(crate) fn replayed(mut response: HttpResponse) -> HttpResponse {
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(REPLAYED, replayed);
    response
}

/// SHA-256 of a body, in the extensions of a request that has a key.
struct BodyDigest([u8; 32]);

/// Notes what the body of a request says, for the fingerprint. The order of its members and the spaces between them
/// say nothing.
pub(crate) fn note_body(request: &HttpRequest, json: &[u8]) {
    if request.headers().contains_key("Idempotency-Key") {
        let mut canonical: Value = serde_json::from_slice(json).unwrap_or_default();
        canonical.sort_all_objects();
        let digest = Sha256::digest(canonical.to_string().as_bytes());
        request.extensions_mut().insert(BodyDigest(digest.into()));
    }
}

/// Of method, path and body. Neither method nor path can hold a line feed, so where each ends is clear.
fn fingerprint(request: &HttpRequest) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n", request.method(), request.path()));
    if let Some(BodyDigest(body)) = request.extensions().get() {
        hash.update(body);
    }
    hash.finalize().into()
}

fn read(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let malformed = || {
        ApiError::new(ErrorCode::InvalidRequest).with_detail(
            "Idempotency-Key must be 1 to 255 printable ASCII characters, either in double quotes \
             or bare and then without spaces and quotes.",
        )
    };
    let text = hints::single(request.headers(), "Idempotency-Key")?;
    text.map(|text| parse(text).ok_or_else(malformed)).transpose()
}

/// A string (RFC 8941 section 3.3.3), or a bare token, as many clients send it.
fn parse(text: &str) -> Option<String> {
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted.strip_suffix('"')?)?,
        None if text.bytes().all(|b| b.is_ascii_graphic() && b != b'"') => text.to_owned(),
        None => return None,
    };
    (1..=255).contains(&key.len()).then_some(key)
}

/// What is between the quotes, where quotes and backslashes, and nothing else, have a backslash before them.
fn unquote(text: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        key.push(match character {
            '\\' => characters.next().filter(|c| matches!(c, '"' | '\\'))?,
            '"' => return None,
            ' '..='~' => character,
            _ => return None,
        });
    }
    Some(key)
}

/// What there is to keep of an answer; `None` for a body that is not at hand but streamed.
fn keep(response: HttpResponse) -> Option<KeptAnswer> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    Some(KeptAnswer {
        status: response.status().as_u16(),
        headers: response.headers().iter().map(header).collect::<Option<_>>()?,
        body: response.into_body().try_into_bytes().ok()?.to_vec(),
    })
}

fn replay(kept: &KeptAnswer) -> Answer {
    let status = StatusCode::from_u16(kept.status);
    let status =
        status.map_err(|_| ApiError::wiring("a kept answer has a status that HTTP does not know"))?;
    let mut response = HttpResponseBuilder::new(status);
    for (name, value) in &kept.headers {
        response.insert_header((name.as_str(), value.as_str()));
    }
    Ok(replayed(response.body(kept.body.clone())))
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![parameter(1)]
    }
}

/// Describes the key of a request without a credential; see [`IdempotencyKey::once_registered`].
pub(crate) struct UnguessableKey;

impl IntoParams for UnguessableKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![parameter(UNGUESSABLE)]
    }
}

/// The header's description, for keys of at least so many characters.
fn parameter(least: usize) -> Parameter {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!(
            r#"^("([ !#-\[\]-~]|\\["\\]){{{least},255}}"|[!#-~]{{{least},255}})$"#
        )))
        .examples([serde_json::json!("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"")]);
    let description = format!(
        "A key of {least} to 255 characters that identifies this request, in quotes or bare; best a UUID. A request that \
         is sent again with the same key within 24 hours is not executed again: the response is the first one, with \
         `Idempotent-Replayed: true`."
    );
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(text.build()))
        .build()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_key_is_the_same_in_quotes_and_bare() {
        for (text, key) in [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            (
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            ("\"a b\"", "a b"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r"a\b;c=d,e'f", r"a\b;c=d,e'f"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(key), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(256);
        for text in [
            "",
            "\"",
            "\"\"",
            "a b",
            "a\"b",
            "\"a",
            "a\"",
            "\"a\"b\"",
            r#""a\""#,
            r#""a\b""#,
            "\"a\";p=1",
            "\"a\", \"b\"",
            "a\tb",
            "\"a\tb\"",
            "ü",
            "\"ü\"",
            "\u{7f}",
            &long,
            &format!("\"{long}\""),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse(&long[1..]).is_some());
        assert!(parse(&format!("\"{}\"", "\\\\".repeat(255))).is_some());
    }

    #[test]
    fn a_key_may_be_there_once() {
        let request = TestRequest::default()
            .append_header(("Idempotency-Key", "a"))
            .append_header(("Idempotency-Key", "a"));
        let error = read(&request.to_http_request()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
        assert_eq!(read(&TestRequest::default().to_http_request()).unwrap(), None);
    }

    #[test]
    fn the_fingerprint_is_of_what_is_asked_for_and_not_of_how_it_is_written() {
        let of = |path: &str, body: &str| {
            let request = TestRequest::post()
                .uri(path)
                .insert_header(("Idempotency-Key", "k"))
                .to_http_request();
            note_body(&request, body.as_bytes());
            fingerprint(&request)
        };
        let one = of("/a", r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#);
        assert_eq!(one, of("/a", r#" {"b":{"d":null,"c":[1,2]},"a":1}"#));
        for (path, body) in [
            ("/b", r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#),
            ("/a", r#"{"a": 1, "b": {"c": [2, 1], "d": null}}"#),
            ("/a", r#"{"a": 1, "b": {"c": [1, 2]}}"#),
            ("/a", r#"{"a": "1", "b": {"c": [1, 2], "d": null}}"#),
            ("/a", "{}"),
        ] {
            assert_ne!(one, of(path, body), "{path} {body}");
        }
    }

    #[test]
    fn a_kept_answer_is_given_again_as_it_was() {
        let first = || {
            HttpResponse::Created()
                .insert_header(("Location", "/a"))
                .json([1, 2])
        };
        let kept = keep(first()).unwrap();
        let again = replay(&kept).unwrap();
        assert_eq!(again.status(), 201);
        assert_eq!(again.headers().get("Location"), first().headers().get("Location"));
        assert_eq!(
            again.headers().get("Content-Type"),
            first().headers().get("Content-Type")
        );
        assert_eq!(again.headers().get("Idempotent-Replayed").unwrap(), "true");
        assert_eq!(again.into_body().try_into_bytes().unwrap(), "[1,2]");
    }
}
