//! What operators do to the system's own jobs.

use tenantry_domain::kernel::{SystemJobId, SystemScope};
use tenantry_domain::operations::{InvalidTransition, SystemJob, SystemJobs};

use crate::Tenancy;
use crate::operations::job::JobError;

/// Begins a dead or cancelled job anew.
///
/// # Errors
/// [`JobError`].
pub async fn replay(app: &Tenancy, jobs: &dyn SystemJobs, id: SystemJobId) -> Result<SystemJob, JobError> {
    let now = app.ports.clock.now();
    change(jobs, id, |job| job.progress.replay(now)).await
}

/// Cancels a job that has not come to its end.
///
/// # Errors
/// [`JobError`].
pub async fn cancel(app: &Tenancy, jobs: &dyn SystemJobs, id: SystemJobId) -> Result<SystemJob, JobError> {
    let now = app.ports.clock.now();
    change(jobs, id, |job| job.progress.cancel(now)).await
}

async fn change(
    jobs: &dyn SystemJobs,
    id: SystemJobId,
    step: impl FnOnce(&mut SystemJob) -> Result<(), InvalidTransition>,
) -> Result<SystemJob, JobError> {
    let because = SystemScope::because("an operator looks after the system's own jobs");
    let mut job = jobs.find(because, id).await?.ok_or(JobError::NotFound)?;
    let was = (
        job.progress.state,
        job.progress.lease.as_ref().map(|lease| lease.id),
    );
    step(&mut job)?;
    if jobs.update(because, &job, was).await? {
        Ok(job)
    } else {
        // A worker has taken a step in between.
        Err(InvalidTransition::From(was.0).into())
    }
}
