//! Login sessions: seeing and ending them, and the rules by which they end by themselves.

use chrono::Duration;
use serde_json::json;
use tenantry_domain::identity::{LinkPurpose, LiveAt, Session, SessionLifetime, TrustedDevice, User};
use tenantry_domain::kernel::{Page, PageRequest, Permission, Role, SessionId, StoreError, Time, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;

use crate::customization::product_settings::{
    DEFAULT_SESSION_IDLE_MINUTES, DEFAULT_SESSION_MAX_DAYS, DEFAULT_SESSIONS_PER_USER, SESSION_END_STEP_UP,
    SESSION_IDLE_MINUTES, SESSION_MAX_DAYS, SESSIONS_PER_USER,
};
use crate::customization::setting;
use crate::identity::trusted_device;
use crate::{Cx, UseCaseError};

/// Errors of the use cases of sessions. `NotFound` also stands for a session that is not the caller's.
pub type SessionError = UseCaseError;

/// When sessions of a tenant end by themselves, as its settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRules {
    /// For how long a session may be unused.
    pub idle: Duration,
    /// How long a session lives from its login, where the server does not say less.
    pub longest: Duration,
    /// How many live sessions a user may have; at least 1.
    pub most: u32,
}

impl Default for SessionRules {
    /// The defaults of the settings, for a tenant that has none yet.
    fn default() -> Self {
        Self {
            idle: Duration::minutes(DEFAULT_SESSION_IDLE_MINUTES.into()),
            longest: Duration::days(DEFAULT_SESSION_MAX_DAYS.into()),
            most: DEFAULT_SESSIONS_PER_USER,
        }
    }
}

impl SessionRules {
    /// The lifetime of an access token, in seconds. It is at most half of the idle timeout: a client in use refreshes
    /// before its session is idle, and an unused token expires before the session does.
    pub(crate) fn access_seconds(self, cx: &Cx) -> i64 {
        let longest = cx.ports().access_tokens.lifetime_seconds();
        longest.min(self.idle.num_seconds() / 2)
    }

    /// How long sessions live: as the server says, and no longer than the tenant says.
    pub(crate) fn lifetime(self, of_server: SessionLifetime) -> SessionLifetime {
        SessionLifetime {
            longest: of_server.longest.min(self.longest),
            ..of_server
        }
    }

    /// Which sessions are live.
    fn live_at(self, now: Time) -> LiveAt {
        LiveAt {
            now,
            used_since: now - self.idle,
        }
    }

    fn is_live(self, session: &Session, now: Time) -> bool {
        session.is_live(now) && !session.is_idle(now, self.idle)
    }
}

/// The rules of the context's tenant.
///
/// # Errors
/// Those of the store.
pub async fn rules(cx: &Cx) -> Result<SessionRules, StoreError> {
    let default = SessionRules::default();
    let idle = setting::find(cx, &SESSION_IDLE_MINUTES).await?;
    let longest = setting::find(cx, &SESSION_MAX_DAYS).await?;
    let most = setting::find(cx, &SESSIONS_PER_USER).await?;
    Ok(SessionRules {
        idle: idle.map_or(default.idle, |minutes| Duration::minutes(minutes.into())),
        longest: longest.map_or(default.longest, |days| Duration::days(days.max(1).into())),
        most: most.map_or(default.most, |most| most.max(1)),
    })
}

/// A session in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What is stored of the session.
    pub session: Session,
    /// Whether its login came from a device that is trusted now.
    pub is_trusted: bool,
}

/// Returns a page of the caller's live sessions, newest first.
///
/// # Errors
/// [`SessionError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<Listed>, SessionError> {
    cx.require(Permission::EndSession)?;
    let own = cx.scope().user().ok_or(Refused::Forbidden)?;
    let live = rules(cx).await?.live_at(cx.now());
    cx.read(async |work| {
        let user = work.users().find(own).await?.ok_or(Refused::Forbidden)?;
        let devices = work.second_factors().list_devices(own).await?;
        let sessions = work.sessions().list_live(own, live, page).await?;
        Ok(sessions.map(|session| {
            let is_its = |device: &TrustedDevice| Some(device.token_hash) == session.device_hash;
            let mut trusted = devices
                .iter()
                .filter(|device| trusted_device::is_trusted(cx, device, &user));
            let is_trusted = trusted.any(is_its);
            Listed { session, is_trusted }
        }))
    })
    .await
}

/// Ends one of the caller's live sessions. Where the tenant asks for it, another one than the present takes a recent authentication.
///
/// # Errors
/// [`SessionError::NotFound`] for a session that has ended or is not the caller's, [`SessionError::Refused`], and those of the store.
pub async fn end(cx: &Cx, id: SessionId) -> Result<(), SessionError> {
    cx.require(Permission::EndSession)?;
    let own = cx.scope().user().ok_or(Refused::Forbidden)?;
    if cx.scope().session() != Some(id) {
        may_end_others(cx).await??;
    }
    let rules = rules(cx).await?;
    cx.write(async |work| {
        let found = work.sessions().find_for_update(id).await?;
        let found = found.filter(|session| session.user_id == own && rules.is_live(session, cx.now()));
        let mut session = found.ok_or(SessionError::NotFound)?;
        revoke(cx, work, &mut session, "ended_by_user").await?;
        Ok(())
    })
    .await
}

/// Ends all sessions of the caller, the present one too. It takes what [`end`] takes.
///
/// # Errors
/// [`SessionError`].
pub async fn end_own(cx: &Cx) -> Result<(), SessionError> {
    cx.require(Permission::EndSession)?;
    let own = cx.scope().user().ok_or(Refused::Forbidden)?;
    may_end_others(cx).await??;
    cx.write(async |work| {
        let mut user = find_for_update(work, own).await?;
        Ok(end_every(cx, work, &mut user, "ended_by_user").await?)
    })
    .await
}

/// Ends all sessions of a user, for an admin. To end those of another admin takes a recent factor: a stolen session must not
/// be enough to throw the admins out who could end it.
///
/// # Errors
/// [`SessionError`].
pub async fn end_of_user(cx: &Cx, user: UserId) -> Result<(), SessionError> {
    cx.require(Permission::EndUserSessions)?;
    let is_other = cx.scope().user() != Some(user);
    if !is_other {
        may_end_others(cx).await??;
    }
    let factor = cx.require_recent_factor().await?;
    cx.write_as_admin(async |work, _| {
        let mut user = find_for_update(work, user).await?;
        match factor {
            Err(refused) if is_other && user.role == Role::Admin => return Err(refused.into()),
            Ok(_) | Err(_) => {}
        }
        Ok(end_every(cx, work, &mut user, "ended_by_admin").await?)
    })
    .await
}

/// Returns the caller's session, locked until the transaction ends. The scope may be a minute old: a session that has ended since
/// then is refused.
///
/// # Errors
/// [`Refused::Forbidden`] and those of the store, as an error of the use case that calls it.
pub(crate) async fn lock_own<E: From<Refused> + From<StoreError>>(
    cx: &Cx,
    work: &mut Work,
) -> Result<Session, E> {
    let id = cx.scope().session().ok_or(Refused::Forbidden)?;
    let session = work.sessions().find_for_update(id).await?;
    let own =
        session.filter(|session| Some(session.user_id) == cx.scope().user() && session.is_live(cx.now()));
    Ok(own.ok_or(Refused::Forbidden)?)
}

/// Ends all sessions of a user, and what could begin others without a login: the links to confirm a new address, for which one of these
/// sessions may have asked, and the proofs of the mailbox that sessions in other tenants have. Returns how many sessions ended. The user
/// is locked, and stored here.
pub(crate) async fn end_all(cx: &Cx, work: &mut Work, user: &mut User) -> Result<u64, StoreError> {
    user.end_access(cx.now());
    work.users().update(user).await?;
    let links = work.account_links();
    links.delete_of(user.id, &[LinkPurpose::ConfirmEmail]).await?;
    work.sessions().revoke_all(user.id, cx.now()).await
}

/// Ends a session in the running transaction, which holds its row.
pub(crate) async fn revoke(
    cx: &Cx,
    work: &mut Work,
    session: &mut Session,
    reason: &'static str,
) -> Result<(), StoreError> {
    session.revoked_at = Some(cx.now());
    work.sessions().update(session).await?;
    let details = json!({"user_id": session.user_id, "reason": reason});
    let event = cx.security("session.ended", "session", Some(session.id.uuid()), details);
    work.audit().record(event).await
}

/// Ends a session that was not used for longer than the idle timeout, and returns whether it did; in a transaction that
/// holds its row.
pub(crate) async fn end_idle(
    cx: &Cx,
    work: &mut Work,
    session: &mut Session,
    rules: SessionRules,
) -> Result<bool, StoreError> {
    let is_idle = session.is_live(cx.now()) && session.is_idle(cx.now(), rules.idle);
    if is_idle {
        revoke(cx, work, session, "idle").await?;
    }
    Ok(is_idle)
}

/// Ends a session that began longer ago than sessions live, and returns whether it did; in a transaction that holds its row.
pub(crate) async fn end_outlived(
    cx: &Cx,
    work: &mut Work,
    session: &mut Session,
    lifetime: SessionLifetime,
) -> Result<bool, StoreError> {
    let is_outlived = session.revoked_at.is_none() && session.is_outlived(cx.now(), lifetime);
    if is_outlived {
        revoke(cx, work, session, "lifetime").await?;
    }
    Ok(is_outlived)
}

/// Ends the oldest sessions of a user, so that one more is within the limit; in the transaction that adds it, which holds
/// the user's row. Logins of one user therefore come one after the other.
pub(crate) async fn make_room(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    rules: SessionRules,
) -> Result<(), StoreError> {
    let live = rules.live_at(cx.now());
    let ended = work.sessions().end_surplus(user.id, live, rules.most - 1).await?;
    if ended == 0 {
        return Ok(());
    }
    // One entry, also when the limit was lowered and many end; it is everyday work, unlike an end of all sessions.
    let details = json!({"user_id": user.id, "sessions": ended, "reason": "limit"});
    let event = cx.security("session.ended", "user", Some(user.id.uuid()), details);
    work.audit().record(event).await
}

/// Whether the caller may end other sessions of theirs now: where the tenant asks for it, a stolen session alone must not be enough to
/// throw its owner out. The outer error is the store's.
async fn may_end_others(cx: &Cx) -> Result<Result<(), Refused>, StoreError> {
    match setting::find(cx, &SESSION_END_STEP_UP).await? {
        Some(true) => Ok(cx.require_recent_authentication().await?.map(|_| ())),
        Some(false) | None => Ok(Ok(())),
    }
}

/// The user, locked. A login holds the user's row too: its session is ended, or begins afterwards.
async fn find_for_update(work: &mut Work, user: UserId) -> Result<User, SessionError> {
    let user = work.users().find_for_update(user).await?;
    user.ok_or(SessionError::NotFound)
}

/// Ends all sessions of a user who is locked, and records how many there were.
async fn end_every(
    cx: &Cx,
    work: &mut Work,
    user: &mut User,
    reason: &'static str,
) -> Result<(), StoreError> {
    let ended = end_all(cx, work, user).await?;
    record_all(cx, work, user.id, ended, reason).await
}

/// Ends all sessions of a user about whom an alert was raised, in the running transaction. Returns whether the user exists.
pub(crate) async fn end_for_alert(cx: &Cx, work: &mut Work, user: UserId) -> Result<bool, StoreError> {
    let Some(mut user) = work.users().find_for_update(user).await? else {
        return Ok(false);
    };
    end_every(cx, work, &mut user, "security_alert").await?;
    Ok(true)
}

async fn record_all(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
    sessions: u64,
    reason: &'static str,
) -> Result<(), StoreError> {
    let details = json!({"sessions": sessions, "reason": reason});
    let event = cx.security("sessions.ended", "user", Some(user.uuid()), details);
    work.audit().record(event).await
}
