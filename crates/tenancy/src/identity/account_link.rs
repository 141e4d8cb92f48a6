//! Links that open a user's account by mail: who gets one, and what using one takes.
//!
//! Anybody may ask for a link to any address. What is done before the answer is the same for known and unknown addresses: one
//! job is stored. Whether the tenant has such a user is looked up by the job.

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::identity::{AccountLink, Email, LinkPurpose, PresentedLink, User};
use tenantry_domain::kernel::{
    AccountLinkId, AccountNoticeId, Invalid, Network, Permission, StoreError, Time,
};
use tenantry_domain::operations::AccountName;
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Actor;

use crate::Cx;
use crate::identity::account_mail::{self, SendAskedLink};
use crate::identity::known_network;
use crate::identity::link_pace::{self, Lane, MOST_ASKED, MOST_WAITING};
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};

/// Sends a link to an address that a caller named, if a user has that address.
#[derive(Debug, Clone, Copy)]
pub struct AskForLink;

/// What a caller asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedLink {
    /// What the link is for.
    pub purpose: LinkPurpose,
    /// The address that the caller named.
    pub email: String,
    /// The network of the caller, about as large as a household's. Servers of earlier releases store none.
    #[serde(default)]
    pub network: Option<String>,
}

/// How long jobs of this kind are kept after their end: callers without an account store them.
const KEPT: Duration = Duration::hours(1);

impl JobHandler for AskForLink {
    const KIND: &'static str = "account.ask_link";
    // Users of a suspended tenant may log in, so they may get back in, too.
    const WRITES: bool = false;
    type Payload = AskedLink;

    async fn run(&self, cx: &Cx, asked: AskedLink) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let Ok(email) = Email::parse(&asked.email, "/email") else {
            return Ok(());
        };
        cx.write(async |work| {
            let before = cx.now() - KEPT;
            work.jobs().delete_finished_of(Self::KIND, before).await?;
            let Some(user) = work.users().find_by_email(&email).await? else {
                return Ok(());
            };
            let user = work.users().find_for_update(user.id).await?;
            let Some(user) = user.filter(|user| user.email == email && may_get(asked.purpose, user)) else {
                return Ok(());
            };
            let lane = lane(cx, work, &asked, &email).await?;
            issue_in(cx, work, &user, (asked.purpose, &email), lane).await
        })
        .await?;
        Ok(())
    }
}

/// A caller in a network from which the user has lately logged in is hardly a stranger: nobody else can delay this mail.
async fn lane(cx: &Cx, work: &mut Work, asked: &AskedLink, email: &Email) -> Result<Lane, StoreError> {
    let addresses = known_network::logins(cx, work, email).await?;
    let mut networks = addresses.iter().map(|address| {
        let address = address.as_ref().and_then(|address| address.parse().ok());
        Network::site(address).map(|network| network.to_string())
    });
    let is_known = networks.any(|known| known == asked.network);
    Ok(if is_known { Lane::Prompt } else { Lane::Paced })
}

/// Makes the link to verify the address of a new user, or the new address of one. That of a user who has registered is mailed in its
/// turn.
pub(crate) async fn verify(cx: &Cx, work: &mut Work, user: &User) -> Result<(), StoreError> {
    let lane = match cx.scope().actor() {
        Actor::Guest => Lane::Paced,
        Actor::User { .. }
        | Actor::ApiKey { .. }
        | Actor::Operator { .. }
        | Actor::Founder
        | Actor::System(_)
        | Actor::Job { .. } => Lane::Prompt,
    };
    issue_in(cx, work, user, (LinkPurpose::VerifyEmail, &user.email), lane).await
}

/// Asks for the link that leads the owner of an address into the account that has it: to choose a password, or to verify the address.
///
/// # Errors
/// Those of the store.
pub(crate) async fn remind(cx: &Cx, email: &Email) -> Result<(), StoreError> {
    let user = cx
        .read(async |work| work.users().find_by_email(email).await)
        .await?;
    let is_verified = user.is_some_and(|user| user.email_verified);
    let purpose = if is_verified {
        LinkPurpose::ResetPassword
    } else {
        LinkPurpose::VerifyEmail
    };
    ask(cx, purpose, email).await
}

/// Asks for a link to an address; while the same is asked for already, or very many others are, nothing is added.
///
/// # Errors
/// `/email` when it is no address, and those of the store.
pub(crate) async fn ask(cx: &Cx, purpose: LinkPurpose, email: &Email) -> Result<(), StoreError> {
    let asked = AskedLink {
        purpose,
        email: email.as_str().to_owned(),
        network: Network::site(cx.origin().address()).map(|network| network.to_string()),
    };
    let terms = Terms {
        dedupe_key: Some(format!(
            "{} {}",
            purpose.as_str(),
            AccountName::of(email.as_str())
        )),
        ..Terms::default()
    };
    cx.write(async |work| {
        let kind = AskForLink::KIND;
        if work.jobs().count_open(kind, MOST_ASKED).await? >= MOST_ASKED {
            tracing::warn!("a request for a link is dropped: too many wait");
            return Ok(());
        }
        let stored = job::enqueue::<AskForLink>(cx, work, &asked, terms).await;
        stored.map(|_| ()).map_err(store_error)
    })
    .await
}

/// Makes a link that is sent to an address, for a user who is locked, and stores the job that sends it. Does nothing when one
/// for this purpose was sent moments ago, or when [`AccountLink::MOST_LIVE`] of them work.
pub(crate) async fn issue(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    purpose: LinkPurpose,
    email: &Email,
) -> Result<(), StoreError> {
    issue_in(cx, work, user, (purpose, email), Lane::Prompt).await
}

/// The same, mailed at once or in its turn. Nothing is made when too many wait for theirs.
async fn issue_in(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    (purpose, email): (LinkPurpose, &Email),
    lane: Lane,
) -> Result<(), StoreError> {
    if !make_room(cx, work, user, purpose, email).await? {
        return Ok(());
    }
    let due = match lane {
        Lane::Prompt => None,
        Lane::Paced => {
            let waiting = work.jobs().count_open(SendAskedLink::KIND, MOST_WAITING).await?;
            let Some(due) = link_pace::due(waiting, cx.now()) else {
                tracing::warn!("a link is not made: too many wait to be mailed");
                return Ok(());
            };
            Some(due)
        }
    };
    add(cx, work, user, (purpose, email), due).await
}

/// Does what [`issue`] does with a link to confirm an address that the user chose. Returns whether the user may get it: there are
/// [`AccountLink::MOST_CONFIRMATIONS`] a day.
pub(crate) async fn issue_to_confirm(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    email: &Email,
) -> Result<bool, StoreError> {
    let purpose = LinkPurpose::ConfirmEmail;
    if !make_room(cx, work, user, purpose, email).await? {
        return Ok(true);
    }
    let id = AccountNoticeId::next(cx.ids());
    let span = (cx.now(), cx.now() - AccountLink::CONFIRMATIONS_WINDOW);
    let counted = work
        .bounded_notices()
        .count(
            id,
            (user.id, purpose.as_str()),
            span,
            AccountLink::MOST_CONFIRMATIONS,
        )
        .await?;
    if counted.is_none() {
        return Ok(false);
    }
    add(cx, work, user, (purpose, email), None).await?;
    Ok(true)
}

/// Stores a new link and the job that sends it: at once, or in its turn at that time.
async fn add(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    (purpose, email): (LinkPurpose, &Email),
    due: Option<Time>,
) -> Result<(), StoreError> {
    let id = AccountLinkId::next(cx.ids());
    let issued = cx.ports().link_tokens.issue(cx.scope().tenant(), id);
    let link = AccountLink {
        id,
        user_id: user.id,
        purpose,
        token_hash: issued.hash,
        email: email.clone(),
        created_at: cx.now(),
        expires_at: cx.now() + purpose.lifetime(),
    };
    work.account_links().insert(&link).await?;
    account_mail::send_link(cx, work, &link, &issued.token, due).await?;
    let details = json!({"purpose": purpose.as_str(), "expires_at": link.expires_at});
    let event = cx.security("account_link.sent", "user", Some(user.id.uuid()), details);
    work.audit().record(event).await
}

/// Whether a user may get another link now. Links that the new one replaces are deleted.
async fn make_room(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    purpose: LinkPurpose,
    email: &Email,
) -> Result<bool, StoreError> {
    let links = work.account_links().list(user.id, purpose).await?;
    // A link to another address is sent at once: a user who mistyped an address corrects it.
    let is_repeated =
        |last: &AccountLink| last.email == *email && cx.now() < last.created_at + AccountLink::PAUSE;
    if links.first().is_some_and(is_repeated) {
        return Ok(false);
    }
    match purpose {
        // Each former address keeps its own.
        LinkPurpose::RevertEmail => Ok(true),
        // Only the user asks for these, who may have mistyped the address before.
        LinkPurpose::ConfirmEmail => {
            work.account_links().delete_of(user.id, &[purpose]).await?;
            Ok(true)
        }
        LinkPurpose::ResetPassword | LinkPurpose::VerifyEmail => {
            let (live, over): (Vec<_>, Vec<_>) = links.into_iter().partition(|link| link.is_live(cx.now()));
            for link in over {
                work.account_links().delete(link.id).await?;
            }
            Ok(live.len() < AccountLink::MOST_LIVE)
        }
    }
}

/// Uses up a link of an active user, with all others for the same purpose, and locks the user; `None` when the link does not
/// work (any more).
pub(crate) async fn redeem(
    cx: &Cx,
    work: &mut Work,
    purpose: LinkPurpose,
    token: &PresentedLink,
) -> Result<Option<(AccountLink, User)>, StoreError> {
    let Some(link) = find(cx, work, purpose, token).await? else {
        return Ok(None);
    };
    let user = work.users().find_for_update(link.user_id).await?;
    let Some(user) =
        user.filter(|user| user.is_active && (user.email == link.email || !purpose.is_of_present_address()))
    else {
        return Ok(None);
    };
    // Of two requests with one token the second finds nothing to delete.
    let is_mine = work.account_links().delete(link.id).await?;
    // Each former address keeps its own link.
    if is_mine && purpose != LinkPurpose::RevertEmail {
        work.account_links().delete_of(user.id, &[purpose]).await?;
    }
    Ok(is_mine.then_some((link, user)))
}

/// The link of a token, as long as it works for that purpose.
pub(crate) async fn find(
    cx: &Cx,
    work: &mut Work,
    purpose: LinkPurpose,
    token: &PresentedLink,
) -> Result<Option<AccountLink>, StoreError> {
    let link = work.account_links().find(token.link).await?;
    Ok(link.filter(|link| link.allows(purpose, token, cx.now())))
}

/// What a caller is answered whose link does not work; which of the reasons it is, is not said.
pub fn unusable() -> Invalid {
    let detail = "the link was used, was replaced or has expired; ask for a new one";
    Invalid::one("/token", "invalid_token", detail)
}

fn may_get(purpose: LinkPurpose, user: &User) -> bool {
    user.is_active
        && match purpose {
            LinkPurpose::ResetPassword => true,
            LinkPurpose::VerifyEmail => !user.email_verified,
            // Only their user asks for those.
            LinkPurpose::ConfirmEmail | LinkPurpose::RevertEmail => false,
        }
}
