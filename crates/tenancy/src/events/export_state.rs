//! What one process knows of its export of events: what was exported, what failed, and how long it waits.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use tenantry_domain::events::{EventSinkError, ExportBacklog};
use tenantry_domain::kernel::{TenantId, Time};

/// How many seconds nothing is exported after a failure of the broker, at first and at most. It doubles with each further failure.
const PAUSE: (i64, i64) = (1, 60);

/// What was exported by this process.
#[derive(Debug, Default)]
pub struct ExportState(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    exported: u64,
    lost: u64,
    failed: BTreeMap<&'static str, u64>,
    backlog: ExportBacklog,
    /// How often the broker has failed in a row, and until when nothing is exported.
    failures: u32,
    paused_until: Option<Time>,
    /// Behind which tenant the next round begins.
    after: Option<TenantId>,
}

impl ExportState {
    /// Returns how many events the broker has taken.
    pub fn exported_total(&self) -> u64 {
        self.state().exported
    }

    /// Returns how many events were deleted because of their age before they were exported.
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Returns how many attempts have failed, by reason.
    pub fn failed_attempts(&self) -> BTreeMap<&'static str, u64> {
        self.state().failed.clone()
    }

    /// Returns how much waited when it was measured last.
    pub fn backlog(&self) -> ExportBacklog {
        self.state().backlog
    }

    /// Returns whether the broker has failed at the last attempt.
    pub fn is_failing(&self) -> bool {
        self.state().failures > 0
    }

    /// Returns whether nothing is exported now, since the broker has failed.
    pub fn is_paused(&self, now: Time) -> bool {
        self.state().paused_until.is_some_and(|until| until > now)
    }

    pub(crate) fn after(&self) -> Option<TenantId> {
        self.state().after
    }

    pub(crate) fn set_after(&self, after: Option<TenantId>) {
        self.state().after = after;
    }

    pub(crate) fn measured(&self, backlog: ExportBacklog) {
        self.state().backlog = backlog;
    }

    /// The broker has taken events; before them some were gone because of their age.
    pub(crate) fn exported(&self, count: u64, lost: u64) {
        let mut state = self.state();
        state.exported += count;
        state.lost += lost;
        if count > 0 {
            state.failures = 0;
            state.paused_until = None;
        }
    }

    /// The broker has failed. Returns for how long nothing is exported; of that, up to half is taken off by `jitter`, so that servers do not
    /// come back at once.
    pub(crate) fn failed(&self, error: &EventSinkError, now: Time, jitter: u8) -> Duration {
        let mut state = self.state();
        *state.failed.entry(error.reason()).or_default() += 1;
        let seconds = PAUSE.0.saturating_mul(1 << state.failures.min(16)).min(PAUSE.1);
        let pause = Duration::milliseconds(seconds * 1_000 * (512 - i64::from(jitter)) / 512);
        state.failures += 1;
        state.paused_until = Some(now + pause);
        pause
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_until_the_broker_takes_events() {
        let state = ExportState::default();
        let now = Time::UNIX_EPOCH;
        let away = EventSinkError::Away("gone".into());
        let pauses = [0, 1, 2, 3, 4, 5, 6, 7].map(|_| state.failed(&away, now, 0).num_seconds());
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(state.failed(&away, now, 255) > Duration::seconds(30));
        assert!(state.is_paused(now) && state.is_failing());
        assert!(!state.is_paused(now + Duration::seconds(61)));
        state.exported(3, 1);
        assert!(!state.is_paused(now) && !state.is_failing());
        assert_eq!((state.exported_total(), state.lost()), (3, 1));
        assert_eq!(state.failed_attempts(), BTreeMap::from([("away", 9)]));
        assert_eq!(state.failed(&away, now, 0).num_seconds(), 1);
    }
}
