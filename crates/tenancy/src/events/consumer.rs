//! Consumers of the feed: positions that programs store under a name.

use tenantry_domain::events::{ConsumerName, EventConsumer, FeedEnds};
use tenantry_domain::kernel::{EventConsumerId, Invalid, Permission, StoreError};
use tenantry_domain::store::Work;

use crate::events::feed::{FeedStart, beginning};
use crate::kernel::step_up::lock_tenant;
use crate::{Changed, Cx, OwnReason, Precondition, UseCaseError, audited};

audited!(EventConsumer, "event_consumer");

/// Errors of the use cases of consumers.
pub type ConsumerError = UseCaseError<ConsumerReason>;

/// Why no consumer is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerReason {
    /// The tenant has [`EventConsumer::MOST`] consumers.
    #[error(
        "the tenant has {} consumers of events, which is the maximum",
        EventConsumer::MOST
    )]
    TooMany,
}

impl OwnReason for ConsumerReason {}

/// A consumer beside the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerState {
    /// What is stored under its name.
    pub consumer: EventConsumer,
    /// The ends of the feed at that moment.
    pub ends: FeedEnds,
}

/// Returns all consumers of the tenant, by name.
///
/// # Errors
/// [`ConsumerError`].
pub async fn list(cx: &Cx) -> Result<Vec<ConsumerState>, ConsumerError> {
    cx.require(Permission::ReadEvents)?;
    cx.read(async |work| {
        let consumers = work.event_consumers().list().await?;
        let ends = work.events().ends().await?;
        let states = consumers.into_iter();
        Ok(states.map(|consumer| ConsumerState { consumer, ends }).collect())
    })
    .await
}

/// Returns one consumer.
///
/// # Errors
/// [`ConsumerError`].
pub async fn get(cx: &Cx, name: &ConsumerName) -> Result<ConsumerState, ConsumerError> {
    cx.require(Permission::ReadEvents)?;
    cx.read(async |work| {
        let found = work.event_consumers().find(name).await?;
        let consumer = found.ok_or(ConsumerError::NotFound)?;
        let ends = work.events().ends().await?;
        Ok(ConsumerState { consumer, ends })
    })
    .await
}

/// Returns where the consumer of a request goes on reading the feed; `name` is `None` for a text that no consumer has as its name.
///
/// # Errors
/// [`ConsumerError`]; `unknown_consumer` at `/query/consumer` when the tenant has no such consumer.
pub async fn start(cx: &Cx, name: Option<&ConsumerName>) -> Result<FeedStart, ConsumerError> {
    cx.require(Permission::ReadEvents)?;
    let found = match name {
        Some(name) => {
            cx.read(async |work| work.event_consumers().find(name).await)
                .await?
        }
        None => None,
    };
    let stored = found.map(|consumer| FeedStart::Stored(consumer.position));
    stored.ok_or_else(|| {
        let detail = "there is no consumer with this name: PUT /api/v1/events/consumers/{name} creates it";
        Invalid::one("/query/consumer", "unknown_consumer", detail).into()
    })
}

/// Stores the position of a consumer, and creates it when there is none of that name. Only creation and deletion are recorded in the audit log:
/// positions are stored as often as events are processed.
///
/// # Errors
/// [`ConsumerError`]; `expired` at `/cursor` when events behind the position were deleted because of their age.
pub async fn store(
    cx: &Cx,
    name: &ConsumerName,
    when: &Precondition,
    start: FeedStart,
) -> Result<ConsumerState, ConsumerError> {
    cx.require(Permission::ConsumeEvents)?;
    cx.write(async |work| {
        let ends = work.events().ends().await?;
        let position = beginning(start, ends, "/cursor")?;
        let consumer = match find_for_update(work, name).await? {
            Some(mut consumer) => {
                when.check(consumer.version)?;
                consumer.move_to(position, cx.now());
                work.event_consumers().update(&consumer).await?;
                consumer
            }
            None => {
                when.check(0)?;
                let id = EventConsumerId::next(cx.ids());
                create(cx, work, EventConsumer::new(id, name.clone(), position, cx.now())).await?
            }
        };
        Ok(ConsumerState { consumer, ends })
    })
    .await
}

/// Deletes a consumer.
///
/// # Errors
/// [`ConsumerError`].
pub async fn delete(cx: &Cx, name: &ConsumerName, when: &Precondition) -> Result<(), ConsumerError> {
    cx.require(Permission::ConsumeEvents)?;
    cx.write(async |work| {
        let found = work.event_consumers().find_for_update(name).await?;
        let consumer = found.ok_or(ConsumerError::NotFound)?;
        when.check(consumer.version)?;
        work.event_consumers().delete(&consumer).await?;
        Ok(cx.record(work, Changed::deleted(&consumer)).await?)
    })
    .await
}

/// Of two requests that create a consumer at once, the later one waits for the lock of the tenant and finds it.
async fn find_for_update(work: &mut Work, name: &ConsumerName) -> Result<Option<EventConsumer>, StoreError> {
    if let Some(found) = work.event_consumers().find_for_update(name).await? {
        return Ok(Some(found));
    }
    lock_tenant(work).await?;
    work.event_consumers().find_for_update(name).await
}

async fn create(cx: &Cx, work: &mut Work, consumer: EventConsumer) -> Result<EventConsumer, ConsumerError> {
    if work.event_consumers().count().await? >= EventConsumer::MOST {
        return Err(ConsumerReason::TooMany.into());
    }
    work.event_consumers().insert(&consumer).await?;
    cx.record(work, Changed::created(&consumer)).await?;
    Ok(consumer)
}
