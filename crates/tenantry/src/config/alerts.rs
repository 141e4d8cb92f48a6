use serde::{Deserialize, Serialize};
use tenantry_domain::security::{Rule, RuleChanges, RuleTerms};

use super::ConfigurationError;

/// The rules that find suspicious activity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// What differs from the catalogue for all tenants, by the name of the rule; each tenant may say otherwise for itself.
    pub rules: RuleChanges,
}

impl Alerts {
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        for (name, change) in &self.rules {
            let rule = Rule::find(name);
            let within = |value: Option<u32>, most| value.is_none_or(|value| (1..=most).contains(&value));
            let problem = match rule {
                None => "names a rule that does not exist: GET /api/v1/security/rules lists them",
                Some(rule) if change.action.is_some() && !rule.may_act() => {
                    "names a rule that can have no action"
                }
                Some(_) if !within(change.threshold, RuleTerms::MOST) => {
                    "has a threshold that is not in 1..=10000000"
                }
                Some(_) if !within(change.window_minutes, RuleTerms::LONGEST) => {
                    "has a window_minutes that is not in 1..=1440"
                }
                Some(_) => continue,
            };
            return Err(ConfigurationError::invalid(
                "alerts.rules",
                format!("{name} {problem}"),
            ));
        }
        Ok(())
    }
}
