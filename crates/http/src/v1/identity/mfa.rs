use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use qrcode::{EcLevel, QrCode, render::svg};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{Password, RecoveryCode, TrustedDevice};
use tenantry_domain::kernel::{ErrorCode, Network, UserId};
use tenantry_domain::operations::{Account, AccountName};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::{
    account, known_network,
    mfa::{self, Enrolled, Enrollment, FreshToken, MfaError, PendingLogin, Verified},
};
use utoipa::ToSchema;

use crate::extract::guest::{Guest, TenantHeaders};
use crate::middleware::limits::{self, Attempt};
use crate::v1::identity::auth::LoggedInView;
use crate::{
    Answer, Api, ApiError, Body, Ctx, Endpoint, Id, OptionalBody, no_content,
    permission::{ManageOwnAccount, ManageUsers},
};

/// An authenticator app that waits for its confirmation. It is shown once.
#[derive(Serialize, ToSchema)]
#[schema(as = MfaEnrollment)]
pub(crate) struct EnrollmentView {
    /// The secret in base32, to type into an app.
    #[schema(examples("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"))]
    secret: String,
    /// The key URI of the app: SHA-1, 6 digits, 30 seconds.
    #[schema(examples(
        "otpauth://totp/Acme:ada%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme&algorithm=SHA1&digits=6&period=30"
    ))]
    otpauth_uri: String,
    /// A QR code of the URI, as an SVG document.
    qr_svg: String,
}

/// Recovery codes. They are shown once.
#[derive(Serialize, ToSchema)]
#[schema(as = RecoveryCodes)]
pub(crate) struct RecoveryCodesView {
    /// Ten codes, each of which works once in place of a code of the app.
    recovery_codes: Vec<String>,
}

/// A fresh access token, and the refresh token of the session that replaces the present one.
#[derive(Serialize, ToSchema)]
#[schema(as = FreshToken)]
pub(crate) struct FreshTokenView {
    /// For `Authorization: Bearer …`; a JWT.
    access_token: String,
    /// `Bearer`.
    #[schema(examples("Bearer"))]
    token_type: &'static str,
    /// The lifetime of the access token, in seconds.
    #[schema(examples(900))]
    expires_in: i64,
    /// With `rotate` only: the refresh token to go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("rt_…"))]
    refresh_token: Option<String>,
}

/// A code of the second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MfaCode, examples(json!({"code": "123456"})))]
pub(crate) struct CodeBody {
    /// Six digits of the app, or a recovery code. When an enrollment is confirmed: six digits of the app.
    pub code: String,
}

/// A code of the second factor, and whether the session is replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StepUpMfa, examples(json!({"code": "123456"})))]
pub(crate) struct StepUpBody {
    /// Six digits of the app, or a recovery code.
    pub code: String,
    /// Whether all earlier tokens of the session end; of an operator, all other tokens.
    #[serde(default)]
    pub rotate: bool,
}

/// A code of the second factor, and the password of the account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RenewRecoveryCodes, examples(json!({"code": "123456"})))]
pub(crate) struct RenewBody {
    /// Six digits of the app, or a recovery code.
    code: String,
    /// The password of the account; needed when the session began more than 10 minutes ago.
    password: Option<String>,
}

/// The password and a code of the second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DisableMfa, examples(json!({"password": "correct horse battery staple", "code": "123456"})))]
pub(crate) struct DisableBody {
    pub password: String,
    /// Six digits of the app, or a recovery code.
    pub code: String,
}

/// A login that waits for its second factor, and the code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VerifyMfa)]
pub(crate) struct VerifyBody {
    /// The `mfa_token` of the problem `mfa_required`.
    mfa_token: String,
    /// Six digits of the app, or a recovery code.
    code: String,
    /// Whether later logins on this device need no code for 30 days.
    trust_device: Option<bool>,
}

/// The `mfa_token` of a login that waits for the enrollment of a second factor, and a code of the app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfirmMfaAtLogin)]
pub(crate) struct ConfirmBody {
    /// The `mfa_token` of the problem `mfa_required` whose `methods` are `enroll`.
    pub mfa_token: String,
    /// Six digits of the app.
    pub code: String,
}

/// The tokens of a session that began with a code.
#[derive(Serialize, ToSchema)]
#[schema(as = Verified)]
pub(crate) struct VerifiedView {
    #[serde(flatten)]
    login: LoggedInView,
    /// For later logins on this device, with `trust_device`. It is shown once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    device_token: Option<String>,
}

/// A device on which the user logs in without a code.
#[derive(Serialize, ToSchema)]
#[schema(as = TrustedDevice)]
pub(crate) struct TrustedDeviceView {
    /// The `User-Agent` of the login with which the trust began.
    user_agent: Option<String>,
    /// The address of that login.
    address: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

/// The trusted devices of the user.
#[derive(Serialize, ToSchema)]
#[schema(as = TrustedDevices)]
pub(crate) struct TrustedDevicesView {
    /// Newest first; ten at the most.
    data: Vec<TrustedDeviceView>,
}

/// The enrollment of an app in a session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EnrollMfa)]
pub(crate) struct EnrollOwnBody {
    /// The password of the account; needed when the session began more than 10 minutes ago.
    password: Option<String>,
}

/// A login that waits for the enrollment of a second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EnrollMfaAtLogin)]
pub(crate) struct EnrollBody {
    /// The `mfa_token` of the problem `mfa_required` whose `methods` are `enroll`.
    pub mfa_token: String,
}

/// The tokens of a session that began with the enrollment of a second factor.
#[derive(Serialize, ToSchema)]
#[schema(as = EnrolledAtLogin)]
pub(crate) struct EnrolledView {
    #[serde(flatten)]
    login: LoggedInView,
    /// Ten codes, each of which works once in place of a code of the app. They are shown once.
    recovery_codes: Vec<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/auth/mfa/enroll").post(enroll))
        .service(Endpoint::at("/auth/mfa/confirm").post(confirm))
        .service(Endpoint::at("/auth/mfa/disable").post(disable))
        .service(Endpoint::at("/auth/mfa/recovery-codes").post(renew_recovery_codes))
        .service(Endpoint::at("/auth/mfa/step-up").post(step_up))
        .service(Endpoint::credential("/auth/mfa/verify").post(verify))
        .service(Endpoint::credential("/auth/mfa/required/enroll").post(enroll_at_login))
        .service(Endpoint::credential("/auth/mfa/required/confirm").post(confirm_at_login))
        .service(
            Endpoint::at("/auth/mfa/devices")
                .get(list_devices)
                .delete(revoke_devices),
        )
        .service(Endpoint::at("/users/{id}/reset-mfa").post(reset));
}

/// Enroll an authenticator app
///
/// Returns a new secret. It takes effect when `POST /auth/mfa/confirm` gets a code of it; an earlier enrollment that was
/// not confirmed ends. When the session began more than 10 minutes ago, send the password. A wrong one counts as a failed
/// login. A user with a passkey logs in with it first (403 `mfa_required`). Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/enroll", operation_id = "enroll_mfa", tag = "Authentication",
    request_body = Option<EnrollOwnBody>,
    responses((status = 200, description = "The secret, as text, URI and QR code.", body = EnrollmentView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "account_locked", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn enroll(
    cx: Ctx<ManageOwnAccount>,
    http: HttpRequest,
    body: OptionalBody<EnrollOwnBody>,
) -> Answer {
    let password = body.0.and_then(|body| body.password).map(Password::presented);
    let attempt = attempt_of_caller(&cx, &http).await?;
    let enrollment = attempt.settle(mfa::enroll(&cx, password).await).await?;
    Ok(HttpResponse::Ok().json(EnrollmentView::of(enrollment)?))
}

/// Confirm the authenticator app
///
/// From now on a login needs the second factor. Returns recovery codes. A user who got a passkey since the enrollment began logs in
/// with it first (403 `mfa_required`). Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/confirm", operation_id = "confirm_mfa", tag = "Authentication",
    request_body = CodeBody,
    responses((status = 200, description = "The recovery codes.", body = RecoveryCodesView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn confirm(cx: Ctx<ManageOwnAccount>, http: HttpRequest, body: Body<CodeBody>) -> Answer {
    let attempt = attempt_of_caller(&cx, &http).await?;
    let codes = attempt.settle(mfa::confirm(&cx, &body.code).await).await?;
    Ok(HttpResponse::Ok().json(RecoveryCodesView::from(codes)))
}

/// Disable the second factor
///
/// Removes the app and the recovery codes. Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/disable", operation_id = "disable_mfa", tag = "Authentication",
    request_body = DisableBody,
    responses((status = 204, description = "The second factor is removed.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["account_locked", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn disable(cx: Ctx<ManageOwnAccount>, http: HttpRequest, body: Body<DisableBody>) -> Answer {
    let DisableBody { password, code } = body.0;
    let attempt = attempt_of_caller(&cx, &http).await?;
    let outcome = mfa::disable(&cx, Password::presented(password), &code).await;
    attempt.settle(outcome).await?;
    Ok(no_content())
}

/// Renew the recovery codes
///
/// Returns ten new codes and ends the old ones. When the session began more than 10 minutes ago, send the password, too. A wrong one
/// counts as a failed login. Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/recovery-codes", operation_id = "renew_recovery_codes", tag = "Authentication",
    request_body = RenewBody,
    responses((status = 200, description = "The recovery codes.", body = RecoveryCodesView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["account_locked", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn renew_recovery_codes(
    cx: Ctx<ManageOwnAccount>,
    http: HttpRequest,
    body: Body<RenewBody>,
) -> Answer {
    let RenewBody { code, password } = body.0;
    let attempt = attempt_of_caller(&cx, &http).await?;
    let outcome = mfa::renew_recovery_codes(&cx, &code, password.map(Password::presented)).await;
    let codes = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(RecoveryCodesView::from(codes)))
}

/// Give the second factor again
///
/// For requests that need a recent second factor (403 `mfa_required`). Returns an access token of the same session, which alone
/// counts as stepped up: the earlier tokens stay as they were. With `rotate`, a new session takes the place of the present one: all earlier
/// access and refresh tokens end at once, and the answer has the `refresh_token` to go on with. It lives no longer than the present one
/// would, and the factor counts in it as that of a login does. A client that loses the answer logs in again.
/// Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/step-up", operation_id = "step_up_mfa", tag = "Authentication",
    request_body = StepUpBody,
    responses((status = 200, description = "The access token.", body = FreshTokenView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["account_locked", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn step_up(cx: Ctx<ManageOwnAccount>, http: HttpRequest, body: Body<StepUpBody>) -> Answer {
    let attempt = attempt_of_caller(&cx, &http).await?;
    let outcome = mfa::step_up(&cx, &body.code, body.rotate).await;
    let fresh = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(FreshTokenView::from(fresh)))
}

/// Finish a login with the second factor
///
/// Takes the `mfa_token` of a login that was answered `mfa_required`. It is valid for five minutes, for five codes and for
/// one session. With `trust_device`, later logins with the returned `device_token` need no code for 30 days.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/verify", operation_id = "verify_mfa", tag = "Authentication",
    params(TenantHeaders), request_body = VerifyBody,
    responses((status = 200, description = "The tokens, the user and the tenant.", body = VerifiedView)),
    extensions(("x-errors" = json!([
        "account_locked",
        "invalid_credentials", "token_revoked", "tenant_not_found", "tenant_mismatch", "tenant_gone"
    ]))),
)]
pub(crate) async fn verify(guest: Guest, http: HttpRequest, body: Body<VerifyBody>) -> Answer {
    let (cx, login) = enter(guest, &body.mfa_token).await?;
    let email = mfa::account_of(&cx, &login).await?;
    let attempt = attempt(&cx, &http, &email).await?;
    let trust_device = body.trust_device.unwrap_or(false);
    let outcome = mfa::verify(&cx, &login, &body.code, trust_device).await;
    let done = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(VerifiedView::from(done)))
}

/// Enroll the second factor that the tenant requires
///
/// Takes the `mfa_token` of a login that was answered `mfa_required` with the method `enroll`. Returns a new secret.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/required/enroll", operation_id = "enroll_required_mfa", tag = "Authentication",
    params(TenantHeaders), request_body = EnrollBody,
    responses((status = 200, description = "The secret, as text, URI and QR code.", body = EnrollmentView)),
    extensions(("x-errors" = json!([
        "token_revoked", "conflict", "tenant_not_found", "tenant_mismatch", "tenant_gone"
    ]))),
)]
pub(crate) async fn enroll_at_login(guest: Guest, body: Body<EnrollBody>) -> Answer {
    let (cx, login) = enter(guest, &body.mfa_token).await?;
    let enrollment = mfa::enroll_at_login(&cx, &login).await?;
    Ok(HttpResponse::Ok().json(EnrollmentView::of(enrollment)?))
}

/// Confirm the second factor that the tenant requires
///
/// Finishes the login with a code of the app. Returns recovery codes too.
#[utoipa::path(
    post, path = "/api/v1/auth/mfa/required/confirm", operation_id = "confirm_required_mfa", tag = "Authentication",
    params(TenantHeaders), request_body = ConfirmBody,
    responses(
        (status = 200, description = "The tokens, the user, the tenant and the recovery codes.", body = EnrolledView),
    ),
    extensions(("x-errors" = json!([
        "invalid_credentials", "token_revoked", "conflict", "tenant_not_found", "tenant_mismatch", "tenant_gone"
    ]))),
)]
pub(crate) async fn confirm_at_login(guest: Guest, http: HttpRequest, body: Body<ConfirmBody>) -> Answer {
    let (cx, login) = enter(guest, &body.mfa_token).await?;
    let email = mfa::account_of(&cx, &login).await?;
    let attempt = attempt(&cx, &http, &email).await?;
    let outcome = mfa::confirm_at_login(&cx, &login, &body.code).await;
    let done = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(EnrolledView::from(done)))
}

/// List trusted devices
///
/// Returns the devices on which the current user logs in without a code. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/auth/mfa/devices", operation_id = "list_trusted_devices", tag = "Authentication",
    responses((status = 200, description = "The trusted devices.", body = TrustedDevicesView)),
    security(("bearer" = [])),
)]
pub(crate) async fn list_devices(cx: Ctx<ManageOwnAccount>) -> Answer {
    let devices = mfa::list_devices(&cx).await?.into_iter();
    let data = devices.map(TrustedDeviceView::from).collect();
    Ok(HttpResponse::Ok().json(TrustedDevicesView { data }))
}

/// Revoke trusted devices
///
/// Ends the trust in all devices of the current user. Minimum role: viewer.
#[utoipa::path(
    delete, path = "/api/v1/auth/mfa/devices", operation_id = "revoke_trusted_devices", tag = "Authentication",
    responses((status = 204, description = "No device is trusted.")),
    security(("bearer" = [])),
)]
pub(crate) async fn revoke_devices(cx: Ctx<ManageOwnAccount>) -> Answer {
    mfa::revoke_devices(&cx).await?;
    Ok(no_content())
}

/// Remove the second factor of a user
///
/// For a user who has lost it. Ends the sessions of the user. Users disable their own factor instead. The caller needs a
/// second factor of their own that was enabled at least 24 hours ago, and gives it within 10 minutes before. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/reset-mfa", operation_id = "reset_mfa", tag = "Users",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "The user has no second factor.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "403 mfa_required", "conflict"]))),
)]
pub(crate) async fn reset(cx: Ctx<ManageUsers>, id: Id<UserId>) -> Answer {
    mfa::reset(&cx, id.0).await?;
    Ok(no_content())
}

/// Enters the tenant of a login that waits.
async fn enter(guest: Guest, token: &str) -> Result<(Cx, PendingLogin), ApiError> {
    let token = URL_SAFE_NO_PAD.decode(token).ok();
    let login = token.and_then(|token| mfa::read_token(guest.app(), &token));
    let login = login.ok_or(MfaError::InvalidToken)?;
    Ok((guest.enter_by_token(login.tenant).await?, login))
}

async fn attempt_of_caller(cx: &Cx, http: &HttpRequest) -> Result<Attempt, ApiError> {
    let email = account::own_email(cx).await?;
    attempt(cx, http, email.as_str()).await
}

/// Takes an attempt from the buckets that failed logins to the account are counted in.
async fn attempt(cx: &Cx, http: &HttpRequest, email: &str) -> Result<Attempt, ApiError> {
    let api = Api::of(http)?;
    let account = Account::User(cx.scope().tenant(), AccountName::of(email));
    let network = Network::site(cx.origin().address());
    let is_known = async || known_network::is_known_network(cx, email, network).await;
    limits::take_of_account(http, &api, account, network, is_known).await
}

impl EnrollmentView {
    pub(crate) fn of(enrollment: Enrollment) -> Result<Self, ApiError> {
        let code = QrCode::with_error_correction_level(&enrollment.uri, EcLevel::M);
        // The names in the URI are bounded, so that it always fits.
        let code = code.map_err(|error| ApiError::new(ErrorCode::Internal).caused_by(error.to_string()))?;
        Ok(Self {
            secret: enrollment.secret.base32(),
            qr_svg: code.render::<svg::Color>().min_dimensions(240, 240).build(),
            otpauth_uri: enrollment.uri,
        })
    }
}

impl From<Vec<RecoveryCode>> for RecoveryCodesView {
    fn from(codes: Vec<RecoveryCode>) -> Self {
        Self {
            recovery_codes: codes.iter().map(RecoveryCode::reveal).collect(),
        }
    }
}

impl From<Enrolled> for EnrolledView {
    fn from(done: Enrolled) -> Self {
        Self {
            login: done.login.into(),
            recovery_codes: done.recovery_codes.iter().map(RecoveryCode::reveal).collect(),
        }
    }
}

impl From<Verified> for VerifiedView {
    fn from(done: Verified) -> Self {
        Self {
            login: done.login.into(),
            device_token: done.device_token.map(|token| token.reveal().to_owned()),
        }
    }
}

impl From<TrustedDevice> for TrustedDeviceView {
    fn from(device: TrustedDevice) -> Self {
        Self {
            user_agent: device.user_agent,
            address: device.ip,
            created_at: device.created_at,
            expires_at: device.expires_at,
        }
    }
}

impl From<FreshToken> for FreshTokenView {
    fn from(fresh: FreshToken) -> Self {
        Self {
            access_token: fresh.access_token,
            token_type: "Bearer",
            expires_in: fresh.expires_in,
            refresh_token: fresh.refresh_token,
        }
    }
}
