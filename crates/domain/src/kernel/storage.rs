use async_trait::async_trait;

use crate::kernel::{ResourceId, StoreError, Time};

/// How many bytes a tenant stores: the contents of all kept versions of its resources.
///
/// The sum is kept beside what is summed up, and changed in the same transaction.
#[async_trait]
pub trait Storage: Send {
    /// The bytes stored, for a look.
    async fn used(&mut self) -> Result<u64, StoreError>;

    /// The bytes stored, locked until the transaction ends: whoever else wants to change them waits. The sum is made when it
    /// is first asked for.
    async fn used_for_update(&mut self, now: Time) -> Result<u64, StoreError>;

    /// Sets the sum.
    async fn set_used(&mut self, bytes: u64) -> Result<(), StoreError>;

    /// The bytes of one resource's versions.
    async fn used_by(&mut self, resource: ResourceId) -> Result<u64, StoreError>;
}
