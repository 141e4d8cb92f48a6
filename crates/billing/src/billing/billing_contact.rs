//! Where invoices of a tenant go: to an admin, and to another one once that admin is erased.

use tenantry_domain::billing::{CustomerRef, PaymentProvider, ProviderError, ProviderKey};
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{PageRequest, Permission, StoreError, SystemScope};
use tenantry_domain::store::Work;
use tenantry_tenancy::Cx;

const BECAUSE: SystemScope = SystemScope::because("the payment provider has nothing of an erased person");

/// The address of an admin of the tenant.
pub(crate) async fn first_admin(work: &mut Work) -> Result<Option<String>, StoreError> {
    let one = PageRequest {
        limit: 1,
        after: None,
    };
    let page = work.users().list_acting_admins(one).await?;
    Ok(page.items.first().map(|user| user.email.as_str().to_owned()))
}

/// Gives customers of the scope's tenant whose address is one of these that of an admin instead, and deletes stored messages of the provider
/// that name one. Doing it twice is the same as once. Returns whether no message is left.
pub(crate) async fn erase(cx: &Cx, addresses: &[Email]) -> Result<bool, StoreError> {
    cx.require(Permission::KeepAudit)
        .map_err(|refused| StoreError::Other(refused.to_string()))?;
    if let Some(payments) = &cx.ports().payments {
        let tenant = cx.scope().tenant();
        let known = cx.ports().customers.known(BECAUSE, tenant).await?;
        // A tenant that is deleted has no admin: its customer goes with it.
        let admin = cx.read(async |work| first_admin(work).await).await?;
        if let Some((known, admin)) = known.zip(admin) {
            for customer in known.former.iter().chain(&known.customer) {
                let moved = readdress(payments.as_ref(), customer, addresses, &admin).await;
                moved.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            }
        }
    }
    let events = &cx.ports().provider_events;
    let left = events.clear_bodies_of(BECAUSE, cx.scope().tenant(), addresses);
    Ok(left.await? == 0)
}

/// Gives a customer another address if it has one of those.
async fn readdress(
    payments: &dyn PaymentProvider,
    customer: &CustomerRef,
    former: &[Email],
    address: &str,
) -> Result<(), ProviderError> {
    let email = payments.customer(customer).await?.and_then(|there| there.email);
    let is_former = email.is_some_and(|email| {
        let mut former = former.iter();
        former.any(|former| former.as_str().eq_ignore_ascii_case(&email))
    });
    if !is_former {
        return Ok(());
    }
    let key = ProviderKey::digest(&[&"readdressed", customer, &address]);
    payments.set_customer_email(&key, customer, address).await
}
