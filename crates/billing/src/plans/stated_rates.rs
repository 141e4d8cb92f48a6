//! The rates of requests that a plan states in its limits.

use std::ops::RangeInclusive;

use tenantry_domain::kernel::Limit;
use tenantry_domain::operations::{Rate, TenantRates};

use crate::plans::Plan;

/// The limits of a plan that its rates are made of.
pub(crate) const LIMITS: [&str; 4] = [
    "requests_per_minute",
    "requests_burst",
    "user_requests_per_minute",
    "user_requests_burst",
];

/// The values that each of them may have.
pub(crate) const RANGE: RangeInclusive<u32> = 1..=1_000_000;

/// Why there are no rates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// A plan does not state a limit that rates are made of.
    #[error("plan {plan}: limits.{limit} is missing")]
    Missing {
        /// Key of the incomplete plan.
        plan: String,
        /// Name of the missing limit.
        limit: &'static str,
    },
    /// A limit is not a number of requests.
    #[error("plan {plan}: limits.{limit} must be {allowed}")]
    OutOfRange {
        /// Key of the plan that is wrong.
        plan: String,
        /// Name of the limit that is wrong.
        limit: &'static str,
        /// What it may be.
        allowed: String,
    },
    /// What was agreed with a tenant is not a number of requests.
    #[error("{slug}.{limit} must be in {:?}", RANGE)]
    Override {
        /// The tenant.
        slug: String,
        /// Name of the agreed limit that is wrong.
        limit: &'static str,
    },
}

/// The rates of a plan.
///
/// # Errors
/// [`RateError`] when the plan does not state them.
pub(crate) fn of_plan(plan: &Plan) -> Result<TenantRates, RateError> {
    let [tenant, tenant_burst, user, user_burst] = LIMITS;
    Ok(TenantRates {
        tenant: rate(plan, tenant, tenant_burst)?,
        user: rate(plan, user, user_burst)?,
    })
}

/// The rates of a plan; of another where it does not say them.
pub(crate) fn of_plan_or(plan: &Plan, other: &Plan) -> TenantRates {
    of_plan(plan).or_else(|_| of_plan(other)).unwrap_or_default()
}

fn rate(plan: &Plan, per_minute: &'static str, burst: &'static str) -> Result<Option<Rate>, RateError> {
    let stated = |limit| {
        let missing = || RateError::Missing {
            plan: plan.name.clone(),
            limit,
        };
        plan.limit(limit).ok_or_else(missing)
    };
    let out_of_range = |limit, besides: &str| RateError::OutOfRange {
        plan: plan.name.clone(),
        limit,
        allowed: format!("in {RANGE:?}{besides}"),
    };
    let requests = match stated(per_minute)? {
        Limit::Unlimited => return Ok(None),
        Limit::Of(requests) => in_range(requests),
    };
    let at_once = match stated(burst)? {
        // At once only so many are possible as there are in a bucket.
        Limit::Unlimited => None,
        Limit::Of(at_once) => in_range(at_once),
    };
    let requests = requests.ok_or_else(|| out_of_range(per_minute, ", or \"unlimited\""))?;
    let at_once = at_once.ok_or_else(|| out_of_range(burst, ""))?;
    Ok(Rate::new(requests, at_once))
}

fn in_range(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| RANGE.contains(number))
}
