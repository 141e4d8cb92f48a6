use std::collections::HashMap;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use stripe::{PaginationExt as _, StripeError};
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_billing::billing_meter_event_adjustment::{
    CreateBillingMeterEventAdjustment, CreateBillingMeterEventAdjustmentCancel,
};
use stripe_billing::billing_meter_event_summary::ListIdBillingMeterEventSummary;
use stripe_billing::billing_portal_session::CreateBillingPortalSession;
use stripe_billing::invoice::{
    CreatePreviewInvoice, CreatePreviewInvoiceSubscriptionDetails,
    CreatePreviewInvoiceSubscriptionDetailsItems, CreatePreviewInvoiceSubscriptionDetailsProrationBehavior,
    ListInvoice, PayInvoice, RetrieveInvoice, VoidInvoiceInvoice,
};
use stripe_billing::subscription::{
    CancelSubscription, CreateSubscription, CreateSubscriptionAutomaticTax, CreateSubscriptionBillingMode,
    CreateSubscriptionBillingModeType, CreateSubscriptionItems, CreateSubscriptionPaymentBehavior,
    CreateSubscriptionTrialSettings, CreateSubscriptionTrialSettingsEndBehavior,
    CreateSubscriptionTrialSettingsEndBehaviorMissingPaymentMethod, ListSubscription, ListSubscriptionStatus,
    RetrieveSubscription, UpdateSubscription, UpdateSubscriptionItems, UpdateSubscriptionProrationBehavior,
};
use stripe_billing::{BillingMeterEventAdjustmentType, BillingMeterResourceAggregationSettingsFormula};
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionAutomaticTax, CreateCheckoutSessionCustomerUpdate,
    CreateCheckoutSessionCustomerUpdateAddress, CreateCheckoutSessionLineItems,
    CreateCheckoutSessionSubscriptionData, CreateCheckoutSessionSubscriptionDataBillingMode,
    CreateCheckoutSessionSubscriptionDataBillingModeType, CreateCheckoutSessionSubscriptionDataTrialSettings,
    CreateCheckoutSessionSubscriptionDataTrialSettingsEndBehavior,
    CreateCheckoutSessionSubscriptionDataTrialSettingsEndBehaviorMissingPaymentMethod, ExpireCheckoutSession,
    ListCheckoutSession, RetrieveCheckoutSession,
};
use stripe_core::customer::{
    CreateCustomer, DeleteCustomer, RetrieveCustomer, RetrieveCustomerReturned, SearchCustomer,
    UpdateCustomer,
};
use stripe_core::event::ListEvent;
use stripe_shared::{
    CheckoutSession, CheckoutSessionMode, CheckoutSessionStatus, Event, Invoice, InvoiceLineItem,
    Subscription,
};
use tenantry_domain::billing::{
    CheckoutRef, CustomerRef, Delivered, ForgedEvent, InvoiceRef, Link, NewCheckout, NewCustomer,
    NewSubscription, Offer, OpenCheckout, PaymentProvider, ProrationPreview, ProviderCustomer, ProviderError,
    ProviderEvent, ProviderInvoice, ProviderKey, ProviderSubscription, SubscriptionRef, UsageReport,
};
use tenantry_domain::kernel::{Period, TenantId, Time};
use tenantry_domain::usage::MeterKey;

use crate::StripePayments;
use crate::catalogue::{Priced, event_name};
use crate::event;
use crate::failure::{Expected, TENANT, code, failure, found, of_tenant};
use crate::reading::{self, TERMS};

#[async_trait]
impl PaymentProvider for StripePayments {
    async fn create_customer(
        &self,
        key: &ProviderKey,
        new: &NewCustomer,
    ) -> Result<CustomerRef, ProviderError> {
        let mut request = CreateCustomer::new()
            .name(new.name.clone())
            .metadata(of_tenant(new.tenant));
        if let Some(email) = &new.email {
            request = request.email(email.clone());
        }
        let made = self.change(key.as_str(), &request).await?;
        reading::customer_ref(made.id.as_str())
    }

    async fn customers_of(&self, tenant: TenantId) -> Result<Vec<CustomerRef>, ProviderError> {
        let request = SearchCustomer::new(format!("metadata['tenant_id']:'{tenant}'")).limit(100);
        let found = request.paginate().stream(&self.client).try_collect().await;
        let found: Vec<stripe_shared::Customer> = found.map_err(|error| failure(&error))?;
        let mut found: Vec<_> = found.iter().map(|it| (it.created, it.id.as_str())).collect();
        found.sort_unstable();
        found
            .into_iter()
            .map(|(_, id)| reading::customer_ref(id))
            .collect()
    }

    async fn customer(&self, customer: &CustomerRef) -> Result<Option<ProviderCustomer>, ProviderError> {
        let known = found(
            self.ask_expecting(Expected::Missing, &RetrieveCustomer::new(customer.as_str()))
                .await,
        )?;
        let Some(RetrieveCustomerReturned::Customer(known)) = known else {
            return Ok(None);
        };
        let label = known.metadata.as_ref().and_then(|it| it.get(TENANT));
        Ok(Some(ProviderCustomer {
            id: customer.clone(),
            label: label.and_then(|tenant| tenant.parse().ok()),
            email: known.email.clone(),
        }))
    }

    async fn set_customer_email(
        &self,
        key: &ProviderKey,
        customer: &CustomerRef,
        email: &str,
    ) -> Result<(), ProviderError> {
        let request = UpdateCustomer::new(customer.as_str()).email(email);
        found(self.change(key.as_str(), &request).await)?;
        Ok(())
    }

    async fn delete_customer(&self, customer: &CustomerRef) -> Result<(), ProviderError> {
        found(
            self.ask_expecting(Expected::Missing, &DeleteCustomer::new(customer.as_str()))
                .await,
        )
        .map(drop)
    }

    async fn create_subscription(
        &self,
        key: &ProviderKey,
        new: &NewSubscription,
    ) -> Result<ProviderSubscription, ProviderError> {
        let priced = self.priced(&new.offer).await?;
        let made = self.change(key.as_str(), &subscribe(new, &priced)).await?;
        let unpaid = matches!(made.status, stripe_shared::SubscriptionStatus::Incomplete);
        let invoice = made
            .latest_invoice
            .as_ref()
            .and_then(|invoice| invoice.id().as_ref());
        match invoice.filter(|_| unpaid) {
            Some(invoice) => {
                self.pay_first(key, invoice.as_str()).await?;
                self.existing(made.id.as_str()).await
            }
            None => reading::subscription(&made),
        }
    }

    async fn subscription(
        &self,
        id: &SubscriptionRef,
    ) -> Result<Option<ProviderSubscription>, ProviderError> {
        let known = found(
            self.ask_expecting(Expected::Missing, &RetrieveSubscription::new(id.as_str()))
                .await,
        )?;
        known.as_ref().map(reading::subscription).transpose()
    }

    async fn subscriptions_of(
        &self,
        customer: &CustomerRef,
    ) -> Result<Vec<ProviderSubscription>, ProviderError> {
        let request = ListSubscription::new()
            .customer(customer.as_str())
            .status(ListSubscriptionStatus::All)
            .limit(100);
        let all = request.paginate().stream(&self.client).try_collect().await;
        let all: Vec<Subscription> = all.map_err(|error| failure(&error))?;
        all.iter().map(reading::subscription).collect()
    }

    async fn change_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
        offer: &Offer,
        seats: u32,
    ) -> Result<ProviderSubscription, ProviderError> {
        let now = self.ask(&RetrieveSubscription::new(id.as_str())).await?;
        let changes = changes(&now, &self.priced(offer).await?, seats)?;
        // As it is wanted already: also because the answer of an earlier call was lost.
        if changes.is_empty() {
            return reading::subscription(&now);
        }
        let request = UpdateSubscription::new(id.as_str())
            .items(changes.into_iter().map(Change::update).collect::<Vec<_>>())
            .proration_behavior(UpdateSubscriptionProrationBehavior::CreateProrations);
        reading::subscription(&self.change(key.as_str(), &request).await?)
    }

    async fn preview_change(
        &self,
        id: &SubscriptionRef,
        offer: &Offer,
        seats: u32,
    ) -> Result<ProrationPreview, ProviderError> {
        let now = self.ask(&RetrieveSubscription::new(id.as_str())).await?;
        let before = reading::offer_of_item(reading::base_item(&now)?);
        let changes = changes(&now, &self.priced(offer).await?, seats)?;
        let mut details = CreatePreviewInvoiceSubscriptionDetails::new();
        details.items = Some(changes.into_iter().map(Change::preview).collect());
        details.proration_behavior =
            Some(CreatePreviewInvoiceSubscriptionDetailsProrationBehavior::CreateProrations);
        let request = CreatePreviewInvoice::new()
            .subscription(id.as_str())
            .subscription_details(details);
        let invoice = self.ask(&request).await?;
        // Another interval begins at once, and so all of its first invoice is due because of the change.
        let all = before.is_some_and(|before| before.interval != offer.interval);
        let lines = invoice
            .lines
            .data
            .iter()
            .filter(|line| all || reading::is_proration(line));
        let lines: Vec<_> = lines.map(reading::line).collect();
        Ok(ProrationPreview {
            currency: offer.currency.clone(),
            amount_due: lines.iter().map(|line| line.amount).sum(),
            lines,
        })
    }

    async fn cancel_at_period_end(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
        cancel: bool,
    ) -> Result<ProviderSubscription, ProviderError> {
        let request = UpdateSubscription::new(id.as_str()).cancel_at_period_end(cancel);
        reading::subscription(&self.change(key.as_str(), &request).await?)
    }

    async fn end_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
    ) -> Result<ProviderSubscription, ProviderError> {
        let request = CancelSubscription::new(id.as_str())
            .invoice_now(true)
            .prorate(true);
        match found(
            self.change_expecting(Expected::Missing, key.as_str(), &request)
                .await,
        )? {
            Some(ended) => reading::subscription(&ended),
            // Stripe does not know ended ones by this call.
            None => self.existing(id.as_str()).await,
        }
    }

    async fn withdraw_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
    ) -> Result<ProviderSubscription, ProviderError> {
        let now = self.ask(&RetrieveSubscription::new(id.as_str())).await?;
        let withdrawn = reading::subscription(&now)?;
        if !withdrawn.awaits_payment() {
            return Ok(withdrawn);
        }
        // Cancelled alone, it would leave the invoice open, and the invoice's page takes payments.
        let invoice = now.latest_invoice.as_ref().and_then(|it| it.id().as_ref());
        if let Some(invoice) = invoice {
            self.void(key, invoice.as_str()).await?;
        }
        let withdrawn = self.existing(id.as_str()).await?;
        if !withdrawn.awaits_payment() {
            return Ok(withdrawn);
        }
        let request = CancelSubscription::new(id.as_str());
        match found(
            self.change_expecting(Expected::Missing, &format!("{key}:end"), &request)
                .await,
        )? {
            Some(ended) => reading::subscription(&ended),
            None => self.existing(id.as_str()).await,
        }
    }

    async fn checkout(&self, key: &ProviderKey, new: &NewCheckout) -> Result<OpenCheckout, ProviderError> {
        let sale = &new.subscription;
        let priced = self.priced(&sale.offer).await?;
        let mut request = CreateCheckoutSession::new()
            .mode(CheckoutSessionMode::Subscription)
            .customer(sale.customer.as_str())
            .client_reference_id(sale.tenant.to_string())
            .metadata([(TERMS.to_owned(), new.terms.to_string())])
            .line_items(sold(sale, &priced))
            .subscription_data(subscription_data(sale))
            .success_url(new.success_url.as_str())
            .cancel_url(new.cancel_url.as_str());
        if sale.automatic_tax {
            // Where the customer lives is what taxes go by.
            let mut update = CreateCheckoutSessionCustomerUpdate::new();
            update.address = Some(CreateCheckoutSessionCustomerUpdateAddress::Auto);
            request = request
                .automatic_tax(CreateCheckoutSessionAutomaticTax::new(true))
                .customer_update(update);
        }
        let made = self.change(key.as_str(), &request).await?;
        reading::checkout(&made)?.ok_or_else(|| reading::unreadable("the checkout has no address"))
    }

    async fn open_checkouts(&self, customer: &CustomerRef) -> Result<Vec<OpenCheckout>, ProviderError> {
        let request = ListCheckoutSession::new()
            .customer(customer.as_str())
            .status(CheckoutSessionStatus::Open)
            .limit(100);
        let open = request.paginate().stream(&self.client).try_collect().await;
        let open: Vec<CheckoutSession> = open.map_err(|error| failure(&error))?;
        open.iter()
            .filter_map(|it| reading::checkout(it).transpose())
            .collect()
    }

    async fn expire_checkout(&self, id: &CheckoutRef) -> Result<bool, ProviderError> {
        let expire = ExpireCheckoutSession::new(id.as_str());
        match self.ask_expecting(Expected::Refusal, &expire).await {
            Ok(_) | Err(ProviderError::NotFound(_)) => Ok(true),
            // It is not open any more: what became of it is asked for.
            Err(ProviderError::Refused(_)) => {
                let now = self.ask(&RetrieveCheckoutSession::new(id.as_str())).await?;
                Ok(!matches!(now.status, Some(CheckoutSessionStatus::Complete)))
            }
            Err(error) => Err(error),
        }
    }

    async fn portal(&self, customer: &CustomerRef, return_url: &str) -> Result<Link, ProviderError> {
        let request = CreateBillingPortalSession::new()
            .customer(customer.as_str())
            .return_url(return_url);
        let session = self.ask(&request).await?;
        Ok(Link {
            url: session.url,
            expires_at: None,
        })
    }

    async fn invoice(&self, id: &InvoiceRef) -> Result<Option<ProviderInvoice>, ProviderError> {
        match found(
            self.ask_expecting(Expected::Missing, &RetrieveInvoice::new(id.as_str()))
                .await,
        )? {
            Some(invoice) => self.whole(invoice).await.map(Some),
            None => Ok(None),
        }
    }

    async fn invoices_of(
        &self,
        customer: &CustomerRef,
        limit: u8,
    ) -> Result<Vec<ProviderInvoice>, ProviderError> {
        let request = ListInvoice::new()
            .customer(customer.as_str())
            .limit(i64::from(limit.clamp(1, 100)));
        let mut invoices = Vec::new();
        for invoice in self.ask(&request).await?.data {
            invoices.push(self.whole(invoice).await?);
        }
        Ok(invoices)
    }

    async fn upcoming_invoice(&self, id: &SubscriptionRef) -> Result<Option<ProviderInvoice>, ProviderError> {
        let request = CreatePreviewInvoice::new().subscription(id.as_str());
        let invoice = found(self.ask_expecting(Expected::Missing, &request).await)?;
        // Of a preview all that there is to see is in it.
        invoice
            .map(|it| reading::invoice(&it, &it.lines.data))
            .transpose()
    }

    async fn report_usage(&self, report: &UsageReport) -> Result<Delivered, ProviderError> {
        let payload = HashMap::from([
            (
                "stripe_customer_id".to_owned(),
                report.customer.as_str().to_owned(),
            ),
            ("value".to_owned(), report.quantity.to_string()),
        ]);
        let request = CreateBillingMeterEvent::new(event_name(&report.meter), payload)
            .identifier(report.identifier.as_str())
            .timestamp(report.at.timestamp());
        match self.try_change(report.identifier.as_str(), &request).await? {
            Ok(_) => Ok(Delivered::Now),
            Err(error) if is_duplicate(&error) => Ok(Delivered::Before),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn cancel_usage(&self, meter: &MeterKey, identifier: &ProviderKey) -> Result<(), ProviderError> {
        let mut cancel = CreateBillingMeterEventAdjustmentCancel::new();
        cancel.identifier = Some(identifier.as_str().to_owned());
        let kind = BillingMeterEventAdjustmentType::Cancel;
        let request = CreateBillingMeterEventAdjustment::new(event_name(meter), kind).cancel(cancel);
        let key = format!("cancel:{identifier}");
        found(self.change_expecting(Expected::Missing, &key, &request).await).map(drop)
    }

    async fn usage_of(
        &self,
        customer: &CustomerRef,
        meter: &MeterKey,
        period: Period,
    ) -> Result<u64, ProviderError> {
        let metered = self.metered(meter).await?;
        let (start, end) = (period.start.timestamp(), period.end.timestamp());
        let request = ListIdBillingMeterEventSummary::new(metered.id.as_str(), customer.as_str(), end, start);
        let mut sum: u64 = 0;
        let mut last = None;
        for summary in self.ask(&request).await?.data {
            let value = whole(summary.aggregated_value)?;
            sum = sum.saturating_add(value);
            last = last.max(Some((summary.end_time, value)));
        }
        match metered.formula {
            BillingMeterResourceAggregationSettingsFormula::Last => Ok(last.map_or(0, |(_, value)| value)),
            BillingMeterResourceAggregationSettingsFormula::Sum
            | BillingMeterResourceAggregationSettingsFormula::Count => Ok(sum),
            other => Err(reading::unreadable(&format!(
                "the meter counts in a way of its own: {other}"
            ))),
        }
    }

    async fn events_since(&self, since: Time) -> Result<Vec<ProviderEvent>, ProviderError> {
        let request = ListEvent::new()
            .created(stripe_types::RangeQueryTs::gte(since.timestamp()))
            .limit(100);
        let events = request.paginate().stream(&self.client).try_collect().await;
        let events: Vec<Event> = events.map_err(|error| failure(&error))?;
        events.iter().rev().map(listed).collect()
    }

    fn now(&self, ours: Time) -> Time {
        self.clock.as_ref().map_or(ours, |clock| clock.now())
    }

    fn read_event(&self, body: &[u8], signature: &str, now: Time) -> Result<ProviderEvent, ForgedEvent> {
        event::read(&self.webhook_secrets, body, signature, now)
    }
}

impl StripePayments {
    async fn existing(&self, id: &str) -> Result<ProviderSubscription, ProviderError> {
        reading::subscription(&self.ask(&RetrieveSubscription::new(id)).await?)
    }

    /// Tries to collect the first invoice of a subscription from the card that the customer may have. Without
    /// one, and when it is declined, the customer pays on the invoice's page.
    async fn pay_first(&self, key: &ProviderKey, invoice: &str) -> Result<(), ProviderError> {
        let request = PayInvoice::new(invoice).off_session(true);
        unless_refused(
            self.change_expecting(Expected::Refusal, &format!("{key}:pay"), &request)
                .await,
        )
    }

    /// Voids an open invoice. One that is paid or void already stays as it is.
    async fn void(&self, key: &ProviderKey, invoice: &str) -> Result<(), ProviderError> {
        let request = VoidInvoiceInvoice::new(invoice);
        unless_refused(
            self.change_expecting(Expected::Refusal, &format!("{key}:void"), &request)
                .await,
        )
    }

    /// An invoice with all its lines.
    async fn whole(&self, invoice: Invoice) -> Result<ProviderInvoice, ProviderError> {
        if !invoice.lines.has_more {
            return reading::invoice(&invoice, &invoice.lines.data);
        }
        let lines = invoice
            .lines
            .clone()
            .into_paginator()
            .stream(&self.client)
            .try_collect()
            .await;
        let lines: Vec<InvoiceLineItem> = lines.map_err(|error| failure(&error))?;
        reading::invoice(&invoice, &lines)
    }
}

/// The answer to a change that is no error when it is refused: the invoice then stays as it is.
fn unless_refused<T>(answer: Result<T, ProviderError>) -> Result<(), ProviderError> {
    match answer {
        Ok(_) | Err(ProviderError::Refused(_) | ProviderError::NotFound(_)) => Ok(()),
        Err(
            error @ (ProviderError::Unavailable(_)
            | ProviderError::Unauthenticated
            | ProviderError::Unreadable(_)),
        ) => Err(error),
    }
}

/// A subscription whose trial ends without a payment method is cancelled then: the tenant falls back to the default plan and
/// has no open invoice.
fn subscribe(new: &NewSubscription, priced: &Priced) -> CreateSubscription {
    let mut base = CreateSubscriptionItems::new();
    base.price = Some(priced.base.clone());
    base.quantity = Some(u64::from(new.seats));
    let mut items = vec![base];
    items.extend(priced.metered.iter().map(|(_, price)| {
        let mut item = CreateSubscriptionItems::new();
        item.price = Some(price.clone());
        item
    }));
    // That there is no card yet is no error: the subscription waits for its first payment.
    let waits = CreateSubscriptionPaymentBehavior::DefaultIncomplete;
    let flexible = CreateSubscriptionBillingModeType::Flexible;
    let mut request = CreateSubscription::new()
        .customer(new.customer.as_str())
        .items(items)
        .metadata(of_tenant(new.tenant))
        .payment_behavior(waits)
        .billing_mode(CreateSubscriptionBillingMode::new(flexible));
    if new.trial_days > 0 {
        let cancel = CreateSubscriptionTrialSettingsEndBehaviorMissingPaymentMethod::Cancel;
        let mut at_end = CreateSubscriptionTrialSettingsEndBehavior::new();
        at_end.missing_payment_method = Some(cancel);
        request = request
            .trial_period_days(new.trial_days)
            .trial_settings(CreateSubscriptionTrialSettings::new(at_end));
    }
    if new.automatic_tax {
        request = request.automatic_tax(CreateSubscriptionAutomaticTax::new(true));
    }
    request
}

/// What is put into a checkout. Stripe does not sell different intervals in one: what is paid by use is added
/// to a yearly subscription afterwards, by changing it to what it is.
fn sold(new: &NewSubscription, priced: &Priced) -> Vec<CreateCheckoutSessionLineItems> {
    let mut base = CreateCheckoutSessionLineItems::new();
    base.price = Some(priced.base.clone());
    base.quantity = Some(u64::from(new.seats));
    let mut items = vec![base];
    items.extend(
        priced
            .metered
            .iter()
            .filter(|_| priced.one_interval)
            .map(|(_, price)| {
                let mut item = CreateCheckoutSessionLineItems::new();
                item.price = Some(price.clone());
                item
            }),
    );
    items
}

fn subscription_data(new: &NewSubscription) -> CreateCheckoutSessionSubscriptionData {
    let flexible = CreateCheckoutSessionSubscriptionDataBillingModeType::Flexible;
    let mut data = CreateCheckoutSessionSubscriptionData::new();
    data.metadata = Some(of_tenant(new.tenant));
    data.billing_mode = Some(CreateCheckoutSessionSubscriptionDataBillingMode::new(flexible));
    if new.trial_days > 0 {
        let cancel =
            CreateCheckoutSessionSubscriptionDataTrialSettingsEndBehaviorMissingPaymentMethod::Cancel;
        let at_end = CreateCheckoutSessionSubscriptionDataTrialSettingsEndBehavior::new(cancel);
        data.trial_settings = Some(CreateCheckoutSessionSubscriptionDataTrialSettings::new(at_end));
        data.trial_period_days = Some(new.trial_days);
    }
    data
}

/// What is to become of one item of a subscription.
enum Change {
    Keep {
        id: String,
        price: String,
        seats: u64,
    },
    /// Another price for the use of the same meter.
    Reprice {
        id: String,
        price: String,
    },
    Add {
        price: String,
    },
    Remove {
        id: String,
    },
}

impl Change {
    fn update(self) -> UpdateSubscriptionItems {
        let mut item = UpdateSubscriptionItems::new();
        match self {
            Self::Keep { id, price, seats } => {
                (item.id, item.price, item.quantity) = (Some(id), Some(price), Some(seats));
            }
            Self::Reprice { id, price } => (item.id, item.price) = (Some(id), Some(price)),
            Self::Add { price } => item.price = Some(price),
            Self::Remove { id } => (item.id, item.deleted) = (Some(id), Some(true)),
        }
        item
    }

    fn preview(self) -> CreatePreviewInvoiceSubscriptionDetailsItems {
        let mut item = CreatePreviewInvoiceSubscriptionDetailsItems::new();
        match self {
            Self::Keep { id, price, seats } => {
                (item.id, item.price, item.quantity) = (Some(id), Some(price), Some(seats));
            }
            Self::Reprice { id, price } => (item.id, item.price) = (Some(id), Some(price)),
            Self::Add { price } => item.price = Some(price),
            Self::Remove { id } => (item.id, item.deleted) = (Some(id), Some(true)),
        }
        item
    }
}

/// What has to change so that a subscription is for these prices and seats; nothing when it is. An item stays as long as
/// its meter is charged, so that it says since when it is.
fn changes(now: &Subscription, wanted: &Priced, seats: u32) -> Result<Vec<Change>, ProviderError> {
    let base = reading::base_item(now)?;
    let seats = u64::from(seats);
    let mut changes = Vec::new();
    if base.price.id.as_str() != wanted.base || base.quantity != Some(seats) {
        changes.push(Change::Keep {
            id: base.id.to_string(),
            price: wanted.base.clone(),
            seats,
        });
    }
    let metered = now.items.data.iter().filter(|item| reading::is_metered(item));
    let metered: Vec<_> = metered.map(|item| (reading::meter_of_item(item), item)).collect();
    for (meter, item) in &metered {
        let id = item.id.to_string();
        let price = wanted.metered.iter().find(|(of, _)| Some(of) == meter.as_ref());
        match price {
            None => changes.push(Change::Remove { id }),
            Some((_, price)) if item.price.id.as_str() != price => {
                let price = price.clone();
                changes.push(Change::Reprice { id, price });
            }
            Some(_) => {}
        }
    }
    let is_new = |of: &MeterKey| !metered.iter().any(|(meter, _)| meter.as_ref() == Some(of));
    let new = wanted.metered.iter().filter(|(of, _)| is_new(of));
    changes.extend(new.map(|(_, price)| Change::Add { price: price.clone() }));
    Ok(changes)
}

/// Whether Stripe says that it has this report of usage already.
fn is_duplicate(error: &StripeError) -> bool {
    let StripeError::Stripe(error, 400) = error else {
        return false;
    };
    let message = error.message.as_deref().unwrap_or_default();
    // Seen without a code as well.
    code(error) == "duplicate_meter_event" || message.contains("already exists with identifier")
}

/// What was counted, which Stripe writes with decimals.
fn whole(value: f64) -> Result<u64, ProviderError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !(0.0..=EXACT).contains(&value) || value.fract() != 0.0 {
        return Err(reading::unreadable("what was counted is no whole number"));
    }
    // By its decimal digits: there is no conversion of these that fails where it has to.
    format!("{value:.0}")
        .parse()
        .map_err(|_| reading::unreadable("what was counted is no number"))
}

/// An event of the list, in the words in which it would have been told.
fn listed(it: &Event) -> Result<ProviderEvent, ProviderError> {
    let unreadable = || reading::unreadable("an event is none");
    let object = miniserde::json::to_string(&it.data.object);
    let object: serde_json::Value = serde_json::from_str(&object).map_err(|_| unreadable())?;
    let body = serde_json::json!({
        "id": it.id.as_str(), "type": it.type_.to_string(), "created": it.created,
        "data": { "object": object },
    });
    event::event(&body).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_counted() {
        for (value, expected) in [(0.0, 0), (25.0, 25), (1e13, 10_000_000_000_000)] {
            assert_eq!(whole(value), Ok(expected));
        }
        for value in [0.5, -1.0, f64::NAN, f64::INFINITY, 1e17] {
            assert!(whole(value).is_err(), "{value}");
        }
    }
}
