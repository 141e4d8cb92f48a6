//! What a tenant may do: features that its plan or an agreement switches on, and how much of each thing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenantry_domain::billing::{SeatLimit, SeatsOf};
use tenantry_domain::kernel::{Level, Limit, Period, Permission, Resolved, StoreError, Time};
use tenantry_domain::plans::{Entitlements, PlanTerms, Subscription};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;

use crate::kernel::context::carries_store_error;
use crate::usage::quota::{self, QuotaError, QuotaStanding};
use crate::{Cx, Ports, billing, usage};

/// A feature that plans switch on, by the name that the plan catalogue has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Feature(pub &'static str);

impl Feature {
    /// The tenant's own logo, colours and style.
    pub const BRANDING: Self = Self("branding");
}

/// What is counted against a limit of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Countable {
    /// Users that are not deleted, and open invitations.
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

    async fn count(self, cx: &Cx, work: &mut Work) -> Result<u64, StoreError> {
        match self {
            Self::Users => Ok(work.users().count().await? + work.invitations().count_open(cx.now()).await?),
            Self::Projects => work.projects().count().await,
        }
    }
}

/// The limit of what a tenant stores, in bytes; its name in the plan catalogue.
pub const STORAGE: &str = "storage_bytes";

/// The limit of how many events of usage are accepted from outside in a day, UTC; its name in the plan catalogue.
pub const USAGE_EVENTS: &str = "usage_events_per_day";

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
    /// Every seat that is paid, or will be when what is under way is done, is taken.
    #[error("{}, and active users and open invitations take {used}; {}, deactivate a user or revoke an invitation", has_seats(*.allowed), remedy(.allowed.of))]
    Seats {
        /// How many seats there are, and of what.
        allowed: SeatLimit,
        /// How many active users and open invitations there are.
        used: u64,
        /// The tenant's plan.
        current: String,
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

fn has_seats(allowed: SeatLimit) -> String {
    let seats = match allowed.seats {
        1 => "1 seat".to_owned(),
        seats => format!("{seats} seats"),
    };
    match allowed.of {
        SeatsOf::Subscription => format!("the subscription has {seats}"),
        SeatsOf::Change => format!("a change to {seats} is in progress"),
        SeatsOf::Checkout => format!("a checkout for {seats} is open"),
        SeatsOf::UnpaidSubscription => format!("a subscription with {seats} awaits its first payment"),
    }
}

const fn remedy(of: SeatsOf) -> &'static str {
    match of {
        SeatsOf::Subscription => "pay for more seats",
        SeatsOf::Change => "change to more seats once it is done",
        SeatsOf::Checkout | SeatsOf::UnpaidSubscription => "begin a checkout for more seats",
    }
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
    fn that(cx: &Cx, has: &Entitlements, would_do: impl Fn(&PlanTerms) -> bool) -> Self {
        let on_offer = cx.ports().plans.on_offer();
        let required = on_offer.iter().filter(|terms| would_do(terms));
        Self {
            current: has.terms.name.clone(),
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
    /// What the tenant may do: what its plan grants in the version that it bought, and what was agreed beside it.
    pub fn entitlements(&self) -> Entitlements {
        match self.scope().subscription() {
            Some(subscription) => of(self.ports(), Arc::clone(subscription)),
            // The founder of a tenant chooses among what is on offer.
            None => Entitlements {
                terms: self.ports().plans.terms(self.ports().plans.default_plan(), 0),
                subscription: None,
            },
        }
    }

    /// The check of a use case whose feature not every plan has; after [`Cx::require`].
    ///
    /// # Errors
    /// [`NotInPlan::Feature`].
    pub fn require_feature(&self, feature: Feature) -> Result<(), NotInPlan> {
        let has = self.entitlements();
        if has.feature(feature.0).value {
            return Ok(());
        }
        Err(NotInPlan::Feature {
            feature: feature.0,
            plans: Plans::that(self, &has, |terms| terms.has(feature.0)),
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

/// Makes sure that the plan allows one more, and a user also that a seat is free; in the transaction that adds it,
/// before it is added.
///
/// Whoever wants to add something of a limited kind holds the tenant's row until they have, so that of two at the last
/// place one comes second and is counted.
///
/// # Errors
/// [`AddError`].
pub async fn one_more(cx: &Cx, work: &mut Work, what: Countable) -> Result<(), AddError> {
    let takes_seat = what == Countable::Users && cx.ports().payments.is_some();
    if !takes_seat && cx.entitlements().limit(what.limit()).value == Limit::Unlimited {
        return Ok(());
    }
    let tenant = work.tenants().current_for_update().await?;
    let tenant = tenant.ok_or_else(|| StoreError::Other("the scope's tenant is not there".into()))?;
    let has = of(cx.ports(), Arc::new(tenant.subscription()));
    let used = what.count(cx, work).await?;
    within(cx, &has, what.limit(), used, 1)?;
    if takes_seat {
        free_seat(cx, work).await?;
    }
    Ok(())
}

/// Makes sure that a seat is free for one more active user; in a transaction that holds the tenant's row. So do those that
/// begin a checkout or ask for fewer seats: from then on there are no more active users than will be paid. Nothing is paid
/// by the seat without a subscription, and none is about to begin without a checkout.
///
/// # Errors
/// [`AddError`].
pub(crate) async fn free_seat(cx: &Cx, work: &mut Work) -> Result<(), AddError> {
    let Some(seats) = seats(cx, work).await? else {
        return Ok(());
    };
    if seats.used < u64::from(seats.allowed.seats) {
        return Ok(());
    }
    let refused = NotInPlan::Seats {
        allowed: seats.allowed,
        used: seats.used,
        current: cx.entitlements().terms.name.clone(),
    };
    Err(refused.into())
}

/// The seats of a tenant.
struct Seats {
    /// How many there are, and of what.
    allowed: SeatLimit,
    /// How many active users and open invitations take one.
    used: u64,
}

async fn seats(cx: &Cx, work: &mut Work) -> Result<Option<Seats>, StoreError> {
    let Some(payments) = &cx.ports().payments else {
        return Ok(None);
    };
    let Some(account) = work.billing().current().await? else {
        return Ok(None);
    };
    let now = payments.now(cx.now());
    let limit = account.seat_limit(now);
    // Only a subscription that runs can be changed.
    let pending = match account.live_subscription() {
        Some(_) => billing::pending_seats(work).await?,
        None => None,
    };
    let Some(allowed) = limit.into_iter().chain(pending).min() else {
        return Ok(None);
    };
    let used = seats_in_use(cx, work).await?;
    Ok(Some(Seats { allowed, used }))
}

/// How many seats are taken: one by each active user, and one by each open invitation.
pub(crate) async fn seats_in_use(cx: &Cx, work: &mut Work) -> Result<u64, StoreError> {
    Ok(work.users().count_active().await? + work.invitations().count_open(cx.now()).await?)
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
    within(cx, &cx.entitlements(), STORAGE, used, bytes)?;
    work.storage().set_used(used + bytes).await?;
    usage::stored(cx, work, used + bytes).await?;
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
    let left = used.saturating_sub(bytes);
    work.storage().set_used(left).await?;
    usage::stored(cx, work, left).await
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
        plans: Plans::that(cx, has, |terms| terms.limit(limit).exceeds(allowed)),
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
/// [`CapabilitiesError`].
pub async fn capabilities(cx: &Cx) -> Result<Capabilities, CapabilitiesError> {
    cx.require(Permission::ReadTenant)?;
    let (tenant, used, seats) = cx
        .read(async |work| {
            let tenant = work.tenants().current().await?;
            let seats = seats(cx, work).await?;
            let mut used = Vec::new();
            for what in Countable::ALL {
                used.push((what.limit(), what.count(cx, work).await?));
            }
            used.push((STORAGE, work.storage().used().await?));
            let today = Period::day_of(cx.now()).start;
            used.push((USAGE_EVENTS, work.usage().accepted_on(today).await?));
            Ok::<_, CapabilitiesError>((tenant, used, seats))
        })
        .await?;
    let has = tenant.map_or_else(
        || cx.entitlements(),
        |tenant| of(cx.ports(), Arc::new(tenant.subscription())),
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
    let can = capabilities(cx).await.map_err(|error| match error {
        CapabilitiesError::Refused(refused) => QuotaError::Refused(refused),
        CapabilitiesError::Store(error) => QuotaError::Store(error),
    })?;
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
            resets_at: (name == USAGE_EVENTS).then_some(today.end),
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

/// What a subscription entitles to.
pub(crate) fn of(ports: &Ports, subscription: Arc<Subscription>) -> Entitlements {
    Entitlements {
        terms: ports.plans.terms(&subscription.plan, subscription.version),
        subscription: Some(subscription),
    }
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
