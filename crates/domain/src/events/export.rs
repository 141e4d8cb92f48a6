//! Export of events to a broker outside: at least once, and those of a tenant in their order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::events::{CloudEvent, Event};
use crate::kernel::{EventId, StoreError, TenantId};

/// An event on its way to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedEvent {
    /// Whose event it is.
    pub tenant: TenantId,
    /// Identifies the event within the tenant; an event that is sent again has the same id.
    pub id: EventId,
    /// The name of its type.
    pub kind: String,
    /// Its number in the tenant's feed.
    pub position: i64,
    /// The event as a CloudEvent 1.0 in JSON.
    pub json: String,
}

impl ExportedEvent {
    /// Returns what a broker gets of an event of a tenant.
    ///
    /// # Errors
    /// [`StoreError`] when its data cannot be written as JSON.
    pub fn of(tenant: TenantId, event: Event) -> Result<Self, StoreError> {
        let (id, kind, position) = (event.id, event.kind.clone(), event.position);
        let json = serde_json::to_string(&CloudEvent::of(tenant, event));
        Ok(Self {
            tenant,
            id,
            kind,
            position,
            json: json.map_err(|error| StoreError::Other(error.to_string()))?,
        })
    }
}

/// Why a broker has not taken events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventSinkError {
    /// There is no connection, or no answer in time: the broker may have the events.
    #[error("the broker is away: {0}")]
    Away(String),
    /// The broker answered with an error.
    #[error("the broker refused the events: {0}")]
    Refused(String),
}

impl EventSinkError {
    /// Returns a name for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Refused(_) => "refused",
        }
    }
}

/// A broker that events are exported to.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Appends events in their order, all or none. A broker may get events twice when its answer is lost.
    ///
    /// # Errors
    /// [`EventSinkError`].
    async fn send(&self, events: &[ExportedEvent]) -> Result<(), EventSinkError>;
}

/// Where events are exported to, and how.
#[derive(Clone)]
pub struct EventExport {
    /// The broker.
    pub sink: Arc<dyn EventSink>,
    /// How long it may take for a batch.
    pub timeout: Duration,
    /// The most events of a batch; 1 to 500.
    pub batch: u32,
}

impl std::fmt::Debug for EventExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventExport")
            .field("timeout", &self.timeout)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

/// How far the export of the scope's tenant is.
#[async_trait]
pub trait EventExports: Send {
    /// Takes the export for so many seconds, by the clock of the database. Returns behind which position and up to which one there are
    /// events to export. `None` when there are none, or another process has taken it.
    async fn lease(&mut self, lease: Uuid, seconds: i64) -> Result<Option<(i64, i64)>, StoreError>;

    /// Stores that everything up to a position was exported, and gives the lease back. Returns false when the lease no longer stands: then
    /// nothing is stored.
    async fn acknowledge(&mut self, lease: Uuid, position: i64) -> Result<bool, StoreError>;

    /// Sets the export back to behind a position, unless it is farther back, and ends the lease that stands. Returns how many positions wait.
    async fn rewind(&mut self, behind: i64) -> Result<u64, StoreError>;

    /// Gives the lease back.
    async fn release(&mut self, lease: Uuid) -> Result<(), StoreError>;
}
