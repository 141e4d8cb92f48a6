use std::collections::BTreeMap;

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::audit::AuditEntry;
use crate::kernel::name::named_enum;
use crate::kernel::{Network, TenantId, Time, UserId};
use crate::security::window::Slice;

named_enum! {
    /// How much an alert deserves attention.
    #[derive(PartialOrd, Ord)]
    pub enum Severity {
        /// Unusual, and often harmless.
        Low = "low",
        /// Look at it today.
        Medium = "medium",
        /// An account is probably in the wrong hands.
        High = "high",
    }
}

named_enum! {
    /// What an alert is about.
    #[derive(PartialOrd, Ord)]
    pub enum SubjectKind {
        /// A user of the tenant, by the id of the account.
        User = "user",
        /// An API key, also one of a service account, by the id of the key.
        ApiKey = "api_key",
        /// A network that callers come from.
        Network = "network",
        /// The whole tenant: many subjects at once.
        Tenant = "tenant",
    }
}

named_enum! {
    /// What is done when an alert about a user is raised.
    pub enum AlertAction {
        /// Nothing: admins get a mail.
        Nothing = "none",
        /// Sensitive requests of the user need the second factor again.
        StepUp = "step_up",
        /// All sessions of the user end.
        EndSessions = "end_sessions",
    }
}

/// What an alert is about: a user, an API key, a network or the tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// What kind of thing it is.
    pub kind: SubjectKind,
    /// Its id, or the network in CIDR notation.
    pub id: String,
}

impl Subject {
    /// The subject of a kind with an id.
    pub fn new(kind: SubjectKind, id: impl ToString) -> Self {
        Self {
            kind,
            id: id.to_string(),
        }
    }

    /// The subject as one text.
    pub fn name(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.id)
    }

    /// The user, where the subject is one.
    pub fn user(&self) -> Option<UserId> {
        let is_user = self.kind == SubjectKind::User;
        is_user.then(|| self.id.parse().ok()).flatten()
    }
}

/// Which subject of an entry a rule counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The user whose account the entry is about.
    Account,
    /// The user or API key that acted.
    Actor,
    /// The network that the request came from.
    Network,
    /// The API key, where the network of the entry is a new one of this key.
    KeyOfNewNetwork,
}

/// A rule of the catalogue: which entries of the audit log it counts, and what it does when there are too many.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its stable name.
    pub id: &'static str,
    /// A sentence about it.
    pub about: &'static str,
    /// The actions that it counts. With several lists, one of each must occur.
    parts: &'static [&'static [&'static str]],
    /// A member of the entry's details that must be true.
    when: Option<&'static str>,
    pub(crate) by: By,
    /// Whether callers without a credential can cause what it counts. Such a rule has no action, so that nobody locks users out.
    pub anonymous: bool,
    /// How important its alerts are.
    pub severity: Severity,
    defaults: RuleTerms,
}

/// When a rule raises an alert, and what it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RuleTerms {
    /// Whether the rule is in use.
    pub enabled: bool,
    /// From how many on within the window it raises an alert.
    pub threshold: u32,
    /// The window in minutes, from 1 to 1,440.
    pub window_minutes: u32,
    /// What it does to the user that the alert is about.
    pub action: AlertAction,
}

impl RuleTerms {
    /// The greatest threshold.
    pub const MOST: u32 = 10_000_000;

    /// The longest window in minutes: a day.
    pub const LONGEST: u32 = 1_440;

    /// For how long what is counted counts.
    pub fn window(self) -> Duration {
        Duration::minutes(self.window_minutes.into())
    }
}

/// What an operator or a tenant changes about a rule. What is absent stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleChange {
    /// See [`RuleTerms::enabled`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// See [`RuleTerms::threshold`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
    /// See [`RuleTerms::window_minutes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_minutes: Option<u32>,
    /// See [`RuleTerms::action`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<AlertAction>,
}

/// Changes of rules by their names.
pub type RuleChanges = BTreeMap<String, RuleChange>;

const fn terms(threshold: u32, window_minutes: u32, action: AlertAction) -> RuleTerms {
    RuleTerms {
        enabled: true,
        threshold,
        window_minutes,
        action,
    }
}

/// Every rule, by name.
pub static RULES: [Rule; 10] = [
    Rule {
        id: "account_weakened",
        about: "The second factor of a user was removed and the password replaced, both within the window.",
        parts: &[
            &[
                "mfa.disabled",
                "mfa.removed_by_proof",
                "mfa.reset",
                "passkey.removed",
            ],
            &["user.password_changed", "user.password_reset"],
        ],
        when: None,
        by: By::Account,
        anonymous: false,
        severity: Severity::High,
        defaults: terms(2, 60, AlertAction::Nothing),
    },
    Rule {
        id: "api_key_new_network",
        about: "An API key was used from a network that it was not used from before.",
        parts: &[&["api_key.network_seen"]],
        when: None,
        by: By::KeyOfNewNetwork,
        anonymous: false,
        severity: Severity::Medium,
        defaults: terms(1, 60, AlertAction::Nothing),
    },
    Rule {
        id: "api_keys_refused",
        about: "API keys that are not valid, or not valid there, were presented from one network.",
        parts: &[&["api_key.refused"]],
        when: None,
        by: By::Network,
        anonymous: true,
        severity: Severity::Medium,
        defaults: terms(10, 15, AlertAction::Nothing),
    },
    Rule {
        id: "failed_logins_account",
        about: "Wrong passwords or codes were given for one account.",
        parts: &[&["login.failed", "mfa.failed", "password.confirmation_failed"]],
        when: None,
        by: By::Account,
        anonymous: true,
        severity: Severity::Medium,
        defaults: terms(5, 15, AlertAction::Nothing),
    },
    Rule {
        id: "failed_logins_network",
        about: "Wrong passwords or codes were given from one network, for any accounts.",
        parts: &[&["login.failed", "mfa.failed", "password.confirmation_failed"]],
        when: None,
        by: By::Network,
        anonymous: true,
        severity: Severity::Medium,
        defaults: terms(20, 15, AlertAction::Nothing),
    },
    Rule {
        id: "mass_reading",
        about: "A user or an API key read much: answers to its GET requests, in KiB, each counted as at least one.",
        parts: &[&["security.mass_reading"]],
        when: None,
        by: By::Actor,
        anonymous: false,
        severity: Severity::High,
        defaults: terms(100_000, 60, AlertAction::Nothing),
    },
    Rule {
        id: "new_network_login",
        about: "A user logged in from a network that the account was not used from for 30 days.",
        parts: &[&["session.started"]],
        when: Some("new_network"),
        by: By::Account,
        anonymous: false,
        severity: Severity::Low,
        defaults: terms(1, 60, AlertAction::Nothing),
    },
    Rule {
        id: "permission_probing",
        about: "A user or an API key asked for much that it may not see or do, or that does not exist.",
        parts: &[&["security.permission_probing"]],
        when: None,
        by: By::Actor,
        anonymous: false,
        severity: Severity::Medium,
        defaults: terms(50, 15, AlertAction::Nothing),
    },
    Rule {
        id: "refresh_token_reused",
        about: "A refresh token was used again that had been used up: a copy of it is somewhere else.",
        parts: &[&["refresh_token.reused"]],
        when: None,
        by: By::Account,
        anonymous: false,
        severity: Severity::High,
        defaults: terms(1, 60, AlertAction::StepUp),
    },
    Rule {
        id: "tenant_mismatch",
        about: "A credential of this tenant was sent in requests that name another tenant.",
        parts: &[&["tenant.mismatch"]],
        when: None,
        by: By::Actor,
        anonymous: false,
        severity: Severity::High,
        defaults: terms(3, 60, AlertAction::Nothing),
    },
];

impl Rule {
    /// The rule of a name.
    pub fn find(id: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.id == id)
    }

    /// The terms of the catalogue, changed by the operator and then by the tenant. A rule whose entries callers without a credential
    /// can cause keeps its action, which is none.
    pub fn terms(&self, of_operator: Option<&RuleChange>, of_tenant: Option<&RuleChange>) -> RuleTerms {
        let changes = [of_operator, of_tenant].into_iter().flatten();
        let mut terms = changes.fold(self.defaults, |terms, change| RuleTerms {
            enabled: change.enabled.unwrap_or(terms.enabled),
            threshold: change.threshold.unwrap_or(terms.threshold),
            window_minutes: change.window_minutes.unwrap_or(terms.window_minutes),
            action: change.action.unwrap_or(terms.action),
        });
        terms.threshold = terms.threshold.clamp(1, RuleTerms::MOST);
        terms.window_minutes = terms.window_minutes.clamp(1, RuleTerms::LONGEST);
        if !self.may_act() {
            terms.action = AlertAction::Nothing;
        }
        terms
    }

    /// Whether the rule may do something to the user that an alert is about.
    pub const fn may_act(&self) -> bool {
        !self.anonymous && matches!(self.by, By::Account | By::Actor)
    }

    /// How long after a mail about a subject of this rule the next one about it is sent.
    pub fn mail_pause(&self) -> Duration {
        Duration::hours(if self.anonymous { 6 } else { 1 })
    }

    /// Which of its parts an entry belongs to, as a bit; 0 when the rule does not count the entry.
    pub(crate) fn part(&self, entry: &AuditEntry) -> u8 {
        let when = |member| entry.after.as_ref().is_some_and(|after| after[member] == true);
        if !self.when.is_none_or(when) {
            return 0;
        }
        let mut parts = self.parts.iter();
        let part = parts.position(|actions| actions.contains(&entry.action.as_str()));
        part.map_or(0, |part| 1 << part)
    }

    /// All of its parts, as bits.
    pub(crate) fn all_parts(&self) -> u8 {
        self.parts.iter().fold(0, |bits, _| (bits << 1) | 1)
    }

    /// The most mails about different subjects within [`Rule::mail_pause`]. Callers without a credential get admins fewer of them.
    pub fn most_mails(&self) -> usize {
        if self.severity == Severity::High && !self.anonymous {
            10
        } else {
            3
        }
    }

    /// The subject of an entry that the rule counts. What was refused beyond the bounds of single entries names no network, or none of many
    /// known users and actors, and counts for the tenant, so that many refusals hide no other.
    pub(crate) fn subject(&self, tenant: TenantId, entry: &AuditEntry) -> Option<Subject> {
        let is = |name: &str| entry.after.as_ref().is_some_and(|after| after[name] == true);
        let of_tenant = |is_of_many: bool| is_of_many.then(|| Subject::new(SubjectKind::Tenant, tenant));
        match self.by {
            By::Account => account_of(entry).or_else(|| of_tenant(is("attributed"))),
            By::Actor => actor_of(entry).or_else(|| of_tenant(is("attributed"))),
            By::Network => {
                let network = network_of(entry).map(|network| Subject::new(SubjectKind::Network, network));
                network.or_else(|| of_tenant(is("further")))
            }
            By::KeyOfNewNetwork => {
                let key = entry.entity_id.filter(|_| entry.entity == "api_key");
                key.map(|key| Subject::new(SubjectKind::ApiKey, key))
            }
        }
    }
}

/// The user whose account an entry is about.
fn account_of(entry: &AuditEntry) -> Option<Subject> {
    let of_details = uuid_of(entry.after.as_ref(), "user_id");
    let user = of_details.or_else(|| entry.entity_id.filter(|_| entry.entity == "user"));
    let acting = || {
        refused_actor(entry)
            .filter(|(kind, _)| *kind == "user")
            .map(|(_, id)| id)
    };
    let actor = || entry.actor_id.filter(|_| entry.actor_kind == "user");
    let user = user.or_else(acting).or_else(actor);
    user.map(|user| Subject::new(SubjectKind::User, user))
}

/// The user or API key that acted; operators are no subjects.
fn actor_of(entry: &AuditEntry) -> Option<Subject> {
    let named = entry.entity_id.map(|id| (entry.entity.as_str(), id));
    let named = named.filter(|(kind, _)| kind_of_actor(kind).is_some());
    let recorded = || entry.actor_id.map(|id| (entry.actor_kind.as_str(), id));
    let (kind, id) = named.or_else(|| refused_actor(entry)).or_else(recorded)?;
    kind_of_actor(kind).map(|kind| Subject::new(kind, id))
}

fn kind_of_actor(kind: &str) -> Option<SubjectKind> {
    match kind {
        "user" => Some(SubjectKind::User),
        "api_key" => Some(SubjectKind::ApiKey),
        _ => None,
    }
}

/// The kind and id of the actor whose repeated requests an entry counts. Servers of earlier releases named users only.
fn refused_actor(entry: &AuditEntry) -> Option<(&str, Uuid)> {
    let details = entry.after.as_ref();
    let id = uuid_of(details, "actor_id")?;
    let kind = details.and_then(|details| details["actor_kind"].as_str());
    Some((kind.unwrap_or("user"), id))
}

/// How much an entry counts and when that occurred: an entry of repeats says what no earlier entry has counted.
pub(crate) fn slices(entry: &AuditEntry) -> Vec<Slice> {
    let repeated = entry.after.as_ref().and_then(|after| after.get("repeated"));
    let time = |name: &str| repeated?[name].as_str()?.parse::<Time>().ok();
    let last = time("last_at").map_or(entry.at, |last| last.min(entry.at));
    let first = time("first_at").map_or(last, |first| first.min(last));
    let counted = repeated.map_or(Some(1), |repeated| {
        // Servers of earlier releases give the count with the first one, which has an entry.
        let earlier = || repeated["count"].as_u64().map(|count| count.saturating_sub(1));
        repeated["since_last"].as_u64().or_else(earlier)
    });
    let slices = repeated.map_or_else(Vec::new, |repeated| slices_of(repeated, first, last));
    if slices.is_empty() {
        let count = counted.unwrap_or(1);
        return vec![Slice { first, last, count }];
    }
    slices
}

/// The slices that an entry of repeats has: seconds after the first of the hour, and amounts.
fn slices_of(repeated: &Value, first: Time, last: Time) -> Vec<Slice> {
    let at = |second: &Value| {
        let second = second.as_i64().filter(|second| (0..=86_400).contains(second))?;
        let at = Time::from_timestamp(first.timestamp() + second, 0)?;
        Some(at.clamp(first, last))
    };
    let slices = repeated["slices"].as_array().into_iter().flatten();
    let slices = slices.filter_map(|slice| {
        let (begin, end) = (at(&slice[0])?, at(&slice[1])?);
        Some(Slice {
            first: begin.min(end),
            last: end,
            count: slice[2].as_u64()?,
        })
    });
    slices.collect()
}

/// When what an entry counts happened last.
pub(crate) fn moment(entry: &AuditEntry) -> Time {
    let last = slices(entry).iter().map(|slice| slice.last).max();
    last.unwrap_or(entry.at)
}

/// The network that a request came from; its address where that is in none.
pub(crate) fn network_of(entry: &AuditEntry) -> Option<String> {
    let address = entry.address.as_ref()?;
    let network = Network::site(address.parse().ok());
    Some(network.map_or_else(|| address.clone(), |network| network.to_string()))
}

fn uuid_of(details: Option<&Value>, name: &str) -> Option<Uuid> {
    details?[name].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_sorted_and_their_defaults_are_allowed() {
        assert!(RULES.is_sorted_by_key(|rule| rule.id));
        for rule in &RULES {
            let RuleTerms {
                threshold,
                window_minutes,
                ..
            } = rule.defaults;
            assert!((1..=RuleTerms::MOST).contains(&threshold), "{}", rule.id);
            assert!((1..=RuleTerms::LONGEST).contains(&window_minutes), "{}", rule.id);
            assert!(rule.id.len() <= 40 && rule.about.ends_with('.'), "{}", rule.id);
        }
    }

    /// A caller without a credential locks no user out by causing alerts.
    #[test]
    fn no_rule_of_anonymous_callers_has_an_action() {
        let ends = RuleChange {
            action: Some(AlertAction::EndSessions),
            ..RuleChange::default()
        };
        for rule in &RULES {
            let action = rule.terms(Some(&ends), Some(&ends)).action;
            assert_eq!(action == AlertAction::EndSessions, rule.may_act(), "{}", rule.id);
            assert!(!(rule.anonymous && rule.may_act()), "{}", rule.id);
        }
    }

    #[test]
    fn tenant_overrides_operator_and_operator_overrides_the_catalogue() {
        let rule = Rule::find("failed_logins_account").unwrap();
        let of_operator = RuleChange {
            threshold: Some(9),
            window_minutes: Some(30),
            ..RuleChange::default()
        };
        let of_tenant = RuleChange {
            threshold: Some(3),
            enabled: Some(false),
            ..RuleChange::default()
        };
        let terms = rule.terms(Some(&of_operator), Some(&of_tenant));
        assert_eq!(
            (terms.enabled, terms.threshold, terms.window_minutes),
            (false, 3, 30)
        );
        let huge = RuleChange {
            threshold: Some(u32::MAX),
            window_minutes: Some(0),
            ..RuleChange::default()
        };
        let terms = rule.terms(Some(&huge), None);
        assert_eq!((terms.threshold, terms.window_minutes), (RuleTerms::MOST, 1));
    }
}
