//! What quantities cost, in whole numbers: an amount is in the currency's minor unit, a part of one is
//! counted in 10⁻¹² of it, as the twelve decimals of Stripe's `unit_amount_decimal` are.

use chrono::{DateTime, Months, Utc};

/// So many parts make a minor unit.
const PARTS: i128 = 1_000_000_000_000;

/// A price for one of something, in 10⁻¹² of the minor unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitAmount(i128);

impl UnitAmount {
    /// Reads `12`, `0.01` or `0.000000000001`: not negative, at most twelve decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 || decimals.len() > 12 || !digits(whole) || !digits(decimals)
        {
            return None;
        }
        let parts: i128 = format!("{decimals:0<12}").parse().ok()?;
        Some(Self(whole.parse::<i128>().ok()? * PARTS + parts))
    }

    pub const fn whole(amount: i64) -> Self {
        Self(amount as i128 * PARTS)
    }

    /// What so many cost, half of a minor unit rounded up.
    pub fn times(self, quantity: u64) -> i64 {
        clamp(half_up(self.0.saturating_mul(i128::from(quantity)), PARTS))
    }

    /// As Stripe writes it: no decimals that say nothing.
    pub fn text(self) -> String {
        let (whole, parts) = (self.0 / PARTS, self.0 % PARTS);
        if parts == 0 {
            return whole.to_string();
        }
        format!("{whole}.{}", format!("{parts:012}").trim_end_matches('0'))
    }

    /// The amount where it is whole.
    pub fn minor(self) -> Option<i64> {
        (self.0 % PARTS == 0).then(|| clamp(self.0 / PARTS))
    }
}

/// A step of a tiered price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The last unit that it is for; `None` is all further ones.
    pub up_to: Option<u64>,
    pub unit: UnitAmount,
    pub flat: i64,
}

/// How a price becomes an amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    PerUnit {
        unit: UnitAmount,
        /// Only so many together are sold, and whether a part of that counts as the whole.
        package: Option<(u64, bool)>,
    },
    /// Each step costs what is in it.
    Graduated(Vec<Tier>),
    /// Everything costs what the step that it ends in says.
    Volume(Vec<Tier>),
}

impl Scheme {
    /// The parts of a quantity and what each costs: one, and for a graduated price one for each step that is
    /// entered.
    pub fn parts(&self, quantity: u64) -> Vec<(u64, i64)> {
        match self {
            Self::PerUnit { unit, package } => {
                let sold = match package {
                    None => quantity,
                    Some((size, true)) => quantity.div_ceil((*size).max(1)),
                    Some((size, false)) => quantity / (*size).max(1),
                };
                vec![(quantity, unit.times(sold))]
            }
            Self::Graduated(tiers) => graduated(tiers, quantity),
            Self::Volume(tiers) => tiers
                .iter()
                .find(|tier| tier.up_to.is_none_or(|last| quantity <= last))
                .map(|tier| (quantity, tier.unit.times(quantity).saturating_add(tier.flat)))
                .into_iter()
                .collect(),
        }
    }

    /// What a quantity costs.
    pub fn amount(&self, quantity: u64) -> i64 {
        self.parts(quantity)
            .iter()
            .fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }
}

fn graduated(tiers: &[Tier], quantity: u64) -> Vec<(u64, i64)> {
    let mut below = 0;
    let mut parts = Vec::new();
    for (position, tier) in tiers.iter().enumerate() {
        let here = tier.up_to.unwrap_or(u64::MAX).min(quantity).saturating_sub(below);
        if here > 0 || position == 0 {
            let flat = if here > 0 { tier.flat } else { 0 };
            parts.push((here, tier.unit.times(here).saturating_add(flat)));
        }
        below += here;
    }
    parts
}

/// The part of an amount that is for `part` of `whole` seconds, half of a minor unit rounded up; `part` is at
/// most `whole`.
pub fn prorated(amount: i64, part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 0;
    }
    let part = part.clamp(0, whole);
    clamp(half_up(i128::from(amount) * i128::from(part), i128::from(whole)))
}

fn half_up(numerator: i128, denominator: i128) -> i128 {
    (numerator.saturating_mul(2).saturating_add(denominator)).div_euclid(denominator * 2)
}

fn clamp(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

/// The first moment after `at` (Unix seconds) at which a subscription with this anchor is billed. A month
/// without the anchor's day ends it on its last day.
pub fn next_billing(anchor: i64, months: u32, at: i64) -> i64 {
    let begin = moment(anchor);
    let step = |count: u32| {
        begin
            .checked_add_months(Months::new(count.saturating_mul(months)))
            .map_or(i64::MAX, |then| then.timestamp())
    };
    // So many have passed for certain; the rest is found by trying.
    let passed = at.saturating_sub(anchor).max(0) / (i64::from(months.max(1)) * 31 * 86_400 + 1);
    let mut count = u32::try_from(passed).unwrap_or(u32::MAX - 1);
    while step(count) <= at {
        count += 1;
    }
    step(count)
}

/// Unix seconds as a moment; what cannot be one is the epoch.
pub fn moment(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(text: &str) -> UnitAmount {
        UnitAmount::parse(text).unwrap()
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(unit("0.01").times(150), 2);
        assert_eq!(unit("0.01").times(149), 1);
        assert_eq!(unit("0.000000000001").times(500_000_000_000), 1);
        for text in ["0", "12", "0.01", "3.000000000001"] {
            assert_eq!(unit(text).text(), text);
        }
        for text in ["", ".", "-1", "1.0000000000001", "1e3", " 1", "1.2.3"] {
            assert_eq!(UnitAmount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn packages_that_are_begun_count() {
        let up = |quantity| {
            let package = Some((10, true));
            Scheme::PerUnit {
                unit: unit("5"),
                package,
            }
            .amount(quantity)
        };
        assert_eq!([0, 1, 10, 11].map(up), [0, 5, 5, 10]);
    }

    #[test]
    fn what_is_included_costs_nothing() {
        let free = Tier {
            up_to: Some(1_000),
            unit: unit("0"),
            flat: 0,
        };
        let dear = Tier {
            up_to: None,
            unit: unit("0.01"),
            flat: 0,
        };
        let price = Scheme::Graduated(vec![free, dear]);
        assert_eq!(price.parts(900), [(900, 0)]);
        assert_eq!(price.parts(0), [(0, 0)]);
        assert_eq!(price.parts(11_000), [(1_000, 0), (10_000, 100)]);
        assert_eq!(Scheme::Volume(vec![free, dear]).amount(11_000), 110);
    }

    #[test]
    fn months_end_where_the_anchor_does() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp();
        let anchor = at("2026-01-31T10:00:00Z");
        let february = next_billing(anchor, 1, anchor);
        assert_eq!(february, at("2026-02-28T10:00:00Z"));
        assert_eq!(next_billing(anchor, 1, february), at("2026-03-31T10:00:00Z"));
        assert_eq!(next_billing(anchor, 12, february), at("2027-01-31T10:00:00Z"));
    }

    proptest! {
        #[test]
        fn both_parts_of_a_period_are_the_whole_to_a_unit(
            amount in 0_i64..1_000_000_000, whole in 1_i64..40_000_000, part in 0_i64..40_000_000,
        ) {
            let part = part.min(whole);
            let (before, after) = (prorated(amount, whole - part, whole), prorated(amount, part, whole));
            prop_assert!((before + after - amount).abs() <= 1);
            prop_assert!(0 <= after && after <= amount);
            prop_assert_eq!(prorated(amount, whole, whole), amount);
        }

        #[test]
        fn more_of_it_never_costs_less_and_lasts_never_longer(
            amount in 0_i64..1_000_000_000,
            whole in 1_i64..40_000_000,
            a in 0_i64..40_000_000,
            b in 0_i64..40_000_000,
        ) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(prorated(amount, less, whole) <= prorated(amount, more, whole));
        }

        #[test]
        fn billing_moments_follow_one_another(anchor in 0_i64..4_000_000_000, after in 0_i64..400_000_000) {
            let at = anchor + after;
            let next = next_billing(anchor, 1, at);
            prop_assert!(next > at);
            prop_assert!(next - at <= 31 * 86_400);
            prop_assert!(next_billing(anchor, 1, next) > next);
        }
    }
}
