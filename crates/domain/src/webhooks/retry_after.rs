use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};

use crate::kernel::Time;

/// The longest wait that a receiver can ask for. What asks for more is granted this much.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The forms of a date that HTTP had before the present one (RFC 9110 section 5.6.7), which receivers must still be able to read.
const FORMER_DATES: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// How long a receiver asks to wait: the value of `Retry-After` in seconds or as a date, which is compared with `now`. `None` when it is
/// neither; nothing to wait for when the date has passed.
pub fn retry_after(value: &str, now: Time) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are more seconds than the most.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    }
    let wait = http_date(value)?.signed_duration_since(now);
    Some(wait.to_std().unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

fn http_date(value: &str) -> Option<Time> {
    if let Some(text) = value.strip_suffix(" GMT") {
        let present = NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S");
        if let Ok(date) = present {
            return Some(date.and_utc());
        }
    }
    let former = FORMER_DATES
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(value, form).ok());
    former.map(|date| DateTime::from_naive_utc_and_offset(date, chrono::Utc))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    fn example() -> Time {
        Time::from_timestamp(784_111_777, 0).unwrap()
    }

    #[test]
    fn seconds_and_all_forms_of_a_date_are_read() {
        let now = example() - chrono::Duration::seconds(90);
        for (value, seconds) in [
            ("0", 0),
            ("120", 120),
            (" 120\t", 120),
            ("86400", 86_400),
            ("86401", 86_400),
            ("99999999999999999999999", 86_400),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 90),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 90),
            ("Sun Nov  6 08:49:37 1994", 90),
            ("Sun, 06 Nov 1994 08:48:07 GMT", 0),
            ("Sat, 05 Nov 1994 08:49:37 GMT", 0),
            ("Wed, 06 Nov 2069 08:49:37 GMT", 86_400),
        ] {
            assert_eq!(
                retry_after(value, now),
                Some(Duration::from_secs(seconds)),
                "{value}"
            );
        }
    }

    #[test]
    fn other_values_are_ignored() {
        for value in [
            "",
            " ",
            "-1",
            "+1",
            "1.5",
            "1s",
            "0x10",
            "soon",
            "１２０",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(retry_after(value, example()), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_asks_for_more_than_the_longest_wait(value in ".{0,40}") {
            prop_assert!(retry_after(&value, example()).is_none_or(|wait| wait <= LONGEST_RETRY_AFTER));
        }

        #[test]
        fn date_is_the_seconds_until_it(seconds in 0..86_400_u64) {
            let date = example() + Duration::from_secs(seconds);
            let value = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            prop_assert_eq!(retry_after(&value, example()), Some(Duration::from_secs(seconds)));
            prop_assert_eq!(retry_after(&seconds.to_string(), example()), Some(Duration::from_secs(seconds)));
        }
    }
}
