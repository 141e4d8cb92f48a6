//! Usage: what is recorded of it, taken back, and shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use chrono::{Datelike as _, Duration};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_domain::kernel::{Invalid, Limit, Period, Permission, StoreError, Time, UsageEventId, hex};
use tenantry_domain::store::Work;

use tenantry_domain::usage::{
    Aggregation, Appended, Granularity, Intake, KeyedUsage, Meter, MeterKey, NewUsage, OutOfWindow,
    QuotaExceeded, UsageEvent, UsageKey, UsageOrigin, UsageWindow, check_reason,
};
use tenantry_tenancy::{Cx, OwnReason, UseCaseError};

use crate::kernel::granted::{self, USAGE_EVENTS};
use crate::usage::cycle::cycle;
use crate::usage::metering::Metering;
use crate::usage::quota;

/// Records usage in the running transaction. Nothing is asked of its time, and nobody is asked for a permission: what calls
/// this knows what it counts.
///
/// # Errors
/// [`StoreError`].
pub async fn record(cx: &Cx, work: &mut Work, events: &[NewUsage]) -> Result<Vec<Appended>, StoreError> {
    let now = cx.now();
    let keyed: Vec<KeyedUsage> = events.iter().map(|new| keyed(cx, new.clone(), now)).collect();
    if keyed.is_empty() {
        return Ok(Vec::new());
    }
    work.usage().append(&keyed).await
}

/// What became of an event that somebody sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the ledger now.
    Accepted(UsageEventId),
    /// It was there already.
    Duplicate(UsageEventId),
    /// It is not taken.
    Failed(UsageFailure),
}

/// Why an event is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageFailure {
    /// It breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nothing of that name is metered.
    #[error("nothing called {0} is metered")]
    UnknownMeter(MeterKey),
    /// Only the server records it.
    #[error("{0} is counted by the server itself")]
    Reserved(MeterKey),
    /// It is told at the wrong time.
    #[error(transparent)]
    OutOfWindow(#[from] OutOfWindow),
    /// Another event has its key.
    #[error("another event has this key")]
    Conflict,
}

/// What became of the events of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Of each, in the order in which they were sent.
    pub outcomes: Vec<Recorded>,
    /// The meters of accepted events of which more is used in the present period than their hard limit allows.
    pub over_limit: Vec<OverLimit>,
}

/// More of a meter is used than its hard limit allows, since recorded usage has happened and is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverLimit {
    /// Key of the meter above its limit.
    pub meter: MeterKey,
    /// Its hard limit.
    pub limit: u64,
    /// What is used in the present period.
    pub used: u64,
}

/// Records events that somebody sent, those that can be; what became of each, in their order. Events that could not even be
/// read come as what is wrong with them.
///
/// # Errors
/// [`UsageError`]; then nothing was recorded.
pub async fn ingest(
    cx: &Cx,
    events: Vec<Result<NewUsage, Invalid>>,
    backfill: bool,
) -> Result<Ingested, UsageError> {
    cx.require(Permission::RecordUsage)?;
    if backfill {
        cx.require(Permission::BackfillUsage)?;
    }
    let now = cx.now();
    let mut seen = HashMap::new();
    let mut outcomes = Vec::with_capacity(events.len());
    let (mut keyed_events, mut indices) = (Vec::<KeyedUsage>::new(), Vec::new());
    // Where the outcome of each comes from: the ledger's answer of that number, or what is known already.
    for (index, event) in events.into_iter().enumerate() {
        outcomes.push(event.map_err(UsageFailure::from).and_then(|new| {
            let new = admitted(cx, new, backfill, now)?;
            let keyed = keyed(cx, new, now);
            let first = *seen.entry(keyed.event.key.clone()).or_insert(keyed_events.len());
            match keyed_events.get(first) {
                None => {
                    keyed_events.push(keyed);
                    indices.push(index);
                }
                Some(earlier) if earlier.payload_hash == keyed.payload_hash => return Ok((first, false)),
                Some(_) => return Err(UsageFailure::Conflict),
            }
            Ok((first, true))
        }));
    }
    let (appended, over_limit) = if keyed_events.is_empty() {
        (Vec::new(), Vec::new())
    } else {
        cx.write(async |work| append(cx, work, &keyed_events, &indices).await)
            .await?
    };
    let recorded = |outcome: Result<(usize, bool), UsageFailure>| match outcome {
        Err(failure) => Recorded::Failed(failure),
        Ok((number, is_first)) => match appended[number] {
            Appended::Accepted(id) if is_first => Recorded::Accepted(id),
            Appended::Accepted(id) | Appended::Duplicate(id) => Recorded::Duplicate(id),
            Appended::Conflict => Recorded::Failed(UsageFailure::Conflict),
        },
    };
    let outcomes: Vec<Recorded> = outcomes.into_iter().map(recorded).collect();
    Metering::of(cx.app()).count(&outcomes);
    Ok(Ingested { outcomes, over_limit })
}

/// Appends events, within the bounds of a day, and says which meters are beyond their hard limit by now. `indices` are those of
/// the events in the request.
async fn append(
    cx: &Cx,
    work: &mut Work,
    events: &[KeyedUsage],
    indices: &[usize],
) -> Result<(Vec<Appended>, Vec<OverLimit>), UsageError> {
    let appended = work.usage().append(events).await?;
    let accepted: Vec<(usize, &UsageEvent)> = events
        .iter()
        .zip(&appended)
        .zip(indices)
        .filter(|((_, appended), _)| matches!(appended, Appended::Accepted(_)))
        .map(|((keyed, _), index)| (*index, &keyed.event))
        .collect();
    if accepted.is_empty() {
        return Ok((appended, Vec::new()));
    }
    // Last, since the rows stay locked until the transaction ends.
    admit(cx, work, &accepted).await?;
    let meters: BTreeSet<&MeterKey> = accepted.iter().map(|(_, event)| &event.meter).collect();
    let mut over = Vec::new();
    for key in meters {
        over.extend(quota::catch_up(cx, work, key).await?);
    }
    Ok((appended, over))
}

/// Adds events to what was accepted of their days, unless that is more than a day may have. Each comes with its index in the
/// request.
async fn admit(cx: &Cx, work: &mut Work, events: &[(usize, &UsageEvent)]) -> Result<(), UsageError> {
    let now = cx.now();
    let today = Period::day_of(now);
    let mut days = BTreeMap::<(Option<&MeterKey>, Time), (u64, u64)>::new();
    for (_, event) in events {
        let (count, quantity) = days.entry(counted_on(event)).or_default();
        *count += 1;
        *quantity += added_up(cx, event);
        days.entry((None, today.start)).or_default().0 += 1;
    }
    let more: Vec<Intake> = days
        .iter()
        .map(|((meter, day), (events, quantity))| Intake {
            meter: meter.cloned(),
            day: *day,
            events: *events,
            quantity: *quantity,
        })
        .collect();
    let bound = granted::current(cx).limit(USAGE_EVENTS).value;
    let mut refusals = Vec::new();
    for of_day in work.usage().add_intake(&more, now).await? {
        let added = days.get(&(of_day.meter.as_ref(), of_day.day));
        let (count, quantity) = added.copied().unwrap_or_default();
        refusals.extend(match of_day.meter {
            Some(_) => too_much(cx, events, &of_day, quantity),
            None => too_many(events, of_day.events, count, bound, now)?,
        });
    }
    // Of several bounds the one that is exceeded by the earliest event, so that the events before it fit.
    let first = refusals.into_iter().min_by_key(|(index, _)| *index);
    first.map_or(Ok(()), |(_, refusal)| Err(refusal))
}

/// The meter and day to which the quantity of an event counts.
fn counted_on(event: &UsageEvent) -> (Option<&MeterKey>, Time) {
    (Some(&event.meter), Period::day_of(event.event_at).start)
}

/// What an event adds to the quantities of its day.
fn added_up(cx: &Cx, event: &UsageEvent) -> u64 {
    let meter = meter(cx, &event.meter);
    let adds_up = meter.is_some_and(|meter| meter.aggregation == Aggregation::Sum);
    if adds_up { event.quantity } else { 0 }
}

/// The index of the first event that exceeds the quantity of a meter and day, of which `added` is of this request, and the
/// refusal that names it; `None` where all fit.
fn too_much(
    cx: &Cx,
    events: &[(usize, &UsageEvent)],
    of_day: &Intake,
    added: u64,
) -> Option<(usize, UsageError)> {
    let most = NewUsage::MOST_OF_A_DAY;
    let mut free = most.saturating_sub(of_day.quantity.saturating_sub(added));
    let counted = (of_day.meter.as_ref(), of_day.day);
    let mut of_this = events.iter().filter(|(_, event)| counted_on(event) == counted);
    let (index, event) = of_this.find(|(_, event)| match free.checked_sub(added_up(cx, event)) {
        Some(rest) => {
            free = rest;
            false
        }
        None => true,
    })?;
    let (meter, day) = (&event.meter, of_day.day.format("%F"));
    let detail = format!("the quantities of {meter} on {day} may come to {most} and not more");
    let invalid = Invalid::one(event.key.pointers().quantity, "range", detail);
    Some((
        *index,
        UsageReason::TooMuch {
            index: *index,
            invalid,
        }
        .into(),
    ))
}

/// The index of the first event beyond the `bound` of today's events, which are `events_today` with the `added` ones of this
/// request, and the refusal that names it; `None` where all fit.
fn too_many(
    events: &[(usize, &UsageEvent)],
    events_today: u64,
    added: u64,
    bound: Limit,
    now: Time,
) -> Result<Option<(usize, UsageError)>, UsageError> {
    let Limit::Of(most) = bound else { return Ok(None) };
    let used = events_today.saturating_sub(added);
    let fitting = usize::try_from(most.saturating_sub(used)).unwrap_or(usize::MAX);
    let Some((index, _)) = events.get(fitting) else {
        return Ok(None);
    };
    let exceeded = QuotaExceeded {
        meter: events_per_day()?,
        limit: most,
        used,
        resets_at: Period::day_of(now).end,
        asked_at: now,
    };
    let refusal = UsageReason::TooMany {
        exceeded,
        index: *index,
        fitting,
    };
    Ok(Some((*index, refusal.into())))
}

fn events_per_day() -> Result<MeterKey, StoreError> {
    MeterKey::parse(USAGE_EVENTS).ok_or_else(|| StoreError::Other(format!("{USAGE_EVENTS} is no key")))
}

/// Takes an event back: it counts no more. The ledger keeps both, and says who took it back and why in the audit log. Its
/// quantity is given back to the bound of its day; the number of events accepted in a day is not, since the event is stored.
///
/// # Errors
/// [`UsageError`].
pub async fn invalidate(cx: &Cx, id: UsageEventId, reason: &str) -> Result<UsageEvent, UsageError> {
    cx.require(Permission::InvalidateUsage)?;
    check_reason(reason)?;
    let now = cx.now();
    cx.write(async |work| {
        let event = work.usage().find(id).await?.ok_or(UsageError::NotFound)?;
        if event.invalidates.is_some() {
            return Err(UsageError::NotFound);
        }
        if event.origin == UsageOrigin::Server {
            return Err(UsageReason::ServersOwn.into());
        }
        // Later the key under which it can be taken back once only might be forgotten.
        if event.accepted_at < now - UsageWindow::BACKFILL.past {
            return Err(UsageReason::TooOld.into());
        }
        let correction = UsageEvent {
            id: UsageEventId::next(cx.ids()),
            meter: event.meter.clone(),
            quantity: 0,
            subject: None,
            event_at: event.event_at,
            accepted_at: now,
            key: UsageKey::new(UsageKey::INVALIDATION, id.to_string()),
            origin: UsageOrigin::Api,
            properties: Some(json!({"reason": reason})),
            invalidates: Some(id),
        };
        // It is the first or it is refused, so what it says needs no comparison.
        let keyed = KeyedUsage {
            event: correction.clone(),
            payload_hash: correction.id.to_string(),
        };
        match work
            .usage()
            .append(std::slice::from_ref(&keyed))
            .await?
            .as_slice()
        {
            [Appended::Accepted(_)] => {}
            _ => return Err(UsageReason::Conflict.into()),
        }
        if let (Some(meter), day) = counted_on(&event) {
            // The number of events is a bound of what is stored, and the event stays stored.
            work.usage()
                .return_intake(meter, day, added_up(cx, &event))
                .await?;
        }
        let details = json!({"meter": event.meter, "quantity": event.quantity, "reason": reason});
        let audit = cx.changed(
            "usage.invalidated",
            "usage_event",
            id.uuid(),
            None,
            Some(&details),
        );
        work.audit().record(audit).await?;
        Ok(correction)
    })
    .await
}

/// Which part of a tenant's usage is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesOf {
    /// Of which meter; that of the API's calls where absent.
    pub meter: Option<MeterKey>,
    /// How finely.
    pub granularity: Granularity,
    /// From the part around this moment.
    pub from: Time,
    /// Up to this moment: a part that it is in the middle of is shown too.
    pub to: Time,
}

/// Usage over time, without gaps.
#[derive(Debug, Clone)]
pub struct Series {
    /// What is metered.
    pub meter: Arc<Meter>,
    /// From the beginning of the first part to the end of the last.
    pub period: Period,
    /// The beginning of each part, and what it comes to.
    pub points: Vec<(Time, u64)>,
}

/// Usage over time: what is totalled already, and the ledger where something has changed since. Of what is measured by
/// its latest quantity a part without an event has that of the one before it, up to the present.
///
/// # Errors
/// [`UsageError`].
pub async fn series(cx: &Cx, of: &SeriesOf) -> Result<Series, UsageError> {
    cx.require(Permission::ReadUsage)?;
    let key = of.meter.as_ref().map_or(MeterKey::API_CALLS, MeterKey::as_str);
    let meter = cx.ports().plans.meters().get(key).cloned();
    let meter = meter
        .ok_or_else(|| Invalid::one("/query/meter", "unknown_meter", "nothing of this name is metered"))?;
    let period = checked_period(of)?;
    let found = cx
        .read(async |work| parts(work, &meter, of.granularity, period).await)
        .await?;
    let mut points = Vec::new();
    let mut level = found.before;
    let mut start = period.start;
    while start < period.end {
        let measured = found.parts.get(&start).copied();
        let quantity = match (meter.aggregation, measured) {
            (_, Some(quantity)) => quantity,
            (Aggregation::Last, None) if start <= cx.now() => level,
            _ => 0,
        };
        level = quantity;
        points.push((start, quantity));
        start += of.granularity.length();
    }
    Ok(Series {
        meter,
        period,
        points,
    })
}

struct Parts {
    /// The quantity that held when the period began.
    before: u64,
    /// What the parts with events come to, by their beginning.
    parts: HashMap<Time, u64>,
}

/// What has changed is looked up first, so that a part that is totalled meanwhile is not missed.
async fn parts(
    work: &mut Work,
    meter: &Meter,
    granularity: Granularity,
    period: Period,
) -> Result<Parts, StoreError> {
    let dirty = work.usage().dirty_hours(&meter.key, period).await?;
    let rollups = work.usage().rollups(&meter.key, granularity, period).await?;
    let with_events = rollups.iter().filter(|rollup| rollup.measured.events > 0);
    let mut parts: HashMap<Time, u64> = with_events
        .map(|rollup| (rollup.start, rollup.measured.quantity))
        .collect();
    let mut changed: Vec<Period> = dirty.into_iter().map(|hour| granularity.around(hour)).collect();
    changed.dedup();
    for part in changed {
        let measured = work.usage().measure(&meter.key, meter.aggregation, part).await?;
        if measured.events > 0 {
            parts.insert(part.start, measured.quantity);
        } else {
            parts.remove(&part.start);
        }
    }
    let before = match meter.aggregation {
        Aggregation::Last => work.usage().latest(&meter.key, Some(period.start)).await?,
        Aggregation::Sum | Aggregation::Count | Aggregation::Max | Aggregation::Unique => None,
    };
    Ok(Parts {
        before: before.map_or(0, |(_, quantity)| quantity),
        parts,
    })
}

/// The years of which usage is shown: an hour or a day around each moment of them has a beginning and an end.
const YEARS: RangeInclusive<i32> = 1970..=9998;

fn checked_period(of: &SeriesOf) -> Result<Period, Invalid> {
    for (pointer, moment) in [("/query/from", of.from), ("/query/to", of.to)] {
        if !YEARS.contains(&moment.year()) {
            let detail = format!("must be in the years {} to {}", YEARS.start(), YEARS.end());
            return Err(Invalid::one(pointer, "range", detail));
        }
    }
    if of.from >= of.to {
        return Err(Invalid::one("/query/to", "range", "must be after `from`"));
    }
    if of.to - of.from > of.granularity.longest() {
        let days = of.granularity.longest().num_days();
        let detail = format!(
            "must be at most {days} days after `from` by the {}",
            of.granularity.as_str()
        );
        return Err(Invalid::one("/query/to", "range", detail));
    }
    let last = of.granularity.around(of.to - Duration::microseconds(1));
    Ok(Period {
        start: of.granularity.around(of.from).start,
        end: last.end,
    })
}

/// A meter, how much of it a tenant has used in the present period, and how much it may.
#[derive(Debug, Clone)]
pub struct Used {
    /// What is metered.
    pub meter: Arc<Meter>,
    /// The present period.
    pub period: Period,
    /// What was used of it.
    pub used: u64,
    /// What the plan includes.
    pub included: Limit,
    /// What is possible at all.
    pub limit: Limit,
}

/// What is used of every meter in its present period.
///
/// # Errors
/// [`UsageError`].
pub async fn summary(cx: &Cx) -> Result<Vec<Used>, UsageError> {
    cx.require(Permission::ReadUsage)?;
    let (now, has) = (cx.now(), granted::current(cx));
    let meters: Vec<Arc<Meter>> = cx.ports().plans.meters().values().cloned().collect();
    cx.read(async |work| {
        let cycle = cycle(work).await?;
        let mut all = Vec::new();
        for meter in &meters {
            let period = meter.reset.period(now, &cycle);
            let used = work.usage().total(&meter.key, meter.aggregation, period).await?;
            let terms = has.meter(&meter.key).value;
            all.push(Used {
                meter: Arc::clone(meter),
                period,
                used,
                included: terms.included,
                limit: terms.limit,
            });
        }
        Ok(all)
    })
    .await
}

/// Records how many bytes are stored, in the transaction that changes it and behind the lock of its row. It is told later
/// than the one before in any case: clocks of servers differ, and the latest is what counts.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn stored(cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), StoreError> {
    let Some(meter) = built_in(cx, MeterKey::STORAGE_BYTES) else {
        return Ok(());
    };
    let before = work.usage().latest(&meter, None).await?;
    let next = before.map(|(at, _)| at + Duration::microseconds(1));
    let event = NewUsage {
        key: UsageKey::new(UsageKey::SERVER, format!("storage:{}", cx.ids().uuid())),
        meter,
        quantity: bytes.min(NewUsage::MOST),
        event_at: Some(next.map_or(cx.now(), |next| next.max(cx.now()))),
        subject: None,
        properties: None,
        origin: UsageOrigin::Server,
    };
    record(cx, work, &[event]).await.map(|_| ())
}

/// The key of a meter of the server's own, where the catalogue has it.
pub(crate) fn built_in(cx: &Cx, name: &str) -> Option<MeterKey> {
    let meters = cx.ports().plans.meters();
    meters.get_key_value(name).map(|(key, _)| key.clone())
}

fn meter(cx: &Cx, key: &MeterKey) -> Option<Arc<Meter>> {
    cx.ports().plans.meters().get(key).cloned()
}

/// The event, if it may be told now by whoever tells it.
fn admitted(cx: &Cx, new: NewUsage, backfill: bool, now: Time) -> Result<NewUsage, UsageFailure> {
    new.check()?;
    let meter = meter(cx, &new.meter).ok_or_else(|| UsageFailure::UnknownMeter(new.meter.clone()))?;
    if new.meter.is_servers_own() {
        return Err(UsageFailure::Reserved(new.meter));
    }
    if meter.aggregation == Aggregation::Sum && new.quantity > NewUsage::MOST_OF_A_DAY {
        let detail = "must be in 0..=281474976710655, since this meter adds quantities up";
        return Err(Invalid::one(new.key.pointers().quantity, "range", detail).into());
    }
    if meter.aggregation == Aggregation::Unique && new.subject.is_none() {
        return Err(Invalid::one("/subject", "required", "is what this meter counts").into());
    }
    let at = new.happened(now);
    let window = if backfill {
        UsageWindow::BACKFILL
    } else {
        UsageWindow::USUAL
    };
    window.check(at, now)?;
    let is_late = UsageWindow::USUAL.check(at, now).is_err();
    Ok(NewUsage {
        origin: if is_late {
            UsageOrigin::Backfill
        } else {
            new.origin
        },
        ..new
    })
}

fn keyed(cx: &Cx, new: NewUsage, now: Time) -> KeyedUsage {
    KeyedUsage {
        payload_hash: payload_hash(&new),
        event: UsageEvent {
            id: UsageEventId::next(cx.ids()),
            event_at: new.happened(now),
            meter: new.meter,
            quantity: new.quantity,
            subject: new.subject,
            accepted_at: now,
            key: new.key,
            origin: new.origin,
            properties: new.properties,
            invalidates: None,
        },
    }
}

/// What was said of an event: SHA-256 over its JSON, whose objects are sorted by their keys. How it came in is left out,
/// so that what was told in time and is sent again by a backfill is the same event; its time is left out where the
/// server chose it.
fn payload_hash(new: &NewUsage) -> String {
    let at = new.event_at.map(|_| new.happened(Time::UNIX_EPOCH));
    let payload: Value = json!([
        new.meter,
        new.quantity,
        at.map(|at| at.timestamp_micros()),
        new.subject,
        new.properties,
    ]);
    hex(&Sha256::digest(payload.to_string().as_bytes()))
}

/// Errors of the usage use cases.
pub type UsageError = UseCaseError<UsageReason>;

/// Why usage is not recorded or invalidated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageReason {
    /// The server counted the event itself, and does not invalidate it.
    #[error("the server counted it itself")]
    ServersOwn,
    /// The event was accepted too long ago to be invalidated.
    #[error("the event was accepted too long ago")]
    TooOld,
    /// The event was invalidated already.
    #[error("the event has been invalidated already")]
    Conflict,
    /// The plan allows no more events on this day, so none of the request is recorded.
    #[error("{exceeded}")]
    TooMany {
        /// The bound.
        exceeded: QuotaExceeded,
        /// The index in the request of the first event that does not fit; those before it do.
        index: usize,
        /// The number of new events that fit.
        fitting: usize,
    },
    /// The quantities of a meter and day exceed what can be counted, so no event of the request is recorded.
    #[error("{invalid}")]
    TooMuch {
        /// The index in the request of the first event that does not fit.
        index: usize,
        /// What is wrong, with a pointer from the event on.
        invalid: Invalid,
    },
}

impl OwnReason for UsageReason {}
