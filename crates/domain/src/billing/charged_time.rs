use chrono::Duration;

use crate::billing::ProviderSubscription;
use crate::kernel::{BillingCycle, Period, Time};
use crate::usage::MeterKey;

/// During which time a subscription charges the use of a meter.
///
/// Usage is told hour by hour; of the hours in which that time begins or ends, and in which a trial ends, only a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargedTime {
    /// Its first moment.
    pub since: Time,
    /// When a trial ends within it, which costs nothing.
    pub trial_ends_at: Option<Time>,
    /// The first moment after it, once that is known.
    pub ended_at: Option<Time>,
}

impl ChargedTime {
    /// When a subscription charges a meter; `None` of one that it does not charge.
    pub fn of(subscription: &ProviderSubscription, meter: &MeterKey) -> Option<Self> {
        let mut charged = subscription.charged.iter();
        let charged = charged.find(|charged| charged.meter == *meter)?;
        Some(Self {
            since: charged.since.max(subscription.created_at),
            trial_ends_at: subscription.trial_ends_at,
            ended_at: subscription.ended_at,
        })
    }

    /// The part of an hour of the clock that is told of, `None` where that is none of it: nothing of what was before the
    /// beginning or after the end, and in the hour in which a trial ends nothing of the trial.
    pub fn part(&self, hour: Period) -> Option<Period> {
        let end = self.ended_at.map_or(hour.end, |ended_at| hour.end.min(ended_at));
        let start = self.start(hour.start, end);
        (start < end).then_some(Period { start, end })
    }

    /// The moment for which an hour is told: its last second, or the last one before the end. When a month of the
    /// subscription ends within the hour, all of it is of the next month, whose invoice is still to come; that of the month
    /// which ends becomes final an hour later, perhaps before this hour is told.
    pub fn told_at(&self, hour: Period) -> Time {
        let ends_within = self.ended_at.filter(|ended_at| hour.contains(*ended_at));
        let is_part = |ended_at: &Time| *ended_at > hour.start;
        ends_within.filter(is_part).unwrap_or(hour.end) - Duration::seconds(1)
    }

    /// Of what does not add up the number of the month so far is told: the time that it is made of, up to the end of an
    /// hour. `None` where nothing of the hour is told of.
    pub fn month_to(&self, hour: Period, cycle: &BillingCycle) -> Option<Period> {
        let Period { end, .. } = self.part(hour)?;
        let month = cycle.period(self.told_at(hour));
        let start = self.start(Period::hour_of(month.start).start, end);
        Some(Period { start, end })
    }

    /// Where something that would begin at `start` and ends at `end` begins.
    fn start(&self, start: Time, end: Time) -> Time {
        let trial = self.trial_ends_at.filter(|trial_ends_at| *trial_ends_at < end);
        // Only the hour in which the trial ends is cut: its other hours are told, and cost nothing.
        let cut = trial.filter(|trial_ends_at| *trial_ends_at > start);
        start.max(self.since).max(cut.unwrap_or(start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Time {
        format!("2026-01-{text}Z").parse().unwrap()
    }

    fn hour(text: &str) -> Period {
        Period::hour_of(at(text))
    }

    fn part(start: &str, end: &str) -> Option<Period> {
        Some(Period {
            start: at(start),
            end: at(end),
        })
    }

    const fn time(since: Time, trial_ends_at: Option<Time>, ended_at: Option<Time>) -> ChargedTime {
        ChargedTime {
            since,
            trial_ends_at,
            ended_at,
        }
    }

    #[test]
    fn hours_are_cut_where_it_begins_and_ends_and_where_a_trial_ends() {
        let it = time(
            at("10T10:20:00"),
            Some(at("12T10:20:00")),
            Some(at("20T07:05:00")),
        );
        assert_eq!(it.part(hour("10T09:00:00")), None);
        assert_eq!(it.part(hour("10T10:00:00")), part("10T10:20:00", "10T11:00:00"));
        assert_eq!(it.part(hour("10T11:00:00")), Some(hour("10T11:00:00")));
        assert_eq!(it.part(hour("12T10:00:00")), part("12T10:20:00", "12T11:00:00"));
        assert_eq!(it.part(hour("20T07:00:00")), part("20T07:00:00", "20T07:05:00"));
        assert_eq!(it.told_at(hour("20T07:00:00")), at("20T07:04:59"));
        assert_eq!(it.told_at(hour("20T06:00:00")), at("20T06:59:59"));
        assert_eq!(it.part(hour("20T08:00:00")), None);
        let on_the_hour = time(at("10T10:00:00"), None, Some(at("10T12:00:00")));
        assert_eq!(on_the_hour.part(hour("10T10:00:00")), Some(hour("10T10:00:00")));
        assert_eq!(on_the_hour.part(hour("10T12:00:00")), None);
        assert_eq!(on_the_hour.told_at(hour("10T11:00:00")), at("10T11:59:59"));
    }

    #[test]
    fn a_month_is_made_of_the_hours_that_are_told_in_it() {
        let trial = at("12T10:20:00");
        let cycle = BillingCycle::anchored(trial);
        let it = time(at("10T10:20:00"), Some(trial), None);
        // In the trial it is counted from the beginning, then from the trial's end.
        assert_eq!(
            it.month_to(hour("12T09:00:00"), &cycle),
            part("10T10:20:00", "12T10:00:00")
        );
        for end in ["12T11:00:00", "12T12:00:00", "31T00:00:00"] {
            let last = Period::hour_of(at(end) - Duration::seconds(1));
            assert_eq!(it.month_to(last, &cycle), part("12T10:20:00", end));
        }
        // The hour in which a month ends is of the next one.
        let february = Period::hour_of("2026-02-12T10:00:00Z".parse().unwrap());
        assert_eq!(it.month_to(february, &cycle), Some(february));
    }

    proptest! {
        #[test]
        fn the_parts_of_all_hours_are_the_time_but_for_what_is_left_of_the_trials_last_hour(
            since in 0..500_000_i64, length in 0..500_000_i64, trial in proptest::option::of(0..500_000_i64),
        ) {
            let moment = |seconds| Time::UNIX_EPOCH + Duration::seconds(seconds);
            let it = time(moment(since), trial.map(|trial| moment(since + trial)), Some(moment(since + length)));
            let (mut told, mut hour) = (Duration::zero(), Period::hour_of(it.since));
            while hour.start < moment(since + length) {
                if let Some(part) = it.part(hour) {
                    told += part.end - part.start;
                    let told_at = it.told_at(hour);
                    prop_assert!(part.contains(told_at), "{part:?} {told_at}");
                    let month = it.month_to(hour, &BillingCycle::CALENDAR).unwrap();
                    prop_assert!(month.start <= part.start && month.end == part.end);
                }
                hour = Period::hour_of(hour.end);
            }
            let cut = it.trial_ends_at.filter(|trial| *trial < moment(since + length)).map_or(
                Duration::zero(),
                |trial| trial - Period::hour_of(trial).start.max(it.since),
            );
            prop_assert_eq!(told, Duration::seconds(length) - cut);
        }
    }
}
