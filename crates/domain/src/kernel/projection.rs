use crate::kernel::{Period, Time};

/// What a period's usage may come to at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projection {
    /// If the days to come are like the quieter ones so far.
    pub low: u64,
    /// If they are like the average day so far.
    pub likely: u64,
    /// If they are like the busier ones so far.
    pub high: u64,
}

/// Seconds of a day.
const DAY: u128 = 86_400;

impl Projection {
    /// A number that is taken to stay as it is.
    pub const fn flat(used: u64) -> Self {
        Self {
            low: used,
            likely: used,
            high: used,
        }
    }

    /// What usage that adds up comes to at the period's end, in whole numbers, rounded up.
    ///
    /// `used` is what was used so far, and `days` what was used on each day of the period that is over. To `used` is added,
    /// for the time that is left, the mean of those days (`likely`), their lower quartile (`low`) and their upper quartile
    /// (`high`), in proportion: quartiles by nearest rank, so that one odd day moves neither. Where the mean lies outside of
    /// the quartiles the range is widened to it. Before the first day is over there is only the rate so far; the range is
    /// then from nothing more to twice as much more.
    pub fn at_end(used: u64, days: &[u64], period: Period, now: Time) -> Self {
        let seconds = |from: Time, to: Time| (to - from).num_seconds().max(0).unsigned_abs();
        let now = now.clamp(period.start, period.end);
        let left = seconds(now, period.end);
        if days.is_empty() {
            let elapsed = seconds(period.start, now).max(1);
            let more = scaled(used, left.into(), elapsed.into());
            return Self {
                low: used,
                likely: used.saturating_add(more),
                high: used.saturating_add(more.saturating_mul(2)),
            };
        }
        let mut sorted = days.to_vec();
        sorted.sort_unstable();
        let last = sorted.len() - 1;
        let (lower, upper) = (sorted[last / 4], sorted[(last * 3).div_ceil(4)]);
        let sum: u128 = days.iter().map(|day| u128::from(*day)).sum();
        let days = days.len() as u128;
        let mean = (sum.saturating_mul(left.into())).div_ceil(DAY * days);
        let likely = used.saturating_add(u64::try_from(mean).unwrap_or(u64::MAX));
        let with = |day: u64| used.saturating_add(scaled(day, left.into(), DAY));
        Self {
            low: with(lower).min(likely),
            likely,
            high: with(upper).max(likely),
        }
    }
}

/// `value · numerator / denominator`, rounded up.
fn scaled(value: u64, numerator: u128, denominator: u128) -> u64 {
    let scaled = (u128::from(value) * numerator).div_ceil(denominator);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use chrono::{Duration, TimeZone as _};
    use proptest::prelude::*;

    use super::*;

    fn day(day: i64) -> Time {
        chrono::Utc.timestamp_opt(1_700_006_400, 0).unwrap() + Duration::days(day)
    }

    fn thirty() -> Period {
        Period {
            start: day(0),
            end: day(30),
        }
    }

    #[test]
    fn steady_usage_has_no_spread() {
        let ten = Projection::at_end(1_000, &[100; 10], thirty(), day(10));
        assert_eq!(ten, Projection::flat(3_000));
    }

    #[test]
    fn an_odd_day_moves_the_mean_and_not_the_quartiles() {
        let days = [100, 100, 100, 100, 1_000, 100, 100, 100, 100];
        let projection = Projection::at_end(1_800, &days, thirty(), day(9));
        assert_eq!(
            projection,
            Projection {
                low: 3_900,
                likely: 6_000,
                high: 6_000
            }
        );
    }

    #[test]
    fn weekdays_and_weekends_make_a_range() {
        let week = [100, 100, 100, 100, 100, 0, 0];
        let projection = Projection::at_end(500, &week, thirty(), day(7));
        assert_eq!((projection.low, projection.high), (500, 2_800));
        assert_eq!(projection.likely, 500 + 1_643, "23 days of 500/7, rounded up");
    }

    #[test]
    fn on_the_first_day_there_is_only_the_rate_so_far() {
        let noon = day(0) + Duration::hours(12);
        let projection = Projection::at_end(10, &[], thirty(), noon);
        assert_eq!(
            projection,
            Projection {
                low: 10,
                likely: 600,
                high: 1_190
            }
        );
        assert_eq!(Projection::at_end(0, &[], thirty(), day(0)), Projection::flat(0));
    }

    proptest! {
        #[test]
        fn it_is_never_less_than_what_is_used_and_in_order(
            used: u64, days in prop::collection::vec(any::<u64>(), 0..31), now in -5_i64..40,
        ) {
            let projection = Projection::at_end(used, &days, thirty(), day(now));
            prop_assert!(used <= projection.low);
            prop_assert!(projection.low <= projection.likely && projection.likely <= projection.high);
            if now >= 30 {
                prop_assert_eq!(projection, Projection::flat(used));
            }
        }
    }
}
