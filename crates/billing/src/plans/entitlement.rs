//! What a tenant may do: features that its plan or an agreement switches on, and how much of each thing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::kernel::{AsStoreError, Level, Limit, Period, Permission, Resolved, StoreError, Time};
use tenantry_domain::plans::{Entitlements, PlanTerms};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;
use tenantry_tenancy::Cx;
use tenantry_tenancy::plans::{AddError, Countable, Feature, NotInPlan, RequiredPlans};

use crate::kernel::granted;
use crate::plans::seats;
use crate::usage::quota::{self, QuotaError, QuotaStanding};

/// The limit of what a tenant stores, in bytes; its name in the plan catalogue.
pub const STORAGE: &str = "storage_bytes";

/// Answers tenancy's questions by plans: [`Entitlements`](tenantry_tenancy::plans::Entitlements).
#[derive(Debug, Clone, Copy)]
pub struct PlanEntitlements;

#[async_trait]
impl tenantry_tenancy::plans::Entitlements for PlanEntitlements {
    fn require_feature(&self, cx: &Cx, feature: Feature) -> Result<(), NotInPlan> {
        let has = granted::current(cx);
        if has.feature(feature.0).value {
            return Ok(());
        }
        Err(NotInPlan::Feature {
            feature: feature.0,
            plans: plans_that(cx, &has, |terms| terms.has(feature.0)),
        })
    }

    async fn require_one_more(&self, cx: &Cx, work: &mut Work, what: Countable) -> Result<(), AddError> {
        one_more(cx, work, what).await
    }

    async fn require_seat(&self, cx: &Cx, work: &mut Work) -> Result<(), AddError> {
        seats::require_free(cx, work).await
    }

    fn require_storage(&self, cx: &Cx, used: u64, more: u64) -> Result<(), NotInPlan> {
        within(cx, &granted::current(cx), STORAGE, used, more)
    }
}

/// The plan that the tenant has, and those on offer that would do, the least first.
fn plans_that(cx: &Cx, has: &Entitlements, would_do: impl Fn(&PlanTerms) -> bool) -> RequiredPlans {
    let on_offer = cx.ports().plans.on_offer();
    let required = on_offer.iter().filter(|terms| would_do(terms));
    RequiredPlans {
        current: has.terms.name.clone(),
        required: required.map(|terms| terms.name.clone()).collect(),
    }
}

/// Makes sure that the plan allows one more, and a user also that a seat is free; in the transaction that adds it,
/// before it is added.
///
/// Whoever wants to add something of a limited kind holds the tenant's row until they have, so that of two at the last
/// place one comes second and is counted.
///
/// # Errors
/// [`AddError`].
async fn one_more(cx: &Cx, work: &mut Work, what: Countable) -> Result<(), AddError> {
    let takes_seat = what == Countable::Users && cx.ports().payments.is_some();
    if !takes_seat && granted::current(cx).limit(what.limit()).value == Limit::Unlimited {
        return Ok(());
    }
    let tenant = work.tenants().current_for_update().await?;
    let tenant = tenant.ok_or_else(|| StoreError::Other("the scope's tenant is not there".into()))?;
    let has = granted::of(cx.ports(), Arc::new(tenant.subscription()));
    let used = count(what, cx, work).await?;
    within(cx, &has, what.limit(), used, 1)?;
    if takes_seat {
        seats::require_free(cx, work).await?;
    }
    Ok(())
}

/// How many there are of what is counted.
async fn count(what: Countable, cx: &Cx, work: &mut Work) -> Result<u64, StoreError> {
    match what {
        Countable::Users => Ok(work.users().count().await? + work.invitations().count_open(cx.now()).await?),
        Countable::Projects => work.projects().count().await,
        Countable::Domains => work.custom_domains().count().await,
        Countable::WebhookEndpoints => work.webhook_endpoints().count().await,
    }
}

fn within(cx: &Cx, has: &Entitlements, limit: &'static str, used: u64, more: u64) -> Result<(), NotInPlan> {
    let allowed = has.limit(limit).value;
    let Limit::Of(most) = allowed else { return Ok(()) };
    if used.saturating_add(more) <= most {
        return Ok(());
    }
    Err(NotInPlan::Limit {
        limit,
        allowed: most,
        used,
        plans: plans_that(cx, has, |terms| terms.limit(limit).exceeds(allowed)),
    })
}

/// What a tenant may do, and how much of it it does.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// What its plan grants.
    pub plan: Arc<PlanTerms>,
    /// Every feature that a plan on offer has, and whether the tenant has it.
    pub features: Vec<(String, Resolved<bool>)>,
    /// Every limit, and how much there is of what is counted.
    pub limits: Vec<(String, Resolved<Limit>, Option<u64>)>,
}

/// What the tenant may do.
///
/// # Errors
/// [`Refused`] and those of the store, as an error of the use case that calls it.
pub async fn capabilities<E>(cx: &Cx) -> Result<Capabilities, E>
where
    E: From<Refused> + From<StoreError> + AsStoreError,
{
    cx.require(Permission::ReadTenant)?;
    let (tenant, used, seats) = cx
        .read(async |work| {
            let tenant = work.tenants().current().await?;
            let seats = seats::of(cx, work).await?;
            let mut used = Vec::new();
            for what in Countable::ALL {
                used.push((what.limit(), count(what, cx, work).await?));
            }
            used.push((STORAGE, work.storage().used().await?));
            let today = Period::day_of(cx.now()).start;
            used.push((granted::USAGE_EVENTS, work.usage().accepted_on(today).await?));
            Ok::<_, E>((tenant, used, seats))
        })
        .await?;
    let has = tenant.map_or_else(
        || granted::current(cx),
        |tenant| granted::of(cx.ports(), Arc::new(tenant.subscription())),
    );
    let feature = |name: String| {
        let resolved = has.feature(&name);
        (name, resolved)
    };
    let limit = |name: String| {
        let used = used.iter().find(|(limit, _)| *limit == name);
        let mut resolved = has.limit(&name);
        let mut used = used.map(|(_, used)| *used);
        // The seats are what is enforced where they are fewer than the plan's users.
        if let Some(seats) = seats.as_ref().filter(|_| name == Countable::Users.limit()) {
            let allowed = Limit::Of(seats.allowed.seats.into());
            if resolved.value.exceeds(allowed) {
                (resolved.value, used) = (allowed, Some(seats.used));
            }
        }
        (name, resolved, used)
    };
    let (features, limits) = names(cx, &has);
    Ok(Capabilities {
        features: features.into_iter().map(feature).collect(),
        limits: limits.into_iter().map(limit).collect(),
        plan: Arc::clone(&has.terms),
    })
}

/// How a tenant stands with one thing that plans speak of.
#[derive(Debug, Clone)]
pub struct Entitled {
    /// The name that the plan catalogue has for it.
    pub name: String,
    /// Who says so.
    pub level: Level,
    /// How much of it.
    pub extent: Extent,
}

/// How much of something a tenant has.
#[derive(Debug, Clone)]
pub enum Extent {
    /// It has it or not.
    Boolean(bool),
    /// So much at any time.
    Static {
        /// How much is possible.
        limit: Limit,
        /// How much there is, where it is counted.
        used: Option<u64>,
        /// When counting begins again; `None` for a limit of what there is at any time.
        resets_at: Option<Time>,
    },
    /// So much in a period.
    Metered(QuotaStanding),
}

impl Extent {
    /// What it is called on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "boolean",
            Self::Static { .. } => "static",
            Self::Metered(_) => "metered",
        }
    }
}

impl Entitled {
    /// Whether the tenant may use it now: it has the feature, or there is something left.
    pub fn has_access(&self) -> bool {
        match &self.extent {
            Extent::Boolean(has) => *has,
            Extent::Static { limit, used, .. } => limit.allows(used.unwrap_or(0).saturating_add(1)),
            Extent::Metered(quota) => quota.balance() != Some(0),
        }
    }
}

/// Everything that the tenant is entitled to, by name. What is both limited at any time and metered is told as what is
/// limited: that is what is enforced.
///
/// # Errors
/// [`QuotaError`].
pub async fn list(cx: &Cx) -> Result<Vec<Entitled>, QuotaError> {
    let can = capabilities::<QuotaError>(cx).await?;
    let metered = quota::list(cx).await?.into_iter().map(|quota| Entitled {
        name: quota.meter.key.to_string(),
        level: quota.source(),
        extent: Extent::Metered(quota),
    });
    let features = can.features.into_iter().map(|(name, has)| Entitled {
        name,
        level: has.level,
        extent: Extent::Boolean(has.value),
    });
    let today = Period::day_of(cx.now());
    let limits = can.limits.into_iter().map(|(name, limit, used)| Entitled {
        level: limit.level,
        extent: Extent::Static {
            limit: limit.value,
            used,
            resets_at: (name == granted::USAGE_EVENTS).then_some(today.end),
        },
        name,
    });
    let all = metered.chain(features).chain(limits);
    let by_name: BTreeMap<_, _> = all.map(|entitled| (entitled.name.clone(), entitled)).collect();
    Ok(by_name.into_values().collect())
}

/// The names of all features and limits that the plans on offer know or the tenant's does.
fn names(cx: &Cx, has: &Entitlements) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut all = cx.ports().plans.on_offer();
    all.push(Arc::clone(&has.terms));
    let features = all.iter().flat_map(|terms| terms.features.iter().cloned());
    let limits = all.iter().flat_map(|terms| terms.limits.keys().cloned());
    (features.collect(), limits.collect())
}
