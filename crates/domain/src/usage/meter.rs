use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kernel::name::named_enum;
use crate::kernel::{Currency, Limit, Reset};

/// The name of what is metered: 1 to 63 of `a-z`, `0-9` and `_`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MeterKey(String);

impl MeterKey {
    /// Calls of the API; counted by the server itself.
    pub const API_CALLS: &'static str = "api_calls";
    /// Bytes that are stored; measured by the server itself.
    pub const STORAGE_BYTES: &'static str = "storage_bytes";
    /// Users that did anything in the period; counted by the server itself.
    pub const ACTIVE_USERS: &'static str = "active_users";

    /// The key of [`Self::API_CALLS`].
    pub fn api_calls() -> Self {
        Self(Self::API_CALLS.to_owned())
    }

    /// The key, where the text is one.
    pub fn parse(text: &str) -> Option<Self> {
        is_plan_key(text).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the server itself counts it, so that nobody else records usage of it or reserves units of it.
    pub fn is_servers_own(&self) -> bool {
        [Self::API_CALLS, Self::STORAGE_BYTES, Self::ACTIVE_USERS].contains(&self.as_str())
    }
}

impl std::fmt::Display for MeterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for MeterKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for MeterKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(PLAN_KEY_RULE))
    }
}

/// What [`is_plan_key`] asks for, for people.
pub const PLAN_KEY_RULE: &str = "must be 1 to 63 of a-z, 0-9 and '_', beginning with a letter";

/// Whether a text can name something in the plan catalogue: a feature, a limit or a meter. 1 to 63 of `a-z`, `0-9` and
/// `_`, beginning with a letter.
pub fn is_plan_key(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= 63 && text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(inner)
}

named_enum! {
    /// How the events of a period become one number.
    pub enum Aggregation {
        /// Their quantities together.
        Sum = "sum",
        /// How many there are, whatever their quantity.
        Count = "count",
        /// The largest quantity.
        Max = "max",
        /// The quantity of the latest; of two of one moment the one that was accepted later.
        Last = "last",
        /// How many different subjects there are.
        Unique = "unique",
    }
}

impl Aggregation {
    /// Whether the number of a period is the sum of those of its parts. Of the others it has to be made of the events.
    pub const fn adds_up(self) -> bool {
        match self {
            Self::Sum | Self::Count => true,
            Self::Max | Self::Last | Self::Unique => false,
        }
    }
}

/// Something of which tenants' use is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// Its name.
    pub key: MeterKey,
    /// For people.
    pub title: String,
    /// What one of it is called, in the singular: `call`, `byte`, `user`.
    pub unit: String,
    /// How events become a number.
    pub aggregation: Aggregation,
    /// When it begins again.
    pub reset: Reset,
}

/// What a plan says of a meter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterTerms {
    /// How much of each period the plan's price includes: a soft limit. What goes beyond it is overage.
    pub included: Limit,
    /// How much of a period is possible at all: a hard limit. Not less than what is included.
    pub limit: Limit,
    /// What overage costs, at most once in each currency; none means that it costs nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overage: Vec<OveragePrice>,
}

impl MeterTerms {
    /// Nothing is limited, and nothing costs anything.
    pub const FREE: Self = Self {
        included: Limit::Unlimited,
        limit: Limit::Unlimited,
        overage: Vec::new(),
    };

    /// How much of what was used goes beyond what is included.
    pub const fn beyond(&self, used: u64) -> u64 {
        match self.included {
            Limit::Of(included) => used.saturating_sub(included),
            Limit::Unlimited => 0,
        }
    }
}

/// What overage costs: `amount` for every `per` units, and of a part of them its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OveragePrice {
    /// The ISO 4217 currency of the amount.
    pub currency: Currency,
    /// In the currency's minor unit; not negative.
    pub amount: i64,
    /// For how many units; at least 1.
    pub per: u64,
}

impl OveragePrice {
    /// What so much overage costs, in the currency's minor unit: `overage × amount ÷ per`, half a unit rounded up, as the
    /// last step of a graduated price of Stripe's does (whole packages cannot be sold there beside what is included, see
    /// docs/stripe.md). More than can be said is [`i64::MAX`].
    pub fn cost(&self, overage: u64) -> i64 {
        let per = i128::from(self.per.max(1));
        let whole = i128::from(overage) * i128::from(self.amount);
        // Half of `per` is added to the rest only, so that nothing overflows.
        let cost = whole / per + (whole % per * 2 + per) / (per * 2);
        i64::try_from(cost).unwrap_or(i64::MAX)
    }
}

/// Every meter there is, by key.
pub type Meters = BTreeMap<MeterKey, Arc<Meter>>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_a_short_plain_word() {
        for key in ["api_calls", "a", "a1_"] {
            assert_eq!(MeterKey::parse(key).unwrap().as_str(), key);
        }
        let long = "a".repeat(64);
        for key in ["", "1a", "_a", "A", "a-b", "a b", "ä", &long] {
            assert_eq!(MeterKey::parse(key), None, "{key}");
        }
    }

    #[test]
    fn overage_costs_its_part_of_a_package() {
        let price = OveragePrice {
            currency: Currency::try_from("usd".to_owned()).unwrap(),
            amount: 50,
            per: 1_000,
        };
        assert_eq!(
            [0, 9, 10, 29, 30, 1_000, 1_001].map(|overage| price.cost(overage)),
            [0, 0, 1, 1, 2, 50, 50]
        );
        assert_eq!(price.cost(u64::MAX), 922_337_203_685_477_581);
        let dear = OveragePrice {
            amount: i64::MAX,
            per: 1,
            ..price
        };
        assert_eq!(dear.cost(2), i64::MAX);
    }

    proptest! {
        #[test]
        fn more_overage_never_costs_less(amount in 0..i64::MAX, per in 1..u64::MAX, less: u64, more: u64) {
            let price = OveragePrice { currency: Currency::try_from("usd".to_owned()).unwrap(), amount, per };
            let (less, more) = (less.min(more), less.max(more));
            prop_assert!(price.cost(less) <= price.cost(more));
            prop_assert_eq!(price.cost(0), 0);
            prop_assert_eq!(OveragePrice { per: 1, ..price }.cost(1), amount);
        }
    }
}
