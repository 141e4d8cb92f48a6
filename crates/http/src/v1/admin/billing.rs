use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_billing::billing::{
    billing_finding::Finding,
    billing_oversight::{self, DriftLine, Sweep, Swept},
    billing_surplus::Surplus,
    dunning::{self, Failure, Simulation},
    meter_report::Drift,
};
use tenantry_domain::billing::{
    BillingAccount, DunningState, DunningStep, EventState, MeterReport, ReceivedEvent,
};
use tenantry_domain::kernel::{Invalid, Period, TenantId};
use utoipa::{IntoParams, ToSchema};

use crate::extract::operator_permission as may;
use crate::{Answer, ApiError, Body, Endpoint, Moment, OperatorCtx, Query, v1::kernel::schema};

/// The tenants to read.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SweepParams {
    /// The `next_after` of the previous response.
    #[param(value_type = Option<Uuid>)]
    after: Option<TenantId>,
    /// The maximum number of tenants.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
}

/// Filters of billing accounts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct AccountParams {
    /// Only accounts in this payment state.
    #[param(value_type = schema::DunningState, inline, required = false)]
    dunning: Option<DunningState>,
    /// The `next_after` of the previous response.
    #[param(value_type = Option<Uuid>)]
    after: Option<TenantId>,
    /// The maximum number of tenants to read.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
}

/// The tenants and the period to compare.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct DriftParams {
    /// Only of this tenant.
    #[param(value_type = Option<Uuid>)]
    tenant: Option<TenantId>,
    /// The start of the period. Without `from` and `to`: each tenant's current month.
    #[param(value_type = Option<DateTime<Utc>>)]
    from: Option<Moment>,
    /// The end of the period, exclusive.
    #[param(value_type = Option<DateTime<Utc>>)]
    to: Option<Moment>,
    /// The `next_after` of the previous response.
    #[param(value_type = Option<Uuid>)]
    after: Option<TenantId>,
    /// The maximum number of tenants.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
}

/// Filters of events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// Only events in this state.
    #[param(value_type = schema::EventState, inline, required = false)]
    state: Option<EventState>,
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
}

/// The results of some tenants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sweep)]
pub(crate) struct SweptView<T> {
    data: Vec<T>,
    /// The `after` of the next request; null after the last tenant.
    #[schema(required = true, value_type = Option<Uuid>)]
    next_after: Option<TenantId>,
}

/// The billing account of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BillingAccount, examples(json!({
    "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "customer": "cus_Qx1", "subscription": "sub_1Px", "status": "past_due",
    "plan": "pro", "seats": 3, "dunning": "grace", "failed_at": "2026-01-15T12:00:00Z",
    "next_step_at": "2026-01-19T12:00:00Z", "synced_at": "2026-01-15T12:00:04Z",
})))]
pub(crate) struct AccountView {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    #[schema(required = true)]
    customer: Option<String>,
    #[schema(required = true)]
    subscription: Option<String>,
    /// The provider's status of the subscription.
    #[schema(required = true)]
    status: Option<String>,
    #[schema(required = true)]
    plan: Option<String>,
    #[schema(required = true)]
    seats: Option<u32>,
    #[schema(value_type = schema::DunningState)]
    dunning: &'static str,
    #[schema(required = true)]
    failed_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    next_step_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    synced_at: Option<DateTime<Utc>>,
}

/// A usage report that is no longer retried.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter, examples(json!({
    "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "meter": "api_calls", "hour": "2026-01-15T12:00:00Z", "revision": 1,
    "quantity": 4_711, "attempts": 0, "reason": "the provider takes nothing that is older than 35 days",
})))]
pub(crate) struct DeadLetterView {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    meter: String,
    hour: DateTime<Utc>,
    revision: i64,
    quantity: u64,
    attempts: u32,
    #[schema(required = true)]
    reason: Option<String>,
}

/// The difference of a meter between the usage ledger and the payment provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drift, examples(json!({
    "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "meter": "api_calls", "from": "2026-01-15T12:00:00Z",
    "to": "2026-01-20T09:00:00Z", "ours": 1_000, "theirs": 900, "difference": 100, "untold": 40, "pending": 60, "dead": 0,
    "late": 0, "unexplained": 0,
})))]
pub(crate) struct DriftView {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    meter: String,
    /// The beginning of the first whole hour.
    from: DateTime<Utc>,
    /// The end of the last whole hour.
    to: DateTime<Utc>,
    ours: u64,
    theirs: u64,
    /// `ours` minus `theirs`.
    difference: i64,
    /// The part in hours that are not yet reported.
    untold: i64,
    /// The part that is still to be reported.
    pending: i64,
    /// The part that is no longer retried.
    dead: i64,
    /// The part that was corrected too late to be reported.
    late: i64,
    /// The rest. Investigate anything but 0.
    unexplained: i64,
}

/// A tenant that has more than one running subscription. The surplus ends by itself; the row is there while it lasts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SurplusSubscriptions, examples(json!({
    "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "kept": "sub_1Py", "surplus": ["sub_1Px"],
})))]
pub(crate) struct SurplusView {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// The subscription that counts.
    #[schema(required = true)]
    kept: Option<String>,
    /// Those that are too many.
    surplus: Vec<String>,
}

/// Something at the payment provider that a person has to look at.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BillingFinding, examples(json!({
    "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "kind": "foreign_subscription", "customer": "cus_Qx1",
    "subscription": "sub_1Pz",
})))]
pub(crate) struct FindingView {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    #[schema(value_type = schema::BillingFindingKind)]
    kind: &'static str,
    customer: String,
    /// Null when it is about the customer itself.
    #[schema(required = true)]
    subscription: Option<String>,
}

/// What was found in some of the tenants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DriftReport)]
pub(crate) struct DriftReportView {
    data: Vec<DriftView>,
    /// The tenants that pay twice.
    surplus: Vec<SurplusView>,
    /// Whatever else is not as it should be.
    findings: Vec<FindingView>,
    /// The `after` of the next tenants; null when that was all.
    #[schema(required = true, value_type = Option<Uuid>)]
    next_after: Option<TenantId>,
}

/// An event of the payment provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderEvent, examples(json!({
    "id": "evt_1Px", "kind": "invoice.paid", "created_at": "2026-01-15T12:00:00Z", "received_at": "2026-01-15T12:00:01Z",
    "customer": "cus_Qx1", "state": "done", "reason": null, "attempts": 1, "settled_at": "2026-01-15T12:00:02Z",
})))]
pub(crate) struct EventView {
    id: String,
    kind: String,
    created_at: DateTime<Utc>,
    received_at: DateTime<Utc>,
    #[schema(required = true)]
    customer: Option<String>,
    #[schema(value_type = schema::EventState)]
    state: &'static str,
    #[schema(required = true)]
    reason: Option<String>,
    attempts: u32,
    #[schema(required = true)]
    settled_at: Option<DateTime<Utc>>,
}

/// The latest events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderEvents)]
pub(crate) struct EventsView {
    data: Vec<EventView>,
}

/// A failed payment to simulate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SimulateDunning, examples(json!({"plan": "pro", "failed_at": "2026-01-15T12:00:00Z", "paid_at": "2026-01-25T12:00:00Z"})))]
pub(crate) struct SimulationBody {
    plan: String,
    #[schema(value_type = DateTime<Utc>)]
    failed_at: Moment,
    #[schema(value_type = Option<DateTime<Utc>>)]
    paid_at: Option<Moment>,
}

/// The steps after a failed payment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DunningSimulation, examples(json!({
    "grace_days": 7, "delete_after_days": null, "steps": [
        {"at": "2026-01-15T12:00:00Z", "step": "payment_failed"}, {"at": "2026-01-19T12:00:00Z", "step": "suspension_ahead"},
        {"at": "2026-01-22T12:00:00Z", "step": "suspended"}, {"at": "2026-01-25T12:00:00Z", "step": "recovered"},
    ],
})))]
pub(crate) struct SimulationView {
    grace_days: u32,
    /// Null when tenants with unpaid invoices are not deleted.
    #[schema(required = true)]
    delete_after_days: Option<u32>,
    steps: Vec<StepView>,
}

/// A step of dunning.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DunningStep)]
pub(crate) struct StepView {
    at: DateTime<Utc>,
    #[schema(value_type = schema::DunningAction)]
    step: DunningStep,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/billing/accounts").get(accounts))
        .service(Endpoint::operator("/admin/billing/dead-letters").get(dead_letters))
        .service(
            Endpoint::operator("/admin/billing/drift")
                .without_deadline()
                .get(drift),
        )
        .service(Endpoint::operator("/admin/billing/events").get(events))
        .service(Endpoint::operator("/admin/dunning/simulate").post(simulate));
}

/// List billing accounts
///
/// The payment provider's customer and subscription of every tenant.
#[utoipa::path(
    get, path = "/api/v1/admin/billing/accounts", operation_id = "list_billing_accounts", tag = "Operators",
    params(AccountParams),
    responses((status = 200, description = "The accounts, by tenant.", body = SweptView<AccountView>)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["validation_failed", "unknown_field"]))),
)]
pub(crate) async fn accounts(cx: OperatorCtx<may::ReadBilling>, query: Query<AccountParams>) -> Answer {
    let sweep = sweep(query.0.after, query.0.limit)?;
    let swept = billing_oversight::accounts(&cx, query.0.dunning, sweep).await?;
    Ok(answer(swept, AccountView::from))
}

/// List failed usage reports
///
/// Usage reports to the payment provider that are no longer retried.
#[utoipa::path(
    get, path = "/api/v1/admin/billing/dead-letters", operation_id = "list_billing_dead_letters", tag = "Operators",
    params(SweepParams),
    responses((status = 200, description = "The reports, by tenant and hour.", body = SweptView<DeadLetterView>)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["validation_failed", "unknown_field"]))),
)]
pub(crate) async fn dead_letters(cx: OperatorCtx<may::ReadBilling>, query: Query<SweepParams>) -> Answer {
    let sweep = sweep(query.0.after, query.0.limit)?;
    let swept = billing_oversight::dead_letters(&cx, sweep).await?;
    Ok(answer(swept, DeadLetterView::from))
}

/// Report billing drift
///
/// Compares the usage ledger with the payment provider's meters, and names the cause of each difference. `surplus` lists the
/// tenants that pay for more than one subscription, and `findings` what else a person has to look at.
#[utoipa::path(
    get, path = "/api/v1/admin/billing/drift", operation_id = "report_billing_drift", tag = "Operators",
    params(DriftParams),
    responses((status = 200, description = "The differences, by tenant and meter.", body = DriftReportView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["validation_failed", "unknown_field", "billing_unavailable", "conflict"]))),
)]
pub(crate) async fn drift(cx: OperatorCtx<may::ReadBilling>, query: Query<DriftParams>) -> Answer {
    let params = query.0;
    let period = period(params.from, params.to)?;
    let swept = match params.tenant {
        Some(tenant) => Swept {
            found: billing_oversight::drift_of(&cx, tenant, period).await?,
            next: None,
        },
        None => billing_oversight::drift(&cx, period, sweep(params.after, params.limit)?).await?,
    };
    Ok(HttpResponse::Ok().json(DriftReportView::from(swept)))
}

/// List payment provider events
///
/// Webhook events of the payment provider, with the outcome of each.
#[utoipa::path(
    get, path = "/api/v1/admin/billing/events", operation_id = "list_provider_events", tag = "Operators",
    params(EventParams),
    responses((status = 200, description = "The latest events, newest first.", body = EventsView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["validation_failed", "unknown_field"]))),
)]
pub(crate) async fn events(cx: OperatorCtx<may::ReadBilling>, query: Query<EventParams>) -> Answer {
    let limit = sweep(None, query.0.limit)?.limit;
    let events = billing_oversight::events(&cx, query.0.state, limit).await?;
    Ok(HttpResponse::Ok().json(EventsView {
        data: events.into_iter().map(EventView::from).collect(),
    }))
}

/// Simulate dunning
///
/// Returns the schedule that follows a failed payment. Nothing is changed.
#[utoipa::path(
    post, path = "/api/v1/admin/dunning/simulate", operation_id = "simulate_dunning", tag = "Operators",
    request_body = SimulationBody,
    responses((status = 200, description = "The steps, in order of time.", body = SimulationView)),
    security(("operator" = [])),
)]
pub(crate) async fn simulate(cx: OperatorCtx<may::ReadBilling>, body: Body<SimulationBody>) -> Answer {
    let failure = Failure::from(body.0);
    let simulation = dunning::simulate(&cx, &failure).await?;
    Ok(HttpResponse::Ok().json(SimulationView::from(simulation)))
}

fn sweep(after: Option<TenantId>, limit: Option<u32>) -> Result<Sweep, ApiError> {
    let limit = limit.unwrap_or(20);
    if (1..=100).contains(&limit) {
        Ok(Sweep { after, limit })
    } else {
        Err(Invalid::one("/query/limit", "range", "must be in 1..=100").into())
    }
}

fn period(from: Option<Moment>, to: Option<Moment>) -> Result<Option<Period>, ApiError> {
    match (from, to) {
        (None, None) => Ok(None),
        (Some(Moment(start)), Some(Moment(end))) if start < end => Ok(Some(Period { start, end })),
        (Some(_), Some(_)) => Err(Invalid::one("/query/to", "range", "must be after from").into()),
        (Some(_), None) => Err(Invalid::one("/query/to", "required", "is required with from").into()),
        (None, Some(_)) => Err(Invalid::one("/query/from", "required", "is required with to").into()),
    }
}

fn answer<T, V: Serialize>(swept: Swept<T>, view: impl FnMut(T) -> V) -> HttpResponse {
    HttpResponse::Ok().json(SweptView {
        data: swept.found.into_iter().map(view).collect::<Vec<V>>(),
        next_after: swept.next,
    })
}

impl From<(TenantId, BillingAccount)> for AccountView {
    fn from((tenant_id, account): (TenantId, BillingAccount)) -> Self {
        let subscription = account.subscription.as_ref();
        let offer = subscription.and_then(|one| one.offer.as_ref());
        Self {
            tenant_id,
            customer: account.customer.as_ref().map(ToString::to_string),
            subscription: subscription.map(|one| one.id.to_string()),
            status: subscription.map(|one| one.status.as_str().to_owned()),
            plan: offer.map(|offer| offer.plan.clone()),
            seats: subscription.map(|one| one.seats),
            dunning: account.dunning.state.as_str(),
            failed_at: account.dunning.failed_at,
            next_step_at: account.dunning.next_at,
            synced_at: account.synced_at,
        }
    }
}

impl From<(TenantId, MeterReport)> for DeadLetterView {
    fn from((tenant_id, report): (TenantId, MeterReport)) -> Self {
        Self {
            tenant_id,
            meter: report.meter.to_string(),
            hour: report.hour,
            revision: report.revision,
            quantity: report.quantity,
            attempts: report.attempts,
            reason: report.reason,
        }
    }
}

impl From<Swept<DriftLine>> for DriftReportView {
    fn from(swept: Swept<DriftLine>) -> Self {
        let (mut data, mut surplus, mut findings) = (Vec::new(), Vec::new(), Vec::new());
        for line in swept.found {
            match line {
                DriftLine::Meter(drift) => data.push(DriftView::from(drift)),
                DriftLine::Surplus(found) => surplus.push(SurplusView::from(found)),
                DriftLine::Finding(found) => findings.push(FindingView::from(found)),
            }
        }
        Self {
            data,
            surplus,
            findings,
            next_after: swept.next,
        }
    }
}

impl From<Finding> for FindingView {
    fn from(found: Finding) -> Self {
        Self {
            tenant_id: found.tenant,
            kind: found.kind.as_str(),
            customer: found.customer.to_string(),
            subscription: found.subscription.map(|subscription| subscription.to_string()),
        }
    }
}

impl From<Surplus> for SurplusView {
    fn from(found: Surplus) -> Self {
        Self {
            tenant_id: found.tenant,
            kept: found.kept.map(|kept| kept.to_string()),
            surplus: found.surplus.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<Drift> for DriftView {
    fn from(drift: Drift) -> Self {
        Self {
            difference: drift.difference(),
            unexplained: drift.unexplained(),
            tenant_id: drift.tenant,
            meter: drift.meter.to_string(),
            from: drift.period.start,
            to: drift.period.end,
            ours: drift.ours,
            theirs: drift.theirs,
            untold: drift.untold,
            pending: drift.pending,
            dead: drift.dead,
            late: drift.late,
        }
    }
}

impl From<ReceivedEvent> for EventView {
    fn from(received: ReceivedEvent) -> Self {
        let event = received.event;
        Self {
            id: event.id.to_string(),
            kind: event.kind,
            created_at: event.created_at,
            received_at: received.received_at,
            customer: event.customer.as_ref().map(ToString::to_string),
            state: received.state.as_str(),
            reason: received.reason,
            attempts: received.attempts,
            settled_at: received.settled_at,
        }
    }
}

impl From<SimulationBody> for Failure {
    fn from(body: SimulationBody) -> Self {
        Self {
            plan: body.plan,
            failed_at: body.failed_at.0,
            paid_at: body.paid_at.map(|paid_at| paid_at.0),
        }
    }
}

impl From<Simulation> for SimulationView {
    fn from(simulation: Simulation) -> Self {
        let steps = simulation.steps.into_iter();
        Self {
            grace_days: simulation.terms.grace_days,
            delete_after_days: simulation.terms.delete_after_days,
            steps: steps.map(|(at, step)| StepView { at, step }).collect(),
        }
    }
}
