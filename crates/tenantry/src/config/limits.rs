use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// How much may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whether requests are held to any limit.
    pub enabled: bool,
    /// Whether servers over one Redis share their buckets, which costs each request a round trip to it.
    pub shared: bool,
    /// How many servers share the load: each one alone gives its part of every limit.
    pub instances: u32,
    /// Every limit is so many times what plans and settings say.
    pub factor: u32,
    /// What one address may ask for where a credential is presented or made, and how much of it at once.
    pub credential_per_minute: u32,
    pub credential_burst: u32,
    /// What one address may ask for of what is open to everybody, and how much of it at once.
    pub visitor_per_minute: u32,
    pub visitor_burst: u32,
    /// How many logins to one account (a mail address in a tenant, or an operator's) may fail from one network, and how many
    /// of them at once.
    pub account_per_minute: u32,
    pub account_burst: u32,
    /// How much a tenant may ask for of what calls the payment provider, and how much of it at once; a unit is about a call.
    pub billing_per_minute: u32,
    pub billing_burst: u32,
    /// What one operator may ask for at the routes of operators, and how much of it at once.
    pub operator_per_minute: u32,
    pub operator_burst: u32,
    /// What one operator may ask for in tenants that have approved access, and how much of it at once.
    pub support_per_minute: u32,
    pub support_burst: u32,
    /// The same from all networks together. Networks from which the account has lately logged in are exempt.
    pub account_anywhere_per_minute: u32,
    pub account_anywhere_burst: u32,
    /// By slug: what was agreed with single tenants in place of what their plan says.
    pub overrides: BTreeMap<String, AgreedRates>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            enabled: true,
            shared: true,
            instances: 1,
            factor: 1,
            credential_per_minute: 60,
            credential_burst: 60,
            visitor_per_minute: 600,
            visitor_burst: 600,
            account_per_minute: 10,
            account_burst: 20,
            billing_per_minute: 60,
            billing_burst: 60,
            operator_per_minute: 600,
            operator_burst: 300,
            support_per_minute: 120,
            support_burst: 60,
            account_anywhere_per_minute: 20,
            account_anywhere_burst: 100,
            overrides: BTreeMap::new(),
        }
    }
}

/// What was agreed with one tenant; what is absent stays as its plan has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgreedRates {
    pub requests_per_minute: Option<u32>,
    pub requests_burst: Option<u32>,
    pub user_requests_per_minute: Option<u32>,
    pub user_requests_burst: Option<u32>,
}

impl Limits {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[
            ("limits.instances", self.instances.into(), 1, 1_000),
            ("limits.factor", self.factor.into(), 1, 1_000),
            (
                "limits.credential_per_minute",
                self.credential_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.credential_burst",
                self.credential_burst.into(),
                1,
                1_000_000,
            ),
            (
                "limits.visitor_per_minute",
                self.visitor_per_minute.into(),
                1,
                1_000_000,
            ),
            ("limits.visitor_burst", self.visitor_burst.into(), 1, 1_000_000),
            (
                "limits.account_per_minute",
                self.account_per_minute.into(),
                1,
                1_000_000,
            ),
            ("limits.account_burst", self.account_burst.into(), 1, 1_000_000),
            (
                "limits.billing_per_minute",
                self.billing_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.account_anywhere_per_minute",
                self.account_anywhere_per_minute.into(),
                1,
                1_000_000,
            ),
            (
                "limits.operator_per_minute",
                self.operator_per_minute.into(),
                1,
                1_000_000,
            ),
            ("limits.operator_burst", self.operator_burst.into(), 1, 1_000_000),
            (
                "limits.support_per_minute",
                self.support_per_minute.into(),
                1,
                1_000_000,
            ),
            ("limits.support_burst", self.support_burst.into(), 1, 1_000_000),
            ("limits.billing_burst", self.billing_burst.into(), 1, 1_000_000),
            (
                "limits.account_anywhere_burst",
                self.account_anywhere_burst.into(),
                1,
                1_000_000,
            ),
        ])
    }
}
