use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::kernel::Clock;
use tenantry_domain::operations::{BucketKey, Deciding, Decision, Demand, RateLimiter, TokenBucket};

/// How many parts the buckets are in, each with a lock of its own.
const SHARDS: usize = 64;

/// Token buckets in the memory of this process.
///
/// All buckets of a partition are in one shard, so one lock decides about all of them, and time is read under
/// it. A bucket that has filled up is the same as none and is dropped in passing. When a shard is full in spite of
/// that, which takes far more tenants and addresses at once than one process serves, those go that would be full
/// soonest: what is lost by that is the least.
pub struct LocalLimiter {
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    most: usize,
    instances: u32,
}

impl std::fmt::Debug for LocalLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLimiter")
            .field("buckets", &self.len())
            .finish_non_exhaustive()
    }
}

impl LocalLimiter {
    /// How many buckets are kept unless told otherwise: some 25 MB of them.
    pub const BUCKETS: usize = 256 * 1_024;

    /// No buckets yet; at most [`Self::BUCKETS`] at any time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::holding(clock, Self::BUCKETS)
    }

    /// No buckets yet; at most about `most` at any time, and some hundreds even when that is less.
    pub fn holding(clock: Arc<dyn Clock>, most: usize) -> Self {
        Self {
            clock,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most: (most / SHARDS).max(8),
            instances: 1,
        }
    }

    /// One of several limiters that cannot ask each other: it gives its part of every rate.
    #[must_use]
    pub fn one_of(mut self, instances: u32) -> Self {
        self.instances = instances.max(1);
        self
    }

    /// How many buckets there are, those that have filled up since they were last looked at included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).buckets.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn decide_now(&self, demand: &Demand) -> Decision {
        let mut shard = self.shard(demand);
        let now = self.clock.now().timestamp_micros();
        shard.decide(demand, now, self.most)
    }

    fn give_back_now(&self, demand: &Demand) {
        self.shard(demand).give_back(demand);
    }

    fn shard(&self, demand: &Demand) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(demand.partition());
        // The remainder is below the number of shards, which fits.
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[shard])
    }

    fn part_of(&self, demand: &Demand) -> Demand {
        demand.shared_by(self.instances)
    }
}

impl RateLimiter for LocalLimiter {
    fn decide<'a>(&'a self, demand: &'a Demand) -> Deciding<'a> {
        Deciding::Ready(match self.instances {
            0 | 1 => self.decide_now(demand),
            2.. => self.decide_now(&self.part_of(demand)),
        })
    }

    fn give_back<'a>(&'a self, demand: &'a Demand) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.give_back_now(&self.part_of(demand));
        Box::pin(std::future::ready(()))
    }
}

#[derive(Default)]
struct Shard {
    buckets: HashMap<BucketKey, Kept>,
    /// At how many buckets those that are full are looked for.
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Kept {
    bucket: TokenBucket,
    /// From when on it may be dropped, in microseconds since the Unix epoch.
    full_at: i64,
}

impl Shard {
    fn decide(&mut self, demand: &Demand, now: i64, most: usize) -> Decision {
        let buckets: Vec<_> = demand
            .rules()
            .iter()
            .map(|rule| match self.buckets.get(&rule.key) {
                Some(kept) => kept.bucket.refilled(rule.rate, now),
                None => TokenBucket::full(rule.rate, now),
            })
            .collect();
        let levels: Vec<_> = buckets.iter().map(|bucket| bucket.level()).collect();
        let decision = Decision::of(demand, &levels);
        for (rule, bucket) in demand.rules().iter().zip(buckets) {
            let taken = if decision.allowed() { demand.price(rule) } else { 0 };
            let bucket = bucket.without(taken);
            let full_at = bucket.full_at(rule.rate);
            self.buckets.insert(rule.key, Kept { bucket, full_at });
        }
        if self.buckets.len() > self.sweep_at.min(most) {
            self.sweep(now, most);
        }
        decision
    }

    /// A bucket that is gone was full.
    fn give_back(&mut self, demand: &Demand) {
        for rule in demand.rules() {
            if let Some(kept) = self.buckets.get_mut(&rule.key) {
                kept.bucket = kept.bucket.with(rule.rate, demand.price(rule));
                kept.full_at = kept.bucket.full_at(rule.rate);
            }
        }
    }

    /// Looking at all buckets is worth it when there are twice as many as were left the last time.
    fn sweep(&mut self, now: i64, most: usize) {
        self.buckets.retain(|_, kept| kept.full_at > now);
        if self.buckets.len() >= most {
            self.drop_fullest(most - most / 8);
        }
        self.sweep_at = (2 * self.buckets.len()).max(8);
    }

    fn drop_fullest(&mut self, keep: usize) {
        let mut ends: Vec<_> = self.buckets.values().map(|kept| kept.full_at).collect();
        let superfluous = ends.len().saturating_sub(keep);
        if superfluous == 0 {
            return;
        }
        let (_, last, _) = ends.select_nth_unstable(superfluous - 1);
        let last = *last;
        let mut left = superfluous;
        self.buckets.retain(|_, kept| {
            let goes = kept.full_at <= last && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }
}

/// A bucket is replaced as a whole, so that a panic elsewhere cannot have left half of one behind.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    use tenantry_domain::kernel::Time;
    use tenantry_domain::operations::{ClientAddress, Rate, TenantRates};
    use uuid::Uuid;

    use super::*;

    struct At(AtomicI64);

    impl Clock for At {
        fn now(&self) -> Time {
            Time::from_timestamp_micros(self.0.load(Ordering::Relaxed)).unwrap()
        }
    }

    impl At {
        fn advance(&self, seconds: i64) {
            self.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
        }
    }

    fn rate(per_minute: u32, burst: u32) -> Rate {
        Rate::new(per_minute, burst).unwrap()
    }

    fn limiter(most: usize) -> (Arc<At>, LocalLimiter) {
        let clock = Arc::new(At(AtomicI64::new(1_000_000_000)));
        let limiter = LocalLimiter::holding(clock.clone(), most);
        (clock, limiter)
    }

    fn of(tenant: u128, user: u128, rates: (u32, u32)) -> Demand {
        let rates = TenantRates {
            tenant: Some(rate(60, rates.0)),
            user: Some(rate(60, rates.1)),
        };
        let (tenant, user) = (Uuid::from_u128(tenant), Uuid::from_u128(user));
        Demand::of_tenant(tenant.into(), Some(user.into()), rates, 1)
    }

    fn address(number: u32, rate: Rate) -> Demand {
        Demand::of_address(ClientAddress::of(Some(number.to_be_bytes().into())), rate, 1)
    }

    #[test]
    fn a_refused_request_takes_from_no_bucket() {
        let (clock, limiter) = limiter(1_000);
        assert!(limiter.decide_now(&of(1, 1, (3, 1))).allowed());
        for _ in 0..5 {
            assert!(!limiter.decide_now(&of(1, 1, (3, 1))).allowed());
        }
        // Another user finds what the refused requests have left of the tenant's bucket: all of it.
        let other = limiter.decide_now(&of(1, 2, (3, 1)));
        assert!(other.allowed());
        assert_eq!(other.allowances()[0].remaining, 1);
        assert!(
            limiter.decide_now(&of(2, 1, (3, 1))).allowed(),
            "tenants are apart"
        );
        clock.advance(1);
        assert!(limiter.decide_now(&of(1, 1, (3, 1))).allowed());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (clock, limiter) = limiter(1_000);
        let demand = address(7, rate(1, 2));
        limiter.give_back_now(&demand);
        assert!(limiter.is_empty(), "there is no bucket to fill");
        for _ in 0..5 {
            assert!(limiter.decide_now(&demand).allowed());
            limiter.give_back_now(&demand);
            limiter.give_back_now(&demand);
        }
        let left = (0..5).filter(|_| limiter.decide_now(&demand).allowed());
        assert_eq!(left.count(), 2, "a bucket is full at the most");
        clock.advance(60);
        assert!(limiter.decide_now(&demand).allowed());
    }

    #[test]
    fn one_of_several_gives_its_part() {
        let limiter = limiter(1_000).1.one_of(3);
        let demand = of(1, 1, (10, 7));
        let allowed = (0..10).filter(|_| match limiter.decide(&demand) {
            Deciding::Ready(decision) => decision.allowed(),
            Deciding::Pending(_) => panic!("there is nobody to ask"),
        });
        assert_eq!(allowed.count(), 2);
    }

    #[test]
    fn buckets_that_have_filled_up_are_dropped() {
        let (clock, limiter) = limiter(64 * 1_000);
        for round in 0..20 {
            for number in 0..2_000 {
                assert!(
                    limiter
                        .decide_now(&address(round * 2_000 + number, rate(60, 2)))
                        .allowed()
                );
            }
            clock.advance(10);
        }
        assert!(limiter.len() < 10_000, "{}", limiter.len());
    }

    #[test]
    fn memory_is_bounded_and_the_emptiest_buckets_stay() {
        let (_, limiter) = limiter(64 * 16);
        let guessing = address(7, rate(1, 50));
        for _ in 0..50 {
            assert!(limiter.decide_now(&guessing).allowed());
        }
        for number in 1_000..20_000 {
            limiter.decide_now(&address(number, rate(60, 2)));
        }
        assert!(limiter.len() <= 64 * 17, "{}", limiter.len());
        assert!(!limiter.decide_now(&guessing).allowed());
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let (_, limiter) = limiter(1_000);
        let given = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for user in 0..8 {
                let (limiter, given) = (&limiter, &given);
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        let allowed = limiter.decide_now(&of(1, user, (500, 100))).allowed();
                        given.fetch_add(u32::from(allowed), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(given.into_inner(), 500);
    }
}
