use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tenantry_domain::operations::{Rate, RateBook, TenantRates};
use tenantry_domain::tenant::TenantFacts;

use crate::plans::PlanBook;
use crate::plans::stated_rates::{self, RateError};

/// The request rates of every tenant: those of its plan, and what was agreed with it beside the plan.
///
/// A plan states them in four limits: [`PlanRates::LIMITS`]. A rate that is `"unlimited"` has no bucket.
#[derive(Debug, Clone)]
pub struct PlanRates {
    plans: Arc<PlanBook>,
    /// By slug.
    agreed: BTreeMap<String, RateOverride>,
    factor: u32,
}

/// What was agreed with one tenant: a number that is absent stays as the plan has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateOverride {
    /// Requests a minute of all users together.
    pub requests_per_minute: Option<u32>,
    /// Requests at once of all users together.
    pub requests_burst: Option<u32>,
    /// Requests a minute of each user.
    pub user_requests_per_minute: Option<u32>,
    /// Requests at once of each user.
    pub user_requests_burst: Option<u32>,
}

impl PlanRates {
    /// The limits of a plan that its rates are made of.
    pub const LIMITS: [&'static str; 4] = stated_rates::LIMITS;

    /// What each of them may be.
    pub const RANGE: RangeInclusive<u32> = stated_rates::RANGE;

    /// The rates of a plan book, with what was agreed with single tenants (by slug), all of it times `factor`.
    ///
    /// # Errors
    /// At the first number agreed that is out of [`PlanRates::RANGE`], naming it.
    pub fn new(
        plans: Arc<PlanBook>,
        agreed: BTreeMap<String, RateOverride>,
        factor: u32,
    ) -> Result<Self, RateError> {
        for (slug, numbers) in &agreed {
            check(slug, numbers)?;
        }
        Ok(Self {
            plans,
            agreed,
            factor,
        })
    }
}

impl RateBook for PlanRates {
    fn rates(&self, tenant: &TenantFacts) -> TenantRates {
        let of_plan = self
            .plans
            .rates(&tenant.subscription.plan, tenant.subscription.version);
        let agreed = self.agreed.get(tenant.slug.as_str()).copied().unwrap_or_default();
        let all = with(of_plan.tenant, agreed.requests_per_minute, agreed.requests_burst);
        let each = with(
            of_plan.user,
            agreed.user_requests_per_minute,
            agreed.user_requests_burst,
        );
        TenantRates {
            tenant: all.map(|rate| rate.times(self.factor)),
            user: each.map(|rate| rate.times(self.factor)),
        }
    }
}

fn check(slug: &str, numbers: &RateOverride) -> Result<(), RateError> {
    let given = [
        numbers.requests_per_minute,
        numbers.requests_burst,
        numbers.user_requests_per_minute,
        numbers.user_requests_burst,
    ];
    for (limit, number) in PlanRates::LIMITS.into_iter().zip(given) {
        if number.is_some_and(|number| !PlanRates::RANGE.contains(&number)) {
            return Err(RateError::Override {
                slug: slug.to_owned(),
                limit,
            });
        }
    }
    Ok(())
}

/// The plan's rate with what was agreed in its place. A higher rate that was agreed alone brings its burst along, as
/// does a rate where the plan has none.
fn with(plan: Option<Rate>, per_minute: Option<u32>, burst: Option<u32>) -> Option<Rate> {
    let requests = per_minute.or(plan.map(Rate::per_minute))?;
    let at_once = burst.or_else(|| per_minute.is_none().then(|| plan.map(Rate::burst)).flatten());
    Rate::new(requests, at_once.unwrap_or(requests))
}

#[cfg(test)]
mod tests {
    use tenantry_domain::plans::{Agreed, Subscription};
    use tenantry_domain::tenant::{Slug, TenantStatus};
    use uuid::Uuid;

    use super::*;
    use crate::plans::Plans;

    fn tenant(slug: &str, plan: &str) -> TenantFacts {
        TenantFacts {
            id: Uuid::nil().into(),
            slug: Slug::parse(slug).unwrap(),
            subdomain: None,
            subscription: Arc::new(Subscription {
                plan: plan.into(),
                version: 1,
                agreed: Agreed::default(),
            }),
            status: TenantStatus::Active,
        }
    }

    /// Requests a minute and at once, of all users and of each.
    fn numbers(rates: TenantRates) -> [Option<(u32, u32)>; 2] {
        [rates.tenant, rates.user].map(|rate| rate.map(|rate| (rate.per_minute(), rate.burst())))
    }

    fn standard() -> Arc<PlanBook> {
        Arc::new(PlanBook::new(Plans::standard()).unwrap())
    }

    fn catalogue(limits: &str) -> Plans {
        Plans::parse(&format!(
            "[[plan]]\nname = 'one'\ntitle = 'One'\ndescription = 'The only one.'\ndefault = true\nlimits = {{ {limits} }}"
        ))
        .unwrap()
    }

    #[test]
    fn each_standard_plan_has_its_rates() {
        let rates = PlanRates::new(standard(), BTreeMap::new(), 1).unwrap();
        let of = |plan| numbers(rates.rates(&tenant("acme", plan)));
        assert_eq!(of("free"), [Some((60, 60)), Some((30, 30))]);
        assert_eq!(of("pro"), [Some((600, 600)), Some((120, 120))]);
        assert_eq!(of("enterprise"), [Some((6_000, 6_000)), Some((600, 600))]);
        assert_eq!(of("no longer there"), of("free"));
    }

    #[test]
    fn what_was_agreed_with_a_tenant_is_its_own() {
        let agreed = RateOverride {
            requests_per_minute: Some(1_000),
            user_requests_burst: Some(10),
            ..RateOverride::default()
        };
        let agreed = BTreeMap::from([("acme".to_owned(), agreed)]);
        let rates = PlanRates::new(standard(), agreed, 2).unwrap();
        let of = |slug| numbers(rates.rates(&tenant(slug, "pro")));
        assert_eq!(of("acme"), [Some((2_000, 2_000)), Some((240, 20))]);
        assert_eq!(of("globex"), [Some((1_200, 1_200)), Some((240, 240))]);
    }

    #[test]
    fn a_plan_may_be_without_limit() {
        let plans = catalogue(
            "requests_per_minute = 'unlimited', requests_burst = 'unlimited', user_requests_per_minute = 5, \
             user_requests_burst = 7",
        );
        let rates = PlanRates::new(Arc::new(PlanBook::new(plans).unwrap()), BTreeMap::new(), 1).unwrap();
        assert_eq!(numbers(rates.rates(&tenant("acme", "one"))), [None, Some((5, 7))]);
    }

    #[test]
    fn a_number_that_is_missing_or_senseless_is_named() {
        let complaint = |limits: &str| PlanBook::new(catalogue(limits)).unwrap_err().to_string();
        let user = "user_requests_per_minute = 5, user_requests_burst = 5";
        assert_eq!(
            complaint("users = 5"),
            "plan one: limits.requests_per_minute is missing"
        );
        assert_eq!(
            complaint(&format!("requests_per_minute = 0, requests_burst = 5, {user}")),
            "plan one: limits.requests_per_minute must be in 1..=1000000, or \"unlimited\""
        );
        assert_eq!(
            complaint(&format!(
                "requests_per_minute = 5, requests_burst = 'unlimited', {user}"
            )),
            "plan one: limits.requests_burst must be in 1..=1000000"
        );
        let agreed = RateOverride {
            user_requests_burst: Some(0),
            ..RateOverride::default()
        };
        let agreed = BTreeMap::from([("acme".to_owned(), agreed)]);
        let error = PlanRates::new(standard(), agreed, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "acme.user_requests_burst must be in 1..=1000000"
        );
    }
}
