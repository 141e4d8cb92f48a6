//! The log of what was published in the feeds of all tenants, in one order.

use std::sync::Arc;

use chrono::Duration;
use tenantry_domain::kernel::SystemScope;

use crate::Tenancy;

/// For how many days entries of the log are kept.
pub const KEPT_DAYS: i64 = 30;

/// How many tenants are added in one transaction.
const ADDED_AT_ONCE: u32 = 500;

const BECAUSE: SystemScope = SystemScope::because("published events are added to the log of all tenants");

/// Adds what was published to the log, whichever process has published it. Returns how many entries were added.
pub async fn append_due(app: &Arc<Tenancy>) -> u64 {
    let mut all = 0;
    loop {
        let now = app.ports.clock.now();
        let times = (now, now - Duration::days(KEPT_DAYS));
        let added = app
            .ports
            .published_events
            .append(BECAUSE, times, ADDED_AT_ONCE)
            .await;
        let added = added.unwrap_or_else(|error| {
            tracing::warn!(%error, "published events could not be added to the log of all tenants, trying again");
            0
        });
        if added > 0 {
            app.event_signals().note_logged();
        }
        all += added;
        // A tenant with many events has more than one entry.
        if added == 0 {
            return all;
        }
    }
}
