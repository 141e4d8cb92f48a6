//! The months of a tenant.

use tenantry_domain::{BillingCycle, StoreError, Work};

/// The cycle by which a tenant is billed; that of the calendar for those whom nobody bills.
///
/// # Errors
/// [`StoreError`].
pub async fn cycle(_work: &mut Work) -> Result<BillingCycle, StoreError> {
    Ok(BillingCycle::CALENDAR)
}
