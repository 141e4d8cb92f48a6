//! Streaming of the log of operators to a receiver outside, such as a SIEM.

use std::sync::Arc;

use tenantry_domain::audit::{AuditReceiver, StreamRecord};
use tenantry_domain::kernel::{OperatorEventId, StoreError, SystemScope};

use crate::Tenancy;
use crate::audit::stream::{deliver, lease_seconds};

const BECAUSE: SystemScope = SystemScope::because("the log of operators is streamed to a receiver");

/// Sends the next entries of the log of operators. Returns whether there may be more to send at once.
pub async fn stream_due(app: &Arc<Tenancy>) -> bool {
    let Some(receiver) = app.ports.audit_receiver.clone() else {
        return false;
    };
    match send_next(app, &receiver).await {
        Ok(sent) => sent,
        Err(error) => {
            tracing::warn!(%error, "the log of operators could not be streamed, trying again");
            false
        }
    }
}

/// Sends the next batch. Returns whether there was one that was acknowledged.
async fn send_next(app: &Tenancy, receiver: &AuditReceiver) -> Result<bool, StoreError> {
    let (state, outbox) = (app.audit_stream(), &app.ports.operator_outbox);
    if !state.operators_begun() {
        if !outbox.begin(BECAUSE, receiver.from).await? {
            return Ok(false);
        }
        state.begin_operators();
    }
    state.measured_operators(outbox.since(BECAUSE).await?);
    let now = app.ports.clock.now();
    if state.is_paused(now) || state.is_held(None, now) {
        return Ok(false);
    }
    let lease = app.ports.ids.uuid();
    let limit = u32::try_from(state.records(None, receiver.limits.records)).unwrap_or(u32::MAX);
    let events = outbox.lease(BECAUSE, (lease, lease_seconds(receiver)), limit);
    let events = events.await?;
    if events.is_empty() {
        return Ok(false);
    }
    let records = first(events.iter().map(StreamRecord::from), receiver.limits.bytes);
    let sent: Vec<OperatorEventId> = events.iter().take(records.len()).map(|one| one.id).collect();
    let is_acknowledged = deliver(app, receiver, (None, &records)).await;
    let acknowledged = if is_acknowledged { &sent[..] } else { &[] };
    outbox.acknowledge(BECAUSE, lease, acknowledged).await?;
    Ok(is_acknowledged)
}

/// The first records, of so many bytes; one at least.
fn first(records: impl Iterator<Item = StreamRecord>, most: usize) -> Vec<StreamRecord> {
    let mut bytes = 0;
    let fitting = records.enumerate().take_while(|(number, record)| {
        bytes += record.line.len() + 1;
        *number == 0 || bytes <= most
    });
    fitting.map(|(_, record)| record).collect()
}
