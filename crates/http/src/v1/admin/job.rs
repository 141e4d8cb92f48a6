use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::TenantId;
use tenantry_domain::operations::JobState;
use tenantry_tenancy::admin::operator_job::{self, JobStep, JobSummary};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::operator_permission as may;
use crate::extract::page::PageParams;
use crate::v1::kernel::schema;
use crate::{Answer, Body, Endpoint, Id, OperatorCtx, PageView, Paged};

/// Which jobs are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobParams {
    /// The jobs of this tenant; without it the system's own.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// Only of this state.
    #[param(value_type = schema::JobState, inline, required = false)]
    state: Option<JobState>,
}

/// A background job. Its payload is not shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "kind": "mail.send",
    "state": "dead", "attempts": 10, "max_attempts": 10, "run_at": "2026-01-31T12:00:00Z",
    "last_error": "the mail server does not answer", "created_at": "2026-01-31T11:00:00Z", "finished_at": "2026-01-31T12:00:01Z",
})))]
pub(crate) struct JobView {
    id: Uuid,
    /// Null for the system's own jobs.
    #[schema(value_type = Option<Uuid>, required = true)]
    tenant_id: Option<TenantId>,
    /// Which handler does it.
    kind: String,
    #[schema(value_type = schema::JobState)]
    state: JobState,
    attempts: u32,
    max_attempts: u32,
    /// When it is due.
    run_at: DateTime<Utc>,
    /// Why the last attempt failed.
    #[schema(required = true)]
    last_error: Option<String>,
    created_at: DateTime<Utc>,
    /// When it came to its end.
    #[schema(required = true)]
    finished_at: Option<DateTime<Utc>>,
}

/// Which job is changed, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobStep, examples(json!({
    "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "reason": "the mail server answers again",
})))]
pub(crate) struct JobStepBody {
    /// The tenant of the job; absent or null for one of the system's own.
    #[schema(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// It is written to the operators' log and to the tenant's audit log.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/jobs").get(list))
        .service(Endpoint::operator("/admin/jobs/{id}/replay").post(replay))
        .service(Endpoint::operator("/admin/jobs/{id}/cancel").post(cancel));
}

/// List background jobs
///
/// The jobs of one tenant, or the system's own.
#[utoipa::path(
    get, path = "/api/v1/admin/jobs", operation_id = "list_jobs", tag = "Operators",
    params(JobParams, PageParams),
    responses((status = 200, description = "The jobs, newest first.", body = PageView<JobView>, headers(("Link")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["not_found", "tenant_gone"]))),
)]
pub(crate) async fn list(cx: OperatorCtx<may::ReadJobs>, query: Paged<JobParams>) -> Answer {
    let JobParams { tenant_id, state } = query.filter;
    let page = operator_job::list(&cx, tenant_id, state, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(JobView::from)))
}

/// Replay a background job
///
/// Begins a dead or cancelled job anew.
#[utoipa::path(
    post, path = "/api/v1/admin/jobs/{id}/replay", operation_id = "replay_job", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = JobStepBody,
    responses((status = 200, description = "The job.", body = JobView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict", "tenant_gone"]))),
)]
pub(crate) async fn replay(
    cx: OperatorCtx<may::ManageJobs>,
    id: Id<Uuid>,
    body: Body<JobStepBody>,
) -> Answer {
    let job = operator_job::step(&cx, body.tenant_id, id.0, JobStep::Replay, &body.reason).await?;
    Ok(HttpResponse::Ok().json(JobView::from(job)))
}

/// Cancel a background job
///
/// Cancels a job that has not come to its end. A worker may still finish what it is doing of it.
#[utoipa::path(
    post, path = "/api/v1/admin/jobs/{id}/cancel", operation_id = "cancel_job", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = JobStepBody,
    responses((status = 200, description = "The job.", body = JobView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict", "tenant_gone"]))),
)]
pub(crate) async fn cancel(
    cx: OperatorCtx<may::ManageJobs>,
    id: Id<Uuid>,
    body: Body<JobStepBody>,
) -> Answer {
    let job = operator_job::step(&cx, body.tenant_id, id.0, JobStep::Cancel, &body.reason).await?;
    Ok(HttpResponse::Ok().json(JobView::from(job)))
}

impl From<JobSummary> for JobView {
    fn from(job: JobSummary) -> Self {
        let progress = job.progress;
        Self {
            id: job.id,
            tenant_id: job.tenant,
            kind: job.kind,
            state: progress.state,
            attempts: progress.attempts,
            max_attempts: progress.max_attempts,
            run_at: progress.run_at,
            last_error: progress.last_error,
            created_at: job.created_at,
            finished_at: progress.finished_at,
        }
    }
}
