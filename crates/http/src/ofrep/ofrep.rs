//! The OpenFeature Remote Evaluation Protocol, version 0.3.0
//! (<https://github.com/open-feature/protocol/blob/main/service/openapi.yaml>): any OpenFeature SDK reads flags here.
//!
//! The tenant comes from the credential and from nowhere else. What is refused before a handler runs (401, 403, 429, …)
//! is a problem document like everywhere; the protocol leaves those bodies open. What a handler refuses has the
//! protocol's own shape.

use std::{
    future::{Future, Ready, ready},
    pin::Pin,
};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    http::{StatusCode, header},
    web::ServiceConfig,
};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tenantry_domain::flags::{Evaluation, FlagSet, Reason, Subject};
use tenantry_domain::kernel::{ErrorCode, FieldError, StoreError, hex};
use tenantry_tenancy::Cx;
use tenantry_tenancy::flags::flag;
use utoipa::ToSchema;

use crate::app::observe::Verbatim;
use crate::extract::{
    api_key, body,
    json::{self, Checked},
};
use crate::ofrep::event_stream;
use crate::{Answer, Api, ApiError, Ctx, Endpoint, IfNoneMatch, Problem, permission::ReadFeatures};

/// How large an evaluation context may be, in bytes of the body.
const MAX_CONTEXT: usize = 64 * 1024;

/// After how long without a sign of life a client gives a stream up. Heartbeats come several times as often.
const INACTIVITY_SECONDS: u64 = 120;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/ofrep/v1/evaluate/flags/{key}").post(evaluate))
        .service(Endpoint::at("/ofrep/v1/evaluate/flags").post(evaluate_all))
        .service(Endpoint::at(event_stream::PATH).get(event_stream::events));
}

/// The subject that flags are evaluated for.
#[derive(ToSchema)]
#[schema(as = OfrepRequest, examples(json!({"context": {"targetingKey": "user-123", "country": "de"}})))]
#[expect(dead_code, reason = "it only describes what `Context` reads")]
pub(crate) struct OfrepRequest {
    /// `targetingKey` says who; the user of the credential when it is absent. Everything else is an attribute for
    /// rules. `tenant`, if it is there, must be the id or the slug of the credential's tenant.
    #[schema(value_type = Option<Object>)]
    context: Option<Value>,
}

/// The value of a flag.
#[derive(Serialize, ToSchema)]
#[schema(as = OfrepEvaluation, examples(json!({
    "key": "new-checkout", "value": true, "reason": "SPLIT", "variant": "on",
    "metadata": {"level": "global", "lifecycle": "active"},
})))]
pub(crate) struct EvaluationView<'a> {
    #[schema(value_type = String)]
    key: &'a str,
    #[schema(value_type = Value)]
    value: &'a Value,
    /// `STATIC`, `TARGETING_MATCH`, `SPLIT`, `DISABLED` or `UNKNOWN`; the last where no rule says anything.
    reason: &'static str,
    #[schema(value_type = String)]
    variant: &'a str,
    metadata: MetadataView,
}

/// Metadata of an evaluation.
#[derive(Serialize, ToSchema)]
#[schema(as = OfrepMetadata)]
pub(crate) struct MetadataView {
    /// The level that the value comes from.
    #[schema(pattern = "^(default|global|plan|tenant|user)$")]
    level: &'static str,
    /// `active` or `deprecated`.
    #[schema(pattern = "^(active|deprecated)$")]
    lifecycle: &'static str,
}

/// The value of each flag that the caller may see.
#[derive(Serialize, ToSchema)]
#[schema(as = OfrepBulkEvaluation)]
pub(crate) struct BulkView<'a> {
    flags: Vec<EvaluationView<'a>>,
    metadata: BulkMetadataView,
    #[serde(rename = "eventStreams")]
    event_streams: [EventStreamView; 1],
}

/// Metadata of all flags.
#[derive(Serialize, ToSchema)]
#[schema(as = OfrepBulkMetadata)]
pub(crate) struct BulkMetadataView {
    /// Changes when a value may have changed.
    version: String,
}

/// A stream of changes of flags.
#[derive(Serialize, ToSchema)]
#[schema(as = OfrepEventStream)]
pub(crate) struct EventStreamView {
    /// `sse`: server-sent events.
    #[serde(rename = "type")]
    kind: &'static str,
    endpoint: EndpointView,
    /// Open the stream again after so many seconds without an event.
    #[serde(rename = "inactivityDelaySec")]
    inactivity_delay: u64,
}

/// An address relative to the one that was asked.
#[derive(Serialize, ToSchema)]
#[schema(as = OfrepEndpoint)]
pub(crate) struct EndpointView {
    /// With an access token it includes a ticket in its place, for clients that cannot send headers there.
    #[serde(rename = "requestUri")]
    request_uri: String,
}

/// An error of an evaluation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OfrepError, examples(json!({
    "key": "new-checkout", "errorCode": "INVALID_CONTEXT", "errorDetails": "targetingKey must be a string",
})))]
pub(crate) struct Failure {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// `PARSE_ERROR`, `INVALID_CONTEXT`, `FLAG_NOT_FOUND`; absent for a failure of the server.
    #[serde(rename = "errorCode", skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(rename = "errorDetails")]
    details: String,
    #[serde(skip)]
    status: u16,
}

/// Evaluate a feature flag
///
/// OFREP 0.3.0. Minimum role: viewer.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags/{key}", operation_id = "ofrep_evaluate_flag", tag = "Features",
    params(("key" = String, Path)), request_body = OfrepRequest,
    responses(
        (status = 200, description = "The value of the flag.", body = EvaluationView<'_>),
        (status = 400, description = "`PARSE_ERROR`, `INVALID_CONTEXT`", content((Failure = "application/json"), (Problem = "application/problem+json"))),
        (status = 404, description = "`FLAG_NOT_FOUND`", content((Failure = "application/json"), (Problem = "application/problem+json"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn evaluate(cx: Ctx<ReadFeatures>, key: AnyKey, context: Context) -> Answer {
    let key = key.0;
    let answer = evaluate_one(&cx, &key, context).await;
    Ok(answer.unwrap_or_else(|failure| failure.of(Some(key)).answer()))
}

/// Evaluate all feature flags
///
/// OFREP 0.3.0. `flagConfigEtag` and `flagConfigLastModified` are accepted and have no effect: the current
/// configuration is always evaluated. Minimum role: viewer.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags", operation_id = "ofrep_evaluate_flags", tag = "Features",
    params(IfNoneMatch), request_body = OfrepRequest,
    responses(
        (status = 200, description = "The value of each flag.", body = BulkView<'_>, headers(("ETag"))),
        (status = 400, description = "`PARSE_ERROR`, `INVALID_CONTEXT`", content((Failure = "application/json"), (Problem = "application/problem+json"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn evaluate_all(
    cx: Ctx<ReadFeatures>,
    seen: IfNoneMatch,
    request: HttpRequest,
    context: Context,
) -> Answer {
    let api = Api::of(&request)?;
    let credential = api_key::presented(request.headers(), &api)?;
    let stream = |revision: &str| event_stream::address(&api, &credential, revision);
    let answer = evaluate_visible(&cx, &seen, stream, context).await;
    Ok(answer.unwrap_or_else(|failure| failure.answer()))
}

/// What stands in the path for the key of a flag. Whatever it is, a failure has the shape of the protocol.
pub(crate) struct AnyKey(String);

impl FromRequest for AnyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let key = request.match_info().get("key").unwrap_or_default();
        ready(Ok(Self(key.to_owned())))
    }
}

async fn evaluate_one(cx: &Cx, key: &str, context: Context) -> Result<HttpResponse, Failure> {
    let set = flag::of(cx).await?;
    let subject = context.subject(cx, &set)?;
    let evaluation = set
        .evaluate(key, &subject, cx.now())
        .filter(|evaluation| evaluation.flag.visible_to(cx.scope().role()))
        .ok_or_else(|| Failure::new(404, "FLAG_NOT_FOUND", "there is no such flag"))?;
    Ok(HttpResponse::Ok().json(EvaluationView::of(&evaluation)))
}

async fn evaluate_visible(
    cx: &Cx,
    seen: &IfNoneMatch,
    stream: impl Fn(&str) -> String,
    context: Context,
) -> Result<HttpResponse, Failure> {
    let set = flag::of(cx).await?;
    let subject = context.subject(cx, &set)?;
    let (now, role) = (cx.now(), cx.scope().role());
    let revision = flag::revision(cx, &set);
    let tag = tag(cx, &revision, &subject);
    let mut response = if seen.knows_tag(&tag) {
        HttpResponse::NotModified().finish()
    } else {
        HttpResponse::Ok().json(BulkView {
            flags: set
                .evaluate_visible(role, &subject, now)
                .map(|evaluation| EvaluationView::of(&evaluation))
                .collect(),
            event_streams: [EventStreamView::at(stream(&revision))],
            metadata: BulkMetadataView { version: revision },
        })
    };
    let headers = response.headers_mut();
    if let Ok(tag) = header::HeaderValue::from_str(&format!("\"{tag}\"")) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("private, no-cache"),
    );
    Ok(response)
}

/// Everything that the answer depends on: the tenant, the configuration, and for whom it is.
fn tag(cx: &Cx, revision: &str, subject: &Subject) -> String {
    let mut context = Value::Object(subject.attributes.clone());
    context.sort_all_objects();
    let role = cx.scope().role().map(tenantry_domain::kernel::Role::as_str);
    let asked = serde_json::json!([
        cx.scope().tenant(),
        revision,
        role,
        subject.role,
        subject.key,
        context
    ]);
    hex(&Sha256::digest(asked.to_string().as_bytes())[..16])
}

/// The body of a request, read as far as it goes without knowing the tenant.
pub(crate) struct Context(Result<Map<String, Value>, Failure>);

impl FromRequest for Context {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            match body::read(&request, payload).await {
                Ok(bytes) => Ok(Self(read(&bytes))),
                Err(error) if error.code() == ErrorCode::PayloadTooLarge => Ok(Self(Err(too_large()))),
                Err(error) => Err(error),
            }
        })
    }
}

fn read(bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    if bytes.len() > MAX_CONTEXT {
        return Err(too_large());
    }
    let parse_error = |details: String| Failure::new(400, "PARSE_ERROR", details);
    let Checked { value, errors } =
        json::read(bytes).map_err(|error| parse_error(format!("the body {error}")))?;
    if let Some(FieldError { pointer, detail, .. }) = errors.first() {
        return Err(parse_error(format!("`{pointer}` {detail}")));
    }
    let Value::Object(mut body) = value else {
        return Err(parse_error("the body must be an object".into()));
    };
    match body.remove("context") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(context)) => Ok(context),
        Some(_) => Err(invalid("context must be an object")),
    }
}

fn too_large() -> Failure {
    invalid(format!("the body may have up to {MAX_CONTEXT} bytes"))
}

fn invalid(details: impl Into<String>) -> Failure {
    Failure::new(400, "INVALID_CONTEXT", details)
}

impl Context {
    /// For whom: whoever the caller names, or else the user of the credential. What is stored of that user, the role,
    /// counts when it is them who are asked about.
    fn subject(self, cx: &Cx, set: &FlagSet) -> Result<Subject, Failure> {
        let mut attributes = self.0?;
        // It names the one tenant that there is, or it is a mistake that must not go unnoticed.
        if let Some(tenant) = attributes.remove("tenant")
            && !tenant.as_str().is_some_and(|tenant| set.is_of(tenant))
        {
            return Err(invalid(
                "tenant must be the tenant of the credential, or be left out",
            ));
        }
        let own = flag::subject(cx);
        let key = match attributes.remove("targetingKey") {
            None | Some(Value::Null) => return Ok(Subject { attributes, ..own }),
            Some(Value::String(key)) if (1..=256).contains(&key.chars().count()) => key,
            Some(_) => return Err(invalid("targetingKey must be a string of 1 to 256 characters")),
        };
        let is_own = own.key.as_ref() == Some(&key);
        Ok(Subject {
            key: Some(key),
            role: own.role.filter(|_| is_own),
            attributes,
        })
    }
}

impl Failure {
    fn new(status: u16, code: &'static str, details: impl Into<String>) -> Self {
        Self {
            key: None,
            code: Some(code),
            details: details.into(),
            status,
        }
    }

    fn of(self, key: Option<String>) -> Self {
        // A failure of the server names no flag.
        let key = key.filter(|_| self.code.is_some());
        Self { key, ..self }
    }

    fn answer(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        let mut response = response.json(self);
        response.extensions_mut().insert(Verbatim);
        response
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let error = ApiError::from(error);
        let (code, cause) = (error.code().as_str(), error.cause_chain());
        if error.code() == ErrorCode::Internal {
            tracing::error!(code, cause, "flags could not be evaluated");
        } else {
            // A store that is busy or away, once for each request.
            tracing::info!(code, cause, "flags could not be evaluated");
        }
        Self {
            key: None,
            code: None,
            details: error.code().title().to_owned(),
            status: error.code().status(),
        }
    }
}

impl<'a> EvaluationView<'a> {
    fn of(evaluation: &Evaluation<'a>) -> Self {
        Self {
            key: &evaluation.flag.key,
            value: evaluation.value,
            reason: reason(evaluation.reason),
            variant: evaluation.variant,
            metadata: MetadataView {
                level: evaluation.level.as_str(),
                lifecycle: evaluation.flag.lifecycle.as_str(),
            },
        }
    }
}

/// The protocol has no word for a default that another context might not get: `STATIC` would let clients keep it.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Default => "UNKNOWN",
        Reason::Static | Reason::TargetingMatch | Reason::Split | Reason::Disabled => reason.as_str(),
    }
}

impl EventStreamView {
    fn at(request_uri: String) -> Self {
        Self {
            kind: "sse",
            endpoint: EndpointView { request_uri },
            inactivity_delay: INACTIVITY_SECONDS,
        }
    }
}
