//! The rules that find suspicious activity: the catalogue, as operator and tenant have changed it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tenantry_domain::customization::EffectiveSettings;
use tenantry_domain::kernel::{Check, FieldError, Invalid, Patch, Permission, StoreError, pointer_segment};
use tenantry_domain::security::{RULES, Rule, RuleChanges, RuleTerms};

use crate::customization::product_settings::ALERT_RULES;
use crate::customization::setting::{self, Changed, SettingError};
use crate::{Cx, Precondition};

/// A rule with the terms that are in force.
#[derive(Debug, Clone, Copy)]
pub struct RuleInForce {
    /// The rule of the catalogue.
    pub rule: &'static Rule,
    /// Threshold, window and action, after the changes of operator and tenant.
    pub terms: RuleTerms,
    /// Whether the tenant has changed them.
    pub is_changed: bool,
}

/// The rules with the version of the tenant's settings.
///
/// # Errors
/// [`SettingError`].
pub async fn list(cx: &Cx) -> Result<(i64, Vec<RuleInForce>), SettingError> {
    cx.require(Permission::ReadAlerts)?;
    let configuration = setting::configuration(cx).await?;
    Ok(in_force(cx, &configuration.settings))
}

/// Changes rules by a merge patch (RFC 7396): all that it says, or nothing. Null restores what the operator says.
///
/// # Errors
/// [`SettingError`]; `unknown_field` for a rule or a term that does not exist, and for an action of a rule that can have none.
pub async fn update(
    cx: &Cx,
    when: &Precondition,
    patch: &BTreeMap<String, Patch<Value>>,
) -> Result<(i64, Vec<RuleInForce>), SettingError> {
    cx.require(Permission::ManageSettings)?;
    Check::all(|check| {
        // Also of a rule that is taken back: a merge would pass over it.
        for rule in patch.keys().filter(|rule| Rule::find(rule).is_none()) {
            let pointer = format!("/{}", pointer_segment(rule));
            check.fail(&pointer, "unknown_field", "is not known here");
        }
        for rule in patch.iter().filter_map(idle_with_action) {
            let pointer = format!("/{}/action", rule.id);
            check.fail(&pointer, "unknown_field", "this rule can have no action");
        }
    })?;
    let held = setting::configuration(cx).await?;
    let own = held.settings.values.get(ALERT_RULES.key());
    let mut rules = own.map_or(Value::Null, |own| own.value.clone());
    merge(&mut rules, patch);
    // The patch is merged with what was read, so nobody may have changed that.
    let read = Precondition::Versions(vec![held.settings.version]);
    let when = Precondition::Both(Box::new((when.clone(), read)));
    let change = BTreeMap::from([(ALERT_RULES.key().to_owned(), Patch::Set(rules))]);
    match setting::update(cx, &when, &change).await {
        Ok(Changed { settings, .. }) => Ok(in_force(cx, &settings)),
        Err(SettingError::Invalid(invalid)) => Err(renamed(invalid).into()),
        Err(error) => Err(error),
    }
}

/// What the tenant has changed of the rules.
///
/// # Errors
/// Those of the store.
pub(crate) async fn changes(cx: &Cx) -> Result<RuleChanges, StoreError> {
    Ok(setting::find(cx, &ALERT_RULES).await?.unwrap_or_default())
}

/// The terms of a rule, with what the operator and the tenant have changed.
pub(crate) fn terms(cx: &Cx, rule: &Rule, of_tenant: &RuleChanges) -> RuleTerms {
    let of_operator = cx.app().policy.alert_rules.get(rule.id);
    rule.terms(of_operator, of_tenant.get(rule.id))
}

fn in_force(cx: &Cx, settings: &EffectiveSettings) -> (i64, Vec<RuleInForce>) {
    let changes = ALERT_RULES.of(settings).unwrap_or_default();
    let of_rule = |rule| RuleInForce {
        rule,
        terms: terms(cx, rule, &changes),
        is_changed: changes.contains_key(rule.id),
    };
    (settings.version, RULES.iter().map(of_rule).collect())
}

/// The rule of a change when the change gives it an action and it can have none.
fn idle_with_action((name, change): (&String, &Patch<Value>)) -> Option<&'static Rule> {
    let Patch::Set(terms) = change else { return None };
    let has_action = terms.get("action").is_some_and(|action| !action.is_null());
    Rule::find(name).filter(|rule| has_action && !rule.may_act())
}

fn merge(rules: &mut Value, patch: &BTreeMap<String, Patch<Value>>) {
    let object = object_of(rules);
    for (rule, change) in patch {
        match change {
            Patch::Keep => {}
            Patch::Clear => {
                object.remove(rule);
            }
            Patch::Set(Value::Object(terms)) => {
                let own = object_of(object.entry(rule.clone()).or_insert(Value::Null));
                for (term, value) in terms {
                    if value.is_null() {
                        own.remove(term);
                    } else {
                        own.insert(term.clone(), value.clone());
                    }
                }
            }
            Patch::Set(other) => {
                object.insert(rule.clone(), other.clone());
            }
        }
    }
}

/// The object that a value is, or becomes.
fn object_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it is an object since the line above"),
    }
}

/// The same errors at the names of the rules.
fn renamed(Invalid(errors): Invalid) -> Invalid {
    let prefix = format!("/{}", ALERT_RULES.key());
    let own = |error: FieldError| {
        let pointer = error.pointer.strip_prefix(&prefix).unwrap_or(&error.pointer);
        FieldError {
            pointer: pointer.to_owned(),
            ..error
        }
    };
    Invalid(errors.into_iter().map(own).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patch_is_merged_by_rule_and_term() {
        let mut rules = json!({"a": {"threshold": 3, "enabled": false}, "b": {"threshold": 1}});
        let patch = BTreeMap::from([
            (
                "a".to_owned(),
                Patch::Set(json!({"threshold": 9, "enabled": null})),
            ),
            ("b".to_owned(), Patch::Clear),
            ("c".to_owned(), Patch::Set(json!({"window_minutes": 5}))),
            ("d".to_owned(), Patch::Set(json!(7))),
        ]);
        merge(&mut rules, &patch);
        assert_eq!(
            rules,
            json!({"a": {"threshold": 9}, "c": {"window_minutes": 5}, "d": 7})
        );
        let mut nothing = Value::Null;
        merge(&mut nothing, &BTreeMap::new());
        assert_eq!(nothing, json!({}));
    }
}
