//! The ports of usage: what tenancy's use cases report to metering, and ask of the upkeep of quotas.

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId};
use tenantry_domain::store::Work;

use crate::kernel::context::{Cx, Tenancy};
use crate::kernel::job_failure::JobFailure;

/// Records in the ledger what use cases of tenancy use.
#[async_trait]
pub trait UsageRecorder: Send + Sync {
    /// Records that the tenant stores `bytes` now. It runs in the transaction that changes the number, which holds the lock of
    /// its row.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn record_storage(&self, cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), StoreError>;

    /// Does the daily upkeep of the ledger in these tenants, each in its own scope. Where that fails in a tenant it becomes a
    /// job of the tenant.
    ///
    /// # Errors
    /// [`JobFailure`] when not even the jobs could be stored.
    async fn keep(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        tenants: &[TenantId],
    ) -> Result<(), JobFailure>;
}

/// Takes back leases of quotas that their holders did not return.
#[async_trait]
pub trait QuotaRecovery: Send + Sync {
    /// Counts expired leases of the scope's tenant as used, in transactions of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn lapse(&self, cx: &Cx) -> Result<(), StoreError>;

    /// Corrects the counters of ended periods by the ledger, in transactions of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn reconcile_ended(&self, cx: &Cx) -> Result<(), StoreError>;
}

/// Nothing is metered and there are no quotas: for a service without billing.
#[derive(Debug, Clone, Copy)]
pub struct Unmetered;

#[async_trait]
impl UsageRecorder for Unmetered {
    async fn record_storage(&self, _: &Cx, _: &mut Work, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn keep(&self, _: &Arc<Tenancy>, _: SystemScope, _: &[TenantId]) -> Result<(), JobFailure> {
        Ok(())
    }
}

#[async_trait]
impl QuotaRecovery for Unmetered {
    async fn lapse(&self, _: &Cx) -> Result<(), StoreError> {
        Ok(())
    }

    async fn reconcile_ended(&self, _: &Cx) -> Result<(), StoreError> {
        Ok(())
    }
}
