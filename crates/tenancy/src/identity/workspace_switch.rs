//! Switching to another tenant in which the caller has an account with the same address.
//!
//! Users are per tenant, and the admins of a tenant choose the first password of the users they add. So an account is no proof of a
//! person: whoever added it may hold its session. What counts is that the session shows who reads the mailbox of the address
//! ([`MailboxProof`]). Nothing is read across tenants: the other tenant's own scope is opened, as a login opens it.

use serde_json::json;
use tenantry_domain::identity::{MailboxEntry, MailboxProof, Password, PresentedInvitation, User};
use tenantry_domain::kernel::{Permission, RequestId, StoreError};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Denied, Refused, Slug, TenantSelector};

use crate::Cx;
use crate::customization::security_policy;
use crate::identity::account::{self, AccountError};
use crate::identity::auth::{self, AuthError};
use crate::identity::invitation;
use crate::identity::session;
use crate::identity::session_start::{self, LoggedIn};
use crate::kernel::carries_store_error::carries_store_error;
use crate::kernel::step_up::RecentFactor;

/// Why no session begins in the other tenant.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Not allowed: the caller has no session.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The caller's own account needs more: a recent factor, or the password.
    #[error(transparent)]
    Own(AccountError),
    /// The session does not show that its holder reads the mailbox of the account.
    #[error("the session proves no mailbox")]
    Unproven,
    /// There is no such tenant, or no account in it for this proof; which of them is not told.
    #[error("there is no such workspace of the caller")]
    NotFound,
    /// The login in the other tenant needs more, or waits.
    #[error(transparent)]
    Login(AuthError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(SwitchError);

impl From<AccountError> for SwitchError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Refused(refused) => Self::Refused(refused),
            AccountError::Store(error) => Self::Store(error),
            other => Self::Own(other),
        }
    }
}

impl From<AuthError> for SwitchError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::InvalidCredentials => Self::NotFound,
            AuthError::Store(error) => Self::Store(error),
            other => Self::Login(other),
        }
    }
}

/// Begins a session of the caller in the tenant of that slug, as a login there does after the password was right. Both tenants
/// record it, each without a word of the other. With an invitation to the caller's address the account there is made first, with the
/// caller's name. A stolen access token is not enough: the caller gave a factor, logged in, or sends the
/// password of the present account, as for every request that opens more than the session does.
///
/// # Errors
/// [`SwitchError::Own`] and [`Refused::FactorRequired`], which ask for the password or a factor; [`SwitchError::Unproven`], which says nothing of the other tenant; [`SwitchError::NotFound`] alike for a tenant that does not
/// exist or is deleted, and for an account that does not exist, is inactive, has an unverified address or is younger than the
/// proof; [`SwitchError::Login`] with [`AuthError::FactorRequired`] or [`AuthError::Locked`], or, with an invitation, with the errors of
/// accepting it; [`SwitchError`].
pub async fn switch(
    cx: &Cx,
    slug: &str,
    password: Option<Password>,
    invitation: Option<PresentedInvitation>,
) -> Result<LoggedIn, SwitchError> {
    cx.require(Permission::ManageOwnAccount)?;
    // First, since a caller without a proof gets no further with a password.
    cx.read(async |work| own_proof(cx, work).await).await?;
    let factor = account::require_presence(cx, password).await?;
    let (entry, full_name) = cx.write(async |work| leave(cx, work, factor).await).await?;
    let selector = Slug::parse(slug).map(TenantSelector::Slug);
    let selector = selector.ok_or(SwitchError::NotFound)?;
    // A request id of its own, so that the two audit logs have nothing in common.
    let request = RequestId::next(cx.ids());
    let unseen = |denied| match denied {
        Denied::Store(error) => SwitchError::Store(error),
        _ => SwitchError::NotFound,
    };
    let admitted = cx.ports().gate.guest(&selector, request).await;
    let admission = admitted.map_err(unseen)?;
    let checked = security_policy::check_address(cx.shared_app(), &admission.scope, cx.origin()).await;
    checked.map_err(unseen)?;
    let there = cx.without_key().in_scope(admission.scope);
    let entered = match invitation {
        None => auth::enter_by_mailbox(&there, entry).await,
        Some(invitation) => invitation::accept_by_mailbox(&there, &invitation, full_name, entry).await,
    };
    Ok(entered?)
}

/// What the caller's session proves, looked at without a lock.
async fn own_proof(cx: &Cx, work: &mut Work) -> Result<MailboxProof, SwitchError> {
    let (user, session) = cx
        .scope()
        .user()
        .zip(cx.scope().session())
        .ok_or(Refused::Forbidden)?;
    let user = work.users().find(user).await?.ok_or(Refused::Forbidden)?;
    let session = work.sessions().find(session).await?.ok_or(Refused::Forbidden)?;
    proof_of(session.mailbox_proof, &user)
}

/// The proof of a session that is of its own user, as stored now.
fn proof_of(proof: Option<MailboxProof>, user: &User) -> Result<MailboxProof, SwitchError> {
    proof
        .filter(|proof| proof.is_of(user))
        .ok_or(SwitchError::Unproven)
}

/// What the caller's session proves, until when, and the caller's name. That the caller asked to switch is recorded, and not whereto or with which success: the
/// tenant does not learn where its users have other accounts.
async fn leave(cx: &Cx, work: &mut Work, _: RecentFactor) -> Result<(MailboxEntry, String), SwitchError> {
    let user = cx.scope().user().ok_or(Refused::Forbidden)?;
    let user = work.users().find_for_update(user).await?;
    let user = user.filter(|user| user.is_active).ok_or(Refused::Forbidden)?;
    let session = session::lock_own::<SwitchError>(cx, work).await?;
    let ends_at = session.latest_end(session_start::session_lifetime(cx));
    let proof = proof_of(session.mailbox_proof, &user)?;
    let details = json!({"user_id": user.id});
    let event = cx.security(
        "session.switch_asked",
        "session",
        Some(session.id.uuid()),
        details,
    );
    work.audit().record(event).await?;
    Ok((MailboxEntry { proof, ends_at }, user.full_name))
}
