use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kernel::{Level, Limit, Resolved, resolve};
use crate::plans::PlanTerms;
use crate::usage::{MeterKey, MeterTerms};

/// What was agreed with one tenant beside its plan. What is absent stays as the plan has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agreed {
    /// Features that the tenant has or has not, whatever the plan says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, bool>,
    /// Limits in place of the plan's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Limit>,
    /// Hard limits of meters in place of the plan's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meters: BTreeMap<MeterKey, Limit>,
}

/// The plan of a tenant, in the version that it bought, and what was agreed with it beside that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The plan's name.
    pub plan: String,
    /// Which version of it, from 1.
    pub version: u32,
    /// What was agreed beside it.
    pub agreed: Agreed,
}

/// What a tenant may do, and how much: what its plan grants, and what was agreed beside it.
#[derive(Debug, Clone)]
pub struct Entitlements {
    /// What its plan grants.
    pub terms: Arc<PlanTerms>,
    /// The plan by name, and what was agreed; nothing was while the tenant is founded.
    pub subscription: Option<Arc<Subscription>>,
}

impl Entitlements {
    /// Whether the tenant has a feature, and who says so.
    pub fn feature(&self, name: &str) -> Resolved<bool> {
        let agreed = self
            .agreed()
            .and_then(|agreed| agreed.features.get(name).copied());
        let plan = self.terms.has(name).then_some(true);
        resolve(false, [(Level::Plan, plan), (Level::Tenant, agreed)])
    }

    /// How much of something the tenant may have, and who says so. What nobody limits is not limited.
    pub fn limit(&self, name: &str) -> Resolved<Limit> {
        let agreed = self.agreed().and_then(|agreed| agreed.limits.get(name).copied());
        let plan = self.terms.limits.get(name).copied();
        resolve(Limit::Unlimited, [(Level::Plan, plan), (Level::Tenant, agreed)])
    }

    /// What holds of a meter, and who set its hard limit. Where less was agreed than the plan includes, less is included.
    pub fn meter(&self, key: &MeterKey) -> Resolved<MeterTerms> {
        let plan = self.terms.meters.get(key).cloned();
        let agreed = self.agreed().and_then(|agreed| agreed.meters.get(key).copied());
        let tenant = agreed.map(|limit| {
            let stated = self.terms.meter(key);
            let included = if stated.included.exceeds(limit) {
                limit
            } else {
                stated.included
            };
            MeterTerms {
                included,
                limit,
                overage: stated.overage,
            }
        });
        resolve(MeterTerms::FREE, [(Level::Plan, plan), (Level::Tenant, tenant)])
    }

    /// The hard limit of a meter alone.
    pub fn meter_limit(&self, key: &MeterKey) -> Limit {
        let agreed = self.agreed().and_then(|agreed| agreed.meters.get(key));
        let stated = self.terms.meters.get(key).map(|terms| &terms.limit);
        agreed.or(stated).copied().unwrap_or(Limit::Unlimited)
    }

    fn agreed(&self) -> Option<&Agreed> {
        self.subscription
            .as_ref()
            .map(|subscription| &subscription.agreed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn calls() -> MeterKey {
        MeterKey::parse(MeterKey::API_CALLS).unwrap()
    }

    fn terms_of(included: u64, limit: u64) -> MeterTerms {
        MeterTerms {
            included: Limit::Of(included),
            limit: Limit::Of(limit),
            overage: Vec::new(),
        }
    }

    #[test]
    fn a_limit_of_a_meter_that_was_agreed_wins_and_never_includes_more_than_is_possible() {
        let meter = |agreed: Option<Limit>| {
            let meters = agreed.map(|limit| (calls(), limit)).into_iter().collect();
            entitlements(Agreed {
                meters,
                ..Agreed::default()
            })
            .meter(&calls())
        };
        assert_eq!(meter(None).value, terms_of(10, 20));
        assert_eq!(meter(Some(Limit::Of(30))).value, terms_of(10, 30));
        assert_eq!(meter(Some(Limit::Of(5))).value, terms_of(5, 5));
        assert_eq!(meter(Some(Limit::Of(5))).level, Level::Tenant);
        for agreed in [BTreeMap::new(), BTreeMap::from([(calls(), Limit::Of(5))])] {
            let has = entitlements(Agreed {
                meters: agreed,
                ..Agreed::default()
            });
            assert_eq!(has.meter_limit(&calls()), has.meter(&calls()).value.limit);
        }
        let unknown = MeterKey::parse("other").unwrap();
        assert_eq!(
            entitlements(Agreed::default()).meter(&unknown).value,
            MeterTerms::FREE
        );
    }

    fn entitlements(agreed: Agreed) -> Entitlements {
        let terms = PlanTerms {
            name: "pro".into(),
            version: 1,
            title: "Pro".into(),
            limits: [("users".to_owned(), Limit::Of(5))].into(),
            features: BTreeSet::from(["branding".to_owned()]),
            settings: BTreeMap::new(),
            meters: BTreeMap::from([(calls(), terms_of(10, 20))]),
            prices: Vec::new(),
            trial_days: 0,
            grace_days: 7,
        };
        let subscription = Subscription {
            plan: "pro".into(),
            version: 1,
            agreed,
        };
        Entitlements {
            terms: Arc::new(terms),
            subscription: Some(Arc::new(subscription)),
        }
    }

    #[test]
    fn the_plan_holds_where_nothing_was_agreed() {
        let has = entitlements(Agreed::default());
        let feature = |name| (has.feature(name).value, has.feature(name).level);
        assert_eq!(feature("branding"), (true, Level::Plan));
        assert_eq!(feature("sso"), (false, Level::Default));
        assert_eq!(
            (has.limit("users").value, has.limit("users").level),
            (Limit::Of(5), Level::Plan)
        );
        assert_eq!(has.limit("projects").value, Limit::Unlimited);
    }

    #[test]
    fn what_was_agreed_wins_both_ways() {
        let has = entitlements(Agreed {
            features: [("branding".to_owned(), false), ("sso".to_owned(), true)].into(),
            limits: [
                ("users".to_owned(), Limit::Unlimited),
                ("projects".to_owned(), Limit::Of(1)),
            ]
            .into(),
            meters: BTreeMap::new(),
        });
        let feature = |name| (has.feature(name).value, has.feature(name).level);
        assert_eq!(feature("branding"), (false, Level::Tenant));
        assert_eq!(feature("sso"), (true, Level::Tenant));
        assert_eq!(has.limit("users").value, Limit::Unlimited);
        assert_eq!(
            (has.limit("projects").value, has.limit("projects").level),
            (Limit::Of(1), Level::Tenant)
        );
    }
}
