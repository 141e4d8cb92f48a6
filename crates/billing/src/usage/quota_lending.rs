//! Parts of quotas that instances use without asking: see [`Holding`](tenantry_domain::operations::Holding).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Duration;
use tenantry_domain::kernel::{
    Limit, Permission, QuotaCounterId, QuotaLeaseId, StoreError, SystemScope, TenantId, Time,
};
use tenantry_domain::operations::{QuotaAsk, QuotaLender, QuotaLoan, Spent};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Denied, TenantFacts};
use tenantry_domain::usage::{MeterKey, QuotaCounter, QuotaLease};
use tenantry_tenancy::{Cx, Origin, Tenancy};

use crate::kernel::granted;
use crate::usage::quota::{Quota, QuotaError, sweep};
use crate::usage::quota_alert;

/// How much of a meter a tenant may use in a period. It is asked with every request, so it makes no copies.
pub fn limit(app: &Tenancy, tenant: &TenantFacts, meter: &MeterKey) -> Limit {
    granted::of(&app.ports, Arc::clone(&tenant.subscription)).meter_limit(meter)
}

/// Lends out of the quota counters, in each tenant's own scope.
#[derive(Debug, Clone)]
pub struct StoredQuotas {
    app: Arc<Tenancy>,
}

impl StoredQuotas {
    /// Those of this application.
    pub const fn new(app: Arc<Tenancy>) -> Self {
        Self { app }
    }
}

#[async_trait]
impl QuotaLender for StoredQuotas {
    async fn lend(&self, tenant: TenantId, meter: &MeterKey, ask: &QuotaAsk) -> Result<QuotaLoan, Denied> {
        let because = SystemScope::because("lend parts of quotas");
        let scope = self.app.ports.gate.system(because, tenant).await?;
        let cx = Cx::new(Arc::clone(&self.app), scope, Origin::default());
        cx.require(Permission::LendQuota)
            .map_err(|refused| StoreError::Other(refused.to_string()))?;
        let lent = cx.write(async |work| lend(&cx, work, meter, ask).await).await;
        lent.map_err(|error| match error {
            QuotaError::Store(error) => error.into(),
            other => StoreError::Other(other.to_string()).into(),
        })
    }
}

async fn lend(cx: &Cx, work: &mut Work, meter: &MeterKey, ask: &QuotaAsk) -> Result<QuotaLoan, QuotaError> {
    let quota = Quota::of(cx, work, meter).await?;
    let mut spent = BTreeMap::<Time, Vec<Spent>>::new();
    for lease in &ask.spent {
        spent.entry(lease.start).or_default().push(*lease);
    }
    let wanted = ask.now > 0 || ask.block > 0;
    let present = spent.remove(&quota.period.start).unwrap_or_default();
    // What is left of other periods comes first: counters are locked in ascending order, and those of periods to come
    // (this instance's clock has stepped back) are nobody's yet but whose clock is ahead.
    for (start, spent) in &spent {
        settle_period(cx, work, &quota, (*start, spent)).await?;
    }
    let new = QuotaCounter::new(
        QuotaCounterId::next(cx.ids()),
        meter.clone(),
        quota.period,
        cx.now(),
    );
    if !wanted {
        settle_period(cx, work, &quota, (quota.period.start, &present)).await?;
        let counter = work.quotas().find(meter, quota.period.start).await?;
        return Ok(loan(cx, &quota, &counter.unwrap_or(new), (0, None)));
    }
    let mut counter = work.quotas().lock(&new).await?;
    let before = counter.tally;
    settle(work, &mut counter, &present).await?;
    sweep(work, &mut counter).await?;
    let instances = instances(work, &counter, ask).await?;
    let (bought, leased) = counter
        .tally
        .lend(ask.now, ask.block, instances, quota.terms.limit);
    let lease = (leased > 0).then(|| (QuotaLeaseId::next(cx.ids()), leased));
    if let Some(lease) = lease {
        insert(cx, work, (lease, bought), &counter, ask).await?;
    }
    if counter.tally != before {
        work.quotas().save(&counter).await?;
        quota_alert::raise(cx, work, &mut counter, &quota.terms).await?;
    }
    Ok(loan(cx, &quota, &counter, (bought, lease)))
}

fn loan(
    cx: &Cx,
    quota: &Quota,
    counter: &QuotaCounter,
    (bought, lease): (u64, Option<(QuotaLeaseId, u64)>),
) -> QuotaLoan {
    QuotaLoan {
        period: quota.period,
        bought,
        lease,
        standing: counter.exceeded(quota.terms.limit, cx.now()),
    }
}

/// How many instances hold parts of a quota, or are about to.
async fn instances(work: &mut Work, counter: &QuotaCounter, ask: &QuotaAsk) -> Result<u64, StoreError> {
    if counter.tally.leased == 0 || ask.block == 0 {
        return Ok(1);
    }
    let leases = work.quotas().leases(counter.id).await?;
    let mut holders: BTreeSet<_> = leases.into_iter().map(|lease| lease.instance).collect();
    holders.insert(ask.instance);
    Ok(holders.len() as u64)
}

async fn insert(
    cx: &Cx,
    work: &mut Work,
    ((id, amount), bought): ((QuotaLeaseId, u64), u64),
    counter: &QuotaCounter,
    ask: &QuotaAsk,
) -> Result<(), StoreError> {
    let ttl = Duration::from_std(ask.ttl).map_err(|error| StoreError::Other(error.to_string()))?;
    let expires_at = work.quotas().now().await? + ttl;
    let counting = ask
        .counting
        .filter(|counting| counting.start == counter.period.start);
    let lease = QuotaLease {
        id,
        counter: counter.id,
        instance: ask.instance,
        amount,
        expires_at,
        expired: false,
        created_at: cx.now(),
        // What was bought with it is counted too.
        counted: counting.map_or(0, |counting| counting.taken) + bought,
        counting_since: counting.map_or_else(|| cx.now(), |counting| counting.since),
    };
    work.quotas().insert_lease(&lease).await
}

async fn settle_period(
    cx: &Cx,
    work: &mut Work,
    quota: &Quota,
    (start, spent): (Time, &[Spent]),
) -> Result<(), StoreError> {
    let Some(counter) = work.quotas().find(&quota.meter, start).await? else {
        return Ok(());
    };
    let Some(mut counter) = work.quotas().find_for_update(counter.id).await? else {
        return Ok(());
    };
    let before = counter.tally;
    settle(work, &mut counter, spent).await?;
    sweep(work, &mut counter).await?;
    if counter.tally != before {
        work.quotas().save(&counter).await?;
        quota_alert::raise(cx, work, &mut counter, &quota.terms).await?;
    }
    Ok(())
}

/// Takes leases of a locked counter back. One that is not there was taken back already.
async fn settle(work: &mut Work, counter: &mut QuotaCounter, spent: &[Spent]) -> Result<(), StoreError> {
    for spent in spent {
        let lease = work.quotas().lease(spent.lease).await?;
        if let Some(lease) = lease.filter(|lease| lease.counter == counter.id) {
            lease.settle(&mut counter.tally, spent.used);
            work.quotas().delete_lease(lease.id).await?;
        }
    }
    Ok(())
}
