use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::Duration;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, QueryResult, Value, sea_query::Expr};
use serde_json::json;
use tenantry_domain::kernel::{JobId, Page, PageRequest, Position, RequestId, StoreError, SystemScope, Time};
use tenantry_domain::operations::{
    Claim, Enqueued, Job, JobCensus, JobFilter, JobQueue, JobState, Jobs, Lease, Progress,
};
use tenantry_domain::store::Mode;
use tenantry_domain::tenant::{Initiator, JobLease};
use uuid::Uuid;

use crate::Pool;
use crate::kernel::advisory;
use crate::kernel::error::column;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Delete, Lock, PlatformTx};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "jobs")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub kind: String,
        pub schema_version: i32,
        pub payload: Json,
        pub dedupe_key: Option<String>,
        pub state: String,
        pub run_at: DateTimeUtc,
        pub attempts: i32,
        pub max_attempts: i32,
        pub lease_id: Option<Uuid>,
        pub lease_until: Option<DateTimeUtc>,
        pub worker: Option<String>,
        pub trace_parent: Option<String>,
        pub actor_type: String,
        pub actor_id: Option<Uuid>,
        pub request_id: String,
        pub last_error: Option<String>,
        pub finished_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Jobs for PgStore {
    async fn enqueue(&mut self, job: &Job) -> Result<Enqueued, StoreError> {
        let row = ActiveModel {
            id: Set(job.id.uuid()),
            created_at: Set(job.created_at),
            kind: Set(job.kind.clone()),
            schema_version: Set(job.schema_version),
            payload: Set(job.payload.clone()),
            dedupe_key: Set(job.dedupe_key.clone()),
            max_attempts: Set(signed(job.progress.max_attempts)),
            trace_parent: Set(job.trace_parent.clone()),
            actor_type: Set(job.initiator.actor_type.clone()),
            actor_id: Set(job.initiator.actor_id.map(tenantry_domain::kernel::UserId::uuid)),
            request_id: Set(job.initiator.request.as_str().to_owned()),
            ..changes(&job.progress)
        };
        let added = self.tx.insert_unless_there(row).await?;
        Ok(if added {
            Enqueued::Added
        } else {
            Enqueued::Duplicate
        })
    }

    async fn list(&mut self, filter: JobFilter, page: PageRequest) -> Result<Page<Job>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        if let Some(state) = filter.state {
            find = find.filter(Column::State.eq(state.as_str()));
        }
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let found = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        found.try_map(Job::try_from)
    }

    async fn find(&mut self, id: JobId) -> Result<Option<Job>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        find.one().await?.map(Job::try_from).transpose()
    }

    async fn find_open(&mut self, kind: &str, dedupe_key: &str) -> Result<Option<Job>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Kind.eq(kind));
        let find = find.filter(Column::DedupeKey.eq(dedupe_key));
        find.filter(Expr::cust(OPEN))
            .one()
            .await?
            .map(Job::try_from)
            .transpose()
    }

    async fn count_open(&mut self, kind: &str, most: u64) -> Result<u64, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Kind.eq(kind));
        let find = find
            .filter(Column::DedupeKey.is_not_null())
            .filter(Expr::cust(OPEN));
        find.limit(most).count().await
    }

    async fn find_for_update(&mut self, id: JobId) -> Result<Option<Job>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        find.lock(Lock::Update)
            .one()
            .await?
            .map(Job::try_from)
            .transpose()
    }

    async fn update(&mut self, job: &Job) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(&job.progress));
        exactly_one(update.filter(Column::Id.eq(job.id.uuid())).run().await?)
    }

    async fn delete_finished_of(&mut self, kind: &str, before: Time) -> Result<u64, StoreError> {
        self.finished(before).filter(Column::Kind.eq(kind)).run().await
    }

    async fn delete_finished(&mut self, before: Time) -> Result<u64, StoreError> {
        self.finished(before).run().await
    }
}

/// As literals: the condition of the unique index, whatever values a plan is made for.
const OPEN: &str = r#""jobs"."state" IN ('queued', 'running', 'parked')"#;

impl PgStore {
    /// Deletes the jobs that were done or cancelled before then.
    fn finished(&mut self, before: Time) -> Delete<'_, Entity> {
        let finished = [JobState::Done, JobState::Cancelled].map(JobState::as_str);
        let delete = self.tx.delete::<Entity>();
        delete
            .filter(Column::State.is_in(finished))
            .filter(Column::FinishedAt.lt(before))
    }
}

impl TryFrom<Model> for Job {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let request = RequestId::parse(&row.request_id);
        let lease = lease(row.lease_id, row.lease_until, row.worker);
        Ok(Self {
            id: row.id.into(),
            kind: row.kind,
            schema_version: row.schema_version,
            payload: row.payload,
            dedupe_key: row.dedupe_key,
            trace_parent: row.trace_parent,
            initiator: Initiator {
                actor_type: row.actor_type,
                actor_id: row.actor_id.map(Into::into),
                request: request.ok_or_else(|| unknown("jobs.request_id", &row.request_id))?,
            },
            progress: Progress {
                state: JobState::parse(&row.state).ok_or_else(|| unknown("jobs.state", &row.state))?,
                run_at: row.run_at,
                attempts: row.attempts.unsigned_abs(),
                max_attempts: row.max_attempts.unsigned_abs(),
                lease,
                last_error: row.last_error,
                finished_at: row.finished_at,
            },
            created_at: row.created_at,
        })
    }
}

/// The three columns of a lease, which the database keeps together.
pub(crate) fn lease(id: Option<Uuid>, until: Option<Time>, worker: Option<String>) -> Option<Lease> {
    let (id, until, worker) = (id?.into(), until?, worker?);
    Some(Lease { id, worker, until })
}

/// A count of attempts, which the domain keeps far below this.
pub(crate) fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn changes(progress: &Progress) -> ActiveModel {
    let lease = progress.lease.as_ref();
    ActiveModel {
        state: Set(progress.state.as_str().to_owned()),
        run_at: Set(progress.run_at),
        attempts: Set(signed(progress.attempts)),
        lease_id: Set(lease.map(|lease| lease.id.uuid())),
        lease_until: Set(lease.map(|lease| lease.until)),
        worker: Set(lease.map(|lease| lease.worker.clone())),
        last_error: Set(progress.last_error.clone()),
        finished_at: Set(progress.finished_at),
        ..Default::default()
    }
}

/// The queue across tenants, as the platform role, which has no grant to read what is in a job.
#[derive(Debug, Clone)]
pub struct PgJobQueue {
    platform: Pool,
    /// As far as the round through the tenants has come; the nil id is before all of them.
    seen: Arc<Mutex<Uuid>>,
}

impl PgJobQueue {
    /// A queue over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self {
            platform,
            seen: Arc::default(),
        }
    }

    /// Where the next claim's round goes on: behind the last tenant of this one, or at the beginning when there are no more.
    fn go_on_behind(&self, tenant: Option<Uuid>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = tenant.unwrap_or_default();
    }

    fn seen(&self) -> Uuid {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `$1` now, `$2` lease, `$3` its milliseconds, `$4` worker, `$5` limit, `$6` share of a tenant, `$7` the tenant behind which the round
/// goes on, `$8` how many steps of it, `$9` the kinds that the worker has handlers for, with their places.
///
/// However many jobs and tenants there are, it looks at so many tenants only: the next ones of a round through all that have open
/// jobs, which hops through the index from tenant to tenant. An index by time alone would find what is due sooner, and lead
/// to rows of all tenants; there is none of that kind. Of each tenant the oldest free jobs are looked at, as far as its share
/// goes; `turn` puts the first of each tenant before the second of any. Only what is taken is locked. Leases begin and expire by
/// the clock of the database; whether a job is due is decided by the clock of the servers, one of which set `run_at`.
const CLAIM: &str = "\
WITH RECURSIVE round (tenant_id, step) AS (
    (SELECT j.tenant_id, 1::bigint FROM jobs j
      WHERE j.state IN ('queued', 'running', 'parked') AND j.tenant_id > $7 ORDER BY j.tenant_id LIMIT 1)
    UNION ALL
    SELECT next.tenant_id, r.step + 1 FROM round r
     CROSS JOIN LATERAL (
        SELECT j.tenant_id FROM jobs j
         WHERE j.state IN ('queued', 'running', 'parked') AND j.tenant_id > r.tenant_id ORDER BY j.tenant_id LIMIT 1
     ) next
     WHERE r.step < $8
), free AS (
    SELECT f.tenant_id, f.id, f.kind, f.run_at, t.status,
           r.running + row_number() OVER (PARTITION BY f.tenant_id ORDER BY f.run_at, f.id) AS turn
      FROM round w
      JOIN tenants t ON t.id = w.tenant_id
     CROSS JOIN LATERAL (
        SELECT count(*) AS running FROM jobs j
         WHERE j.tenant_id = w.tenant_id AND j.state = 'running' AND j.lease_until > statement_timestamp()
     ) r
     CROSS JOIN LATERAL (
        (SELECT j.tenant_id, j.id, j.kind, j.run_at FROM jobs j
          WHERE j.tenant_id = w.tenant_id AND j.state = 'queued' AND j.run_at <= $1
            AND ($9::jsonb ->> j.kind)::bigint > 0
          ORDER BY j.run_at, j.id LIMIT greatest($6 - r.running, 0))
        UNION ALL
        (SELECT j.tenant_id, j.id, j.kind, j.run_at FROM jobs j
          WHERE j.tenant_id = w.tenant_id AND j.state = 'parked' AND t.status = 'active'
            AND ($9::jsonb ->> j.kind)::bigint > 0
          ORDER BY j.run_at, j.id LIMIT greatest($6 - r.running, 0))
        UNION ALL
        (SELECT j.tenant_id, j.id, j.kind, j.run_at FROM jobs j
          WHERE j.tenant_id = w.tenant_id AND j.state = 'running' AND j.lease_until <= statement_timestamp()
            AND ($9::jsonb ->> j.kind)::bigint > 0
          ORDER BY j.run_at, j.id LIMIT greatest($6 - r.running, 0))
     ) f
), placed AS (
    SELECT f.tenant_id, f.id, f.kind, f.run_at, f.status, f.turn,
           row_number() OVER (PARTITION BY f.kind ORDER BY f.turn, f.run_at, f.id) AS place
      FROM free f WHERE f.turn <= $6
), chosen AS (
    SELECT tenant_id, id, run_at, status, turn FROM placed
     WHERE place <= ($9::jsonb ->> kind)::bigint ORDER BY turn, run_at, id LIMIT $5
), locked AS (
    SELECT j.tenant_id, j.id, c.run_at, c.turn FROM chosen c
      JOIN jobs j ON j.tenant_id = c.tenant_id AND j.id = c.id
     WHERE (j.state = 'queued' AND j.run_at <= $1) OR (j.state = 'parked' AND c.status = 'active')
        OR (j.state = 'running' AND j.lease_until <= statement_timestamp())
       FOR NO KEY UPDATE OF j SKIP LOCKED
), leased AS (
    UPDATE jobs j SET state = 'running', attempts = j.attempts + 1, lease_id = $2, worker = $4,
           lease_until = statement_timestamp() + $3 * interval '1 millisecond'
      FROM locked l WHERE j.tenant_id = l.tenant_id AND j.id = l.id
    RETURNING j.tenant_id, j.id, j.kind, l.turn, l.run_at
)
SELECT seen.tenant_id AS seen, l.tenant_id, l.id, l.kind
  FROM (SELECT (SELECT r.tenant_id FROM round r WHERE r.step = $8) AS tenant_id) seen
  LEFT JOIN leased l ON true
 ORDER BY l.turn, l.run_at, l.id";

/// How many tenants of the round a claim looks at: each costs some six microseconds. While there are no more than that with
/// open jobs, each claim sees all of them; otherwise what is due waits for as many claims as there are thousands.
const STEPS: i64 = 1_024;

const EXTEND: &str = "\
UPDATE jobs j SET lease_until = statement_timestamp() + $1 * interval '1 millisecond'
  FROM jsonb_to_recordset($2) AS held (tenant_id uuid, id uuid, lease_id uuid)
 WHERE j.tenant_id = held.tenant_id AND j.id = held.id AND j.state = 'running' AND j.lease_id = held.lease_id
RETURNING j.id";

const RELEASE: &str = "\
UPDATE jobs j
   SET state = 'queued', attempts = greatest(j.attempts - 1, 0), lease_id = NULL, lease_until = NULL, worker = NULL
  FROM jsonb_to_recordset($1) AS held (tenant_id uuid, id uuid, lease_id uuid)
 WHERE j.tenant_id = held.tenant_id AND j.id = held.id AND j.state = 'running' AND j.lease_id = held.lease_id
RETURNING j.id";

/// What is open and what is dead is counted in the partial indexes of these: nearly all of the table has come to its end in
/// another way.
const CENSUS: &str = "\
SELECT state, sum(jobs)::bigint AS jobs, min(oldest) AS oldest FROM (
    SELECT state, count(*) AS jobs, min(run_at) AS oldest FROM jobs
     WHERE state IN ('queued', 'running', 'parked') GROUP BY state
    UNION ALL
    SELECT 'dead', count(*), NULL FROM jobs WHERE state = 'dead'
    UNION ALL
    SELECT state, count(*), min(run_at) FROM system_jobs WHERE state IN ('queued', 'running', 'dead') GROUP BY state
) counted GROUP BY state";

const PARK: &str = "\
UPDATE jobs j
   SET state = 'parked', attempts = greatest(j.attempts - 1, 0), lease_id = NULL, lease_until = NULL, worker = NULL
  FROM tenants t
 WHERE t.id = $1 AND t.status IN ('deleted', 'purged')
   AND j.tenant_id = $1 AND j.id = $2 AND j.state = 'running' AND j.lease_id = $3
RETURNING j.id";

#[async_trait]
impl JobQueue for PgJobQueue {
    async fn claim(&self, because: SystemScope, claim: &Claim) -> Result<Vec<JobLease>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.fetch_fixed(advisory::CLAIM_JOBS, []).await?;
        let arguments = [
            claim.now.into(),
            claim.lease.uuid().into(),
            claim.ttl.num_milliseconds().into(),
            claim.worker.clone().into(),
            i64::from(claim.limit).into(),
            i64::from(claim.per_tenant).into(),
            self.seen().into(),
            STEPS.into(),
            json!(claim.places).into(),
        ];
        let rows = tx.fetch_fixed(CLAIM, arguments).await?;
        tx.commit().await?;
        // Every row says how far the round has come; without a lease there is one that says nothing else.
        if let Some(row) = rows.first() {
            self.go_on_behind(column(row, "seen")?);
        }
        let mut leases = Vec::new();
        for row in &rows {
            if let Some(tenant) = column::<Option<Uuid>>(row, "tenant_id")? {
                leases.push(JobLease {
                    tenant: tenant.into(),
                    job: column::<Uuid>(row, "id")?.into(),
                    kind: column(row, "kind")?,
                    lease: claim.lease,
                });
            }
        }
        Ok(leases)
    }

    async fn extend(
        &self,
        because: SystemScope,
        leases: &[JobLease],
        ttl: Duration,
    ) -> Result<Vec<JobId>, StoreError> {
        let arguments = vec![ttl.num_milliseconds().into(), keys(leases)];
        let rows = self.run(because, EXTEND, arguments).await?;
        rows.iter()
            .map(|row| Ok(column::<Uuid>(row, "id")?.into()))
            .collect()
    }

    async fn release(&self, because: SystemScope, leases: &[JobLease]) -> Result<u64, StoreError> {
        Ok(self.run(because, RELEASE, vec![keys(leases)]).await?.len() as u64)
    }

    async fn census(&self, because: SystemScope) -> Result<JobCensus, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(CENSUS, []).await?;
        tx.commit().await?;
        let mut census = JobCensus::default();
        for row in &rows {
            let state: String = column(row, "state")?;
            let count = column::<i64>(row, "jobs")?.unsigned_abs();
            match JobState::parse(&state).ok_or_else(|| unknown("jobs.state", &state))? {
                JobState::Queued => {
                    census.queued = count;
                    census.oldest_queued = column(row, "oldest")?;
                }
                JobState::Running => census.running = count,
                JobState::Parked => census.parked = count,
                JobState::Dead => census.dead = count,
                JobState::Done | JobState::Cancelled => {}
            }
        }
        Ok(census)
    }

    async fn park_of_deleted(&self, because: SystemScope, lease: &JobLease) -> Result<bool, StoreError> {
        let (tenant, job) = (lease.tenant.uuid().into(), lease.job.uuid().into());
        let arguments = vec![tenant, job, lease.lease.uuid().into()];
        Ok(!self.run(because, PARK, arguments).await?.is_empty())
    }
}

impl PgJobQueue {
    async fn run(
        &self,
        because: SystemScope,
        sql: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let rows = tx.fetch_fixed(sql, arguments).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// Tenants, jobs and leases as one argument, whose rows the statement joins.
fn keys(leases: &[JobLease]) -> Value {
    let key = |held: &JobLease| {
        let (tenant, id, lease) = (held.tenant.uuid(), held.job.uuid(), held.lease.uuid());
        json!({"tenant_id": tenant, "id": id, "lease_id": lease})
    };
    serde_json::Value::Array(leases.iter().map(key).collect()).into()
}
