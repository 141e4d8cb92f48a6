//! The log of operators on its way to a receiver outside.

use async_trait::async_trait;
use serde_json::json;
use uuid::Uuid;

use crate::audit::{RecordKind, StreamFrom, StreamRecord};
use crate::kernel::{OperatorEventId, StoreError, SystemScope, Time};
use crate::operations::operator_event::RecordedOperatorEvent;

/// Entries of the log of operators that were not sent yet. The database adds each new entry to them in its transaction, once there is a
/// stream.
#[async_trait]
pub trait OperatorOutbox: Send + Sync {
    /// Begins the stream, unless it has begun. Returns whether that is done: with [`StreamFrom::Beginning`] it waits until the transactions
    /// that were open have ended, whose entries would be passed over.
    async fn begin(&self, because: SystemScope, from: StreamFrom) -> Result<bool, StoreError>;

    /// Takes the log for so many seconds, by the clock of the database, and returns its next entries, at most `limit`. None when nothing waits
    /// or another sender has it.
    async fn lease(
        &self,
        because: SystemScope,
        (lease, seconds): (Uuid, i64),
        limit: u32,
    ) -> Result<Vec<RecordedOperatorEvent>, StoreError>;

    /// Removes entries that the receiver has acknowledged, and gives the lease back. Nothing changes when it no longer stands.
    async fn acknowledge(
        &self,
        because: SystemScope,
        lease: Uuid,
        sent: &[OperatorEventId],
    ) -> Result<(), StoreError>;

    /// The time of the oldest entry that waits.
    async fn since(&self, because: SystemScope) -> Result<Option<Time>, StoreError>;
}

impl From<&RecordedOperatorEvent> for StreamRecord {
    fn from(event: &RecordedOperatorEvent) -> Self {
        let risk = event.risk();
        let members = json!({
            "entry_id": event.id,
            "tenant_id": event.target_tenant,
            "action": event.action,
            "reason": event.reason,
            "actor": {"kind": event.actor(), "id": event.operator},
            "request_id": event.request_id,
            "address": event.ip,
            "outcome": event.outcome(),
            "risk": risk,
            "details": event.details,
        });
        let id = format!("operators:{}", event.id);
        Self::new(id, RecordKind::OperatorEvent, (event.at, risk), members)
    }
}
