//! Background jobs, as operators see and repair them. Payloads are not shown: they are the tenants'.

use serde_json::json;
use tenantry_domain::kernel::{Check, JobId, Page, PageRequest, SystemJobId, TenantId};
use tenantry_domain::operations::{
    InvalidTransition, Job, JobFilter, JobState, OperatorPermission, Progress, SystemJob,
};
use tenantry_domain::tenant::Denied;
use uuid::Uuid;

use crate::kernel::context::Cx;
use crate::operations::job::{self, JobError};
use crate::{OperatorCx, OwnReason, UseCaseError};

/// Errors of the use cases of operators' jobs.
pub type OperatorJobError = UseCaseError<OperatorJobReason>;

/// Why a job stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperatorJobReason {
    /// The job is not in a state for it.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// Another open job has its key.
    #[error("an open job has the same key")]
    KeyTaken,
}

impl OwnReason for OperatorJobReason {}

impl From<JobError> for OperatorJobError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Invalid(invalid) => invalid.into(),
            JobError::NotFound | JobError::Denied(Denied::TenantNotFound) => Self::NotFound,
            JobError::InvalidTransition(refused) => OperatorJobReason::from(refused).into(),
            JobError::KeyTaken => OperatorJobReason::KeyTaken.into(),
            JobError::Denied(denied) => denied.into(),
            JobError::Store(error) => error.into(),
        }
    }
}

/// A job without its payload.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSummary {
    /// Identifies the job in its tenant, or on the platform.
    pub id: Uuid,
    /// The tenant; `None` of the system's own.
    pub tenant: Option<TenantId>,
    /// Which handler does it.
    pub kind: String,
    /// How far it is.
    pub progress: Progress,
    /// When it was asked for.
    pub created_at: tenantry_domain::kernel::Time,
}

/// What to do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStep {
    /// Begins a dead or cancelled job anew.
    Replay,
    /// Cancels a job that has not come to its end.
    Cancel,
}

impl JobStep {
    const fn action(self) -> &'static str {
        match self {
            Self::Replay => "job.replayed",
            Self::Cancel => "job.cancelled",
        }
    }

    const fn failed(self) -> &'static str {
        match self {
            Self::Replay => "job.replay_failed",
            Self::Cancel => "job.cancel_failed",
        }
    }
}

/// A page of the jobs of a tenant, or of the system's own, newest first.
///
/// # Errors
/// [`OperatorJobError`].
pub async fn list(
    cx: &OperatorCx,
    tenant: Option<TenantId>,
    state: Option<JobState>,
    page: PageRequest,
) -> Result<Page<JobSummary>, OperatorJobError> {
    cx.require(OperatorPermission::ReadJobs)?;
    let record = cx.record(
        "jobs.listed",
        tenant,
        json!({"state": state.map(JobState::as_str)}),
    );
    let Some(tenant) = tenant else {
        let mut work = cx.begin().await?;
        let jobs = work.system_jobs(state, page).await?;
        work.commit(record).await?;
        return Ok(jobs.map(JobSummary::from));
    };
    cx.announce(record).await?;
    let inside = inside(cx, tenant).await?;
    let filter = JobFilter { state };
    let jobs = inside
        .read(async |work| work.jobs().list(filter, page).await)
        .await?;
    Ok(jobs.map(|job| JobSummary::of(tenant, job)))
}

/// Replays or cancels a job of a tenant, or of the system's own where no tenant is named.
///
/// # Errors
/// [`OperatorJobError`].
pub async fn step(
    cx: &OperatorCx,
    tenant: Option<TenantId>,
    id: Uuid,
    step: JobStep,
    reason: &str,
) -> Result<JobSummary, OperatorJobError> {
    cx.require(OperatorPermission::ManageJobs)?;
    Check::all(|check| check.line("/reason", reason, 1..=500))?;
    let mut record = cx.record(step.action(), tenant, json!({"job": id}));
    record.reason = Some(reason.to_owned());
    let Some(tenant) = tenant else {
        let mut work = cx.begin().await?;
        let job = work.system_job_for_update(SystemJobId::from(id)).await?;
        let mut job = job.ok_or(OperatorJobError::NotFound)?;
        apply(&mut job.progress, step, cx).map_err(OperatorJobReason::from)?;
        work.update_system_job(&job).await?;
        work.commit(record).await?;
        return Ok(job.into());
    };
    let done = cx.act(record, step.failed(), async {
        let inside = inside(cx, tenant).await?;
        let done = job::change(&inside, JobId::from(id), (step.action(), Some(reason)), |job| {
            apply(&mut job.progress, step, cx)
        });
        Ok::<_, OperatorJobError>(done.await?)
    });
    Ok(JobSummary::of(tenant, done.await?))
}

fn apply(progress: &mut Progress, step: JobStep, cx: &OperatorCx) -> Result<(), InvalidTransition> {
    match step {
        JobStep::Replay => progress.replay(cx.now()),
        JobStep::Cancel => progress.cancel(cx.now()),
    }
}

/// The context of the operator in a tenant, whose log names the operator.
async fn inside(cx: &OperatorCx, tenant: TenantId) -> Result<Cx, OperatorJobError> {
    let entered = job::operator(cx.app(), tenant).await.map_err(JobError::from)?;
    Ok(cx.inside(entered.scope().clone()))
}

impl JobSummary {
    fn of(tenant: TenantId, job: Job) -> Self {
        Self {
            id: job.id.uuid(),
            tenant: Some(tenant),
            kind: job.kind,
            progress: job.progress,
            created_at: job.created_at,
        }
    }
}

impl From<SystemJob> for JobSummary {
    fn from(job: SystemJob) -> Self {
        Self {
            id: job.id.uuid(),
            tenant: None,
            kind: job.kind,
            progress: job.progress,
            created_at: job.created_at,
        }
    }
}
