use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::flags::{
    Condition, Share,
    bucket::WHOLE,
    flag_key::{KEY_RULE, check_key, is_key},
    segment::MAX_CONDITIONS,
};
use crate::kernel::{Check, Invalid, Level, Role, Time, name::named_enum, pointer_segment};

/// A feature flag as operators define it. The same type is its form in the database and on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagDefinition {
    /// Its name, for good: `^[a-z][a-z0-9._-]{0,63}$`.
    pub key: String,
    /// What it switches; up to 1,000 characters. Tenants who see the flag read it.
    #[serde(default)]
    pub description: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: FlagType,
    /// What it can be: names, and the value of each.
    pub variants: BTreeMap<String, Value>,
    /// The variant where no rule says anything.
    pub default_variant: String,
    /// The variant while it is switched off, and while a prerequisite does not hold.
    pub off_variant: String,
    /// What buckets are salted with; the key when absent. Another salt puts everybody elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it should have been taken out of the code. A reminder: nothing changes then, because a date in a form must
    /// not switch off what customers use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Where it is in its life.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// The kill switch: when false it is off for everybody, whatever else is said.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether a tenant's admin may choose the variant for their tenant.
    #[serde(default)]
    pub tenant_overridable: bool,
    /// Whether everybody of a tenant may read it, or only the code that runs here.
    #[serde(default)]
    pub client_visible: bool,
    /// All of these have to hold, or it is off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<Prerequisite>,
    /// Who gets what. The most specific level that says something wins; within a level the first rule that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<FlagRule>,
    /// Counts its versions, from 1.
    #[serde(default)]
    pub version: i64,
}

named_enum! {
    /// What the values of a flag are.
    pub enum FlagType {
        /// True or false.
        Boolean = "boolean",
        /// Text.
        String = "string",
        /// A whole number of 64 bits.
        Integer = "integer",
        /// A JSON number, whole or fractional.
        Number = "number",
        /// A JSON object.
        Object = "object",
    }
}

named_enum! {
    /// Where a flag is in its life.
    #[derive(Default)]
    pub enum Lifecycle {
        /// Not yet: off for everybody, and no tenant sees it.
        Draft = "draft",
        /// In use.
        #[default]
        Active = "active",
        /// In use, and to be taken out of the code.
        Deprecated = "deprecated",
        /// Out of use: for tenants it is not there any more, and code gets its own default.
        Archived = "archived",
    }
}

/// Another flag, and the variant it must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prerequisite {
    /// The other flag.
    pub flag: String,
    /// The variant that it must have for the same subject.
    pub variant: String,
}

/// Says who gets which variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagRule {
    /// How specific it is; not [`Level::Default`], which is what `default_variant` says.
    pub level: Level,
    /// What it is for; up to 1,000 characters. Tenants never see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// All of these hold for those it is about; with none of them it is about everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// From when on it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Until when it counts: at that moment no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// What they get.
    pub serve: Serve,
}

/// What those get that a rule is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenServe", into = "WrittenServe")]
pub enum Serve {
    /// All of them this variant.
    Variant(String),
    /// Parts of them different variants; whoever is in none of the parts is not matched by the rule.
    Split(Split),
}

/// A percentage rollout.
///
/// Ten thousand buckets are given to the parts in their order: the first gets the lowest. So a part that grows keeps
/// everybody it had, as long as those before it stay as they are, and a rollout that grows in sum turns nobody off.
/// Parts after the one that grows move; whoever wants none to move lets the last one grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// By what they are divided: `tenant`, `user`, or the name of an attribute. By user when absent, or by tenant where
    /// there is no user. Whoever lacks what they would be divided by is not matched: chance decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Shares of the subjects, in order; together at most all of them.
    pub parts: Vec<Part>,
}

/// A part of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What they get.
    pub variant: String,
    /// How many they are, in percent, with at most two decimal places.
    #[serde(serialize_with = "to_percent", deserialize_with = "of_percent")]
    pub percent: Share,
}

impl FlagType {
    /// Whether a value is of this type.
    pub fn holds(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Integer => value.is_i64(),
            Self::Number => value.is_number(),
            Self::Object => value.is_object(),
        }
    }
}

/// How much a definition may have of what. They bound what an evaluation can cost.
const MAX_VARIANTS: usize = 20;
const MAX_VALUE_BYTES: usize = 8_192;
const MAX_PREREQUISITES: usize = 10;
const MAX_RULES: usize = 50;

impl FlagDefinition {
    /// A boolean flag with the variants `on` and `off` that is off for everybody.
    ///
    /// Flags that come with the code are made like this, and given rules with [`Self::with_rule`].
    pub fn boolean(key: &str, description: &str) -> Self {
        let variants = [("on", Value::Bool(true)), ("off", Value::Bool(false))];
        Self::new(key, description, FlagType::Boolean, variants, "off")
    }

    /// A flag that has the variant `default` for everybody.
    pub fn new<'a>(
        key: &str,
        description: &str,
        kind: FlagType,
        variants: impl IntoIterator<Item = (&'a str, Value)>,
        default: &str,
    ) -> Self {
        Self {
            key: key.to_owned(),
            description: description.to_owned(),
            kind,
            variants: variants
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            default_variant: default.to_owned(),
            off_variant: default.to_owned(),
            salt: None,
            owner: None,
            expires_at: None,
            lifecycle: Lifecycle::Active,
            enabled: true,
            tenant_overridable: false,
            client_visible: false,
            prerequisites: Vec::new(),
            rules: Vec::new(),
            version: 1,
        }
    }

    /// The same with another rule, behind those it has.
    #[must_use]
    pub fn with_rule(mut self, rule: FlagRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// What buckets are salted with.
    pub fn salt(&self) -> &str {
        self.salt.as_deref().unwrap_or(&self.key)
    }

    /// Whether somebody of that role in a tenant may know of it. Admins also see what they may override.
    pub fn visible_to(&self, role: Option<Role>) -> bool {
        let in_use = match self.lifecycle {
            Lifecycle::Active | Lifecycle::Deprecated => true,
            Lifecycle::Draft | Lifecycle::Archived => false,
        };
        in_use && (self.client_visible || (self.tenant_overridable && role == Some(Role::Admin)))
    }

    /// Whether it holds together, as far as can be said without the others.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::new();
        check_key(&mut check, "/key", &self.key);
        check.text("/description", &self.description, 0..=1_000);
        if let Some(salt) = &self.salt {
            check.line("/salt", salt, 1..=100);
        }
        if let Some(owner) = &self.owner {
            check.line("/owner", owner, 1..=120);
        }
        self.check_variants(&mut check);
        self.check_variant(&mut check, "/default_variant", &self.default_variant);
        self.check_variant(&mut check, "/off_variant", &self.off_variant);
        check_length(
            &mut check,
            "/prerequisites",
            self.prerequisites.len(),
            MAX_PREREQUISITES,
        );
        check_length(&mut check, "/rules", self.rules.len(), MAX_RULES);
        for (index, rule) in self.rules.iter().enumerate().take(MAX_RULES) {
            self.check_rule(&mut check, &format!("/rules/{index}"), rule);
        }
        check.verdict()
    }

    fn check_variants(&self, check: &mut Check) {
        if self.variants.is_empty() {
            check.fail("/variants", "invalid_length", "must have at least one variant");
        }
        check_length(check, "/variants", self.variants.len(), MAX_VARIANTS);
        for (name, value) in self.variants.iter().take(MAX_VARIANTS) {
            let pointer = format!("/variants/{}", pointer_segment(name));
            if !is_key(name) {
                check.fail(&pointer, "invalid_key", KEY_RULE);
            }
            if !self.kind.holds(value) {
                let detail = format!("must be of the flag's type, {}", self.kind.as_str());
                check.fail(&pointer, "invalid_type", detail);
            } else if value.to_string().len() > MAX_VALUE_BYTES {
                let detail = format!("must have at most {MAX_VALUE_BYTES} bytes as JSON");
                check.fail(&pointer, "invalid_length", detail);
            }
        }
    }

    fn check_variant(&self, check: &mut Check, pointer: &str, variant: &str) {
        if !self.variants.contains_key(variant) {
            check.fail(pointer, "unknown_variant", "must be one of the variants");
        }
    }

    fn check_rule(&self, check: &mut Check, pointer: &str, rule: &FlagRule) {
        if rule.level == Level::Default {
            let detail = "must be one of `global`, `plan`, `tenant`, `user`";
            check.fail(&format!("{pointer}/level"), "invalid_value", detail);
        }
        check.text(&format!("{pointer}/description"), &rule.description, 0..=1_000);
        check_length(check, &format!("{pointer}/when"), rule.when.len(), MAX_CONDITIONS);
        for (index, condition) in rule.when.iter().enumerate().take(MAX_CONDITIONS) {
            condition.check(check, &format!("{pointer}/when/{index}"));
        }
        if let (Some(from), Some(until)) = (rule.from, rule.until)
            && from >= until
        {
            check.fail(
                &format!("{pointer}/until"),
                "invalid_value",
                "must be after `from`",
            );
        }
        match &rule.serve {
            Serve::Variant(variant) => {
                self.check_variant(check, &format!("{pointer}/serve/variant"), variant);
            }
            Serve::Split(split) => {
                self.check_split(check, &format!("{pointer}/serve/split"), split);
            }
        }
    }

    fn check_split(&self, check: &mut Check, pointer: &str, split: &Split) {
        if let Some(by) = &split.by {
            check.line(&format!("{pointer}/by"), by, 1..=64);
        }
        let parts = format!("{pointer}/parts");
        if split.parts.is_empty() {
            check.fail(&parts, "invalid_length", "must have at least one part");
        }
        check_length(check, &parts, split.parts.len(), MAX_VARIANTS);
        for (index, part) in split.parts.iter().enumerate().take(MAX_VARIANTS) {
            self.check_variant(check, &format!("{parts}/{index}/variant"), &part.variant);
        }
        let sum: u32 = split
            .parts
            .iter()
            .map(|part| u32::from(part.percent.basis_points()))
            .sum();
        if sum > u32::from(WHOLE) {
            let detail = format!("must be 100 % together at most, are {} %", f64::from(sum) / 100.0);
            check.fail(&parts, "invalid_value", detail);
        }
    }
}

impl FlagRule {
    /// A rule that gives everybody one variant; conditions and times are fields to fill in.
    pub fn variant(level: Level, variant: &str) -> Self {
        Self::new(level, Serve::Variant(variant.to_owned()))
    }

    /// A rule that gives a share of all one variant. `by` is as in [`Split::by`].
    pub fn rollout(level: Level, variant: &str, percent: Share, by: Option<&str>) -> Self {
        let part = Part {
            variant: variant.to_owned(),
            percent,
        };
        let split = Split {
            by: by.map(str::to_owned),
            parts: vec![part],
        };
        Self::new(level, Serve::Split(split))
    }

    /// The same for those only for whom this holds too.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.when.push(condition);
        self
    }

    fn new(level: Level, serve: Serve) -> Self {
        Self {
            level,
            description: String::new(),
            when: Vec::new(),
            from: None,
            until: None,
            serve,
        }
    }
}

/// What a rule gives, as it is written: an object with one of two members.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenServe {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    split: Option<Split>,
}

impl TryFrom<WrittenServe> for Serve {
    type Error = &'static str;

    fn try_from(written: WrittenServe) -> Result<Self, Self::Error> {
        match (written.variant, written.split) {
            (Some(variant), None) => Ok(Self::Variant(variant)),
            (None, Some(split)) => Ok(Self::Split(split)),
            (Some(_), Some(_)) | (None, None) => Err("must have either `variant` or `split`"),
        }
    }
}

impl From<Serve> for WrittenServe {
    fn from(serve: Serve) -> Self {
        let (variant, split) = match serve {
            Serve::Variant(variant) => (Some(variant), None),
            Serve::Split(split) => (None, Some(split)),
        };
        Self { variant, split }
    }
}

fn check_length(check: &mut Check, pointer: &str, length: usize, most: usize) {
    if length > most {
        check.fail(
            pointer,
            "invalid_length",
            format!("must have at most {most}, has {length}"),
        );
    }
}

const fn yes() -> bool {
    true
}

fn to_percent<S: Serializer>(share: &Share, serializer: S) -> Result<S::Ok, S::Error> {
    let percent = share.percent();
    // 20 rather than 20.0, as people write it.
    if percent.fract() == 0.0 {
        serializer.serialize_u16(share.basis_points() / 100)
    } else {
        serializer.serialize_f64(percent)
    }
}

fn of_percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
    let percent = f64::deserialize(deserializer)?;
    let detail = "must be 0 to 100 with at most two decimal places";
    Share::of_percent(percent).ok_or_else(|| serde::de::Error::custom(detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(change: impl FnOnce(&mut Value)) -> Vec<(String, &'static str)> {
        let mut json = json!({
            "key": "new-checkout", "type": "boolean", "variants": {"on": true, "off": false},
            "default_variant": "off", "off_variant": "off",
            "rules": [{"level": "global", "serve": {"split": {"by": "tenant", "parts": [{"variant": "on", "percent": 20}]}}}],
        });
        change(&mut json);
        let flag: FlagDefinition = serde_json::from_value(json).unwrap();
        flag.check().map_or_else(
            |invalid| {
                invalid
                    .0
                    .into_iter()
                    .map(|error| (error.pointer, error.code))
                    .collect()
            },
            |()| Vec::new(),
        )
    }

    #[test]
    fn a_definition_that_holds_together_is_taken() {
        assert_eq!(errors(|_| {}), []);
    }

    #[test]
    fn each_mistake_has_its_pointer() {
        let long = "x".repeat(9_000);
        type Change = fn(&mut Value, &str);
        let cases: [(Change, &str, &str); 18] = [
            (
                |flag, _| flag["key"] = json!("New Checkout"),
                "/key",
                "invalid_key",
            ),
            (
                |flag, _| flag["key"] = json!("k".repeat(65)),
                "/key",
                "invalid_key",
            ),
            (|flag, _| flag["salt"] = json!(""), "/salt", "invalid_text"),
            (
                |flag, _| flag["description"] = json!("a\u{0}b"),
                "/description",
                "invalid_text",
            ),
            (
                |flag, _| flag["variants"]["on"] = json!("yes"),
                "/variants/on",
                "invalid_type",
            ),
            (
                |flag, _| flag["variants"]["A/b"] = json!(true),
                "/variants/A~1b",
                "invalid_key",
            ),
            (
                |flag, _| flag["default_variant"] = json!("of"),
                "/default_variant",
                "unknown_variant",
            ),
            (
                |flag, _| flag["off_variant"] = json!(""),
                "/off_variant",
                "unknown_variant",
            ),
            (
                |flag, _| flag["rules"][0]["level"] = json!("default"),
                "/rules/0/level",
                "invalid_value",
            ),
            (
                |flag, _| flag["rules"][0]["serve"] = json!({"variant": "blue"}),
                "/rules/0/serve/variant",
                "unknown_variant",
            ),
            (
                |flag, _| flag["rules"][0]["serve"]["split"]["parts"] = json!([]),
                "/rules/0/serve/split/parts",
                "invalid_length",
            ),
            (
                |flag, _| flag["rules"][0]["serve"]["split"]["by"] = json!(""),
                "/rules/0/serve/split/by",
                "invalid_text",
            ),
            (
                |flag, _| flag["rules"][0]["serve"]["split"]["parts"][0]["variant"] = json!("x"),
                "/rules/0/serve/split/parts/0/variant",
                "unknown_variant",
            ),
            (
                |flag, _| {
                    flag["rules"][0]["serve"]["split"]["parts"] =
                        json!([{"variant": "on", "percent": 60}, {"variant": "off", "percent": 40.01}]);
                },
                "/rules/0/serve/split/parts",
                "invalid_value",
            ),
            (
                |flag, _| {
                    flag["rules"][0]["from"] = json!("2026-02-01T00:00:00Z");
                    flag["rules"][0]["until"] = json!("2026-01-01T00:00:00Z");
                },
                "/rules/0/until",
                "invalid_value",
            ),
            (
                |flag, _| flag["rules"] = json!(vec![flag["rules"][0].clone(); 51]),
                "/rules",
                "invalid_length",
            ),
            (
                |flag, _| flag["prerequisites"] = json!(vec![json!({"flag": "a", "variant": "b"}); 11]),
                "/prerequisites",
                "invalid_length",
            ),
            (
                |flag, long| {
                    flag["type"] = json!("string");
                    flag["variants"] = json!({"on": long, "off": "x"});
                },
                "/variants/on",
                "invalid_length",
            ),
        ];
        for (change, pointer, code) in cases {
            assert_eq!(errors(|flag| change(flag, &long)), [(pointer.to_owned(), code)]);
        }
    }

    #[test]
    fn a_percentage_outside_of_its_range_cannot_even_be_read() {
        for percent in [json!(-1), json!(100.5), json!(0.001), json!("20"), json!(null)] {
            let part = json!({"variant": "on", "percent": percent});
            assert!(serde_json::from_value::<Part>(part).is_err(), "{percent}");
        }
        let part = json!({"variant": "on", "percent": 12.5});
        let read: Part = serde_json::from_value(part.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), part);
    }

    #[test]
    fn each_type_takes_its_values_only() {
        for (kind, yes, no) in [
            (FlagType::Boolean, json!(true), json!("true")),
            (FlagType::String, json!("a"), json!(1)),
            (FlagType::Integer, json!(-7), json!(7.5)),
            (FlagType::Number, json!(7.5), json!("7.5")),
            (FlagType::Object, json!({}), json!([])),
        ] {
            assert!(
                kind.holds(&yes) && !kind.holds(&no) && !kind.holds(&Value::Null),
                "{kind:?}"
            );
        }
        assert!(!FlagType::Integer.holds(&json!(u64::MAX)));
    }

    #[test]
    fn only_flags_in_use_are_seen_and_admins_see_what_is_theirs_to_choose() {
        let flag = |lifecycle, client_visible, tenant_overridable| FlagDefinition {
            lifecycle,
            client_visible,
            tenant_overridable,
            ..FlagDefinition::boolean("a", "")
        };
        let seen = |flag: &FlagDefinition| {
            [Role::Viewer, Role::Member, Role::Admin].map(|role| flag.visible_to(Some(role)))
        };
        assert_eq!(seen(&flag(Lifecycle::Active, true, false)), [true; 3]);
        assert_eq!(
            seen(&flag(Lifecycle::Deprecated, false, true)),
            [false, false, true]
        );
        assert_eq!(seen(&flag(Lifecycle::Active, false, false)), [false; 3]);
        assert_eq!(seen(&flag(Lifecycle::Draft, true, true)), [false; 3]);
        assert_eq!(seen(&flag(Lifecycle::Archived, true, true)), [false; 3]);
    }
}
