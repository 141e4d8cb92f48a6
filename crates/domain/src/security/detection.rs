use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::audit::AuditEntry;
use crate::kernel::{SecurityDetectionId, StoreError, TenantId, Time};
use crate::security::alert::{Alert, AlertKey};
use crate::security::mail_pauses::{MailDecision, MailPauses};
use crate::security::notice::AlertNotice;
use crate::security::rule::{By, RULES, Rule, RuleTerms, moment, network_of, slices};
use crate::security::window::{Hits, Window};

/// The most subjects of a tenant that are counted at a time. Those whose last entry is the oldest are dropped.
const SUBJECTS: usize = 2_000;

/// The most API keys whose networks are known, and the most networks of one. A key with more networks raises no alert for another.
const KEYS: usize = 1_000;
const NETWORKS: usize = 20;

/// What the rules of a tenant have counted, up to an entry of its audit log.
///
/// It is a function of the entries: the order within a batch changes nothing, and entries that were counted are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detection {
    /// The number of the last entry that was read.
    #[serde(skip)]
    pub sequence: i64,
    /// What was counted and raised no alert yet: by the keys of alerts.
    subjects: BTreeMap<String, Window>,
    /// Where API keys were used from, by their ids.
    keys: BTreeMap<String, KeyNetworks>,
    /// The mails that were sent and held back, by the names of rules.
    mails: BTreeMap<String, MailPauses>,
}

/// The networks that an API key was used from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeyNetworks {
    /// When one of them was recorded last.
    used: Time,
    networks: Vec<String>,
}

impl Detection {
    /// Nothing was counted yet, and entries are read behind a number.
    pub fn beginning_at(sequence: i64) -> Self {
        Self {
            sequence,
            ..Self::default()
        }
    }

    /// How far back entries are counted. What is older when it is read raises no alert.
    pub fn oldest() -> Duration {
        Duration::days(1)
    }

    /// Reads entries of a tenant with their numbers, and returns what the rules count of them, by alert. Entries up to
    /// [`Detection::sequence`] are passed over, which this moves.
    pub fn read(
        &mut self,
        tenant: TenantId,
        entries: &[(i64, AuditEntry)],
        terms: impl Fn(&Rule) -> RuleTerms,
        now: Time,
    ) -> BTreeMap<AlertKey, FoundHits> {
        let since = now - Self::oldest();
        let new = entries.iter().filter(|(sequence, _)| *sequence > self.sequence);
        let mut new: Vec<_> = new.map(|(_, entry)| entry).collect();
        let last = entries.iter().map(|(sequence, _)| *sequence).max();
        self.sequence = self.sequence.max(last.unwrap_or_default());
        new.retain(|entry| moment(entry) >= since);
        new.sort_by_key(|entry| (entry.at, entry.id));
        let mut found: BTreeMap<AlertKey, FoundHits> = BTreeMap::new();
        for rule in &RULES {
            let terms = terms(rule);
            for entry in new.iter().filter(|entry| rule.part(entry) != 0) {
                // Networks of keys are learned while the rule is off, too.
                if !self.is_novel(rule, entry) || !terms.enabled {
                    continue;
                }
                let Some(subject) = rule.subject(tenant, entry) else {
                    continue;
                };
                let of_key = found.entry(AlertKey { rule, subject });
                let of_key = of_key.or_insert_with(|| FoundHits(Window::new(terms.window())));
                for slice in slices(entry) {
                    of_key.0.add(&Hits::one(slice, rule.part(entry), entry.id));
                }
            }
        }
        found
    }

    /// Counts what was found for an alert that is not open. Returns what was counted when that reaches the threshold; then
    /// counting begins anew.
    pub fn count(&mut self, key: &AlertKey, found: &FoundHits, terms: RuleTerms) -> Option<Hits> {
        let name = key.name();
        let mut window = Window::new(terms.window());
        if let Some(before) = self.subjects.remove(&name) {
            window.add_all(&before);
        }
        window.add_all(&found.0);
        let reached = window.reached(terms.threshold, key.rule.all_parts());
        if reached.is_none() {
            window.prune();
            self.subjects.insert(name, window);
        }
        reached
    }

    /// Forgets what was counted of the rule and subject of an alert, so that counting begins anew. Returns whether there was anything.
    pub fn forget(&mut self, alert: &Alert) -> bool {
        self.subjects.remove(&alert.open_key()).is_some()
    }

    /// Decides whether an alert is mailed now, which is noted.
    pub fn decide_mail(&mut self, rule: &Rule, notice: &AlertNotice, now: Time) -> MailDecision {
        let mails = self.mails.entry(rule.id.to_owned()).or_default();
        mails.decide(rule, notice, now)
    }

    /// Takes the notice of the alerts of a rule that were held back, which is sent now.
    pub fn take_held(&mut self, rule: &Rule, now: Time) -> Option<AlertNotice> {
        self.mails.get_mut(rule.id)?.take_held(now)
    }

    /// Whether what it has counted, known or mailed differs, whatever was read.
    pub fn differs_from(&self, other: &Self) -> bool {
        (&self.subjects, &self.keys, &self.mails) != (&other.subjects, &other.keys, &other.mails)
    }

    /// Drops what raises no alert any more, so that the size is bounded. `read_to` is the time of the newest entry that was read: a log
    /// may be read late.
    pub fn prune(&mut self, read_to: Time, now: Time) {
        let reached = read_to.min(now);
        self.subjects.retain(|_, window| !window.is_over(reached));
        self.mails
            .retain(|rule, mails| mails.is_needed(Rule::find(rule), now));
        while self.subjects.len() > SUBJECTS {
            let oldest = self.subjects.iter().min_by_key(|(_, window)| window.last());
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.subjects.remove(&oldest);
        }
    }

    /// Whether an entry is one that the rule counts, where that depends on what was seen before. The first network of an API key is no news.
    fn is_novel(&mut self, rule: &Rule, entry: &AuditEntry) -> bool {
        if rule.by != By::KeyOfNewNetwork {
            return true;
        }
        let (Some(key), Some(network)) = (entry.entity_id, network_of(entry)) else {
            return false;
        };
        let key = key.to_string();
        if !self.keys.contains_key(&key) && self.keys.len() >= KEYS {
            let unused = self.keys.iter().min_by_key(|(_, known)| known.used);
            if let Some(unused) = unused.map(|(key, _)| key.clone()) {
                self.keys.remove(&unused);
            }
        }
        let known = self.keys.entry(key).or_default();
        known.used = known.used.max(entry.at);
        if known.networks.contains(&network) || known.networks.len() >= NETWORKS {
            return false;
        }
        known.networks.push(network);
        known.networks.len() > 1
    }
}

/// What a batch of entries has for one alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundHits(Window);

impl FoundHits {
    /// All of it.
    pub fn total(&self) -> Option<Hits> {
        self.0.total()
    }
}

/// What the rules of the scope's tenant have counted.
#[async_trait]
pub trait Detections: Send {
    /// What was counted, locked until the transaction ends.
    async fn current_for_update(&mut self) -> Result<Option<Detection>, StoreError>;

    /// Up to which entry the log of a tenant is not read that is read for the first time: that before the first block with an
    /// entry since then; `None` when there is no such block.
    async fn begin_since(&mut self, since: Time) -> Result<Option<i64>, StoreError>;

    /// Stores what was counted for the first time. Of two callers at once one fails with [`StoreError::Unique`].
    async fn insert(
        &mut self,
        id: SecurityDetectionId,
        detection: &Detection,
        now: Time,
    ) -> Result<(), StoreError>;

    /// Stores what was counted.
    async fn update(&mut self, detection: &Detection) -> Result<(), StoreError>;

    /// Stores up to which entry the log was read, where nothing that was counted has changed.
    async fn update_sequence(&mut self, sequence: i64) -> Result<(), StoreError>;
}
