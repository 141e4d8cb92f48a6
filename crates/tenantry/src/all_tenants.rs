//! Commands that go through all tenants, and through all of them also when something is wrong with one.

use tenantry_domain::kernel::{SystemScope, TenantId};
use tenantry_domain::tenant::Tenant;
use tenantry_tenancy::Tenancy;

use crate::tenant::other;
use crate::{CommandError, console};

/// Maximum number of tenants in memory at a time.
const PAGE: u32 = 500;

/// The tenants of all states by id, page by page.
pub struct TenantPages<'a> {
    app: &'a Tenancy,
    because: SystemScope,
    after: Option<TenantId>,
}

impl<'a> TenantPages<'a> {
    /// From the first one on.
    pub const fn new(app: &'a Tenancy, because: SystemScope) -> Self {
        Self {
            app,
            because,
            after: None,
        }
    }

    /// Returns the next page; `None` behind the last tenant.
    ///
    /// # Errors
    /// [`CommandError`] when the store fails.
    pub async fn next(&mut self) -> Result<Option<Vec<Tenant>>, CommandError> {
        let registry = &self.app.ports.registry;
        let page = registry.list(self.because, self.after, PAGE).await;
        let page = page.map_err(|error| other(&error))?;
        self.after = page.last().map(|last| last.id);
        Ok((!page.is_empty()).then_some(page))
    }
}

/// Counts the tenants in which a command has failed.
#[derive(Debug, Default)]
pub struct FailedTenants(usize);

impl FailedTenants {
    /// Prints and counts a failure.
    pub fn note(&mut self, slug: &str, done: Result<(), CommandError>) {
        if let Err(error) = done {
            console::error(&format!("{slug} {error}"));
            self.count();
        }
    }

    /// Counts a failure that was printed.
    pub const fn count(&mut self) {
        self.0 += 1;
    }

    /// Returns how the command ends.
    ///
    /// # Errors
    /// [`CommandError`] with the number of tenants in which it has failed.
    pub fn summary(&self) -> Result<(), CommandError> {
        match self.0 {
            0 => Ok(()),
            failed => Err(CommandError::Other(format!("{failed} tenant(s) failed"))),
        }
    }
}
