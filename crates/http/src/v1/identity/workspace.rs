use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use serde::Deserialize;
use tenantry_domain::identity::Password;
use tenantry_domain::kernel::Network;
use tenantry_domain::operations::{Account, AccountName};
use tenantry_tenancy::identity::{account, auth::AuthError, workspace, workspace_switch};
use utoipa::ToSchema;

use crate::extract::challenge::{ChallengeHeader, Response};
use crate::extract::guest::Guest;
use crate::middleware::limits;
use crate::v1::identity::auth::LoggedInView;
use crate::{Answer, Api, Body, Ctx, Endpoint, permission::ManageOwnAccount};

/// The address whose workspaces are asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Discover, examples(json!({"email": "ada@example.com"})))]
pub(crate) struct DiscoverBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
}

/// Where the user also has an account with the same address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SwitchTenant, examples(json!({"tenant_slug": "globex"})))]
pub(crate) struct SwitchTenantBody {
    /// Names the other tenant, as at its login.
    tenant_slug: String,
    /// The password of the present account; needed when the session began more than 10 minutes ago.
    password: Option<String>,
    /// The token of an invitation to that tenant, mailed to the address of the present account. The account there is then made first, with
    /// the name of the present one.
    invitation_token: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::credential("/auth/discover").post(discover))
        .service(Endpoint::at("/auth/switch-tenant").post(switch_tenant));
}

/// Send the list of workspaces
///
/// Always 202, whether or not the address has an account. An address that has active accounts for which it is verified gets a mail
/// with the names, slugs and login links of their tenants; any other gets none. While a request of the address waits, further ones
/// do nothing. Headers and host name no tenant here.
#[utoipa::path(
    post, path = "/api/v1/auth/discover", operation_id = "discover_workspaces", tag = "Authentication",
    params(ChallengeHeader), request_body = DiscoverBody,
    responses((status = 202, description = "If the address has workspaces, a mail is on its way.")),
    extensions(("x-errors" = json!(["challenge_required", "challenge_unavailable"]))),
)]
pub(crate) async fn discover(
    guest: Guest,
    http: HttpRequest,
    challenge: Response,
    body: Body<DiscoverBody>,
) -> Answer {
    let origin = guest.origin();
    let account = Account::Discovered(AccountName::of(&body.0.email));
    let network = Network::site(origin.address());
    limits::take_of_mailed(&http, &*Api::of(&http)?, account, network).await?;
    workspace::discover(guest.app(), &origin, &body.0.email, &challenge.0).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// Switch to another tenant
///
/// Begins a session in another tenant in which the user has an active account with the same, verified address, and answers as a
/// login there does: with tokens for that tenant alone, or 401 `mfa_required` for its second factor. The present session goes on.
/// It must have begun with a password that was chosen through a mailed link (`reset-password`), or with a
/// passkey that was registered in such a session; otherwise the response is 403 `mailbox_proof_required`. The link must be no older
/// than the account in the other tenant, its own latest proof, and the latest change of password or end of all sessions there. Without
/// such an account, or where the tenant has `security.allow_tenant_switch` off, the response is 404 `tenant_not_found`, whatever the reason.
/// With `invitation_token` the account there is made first: the invitation must be open and for the address of the session's proof (401
/// `token_revoked` otherwise). It has the name of the present account and no password that anybody knows; `forgot-password` mails a link
/// to choose one.
/// A user with a second factor gives it first (403 `mfa_required`). Other users send the password when the session began more than 10
/// minutes ago; a wrong one counts as a failed login. The new session ends with the present one at the latest. Also possible in a suspended
/// tenant. Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/switch-tenant", operation_id = "switch_tenant", tag = "Authentication",
    request_body = SwitchTenantBody,
    responses((status = 200, description = "The tokens, the user and the tenant.", body = LoggedInView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!([
        "account_locked", "invalid_credentials", "mailbox_proof_required", "mfa_required", "403 mfa_required", "tenant_not_found",
        "token_revoked", "tenant_suspended", "email_taken", "plan_limit_reached"
    ]))),
)]
pub(crate) async fn switch_tenant(
    cx: Ctx<ManageOwnAccount>,
    http: HttpRequest,
    body: Body<SwitchTenantBody>,
) -> Answer {
    if let Some(user) = cx.scope().user() {
        let account = Account::Switching(cx.scope().tenant(), AccountName::of(&user.to_string()));
        let network = Network::site(cx.origin().address());
        limits::take_of_mailed(&http, &*Api::of(&http)?, account, network).await?;
    }
    let SwitchTenantBody {
        tenant_slug,
        password,
        invitation_token,
    } = body.0;
    let email = account::own_email(&cx).await?;
    let attempt = limits::confirm_account(&http, &cx, &email).await?;
    let password = password.map(Password::presented);
    let tokens = &cx.ports().invitation_tokens;
    let invitation = invitation_token.map(|token| tokens.read(&token).ok_or(AuthError::InvalidInvitation));
    let invitation = invitation.transpose()?;
    let outcome = workspace_switch::switch(&cx, &tenant_slug, password, invitation).await;
    let login = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(LoggedInView::from(login)))
}
