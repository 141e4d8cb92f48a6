use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{Password, RecoveryCode};
use tenantry_domain::operations::PendingOperator;
use tenantry_tenancy::OperatorCx;
use tenantry_tenancy::admin::operator::OperatorError;
use tenantry_tenancy::admin::operator_login::{self, OperatorEnrolled};
use tenantry_tenancy::admin::operator_mfa;
use utoipa::ToSchema;

use crate::extract::guest::{Guest, operator_attempt};
use crate::extract::operator_permission as may;
use crate::middleware::limits::Attempt;
use crate::v1::admin::operator::{OperatorLoggedInView, visit};
use crate::v1::identity::mfa::{
    CodeBody, ConfirmBody, DisableBody, EnrollBody, EnrollmentView, RecoveryCodesView, StepUpBody,
};
use crate::{Answer, ApiError, Body, Endpoint, OperatorCtx, no_content};

/// The password of the operator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EnrollOperatorMfa, examples(json!({"password": "correct horse battery staple"})))]
pub(crate) struct EnrollOperatorBody {
    password: String,
}

/// An operator's login that waits for its second factor, and the code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VerifyOperatorMfa)]
pub(crate) struct VerifyOperatorBody {
    /// The `mfa_token` of the problem `mfa_required`.
    mfa_token: String,
    /// Six digits of the app, or a recovery code.
    code: String,
}

/// The access token of an operator whose login enrolled a second factor.
#[derive(Serialize, ToSchema)]
#[schema(as = OperatorEnrolledAtLogin)]
pub(crate) struct OperatorEnrolledView {
    #[serde(flatten)]
    login: OperatorLoggedInView,
    /// Ten codes, each of which works once in place of a code of the app. They are shown once.
    recovery_codes: Vec<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/mfa/enroll").post(enroll))
        .service(Endpoint::operator("/admin/mfa/confirm").post(confirm))
        .service(Endpoint::operator("/admin/mfa/disable").post(disable))
        .service(Endpoint::operator("/admin/mfa/step-up").post(step_up))
        .service(Endpoint::operator("/admin/mfa/recovery-codes").post(renew_recovery_codes))
        .service(Endpoint::credential("/admin/mfa/verify").post(verify))
        .service(Endpoint::credential("/admin/mfa/required/enroll").post(enroll_at_login))
        .service(Endpoint::credential("/admin/mfa/required/confirm").post(confirm_at_login));
}

/// Enroll an operator's authenticator app
///
/// Returns a new secret. It takes effect when `POST /admin/mfa/confirm` gets a code of it; an earlier enrollment that was not
/// confirmed ends. A wrong password counts as a failed login.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/enroll", operation_id = "enroll_operator_mfa", tag = "Operators",
    request_body = EnrollOperatorBody,
    responses((status = 200, description = "The secret, as text, URI and QR code.", body = EnrollmentView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["account_locked", "rate_limited", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn enroll(
    cx: OperatorCtx<may::ManageOwnAccount>,
    http: HttpRequest,
    body: Body<EnrollOperatorBody>,
) -> Answer {
    let attempt = attempt_of_caller(&cx, &http).await?;
    let password = Password::presented(body.0.password);
    let enrollment = attempt.settle(operator_mfa::enroll(&cx, password).await).await?;
    Ok(HttpResponse::Ok().json(EnrollmentView::of(enrollment)?))
}

/// Confirm an operator's authenticator app
///
/// From now on a login of the operator needs the second factor. Returns recovery codes.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/confirm", operation_id = "confirm_operator_mfa", tag = "Operators",
    request_body = CodeBody,
    responses((status = 200, description = "The recovery codes.", body = RecoveryCodesView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["rate_limited", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn confirm(
    cx: OperatorCtx<may::ManageOwnAccount>,
    http: HttpRequest,
    body: Body<CodeBody>,
) -> Answer {
    let attempt = attempt_of_caller(&cx, &http).await?;
    let outcome = operator_mfa::confirm(&cx, &body.code).await;
    let codes = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(RecoveryCodesView::from(codes)))
}

/// Disable an operator's second factor
///
/// Removes the app and the recovery codes. Where operators need a second factor the answer is 409; for a lost device there is
/// `tenantry operator reset-mfa`.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/disable", operation_id = "disable_operator_mfa", tag = "Operators",
    request_body = DisableBody,
    responses((status = 204, description = "The second factor is removed.")),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["account_locked", "rate_limited", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn disable(
    cx: OperatorCtx<may::ManageOwnAccount>,
    http: HttpRequest,
    body: Body<DisableBody>,
) -> Answer {
    let DisableBody { password, code } = body.0;
    let attempt = attempt_of_caller(&cx, &http).await?;
    let outcome = operator_mfa::disable(&cx, Password::presented(password), &code).await;
    attempt.settle(outcome).await?;
    Ok(no_content())
}

/// Give an operator's second factor again
///
/// Returns an access token that says that the second factor was given now, for requests that need a recent one (403 `mfa_required` with
/// `max_age`). It expires when the present token does. With `rotate`, all other tokens of the operator and the accesses to tenants end.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/step-up", operation_id = "step_up_operator_mfa", tag = "Operators",
    request_body = StepUpBody,
    responses((status = 200, description = "The access token and the operator.", body = OperatorLoggedInView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["account_locked", "rate_limited", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn step_up(
    cx: OperatorCtx<may::ManageOwnAccount>,
    http: HttpRequest,
    body: Body<StepUpBody>,
) -> Answer {
    let attempt = attempt_of_caller(&cx, &http).await?;
    let outcome = operator_login::step_up(&cx, &body.code, body.rotate).await;
    let login = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(OperatorLoggedInView::from(login)))
}

/// Renew an operator's recovery codes
///
/// Returns ten new codes and ends the old ones.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/recovery-codes", operation_id = "renew_operator_recovery_codes", tag = "Operators",
    request_body = CodeBody,
    responses((status = 200, description = "The recovery codes.", body = RecoveryCodesView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["account_locked", "rate_limited", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn renew_recovery_codes(
    cx: OperatorCtx<may::ManageOwnAccount>,
    http: HttpRequest,
    body: Body<CodeBody>,
) -> Answer {
    let attempt = attempt_of_caller(&cx, &http).await?;
    let outcome = operator_mfa::renew_recovery_codes(&cx, &body.code).await;
    let codes = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(RecoveryCodesView::from(codes)))
}

/// Finish an operator's login with the second factor
///
/// Takes the `mfa_token` of a login that was answered `mfa_required`. It is valid for five minutes, and until a login of the
/// operator is finished.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/verify", operation_id = "verify_operator_mfa", tag = "Operators",
    request_body = VerifyOperatorBody,
    responses((status = 200, description = "The access token and the operator.", body = OperatorLoggedInView)),
    extensions(("x-errors" = json!(["account_locked", "invalid_credentials", "token_revoked"]))),
)]
pub(crate) async fn verify(guest: Guest, body: Body<VerifyOperatorBody>) -> Answer {
    let (pending, attempt) = enter(&guest, &body.mfa_token).await?;
    let outcome = operator_login::verify(guest.app(), visit(&guest), pending, &body.code).await;
    let login = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(OperatorLoggedInView::from(login)))
}

/// Enroll the second factor that operators need
///
/// Takes the `mfa_token` of a login that was answered `mfa_required` with the method `enroll`. Returns a new secret.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/required/enroll", operation_id = "enroll_required_operator_mfa", tag = "Operators",
    request_body = EnrollBody,
    responses((status = 200, description = "The secret, as text, URI and QR code.", body = EnrollmentView)),
    extensions(("x-errors" = json!(["token_revoked", "conflict"]))),
)]
pub(crate) async fn enroll_at_login(guest: Guest, body: Body<EnrollBody>) -> Answer {
    let (pending, attempt) = enter(&guest, &body.mfa_token).await?;
    let outcome = operator_login::enroll(guest.app(), visit(&guest), pending).await;
    let enrollment = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(EnrollmentView::of(enrollment)?))
}

/// Confirm the second factor that operators need
///
/// Finishes the login with a code of the app. Returns recovery codes too.
#[utoipa::path(
    post, path = "/api/v1/admin/mfa/required/confirm", operation_id = "confirm_required_operator_mfa", tag = "Operators",
    request_body = ConfirmBody,
    responses((
        status = 200, description = "The access token, the operator and the recovery codes.",
        body = OperatorEnrolledView
    )),
    extensions(("x-errors" = json!(["invalid_credentials", "token_revoked", "conflict"]))),
)]
pub(crate) async fn confirm_at_login(guest: Guest, body: Body<ConfirmBody>) -> Answer {
    let (pending, attempt) = enter(&guest, &body.mfa_token).await?;
    let outcome = operator_login::confirm(guest.app(), visit(&guest), pending, &body.code).await;
    let done = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(OperatorEnrolledView::from(done)))
}

/// Reads the token of a login that waits, and takes an attempt from the buckets of its account.
async fn enter(guest: &Guest, token: &str) -> Result<(PendingOperator, Attempt), ApiError> {
    let token = URL_SAFE_NO_PAD.decode(token).ok();
    let pending = token.and_then(|token| operator_login::read_token(guest.app(), &token));
    let pending = pending.ok_or(OperatorError::InvalidToken)?;
    let email = operator_login::account_of(guest.app(), pending).await?;
    Ok((pending, guest.operator_attempt(email.as_str()).await?))
}

/// Takes an attempt from the buckets of the account of the operator who is logged in.
pub(crate) async fn attempt_of_caller(cx: &OperatorCx, http: &HttpRequest) -> Result<Attempt, ApiError> {
    let email = operator_mfa::own_email(cx).await?;
    operator_attempt(http, cx.app(), cx.origin(), email.as_str()).await
}

impl From<OperatorEnrolled> for OperatorEnrolledView {
    fn from(done: OperatorEnrolled) -> Self {
        Self {
            login: done.login.into(),
            recovery_codes: done.recovery_codes.iter().map(RecoveryCode::reveal).collect(),
        }
    }
}
