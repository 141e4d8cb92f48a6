//! Rate limits: token buckets, the rules a request is held to, and the port behind which the buckets are kept.
//!
//! All arithmetic is in whole numbers. A bucket is counted in *grains*: one grain is what a rate of one request
//! a minute gives in one microsecond, so that every whole rate fills by a whole number of grains in every
//! microsecond and nothing is ever rounded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;

use sha2::{Digest as _, Sha256};

use crate::kernel::{Network, OperatorId, TenantId, UserId};
use crate::tenant::TenantFacts;

/// Grains in one request.
const REQUEST: u64 = 60_000_000;

/// How far the clock may step back, in microseconds, before a bucket follows it.
const HELD_MICROS: i64 = 10_000_000;

/// How many requests a minute, and how many of them at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    per_minute: u32,
    burst: u32,
}

impl Rate {
    /// The highest of both numbers. With it a full bucket is still a whole number that a double holds exactly,
    /// which is what scripts of a shared store count with.
    pub const MOST: u32 = 100_000_000;

    /// A rate; `None` unless both numbers are in `1..=`[`Rate::MOST`].
    pub const fn new(per_minute: u32, burst: u32) -> Option<Self> {
        if per_minute == 0 || burst == 0 || per_minute > Self::MOST || burst > Self::MOST {
            return None;
        }
        Some(Self { per_minute, burst })
    }

    /// Requests a minute.
    pub const fn per_minute(self) -> u32 {
        self.per_minute
    }

    /// Requests at once, after a pause.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// So many times as much, up to [`Rate::MOST`]; at least this much.
    #[must_use]
    pub fn times(self, factor: u32) -> Self {
        let times = |number: u32| number.saturating_mul(factor.max(1)).min(Self::MOST);
        Self {
            per_minute: times(self.per_minute),
            burst: times(self.burst),
        }
    }

    /// What is left for one of several instances that cannot ask each other: an equal part, rounded down, but
    /// never nothing.
    #[must_use]
    pub fn shared_by(self, instances: u32) -> Self {
        let part = |number: u32| (number / instances.max(1)).max(1);
        Self {
            per_minute: part(self.per_minute),
            burst: part(self.burst),
        }
    }

    /// What a full bucket holds, in grains.
    pub const fn capacity(self) -> u64 {
        self.burst as u64 * REQUEST
    }

    /// What a request of that cost takes, in grains. What costs more than a full bucket takes a full bucket:
    /// otherwise it could never be done.
    pub fn price(self, cost: u32) -> u64 {
        u64::from(cost.min(self.burst)) * REQUEST
    }

    /// How long it takes to gain so many grains, in microseconds, rounded up.
    const fn micros_for(self, grains: u64) -> u64 {
        grains.div_ceil(self.per_minute as u64)
    }
}

/// A bucket that fills steadily and from which requests take. A full bucket is the same as none.
///
/// A clock that steps back by up to ten seconds is waited for: in between nothing is gained, and nothing is
/// gained twice. A larger step back is followed at once, since waiting for hours would refuse everything; no
/// grain is gained by the step itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    level: u64,
    at: i64,
}

impl TokenBucket {
    /// A full bucket; `now` in microseconds since the Unix epoch.
    pub const fn full(rate: Rate, now: i64) -> Self {
        Self {
            level: rate.capacity(),
            at: now,
        }
    }

    /// What is in it, in grains.
    pub const fn level(self) -> u64 {
        self.level
    }

    /// The bucket as it is at `now`, microseconds since the Unix epoch, under a rate that may have changed.
    #[must_use]
    pub fn refilled(self, rate: Rate, now: i64) -> Self {
        let elapsed = now.saturating_sub(self.at);
        let gained = u64::try_from(elapsed)
            .unwrap_or(0)
            .saturating_mul(rate.per_minute.into());
        let held = (-HELD_MICROS..0).contains(&elapsed);
        Self {
            level: self.level.saturating_add(gained).min(rate.capacity()),
            at: if held { self.at } else { now },
        }
    }

    /// The bucket after so many grains were taken; empty when there were fewer.
    #[must_use]
    pub const fn without(self, grains: u64) -> Self {
        Self {
            level: self.level.saturating_sub(grains),
            at: self.at,
        }
    }

    /// The bucket after so many grains came back, which were taken for nothing; full at the most.
    #[must_use]
    pub fn with(self, rate: Rate, grains: u64) -> Self {
        Self {
            level: self.level.saturating_add(grains).min(rate.capacity()),
            at: self.at,
        }
    }

    /// When it is full again, in microseconds since the Unix epoch.
    pub fn full_at(self, rate: Rate) -> i64 {
        let missing = rate.capacity().saturating_sub(self.level);
        let micros = i64::try_from(rate.micros_for(missing)).unwrap_or(i64::MAX);
        self.at.saturating_add(micros)
    }
}

/// An address that requests come from, as far as limits tell addresses apart.
///
/// Whoever has one IPv6 address usually has the 2^64 of its network, so these count as one. An IPv4 address
/// written as IPv6 is the IPv4 address. Requests without an address share one that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// The address as limits see it.
    pub fn of(address: Option<IpAddr>) -> Self {
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        })
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BucketKey {
    /// All of a tenant's requests together.
    Tenant(TenantId),
    /// The requests of one user of a tenant.
    User(TenantId, UserId),
    /// The requests of a tenant for which the payment provider is asked.
    Billing(TenantId),
    /// The requests of an operator to the routes of operators.
    Operator(OperatorId),
    /// The requests of an operator within tenants that have approved access.
    Support(OperatorId),
    /// The attempts with a credential that come from one address, whatever tenant they name.
    Address(ClientAddress),
    /// What one address reads that is open to everybody, whatever tenant it names.
    Visitor(ClientAddress),
    /// The failed logins to one account from one network ([`Network::site`]).
    Account(Account, Option<Network>),
    /// The failed logins to one account from all networks together.
    AccountAnywhere(Account),
}

/// An account that a login names, known or unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Of a user of a tenant.
    User(TenantId, AccountName),
    /// The account of a platform operator.
    Operator(AccountName),
    /// Links that callers ask to be mailed to a user of a tenant; these are counted apart from failed logins.
    Mailed(TenantId, AccountName),
    /// Switches to other tenants from a user of a tenant, named by the user's id.
    Switching(TenantId, AccountName),
    /// Lists of workspaces that callers ask to be mailed to an address.
    Discovered(AccountName),
}

/// The mail address that a login names, known or unknown: a part of its SHA-256, since a key of a shared store holds no
/// text of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(u128);

impl AccountName {
    /// The name of an address as it was typed; case and surrounding space make no difference, as at login.
    pub fn of(address: &str) -> Self {
        let digest = Sha256::digest(address.trim().to_ascii_lowercase());
        let (half, _) = digest.split_at(16);
        Self(half.iter().fold(0, |name, byte| name << 8 | u128::from(*byte)))
    }

    /// The part of the digest.
    pub const fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl BucketKey {
    /// What its rule is called in headers and problems.
    pub const fn policy(self) -> &'static str {
        match self {
            Self::Tenant(_) => "tenant",
            Self::User(..) => "user",
            Self::Billing(_) => "billing",
            Self::Operator(_) => "operator",
            Self::Support(_) => "support",
            Self::Address(_) => "address",
            Self::Visitor(_) => "visitor",
            Self::Account(..) | Self::AccountAnywhere(_) => "account",
        }
    }
}

/// Which buckets are kept, and decided about, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partition {
    /// Those of one tenant.
    Tenant(TenantId),
    /// Those of an address.
    Address(ClientAddress),
    /// That of an operator's account.
    Operator(AccountName),
    /// Those of an operator who is logged in.
    ActingOperator(OperatorId),
    /// Those of an address whose workspaces are asked for.
    Discovered(AccountName),
}

/// One bucket that a request takes from, and how it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Which bucket.
    pub key: BucketKey,
    /// How it fills.
    pub rate: Rate,
}

/// What a request asks for: from each of its buckets the same, from all of them or from none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    partition: Partition,
    rules: Vec<Rule>,
    cost: u32,
    paid: u32,
}

impl Demand {
    /// For a request within a tenant. Rates that are `None` hold it to nothing.
    pub fn of_tenant(tenant: TenantId, user: Option<UserId>, rates: TenantRates, cost: u32) -> Self {
        let of_tenant = rates.tenant.map(|rate| Rule {
            key: BucketKey::Tenant(tenant),
            rate,
        });
        let of_user = user.zip(rates.user).map(|(user, rate)| Rule {
            key: BucketKey::User(tenant, user),
            rate,
        });
        Self {
            partition: Partition::Tenant(tenant),
            rules: of_tenant.into_iter().chain(of_user).collect(),
            cost,
            paid: 0,
        }
    }

    /// The same demand of a request within a tenant for which the payment provider is asked: it takes from that bucket of
    /// the tenant, too.
    #[must_use]
    pub fn with_billing(mut self, tenant: TenantId, rate: Rate) -> Self {
        let key = BucketKey::Billing(tenant);
        self.rules.push(Rule { key, rate });
        self
    }

    /// The same demand of a request that has paid so much already: what costs more than a full bucket takes a full bucket in
    /// all, and not one beside what was paid.
    #[must_use]
    pub const fn after(mut self, paid: u32) -> Self {
        self.paid = paid;
        self
    }

    /// For an attempt with a credential.
    pub fn of_address(address: ClientAddress, rate: Rate, cost: u32) -> Self {
        Self::from_address(address, BucketKey::Address(address), rate, cost)
    }

    /// For a request for what is open to everybody.
    pub fn of_visitor(address: ClientAddress, rate: Rate, cost: u32) -> Self {
        Self::from_address(address, BucketKey::Visitor(address), rate, cost)
    }

    /// For a request of an operator to the routes of operators.
    pub fn of_operator(operator: OperatorId, rate: Rate, cost: u32) -> Self {
        Self::from_operator(operator, BucketKey::Operator(operator), rate, cost)
    }

    /// For a request of an operator within a tenant. It takes nothing of the tenant's buckets, and those cannot refuse it.
    pub fn of_support(operator: OperatorId, rate: Rate, cost: u32) -> Self {
        Self::from_operator(operator, BucketKey::Support(operator), rate, cost)
    }

    fn from_operator(operator: OperatorId, key: BucketKey, rate: Rate, cost: u32) -> Self {
        Self {
            partition: Partition::ActingOperator(operator),
            rules: vec![Rule { key, rate }],
            cost,
            paid: 0,
        }
    }

    /// For an attempt to log in to an account from a network, which counts 1 in both buckets of the account.
    pub fn of_account(account: Account, network: Option<Network>, rates: AccountRates) -> Self {
        let anywhere = Rule {
            key: BucketKey::AccountAnywhere(account),
            rate: rates.anywhere,
        };
        let mut demand = Self::of_account_here(account, network, rates);
        demand.rules.push(anywhere);
        demand
    }

    /// The same from a network that the account is known to log in from: only what comes from that network counts.
    pub fn of_account_here(account: Account, network: Option<Network>, rates: AccountRates) -> Self {
        let key = BucketKey::Account(account, network);
        Self {
            partition: match account {
                Account::User(tenant, _) | Account::Mailed(tenant, _) | Account::Switching(tenant, _) => {
                    Partition::Tenant(tenant)
                }
                Account::Discovered(name) => Partition::Discovered(name),
                Account::Operator(name) => Partition::Operator(name),
            },
            rules: vec![Rule {
                key,
                rate: rates.network,
            }],
            cost: 1,
            paid: 0,
        }
    }

    /// What gives back all failed logins to an account, those from this network and those from all networks together.
    pub fn all_of_account(account: Account, network: Option<Network>, rates: AccountRates) -> Self {
        Self {
            cost: u32::MAX,
            ..Self::of_account(account, network, rates)
        }
    }

    fn from_address(address: ClientAddress, key: BucketKey, rate: Rate, cost: u32) -> Self {
        Self {
            partition: Partition::Address(address),
            rules: vec![Rule { key, rate }],
            cost,
            paid: 0,
        }
    }

    /// Where its buckets are.
    pub const fn partition(&self) -> Partition {
        self.partition
    }

    /// The rules, in the order in which they are told.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What each bucket is to give, in requests.
    pub const fn cost(&self) -> u32 {
        self.cost
    }

    /// What the bucket of a rule is to give, in grains; see [`Rate::price`].
    pub fn price(&self, rule: &Rule) -> u64 {
        let whole = rule.rate.price(self.paid.saturating_add(self.cost));
        whole - rule.rate.price(self.paid)
    }

    /// The same demand at one of several instances that cannot ask each other.
    #[must_use]
    pub fn shared_by(&self, instances: u32) -> Self {
        let share = |rule: &Rule| Rule {
            rate: rule.rate.shared_by(instances),
            ..*rule
        };
        Self {
            rules: self.rules.iter().map(share).collect(),
            ..self.clone()
        }
    }
}

/// How a request stands with one of its rules after the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The rule, with the rate that was applied.
    pub rule: Rule,
    /// Whole requests that are left.
    pub remaining: u32,
    /// In how many seconds, rounded up, there is more: enough for this request when the rule is why it was refused,
    /// else for one request. 0 when the bucket is full. [`Decision::spread`] makes it longer.
    pub wait_seconds: u32,
    /// Whether this rule is why the request was refused.
    pub violated: bool,
}

impl Allowance {
    fn is_exhausted(&self) -> bool {
        self.violated || self.remaining == 0
    }
}

/// Whether a request may go on, and how it stands with each rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    allowances: Vec<Allowance>,
}

impl Decision {
    /// Decides about a demand, given what is in each of its buckets, in grains and in the order of its rules: all
    /// give what it costs, or none does. A rule without a bucket counts as empty.
    pub fn of(demand: &Demand, levels: &[u64]) -> Self {
        let levels = levels.iter().copied().chain(std::iter::repeat(0));
        let pairs = || demand.rules.iter().zip(levels.clone());
        let enough = pairs().all(|(rule, level)| level >= demand.price(rule));
        let allowances = pairs()
            .map(|(rule, level)| allowance(*rule, level, demand.price(rule), enough))
            .collect();
        Self { allowances }
    }

    /// Whether the request may go on; then every bucket has given.
    pub fn allowed(&self) -> bool {
        !self.allowances.iter().any(|allowance| allowance.violated)
    }

    /// How it stands with each rule, in the order of the rules.
    pub fn allowances(&self) -> &[Allowance] {
        &self.allowances
    }

    /// Whether a rule refuses this request or the next one, so that its caller has a reason to wait.
    pub fn exhausted(&self) -> bool {
        self.allowances.iter().any(Allowance::is_exhausted)
    }

    /// The same with each wait that somebody has a reason for made longer, by up to a quarter and at least by up to a
    /// second: those who were refused together are not to come back together (jitter, which
    /// draft-ietf-httpapi-ratelimit-headers asks for). Nobody is told to come back before it is worth while.
    ///
    /// `random` is evenly spread over all numbers.
    #[must_use]
    pub fn spread(mut self, random: u32) -> Self {
        for allowance in self.allowances.iter_mut().filter(|told| told.is_exhausted()) {
            let longest = u64::from((allowance.wait_seconds / 4).max(1));
            let more = ((longest + 1) * u64::from(random)) >> 32;
            let wait = u64::from(allowance.wait_seconds) + more;
            allowance.wait_seconds = u32::try_from(wait).unwrap_or(u32::MAX);
        }
        self
    }

    /// After how many seconds asking again makes sense: never earlier than any of the rules says.
    pub fn retry_after_seconds(&self) -> u32 {
        let waits = self.allowances.iter().map(|allowance| allowance.wait_seconds);
        waits.max().unwrap_or(0).max(1)
    }
}

/// How many logins to one account may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountRates {
    /// The rate of each single network.
    pub network: Rate,
    /// From all networks together but those that the account is known to log in from.
    pub anywhere: Rate,
}

/// How much a tenant and each of its users may ask for; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantRates {
    /// All users together.
    pub tenant: Option<Rate>,
    /// Each user.
    pub user: Option<Rate>,
}

/// Which rates hold for a tenant: what admission needs to know of plans and of what was agreed beside them.
pub trait RateBook: fmt::Debug + Send + Sync {
    /// The rates of a tenant. Asked with every request, so it answers from memory.
    fn rates(&self, tenant: &TenantFacts) -> TenantRates;
}

/// The same rates for every tenant.
impl RateBook for TenantRates {
    fn rates(&self, _: &TenantFacts) -> TenantRates {
        *self
    }
}

/// Where buckets are kept.
pub trait RateLimiter: fmt::Debug + Send + Sync {
    /// Takes from all buckets of the demand or from none. There is always a decision: an implementation that
    /// cannot reach its buckets has others to fall back on.
    fn decide<'a>(&'a self, demand: &'a Demand) -> Deciding<'a>;

    /// Gives back what a demand took that was allowed: for limits on failures, of what has not failed. Where the buckets
    /// cannot be reached nothing is given back.
    fn give_back<'a>(&'a self, demand: &'a Demand) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// A decision that is there already, or one to wait for. What is decided in memory needs no future on the heap.
pub enum Deciding<'a> {
    /// It is there.
    Ready(Decision),
    /// Somebody else is asked.
    Pending(Pin<Box<dyn Future<Output = Decision> + Send + 'a>>),
}

impl Deciding<'_> {
    /// Returns the ready decision, or waits for the pending one.
    pub async fn decision(self) -> Decision {
        match self {
            Self::Ready(decision) => decision,
            Self::Pending(future) => future.await,
        }
    }
}

impl fmt::Debug for Deciding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(decision) => f.debug_tuple("Ready").field(decision).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

fn allowance(rule: Rule, level: u64, price: u64, enough: bool) -> Allowance {
    let violated = level < price;
    let left = if enough { level - price } else { level };
    let missing = if violated {
        price - level
    } else if left >= rule.rate.capacity() {
        0
    } else {
        REQUEST - left % REQUEST
    };
    let seconds = rule.rate.micros_for(missing).div_ceil(1_000_000);
    Allowance {
        rule,
        remaining: u32::try_from(left / REQUEST).unwrap_or(u32::MAX),
        wait_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        violated,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rate(per_minute: u32, burst: u32) -> Rate {
        Rate::new(per_minute, burst).unwrap()
    }

    fn demand(tenant: Rate, user: Rate, cost: u32) -> Demand {
        let rates = TenantRates {
            tenant: Some(tenant),
            user: Some(user),
        };
        let id = Uuid::from_u128(1);
        Demand::of_tenant(id.into(), Some(id.into()), rates, cost)
    }

    /// What an implementation does: refill, decide, take.
    fn spend(buckets: &mut [TokenBucket], demand: &Demand, now: i64) -> Decision {
        for (bucket, rule) in buckets.iter_mut().zip(demand.rules()) {
            *bucket = bucket.refilled(rule.rate, now);
        }
        let levels: Vec<_> = buckets.iter().map(|bucket| bucket.level()).collect();
        let decision = Decision::of(demand, &levels);
        for (bucket, rule) in buckets.iter_mut().zip(demand.rules()) {
            if decision.allowed() {
                *bucket = bucket.without(demand.price(rule));
            }
        }
        decision
    }

    #[test]
    fn a_demand_that_is_paid_in_two_parts_takes_a_full_bucket_at_most() {
        let (tenant, user) = (rate(60, 60), rate(30, 30));
        let mut buckets = [TokenBucket::full(tenant, 0), TokenBucket::full(user, 0)];
        assert!(spend(&mut buckets, &demand(tenant, user, 2), 0).allowed());
        let rest = demand(tenant, user, 35).after(2);
        assert!(spend(&mut buckets, &rest, 0).allowed());
        assert_eq!(buckets.map(|bucket| bucket.level() / REQUEST), [23, 0]);
        assert!(!spend(&mut buckets, &demand(tenant, user, 1), 0).allowed());
    }

    #[test]
    fn a_rate_is_in_its_range_and_stays_there() {
        assert_eq!((Rate::new(0, 1), Rate::new(1, 0)), (None, None));
        assert_eq!(Rate::new(Rate::MOST + 1, 1), None);
        assert_eq!(rate(60, 10).times(1_000), rate(60_000, 10_000));
        assert_eq!(rate(Rate::MOST, 2).times(u32::MAX), rate(Rate::MOST, Rate::MOST));
        assert_eq!(rate(7, 3).times(0), rate(7, 3));
        assert_eq!(rate(7, 3).shared_by(2), rate(3, 1));
        assert_eq!(rate(7, 3).shared_by(100), rate(1, 1));
        assert_eq!(rate(7, 3).shared_by(0), rate(7, 3));
        // What a double holds exactly.
        assert!(rate(1, Rate::MOST).capacity() + u64::from(Rate::MOST) < 1 << 53);
    }

    #[test]
    fn those_who_were_refused_together_do_not_come_back_together_and_never_too_early() {
        let (tenant, user) = (rate(600, 600), rate(6, 2));
        let one = demand(tenant, user, 1);
        let waits = |levels: &[u64], random| -> Vec<_> {
            let told = Decision::of(&one, levels).spread(random);
            told.allowances().iter().map(|told| told.wait_seconds).collect()
        };
        let (plenty, empty) = (599 * REQUEST, 0);
        assert_eq!(waits(&[plenty, empty], 0), [1, 10]);
        // The last number is reached, and of the three each a third of the time.
        assert_eq!(waits(&[plenty, empty], u32::MAX), [1, 12]);
        assert_eq!(waits(&[plenty, empty], u32::MAX / 2), [1, 11]);
        // Short waits are spread over one second more.
        assert_eq!(waits(&[empty, empty], u32::MAX), [2, 12]);
        // Who can go on is told what is true.
        assert!(!Decision::of(&one, &[plenty, 2 * REQUEST]).exhausted());
        assert_eq!(waits(&[plenty, 2 * REQUEST], u32::MAX), [1, 10]);
        // Whoever took the last one has to wait as well.
        assert_eq!(waits(&[plenty, REQUEST], u32::MAX), [1, 12]);
        let full = Decision::of(&demand(rate(1, 1), rate(1, 1), 1), &[0, 0]);
        assert!(full.spread(u32::MAX).retry_after_seconds() <= 75);
    }

    #[test]
    fn remaining_and_wait_are_what_a_caller_will_find() {
        let (tenant, user) = (rate(600, 600), rate(6, 2));
        let mut buckets = [TokenBucket::full(tenant, 0), TokenBucket::full(user, 0)];
        let told = |decision: &Decision| -> Vec<_> {
            let tell = |a: &Allowance| (a.rule.key.policy(), a.remaining, a.wait_seconds, a.violated);
            decision.allowances().iter().map(tell).collect()
        };
        let one = demand(tenant, user, 1);
        let first = spend(&mut buckets, &one, 0);
        assert_eq!(told(&first), [("tenant", 599, 1, false), ("user", 1, 10, false)]);
        spend(&mut buckets, &one, SECOND);
        let refused = spend(&mut buckets, &one, 2 * SECOND);
        assert_eq!(told(&refused), [("tenant", 600, 0, false), ("user", 0, 8, true)]);
        assert!(!refused.allowed());
        assert_eq!(refused.retry_after_seconds(), 8);
        assert!(!spend(&mut buckets, &one, 10 * SECOND - 1).allowed());
        assert!(spend(&mut buckets, &one, 10 * SECOND).allowed());
        // What costs more than a full bucket takes a full one.
        let dear = spend(&mut buckets, &demand(tenant, user, 9), 15 * SECOND);
        assert_eq!(told(&dear)[1], ("user", 0, 15, true));
        assert!(spend(&mut buckets, &demand(tenant, user, 9), 30 * SECOND).allowed());
    }

    #[test]
    fn a_demand_has_the_rules_that_have_a_rate() {
        let (tenant, user) = (Uuid::from_u128(1).into(), Uuid::from_u128(2).into());
        let none = Demand::of_tenant(tenant, Some(user), TenantRates::default(), 1);
        assert!(none.rules().is_empty());
        assert!(Decision::of(&none, &[]).allowed());
        let both = demand(rate(10, 10), rate(5, 5), 1);
        let keys: Vec<_> = both.rules().iter().map(|rule| rule.key.policy()).collect();
        assert_eq!(keys, ["tenant", "user"]);
        assert_eq!(both.shared_by(2).rules()[1].rate, rate(2, 2));
        assert!(!Decision::of(&both, &[]).allowed(), "no bucket is an empty one");
    }

    #[test]
    fn an_address_is_told_apart_as_far_as_one_holder_cannot_change_it() {
        let of = |text: &str| ClientAddress::of(Some(text.parse().unwrap())).to_string();
        assert_eq!(of("203.0.113.7"), "203.0.113.7");
        assert_eq!(of("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:ffff::"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        assert_eq!(ClientAddress::of(None).to_string(), "0.0.0.0");
    }

    #[test]
    fn an_account_is_named_by_its_address_in_any_case() {
        let of = |text: &str| AccountName::of(text).to_string();
        assert_eq!(of(" Ada@Example.com "), of("ada@example.com"));
        assert_ne!(of("ada@example.com"), of("ada@example.org"));
        assert_eq!(of("").len(), 32);
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        let number = || prop_oneof![1..200_u32, Just(Rate::MOST), 1..=Rate::MOST];
        (number(), number()).prop_map(|(per_minute, burst)| rate(per_minute, burst))
    }

    /// Steps of the clock, in microseconds, and what is asked for after each.
    fn steps(back: i64) -> impl Strategy<Value = Vec<(i64, u32)>> {
        let step = prop_oneof![Just(0), -back..=0, 0..3 * SECOND, 0..600 * SECOND];
        prop::collection::vec((step, 0..8_u32), 1..80)
    }

    proptest! {
        /// Whatever the clock does, no more is given than a full bucket and what its forward steps are worth.
        #[test]
        fn no_more_is_given_than_burst_and_rate_allow(rate in any_rate(), steps in steps(3_600 * SECOND)) {
            let (mut now, mut forward, mut given) = (0_i64, 0_u128, 0_u128);
            let mut bucket = [TokenBucket::full(rate, now)];
            for (step, cost) in steps {
                now += step;
                forward += step.max(0).unsigned_abs() as u128;
                let demand = Demand::of_address(ClientAddress::of(None), rate, cost);
                if spend(&mut bucket, &demand, now).allowed() {
                    given += u128::from(rate.price(cost));
                }
                prop_assert!(given <= u128::from(rate.capacity()) + forward * u128::from(rate.per_minute()));
            }
        }

        /// Small steps back give nothing at all: only time that is new counts.
        #[test]
        fn time_that_was_counted_is_not_counted_again(rate in any_rate(), steps in steps(SECOND)) {
            let (mut now, mut latest, mut given) = (0_i64, 0_i64, 0_u128);
            let mut bucket = [TokenBucket::full(rate, now)];
            for (step, cost) in steps {
                now = (now + step).max(latest - 10 * SECOND);
                latest = latest.max(now);
                let demand = Demand::of_address(ClientAddress::of(None), rate, cost);
                if spend(&mut bucket, &demand, now).allowed() {
                    given += u128::from(rate.price(cost));
                }
                let gained = latest.unsigned_abs() as u128 * u128::from(rate.per_minute());
                prop_assert!(given <= u128::from(rate.capacity()) + gained);
            }
        }

        /// A refused request leaves every bucket as time alone would have left it; an allowed one takes from all.
        #[test]
        fn all_buckets_give_or_none_does(
            tenant in any_rate(), user in any_rate(), steps in steps(3_600 * SECOND),
        ) {
            let mut now = 0;
            let mut buckets = [TokenBucket::full(tenant, 0), TokenBucket::full(user, 0)];
            for (step, cost) in steps {
                now += step;
                let untouched = [buckets[0].refilled(tenant, now), buckets[1].refilled(user, now)];
                let decision = spend(&mut buckets, &demand(tenant, user, cost), now);
                let prices = [tenant.price(cost), user.price(cost)];
                for (index, allowance) in decision.allowances().iter().enumerate() {
                    prop_assert_eq!(allowance.violated, untouched[index].level() < prices[index]);
                    let taken = if decision.allowed() { prices[index] } else { 0 };
                    prop_assert_eq!(buckets[index], untouched[index].without(taken));
                    prop_assert_eq!(u64::from(allowance.remaining), buckets[index].level() / REQUEST);
                }
            }
        }

        /// Whoever waits as long as they were told is let in, and whoever waits a second less is not.
        #[test]
        fn the_wait_is_long_enough_and_no_longer(rate in any_rate(), cost in 1..8_u32, level in any::<u64>()) {
            let address = ClientAddress::of(None);
            let demand = Demand::of_address(address, rate, cost);
            let bucket = TokenBucket::full(rate, 0);
            let bucket = bucket.without(rate.capacity() - level % rate.price(cost));
            let refused = Decision::of(&demand, &[bucket.level()]);
            let wait = i64::from(refused.retry_after_seconds()) * SECOND;
            prop_assert!(!refused.allowed());
            prop_assert!(spend(&mut [bucket], &demand, wait).allowed());
            prop_assert!(wait == SECOND || !spend(&mut [bucket], &demand, wait - SECOND).allowed());
        }

        /// From the moment a bucket says it is full, it is no different from one that was never used.
        #[test]
        fn it_is_full_when_it_says(rate in any_rate(), taken in any::<u64>()) {
            let bucket = TokenBucket::full(rate, 0).without(taken % (rate.capacity() + 1));
            let at = bucket.full_at(rate);
            prop_assert_eq!(bucket.refilled(rate, at), TokenBucket::full(rate, at));
            prop_assert!(at == 0 || bucket.refilled(rate, at - 1).level() < rate.capacity());
        }
    }
}
