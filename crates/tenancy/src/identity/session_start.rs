//! How a session begins, whatever has proven who the user is, and the answer that carries its tokens.

use chrono::Duration;
use serde_json::json;
use tenantry_domain::identity::{AccessClaims, AuthMethods, MailboxEntry, Session, SessionLifetime, User};
use tenantry_domain::kernel::{SessionId, StoreError, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Refused, Tenant};

use crate::Cx;
use crate::customization::product_settings::ALLOW_TENANT_SWITCH;
use crate::customization::setting;
use crate::identity::account_mail;
use crate::identity::session::{self, SessionRules};

/// Somebody is logged in: tokens, and who and where they are.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// The access token (JWT).
    pub access_token: String,
    /// The refresh token (opaque, single use).
    pub refresh_token: String,
    /// How long the access token lives, in seconds.
    pub expires_in: i64,
    /// Who is logged in.
    pub user: User,
    /// Where they are logged in.
    pub tenant: Tenant,
}

/// A fresh session of a user and its first refresh token.
pub(crate) fn new_session(cx: &Cx, user_id: UserId) -> (Session, String) {
    let id = SessionId::next(cx.ids());
    let first = cx.ports().refresh_tokens.first(cx.scope().tenant(), id);
    let now = cx.now();
    let session = Session {
        id,
        user_id,
        token_hash: first.hash,
        previous_hash: None,
        rotated_at: None,
        created_at: now,
        expires_at: session_lifetime(cx).expiry(now, now),
        revoked_at: None,
        user_agent: cx.origin().user_agent.clone(),
        ip: cx.origin().ip.clone(),
        factor_at: None,
        device_hash: None,
        methods: AuthMethods::PASSWORD,
        mailbox_proof: None,
        ends_at: None,
    };
    (session, first.token)
}

/// The session of a user with how it began: with the password, or with a proof of the mailbox from another tenant. The latter has no
/// proof to go on with and ends with the session there at the latest, so that no chain of sessions outlives the login that it began with.
pub(crate) fn begun(user: &User, session: Session, entry: Option<&MailboxEntry>) -> Session {
    if let Some(entry) = entry {
        return Session {
            methods: AuthMethods::OTHER_WORKSPACE,
            ends_at: Some(entry.ends_at),
            expires_at: session.expires_at.min(entry.ends_at),
            ..session
        };
    }
    Session {
        mailbox_proof: user.mailbox_proof(),
        ..session
    }
}

/// Stores the session of a user who has proven all that the login asks for. The user is locked; `addresses` are those from
/// which the account has lately logged in.
pub(crate) async fn start(
    cx: &Cx,
    work: &mut Work,
    (user, addresses): (&User, &[Option<String>]),
    rules: SessionRules,
    session: &Session,
) -> Result<(), StoreError> {
    session::make_room(cx, work, user, rules).await?;
    let new_network = account_mail::note_login(cx, work, user, addresses).await?;
    work.sessions().insert(session).await?;
    let event = cx.security(
        "session.started",
        "session",
        Some(session.id.uuid()),
        match new_network {
            true => json!({"user_id": session.user_id, "new_network": true}),
            false => json!({"user_id": session.user_id}),
        },
    );
    work.audit().record(event).await
}

/// Puts another session in the place of one that its user has proven to hold, and ends that one, in the transaction that holds its row.
/// Returns the first refresh token. The new session goes on where the former one was: it has its login, its end and what was proven in it,
/// so a chain of sessions lives no longer than one.
pub(crate) async fn replace(cx: &Cx, work: &mut Work, session: &mut Session) -> Result<String, StoreError> {
    let id = SessionId::next(cx.ids());
    let first = cx.ports().refresh_tokens.first(cx.scope().tenant(), id);
    let next = Session {
        id,
        token_hash: first.hash,
        previous_hash: None,
        // Its first use: the idle timeout counts from here.
        rotated_at: Some(cx.now()),
        ..session.clone()
    };
    let mut former = std::mem::replace(session, next);
    session::revoke(cx, work, &mut former, "replaced").await?;
    work.sessions().insert(session).await?;
    let details = json!({"user_id": session.user_id, "replaces": former.id});
    let event = cx.security("session.started", "session", Some(id.uuid()), details);
    work.audit().record(event).await?;
    Ok(first.token)
}

/// The answer to a login.
pub(crate) fn logged_in(
    cx: &Cx,
    rules: SessionRules,
    session: &Session,
    refresh_token: String,
    user: User,
    tenant: Tenant,
) -> LoggedIn {
    let (access_token, expires_in) = access_token(cx, rules, session, &user);
    LoggedIn {
        access_token,
        refresh_token,
        expires_in,
        user,
        tenant,
    }
}

/// A new access token of a session, and how long it lives, in seconds.
pub(crate) fn access_token(cx: &Cx, rules: SessionRules, session: &Session, user: &User) -> (String, i64) {
    let tokens = &cx.ports().access_tokens;
    let issued_at = cx.now();
    let expires_in = rules.access_seconds(cx);
    let claims = AccessClaims {
        tenant: cx.scope().tenant(),
        user: user.id,
        session: session.id,
        role: user.role,
        factor_at: session.factor_at,
        methods: session.methods,
        issued_at,
        expires_at: issued_at + Duration::seconds(expires_in),
    };
    (tokens.sign(&claims), expires_in)
}

pub(crate) fn session_lifetime(cx: &Cx) -> SessionLifetime {
    let policy = &cx.app().policy;
    SessionLifetime {
        unused: Duration::days(policy.session_days),
        longest: Duration::days(policy.session_max_days),
    }
}

/// The tenant of the context.
pub(crate) async fn own_tenant<E: From<Refused> + From<StoreError>>(work: &mut Work) -> Result<Tenant, E> {
    // The gate has just seen the tenant; it can only be missing when it was purged in this very moment.
    Ok(work.tenants().current().await?.ok_or(Refused::Forbidden)?)
}

/// Whether the tenant lets callers from other tenants in by a proof of the mailbox, as its settings say.
pub(crate) async fn admits_switches(cx: &Cx) -> Result<bool, StoreError> {
    let allowed = setting::find(cx, &ALLOW_TENANT_SWITCH).await?;
    Ok(allowed.unwrap_or(true))
}
