use actix_web::{HttpResponse, web::ServiceConfig};
use serde::Serialize;
use tenantry_domain::kernel::{Permission, Role};
use utoipa::ToSchema;

use crate::v1::kernel::schema;
use crate::{Answer, Ctx, Endpoint, permission::ReadTenant};

/// A permission: what the holder may do.
#[derive(Serialize, ToSchema)]
#[schema(as = Permission, examples(json!({
    "name": "tasks.read", "description": "See tasks.", "least_role": "viewer", "scope": true,
})))]
pub(crate) struct PermissionView {
    /// The stable name.
    name: &'static str,
    description: &'static str,
    /// The minimum role that has it; higher roles have it too.
    #[schema(value_type = schema::Role)]
    least_role: Role,
    /// Whether an API key may have it as a scope.
    scope: bool,
}

/// The permissions of users.
#[derive(Serialize, ToSchema)]
#[schema(as = Permissions)]
pub(crate) struct PermissionsView {
    data: Vec<PermissionView>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/permissions").get(list));
}

/// List permissions
///
/// Returns every permission that a user can have, with the minimum role that has it and whether it can be a scope of an API
/// key. Those of a service that embeds the API come last. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/permissions", operation_id = "list_permissions", tag = "Users",
    responses((status = 200, description = "The permissions.", body = PermissionsView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadTenant>) -> Answer {
    let of_users = |permission: &Permission| {
        let least_role = permission.least_role()?;
        Some(PermissionView {
            name: permission.as_str(),
            description: permission.about(),
            least_role,
            scope: permission.is_scope(),
        })
    };
    let data = cx.ports().permissions.all().iter().filter_map(of_users).collect();
    Ok(HttpResponse::Ok().json(PermissionsView { data }))
}
