//! What evaluating flags costs: `make bench`, or `cargo bench -p tenantry-domain --bench flags`.
//!
//! The flags are such as a product has: a third on for everybody by a rule, a third in a rollout by tenant or user, a
//! third behind conditions on plan and attributes, one in ten of them behind another flag.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tenantry_domain::flags::{
    Comparator, Condition, FlagDefinition, FlagRule, FlagSet, FlagTenant, Prerequisite, Share, Subject,
};
use tenantry_domain::kernel::{Level, Role, TenantId, Time};

fn flags() -> Vec<FlagDefinition> {
    (0..100).map(flag).collect()
}

fn flag(number: u16) -> FlagDefinition {
    let mut flag = FlagDefinition::boolean(&format!("flag-{number:03}"), "A flag of a product");
    flag.client_visible = true;
    if number % 10 == 9 {
        let needed = Prerequisite {
            flag: format!("flag-{:03}", number - 1),
            variant: "on".to_owned(),
        };
        flag.prerequisites.push(needed);
    }
    let share = Share::of_percent(f64::from(number)).unwrap_or_default();
    let by = number.is_multiple_of(2).then_some("tenant");
    match number % 3 {
        0 => flag.with_rule(FlagRule::variant(Level::Global, "on")),
        1 => flag.with_rule(FlagRule::rollout(Level::Global, "on", share, by)),
        _ => {
            let pro = Condition::attribute("plan", Comparator::In, ["pro".into(), "business".into()]);
            let country =
                Condition::attribute("country", Comparator::In, ["de".into(), "at".into(), "ch".into()]);
            let version = Condition::attribute("app_version", Comparator::SemverAtLeast, ["2.4.0".into()]);
            flag.with_rule(FlagRule::variant(Level::Plan, "on").when(pro))
                .with_rule(
                    FlagRule::rollout(Level::User, "on", share, None)
                        .when(country)
                        .when(version),
                )
        }
    }
}

fn measure(criterion: &mut Criterion) {
    let tenant = TenantId::from(uuid::Uuid::from_u128(0x0198_f3a2_6c1e_7c3a_9d55_0d9f_6b1f_2a11));
    let set = FlagSet::of_code(&flags(), FlagTenant::new(tenant, "acme", "pro"));
    let subject = Subject::of("0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12")
        .with("country", "de")
        .with("app_version", "2.10.1");
    let now = Time::UNIX_EPOCH;
    for (name, key) in [
        ("a rule", "flag-000"),
        ("a rollout", "flag-010"),
        ("conditions and a rollout", "flag-050"),
    ] {
        criterion.bench_function(&format!("one flag: {name}"), |bencher| {
            bencher.iter(|| black_box(set.is_on(black_box(key), &subject, now)));
        });
    }
    criterion.bench_function("all of 100 flags", |bencher| {
        bencher.iter(|| {
            let visible = set.evaluate_visible(Some(Role::Viewer), &subject, now);
            black_box(
                visible
                    .filter(|flag| flag.value == &serde_json::Value::Bool(true))
                    .count(),
            )
        });
    });
}

criterion_group!(benches, measure);
criterion_main!(benches);
