//! Another customer for a tenant whose customer the payment provider no longer has: it was deleted there, the account or the
//! key is another, or a fake has been started anew over data that was kept.
//!
//! What the former customer had is over, so nothing is charged twice: a former customer that the provider has (because the
//! key was a wrong one for a while) is taken again before a fresh one is made.

use serde_json::json;
use tenantry_domain::billing::{
    BillingAccount, CustomerRef, KnownCustomer, PaymentProvider, PlanStep, ProviderError, ProviderKey,
};
use tenantry_domain::kernel::{StoreError, SystemScope};
use tenantry_domain::tenant::Capability;
use tenantry_tenancy::Cx;

use crate::billing::billing_provision::{self, ProvisionError, begin, find_or_create};
use crate::billing::billing_sync::{follow, sync};
use crate::billing::sync_error::SyncError;
use crate::usage::quota;

/// A tenant as a customer that the provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The tenant's billing account, as stored.
    pub account: BillingAccount,
    /// The present customer at the provider.
    pub customer: CustomerRef,
    /// Which customer it was before, when that was replaced just now.
    pub replaced: Option<CustomerRef>,
}

/// Makes sure that the provider has the customer that the scope's tenant is: it is replaced when not. Two at once come to the
/// same.
///
/// # Errors
/// [`SyncError`]; [`ProvisionError::Gone`] when the tenant was deleted meanwhile.
pub async fn ensure(cx: &Cx, payments: &dyn PaymentProvider) -> Result<Standing, ProvisionError> {
    let (account, gone) = billing_provision::customer(cx, payments).await?;
    if payments.has_customer(&gone).await? {
        return Ok(Standing {
            account,
            customer: gone,
            replaced: None,
        });
    }
    let customer = successor(cx, payments, &account, &gone).await?;
    store(cx, payments, &gone, &customer).await?;
    let account = sync(cx, payments).await.map_err(|error| match error {
        SyncError::Provider(error) => ProvisionError::Provider(error),
        SyncError::Store(error) => ProvisionError::Store(error),
        SyncError::Job(error) => ProvisionError::Store(StoreError::Other(error.to_string())),
    })?;
    Ok(Standing {
        account: account.ok_or(ProvisionError::Gone)?,
        customer,
        replaced: Some(gone),
    })
}

/// The customer that takes the place of one that is gone, noted as such.
async fn successor(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
    gone: &CustomerRef,
) -> Result<CustomerRef, ProvisionError> {
    let because = SystemScope::because("the payment provider no longer has a tenant's customer");
    let (customers, tenant) = (&cx.ports().customers, cx.scope().tenant());
    let known = customers.known(because, tenant).await?;
    let missing = || StoreError::Other("the tenant is no customer".into());
    let known = known.ok_or_else(missing)?;
    if let Some(other) = known.customer.as_ref().filter(|customer| *customer != gone) {
        return Ok(other.clone());
    }
    let found = match still_there(payments, &known).await? {
        Some(former) => former,
        None => {
            let (_, new) = cx.write(async |work| begin(cx, work).await).await?;
            // One key for each customer that there was.
            let generation = known.former.len() + 1;
            let key = ProviderKey::digest(&[&"customer", &account.id, &generation]);
            find_or_create(cx, payments, &key, &new).await?
        }
    };
    Ok(customers.replace(because, tenant, gone, &found).await?)
}

/// The latest former customer that the provider has.
async fn still_there(
    payments: &dyn PaymentProvider,
    known: &KnownCustomer,
) -> Result<Option<CustomerRef>, ProviderError> {
    for former in known.former.iter().rev() {
        if payments.has_customer(former).await? {
            return Ok(Some(former.clone()));
        }
    }
    Ok(None)
}

/// Puts the account on the other customer. The tenant no longer has what the former one's subscription granted, until the
/// provider is asked what the other one has.
async fn store(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    gone: &CustomerRef,
    customer: &CustomerRef,
) -> Result<(), ProvisionError> {
    let stored = cx
        .write(async |work| {
            let tenant = work.tenants().current_for_update().await?;
            let tenant = tenant.filter(|tenant| tenant.status.allows(Capability::Billing));
            let before = tenant.ok_or(ProvisionError::Gone)?;
            let account = work.billing().current_for_update().await?;
            let mut account = account.ok_or(ProvisionError::Gone)?;
            if account.customer.as_ref() != Some(gone) {
                return Ok(());
            }
            let step = account.replace_customer(customer.clone(), cx.now());
            work.billing().update(&account).await?;
            let details = json!({"former": gone, "customer": customer});
            let id = account.id.uuid();
            let event = cx.changed(
                "billing.customer_replaced",
                "billing_account",
                id,
                None,
                Some(&details),
            );
            work.audit().record(event).await?;
            if step == PlanStep::Keep {
                return Ok(());
            }
            let mut tenant = before.clone();
            follow(cx, &mut tenant, &step);
            if tenant != before {
                work.tenants().update(&tenant).await?;
                quota::count_from_ledger(cx, work, &before, &tenant).await?;
                let id = tenant.id.uuid();
                let event = cx.changed("tenant.plan_changed", "tenant", id, Some(&before), Some(&tenant));
                work.audit().record(event).await?;
            }
            Ok(())
        })
        .await;
    if matches!(stored, Err(ProvisionError::Gone)) {
        billing_provision::remove_own(cx, payments).await?;
    }
    stored
}
