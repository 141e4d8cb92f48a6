use std::str::FromStr;

use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{ParseIdError, Patch, ProjectId, ResourceId, UserId};
use tenantry_domain::work::{NewResource, Resource, ResourceFilter, ResourcePatch, ResourceVersion};
use tenantry_tenancy::Cx;
use tenantry_tenancy::work::resource;
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::{NoParams, PageParams};
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, Ids, IfMatch, IfNoneMatch, PageView, Paged, created,
    entity, no_content,
    permission::{ReadResources, WriteResources},
};

/// A document or a link, with all of its former versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resource, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15", "project_id": null, "name": "Flight plan",
    "kind": "document", "content": "Up.", "url": null, "created_by": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12",
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct ResourceView {
    #[schema(value_type = Uuid)]
    id: ResourceId,
    /// The project it is filed under.
    #[schema(value_type = Option<Uuid>, required = true)]
    project_id: Option<ProjectId>,
    name: String,
    /// A label such as `document` or `link`.
    kind: String,
    /// The text itself; null for a link.
    #[schema(required = true)]
    content: Option<String>,
    /// An address; null for a document.
    #[schema(required = true)]
    url: Option<String>,
    #[schema(value_type = Uuid)]
    created_by: UserId,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Counts its versions; the `ETag`.
    version: i64,
}

/// A version of a resource.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResourceVersion, examples(json!({
    "resource_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15", "version": 1, "name": "Flight plan",
    "kind": "document", "content": "Up.", "url": null, "created_by": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12",
    "created_at": "2026-01-31T12:00:00Z",
})))]
pub(crate) struct VersionView {
    #[schema(value_type = Uuid)]
    resource_id: ResourceId,
    version: i64,
    name: String,
    kind: String,
    #[schema(required = true)]
    content: Option<String>,
    #[schema(required = true)]
    url: Option<String>,
    /// The user who made the version.
    #[schema(value_type = Uuid)]
    created_by: UserId,
    /// When this version was made.
    created_at: DateTime<Utc>,
}

/// A resource to make, with `content` or `url`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewResource, examples(json!({"name": "Flight plan", "content": "Up."})))]
pub(crate) struct NewResourceBody {
    #[schema(value_type = Option<Uuid>)]
    project_id: Option<ProjectId>,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// When absent: `link` for a resource with `url`, else `document`.
    #[schema(pattern = "^[a-z][a-z0-9_-]{0,39}$")]
    kind: Option<String>,
    #[schema(max_length = 262_144)]
    content: Option<String>,
    /// An `http` or `https` address.
    #[schema(max_length = 2_000)]
    url: Option<String>,
}

/// A change of a resource. The earlier version is kept.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeResource, examples(json!({"content": "Up, and away."})))]
pub(crate) struct ChangeResource {
    /// Null for none.
    #[serde(default)]
    #[schema(value_type = Option<Uuid>)]
    project_id: Patch<ProjectId>,
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = String, required = false, pattern = "^[a-z][a-z0-9_-]{0,39}$")]
    kind: Patch<String>,
    /// Null when it becomes a link.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 262_144)]
    content: Patch<String>,
    /// Null when it becomes a document.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2_000)]
    url: Patch<String>,
}

/// Filters of resources.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResourceParams {
    /// Only of this project.
    #[param(value_type = Option<Uuid>)]
    project_id: Option<ProjectId>,
}

/// The number of a version in a path: written in one way only, so that one version has one address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VersionNumber(pub(crate) i64);

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/resources").get(list).post(create))
        .service(
            Endpoint::at("/resources/{id}")
                .get(read)
                .patch(update)
                .delete(delete),
        )
        .service(Endpoint::at("/resources/{id}/versions").get(list_versions))
        .service(Endpoint::at("/resources/{id}/versions/{n}").get(read_version));
}

/// List resources
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/resources", operation_id = "list_resources", tag = "Resources",
    params(ResourceParams, PageParams),
    responses(
        (status = 200, description = "The resources, newest first.", body = PageView<ResourceView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadResources>, query: Paged<ResourceParams>) -> Answer {
    let filter = ResourceFilter {
        project_id: query.filter.project_id,
    };
    let page = resource::list(&cx, filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(ResourceView::from)))
}

/// Create a resource
///
/// A resource is a document or a link. Minimum role: member.
#[utoipa::path(
    post, path = "/api/v1/resources", operation_id = "create_resource", tag = "Resources",
    params(IdempotencyKey), request_body = NewResourceBody,
    responses(
        (status = 201, description = "The resource.", body = ResourceView, headers(("ETag"), ("Location"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "plan_limit_reached"]))),
)]
pub(crate) async fn create(
    cx: Ctx<WriteResources>,
    key: IdempotencyKey,
    body: Body<NewResourceBody>,
) -> Answer {
    let create = async |cx: &Cx| resource::create(cx, body.0.into()).await;
    key.once(&cx, create, |resource| {
        created(
            &format!("/api/v1/resources/{}", resource.id),
            Some(resource.version),
            &ResourceView::from(resource),
        )
    })
    .await
}

/// Get a resource
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/resources/{id}", operation_id = "get_resource", tag = "Resources",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The resource.", body = ResourceView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadResources>, id: Id<ResourceId>, seen: IfNoneMatch) -> Answer {
    let resource = resource::get(&cx, id.0).await?;
    Ok(seen.answer(resource.version, &ResourceView::from(resource)))
}

/// Update a resource
///
/// The earlier version is kept. Minimum role: member.
#[utoipa::path(
    patch, path = "/api/v1/resources/{id}", operation_id = "update_resource", tag = "Resources",
    params(("id" = Uuid, Path), IfMatch), request_body = ChangeResource,
    responses(
        (status = 200, description = "The updated resource.", body = ResourceView, headers(("ETag"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "plan_limit_reached"]))),
)]
pub(crate) async fn update(
    cx: Ctx<WriteResources>,
    id: Id<ResourceId>,
    when: IfMatch,
    body: Body<ChangeResource>,
) -> Answer {
    let resource = resource::update(&cx, id.0, &when.0, body.0.into()).await?;
    Ok(entity(resource.version, &ResourceView::from(resource)))
}

/// Delete a resource
///
/// Deletes its versions too. It cannot be restored. Minimum role: member.
#[utoipa::path(
    delete, path = "/api/v1/resources/{id}", operation_id = "delete_resource", tag = "Resources",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The resource is deleted.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn delete(cx: Ctx<WriteResources>, id: Id<ResourceId>, when: IfMatch) -> Answer {
    resource::delete(&cx, id.0, &when.0).await?;
    Ok(no_content())
}

/// List the versions of a resource
///
/// The first is the current version. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/resources/{id}/versions", operation_id = "list_resource_versions", tag = "Resources",
    params(("id" = Uuid, Path), PageParams),
    responses(
        (status = 200, description = "The versions, newest first.", body = PageView<VersionView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list_versions(
    cx: Ctx<ReadResources>,
    id: Id<ResourceId>,
    query: Paged<NoParams>,
) -> Answer {
    let versions = resource::list_versions(&cx, id.0, query.before(cx.scope())?, query.limit).await?;
    let versions = versions.into_iter().map(VersionView::from).collect();
    Ok(query.answer_numbered(cx.scope(), versions, |version| version.version))
}

/// Get a version of a resource
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/resources/{id}/versions/{n}", operation_id = "get_resource_version",
    tag = "Resources",
    params(("id" = Uuid, Path), ("n" = i64, Path, description = "The number of the version, from 1.")),
    responses((status = 200, description = "The version.", body = VersionView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read_version(cx: Ctx<ReadResources>, ids: Ids<ResourceId, VersionNumber>) -> Answer {
    let version = resource::get_version(&cx, ids.0, ids.1.0).await?;
    Ok(HttpResponse::Ok().json(VersionView::from(version)))
}

impl FromStr for VersionNumber {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let number: i64 = text.parse().map_err(|_| ParseIdError)?;
        if number > 0 && number.to_string() == text {
            Ok(Self(number))
        } else {
            Err(ParseIdError)
        }
    }
}

impl From<Resource> for ResourceView {
    fn from(resource: Resource) -> Self {
        Self {
            id: resource.id,
            project_id: resource.project_id,
            name: resource.name,
            kind: resource.kind,
            content: resource.content,
            url: resource.url,
            created_by: resource.created_by,
            created_at: resource.created_at,
            updated_at: resource.updated_at,
            version: resource.version,
        }
    }
}

impl From<ResourceVersion> for VersionView {
    fn from(version: ResourceVersion) -> Self {
        Self {
            resource_id: version.resource_id,
            version: version.version,
            name: version.name,
            kind: version.kind,
            content: version.content,
            url: version.url,
            created_by: version.created_by,
            created_at: version.created_at,
        }
    }
}

impl From<NewResourceBody> for NewResource {
    fn from(body: NewResourceBody) -> Self {
        Self {
            project_id: body.project_id,
            name: body.name,
            kind: body.kind,
            content: body.content,
            url: body.url,
        }
    }
}

impl From<ChangeResource> for ResourcePatch {
    fn from(body: ChangeResource) -> Self {
        Self {
            project_id: body.project_id,
            name: body.name,
            kind: body.kind,
            content: body.content,
            url: body.url,
        }
    }
}
