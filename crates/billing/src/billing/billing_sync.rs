//! What the payment provider has of a tenant is taken over here: asked for as a whole, never pieced together from what it
//! tells of. So it makes no difference which of its messages arrive, how often and in which order.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::billing::{
    BillingAccount, CustomerRef, Dunning, DunningNotice, DunningState, DunningStep, DunningTerms,
    FetchedAccount, Invoice, InvoiceRef, Notice, OpenInvoice, PaymentProvider, PlanStep, ProviderError,
    ProviderInvoice, ProviderSubscription,
};
use tenantry_domain::kernel::{InvoiceId, Permission, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{StatusChange, Tenant, TenantStatus, UNPAID};
use tenantry_tenancy::operations::job::{self, JobError, JobFailure, JobHandler, Nothing, Terms};
use tenantry_tenancy::operations::mail::{SendFarewell, SendMail, tell_admins};
use tenantry_tenancy::{Cx, Tenancy};

use crate::billing::subscription_completion::{self, complete};
use crate::billing::sync_error::SyncError;
use crate::billing::{billing_surplus, meter_report};
use crate::usage::quota;

/// How many of the newest invoices are looked at. One that is older and still open is no longer seen.
pub(crate) const INVOICES: u8 = 100;

/// Asks the provider for all that it has of the scope's tenant, and takes it over: subscription, invoices, the tenant's
/// plan, and dunning. Gives the account as it is then; `None` while the tenant is no customer.
///
/// The provider is asked outside of any transaction. Each time of asking has a number, and an answer is dropped when one
/// that was asked for later is in already; clocks play no part in it.
///
/// # Errors
/// [`SyncError`].
pub async fn sync(cx: &Cx, payments: &dyn PaymentProvider) -> Result<Option<BillingAccount>, SyncError> {
    let Some(account) = begin_fetch(cx).await? else {
        return Ok(None);
    };
    let Some(customer) = &account.customer else {
        return Ok(None);
    };
    let at = cx.now();
    // Before the subscriptions: of a checkout that is paid meanwhile there is one.
    let has_no_checkout = match &account.checkout {
        Some(_) => {
            let open = unless_gone(payments.open_checkouts(customer).await)?;
            open.iter().all(|one| one.terms.is_none())
        }
        None => false,
    };
    let fetched = FetchedAccount {
        number: account.fetches,
        at,
        subscriptions: subscriptions(payments, &account, customer).await?,
        invoices: unless_gone(payments.invoices_of(customer, INVOICES).await)?,
        has_no_checkout,
    };
    know_plan(cx, &fetched).await?;
    apply(cx, payments, &fetched).await
}

/// Begins a fetch of the provider's state. Returns the account with the number of the fetch; `None` when there is none.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn begin_fetch(cx: &Cx) -> Result<Option<BillingAccount>, StoreError> {
    cx.write(async |work| {
        let Some(mut account) = work.billing().current_for_update().await? else {
            return Ok(None);
        };
        account.begin_fetch();
        work.billing().update(&account).await?;
        Ok(Some(account))
    })
    .await
}

/// [`sync`] of a tenant, for the system; nothing of one that is deleted.
///
/// # Errors
/// [`SyncError`].
pub async fn sync_of(app: &Arc<Tenancy>, because: SystemScope, tenant: TenantId) -> Result<(), SyncError> {
    let Some(payments) = &app.ports.payments else {
        return Ok(());
    };
    if let Some(cx) = Cx::enter(app, because, tenant).await? {
        sync(&cx, payments.as_ref()).await?;
    }
    Ok(())
}

/// The subscriptions of a customer; of one that the provider no longer has, the one that we know.
async fn subscriptions(
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
    customer: &CustomerRef,
) -> Result<Vec<ProviderSubscription>, ProviderError> {
    match payments.subscriptions_of(customer).await {
        Err(ProviderError::NotFound(_)) => {
            let Some(known) = &account.subscription else {
                return Ok(Vec::new());
            };
            Ok(payments.subscription(&known.id).await?.into_iter().collect())
        }
        answer => answer,
    }
}

fn unless_gone<T>(answer: Result<Vec<T>, ProviderError>) -> Result<Vec<T>, ProviderError> {
    match answer {
        Err(ProviderError::NotFound(_)) => Ok(Vec::new()),
        answer => answer,
    }
}

/// Reads the versions of plans again when the subscription that counts is for one that is not known: another server has
/// just put it on sale, and what is decided now is not decided again.
async fn know_plan(cx: &Cx, fetched: &FetchedAccount) -> Result<(), StoreError> {
    let plans = &cx.ports().plans;
    let offer = fetched.kept().and_then(|kept| kept.offer.as_ref());
    match offer.filter(|offer| !plans.knows(&offer.plan, offer.version)) {
        Some(_) => plans.refresh(cx.now()).await,
        None => Ok(()),
    }
}

async fn apply(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    fetched: &FetchedAccount,
) -> Result<Option<BillingAccount>, SyncError> {
    cx.write(async |work| {
        // Always the tenant before its account, so that no two wait for each other.
        let tenant = work.tenants().current_for_update().await?;
        let account = work.billing().current_for_update().await?;
        let (Some(tenant_before), Some(before)) = (tenant, account) else {
            return Ok(None);
        };
        let (mut tenant, mut account) = (tenant_before.clone(), before.clone());
        let Some(step) = account.absorb(fetched) else {
            return Ok(Some(account));
        };
        mirror(cx, work, &fetched.invoices).await?;
        billing_surplus::end(cx, work, &account, fetched).await?;
        follow(cx, &mut tenant, &step);
        if matches!(step, PlanStep::Grant(_)) {
            complete(cx, work, &account).await?;
        }
        if ended_at(&before) != ended_at(&account) {
            meter_report::publish_soon(cx, work).await?;
        }
        let now = payments.now(cx.now());
        remind(cx, work, (&mut account, &mut tenant), (fetched, now)).await?;
        if account.subscription != before.subscription || account.dunning != before.dunning {
            account.version += 1;
            account.updated_at = cx.now();
            let told = |account: &BillingAccount| summary(account);
            let (was, is) = (told(&before), told(&account));
            let event = cx.changed(
                "billing.changed",
                "billing_account",
                account.id.uuid(),
                Some(&was),
                Some(&is),
            );
            work.audit().record(event).await?;
        }
        work.billing().update(&account).await?;
        if tenant != tenant_before {
            work.tenants().update(&tenant).await?;
            quota::count_from_ledger(cx, work, &tenant_before, &tenant).await?;
            let event = cx.changed(
                action(&tenant_before, &tenant),
                "tenant",
                tenant.id.uuid(),
                Some(&tenant_before),
                Some(&tenant),
            );
            work.audit().record(event).await?;
        }
        Ok(Some(account))
    })
    .await
}

fn ended_at(account: &BillingAccount) -> Option<Time> {
    account.subscription.as_ref().and_then(|one| one.ended_at)
}

/// What the audit log says of an account.
fn summary(account: &BillingAccount) -> serde_json::Value {
    let subscription = account.subscription.as_ref();
    json!({
        "status": subscription.map(|one| one.status.as_str()),
        "offer": subscription.and_then(|one| one.offer.as_ref()),
        "seats": subscription.map(|one| one.seats),
        "cancel_at_period_end": subscription.map(|one| one.cancel_at_period_end),
        "dunning": account.dunning.state,
    })
}

fn action(before: &Tenant, after: &Tenant) -> &'static str {
    if before.deleted_at != after.deleted_at {
        "tenant.deleted"
    } else if before.status == after.status {
        "tenant.plan_changed"
    } else if after.suspended_for_payment {
        "tenant.suspended"
    } else {
        "tenant.resumed"
    }
}

/// Stores the invoices that are new or have changed.
async fn mirror(cx: &Cx, work: &mut Work, fetched: &[ProviderInvoice]) -> Result<(), StoreError> {
    let references: Vec<InvoiceRef> = fetched.iter().map(|invoice| invoice.id.clone()).collect();
    let known = work.invoices().find_all(&references).await?;
    for mirror in fetched {
        let updated_at = cx.now();
        match known.iter().find(|invoice| invoice.mirror.id == mirror.id) {
            Some(invoice) if invoice.mirror == *mirror => {}
            Some(invoice) => {
                let invoice = Invoice {
                    id: invoice.id,
                    mirror: mirror.clone(),
                    updated_at,
                };
                work.invoices().update(&invoice).await?;
            }
            None => {
                let invoice = Invoice {
                    id: InvoiceId::next(cx.ids()),
                    mirror: mirror.clone(),
                    updated_at,
                };
                work.invoices().insert(&invoice).await?;
            }
        }
    }
    Ok(())
}

/// Puts the tenant on what was bought, or on the default plan when that is over; unless an operator has put it on
/// something else since.
pub(crate) fn follow(cx: &Cx, tenant: &mut Tenant, step: &PlanStep) {
    let plans = &cx.ports().plans;
    match step {
        PlanStep::Keep => {}
        PlanStep::Grant(offer) => {
            let terms = plans.terms(&offer.plan, offer.version);
            if terms.name != offer.plan {
                tracing::warn!(
                    plan = offer.plan,
                    "a subscription is for a plan that is not known"
                );
                return;
            }
            // The version that is paid for, also when another server has added it and this one has yet to read it.
            tenant.subscribe_to(&offer.plan, offer.version, cx.now());
        }
        PlanStep::Withdraw(offer) if tenant.plan == offer.plan => {
            if let Some(terms) = plans.current(plans.default_plan()) {
                tenant.subscribe(&terms, cx.now());
            }
        }
        PlanStep::Withdraw(_) => {}
    }
}

/// Takes the steps of dunning that are due by the provider's clock, tells of each, and sees to it that the next is taken when
/// it is.
async fn remind(
    cx: &Cx,
    work: &mut Work,
    (account, tenant): (&mut BillingAccount, &mut Tenant),
    (fetched, now): (&FetchedAccount, Time),
) -> Result<(), SyncError> {
    let before = account.dunning;
    let terms = dunning_terms(cx, account, tenant, fetched);
    let taken = account.dunning.observe(fetched.outstanding_since(), terms, now);
    for step in &taken {
        record(cx, work, account, *step).await?;
    }
    let suspended = |state| state == DunningState::Suspended;
    match (suspended(before.state), suspended(account.dunning.state)) {
        (false, true) => {
            tenant.suspend_for_payment(cx.now());
        }
        (true, false) => {
            tenant.resume_after_payment(cx.now());
        }
        (true, true) | (false, false) => {}
    }
    if let Some(step) = told(&taken, tenant) {
        let mut notice = notice(step, &account.dunning, terms, fetched);
        if step == DunningStep::Deleted {
            notice.deleted_at = Some(now);
        }
        tell(cx, work, &notice).await?;
    }
    // Whom an operator has let go on in spite of the debt is not deleted for it.
    if taken.contains(&DunningStep::Deleted) && tenant.suspended_for_payment {
        let purge_at = cx.app().policy.purge_at(cx.now());
        let deleted = tenant.delete(StatusChange::of_system(UNPAID), cx.now(), purge_at);
        return deleted.map_err(|refused| StoreError::Other(refused.to_string()).into());
    }
    if let Some(next_at) = account.dunning.next_at {
        let terms = Terms {
            run_at: Some(cx.now() + (next_at - now)),
            dedupe_key: Some(format!("dunning {}", next_at.timestamp())),
            ..Terms::default()
        };
        job::enqueue::<Sync>(cx, work, &Nothing {}, terms).await?;
    }
    Ok(())
}

/// The grace of a debt that begins now: that of the plan whose invoice is open, which need not be the tenant's present one.
/// [`Dunning::suspends_at`] keeps what follows from it for as long as the debt lasts.
fn dunning_terms(
    cx: &Cx,
    account: &BillingAccount,
    tenant: &Tenant,
    fetched: &FetchedAccount,
) -> DunningTerms {
    let present = || account.subscription.as_ref().and_then(|one| one.offer.as_ref());
    let offer = fetched.outstanding_for().or_else(present);
    let plan = offer.map_or((tenant.plan.as_str(), tenant.plan_version), |offer| {
        (offer.plan.as_str(), offer.version)
    });
    DunningTerms {
        grace_days: cx.ports().plans.terms(plan.0, plan.1).grace_days,
        delete_after_days: cx.app().policy.billing.delete_after_days,
    }
}

/// Which of the steps that were taken at once people are told of by mail: the last, as what came before it is
/// past. A step that an operator's word has kept from taking effect is not told.
fn told(taken: &[DunningStep], tenant: &Tenant) -> Option<DunningStep> {
    let takes_effect = |step: &&DunningStep| match step {
        DunningStep::PaymentFailed | DunningStep::Recovered => true,
        DunningStep::SuspensionAhead => tenant.status == TenantStatus::Active,
        DunningStep::Suspended | DunningStep::DeletionAhead | DunningStep::Deleted => {
            tenant.suspended_for_payment
        }
    };
    taken.iter().rev().find(takes_effect).copied()
}

/// What is told of a step.
fn notice(
    step: DunningStep,
    dunning: &Dunning,
    terms: DunningTerms,
    fetched: &FetchedAccount,
) -> DunningNotice {
    let timetable = dunning.timetable(terms);
    let when = |step| {
        timetable
            .iter()
            .find(|(_, other)| *other == step)
            .map(|(at, _)| *at)
    };
    DunningNotice {
        step,
        open_invoices: fetched.outstanding().into_iter().map(OpenInvoice::from).collect(),
        suspended_at: when(DunningStep::Suspended),
        deleted_at: when(DunningStep::Deleted),
    }
}

/// Tells the admins by mail. Of the deletion they are told when there is no tenant any more that a job could
/// run in.
async fn tell(cx: &Cx, work: &mut Work, notice: &DunningNotice) -> Result<(), JobError> {
    let told = Notice::Dunning(notice.clone());
    match notice.step {
        DunningStep::Deleted => tell_admins::<SendFarewell>(cx, work, &told).await,
        DunningStep::PaymentFailed
        | DunningStep::SuspensionAhead
        | DunningStep::Suspended
        | DunningStep::DeletionAhead
        | DunningStep::Recovered => tell_admins::<SendMail>(cx, work, &told).await,
    }
}

/// Tells of a step in the audit log.
async fn record(
    cx: &Cx,
    work: &mut Work,
    account: &BillingAccount,
    step: DunningStep,
) -> Result<(), StoreError> {
    let details = json!({"failed_at": account.dunning.failed_at, "next_at": account.dunning.next_at});
    let event = cx.changed(
        step.notice(),
        "billing_account",
        account.id.uuid(),
        None,
        Some(&details),
    );
    work.audit().record(event).await
}

/// Does what should have been done: [`sync`] where a step of dunning is overdue, since its own job may have been given up
/// while the provider was away for long, asks for what a subscription lacks, and ends what former customers still pay for.
///
/// # Errors
/// [`SyncError`].
pub async fn catch_up(cx: &Cx, payments: &dyn PaymentProvider) -> Result<(), SyncError> {
    let account = cx.read(async |work| work.billing().current().await).await?;
    let Some(account) = account else { return Ok(()) };
    let now = payments.now(cx.now());
    if account.dunning.next_at.is_some_and(|due| due <= now) {
        sync(cx, payments).await?;
    }
    billing_surplus::end_former(cx, payments, &account).await?;
    if subscription_completion::lacking(cx, &account).is_some() {
        cx.write(async |work| complete(cx, work, &account).await).await?;
    }
    Ok(())
}

/// Asks the provider how things are and takes that over. It is what happens when a step of dunning is due, too: nobody is
/// suspended on stale knowledge, so while the provider cannot be reached the step waits.
#[derive(Debug, Clone, Copy)]
pub struct Sync;

impl JobHandler for Sync {
    const KIND: &'static str = "billing.sync";
    // A suspended tenant is followed too, or paying would not lift that.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = 100;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::OperateBilling)?;
        if let Some(payments) = &cx.ports().payments {
            sync(cx, payments.as_ref()).await?;
        }
        Ok(())
    }
}
