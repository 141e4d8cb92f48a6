use async_trait::async_trait;
use chrono::Duration;
use serde_json::Value;

use crate::kernel::{Invalid, LeaseId, StoreError, SystemJobId, SystemScope, Time};
use crate::operations::{Claim, Enqueued, JobState, NewJob, Progress};

/// Work of the system's own, across tenants. Another type than [`Job`](crate::operations::Job) in another table, so that the one
/// cannot be taken for the other: it has no tenant, and its handler gets no scope of one.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemJob {
    /// Identifies the job across the platform.
    pub id: SystemJobId,
    /// Which handler does it.
    pub kind: String,
    /// In which form the payload is.
    pub schema_version: i32,
    /// What the handler needs to know.
    pub payload: Value,
    /// No two jobs of a kind ever have the same key: a job that is due once a day has the day for its key.
    pub dedupe_key: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// When it was asked for.
    pub created_at: Time,
}

impl SystemJob {
    /// A job that waits to be run.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(id: SystemJobId, new: NewJob, now: Time) -> Result<Self, Invalid> {
        new.check()?;
        Ok(Self {
            id,
            progress: Progress::queued(new.run_at.unwrap_or(now), new.max_attempts),
            kind: new.kind,
            schema_version: new.schema_version,
            payload: new.payload,
            dedupe_key: new.dedupe_key,
            created_at: now,
        })
    }
}

/// The system's own jobs. Every call carries its reason.
#[async_trait]
pub trait SystemJobs: Send + Sync {
    /// The time by which the periods of schedules are counted: that of the database, on which all servers agree.
    async fn time(&self, because: SystemScope) -> Result<Time, StoreError>;

    /// Puts a job into the queue.
    async fn enqueue(&self, because: SystemScope, job: &SystemJob) -> Result<Enqueued, StoreError>;

    /// Puts a job of a schedule into the queue, unless one of its kind that has not begun waits there: that one does what this one would.
    /// So the queue of a kind stays short while a job of it runs for longer than its period.
    async fn enqueue_due(&self, because: SystemScope, job: &SystemJob) -> Result<Enqueued, StoreError>;

    /// The newest jobs, at most `limit`.
    async fn list(
        &self,
        because: SystemScope,
        state: Option<JobState>,
        limit: u32,
    ) -> Result<Vec<SystemJob>, StoreError>;

    /// A job.
    async fn find(&self, because: SystemScope, id: SystemJobId) -> Result<Option<SystemJob>, StoreError>;

    /// Leases jobs that are free, the oldest first. Of a kind with one place no two jobs run at once, on whatever servers.
    async fn claim(&self, because: SystemScope, claim: &Claim) -> Result<Vec<SystemJob>, StoreError>;

    /// Extends the lease of a job by `ttl` from now, by the clock of the database; whether it still stands.
    async fn extend(
        &self,
        because: SystemScope,
        id: SystemJobId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<bool, StoreError>;

    /// Deletes what was done or cancelled before a moment, and says how many. What was given up stays until somebody has
    /// looked at it.
    async fn delete_finished(&self, because: SystemScope, before: Time) -> Result<u64, StoreError>;

    /// Stores how far a job is, unless it is no longer where it was: in that state and under that lease.
    async fn update(
        &self,
        because: SystemScope,
        job: &SystemJob,
        was: (JobState, Option<LeaseId>),
    ) -> Result<bool, StoreError>;
}
