//! A user's own account: changing and resetting the password, and proving the address.

use chrono::Duration;
use serde_json::json;
use tenantry_domain::identity::{
    AccountLink, AccountNotice, ApiKey, CallerClass, ChallengeError, ChallengePurpose, Email, HashingCaller,
    LinkPurpose, Password, PasswordError, PasswordHash, PresentedLink, SecurityNotice, User,
};
use tenantry_domain::kernel::{Constraint, Invalid, Permission, SessionId, StoreError, Time, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Refused, Tenant};

use crate::audit::refusal::{self, Refusal, RefusedAction, RefusedActor};
use crate::customization::product_settings;
use crate::customization::security_policy;
use crate::customization::setting;
use crate::identity::challenge::{self, ChallengeResponse};
use crate::identity::email_domain::AllowedDomains;
use crate::identity::lockout;
use crate::identity::mfa::{self, NewFactors, Removed};
use crate::identity::password::{self, Compared};
use crate::identity::{
    account_link, account_mail, address, first_password, new_password, security_notice, session,
};
use crate::kernel::carries_store_error::carries_store_error;
use crate::kernel::step_up::{ActingAdmin, RECENT_SECONDS, RecentFactor};
use crate::plans::{AddError, Countable, NotInPlan};
use crate::{Changed, Cx};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Input that does not hold, or a link that does not work.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Another password than that of the account.
    #[error("the password is not that of the account")]
    InvalidCredentials,
    /// The account waits for so many seconds after wrong passwords.
    #[error("the account waits for {0} seconds")]
    Locked(i64),
    /// The session began too long ago for the request without the password.
    #[error("the password is needed")]
    PasswordNeeded,
    /// No such user in this tenant.
    #[error("no such user")]
    NotFound,
    /// The user may not log in, so a link would lead nowhere.
    #[error("the user is deactivated")]
    Inactive,
    /// No response to a challenge was accepted.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// The plan has no place for a user who registered and proves the address now.
    #[error(transparent)]
    NotInPlan(#[from] NotInPlan),
    /// Another user of the tenant has that address.
    #[error("the address is taken")]
    EmailTaken,
    /// The address was changed too often within days.
    #[error("the address was changed too often")]
    ChangedTooOften,
    /// A user got as many links to confirm an address as a day allows.
    #[error("links to confirm an address were asked for too often")]
    AskedTooOften,
    /// Passwords cannot be hashed now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}
carries_store_error!(AccountError);

impl From<AddError> for AccountError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::NotInPlan(refused) => refused.into(),
            AddError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::UserEmail) => Self::EmailTaken,
            other => Self::Store(other),
        }
    }
}

/// The address of the caller's account.
///
/// # Errors
/// [`AccountError`].
pub async fn own_email(cx: &Cx) -> Result<Email, AccountError> {
    cx.require(Permission::ManageOwnAccount)?;
    let (user, _) = own(cx).await?;
    Ok(user.email)
}

/// Changes the caller's password, who knows the present one, and ends all of their other sessions, and the proofs of the mailbox that open
/// the account from other tenants. It takes a recent factor: the password alone must not be enough to keep the owner out.
///
/// # Errors
/// [`AccountError::InvalidCredentials`] for another present password; [`AccountError::Refused`] without a recent factor;
/// [`AccountError`].
pub async fn change_password(cx: &Cx, current: Password, new: String) -> Result<(), AccountError> {
    cx.require(Permission::ManageOwnAccount)?;
    let session = cx.scope().session().ok_or(Refused::Forbidden)?;
    let (seen, tenant) = own(cx).await?;
    let factor = cx.require_recent_factor().await??;
    let new = chosen(cx, new, &seen, &tenant).await?;
    security_policy::check_length(cx, &new, "/new_password").await??;
    confirm(cx, &seen, current).await?;
    first_password::refuse_again::<AccountError>(cx, &cx.hashing_caller(), &seen, &new).await?;
    let hash = cx.ports().passwords.hash(&cx.hashing_caller(), new).await?;
    replace_password(cx, &seen, session, hash, factor).await
}

async fn replace_password(
    cx: &Cx,
    seen: &User,
    session: SessionId,
    hash: PasswordHash,
    _: RecentFactor,
) -> Result<(), AccountError> {
    cx.write(async |work| {
        let user = work.users().find_for_update(seen.id).await?;
        // What the password was compared with must still stand.
        let user = user.filter(|user| user.is_active && user.password_hash == seen.password_hash);
        let mut user = user.ok_or(AccountError::InvalidCredentials)?;
        user.set_password(hash, cx.now());
        user.end_access(cx.now());
        work.users().update(&user).await?;
        let ended = work.sessions().revoke_others(user.id, session, cx.now()).await?;
        work.account_links()
            .delete_of(user.id, &[LinkPurpose::ResetPassword, LinkPurpose::ConfirmEmail])
            .await?;
        let details = json!({"ended_sessions": ended});
        let event = cx.security("user.password_changed", "user", Some(user.id.uuid()), details);
        work.audit().record(event).await?;
        account_mail::notify(cx, work, &user, AccountNotice::PasswordChanged).await?;
        Ok(())
    })
    .await
}

/// Asks for a link to an address, by mail. The answer says nothing of whether a user has it.
///
/// # Errors
/// `/email` when it is no address; those of the store.
pub async fn ask_for_link(
    cx: &Cx,
    purpose: LinkPurpose,
    email: &str,
    challenge: &ChallengeResponse,
) -> Result<(), AccountError> {
    let email = Email::parse(email, "/email")?;
    if purpose == LinkPurpose::ResetPassword {
        challenge::check(cx, ChallengePurpose::ForgotPassword, challenge).await?;
    }
    Ok(account_link::ask(cx, purpose, &email).await?)
}

/// Sends a user of the tenant a link to reset their password.
///
/// # Errors
/// [`AccountError::NotFound`], [`AccountError::Inactive`]; [`AccountError`].
pub async fn send_reset(cx: &Cx, id: UserId) -> Result<(), AccountError> {
    cx.require(Permission::ManageUsers)?;
    let factor = cx.require_recent_factor().await??;
    cx.write_as_admin(async |work, admin| send_reset_to(cx, work, id, (admin, factor)).await)
        .await
}

async fn send_reset_to(
    cx: &Cx,
    work: &mut Work,
    id: UserId,
    _: (ActingAdmin, RecentFactor),
) -> Result<(), AccountError> {
    let user = work.users().find_for_update(id).await?;
    let user = user.ok_or(AccountError::NotFound)?;
    if !user.is_active {
        return Err(AccountError::Inactive);
    }
    Ok(account_link::issue(cx, work, &user, LinkPurpose::ResetPassword, &user.email).await?)
}

/// Replaces the password of the account that a link opens, ends all of its sessions, and returns its user. The link was
/// read from a mail to the address of the account, so it proves that address, too.
///
/// Factors that were not settled when the link was made are removed, unless the tenant keeps them: a thief who knew the password may have
/// bound them, and they would outlive the new password. Of a user who registered and never proved the address before, all factors and API keys end: a
/// stranger may have registered with the address, and would keep its owner out. API keys of others have secrets of their own and stay
/// valid; the notices of the reset say so to a user who has made some, and name the passkeys that remain.
///
/// # Errors
/// `/token` when the link does not work, `/new_password`; [`AccountError::NotInPlan`] when there is no place for a user who proves the
/// address now; [`AccountError`].
pub async fn reset_password(cx: &Cx, token: &PresentedLink, new: String) -> Result<User, AccountError> {
    const RESET: LinkPurpose = LinkPurpose::ResetPassword;
    let (user, tenant) = opened(cx, RESET, token).await?;
    let new = chosen(cx, new, &user, &tenant).await?;
    security_policy::check_length(cx, &new, "/new_password").await??;
    let caller = HashingCaller {
        class: CallerClass::Known,
        ..cx.hashing_caller()
    };
    first_password::refuse_again::<AccountError>(cx, &caller, &user, &new).await?;
    let hash = cx.ports().passwords.hash(&caller, new).await?;
    let (domains, new_factors) = (AllowedDomains::of(cx).await?, NewFactors::of(cx).await?);
    cx.write(async |work| {
        let (link, mut user) = redeem_proof(cx, work, (RESET, token), &domains).await?;
        let removed = if user.may_be_a_strangers() {
            end_strangers_access(cx, work, &user).await?
        } else {
            mfa::remove_unsettled(cx, work, user.id, (new_factors, link.created_at)).await?
        };
        user.set_password(hash, cx.now());
        user.verify_email(cx.now());
        // The mailbox was read when the mail came, which may be some time before the link is used.
        user.prove_mailbox(link.created_at);
        let ended = session::end_all(cx, work, &mut user).await?;
        lockout::lift(cx, work, &user.email).await?;
        let links = work.account_links();
        links.delete_of(user.id, &[LinkPurpose::VerifyEmail]).await?;
        let details = json!({"ended_sessions": ended});
        let event = cx.security("user.password_reset", "user", Some(user.id.uuid()), details);
        work.audit().record(event).await?;
        match work.api_keys().count_of(user.id, cx.now()).await? {
            0 => account_mail::notify(cx, work, &user, AccountNotice::PasswordReset).await?,
            keys => {
                let notice = SecurityNotice::PasswordResetWithKeys { keys };
                security_notice::notify(cx, work, user.id, notice).await?;
            }
        }
        removed.notify(cx, work, user.id).await?;
        Ok(user)
    })
    .await
}

/// What shows that the caller who opens a link is the user who chose the password of the account.
#[derive(Debug, Default)]
pub struct Registrant {
    /// The user of the live session that the request comes from.
    pub session_of: Option<UserId>,
    /// The password of the account.
    pub password: Option<Password>,
}

/// Notes that the address of the account that a link opens belongs to its user.
///
/// Anybody can register with an address, and its owner may open the link of a stranger's registration. So the link alone keeps
/// nothing of a registration: its password, sessions, factors and API keys end, and a link to choose a password is mailed. All of it
/// stays for the registrant, who sends the password or has a session of the account.
///
/// # Errors
/// `/token` when the link does not work; [`AccountError::InvalidCredentials`] and [`AccountError::Locked`] when a password is sent;
/// [`AccountError::NotInPlan`] when there is no place for a user who proves the address now; those of the store.
pub async fn verify_email(
    cx: &Cx,
    token: &PresentedLink,
    registrant: Registrant,
) -> Result<(), AccountError> {
    const VERIFY: LinkPurpose = LinkPurpose::VerifyEmail;
    let (seen, _) = opened(cx, VERIFY, token).await?;
    let with_password = registrant.password.is_some();
    if let Some(password) = registrant.password {
        // The password of a registration is not in force before the proof.
        let waiting = User {
            password_hash: seen.password_hash.in_force(),
            ..seen.clone()
        };
        confirm(cx, &waiting, password).await?;
    }
    let domains = AllowedDomains::of(cx).await?;
    cx.write(async |work| {
        let (link, mut user) = redeem_proof(cx, work, (VERIFY, token), &domains).await?;
        if with_password && user.password_hash != seen.password_hash {
            return Err(AccountError::InvalidCredentials);
        }
        let is_registrant = with_password || registrant.session_of == Some(user.id);
        let is_strangers = user.may_be_a_strangers() && !is_registrant;
        if is_strangers {
            let removed = end_strangers_access(cx, work, &user).await?;
            removed.notify(cx, work, user.id).await?;
            user.set_password(cx.ports().passwords.unusable(), cx.now());
            session::end_all(cx, work, &mut user).await?;
        }
        user.verify_email(cx.now());
        work.users().update(&user).await?;
        let details = json!({"email": link.email, "password_ended": is_strangers});
        let event = cx.security("user.email_verified", "user", Some(user.id.uuid()), details);
        work.audit().record(event).await?;
        if is_strangers {
            account_link::issue(cx, work, &user, LinkPurpose::ResetPassword, &user.email).await?;
        }
        Ok(())
    })
    .await
}

/// The user whose account a link opens, and the tenant.
async fn opened(
    cx: &Cx,
    purpose: LinkPurpose,
    token: &PresentedLink,
) -> Result<(User, Tenant), AccountError> {
    let seen = cx
        .read(async |work| {
            let Some(link) = account_link::find(cx, work, purpose, token).await? else {
                return Ok(None);
            };
            let user = work.users().find(link.user_id).await?;
            Ok::<_, StoreError>(user.zip(work.tenants().current().await?))
        })
        .await?;
    Ok(seen.ok_or_else(account_link::unusable)?)
}

/// Uses up a link that proves the present address of its user, and locks the user. One who registered and waits for the proof takes a
/// place of the plan with it.
async fn redeem_proof(
    cx: &Cx,
    work: &mut Work,
    (purpose, token): (LinkPurpose, &PresentedLink),
    domains: &AllowedDomains,
) -> Result<(AccountLink, User), AccountError> {
    // First, as for every address that is taken.
    address::lock_tenant(work).await?;
    let redeemed = account_link::redeem(cx, work, purpose, token).await?;
    let (link, user) = redeemed.ok_or_else(account_link::unusable)?;
    if user.awaits_proof() {
        domains.check_at(&user.email, "/token")?;
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Users)
            .await?;
    }
    Ok((link, user))
}

/// Ends what a stranger who registered with the address may have set up, but for the password and the sessions. The user is locked.
async fn end_strangers_access(cx: &Cx, work: &mut Work, user: &User) -> Result<Removed, StoreError> {
    for before in work.api_keys().list_of(user.id).await? {
        let mut key = before.clone();
        key.revoke(cx.now());
        work.api_keys().update(&key).await?;
        cx.record(work, Changed::ended("api_key.revoked", &before))
            .await?;
    }
    work.api_keys().keep_latest_revoked(ApiKey::MOST_REVOKED).await?;
    mfa::remove_of_stranger(cx, work, user.id).await
}

/// Whether the tenant lets only users with a proven address in.
///
/// # Errors
/// Those of the store.
pub(crate) async fn verified_only(cx: &Cx) -> Result<bool, StoreError> {
    let required = setting::find(cx, &product_settings::REQUIRE_VERIFIED_EMAIL).await?;
    Ok(required.unwrap_or_default())
}

/// Compares a password with that of the caller's account; another one is recorded like a failed login.
pub(crate) async fn confirm(cx: &Cx, user: &User, password: Password) -> Result<(), AccountError> {
    match password::compare::<AccountError>(cx, user, password).await? {
        Compared::Right => return Ok(()),
        Compared::Locked(seconds) => return Err(AccountError::Locked(seconds)),
        Compared::Wrong => {}
    }
    let refusal = Refusal {
        action: RefusedAction::PasswordConfirmation,
        target_type: "user",
        target: Some(user.id.uuid()),
        actor: RefusedActor::of(cx.scope()),
        ip: cx.origin().ip.clone(),
        details: json!({}),
    };
    refusal::record(cx, refusal).await?;
    Err(AccountError::InvalidCredentials)
}

/// Asks for a recent second factor of a caller who has one. Of others it asks for the password, unless the session began, or a factor was
/// given, within [`RECENT_SECONDS`]: a stolen access token must not be enough.
///
/// # Errors
/// [`AccountError::PasswordNeeded`]; [`AccountError::Refused`] without a recent factor; those of [`confirm`].
pub(crate) async fn require_presence(
    cx: &Cx,
    password: Option<Password>,
) -> Result<RecentFactor, AccountError> {
    let factor = cx.require_recent_factor().await??;
    if let Some(password) = password {
        let (user, _) = own(cx).await?;
        return confirm(cx, &user, password).await.map(|()| factor);
    }
    let id = cx.scope().session().ok_or(Refused::Forbidden)?;
    let session = cx.read(async |work| work.sessions().find(id).await).await?;
    let session = session.ok_or(Refused::Forbidden)?;
    let is_recent = |at: Time| cx.now() - at < Duration::seconds(RECENT_SECONDS);
    // The factor of a login is in the session, that of a step-up in its token alone. Refreshed tokens have no later factor
    // (`Session::as_refreshed`): it would be the presence of another holder of the session.
    let given = [
        session.login_at(),
        session.login_factor_at(),
        cx.scope().factor_at(),
    ];
    if given.into_iter().flatten().any(is_recent) {
        Ok(factor)
    } else {
        Err(AccountError::PasswordNeeded)
    }
}

/// The caller, and their tenant.
pub(crate) async fn own(cx: &Cx) -> Result<(User, Tenant), AccountError> {
    let id = cx.scope().user().ok_or(Refused::Forbidden)?;
    let found = cx
        .read(async |work| {
            let user = work.users().find(id).await?;
            Ok::<_, StoreError>(user.zip(work.tenants().current().await?))
        })
        .await?;
    found.ok_or_else(|| Refused::Forbidden.into())
}

/// A password that a user chooses, held to the rules of sign-up.
async fn chosen(cx: &Cx, text: String, user: &User, tenant: &Tenant) -> Result<Password, Invalid> {
    let names = [
        tenant.slug.as_str(),
        &tenant.name,
        user.email.as_str(),
        &user.full_name,
    ];
    new_password::choose(cx.app(), text, "/new_password", &names).await
}
