//! How the counters of quotas and the ledger differ, why, and what of that is put right.
//!
//! A counter says more than was used when a server dies: what it held counts as used. Nobody is billed by a counter, but
//! until the period is over the tenant has less than it paid for.

use std::collections::BTreeMap;

use chrono::Duration;
use serde_json::json;
use tenantry_domain::kernel::{Permission, QuotaCounterId, StoreError, SystemScope, TenantId};
use tenantry_domain::store::Work;
use tenantry_domain::usage::{Aggregation, QuotaCounter, QuotaDrift, QuotaFinding};
use tenantry_tenancy::{Cx, OperatorCx};

use crate::usage::quota;

/// For how long the holder of a lease that has expired may still say what was used of it, before that is put right without an
/// operator. A lease lasts for seconds; a server that has not said it by then is not there any more.
const RETURNABLE: Duration = Duration::hours(1);

/// The same for an operator, who knows that no server has calls left to store.
const RETURNABLE_AT_ALL: Duration = Duration::minutes(1);

/// Which counters are put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// None.
    Nothing,
    /// Those of periods that are over.
    Ended,
    /// Those of present periods, too. Whoever asks for that knows that no server, nor the folder of a dead one, has calls
    /// left that are not in the ledger: what is taken back can be used.
    All,
}

impl Repair {
    /// How long ago a lease must have expired before it is put right.
    const fn grace(self) -> Duration {
        match self {
            Self::Nothing | Self::Ended => RETURNABLE,
            Self::All => RETURNABLE_AT_ALL,
        }
    }
}

/// How a counter and the ledger differed, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// How they differed.
    pub drift: QuotaDrift,
    /// How much was given back; `None` where nothing was put right.
    pub given_back: Option<u64>,
}

/// Compares the counters of the scope's tenant with its ledger: those of the present periods and those of which leases
/// were lost.
///
/// # Errors
/// [`StoreError`].
pub async fn reconcile(cx: &Cx, repair: Repair) -> Result<Vec<Reconciled>, StoreError> {
    let required = cx.require(Permission::LendQuota);
    required.map_err(|refused| StoreError::Other(refused.to_string()))?;
    let found = cx.read(async |work| look(cx, work, repair).await).await?;
    let mut all = Vec::new();
    for (counter, drift) in found {
        let is_wanted = match repair {
            Repair::Nothing => false,
            Repair::Ended => drift.is_over(cx.now() - RETURNABLE),
            Repair::All => true,
        };
        let given_back = match drift.finding() {
            QuotaFinding::Lost(_) if is_wanted => put_right(cx, counter, repair).await?,
            _ => None,
        };
        all.push(Reconciled { drift, given_back });
    }
    Ok(all)
}

/// [`reconcile`] in a tenant, for a command; nothing of one that is deleted. With `repair`, what was lost is put right, in present periods
/// too, on record.
///
/// # Errors
/// [`StoreError`].
pub async fn reconcile_of(
    operators: &OperatorCx,
    because: SystemScope,
    tenant: TenantId,
    repair: bool,
) -> Result<Vec<Reconciled>, StoreError> {
    let required = operators.require_command();
    required.map_err(|refused| StoreError::Other(refused.to_string()))?;
    let Some(cx) = operators.try_enter(because, tenant).await? else {
        return Ok(Vec::new());
    };
    let found = reconcile(&cx, Repair::Nothing).await?;
    let is_lost = |one: &Reconciled| matches!(one.drift.finding(), QuotaFinding::Lost(_));
    if !repair || !found.iter().any(is_lost) {
        return Ok(found);
    }
    let record = operators.record("quota.repaired", Some(tenant), json!({}));
    let repaired = reconcile(&cx, Repair::All);
    operators.act(record, "quota.repair_failed", repaired).await
}

async fn look(
    cx: &Cx,
    work: &mut Work,
    repair: Repair,
) -> Result<Vec<(QuotaCounterId, QuotaDrift)>, StoreError> {
    let grace = match repair {
        Repair::Nothing | Repair::All => Duration::zero(),
        Repair::Ended => RETURNABLE,
    };
    let lost = lost(work, grace).await?;
    // It is asked every day of every tenant, and almost always there is nothing to be put right.
    if lost.is_empty() && repair == Repair::Ended {
        return Ok(Vec::new());
    }
    let these: Vec<QuotaCounterId> = lost.keys().copied().collect();
    let mut found = Vec::new();
    for counter in work.quotas().around(cx.now(), &these).await? {
        let tally = quota::as_if_swept(work, counter.id, counter.tally).await?;
        let drift = QuotaDrift {
            ledger: ledger(cx, work, &counter).await?,
            lost: lost.get(&counter.id).copied().unwrap_or_default(),
            meter: counter.meter,
            period: counter.period,
            adjustment: counter.adjustment,
            tally,
        };
        found.push((counter.id, drift));
    }
    Ok(found)
}

/// For how much the leases were that expired so long ago and were not returned, counter by counter. When a lease has expired is
/// said by the clock of the database, as everything about leases is.
async fn lost(work: &mut Work, grace: Duration) -> Result<BTreeMap<QuotaCounterId, u64>, StoreError> {
    let mut lost = BTreeMap::<_, u64>::new();
    let before = work.quotas().now().await? - grace;
    for lease in work.quotas().lost_leases(before).await? {
        let of_counter = lost.entry(lease.counter).or_default();
        *of_counter = of_counter.saturating_add(lease.amount);
    }
    Ok(lost)
}

async fn ledger(cx: &Cx, work: &mut Work, counter: &QuotaCounter) -> Result<u64, StoreError> {
    // A meter that has left the catalogue is still added up, as its totals are.
    let meter = cx.ports().plans.meters().get(&counter.meter);
    let aggregation = meter.map_or(Aggregation::Sum, |meter| meter.aggregation);
    work.usage()
        .total(&counter.meter, aggregation, counter.period)
        .await
}

/// Takes back what was lost, by the numbers that hold once the counter is locked; how much that was. `None` when somebody
/// has borrowed a part meanwhile: then it is for the next time.
/// An operator's repair is in the tenant's log; what the upkeep puts right is in that of the server.
async fn put_right(cx: &Cx, id: QuotaCounterId, repair: Repair) -> Result<Option<u64>, StoreError> {
    let grace = repair.grace();
    cx.write(async |work| {
        let Some(mut counter) = work.quotas().find_for_update(id).await? else {
            return Ok(None);
        };
        if quota::sweep(work, &mut counter).await? {
            // What has expired stays counted, whatever follows.
            work.quotas().save(&counter).await?;
        }
        let ledger = ledger(cx, work, &counter).await?;
        let before = work.quotas().now().await? - grace;
        let lost = lost(work, grace).await?.get(&id).copied().unwrap_or_default();
        let ledger = counter.by_ledger(ledger);
        let Ok(back) = counter.tally.reconcile(ledger, lost) else {
            return Ok(None);
        };
        if lost == 0 {
            return Ok(None);
        }
        work.quotas().delete_lost_leases(id, before).await?;
        work.quotas().save(&counter).await?;
        let (meter, from) = (counter.meter.as_str(), counter.period.start);
        if repair == Repair::All {
            let details = json!({"meter": meter, "period_start": from, "given_back": back});
            let event = cx.security("quota.repaired", "quota_counter", Some(id.uuid()), details);
            work.audit().record(event).await?;
        }
        tracing::info!(meter, %from, back, "what nobody returned of a quota counts no more");
        Ok(Some(back))
    })
    .await
}
