//! A tenant becomes a customer of the payment provider: after it is there, by a job, so that a provider that is away keeps
//! nobody from signing up. And it stops being one when it is deleted.
//!
//! Nobody is left behind on either side. That there may be a customer is noted before one is made; a customer that was
//! made although its answer was lost is found again by the key of the call and by the tenant's id, which it carries.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};
use tenantry_domain::billing::{
    BillingAccount, CustomerRef, KnownCustomer, NewCustomer, NewSubscription, Offer, PaymentProvider,
    ProviderError, ProviderKey, ProviderSubscription,
};
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{BillingAccountId, Interval, Permission, StoreError, SystemScope, TenantId};
use tenantry_domain::plans::PlanTerms;
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Capability;
use tenantry_tenancy::billing::Subscriptions;
use tenantry_tenancy::carries_store_error;
use tenantry_tenancy::operations::job::{
    self, JobError, JobFailure, JobHandler, Nothing, SystemJobHandler, Terms, store_error,
};
use tenantry_tenancy::{Cx, Tenancy};

use crate::billing::SEATS;
use crate::billing::billing_contact::{self, first_admin};
use crate::billing::billing_sync::sync;
use crate::plans::seats;

/// Why the tenant is no customer.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The tenant was deleted meanwhile; what was made for it is removed.
    #[error("the tenant has been deleted")]
    Gone,
    /// The provider did not do it.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(ProvisionError);

impl From<ProvisionError> for JobFailure {
    fn from(error: ProvisionError) -> Self {
        match error {
            ProvisionError::Gone => Self::Permanent(error.to_string()),
            ProvisionError::Provider(error) => error.into(),
            ProvisionError::Store(error) => Self::Store(error),
        }
    }
}

/// Makes the tenant a customer, with a subscription when its plan has a price.
#[derive(Debug, Clone, Copy)]
pub struct Provision;

/// What was signed up for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUpFor {
    /// The plan by name.
    pub plan: String,
}

impl JobHandler for Provision {
    const KIND: &'static str = "billing.provision";
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = 100;
    type Payload = SignedUpFor;

    async fn run(&self, cx: &Cx, payload: SignedUpFor) -> Result<(), JobFailure> {
        cx.require(Permission::OperateBilling)?;
        let Some(payments) = cx.ports().payments.clone() else {
            return Ok(());
        };
        let (account, customer) = customer(cx, payments.as_ref()).await?;
        if let Some(terms) = cx.ports().plans.current(&payload.plan) {
            subscribe(cx, payments.as_ref(), (&account, customer), &terms).await?;
        }
        sync(cx, payments.as_ref()).await?;
        Ok(())
    }
}

/// Answers sign-up's questions by the payment provider: [`Subscriptions`].
#[derive(Debug, Clone, Copy)]
pub struct PaidSubscriptions;

#[async_trait]
impl Subscriptions for PaidSubscriptions {
    fn takes_payments(&self, cx: &Cx) -> bool {
        cx.ports().payments.is_some()
    }

    async fn provision(&self, cx: &Cx, work: &mut Work, plan: &str) -> Result<(), StoreError> {
        if !self.takes_payments(cx) {
            return Ok(());
        }
        let wanted = SignedUpFor {
            plan: plan.to_owned(),
        };
        let asked = job::enqueue::<Provision>(cx, work, &wanted, Terms::default()).await;
        asked.map(|_| ()).map_err(store_error)
    }

    async fn remove(&self, app: &Tenancy, because: SystemScope, tenant: TenantId) -> Result<(), StoreError> {
        let Some(payments) = &app.ports.payments else {
            return Ok(());
        };
        match app.ports.customers.known(because, tenant).await? {
            Some(known) => {
                let removed = remove(app, because, payments.as_ref(), &known).await;
                removed.map_err(|error| match error {
                    ProvisionError::Store(error) => error,
                    ProvisionError::Gone | ProvisionError::Provider(_) => {
                        StoreError::Unavailable(error.to_string())
                    }
                })
            }
            None => Ok(()),
        }
    }

    async fn erase_addresses(&self, cx: &Cx, addresses: &[Email]) -> Result<bool, StoreError> {
        billing_contact::erase(cx, addresses).await
    }
}

/// Asks for [`Provision`] in a tenant that is there already: where everything at the provider begins anew.
///
/// # Errors
/// [`ProvisionError`].
pub async fn again(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: TenantId,
    wanted: &SignedUpFor,
) -> Result<(), ProvisionError> {
    let cx = Cx::enter(app, because, tenant)
        .await?
        .ok_or(ProvisionError::Gone)?;
    let asked = cx.write(async |work| job::enqueue::<Provision>(&cx, work, wanted, Terms::default()).await);
    match asked.await {
        Ok(_) => Ok(()),
        Err(JobError::Store(error)) => Err(error.into()),
        Err(other) => Err(StoreError::Other(other.to_string()).into()),
    }
}

/// The scope's tenant as a customer, made where there is none. Two at once make one.
///
/// # Errors
/// [`ProvisionError`].
pub async fn customer(
    cx: &Cx,
    payments: &dyn PaymentProvider,
) -> Result<(BillingAccount, CustomerRef), ProvisionError> {
    let (account, new) = cx.write(async |work| begin(cx, work).await).await?;
    if let Some(customer) = account.customer.clone() {
        return Ok((account, customer));
    }
    let because = SystemScope::because("a tenant becomes a customer of the payment provider");
    let customers = &cx.ports().customers;
    customers.expect(because, new.tenant, cx.now()).await?;
    let bound = customers.known(because, new.tenant).await?;
    let made = match bound.and_then(|known| known.customer) {
        Some(customer) => customer,
        None => {
            let key = ProviderKey::of("customer", account.id.uuid());
            find_or_create(cx, payments, &key, &new).await?
        }
    };
    let customer = customers.bind(because, new.tenant, &made).await?;
    let stored = cx
        .write(async |work| {
            let tenant = work.tenants().current_for_update().await?;
            if !tenant.is_some_and(|tenant| tenant.status.allows(Capability::Billing)) {
                return Err(ProvisionError::Gone);
            }
            let missing = || StoreError::Other("the billing account is gone".into());
            let mut account = work.billing().current_for_update().await?.ok_or_else(missing)?;
            account.customer = Some(customer.clone());
            account.updated_at = cx.now();
            work.billing().update(&account).await?;
            Ok(account)
        })
        .await;
    if matches!(stored, Err(ProvisionError::Gone)) {
        remove_own(cx, payments).await?;
    }
    Ok((stored?, customer))
}

/// The customer that was made for a tenant under this key, or else before; one is made where there is none.
pub(crate) async fn find_or_create(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    key: &ProviderKey,
    new: &NewCustomer,
) -> Result<CustomerRef, ProvisionError> {
    match unbound(cx.app(), payments, new.tenant).await?.into_iter().next() {
        Some(customer) => Ok(customer),
        None => Ok(payments.create_customer(key, new).await?),
    }
}

/// The customers that were made for a tenant, as the provider's search has them, and that are no other tenant's. A search
/// goes by what can be edited there, and by what was there when it was last indexed.
async fn unbound(
    app: &Tenancy,
    payments: &dyn PaymentProvider,
    tenant: TenantId,
) -> Result<Vec<CustomerRef>, ProvisionError> {
    let because = SystemScope::because("a customer of the payment provider is searched for");
    let mut unbound = Vec::new();
    for customer in payments.customers_of(tenant).await? {
        let now = payments.customer(&customer).await?;
        let is_labeled = now.is_some_and(|now| now.label == Some(tenant));
        let bound = app.ports.customers.tenant_of(because, &customer).await?;
        if is_labeled && bound.is_none_or(|bound| bound == tenant) {
            unbound.push(customer);
        }
    }
    Ok(unbound)
}

/// The account of a tenant that is there, and what the provider is to know of it.
pub(crate) async fn begin(cx: &Cx, work: &mut Work) -> Result<(BillingAccount, NewCustomer), ProvisionError> {
    let tenant = work.tenants().current().await?;
    let tenant = tenant.filter(|tenant| tenant.status.allows(Capability::Billing));
    let tenant = tenant.ok_or(ProvisionError::Gone)?;
    let account = BillingAccount::new(BillingAccountId::next(cx.ids()), cx.now());
    work.billing().insert_unless_there(&account).await?;
    let there = work.billing().current_for_update().await?;
    let account = there.ok_or_else(|| StoreError::Other("the billing account is gone".into()))?;
    let new = NewCustomer {
        tenant: tenant.id,
        email: first_admin(work).await?,
        name: tenant.name,
    };
    Ok((account, new))
}

/// Subscribes a customer that never had a subscription of ours to a plan that has a price: for a month at a time, with the plan's
/// trial. Without a trial nothing is granted before it is paid.
async fn subscribe(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    (account, customer): (&BillingAccount, CustomerRef),
    terms: &PlanTerms,
) -> Result<(), ProvisionError> {
    let Some(offer) = first_offer(terms) else {
        return Ok(());
    };
    let before = payments.subscriptions_of(&customer).await?;
    if before.iter().any(ProviderSubscription::is_ours) {
        return Ok(());
    }
    let seats = cx.read(async |work| seats::in_use(cx, work).await).await?;
    let new = NewSubscription {
        customer,
        tenant: cx.scope().tenant(),
        offer,
        seats: seats_for(seats),
        trial_days: terms.trial_days,
        automatic_tax: cx.app().policy.billing.automatic_tax,
    };
    payments
        .create_subscription(&ProviderKey::of("subscription", account.id.uuid()), &new)
        .await?;
    Ok(())
}

/// As many seats as there are active users: at least one, and at most what can be bought.
pub(crate) fn seats_for(users: u64) -> u32 {
    u32::try_from(users).unwrap_or(SEATS).clamp(1, SEATS)
}

/// The first price of a plan that is for a month, else the first of all.
fn first_offer(terms: &PlanTerms) -> Option<Offer> {
    let prices = &terms.prices;
    let monthly = prices.iter().find(|price| price.interval == Interval::Month);
    monthly.or_else(|| prices.first()).map(|price| Offer {
        plan: terms.name.clone(),
        version: terms.version,
        currency: price.currency.clone(),
        interval: price.interval,
    })
}

/// [`remove`] for the scope's tenant, which was deleted meanwhile.
pub(crate) async fn remove_own(cx: &Cx, payments: &dyn PaymentProvider) -> Result<(), ProvisionError> {
    let because = SystemScope::because("a tenant was deleted while it became a customer");
    let known = cx.ports().customers.known(because, cx.scope().tenant()).await?;
    match known {
        Some(known) => remove(cx.app(), because, payments, &known).await,
        None => Ok(()),
    }
}

/// After how long the provider's search is sure to find a customer that was made without us hearing of it.
const SEARCHABLE: Duration = Duration::days(1);

/// Makes sure that the provider has no customer for a deleted tenant: by the references that are stored. Only where an
/// answer of the provider is missing it is asked to search, which finds a customer that was made just now a while later.
async fn remove(
    app: &Tenancy,
    because: SystemScope,
    payments: &dyn PaymentProvider,
    known: &KnownCustomer,
) -> Result<(), ProvisionError> {
    let mut made: Vec<CustomerRef> = known.former.iter().chain(&known.customer).cloned().collect();
    let now = app.ports.clock.now();
    if known.customer.is_none() {
        made.extend(unbound(app, payments, known.tenant).await?);
        if made.is_empty() && now - known.expected_at < SEARCHABLE {
            return Ok(());
        }
    }
    let mut failed = None;
    for customer in &made {
        // A customer that cannot be removed does not keep the others, which would go on paying.
        failed = failed.or(remove_customer(payments, customer).await.err());
    }
    if let Some(first) = failed {
        return Err(first.into());
    }
    app.ports.customers.removed(because, known.tenant, now).await?;
    Ok(())
}

/// Deletes a customer at the provider, unless it has a subscription for something else.
async fn remove_customer(
    payments: &dyn PaymentProvider,
    customer: &CustomerRef,
) -> Result<(), ProviderError> {
    end_ours(payments, customer).await?;
    payments.delete_customer(customer).await
}

/// Ends what a customer has of ours where it has something else beside it: that would end with the customer, so an operator
/// has to decide.
async fn end_ours(payments: &dyn PaymentProvider, customer: &CustomerRef) -> Result<(), ProviderError> {
    let running = match payments.subscriptions_of(customer).await {
        Err(ProviderError::NotFound(_)) => return Ok(()),
        answer => answer?,
    };
    let running: Vec<_> = running.iter().filter(|one| one.grants()).collect();
    let Some(foreign) = running.iter().find(|one| !one.is_ours()) else {
        return Ok(());
    };
    let mut failed = None;
    for ours in running.iter().filter(|one| one.is_ours()) {
        let key = ProviderKey::digest(&[&"removed", &ours.id]);
        failed = failed.or(payments.end_subscription(&key, &ours.id).await.err());
    }
    Err(failed.unwrap_or_else(|| {
        ProviderError::Refused(format!(
            "{customer} has the subscription {} for something else; end that, or delete the customer there",
            foreign.id
        ))
    }))
}

/// Removes the customers of tenants that were deleted, so that nobody goes on paying. One that cannot be removed keeps no
/// other from being removed; the job fails in the end, and all of them are tried again.
#[derive(Debug, Clone, Copy)]
pub struct RemoveLeftBehind;

/// How many deleted tenants are read at a time.
const LEFT_BEHIND: u32 = 500;

impl SystemJobHandler for RemoveLeftBehind {
    const KIND: &'static str = "billing.remove_left_behind";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let Some(payments) = &app.ports.payments else {
            return Ok(());
        };
        let (mut after, mut failed, mut reason) = (None, 0_u32, None);
        loop {
            let some = app
                .ports
                .customers
                .left_behind(because, after, LEFT_BEHIND)
                .await?;
            let Some(last) = some.last() else { break };
            after = Some(last.tenant);
            for known in &some {
                // One that was restored since it was listed goes on paying.
                let tenant = app.ports.tenant_rows.tenant(because, known.tenant).await?;
                if tenant.is_some_and(|tenant| tenant.status.allows(Capability::Billing)) {
                    continue;
                }
                if let Err(error) = remove(app, because, payments.as_ref(), known).await {
                    let tenant = known.tenant;
                    tracing::warn!(%tenant, %error, "the customer of a deleted tenant cannot be removed");
                    failed += 1;
                    reason.get_or_insert_with(|| format!("{tenant}: {error}"));
                }
            }
        }
        match reason {
            None => Ok(()),
            Some(first) => Err(JobFailure::Retry(format!(
                "{failed} customers of deleted tenants cannot be removed; {first}"
            ))),
        }
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::hours(1), Nothing {}))
    }
}
