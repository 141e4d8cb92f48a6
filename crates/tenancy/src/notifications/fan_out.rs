//! From events to notifications.
//!
//! The transaction that publishes events stores a job when they notify somebody, so a server that is killed loses none. The job goes
//! through the feed from the number on up to which events have notified; it stores notifications and the next number in one transaction. So an
//! event notifies a user once, however often the job runs.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_domain::events::Event;
use tenantry_domain::identity::{CustomRole, User};
use tenantry_domain::kernel::{NotificationId, Permission, StoreError, Time, UserId};
use tenantry_domain::notifications::{MailChoice, NoticeType, Notification, Preferences, Rhythm, may_read};
use tenantry_domain::operations::OutgoingMail;
use tenantry_domain::store::Work;

use crate::Cx;
use crate::notifications::mail_terms::{MailTerms, preferences_of, role_of};
use crate::notifications::next_digest;
use crate::notifications::present::present;
use crate::notifications::send::{self, NotificationsTo};
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};
use crate::operations::mail;

/// The most events that notify in one transaction.
const EVENTS_AT_ONCE: u32 = 100;

/// After how many notifications a transaction reads no further event: an event may notify all admins of a large tenant.
const NOTIFICATIONS_AT_ONCE: u64 = 500;

/// Notifies users of the events of the feed.
#[derive(Debug, Clone, Copy)]
pub struct NotifyUsers;

/// Where to begin when no position is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The number in the feed.
    pub position: i64,
}

impl JobHandler for NotifyUsers {
    // It waits while the tenant is suspended, and users are notified when it is not any more.
    const KIND: &'static str = "notification.fan_out";
    type Payload = Behind;

    async fn run(&self, cx: &Cx, behind: Behind) -> Result<(), JobFailure> {
        cx.require(Permission::KeepNotifications)?;
        while step(cx, behind).await? {}
        Ok(())
    }
}

/// Stores a job when the latest events notify somebody, in the transaction that has published them.
pub(crate) async fn enqueue_published(cx: &Cx, work: &mut Work, published: u64) -> Result<(), StoreError> {
    let newest = work.events().ends().await?.newest;
    let after = newest.saturating_sub_unsigned(published);
    enqueue_after(cx, work, (after, newest)).await.map(|_| ())
}

/// Stores a job when an event in a range of the feed notifies somebody. Returns whether one does.
///
/// The first such event of a tenant begins the position, with the event. The jobs of later events may run before its own: they begin
/// there and pass over no event.
pub(super) async fn enqueue_after(cx: &Cx, work: &mut Work, range: (i64, i64)) -> Result<bool, StoreError> {
    let events = NoticeType::notifying();
    if !work.notifications().has_notifying(range, &events).await? {
        return Ok(false);
    }
    work.notifications().begin_at(range.0, cx.now()).await?;
    // The key is of these events: a job that is running may have read the feed before they were in it.
    let terms = Terms {
        dedupe_key: Some(range.0.to_string()),
        ..Terms::default()
    };
    let behind = Behind { position: range.0 };
    let stored = job::enqueue::<NotifyUsers>(cx, work, &behind, terms).await;
    stored.map(|_| true).map_err(store_error)
}

/// Notifies of some events. Returns whether there are more.
async fn step(cx: &Cx, behind: Behind) -> Result<bool, JobFailure> {
    let terms = MailTerms::of(cx).await?;
    let kinds = NoticeType::all_event_types();
    let kinds = &kinds;
    cx.write(async |work| {
        let position = locked_position(cx, work, behind).await?;
        let newest = work.events().ends().await?.newest;
        let events = work
            .events()
            .between((position, newest), kinds, EVENTS_AT_ONCE)
            .await?;
        let mut batch = Batch::new(cx, terms);
        let mut last = None;
        for event in &events {
            batch.notify(work, event).await?;
            last = Some(event.position);
            if batch.added >= NOTIFICATIONS_AT_ONCE {
                break;
            }
        }
        batch.finish(work).await?;
        let are_all_done = last == events.last().map(|event| event.position);
        let is_last = are_all_done && events.len() < EVENTS_AT_ONCE as usize;
        let through = last.filter(|_| !is_last).unwrap_or(newest);
        if through > position {
            work.notifications().move_to(through).await?;
        }
        Ok(!is_last)
    })
    .await
}

/// The number up to which events have notified. The lock is held until the commit, so one job of a tenant notifies at a time, and a digest
/// misses nothing.
async fn locked_position(cx: &Cx, work: &mut Work, behind: Behind) -> Result<i64, StoreError> {
    if let Some(position) = work.notifications().position_for_update().await? {
        return Ok(position);
    }
    let begin = behind.position.max(0);
    work.notifications().begin_at(begin, cx.now()).await?;
    let position = work.notifications().position_for_update().await?;
    Ok(position.unwrap_or(begin))
}

/// The notifications of some events, and what is known of their users.
struct Batch<'a> {
    cx: &'a Cx,
    terms: MailTerms,
    now: Time,
    readers: HashMap<UserId, Option<Reader>>,
    admins: Option<Vec<UserId>>,
    notified: BTreeSet<UserId>,
    added: u64,
    digests: BTreeSet<&'static str>,
}

/// A user who may be notified.
#[derive(Clone)]
struct Reader {
    user: User,
    role: Option<CustomRole>,
    preferences: Preferences,
    gets_mail: bool,
}

impl<'a> Batch<'a> {
    fn new(cx: &'a Cx, terms: MailTerms) -> Self {
        Self {
            cx,
            terms,
            now: cx.now(),
            readers: HashMap::new(),
            admins: None,
            notified: BTreeSet::new(),
            added: 0,
            digests: BTreeSet::new(),
        }
    }

    async fn notify(&mut self, work: &mut Work, event: &Event) -> Result<(), StoreError> {
        let Some(notice) = NoticeType::of_event(event) else {
            return Ok(());
        };
        let user = notice.user(event);
        let Some(found) = present(work, notice, (user, event.entity_id)).await? else {
            return Ok(());
        };
        let users = match user {
            Some(user) => vec![user],
            None => self.admins(work).await?,
        };
        // Nobody is notified of what they did themselves.
        let is_actor = |user: &UserId| event.actor_kind == "user" && event.actor_id == Some(user.uuid());
        for user in users.into_iter().filter(|user| !is_actor(user)) {
            self.add(work, (notice, event), user, &found).await?;
        }
        Ok(())
    }

    async fn add(
        &mut self,
        work: &mut Work,
        (notice, event): (&NoticeType, &Event),
        user: UserId,
        found: &Map<String, Value>,
    ) -> Result<(), StoreError> {
        let Some(reader) = self.reader(work, user).await? else {
            return Ok(());
        };
        if !may_read(&reader.user, reader.role.as_ref(), notice.needs) {
            return Ok(());
        }
        let effective = reader.preferences.effective(notice, self.terms.digest);
        let is_mailed = reader.gets_mail && !effective.mail_fixed;
        let mail = if is_mailed {
            effective.mail
        } else {
            MailChoice::Off
        };
        if !effective.in_app && mail == MailChoice::Off {
            return Ok(());
        }
        let mut parts = notice.parts_of(event);
        parts.extend(found.clone());
        let notification = Notification {
            id: NotificationId::next(self.cx.ids()),
            user_id: user,
            kind: notice.name.to_owned(),
            event_id: event.id,
            occurred_at: event.at,
            actor_kind: event.actor_kind.clone(),
            actor_id: event.actor_id,
            entity: event.entity.clone(),
            entity_id: event.entity_id,
            parts,
            in_app: effective.in_app,
            mail: mail.rhythm(),
            read_at: None,
            created_at: self.now,
        };
        if work.notifications().add(&notification).await? {
            self.notified.insert(user);
            self.added += 1;
            self.digests.extend(mail.rhythm().map(Rhythm::as_str));
            if mail == MailChoice::Instant {
                let mail = NotificationsTo::at_once(&notification);
                send::enqueue(self.cx, work, &mail).await?;
            }
        }
        Ok(())
    }

    async fn admins(&mut self, work: &mut Work) -> Result<Vec<UserId>, StoreError> {
        if self.admins.is_none() {
            self.admins = Some(mail::acting_admins(work).await?);
        }
        Ok(self.admins.clone().unwrap_or_default())
    }

    async fn reader(&mut self, work: &mut Work, id: UserId) -> Result<Option<Reader>, StoreError> {
        if let Some(known) = self.readers.get(&id) {
            return Ok(known.clone());
        }
        let reader = match work.users().find(id).await? {
            Some(user) => Some(self.read(work, user).await?),
            None => None,
        };
        self.readers.insert(id, reader.clone());
        Ok(reader)
    }

    async fn read(&self, work: &mut Work, user: User) -> Result<Reader, StoreError> {
        let role = role_of(work, &user).await?;
        let preferences = preferences_of(self.cx, work, user.id).await?;
        let address = OutgoingMail::recipient(self.cx.ports().seal.as_ref(), &user.email);
        Ok(Reader {
            gets_mail: user.email_verified && !preferences.is_stopped_for(&address, self.now),
            user,
            role,
            preferences,
        })
    }

    /// Keeps the lists of the users bounded, and stores the jobs of the digests.
    async fn finish(self, work: &mut Work) -> Result<(), StoreError> {
        for user in &self.notified {
            work.notifications().trim(*user, Notification::MOST).await?;
        }
        for rhythm in Rhythm::ALL {
            if self.digests.contains(rhythm.as_str()) {
                next_digest::enqueue(self.cx, work, (self.terms, rhythm, self.now), None).await?;
            }
        }
        Ok(())
    }
}
