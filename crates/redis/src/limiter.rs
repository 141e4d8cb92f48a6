use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tenantry_domain::operations::{Account, BucketKey, Deciding, Decision, Demand, RateLimiter};

use crate::Redis;

/// Token buckets that all instances share, in Redis.
///
/// One script decides about all rules of a request in one round trip, by the clock of Redis. While Redis is away,
/// silent for longer than one may wait, or refuses, the decision is made alone: by a limiter in this process that
/// gives this instance's part of every limit.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    alone: Arc<dyn RateLimiter>,
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
        match self.redis.take(rules(demand, 1)).await {
            Ok(levels) => {
                self.decided_together.fetch_add(1, Ordering::Relaxed);
                Decision::of(demand, &levels)
            }
            // Why it is no help is logged where the connection is lost.
            Err(_) => self.alone(demand).decision().await,
        }
    }

    fn alone<'a>(&'a self, demand: &'a Demand) -> Deciding<'a> {
        self.decided_alone.fetch_add(1, Ordering::Relaxed);
        self.alone.decide(demand)
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

    fn give_back<'a>(&'a self, demand: &'a Demand) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if !self.redis.is_there() || self.redis.take(rules(demand, -1)).await.is_err() {
                self.alone.give_back(demand).await;
            }
        })
    }
}

/// Key and arguments of each bucket for the script; with the sign -1 it is given back.
fn rules(demand: &Demand, sign: i64) -> impl Iterator<Item = (String, [i64; 3])> {
    demand.rules().iter().map(move |rule| {
        let (rate, price) = (rule.rate, demand.price(rule));
        // All of them are below 2^53.
        let arguments = [
            rate.per_minute().into(),
            rate.capacity().cast_signed(),
            sign * price.cast_signed(),
        ];
        (key(rule.key), arguments)
    })
}

/// Where a bucket is. What is between the braces decides about the slot of a cluster, so that all buckets of a tenant
/// are in one; ids and addresses have no braces of their own.
fn key(key: BucketKey) -> String {
    match key {
        BucketKey::Tenant(tenant) => format!("rl:{{{tenant}}}:t"),
        BucketKey::User(tenant, user) => format!("rl:{{{tenant}}}:u:{user}"),
        BucketKey::Billing(tenant) => format!("rl:{{{tenant}}}:b"),
        BucketKey::Operator(operator) => format!("rl:{{{operator}}}:o"),
        BucketKey::Support(operator) => format!("rl:{{{operator}}}:s"),
        BucketKey::Address(address) => format!("rl:{{{address}}}:a"),
        BucketKey::Visitor(address) => format!("rl:{{{address}}}:v"),
        BucketKey::Account(account, network) => {
            let network = network.map_or_else(|| "local".to_owned(), |network| network.to_string());
            format!("{}:{network}", of_account(account))
        }
        BucketKey::AccountAnywhere(account) => of_account(account),
    }
}

fn of_account(account: Account) -> String {
    match account {
        Account::User(tenant, name) => format!("rl:{{{tenant}}}:l:{name}"),
        Account::Operator(name) => format!("rl:{{operators}}:l:{name}"),
        Account::Mailed(tenant, name) => format!("rl:{{{tenant}}}:m:{name}"),
        Account::Switching(tenant, name) => format!("rl:{{{tenant}}}:s:{name}"),
        Account::Discovered(name) => format!("rl:{{{name}}}:d"),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_domain::kernel::Network;
    use tenantry_domain::operations::{AccountName, ClientAddress};
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
        assert_eq!(
            key(BucketKey::Billing(tenant.into())),
            "rl:{00000000-0000-0000-0000-000000000001}:b"
        );
        let address = ClientAddress::of("2001:db8::1".parse().ok());
        assert_eq!(key(BucketKey::Address(address)), "rl:{2001:db8::}:a");
        assert_eq!(key(BucketKey::Visitor(address)), "rl:{2001:db8::}:v");
        let name = AccountName::of("{}@x");
        let (user, operator) = (Account::User(tenant.into(), name), Account::Operator(name));
        let of_tenant = key(BucketKey::AccountAnywhere(user));
        assert!(of_tenant.starts_with("rl:{00000000-0000-0000-0000-000000000001}:l:"));
        let hex = of_tenant.rsplit(':').next().unwrap();
        assert!(hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(
            key(BucketKey::AccountAnywhere(operator)),
            format!("rl:{{operators}}:l:{hex}")
        );
        let network = Network::site("203.0.113.7".parse().ok());
        assert_eq!(
            key(BucketKey::Account(user, network)),
            format!("{of_tenant}:203.0.113.0/24")
        );
        assert_eq!(
            key(BucketKey::Account(operator, None)),
            format!("rl:{{operators}}:l:{hex}:local")
        );
    }
}
