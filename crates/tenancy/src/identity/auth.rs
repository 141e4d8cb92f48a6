//! Login, registration, and the life of a session.

use serde_json::json;
use tenantry_domain::identity::{
    ChallengeError, ChallengePurpose, Email, Guess, HashingCaller, MailboxEntry, Password, PasswordError,
    PasswordHash, PresentedRefresh, Rotation, Session, User,
};
use tenantry_domain::kernel::{Constraint, Invalid, Network, Permission, StoreError, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Refused, Tenant};

use crate::audit::refusal::{self, Refusal, RefusedAction};
use crate::identity::applicant::{self, Applicant, PrepareError};
use crate::identity::claim::{Claim, SecondFactor};
use crate::identity::email_domain::AllowedDomains;
use crate::identity::lockout::{self, Guesser};
use crate::identity::mfa::{self, AtLogin, MfaError, Pending};
use crate::identity::session::{self, SessionRules};
use crate::identity::session_start::{
    self, LoggedIn, admits_switches, logged_in, new_session, own_tenant, session_lifetime,
};
use crate::identity::{
    account, account_link, account_mail, address,
    challenge::{self, ChallengeResponse},
    known_network, password, trusted_device,
};
use crate::kernel::carries_store_error::carries_store_error;
use crate::kernel::step_up::GrantedRole;
use crate::plans::{AddError, Countable, NotInPlan};
use crate::{Changed, Cx};

/// The outcome of a registration.
#[derive(Debug, Clone)]
pub enum Registered {
    /// The user is logged in.
    LoggedIn(Box<LoggedIn>),
    /// The user can log in once the address is verified, with the link that was mailed to it. The id is of nobody when the address was
    /// taken.
    Unverified(UserId),
}

impl Registered {
    /// The user who registered.
    pub fn user(&self) -> UserId {
        match self {
            Self::LoggedIn(login) => login.user.id,
            Self::Unverified(user) => *user,
        }
    }
}

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No such active user, or another password; which of them is not told.
    #[error("the tenant has no active user with this address and password")]
    InvalidCredentials,
    /// The tenant lets only users with a proven address in, and this address is not proven.
    #[error("the address of the account is not verified")]
    EmailNotVerified,
    /// The refresh token is not one of ours, or its session has ended.
    #[error("the refresh token is not valid")]
    InvalidRefresh,
    /// The session of the refresh token began more than so many days ago.
    #[error("the session began more than {0} days ago")]
    SessionOutlived(i64),
    /// The token of an invitation is not one of ours, or the invitation is not open.
    #[error("the invitation was accepted or revoked, has expired, or its token is not valid")]
    InvalidInvitation,
    /// The tenant does not let people register themselves.
    #[error("the tenant does not allow self-registration")]
    RegistrationClosed,
    /// The tenant, or the server, requires a second factor of members, which a registration does not ask for.
    #[error("members of the tenant need a second factor, so nobody registers")]
    RegistrationNeedsFactor,
    /// No response to a challenge was accepted.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// Another user of the tenant has that address.
    #[error("the address is taken")]
    EmailTaken,
    /// The password is right, and a code of the second factor is missing.
    #[error("the login needs a second factor")]
    FactorRequired(Pending),
    /// The password is right, and the code of the second factor is not.
    #[error("the code is not accepted")]
    WrongCode,
    /// The account waits for so many seconds after wrong passwords or codes.
    #[error("the account waits for {0} seconds")]
    Locked(i64),
    /// Passwords cannot be hashed now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The plan allows no more.
    #[error(transparent)]
    NotInPlan(#[from] NotInPlan),
    /// The secret of the user's app cannot be opened.
    #[error("the secret of the app cannot be opened")]
    FactorUnreadable,
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}
carries_store_error!(AuthError);

impl From<AddError> for AuthError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::NotInPlan(refused) => refused.into(),
            AddError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::UserEmail) => Self::EmailTaken,
            other => Self::Store(other),
        }
    }
}

impl From<MfaError> for AuthError {
    fn from(error: MfaError) -> Self {
        match error {
            MfaError::Refused(refused) => refused.into(),
            MfaError::WrongCode => Self::WrongCode,
            MfaError::Unreadable => Self::FactorUnreadable,
            MfaError::Locked(seconds) => Self::Locked(seconds),
            MfaError::Password(error) => error.into(),
            MfaError::Store(error) => error.into(),
            MfaError::InvalidToken
            | MfaError::Required
            | MfaError::Own
            | MfaError::NoSuchUser
            | MfaError::WrongPassword
            | MfaError::PasswordRequired
            | MfaError::AlreadyEnabled
            | MfaError::NotEnrolled => Self::InvalidCredentials,
        }
    }
}

impl From<PrepareError> for AuthError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Invalid(invalid) => invalid.into(),
            PrepareError::Password(error) => error.into(),
            PrepareError::Store(error) => error.into(),
        }
    }
}

/// Logs somebody in. An unknown address costs the same time as a wrong password, and both are recorded. After wrong ones in
/// a row the address waits, known or unknown. A first password that has expired is a wrong one, but in the audit log.
///
/// # Errors
/// [`AuthError::InvalidCredentials`], [`AuthError::FactorRequired`], [`AuthError::WrongCode`], [`AuthError::Locked`], and those
/// of the store.
pub async fn login(
    cx: &Cx,
    email: &str,
    password: Password,
    second: SecondFactor,
) -> Result<LoggedIn, AuthError> {
    // What is no address has no account; it costs the same.
    let address = Email::parse(email, "/email").ok();
    let claim = claim(cx, address.as_ref(), email, second).await?;
    let user = claim.user.clone().filter(|user| user.is_active);
    if let Some(seconds) = claim.wait {
        let target = user.map(|user| user.id);
        lockout::record(cx, Guess::Password, target, address.as_ref()).await?;
        return Err(AuthError::Locked(seconds));
    }
    let hash = user.as_ref().map(|user| user.password_hash.in_force());
    let passwords = &cx.ports().passwords;
    let caller = HashingCaller {
        class: claim.class(),
        ..cx.hashing_caller()
    };
    let verified = passwords.verify(&caller, password.clone(), hash).await?;
    match user {
        Some(user) if verified.is_right() && !user.has_expired_password(cx.now()) => {
            if user.awaits_proof() || (!user.email_verified && account::verified_only(cx).await?) {
                return Err(AuthError::EmailNotVerified);
            }
            let renewed = password::renew(passwords.as_ref(), &caller, verified, password).await;
            let opened = open_session(cx, &user, renewed, &claim).await;
            match opened {
                Err(AuthError::InvalidCredentials) => record_failure(cx, email, Some(user.id), None).await?,
                Err(AuthError::WrongCode) => mfa::record_failure(cx, user.id).await?,
                Err(AuthError::Locked(_)) => lockout::record(cx, Guess::Code, Some(user.id), None).await?,
                Ok(_) | Err(_) => {}
            }
            opened
        }
        user => {
            // Nothing else tells it from a wrong one: a stranger must not learn that the password was right.
            let has_expired = verified.is_right() && user.is_some();
            let reason = has_expired.then_some("password_expired");
            let user = user.map(|user| user.id);
            record_failure(cx, email, user, reason).await?;
            cx.write_behind(async |work| {
                if let Some((user, device)) = user.zip(claim.device) {
                    trusted_device::fail(cx, work, user, device).await?;
                }
                lockout::fail(cx, work, Guess::Password, claim.guesser).await
            })
            .await?;
            Err(AuthError::InvalidCredentials)
        }
    }
}

/// Begins a session of the user whose mailbox the caller of another tenant has proven to read, as a login does after the
/// password. The context is a guest's in the tenant of the user.
///
/// # Errors
/// [`AuthError::InvalidCredentials`] when the tenant has no active account of that person with a verified address, or admits nobody
/// in this way; [`AuthError::FactorRequired`], [`AuthError::Locked`], and those of the store.
pub(crate) async fn enter_by_mailbox(cx: &Cx, entry: MailboxEntry) -> Result<LoggedIn, AuthError> {
    if !admits_switches(cx).await? {
        return Err(AuthError::InvalidCredentials);
    }
    let claim = claim_of_mailbox(cx, entry).await?;
    let user = claim.user.clone().filter(|user| claim.admits(user));
    let user = user.ok_or(AuthError::InvalidCredentials)?;
    open_session(cx, &user, None, &claim).await
}

/// Registers a user as a member of a tenant that allows it, and logs in. Where the tenant lets only verified addresses in, or
/// only those of some domains, no session begins: the password is in force once the address is verified. There an address that is taken
/// gets the same answer, and its owner a link by mail.
///
/// # Errors
/// [`AuthError`].
pub async fn register(
    cx: &Cx,
    email: &str,
    full_name: String,
    password: String,
    challenge: &ChallengeResponse,
) -> Result<Registered, AuthError> {
    let tenant = cx.read(async |work| own_tenant::<AuthError>(work).await).await?;
    if !tenant.settings.self_registration {
        return Err(AuthError::RegistrationClosed);
    }
    // A registration asks for no factor, so it is closed where members need one.
    if mfa::requirement(cx)
        .await?
        .applies_to(GrantedRole::REGISTERED.role())
    {
        return Err(AuthError::RegistrationNeedsFactor);
    }
    cx.scope().require_write()?;
    let domains = AllowedDomains::of(cx).await?;
    domains.check_text(email)?;
    let needs_proof = domains.is_limited() || account::verified_only(cx).await?;
    if let Err(refused) = challenge::check(cx, ChallengePurpose::Register, challenge).await {
        // A request that is repeated with its idempotency key has used the response up.
        cx.check_once().await?;
        return Err(refused.into());
    }
    let data = Applicant {
        email: email.to_owned(),
        full_name,
        password: Some(password),
    };
    let (mut user, _) = applicant::prepare(cx, data, GrantedRole::REGISTERED, &tenant).await?;
    if needs_proof {
        user.password_hash = user.password_hash.pending();
    }
    user.note_registration();
    let rules = session::rules(cx).await?;
    let (session, refresh_token) = new_session(cx, user.id);
    let registered = cx.write(async |work| {
        address::lock_tenant(work).await?;
        // First, as for the address of a user: at the limit, all addresses get the same answer. One who has to prove the address takes
        // the place with the proof.
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Users)
            .await?;
        if address::is_reserved(cx, work, &user.email, None).await? {
            return Err(AuthError::EmailTaken);
        }
        if needs_proof {
            address::make_room_for_registration(cx, work).await?;
        }
        work.users().insert(&user).await?;
        cx.record(work, Changed::with("user.registered", None, &user))
            .await?;
        account_link::verify(cx, work, &user).await?;
        if needs_proof {
            return Ok(Registered::Unverified(user.id));
        }
        work.sessions().insert(&session).await?;
        let refresh_token = refresh_token.clone();
        let login = logged_in(cx, rules, &session, refresh_token, user.clone(), tenant.clone());
        Ok::<_, AuthError>(Registered::LoggedIn(Box::new(login)))
    });
    match registered.await {
        // The answer is in the mailbox, so that nobody else learns who has an account.
        Err(AuthError::EmailTaken) if needs_proof => {
            let cx = cx.without_key();
            account_link::remind(&cx, &user.email).await?;
            Ok(Registered::Unverified(user.id))
        }
        registered => registered,
    }
}

/// Rotates a refresh token. The access token says when the factor of the login was given, and nothing of a factor that was given
/// later: its holder may be another one. A used-up token ends its session, except within moments of its use. A session that was idle
/// for too long, or began too long ago, ends too.
///
/// # Errors
/// [`AuthError::InvalidRefresh`], [`AuthError::SessionOutlived`], and those of the store.
pub async fn refresh(cx: &Cx, presented: &PresentedRefresh) -> Result<LoggedIn, AuthError> {
    let rules = session::rules(cx).await?;
    let verified_only = account::verified_only(cx).await?;
    let outcome = cx
        .write(async |work| rotate(cx, work, presented, (rules, verified_only)).await)
        .await?;
    let (user, tenant, session) = match outcome {
        Refreshed::Session(session) => *session,
        Refreshed::Ended => return Err(AuthError::InvalidRefresh),
        Refreshed::Outlived => {
            let longest = rules.lifetime(session_lifetime(cx)).longest;
            return Err(AuthError::SessionOutlived(longest.num_days()));
        }
    };
    let refresh_token = presented.child.token.clone();
    let session = session.as_refreshed();
    Ok(logged_in(cx, rules, &session, refresh_token, user, tenant))
}

/// Ends the caller's own session.
///
/// # Errors
/// [`AuthError`].
pub async fn logout(cx: &Cx) -> Result<(), AuthError> {
    cx.require(Permission::EndSession)?;
    let id = cx.scope().session().ok_or(Refused::Forbidden)?;
    cx.write(async |work| {
        if let Some(mut session) = work.sessions().find_for_update(id).await? {
            session::revoke(cx, work, &mut session, "logout").await?;
        }
        Ok(())
    })
    .await
}

/// The caller and their tenant; not for API keys, which are no users.
///
/// # Errors
/// [`AuthError`].
pub async fn me(cx: &Cx) -> Result<(User, Tenant), AuthError> {
    cx.require(Permission::ReadTenant)?;
    let (id, _) = cx
        .scope()
        .user()
        .zip(cx.scope().session())
        .ok_or(Refused::Forbidden)?;
    cx.read(async |work| {
        let user = work.users().find(id).await?.ok_or(Refused::Forbidden)?;
        Ok((user, own_tenant::<AuthError>(work).await?))
    })
    .await
}

/// The claim of the user of an address whose mailbox the caller has proven to read. Unknown addresses cost the same.
///
/// # Errors
/// [`AuthError::InvalidCredentials`] when there is no such account for the proof, [`AuthError::Locked`], and those of the
/// store.
async fn claim_of_mailbox(cx: &Cx, entry: MailboxEntry) -> Result<Claim, AuthError> {
    let email = entry.proof.email.clone();
    let found = claim(cx, Some(&email), email.as_str(), SecondFactor::default()).await?;
    if let Some(seconds) = found.wait {
        let target = found.user.filter(|user| user.is_active).map(|user| user.id);
        lockout::record(cx, Guess::Password, target, Some(&email)).await?;
        return Err(AuthError::Locked(seconds));
    }
    Ok(Claim {
        // It says nothing of the guesses before it.
        has_failed: false,
        mailbox: Some(entry),
        ..found
    })
}

/// Looks up what an address claims to be. Unknown addresses cost the same.
async fn claim(
    cx: &Cx,
    address: Option<&Email>,
    typed: &str,
    second: SecondFactor,
) -> Result<Claim, StoreError> {
    let network = Network::site(cx.origin().address());
    cx.read(async |work| {
        let (user, addresses) = match address {
            Some(address) => (
                work.users().find_by_email(address).await?,
                known_network::logins(cx, work, address).await?,
            ),
            None => (None, Vec::new()),
        };
        let guesser = Guesser::of(cx, typed, known_network::is_among(network, &addresses));
        let standing = lockout::look(cx, work, Guess::Password, guesser).await?;
        let device = trusted_device::shown(cx, work, user.as_ref(), &second).await?;
        Ok(Claim {
            user,
            addresses,
            second,
            guesser,
            device,
            wait: standing.wait.filter(|_| device.is_none()),
            has_failed: standing.has_failed,
            mailbox: None,
        })
    })
    .await
}

/// What a right password has led to.
enum Opened {
    Session(Box<(User, Tenant, Session)>),
    Pending(Pending),
    WrongCode,
}

async fn open_session(
    cx: &Cx,
    seen: &User,
    renewed: Option<PasswordHash>,
    claim: &Claim,
) -> Result<LoggedIn, AuthError> {
    let rules = session::rules(cx).await?;
    let (session, refresh_token) = new_session(cx, seen.id);
    let required = mfa::requirement(cx).await?;
    let opened = cx
        .write(async |work| {
            // The password was verified outside of any transaction; what it was verified against must still stand.
            let user = work.users().find_for_update(seen.id).await?;
            let user = user.filter(|user| claim.admits(user) && user.password_hash == seen.password_hash);
            let mut user = user.ok_or(AuthError::InvalidCredentials)?;
            if let Some(renewed) = renewed {
                user.password_hash = renewed;
                work.users().update(&user).await?;
            }
            if claim.has_failed {
                lockout::succeed(work, Guess::Password, claim.guesser).await?;
            }
            if let Some(device) = claim.device {
                lockout::succeed(work, Guess::Password, Guesser::of_device(device)).await?;
            }
            let proven = match mfa::at_login(cx, work, &user, claim, required).await? {
                AtLogin::Session(proven) => proven,
                AtLogin::Pending(pending) => return Ok(Opened::Pending(pending)),
                // Committed, so that the code counts.
                AtLogin::WrongCode => return Ok(Opened::WrongCode),
            };
            let session = proven.put_into(session_start::begun(
                &user,
                session.clone(),
                claim.mailbox.as_ref(),
            ));
            session_start::start(cx, work, (&user, &claim.addresses), rules, &session).await?;
            let opened = Box::new((user, own_tenant::<AuthError>(work).await?, session));
            Ok::<_, AuthError>(Opened::Session(opened))
        })
        .await?;
    match opened {
        Opened::Session(opened) => {
            let (user, tenant, session) = *opened;
            Ok(logged_in(cx, rules, &session, refresh_token, user, tenant))
        }
        Opened::Pending(pending) => Err(AuthError::FactorRequired(pending)),
        Opened::WrongCode => Err(AuthError::WrongCode),
    }
}

async fn record_failure(
    cx: &Cx,
    email: &str,
    user: Option<UserId>,
    reason: Option<&str>,
) -> Result<(), AuthError> {
    // What was typed may be a password in the wrong box: only something that is an address is kept.
    let email = Email::parse(email, "/email").ok();
    let details = match reason {
        Some(reason) => json!({"email": email, "reason": reason}),
        None => json!({"email": email}),
    };
    let refusal = Refusal {
        action: RefusedAction::Login,
        target_type: "user",
        target: user.map(UserId::uuid),
        actor: None,
        ip: cx.origin().ip.clone(),
        details,
    };
    Ok(refusal::record(cx, refusal).await?)
}

/// What a refresh token leads to. The end of its session must be committed, so that it is no error.
enum Refreshed {
    /// The user, the tenant and the session.
    Session(Box<(User, Tenant, Session)>),
    /// The session has ended.
    Ended,
    /// The session began too long ago.
    Outlived,
}

async fn rotate(
    cx: &Cx,
    work: &mut Work,
    presented: &PresentedRefresh,
    (rules, verified_only): (SessionRules, bool),
) -> Result<Refreshed, AuthError> {
    let Some(mut session) = work.sessions().find_for_update(presented.session).await? else {
        return Ok(Refreshed::Ended);
    };
    let lifetime = rules.lifetime(session_lifetime(cx));
    if session::end_outlived(cx, work, &mut session, lifetime).await? {
        return Ok(Refreshed::Outlived);
    }
    if session::end_idle(cx, work, &mut session, rules).await? {
        return Ok(Refreshed::Ended);
    }
    let rotation = session.rotate(presented.hash, presented.child.hash, cx.now(), lifetime);
    match rotation {
        Rotation::Ended => return Ok(Refreshed::Ended),
        Rotation::Rotated => work.sessions().update(&session).await?,
        Rotation::Repeated => {}
        Rotation::Reused => {
            work.sessions().update(&session).await?;
            let event = cx.security(
                "refresh_token.reused",
                "session",
                Some(session.id.uuid()),
                json!({"user_id": session.user_id}),
            );
            work.audit().record(event).await?;
            account_mail::note_reuse(cx, work, session.user_id).await?;
            return Ok(Refreshed::Ended);
        }
    }
    let user = work
        .users()
        .find(session.user_id)
        .await?
        .filter(|user| user.is_active);
    match user {
        // The token stays valid: nothing of this transaction is stored.
        Some(user) if verified_only && !user.email_verified => Err(AuthError::EmailNotVerified),
        Some(user) => {
            let tenant = own_tenant::<AuthError>(work).await?;
            Ok(Refreshed::Session(Box::new((user, tenant, session))))
        }
        None => Ok(Refreshed::Ended),
    }
}
