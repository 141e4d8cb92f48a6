//! What tenants may use of each meter in a period: consuming it, setting it aside, and how it stands.
//!
//! Which period it is is said by the clock of whoever asks, like every time that is stored. When a lease or a reservation
//! expires is said by the clock of the database alone.

use std::sync::Arc;

use chrono::Duration;
use serde_json::json;
use tenantry_domain::kernel::{
    Invalid, Level, Limit, Page, PageRequest, Period, Permission, QuotaCounterId, QuotaReservationId,
    Resolved, StoreError, SystemScope, TenantId,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Tenant;
use tenantry_domain::usage::{
    Aggregation, CommitError, Ended, MOST_UNITS, Meter, MeterKey, MeterTerms, NotEnough, QuotaAlert,
    QuotaCounter, QuotaExceeded, QuotaReservation, ReservationState, Tally, check_reason,
};
use tenantry_tenancy::{Cx, OperatorCx, OwnReason, UseCaseError};

use crate::kernel::granted;
use crate::usage::OverLimit;
use crate::usage::{cycle::cycle, quota_alert};

/// Errors of the use cases of quotas.
pub type QuotaError = UseCaseError<QuotaReason>;

/// Why units of a meter are not reserved, released or corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaReason {
    /// No meter has that name.
    #[error("nothing is metered as '{0}'")]
    UnknownMeter(MeterKey),
    /// The server itself counts the meter, so callers cannot reserve units of it.
    #[error("{0} is counted by the server itself")]
    Reserved(MeterKey),
    /// The hard limit does not allow it.
    #[error(transparent)]
    Exceeded(QuotaExceeded),
    /// The reservation has come to another end.
    #[error(transparent)]
    Ended(Ended),
}

impl OwnReason for QuotaReason {}

/// Uses so much of a meter, in a transaction of its own. Whoever calls it has asked for the permission to do what is counted.
///
/// # Errors
/// [`QuotaError`]; then nothing was used.
pub async fn consume(cx: &Cx, meter: &MeterKey, amount: u64) -> Result<(), QuotaError> {
    let uses = [(meter.clone(), amount)];
    let uses = &uses;
    cx.write(async |work| consume_in(cx, work, uses).await).await
}

/// Uses so much of each of these meters in the running transaction: all of them or none, and nothing when that is rolled
/// back. Their counters stay locked until the transaction ends, so do it late in it.
///
/// # Errors
/// [`QuotaError`]; then the transaction must be rolled back.
pub async fn consume_in(cx: &Cx, work: &mut Work, uses: &[(MeterKey, u64)]) -> Result<(), QuotaError> {
    let mut sorted: Vec<_> = uses.iter().filter(|(_, amount)| *amount > 0).collect();
    // One order for everybody, so that two who need the same counters cannot wait for one another.
    sorted.sort_unstable();
    for (meter, amount) in sorted {
        let quota = Quota::of(cx, work, meter).await?;
        let (start, limit) = (quota.period.start, quota.terms.limit);
        let consumed = work.quotas().consume(meter, start, *amount, limit).await?;
        let mut counter = match consumed {
            Some(counter) => counter,
            // There is no counter yet, or there is not so much left unless something has expired.
            None => {
                let mut counter = quota.lock(cx, work).await?;
                let used = counter.tally.consume(*amount, limit);
                used.map_err(|NotEnough| QuotaReason::Exceeded(counter.exceeded(limit, cx.now())))?;
                work.quotas().save(&counter).await?;
                counter
            }
        };
        quota_alert::raise(cx, work, &mut counter, &quota.terms).await?;
    }
    Ok(())
}

/// Sets units aside for work that is under way; for `seconds`, at least 1 and at most a day. Of a meter that the server counts
/// itself nothing is set aside: whoever could commit it could use up what the requests of all others need.
///
/// # Errors
/// [`QuotaError`].
pub async fn reserve(
    cx: &Cx,
    meter: &MeterKey,
    amount: u64,
    seconds: u32,
) -> Result<QuotaReservation, QuotaError> {
    cx.require(Permission::ReserveQuota)?;
    let ttl = check(amount, seconds)?;
    metered(cx, meter)?;
    if meter.is_servers_own() {
        return Err(QuotaReason::Reserved(meter.clone()).into());
    }
    cx.write(async |work| {
        let quota = Quota::of(cx, work, meter).await?;
        let mut counter = quota.lock(cx, work).await?;
        let reserved = counter.tally.reserve(amount, quota.terms.limit);
        reserved.map_err(|NotEnough| QuotaReason::Exceeded(counter.exceeded(quota.terms.limit, cx.now())))?;
        work.quotas().save(&counter).await?;
        let expires_at = work.quotas().now().await? + ttl;
        let reservation = QuotaReservation {
            id: QuotaReservationId::next(cx.ids()),
            counter: counter.id,
            meter: counter.meter,
            period: counter.period,
            amount,
            state: ReservationState::Open,
            actual: None,
            expires_at,
            created_at: cx.now(),
        };
        work.quotas().insert_reservation(&reservation).await?;
        Ok(reservation)
    })
    .await
}

/// A reservation.
///
/// # Errors
/// [`QuotaError`].
pub async fn reservation(
    cx: &Cx,
    meter: &MeterKey,
    id: QuotaReservationId,
) -> Result<QuotaReservation, QuotaError> {
    cx.require(Permission::ReadTenant)?;
    cx.read(async |work| {
        let mut reservation = found(work, meter, id).await?;
        // Nobody may have noticed yet that its time is over.
        if work.quotas().now().await? >= reservation.expires_at {
            reservation.expire(&mut Tally::default());
        }
        Ok(reservation)
    })
    .await
}

/// The open reservations of a meter, newest first.
///
/// # Errors
/// [`QuotaError`].
pub async fn reservations(
    cx: &Cx,
    meter: &MeterKey,
    page: PageRequest,
) -> Result<Page<QuotaReservation>, QuotaError> {
    cx.require(Permission::ReadTenant)?;
    metered(cx, meter)?;
    cx.read(async |work| {
        let now = work.quotas().now().await?;
        Ok(work.quotas().open_reservations(meter, now, page).await?)
    })
    .await
}

/// Ends a reservation: so much was used, which may be more than was set aside as far as the limit allows it. One whose
/// time is over is committed too if the limit allows all of it. Saying the same again changes nothing.
///
/// # Errors
/// [`QuotaError`].
pub async fn commit(
    cx: &Cx,
    meter: &MeterKey,
    id: QuotaReservationId,
    actual: u64,
) -> Result<QuotaReservation, QuotaError> {
    cx.require(Permission::ReserveQuota)?;
    if actual > MOST_UNITS {
        return Err(too_many("/actual").into());
    }
    cx.write(async |work| {
        let (mut counter, mut reservation) = held(work, meter, id).await?;
        let terms = entitled(cx, meter)?.value;
        let committed = reservation.commit(&mut counter.tally, actual, terms.limit);
        committed.map_err(|error| match error {
            CommitError::Ended(ended) => QuotaReason::Ended(ended),
            CommitError::NotEnough(NotEnough) => {
                QuotaReason::Exceeded(counter.exceeded(terms.limit, cx.now()))
            }
        })?;
        work.quotas().save(&counter).await?;
        work.quotas().update_reservation(&reservation).await?;
        quota_alert::raise(cx, work, &mut counter, &terms).await?;
        Ok(reservation)
    })
    .await
}

/// Gives a reservation up. Giving up what holds nothing any more changes nothing.
///
/// # Errors
/// [`QuotaError`].
pub async fn release(cx: &Cx, meter: &MeterKey, id: QuotaReservationId) -> Result<(), QuotaError> {
    cx.require(Permission::ReserveQuota)?;
    cx.write(async |work| {
        let (mut counter, mut reservation) = held(work, meter, id).await?;
        reservation
            .release(&mut counter.tally)
            .map_err(QuotaReason::Ended)?;
        work.quotas().save(&counter).await?;
        work.quotas().update_reservation(&reservation).await?;
        Ok(())
    })
    .await
}

/// The meters of which nobody takes anything out of a quota: the server measures them, and limits them in other ways.
const LEDGER_ONLY: [&str; 2] = [MeterKey::STORAGE_BYTES, MeterKey::ACTIVE_USERS];

/// How the quota of a meter stands.
#[derive(Debug, Clone)]
pub struct QuotaStanding {
    /// What is metered.
    pub meter: Arc<Meter>,
    /// The present period.
    pub period: Period,
    /// What the plan and agreements say, and who said the hard limit.
    pub terms: Resolved<MeterTerms>,
    /// What is used and held. `used` is what the quota's counter says, which the limit is held against and which is ahead
    /// of the ledger. Where there is no counter, because nobody limits the meter or because nobody takes anything out of
    /// a quota of stored bytes or active users, it is what the ledger says of the period.
    pub tally: Tally,
}

impl QuotaStanding {
    /// What can still be used; `None` where there is no limit.
    pub fn balance(&self) -> Option<u64> {
        match self.terms.value.limit {
            Limit::Of(_) => Some(self.tally.free(self.terms.value.limit)),
            Limit::Unlimited => None,
        }
    }

    /// What was used beyond what is included.
    pub fn overage(&self) -> u64 {
        self.terms.value.beyond(self.tally.used)
    }

    /// Who set the hard limit.
    pub const fn source(&self) -> Level {
        self.terms.level
    }
}

/// How the quota of every meter stands, by key.
///
/// # Errors
/// [`QuotaError`].
pub async fn list(cx: &Cx) -> Result<Vec<QuotaStanding>, QuotaError> {
    cx.require(Permission::ReadTenant)?;
    cx.read(async |work| {
        let mut standings = Vec::new();
        for meter in cx.ports().plans.meters().keys() {
            standings.push(standing(cx, work, meter).await?);
        }
        Ok(standings)
    })
    .await
}

/// The thresholds that were reached, newest first.
///
/// # Errors
/// [`QuotaError`].
pub async fn alerts(cx: &Cx, page: PageRequest) -> Result<Page<QuotaAlert>, QuotaError> {
    cx.require(Permission::ReadTenant)?;
    Ok(cx.read(async |work| work.quotas().alerts(page).await).await?)
}

/// Starts the counters of meters that a change of plan or agreement limits from now on: at what the ledger says of the
/// running period, since nothing counted them while they were unlimited. Calls that a server has not recorded yet are
/// not in it.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn count_from_ledger(
    cx: &Cx,
    work: &mut Work,
    before: &Tenant,
    after: &Tenant,
) -> Result<(), StoreError> {
    let entitlements = |tenant: &Tenant| granted::of(cx.ports(), Arc::new(tenant.subscription()));
    let (was, is) = (entitlements(before), entitlements(after));
    let cycle = cycle(work).await?;
    // By key, which is the order in which counters are locked.
    for (key, meter) in cx.ports().plans.meters() {
        let was_limited = was.meter_limit(key) != Limit::Unlimited;
        let is_limited = is.meter_limit(key) != Limit::Unlimited;
        if was_limited || !is_limited || LEDGER_ONLY.contains(&key.as_str()) {
            continue;
        }
        let quota = Quota {
            meter: key.clone(),
            period: meter.reset.period(cx.now(), &cycle),
            terms: is.meter(key).value,
        };
        quota.catch_up(cx, work, meter.aggregation).await?;
    }
    Ok(())
}

/// What an operator has corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrected {
    /// The present period.
    pub period: Period,
    /// What the counter said.
    pub before: u64,
    /// What it says now.
    pub after: u64,
}

/// Sets what the counter of a meter says is used in the present period, for an operator, and records why. What is reserved or
/// leased stays. The ledger, which bills are made of, is not changed by it; the difference from it is kept until the period ends,
/// so that usage which is recorded later adds to what the operator has said.
///
/// # Errors
/// [`QuotaError`]; of a tenant that is deleted `NotFound`.
pub async fn correct(
    operators: &OperatorCx,
    because: SystemScope,
    tenant: TenantId,
    (meter, used, reason): (&MeterKey, u64, &str),
) -> Result<Corrected, QuotaError> {
    operators.require_command()?;
    let cx = operators.try_enter(because, tenant).await?;
    let cx = &cx.ok_or(QuotaError::NotFound)?;
    cx.require(Permission::LendQuota)?;
    check_reason(reason)?;
    if used > MOST_UNITS {
        return Err(too_many("/used").into());
    }
    let details = json!({"meter": meter, "used": used});
    let mut record = operators.record("quota.corrected", Some(tenant), details);
    record.reason = Some(reason.to_owned());
    let corrected = cx.write(async |work| {
        let (quota, aggregation) = (Quota::of(cx, work, meter).await?, metered(cx, meter)?.aggregation);
        let mut counter = quota.lock(cx, work).await?;
        let ledger = work.usage().total(meter, aggregation, quota.period).await?;
        if quota.follows_ledger() {
            counter.catch_up(ledger, aggregation);
        }
        let corrected = Corrected {
            period: counter.period,
            before: counter.tally.used,
            after: used,
        };
        counter.correct(used, ledger);
        work.quotas().save(&counter).await?;
        let details = json!({
            "meter": meter, "period_start": corrected.period.start, "before": corrected.before, "after": used,
            "reason": reason,
        });
        let target = Some(counter.id.uuid());
        let event = cx.security("quota.corrected", "quota_counter", target, details);
        work.audit().record(event).await?;
        Ok::<_, QuotaError>(corrected)
    });
    operators.act(record, "quota.correction_failed", corrected).await
}

/// How the quota of one meter stands, in the running transaction.
pub(crate) async fn standing(cx: &Cx, work: &mut Work, key: &MeterKey) -> Result<QuotaStanding, QuotaError> {
    let meter = metered(cx, key)?;
    let quota = Quota::of(cx, work, key).await?;
    let mut counter = quota.new_counter(cx);
    if let Some(found) = work.quotas().find(key, quota.period.start).await? {
        counter.tally = as_if_swept(work, found.id, found.tally).await?;
        counter.adjustment = found.adjustment;
    }
    if quota.follows_ledger() {
        let total = work.usage().total(key, meter.aggregation, quota.period);
        counter.catch_up(total.await?, meter.aggregation);
    }
    Ok(QuotaStanding {
        meter,
        period: quota.period,
        terms: entitled(cx, key)?,
        tally: counter.tally,
    })
}

/// Raises the counter of a limited meter to what the ledger says of the present period, with the alerts that are due by that, for
/// usage that was recorded without being taken out of the quota; whether more is used than the limit allows. What is recorded has
/// happened, so it is not refused; what is to be consumed or reserved after it is.
pub(crate) async fn catch_up(
    cx: &Cx,
    work: &mut Work,
    key: &MeterKey,
) -> Result<Option<OverLimit>, StoreError> {
    let meters = cx.ports().plans.meters();
    let Some(meter) = meters.get(key) else {
        return Ok(None);
    };
    let terms = granted::current(cx).meter(key).value;
    let Limit::Of(limit) = terms.limit else {
        return Ok(None);
    };
    let quota = Quota {
        meter: key.clone(),
        period: meter.reset.period(cx.now(), &cycle(work).await?),
        terms,
    };
    let used = quota.catch_up(cx, work, meter.aggregation).await?;
    Ok((used > limit).then(|| OverLimit {
        meter: key.clone(),
        limit,
        used,
    }))
}

/// What holds of a meter now.
pub(crate) struct Quota {
    pub meter: MeterKey,
    pub period: Period,
    pub terms: MeterTerms,
}

impl Quota {
    pub async fn of(cx: &Cx, work: &mut Work, key: &MeterKey) -> Result<Self, QuotaError> {
        let meter = metered(cx, key)?;
        Ok(Self {
            period: meter.reset.period(cx.now(), &cycle(work).await?),
            terms: entitled(cx, key)?.value,
            meter: key.clone(),
        })
    }

    /// The counter, locked, with what has expired taken back. Who calls it saves the counter.
    async fn lock(&self, cx: &Cx, work: &mut Work) -> Result<QuotaCounter, StoreError> {
        let mut counter = work.quotas().lock(&self.new_counter(cx)).await?;
        sweep(work, &mut counter).await?;
        Ok(counter)
    }

    /// Raises the counter to what the ledger says, with the alerts that are due by that; what is used then.
    async fn catch_up(&self, cx: &Cx, work: &mut Work, aggregation: Aggregation) -> Result<u64, StoreError> {
        // Locked first: then the total includes what those have recorded who held it before.
        let mut counter = self.lock(cx, work).await?;
        let total = work.usage().total(&self.meter, aggregation, self.period);
        counter.catch_up(total.await?, aggregation);
        work.quotas().save(&counter).await?;
        quota_alert::raise(cx, work, &mut counter, &self.terms).await?;
        Ok(counter.tally.used)
    }

    /// Whether nothing takes units out of the quota, so that a counter which an operator has made, or which counted while there
    /// was a limit, is not raised when the meter is used.
    fn follows_ledger(&self) -> bool {
        self.terms.limit == Limit::Unlimited || LEDGER_ONLY.contains(&self.meter.as_str())
    }

    fn new_counter(&self, cx: &Cx) -> QuotaCounter {
        let id = QuotaCounterId::next(cx.ids());
        QuotaCounter::new(id, self.meter.clone(), self.period, cx.now())
    }
}

/// Takes back what has expired of a locked counter; whether there was anything. Who calls it saves the counter.
pub(crate) async fn sweep(work: &mut Work, counter: &mut QuotaCounter) -> Result<bool, StoreError> {
    let before = counter.tally;
    if before.leased == 0 && before.reserved == 0 {
        return Ok(false);
    }
    let now = work.quotas().now().await?;
    if before.leased > 0 {
        for mut lease in work.quotas().leases(counter.id).await? {
            if lease.expires_at <= now {
                lease.expire(&mut counter.tally);
                work.quotas().expire_lease(lease.id).await?;
            }
        }
    }
    if before.reserved > 0 {
        for mut reservation in work.quotas().overdue(counter.id, now).await? {
            reservation.expire(&mut counter.tally);
            work.quotas().update_reservation(&reservation).await?;
        }
    }
    Ok(counter.tally != before)
}

/// What the numbers will be when somebody sweeps.
pub(crate) async fn as_if_swept(
    work: &mut Work,
    counter: QuotaCounterId,
    tally: Tally,
) -> Result<Tally, StoreError> {
    let mut swept = tally;
    if tally.leased == 0 && tally.reserved == 0 {
        return Ok(tally);
    }
    let now = work.quotas().now().await?;
    let leases = work.quotas().leases(counter).await?.into_iter();
    leases
        .filter(|lease| lease.expires_at <= now)
        .for_each(|mut lease| lease.expire(&mut swept));
    let overdue = work.quotas().overdue(counter, now).await?;
    overdue
        .into_iter()
        .for_each(|mut reservation| reservation.expire(&mut swept));
    Ok(swept)
}

fn metered(cx: &Cx, key: &MeterKey) -> Result<Arc<Meter>, QuotaError> {
    let meter = cx.ports().plans.meters().get(key);
    meter
        .cloned()
        .ok_or_else(|| QuotaReason::UnknownMeter(key.clone()).into())
}

fn entitled(cx: &Cx, key: &MeterKey) -> Result<Resolved<MeterTerms>, QuotaError> {
    metered(cx, key)?;
    Ok(granted::current(cx).meter(key))
}

async fn found(
    work: &mut Work,
    meter: &MeterKey,
    id: QuotaReservationId,
) -> Result<QuotaReservation, QuotaError> {
    let found = work.quotas().reservation(id).await?;
    let found = found.filter(|reservation| reservation.meter == *meter);
    found.ok_or(QuotaError::NotFound)
}

/// A reservation and its counter, which is locked: what is read of the reservation after that stays as it is.
async fn held(
    work: &mut Work,
    meter: &MeterKey,
    id: QuotaReservationId,
) -> Result<(QuotaCounter, QuotaReservation), QuotaError> {
    let counter = found(work, meter, id).await?.counter;
    let counter = work.quotas().find_for_update(counter).await?;
    let mut counter = counter.ok_or(QuotaError::NotFound)?;
    sweep(work, &mut counter).await?;
    Ok((counter, found(work, meter, id).await?))
}

fn check(amount: u64, seconds: u32) -> Result<Duration, Invalid> {
    let ttl = Duration::seconds(seconds.into());
    if amount == 0 {
        return Err(Invalid::one("/amount", "out_of_range", "must be at least 1"));
    }
    if amount > MOST_UNITS {
        return Err(too_many("/amount"));
    }
    if seconds == 0 || ttl > QuotaReservation::LONGEST {
        let most = QuotaReservation::LONGEST.num_seconds();
        return Err(Invalid::one(
            "/ttl_seconds",
            "out_of_range",
            format!("must be 1 to {most}"),
        ));
    }
    Ok(ttl)
}

fn too_many(pointer: &str) -> Invalid {
    Invalid::one(pointer, "out_of_range", format!("must be at most {MOST_UNITS}"))
}
