use std::collections::HashMap;

use async_trait::async_trait;

use crate::kernel::name::named_enum;
use crate::kernel::{AuditEventId, Page, PageRequest, SecurityAlertId, StoreError, Time, UserId};
use crate::security::rule::{AlertAction, Rule, Severity, Subject};
use crate::security::window::Hits;

named_enum! {
    /// Whether an admin has looked at an alert.
    pub enum AlertState {
        /// Nobody has looked at it.
        Open = "open",
        /// An admin has.
        Acknowledged = "acknowledged",
    }
}

/// What there is one open alert of: a rule and a subject.
#[derive(Debug, Clone)]
pub struct AlertKey {
    /// What was broken: an entry of the catalogue of rules.
    pub rule: &'static Rule,
    /// Who or what broke it.
    pub subject: Subject,
}

impl AlertKey {
    /// The key as one text.
    pub fn name(&self) -> String {
        key_name(self.rule.id, &self.subject)
    }

    fn ordered(&self) -> (&'static str, &Subject) {
        (self.rule.id, &self.subject)
    }
}

impl PartialEq for AlertKey {
    fn eq(&self, other: &Self) -> bool {
        self.ordered() == other.ordered()
    }
}

impl Eq for AlertKey {}

impl PartialOrd for AlertKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.ordered().cmp(&other.ordered())
    }
}

fn key_name(rule: &str, subject: &Subject) -> String {
    format!("{rule}/{}", subject.name())
}

/// An alert: a rule has counted too much of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Identifies the alert within the tenant.
    pub id: SecurityAlertId,
    /// When it was raised.
    pub created_at: Time,
    /// The name of the rule.
    pub rule: String,
    /// What it is about.
    pub subject: Subject,
    /// How much was counted. It grows while the alert is open.
    pub count: i64,
    /// When the first of it happened.
    pub first_at: Time,
    /// When the last of it happened.
    pub last_at: Time,
    /// How important it is.
    pub severity: Severity,
    /// Whether an admin has looked at it.
    pub state: AlertState,
    /// The ids of the newest entries of the audit log that were counted.
    pub evidence: Vec<AuditEventId>,
    /// What was done to the user that it is about; to one of several, where it is about the tenant.
    pub action: AlertAction,
    /// When that was done last.
    pub acted_at: Option<Time>,
    /// When it was acknowledged.
    pub acknowledged_at: Option<Time>,
    /// The admin who did; `None` while it is open.
    pub acknowledged_by: Option<UserId>,
    /// What the admin has noted.
    pub note: Option<String>,
}

impl Alert {
    /// The most characters of a note.
    pub const LONGEST_NOTE: usize = 1_000;

    /// The most open alerts of one rule. What is found beyond them is counted in one alert about the tenant.
    pub const MOST_OPEN: u64 = 100;

    /// The most open alerts of one rule while it does something to the users that they are about. An alert of its own shows what was done
    /// to each of them.
    pub const MOST_ACTING: u64 = 1_000;

    /// A new alert.
    pub fn raised(id: SecurityAlertId, key: &AlertKey, hits: &Hits, now: Time) -> Self {
        Self {
            id,
            created_at: now,
            rule: key.rule.id.to_owned(),
            subject: key.subject.clone(),
            count: i64::try_from(hits.count).unwrap_or(i64::MAX),
            first_at: hits.first,
            last_at: hits.last,
            severity: key.rule.severity,
            state: AlertState::Open,
            evidence: hits.evidence.iter().copied().collect(),
            action: AlertAction::Nothing,
            acted_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
            note: None,
        }
    }

    /// Adds what was counted since.
    pub fn add(&mut self, hits: &Hits) {
        let mut all = hits.clone();
        all.merge(&Hits {
            count: self.count.unsigned_abs(),
            first: self.first_at,
            last: self.last_at,
            parts: 0,
            evidence: self.evidence.iter().copied().collect(),
        });
        self.count = i64::try_from(all.count).unwrap_or(i64::MAX);
        (self.first_at, self.last_at) = (all.first, all.last);
        self.evidence = all.evidence.into_iter().collect();
    }

    /// Notes what was done.
    pub fn acted(&mut self, action: AlertAction, now: Time) {
        (self.action, self.acted_at) = (action, Some(now));
    }

    /// The key of its rule and subject: [`AlertKey::name`].
    pub fn open_key(&self) -> String {
        key_name(&self.rule, &self.subject)
    }

    /// Acknowledges it. One that is acknowledged stays as it is.
    pub fn acknowledge(&mut self, by: Option<UserId>, note: Option<String>, now: Time) {
        if self.state == AlertState::Open {
            self.state = AlertState::Acknowledged;
            self.acknowledged_at = Some(now);
            self.acknowledged_by = by;
            self.note = note;
        }
    }
}

/// Which alerts are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// Only in this state.
    pub state: Option<AlertState>,
    /// Only of this rule.
    pub rule: Option<String>,
    /// Only of this severity.
    pub severity: Option<Severity>,
}

/// The alerts of the scope's tenant.
#[async_trait]
pub trait Alerts: Send {
    /// Returns an alert.
    async fn find(&mut self, id: SecurityAlertId) -> Result<Option<Alert>, StoreError>;

    /// Returns an alert, locked until the transaction ends.
    async fn find_for_update(&mut self, id: SecurityAlertId) -> Result<Option<Alert>, StoreError>;

    /// A page of alerts, newest first.
    async fn list(&mut self, filter: &AlertFilter, page: PageRequest) -> Result<Page<Alert>, StoreError>;

    /// The open alerts of these keys ([`AlertKey::name`]), locked until the transaction ends.
    async fn open_for_update(&mut self, keys: &[String]) -> Result<HashMap<String, Alert>, StoreError>;

    /// How many alerts of a rule are open.
    async fn count_open(&mut self, rule: &str) -> Result<u64, StoreError>;

    /// When an alert last asked for the second factor of a user again.
    async fn last_step_up(&mut self, user: UserId) -> Result<Option<Time>, StoreError>;

    /// Stores a new alert.
    async fn insert(&mut self, alert: &Alert) -> Result<(), StoreError>;

    /// Stores a changed alert.
    async fn update(&mut self, alert: &Alert) -> Result<(), StoreError>;

    /// Deletes alerts that were acknowledged before a time, at most so many. Returns how many.
    async fn delete_acknowledged(&mut self, before: Time, at_most: u64) -> Result<u64, StoreError>;
}
