use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_domain::identity::{Passkey, PasskeyBackup, Password};
use tenantry_domain::kernel::{Network, PasskeyId};
use tenantry_domain::operations::{Account, AccountName};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::{
    account,
    passkey::{self, Begun, PasskeyError},
};
use utoipa::ToSchema;

use crate::extract::guest::{Guest, TenantHeaders};
use crate::middleware::limits::{self, Attempt};
use crate::v1::identity::auth::LoggedInView;
use crate::{
    Answer, Api, ApiError, Body, Ctx, Endpoint, Id, OptionalBody, created, no_content,
    permission::ManageOwnAccount,
};

/// A registration or a login with a passkey that has begun.
#[derive(Serialize, ToSchema)]
#[schema(as = PasskeyCeremony)]
pub(crate) struct BegunView {
    /// Options of WebAuthn, for `PublicKeyCredential.parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON`.
    #[serde(rename = "publicKey")]
    #[schema(value_type = Object, examples(json!({
        "challenge": "lC8Nqb0yAsSNzlTPpGkWDw", "timeout": 300_000, "rpId": "example.com", "allowCredentials": [],
        "userVerification": "required",
    })))]
    public_key: Value,
    /// What finishes it together with the response of the authenticator. It works once.
    token: String,
    /// How long it can be finished, in seconds.
    #[schema(examples(300))]
    expires_in: i64,
}

/// A passkey of the user.
#[derive(Serialize, ToSchema)]
#[schema(as = Passkey, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "name": "Laptop", "synced": false, "created_at": "2026-01-31T12:00:00Z",
    "last_used_at": null,
})))]
pub(crate) struct PasskeyView {
    #[schema(value_type = Uuid)]
    id: PasskeyId,
    name: String,
    /// Whether it may be on several devices of the user.
    synced: bool,
    created_at: DateTime<Utc>,
    /// The time of the last login with it.
    #[schema(required = true)]
    last_used_at: Option<DateTime<Utc>>,
}

/// The passkeys of the user.
#[derive(Serialize, ToSchema)]
#[schema(as = Passkeys)]
pub(crate) struct PasskeysView {
    /// Oldest first; ten at the most.
    data: Vec<PasskeyView>,
}

/// The registration of a passkey.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BeginPasskeyRegistration)]
pub(crate) struct BeginRegistrationBody {
    /// The password of the account; needed when the session began more than 10 minutes ago and no second factor was given
    /// since.
    password: Option<String>,
}

/// The passkey that an authenticator has made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FinishPasskeyRegistration)]
pub(crate) struct FinishRegistrationBody {
    /// The `token` of `POST /auth/passkeys/registration`.
    token: String,
    /// `credential.toJSON()` of what `navigator.credentials.create()` returned (`RegistrationResponseJSON`).
    #[schema(value_type = Object)]
    credential: Map<String, Value>,
    /// What the user calls it; `Passkey` when absent.
    #[schema(min_length = 1, max_length = 60)]
    name: Option<String>,
}

/// The tenant of a login with a passkey.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BeginPasskeyLogin, examples(json!({"tenant_slug": "acme"})))]
pub(crate) struct BeginLoginBody {
    /// The slug of the tenant, when neither a header nor the host names it.
    tenant_slug: Option<String>,
}

/// The signature of an authenticator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FinishPasskeyLogin)]
pub(crate) struct FinishLoginBody {
    /// The `token` of `POST /auth/passkeys/login`. It names the tenant.
    token: String,
    /// `credential.toJSON()` of what `navigator.credentials.get()` returned (`AuthenticationResponseJSON`).
    #[schema(value_type = Object)]
    credential: Map<String, Value>,
}

/// Another name for a passkey.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RenamePasskey, examples(json!({"name": "Phone"})))]
pub(crate) struct RenameBody {
    #[schema(min_length = 1, max_length = 60)]
    name: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(
            Endpoint::at("/auth/passkeys/registration")
                .post(begin_registration)
                .put(finish_registration),
        )
        .service(
            Endpoint::credential("/auth/passkeys/login")
                .post(begin_login)
                .put(finish_login),
        )
        .service(Endpoint::at("/auth/passkeys").get(list))
        .service(Endpoint::at("/auth/passkeys/{id}").patch(rename).delete(remove));
}

/// Begin to register a passkey
///
/// Returns options for `navigator.credentials.create()`, which are valid for five minutes in this session. A user with a second
/// factor gives it first (403 `mfa_required`). Other users send the password when the session began more than 10 minutes ago; a
/// wrong one counts as a failed login. A user has ten passkeys at the most (409). Minimum role: viewer.
#[utoipa::path(
    post, path = "/api/v1/auth/passkeys/registration", operation_id = "begin_passkey_registration", tag = "Authentication",
    request_body = Option<BeginRegistrationBody>,
    responses((status = 200, description = "The options.", body = BegunView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!([
        "403 mfa_required", "account_locked", "invalid_credentials", "passkeys_unavailable", "conflict"
    ]))),
)]
pub(crate) async fn begin_registration(
    cx: Ctx<ManageOwnAccount>,
    http: HttpRequest,
    body: OptionalBody<BeginRegistrationBody>,
) -> Answer {
    let password = body.0.and_then(|body| body.password).map(Password::presented);
    let email = account::own_email(&cx).await?;
    let attempt = limits::confirm_account(&http, &cx, &email).await?;
    let outcome = passkey::begin_registration(&cx, password).await;
    let begun = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(BegunView::from(begun)))
}

/// Register a passkey
///
/// Takes the response of the authenticator to the options of `POST /auth/passkeys/registration`. A token that was used or has
/// expired is 409, and so is one that is older than the user's app. A user who got a second factor since the registration began gives it
/// first (403 `mfa_required`). An app that waits for its confirmation is removed. Minimum role: viewer.
#[utoipa::path(
    put, path = "/api/v1/auth/passkeys/registration", operation_id = "finish_passkey_registration", tag = "Authentication",
    request_body = FinishRegistrationBody,
    responses((status = 201, description = "The passkey.", body = PasskeyView, headers(("Location")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "passkeys_unavailable", "conflict"]))),
)]
pub(crate) async fn finish_registration(
    cx: Ctx<ManageOwnAccount>,
    body: Body<FinishRegistrationBody>,
) -> Answer {
    let FinishRegistrationBody {
        token,
        credential,
        name,
    } = body.0;
    let response = Value::Object(credential).to_string();
    let token = URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| PasskeyError::RegistrationEnded)?;
    let passkey = passkey::finish_registration(&cx, &token, &response, name.as_deref()).await?;
    let location = format!("/api/v1/auth/passkeys/{}", passkey.id);
    Ok(created(&location, None, &PasskeyView::from(passkey)))
}

/// Begin a login with a passkey
///
/// Returns options for `navigator.credentials.get()`, which are valid for five minutes. They are the same for everybody but for
/// the challenge: the authenticator shows the accounts that it has passkeys of. Name the tenant as at login.
#[utoipa::path(
    post, path = "/api/v1/auth/passkeys/login", operation_id = "begin_passkey_login", tag = "Authentication",
    params(TenantHeaders), request_body = Option<BeginLoginBody>,
    responses((status = 200, description = "The options.", body = BegunView)),
    extensions(("x-errors" = json!([
        "tenant_required", "tenant_not_found", "tenant_mismatch", "tenant_gone", "passkeys_unavailable"
    ]))),
)]
pub(crate) async fn begin_login(guest: Guest, body: OptionalBody<BeginLoginBody>) -> Answer {
    let slug = body.0.and_then(|body| body.tenant_slug);
    let cx = guest.enter(slug).await?;
    let begun = passkey::begin_login(&cx)?;
    Ok(HttpResponse::Ok().json(BegunView::from(begun)))
}

/// Log in with a passkey
///
/// Takes the response of the authenticator to the options of `POST /auth/passkeys/login`. The authenticator has verified the
/// user, so the login counts as two factors and asks for no code. An unknown passkey, a wrong signature and a signature counter
/// that did not grow are 401 `invalid_credentials`; a token that was used or has expired is 401 `token_revoked`.
#[utoipa::path(
    put, path = "/api/v1/auth/passkeys/login", operation_id = "finish_passkey_login", tag = "Authentication",
    params(TenantHeaders), request_body = FinishLoginBody,
    responses((status = 200, description = "The tokens, the user and the tenant.", body = LoggedInView)),
    extensions(("x-errors" = json!([
        "invalid_credentials", "token_revoked", "email_not_verified", "tenant_not_found", "tenant_mismatch", "tenant_gone",
        "passkeys_unavailable"
    ]))),
)]
pub(crate) async fn finish_login(guest: Guest, http: HttpRequest, body: Body<FinishLoginBody>) -> Answer {
    let FinishLoginBody { token, credential } = body.0;
    let token = URL_SAFE_NO_PAD.decode(token).ok();
    let login = token.and_then(|token| passkey::read_login(guest.app(), &token));
    let login = login.ok_or(PasskeyError::LoginEnded)?;
    let cx = guest.enter_by_token(login.tenant).await?;
    let response = Value::Object(credential).to_string();
    let attempt = attempt(&cx, &http, &response).await?;
    let outcome = passkey::finish_login(&cx, &login, &response).await;
    let done = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(LoggedInView::from(done)))
}

/// List own passkeys
///
/// Returns the passkeys of the current user. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/auth/passkeys", operation_id = "list_passkeys", tag = "Authentication",
    responses((status = 200, description = "The passkeys.", body = PasskeysView)),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<ManageOwnAccount>) -> Answer {
    let passkeys = passkey::list(&cx).await?.into_iter();
    let data = passkeys.map(PasskeyView::from).collect();
    Ok(HttpResponse::Ok().json(PasskeysView { data }))
}

/// Rename a passkey
///
/// Minimum role: viewer.
#[utoipa::path(
    patch, path = "/api/v1/auth/passkeys/{id}", operation_id = "rename_passkey", tag = "Authentication",
    params(("id" = Uuid, Path)), request_body = RenameBody,
    responses((status = 200, description = "The passkey.", body = PasskeyView)),
    security(("bearer" = [])),
)]
pub(crate) async fn rename(cx: Ctx<ManageOwnAccount>, id: Id<PasskeyId>, body: Body<RenameBody>) -> Answer {
    let passkey = passkey::rename(&cx, id.0, &body.name).await?;
    Ok(HttpResponse::Ok().json(PasskeyView::from(passkey)))
}

/// Remove a passkey
///
/// It opens no further session; sessions that are open go on. The last second factor of a user of whom the tenant requires one
/// cannot be removed (409). Minimum role: viewer.
#[utoipa::path(
    delete, path = "/api/v1/auth/passkeys/{id}", operation_id = "remove_passkey", tag = "Authentication",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "The passkey is removed.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict"]))),
)]
pub(crate) async fn remove(cx: Ctx<ManageOwnAccount>, id: Id<PasskeyId>) -> Answer {
    passkey::remove(&cx, id.0).await?;
    Ok(no_content())
}

/// Takes an attempt from the buckets that failed logins with the credential are counted in, known or not. They are not those of
/// the account: an attacker who knows the id of a credential must not block logins with the password.
async fn attempt(cx: &Cx, http: &HttpRequest, response: &str) -> Result<Attempt, ApiError> {
    let counted_as = passkey::counted_as(cx, response)?;
    let account = Account::User(cx.scope().tenant(), AccountName::of(&counted_as));
    let network = Network::site(cx.origin().address());
    let is_known = async || passkey::is_known_network(cx, response, network).await;
    limits::take_of_account(http, &*Api::of(http)?, account, network, is_known).await
}

impl From<Begun> for BegunView {
    fn from(begun: Begun) -> Self {
        Self {
            public_key: begun.options,
            token: URL_SAFE_NO_PAD.encode(begun.token),
            expires_in: begun.expires_in,
        }
    }
}

impl From<Passkey> for PasskeyView {
    fn from(passkey: Passkey) -> Self {
        Self {
            id: passkey.id,
            name: passkey.name,
            synced: passkey.credential.backup != PasskeyBackup::None,
            created_at: passkey.created_at,
            last_used_at: passkey.last_used_at,
        }
    }
}
