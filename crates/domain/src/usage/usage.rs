use async_trait::async_trait;
use chrono::{Duration, SubsecRound as _};
use serde_json::Value;

use crate::kernel::name::named_enum;
use crate::kernel::{Check, Invalid, Period, StoreError, SystemScope, TenantId, Time, UsageEventId};
use crate::usage::{Aggregation, MOST_UNITS, MeterKey};

/// What was used, when, as the ledger keeps it: for good. A mistake is corrected by another event that invalidates it.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageEvent {
    /// Identifies the event within the tenant.
    pub id: UsageEventId,
    /// Key of the meter that counts the event.
    pub meter: MeterKey,
    /// How much, at most [`NewUsage::MOST`]. That of an invalidation is 0.
    pub quantity: u64,
    /// Whom or what a meter of different subjects counts.
    pub subject: Option<String>,
    /// When it happened.
    pub event_at: Time,
    /// When it was accepted.
    pub accepted_at: Time,
    /// Under which name it was sent.
    pub key: UsageKey,
    /// How it came in.
    pub origin: UsageOrigin,
    /// What else was said of it.
    pub properties: Option<Value>,
    /// The event that no longer counts because of this one.
    pub invalidates: Option<UsageEventId>,
}

/// The name of an event, by which it is known when it is sent again: unique in its tenant, for as long as it can be sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageKey {
    /// Who sent it; for events from outside never one of [`UsageKey::RESERVED`].
    pub source: String,
    /// The sender's id of the event: deduplicates it together with the source.
    pub key: String,
}

impl UsageKey {
    /// With what the sources begin that nobody outside can name.
    pub const RESERVED: &'static str = "tenantry:";
    /// The source of events in the form of this API.
    pub const API: &'static str = "tenantry:api";
    /// The source of what the server counts itself.
    pub const SERVER: &'static str = "tenantry:server";
    /// The source of invalidations, whose keys are the ids of what they invalidate.
    pub const INVALIDATION: &'static str = "tenantry:invalidation";

    /// A key of a source.
    pub fn new(source: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            key: key.into(),
        }
    }

    /// Returns where the fields of the event are: only CloudEvents have sources of their own.
    pub fn pointers(&self) -> UsagePointers {
        if self.source.starts_with(Self::RESERVED) {
            UsagePointers {
                key: "/idempotency_key",
                quantity: "/quantity",
                properties: "/properties",
            }
        } else {
            UsagePointers {
                key: "/id",
                quantity: "/data/quantity",
                properties: "/data",
            }
        }
    }
}

/// Where the fields of an event are in the form in which it came, as JSON pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsagePointers {
    /// The key of the event in its source.
    pub key: &'static str,
    /// JSON pointer to the number of units.
    pub quantity: &'static str,
    /// JSON pointer to the sender's own fields.
    pub properties: &'static str,
}

named_enum! {
    /// How an event came in.
    pub enum UsageOrigin {
        /// In the form of this API.
        Api = "api",
        /// As a CloudEvent.
        CloudEvents = "cloudevents",
        /// The server counted it.
        Server = "server",
        /// Later than is usual, by whoever may do that.
        Backfill = "backfill",
    }
}

/// Usage that is about to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUsage {
    /// See [`UsageEvent::key`].
    pub key: UsageKey,
    /// See [`UsageEvent::meter`].
    pub meter: MeterKey,
    /// See [`UsageEvent::quantity`].
    pub quantity: u64,
    /// When it happened; `None` is when it is accepted.
    pub event_at: Option<Time>,
    /// See [`UsageEvent::subject`].
    pub subject: Option<String>,
    /// See [`UsageEvent::properties`].
    pub properties: Option<Value>,
    /// See [`UsageEvent::origin`].
    pub origin: UsageOrigin,
}

/// The most events that are taken at once.
pub const USAGE_BATCH: usize = 1_000;

impl NewUsage {
    /// The largest quantity of one event: the largest whole number that every reader of JSON keeps exactly (2^53 - 1).
    pub const MOST: u64 = 9_007_199_254_740_991;
    /// The most that the quantities of a day come to, of a meter that adds them up (2^48 - 1). The longest billing period
    /// touches 32 days, so no total exceeds [`NewUsage::MOST`].
    pub const MOST_OF_A_DAY: u64 = 281_474_976_710_655;
    /// The longest subject, in characters.
    pub const LONGEST_SUBJECT: usize = 200;
    /// The longest source and the longest key, in characters.
    pub const LONGEST_KEY: usize = 255;
    /// The most bytes of the properties, as JSON.
    pub const LARGEST_PROPERTIES: usize = 4_096;

    /// Checks that its fields can be stored. Pointers are those of the form in which it came.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::new();
        let pointers = self.key.pointers();
        check.line(pointers.key, &self.key.key, 1..=Self::LONGEST_KEY);
        check.line("/source", &self.key.source, 1..=Self::LONGEST_KEY);
        check.require(
            self.quantity <= Self::MOST,
            pointers.quantity,
            "range",
            "must be in 0..=9007199254740991",
        );
        if let Some(subject) = &self.subject {
            check.line("/subject", subject, 1..=Self::LONGEST_SUBJECT);
        }
        if let Some(properties) = &self.properties {
            check_properties(&mut check, properties, pointers.properties);
        }
        check.verdict()
    }

    /// The moment at which it happened, in whole microseconds, which is what is stored.
    pub fn happened(&self, now: Time) -> Time {
        self.event_at.unwrap_or(now).trunc_subsecs(6)
    }
}

fn check_properties(check: &mut Check, properties: &Value, pointer: &'static str) {
    let text = properties.to_string();
    check.require(
        properties.is_object(),
        pointer,
        "invalid_type",
        "must be an object",
    );
    check.require(
        text.len() <= NewUsage::LARGEST_PROPERTIES,
        pointer,
        "too_large",
        "must have up to 4096 bytes as JSON",
    );
    // PostgreSQL's JSON cannot hold it.
    check.require(
        !text.contains("\\u0000"),
        pointer,
        "invalid_text",
        "must not contain U+0000",
    );
}

/// When what happened may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageWindow {
    /// How far back.
    pub past: Duration,
    /// How far ahead, since clocks differ.
    pub future: Duration,
}

impl UsageWindow {
    /// The window for senders without special permission.
    pub const USUAL: Self = Self {
        past: Duration::hours(24),
        future: Duration::minutes(5),
    };
    /// For whoever may tell later.
    pub const BACKFILL: Self = Self {
        past: Duration::days(90),
        future: Duration::minutes(5),
    };
    /// For how long a key is remembered after its event was accepted: for longer than anything can be sent again. What
    /// comes later under the same key and unchanged is too old.
    pub const KEYS_KEPT: Duration = Duration::days(120);

    /// Whether something that happened at a moment may be told now.
    ///
    /// # Errors
    /// [`OutOfWindow`].
    pub fn check(&self, event_at: Time, now: Time) -> Result<(), OutOfWindow> {
        if event_at < now - self.past {
            Err(OutOfWindow::TooOld)
        } else if event_at > now + self.future {
            Err(OutOfWindow::InFuture)
        } else {
            Ok(())
        }
    }
}

/// An event is told at the wrong time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfWindow {
    /// Too late.
    #[error("it happened too long ago")]
    TooOld,
    /// Too early.
    #[error("it has not happened yet")]
    InFuture,
}

/// What became of an event that was to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is in the ledger now.
    Accepted(UsageEventId),
    /// It was there already, the same in all that was said of it.
    Duplicate(UsageEventId),
    /// Another event has its key.
    Conflict,
}

/// An event to append, with a hash of what was said of it, by which it is known when it comes again.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyedUsage {
    /// The event as it will be stored.
    pub event: UsageEvent,
    /// A hash of its payload, in text.
    pub payload_hash: String,
}

/// What was accepted of a day: of the events of a meter that are of that day, or of all events that were sent on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    /// The meter; `None` for all events that were sent on the day.
    pub meter: Option<MeterKey>,
    /// The beginning of the day, UTC.
    pub day: Time,
    /// How many events.
    pub events: u64,
    /// What their quantities come to.
    pub quantity: u64,
}

/// What the events of a period come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// The number.
    pub quantity: u64,
    /// How many events count for it.
    pub events: u64,
}

/// A total of an hour or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollup {
    /// The beginning of its period.
    pub start: Time,
    /// What it comes to.
    pub measured: Measured,
    /// Grows each time the number changes; from 1.
    pub revision: i64,
    /// When it was computed.
    pub computed_at: Time,
}

named_enum! {
    /// How finely usage is shown.
    pub enum Granularity {
        /// Intervals of an hour, UTC.
        Hour = "hour",
        /// By the day, UTC.
        Day = "day",
    }
}

impl Granularity {
    /// How long each part is.
    pub const fn length(self) -> Duration {
        match self {
            Self::Hour => Duration::hours(1),
            Self::Day => Duration::days(1),
        }
    }

    /// The longest period that is shown so finely.
    pub const fn longest(self) -> Duration {
        match self {
            Self::Hour => Duration::days(90),
            Self::Day => Duration::days(731),
        }
    }

    /// The part around a moment.
    pub fn around(self, at: Time) -> Period {
        match self {
            Self::Hour => Period::hour_of(at),
            Self::Day => Period::day_of(at),
        }
    }
}

/// A tenant's usage: the ledger, and the totals that are made of it.
#[async_trait]
pub trait Usage: Send {
    /// Appends events unless their keys are taken, and marks the hours that they touch; what became of each, in their
    /// order. No two of them have one key.
    async fn append(&mut self, events: &[KeyedUsage]) -> Result<Vec<Appended>, StoreError>;

    /// Adds to what was accepted of days; what it comes to with these, in any order. The rows stay locked until the transaction
    /// ends, so that of two who send at once the second sees what the first has added.
    async fn add_intake(&mut self, more: &[Intake], now: Time) -> Result<Vec<Intake>, StoreError>;

    /// Takes the quantity of an invalidated event from what was accepted of a meter and day. How many events were accepted
    /// stays: the ledger keeps the event.
    async fn return_intake(&mut self, meter: &MeterKey, day: Time, quantity: u64) -> Result<(), StoreError>;

    /// How many events were accepted on a day.
    async fn accepted_on(&mut self, day: Time) -> Result<u64, StoreError>;

    /// An event.
    async fn find(&mut self, id: UsageEventId) -> Result<Option<UsageEvent>, StoreError>;

    /// When the latest event of a meter happened, and its quantity; only before a moment, where one is given. Events that
    /// no longer count are left out.
    async fn latest(
        &mut self,
        meter: &MeterKey,
        before: Option<Time>,
    ) -> Result<Option<(Time, u64)>, StoreError>;

    /// What the events of a period come to, of the ledger alone.
    async fn measure(
        &mut self,
        meter: &MeterKey,
        aggregation: Aggregation,
        period: Period,
    ) -> Result<Measured, StoreError>;

    /// The quantities together that the server recorded of a meter from a moment on, under keys with this beginning.
    async fn recorded_since(
        &mut self,
        meter: &MeterKey,
        since: Time,
        beginning: &str,
    ) -> Result<u64, StoreError>;

    /// The hours of a period in which something has changed since they were totalled, in order.
    async fn dirty_hours(&mut self, meter: &MeterKey, period: Period) -> Result<Vec<Time>, StoreError>;

    /// The totals of hours or days that begin within a period, in order, as they were computed last. Those without an
    /// event may be missing.
    async fn rollups(
        &mut self,
        meter: &MeterKey,
        granularity: Granularity,
        period: Period,
    ) -> Result<Vec<Rollup>, StoreError>;

    /// What a period comes to, exactly: the totals of whole hours where they are good, and the ledger for the rest. Of the
    /// latest quantity it is the one that held at the period's end, also when that was before the period.
    async fn total(
        &mut self,
        meter: &MeterKey,
        aggregation: Aggregation,
        period: Period,
    ) -> Result<u64, StoreError> {
        match aggregation {
            Aggregation::Last => {
                let latest = self.latest(meter, Some(period.end)).await?;
                Ok(latest.map_or(0, |(_, quantity)| quantity))
            }
            Aggregation::Unique => Ok(self.measure(meter, aggregation, period).await?.quantity),
            Aggregation::Sum | Aggregation::Count | Aggregation::Max => {
                total_of_hours(self, meter, aggregation, period).await
            }
        }
    }

    /// The totals of the hours that begin within a period, as they were computed last, each with a revision that grows
    /// when the number changes.
    async fn hours(
        &mut self,
        meter: &MeterKey,
        _aggregation: Aggregation,
        period: Period,
    ) -> Result<Vec<(Time, u64, i64)>, StoreError> {
        let rollups = self.rollups(meter, Granularity::Hour, period).await?;
        let hour = |hour: Rollup| (hour.start, hour.measured.quantity, hour.revision);
        Ok(rollups.into_iter().map(hour).collect())
    }

    /// Waits until nobody else totals this tenant's usage; until the transaction ends nobody else does.
    async fn lock_rollups(&mut self) -> Result<(), StoreError>;

    /// Takes the marks of changed hours off, at most so many; the meters and hours they were on, each once, in order.
    /// Behind [`Usage::lock_rollups`], and before the hours are measured: what is seen then includes whatever was marked.
    async fn take_dirty(&mut self, limit: u32) -> Result<Vec<(MeterKey, Time)>, StoreError>;

    /// Puts a total in the place of the one that is there.
    async fn store_rollup(
        &mut self,
        meter: &MeterKey,
        granularity: Granularity,
        (start, measured): (Time, Measured),
        now: Time,
    ) -> Result<(), StoreError>;

    /// Deletes what was accepted of days before a moment.
    async fn delete_intake(&mut self, before: Time) -> Result<u64, StoreError>;

    /// Forgets the keys of events that were accepted before a moment; how many they were.
    async fn delete_keys(&mut self, before: Time) -> Result<u64, StoreError>;
}

/// What adds up or is the largest of its parts: hours that are good as they were totalled, and the ledger for hours that
/// have changed and for the ends of the period. The changed hours are looked up first, so that one that is totalled
/// meanwhile is taken from the ledger and not missed.
async fn total_of_hours<U: Usage + ?Sized>(
    usage: &mut U,
    meter: &MeterKey,
    aggregation: Aggregation,
    period: Period,
) -> Result<u64, StoreError> {
    let Some(whole) = whole_hours(period) else {
        return Ok(usage.measure(meter, aggregation, period).await?.quantity);
    };
    let dirty = usage.dirty_hours(meter, whole).await?;
    let rollups = usage.rollups(meter, Granularity::Hour, whole).await?;
    let good = rollups
        .iter()
        .filter(|hour| dirty.binary_search(&hour.start).is_err());
    let mut parts: Vec<u64> = good.map(|hour| hour.measured.quantity).collect();
    let ends = [(period.start, whole.start), (whole.end, period.end)]
        .map(|(start, end)| Period { start, end })
        .into_iter()
        .filter(|end| end.start < end.end);
    for part in ends.chain(dirty.iter().map(|hour| Period::hour_of(*hour))) {
        parts.push(usage.measure(meter, aggregation, part).await?.quantity);
    }
    Ok(combine(aggregation, parts))
}

/// The hours of the clock that lie wholly within a period, if there are any.
fn whole_hours(period: Period) -> Option<Period> {
    let first = Period::hour_of(period.start);
    let whole = Period {
        start: if first.start == period.start {
            first.start
        } else {
            first.end
        },
        end: Period::hour_of(period.end).start,
    };
    (whole.start < whole.end).then_some(whole)
}

fn combine(aggregation: Aggregation, parts: Vec<u64>) -> u64 {
    let parts = parts.into_iter();
    match aggregation {
        // No more than the ledger's own sum says, in data that is older than the bound of a day.
        Aggregation::Sum | Aggregation::Count => parts.fold(0, u64::saturating_add).min(MOST_UNITS),
        Aggregation::Max | Aggregation::Last | Aggregation::Unique => parts.max().unwrap_or(0),
    }
}

/// So long the changes of an hour that goes on may wait to be totalled.
pub const ROLLUP_PATIENCE: chrono::Duration = chrono::Duration::minutes(10);

/// What is looked after of usage across tenants, as the platform role, which sees of it no more than whose it is.
#[async_trait]
pub trait UsageUpkeep: Send + Sync {
    /// Up to `limit` tenants by id, from after `after` on, of whom an hour that is over at `now` has changed since it was
    /// totalled. The hour that goes on is no reason before a change has waited for [`ROLLUP_PATIENCE`], or a thousand do: until then
    /// whoever asks is answered from the ledger, and totalling it anew every minute would cost more than what it totals.
    async fn with_changes(
        &self,
        because: SystemScope,
        now: Time,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError>;

    /// Since when the change that has waited longest to be totalled waits; none when nothing does. Changes of the hour that
    /// goes on wait for up to [`ROLLUP_PATIENCE`].
    async fn waiting_since(&self, because: SystemScope) -> Result<Option<Time>, StoreError>;

    /// Makes the partitions of the ledger for the months to come; how many were missing.
    async fn make_partitions(&self, because: SystemScope) -> Result<u32, StoreError>;
}

/// A reference implementation of the aggregations, over events in memory: what every total must equal.
///
/// Of `Last` it is the latest quantity before the end of the period, as for [`Usage::total`].
pub fn total_of(events: &[UsageEvent], meter: &MeterKey, aggregation: Aggregation, period: Period) -> u64 {
    let invalid: std::collections::HashSet<_> = events.iter().filter_map(|event| event.invalidates).collect();
    let counts = |event: &&UsageEvent| {
        event.meter == *meter && event.invalidates.is_none() && !invalid.contains(&event.id)
    };
    let within = events
        .iter()
        .filter(counts)
        .filter(|event| period.contains(event.event_at));
    match aggregation {
        Aggregation::Sum => within.fold(0, |sum, event| sum.saturating_add(event.quantity)),
        Aggregation::Count => within.count() as u64,
        Aggregation::Max => within.map(|event| event.quantity).max().unwrap_or(0),
        Aggregation::Unique => {
            let subjects: std::collections::BTreeSet<_> =
                within.filter_map(|event| event.subject.as_ref()).collect();
            subjects.len() as u64
        }
        Aggregation::Last => {
            let before = events
                .iter()
                .filter(counts)
                .filter(|event| event.event_at < period.end);
            let latest = before.max_by_key(|event| (event.event_at, event.accepted_at, event.id));
            latest.map_or(0, |event| event.quantity)
        }
    }
}

/// Whether a reason for an invalidation is one: one line of 1 to 500 characters.
///
/// # Errors
/// [`Invalid`].
pub fn check_reason(reason: &str) -> Result<(), Invalid> {
    Check::all(|check| check.line("/reason", reason, 1..=500))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn usage() -> NewUsage {
        NewUsage {
            key: UsageKey::new(UsageKey::API, "k"),
            meter: MeterKey::parse("pages").unwrap(),
            quantity: 1,
            event_at: None,
            subject: None,
            properties: None,
            origin: UsageOrigin::Api,
        }
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        assert_eq!(usage().check(), Ok(()));
        let wrong = [
            NewUsage {
                quantity: NewUsage::MOST + 1,
                ..usage()
            },
            NewUsage {
                key: UsageKey::new(UsageKey::API, ""),
                ..usage()
            },
            NewUsage {
                key: UsageKey::new("a\nb", "k"),
                ..usage()
            },
            NewUsage {
                subject: Some("x".repeat(201)),
                ..usage()
            },
            NewUsage {
                properties: Some(serde_json::json!([1])),
                ..usage()
            },
            NewUsage {
                properties: Some(serde_json::json!({"a": "x".repeat(4096)})),
                ..usage()
            },
            NewUsage {
                properties: Some(serde_json::json!({"a": "\0"})),
                ..usage()
            },
        ];
        for usage in wrong {
            assert_eq!(usage.check().unwrap_err().0.len(), 1, "{usage:?}");
        }
    }

    #[test]
    fn the_window_has_both_its_ends() {
        let now = at("2026-03-02T12:00:00Z");
        let check = |text: &str| UsageWindow::USUAL.check(at(text), now);
        assert_eq!(check("2026-03-01T12:00:00Z"), Ok(()));
        assert_eq!(check("2026-03-01T11:59:59.999999Z"), Err(OutOfWindow::TooOld));
        assert_eq!(check("2026-03-02T12:05:00Z"), Ok(()));
        assert_eq!(check("2026-03-02T12:05:00.000001Z"), Err(OutOfWindow::InFuture));
        assert!(UsageWindow::KEYS_KEPT > UsageWindow::BACKFILL.past + UsageWindow::BACKFILL.future);
    }

    #[test]
    fn whole_hours_are_those_between_the_ends() {
        let whole = |start: &str, end: &str| {
            let found = whole_hours(Period {
                start: at(start),
                end: at(end),
            });
            found.map(|found| (found.start, found.end))
        };
        assert_eq!(
            whole("2026-03-02T12:00:00Z", "2026-03-02T14:00:00Z"),
            Some((at("2026-03-02T12:00:00Z"), at("2026-03-02T14:00:00Z")))
        );
        assert_eq!(
            whole("2026-03-02T12:00:01Z", "2026-03-02T14:59:00Z"),
            Some((at("2026-03-02T13:00:00Z"), at("2026-03-02T14:00:00Z")))
        );
        assert_eq!(whole("2026-03-02T12:10:00Z", "2026-03-02T12:50:00Z"), None);
        assert_eq!(whole("2026-03-02T12:10:00Z", "2026-03-02T13:50:00Z"), None);
    }
}
