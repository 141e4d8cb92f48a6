//! How the counters of quotas and the ledger differ, why, and what of that is put right.
//!
//! A counter says more than was used when a server dies: what it held counts as used. Nobody is billed by a counter, but
//! until the period is over the tenant has less than it paid for.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Duration;
use tenantry_domain::{
    Aggregation, Permission, QuotaCounter, QuotaCounterId, QuotaDrift, QuotaFinding, StoreError, SystemScope,
    TenantId, Time, Work,
};

use crate::{Cx, Tenancy, quota};

/// For how long whoever held a lease may still say what was used of it. A lease lasts for seconds; whoever has not said it
/// by then is not there any more.
const RETURNABLE: Duration = Duration::hours(1);

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
            QuotaFinding::Lost(_) if is_wanted => put_right(cx, counter).await?,
            _ => None,
        };
        all.push(Reconciled { drift, given_back });
    }
    Ok(all)
}

/// [`reconcile`] in a tenant, for an operator or a sweep; nothing of one that is deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn reconcile_of(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: TenantId,
    repair: Repair,
) -> Result<Vec<Reconciled>, StoreError> {
    match Cx::enter(app, because, tenant).await? {
        Some(cx) => reconcile(&cx, repair).await,
        None => Ok(Vec::new()),
    }
}

async fn look(
    cx: &Cx,
    work: &mut Work,
    repair: Repair,
) -> Result<Vec<(QuotaCounterId, QuotaDrift)>, StoreError> {
    let lost = lost(work).await?;
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
            tally,
        };
        found.push((counter.id, drift));
    }
    Ok(found)
}

/// For how much the leases were that nobody returned, counter by counter.
async fn lost(work: &mut Work) -> Result<BTreeMap<QuotaCounterId, u64>, StoreError> {
    let mut lost = BTreeMap::<_, u64>::new();
    let before = returnable(work).await?;
    for lease in work.quotas().lost_leases(before).await? {
        let of_counter = lost.entry(lease.counter).or_default();
        *of_counter = of_counter.saturating_add(lease.amount);
    }
    Ok(lost)
}

/// Leases that expired before then are lost, by the clock of the database, as everything about leases is.
async fn returnable(work: &mut Work) -> Result<Time, StoreError> {
    Ok(work.quotas().now().await? - RETURNABLE)
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
async fn put_right(cx: &Cx, id: QuotaCounterId) -> Result<Option<u64>, StoreError> {
    cx.write(async |work| {
        let Some(mut counter) = work.quotas().find_for_update(id).await? else {
            return Ok(None);
        };
        quota::sweep(work, &mut counter).await?;
        let (ledger, before) = (ledger(cx, work, &counter).await?, returnable(work).await?);
        let lost = lost(work).await?.get(&id).copied().unwrap_or_default();
        let Ok(back) = counter.tally.reconcile(ledger, lost) else {
            return Ok(None);
        };
        work.quotas().delete_lost_leases(id, before).await?;
        work.quotas().save(&counter).await?;
        let (meter, from) = (counter.meter.as_str(), counter.period.start);
        tracing::info!(meter, %from, back, "what nobody returned of a quota counts no more");
        Ok(Some(back))
    })
    .await
}
