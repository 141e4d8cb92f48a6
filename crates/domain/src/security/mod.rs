//! Suspicious activity: the rules that find it in the audit log, what they have counted, and the alerts that they raise.
//!
//! May use: `kernel`, `audit`.

mod alert;
mod detection;
mod mail_pauses;
mod notice;
mod rule;
mod window;

pub use alert::{Alert, AlertFilter, AlertKey, AlertState, Alerts};
pub use detection::{Detection, Detections};
pub use mail_pauses::MailDecision;
pub use notice::AlertNotice;
pub use rule::{
    AlertAction, RULES, Rule, RuleChange, RuleChanges, RuleTerms, Severity, Subject, SubjectKind,
};
pub use window::Hits;
