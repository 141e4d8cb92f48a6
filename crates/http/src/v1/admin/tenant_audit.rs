use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tenantry_domain::audit::{AuditFilter, Risk};
use tenantry_domain::kernel::{Invalid, TenantId, Time};
use tenantry_domain::operations::PlatformAuditEvent;
use tenantry_tenancy::admin::operator_rows;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::operator_permission as may;
use crate::extract::{bypass_reason::BypassReason, page::PageParams};
use crate::v1::audit::event::audit_params;
use crate::v1::kernel::schema;
use crate::{Answer, Endpoint, Moment, OperatorCtx, PageView, Paged};

audit_params! {
    /// Whose entries are listed, and which.
    AuditOfTenantsParams {
        /// Only of this tenant.
        #[param(value_type = Option<Uuid>)]
        tenant_id: Option<TenantId>,
    }
}

/// An entry of the audit log of a tenant, without the states before and after.
#[derive(ToSchema)]
#[schema(as = AuditEventOfTenant)]
#[expect(dead_code, reason = "it only describes `PlatformAuditEvent`")]
pub(crate) struct AuditEventDocument {
    tenant_id: Uuid,
    id: Uuid,
    at: DateTime<Utc>,
    /// `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    actor_kind: String,
    /// The id of the user, API key or operator; of a job that of the user for whom it ran.
    #[schema(required = true)]
    actor_id: Option<Uuid>,
    /// What happened, for example `project.created`.
    action: String,
    /// The kind of thing it happened to.
    entity: String,
    /// The id of that thing, where it has one.
    #[schema(required = true)]
    entity_id: Option<Uuid>,
    #[schema(required = true)]
    address: Option<String>,
    #[schema(required = true)]
    user_agent: Option<String>,
    request_id: String,
    #[schema(value_type = schema::Outcome)]
    outcome: String,
    #[schema(value_type = schema::Risk)]
    risk: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::operator("/admin/tenant-audit-events").get(list));
}

/// List audit entries across tenants
///
/// Entries of the audit logs of tenants that are not deleted, without the states before and after. The read is recorded in the operators'
/// log, and in the audit log of each tenant whose entries are shown. For support and owners, with a recent second factor.
#[utoipa::path(
    get, path = "/api/v1/admin/tenant-audit-events", operation_id = "list_audit_events_of_tenants", tag = "Operators",
    params(AuditOfTenantsParams, PageParams, BypassReason),
    responses((
        status = 200, description = "The entries, by tenant and id, the newest first.", body = PageView<AuditEventDocument>,
        headers(("Link"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "bypass_reason_required", "rate_limited"]))),
)]
pub(crate) async fn list(
    cx: OperatorCtx<may::ReadRows>,
    reason: BypassReason,
    query: Paged<AuditOfTenantsParams>,
) -> Answer {
    let filter = AuditFilter::try_from(&query.filter)?;
    let range = query.row_range(cx.scope(), query.filter.tenant_id)?;
    let page = operator_rows::audit_events(&cx, &reason.0, &filter, range).await?;
    Ok(query.answer_rows::<PlatformAuditEvent>(cx.scope(), page))
}
