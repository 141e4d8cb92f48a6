use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::tenant::NewTenant;
use tenantry_tenancy::Cx;
use tenantry_tenancy::tenant::provision::{self, NewAdmin, SignedUp};
use utoipa::ToSchema;

use crate::extract::{
    challenge::{ChallengeHeader, Response},
    guest::Guest,
    idempotency::UnguessableKey,
};
use crate::v1::{identity::user::UserView, tenant::tenant::TenantView};
use crate::{Answer, Body, Endpoint, IdempotencyKey, created};

/// A new tenant, its admin and the admin's credentials.
#[derive(Serialize, ToSchema)]
#[schema(as = SignedUp)]
pub(crate) struct SignedUpView {
    tenant: TenantView,
    admin: UserView,
    credentials: CredentialsView,
}

/// The credentials of the admin.
#[derive(Serialize, ToSchema)]
#[schema(as = Credentials)]
pub(crate) struct CredentialsView {
    #[schema(examples("ada@example.com"))]
    email: String,
    /// The generated password, which is shown once. Absent when the request had a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    password: Option<String>,
    /// When the password expires, unless it is changed before. Absent for a password that its user has chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    password_expires_at: Option<DateTime<Utc>>,
    access_token: String,
    refresh_token: String,
    /// `Bearer`.
    #[schema(examples("Bearer"))]
    token_type: &'static str,
    /// The lifetime of the access token, in seconds.
    #[schema(examples(900))]
    expires_in: i64,
}

/// A tenant to create, and its first admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SignUp, examples(json!({
    "name": "Acme", "slug": "acme", "admin": {"email": "ada@example.com", "full_name": "Ada Lovelace"},
})))]
pub(crate) struct SignUpBody {
    #[schema(min_length = 1, max_length = 120)]
    name: String,
    /// The name in URLs: unique, cannot be changed.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$")]
    slug: String,
    /// The label below the base domain; the slug when absent.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$")]
    subdomain: Option<String>,
    /// The default plan when absent. One with a price needs a payment provider: it is granted with its trial, or when it is
    /// paid.
    plan: Option<String>,
    admin: NewAdminBody,
}

/// The first admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAdmin)]
pub(crate) struct NewAdminBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
    #[schema(min_length = 1, max_length = 120)]
    full_name: String,
    /// When absent, a password is generated and shown once.
    #[schema(min_length = 12, max_length = 128)]
    password: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::credential("/tenants").post(sign_up));
}

/// Create a tenant
///
/// Creates a tenant with its first admin, and logs the admin in. A generated password is shown once. Public where
/// the operator enables sign-up. An `Idempotency-Key` counts for one slug and one e-mail address: the same key with another
/// slug or address is another request.
#[utoipa::path(
    post, path = "/api/v1/tenants", operation_id = "sign_up", tag = "Sign-up",
    params(UnguessableKey, ChallengeHeader), request_body = SignUpBody,
    responses(
        (status = 201, description = "The tenant, its admin and the admin's credentials.", body = SignedUpView, headers(("ETag"), ("Location"))),
    ),
    extensions(("x-errors" = json!(["forbidden", "plan_requires_payment", "slug_taken", "subdomain_taken", "challenge_required", "challenge_unavailable"]))),
)]
pub(crate) async fn sign_up(
    guest: Guest,
    key: IdempotencyKey,
    challenge: Response,
    body: Body<SignUpBody>,
) -> Answer {
    let (tenant, admin): (NewTenant, NewAdmin) = body.0.into();
    let cx = provision::sign_up_cx(guest.app(), guest.origin(), guest.request())?;
    let email = admin.email.clone();
    let user = |done: &SignedUp| done.login.user.id;
    let sign_up = async |cx: &Cx| provision::sign_up(cx, tenant, admin, &challenge.0).await;
    key.once_registered(&cx, email, user, sign_up, |done| {
        let version = done.login.tenant.version;
        created("/api/v1/tenant", Some(version), &SignedUpView::from(done))
    })
    .await
}

impl From<SignedUp> for SignedUpView {
    fn from(signed_up: SignedUp) -> Self {
        let login = signed_up.login;
        let credentials = CredentialsView {
            email: login.user.email.as_str().to_owned(),
            password: signed_up
                .generated_password
                .map(|password| password.reveal().to_owned()),
            password_expires_at: login.user.password_expires_at,
            access_token: login.access_token,
            refresh_token: login.refresh_token,
            token_type: "Bearer",
            expires_in: login.expires_in,
        };
        Self {
            tenant: login.tenant.into(),
            admin: login.user.into(),
            credentials,
        }
    }
}

impl From<SignUpBody> for (NewTenant, NewAdmin) {
    fn from(body: SignUpBody) -> Self {
        let SignUpBody {
            name,
            slug,
            subdomain,
            plan,
            admin,
        } = body;
        let NewAdminBody {
            email,
            full_name,
            password,
        } = admin;
        (
            NewTenant {
                name,
                slug,
                subdomain,
                plan,
            },
            NewAdmin {
                email,
                full_name,
                password,
            },
        )
    }
}
