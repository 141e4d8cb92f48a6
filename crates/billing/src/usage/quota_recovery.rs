//! Leases of quotas that their holders do not return: they lapse by the clock, and those of a server that has died are settled
//! by what its calls in the ledger say.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{Duration, DurationRound as _};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Permission, QuotaCounterId, StoreError, SystemScope, Time};
use tenantry_domain::store::Work;
use tenantry_domain::usage::{MeterKey, QuotaCounter, QuotaLease};
use tenantry_tenancy::operations::job::{JobFailure, JobHandler, Nothing, SystemJobHandler, run_in_each};
use tenantry_tenancy::usage::QuotaRecovery;
use tenantry_tenancy::{Cx, Tenancy};
use uuid::Uuid;

use crate::kernel::granted;
use crate::usage::quota_drift::{self, Repair};
use crate::usage::{quota, quota_alert};

/// How many tenants are listed at a time.
const AT_A_TIME: u32 = 500;

/// Counts leases of a tenant whose time is over as used, and raises the alerts that are due by that.
#[derive(Debug, Clone, Copy)]
pub struct Lapse;

impl JobHandler for Lapse {
    const KIND: &'static str = "quota.lapse";
    // What a suspended tenant has used is not less for that.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::LendQuota)?;
        Ok(lapse(cx).await?)
    }
}

/// [`Lapse`] in every tenant that has such leases, once a minute.
#[derive(Debug, Clone, Copy)]
pub struct LapseAll;

impl SystemJobHandler for LapseAll {
    const KIND: &'static str = "quota.lapse_all";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let mut after = None;
        loop {
            let upkeep = &app.ports.quota_upkeep;
            let tenants = upkeep.lapsed(because, after, AT_A_TIME).await?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(*last);
            run_in_each(app, because, &tenants, &Lapse, &Nothing {}).await?;
        }
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::minutes(1), Nothing {}))
    }
}

/// A process that has died and whose calls are all in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its name among those that hold leases.
    pub instance: Uuid,
}

/// Settles the leases of a tenant that such a process held: what its calls in the ledger do not account for is free again.
#[derive(Debug, Clone, Copy)]
pub struct SettleEnded;

impl JobHandler for SettleEnded {
    const KIND: &'static str = "quota.settle_ended";
    const WRITES: bool = false;
    type Payload = Ended;

    async fn run(&self, cx: &Cx, ended: Ended) -> Result<(), JobFailure> {
        cx.require(Permission::LendQuota)?;
        let held = cx
            .read(async |work| work.quotas().held_by(ended.instance).await)
            .await?;
        let counters: BTreeSet<QuotaCounterId> = held.iter().map(|lease| lease.counter).collect();
        for counter in counters {
            settle_ended(cx, ended.instance, counter).await?;
        }
        Ok(())
    }
}

/// Counts what has expired of each counter as used, each in a transaction of its own: counters are locked in no order.
async fn lapse(cx: &Cx) -> Result<(), StoreError> {
    let counters = cx
        .read(async |work| {
            let now = work.quotas().now().await?;
            work.quotas().unswept(now).await
        })
        .await?;
    for id in counters {
        cx.write(async |work| {
            if let Some(mut counter) = work.quotas().find_for_update(id).await?
                && quota::sweep(work, &mut counter).await?
            {
                work.quotas().save(&counter).await?;
                raise(cx, work, &mut counter).await?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    }
    Ok(())
}

/// Takes leases back by the clock and the ledger: [`QuotaRecovery`].
#[derive(Debug, Clone, Copy)]
pub struct LeaseRecovery;

#[async_trait]
impl QuotaRecovery for LeaseRecovery {
    async fn lapse(&self, cx: &Cx) -> Result<(), StoreError> {
        lapse(cx).await
    }

    async fn reconcile_ended(&self, cx: &Cx) -> Result<(), StoreError> {
        quota_drift::reconcile(cx, Repair::Ended).await.map(|_| ())
    }
}

/// Settles what a process held that has died, in each tenant, once all of its calls are in the ledger. Done twice it is the same
/// as once.
///
/// # Errors
/// [`JobFailure`]; then it is to be done again.
pub(crate) async fn recover(app: &Arc<Tenancy>, instance: Uuid) -> Result<(), JobFailure> {
    let because = SystemScope::because("settle the leases of a server that has died");
    let mut after = None;
    loop {
        let upkeep = &app.ports.quota_upkeep;
        let tenants = upkeep.held_by(because, instance, after, AT_A_TIME).await?;
        let Some(last) = tenants.last() else { return Ok(()) };
        after = Some(*last);
        run_in_each(app, because, &tenants, &SettleEnded, &Ended { instance }).await?;
    }
}

async fn settle_ended(cx: &Cx, instance: Uuid, id: QuotaCounterId) -> Result<(), StoreError> {
    cx.write(async |work| {
        let Some(mut counter) = work.quotas().find_for_update(id).await? else {
            return Ok(());
        };
        // Of no other meter do the ledger's keys say which process counted.
        if counter.meter.as_str() != MeterKey::API_CALLS {
            return Ok(());
        }
        let held = work.quotas().held_by(instance).await?;
        let leases: Vec<QuotaLease> = held.into_iter().filter(|lease| lease.counter == id).collect();
        let Some(since) = leases.iter().map(|lease| lease.counting_since).min() else {
            return Ok(());
        };
        let source = calls_of(instance);
        let recorded = work
            .usage()
            .recorded_since(&counter.meter, whole_minute(since), &source)
            .await?;
        let back = QuotaLease::settle_ended(&leases, &mut counter.tally, recorded);
        for lease in &leases {
            work.quotas().delete_lease(lease.id).await?;
        }
        work.quotas().save(&counter).await?;
        raise(cx, work, &mut counter).await?;
        let meter = counter.meter.as_str();
        tracing::info!(meter, %instance, back, "the leases of a server that has died are settled");
        Ok(())
    })
    .await
}

/// The beginning of the ledger keys of the calls that a process has answered: the name of its spool's batches, which
/// [`metering`](super::metering) makes the keys of.
fn calls_of(instance: Uuid) -> String {
    format!("calls:{instance}/")
}

/// Calls are recorded at the beginning of their minute; those of an earlier one count too, in case the clock has stepped back.
fn whole_minute(since: Time) -> Time {
    let minute = Duration::minutes(1);
    since.duration_trunc(minute).unwrap_or(since) - minute
}

/// Raises the alerts of a counter whose meter is still in the catalogue.
async fn raise(cx: &Cx, work: &mut Work, counter: &mut QuotaCounter) -> Result<(), StoreError> {
    if !cx.ports().plans.meters().contains_key(&counter.meter) {
        return Ok(());
    }
    let terms = granted::current(cx).meter(&counter.meter).value;
    quota_alert::raise(cx, work, counter, &terms).await
}
