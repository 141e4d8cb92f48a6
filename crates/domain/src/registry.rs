use async_trait::async_trait;

use crate::{StoreError, SystemScope, Tenant, TenantId, TenantStatus, Time};

/// All tenants, for operators: one of the few things that reach across tenants, and only as far as the tenants
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

    /// Puts a tenant into a state; the tenant as it is then, or `None` when there is none.
    async fn set_status(
        &self,
        because: SystemScope,
        tenant: TenantId,
        status: TenantStatus,
        at: Time,
    ) -> Result<Option<Tenant>, StoreError>;
}
