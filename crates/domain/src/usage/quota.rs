//! Quotas: how much of a meter a tenant may use in a period, and who holds which part of it.
//!
//! The rule that everything here keeps: `used + reserved + leased` is never raised beyond the hard limit. What is
//! leased or reserved is spoken for before anybody uses it, so whoever uses it later asks nobody. A lease that
//! nobody returned in time counts as used in full: expiry makes nothing free, and so no clock has to be trusted for the
//! limit to hold. Who held the lease may still tell the truth afterwards ([`Tally::correct`]).

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kernel::name::named_enum;
use crate::kernel::{
    Limit, Page, PageRequest, Period, QuotaAlertId, QuotaCounterId, QuotaLeaseId, QuotaReservationId,
    StoreError, SystemScope, TenantId, Time,
};
use crate::usage::{Aggregation, MeterKey, MeterTerms};

/// The most that a quota counts up to: what the database's whole numbers hold.
pub const MOST_UNITS: u64 = i64::MAX.cast_unsigned();

/// Into how many parts what is free is cut before an instance gets one of them.
const PARTS: u64 = 4;

/// The hard limit does not allow it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("of {limit} {meter} in this period {used} are used or spoken for")]
pub struct QuotaExceeded {
    /// Key of the limited meter.
    pub meter: MeterKey,
    /// How much of a period is possible.
    pub limit: u64,
    /// How much of that is used, reserved, or lent to instances that may use it yet.
    pub used: u64,
    /// When the next period begins.
    pub resets_at: Time,
    /// When it was asked.
    pub asked_at: Time,
}

impl QuotaExceeded {
    /// In how many seconds the next period begins: rounded up, at least one.
    pub fn retry_after_seconds(&self) -> u64 {
        let millis = (self.resets_at - self.asked_at)
            .num_milliseconds()
            .max(1)
            .cast_unsigned();
        millis.div_ceil(1_000)
    }
}

/// What is counted of one meter in one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// What was used.
    pub used: u64,
    /// What open reservations hold.
    pub reserved: u64,
    /// What instances hold and have not said to have used.
    pub leased: u64,
}

/// There is not so much left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is not so much left")]
pub struct NotEnough;

/// Parts of a quota are lent out, so nobody can say how much is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parts of the quota are lent out")]
pub struct StillLent;

impl Tally {
    /// What is used or spoken for.
    pub const fn taken(self) -> u64 {
        self.used
            .saturating_add(self.reserved)
            .saturating_add(self.leased)
    }

    /// What is left under a limit; nothing where the limit was lowered below what is taken.
    pub const fn free(self, limit: Limit) -> u64 {
        let most = match limit {
            Limit::Of(most) if most < MOST_UNITS => most,
            Limit::Of(_) | Limit::Unlimited => MOST_UNITS,
        };
        most.saturating_sub(self.taken())
    }

    /// Uses so much at once.
    ///
    /// # Errors
    /// [`NotEnough`]; then nothing is changed.
    pub fn consume(&mut self, amount: u64, limit: Limit) -> Result<(), NotEnough> {
        self.take(amount, limit)?;
        self.used += amount;
        Ok(())
    }

    /// Sets so much aside.
    ///
    /// # Errors
    /// [`NotEnough`]; then nothing is changed.
    pub fn reserve(&mut self, amount: u64, limit: Limit) -> Result<(), NotEnough> {
        self.take(amount, limit)?;
        self.reserved += amount;
        Ok(())
    }

    /// Ends a reservation that still holds so much: `actual` was used. It may be more than was held, as far as the
    /// limit allows the rest.
    ///
    /// # Errors
    /// [`NotEnough`]; then nothing is changed.
    pub fn commit(&mut self, held: u64, actual: u64, limit: Limit) -> Result<(), NotEnough> {
        self.take(actual.saturating_sub(held), limit)?;
        self.reserved = self.reserved.saturating_sub(held);
        self.used += actual;
        Ok(())
    }

    /// Ends a reservation of which nothing was used.
    pub const fn release(&mut self, held: u64) {
        self.reserved = self.reserved.saturating_sub(held);
    }

    /// What an instance gets that asks for `now` units to use at once and a block of `block` to use later, where so
    /// many instances (this one included) hold blocks: the units first, and of the rest at most the quarter of an equal
    /// part. So blocks shrink as the limit comes near, and the last units are used one by one.
    pub fn lend(&mut self, now: u64, block: u64, instances: u64, limit: Limit) -> (u64, u64) {
        let bought = now.min(self.free(limit));
        self.used += bought;
        let part = self.free(limit) / (PARTS * instances.max(1));
        let leased = block.min(part);
        self.leased += leased;
        (bought, leased)
    }

    /// Takes a lease back, of which so much was used.
    pub fn settle(&mut self, amount: u64, used: u64) {
        self.leased = self.leased.saturating_sub(amount);
        self.used = self.used.saturating_add(used.min(amount)).min(MOST_UNITS);
    }

    /// Ends a lease that nobody returned: all of it may have been used.
    pub fn expire(&mut self, amount: u64) {
        self.settle(amount, amount);
    }

    /// Whoever held a lease that has expired says what was used of it.
    pub const fn correct(&mut self, amount: u64, used: u64) {
        self.used = self.used.saturating_sub(amount.saturating_sub(used));
    }

    /// Takes back what was counted for leases that nobody returned, as far as the ledger knows of no use of it; how much
    /// that was. `lost` is what those leases were for. Of whatever else the two differ in the counter stays as it is: not
    /// everything that is used is taken out of the quota, and not everything that is taken out of it is recorded.
    ///
    /// # Errors
    /// [`StillLent`]: what is lent may be in the ledger in part.
    pub fn reconcile(&mut self, ledger: u64, lost: u64) -> Result<u64, StillLent> {
        if self.leased > 0 {
            return Err(StillLent);
        }
        let back = lost.min(self.used.saturating_sub(ledger));
        self.used -= back;
        Ok(back)
    }

    fn take(self, amount: u64, limit: Limit) -> Result<(), NotEnough> {
        if amount <= self.free(limit) {
            Ok(())
        } else {
            Err(NotEnough)
        }
    }
}

/// The counter of one meter in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCounter {
    /// Identifies the counter within the tenant.
    pub id: QuotaCounterId,
    /// What is counted.
    pub meter: MeterKey,
    /// When.
    pub period: Period,
    /// How much.
    pub tally: Tally,
    /// What an operator's correction adds to the ledger's total, or takes from it where it is negative.
    pub adjustment: i64,
    /// Up to which percentage of what is included there was an alert.
    pub alerted_included: u32,
    /// Up to which percentage of the hard limit there was an alert.
    pub alerted_limit: u32,
    /// When it was first needed.
    pub created_at: Time,
}

impl QuotaCounter {
    /// A counter at nothing.
    pub fn new(id: QuotaCounterId, meter: MeterKey, period: Period, now: Time) -> Self {
        Self {
            id,
            meter,
            period,
            tally: Tally::default(),
            adjustment: 0,
            alerted_included: 0,
            alerted_limit: 0,
            created_at: now,
        }
    }

    /// Returns what is used by the ledger: its total with the correction of an operator.
    pub fn by_ledger(&self, ledger: u64) -> u64 {
        adjusted(ledger, self.adjustment)
    }

    /// Sets what is used. The difference from the ledger's total is kept, so that [`Self::catch_up`] does not undo it.
    pub fn correct(&mut self, used: u64, ledger: u64) {
        self.tally.used = used.min(MOST_UNITS);
        self.adjustment = self.tally.used.cast_signed() - ledger.min(MOST_UNITS).cast_signed();
    }

    /// Raises what is used to what the ledger says with the correction, where that is more. Leased units may be in the
    /// ledger already. A meter of the latest quantity has that one, which may be less; a new measurement ends its correction.
    pub fn catch_up(&mut self, ledger: u64, aggregation: Aggregation) {
        match aggregation {
            Aggregation::Last => {
                // What the ledger had when the counter was corrected, or now has if it never was.
                let known = self.tally.used.cast_signed() - self.adjustment;
                let ledger = ledger.min(MOST_UNITS);
                if known != ledger.cast_signed() {
                    self.adjustment = 0;
                    self.tally.used = ledger;
                }
            }
            Aggregation::Sum | Aggregation::Count | Aggregation::Max | Aggregation::Unique => {
                let counted = self.tally.used.saturating_add(self.tally.leased);
                self.tally.used += self.by_ledger(ledger).saturating_sub(counted);
            }
        }
    }

    /// What whoever is refused is told.
    pub fn exceeded(&self, limit: Limit, now: Time) -> QuotaExceeded {
        QuotaExceeded {
            meter: self.meter.clone(),
            limit: match limit {
                Limit::Of(most) => most.min(MOST_UNITS),
                Limit::Unlimited => MOST_UNITS,
            },
            used: self.tally.taken(),
            resets_at: self.period.end,
            asked_at: now,
        }
    }

    /// The thresholds, in percent of what is included and of the hard limit, that are reached and that nobody was told
    /// of; they count as told from now on. Where both are one amount it is the limit's alone.
    pub fn due_alerts(&mut self, terms: &MeterTerms, thresholds: &[u32]) -> Vec<Threshold> {
        let mut due = Vec::new();
        let included = match (terms.included, terms.limit) {
            (Limit::Of(included), limit) if Limit::Of(included) != limit => Some(included),
            _ => None,
        };
        let limit = match terms.limit {
            Limit::Of(most) => Some(most),
            Limit::Unlimited => None,
        };
        let bases = [
            (AlertBase::Included, included, &mut self.alerted_included),
            (AlertBase::Limit, limit, &mut self.alerted_limit),
        ];
        for (base, amount, alerted) in bases {
            let Some(amount) = amount.filter(|amount| *amount > 0) else {
                continue;
            };
            let mut reached: Vec<_> = thresholds
                .iter()
                .copied()
                .filter(|percent| *percent > *alerted && reached(self.tally.used, *percent, amount))
                .collect();
            reached.sort_unstable();
            reached.dedup();
            *alerted = reached.last().copied().unwrap_or(*alerted);
            due.extend(reached.into_iter().map(|percent| Threshold {
                base,
                percent,
                amount,
            }));
        }
        due
    }
}

/// A total of the ledger with an operator's correction, within what can be counted.
pub(crate) fn adjusted(ledger: u64, adjustment: i64) -> u64 {
    let ledger = ledger.min(MOST_UNITS);
    ledger.saturating_add_signed(adjustment).min(MOST_UNITS)
}

fn reached(used: u64, percent: u32, amount: u64) -> bool {
    u128::from(used) * 100 >= u128::from(percent) * u128::from(amount)
}

named_enum! {
    /// What a threshold is a part of.
    pub enum AlertBase {
        /// What the plan's price includes.
        Included = "included",
        /// The hard limit.
        Limit = "limit",
    }
}

/// A threshold that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Of what it is a part.
    pub base: AlertBase,
    /// Which part, in percent.
    pub percent: u32,
    /// The whole.
    pub amount: u64,
}

/// A threshold was reached: there is one such row for each tenant, meter, period and threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaAlert {
    /// Identifies the alert within the tenant.
    pub id: QuotaAlertId,
    /// The counter whose units reached the threshold.
    pub counter: QuotaCounterId,
    /// Key of the limited meter.
    pub meter: MeterKey,
    /// When.
    pub period: Period,
    /// The threshold that was reached.
    pub threshold: Threshold,
    /// What was used then.
    pub used: u64,
    /// Since when it is known.
    pub created_at: Time,
    /// When it was told.
    pub told_at: Option<Time>,
}

/// A block of units that an instance may use without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaLease {
    /// Identifies the lease within the tenant.
    pub id: QuotaLeaseId,
    /// The counter that the leased units are taken from.
    pub counter: QuotaCounterId,
    /// Who holds it.
    pub instance: Uuid,
    /// How much.
    pub amount: u64,
    /// From when on it is taken as used in full, by the clock of the database.
    pub expires_at: Time,
    /// Whether it was.
    pub expired: bool,
    /// Since when.
    pub created_at: Time,
    /// How many units of the counter its holder had used before that were counted otherwise; see
    /// [`Counting`](crate::operations::Counting).
    pub counted: u64,
    /// Since when its holder counts, by its own clock.
    pub counting_since: Time,
}

impl QuotaLease {
    /// Takes it back from its holder, who used so much of it: in time, or when it has counted as used in full.
    pub fn settle(&self, tally: &mut Tally, used: u64) {
        if self.expired {
            tally.correct(self.amount, used);
        } else {
            tally.settle(self.amount, used);
        }
    }

    /// Takes back all leases of a counter that one holder had, who has died and has recorded so much in all since the first of
    /// them began to count; how much of them is free again. What was used but not recorded, such as a call that failed, counts
    /// as not used; what was recorded and took nothing out of the quota counts as used of these leases.
    pub fn settle_ended(leases: &[Self], tally: &mut Tally, recorded: u64) -> u64 {
        let since = leases.iter().map(|lease| lease.counting_since).min();
        let first = leases.iter().filter(|lease| Some(lease.counting_since) == since);
        let counted = first.map(|lease| lease.counted).max().unwrap_or(0);
        let mut used = recorded.saturating_sub(counted);
        let mut back = 0;
        for lease in leases {
            let of_lease = used.min(lease.amount);
            used -= of_lease;
            back += lease.amount - of_lease;
            lease.settle(tally, of_lease);
        }
        back
    }

    /// Its time is over.
    pub fn expire(&mut self, tally: &mut Tally) {
        if !self.expired {
            tally.expire(self.amount);
            self.expired = true;
        }
    }
}

named_enum! {
    /// How a reservation stands.
    pub enum ReservationState {
        /// It holds its units.
        Open = "open",
        /// What was used is counted.
        Committed = "committed",
        /// It was given up.
        Released = "released",
        /// Its time was over.
        Expired = "expired",
    }
}

/// Units that are set aside for work that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaReservation {
    /// Identifies the reservation within the tenant.
    pub id: QuotaReservationId,
    /// The counter that the reserved units are taken from.
    pub counter: QuotaCounterId,
    /// Key of the limited meter.
    pub meter: MeterKey,
    /// In which period: what it was made in, however long the work takes.
    pub period: Period,
    /// How much.
    pub amount: u64,
    /// How it stands.
    pub state: ReservationState,
    /// What was used in the end.
    pub actual: Option<u64>,
    /// Until when it holds its units, by the clock of the database.
    pub expires_at: Time,
    /// Since when.
    pub created_at: Time,
}

/// The reservation has come to another end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reservation is {}", .0.as_str())]
pub struct Ended(pub ReservationState);

/// Why a reservation cannot be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It has come to another end.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The limit does not allow what was used beyond what was reserved.
    #[error(transparent)]
    NotEnough(#[from] NotEnough),
}

impl QuotaReservation {
    /// The longest time for which units are set aside.
    pub const LONGEST: Duration = Duration::hours(24);

    /// Ends it: so much was used. One whose time was over holds nothing any more, and what was used is counted as far
    /// as the limit allows it: the work has been done. Saying the same again changes nothing.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing is changed.
    pub fn commit(&mut self, tally: &mut Tally, actual: u64, limit: Limit) -> Result<(), CommitError> {
        let held = match self.state {
            ReservationState::Open => self.amount,
            ReservationState::Expired => 0,
            ReservationState::Committed if self.actual == Some(actual) => return Ok(()),
            ended @ (ReservationState::Committed | ReservationState::Released) => {
                return Err(Ended(ended).into());
            }
        };
        tally.commit(held, actual, limit)?;
        self.state = ReservationState::Committed;
        self.actual = Some(actual);
        Ok(())
    }

    /// Gives it up. Giving up what holds nothing any more changes nothing.
    ///
    /// # Errors
    /// [`Ended`] when it was committed.
    pub fn release(&mut self, tally: &mut Tally) -> Result<(), Ended> {
        match self.state {
            ReservationState::Open => {
                tally.release(self.amount);
                self.state = ReservationState::Released;
                Ok(())
            }
            ReservationState::Released | ReservationState::Expired => Ok(()),
            ReservationState::Committed => Err(Ended(ReservationState::Committed)),
        }
    }

    /// Its time is over.
    pub fn expire(&mut self, tally: &mut Tally) {
        if self.state == ReservationState::Open {
            tally.release(self.amount);
            self.state = ReservationState::Expired;
        }
    }
}

/// The quota counters of the scope's tenant, and what is held of them.
///
/// Leases and reservations change under the lock of their counter, which [`Quotas::lock`] takes until the transaction
/// ends. Whoever needs several counters takes them in ascending order of meter and period.
#[async_trait]
pub trait Quotas: Send {
    /// The time by the clock of the database, the one that all instances share.
    async fn now(&mut self) -> Result<Time, StoreError>;

    /// The counters of the periods around a moment, and these, by meter and period.
    async fn around(&mut self, at: Time, these: &[QuotaCounterId]) -> Result<Vec<QuotaCounter>, StoreError>;
    /// A counter, for a look.
    async fn find(&mut self, meter: &MeterKey, start: Time) -> Result<Option<QuotaCounter>, StoreError>;
    /// The counter of this meter and period, locked; this one where there is none yet.
    async fn lock(&mut self, new: &QuotaCounter) -> Result<QuotaCounter, StoreError>;
    /// A counter, locked.
    async fn find_for_update(&mut self, id: QuotaCounterId) -> Result<Option<QuotaCounter>, StoreError>;
    /// Uses so much in one statement if the limit allows it; `None` when it does not, or there is no such counter. It is
    /// [`Tally::consume`] in SQL, and locks the counter.
    async fn consume(
        &mut self,
        meter: &MeterKey,
        start: Time,
        amount: u64,
        limit: Limit,
    ) -> Result<Option<QuotaCounter>, StoreError>;
    /// Stores the numbers of a locked counter.
    async fn save(&mut self, counter: &QuotaCounter) -> Result<(), StoreError>;

    /// The leases of a counter that have not expired yet.
    async fn leases(&mut self, counter: QuotaCounterId) -> Result<Vec<QuotaLease>, StoreError>;
    /// A lease, expired or not.
    async fn lease(&mut self, id: QuotaLeaseId) -> Result<Option<QuotaLease>, StoreError>;
    /// Adds a lease.
    async fn insert_lease(&mut self, lease: &QuotaLease) -> Result<(), StoreError>;
    /// All leases of an instance, expired or not.
    async fn held_by(&mut self, instance: Uuid) -> Result<Vec<QuotaLease>, StoreError>;
    /// Marks a lease as expired.
    async fn expire_lease(&mut self, id: QuotaLeaseId) -> Result<(), StoreError>;
    /// Forgets a lease.
    async fn delete_lease(&mut self, id: QuotaLeaseId) -> Result<(), StoreError>;
    /// The leases whose time was over before a moment and that nobody has returned since, of all counters.
    async fn lost_leases(&mut self, before: Time) -> Result<Vec<QuotaLease>, StoreError>;
    /// Forgets those of a counter, which was swept: nobody can correct them any more then.
    async fn delete_lost_leases(&mut self, counter: QuotaCounterId, before: Time) -> Result<(), StoreError>;

    /// Returns the reservation with that id, in whatever state.
    async fn reservation(&mut self, id: QuotaReservationId) -> Result<Option<QuotaReservation>, StoreError>;
    /// The open reservations of a counter whose time is over by then.
    async fn overdue(
        &mut self,
        counter: QuotaCounterId,
        now: Time,
    ) -> Result<Vec<QuotaReservation>, StoreError>;
    /// The open reservations of a meter whose time is not over by then, newest first.
    async fn open_reservations(
        &mut self,
        meter: &MeterKey,
        now: Time,
        page: PageRequest,
    ) -> Result<Page<QuotaReservation>, StoreError>;
    /// Adds a reservation.
    async fn insert_reservation(&mut self, reservation: &QuotaReservation) -> Result<(), StoreError>;
    /// Stores how a reservation stands.
    async fn update_reservation(&mut self, reservation: &QuotaReservation) -> Result<(), StoreError>;

    /// Adds an alert; `false` when there is one for this threshold and period.
    async fn insert_alert(&mut self, alert: &QuotaAlert) -> Result<bool, StoreError>;
    /// An alert, locked.
    async fn alert_for_update(&mut self, id: QuotaAlertId) -> Result<Option<QuotaAlert>, StoreError>;
    /// Says that an alert was told.
    async fn tell_alert(&mut self, id: QuotaAlertId, at: Time) -> Result<(), StoreError>;
    /// Alerts, newest first.
    async fn alerts(&mut self, page: PageRequest) -> Result<Page<QuotaAlert>, StoreError>;

    /// The counters with leases or open reservations whose time is over by then.
    async fn unswept(&mut self, now: Time) -> Result<Vec<QuotaCounterId>, StoreError>;
    /// Forgets counters whose period ended before then, with everything that hangs on them.
    async fn delete_ended(&mut self, before: Time) -> Result<u64, StoreError>;
}

/// Leases across tenants, as the platform role, which sees whose they are and not how much.
#[async_trait]
pub trait QuotaUpkeep: Send + Sync {
    /// Up to `limit` tenants by id, from behind `after` on, of whom a lease is over by the clock of the database and not yet
    /// counted as used.
    async fn lapsed(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError>;

    /// Up to `limit` tenants by id, from behind `after` on, of whose quotas an instance holds leases, expired or not.
    async fn held_by(
        &self,
        because: SystemScope,
        instance: Uuid,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease(amount: u64, counted: u64, expired: bool) -> QuotaLease {
        QuotaLease {
            id: Uuid::nil().into(),
            counter: Uuid::nil().into(),
            instance: Uuid::nil(),
            amount,
            expires_at: Time::UNIX_EPOCH,
            expired,
            created_at: Time::UNIX_EPOCH,
            counted,
            counting_since: Time::UNIX_EPOCH,
        }
    }

    proptest! {
        /// Whatever an instance had bought and returned before it died, afterwards so much is counted of it as it recorded, at
        /// most what it ever got, and what others use stays as it is.
        #[test]
        fn what_a_dead_instance_recorded_stays_counted(
            counted in 0_u64..1_000, others in 0_u64..1_000, recorded in 0_u64..3_000,
            leases in prop::collection::vec((1_u64..500, any::<bool>()), 1..4),
        ) {
            let leases: Vec<_> = leases.into_iter().map(|(amount, expired)| lease(amount, counted, expired)).collect();
            let expired: u64 = leases.iter().filter(|it| it.expired).map(|it| it.amount).sum();
            let all: u64 = leases.iter().map(|it| it.amount).sum();
            let mut tally = Tally { used: others + counted + expired, reserved: 0, leased: all - expired };
            let back = QuotaLease::settle_ended(&leases, &mut tally, recorded);
            let own = tally.used - others;
            prop_assert_eq!(tally.leased, 0);
            prop_assert_eq!(own, counted + all - back);
            prop_assert_eq!(own, recorded.clamp(counted, counted + all));
        }
    }
}
