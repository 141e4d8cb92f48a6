//! The second factor of users: enrollment, codes, logins that wait for one, and step-up.

use chrono::{DateTime, Duration};
use serde_json::json;
use tenantry_domain::identity::{
    AuthMethods, DeviceToken, Email, Guess, MFA_CHALLENGE_FAILURES, MFA_CHALLENGE_SECONDS, MailboxEntry,
    MailboxProof, MfaChallenge, MfaRequirement, Password, PasswordError, RecoveryCode, SecurityNotice,
    Session, TRUSTED_DEVICE_DAYS, TotpFactor, TotpSecret, TrustedDevice, User,
};
use tenantry_domain::kernel::{MfaChallengeId, Network, Permission, StoreError, TenantId, Time, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Refused, Tenant, TenantSeal};
use uuid::Uuid;

use crate::audit::refusal::{self, Refusal, RefusedAction, RefusedActor};
use crate::customization::product_settings::{LINKS_KEEP_FACTORS, MFA_REQUIRED};
use crate::customization::setting::{self, Resealed};
use crate::identity::claim::Claim;
use crate::identity::lockout::{self, Guesser};
use crate::identity::password::{self, Compared};
use crate::identity::session_start::{self, LoggedIn, own_tenant};
use crate::identity::totp::{self, Apps};
use crate::identity::{known_network, security_notice, session, trusted_device};
use crate::kernel::carries_store_error::carries_store_error;
use crate::kernel::step_up::{self, ActingAdmin, RECENT_SECONDS, RecentFactor};
use crate::{Cx, OperatorCx, Tenancy};

/// Errors of the use cases of second factors.
#[derive(Debug, thiserror::Error)]
pub enum MfaError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The login that the token names has ended, or the token is not one of ours.
    #[error("the login no longer waits for a second factor")]
    InvalidToken,
    /// The code is wrong, out of its time, or was used before.
    #[error("the code is not accepted")]
    WrongCode,
    /// The secret of the app cannot be opened: the key that it was sealed with is lost.
    #[error("the secret of the app cannot be opened")]
    Unreadable,
    /// The password does not match that of the account.
    #[error("the password is wrong")]
    WrongPassword,
    /// The account waits for so many seconds after wrong passwords or codes.
    #[error("the account waits for {0} seconds")]
    Locked(i64),
    /// The session began too long ago to enroll a second factor in it without the password.
    #[error("the password is needed")]
    PasswordRequired,
    /// The user has a second factor.
    #[error("the user has a second factor already")]
    AlreadyEnabled,
    /// The tenant requires a second factor of the user.
    #[error("the tenant requires a second factor of the user")]
    Required,
    /// Users disable their own factor; they do not reset it.
    #[error("users disable their own second factor")]
    Own,
    /// No such user in this tenant.
    #[error("no such user")]
    NoSuchUser,
    /// The user has no second factor, or has not enrolled one.
    #[error("the user has no second factor")]
    NotEnrolled,
    /// Passwords cannot be compared now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(MfaError);

/// A login that was finished with a code.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Tokens, and who and where they are for.
    pub login: LoggedIn,
    /// The token of the device, when it became a trusted one.
    pub device_token: Option<DeviceToken>,
}

/// A login that waits for its second factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What finishes the login together with a code; sealed, so that only this server makes one.
    pub token: Vec<u8>,
    /// How long it can be finished, in seconds.
    pub expires_in: i64,
    /// What finishes it.
    pub methods: &'static [&'static str],
}

/// What finishes the login of a user with a second factor.
pub(crate) const CODES: &[&str] = &["totp", "recovery_code"];

/// The same of a user who has passkeys, too: a login with one takes the place of this one.
const CODES_OR_PASSKEY: &[&str] = &["totp", "recovery_code", "passkey"];

/// What takes the place of the login of a user who needs a second factor and has passkeys alone.
const PASSKEY: &[&str] = &["passkey"];

/// What finishes the login of a user who needs a second factor and has none.
pub(crate) const ENROLLMENT: &[&str] = &["enroll"];

/// A login that was finished by enrolling a second factor.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Tokens, and who and where they are for.
    pub login: LoggedIn,
    /// Ten codes, shown once, each good for one login without the app.
    pub recovery_codes: Vec<RecoveryCode>,
}

/// Which login a presented token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingLogin {
    /// In which tenant the login waits.
    pub tenant: TenantId,
    /// The user who logs in.
    pub user: UserId,
    challenge: MfaChallengeId,
    /// What was proven in another tenant, when that took the place of the password.
    mailbox: Option<MailboxEntry>,
}

/// An enrollment that waits for its confirmation.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// What the app makes its codes of, shown once.
    pub secret: TotpSecret,
    /// The key URI for the app.
    pub uri: String,
}

/// What an operator removed of a user's factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetFactors {
    /// Whether there was an app.
    pub app: bool,
    /// How many passkeys there were.
    pub passkeys: usize,
}

/// A fresh access token.
#[derive(Debug, Clone)]
pub struct FreshToken {
    /// The token (JWT).
    pub access_token: String,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// The refresh token of the session that took the place of the present one, where that was asked for.
    pub refresh_token: Option<String>,
}

/// What a right password leads to.
pub(crate) enum AtLogin {
    /// A session of the user, who is logged in already.
    Session(Proven),
    /// A code is still missing.
    Pending(Pending),
    /// The code is wrong. It is counted, so the transaction has to be committed.
    WrongCode,
}

/// How a login proved that it is the user's, besides the password.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Proven {
    /// When a code was given.
    factor_at: Option<Time>,
    /// The hash of the token of the trusted device that was shown, or that became trusted.
    device_hash: Option<[u8; 32]>,
}

impl Proven {
    /// The session that says so.
    pub(crate) fn put_into(self, mut session: Session) -> Session {
        session.device_hash = self.device_hash;
        if let Some(at) = self.factor_at {
            session.note_factor(AuthMethods::CODE, at);
        }
        session
    }
}

/// Enrolls an app for the caller. It takes the place of an enrollment that was not confirmed. It takes the password, unless
/// the session began within [`RECENT_SECONDS`]: a stolen session must not be enough to bind a factor of the thief's, which
/// would keep the owner out.
///
/// # Errors
/// [`MfaError::AlreadyEnabled`] when the caller has a confirmed one, [`MfaError::PasswordRequired`],
/// [`MfaError::WrongPassword`]; [`Refused::FactorRequired`] of a caller with passkeys.
pub async fn enroll(cx: &Cx, password: Option<Password>) -> Result<Enrollment, MfaError> {
    cx.require(Permission::ManageOwnAccount)?;
    let compared = compared(cx, password).await?;
    let id = caller(cx)?;
    if cx
        .read(async |work| step_up::has_passkey(cx, work, id).await)
        .await?
    {
        // Otherwise the password alone would add a factor beside the passkeys.
        let _: RecentFactor = cx.require_recent_factor().await??;
    }
    let secret = cx.ports().one_time_codes.secret();
    let outcome = cx
        .write(async |work| {
            let (user, tenant) = locked_caller(cx, work).await?;
            require_password(cx, work, &user, compared.as_ref()).await?;
            enroll_user(cx, work, &user, &tenant, secret).await
        })
        .await;
    recorded(cx, outcome).await
}

/// Confirms the caller's enrollment with a code of the app, and returns recovery codes. A first factor counts as given in
/// the caller's session. A user who got a passkey since the enrollment began has given it recently: the enrollment may be a thief's.
///
/// # Errors
/// [`MfaError::NotEnrolled`], [`MfaError::AlreadyEnabled`], [`MfaError::WrongCode`]; [`Refused::FactorRequired`].
pub async fn confirm(cx: &Cx, code: &str) -> Result<Vec<RecoveryCode>, MfaError> {
    cx.require(Permission::ManageOwnAccount)?;
    let outcome = cx
        .write(async |work| {
            let (user, _) = locked_caller(cx, work).await?;
            let given = GivenFactor::of(cx, work, user.id, AuthMethods::CODE).await?;
            if step_up::has_passkey(cx, work, user.id).await? {
                let _: RecentFactor = step_up::require_recent(cx, work).await??;
            }
            let codes = confirm_user(cx, work, user.id, code).await?;
            note_in_session::<MfaError>(cx, work, given).await?;
            Ok(codes)
        })
        .await;
    recorded(cx, outcome).await
}

/// Enrolls an app for the user of a waiting login, of whom the tenant requires a second factor.
///
/// # Errors
/// [`MfaError::InvalidToken`], [`MfaError::AlreadyEnabled`].
pub async fn enroll_at_login(cx: &Cx, login: &PendingLogin) -> Result<Enrollment, MfaError> {
    let secret = cx.ports().one_time_codes.secret();
    cx.write(async |work| {
        let waiting = waiting(cx, work, login).await?;
        let (user, _) = waiting.ok_or(MfaError::InvalidToken)?;
        refuse_passkeys(cx, work, user.id).await?;
        let tenant = own_tenant::<MfaError>(work).await?;
        enroll_user(cx, work, &user, &tenant, secret).await
    })
    .await
}

/// Confirms the enrollment of the user of a waiting login, and finishes the login.
///
/// # Errors
/// [`MfaError::InvalidToken`], [`MfaError::WrongCode`], [`MfaError::NotEnrolled`], [`MfaError::AlreadyEnabled`].
pub async fn confirm_at_login(cx: &Cx, login: &PendingLogin, code: &str) -> Result<Enrolled, MfaError> {
    let prove = async |work: &mut Work, user: User, _: Guesser| {
        refuse_passkeys(cx, work, user.id).await?;
        confirm_user(cx, work, user.id, code).await
    };
    let (login, recovery_codes) = finish(cx, login, None, prove).await?;
    Ok(Enrolled {
        login,
        recovery_codes,
    })
}

/// Removes the caller's second factor, given their password and a code.
///
/// # Errors
/// [`MfaError::Required`], [`MfaError::WrongPassword`], [`MfaError::WrongCode`], [`MfaError::NotEnrolled`].
pub async fn disable(cx: &Cx, password: Password, code: &str) -> Result<(), MfaError> {
    cx.require(Permission::ManageOwnAccount)?;
    let id = caller(cx)?;
    let seen = with_password(cx, password).await?;
    let required = requirement(cx).await?;
    let outcome = cx
        .write(async |work| {
            let (user, _) = locked_caller(cx, work).await?;
            if user.password_hash != seen.password_hash {
                return Err(MfaError::WrongPassword);
            }
            if required.applies_to(user.role) && !step_up::has_passkey(cx, work, id).await? {
                return Err(MfaError::Required);
            }
            if !give_own(cx, work, &user, code).await? {
                return Ok(None);
            }
            work.second_factors().delete_all(id).await?;
            record(cx, work, "mfa.disabled", id).await?;
            security_notice::notify(cx, work, id, SecurityNotice::FactorDisabled).await?;
            Ok(Some(()))
        })
        .await;
    recorded(cx, accepted(outcome)).await
}

/// Removes the second factor and the passkeys of another user, who has lost them, and ends their sessions. The caller gives a factor of their
/// own that is settled: otherwise a stolen password of an admin would be enough to take every account's second factor away.
///
/// # Errors
/// [`MfaError::NoSuchUser`], [`MfaError::Own`]; [`Refused::FactorMissing`] of a caller without a second factor,
/// [`Refused::FactorTooNew`] of one whose factor is not settled.
pub async fn reset(cx: &Cx, id: UserId) -> Result<(), MfaError> {
    cx.require(Permission::ManageUsers)?;
    if cx.scope().user() == Some(id) {
        return Err(MfaError::Own);
    }
    cx.read(async |work| work.users().find(id).await?.ok_or(MfaError::NoSuchUser))
        .await?;
    let factor = cx.require_own_factor().await??;
    cx.write_as_admin(async |work, admin| remove_of_other(cx, work, id, (admin, factor)).await)
        .await
}

/// Removes the second factor and the passkeys of the user with an address, and ends their sessions, for an operator: an admin who is
/// alone in a tenant has nobody else to ask.
///
/// # Errors
/// [`MfaError::NoSuchUser`]; [`MfaError::NotEnrolled`] when there is no factor; those of the store.
pub async fn reset_by_operator(
    operators: &OperatorCx,
    cx: &Cx,
    email: &Email,
) -> Result<ResetFactors, MfaError> {
    operators.require_command()?;
    cx.require(Permission::RecoverUsers)?;
    let found = cx.read(async |work| work.users().find_by_email(email).await);
    let id = found.await?.ok_or(MfaError::NoSuchUser)?.id;
    // The account and not its address: the address is erased with the person.
    let record = operators.record("mfa.reset", Some(cx.scope().tenant()), json!({ "user": id }));
    let removed = cx.write(async |work| {
        let user = work.users().find_for_update(id).await?;
        let user = user.filter(|user| user.email == *email);
        let user = user.ok_or(MfaError::NoSuchUser)?;
        Ok::<_, MfaError>(reset_user(cx, work, user).await?)
    });
    let reset = async {
        let removed = removed.await?;
        removed.is_some().then_some(removed).ok_or(MfaError::NotEnrolled)
    };
    let removed = operators.act(record, "mfa.reset_failed", reset).await?;
    Ok(ResetFactors {
        app: removed.app,
        passkeys: removed.passkeys.len(),
    })
}

/// Makes new recovery codes for the caller, given a code. The old ones end. It takes the password, too, unless the session began
/// within [`RECENT_SECONDS`].
///
/// # Errors
/// [`MfaError::WrongCode`], [`MfaError::NotEnrolled`], [`MfaError::PasswordRequired`], [`MfaError::WrongPassword`].
pub async fn renew_recovery_codes(
    cx: &Cx,
    code: &str,
    password: Option<Password>,
) -> Result<Vec<RecoveryCode>, MfaError> {
    cx.require(Permission::ManageOwnAccount)?;
    let compared = compared(cx, password).await?;
    let outcome = cx
        .write(async |work| {
            let (user, _) = locked_caller(cx, work).await?;
            require_password(cx, work, &user, compared.as_ref()).await?;
            if !give_own(cx, work, &user, code).await? {
                return Ok(None);
            }
            session::lock_own::<MfaError>(cx, work).await?;
            record(cx, work, "mfa.recovery_codes_renewed", user.id).await?;
            security_notice::notify(cx, work, user.id, SecurityNotice::RecoveryCodesRenewed).await?;
            new_recovery_codes(cx, work, user.id).await.map(Some)
        })
        .await;
    recorded(cx, accepted(outcome)).await
}

/// Takes a code of the caller's second factor in a running session, and returns an access token that says so. Only that token says so:
/// the session, its refresh token and its other access tokens may be in the hands of a thief, and stay as they were.
///
/// With `rotate`, another session takes the place of the present one, whose tokens end at once, wherever they are. The factor counts in
/// the new one like that of a login.
///
/// # Errors
/// [`MfaError::WrongCode`], [`MfaError::NotEnrolled`].
pub async fn step_up(cx: &Cx, code: &str, rotate: bool) -> Result<FreshToken, MfaError> {
    cx.require(Permission::ManageOwnAccount)?;
    let outcome = cx
        .write(async |work| {
            let (user, _) = locked_caller(cx, work).await?;
            if !give_own(cx, work, &user, code).await? {
                return Ok(None);
            }
            let mut session = session::lock_own::<MfaError>(cx, work).await?;
            session.note_factor(AuthMethods::CODE, cx.now());
            record(cx, work, "mfa.stepped_up", user.id).await?;
            let refresh_token = match rotate {
                true => Some(session_start::replace(cx, work, &mut session).await?),
                false => None,
            };
            Ok(Some((user, session, refresh_token)))
        })
        .await;
    let (user, session, refresh_token) = recorded(cx, accepted(outcome)).await?;
    let rules = session::rules(cx).await?;
    let (access_token, expires_in) = session_start::access_token(cx, rules, &session, &user);
    Ok(FreshToken {
        access_token,
        expires_in,
        refresh_token,
    })
}

/// Reads a token of [`Pending`]; `None` for what is not one of ours.
pub fn read_token(app: &Tenancy, token: &[u8]) -> Option<PendingLogin> {
    let plain = app.ports.seal.open(TOKEN, token)?;
    let id = |at: usize| Uuid::from_slice(plain.get(at..at + 16)?).ok();
    let mailbox = match plain.get(48..)? {
        [] => None,
        entry => Some(read_entry(entry)?),
    };
    Some(PendingLogin {
        tenant: id(0)?.into(),
        user: id(16)?.into(),
        challenge: id(32)?.into(),
        mailbox,
    })
}

/// Returns the address of the account that a waiting login is to; its wrong codes are counted like wrong passwords.
///
/// # Errors
/// [`MfaError::InvalidToken`] when the login does not wait any more.
pub async fn account_of(cx: &Cx, login: &PendingLogin) -> Result<String, MfaError> {
    let found = cx
        .read(async |work| {
            let waiting = work.second_factors().find_challenge(login.challenge).await?;
            let waiting = waiting.filter(|one| one.user_id == login.user && cx.now() < one.expires_at);
            match waiting {
                Some(_) => work.users().find(login.user).await,
                None => Ok(None),
            }
        })
        .await?;
    let user = found.ok_or(MfaError::InvalidToken)?;
    Ok(user.email.as_str().to_owned())
}

/// Finishes a login with a code of the second factor. The login is over then; after
/// [`MFA_CHALLENGE_FAILURES`] wrong codes too. With `trust_device`, later logins on the device need no code for
/// [`TRUSTED_DEVICE_DAYS`] days.
///
/// # Errors
/// [`MfaError::InvalidToken`], [`MfaError::WrongCode`].
pub async fn verify(
    cx: &Cx,
    login: &PendingLogin,
    code: &str,
    trust_device: bool,
) -> Result<Verified, MfaError> {
    let token = trust_device.then(|| DeviceToken::of(&cx.ports().one_time_codes.token()));
    let prove = async |work: &mut Work, user: User, guesser: Guesser| match give(
        cx, work, &user, guesser, code,
    )
    .await
    {
        Ok(true) => match &token {
            Some(token) => trust(cx, work, &user, token).await,
            None => Ok(()),
        },
        Ok(false) => Err(MfaError::WrongCode),
        // The factor was removed in between.
        Err(MfaError::NotEnrolled) => Err(MfaError::InvalidToken),
        Err(error) => Err(error),
    };
    let device_hash = token.as_ref().map(|token| token.hash(login.tenant, login.user));
    let (login, ()) = finish(cx, login, device_hash, prove).await?;
    Ok(Verified {
        login,
        device_token: token,
    })
}

/// The caller's trusted devices, newest first.
///
/// # Errors
/// [`MfaError::Refused`], and those of the store.
pub async fn list_devices(cx: &Cx) -> Result<Vec<TrustedDevice>, MfaError> {
    cx.require(Permission::ManageOwnAccount)?;
    let id = caller(cx)?;
    let found = cx
        .read(async |work| {
            let user = work.users().find(id).await?;
            let devices = work.second_factors().list_devices(id).await?;
            Ok::<_, MfaError>((user.ok_or(Refused::Forbidden)?, devices))
        })
        .await?;
    let (user, devices) = found;
    let trusted = devices
        .into_iter()
        .filter(|device| trusted_device::is_trusted(cx, device, &user));
    Ok(trusted.collect())
}

/// Ends the trust in all of the caller's devices.
///
/// # Errors
/// [`MfaError::Refused`], and those of the store.
pub async fn revoke_devices(cx: &Cx) -> Result<(), MfaError> {
    cx.require(Permission::ManageOwnAccount)?;
    cx.write(async |work| {
        let (user, _) = locked_caller(cx, work).await?;
        if work.second_factors().delete_devices(user.id).await? > 0 {
            record(cx, work, "mfa.devices_revoked", user.id).await?;
        }
        Ok(())
    })
    .await
}

/// Which users of the tenant need a second factor: those of its setting, and of the server's minimum.
pub(crate) async fn requirement(cx: &Cx) -> Result<MfaRequirement, StoreError> {
    let of_tenant = setting::find(cx, &MFA_REQUIRED).await?.unwrap_or_default();
    Ok(of_tenant.max(cx.app().policy.users_mfa_minimum))
}

/// What the right password of a user leads to. The user is locked.
pub(crate) async fn at_login(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    claim: &Claim,
    required: MfaRequirement,
) -> Result<AtLogin, MfaError> {
    if !step_up::has_app(work, user.id).await? {
        if required.applies_to(user.role) {
            let has_passkey = step_up::has_passkey(cx, work, user.id).await?;
            let methods = if has_passkey { PASSKEY } else { ENROLLMENT };
            return Ok(AtLogin::Pending(suspend(cx, work, user, claim, methods).await?));
        }
        return Ok(AtLogin::Session(Proven::default()));
    }
    if let Some(code) = &claim.second.code {
        if !give(cx, work, user, claim.guesser, code).await? {
            return Ok(AtLogin::WrongCode);
        }
        return Ok(AtLogin::Session(Proven {
            factor_at: Some(cx.now()),
            device_hash: None,
        }));
    }
    let device_hash = trusted_device::shown(cx, work, Some(user), &claim.second).await?;
    if device_hash.is_some() {
        return Ok(AtLogin::Session(Proven {
            factor_at: None,
            device_hash,
        }));
    }
    let has_passkey = step_up::has_passkey(cx, work, user.id).await?;
    let methods = if has_passkey { CODES_OR_PASSKEY } else { CODES };
    Ok(AtLogin::Pending(suspend(cx, work, user, claim, methods).await?))
}

/// Seals secrets of a tenant's second factors under the present key: of at most [`RESEALED_AT_ONCE`] users after one. Returns the last
/// of them; none when there are no more.
pub(crate) async fn reseal_some(
    cx: &Cx,
    work: &mut Work,
    after: Option<UserId>,
    done: &mut Resealed,
) -> Result<Option<UserId>, StoreError> {
    let seal = cx.load_seal(work).await?;
    let listed = work.second_factors().list_totp(after, RESEALED_AT_ONCE).await?;
    for seen in &listed {
        let place = place(cx, seen.owner);
        let apps = apps(cx, &seal, &place);
        if apps.is_current(seen) {
            done.current += 1;
            continue;
        }
        // The user may have used or replaced it meanwhile.
        let Some(mut factor) = work.second_factors().find_totp_for_update(seen.owner).await? else {
            continue;
        };
        if apps.reseal(&mut factor) {
            work.second_factors().update_totp(&factor).await?;
            done.resealed += 1;
        } else {
            done.unreadable
                .push(format!("second factor of user {}", factor.owner));
        }
    }
    Ok(listed.last().map(|factor| factor.owner))
}

/// Returns the users after one whose secrets no known key opens, of at most [`RESEALED_AT_ONCE`], and the last user that was looked at.
pub(crate) async fn unreadable_some(
    cx: &Cx,
    work: &mut Work,
    after: Option<UserId>,
) -> Result<(Vec<UserId>, Option<UserId>), StoreError> {
    let seal = cx.load_seal(work).await?;
    let listed = work.second_factors().list_totp(after, RESEALED_AT_ONCE).await?;
    let lost = |factor: &&TotpFactor| !apps(cx, &seal, &place(cx, factor.owner)).can_open(factor);
    let users = listed.iter().filter(lost).map(|factor| factor.owner);
    Ok((users.collect(), listed.last().map(|factor| factor.owner)))
}

/// So many secrets are looked at in one transaction: some milliseconds.
const RESEALED_AT_ONCE: u32 = 200;

/// Records a wrong code in the audit log, or counts it.
pub(crate) async fn record_failure(cx: &Cx, user: UserId) -> Result<(), StoreError> {
    let refusal = Refusal {
        action: RefusedAction::SecondFactor,
        target_type: "user",
        target: Some(user.uuid()),
        actor: RefusedActor::of(cx.scope()),
        ip: cx.origin().ip.clone(),
        details: json!({}),
    };
    refusal::record(cx, refusal).await
}

/// The caller as stored, whose password was compared with the given one. It must still stand when the caller acts on it.
async fn with_password(cx: &Cx, password: Password) -> Result<User, MfaError> {
    let id = caller(cx)?;
    let seen = cx
        .read(async |work| Ok::<_, MfaError>(work.users().find(id).await?.ok_or(Refused::Forbidden)?))
        .await?;
    match password::compare::<MfaError>(cx, &seen, password).await? {
        Compared::Right => Ok(seen),
        Compared::Wrong => recorded(cx, Err(MfaError::WrongPassword)).await,
        Compared::Locked(seconds) => Err(MfaError::Locked(seconds)),
    }
}

/// The same for a password that a request may leave out.
async fn compared(cx: &Cx, password: Option<Password>) -> Result<Option<User>, MfaError> {
    match password {
        Some(password) => with_password(cx, password).await.map(Some),
        None => Ok(None),
    }
}

/// Makes sure that the password that was compared still stands, or that the caller's session began within [`RECENT_SECONDS`]. The user
/// is locked.
async fn require_password(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    compared: Option<&User>,
) -> Result<(), MfaError> {
    match compared {
        Some(compared) if compared.password_hash != user.password_hash => Err(MfaError::WrongPassword),
        Some(_) => Ok(()),
        None => require_recent_login(cx, work).await,
    }
}

async fn require_recent_login(cx: &Cx, work: &mut Work) -> Result<(), MfaError> {
    let own = cx.scope().session().ok_or(Refused::Forbidden)?;
    let session = work.sessions().find_for_update(own).await?;
    let began = session.ok_or(Refused::Forbidden)?.login_at();
    if began.is_some_and(|at| cx.now() - at < Duration::seconds(RECENT_SECONDS)) {
        Ok(())
    } else {
        Err(MfaError::PasswordRequired)
    }
}

/// Whether a user has a role now that needs a second factor, which the former role did not, and may have sessions without one:
/// passkeys do not count, since their user may have logged in with the password.
pub(crate) async fn is_missing_since(
    work: &mut Work,
    required: MfaRequirement,
    before: &User,
    after: &User,
) -> Result<bool, StoreError> {
    let is_new = required.applies_to(after.role) && !required.applies_to(before.role);
    Ok(is_new && !step_up::has_app(work, after.id).await?)
}

/// What was removed of a user's factors, and what remains.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Whether a confirmed app was removed.
    pub app: bool,
    /// The names of the passkeys that were removed.
    pub passkeys: Vec<String>,
    /// The names of the passkeys that remain.
    pub remaining: Vec<String>,
}

impl Removed {
    /// Whether a factor was removed.
    pub(crate) fn is_some(&self) -> bool {
        self.app || !self.passkeys.is_empty()
    }

    /// Notifies the user, unless there is nothing to say.
    pub(crate) async fn notify(self, cx: &Cx, work: &mut Work, user: UserId) -> Result<(), StoreError> {
        if !self.is_some() && self.remaining.is_empty() {
            return Ok(());
        }
        let notice = SecurityNotice::FactorsAfterRecovery {
            app_removed: self.app,
            removed: self.passkeys,
            remaining: self.remaining,
        };
        security_notice::notify(cx, work, user, notice).await
    }
}

/// Removes the second factor, the passkeys and the trusted devices of a user who is locked, and who may not be the owner of the
/// address.
pub(crate) async fn remove_of_stranger(cx: &Cx, work: &mut Work, id: UserId) -> Result<Removed, StoreError> {
    let removed = remove_all(work, id).await?;
    if removed.is_some() {
        let details = json!({"app": removed.app, "passkeys": removed.passkeys.len()});
        let event = cx.security("mfa.removed_by_proof", "user", Some(id.uuid()), details);
        work.audit().record(event).await?;
    }
    Ok(removed)
}

/// Removes the app, confirmed or not, the recovery codes, the trusted devices and the passkeys of a user.
pub(crate) async fn remove_all(work: &mut Work, id: UserId) -> Result<Removed, StoreError> {
    let app = step_up::has_app(work, id).await?;
    let passkeys = work.passkeys().list(id).await?;
    work.passkeys().delete_all(id).await?;
    work.second_factors().delete_all(id).await?;
    Ok(Removed {
        app,
        passkeys: passkeys.into_iter().map(|passkey| passkey.name).collect(),
        remaining: Vec::new(),
    })
}

async fn remove_of_other(
    cx: &Cx,
    work: &mut Work,
    id: UserId,
    _: (ActingAdmin, RecentFactor),
) -> Result<(), MfaError> {
    let user = work.users().find_for_update(id).await?;
    let user = user.ok_or(MfaError::NoSuchUser)?;
    reset_user(cx, work, user).await?;
    Ok(())
}

/// Removes all factors of a user who is locked, ends the sessions, and notifies the user, if there is a factor.
async fn reset_user(cx: &Cx, work: &mut Work, mut user: User) -> Result<Removed, StoreError> {
    let id = user.id;
    let removed = remove_all(work, id).await?;
    if removed.is_some() {
        session::end_all(cx, work, &mut user).await?;
        let details = json!({"app": removed.app, "passkeys": removed.passkeys.len()});
        let event = cx.security("mfa.reset", "user", Some(id.uuid()), details);
        work.audit().record(event).await?;
        security_notice::notify(cx, work, id, SecurityNotice::FactorReset).await?;
    }
    Ok(removed)
}

/// What a mailed link does to second factors that were added lately, as the settings of the tenant say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewFactors {
    are_kept: bool,
}

impl NewFactors {
    /// The rule of the context's tenant.
    pub(crate) async fn of(cx: &Cx) -> Result<Self, StoreError> {
        let kept = setting::find(cx, &LINKS_KEEP_FACTORS).await?;
        Ok(Self {
            are_kept: kept.unwrap_or(false),
        })
    }
}

/// Removes the second factor and the passkeys of a user that were not settled at `since`, unless the tenant keeps them, an app that waits
/// for its confirmation, and the trust in all devices; the user is locked.
pub(crate) async fn remove_unsettled(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
    (new, since): (NewFactors, Time),
) -> Result<Removed, StoreError> {
    let mut removed = Removed::default();
    let app = work.second_factors().find_totp_for_update(user).await?;
    let stays = |app: &TotpFactor| app.is_settled(since) || (new.are_kept && app.is_confirmed());
    if app.as_ref().is_some_and(stays) {
        work.second_factors().delete_devices(user).await?;
    } else {
        work.second_factors().delete_all(user).await?;
        removed.app = app.is_some_and(|app| app.is_confirmed());
    }
    if removed.app {
        record(cx, work, "mfa.reset", user).await?;
    }
    for passkey in work.passkeys().list(user).await? {
        if new.are_kept || passkey.is_settled(since) {
            removed.remaining.push(passkey.name);
            continue;
        }
        work.passkeys().delete(passkey.id).await?;
        let details = json!({"user_id": user, "name": passkey.name});
        let event = cx.security("passkey.removed", "passkey", Some(passkey.id.uuid()), details);
        work.audit().record(event).await?;
        removed.passkeys.push(passkey.name);
    }
    Ok(removed)
}

/// What tokens of waiting logins are sealed for: nothing else that is sealed opens as one.
const TOKEN: &str = "login that waits for a second factor";

fn place(cx: &Cx, user: UserId) -> String {
    TotpFactor::place(cx.scope().tenant(), user)
}

fn apps<'a>(cx: &'a Cx, seal: &'a TenantSeal, place: &'a str) -> Apps<'a> {
    Apps {
        codes: cx.ports().one_time_codes.as_ref(),
        seal,
        place,
        window: cx.app().policy.totp_window,
    }
}

fn caller(cx: &Cx) -> Result<UserId, Refused> {
    cx.scope().user().ok_or(Refused::Forbidden)
}

/// The caller, locked so that what concerns their factor is done one after the other, and the tenant.
async fn locked_caller(cx: &Cx, work: &mut Work) -> Result<(User, Tenant), MfaError> {
    let user = work.users().find_for_update(caller(cx)?).await?;
    let user = user.filter(|user| user.is_active).ok_or(Refused::Forbidden)?;
    Ok((user, own_tenant::<MfaError>(work).await?))
}

/// Stores a login that waits for a code.
async fn suspend(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    claim: &Claim,
    methods: &'static [&'static str],
) -> Result<Pending, MfaError> {
    let now = cx.now();
    let waiting = MfaChallenge {
        id: MfaChallengeId::next(cx.ids()),
        user_id: user.id,
        password_digest: MfaChallenge::digest_of(&user.password_hash),
        failures: 0,
        created_at: now,
        expires_at: now + Duration::seconds(MFA_CHALLENGE_SECONDS),
    };
    work.second_factors().insert_challenge(&waiting).await?;
    let ids = [cx.scope().tenant().uuid(), user.id.uuid(), waiting.id.uuid()];
    let mut plain: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
    if let Some(entry) = &claim.mailbox {
        write_entry(&mut plain, entry);
    }
    Ok(Pending {
        token: cx.ports().seal.seal(TOKEN, &plain),
        expires_in: MFA_CHALLENGE_SECONDS,
        methods,
    })
}

/// Adds what a login of a caller from another tenant began with to what is sealed: the times of the proof and of the end, and the address.
fn write_entry(plain: &mut Vec<u8>, entry: &MailboxEntry) {
    for at in [entry.proof.at, entry.ends_at] {
        plain.extend(at.timestamp_micros().to_be_bytes());
    }
    plain.extend(entry.proof.email.as_str().as_bytes());
}

fn read_entry(plain: &[u8]) -> Option<MailboxEntry> {
    let (at, rest) = plain.split_first_chunk()?;
    let (ends_at, email) = rest.split_first_chunk()?;
    let time = |bytes: &[u8; 8]| DateTime::from_timestamp_micros(i64::from_be_bytes(*bytes));
    let proof = MailboxProof {
        email: Email::stored(String::from_utf8(email.to_vec()).ok()?),
        at: time(at)?,
    };
    Some(MailboxEntry {
        proof,
        ends_at: time(ends_at)?,
    })
}

/// A login that still waits, and its user: active, and with the password that was right then. Both are locked.
async fn waiting(
    cx: &Cx,
    work: &mut Work,
    login: &PendingLogin,
) -> Result<Option<(User, MfaChallenge)>, StoreError> {
    let Some(user) = work.users().find_for_update(login.user).await? else {
        return Ok(None);
    };
    let waiting = work
        .second_factors()
        .find_challenge_for_update(login.challenge)
        .await?;
    let waiting = waiting.filter(|one| {
        let same_password = one.password_digest == MfaChallenge::digest_of(&user.password_hash);
        // The account may have changed since the login began, and a proof opens less than a password.
        let is_open = login
            .mailbox
            .as_ref()
            .is_none_or(|entry| entry.proof.opens(&user));
        // A first password may have expired meanwhile: at a login it would be a wrong one.
        let has_expired = login.mailbox.is_none() && user.has_expired_password(cx.now());
        let is_admitted = user.is_active && same_password && is_open && !has_expired;
        is_admitted && one.user_id == user.id && cx.now() < one.expires_at
    });
    Ok(waiting.map(|waiting| (user, waiting)))
}

/// Opens the session of a waiting login once `prove` accepts the code, and returns what that returns.
async fn finish<T: 'static>(
    cx: &Cx,
    login: &PendingLogin,
    device_hash: Option<[u8; 32]>,
    prove: impl AsyncFnOnce(&mut Work, User, Guesser) -> Result<T, MfaError> + Clone,
) -> Result<(LoggedIn, T), MfaError> {
    if login.mailbox.is_some() && !session_start::admits_switches(cx).await? {
        return Err(MfaError::InvalidToken);
    }
    let rules = session::rules(cx).await?;
    let (session, refresh_token) = session_start::new_session(cx, login.user);
    let opened = cx
        .write(async |work| {
            let waiting = waiting(cx, work, login).await?;
            let (user, waiting) = waiting.ok_or(MfaError::InvalidToken)?;
            let addresses = known_network::logins(cx, work, &user.email).await?;
            let is_known = known_network::is_among(Network::site(cx.origin().address()), &addresses);
            let guesser = Guesser::of(cx, user.email.as_str(), is_known);
            let proven = match prove(work, user.clone(), guesser).await {
                Ok(proven) => proven,
                Err(MfaError::WrongCode) => {
                    // Committed, so that the code counts.
                    count_failure(work, waiting).await?;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            work.second_factors().delete_challenge(waiting.id).await?;
            let given = Proven {
                factor_at: Some(cx.now()),
                device_hash,
            };
            let session = given.put_into(session_start::begun(
                &user,
                session.clone(),
                login.mailbox.as_ref(),
            ));
            session_start::start(cx, work, (&user, &addresses), rules, &session).await?;
            let tenant = own_tenant::<MfaError>(work).await?;
            Ok(Some((user, tenant, session, proven)))
        })
        .await;
    if let Err(MfaError::Locked(_)) = &opened {
        lockout::record(cx, Guess::Code, Some(login.user), None).await?;
    }
    let Some((user, tenant, session, proven)) = opened? else {
        record_failure(cx, login.user).await?;
        return Err(MfaError::WrongCode);
    };
    let login = session_start::logged_in(cx, rules, &session, refresh_token, user, tenant);
    Ok((login, proven))
}

/// Trusts a device of a user from now on.
async fn trust(cx: &Cx, work: &mut Work, user: &User, token: &DeviceToken) -> Result<(), MfaError> {
    let now = cx.now();
    let device = TrustedDevice {
        user_id: user.id,
        token_hash: token.hash(cx.scope().tenant(), user.id),
        password_digest: MfaChallenge::digest_of(&user.password_hash),
        user_agent: cx.origin().user_agent.clone(),
        ip: cx.origin().ip.clone(),
        created_at: now,
        expires_at: now + Duration::days(TRUSTED_DEVICE_DAYS),
    };
    work.second_factors().insert_device(&device).await?;
    record(cx, work, "mfa.device_trusted", user.id).await?;
    let notice = SecurityNotice::DeviceTrusted {
        address: device.ip,
        user_agent: device.user_agent,
    };
    Ok(security_notice::notify(cx, work, user.id, notice).await?)
}

async fn count_failure(work: &mut Work, mut waiting: MfaChallenge) -> Result<(), StoreError> {
    waiting.failures += 1;
    if waiting.failures < MFA_CHALLENGE_FAILURES {
        work.second_factors().update_challenge(&waiting).await
    } else {
        work.second_factors().delete_challenge(waiting.id).await
    }
}

/// Refuses the enrollment of an app at the login of a user with passkeys: the password alone must not add a factor beside them.
async fn refuse_passkeys(cx: &Cx, work: &mut Work, user: UserId) -> Result<(), MfaError> {
    if step_up::has_passkey(cx, work, user).await? {
        return Err(MfaError::AlreadyEnabled);
    }
    Ok(())
}

/// Stores a new app of a user who has no confirmed one.
async fn enroll_user(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    tenant: &Tenant,
    secret: TotpSecret,
) -> Result<Enrollment, MfaError> {
    let present = work.second_factors().find_totp_for_update(user.id).await?;
    if present.is_some_and(|factor| factor.is_confirmed()) {
        return Err(MfaError::AlreadyEnabled);
    }
    let seal = cx.seal(work).await?;
    let factor = apps(cx, &seal, &place(cx, user.id)).enroll(user.id, &secret, cx.now());
    work.second_factors().replace_totp(&factor).await?;
    record(cx, work, "mfa.enrolled", user.id).await?;
    let uri = secret.uri(&tenant.name, user.email.as_str());
    Ok(Enrollment { secret, uri })
}

/// Confirms the app of a user, and makes recovery codes.
async fn confirm_user(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
    code: &str,
) -> Result<Vec<RecoveryCode>, MfaError> {
    let factor = work.second_factors().find_totp_for_update(user).await?;
    let mut factor = factor.ok_or(MfaError::NotEnrolled)?;
    if factor.is_confirmed() {
        return Err(MfaError::AlreadyEnabled);
    }
    let (seal, place) = (
        cx.seal_opening(work, &factor.sealed_secret).await?,
        place(cx, user),
    );
    let apps = apps(cx, &seal, &place);
    if !apps.can_open(&factor) {
        return Err(MfaError::Unreadable);
    }
    if !apps.confirm(&mut factor, code, cx.now()) {
        return Err(MfaError::WrongCode);
    }
    work.second_factors().update_totp(&factor).await?;
    record(cx, work, "mfa.enabled", user).await?;
    security_notice::notify(cx, work, user, SecurityNotice::FactorEnabled).await?;
    new_recovery_codes(cx, work, user).await
}

/// Takes a code of a user's factor, or one of their recovery codes, and returns whether it is accepted. The user is locked, so
/// that no code works twice. A code that is not accepted is counted, so the transaction has to be committed then, too.
async fn give(cx: &Cx, work: &mut Work, user: &User, guesser: Guesser, code: &str) -> Result<bool, MfaError> {
    let factor = work.second_factors().find_totp_for_update(user.id).await?;
    let factor = factor.filter(TotpFactor::is_confirmed);
    let factor = factor.ok_or(MfaError::NotEnrolled)?;
    let standing = lockout::look(cx, work, Guess::Code, guesser).await?;
    if let Some(seconds) = standing.wait {
        return Err(MfaError::Locked(seconds));
    }
    let is_right = match RecoveryCode::parse(code) {
        Some(recovery) => use_recovery_code(cx, work, user.id, &recovery).await?,
        None => use_step(cx, work, factor, code).await?,
    };
    if !is_right {
        lockout::fail_code(cx, work, user, guesser).await?;
    } else if standing.has_failed {
        lockout::succeed(work, Guess::Code, guesser).await?;
    }
    Ok(is_right)
}

/// The same for the caller of a session.
async fn give_own(cx: &Cx, work: &mut Work, user: &User, code: &str) -> Result<bool, MfaError> {
    let guesser = lockout::guesser(cx, work, user).await?;
    give(cx, work, user, guesser, code).await
}

async fn use_recovery_code(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
    code: &RecoveryCode,
) -> Result<bool, StoreError> {
    let hash = code.hash(cx.scope().tenant(), user);
    if !work.second_factors().use_recovery_code(user, hash).await? {
        return Ok(false);
    }
    record(cx, work, "mfa.recovery_code_used", user).await?;
    security_notice::notify(cx, work, user, SecurityNotice::RecoveryCodeUsed).await?;
    Ok(true)
}

async fn use_step(cx: &Cx, work: &mut Work, mut factor: TotpFactor, code: &str) -> Result<bool, MfaError> {
    let (seal, place) = (
        cx.seal_opening(work, &factor.sealed_secret).await?,
        place(cx, factor.owner),
    );
    let apps = apps(cx, &seal, &place);
    if !apps.can_open(&factor) {
        return Err(MfaError::Unreadable);
    }
    if !apps.use_step(&mut factor, code, cx.now()) {
        return Ok(false);
    }
    work.second_factors().update_totp(&factor).await?;
    Ok(true)
}

/// What was done with a code; without it the code was wrong.
fn accepted<T>(outcome: Result<Option<T>, MfaError>) -> Result<T, MfaError> {
    outcome?.ok_or(MfaError::WrongCode)
}

/// A factor that the caller gives by adding it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GivenFactor {
    /// How it was given.
    method: AuthMethods,
    /// Whether the caller has had a factor before.
    has_other: bool,
}

impl GivenFactor {
    /// A factor that is about to be added. The user is locked.
    pub(crate) async fn of(
        cx: &Cx,
        work: &mut Work,
        user: UserId,
        method: AuthMethods,
    ) -> Result<Self, StoreError> {
        let has_other = step_up::has_factor(cx, work, user).await?;
        Ok(Self { method, has_other })
    }
}

/// Returns the caller's session. A first factor is noted in it: until then the session needed none, so no token of it gains anything
/// (where the password was asked for, it still is: [`Session::login_factor_at`], and [`Session::as_refreshed`] for its tokens). A further one is not, since a thief with another
/// token of the session would gain what the caller proved.
pub(crate) async fn note_in_session<E: From<Refused> + From<StoreError>>(
    cx: &Cx,
    work: &mut Work,
    given: GivenFactor,
) -> Result<Session, E> {
    let mut session = session::lock_own::<E>(cx, work).await?;
    if !given.has_other {
        session.note_factor(given.method, cx.now());
        work.sessions().update(&session).await?;
    }
    Ok(session)
}

async fn new_recovery_codes(cx: &Cx, work: &mut Work, user: UserId) -> Result<Vec<RecoveryCode>, MfaError> {
    let codes = totp::new_recovery_codes(cx.ports().one_time_codes.as_ref());
    let tenant = cx.scope().tenant();
    let hashes: Vec<_> = codes.iter().map(|code| code.hash(tenant, user)).collect();
    work.second_factors()
        .replace_recovery_codes(user, &hashes, cx.now())
        .await?;
    Ok(codes)
}

async fn record(cx: &Cx, work: &mut Work, action: &'static str, user: UserId) -> Result<(), StoreError> {
    let event = cx.security(action, "user", Some(user.uuid()), json!({}));
    work.audit().record(event).await
}

/// The outcome, once a wrong code or password of the caller's is recorded.
async fn recorded<T>(cx: &Cx, outcome: Result<T, MfaError>) -> Result<T, MfaError> {
    match &outcome {
        Err(MfaError::WrongCode | MfaError::WrongPassword) => record_failure(cx, caller(cx)?).await?,
        Err(MfaError::Locked(_)) => lockout::record(cx, Guess::Code, Some(caller(cx)?), None).await?,
        Ok(_) | Err(_) => {}
    }
    outcome
}
