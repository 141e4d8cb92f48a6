use chrono::{DateTime, SubsecRound, Timelike, Utc};
use serde::{Deserialize, Deserializer, de::Error};
use tenantry_domain::kernel::Time;

/// A point in time in a request body: RFC 3339 with any offset, cut to the microseconds that can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Time);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).ok();
        // A leap second has more than 999,999,999 nanoseconds in chrono, and no place in the database.
        let time = time.filter(|time| time.nanosecond() < 1_000_000_000);
        let time =
            time.ok_or_else(|| D::Error::custom("must be an RFC 3339 time such as 2030-01-31T12:00:00Z"))?;
        Ok(Self(time.with_timezone(&Utc).trunc_subsecs(6)))
    }
}

impl From<Moment> for Time {
    fn from(moment: Moment) -> Self {
        moment.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc_3339_and_cuts_to_microseconds() {
        let read = |text: &str| {
            serde_json::from_value::<Moment>(text.into())
                .map(|m| m.0.to_rfc3339())
                .ok()
        };
        assert_eq!(
            read("2030-01-31T12:00:00+02:00"),
            Some("2030-01-31T10:00:00+00:00".into())
        );
        assert_eq!(
            read("2030-01-31T12:00:00.123456789Z"),
            Some("2030-01-31T12:00:00.123456+00:00".into())
        );
        for refused in [
            "2030-01-31",
            "2030-01-31T12:00:00",
            "2030-06-30T23:59:60Z",
            "tomorrow",
        ] {
            assert_eq!(read(refused), None, "{refused}");
        }
    }
}
