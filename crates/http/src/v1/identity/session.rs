use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tenantry_domain::kernel::{SessionId, UserId};
use tenantry_domain::tenant::TenantScope;
use tenantry_tenancy::identity::session::{self, Listed};
use utoipa::ToSchema;

use crate::extract::page::{NoParams, PageParams};
use crate::{
    Answer, Ctx, Endpoint, Id, PageView, Paged, no_content,
    permission::{EndSession, EndUserSessions},
};

/// A live session of the caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "current": true, "created_at": "2026-01-31T12:00:00Z",
    "last_used_at": "2026-01-31T12:15:00Z", "user_agent": "Mozilla/5.0", "address": "203.0.113.7", "trusted": false,
})))]
pub(crate) struct SessionView {
    #[schema(value_type = Uuid)]
    id: SessionId,
    /// Whether it is the session of this request's credential.
    current: bool,
    /// The time of the login.
    created_at: DateTime<Utc>,
    /// The time of the last refresh, or of the login. Requests with an access token do not change it.
    last_used_at: DateTime<Utc>,
    /// The `User-Agent` of the login, shortened.
    #[schema(required = true)]
    user_agent: Option<String>,
    /// The IP address of the login.
    #[schema(required = true)]
    address: Option<String>,
    /// Whether its login came from a device that is trusted now, or became trusted with it. `GET /api/v1/auth/mfa/devices` lists
    /// the devices.
    trusted: bool,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/auth/sessions").get(list))
        .service(Endpoint::at("/auth/sessions/{id}").delete(end))
        .service(Endpoint::at("/auth/logout-all").post(logout_all))
        .service(Endpoint::at("/users/{id}/end-sessions").post(end_of_user));
}

/// List own sessions
///
/// The live sessions of the credential's user. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/auth/sessions", operation_id = "list_sessions", tag = "Authentication",
    params(PageParams),
    responses(
        (status = 200, description = "The sessions, newest first.", body = PageView<SessionView>, headers(("Link"))),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<EndSession>, query: Paged<NoParams>) -> Answer {
    let page = session::list(&cx, query.request(cx.scope())?).await?;
    let view = |listed| SessionView::of(listed, cx.scope());
    Ok(query.answer(cx.scope(), page.map(view)))
}

/// End an own session
///
/// Ends a session of the credential's user, with its access and refresh tokens. Where the tenant has `security.session_end_step_up`, another
/// session than the present one takes a second factor of the last 10 minutes, or, of a user without one, a login of the last 10 minutes
/// (403 `forbidden`). Minimum role: viewer.
#[utoipa::path(
    delete, path = "/api/v1/auth/sessions/{id}", operation_id = "end_session", tag = "Authentication",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "The session has ended.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required"]))),
)]
pub(crate) async fn end(cx: Ctx<EndSession>, id: Id<SessionId>) -> Answer {
    session::end(&cx, id.0).await?;
    Ok(no_content())
}

/// Log out everywhere
///
/// Ends all sessions of the credential's user, this one too. It takes what the end of another session takes. Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/logout-all", operation_id = "logout_all", tag = "Authentication",
    responses((status = 204, description = "All sessions have ended.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required"]))),
)]
pub(crate) async fn logout_all(cx: Ctx<EndSession>) -> Answer {
    session::end_own(&cx).await?;
    Ok(no_content())
}

/// End the sessions of a user
///
/// Works in a suspended tenant too. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/end-sessions", operation_id = "end_user_sessions", tag = "Users",
    params(("id" = Uuid, Path)),
    responses((status = 202, description = "All sessions of the user have ended.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required"]))),
)]
pub(crate) async fn end_of_user(cx: Ctx<EndUserSessions>, id: Id<UserId>) -> Answer {
    session::end_of_user(&cx, id.0).await?;
    Ok(HttpResponse::Accepted().finish())
}

impl SessionView {
    fn of(listed: Listed, scope: &TenantScope) -> Self {
        let session = listed.session;
        Self {
            id: session.id,
            current: scope.session() == Some(session.id),
            created_at: session.created_at,
            last_used_at: session.last_used_at(),
            user_agent: session.user_agent,
            address: session.ip,
            trusted: listed.is_trusted,
        }
    }
}
