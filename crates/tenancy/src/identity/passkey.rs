//! Passkeys: registering them, logging in with one, and looking after them.
//!
//! What a ceremony needs is sealed into a token that its client returns, so that logins that only
//! begin fill no table. A ceremony that was finished is stored until it would have ended, so that it is finished once.

use std::sync::Arc;

use chrono::{DateTime, Duration};
use serde_json::{Value, json};
use tenantry_domain::identity::{
    AuthMethods, MfaRequirement, PASSKEY_CEREMONY_SECONDS, PASSKEYS, Passkey, PasskeyAssertion,
    PasskeyBackup, PasskeyCeremonies, PasskeyCeremony, PasskeyCredential, PasskeyOwner, PasskeyRefusal,
    Password, PasswordError, SecurityNotice, Session, User, UserHandle,
};
use tenantry_domain::kernel::{
    Constraint, Invalid, Network, PasskeyId, Permission, SessionId, StoreError, TenantId, Time, UserId, hex,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;
use uuid::Uuid;

use crate::audit::refusal::{self, Refusal, RefusedAction};
use crate::identity::account::{self, AccountError};
use crate::identity::known_network;
use crate::identity::mfa::GivenFactor;
use crate::identity::session_start::{self, LoggedIn, own_tenant};
use crate::identity::{mfa, security_notice, session};
use crate::kernel::carries_store_error::carries_store_error;
use crate::kernel::step_up::{self, RecentFactor};
use crate::{Cx, Tenancy};

/// Errors of the use cases of passkeys.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The server has no relying party.
    #[error("passkeys are not set up on this server")]
    Unavailable,
    /// The token is not one of ours, or the login has ended or was finished.
    #[error("the login has ended, was finished, or its token is not valid")]
    LoginEnded,
    /// The token is none of this user and session, or the registration has ended or was finished.
    #[error("the registration has ended, was finished, or its token is not valid")]
    RegistrationEnded,
    /// The session is older than [`RECENT_SECONDS`](step_up::RECENT_SECONDS), and the request has no password.
    #[error("the password is needed")]
    PasswordNeeded,
    /// The password does not match that of the account.
    #[error("the password is wrong")]
    WrongPassword,
    /// The account waits for so many seconds after wrong passwords.
    #[error("the account waits for {0} seconds")]
    Locked(i64),
    /// No active user of the tenant has this passkey, or the response is not accepted; the error does not say which.
    #[error("the passkey is not accepted")]
    NotAccepted,
    /// The tenant lets only users with a proven address in, and this address is not proven.
    #[error("the address of the account is not verified")]
    EmailNotVerified,
    /// The user has [`PASSKEYS`] passkeys.
    #[error("the user has as many passkeys as are allowed")]
    TooMany,
    /// A user of the tenant has a passkey of this credential.
    #[error("the passkey is registered already")]
    AlreadyRegistered,
    /// It is the user's last second factor, and the tenant requires one.
    #[error("the tenant requires a second factor of the user")]
    LastFactor,
    /// The caller has no such passkey.
    #[error("no such passkey")]
    NotFound,
    /// Passwords cannot be compared now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}
carries_store_error!(PasskeyError);

impl From<StoreError> for PasskeyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::PasskeyCredential) => Self::AlreadyRegistered,
            other => Self::Store(other),
        }
    }
}

/// A ceremony that has begun.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The options for the browser, as JSON of WebAuthn.
    pub options: Value,
    /// What finishes it together with the response of the authenticator; sealed, so that only this server makes one.
    pub token: Vec<u8>,
    /// How long it can be finished, in seconds.
    pub expires_in: i64,
}

/// A login that waits for the response of an authenticator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingLogin {
    /// The tenant in which the login began.
    pub tenant: TenantId,
    ends_at: Time,
    state: Vec<u8>,
}

/// Begins the registration of a passkey for the caller. A caller with a second factor has given it recently; another one gives
/// the password, unless the session is younger than [`RECENT_SECONDS`](step_up::RECENT_SECONDS).
///
/// # Errors
/// [`Refused::FactorRequired`], [`PasskeyError::PasswordNeeded`], [`PasskeyError::WrongPassword`], [`PasskeyError::Locked`],
/// [`PasskeyError::TooMany`], [`PasskeyError::Unavailable`].
pub async fn begin_registration(cx: &Cx, password: Option<Password>) -> Result<Begun, PasskeyError> {
    cx.require(Permission::ManageOwnAccount)?;
    let ceremonies = ceremonies(cx)?;
    let present = account::require_presence(cx, password).await;
    let factor = present.map_err(of_account)?;
    start_registration(cx, ceremonies.as_ref(), factor).await
}

/// Finishes the registration of a passkey that the caller began in this session. The authenticator has verified the user, so a first
/// factor counts as given in the session. A user with a factor has given it recently, also one who got it since the registration
/// began; an app that was confirmed since ends the registration, and an app that waits for its confirmation ends: either may be a
/// thief's.
///
/// # Errors
/// [`Refused::FactorRequired`], [`PasskeyError::RegistrationEnded`], `/credential` when the response is not accepted, `/name`, [`PasskeyError::TooMany`],
/// [`PasskeyError::AlreadyRegistered`].
pub async fn finish_registration(
    cx: &Cx,
    token: &[u8],
    response: &str,
    name: Option<&str>,
) -> Result<Passkey, PasskeyError> {
    cx.require(Permission::ManageOwnAccount)?;
    let ceremonies = ceremonies(cx)?;
    let name = Passkey::read_name(name.unwrap_or("Passkey"))?;
    let (user, session) = caller(cx)?;
    let (ends_at, state) = opened(cx.app(), &registration_place(cx, user, session), token)
        .filter(|(ends_at, _)| cx.now() < *ends_at)
        .ok_or(PasskeyError::RegistrationEnded)?;
    let credential = ceremonies
        .finish_registration(&state, response)
        .map_err(not_accepted)?;
    let passkey = Passkey {
        id: PasskeyId::next(cx.ids()),
        user_id: user,
        name,
        credential,
        created_at: cx.now(),
        last_used_at: None,
        mailbox_proof: None,
    };
    cx.write(async |work| {
        let user = work.users().find_for_update(passkey.user_id).await?;
        let user = user.filter(|user| user.is_active).ok_or(Refused::Forbidden)?;
        let _: RecentFactor = step_up::require_recent(cx, work).await??;
        let began_at = ends_at - Duration::seconds(PASSKEY_CEREMONY_SECONDS);
        if !end_enrollment(work, user.id, began_at).await?
            || !finish(cx, work, &user, &state, ends_at).await?
        {
            return Err(PasskeyError::RegistrationEnded);
        }
        if work.passkeys().list(user.id).await?.len() >= PASSKEYS {
            return Err(PasskeyError::TooMany);
        }
        let method = method(passkey.credential.backup);
        let given = GivenFactor::of(cx, work, user.id, method).await?;
        let session = mfa::note_in_session::<PasskeyError>(cx, work, given).await?;
        let passkey = Passkey {
            mailbox_proof: session.mailbox_proof,
            ..passkey.clone()
        };
        work.passkeys().insert(&passkey).await?;
        record(cx, work, "passkey.registered", &passkey, json!({})).await?;
        let name = passkey.name.clone();
        security_notice::notify(cx, work, user.id, SecurityNotice::PasskeyAdded { name }).await?;
        Ok(passkey)
    })
    .await
}

/// The caller's passkeys, oldest first.
///
/// # Errors
/// [`PasskeyError::Refused`], and those of the store.
pub async fn list(cx: &Cx) -> Result<Vec<Passkey>, PasskeyError> {
    cx.require(Permission::ManageOwnAccount)?;
    let (user, _) = caller(cx)?;
    Ok(cx.read(async |work| work.passkeys().list(user).await).await?)
}

/// Gives a passkey of the caller another name.
///
/// # Errors
/// `/name`, [`PasskeyError::NotFound`].
pub async fn rename(cx: &Cx, id: PasskeyId, name: &str) -> Result<Passkey, PasskeyError> {
    cx.require(Permission::ManageOwnAccount)?;
    let name = Passkey::read_name(name)?;
    let (user, _) = caller(cx)?;
    cx.write(async |work| {
        let mut passkey = own(work, user, id).await?;
        let before = std::mem::replace(&mut passkey.name, name);
        if passkey.name != before {
            work.passkeys().update(&passkey).await?;
            record(
                cx,
                work,
                "passkey.renamed",
                &passkey,
                json!({"former_name": before}),
            )
            .await?;
        }
        Ok(passkey)
    })
    .await
}

/// Removes a passkey of the caller. Sessions go on.
///
/// # Errors
/// [`PasskeyError::NotFound`], [`PasskeyError::LastFactor`], [`Refused::FactorRequired`].
pub async fn remove(cx: &Cx, id: PasskeyId) -> Result<(), PasskeyError> {
    cx.require(Permission::ManageOwnAccount)?;
    let (user, _) = caller(cx)?;
    let own = cx.read(async |work| work.passkeys().list(user).await).await?;
    if !own.iter().any(|passkey| passkey.id == id) {
        return Err(PasskeyError::NotFound);
    }
    let factor = cx.require_recent_factor().await??;
    let required = mfa::requirement(cx).await?;
    cx.write(async |work| remove_own(cx, work, (user, id), required, factor).await)
        .await
}

/// Begins a login with a passkey. Nothing is stored, and everybody gets the same options but for the challenge.
///
/// # Errors
/// [`PasskeyError::Unavailable`].
pub fn begin_login(cx: &Cx) -> Result<Begun, PasskeyError> {
    let ceremony = ceremonies(cx)?.start_login();
    Ok(begun(cx, LOGIN, ceremony))
}

/// Reads the token of a login that has begun; `None` for what is not one of ours.
pub fn read_login(app: &Tenancy, token: &[u8]) -> Option<WaitingLogin> {
    let plain = opened_plain(app, LOGIN, token)?;
    let (tenant, rest) = plain.split_at_checked(16)?;
    let (ends_at, state) = timed(rest)?;
    Some(WaitingLogin {
        tenant: Uuid::from_slice(tenant).ok()?.into(),
        ends_at,
        state,
    })
}

/// Returns a name for the credential that a response is of, known or not: what failed logins with it are counted under.
///
/// # Errors
/// [`PasskeyError::Unavailable`], `/credential` when the response is none.
pub fn counted_as(cx: &Cx, response: &str) -> Result<String, PasskeyError> {
    let id = ceremonies(cx)?.credential_id(response).map_err(not_accepted)?;
    Ok(format!("passkey {}", hex(&id)))
}

/// Whether the user with the passkey that a response is of has lately logged in from this network.
///
/// # Errors
/// Those of the store.
pub async fn is_known_network(cx: &Cx, response: &str, network: Option<Network>) -> Result<bool, StoreError> {
    let found = match presented(cx, response).await {
        Ok(found) => found,
        Err(PasskeyError::Store(error)) => return Err(error),
        Err(_) => return Ok(false),
    };
    // An unknown one costs the same.
    let email = found.as_ref().map_or(NOBODY, |(user, _)| user.email.as_str());
    let is_known = known_network::is_known_network(cx, email, network).await?;
    Ok(is_known && found.is_some())
}

/// Finishes a login with the response of an authenticator. The user was verified by the authenticator, so it counts as two
/// factors: the session has a recent one.
///
/// # Errors
/// [`PasskeyError::LoginEnded`], [`PasskeyError::NotAccepted`], [`PasskeyError::EmailNotVerified`], `/credential` when the response
/// is none.
pub async fn finish_login(cx: &Cx, login: &WaitingLogin, response: &str) -> Result<LoggedIn, PasskeyError> {
    if cx.now() >= login.ends_at {
        return Err(PasskeyError::LoginEnded);
    }
    let known = presented(cx, response).await?;
    let owner = known.as_ref().map(|(_, passkey)| {
        let handle = UserHandle::of(cx.scope().tenant(), passkey.user_id);
        (handle, &passkey.credential)
    });
    let verified = ceremonies(cx)?.finish_login(&login.state, response, owner);
    let (user, passkey) = known.unzip();
    match (verified, user.filter(|user| user.is_active).zip(passkey)) {
        (Ok(assertion), Some((user, passkey))) => open_session(cx, login, (user, passkey), assertion).await,
        (Err(PasskeyRefusal::Malformed(reason)), _) => Err(not_accepted(PasskeyRefusal::Malformed(reason))),
        (verified, found) => {
            tracing::info!(refusal = ?verified.as_ref().err(), "a login with a passkey is not accepted");
            record_failure(cx, found.map(|(_, passkey)| passkey.user_id)).await?;
            Err(PasskeyError::NotAccepted)
        }
    }
}

async fn start_registration(
    cx: &Cx,
    ceremonies: &dyn PasskeyCeremonies,
    _: RecentFactor,
) -> Result<Begun, PasskeyError> {
    let (user, session) = caller(cx)?;
    let (user, tenant, present) = cx
        .read(async |work| {
            let found = work.users().find(user).await?.ok_or(Refused::Forbidden)?;
            let present = work.passkeys().list(user).await?;
            Ok::<_, PasskeyError>((found, own_tenant::<PasskeyError>(work).await?, present))
        })
        .await?;
    if present.len() >= PASSKEYS {
        return Err(PasskeyError::TooMany);
    }
    let owner = PasskeyOwner {
        handle: UserHandle::of(cx.scope().tenant(), user.id),
        account: user.email.as_str(),
        full_name: &user.full_name,
        tenant: &tenant.name,
    };
    let present: Vec<PasskeyCredential> = present.into_iter().map(|one| one.credential).collect();
    let ceremony = ceremonies.start_registration(&owner, &present);
    Ok(begun(cx, &registration_place(cx, user.id, session), ceremony))
}

/// Removes an app of a user that waits for its confirmation; false when an app was confirmed after `since`. The user is locked.
async fn end_enrollment(work: &mut Work, user: UserId, since: Time) -> Result<bool, StoreError> {
    match work.second_factors().find_totp_for_update(user).await? {
        Some(app) if app.is_confirmed() => Ok(app.confirmed_at.is_none_or(|at| at <= since)),
        Some(_) => work.second_factors().delete_all(user).await.map(|_| true),
        None => Ok(true),
    }
}

async fn remove_own(
    cx: &Cx,
    work: &mut Work,
    (user, id): (UserId, PasskeyId),
    required: MfaRequirement,
    _: RecentFactor,
) -> Result<(), PasskeyError> {
    let user = work.users().find_for_update(user).await?;
    let user = user.ok_or(Refused::Forbidden)?;
    let passkey = own(work, user.id, id).await?;
    work.passkeys().delete(passkey.id).await?;
    let has_factor = step_up::has_factor(cx, work, user.id).await?;
    if cx.ports().passkeys.is_some() && !has_factor && required.applies_to(user.role) {
        return Err(PasskeyError::LastFactor);
    }
    record(cx, work, "passkey.removed", &passkey, json!({})).await?;
    let notice = SecurityNotice::PasskeyRemoved { name: passkey.name };
    Ok(security_notice::notify(cx, work, user.id, notice).await?)
}

/// What tokens of logins are sealed for: nothing else that is sealed opens as one.
const LOGIN: &str = "login with a passkey";

/// An address that no user has.
const NOBODY: &str = "nobody@passkey.invalid";

/// What tokens of a user's registrations in a session are sealed for.
fn registration_place(cx: &Cx, user: UserId, session: SessionId) -> String {
    let tenant = cx.scope().tenant();
    format!("registration of a passkey of {user} in {tenant}, session {session}")
}

fn ceremonies(cx: &Cx) -> Result<Arc<dyn PasskeyCeremonies>, PasskeyError> {
    cx.ports().passkeys.clone().ok_or(PasskeyError::Unavailable)
}

fn caller(cx: &Cx) -> Result<(UserId, SessionId), Refused> {
    let scope = cx.scope();
    scope.user().zip(scope.session()).ok_or(Refused::Forbidden)
}

/// A ceremony with the token that finishes it: the tenant, the end and the state, sealed.
fn begun(cx: &Cx, place: &str, ceremony: PasskeyCeremony) -> Begun {
    let ends_at = cx.now() + Duration::seconds(PASSKEY_CEREMONY_SECONDS);
    let mut plain = cx.scope().tenant().uuid().as_bytes().to_vec();
    plain.extend(ends_at.timestamp_micros().to_be_bytes());
    plain.extend(ceremony.state);
    Begun {
        options: ceremony.options,
        token: cx.ports().seal.seal(place, &plain),
        expires_in: PASSKEY_CEREMONY_SECONDS,
    }
}

fn opened_plain(app: &Tenancy, place: &str, token: &[u8]) -> Option<Vec<u8>> {
    app.ports.seal.open(place, token)
}

/// The end and the state of a ceremony whose token was sealed for that place.
fn opened(app: &Tenancy, place: &str, token: &[u8]) -> Option<(Time, Vec<u8>)> {
    timed(opened_plain(app, place, token)?.get(16..)?)
}

fn timed(plain: &[u8]) -> Option<(Time, Vec<u8>)> {
    let (ends_at, state) = plain.split_first_chunk()?;
    let ends_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*ends_at))?;
    Some((ends_at, state.to_vec()))
}

fn of_account(error: AccountError) -> PasskeyError {
    match error {
        AccountError::Refused(refused) => refused.into(),
        AccountError::Invalid(invalid) => invalid.into(),
        AccountError::Password(error) => error.into(),
        AccountError::Store(error) => error.into(),
        AccountError::Locked(seconds) => PasskeyError::Locked(seconds),
        AccountError::PasswordNeeded => PasskeyError::PasswordNeeded,
        AccountError::InvalidCredentials
        | AccountError::NotFound
        | AccountError::Inactive
        | AccountError::Challenge(_)
        | AccountError::NotInPlan(_)
        | AccountError::EmailTaken
        | AccountError::AskedTooOften
        | AccountError::ChangedTooOften => PasskeyError::WrongPassword,
    }
}

/// The user and the passkey that a response is of, active or not, before anything is verified.
async fn presented(cx: &Cx, response: &str) -> Result<Option<(User, Passkey)>, PasskeyError> {
    let id = ceremonies(cx)?.credential_id(response).map_err(not_accepted)?;
    let found = cx
        .read(async |work| {
            let passkey = work.passkeys().find_by_credential(&id).await?;
            // An unknown one costs the same.
            let user = passkey
                .as_ref()
                .map_or(Uuid::nil().into(), |passkey| passkey.user_id);
            let user = work.users().find(user).await?;
            Ok::<_, StoreError>(user.zip(passkey))
        })
        .await?;
    Ok(found)
}

fn not_accepted(refusal: PasskeyRefusal) -> PasskeyError {
    let (code, reason) = match refusal {
        PasskeyRefusal::Malformed(reason) => ("invalid_credential", reason),
        PasskeyRefusal::Refused(reason) => ("credential_refused", reason),
    };
    Invalid::one(
        "/credential",
        code,
        format!("must be the response of the authenticator as JSON of WebAuthn: {reason}"),
    )
    .into()
}

/// Notes that a ceremony is finished; false when it was finished before. The user is locked.
async fn finish(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    state: &[u8],
    ends_at: Time,
) -> Result<bool, StoreError> {
    let digest = PasskeyCeremony::digest(state);
    work.passkeys().finish(user.id, digest, cx.now(), ends_at).await
}

/// A passkey of a user, locked.
async fn own(work: &mut Work, user: UserId, id: PasskeyId) -> Result<Passkey, PasskeyError> {
    let passkey = work.passkeys().find_for_update(id).await?;
    let own = passkey.filter(|passkey| passkey.user_id == user);
    own.ok_or(PasskeyError::NotFound)
}

/// Opens the session of a user whose passkey has signed.
async fn open_session(
    cx: &Cx,
    login: &WaitingLogin,
    (seen, passkey): (User, Passkey),
    assertion: PasskeyAssertion,
) -> Result<LoggedIn, PasskeyError> {
    let rules = session::rules(cx).await?;
    let verified_only = account::verified_only(cx).await?;
    let (session, refresh_token) = session_start::new_session(cx, seen.id);
    let session = Session {
        factor_at: Some(cx.now()),
        methods: method(assertion.backup),
        // What another session has shown, in which the passkey was registered.
        mailbox_proof: passkey.mailbox_proof.clone(),
        ..session
    };
    let opened = cx
        .write(async |work| {
            let user = work.users().find_for_update(seen.id).await?;
            let user = user
                .filter(|user| user.is_active)
                .ok_or(PasskeyError::NotAccepted)?;
            if verified_only && !user.email_verified {
                return Err(PasskeyError::EmailNotVerified);
            }
            if !finish(cx, work, &user, &login.state, login.ends_at).await? {
                return Err(PasskeyError::LoginEnded);
            }
            if !use_up(cx, work, (&user, passkey.id), assertion).await? {
                // Committed, so that the alarm is recorded.
                return Ok(None);
            }
            let addresses = known_network::logins(cx, work, &user.email).await?;
            session_start::start(cx, work, (&user, &addresses), rules, &session).await?;
            let tenant = own_tenant::<PasskeyError>(work).await?;
            Ok(Some((user, tenant)))
        })
        .await;
    match opened {
        Ok(Some((user, tenant))) => Ok(session_start::logged_in(
            cx,
            rules,
            &session,
            refresh_token,
            user,
            tenant,
        )),
        Ok(None) | Err(PasskeyError::NotAccepted) => {
            record_failure(cx, Some(seen.id)).await?;
            Err(PasskeyError::NotAccepted)
        }
        Err(error) => Err(error),
    }
}

/// What the use of a passkey proves: of a key that stays on its device, or of one that may be on several.
const fn method(backup: PasskeyBackup) -> AuthMethods {
    match backup {
        PasskeyBackup::None => AuthMethods::DEVICE_PASSKEY,
        PasskeyBackup::Eligible | PasskeyBackup::Exists => AuthMethods::SYNCED_PASSKEY,
    }
}

/// Notes the use of a passkey; false, with an alarm in the audit log and by mail, when its counter did not grow.
async fn use_up(
    cx: &Cx,
    work: &mut Work,
    (user, id): (&User, PasskeyId),
    assertion: PasskeyAssertion,
) -> Result<bool, PasskeyError> {
    let passkey = work.passkeys().find_for_update(id).await?;
    let mut passkey = passkey.ok_or(PasskeyError::NotAccepted)?;
    match passkey.note_use(assertion, cx.now()) {
        Ok(()) => {
            work.passkeys().update(&passkey).await?;
            record(cx, work, "passkey.used", &passkey, json!({})).await?;
            Ok(true)
        }
        Err(cloned) => {
            tracing::warn!(passkey = %id, user = %user.id, "{cloned}: there may be a copy of it");
            let counters = json!({"stored": cloned.stored, "presented": cloned.presented});
            record(cx, work, "passkey.cloned", &passkey, counters).await?;
            let notice = SecurityNotice::PasskeyCloned { name: passkey.name };
            security_notice::notify(cx, work, user.id, notice).await?;
            Ok(false)
        }
    }
}

async fn record(
    cx: &Cx,
    work: &mut Work,
    action: &'static str,
    passkey: &Passkey,
    more: Value,
) -> Result<(), StoreError> {
    let mut details = json!({"user_id": passkey.user_id, "name": passkey.name});
    if let (Some(details), Value::Object(more)) = (details.as_object_mut(), more) {
        details.extend(more);
    }
    let event = cx.security(action, "passkey", Some(passkey.id.uuid()), details);
    work.audit().record(event).await
}

/// Records a login that is not accepted, or counts it.
async fn record_failure(cx: &Cx, user: Option<UserId>) -> Result<(), StoreError> {
    let refusal = Refusal {
        action: RefusedAction::Login,
        target_type: "user",
        target: user.map(UserId::uuid),
        actor: None,
        ip: cx.origin().ip.clone(),
        details: json!({"method": "passkey"}),
    };
    refusal::record(cx, refusal).await
}
