//! Removal of deleted endpoints. A deletion marks the endpoint, which is hidden from then on, and a job deletes its deliveries in batches: there
//! may be millions, and in one transaction they would hold the locks that changes of endpoints and the publication of events wait for.

use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Permission, StoreError, WebhookEndpointId};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};

/// How many deliveries are deleted in one transaction, with their attempts.
const DELETED_AT_ONCE: u32 = 1_000;

/// Deletes the deliveries of a deleted endpoint, and then its row. It goes on where a run that was killed has ended.
#[derive(Debug, Clone, Copy)]
pub struct RemoveEndpoint;

/// The endpoint to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedEndpoint {
    /// Identifies it.
    pub endpoint: WebhookEndpointId,
}

impl JobHandler for RemoveEndpoint {
    const KIND: &'static str = "webhook_endpoint.remove";
    // A suspended tenant's deleted endpoints are removed as well.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = 100;
    type Payload = DeletedEndpoint;

    async fn run(&self, cx: &Cx, DeletedEndpoint { endpoint }: DeletedEndpoint) -> Result<(), JobFailure> {
        cx.require(Permission::KeepEvents)?;
        let batch = u64::from(DELETED_AT_ONCE);
        while cx
            .write(async |work| {
                work.webhook_deliveries()
                    .delete_of_removed(endpoint, DELETED_AT_ONCE)
                    .await
            })
            .await?
            == batch
        {}
        Ok(cx
            .write(async |work| work.webhook_endpoints().remove(endpoint).await)
            .await?)
    }
}

/// Enqueues the removal of an endpoint, in the transaction that marks it as deleted.
pub(super) async fn ask(cx: &Cx, work: &mut Work, endpoint: WebhookEndpointId) -> Result<(), StoreError> {
    let terms = Terms {
        dedupe_key: Some(endpoint.to_string()),
        ..Terms::default()
    };
    let asked = job::enqueue::<RemoveEndpoint>(cx, work, &DeletedEndpoint { endpoint }, terms).await;
    asked.map(|_| ()).map_err(store_error)
}
