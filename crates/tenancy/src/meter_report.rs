//! What was used is told to the payment provider, hour by hour: once, corrected where that is still possible, and with
//! whatever could not be told in sight.

use std::sync::Arc;

use chrono::Duration;
use tenantry_domain::{
    BillingAccount, CustomerRef, Delivered, Denied, Meter, MeterKey, MeterReport, MeterReportId,
    PaymentProvider, Period, Permission, ProviderError, ProviderKey, ReportState, StoreError, SystemScope,
    TenantId, TenantStatus, Time, UsageReport, Work,
};

use crate::billing_sync::{SyncError, catch_up};
use crate::job::{self, JobFailure, JobHandler, Nothing, SystemJobHandler, Terms};
use crate::{Cx, Origin, Tenancy, cycle};

/// How far back it is looked for hours that have changed: as far as usage can be recorded.
const REACH: Duration = Duration::days(90);
/// How many reports are sent at a time; the others are next.
const AT_A_TIME: u32 = 500;

/// Tells the provider what a tenant used. As it comes by every hour, it also takes a step of dunning that was missed.
#[derive(Debug, Clone, Copy)]
pub struct Publish;

impl JobHandler for Publish {
    const KIND: &'static str = "billing.publish";
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::OperateBilling)?;
        if let Some(payments) = &cx.ports().payments {
            catch_up(cx, payments.as_ref()).await?;
        }
        publish(cx).await.map(|_| ()).map_err(JobFailure::from)
    }
}

/// Asks for [`Publish`] in every tenant that is a customer.
#[derive(Debug, Clone, Copy)]
pub struct PublishAll;

impl SystemJobHandler for PublishAll {
    const KIND: &'static str = "billing.publish_all";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let mut after = None;
        loop {
            let tenants = app.ports.customers.list(because, after, 500).await?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(*last);
            for tenant in tenants {
                ask(app, because, tenant).await?;
            }
        }
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::hours(1), Nothing {}))
    }
}

async fn ask(app: &Arc<Tenancy>, because: SystemScope, tenant: TenantId) -> Result<(), JobFailure> {
    let Some(cx) = enter(app, because, tenant).await? else {
        return Ok(());
    };
    let terms = Terms {
        dedupe_key: Some("publish".to_owned()),
        ..Terms::default()
    };
    let asked = cx
        .write(async |work| job::enqueue::<Publish>(&cx, work, &Nothing {}, terms).await)
        .await;
    asked.map(|_| ()).map_err(JobFailure::from)
}

/// The context of a tenant; `None` of one that has been deleted since it was listed.
async fn enter(app: &Arc<Tenancy>, because: SystemScope, tenant: TenantId) -> Result<Option<Cx>, StoreError> {
    match app.ports.gate.system(because, tenant).await {
        Ok(scope) => Ok(Some(Cx::new(Arc::clone(app), scope, Origin::default()))),
        Err(Denied::TenantGone | Denied::TenantNotFound) => Ok(None),
        Err(Denied::Store(error)) => Err(error),
        Err(denied) => Err(StoreError::Other(denied.to_string())),
    }
}

/// What came of telling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// So many reports are new.
    pub made: u64,
    /// So many were sent.
    pub sent: u64,
    /// So many cannot be sent any more.
    pub dead: u64,
}

/// What there is to know before anything is told.
struct Plan {
    customer: CustomerRef,
    meters: Vec<Arc<Meter>>,
    period: Period,
}

/// Tells the provider what the scope's tenant used in the hours that are over, as far as its plan charges for it.
///
/// # Errors
/// [`SyncError`].
pub async fn publish(cx: &Cx) -> Result<Published, SyncError> {
    let Some(payments) = cx.ports().payments.clone() else {
        return Ok(Published::default());
    };
    let mut published = Published::default();
    let Some(plan) = cx.read(async |work| plan(cx, work).await).await? else {
        return Ok(published);
    };
    for meter in &plan.meters {
        published.made += revise(cx, payments.as_ref(), meter, plan.period).await?;
    }
    deliver(cx, payments.as_ref(), &plan.customer, &mut published).await?;
    Ok(published)
}

/// Which meters are told of, and for which hours: `None` of a tenant that pays for nothing.
async fn plan(cx: &Cx, work: &mut Work) -> Result<Option<Plan>, StoreError> {
    let account = work.billing().current().await?;
    let tenant = work.tenants().current().await?;
    let (Some(account), Some(tenant)) = (account, tenant) else {
        return Ok(None);
    };
    let subscription = account.subscription.as_ref();
    let offer = subscription.and_then(|one| Some((one, one.offer.as_ref()?)));
    let (Some(customer), Some((subscription, offer))) = (account.customer.clone(), offer) else {
        return Ok(None);
    };
    if tenant.status == TenantStatus::Deleted {
        return Ok(None);
    }
    let terms = cx.ports().plans.terms(&offer.plan, offer.version);
    let is_charged = |key: &MeterKey| {
        let overage = terms.meter(key).overage;
        overage.iter().any(|price| price.currency == offer.currency)
    };
    let meters = cx.ports().plans.meters().values();
    // What does not add up hour by hour cannot be told so.
    let charged = meters.filter(|meter| meter.aggregation.adds_up() && is_charged(&meter.key));
    let now = cx.now();
    let since = subscription.created_at.max(now - REACH);
    Ok(Some(Plan {
        customer,
        meters: charged.cloned().collect(),
        period: Period {
            start: Period::hour_of(since).start,
            end: Period::hour_of(now).start,
        },
    }))
}

/// Makes reports of the hours whose number is another than what was told; how many.
async fn revise(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    meter: &Meter,
    period: Period,
) -> Result<u64, SyncError> {
    let (hours, known) = cx
        .read(async |work| {
            let hours = work.usage().hours(&meter.key, meter.aggregation, period).await?;
            let known = work.meter_reports().list(&meter.key, period).await?;
            Ok::<_, StoreError>((hours, known))
        })
        .await?;
    let mut made = 0;
    for (hour, quantity, revision) in hours {
        let of_hour: Vec<&MeterReport> = known.iter().filter(|report| report.hour == hour).collect();
        let newest = of_hour.last().copied();
        if newest.map_or(quantity == 0, |newest| {
            newest.quantity == quantity || newest.revision >= revision
        }) {
            continue;
        }
        let new = report(cx, meter, hour, (quantity, revision));
        made += u64::from(replace(cx, payments, &of_hour, new).await?);
    }
    Ok(made)
}

fn report(cx: &Cx, meter: &Meter, hour: Time, (quantity, revision): (u64, i64)) -> MeterReport {
    let tenant = cx.scope().tenant();
    MeterReport {
        id: MeterReportId::next(cx.ids()),
        meter: meter.key.clone(),
        hour,
        revision,
        quantity,
        identifier: ProviderKey::digest(&[&tenant, &meter.key, &hour.to_rfc3339(), &revision]),
        state: ReportState::Pending,
        attempts: 0,
        reason: None,
        created_at: cx.now(),
        sent_at: None,
    }
}

/// Puts a report into the place of the earlier ones of its hour: what the provider has counted is taken back first, and
/// where that is too late the new one is kept for ourselves. Whether it is new.
async fn replace(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    earlier: &[&MeterReport],
    mut new: MeterReport,
) -> Result<bool, SyncError> {
    // What is still to be sent may have arrived: its answer was lost, or whoever waited for it died. One that the provider
    // does not know is as good as taken back.
    let is_pending = |report: &MeterReport| report.state == ReportState::Pending;
    let counted = earlier
        .iter()
        .find(|report| is_pending(report) || report.state == ReportState::Sent);
    if let Some(counted) = counted {
        let taken_back = (is_pending(counted) || counted.is_revocable(cx.now())) && {
            match payments.cancel_usage(&counted.meter, &counted.identifier).await {
                Ok(()) => true,
                Err(ProviderError::Refused(_)) => false,
                Err(error) => return Err(error.into()),
            }
        };
        if !taken_back {
            new.state = ReportState::Late;
            new.reason = Some(format!("the provider has counted {} for good", counted.quantity));
        }
    }
    if new.state == ReportState::Pending && new.quantity == 0 {
        new.state = ReportState::Replaced;
        new.reason = Some("there is nothing to tell".into());
    }
    let new = &new;
    let written = cx
        .write(async |work| {
            if new.state != ReportState::Late {
                let open = [ReportState::Sent, ReportState::Pending, ReportState::Dead];
                for report in earlier.iter().filter(|report| open.contains(&report.state)) {
                    let mut replaced = (*report).clone();
                    replaced.state = ReportState::Replaced;
                    // Sent by somebody else after it was looked whether it can be taken back.
                    if !work.meter_reports().update(&replaced, report.state).await? {
                        return Err(StoreError::Contention);
                    }
                }
            }
            work.meter_reports().insert_unless_there(new).await
        })
        .await;
    written.map_err(SyncError::Store)
}

/// Sends what is to be sent, the oldest first. What the provider refuses for good, and what has become too old, is dead.
async fn deliver(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    customer: &CustomerRef,
    published: &mut Published,
) -> Result<(), SyncError> {
    let pending = cx
        .read(async |work| {
            work.meter_reports()
                .in_state(ReportState::Pending, AT_A_TIME)
                .await
        })
        .await?;
    for mut report in pending {
        if report.is_too_old(cx.now()) {
            report.state = ReportState::Dead;
            report.reason = Some("the provider takes nothing that is older than 35 days".into());
            published.dead += 1;
            store(cx, payments, &report).await?;
            continue;
        }
        let usage = UsageReport {
            customer: customer.clone(),
            meter: report.meter.clone(),
            quantity: report.quantity,
            at: report.told_at(),
            identifier: report.identifier.clone(),
        };
        let told = if is_counted(cx, payments, &report, &usage).await? {
            Ok(Delivered::Before)
        } else {
            payments.report_usage(&usage).await
        };
        report.attempts += 1;
        match &told {
            Ok(_) => {
                report.state = ReportState::Sent;
                report.sent_at = Some(cx.now());
                report.reason = None;
                published.sent += 1;
            }
            Err(error) => {
                report.reason = Some(error.to_string());
                if !error.may_pass() {
                    report.state = ReportState::Dead;
                    published.dead += 1;
                }
            }
        }
        store(cx, payments, &report).await?;
        if let Err(error) = told
            && error.may_pass()
        {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Whether the provider has counted a report that was made so long ago that its identifier is forgotten there: the answer
/// may have been lost, and what is repeated now would be counted again.
async fn is_counted(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    report: &MeterReport,
    usage: &UsageReport,
) -> Result<bool, ProviderError> {
    if cx.now() - report.created_at <= MeterReport::REVOCABLE {
        return Ok(false);
    }
    let hour = Period::hour_of(usage.at);
    match payments.usage_of(&usage.customer, &usage.meter, hour).await {
        Ok(counted) => Ok(counted >= usage.quantity),
        Err(error) if error.may_pass() => Err(error),
        Err(_) => Ok(false),
    }
}

/// Stores what came of sending a report. Where another one has taken its place meanwhile it is taken back: whoever did that
/// may have been too early to.
async fn store(cx: &Cx, payments: &dyn PaymentProvider, report: &MeterReport) -> Result<(), SyncError> {
    let replaced = cx
        .write(async |work| {
            let reports = work.meter_reports();
            if reports.update(report, ReportState::Pending).await? {
                return Ok(false);
            }
            let of_hour = reports.list(&report.meter, Period::hour_of(report.hour)).await?;
            let now = of_hour.iter().find(|one| one.id == report.id);
            Ok::<_, StoreError>(now.is_some_and(|now| now.state == ReportState::Replaced))
        })
        .await?;
    if replaced && report.state == ReportState::Sent {
        payments.cancel_usage(&report.meter, &report.identifier).await?;
    }
    Ok(())
}

/// How our number of a meter and the provider's differ, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub meter: MeterKey,
    /// In which whole hours.
    pub period: Period,
    /// Our number.
    pub ours: u64,
    /// The provider's.
    pub theirs: u64,
    /// So much is in the hours that are not yet told.
    pub untold: i64,
    /// So much is still to be sent.
    pub pending: i64,
    /// So much cannot be sent any more.
    pub dead: i64,
    /// So much was corrected when it was too late.
    pub late: i64,
}

impl Drift {
    /// How much more we have than the provider.
    pub fn difference(&self) -> i64 {
        signed(self.ours).saturating_sub(signed(self.theirs))
    }

    /// What none of the reasons explains; anything but 0 is to be looked into.
    pub fn unexplained(&self) -> i64 {
        let explained = [self.untold, self.pending, self.dead, self.late];
        explained.into_iter().fold(self.difference(), i64::saturating_sub)
    }
}

fn signed(quantity: u64) -> i64 {
    i64::try_from(quantity).unwrap_or(i64::MAX)
}

/// How our numbers of the scope's tenant and the provider's differ, in the whole hours of a period; the present month when
/// none is given. Nothing of a tenant that pays for nothing by use.
///
/// # Errors
/// [`SyncError`].
pub async fn drift(cx: &Cx, period: Option<Period>) -> Result<Vec<Drift>, SyncError> {
    let Some(payments) = cx.ports().payments.clone() else {
        return Ok(Vec::new());
    };
    let known = cx
        .read(async |work| {
            let month = cycle::cycle(work).await?.period(cx.now());
            let subscribed_at = work.billing().current().await?.and_then(subscribed_at);
            Ok::<_, StoreError>((plan(cx, work).await?, month, subscribed_at))
        })
        .await?;
    let (Some(plan), month, subscribed_at) = known else {
        return Ok(Vec::new());
    };
    let asked = period.unwrap_or(month);
    let period = Period {
        start: subscribed_at.map_or(asked.start, |at| at.max(asked.start)),
        end: asked.end,
    };
    let hours = Period {
        start: Period::hour_of(period.start).start,
        end: Period::hour_of(period.end.min(cx.now() + Duration::hours(1))).start,
    };
    let mut drifts = Vec::new();
    for meter in &plan.meters {
        let theirs = payments.usage_of(&plan.customer, &meter.key, hours).await?;
        let drift = cx
            .read(async |work| ours(cx, work, meter, (hours, theirs)).await)
            .await?;
        drifts.push(drift);
    }
    Ok(drifts)
}

fn subscribed_at(account: BillingAccount) -> Option<Time> {
    account.subscription.map(|subscription| subscription.created_at)
}

async fn ours(
    cx: &Cx,
    work: &mut Work,
    meter: &Meter,
    (period, theirs): (Period, u64),
) -> Result<Drift, StoreError> {
    let ours = work.usage().total(&meter.key, meter.aggregation, period).await?;
    let reports = work.meter_reports().list(&meter.key, period).await?;
    let newest = work.meter_reports().newest(&meter.key, period).await?;
    let sum = |state: ReportState| {
        let of_state = newest.iter().filter(|report| report.state == state);
        of_state.map(|report| signed(report.quantity)).sum::<i64>()
    };
    let told: i64 = newest.iter().map(|report| signed(report.quantity)).sum();
    let counted_late = |report: &&MeterReport| {
        let late = newest.iter().find(|newest| newest.hour == report.hour);
        report.state == ReportState::Sent && late.is_some_and(|late| late.state == ReportState::Late)
    };
    let counted: i64 = reports
        .iter()
        .filter(counted_late)
        .map(|report| signed(report.quantity))
        .sum();
    Ok(Drift {
        tenant: cx.scope().tenant(),
        meter: meter.key.clone(),
        period,
        ours,
        theirs,
        untold: signed(ours).saturating_sub(told),
        pending: sum(ReportState::Pending),
        dead: sum(ReportState::Dead),
        late: sum(ReportState::Late) - counted,
    })
}

/// The drift of a tenant, for an operator; nothing of one that is deleted.
///
/// # Errors
/// [`SyncError`].
pub async fn drift_of(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: TenantId,
    period: Option<Period>,
) -> Result<Vec<Drift>, SyncError> {
    match enter(app, because, tenant).await? {
        Some(cx) => drift(&cx, period).await,
        None => Ok(Vec::new()),
    }
}

/// Tells the provider what a tenant used, at once, for an operator.
///
/// # Errors
/// [`SyncError`].
pub async fn publish_of(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: TenantId,
) -> Result<Published, SyncError> {
    match enter(app, because, tenant).await? {
        Some(cx) => publish(&cx).await,
        None => Ok(Published::default()),
    }
}

/// The reports of a tenant that cannot be sent any more, for an operator.
///
/// # Errors
/// [`StoreError`].
pub async fn dead_of(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: TenantId,
) -> Result<Vec<MeterReport>, StoreError> {
    match enter(app, because, tenant).await? {
        Some(cx) => {
            cx.read(async |work| work.meter_reports().in_state(ReportState::Dead, AT_A_TIME).await)
                .await
        }
        None => Ok(Vec::new()),
    }
}
