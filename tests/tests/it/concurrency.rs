//! Many tenants at once over few connections, while requests are dropped half-way, units of work panic, backends are
//! killed and locks are held: whatever happens, an answer holds its own tenant's rows only, and every row ends up with
//! its owner.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tenantry_domain::kernel::{RequestId, StoreError};
use tenantry_domain::store::{Units, Work};
use tenantry_domain::tenant::TenantScope;
use tenantry_http::{Api, Readiness};
use tenantry_persistence::{PoolConfig, TenantTx, tenant_tx};
use tenantry_tenancy::Tenancy;
use tenantry_tests::{Client, Options, PASSWORD, Reply, Request, TenantWorld, World};
use tokio::task::LocalSet;

mod task {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tasks")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Uuid,
        pub title: String,
        pub status: String,
        pub priority: String,
        pub version: i64,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    tenantry_persistence::tenant_entity!(Entity, Model, Column);
}

// ------------------------------------------------------------------------------------------------------------- the storm

const TENANTS: usize = 200;
/// Tenants and connections of each round.
const ROUNDS: [(usize, usize); 4] = [(5, 4), (TENANTS, 4), (5, 1), (TENANTS, 1)];
/// Answers that are waited for in each round.
const ANSWERS: usize = 5_200;
const THREADS: usize = 2;
const SEED: u64 = 0x7e4a_4e72;

#[test]
fn whatever_happens_answers_and_rows_stay_with_their_tenants() {
    let runtime = runtime();
    let started = Instant::now();
    let (world, tenants) = LocalSet::new().block_on(&runtime, async {
        let world = World::new().await;
        let tenants = tenants(&world).await;
        (world, Arc::new(tenants))
    });
    let counts = Arc::new(Counts::default());
    eprintln!("seed {SEED:#x}");
    for (round, (number, connections)) in ROUNDS.into_iter().enumerate() {
        let pool = PoolConfig {
            size: connections,
            acquire_timeout: Duration::from_secs(3),
            ..PoolConfig::default()
        };
        let tenantry_tests::Instance { app, pool, .. } = world.instance(&Options {
            pool,
            ..Options::default()
        });
        let over = Arc::new(AtomicBool::new(false));
        let trouble = trouble(world.database.admin_url(), Arc::clone(&over), Arc::clone(&counts));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (app, tenants, counts, runtime) = (Arc::clone(&app), &tenants, &counts, &runtime);
                scope.spawn(move || {
                    let local = LocalSet::new();
                    local.block_on(runtime, async {
                        let client = client(Arc::clone(&app)).await;
                        // Few tenants have many clients each.
                        let workers = number.max(24);
                        let running =
                            (0..workers)
                                .filter(|worker| worker % THREADS == thread)
                                .map(|worker| {
                                    let random =
                                        Random(SEED ^ ((round as u64) << 40) ^ ((worker as u64) << 20));
                                    let worker = Worker {
                                        tenant: worker % number,
                                        tenants: Arc::clone(tenants),
                                        app: Arc::clone(&app),
                                        client: client.clone(),
                                        counts: Arc::clone(counts),
                                        random,
                                        tasks: Vec::new(),
                                    };
                                    tokio::task::spawn_local(worker.run(ANSWERS.div_ceil(workers)))
                                });
                        for worker in running.collect::<Vec<_>>() {
                            worker.await.unwrap();
                        }
                    });
                });
            }
        });
        over.store(true, Ordering::Relaxed);
        trouble.join().unwrap();
        runtime.block_on(app.views().flush(&app));
        pool.close();
    }
    let rows = runtime.block_on(async {
        assert_nothing_is_left_open(&world).await;
        assert_every_row_has_its_owner(&world, &tenants, &counts).await
    });
    let seconds = started.elapsed().as_secs_f64();
    let evidence = counts.report(rows, seconds);
    eprintln!("{evidence}");
    let answered = counts.answered.load(Ordering::Relaxed);
    assert!(answered >= 20_000, "{answered} answers");
    for count in [&counts.cancelled, &counts.killed, &counts.panics, &counts.locks] {
        assert!(
            count.load(Ordering::Relaxed) > 20,
            "the storm was none: {evidence}"
        );
    }
    assert!(
        counts.status(503) > 0 && counts.status(412) > 0 && counts.status(409) > 0,
        "{evidence}"
    );
    tenantry_tests::evidence::record("concurrency", &evidence);
    drop(world);
}

/// A tenant of the storm. Every text in it says whose it is.
struct Tenant {
    token: String,
    project: String,
    task: String,
    resource: String,
}

/// The mark in every text of a tenant.
fn mark(tenant: usize) -> String {
    format!("own=t{tenant:03};")
}

/// The tenants whose marks are in a text.
fn marks(text: &str) -> impl Iterator<Item = &str> {
    text.split("own=t")
        .skip(1)
        .map(|rest| rest.get(..4).unwrap_or(rest))
}

/// Tenants made by SQL, each with an admin whose password is the one of the world's, and a login of each.
async fn tenants(world: &World) -> Vec<Tenant> {
    let mut admin = world.database.admin().await;
    let acme = &world.acme;
    let sql = format!(
        "INSERT INTO tenants SELECT (jsonb_populate_record(t, jsonb_build_object('id', gen_random_uuid(), 'slug', label, \
             'subdomain', label, 'name', 'own=' || label || '; Inc'))).* \
         FROM tenants t, (SELECT 't' || lpad(n::text, 3, '0') AS label FROM generate_series(0, {last}) n) s WHERE t.id = '{acme}'; \
         CREATE TEMPORARY TABLE t AS SELECT id, slug, 'own=' || slug || '; ' AS own, gen_random_uuid() AS uid, \
             gen_random_uuid() AS pid FROM tenants WHERE slug ~ '^t[0-9]{{3}}$'; \
         INSERT INTO users SELECT (jsonb_populate_record(u, jsonb_build_object('tenant_id', t.id, 'id', uid, 'email', \
             'admin@' || slug || '.example', 'full_name', own || 'Ada'))).* FROM users u, t WHERE u.id = '{user}'; \
         INSERT INTO projects SELECT (jsonb_populate_record(p, jsonb_build_object('tenant_id', t.id, 'id', pid, 'owner_id', \
             uid, 'name', own || 'project', 'description', own))).* FROM projects p, t WHERE p.id = '{project}'; \
         INSERT INTO tasks SELECT (jsonb_populate_record(k, jsonb_build_object('tenant_id', t.id, 'id', gen_random_uuid(), \
             'project_id', pid, 'assignee_id', uid, 'title', own || 'task', 'description', own))).* \
             FROM tasks k, t WHERE k.id = '{task}'; \
         INSERT INTO resources (tenant_id, id, created_at, project_id, name, kind, content, created_by, updated_at, version) \
             SELECT t.id, gen_random_uuid(), r.created_at, pid, own || 'resource', kind, own, uid, r.updated_at, 1 \
             FROM resources r, t WHERE r.id = '{resource}'; \
         ALTER ROLE tenantry_app IN DATABASE \"{database}\" SET lock_timeout = '30ms'",
        last = TENANTS - 1,
        acme = acme.id,
        user = acme.admin.id,
        project = acme.project,
        task = acme.task,
        resource = acme.resource,
        database = world.database.name(),
    );
    run(&mut admin, &sql).await;
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT p.id::text, k.id::text, r.id::text FROM t JOIN projects p ON p.tenant_id = t.id \
         JOIN tasks k ON k.tenant_id = t.id JOIN resources r ON r.tenant_id = t.id ORDER BY slug",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert_eq!(rows.len(), TENANTS);
    let mut tenants = Vec::new();
    for (number, (project, task, resource)) in rows.into_iter().enumerate() {
        let slug = format!("t{number:03}");
        let login = world
            .login(&slug, &format!("admin@{slug}.example"), PASSWORD)
            .await
            .expect(200);
        let token = login.json()["access_token"].as_str().unwrap().to_owned();
        tenants.push(Tenant {
            token,
            project,
            task,
            resource,
        });
    }
    tenants
}

/// What happened.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    answered: AtomicU64,
    cancelled: AtomicU64,
    panics: AtomicU64,
    killed: AtomicU64,
    locks: AtomicU64,
    probes: AtomicU64,
    by_status: Mutex<BTreeMap<u16, u64>>,
    /// The tasks whose creation was acknowledged, with their tenants.
    made: Mutex<Vec<(usize, String)>>,
}

impl Counts {
    fn status(&self, status: u16) -> u64 {
        self.by_status
            .lock()
            .unwrap()
            .get(&status)
            .copied()
            .unwrap_or_default()
    }

    fn report(&self, rows_checked: i64, seconds: f64) -> Value {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let by_status: BTreeMap<String, u64> = self
            .by_status
            .lock()
            .unwrap()
            .iter()
            .map(|(status, count)| (status.to_string(), *count))
            .collect();
        json!({
            "seed": SEED,
            "rounds": ROUNDS.map(|(tenants, connections)| json!({"tenants": tenants, "connections": connections})),
            "requests": of(&self.sent),
            "answered": of(&self.answered),
            "by_status": by_status,
            "unavailable": self.status(503),
            "cancellations": of(&self.cancelled),
            "panics": of(&self.panics),
            "killed_backends": of(&self.killed),
            "held_locks": of(&self.locks),
            "probes_of_other_tenants": of(&self.probes),
            "acknowledged_creations": self.made.lock().unwrap().len(),
            "rows_checked": rows_checked,
            "foreign_rows_seen": 0,
            "rows_with_a_wrong_owner": 0,
            "seconds": (seconds * 10.0).round() / 10.0,
        })
    }
}

/// One client of one tenant, who does one thing after the other.
struct Worker {
    tenant: usize,
    tenants: Arc<Vec<Tenant>>,
    app: Arc<Tenancy>,
    client: Client,
    counts: Arc<Counts>,
    random: Random,
    /// Its own tasks, with the versions it last saw.
    tasks: Vec<(String, String)>,
}

impl Worker {
    async fn run(mut self, answers: usize) {
        let mut answered = 0;
        while answered < answers {
            if self.random.below(120) == 0 {
                self.panic_in_a_unit_of_work().await;
            }
            if self.request().await {
                answered += 1;
            }
        }
    }

    /// One request; whether it was answered.
    async fn request(&mut self) -> bool {
        let own = mark(self.tenant);
        let me = &self.tenants[self.tenant];
        let (project, resource) = (&me.project, &me.resource);
        let number = self.random.below(1_000_000);
        let known = (!self.tasks.is_empty()).then(|| self.random.below(self.tasks.len()));
        let (method, path, body) = match (self.random.below(100), known) {
            (0..25, _) => (
                Method::GET,
                format!("/api/v1/tasks?limit={}", 1 + number % 20),
                None,
            ),
            (25..32, _) => (Method::GET, "/api/v1/projects".into(), None),
            (32..42, _) => (Method::GET, format!("/api/v1/projects/{project}"), None),
            (42..47, _) => (Method::GET, format!("/api/v1/resources/{resource}"), None),
            (47..52, _) => (Method::GET, format!("/api/v1/tasks?q={own}&limit=5"), None),
            (52..56, _) => (Method::GET, "/api/v1/users".into(), None),
            (56..70, Some(known)) => (
                Method::GET,
                format!("/api/v1/tasks/{}", self.tasks[known].0),
                None,
            ),
            (70..80, Some(known)) => {
                let body = json!({"title": format!("{own} changed {number}")});
                (
                    Method::PATCH,
                    format!("/api/v1/tasks/{}", self.tasks[known].0),
                    Some(body),
                )
            }
            (80..84, _) => {
                let body = json!({"name": format!("{own} {}", number % 8), "description": own});
                (Method::POST, "/api/v1/projects".into(), Some(body))
            }
            (84..88, _) => {
                let body = json!({"content": format!("{own} content {number}")});
                (Method::PATCH, format!("/api/v1/resources/{resource}"), Some(body))
            }
            (88..92, _) => return self.probe().await,
            _ => {
                let body = json!({"title": format!("{own} task {number}"), "description": own});
                (
                    Method::POST,
                    format!("/api/v1/projects/{project}/tasks"),
                    Some(body),
                )
            }
        };
        let mut request = self.client.request(method.clone(), &path).bearer(&me.token);
        if let Some(body) = &body {
            request = request.json(body);
        }
        // A third of the changes are made on the condition that nobody else changed the task, somewhen.
        let on_condition = method == Method::PATCH && number.is_multiple_of(3);
        if let (true, Some(known)) = (on_condition && path.contains("/tasks/"), known) {
            request = request.header("If-Match", &self.tasks[known].1);
        }
        let Some(reply) = self.send(request).await else {
            return false;
        };
        self.check(&reply, &format!("{method} {path}"));
        match reply.status {
            200 | 201 if path.contains("/tasks") && body.is_some() => {
                let task = reply.json()["id"].as_str().unwrap().to_owned();
                let tag = reply.header("etag").unwrap().to_owned();
                if reply.status == 201 {
                    self.counts.made.lock().unwrap().push((self.tenant, task.clone()));
                    self.tasks.push((task, tag));
                } else if number.is_multiple_of(2) {
                    // Now and then it forgets the new version, so that a later condition does not hold.
                    self.tasks[known.unwrap()].1 = tag;
                }
            }
            200 => assert!(!reply.bytes.is_empty()),
            201 | 409 | 412 | 503 => {}
            other => panic!("{method} {path}: {other} {}", reply.text()),
        }
        true
    }

    /// Asks for, and tries to change, what is another tenant's.
    async fn probe(&mut self) -> bool {
        let other = (self.tenant + 1 + self.random.below(self.tenants.len() - 1)) % self.tenants.len();
        let victim = &self.tenants[other];
        let body = json!({"title": format!("{} was here", mark(self.tenant))});
        let request = match self.random.below(4) {
            0 => self.client.get(&format!("/api/v1/projects/{}", victim.project)),
            1 => self.client.get(&format!("/api/v1/resources/{}", victim.resource)),
            2 => self.client.get(&format!("/api/v1/tasks/{}", victim.task)),
            _ => self
                .client
                .patch(&format!("/api/v1/tasks/{}", victim.task), &body),
        };
        let request = request.bearer(&self.tenants[self.tenant].token);
        let Some(reply) = self.send(request).await else {
            return false;
        };
        assert!(
            [404, 503].contains(&reply.status),
            "{} {}",
            reply.status,
            reply.text()
        );
        self.check(&reply, "a probe");
        self.counts.probes.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Sends it; one in forty is dropped after some of the steps that it takes.
    async fn send(&mut self, request: Request) -> Option<Reply> {
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        let polls = if self.random.below(40) == 0 {
            1 + self.random.below(12)
        } else {
            usize::MAX
        };
        let reply = dropped_after(polls, request.send()).await;
        let Some(reply) = reply else {
            self.counts.cancelled.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        *self
            .counts
            .by_status
            .lock()
            .unwrap()
            .entry(reply.status)
            .or_default() += 1;
        Some(reply)
    }

    /// An answer holds nothing of anybody else's.
    fn check(&self, reply: &Reply, what: &str) {
        let (text, own) = (reply.text(), format!("{:03};", self.tenant));
        let foreign = marks(&text).find(|mark| *mark != own);
        assert_eq!(foreign, None, "{what} as tenant {}: {text}", self.tenant);
        if reply.status == 200 {
            assert!(
                marks(&text).next().is_some(),
                "{what}: nothing of tenant {} is in it: {text}",
                self.tenant
            );
        }
    }

    /// Writes something and panics before it is committed, at the level of use cases.
    async fn panic_in_a_unit_of_work(&mut self) {
        let request = RequestId::next(self.app.ports.ids.as_ref());
        let token = &self.tenants[self.tenant].token;
        // The session is looked up over the same connections.
        let Ok(admission) = self.app.ports.gate.bearer(token, request).await else {
            return;
        };
        let work = self.app.ports.units.write(
            &admission.scope,
            async |work: &mut Work| -> Result<(), StoreError> {
                let tx = tenant_tx(work)?;
                let change = task::ActiveModel {
                    title: Set("nobody's".into()),
                    ..Default::default()
                };
                tx.update::<task::Entity>().set(change).run().await?;
                // Past the hook that would print it.
                std::panic::resume_unwind(Box::new("on purpose"))
            },
        );
        match AssertUnwindSafe(work).catch_unwind().await {
            Err(_) => drop(self.counts.panics.fetch_add(1, Ordering::Relaxed)),
            Ok(outcome) => {
                let unavailable = matches!(outcome, Err(StoreError::Unavailable(_) | StoreError::Contention));
                assert!(unavailable, "{outcome:?}");
            }
        }
    }
}

/// The outcome, unless the future is still at work after so many steps: then it is dropped.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => {
            left -= 1;
            if left == 0 {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}

/// Kills backends of the runtime role and holds locks, for as long as a round goes on.
fn trouble(admin: String, over: Arc<AtomicBool>, counts: Arc<Counts>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        runtime().block_on(async {
            let mut killer = PgConnection::connect(&admin).await.unwrap();
            let mut locker = PgConnection::connect(&admin).await.unwrap();
            let mut pace = tokio::time::interval(Duration::from_millis(200));
            for turn in 0_u64.. {
                pace.tick().await;
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let killed: Vec<bool> = sqlx::query_scalar(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                     AND usename = 'tenantry_app' ORDER BY random() LIMIT 1",
                )
                .fetch_all(&mut killer)
                .await
                .unwrap();
                counts.killed.fetch_add(killed.into_iter().filter(|killed| *killed).count() as u64, Ordering::Relaxed);
                // Held for longer than the runtime role waits.
                let lock = match turn % 6 {
                    2 => "LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE",
                    4 => "LOCK TABLE projects IN EXCLUSIVE MODE",
                    0 => "SELECT 1 FROM tasks FOR UPDATE",
                    _ => continue,
                };
                // Waiting, it is as much in the way as holding; and it must not be the one who waits for ever.
                let sql = format!("BEGIN; SET LOCAL lock_timeout = '1s'; {lock}; SELECT pg_sleep(0.08); ROLLBACK");
                match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut locker).await {
                    Ok(_) => drop(counts.locks.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => run(&mut locker, "ROLLBACK").await,
                }
            }
        });
    })
}

async fn client(app: Arc<Tenancy>) -> Client {
    Client::new(Api::new(app, Options::default().http, Arc::new(Readiness::new()))).await
}

/// The server notices that a client is gone when it next reads from it.
async fn assert_nothing_is_left_open(world: &World) {
    let mut admin = world.database.admin().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let open: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s: %s', state, query) FROM pg_stat_activity WHERE datname = current_database() \
             AND usename = 'tenantry_app' AND state <> 'idle'",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "transactions are left open: {open:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Compares the marks in every row of every tenant table with the row's tenant. How many rows that were.
async fn assert_every_row_has_its_owner(world: &World, tenants: &[Tenant], counts: &Counts) -> i64 {
    let mut admin = world.database.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE a.attname = 'tenant_id' AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut checked = 0;
    for table in &tables {
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE m.mark[1] <> o.slug), count(*) FILTER (WHERE r.row LIKE '%nobody''s%') \
             FROM (SELECT tenant_id, to_jsonb(r)::text AS row FROM {table} r) r JOIN tenants o ON o.id = r.tenant_id \
             CROSS JOIN LATERAL regexp_matches(r.row, 'own=(t[0-9]{{3}});', 'g') m (mark)"
        );
        let (marked, wrong, panicked): (i64, i64, i64) = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        assert_eq!((wrong, panicked), (0, 0), "{table}");
        let rows = format!(
            "SELECT count(*) FROM {table} WHERE tenant_id IN (SELECT id FROM tenants WHERE slug ~ '^t[0-9]{{3}}$')"
        );
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(rows))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        if ["tasks", "projects", "users", "resources"].contains(&table.as_str()) {
            assert!(marked >= rows, "{table}: {marked} marks in {rows} rows");
        }
        checked += rows;
    }
    // What was acknowledged is there, and where it belongs.
    let made = counts.made.lock().unwrap().clone();
    let (owners, ids): (Vec<String>, Vec<String>) = made
        .iter()
        .map(|(tenant, id)| (format!("t{tenant:03}"), id.clone()))
        .unzip();
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM unnest($1::text[], $2::uuid[]) m (slug, id) JOIN tenants o USING (slug) \
         JOIN tasks t ON t.tenant_id = o.id AND t.id = m.id",
    )
    .bind(owners)
    .bind(ids)
    .fetch_one(&mut admin)
    .await
    .unwrap();
    assert_eq!(kept as usize, made.len(), "tasks that were acknowledged");
    assert!(
        made.len() > 200 && checked as usize > tenants.len() * 6,
        "{} tasks, {checked} rows",
        made.len()
    );
    checked
}

/// SplitMix64: chance that can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((value ^ (value >> 31)) % limit as u64) as usize
    }
}

/// One for all threads, so that a connection made on one can be used on another.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

// ---------------------------------------------------------------------------------------------------- the interleavings

/// What is done in a unit of work.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Everything that is visible is what the model says.
    Look,
    Insert,
    /// Every visible task gets a new title.
    Rename,
    DeleteOne,
    /// A statement that PostgreSQL refuses.
    Fail,
}

/// How a unit of work ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Commit,
    GiveUp,
    Panic,
    /// Dropped while a statement is under way.
    CancelQuery,
    /// Dropped while the statement is a slow one.
    CancelSlowQuery,
}

/// A unit of work of one of the two tenants.
#[derive(Debug, Clone)]
struct Unit {
    of_acme: bool,
    writes: bool,
    acts: Vec<Act>,
    end: End,
}

fn units() -> impl Strategy<Value = Vec<Unit>> {
    let act = prop_oneof![
        4 => Just(Act::Look),
        3 => Just(Act::Insert),
        2 => Just(Act::Rename),
        1 => Just(Act::DeleteOne),
        1 => Just(Act::Fail),
    ];
    let end = prop_oneof![
        6 => Just(End::Commit),
        2 => Just(End::GiveUp),
        1 => Just(End::Panic),
        2 => Just(End::CancelQuery),
        1 => Just(End::CancelSlowQuery),
    ];
    let unit = (
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::collection::vec(act, 0..6),
        end,
    );
    let unit = unit.prop_map(|(of_acme, writes, acts, end)| Unit {
        of_acme,
        writes,
        acts,
        end,
    });
    prop::collection::vec(unit, 1..16)
}

/// The titles of a tenant's tasks.
type Titles = Vec<String>;

#[test]
fn whatever_the_order_the_rows_that_are_visible_are_those_of_the_model() {
    let runtime = runtime();
    let local = LocalSet::new();
    let world = local.block_on(&runtime, async {
        let pool = PoolConfig {
            size: 1,
            acquire_timeout: Duration::from_secs(10),
            ..PoolConfig::default()
        };
        World::with(Options {
            pool,
            ..Options::default()
        })
        .await
    });
    let model = Mutex::new((titles_of(&world.acme), titles_of(&world.globex)));
    let config = Config {
        cases: 32,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&units(), |units| {
        local.block_on(&runtime, async {
            let scopes = (
                world.cx(&world.acme.admin).await.scope().clone(),
                world.cx(&world.globex.admin).await.scope().clone(),
            );
            for unit in units {
                // The rows are looked at within; a difference panics there, unlike the panics on purpose.
                let mut known = model.lock().unwrap().clone();
                let (tenant, scope, titles) = if unit.of_acme {
                    (&world.acme, &scopes.0, &mut known.0)
                } else {
                    (&world.globex, &scopes.1, &mut known.1)
                };
                let agreed = interpret(&world, tenant, scope, &unit, titles).await;
                *model.lock().unwrap() = known;
                agreed.map_err(TestCaseError::fail)?;
                assert_eq!(world.pool.max_size(), 1);
            }
            let seen = (
                all_titles(&world, &scopes.0).await,
                all_titles(&world, &scopes.1).await,
            );
            prop_assert_eq!(seen, model.lock().unwrap().clone());
            Ok(())
        })
    });
    outcome.unwrap();
    local.block_on(&runtime, assert_nothing_is_left_open(&world));
    drop(world);
}

fn titles_of(tenant: &TenantWorld) -> Titles {
    let name = if tenant.slug == "acme" {
        "Acme Inc"
    } else {
        "Globex Corp"
    };
    vec![format!("{name} task")]
}

/// Runs a unit and, when it is to be kept, changes the model like it. Says what differs.
async fn interpret(
    world: &World,
    tenant: &TenantWorld,
    scope: &TenantScope,
    unit: &Unit,
    titles: &mut Titles,
) -> Result<(), String> {
    let under_way = AtomicBool::new(false);
    let difference = Mutex::new(None);
    let before = titles.clone();
    let after = Mutex::new(titles.clone());
    let work = async |work: &mut Work| {
        let tx = tenant_tx(work)?;
        // A unit that is run again starts from where the model is.
        let mut now = before.clone();
        for act in &unit.acts {
            perform(tx, world, tenant, *act, &mut now, &difference).await?;
        }
        after.lock().unwrap().clone_from(&now);
        match unit.end {
            End::Commit => Ok(()),
            End::GiveUp => Err(StoreError::Other("given up".into())),
            End::Panic => std::panic::resume_unwind(Box::new("on purpose")),
            End::CancelQuery => {
                under_way.store(true, Ordering::Relaxed);
                loop {
                    tx.find::<task::Entity>().all().await?;
                }
            }
            End::CancelSlowQuery => {
                under_way.store(true, Ordering::Relaxed);
                let slow = Expr::cust("pg_sleep(0.02) IS NOT NULL");
                tx.find::<task::Entity>().filter(slow).all().await?;
                Err(StoreError::Other("there was nothing to be slow about".into()))
            }
        }
    };
    let units: &Units = &world.app.ports.units;
    let whole = async {
        if unit.writes {
            units.write(scope, work).await
        } else {
            units.read(scope, work).await
        }
    };
    let mut whole = pin!(AssertUnwindSafe(whole).catch_unwind());
    // Dropped at the first step after which the statement is under way.
    let outcome = poll_fn(|context| match whole.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if under_way.load(Ordering::Relaxed) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    if let Some(difference) = difference.lock().unwrap().take() {
        return Err(difference);
    }
    let fails = unit.acts.iter().any(|act| match act {
        Act::Look => false,
        Act::Fail => true,
        Act::Insert | Act::Rename | Act::DeleteOne => !unit.writes,
    });
    match (outcome, unit.end) {
        (Some(Ok(Ok(()))), End::Commit) if !fails => {
            if unit.writes {
                titles.clone_from(&after.lock().unwrap());
            }
            Ok(())
        }
        (Some(Ok(Err(_))), _) if fails => Ok(()),
        (Some(Ok(Err(StoreError::Other(_)))), End::GiveUp | End::CancelSlowQuery)
        | (Some(Err(_)), End::Panic) => Ok(()),
        (None, End::CancelQuery | End::CancelSlowQuery) => Ok(()),
        (outcome, end) => Err(format!("{end:?} came to {outcome:?}; {unit:?}")),
    }
}

async fn perform(
    tx: &mut TenantTx,
    world: &World,
    tenant: &TenantWorld,
    act: Act,
    now: &mut Titles,
    difference: &Mutex<Option<String>>,
) -> Result<(), StoreError> {
    let id = || Set(tenantry_domain::kernel::TaskId::next(world.app.ports.ids.as_ref()).uuid());
    let created = || Set(tenantry_domain::kernel::Clock::now(world.clock.as_ref()));
    let row = |title: &str| task::ActiveModel {
        id: id(),
        project_id: Set(tenant.project.uuid()),
        title: Set(title.to_owned()),
        status: Set("todo".into()),
        priority: Set("normal".into()),
        version: Set(1),
        created_at: created(),
        updated_at: created(),
        ..Default::default()
    };
    let label = format!("{} {}", tenant.slug, world.app.ports.ids.uuid());
    match act {
        Act::Look => {
            let rows = tx
                .find::<task::Entity>()
                .order_by_asc(task::Column::Title)
                .all()
                .await?;
            let count = tx.find::<task::Entity>().count().await?;
            let seen: Titles = rows.into_iter().map(|row| row.title).collect();
            now.sort();
            let mut seen = seen;
            seen.sort();
            if seen != *now || count as usize != now.len() {
                *difference.lock().unwrap() =
                    Some(format!("{} sees {seen:?} ({count}), not {now:?}", tenant.slug));
            }
        }
        Act::Insert => {
            tx.insert(row(&label)).await?;
            now.push(label);
        }
        Act::Rename => {
            let change = task::ActiveModel {
                title: Set(label.clone()),
                ..Default::default()
            };
            let changed = tx
                .update::<task::Entity>()
                .set(change)
                .filter(task::Column::Id.is_not_null())
                .run()
                .await?;
            if changed as usize != now.len() {
                *difference.lock().unwrap() =
                    Some(format!("{} renamed {changed}, not {}", tenant.slug, now.len()));
            }
            now.iter_mut().for_each(|title| title.clone_from(&label));
        }
        Act::DeleteOne => {
            let one = tx.find::<task::Entity>().one().await?;
            if let Some(one) = one {
                let deleted = tx
                    .delete::<task::Entity>()
                    .filter(task::Column::Id.eq(one.id))
                    .run()
                    .await?;
                let place = now.iter().position(|title| *title == one.title);
                match (deleted, place) {
                    (1, Some(place)) => drop(now.remove(place)),
                    other => *difference.lock().unwrap() = Some(format!("deleting {one:?}: {other:?}")),
                }
            } else {
                // In a transaction that only reads, a deletion of nothing is refused as well.
                tx.delete::<task::Entity>()
                    .filter(Expr::val(1).eq(1))
                    .run()
                    .await?;
            }
        }
        Act::Fail => {
            let orphan = task::ActiveModel {
                project_id: Set(uuid::Uuid::nil()),
                ..row(&label)
            };
            tx.insert(orphan).await?;
        }
    }
    Ok(())
}

/// A tenant's titles in order, read in a unit of work of their own.
async fn all_titles(world: &World, scope: &TenantScope) -> Titles {
    let read = world.app.ports.units.read(scope, async |work: &mut Work| {
        tenant_tx(work)?
            .find::<task::Entity>()
            .order_by_asc(task::Column::CreatedAt)
            .all()
            .await
    });
    read.await.unwrap().into_iter().map(|row| row.title).collect()
}
