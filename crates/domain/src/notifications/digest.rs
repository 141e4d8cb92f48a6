//! When digests are due: once a day, or once a week, at an hour of the clocks of a time zone.

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use crate::kernel::name::named_enum;
use crate::kernel::{Time, time_zone};

named_enum! {
    /// How often a digest is mailed.
    pub enum Rhythm {
        /// Each day.
        Daily = "daily",
        /// Each Monday.
        Weekly = "weekly",
    }
}

impl Rhythm {
    fn has(self, date: Date) -> bool {
        match self {
            Self::Daily => true,
            Self::Weekly => date.weekday() == Weekday::Monday,
        }
    }
}

/// The hour at which a tenant's digests are due, by the clocks of its time zone.
///
/// Each date of the zone has one digest. When clocks go forward over the hour, it is due as much later as they go; when the hour comes twice,
/// it is due at the first.
#[derive(Debug, Clone)]
pub struct DigestSchedule {
    zone: TimeZone,
    hour: i8,
}

/// When a digest is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestDue {
    /// The date in the time zone, for example `2026-01-31`.
    pub date: String,
    /// The moment.
    pub at: Time,
}

impl DigestDue {
    fn is_after(&self, date: Option<&str>) -> bool {
        date.is_none_or(|date| self.date.as_str() > date)
    }
}

/// How many dates are looked at: more than two weeks, since a zone may leave a Monday out.
const DATES: i32 = 21;

impl DigestSchedule {
    /// The schedule of a time zone of the IANA database, or of UTC where there is no such zone, at an hour from 0 to 23.
    pub fn new(zone: &str, hour: u32) -> Self {
        Self {
            zone: time_zone(zone).unwrap_or(TimeZone::UTC),
            hour: i8::try_from(hour.min(23)).unwrap_or_default(),
        }
    }

    /// The latest digest that was due until `now`; `None` when that date, or a later one, has had its digest. `mailed` is the date of the
    /// latest digest that was mailed.
    pub fn overdue(&self, now: Time, rhythm: Rhythm, mailed: Option<&str>) -> Option<DigestDue> {
        let mut dates = self.dates(now, Date::yesterday, 1);
        let due = dates.find_map(|date| self.due(date, rhythm).filter(|due| due.at <= now));
        due.filter(|due| due.is_after(mailed))
    }

    /// When the next digest after `now` is due. `mailed` is the date of the latest digest that was mailed: a change of the hour or of the
    /// zone gives that date no second one.
    pub fn next(&self, now: Time, rhythm: Rhythm, mailed: Option<&str>) -> Option<DigestDue> {
        let mut dates = self.dates(now, Date::tomorrow, -1);
        let is_next = |due: &DigestDue| due.at > now && due.is_after(mailed);
        dates.find_map(|date| self.due(date, rhythm).filter(is_next))
    }

    /// Dates in succession, from so many days beside the present date on.
    fn dates(
        &self,
        now: Time,
        next: fn(Date) -> Result<Date, jiff::Error>,
        days: i8,
    ) -> impl Iterator<Item = Date> {
        let moment = Timestamp::from_second(now.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
        let today = self.zone.to_datetime(moment).date();
        let beside = if days < 0 {
            today.yesterday()
        } else {
            today.tomorrow()
        };
        let mut date = Some(beside.unwrap_or(today));
        (0..DATES).map_while(move |_| {
            let present = date?;
            date = next(present).ok();
            Some(present)
        })
    }

    /// When the digest of a date is due; `None` of a date that the rhythm or the time zone leaves out.
    fn due(&self, date: Date, rhythm: Rhythm) -> Option<DigestDue> {
        let begins = self.zone.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
        if !rhythm.has(date) || self.zone.to_datetime(begins).date() != date {
            return None;
        }
        let at = self.zone.to_timestamp(date.at(self.hour, 0, 0, 0)).ok()?;
        Some(DigestDue {
            date: date.to_string(),
            at: Time::from_timestamp(at.as_second(), 0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use proptest::prelude::*;

    use super::*;

    const ZONES: [&str; 12] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Asia/Kathmandu",
        "Asia/Beirut",
        "Africa/Cairo",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Kiritimati",
        "Pacific/Auckland",
        "America/Scoresbysund",
    ];

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn dues(zone: &str, hour: u32, from: &str, rhythm: Rhythm) -> Vec<(String, String)> {
        let (schedule, mut now, mut all) = (DigestSchedule::new(zone, hour), at(from), Vec::new());
        for _ in 0..4 {
            let due = schedule.next(now, rhythm, None).unwrap();
            now = due.at;
            all.push((due.date, due.at.format("%d %H:%M").to_string()));
        }
        all
    }

    fn days(expected: [(&str, &str); 4]) -> Vec<(String, String)> {
        expected
            .map(|(date, due)| (date.to_owned(), due.to_owned()))
            .into()
    }

    /// On 29 March 2026 clocks in Berlin go from 2:00 to 3:00, on 25 October from 3:00 to 2:00.
    #[test]
    fn clock_changes_leave_one_digest_a_day() {
        assert_eq!(
            dues("Europe/Berlin", 2, "2026-03-27T12:00:00Z", Rhythm::Daily),
            days([
                ("2026-03-28", "28 01:00"),
                ("2026-03-29", "29 01:00"),
                ("2026-03-30", "30 00:00"),
                ("2026-03-31", "31 00:00")
            ])
        );
        assert_eq!(
            dues("Europe/Berlin", 2, "2026-10-23T12:00:00Z", Rhythm::Daily),
            days([
                ("2026-10-24", "24 00:00"),
                ("2026-10-25", "25 00:00"),
                ("2026-10-26", "26 01:00"),
                ("2026-10-27", "27 01:00")
            ])
        );
    }

    /// Samoa had no 30 December 2011.
    #[test]
    fn date_that_a_zone_leaves_out_has_no_digest() {
        let all = dues("Pacific/Apia", 8, "2011-12-28T12:00:00Z", Rhythm::Daily);
        let dates: Vec<_> = all.iter().map(|(date, _)| date.as_str()).collect();
        assert_eq!(dates, ["2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01"]);
    }

    #[test]
    fn weekly_digest_is_on_mondays() {
        let all = dues("Europe/Berlin", 8, "2026-10-19T06:00:00Z", Rhythm::Weekly);
        assert_eq!(
            all,
            days([
                ("2026-10-26", "26 07:00"),
                ("2026-11-02", "02 07:00"),
                ("2026-11-09", "09 07:00"),
                ("2026-11-16", "16 07:00")
            ])
        );
    }

    #[test]
    fn unknown_zone_is_utc() {
        let due =
            DigestSchedule::new("Mars/Olympus", 99).next(at("2026-01-01T00:00:00Z"), Rhythm::Daily, None);
        assert_eq!(due.unwrap().at, at("2026-01-01T23:00:00Z"));
    }

    /// The digest of 31 January was mailed at 8:00, and then the hour or the zone is changed.
    #[test]
    fn date_has_one_digest_although_the_hour_changes() {
        let mailed = Some("2026-01-31");
        let evening = DigestSchedule::new("UTC", 20);
        let next = evening.next(at("2026-01-31T10:00:00Z"), Rhythm::Daily, mailed);
        assert_eq!(next.unwrap().at, at("2026-02-01T20:00:00Z"));
        assert_eq!(
            evening.overdue(at("2026-01-31T20:00:00Z"), Rhythm::Daily, mailed),
            None
        );
        let due = evening.overdue(at("2026-02-01T20:00:00Z"), Rhythm::Daily, mailed);
        assert_eq!(due.unwrap().date, "2026-02-01");
        let west = DigestSchedule::new("Pacific/Honolulu", 8);
        let next = west.next(at("2026-01-31T10:00:00Z"), Rhythm::Daily, mailed);
        assert_eq!(next.unwrap().date, "2026-02-01");
    }

    fn latest_at(schedule: &DigestSchedule, now: Time, rhythm: Rhythm) -> Time {
        schedule
            .overdue(now, rhythm, None)
            .map_or(Time::UNIX_EPOCH, |due| due.at)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Between the latest and the next digest there is none, each date has one, and they are about a day apart.
        #[test]
        fn each_date_has_one_digest(zone in 0..ZONES.len(), hour in 0u32..24, second in 0i64..2_000_000_000) {
            let schedule = DigestSchedule::new(ZONES[zone], hour);
            let mut now = Time::from_timestamp(second, 0).unwrap();
            let latest = latest_at(&schedule, now, Rhythm::Daily);
            prop_assert!(latest <= now && now - latest <= Duration::hours(50), "{latest}");
            prop_assert_eq!(latest_at(&schedule, latest, Rhythm::Daily), latest);
            let mut before = schedule.next(latest, Rhythm::Daily, None).unwrap();
            let following = schedule.next(now, Rhythm::Daily, None).unwrap();
            prop_assert_eq!(&before, &following);
            for _ in 0..5 {
                now = before.at;
                prop_assert_eq!(latest_at(&schedule, now, Rhythm::Daily), now);
                let due = schedule.next(now, Rhythm::Daily, None).unwrap();
                prop_assert!(due.date > before.date, "{due:?} after {before:?}");
                let apart = due.at - now;
                prop_assert!(apart >= Duration::hours(20) && apart <= Duration::hours(50), "{apart}");
                before = due;
            }
        }

        #[test]
        fn weekly_digest_is_one_of_the_daily_ones(zone in 0..ZONES.len(), hour in 0u32..24, second in 0i64..2_000_000_000) {
            let schedule = DigestSchedule::new(ZONES[zone], hour);
            let now = Time::from_timestamp(second, 0).unwrap();
            let weekly = schedule.next(now, Rhythm::Weekly, None).unwrap();
            prop_assert_eq!(latest_at(&schedule, weekly.at, Rhythm::Daily), weekly.at);
            prop_assert!(weekly.at - now <= Duration::days(15));
            prop_assert!(now - latest_at(&schedule, now, Rhythm::Weekly) <= Duration::days(15));
        }
    }
}
