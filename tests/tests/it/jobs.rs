//! Background work: a job runs in the scope of its own tenant, once, and whatever happens to its worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tenantry_domain::kernel::{
    Clock as _, JobId, LeaseId, PageRequest, ProjectId, StoreError, SystemJobId, SystemScope, TenantId,
};
use tenantry_domain::operations::{
    Claim, Enqueued, InvalidTransition, Job, JobFilter, JobQueue as _, JobState, NewJob, SystemJob,
    SystemJobs as _,
};
use tenantry_domain::tenant::{Actor, Denied, JobLease, TenantStatus};
use tenantry_domain::work::NewProject;
use tenantry_persistence::{PgJobQueue, PgSystemJobs, Pool, PoolConfig};
use tenantry_tenancy::admin::operator_job::{JobStep, OperatorJobError, OperatorJobReason};
use tenantry_tenancy::operations::job;
use tenantry_tenancy::operations::job::{
    Handlers, JobError, JobFailure, JobHandler, SystemJobHandler, Terms,
};
use tenantry_tenancy::operations::worker::{Outcome, Queues, Worker, WorkerConfig};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tenancy::tenant::purge::{Purge, PurgeSystemJobs};
use tenantry_tenancy::tenant::upkeep::TendSome;
use tenantry_tenancy::{Cx, Tenancy, Traces};
use tenantry_tests::{ManualClock, Options, TenantWorld, World};
use tokio::sync::{Notify, Semaphore, oneshot};

const BECAUSE: SystemScope = SystemScope::because("a test of jobs");

const TEN: PageRequest = PageRequest {
    limit: 10,
    after: None,
};

fn platform(world: &World) -> Pool {
    let config = PoolConfig {
        size: 2,
        acquire_timeout: Duration::from_secs(10),
        ..PoolConfig::default()
    };
    Pool::new(&world.database.platform_url(), &config).unwrap()
}

pub fn queues(world: &World) -> Queues {
    let platform = platform(world);
    Queues {
        jobs: Arc::new(PgJobQueue::new(platform.clone())),
        system_jobs: Arc::new(PgSystemJobs::new(platform).scheduled_by(world.clock.clone())),
    }
}

fn quick() -> WorkerConfig {
    WorkerConfig {
        poll: Duration::from_millis(10),
        at_once: 100,
        per_tenant: 100,
        ..WorkerConfig::default()
    }
}

pub fn worker(world: &World, handlers: Handlers) -> Worker {
    worker_with(world, handlers, quick())
}

/// The worker of another instance over the world's database.
pub fn worker_of(world: &World, app: &Arc<Tenancy>, handlers: Handlers) -> Worker {
    Worker::new(Arc::clone(app), queues(world), handlers, quick())
}

fn worker_with(world: &World, handlers: Handlers, config: WorkerConfig) -> Worker {
    Worker::new(Arc::clone(&world.app), queues(world), handlers, config)
}

/// Puts a job into a tenant's queue, as its admin.
async fn ask<H: JobHandler>(
    world: &World,
    tenant: &TenantWorld,
    payload: &H::Payload,
    terms: Terms,
) -> Enqueued {
    let cx = world.cx(&tenant.admin).await;
    cx.write(async |work| job::enqueue::<H>(&cx, work, payload, terms).await)
        .await
        .unwrap()
}

async fn jobs(world: &World, tenant: &TenantWorld) -> Vec<Job> {
    job::list(&world.app, tenant.id, JobFilter::default(), 1_000)
        .await
        .unwrap()
}

async fn only_job(world: &World, tenant: &TenantWorld) -> Job {
    let mut all = jobs(world, tenant).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

async fn outcomes(worker: &Worker) -> Vec<Outcome> {
    worker
        .run_once()
        .await
        .unwrap()
        .into_iter()
        .map(|ran| ran.outcome)
        .collect()
}

/// Says in which tenant it ran, as whom, and which of the given projects it could see.
#[derive(Clone, Default)]
struct Look {
    seen: Arc<Mutex<Vec<Seen>>>,
}

struct Seen {
    tenant: TenantId,
    actor: Actor,
    status: TenantStatus,
    projects: Vec<ProjectId>,
}

impl JobHandler for Look {
    const KIND: &'static str = "test.look";
    type Payload = Vec<ProjectId>;

    async fn run(&self, cx: &Cx, payload: Vec<ProjectId>) -> Result<(), JobFailure> {
        let projects = cx
            .write(async |work| {
                let mut found = Vec::new();
                for project in payload {
                    found.extend(work.projects().find(project).await?.map(|project| project.id));
                }
                let event = cx.security("test.looked", "job", None, json!({}));
                work.audit().record(event).await?;
                Ok::<_, StoreError>(found)
            })
            .await?;
        self.seen.lock().unwrap().push(Seen {
            tenant: cx.scope().tenant(),
            actor: cx.scope().actor(),
            status: cx.scope().status(),
            projects,
        });
        Ok(())
    }
}

/// Traces that are always the same one, and what was made a part of which.
#[derive(Debug, Default)]
struct OneTrace {
    adopted: Mutex<Vec<(Option<&'static str>, String)>>,
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

impl Traces for OneTrace {
    fn adopt(&self, span: &tracing::Span, trace_parent: &str) {
        let name = span.metadata().map(tracing::Metadata::name);
        self.adopted.lock().unwrap().push((name, trace_parent.to_owned()));
    }

    fn trace_parent(&self) -> Option<String> {
        Some(TRACE.into())
    }
}

#[actix_web::test]
async fn a_job_goes_on_with_the_trace_of_the_request_that_asked_for_it() {
    let traces = Arc::new(OneTrace::default());
    let world = World::with(Options {
        traces: traces.clone(),
        ..Options::default()
    })
    .await;
    // Spans are made for somebody who listens.
    let _listening = tenantry_tests::listen(tracing_subscriber::registry());
    ask::<Look>(&world, &world.acme, &Vec::new(), Terms::default()).await;
    assert_eq!(
        only_job(&world, &world.acme).await.trace_parent.as_deref(),
        Some(TRACE)
    );
    let worker = worker(&world, Handlers::default().with(Look::default()));
    assert_eq!(outcomes(&worker).await, [Outcome::Done]);
    let adopted = std::mem::take(&mut *traces.adopted.lock().unwrap());
    assert_eq!(adopted, [(Some("job"), TRACE.to_owned())]);

    // What the caller of a job says itself stands, and so does what the caller of a request says.
    let other = TRACE.replace("4bf9", "5ca0");
    let terms = Terms {
        trace_parent: Some(other.clone()),
        ..Terms::default()
    };
    ask::<Look>(&world, &world.globex, &Vec::new(), terms).await;
    assert_eq!(only_job(&world, &world.globex).await.trace_parent, Some(other));
    let request = world.get(&world.acme.viewer, "/api/v1/tasks");
    request.header("traceparent", TRACE).await.expect(200);
    let adopted = std::mem::take(&mut *traces.adopted.lock().unwrap());
    assert_eq!(adopted, [(Some("request"), TRACE.to_owned())]);
}

/// Fails so many times.
#[derive(Clone, Default)]
struct Flaky {
    failures: Arc<AtomicU32>,
}

impl JobHandler for Flaky {
    const KIND: &'static str = "test.flaky";
    const MAX_ATTEMPTS: u32 = 3;
    type Payload = ();

    async fn run(&self, _: &Cx, (): ()) -> Result<(), JobFailure> {
        let left = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_or(Ok(()), |left| Err(JobFailure::Retry(format!("{left} more"))))
    }
}

/// Counts how often each job was run.
#[derive(Clone, Default)]
struct Count {
    runs: Arc<Mutex<BTreeMap<JobId, u32>>>,
}

impl JobHandler for Count {
    const KIND: &'static str = "test.count";
    type Payload = u32;

    async fn run(&self, cx: &Cx, _: u32) -> Result<(), JobFailure> {
        let Actor::Job { id, .. } = cx.scope().actor() else {
            return Err(JobFailure::Permanent("not run as a job".into()));
        };
        *self.runs.lock().unwrap().entry(id).or_default() += 1;
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Says that it has begun, and ends when it is let go.
#[derive(Clone)]
struct Wait {
    begun: Arc<Notify>,
    go: Arc<Semaphore>,
    dropped: Arc<Notify>,
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            begun: Arc::default(),
            go: Arc::new(Semaphore::new(0)),
            dropped: Arc::default(),
        }
    }
}

impl JobHandler for Wait {
    const KIND: &'static str = "test.wait";
    type Payload = ();

    async fn run(&self, _: &Cx, (): ()) -> Result<(), JobFailure> {
        struct Dropped(Arc<Notify>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let _dropped = Dropped(Arc::clone(&self.dropped));
        self.begun.notify_one();
        self.go.acquire().await.unwrap().forget();
        Ok(())
    }
}

struct Panics;

impl JobHandler for Panics {
    const KIND: &'static str = "test.panics";
    type Payload = ();

    async fn run(&self, _: &Cx, (): ()) -> Result<(), JobFailure> {
        panic!("the moon is not there");
    }
}

/// Reads only, so it also runs in a suspended tenant.
#[derive(Clone, Default)]
struct Reads(Look);

impl JobHandler for Reads {
    const KIND: &'static str = "test.reads";
    const WRITES: bool = false;
    type Payload = Vec<ProjectId>;

    async fn run(&self, cx: &Cx, payload: Vec<ProjectId>) -> Result<(), JobFailure> {
        self.0.run(cx, payload).await
    }
}

#[actix_web::test]
async fn a_job_is_there_only_when_the_change_that_asked_for_it_is() {
    let world = World::new().await;
    let cx = world.cx(&world.acme.admin).await;
    let undone = cx
        .write(async |work| {
            job::enqueue::<Count>(&cx, work, &1, Terms::default()).await?;
            assert_eq!(work.jobs().list(JobFilter::default(), TEN).await?.items.len(), 1);
            Err::<(), _>(JobError::NotFound)
        })
        .await;
    assert!(matches!(undone, Err(JobError::NotFound)));
    assert!(jobs(&world, &world.acme).await.is_empty());
    let count = Count::default();
    let worker = worker(&world, Handlers::default().with(count.clone()));
    assert_eq!(outcomes(&worker).await, []);

    ask::<Count>(&world, &world.acme, &1, Terms::default()).await;
    assert_eq!(outcomes(&worker).await, [Outcome::Done]);
    assert_eq!(count.runs.lock().unwrap().len(), 1);
}

#[actix_web::test]
async fn a_job_runs_in_its_own_tenant_and_says_on_whose_behalf() {
    let world = World::new().await;
    let look = Look::default();
    let worker = worker(&world, Handlers::default().with(look.clone()));
    let both = vec![world.acme.project, world.globex.project];
    let mut asked = Vec::new();
    for tenant in [&world.acme, &world.globex] {
        let cx = world.cx(&tenant.member).await;
        cx.write(async |work| job::enqueue::<Look>(&cx, work, &both, Terms::default()).await)
            .await
            .unwrap();
        asked.push(cx.scope().request().as_str().to_owned());
    }
    assert_eq!(outcomes(&worker).await, [Outcome::Done, Outcome::Done]);
    for (tenant, request) in [&world.acme, &world.globex].into_iter().zip(asked) {
        {
            let seen = look.seen.lock().unwrap();
            let seen: Vec<_> = seen.iter().filter(|seen| seen.tenant == tenant.id).collect();
            assert_eq!(seen.len(), 1);
            assert_eq!(seen[0].projects, [tenant.project]);
            assert_eq!(seen[0].status, TenantStatus::Active);
            assert!(
                matches!(seen[0].actor, Actor::Job { on_behalf_of, .. } if on_behalf_of == Some(tenant.member.id))
            );
        }
        let audit = world.audit(tenant).await;
        let entries: Vec<_> = audit
            .iter()
            .filter(|(action, _)| action == "test.looked")
            .collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].1["actor_type"], "job");
        assert_eq!(entries[0].1["actor_id"], tenant.member.id.to_string());
        assert_eq!(entries[0].1["request_id"], Value::String(request));
        let job = only_job(&world, tenant).await;
        assert_eq!(job.progress.state, JobState::Done);
        assert_eq!(job.initiator.actor_type, "user");
        assert_eq!(job.progress.attempts, 1);
        assert!(job.progress.finished_at.is_some() && job.progress.lease.is_none());
    }
}

#[actix_web::test]
async fn the_job_of_a_suspended_tenant_waits_until_it_may_write() {
    let world = World::new().await;
    let look = Look::default();
    let worker = worker(&world, Handlers::default().with(look.clone()));
    ask::<Look>(&world, &world.acme, &Vec::new(), Terms::default()).await;
    lifecycle::suspend(&world.operator_cx(), world.acme.id, "invoice unpaid")
        .await
        .unwrap();
    assert_eq!(outcomes(&worker).await, [Outcome::Parked]);
    let parked = only_job(&world, &world.acme).await;
    assert_eq!(
        (parked.progress.state, parked.progress.attempts),
        (JobState::Parked, 0)
    );
    for _ in 0..3 {
        world.clock.advance(chrono::Duration::days(1));
        assert_eq!(
            outcomes(&worker).await,
            [],
            "it is not taken up again while nothing has changed"
        );
    }
    assert!(look.seen.lock().unwrap().is_empty());

    lifecycle::resume(&world.operator_cx(), world.acme.id, "invoice paid")
        .await
        .unwrap();
    assert_eq!(outcomes(&worker).await, [Outcome::Done]);
    let done = only_job(&world, &world.acme).await;
    assert_eq!((done.progress.state, done.progress.attempts), (JobState::Done, 1));
}

#[actix_web::test]
async fn a_job_that_only_reads_runs_in_a_suspended_tenant() {
    let world = World::new().await;
    let reads = Reads::default();
    let worker = worker(&world, Handlers::default().with(reads.clone()));
    ask::<Reads>(&world, &world.acme, &Vec::new(), Terms::default()).await;
    lifecycle::suspend(&world.operator_cx(), world.acme.id, "invoice unpaid")
        .await
        .unwrap();
    assert_eq!(outcomes(&worker).await, [Outcome::Done]);
    assert_eq!(reads.0.seen.lock().unwrap()[0].status, TenantStatus::Suspended);
}

#[actix_web::test]
async fn jobs_of_a_deleted_tenant_wait_until_it_is_restored() {
    let world = World::new().await;
    let look = Look::default();
    let worker = worker(&world, Handlers::default().with(look.clone()));
    ask::<Look>(&world, &world.acme, &Vec::new(), Terms::default()).await;
    world.set_status(&world.acme, "deleted").await;
    assert_eq!(outcomes(&worker).await, [Outcome::Parked]);
    let parked = "UPDATE jobs SET id = id WHERE state = 'parked' AND lease_id IS NULL AND attempts = 0";
    assert_eq!(world.sql(parked).await, 1);
    assert!(look.seen.lock().unwrap().is_empty());
    assert_eq!(outcomes(&worker).await, []);
    world.set_status(&world.acme, "active").await;
    assert_eq!(outcomes(&worker).await, [Outcome::Done]);
}

#[actix_web::test]
async fn a_failed_job_is_tried_again_later_and_given_up_in_the_end() {
    let world = World::new().await;
    let flaky = Flaky::default();
    flaky.failures.store(3, Ordering::Relaxed);
    let worker = worker(&world, Handlers::default().with(flaky.clone()));
    let backoff = quick().backoff;
    ask::<Flaky>(&world, &world.acme, &(), Terms::default()).await;
    for attempt in 1..=2 {
        assert_eq!(outcomes(&worker).await, [Outcome::Retried]);
        let job = only_job(&world, &world.acme).await;
        assert_eq!(
            (job.progress.state, job.progress.attempts),
            (JobState::Queued, attempt)
        );
        assert_eq!(job.progress.last_error, Some(format!("{} more", 4 - attempt)));
        let now = tenantry_domain::kernel::Clock::now(world.clock.as_ref());
        assert!(
            job.progress.run_at <= now + backoff.longest(attempt),
            "{:?}",
            job.progress
        );
        // Jitter may be next to nothing, so the queue is asked just before and just after the time.
        let wait = job.progress.run_at - now;
        if wait > chrono::Duration::milliseconds(10) {
            assert_eq!(outcomes(&worker).await, [], "not before its time");
        }
        world.clock.advance(wait.max(chrono::Duration::zero()));
    }
    assert_eq!(outcomes(&worker).await, [Outcome::Dead]);
    let dead = only_job(&world, &world.acme).await;
    assert_eq!((dead.progress.state, dead.progress.attempts), (JobState::Dead, 3));
    world.clock.advance(chrono::Duration::days(1));
    assert_eq!(outcomes(&worker).await, []);

    assert!(
        matches!(
            world
                .step_job(world.globex.id, dead.id.uuid(), JobStep::Replay)
                .await,
            Err(OperatorJobError::NotFound)
        ),
        "another tenant's"
    );
    let replayed = world
        .step_job(world.acme.id, dead.id.uuid(), JobStep::Replay)
        .await
        .unwrap();
    assert_eq!(
        (replayed.progress.state, replayed.progress.attempts),
        (JobState::Queued, 0)
    );
    assert_eq!(outcomes(&worker).await, [Outcome::Done]);
    let wrong = world
        .step_job(world.acme.id, dead.id.uuid(), JobStep::Replay)
        .await;
    assert!(matches!(
        wrong,
        Err(OperatorJobError::Own(OperatorJobReason::InvalidTransition(
            InvalidTransition::From(JobState::Done)
        )))
    ));
    let audit = world.audit(&world.acme).await;
    assert!(
        audit
            .iter()
            .any(|(action, row)| action == "job.replayed" && row["actor_type"] == "system")
    );
}

#[actix_web::test]
async fn a_key_keeps_a_second_open_job_out() {
    let world = World::new().await;
    let worker = worker(&world, Handlers::default().with(Count::default()));
    let keyed = || Terms {
        dedupe_key: Some("nightly".into()),
        ..Terms::default()
    };
    assert_eq!(
        ask::<Count>(&world, &world.acme, &1, keyed()).await,
        Enqueued::Added
    );
    assert_eq!(
        ask::<Count>(&world, &world.acme, &2, keyed()).await,
        Enqueued::Duplicate
    );
    assert_eq!(
        ask::<Count>(&world, &world.globex, &3, keyed()).await,
        Enqueued::Added,
        "a key is a tenant's own"
    );
    // The change beside the duplicate is stored all the same.
    let cx = world.cx(&world.acme.admin).await;
    let data = NewProject {
        name: "Beside".into(),
        description: None,
    };
    let project = tenantry_tenancy::work::project::create(&cx, data).await.unwrap();
    cx.write(async |work| {
        work.projects().add_views(project.id, 5).await?;
        job::enqueue::<Count>(&cx, work, &4, keyed()).await
    })
    .await
    .unwrap();
    assert_eq!(
        world
            .sql("UPDATE projects SET id = id WHERE view_count = 5")
            .await,
        1
    );
    assert_eq!(jobs(&world, &world.acme).await.len(), 1);
    assert_eq!(outcomes(&worker).await, [Outcome::Done, Outcome::Done]);
    assert_eq!(
        ask::<Count>(&world, &world.acme, &5, keyed()).await,
        Enqueued::Added
    );

    // A cancelled job whose key has been taken meanwhile cannot come back beside the other.
    let open = job::list(
        &world.app,
        world.acme.id,
        JobFilter {
            state: Some(JobState::Queued),
        },
        10,
    )
    .await
    .unwrap();
    let cancelled = world
        .step_job(world.acme.id, open[0].id.uuid(), JobStep::Cancel)
        .await
        .unwrap();
    assert_eq!(cancelled.progress.state, JobState::Cancelled);
    assert_eq!(
        ask::<Count>(&world, &world.acme, &6, keyed()).await,
        Enqueued::Added
    );
    let replayed = world.step_job(world.acme.id, cancelled.id, JobStep::Replay).await;
    assert!(
        matches!(replayed, Err(OperatorJobError::Own(OperatorJobReason::KeyTaken))),
        "{replayed:?}"
    );
}

#[actix_web::test]
async fn four_workers_run_each_of_200_jobs_once() {
    let world = World::new().await;
    let count = Count::default();
    for tenant in [&world.acme, &world.globex] {
        let cx = world.cx(&tenant.admin).await;
        cx.write(async |work| {
            for number in 0..100 {
                job::enqueue::<Count>(&cx, work, &number, Terms::default()).await?;
            }
            Ok::<_, JobError>(())
        })
        .await
        .unwrap();
    }
    let work = (0..4).map(|_| {
        let app = world.instance(&Options::default()).app;
        let config = WorkerConfig {
            at_once: 7,
            ..quick()
        };
        let worker = Worker::new(
            app,
            queues(&world),
            Handlers::default().with(count.clone()),
            config,
        );
        async move {
            let mut ran = 0;
            loop {
                let outcomes = outcomes(&worker).await;
                if outcomes.is_empty() {
                    return ran;
                }
                assert!(
                    outcomes.iter().all(|outcome| *outcome == Outcome::Done),
                    "{outcomes:?}"
                );
                ran += outcomes.len();
            }
        }
    });
    let ran = join_all(work).await;
    assert_eq!(ran.iter().sum::<usize>(), 200);
    let took_part = ran.iter().filter(|ran| **ran > 0).count();
    assert!(took_part >= 2, "they worked at the same time: {ran:?}");
    let runs = count.runs.lock().unwrap();
    assert_eq!(runs.len(), 200);
    assert!(runs.values().all(|runs| *runs == 1));
}

#[actix_web::test]
async fn the_job_of_a_stuck_worker_is_taken_over_and_the_late_one_cannot_end_it() {
    let world = World::new().await;
    let wait = Wait::default();
    ask::<Wait>(&world, &world.acme, &(), Terms::default()).await;
    let handlers = || Handlers::default().with(wait.clone());
    let first = worker(&world, handlers());
    let stuck = tokio::spawn(async move { first.run_once().await.unwrap() });
    wait.begun.notified().await;
    let second = worker(&world, handlers());
    assert_eq!(outcomes(&second).await, [], "the lease is current");
    let before = only_job(&world, &world.acme).await.progress.lease.unwrap();

    expire_leases(&world).await;
    let taking_over = tokio::spawn(async move { second.run_once().await.unwrap() });
    wait.begun.notified().await;
    let after = only_job(&world, &world.acme).await;
    assert_eq!(after.progress.attempts, 2);
    assert_ne!(after.progress.lease.as_ref().unwrap().id, before.id);

    // The semaphore is fair: the first in the queue is the stuck one.
    wait.go.add_permits(1);
    assert_eq!(stuck.await.unwrap()[0].outcome, Outcome::Lost);
    assert_eq!(
        only_job(&world, &world.acme).await,
        after,
        "the late one has changed nothing"
    );
    wait.go.add_permits(1);
    assert_eq!(taking_over.await.unwrap()[0].outcome, Outcome::Done);
    assert_eq!(only_job(&world, &world.acme).await.progress.state, JobState::Done);
}

/// Puts a job of the system's own into its queue, of a kind that has no handler.
async fn enqueue_own(world: &World, own: &PgSystemJobs) -> SystemJob {
    let now = tenantry_domain::kernel::Clock::now(world.clock.as_ref());
    let new = NewJob {
        kind: "test.own".into(),
        schema_version: 1,
        payload: json!({}),
        run_at: None,
        dedupe_key: None,
        max_attempts: 3,
        trace_parent: None,
    };
    let job = SystemJob::new(SystemJobId::next(world.app.ports.ids.as_ref()), new, now).unwrap();
    own.enqueue(BECAUSE, &job).await.unwrap();
    job
}

/// A worker whose clock is a day ahead or behind takes no running job from another, and loses none of its own.
#[actix_web::test]
async fn a_wrong_clock_of_a_worker_takes_no_lease() {
    let world = World::new().await;
    ask::<Count>(&world, &world.acme, &1, Terms::default()).await;
    let (queue, own) = (
        PgJobQueue::new(platform(&world)),
        PgSystemJobs::new(platform(&world)),
    );
    let job = enqueue_own(&world, &own).await;
    let now = tenantry_domain::kernel::Clock::now(world.clock.as_ref());
    let at = |days: i64| Claim {
        now: now + chrono::Duration::days(days),
        ..claim(&world, 10, 10)
    };
    let behind = at(0);
    let held = queue.claim(BECAUSE, &behind).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(own.claim(BECAUSE, &behind).await.unwrap().len(), 1);
    for days in [1, 400, -400] {
        assert_eq!(queue.claim(BECAUSE, &at(days)).await.unwrap(), [], "{days}");
        assert_eq!(own.claim(BECAUSE, &at(days)).await.unwrap(), [], "{days}");
    }
    world.clock.advance(chrono::Duration::days(400));
    let lease = &held[0];
    assert!(
        world.app.ports.gate.job(lease, BECAUSE).await.is_ok(),
        "it leads into the tenant"
    );
    let minute = chrono::Duration::minutes(1);
    assert!(own.extend(BECAUSE, job.id, behind.lease, minute).await.unwrap());
    expire_leases(&world).await;
    assert_eq!(queue.claim(BECAUSE, &at(0)).await.unwrap().len(), 1);
    assert_eq!(own.claim(BECAUSE, &at(0)).await.unwrap().len(), 1);
}

#[actix_web::test]
async fn a_job_whose_workers_die_is_given_up() {
    let world = World::new().await;
    ask::<Flaky>(&world, &world.acme, &(), Terms::default()).await;
    let queue = PgJobQueue::new(platform(&world));
    for attempt in 1..=Flaky::MAX_ATTEMPTS {
        assert_eq!(
            queue.claim(BECAUSE, &claim(&world, 10, 10)).await.unwrap().len(),
            1,
            "{attempt}"
        );
        expire_leases(&world).await;
    }
    let worker = worker(&world, Handlers::default().with(Flaky::default()));
    assert_eq!(outcomes(&worker).await, [Outcome::Dead]);
    let dead = only_job(&world, &world.acme).await;
    assert!(dead.progress.last_error.unwrap().contains("worker was lost"));
}

#[actix_web::test]
async fn a_panic_is_a_failure_like_others() {
    let world = World::new().await;
    let worker = worker(&world, Handlers::default().with(Panics).with(Count::default()));
    ask::<Panics>(&world, &world.acme, &(), Terms::default()).await;
    ask::<Count>(&world, &world.acme, &1, Terms::default()).await;
    assert_eq!(outcomes(&worker).await, [Outcome::Retried, Outcome::Done]);
    let jobs = jobs(&world, &world.acme).await;
    let panicked = jobs.iter().find(|job| job.kind == Panics::KIND).unwrap();
    assert_eq!(
        panicked.progress.last_error.as_deref(),
        Some("the handler panicked: the moon is not there")
    );
}

#[actix_web::test]
async fn a_job_that_nobody_understands_is_given_up_with_the_reason() {
    let world = World::new().await;
    for number in [1, 2] {
        ask::<Count>(&world, &world.acme, &number, Terms::default()).await;
    }
    world
        .sql("UPDATE jobs SET payload = '\"text\"' WHERE payload = '1'")
        .await;
    world
        .sql("UPDATE jobs SET schema_version = 7 WHERE payload = '2'")
        .await;
    let worker = worker(&world, Handlers::default().with(Count::default()));
    assert_eq!(outcomes(&worker).await, [Outcome::Dead, Outcome::Dead]);
    let mut errors: Vec<_> = jobs(&world, &world.acme)
        .await
        .into_iter()
        .filter_map(|job| job.progress.last_error)
        .collect();
    errors.sort();
    assert!(
        errors[0].starts_with("the payload cannot be read: invalid type: string"),
        "{}",
        errors[0]
    );
    assert_eq!(
        errors[1],
        "the payload has version 7, this handler knows version 1"
    );
}

/// A server without a part of the configuration, or of an earlier version, takes no job away from the others.
#[actix_web::test]
async fn a_job_waits_for_a_server_that_has_its_handler() {
    let world = World::new().await;
    ask::<Count>(&world, &world.acme, &1, Terms::default()).await;
    let without = worker(&world, Handlers::default());
    assert_eq!(outcomes(&without).await, []);
    let with = worker(&world, Handlers::default().with(Count::default()));
    assert_eq!(outcomes(&with).await, [Outcome::Done]);
}

/// Two services over one database: each does its own kinds, and takes no attempt from a job of the other, nor a place of the tenant.
#[actix_web::test]
async fn worker_claims_only_kinds_that_it_has_handlers_for() {
    let world = World::new().await;
    for tenant in [&world.acme, &world.globex] {
        for _ in 0..6 {
            ask::<Flaky>(&world, tenant, &(), Terms::default()).await;
        }
        ask::<Count>(&world, tenant, &1, Terms::default()).await;
    }
    let counting = worker(&world, Handlers::default().with(Count::default()));
    assert_eq!(outcomes(&counting).await, [Outcome::Done, Outcome::Done]);
    assert_eq!(outcomes(&counting).await, []);
    for tenant in [&world.acme, &world.globex] {
        let jobs = jobs(&world, tenant).await;
        let mut others = jobs.iter().filter(|job| job.kind == Flaky::KIND);
        assert!(others.all(|job| job.progress.attempts == 0 && job.progress.state == JobState::Queued));
    }
    // Nor does it take over a job of the other whose worker is lost.
    let queue = PgJobQueue::new(platform(&world));
    let lost = queue.claim(BECAUSE, &claim(&world, 1, 1)).await.unwrap();
    assert_eq!(lost[0].kind, Flaky::KIND);
    expire_leases(&world).await;
    assert_eq!(outcomes(&counting).await, []);
    let flaky = worker(&world, Handlers::default().with(Flaky::default()));
    assert!(!outcomes(&flaky).await.is_empty());
}

/// Jobs of the system's own of another kind stay in their queue, too.
#[actix_web::test]
async fn worker_leaves_system_jobs_of_other_kinds() {
    let world = World::new().await;
    let own = PgSystemJobs::new(platform(&world));
    let job = enqueue_own(&world, &own).await;
    let without = worker(&world, Handlers::default().with(Count::default()));
    assert_eq!(outcomes(&without).await, []);
    let stays = own.find(BECAUSE, job.id).await.unwrap().unwrap();
    assert_eq!(
        (stays.progress.state, stays.progress.attempts),
        (JobState::Queued, 0)
    );
    assert_eq!(own.claim(BECAUSE, &claim(&world, 10, 10)).await.unwrap().len(), 1);
}

fn claim(world: &World, limit: u32, per_tenant: u32) -> Claim {
    Claim {
        lease: LeaseId::next(world.app.ports.ids.as_ref()),
        worker: "somebody".into(),
        ttl: chrono::Duration::minutes(1),
        now: tenantry_domain::kernel::Clock::now(world.clock.as_ref()),
        limit,
        per_tenant,
        places: [Count::KIND, Flaky::KIND, "test.own"]
            .map(|kind| (kind.to_owned(), limit))
            .into(),
    }
}

/// Leases expire by the clock of the database, which tests do not move.
pub async fn expire_leases(world: &World) {
    let expired = "lease_until = now() - interval '1 second' WHERE state = 'running'";
    world.sql(&format!("UPDATE jobs SET {expired}")).await;
    world.sql(&format!("UPDATE system_jobs SET {expired}")).await;
}

fn shares(world: &World, leases: &[JobLease]) -> (usize, usize) {
    let of = |tenant: &TenantWorld| leases.iter().filter(|lease| lease.tenant == tenant.id).count();
    (of(&world.acme), of(&world.globex))
}

/// So many further jobs for each that a tenant has.
async fn copy_jobs_of(world: &World, tenant: &TenantWorld, copies: u32) {
    let copy = format!(
        "INSERT INTO jobs (tenant_id, id, kind, schema_version, payload, state, run_at, attempts, max_attempts,
                           actor_type, request_id, created_at)
         SELECT tenant_id, gen_random_uuid(), kind, 1, payload, 'queued', run_at, 0, 10, 'user', 'r', created_at
           FROM jobs, generate_series(1, {copies}) WHERE tenant_id = '{}'",
        tenant.id
    );
    world.sql(&copy).await;
}

#[actix_web::test]
async fn a_tenant_with_ten_thousand_jobs_does_not_starve_another() {
    let world = World::new().await;
    ask::<Count>(&world, &world.acme, &0, Terms::default()).await;
    copy_jobs_of(&world, &world.acme, 9_999).await;
    for _ in 0..3 {
        ask::<Count>(&world, &world.globex, &0, Terms::default()).await;
    }
    let queue = PgJobQueue::new(platform(&world));
    let first = queue.claim(BECAUSE, &claim(&world, 4, 5)).await.unwrap();
    assert_eq!(
        shares(&world, &first),
        (2, 2),
        "turn by turn, although all of acme's are older"
    );
    let second = queue.claim(BECAUSE, &claim(&world, 4, 5)).await.unwrap();
    assert_eq!(shares(&world, &second), (3, 1));
    let third = queue.claim(BECAUSE, &claim(&world, 4, 5)).await.unwrap();
    assert_eq!(third, [], "no more than its share at once, whoever runs them");
    assert_eq!(queue.release(BECAUSE, &first).await.unwrap(), 4);
    let fourth = queue.claim(BECAUSE, &claim(&world, 100, 5)).await.unwrap();
    assert_eq!(shares(&world, &fourth), (2, 2));
    let all: BTreeSet<_> = second.iter().chain(&fourth).map(|lease| lease.job).collect();
    assert_eq!(all.len(), 8);
}

/// So many tenants before the two in every round, each with a job that is not due for an hour.
async fn crowd(world: &World, tenants: u32) {
    ask::<Count>(world, &world.acme, &0, Terms::default()).await;
    let crowd = format!(
        "CREATE TEMPORARY TABLE crowd AS SELECT n, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid AS id
           FROM generate_series(1, {tenants}) n;
         INSERT INTO tenants (id, name, slug, plan, status, settings, created_at, updated_at, version)
         SELECT id, 'Crowd', 'crowd-' || n, 'free', 'active', '{{}}', now(), now(), 1 FROM crowd;
         INSERT INTO jobs (tenant_id, id, kind, schema_version, payload, state, run_at, attempts, max_attempts,
                           actor_type, request_id, created_at)
         SELECT c.id, gen_random_uuid(), kind, 1, payload, 'queued', run_at + interval '1 hour', 0, 10, 'user', 'r',
                created_at
           FROM jobs, crowd c;
         DELETE FROM jobs WHERE run_at <= (SELECT min(run_at) FROM jobs)"
    );
    world.sql(&crowd).await;
}

#[actix_web::test]
async fn a_due_job_is_leased_at_once_among_a_thousand_tenants_whose_jobs_are_not() {
    let world = World::new().await;
    crowd(&world, 1_000).await;
    ask::<Count>(&world, &world.globex, &0, Terms::default()).await;
    let queue = PgJobQueue::new(platform(&world));
    let leases = queue.claim(BECAUSE, &claim(&world, 8, 4)).await.unwrap();
    assert_eq!((shares(&world, &leases), leases.len()), ((0, 1), 1));
    // And taken over at once when its worker is lost.
    expire_leases(&world).await;
    let taken_over = queue.claim(BECAUSE, &claim(&world, 8, 4)).await.unwrap();
    assert_eq!(taken_over.len(), 1);
    assert_eq!(taken_over[0].job, leases[0].job);
}

#[actix_web::test]
async fn a_round_of_a_few_claims_comes_to_every_tenant() {
    let world = World::new().await;
    crowd(&world, 3_000).await;
    ask::<Count>(&world, &world.acme, &0, Terms::default()).await;
    copy_jobs_of(&world, &world.acme, 2_000).await;
    ask::<Count>(&world, &world.globex, &0, Terms::default()).await;
    let queue = PgJobQueue::new(platform(&world));
    // Three claims look at 1,024 tenants each, the two are the last of the round, and then it begins again.
    let mut taken = Vec::new();
    for _ in 0..6 {
        let leases = queue.claim(BECAUSE, &claim(&world, 4, 100)).await.unwrap();
        taken.push(shares(&world, &leases));
    }
    assert_eq!(taken, [(0, 0), (0, 0), (3, 1), (0, 0), (0, 0), (4, 0)]);
}

#[actix_web::test]
async fn claims_at_once_do_not_exceed_a_tenants_share() {
    let world = World::new().await;
    for number in 0..20 {
        ask::<Count>(&world, &world.acme, &number, Terms::default()).await;
    }
    let claims = (0..4).map(|_| {
        let queue = PgJobQueue::new(platform(&world));
        let claim = claim(&world, 5, 3);
        async move { queue.claim(BECAUSE, &claim).await.unwrap().len() }
    });
    assert_eq!(join_all(claims).await.iter().sum::<usize>(), 3);
}

#[actix_web::test]
async fn only_the_present_lease_leads_into_a_tenant() {
    let world = World::new().await;
    for tenant in [&world.acme, &world.globex] {
        ask::<Count>(&world, tenant, &1, Terms::default()).await;
    }
    let queue = PgJobQueue::new(platform(&world));
    let leases = queue.claim(BECAUSE, &claim(&world, 10, 10)).await.unwrap();
    let gate = &world.app.ports.gate;
    let lease = leases.iter().find(|lease| lease.tenant == world.acme.id).unwrap();
    assert_eq!(gate.job(lease, BECAUSE).await.unwrap().tenant(), world.acme.id);
    let elsewhere = JobLease {
        tenant: world.globex.id,
        ..lease.clone()
    };
    assert_eq!(
        gate.job(&elsewhere, BECAUSE).await,
        Err(Denied::LeaseLost),
        "the job is not in that tenant"
    );
    let forged = JobLease {
        lease: LeaseId::next(world.app.ports.ids.as_ref()),
        ..lease.clone()
    };
    assert_eq!(gate.job(&forged, BECAUSE).await, Err(Denied::LeaseLost));
    world.set_status(&world.acme, "suspended").await;
    assert_eq!(
        gate.job(lease, BECAUSE).await.unwrap().status(),
        TenantStatus::Suspended
    );
    world.set_status(&world.acme, "deleted").await;
    assert_eq!(gate.job(lease, BECAUSE).await, Err(Denied::TenantGone));
    let farewell = gate.farewell(lease, BECAUSE).await.unwrap();
    assert_eq!(
        (farewell.tenant(), farewell.status()),
        (world.acme.id, TenantStatus::Deleted)
    );
    for other in [&elsewhere, &forged] {
        assert_eq!(gate.farewell(other, BECAUSE).await, Err(Denied::LeaseLost));
    }
    world.set_status(&world.acme, "active").await;
    expire_leases(&world).await;
    assert_eq!(
        gate.job(lease, BECAUSE).await,
        Err(Denied::LeaseLost),
        "it has run out"
    );
    let minute = chrono::Duration::minutes(1);
    assert_eq!(
        queue
            .extend(BECAUSE, &[lease.clone(), forged], minute)
            .await
            .unwrap(),
        [lease.job]
    );
    assert!(gate.job(lease, BECAUSE).await.is_ok(), "nobody had taken it over");
    assert!(
        !queue.park_of_deleted(BECAUSE, lease).await.unwrap(),
        "its tenant is not deleted"
    );
}

#[actix_web::test]
async fn a_tenant_sees_its_own_jobs_only() {
    let world = World::new().await;
    for tenant in [&world.acme, &world.globex] {
        ask::<Count>(&world, tenant, &1, Terms::default()).await;
    }
    let foreign = only_job(&world, &world.globex).await;
    let cx = world.cx(&world.acme.admin).await;
    let (found, locked, mut listed) = cx
        .write(async |work| {
            let found = work.jobs().find(foreign.id).await?;
            let locked = work.jobs().find_for_update(foreign.id).await?;
            Ok::<_, StoreError>((
                found,
                locked,
                work.jobs().list(JobFilter::default(), TEN).await?.items,
            ))
        })
        .await
        .unwrap();
    assert_eq!((found, locked), (None, None));
    assert_ne!(listed.remove(0).id, foreign.id);
    let updated = cx.write(async |work| work.jobs().update(&foreign).await).await;
    assert!(matches!(updated, Err(StoreError::Other(_))), "{updated:?}");

    // Without the builders, as the runtime role.
    let mut app = world.database.app().await;
    let begin = format!("BEGIN; SET LOCAL app.current_tenant = '{}'", world.acme.id);
    sqlx::raw_sql(AssertSqlSafe(begin))
        .execute(&mut app)
        .await
        .unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs")
        .fetch_one(&mut app)
        .await
        .unwrap();
    assert_eq!(count, 1);
    let cancelled = sqlx::raw_sql("UPDATE jobs SET state = 'cancelled', finished_at = now()")
        .execute(&mut app)
        .await;
    assert_eq!(cancelled.unwrap().rows_affected(), 1);
}

#[actix_web::test]
async fn the_platform_role_leases_jobs_but_reads_none() {
    let world = World::new().await;
    ask::<Count>(&world, &world.acme, &1, Terms::default()).await;
    let mut platform = PgConnection::connect(&world.database.platform_url())
        .await
        .unwrap();
    for statement in [
        "SELECT payload FROM jobs",
        "SELECT last_error FROM jobs",
        "SELECT * FROM jobs",
        "INSERT INTO jobs SELECT * FROM jobs",
        "UPDATE jobs SET payload = '{}'",
        "UPDATE jobs SET state = 'done', finished_at = now()",
        "DELETE FROM jobs",
    ] {
        let refused = sqlx::raw_sql(statement).execute(&mut platform).await.unwrap_err();
        let state = refused
            .as_database_error()
            .and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(state.as_deref(), Some("42501"), "{statement}");
    }
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs")
        .fetch_one(&mut platform)
        .await
        .unwrap();
    assert_eq!(seen, 1);
}

/// A worker that runs until it is told to stop.
struct Started {
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl Started {
    fn new(worker: Worker) -> Self {
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(Arc::new(worker).run(async {
            let _ = stopped.await;
        }));
        Self { stop, ended }
    }
}

/// Waits for something of which there is little.
#[derive(Clone, Default)]
struct Scarce(Wait);

impl JobHandler for Scarce {
    const KIND: &'static str = "test.scarce";
    const AT_ONCE: Option<u32> = Some(2);
    type Payload = ();

    async fn run(&self, cx: &Cx, (): ()) -> Result<(), JobFailure> {
        self.0.run(cx, ()).await
    }
}

/// Twenty other tenants, each with a job of acme's kind that is due.
async fn copy_jobs_to_others(world: &World) {
    world
        .sql(
            "CREATE TEMPORARY TABLE others AS SELECT n, gen_random_uuid() AS id FROM generate_series(1, 20) n;
         INSERT INTO tenants (id, name, slug, plan, status, settings, created_at, updated_at, version)
         SELECT id, 'Other', 'other-' || n, 'free', 'active', '{}', now(), now(), 1 FROM others;
         INSERT INTO jobs (tenant_id, id, kind, schema_version, payload, state, run_at, attempts, max_attempts,
                           actor_type, request_id, created_at)
         SELECT o.id, gen_random_uuid(), kind, 1, payload, 'queued', run_at, 0, 10, 'user', 'r', created_at
           FROM jobs, others o",
        )
        .await;
}

/// A kind with a maximum of its own takes no place that other kinds need: its other jobs wait in the queue.
#[actix_web::test]
async fn jobs_of_a_scarce_kind_leave_places_to_others() {
    let world = World::new().await;
    let (scarce, count) = (Scarce::default(), Count::default());
    ask::<Scarce>(&world, &world.acme, &(), Terms::default()).await;
    copy_jobs_to_others(&world).await;
    let handlers = Handlers::default().with(scarce.clone()).with(count.clone());
    let config = WorkerConfig {
        at_once: 8,
        per_tenant: 4,
        ..quick()
    };
    let started = Started::new(worker_with(&world, handlers, config));
    scarce.0.begun.notified().await;
    // Behind those of its own tenant and of others.
    ask::<Count>(&world, &world.acme, &0, Terms::default()).await;
    ask::<Count>(&world, &world.globex, &0, Terms::default()).await;
    let until = async |what: &str, rows: u64| {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while world.sql(format!("SELECT FROM jobs WHERE {what}")).await != rows {
            assert!(std::time::Instant::now() < deadline, "{what}");
            tokio::task::yield_now().await;
        }
    };
    until("kind = 'test.count' AND state = 'done'", 2).await;
    until("kind = 'test.scarce' AND state = 'running'", 2).await;
    scarce.0.go.add_permits(21);
    until("kind = 'test.scarce' AND state = 'done'", 21).await;
    started.stop.send(()).unwrap();
    started.ended.await.unwrap();
}

/// Exports are such a kind. A worker with one place still runs them.
#[actix_web::test]
async fn exports_take_turns_before_they_take_places() {
    assert_eq!(tenantry_tenancy::archive::export::WriteExport::AT_ONCE, Some(2));
    let world = World::new().await;
    let scarce = Scarce::default();
    scarce.0.go.add_permits(3);
    for _ in 0..3 {
        ask::<Scarce>(&world, &world.acme, &(), Terms::default()).await;
    }
    let config = WorkerConfig {
        at_once: 1,
        ..quick()
    };
    let worker = worker_with(&world, Handlers::default().with(scarce), config);
    for _ in 0..3 {
        assert_eq!(outcomes(&worker).await, [Outcome::Done]);
    }
}

#[actix_web::test]
async fn at_a_shutdown_running_jobs_finish() {
    let world = World::new().await;
    let wait = Wait::default();
    let config = WorkerConfig {
        at_once: 1,
        grace: Duration::from_secs(60),
        ..quick()
    };
    let started = Started::new(worker_with(
        &world,
        Handlers::default().with(wait.clone()),
        config,
    ));
    for _ in 0..2 {
        ask::<Wait>(&world, &world.acme, &(), Terms::default()).await;
    }
    wait.begun.notified().await;
    started.stop.send(()).unwrap();
    wait.go.add_permits(2);
    started.ended.await.unwrap();
    let mut states: Vec<_> = jobs(&world, &world.acme)
        .await
        .iter()
        .map(|job| (job.progress.state.as_str(), job.progress.attempts))
        .collect();
    states.sort_unstable();
    assert_eq!(states, [("done", 1), ("queued", 0)], "no other was begun");
}

#[actix_web::test]
async fn at_a_shutdown_jobs_that_take_too_long_go_back_into_the_queue() {
    let world = World::new().await;
    let wait = Wait::default();
    let config = WorkerConfig {
        grace: Duration::ZERO,
        ..quick()
    };
    let started = Started::new(worker_with(
        &world,
        Handlers::default().with(wait.clone()),
        config,
    ));
    ask::<Wait>(&world, &world.acme, &(), Terms::default()).await;
    wait.begun.notified().await;
    started.stop.send(()).unwrap();
    started.ended.await.unwrap();
    wait.dropped.notified().await;
    let job = only_job(&world, &world.acme).await;
    assert_eq!((job.progress.state, job.progress.attempts), (JobState::Queued, 0));
    assert_eq!(job.progress.lease, None);
}

#[actix_web::test]
async fn a_running_worker_keeps_its_leases_and_stops_what_was_cancelled() {
    let world = World::new().await;
    let wait = Wait::default();
    let config = WorkerConfig {
        lease: Duration::from_millis(150),
        ..quick()
    };
    let started = Started::new(worker_with(
        &world,
        Handlers::default().with(wait.clone()),
        config,
    ));
    ask::<Wait>(&world, &world.acme, &(), Terms::default()).await;
    wait.begun.notified().await;
    let job = only_job(&world, &world.acme).await;
    let leased = job.progress.lease.unwrap().until;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while only_job(&world, &world.acme).await.progress.lease.unwrap().until == leased {
        assert!(std::time::Instant::now() < deadline, "the lease was not extended");
        tokio::task::yield_now().await;
    }
    world
        .step_job(world.acme.id, job.id.uuid(), JobStep::Cancel)
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(60), wait.dropped.notified())
        .await
        .unwrap();
    started.stop.send(()).unwrap();
    started.ended.await.unwrap();
    assert_eq!(
        only_job(&world, &world.acme).await.progress.state,
        JobState::Cancelled
    );
}

#[actix_web::test]
async fn sessions_that_ended_long_ago_are_deleted_within_a_day_in_each_tenant() {
    let world = World::new().await;
    let end = |person: &tenantry_tests::Person, column: &str, at: &str| {
        format!(
            "UPDATE refresh_sessions SET {column} = '{at}' WHERE user_id = '{}'",
            person.id
        )
    };
    world
        .sql(&end(&world.acme.viewer, "revoked_at", "2025-12-01"))
        .await;
    world
        .sql(&end(&world.acme.member, "revoked_at", "2026-01-10"))
        .await;
    world
        .sql(&end(&world.globex.viewer, "expires_at", "2025-12-01"))
        .await;
    let workers = [worker(&world, purging()), worker(&world, purging())];
    a_day(&world, &workers).await;
    let left = |tenant: &TenantWorld| {
        format!(
            "UPDATE refresh_sessions SET id = id WHERE tenant_id = '{}'",
            tenant.id
        )
    };
    assert_eq!(world.sql(&left(&world.acme)).await, 2);
    assert_eq!(world.sql(&left(&world.globex)).await, 2);
    for tenant in [&world.acme, &world.globex] {
        let audit = world.audit(tenant).await;
        let purged: Vec<_> = audit
            .iter()
            .filter(|(action, _)| action == "session.purged")
            .collect();
        assert_eq!(purged.len(), 1);
        assert_eq!(purged[0].1["actor_type"], "system");
        assert_eq!(purged[0].1["after"]["sessions"], 1);
        assert_eq!(
            jobs_of_upkeep(&world, tenant).await,
            [],
            "it needs no job of the tenant"
        );
    }
}

/// Lets workers take turns for a day of their schedules.
async fn a_day(world: &World, workers: &[Worker]) {
    hours(world, workers, 24).await;
}

/// Lets workers take turns for so many hours of their schedules. In 22 every tenant is looked after.
pub async fn hours(world: &World, workers: &[Worker], hours: usize) {
    turns(world, workers, hours * 12).await;
}

/// Lets workers take so many turns, five minutes after each other.
async fn turns(world: &World, workers: &[Worker], turns: usize) {
    for turn in 0..turns {
        let worker = &workers[turn % workers.len()];
        while !outcomes(worker).await.is_empty() {}
        world.clock.advance(chrono::Duration::minutes(5));
    }
}

/// The jobs of a tenant without those of its events, which the daily upkeep publishes.
async fn jobs_of_upkeep(world: &World, tenant: &TenantWorld) -> Vec<Job> {
    let mut jobs = jobs(world, tenant).await;
    jobs.retain(|job| job.kind.as_str() != "notification.fan_out");
    jobs
}

#[actix_web::test]
async fn what_cannot_be_looked_after_becomes_a_job_of_its_tenant_and_the_others_are_looked_after() {
    let world = World::new().await;
    let end = "UPDATE refresh_sessions SET revoked_at = '2025-12-01'";
    let ended = |tenant: &TenantWorld| format!("{end} WHERE tenant_id = '{}'", tenant.id);
    world.sql(&ended(&world.acme)).await;
    world.sql(&ended(&world.globex)).await;
    let acme = world.acme.id;
    world
        .sql(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF OLD.tenant_id = '{acme}' THEN RAISE 'not today'; END IF; RETURN OLD; END $$; \
             CREATE TRIGGER refuse BEFORE DELETE ON refresh_sessions FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .await;
    let worker = [worker(&world, purging())];
    // Once in each: after a whole day some tenants would have had two turns.
    turns(&world, &worker, 263).await;
    let sessions = async |tenant: &TenantWorld| {
        world
            .sql(&format!(
                "UPDATE refresh_sessions SET id = id WHERE tenant_id = '{}'",
                tenant.id
            ))
            .await
    };
    assert_eq!(sessions(&world.globex).await, 0);
    assert_eq!(jobs_of_upkeep(&world, &world.globex).await, []);
    assert!(sessions(&world.acme).await > 0);
    let mut left = jobs_of_upkeep(&world, &world.acme).await;
    assert_eq!(left.len(), 1, "{left:?}");
    let job = left.remove(0);
    assert_eq!(
        (job.kind.as_str(), job.progress.attempts > 1),
        ("tenant.purge", true)
    );
    world.sql("DROP TRIGGER refuse ON refresh_sessions").await;
    a_day(&world, &worker).await;
    assert_eq!(sessions(&world.acme).await, 0);
}

#[actix_web::test]
async fn tenants_are_dealt_out_to_parts_each_to_one_and_deleted_ones_to_none() {
    let world = World::new().await;
    let because = SystemScope::because("a test of jobs");
    let dealt = async |parts: u32| {
        let mut all = Vec::new();
        for part in 0..parts {
            all.extend(
                world
                    .app
                    .ports
                    .registry
                    .dealt(because, part, parts)
                    .await
                    .unwrap(),
            );
        }
        all.sort_unstable();
        all
    };
    let mut both = vec![world.acme.id, world.globex.id];
    both.sort_unstable();
    for parts in [1, 2, 3, 263] {
        assert_eq!(dealt(parts).await, both, "{parts} parts");
    }
    world.set_status(&world.globex, "deleted").await;
    assert_eq!(dealt(263).await, [world.acme.id]);
}

fn purging() -> Handlers {
    Handlers::default().with(Purge).with_system(TendSome)
}

#[actix_web::test]
async fn jobs_of_the_systems_own_are_deleted_when_they_are_long_over_and_dead_ones_kept() {
    let world = World::new().await;
    let queue = queues(&world).system_jobs;
    let purge = PurgeSystemJobs::new(Arc::clone(&queue));
    let worker = worker(&world, Handlers::default().with_system(purge).with_system(Doomed));
    let states = async || -> BTreeMap<String, u32> {
        let all = queue.list(BECAUSE, None, 1_000).await.unwrap().into_iter();
        all.fold(BTreeMap::new(), |mut states, job| {
            *states
                .entry(format!("{} {}", job.kind, job.progress.state.as_str()))
                .or_default() += 1;
            states
        })
    };
    let done = format!("{} done", PurgeSystemJobs::KIND);
    let dead = format!("{} dead", Doomed::KIND);
    let days = u32::try_from(tenantry_tenancy::tenant::purge::KEPT_DAYS).unwrap();
    for _ in 0..days {
        while !outcomes(&worker).await.is_empty() {}
        world.clock.advance(chrono::Duration::days(1));
    }
    assert_eq!(
        states().await,
        [(done.clone(), days), (dead.clone(), days)].into()
    );
    for _ in 0..5 {
        while !outcomes(&worker).await.is_empty() {}
        world.clock.advance(chrono::Duration::days(1));
    }
    let after = states().await;
    assert_eq!(after[&dead], days + 5, "somebody has to look at them");
    // The purge of a day does not see its own, and takes that of thirty days before with the next one.
    assert!((days..=days + 1).contains(&after[&done]), "{after:?}");
}

/// Fails once a day.
struct Doomed;

impl SystemJobHandler for Doomed {
    const KIND: &'static str = "test.doomed";
    type Payload = ();

    async fn run(&self, _: &Arc<Tenancy>, _: SystemScope, (): ()) -> Result<(), JobFailure> {
        Err(JobFailure::Permanent("it never works".into()))
    }

    fn schedule() -> Option<(chrono::Duration, ())> {
        Some((chrono::Duration::days(1), ()))
    }
}

/// Is due once in a thousand days.
struct Seldom;

impl SystemJobHandler for Seldom {
    const KIND: &'static str = "test.seldom";
    type Payload = ();

    async fn run(&self, _: &Arc<Tenancy>, _: SystemScope, (): ()) -> Result<(), JobFailure> {
        Ok(())
    }

    fn schedule() -> Option<(chrono::Duration, ())> {
        Some((chrono::Duration::days(1_000), ()))
    }
}

/// A server whose clock is fast does not use up the periods to come, in which the others would then do nothing.
#[actix_web::test]
async fn periods_of_schedules_are_those_of_the_database() {
    let world = World::new().await;
    let fast = ManualClock::at(world.clock.now() + chrono::Duration::days(3_000));
    let fast = world.instance_at(&Options::default(), Arc::new(fast));
    for app in [&fast.app, &world.app] {
        let platform = platform(&world);
        let queues = Queues {
            jobs: Arc::new(PgJobQueue::new(platform.clone())),
            system_jobs: Arc::new(PgSystemJobs::new(platform)),
        };
        let handlers = Handlers::default().with_system(Seldom);
        let worker = Worker::new(Arc::clone(app), queues, handlers, quick());
        worker.run_once().await.unwrap();
    }
    let all = "SELECT 1 FROM system_jobs WHERE kind = 'test.seldom'";
    assert_eq!(world.sql(all).await, 1);
    // Neither waits for a moment that only the clock of the fast server has reached.
    let of_now = "AND dedupe_key = floor(extract(epoch FROM now()) / 86400000)::text AND run_at <= now()";
    assert_eq!(world.sql(format!("{all} {of_now}")).await, 1);
}

#[actix_web::test]
async fn finished_jobs_are_deleted_after_a_while_and_dead_ones_kept() {
    let world = World::new().await;
    let wait = chrono::Duration::days(tenantry_tenancy::tenant::purge::KEPT_DAYS);
    let flaky = Flaky::default();
    flaky.failures.store(3, Ordering::Relaxed);
    let handlers = purging().with(Count::default()).with(flaky);
    let worker = worker(&world, handlers);
    for tenant in [&world.acme, &world.globex] {
        ask::<Count>(&world, tenant, &1, Terms::default()).await;
    }
    ask::<Flaky>(&world, &world.acme, &(), Terms::default()).await;
    for _ in 0..4 {
        while !outcomes(&worker).await.is_empty() {}
        world.clock.advance(chrono::Duration::hours(1));
    }
    let kinds = async |tenant| {
        let jobs = jobs(&world, tenant).await.into_iter();
        jobs.map(|job| (job.kind, job.progress.state))
            .collect::<BTreeMap<_, _>>()
    };
    assert!(kinds(&world.acme).await.contains_key(Count::KIND));
    let worker = [worker];
    world.clock.advance(wait - chrono::Duration::days(2));
    a_day(&world, &worker).await;
    assert!(kinds(&world.acme).await.contains_key(Count::KIND), "not yet");
    // In the first of these days a tenant may have had its turn before the time was over.
    a_day(&world, &worker).await;
    a_day(&world, &worker).await;
    let left = kinds(&world.acme).await;
    assert!(!left.contains_key(Count::KIND), "{left:?}");
    assert_eq!(left.get(Flaky::KIND), Some(&JobState::Dead));
    assert!(!kinds(&world.globex).await.contains_key(Count::KIND));
}
