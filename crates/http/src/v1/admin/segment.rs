use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tenantry_domain::flags::{Segment, SegmentVersion};
use tenantry_domain::kernel::OperatorId;
use tenantry_tenancy::flags::flag_definition;
use utoipa::ToSchema;

use crate::extract::operator_permission as may;
use crate::extract::page::NoParams;
use crate::extract::{idempotency::replayed, page::PageParams};
use crate::v1::admin::flag::{ConditionDocument, RollBackBody};
use crate::{
    Answer, Body, Endpoint, Id, IdempotencyKey, Ids, IfMatch, IfNoneMatch, OperatorCtx, PageView, Paged,
    created, entity, no_content,
    v1::{flags::feature::FlagKey, work::resource::VersionNumber},
};

/// Conditions that rules of several flags share.
#[derive(ToSchema)]
#[schema(as = Segment, examples(json!({
    "key": "beta", "description": "Those who asked for it", "version": 1,
    "when": [{"attribute": "user_id", "operator": "in", "values": ["0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12"]}],
})))]
#[expect(dead_code, reason = "it only describes `Segment`")]
pub(crate) struct SegmentDocument {
    /// The name of the segment. Cannot be changed.
    #[schema(pattern = "^[a-z][a-z0-9._-]{0,63}$")]
    key: String,
    /// Tenants never see it.
    #[schema(required = false, max_length = 1_000)]
    description: String,
    /// A subject is in the segment when all conditions hold. They cannot refer to segments.
    #[schema(min_items = 1, max_items = 20)]
    when: Vec<ConditionDocument>,
    /// The number of its versions; the `ETag`. Ignored in requests: use `If-Match`.
    #[schema(required = false)]
    version: i64,
}

/// A segment as one of its versions defined it.
#[derive(Serialize, ToSchema)]
#[schema(as = SegmentVersion)]
pub(crate) struct SegmentVersionView {
    version: i64,
    /// The operator who made the version; null for a command on the server.
    #[schema(value_type = Option<Uuid>, required = true)]
    operator_id: Option<OperatorId>,
    created_at: DateTime<Utc>,
    /// Null for the version that deleted the segment.
    #[schema(value_type = Option<SegmentDocument>, required = true)]
    definition: Option<Segment>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/segments").get(list).post(create))
        .service(
            Endpoint::operator("/admin/segments/{key}")
                .get(read)
                .put(replace)
                .delete(delete),
        )
        .service(Endpoint::operator("/admin/segments/{key}/rollback").post(roll_back))
        .service(Endpoint::operator("/admin/segments/{key}/versions").get(list_versions))
        .service(Endpoint::operator("/admin/segments/{key}/versions/{n}").get(read_version));
}

/// List segments
///
/// Segments are conditions that rules of several flags share.
#[utoipa::path(
    get, path = "/api/v1/admin/segments", operation_id = "list_segments", tag = "Operators",
    responses((status = 200, description = "The segments by key, always on one page.", body = PageView<SegmentDocument>)),
    security(("operator" = [])),
)]
pub(crate) async fn list(cx: OperatorCtx<may::ReadFlags>) -> Answer {
    let catalogue = flag_definition::catalogue(&cx).await?;
    Ok(HttpResponse::Ok().json(PageView {
        data: catalogue.segments().collect::<Vec<_>>(),
        next_cursor: None,
    }))
}

/// Create a segment
///
/// Keys are unique and cannot be changed.
#[utoipa::path(
    post, path = "/api/v1/admin/segments", operation_id = "create_segment", tag = "Operators",
    params(IdempotencyKey), request_body = SegmentDocument,
    responses(
        (status = 201, description = "The segment.", body = SegmentDocument, headers(("ETag"), ("Location"))),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn create(
    cx: OperatorCtx<may::ManageFlags>,
    key: IdempotencyKey,
    body: Body<Segment>,
) -> Answer {
    let request = key.of_operator()?;
    let (segment, is_replay) = flag_definition::create_once(&cx, request.as_ref(), body.0).await?;
    let location = format!("/api/v1/admin/segments/{}", segment.key);
    let response = created(&location, Some(segment.version), &segment);
    Ok(if is_replay { replayed(response) } else { response })
}

/// Get a segment
///
/// Returns the definition of the segment.
#[utoipa::path(
    get, path = "/api/v1/admin/segments/{key}", operation_id = "get_segment", tag = "Operators",
    params(("key" = String, Path), IfNoneMatch),
    responses((status = 200, description = "The segment.", body = SegmentDocument, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read(cx: OperatorCtx<may::ReadFlags>, key: Id<FlagKey>, seen: IfNoneMatch) -> Answer {
    let segment = flag_definition::get::<Segment>(&cx, &key.0.0).await?;
    Ok(seen.answer(segment.version, &segment))
}

/// Replace a segment
///
/// `key` cannot be changed. An absent field gets its default value.
#[utoipa::path(
    put, path = "/api/v1/admin/segments/{key}", operation_id = "replace_segment", tag = "Operators",
    params(("key" = String, Path), IfMatch), request_body = SegmentDocument,
    responses(
        (status = 200, description = "The updated segment.", body = SegmentDocument, headers(("ETag"))),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn replace(
    cx: OperatorCtx<may::ManageFlags>,
    key: Id<FlagKey>,
    when: IfMatch,
    body: Body<Segment>,
) -> Answer {
    let segment = flag_definition::replace(&cx, &key.0.0, &when.0, body.0).await?;
    Ok(entity(segment.version, &segment))
}

/// Delete a segment
///
/// A segment that a rule uses cannot be deleted. Its versions are kept; a rollback restores it.
#[utoipa::path(
    delete, path = "/api/v1/admin/segments/{key}", operation_id = "delete_segment", tag = "Operators",
    params(("key" = String, Path), IfMatch),
    responses((status = 204, description = "The segment is deleted.")),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found", "conflict"]))),
)]
pub(crate) async fn delete(cx: OperatorCtx<may::ManageFlags>, key: Id<FlagKey>, when: IfMatch) -> Answer {
    flag_definition::delete_segment(&cx, &key.0.0, &when.0).await?;
    Ok(no_content())
}

/// Roll a segment back
///
/// Makes an earlier version the next version. This restores a deleted segment; its `ETag` is then the number of its
/// last version.
#[utoipa::path(
    post, path = "/api/v1/admin/segments/{key}/rollback", operation_id = "roll_back_segment", tag = "Operators",
    params(("key" = String, Path), IfMatch), request_body = RollBackBody,
    responses(
        (status = 200, description = "The updated segment.", body = SegmentDocument, headers(("ETag"))),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn roll_back(
    cx: OperatorCtx<may::ManageFlags>,
    key: Id<FlagKey>,
    when: IfMatch,
    body: Body<RollBackBody>,
) -> Answer {
    let segment = flag_definition::roll_back::<Segment>(&cx, &key.0.0, &when.0, body.version).await?;
    Ok(entity(segment.version, &segment))
}

/// List the versions of a segment
///
/// Versions of deleted segments are included.
#[utoipa::path(
    get, path = "/api/v1/admin/segments/{key}/versions", operation_id = "list_segment_versions",
    tag = "Operators",
    params(("key" = String, Path), PageParams),
    responses(
        (status = 200, description = "The versions, newest first.", body = PageView<SegmentVersionView>, headers(("Link"))),
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
    let versions = flag_definition::versions::<Segment>(&cx, &key.0.0, before, query.limit).await?;
    let versions = versions.into_iter().map(SegmentVersionView::from).collect();
    Ok(query.answer_numbered(cx.scope(), versions, |version| version.version))
}

/// Get a version of a segment
///
/// Returns the definition of the segment in that version.
#[utoipa::path(
    get, path = "/api/v1/admin/segments/{key}/versions/{n}", operation_id = "get_segment_version",
    tag = "Operators",
    params(("key" = String, Path), ("n" = i64, Path, description = "The number of the version, from 1.")),
    responses((status = 200, description = "The version.", body = SegmentVersionView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read_version(
    cx: OperatorCtx<may::ReadFlags>,
    ids: Ids<FlagKey, VersionNumber>,
) -> Answer {
    let version = flag_definition::version::<Segment>(&cx, &ids.0.0, ids.1.0).await?;
    Ok(HttpResponse::Ok().json(SegmentVersionView::from(version)))
}

impl From<SegmentVersion> for SegmentVersionView {
    fn from(version: SegmentVersion) -> Self {
        Self {
            version: version.version,
            operator_id: version.operator,
            created_at: version.created_at,
            definition: version.definition,
        }
    }
}
