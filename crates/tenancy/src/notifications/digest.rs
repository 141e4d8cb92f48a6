//! Digests: what is new, by mail, at an hour of the tenant's time zone.
//!
//! A tenant has a job for each date on which a digest is due, and none when nothing waits. The job takes what was there when the
//! digest was due, so a digest that is late or that goes on after a crash has nothing twice. It stores the date, and no date has two.

use tenantry_domain::kernel::{Permission, StoreError, Time, UserId};
use tenantry_domain::notifications::{
    DigestDue, DigestSchedule, DueBefore, MailChoice, NoticeType, Notification, Rhythm,
};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::notifications::mail_terms::{MailTerms, preferences_of};
use crate::notifications::next_digest::{self, SendDigests};
use crate::notifications::send::{self, NotificationsTo};
use crate::operations::job::{JobFailure, JobHandler, Nothing};

/// The digests of how many users are stored in one transaction.
const USERS_AT_ONCE: u32 = 50;

impl JobHandler for SendDigests {
    // It waits while the tenant is suspended.
    const KIND: &'static str = "notification.digest";
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::KeepNotifications)?;
        let mut after = None;
        loop {
            after = step(cx, after).await?;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// Stores the mails of the digests of some users. Returns after which user there may be more.
async fn step(cx: &Cx, after: Option<UserId>) -> Result<Option<UserId>, JobFailure> {
    let terms = MailTerms::of(cx).await?;
    cx.write(async |work| {
        // What is being added meanwhile waits for this lock, and is created after it.
        let begun = work.notifications().position_for_update().await?;
        let Some(tenant) = work.tenants().current().await?.filter(|_| begun.is_some()) else {
            return Ok(None);
        };
        let schedule = terms.schedule(&tenant);
        let daily = overdue(cx, work, &schedule, Rhythm::Daily).await?;
        let weekly = overdue(cx, work, &schedule, Rhythm::Weekly).await?;
        let at = |due: Option<&DigestDue>| due.map_or(Time::UNIX_EPOCH, |due| due.at);
        let before = DueBefore {
            daily: at(daily.as_ref()),
            weekly: at(weekly.as_ref()),
        };
        let users = work
            .notifications()
            .users_due(after, before, USERS_AT_ONCE)
            .await?;
        for user in &users {
            let items = work.notifications().take_due(*user, before).await?;
            mail_to(cx, work, (*user, terms.digest), items).await?;
        }
        if users.len() == USERS_AT_ONCE as usize {
            return Ok(users.last().copied());
        }
        for (rhythm, due) in [(Rhythm::Daily, daily), (Rhythm::Weekly, weekly)] {
            if let Some(due) = due {
                work.notifications().store_digest(rhythm, &due.date).await?;
            }
            if work.notifications().is_waiting(rhythm).await? {
                next_digest::enqueue(cx, work, (terms, rhythm, cx.now()), cx.scope().job()).await?;
            }
        }
        Ok(None)
    })
    .await
}

/// The digest that is due and was not mailed.
async fn overdue(
    cx: &Cx,
    work: &mut Work,
    schedule: &DigestSchedule,
    rhythm: Rhythm,
) -> Result<Option<DigestDue>, StoreError> {
    let mailed = work.notifications().latest_digest(rhythm).await?;
    Ok(schedule.overdue(cx.now(), rhythm, mailed.as_deref()))
}

/// Stores the mail of the digest of a user, of what is unread and still wanted. There is none of nothing.
async fn mail_to(
    cx: &Cx,
    work: &mut Work,
    (user, digest): (UserId, MailChoice),
    items: Vec<Notification>,
) -> Result<(), StoreError> {
    let preferences = preferences_of(cx, work, user).await?;
    let is_wanted = |item: &Notification| {
        let notice = NoticeType::find(&item.kind);
        let mail = notice.map(|notice| preferences.effective(notice, digest).mail);
        item.read_at.is_none() && mail.is_some_and(|mail| mail != MailChoice::Off)
    };
    let wanted = items.iter().filter(|item| is_wanted(item)).map(|item| item.id);
    let wanted: Vec<_> = wanted.take(Notification::MOST as usize).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mail = NotificationsTo {
        to: user,
        notifications: wanted,
        is_digest: true,
        at: cx.now(),
    };
    send::enqueue(cx, work, &mail).await
}
