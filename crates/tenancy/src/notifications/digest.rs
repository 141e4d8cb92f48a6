//! Digests: what is new, by mail, at an hour of the tenant's time zone.
//!
//! A tenant has a job for each date on which a digest is due, and none when nothing waits. The job takes what was there when the
//! digest was due, so a digest that is late or that goes on after a crash has nothing twice, and no user gets two of one date.

use tenantry_domain::kernel::{JobId, Permission, StoreError, Time, UserId};
use tenantry_domain::notifications::{
    DueBefore, MailChoice, NoticeType, Notification, NotificationMail, Rhythm,
};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::notifications::mail_terms::{MailTerms, preferences_of};
use crate::notifications::send::{self, NotificationsTo};
use crate::operations::job::{self, JobFailure, JobHandler, Nothing, Terms, store_error};

/// The digests of how many users are asked for in one transaction.
const USERS_AT_ONCE: u32 = 50;

/// Asks for the digests that are due.
#[derive(Debug, Clone, Copy)]
pub struct SendDigests;

impl JobHandler for SendDigests {
    // It waits while the tenant is suspended.
    const KIND: &'static str = "notification.digest";
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::KeepNotifications)?;
        while step(cx).await? {}
        Ok(())
    }
}

/// Stores the job of the next digest, unless it is there. A job that asks for its successor names itself: it may run early, and then
/// its own date is the next one.
pub(super) async fn ask(
    cx: &Cx,
    work: &mut Work,
    (terms, rhythm, now): (MailTerms, Rhythm, Time),
    after: Option<JobId>,
) -> Result<(), StoreError> {
    let Some(tenant) = work.tenants().current().await? else {
        return Ok(());
    };
    let Some(due) = terms.schedule(&tenant).next(now, rhythm) else {
        return Ok(());
    };
    let key = match after {
        Some(job) => format!("{} after {job}", due.date),
        None => due.date,
    };
    let terms = Terms {
        run_at: Some(due.at),
        dedupe_key: Some(key),
        ..Terms::default()
    };
    let stored = job::enqueue::<SendDigests>(cx, work, &Nothing {}, terms).await;
    stored.map(|_| ()).map_err(store_error)
}

/// Asks for the digests of some users. Returns whether there may be more.
async fn step(cx: &Cx) -> Result<bool, JobFailure> {
    let terms = MailTerms::of(cx).await?;
    cx.write(async |work| {
        // What is being added meanwhile waits for this lock, and is created after it.
        let begun = work.notifications().position_for_update().await?;
        let Some(tenant) = work.tenants().current().await?.filter(|_| begun.is_some()) else {
            return Ok(false);
        };
        let (schedule, now) = (terms.schedule(&tenant), cx.now());
        let before = DueBefore {
            daily: schedule.latest(now, Rhythm::Daily),
            weekly: schedule.latest(now, Rhythm::Weekly),
        };
        let users = work.notifications().users_due(before, USERS_AT_ONCE).await?;
        for user in &users {
            let items = work.notifications().take_due(*user, before).await?;
            mail_to(cx, work, (*user, terms.digest), items).await?;
        }
        if users.len() == USERS_AT_ONCE as usize {
            return Ok(true);
        }
        for rhythm in Rhythm::ALL {
            if work.notifications().is_waiting(rhythm).await? {
                ask(cx, work, (terms, rhythm, now), cx.scope().job()).await?;
            }
        }
        Ok(false)
    })
    .await
}

/// Asks for the digest of a user, of what is unread and still wanted. There is none of nothing.
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
    let wanted: Vec<_> = items.iter().filter(|item| is_wanted(item)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let listed = wanted
        .iter()
        .take(NotificationMail::MOST_LISTED)
        .map(|item| item.id);
    let more = wanted.len().saturating_sub(NotificationMail::MOST_LISTED);
    let mail = NotificationsTo {
        to: user,
        notifications: listed.collect(),
        more: u32::try_from(more).unwrap_or(u32::MAX),
        is_digest: true,
        at: cx.now(),
    };
    send::ask(cx, work, &mail).await
}
