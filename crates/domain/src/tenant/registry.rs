use async_trait::async_trait;

use crate::kernel::{StoreError, SystemScope, TenantId, Time};
use crate::tenant::Tenant;

/// All tenants, for sweeps over them: one of the few things that reach across tenants, and only as far as the tenants
/// themselves. Every call carries its reason.
#[async_trait]
pub trait TenantRegistry: Send + Sync {
    /// Up to `limit` tenants by id, from after `after` on; deleted ones too.
    async fn list(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<Tenant>, StoreError>;

    /// Those tenants that fall to part `part` when they are dealt out to `parts` parts by chance (of their ids, so it is
    /// the same each time); without deleted ones. `part` is below `parts`.
    async fn dealt(&self, because: SystemScope, part: u32, parts: u32) -> Result<Vec<TenantId>, StoreError>;

    /// Frees the slugs and subdomains that tenants gave up before `released_before`, for any tenant to take; how many those
    /// are. Until then only the tenant that gave a name up can take it again.
    async fn free_names(&self, because: SystemScope, released_before: Time) -> Result<u64, StoreError>;
}
