use std::cmp::Ordering;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Check, name::named_enum, number::Exact};

/// What must hold of whoever a flag is evaluated for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Condition {
    /// Something of one attribute. An attribute that is not there matches no operator, not even `not_in`: of what is
    /// not known nothing is assumed.
    Attribute {
        /// Its name: one that the server knows ([`KNOWN_ATTRIBUTES`]), or any that the caller sends.
        attribute: String,
        /// How it is compared.
        operator: Comparator,
        /// With what; one of them suffices.
        values: Vec<Value>,
    },
    /// Being in a segment, or not being in it.
    Segment {
        /// The segment's key.
        segment: String,
        /// Not being in it.
        negate: bool,
    },
}

/// The attributes that the server itself knows. What a caller sends under these names is not looked at, so that
/// nobody becomes a customer of another plan by saying so.
pub const KNOWN_ATTRIBUTES: [&str; 4] = ["tenant_id", "tenant_slug", "plan", "user_id"];

named_enum! {
    /// How an attribute is compared.
    ///
    /// They are few on purpose: what one can say with them can be explained in a sentence, and none can be slow. Regular
    /// expressions are left out for the second reason; dates compare as numbers.
    pub enum Comparator {
        /// Equals one of the values; a list, when one of its items does.
        In = "in",
        /// Is there and equals none of them; a list, when none of its items does.
        NotIn = "not_in",
        /// Begins with one of them.
        StartsWith = "starts_with",
        /// Ends with one of them.
        EndsWith = "ends_with",
        /// Has one of them in it.
        Contains = "contains",
        /// Is greater than the value, a number.
        GreaterThan = "greater_than",
        /// Is the value or greater.
        AtLeast = "at_least",
        /// Is less than the value.
        LessThan = "less_than",
        /// Is the value or less.
        AtMost = "at_most",
        /// Is that version or a later one, by the precedence of Semantic Versioning 2.0.0.
        SemverAtLeast = "semver_at_least",
        /// Is an earlier version than that.
        SemverLessThan = "semver_less_than",
    }
}

impl Condition {
    /// Whether an attribute compares so.
    pub fn attribute(name: &str, operator: Comparator, values: impl IntoIterator<Item = Value>) -> Self {
        Self::Attribute {
            attribute: name.to_owned(),
            operator,
            values: values.into_iter().collect(),
        }
    }

    /// Whether they are in a segment.
    pub fn segment(key: &str) -> Self {
        Self::Segment {
            segment: key.to_owned(),
            negate: false,
        }
    }

    /// Notes what is wrong with a condition that stands at `pointer`, segments aside.
    pub(crate) fn check(&self, check: &mut Check, pointer: &str) {
        let Self::Attribute {
            attribute,
            operator,
            values,
        } = self
        else {
            return;
        };
        check.line(&format!("{pointer}/attribute"), attribute, 1..=MAX_ATTRIBUTE);
        if values.is_empty() || values.len() > MAX_VALUES {
            let detail = format!("must have 1 to {MAX_VALUES} values, has {}", values.len());
            check.fail(&format!("{pointer}/values"), "invalid_length", detail);
        }
        for (index, value) in values.iter().enumerate().take(MAX_VALUES) {
            if let Err(detail) = operator.takes(value) {
                check.fail(&format!("{pointer}/values/{index}"), "invalid_value", detail);
            }
        }
    }
}

const MAX_ATTRIBUTE: usize = 64;
const MAX_VALUES: usize = 1_000;
const MAX_TEXT: usize = 256;

impl Comparator {
    /// Whether a value can be compared with.
    fn takes(self, value: &Value) -> Result<(), String> {
        let text = |value: &Value| {
            value
                .as_str()
                .is_some_and(|text| (1..=MAX_TEXT).contains(&text.chars().count()))
        };
        let (holds, expected) = match self {
            Self::In | Self::NotIn => (
                text(value) || value.is_number() || value.is_boolean(),
                format!("must be a string of 1 to {MAX_TEXT} characters, a number or a boolean"),
            ),
            Self::StartsWith | Self::EndsWith | Self::Contains => (
                text(value),
                format!("must be a string of 1 to {MAX_TEXT} characters"),
            ),
            Self::GreaterThan | Self::AtLeast | Self::LessThan | Self::AtMost => {
                (value.is_number(), "must be a number".to_owned())
            }
            Self::SemverAtLeast | Self::SemverLessThan => (
                value.as_str().is_some_and(|text| version(text).is_some()),
                "must be a version such as `1.4.0`".to_owned(),
            ),
        };
        if holds { Ok(()) } else { Err(expected) }
    }
}

/// A condition as it is written: flat, since that is what people expect of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attribute: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operator: Option<Comparator>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    negate: Option<bool>,
}

impl TryFrom<Written> for Condition {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written {
                attribute: Some(attribute),
                operator: Some(operator),
                values: Some(values),
                segment: None,
                negate: None,
            } => Ok(Self::Attribute {
                attribute,
                operator,
                values,
            }),
            Written {
                attribute: None,
                operator: None,
                values: None,
                segment: Some(segment),
                negate,
            } => Ok(Self::Segment {
                segment,
                negate: negate.unwrap_or(false),
            }),
            _ => Err("must have `attribute`, `operator` and `values`, or else `segment`"),
        }
    }
}

impl From<Condition> for Written {
    fn from(condition: Condition) -> Self {
        let nothing = Self {
            attribute: None,
            operator: None,
            values: None,
            segment: None,
            negate: None,
        };
        match condition {
            Condition::Attribute {
                attribute,
                operator,
                values,
            } => Self {
                attribute: Some(attribute),
                operator: Some(operator),
                values: Some(values),
                ..nothing
            },
            Condition::Segment { segment, negate } => Self {
                segment: Some(segment),
                negate: negate.then_some(true),
                ..nothing
            },
        }
    }
}

/// What is known of an attribute of whoever a flag is evaluated for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known<'a> {
    Text(&'a str),
    Json(&'a Value),
}

/// A comparison in the form in which it is quick: its values are sorted out once, not at each evaluation.
#[derive(Debug, Clone)]
pub(crate) enum Comparison {
    /// Whether it is one of these; `expected` is what comes of it.
    OneOf {
        texts: HashSet<Box<str>>,
        numbers: Box<[Exact]>,
        booleans: Box<[bool]>,
        expected: bool,
    },
    Text(fn(&str, &str) -> bool, Box<[Box<str>]>),
    Number(fn(Ordering) -> bool, Box<[Exact]>),
    Version(
        fn(&semver::Version, &semver::Version) -> bool,
        Box<[semver::Version]>,
    ),
}

impl Comparison {
    pub(crate) fn of(operator: Comparator, values: &[Value]) -> Self {
        let texts = || values.iter().filter_map(Value::as_str).map(Box::from);
        let numbers = || {
            values
                .iter()
                .filter_map(Value::as_number)
                .map(Exact::of)
                .collect()
        };
        let versions = || {
            values
                .iter()
                .filter_map(Value::as_str)
                .filter_map(version)
                .collect()
        };
        let one_of = |expected| Self::OneOf {
            texts: texts().collect(),
            numbers: numbers(),
            booleans: values.iter().filter_map(Value::as_bool).collect(),
            expected,
        };
        match operator {
            Comparator::In => one_of(true),
            Comparator::NotIn => one_of(false),
            Comparator::StartsWith => Self::Text(|known, value| known.starts_with(value), texts().collect()),
            Comparator::EndsWith => Self::Text(|known, value| known.ends_with(value), texts().collect()),
            Comparator::Contains => Self::Text(|known, value| known.contains(value), texts().collect()),
            Comparator::GreaterThan => Self::Number(Ordering::is_gt, numbers()),
            Comparator::AtLeast => Self::Number(Ordering::is_ge, numbers()),
            Comparator::LessThan => Self::Number(Ordering::is_lt, numbers()),
            Comparator::AtMost => Self::Number(Ordering::is_le, numbers()),
            // Precedence leaves build metadata out, which the order of the type does not.
            Comparator::SemverAtLeast => {
                Self::Version(|known, value| known.cmp_precedence(value).is_ge(), versions())
            }
            Comparator::SemverLessThan => {
                Self::Version(|known, value| known.cmp_precedence(value).is_lt(), versions())
            }
        }
    }

    pub(crate) fn holds(&self, known: Known<'_>) -> bool {
        match (self, known) {
            (Self::OneOf { expected, .. }, Known::Json(Value::Array(items))) => {
                items.iter().any(|item| self.is_one(Known::Json(item))) == *expected
            }
            // Objects and null are nothing that a value could equal, and so nothing that is known.
            (Self::OneOf { .. }, Known::Json(Value::Null | Value::Object(_))) => false,
            (Self::OneOf { expected, .. }, known) => self.is_one(known) == *expected,
            (Self::Text(compare, values), known) => {
                text(known).is_some_and(|known| values.iter().any(|value| compare(known, value)))
            }
            (Self::Number(compare, values), Known::Json(Value::Number(known))) => {
                let known = Exact::of(known);
                values
                    .iter()
                    .any(|value| known.compare(*value).is_some_and(compare))
            }
            (Self::Number(..), Known::Text(_) | Known::Json(_)) => false,
            (Self::Version(compare, values), known) => text(known)
                .and_then(version)
                .is_some_and(|known| values.iter().any(|value| compare(&known, value))),
        }
    }

    fn is_one(&self, known: Known<'_>) -> bool {
        let Self::OneOf {
            texts,
            numbers,
            booleans,
            ..
        } = self
        else {
            return false;
        };
        match known {
            Known::Text(known) => texts.contains(known),
            Known::Json(Value::String(known)) => texts.contains(known.as_str()),
            Known::Json(Value::Number(known)) => {
                let known = Exact::of(known);
                let equals = |value: &Exact| known.compare(*value).is_some_and(Ordering::is_eq);
                numbers.iter().any(equals)
            }
            Known::Json(Value::Bool(known)) => booleans.contains(known),
            Known::Json(Value::Null | Value::Array(_) | Value::Object(_)) => false,
        }
    }
}

fn text(known: Known<'_>) -> Option<&str> {
    match known {
        Known::Text(text) => Some(text),
        Known::Json(value) => value.as_str(),
    }
}

/// A version; one longer than any that is written is not read, so that nobody makes it slow.
fn version(text: &str) -> Option<semver::Version> {
    (text.len() <= MAX_TEXT)
        .then(|| semver::Version::parse(text.strip_prefix('v').unwrap_or(text)).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn holds(operator: Comparator, values: Value, known: Value) -> bool {
        let Value::Array(values) = values else {
            unreachable!()
        };
        Comparison::of(operator, &values).holds(Known::Json(&known))
    }

    #[test]
    fn each_operator_compares_as_it_says() {
        use Comparator as Op;
        for (operator, values, yes, no) in [
            (
                Op::In,
                json!(["a", "b"]),
                json!(["a", "b", ["x", "b"]]),
                json!(["c", 1, true, null, {}, [], ["c"]]),
            ),
            (
                Op::In,
                json!([1, true]),
                json!([1, 1.0, true, [2, 1]]),
                json!([2, "1", false, "true"]),
            ),
            (
                Op::NotIn,
                json!(["a"]),
                json!(["b", 1, false, [], ["b"]]),
                json!(["a", ["b", "a"], null, {}]),
            ),
            (
                Op::StartsWith,
                json!(["ab", "x"]),
                json!(["abc", "x"]),
                json!(["ba", 1, ["abc"]]),
            ),
            (
                Op::EndsWith,
                json!(["@acme.example"]),
                json!(["me@acme.example"]),
                json!(["acme.example"]),
            ),
            (Op::Contains, json!(["eta"]), json!(["beta"]), json!(["BETA", 3])),
            (
                Op::GreaterThan,
                json!([5]),
                json!([5.1, 6]),
                json!([5, 4, "6", null]),
            ),
            (Op::AtLeast, json!([5]), json!([5, 5.0]), json!([4.9])),
            (Op::LessThan, json!([5]), json!([4, -1]), json!([5, "4"])),
            (Op::AtMost, json!([5]), json!([5, 4]), json!([5.5])),
            (
                Op::SemverAtLeast,
                json!(["1.4.0"]),
                json!(["1.4.0", "v1.10.0", "2.0.0-rc.1", "1.4.0+x"]),
                json!(["1.3.9", "1.4.0-rc.1", "1.4", 2]),
            ),
            (
                Op::SemverLessThan,
                json!(["1.4.0"]),
                json!(["1.4.0-rc.1", "1.3.10"]),
                json!(["1.4.0", "x", "1.4.0+x"]),
            ),
        ] {
            for known in yes.as_array().unwrap() {
                assert!(
                    holds(operator, values.clone(), known.clone()),
                    "{operator:?} {values} {known}"
                );
            }
            for known in no.as_array().unwrap() {
                assert!(
                    !holds(operator, values.clone(), known.clone()),
                    "{operator:?} {values} {known}"
                );
            }
        }
    }

    #[test]
    fn integers_beyond_2_53_compare_exactly() {
        use Comparator as Op;
        let (one, other) = (
            json!(76_561_198_000_000_001_u64),
            json!(76_561_198_000_000_002_u64),
        );
        let values = json!([one]);
        for (operator, of_itself, of_the_next) in [
            (Op::In, true, false),
            (Op::NotIn, false, true),
            (Op::AtLeast, true, true),
            (Op::AtMost, true, false),
            (Op::GreaterThan, false, true),
            (Op::LessThan, false, false),
        ] {
            assert_eq!(
                holds(operator, values.clone(), one.clone()),
                of_itself,
                "{operator:?}"
            );
            assert_eq!(
                holds(operator, values.clone(), other.clone()),
                of_the_next,
                "{operator:?}"
            );
        }
        for five in [json!(5), json!(5.0)] {
            for operator in [Op::In, Op::AtLeast, Op::AtMost] {
                assert!(
                    holds(operator, json!([five]), json!(5)) && holds(operator, json!([five]), json!(5.0))
                );
            }
            assert!(!holds(Op::NotIn, json!([five]), json!(5.0)));
        }
    }

    #[test]
    fn a_condition_is_written_flat_and_is_one_of_two_things() {
        let attribute = json!({"attribute": "country", "operator": "in", "values": ["de"]});
        let segment = json!({"segment": "beta", "negate": true});
        for written in [attribute, segment] {
            let condition: Condition = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(serde_json::to_value(condition).unwrap(), written);
        }
        for nonsense in [
            json!({}),
            json!({"attribute": "a", "operator": "in"}),
            json!({"attribute": "a", "operator": "in", "values": ["b"], "segment": "c"}),
            json!({"segment": "a", "values": []}),
            json!({"attribute": "a", "operator": "like", "values": ["b"]}),
            json!({"segment": "a", "surprise": 1}),
        ] {
            assert!(
                serde_json::from_value::<Condition>(nonsense.clone()).is_err(),
                "{nonsense}"
            );
        }
    }

    #[test]
    fn a_value_that_cannot_be_compared_with_is_named() {
        let errors = |operator, values: Value| {
            let mut check = Check::new();
            Condition::attribute("a", operator, values.as_array().unwrap().clone())
                .check(&mut check, "/when/0");
            check.verdict().map_or_else(
                |invalid| invalid.0.into_iter().map(|error| error.pointer).collect(),
                |()| Vec::new(),
            )
        };
        assert_eq!(
            errors(Comparator::In, json!(["a", {}, 1, null])),
            ["/when/0/values/1", "/when/0/values/3"]
        );
        assert_eq!(
            errors(Comparator::StartsWith, json!(["", 1, "x"])),
            ["/when/0/values/0", "/when/0/values/1"]
        );
        assert_eq!(errors(Comparator::AtMost, json!(["1"])), ["/when/0/values/0"]);
        assert_eq!(
            errors(Comparator::SemverAtLeast, json!(["1.x"])),
            ["/when/0/values/0"]
        );
        assert_eq!(errors(Comparator::In, json!([])), ["/when/0/values"]);
        assert_eq!(
            errors(Comparator::In, json!(vec!["a"; 1_001])),
            ["/when/0/values"]
        );
    }

    proptest! {
        #[test]
        fn nothing_that_a_caller_sends_makes_it_panic(
            operator in proptest::sample::select(Comparator::ALL.to_vec()),
            value in ".*",
            known in prop_oneof![".*".prop_map(Value::from), any::<f64>().prop_map(Value::from), any::<bool>().prop_map(Value::from), Just(Value::Null)],
        ) {
            let comparison = Comparison::of(operator, &[Value::from(value), Value::from(1)]);
            let _ = comparison.holds(Known::Json(&known));
            let _ = comparison.holds(Known::Json(&json!([known])));
        }
    }
}
