//! What the rules of suspicious activity count, whatever the order of entries and however they are cut into batches.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use chrono::{DateTime, Duration};
use proptest::prelude::*;
use serde_json::json;
use tenantry_domain::audit::{AuditEntry, Outcome, Risk};
use tenantry_domain::kernel::Time;
use tenantry_domain::security::{Detection, Rule, RuleChange, RuleTerms};
use uuid::Uuid;

fn at(second: i64) -> Time {
    DateTime::UNIX_EPOCH + Duration::seconds(second)
}

const ACTIONS: [&str; 4] = [
    "login.failed",
    "mfa.disabled",
    "user.password_changed",
    "api_key.network_seen",
];

/// An entry: which action, about whom, when, and how much it counts.
type Drawn = (usize, u128, i64, u64);

fn entry(number: usize, (action, who, second, weight): Drawn) -> AuditEntry {
    let kind = if ACTIONS[action].starts_with("api_key") {
        "api_key"
    } else {
        "user"
    };
    AuditEntry {
        id: Uuid::from_u128(1_000 + number as u128).into(),
        at: at(second),
        category: "security".into(),
        action: ACTIONS[action].into(),
        entity: kind.into(),
        entity_id: Some(Uuid::from_u128(who)),
        actor_kind: "guest".into(),
        actor_id: None,
        request_id: String::new(),
        address: Some(format!("192.0.{weight}.1")),
        user_agent: None,
        outcome: Outcome::Failure,
        risk: Risk::Low,
        before: None,
        after: Some(json!({"repeated": {"since_last": weight}})),
    }
}

fn numbered(drawn: &[Drawn]) -> Vec<(i64, AuditEntry)> {
    let entries = drawn.iter().enumerate();
    entries
        .map(|(number, drawn)| (i64::try_from(number).unwrap() + 1, entry(number, *drawn)))
        .collect()
}

fn terms(rule: &Rule) -> RuleTerms {
    let threshold = rule.id.starts_with("failed").then_some(6);
    let change = RuleChange {
        threshold,
        ..RuleChange::default()
    };
    rule.terms(Some(&change), None)
}

/// Reads entries, and returns how much was raised by alert.
fn read(detection: &mut Detection, entries: &[(i64, AuditEntry)]) -> BTreeMap<String, u64> {
    let found = detection.read(entries, terms, at(3_600));
    let raised = found.iter().filter_map(|(key, hits)| {
        let reached = detection.count(key, hits, terms(key.rule))?;
        Some((key.name(), reached.count))
    });
    raised.collect()
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    prop::collection::vec((0..ACTIONS.len(), 0..3_u128, 0..3_600_i64, 1..4_u64), 0..40)
}

proptest! {
    /// The numbers and times of entries decide, and not their order in a batch.
    #[test]
    fn order_within_a_batch_changes_nothing(drawn in drawn(), seed in any::<u64>()) {
        let entries = numbered(&drawn);
        let mut shuffled = entries.clone();
        shuffled.sort_by_key(|(number, _)| number.unsigned_abs().wrapping_mul(seed | 1));
        let (mut one, mut other) = (Detection::default(), Detection::default());
        prop_assert_eq!(read(&mut one, &entries), read(&mut other, &shuffled));
        prop_assert_eq!(one, other);
    }

    /// What was read is not counted again, whole or in part, also after it was stored.
    #[test]
    fn rerun_changes_nothing(drawn in drawn(), from in 0..40_usize) {
        let entries = numbered(&drawn);
        let mut detection = Detection::default();
        read(&mut detection, &entries);
        let before = detection.clone();
        let stored = serde_json::to_value(&detection).unwrap();
        let mut stored: Detection = serde_json::from_value(stored).unwrap();
        stored.sequence = detection.sequence;
        prop_assert_eq!(&stored, &before);
        let again = &entries[from.min(entries.len())..];
        prop_assert_eq!(read(&mut stored, again), BTreeMap::new());
        prop_assert_eq!(stored, before);
    }

    /// However entries are cut into batches, an alert is raised when so much is counted within a window, and not otherwise.
    #[test]
    fn threshold_within_the_window_raises_an_alert(drawn in drawn(), cut in 0..40_usize) {
        let mut drawn: Vec<_> = drawn.into_iter().map(|(_, _, second, weight)| (0, 1, second, weight)).collect();
        // A log is written in time, but for seconds.
        drawn.sort_unstable_by_key(|(_, _, second, _)| *second);
        let entries = numbered(&drawn);
        let (first, second) = entries.split_at(cut.min(entries.len()));
        let mut detection = Detection::default();
        let mut raised = read(&mut detection, first);
        raised.extend(read(&mut detection, second));
        let rule = Rule::find("failed_logins_account").unwrap();
        let name = format!("failed_logins_account/user/{}", Uuid::from_u128(1));
        let RuleTerms { threshold, window_minutes, .. } = terms(rule);
        // Windows are exact to a sixtieth.
        let part = i64::from(window_minutes);
        let within = |parts: i64| drawn.iter().map(|(_, _, end, _)| {
            let until = end / part;
            let counted = drawn.iter().filter(|(_, _, at, _)| (until - parts + 1..=until).contains(&(at / part)));
            counted.map(|(_, _, _, weight)| weight).sum::<u64>()
        }).max().unwrap_or_default();
        prop_assert_eq!(raised.contains_key(&name), within(60) >= u64::from(threshold));
    }

    /// A rule with two parts needs both.
    #[test]
    fn both_parts_are_needed(drawn in drawn()) {
        let of_user = |action: usize| drawn.iter().filter(move |one| one.0 == action && one.1 == 1);
        let mut detection = Detection::default();
        let raised = read(&mut detection, &numbered(&drawn));
        let name = format!("account_weakened/user/{}", Uuid::from_u128(1));
        let both = of_user(1).next().is_some() && of_user(2).next().is_some();
        prop_assert!(both || !raised.contains_key(&name));
        let near = of_user(1).any(|one| of_user(2).any(|other| (one.2 - other.2).abs() < 3_480));
        prop_assert!(!near || raised.contains_key(&name));
    }

    /// A key raises an alert for its second network, and none for the first or for one that is known.
    #[test]
    fn first_network_of_a_key_is_no_news(drawn in drawn()) {
        let networks = |who: u128| {
            let of_key = drawn.iter().filter(|one| one.0 == 3 && one.1 == who);
            of_key.map(|one| one.3).collect::<std::collections::BTreeSet<_>>().len()
        };
        let raised = read(&mut Detection::default(), &numbered(&drawn));
        for who in 0..3 {
            let name = format!("api_key_new_network/api_key/{}", Uuid::from_u128(who));
            prop_assert_eq!(raised.contains_key(&name), networks(who) > 1);
        }
    }
}

/// What is older than a day raises nothing, so that a log that is read for the first time does not.
#[test]
fn old_entries_raise_no_alert() {
    let entries = numbered(&[(0, 1, 0, 3), (0, 1, 1, 3), (0, 1, 2, 3)]);
    let mut detection = Detection::default();
    let late = detection.read(&entries, terms, at(2) + Duration::days(1) + Duration::seconds(1));
    assert!(late.is_empty());
    assert_eq!(detection.sequence, 3);
}

/// The number of subjects is bounded, and those of now stay.
#[test]
fn subjects_are_bounded() {
    let drawn: Vec<Drawn> = (0..2_500)
        .map(|number| (0, number, i64::try_from(number).unwrap(), 1))
        .collect();
    let mut detection = Detection::default();
    read(&mut detection, &numbered(&drawn));
    detection.prune(at(3_600));
    let stored = serde_json::to_string(&detection).unwrap();
    assert!(stored.len() < 2_000_000, "{}", stored.len());
    let newest = format!("failed_logins_account/user/{}", Uuid::from_u128(2_499));
    let oldest = format!("failed_logins_account/user/{}\"", Uuid::from_u128(0));
    assert!(stored.contains(&newest) && !stored.contains(&oldest));
}
