use std::collections::BTreeMap;

use actix_web::{HttpResponse, web::ServiceConfig};
use serde::Serialize;
use tenantry_billing::plans::entitlement::{self, Capabilities};
use tenantry_domain::kernel::{Limit, Resolved};
use tenantry_domain::tenant::{Capability, TenantStatus};
use tenantry_tenancy::UseCaseError;
use utoipa::ToSchema;

use crate::{Answer, Ctx, Endpoint, permission::ReadTenant, v1::kernel::schema};

/// Features and limits of a tenant's plan, with current counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Capabilities, examples(json!({
    "plan": {"name": "free", "title": "Free", "version": 1},
    "features": [{"name": "branding", "included": false, "origin": "default"}],
    "limits": [{"name": "projects", "allowed": 3, "used": 2, "origin": "plan"}, {"name": "requests_per_minute", "allowed": 60, "used": null, "origin": "plan"}],
    "status": "active", "capabilities": {"read": true, "write": true, "export": true, "billing": true, "login": true, "jobs": true,
        "webhooks": true},
})))]
pub(crate) struct CapabilitiesView {
    plan: PlanView,
    /// Every feature that there is.
    features: Vec<FeatureView>,
    limits: Vec<LimitView>,
    /// The state of the tenant.
    #[schema(value_type = schema::TenantStatus)]
    status: TenantStatus,
    /// What the state of the tenant allows, whatever its plan: `read`, `write`, `export`, `billing`, `login`, `jobs`, `webhooks`.
    capabilities: BTreeMap<&'static str, bool>,
}

/// The plan of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CapabilitiesPlan)]
pub(crate) struct PlanView {
    name: String,
    /// The display name.
    title: String,
    /// The version that the tenant bought; the plan may be sold on other terms now.
    version: u32,
}

/// A feature of plans.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CapabilitiesFeature)]
pub(crate) struct FeatureView {
    name: String,
    /// Whether the tenant has it.
    included: bool,
    /// The source of the value: the `plan`, an agreement with the `tenant`, or the `default`.
    #[schema(examples("plan"))]
    origin: &'static str,
}

/// A limit of the tenant's plan.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CapabilitiesLimit)]
pub(crate) struct LimitView {
    name: String,
    /// Null where there is no limit.
    #[schema(required = true)]
    allowed: Option<u64>,
    /// The current count; null when it is not counted here, such as requests per minute.
    #[schema(required = true)]
    used: Option<u64>,
    /// The source of the value: the `plan`, an agreement with the `tenant`, or the `default`.
    #[schema(examples("plan"))]
    origin: &'static str,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/tenant/capabilities").get(read));
}

/// Get the capabilities of the tenant
///
/// Features and limits of the tenant's plan, with current counts, and what its state allows. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tenant/capabilities", operation_id = "get_capabilities", tag = "Tenant",
    responses((status = 200, description = "The features and limits.", body = CapabilitiesView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadTenant>) -> Answer {
    let can = entitlement::capabilities::<UseCaseError>(&cx).await?;
    Ok(HttpResponse::Ok().json(CapabilitiesView::of(can, cx.scope().status())))
}

impl CapabilitiesView {
    fn of(can: Capabilities, status: TenantStatus) -> Self {
        let feature = |(name, has): (String, Resolved<bool>)| FeatureView {
            name,
            included: has.value,
            origin: has.level.as_str(),
        };
        let limit = |(name, limit, used): (String, Resolved<Limit>, Option<u64>)| LimitView {
            name,
            allowed: match limit.value {
                Limit::Of(most) => Some(most),
                Limit::Unlimited => None,
            },
            used,
            origin: limit.level.as_str(),
        };
        Self {
            plan: PlanView {
                name: can.plan.name.clone(),
                title: can.plan.title.clone(),
                version: can.plan.version,
            },
            features: can.features.into_iter().map(feature).collect(),
            limits: can.limits.into_iter().map(limit).collect(),
            status,
            capabilities: Capability::ALL
                .map(|one| (one.as_str(), status.allows(one)))
                .into(),
        }
    }
}
