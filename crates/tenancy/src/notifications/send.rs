//! Mails of notifications: one at once, or the digest of a user.

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::User;
use tenantry_domain::kernel::{NotificationId, Permission, StoreError, Time, UserId};
use tenantry_domain::notifications::{
    MailChoice, NoticeType, Notification, NotificationMail, PresentedUnsubscribe, UnsubscribeFrom, may_read,
};
use tenantry_domain::operations::{MailDecision, MailError, OutgoingMail};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::notifications::mail_terms::{MailTerms, preferences_for_update, preferences_of, role_of};
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
    /// The notifications, newest first.
    pub notifications: Vec<NotificationId>,
    /// How many there are beyond them.
    pub more: u32,
    /// Whether it is a digest.
    pub is_digest: bool,
    /// When it was asked for.
    pub at: Time,
}

impl NotificationsTo {
    /// A mail of one notification.
    pub fn at_once(notification: &Notification) -> Self {
        Self {
            to: notification.user_id,
            notifications: vec![notification.id],
            more: 0,
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
        let items = wanted(cx, &payload, &user).await?;
        let Some(from) = unsubscribe_from(&payload, &items) else {
            tracing::info!("notifications are not mailed: nothing is left to tell");
            return Ok(());
        };
        let unsubscribe = link(cx, &user, from);
        let content = NotificationMail {
            items: &items,
            more: payload.more,
            is_digest: payload.is_digest,
            unsubscribe: &unsubscribe,
        };
        let message = content.message(&envelope.recipient);
        envelope.unsubscribe = Some(unsubscribe);
        let sent = mail::attempt(cx, payload.kind(), &envelope, &message, payload.at).await?;
        note(cx, &user, &sent).await?;
        sent.map(|_| ()).map_err(JobFailure::from)
    }
}

/// Stores the job that mails notifications, with the running transaction.
pub(super) async fn ask(cx: &Cx, work: &mut Work, mail: &NotificationsTo) -> Result<(), StoreError> {
    let stored = job::enqueue::<MailNotifications>(cx, work, mail, Terms::default()).await;
    stored.map(|_| ()).map_err(store_error)
}

/// The notifications that are unread, that the user wants to be mailed and may read now. None for an address that the mail server refuses.
async fn wanted(cx: &Cx, mail: &NotificationsTo, user: &User) -> Result<Vec<Notification>, StoreError> {
    let terms = MailTerms::of(cx).await?;
    let address = OutgoingMail::recipient(cx.ports().seal.as_ref(), &user.email);
    cx.read(async |work| {
        let preferences = preferences_of(cx, work, user.id).await?;
        if preferences.is_stopped_for(&address) {
            return Ok(Vec::new());
        }
        let role = role_of(work, user).await?;
        let found = work.notifications().find_of(user.id, &mail.notifications).await?;
        let is_wanted = |item: &Notification| {
            let notice = NoticeType::find(&item.kind).filter(|_| item.read_at.is_none());
            notice.is_some_and(|notice| {
                let effective = preferences.effective(notice, terms.digest);
                let is_mailed = effective.mail != MailChoice::Off && !effective.mail_fixed;
                is_mailed && may_read(user, role.as_ref(), notice.needs)
            })
        };
        Ok::<_, StoreError>(found.into_iter().filter(is_wanted).collect())
    })
    .await
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
        tag: from.tag(&user.email),
    });
    let base = cx.app().policy.api_url.trim_end_matches('/');
    format!("{base}/api/v1/notifications/unsubscribe?token={token}")
}

/// Counts what the mail server refuses for good, and forgets it when it takes a mail.
async fn note(cx: &Cx, user: &User, sent: &Result<MailDecision, MailError>) -> Result<(), StoreError> {
    let is_refused = match sent {
        Err(MailError::Refused(_)) => true,
        Ok(MailDecision::Send) => false,
        Ok(_) | Err(_) => return Ok(()),
    };
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
