use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::kernel::{Limit, Price, Reset};
use tenantry_domain::tenant::Slug;
use tenantry_domain::usage::{Meter, MeterKey, MeterTerms, Meters, OveragePrice, PLAN_KEY_RULE, is_plan_key};

use crate::plans::Plan;
use crate::plans::offered::grace_days;

/// The plans on offer, in the order of their file. The form of the file is explained in `config/plans.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans {
    plans: Vec<Plan>,
    default: String,
    meters: Meters,
}

impl Plans {
    /// The catalogue in a TOML text.
    ///
    /// # Errors
    /// At the first thing that does not hold, naming plan and key.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let file: toml::Table = text
            .parse()
            .map_err(|error| PlanError::Syntax(format!("{error}")))?;
        let mut defaults = Vec::new();
        let mut plans: Vec<Plan> = Vec::new();
        let File {
            plans: entries,
            meters,
        } = entries(file)?;
        let meters = read_meters(meters)?;
        for (place, entry) in entries.into_iter().enumerate() {
            let label = label(place, &entry, "name");
            let (plan, default) = read(&label, entry)?;
            if plans.iter().any(|other| other.name == plan.name) {
                return Err(invalid(&label, "name", "another plan has that name"));
            }
            if default {
                defaults.push(plan.name.clone());
            }
            plans.push(plan);
        }
        same_limits(&plans)?;
        same_meters(&plans, &meters)?;
        match <[String; 1]>::try_from(defaults) {
            Ok([default]) => Ok(Self {
                plans,
                default,
                meters,
            }),
            Err(defaults) => Err(PlanError::Default(defaults)),
        }
    }

    /// The catalogue that is compiled in: `config/plans.toml`.
    ///
    /// # Panics
    /// Never: a test reads the same file.
    pub fn standard() -> Self {
        Self::parse(include_str!("../../../../config/plans.toml")).expect("config/plans.toml holds")
    }

    /// The plan of those who choose none.
    pub fn default_plan(&self) -> &str {
        &self.default
    }

    /// Everything that is metered.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The same plans with what a deployment says otherwise of some of them.
    ///
    /// # Errors
    /// For a plan or a limit that is not there, and a feature whose name does not hold, naming it.
    pub fn overridden(mut self, overrides: &BTreeMap<String, PlanOverride>) -> Result<Self, PlanError> {
        for (name, said) in overrides {
            let plan = self.plans.iter_mut().find(|plan| plan.name == *name);
            let plan = plan.ok_or_else(|| invalid(name, "name", "there is no such plan"))?;
            for (limit, allowed) in &said.limits {
                let known = plan.limits.get_mut(limit);
                let known = known.ok_or_else(|| {
                    invalid(
                        name,
                        format!("limits.{limit}"),
                        "there is no such limit in the catalogue",
                    )
                })?;
                *known = *allowed;
            }
            if let Some(names) = &said.features {
                plan.features = features(name, names.clone())?;
            }
        }
        Ok(self)
    }

    /// All plans, in order.
    pub fn into_all(self) -> Vec<Plan> {
        self.plans
    }

    /// All plans, in order.
    pub fn all(&self) -> &[Plan] {
        &self.plans
    }

    /// The plan of that name.
    pub fn get(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.name == name)
    }
}

/// What a deployment says otherwise of a plan; what is absent stays as the catalogue has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanOverride {
    /// Limits, by name.
    pub limits: BTreeMap<String, Limit>,
    /// All features of the plan.
    pub features: Option<Vec<String>>,
}

/// Why a text is not a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not TOML; where and why.
    #[error("the plans are not TOML: {0}")]
    Syntax(String),
    /// Something other than `[[plan]]` and `[[meter]]` at the top.
    #[error("{0}: only [[plan]] and [[meter]] are known at the top of the plans")]
    Top(String),
    /// A key of a plan.
    #[error("plan {plan}, {key}: {problem}")]
    Invalid {
        /// The plan's name, or its place (`#1` is the first) where it has none.
        plan: String,
        /// The key, as a path: `prices[0].amount`.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The definition of a meter does not hold.
    #[error("meter {meter}, {key}: {problem}")]
    Meter {
        /// The meter's key, or its place (`#1` is the first) where it has none.
        meter: String,
        /// The key in its definition that is wrong.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// Not exactly one plan is the default; the names of those that are.
    #[error("exactly one plan must say 'default = true'; now these do: [{}]", .0.join(", "))]
    Default(Vec<String>),
}

/// A plan as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    title: String,
    description: String,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    prices: Vec<Price>,
    limits: BTreeMap<String, Limit>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    settings: BTreeMap<String, Value>,
    #[serde(default)]
    meters: BTreeMap<MeterKey, MeterTerms>,
    #[serde(default)]
    trial_days: u32,
    #[serde(default = "grace_days")]
    grace_days: u32,
    #[serde(default)]
    signup: bool,
}

/// What stands at the top of the file.
struct File {
    plans: Vec<toml::Value>,
    meters: Vec<toml::Value>,
}

fn invalid(plan: &str, key: impl Into<String>, problem: impl Into<String>) -> PlanError {
    PlanError::Invalid {
        plan: plan.into(),
        key: key.into(),
        problem: problem.into(),
    }
}

/// What stands under `[[plan]]` and `[[meter]]`; nothing else may stand beside it.
fn entries(file: toml::Table) -> Result<File, PlanError> {
    let (mut plans, mut meters) = (Vec::new(), Vec::new());
    for (key, value) in file {
        match value {
            toml::Value::Array(values) if key == "plan" => plans = values,
            toml::Value::Array(values) if key == "meter" => meters = values,
            _ => return Err(PlanError::Top(key)),
        }
    }
    Ok(File { plans, meters })
}

fn read_meters(entries: Vec<toml::Value>) -> Result<Meters, PlanError> {
    let mut meters = Meters::new();
    for (place, entry) in entries.into_iter().enumerate() {
        let label = label(place, &entry, "key");
        let fail = |key: &str, problem: &str| PlanError::Meter {
            meter: label.clone(),
            key: key.to_owned(),
            problem: problem.to_owned(),
        };
        let meter: Meter = serde_path_to_error::deserialize(entry).map_err(|error| {
            let path = error.path().to_string();
            let key = if path == "." { "the whole" } else { &path };
            fail(key, error.inner().message())
        })?;
        for (key, text) in [("title", &meter.title), ("unit", &meter.unit)] {
            if text.trim().is_empty() {
                return Err(fail(key, "must not be empty"));
            }
        }
        if meters.insert(meter.key.clone(), Arc::new(meter)).is_some() {
            return Err(fail("key", "another meter has that key"));
        }
    }
    Ok(meters)
}

/// How messages call an entry that may not even have a name.
fn label(place: usize, entry: &toml::Value, name: &str) -> String {
    match entry.get(name).and_then(toml::Value::as_str) {
        Some(name) => name.to_owned(),
        None => format!("#{}", place + 1),
    }
}

/// The plan of an entry, and whether it is the default.
fn read(label: &str, entry: toml::Value) -> Result<(Plan, bool), PlanError> {
    let entry: Entry = serde_path_to_error::deserialize(entry).map_err(|error| {
        let path = error.path().to_string();
        let key = if path == "." { "the whole".to_owned() } else { path };
        invalid(label, key, error.inner().message())
    })?;
    if Slug::parse(&entry.name).is_none() {
        return Err(invalid(
            label,
            "name",
            "must be 3 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'",
        ));
    }
    for (key, text) in [("title", &entry.title), ("description", &entry.description)] {
        if text.trim().is_empty() {
            return Err(invalid(label, key, "must not be empty"));
        }
    }
    check_prices(label, &entry.prices)?;
    if let Some(limit) = entry.limits.keys().find(|limit| !is_plan_key(limit)) {
        return Err(invalid(label, format!("limits.{limit}"), PLAN_KEY_RULE));
    }
    let features = features(label, entry.features)?;
    check_meters(label, &entry.meters)?;
    if entry.trial_days > 730 {
        return Err(invalid(label, "trial_days", "must be in 0..=730"));
    }
    if entry.grace_days > 365 {
        return Err(invalid(label, "grace_days", "must be in 0..=365"));
    }
    if entry.signup && !entry.prices.is_empty() {
        let problem = "must not be true of a plan with a price, which is open to those who pay";
        return Err(invalid(label, "signup", problem));
    }
    let Entry {
        name,
        title,
        description,
        default,
        prices,
        limits,
        settings,
        meters,
        trial_days,
        grace_days,
        signup,
        ..
    } = entry;
    Ok((
        Plan {
            name,
            title,
            description,
            prices,
            limits,
            features,
            settings,
            meters,
            trial_days,
            grace_days,
            open_to_signup: signup,
        },
        default,
    ))
}

fn check_prices(label: &str, prices: &[Price]) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for (place, price) in prices.iter().enumerate() {
        if price.amount < 0 {
            return Err(invalid(
                label,
                format!("prices[{place}].amount"),
                "must not be negative",
            ));
        }
        if !seen.insert((&price.currency, price.interval)) {
            let problem = format!(
                "a second price in {} for a {}",
                price.currency,
                price.interval.as_str()
            );
            return Err(invalid(label, format!("prices[{place}]"), problem));
        }
    }
    Ok(())
}

fn check_meters(label: &str, meters: &BTreeMap<MeterKey, MeterTerms>) -> Result<(), PlanError> {
    for (meter, terms) in meters {
        let fail = |key: &str, problem: &str| invalid(label, format!("meters.{meter}.{key}"), problem);
        if terms.included.exceeds(terms.limit) {
            return Err(fail("included", "must not be more than limit"));
        }
        let mut seen = BTreeSet::new();
        for (place, price) in terms.overage.iter().enumerate() {
            let OveragePrice {
                currency,
                amount,
                per,
            } = price;
            if *amount < 0 {
                return Err(fail(&format!("overage[{place}].amount"), "must not be negative"));
            }
            if *per == 0 {
                return Err(fail(&format!("overage[{place}].per"), "must be at least 1"));
            }
            if !seen.insert(currency) {
                return Err(fail(
                    &format!("overage[{place}]"),
                    &format!("a second price in {currency}"),
                ));
            }
        }
    }
    Ok(())
}

/// As with limits, what only some plans state could be read in two ways.
fn same_meters(plans: &[Plan], meters: &Meters) -> Result<(), PlanError> {
    for plan in plans {
        if let Some(unknown) = plan.meters.keys().find(|meter| !meters.contains_key(*meter)) {
            let problem = "there is no such [[meter]]";
            return Err(invalid(&plan.name, format!("meters.{unknown}"), problem));
        }
        if let Some(missing) = meters.keys().find(|meter| !plan.meters.contains_key(*meter)) {
            let problem = "is missing, but there is such a [[meter]]";
            return Err(invalid(&plan.name, format!("meters.{missing}"), problem));
        }
        // Overage is billed by the month, so what is included has to be, too.
        let is_monthly = |key: &MeterKey| {
            let meter = meters.get(key);
            meter.is_none_or(|meter| meter.reset == Reset::BillingCycle)
        };
        let mut charged = plan.meters.iter().filter(|(_, terms)| !terms.overage.is_empty());
        if let Some((key, _)) = charged.find(|(key, _)| !is_monthly(key)) {
            let problem = "needs a meter that begins again with the billing cycle";
            return Err(invalid(&plan.name, format!("meters.{key}.overage"), problem));
        }
    }
    Ok(())
}

fn features(label: &str, names: Vec<String>) -> Result<BTreeSet<String>, PlanError> {
    let mut features = BTreeSet::new();
    for (place, name) in names.into_iter().enumerate() {
        let key = format!("features[{place}]");
        if !is_plan_key(&name) {
            return Err(invalid(label, key, PLAN_KEY_RULE));
        }
        if let Some(twice) = features.replace(name) {
            return Err(invalid(label, key, format!("'{twice}' is there twice")));
        }
    }
    Ok(features)
}

/// A limit that only some plans state would mean "none" to one reader and "unlimited" to another.
fn same_limits(plans: &[Plan]) -> Result<(), PlanError> {
    let all: BTreeSet<&String> = plans.iter().flat_map(|plan| plan.limits.keys()).collect();
    for plan in plans {
        if let Some(missing) = all.iter().find(|limit| !plan.limits.contains_key(**limit)) {
            let problem = "is missing, but another plan states it";
            return Err(invalid(&plan.name, format!("limits.{missing}"), problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenantry_domain::kernel::{Currency, Interval};

    fn names(plans: &Plans) -> Vec<&str> {
        plans.all().iter().map(|plan| plan.name.as_str()).collect()
    }

    const TWO: &str = r#"
        [[plan]]
        name = "one"
        title = "One"
        description = "The first."
        default = true
        features = ["sso"]
        limits = { users = 5, projects = "unlimited" }
        prices = [
            { amount = 100, currency = "usd", interval = "month" },
            { amount = 0, currency = "eur", interval = "year" },
        ]

        [[plan]]
        name = "two"
        title = "Two"
        description = "The second."
        limits = { users = 0, projects = 7 }
    "#;

    #[test]
    fn the_standard_catalogue_holds() {
        let plans = Plans::standard();
        assert_eq!(names(&plans), ["free", "pro", "enterprise"]);
        assert_eq!(plans.default_plan(), "free");
        assert!(plans.get("pro").is_some() && plans.get("Pro").is_none() && plans.get("").is_none());

        let usd = Currency::try_from("usd".to_owned()).unwrap();
        let amount = |plan: &str, interval| {
            let mut prices = plans.get(plan)?.prices.iter();
            let price = prices.find(|price| price.currency == usd && price.interval == interval)?;
            Some(price.amount)
        };
        assert_eq!(amount("free", Interval::Month), None);
        assert_eq!(
            (amount("pro", Interval::Month), amount("pro", Interval::Year)),
            (Some(2900), Some(29000))
        );
        assert_eq!(amount("enterprise", Interval::Month), Some(19900));
        assert_eq!(amount("enterprise", Interval::Year), Some(199000));

        let limits = [
            "domains",
            "projects",
            "requests_burst",
            "requests_per_minute",
            "storage_bytes",
            "usage_events_per_day",
            "user_requests_burst",
            "user_requests_per_minute",
            "users",
            "webhook_endpoints",
        ];
        for plan in plans.all() {
            assert_eq!(plan.limits.keys().collect::<Vec<_>>(), limits, "{}", plan.name);
        }
        assert_eq!(
            plans.get("enterprise").unwrap().limit("users"),
            Some(Limit::Unlimited)
        );
        assert!(plans.get("enterprise").unwrap().has("branding"));
        assert!(!plans.get("free").unwrap().has("branding"));
    }

    #[test]
    fn reads_what_is_written_in_order() {
        let plans = Plans::parse(TWO).unwrap();
        assert_eq!(names(&plans), ["one", "two"]);
        assert_eq!(plans.default_plan(), "one");
        let one = plans.get("one").unwrap();
        assert_eq!(
            (one.limit("users"), one.limit("projects")),
            (Some(Limit::Of(5)), Some(Limit::Unlimited))
        );
        assert_eq!(one.limit("other"), None);
        assert_eq!(one.prices.len(), 2);
        assert!(plans.get("two").unwrap().prices.is_empty());
    }

    /// What is changed in the text above, and the plan, key and problem that the error must name.
    #[test]
    fn every_mistake_is_refused_by_plan_and_key() {
        for (from, to, plan, key, problem) in [
            (r#"name = "two""#, "", "#2", "the whole", "missing field `name`"),
            (r#"name = "two""#, "name = 2", "#2", "name", "expected a string"),
            (
                r#"name = "two""#,
                r#"name = "Two""#,
                "Two",
                "name",
                "must be 3 to 63",
            ),
            (
                r#"name = "two""#,
                r#"name = "-two""#,
                "-two",
                "name",
                "must be 3 to 63",
            ),
            (
                r#"name = "two""#,
                r#"name = "one""#,
                "one",
                "name",
                "another plan has that name",
            ),
            (
                r#"title = "Two""#,
                "",
                "two",
                "the whole",
                "missing field `title`",
            ),
            (
                r#"title = "Two""#,
                r#"title = " ""#,
                "two",
                "title",
                "must not be empty",
            ),
            ("The second.", "", "two", "description", "must not be empty"),
            (
                r#"title = "Two""#,
                "title = \"Two\"\ncolour = 1",
                "two",
                "colour",
                "unknown field `colour`",
            ),
            (
                "default = true",
                "default = 1",
                "one",
                "default",
                "expected a boolean",
            ),
            (
                "limits = { users = 0, projects = 7 }",
                "",
                "two",
                "the whole",
                "missing field `limits`",
            ),
            (
                "users = 0",
                "users = -1",
                "two",
                "limits.users",
                "not negative, or \"unlimited\"",
            ),
            (
                "users = 0",
                "users = 1.5",
                "two",
                "limits.users",
                "not negative, or \"unlimited\"",
            ),
            (
                "users = 0",
                r#"users = "many""#,
                "two",
                "limits.users",
                "not negative, or \"unlimited\"",
            ),
            (
                "users = 0, ",
                "",
                "two",
                "limits.users",
                "is missing, but another plan states it",
            ),
            (
                "users = 0",
                "users = 0, seats = 1",
                "one",
                "limits.seats",
                "is missing, but another plan",
            ),
            ("users = 0", "Users = 0", "two", "limits.Users", "must be 1 to 63"),
            (
                "amount = 100",
                "amount = -1",
                "one",
                "prices[0].amount",
                "must not be negative",
            ),
            (
                "amount = 100",
                "amount = 1.5",
                "one",
                "prices[0].amount",
                "expected i64",
            ),
            ("amount = 100, ", "", "one", "prices[0]", "missing field `amount`"),
            (
                "\"usd\"",
                "\"USD\"",
                "one",
                "prices[0].currency",
                "'USD' is not a currency",
            ),
            (
                "\"usd\"",
                "\"dollar\"",
                "one",
                "prices[0].currency",
                "'dollar' is not a currency",
            ),
            (
                "\"month\"",
                "\"week\"",
                "one",
                "prices[0].interval",
                "must be one of `month`, `year`",
            ),
            (
                "amount = 100",
                "amount = 100, tax = 1",
                "one",
                "prices[0].tax",
                "unknown field `tax`",
            ),
            (
                "\"eur\", interval = \"year\"",
                "\"usd\", interval = \"month\"",
                "one",
                "prices[1]",
                "a second price in usd for a month",
            ),
            (
                "default = true",
                "default = true\nsignup = true",
                "one",
                "signup",
                "must not be true of a plan with a price",
            ),
            ("\"sso\"", "\"SSO\"", "one", "features[0]", "must be 1 to 63"),
            ("\"sso\"", "\"\"", "one", "features[0]", "must be 1 to 63"),
            (
                "\"sso\"",
                "\"sso\", \"sso\"",
                "one",
                "features[1]",
                "'sso' is there twice",
            ),
            ("\"sso\"", "7", "one", "features[0]", "expected a string"),
        ] {
            let text = TWO.replacen(from, to, 1);
            assert_ne!(text, TWO, "{from}");
            match Plans::parse(&text) {
                Err(PlanError::Invalid {
                    plan: p,
                    key: k,
                    problem: why,
                }) => {
                    assert_eq!((p.as_str(), k.as_str()), (plan, key), "{to}: {why}");
                    assert!(why.contains(problem), "{to}: {why}");
                }
                other => panic!("{to}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_charged_is_counted_by_the_month() {
        let standard = include_str!("../../../../config/plans.toml");
        let daily = standard.replacen("reset = \"billing_cycle\"", "reset = \"day\"", 1);
        assert_eq!(
            Plans::parse(&daily),
            Err(invalid(
                "pro",
                "meters.api_calls.overage",
                "needs a meter that begins again with the billing cycle"
            ))
        );
    }

    #[test]
    fn exactly_one_plan_is_the_default() {
        let none = TWO.replace("default = true", "default = false");
        assert_eq!(Plans::parse(&none), Err(PlanError::Default(vec![])));
        assert_eq!(Plans::parse(""), Err(PlanError::Default(vec![])));
        let both = TWO.replace(r#"title = "Two""#, "title = \"Two\"\ndefault = true");
        let error = Plans::parse(&both).unwrap_err();
        assert_eq!(error, PlanError::Default(vec!["one".into(), "two".into()]));
        assert!(error.to_string().ends_with("[one, two]"));
    }

    #[test]
    fn only_plans_stand_at_the_top() {
        for (text, key) in [
            ("plans = []", "plans"),
            ("plan = 1", "plan"),
            ("[plan]\nname = \"x\"", "plan"),
        ] {
            assert_eq!(Plans::parse(text), Err(PlanError::Top(key.into())), "{text}");
        }
        let more = format!("currency = \"usd\"\n{TWO}");
        assert_eq!(Plans::parse(&more), Err(PlanError::Top("currency".into())));
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_place() {
        for text in ["[[plan", "name == 1", "[[plan]]\nname = \"a\"\nname = \"b\""] {
            assert!(matches!(Plans::parse(text), Err(PlanError::Syntax(_))), "{text}");
        }
        let error = Plans::parse("\n\nx = ").unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }

    #[test]
    fn an_error_reads_well() {
        let error = invalid("pro", "prices[0].amount", "must not be negative");
        assert_eq!(
            error.to_string(),
            "plan pro, prices[0].amount: must not be negative"
        );
    }
}
