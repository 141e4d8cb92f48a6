use actix_web::web::ServiceConfig;
use serde::Deserialize;
use tenantry_domain::kernel::TenantId;
use tenantry_domain::tenant::{TenantFilter, TenantStatus};
use tenantry_tenancy::tenant::lifecycle;
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
        .service(Endpoint::operator("/admin/tenants/{id}/resume").post(resume));
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

impl From<&TenantParams> for TenantFilter {
    fn from(params: &TenantParams) -> Self {
        Self {
            status: params.status,
            plan: params.plan.clone(),
            q: params.q.clone(),
        }
    }
}
