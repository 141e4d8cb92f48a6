use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{CustomRole, CustomRolePatch, NewCustomRole, RoleName};
use tenantry_domain::kernel::{Patch, Role};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::custom_role;
use utoipa::ToSchema;

use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, IfMatch, IfNoneMatch, PageView, Paged, RequireFeature,
    created, entity, feature, no_content,
    permission::{ManageRoles, ReadRoles},
};

/// A role that the tenant defines.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CustomRole, examples(json!({
    "name": "support", "description": "Answers questions.", "base_role": "member", "permissions": ["projects.read", "tasks.read", "tasks.write"],
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct CustomRoleView {
    name: String,
    description: String,
    /// The built-in role that it is a part of. No user with the custom role has more, whatever their role is.
    #[schema(value_type = schema::Role)]
    base_role: Role,
    /// What the role leaves of a user's permissions. A name that `GET /api/v1/permissions` does not list grants nothing.
    permissions: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// A role to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewCustomRole, examples(json!({
    "name": "support", "description": "Answers questions.", "permissions": ["projects.read", "tasks.read", "tasks.write"],
})))]
pub(crate) struct NewCustomRoleBody {
    /// Unique in the tenant, not the name of a built-in role, and never changed.
    #[schema(min_length = 1, max_length = 40, pattern = "^[a-z][a-z0-9_-]*$")]
    name: String,
    #[schema(max_length = 200)]
    description: Option<String>,
    /// The built-in role that it is a part of; the least one that has all of the permissions when absent.
    #[schema(value_type = schema::Role, required = false)]
    base_role: Option<Role>,
    /// Permissions with `scope: true` in `GET /api/v1/permissions`, which the base role has.
    #[schema(min_items = 1, max_items = 500)]
    permissions: Vec<String>,
}

/// A change of a role; fields that are absent stay as they are.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeCustomRole, examples(json!({"permissions": ["projects.read", "tasks.read"]})))]
pub(crate) struct ChangeCustomRoleBody {
    /// Null: none.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    description: Patch<String>,
    #[serde(default)]
    #[schema(value_type = schema::Role, required = false)]
    base_role: Patch<Role>,
    #[serde(default)]
    #[schema(value_type = Vec<String>, required = false, min_items = 1, max_items = 500)]
    permissions: Patch<Vec<String>>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/roles").get(list).post(create))
        .service(
            Endpoint::at("/roles/{name}")
                .get(read)
                .patch(update)
                .delete(delete),
        );
}

/// List custom roles
///
/// A tenant has at most 50. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/roles", operation_id = "list_roles", tag = "Users",
    params(PageParams),
    responses(
        (status = 200, description = "The roles, newest first.", body = PageView<CustomRoleView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadRoles>, query: Paged<NoParams>) -> Answer {
    let page = custom_role::list(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(CustomRoleView::from)))
}

/// Create a custom role
///
/// A user who has a custom role can do what both their role and it allow. Needs the plan feature `custom_roles`. Minimum role:
/// admin.
#[utoipa::path(
    post, path = "/api/v1/roles", operation_id = "create_role", tag = "Users",
    params(IdempotencyKey), request_body = NewCustomRoleBody,
    responses((status = 201, description = "The role.", body = CustomRoleView, headers(("ETag"), ("Location")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "plan_feature_required", "conflict"]))),
)]
pub(crate) async fn create(
    cx: Ctx<ManageRoles>,
    _plan: RequireFeature<feature::CustomRoles>,
    key: IdempotencyKey,
    body: Body<NewCustomRoleBody>,
) -> Answer {
    let create = async |cx: &Cx| custom_role::create(cx, body.0.into()).await;
    key.once(&cx, create, |role: CustomRole| {
        let location = format!("/api/v1/roles/{}", role.name);
        created(&location, Some(role.version), &CustomRoleView::from(role))
    })
    .await
}

/// Get a custom role
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/roles/{name}", operation_id = "get_role", tag = "Users",
    params(("name" = String, Path), IfNoneMatch),
    responses((status = 200, description = "The role.", body = CustomRoleView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read(cx: Ctx<ReadRoles>, name: Id<RoleName>, seen: IfNoneMatch) -> Answer {
    let role = custom_role::get(&cx, &name.0).await?;
    Ok(seen.answer(role.version, &CustomRoleView::from(role)))
}

/// Update a custom role
///
/// A merge patch. The next request of each user who has the role is held to the change. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/roles/{name}", operation_id = "update_role", tag = "Users",
    params(("name" = String, Path), IfMatch), request_body = ChangeCustomRoleBody,
    responses((status = 200, description = "The updated role.", body = CustomRoleView, headers(("ETag")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "not_found"]))),
)]
pub(crate) async fn update(
    cx: Ctx<ManageRoles>,
    name: Id<RoleName>,
    when: IfMatch,
    body: Body<ChangeCustomRoleBody>,
) -> Answer {
    let role = custom_role::update(&cx, &name.0, &when.0, body.0.into()).await?;
    Ok(entity(role.version, &CustomRoleView::from(role)))
}

/// Delete a custom role
///
/// 409 while users or open invitations have it. Minimum role: admin.
#[utoipa::path(
    delete, path = "/api/v1/roles/{name}", operation_id = "delete_role", tag = "Users",
    params(("name" = String, Path), IfMatch),
    responses((status = 204, description = "The role is deleted.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "conflict", "not_found"]))),
)]
pub(crate) async fn delete(cx: Ctx<ManageRoles>, name: Id<RoleName>, when: IfMatch) -> Answer {
    custom_role::delete(&cx, &name.0, &when.0).await?;
    Ok(no_content())
}

impl From<CustomRole> for CustomRoleView {
    fn from(role: CustomRole) -> Self {
        Self {
            name: role.name.as_str().to_owned(),
            description: role.description,
            base_role: role.base_role,
            permissions: role.permissions.names().to_vec(),
            created_at: role.created_at,
            updated_at: role.updated_at,
            version: role.version,
        }
    }
}

impl From<NewCustomRoleBody> for NewCustomRole {
    fn from(body: NewCustomRoleBody) -> Self {
        Self {
            name: body.name,
            description: body.description,
            base_role: body.base_role,
            permissions: body.permissions,
        }
    }
}

impl From<ChangeCustomRoleBody> for CustomRolePatch {
    fn from(body: ChangeCustomRoleBody) -> Self {
        Self {
            description: body.description,
            base_role: body.base_role,
            permissions: body.permissions,
        }
    }
}
