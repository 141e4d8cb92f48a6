//! Calls of the API, on their way from the spool into the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{Duration as Span, DurationRound as _};
use futures_util::{StreamExt as _, stream};
use tenantry_domain::kernel::{Period, Permission, StoreError, SystemScope, TenantId, Time, UserId};
use tenantry_domain::tenant::Denied;
use tenantry_domain::usage::{Call, CallSpool, MeterKey, NewUsage, USAGE_BATCH, UsageKey, UsageOrigin};
use tenantry_tenancy::operations::job::{ADMITTED_AT_ONCE, TENANTS_AT_ONCE};
use tenantry_tenancy::{Cx, Origin, Tenancy};
use uuid::Uuid;

use crate::usage::quota_recovery;
use crate::usage::{Recorded, built_in, record};

/// What this process knows of metering besides what is stored.
#[derive(Debug, Default)]
pub struct Metering {
    /// Users of whom the present hour has an event already. It only saves asking the ledger.
    active: Mutex<BTreeSet<(Time, UserId)>>,
    tally: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    flushed: AtomicU64,
    set_aside: AtomicU64,
    flush_failures: AtomicU64,
    flush_micros: AtomicU64,
}

/// What has been metered since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeteringTally {
    /// Events from outside that were taken.
    pub accepted: u64,
    /// Those that were known already.
    pub duplicates: u64,
    /// Those that were not taken.
    pub failed: u64,
    /// Calls that came from the spool into the ledger.
    pub flushed: u64,
    /// Calls of tenants that the store does not know.
    pub set_aside: u64,
    /// Flushes after which something stayed in the spool, because the store failed.
    pub flush_failures: u64,
    /// How long the last flush took that stored anything.
    pub flush: Duration,
}

impl Metering {
    /// What this process knows for an application.
    pub fn of(app: &Tenancy) -> Arc<Self> {
        app.state()
    }

    /// How it stands.
    pub fn tally(&self) -> MeteringTally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MeteringTally {
            accepted: read(&self.tally.accepted),
            duplicates: read(&self.tally.duplicates),
            failed: read(&self.tally.failed),
            flushed: read(&self.tally.flushed),
            set_aside: read(&self.tally.set_aside),
            flush_failures: read(&self.tally.flush_failures),
            flush: Duration::from_micros(read(&self.tally.flush_micros)),
        }
    }

    pub(crate) fn count(&self, outcomes: &[Recorded]) {
        for outcome in outcomes {
            let counter = match outcome {
                Recorded::Accepted(_) => &self.tally.accepted,
                Recorded::Duplicate(_) => &self.tally.duplicates,
                Recorded::Failed(_) => &self.tally.failed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_known(&self, active: &(Time, UserId)) -> bool {
        let known = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(active)
    }

    /// Remembers users whose hour is in the ledger, and forgets those of hours that are over.
    fn remember(&self, active: impl Iterator<Item = (Time, UserId)>, now: Time) {
        let mut known = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(active);
        let over = Period::hour_of(now).start - Span::hours(1);
        known.retain(|(hour, _)| *hour >= over);
    }
}

/// What a flush did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Calls that are in the ledger now, or of tenants that are deleted.
    pub calls: u64,
    /// Calls of tenants that the store does not know.
    pub set_aside: u64,
    /// Batches that stay in the spool for the next time.
    pub kept: usize,
}

/// Brings the calls of the spool into the ledger, batch by batch, tenant by tenant, each in its own scope.
///
/// The keys of a batch's events are made of its name, and a batch never changes. So whoever dies after a tenant's part is
/// stored and before the batch is forgotten has it stored again by whoever comes next, who is told that it is there.
pub async fn flush(app: &Arc<Tenancy>) -> Stored {
    let began = Instant::now();
    let mut stored = Stored::default();
    let metering = Metering::of(app);
    let counters = &metering.tally;
    let batches = on_spool(app, |spool| Ok(spool.batches())).await;
    for batch in batches.unwrap_or_default() {
        match flush_batch(app, &batch).await {
            Ok(of_batch) => {
                stored.calls += of_batch.calls;
                stored.set_aside += of_batch.set_aside;
            }
            Err(error) => {
                tracing::warn!(batch, error, "calls could not be stored, they stay in the spool");
                stored.kept += 1;
            }
        }
    }
    settle_ended(app).await;
    counters.flushed.fetch_add(stored.calls, Ordering::Relaxed);
    counters.set_aside.fetch_add(stored.set_aside, Ordering::Relaxed);
    if stored.kept > 0 {
        counters.flush_failures.fetch_add(1, Ordering::Relaxed);
    }
    if stored.calls > 0 {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.flush_micros.store(micros, Ordering::Relaxed);
    }
    stored
}

/// Settles the quotas' leases of processes that have died, now that all of their calls are in the ledger, and removes what is
/// left of them. Where that fails their folders stay for the next flush. Of a process whose calls may be lost the leases stay:
/// they lapse, so that all of them counts as used, and the drift report shows them as lost.
async fn settle_ended(app: &Arc<Tenancy>) {
    let ended = on_spool(app, |spool| Ok(spool.ended())).await;
    for ended in ended.unwrap_or_default() {
        let name = ended.name;
        // A name that is no id holds no leases.
        let settled = match Uuid::parse_str(&name) {
            Ok(instance) if ended.is_whole => quota_recovery::recover(app, instance).await,
            Ok(_) => {
                tracing::warn!(
                    spool = name,
                    "calls of a server that has died may be lost; its quota leases count as used"
                );
                Ok(())
            }
            Err(_) => Ok(()),
        };
        let (spool, buried) = (name.clone(), name);
        let done = match settled {
            Ok(()) => on_spool(app, move |spool| spool.bury(&buried)).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = done {
            tracing::warn!(
                spool,
                error,
                "the leases of a process that has ended are not settled yet"
            );
        }
    }
}

async fn flush_batch(app: &Arc<Tenancy>, batch: &str) -> Result<Stored, String> {
    let name = batch.to_owned();
    let tenants = on_spool(app, move |spool| by_tenant(spool, &name)).await?;
    let (mut stored, mut unknown, mut failed) = (Stored::default(), BTreeSet::new(), None);
    let mut active = Vec::new();
    let mut tenants = tenants.into_iter();
    loop {
        let some: BTreeMap<_, _> = tenants.by_ref().take(ADMITTED_AT_ONCE).collect();
        if some.is_empty() {
            break;
        }
        for (tenant, counts, outcome) in store_each(app, batch, some).await? {
            match outcome {
                Ok(new) => {
                    stored.calls += counts.total();
                    active.extend(new);
                }
                // Nobody asks any more what a deleted tenant has used.
                Err(Denied::TenantGone) => stored.calls += counts.total(),
                Err(Denied::TenantNotFound) => {
                    stored.set_aside += counts.total();
                    unknown.insert(tenant);
                }
                Err(error) => failed = Some(format!("{tenant}: {error}")),
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let durable = app.ports.units.make_durable().await;
    durable.map_err(|error| error.to_string())?;
    // Not earlier: of what a crash has undone nothing is known.
    Metering::of(app).remember(active.into_iter(), app.ports.clock.now());
    if stored.set_aside > 0 {
        tracing::warn!(
            batch,
            calls = stored.set_aside,
            tenants = unknown.len(),
            "calls of tenants that are not in the database are set aside; see metering.spool_dir"
        );
    }
    let name = batch.to_owned();
    on_spool(app, move |spool| {
        if !unknown.is_empty() {
            let mut calls = Vec::new();
            let mut keep = |call: Call| calls.extend(unknown.contains(&call.tenant).then_some(call));
            spool.read(&name, &mut keep)?;
            spool.set_aside(&name, &calls)?;
        }
        spool.remove(&name)
    })
    .await?;
    Ok(stored)
}

/// Does something with the spool on a thread that may wait for files.
async fn on_spool<T: Send + 'static>(
    app: &Arc<Tenancy>,
    step: impl FnOnce(&dyn CallSpool) -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let spool = Arc::clone(&app.ports.calls);
    let done = tokio::task::spawn_blocking(move || step(spool.as_ref())).await;
    done.map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

/// Users, and the hours in which they did something.
type Active = BTreeSet<(Time, UserId)>;

/// What a batch says of one tenant.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Calls, by the minute in which they were answered.
    calls: BTreeMap<Time, u64>,
    /// Users who did something, by the hour.
    active: Active,
}

impl Counts {
    fn add(&mut self, call: Call) {
        let minute = call.at.duration_trunc(Span::minutes(1)).unwrap_or(call.at);
        *self.calls.entry(minute).or_default() += 1;
        if let Some(user) = call.user {
            self.active.insert((Period::hour_of(call.at).start, user));
        }
    }

    fn total(&self) -> u64 {
        self.calls.values().sum()
    }
}

fn by_tenant(spool: &dyn CallSpool, batch: &str) -> io::Result<BTreeMap<TenantId, Counts>> {
    let mut tenants: BTreeMap<TenantId, Counts> = BTreeMap::new();
    spool.read(batch, &mut |call| {
        tenants.entry(call.tenant).or_default().add(call);
    })?;
    Ok(tenants)
}

/// Stores what a batch says of some tenants, a few at a time and each in its own scope; what came of each.
async fn store_each(
    app: &Arc<Tenancy>,
    batch: &str,
    mut tenants: BTreeMap<TenantId, Counts>,
) -> Result<Vec<(TenantId, Counts, Result<Active, Denied>)>, String> {
    let because = SystemScope::because("store the calls of tenants");
    let ids: Vec<TenantId> = tenants.keys().copied().collect();
    let admitted = app.ports.gate.system_each(because, &ids).await;
    let stored = admitted
        .map_err(|error| error.to_string())?
        .into_iter()
        .map(|(tenant, scope)| (tenant, scope, tenants.remove(&tenant).unwrap_or_default()))
        .map(async |(tenant, scope, counts)| {
            let outcome = match scope {
                Ok(scope) => {
                    let cx = Cx::new(Arc::clone(app), scope, Origin::default());
                    store(&cx, batch, &counts).await
                }
                Err(denied) => Err(denied),
            };
            (tenant, counts, outcome)
        });
    Ok(stream::iter(stored)
        .buffer_unordered(TENANTS_AT_ONCE)
        .collect()
        .await)
}

/// Stores what a batch says of a tenant; users of whom there was no event of the hour as far as this process knew.
async fn store(cx: &Cx, batch: &str, counts: &Counts) -> Result<Active, Denied> {
    cx.require(Permission::MeterUsage)
        .map_err(|refused| StoreError::Other(refused.to_string()))?;
    let metering = Metering::of(cx.app());
    let active = counts.active.iter().copied();
    let new: Active = active.filter(|active| !metering.is_known(active)).collect();
    let events = events(cx, batch, counts, &new);
    // The batch is there until all of them are on the disk.
    cx.write_behind(async |work| {
        for some in events.chunks(USAGE_BATCH) {
            record(cx, work, some).await?;
        }
        Ok::<_, StoreError>(())
    })
    .await?;
    Ok(new)
}

/// Calls count at the beginning of their minute, users at that of their hour: then the events of an hour are the same
/// whichever batch and whichever server they come from.
fn events(cx: &Cx, batch: &str, counts: &Counts, active: &Active) -> Vec<NewUsage> {
    let event = |meter: &MeterKey, key: String, quantity: u64, at: Time, subject: Option<String>| NewUsage {
        key: UsageKey::new(UsageKey::SERVER, key),
        meter: meter.clone(),
        quantity,
        event_at: Some(at),
        subject,
        properties: None,
        origin: UsageOrigin::Server,
    };
    let mut events = Vec::new();
    if let Some(meter) = built_in(cx, MeterKey::API_CALLS) {
        events.extend(counts.calls.iter().map(|(minute, calls)| {
            let key = format!("calls:{batch}:{}", minute.timestamp());
            event(&meter, key, *calls, *minute, None)
        }));
    }
    if let Some(meter) = built_in(cx, MeterKey::ACTIVE_USERS) {
        events.extend(active.iter().map(|(hour, user)| {
            let key = format!("active:{}:{user}", hour.timestamp());
            event(&meter, key, 1, *hour, Some(user.to_string()))
        }));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_to_the_same_events_in_whatever_order_it_is_read() {
        let tenant = TenantId::from(uuid::Uuid::from_u128(1));
        let [one, two] = [1, 2].map(|number| UserId::from(uuid::Uuid::from_u128(number)));
        let at = |seconds: i64| Time::UNIX_EPOCH + Span::seconds(seconds);
        let call = |seconds, user| Call {
            tenant,
            user,
            at: at(seconds),
        };
        let mut calls = vec![
            call(0, Some(one)),
            call(59, Some(two)),
            call(60, Some(one)),
            call(3_600, Some(one)),
            call(61, None),
        ];
        let counted = |calls: &[Call]| {
            let mut counts = Counts::default();
            calls.iter().for_each(|call| counts.add(*call));
            counts
        };
        let counts = counted(&calls);
        calls.reverse();
        assert_eq!(counted(&calls), counts);
        assert_eq!(counts.total(), 5);
        assert_eq!(
            counts.calls,
            BTreeMap::from([(at(0), 2), (at(60), 2), (at(3_600), 1)])
        );
        assert_eq!(
            counts.active,
            BTreeSet::from([(at(0), one), (at(0), two), (at(3_600), one)])
        );
    }
}
