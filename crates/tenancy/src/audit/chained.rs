//! The tenants with entries that this process has chained and that the security rules have not read yet.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::kernel::TenantId;

use crate::Tenancy;

/// The tenants with chained entries to read. A killed process loses them; then they are read with the tenant's next entry, or by the
/// daily upkeep.
#[derive(Debug, Default)]
pub struct ChainedTenants(Mutex<BTreeSet<TenantId>>);

impl Tenancy {
    /// Returns the tenants with chained entries that the security rules have not read yet.
    pub fn chained(&self) -> Arc<ChainedTenants> {
        self.state()
    }
}

impl ChainedTenants {
    /// Notes that a tenant has entries to read.
    pub fn note(&self, tenant: TenantId) {
        self.tenants().insert(tenant);
    }

    /// Returns all of them, which are noted no more.
    pub fn take(&self) -> BTreeSet<TenantId> {
        std::mem::take(&mut *self.tenants())
    }

    /// Sets are changed by code that does not panic.
    fn tenants(&self) -> MutexGuard<'_, BTreeSet<TenantId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
