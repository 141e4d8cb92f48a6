//! Amounts that are counted in memory, with the times at which they occurred, to a minute: the rules of suspicious activity count them
//! in the windows that they belong to.

use serde_json::{Value, json};
use tenantry_domain::kernel::Time;

/// The most seconds of a slice.
const SECONDS: u32 = 60;

/// What was counted, at most one slice a minute, from the oldest to the newest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slices(Vec<Slice>);

/// An amount, and the seconds since 1970 of the first and the last of it.
#[derive(Debug, Clone, Copy)]
struct Slice {
    first: u32,
    last: u32,
    amount: u32,
}

impl Slices {
    /// Adds an amount.
    pub(crate) fn add(&mut self, amount: u64, at: Time) {
        let second = second_of(at);
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        match self.0.last_mut() {
            // The clock of another thread may be a moment behind.
            Some(slice) if second < slice.first.saturating_add(SECONDS) => {
                slice.first = slice.first.min(second);
                slice.last = slice.last.max(second);
                slice.amount = slice.amount.saturating_add(amount);
            }
            _ => self.0.push(Slice {
                first: second,
                last: second,
                amount,
            }),
        }
    }

    /// Drops what occurred before a time.
    pub(crate) fn drop_before(&mut self, at: Time) {
        let second = second_of(at);
        self.0.retain(|slice| slice.last >= second);
    }

    /// When the first of it occurred.
    pub(crate) fn first(&self) -> Option<Time> {
        Time::from_timestamp(self.0.first()?.first.into(), 0)
    }

    /// How much it is.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|slice| u64::from(slice.amount)).sum()
    }

    /// The slices as an entry of the audit log has them: the first and the last second after `since`, and the amount.
    pub(crate) fn json(&self, since: Time) -> Value {
        let since = second_of(since);
        let slices = self.0.iter().map(|slice| {
            let after = |second: u32| second.saturating_sub(since);
            json!([after(slice.first), after(slice.last), slice.amount])
        });
        slices.collect()
    }
}

fn second_of(at: Time) -> u32 {
    u32::try_from(at.timestamp()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_a_minute_long_at_most() {
        let at = |second: i64| Time::from_timestamp(1_800_000_000 + second, 0).unwrap();
        let mut slices = Slices::default();
        for second in [5, 4, 30, 64, 65, 300] {
            slices.add(2, at(second));
        }
        assert_eq!(
            slices.json(at(0)),
            json!([[4, 30, 6], [64, 65, 4], [300, 300, 2]])
        );
        assert_eq!((slices.total(), slices.first()), (12, Some(at(4))));
        slices.drop_before(at(65));
        assert_eq!(slices.json(at(0)), json!([[64, 65, 4], [300, 300, 2]]));
    }
}
