use std::collections::{BTreeMap, BTreeSet};

use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::kernel::{AuditEventId, Time};

/// How many entries are named as evidence: the newest.
const EVIDENCE: usize = 20;

/// Into how many parts a window is divided. What is counted is exact to one of them.
const PARTS: i64 = 60;

/// What was counted: how much, when, and by which entries. Two are merged in any order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// How much.
    pub count: u64,
    /// When the first happened.
    pub first: Time,
    /// When the last happened.
    pub last: Time,
    /// Which parts of the rule occurred, as bits.
    pub(crate) parts: u8,
    /// The ids of the newest entries.
    pub evidence: BTreeSet<AuditEventId>,
}

impl Hits {
    /// One entry.
    pub(crate) fn one(count: u64, at: Time, parts: u8, entry: AuditEventId) -> Self {
        Self {
            count,
            first: at,
            last: at,
            parts,
            evidence: BTreeSet::from([entry]),
        }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.parts |= other.parts;
        self.evidence.extend(&other.evidence);
        while self.evidence.len() > EVIDENCE {
            self.evidence.pop_first();
        }
    }

    /// All of these together.
    pub(crate) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let mut sum = all.next()?.clone();
        all.for_each(|one| sum.merge(one));
        Some(sum)
    }
}

/// What was counted of one subject by one rule, in parts of the rule's window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// The length of a part, in seconds.
    part_seconds: i64,
    parts: BTreeMap<i64, Hits>,
}

impl Window {
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            part_seconds: part_seconds(length),
            parts: BTreeMap::new(),
        }
    }

    /// Adds what was counted.
    pub(crate) fn add(&mut self, hits: &Hits) {
        let part = hits.last.timestamp().div_euclid(self.part_seconds.max(1));
        match self.parts.get_mut(&part) {
            Some(known) => known.merge(hits),
            None => {
                self.parts.insert(part, hits.clone());
            }
        }
    }

    /// Adds what another window has, also when its parts have another length.
    pub(crate) fn add_all(&mut self, other: &Self) {
        other.parts.values().for_each(|hits| self.add(hits));
    }

    /// What was counted in the window with the most, of those that reach the threshold and have all parts of the rule.
    pub(crate) fn reached(&self, threshold: u32, all_parts: u8) -> Option<Hits> {
        let sums = self.parts.keys().filter_map(|end| {
            let within = self.parts.range(end - PARTS + 1..=*end).map(|(_, hits)| hits);
            Hits::sum(within)
        });
        let reaching = sums.filter(|sum| sum.count >= threshold.into() && sum.parts == all_parts);
        reaching.reduce(|most, sum| if sum.count > most.count { sum } else { most })
    }

    /// Drops what can be in no window any more. Entries that are chained late may be a window's length older than others.
    pub(crate) fn prune(&mut self) {
        if let Some((newest, _)) = self.parts.last_key_value() {
            let oldest = newest - 2 * PARTS;
            self.parts.retain(|part, _| *part > oldest);
        }
    }

    /// When the last happened.
    pub(crate) fn last(&self) -> Option<Time> {
        self.parts.values().map(|hits| hits.last).max()
    }

    /// All that is in it.
    pub(crate) fn total(&self) -> Option<Hits> {
        Hits::sum(self.parts.values())
    }
}

fn part_seconds(length: Duration) -> i64 {
    (length.num_seconds() / PARTS).max(1)
}
