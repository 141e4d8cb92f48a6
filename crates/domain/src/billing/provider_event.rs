use async_trait::async_trait;

use crate::billing::{EventRef, ProviderEvent};
use crate::identity::Email;
use crate::kernel::name::named_enum;
use crate::kernel::{StoreError, SystemScope, TenantId, Time};
use crate::operations::SystemJob;

named_enum! {
    /// What became of an event that the payment provider told of.
    pub enum EventState {
        /// Nobody has acted on it yet.
        Pending = "pending",
        /// It was acted on.
        Done = "done",
        /// There is nothing to be done, and the reason says why.
        Ignored = "ignored",
        /// It was tried for too long, and the reason says why it did not go.
        Dead = "dead",
    }
}

/// An event of the payment provider's as it was received. It belongs to no tenant until the customer that it names is
/// found to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedEvent {
    /// What it says.
    pub event: ProviderEvent,
    /// The message as it came, for operators who look why nothing came of it; `None` of what was fetched because it was never told, of
    /// what was acted on, and after a month. It has addresses of people.
    pub body: Option<Vec<u8>>,
    /// When it came.
    pub received_at: Time,
    /// What became of it.
    pub state: EventState,
    /// Why.
    pub reason: Option<String>,
    /// How often it was begun to act on it.
    pub attempts: u32,
    /// When that came to an end.
    pub settled_at: Option<Time>,
}

impl ReceivedEvent {
    /// An event that has just come.
    pub fn new(event: ProviderEvent, body: Option<Vec<u8>>, now: Time) -> Self {
        Self {
            event,
            body,
            received_at: now,
            state: EventState::Pending,
            reason: None,
            attempts: 0,
            settled_at: None,
        }
    }
}

/// The inbox of the payment provider's events, across tenants. Every call carries its reason.
#[async_trait]
pub trait ProviderEvents: Send + Sync {
    /// Keeps an event, with the job that is to act on it if there is any: both or neither. Whether it is new.
    async fn receive(
        &self,
        because: SystemScope,
        event: &ReceivedEvent,
        job: Option<&SystemJob>,
    ) -> Result<bool, StoreError>;

    /// An event, with one attempt more counted.
    async fn begin(&self, because: SystemScope, id: &EventRef) -> Result<Option<ReceivedEvent>, StoreError>;

    /// Notes what became of an event, and deletes its message once it was acted on or there is nothing to be done.
    async fn settle(
        &self,
        because: SystemScope,
        id: &EventRef,
        outcome: (EventState, Option<&str>),
        at: Time,
    ) -> Result<(), StoreError>;

    /// The events that came last, at most `limit`.
    async fn list(
        &self,
        because: SystemScope,
        state: Option<EventState>,
        limit: u32,
    ) -> Result<Vec<ReceivedEvent>, StoreError>;

    /// Until when the provider was asked for what it had not told of.
    async fn looked_until(&self, because: SystemScope) -> Result<Option<Time>, StoreError>;

    /// Notes until when that was done.
    async fn look_until(&self, because: SystemScope, at: Time) -> Result<(), StoreError>;

    /// Deletes messages that name one of these addresses, of events that have come to an end and belong to customers of a tenant. Returns
    /// how many others that name one are left, which nobody has acted on yet.
    async fn clear_bodies_of(
        &self,
        because: SystemScope,
        tenant: TenantId,
        addresses: &[Email],
    ) -> Result<u64, StoreError>;

    /// Forgets the messages of events that were settled before then; how many.
    async fn clear_bodies(&self, because: SystemScope, before: Time) -> Result<u64, StoreError>;
}
