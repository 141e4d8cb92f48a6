//! The months of a tenant.

use tenantry_domain::billing::BillingAccount;
use tenantry_domain::kernel::{BillingCycle, StoreError};
use tenantry_domain::store::Work;

/// The months of the scope's tenant: those in which it is billed, and of the calendar while nobody bills it.
///
/// # Errors
/// [`StoreError`].
pub async fn cycle(work: &mut Work) -> Result<BillingCycle, StoreError> {
    let account = work.billing().current().await?;
    Ok(account.map_or(BillingCycle::CALENDAR, |account: BillingAccount| account.cycle()))
}
