use std::ops::RangeBounds;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Duration;
use sea_orm::sea_query::{Expr, InsertStatement, LockBehavior, LockType, OnConflict, UpdateStatement};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _,
};
use serde_json::json;
use tenantry_domain::kernel::{
    Clock, LeaseId, Page, PageRequest, Position, StoreError, SystemJobId, SystemScope, Time,
};
use tenantry_domain::operations::{
    Claim, Enqueued, InvalidTransition, JobState, Lease, Progress, SystemJob, SystemJobs,
};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::advisory;
use crate::kernel::error::column;
use crate::kernel::store::{exactly_one, unknown};
use crate::kernel::tx::{PlatformTx, before};
use crate::operations::job::{lease, signed};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "system_jobs")]
    pub struct Model {
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
        pub last_error: Option<String>,
        pub finished_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
use entity::{ActiveModel, Column, Entity, Model};

/// The system's own jobs, as the platform role; the runtime role has no grant on their table.
#[derive(Clone)]
pub struct PgSystemJobs {
    platform: Pool,
    schedules: Option<Arc<dyn Clock>>,
}

impl std::fmt::Debug for PgSystemJobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgSystemJobs").finish_non_exhaustive()
    }
}

impl PgSystemJobs {
    /// Jobs over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self {
            platform,
            schedules: None,
        }
    }

    /// The same with schedules that follow a clock in place of that of the database: for tests, which move time.
    #[must_use]
    pub fn scheduled_by(self, clock: Arc<dyn Clock>) -> Self {
        Self {
            schedules: Some(clock),
            ..self
        }
    }
}

#[async_trait]
impl SystemJobs for PgSystemJobs {
    async fn time(&self, because: SystemScope) -> Result<Time, StoreError> {
        if let Some(clock) = &self.schedules {
            return Ok(clock.now());
        }
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let now = clock(&mut tx).await?;
        tx.commit().await?;
        Ok(now)
    }

    async fn enqueue(&self, because: SystemScope, job: &SystemJob) -> Result<Enqueued, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let inserted = tx.execute(&insertion(job)).await?;
        tx.commit().await?;
        Ok(if inserted == 1 {
            Enqueued::Added
        } else {
            Enqueued::Duplicate
        })
    }

    async fn enqueue_due(&self, because: SystemScope, job: &SystemJob) -> Result<Enqueued, StoreError> {
        let waiting = Entity::find()
            .filter(Column::Kind.eq(job.kind.as_str()))
            .filter(Column::State.eq(JobState::Queued.as_str()))
            .filter(Column::Attempts.eq(0))
            .limit(1);
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let waiting = tx.fetch::<Entity>(&waiting.into_query()).await?;
        let inserted = match waiting.is_empty() {
            true => tx.execute(&insertion(job)).await?,
            false => 0,
        };
        tx.commit().await?;
        Ok(if inserted == 1 {
            Enqueued::Added
        } else {
            Enqueued::Duplicate
        })
    }

    async fn list(
        &self,
        because: SystemScope,
        state: Option<JobState>,
        limit: u32,
    ) -> Result<Vec<SystemJob>, StoreError> {
        let mut find = Entity::find()
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id);
        if let Some(state) = state {
            find = find.filter(Column::State.eq(state.as_str()));
        }
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx
            .fetch::<Entity>(&find.limit(u64::from(limit)).into_query())
            .await?;
        tx.commit().await?;
        rows.into_iter().map(SystemJob::try_from).collect()
    }

    async fn find(&self, because: SystemScope, id: SystemJobId) -> Result<Option<SystemJob>, StoreError> {
        let find = Entity::find().filter(Column::Id.eq(id.uuid()));
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch::<Entity>(&find.into_query()).await?;
        tx.commit().await?;
        rows.into_iter().next().map(SystemJob::try_from).transpose()
    }

    async fn claim(&self, because: SystemScope, claim: &Claim) -> Result<Vec<SystemJob>, StoreError> {
        let due = Condition::all()
            .add(Column::State.eq("queued"))
            .add(Column::RunAt.lte(claim.now));
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.fetch_fixed(advisory::CLAIM_JOBS, []).await?;
        let now = clock(&mut tx).await?;
        let abandoned = Condition::all()
            .add(Column::State.eq("running"))
            .add(Column::LeaseUntil.lte(now));
        let free = Entity::find()
            .filter(Expr::cust_with_values(OF_KINDS, [kinds(claim, 1..)]))
            .filter(Expr::cust_with_values::<_, sea_orm::Value, _>(
                FIRST_OF_ITS_KIND,
                [kinds(claim, 1..2).into(), claim.now.into()],
            ))
            .filter(Condition::any().add(due).add(abandoned))
            .order_by_asc(Column::RunAt)
            .order_by_asc(Column::Id)
            .limit(u64::from(claim.limit))
            .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked);
        let rows = tx.fetch::<Entity>(&free.into_query()).await?;
        let mut claimed = Vec::new();
        for row in rows {
            let mut job = SystemJob::try_from(row)?;
            let lease = Lease {
                id: claim.lease,
                worker: claim.worker.clone(),
                until: now + claim.ttl,
            };
            // A lease expires by the clock of the database, a job is due by that of the servers.
            let at = match job.progress.state {
                JobState::Running => now,
                _ => claim.now,
            };
            let step = job.progress.claim(lease, at);
            step.map_err(|transition: InvalidTransition| StoreError::Other(transition.to_string()))?;
            let update = Entity::update_many()
                .set(changes(&job.progress))
                .filter(Column::Id.eq(job.id.uuid()));
            tx.execute(&update.into_query()).await?;
            claimed.push(job);
        }
        tx.commit().await?;
        Ok(claimed)
    }

    async fn extend(
        &self,
        because: SystemScope,
        id: SystemJobId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let extended = ActiveModel {
            lease_until: Set(Some(clock(&mut tx).await? + ttl)),
            ..Default::default()
        };
        let held = (JobState::Running, Some(lease));
        let changed = tx.execute(&changing(id, extended, held)).await?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    async fn delete_finished(&self, because: SystemScope, before: Time) -> Result<u64, StoreError> {
        let delete = Entity::delete_many()
            .filter(Column::State.is_in([JobState::Done.as_str(), JobState::Cancelled.as_str()]))
            .filter(Column::FinishedAt.lt(before));
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let deleted = tx.execute(&delete.into_query()).await?;
        tx.commit().await?;
        Ok(deleted)
    }

    async fn update(
        &self,
        because: SystemScope,
        job: &SystemJob,
        was: (JobState, Option<LeaseId>),
    ) -> Result<bool, StoreError> {
        self.change(because, job.id, changes(&job.progress), was).await
    }
}

impl PgSystemJobs {
    async fn change(
        &self,
        because: SystemScope,
        id: SystemJobId,
        row: ActiveModel,
        was: (JobState, Option<LeaseId>),
    ) -> Result<bool, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let changed = tx.execute(&changing(id, row, was)).await?;
        tx.commit().await?;
        Ok(changed == 1)
    }
}

/// Changes a job that is in this state and under this lease.
fn changing(
    id: SystemJobId,
    row: ActiveModel,
    (state, lease): (JobState, Option<LeaseId>),
) -> UpdateStatement {
    let mut update = Entity::update_many()
        .set(row)
        .filter(Column::Id.eq(id.uuid()))
        .filter(Column::State.eq(state.as_str()));
    if let Some(lease) = lease {
        update = update.filter(Column::LeaseId.eq(lease.uuid()));
    }
    update.into_query()
}

/// A page of jobs, newest first.
pub(crate) async fn page(
    tx: &mut PlatformTx,
    state: Option<JobState>,
    page: PageRequest,
) -> Result<Page<SystemJob>, StoreError> {
    let mut find = Entity::find();
    if let Some(state) = state {
        find = find.filter(Column::State.eq(state.as_str()));
    }
    if let Some(after) = page.after {
        find = find.filter(before(Column::CreatedAt, Column::Id, after));
    }
    let find = find
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .limit(u64::from(page.limit) + 1);
    let rows = tx.fetch::<Entity>(&find.into_query()).await?;
    let position = |row: &Model| Position {
        created_at: row.created_at,
        id: row.id,
    };
    Page::from_rows(rows, page, position).try_map(SystemJob::try_from)
}

/// A job, locked until the transaction ends.
pub(crate) async fn find_for_update(
    tx: &mut PlatformTx,
    id: SystemJobId,
) -> Result<Option<SystemJob>, StoreError> {
    let find = Entity::find().filter(Column::Id.eq(id.uuid()));
    let rows = tx
        .fetch::<Entity>(&find.lock(LockType::Update).into_query())
        .await?;
    rows.into_iter().next().map(SystemJob::try_from).transpose()
}

/// Stores how far a job is that the transaction has locked.
pub(crate) async fn store(tx: &mut PlatformTx, job: &SystemJob) -> Result<(), StoreError> {
    let update = Entity::update_many()
        .set(changes(&job.progress))
        .filter(Column::Id.eq(job.id.uuid()));
    exactly_one(tx.execute(&update.into_query()).await?)
}

/// The time by the clock of the database, after any wait for a lock.
async fn clock(tx: &mut PlatformTx) -> Result<Time, StoreError> {
    let rows = tx.fetch_fixed(CLOCK, []).await?;
    let row = rows.first();
    let row = row.ok_or_else(|| StoreError::Other("the clock of the database gave no time".into()))?;
    column(row, "at")
}

/// The kinds of a claim with so many places, in JSON, so that a statement is the same for any number of kinds.
fn kinds(claim: &Claim, places: impl RangeBounds<u32>) -> serde_json::Value {
    let kinds = claim.places.iter().filter(|(_, left)| places.contains(left));
    json!(kinds.map(|(kind, _)| kind).collect::<Vec<_>>())
}

/// `$1` kinds.
const OF_KINDS: &str = r#""system_jobs"."kind" IN (SELECT jsonb_array_elements_text($1))"#;

/// `$1` kinds of which one job runs at a time, `$2` the time by which jobs are due. Of such a kind the job that runs comes first, though
/// its lease has expired, and the others by age: while its lease is in force none is free, and what a lost worker has left is taken over
/// before the next one begins. Claims take turns, so that no two of them see the same one first.
const FIRST_OF_ITS_KIND: &str = r#"("system_jobs"."kind" NOT IN (SELECT jsonb_array_elements_text($1))
 OR "system_jobs"."id" IN (SELECT DISTINCT ON (o.kind) o.id FROM system_jobs o
 WHERE o.state = 'running' OR o.state = 'queued' AND o.run_at <= $2
 ORDER BY o.kind, o.lease_until DESC NULLS LAST, o.run_at, o.id))"#;

const CLOCK: &str = "SELECT clock_timestamp() AS at";

impl TryFrom<Model> for SystemJob {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            kind: row.kind,
            schema_version: row.schema_version,
            payload: row.payload,
            dedupe_key: row.dedupe_key,
            progress: Progress {
                state: JobState::parse(&row.state).ok_or_else(|| unknown("system_jobs.state", &row.state))?,
                run_at: row.run_at,
                attempts: row.attempts.unsigned_abs(),
                max_attempts: row.max_attempts.unsigned_abs(),
                lease: lease(row.lease_id, row.lease_until, row.worker),
                last_error: row.last_error,
                finished_at: row.finished_at,
            },
            created_at: row.created_at,
        })
    }
}

/// The statement that puts a job into the queue, unless one with its key is there.
pub(crate) fn insertion(job: &SystemJob) -> InsertStatement {
    let row = ActiveModel {
        id: Set(job.id.uuid()),
        created_at: Set(job.created_at),
        kind: Set(job.kind.clone()),
        schema_version: Set(job.schema_version),
        payload: Set(job.payload.clone()),
        dedupe_key: Set(job.dedupe_key.clone()),
        max_attempts: Set(signed(job.progress.max_attempts)),
        ..changes(&job.progress)
    };
    let nothing = OnConflict::new().do_nothing().to_owned();
    sea_orm::Insert::one(row).on_conflict(nothing).into_query()
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
