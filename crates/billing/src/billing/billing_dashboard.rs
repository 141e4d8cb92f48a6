//! What a tenant pays, what for, and what it will come to.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry_domain::billing::{BillingAccount, ProviderInvoice};
use tenantry_domain::kernel::{Currency, Period, Permission, Projection, Reset, StoreError, Time};
use tenantry_domain::plans::PlanTerms;
use tenantry_domain::store::Work;
use tenantry_domain::usage::{Granularity, Meter, MeterTerms, OveragePrice};
use tenantry_tenancy::Cx;

use crate::billing::{BillingError, payments};
use crate::kernel::granted;
use crate::usage::cycle;

/// What a tenant pays, what for, and what it will come to.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// What it has with the payment provider; `None` before that has made it a customer.
    pub account: Option<BillingAccount>,
    /// What its plan grants.
    pub plan: Arc<PlanTerms>,
    /// The month it is in.
    pub period: Period,
    /// Each meter.
    pub meters: Vec<MeterUse>,
    /// What the period will cost, line by line.
    pub lines: Vec<CostLine>,
    /// What the provider will charge next.
    pub next_invoice: NextInvoice,
}

/// What the provider will charge next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextInvoice {
    /// This.
    Known(Box<ProviderInvoice>),
    /// Nothing.
    None,
    /// It could not be asked.
    Unknown,
}

/// How much of a meter was used, and will be.
#[derive(Debug, Clone)]
pub struct MeterUse {
    /// The definition of the used meter.
    pub meter: Arc<Meter>,
    /// What holds of it.
    pub terms: MeterTerms,
    /// The period that it counts in.
    pub period: Period,
    /// How much was used in it so far.
    pub used: u64,
    /// How much it will be at its end.
    pub projected: Projection,
}

impl MeterUse {
    /// What overage costs in a currency.
    fn price(&self, currency: &Currency) -> Option<&OveragePrice> {
        self.terms
            .overage
            .iter()
            .find(|price| price.currency == *currency)
    }
}

/// A part of what the period will cost, in the currency's minor unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostLine {
    /// The meter, or the plan where it is none.
    pub meter: Option<String>,
    /// The ISO 4217 currency of the amounts.
    pub currency: Currency,
    /// What it comes to now.
    pub now: i64,
    /// What it will come to at least.
    pub low: i64,
    /// What it will probably come to.
    pub likely: i64,
    /// What it will come to at most.
    pub high: i64,
}

/// What the tenant pays, what for, and what it will come to.
///
/// # Errors
/// [`BillingError`].
pub async fn dashboard(cx: &Cx) -> Result<Dashboard, BillingError> {
    cx.require(Permission::ReadBilling)?;
    let payments = payments(cx)?;
    let now = cx.now();
    let known = cx.read(async |work| known(cx, work, now).await).await?;
    let subscription = known.account.as_ref().and_then(BillingAccount::live_subscription);
    let next_invoice = match subscription {
        None => NextInvoice::None,
        Some(subscription) => match payments.upcoming_invoice(&subscription.id).await {
            Ok(Some(invoice)) => NextInvoice::Known(Box::new(invoice)),
            Ok(None) => NextInvoice::None,
            Err(error) => {
                tracing::warn!(%error, "the next invoice is not known");
                NextInvoice::Unknown
            }
        },
    };
    Ok(Dashboard {
        next_invoice,
        ..known
    })
}

/// All that we know ourselves.
async fn known(cx: &Cx, work: &mut Work, now: Time) -> Result<Dashboard, StoreError> {
    let account = work.billing().current().await?;
    let tenant = work.tenants().current().await?;
    let tenant = tenant.ok_or_else(|| StoreError::Other("the scope's tenant is not there".into()))?;
    let has = granted::of(cx.ports(), Arc::new(tenant.subscription()));
    let cycle = cycle::cycle(work).await?;
    let mut meters = Vec::new();
    for meter in cx.ports().plans.meters().values() {
        let period = meter.reset.period(now, &cycle);
        let used = work.usage().total(&meter.key, meter.aggregation, period).await?;
        meters.push(MeterUse {
            projected: projected(work, meter, (used, period), now).await?,
            meter: Arc::clone(meter),
            terms: has.meter(&meter.key).value,
            period,
            used,
        });
    }
    Ok(Dashboard {
        lines: lines(account.as_ref(), &has.terms, &meters),
        period: cycle.period(now),
        plan: has.terms,
        account,
        meters,
        next_invoice: NextInvoice::None,
    })
}

/// What adds up over a month is projected to its end. A level (the latest, the largest, how many different ones) and what
/// begins anew within a day is taken to stay as it is.
async fn projected(
    work: &mut Work,
    meter: &Meter,
    (used, period): (u64, Period),
    now: Time,
) -> Result<Projection, StoreError> {
    if !meter.aggregation.adds_up() || meter.reset != Reset::BillingCycle {
        return Ok(Projection::flat(used));
    }
    let days = days(work, meter, period, now).await?;
    Ok(Projection::at_end(used, &days, period, now))
}

/// What was used on each whole day of a period that is over, also where that was nothing.
async fn days(work: &mut Work, meter: &Meter, period: Period, now: Time) -> Result<Vec<u64>, StoreError> {
    let today = Period::day_of(now).start;
    let first = Period::day_of(period.start);
    let start = if first.start == period.start {
        first.start
    } else {
        first.end
    };
    if start >= today {
        return Ok(Vec::new());
    }
    let whole = Period { start, end: today };
    let mut of_day = BTreeMap::new();
    let mut day = start;
    while day < today {
        of_day.insert(day, 0_u64);
        day = Period::day_of(day).end;
    }
    let totals = work.usage().rollups(&meter.key, Granularity::Day, whole).await?;
    of_day.extend(totals.iter().map(|day| (day.start, day.measured.quantity)));
    Ok(of_day.into_values().collect())
}

/// What is bought has a line, and each meter whose overage has a price in that currency.
fn lines(account: Option<&BillingAccount>, terms: &PlanTerms, meters: &[MeterUse]) -> Vec<CostLine> {
    let subscription = account.and_then(BillingAccount::live_subscription);
    let Some((subscription, offer)) = subscription.and_then(|one| Some((one, one.offer.as_ref()?))) else {
        return Vec::new();
    };
    let price = terms
        .prices
        .iter()
        .find(|price| price.interval == offer.interval && price.currency == offer.currency);
    let plan = price.map(|price| {
        let amount = price.amount.saturating_mul(i64::from(subscription.seats));
        CostLine {
            meter: None,
            currency: offer.currency.clone(),
            now: amount,
            low: amount,
            likely: amount,
            high: amount,
        }
    });
    let overage = meters.iter().filter_map(|one| {
        let price = one.price(&offer.currency)?;
        let cost = |quantity| price.cost(one.terms.beyond(quantity));
        Some(CostLine {
            meter: Some(one.meter.key.to_string()),
            currency: offer.currency.clone(),
            now: cost(one.used),
            low: cost(one.projected.low),
            likely: cost(one.projected.likely),
            high: cost(one.projected.high),
        })
    });
    plan.into_iter().chain(overage).collect()
}
