use std::str::FromStr;

use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tenantry_billing::plans::entitlement::{self, Entitled, Extent};
use tenantry_domain::kernel::{ErrorCode, Limit, ParseIdError};
use utoipa::ToSchema;

use crate::v1::usage::quota::{amount, source};
use crate::{Answer, ApiError, Ctx, Endpoint, Id, PageView, permission::ReadTenant};

/// An entitlement of a tenant: a plan feature, a limit or a meter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Entitlement, examples(
    json!({
        "feature": "api_calls", "has_access": true, "kind": "metered", "limit": 10_000, "used": 640, "reserved": 10,
        "balance": 9_350, "overage": 0, "resets_at": "2026-02-01T00:00:00Z", "source": "plan",
        "config": {"unit": "call", "aggregation": "sum", "reset": "billing_cycle", "included": 10_000},
    }),
    json!({
        "feature": "branding", "has_access": false, "kind": "boolean", "limit": null, "used": null, "reserved": 0,
        "balance": null, "overage": 0, "resets_at": null, "source": "default", "config": {},
    }),
))]
pub(crate) struct EntitlementView {
    /// Its name in the plan catalogue.
    feature: String,
    /// Whether the tenant may use it now: it has the feature, or units are left.
    has_access: bool,
    /// `boolean`: a plan feature; `static`: a limit at any time, or of a day; `metered`: units per period.
    #[schema(examples("metered"))]
    kind: &'static str,
    /// The limit; null for unlimited.
    #[schema(required = true)]
    limit: Option<u64>,
    /// The used units; null when they are not counted here.
    #[schema(required = true)]
    used: Option<u64>,
    /// The units that reservations and servers hold.
    reserved: u64,
    /// The remaining units; null for unlimited.
    #[schema(required = true)]
    balance: Option<u64>,
    /// The units used beyond those that the price includes.
    overage: u64,
    /// When the next period begins; null for what has no period. `usage_events_per_day` begins again at midnight, UTC.
    #[schema(required = true)]
    resets_at: Option<DateTime<Utc>>,
    /// The source of the limit: the `plan`, an agreement with the tenant (`tenant_override`), or the `default`.
    #[schema(examples("plan"))]
    source: &'static str,
    /// For meters: `unit`, `aggregation`, `reset`, and `included` (null for unlimited).
    #[schema(value_type = Object)]
    config: Value,
}

/// The name of something in a path.
#[derive(Debug, Clone)]
pub(crate) struct FeatureName(String);

impl FromStr for FeatureName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Ok(Self(text.to_owned()))
    }
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/entitlements").get(list))
        .service(Endpoint::at("/entitlements/{feature}").get(read));
}

/// List entitlements
///
/// Plan features, limits and meters of the tenant, in one form. Available when the quota of API calls is used up.
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/entitlements", operation_id = "list_entitlements", tag = "Quotas",
    responses((status = 200, description = "The entitlements, by name.", body = PageView<EntitlementView>)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadTenant>) -> Answer {
    let all = entitlement::list(&cx).await?;
    let data = all.into_iter().map(EntitlementView::from).collect();
    Ok(HttpResponse::Ok().json(PageView {
        data,
        next_cursor: None,
    }))
}

/// Get an entitlement
///
/// Available when the quota of API calls is used up. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/entitlements/{feature}", operation_id = "get_entitlement", tag = "Quotas",
    params(("feature" = String, Path, description = "A feature, a limit or a meter.", example = "api_calls")),
    responses((status = 200, description = "The entitlement.", body = EntitlementView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read(cx: Ctx<ReadTenant>, name: Id<FeatureName>) -> Answer {
    let all = entitlement::list(&cx).await?;
    let found = all.into_iter().find(|entitled| entitled.name == name.0.0);
    let found = found.ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    Ok(HttpResponse::Ok().json(EntitlementView::from(found)))
}

impl From<Entitled> for EntitlementView {
    fn from(entitled: Entitled) -> Self {
        let bare = Self {
            has_access: entitled.has_access(),
            feature: entitled.name,
            kind: entitled.extent.kind(),
            limit: None,
            used: None,
            reserved: 0,
            balance: None,
            overage: 0,
            resets_at: None,
            source: source(entitled.level),
            config: json!({}),
        };
        match entitled.extent {
            Extent::Boolean(_) => bare,
            Extent::Static {
                limit,
                used,
                resets_at,
            } => Self {
                limit: amount(limit),
                used,
                resets_at,
                balance: match (limit, used) {
                    (Limit::Of(most), Some(used)) => Some(most.saturating_sub(used)),
                    _ => None,
                },
                ..bare
            },
            Extent::Metered(quota) => Self {
                limit: amount(quota.terms.value.limit),
                used: Some(quota.tally.used),
                reserved: quota.tally.reserved + quota.tally.leased,
                balance: quota.balance(),
                overage: quota.overage(),
                resets_at: Some(quota.period.end),
                config: json!({
                    "unit": quota.meter.unit, "aggregation": quota.meter.aggregation,
                    "reset": quota.meter.reset, "included": amount(quota.terms.value.included),
                }),
                ..bare
            },
        }
    }
}
