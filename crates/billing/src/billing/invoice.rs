//! Invoices, as the payment provider has them.

use tenantry_domain::billing::Invoice;
use tenantry_domain::kernel::{Page, PageRequest, Permission};
use tenantry_tenancy::Cx;

use crate::billing::{BillingError, payments};

/// A page of the tenant's invoices, newest first.
///
/// # Errors
/// [`BillingError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<Invoice>, BillingError> {
    cx.require(Permission::ReadBilling)?;
    payments(cx)?;
    Ok(cx.read(async |work| work.invoices().list(page).await).await?)
}
