use crate::kernel::{Period, Time};
use crate::usage::{MeterKey, Tally, quota::adjusted};

/// How the counter of a quota and the ledger differ.
///
/// The counter is what the limit is held against, the ledger is what happened. They need not agree: some requests take
/// nothing out of the quota, and what is taken out of it need not be recorded as usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaDrift {
    /// Key of the meter whose counter differs.
    pub meter: MeterKey,
    /// When.
    pub period: Period,
    /// What the counter says.
    pub tally: Tally,
    /// What the ledger says.
    pub ledger: u64,
    /// What an operator's correction adds to that, or takes from it.
    pub adjustment: i64,
    /// So much was lent to instances that never returned it, and counts as used.
    pub lost: u64,
}

/// What there is to say of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaFinding {
    /// There is none.
    Agrees,
    /// Instances hold parts of the quota: nothing can be said before they have returned them.
    Lent,
    /// The counter is ahead, and leases that nobody returned are why, at least in part: so much can be taken back.
    Lost(u64),
    /// The counter is ahead otherwise: of what is not recorded yet, or by what takes out of the quota and is no usage.
    Ahead,
    /// The ledger is ahead: of what is used without taking anything out of the quota.
    Behind,
}

impl QuotaDrift {
    /// How much more was counted than the ledger knows with the correction; negative where it knows more.
    pub fn difference(&self) -> i64 {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        signed(self.tally.used).saturating_sub(signed(self.by_ledger()))
    }

    /// What there is to say of it.
    pub fn finding(&self) -> QuotaFinding {
        let (mut tally, ledger) = (self.tally, self.by_ledger());
        match tally.reconcile(ledger, self.lost) {
            Err(_) => QuotaFinding::Lent,
            Ok(0) if self.tally.used == ledger => QuotaFinding::Agrees,
            Ok(0) if self.tally.used > ledger => QuotaFinding::Ahead,
            Ok(0) => QuotaFinding::Behind,
            Ok(back) => QuotaFinding::Lost(back),
        }
    }

    fn by_ledger(&self) -> u64 {
        adjusted(self.ledger, self.adjustment)
    }

    /// Whether the period is over at a moment, so that no request can use what is taken back.
    pub fn is_over(&self, at: Time) -> bool {
        self.period.end <= at
    }
}

impl QuotaFinding {
    /// Its name in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::Lent => "lent",
            Self::Lost(_) => "lost",
            Self::Ahead => "ahead",
            Self::Behind => "behind",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drift(used: u64, leased: u64, ledger: u64, lost: u64) -> QuotaDrift {
        QuotaDrift {
            meter: MeterKey::api_calls(),
            period: Period::day_of(Time::UNIX_EPOCH),
            tally: Tally {
                used,
                leased,
                reserved: 0,
            },
            ledger,
            adjustment: 0,
            lost,
        }
    }

    #[test]
    fn correction_by_an_operator_is_no_difference() {
        for (used, adjustment, finding) in [
            (40, -60, QuotaFinding::Agrees),
            (140, 40, QuotaFinding::Agrees),
            (0, -200, QuotaFinding::Agrees),
            (45, -60, QuotaFinding::Lost(5)),
            (39, -60, QuotaFinding::Behind),
        ] {
            let drift = QuotaDrift {
                adjustment,
                ..drift(used, 0, 100, 9)
            };
            assert_eq!(drift.finding(), finding, "{drift:?}");
        }
    }

    #[test]
    fn each_difference_has_a_name() {
        for (drift, finding) in [
            (drift(5, 0, 5, 0), QuotaFinding::Agrees),
            (drift(5, 0, 5, 9), QuotaFinding::Agrees),
            (drift(5, 1, 5, 0), QuotaFinding::Lent),
            (drift(15, 0, 5, 9), QuotaFinding::Lost(9)),
            (drift(15, 0, 12, 9), QuotaFinding::Lost(3)),
            (drift(15, 0, 5, 0), QuotaFinding::Ahead),
            (drift(5, 0, 15, 9), QuotaFinding::Behind),
        ] {
            assert_eq!(drift.finding(), finding, "{drift:?}");
        }
        assert_eq!(drift(5, 0, 15, 9).difference(), -10);
        let day = drift(0, 0, 0, 0);
        assert!(!day.is_over(Time::UNIX_EPOCH) && day.is_over(day.period.end));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_back_that_the_ledger_knows_or_that_was_not_lost(used: u64, ledger: u64, lost: u64) {
            let mut tally = drift(used, 0, ledger, lost).tally;
            let back = tally.reconcile(ledger, lost).unwrap();
            prop_assert!(back <= lost);
            prop_assert_eq!(tally.used, used - back);
            prop_assert!(back == 0 || tally.used >= ledger);
        }
    }
}
