use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redis::Script;
use redis::aio::MultiplexedConnection;
use tenantry_domain::{BucketKey, Deciding, Decision, Demand, RateLimiter};

use crate::{Away, Redis};

/// Token buckets that all instances share, in Redis.
///
/// One script decides about all rules of a request in one round trip, by the clock of Redis. While Redis is away,
/// silent for longer than one may wait, or refuses, the decision is made alone: by a limiter in this process that
/// gives this instance's part of every limit.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    alone: Arc<dyn RateLimiter>,
    script: Script,
    refused: AtomicBool,
    decided_together: AtomicU64,
    decided_alone: AtomicU64,
}

/// How many decisions were made, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Together with the other instances.
    pub together: u64,
    /// Alone, since Redis was no help.
    pub alone: u64,
}

impl RedisLimiter {
    /// A limiter over a Redis that falls back on another while it has to decide alone.
    pub fn new(redis: Redis, alone: Arc<dyn RateLimiter>) -> Self {
        Self {
            redis,
            alone,
            script: Script::new(include_str!("take.lua")),
            refused: AtomicBool::new(false),
            decided_together: AtomicU64::new(0),
            decided_alone: AtomicU64::new(0),
        }
    }

    /// How many decisions were made so far, and how.
    pub fn tally(&self) -> Tally {
        Tally {
            together: self.decided_together.load(Ordering::Relaxed),
            alone: self.decided_alone.load(Ordering::Relaxed),
        }
    }

    async fn together(&self, demand: &Demand) -> Decision {
        let asked = self
            .redis
            .ask(async |connection| self.levels(connection, demand).await);
        match asked.await {
            Ok(levels) => {
                self.decided_together.fetch_add(1, Ordering::Relaxed);
                if self.refused.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redis decides about rate limits again");
                }
                Decision::of(demand, &levels)
            }
            Err(away) => {
                // That it is away was said by whoever found out.
                if matches!(away, Away::Refused(_)) && !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error = %away, "Redis does not decide about rate limits");
                }
                self.alone(demand).decision().await
            }
        }
    }

    fn alone<'a>(&'a self, demand: &'a Demand) -> Deciding<'a> {
        self.decided_alone.fetch_add(1, Ordering::Relaxed);
        self.alone.decide(demand)
    }

    /// What is in each bucket, before the script took from them.
    async fn levels(
        &self,
        mut connection: MultiplexedConnection,
        demand: &Demand,
    ) -> redis::RedisResult<Vec<u64>> {
        let mut call = self.script.prepare_invoke();
        for rule in demand.rules() {
            call.key(key(rule.key))
                .arg(rule.rate.per_minute())
                .arg(rule.rate.capacity())
                .arg(rule.rate.price(demand.cost()));
        }
        call.invoke_async(&mut connection).await
    }
}

impl RateLimiter for RedisLimiter {
    fn decide<'a>(&'a self, demand: &'a Demand) -> Deciding<'a> {
        if demand.rules().is_empty() {
            return Deciding::Ready(Decision::of(demand, &[]));
        }
        if !self.redis.is_there() {
            return self.alone(demand);
        }
        Deciding::Pending(Box::pin(self.together(demand)))
    }
}

/// Where a bucket is. What is between the braces decides about the slot of a cluster, so that all buckets of a tenant
/// are in one; ids and addresses have no braces of their own.
fn key(key: BucketKey) -> String {
    match key {
        BucketKey::Tenant(tenant) => format!("rl:{{{tenant}}}:t"),
        BucketKey::User(tenant, user) => format!("rl:{{{tenant}}}:u:{user}"),
        BucketKey::Address(address) => format!("rl:{{{address}}}:a"),
        BucketKey::Visitor(address) => format!("rl:{{{address}}}:v"),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_domain::ClientAddress;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn all_buckets_of_a_tenant_are_in_one_slot() {
        let (tenant, user) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(
            key(BucketKey::Tenant(tenant.into())),
            "rl:{00000000-0000-0000-0000-000000000001}:t"
        );
        assert_eq!(
            key(BucketKey::User(tenant.into(), user.into())),
            "rl:{00000000-0000-0000-0000-000000000001}:u:00000000-0000-0000-0000-000000000002"
        );
        let address = ClientAddress::of("2001:db8::1".parse().ok());
        assert_eq!(key(BucketKey::Address(address)), "rl:{2001:db8::}:a");
        assert_eq!(key(BucketKey::Visitor(address)), "rl:{2001:db8::}:v");
    }
}
