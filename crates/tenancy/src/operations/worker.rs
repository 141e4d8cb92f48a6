//! Runs jobs: leases them, enters each one's own tenant, and stores what came of it there.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tenantry_domain::kernel::{IdSource, LeaseId, StoreError, SystemJobId, SystemScope, TenantId, Time};
use tenantry_domain::operations::{
    Backoff, Claim, InvalidTransition, Job, JobQueue, JobState, NewJob, Progress, SystemJob, SystemJobs,
};
use tenantry_domain::tenant::{Capability, Denied, JobLease, TenantScope};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::Instrument as _;

use crate::operations::job::{Handlers, JobFailure};
use crate::{Cx, Origin, Tenancy};

/// The queues that a worker takes jobs from.
#[derive(Clone)]
pub struct Queues {
    /// Tenants' jobs.
    pub jobs: Arc<dyn JobQueue>,
    /// The system's own.
    pub system_jobs: Arc<dyn SystemJobs>,
}

/// How a worker works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// How often it looks for jobs.
    pub poll: Duration,
    /// How many jobs it runs at once.
    pub at_once: u32,
    /// How many jobs of one tenant run at once, with those of other workers.
    pub per_tenant: u32,
    /// After how long without a sign of life its jobs are taken over by others.
    pub lease: Duration,
    /// How long running jobs may take to finish when it is told to stop.
    pub grace: Duration,
    /// How long a failed job waits.
    pub backoff: Backoff,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            at_once: 8,
            per_tenant: 4,
            lease: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            backoff: Backoff::default(),
        }
    }
}

/// A job that was run, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Whose it was; `None` for one of the system's own.
    pub tenant: Option<TenantId>,
    /// Which handler it was for.
    pub kind: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of running a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It failed and is tried again later.
    Retried,
    /// It failed and is given up.
    Dead,
    /// It waits until its tenant may write again, or is restored.
    Parked,
    /// It is no longer this worker's, or the store failed: whoever has the lease, or gets it when it has run out,
    /// decides.
    Lost,
}

impl Outcome {
    /// Its name in measurements.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retried => "retried",
            Self::Dead => "dead",
            Self::Parked => "parked",
            Self::Lost => "lost",
        }
    }
}

/// How many jobs a worker has leased, and what came of them, by kind.
#[derive(Debug, Default)]
pub struct JobTally(Mutex<BTreeMap<(String, &'static str), u64>>);

impl JobTally {
    fn count(&self, kind: &str, what: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((kind.to_owned(), what)).or_default() += 1;
    }

    /// Kind, what became of it (`claimed` or the name of an [`Outcome`]), and how many.
    pub fn counts(&self) -> Vec<(String, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|((kind, what), count)| (kind.clone(), *what, *count))
            .collect()
    }
}

/// Takes jobs from the queue and runs them.
pub struct Worker {
    app: Arc<Tenancy>,
    queues: Queues,
    handlers: Handlers,
    config: WorkerConfig,
    name: String,
    tally: Arc<JobTally>,
    /// The last period of each schedule that was taken care of.
    scheduled: Mutex<HashMap<String, i64>>,
    /// When the clock of the database was last read, by that of this server, and by how much it is ahead.
    ahead: Mutex<Option<(Time, chrono::Duration)>>,
}

/// For so long by the clock of this server that of the database is not read again.
const CLOCKS_KEPT: chrono::Duration = chrono::Duration::minutes(1);

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("handlers", &self.handlers)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker, under a name of its own.
    pub fn new(app: Arc<Tenancy>, queues: Queues, handlers: Handlers, config: WorkerConfig) -> Self {
        let name = format!("worker-{}", app.ports.ids.uuid());
        Self {
            app,
            queues,
            handlers,
            config,
            name,
            tally: Arc::default(),
            scheduled: Mutex::default(),
            ahead: Mutex::default(),
        }
    }

    /// What it has done so far.
    pub fn tally(&self) -> Arc<JobTally> {
        Arc::clone(&self.tally)
    }

    /// Leases one batch and runs it, one job after the other.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be leased; what goes wrong with a job is its outcome.
    pub async fn run_once(&self) -> Result<Vec<Ran>, StoreError> {
        self.schedule().await?;
        let mut ran = Vec::new();
        let places = self.places(&Running::default());
        for held in self.claim(self.config.at_once, places).await? {
            ran.push(self.perform(&held).await);
        }
        Ok(ran)
    }

    /// Runs jobs until it is told to stop: then it leases no more, lets those that run finish for a while, and gives
    /// the rest back to the queue.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut running = Running::default();
        let mut beat = interval((self.config.lease / 3).max(Duration::from_millis(1)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_at = Instant::now();
        loop {
            let free = self.config.at_once.saturating_sub(running.count());
            // A full house is not asked for each single place that becomes free.
            if free > 0 && (Instant::now() >= look_at || running.count() <= self.config.at_once / 2) {
                let full = self.fill(&mut running, free).await;
                look_at = Instant::now() + self.config.poll;
                if full {
                    look_at = Instant::now();
                }
            }
            tokio::select! {
                // Whoever is told to stop begins nothing more, also when a job ends in the same moment.
                biased;
                () = &mut shutdown => break,
                _ = beat.tick() => self.extend(&mut running).await,
                () = running.next(), if running.count() > 0 => {}
                () = sleep_until(look_at), if running.count() < self.config.at_once => {}
            }
        }
        let deadline = Instant::now() + self.config.grace;
        while running.count() > 0 {
            tokio::select! {
                () = running.next() => {}
                _ = beat.tick() => self.extend(&mut running).await,
                () = sleep_until(deadline) => break,
            }
        }
        self.release(running.stop().await).await;
    }

    /// Leases jobs and starts them; whether there were as many as asked for.
    async fn fill(self: &Arc<Self>, running: &mut Running, free: u32) -> bool {
        let claimed = match self.schedule().await {
            Ok(()) => self.claim(free, self.places(running)).await,
            Err(error) => Err(error),
        };
        let claimed = claimed.unwrap_or_else(|error| {
            tracing::warn!(%error, "jobs cannot be leased, trying again");
            Vec::new()
        });
        let full = claimed.len() >= free as usize;
        for held in claimed {
            let worker = Arc::clone(self);
            let job = held.clone();
            running.start(held, async move {
                worker.perform(&job).await;
            });
        }
        full
    }

    /// Puts each job that is due in this period into the queue, unless the one of an earlier period has not begun. Its key is the
    /// period, so that it is there once however many workers do this. Periods are counted by the clock of the database: a server whose clock is fast would
    /// use up those of the others.
    async fn schedule(&self) -> Result<(), StoreError> {
        let mut schedules = self.handlers.schedules().peekable();
        if schedules.peek().is_none() {
            return Ok(());
        }
        let time = self.database_time().await?;
        for schedule in schedules {
            let new = schedule.job?;
            // Workers compare when a job is due with their own clocks.
            let now = time.min(self.now());
            let period = time.timestamp() / schedule.every.num_seconds().max(1);
            if self.period_of(&new.kind) == Some(period) {
                continue;
            }
            let kind = new.kind.clone();
            let new = NewJob {
                dedupe_key: Some(period.to_string()),
                ..new
            };
            let job = SystemJob::new(SystemJobId::next(self.ids()), new, now);
            let job = job.map_err(|invalid| StoreError::Other(format!("{kind}: {invalid:?}")))?;
            let because = SystemScope::because("enqueue a job that is due");
            self.queues.system_jobs.enqueue_due(because, &job).await?;
            self.scheduled
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(kind, period);
        }
        Ok(())
    }

    async fn database_time(&self) -> Result<Time, StoreError> {
        let now = self.now();
        let kept = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, ahead)) = kept
            && (now - read_at).abs() < CLOCKS_KEPT
        {
            return Ok(now + ahead);
        }
        let because = SystemScope::because("count the periods of schedules");
        let time = self.queues.system_jobs.time(because).await?;
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, time - now));
        Ok(time)
    }

    fn period_of(&self, kind: &str) -> Option<i64> {
        let scheduled = self.scheduled.lock().unwrap_or_else(PoisonError::into_inner);
        scheduled.get(kind).copied()
    }

    /// The kinds of tenants' jobs that this worker runs, with the places that are left of each. A kind with a maximum of its own may
    /// not take all places of the worker.
    fn places(&self, running: &Running) -> BTreeMap<String, u32> {
        let most = self.config.at_once.saturating_sub(1).max(1);
        let left = |(kind, at_once): (&str, Option<u32>)| {
            let left = at_once.map(|at_once| at_once.min(most).saturating_sub(running.count_of(kind)));
            (kind.to_owned(), left.unwrap_or(self.config.at_once))
        };
        self.handlers.kinds().map(left).collect()
    }

    async fn claim(&self, limit: u32, places: BTreeMap<String, u32>) -> Result<Vec<Held>, StoreError> {
        let because = SystemScope::because("lease jobs");
        let mut claim = Claim {
            lease: LeaseId::next(self.ids()),
            worker: self.name.clone(),
            ttl: span(self.config.lease),
            now: self.now(),
            limit,
            per_tenant: self.config.per_tenant,
            places: self.handlers.system_places(),
        };
        let system = self.queues.system_jobs.claim(because, &claim).await?;
        let mut held: Vec<Held> = system
            .into_iter()
            .map(|job| Held::System(Box::new(job), claim.lease))
            .collect();
        claim.places = places;
        claim.limit = limit.saturating_sub(u32::try_from(held.len()).unwrap_or(u32::MAX));
        if claim.limit > 0 {
            match self.queues.jobs.claim(because, &claim).await {
                Ok(leases) => held.extend(leases.into_iter().map(Held::Tenant)),
                Err(error) if held.is_empty() => return Err(error),
                Err(error) => tracing::warn!(%error, "jobs cannot be leased, trying again"),
            }
        }
        for held in &held {
            self.tally.count(held.kind(), "claimed");
        }
        Ok(held)
    }

    /// Extends the leases of what is running, and stops what is no longer this worker's. While the store cannot be
    /// reached nothing is known, so everything goes on.
    async fn extend(&self, running: &mut Running) {
        let because = SystemScope::because("keep the leases of running jobs");
        let ttl = span(self.config.lease);
        let leases = running.leases();
        if !leases.is_empty() {
            match self.queues.jobs.extend(because, &leases, ttl).await {
                Ok(kept) => running.abort_unless(|held| match held {
                    Held::Tenant(lease) => kept.contains(&lease.job),
                    Held::System(..) => true,
                }),
                Err(error) => tracing::warn!(%error, "leases cannot be extended"),
            }
        }
        for (id, lease) in running.system_leases() {
            match self.queues.system_jobs.extend(because, id, lease, ttl).await {
                Ok(true) => {}
                Ok(false) => {
                    running.abort_unless(|held| !matches!(held, Held::System(job, _) if job.id == id));
                }
                Err(error) => tracing::warn!(%error, "leases cannot be extended"),
            }
        }
    }

    /// Gives jobs back that were stopped; where that fails, their leases run out.
    async fn release(&self, held: Vec<Held>) {
        let because = SystemScope::because("give back jobs at a shutdown");
        let mut leases = Vec::new();
        for held in held {
            match held {
                Held::Tenant(lease) => leases.push(lease),
                Held::System(mut job, lease) => {
                    let was = (JobState::Running, Some(lease));
                    if job.progress.release(lease).is_ok()
                        && let Err(error) = self.queues.system_jobs.update(because, &job, was).await
                    {
                        tracing::warn!(%error, "a job cannot be given back, its lease will run out");
                    }
                }
            }
        }
        if leases.is_empty() {
            return;
        }
        match self.queues.jobs.release(because, &leases).await {
            Ok(released) => tracing::info!(released, "jobs that had not finished are back in the queue"),
            Err(error) => tracing::warn!(%error, "jobs cannot be given back, their leases will run out"),
        }
    }

    async fn perform(&self, held: &Held) -> Ran {
        let (tenant, kind, done) = match held {
            Held::Tenant(lease) => (Some(lease.tenant), lease.kind.clone(), self.run_job(lease).await),
            Held::System(job, lease) => (None, job.kind.clone(), self.run_system_job(job, *lease).await),
        };
        let outcome = done.unwrap_or_else(|error| {
            tracing::warn!(%kind, %error, "what came of a job is not known, its lease will run out");
            Outcome::Lost
        });
        self.tally.count(&kind, outcome.as_str());
        Ran {
            tenant,
            kind,
            outcome,
        }
    }

    /// Enters the job's tenant, runs the job there, and stores there what came of it.
    async fn run_job(&self, lease: &JobLease) -> Result<Outcome, StoreError> {
        let because = SystemScope::because("run a job that was leased");
        let scope = match self.enter(lease, because).await {
            Ok(scope) => scope,
            Err(Denied::LeaseLost) => return Ok(Outcome::Lost),
            Err(Denied::TenantGone) => {
                let parked = self.queues.jobs.park_of_deleted(because, lease).await?;
                return Ok(if parked { Outcome::Parked } else { Outcome::Lost });
            }
            Err(Denied::Store(error)) => return Err(error),
            Err(
                denied @ (Denied::Token(_)
                | Denied::Revoked
                | Denied::ApiKey(_)
                | Denied::Address
                | Denied::TenantNotFound),
            ) => {
                return Err(StoreError::Other(denied.to_string()));
            }
        };
        let cx = Cx::new(Arc::clone(&self.app), scope, Origin::default());
        let job = cx.read(async |work| work.jobs().find(lease.job).await).await?;
        let Some(job) = job else { return Ok(Outcome::Lost) };
        let span = tracing::info_span!(
            "job",
            kind = %job.kind,
            job = %job.id,
            tenant = %lease.tenant,
            request_id = job.initiator.request.as_str(),
            trace_parent = job.trace_parent.as_deref(),
        );
        if let Some(trace_parent) = &job.trace_parent {
            self.app.ports.traces.adopt(&span, trace_parent);
        }
        let end = self.attempt(&cx, &job).instrument(span).await;
        let settled = &end;
        cx.write(async |work| {
            let Some(mut job) = work.jobs().find_for_update(lease.job).await? else {
                return Ok(Outcome::Lost);
            };
            let Ok(outcome) = self.settle(&mut job.progress, lease.lease, settled) else {
                return Ok(Outcome::Lost);
            };
            work.jobs().update(&job).await?;
            Ok::<_, StoreError>(outcome)
        })
        .await
        .inspect(|outcome| report(*outcome, &job.kind, Some(lease.tenant), &end))
    }

    async fn enter(&self, lease: &JobLease, because: SystemScope) -> Result<TenantScope, Denied> {
        let gate = &self.app.ports.gate;
        match self.handlers.of(&lease.kind) {
            Some(handler) if handler.after_deletion() => gate.farewell(lease, because).await,
            Some(_) | None => gate.job(lease, because).await,
        }
    }

    async fn attempt(&self, cx: &Cx, job: &Job) -> Result<(), JobFailure> {
        let handler = self.handlers.of(&job.kind);
        let handler = ready(&job.progress, &job.kind, handler)?;
        if handler.writes() && !cx.scope().allows(Capability::Write) {
            return Err(JobFailure::Suspended);
        }
        let payload = job.payload.clone();
        caught(async { handler.run(cx, job.schema_version, payload).await }).await
    }

    async fn run_system_job(&self, job: &SystemJob, lease: LeaseId) -> Result<Outcome, StoreError> {
        let because = SystemScope::because("run a job of the system's own");
        let span = tracing::info_span!("system_job", kind = %job.kind, job = %job.id);
        let end = self.attempt_system(job, because).instrument(span).await;
        let mut settled = job.clone();
        let Ok(outcome) = self.settle(&mut settled.progress, lease, &end) else {
            return Ok(Outcome::Lost);
        };
        let was = (JobState::Running, Some(lease));
        let stored = self.queues.system_jobs.update(because, &settled, was).await?;
        let outcome = if stored { outcome } else { Outcome::Lost };
        report(outcome, &job.kind, None, &end);
        Ok(outcome)
    }

    async fn attempt_system(&self, job: &SystemJob, because: SystemScope) -> Result<(), JobFailure> {
        let handler = self.handlers.of_system(&job.kind);
        let handler = ready(&job.progress, &job.kind, handler)?;
        let payload = job.payload.clone();
        let end = caught(async { handler.run(&self.app, because, job.schema_version, payload).await }).await;
        end.map_err(|failure| match failure {
            // There is no tenant to wait for.
            JobFailure::Suspended => JobFailure::Retry(failure.to_string()),
            other => other,
        })
    }

    /// The step that follows from how the attempt ended.
    fn settle(
        &self,
        progress: &mut Progress,
        lease: LeaseId,
        end: &Result<(), JobFailure>,
    ) -> Result<Outcome, InvalidTransition> {
        let now = self.now();
        match end {
            Ok(()) => progress.complete(lease, now).map(|()| Outcome::Done),
            Err(JobFailure::Suspended) => progress.park(lease).map(|()| Outcome::Parked),
            Err(failure) if failure.is_permanent() => progress
                .bury(lease, &failure.to_string(), now)
                .map(|()| Outcome::Dead),
            Err(failure) => {
                let delay = self.config.backoff.delay(progress.attempts, self.ids().random());
                progress.fail(lease, &failure.to_string(), delay, now)?;
                Ok(match progress.state {
                    JobState::Dead => Outcome::Dead,
                    _ => Outcome::Retried,
                })
            }
        }
    }

    fn now(&self) -> Time {
        self.app.ports.clock.now()
    }

    fn ids(&self) -> &dyn IdSource {
        self.app.ports.ids.as_ref()
    }
}

/// A duration of the settings; what is too long for the other type is cut to its longest.
fn span(duration: Duration) -> chrono::Duration {
    chrono::Duration::from_std(duration).unwrap_or(chrono::Duration::MAX)
}

/// A job that this worker has leased.
#[derive(Debug, Clone)]
enum Held {
    Tenant(JobLease),
    System(Box<SystemJob>, LeaseId),
}

impl Held {
    fn kind(&self) -> &str {
        match self {
            Self::Tenant(lease) => &lease.kind,
            Self::System(job, _) => &job.kind,
        }
    }
}

/// The jobs that are running, each in a task of its own.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    held: HashMap<Id, (Held, AbortHandle)>,
}

impl Running {
    fn count(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    fn count_of(&self, kind: &str) -> u32 {
        let of_kind = self.held.values().filter(|(held, _)| held.kind() == kind);
        u32::try_from(of_kind.count()).unwrap_or(u32::MAX)
    }

    fn start(&mut self, held: Held, work: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(work);
        self.held.insert(handle.id(), (held, handle));
    }

    /// Waits until one ends.
    async fn next(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return,
        };
        self.held.remove(&id);
    }

    /// Stops all, and gives back what they had.
    async fn stop(mut self) -> Vec<Held> {
        self.tasks.shutdown().await;
        self.held.into_values().map(|(held, _)| held).collect()
    }

    fn abort_unless(&self, keep: impl Fn(&Held) -> bool) {
        let lost = self.held.values().filter(|(held, _)| !keep(held));
        lost.for_each(|(_, handle)| handle.abort());
    }

    fn leases(&self) -> Vec<JobLease> {
        let tenants = self.held.values().filter_map(|(held, _)| match held {
            Held::Tenant(lease) => Some(lease.clone()),
            Held::System(..) => None,
        });
        tenants.collect()
    }

    fn system_leases(&self) -> Vec<(SystemJobId, LeaseId)> {
        let system = self.held.values().filter_map(|(held, _)| match held {
            Held::Tenant(_) => None,
            Held::System(job, lease) => Some((job.id, *lease)),
        });
        system.collect()
    }
}

/// The handler, unless there is none or the job has cost too many workers their lives.
fn ready<H>(progress: &Progress, kind: &str, handler: Option<H>) -> Result<H, JobFailure> {
    if progress.is_exhausted() {
        let attempts = progress.max_attempts;
        let problem = format!("none of {attempts} attempts came to an end: each time its worker was lost");
        return Err(JobFailure::Permanent(problem));
    }
    // A worker claims the kinds that it has handlers for; a queue that leases another one anyway has it back.
    handler.ok_or_else(|| {
        JobFailure::Retry(format!(
            "no handler is known on this server for the kind '{kind}'"
        ))
    })
}

/// What a handler answers; a panic is a failure like others.
async fn caught(work: impl Future<Output = Result<(), JobFailure>>) -> Result<(), JobFailure> {
    let mut work = pin!(work);
    std::future::poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                let problem = format!("the handler panicked: {}", text.unwrap_or("without a word"));
                Poll::Ready(Err(JobFailure::Retry(problem)))
            }
        },
    )
    .await
}

fn report(outcome: Outcome, kind: &str, tenant: Option<TenantId>, end: &Result<(), JobFailure>) {
    let tenant = tenant.map(tracing::field::display);
    let problem = end.as_ref().err().map(tracing::field::display);
    match outcome {
        Outcome::Dead => tracing::error!(kind, tenant, problem, "a job was given up"),
        Outcome::Retried => tracing::warn!(kind, tenant, problem, "a job failed and is tried again"),
        Outcome::Lost => tracing::warn!(kind, tenant, "a job was taken over or cancelled while it ran"),
        Outcome::Done | Outcome::Parked => {
            tracing::debug!(kind, tenant, ?outcome, "a job ended");
        }
    }
}
