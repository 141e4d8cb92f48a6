use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use serde::Deserialize;
use tenantry_domain::identity::{LinkPurpose, Password};
use tenantry_domain::kernel::{Network, UserId};
use tenantry_domain::operations::{Account, AccountName};
use tenantry_tenancy::identity::{
    account::{self, Registrant},
    account_email,
    challenge::ChallengeResponse,
};
use utoipa::ToSchema;

use crate::extract::challenge::{ChallengeHeader, Response};
use crate::extract::guest::{Guest, TenantHeaders};
use crate::middleware::limits;
use crate::{
    Answer, Api, Body, Ctx, Endpoint, Id, no_content,
    permission::{ManageOwnAccount, ManageUsers},
};

/// The present password and the new one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangePassword, examples(json!({
    "current_password": "correct horse battery staple", "new_password": "a different horse entirely",
})))]
pub(crate) struct ChangePasswordBody {
    current_password: String,
    #[schema(min_length = 12, max_length = 128)]
    new_password: String,
}

/// The address of an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AskForLink, examples(json!({"email": "ada@example.com", "tenant_slug": "acme"})))]
pub(crate) struct AskForLinkBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// The slug of the tenant, when neither a header nor the host names it.
    tenant_slug: Option<String>,
}

/// A new address, and the password of the account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeEmail, examples(json!({
    "email": "ada@new.example", "password": "correct horse battery staple",
})))]
pub(crate) struct ChangeEmailBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
    password: String,
}

/// The token of a link, and a new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResetPassword, examples(json!({"token": "lt_…", "new_password": "a different horse entirely"})))]
pub(crate) struct ResetPasswordBody {
    /// What follows `#token=` in the link.
    token: String,
    #[schema(min_length = 12, max_length = 128)]
    new_password: String,
}

/// The token of a link.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkToken, examples(json!({"token": "lt_…"})))]
pub(crate) struct LinkBody {
    /// What follows `#token=` in the link.
    token: String,
}

/// The token of a link to verify an address, and what shows that the caller has registered with it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VerifyEmail, examples(json!({"token": "lt_…", "password": "correct horse battery staple"})))]
pub(crate) struct VerifyBody {
    /// What follows `#token=` in the link.
    token: String,
    /// The password of the account: a user who registered keeps it so. Not needed with an access token of the account.
    password: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/auth/change-password").post(change_password))
        .service(Endpoint::credential("/auth/forgot-password").post(forgot_password))
        .service(Endpoint::credential("/auth/reset-password").post(reset_password))
        .service(Endpoint::credential("/auth/verify-email").post(verify_email))
        .service(Endpoint::credential("/auth/resend-verification").post(resend_verification))
        .service(Endpoint::at("/auth/change-email").post(change_email))
        .service(Endpoint::credential("/auth/confirm-email").post(confirm_email))
        .service(Endpoint::credential("/auth/revert-email").post(revert_email))
        .service(Endpoint::at("/users/{id}/send-reset").post(send_reset));
}

/// Change the password
///
/// All other sessions of the user end, and the user is notified by mail. A wrong present password is 401
/// `invalid_credentials` and counts as a failed login. A user with a second factor gives it within 10 minutes before. Also
/// possible in a suspended tenant. Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/change-password", operation_id = "change_password", tag = "Authentication",
    request_body = ChangePasswordBody,
    responses((status = 204, description = "The password is changed.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "account_locked", "invalid_credentials"]))),
)]
pub(crate) async fn change_password(
    cx: Ctx<ManageOwnAccount>,
    http: HttpRequest,
    body: Body<ChangePasswordBody>,
) -> Answer {
    let email = account::own_email(&cx).await?;
    let attempt = limits::confirm_account(&http, &cx, &email).await?;
    let current = Password::presented(body.0.current_password);
    let outcome = account::change_password(&cx, current, body.0.new_password).await;
    attempt.settle(outcome).await?;
    Ok(no_content())
}

/// Send a link to reset the password
///
/// Always 202, whether or not an active user has the address; such a user gets a mail with a link that works once, for an
/// hour, and up to three links work at once. Within five minutes no second mail is sent. Name the tenant as at login.
#[utoipa::path(
    post, path = "/api/v1/auth/forgot-password", operation_id = "forgot_password", tag = "Authentication",
    params(TenantHeaders, ChallengeHeader), request_body = AskForLinkBody,
    responses((status = 202, description = "If a user has this address, a mail is on its way.")),
    extensions(("x-errors" = json!([
        "tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone", "challenge_required",
        "challenge_unavailable"
    ]))),
)]
pub(crate) async fn forgot_password(guest: Guest, challenge: Response, body: Body<AskForLinkBody>) -> Answer {
    ask_for_link(guest, body.0, LinkPurpose::ResetPassword, challenge.0).await
}

/// Reset the password
///
/// Takes the token of a link from `forgot-password`. All sessions of the user end, the address counts as verified, and
/// logins that failed before no longer count. Apps and passkeys that were added within the 24 hours before the link was made are removed;
/// of a user who registered and never proved the address, all of them, and the user's API keys are revoked. A mail names the passkeys that
/// remain. A token that was used, was replaced or has expired is 422. So is a token of a registration whose domain the tenant does not
/// allow any more (`domain_not_allowed` at `/token`); where the plan has no place for it the answer is `plan_limit_reached`.
#[utoipa::path(
    post, path = "/api/v1/auth/reset-password", operation_id = "reset_password", tag = "Authentication",
    params(TenantHeaders), request_body = ResetPasswordBody,
    responses((status = 204, description = "The password is replaced.")),
    extensions(("x-errors" = json!(["tenant_not_found", "tenant_mismatch", "tenant_gone", "plan_limit_reached"]))),
)]
pub(crate) async fn reset_password(guest: Guest, http: HttpRequest, body: Body<ResetPasswordBody>) -> Answer {
    let (cx, token) = guest.enter_by_link(&body.0.token).await?;
    let user = account::reset_password(&cx, &token, body.0.new_password).await?;
    let account = Account::User(cx.scope().tenant(), AccountName::of(user.email.as_str()));
    let network = Network::site(cx.origin().address());
    limits::unlock_account(&*Api::of(&http)?, account, network).await;
    Ok(no_content())
}

/// Verify an e-mail address
///
/// Takes the token of a link that was mailed to the address: at registration and sign-up, when an admin creates a user, or
/// by `resend-verification`. A token that was used, was replaced or has expired is 422.
///
/// A user who registered sends the password, too, or an access token of the account. Without either, the password, sessions, factors and
/// API keys of the registration end, since a stranger may have registered with the address, and a link to choose a new password is mailed.
/// A wrong password is 401 `invalid_credentials`, counts for the lockout of the account, and does not use the link up. A registration whose domain the
/// tenant does not allow any more is `domain_not_allowed` at `/token`; where the plan has no place for it the answer is
/// `plan_limit_reached`.
#[utoipa::path(
    post, path = "/api/v1/auth/verify-email", operation_id = "verify_email", tag = "Authentication",
    params(TenantHeaders), request_body = VerifyBody,
    responses((status = 204, description = "The address is verified.")),
    extensions(("x-errors" = json!([
        "tenant_not_found", "tenant_mismatch", "tenant_gone", "account_locked", "invalid_credentials", "plan_limit_reached"
    ]))),
)]
pub(crate) async fn verify_email(guest: Guest, body: Body<VerifyBody>) -> Answer {
    let registrant = Registrant {
        session_of: guest.signed_in().await?,
        password: body.0.password.map(Password::presented),
    };
    let (cx, token) = guest.enter_by_link(&body.0.token).await?;
    account::verify_email(&cx, &token, registrant).await?;
    Ok(no_content())
}

/// Send a link to verify an e-mail address
///
/// Always 202, whether or not an active user has the address and has not verified it. Name the tenant as at login.
#[utoipa::path(
    post, path = "/api/v1/auth/resend-verification", operation_id = "resend_verification", tag = "Authentication",
    params(TenantHeaders), request_body = AskForLinkBody,
    responses((status = 202, description = "If a user has this address unverified, a mail is on its way.")),
    extensions(("x-errors" = json!(["tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone"]))),
)]
pub(crate) async fn resend_verification(guest: Guest, body: Body<AskForLinkBody>) -> Answer {
    ask_for_link(
        guest,
        body.0,
        LinkPurpose::VerifyEmail,
        ChallengeResponse::default(),
    )
    .await
}

/// Change the e-mail address
///
/// The new address gets a link that `confirm-email` takes; until then the account keeps its address. Always 202 after the
/// right password, also when another user has the address. A wrong password is 401 `invalid_credentials` and counts as a
/// failed login. A user with a second factor gives it within 10 minutes before. A user gets ten of these links a day (409
/// `conflict`). Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/change-email", operation_id = "change_email", tag = "Authentication",
    request_body = ChangeEmailBody,
    responses((status = 202, description = "A mail is on its way.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "account_locked", "invalid_credentials", "conflict"]))),
)]
pub(crate) async fn change_email(
    cx: Ctx<ManageOwnAccount>,
    http: HttpRequest,
    body: Body<ChangeEmailBody>,
) -> Answer {
    let own = account::own_email(&cx).await?;
    let attempt = limits::confirm_account(&http, &cx, &own).await?;
    let password = Password::presented(body.0.password);
    let outcome = account_email::change(&cx, &body.0.email, password).await;
    attempt.settle(outcome).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// Confirm a new e-mail address
///
/// Takes the token of a link from `change-email`. The account has the new address then, verified, and the former one gets a
/// link that `revert-email` takes for seven days. An address of a domain that the tenant does not allow any more is
/// `domain_not_allowed` at `/token`.
#[utoipa::path(
    post, path = "/api/v1/auth/confirm-email", operation_id = "confirm_email", tag = "Authentication",
    params(TenantHeaders), request_body = LinkBody,
    responses((status = 204, description = "The account has the new address.")),
    extensions(("x-errors" = json!([
        "tenant_not_found", "tenant_mismatch", "tenant_gone", "email_taken", "conflict"
    ]))),
)]
pub(crate) async fn confirm_email(guest: Guest, body: Body<LinkBody>) -> Answer {
    let (cx, token) = guest.enter_by_link(&body.0.token).await?;
    account_email::confirm(&cx, &token).await?;
    Ok(no_content())
}

/// Take a change of e-mail address back
///
/// Takes the token of the link that the former address got. The account has that address again. All sessions of the user and
/// the password end, and a link to choose a new password is mailed. A second factor or a passkey stays if it was added at least 24 hours
/// before the change.
#[utoipa::path(
    post, path = "/api/v1/auth/revert-email", operation_id = "revert_email", tag = "Authentication",
    params(TenantHeaders), request_body = LinkBody,
    responses((status = 204, description = "The account has its former address.")),
    extensions(("x-errors" = json!(["tenant_not_found", "tenant_mismatch", "tenant_gone", "email_taken"]))),
)]
pub(crate) async fn revert_email(guest: Guest, body: Body<LinkBody>) -> Answer {
    let (cx, token) = guest.enter_by_link(&body.0.token).await?;
    account_email::revert(&cx, &token).await?;
    Ok(no_content())
}

/// Send a user a link to reset the password
///
/// The user gets it by mail; the password stays as it is until the link is used. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/send-reset", operation_id = "send_reset", tag = "Users",
    params(("id" = Uuid, Path)),
    responses((status = 202, description = "A mail is on its way.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "conflict"]))),
)]
pub(crate) async fn send_reset(cx: Ctx<ManageUsers>, id: Id<UserId>) -> Answer {
    account::send_reset(&cx, id.0).await?;
    Ok(HttpResponse::Accepted().finish())
}

async fn ask_for_link(
    guest: Guest,
    body: AskForLinkBody,
    purpose: LinkPurpose,
    challenge: ChallengeResponse,
) -> Answer {
    let cx = guest.enter_to_ask(body.tenant_slug, &body.email).await?;
    account::ask_for_link(&cx, purpose, &body.email, &challenge).await?;
    Ok(HttpResponse::Accepted().finish())
}
