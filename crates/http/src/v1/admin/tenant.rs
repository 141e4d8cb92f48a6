use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::Duration;
use serde::Deserialize;
use tenantry_domain::kernel::TenantId;
use tenantry_domain::tenant::{TenantFilter, TenantStatus};
use tenantry_tenancy::tenant::{lifecycle, row_work};
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::PageParams;
use crate::{
    Answer, Body, Endpoint, Id, OperatorCtx, PageView, Paged, entity,
    v1::{kernel::schema, tenant::tenant::TenantView},
};

/// Filters of tenants.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TenantParams {
    /// Only of this status.
    #[param(value_type = schema::TenantStatus, inline, required = false)]
    status: Option<TenantStatus>,
    /// Only on this plan.
    plan: Option<String>,
    /// Only those whose name or slug contains this text, whatever the case.
    #[param(min_length = 1, max_length = 120)]
    q: Option<String>,
}

/// The reason. It is written to the operators' audit and to the tenant's audit log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Reason, examples(json!({"reason": "invoice 4711 unpaid"})))]
pub(crate) struct ReasonBody {
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/tenants").get(list))
        .service(Endpoint::operator("/admin/tenants/{id}").get(read))
        .service(Endpoint::operator("/admin/tenants/{id}/suspend").post(suspend))
        .service(Endpoint::operator("/admin/tenants/{id}/resume").post(resume))
        .service(Endpoint::operator("/admin/tenants/{id}/delete").post(delete))
        .service(Endpoint::operator("/admin/tenants/{id}/restore").post(restore))
        .service(Endpoint::operator("/admin/tenants/{id}/purge").post(purge));
}

/// List tenants
///
/// Deleted tenants are included.
#[utoipa::path(
    get, path = "/api/v1/admin/tenants", operation_id = "list_tenants", tag = "Operators",
    params(TenantParams, PageParams),
    responses(
        (status = 200, description = "The tenants, newest first.", body = PageView<TenantView>, headers(("Link"))),
    ),
    security(("operator" = [])),
)]
pub(crate) async fn list(cx: OperatorCtx, query: Paged<TenantParams>) -> Answer {
    let filter = TenantFilter::from(&query.filter);
    let page = lifecycle::list(&cx, &filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(TenantView::from)))
}

/// Get a tenant
///
/// Deleted tenants are included.
#[utoipa::path(
    get, path = "/api/v1/admin/tenants/{id}", operation_id = "get_tenant_as_operator", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The tenant.", body = TenantView, headers(("ETag")))),
    security(("operator" = [])),
)]
pub(crate) async fn read(cx: OperatorCtx, id: Id<TenantId>) -> Answer {
    let tenant = lifecycle::get(&cx, id.0).await?;
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Suspend a tenant
///
/// Makes a tenant read-only. The reason is written to the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/suspend", operation_id = "suspend_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 200, description = "The updated tenant.", body = TenantView, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn suspend(cx: OperatorCtx, id: Id<TenantId>, body: Body<ReasonBody>) -> Answer {
    let tenant = lifecycle::suspend(&cx, id.0, &body.reason).await?;
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Resume a tenant
///
/// Allows a suspended tenant to write again. The reason is written to the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/resume", operation_id = "resume_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 200, description = "The updated tenant.", body = TenantView, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn resume(cx: OperatorCtx, id: Id<TenantId>, body: Body<ReasonBody>) -> Answer {
    let tenant = lifecycle::resume(&cx, id.0, &body.reason).await?;
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Delete a tenant
///
/// The tenant is gone at once: every request of it is answered 410 `tenant_gone`. Its rows are marked as deleted in the background. It
/// can be restored until `purge_at`. The reason is written to the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/delete", operation_id = "delete_tenant_as_operator", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 202, description = "The deleted tenant.", body = TenantView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn delete(cx: OperatorCtx, id: Id<TenantId>, body: Body<ReasonBody>) -> Answer {
    let tenant = lifecycle::delete(&cx, id.0, &body.reason).await?;
    Ok(HttpResponse::Accepted().json(TenantView::from(tenant)))
}

/// For how long a request restores rows before it leaves the rest to the background, in seconds.
const RESTORING_SECONDS: i64 = 5;

/// Restore a deleted tenant
///
/// The tenant gets back the state that it had, and exactly the rows that it had: what was deleted before the tenant stays deleted. A
/// tenant with many rows is restored in the background (202), and stays deleted until all of them are back. The reason is written to
/// the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/restore", operation_id = "restore_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses(
        (status = 200, description = "The restored tenant.", body = TenantView, headers(("ETag"))),
        (status = 202, description = "The tenant, which is restored in the background.", body = TenantView),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn restore(cx: OperatorCtx, id: Id<TenantId>, body: Body<ReasonBody>) -> Answer {
    let until = cx.now() + Duration::seconds(RESTORING_SECONDS);
    let tenant = row_work::restore(&cx, id.0, &body.reason, Some(until)).await?;
    if tenant.row_work.is_some() {
        return Ok(HttpResponse::Accepted().json(TenantView::from(tenant)));
    }
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Purge a deleted tenant
///
/// Erases every row of a deleted tenant in the background, and the tenant last. Nothing leads back. A tombstone with its id, the time
/// and the number of rows stays. The reason is written to the operators' log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/purge", operation_id = "purge_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 202, description = "The tenant, whose rows are being erased.", body = TenantView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn purge(cx: OperatorCtx, id: Id<TenantId>, body: Body<ReasonBody>) -> Answer {
    let tenant = lifecycle::purge(&cx, id.0, &body.reason).await?;
    Ok(HttpResponse::Accepted().json(TenantView::from(tenant)))
}

impl From<&TenantParams> for TenantFilter {
    fn from(params: &TenantParams) -> Self {
        Self {
            status: params.status,
            plan: params.plan.clone(),
            q: params.q.clone(),
        }
    }
}
