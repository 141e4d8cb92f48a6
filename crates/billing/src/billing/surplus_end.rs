//! The end of surplus subscriptions, by a job.

use serde_json::json;
use tenantry_domain::billing::{
    BillingAccount, PaymentProvider, ProviderError, ProviderKey, ProviderSubscription, SubscriptionRef,
};
use tenantry_domain::kernel::Permission;
use tenantry_domain::operations::Enqueued;
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::job::{self, JobError, JobFailure, JobHandler, Nothing, Terms};
use uuid::Uuid;

use crate::billing::billing_surplus::{EndSurplus, Found, fetched, record, running_of_former};
use crate::billing::billing_sync::{Sync, sync};
use crate::billing::sync_error::SyncError;

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
        let surplus = surplus(cx, payments.as_ref(), &account, &payload.subscription).await?;
        let ended_by = if let Some(surplus) = surplus {
            let ended = end_now(payments.as_ref(), payload.id, &surplus).await?;
            ended.has_ended().then_some("server")
        } else {
            // The customer has ended it, or an earlier attempt whose answer was lost.
            let now = payments.subscription(&payload.subscription).await?;
            now.is_some_and(|now| now.has_ended()).then_some("unknown")
        };
        match ended_by {
            Some(by) => record_end(cx, &account, &payload.subscription, by).await?,
            None => {
                sync(cx, payments.as_ref()).await?;
            }
        }
        Ok(())
    }
}

/// Ends a subscription, or withdraws it while it awaits its first payment. One that is paid at this moment has begun.
async fn end_now(
    payments: &dyn PaymentProvider,
    id: Uuid,
    surplus: &ProviderSubscription,
) -> Result<ProviderSubscription, ProviderError> {
    if surplus.awaits_payment() {
        let key = ProviderKey::of("withdrawn", id);
        let withdrawn = payments.withdraw_subscription(&key, &surplus.id).await?;
        if !withdrawn.grants() {
            return Ok(withdrawn);
        }
    }
    let key = ProviderKey::of("surplus", id);
    payments.end_subscription(&key, &surplus.id).await
}

/// Records the end of a subscription. The account is fetched by a job of its own, which is stored with the record: when that
/// fails, only the fetch is tried again, and while it is open a second attempt to end the subscription records nothing.
/// Fetches that began before the end are discarded, since they would find the same surplus once more.
async fn record_end(
    cx: &Cx,
    account: &BillingAccount,
    subscription: &SubscriptionRef,
    by: &str,
) -> Result<(), JobError> {
    let details = json!({"subscription": subscription, "ended_by": by});
    cx.write(async |work| {
        if let Some(mut account) = work.billing().current_for_update().await? {
            account.discard_fetches();
            work.billing().update(&account).await?;
        }
        let terms = Terms {
            dedupe_key: Some(format!("surplus {subscription}")),
            ..Terms::default()
        };
        if job::enqueue::<Sync>(cx, work, &Nothing {}, terms).await? == Enqueued::Added {
            record(cx, work, account, "billing.surplus_ended", details.clone()).await?;
        }
        Ok(())
    })
    .await
}

/// A subscription as the provider has it, if it is one too many now.
async fn surplus(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
    subscription: &SubscriptionRef,
) -> Result<Option<ProviderSubscription>, SyncError> {
    let fetched = fetched(cx, payments, account).await?;
    let mut surplus = fetched.surplus().into_iter();
    if let Some(one) = surplus.find(|one| one.id == *subscription) {
        return Ok(Some(one.clone()));
    }
    let mut former = running_of_former(cx, payments, account).await?.into_iter();
    Ok(former.find(|one| one.id == *subscription))
}
