//! Invitations: an admin invites an address, its owner becomes a user by the link in a mail. An open invitation takes a
//! seat of the plan, so that an invited person finds one.
//!
//! Whatever changes how many invitations are open or accepts one holds the tenant's row first, then the invitation's. So
//! the last seat is taken once.

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::identity::{
    Email, Invitation, InvitationMail, IssuedInvitation, MailboxEntry, NewInvitation, PresentedInvitation,
    RoleName, User,
};
use tenantry_domain::kernel::{
    Constraint, InvitationId, Page, PageRequest, Permission, Role, Seal as _, StoreError, TenantId, Time,
    UserId,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Refused, Tenant};

use crate::identity::address::{self, lock_tenant};
use crate::identity::applicant::{self, Applicant};
use crate::identity::auth::AuthError;
use crate::identity::claim::Claim;
use crate::identity::email_domain::AllowedDomains;
use crate::identity::mfa::{self, AtLogin};
use crate::identity::session;
use crate::identity::session_start::{self, LoggedIn};
use crate::kernel::step_up::{GrantedRole, may_give_role};
use crate::operations::job::{self, JobError, JobFailure, JobHandler, Terms};
use crate::operations::mail;
use crate::plans::Countable;
use crate::{Changed, Cx, OwnReason, UseCaseError};

/// The maximum number of invitations of a tenant within 24 hours, revoked ones included: they are mail to addresses that
/// the tenant chooses.
pub const MOST_A_DAY: u64 = 500;

/// The maximum number of rows that a purge deletes in one transaction.
const PURGED_AT_ONCE: u64 = 1_000;

/// Errors of the use cases of invitations. One that was accepted or revoked is not found.
pub type InvitationError = UseCaseError<InvitationReason>;

/// Why an address is not invited, or an invitation not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvitationReason {
    /// A user of the tenant has the address.
    #[error("a user has the address")]
    EmailTaken,
    /// An open invitation has the address.
    #[error("an open invitation has the address")]
    AlreadyInvited,
    /// The invitation has had all its mails.
    #[error("an invitation is mailed {} times at most", Invitation::MOST_MAILS)]
    NoMoreMails,
    /// Too many invitations or mails: try again after so many seconds.
    #[error("too many invitations, try again in {0} seconds")]
    TooMany(i64),
}

impl OwnReason for InvitationReason {
    fn of_store(error: StoreError) -> InvitationError {
        match error {
            StoreError::Unique(Constraint::InvitationEmail) => Self::AlreadyInvited.into(),
            other => UseCaseError::Store(other),
        }
    }
}

impl From<JobError> for InvitationError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Store(error) => error.into(),
            other => Self::Store(StoreError::Other(other.to_string())),
        }
    }
}

/// Returns a page of the invitations that were neither accepted nor revoked, newest first; some may have expired.
///
/// # Errors
/// [`InvitationError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<Invitation>, InvitationError> {
    cx.require(Permission::ReadInvitations)?;
    cx.read(async |work| Ok(work.invitations().list_unsettled(page).await?))
        .await
}

/// Returns one of them.
///
/// # Errors
/// [`InvitationError`].
pub async fn get(cx: &Cx, id: InvitationId) -> Result<Invitation, InvitationError> {
    cx.require(Permission::ReadInvitations)?;
    let found = cx.read(async |work| work.invitations().find(id).await).await?;
    found
        .filter(Invitation::is_unsettled)
        .ok_or(InvitationError::NotFound)
}

/// Invites an address, and asks for the mail to it. `custom_role` is the name of the custom role that narrows the role, if one
/// does.
///
/// # Errors
/// [`InvitationError`].
pub async fn create(
    cx: &Cx,
    email: &str,
    role: Role,
    custom_role: Option<&str>,
) -> Result<Invitation, InvitationError> {
    cx.require(Permission::ManageUsers)?;
    let invited_by = cx.scope().user().ok_or(Refused::Forbidden)?;
    let email = Email::parse(email, "/email")?;
    AllowedDomains::of(cx).await?.check(&email)?;
    let role = GrantedRole::by_caller(cx, role).await??;
    let custom_role = custom_role.map(RoleName::of_user).transpose()?;
    let id = InvitationId::next(cx.ids());
    let token = cx.ports().invitation_tokens.issue(cx.scope().tenant(), id);
    let new = NewInvitation {
        email,
        role: role.role(),
        invited_by,
    };
    let mut invitation = Invitation::new(id, new, token.hash, cx.now());
    invitation.custom_role = custom_role;
    cx.write_as_admin(async |work, _| {
        if let Some(name) = &invitation.custom_role {
            may_give_role::<InvitationError>(cx, work, name).await?;
        }
        free_address(cx, work, &invitation.email).await?;
        let day_ago = cx.now() - Duration::days(1);
        if work.invitations().count_created(day_ago).await? >= MOST_A_DAY {
            return Err(InvitationReason::TooMany(3_600).into());
        }
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Users)
            .await?;
        work.invitations().insert(&invitation).await?;
        cx.record(work, Changed::created(&invitation)).await?;
        send(cx, work, id, &token).await?;
        Ok(invitation)
    })
    .await
}

/// Sends the mail of an invitation again, with a new token and for seven more days. The former token is void. The invitation
/// of an admin takes a recent factor, as a new one does.
///
/// # Errors
/// [`InvitationError`].
pub async fn resend(cx: &Cx, id: InvitationId) -> Result<Invitation, InvitationError> {
    cx.require(Permission::ManageUsers)?;
    let by = cx.scope().user().ok_or(Refused::Forbidden)?;
    let domains = AllowedDomains::of(cx).await?;
    let found = cx.read(async |work| work.invitations().find(id).await).await?;
    let found = found.filter(Invitation::is_unsettled);
    // The role of an invitation does not change.
    let role = found.ok_or(InvitationError::NotFound)?.role;
    let _: GrantedRole = GrantedRole::by_caller(cx, role).await??;
    let token = cx.ports().invitation_tokens.issue(cx.scope().tenant(), id);
    cx.write_as_admin(async |work, _| {
        let before = find_unsettled(work, id).await?;
        if let Some(name) = &before.custom_role {
            // It is given anew: the plan or the caller may have lost what it takes.
            may_give_role::<InvitationError>(cx, work, name).await?;
        }
        domains.check(&before.email)?;
        require_free(cx, work, &before.email).await?;
        may_resend(cx, &before)?;
        if !before.is_open(cx.now()) {
            // It takes a seat again.
            cx.ports()
                .entitlements
                .require_one_more(cx, work, Countable::Users)
                .await?;
        }
        let mut invitation = before.clone();
        invitation.renew(token.hash, by, cx.now());
        work.invitations().update(&invitation).await?;
        let (before, after) = (Some(&before), Some(&invitation));
        let event = cx.changed("invitation.resent", "invitation", id.uuid(), before, after);
        work.audit().record(event).await?;
        send(cx, work, id, &token).await?;
        Ok(invitation)
    })
    .await
}

/// Revokes an invitation: its token is void, and its seat is free.
///
/// # Errors
/// [`InvitationError`].
pub async fn revoke(cx: &Cx, id: InvitationId) -> Result<(), InvitationError> {
    cx.require(Permission::RevokeInvitations)?;
    cx.write_as_admin(async |work, _| {
        let invitation = find_unsettled(work, id).await?;
        Ok(settle_as_revoked(cx, work, invitation).await?)
    })
    .await
}

/// Accepts an invitation: makes its address a user, whose address is verified by the mail, and logs in.
///
/// # Errors
/// [`AuthError::InvalidInvitation`] alike for a token that was used, replaced, revoked or never stored, or has expired;
/// `domain_not_allowed` at `/token` when the tenant does not allow the domain any more.
pub async fn accept(
    cx: &Cx,
    presented: &PresentedInvitation,
    full_name: String,
    password: String,
) -> Result<LoggedIn, AuthError> {
    let (invitation, tenant) = cx.read(async |work| admitted(cx, work, presented).await).await?;
    let data = Applicant {
        email: invitation.email.as_str().to_owned(),
        full_name,
        password: Some(password),
    };
    let user = invited(cx, &invitation, data, &tenant).await?;
    join(cx, presented, user, tenant, None).await
}

/// Accepts an invitation as the person of an account in another tenant, who has proven to read the invited mailbox: with the name of
/// that account, and with a password that nobody knows. The user comes in by switching tenants, or chooses a password by a mailed
/// link. The context is a guest's in the tenant of the invitation.
///
/// # Errors
/// Those of [`accept`]; [`AuthError::InvalidInvitation`] also when it is of another tenant or another address, or when the tenant
/// lets nobody in from other tenants.
pub(crate) async fn accept_by_mailbox(
    cx: &Cx,
    presented: &PresentedInvitation,
    full_name: String,
    entry: MailboxEntry,
) -> Result<LoggedIn, AuthError> {
    let is_of_tenant = presented.tenant == cx.scope().tenant();
    if !is_of_tenant || !session_start::admits_switches(cx).await? {
        return Err(AuthError::InvalidInvitation);
    }
    let (invitation, tenant) = cx.read(async |work| admitted(cx, work, presented).await).await?;
    if invitation.email != entry.proof.email {
        return Err(AuthError::InvalidInvitation);
    }
    let data = Applicant {
        email: invitation.email.as_str().to_owned(),
        full_name,
        password: None,
    };
    let mut user = invited(cx, &invitation, data, &tenant).await?;
    user.enter_with(&entry.proof);
    join(cx, presented, user, tenant, Some(entry)).await
}

/// The user of an invitation, whose mail has verified the address.
async fn invited(
    cx: &Cx,
    invitation: &Invitation,
    data: Applicant,
    tenant: &Tenant,
) -> Result<User, AuthError> {
    cx.scope().require_write()?;
    AllowedDomains::of(cx)
        .await?
        .check_at(&invitation.email, "/token")?;
    let role = GrantedRole::invited(invitation.role);
    let (mut user, _) = applicant::prepare(cx, data, role, tenant).await?;
    user.email_verified = true;
    user.custom_role.clone_from(&invitation.custom_role);
    Ok(user)
}

/// Adds the user of an invitation in place of it, who may come from another tenant. Where the tenant requires a second factor, the user enrolls it next, as at
/// a login.
async fn join(
    cx: &Cx,
    presented: &PresentedInvitation,
    user: User,
    tenant: Tenant,
    entry: Option<MailboxEntry>,
) -> Result<LoggedIn, AuthError> {
    let rules = session::rules(cx).await?;
    let (session, refresh_token) = session_start::new_session(cx, user.id);
    let session = session_start::begun(&user, session, entry.as_ref());
    let required = mfa::requirement(cx).await?;
    let opened = cx.write(async |work| {
        lock_tenant(work).await?;
        let found = work.invitations().find_for_update(presented.invitation).await?;
        let found = found.filter(|found| found.admits(&presented.hash, cx.now()));
        let mut invitation = found.ok_or(AuthError::InvalidInvitation)?;
        invitation.accepted_at = Some(cx.now());
        work.invitations().update(&invitation).await?;
        // The invitation is not counted any more, and the user takes its place.
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Users)
            .await?;
        work.users().insert(&user).await?;
        let details = json!({"user_id": user.id, "email": user.email, "role": user.role, "custom_role": user.custom_role});
        let target = Some(invitation.id.uuid());
        let accepted = cx.security("invitation.accepted", "invitation", target, details);
        work.audit().record(accepted).await?;
        cx.record(work, Changed::created(&user)).await?;
        let claim = Claim::of_new(cx, &user, entry.clone());
        match mfa::at_login(cx, work, &user, &claim, required).await? {
            AtLogin::Session(_) => {}
            AtLogin::Pending(pending) => return Ok(Err(pending)),
            AtLogin::WrongCode => return Err(AuthError::WrongCode),
        }
        work.sessions().insert(&session).await?;
        let token = refresh_token.clone();
        Ok::<_, AuthError>(Ok(session_start::logged_in(
            cx,
            rules,
            &session,
            token,
            user.clone(),
            tenant.clone(),
        )))
    });
    opened.await?.map_err(AuthError::FactorRequired)
}

/// Revokes the invitation of an address that an admin makes a user with, so that it is not counted beside the user; in a
/// transaction that holds the tenant's row.
pub(crate) async fn supersede(cx: &Cx, work: &mut Work, email: &Email) -> Result<(), StoreError> {
    let Some(found) = work.invitations().find_unsettled(email).await? else {
        return Ok(());
    };
    match work.invitations().find_for_update(found.id).await? {
        Some(invitation) if invitation.is_unsettled() => settle_as_revoked(cx, work, invitation).await,
        Some(_) | None => Ok(()),
    }
}

/// Revokes the open invitations of a user who is no acting admin any more; in the transaction that takes the role away,
/// which holds the tenant's row. A removed admin could otherwise come back by an invitation.
pub(crate) async fn revoke_of(cx: &Cx, work: &mut Work, inviter: UserId) -> Result<(), StoreError> {
    let revoked = work.invitations().revoke_of(inviter, cx.now()).await?;
    if revoked == 0 {
        return Ok(());
    }
    let details = json!({"invitations": revoked, "reason": "inviter_is_no_admin"});
    let event = cx.security("invitations.revoked", "user", Some(inviter.uuid()), details);
    work.audit().record(event).await
}

/// Deletes invitations that were accepted, revoked or expired so long ago, some in each transaction.
pub(crate) async fn purge(cx: &Cx, before: Time) -> Result<(), StoreError> {
    loop {
        let deleted = cx
            .write(async |work| work.invitations().delete_settled(before, PURGED_AT_ONCE).await)
            .await?;
        if deleted < PURGED_AT_ONCE {
            return Ok(());
        }
    }
}

/// Sends the mail of an invitation to the invited address.
#[derive(Debug, Clone, Copy)]
pub struct SendInvitation;

/// Which invitation, with its token, which is sealed: jobs can be read by operators and in backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedInvitation {
    /// What is stored of the invitation.
    pub invitation: InvitationId,
    /// Its sealed token.
    pub token: Vec<u8>,
}

impl JobHandler for SendInvitation {
    const KIND: &'static str = "invitation.send";
    const MAX_ATTEMPTS: u32 = mail::MOST_ATTEMPTS;
    type Payload = SealedInvitation;

    async fn run(&self, cx: &Cx, payload: SealedInvitation) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let Some((invitation, inviter, token)) = open(cx, &payload).await? else {
            tracing::info!("invitation mail not sent: the invitation is not open, or was sent again");
            return Ok(());
        };
        // Nobody has a name at the address yet.
        let envelope = mail::addressed(cx, invitation.email.clone(), "", false).await?;
        let Some(envelope) = envelope else { return Ok(()) };
        let app_url = cx.app().policy.app_url.trim_end_matches('/');
        let message = InvitationMail {
            invitation: &invitation,
            inviter: &inviter.full_name,
            link: &format!("{app_url}/accept-invitation#token={token}"),
        }
        .message(&envelope.recipient);
        mail::send(cx, Self::KIND, &envelope, &message, invitation.sent_at).await
    }
}

/// The invitation of a mail, who invites, and the token; none when the token is not that of the latest mail any more.
async fn open(cx: &Cx, payload: &SealedInvitation) -> Result<Option<(Invitation, User, String)>, JobFailure> {
    let place = place(cx.scope().tenant(), payload.invitation);
    let opened = cx.seal_alone(&payload.token).await?.open(&place, &payload.token);
    let token = opened.and_then(|bytes| String::from_utf8(bytes).ok());
    let token = token.ok_or_else(|| JobFailure::Permanent("the token cannot be unsealed".into()))?;
    let Some(presented) = cx.ports().invitation_tokens.read(&token) else {
        return Ok(None);
    };
    let found = cx
        .read(async |work| {
            let invitation = work.invitations().find(payload.invitation).await?;
            let admits = |found: &Invitation| found.admits(&presented.hash, cx.now());
            let Some(invitation) = invitation.filter(admits) else {
                return Ok(None);
            };
            let inviter = work.users().find(invitation.invited_by).await?;
            Ok::<_, StoreError>(inviter.map(|inviter| (invitation, inviter)))
        })
        .await?;
    Ok(found.map(|(invitation, inviter)| (invitation, inviter, token)))
}

/// Asks for the mail of an invitation, with the running transaction.
async fn send(
    cx: &Cx,
    work: &mut Work,
    invitation: InvitationId,
    token: &IssuedInvitation,
) -> Result<(), InvitationError> {
    let place = place(cx.scope().tenant(), invitation);
    let payload = SealedInvitation {
        invitation,
        token: cx.seal(work).await?.seal(&place, token.token.as_bytes()),
    };
    job::enqueue::<SendInvitation>(cx, work, &payload, Terms::default()).await?;
    Ok(())
}

/// Where the token of an invitation is sealed for.
fn place(tenant: TenantId, invitation: InvitationId) -> String {
    format!("invitation {tenant} {invitation}")
}

async fn admitted(
    cx: &Cx,
    work: &mut Work,
    presented: &PresentedInvitation,
) -> Result<(Invitation, Tenant), AuthError> {
    let found = work.invitations().find(presented.invitation).await?;
    let found = found.filter(|found| found.admits(&presented.hash, cx.now()));
    let tenant = work.tenants().current().await?;
    found.zip(tenant).ok_or(AuthError::InvalidInvitation)
}

/// Makes sure that neither a user nor an open invitation has the address, nor a user had it lately. An expired invitation makes room.
async fn free_address(cx: &Cx, work: &mut Work, email: &Email) -> Result<(), InvitationError> {
    require_free(cx, work, email).await?;
    match work.invitations().find_unsettled(email).await? {
        Some(open) if open.is_open(cx.now()) => Err(InvitationReason::AlreadyInvited.into()),
        Some(expired) => Ok(settle_as_revoked(cx, work, expired).await?),
        None => Ok(()),
    }
}

/// Makes sure that no user has the address, nor had it lately. A registration that waits for the proof of the address makes room.
async fn require_free(cx: &Cx, work: &mut Work, email: &Email) -> Result<(), InvitationError> {
    address::supersede_registration(cx, work, email).await?;
    let is_taken = work.users().find_by_email(email).await?.is_some();
    if is_taken || address::is_former(cx, work, email, None).await? {
        return Err(InvitationReason::EmailTaken.into());
    }
    Ok(())
}

fn may_resend(cx: &Cx, invitation: &Invitation) -> Result<(), InvitationError> {
    if invitation.mails >= Invitation::MOST_MAILS {
        return Err(InvitationReason::NoMoreMails.into());
    }
    match invitation.seconds_until_resend(cx.now()) {
        0 => Ok(()),
        wait => Err(InvitationReason::TooMany(wait).into()),
    }
}

async fn find_unsettled(work: &mut Work, id: InvitationId) -> Result<Invitation, InvitationError> {
    let found = work.invitations().find_for_update(id).await?;
    found
        .filter(Invitation::is_unsettled)
        .ok_or(InvitationError::NotFound)
}

async fn settle_as_revoked(cx: &Cx, work: &mut Work, before: Invitation) -> Result<(), StoreError> {
    let mut invitation = before.clone();
    invitation.revoked_at = Some(cx.now());
    work.invitations().update(&invitation).await?;
    cx.record(
        work,
        Changed::with("invitation.revoked", Some(&before), &invitation),
    )
    .await
}
