//! Streaming of tenants' audit entries to a receiver outside, such as a SIEM.
//!
//! A tenant's entries are sent in the order of their chain. A sender takes the log with a lease, reads a batch, and ends its transaction
//! before it calls the receiver; when the receiver has acknowledged the batch, it stores up to where. So entries are sent at least once, and
//! no transaction waits for the receiver.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tenantry_domain::audit::{
    AuditReceiver, BatchLimits, Block, Head, SinkError, StreamBatch, StreamFrom, StreamPosition,
    StreamRecord, UnsentLog,
};
use tenantry_domain::kernel::{Permission, StoreError, SystemScope, TenantId};
use tenantry_domain::store::Work;
use uuid::Uuid;

use crate::audit::log::AuditError;
use crate::audit::stream_state::Log;
use crate::{Cx, Tenancy};

/// How many tenants a round looks at, in the order of their ids. The next round goes on behind them, so each has its turn.
const TENANTS: u32 = 100;

/// Of how many tenants batches are sent at once.
const AT_ONCE: usize = 2;

/// How much longer a lease stands than the receiver may take for a batch.
const LEASE_MARGIN_SECONDS: u64 = 15;

/// How many heads are read at once.
const HEADS: u32 = 50;

const BECAUSE: SystemScope = SystemScope::because("audit entries are streamed to a receiver");

/// Sends a batch of each of the next tenants that have something to send. Returns whether there may be more to send at once.
pub async fn stream_due(app: &Arc<Tenancy>) -> bool {
    let Some(receiver) = app.ports.audit_receiver.clone() else {
        return false;
    };
    let tenants = match next_tenants(app).await {
        Ok(tenants) => tenants,
        Err(error) => {
            tracing::warn!(%error, "tenants with audit entries to stream could not be found, trying again");
            return false;
        }
    };
    let is_full = tenants.len() == TENANTS as usize;
    let sent = stream::iter(tenants).map(async |tenant| stream_one(app, &receiver, tenant).await);
    let sent = sent.buffer_unordered(AT_ONCE);
    let sent = sent.fold(0, async |sum, one| sum + usize::from(one)).await;
    let state = app.audit_stream();
    if state.is_paused(app.ports.clock.now()) {
        // Those behind it were not tried. Else the first tenants of each walk could keep them waiting for ever.
        state.go_on_behind_tried();
        return false;
    }
    sent > 0 || is_full
}

/// Measures how much waits, and returns the tenants of the next round; none while the receiver has failed.
async fn next_tenants(app: &Arc<Tenancy>) -> Result<Vec<TenantId>, StoreError> {
    let state = app.audit_stream();
    let unsent = &app.ports.unsent_audit;
    let is_paused = state.is_paused(app.ports.clock.now());
    // Once for each walk through the tenants, not for each part of it.
    if is_paused || state.after().is_none() {
        state.measured(unsent.count(BECAUSE).await?);
    }
    if is_paused {
        return Ok(Vec::new());
    }
    let mut tenants = unsent.waiting(BECAUSE, state.after(), TENANTS).await?;
    if tenants.is_empty() && state.after().is_some() {
        // None is behind the last one, so the walk begins again.
        tenants = unsent.waiting(BECAUSE, None, TENANTS).await?;
    }
    let is_last = tenants.len() < TENANTS as usize;
    state.set_after(tenants.last().copied().filter(|_| !is_last));
    Ok(tenants)
}

/// Sends the next batch of a tenant. Returns whether it was acknowledged.
async fn stream_one(app: &Arc<Tenancy>, receiver: &AuditReceiver, tenant: TenantId) -> bool {
    let (state, now) = (app.audit_stream(), app.ports.clock.now());
    if state.is_paused(now) || state.is_held(Some(tenant), now) {
        return false;
    }
    let cx = match Cx::enter(app, BECAUSE, tenant).await {
        Ok(Some(cx)) => cx,
        Ok(None) => return false,
        Err(error) => {
            tracing::warn!(%tenant, %error, "audit entries could not be streamed, trying again");
            return false;
        }
    };
    match send_next(&cx, receiver).await {
        Ok(sent) => sent,
        Err(error) => {
            tracing::warn!(%tenant, %error, "audit entries could not be streamed, trying again");
            false
        }
    }
}

/// Sends the tenant's next batch. Returns whether there was one that was acknowledged.
///
/// # Errors
/// Those of the store.
pub async fn send_next(cx: &Cx, receiver: &AuditReceiver) -> Result<bool, AuditError> {
    cx.require(Permission::KeepAudit)?;
    let (state, tenant) = (cx.app().audit_stream(), cx.scope().tenant());
    let limits = BatchLimits {
        records: state.records(Some(tenant), receiver.limits.records),
        ..receiver.limits
    };
    let lease = cx.ids().uuid();
    let seconds = lease_seconds(receiver);
    let taken = cx.write(async |work| take(cx, work, (lease, seconds), limits).await);
    let Some(batch) = taken.await? else {
        return Ok(false);
    };
    if !batch.records.is_empty() {
        state.try_tenant(tenant);
        if !deliver(cx.app(), receiver, (Some(tenant), &batch.records)).await {
            cx.write(async |work| work.audit_streams().release(lease).await)
                .await?;
            return Ok(false);
        }
    }
    let stored = cx.write(async |work| work.audit_streams().acknowledge(lease, batch.position).await);
    if !stored.await? {
        tracing::warn!(%tenant, "audit entries were acknowledged after their lease had expired: they are sent again");
    }
    Ok(!batch.records.is_empty())
}

/// For how long a sender has a log: longer than the receiver may take.
pub(crate) fn lease_seconds(receiver: &AuditReceiver) -> i64 {
    let seconds = receiver.timeout.as_secs().saturating_add(LEASE_MARGIN_SECONDS);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Takes the log of the tenant and reads the next batch. `None` when another sender has it or nothing waits.
async fn take(
    cx: &Cx,
    work: &mut Work,
    (lease, seconds): (Uuid, i64),
    limits: BatchLimits,
) -> Result<Option<StreamBatch>, StoreError> {
    let Some(position) = work.audit_streams().lease(lease, seconds).await? else {
        return Ok(None);
    };
    // Two blocks, since the first may be sent in part.
    let blocks = work.audit_streams().unsent_blocks(position.sequence, 2).await?;
    let wanted = StreamBatch::wanted(position, &blocks, limits.records);
    let log = UnsentLog {
        entries: work.audit_chain().entries(&wanted).await?,
        heads: work
            .audit_streams()
            .unsent_heads(position.head_sequence, HEADS)
            .await?,
        blocks,
    };
    Ok(Some(StreamBatch::of(cx.scope().tenant(), position, &log, limits)))
}

/// Sends the next records of a log and waits for the acknowledgment, up to the receiver's timeout. In place of a record that the receiver
/// refuses again and again it sends one without its texts. Returns whether they were acknowledged; a failure is counted and logged, and pauses.
pub(crate) async fn deliver(
    app: &Tenancy,
    receiver: &AuditReceiver,
    (log, records): (Log, &[StreamRecord]),
) -> bool {
    let state = app.audit_stream();
    let replaced = match records {
        [one] if state.is_replaced(log, one) => Some(one.refused()),
        _ => None,
    };
    let sent = replaced.as_ref().map_or(records, std::slice::from_ref);
    let answer = tokio::time::timeout(receiver.timeout, receiver.sink.send(sent)).await;
    let answer = answer.unwrap_or_else(|_| {
        let problem = "no acknowledgment within the timeout";
        Err(SinkError::Unacknowledged(problem.into()))
    });
    let (now, jitter) = (app.ports.clock.now(), app.ports.ids.uuid().as_bytes()[15]);
    let tenant = log.map(|tenant| tenant.to_string());
    let Err(error) = answer else {
        state.acknowledged(log, sent, (now, jitter));
        if let Some(replaced) = replaced {
            let record = replaced.id;
            tracing::warn!(
                tenant,
                record,
                "an audit record that the receiver refuses was sent without its texts"
            );
        }
        return true;
    };
    let pause = state.failed_with(&error, (log, records), (now, jitter));
    let pause_ms = pause.num_milliseconds();
    tracing::warn!(tenant, %error, pause_ms, "audit entries could not be streamed, trying again");
    false
}

/// Notes that a block waits to be sent, where entries are streamed. It runs in the transaction that chains the block.
pub(crate) async fn note_block(cx: &Cx, work: &mut Work, block: &Block) -> Result<(), StoreError> {
    let before = block.first_sequence - 1;
    note(cx, work, (before, before), block.min_at).await
}

/// Notes that a head waits to be sent.
pub(crate) async fn note_head(cx: &Cx, work: &mut Work, head: &Head) -> Result<(), StoreError> {
    note(cx, work, (head.sequence, head.sequence - 1), head.created_at).await
}

async fn note(
    cx: &Cx,
    work: &mut Work,
    (sequence, head_sequence): (i64, i64),
    since: tenantry_domain::kernel::Time,
) -> Result<(), StoreError> {
    let Some(receiver) = &cx.ports().audit_receiver else {
        return Ok(());
    };
    let now = StreamPosition {
        sequence,
        head_sequence,
    };
    let begin = (receiver.from == StreamFrom::Now).then_some(now);
    work.audit_streams().note(begin, since, cx.now()).await
}

/// Begins the stream of the tenant where it has not, and finds what other processes have not noted: those that do not stream.
///
/// # Errors
/// [`AuditError`].
pub async fn begin(cx: &Cx) -> Result<(), AuditError> {
    cx.require(Permission::KeepAudit)?;
    if cx.ports().audit_receiver.is_none() {
        return Ok(());
    }
    cx.write(async |work| {
        let end = work.audit_chain().tail().await?.sequence;
        note(cx, work, (end, end), cx.now()).await?;
        work.audit_streams().refresh().await
    })
    .await
    .map_err(AuditError::from)
}
