use async_trait::async_trait;
use uuid::Uuid;

use crate::kernel::{StoreError, SystemScope, TenantId, Time};
use crate::tenant::{RowWork, Slug, Tenant, Tombstone};

/// A table that has rows of tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowTable {
    /// Its name in the schema `public`, as the catalogue has it.
    pub name: String,
    /// Whether its rows can be marked as deleted.
    pub soft: bool,
    /// Whether the runtime role may delete rows of it. Where it may not, a function of the owner erases them.
    pub by_runtime: bool,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStep {
    /// The tenant has another state, or something else is to be done to its rows.
    Stopped,
    /// There are no more rows in the table.
    End {
        /// How many rows were changed.
        done: u64,
    },
    /// There may be more rows, behind this id; without an id, wherever they are.
    More {
        /// How many rows were changed.
        done: u64,
        /// The last id.
        after: Option<Uuid>,
    },
}

/// The rows of tenants that change their state, table by table: the list of tables comes from the catalogue of the database, so
/// that none can be forgotten. Every call carries its reason, and touches rows of one tenant.
#[async_trait]
pub trait TenantRows: Send + Sync {
    /// All tables that have rows of tenants: first those that nothing refers to.
    async fn tables(&self, because: SystemScope) -> Result<Vec<RowTable>, StoreError>;

    /// One batch of at most `at_most` rows behind an id, in a transaction of its own. It does nothing unless this work is still to
    /// be done, which the transaction makes sure of.
    async fn step(
        &self,
        because: SystemScope,
        tenant: TenantId,
        work: (RowWork, &RowTable),
        after: Option<Uuid>,
        at_most: u32,
    ) -> Result<RowStep, StoreError>;

    /// A tenant, deleted ones included.
    async fn tenant(&self, because: SystemScope, id: TenantId) -> Result<Option<Tenant>, StoreError>;

    /// The tenant with a slug, deleted ones included.
    async fn tenant_named(&self, because: SystemScope, slug: &Slug) -> Result<Option<Tenant>, StoreError>;

    /// Up to `limit` tenants whose rows there is something to do to, or which are deleted and are to be purged by now.
    async fn pending(&self, because: SystemScope, now: Time, limit: u32)
    -> Result<Vec<TenantId>, StoreError>;

    /// Whether exports of a tenant may have left archives: all of its exports but those that have expired.
    async fn has_archives(&self, because: SystemScope, tenant: TenantId) -> Result<bool, StoreError>;

    /// Those of some tenants that were purged and are not there again, as a restored backup brings them back.
    async fn purged_among(
        &self,
        because: SystemScope,
        tenants: &[TenantId],
    ) -> Result<Vec<TenantId>, StoreError>;

    /// What is left of tenants that were purged, the latest last.
    async fn tombstones(&self, because: SystemScope) -> Result<Vec<Tombstone>, StoreError>;
}
