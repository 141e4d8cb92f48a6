//! Suspicious activity: the rules that find it in the audit log, what they have counted, and the alerts that they raise.
//!
//! May use: `kernel`, `audit`.

mod alert;
mod detection;
mod notice;
mod rule;
mod window;

pub use alert::{Alert, AlertFilter, AlertKey, AlertState, Alerts, Detections};
pub use detection::Detection;
pub use notice::AlertNotice;
pub use rule::{
    AlertAction, RULES, Rule, RuleChange, RuleChanges, RuleTerms, Severity, Subject, SubjectKind,
};
pub use window::Hits;
