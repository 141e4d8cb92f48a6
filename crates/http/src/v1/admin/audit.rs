use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::audit::{Outcome, Risk};
use tenantry_domain::kernel::{Invalid, OperatorEventId, OperatorId, TenantId, Time};
use tenantry_domain::operations::{OperatorEventActor, OperatorEventFilter, RecordedOperatorEvent};
use tenantry_tenancy::admin::operator_log;
use utoipa::{IntoParams, ToSchema};

use crate::extract::operator_permission as may;
use crate::extract::page::PageParams;
use crate::v1::kernel::schema;
use crate::{Answer, Endpoint, Moment, OperatorCtx, PageView, Paged};

/// Filters of the operators' log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OperatorEventParams {
    /// Only of the operator with this id, or of a kind: `operator`, `system` for commands on the server and the server itself, or `guest`
    /// for callers who have not logged in.
    #[param(min_length = 1, max_length = 36)]
    actor: Option<String>,
    /// Only of this action, for example `tenant.suspended`.
    #[param(min_length = 1, max_length = 100)]
    action: Option<String>,
    /// Only what was done to this tenant, or read of it.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// Only from this time on.
    #[param(value_type = Option<DateTime<Utc>>)]
    from: Option<Moment>,
    /// Only before this time.
    #[param(value_type = Option<DateTime<Utc>>)]
    to: Option<Moment>,
}

/// An entry of the operators' log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperatorEvent, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "at": "2026-01-31T12:00:00Z",
    "actor": {"kind": "operator", "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "name": "Grace Hopper"},
    "action": "tenant.suspended", "reason": "invoice 4711 unpaid", "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13",
    "address": "192.0.2.1", "request_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15", "outcome": "success", "risk": "high",
    "details": {"status": "suspended"},
})))]
pub(crate) struct OperatorEventView {
    #[schema(value_type = Uuid)]
    id: OperatorEventId,
    at: DateTime<Utc>,
    actor: OperatorActorView,
    /// What was done.
    action: String,
    /// Why, as the operator said.
    #[schema(required = true)]
    reason: Option<String>,
    /// The tenant to which it was done, or of which something was read.
    #[schema(value_type = Option<Uuid>, required = true)]
    tenant_id: Option<TenantId>,
    #[schema(required = true)]
    address: Option<String>,
    request_id: String,
    #[schema(value_type = schema::Outcome)]
    outcome: Outcome,
    #[schema(value_type = schema::Risk)]
    risk: Risk,
    #[schema(value_type = Object)]
    details: Value,
}

/// Who acted on the platform.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperatorActor)]
pub(crate) struct OperatorActorView {
    /// `operator`, `system` of a command on the server and of the server itself, or `guest` of a caller who has not logged in.
    #[schema(value_type = schema::OperatorActorKind)]
    kind: OperatorEventActor,
    #[schema(value_type = Option<Uuid>, required = true)]
    id: Option<OperatorId>,
    #[schema(required = true)]
    name: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::operator("/admin/audit-events").get(list));
}

/// List the log of operators
///
/// What operators and commands on the server have done, and what was read of tenants. The request itself becomes an entry.
#[utoipa::path(
    get, path = "/api/v1/admin/audit-events", operation_id = "list_operator_events", tag = "Operators",
    params(OperatorEventParams, PageParams),
    responses(
        (status = 200, description = "The entries, newest first.", body = PageView<OperatorEventView>, headers(("Link"))),
    ),
    security(("operator" = [])),
)]
pub(crate) async fn list(cx: OperatorCtx<may::ReadAudit>, query: Paged<OperatorEventParams>) -> Answer {
    let filter = OperatorEventFilter::try_from(&query.filter)?;
    let page = operator_log::list(&cx, &filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(OperatorEventView::from)))
}

impl TryFrom<&OperatorEventParams> for OperatorEventFilter {
    type Error = Invalid;

    fn try_from(params: &OperatorEventParams) -> Result<Self, Invalid> {
        let detail = "must be the id of an operator, `operator`, `system` or `guest`";
        let invalid = |_| Invalid::one("/query/actor", "invalid", detail);
        let text = params.actor.as_deref();
        let actor = text.and_then(OperatorEventActor::parse);
        let id = text.filter(|_| actor.is_none()).map(str::parse);
        let operator = id.transpose().map_err(invalid)?;
        Ok(Self {
            operator,
            actor,
            action: params.action.clone(),
            tenant: params.tenant_id,
            from: params.from.map(Time::from),
            to: params.to.map(Time::from),
        })
    }
}

impl From<RecordedOperatorEvent> for OperatorEventView {
    fn from(event: RecordedOperatorEvent) -> Self {
        let (kind, outcome, risk) = (event.actor(), event.outcome(), event.risk());
        Self {
            id: event.id,
            at: event.at,
            actor: OperatorActorView {
                kind,
                id: event.operator,
                name: event.operator_name,
            },
            outcome,
            risk,
            action: event.action,
            reason: event.reason,
            tenant_id: event.target_tenant,
            address: event.ip,
            request_id: event.request_id,
            details: event.details,
        }
    }
}
