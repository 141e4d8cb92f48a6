use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::Erasure;
use tenantry_domain::kernel::UserId;
use tenantry_tenancy::identity::erasure;
use utoipa::ToSchema;

use crate::{Answer, Body, Ctx, Endpoint, Id, permission::ManageUsers};

/// The erasure of a user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erasure, examples(json!({
    "user_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "erased_at": "2026-01-31T12:00:00Z", "finished_at": null, "audit_entries": 0,
})))]
pub(crate) struct ErasureView {
    #[schema(value_type = Uuid)]
    user_id: UserId,
    /// When the account was erased.
    erased_at: DateTime<Utc>,
    /// When all traces were erased; null while a job is at it.
    #[schema(required = true)]
    finished_at: Option<DateTime<Utc>>,
    /// The number of entries of the audit log that were erased so far.
    audit_entries: u64,
}

/// The confirmation of an erasure.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EraseUser, examples(json!({"confirm_email": "ada@example.com"})))]
pub(crate) struct EraseUser {
    /// The address of the user, so that the wrong one is not erased.
    #[schema(format = "email", max_length = 254)]
    confirm_email: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/users/{id}/erase").post(erase));
}

/// Erase a user
///
/// The account is anonymous at once, also one that was deleted before: address, name, sessions, devices, factors, passkeys, API keys,
/// memberships and invitations are gone, and projects, tasks and resources refer to "Erased user". A job erases the texts about the person
/// in the audit log, whose hash chain still verifies. Nothing leads back. Send the request again to see how far it is, and to begin the job
/// again if it was given up. 409 `conflict` names a foreign key by which rows that no erasure can delete refer to rows of the user: nothing
/// is done then. Minimum role: admin, with a recent second factor where the user has one.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/erase", operation_id = "erase_user", tag = "Users",
    params(("id" = Uuid, Path)), request_body = EraseUser,
    responses((status = 202, description = "How far the erasure is.", body = ErasureView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "last_admin", "conflict"]))),
)]
pub(crate) async fn erase(cx: Ctx<ManageUsers>, id: Id<UserId>, body: Body<EraseUser>) -> Answer {
    let erasure = erasure::erase(&cx, id.0, &body.confirm_email).await?;
    Ok(HttpResponse::Accepted().json(ErasureView::from(erasure)))
}

impl From<Erasure> for ErasureView {
    fn from(erasure: Erasure) -> Self {
        Self {
            user_id: erasure.user,
            erased_at: erasure.created_at,
            finished_at: erasure.finished_at,
            audit_entries: erasure.entries,
        }
    }
}
