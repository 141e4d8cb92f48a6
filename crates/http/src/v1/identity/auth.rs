use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::Password;
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::{
    auth::{self, AuthError, Registered},
    claim::SecondFactor,
    session_start::LoggedIn,
};
use utoipa::ToSchema;

use crate::extract::{
    challenge::{ChallengeHeader, Response},
    guest::{Guest, TenantHeaders},
    idempotency::UnguessableKey,
};
use crate::v1::{identity::user::UserView, tenant::tenant::TenantView};
use crate::{
    Answer, Body, Ctx, Endpoint, IdempotencyKey, created, no_content,
    permission::{EndSession, ReadTenant},
};

/// The tokens of a session, its user and its tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = LoggedIn)]
pub(crate) struct LoggedInView {
    /// For `Authorization: Bearer …`; a JWT.
    #[schema(examples("eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9.…"))]
    access_token: String,
    /// A refresh token. It can be used once.
    refresh_token: String,
    /// `Bearer`.
    #[schema(examples("Bearer"))]
    token_type: &'static str,
    /// The lifetime of the access token, in seconds.
    #[schema(examples(900))]
    expires_in: i64,
    /// When the password expires, unless it is changed before. Absent for a password that its user has chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    password_expires_at: Option<DateTime<Utc>>,
    user: UserView,
    tenant: TenantView,
}

/// The user and the tenant of the credential.
#[derive(Serialize, ToSchema)]
#[schema(as = Me)]
pub(crate) struct MeView {
    user: UserView,
    tenant: TenantView,
}

/// The credentials of a login.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login, examples(json!({
    "email": "ada@example.com", "password": "correct horse battery staple", "tenant_slug": "acme",
})))]
pub(crate) struct LoginBody {
    email: String,
    password: String,
    /// The slug of the tenant, when neither a header nor the host names it.
    tenant_slug: Option<String>,
    /// The code of the second factor, or a recovery code. Without it, the login of a user with a second factor is answered
    /// `mfa_required`.
    totp_code: Option<String>,
    /// The `device_token` of a trusted device, which takes the place of a code.
    device_token: Option<String>,
}

/// A user to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Register, examples(json!({
    "email": "grace@example.com", "password": "correct horse battery staple", "full_name": "Grace Hopper",
    "tenant_slug": "acme",
})))]
pub(crate) struct RegisterBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
    #[schema(min_length = 12, max_length = 128)]
    password: String,
    #[schema(min_length = 1, max_length = 120)]
    full_name: String,
    /// The slug of the tenant, when neither a header nor the host names it.
    tenant_slug: Option<String>,
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Refresh)]
pub(crate) struct RefreshBody {
    refresh_token: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::credential("/auth/login").post(login))
        .service(Endpoint::credential("/auth/register").post(register))
        .service(Endpoint::credential("/auth/refresh").post(refresh))
        .service(Endpoint::at("/auth/logout").post(logout))
        .service(Endpoint::at("/auth/me").get(me));
}

/// Log in
///
/// Name the tenant by `X-Tenant-ID`, `X-Tenant-Slug`, the host or `tenant_slug`. A user with a second factor gets 401
/// `mfa_required` with an `mfa_token` for `POST /auth/mfa/verify`, unless `totp_code` has the code already. A password that an admin chose or
/// the server generated expires (`password_expires_at`) and is a wrong one then: `POST /auth/forgot-password` mails a link to choose another.
#[utoipa::path(
    post, path = "/api/v1/auth/login", operation_id = "login", tag = "Authentication",
    params(TenantHeaders), request_body = LoginBody,
    responses((status = 200, description = "The tokens, the user and the tenant.", body = LoggedInView)),
    extensions(("x-errors" = json!([
        "account_locked",
        "tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone", "invalid_credentials", "mfa_required",
        "email_not_verified"
    ]))),
)]
pub(crate) async fn login(guest: Guest, body: Body<LoginBody>) -> Answer {
    let LoginBody {
        email,
        password,
        tenant_slug,
        totp_code,
        device_token,
    } = body.0;
    let (cx, attempt) = guest.enter_to_log_in(tenant_slug, &email).await?;
    let second = SecondFactor {
        code: totp_code,
        device_token,
    };
    let outcome = auth::login(&cx, &email, Password::presented(password), second).await;
    let login = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(LoggedInView::from(login)))
}

/// Register a user
///
/// Adds the caller as a member of a tenant that allows self-registration, and logs in. Name the tenant as at login. An address
/// that is invited, or that a user gave up within seven days, is answered like that of a user: 409 `email_taken`.
/// Where `security.require_verified_email` is on, or `security.allowed_email_domains` lists domains, the response is 202 without
/// tokens: the user logs in after the address is verified with the link that is mailed to it. An address that is taken is answered in the
/// same way there, and gets a link to its account.
#[utoipa::path(
    post, path = "/api/v1/auth/register", operation_id = "register", tag = "Authentication",
    params(TenantHeaders, UnguessableKey, ChallengeHeader), request_body = RegisterBody,
    responses(
        (status = 201, description = "The tokens, the user and the tenant.", body = LoggedInView, headers(("Location"))),
        (status = 202, description = "The user is registered. A mail with a link to verify the address is on its way."),
    ),
    extensions(("x-errors" = json!([
        "tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone", "tenant_suspended",
        "forbidden", "email_taken", "plan_limit_reached", "challenge_required", "challenge_unavailable"
    ]))),
)]
pub(crate) async fn register(
    guest: Guest,
    key: IdempotencyKey,
    challenge: Response,
    body: Body<RegisterBody>,
) -> Answer {
    let RegisterBody {
        email,
        password,
        full_name,
        tenant_slug,
    } = body.0;
    let cx = guest.enter(tenant_slug).await?;
    let register = async |cx: &Cx| auth::register(cx, &email, full_name, password, &challenge.0).await;
    key.once_registered(
        &cx,
        email.clone(),
        Registered::user,
        register,
        |done| match done {
            Registered::LoggedIn(login) => {
                let location = format!("/api/v1/users/{}", login.user.id);
                created(&location, None, &LoggedInView::from(*login))
            }
            Registered::Unverified(_) => HttpResponse::Accepted().finish(),
        },
    )
    .await
}

/// Refresh the tokens
///
/// A refresh token can be used once. Using it again later ends the session. A session ends `auth.session_max_days` after its
/// login; then the answer is 401 `token_revoked`, and the user logs in again.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", operation_id = "refresh", tag = "Authentication",
    params(TenantHeaders), request_body = RefreshBody,
    responses((status = 200, description = "The new tokens, the user and the tenant.", body = LoggedInView)),
    extensions(("x-errors" = json!([
        "token_revoked", "tenant_not_found", "tenant_mismatch", "tenant_gone", "email_not_verified"
    ]))),
)]
pub(crate) async fn refresh(guest: Guest, body: Body<RefreshBody>) -> Answer {
    let presented = guest.app().ports.refresh_tokens.read(&body.refresh_token);
    let presented = presented.ok_or(AuthError::InvalidRefresh)?;
    let cx = guest.enter_by_token(presented.tenant).await?;
    let login = auth::refresh(&cx, &presented).await?;
    Ok(HttpResponse::Ok().json(LoggedInView::from(login)))
}

/// Log out
///
/// Ends the session of the credential, with its access and refresh tokens, and no other session.
/// A body is not read: a token in it is not revoked. Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", operation_id = "logout", tag = "Authentication",
    responses((status = 204, description = "The session has ended.")),
    security(("bearer" = [])),
)]
pub(crate) async fn logout(cx: Ctx<EndSession>) -> Answer {
    auth::logout(&cx).await?;
    Ok(no_content())
}

/// Get the current user
///
/// Returns the user and the tenant of the credential. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/auth/me", operation_id = "get_me", tag = "Authentication",
    responses((status = 200, description = "The user and the tenant.", body = MeView)),
    security(("bearer" = [])),
)]
pub(crate) async fn me(cx: Ctx<ReadTenant>) -> Answer {
    let (user, tenant) = auth::me(&cx).await?;
    Ok(HttpResponse::Ok().json(MeView {
        user: user.into(),
        tenant: tenant.into(),
    }))
}

impl From<LoggedIn> for LoggedInView {
    fn from(login: LoggedIn) -> Self {
        Self {
            access_token: login.access_token,
            refresh_token: login.refresh_token,
            token_type: "Bearer",
            expires_in: login.expires_in,
            password_expires_at: login.user.password_expires_at,
            user: login.user.into(),
            tenant: login.tenant.into(),
        }
    }
}
