use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::audit::{Outcome, Risk};
use tenantry_domain::kernel::{Invalid, OperatorEventId, OperatorId, TenantId, Time};
use tenantry_domain::operations::{OperatorEventFilter, RecordedOperatorEvent};
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
    /// Only of the operator with this id, or of a kind: `operator`, or `system` for commands on the server and the server itself.
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
    /// `operator`, or `system` of a command on the server and of the server itself.
    kind: &'static str,
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
        let (operator, by_system) = match params.actor.as_deref() {
            None => (None, None),
            Some("system") => (None, Some(true)),
            Some("operator") => (None, Some(false)),
            Some(id) => {
                let detail = "must be the id of an operator, `operator` or `system`";
                let id = id
                    .parse()
                    .map_err(|_| Invalid::one("/query/actor", "invalid", detail))?;
                (Some(id), None)
            }
        };
        Ok(Self {
            operator,
            by_system,
            action: params.action.clone(),
            tenant: params.tenant_id,
            from: params.from.map(Time::from),
            to: params.to.map(Time::from),
        })
    }
}

impl From<RecordedOperatorEvent> for OperatorEventView {
    fn from(event: RecordedOperatorEvent) -> Self {
        Self {
            id: event.id,
            at: event.at,
            actor: OperatorActorView {
                kind: if event.operator.is_some() {
                    "operator"
                } else {
                    "system"
                },
                id: event.operator,
                name: event.operator_name,
            },
            outcome: Outcome::of(&event.action),
            risk: Risk::of(&event.action, None),
            action: event.action,
            reason: event.reason,
            tenant_id: event.target_tenant,
            address: event.ip,
            request_id: event.request_id,
            details: event.details,
        }
    }
}
