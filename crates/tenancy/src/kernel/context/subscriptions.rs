//! The port of subscriptions: what sign-up asks of payments.

use async_trait::async_trait;
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId};
use tenantry_domain::store::Work;

use crate::kernel::context::{Cx, Tenancy};

/// Subscribes tenants to plans that have a price.
#[async_trait]
pub trait Subscriptions: Send + Sync {
    /// Whether payments are taken, so that a tenant may sign up for a plan that has a price.
    fn takes_payments(&self, cx: &Cx) -> bool;

    /// Asks for the scope's tenant to become a customer and to be subscribed to the plan of this name, in the transaction that
    /// creates the tenant. Where no payments are taken it does nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn provision(&self, cx: &Cx, work: &mut Work, plan: &str) -> Result<(), StoreError>;

    /// Makes sure that no one goes on paying for a tenant that is purged, and that the provider has nothing more of it.
    ///
    /// # Errors
    /// [`StoreError`] when the provider does not answer: the purge waits.
    async fn remove(&self, app: &Tenancy, because: SystemScope, tenant: TenantId) -> Result<(), StoreError>;

    /// Takes the addresses of a person who was erased from the scope's tenant away from the payment provider, and out of its messages that
    /// are stored. Returns whether none is left: messages that nobody has acted on yet are kept until then.
    ///
    /// # Errors
    /// [`StoreError`] when the provider does not answer: the erasure waits.
    async fn erase_addresses(&self, cx: &Cx, addresses: &[Email]) -> Result<bool, StoreError>;
}

/// No payments are taken: for a service without billing.
#[derive(Debug, Clone, Copy)]
pub struct Unbilled;

#[async_trait]
impl Subscriptions for Unbilled {
    fn takes_payments(&self, _: &Cx) -> bool {
        false
    }

    async fn provision(&self, _: &Cx, _: &mut Work, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, _: &Tenancy, _: SystemScope, _: TenantId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn erase_addresses(&self, _: &Cx, _: &[Email]) -> Result<bool, StoreError> {
        Ok(true)
    }
}
