use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::Time;
use crate::security::notice::AlertNotice;
use crate::security::rule::Rule;

/// Whether an alert is mailed when it is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailDecision {
    /// At once.
    Send,
    /// With others of its rule in one mail, at this time.
    Hold(Time),
}

/// The mails about the alerts of one rule of a tenant.
///
/// A subject is mailed about once in a pause, and a bounded number of subjects are. What else is raised is held back and mailed in one
/// notice, so that no number of alerts about some subjects keeps an alert about another from the admins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MailPauses {
    /// When the last mail about a subject was sent, within the pause.
    sent: BTreeMap<String, Time>,
    /// When the last mail about alerts that were held back was sent.
    told_at: Option<Time>,
    /// The first alert that is held back, and how many further ones are.
    held: Option<AlertNotice>,
}

impl MailPauses {
    pub(crate) fn decide(&mut self, rule: &Rule, notice: &AlertNotice, now: Time) -> MailDecision {
        let pause = rule.mail_pause();
        self.sent.retain(|_, sent| now - *sent < pause);
        let subject = notice.subject().name();
        if !self.sent.contains_key(&subject) && self.sent.len() < rule.most_mails() {
            self.sent.insert(subject, now);
            return MailDecision::Send;
        }
        match &mut self.held {
            Some(held) => held.further = held.further.saturating_add(1),
            None => self.held = Some(notice.clone()),
        }
        let oldest = self.sent.values().min().copied();
        let last = self.told_at.max(oldest).unwrap_or(now);
        MailDecision::Hold(now.max(last + pause))
    }

    pub(crate) fn take_held(&mut self, now: Time) -> Option<AlertNotice> {
        let held = self.held.take()?;
        self.told_at = Some(now);
        Some(held)
    }

    /// Whether it says anything that a later decision depends on.
    pub(crate) fn is_needed(&self, rule: Option<&Rule>, now: Time) -> bool {
        let Some(rule) = rule else { return false };
        let is_recent = |at: &Time| now - *at < rule.mail_pause();
        self.held.is_some()
            || self.sent.values().any(is_recent)
            || self.told_at.as_ref().is_some_and(is_recent)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;
    use crate::security::rule::{AlertAction, Subject, SubjectKind};

    fn about(number: u32, rule: &Rule) -> AlertNotice {
        let subject = Subject::new(SubjectKind::User, number);
        AlertNotice {
            alert: uuid::Uuid::nil().into(),
            rule: rule.id.to_owned(),
            severity: rule.severity,
            count: 1,
            subject_kind: subject.kind,
            subject: subject.id,
            action: AlertAction::Nothing,
            further: 0,
        }
    }

    /// However many subjects alerts are about, admins get a bounded number of mails in a pause, and one for all that is held back.
    #[test]
    fn mails_are_bounded_and_what_is_held_back_is_mailed() {
        let at = |minute| Time::UNIX_EPOCH + Duration::minutes(minute);
        for rule in &crate::security::rule::RULES {
            let pause = rule.mail_pause().num_minutes();
            let mut mails = MailPauses::default();
            let decided: Vec<_> = (0..500)
                .map(|number| mails.decide(rule, &about(number, rule), at(1)))
                .collect();
            let sent = decided.iter().filter(|one| **one == MailDecision::Send).count();
            assert_eq!(sent, rule.most_mails(), "{}", rule.id);
            assert_eq!(decided[499], MailDecision::Hold(at(1 + pause)));
            let held = mails.take_held(at(1 + pause)).unwrap();
            let first = u32::try_from(rule.most_mails()).unwrap();
            assert_eq!(
                (held.subject, held.further),
                (first.to_string(), 500 - u64::from(first) - 1)
            );
            assert_eq!(mails.take_held(at(1 + pause)), None);
            // The next summary waits for a whole pause again.
            let again = |mails: &mut MailPauses, minute| mails.decide(rule, &about(1, rule), at(minute));
            assert_eq!(again(&mut mails, 2 + pause), MailDecision::Send);
            assert_eq!(
                again(&mut mails, 3 + pause),
                MailDecision::Hold(at(2 + 2 * pause))
            );
            assert!(mails.is_needed(Some(rule), at(1_000_000)));
            mails.take_held(at(2 + 2 * pause));
            assert!(!mails.is_needed(Some(rule), at(3 + 3 * pause)));
        }
    }
}
