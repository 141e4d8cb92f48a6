use async_trait::async_trait;

use crate::{CustomerRef, StoreError, SystemScope, TenantId, Time};

/// Which customer of the payment provider is which tenant: the one thing of billing that is known across tenants. It is
/// written once for a tenant and says the same for good. Every call carries its reason.
#[async_trait]
pub trait Customers: Send + Sync {
    /// Notes that the provider may make, or have made, a customer for the tenant: before it is asked to, so that none is
    /// forgotten when whoever asked goes away.
    async fn expect(&self, because: SystemScope, tenant: TenantId, at: Time) -> Result<(), StoreError>;

    /// Notes which customer the tenant is, unless that is known already; the one that it is.
    async fn bind(
        &self,
        because: SystemScope,
        tenant: TenantId,
        customer: &CustomerRef,
    ) -> Result<CustomerRef, StoreError>;

    /// The tenant that is this customer. It comes from here, and never from what a message says of itself.
    async fn tenant_of(
        &self,
        because: SystemScope,
        customer: &CustomerRef,
    ) -> Result<Option<TenantId>, StoreError>;

    /// Up to `limit` tenants that are not deleted and are customers, by id, from after `after` on.
    async fn list(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError>;

    /// Up to `limit` deleted tenants for whom there may still be a customer.
    async fn left_behind(&self, because: SystemScope, limit: u32) -> Result<Vec<TenantId>, StoreError>;

    /// Notes that the provider has no customer for the tenant any more.
    async fn removed(&self, because: SystemScope, tenant: TenantId, at: Time) -> Result<(), StoreError>;
}
