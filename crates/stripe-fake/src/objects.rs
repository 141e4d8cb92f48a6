//! The objects as Stripe's API writes them: every field that version 2026-09-30.endive promises, and those
//! that are used here.

use serde_json::{Value, json};

use crate::Card;
use crate::account::{
    Account, Checkout, Customer, Invoice, Item, Line, Meter, MeterEvent, Price, Product, Subscription,
};
use crate::money::{Scheme, Tier};

pub fn customer(it: &Customer) -> Value {
    if it.deleted {
        return json!({ "id": it.id, "object": "customer", "deleted": true });
    }
    let method = (it.card != Card::Missing).then(|| format!("pm_of_{}", it.id));
    json!({
        "id": it.id, "object": "customer", "created": it.created, "livemode": false, "name": it.name,
        "email": it.email, "metadata": it.metadata, "balance": it.balance, "default_source": null,
        "delinquent": false, "currency": null, "description": null, "discount": null, "phone": null,
        "invoice_prefix": it.id.to_uppercase().replace('_', ""), "preferred_locales": [], "shipping": null,
        "tax_exempt": "none", "test_clock": null, "address": null,
        "invoice_settings": { "custom_fields": null, "default_payment_method": method, "footer": null,
            "rendering_options": null },
    })
}

pub fn product(it: &Product) -> Value {
    json!({
        "id": it.id, "object": "product", "active": true, "created": it.created, "updated": it.created,
        "images": [], "livemode": false, "marketing_features": [], "metadata": it.metadata, "name": it.name,
        "type": "service", "description": null, "default_price": null, "url": null, "unit_label": null,
    })
}

/// A price with its tiers, which are told only to those who ask for them.
pub fn price_with_tiers(it: &Price) -> Value {
    let mut object = price(it);
    if let Scheme::Graduated(tiers) | Scheme::Volume(tiers) = &it.scheme {
        object["tiers"] = tiers.iter().map(tier).collect();
    }
    object
}

pub fn price(it: &Price) -> Value {
    let mut object = json!({
        "id": it.id, "object": "price", "active": it.active, "created": it.created, "currency": it.currency,
        "livemode": false, "lookup_key": it.lookup_key, "metadata": it.metadata, "nickname": null,
        "product": it.product, "tax_behavior": "unspecified", "billing_scheme": "per_unit",
        "tiers_mode": null,
        "transform_quantity": null, "unit_amount": null, "unit_amount_decimal": null,
        "custom_unit_amount": null,
        "type": if it.months.is_some() { "recurring" } else { "one_time" },
        "recurring": recurring(it),
    });
    match &it.scheme {
        Scheme::PerUnit { unit, package } => {
            object["unit_amount"] = json!(unit.minor());
            object["unit_amount_decimal"] = json!(unit.text());
            object["transform_quantity"] =
                json!(package.map(|(size, up)| {
                    json!({ "divide_by": size, "round": if up { "up" } else { "down" } })
                }));
        }
        Scheme::Graduated(_) => {
            object["billing_scheme"] = json!("tiered");
            object["tiers_mode"] = json!("graduated");
        }
        Scheme::Volume(_) => {
            object["billing_scheme"] = json!("tiered");
            object["tiers_mode"] = json!("volume");
        }
    }
    object
}

fn tier(it: &Tier) -> Value {
    let flat = (it.flat != 0).then_some(it.flat);
    json!({
        "flat_amount": flat, "flat_amount_decimal": flat.map(|amount| amount.to_string()), "up_to": it.up_to,
        "unit_amount": it.unit.minor(), "unit_amount_decimal": it.unit.text(),
    })
}

fn recurring(it: &Price) -> Value {
    let Some((interval, count)) = interval(it) else {
        return Value::Null;
    };
    let usage_type = usage_type(it);
    json!({
        "interval": interval, "interval_count": count, "usage_type": usage_type, "meter": it.meter,
        "trial_period_days": null,
    })
}

fn interval(it: &Price) -> Option<(&'static str, u32)> {
    it.months.map(|months| match months {
        12 => ("year", 1),
        months => ("month", months),
    })
}

const fn usage_type(it: &Price) -> &'static str {
    if it.meter.is_some() { "metered" } else { "licensed" }
}

fn plan(it: &Price) -> Value {
    let (interval, count) = interval(it).unwrap_or(("month", 1));
    let amount = match &it.scheme {
        Scheme::PerUnit { unit, .. } => unit.minor(),
        Scheme::Graduated(_) | Scheme::Volume(_) => None,
    };
    json!({
        "id": it.id, "object": "plan", "active": it.active, "amount": amount, "created": it.created,
        "billing_scheme": if matches!(it.scheme, Scheme::PerUnit { .. }) { "per_unit" } else { "tiered" },
        "currency": it.currency, "interval": interval, "interval_count": count, "livemode": false,
        "usage_type": usage_type(it), "meter": it.meter, "metadata": {}, "product": it.product,
    })
}

pub fn meter(it: &Meter) -> Value {
    json!({
        "id": it.id, "object": "billing.meter", "created": it.created, "updated": it.created,
        "livemode": false,
        "status": "active", "status_transitions": { "deactivated_at": null }, "display_name": it.display_name,
        "event_name": it.event_name, "event_time_window": null,
        "default_aggregation": { "formula": it.formula },
        "customer_mapping": { "type": "by_id", "event_payload_key": it.customer_key },
        "value_settings": { "event_payload_key": it.value_key },
    })
}

pub fn meter_event(it: &MeterEvent, meter: &Meter) -> Value {
    let mut payload = serde_json::Map::new();
    payload.insert(meter.customer_key.clone(), json!(it.customer));
    payload.insert(meter.value_key.clone(), json!(it.value.to_string()));
    json!({
        "object": "billing.meter_event", "created": it.received, "livemode": false,
        "event_name": it.event_name,
        "identifier": it.identifier, "payload": payload, "timestamp": it.timestamp,
    })
}

pub fn summary(meter: &Meter, start: i64, end: i64, value: u64) -> Value {
    json!({
        "id": format!("mtrusg_{start}_{end}"), "object": "billing.meter_event_summary",
        // Stripe writes a number with decimals.
        "aggregated_value": value as f64,
        "start_time": start, "end_time": end, "livemode": false, "meter": meter.id,
    })
}

pub fn subscription(account: &Account, it: &Subscription) -> Value {
    let items: Vec<Value> = it
        .items
        .iter()
        .map(|item| subscription_item(account, it, item))
        .collect();
    let currency = it.items.first().and_then(|item| account.prices.get(&item.price));
    json!({
        "id": it.id, "object": "subscription", "automatic_tax": { "enabled": it.automatic_tax,
        "liability": null,
            "disabled_reason": null },
        "billing_cycle_anchor": it.anchor, "billing_mode": { "type": "flexible" }, "billing_schedules": [],
        "cancel_at": it.cancel_at_period_end.then(|| it.last_end()),
        "cancel_at_period_end": it.cancel_at_period_end, "canceled_at": it.canceled_at,
        "cancellation_details": { "comment": null, "feedback": null, "reason": it.cancel_reason },
        "collection_method": "charge_automatically", "created": it.created,
        "currency": currency.map_or("usd", |price| price.currency.as_str()), "customer": it.customer,
        "default_payment_method": null, "default_tax_rates": [], "discounts": [], "ended_at": it.ended_at,
        "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } },
        "items": list(items, false, &format!("/v1/subscription_items?subscription={}", it.id)),
        "latest_invoice": it.latest_invoice, "livemode": false, "metadata": it.metadata,
        "pending_setup_intent": null,
        "pending_update": null, "start_date": it.created, "status": it.status, "test_clock": null,
        "trial_settings": { "end_behavior": {
            "missing_payment_method": if it.cancels_without_card { "cancel" } else { "create_invoice" },
        } },
        "trial_start": it.trial.map(|(start, _)| start), "trial_end": it.trial.map(|(_, end)| end),
    })
}

fn subscription_item(account: &Account, subscription: &Subscription, it: &Item) -> Value {
    let known = account.prices.get(&it.price);
    let mut object = json!({
        "id": it.id, "object": "subscription_item", "created": it.created, "discounts": [],
        "current_period_start": it.period_start, "current_period_end": it.period_end,
        "metadata": it.metadata, "plan": known.map(plan), "price": known.map(price),
        "subscription": subscription.id, "tax_rates": [],
    });
    if let Some(quantity) = it.quantity {
        object["quantity"] = json!(quantity);
    }
    object
}

/// So many lines an invoice shows; the others are on pages.
const EMBEDDED_LINES: usize = 10;

/// All lines of an invoice, in order.
pub fn invoice_lines(account: &Account, it: &Invoice) -> Vec<Value> {
    it.lines.iter().map(|part| line(account, it, part)).collect()
}

pub fn invoice(account: &Account, it: &Invoice) -> Value {
    let mut lines = invoice_lines(account, it);
    // A preview has no page of its own for the others.
    let more = lines.len() > EMBEDDED_LINES && it.reason != "upcoming";
    if more {
        lines.truncate(EMBEDDED_LINES);
    }
    let (total, due) = (it.total(), it.amount_due());
    let metadata = account
        .subscriptions
        .get(&it.subscription)
        .map(|of| of.metadata.clone());
    let hosted = it
        .finalized_at
        .map(|_| format!("{}/_fake/invoices/{}", account.base, it.id));
    let owner = account.customers.get(&it.customer);
    let mut object = json!({
        "id": it.id, "object": "invoice", "amount_due": due, "amount_paid": it.amount_paid,
        "amount_remaining": due - it.amount_paid.min(due), "attempt_count": it.attempts,
        "attempted": it.attempts > 0, "auto_advance": it.next_attempt.is_some() || it.finalizes_at.is_some(),
        "automatically_finalizes_at": it.finalizes_at, "billing_reason": it.reason, "created": it.created,
        "currency": it.currency, "customer": it.customer,
        "customer_name": owner.and_then(|of| of.name.clone()),
        "customer_email": owner.and_then(|of| of.email.clone()), "ending_balance": it.ending_balance,
        "hosted_invoice_url": hosted, "lines": list(lines, more, &format!("/v1/invoices/{}/lines", it.id)),
        "next_payment_attempt": it.next_attempt, "number": it.number,
        "parent": { "type": "subscription_details", "quote_details": null,
            "subscription_details": { "metadata": metadata, "subscription": it.subscription } },
        "period_start": it.period_start, "period_end": it.period_end, "starting_balance": it.starting_balance,
        "status": it.status, "status_transitions": { "finalized_at": it.finalized_at,
            "marked_uncollectible_at": it.uncollectible_at, "paid_at": it.paid_at, "voided_at": it.voided_at },
        "subtotal": total, "subtotal_excluding_tax": total, "total": total, "total_excluding_tax": total,
    });
    let same_for_all = json!({
        "amount_overpaid": 0, "amount_shipping": 0,
        "automatic_tax": { "enabled": false, "liability": null, "status": null, "disabled_reason": null,
            "provider": null },
        "collection_method": "charge_automatically", "customer_tax_ids": [], "default_tax_rates": [],
        "discounts": [], "invoice_pdf": null, "issuer": { "type": "self" }, "livemode": false, "metadata": {},
        "payment_settings": { "default_mandate": null, "payment_method_options": null,
            "payment_method_types": null },
        "post_payment_credit_notes_amount": 0, "pre_payment_credit_notes_amount": 0, "receipt_number": null,
        "test_clock": null, "total_discount_amounts": [], "total_pretax_credit_amounts": [],
        "total_taxes": [],
    });
    if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), same_for_all) {
        object.extend(rest);
    }
    object
}

fn line(account: &Account, of: &Invoice, it: &Line) -> Value {
    let price = account.prices.get(&it.price);
    let unit = price.and_then(|price| match &price.scheme {
        Scheme::PerUnit { unit, .. } => Some(unit.text()),
        Scheme::Graduated(_) | Scheme::Volume(_) => None,
    });
    let parent = if it.proration {
        json!({ "type": "invoice_item_details", "subscription_item_details": null, "invoice_item_details": {
            "invoice_item": format!("ii_{}", it.id), "proration": true, "subscription": of.subscription,
            "proration_details": { "credited_items": null } } })
    } else {
        json!({ "type": "subscription_item_details", "invoice_item_details": null,
        "subscription_item_details": {
            "invoice_item": null, "proration": false, "subscription": of.subscription,
            "subscription_item": it.item, "proration_details": { "credited_items": null } } })
    };
    json!({
        "id": it.id, "object": "line_item", "amount": it.amount, "currency": of.currency,
        "description": it.description, "discount_amounts": [], "discountable": true, "discounts": [],
        "invoice": of.id, "livemode": false, "metadata": {}, "parent": parent,
        "period": { "start": it.start, "end": it.end }, "pretax_credit_amounts": [],
        "pricing": { "type": "price_details", "unit_amount_decimal": unit, "price_details": {
            "price": it.price, "product": price.map_or("", |price| price.product.as_str()) } },
        "quantity": it.quantity, "subscription": of.subscription, "subtotal": it.amount, "taxes": [],
    })
}

pub fn checkout(account: &Account, it: &Checkout) -> Value {
    let open = it.status == "open";
    json!({
        "id": it.id, "object": "checkout.session", "automatic_tax": { "enabled": false, "liability": null,
            "provider": null, "status": null },
        "cancel_url": it.cancel_url, "created": it.created, "custom_fields": [], "custom_text": {
            "after_submit": null, "shipping_address": null, "submit": null },
        "customer": it.customer, "expires_at": it.expires_at, "livemode": false, "metadata": it.metadata,
        "mode": "subscription", "payment_method_types": ["card"],
        "payment_status": if it.status == "complete" { "paid" } else { "unpaid" }, "shipping_options": [],
        "status": it.status, "subscription": it.subscription, "success_url": it.success_url,
        "url": open.then(|| format!("{}/_fake/checkout/{}", account.base, it.id)),
    })
}

pub fn list(data: Vec<Value>, has_more: bool, url: &str) -> Value {
    json!({ "object": "list", "data": data, "has_more": has_more, "url": url })
}
