use std::collections::BTreeMap;

use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::audit::AuditEntry;
use crate::kernel::Time;
use crate::security::alert::AlertKey;
use crate::security::rule::{By, RULES, Rule, RuleTerms, moment, network_of, weight};
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
    windows: BTreeMap<String, Window>,
    /// The networks that API keys were used from.
    networks: BTreeMap<String, Vec<String>>,
    /// When the last mail about a rule was sent.
    mailed: BTreeMap<String, Time>,
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

    /// Reads entries with their numbers, and returns what the rules count of them, by alert. Entries up to
    /// [`Detection::sequence`] are passed over, which this moves.
    pub fn read(
        &mut self,
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
                let Some(subject) = rule.subject(entry) else {
                    continue;
                };
                let hits = Hits::one(weight(entry), moment(entry), rule.part(entry), entry.id);
                let of_key = found.entry(AlertKey { rule, subject });
                let of_key = of_key.or_insert_with(|| FoundHits(Window::new(terms.window())));
                of_key.0.add(&hits);
            }
        }
        found
    }

    /// Counts what was found for an alert that is not open. Returns what was counted when that reaches the threshold; then
    /// counting begins anew.
    pub fn count(&mut self, key: &AlertKey, found: &FoundHits, terms: RuleTerms) -> Option<Hits> {
        let name = key.name();
        let mut window = Window::new(terms.window());
        if let Some(before) = self.windows.remove(&name) {
            window.add_all(&before);
        }
        window.add_all(&found.0);
        let reached = window.reached(terms.threshold, key.rule.all_parts());
        if reached.is_none() {
            window.prune();
            self.windows.insert(name, window);
        }
        reached
    }

    /// Whether a mail about a rule may be sent now, which is noted.
    pub fn may_mail(&mut self, rule: &Rule, now: Time) -> bool {
        let is_recent = |last: &Time| now - *last < rule.mail_pause();
        if self.mailed.get(rule.id).is_some_and(is_recent) {
            return false;
        }
        self.mailed.insert(rule.id.to_owned(), now);
        true
    }

    /// Drops what raises no alert any more, so that the size is bounded.
    pub fn prune(&mut self, now: Time) {
        let since = now - Self::oldest();
        self.windows
            .retain(|_, window| window.last().is_some_and(|last| last >= since));
        while self.windows.len() > SUBJECTS {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.last());
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.windows.remove(&oldest);
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
        if !self.networks.contains_key(&key) && self.networks.len() >= KEYS {
            self.networks.pop_first();
        }
        let known = self.networks.entry(key).or_default();
        if known.contains(&network) || known.len() >= NETWORKS {
            return false;
        }
        known.push(network);
        known.len() > 1
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
