use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::Password;
use tenantry_domain::kernel::OperatorId;
use tenantry_domain::operations::{Operator, OperatorChanges, OperatorRole};
use tenantry_tenancy::admin::operator::{self, CreatedOperator, NewOperator};
use tenantry_tenancy::admin::operator_login::{self, OperatorLoggedIn, Visit};
use tenantry_tenancy::admin::operator_mfa;
use utoipa::ToSchema;

use crate::extract::operator_permission as may;
use crate::extract::page::NoParams;
use crate::extract::{guest::Guest, idempotency::replayed, page::PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Endpoint, Id, IdempotencyKey, IfMatch, IfNoneMatch, OperatorCtx, PageView, Paged, created,
    entity, no_content,
};

/// An operator of the platform.
#[derive(Serialize, ToSchema)]
#[schema(as = Operator, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "email": "olga@example.com", "full_name": "Olga Operator",
    "role": "owner", "is_active": true, "version": 1, "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z",
})))]
pub(crate) struct OperatorView {
    #[schema(value_type = Uuid)]
    id: OperatorId,
    email: String,
    full_name: String,
    #[schema(value_type = schema::OperatorRole)]
    role: OperatorRole,
    is_active: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// When the password expires; absent of a password that the operator chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_expires_at: Option<DateTime<Utc>>,
    /// The `ETag`.
    version: i64,
}

/// Who is added as an operator, and with which role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOperator, examples(json!({
    "email": "olga@example.com", "full_name": "Olga Operator", "role": "support",
})))]
pub(crate) struct NewOperatorBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
    #[schema(min_length = 1, max_length = 120)]
    full_name: String,
    #[schema(value_type = schema::OperatorRole)]
    role: OperatorRole,
    /// When absent, a password is generated and shown once.
    #[schema(min_length = 12, max_length = 128)]
    password: Option<String>,
}

/// An operator with a password that was generated.
#[derive(Serialize, ToSchema)]
#[schema(as = OperatorWithPassword)]
pub(crate) struct OperatorWithPasswordView {
    operator: OperatorView,
    /// The generated password, shown once; null when the request had one, and in the answer to a repeated request.
    #[schema(required = true)]
    password: Option<String>,
}

/// Changes of an operator. An absent field stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OperatorChanges, examples(json!({"role": "billing"})))]
pub(crate) struct OperatorChangesBody {
    #[schema(min_length = 1, max_length = 120)]
    full_name: Option<String>,
    #[schema(value_type = Option<schema::OperatorRole>)]
    role: Option<OperatorRole>,
    /// An operator who is not active cannot log in; the operator's tokens end.
    is_active: Option<bool>,
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
    config
        .service(Endpoint::credential("/admin/login").post(login))
        .service(Endpoint::operator("/admin/operators").get(list).post(create))
        .service(
            Endpoint::operator("/admin/operators/{id}")
                .get(read)
                .patch(change)
                .delete(remove),
        )
        .service(Endpoint::operator("/admin/operators/{id}/end-sessions").post(end_sessions))
        .service(Endpoint::operator("/admin/operators/{id}/reset-password").post(reset_password))
        .service(Endpoint::operator("/admin/operators/{id}/reset-mfa").post(reset_mfa));
}

/// Log in as an operator
///
/// Returns an access token for the operations below `/api/v1/admin`. An operator with a second factor gets 401 `mfa_required`
/// with an `mfa_token` for `POST /admin/mfa/verify`, unless `totp_code` has the code already. Where operators need a factor
/// (`auth.operator_mfa_required`), one without it gets an `mfa_token` for `POST /admin/mfa/required/enroll`. A password that the
/// operator did not choose expires (`operator.password_expires_at`) and is a wrong one then: an owner or a command on the server resets it.
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

/// List operators
///
/// Deactivated operators are included. For owners.
#[utoipa::path(
    get, path = "/api/v1/admin/operators", operation_id = "list_operators", tag = "Operators",
    params(PageParams),
    responses(
        (status = 200, description = "The operators, newest first.", body = PageView<OperatorView>, headers(("Link"))),
    ),
    security(("operator" = [])),
)]
pub(crate) async fn list(cx: OperatorCtx<may::ReadOperators>, query: Paged<NoParams>) -> Answer {
    let page = operator::list(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(OperatorView::from)))
}

/// Create an operator
///
/// The operator logs in with the password at `POST /admin/login`, and enrolls a second factor there where operators need one. The password
/// expires after 7 days, unless the operator changes it with `POST /admin/change-password`. For owners, with a recent second factor.
#[utoipa::path(
    post, path = "/api/v1/admin/operators", operation_id = "create_operator", tag = "Operators",
    params(IdempotencyKey), request_body = NewOperatorBody,
    responses((
        status = 201, description = "The operator, and the password if it was generated.",
        body = OperatorWithPasswordView, headers(("ETag"), ("Location"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "email_taken"]))),
)]
pub(crate) async fn create(
    cx: OperatorCtx<may::ManageOperators>,
    key: IdempotencyKey,
    body: Body<NewOperatorBody>,
) -> Answer {
    let request = key.of_operator()?;
    let (made, is_replay) = operator::create_once(&cx, request.as_ref(), body.0.into()).await?;
    let (location, version) = (
        format!("/api/v1/admin/operators/{}", made.operator.id),
        made.operator.version,
    );
    let response = created(&location, Some(version), &OperatorWithPasswordView::from(made));
    Ok(if is_replay { replayed(response) } else { response })
}

/// Get an operator
///
/// For owners.
#[utoipa::path(
    get, path = "/api/v1/admin/operators/{id}", operation_id = "get_operator", tag = "Operators",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The operator.", body = OperatorView, headers(("ETag")))),
    security(("operator" = [])),
)]
pub(crate) async fn read(
    cx: OperatorCtx<may::ReadOperators>,
    id: Id<OperatorId>,
    seen: IfNoneMatch,
) -> Answer {
    let operator = operator::get(&cx, id.0).await?;
    Ok(seen.answer(operator.version, &OperatorView::from(operator)))
}

/// Change an operator
///
/// A changed role counts from the next request on. The last active owner keeps the role and stays active (409). For owners, with a
/// recent second factor.
#[utoipa::path(
    patch, path = "/api/v1/admin/operators/{id}", operation_id = "change_operator", tag = "Operators",
    params(("id" = Uuid, Path), IfMatch), request_body = OperatorChangesBody,
    responses((status = 200, description = "The updated operator.", body = OperatorView, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict"]))),
)]
pub(crate) async fn change(
    cx: OperatorCtx<may::ManageOperators>,
    id: Id<OperatorId>,
    when: IfMatch,
    body: Body<OperatorChangesBody>,
) -> Answer {
    let operator = operator::change(&cx, id.0, &when.0, &body.0.into()).await?;
    Ok(entity(operator.version, &OperatorView::from(operator)))
}

/// Deactivate an operator
///
/// Ends the operator's tokens. The account stays, since the log of operators names it; `is_active` activates it again. The last active
/// owner stays active (409). For owners, with a recent second factor.
#[utoipa::path(
    delete, path = "/api/v1/admin/operators/{id}", operation_id = "deactivate_operator", tag = "Operators",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The operator is deactivated.")),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict"]))),
)]
pub(crate) async fn remove(
    cx: OperatorCtx<may::ManageOperators>,
    id: Id<OperatorId>,
    when: IfMatch,
) -> Answer {
    let changes = OperatorChanges {
        is_active: Some(false),
        ..OperatorChanges::default()
    };
    operator::change(&cx, id.0, &when.0, &changes).await?;
    Ok(no_content())
}

/// End the sessions of an operator
///
/// Ends the operator's tokens, and logins that wait for a second factor. For owners, with a recent second factor.
#[utoipa::path(
    post, path = "/api/v1/admin/operators/{id}/end-sessions", operation_id = "end_operator_sessions", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "The operator's tokens are no longer accepted.")),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required"]))),
)]
pub(crate) async fn end_sessions(cx: OperatorCtx<may::ManageOperators>, id: Id<OperatorId>) -> Answer {
    operator::end_sessions(&cx, id.0).await?;
    Ok(no_content())
}

/// Reset the password of an operator
///
/// Generates a password, which is shown once, and ends the operator's tokens. The password expires after 7 days, unless the operator changes
/// it with `POST /admin/change-password`. The second factor stays. For owners, with a recent second factor.
#[utoipa::path(
    post, path = "/api/v1/admin/operators/{id}/reset-password", operation_id = "reset_operator_password", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The operator and the password.", body = OperatorWithPasswordView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required"]))),
)]
pub(crate) async fn reset_password(cx: OperatorCtx<may::ManageOperators>, id: Id<OperatorId>) -> Answer {
    let reset = operator::reset_password(&cx, id.0, None).await?;
    Ok(HttpResponse::Ok().json(OperatorWithPasswordView::from(reset)))
}

/// Remove the second factor of an operator
///
/// For an operator who has lost it. Ends the operator's tokens. For other owners, with a recent second factor.
#[utoipa::path(
    post, path = "/api/v1/admin/operators/{id}/reset-mfa", operation_id = "reset_operator_mfa", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "The second factor is removed.")),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict"]))),
)]
pub(crate) async fn reset_mfa(cx: OperatorCtx<may::ManageOperators>, id: Id<OperatorId>) -> Answer {
    operator_mfa::reset(&cx, id.0).await?;
    Ok(no_content())
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
            role: operator.role,
            version: operator.version,
            is_active: operator.is_active,
            created_at: operator.created_at,
            updated_at: operator.updated_at,
            password_expires_at: operator.password_expires_at,
        }
    }
}

impl From<CreatedOperator> for OperatorWithPasswordView {
    fn from(made: CreatedOperator) -> Self {
        let password = made.generated_password.as_ref();
        Self {
            password: password.map(|password| password.reveal().to_owned()),
            operator: made.operator.into(),
        }
    }
}

impl From<NewOperatorBody> for NewOperator {
    fn from(body: NewOperatorBody) -> Self {
        Self {
            email: body.email,
            full_name: body.full_name,
            role: body.role,
            password: body.password,
            is_own_password: false,
        }
    }
}

impl From<OperatorChangesBody> for OperatorChanges {
    fn from(body: OperatorChangesBody) -> Self {
        Self {
            full_name: body.full_name,
            role: body.role,
            is_active: body.is_active,
        }
    }
}
