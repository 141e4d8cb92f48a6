//! The daily upkeep of events: what is left unpublished, and the retention of events and of their deliveries by webhooks.

use chrono::Duration;
use tenantry_domain::kernel::Permission;

use crate::Cx;
use crate::customization::product_settings::RETENTION_EVENTS_DAYS;
use crate::customization::setting;
use crate::events::publish::{self, EventError};
use crate::operations::job::{JobFailure, JobHandler, Nothing};

/// How many events are deleted in one transaction.
const DELETED_AT_ONCE: u32 = 5_000;

/// How many deliveries are deleted in one transaction, with their attempts.
const DELIVERIES_AT_ONCE: u32 = 1_000;

/// Publishes a tenant's events, and deletes those that are older than the setting `retention.events_days`, with their deliveries.
#[derive(Debug, Clone, Copy)]
pub struct KeepEvents;

impl JobHandler for KeepEvents {
    const KIND: &'static str = "events.keep";
    // A suspended tenant's feed goes on.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::KeepEvents)?;
        publish::publish(cx).await.map_err(failure)?;
        let days = setting::find(cx, &RETENTION_EVENTS_DAYS).await?;
        // A service without the setting keeps everything.
        let Some(days) = days else {
            return Ok(());
        };
        let before = cx.now() - Duration::days(days.clamp(1, 3_650));
        let batch = u64::from(DELETED_AT_ONCE);
        while cx
            .write(async |work| work.events().delete_before(before, DELETED_AT_ONCE).await)
            .await?
            == batch
        {}
        // Deliveries of events that are still there say what was delivered: without them a recovery would send it again.
        let batch = u64::from(DELIVERIES_AT_ONCE);
        while cx
            .write(async |work| {
                work.webhook_deliveries()
                    .delete_before(before, DELIVERIES_AT_ONCE)
                    .await
            })
            .await?
            == batch
        {}
        Ok(())
    }
}

fn failure(error: EventError) -> JobFailure {
    match error {
        EventError::Refused(refused) => refused.into(),
        EventError::Store(error) => error.into(),
        other => JobFailure::Retry(other.to_string()),
    }
}
