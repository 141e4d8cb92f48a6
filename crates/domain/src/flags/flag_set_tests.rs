use chrono::{Duration, TimeZone as _, Utc};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::flags::{
    Comparator, Condition, FlagRule, FlagType, Lifecycle, Part, Prerequisite, Segment, Serve, Share, Split,
};
use crate::kernel::FlagOverrideId;

fn now() -> Time {
    Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()
}

fn tenant(number: u128) -> FlagTenant {
    FlagTenant::new(Uuid::from_u128(number).into(), &format!("tenant-{number}"), "pro")
}

fn share(points: u16) -> Share {
    Share::of_basis_points(points).unwrap()
}

fn set_in(
    tenant: FlagTenant,
    flags: Vec<FlagDefinition>,
    segments: Vec<Segment>,
    chosen: &[(&str, &str)],
) -> FlagSet {
    let overrides = chosen.iter().map(|(flag, variant)| FlagOverride {
        id: FlagOverrideId::from(Uuid::from_u128(9)),
        flag: (*flag).to_owned(),
        variant: (*variant).to_owned(),
        created_at: now(),
        updated_at: now(),
        version: 1,
    });
    let program = FlagProgram::compile(Arc::new(FlagCatalogue::new(flags, segments)));
    FlagSet::new(Arc::new(program), tenant, overrides.collect())
}

fn set(flag: FlagDefinition) -> FlagSet {
    set_in(tenant(1), vec![flag], Vec::new(), &[])
}

/// Variant, reason and level of the flag `f`.
fn of(set: &FlagSet, subject: &Subject) -> (String, Reason, Level) {
    let evaluation = set.evaluate("f", subject, now()).unwrap();
    (evaluation.variant.to_owned(), evaluation.reason, evaluation.level)
}

fn boolean() -> FlagDefinition {
    FlagDefinition::boolean("f", "")
}

/// A flag whose variants are called like the levels.
fn colours() -> FlagDefinition {
    let variants = ["none", "global", "plan", "tenant", "user", "own"].map(|name| (name, json!(name)));
    FlagDefinition::new("f", "", FlagType::String, variants, "none")
}

#[test]
fn the_most_specific_level_wins_and_within_it_the_first_rule_that_matches() {
    let rule = |level: Level| FlagRule::variant(level, level.as_str());
    let ada = Subject::of("ada");
    let mut flag = colours();
    assert_eq!(
        of(&set(flag.clone()), &ada),
        ("none".into(), Reason::Static, Level::Default)
    );
    // Written in the wrong order: it is the level that counts.
    for level in [Level::Global, Level::Plan, Level::Tenant, Level::User] {
        flag = flag.with_rule(rule(level));
        assert_eq!(
            of(&set(flag.clone()), &ada),
            (level.as_str().into(), Reason::TargetingMatch, level)
        );
    }
    let nobody = FlagRule::variant(Level::User, "own").when(Condition::attribute(
        "user_id",
        Comparator::In,
        ["bob".into()],
    ));
    flag.rules.insert(0, nobody);
    assert_eq!(of(&set(flag.clone()), &ada).0, "user");
    assert_eq!(of(&set(flag), &Subject::of("bob")).0, "own");
}

#[test]
fn what_a_tenant_has_chosen_goes_before_what_is_said_of_tenants_and_counts_while_it_is_theirs() {
    let flag = FlagDefinition {
        tenant_overridable: true,
        ..colours().with_rule(FlagRule::variant(Level::Tenant, "tenant"))
    };
    let chosen = |flag: FlagDefinition, variant| {
        of(
            &set_in(tenant(1), vec![flag], Vec::new(), &[("f", variant)]),
            &Subject::of("ada"),
        )
    };
    assert_eq!(
        chosen(flag.clone(), "own"),
        ("own".into(), Reason::TargetingMatch, Level::Tenant)
    );
    assert_eq!(chosen(flag.clone(), "gone").0, "tenant");
    let theirs_no_more = FlagDefinition {
        tenant_overridable: false,
        ..flag.clone()
    };
    assert_eq!(chosen(theirs_no_more, "own").0, "tenant");
    let of_user = flag.clone().with_rule(FlagRule::variant(Level::User, "user"));
    assert_eq!(chosen(of_user, "own").0, "user");
    let killed = FlagDefinition {
        enabled: false,
        ..flag
    };
    assert_eq!(
        chosen(killed, "own"),
        ("none".into(), Reason::Disabled, Level::Default)
    );
}

#[test]
fn what_is_switched_off_or_not_in_use_is_off_whatever_is_said() {
    let flag = || boolean().with_rule(FlagRule::variant(Level::Global, "on"));
    assert!(set(flag()).is_on("f", &Subject::default(), now()));
    for lifecycle in Lifecycle::ALL {
        let set = set(FlagDefinition { lifecycle, ..flag() });
        let expected = match lifecycle {
            Lifecycle::Draft => Some(Reason::Disabled),
            Lifecycle::Active | Lifecycle::Deprecated => Some(Reason::TargetingMatch),
            Lifecycle::Archived => None,
        };
        assert_eq!(
            set.evaluate("f", &Subject::default(), now())
                .map(|one| one.reason),
            expected
        );
    }
    assert!(
        !set(FlagDefinition {
            enabled: false,
            ..flag()
        })
        .is_on("f", &Subject::default(), now())
    );
}

#[test]
fn a_schedule_begins_with_its_first_moment_and_ends_before_its_last() {
    let rule = FlagRule {
        from: Some(now()),
        until: Some(now() + Duration::hours(1)),
        ..FlagRule::variant(Level::Global, "on")
    };
    let set = set(visible().with_rule(rule));
    let on = |seconds| set.is_on("f", &Subject::default(), now() + Duration::seconds(seconds));
    assert_eq!([on(-1), on(0), on(3_599), on(3_600)], [false, true, true, false]);
    let fingerprint = |seconds| set.fingerprint(now() + Duration::seconds(seconds));
    assert_ne!(fingerprint(-1), fingerprint(0));
    assert_eq!(fingerprint(0), fingerprint(3_599));
    assert_ne!(fingerprint(0), fingerprint(3_600));
}

#[test]
fn a_prerequisite_has_to_be_what_it_must_be_for_the_same_subject() {
    let only_ada = FlagRule::variant(Level::User, "on").when(Condition::attribute(
        "user_id",
        Comparator::In,
        ["ada".into()],
    ));
    let base = FlagDefinition::boolean("base", "").with_rule(only_ada);
    let flag = FlagDefinition {
        prerequisites: vec![Prerequisite {
            flag: "base".into(),
            variant: "on".into(),
        }],
        ..boolean().with_rule(FlagRule::variant(Level::Global, "on"))
    };
    let with = |base: Vec<FlagDefinition>| {
        let set = set_in(
            tenant(1),
            base.into_iter().chain([flag.clone()]).collect(),
            Vec::new(),
            &[],
        );
        [of(&set, &Subject::of("ada")).1, of(&set, &Subject::of("bob")).1]
    };
    assert_eq!(
        with(vec![base.clone()]),
        [Reason::TargetingMatch, Reason::Disabled]
    );
    assert_eq!(with(vec![]), [Reason::Disabled; 2]);
    assert_eq!(
        with(vec![FlagDefinition {
            enabled: false,
            ..base
        }]),
        [Reason::Disabled; 2]
    );
}

#[test]
fn a_cycle_that_got_stored_all_the_same_is_off() {
    let needs = |key: &str, other: &str| FlagDefinition {
        prerequisites: vec![Prerequisite {
            flag: other.into(),
            variant: "off".into(),
        }],
        ..FlagDefinition::boolean(key, "").with_rule(FlagRule::variant(Level::Global, "on"))
    };
    let set = set_in(tenant(1), vec![needs("f", "g"), needs("g", "f")], Vec::new(), &[]);
    assert!(set.evaluate("f", &Subject::default(), now()).is_some());
    let alone = FlagDefinition {
        prerequisites: vec![Prerequisite {
            flag: "f".into(),
            variant: "on".into(),
        }],
        ..boolean()
    };
    assert_eq!(
        of(&super::tests::set(alone), &Subject::default()).1,
        Reason::Disabled
    );
}

#[test]
fn facts_of_the_server_go_before_what_the_caller_says() {
    let rule = |attribute, value: &str| {
        let condition = Condition::attribute(attribute, Comparator::In, [value.into()]);
        set(boolean().with_rule(FlagRule::variant(Level::Global, "on").when(condition)))
    };
    let liar = Subject::of("ada")
        .with("plan", "business")
        .with("tenant_id", Uuid::from_u128(2).to_string())
        .with("tenant_slug", "tenant-2")
        .with("user_id", "bob")
        .with("role", "admin");
    for (attribute, fact, lie) in [
        ("plan", "pro", "business"),
        ("tenant_slug", "tenant-1", "tenant-2"),
        (
            "tenant_id",
            &*Uuid::from_u128(1).to_string(),
            &*Uuid::from_u128(2).to_string(),
        ),
        ("user_id", "ada", "bob"),
    ] {
        assert!(rule(attribute, fact).is_on("f", &liar, now()), "{attribute}");
        assert!(!rule(attribute, lie).is_on("f", &liar, now()), "{attribute}");
    }
    let viewer = Subject {
        role: Some(Role::Viewer),
        ..liar.clone()
    };
    assert!(!rule("role", "admin").is_on("f", &viewer, now()));
    assert!(
        rule("role", "admin").is_on("f", &liar, now()),
        "of somebody who is no user nobody else knows it"
    );
}

#[test]
fn a_segment_is_a_name_for_conditions_and_one_that_is_gone_matches_nobody() {
    let segment = Segment {
        key: "beta".into(),
        description: String::new(),
        when: vec![
            Condition::attribute("country", Comparator::In, ["de".into(), "at".into()]),
            Condition::attribute("age", Comparator::AtLeast, [18.into()]),
        ],
        version: 1,
    };
    let on = |negate, segments: Vec<Segment>, subject: &Subject| {
        let condition = Condition::Segment {
            segment: "beta".into(),
            negate,
        };
        let flag = boolean().with_rule(FlagRule::variant(Level::Global, "on").when(condition));
        set_in(tenant(1), vec![flag], segments, &[]).is_on("f", subject, now())
    };
    let inside = Subject::default().with("country", "de").with("age", 18);
    let outside = Subject::default().with("country", "de");
    assert!(on(false, vec![segment.clone()], &inside) && !on(true, vec![segment.clone()], &inside));
    assert!(!on(false, vec![segment.clone()], &outside) && on(true, vec![segment], &outside));
    assert!(!on(false, vec![], &inside) && !on(true, vec![], &inside));
}

#[test]
fn whoever_lacks_what_they_would_be_divided_by_is_not_matched() {
    let by = |by: Option<&str>, subject: &Subject| {
        let flag = boolean().with_rule(FlagRule::rollout(Level::Global, "on", Share::ALL, by));
        set(flag).is_on("f", subject, now())
    };
    let (nobody, ada) = (Subject::default(), Subject::of("ada"));
    assert!(by(None, &nobody) && by(None, &ada) && by(Some("tenant"), &nobody));
    assert!(by(Some("user"), &ada) && !by(Some("user"), &nobody));
    assert!(!by(Some("company"), &ada) && by(Some("company"), &ada.clone().with("company", "x")));
    assert!(by(Some("company"), &ada.clone().with("company", 7)));
    for nothing in [json!(null), json!([1]), json!({}), json!(1.5), json!(true)] {
        assert!(!by(Some("company"), &ada.clone().with("company", nothing)));
    }
}

#[test]
fn an_explanation_says_what_each_level_said() {
    let flag = FlagDefinition {
        tenant_overridable: true,
        ..colours()
            .with_rule(FlagRule::rollout(
                Level::Global,
                "global",
                Share::ALL,
                Some("tenant"),
            ))
            .with_rule(FlagRule::variant(Level::Plan, "plan").when(Condition::attribute(
                "plan",
                Comparator::In,
                ["pro".into()],
            )))
            .with_rule(FlagRule::rollout(Level::User, "user", Share::default(), None))
    };
    let set = set_in(tenant(1), vec![flag], Vec::new(), &[("f", "own")]);
    let explanation = set.explain("f", &Subject::of("ada"), now()).unwrap();
    assert_eq!(
        (explanation.variant.as_str(), explanation.level),
        ("own", Level::Tenant)
    );
    let said: Vec<_> = explanation
        .levels
        .iter()
        .map(|one| (one.level, one.variant.as_deref(), one.chosen))
        .collect();
    assert_eq!(
        said,
        [
            (Level::Default, Some("none"), false),
            (Level::Global, Some("global"), false),
            (Level::Plan, Some("plan"), false),
            (Level::Tenant, Some("own"), true),
            (Level::User, None, false),
        ]
    );
    assert_eq!(
        explanation.levels[1].rules[0].bucket,
        Some(Bucket::of("f", &Uuid::from_u128(1).to_string()))
    );
    assert_eq!(explanation.levels[4].rules[0].result, RuleOutcome::OutsideShare);
}

#[test]
fn of_rules_about_other_tenants_an_explanation_tells_nothing_not_even_that_they_are_there() {
    let other = Uuid::from_u128(2).to_string();
    let about = |attribute, value: &str| Condition::attribute(attribute, Comparator::In, [value.into()]);
    let segment = Segment {
        key: "tenant-2-pilots".into(),
        description: "Only tenant-2".into(),
        when: vec![about("tenant_slug", "tenant-2"), about("country", "de")],
        version: 1,
    };
    let rule = |condition| FlagRule {
        description: "for tenant-2".into(),
        ..FlagRule::variant(Level::Tenant, "tenant").when(condition)
    };
    let flag = colours()
        .with_rule(rule(about("tenant_id", &other)))
        .with_rule(rule(about("tenant_slug", "tenant-2")))
        .with_rule(rule(Condition::segment("tenant-2-pilots")))
        .with_rule(rule(about("country", "de")));
    let set_of = |number| set_in(tenant(number), vec![flag.clone()], vec![segment.clone()], &[]);
    let explanation = set_of(1).explain("f", &Subject::of("ada"), now()).unwrap();
    assert_eq!(explanation.levels[3].rules.len(), 1, "{explanation:#?}");
    assert!(!format!("{explanation:?}").contains("tenant-2"));
    assert!(!format!("{explanation:?}").contains(&other));
    assert_eq!(of(&set_of(2), &Subject::of("ada")).0, "tenant");
}

fn split(by: Option<&str>, parts: &[(&str, u16)]) -> FlagRule {
    let parts = parts.iter().map(|(variant, points)| Part {
        variant: (*variant).to_owned(),
        percent: share(*points),
    });
    FlagRule {
        serve: Serve::Split(Split {
            by: by.map(str::to_owned),
            parts: parts.collect(),
        }),
        ..FlagRule::variant(Level::Global, "")
    }
}

#[test]
fn a_rollout_reaches_as_many_as_it_says() {
    for percent in [1_u16, 20, 50, 99] {
        let flag = boolean().with_rule(FlagRule::rollout(
            Level::Global,
            "on",
            share(percent * 100),
            Some("tenant"),
        ));
        let program = Arc::new(FlagProgram::compile(Arc::new(FlagCatalogue::new([flag], []))));
        let on = (0..20_000_u128).filter(|number| {
            let set = FlagSet::new(
                Arc::clone(&program),
                tenant(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)),
                Vec::new(),
            );
            set.is_on("f", &Subject::default(), now())
        });
        let reached = f64::from(u32::try_from(on.count()).unwrap()) / 200.0;
        assert!(
            (reached - f64::from(percent)).abs() < 1.5,
            "{percent} % reached {reached} %"
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9.]{0,6}".prop_map(Value::from),
        proptest::collection::vec(any::<i8>().prop_map(Value::from), 0..3).prop_map(Value::from),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let attribute = proptest::sample::select(vec!["plan", "tenant_id", "user_id", "role", "a", "b"]);
    let operator = proptest::sample::select(Comparator::ALL.to_vec());
    prop_oneof![
        4 => (attribute, operator, proptest::collection::vec(any_json(), 0..3))
            .prop_map(|(attribute, operator, values)| Condition::attribute(attribute, operator, values)),
        1 => (proptest::sample::select(vec!["s", "gone"]), any::<bool>())
            .prop_map(|(segment, negate)| Condition::Segment { segment: segment.to_owned(), negate }),
    ]
}

fn any_rule() -> impl Strategy<Value = FlagRule> {
    let level = proptest::sample::select(vec![
        Level::Default,
        Level::Global,
        Level::Plan,
        Level::Tenant,
        Level::User,
    ]);
    let variant = || proptest::sample::select(vec!["on", "off", "gone"]);
    let by = proptest::option::of(proptest::sample::select(vec!["tenant", "user", "a"]));
    let parts = proptest::collection::vec((variant(), 0..=10_000_u16), 0..4);
    let serve = prop_oneof![
        variant().prop_map(|variant| Serve::Variant(variant.to_owned())),
        (by, parts).prop_map(|(by, parts)| split(by, &parts).serve),
    ];
    (
        level,
        proptest::collection::vec(any_condition(), 0..3),
        proptest::option::of(-2_i64..2),
        serve,
    )
        .prop_map(|(level, when, from, serve)| FlagRule {
            level,
            description: String::new(),
            when,
            from: from.map(|hours| now() + Duration::hours(hours)),
            until: None,
            serve,
        })
}

fn any_flag() -> impl Strategy<Value = FlagDefinition> {
    let needed = (
        proptest::sample::select(vec!["f", "g", "gone"]),
        proptest::sample::select(vec!["on", "off"]),
    );
    let needed = needed.prop_map(|(flag, variant)| Prerequisite {
        flag: flag.to_owned(),
        variant: variant.to_owned(),
    });
    (
        proptest::sample::select(vec!["f", "g"]),
        proptest::collection::vec(any_rule(), 0..5),
        proptest::collection::vec(needed, 0..2),
        any::<(bool, bool)>(),
    )
        .prop_map(
            |(key, rules, prerequisites, (enabled, tenant_overridable))| FlagDefinition {
                rules,
                prerequisites,
                enabled,
                tenant_overridable,
                ..FlagDefinition::boolean(key, "")
            },
        )
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let attributes = proptest::collection::btree_map("[abc]|role|plan", any_json(), 0..4);
    (proptest::option::of("[a-z]{1,4}"), attributes).prop_map(|(key, attributes)| Subject {
        key,
        role: None,
        attributes: attributes.into_iter().collect(),
    })
}

fn visible() -> FlagDefinition {
    FlagDefinition {
        client_visible: true,
        ..boolean()
    }
}

fn slug_in(slugs: &[&str]) -> Condition {
    Condition::attribute(
        "tenant_slug",
        Comparator::In,
        slugs.iter().map(|slug| (*slug).into()),
    )
}

fn segment(when: Vec<Condition>) -> Segment {
    Segment {
        key: "s".into(),
        description: String::new(),
        when,
        version: 1,
    }
}

/// What a tenant is told changes with what concerns it, and with nothing else.
#[test]
fn a_fingerprint_changes_only_with_what_concerns_its_tenant() {
    let country = || Condition::attribute("country", Comparator::In, ["de".into()]);
    // A user of another tenant, say.
    let user = || Condition::attribute("user_id", Comparator::In, ["bob".into()]);
    let on = || FlagRule::variant(Level::Tenant, "on");
    let scheduled = |condition| FlagRule {
        from: Some(now() - Duration::hours(1)),
        description: "for them".into(),
        ..on().when(condition)
    };
    let with = |flags: Vec<FlagDefinition>, segments: Vec<Segment>| {
        set_in(tenant(1), flags, segments, &[]).fingerprint(now())
    };
    let plain = with(vec![visible()], Vec::new());
    let not_in_segment = Condition::Segment {
        segment: "s".into(),
        negate: true,
    };
    let not_about_it = [
        visible().with_rule(on().when(slug_in(&["tenant-2"]))),
        visible().with_rule(on().when(slug_in(&["tenant-2", "tenant-3"]))),
        visible().with_rule(on().when(slug_in(&["tenant-2"])).when(country())),
        visible().with_rule(on().when(slug_in(&["tenant-2"])).when(user())),
        visible().with_rule(scheduled(slug_in(&["tenant-2"]))),
        FlagDefinition {
            version: 7,
            owner: Some("us".into()),
            expires_at: Some(now()),
            ..visible()
        },
    ];
    for flag in not_about_it {
        assert_eq!(with(vec![flag.clone()], Vec::new()), plain, "{flag:?}");
    }
    let by_segment = |condition: Condition, when: Vec<Condition>| {
        with(
            vec![visible().with_rule(on().when(condition))],
            vec![segment(when)],
        )
    };
    assert_eq!(
        by_segment(Condition::segment("s"), vec![slug_in(&["tenant-2"]), country()]),
        plain
    );
    let hidden = FlagDefinition {
        key: "hidden".into(),
        ..boolean()
    };
    assert_eq!(with(vec![visible(), hidden.with_rule(on())], Vec::new()), plain);

    // Which others a rule is about that is about this one too.
    let about_it = |slugs: &[&str]| with(vec![visible().with_rule(on().when(slug_in(slugs)))], Vec::new());
    assert_eq!(about_it(&["tenant-1"]), about_it(&["tenant-1", "tenant-2"]));
    let not_in = |slugs: &[&str]| by_segment(not_in_segment.clone(), vec![slug_in(slugs), country()]);
    assert_eq!(not_in(&["tenant-1"]), not_in(&["tenant-3", "tenant-1"]));
    // For this tenant that is a rule without a condition.
    assert_eq!(not_in(&["tenant-2"]), about_it(&["tenant-1"]));

    let changed = [
        plain,
        about_it(&["tenant-1"]),
        not_in(&["tenant-1"]),
        with(
            vec![visible().with_rule(scheduled(slug_in(&["tenant-1"])))],
            Vec::new(),
        ),
        with(vec![visible().with_rule(on().when(country()))], Vec::new()),
        with(
            vec![FlagDefinition {
                enabled: false,
                ..visible()
            }],
            Vec::new(),
        ),
        with(
            vec![FlagDefinition {
                description: "another".into(),
                ..visible()
            }],
            Vec::new(),
        ),
        with(Vec::new(), Vec::new()),
        set_in(tenant(2), vec![visible()], Vec::new(), &[]).fingerprint(now()),
        set_in(tenant(1), vec![visible()], Vec::new(), &[("f", "on")]).fingerprint(now()),
    ];
    for (index, one) in changed.iter().enumerate() {
        assert!(!changed[..index].contains(one), "{index}");
    }
}

/// A flag that is not shown counts where one that is shown depends on it.
#[test]
fn a_fingerprint_follows_prerequisites() {
    let with = |base: FlagDefinition| {
        let needs = vec![Prerequisite {
            flag: "base".into(),
            variant: "on".into(),
        }];
        let flag = FlagDefinition {
            prerequisites: needs,
            ..visible()
        };
        set_in(tenant(1), vec![flag, base], Vec::new(), &[]).fingerprint(now())
    };
    let base = || FlagDefinition::boolean("base", "");
    let rule = |slug| FlagRule::variant(Level::Tenant, "on").when(slug_in(&[slug]));
    assert_eq!(with(base()), with(base().with_rule(rule("tenant-2"))));
    assert_ne!(with(base()), with(base().with_rule(rule("tenant-1"))));
}

#[test]
fn a_rule_about_another_tenant_changes_no_reason() {
    let rule = |slug| FlagRule::variant(Level::Tenant, "on").when(slug_in(&[slug]));
    let reason = |flag| of(&set(flag), &Subject::default()).1;
    assert_eq!(reason(boolean()), Reason::Static);
    assert_eq!(reason(boolean().with_rule(rule("tenant-2"))), Reason::Static);
    assert_eq!(
        reason(boolean().with_rule(rule("tenant-1"))),
        Reason::TargetingMatch
    );
}

#[test]
fn a_split_by_a_number_takes_5_and_5_0_for_one() {
    let set = set(colours().with_rule(split(Some("account"), &[("global", 5_000), ("plan", 5_000)])));
    for number in 0..100 {
        let subject = |value: serde_json::Value| Subject::default().with("account", value);
        let whole = of(&set, &subject(json!(number)));
        assert_eq!(whole, of(&set, &subject(json!(f64::from(number)))));
        assert_eq!(whole, of(&set, &subject(json!(number.to_string()))));
    }
    assert_eq!(
        of(&set, &Subject::default().with("account", 5.5)).1,
        Reason::Default
    );
}

proptest! {
    /// Whatever is stored and whatever is sent: no panic, the same answer each time, and an explanation that agrees.
    #[test]
    fn evaluation_is_total_and_deterministic_and_its_explanation_agrees(
        flags in proptest::collection::vec(any_flag(), 1..3),
        segment in proptest::collection::vec(any_condition(), 0..3),
        subject in any_subject(),
        chosen in proptest::option::of(proptest::sample::select(vec!["on", "off", "gone"])),
    ) {
        // A segment within itself is refused when it is written.
        let when = segment.into_iter().filter(|one| matches!(one, Condition::Attribute { .. })).collect();
        let segment = Segment { key: "s".into(), description: String::new(), when, version: 1 };
        let chosen: Vec<_> = chosen.into_iter().map(|variant| ("f", variant)).collect();
        let set = set_in(tenant(7), flags.clone(), vec![segment.clone()], &chosen);
        let again = set_in(tenant(7), flags, vec![segment], &chosen);
        for key in ["f", "g", "gone"] {
            let first = set.evaluate(key, &subject, now());
            prop_assert_eq!(first, again.evaluate(key, &subject, now()));
            let explained = set.explain(key, &subject, now());
            prop_assert_eq!(
                first.map(|one| (one.variant.to_owned(), one.reason, one.level)),
                explained.map(|one| (one.variant, one.reason, one.level))
            );
        }
        prop_assert_eq!(set.fingerprint(now()), again.fingerprint(now()));
    }

    /// What no rule asks for makes no difference.
    #[test]
    fn attributes_that_no_rule_names_change_nothing(flag in any_flag(), subject in any_subject(), other in any_json()) {
        let set = set_in(tenant(7), vec![flag], Vec::new(), &[]);
        let more = subject.clone().with("nobody-asks", other);
        for key in ["f", "g"] {
            prop_assert_eq!(set.evaluate(key, &subject, now()), set.evaluate(key, &more, now()));
        }
    }

    /// Raising a percentage turns nobody off.
    #[test]
    fn a_rollout_that_grows_turns_nobody_off(
        low in 0..=10_000_u16, high in 0..=10_000_u16, number in any::<u128>(), user in "[a-z]{1,8}",
        by in proptest::sample::select(vec![None, Some("tenant"), Some("user")]),
    ) {
        let (low, high) = (low.min(high), low.max(high));
        let on = |points| {
            let flag = boolean().with_rule(FlagRule::rollout(Level::Global, "on", share(points), by));
            set_in(tenant(number), vec![flag], Vec::new(), &[]).is_on("f", &Subject::of(user.clone()), now())
        };
        prop_assert!(!on(low) || on(high));
    }

    /// A part of a split that grows keeps everybody it had, whoever had a variant still has one, and nobody of the parts
    /// before it moves. When it is the last one, nobody moves at all.
    #[test]
    fn a_part_that_grows_keeps_everybody_it_had(
        parts in proptest::collection::vec(0..=3_000_u16, 3), growth in 0..=1_000_u16, grows in 0_usize..3, number in any::<u128>(),
    ) {
        let names = ["global", "plan", "tenant"];
        let of = |parts: &[u16]| {
            let parts: Vec<_> = names.into_iter().zip(parts.iter().copied()).collect();
            let set = set_in(tenant(number), vec![colours().with_rule(split(Some("tenant"), &parts))], Vec::new(), &[]);
            super::tests::of(&set, &Subject::default()).0
        };
        let before = of(&parts);
        let mut grown = parts.clone();
        grown[grows] += growth;
        let after = of(&grown);
        prop_assert!(before == "none" || after != "none");
        if let Some(place) = names.iter().position(|name| *name == before) && (place <= grows || grows == 2) {
            prop_assert_eq!(before, after);
        }
    }
}
