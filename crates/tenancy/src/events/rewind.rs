//! Exporting events again, after the broker has lost what it had acknowledged.

use serde_json::json;
use tenantry_domain::kernel::{Permission, StoreError, Time};
use tenantry_domain::store::Work;

use crate::events::publish::EventError;
use crate::{Cx, OperatorCx};

/// The action of the record, with the operators and with the tenant.
const REWOUND: &str = "event_export.rewound";

/// Sets the export of the tenant back, for a command on the server: to the oldest event that is kept, or to the first one from a time on. Events
/// that were exported since then are exported again, with the same ids. Returns how many wait to be exported; an export that is farther back
/// stays where it is.
///
/// # Errors
/// [`EventError`].
pub async fn rewind(operators: &OperatorCx, cx: &Cx, since: Option<Time>) -> Result<u64, EventError> {
    operators.require_command()?;
    cx.require(Permission::KeepEvents)?;
    let tenant = cx.scope().tenant();
    let details = json!({ "since": since });
    let record = operators.record(REWOUND, Some(tenant), details.clone());
    let rewound = async {
        let behind = cx.read(async |work| position_before(work, since).await).await?;
        cx.write(async |work| {
            let waiting = work.event_exports().rewind(behind).await?;
            let event = cx.security(REWOUND, "tenant", Some(tenant.uuid()), details);
            work.audit().record(event).await?;
            Ok(waiting)
        })
        .await
    };
    operators.act(record, "event_export.rewind_failed", rewound).await
}

/// Returns the position of the last event from before a time, or the one before the oldest event. Times of events increase with their positions,
/// apart from seconds, so that few events are read.
async fn position_before(work: &mut Work, since: Option<Time>) -> Result<i64, StoreError> {
    let ends = work.events().ends().await?;
    let mut low = ends.before_oldest();
    let Some(since) = since else {
        return Ok(low);
    };
    let mut high = ends.newest;
    while low < high {
        let middle = high - (high - low) / 2;
        let found = work.events().between((middle - 1, middle), &[], 1).await?;
        // One that was deleted meanwhile was older.
        if found.first().is_none_or(|event| event.at < since) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}
