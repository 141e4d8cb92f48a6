//! Step-up: requests that matter more than others need a second factor that was given minutes ago.
//!
//! A use case asks for a [`RecentFactor`] and hands it to the function that makes the change, which takes it as an argument:
//! a forgotten check does not compile. API keys, jobs and the system have no session in which a factor could be given, so
//! they pass; the permissions of the requests that matter are no scopes of API keys, with one exception: the key of a service
//! account rotates itself.
//!
//! What callers may give to others is decided here too: roles, custom roles and scopes of API keys.

use chrono::Duration;
use tenantry_domain::identity::{RoleName, TotpFactor};
use tenantry_domain::kernel::{
    AsStoreError, Invalid, Permission, PermissionSet, Role, StoreError, Time, UserId,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;

use crate::kernel::context::Cx;
use crate::kernel::context::entitlements::Feature;
use crate::kernel::not_in_plan::NotInPlan;

/// For how long a factor that was given counts as recent, in seconds.
pub const RECENT_SECONDS: i64 = 600;

/// Proof that the caller gave a second factor within [`RECENT_SECONDS`], or has none to give.
#[derive(Debug, Clone, Copy)]
#[must_use = "the function that makes the change takes it"]
pub struct RecentFactor(());

/// A role that the caller may give to a user now: the role of an admin needs a [`RecentFactor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrantedRole(Role);

impl GrantedRole {
    /// The role of a user who registers.
    pub(crate) const REGISTERED: Self = Self(Role::Member);

    /// A role that the caller gives to another user. The outer error is the store's.
    ///
    /// # Errors
    /// [`Refused::FactorRequired`] inside.
    pub(crate) async fn by_caller(cx: &Cx, role: Role) -> Result<Result<Self, Refused>, StoreError> {
        if role == Role::Admin
            && let Err(refused) = cx.require_recent_factor().await?
        {
            return Ok(Err(refused));
        }
        Ok(Ok(Self(role)))
    }

    /// The role of an invitation, which the inviter was granted.
    pub(crate) const fn invited(role: Role) -> Self {
        Self(role)
    }

    /// The role that may be given.
    pub(crate) const fn role(self) -> Role {
        self.0
    }
}

/// Locks the tenant's row until the transaction ends.
pub(crate) async fn lock_tenant(work: &mut Work) -> Result<(), StoreError> {
    let tenant = work.tenants().current_for_update().await?;
    let gone = || StoreError::Other("the scope's tenant is not there".into());
    tenant.map(|_| ()).ok_or_else(gone)
}

/// Proof that the caller is an acting admin in the running transaction, with a session that has not ended. Functions that make changes
/// which only admins may make take it.
#[derive(Debug, Clone, Copy)]
#[must_use = "the function that makes the change takes it"]
pub(crate) struct ActingAdmin(());

/// Makes sure that a user who acts is an acting admin with a live session, as stored now: a scope is of the time when the request began,
/// and a client that sends its body slowly could otherwise give itself back what it lost meanwhile. Exact while the tenant's row is
/// locked, as by [`Cx::write_as_admin`]. Callers that are no users (jobs, the system) pass. The outer error is the store's.
///
/// # Errors
/// [`Refused::Forbidden`] inside.
pub(crate) async fn require_acting_admin(
    cx: &Cx,
    work: &mut Work,
) -> Result<Result<ActingAdmin, Refused>, StoreError> {
    let Some(caller) = cx.scope().user() else {
        return Ok(Ok(ActingAdmin(())));
    };
    if let Some(session) = cx.scope().session() {
        // Not locked: a login of the caller locks the user before the session.
        let session = work.sessions().find(session).await?;
        if session.is_none_or(|session| !session.is_live(cx.now())) {
            return Ok(Err(Refused::Forbidden));
        }
    }
    let caller = work.users().find(caller).await?;
    let acts = caller.is_some_and(|caller| caller.is_acting_admin());
    Ok(acts.then_some(ActingAdmin(())).ok_or(Refused::Forbidden))
}

/// Checks that the caller may give a custom role to a user or an invitation now: the plan has custom roles, the role is there, and
/// the caller has what it allows. Runs in a transaction that holds the tenant's row, so that the role stays until it is given.
///
/// # Errors
/// [`Refused`], [`NotInPlan`], `unknown_role` at `/custom_role`, and those of the store, as an error of the use case that calls it.
pub(crate) async fn may_give_role<E>(cx: &Cx, work: &mut Work, name: &RoleName) -> Result<(), E>
where
    E: From<Refused> + From<NotInPlan> + From<Invalid> + From<StoreError>,
{
    cx.require_feature(Feature::CUSTOM_ROLES)?;
    let role = work.custom_roles().find(name).await?;
    let role = role.ok_or_else(RoleName::unknown)?;
    Ok(require_held(cx, &role.permissions)?)
}

/// The caller must have each of the permissions. Names that this service does not know grant nothing. The system, which imports
/// users, has what it gives.
pub(crate) fn require_held(cx: &Cx, permissions: &PermissionSet) -> Result<(), Refused> {
    let mut asked = cx.ports().permissions.all().iter();
    let held = asked.all(|permission| !permissions.contains(*permission) || cx.scope().has(*permission));
    if held || cx.scope().has(Permission::ImportUsers) {
        Ok(())
    } else {
        Err(Refused::Forbidden)
    }
}

impl Cx {
    /// Runs work like [`Cx::write`], with the tenant's row locked and for [acting admins](require_acting_admin) alone.
    ///
    /// # Errors
    /// [`Refused::Forbidden`]; those of the work and of the store.
    pub(crate) async fn write_as_admin<T: 'static, E>(
        &self,
        work: impl AsyncFnOnce(&mut Work, ActingAdmin) -> Result<T, E> + Clone,
    ) -> Result<T, E>
    where
        E: From<Refused> + From<StoreError> + AsStoreError,
    {
        self.write(async |unit| {
            lock_tenant(unit).await?;
            let admin = require_acting_admin(self, unit).await??;
            work(unit, admin).await
        })
        .await
    }

    /// Asks for a second factor of the last [`RECENT_SECONDS`], of a user who has one: for use cases that matter more than
    /// others. The outer error is the store's.
    ///
    /// # Errors
    /// [`Refused::FactorRequired`] inside.
    pub async fn require_recent_factor(&self) -> Result<Result<RecentFactor, Refused>, StoreError> {
        Ok(proof(self.recent_factor().await?))
    }

    /// The same for use cases that remove factors of others, which are not allowed without a settled one of one's own
    /// ([`TotpFactor::is_settled`]): a stolen password must not be enough, by enrolling a factor first. The outer error is the
    /// store's.
    ///
    /// # Errors
    /// [`Refused::FactorRequired`], [`Refused::FactorMissing`] and [`Refused::FactorTooNew`] inside.
    pub async fn require_own_factor(&self) -> Result<Result<RecentFactor, Refused>, StoreError> {
        let (given, is_settled) = (self.recent_factor().await?, self.is_settled().await?);
        Ok(match given {
            Given::Recently if is_settled => Ok(RecentFactor(())),
            Given::Recently => Err(Refused::FactorTooNew),
            Given::NotEnrolled => Err(Refused::FactorMissing),
            Given::TooLongAgo => Err(Refused::FactorRequired),
        })
    }

    /// The same for use cases that are not allowed with a session alone: a user without a factor must have logged in within the last
    /// [`RECENT_SECONDS`]. The outer error is the store's.
    ///
    /// # Errors
    /// [`Refused::FactorRequired`] and [`Refused::LoginRequired`] inside.
    pub(crate) async fn require_recent_authentication(
        &self,
    ) -> Result<Result<RecentFactor, Refused>, StoreError> {
        Ok(match self.recent_factor().await? {
            Given::Recently => Ok(RecentFactor(())),
            Given::TooLongAgo => Err(Refused::FactorRequired),
            Given::NotEnrolled if self.has_logged_in_recently().await? => Ok(RecentFactor(())),
            Given::NotEnrolled => Err(Refused::LoginRequired),
        })
    }

    /// Whether the caller's session began with a password or a passkey within the last [`RECENT_SECONDS`].
    async fn has_logged_in_recently(&self) -> Result<bool, StoreError> {
        let Some(session) = self.scope().session() else {
            return Ok(false);
        };
        let session = self
            .read(async |work| work.sessions().find(session).await)
            .await?;
        let login_at = session.and_then(|session| session.login_at());
        Ok(login_at.is_some_and(|at| is_recent(self, at)))
    }

    /// Whether the caller has a settled second factor, or is no user.
    async fn is_settled(&self) -> Result<bool, StoreError> {
        let Some(user) = self.scope().user() else {
            return Ok(true);
        };
        self.read(async |work| {
            let now = self.now();
            let app = work.second_factors().find_totp(user).await?;
            if app.is_some_and(|factor| factor.is_settled(now)) {
                return Ok(true);
            }
            if self.ports().passkeys.is_none() {
                // A passkey that cannot be used is no factor.
                return Ok(false);
            }
            let passkeys = work.passkeys().list(user).await?;
            Ok(passkeys.iter().any(|passkey| passkey.is_settled(now)))
        })
        .await
    }

    async fn recent_factor(&self) -> Result<Given, StoreError> {
        match self.scope().session() {
            // It was given for the token.
            Some(_) if self.scope().is_portal() => Ok(Given::Recently),
            Some(_) => self.read(async |work| given(self, work).await).await,
            None => Ok(Given::Recently),
        }
    }

    /// What the credential alone says; `None` when the session has to be asked.
    fn given_by_token(&self) -> Option<Given> {
        let is_user = self.scope().user().zip(self.scope().session()).is_some();
        let given_at = self.scope().factor_at();
        let is_enough = !is_user || given_at.is_some_and(|at| is_recent(self, at));
        is_enough.then_some(Given::Recently)
    }
}

/// Asks for the same as [`Cx::require_recent_factor`] in the transaction that finishes what the caller began earlier: the user, who is
/// locked, may have got a factor since. The outer error is the store's.
///
/// # Errors
/// [`Refused::FactorRequired`] inside.
pub(crate) async fn require_recent(
    cx: &Cx,
    work: &mut Work,
) -> Result<Result<RecentFactor, Refused>, StoreError> {
    Ok(proof(given(cx, work).await?))
}

/// What the credential or the session says. A factor that was given before an alert asked for it again does not count.
async fn given(cx: &Cx, work: &mut Work) -> Result<Given, StoreError> {
    let Some(user) = cx.scope().user() else {
        return Ok(Given::Recently);
    };
    match cx.given_by_token() {
        Some(given) if cx.scope().session().is_none() => return Ok(given),
        Some(given) => {
            let asked_again = work.security_alerts().last_step_up(user).await?;
            if asked_again.is_none_or(|asked| cx.scope().factor_at().is_some_and(|at| at > asked)) {
                return Ok(given);
            }
        }
        None => {}
    }
    given_in_session(cx, work).await
}

/// What the caller's session says: the factor of its login, or the first one of its user, if that was added in it. A factor that was
/// given by a step-up is in the token of the step-up alone.
async fn given_in_session(cx: &Cx, work: &mut Work) -> Result<Given, StoreError> {
    let (Some(user), Some(session)) = (cx.scope().user(), cx.scope().session()) else {
        return Ok(Given::Recently);
    };
    let given_at = work.second_factors().given_at(session).await?;
    if !has_factor(cx, work, user).await? {
        return Ok(Given::NotEnrolled);
    }
    let asked_again = work.security_alerts().last_step_up(user).await?;
    let given_at = given_at.filter(|at| asked_again.is_none_or(|asked| *at > asked));
    Ok(if given_at.is_some_and(|at| is_recent(cx, at)) {
        Given::Recently
    } else {
        Given::TooLongAgo
    })
}

fn is_recent(cx: &Cx, at: Time) -> bool {
    cx.now() - at < Duration::seconds(RECENT_SECONDS)
}

const fn proof(given: Given) -> Result<RecentFactor, Refused> {
    match given {
        Given::Recently | Given::NotEnrolled => Ok(RecentFactor(())),
        Given::TooLongAgo => Err(Refused::FactorRequired),
    }
}

/// When the caller gave a second factor.
#[derive(Debug, Clone, Copy)]
enum Given {
    Recently,
    TooLongAgo,
    NotEnrolled,
}

/// Whether a user has a second factor: a confirmed app, or a passkey.
pub(crate) async fn has_factor(cx: &Cx, work: &mut Work, user: UserId) -> Result<bool, StoreError> {
    Ok(has_app(work, user).await? || has_passkey(cx, work, user).await?)
}

/// Whether a user has a confirmed app.
pub(crate) async fn has_app(work: &mut Work, user: UserId) -> Result<bool, StoreError> {
    let factor = work.second_factors().find_totp(user).await?;
    Ok(factor.as_ref().is_some_and(TotpFactor::is_confirmed))
}

/// Whether a user has a passkey on a server that offers passkeys.
pub(crate) async fn has_passkey(cx: &Cx, work: &mut Work, user: UserId) -> Result<bool, StoreError> {
    Ok(cx.ports().passkeys.is_some() && !work.passkeys().list(user).await?.is_empty())
}

/// Whether a user has a confirmed app or a passkey, also on a server that offers no passkeys.
pub(crate) async fn has_any_factor(work: &mut Work, user: UserId) -> Result<bool, StoreError> {
    Ok(has_app(work, user).await? || !work.passkeys().list(user).await?.is_empty())
}

/// Whether a factor of a user was enabled so lately that it is not settled ([`TotpFactor::is_settled`]): it may be a thief's, and a reset
/// by a mailed link removes it.
pub(crate) async fn has_unsettled_factor(cx: &Cx, work: &mut Work, user: UserId) -> Result<bool, StoreError> {
    let app = work.second_factors().find_totp(user).await?;
    if app.is_some_and(|app| app.is_confirmed() && !app.is_settled(cx.now())) {
        return Ok(true);
    }
    let passkeys = work.passkeys().list(user).await?;
    Ok(passkeys.iter().any(|passkey| !passkey.is_settled(cx.now())))
}
