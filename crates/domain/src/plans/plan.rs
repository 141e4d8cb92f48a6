use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::kernel::{Limit, Price, StoreError, SystemScope, Time};
use crate::usage::{MeterKey, MeterTerms, Meters};

/// What one version of a plan grants. A tenant keeps the version that it bought until it is moved to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanTerms {
    /// The plan's name.
    pub name: String,
    /// Which version of it, from 1.
    pub version: u32,
    /// What people call it.
    pub title: String,
    /// How much of each.
    pub limits: BTreeMap<String, Limit>,
    /// What it switches on.
    pub features: BTreeSet<String>,
    /// What it says of settings.
    pub settings: BTreeMap<String, Value>,
    /// What it says of each meter.
    pub meters: BTreeMap<MeterKey, MeterTerms>,
    /// What it costs: at most one price per currency and interval. None means it cannot be bought.
    pub prices: Vec<Price>,
    /// For how many days it may be tried before the first payment.
    pub trial_days: u32,
    /// For how many days after a failed payment everything still works.
    pub grace_days: u32,
}

impl PlanTerms {
    /// The limit of that name. What a plan says nothing of it does not limit.
    pub fn limit(&self, name: &str) -> Limit {
        self.limits.get(name).copied().unwrap_or(Limit::Unlimited)
    }

    /// What it says of a meter. One that the plan says nothing of is neither limited nor charged.
    pub fn meter(&self, key: &MeterKey) -> MeterTerms {
        self.meters.get(key).cloned().unwrap_or(MeterTerms::FREE)
    }

    /// Whether it switches that feature on.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }
}

/// The plans on offer, and those that tenants still have: what others need to know of billing.
#[async_trait]
pub trait PlanCatalogue: Send + Sync {
    /// Whether a plan of that name may be subscribed to.
    fn offers(&self, plan: &str) -> bool {
        self.on_offer().iter().any(|terms| terms.name == plan)
    }

    /// The names of all plans, for messages.
    fn names(&self) -> Vec<String> {
        self.on_offer().iter().map(|terms| terms.name.clone()).collect()
    }

    /// The plan of a tenant that names none.
    fn default_plan(&self) -> &str;

    /// Whether open sign-up gives out the plan without an operator and without a payment.
    fn is_open_to_signup(&self, plan: &str) -> bool;

    /// What may be subscribed to now, the least first.
    fn on_offer(&self) -> Vec<Arc<PlanTerms>>;

    /// What a plan grants to those who subscribe now.
    fn current(&self, plan: &str) -> Option<Arc<PlanTerms>> {
        self.on_offer().into_iter().find(|terms| terms.name == plan)
    }

    /// Everything that is metered.
    fn meters(&self) -> &Meters;

    /// What a tenant has that subscribed to this version. Of a version that is not known (yet) it is what the plan
    /// grants now, and of an unknown plan what the default plan does.
    fn terms(&self, plan: &str, version: u32) -> Arc<PlanTerms>;

    /// Whether this version of a plan is known. Another server may have stored it since versions were last read.
    fn knows(&self, plan: &str, version: u32) -> bool {
        let terms = self.terms(plan, version);
        terms.name == plan && terms.version == version
    }

    /// Reads the stored versions again, before it is decided about one that is not known; at most once a second.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn refresh(&self, now: Time) -> Result<(), StoreError>;
}

/// A version of a plan as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanVersion {
    /// The plan's name.
    pub name: String,
    /// From 1.
    pub version: u32,
    /// All that the catalogue said of it.
    pub definition: Value,
    /// Since when.
    pub created_at: Time,
}

/// Where versions of plans are kept. They are only ever added.
#[async_trait]
pub trait PlanVersions: Send + Sync {
    /// All versions, by name and version.
    async fn all(&self, because: SystemScope) -> Result<Vec<PlanVersion>, StoreError>;

    /// Adds a version of each plan whose definition is none of its versions yet, with a record `plan.version_added` in the log of
    /// operators, and returns all versions. Two servers that start together add it once.
    async fn keep(
        &self,
        because: SystemScope,
        definitions: &[(String, Value)],
        at: Time,
    ) -> Result<Vec<PlanVersion>, StoreError>;
}
