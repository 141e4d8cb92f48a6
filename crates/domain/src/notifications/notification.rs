use async_trait::async_trait;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::kernel::{EventId, NotificationId, Page, PageRequest, StoreError, Time, UserId};
use crate::notifications::digest::Rhythm;
use crate::notifications::notice_type::NotifyingEvents;

/// What a user is notified of. It has ids and the parts that are shown, and no name or address of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Identifies the notification within the tenant.
    pub id: NotificationId,
    /// The user who is notified.
    pub user_id: UserId,
    /// The name of its [type](crate::notifications::NoticeType).
    pub kind: String,
    /// The event. A user has at most one notification of an event.
    pub event_id: EventId,
    /// When it happened.
    pub occurred_at: Time,
    /// What acted; see [`Event`](crate::events::Event).
    pub actor_kind: String,
    /// The id of the user, API key or operator who acted.
    pub actor_id: Option<Uuid>,
    /// The kind of thing that it happened to.
    pub entity: String,
    /// The id of that thing.
    pub entity_id: Option<Uuid>,
    /// What is shown, by name.
    pub parts: Map<String, Value>,
    /// Whether the user sees it in the list. Others are there for their digest.
    pub in_app: bool,
    /// The digest that waits for it.
    pub mail: Option<Rhythm>,
    /// When the user read it.
    pub read_at: Option<Time>,
    /// When the user was notified.
    pub created_at: Time,
}

impl Notification {
    /// The most notifications that are kept of a user.
    pub const MOST: u32 = 500;

    /// For how many days a notification is kept.
    pub const KEPT_DAYS: i64 = 90;
}

/// Before when notifications were created that belong to the digests that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueBefore {
    /// When the latest daily digest was due.
    pub daily: Time,
    /// When the latest weekly digest was due.
    pub weekly: Time,
}

/// Notifications of the scope's tenant, and up to where its events have notified.
#[async_trait]
pub trait Notifications: Send {
    /// Up to which number of the feed events have notified, locked until the transaction ends; `None` before the first event.
    async fn position_for_update(&mut self) -> Result<Option<i64>, StoreError>;

    /// Whether events in a range of the feed notify: those after the first number, through the second one.
    async fn has_notifying(
        &mut self,
        range: (i64, i64),
        events: &[NotifyingEvents],
    ) -> Result<bool, StoreError>;

    /// Stores the first number unless there is one. It waits for no transaction that has locked the number.
    async fn begin_at(&mut self, position: i64, now: Time) -> Result<(), StoreError>;

    /// Moves the number, which is locked.
    async fn move_to(&mut self, position: i64) -> Result<(), StoreError>;

    /// Adds a notification unless the user has one of the event. Returns whether it was added.
    async fn add(&mut self, notification: &Notification) -> Result<bool, StoreError>;

    /// Takes the oldest notifications beyond `most` out of the list of a user. Those that wait for a digest are kept for it. Returns how
    /// many were deleted.
    async fn trim(&mut self, user: UserId, most: u32) -> Result<u64, StoreError>;

    /// A page of the list of a user, newest first: all, or those that are unread (`true`) or read. `kinds` and the first part of the
    /// filter are the types that the user may read.
    async fn list(
        &mut self,
        user: UserId,
        filter: (&[&'static str], Option<bool>),
        page: PageRequest,
    ) -> Result<Page<Notification>, StoreError>;

    /// How many in the list of a user are unread.
    async fn count_unread(&mut self, user: UserId, kinds: &[&'static str]) -> Result<u64, StoreError>;

    /// One in the list of a user, locked until the transaction ends.
    async fn find_for_update(
        &mut self,
        user: UserId,
        id: NotificationId,
        kinds: &[&'static str],
    ) -> Result<Option<Notification>, StoreError>;

    /// Stores when one was read, or that it is unread.
    async fn set_read(&mut self, id: NotificationId, read_at: Option<Time>) -> Result<(), StoreError>;

    /// Marks all in the list of a user as read that were created until a time. Returns how many.
    async fn read_all(
        &mut self,
        user: UserId,
        kinds: &[&'static str],
        until: Time,
    ) -> Result<u64, StoreError>;

    /// Leaves those of these ids that are unread to the next daily digest of the user.
    async fn defer(&mut self, user: UserId, ids: &[NotificationId]) -> Result<(), StoreError>;

    /// Deletes those of these ids that the list does not have and no digest waits for.
    async fn delete_hidden(&mut self, user: UserId, ids: &[NotificationId]) -> Result<(), StoreError>;

    /// Those of these ids that are of the user, newest first.
    async fn find_of(
        &mut self,
        user: UserId,
        ids: &[NotificationId],
    ) -> Result<Vec<Notification>, StoreError>;

    /// The date of the latest digest, for example `2026-01-31`.
    async fn latest_digest(&mut self, rhythm: Rhythm) -> Result<Option<String>, StoreError>;

    /// Stores the date of the latest digest. The number is stored and locked.
    async fn store_digest(&mut self, rhythm: Rhythm, date: &str) -> Result<(), StoreError>;

    /// Up to `limit` users after a user, in the order of their ids, of whom a digest is due.
    async fn users_due(
        &mut self,
        after: Option<UserId>,
        before: DueBefore,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError>;

    /// Takes what the due digest of a user has, the newest first: nothing waits for a digest any more. Those that were read meanwhile are
    /// among them.
    async fn take_due(&mut self, user: UserId, before: DueBefore) -> Result<Vec<Notification>, StoreError>;

    /// Whether notifications wait for a digest.
    async fn is_waiting(&mut self, rhythm: Rhythm) -> Result<bool, StoreError>;

    /// Deletes up to `limit` notifications that were created before a time. Returns how many.
    async fn delete_before(&mut self, before: Time, limit: u32) -> Result<u64, StoreError>;
}
