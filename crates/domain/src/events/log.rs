//! The log of what was published in the feeds of all tenants: which tenant, and which positions. It is one order over all tenants.

use async_trait::async_trait;

use crate::kernel::{StoreError, SystemScope, TenantId, Time};

/// Which entries of the log are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogEnds {
    /// The number of the last entry that was deleted because of its age; 0 before that.
    pub floor: i64,
    /// The number of the last entry; 0 before the first one.
    pub last: i64,
}

impl LogEnds {
    /// Returns whether everything behind a place is still there, and the place is one of this log.
    pub fn has(self, place: LogPosition) -> bool {
        let is_read = place.position == i64::MAX;
        (self.floor..=self.last).contains(&place.number) && (is_read || place.number > self.floor)
    }
}

/// Up to where the log was read: in the entry with this number up to this position of its tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The number of the entry that was read last.
    pub number: i64,
    /// The position of the event that was read last; [`i64::MAX`] when the entry was read to its end.
    pub position: i64,
}

impl LogPosition {
    /// Returns the place behind an entry.
    pub fn behind(number: i64) -> Self {
        Self {
            number,
            position: i64::MAX,
        }
    }
}

/// How much waits to be exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportBacklog {
    /// Of how many tenants.
    pub tenants: u64,
    /// How many events.
    pub events: u64,
}

/// What was published in the feeds of all tenants: which positions of which tenant, and nothing of the events.
///
/// The transaction that publishes events notes their tenant. Later, one transaction at a time gives the noted tenants numbers in the log, and
/// holds a lock until its commit. So an entry that commits late gets a later number, and a reader that goes on from a number passes over
/// nothing; and no reader and no other publisher waits for an open transaction of a publisher.
#[async_trait]
pub trait PublishedEvents: Send + Sync {
    /// Adds what was published since then to the log, an entry for each of up to `limit` tenants, and deletes some entries from before `expired`.
    /// Returns how many entries were added; 0 when there is nothing left to add.
    async fn append(
        &self,
        because: SystemScope,
        (now, expired): (Time, Time),
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// The number of the last entry of a tenant; 0 when it has none that is kept.
    async fn last_of(&self, because: SystemScope, tenant: TenantId) -> Result<i64, StoreError>;

    /// The ends of the log.
    async fn ends(&self, because: SystemScope) -> Result<LogEnds, StoreError>;

    /// Up to `limit` tenants that are not deleted and have events to export, which no process is exporting, by id, from after `after` on.
    async fn to_export(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError>;

    /// How much waits to be exported.
    async fn backlog(&self, because: SystemScope) -> Result<ExportBacklog, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_a_deleted_or_unknown_entry_is_refused() {
        let ends = LogEnds { floor: 3, last: 9 };
        let behind = |number| ends.has(LogPosition::behind(number));
        assert_eq!([2, 3, 9, 10].map(behind), [false, true, true, false]);
        // The rest of an entry that is deleted cannot be read.
        let within = |number| ends.has(LogPosition { number, position: 1 });
        assert_eq!([2, 3, 4, 9, 10].map(within), [false, false, true, true, false]);
        assert!(LogEnds::default().has(LogPosition::behind(0)));
        assert!(!LogEnds::default().has(LogPosition::behind(1)));
    }
}
