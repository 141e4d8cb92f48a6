use std::collections::BTreeMap;

use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::flags::{FlagDefinition, FlagVersion};
use tenantry_domain::kernel::OperatorId;
use tenantry_tenancy::flags::flag_definition;
use utoipa::ToSchema;

use crate::extract::operator_permission as may;
use crate::extract::page::NoParams;
use crate::extract::{idempotency::replayed, page::PageParams};
use crate::{
    Answer, Body, Endpoint, Id, IdempotencyKey, Ids, IfMatch, IfNoneMatch, OperatorCtx, PageView, Paged,
    created, entity,
    v1::{flags::feature::FlagKey, kernel::schema, work::resource::VersionNumber},
};

/// A feature flag as operators define it.
#[derive(ToSchema)]
#[schema(as = FlagDefinition, examples(json!({
    "key": "new-checkout", "description": "The checkout on one page", "type": "boolean",
    "variants": {"on": true, "off": false}, "default_variant": "off", "off_variant": "off", "owner": "payments",
    "client_visible": true, "tenant_overridable": false,
    "rules": [
        {"level": "plan", "when": [{"attribute": "plan", "operator": "in", "values": ["business"]}], "serve": {"variant": "on"}},
        {"level": "global", "serve": {"split": {"by": "tenant", "parts": [{"variant": "on", "percent": 20}]}}},
    ],
})))]
#[expect(dead_code, reason = "it only describes `FlagDefinition`")]
pub(crate) struct FlagDocument {
    /// The name of the flag. Cannot be changed.
    #[schema(pattern = "^[a-z][a-z0-9._-]{0,63}$")]
    key: String,
    /// Tenants who see the flag read it.
    #[schema(required = false, max_length = 1_000)]
    description: String,
    /// Cannot be changed.
    #[schema(rename = "type", value_type = schema::FlagType)]
    r#type: String,
    /// The value of each variant, by name: 1 to 20 variants.
    #[schema(value_type = Object)]
    variants: BTreeMap<String, Value>,
    /// The variant when no rule matches.
    default_variant: String,
    /// The variant while the flag is off.
    off_variant: String,
    /// The salt of the rollout's hash; the key when absent.
    salt: Option<String>,
    /// The team or person that owns the flag.
    owner: Option<String>,
    /// When the flag should be removed from the code. The flag does not change at that time.
    expires_at: Option<DateTime<Utc>>,
    /// `active` when absent.
    #[schema(required = false, value_type = schema::Lifecycle)]
    lifecycle: String,
    /// The kill switch; true when absent.
    #[schema(required = false)]
    enabled: bool,
    /// Whether an admin of a tenant may override the flag for the tenant.
    #[schema(required = false)]
    tenant_overridable: bool,
    /// Whether all users of a tenant may read the flag.
    #[schema(required = false)]
    client_visible: bool,
    /// The flag is off unless all of them hold.
    #[schema(required = false, max_items = 10)]
    prerequisites: Vec<PrerequisiteDocument>,
    /// The most specific level with a matching rule wins; within a level, the first rule that matches.
    #[schema(required = false, max_items = 50)]
    rules: Vec<RuleDocument>,
    /// The number of its versions; the `ETag`. Ignored in requests: use `If-Match`.
    #[schema(required = false)]
    version: i64,
}

/// Another flag, and the variant that it must have.
#[derive(ToSchema)]
#[schema(as = FlagPrerequisite)]
#[expect(dead_code, reason = "it only describes `Prerequisite`")]
pub(crate) struct PrerequisiteDocument {
    flag: String,
    variant: String,
}

/// Which subjects get which variant.
#[derive(ToSchema)]
#[schema(as = FlagRule)]
#[expect(dead_code, reason = "it only describes `FlagRule`")]
pub(crate) struct RuleDocument {
    #[schema(value_type = schema::RuleLevel)]
    level: String,
    /// Tenants never see it.
    #[schema(required = false)]
    description: String,
    /// A subject matches when all conditions hold. Without conditions, all subjects match.
    #[schema(required = false, max_items = 20)]
    when: Vec<ConditionDocument>,
    /// The rule applies from this time on.
    from: Option<DateTime<Utc>>,
    /// The rule applies before this time.
    until: Option<DateTime<Utc>>,
    serve: ServeDocument,
}

/// One variant for all subjects of a rule, or a percentage rollout.
#[derive(ToSchema)]
#[schema(as = FlagServe)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes `Serve`")]
pub(crate) enum ServeDocument {
    /// One variant for all subjects.
    Variant {
        /// One of the flag's variants.
        variant: String,
    },
    /// A percentage rollout.
    Split {
        /// The parts of the rollout.
        split: SplitDocument,
    },
}

/// A percentage rollout. A part that grows keeps its subjects, as long as the parts before it do not change.
#[derive(ToSchema)]
#[schema(as = FlagSplit)]
#[expect(dead_code, reason = "it only describes `Split`")]
pub(crate) struct SplitDocument {
    /// `tenant`, `user` or the name of an attribute. When absent: the user, or the tenant for requests without a user.
    by: Option<String>,
    /// Subjects beyond the sum of all parts are not matched.
    #[schema(min_items = 1)]
    parts: Vec<PartDocument>,
}

/// A part of a percentage rollout.
#[derive(ToSchema)]
#[schema(as = FlagPart)]
#[expect(dead_code, reason = "it only describes `Part`")]
pub(crate) struct PartDocument {
    /// One of the flag's variants.
    variant: String,
    /// With at most two decimal places.
    #[schema(minimum = 0, maximum = 100)]
    percent: f64,
}

/// A condition on an attribute, or on membership of a segment.
#[derive(ToSchema)]
#[schema(as = FlagCondition)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes `Condition`")]
pub(crate) enum ConditionDocument {
    /// A condition on an attribute.
    Attribute {
        /// `tenant_id`, `tenant_slug`, `plan`, `user_id`, `role`, or an attribute that clients send.
        #[schema(min_length = 1, max_length = 64)]
        attribute: String,
        #[schema(value_type = schema::Comparator)]
        operator: String,
        /// The condition holds when one of the values matches.
        #[schema(min_items = 1, max_items = 1000)]
        values: Vec<ConditionValue>,
    },
    /// A condition on membership of a segment.
    Segment {
        /// The key of a segment.
        segment: String,
        /// Whether subjects must not be in the segment.
        #[schema(required = false)]
        negate: bool,
    },
}

/// What an attribute is compared with. Which types are accepted depends on the operator.
#[derive(ToSchema)]
#[schema(as = FlagConditionValue)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes the values of `Condition`")]
pub(crate) enum ConditionValue {
    Text(String),
    Number(f64),
    Boolean(bool),
}

/// A flag as one of its versions defined it.
#[derive(Serialize, ToSchema)]
#[schema(as = FlagVersion)]
pub(crate) struct FlagVersionView {
    version: i64,
    /// The operator who made the version; null for a command on the server.
    #[schema(value_type = Option<Uuid>, required = true)]
    operator_id: Option<OperatorId>,
    created_at: DateTime<Utc>,
    #[schema(value_type = FlagDocument)]
    definition: FlagDefinition,
}

/// The version to restore.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RollBack, examples(json!({"version": 3})))]
pub(crate) struct RollBackBody {
    #[schema(minimum = 1)]
    pub(crate) version: i64,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/flags").get(list).post(create))
        .service(Endpoint::operator("/admin/flags/{key}").get(read).put(replace))
        .service(Endpoint::operator("/admin/flags/{key}/archive").post(archive))
        .service(Endpoint::operator("/admin/flags/{key}/rollback").post(roll_back))
        .service(Endpoint::operator("/admin/flags/{key}/versions").get(list_versions))
        .service(Endpoint::operator("/admin/flags/{key}/versions/{n}").get(read_version));
}

/// List feature flags
///
/// Archived flags are included.
#[utoipa::path(
    get, path = "/api/v1/admin/flags", operation_id = "list_flags", tag = "Operators",
    responses((status = 200, description = "The flags by key, always on one page.", body = PageView<FlagDocument>)),
    security(("operator" = [])),
)]
pub(crate) async fn list(cx: OperatorCtx<may::ReadFlags>) -> Answer {
    let catalogue = flag_definition::catalogue(&cx).await?;
    Ok(HttpResponse::Ok().json(PageView {
        data: catalogue.flags().map(|flag| &**flag).collect::<Vec<_>>(),
        next_cursor: None,
    }))
}

/// Create a feature flag
///
/// Keys are unique and cannot be changed. The body is checked against all other flags and segments.
#[utoipa::path(
    post, path = "/api/v1/admin/flags", operation_id = "create_flag", tag = "Operators",
    params(IdempotencyKey), request_body = FlagDocument,
    responses(
        (status = 201, description = "The flag.", body = FlagDocument, headers(("ETag"), ("Location"))),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn create(
    cx: OperatorCtx<may::ManageFlags>,
    key: IdempotencyKey,
    body: Body<FlagDefinition>,
) -> Answer {
    let request = key.of_operator()?;
    let (flag, is_replay) = flag_definition::create_once(&cx, request.as_ref(), body.0).await?;
    let location = format!("/api/v1/admin/flags/{}", flag.key);
    let response = created(&location, Some(flag.version), &flag);
    Ok(if is_replay { replayed(response) } else { response })
}

/// Get a feature flag
///
/// Returns the definition, archived flags included.
#[utoipa::path(
    get, path = "/api/v1/admin/flags/{key}", operation_id = "get_flag", tag = "Operators",
    params(("key" = String, Path), IfNoneMatch),
    responses((status = 200, description = "The flag.", body = FlagDocument, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read(cx: OperatorCtx<may::ReadFlags>, key: Id<FlagKey>, seen: IfNoneMatch) -> Answer {
    let flag = flag_definition::get::<FlagDefinition>(&cx, &key.0.0).await?;
    Ok(seen.answer(flag.version, &flag))
}

/// Replace a feature flag
///
/// `key` and `type` cannot be changed. An absent field gets its default value.
#[utoipa::path(
    put, path = "/api/v1/admin/flags/{key}", operation_id = "replace_flag", tag = "Operators",
    params(("key" = String, Path), IfMatch), request_body = FlagDocument,
    responses((status = 200, description = "The updated flag.", body = FlagDocument, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn replace(
    cx: OperatorCtx<may::ManageFlags>,
    key: Id<FlagKey>,
    when: IfMatch,
    body: Body<FlagDefinition>,
) -> Answer {
    let flag = flag_definition::replace(&cx, &key.0.0, &when.0, body.0).await?;
    Ok(entity(flag.version, &flag))
}

/// Archive a feature flag
///
/// Tenants no longer see the flag, and clients use the default in their code. A flag that is a prerequisite of
/// another flag cannot be archived.
#[utoipa::path(
    post, path = "/api/v1/admin/flags/{key}/archive", operation_id = "archive_flag", tag = "Operators",
    params(("key" = String, Path), IfMatch),
    responses((status = 200, description = "The archived flag.", body = FlagDocument, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found", "validation_failed"]))),
)]
pub(crate) async fn archive(cx: OperatorCtx<may::ManageFlags>, key: Id<FlagKey>, when: IfMatch) -> Answer {
    let flag = flag_definition::archive(&cx, &key.0.0, &when.0).await?;
    Ok(entity(flag.version, &flag))
}

/// Roll a feature flag back
///
/// Makes an earlier version the next version. It is checked against the current flags and segments.
#[utoipa::path(
    post, path = "/api/v1/admin/flags/{key}/rollback", operation_id = "roll_back_flag", tag = "Operators",
    params(("key" = String, Path), IfMatch), request_body = RollBackBody,
    responses((status = 200, description = "The updated flag.", body = FlagDocument, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn roll_back(
    cx: OperatorCtx<may::ManageFlags>,
    key: Id<FlagKey>,
    when: IfMatch,
    body: Body<RollBackBody>,
) -> Answer {
    let flag = flag_definition::roll_back::<FlagDefinition>(&cx, &key.0.0, &when.0, body.version).await?;
    Ok(entity(flag.version, &flag))
}

/// List the versions of a feature flag
///
/// Every change of a flag makes a version.
#[utoipa::path(
    get, path = "/api/v1/admin/flags/{key}/versions", operation_id = "list_flag_versions", tag = "Operators",
    params(("key" = String, Path), PageParams),
    responses(
        (status = 200, description = "The versions, newest first.", body = PageView<FlagVersionView>, headers(("Link"))),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn list_versions(
    cx: OperatorCtx<may::ReadFlags>,
    key: Id<FlagKey>,
    query: Paged<NoParams>,
) -> Answer {
    let before = query.before(cx.scope())?;
    let versions = flag_definition::versions::<FlagDefinition>(&cx, &key.0.0, before, query.limit).await?;
    let versions = versions.into_iter().map(FlagVersionView::from).collect();
    Ok(query.answer_numbered(cx.scope(), versions, |version| version.version))
}

/// Get a version of a feature flag
///
/// Returns the definition of the flag in that version.
#[utoipa::path(
    get, path = "/api/v1/admin/flags/{key}/versions/{n}", operation_id = "get_flag_version", tag = "Operators",
    params(("key" = String, Path), ("n" = i64, Path, description = "The number of the version, from 1.")),
    responses((status = 200, description = "The version.", body = FlagVersionView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read_version(
    cx: OperatorCtx<may::ReadFlags>,
    ids: Ids<FlagKey, VersionNumber>,
) -> Answer {
    let version = flag_definition::version::<FlagDefinition>(&cx, &ids.0.0, ids.1.0).await?;
    Ok(HttpResponse::Ok().json(FlagVersionView::from(version)))
}

impl From<FlagVersion> for FlagVersionView {
    fn from(version: FlagVersion) -> Self {
        Self {
            version: version.version,
            operator_id: version.operator,
            created_at: version.created_at,
            definition: version.definition,
        }
    }
}
