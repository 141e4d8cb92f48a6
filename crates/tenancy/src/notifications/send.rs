//! Mails of notifications: one at once, or the digest of a user.

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::User;
use tenantry_domain::kernel::{NotificationId, Permission, StoreError, Time, UserId};
use tenantry_domain::notifications::{
    MailChoice, NoticeType, Notification, NotificationMail, PresentedUnsubscribe, Rhythm, UnsubscribeFrom,
    may_read,
};
use tenantry_domain::operations::{MailDecision, MailError, OutgoingMail};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::notifications::mail_terms::{MailTerms, preferences_for_update, preferences_of, role_of};
use crate::notifications::next_digest;
use crate::notifications::present::present;
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};
use crate::operations::mail::{self, MOST_ATTEMPTS, To};

/// Mails notifications to a user.
#[derive(Debug, Clone, Copy)]
pub struct MailNotifications;

/// What is mailed to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationsTo {
    /// The user.
    pub to: UserId,
    /// The notifications, newest first. Which of them the mail lists is decided when it is sent.
    pub notifications: Vec<NotificationId>,
    /// Whether it is a digest.
    pub is_digest: bool,
    /// When the job was stored.
    pub at: Time,
}

impl NotificationsTo {
    /// A mail of one notification.
    pub fn at_once(notification: &Notification) -> Self {
        Self {
            to: notification.user_id,
            notifications: vec![notification.id],
            is_digest: false,
            at: notification.created_at,
        }
    }

    /// The kind under which mails are counted that limits bound.
    const fn kind(&self) -> &'static str {
        if self.is_digest {
            "notification.digest"
        } else {
            MailNotifications::KIND
        }
    }
}

impl JobHandler for MailNotifications {
    // It waits while the tenant is suspended.
    const KIND: &'static str = "notification.mail";
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = NotificationsTo;

    async fn run(&self, cx: &Cx, payload: NotificationsTo) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let found = mail::recipient(cx, payload.to, To::Present).await?;
        let found = found.filter(|(user, envelope)| user.is_active && envelope.is_verified);
        let Some((user, mut envelope)) = found else {
            tracing::info!("notifications are not mailed: the user has no verified address, or was removed");
            return Ok(());
        };
        let wanted = wanted(cx, &payload, &user).await?;
        let Some(from) = unsubscribe_from(&payload, &wanted.items) else {
            tracing::info!("notifications are not mailed: none of them is unread, wanted and allowed");
            return Ok(());
        };
        let unsubscribe = link(cx, &user, from);
        let content = NotificationMail {
            items: &wanted.items,
            more: wanted.more,
            is_digest: payload.is_digest,
            unsubscribe: &unsubscribe,
        };
        let message = content.message(&envelope.recipient);
        envelope.unsubscribe = Some(unsubscribe);
        let sent = mail::attempt(cx, payload.kind(), &envelope, &message, payload.at).await?;
        note(cx, &payload, &user, &sent).await?;
        if wanted.is_hidden && matches!(sent, Ok(MailDecision::Send)) {
            // The list does not have them, and nothing waits for them.
            let hidden = &payload.notifications;
            cx.write(async |work| work.notifications().delete_hidden(user.id, hidden).await)
                .await?;
        }
        sent.map(|_| ()).map_err(JobFailure::from)
    }
}

/// Stores the job that mails notifications, with the running transaction.
pub(super) async fn enqueue(cx: &Cx, work: &mut Work, mail: &NotificationsTo) -> Result<(), StoreError> {
    let stored = job::enqueue::<MailNotifications>(cx, work, mail, Terms::default()).await;
    stored.map(|_| ()).map_err(store_error)
}

/// What a mail lists, and how many notifications there are beyond.
#[derive(Default)]
struct Wanted {
    items: Vec<Notification>,
    more: u32,
    /// Whether some are not in the user's list.
    is_hidden: bool,
}

/// The notifications that are unread, still hold, that the user wants to be mailed and may read now. None for an address that the mail
/// server refuses.
async fn wanted(cx: &Cx, mail: &NotificationsTo, user: &User) -> Result<Wanted, StoreError> {
    let terms = MailTerms::of(cx).await?;
    let address = OutgoingMail::recipient(cx.ports().seal.as_ref(), &user.email);
    cx.read(async |work| {
        let preferences = preferences_of(cx, work, user.id).await?;
        if preferences.is_stopped_for(&address, cx.now()) {
            return Ok(Wanted::default());
        }
        let role = role_of(work, user).await?;
        let found = work.notifications().find_of(user.id, &mail.notifications).await?;
        let is_wanted = |notice: &NoticeType| {
            let effective = preferences.effective(notice, terms.digest);
            let is_mailed = effective.mail != MailChoice::Off && !effective.mail_fixed;
            is_mailed && may_read(user, role.as_ref(), notice.needs)
        };
        let unread = found.into_iter().filter(|item| item.read_at.is_none());
        let wanted = unread.filter_map(|item| {
            let notice = NoticeType::find(&item.kind).filter(|notice| is_wanted(notice));
            notice.map(|notice| (notice, item))
        });
        listed(work, user.id, wanted.collect()).await
    })
    .await
}

/// The first of them that still hold. Those beyond are counted, and not looked up one by one.
async fn listed(
    work: &mut Work,
    user: UserId,
    wanted: Vec<(&NoticeType, Notification)>,
) -> Result<Wanted, StoreError> {
    let mut listed = Wanted {
        is_hidden: wanted.iter().any(|(_, item)| !item.in_app),
        ..Wanted::default()
    };
    for (notice, item) in wanted {
        if listed.items.len() == NotificationMail::MOST_LISTED {
            listed.more += 1;
        } else if present(work, notice, (Some(user), item.entity_id))
            .await?
            .is_some()
        {
            listed.items.push(item);
        }
    }
    Ok(listed)
}

/// What the link of the mail ends; `None` of a mail of nothing.
fn unsubscribe_from(mail: &NotificationsTo, items: &[Notification]) -> Option<UnsubscribeFrom> {
    let notice = NoticeType::find(&items.first()?.kind)?;
    if mail.is_digest {
        Some(UnsubscribeFrom::Digests)
    } else {
        Some(UnsubscribeFrom::Type(notice.name))
    }
}

fn link(cx: &Cx, user: &User, from: UnsubscribeFrom) -> String {
    let token = cx.ports().unsubscribe_tokens.issue(&PresentedUnsubscribe {
        tenant: cx.scope().tenant(),
        user: user.id,
        tag: from.tag(cx.ports().seal.as_ref(), &user.email),
    });
    let base = cx.app().policy.api_url.trim_end_matches('/');
    format!("{base}/api/v1/notifications/unsubscribe?token={token}")
}

/// Stores what became of a mail: whether the mail server refuses the recipient, and that a limit withheld it.
async fn note(
    cx: &Cx,
    mail: &NotificationsTo,
    user: &User,
    sent: &Result<MailDecision, MailError>,
) -> Result<(), StoreError> {
    match sent {
        Err(MailError::RecipientRefused(_)) => note_answer(cx, user, true).await,
        Ok(MailDecision::Send) => note_answer(cx, user, false).await,
        Ok(_) if !mail.is_digest => defer(cx, mail).await,
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Counts refusals of the address in succession; an accepted mail ends them.
async fn note_answer(cx: &Cx, user: &User, is_refused: bool) -> Result<(), StoreError> {
    let address = OutgoingMail::recipient(cx.ports().seal.as_ref(), &user.email);
    let known = cx
        .read(async |work| preferences_of(cx, work, user.id).await)
        .await?;
    if !is_refused && known.refusals == 0 {
        return Ok(());
    }
    cx.write(async |work| {
        let mut preferences = preferences_for_update(cx, work, user.id).await?;
        if is_refused {
            preferences.note_refusal(&address, cx.now());
        } else if !preferences.note_acceptance(cx.now()) {
            return Ok(());
        }
        work.notice_preferences().store(&preferences).await
    })
    .await
}

/// Leaves what a limit of mail withholds to the next daily digest.
async fn defer(cx: &Cx, mail: &NotificationsTo) -> Result<(), StoreError> {
    let terms = MailTerms::of(cx).await?;
    cx.write(async |work| {
        if work.notifications().position_for_update().await?.is_none() {
            return Ok(());
        }
        let deferred = &mail.notifications;
        work.notifications().defer(mail.to, deferred).await?;
        next_digest::enqueue(cx, work, (terms, Rhythm::Daily, cx.now()), None).await
    })
    .await
}
