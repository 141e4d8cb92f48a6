//! The same flags evaluated by Tenantry and by Yggdrasil, the evaluator inside of Unleash's SDKs: `make bench`.
//!
//! Both have a hundred flags defined, are asked for one by its key, and get the user and their attributes ready made.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use tenantry_domain::flags::{
    Comparator, Condition, FlagDefinition, FlagRule, FlagSet, FlagTenant, Share, Subject,
};
use tenantry_domain::kernel::{Level, TenantId, Time};
use unleash_yggdrasil::{ClientFeatures, Context, EngineState};

const FLAGS: usize = 100;
const USERS: usize = 1_000;
const PERCENT: f64 = 20.0;
const COUNTRIES: [&str; 3] = ["de", "at", "ch"];

fn key(number: usize) -> String {
    format!("flag-{number:03}")
}

/// Even flags are a rollout by user, odd ones the same for some countries only.
fn is_conditional(number: usize) -> bool {
    !number.is_multiple_of(2)
}

fn tenantry() -> FlagSet {
    let flag = |number| {
        let share = Share::of_percent(PERCENT).expect("20 is a percentage");
        let rule = FlagRule::rollout(Level::Global, "on", share, Some("user"));
        let rule = if is_conditional(number) {
            let values = COUNTRIES.map(serde_json::Value::from);
            rule.when(Condition::attribute("country", Comparator::In, values))
        } else {
            rule
        };
        FlagDefinition::boolean(&key(number), "").with_rule(rule)
    };
    let tenant = TenantId::from(uuid::Uuid::from_u128(0x0198_f3a2_6c1e_7c3a_9d55_0d9f_6b1f_2a11));
    let flags: Vec<_> = (0..FLAGS).map(flag).collect();
    FlagSet::of_code(&flags, FlagTenant::new(tenant, "acme", "pro"))
}

fn unleash() -> EngineState {
    let feature = |number| {
        let constraints = if is_conditional(number) {
            json!([{"contextName": "country", "operator": "IN", "values": COUNTRIES}])
        } else {
            json!([])
        };
        json!({
            "name": key(number), "type": "release", "enabled": true,
            "strategies": [{
                "name": "flexibleRollout", "constraints": constraints,
                "parameters": {"rollout": "20", "stickiness": "userId", "groupId": key(number)},
            }],
        })
    };
    let features: Vec<_> = (0..FLAGS).map(feature).collect();
    let features: ClientFeatures =
        serde_json::from_value(json!({"version": 2, "features": features})).expect("Unleash's own format");
    let engine = EngineState::initial_state(Time::UNIX_EPOCH);
    let warnings = engine.apply_client_features(features);
    assert!(warnings.is_none(), "{warnings:?}");
    engine
}

fn user(number: usize) -> String {
    format!("0198f3a2-6c1e-7c3a-9d55-{number:012x}")
}

fn subject(number: usize) -> Subject {
    Subject::of(&user(number)).with("country", "de")
}

fn context(number: usize) -> Context {
    Context {
        user_id: Some(user(number)),
        session_id: None,
        environment: None,
        app_name: None,
        current_time: None,
        remote_address: None,
        properties: Some([("country".to_owned(), "de".to_owned())].into()),
    }
}

/// Both must do the work that is measured: about a fifth of the users has each flag, and nobody abroad the second.
fn check(set: &FlagSet, engine: &EngineState) {
    for key in [key(10), key(11)] {
        let ours = (0..USERS).filter(|&number| set.is_on(&key, &subject(number), Time::UNIX_EPOCH));
        let theirs = (0..USERS).filter(|&number| engine.is_enabled(&key, &context(number), &None));
        for share in [ours.count(), theirs.count()] {
            assert!(
                (USERS * 16 / 100..=USERS * 24 / 100).contains(&share),
                "{key}: {share}"
            );
        }
    }
    let abroad = |number| Subject::of(&user(number)).with("country", "fr");
    let abroad_there = |number| Context {
        properties: Some([("country".to_owned(), "fr".to_owned())].into()),
        ..context(number)
    };
    assert!(!(0..USERS).any(|number| set.is_on(&key(11), &abroad(number), Time::UNIX_EPOCH)));
    assert!(!(0..USERS).any(|number| engine.is_enabled(&key(11), &abroad_there(number), &None)));
}

fn measure(criterion: &mut Criterion) {
    let (set, engine) = (tenantry(), unleash());
    check(&set, &engine);
    let subjects: Vec<_> = (0..USERS).map(subject).collect();
    let contexts: Vec<_> = (0..USERS).map(context).collect();
    for (name, key) in [
        ("a rollout by user", key(10)),
        ("a condition and a rollout by user", key(11)),
    ] {
        let mut group = criterion.benchmark_group(name);
        group.bench_function("Tenantry", |bencher| {
            let mut subjects = subjects.iter().cycle();
            bencher.iter(|| {
                let subject = subjects.next().expect("a cycle has no end");
                black_box(set.is_on(black_box(&key), subject, Time::UNIX_EPOCH))
            });
        });
        group.bench_function("Unleash (Yggdrasil)", |bencher| {
            let mut contexts = contexts.iter().cycle();
            bencher.iter(|| {
                let context = contexts.next().expect("a cycle has no end");
                black_box(engine.is_enabled(black_box(&key), context, &None))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, measure);
criterion_main!(benches);
