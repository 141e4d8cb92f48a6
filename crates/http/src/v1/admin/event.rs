use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tenantry_domain::kernel::TenantId;
use tenantry_domain::operations::PlatformEvent;
use tenantry_tenancy::admin::operator_rows;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::operator_permission as may;
use crate::extract::{bypass_reason::BypassReason, page::PageParams};
use crate::{Answer, Endpoint, Moment, OperatorCtx, PageView, Paged};

/// Whose events are listed, and which.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsOfTenantsParams {
    /// Only of this tenant.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// Only events of these types, separated by commas.
    #[param(min_length = 1)]
    types: Option<String>,
    /// Only from this time on.
    #[param(value_type = Option<DateTime<Utc>>)]
    from: Option<Moment>,
    /// Only before this time.
    #[param(value_type = Option<DateTime<Utc>>)]
    to: Option<Moment>,
}

/// An event of a tenant, without its data.
#[derive(ToSchema)]
#[schema(as = EventOfTenant)]
#[expect(dead_code, reason = "it only describes `PlatformEvent`")]
pub(crate) struct EventDocument {
    tenant_id: Uuid,
    id: Uuid,
    /// The number in the tenant's feed.
    #[schema(minimum = 1)]
    position: i64,
    /// For example `task.updated`.
    r#type: String,
    timestamp: DateTime<Utc>,
    /// `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    actor_kind: String,
    #[schema(required = true)]
    actor_id: Option<Uuid>,
    /// The kind of thing it happened to.
    entity: String,
    #[schema(required = true)]
    entity_id: Option<Uuid>,
    #[schema(required = true)]
    trace_parent: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::operator("/admin/events").get(list));
}

/// List events across tenants
///
/// Published events of tenants that are not deleted, without their data. The read is recorded in the operators' log, and in the audit log of
/// each tenant whose events are shown. For support and owners, with a recent second factor.
#[utoipa::path(
    get, path = "/api/v1/admin/events", operation_id = "list_events_of_tenants", tag = "Operators",
    params(EventsOfTenantsParams, PageParams, BypassReason),
    responses((
        status = 200, description = "The events, by tenant and id, the newest first.", body = PageView<EventDocument>,
        headers(("Link"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "bypass_reason_required", "rate_limited"]))),
)]
pub(crate) async fn list(
    cx: OperatorCtx<may::ReadRows>,
    reason: BypassReason,
    query: Paged<EventsOfTenantsParams>,
) -> Answer {
    let filter = &query.filter;
    let kinds = cx.app().ports.event_types.named(filter.types.as_deref())?;
    let times = (filter.from.map(|at| at.0), filter.to.map(|at| at.0));
    let range = query.row_range(cx.scope(), filter.tenant_id)?;
    let which = (kinds.as_slice(), times.0, times.1);
    let page = operator_rows::events(&cx, &reason.0, which, range).await?;
    Ok(query.answer_rows::<PlatformEvent>(cx.scope(), page))
}
