use actix_web::{HttpRequest, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tenantry_domain::kernel::TenantId;
use tenantry_domain::operations::PlatformEvent;
use tenantry_tenancy::admin::operator_rows;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::operator_permission as may;
use crate::extract::{bypass_reason::BypassReason, page::PageParams};
use crate::v1::admin::event_feed::{self, FeedParams};
use crate::{Answer, Endpoint, Moment, OperatorCtx, Paged};

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
    /// Read forward, in the order in which the events were published: from the `next_cursor` of the answer before on, from `oldest`, or from `latest`
    /// on, which is the next event.
    #[param(min_length = 1)]
    after: Option<String>,
    /// With `after`: for how many seconds to wait for an event when there is none.
    #[param(minimum = 0, maximum = 15, default = 0)]
    wait: Option<u64>,
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

/// Events of several tenants.
#[derive(ToSchema)]
#[schema(as = EventsOfTenants)]
#[expect(dead_code, reason = "it only describes the answers")]
pub(crate) struct EventsDocument {
    /// The events.
    data: Vec<EventDocument>,
    /// The `cursor` of the next page, null on the last one; with `after` the `after` of the next request, which is always there.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// With `after`: whether there are more events to read at once.
    #[schema(required = false)]
    has_more: Option<bool>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::operator("/admin/events").without_deadline().get(list));
}

/// List events across tenants
///
/// Published events of tenants that are not deleted, without their data: by tenant and id, the newest first, or with `after` forward in the order in
/// which they were published, so that a service that goes on from `next_cursor` passes over none. Entries of that order are kept for 30 days; an
/// older cursor is 422 with the code `expired`. The read is recorded in the operators' log, and in the audit log of each tenant whose events are
/// shown; a request that finds nothing behind `after` reads nothing and is not. For support and owners, with a recent second factor.
#[utoipa::path(
    get, path = "/api/v1/admin/events", operation_id = "list_events_of_tenants", tag = "Operators",
    params(EventsOfTenantsParams, PageParams, BypassReason),
    responses((status = 200, description = "The events.", body = EventsDocument, headers(("Link")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "bypass_reason_required", "rate_limited", "unavailable"]))),
)]
pub(crate) async fn list(
    cx: OperatorCtx<may::ReadRows>,
    reason: BypassReason,
    http: HttpRequest,
    query: Paged<EventsOfTenantsParams>,
) -> Answer {
    let filter = &query.filter;
    let kinds = cx.app().ports.event_types.named(filter.types.as_deref())?;
    let times = (filter.from.map(|at| at.0), filter.to.map(|at| at.0));
    if filter.after.is_some() || filter.wait.is_some() {
        let is_mixed = query.has_cursor() || times != (None, None);
        let params = FeedParams {
            after: filter.after.as_deref(),
            wait: filter.wait,
            tenant: filter.tenant_id,
            types: filter.types.as_deref(),
            limit: query.limit,
        };
        return event_feed::answer((&cx, &http), &reason.0, params.checked(is_mixed)?, kinds).await;
    }
    let range = query.row_range(cx.scope(), filter.tenant_id)?;
    let which = (kinds.as_slice(), times.0, times.1);
    let page = operator_rows::events(&cx, &reason.0, which, range).await?;
    Ok(query.answer_rows::<PlatformEvent>(cx.scope(), page))
}
