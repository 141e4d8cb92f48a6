//! What a tenant's admins do about paying: begin a subscription, change it, end it, look after cards.
//!
//! Nothing here changes what the tenant may do. The provider is asked to change something, and what it then says that is
//! so is taken over ([`billing_sync`](crate::billing::billing_sync)).

use std::sync::Arc;

use chrono::{Duration, SecondsFormat};
use serde_json::json;
use tenantry_domain::billing::{
    BillingAccount, CheckoutRef, CustomerRef, Invoice, Link, NewCheckout, NewSubscription, Offer,
    OpenCheckout, PaymentProvider, PendingCheckout, ProrationPreview, ProviderError, ProviderKey,
    ProviderSubscription, SubscriptionStatus,
};
use tenantry_domain::kernel::{
    Check, Currency, Interval, Invalid, Limit, PageRequest, Permission, StoreError, Time,
};
use tenantry_domain::operations::Enqueued;
use tenantry_domain::plans::PlanTerms;
use tenantry_domain::tenant::Refused;
use tenantry_tenancy::carries_store_error;
use tenantry_tenancy::operations::job::{self, JobError, JobFailure, JobHandler};
use tenantry_tenancy::{Cx, Precondition, Stale};
use uuid::Uuid;

use crate::billing::billing_customer;
use crate::billing::billing_provision::{ProvisionError, seats_for};
use crate::billing::billing_sync::{INVOICES, begin_fetch, sync};
pub use crate::billing::subscription_completion::Change;
use crate::billing::subscription_completion::one_change;
use crate::billing::sync_error::SyncError;
use crate::plans::entitlement;
use crate::plans::seats;
use crate::plans::{Changing, SubscriptionChange};

/// The most seats of a subscription.
pub const SEATS: u32 = 100_000;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The account has changed meanwhile.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// Nobody takes payments here.
    #[error("payments are not set up")]
    Unavailable,
    /// There is no subscription that could be changed.
    #[error("there is no running subscription")]
    NoSubscription,
    /// There is one already.
    #[error("there is a subscription already; change that one")]
    AlreadySubscribed,
    /// Another checkout was begun at the same moment, and stays.
    #[error("another checkout was begun at the same moment")]
    CheckoutUnderWay,
    /// The provider no longer has the customer.
    #[error("the payment provider no longer has the customer")]
    CustomerGone,
    /// The change before is still under way.
    #[error("another change of the subscription is under way")]
    ChangeUnderWay,
    /// The tenant is not to be made a customer.
    #[error("the tenant has been deleted")]
    Gone,
    /// The provider did not do it.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(BillingError);

impl From<ProvisionError> for BillingError {
    fn from(error: ProvisionError) -> Self {
        match error {
            ProvisionError::Gone => Self::Gone,
            ProvisionError::Provider(error) => Self::Provider(error),
            ProvisionError::Store(error) => Self::Store(error),
        }
    }
}

impl From<SyncError> for BillingError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Provider(error) => Self::Provider(error),
            SyncError::Job(error) => error.into(),
            SyncError::Store(error) => Self::Store(error),
        }
    }
}

impl From<JobError> for BillingError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Store(error) => Self::Store(error),
            other => Self::Store(StoreError::Other(other.to_string())),
        }
    }
}

/// What somebody wants to subscribe to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// A plan by name.
    pub plan: String,
    /// How long one payment lasts; as it is, or a month, when absent.
    pub interval: Option<Interval>,
    /// In which currency; as it is, or the first of the plan's prices, when absent.
    pub currency: Option<Currency>,
    /// How many seats; as it is, or one for each active user, when absent.
    pub seats: Option<u32>,
}

impl Wish {
    /// Whether it is for another number of seats of what there is now.
    fn is_about_seats(&self, now: &Offer) -> bool {
        let same_interval = self.interval.is_none_or(|interval| interval == now.interval);
        let same_currency = self.currency.as_ref().is_none_or(|it| *it == now.currency);
        self.seats.is_some() && self.plan == now.plan && same_interval && same_currency
    }
}

/// A page on which the tenant's admin subscribes and pays.
///
/// A tenant has one open checkout: asked for the same again it is the same page, and asked for something else the earlier
/// page is closed before there is another. Until it is paid, closed or expired, the tenant has no more active users than
/// the page sells seats: otherwise users could be added before paying who have no seat afterwards.
///
/// # Errors
/// [`BillingError`].
pub async fn checkout(cx: &Cx, wish: &Wish) -> Result<Link, BillingError> {
    cx.require(Permission::ManageBilling)?;
    // The payment provider must not be asked for a second page.
    cx.check_once().await?;
    let payments = payments(cx)?;
    let (offer, terms) = offer_of(cx, wish, None)?;
    let in_use = cx.read(async |work| seats::in_use(cx, work).await).await?;
    let seats = seats_of(wish, seats_for(in_use))?;
    enough(seats, in_use)?;
    let inside = cx.without_key();
    let (account, customer) = unsubscribed(&inside, payments.as_ref(), &offer, &terms).await?;
    // A trial is for those who never had a subscription.
    let trial_days = if account.subscription.is_some() {
        0
    } else {
        terms.trial_days
    };
    let automatic_tax = cx.app().policy.billing.automatic_tax;
    let terms = ProviderKey::digest(&[
        &"checkout",
        &account.id,
        &customer,
        &offer_text(&offer),
        &seats,
        &trial_days,
        &automatic_tax,
    ]);
    let back = cx.app().policy.billing.return_url.clone();
    let new = NewCheckout {
        subscription: NewSubscription {
            customer,
            tenant: cx.scope().tenant(),
            offer,
            seats,
            trial_days,
            automatic_tax,
        },
        terms,
        success_url: back.clone(),
        cancel_url: back,
    };
    let link = only_checkout(&inside, payments.as_ref(), &new).await?;
    let details = json!({"offer": new.subscription.offer, "seats": seats});
    Ok(record(cx, "billing.checkout_begun", account.id.uuid(), details, link).await?)
}

/// The account and the customer of a tenant that has no running subscription, or one on trial in whose place the offer comes
/// once it is paid. The provider is asked: what we know of one that has just begun or ended may still be under way. One that
/// awaits its first payment is withdrawn, as its invoice could be paid beside the checkout.
async fn unsubscribed(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    offer: &Offer,
    terms: &PlanTerms,
) -> Result<(BillingAccount, CustomerRef), BillingError> {
    let standing = billing_customer::ensure(cx, payments).await?;
    let mut account = sync(cx, payments).await?.unwrap_or(standing.account);
    if let Some(unpaid) = account.unpaid_subscription() {
        let key = ProviderKey::digest(&[&"withdrawn", &unpaid.id]);
        payments.withdraw_subscription(&key, &unpaid.id).await?;
        account = sync(cx, payments).await?.unwrap_or(account);
    }
    if let Some(live) = account.live_subscription() {
        if !is_sold_beside_trial(live, offer, terms) {
            return Err(BillingError::AlreadySubscribed);
        }
        outlasts_checkout(live, payments.now(cx.now()))?;
    }
    settled(cx, &account).await?;
    Ok((account, standing.customer))
}

/// Whether the offer is bought by a checkout while another plan's trial runs: it has no trial itself, so a change would grant
/// it without a payment. When it is paid, it counts before the trial, which then ends as surplus.
fn is_sold_beside_trial(live: &ProviderSubscription, offer: &Offer, terms: &PlanTerms) -> bool {
    let is_other_plan = live.offer.as_ref().map(|now| &now.plan) != Some(&offer.plan);
    live.status == SubscriptionStatus::Trialing && is_other_plan && terms.trial_days == 0
}

/// Refuses a checkout that could still be paid when the trial has ended and its first month is paid, too.
fn outlasts_checkout(trial: &ProviderSubscription, now: Time) -> Result<(), Invalid> {
    match trial.trial_ends_at {
        Some(end) if end <= now + OPEN_FOR + SETTLES => {
            let detail = format!(
                "has no trial, and the present trial ends within a day; it can be bought from {} on",
                end.to_rfc3339_opts(SecondsFormat::Secs, true)
            );
            Err(Invalid::one("/plan", "no_trial", detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses a checkout while an invoice of an ended subscription is open: the tenant would pay, and still be suspended for
/// the older invoice.
async fn settled(cx: &Cx, account: &BillingAccount) -> Result<(), BillingError> {
    if account.dunning.failed_at.is_none() {
        return Ok(());
    }
    let newest = PageRequest {
        limit: u32::from(INVOICES),
        after: None,
    };
    let invoices = cx.read(async |work| work.invoices().list(newest).await).await?;
    let is_outstanding = |one: &&Invoice| {
        one.mirror.is_outstanding() && Some(one.mirror.created_at) == account.dunning.failed_at
    };
    let owed = invoices.items.iter().find(is_outstanding).map(|one| &one.mirror);
    let name = owed.map_or_else(String::new, |it| {
        format!(" {}", it.number.as_deref().unwrap_or(it.id.as_str()))
    });
    let detail = format!(
        "cannot be bought while invoice{name} is open; pay it first, on the page that GET /api/v1/billing/invoices links to"
    );
    Err(Invalid::one("/plan", "invoice_open", detail).into())
}

/// For how long a page must still be good to be given out again.
const USABLE: Duration = Duration::minutes(10);

/// The one open checkout of a customer: the one that is there when it offers the same, else a new one after all others were
/// closed. Of two that are made at once everyone keeps the newest and closes the others, so that one stays. Its seats limit
/// users before its link is returned.
async fn only_checkout(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    new: &NewCheckout,
) -> Result<Link, BillingError> {
    let customer = &new.subscription.customer;
    let is_usable = |open: &&OpenCheckout| {
        let ends_at = open.link.expires_at;
        open.terms.as_ref() == Some(&new.terms) && ends_at.is_none_or(|at| at > cx.now() + USABLE)
    };
    let number = fetch_number(cx).await?;
    let open = payments.open_checkouts(customer).await?;
    let same: Vec<OpenCheckout> = open.iter().filter(is_usable).cloned().collect();
    let same = OpenCheckout::newest(&same);
    close_others(cx, payments, &open, same.map(|kept| &kept.id)).await?;
    if let Some(same) = same {
        return hold_seats(cx, payments, (same, number), new).await;
    }
    let key = ProviderKey::of("checkout", cx.ids().uuid());
    let made = payments.checkout(&key, new).await?;
    let number = fetch_number(cx).await?;
    let open = payments.open_checkouts(customer).await?;
    let kept = OpenCheckout::newest(&open).unwrap_or(&made);
    close_others(cx, payments, &open, Some(&kept.id)).await?;
    if kept.id == made.id || is_usable(&kept) {
        return hold_seats(cx, payments, (kept, number), new).await;
    }
    Err(BillingError::CheckoutUnderWay)
}

/// The number of a fetch that begins now: of two that find different checkouts open, the later one is right.
async fn fetch_number(cx: &Cx) -> Result<i64, BillingError> {
    let account = begin_fetch(cx).await?;
    Ok(account.ok_or(BillingError::Gone)?.fetches)
}

/// How long a checkout can be paid of which the provider does not say it.
const OPEN_FOR: Duration = Duration::days(1);

/// For how long after its expiry a payment that was begun in time may still be under way.
const SETTLES: Duration = Duration::hours(1);

/// Limits active users to the seats that a checkout sells, and returns its link. Users are counted in the same transaction,
/// under the tenant's lock, which adding one takes as well. With too many users the checkout is closed: its link was not
/// given out.
async fn hold_seats(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    (open, number): (&OpenCheckout, i64),
    new: &NewCheckout,
) -> Result<Link, BillingError> {
    let seats = new.subscription.seats;
    let ends_at = open.link.expires_at.unwrap_or(open.created_at + OPEN_FOR);
    let pending = PendingCheckout {
        seats,
        until: ends_at + SETTLES,
        number,
    };
    let held = cx
        .write(async |work| {
            work.tenants().current_for_update().await?;
            let account = work.billing().current_for_update().await?;
            let mut account = account.ok_or(BillingError::Gone)?;
            enough(seats, seats::in_use(cx, work).await?)?;
            if !account.hold_checkout(pending.clone()) {
                return Err(BillingError::CheckoutUnderWay);
            }
            account.updated_at = cx.now();
            Ok(work.billing().update(&account).await?)
        })
        .await;
    match held {
        Ok(()) => Ok(open.link.clone()),
        Err(error @ BillingError::Invalid(_)) => {
            close_others(cx, payments, std::slice::from_ref(open), None).await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Closes all checkouts but the one that is kept. When one of them was paid meanwhile, none stays open.
async fn close_others(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    open: &[OpenCheckout],
    kept: Option<&CheckoutRef>,
) -> Result<(), BillingError> {
    let mut was_paid = false;
    for other in open.iter().filter(|open| Some(&open.id) != kept) {
        was_paid |= !payments.expire_checkout(&other.id).await?;
    }
    if !was_paid {
        return Ok(());
    }
    if let Some(kept) = kept {
        payments.expire_checkout(kept).await?;
    }
    sync(cx, payments).await?;
    Err(BillingError::AlreadySubscribed)
}

/// A page on which the tenant's admin looks after cards, invoices and the subscription.
///
/// # Errors
/// [`BillingError`].
pub async fn portal(cx: &Cx) -> Result<Link, BillingError> {
    cx.require(Permission::ManageBilling)?;
    let payments = payments(cx)?;
    let standing = billing_customer::ensure(cx, payments.as_ref()).await?;
    let link = payments
        .portal(&standing.customer, &cx.app().policy.billing.return_url)
        .await?;
    Ok(record(
        cx,
        "billing.portal_opened",
        standing.account.id.uuid(),
        json!({}),
        link,
    )
    .await?)
}

/// Asks for another plan, interval or number of seats. It is done by a job, so that it is done once whatever happens; the
/// plan of the tenant changes when the provider says that it has. Fewer seats limit active users at once.
///
/// # Errors
/// [`BillingError`].
pub async fn change(cx: &Cx, when: &Precondition, wish: &Wish) -> Result<SubscriptionChange, BillingError> {
    ask(cx, when, |subscription, in_use| {
        let (offer, terms) = offer_of(cx, wish, subscription.offer.as_ref())?;
        let seats = seats_of(wish, subscription.seats)?;
        enough(seats, in_use)?;
        affordable(subscription, &offer, seats, &terms)?;
        if subscription.offer.as_ref() == Some(&offer) && subscription.seats == seats {
            let same = Invalid::one("/plan", "unchanged", "is what the subscription is for already");
            return Err(same.into());
        }
        Ok(Changing::Offer { offer, seats })
    })
    .await
}

/// Refuses a change that would grant before its payment what has no trial or follows a debt: another plan without a trial
/// while the present one's trial runs; another offer or more seats while an invoice is open. Another plan would also bring
/// its own days of grace.
fn affordable(
    subscription: &ProviderSubscription,
    offer: &Offer,
    seats: u32,
    terms: &PlanTerms,
) -> Result<(), Invalid> {
    let now = subscription.offer.as_ref();
    match subscription.status {
        SubscriptionStatus::Trialing if is_sold_beside_trial(subscription, offer, terms) => {
            let detail = "has no trial; buy it with POST /api/v1/billing/checkout, or change to it when the present trial has ended";
            Err(Invalid::one("/plan", "no_trial", detail))
        }
        SubscriptionStatus::PastDue | SubscriptionStatus::Unpaid if now != Some(offer) => {
            let detail = "cannot be changed while an invoice is open; pay it first";
            Err(Invalid::one("/plan", "invoice_open", detail))
        }
        SubscriptionStatus::PastDue | SubscriptionStatus::Unpaid if seats > subscription.seats => {
            let detail = "cannot be more while an invoice is open; pay it first";
            Err(Invalid::one("/seats", "invoice_open", detail))
        }
        SubscriptionStatus::Trialing
        | SubscriptionStatus::PastDue
        | SubscriptionStatus::Unpaid
        | SubscriptionStatus::Active
        | SubscriptionStatus::Incomplete
        | SubscriptionStatus::IncompleteExpired
        | SubscriptionStatus::Canceled
        | SubscriptionStatus::Paused
        | SubscriptionStatus::Unrecognised(_) => Ok(()),
    }
}

/// Lets the subscription end with its period, or go on after all; by a job, like [`change`].
///
/// # Errors
/// [`BillingError`].
pub async fn end_with_period(
    cx: &Cx,
    when: &Precondition,
    end: bool,
) -> Result<SubscriptionChange, BillingError> {
    ask(cx, when, |_, _| Ok(Changing::Ending(end))).await
}

async fn ask(
    cx: &Cx,
    when: &Precondition,
    what: impl Fn(&ProviderSubscription, u64) -> Result<Changing, BillingError> + std::marker::Sync,
) -> Result<SubscriptionChange, BillingError> {
    cx.require(Permission::ManageBilling)?;
    payments(cx)?;
    let what = &what;
    cx.write(async |work| {
        // Whoever adds a user holds the tenant's row too.
        work.tenants().current_for_update().await?;
        let account = work.billing().current_for_update().await?;
        let account = account.ok_or(BillingError::NoSubscription)?;
        let subscription = account.live_subscription().ok_or(BillingError::NoSubscription)?;
        when.check(account.version)?;
        let in_use = seats::in_use(cx, work).await?;
        let change = SubscriptionChange {
            id: cx.ids().uuid(),
            subscription: subscription.id.clone(),
            what: what(subscription, in_use)?,
        };
        if job::enqueue::<Change>(cx, work, &change, one_change()).await? == Enqueued::Duplicate {
            return Err(BillingError::ChangeUnderWay);
        }
        let details = json!({"change": change.what});
        let event = cx.changed(
            "billing.change_asked_for",
            "billing_account",
            account.id.uuid(),
            None,
            Some(&details),
        );
        work.audit().record(event).await?;
        Ok(change)
    })
    .await
}

impl JobHandler for Change {
    const KIND: &'static str = SubscriptionChange::KIND;
    const SCHEMA_VERSION: i32 = SubscriptionChange::SCHEMA_VERSION;
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = 20;
    type Payload = SubscriptionChange;

    async fn run(&self, cx: &Cx, payload: SubscriptionChange) -> Result<(), JobFailure> {
        cx.require(Permission::OperateBilling)?;
        let Some(payments) = cx.ports().payments.clone() else {
            return Err(JobFailure::Retry("payments are not set up".into()));
        };
        if let Some(users) = too_few(cx, &payload).await? {
            let reason = format!("{users} active users need as many seats");
            return Ok(refusal(cx, Some(reason)).await?);
        }
        let key = ProviderKey::of("change", payload.id);
        let id = &payload.subscription;
        let changed = match &payload.what {
            Changing::Offer { offer, seats } => payments.change_subscription(&key, id, offer, *seats).await,
            Changing::Ending(end) => payments.cancel_at_period_end(&key, id, *end).await,
        };
        match changed {
            Ok(_) => refusal(cx, None).await?,
            Err(error) if error.may_pass() => return Err(error.into()),
            Err(error) => refusal(cx, Some(error.to_string())).await?,
        }
        sync(cx, payments.as_ref()).await?;
        Ok(())
    }
}

/// How many active users there are, when a change leaves fewer seats than that: users may have been added while it was given
/// up, before an operator let it be tried again.
async fn too_few(cx: &Cx, change: &SubscriptionChange) -> Result<Option<u64>, StoreError> {
    let Changing::Offer { seats, .. } = change.what else {
        return Ok(None);
    };
    cx.write(async |work| {
        work.tenants().current_for_update().await?;
        let account = work.billing().current().await?;
        let paid = account.and_then(|account| account.paid_seats());
        let in_use = seats::in_use(cx, work).await?;
        let leaves_fewer = paid.is_some_and(|paid| seats < paid) && u64::from(seats) < in_use;
        Ok(leaves_fewer.then_some(in_use))
    })
    .await
}

/// Notes why the provider refused a change, for whoever asked for it.
async fn refusal(cx: &Cx, refusal: Option<String>) -> Result<(), StoreError> {
    cx.write(async |work| {
        let Some(mut account) = work.billing().current_for_update().await? else {
            return Ok(());
        };
        if account.refusal != refusal {
            account.refusal = refusal;
            account.version += 1;
            account.updated_at = cx.now();
            work.billing().update(&account).await?;
        }
        Ok(())
    })
    .await
}

/// What a change of plan would mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePreview {
    /// What it would be for.
    pub offer: Offer,
    /// With how many seats.
    pub seats: u32,
    /// Features that the tenant would have in addition.
    pub gained: Vec<String>,
    /// Features that it would no longer have.
    pub lost: Vec<String>,
    /// Limits that would be others.
    pub limits: Vec<LimitChange>,
    /// What it would cost, where there is a subscription to change.
    pub proration: Option<ProrationPreview>,
}

/// A limit that would be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitChange {
    /// Name of the limit, as the plan calls it.
    pub name: String,
    /// The limit of the present plan.
    pub now: Limit,
    /// What it would be.
    pub then: Limit,
    /// How much there is, where it is counted.
    pub used: Option<u64>,
    /// How much of that would be too much. It stays, and nothing can be added to it.
    pub over: u64,
}

/// What another plan, interval or number of seats would mean: what would be lost and gained, what there would be too much
/// of, and what it would cost.
///
/// # Errors
/// [`BillingError`].
pub async fn preview(cx: &Cx, wish: &Wish) -> Result<ChangePreview, BillingError> {
    cx.require(Permission::ReadBilling)?;
    let payments = payments(cx)?;
    let (account, in_use) = cx
        .read(async |work| {
            let account = work.billing().current().await?;
            Ok::<_, BillingError>((account, seats::in_use(cx, work).await?))
        })
        .await?;
    let subscription = account.as_ref().and_then(BillingAccount::live_subscription);
    let (offer, terms) = offer_of(cx, wish, subscription.and_then(|one| one.offer.as_ref()))?;
    let seats = seats_of(wish, subscription.map_or(seats_for(in_use), |one| one.seats))?;
    let proration = match subscription {
        Some(subscription) if !is_sold_beside_trial(subscription, &offer, &terms) => {
            let previewed = payments.preview_change(&subscription.id, &offer, seats).await;
            Some(customer_told_apart(payments.as_ref(), &subscription.customer, previewed).await?)
        }
        Some(_) | None => None,
    };
    let can = entitlement::capabilities::<BillingError>(cx).await?;
    let (now, then) = (&can.plan.features, &terms.features);
    let limit = |(name, _, used): &(String, _, Option<u64>)| {
        let (now, then) = (can.plan.limit(name), terms.limit(name));
        (now != then).then(|| LimitChange {
            name: name.clone(),
            now,
            then,
            used: *used,
            over: over(then, *used),
        })
    };
    Ok(ChangePreview {
        gained: then.difference(now).cloned().collect(),
        lost: now.difference(then).cloned().collect(),
        limits: can.limits.iter().filter_map(limit).collect(),
        offer,
        seats,
        proration,
    })
}

fn over(limit: Limit, used: Option<u64>) -> u64 {
    match limit {
        Limit::Of(most) => used.unwrap_or_default().saturating_sub(most),
        Limit::Unlimited => 0,
    }
}

/// Says of an object that the provider does not have whether it is because the customer is gone.
async fn customer_told_apart<T>(
    payments: &dyn PaymentProvider,
    customer: &CustomerRef,
    answer: Result<T, ProviderError>,
) -> Result<T, BillingError> {
    match answer {
        Err(ProviderError::NotFound(text)) => {
            if payments.has_customer(customer).await? {
                return Err(ProviderError::NotFound(text).into());
            }
            Err(BillingError::CustomerGone)
        }
        answer => Ok(answer?),
    }
}

/// Whoever takes the money.
pub(crate) fn payments(cx: &Cx) -> Result<Arc<dyn PaymentProvider>, BillingError> {
    cx.ports().payments.clone().ok_or(BillingError::Unavailable)
}

/// What of the catalogue a wish is for. What it leaves open is as it is now. Another number of seats is on the terms that were
/// bought, even if they are on offer no longer; a plan without a number of seats is the plan as it is on offer now.
fn offer_of(cx: &Cx, wish: &Wish, now: Option<&Offer>) -> Result<(Offer, Arc<PlanTerms>), Invalid> {
    let plans = &cx.ports().plans;
    if let Some(now) = now.filter(|now| wish.is_about_seats(now)) {
        let terms = plans.terms(&now.plan, now.version);
        if (&terms.name, terms.version) == (&now.plan, now.version) {
            return Ok((now.clone(), terms));
        }
    }
    let Some(terms) = plans.current(&wish.plan) else {
        let detail = format!("must be one of {}", plans.names().join(", "));
        return Err(Invalid::one("/plan", "unknown_plan", detail));
    };
    let interval = wish
        .interval
        .or(now.map(|offer| offer.interval))
        .unwrap_or(Interval::Month);
    let currency = wish.currency.as_ref().or(now.map(|offer| &offer.currency));
    let price = terms.prices.iter().find(|price| {
        price.interval == interval && currency.is_none_or(|currency| *currency == price.currency)
    });
    let Some(price) = price else {
        let detail = format!("cannot be bought by the {} in this currency", interval.as_str());
        return Err(Invalid::one("/plan", "no_price", detail));
    };
    let offer = Offer {
        plan: terms.name.clone(),
        version: terms.version,
        currency: price.currency.clone(),
        interval,
    };
    Ok((offer, terms))
}

fn seats_of(wish: &Wish, now: u32) -> Result<u32, Invalid> {
    let seats = wish.seats.unwrap_or(now);
    let mut check = Check::new();
    let holds = (1..=SEATS).contains(&seats);
    check.require(holds, "/seats", "range", "must be in 1..=100000");
    check.verdict()?;
    Ok(seats)
}

/// Makes sure that there is a seat for each active user and each open invitation.
fn enough(seats: u32, in_use: u64) -> Result<(), Invalid> {
    if u64::from(seats) >= in_use {
        return Ok(());
    }
    let detail = format!("must be at least {in_use}: so many active users and open invitations take a seat");
    Err(Invalid::one("/seats", "seats_in_use", detail))
}

fn offer_text(offer: &Offer) -> String {
    let Offer {
        plan,
        version,
        currency,
        interval,
    } = offer;
    format!("{plan}:{version}:{currency}:{}", interval.as_str())
}

/// Records an action, and returns the link that it is answered with.
async fn record(
    cx: &Cx,
    action: &'static str,
    account: Uuid,
    details: serde_json::Value,
    link: Link,
) -> Result<Link, StoreError> {
    cx.write(async |work| {
        let event = cx.changed(action, "billing_account", account, None, Some(&details));
        work.audit().record(event).await?;
        Ok::<_, StoreError>(link.clone())
    })
    .await
}
