//! Jobs of schedules: one of a kind at a time on all workers, so that one that takes long leaves the tenants' jobs their places.
#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::Duration;
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::Enqueued;
use tenantry_tenancy::operations::job::{self, Handlers, JobFailure, JobHandler, SystemJobHandler, Terms};
use tenantry_tenancy::operations::worker::{Outcome, Ran, Worker, WorkerConfig};
use tenantry_tenancy::{Cx, Tenancy};
use tenantry_tests::{Options, World};
use tokio::sync::Semaphore;

use crate::jobs::{expire_leases, queues, worker};

const BECAUSE: SystemScope = SystemScope::because("a test of schedules");

/// How many run, and at most ran at once; a run begins, and ends when it gets a permit.
#[derive(Clone)]
struct Runs {
    begun: Arc<Semaphore>,
    may_end: Arc<Semaphore>,
    now: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            begun: Arc::new(Semaphore::new(0)),
            may_end: Arc::new(Semaphore::new(0)),
            now: Arc::default(),
            most: Arc::default(),
        }
    }
}

impl Runs {
    async fn run(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.begun.add_permits(1);
        self.may_end.acquire().await.unwrap().forget();
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    async fn begun(&self) {
        self.begun.acquire().await.unwrap().forget();
    }
}

/// Due each minute, and slow, as the settlement of a large tenant.
#[derive(Clone, Default)]
struct Slow(Runs);

impl SystemJobHandler for Slow {
    const KIND: &'static str = "test.slow";
    type Payload = ();

    async fn run(&self, _: &Arc<Tenancy>, _: SystemScope, (): ()) -> Result<(), JobFailure> {
        self.0.run().await;
        Ok(())
    }

    fn schedule() -> Option<(Duration, ())> {
        Some((Duration::minutes(1), ()))
    }
}

/// Without a schedule, as the processing of an event of the payment provider.
#[derive(Clone, Default)]
struct Single(Runs);

impl SystemJobHandler for Single {
    const KIND: &'static str = "test.single";
    type Payload = u32;

    async fn run(&self, _: &Arc<Tenancy>, _: SystemScope, _: u32) -> Result<(), JobFailure> {
        self.0.run().await;
        Ok(())
    }
}

/// A job of a tenant.
struct Quick;

impl JobHandler for Quick {
    const KIND: &'static str = "test.quick";
    type Payload = ();

    async fn run(&self, _: &Cx, (): ()) -> Result<(), JobFailure> {
        Ok(())
    }
}

fn slow_worker(world: &World, slow: &Slow) -> Worker {
    worker(world, Handlers::default().with(Quick).with_system(slow.clone()))
}

/// Jobs of the slow kind in a state.
async fn rows(world: &World, state: &str) -> u64 {
    let rows = format!(
        "SELECT 1 FROM system_jobs WHERE kind = '{}' AND {state}",
        Slow::KIND
    );
    world.sql(rows).await
}

fn of_slow(ran: &[Ran]) -> Vec<Outcome> {
    let slow = ran.iter().filter(|ran| ran.kind == Slow::KIND);
    slow.map(|ran| ran.outcome).collect()
}

/// While one runs for many periods, the other workers begin no second one, do the jobs of both tenants, and the queue has one that waits.
#[actix_web::test]
async fn job_of_a_schedule_runs_once_at_a_time_on_all_workers() {
    let world = World::new().await;
    let slow = Slow::default();
    let first = slow_worker(&world, &slow);
    let second = slow_worker(&world, &slow);
    let running = tokio::spawn(async move { first.run_once().await.unwrap() });
    slow.0.begun().await;
    for _ in 0..10 {
        world.clock.advance(Duration::minutes(1));
        for tenant in [&world.acme, &world.globex] {
            let cx = world.cx(&tenant.admin).await;
            let asked = cx
                .write(async |work| job::enqueue::<Quick>(&cx, work, &(), Terms::default()).await)
                .await;
            assert_eq!(asked.unwrap(), Enqueued::Added);
        }
        let ran = second.run_once().await.unwrap();
        assert_eq!(of_slow(&ran), []);
        let mut tenants: Vec<_> = ran.iter().filter_map(|ran| ran.tenant).collect();
        tenants.sort_unstable();
        let mut both = [world.acme.id, world.globex.id];
        both.sort_unstable();
        assert_eq!(tenants, both);
    }
    assert_eq!(rows(&world, "state = 'running'").await, 1);
    assert_eq!(rows(&world, "state = 'queued'").await, 1);
    slow.0.may_end.add_permits(100);
    assert_eq!(of_slow(&running.await.unwrap()), [Outcome::Done]);
    // What came meanwhile is done by the one that waited.
    assert_eq!(of_slow(&second.run_once().await.unwrap()), [Outcome::Done]);
    assert_eq!(of_slow(&second.run_once().await.unwrap()), []);
    assert_eq!(slow.0.most.load(Ordering::SeqCst), 1);
    assert_eq!(rows(&world, "state = 'done'").await, 2);
}

/// A backlog from before is done one by one, the oldest first.
#[actix_web::test]
async fn backlog_of_a_schedule_is_done_one_by_one() {
    let world = World::new().await;
    let slow = Slow::default();
    slow.0.may_end.add_permits(100);
    let worker = slow_worker(&world, &slow);
    assert_eq!(of_slow(&worker.run_once().await.unwrap()), [Outcome::Done]);
    let copies = "INSERT INTO system_jobs (id, created_at, kind, schema_version, payload, dedupe_key, state, run_at, attempts, max_attempts) \
                  SELECT gen_random_uuid(), created_at, kind, 1, payload, 'old-' || n, 'queued', run_at - n * interval '1 minute', 0, 5 \
                    FROM system_jobs, generate_series(1, 3) n WHERE kind = 'test.slow'";
    assert_eq!(world.sql(copies).await, 3);
    for oldest in ["old-3", "old-2", "old-1"] {
        assert_eq!(of_slow(&worker.run_once().await.unwrap()), [Outcome::Done]);
        let done = format!("state = 'done' AND dedupe_key = '{oldest}'");
        assert_eq!(rows(&world, &done).await, 1);
    }
    assert_eq!(of_slow(&worker.run_once().await.unwrap()), []);
}

/// What a lost worker has left is taken over before the next one begins.
#[actix_web::test]
async fn lost_job_of_a_schedule_is_taken_over_alone() {
    let world = World::new().await;
    let slow = Slow::default();
    let first = slow_worker(&world, &slow);
    let second = Arc::new(slow_worker(&world, &slow));
    let lost = tokio::spawn(async move { first.run_once().await.unwrap() });
    slow.0.begun().await;
    world.clock.advance(Duration::minutes(1));
    assert_eq!(of_slow(&second.run_once().await.unwrap()), []);
    expire_leases(&world).await;
    let takes_over = Arc::clone(&second);
    let taken_over = tokio::spawn(async move { takes_over.run_once().await.unwrap() });
    slow.0.begun().await;
    assert_eq!(rows(&world, "state = 'running' AND attempts = 2").await, 1);
    assert_eq!(rows(&world, "state = 'queued' AND attempts = 0").await, 1);
    slow.0.may_end.add_permits(100);
    assert_eq!(of_slow(&lost.await.unwrap()), [Outcome::Lost]);
    assert_eq!(of_slow(&taken_over.await.unwrap()), [Outcome::Done]);
    assert_eq!(of_slow(&second.run_once().await.unwrap()), [Outcome::Done]);
    assert_eq!(rows(&world, "state = 'done'").await, 2);
}

/// Kinds without a schedule run side by side, also on workers with one place.
#[actix_web::test]
async fn jobs_without_a_schedule_run_side_by_side() {
    let world = World::new().await;
    let single = Single::default();
    let workers = [0, 1].map(|_| {
        let app = world.instance(&Options::default()).app;
        let config = WorkerConfig {
            at_once: 1,
            ..WorkerConfig::default()
        };
        let handlers = Handlers::default().with_system(single.clone());
        Worker::new(app, queues(&world), handlers, config)
    });
    let queue = queues(&world).system_jobs;
    for n in 0..2 {
        let job = job::of_system::<Single>(&world.app, &n, n.to_string()).unwrap();
        assert_eq!(queue.enqueue(BECAUSE, &job).await.unwrap(), Enqueued::Added);
    }
    let [first, second] =
        workers.map(|worker| tokio::spawn(async move { worker.run_once().await.unwrap().len() }));
    single.0.begun().await;
    single.0.begun().await;
    assert_eq!(single.0.now.load(Ordering::SeqCst), 2);
    single.0.may_end.add_permits(2);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (1, 1));
}
