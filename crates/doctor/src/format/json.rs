use serde::Serialize;
use serde_json::{Map, Value};

use crate::Report;

impl Report {
    /// The report as JSON, with an object's members always in the same order. Members may be added in later
    /// versions; none changes its meaning.
    pub fn to_json(&self) -> Value {
        value(self)
    }
}

/// JSON as two programs write it alike, so that a hash of it can be compared: on one line, members sorted, and a
/// line break at the end. `jq -cS .` writes the same.
pub(crate) fn canonical(value: &Value) -> String {
    format!("{}\n", sorted(value))
}

/// What can be turned into JSON without fail: our own types, whose keys are all names.
pub(crate) fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// Whether members keep their order or are sorted is up to a feature that any crate of a build may switch on.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut all: Vec<(&String, &Value)> = members.iter().collect();
            all.sort_by_key(|(name, _)| *name);
            Value::Object(
                all.into_iter()
                    .map(|(name, one)| (name.clone(), sorted(one)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_canonical_form_is_sorted_throughout() {
        let value = json!({"b": [{"d": 1, "c": null}], "a": "ü\n"});
        assert_eq!(
            canonical(&value),
            "{\"a\":\"ü\\n\",\"b\":[{\"c\":null,\"d\":1}]}\n"
        );
    }
}
