//! What one process knows of its stream of audit entries: what was sent, what failed, and how long it waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use tenantry_domain::audit::{SinkError, StreamRecord, UnsentTenants};
use tenantry_domain::kernel::{TenantId, Time};

use crate::Tenancy;

/// How long nothing is sent after a failure of the receiver, at first and at most. It doubles with each further failure.
const PAUSE: (i64, i64) = (1, 60);

/// How long nothing of one log is sent after the receiver has refused its entries, at first and at most.
const HOLD: (i64, i64) = (5, 900);

/// The longest time that the receiver can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::minutes(10);

/// The log of a tenant; `None` is that of operators.
pub(crate) type Log = Option<TenantId>;

/// What was streamed by this process.
#[derive(Debug, Default)]
pub struct AuditStreamState(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sent: BTreeMap<&'static str, u64>,
    failed: BTreeMap<&'static str, u64>,
    waiting: UnsentTenants,
    operators_since: Option<Time>,
    /// How often the receiver has failed in a row, and until when nothing is sent.
    pause: Retry,
    /// The logs whose entries the receiver has refused.
    held: HashMap<Log, Held>,
    /// Behind which tenant the next round begins.
    after: Option<TenantId>,
    operators_begun: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Retry {
    failures: u32,
    until: Option<Time>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    retry: Retry,
    /// The most records of a batch, after larger ones were refused for their size.
    records: Option<usize>,
}

impl Retry {
    fn is_over(self, now: Time) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Doubles the pause. Of each, up to half is taken off by `jitter`, so that servers do not come back at once.
    fn fail(&mut self, now: Time, (first, most): (i64, i64), jitter: u8) -> Duration {
        let seconds = first.saturating_mul(1 << self.failures.min(16)).min(most);
        let pause = Duration::milliseconds(seconds * 1_000 * (512 - i64::from(jitter)) / 512);
        self.failures += 1;
        self.until = Some(now + pause);
        pause
    }
}

impl Tenancy {
    /// Returns what this process has streamed of audit entries.
    pub fn audit_stream(&self) -> Arc<AuditStreamState> {
        self.state()
    }
}

impl AuditStreamState {
    /// Returns how many records were acknowledged, by kind.
    pub fn sent(&self) -> BTreeMap<&'static str, u64> {
        self.state().sent.clone()
    }

    /// Returns how many attempts have failed, by reason.
    pub fn failed(&self) -> BTreeMap<&'static str, u64> {
        self.state().failed.clone()
    }

    /// Returns how many tenants have entries that were not sent, and the time of the oldest entry, of operators too.
    pub fn waiting(&self) -> UnsentTenants {
        let state = self.state();
        let oldest = [state.waiting.since, state.operators_since];
        UnsentTenants {
            since: oldest.into_iter().flatten().min(),
            ..state.waiting
        }
    }

    pub(crate) fn measured(&self, waiting: UnsentTenants) {
        self.state().waiting = waiting;
    }

    pub(crate) fn measured_operators(&self, since: Option<Time>) {
        self.state().operators_since = since;
    }

    /// Whether nothing is sent, because the receiver has failed.
    pub fn is_paused(&self, now: Time) -> bool {
        !self.state().pause.is_over(now)
    }

    pub(crate) fn is_held(&self, log: Log, now: Time) -> bool {
        let held = self.state().held.get(&log).copied();
        held.is_some_and(|held| !held.retry.is_over(now))
    }

    /// The most records of a batch of the log.
    pub(crate) fn records(&self, log: Log, most: usize) -> usize {
        let held = self.state().held.get(&log).copied();
        held.and_then(|held| held.records)
            .map_or(most, |records| records.min(most))
    }

    pub(crate) fn acknowledged(&self, records: &[StreamRecord]) {
        let mut state = self.state();
        state.pause = Retry::default();
        for record in records {
            *state.sent.entry(record.kind.as_str()).or_default() += 1;
        }
    }

    /// A batch of the log was taken, so the next one may be larger again.
    pub(crate) fn free(&self, log: Log) {
        let mut state = self.state();
        let Some(held) = state.held.get_mut(&log) else {
            return;
        };
        held.retry = Retry::default();
        held.records = held.records.map(|records| records.saturating_mul(2));
        if held.records.is_none_or(|records| records > LARGE) {
            state.held.remove(&log);
        }
    }

    /// A batch was not acknowledged. Returns the pause, of everything or of the log; none when a smaller batch is tried next.
    pub(crate) fn failed_with(
        &self,
        error: &SinkError,
        (log, records): (Log, usize),
        (now, jitter): (Time, u8),
    ) -> Duration {
        let mut state = self.state();
        let reason = match error {
            SinkError::Unavailable { .. } => "unavailable",
            SinkError::Refused(_) => "refused",
            SinkError::TooLarge => "too_large",
        };
        *state.failed.entry(reason).or_default() += 1;
        if let SinkError::Unavailable { retry_after, .. } = error {
            let asked = retry_after.map(|asked| Duration::from_std(asked).unwrap_or(LONGEST_RETRY_AFTER));
            let asked = asked.unwrap_or_default().min(LONGEST_RETRY_AFTER);
            let pause = state.pause.fail(now, PAUSE, jitter).max(asked);
            state.pause.until = Some(now + pause);
            return pause;
        }
        let held = state.held.entry(log).or_default();
        if *error == SinkError::TooLarge && records > 1 {
            held.records = Some(records / 2);
            return Duration::zero();
        }
        held.retry.fail(now, HOLD, jitter)
    }

    pub(crate) fn after(&self) -> Option<TenantId> {
        self.state().after
    }

    pub(crate) fn set_after(&self, after: Option<TenantId>) {
        self.state().after = after;
    }

    /// Whether the stream of the log of operators has begun.
    pub(crate) fn operators_begun(&self) -> bool {
        self.state().operators_begun
    }

    pub(crate) fn begin_operators(&self) {
        self.state().operators_begun = true;
    }

    /// The state is changed by code that does not panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log whose batches were as large as this has no limit any more.
const LARGE: usize = 1_000;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn away(retry_after: Option<u64>) -> SinkError {
        SinkError::Unavailable {
            problem: "away".into(),
            retry_after: retry_after.map(std::time::Duration::from_secs),
        }
    }

    #[test]
    fn pause_doubles_up_to_a_minute_and_ends_with_a_success() {
        let state = AuditStreamState::default();
        let pauses: Vec<i64> = (0..9)
            .map(|_| {
                state
                    .failed_with(&away(None), (None, 1), (at(0), 0))
                    .num_seconds()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(state.is_paused(at(59)) && !state.is_paused(at(60)));
        state.acknowledged(&[]);
        assert!(!state.is_paused(at(0)));
        let jittered = state.failed_with(&away(None), (None, 1), (at(0), 255));
        assert!(jittered > Duration::milliseconds(500) && jittered < Duration::seconds(1));
        let asked = state.failed_with(&away(Some(30)), (None, 1), (at(0), 0));
        assert_eq!(asked.num_seconds(), 30);
        let too_long = state.failed_with(&away(Some(86_400)), (None, 1), (at(0), 0));
        assert_eq!(too_long, LONGEST_RETRY_AFTER);
    }

    #[test]
    fn refused_tenant_waits_alone() {
        let state = AuditStreamState::default();
        let tenant: Log = Some(Uuid::from_u128(1).into());
        let refused = SinkError::Refused("400".into());
        let hold = state.failed_with(&refused, (tenant, 5), (at(0), 0));
        assert_eq!(hold.num_seconds(), 5);
        assert!(state.is_held(tenant, at(4)) && !state.is_held(tenant, at(5)));
        for other in [Some(Uuid::from_u128(2).into()), None] {
            assert!(!state.is_held(other, at(0)));
        }
        assert!(!state.is_paused(at(0)));
        state.free(tenant);
        assert!(!state.is_held(tenant, at(0)));
    }

    #[test]
    fn batch_that_is_too_large_is_halved() {
        let state = AuditStreamState::default();
        let tenant: Log = Some(Uuid::from_u128(1).into());
        let mut records = state.records(tenant, 500);
        while records > 1 {
            let pause = state.failed_with(&SinkError::TooLarge, (tenant, records), (at(0), 0));
            assert_eq!(pause, Duration::zero());
            records = state.records(tenant, 500);
        }
        assert!(!state.is_held(tenant, at(0)));
        let alone = state.failed_with(&SinkError::TooLarge, (tenant, 1), (at(0), 0));
        assert_eq!(alone.num_seconds(), 5);
        for _ in 0..12 {
            state.free(tenant);
        }
        assert_eq!(state.records(tenant, 500), 500);
        assert_eq!(state.failed()["too_large"], 9);
    }
}
