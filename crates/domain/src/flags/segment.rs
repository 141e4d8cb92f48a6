use serde::{Deserialize, Serialize};

use crate::flags::{Condition, flag_key::check_key};
use crate::kernel::{Check, Invalid};

/// A named set of conditions that rules of several flags have in common. A segment does not refer to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Its name, for good: `^[a-z][a-z0-9._-]{0,63}$`.
    pub key: String,
    /// What it is for; up to 1,000 characters. Tenants never see it.
    #[serde(default)]
    pub description: String,
    /// All of these hold for whoever is in it.
    pub when: Vec<Condition>,
    /// Counts its versions, from 1.
    #[serde(default)]
    pub version: i64,
}

impl Segment {
    /// Whether it holds together.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::new();
        check_key(&mut check, "/key", &self.key);
        check.text("/description", &self.description, 0..=1_000);
        if self.when.is_empty() || self.when.len() > MAX_CONDITIONS {
            let detail = format!(
                "must have 1 to {MAX_CONDITIONS} conditions, has {}",
                self.when.len()
            );
            check.fail("/when", "invalid_length", detail);
        }
        for (index, condition) in self.when.iter().enumerate().take(MAX_CONDITIONS) {
            let pointer = format!("/when/{index}");
            condition.check(&mut check, &pointer);
            if let Condition::Segment { .. } = condition {
                let detail = "must not refer to another segment";
                check.fail(&format!("{pointer}/segment"), "nested_segment", detail);
            }
        }
        check.verdict()
    }
}

/// How many conditions a segment or a rule may have.
pub(crate) const MAX_CONDITIONS: usize = 20;
