use async_trait::async_trait;

use crate::billing::CustomerRef;
use crate::kernel::{StoreError, SystemScope, TenantId, Time};

/// What is known of a tenant as a customer of the payment provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCustomer {
    /// The tenant that pays through this customer.
    pub tenant: TenantId,
    /// Which customer it is; `None` while an answer of the provider is missing.
    pub customer: Option<CustomerRef>,
    /// Which customers it was before, the earliest first: those that the provider no longer had.
    pub former: Vec<CustomerRef>,
    /// Since when there may be a customer.
    pub expected_at: Time,
}

/// Which customer of the payment provider is which tenant: the one thing of billing that is known across tenants. It
/// changes only when the provider no longer has the customer; the former reference is kept. Every call carries its reason.
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

    /// What is known of a tenant as a customer; `None` where none was ever expected.
    async fn known(
        &self,
        because: SystemScope,
        tenant: TenantId,
    ) -> Result<Option<KnownCustomer>, StoreError>;

    /// Puts another customer in the place of one that the provider no longer has, and keeps the former reference. Of two
    /// at once the first wins; the customer that the tenant is then.
    async fn replace(
        &self,
        because: SystemScope,
        tenant: TenantId,
        gone: &CustomerRef,
        customer: &CustomerRef,
    ) -> Result<CustomerRef, StoreError>;

    /// The tenant that is or was this customer. It comes from here, and never from what a message says of itself.
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

    /// Up to `limit` deleted tenants for whom there may still be a customer, by id, from after `after` on.
    async fn left_behind(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<KnownCustomer>, StoreError>;

    /// Notes that the provider has no customer for the tenant any more.
    async fn removed(&self, because: SystemScope, tenant: TenantId, at: Time) -> Result<(), StoreError>;
}
