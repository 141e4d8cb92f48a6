use chrono::{DateTime, Duration, Months, Timelike as _};
use serde::{Deserialize, Serialize};

use crate::kernel::Time;
use crate::kernel::name::named_enum;

/// A stretch of time, UTC: from `start`, up to but without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period {
    /// Its first moment.
    pub start: Time,
    /// The first moment after it.
    pub end: Time,
}

impl Period {
    /// Whether a moment lies in it.
    pub fn contains(&self, at: Time) -> bool {
        self.start <= at && at < self.end
    }

    /// The hour of the clock around a moment.
    pub fn hour_of(at: Time) -> Self {
        Self::around(at, Duration::hours(1))
    }

    /// The day around a moment, UTC.
    pub fn day_of(at: Time) -> Self {
        Self::around(at, Duration::days(1))
    }

    /// In whole seconds: chrono's own truncation counts nanoseconds, which end in the year 2262.
    fn around(at: Time, length: Duration) -> Self {
        let seconds = length.num_seconds().max(1);
        let start = DateTime::from_timestamp(at.timestamp().div_euclid(seconds) * seconds, 0).unwrap_or(at);
        Self {
            start,
            end: start + length,
        }
    }
}

named_enum! {
    /// When what is counted begins again at nothing.
    pub enum Reset {
        /// At each full minute.
        Minute = "minute",
        /// At each full hour.
        Hour = "hour",
        /// At midnight, UTC.
        Day = "day",
        /// When the tenant's next billing period begins.
        BillingCycle = "billing_cycle",
    }
}

impl Reset {
    /// The period around a moment, for a tenant with this cycle.
    pub fn period(self, at: Time, cycle: &BillingCycle) -> Period {
        match self {
            Self::Minute => Period::around(at, Duration::minutes(1)),
            Self::Hour => Period::hour_of(at),
            Self::Day => Period::day_of(at),
            Self::BillingCycle => cycle.period(at),
        }
    }
}

/// The months of a tenant: they begin on the day of the month and at the hour at which it was first billed, or on the
/// last day of a month that has no such day (as Stripe's `billing_cycle_anchor` does).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillingCycle {
    anchor: Time,
}

impl BillingCycle {
    /// Calendar months, UTC: of tenants that nobody bills.
    pub const CALENDAR: Self = Self {
        anchor: DateTime::UNIX_EPOCH,
    };

    /// Months that begin as this moment lies in its month; to the whole second.
    pub fn anchored(anchor: Time) -> Self {
        Self {
            anchor: anchor.with_nanosecond(0).unwrap_or(anchor),
        }
    }

    /// The moment they are counted from.
    pub const fn anchor(&self) -> Time {
        self.anchor
    }

    /// The month around a moment.
    pub fn period(&self, at: Time) -> Period {
        let mut months = months_between(self.anchor, at);
        // The estimate is a month off at most, since it looks at months of the calendar only.
        while self.nth(months) > at {
            months -= 1;
        }
        while self.nth(months + 1) <= at {
            months += 1;
        }
        Period {
            start: self.nth(months),
            end: self.nth(months + 1),
        }
    }

    /// The beginning of a month, counted from the anchor. Always from there: counted from month to month, a 31st
    /// would become a 28th for good.
    fn nth(&self, months: i32) -> Time {
        let by = Months::new(months.unsigned_abs());
        let moved = if months < 0 {
            self.anchor.checked_sub_months(by)
        } else {
            self.anchor.checked_add_months(by)
        };
        moved.unwrap_or(self.anchor)
    }
}

fn months_between(from: Time, to: Time) -> i32 {
    use chrono::Datelike as _;
    (to.year() - from.year()) * 12 + to.month().cast_signed() - from.month().cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn a_cycle_of_the_31st_ends_with_short_months_and_comes_back() {
        let cycle = BillingCycle::anchored(at("2026-01-31T10:30:00.5Z"));
        let starts = ["2026-02-10", "2026-03-10", "2026-04-10"]
            .map(|day| cycle.period(at(&format!("{day}T00:00:00Z"))).start.to_rfc3339());
        assert_eq!(
            starts,
            [
                "2026-01-31T10:30:00+00:00",
                "2026-02-28T10:30:00+00:00",
                "2026-03-31T10:30:00+00:00"
            ]
        );
        let before = cycle.period(at("2025-12-31T10:29:59Z"));
        assert_eq!(
            (before.start, before.end),
            (at("2025-11-30T10:30:00Z"), at("2025-12-31T10:30:00Z"))
        );
    }

    #[test]
    fn those_whom_nobody_bills_have_calendar_months() {
        let period = BillingCycle::CALENDAR.period(at("2026-02-28T23:59:59.999999Z"));
        assert_eq!(
            (period.start, period.end),
            (at("2026-02-01T00:00:00Z"), at("2026-03-01T00:00:00Z"))
        );
        assert_eq!(BillingCycle::CALENDAR.period(period.end).start, period.end);
    }

    #[test]
    fn hours_and_days_are_aligned_in_every_year() {
        for year in ["0001", "1969", "2026", "2262", "2263", "9998"] {
            let moment = at(&format!("{year}-06-15T13:59:59.999999Z"));
            assert_eq!(
                Period::hour_of(moment).start,
                at(&format!("{year}-06-15T13:00:00Z"))
            );
            assert_eq!(
                Period::day_of(moment).start,
                at(&format!("{year}-06-15T00:00:00Z"))
            );
        }
    }

    #[test]
    fn every_kind_reads_back_by_its_name() {
        for reset in Reset::ALL {
            assert_eq!(Reset::parse(reset.as_str()), Some(reset));
            assert_eq!(serde_json::to_value(reset).unwrap(), reset.as_str());
        }
    }

    proptest! {
        #[test]
        fn periods_hold_their_moment_and_follow_one_another(
            anchor in 0_i64..4_000_000_000, moment in 0_i64..4_000_000_000_000_000, kind in 0..4_usize,
        ) {
            let cycle = BillingCycle::anchored(DateTime::from_timestamp(anchor, 0).unwrap());
            let moment = DateTime::from_timestamp_micros(moment).unwrap();
            let reset = Reset::ALL[kind];
            let period = reset.period(moment, &cycle);
            prop_assert!(period.contains(moment));
            prop_assert_eq!(reset.period(period.start, &cycle), period);
            prop_assert_eq!(reset.period(period.end, &cycle).start, period.end);
            let last = period.end - Duration::microseconds(1);
            prop_assert_eq!(reset.period(last, &cycle), period);
        }
    }
}
