use std::collections::{BTreeMap, BTreeSet};

use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::kernel::{AuditEventId, Time};

/// How many entries are named as evidence: the newest.
const EVIDENCE: usize = 20;

/// Into how many parts a window is divided. What is counted is exact to one of them.
const PARTS: i64 = 60;

/// An amount, and when the first and the last of it occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) first: Time,
    pub(crate) last: Time,
    pub(crate) count: u64,
}

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
    /// A slice of one entry.
    pub(crate) fn one(slice: Slice, parts: u8, entry: AuditEventId) -> Self {
        Self {
            count: slice.count,
            first: slice.first,
            last: slice.last,
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
///
/// An amount that extends over several parts is counted in the windows that have all of them, so an alert never counts more than there
/// was within the window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// The length of a part, in seconds.
    part_seconds: i64,
    /// By the part in which the last occurred, and within that by the part in which the first did.
    spans: BTreeMap<i64, BTreeMap<i64, Hits>>,
}

impl Window {
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            part_seconds: (length.num_seconds() / PARTS).max(1),
            spans: BTreeMap::new(),
        }
    }

    /// Adds what was counted.
    pub(crate) fn add(&mut self, hits: &Hits) {
        let part = |at: Time| at.timestamp().div_euclid(self.part_seconds.max(1));
        let (first, last) = (part(hits.first), part(hits.last));
        let ending = self.spans.entry(last).or_default();
        match ending.get_mut(&first) {
            Some(known) => known.merge(hits),
            None => {
                ending.insert(first, hits.clone());
            }
        }
    }

    /// Adds what another window has, also when its parts have another length.
    pub(crate) fn add_all(&mut self, other: &Self) {
        other.all().for_each(|hits| self.add(hits));
    }

    /// What was counted in the window with the most, of those that reach the threshold and have all parts of the rule.
    pub(crate) fn reached(&self, threshold: u32, all_parts: u8) -> Option<Hits> {
        let sums = self.spans.keys().filter_map(|end| {
            let begin = end - PARTS + 1;
            let ending = self.spans.range(begin..=*end).map(|(_, ending)| ending);
            Hits::sum(ending.flat_map(|ending| ending.range(begin..).map(|(_, hits)| hits)))
        });
        let reaching = sums.filter(|sum| sum.count >= threshold.into() && sum.parts == all_parts);
        reaching.reduce(|most, sum| if sum.count > most.count { sum } else { most })
    }

    /// Drops what can be in no window any more. Entries that are chained late may be a window's length older than others.
    pub(crate) fn prune(&mut self) {
        if let Some((newest, _)) = self.spans.last_key_value() {
            let oldest = newest - 2 * PARTS;
            self.spans.retain(|part, _| *part > oldest);
        }
    }

    /// Whether nothing in it can be in a window with what occurs at `now` or later, a window's length for late entries included.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        let kept = Duration::seconds(self.part_seconds.saturating_mul(2 * PARTS));
        self.last().is_none_or(|last| now - last >= kept)
    }

    /// When the last happened.
    pub(crate) fn last(&self) -> Option<Time> {
        self.all().map(|hits| hits.last).max()
    }

    /// All that is in it.
    pub(crate) fn total(&self) -> Option<Hits> {
        Hits::sum(self.all())
    }

    fn all(&self) -> impl Iterator<Item = &Hits> {
        self.spans.values().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(first: i64, last: i64, count: u64) -> Hits {
        let at = |second| Time::UNIX_EPOCH + Duration::seconds(second);
        let slice = Slice {
            first: at(first),
            last: at(last),
            count,
        };
        Hits::one(slice, 1, uuid::Uuid::nil().into())
    }

    /// Five at the beginning of an entry's time and five at its end are no ten within a minute.
    #[test]
    fn amount_counts_in_windows_that_have_all_of_its_time() {
        let mut window = Window::new(Duration::minutes(1));
        window.add(&hits(0, 100, 10));
        assert_eq!(window.reached(10, 1), None);
        window.add(&hits(100, 130, 9));
        assert_eq!(window.reached(10, 1), None);
        window.add(&hits(158, 158, 1));
        let reached = window.reached(10, 1).unwrap();
        let since = reached.first.timestamp();
        assert_eq!((reached.count, since, reached.last.timestamp()), (10, 100, 158));
    }
}
