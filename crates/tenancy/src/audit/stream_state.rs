//! What one process knows of its stream of audit entries: what was sent, what failed, and how long it waits.
//!
//! A batch that is not acknowledged says little: the receiver may be away, or something in front of it may reject what is in the
//! batch, which anonymous callers can write. So the log of the batch waits alone and is in doubt. When another log is acknowledged, the doubt
//! is settled: the records are the reason, and the log is held. When several logs fail in a row, everything pauses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use tenantry_domain::audit::{SinkError, StreamRecord, UnsentTenants};
use tenantry_domain::kernel::{TenantId, Time};

use crate::Tenancy;

/// How long nothing is sent after a failure of the receiver, at first and at most. It doubles with each further failure. A log in doubt waits
/// as long.
const PAUSE: (i64, i64) = (1, 60);

/// How long nothing of one log is sent after the receiver has refused its entries, at first and at most.
const HOLD: (i64, i64) = (5, 900);

/// After how many different logs in a row that were not acknowledged everything pauses.
const LOGS_IN_A_ROW: usize = 4;

/// How often the receiver refuses a single record before another one is sent in its place.
const REFUSALS: u32 = 5;

/// The same of a record that it does not acknowledge while it acknowledges other logs. That may be a fault of its own, so it gets more time.
const SILENT_REFUSALS: u32 = 8;

/// How long a log counts as held after it may be tried again.
const TRIED_WITHIN: Duration = Duration::minutes(1);

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
    /// The logs that were not acknowledged since anything was, with the record where it was one alone.
    doubted: BTreeMap<Log, Option<String>>,
    /// Those of them since the last pause.
    in_a_row: BTreeSet<Log>,
    /// The logs of which the receiver has not taken the last batch, and those whose batches are smaller since.
    held: HashMap<Log, Held>,
    /// Behind which tenant the next round begins.
    after: Option<TenantId>,
    /// The tenant whose batch was sent last.
    tried: Option<TenantId>,
    operators_begun: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Retry {
    failures: u32,
    until: Option<Time>,
}

#[derive(Debug, Default, Clone)]
struct Held {
    /// After batches that were not acknowledged for a reason that is not known.
    doubt: Retry,
    /// After records that the receiver refuses.
    refusal: Retry,
    /// The most records of a batch, after larger ones have failed.
    records: Option<usize>,
    alone: Option<Alone>,
}

/// A record that was refused in a batch of its own.
#[derive(Debug, Clone)]
struct Alone {
    id: String,
    refusals: u32,
    /// After how many of them another record is sent in its place.
    most: u32,
}

impl Alone {
    /// The other record and this one take turns, so a receiver that refuses both gets this one when it recovers.
    fn is_replaced(&self) -> bool {
        let beyond = self.refusals.checked_sub(self.most);
        beyond.is_some_and(|beyond| beyond.is_multiple_of(2))
    }
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

    /// Returns of how many tenants the receiver refuses the next records while it takes those of others.
    pub fn held_tenants(&self, now: Time) -> usize {
        let state = self.state();
        // A log that another process has sent since is not tried again here.
        let is_held = |held: &Held| held.refusal.until.is_some_and(|until| until + TRIED_WITHIN > now);
        let tenants = state.held.iter().filter(|(log, _)| log.is_some());
        tenants.filter(|(_, held)| is_held(held)).count()
    }

    /// Whether nothing of the log is sent, because its last batch has failed.
    pub(crate) fn is_held(&self, log: Log, now: Time) -> bool {
        let state = self.state();
        let held = state.held.get(&log);
        held.is_some_and(|held| !held.doubt.is_over(now) || !held.refusal.is_over(now))
    }

    /// The most records of a batch of the log.
    pub(crate) fn records(&self, log: Log, most: usize) -> usize {
        let records = self.state().held.get(&log).and_then(|held| held.records);
        records.map_or(most, |records| records.min(most))
    }

    /// Whether another record is sent in place of this one, because the receiver refuses it.
    pub(crate) fn is_replaced(&self, log: Log, record: &StreamRecord) -> bool {
        let state = self.state();
        let alone = state.held.get(&log).and_then(|held| held.alone.as_ref());
        alone.is_some_and(|alone| alone.id == record.id && alone.is_replaced())
    }

    /// A batch of the log was acknowledged, so the receiver is there: what it has not acknowledged before, of other logs, it refuses.
    pub(crate) fn acknowledged(&self, log: Log, records: &[StreamRecord], (now, jitter): (Time, u8)) {
        let mut state = self.state();
        state.pause = Retry::default();
        state.in_a_row.clear();
        state.doubted.remove(&log);
        for (doubted, alone) in std::mem::take(&mut state.doubted) {
            state.settle(doubted, alone, (now, jitter));
        }
        state.free(log);
        for record in records {
            *state.sent.entry(record.kind.as_str()).or_default() += 1;
        }
    }

    /// A batch was not acknowledged. Returns the pause, of everything or of the log; none when a smaller batch is tried next.
    pub(crate) fn failed_with(
        &self,
        error: &SinkError,
        (log, records): (Log, &[StreamRecord]),
        at: (Time, u8),
    ) -> Duration {
        let mut state = self.state();
        let reason = match error {
            SinkError::Unavailable { .. } => "unavailable",
            SinkError::Unacknowledged(_) => "unacknowledged",
            SinkError::Refused(_) => "refused",
            SinkError::TooLarge => "too_large",
        };
        *state.failed.entry(reason).or_default() += 1;
        let alone = match records {
            [one] => Some(one.id.clone()),
            _ => None,
        };
        match (error, alone) {
            (SinkError::Unavailable { retry_after, .. }, _) => state.pause(*retry_after, at),
            (SinkError::Unacknowledged(_), alone) => {
                state.halve(log, records.len());
                state.doubt(log, alone, at)
            }
            (_, Some(alone)) => state.refuse(log, (alone, REFUSALS), at),
            (_, None) => {
                state.halve(log, records.len());
                Duration::zero()
            }
        }
    }

    pub(crate) fn after(&self) -> Option<TenantId> {
        self.state().after
    }

    pub(crate) fn set_after(&self, after: Option<TenantId>) {
        self.state().after = after;
    }

    /// A batch of the tenant is sent.
    pub(crate) fn try_tenant(&self, tenant: TenantId) {
        self.state().tried = Some(tenant);
    }

    /// The next round begins behind the tenant whose batch was sent last, so that those behind it have their turn.
    pub(crate) fn go_on_behind_tried(&self) {
        let mut state = self.state();
        if let Some(tried) = state.tried.take() {
            state.after = Some(tried);
        }
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

impl State {
    /// Pauses everything.
    fn pause(&mut self, retry_after: Option<std::time::Duration>, (now, jitter): (Time, u8)) -> Duration {
        let asked = retry_after.map(|asked| Duration::from_std(asked).unwrap_or(LONGEST_RETRY_AFTER));
        let asked = asked.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let pause = self.pause.fail(now, PAUSE, jitter).max(asked);
        self.pause.until = Some(now + pause);
        pause
    }

    /// The log waits alone until another one is acknowledged. Everything pauses when several fail in a row.
    fn doubt(&mut self, log: Log, alone: Option<String>, (now, jitter): (Time, u8)) -> Duration {
        let pause = self.held.entry(log).or_default().doubt.fail(now, PAUSE, jitter);
        self.doubted.insert(log, alone);
        self.in_a_row.insert(log);
        if self.in_a_row.len() < LOGS_IN_A_ROW {
            return pause;
        }
        self.in_a_row.clear();
        self.pause(None, (now, jitter))
    }

    /// The receiver is there and has not acknowledged records of this log: it refuses them.
    fn settle(&mut self, log: Log, alone: Option<String>, (now, jitter): (Time, u8)) {
        self.held.entry(log).or_default().doubt = Retry::default();
        match alone {
            Some(alone) => {
                self.refuse(log, (alone, SILENT_REFUSALS), (now, jitter));
            }
            // The next batch is smaller, and comes soon: that is how the record is found that is the reason.
            None => {
                let until = Some(now + Duration::seconds(HOLD.0));
                self.held.entry(log).or_default().refusal.until = until;
            }
        }
    }

    /// A record was refused alone.
    fn refuse(&mut self, log: Log, (id, most): (String, u32), (now, jitter): (Time, u8)) -> Duration {
        let held = self.held.entry(log).or_default();
        let known = held.alone.as_ref().filter(|alone| alone.id == id);
        let refusals = known.map_or(0, |alone| alone.refusals) + 1;
        held.alone = Some(Alone { id, refusals, most });
        held.records = Some(1);
        held.refusal.fail(now, HOLD, jitter)
    }

    /// The next batch of the log has half as many records.
    fn halve(&mut self, log: Log, records: usize) {
        self.held.entry(log).or_default().records = Some((records / 2).max(1));
    }

    /// A batch of the log was taken, so the next one may be larger again.
    fn free(&mut self, log: Log) {
        let Some(held) = self.held.get_mut(&log) else {
            return;
        };
        let records = held.records.map(|records| records.saturating_mul(2));
        *held = Held {
            records,
            ..Held::default()
        };
        if records.is_none_or(|records| records > LARGE) {
            self.held.remove(&log);
        }
    }
}

/// A log whose batches were as large as this has no limit any more.
const LARGE: usize = 1_000;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tenantry_domain::audit::{RecordKind, Risk};
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

    fn silent() -> SinkError {
        SinkError::Unacknowledged("403".into())
    }

    fn refused() -> SinkError {
        SinkError::Refused("400".into())
    }

    fn log(number: u128) -> Log {
        Some(Uuid::from_u128(number).into())
    }

    /// So many records of a log, from its first on.
    fn records(count: usize) -> Vec<StreamRecord> {
        let record = |number: usize| {
            StreamRecord::new(
                number.to_string(),
                RecordKind::Event,
                (at(0), Risk::Low),
                json!({}),
            )
        };
        (0..count).map(record).collect()
    }

    #[test]
    fn pause_doubles_up_to_a_minute_and_ends_with_a_success() {
        let (state, one) = (AuditStreamState::default(), records(1));
        let failed = |error: SinkError, jitter| state.failed_with(&error, (None, &one), (at(0), jitter));
        let pauses: Vec<i64> = (0..9).map(|_| failed(away(None), 0).num_seconds()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(state.is_paused(at(59)) && !state.is_paused(at(60)));
        state.acknowledged(None, &one, (at(0), 0));
        assert!(!state.is_paused(at(0)));
        let jittered = failed(away(None), 255);
        assert!(jittered > Duration::milliseconds(500) && jittered < Duration::seconds(1));
        assert_eq!(failed(away(Some(30)), 0).num_seconds(), 30);
        assert_eq!(failed(away(Some(86_400)), 0), LONGEST_RETRY_AFTER);
    }

    #[test]
    fn refused_tenant_waits_alone() {
        let (state, one) = (AuditStreamState::default(), records(1));
        let hold = state.failed_with(&refused(), (log(1), &one), (at(0), 0));
        assert_eq!(hold.num_seconds(), 5);
        assert!(state.is_held(log(1), at(4)) && !state.is_held(log(1), at(5)));
        for other in [log(2), None] {
            assert!(!state.is_held(other, at(0)));
        }
        assert!(!state.is_paused(at(0)));
        assert_eq!((state.held_tenants(at(4)), state.held_tenants(at(100))), (1, 0));
        state.acknowledged(log(1), &one, (at(0), 0));
        assert!(!state.is_held(log(1), at(0)));
        assert_eq!(state.held_tenants(at(0)), 0);
    }

    #[test]
    fn batch_that_is_refused_or_too_large_is_halved() {
        for error in [SinkError::TooLarge, refused()] {
            let state = AuditStreamState::default();
            let mut count = state.records(log(1), 500);
            while count > 1 {
                let pause = state.failed_with(&error, (log(1), &records(count)), (at(0), 0));
                assert_eq!(pause, Duration::zero());
                count = state.records(log(1), 500);
            }
            assert!(!state.is_held(log(1), at(0)));
            let alone = state.failed_with(&error, (log(1), &records(1)), (at(0), 0));
            assert_eq!(alone.num_seconds(), 5);
            for _ in 0..12 {
                state.acknowledged(log(1), &records(1), (at(0), 0));
            }
            assert_eq!(state.records(log(1), 500), 500);
            assert_eq!(state.failed().values().sum::<u64>(), 9);
        }
    }

    /// Whether the receiver is away or rejects a log shows with another log.
    #[test]
    fn unacknowledged_log_is_held_when_another_is_acknowledged() {
        let state = AuditStreamState::default();
        for number in [1, 2] {
            let pause = state.failed_with(&silent(), (log(number), &records(500)), (at(0), 0));
            assert_eq!(pause.num_seconds(), 1);
        }
        assert!(!state.is_paused(at(0)) && state.is_held(log(1), at(0)) && !state.is_held(log(3), at(0)));
        assert_eq!(state.held_tenants(at(0)), 0, "it is in doubt");
        assert_eq!(state.records(log(1), 500), 250);
        state.acknowledged(log(3), &records(1), (at(0), 0));
        assert_eq!(state.held_tenants(at(0)), 2);
        assert!(state.is_held(log(1), at(4)) && !state.is_held(log(1), at(5)));
        // Its own success settles the doubt as well.
        state.failed_with(&silent(), (log(1), &records(250)), (at(5), 0));
        state.acknowledged(log(1), &records(125), (at(6), 0));
        assert!(!state.is_held(log(1), at(6)));
    }

    /// A sole log cannot make everything pause: one that begins later is tried at once.
    #[test]
    fn everything_pauses_after_four_logs_in_a_row() {
        let state = AuditStreamState::default();
        for second in 0..20 {
            state.failed_with(&silent(), (log(1), &records(1)), (at(second * 100), 0));
            assert!(!state.is_paused(at(second * 100)));
        }
        let fail = |number| state.failed_with(&silent(), (log(number), &records(1)), (at(2_000), 0));
        for number in [2, 3] {
            fail(number);
            assert!(!state.is_paused(at(2_000)));
        }
        fail(4);
        assert!(state.is_paused(at(2_000)) && !state.is_paused(at(2_001)));
        // After the pause, four again.
        for number in [5, 6, 7] {
            fail(number);
        }
        assert!(!state.is_paused(at(2_001)));
        assert_eq!(fail(8).num_seconds(), 2);
    }

    #[test]
    fn record_that_is_refused_alone_is_replaced_in_the_end() {
        let (state, poisoned) = (AuditStreamState::default(), records(1));
        let is_replaced = || state.is_replaced(log(1), &poisoned[0]);
        let mut second = 0;
        for _ in 0..5 {
            assert!(!is_replaced());
            let hold = state.failed_with(&refused(), (log(1), &poisoned), (at(second), 0));
            second += hold.num_seconds();
        }
        assert!(is_replaced() && second == 5 + 10 + 20 + 40 + 80);
        assert!(!state.is_replaced(log(2), &poisoned[0]));
        // A receiver that refuses everything of the log refuses what is in its place, and gets the record itself next.
        state.failed_with(&refused(), (log(1), &poisoned), (at(second), 0));
        assert!(!is_replaced());
        state.failed_with(&refused(), (log(1), &poisoned), (at(second), 0));
        assert!(is_replaced());
        state.acknowledged(log(1), &poisoned, (at(second), 0));
        assert!(!is_replaced());
        assert_eq!(state.records(log(1), 500), 2);
    }

    #[test]
    fn record_that_is_never_acknowledged_is_replaced_later() {
        let (state, poisoned) = (AuditStreamState::default(), records(1));
        for round in 0..8 {
            assert!(!state.is_replaced(log(1), &poisoned[0]), "{round}");
            state.failed_with(&silent(), (log(1), &poisoned), (at(round * 1_000), 0));
            state.acknowledged(log(2), &records(1), (at(round * 1_000), 0));
        }
        assert!(state.is_replaced(log(1), &poisoned[0]));
    }

    #[test]
    fn round_after_a_pause_goes_on_behind_the_last_tenant() {
        let state = AuditStreamState::default();
        state.go_on_behind_tried();
        assert_eq!(state.after(), None);
        state.try_tenant(Uuid::from_u128(7).into());
        state.go_on_behind_tried();
        assert_eq!(state.after(), log(7));
    }
}
