use chrono::Duration;

use crate::kernel::Time;
use crate::kernel::name::named_enum;

named_enum! {
    /// Where a tenant stands whose payment may have failed.
    pub enum DunningState {
        /// Nothing is owed, or nobody has tried to collect it yet.
        Healthy = "healthy",
        /// A payment has failed; everything still works.
        Grace = "grace",
        /// Grace is over: the tenant may read, export and pay.
        Suspended = "suspended",
    }
}

named_enum! {
    /// A step of dunning; people are told of each.
    pub enum DunningStep {
        /// A payment has failed: grace begins.
        PaymentFailed = "payment_failed",
        /// Grace ends in three days.
        SuspensionAhead = "suspension_ahead",
        /// Grace is over: the tenant becomes read-only.
        Suspended = "suspended",
        /// The tenant is deleted in seven days.
        DeletionAhead = "deletion_ahead",
        /// The tenant is deleted.
        Deleted = "deleted",
        /// Everything is paid.
        Recovered = "recovered",
    }
}

impl DunningStep {
    /// The entry of the audit log that tells of it.
    pub const fn notice(self) -> &'static str {
        match self {
            Self::PaymentFailed => "billing.notice.payment_failed",
            Self::SuspensionAhead => "billing.notice.suspension_ahead",
            Self::Suspended => "billing.notice.suspended",
            Self::DeletionAhead => "billing.notice.deletion_ahead",
            Self::Deleted => "billing.notice.deleted",
            Self::Recovered => "billing.notice.recovered",
        }
    }

    const fn state(self) -> DunningState {
        match self {
            Self::PaymentFailed | Self::SuspensionAhead => DunningState::Grace,
            Self::Suspended | Self::DeletionAhead | Self::Deleted => DunningState::Suspended,
            Self::Recovered => DunningState::Healthy,
        }
    }
}

/// How much patience there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DunningTerms {
    /// For how many days after a failed payment everything still works; the plan's.
    pub grace_days: u32,
    /// So many days after the suspension the tenant is deleted; `None` means never.
    pub delete_after_days: Option<u32>,
}

impl DunningTerms {
    /// So long before the suspension it is told.
    const SUSPENSION_TOLD: Duration = Duration::days(3);
    /// So long before the deletion it is told.
    const DELETION_TOLD: Duration = Duration::days(7);

    /// What happens when, after a payment that failed then and as long as nothing is paid: in the order of time. What
    /// would be told in advance of something that is nearer than that is left out.
    pub fn timetable(&self, failed_at: Time) -> Vec<(Time, DunningStep)> {
        let grace = Duration::days(i64::from(self.grace_days));
        let suspended_at = failed_at + grace;
        let mut steps = vec![(failed_at, DunningStep::PaymentFailed)];
        if grace > Self::SUSPENSION_TOLD {
            steps.push((suspended_at - Self::SUSPENSION_TOLD, DunningStep::SuspensionAhead));
        }
        steps.push((suspended_at, DunningStep::Suspended));
        if let Some(days) = self.delete_after_days {
            let rest = Duration::days(i64::from(days));
            let deleted_at = suspended_at + rest;
            if rest > Self::DELETION_TOLD {
                steps.push((deleted_at - Self::DELETION_TOLD, DunningStep::DeletionAhead));
            }
            steps.push((deleted_at, DunningStep::Deleted));
        }
        steps
    }
}

/// How far dunning has come with a tenant. It is driven by what is known of payments and by the time, and asks neither
/// for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dunning {
    /// Where the tenant stands.
    pub state: DunningState,
    /// Since when something is owed: when the oldest invoice was made that could not be collected.
    pub failed_at: Option<Time>,
    /// How many steps of the timetable have been taken.
    pub steps: u32,
    /// When the next is due.
    pub next_at: Option<Time>,
}

impl Dunning {
    /// Nothing is owed.
    pub const HEALTHY: Self = Self {
        state: DunningState::Healthy,
        failed_at: None,
        steps: 0,
        next_at: None,
    };

    /// Takes in what is known of payments now: since when something is owed, if anything is. Gives the steps that are
    /// taken by that, in order.
    ///
    /// Whoever has paid is healthy at once. When the debt is another one than before (the oldest invoice was paid and a
    /// later one is not) the timetable begins anew from that one. Called again at the same time it takes no further step.
    pub fn observe(&mut self, failed_at: Option<Time>, terms: DunningTerms, now: Time) -> Vec<DunningStep> {
        let Some(since) = failed_at else {
            let owed = self.failed_at.is_some();
            *self = Self::HEALTHY;
            return owed.then_some(DunningStep::Recovered).into_iter().collect();
        };
        if self.failed_at != failed_at {
            *self = Self {
                state: DunningState::Grace,
                failed_at,
                ..Self::HEALTHY
            };
        }
        let timetable = terms.timetable(since);
        let mut taken = Vec::new();
        for (at, step) in timetable.iter().skip(self.steps as usize) {
            if *at > now {
                break;
            }
            self.state = step.state();
            self.steps += 1;
            taken.push(*step);
        }
        self.next_at = timetable.get(self.steps as usize).map(|(at, _)| *at);
        taken
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use proptest::prelude::*;

    use super::*;

    const WEEK: DunningTerms = DunningTerms {
        grace_days: 7,
        delete_after_days: Some(30),
    };

    fn day(day: i64) -> Time {
        chrono::Utc.timestamp_opt(1_700_000_000, 0).unwrap() + Duration::days(day)
    }

    #[test]
    fn the_timetable_of_a_week_of_grace() {
        let days: Vec<_> = WEEK
            .timetable(day(0))
            .into_iter()
            .map(|(at, step)| ((at - day(0)).num_days(), step))
            .collect();
        assert_eq!(
            days,
            [
                (0, DunningStep::PaymentFailed),
                (4, DunningStep::SuspensionAhead),
                (7, DunningStep::Suspended),
                (30, DunningStep::DeletionAhead),
                (37, DunningStep::Deleted),
            ]
        );
    }

    #[test]
    fn it_goes_step_by_step_and_catches_up_when_nobody_looked() {
        let mut dunning = Dunning::HEALTHY;
        assert_eq!(
            dunning.observe(Some(day(0)), WEEK, day(0)),
            [DunningStep::PaymentFailed]
        );
        assert_eq!(
            (dunning.state, dunning.next_at),
            (DunningState::Grace, Some(day(4)))
        );
        assert_eq!(dunning.observe(Some(day(0)), WEEK, day(3)), []);
        assert_eq!(
            dunning.observe(Some(day(0)), WEEK, day(9)),
            [DunningStep::SuspensionAhead, DunningStep::Suspended]
        );
        assert_eq!(
            (dunning.state, dunning.next_at),
            (DunningState::Suspended, Some(day(30)))
        );
        assert_eq!(dunning.observe(None, WEEK, day(9)), [DunningStep::Recovered]);
        assert_eq!(dunning, Dunning::HEALTHY);
        assert_eq!(dunning.observe(None, WEEK, day(9)), []);
    }

    #[test]
    fn another_debt_has_a_timetable_of_its_own() {
        let mut dunning = Dunning::HEALTHY;
        dunning.observe(Some(day(0)), WEEK, day(8));
        assert_eq!(dunning.state, DunningState::Suspended);
        assert_eq!(
            dunning.observe(Some(day(6)), WEEK, day(8)),
            [DunningStep::PaymentFailed]
        );
        assert_eq!(
            (dunning.state, dunning.next_at),
            (DunningState::Grace, Some(day(10)))
        );
    }

    #[test]
    fn without_grace_the_suspension_is_at_once() {
        let terms = DunningTerms {
            grace_days: 0,
            delete_after_days: None,
        };
        let mut dunning = Dunning::HEALTHY;
        let taken = dunning.observe(Some(day(0)), terms, day(0));
        assert_eq!(taken, [DunningStep::PaymentFailed, DunningStep::Suspended]);
        assert_eq!((dunning.state, dunning.next_at), (DunningState::Suspended, None));
    }

    fn terms() -> impl Strategy<Value = DunningTerms> {
        (0_u32..60, prop::option::of(0_u32..90)).prop_map(|(grace_days, delete_after_days)| DunningTerms {
            grace_days,
            delete_after_days,
        })
    }

    proptest! {
        #[test]
        fn a_timetable_never_goes_back_and_begins_with_the_failure(terms in terms(), failed in -1_000_i64..1_000) {
            let timetable = terms.timetable(day(failed));
            prop_assert_eq!(timetable[0], (day(failed), DunningStep::PaymentFailed));
            prop_assert!(timetable.is_sorted_by_key(|(at, _)| *at));
        }

        /// Whatever is observed in whatever order: nobody is suspended before their grace is over or in spite of having
        /// paid, no step is taken twice for a debt, and how often it is looked at makes no difference.
        #[test]
        fn the_machine_keeps_its_promises(
            terms in terms(), observed in prop::collection::vec((0_i64..100, prop::option::of(0_i64..100)), 1..40),
        ) {
            let mut dunning = Dunning::HEALTHY;
            let mut now = 0;
            let mut taken_of_debt: Vec<DunningStep> = Vec::new();
            for (wait, failed) in observed {
                now += wait;
                let failed_at = failed.map(|ago| day(now - ago));
                if failed_at != dunning.failed_at {
                    taken_of_debt.clear();
                }
                let mut rarely = Dunning::HEALTHY;
                rarely.observe(failed_at, terms, day(now));
                let taken = dunning.observe(failed_at, terms, day(now));
                for step in taken {
                    prop_assert!(!taken_of_debt.contains(&step));
                    taken_of_debt.push(step);
                }
                prop_assert_eq!(dunning, rarely, "it depends on the debt and the time alone");
                match failed_at {
                    None => prop_assert_eq!(dunning, Dunning::HEALTHY),
                    Some(since) => {
                        let over = day(now) >= since + Duration::days(i64::from(terms.grace_days));
                        prop_assert_eq!(dunning.state == DunningState::Suspended, over);
                        prop_assert!(dunning.next_at.is_none_or(|next| next > day(now)));
                    }
                }
            }
            dunning.observe(None, terms, day(now));
            prop_assert_eq!(dunning, Dunning::HEALTHY, "paying always heals");
        }
    }
}
