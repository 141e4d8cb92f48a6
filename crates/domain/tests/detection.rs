//! What the rules of suspicious activity count, whatever the order of entries and however they are cut into batches.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use chrono::{DateTime, Duration};
use proptest::prelude::*;
use serde_json::json;
use tenantry_domain::audit::{AuditEntry, Outcome, Risk};
use tenantry_domain::kernel::{TenantId, Time};
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

/// An entry: which action, about whom, when, how much it counts, and within how many seconds before that.
type Drawn = (usize, u128, i64, u64, i64);

fn entry(number: usize, (action, who, second, weight, span): Drawn) -> AuditEntry {
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
        after: Some(json!({"repeated": {
            "since_last": weight, "first_at": at(second - span), "last_at": at(second),
        }})),
    }
}

fn numbered(drawn: &[Drawn]) -> Vec<(i64, AuditEntry)> {
    let entries = drawn.iter().enumerate();
    entries
        .map(|(number, drawn)| (i64::try_from(number).unwrap() + 1, entry(number, *drawn)))
        .collect()
}

fn tenant() -> TenantId {
    Uuid::from_u128(77).into()
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
    let found = detection.read(tenant(), entries, terms, at(3_600));
    let raised = found.iter().filter_map(|(key, hits)| {
        let reached = detection.count(key, hits, terms(key.rule))?;
        Some((key.name(), reached.count))
    });
    raised.collect()
}

/// Most entries are of one moment, as the first of a kind is.
fn spans() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0_i64), 0..1_200_i64]
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    prop::collection::vec(
        (0..ACTIONS.len(), 0..3_u128, 0..3_600_i64, 1..4_u64, spans()),
        0..40,
    )
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
        let mut drawn: Vec<_> = drawn.into_iter().map(|(_, _, second, weight, span)| (0, 1, second, weight, span)).collect();
        // A log is written in time, but for seconds.
        drawn.sort_unstable_by_key(|(_, _, second, ..)| *second);
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
        // An entry counts in the windows that have all of its time.
        let within = drawn.iter().map(|(_, _, end, ..)| {
            let until = end.div_euclid(part);
            let window = until - 59..=until;
            let counted = drawn.iter().filter(|(_, _, last, _, span)| {
                [last - span, *last].iter().all(|at| window.contains(&at.div_euclid(part)))
            });
            counted.map(|(_, _, _, weight, _)| weight).sum::<u64>()
        }).max().unwrap_or_default();
        prop_assert_eq!(raised.contains_key(&name), within >= u64::from(threshold));
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
        let near = of_user(1).any(|one| of_user(2).any(|other| one.2.max(other.2) - (one.2 - one.4).min(other.2 - other.4) < 3_480));
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
    let entries = numbered(&[(0, 1, 0, 3, 0), (0, 1, 1, 3, 0), (0, 1, 2, 3, 0)]);
    let mut detection = Detection::default();
    let late = detection.read(
        tenant(),
        &entries,
        terms,
        at(2) + Duration::days(1) + Duration::seconds(1),
    );
    assert!(late.is_empty());
    assert_eq!(detection.sequence, 3);
}

/// The number of subjects is bounded, and those of now stay.
#[test]
fn subjects_are_bounded() {
    let drawn: Vec<Drawn> = (0..2_500)
        .map(|number| (0, number, 1_100 + i64::try_from(number).unwrap(), 1, 0))
        .collect();
    let mut detection = Detection::default();
    read(&mut detection, &numbered(&drawn));
    detection.prune(at(3_600), at(3_600));
    let stored = serde_json::to_string(&detection).unwrap();
    assert!(stored.len() < 2_000_000, "{}", stored.len());
    let newest = format!("failed_logins_account/user/{}", Uuid::from_u128(2_499));
    let oldest = format!("failed_logins_account/user/{}\"", Uuid::from_u128(0));
    assert!(stored.contains(&newest) && !stored.contains(&oldest));
}

/// An entry as of an actor or about nobody, with details.
fn refused(action: &str, actor: (&str, Option<u128>), details: serde_json::Value) -> AuditEntry {
    AuditEntry {
        action: action.into(),
        entity: "tenant".into(),
        entity_id: Some(tenant().uuid()),
        actor_kind: actor.0.into(),
        actor_id: actor.1.map(Uuid::from_u128),
        address: None,
        after: Some(details),
        ..entry(0, (0, 0, 60, 1, 0))
    }
}

/// The subjects that the rules count an entry for.
fn subjects(entry: &AuditEntry) -> Vec<String> {
    let found = Detection::default().read(tenant(), &[(1, entry.clone())], terms, at(3_600));
    found
        .keys()
        .map(tenantry_domain::security::AlertKey::name)
        .collect()
}

/// A key is the subject of what it does, and an operator is none, in the first entry and in those of repeats.
#[test]
fn mismatches_are_about_the_actor() {
    for (kind, subject) in [
        ("user", Some("user")),
        ("api_key", Some("api_key")),
        ("operator", None),
    ] {
        let id = Uuid::from_u128(5);
        let expected: Vec<_> = subject
            .iter()
            .map(|kind| format!("tenant_mismatch/{kind}/{id}"))
            .collect();
        let first = refused("tenant.mismatch", (kind, Some(5)), json!({}));
        assert_eq!(subjects(&first), expected, "{kind}");
        for further in [false, true] {
            let details = json!({"actor_kind": kind, "actor_id": id, "further": further, "repeated": {"since_last": 1}});
            let repeated = refused("tenant.mismatch", ("system", None), details);
            assert_eq!(subjects(&repeated), expected, "{kind}");
        }
    }
    // Of an earlier release.
    let id = Uuid::from_u128(5);
    let earlier = refused("tenant.mismatch", ("system", None), json!({"actor_id": id}));
    assert_eq!(subjects(&earlier), [format!("tenant_mismatch/user/{id}")]);
}

/// What is refused beyond the bounds of single entries counts for the tenant, where the rule's subject is not known any more.
#[test]
fn refusals_of_many_count_for_the_tenant() {
    let of_tenant = |rule: &&str| format!("{rule}/tenant/{}", tenant());
    for (action, of_known, of_any) in [
        (
            "login.failed",
            &["failed_logins_account", "failed_logins_network"][..],
            &["failed_logins_network"][..],
        ),
        ("api_key.refused", &["api_keys_refused"], &["api_keys_refused"]),
        ("tenant.mismatch", &["tenant_mismatch"], &[]),
    ] {
        for (attributed, rules) in [(true, of_known), (false, of_any)] {
            let details = json!({"further": true, "attributed": attributed, "repeated": {"since_last": 9}});
            let many = refused(action, ("system", None), details);
            assert_eq!(subjects(&many), rules.iter().map(of_tenant).collect::<Vec<_>>());
        }
        let single = refused(action, ("guest", None), json!({}));
        assert_eq!(subjects(&single), Vec::<String>::new());
    }
}

/// The slices of an entry are counted in the windows that they are in.
#[test]
fn slices_of_an_entry_are_counted_in_their_windows() {
    let entry = |slices: serde_json::Value| AuditEntry {
        after: Some(json!({"repeated": {
            "count": 30, "since_last": 20, "first_at": at(0), "last_at": at(3_500), "slices": slices,
        }})),
        ..entry(0, (0, 1, 3_510, 1, 0))
    };
    let name = format!("failed_logins_account/user/{}", Uuid::from_u128(1));
    let raised = |slices| {
        read(&mut Detection::default(), &[(1, entry(slices))])
            .get(&name)
            .copied()
    };
    assert_eq!(
        raised(json!([
            [0, 10, 5],
            [1_000, 1_010, 5],
            [2_000, 2_050, 5],
            [3_490, 3_500, 5]
        ])),
        None
    );
    assert_eq!(
        raised(json!([[0, 10, 5], [2_000, 2_050, 8], [3_490, 3_500, 5]])),
        Some(8)
    );
    assert_eq!(
        raised(json!([[2_000, 2_050, 3], [2_100, 2_130, 3], [3_490, 3_500, 5]])),
        Some(6)
    );
    // What is malformed counts as one slice of the whole time.
    for malformed in [
        json!([[0, -5, 9]]),
        json!("x"),
        json!([[0, 1e300, 9]]),
        json!([[0]]),
        json!(null),
    ] {
        assert_eq!(raised(malformed), None);
    }
}

/// Entries that no rule counts change nothing that is stored, and what is over by the rule's own window goes.
#[test]
fn windows_that_are_over_are_dropped() {
    let mut detection = Detection::default();
    let before = detection.clone();
    let login = AuditEntry {
        action: "session.started".into(),
        after: Some(json!({"new_network": false})),
        ..entry(1, (0, 1, 10, 1, 0))
    };
    read(&mut detection, &[(1, login)]);
    assert!(!detection.differs_from(&before) && detection.sequence == 1);
    read(&mut detection, &[(2, entry(2, (0, 1, 10, 1, 0)))]);
    assert!(detection.differs_from(&before));
    detection.prune(at(1_700), at(3_600));
    assert!(detection.differs_from(&before));
    // Two windows of 15 minutes later.
    detection.prune(at(10 + 1_800), at(3_600));
    assert!(!detection.differs_from(&before));
}

/// Beyond a thousand API keys the one that was not used for the longest time is forgotten, and raises no alert for its next network.
#[test]
fn least_recently_used_key_is_forgotten() {
    let mut detection = Detection::default();
    let seen = |number: i64, key: u128, network: u64| {
        (
            number,
            entry(usize::try_from(number).unwrap(), (3, key, number, network, 0)),
        )
    };
    for key in 0..1_000 {
        read(&mut detection, &[seen(i64::try_from(key).unwrap() + 1, key, 1)]);
    }
    read(&mut detection, &[seen(1_001, 0, 1)]);
    read(&mut detection, &[seen(1_002, 5_000, 1)]);
    let raised =
        |detection: &mut Detection, number, key| !read(detection, &[seen(number, key, 2)]).is_empty();
    assert!(raised(&mut detection, 1_003, 0), "it was used since");
    assert!(raised(&mut detection, 1_004, 5_000));
    assert!(!raised(&mut detection, 1_005, 1), "it was forgotten");
}
