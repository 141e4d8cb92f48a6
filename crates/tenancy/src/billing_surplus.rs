//! A tenant has one subscription. When the provider has another one that grants something as well, because two checkouts were
//! paid or one was while the first subscription was made, the tenant pays twice. The surplus ends at once, what was paid for
//! the rest of its period is credited, and it is on record: in the audit log, the log, and the drift report while it lasts.
//!
//! Which one is kept is a rule of [`FetchedAccount`], the same for every server that looks.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::{
    BillingAccount, Enqueued, FetchedAccount, PaymentProvider, Permission, ProviderError, ProviderKey,
    StoreError, SubscriptionRef, TenantId, Work,
};
use uuid::Uuid;

use crate::Cx;
use crate::billing_sync::{SyncError, sync};
use crate::job::{self, JobError, JobFailure, JobHandler, Terms};

/// A subscription that was found beside the one that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its id here; the key of the call to the provider is made of it.
    pub id: Uuid,
    /// The subscription.
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
        let found = Found {
            id: cx.ids().uuid(),
            subscription: one.id.clone(),
        };
        let terms = Terms {
            dedupe_key: Some(format!("surplus {}", one.id)),
            ..Terms::default()
        };
        if job::enqueue::<EndSurplus>(cx, work, &found, terms).await? == Enqueued::Duplicate {
            continue;
        }
        let (tenant, subscription) = (cx.scope().tenant(), &one.id);
        tracing::warn!(%tenant, %subscription, "a tenant has two subscriptions; the surplus one is ended");
        let kept = account.subscription.as_ref().map(|kept| &kept.id);
        let details = json!({"subscription": one.id, "kept": kept, "offer": one.offer, "seats": one.seats});
        let id = account.id.uuid();
        let event = cx.changed(
            "billing.surplus_found",
            "billing_account",
            id,
            None,
            Some(&details),
        );
        work.audit().record(event).await?;
    }
    Ok(())
}

/// Ends a subscription that is one too many, if it still is.
#[derive(Debug, Clone, Copy)]
pub struct EndSurplus;

impl JobHandler for EndSurplus {
    const KIND: &'static str = "billing.end_surplus";
    // A suspended tenant does not pay twice either.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = 100;
    type Payload = Found;

    async fn run(&self, cx: &Cx, payload: Found) -> Result<(), JobFailure> {
        cx.require(Permission::OperateBilling)?;
        let Some(payments) = cx.ports().payments.clone() else {
            return Err(JobFailure::Retry("payments are not set up".into()));
        };
        let account = cx.read(async |work| work.billing().current().await).await?;
        let Some(account) = account else { return Ok(()) };
        let fetched = fetched(cx, payments.as_ref(), &account).await?;
        let is_surplus = fetched.surplus().iter().any(|one| one.id == payload.subscription);
        if is_surplus {
            let key = ProviderKey::of("surplus", payload.id);
            payments.end_subscription(&key, &payload.subscription).await?;
            let details = json!({"subscription": payload.subscription});
            record(cx, &account, details).await?;
        }
        sync(cx, payments.as_ref()).await?;
        Ok(())
    }
}

/// Puts the end of a surplus subscription into the audit log.
async fn record(cx: &Cx, account: &BillingAccount, details: serde_json::Value) -> Result<(), StoreError> {
    cx.write(async |work| {
        let id = account.id.uuid();
        let event = cx.changed(
            "billing.surplus_ended",
            "billing_account",
            id,
            None,
            Some(&details),
        );
        work.audit().record(event).await
    })
    .await
}

/// The subscriptions of a tenant that pays twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    /// Whose.
    pub tenant: TenantId,
    /// The one that counts.
    pub kept: Option<SubscriptionRef>,
    /// Those that are too many.
    pub surplus: Vec<SubscriptionRef>,
}

/// What the provider has of the scope's tenant beside the subscription that counts; `None` when nothing.
///
/// # Errors
/// [`SyncError`].
pub async fn surplus(cx: &Cx) -> Result<Option<Surplus>, SyncError> {
    let Some(payments) = cx.ports().payments.clone() else {
        return Ok(None);
    };
    let account = cx.read(async |work| work.billing().current().await).await?;
    let Some(account) = account else { return Ok(None) };
    let fetched = fetched(cx, payments.as_ref(), &account).await?;
    let surplus: Vec<_> = fetched.surplus().into_iter().map(|one| one.id.clone()).collect();
    let kept = fetched.kept().map(|one| one.id.clone());
    let found = Surplus {
        tenant: cx.scope().tenant(),
        kept,
        surplus,
    };
    Ok(Some(found).filter(|found| !found.surplus.is_empty()))
}

/// The subscriptions that the provider has now.
async fn fetched(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
) -> Result<FetchedAccount, SyncError> {
    let subscriptions = match &account.customer {
        Some(customer) => match payments.subscriptions_of(customer).await {
            Err(ProviderError::NotFound(_)) => Vec::new(),
            answer => answer?,
        },
        None => Vec::new(),
    };
    Ok(FetchedAccount {
        number: account.fetches,
        at: cx.now(),
        subscriptions,
        invoices: Vec::new(),
    })
}
