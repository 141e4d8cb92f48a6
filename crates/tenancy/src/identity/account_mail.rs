//! Mail to one user about their own account: notices of what happened to it, and links that open it.
//!
//! Each is a job that is stored with what it is about. A link's token is stored sealed until its mail is sent, and in the
//! table of links only as its hash.

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{AccountLink, AccountNotice, LinkPurpose, RareNotice, User};
use tenantry_domain::kernel::{
    AccountLinkId, AccountNoticeId, Network, Permission, Seal as _, StoreError, Time, UserId,
};
use tenantry_domain::operations::MailDecision;
use tenantry_domain::store::Work;

use crate::Cx;
use crate::identity::known_network;
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};
use crate::operations::mail::{self, AddressThen, Envelope, MOST_ATTEMPTS, To};

/// Sends a notice to a user.
#[derive(Debug, Clone, Copy)]
pub struct SendNotice;

/// A notice to a user about their account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeTo {
    /// The user.
    pub to: UserId,
    /// The address that gets the notice. Servers of earlier releases store none.
    #[serde(default)]
    pub address: Option<AddressThen>,
    /// When it happened.
    pub at: Time,
    /// What happened.
    pub notice: AccountNotice,
}

impl JobHandler for SendNotice {
    const KIND: &'static str = "account.notice";
    // Users of a suspended tenant get it, too.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = NoticeTo;

    async fn run(&self, cx: &Cx, payload: NoticeTo) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let to = payload.address.as_ref().map_or(To::Present, To::Then);
        let found = mail::recipient(cx, payload.to, to).await?;
        let Some((_, envelope)) = found.filter(|(user, _)| user.is_active) else {
            tracing::info!("a notice is not sent: the user was removed or deactivated");
            return Ok(());
        };
        let message = payload.notice.message(&envelope.recipient, payload.at);
        mail::send(cx, Self::KIND, &envelope, &message, payload.at).await
    }
}

/// Sends a link to a user, unless it was used, replaced or has expired before.
#[derive(Debug, Clone, Copy)]
pub struct SendLink;

/// A link to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTo {
    /// Which stored link is sent.
    pub link: AccountLinkId,
    /// The token of the link, sealed, since only its hash is stored otherwise.
    pub sealed_token: Vec<u8>,
    /// Whether an admin asked for the link. Such mails are counted apart from those that callers without an account cause.
    #[serde(default)]
    pub by_admin: bool,
}

impl JobHandler for SendLink {
    const KIND: &'static str = "account.link";
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = LinkTo;

    async fn run(&self, cx: &Cx, payload: LinkTo) -> Result<(), JobFailure> {
        send(cx, payload).await
    }
}

/// Sends a link that a caller without an account has asked for. These jobs are counted, which is why they are a kind of their own.
#[derive(Debug, Clone, Copy)]
pub struct SendAskedLink;

impl JobHandler for SendAskedLink {
    const KIND: &'static str = "account.asked_link";
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = LinkTo;

    async fn run(&self, cx: &Cx, payload: LinkTo) -> Result<(), JobFailure> {
        send(cx, payload).await
    }
}

async fn send(cx: &Cx, payload: LinkTo) -> Result<(), JobFailure> {
    cx.require(Permission::SendMail)?;
    let link = cx
        .read(async |work| work.account_links().find(payload.link).await)
        .await?;
    let Some(link) = link.filter(|link| link.is_live(cx.now())) else {
        tracing::info!("a link is not sent: it was used or replaced, or has expired");
        return Ok(());
    };
    let found = recipient(cx, &link).await?;
    let Some((_, envelope)) = found.filter(|(user, _)| user.is_active) else {
        tracing::info!("a link is not sent: the user was removed or deactivated");
        return Ok(());
    };
    let url = url(cx, &link, &payload.sealed_token).await?;
    let message = link.purpose.message(&envelope.recipient, &url, link.expires_at);
    let kind = if payload.by_admin {
        BY_ADMIN
    } else {
        link.purpose.as_str()
    };
    match mail::try_to_send(cx, kind, &envelope, &message, link.created_at).await? {
        MailDecision::Send => Ok(()),
        MailDecision::Tenant | MailDecision::Account | MailDecision::Recipient => {
            Ok(end_unsent(cx, &link).await?)
        }
    }
}

/// The kind under which mails with links are counted that admins ask for.
const BY_ADMIN: &str = "reset_password_by_admin";

/// Ends a link whose mail is not sent, so that it takes no place of [`AccountLink::MOST_LIVE`]. The row stays, since the next
/// link keeps its distance from it.
async fn end_unsent(cx: &Cx, link: &AccountLink) -> Result<(), StoreError> {
    if !link.purpose.is_of_present_address() {
        return Ok(());
    }
    cx.write(async |work| {
        work.users().find_for_update(link.user_id).await?;
        if !work.account_links().delete(link.id).await? {
            return Ok(());
        }
        let ended = AccountLink {
            expires_at: cx.now().min(link.expires_at),
            ..link.clone()
        };
        work.account_links().insert(&ended).await
    })
    .await
}

/// Stores the job that sends a notice to a user, with the running transaction.
pub(crate) async fn notify(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    notice: AccountNotice,
) -> Result<(), StoreError> {
    let payload = NoticeTo {
        to: user.id,
        address: Some(AddressThen::of(user)),
        at: cx.now(),
        notice,
    };
    let asked = job::enqueue::<SendNotice>(cx, work, &payload, Terms::default()).await;
    asked.map(|_| ()).map_err(store_error)
}

/// Notifies a user who logs in from a network that is not among the addresses of the account's latest logins. A user's first
/// login is not compared with anything.
pub(crate) async fn note_login(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    addresses: &[Option<String>],
) -> Result<bool, StoreError> {
    let since = cx.now() - known_network::KNOWN_FOR;
    let is_first = addresses.iter().all(Option::is_none) && user.created_at > since;
    if is_first || known_network::is_among(Network::site(cx.origin().address()), addresses) {
        return Ok(false);
    }
    let notice = AccountNotice::NewNetwork {
        address: cx.origin().ip.clone(),
        user_agent: cx.origin().user_agent.clone(),
    };
    notify_rarely(cx, work, user, (RareNotice::NewNetwork, notice)).await?;
    Ok(true)
}

/// Notifies a user of whom a refresh token was used again.
pub(crate) async fn note_reuse(cx: &Cx, work: &mut Work, user: UserId) -> Result<(), StoreError> {
    let user = work.users().find(user).await?;
    match user.filter(|user| user.is_active) {
        Some(user) => {
            let notice = (RareNotice::TokenReused, AccountNotice::TokenReused);
            notify_rarely(cx, work, &user, notice).await
        }
        None => Ok(()),
    }
}

async fn notify_rarely(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    (kind, notice): (RareNotice, AccountNotice),
) -> Result<(), StoreError> {
    let (id, now) = (AccountNoticeId::next(cx.ids()), cx.now());
    let since = now - RareNotice::PAUSE;
    if work.rare_notices().note(id, user.id, kind, now, since).await? {
        notify(cx, work, user, notice).await?;
    }
    Ok(())
}

/// Stores the job that sends a new link, with the running transaction: at once, or in its turn at that time.
pub(crate) async fn send_link(
    cx: &Cx,
    work: &mut Work,
    link: &AccountLink,
    token: &str,
    due: Option<Time>,
) -> Result<(), StoreError> {
    let payload = LinkTo {
        link: link.id,
        sealed_token: cx.seal(work).await?.seal(&place(cx, link.id), token.as_bytes()),
        // Others ask without a credential, and a job makes the link.
        by_admin: link.purpose == LinkPurpose::ResetPassword && cx.scope().author().is_some(),
    };
    let asked = if due.is_some() {
        let terms = Terms {
            run_at: due,
            // Open jobs with a key are counted by an index.
            dedupe_key: Some(link.id.to_string()),
            ..Terms::default()
        };
        job::enqueue::<SendAskedLink>(cx, work, &payload, terms).await
    } else {
        job::enqueue::<SendLink>(cx, work, &payload, Terms::default()).await
    };
    asked.map(|_| ()).map_err(store_error)
}

/// The user of a link, at the address that the link was made for.
async fn recipient(cx: &Cx, link: &AccountLink) -> Result<Option<(User, Envelope)>, StoreError> {
    let to = match link.purpose {
        // It is made for an address that was verified.
        LinkPurpose::RevertEmail => To::Former(&link.email),
        LinkPurpose::ConfirmEmail => To::Other(&link.email),
        // Of the present address; a link to another one does not work.
        LinkPurpose::ResetPassword | LinkPurpose::VerifyEmail => To::Present,
    };
    mail::recipient(cx, link.user_id, to).await
}

async fn url(cx: &Cx, link: &AccountLink, sealed_token: &[u8]) -> Result<String, JobFailure> {
    let seal = cx.seal_alone(sealed_token).await?;
    let opened = seal.open(&place(cx, link.id), sealed_token);
    let token = opened.and_then(|bytes| String::from_utf8(bytes).ok());
    let token = token.ok_or_else(|| {
        JobFailure::Permanent("the token of a link was sealed with a key that is no longer known".into())
    })?;
    let base = cx.app().policy.app_url.trim_end_matches('/');
    Ok(format!("{base}/{}#token={token}", link.purpose.page()))
}

/// The place that a token is sealed for.
fn place(cx: &Cx, link: AccountLinkId) -> String {
    format!("account link {link} of {}", cx.scope().tenant())
}
