use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_billing::billing::{
    self, ChangePreview, LimitChange, Wish,
    billing_dashboard::{self, CostLine, Dashboard, MeterUse, NextInvoice},
    invoice,
};
use tenantry_billing::plans::{Changing, SubscriptionChange};
use tenantry_domain::billing::{
    BillingAccount, Invoice, InvoiceLine, InvoiceStatus, Link, ProrationPreview, ProviderInvoice,
};
use tenantry_domain::kernel::{Currency, Interval, InvoiceId, Limit, Period, Projection};
use tenantry_tenancy::Cx;
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, IdempotencyKey, IfMatch, PageView, Paged, Query, entity,
    permission::{ManageBilling, ReadBilling},
};

/// Plan, subscription, usage and projected cost of a tenant. Amounts are in the currency's minor unit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Billing, examples(json!({
    "plan": {"name": "pro", "title": "Pro", "version": 1},
    "period": {"start": "2026-01-15T12:00:00Z", "end": "2026-02-15T12:00:00Z"},
    "subscription": {
        "status": "active", "interval": "month", "currency": "usd", "seats": 3, "trial_ends_at": null,
        "cancel_at_period_end": false, "paid_until": "2026-02-15T12:00:00Z",
    },
    "payment": {"state": "healthy", "failed_at": null, "next_step_at": null, "refusal": null},
    "meters": [{
        "meter": "api_calls", "title": "API calls", "unit": "call",
        "period": {"start": "2026-01-15T12:00:00Z", "end": "2026-02-15T12:00:00Z"},
        "used": 400_000, "included": 1_000_000, "limit": null, "overage": 0,
        "projected": {"low": 1_100_000, "likely": 1_240_000, "high": 1_410_000}, "projected_overage": 240_000,
    }],
    "costs": [
        {"meter": null, "currency": "usd", "now": 8_700, "low": 8_700, "likely": 8_700, "high": 8_700},
        {"meter": "api_calls", "currency": "usd", "now": 0, "low": 1_000, "likely": 2_400, "high": 4_100},
    ],
    "next_invoice": {"known": true, "currency": "usd", "total": 8_700, "at": "2026-02-15T12:00:00Z"},
    "version": 4,
})))]
pub(crate) struct BillingView {
    plan: BillingPlanView,
    /// The month that the tenant is in.
    period: PeriodView,
    /// Null where there is none that is running.
    #[schema(required = true)]
    subscription: Option<SubscriptionView>,
    payment: PaymentView,
    meters: Vec<MeterView>,
    /// The cost of the current period, by line.
    costs: Vec<CostView>,
    next_invoice: NextInvoiceView,
    /// Counts the changes of the account; 0 before there is one.
    version: i64,
}

/// The plan of a subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BillingPlan)]
pub(crate) struct BillingPlanView {
    name: String,
    title: String,
    /// The version that the tenant has.
    version: u32,
}

/// From `start`, up to but without `end`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Period)]
pub(crate) struct PeriodView {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

/// A running subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription)]
pub(crate) struct SubscriptionView {
    /// `trialing`, `active`, `past_due` or `unpaid`.
    status: String,
    #[schema(required = true, value_type = Option<schema::Interval>)]
    interval: Option<&'static str>,
    #[schema(required = true)]
    currency: Option<String>,
    seats: u32,
    #[schema(required = true)]
    trial_ends_at: Option<DateTime<Utc>>,
    /// Whether the subscription ends with the paid period.
    cancel_at_period_end: bool,
    paid_until: DateTime<Utc>,
}

/// The payment state of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PaymentState)]
pub(crate) struct PaymentView {
    #[schema(value_type = schema::DunningState)]
    state: &'static str,
    /// When the oldest unpaid payment failed.
    #[schema(required = true)]
    failed_at: Option<DateTime<Utc>>,
    /// When the next step of dunning follows, unless the tenant pays.
    #[schema(required = true)]
    next_step_at: Option<DateTime<Utc>>,
    /// Why the last change of the subscription was refused.
    #[schema(required = true)]
    refusal: Option<String>,
}

/// Current and projected usage of a meter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BillingMeter)]
pub(crate) struct MeterView {
    meter: String,
    title: String,
    unit: String,
    /// The period that it counts in.
    period: PeriodView,
    /// So far in the period.
    used: u64,
    /// The units that the price includes; null for unlimited.
    #[schema(required = true)]
    included: Option<u64>,
    /// The hard limit; null for unlimited.
    #[schema(required = true)]
    limit: Option<u64>,
    /// The units used beyond the included ones.
    overage: u64,
    projected: ProjectionView,
    /// The units of the likely projection beyond the included ones.
    projected_overage: u64,
}

/// The projected usage at the end of the period: from the mean of the days so far, with the range of their quartiles.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projection)]
pub(crate) struct ProjectionView {
    low: u64,
    likely: u64,
    high: u64,
}

/// A line of the cost of a period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostLine)]
pub(crate) struct CostView {
    /// The meter whose overage is charged; null for the plan itself.
    #[schema(required = true)]
    meter: Option<String>,
    currency: String,
    now: i64,
    low: i64,
    likely: i64,
    high: i64,
}

/// The next charge.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NextInvoice)]
pub(crate) struct NextInvoiceView {
    /// False while the payment provider does not respond.
    known: bool,
    #[schema(required = true)]
    currency: Option<String>,
    /// Null when nothing will be charged.
    #[schema(required = true)]
    total: Option<i64>,
    #[schema(required = true)]
    at: Option<DateTime<Utc>>,
}

/// An invoice. Amounts are in the currency's minor unit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invoice, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15", "number": "A1B2-0001", "status": "paid", "currency": "usd", "total": 2_900,
    "amount_due": 0, "amount_paid": 2_900, "period": {"start": "2026-01-15T12:00:00Z", "end": "2026-02-15T12:00:00Z"},
    "url": "https://invoice.stripe.com/i/…", "created_at": "2026-01-15T12:00:00Z",
    "lines": [{"description": "Pro", "amount": 2_900, "quantity": 1, "proration": false}],
})))]
pub(crate) struct InvoiceView {
    #[schema(value_type = Uuid)]
    id: InvoiceId,
    #[schema(required = true)]
    number: Option<String>,
    /// Null for a state that is unknown here.
    #[schema(required = true, value_type = Option<schema::InvoiceStatus>)]
    status: Option<InvoiceStatus>,
    currency: String,
    total: i64,
    amount_due: i64,
    amount_paid: i64,
    period: PeriodView,
    /// The page that shows the invoice, and where it can be paid.
    #[schema(required = true)]
    url: Option<String>,
    created_at: DateTime<Utc>,
    lines: Vec<InvoiceLineView>,
}

/// A position of an invoice: what is charged, how much of it and for which amount.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InvoiceLine)]
pub(crate) struct InvoiceLineView {
    description: String,
    /// Negative for a credit.
    amount: i64,
    quantity: u64,
    /// Whether the line is for a part of a period.
    proration: bool,
}

/// A page of the payment provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Link, examples(json!({"url": "https://checkout.stripe.com/c/pay/…", "expires_at": "2026-01-16T12:00:00Z"})))]
pub(crate) struct LinkView {
    url: String,
    /// When the link expires; null when the provider names no time.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
}

/// A subscription to start.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Checkout, examples(json!({"plan": "pro", "interval": "month", "currency": "usd", "seats": 3})))]
pub(crate) struct CheckoutBody {
    plan: String,
    /// `month` when absent.
    #[schema(value_type = Option<schema::Interval>)]
    interval: Option<Interval>,
    /// ISO 4217, in lower case; the currency of the plan's first price when absent.
    #[schema(value_type = Option<String>)]
    currency: Option<Currency>,
    /// One for each active user when absent.
    #[schema(minimum = 1, maximum = 100_000)]
    seats: Option<u32>,
}

/// A change of the subscription. An absent field is unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeSubscription, examples(json!({"plan": "enterprise", "interval": "year", "seats": 10})))]
pub(crate) struct ChangeBody {
    plan: String,
    #[schema(value_type = Option<schema::Interval>)]
    interval: Option<Interval>,
    #[schema(minimum = 1, maximum = 100_000)]
    seats: Option<u32>,
}

/// The change to preview. An absent field is unchanged.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PreviewParams {
    #[param(example = "enterprise")]
    plan: String,
    #[param(value_type = schema::Interval, inline, required = false)]
    interval: Option<Interval>,
    #[param(minimum = 1, maximum = 100_000)]
    seats: Option<u32>,
}

/// A change of the subscription that is in progress.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubscriptionChange, examples(json!({
    "status": "pending", "plan": "enterprise", "interval": "year", "seats": 10, "cancel_at_period_end": null,
})))]
pub(crate) struct PendingView {
    /// `pending`: the change takes seconds. `GET /api/v1/billing` then shows its result, or why it was refused.
    status: &'static str,
    #[schema(required = true)]
    plan: Option<String>,
    #[schema(required = true, value_type = Option<schema::Interval>)]
    interval: Option<&'static str>,
    #[schema(required = true)]
    seats: Option<u32>,
    #[schema(required = true)]
    cancel_at_period_end: Option<bool>,
}

/// The effects of a subscription change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangePreview, examples(json!({
    "plan": "free", "interval": "month", "currency": "usd", "seats": 1, "features_gained": [], "features_lost": ["branding"],
    "limits": [{"name": "users", "now": 50, "then": 5, "used": 9, "over": 4}],
    "proration": {"currency": "usd", "amount_due": -1_450, "lines": [
        {"description": "Unused time on Pro", "amount": -1_450, "quantity": 1, "proration": true},
    ]},
})))]
pub(crate) struct PreviewView {
    plan: String,
    #[schema(value_type = schema::Interval)]
    interval: &'static str,
    currency: String,
    seats: u32,
    /// The features that the tenant would gain.
    features_gained: Vec<String>,
    /// Features that it would no longer have.
    features_lost: Vec<String>,
    /// Limits that would be others.
    limits: Vec<LimitChangeView>,
    /// The cost of the change; null without a subscription.
    #[schema(required = true)]
    proration: Option<ProrationView>,
}

/// A limit that would be another; null is unlimited.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LimitChange)]
pub(crate) struct LimitChangeView {
    name: String,
    #[schema(required = true)]
    now: Option<u64>,
    #[schema(required = true)]
    then: Option<u64>,
    /// The current count; null when it is not counted.
    #[schema(required = true)]
    used: Option<u64>,
    /// The count beyond the new limit. Nothing is deleted, and nothing can be added.
    over: u64,
}

/// The cost of a change if it is made now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Proration)]
pub(crate) struct ProrationView {
    currency: String,
    /// Negative for a credit.
    amount_due: i64,
    lines: Vec<InvoiceLineView>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/billing").get(read))
        .service(Endpoint::at("/billing/invoices").get(list_invoices))
        .service(Endpoint::at("/billing/preview").get(preview))
        .service(Endpoint::at("/billing/checkout").post(checkout))
        .service(Endpoint::at("/billing/portal").post(portal))
        .service(Endpoint::at("/billing/subscription").post(change))
        .service(Endpoint::at("/billing/subscription/cancel").post(cancel))
        .service(Endpoint::at("/billing/subscription/resume").post(resume));
}

/// Get the billing overview
///
/// Plan, subscription, usage and projected cost of the tenant. Available to suspended tenants. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/billing", operation_id = "get_billing", tag = "Billing",
    responses((status = 200, description = "The overview.", body = BillingView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["billing_unavailable"]))),
)]
pub(crate) async fn read(cx: Ctx<ReadBilling>) -> Answer {
    let view = BillingView::from(billing_dashboard::dashboard(&cx).await?);
    Ok(entity(view.version, &view))
}

/// List invoices
///
/// Available to suspended tenants. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/billing/invoices", operation_id = "list_invoices", tag = "Billing",
    params(PageParams),
    responses((status = 200, description = "The invoices, newest first.", body = PageView<InvoiceView>, headers(("Link")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["billing_unavailable"]))),
)]
pub(crate) async fn list_invoices(cx: Ctx<ReadBilling>, query: Paged<NoParams>) -> Answer {
    let page = invoice::list(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(InvoiceView::from)))
}

/// Preview a subscription change
///
/// Returns the cost of another plan, interval or number of seats. Nothing is changed. `proration` is null where the plan is
/// bought by a checkout: without a subscription, and during a trial of another plan for a plan without one. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/billing/preview", operation_id = "preview_subscription", tag = "Billing",
    params(PreviewParams),
    responses((status = 200, description = "The change and its cost.", body = PreviewView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed", "unknown_field", "billing_unavailable", "billing_customer_gone", "conflict"]))),
)]
pub(crate) async fn preview(cx: Ctx<ReadBilling>, query: Query<PreviewParams>) -> Answer {
    let preview = billing::preview(&cx, &Wish::from(query.0)).await?;
    Ok(HttpResponse::Ok().json(PreviewView::from(preview)))
}

/// Start a checkout
///
/// Returns the URL of a payment page. The plan changes when the payment succeeds. A tenant has one open checkout: the same
/// request returns the same page, and another request closes the earlier page. While it is open, its seats limit active
/// users. While an invoice of an ended subscription is open the answer is 422 (`invoice_open`). Available to suspended tenants.
/// Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/billing/checkout", operation_id = "begin_checkout", tag = "Billing",
    params(IdempotencyKey), request_body = CheckoutBody,
    responses((status = 200, description = "The URL of the payment page.", body = LinkView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["billing_unavailable", "conflict"]))),
)]
pub(crate) async fn checkout(
    cx: Ctx<ManageBilling>,
    key: IdempotencyKey,
    body: Body<CheckoutBody>,
) -> Answer {
    let wish = Wish::from(body.0);
    let checkout = async |cx: &Cx| billing::checkout(cx, &wish).await;
    key.once(&cx, checkout, |link| {
        HttpResponse::Ok().json(LinkView::from(link))
    })
    .await
}

/// Open the billing portal
///
/// Returns the URL of a page where the tenant manages cards, invoices and the subscription. Available to suspended
/// tenants. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/billing/portal", operation_id = "open_billing_portal", tag = "Billing",
    responses((status = 200, description = "The URL of the portal.", body = LinkView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["billing_unavailable", "conflict"]))),
)]
pub(crate) async fn portal(cx: Ctx<ManageBilling>) -> Answer {
    let link = billing::portal(&cx).await?;
    Ok(HttpResponse::Ok().json(LinkView::from(link)))
}

/// Change the subscription
///
/// The difference for the rest of the period is charged or credited with the next invoice. With `seats` and the same plan
/// and interval the subscription keeps the price that was bought. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/billing/subscription", operation_id = "change_subscription", tag = "Billing",
    params(IfMatch, IdempotencyKey), request_body = ChangeBody,
    responses((status = 202, description = "The change is in progress.", body = PendingView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["billing_unavailable", "no_subscription", "conflict"]))),
)]
pub(crate) async fn change(
    cx: Ctx<ManageBilling>,
    when: IfMatch,
    key: IdempotencyKey,
    body: Body<ChangeBody>,
) -> Answer {
    let wish = Wish::from(body.0);
    key.once(
        &cx,
        async |cx| billing::change(cx, &when.0, &wish).await,
        accepted,
    )
    .await
}

/// Cancel the subscription
///
/// The subscription ends with its current period. The tenant is on the free plan afterwards. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/billing/subscription/cancel", operation_id = "cancel_subscription", tag = "Billing",
    params(IfMatch, IdempotencyKey),
    responses((status = 202, description = "The cancellation is in progress.", body = PendingView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["billing_unavailable", "no_subscription", "conflict"]))),
)]
pub(crate) async fn cancel(cx: Ctx<ManageBilling>, when: IfMatch, key: IdempotencyKey) -> Answer {
    let end = async |cx: &tenantry_tenancy::Cx| billing::end_with_period(cx, &when.0, true).await;
    key.once(&cx, end, accepted).await
}

/// Resume the subscription
///
/// Takes back a cancellation before the period ends. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/billing/subscription/resume", operation_id = "resume_subscription", tag = "Billing",
    params(IfMatch, IdempotencyKey),
    responses((status = 202, description = "The resumption is in progress.", body = PendingView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["billing_unavailable", "no_subscription", "conflict"]))),
)]
pub(crate) async fn resume(cx: Ctx<ManageBilling>, when: IfMatch, key: IdempotencyKey) -> Answer {
    let go_on = async |cx: &tenantry_tenancy::Cx| billing::end_with_period(cx, &when.0, false).await;
    key.once(&cx, go_on, accepted).await
}

fn accepted(change: SubscriptionChange) -> HttpResponse {
    HttpResponse::Accepted().json(PendingView::from(change))
}

impl From<CheckoutBody> for Wish {
    fn from(body: CheckoutBody) -> Self {
        Self {
            plan: body.plan,
            interval: body.interval,
            currency: body.currency,
            seats: body.seats,
        }
    }
}

impl From<ChangeBody> for Wish {
    fn from(body: ChangeBody) -> Self {
        Self {
            plan: body.plan,
            interval: body.interval,
            currency: None,
            seats: body.seats,
        }
    }
}

impl From<PreviewParams> for Wish {
    fn from(params: PreviewParams) -> Self {
        Self {
            plan: params.plan,
            interval: params.interval,
            currency: None,
            seats: params.seats,
        }
    }
}

impl From<SubscriptionChange> for PendingView {
    fn from(change: SubscriptionChange) -> Self {
        let (offer, seats, ending) = match change.what {
            Changing::Offer { offer, seats } => (Some(offer), Some(seats), None),
            Changing::Ending(end) => (None, None, Some(end)),
        };
        Self {
            status: "pending",
            interval: offer.as_ref().map(|offer| offer.interval.as_str()),
            plan: offer.map(|offer| offer.plan),
            seats,
            cancel_at_period_end: ending,
        }
    }
}

impl From<Link> for LinkView {
    fn from(link: Link) -> Self {
        Self {
            url: link.url,
            expires_at: link.expires_at,
        }
    }
}

impl From<Period> for PeriodView {
    fn from(Period { start, end }: Period) -> Self {
        Self { start, end }
    }
}

impl From<Projection> for ProjectionView {
    fn from(Projection { low, likely, high }: Projection) -> Self {
        Self { low, likely, high }
    }
}

impl From<Dashboard> for BillingView {
    fn from(dashboard: Dashboard) -> Self {
        let account = dashboard.account.as_ref();
        Self {
            plan: BillingPlanView {
                name: dashboard.plan.name.clone(),
                title: dashboard.plan.title.clone(),
                version: dashboard.plan.version,
            },
            period: dashboard.period.into(),
            subscription: account.and_then(subscription),
            payment: payment(account),
            meters: dashboard.meters.iter().map(MeterView::from).collect(),
            costs: dashboard.lines.into_iter().map(CostView::from).collect(),
            next_invoice: dashboard.next_invoice.into(),
            version: account.map_or(0, |account| account.version),
        }
    }
}

fn subscription(account: &BillingAccount) -> Option<SubscriptionView> {
    let subscription = account.live_subscription()?;
    let offer = subscription.offer.as_ref();
    Some(SubscriptionView {
        status: subscription.status.as_str().to_owned(),
        interval: offer.map(|offer| offer.interval.as_str()),
        currency: offer.map(|offer| offer.currency.to_string()),
        seats: subscription.seats,
        trial_ends_at: subscription.trial_ends_at,
        cancel_at_period_end: subscription.cancel_at_period_end,
        paid_until: subscription.period.end,
    })
}

fn payment(account: Option<&BillingAccount>) -> PaymentView {
    let dunning = account.map_or(tenantry_domain::billing::Dunning::HEALTHY, |account| {
        account.dunning
    });
    PaymentView {
        state: dunning.state.as_str(),
        failed_at: dunning.failed_at,
        next_step_at: dunning.next_at,
        refusal: account.and_then(|account| account.refusal.clone()),
    }
}

fn amount(limit: Limit) -> Option<u64> {
    match limit {
        Limit::Of(most) => Some(most),
        Limit::Unlimited => None,
    }
}

impl From<&MeterUse> for MeterView {
    fn from(one: &MeterUse) -> Self {
        Self {
            meter: one.meter.key.to_string(),
            title: one.meter.title.clone(),
            unit: one.meter.unit.clone(),
            period: one.period.into(),
            used: one.used,
            included: amount(one.terms.included),
            limit: amount(one.terms.limit),
            overage: one.terms.beyond(one.used),
            projected: one.projected.into(),
            projected_overage: one.terms.beyond(one.projected.likely),
        }
    }
}

impl From<CostLine> for CostView {
    fn from(line: CostLine) -> Self {
        Self {
            meter: line.meter,
            currency: line.currency.to_string(),
            now: line.now,
            low: line.low,
            likely: line.likely,
            high: line.high,
        }
    }
}

impl From<NextInvoice> for NextInvoiceView {
    fn from(next: NextInvoice) -> Self {
        let (known, invoice) = match next {
            NextInvoice::Known(invoice) => (true, Some(invoice)),
            NextInvoice::None => (true, None),
            NextInvoice::Unknown => (false, None),
        };
        Self {
            known,
            currency: invoice.as_ref().map(|invoice| invoice.currency.to_string()),
            total: invoice.as_ref().map(|invoice| invoice.total),
            at: invoice.and_then(|invoice| invoice.next_attempt_at.or(Some(invoice.period.end))),
        }
    }
}

impl From<Invoice> for InvoiceView {
    fn from(invoice: Invoice) -> Self {
        let ProviderInvoice {
            number,
            status,
            currency,
            total,
            amount_due,
            amount_paid,
            period,
            url,
            created_at,
            lines,
            ..
        } = invoice.mirror;
        Self {
            id: invoice.id,
            number,
            status,
            currency: currency.to_string(),
            total,
            amount_due,
            amount_paid,
            period: period.into(),
            url,
            created_at,
            lines: lines.into_iter().map(InvoiceLineView::from).collect(),
        }
    }
}

impl From<InvoiceLine> for InvoiceLineView {
    fn from(line: InvoiceLine) -> Self {
        Self {
            description: line.description,
            amount: line.amount,
            quantity: line.quantity,
            proration: line.proration,
        }
    }
}

impl From<ChangePreview> for PreviewView {
    fn from(preview: ChangePreview) -> Self {
        Self {
            plan: preview.offer.plan,
            interval: preview.offer.interval.as_str(),
            currency: preview.offer.currency.to_string(),
            seats: preview.seats,
            features_gained: preview.gained,
            features_lost: preview.lost,
            limits: preview.limits.into_iter().map(LimitChangeView::from).collect(),
            proration: preview.proration.map(ProrationView::from),
        }
    }
}

impl From<LimitChange> for LimitChangeView {
    fn from(change: LimitChange) -> Self {
        Self {
            name: change.name,
            now: amount(change.now),
            then: amount(change.then),
            used: change.used,
            over: change.over,
        }
    }
}

impl From<ProrationPreview> for ProrationView {
    fn from(preview: ProrationPreview) -> Self {
        Self {
            currency: preview.currency.to_string(),
            amount_due: preview.amount_due,
            lines: preview.lines.into_iter().map(InvoiceLineView::from).collect(),
        }
    }
}
