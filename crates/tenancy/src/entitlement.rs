//! What a tenant's plan lets it do: features that are switched on, and how much of each thing.

use std::sync::Arc;

use serde::Serialize;
use tenantry_domain::{Limit, Permission, PlanTerms, Refused, StoreError, Tenant, Work};

use crate::{Cx, context::carries_store_error};

/// A feature that plans switch on, by the name that the plan catalogue has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Feature(pub &'static str);

impl Feature {
    /// The tenant's own logo, colours and style.
    pub const BRANDING: Self = Self("branding");
    /// The tenant under a domain of its own.
    pub const CUSTOM_DOMAIN: Self = Self("custom_domain");
    /// The audit log as a file.
    pub const AUDIT_EXPORT: Self = Self("audit_export");
    /// Sign-in through the tenant's own identity provider.
    pub const SSO: Self = Self("sso");
}

/// What is counted against a limit of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Countable {
    /// Users that are not deleted.
    Users,
    /// Projects that are not deleted.
    Projects,
}

impl Countable {
    /// Everything that is counted.
    pub const ALL: [Self; 2] = [Self::Users, Self::Projects];

    /// The limit's name in the plan catalogue.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Projects => "projects",
        }
    }

    async fn count(self, work: &mut Work) -> Result<u64, StoreError> {
        match self {
            Self::Users => work.users().count().await,
            Self::Projects => work.projects().count().await,
        }
    }
}

/// The limit of what a tenant stores, in bytes; its name in the plan catalogue.
pub const STORAGE: &str = "storage_bytes";

/// The plan does not allow it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInPlan {
    /// A feature that the plan does not switch on.
    #[error("the plan '{}' does not include {feature}{}", .plans.current, .plans.advice("includes it", "include it"))]
    Feature {
        /// The feature.
        feature: &'static str,
        /// The tenant's plan, and those with the feature.
        plans: Plans,
    },
    /// More than the plan allows.
    #[error("the plan '{}' allows {allowed} {limit}, and there are {used}{}", .plans.current, .plans.advice("allows more", "allow more"))]
    Limit {
        /// The limit's name.
        limit: &'static str,
        /// How much the plan allows.
        allowed: u64,
        /// How much there is.
        used: u64,
        /// The tenant's plan, and those that allow more.
        plans: Plans,
    },
}

/// The plan of a tenant that does not do, and those that would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans {
    /// The tenant's.
    pub current: String,
    /// Those on offer that would do, the least first; none where there is no such plan.
    pub required: Vec<String>,
}

impl Plans {
    fn that(cx: &Cx, current: &PlanTerms, would_do: impl Fn(&PlanTerms) -> bool) -> Self {
        let on_offer = cx.ports().plans.on_offer();
        let required = on_offer.iter().filter(|terms| would_do(terms));
        Self {
            current: current.name.clone(),
            required: required.map(|terms| terms.name.clone()).collect(),
        }
    }

    fn advice(&self, one: &str, more: &str) -> String {
        match self.required.as_slice() {
            [] => String::new(),
            [only] => format!("; '{only}' {one}"),
            several => format!("; '{}' {more}", several.join("' and '")),
        }
    }
}

impl Cx {
    /// What the tenant's plan grants, in the version that it bought.
    pub fn plan(&self) -> Arc<PlanTerms> {
        let plans = &self.ports().plans;
        match self.scope().plan() {
            Some((plan, version)) => plans.terms(plan, version),
            // The founder of a tenant chooses among what is on offer.
            None => plans.terms(plans.default_plan(), 0),
        }
    }

    /// The check of a use case whose feature not every plan has; after [`Cx::require`].
    ///
    /// # Errors
    /// [`NotInPlan::Feature`].
    pub fn require_feature(&self, feature: Feature) -> Result<(), NotInPlan> {
        let plan = self.plan();
        if plan.has(feature.0) {
            return Ok(());
        }
        Err(NotInPlan::Feature {
            feature: feature.0,
            plans: Plans::that(self, &plan, |terms| terms.has(feature.0)),
        })
    }
}

/// Why nothing could be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The plan allows no more.
    #[error(transparent)]
    NotInPlan(#[from] NotInPlan),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(AddError);

/// Makes sure that the plan allows one more; in the transaction that adds it, before it is added.
///
/// Whoever wants to add something of a limited kind holds the tenant's row until they have, so that of two at the last
/// place one comes second and is counted.
///
/// # Errors
/// [`AddError`].
pub async fn one_more(cx: &Cx, work: &mut Work, what: Countable) -> Result<(), AddError> {
    if cx.plan().limit(what.limit()) == Limit::Unlimited {
        return Ok(());
    }
    let tenant = work.tenants().current_for_update().await?;
    let tenant = tenant.ok_or_else(|| StoreError::Other("the scope's tenant is not there".into()))?;
    let plan = cx.ports().plans.terms(&tenant.plan, tenant.plan_version);
    let used = what.count(work).await?;
    within(cx, &plan, what.limit(), used, 1)?;
    Ok(())
}

/// Counts `bytes` more as stored, if the plan allows them; in the transaction that stores them.
///
/// # Errors
/// [`AddError`].
pub async fn store_more(cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), AddError> {
    if bytes == 0 {
        return Ok(());
    }
    let used = work.storage().used_for_update(cx.now()).await?;
    within(cx, &cx.plan(), STORAGE, used, bytes)?;
    work.storage().set_used(used + bytes).await?;
    Ok(())
}

/// Counts `bytes` as stored no more; in the transaction that deletes them.
///
/// # Errors
/// [`StoreError`].
pub async fn store_less(cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), StoreError> {
    if bytes == 0 {
        return Ok(());
    }
    let used = work.storage().used_for_update(cx.now()).await?;
    work.storage().set_used(used.saturating_sub(bytes)).await
}

fn within(cx: &Cx, plan: &PlanTerms, limit: &'static str, used: u64, more: u64) -> Result<(), NotInPlan> {
    let allowed = plan.limit(limit);
    let Limit::Of(most) = allowed else { return Ok(()) };
    if used.saturating_add(more) <= most {
        return Ok(());
    }
    Err(NotInPlan::Limit {
        limit,
        allowed: most,
        used,
        plans: Plans::that(cx, plan, |terms| terms.limit(limit).exceeds(allowed)),
    })
}

/// What a tenant may do, and how much of it it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// What its plan grants.
    pub plan: Arc<PlanTerms>,
    /// Every feature that a plan on offer has, and whether the tenant's has it.
    pub features: Vec<(String, bool)>,
    /// How much there is of what is limited and counted.
    pub used: Vec<(&'static str, u64)>,
}

/// What the tenant may do.
///
/// # Errors
/// [`CapabilitiesError`].
pub async fn capabilities(cx: &Cx) -> Result<Capabilities, CapabilitiesError> {
    cx.require(Permission::ReadTenant)?;
    let (tenant, used) = cx
        .read(async |work| {
            let tenant = work.tenants().current().await?;
            let mut used = Vec::new();
            for what in Countable::ALL {
                used.push((what.limit(), what.count(work).await?));
            }
            used.push((STORAGE, work.storage().used().await?));
            Ok::<_, CapabilitiesError>((tenant, used))
        })
        .await?;
    let plan = tenant.map_or_else(|| cx.plan(), |tenant| terms_of(cx, &tenant));
    let on_offer = cx.ports().plans.on_offer();
    let mut all: Vec<&String> = on_offer.iter().flat_map(|terms| &terms.features).collect();
    all.extend(&plan.features);
    all.sort_unstable();
    all.dedup();
    let features = all
        .into_iter()
        .map(|name| (name.clone(), plan.has(name)))
        .collect();
    Ok(Capabilities { plan, features, used })
}

/// Why a tenant's capabilities are not told.
#[derive(Debug, thiserror::Error)]
pub enum CapabilitiesError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(CapabilitiesError);

fn terms_of(cx: &Cx, tenant: &Tenant) -> Arc<PlanTerms> {
    cx.ports().plans.terms(&tenant.plan, tenant.plan_version)
}
