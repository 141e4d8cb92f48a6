//! What users and API keys read, and how often they are refused, counted in memory.
//!
//! No request waits for it. What passes a step within an hour becomes an entry of the audit log, which the security rules count:
//! 10, 20, 50, 100 and so on refusals, and 10,000, 20,000, 50,000 and so on KiB. When the hour is over, the rest becomes another entry
//! where a step was passed, and is counted on where none was. A killed process loses what it has counted since the last entry.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::audit::AuditEvent;
use tenantry_domain::kernel::{Permission, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::tenant::TenantScope;
use uuid::Uuid;

use crate::audit::about_erased;
use crate::kernel::slices::Slices;
use crate::kernel::steps::{passes_step, step_of};
use crate::{Cx, Origin, Tenancy};

/// For how long is counted.
const WINDOW: Duration = Duration::hours(1);

/// The first steps that are recorded.
const FIRST_READ: u64 = 10_000;
const FIRST_REFUSED: u64 = 10;

/// So many locks, so that threads seldom wait for one another.
const SHARDS: usize = 16;

/// The most users and API keys of a shard. Others are not counted until there is room.
const OF_SHARD: usize = 5_000;

/// The most entries that wait to be recorded.
const WAITING: usize = 10_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Read,
    Refused,
}

/// What users and API keys have done within the hour.
#[derive(Debug)]
pub struct Activity {
    hasher: RandomState,
    shards: [Mutex<HashMap<Who, [Counter; 2]>>; SHARDS],
    passed: Mutex<VecDeque<Passed>>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            passed: Mutex::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Who {
    tenant: TenantId,
    kind: &'static str,
    id: Uuid,
}

#[derive(Debug, Clone, Default)]
struct Counter {
    first: Time,
    last: Time,
    count: u64,
    /// How much of it entries have.
    recorded: u64,
    /// What no entry has yet.
    slices: Slices,
}

/// A step that was passed.
#[derive(Debug, Clone)]
struct Passed {
    who: Who,
    what: What,
    counter: Counter,
    ip: Option<String>,
}

impl Tenancy {
    /// Returns what users and API keys have done within the hour.
    pub fn activity(&self) -> Arc<Activity> {
        self.state()
    }
}

impl Activity {
    /// Counts an answer to a request that read: at least 1 KiB.
    pub fn note_read(&self, scope: &TenantScope, origin: &Origin, bytes: u64, now: Time) {
        self.note((scope, origin), What::Read, bytes.div_ceil(1_024).max(1), now);
    }

    /// Counts a request for what the caller may not see or do, or for what does not exist.
    pub fn note_refused(&self, scope: &TenantScope, origin: &Origin, now: Time) {
        self.note((scope, origin), What::Refused, 1, now);
    }

    /// Returns how many entries wait to be recorded.
    pub fn waiting(&self) -> usize {
        lock(&self.passed).len()
    }

    fn note(&self, (scope, origin): (&TenantScope, &Origin), what: What, amount: u64, now: Time) {
        let Some(who) = Who::of(scope) else { return };
        let shard = self.hasher.hash_one(who) as usize % SHARDS;
        let mut counted = lock(&self.shards[shard]);
        if counted.len() >= OF_SHARD && !counted.contains_key(&who) {
            counted.retain(|_, counters| counters.iter().any(|counter| now - counter.last < WINDOW));
            if counted.len() >= OF_SHARD {
                return;
            }
        }
        let counter = &mut counted.entry(who).or_default()[what as usize];
        let ended = counter.turn(now);
        let passed = counter.add(amount, what.first_step(), now);
        drop(counted);
        for counter in [ended, passed].into_iter().flatten() {
            let ip = origin.ip.clone();
            self.wait(Passed {
                who,
                what,
                counter,
                ip,
            });
        }
    }

    fn wait(&self, passed: Passed) {
        let mut waiting = lock(&self.passed);
        if waiting.len() < WAITING {
            waiting.push_back(passed);
        }
    }

    /// Ends the hours that are over, and drops the users and API keys that have done nothing since.
    fn turn_all(&self, now: Time) {
        for shard in &self.shards {
            let mut ended = Vec::new();
            lock(shard).retain(|who, counters| {
                for what in [What::Read, What::Refused] {
                    let counter = counters[what as usize].turn(now);
                    ended.extend(counter.map(|counter| (*who, what, counter)));
                }
                counters.iter().any(|counter| counter.count > 0)
            });
            for (who, what, counter) in ended {
                let ip = None;
                self.wait(Passed {
                    who,
                    what,
                    counter,
                    ip,
                });
            }
        }
    }

    /// Records the steps that were passed. What cannot be recorded now is kept; what belongs to a tenant that is gone is dropped.
    pub async fn flush(&self, app: &Arc<Tenancy>) -> usize {
        self.turn_all(app.ports.clock.now());
        let mut stored = 0;
        for _ in 0..self.waiting() {
            let Some(passed) = lock(&self.passed).pop_front() else {
                break;
            };
            match record(app, &passed).await {
                Ok(()) => stored += 1,
                Err(error) => {
                    tracing::warn!(%error, "activity could not be recorded, it is kept");
                    lock(&self.passed).push_back(passed);
                }
            }
        }
        stored
    }
}

impl Who {
    /// The user with a session, or the API key.
    fn of(scope: &TenantScope) -> Option<Self> {
        let (kind, id) = match scope.api_key() {
            Some(key) => ("api_key", key.uuid()),
            None => ("user", scope.user()?.uuid()),
        };
        let tenant = scope.tenant();
        Some(Self { tenant, kind, id })
    }
}

impl What {
    const fn first_step(self) -> u64 {
        match self {
            Self::Read => FIRST_READ,
            Self::Refused => FIRST_REFUSED,
        }
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Read => "security.mass_reading",
            Self::Refused => "security.permission_probing",
        }
    }
}

impl Counter {
    /// Begins another hour when one is over. Returns the counter to record when entries have a part of it only. What is below the
    /// first step and younger than an hour is counted on.
    fn turn(&mut self, now: Time) -> Option<Self> {
        if self.count == 0 || now - self.first < WINDOW {
            return None;
        }
        if self.recorded > 0 {
            let ended = std::mem::take(self);
            return (ended.count > ended.recorded).then_some(ended);
        }
        self.slices.drop_before(now - WINDOW);
        self.count = self.slices.total();
        self.first = self.slices.first().unwrap_or(now);
        None
    }

    /// Adds an amount. Returns the counter to record when it passes a step with that.
    fn add(&mut self, amount: u64, first_step: u64, now: Time) -> Option<Self> {
        if self.count == 0 {
            self.first = now;
        }
        let before = self.count;
        self.count = before.saturating_add(amount);
        self.last = now;
        self.slices.add(amount, now);
        if !passes_step(before, self.count, first_step) {
            return None;
        }
        let passed = self.clone();
        self.recorded = self.count;
        self.slices = Slices::default();
        Some(passed)
    }

    fn details(&self, what: What) -> Value {
        let unit = match what {
            What::Read => "KiB",
            What::Refused => "answers",
        };
        json!({
            "unit": unit,
            "repeated": {
                "count": self.count, "since_last": self.count - self.recorded,
                "first_at": self.first, "last_at": self.last, "slices": self.slices.json(self.first),
            },
            "step": step_of(self.count, what.first_step()),
        })
    }
}

async fn record(app: &Arc<Tenancy>, passed: &Passed) -> Result<(), StoreError> {
    let because = SystemScope::because("unusual activity is recorded");
    let Some(cx) = Cx::enter(app, because, passed.who.tenant).await? else {
        return Ok(());
    };
    cx.require(Permission::RaiseAlerts)
        .map_err(|refused| StoreError::Other(refused.to_string()))?;
    let cx = cx.with_origin(Origin {
        ip: passed.ip.clone(),
        user_agent: None,
    });
    cx.write(async |work| {
        let details = passed.counter.details(passed.what);
        let event = cx.security(
            passed.what.action(),
            passed.who.kind,
            Some(passed.who.id),
            details,
        );
        let is_gone = match passed.who.kind {
            "api_key" => work.api_keys().find(passed.who.id.into()).await?.is_none(),
            _ => false,
        };
        let event = match is_gone {
            // The key went with its user.
            true => AuditEvent { ip: None, ..event },
            false => event,
        };
        about_erased::record(&cx, work, event).await
    })
    .await
}

/// Counters are changed by code that does not panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap() + Duration::minutes(minutes)
    }

    fn since_last(counter: &Counter) -> u64 {
        counter.details(What::Refused)["repeated"]["since_last"]
            .as_u64()
            .unwrap()
    }

    #[test]
    fn steps_within_an_hour_are_recorded_with_what_is_new() {
        let mut counter = Counter::default();
        let passed: Vec<_> = (0..25)
            .filter_map(|_| counter.add(1, FIRST_REFUSED, at(1)))
            .collect();
        let counts: Vec<_> = passed.iter().map(|one| (one.count, one.recorded)).collect();
        assert_eq!(counts, [(10, 0), (20, 10)]);
        assert!(counter.turn(at(60)).is_none());
        assert!(counter.add(1, FIRST_REFUSED, at(60)).is_none());
        let ended = counter.turn(at(61)).expect("the rest of the hour");
        assert_eq!((ended.count, since_last(&ended)), (26, 6));
        let slices = &ended.details(What::Refused)["repeated"]["slices"];
        assert_eq!(*slices, json!([[0, 0, 5], [3_540, 3_540, 1]]));
        assert!(counter.add(1, FIRST_REFUSED, at(61)).is_none());
        assert_eq!(counter.count, 1, "another hour");
        let passed = counter.add(1_000, FIRST_REFUSED, at(62)).unwrap();
        assert_eq!((passed.count, passed.recorded), (1_001, 0));
    }

    /// Nine in the last minute of an hour and one in the first of the next are ten.
    #[test]
    fn turn_of_the_hour_loses_nothing() {
        let mut counter = Counter::default();
        assert!((0..9).all(|_| counter.add(1, FIRST_REFUSED, at(59)).is_none()));
        counter.first = at(0);
        assert!(counter.turn(at(61)).is_none());
        assert_eq!((counter.count, counter.first), (9, at(59)));
        let passed = counter.add(1, FIRST_REFUSED, at(61)).expect("it is the tenth");
        assert_eq!(since_last(&passed), 10);
        // Nothing is left of it when it is over, and a counter without a step is dropped.
        assert!(counter.turn(at(200)).is_none());
        assert_eq!(counter.count, 0);
    }
}
