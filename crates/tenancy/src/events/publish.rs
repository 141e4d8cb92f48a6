//! Publishing of events: what the transactions of changes have left in the outbox is moved into the feed of the tenant, and numbered.
//!
//! Numbers are given here and not in the transaction of the change, which would hold a lock from there to its commit. A reader that goes on
//! from a number passes over nothing: events are numbered under a lock of the tenant that is held until the numbers are committed, so an
//! event that commits late gets a later number. It waits for no other transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tenantry_domain::kernel::{Permission, StoreError, SystemScope, TenantId};
use tokio::time::Instant;

use crate::events::batches::{BatchSizes, MOST_EVENTS};
use crate::notifications::fan_out;
use crate::{Cx, Tenancy, UseCaseError};

/// Errors of the use cases of events.
pub type EventError = UseCaseError;

/// How many transactions of a tenant a round makes.
const BATCHES_OF_A_ROUND: u32 = 4;

/// After how long a round makes no further transaction of a tenant: others wait for theirs.
const PART_OF_A_ROUND: Duration = Duration::from_millis(500);

/// How many tenants a round looks at.
const TENANTS: u32 = 100;

/// Of how many tenants events are published at once, so that requests find connections.
const TENANTS_AT_ONCE: usize = 2;

const BECAUSE: SystemScope = SystemScope::because("events are published");

/// Publishes the events of the tenants that have some, whichever process has recorded them. Returns how many were published.
///
/// A tenant with many has a part of them published in each round, so that the events of others do not wait for all of them.
pub async fn publish_due(app: &Arc<Tenancy>) -> u64 {
    let mut all = 0;
    loop {
        let round = publish_round(app).await;
        all += round.published;
        if !round.is_more {
            return all;
        }
    }
}

/// What was published.
#[derive(Clone, Copy, Default)]
struct Published {
    published: u64,
    /// Whether a tenant has more.
    is_more: bool,
}

async fn publish_round(app: &Arc<Tenancy>) -> Published {
    let (mut all, mut after) = (Published::default(), None);
    loop {
        let tenants = match app
            .ports
            .unpublished_events
            .waiting(BECAUSE, after, TENANTS)
            .await
        {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "tenants with events to publish could not be found, trying again");
                return Published {
                    is_more: false,
                    ..all
                };
            }
        };
        let is_last = tenants.len() < TENANTS as usize;
        after = tenants.last().copied();
        let published = iter(tenants).map(async |tenant| publish_one(app, tenant).await);
        let published = published.buffer_unordered(TENANTS_AT_ONCE);
        all = published
            .fold(all, async |all, one| Published {
                published: all.published + one.published,
                is_more: all.is_more || one.is_more,
            })
            .await;
        if is_last {
            return all;
        }
    }
}

async fn publish_one(app: &Arc<Tenancy>, tenant: TenantId) -> Published {
    let published = async {
        match Cx::enter(app, BECAUSE, tenant).await? {
            Some(cx) => publish_batches(&cx, BATCHES_OF_A_ROUND).await,
            None => Ok(Published::default()),
        }
    };
    published.await.unwrap_or_else(|error: EventError| {
        tracing::warn!(%tenant, %error, "events could not be published, trying again");
        Published::default()
    })
}

/// Publishes what has committed of the tenant's events. Returns how many; those that another process is publishing are not counted.
///
/// # Errors
/// [`EventError`].
pub async fn publish(cx: &Cx) -> Result<u64, EventError> {
    Ok(publish_batches(cx, u32::MAX).await?.published)
}

/// The same, up to so many transactions. A tenant with more of them has a part of the time of a round.
async fn publish_batches(cx: &Cx, most: u32) -> Result<Published, EventError> {
    cx.require(Permission::KeepEvents)?;
    let (mut all, begin) = (Published::default(), Instant::now());
    for batch in 1..=most {
        let (moved, is_more) = publish_batch(cx).await?;
        all.published += moved;
        all.is_more = is_more;
        let is_over = most != u32::MAX && begin.elapsed() >= PART_OF_A_ROUND;
        if !is_more || batch == most || is_over {
            break;
        }
    }
    Ok(all)
}

/// Publishes events in one transaction. Returns how many, and whether there may be more.
async fn publish_batch(cx: &Cx) -> Result<(u64, bool), StoreError> {
    let (sizes, tenant) = (cx.app().state::<BatchSizes>(), cx.scope().tenant());
    // That of the last try.
    let size = AtomicU32::new(MOST_EVENTS);
    let moved: Result<(u64, u64), StoreError> = cx
        .write(async |work| {
            let endpoints = work.webhook_endpoints().count_enabled().await?;
            let most = sizes.next(tenant, endpoints);
            size.store(most, Ordering::Relaxed);
            let moved = work.events().publish(most).await?;
            if moved == 0 {
                return Ok((0, 0));
            }
            fan_out::enqueue_published(cx, work, moved).await?;
            // In this transaction, so that a webhook is queued exactly if its event is in the feed.
            let queued = work.webhook_deliveries().queue_published(moved, cx.now()).await?;
            Ok((moved, queued))
        })
        .await;
    let size = size.load(Ordering::Relaxed);
    let (moved, queued) = moved.inspect_err(|_| sizes.note_failure(tenant, size))?;
    if queued > 0 {
        cx.app().delivery_signals().note_queued();
    }
    if moved > 0 {
        sizes.note_success(tenant);
        cx.app().event_signals().note_published(tenant, moved);
    }
    Ok((moved, moved == u64::from(size)))
}
