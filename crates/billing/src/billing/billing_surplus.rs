//! A tenant has one subscription. When the provider has another one that grants something as well, because two checkouts were
//! paid or one was while the first subscription was made, the tenant pays twice. The surplus ends at once, what was paid for
//! the rest of its period is credited, and it is on record: in the audit log, the log, and the drift report while it lasts.
//! So does what still runs of a customer that the tenant is no longer. A surplus subscription that awaits its first payment is
//! withdrawn with its invoice, which could otherwise be paid for a day.
//!
//! Which one is kept is a rule of [`FetchedAccount`], the same for every server that looks. Subscriptions for other things
//! than our catalogue are never ended.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::billing::{
    BillingAccount, CustomerRef, FetchedAccount, PaymentProvider, ProviderError, ProviderSubscription,
    SubscriptionRef,
};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId};
use tenantry_domain::operations::Enqueued;
use tenantry_domain::store::Work;
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::job::{self, JobError, Terms};
use uuid::Uuid;

use crate::billing::sync_error::SyncError;

/// How often what a former customer pays for is looked at again because the account has changed meanwhile.
const LOOKS: usize = 3;

/// A subscription that was found beside the one that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its id here; the key of the call to the provider is made of it.
    pub id: Uuid,
    /// The subscription to end.
    pub subscription: SubscriptionRef,
}

/// Asks for the end of each subscription that is one too many.
///
/// # Errors
/// [`JobError`].
pub(crate) async fn end(
    cx: &Cx,
    work: &mut Work,
    account: &BillingAccount,
    fetched: &FetchedAccount,
) -> Result<(), JobError> {
    for one in fetched.surplus() {
        ask(cx, work, account, one).await?;
    }
    Ok(())
}

/// Asks for the end of what still runs of customers that the tenant is no longer, so that it is not charged as two. Nothing
/// ends while the provider does not have the present customer: with a wrong key the former one may be the right one.
///
/// # Errors
/// [`SyncError`].
pub(crate) async fn end_former(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
) -> Result<(), SyncError> {
    let mut account = account.clone();
    // Each time that the account changes meanwhile, what was seen running may have ended: it is looked at again.
    for _ in 0..LOOKS {
        let running = running_of_former(cx, payments, &account).await?;
        if running.is_empty() {
            return Ok(());
        }
        match ask_unless_behind(cx, &account, &running).await? {
            Some(current) => account = current,
            None => return Ok(()),
        }
    }
    Err(SyncError::Store(StoreError::Contention))
}

/// Asks for the end of these subscriptions. Returns the account, and asks for nothing, when it has changed since.
async fn ask_unless_behind(
    cx: &Cx,
    account: &BillingAccount,
    running: &[ProviderSubscription],
) -> Result<Option<BillingAccount>, SyncError> {
    cx.write(async |work| {
        let Some(current) = work.billing().current_for_update().await? else {
            return Ok(None);
        };
        if account.is_behind(&current) {
            return Ok(Some(current));
        }
        for one in running {
            ask(cx, work, account, one).await?;
        }
        Ok(None)
    })
    .await
}

/// Asks for the end of a subscription, once.
async fn ask(
    cx: &Cx,
    work: &mut Work,
    account: &BillingAccount,
    one: &ProviderSubscription,
) -> Result<(), JobError> {
    let found = Found {
        id: cx.ids().uuid(),
        subscription: one.id.clone(),
    };
    let terms = Terms {
        dedupe_key: Some(format!("surplus {}", one.id)),
        ..Terms::default()
    };
    if job::enqueue::<EndSurplus>(cx, work, &found, terms).await? == Enqueued::Duplicate {
        return Ok(());
    }
    let (tenant, subscription) = (cx.scope().tenant(), &one.id);
    let customer = &one.customer;
    if account.customer.as_ref() == Some(customer) {
        tracing::warn!(%tenant, %subscription, "a tenant has two subscriptions; the surplus one is ended");
    } else {
        tracing::warn!(%tenant, %customer, %subscription, "a former customer has a subscription; it is ended");
    }
    // Nothing is kept while the account has only the subscription of its former customer.
    let kept = account.live_subscription().map(|kept| &kept.id);
    let details = json!({
        "subscription": one.id, "customer": one.customer, "kept": kept, "offer": one.offer, "seats": one.seats,
    });
    record(cx, work, account, "billing.surplus_found", details).await?;
    Ok(())
}

/// Puts something about the account into the audit log.
pub(crate) async fn record(
    cx: &Cx,
    work: &mut Work,
    account: &BillingAccount,
    action: &'static str,
    details: serde_json::Value,
) -> Result<(), StoreError> {
    let id = account.id.uuid();
    let event = cx.changed(action, "billing_account", id, None, Some(&details));
    work.audit().record(event).await
}

/// Ends a subscription that is one too many, if it still is.
#[derive(Debug, Clone, Copy)]
pub struct EndSurplus;

/// The subscriptions of a tenant that pays twice, or can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    /// Whose.
    pub tenant: TenantId,
    /// The one that counts.
    pub kept: Option<SubscriptionRef>,
    /// Those that are too many.
    pub surplus: Vec<SubscriptionRef>,
}

impl Surplus {
    /// The surplus of what the provider has of the scope's tenant; `None` when there is none.
    pub(crate) fn of(cx: &Cx, fetched: &FetchedAccount) -> Option<Self> {
        let surplus: Vec<_> = fetched.surplus().into_iter().map(|one| one.id.clone()).collect();
        let found = Self {
            tenant: cx.scope().tenant(),
            kept: fetched.kept().map(|one| one.id.clone()),
            surplus,
        };
        Some(found).filter(|found| !found.surplus.is_empty())
    }
}

/// The subscriptions that the provider has now.
pub(crate) async fn fetched(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
) -> Result<FetchedAccount, SyncError> {
    let subscriptions = match &account.customer {
        Some(customer) => subscriptions_of(payments, customer).await?,
        None => Vec::new(),
    };
    Ok(FetchedAccount {
        number: account.fetches,
        at: cx.now(),
        subscriptions,
        invoices: Vec::new(),
        has_no_checkout: false,
    })
}

/// What still runs or can be paid for our catalogue of customers that the tenant was before; nothing while the provider does not have the
/// present customer.
pub(crate) async fn running_of_former(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
) -> Result<Vec<ProviderSubscription>, SyncError> {
    let because = SystemScope::because("look for subscriptions of a tenant's former customers");
    let known = cx.ports().customers.known(because, cx.scope().tenant()).await?;
    let former = known.map(|known| known.former).unwrap_or_default();
    let mut running = Vec::new();
    for customer in former
        .iter()
        .filter(|former| Some(*former) != account.customer.as_ref())
    {
        let all = subscriptions_of(payments, customer).await?.into_iter();
        running.extend(all.filter(ProviderSubscription::is_payable));
    }
    if running.is_empty() {
        return Ok(running);
    }
    let is_there = match &account.customer {
        Some(customer) => payments.has_customer(customer).await?,
        None => false,
    };
    Ok(if is_there { running } else { Vec::new() })
}

/// The subscriptions of a customer; none of one that the provider does not have.
async fn subscriptions_of(
    payments: &dyn PaymentProvider,
    customer: &CustomerRef,
) -> Result<Vec<ProviderSubscription>, ProviderError> {
    match payments.subscriptions_of(customer).await {
        Err(ProviderError::NotFound(_)) => Ok(Vec::new()),
        answer => answer,
    }
}
