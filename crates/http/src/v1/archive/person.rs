use actix_web::{HttpResponse, http::header, web::ServiceConfig};
use tenantry_domain::kernel::{ExportId, UserId};
use tenantry_tenancy::archive::export;

use crate::v1::archive::export::ExportView;
use crate::{Answer, Ctx, Endpoint, Id, Ids, permission::ManageOwnAccount};

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/users/{id}/exports").post(create))
        .service(Endpoint::at("/users/{id}/exports/{export_id}").get(read));
}

/// Export the data of a user
///
/// Begins an export of what is stored about one person: a job writes a signed archive with the account, sessions, devices, names of passkeys
/// and API keys, memberships, invitations, projects, tasks, resources and entries of the audit log, without secrets and without what
/// entries tell about others. Rows are found by the account and by its proven addresses: one that is not may be somebody else's. Users
/// export their own data; admins that of every user, removed ones included. Takes a recent second factor where the caller has one. One
/// export of a user is under way at a time, and five archives are kept, for seven days each (409).
#[utoipa::path(
    post, path = "/api/v1/users/{id}/exports", operation_id = "export_user", tag = "Users",
    params(("id" = Uuid, Path)),
    responses((status = 202, description = "The export is under way.", body = ExportView, headers(("Location")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict", "exports_unavailable"]))),
)]
pub(crate) async fn create(cx: Ctx<ManageOwnAccount>, id: Id<UserId>) -> Answer {
    let export = export::request_of(&cx, id.0).await?;
    let location = format!("/api/v1/users/{}/exports/{}", id.0, export.id);
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .json(ExportView::of(&cx, export).await?))
}

/// Get an export of a user
///
/// Shows how far it is and, once it is ready, a link to its archive. A caller who has a second factor gets the link when it was given
/// recently. Users see their own exports, admins those of every user.
#[utoipa::path(
    get, path = "/api/v1/users/{id}/exports/{export_id}", operation_id = "get_user_export", tag = "Users",
    params(("id" = Uuid, Path), ("export_id" = Uuid, Path)),
    responses((status = 200, description = "The export.", body = ExportView)),
    security(("bearer" = [])),
)]
pub(crate) async fn read(cx: Ctx<ManageOwnAccount>, ids: Ids<UserId, ExportId>) -> Answer {
    let export = export::get_of(&cx, ids.0, ids.1).await?;
    Ok(HttpResponse::Ok().json(ExportView::of(&cx, export).await?))
}
