//! Export of events to a broker outside.
//!
//! A process takes the export of a tenant with a lease, reads a batch, and ends its transaction before it calls the broker; when the broker has
//! taken the batch, it stores up to where. So events are exported at least once and in the order of their feed, and no transaction waits for the
//! broker.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tenantry_domain::events::{Event, EventExport, EventSinkError, ExportedEvent};
use tenantry_domain::kernel::{Permission, StoreError, SystemScope, TenantId};
use uuid::Uuid;

use crate::events::export_state::ExportState;
use crate::events::publish::EventError;
use crate::{Cx, Tenancy};

/// How many tenants a round looks at, in the order of their ids. The next round goes on behind them, so each has its turn.
const TENANTS: u32 = 100;

/// Of how many tenants events are exported at once.
const AT_ONCE: usize = 2;

/// How much longer a lease stands than the broker may take for a batch.
const LEASE_MARGIN_SECONDS: u64 = 15;

const BECAUSE: SystemScope = SystemScope::because("events are exported to a broker");

/// Events that are to be exported next.
struct Batch {
    events: Vec<Event>,
    /// Up to which position they go.
    through: i64,
    /// How many positions before them are gone because of their age, since the export of the tenant has begun.
    lost: u64,
}

/// Exports a batch of each of the next tenants that have something to export. Returns whether there may be more to export at once.
pub async fn export_due(app: &Arc<Tenancy>) -> bool {
    let Some(export) = app.ports.event_export.clone() else {
        return false;
    };
    let tenants = match next_tenants(app).await {
        Ok(tenants) => tenants,
        Err(error) => {
            tracing::warn!(%error, "tenants with events to export could not be found, trying again");
            return false;
        }
    };
    let is_full = tenants.len() == TENANTS as usize;
    let sent = stream::iter(tenants).map(async |tenant| export_one(app, &export, tenant).await);
    let sent = sent.buffer_unordered(AT_ONCE);
    let sent = sent.fold(0, async |sum, one| sum + usize::from(one)).await;
    !app.event_export().is_paused(app.ports.clock.now()) && (sent > 0 || is_full)
}

/// Measures how much waits, and returns the tenants of the next round; none while the broker has failed.
async fn next_tenants(app: &Arc<Tenancy>) -> Result<Vec<TenantId>, StoreError> {
    let (state, published) = (app.event_export(), &app.ports.published_events);
    let is_paused = state.is_paused(app.ports.clock.now());
    // Once for each walk through the tenants, not for each part of it.
    if is_paused || state.after().is_none() {
        state.measured(published.backlog(BECAUSE).await?);
    }
    if is_paused {
        return Ok(Vec::new());
    }
    let mut tenants = published.to_export(BECAUSE, state.after(), TENANTS).await?;
    if tenants.is_empty() && state.after().is_some() {
        // None is behind the last one, so the walk begins again.
        tenants = published.to_export(BECAUSE, None, TENANTS).await?;
    }
    let is_last = tenants.len() < TENANTS as usize;
    state.set_after(tenants.last().copied().filter(|_| !is_last));
    Ok(tenants)
}

/// Exports the next batch of a tenant. Returns whether the broker has taken one.
async fn export_one(app: &Arc<Tenancy>, export: &EventExport, tenant: TenantId) -> bool {
    if app.event_export().is_paused(app.ports.clock.now()) {
        return false;
    }
    let exported = async {
        match Cx::enter(app, BECAUSE, tenant).await? {
            Some(cx) => export_next(&cx, export).await,
            None => Ok(false),
        }
    };
    exported.await.unwrap_or_else(|error| {
        tracing::warn!(%tenant, %error, "events could not be exported, trying again");
        false
    })
}

/// Exports the tenant's next batch. Returns whether there was one that the broker has taken.
///
/// # Errors
/// [`EventError`].
pub async fn export_next(cx: &Cx, export: &EventExport) -> Result<bool, EventError> {
    cx.require(Permission::KeepEvents)?;
    let lease = cx.ids().uuid();
    let Some(batch) = take(cx, (lease, lease_seconds(export)), export.batch).await? else {
        return Ok(false);
    };
    let tenant = cx.scope().tenant();
    let count = batch.events.len() as u64;
    let events = batch.events.into_iter();
    let events: Result<Vec<_>, _> = events.map(|event| ExportedEvent::of(tenant, event)).collect();
    if let Err(error) = send(export, &events?).await {
        let state = cx.app().event_export();
        let pause = state.failed(&error, cx.now(), lease.as_bytes()[15]);
        let pause_ms = pause.num_milliseconds();
        tracing::warn!(%tenant, %error, pause_ms, "events could not be exported, trying again");
        cx.write(async |work| work.event_exports().release(lease).await)
            .await?;
        return Ok(false);
    }
    cx.app().event_export().exported(count, batch.lost);
    let stored = cx.write(async |work| work.event_exports().acknowledge(lease, batch.through).await);
    if !stored.await? {
        tracing::warn!(%tenant, "events were exported after their lease had expired: they are exported again");
    }
    Ok(true)
}

/// For how long a process has the export: longer than the broker may take.
fn lease_seconds(export: &EventExport) -> i64 {
    let seconds = export.timeout.as_secs().saturating_add(LEASE_MARGIN_SECONDS);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Takes the export of the tenant and reads the next batch. `None` when another process has it or nothing waits.
async fn take(cx: &Cx, lease: (Uuid, i64), limit: u32) -> Result<Option<Batch>, StoreError> {
    let batch = cx.write(async |work| {
        let Some((behind, published)) = work.event_exports().lease(lease.0, lease.1).await? else {
            return Ok(None);
        };
        let events = work.events().between((behind, published), &[], limit).await?;
        let first = events.first().map_or(published + 1, |event| event.position);
        let through = events.last().map_or(published, |event| event.position);
        Ok::<_, StoreError>(Some(Batch {
            events,
            through,
            // What was deleted before the first batch of the tenant was not to be exported.
            lost: match behind {
                0 => 0,
                behind => first.saturating_sub(behind + 1).unsigned_abs(),
            },
        }))
    });
    let batch = batch.await?;
    if let Some(Batch { lost, .. }) = batch.as_ref().filter(|batch| batch.lost > 0) {
        let tenant = cx.scope().tenant();
        tracing::warn!(%tenant, lost, "events were deleted because of their age before they were exported");
    }
    Ok(batch)
}

async fn send(export: &EventExport, events: &[ExportedEvent]) -> Result<(), EventSinkError> {
    if events.is_empty() {
        return Ok(());
    }
    let answer = tokio::time::timeout(export.timeout, export.sink.send(events)).await;
    answer.unwrap_or_else(|_| Err(EventSinkError::Away("no answer within the timeout".into())))
}

impl Tenancy {
    /// Returns what this process has exported of events.
    pub fn event_export(&self) -> Arc<ExportState> {
        self.state()
    }
}
