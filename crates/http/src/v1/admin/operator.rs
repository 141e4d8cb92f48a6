use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::Password;
use tenantry_domain::kernel::OperatorId;
use tenantry_domain::operations::Operator;
use tenantry_tenancy::admin::operator_login::{self, OperatorLoggedIn, Visit};
use utoipa::ToSchema;

use crate::extract::guest::Guest;
use crate::{Answer, Body, Endpoint};

/// An operator of the platform.
#[derive(Serialize, ToSchema)]
#[schema(as = Operator, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "email": "olga@example.com", "full_name": "Olga Operator",
    "is_active": true, "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z",
})))]
pub(crate) struct OperatorView {
    #[schema(value_type = Uuid)]
    id: OperatorId,
    email: String,
    full_name: String,
    is_active: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The access token of an operator. There is no refresh token: log in again when it expires.
#[derive(Serialize, ToSchema)]
#[schema(as = OperatorLoggedIn)]
pub(crate) struct OperatorLoggedInView {
    /// For `Authorization: Bearer …`; a JWT with an audience of its own.
    #[schema(examples("eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9.…"))]
    access_token: String,
    /// `Bearer`.
    #[schema(examples("Bearer"))]
    token_type: &'static str,
    /// The lifetime of the token, in seconds.
    #[schema(examples(900))]
    expires_in: i64,
    operator: OperatorView,
}

/// The credentials of an operator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OperatorLogin, examples(json!({
    "email": "olga@example.com", "password": "correct horse battery staple",
})))]
pub(crate) struct OperatorLoginBody {
    email: String,
    password: String,
    /// The code of the second factor, or a recovery code. Without it, the login of an operator with a second factor is
    /// answered `mfa_required`.
    totp_code: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::credential("/admin/login").post(login));
}

/// Log in as an operator
///
/// Returns an access token for the operations below `/api/v1/admin`. An operator with a second factor gets 401 `mfa_required`
/// with an `mfa_token` for `POST /admin/mfa/verify`, unless `totp_code` has the code already. Where operators need a factor
/// (`auth.operator_mfa_required`), one without it gets an `mfa_token` for `POST /admin/mfa/required/enroll`.
#[utoipa::path(
    post, path = "/api/v1/admin/login", operation_id = "login_operator", tag = "Operators",
    request_body = OperatorLoginBody,
    responses((status = 200, description = "The access token and the operator.", body = OperatorLoggedInView)),
    extensions(("x-errors" = json!(["account_locked", "invalid_credentials", "mfa_required"]))),
)]
pub(crate) async fn login(guest: Guest, body: Body<OperatorLoginBody>) -> Answer {
    let OperatorLoginBody {
        email,
        password,
        totp_code,
    } = body.0;
    let attempt = guest.operator_attempt(&email).await?;
    let password = Password::presented(password);
    let (app, code) = (guest.app(), totp_code.as_deref());
    let outcome = operator_login::login(app, visit(&guest), &email, password, code).await;
    let login = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(OperatorLoggedInView::from(login)))
}

/// From where and in which request a guest acts.
pub(crate) fn visit(guest: &Guest) -> Visit {
    Visit {
        origin: guest.origin(),
        request: guest.request(),
    }
}

impl From<OperatorLoggedIn> for OperatorLoggedInView {
    fn from(login: OperatorLoggedIn) -> Self {
        Self {
            access_token: login.access_token,
            token_type: "Bearer",
            expires_in: login.expires_in,
            operator: login.operator.into(),
        }
    }
}

impl From<Operator> for OperatorView {
    fn from(operator: Operator) -> Self {
        Self {
            id: operator.id,
            email: operator.email.as_str().to_owned(),
            full_name: operator.full_name,
            is_active: operator.is_active,
            created_at: operator.created_at,
            updated_at: operator.updated_at,
        }
    }
}
