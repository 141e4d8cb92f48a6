//! Consumers of a tenant's feed: the positions that programs have stored under a name.

use async_trait::async_trait;
use serde::Serialize;

use crate::events::FeedEnds;
use crate::kernel::{EventConsumerId, StoreError, Time};

/// The name of a consumer: 1 to 64 characters of `a-z`, `0-9`, `_`, `-` and `.`, the first one a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ConsumerName(String);

impl ConsumerName {
    /// Returns the name in a text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        let begins = |first: u8| first.is_ascii_lowercase() || first.is_ascii_digit();
        let holds = (1..=64).contains(&text.len())
            && text.bytes().all(is_plain)
            && text.bytes().next().is_some_and(begins);
        holds.then(|| Self(text.to_owned()))
    }

    /// Returns a name that was accepted before and kept by the database.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no [`ConsumerName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a consumer")]
pub struct ParseConsumerNameError;

impl std::str::FromStr for ConsumerName {
    type Err = ParseConsumerNameError;

    fn from_str(text: &str) -> Result<Self, ParseConsumerNameError> {
        Self::parse(text).ok_or(ParseConsumerNameError)
    }
}

/// Up to where a consumer has processed the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventConsumer {
    /// Identifies the consumer in the audit log.
    pub id: EventConsumerId,
    /// Unique in the tenant; it does not change.
    pub name: ConsumerName,
    /// The position of the last event that was processed; 0 before the first one.
    pub position: i64,
    /// When it was created.
    pub created_at: Time,
    /// When its position was stored last.
    pub updated_at: Time,
    /// Counts how often its position was stored, from 1.
    pub version: i64,
}

impl EventConsumer {
    /// The maximum number of consumers of a tenant.
    pub const MOST: u64 = 100;

    /// Returns a new consumer.
    pub fn new(id: EventConsumerId, name: ConsumerName, position: i64, now: Time) -> Self {
        Self {
            id,
            name,
            position,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// Stores another position, before or behind the present one.
    pub fn move_to(&mut self, position: i64, now: Time) {
        self.position = position;
        self.updated_at = now;
        self.version += 1;
    }

    /// Returns how many positions of the feed are behind the stored one.
    pub fn lag(&self, ends: FeedEnds) -> i64 {
        ends.newest.saturating_sub(self.position).max(0)
    }

    /// Returns whether events behind the position were deleted because of their age, so that nothing can be read from there.
    pub fn is_expired(&self, ends: FeedEnds) -> bool {
        !ends.has(self.position)
    }
}

/// The consumers of the scope's tenant.
#[async_trait]
pub trait EventConsumers: Send {
    /// All consumers, by name: at most [`EventConsumer::MOST`].
    async fn list(&mut self) -> Result<Vec<EventConsumer>, StoreError>;
    /// The consumer of that name.
    async fn find(&mut self, name: &ConsumerName) -> Result<Option<EventConsumer>, StoreError>;
    /// The consumer of that name, locked until the transaction ends.
    async fn find_for_update(&mut self, name: &ConsumerName) -> Result<Option<EventConsumer>, StoreError>;
    /// How many there are.
    async fn count(&mut self) -> Result<u64, StoreError>;
    /// Adds one.
    async fn insert(&mut self, consumer: &EventConsumer) -> Result<(), StoreError>;
    /// Stores the new position of one.
    async fn update(&mut self, consumer: &EventConsumer) -> Result<(), StoreError>;
    /// Deletes one; its name is free then.
    async fn delete(&mut self, consumer: &EventConsumer) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        for good in ["a", "7", "billing", "crm.eu-1_b", &"x".repeat(64)] {
            assert!(ConsumerName::parse(good).is_some(), "{good}");
        }
        for wrong in ["", ".a", "-a", "A", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(ConsumerName::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn lag_counts_what_is_behind_and_expiry_what_is_gone() {
        let name = ConsumerName::parse("crm").unwrap();
        let id = Uuid::from_u128(7).into();
        let mut consumer = EventConsumer::new(id, name, 3, Time::UNIX_EPOCH);
        let ends = FeedEnds { oldest: 5, newest: 9 };
        assert_eq!((consumer.lag(ends), consumer.is_expired(ends)), (6, true));
        consumer.move_to(4, Time::UNIX_EPOCH);
        assert_eq!((consumer.lag(ends), consumer.is_expired(ends)), (5, false));
        consumer.move_to(10, Time::UNIX_EPOCH);
        assert_eq!((consumer.lag(ends), consumer.is_expired(ends)), (0, true));
        assert_eq!(consumer.version, 3);
    }
}
