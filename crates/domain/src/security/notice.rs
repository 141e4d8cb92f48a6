use serde::{Deserialize, Serialize};

use crate::kernel::{Line, MailTemplate, Message, Recipient, SecurityAlertId, Time, wall_clock};
use crate::security::rule::{AlertAction, Severity, Subject, SubjectKind};

/// The mail to admins about an alert that was raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertNotice {
    /// Identifies the alert that the mail is about.
    pub alert: SecurityAlertId,
    /// The name of its rule.
    pub rule: String,
    /// How bad the rule is: the mail says so first.
    pub severity: Severity,
    /// How much was counted when it was raised.
    pub count: i64,
    /// What kind of thing it is about.
    pub subject_kind: SubjectKind,
    /// The id of that thing, or the network.
    pub subject: String,
    /// What was done to the user.
    pub action: AlertAction,
    /// How many further alerts of the rule were raised without a mail of their own.
    #[serde(default)]
    pub further: u64,
}

impl AlertNotice {
    /// Who or what broke the rule, put together from the columns.
    pub fn subject(&self) -> Subject {
        Subject::new(self.subject_kind, &self.subject)
    }

    /// The notice as a mail. `subject_name` is the present name of the user or API key that it is about.
    pub fn message(&self, recipient: &Recipient, at: Time, subject_name: Option<&str>) -> Message {
        let name = subject_name.unwrap_or(&self.subject);
        Message::new(MailTemplate::SecurityAlert)
            .with("rule", &self.rule)
            .with("severity", self.severity.as_str())
            .with("count", self.count)
            .with("subject_kind", self.subject_kind.as_str())
            .with("subject", Line::within(name, Line::SHORT))
            .with("action", self.action.as_str())
            .with("alert", self.alert)
            .with("further", self.further)
            .with("when", wall_clock(at, &recipient.zone))
    }
}
