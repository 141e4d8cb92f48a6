use std::collections::BTreeMap;

use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::{FlagDefinition, FlagVersion, OperatorId};
use tenantry_tenancy::flag_definition;
use utoipa::ToSchema;

use crate::{
    Answer, Body, Endpoint, Id, Ids, IfMatch, IfNoneMatch, OperatorCtx, PageView, Paged, created, entity,
    page::PageParams,
    v1::{
        feature::FlagKey,
        project::NoParams,
        resource::VersionNumber,
        schema,
    },
};

/// A feature flag as operators define it. The domain's own type is what is read and written; this says what it is.
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
    /// Its name, for good.
    #[schema(pattern = "^[a-z][a-z0-9._-]{0,63}$")]
    key: String,
    /// Tenants who see the flag read it.
    #[schema(required = false, max_length = 1_000)]
    description: String,
    /// Cannot be changed.
    #[schema(rename = "type", value_type = schema::FlagType)]
    r#type: String,
    /// Names, and the value of each.
    #[schema(value_type = Object)]
    variants: BTreeMap<String, Value>,
    /// The variant where no rule says anything.
    default_variant: String,
    /// The variant while it is switched off.
    off_variant: String,
    /// What buckets are salted with; the key when absent.
    salt: Option<String>,
    /// Who answers for it.
    owner: Option<String>,
    /// When it should have been taken out of the code; nothing changes then.
    expires_at: Option<DateTime<Utc>>,
    /// `active` when absent.
    #[schema(required = false, value_type = schema::Lifecycle)]
    lifecycle: String,
    /// The kill switch; true when absent.
    #[schema(required = false)]
    enabled: bool,
    /// Whether a tenant's admin may choose the variant for their tenant.
    #[schema(required = false)]
    tenant_overridable: bool,
    /// Whether everybody of a tenant may read it.
    #[schema(required = false)]
    client_visible: bool,
    /// All of these have to hold, or it is off.
    #[schema(required = false)]
    prerequisites: Vec<PrerequisiteDocument>,
    /// The most specific level that says something wins; within a level the first rule that matches.
    #[schema(required = false)]
    rules: Vec<RuleDocument>,
    /// Counts its versions; the `ETag`. Not read: say `If-Match`.
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

/// Says who gets which variant.
#[derive(ToSchema)]
#[schema(as = FlagRule)]
#[expect(dead_code, reason = "it only describes `FlagRule`")]
pub(crate) struct RuleDocument {
    #[schema(value_type = schema::RuleLevel)]
    level: String,
    /// Tenants never see it.
    #[schema(required = false)]
    description: String,
    /// All of these hold for those it is about; with none it is about everybody.
    #[schema(required = false)]
    when: Vec<ConditionDocument>,
    /// From when on it counts.
    from: Option<DateTime<Utc>>,
    /// Until when it counts.
    until: Option<DateTime<Utc>>,
    /// `{"variant": "on"}`, or `{"split": {"by": "tenant", "parts": [{"variant": "on", "percent": 20}]}}`. `by` is
    /// `tenant`, `user` or the name of an attribute; by user, or by tenant where there is no user, when absent.
    #[schema(value_type = Object)]
    serve: Value,
}

/// `attribute`, `operator` and `values`, or else `segment`.
#[derive(ToSchema)]
#[schema(as = FlagCondition)]
#[expect(dead_code, reason = "it only describes `Condition`")]
pub(crate) struct ConditionDocument {
    /// `tenant_id`, `tenant_slug`, `plan`, `user_id`, `role`, or any that callers send.
    attribute: Option<String>,
    #[schema(required = false, value_type = schema::Comparator)]
    operator: Option<String>,
    /// One of them suffices.
    #[schema(value_type = Option<Vec<Value>>)]
    values: Option<Vec<Value>>,
    /// The key of a segment.
    segment: Option<String>,
    /// Not being in it.
    negate: Option<bool>,
}

/// A flag as it was.
#[derive(Serialize, ToSchema)]
#[schema(as = FlagVersion)]
pub(crate) struct FlagVersionView {
    version: i64,
    /// Who made it so; null for a command on the server.
    #[schema(value_type = Option<Uuid>, required = true)]
    operator_id: Option<OperatorId>,
    created_at: DateTime<Utc>,
    #[schema(value_type = FlagDocument)]
    definition: FlagDefinition,
}

/// Which version is to be in force again.
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
pub(crate) async fn list(cx: OperatorCtx) -> Answer {
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
    request_body = FlagDocument,
    responses(
        (status = 201, description = "The flag.", body = FlagDocument, headers(("ETag"), ("Location"))),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn create(cx: OperatorCtx, body: Body<FlagDefinition>) -> Answer {
    let flag = flag_definition::create(&cx, body.0).await?;
    let location = format!("/api/v1/admin/flags/{}", flag.key);
    Ok(created(&location, Some(flag.version), &flag))
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
pub(crate) async fn read(cx: OperatorCtx, key: Id<FlagKey>, seen: IfNoneMatch) -> Answer {
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
    cx: OperatorCtx,
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
pub(crate) async fn archive(cx: OperatorCtx, key: Id<FlagKey>, when: IfMatch) -> Answer {
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
    cx: OperatorCtx,
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
pub(crate) async fn list_versions(cx: OperatorCtx, key: Id<FlagKey>, query: Paged<NoParams>) -> Answer {
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
pub(crate) async fn read_version(cx: OperatorCtx, ids: Ids<FlagKey, VersionNumber>) -> Answer {
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
