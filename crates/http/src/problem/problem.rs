use std::collections::BTreeMap;

use actix_web::ResponseError as _;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tenantry_domain::kernel::ErrorCode;
use tenantry_domain::kernel::FieldError;
use utoipa::{
    PartialSchema as _, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AnyOfBuilder, SchemaType},
    },
};

use crate::ApiError;
use crate::middleware::request::RequestContext;

/// A problem document (RFC 9457): the body of every error.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(examples(json!({
    "type": "/problems/validation_failed",
    "title": "Validation failed",
    "status": 422,
    "detail": "1 field is not valid",
    "instance": "/api/v1/projects",
    "code": "validation_failed",
    "request_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11",
    "errors": [{"pointer": "/name", "code": "required", "detail": "is required"}],
})))]
pub struct Problem {
    /// The URL of the page that explains the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short title, the same for every occurrence of the code.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// A stable code. Clients may branch on it.
    #[schema(schema_with = crate::openapi::openapi::error_code)]
    pub code: &'static str,
    /// The id of the request in the logs.
    pub request_id: String,
    /// The invalid fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<ProblemField>,
    /// The rate limits that the request exceeds, by their names in `RateLimit-Policy`. The hyphen is the
    /// draft's own (draft-ietf-httpapi-ratelimit-headers).
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, value_type = Vec<String>, examples("user"))]
    pub violated_policies: Vec<&'static str>,
    /// Of `mfa_required` at a login: the token for `POST /auth/mfa/verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String)]
    pub mfa_token: Option<String>,
    /// Of `mfa_required`: at a login what is accepted as the second factor; `enroll` when the user has to enroll one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Vec<String>)]
    pub methods: Option<&'static [&'static str]>,
    /// Of `mfa_required` at a login: the lifetime of the token, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = i64, examples(300))]
    pub expires_in: Option<i64>,
    /// Of `mfa_required` at other requests: how old the second factor may be, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = i64, examples(600))]
    pub max_age: Option<i64>,
    /// What the plan or a quota does not allow. The OpenAPI document describes its members as optional members of the
    /// problem: see `Excess::properties`.
    #[serde(flatten)]
    #[schema(ignore)]
    pub excess: Option<Excess>,
}

/// Which second factor a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactorNeeded {
    /// A login needs a code of the user's second factor.
    AtLogin {
        /// What finishes the login together with a code.
        mfa_token: String,
        /// What is accepted.
        methods: &'static [&'static str],
        /// The lifetime of the token, in seconds.
        expires_in: i64,
    },
    /// Of a session: one that is at most so many seconds old.
    Recent {
        /// Seconds.
        max_age: i64,
    },
    /// Of a session whose user has none: they enroll one first, and give it within so many seconds.
    Enrollment {
        /// Seconds.
        max_age: i64,
    },
}

/// What a user without a second factor does.
const ENROLLMENT: &[&str] = &["enroll"];

/// Too much of something, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Excess {
    /// What the plan does not allow.
    Plan(PlanProblem),
    /// What a period does not allow.
    Quota(QuotaProblem),
}

impl Excess {
    /// The members that an excess adds to a problem, with their schemas. A member that both kinds have, with different
    /// types, is either.
    pub(crate) fn properties() -> BTreeMap<String, RefOr<Schema>> {
        let mut properties = BTreeMap::new();
        for kind in [PlanProblem::schema(), QuotaProblem::schema()] {
            let RefOr::T(Schema::Object(kind)) = kind else {
                continue;
            };
            for (name, schema) in kind.properties {
                let merged = match properties.remove(&name) {
                    Some(other) if kind_of(&other) == kind_of(&schema) => other,
                    Some(other) => Schema::from(AnyOfBuilder::new().item(other).item(schema)).into(),
                    None => schema,
                };
                properties.insert(name, merged);
            }
        }
        properties
    }
}

fn kind_of(schema: &RefOr<Schema>) -> Option<&SchemaType> {
    match schema {
        RefOr::T(Schema::Object(object)) => Some(&object.schema_type),
        RefOr::T(Schema::Array(array)) => Some(&array.schema_type),
        _ => None,
    }
}

/// A quota that is exceeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct QuotaProblem {
    /// Key of the meter whose quota is exceeded.
    #[schema(examples("api_calls"))]
    pub meter: String,
    /// The hard limit of a period.
    #[schema(examples(10_000))]
    pub limit: u64,
    /// The units that are used or reserved.
    #[schema(examples(10_000))]
    pub used: u64,
    /// When the next period begins.
    pub resets_at: DateTime<Utc>,
    /// Of recorded usage: the index of the first event that does not fit. The events before it fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = usize, examples(7))]
    pub index: Option<usize>,
    /// Of recorded usage: how many new events fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = usize, examples(7))]
    pub fitting: Option<usize>,
}

/// A limit or feature of the plan, and the plans that allow the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlanProblem {
    /// The feature that the plan does not include.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String, examples("branding"))]
    pub feature: Option<&'static str>,
    /// The limit that is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String, examples("projects"))]
    pub limit: Option<&'static str>,
    /// The number that the plan allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = u64, examples(3))]
    pub allowed: Option<u64>,
    /// The current number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = u64, examples(3))]
    pub used: Option<u64>,
    /// The tenant's plan.
    #[schema(examples("free"))]
    pub current_plan: String,
    /// The plans that allow the request, the smallest first.
    #[schema(examples("pro", "enterprise"))]
    pub required_plans: Vec<String>,
}

/// An invalid field.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProblemField {
    /// JSON pointer (RFC 6901) into the body; a query parameter is `/query/<name>`.
    #[schema(examples("/admin/email"))]
    pub pointer: String,
    /// A stable code. Clients may branch on it.
    #[schema(examples("invalid_email"))]
    pub code: &'static str,
    /// What is wrong, and what is valid.
    #[schema(examples("must be an e-mail address such as ada@example.com"))]
    pub detail: String,
}

impl Problem {
    /// The document for an error of a request. Of a failure inside it says nothing but the request id.
    pub(crate) fn of(error: &ApiError, context: &RequestContext) -> Self {
        let code = error.code();
        // Of payments the details are fixed texts that say whether trying again helps.
        let is_inside = code.status() >= 500 && code != ErrorCode::BillingUnavailable;
        let detail = if is_inside { code.about() } else { error.detail() };
        let (mfa_token, methods, expires_in, max_age) = match error.factor() {
            None => (None, None, None, None),
            Some(FactorNeeded::Recent { max_age }) => (None, None, None, Some(*max_age)),
            Some(FactorNeeded::Enrollment { max_age }) => (None, Some(ENROLLMENT), None, Some(*max_age)),
            Some(FactorNeeded::AtLogin {
                mfa_token,
                methods,
                expires_in,
            }) => (Some(mfa_token.clone()), Some(*methods), Some(*expires_in), None),
        };
        Self {
            kind: format!("/problems/{}", code.as_str()),
            title: code.title(),
            status: error.status_code().as_u16(),
            detail: detail.to_owned(),
            instance: context.path.clone(),
            code: code.as_str(),
            request_id: context.id.as_str().to_owned(),
            errors: error.errors().iter().cloned().map(ProblemField::from).collect(),
            violated_policies: error.violated_policies().to_vec(),
            mfa_token,
            methods,
            expires_in,
            max_age,
            excess: error.excess().cloned(),
        }
    }
}

impl From<FieldError> for ProblemField {
    fn from(error: FieldError) -> Self {
        Self {
            pointer: error.pointer,
            code: error.code,
            detail: error.detail,
        }
    }
}
