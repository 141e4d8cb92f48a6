use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use tenantry_domain::kernel::{TenantId, Time};

use crate::kernel::context::Tenancy;

/// How long after an entry its tenant's log is chained.
const CHAINED_AFTER: Duration = Duration::seconds(2);

/// A transaction that was under way at the first look has ended by then: requests and statements have timeouts below.
const LOOKED_AT_AGAIN: Duration = Duration::seconds(60);

/// The tenants in whose audit logs this process has written entries that may not be chained yet. A killed process loses its marks;
/// the daily upkeep chains what is left then.
#[derive(Debug, Default)]
pub struct AuditMarks(Mutex<HashMap<TenantId, Mark>>);

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// When the oldest entry was written that no look has come after.
    since: Option<Time>,
    /// When the newest was.
    last: Time,
    /// When to look next.
    due: Time,
}

impl Tenancy {
    /// Returns the tenants whose audit logs have entries to chain.
    pub fn audit_marks(&self) -> Arc<AuditMarks> {
        self.state()
    }
}

impl AuditMarks {
    /// An entry is being written.
    pub(crate) fn note(&self, tenant: TenantId, at: Time) {
        let due = at + CHAINED_AFTER;
        let mut marks = self.marks();
        let mark = marks.entry(tenant).or_insert(Mark {
            since: None,
            last: at,
            due,
        });
        mark.since.get_or_insert(at);
        (mark.last, mark.due) = (mark.last.max(at), mark.due.min(due));
    }

    /// The tenants whose logs are to be chained now.
    pub(crate) fn due(&self, now: Time) -> Vec<TenantId> {
        let marks = self.marks();
        let due = marks.iter().filter(|(_, mark)| mark.due <= now);
        due.map(|(tenant, _)| *tenant).collect()
    }

    /// All that had committed when somebody looked, at `looked_at`, is chained; `waiting` says that there is more.
    pub(crate) fn looked(&self, tenant: TenantId, looked_at: Time, waiting: bool) {
        let mut marks = self.marks();
        let Some(mark) = marks.get_mut(&tenant) else {
            return;
        };
        if waiting || mark.last >= looked_at {
            mark.due = looked_at + CHAINED_AFTER;
        } else if looked_at - mark.last < LOOKED_AT_AGAIN {
            (mark.since, mark.due) = (None, mark.last + LOOKED_AT_AGAIN);
        } else {
            marks.remove(&tenant);
        }
    }

    /// The tenant has no log any more that this process could chain.
    pub(crate) fn remove(&self, tenant: TenantId) {
        self.marks().remove(&tenant);
    }

    /// How many tenants have entries to chain, and since when the oldest of them waits.
    pub fn waiting(&self) -> (usize, Option<Time>) {
        let marks = self.marks();
        let since = marks.values().filter_map(|mark| mark.since);
        (since.clone().count(), since.min())
    }

    /// Marks are changed by code that does not panic.
    fn marks(&self) -> MutexGuard<'_, HashMap<TenantId, Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn tenant_is_looked_at_soon_and_once_more() {
        let marks = AuditMarks::default();
        let tenant: TenantId = Uuid::from_u128(1).into();
        marks.note(tenant, at(0));
        marks.note(tenant, at(1));
        assert_eq!((marks.due(at(1)).len(), marks.due(at(2))), (0, vec![tenant]));
        assert_eq!(marks.waiting(), (1, Some(at(0))));
        marks.looked(tenant, at(2), true);
        assert_eq!((marks.due(at(3)).len(), marks.waiting().0), (0, 1));
        marks.looked(tenant, at(4), false);
        assert_eq!((marks.due(at(60)).len(), marks.waiting()), (0, (0, None)));
        marks.note(tenant, at(10));
        assert_eq!(marks.due(at(12)), [tenant]);
        marks.looked(tenant, at(12), false);
        assert_eq!((marks.due(at(69)).len(), marks.due(at(70))), (0, vec![tenant]));
        marks.looked(tenant, at(70), false);
        assert!(marks.due(at(10_000)).is_empty());
    }
}
