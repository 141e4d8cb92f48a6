use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Patch, ProjectId, UserId};
use tenantry_domain::work::{
    MemberDetails, NewProject, Project, ProjectFilter, ProjectPatch, ProjectRole, ProjectStatus,
};
use tenantry_tenancy::Cx;
use tenantry_tenancy::work::project;
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, Ids, IfMatch, IfNoneMatch, PageView, Paged, created,
    entity, no_content,
    permission::{ReadProjects, RestoreProjects, WriteProjects},
};

/// A project, which groups tasks and resources.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "name": "Apollo", "description": "To the moon",
    "status": "active",
    "owner_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "view_count": 3,
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "deleted_at": null,
    "version": 1,
})))]
pub(crate) struct ProjectView {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    /// Unique among the tenant's live projects.
    name: String,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(value_type = schema::ProjectStatus)]
    status: ProjectStatus,
    #[schema(value_type = Uuid)]
    owner_id: UserId,
    /// The number of views. It does not change `version` or `updated_at`.
    view_count: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[schema(required = true)]
    deleted_at: Option<DateTime<Utc>>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// A user's place in a project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectMember, examples(json!({
    "user_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "email": "ada@example.com",
    "full_name": "Ada Lovelace",
    "role": "owner", "created_at": "2026-01-31T12:00:00Z",
})))]
pub(crate) struct MemberView {
    #[schema(value_type = Uuid)]
    user_id: UserId,
    email: String,
    full_name: String,
    /// The role of the member in the project.
    #[schema(value_type = schema::ProjectRole)]
    role: ProjectRole,
    /// Since when.
    created_at: DateTime<Utc>,
}

/// A project to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewProject, examples(json!({"name": "Apollo", "description": "To the moon"})))]
pub(crate) struct NewProjectBody {
    #[schema(min_length = 1, max_length = 120)]
    name: String,
    #[schema(max_length = 10_000)]
    description: Option<String>,
}

/// A change of a project. An absent field is unchanged.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeProject, examples(json!({"status": "archived", "description": null})))]
pub(crate) struct ChangeProject {
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 120)]
    name: Patch<String>,
    /// Null for none.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 10_000)]
    description: Patch<String>,
    #[serde(default)]
    #[schema(value_type = schema::ProjectStatus, required = false)]
    status: Patch<ProjectStatus>,
}

/// A user to take into a project.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewProjectMember, examples(json!({
    "user_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "role": "viewer",
})))]
pub(crate) struct NewMemberBody {
    #[schema(value_type = Uuid)]
    user_id: UserId,
    /// `member` when absent.
    #[schema(value_type = schema::ProjectRole, required = false)]
    role: Option<ProjectRole>,
}

/// Filters of projects.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProjectParams {
    /// Only this status.
    #[param(value_type = schema::ProjectStatus, inline, required = false)]
    status: Option<ProjectStatus>,
    /// Deleted ones too; admins only.
    #[serde(default)]
    #[param(required = false, default = false)]
    include_deleted: bool,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/projects").get(list).post(create))
        .service(
            Endpoint::at("/projects/{id}")
                .get(read)
                .patch(update)
                .delete(delete),
        )
        .service(Endpoint::at("/projects/{id}/restore").post(restore))
        .service(
            Endpoint::at("/projects/{id}/members")
                .get(list_members)
                .post(add_member),
        )
        .service(Endpoint::at("/projects/{id}/members/{user_id}").delete(remove_member));
}

/// List projects
///
/// Minimum role: viewer; admin with `include_deleted`.
#[utoipa::path(
    get, path = "/api/v1/projects", operation_id = "list_projects", tag = "Projects",
    params(ProjectParams, PageParams),
    responses(
        (status = 200, description = "The projects, newest first.", body = PageView<ProjectView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadProjects>, query: Paged<ProjectParams>) -> Answer {
    let filter = ProjectFilter {
        status: query.filter.status,
        include_deleted: query.filter.include_deleted,
    };
    let page = project::list(&cx, filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(ProjectView::from)))
}

/// Create a project
///
/// The caller becomes its owner. Minimum role: member.
#[utoipa::path(
    post, path = "/api/v1/projects", operation_id = "create_project", tag = "Projects",
    params(IdempotencyKey), request_body = NewProjectBody,
    responses(
        (status = 201, description = "The project.", body = ProjectView, headers(("ETag"), ("Location"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict", "plan_limit_reached"]))),
)]
pub(crate) async fn create(
    cx: Ctx<WriteProjects>,
    key: IdempotencyKey,
    body: Body<NewProjectBody>,
) -> Answer {
    let create = async |cx: &Cx| project::create(cx, body.0.into()).await;
    key.once(&cx, create, |project| {
        created(
            &format!("/api/v1/projects/{}", project.id),
            Some(project.version),
            &ProjectView::from(project),
        )
    })
    .await
}

/// Get a project
///
/// Each read counts as a view. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/projects/{id}", operation_id = "get_project", tag = "Projects",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The project.", body = ProjectView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadProjects>, id: Id<ProjectId>, seen: IfNoneMatch) -> Answer {
    let project = project::get(&cx, id.0).await?;
    Ok(seen.answer(project.version, &ProjectView::from(project)))
}

/// Update a project
///
/// A merge patch: an absent field is unchanged, null clears it. Minimum role: member.
#[utoipa::path(
    patch, path = "/api/v1/projects/{id}", operation_id = "update_project", tag = "Projects",
    params(("id" = Uuid, Path), IfMatch), request_body = ChangeProject,
    responses(
        (status = 200, description = "The updated project.", body = ProjectView, headers(("ETag"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict"]))),
)]
pub(crate) async fn update(
    cx: Ctx<WriteProjects>,
    id: Id<ProjectId>,
    when: IfMatch,
    body: Body<ChangeProject>,
) -> Answer {
    let project = project::update(&cx, id.0, &when.0, body.0.into()).await?;
    Ok(entity(project.version, &ProjectView::from(project)))
}

/// Delete a project
///
/// Deletes its tasks and resources too. An admin can restore them. Allowed to its owner and to admins.
#[utoipa::path(
    delete, path = "/api/v1/projects/{id}", operation_id = "delete_project", tag = "Projects",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The project is deleted.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn delete(cx: Ctx<WriteProjects>, id: Id<ProjectId>, when: IfMatch) -> Answer {
    project::delete(&cx, id.0, &when.0).await?;
    Ok(no_content())
}

/// Restore a project
///
/// Restores a deleted project, and the tasks and resources that were deleted with it. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/projects/{id}/restore", operation_id = "restore_project", tag = "Projects",
    params(("id" = Uuid, Path), IdempotencyKey),
    responses((status = 200, description = "The project.", body = ProjectView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict", "plan_limit_reached"]))),
)]
pub(crate) async fn restore(cx: Ctx<RestoreProjects>, id: Id<ProjectId>, key: IdempotencyKey) -> Answer {
    let restore = async |cx: &Cx| project::restore(cx, id.0).await;
    key.once(&cx, restore, |project| {
        entity(project.version, &ProjectView::from(project))
    })
    .await
}

/// List the members of a project
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/projects/{id}/members", operation_id = "list_project_members", tag = "Projects",
    params(("id" = Uuid, Path), PageParams),
    responses(
        (status = 200, description = "The members, newest first.", body = PageView<MemberView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list_members(cx: Ctx<ReadProjects>, id: Id<ProjectId>, query: Paged<NoParams>) -> Answer {
    let page = project::list_members(&cx, id.0, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(MemberView::from)))
}

/// Add a member to a project
///
/// Allowed to its owner and to admins.
#[utoipa::path(
    post, path = "/api/v1/projects/{id}/members", operation_id = "add_project_member", tag = "Projects",
    params(("id" = Uuid, Path), IdempotencyKey), request_body = NewMemberBody,
    responses((status = 201, description = "The member.", body = MemberView, headers(("Location")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict"]))),
)]
pub(crate) async fn add_member(
    cx: Ctx<WriteProjects>,
    id: Id<ProjectId>,
    key: IdempotencyKey,
    body: Body<NewMemberBody>,
) -> Answer {
    let (user, role) = (body.user_id, body.role.unwrap_or_default());
    let add = async |cx: &Cx| project::add_member(cx, id.0, user, role).await;
    key.once(&cx, add, move |member| {
        let location = format!("/api/v1/projects/{}/members/{user}", id.0);
        created(&location, None, &MemberView::from(member))
    })
    .await
}

/// Remove a member from a project
///
/// Allowed to its owner, to admins, and to the member.
#[utoipa::path(
    delete, path = "/api/v1/projects/{id}/members/{user_id}", operation_id = "remove_project_member",
    tag = "Projects",
    params(("id" = Uuid, Path), ("user_id" = Uuid, Path)),
    responses((status = 204, description = "The member is removed.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "conflict"]))),
)]
pub(crate) async fn remove_member(cx: Ctx<WriteProjects>, ids: Ids<ProjectId, UserId>) -> Answer {
    project::remove_member(&cx, ids.0, ids.1).await?;
    Ok(no_content())
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        Self {
            id: project.id,
            name: project.name,
            description: project.description,
            status: project.status,
            owner_id: project.owner_id,
            view_count: project.view_count,
            created_at: project.created_at,
            updated_at: project.updated_at,
            deleted_at: project.deleted_at,
            version: project.version,
        }
    }
}

impl From<MemberDetails> for MemberView {
    fn from(details: MemberDetails) -> Self {
        Self {
            user_id: details.member.user_id,
            email: details.email.as_str().to_owned(),
            full_name: details.full_name,
            role: details.member.role,
            created_at: details.member.created_at,
        }
    }
}

impl From<NewProjectBody> for NewProject {
    fn from(body: NewProjectBody) -> Self {
        Self {
            name: body.name,
            description: body.description,
        }
    }
}

impl From<ChangeProject> for ProjectPatch {
    fn from(body: ChangeProject) -> Self {
        Self {
            name: body.name,
            description: body.description,
            status: body.status,
        }
    }
}
