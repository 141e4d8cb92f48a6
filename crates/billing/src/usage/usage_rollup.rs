//! Totals of usage: the hours and days in which something has changed are totalled anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Duration;
use tenantry_domain::kernel::{Period, Permission, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Work;
use tenantry_domain::usage::{Aggregation, Granularity, MOST_UNITS, Measured, MeterKey, UsageWindow};
use tenantry_tenancy::operations::job::{JobFailure, JobHandler, Nothing, SystemJobHandler, run_in_each};
use tenantry_tenancy::usage::UsageRecorder;
use tenantry_tenancy::{Cx, Tenancy};

use crate::usage::{built_in, stored};

/// How many hours are totalled in one transaction.
const AT_ONCE: u32 = 200;

/// Totals the hours of a tenant in which something has changed, and their days.
#[derive(Debug, Clone, Copy)]
pub struct RollUp;

impl JobHandler for RollUp {
    const KIND: &'static str = "usage.roll_up";
    // What a suspended tenant has used is not less for that.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::MeterUsage)?;
        while roll_up(cx).await? {}
        Ok(())
    }
}

/// Totals so many hours in which something has changed; whether there may be more.
///
/// An hour is made anew of the ledger and replaces what was there, so that doing it twice is the same as once. The marks are
/// taken off before the hours are measured: each mark was stored together with its events, so what is measured includes
/// the events of every mark that was taken, and a mark that comes later stays.
async fn roll_up(cx: &Cx) -> Result<bool, StoreError> {
    let now = cx.now();
    cx.write(async |work| {
        work.usage().lock_rollups().await?;
        let dirty = work.usage().take_dirty(AT_ONCE).await?;
        let mut days = BTreeSet::new();
        for (meter, hour) in &dirty {
            let aggregation = aggregation(cx, meter);
            let measured = work
                .usage()
                .measure(meter, aggregation, Period::hour_of(*hour))
                .await?;
            work.usage()
                .store_rollup(meter, Granularity::Hour, (*hour, measured), now)
                .await?;
            days.insert((meter, Period::day_of(*hour).start));
        }
        for (meter, day) in days {
            let measured = day_of(work, meter, aggregation(cx, meter), day).await?;
            work.usage()
                .store_rollup(meter, Granularity::Day, (day, measured), now)
                .await?;
        }
        Ok(dirty.len() >= AT_ONCE as usize)
    })
    .await
}

/// A meter that has left the catalogue is still added up.
fn aggregation(cx: &Cx, meter: &MeterKey) -> Aggregation {
    let meters = cx.ports().plans.meters();
    meters
        .get(meter)
        .map_or(Aggregation::Sum, |meter| meter.aggregation)
}

/// What a day comes to: made of its hours where that is the same.
async fn day_of(
    work: &mut Work,
    meter: &MeterKey,
    aggregation: Aggregation,
    day: Time,
) -> Result<Measured, StoreError> {
    let day = Period::day_of(day);
    if matches!(aggregation, Aggregation::Last | Aggregation::Unique) {
        return work.usage().measure(meter, aggregation, day).await;
    }
    let hours = work.usage().rollups(meter, Granularity::Hour, day).await?;
    let together = |all: Measured, hour: Measured| Measured {
        quantity: if aggregation.adds_up() {
            all.quantity.saturating_add(hour.quantity).min(MOST_UNITS)
        } else {
            all.quantity.max(hour.quantity)
        },
        events: all.events + hour.events,
    };
    Ok(hours
        .iter()
        .map(|hour| hour.measured)
        .fold(Measured::default(), together))
}

/// Does what [`RollUp`] does in every tenant of which an hour is due ([`UsageUpkeep::with_changes`]). The marks say
/// what is left to do, so it needs no job for each tenant.
///
/// [`UsageUpkeep::with_changes`]: tenantry_domain::usage::UsageUpkeep::with_changes
#[derive(Debug, Clone, Copy)]
pub struct RollUpAll;

impl SystemJobHandler for RollUpAll {
    const KIND: &'static str = "usage.roll_up_all";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let mut after = None;
        loop {
            let now = app.ports.clock.now();
            let upkeep = &app.ports.usage_upkeep;
            let tenants = upkeep.with_changes(because, now, after, 500).await?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(*last);
            run_in_each(app, because, &tenants, &RollUp, &Nothing {}).await?;
        }
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::minutes(1), Nothing {}))
    }
}

/// Records anew how much a tenant stores, so that every month has an event of it, and forgets the keys of old events.
#[derive(Debug, Clone, Copy)]
pub struct Keep;

impl JobHandler for Keep {
    const KIND: &'static str = "usage.keep";
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::MeterUsage)?;
        let before = cx.now() - UsageWindow::KEYS_KEPT;
        cx.write(async |work| {
            work.usage().delete_keys(before).await?;
            work.usage().delete_intake(before).await?;
            // Nothing is said of a tenant that never stored anything.
            if built_in(cx, MeterKey::STORAGE_BYTES).is_some() && work.storage().used().await? > 0 {
                let used = work.storage().used_for_update(cx.now()).await?;
                stored(cx, work, used).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Records in the ledger of usage: [`UsageRecorder`].
#[derive(Debug, Clone, Copy)]
pub struct LedgerRecorder;

#[async_trait]
impl UsageRecorder for LedgerRecorder {
    async fn record_storage(&self, cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), StoreError> {
        stored(cx, work, bytes).await
    }

    async fn keep(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        tenants: &[TenantId],
    ) -> Result<(), JobFailure> {
        run_in_each(app, because, tenants, &Keep, &Nothing {}).await
    }
}

/// Makes the partitions of the ledger for the months to come.
#[derive(Debug, Clone, Copy)]
pub struct MakePartitions;

impl SystemJobHandler for MakePartitions {
    const KIND: &'static str = "usage.make_partitions";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let made = app.ports.usage_upkeep.make_partitions(because).await?;
        if made > 0 {
            tracing::info!(made, "partitions for usage to come");
        }
        Ok(())
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::days(1), Nothing {}))
    }
}
