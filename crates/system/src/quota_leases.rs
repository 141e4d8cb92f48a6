use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tenantry_domain::kernel::{Clock, StoreError, TenantId};
use tenantry_domain::operations::{
    ClockReading, Holding, QuotaAsk, QuotaGate, QuotaLender, QuotaLoan, QuotaRefusal, QuotaTake,
};
use tenantry_domain::tenant::Denied;
use tenantry_domain::usage::{MeterKey, QuotaExceeded};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

/// Tenants are spread over so many maps, each with a lock of its own.
const SHARDS: usize = 64;

/// For how long it is remembered that nothing was left. What somebody returns meanwhile is used that much later.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// How long the lender may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// For how long nothing is asked for ahead of need after the lender failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How often everything is returned at the end, while somebody still asks or nobody answers, and how long it is waited in between.
const CLOSING_ATTEMPTS: usize = 40;
const CLOSING_PAUSE: Duration = Duration::from_millis(50);

/// How many quotas are settled at once.
const SETTLED_AT_ONCE: usize = 8;

type Decision = Result<(), QuotaRefusal>;

/// Quotas on the request path: units are taken out of blocks that this instance holds, in memory, and blocks are asked for
/// ahead of need by one task for each quota. A request waits only where nothing is held: for the one ask that is under way.
///
/// An instance that stops says so with [`QuotaLeases::close`]; what it does not return counts as used.
#[derive(Clone)]
pub struct QuotaLeases {
    inner: Arc<Inner>,
}

struct Inner {
    lender: Arc<dyn QuotaLender>,
    clock: Arc<dyn Clock>,
    instance: Uuid,
    began: Instant,
    ttl: Duration,
    hasher: std::hash::RandomState,
    shards: Box<[Mutex<Shard>]>,
    counts: Counts,
}

type Shard = HashMap<TenantId, Vec<Slot>>;

/// One quota of a tenant.
struct Slot {
    meter: MeterKey,
    holding: Holding,
    /// Whether the lender is being asked.
    asking: bool,
    waiting: Vec<oneshot::Sender<Decision>>,
    refused: Option<Remembered>,
    /// Nothing is asked for ahead of need before then.
    pause_until: Duration,
}

struct Remembered {
    refusal: QuotaExceeded,
    until: Duration,
}

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    waited: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    asked: AtomicU64,
    asked_micros: AtomicU64,
    unanswered: AtomicU64,
}

/// What was decided so far, and what is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaStats {
    /// Requests that took a unit without waiting.
    pub taken: u64,
    /// Requests that took a unit after they had waited for the lender.
    pub waited: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests for which the lender could not be asked.
    pub failed: u64,
    /// How often the lender was asked.
    pub asked: u64,
    /// How long that took in all, in microseconds.
    pub asked_micros: u64,
    /// How often it failed or took too long.
    pub unanswered: u64,
    /// Leases that are held, or not returned yet.
    pub leases: u64,
    /// Units that are held.
    pub units: u64,
}

impl std::fmt::Debug for QuotaLeases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuotaLeases")
            .field("instance", &self.inner.instance)
            .field("ttl", &self.inner.ttl)
            .finish_non_exhaustive()
    }
}

impl QuotaLeases {
    /// Quotas of this instance, whose leases live so long.
    pub fn new(lender: Arc<dyn QuotaLender>, clock: Arc<dyn Clock>, instance: Uuid, ttl: Duration) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            inner: Arc::new(Inner {
                lender,
                clock,
                instance,
                began: Instant::now(),
                ttl,
                hasher: std::hash::RandomState::new(),
                shards,
                counts: Counts::default(),
            }),
        }
    }

    /// Returns what nobody uses before its lease expires, for as long as it is polled; it never ends.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(self.inner.ttl / 10);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let at = self.inner.clocks();
            self.settle(|slot| {
                slot.holding.retire(at);
                slot.holding.is_overdue(at)
            })
            .await;
            self.inner.evict_idle(at);
        }
    }

    /// Returns everything: at the end of a process, when no request is under way any more. What is being asked for is waited
    /// for, a few seconds at the most.
    pub async fn close(&self) {
        for _ in 0..CLOSING_ATTEMPTS {
            self.settle(|slot| {
                slot.holding.close();
                slot.holding.leases() > 0
            })
            .await;
            if self.stats().leases == 0 && !self.is_asking() {
                return;
            }
            tokio::time::sleep(CLOSING_PAUSE).await;
        }
    }

    /// What was decided so far, and what is held.
    pub fn stats(&self) -> QuotaStats {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let counts = &self.inner.counts;
        let mut stats = QuotaStats {
            taken: count(&counts.taken),
            waited: count(&counts.waited),
            refused: count(&counts.refused),
            failed: count(&counts.failed),
            asked: count(&counts.asked),
            asked_micros: count(&counts.asked_micros),
            unanswered: count(&counts.unanswered),
            leases: 0,
            units: 0,
        };
        for shard in &self.inner.shards {
            for slot in lock(shard).values().flatten() {
                stats.leases += slot.holding.leases() as u64;
                stats.units += slot.holding.left();
            }
        }
        stats
    }

    /// Returns what has come to its end of the quotas for which `due` says so and of which nobody asks for more.
    async fn settle(&self, due: impl Fn(&mut Slot) -> bool) {
        let mut found = Vec::new();
        for shard in &self.inner.shards {
            for (tenant, slots) in lock(shard).iter_mut() {
                let due = slots
                    .iter_mut()
                    .filter_map(|slot| (!slot.asking && due(slot)).then(|| slot.meter.clone()));
                found.extend(due.map(|meter| (*tenant, meter)));
            }
        }
        futures_util::stream::iter(found)
            .map(|(tenant, meter)| self.give_back(tenant, meter))
            .buffer_unordered(SETTLED_AT_ONCE)
            .collect::<()>()
            .await;
    }

    async fn give_back(&self, tenant: TenantId, meter: MeterKey) {
        let ask = {
            let mut shard = self.inner.shard(tenant);
            let slot = slot(&mut shard, tenant, &meter, self.inner.ttl);
            if std::mem::replace(&mut slot.asking, true) {
                // Whoever asks meanwhile returns it.
                return;
            }
            slot.holding.give_back(self.inner.instance)
        };
        let mut flight = self.flight(tenant, meter);
        flight.ask(&ask).await;
        // Whoever came meanwhile waits for an ask of their own.
        if !flight.land() {
            flight.run().await;
        }
    }

    fn is_asking(&self) -> bool {
        let asks = |shard: &Mutex<Shard>| lock(shard).values().flatten().any(|slot| slot.asking);
        self.inner.shards.iter().any(asks)
    }
}

impl QuotaGate for QuotaLeases {
    fn take<'a>(&'a self, tenant: TenantId, meter: &'a MeterKey, limit: u64) -> QuotaTake<'a> {
        let inner = &self.inner;
        let at = inner.clocks();
        let mut shard = inner.shard(tenant);
        let slot = slot(&mut shard, tenant, meter, inner.ttl);
        if slot.holding.take(at) {
            inner.counts.taken.fetch_add(1, Ordering::Relaxed);
            if !slot.asking && at.steady >= slot.pause_until && slot.holding.is_low(at) {
                slot.asking = true;
                drop(shard);
                self.send(tenant, meter);
            }
            return QuotaTake::Ready(Ok(()));
        }
        if let Some(refusal) = slot.cached(at, limit) {
            inner.counts.refused.fetch_add(1, Ordering::Relaxed);
            return QuotaTake::Ready(Err(refusal.into()));
        }
        let (sender, receiver) = oneshot::channel();
        slot.waiting.push(sender);
        if !std::mem::replace(&mut slot.asking, true) {
            drop(shard);
            self.send(tenant, meter);
        }
        QuotaTake::Pending(Box::pin(async move {
            let gone = |_| Err(unavailable("whoever asked for a part of the quota is gone").into());
            let decision = receiver.await.unwrap_or_else(gone);
            let counts = &self.inner.counts;
            let count = match &decision {
                Ok(()) => &counts.waited,
                Err(QuotaRefusal::Exceeded(_)) => &counts.refused,
                Err(QuotaRefusal::Denied(_)) => &counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
            decision
        }))
    }
}

impl QuotaLeases {
    /// Asks in a task of its own: the request that asks may be gone before there is an answer.
    fn send(&self, tenant: TenantId, meter: &MeterKey) {
        let mut flight = self.flight(tenant, meter.clone());
        tokio::spawn(async move { flight.run().await });
    }

    fn flight(&self, tenant: TenantId, meter: MeterKey) -> Flight {
        Flight {
            inner: Arc::clone(&self.inner),
            tenant,
            meter,
            landed: false,
        }
    }
}

impl Inner {
    fn clocks(&self) -> ClockReading {
        ClockReading {
            steady: self.began.elapsed(),
            wall: self.clock.now(),
        }
    }

    fn shard(&self, tenant: TenantId) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.hasher.hash_one(tenant) % SHARDS as u64);
        lock(&self.shards[hash.unwrap_or(0)])
    }

    fn evict_idle(&self, at: ClockReading) {
        for shard in &self.shards {
            lock(shard).retain(|_, slots| {
                slots.retain(|slot| slot.asking || !slot.holding.is_idle(at));
                !slots.is_empty()
            });
        }
    }
}

impl Slot {
    /// What was answered a moment ago, unless the limit is another by now or the period is over.
    fn cached(&mut self, at: ClockReading, limit: u64) -> Option<QuotaExceeded> {
        let holds = |it: &Remembered| {
            at.steady < it.until && it.refusal.limit == limit && at.wall < it.refusal.resets_at
        };
        self.refused = self.refused.take().filter(holds);
        self.refused.as_ref().map(|it| QuotaExceeded {
            asked_at: at.wall,
            ..it.refusal.clone()
        })
    }

    fn answer(&mut self, decision: &Decision) {
        for waiting in self.waiting.drain(..) {
            // Whoever does not wait any more needs no answer.
            let _ = waiting.send(decision.clone());
        }
    }

    /// Gives units to those who wait, the first first.
    fn serve(&mut self, at: ClockReading) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        while !self.waiting.is_empty() && self.holding.take(at) {
            let _ = self.waiting.remove(0).send(Ok(()));
        }
    }
}

/// One task that asks for a quota; there is never a second for the same. Dropped, by a panic or with its thread, it leaves
/// nobody waiting.
struct Flight {
    inner: Arc<Inner>,
    tenant: TenantId,
    meter: MeterKey,
    landed: bool,
}

impl Flight {
    /// Asks until nobody waits any more.
    async fn run(&mut self) {
        loop {
            let at = self.inner.clocks();
            let ask = self.with(|slot| {
                slot.holding.retire(at);
                slot.serve(at);
                slot.holding
                    .ask(self.inner.instance, slot.waiting.len() as u64, at)
            });
            let Some(ask) = ask else { return };
            self.ask(&ask).await;
            if self.land() {
                return;
            }
        }
    }

    /// Ends it unless somebody waits, who would have come too late for the answer and too early to ask themselves.
    fn land(&mut self) -> bool {
        let alone = self.with(|slot| {
            slot.asking = !slot.waiting.is_empty();
            !slot.asking
        });
        self.landed = alone.unwrap_or(true);
        self.landed
    }

    async fn ask(&self, ask: &QuotaAsk) {
        let begun = self.inner.began.elapsed();
        let lent =
            tokio::time::timeout(PATIENCE, self.inner.lender.lend(self.tenant, &self.meter, ask)).await;
        let at = self.inner.clocks();
        let took = at.steady.saturating_sub(begun);
        let counts = &self.inner.counts;
        counts.asked.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counts.asked_micros.fetch_add(micros, Ordering::Relaxed);
        match lent {
            Ok(Ok(loan)) => self.received(ask, &loan, begun, at),
            Ok(Err(denied)) => self.failed(denied, at),
            Err(_) => self.failed(unavailable("no part of the quota could be had in time"), at),
        }
    }

    fn received(&self, ask: &QuotaAsk, loan: &QuotaLoan, asked_at: Duration, at: ClockReading) {
        self.with(|slot| {
            slot.holding.receive(ask, loan, asked_at);
            slot.serve(at);
            if loan.bought < ask.now {
                let refusal = loan.standing.clone();
                slot.answer(&Err(refusal.clone().into()));
                let until = at.steady + REFUSED_FOR;
                slot.refused = Some(Remembered { refusal, until });
            }
        });
    }

    fn failed(&self, denied: Denied, at: ClockReading) {
        self.inner.counts.unanswered.fetch_add(1, Ordering::Relaxed);
        let gone = matches!(denied, Denied::TenantGone | Denied::TenantNotFound);
        self.with(|slot| {
            slot.answer(&Err(denied.into()));
            slot.pause_until = at.steady + PAUSE;
            if gone {
                // There is nobody left to return it to.
                slot.holding = Holding::new(self.inner.ttl);
            }
        });
    }

    /// The quota, as long as it is remembered.
    fn with<T>(&self, look: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let mut shard = self.inner.shard(self.tenant);
        let slots = shard.get_mut(&self.tenant)?;
        slots.iter_mut().find(|slot| slot.meter == self.meter).map(look)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        // The channels of those who wait are closed with it, which they are told.
        self.with(|slot| {
            slot.asking = false;
            slot.waiting.clear();
        });
    }
}

fn slot<'a>(shard: &'a mut Shard, tenant: TenantId, meter: &MeterKey, ttl: Duration) -> &'a mut Slot {
    let slots = shard.entry(tenant).or_default();
    let place = slots.iter().position(|slot| slot.meter == *meter);
    let place = place.unwrap_or_else(|| {
        slots.push(Slot {
            meter: meter.clone(),
            holding: Holding::new(ttl),
            asking: false,
            waiting: Vec::new(),
            refused: None,
            pause_until: Duration::ZERO,
        });
        slots.len() - 1
    });
    &mut slots[place]
}

fn unavailable(what: &str) -> Denied {
    Denied::Store(StoreError::Unavailable(what.to_owned()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures_util::future::join_all;
    use tenantry_domain::kernel::{IdSource as _, Limit, Period, Time};
    use tenantry_domain::usage::Tally;

    use super::*;
    use crate::SystemIds;

    const TTL: Duration = Duration::from_millis(500);

    /// One counter in memory that takes its time, and whose answers may get lost.
    #[derive(Default)]
    struct Memory {
        tally: Mutex<Tally>,
        leases: Mutex<HashMap<tenantry_domain::kernel::QuotaLeaseId, u64>>,
        asked: Mutex<Vec<QuotaAsk>>,
        away: std::sync::atomic::AtomicBool,
    }

    const LIMIT: u64 = 100;

    #[async_trait]
    impl QuotaLender for Memory {
        async fn lend(&self, _: TenantId, meter: &MeterKey, ask: &QuotaAsk) -> Result<QuotaLoan, Denied> {
            lock(&self.asked).push(ask.clone());
            tokio::time::sleep(Duration::from_millis(5)).await;
            if self.away.load(Ordering::Relaxed) {
                return Err(unavailable("it is away"));
            }
            let mut tally = lock(&self.tally);
            for spent in &ask.spent {
                if let Some(amount) = lock(&self.leases).remove(&spent.lease) {
                    tally.settle(amount, spent.used);
                }
            }
            let (bought, leased) = tally.lend(ask.now, ask.block, 1, Limit::Of(LIMIT));
            let id = SystemIds.uuid().into();
            lock(&self.leases).insert(id, leased);
            let period = Period::day_of(Time::UNIX_EPOCH);
            Ok(QuotaLoan {
                period,
                bought,
                lease: (leased > 0).then_some((id, leased)),
                standing: QuotaExceeded {
                    meter: meter.clone(),
                    limit: LIMIT,
                    used: tally.taken(),
                    resets_at: period.end,
                    asked_at: period.start,
                },
            })
        }
    }

    struct Epoch;

    impl Clock for Epoch {
        fn now(&self) -> Time {
            Time::UNIX_EPOCH
        }
    }

    fn gate() -> (Arc<Memory>, QuotaLeases, TenantId) {
        let lender = Arc::new(Memory::default());
        let gate = QuotaLeases::new(lender.clone(), Arc::new(Epoch), SystemIds.uuid(), TTL);
        (lender, gate, SystemIds.uuid().into())
    }

    /// Waits for something that happens by itself, within moments.
    async fn until(happened: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !happened() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn take(gate: &QuotaLeases, tenant: TenantId) -> bool {
        let taken = gate.take(tenant, &MeterKey::api_calls(), LIMIT).decision().await;
        match taken {
            Ok(()) => true,
            Err(QuotaRefusal::Exceeded(_)) => false,
            Err(QuotaRefusal::Denied(denied)) => panic!("{denied}"),
        }
    }

    async fn taken(gate: &QuotaLeases, tenant: TenantId, times: usize) -> usize {
        let all = join_all((0..times).map(|_| take(gate, tenant))).await;
        all.into_iter().filter(|taken| *taken).count()
    }

    #[tokio::test]
    async fn all_who_wait_wait_for_one_ask_and_the_limit_is_reached_to_the_unit() {
        let (lender, gate, tenant) = gate();
        assert_eq!(taken(&gate, tenant, 60).await, 60);
        // The first, and one for all who came while it was under way.
        assert!(lock(&lender.asked).len() <= 2);
        assert_eq!(taken(&gate, tenant, 60).await, 40);
        let asked = lock(&lender.asked).len();
        // That there is nothing is remembered, for a second.
        assert_eq!(taken(&gate, tenant, 50).await, 0);
        assert_eq!(lock(&lender.asked).len(), asked);
        lock(&lender.tally).used -= 3;
        tokio::time::sleep(REFUSED_FOR).await;
        assert_eq!(taken(&gate, tenant, 50).await, 3);
        let stats = gate.stats();
        assert_eq!((stats.taken + stats.waited, stats.refused), (103, 20 + 50 + 47));
    }

    #[tokio::test]
    async fn what_is_not_used_is_returned_in_time_and_at_the_end() {
        let (lender, gate, tenant) = gate();
        for _ in 0..5 {
            assert!(take(&gate, tenant).await);
        }
        assert!(lock(&lender.tally).leased > 0 && gate.stats().units > 0);
        let returning = tokio::spawn(gate.clone().run());
        until(|| lock(&lender.tally).leased == 0).await;
        assert_eq!(lock(&lender.tally).used, 5);
        until(|| gate.inner.shard(tenant).is_empty()).await;
        returning.abort();
        for _ in 0..5 {
            assert!(take(&gate, tenant).await);
        }
        // While an ask is under way, too.
        let meter = MeterKey::api_calls();
        let (_, closed) = tokio::join!(gate.take(tenant, &meter, LIMIT).decision(), gate.close());
        let () = closed;
        gate.close().await;
        assert_eq!((lock(&lender.tally).leased, gate.stats().leases), (0, 0));
    }

    #[tokio::test]
    async fn who_cannot_be_told_is_refused_and_the_next_asks_again() {
        let (lender, gate, tenant) = gate();
        lender.away.store(true, Ordering::Relaxed);
        let meter = MeterKey::api_calls();
        let refused = gate.take(tenant, &meter, LIMIT).decision().await;
        assert!(matches!(refused, Err(QuotaRefusal::Denied(_))), "{refused:?}");
        lender.away.store(false, Ordering::Relaxed);
        assert!(take(&gate, tenant).await);
        let stats = gate.stats();
        assert_eq!((stats.failed, stats.unanswered, stats.waited), (1, 1, 1));
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_unit_to_somebody_else() {
        let (lender, gate, tenant) = gate();
        let meter = MeterKey::api_calls();
        for _ in 0..LIMIT {
            let gone = gate.take(tenant, &meter, LIMIT).decision();
            let _ = tokio::time::timeout(Duration::from_millis(1), gone).await;
        }
        until(|| !gate.is_asking()).await;
        let left = gate.stats().units;
        assert!(left > 0);
        let used = lock(&lender.tally).taken();
        let rest = taken(&gate, tenant, 100).await as u64;
        assert_eq!(used - left + rest, LIMIT);
    }

    #[test]
    fn a_thread_that_ends_while_it_asks_leaves_nobody_waiting() {
        let (_, gate, tenant) = gate();
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let meter = MeterKey::api_calls();
        let ending = runtime();
        let gone = {
            let _entered = ending.enter();
            gate.take(tenant, &meter, LIMIT)
        };
        drop(ending);
        let refused = runtime().block_on(gone.decision());
        assert!(matches!(refused, Err(QuotaRefusal::Denied(_))), "{refused:?}");
        assert!(runtime().block_on(take(&gate, tenant)));
    }
}
