use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::Duration;
use serde_json::Value;

use crate::kernel::name::named_enum;
use crate::kernel::{Check, Invalid, JobId, LeaseId, Page, PageRequest, StoreError, SystemScope, Time};
use crate::tenant::{Initiator, JobLease, TenantScope};

/// Work of one tenant that is done later, by whichever worker comes to it.
///
/// It is stored in the transaction of the change that asked for it, and runs in a scope of its own tenant, which
/// [`Gate::job`](crate::tenant::Gate::job) makes of the worker's lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Identifies the job within the tenant.
    pub id: JobId,
    /// Which handler does it, for example `tenant.purge`.
    pub kind: String,
    /// In which form the payload is.
    pub schema_version: i32,
    /// What the handler needs to know.
    pub payload: Value,
    /// No two open jobs of a kind have the same key.
    pub dedupe_key: Option<String>,
    /// The W3C `traceparent` of whoever asked for it.
    pub trace_parent: Option<String>,
    /// Who asked for it.
    pub initiator: Initiator,
    /// How far it is.
    pub progress: Progress,
    /// When it was asked for.
    pub created_at: Time,
}

/// The fields of a job that its creator decides.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// See [`Job::kind`]: 1 to 64 characters of `a-z 0-9 . _`.
    pub kind: String,
    /// See [`Job::schema_version`]; at least 1.
    pub schema_version: i32,
    /// See [`Job::payload`].
    pub payload: Value,
    /// Not before then; `None` is at once.
    pub run_at: Option<Time>,
    /// See [`Job::dedupe_key`]; up to 200 characters.
    pub dedupe_key: Option<String>,
    /// After how many failures it is given up; 1 to 100.
    pub max_attempts: u32,
    /// See [`Job::trace_parent`].
    pub trace_parent: Option<String>,
}

impl NewJob {
    /// How often a job is tried unless it says otherwise: with the usual backoff, for about half an hour.
    pub const MAX_ATTEMPTS: u32 = 10;

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::new();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_');
        if !(1..=64).contains(&self.kind.len()) || !self.kind.chars().all(fits) {
            check.fail(
                "/kind",
                "format",
                "must be 1 to 64 characters of a-z, 0-9, '.' and '_'",
            );
        }
        if self.schema_version < 1 {
            check.fail("/schema_version", "range", "must be at least 1");
        }
        if self
            .dedupe_key
            .as_ref()
            .is_some_and(|key| !(1..=200).contains(&key.chars().count()))
        {
            check.fail("/dedupe_key", "length", "must be 1 to 200 characters");
        }
        if !(1..=100).contains(&self.max_attempts) {
            check.fail("/max_attempts", "range", "must be in 1..=100");
        }
        check.verdict()
    }
}

impl Job {
    /// A job that waits to be run, asked for by whoever has the scope.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(id: JobId, scope: &TenantScope, new: NewJob, now: Time) -> Result<Self, Invalid> {
        new.check()?;
        Ok(Self {
            id,
            progress: Progress::queued(new.run_at.unwrap_or(now), new.max_attempts),
            kind: new.kind,
            schema_version: new.schema_version,
            payload: new.payload,
            dedupe_key: new.dedupe_key,
            trace_parent: new.trace_parent,
            initiator: initiator(scope),
            created_at: now,
        })
    }
}

fn initiator(scope: &TenantScope) -> Initiator {
    Initiator {
        actor_type: scope.actor().as_str().to_owned(),
        actor_id: scope.actor().user(),
        request: scope.request().clone(),
    }
}

named_enum! {
    /// Where a job is in its life.
    pub enum JobState {
        /// It waits for its time and for a worker.
        Queued = "queued",
        /// A worker has leased it.
        Running = "running",
        /// It waits until its tenant may write again.
        Parked = "parked",
        /// It was done.
        Done = "done",
        /// It was given up; an operator may replay it.
        Dead = "dead",
        /// Nobody wants it any more.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// Whether something is still to come of it.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Parked => true,
            Self::Done | Self::Dead | Self::Cancelled => false,
        }
    }
}

/// A worker's right to run a job, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Different for each time that a job is leased, so that a former holder cannot pass for the present one.
    pub id: LeaseId,
    /// Who holds it.
    pub worker: String,
    /// When it expires, by the clock of the database.
    pub until: Time,
}

/// Why the state of a job cannot change so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTransition {
    /// Another worker holds the lease by now, or no one.
    #[error("the lease of the job has been lost")]
    LeaseLost,
    /// No such transition leads from the present state of the job.
    #[error("the job is {}", .0.as_str())]
    From(JobState),
}

/// How far a job is: the state machine that tenants' jobs and the system's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub state: JobState,
    /// Not before then.
    pub run_at: Time,
    /// How often it was begun, not counting the times that were no fault of its own.
    pub attempts: u32,
    /// How often it may be.
    pub max_attempts: u32,
    /// Whose it is, while it runs.
    pub lease: Option<Lease>,
    /// What went wrong the last time, at most [`Progress::ERROR_CHARS`] characters.
    pub last_error: Option<String>,
    /// When it came to its end.
    pub finished_at: Option<Time>,
}

impl Progress {
    /// How much of an error is kept.
    pub const ERROR_CHARS: usize = 2_000;

    /// The beginning.
    pub const fn queued(run_at: Time, max_attempts: u32) -> Self {
        Self {
            state: JobState::Queued,
            run_at,
            attempts: 0,
            max_attempts,
            lease: None,
            last_error: None,
            finished_at: None,
        }
    }

    /// Whether a worker may lease it: it is due, or whoever had it let the lease run out. A parked one may be
    /// leased by whoever knows that its tenant is no longer suspended.
    pub fn is_free(&self, now: Time) -> bool {
        match self.state {
            JobState::Queued => self.run_at <= now,
            JobState::Parked => true,
            JobState::Running => self.lease.as_ref().is_none_or(|lease| lease.until <= now),
            JobState::Done | JobState::Dead | JobState::Cancelled => false,
        }
    }

    /// A worker leases it, which is an attempt.
    ///
    /// # Errors
    /// [`InvalidTransition::From`] when it is not free.
    pub fn claim(&mut self, lease: Lease, now: Time) -> Result<(), InvalidTransition> {
        if !self.is_free(now) {
            return Err(InvalidTransition::From(self.state));
        }
        self.state = JobState::Running;
        self.attempts += 1;
        self.lease = Some(lease);
        Ok(())
    }

    /// Whether its workers died on it as often as it may be tried: then it is not tried again.
    pub const fn is_exhausted(&self) -> bool {
        self.attempts > self.max_attempts
    }

    /// It was done.
    ///
    /// A lease that ran out is still good as long as nobody else has taken the job over: the work is done, and
    /// doing it again would help nobody.
    ///
    /// # Errors
    /// [`InvalidTransition::LeaseLost`].
    pub fn complete(&mut self, lease: LeaseId, now: Time) -> Result<(), InvalidTransition> {
        self.held(lease)?;
        self.last_error = None;
        self.finish(JobState::Done, now);
        Ok(())
    }

    /// It failed: it is tried again after the delay, or given up when it has been tried often enough.
    ///
    /// # Errors
    /// [`InvalidTransition::LeaseLost`].
    pub fn fail(
        &mut self,
        lease: LeaseId,
        error: &str,
        delay: Duration,
        now: Time,
    ) -> Result<(), InvalidTransition> {
        if self.attempts >= self.max_attempts {
            return self.bury(lease, error, now);
        }
        self.held(lease)?;
        self.note(error);
        self.wait(JobState::Queued);
        self.run_at = now.checked_add_signed(delay).unwrap_or(now);
        Ok(())
    }

    /// It failed in a way that trying again does not mend.
    ///
    /// # Errors
    /// [`InvalidTransition::LeaseLost`].
    pub fn bury(&mut self, lease: LeaseId, error: &str, now: Time) -> Result<(), InvalidTransition> {
        self.held(lease)?;
        self.note(error);
        self.finish(JobState::Dead, now);
        Ok(())
    }

    /// Its tenant may not write: it waits, and this was no attempt.
    ///
    /// # Errors
    /// [`InvalidTransition::LeaseLost`].
    pub fn park(&mut self, lease: LeaseId) -> Result<(), InvalidTransition> {
        self.give_back(lease, JobState::Parked)
    }

    /// Its worker stops before the job is done: another may have it at once, and this was no attempt.
    ///
    /// # Errors
    /// [`InvalidTransition::LeaseLost`].
    pub fn release(&mut self, lease: LeaseId) -> Result<(), InvalidTransition> {
        self.give_back(lease, JobState::Queued)
    }

    /// Nobody wants it any more. A worker that has it learns so when it wants to store what came of it.
    ///
    /// # Errors
    /// [`InvalidTransition::From`] when it has come to its end already.
    pub fn cancel(&mut self, now: Time) -> Result<(), InvalidTransition> {
        if !self.state.is_open() {
            return Err(InvalidTransition::From(self.state));
        }
        self.finish(JobState::Cancelled, now);
        Ok(())
    }

    /// It was given up or cancelled, and begins anew.
    ///
    /// # Errors
    /// [`InvalidTransition::From`] when it is neither dead nor cancelled.
    pub fn replay(&mut self, now: Time) -> Result<(), InvalidTransition> {
        match self.state {
            JobState::Dead | JobState::Cancelled => {
                *self = Self {
                    last_error: self.last_error.take(),
                    ..Self::queued(now, self.max_attempts)
                };
                Ok(())
            }
            JobState::Queued | JobState::Running | JobState::Parked | JobState::Done => {
                Err(InvalidTransition::From(self.state))
            }
        }
    }

    fn held(&self, lease: LeaseId) -> Result<(), InvalidTransition> {
        let holds = |held: &Lease| self.state == JobState::Running && held.id == lease;
        self.lease
            .as_ref()
            .filter(|held| holds(held))
            .map(|_| ())
            .ok_or(InvalidTransition::LeaseLost)
    }

    fn give_back(&mut self, lease: LeaseId, state: JobState) -> Result<(), InvalidTransition> {
        self.held(lease)?;
        self.attempts = self.attempts.saturating_sub(1);
        self.wait(state);
        Ok(())
    }

    fn wait(&mut self, state: JobState) {
        self.state = state;
        self.lease = None;
    }

    fn finish(&mut self, state: JobState, now: Time) {
        self.wait(state);
        self.finished_at = Some(now);
    }

    fn note(&mut self, error: &str) {
        // PostgreSQL's text cannot hold NUL, and an error that cannot be stored would fail the job for ever.
        let kept = error.chars().filter(|c| *c != '\0').take(Self::ERROR_CHARS);
        self.last_error = Some(kept.collect());
    }
}

/// How long a job waits after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure.
    pub base: Duration,
    /// The longest wait at all.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::seconds(5),
            cap: Duration::minutes(15),
        }
    }
}

impl Backoff {
    /// The longest wait after so many failures: `min(cap, base · 2^(failures - 1))`.
    pub fn longest(&self, failures: u32) -> Duration {
        let factor = 1_i32
            .checked_shl(failures.saturating_sub(1))
            .filter(|factor| *factor > 0);
        let grown = factor.and_then(|factor| self.base.checked_mul(factor));
        grown.map_or(self.cap, |grown| grown.min(self.cap))
    }

    /// The wait after so many failures: a random share of the longest one ("full jitter"), so that jobs that failed
    /// together do not come back together. `random` is spread evenly over all of `u32`.
    pub fn delay(&self, failures: u32, random: u32) -> Duration {
        let longest = i128::from(self.longest(failures).num_milliseconds().max(0));
        let share = longest * i128::from(random) / i128::from(u32::MAX);
        Duration::milliseconds(i64::try_from(share).unwrap_or(i64::MAX))
    }
}

/// What became of putting a job into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is there now.
    Added,
    /// One with the same kind and key is there already; this one was left out.
    Duplicate,
}

/// Which jobs of a tenant to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those in this state.
    pub state: Option<JobState>,
}

/// Jobs of the scope's tenant.
#[async_trait]
pub trait Jobs: Send {
    /// Puts a job into the queue with the running transaction: when that is rolled back there is no job.
    async fn enqueue(&mut self, job: &Job) -> Result<Enqueued, StoreError>;
    /// A page of jobs, newest first.
    async fn list(&mut self, filter: JobFilter, page: PageRequest) -> Result<Page<Job>, StoreError>;
    /// A job.
    async fn find(&mut self, id: JobId) -> Result<Option<Job>, StoreError>;
    /// The job of a kind with this deduplication key that is open.
    async fn find_open(&mut self, kind: &str, dedupe_key: &str) -> Result<Option<Job>, StoreError>;
    /// The number of open jobs of a kind that have a deduplication key; no more than `most` are counted.
    async fn count_open(&mut self, kind: &str, most: u64) -> Result<u64, StoreError>;
    /// A job, locked until the transaction ends.
    async fn find_for_update(&mut self, id: JobId) -> Result<Option<Job>, StoreError>;
    /// Stores how far a job is.
    async fn update(&mut self, job: &Job) -> Result<(), StoreError>;
    /// Deletes those of a kind that were done or cancelled before then; how many there were.
    async fn delete_finished_of(&mut self, kind: &str, before: Time) -> Result<u64, StoreError>;
    /// Deletes those that were done or cancelled before then; how many there were.
    async fn delete_finished(&mut self, before: Time) -> Result<u64, StoreError>;
}

/// What a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The id of the lease. A job is leased once in a claim, so one id is enough for all of them.
    pub lease: LeaseId,
    /// The worker that holds the lease.
    pub worker: String,
    /// How long the lease lasts. When it begins and when it expires is decided by the clock of the database alone, so that a
    /// worker whose clock is ahead takes no job from another.
    pub ttl: Duration,
    /// The present time by the worker's clock, by which jobs are due.
    pub now: Time,
    /// At most so many jobs.
    pub limit: u32,
    /// At most so many of one tenant, with those that are running.
    pub per_tenant: u32,
    /// The kinds that the worker has handlers for, each with the places that are left of it. A job of another kind, or of a kind
    /// without a place, stays in the queue and loses no attempt. Of the system's own jobs one place stands for all servers:
    /// no other worker runs the kind meanwhile.
    pub places: BTreeMap<String, u32>,
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCensus {
    /// Waiting to be run, now or later.
    pub queued: u64,
    /// Leased to a worker.
    pub running: u64,
    /// Waiting for their tenant to be resumed.
    pub parked: u64,
    /// Given up.
    pub dead: u64,
    /// When the one that waits longest was, or is, to be run.
    pub oldest_queued: Option<Time>,
}

/// The queue across tenants: who may have which job, and never what is in it. Every call carries its reason.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Leases jobs that are free, fairly: first the oldest of each tenant, then the second of each, and so on, where
    /// those that are running already have had their turn. No tenant gets more than its share.
    async fn claim(&self, because: SystemScope, claim: &Claim) -> Result<Vec<JobLease>, StoreError>;

    /// Extends leases by `ttl` from now, by the clock of the database; returns the jobs whose lease still stands. The others
    /// have been taken over or cancelled.
    async fn extend(
        &self,
        because: SystemScope,
        leases: &[JobLease],
        ttl: Duration,
    ) -> Result<Vec<JobId>, StoreError>;

    /// Gives jobs back that were not done, without that having been an attempt; how many still were the holder's.
    async fn release(&self, because: SystemScope, leases: &[JobLease]) -> Result<u64, StoreError>;

    /// How many jobs there are in each state, of tenants and of the system's own.
    async fn census(&self, because: SystemScope) -> Result<JobCensus, StoreError>;

    /// Parks a leased job whose tenant is deleted, until the tenant is restored; whether it was.
    async fn park_of_deleted(&self, because: SystemScope, lease: &JobLease) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Time {
        chrono::Utc.timestamp_opt(1_700_000_000 + seconds, 0).unwrap()
    }

    fn lease(number: u128, until: i64) -> Lease {
        Lease {
            id: Uuid::from_u128(number).into(),
            worker: format!("worker {number}"),
            until: at(until),
        }
    }

    fn lease_id(number: u128) -> LeaseId {
        Uuid::from_u128(number).into()
    }

    #[test]
    fn a_job_is_leased_when_it_is_due_and_done_once() {
        let mut job = Progress::queued(at(10), 3);
        assert_eq!(
            job.claim(lease(1, 60), at(9)),
            Err(InvalidTransition::From(JobState::Queued))
        );
        job.claim(lease(1, 60), at(10)).unwrap();
        assert_eq!(
            job.claim(lease(2, 90), at(59)),
            Err(InvalidTransition::From(JobState::Running))
        );
        assert_eq!(
            job.complete(lease_id(2), at(20)),
            Err(InvalidTransition::LeaseLost)
        );
        job.complete(lease_id(1), at(20)).unwrap();
        assert_eq!((job.state, job.finished_at), (JobState::Done, Some(at(20))));
        assert_eq!(
            job.complete(lease_id(1), at(21)),
            Err(InvalidTransition::LeaseLost)
        );
        assert_eq!(job.cancel(at(22)), Err(InvalidTransition::From(JobState::Done)));
        assert_eq!(job.replay(at(22)), Err(InvalidTransition::From(JobState::Done)));
    }

    #[test]
    fn a_lease_that_ran_out_is_good_until_somebody_else_has_the_job() {
        let mut job = Progress::queued(at(0), 3);
        job.claim(lease(1, 60), at(0)).unwrap();
        let mut late = job.clone();
        late.complete(lease_id(1), at(100)).unwrap();
        job.claim(lease(2, 160), at(60)).unwrap();
        assert_eq!(job.attempts, 2);
        let taken_over = job.clone();
        assert_eq!(
            job.complete(lease_id(1), at(100)),
            Err(InvalidTransition::LeaseLost)
        );
        assert_eq!(
            job.fail(lease_id(1), "late", Duration::zero(), at(100)),
            Err(InvalidTransition::LeaseLost)
        );
        assert_eq!(
            job.bury(lease_id(1), "late", at(100)),
            Err(InvalidTransition::LeaseLost)
        );
        assert_eq!(job.park(lease_id(1)), Err(InvalidTransition::LeaseLost));
        assert_eq!(job.release(lease_id(1)), Err(InvalidTransition::LeaseLost));
        assert_eq!(job, taken_over);
    }

    #[test]
    fn parking_and_giving_back_are_no_attempts() {
        let mut job = Progress::queued(at(0), 1);
        for _ in 0..5 {
            job.claim(lease(1, 60), at(0)).unwrap();
            job.park(lease_id(1)).unwrap();
            assert_eq!((job.state, job.attempts), (JobState::Parked, 0));
            job.claim(lease(2, 60), at(0)).unwrap();
            job.release(lease_id(2)).unwrap();
            assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
        }
    }

    #[test]
    fn the_last_failure_is_the_end_until_it_is_replayed() {
        let mut job = Progress::queued(at(0), 2);
        job.claim(lease(1, 60), at(0)).unwrap();
        job.fail(lease_id(1), "no\0 moon", Duration::seconds(30), at(1))
            .unwrap();
        assert_eq!((job.state, job.run_at), (JobState::Queued, at(31)));
        assert_eq!(
            job.last_error.as_deref(),
            Some("no moon"),
            "without what cannot be stored"
        );
        job.claim(lease(2, 99), at(31)).unwrap();
        job.fail(lease_id(2), &"x".repeat(5_000), Duration::zero(), at(32))
            .unwrap();
        assert_eq!((job.state, job.finished_at), (JobState::Dead, Some(at(32))));
        assert_eq!(
            job.last_error.as_ref().map(String::len),
            Some(Progress::ERROR_CHARS)
        );
        job.replay(at(50)).unwrap();
        assert_eq!(
            (job.state, job.attempts, job.finished_at),
            (JobState::Queued, 0, None)
        );
        assert!(job.is_free(at(50)) && job.last_error.is_some());
    }

    #[test]
    fn a_new_job_says_all_that_is_wrong_with_it() {
        let new = NewJob {
            kind: "Session Purge".into(),
            schema_version: 0,
            payload: Value::Null,
            run_at: None,
            dedupe_key: Some(String::new()),
            max_attempts: 0,
            trace_parent: None,
        };
        let pointers: Vec<_> = new
            .check()
            .unwrap_err()
            .0
            .into_iter()
            .map(|field| field.pointer)
            .collect();
        assert_eq!(
            pointers,
            ["/kind", "/schema_version", "/dedupe_key", "/max_attempts"]
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Claim,
        Complete(u128),
        Fail(u128),
        Bury(u128),
        Park(u128),
        Release(u128),
        Cancel,
        Replay,
        Wait(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let holder = 1_u128..12;
        let step = prop_oneof![
            4 => Just(Step::Claim),
            2 => holder.clone().prop_map(Step::Complete),
            4 => holder.clone().prop_map(Step::Fail),
            1 => holder.clone().prop_map(Step::Bury),
            2 => holder.clone().prop_map(Step::Park),
            2 => holder.prop_map(Step::Release),
            1 => Just(Step::Cancel),
            1 => Just(Step::Replay),
            4 => (0_i64..100).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Whatever happens in whatever order: the checks that the database makes hold, nobody but the holder of the
        /// present lease changes a running job, and what has ended stays as it is until it is replayed.
        #[test]
        fn the_state_machine_keeps_its_promises(steps in steps(), max_attempts in 1_u32..5) {
            let mut job = Progress::queued(at(0), max_attempts);
            let (mut now, mut leases) = (0, 0_u128);
            for step in steps {
                let before = job.clone();
                let holder = before.lease.as_ref().map(|lease| lease.id);
                let done = match step {
                    Step::Claim => {
                        leases += 1;
                        job.claim(lease(leases, now + 30), at(now)).map(|()| None)
                    }
                    Step::Complete(by) => job.complete(lease_id(by), at(now)).map(|()| Some(by)),
                    Step::Fail(by) => job.fail(lease_id(by), "e", Duration::seconds(7), at(now)).map(|()| Some(by)),
                    Step::Bury(by) => job.bury(lease_id(by), "e", at(now)).map(|()| Some(by)),
                    Step::Park(by) => job.park(lease_id(by)).map(|()| Some(by)),
                    Step::Release(by) => job.release(lease_id(by)).map(|()| Some(by)),
                    Step::Cancel => job.cancel(at(now)).map(|()| None),
                    Step::Replay => job.replay(at(now)).map(|()| None),
                    Step::Wait(seconds) => {
                        now += seconds;
                        Ok(None)
                    }
                };
                match done {
                    Ok(Some(by)) => prop_assert_eq!(holder, Some(lease_id(by))),
                    Ok(None) => {}
                    Err(_) => prop_assert_eq!(&job, &before, "a step that is refused changes nothing"),
                }
                prop_assert_eq!(job.state == JobState::Running, job.lease.is_some());
                prop_assert_eq!(job.state.is_open(), job.finished_at.is_none());
                if !before.state.is_open() && job.state.is_open() {
                    prop_assert_eq!(job.attempts, 0, "only a replay brings it back");
                }
                if job.attempts > before.attempts {
                    prop_assert_eq!(job.state, JobState::Running, "nothing but a lease is an attempt");
                }
            }
        }

        #[test]
        fn a_wait_is_at_most_the_doubled_base_and_never_above_the_cap(
            base in 0_i64..1_000_000, cap in 0_i64..10_000_000, failures in 0_u32..200, random: u32,
        ) {
            let backoff = Backoff { base: Duration::milliseconds(base), cap: Duration::milliseconds(cap) };
            let delay = backoff.delay(failures, random);
            let doubled = i128::from(base) << failures.saturating_sub(1).min(60);
            prop_assert!(delay >= Duration::zero());
            prop_assert!(i128::from(delay.num_milliseconds()) <= doubled.min(cap.into()));
            prop_assert_eq!(backoff.delay(failures, 0), Duration::zero());
            prop_assert_eq!(backoff.delay(failures, u32::MAX), backoff.longest(failures));
            prop_assert!(backoff.longest(failures) <= backoff.longest(failures + 1));
        }

        #[test]
        fn a_larger_random_number_is_no_shorter_wait(failures in 1_u32..40, one: u32, two: u32) {
            let backoff = Backoff::default();
            let (less, more) = (one.min(two), one.max(two));
            prop_assert!(backoff.delay(failures, less) <= backoff.delay(failures, more));
        }
    }
}
