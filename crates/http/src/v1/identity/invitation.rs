use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::Invitation;
use tenantry_domain::kernel::{InvitationId, Role, Time, UserId};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::{auth::AuthError, invitation};
use utoipa::ToSchema;

use crate::extract::page::NoParams;
use crate::extract::{
    guest::{Guest, TenantHeaders},
    page::PageParams,
};
use crate::v1::{identity::auth::LoggedInView, kernel::schema};
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, PageView, Paged, created, no_content,
    permission::{ManageUsers, ReadInvitations, RevokeInvitations},
};

/// An invitation that was neither accepted nor revoked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invitation, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "email": "grace@example.com", "role": "member", "custom_role": null, "status": "open",
    "invited_by": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "created_at": "2026-01-31T12:00:00Z",
    "sent_at": "2026-01-31T12:00:00Z", "expires_at": "2026-02-07T12:00:00Z",
})))]
pub(crate) struct InvitationView {
    #[schema(value_type = Uuid)]
    id: InvitationId,
    email: String,
    /// The role of the user who accepts it.
    #[schema(value_type = schema::Role)]
    role: Role,
    /// The custom role of the user who accepts it.
    #[schema(required = true)]
    custom_role: Option<String>,
    status: InvitationStatus,
    /// The user who sent the latest mail.
    #[schema(value_type = Uuid)]
    invited_by: UserId,
    created_at: DateTime<Utc>,
    /// The time of the latest mail.
    sent_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

/// Whether an invitation can be accepted.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InvitationStatus {
    /// It can be accepted, and takes a seat.
    Open,
    /// It can be sent again.
    Expired,
}

/// An address to invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewInvitation, examples(json!({"email": "grace@example.com", "role": "member"})))]
pub(crate) struct NewInvitationBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// `member` when absent.
    #[schema(value_type = schema::Role, required = false)]
    role: Option<Role>,
    /// The name of a custom role, which narrows the role. Needs the plan feature `custom_roles`.
    custom_role: Option<String>,
}

/// An invitation to accept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AcceptInvitation, examples(json!({
    "token": "inv_…", "full_name": "Grace Hopper", "password": "correct horse battery staple",
})))]
pub(crate) struct AcceptBody {
    /// The token of the link in the mail.
    token: String,
    #[schema(min_length = 1, max_length = 120)]
    full_name: String,
    #[schema(min_length = 12, max_length = 128)]
    password: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::credential("/invitations/accept").post(accept))
        .service(Endpoint::at("/invitations").get(list).post(create))
        .service(Endpoint::at("/invitations/{id}").get(read).delete(revoke))
        .service(Endpoint::at("/invitations/{id}/resend").post(resend));
}

/// List invitations
///
/// The invitations that were neither accepted nor revoked; some may have expired. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/invitations", operation_id = "list_invitations", tag = "Users",
    params(PageParams),
    responses(
        (status = 200, description = "The invitations, newest first.", body = PageView<InvitationView>, headers(("Link"))),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadInvitations>, query: Paged<NoParams>) -> Answer {
    let page = invitation::list(&cx, query.request(cx.scope())?).await?;
    let view = |invitation| InvitationView::of(invitation, cx.now());
    Ok(query.answer(cx.scope(), page.map(view)))
}

/// Invite a user
///
/// Sends a mail with a link to the address. The link works once, for seven days. An open invitation counts as a user
/// against the limits of the plan. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/invitations", operation_id = "create_invitation", tag = "Users",
    params(IdempotencyKey), request_body = NewInvitationBody,
    responses((status = 201, description = "The invitation.", body = InvitationView, headers(("Location")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "email_taken", "conflict", "plan_limit_reached", "plan_feature_required"]))),
)]
pub(crate) async fn create(
    cx: Ctx<ManageUsers>,
    key: IdempotencyKey,
    body: Body<NewInvitationBody>,
) -> Answer {
    let NewInvitationBody {
        email,
        role,
        custom_role,
    } = body.0;
    let (now, role) = (cx.now(), role.unwrap_or(Role::Member));
    let create = async |cx: &Cx| invitation::create(cx, &email, role, custom_role.as_deref()).await;
    key.once(&cx, create, move |invitation| {
        let location = format!("/api/v1/invitations/{}", invitation.id);
        created(&location, None, &InvitationView::of(invitation, now))
    })
    .await
}

/// Get an invitation
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/invitations/{id}", operation_id = "get_invitation", tag = "Users",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The invitation.", body = InvitationView)),
    security(("bearer" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadInvitations>, id: Id<InvitationId>) -> Answer {
    let invitation = invitation::get(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(InvitationView::of(invitation, cx.now())))
}

/// Resend an invitation
///
/// Sends another mail, with a new link for seven days; the link in the former mail no longer works. An invitation is mailed
/// at most 10 times, and at most once in a minute. With the role `admin`, a user with a second factor gives it within 10 minutes
/// before. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/invitations/{id}/resend", operation_id = "resend_invitation", tag = "Users",
    params(("id" = Uuid, Path)),
    responses((status = 202, description = "The invitation, whose mail will be sent.", body = InvitationView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!([
        "403 mfa_required", "tenant_suspended", "email_taken", "conflict", "plan_limit_reached", "validation_failed"
    ]))),
)]
pub(crate) async fn resend(cx: Ctx<ManageUsers>, id: Id<InvitationId>) -> Answer {
    let invitation = invitation::resend(&cx, id.0).await?;
    Ok(HttpResponse::Accepted().json(InvitationView::of(invitation, cx.now())))
}

/// Revoke an invitation
///
/// Its link no longer works. Works in a suspended tenant too. Minimum role: admin.
#[utoipa::path(
    delete, path = "/api/v1/invitations/{id}", operation_id = "revoke_invitation", tag = "Users",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "The invitation is revoked.")),
    security(("bearer" = [])),
)]
pub(crate) async fn revoke(cx: Ctx<RevokeInvitations>, id: Id<InvitationId>) -> Answer {
    invitation::revoke(&cx, id.0).await?;
    Ok(no_content())
}

/// Accept an invitation
///
/// Creates the user of the invitation and logs in. The token names the tenant. A token that was used, replaced or revoked,
/// has expired or never existed is 401 `token_revoked`. An address of a domain that the tenant does not allow any more is
/// `domain_not_allowed` at `/token`.
#[utoipa::path(
    post, path = "/api/v1/invitations/accept", operation_id = "accept_invitation", tag = "Authentication",
    params(TenantHeaders), request_body = AcceptBody,
    responses((status = 200, description = "The tokens, the user and the tenant.", body = LoggedInView)),
    extensions(("x-errors" = json!([
        "token_revoked", "tenant_not_found", "tenant_mismatch", "tenant_gone", "tenant_suspended", "email_taken",
        "plan_limit_reached", "mfa_required"
    ]))),
)]
pub(crate) async fn accept(guest: Guest, body: Body<AcceptBody>) -> Answer {
    let AcceptBody {
        token,
        full_name,
        password,
    } = body.0;
    let presented = guest.app().ports.invitation_tokens.read(&token);
    let presented = presented.ok_or(AuthError::InvalidInvitation)?;
    let cx = guest.enter_by_token(presented.tenant).await?;
    let login = invitation::accept(&cx, &presented, full_name, password).await?;
    Ok(HttpResponse::Ok().json(LoggedInView::from(login)))
}

impl InvitationView {
    fn of(invitation: Invitation, now: Time) -> Self {
        let status = if invitation.is_open(now) {
            InvitationStatus::Open
        } else {
            InvitationStatus::Expired
        };
        Self {
            id: invitation.id,
            email: invitation.email.as_str().to_owned(),
            role: invitation.role,
            custom_role: invitation.custom_role.map(|name| name.as_str().to_owned()),
            status,
            invited_by: invitation.invited_by,
            created_at: invitation.created_at,
            sent_at: invitation.sent_at,
            expires_at: invitation.expires_at,
        }
    }
}
