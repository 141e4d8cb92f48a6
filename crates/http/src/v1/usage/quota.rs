use std::str::FromStr;

use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_billing::usage::quota::{self, QuotaStanding};
use tenantry_domain::kernel::{Level, Limit, ParseIdError, QuotaAlertId, QuotaReservationId};
use tenantry_domain::usage::{AlertBase, MeterKey, QuotaAlert, QuotaReservation, ReservationState};
use tenantry_tenancy::Cx;
use utoipa::ToSchema;

use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, Ids, PageView, Paged, created, no_content,
    permission::{ReadTenant, ReserveQuota},
};

/// The quota of a meter in the current period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota, examples(json!({
    "meter": "api_calls", "title": "API calls", "unit": "call", "period_start": "2026-01-01T00:00:00Z",
    "resets_at": "2026-02-01T00:00:00Z", "included": 10_000, "limit": 10_000, "used": 640, "reserved": 10,
    "leased": 20, "balance": 9_330, "overage": 0, "source": "plan",
})))]
pub(crate) struct QuotaView {
    meter: String,
    /// The display name.
    title: String,
    /// The name of one unit.
    unit: String,
    period_start: DateTime<Utc>,
    /// When the next period begins.
    resets_at: DateTime<Utc>,
    /// The units that the price includes; null for unlimited.
    #[schema(required = true)]
    included: Option<u64>,
    /// The limit; null for unlimited.
    #[schema(required = true)]
    limit: Option<u64>,
    /// The used units: the counter of the limit or, without a counter, the total of the ledger.
    used: u64,
    /// The units that open reservations hold.
    reserved: u64,
    /// The units that servers have leased for requests.
    leased: u64,
    /// The remaining units; null for unlimited.
    #[schema(required = true)]
    balance: Option<u64>,
    /// The units used beyond the included ones.
    overage: u64,
    /// The source of the limit: the `plan`, an agreement with the tenant (`tenant_override`), or the `default`.
    #[schema(examples("plan"))]
    source: &'static str,
}

/// A reached threshold of a quota: one for each threshold and period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuotaAlert, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "meter": "api_calls", "period_start": "2026-01-01T00:00:00Z",
    "resets_at": "2026-02-01T00:00:00Z", "of": "limit", "percent": 80, "amount": 10_000, "used": 8_000,
    "created_at": "2026-01-20T12:00:00Z",
})))]
pub(crate) struct AlertView {
    #[schema(value_type = Uuid)]
    id: QuotaAlertId,
    meter: String,
    period_start: DateTime<Utc>,
    resets_at: DateTime<Utc>,
    #[schema(value_type = schema::AlertBase)]
    of: AlertBase,
    percent: u32,
    /// The units that are 100 %.
    amount: u64,
    /// The used units at that time.
    used: u64,
    created_at: DateTime<Utc>,
}

/// Units that are reserved for work in progress.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = QuotaReservation, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "meter": "renders", "amount": 10, "actual": null,
    "status": "open", "expires_at": "2026-01-31T12:01:00Z", "created_at": "2026-01-31T12:00:00Z",
})))]
pub(crate) struct ReservationView {
    #[schema(value_type = Uuid)]
    id: QuotaReservationId,
    meter: String,
    amount: u64,
    /// The units that were committed.
    #[schema(required = true)]
    actual: Option<u64>,
    #[schema(value_type = schema::ReservationState)]
    status: ReservationState,
    /// When the reservation expires.
    expires_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

/// Units to reserve.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewQuotaReservation, examples(json!({"amount": 10, "ttl_seconds": 60})))]
pub(crate) struct NewReservation {
    #[schema(minimum = 1)]
    amount: u64,
    /// The lifetime of the reservation, in seconds.
    #[schema(minimum = 1, maximum = 86_400)]
    ttl_seconds: u32,
}

/// The used units of a reservation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CommitQuotaReservation, examples(json!({"actual": 7})))]
pub(crate) struct CommitReservation {
    /// It may be more than was set aside, as far as the limit allows it.
    actual: u64,
}

/// The key of a meter in a path.
#[derive(Debug, Clone)]
pub(crate) struct MeterName(MeterKey);

impl FromStr for MeterName {
    type Err = ParseIdError;

    /// What cannot be a key is the key of nothing.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        MeterKey::parse(text).map(Self).ok_or(ParseIdError)
    }
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/quotas").get(list))
        .service(Endpoint::at("/quotas/alerts").get(alerts))
        .service(
            Endpoint::at("/quotas/{meter}/reservations")
                .get(reservations)
                .post(reserve),
        )
        .service(
            Endpoint::at("/quotas/{meter}/reservations/{id}")
                .get(read_reservation)
                .delete(release),
        )
        .service(Endpoint::at("/quotas/{meter}/reservations/{id}/commit").post(commit));
}

/// List quotas
///
/// Usage, reservations and limits of every meter. Available when the quota of API calls is used up. Minimum role:
/// viewer.
#[utoipa::path(
    get, path = "/api/v1/quotas", operation_id = "list_quotas", tag = "Quotas",
    responses((status = 200, description = "The quotas, by meter.", body = PageView<QuotaView>)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadTenant>) -> Answer {
    let all = quota::list(&cx).await?;
    let data = all.into_iter().map(QuotaView::from).collect();
    Ok(HttpResponse::Ok().json(PageView {
        data,
        next_cursor: None,
    }))
}

/// List quota alerts
///
/// The thresholds that the tenant's usage has reached. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/quotas/alerts", operation_id = "list_quota_alerts", tag = "Quotas",
    params(PageParams),
    responses((status = 200, description = "The alerts, newest first.", body = PageView<AlertView>, headers(("Link")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn alerts(cx: Ctx<ReadTenant>, query: Paged<NoParams>) -> Answer {
    let page = quota::alerts(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(AlertView::from)))
}

/// List open reservations
///
/// Open reservations of one meter, newest first. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/quotas/{meter}/reservations", operation_id = "list_quota_reservations", tag = "Quotas",
    params(("meter" = String, Path, example = "renders"), PageParams),
    responses((
        status = 200, description = "A page of reservations.", body = PageView<ReservationView>, headers(("Link")),
    )),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn reservations(
    cx: Ctx<ReadTenant>,
    meter: Id<MeterName>,
    query: Paged<NoParams>,
) -> Answer {
    let page = quota::reservations(&cx, &meter.0.0, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(ReservationView::from)))
}

/// Reserve units of a quota
///
/// Holds units for work that takes time. No other request can use them until the reservation is committed, released
/// or expired. The meters that the server counts itself (`api_calls`, `storage_bytes`, `active_users`) take no
/// reservations. Minimum role: member.
#[utoipa::path(
    post, path = "/api/v1/quotas/{meter}/reservations", operation_id = "reserve_quota", tag = "Quotas",
    params(("meter" = String, Path, example = "renders"), IdempotencyKey), request_body = NewReservation,
    responses((status = 201, description = "The reservation.", body = ReservationView, headers(("Location")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found", "meter_reserved", "quota_exceeded", "tenant_suspended"]))),
)]
pub(crate) async fn reserve(
    cx: Ctx<ReserveQuota>,
    meter: Id<MeterName>,
    key: IdempotencyKey,
    body: Body<NewReservation>,
) -> Answer {
    let (meter, wanted) = (meter.0.0, body.0);
    let reserve = async |cx: &Cx| quota::reserve(cx, &meter, wanted.amount, wanted.ttl_seconds).await;
    key.once(&cx, reserve, |held: QuotaReservation| {
        let location = format!("/api/v1/quotas/{}/reservations/{}", held.meter, held.id);
        created(&location, None, &ReservationView::from(held))
    })
    .await
}

/// Get a reservation
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/quotas/{meter}/reservations/{id}", operation_id = "get_quota_reservation", tag = "Quotas",
    params(("meter" = String, Path, example = "renders"), ("id" = Uuid, Path)),
    responses((status = 200, description = "The reservation.", body = ReservationView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read_reservation(
    cx: Ctx<ReadTenant>,
    path: Ids<MeterName, QuotaReservationId>,
) -> Answer {
    let held = quota::reservation(&cx, &path.0.0, path.1).await?;
    Ok(HttpResponse::Ok().json(ReservationView::from(held)))
}

/// Commit a reservation
///
/// Counts the units that were used and frees the rest. An expired reservation is committed if the limit allows all
/// of its units. Repeating the request changes nothing. Minimum role: member.
#[utoipa::path(
    post, path = "/api/v1/quotas/{meter}/reservations/{id}/commit", operation_id = "commit_quota_reservation",
    tag = "Quotas",
    params(("meter" = String, Path, example = "renders"), ("id" = Uuid, Path)), request_body = CommitReservation,
    responses((status = 200, description = "The reservation.", body = ReservationView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["conflict", "quota_exceeded", "tenant_suspended"]))),
)]
pub(crate) async fn commit(
    cx: Ctx<ReserveQuota>,
    path: Ids<MeterName, QuotaReservationId>,
    body: Body<CommitReservation>,
) -> Answer {
    let held = quota::commit(&cx, &path.0.0, path.1, body.0.actual).await?;
    Ok(HttpResponse::Ok().json(ReservationView::from(held)))
}

/// Release a reservation
///
/// Frees the units. Releasing a reservation that is over changes nothing. Minimum role: member.
#[utoipa::path(
    delete, path = "/api/v1/quotas/{meter}/reservations/{id}", operation_id = "release_quota_reservation",
    tag = "Quotas",
    params(("meter" = String, Path, example = "renders"), ("id" = Uuid, Path)),
    responses((status = 204, description = "The reservation is released.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["conflict", "tenant_suspended"]))),
)]
pub(crate) async fn release(cx: Ctx<ReserveQuota>, path: Ids<MeterName, QuotaReservationId>) -> Answer {
    quota::release(&cx, &path.0.0, path.1).await?;
    Ok(no_content())
}

/// How much; null where there is no limit.
pub(in crate::v1) const fn amount(limit: Limit) -> Option<u64> {
    match limit {
        Limit::Of(most) => Some(most),
        Limit::Unlimited => None,
    }
}

/// Who says so, as entitlements call it.
pub(in crate::v1) const fn source(level: Level) -> &'static str {
    match level {
        Level::Tenant => "tenant_override",
        Level::Default | Level::Global | Level::Plan | Level::User => level.as_str(),
    }
}

impl From<QuotaStanding> for QuotaView {
    fn from(quota: QuotaStanding) -> Self {
        let tally = quota.tally;
        Self {
            meter: quota.meter.key.to_string(),
            title: quota.meter.title.clone(),
            unit: quota.meter.unit.clone(),
            period_start: quota.period.start,
            resets_at: quota.period.end,
            included: amount(quota.terms.value.included),
            limit: amount(quota.terms.value.limit),
            used: tally.used,
            reserved: tally.reserved,
            leased: tally.leased,
            balance: quota.balance(),
            overage: quota.overage(),
            source: source(quota.source()),
        }
    }
}

impl From<QuotaAlert> for AlertView {
    fn from(alert: QuotaAlert) -> Self {
        Self {
            id: alert.id,
            meter: alert.meter.to_string(),
            period_start: alert.period.start,
            resets_at: alert.period.end,
            of: alert.threshold.base,
            percent: alert.threshold.percent,
            amount: alert.threshold.amount,
            used: alert.used,
            created_at: alert.created_at,
        }
    }
}

impl From<QuotaReservation> for ReservationView {
    fn from(held: QuotaReservation) -> Self {
        Self {
            id: held.id,
            meter: held.meter.to_string(),
            amount: held.amount,
            actual: held.actual,
            status: held.state,
            expires_at: held.expires_at,
            created_at: held.created_at,
        }
    }
}
