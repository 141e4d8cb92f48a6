//! A model of many instances that share a quota: whatever happens in whatever order, with clocks that are wrong, the hard
//! limit is never exceeded by one unit, and nothing that is returned is lost.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Duration as Span;
use proptest::prelude::*;
use tenantry_domain::kernel::{Limit, Period, Time};
use tenantry_domain::operations::{ClockReading, Holding, QuotaAsk, QuotaLoan};
use tenantry_domain::usage::{
    Aggregation, MeterKey, MeterTerms, QuotaCounter, QuotaExceeded, QuotaLease, QuotaReservation,
    ReservationState, Tally,
};
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(10);
const INSTANCES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A request at an instance.
    Take(usize),
    /// An instance asks, for so many requests that wait. Whether it hears the answer.
    Ask(usize, u64, bool),
    /// A use case consumes without a lease.
    Consume(u64),
    Reserve(u64),
    /// Ends a reservation with so much; `None` releases it.
    End(prop::sample::Index, Option<u64>),
    /// Whatever is overdue by the clock of the database is swept.
    Sweep,
    /// `kill -9`, and a new one in its place.
    Crash(usize),
    /// A clean shutdown.
    Close(usize),
    /// Time goes on, in milliseconds.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let instance = 0..INSTANCES;
    prop_oneof![
        8 => instance.clone().prop_map(Step::Take),
        5 => (instance.clone(), 0..4_u64, prop::bool::weighted(0.9)).prop_map(|(i, n, heard)| Step::Ask(i, n, heard)),
        1 => (1..6_u64).prop_map(Step::Consume),
        1 => (1..6_u64).prop_map(Step::Reserve),
        1 => (any::<prop::sample::Index>(), prop::option::of(0..9_u64)).prop_map(|(r, n)| Step::End(r, n)),
        2 => Just(Step::Sweep),
        1 => instance.clone().prop_map(Step::Crash),
        1 => instance.prop_map(Step::Close),
        4 => (1..4_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Wait(20_000)),
        1 => Just(Step::Wait(3_000_000)),
    ]
}

/// One period in the database.
#[derive(Default)]
struct Row {
    tally: Tally,
    leases: Vec<QuotaLease>,
    reservations: Vec<QuotaReservation>,
    /// What was really used.
    truth: u64,
    /// What counts as used and never was, because of crashes and lost answers.
    lost: u64,
}

struct Model {
    limit: u64,
    at: u64,
    rows: BTreeMap<Time, Row>,
    holdings: Vec<Holding>,
    /// How far the wall clocks of the instances are off, in seconds.
    skews: [i64; INSTANCES],
    next: u128,
}

impl Model {
    fn new(limit: u64, skews: [i64; INSTANCES]) -> Self {
        Self {
            limit,
            // In the middle of a period, so that the skews decide who is in which.
            at: 7_200_000 - 60_000,
            rows: BTreeMap::new(),
            holdings: vec![Holding::new(TTL); INSTANCES],
            skews,
            next: 0,
        }
    }

    fn db_now(&self) -> Time {
        Time::UNIX_EPOCH + Span::milliseconds(self.at.cast_signed())
    }

    /// Every instance's steady clock began at another moment.
    fn clocks(&self, instance: usize) -> ClockReading {
        ClockReading {
            steady: Duration::from_millis(self.at + 1_000 * instance as u64),
            wall: self.db_now() + Span::seconds(self.skews[instance]),
        }
    }

    fn id(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(self.next)
    }

    fn ask(&mut self, instance: usize, waiting: u64, heard: bool) {
        let at = self.clocks(instance);
        self.holdings[instance].retire(at);
        let ask = self.holdings[instance].ask(Uuid::from_u128(instance as u128), waiting, at);
        let loan = self.lend(instance, &ask);
        if heard {
            self.holdings[instance].receive(&ask, &loan, at.steady);
        } else {
            // What was bought is never heard of; a lease will expire.
            let row = self.rows.get_mut(&loan.period.start).unwrap();
            row.lost += loan.bought + loan.lease.map_or(0, |(_, amount)| amount);
        }
    }

    fn lend(&mut self, instance: usize, ask: &QuotaAsk) -> QuotaLoan {
        for spent in &ask.spent {
            for row in self.rows.values_mut() {
                if let Some(place) = row.leases.iter().position(|lease| lease.id == spent.lease) {
                    row.leases.swap_remove(place).settle(&mut row.tally, spent.used);
                }
            }
        }
        let id = self.id();
        let (now, limit) = (self.db_now(), self.limit);
        let period = Period::hour_of(self.clocks(instance).wall);
        let row = self.rows.entry(period.start).or_default();
        row.sweep(now);
        let mut holders: Vec<_> = row.leases.iter().filter(|lease| !lease.expired).collect();
        holders.dedup_by_key(|lease| lease.instance);
        let (bought, amount) = row
            .tally
            .lend(ask.now, ask.block, holders.len() as u64 + 1, Limit::Of(limit));
        if amount > 0 {
            row.leases.push(QuotaLease {
                id: id.into(),
                counter: Uuid::nil().into(),
                instance: ask.instance,
                amount,
                expires_at: now + Span::from_std(ask.ttl).unwrap(),
                expired: false,
                created_at: now,
                counted: ask.counting.map_or(0, |counting| counting.taken),
                counting_since: now,
            });
        }
        QuotaLoan {
            period,
            bought,
            lease: (amount > 0).then(|| (id.into(), amount)),
            standing: QuotaExceeded {
                meter: MeterKey::parse("m").unwrap(),
                limit,
                used: row.tally.taken(),
                resets_at: period.end,
                asked_at: now,
            },
        }
    }

    fn run(&mut self, step: &Step) {
        let now = self.db_now();
        let limit = Limit::Of(self.limit);
        let period = Period::hour_of(now);
        match step {
            Step::Take(instance) => {
                let at = self.clocks(*instance);
                if self.holdings[*instance].take(at) {
                    self.rows.get_mut(&Period::hour_of(at.wall).start).unwrap().truth += 1;
                }
            }
            Step::Ask(instance, waiting, heard) => self.ask(*instance, *waiting, *heard),
            Step::Consume(amount) => {
                let row = self.rows.entry(period.start).or_default();
                if row.tally.consume(*amount, limit).is_ok() {
                    row.truth += amount;
                }
            }
            Step::Reserve(amount) => {
                let id = self.id();
                let row = self.rows.entry(period.start).or_default();
                if row.tally.reserve(*amount, limit).is_ok() {
                    row.reservations.push(QuotaReservation {
                        id: id.into(),
                        counter: Uuid::nil().into(),
                        meter: MeterKey::parse("m").unwrap(),
                        period,
                        amount: *amount,
                        state: ReservationState::Open,
                        actual: None,
                        expires_at: now + Span::seconds(30),
                        created_at: now,
                    });
                }
            }
            Step::End(which, actual) => {
                let mut all: Vec<_> = self.rows.values().map(|row| row.reservations.len()).collect();
                if all.iter().sum::<usize>() == 0 {
                    return;
                }
                let mut which = which.index(all.iter().sum());
                for row in self.rows.values_mut() {
                    let len = all.remove(0);
                    if which < len {
                        return row.end(which, *actual, limit);
                    }
                    which -= len;
                }
            }
            Step::Sweep => self.rows.values_mut().for_each(|row| row.sweep(now)),
            Step::Crash(instance) => {
                let lost = std::mem::replace(&mut self.holdings[*instance], Holding::new(TTL));
                self.count_lost(lost);
            }
            Step::Close(instance) => {
                let at = self.clocks(*instance);
                self.holdings[*instance].close();
                let ask = self.holdings[*instance].give_back(Uuid::from_u128(*instance as u128));
                let loan = self.lend(*instance, &ask);
                self.holdings[*instance].receive(&ask, &loan, at.steady);
            }
            Step::Wait(millis) => self.at += millis,
        }
    }

    /// Whatever a crashed instance held and had not used will count as used. Of bought units it is known already.
    fn count_lost(&mut self, mut holding: Holding) {
        holding.close();
        for spent in holding.give_back(Uuid::nil()).spent {
            for row in self.rows.values_mut() {
                let lease = row.leases.iter().find(|lease| lease.id == spent.lease);
                row.lost += lease.map_or(0, |lease| lease.amount - spent.used);
            }
        }
    }

    fn check(&self) {
        for row in self.rows.values() {
            assert!(
                row.tally.taken() <= self.limit,
                "{:?} of {}",
                row.tally,
                self.limit
            );
            assert!(row.truth <= self.limit, "used {} of {}", row.truth, self.limit);
            let leased: u64 = row
                .leases
                .iter()
                .filter(|lease| !lease.expired)
                .map(|lease| lease.amount)
                .sum();
            assert_eq!(row.tally.leased, leased);
            let open = row
                .reservations
                .iter()
                .filter(|held| held.state == ReservationState::Open);
            assert_eq!(row.tally.reserved, open.map(|held| held.amount).sum::<u64>());
        }
    }
}

impl Row {
    fn sweep(&mut self, now: Time) {
        let overdue = self.leases.iter_mut().filter(|lease| lease.expires_at <= now);
        overdue.for_each(|lease| lease.expire(&mut self.tally));
        let overdue = self.reservations.iter_mut().filter(|held| held.expires_at <= now);
        overdue.for_each(|held| held.expire(&mut self.tally));
    }

    fn end(&mut self, which: usize, actual: Option<u64>, limit: Limit) {
        let held = &mut self.reservations[which];
        let before = held.state;
        match actual {
            Some(actual) => {
                if held.commit(&mut self.tally, actual, limit).is_ok() && before != held.state {
                    self.truth += actual;
                }
            }
            None => {
                let _ = held.release(&mut self.tally);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_order_of_events_uses_a_unit_too_many_and_nothing_returned_is_lost(
        limit in 0..200_u64,
        skews in proptest::array::uniform4(-600..600_i64),
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut model = Model::new(limit, skews);
        for step in &steps {
            model.run(step);
            model.check();
        }
        // Everybody goes home, what crashed is swept.
        for instance in 0..INSTANCES {
            model.run(&Step::Close(instance));
        }
        model.run(&Step::Wait(30_000));
        model.run(&Step::Sweep);
        for instance in 0..INSTANCES {
            // What was bought and not used is forgotten with the instance; the rest is returned by now.
            prop_assert_eq!(model.holdings[instance].leases(), 0);
        }
        for row in model.rows.values_mut() {
            prop_assert_eq!((row.tally.leased, row.tally.reserved), (0, 0));
            prop_assert!(row.truth <= row.tally.used);
            let free = row.tally.free(Limit::Of(limit));
            prop_assert_eq!(free + row.tally.used, limit, "what nobody uses can be used");
            row.tally.consume(free, Limit::Of(limit)).unwrap();
            prop_assert!(row.tally.consume(1, Limit::Of(limit)).is_err());
        }
    }

    /// Without crashes and lost answers, and where whoever buys uses it, the count is exact.
    #[test]
    fn where_nothing_is_lost_the_count_is_exact_and_the_limit_is_reached(
        limit in 1..500_u64,
        order in proptest::collection::vec((0..INSTANCES, 0..900_u64), 1..200),
    ) {
        let mut model = Model::new(limit, [0; INSTANCES]);
        let request = |model: &mut Model, instance: usize| {
            let at = model.clocks(instance);
            if model.holdings[instance].is_low(at) {
                model.ask(instance, 0, true);
            }
            let before = model.rows.values().map(|row| row.truth).sum::<u64>();
            model.run(&Step::Take(instance));
            if model.rows.values().map(|row| row.truth).sum::<u64>() == before {
                model.ask(instance, 1, true);
                model.run(&Step::Take(instance));
            }
            model.check();
        };
        for (instance, wait) in order {
            request(&mut model, instance);
            model.run(&Step::Wait(wait));
        }
        for instance in 0..INSTANCES {
            model.run(&Step::Close(instance));
        }
        for row in model.rows.values() {
            prop_assert_eq!((row.tally.used, row.tally.leased), (row.truth, 0));
        }
        // In a period of its own, one instance alone reaches the limit to the unit: the blocks of the others are back.
        model.run(&Step::Wait(3_600_000));
        for _ in 0..=limit {
            request(&mut model, 0);
        }
        let last = model.rows.values().next_back().unwrap();
        prop_assert_eq!(last.truth, limit);
    }

    #[test]
    fn each_threshold_is_due_once_however_use_grows(
        included in 0..300_u64, more in 0..300_u64, unlimited: bool,
        uses in proptest::collection::vec(1..40_u64, 0..40),
    ) {
        let terms = MeterTerms {
            included: Limit::Of(included),
            limit: if unlimited { Limit::Unlimited } else { Limit::Of(included + more) },
            overage: Vec::new(),
        };
        let period = Period::hour_of(Time::UNIX_EPOCH);
        let meter = MeterKey::parse("m").unwrap();
        let mut counter = QuotaCounter::new(Uuid::nil().into(), meter, period, period.start);
        let mut told = Vec::new();
        for amount in uses {
            let _ = counter.tally.consume(amount, terms.limit);
            for due in counter.due_alerts(&terms, &[100, 80, 80]) {
                prop_assert!(u128::from(counter.tally.used) * 100 >= u128::from(due.percent) * u128::from(due.amount));
                prop_assert!(!told.contains(&(due.base, due.percent)));
                told.push((due.base, due.percent));
            }
            let reached = |percent, amount| amount > 0 && counter.tally.used * 100 >= percent * amount;
            let limit = if unlimited { 0 } else { included + more };
            let soft = if limit == included { 0 } else { included };
            let wanted = [reached(80, limit), reached(100, limit), reached(80, soft), reached(100, soft)];
            prop_assert_eq!(told.len(), wanted.iter().filter(|reached| **reached).count());
        }
    }
}

#[test]
fn what_was_lost_is_taken_back_as_far_as_the_ledger_knows_nothing_of_it() {
    let mut tally = Tally::default();
    let (bought, leased) = tally.lend(1, 10, 1, Limit::Of(100));
    assert_eq!((bought, leased), (1, 10));
    assert!(tally.reconcile(1, 10).is_err(), "a lease is out");
    tally.expire(leased);
    assert_eq!(tally.used, 11);
    assert_eq!(tally.reconcile(4, 10), Ok(7));
    assert_eq!(tally.free(Limit::Of(100)), 96);
    // What the ledger does not know of was not lost for that.
    assert_eq!(tally.reconcile(0, 0), Ok(0));
    assert_eq!(tally.reconcile(u64::MAX, 10), Ok(0));
    assert_eq!(tally.used, 4);
}

fn counter() -> QuotaCounter {
    let day = Period::day_of(Time::UNIX_EPOCH);
    QuotaCounter::new(Uuid::nil().into(), MeterKey::api_calls(), day, Time::UNIX_EPOCH)
}

#[test]
fn catching_up_with_the_ledger_only_raises_used() {
    let mut counter = counter();
    counter.tally.reserve(3, Limit::Unlimited).unwrap();
    for ledger in [15, 15, 4] {
        counter.catch_up(ledger, Aggregation::Sum);
        assert_eq!((counter.tally.used, counter.tally.reserved), (15, 3));
    }
    let (_, leased) = counter.tally.lend(0, 4, 1, Limit::Unlimited);
    // What is leased may be in the ledger already.
    counter.catch_up(15 + leased, Aggregation::Sum);
    assert_eq!(counter.tally.used, 15);
    counter.catch_up(u64::MAX, Aggregation::Sum);
    assert_eq!(counter.tally.free(Limit::Unlimited), 0);
}

#[test]
fn correction_stays_and_later_usage_adds_to_it() {
    for aggregation in [
        Aggregation::Sum,
        Aggregation::Count,
        Aggregation::Max,
        Aggregation::Unique,
    ] {
        for (used, expected) in [(40, 45), (100, 105), (140, 145), (0, 5)] {
            let mut counter = counter();
            counter.catch_up(100, aggregation);
            counter.correct(used, 100);
            counter.catch_up(100, aggregation);
            assert_eq!(counter.tally.used, used, "{aggregation:?}");
            counter.catch_up(105, aggregation);
            assert_eq!(counter.tally.used, expected, "{aggregation:?}");
        }
    }
}

/// An event that was late leaves the latest quantity as it is, and so the correction of it.
#[test]
fn correction_of_the_latest_quantity_ends_with_the_next() {
    let mut counter = counter();
    counter.catch_up(100, Aggregation::Last);
    counter.correct(40, 100);
    counter.catch_up(100, Aggregation::Last);
    assert_eq!(counter.tally.used, 40);
    for ledger in [41, 30] {
        counter.catch_up(ledger, Aggregation::Last);
        assert_eq!((counter.tally.used, counter.adjustment), (ledger, 0));
    }
    counter.correct(0, 30);
    counter.catch_up(20, Aggregation::Last);
    assert_eq!((counter.tally.used, counter.adjustment), (20, 0));
}

#[test]
fn no_amount_is_large_enough_to_overflow() {
    let mut tally = Tally::default();
    for limit in [Limit::Unlimited, Limit::Of(u64::MAX), Limit::Of(3)] {
        assert!(tally.consume(u64::MAX, limit).is_err());
        assert!(tally.reserve(u64::MAX, limit).is_err());
        assert!(tally.commit(1, u64::MAX, limit).is_err());
    }
    assert_eq!(tally.lend(u64::MAX, u64::MAX, 0, Limit::Of(3)), (3, 0));
    tally.settle(u64::MAX, u64::MAX);
    assert_eq!(tally.free(Limit::Unlimited), 0);
}
