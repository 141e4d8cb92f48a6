//! Quotas on the request path: what an instance holds of a quota and uses without asking anybody, and the ports around it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::kernel::{Period, QuotaLeaseId, TenantId, Time};
use crate::tenant::Denied;
use crate::usage::{MeterKey, QuotaExceeded};

/// For how many seconds of use at the present pace a block is asked for.
const SECONDS: u64 = 5;

/// The smallest block that is asked for where there is a pace at all.
const LEAST: u64 = 10;

/// The maximum number of units in a block, whatever the pace.
const LARGEST: u64 = 1_000_000;

/// The clocks of an instance, read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The steady clock, from an arbitrary beginning: it never steps.
    pub steady: Duration,
    /// The time of day, for periods.
    pub wall: Time,
}

/// What an instance asks of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaAsk {
    /// Who asks.
    pub instance: Uuid,
    /// Units to use at once.
    pub now: u64,
    /// A block to use later.
    pub block: u64,
    /// For how long.
    pub ttl: Duration,
    /// Leases of this quota that have come to their end here.
    pub spent: Vec<Spent>,
    /// What this instance has used in the present period, where it asks for a lease.
    pub counting: Option<Counting>,
}

/// How many units of a period an instance has used that are counted, or are with the ask that says so; without those of leases
/// that it still holds. With the calls that it recorded it says after its death what was used of those leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counting {
    /// When the period began.
    pub start: Time,
    /// Since when it counts, by the clock of the instance.
    pub since: Time,
    /// How many.
    pub taken: u64,
}

/// A lease that is used no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The lease that is given back.
    pub lease: QuotaLeaseId,
    /// When the period began that it is a part of.
    pub start: Time,
    /// How much of it was used.
    pub used: u64,
}

/// What an instance got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaLoan {
    /// The period of the quota that the units belong to.
    pub period: Period,
    /// Units that are counted as used already.
    pub bought: u64,
    /// A block to use until it expires.
    pub lease: Option<(QuotaLeaseId, u64)>,
    /// How the quota stands after it, for those who got nothing.
    pub standing: QuotaExceeded,
}

/// Lends parts of quotas to instances, as the hard limits are now.
///
/// An ask that is repeated, because nobody knows what became of it, does no harm: leases that were returned are not returned
/// again, and what was lent and never heard of counts as used.
#[async_trait]
pub trait QuotaLender: Send + Sync {
    /// Takes back what is spent and gives what is left of what is asked for. With nothing asked for it only takes back.
    ///
    /// # Errors
    /// [`Denied`] when the tenant is gone or the store failed.
    async fn lend(&self, tenant: TenantId, meter: &MeterKey, ask: &QuotaAsk) -> Result<QuotaLoan, Denied>;
}

/// Why a request may not use anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaRefusal {
    /// There is nothing left.
    #[error(transparent)]
    Exceeded(#[from] QuotaExceeded),
    /// It is not known whether there is anything left.
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// Decides on the request path whether a unit of a limited meter may be used, and uses it.
pub trait QuotaGate: Send + Sync + fmt::Debug {
    /// Uses a unit of a quota with this hard limit.
    fn take<'a>(&'a self, tenant: TenantId, meter: &'a MeterKey, limit: u64) -> QuotaTake<'a>;
}

/// The result of taking a unit, ready or pending. What is decided in memory needs no future on the heap.
pub enum QuotaTake<'a> {
    /// Decided from the units that the instance holds.
    Ready(Result<(), QuotaRefusal>),
    /// The lender is asked.
    Pending(Pin<Box<dyn Future<Output = Result<(), QuotaRefusal>> + Send + 'a>>),
}

impl QuotaTake<'_> {
    /// Returns the ready decision, or waits for the lender's.
    ///
    /// # Errors
    /// [`QuotaRefusal`].
    pub async fn decision(self) -> Result<(), QuotaRefusal> {
        match self {
            Self::Ready(decision) => decision,
            Self::Pending(future) => future.await,
        }
    }
}

impl fmt::Debug for QuotaTake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(decision) => f.debug_tuple("Ready").field(decision).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// What an instance holds of one quota.
///
/// A block is used while three fifths of its lease's time are not over, counted by the steady clock from *before* it was
/// asked for. The database, which counts by its own clock from when it gave the lease, lets it expire after all of that
/// time. So clocks may be wrong by any amount, and run apart by a half, before both would use it; and even then an
/// expired lease counts as used in full.
#[derive(Debug, Clone)]
pub struct Holding {
    ttl: Duration,
    blocks: VecDeque<Block>,
    spent: Vec<(Duration, Spent)>,
    asked_at: Option<Duration>,
    taken: u64,
    last_block: u64,
    /// All that was used in the present period, of bought units and of leases.
    counting: Option<Counting>,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    /// None of units that are counted as used already.
    lease: Option<QuotaLeaseId>,
    period: Period,
    left: u64,
    amount: u64,
    asked_at: Duration,
}

impl Block {
    /// Units that are counted as used may be used until the period ends, leased ones for a part of their time.
    fn is_good(&self, at: ClockReading, ttl: Duration) -> bool {
        let in_time = self.lease.is_none() || at.steady < self.asked_at + usable(ttl);
        in_time && self.period.contains(at.wall)
    }
}

/// For how long after it was asked for a block is used.
fn usable(ttl: Duration) -> Duration {
    ttl * 3 / 5
}

impl Holding {
    /// Nothing, of leases that live so long.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            blocks: VecDeque::new(),
            spent: Vec::new(),
            asked_at: None,
            taken: 0,
            last_block: 0,
            counting: None,
        }
    }

    /// Uses one unit, if there is one.
    pub fn take(&mut self, at: ClockReading) -> bool {
        while let Some(block) = self.blocks.front_mut() {
            if block.left > 0 && block.is_good(at, self.ttl) {
                block.left -= 1;
                self.taken += 1;
                let start = block.period.start;
                let counting = self.counting.filter(|counting| counting.start == start);
                let counting = counting.unwrap_or(Counting {
                    start,
                    since: at.wall,
                    taken: 0,
                });
                self.counting = Some(Counting {
                    taken: counting.taken + 1,
                    ..counting
                });
                return true;
            }
            self.retire_first();
        }
        false
    }

    /// Whether a new block should be asked for before the present ones are used up: when a quarter is left of the last
    /// one, or when its time is nearly over.
    pub fn is_low(&self, at: ClockReading) -> bool {
        self.last_block > 0
            && self.blocks.back().is_some_and(|last| {
                let old = at.steady >= last.asked_at + usable(self.ttl) * 3 / 4;
                self.left() * 4 <= self.last_block || old
            })
    }

    /// Units that are held.
    pub fn left(&self) -> u64 {
        self.blocks.iter().map(|block| block.left).sum()
    }

    /// Leases that are held, and those that came to their end here and were not returned yet.
    pub fn leases(&self) -> usize {
        let held = self.blocks.iter().filter(|block| block.lease.is_some()).count();
        held + self.spent.len()
    }

    /// Ends blocks that must not be used any more.
    pub fn retire(&mut self, at: ClockReading) {
        let ttl = self.ttl;
        for _ in 0..self.blocks.len() {
            match self.blocks.front() {
                Some(block) if block.left > 0 && block.is_good(at, ttl) => self.blocks.rotate_left(1),
                _ => self.retire_first(),
            }
        }
    }

    /// Ends all blocks: everything that was not used is returned with the next ask.
    pub fn close(&mut self) {
        while !self.blocks.is_empty() {
            self.retire_first();
        }
    }

    /// Whether something waits to be returned whose lease would expire otherwise.
    pub fn is_overdue(&self, at: ClockReading) -> bool {
        let ttl = self.ttl;
        self.spent
            .iter()
            .any(|(asked_at, _)| at.steady >= *asked_at + usable(ttl))
    }

    /// Whether nothing is held and nothing was asked for lately.
    pub fn is_idle(&self, at: ClockReading) -> bool {
        let recent = self
            .asked_at
            .is_some_and(|asked| at.steady < asked + self.ttl * 6);
        self.blocks.is_empty() && self.spent.is_empty() && !recent
    }

    /// What to ask for, when so many requests wait. A quota that is used now and then is bought unit by unit; only where
    /// there is a pace is a block worth its return.
    pub fn ask(&mut self, instance: Uuid, waiting: u64, at: ClockReading) -> QuotaAsk {
        let since = self.asked_at.map(|asked| at.steady.saturating_sub(asked));
        let block = match since {
            Some(since) if since <= self.ttl => {
                let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
                let taken = (self.taken + waiting).min(LARGEST * 1_000);
                (taken.saturating_mul(1_000 * SECONDS) / millis).clamp(LEAST, LARGEST)
            }
            _ => 0,
        };
        self.asked_at = Some(at.steady);
        self.taken = 0;
        QuotaAsk {
            now: waiting,
            block,
            counting: self.counted(),
            ..self.give_back(instance)
        }
    }

    /// What was used without that of leases that are still held.
    fn counted(&self) -> Option<Counting> {
        let counting = self.counting?;
        let held = self.blocks.iter().filter(|block| block.lease.is_some());
        let held = held.filter(|block| block.period.start == counting.start);
        let used: u64 = held.map(|block| block.amount - block.left).sum();
        Some(Counting {
            taken: counting.taken.saturating_sub(used),
            ..counting
        })
    }

    /// Asks for nothing, to return what has come to its end.
    pub fn give_back(&self, instance: Uuid) -> QuotaAsk {
        QuotaAsk {
            instance,
            now: 0,
            block: 0,
            ttl: self.ttl,
            spent: self.spent.iter().map(|(_, spent)| *spent).collect(),
            counting: None,
        }
    }

    /// Takes what came of an ask that was made at `asked_at`, by the steady clock.
    pub fn receive(&mut self, ask: &QuotaAsk, loan: &QuotaLoan, asked_at: Duration) {
        self.spent.retain(|(_, spent)| !ask.spent.contains(spent));
        let block = |lease, amount| Block {
            lease,
            period: loan.period,
            left: amount,
            amount,
            asked_at,
        };
        if loan.bought > 0 {
            self.blocks.push_front(block(None, loan.bought));
        }
        if let Some((lease, amount)) = loan.lease {
            self.blocks.push_back(block(Some(lease), amount));
        }
        match loan.lease {
            Some((_, amount)) => self.last_block = amount,
            None if ask.block > 0 => self.last_block = 0,
            None => {}
        }
    }

    fn retire_first(&mut self) {
        let Some(block) = self.blocks.pop_front() else {
            return;
        };
        if let Some(lease) = block.lease {
            let used = block.amount - block.left;
            let spent = Spent {
                lease,
                start: block.period.start,
                used,
            };
            self.spent.push((block.asked_at, spent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> ClockReading {
        let wall = Time::UNIX_EPOCH + chrono::Duration::milliseconds(millis.cast_signed());
        ClockReading {
            steady: Duration::from_millis(millis),
            wall,
        }
    }

    fn loan(bought: u64, lease: Option<u64>) -> QuotaLoan {
        let period = Period::hour_of(Time::UNIX_EPOCH);
        QuotaLoan {
            period,
            bought,
            lease: lease.map(|amount| (Uuid::from_u128(amount.into()).into(), amount)),
            standing: QuotaExceeded {
                meter: MeterKey::parse("m").unwrap(),
                limit: 9,
                used: 9,
                resets_at: period.end,
                asked_at: period.start,
            },
        }
    }

    #[test]
    fn who_asks_now_and_then_buys_and_who_has_a_pace_leases() {
        let mut holding = Holding::new(TTL);
        let ask = holding.ask(Uuid::nil(), 1, at(0));
        assert_eq!((ask.now, ask.block), (1, 0));
        holding.receive(&ask, &loan(1, None), Duration::ZERO);
        assert!(
            holding.take(at(3_599_999)),
            "what was bought is good for its period"
        );
        assert!(!holding.take(at(3_599_999)));
        // The next one a long time later.
        assert_eq!(holding.ask(Uuid::nil(), 1, at(3_600_000)).block, 0);
        assert_eq!(holding.ask(Uuid::nil(), 1, at(3_601_000)).block, 10);
        // Two hundred in two seconds are five hundred in five.
        assert_eq!(holding.ask(Uuid::nil(), 200, at(3_603_000)).block, 500);
    }

    #[test]
    fn a_block_is_used_for_three_fifths_of_its_time_from_before_it_was_asked_for() {
        let mut holding = Holding::new(TTL);
        let ask = holding.ask(Uuid::nil(), 0, at(1_000));
        holding.receive(&ask, &loan(0, Some(8)), Duration::from_secs(1));
        assert!(!holding.is_low(at(1_000)));
        assert!(holding.take(at(6_999)));
        assert!(holding.is_low(at(6_999)), "its time is nearly over");
        assert!(!holding.take(at(7_000)));
        assert!(holding.is_overdue(at(7_000)));
        let ask = holding.ask(Uuid::nil(), 0, at(7_000));
        let lease = Uuid::from_u128(8).into();
        let start = Time::UNIX_EPOCH;
        let used = 1;
        assert_eq!(ask.spent, [Spent { lease, start, used }]);
        assert_eq!(holding.leases(), 1, "until the lender has it");
        holding.receive(&ask, &loan(0, None), Duration::from_secs(7));
        assert_eq!((holding.leases(), holding.left()), (0, 0));
        assert!(!holding.is_idle(at(7_000)) && holding.is_idle(at(67_000)));
    }

    #[test]
    fn nothing_of_a_period_is_used_in_the_next() {
        let mut holding = Holding::new(TTL);
        let last = at(3_599_999);
        let ask = holding.ask(Uuid::nil(), 1, last);
        holding.receive(&ask, &loan(1, Some(5)), last.steady);
        assert!(holding.take(last));
        assert!(!holding.take(at(3_600_000)));
        assert_eq!(holding.left(), 0);
    }

    #[test]
    fn a_new_block_is_asked_for_while_a_quarter_is_left() {
        let mut holding = Holding::new(TTL);
        let ask = holding.ask(Uuid::nil(), 0, at(0));
        holding.receive(&ask, &loan(0, Some(8)), Duration::ZERO);
        let low = (0..8).map(|_| {
            assert!(holding.take(at(1)));
            holding.is_low(at(1))
        });
        assert_eq!(
            low.collect::<Vec<_>>(),
            [false, false, false, false, false, true, true, true]
        );
        holding.close();
        assert_eq!((holding.left(), holding.leases()), (0, 1));
    }

    #[test]
    fn an_ask_says_what_was_used_besides_the_leases_that_are_held() {
        let mut holding = Holding::new(TTL);
        let ask = holding.ask(Uuid::nil(), 2, at(0));
        assert_eq!(ask.counting, None);
        holding.receive(&ask, &loan(2, Some(8)), Duration::ZERO);
        let counted = |holding: &mut Holding, millis: u64| {
            let counting = holding.ask(Uuid::nil(), 0, at(millis)).counting;
            counting.map(|counting| (counting.since, counting.taken))
        };
        (0..5).for_each(|_| assert!(holding.take(at(7))));
        // Two were bought; three of the lease are not counted yet.
        assert_eq!(counted(&mut holding, 8), Some((at(7).wall, 2)));
        holding.close();
        assert_eq!(
            counted(&mut holding, 9),
            Some((at(7).wall, 5)),
            "it is returned with this ask"
        );
    }
}
