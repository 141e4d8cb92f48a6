//! What was used is told to the payment provider, hour by hour: once, corrected where that is still possible, and with
//! whatever could not be told in sight.

use std::sync::Arc;

use chrono::Duration;
use serde_json::json;
use tenantry_domain::billing::{
    ChargedTime, CustomerRef, Delivered, MeterReport, PaymentProvider, ProviderError, ProviderKey,
    ReportState, UsageReport,
};
use tenantry_domain::kernel::{BillingCycle, MeterReportId, Period, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Capability;
use tenantry_domain::usage::{Granularity, Meter, MeterKey, Rollup};
use tenantry_tenancy::operations::job::{self, JobError, Nothing, Terms};
use tenantry_tenancy::{Cx, OperatorCx, Tenancy};

use crate::billing::sync_error::SyncError;

/// How far back it is looked for hours that have changed: as far as usage can be recorded.
const REACH: Duration = Duration::days(90);
/// How many reports are sent at a time; the others are next.
const AT_A_TIME: u32 = 500;

/// Tells the provider what a tenant used. As it comes by every hour, it also takes a step of dunning that was missed, and
/// asks for what a subscription lacks.
#[derive(Debug, Clone, Copy)]
pub struct Publish;

/// Asks for [`Publish`] in the scope's tenant, of which something has ended: its last invoice becomes final an hour later. What
/// servers and totals still have to store is waited for.
///
/// # Errors
/// [`JobError`].
pub(crate) async fn publish_soon(cx: &Cx, work: &mut Work) -> Result<(), JobError> {
    let terms = Terms {
        run_at: Some(cx.now() + Duration::minutes(5)),
        dedupe_key: Some("publish soon".to_owned()),
        ..Terms::default()
    };
    job::enqueue::<Publish>(cx, work, &Nothing {}, terms).await?;
    Ok(())
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
    charges: Vec<Charge>,
    cycle: BillingCycle,
}

/// A meter that is charged, and when.
struct Charge {
    meter: Arc<Meter>,
    time: ChargedTime,
}

/// Tells the provider what the scope's tenant used in the hours that are over, as far as its subscription charges it.
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
    for charge in &plan.charges {
        published.made += revise(cx, payments.as_ref(), charge, &plan.cycle).await?;
    }
    deliver(cx, payments.as_ref(), &plan, &mut published).await?;
    Ok(published)
}

/// Which meters are told of, and when they are charged: `None` of a tenant that has no subscription.
async fn plan(cx: &Cx, work: &mut Work) -> Result<Option<Plan>, StoreError> {
    let account = work.billing().current().await?;
    let tenant = work.tenants().current().await?;
    let (Some(account), Some(tenant)) = (account, tenant) else {
        return Ok(None);
    };
    let (Some(customer), Some(subscription)) = (&account.customer, &account.subscription) else {
        return Ok(None);
    };
    if !tenant.status.allows(Capability::Billing) {
        return Ok(None);
    }
    let meters = cx.ports().plans.meters().values();
    let charges = meters.filter_map(|meter| {
        Some(Charge {
            time: ChargedTime::of(subscription, &meter.key)?,
            meter: Arc::clone(meter),
        })
    });
    Ok(Some(Plan {
        customer: customer.clone(),
        charges: charges.collect(),
        cycle: account.cycle(),
    }))
}

impl Charge {
    /// The hours that are looked at: those that are over, as far back as usage can be recorded, and that in which it ended.
    fn hours(&self, now: Time) -> Period {
        let since = self.time.since.max(now - REACH);
        let over = Period::hour_of(now).start;
        let ended_at = self.time.ended_at.filter(|ended_at| *ended_at <= now);
        Period {
            start: Period::hour_of(since).start,
            end: ended_at.map_or(over, |ended_at| over.max(hour_before(ended_at).end)),
        }
    }

    /// The last hour before a moment of which there is something to tell.
    fn last_hour(&self, end: Time) -> Period {
        hour_before(self.time.ended_at.map_or(end, |ended_at| end.min(ended_at)))
    }
}

/// The hour that ends at a moment, or that it is in.
fn hour_before(end: Time) -> Period {
    Period::hour_of(end - Duration::microseconds(1))
}

/// A number that the provider has to be told anew.
struct Due {
    hour: Period,
    quantity: u64,
    revision: i64,
}

/// Makes reports of the hours whose number is another than what was told; how many.
async fn revise(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    charge: &Charge,
    cycle: &BillingCycle,
) -> Result<u64, SyncError> {
    let hours = charge.hours(cx.now());
    let (known, due) = cx
        .read(async |work| {
            // First what was told: what is measured after that is not older than what somebody else has told.
            let known = work.meter_reports().list(&charge.meter.key, hours).await?;
            let due = if charge.meter.aggregation.adds_up() {
                changed_hours(work, charge, hours, &known).await?
            } else {
                changed_months(work, charge, cycle, (hours, &known), cx.now()).await?
            };
            Ok::<_, StoreError>((known, due))
        })
        .await?;
    let mut made = 0;
    for due in due {
        let of_hour = known.iter().filter(|report| report.hour == due.hour.start);
        let of_hour: Vec<&MeterReport> = of_hour.collect();
        let new = report(cx, &charge.meter, &due, of_hour.last().copied());
        made += u64::from(replace(cx, payments, &charge.meter, &of_hour, new).await?);
    }
    Ok(made)
}

/// Of what adds up: each hour whose number has changed.
async fn changed_hours(
    work: &mut Work,
    charge: &Charge,
    hours: Period,
    known: &[MeterReport],
) -> Result<Vec<Due>, StoreError> {
    let (meter, mut due) = (&charge.meter, Vec::new());
    let mut totals = work.usage().hours(&meter.key, meter.aggregation, hours).await?;
    // The hour in which it ended has to be told before it is over, and totalled.
    let ended = charge.time.ended_at.map(hour_before);
    if let Some(hour) = ended.filter(|hour| hours.contains(hour.start))
        && totals.iter().all(|(total, ..)| *total != hour.start)
    {
        totals.push((hour.start, 0, 1));
    }
    for (hour, quantity, revision) in totals {
        let hour = Period::hour_of(hour);
        let quantity = match charge.time.part(hour) {
            None => 0,
            Some(part) if part == hour => quantity,
            Some(part) => {
                let measured = work.usage().measure(&meter.key, meter.aggregation, part);
                measured.await?.quantity
            }
        };
        let newest = known.iter().rfind(|report| report.hour == hour.start);
        if newest.map_or(0, |newest| newest.quantity) != quantity {
            due.push(Due {
                hour,
                quantity,
                revision,
            });
        }
    }
    Ok(due)
}

/// Of what does not add up: what each month comes to up to its last hour that is over, where that is another number than
/// was told last. It is told for that hour, so that of all that was told of the month it is the latest, and counts; what
/// was told of earlier hours need not be taken back.
async fn changed_months(
    work: &mut Work,
    charge: &Charge,
    cycle: &BillingCycle,
    (hours, known): (Period, &[MeterReport]),
    now: Time,
) -> Result<Vec<Due>, StoreError> {
    let (meter, mut due) = (&charge.meter, Vec::new());
    let mut hour = charge.last_hour(hours.end);
    while hour.start >= hours.start && now - hour.start <= MeterReport::TELLABLE {
        let Some(month) = charge.time.month_to(hour, cycle) else {
            break;
        };
        let first = Period::hour_of(month.start);
        let is_of_month = |report: &&MeterReport| first.start <= report.hour && report.hour < hour.end;
        let newest = known.iter().rfind(is_of_month);
        if newest.is_none() || has_changed(work, meter, month, newest).await? {
            let quantity = work.usage().total(&meter.key, meter.aggregation, month).await?;
            if newest.map_or(0, |newest| newest.quantity) != quantity {
                due.push(Due {
                    hour,
                    quantity,
                    revision: 1,
                });
            }
        }
        hour = hour_before(first.start);
    }
    Ok(due)
}

/// Whether anything of a month may have been totalled since it was told: that is cheaper to know than what it comes to.
async fn has_changed(
    work: &mut Work,
    meter: &Meter,
    month: Period,
    told: Option<&MeterReport>,
) -> Result<bool, StoreError> {
    let days = Period {
        start: Period::day_of(month.start).start,
        end: month.end,
    };
    // Clocks of servers differ, and what is totalled is stored a moment later.
    let before = told.map(|told| told.created_at - Duration::hours(1));
    let days = work.usage().rollups(&meter.key, Granularity::Day, days).await?;
    let is_new = |day: &Rollup| before.is_none_or(|before| day.computed_at > before);
    Ok(days.iter().any(is_new) || !work.usage().dirty_hours(&meter.key, month).await?.is_empty())
}

fn report(cx: &Cx, meter: &Meter, due: &Due, newest: Option<&MeterReport>) -> MeterReport {
    let (tenant, hour) = (cx.scope().tenant(), due.hour.start);
    // What is told of a part of an hour may change without the hour's number.
    let next = newest.map_or(0, |newest| newest.revision + 1);
    let revision = due.revision.max(next);
    MeterReport {
        id: MeterReportId::next(cx.ids()),
        meter: meter.key.clone(),
        hour,
        revision,
        quantity: due.quantity,
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
    meter: &Meter,
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
    // Of what does not add up, nothing is a number like any other.
    if new.state == ReportState::Pending && new.quantity == 0 && meter.aggregation.adds_up() {
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
    plan: &Plan,
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
        let charge = plan.charges.iter().find(|one| one.meter.key == report.meter);
        let usage = UsageReport {
            customer: plan.customer.clone(),
            meter: report.meter.clone(),
            quantity: report.quantity,
            at: report.told_at(charge.map(|charge| &charge.time)),
            identifier: report.identifier.clone(),
        };
        // Of what does not add up the same number may be told again: the latest counts.
        let adds_up = charge.is_none_or(|charge| charge.meter.aggregation.adds_up());
        let told = if adds_up && is_counted(cx, payments, &report, &usage).await? {
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
    /// Key of the meter whose numbers differ.
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
/// none is given. Of what does not add up it is the month of the subscription that the period ends in, up to that end.
/// Nothing of a tenant that pays for nothing by use.
///
/// # Errors
/// [`SyncError`].
pub async fn drift(cx: &Cx, period: Option<Period>) -> Result<Vec<Drift>, SyncError> {
    let Some(payments) = cx.ports().payments.clone() else {
        return Ok(Vec::new());
    };
    let Some(plan) = cx.read(async |work| plan(cx, work).await).await? else {
        return Ok(Vec::new());
    };
    let asked = period.unwrap_or_else(|| plan.cycle.period(cx.now()));
    let mut drifts = Vec::new();
    for charge in &plan.charges {
        let Some(compared) = charge.compared(asked, &plan.cycle, cx.now()) else {
            continue;
        };
        let key = &charge.meter.key;
        let theirs = payments.usage_of(&plan.customer, key, compared.hours).await?;
        let drift = cx
            .read(async |work| ours(cx, work, charge, (&compared, theirs)).await)
            .await?;
        drifts.push(drift);
    }
    Ok(drifts)
}

/// What is compared of a meter.
struct Compared {
    /// Whole hours, for the provider.
    hours: Period,
    /// The time of ours that is told in them.
    time: Period,
}

impl Charge {
    fn compared(&self, asked: Period, cycle: &BillingCycle, now: Time) -> Option<Compared> {
        let end = Period::hour_of(asked.end.min(now + Duration::hours(1))).start;
        let start = asked.start.max(self.time.since);
        let last = self.last_hour(end);
        if start >= end || last.end <= start {
            return None;
        }
        if self.meter.aggregation.adds_up() {
            let start = Period::hour_of(start).start;
            let time = Period {
                start: start.max(self.time.since),
                end: self.time.ended_at.map_or(end, |ended_at| end.min(ended_at)),
            };
            let hours = Period { start, end };
            return Some(Compared { hours, time });
        }
        let time = self.time.month_to(last, cycle)?;
        let hours = Period {
            start: Period::hour_of(time.start).start,
            end: last.end,
        };
        Some(Compared { hours, time })
    }
}

async fn ours(
    cx: &Cx,
    work: &mut Work,
    charge: &Charge,
    (compared, theirs): (&Compared, u64),
) -> Result<Drift, StoreError> {
    let meter = &charge.meter;
    let reports = work.meter_reports().list(&meter.key, compared.hours).await?;
    let used = work
        .usage()
        .total(&meter.key, meter.aggregation, compared.time)
        .await?;
    let untold = if meter.aggregation.adds_up() {
        untold_trial(work, charge, compared.time).await?
    } else {
        0
    };
    let ours = used.saturating_sub(untold);
    let drift = Drift {
        tenant: cx.scope().tenant(),
        meter: meter.key.clone(),
        period: compared.hours,
        ours,
        theirs,
        untold: 0,
        pending: 0,
        dead: 0,
        late: 0,
    };
    Ok(if meter.aggregation.adds_up() {
        let newest = work.meter_reports().newest(&meter.key, compared.hours).await?;
        of_sums(drift, &reports, &newest)
    } else {
        of_levels(drift, &reports)
    })
}

/// What was used of the trial in the hour in which it ended, which is not told.
async fn untold_trial(work: &mut Work, charge: &Charge, time: Period) -> Result<u64, StoreError> {
    let ends_within = |at: &Time| time.start < *at && *at < time.end;
    let Some(end) = charge.time.trial_ends_at.filter(ends_within) else {
        return Ok(0);
    };
    let start = Period::hour_of(end).start.max(time.start);
    if start == end {
        return Ok(0);
    }
    let (meter, part) = (&charge.meter, Period { start, end });
    let measured = work.usage().measure(&meter.key, meter.aggregation, part);
    Ok(measured.await?.quantity)
}

/// Why they differ, where every hour is told by itself.
fn of_sums(drift: Drift, reports: &[MeterReport], newest: &[MeterReport]) -> Drift {
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
    Drift {
        untold: signed(drift.ours).saturating_sub(told),
        pending: sum(ReportState::Pending),
        dead: sum(ReportState::Dead),
        late: sum(ReportState::Late) - counted,
        ..drift
    }
}

/// Why they differ, where the last that was told counts: the provider has the last that it was sent.
fn of_levels(drift: Drift, reports: &[MeterReport]) -> Drift {
    let quantity = |report: Option<&MeterReport>| report.map_or(0, |report| signed(report.quantity));
    let newest = reports.last();
    let told = quantity(newest);
    let counted = reports.iter().rfind(|report| report.state == ReportState::Sent);
    let gap = told - quantity(counted);
    let of_state = |state: ReportState| match newest {
        Some(newest) if newest.state == state => gap,
        Some(_) | None => 0,
    };
    Drift {
        untold: signed(drift.ours).saturating_sub(told),
        pending: of_state(ReportState::Pending),
        dead: of_state(ReportState::Dead),
        late: of_state(ReportState::Late),
        ..drift
    }
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
    match Cx::enter(app, because, tenant).await? {
        Some(cx) => drift(&cx, period).await,
        None => Ok(Vec::new()),
    }
}

/// Tells the provider what a tenant used, at once, for a command.
///
/// # Errors
/// [`SyncError`].
pub async fn publish_of(
    operators: &OperatorCx,
    because: SystemScope,
    tenant: TenantId,
) -> Result<Published, SyncError> {
    let required = operators.require_command();
    required.map_err(|refused| StoreError::Other(refused.to_string()))?;
    let Some(cx) = operators.try_enter(because, tenant).await? else {
        return Ok(Published::default());
    };
    let record = operators.record("billing.usage_published", Some(tenant), json!({}));
    let failed = "billing.usage_publication_failed";
    operators.act(record, failed, publish(&cx)).await
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
    match Cx::enter(app, because, tenant).await? {
        Some(cx) => {
            cx.read(async |work| work.meter_reports().in_state(ReportState::Dead, AT_A_TIME).await)
                .await
        }
        None => Ok(Vec::new()),
    }
}
