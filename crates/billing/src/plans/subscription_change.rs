//! A change of plan, interval or seats that is under way: the payload of the job that does it.

use serde::{Deserialize, Serialize};
use tenantry_domain::billing::{Offer, SubscriptionRef};
use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;
use tenantry_tenancy::operations::job;
use uuid::Uuid;

/// A change of the subscription that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionChange {
    /// Its id; the key of the call to the provider is made of it.
    pub id: Uuid,
    /// The subscription to change.
    pub subscription: SubscriptionRef,
    /// What is to be changed.
    pub what: Changing,
}

/// What of a subscription is to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changing {
    /// The plan, its version or the number of seats.
    Offer {
        /// Of our catalogue.
        offer: Offer,
        /// How many seats.
        seats: u32,
    },
    /// Whether it ends with its period.
    Ending(bool),
}

impl SubscriptionChange {
    /// The kind of its job, which is stored.
    pub const KIND: &'static str = "billing.change";
    /// The form of its payload.
    pub const SCHEMA_VERSION: i32 = 1;
    /// The deduplication key of its job: one change is under way at a time.
    pub const KEY: &'static str = "change";

    /// Returns the change that is under way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn open(work: &mut Work) -> Result<Option<Self>, StoreError> {
        let Some(found) = work.jobs().find_open(Self::KIND, Self::KEY).await? else {
            return Ok(None);
        };
        let change = job::read(Self::SCHEMA_VERSION, found.schema_version, found.payload);
        change.map(Some).map_err(StoreError::Other)
    }
}
