//! Stripe's objects in our words.

use std::str::FromStr as _;

use chrono::DateTime;
use stripe_shared::{
    CheckoutSession, Invoice, InvoiceLineItem, RecurringUsageType, Subscription, SubscriptionItem,
};
use tenantry_domain::billing::{
    ChargedMeter, CheckoutRef, CustomerRef, InvoiceLine, InvoiceRef, InvoiceStatus, Link, Offer,
    OpenCheckout, ProviderError, ProviderInvoice, ProviderKey, ProviderSubscription, SubscriptionRef,
    SubscriptionStatus,
};
use tenantry_domain::kernel::{Currency, Period, Time};
use tenantry_domain::usage::MeterKey;

use crate::catalogue::{meter_of, offer_of};

/// Something that was promised is not in an answer.
pub fn unreadable(what: &str) -> ProviderError {
    ProviderError::Unreadable(what.to_owned())
}

pub fn time(seconds: i64) -> Result<Time, ProviderError> {
    DateTime::from_timestamp(seconds, 0).ok_or_else(|| unreadable("a time is none"))
}

fn times(start: i64, end: i64) -> Result<Period, ProviderError> {
    Ok(Period {
        start: time(start)?,
        end: time(end)?,
    })
}

pub fn customer_ref(id: &str) -> Result<CustomerRef, ProviderError> {
    CustomerRef::parse(id).ok_or_else(|| unreadable("the customer's id is none"))
}

fn currency(code: &stripe_types::Currency) -> Result<Currency, ProviderError> {
    Currency::try_from(code.to_string()).map_err(|_| unreadable("the currency is none"))
}

/// The currency as Stripe's library has it.
pub fn their_currency(code: &Currency) -> Result<stripe_types::Currency, ProviderError> {
    let refused = || ProviderError::Refused(format!("{code} is no currency of Stripe's"));
    stripe_types::Currency::from_str(code.as_str()).map_err(|_| refused())
}

/// Whether an item is paid by use.
pub fn is_metered(item: &SubscriptionItem) -> bool {
    let recurring = item.price.recurring.as_ref();
    recurring.is_some_and(|it| match it.usage_type {
        RecurringUsageType::Metered => true,
        RecurringUsageType::Licensed | RecurringUsageType::Unknown(_) => false,
        // The library keeps the right to learn further kinds.
        _ => false,
    })
}

/// What of our catalogue an item is.
pub fn offer_of_item(item: &SubscriptionItem) -> Option<Offer> {
    item.price.lookup_key.as_deref().and_then(offer_of)
}

/// The item that the plan is paid with: the one of our catalogue, otherwise the first that is not paid by
/// use.
pub fn base_item(subscription: &Subscription) -> Result<&SubscriptionItem, ProviderError> {
    let items = &subscription.items.data;
    let ours = items.iter().find(|item| offer_of_item(item).is_some());
    ours.or_else(|| items.iter().find(|item| !is_metered(item)))
        .or_else(|| items.first())
        .ok_or_else(|| unreadable("the subscription has no item"))
}

/// The meter that an item charges, where it is one of our catalogue.
pub fn meter_of_item(item: &SubscriptionItem) -> Option<MeterKey> {
    item.price.lookup_key.as_deref().and_then(meter_of)
}

/// The meters that are charged. What another plan charges as well keeps its item, which gets another price.
fn charged(it: &Subscription) -> Result<Vec<ChargedMeter>, ProviderError> {
    let of_meters = it
        .items
        .data
        .iter()
        .filter_map(|item| Some((meter_of_item(item)?, item)));
    let mut charged = of_meters
        .map(|(meter, item)| {
            Ok(ChargedMeter {
                meter,
                since: time(item.created)?,
            })
        })
        .collect::<Result<Vec<_>, ProviderError>>()?;
    charged.sort_by(|one, other| one.meter.cmp(&other.meter));
    Ok(charged)
}

pub fn subscription(it: &Subscription) -> Result<ProviderSubscription, ProviderError> {
    let base = base_item(it)?;
    let seats = base.quantity.unwrap_or(1);
    Ok(ProviderSubscription {
        id: SubscriptionRef::parse(it.id.as_str())
            .ok_or_else(|| unreadable("the subscription's id is none"))?,
        customer: customer_ref(it.customer.id().as_str())?,
        status: status(&it.status),
        offer: offer_of_item(base),
        seats: u32::try_from(seats).map_err(|_| unreadable("too many seats"))?,
        charged: charged(it)?,
        period: times(base.current_period_start, base.current_period_end)?,
        trial_ends_at: it.trial_end.map(time).transpose()?,
        cancel_at_period_end: it.cancel_at_period_end,
        canceled_at: it.canceled_at.map(time).transpose()?,
        ended_at: it.ended_at.map(time).transpose()?,
        created_at: time(it.created)?,
    })
}

fn status(it: &stripe_shared::SubscriptionStatus) -> SubscriptionStatus {
    match it {
        stripe_shared::SubscriptionStatus::Active => SubscriptionStatus::Active,
        stripe_shared::SubscriptionStatus::Canceled => SubscriptionStatus::Canceled,
        stripe_shared::SubscriptionStatus::Incomplete => SubscriptionStatus::Incomplete,
        stripe_shared::SubscriptionStatus::IncompleteExpired => SubscriptionStatus::IncompleteExpired,
        stripe_shared::SubscriptionStatus::PastDue => SubscriptionStatus::PastDue,
        stripe_shared::SubscriptionStatus::Paused => SubscriptionStatus::Paused,
        stripe_shared::SubscriptionStatus::Trialing => SubscriptionStatus::Trialing,
        stripe_shared::SubscriptionStatus::Unpaid => SubscriptionStatus::Unpaid,
        stripe_shared::SubscriptionStatus::Unknown(word) => SubscriptionStatus::Unrecognised(word.clone()),
        // The library keeps the right to learn further words.
        other => SubscriptionStatus::Unrecognised(other.to_string()),
    }
}

/// The key of the metadata that says what a price was made of, or what a checkout offers.
pub const TERMS: &str = "tenantry_terms";

/// A checkout that can be completed; one without a page cannot.
pub fn checkout(it: &CheckoutSession) -> Result<Option<OpenCheckout>, ProviderError> {
    let Some(url) = it.url.clone() else {
        return Ok(None);
    };
    let terms = it.metadata.as_ref().and_then(|metadata| metadata.get(TERMS));
    Ok(Some(OpenCheckout {
        id: CheckoutRef::parse(it.id.as_str()).ok_or_else(|| unreadable("the checkout's id is none"))?,
        terms: terms.and_then(|terms| ProviderKey::parse(terms)),
        link: Link {
            url,
            expires_at: Some(time(it.expires_at)?),
        },
        created_at: time(it.created)?,
    }))
}

/// An invoice with these lines: all of them, of which it shows only the first itself.
pub fn invoice(it: &Invoice, lines: &[InvoiceLineItem]) -> Result<ProviderInvoice, ProviderError> {
    // A preview has no id.
    let id = it.id.as_ref().map_or("upcoming", |id| id.as_str());
    let customer = it
        .customer
        .as_ref()
        .ok_or_else(|| unreadable("the invoice has no customer"))?;
    let parent = it
        .parent
        .as_ref()
        .and_then(|parent| parent.subscription_details.as_ref());
    Ok(ProviderInvoice {
        id: InvoiceRef::parse(id).ok_or_else(|| unreadable("the invoice's id is none"))?,
        customer: customer_ref(customer.id().as_str())?,
        subscription: parent.and_then(|of| SubscriptionRef::parse(of.subscription.id().as_str())),
        number: it.number.clone(),
        status: it
            .status
            .as_ref()
            .and_then(|status| InvoiceStatus::parse(status.as_str())),
        currency: currency(&it.currency)?,
        total: it.total,
        amount_due: it.amount_due,
        amount_paid: it.amount_paid,
        period: times(it.period_start, it.period_end)?,
        attempts: u32::try_from(it.attempt_count).unwrap_or(u32::MAX),
        next_attempt_at: it.next_payment_attempt.map(time).transpose()?,
        url: it.hosted_invoice_url.clone(),
        created_at: time(it.created)?,
        lines: lines.iter().map(line).collect(),
    })
}

pub fn line(it: &InvoiceLineItem) -> InvoiceLine {
    InvoiceLine {
        description: it.description.clone().unwrap_or_default(),
        amount: it.amount,
        quantity: it.quantity.unwrap_or(1),
        proration: is_proration(it),
    }
}

pub fn is_proration(it: &InvoiceLineItem) -> bool {
    it.parent.as_ref().is_some_and(|parent| {
        let of_item = parent
            .subscription_item_details
            .as_ref()
            .is_some_and(|it| it.proration);
        let of_change = parent
            .invoice_item_details
            .as_ref()
            .is_some_and(|it| it.proration);
        of_item || of_change
    })
}
