use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use tenantry_domain::kernel::{Limit, Price};
use tenantry_domain::usage::{MeterKey, MeterTerms};

/// What a tenant can subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How tenants, the API and logs call it; of the form of a slug.
    pub name: String,
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// What it costs: at most one price per currency and interval. None means it cannot be bought.
    pub prices: Vec<Price>,
    /// How much of each is included. Every plan of a catalogue states the same limits.
    pub limits: BTreeMap<String, Limit>,
    /// What it switches on.
    pub features: BTreeSet<String>,
    /// What it says of tenants' settings; a tenant may say otherwise where the setting is one of its own.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// What it says of each meter. Every plan of a catalogue states the same meters.
    #[serde(default)]
    pub meters: BTreeMap<MeterKey, MeterTerms>,
    /// For how many days it may be tried before the first payment; 0 means not at all.
    #[serde(default)]
    pub trial_days: u32,
    /// For how many days after a failed payment everything still works.
    #[serde(default = "grace_days")]
    pub grace_days: u32,
    /// Whether open sign-up gives it out although it costs nothing and is not the default plan. Nothing that a tenant has
    /// depends on it, so it is no part of a version.
    #[serde(skip)]
    pub open_to_signup: bool,
}

/// What a plan that does not say so has for grace.
pub(crate) const fn grace_days() -> u32 {
    7
}

impl Plan {
    /// The limit of that name, where the catalogue has one.
    pub fn limit(&self, name: &str) -> Option<Limit> {
        self.limits.get(name).copied()
    }

    /// Whether it switches that feature on.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }
}
