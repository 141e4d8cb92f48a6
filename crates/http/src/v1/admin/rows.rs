use actix_web::web::ServiceConfig;
use chrono::{DateTime, Datelike as _, Duration, NaiveTime, Utc};
use serde::Deserialize;
use tenantry_domain::kernel::{Invalid, Period, TenantId, Time};
use tenantry_domain::operations::{PlatformProject, PlatformTask, PlatformUsage, PlatformUser};
use tenantry_tenancy::admin::operator_rows;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::operator_permission as may;
use crate::extract::{bypass_reason::BypassReason, page::PageParams};
use crate::v1::kernel::schema;
use crate::{Answer, Endpoint, Moment, OperatorCtx, PageView, Paged};

/// Whose rows are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RowParams {
    /// Only of this tenant.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
}

/// Whose usage is listed, and of when.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageOfTenantsParams {
    /// Only of this tenant.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// The first day, in UTC; by default the first of the month.
    #[param(value_type = Option<DateTime<Utc>>)]
    from: Option<Moment>,
    /// Days from this time on are left out; at most 31 days after `from`, by default now.
    #[param(value_type = Option<DateTime<Utc>>)]
    to: Option<Moment>,
}

/// A user of a tenant.
#[derive(ToSchema)]
#[schema(as = UserOfTenant)]
#[expect(dead_code, reason = "it only describes `PlatformUser`")]
pub(crate) struct UserDocument {
    tenant_id: Uuid,
    id: Uuid,
    email: String,
    full_name: String,
    #[schema(value_type = schema::Role)]
    role: String,
    is_active: bool,
    email_verified: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A project of a tenant, without its description.
#[derive(ToSchema)]
#[schema(as = ProjectOfTenant)]
#[expect(dead_code, reason = "it only describes `PlatformProject`")]
pub(crate) struct ProjectDocument {
    tenant_id: Uuid,
    id: Uuid,
    name: String,
    #[schema(value_type = schema::ProjectStatus)]
    status: String,
    owner_id: Uuid,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A task of a tenant, without its description.
#[derive(ToSchema)]
#[schema(as = TaskOfTenant)]
#[expect(dead_code, reason = "it only describes `PlatformTask`")]
pub(crate) struct TaskDocument {
    tenant_id: Uuid,
    id: Uuid,
    project_id: Uuid,
    title: String,
    #[schema(value_type = schema::TaskStatus)]
    status: String,
    #[schema(value_type = schema::Priority)]
    priority: String,
    #[schema(required = true)]
    assignee_id: Option<Uuid>,
    #[schema(required = true)]
    due_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// What a tenant used of a meter on a day.
#[derive(ToSchema)]
#[schema(as = UsageOfTenant)]
#[expect(dead_code, reason = "it only describes `PlatformUsage`")]
pub(crate) struct UsageDocument {
    tenant_id: Uuid,
    meter: String,
    /// The beginning of the day, in UTC.
    day: DateTime<Utc>,
    /// How much, as the meter combines events.
    quantity: i64,
    /// The number of events.
    events: i64,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/users").get(users))
        .service(Endpoint::operator("/admin/projects").get(projects))
        .service(Endpoint::operator("/admin/tasks").get(tasks))
        .service(Endpoint::operator("/admin/usage").get(usage));
}

/// List users across tenants
///
/// Users of tenants that are not deleted. The read is recorded in the operators' log, and in the audit log of each tenant whose users are
/// shown. For support and owners, with a recent second factor.
#[utoipa::path(
    get, path = "/api/v1/admin/users", operation_id = "list_users_of_tenants", tag = "Operators",
    params(RowParams, PageParams, BypassReason),
    responses((
        status = 200, description = "The users, by tenant and id, the newest first.", body = PageView<UserDocument>,
        headers(("Link"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "bypass_reason_required", "rate_limited"]))),
)]
pub(crate) async fn users(
    cx: OperatorCtx<may::ReadRows>,
    reason: BypassReason,
    query: Paged<RowParams>,
) -> Answer {
    let range = query.row_range(cx.scope(), query.filter.tenant_id)?;
    let page = operator_rows::users(&cx, &reason.0, range).await?;
    Ok(query.answer_rows::<PlatformUser>(cx.scope(), page))
}

/// List projects across tenants
///
/// Projects of tenants that are not deleted. The read is recorded in the operators' log, and in the audit log of each tenant whose
/// projects are shown. For support and owners, with a recent second factor.
#[utoipa::path(
    get, path = "/api/v1/admin/projects", operation_id = "list_projects_of_tenants", tag = "Operators",
    params(RowParams, PageParams, BypassReason),
    responses((
        status = 200, description = "The projects, by tenant and id, the newest first.", body = PageView<ProjectDocument>,
        headers(("Link"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "bypass_reason_required", "rate_limited"]))),
)]
pub(crate) async fn projects(
    cx: OperatorCtx<may::ReadRows>,
    reason: BypassReason,
    query: Paged<RowParams>,
) -> Answer {
    let range = query.row_range(cx.scope(), query.filter.tenant_id)?;
    let page = operator_rows::projects(&cx, &reason.0, range).await?;
    Ok(query.answer_rows::<PlatformProject>(cx.scope(), page))
}

/// List tasks across tenants
///
/// Tasks of tenants that are not deleted. The read is recorded in the operators' log, and in the audit log of each tenant whose tasks
/// are shown. For support and owners, with a recent second factor.
#[utoipa::path(
    get, path = "/api/v1/admin/tasks", operation_id = "list_tasks_of_tenants", tag = "Operators",
    params(RowParams, PageParams, BypassReason),
    responses((
        status = 200, description = "The tasks, by tenant and id, the newest first.", body = PageView<TaskDocument>,
        headers(("Link"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "bypass_reason_required", "rate_limited"]))),
)]
pub(crate) async fn tasks(
    cx: OperatorCtx<may::ReadRows>,
    reason: BypassReason,
    query: Paged<RowParams>,
) -> Answer {
    let range = query.row_range(cx.scope(), query.filter.tenant_id)?;
    let page = operator_rows::tasks(&cx, &reason.0, range).await?;
    Ok(query.answer_rows::<PlatformTask>(cx.scope(), page))
}

/// List usage across tenants
///
/// The daily usage of tenants that are not deleted. `limit` counts tenants here, so a page may have more rows, or none while `next_cursor`
/// leads on. The read is recorded in the operators' log, and in the audit log of each tenant whose usage is shown.
#[utoipa::path(
    get, path = "/api/v1/admin/usage", operation_id = "list_usage_of_tenants", tag = "Operators",
    params(UsageOfTenantsParams, PageParams, BypassReason),
    responses((
        status = 200, description = "The usage, by tenant, the newest first, meter and day.", body = PageView<UsageDocument>,
        headers(("Link"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["bypass_reason_required", "rate_limited"]))),
)]
pub(crate) async fn usage(
    cx: OperatorCtx<may::ReadUsage>,
    reason: BypassReason,
    query: Paged<UsageOfTenantsParams>,
) -> Answer {
    let range = query.row_range(cx.scope(), query.filter.tenant_id)?;
    let period = period(&query.filter, cx.now())?;
    let page = operator_rows::usage(&cx, &reason.0, range, period).await?;
    Ok(query.answer_rows::<PlatformUsage>(cx.scope(), page))
}

fn period(params: &UsageOfTenantsParams, now: Time) -> Result<Period, Invalid> {
    let this_month = now.with_day(1).unwrap_or(now);
    let this_month = this_month.date_naive().and_time(NaiveTime::MIN).and_utc();
    let end = params.to.map_or(now, Time::from);
    let start = match params.from {
        Some(from) => Time::from(from),
        None => this_month.min(end - Duration::days(1)),
    };
    if start < end {
        Ok(Period { start, end })
    } else {
        Err(Invalid::one("/query/to", "range", "must be after from"))
    }
}
