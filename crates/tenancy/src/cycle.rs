//! The months of a tenant.

use tenantry_domain::{BillingCycle, StoreError, Work};

/// The months by which a tenant is billed.
///
/// # Errors
/// [`StoreError`].
pub async fn cycle(_work: &mut Work) -> Result<BillingCycle, StoreError> {
    Ok(BillingCycle::CALENDAR)
}
