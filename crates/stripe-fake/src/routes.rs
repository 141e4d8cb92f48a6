//! The calls of Stripe's API that the fake answers.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::account::{Account, Checkout, Customer, Event, Meter, MeterEvent, Price, Product};
use crate::collect::DAY;
use crate::money::{Scheme, Tier, UnitAmount};
use crate::params::Params;
use crate::problem::Problem;
use crate::{Card, objects};

type Answer = Result<Value, Problem>;

/// Answers a call of the API. `path` is what follows `/v1/`.
pub fn answer(account: &mut Account, method: &str, path: &str, params: &Params) -> Answer {
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match (method, segments.as_slice()) {
        ("POST", ["customers"]) => create_customer(account, params),
        ("GET", ["customers"]) => list_customers(account, params),
        ("GET", ["customers", "search"]) => search_customers(account, params),
        ("GET", ["customers", id]) => customer(account, id),
        ("POST", ["customers", id]) => update_customer(account, id, params),
        ("DELETE", ["customers", id]) => delete_customer(account, id),
        ("POST", ["products"]) => create_product(account, params),
        ("GET", ["products"]) => list_products(account, params),
        ("GET", ["products", id]) => product(account, id),
        ("POST", ["prices"]) => create_price(account, params),
        ("GET", ["prices"]) => list_prices(account, params),
        ("GET", ["prices", id]) => price(account, id, params),
        ("POST", ["prices", id]) => update_price(account, id, params),
        ("POST", ["billing", "meters"]) => create_meter(account, params),
        ("GET", ["billing", "meters"]) => list_meters(account, params),
        ("GET", ["billing", "meters", id]) => Ok(objects::meter(meter(account, id)?)),
        ("GET", ["billing", "meters", id, "event_summaries"]) => summaries(account, id, params),
        ("POST", ["billing", "meter_events"]) => create_meter_event(account, params),
        ("POST", ["billing", "meter_event_adjustments"]) => cancel_meter_event(account, params),
        (_, ["subscriptions", ..]) => of_subscriptions(account, method, path, params),
        (_, ["invoices", ..]) => of_invoices(account, method, path, params),
        ("POST", ["checkout", "sessions"]) => create_checkout(account, params),
        ("GET", ["checkout", "sessions"]) => list_checkouts(account, params),
        ("GET", ["checkout", "sessions", id]) => checkout(account, id),
        ("POST", ["checkout", "sessions", id, "expire"]) => expire_checkout(account, id),
        ("POST", ["billing_portal", "sessions"]) => create_portal(account, params),
        ("GET", ["events"]) => list_events(account, params),
        ("GET", ["events", id]) => event(account, id),
        ("POST", ["test_helpers", "test_clocks"]) => create_test_clock(account, params),
        ("GET", ["test_helpers", "test_clocks", id]) => test_clock(account, id),
        ("POST", ["test_helpers", "test_clocks", id, "advance"]) => advance_test_clock(account, id, params),
        (method, _) => Err(Problem::no_route(method, &format!("/v1/{path}"))),
    }
}

/// Answers a call of the API below `/v1/subscriptions`.
fn of_subscriptions(account: &mut Account, method: &str, path: &str, params: &Params) -> Answer {
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match (method, &segments[1..]) {
        ("POST", []) => {
            let id = account.subscribe(params)?;
            subscription(account, &id)
        }
        ("GET", []) => list_subscriptions(account, params),
        ("GET", [id]) => subscription(account, id),
        ("POST", [id]) => {
            account.change(id, params)?;
            subscription(account, id)
        }
        ("DELETE", [id]) => {
            account.cancel(id, params)?;
            subscription(account, id)
        }
        (method, _) => Err(Problem::no_route(method, &format!("/v1/{path}"))),
    }
}

/// Answers a call of the API below `/v1/invoices`.
fn of_invoices(account: &mut Account, method: &str, path: &str, params: &Params) -> Answer {
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match (method, &segments[1..]) {
        ("POST", ["create_preview"]) => preview(account, params),
        ("GET", []) => list_invoices(account, params),
        ("GET", [id]) => invoice(account, id),
        ("GET", [id, "lines"]) => {
            let known = account
                .invoices
                .get(*id)
                .ok_or_else(|| Problem::no_such("invoice", id, None))?;
            page(
                objects::invoice_lines(account, known),
                params,
                &format!("/v1/{path}"),
            )
        }
        ("POST", [id, "pay"]) => pay_invoice(account, id),
        ("POST", [id, "finalize"]) => {
            invoice(account, id)?;
            account.finalize(id);
            invoice(account, id)
        }
        ("POST", [id, "void"]) => {
            invoice(account, id)?;
            account.write_off(id, "void")?;
            invoice(account, id)
        }
        ("POST", [id, "mark_uncollectible"]) => {
            invoice(account, id)?;
            account.write_off(id, "uncollectible")?;
            invoice(account, id)
        }
        (method, _) => Err(Problem::no_route(method, &format!("/v1/{path}"))),
    }
}

fn create_customer(account: &mut Account, params: &Params) -> Answer {
    let made = Customer {
        id: account.id("cus"),
        created: account.now,
        name: params.text("name"),
        email: params.text("email"),
        metadata: params.metadata().unwrap_or_default(),
        deleted: false,
        card: account.default_card,
        balance: 0,
    };
    let object = objects::customer(&made);
    account.customers.insert(made.id.clone(), made);
    account.happened("customer.created", object.clone(), None);
    Ok(object)
}

fn customer(account: &Account, id: &str) -> Answer {
    let known = account.customers.get(id);
    known
        .map(objects::customer)
        .ok_or_else(|| Problem::no_such("customer", id, None))
}

fn update_customer(account: &mut Account, id: &str, params: &Params) -> Answer {
    let known = account.customers.get_mut(id).filter(|it| !it.deleted);
    let known = known.ok_or_else(|| Problem::no_such("customer", id, None))?;
    known.name = params.text("name").or_else(|| known.name.take());
    known.email = params.text("email").or_else(|| known.email.take());
    known.metadata.extend(params.metadata().unwrap_or_default());
    let object = objects::customer(known);
    account.happened("customer.updated", object.clone(), None);
    Ok(object)
}

/// Removes a customer and ends its subscriptions.
pub fn delete_customer(account: &mut Account, id: &str) -> Answer {
    let known = account.customers.get_mut(id).filter(|it| !it.deleted);
    let known = known.ok_or_else(|| Problem::no_such("customer", id, None))?;
    let last = objects::customer(known);
    known.deleted = true;
    let object = objects::customer(known);
    let of_it = account
        .subscriptions
        .values()
        .filter(|it| it.customer == id && it.ended_at.is_none());
    let subscriptions: Vec<String> = of_it.map(|it| it.id.clone()).collect();
    for subscription in subscriptions {
        account.end(&subscription, "cancellation_requested");
    }
    account.happened("customer.deleted", last, None);
    Ok(object)
}

fn list_customers(account: &Account, params: &Params) -> Answer {
    let email = params.text("email");
    let fits = |it: &&Customer| !it.deleted && (email.is_none() || it.email == email);
    let found = account
        .customers
        .values()
        .rev()
        .filter(fits)
        .map(objects::customer);
    page(found.collect(), params, "/v1/customers")
}

/// Of Stripe's search language what is needed: `metadata['key']:'value'`, `email:'value'`, joined by `AND`.
fn search_customers(account: &Account, params: &Params) -> Answer {
    let query = params.required("query")?;
    let unreadable = || Problem::invalid("parameter_invalid", "query", "The query is not understood.");
    let mut clauses = Vec::new();
    for clause in query.split(" AND ") {
        let (field, value) = clause.split_once(':').ok_or_else(unreadable)?;
        let value = value.trim().trim_matches(['\'', '"']);
        let key = field
            .trim()
            .strip_prefix("metadata[")
            .and_then(|rest| rest.strip_suffix(']'));
        match (field.trim(), key) {
            ("email", _) => clauses.push((None, value)),
            (_, Some(key)) => clauses.push((Some(key.trim_matches(['\'', '"'])), value)),
            (_, None) => return Err(unreadable()),
        }
    }
    let holds = |it: &Customer, (key, value): &(Option<&str>, &str)| match key {
        None => it.email.as_deref() == Some(*value),
        Some(key) => it.metadata.get(*key).and_then(Value::as_str) == Some(*value),
    };
    let fits = |it: &&Customer| !it.deleted && clauses.iter().all(|clause| holds(it, clause));
    let found: Vec<Value> = account
        .customers
        .values()
        .rev()
        .filter(fits)
        .map(objects::customer)
        .collect();
    let (limit, skip) = (limit(params)?, params.number::<usize>("page")?.unwrap_or(0));
    let more = found.len() > skip + limit;
    let data: Vec<Value> = found.into_iter().skip(skip).take(limit).collect();
    Ok(json!({
        "object": "search_result", "url": "/v1/customers/search", "has_more": more, "data": data,
        "next_page": more.then(|| (skip + limit).to_string()),
    }))
}

fn create_product(account: &mut Account, params: &Params) -> Answer {
    let name = params.required("name")?;
    let id = params.text("id").unwrap_or_else(|| account.id("prod"));
    if account.products.contains_key(&id) {
        return Err(Problem::refused(
            "resource_already_exists",
            "Product already exists.",
        ));
    }
    let made = Product {
        id: id.clone(),
        created: account.now,
        name,
        metadata: params.metadata().unwrap_or_default(),
    };
    let object = objects::product(&made);
    account.products.insert(id, made);
    account.happened("product.created", object.clone(), None);
    Ok(object)
}

fn product(account: &Account, id: &str) -> Answer {
    let known = account.products.get(id);
    known
        .map(objects::product)
        .ok_or_else(|| Problem::no_such("product", id, None))
}

fn list_products(account: &Account, params: &Params) -> Answer {
    let ids = params.texts("ids");
    let fits = |it: &&Product| ids.is_empty() || ids.contains(&it.id);
    let found = account.products.values().rev().filter(fits).map(objects::product);
    page(found.collect(), params, "/v1/products")
}

fn create_price(account: &mut Account, params: &Params) -> Answer {
    let currency = params.required("currency")?;
    let product = params.required("product")?;
    if !account.products.contains_key(&product) {
        return Err(Problem::no_such("product", &product, Some("product")));
    }
    let lookup_key = params.text("lookup_key");
    let taken = |it: &Price| it.active && it.lookup_key.is_some() && it.lookup_key == lookup_key;
    if account.prices.values().any(taken) {
        let text = "A price already uses that lookup key.";
        return Err(Problem::invalid("resource_already_exists", "lookup_key", text));
    }
    let recurring = params.below("recurring");
    let (months, meter) = match &recurring {
        None => (None, None),
        Some(recurring) => (Some(months(recurring)?), metered_by(account, recurring)?),
    };
    let made = Price {
        id: account.id("price"),
        created: account.now,
        active: true,
        product,
        currency,
        lookup_key,
        scheme: scheme(params)?,
        months,
        meter,
        metadata: params.metadata().unwrap_or_default(),
    };
    let object = objects::price(&made);
    account.prices.insert(made.id.clone(), made);
    account.happened("price.created", object.clone(), None);
    Ok(object)
}

fn months(recurring: &Params) -> Result<u32, Problem> {
    let count = recurring.number::<u32>("interval_count")?.unwrap_or(1);
    match recurring.required("interval")?.as_str() {
        "month" => Ok(count),
        "year" => Ok(count * 12),
        other => {
            let text = format!("The fake bills by month and by year, not by {other}.");
            Err(Problem::invalid(
                "parameter_invalid",
                "recurring[interval]",
                &text,
            ))
        }
    }
}

fn metered_by(account: &Account, recurring: &Params) -> Result<Option<String>, Problem> {
    match recurring.text("usage_type").as_deref() {
        None | Some("licensed") => Ok(None),
        // Since version 2025-03-31.basil there is no metered price without a meter.
        Some(_) => {
            let id = recurring.required("meter")?;
            let known = account.meters.contains_key(&id);
            known
                .then_some(Some(id.clone()))
                .ok_or_else(|| Problem::no_such("billing meter", &id, Some("recurring[meter]")))
        }
    }
}

fn scheme(params: &Params) -> Result<Scheme, Problem> {
    let package = params.below("transform_quantity");
    if params.text("billing_scheme").as_deref() != Some("tiered") {
        let unit = unit(params)?.ok_or_else(|| Problem::missing("unit_amount"))?;
        let package = match package {
            None => None,
            Some(package) => {
                let size = package.number("divide_by")?.filter(|size| *size > 0);
                let size = size.ok_or_else(|| Problem::missing("transform_quantity[divide_by]"))?;
                Some((size, package.required("round")? == "up"))
            }
        };
        return Ok(Scheme::PerUnit { unit, package });
    }
    if package.is_some() {
        let text = "`transform_quantity` cannot be combined with `tiers`.";
        return Err(Problem::invalid(
            "parameters_exclusive",
            "transform_quantity",
            text,
        ));
    }
    let tiers = tiers(params)?;
    match params.required("tiers_mode")?.as_str() {
        "graduated" => Ok(Scheme::Graduated(tiers)),
        "volume" => Ok(Scheme::Volume(tiers)),
        _ => Err(Problem::invalid(
            "parameter_invalid",
            "tiers_mode",
            "Invalid tiers_mode",
        )),
    }
}

fn tiers(params: &Params) -> Result<Vec<Tier>, Problem> {
    let mut tiers = Vec::new();
    for given in params.list("tiers") {
        let up_to = match given.required("up_to")?.as_str() {
            "inf" => None,
            _ => given.number("up_to")?,
        };
        let unit = unit(&given)?.unwrap_or(UnitAmount::whole(0));
        let flat = given.number("flat_amount")?.unwrap_or(0);
        tiers.push(Tier { up_to, unit, flat });
    }
    let rising = tiers
        .windows(2)
        .all(|pair| pair[0].up_to.is_some() && pair[0].up_to < pair[1].up_to.or(Some(u64::MAX)));
    if tiers.last().is_none_or(|last| last.up_to.is_some()) || !rising {
        let text = "Tiers must rise, and the last one must be `inf`.";
        return Err(Problem::invalid("parameter_invalid", "tiers", text));
    }
    Ok(tiers)
}

fn unit(params: &Params) -> Result<Option<UnitAmount>, Problem> {
    let decimal = params.text("unit_amount_decimal");
    let invalid = || Problem::invalid("parameter_invalid_integer", "unit_amount", "Invalid amount");
    match (params.number::<i64>("unit_amount")?, decimal) {
        (Some(amount), None) if amount < 0 => Err(invalid()),
        (Some(amount), None) => Ok(Some(UnitAmount::whole(amount))),
        (None, Some(text)) => UnitAmount::parse(&text).map(Some).ok_or_else(invalid),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::invalid(
            "parameters_exclusive",
            "unit_amount",
            "You may only specify one of these parameters: unit_amount, unit_amount_decimal.",
        )),
    }
}

fn price(account: &Account, id: &str, params: &Params) -> Answer {
    let known = account
        .prices
        .get(id)
        .ok_or_else(|| Problem::no_such("price", id, None))?;
    let expanded = params.texts("expand").iter().any(|name| name == "tiers");
    Ok(if expanded {
        objects::price_with_tiers(known)
    } else {
        objects::price(known)
    })
}

fn update_price(account: &mut Account, id: &str, params: &Params) -> Answer {
    let active = params.truth("active")?;
    let known = account
        .prices
        .get_mut(id)
        .ok_or_else(|| Problem::no_such("price", id, None))?;
    known.active = active.unwrap_or(known.active);
    known.metadata.extend(params.metadata().unwrap_or_default());
    Ok(objects::price(known))
}

fn list_prices(account: &Account, params: &Params) -> Answer {
    let keys = params.texts("lookup_keys");
    if keys.len() > 10 {
        let text = "You may only look up to 10 lookup_keys at once.";
        return Err(Problem::invalid("parameter_invalid", "lookup_keys", text));
    }
    let (product, active) = (params.text("product"), params.truth("active")?);
    let named = |it: &Price| it.lookup_key.as_ref().is_some_and(|key| keys.contains(key));
    let fits = |it: &&Price| {
        (keys.is_empty() || named(it))
            && product.as_ref().is_none_or(|product| *product == it.product)
            && active.is_none_or(|active| active == it.active)
    };
    let expanded = params.texts("expand").iter().any(|name| name == "data.tiers");
    let object = if expanded {
        objects::price_with_tiers
    } else {
        objects::price
    };
    let found = account.prices.values().rev().filter(fits).map(object);
    page(found.collect(), params, "/v1/prices")
}

fn create_meter(account: &mut Account, params: &Params) -> Answer {
    let event_name = params.required("event_name")?;
    if account.meter_named(&event_name).is_some() {
        let text = format!("There is already an active meter for event name '{event_name}'.");
        return Err(Problem::invalid("resource_already_exists", "event_name", &text));
    }
    let formula = params
        .below("default_aggregation")
        .unwrap_or_default()
        .required("formula")?;
    if !["count", "last", "sum"].contains(&formula.as_str()) {
        return Err(Problem::invalid(
            "parameter_invalid",
            "default_aggregation[formula]",
            "Invalid formula",
        ));
    }
    let key = |name: &str, below: &str, usual: &str| {
        let given = params.below(name).and_then(|mapping| mapping.text(below));
        given.unwrap_or_else(|| usual.to_owned())
    };
    let made = Meter {
        id: account.id("mtr"),
        created: account.now,
        display_name: params.required("display_name")?,
        event_name,
        formula,
        customer_key: key("customer_mapping", "event_payload_key", "stripe_customer_id"),
        value_key: key("value_settings", "event_payload_key", "value"),
    };
    let object = objects::meter(&made);
    account.meters.insert(made.id.clone(), made);
    account.happened("billing.meter.created", object.clone(), None);
    Ok(object)
}

fn list_meters(account: &Account, params: &Params) -> Answer {
    let found = account.meters.values().rev().map(objects::meter);
    page(found.collect(), params, "/v1/billing/meters")
}

fn meter<'a>(account: &'a Account, id: &str) -> Result<&'a Meter, Problem> {
    account
        .meters
        .get(id)
        .ok_or_else(|| Problem::no_such("billing meter", id, None))
}

fn create_meter_event(account: &mut Account, params: &Params) -> Answer {
    let event_name = params.required("event_name")?;
    let timestamp = params.number("timestamp")?.unwrap_or(account.now);
    if timestamp < account.now - 35 * DAY {
        let text = "The timestamp must be within the past 35 calendar days.";
        return Err(Problem::invalid("timestamp_too_far_in_past", "timestamp", text));
    }
    if timestamp > account.now + 300 {
        let text = "The timestamp must be at most 5 minutes in the future.";
        return Err(Problem::invalid("timestamp_in_future", "timestamp", text));
    }
    let Some(meter) = account.meter_named(&event_name).cloned() else {
        let text = format!("No active meter found for event name '{event_name}'.");
        return Err(Problem::invalid("no_meter", "event_name", &text));
    };
    let payload = params
        .below("payload")
        .ok_or_else(|| Problem::missing("payload"))?;
    let customer = payload.required(&meter.customer_key)?;
    let value = payload.number::<u64>(&meter.value_key)?;
    let value = value.ok_or_else(|| Problem::missing(&format!("payload[{}]", meter.value_key)))?;
    let identifier = params.text("identifier").unwrap_or_else(|| account.id("mev"));
    if identifier.len() > 100 {
        return Err(Problem::invalid(
            "parameter_invalid",
            "identifier",
            "At most 100 characters.",
        ));
    }
    let remembered = account.now - DAY;
    if account
        .meter_events
        .iter()
        .any(|it| it.identifier == identifier && it.received > remembered)
    {
        let text = format!("An event already exists with identifier {identifier}.");
        return Err(Problem::invalid("duplicate_meter_event", "identifier", &text));
    }
    let known = account.customers.get(&customer).is_some_and(|it| !it.deleted);
    let made = MeterEvent {
        identifier,
        event_name,
        customer,
        value,
        timestamp,
        received: account.now,
        cancelled: false,
    };
    let object = objects::meter_event(&made, &meter);
    if known {
        account.meter_events.push(made);
    } else {
        // Of an unknown customer one hears afterwards only.
        account.happened_thin("v1.billing.meter.error_report_triggered", Some(&meter.id));
    }
    Ok(object)
}

fn cancel_meter_event(account: &mut Account, params: &Params) -> Answer {
    let event_name = params.required("event_name")?;
    let identifier = params
        .below("cancel")
        .unwrap_or_default()
        .required("identifier")?;
    if params.required("type")? != "cancel" {
        return Err(Problem::invalid(
            "parameter_invalid",
            "type",
            "Invalid type: must be cancel",
        ));
    }
    let now = account.now;
    let known = account
        .meter_events
        .iter_mut()
        .rev()
        .find(|it| it.event_name == event_name && it.identifier == identifier);
    let known =
        known.ok_or_else(|| Problem::no_such("meter event", &identifier, Some("cancel[identifier]")))?;
    if known.received < now - DAY {
        let text = "Meter events can be cancelled within 24 hours of being received only.";
        return Err(Problem::invalid("parameter_invalid", "cancel[identifier]", text));
    }
    known.cancelled = true;
    Ok(json!({
        "object": "billing.meter_event_adjustment", "cancel": { "identifier": identifier },
        "event_name": event_name, "livemode": false, "status": "complete", "type": "cancel",
    }))
}

fn summaries(account: &Account, id: &str, params: &Params) -> Answer {
    let meter = meter(account, id)?;
    let customer = params.required("customer")?;
    let bound = |name: &str| {
        let at = params
            .number::<i64>(name)?
            .ok_or_else(|| Problem::missing(name))?;
        let text = "Must be aligned with minute boundaries.";
        if at % 60 == 0 {
            Ok(at)
        } else {
            Err(Problem::invalid("parameter_invalid", name, text))
        }
    };
    let (start, end) = (bound("start_time")?, bound("end_time")?);
    if start >= end {
        return Err(Problem::invalid(
            "parameter_invalid",
            "end_time",
            "Must be after start_time.",
        ));
    }
    let step = match params.text("value_grouping_window").as_deref() {
        None => end - start,
        Some("hour") => 3_600,
        Some("day") => DAY,
        Some(_) => {
            return Err(Problem::invalid(
                "parameter_invalid",
                "value_grouping_window",
                "hour or day",
            ));
        }
    };
    let mut found = Vec::new();
    let mut from = start;
    while from < end {
        let until = (from + step).min(end);
        let value = account.counted(meter, &customer, from, until);
        if value > 0 {
            found.push(objects::summary(meter, from, until, value));
        }
        from = until;
    }
    found.reverse();
    page(found, params, &format!("/v1/billing/meters/{id}/event_summaries"))
}

fn subscription(account: &Account, id: &str) -> Answer {
    let known = account.subscriptions.get(id);
    known
        .map(|it| objects::subscription(account, it))
        .ok_or_else(|| Problem::no_such("subscription", id, None))
}

fn list_subscriptions(account: &Account, params: &Params) -> Answer {
    let customer = params.text("customer");
    let status = params.text("status");
    let fits = |it: &&crate::account::Subscription| {
        customer.as_ref().is_none_or(|customer| *customer == it.customer)
            && match status.as_deref() {
                None => it.status != "canceled" && it.status != "incomplete_expired",
                Some("all") => true,
                Some("ended") => it.ended_at.is_some(),
                Some(status) => it.status == status,
            }
    };
    let found = account.subscriptions.values().rev().filter(fits);
    let found = found.map(|it| objects::subscription(account, it)).collect();
    page(found, params, "/v1/subscriptions")
}

fn preview(account: &Account, params: &Params) -> Answer {
    let id = params.required("subscription")?;
    let change = params.below("subscription_details").unwrap_or_default();
    let invoice = account
        .preview(&id, &change)?
        .ok_or_else(Problem::nothing_upcoming)?;
    Ok(objects::invoice(account, &invoice))
}

fn invoice(account: &Account, id: &str) -> Answer {
    let known = account.invoices.get(id);
    known
        .map(|it| objects::invoice(account, it))
        .ok_or_else(|| Problem::no_such("invoice", id, None))
}

/// Without a card nothing is tried at all.
fn pay_invoice(account: &mut Account, id: &str) -> Answer {
    let customer = account
        .invoices
        .get(id)
        .and_then(|it| account.customers.get(&it.customer));
    if customer.is_some_and(|it| it.card == Card::Missing) {
        let text = "There is no default payment method set on this Customer or Invoice.";
        return Err(Problem::refused("invoice_no_payment_method_types", text));
    }
    account.attempt(id)?;
    invoice(account, id)
}

fn list_invoices(account: &Account, params: &Params) -> Answer {
    let wanted = ["customer", "subscription", "status"].map(|name| params.text(name));
    let fits = |it: &&crate::account::Invoice| {
        let has = [it.customer.as_str(), it.subscription.as_str(), it.status];
        wanted
            .iter()
            .zip(has)
            .all(|(wanted, has)| wanted.as_ref().is_none_or(|wanted| wanted == has))
    };
    let found = account.invoices.values().rev().filter(fits);
    let found = found.map(|it| objects::invoice(account, it)).collect();
    page(found, params, "/v1/invoices")
}

fn create_checkout(account: &mut Account, params: &Params) -> Answer {
    if params.required("mode")? != "subscription" {
        return Err(Problem::invalid(
            "parameter_invalid",
            "mode",
            "The fake sells subscriptions only.",
        ));
    }
    let customer = params.text("customer");
    if let Some(id) = customer
        .as_ref()
        .filter(|id| !account.customers.contains_key(*id))
    {
        return Err(Problem::no_such("customer", id, Some("customer")));
    }
    let details = params.below("subscription_data").unwrap_or_default();
    // What the customer agrees to, as the subscription will be asked for; tried now, so that it is refused
    // now.
    let asked = params
        .only(&["line_items", "automatic_tax"])
        .renamed("line_items", "items");
    let order = details.merged(asked);
    if let Some(id) = &customer {
        let tried = order
            .clone()
            .with("customer", id)
            .with("payment_behavior", "default_incomplete");
        account.clone().subscribe(&tried)?;
    }
    let prices = order
        .list("items")
        .into_iter()
        .filter_map(|item| item.text("price"));
    let intervals: Vec<_> = prices
        .map(|id| account.prices.get(&id).and_then(|it| it.months))
        .collect();
    if intervals.windows(2).any(|pair| pair[0] != pair[1]) {
        let text = "Checkout does not currently support multiple prices with different billing intervals.";
        return Err(Problem::invalid("parameter_invalid", "line_items", text));
    }
    let made = Checkout {
        id: account.id("cs_test"),
        customer,
        created: account.now,
        expires_at: account.now + DAY,
        status: "open",
        subscription: None,
        order,
        success_url: params.text("success_url"),
        cancel_url: params.text("cancel_url"),
        metadata: params.metadata().unwrap_or_default(),
    };
    let object = objects::checkout(account, &made);
    account.checkouts.insert(made.id.clone(), made);
    Ok(object)
}

fn checkout(account: &Account, id: &str) -> Answer {
    let known = account.checkouts.get(id);
    known
        .map(|it| objects::checkout(account, it))
        .ok_or_else(|| Problem::no_such("checkout.session", id, None))
}

fn list_checkouts(account: &Account, params: &Params) -> Answer {
    let wanted = ["customer", "status"].map(|name| params.text(name));
    let fits = |it: &&Checkout| {
        let has = [it.customer.as_deref(), Some(it.status)];
        let mut both = wanted.iter().zip(has);
        both.all(|(wanted, has)| wanted.is_none() || wanted.as_deref() == has)
    };
    let found = account.checkouts.values().rev().filter(fits);
    let found = found.map(|it| objects::checkout(account, it)).collect();
    page(found, params, "/v1/checkout/sessions")
}

fn expire_checkout(account: &mut Account, id: &str) -> Answer {
    if checkout(account, id)?["status"] != "open" {
        let text = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
        return Err(Problem::refused("", text));
    }
    account.expire_checkout(id);
    checkout(account, id)
}

/// Somebody has paid in a checkout: there is a card now, and a subscription. Returns its id.
pub fn complete_checkout(account: &mut Account, id: &str) -> Result<String, Problem> {
    let Some(session) = account.checkouts.get(id).cloned() else {
        return Err(Problem::no_such("checkout.session", id, None));
    };
    if session.status != "open" {
        return Err(Problem::refused("checkout_not_open", "The session is not open."));
    }
    let customer = match session.customer {
        Some(customer) => customer,
        None => {
            let made = create_customer(account, &Params::default())?;
            made["id"].as_str().unwrap_or_default().to_owned()
        }
    };
    if let Some(customer) = account.customers.get_mut(&customer) {
        customer.card = Card::Pays;
    }
    let subscription = account.subscribe(&session.order.with("customer", &customer))?;
    if let Some(session) = account.checkouts.get_mut(id) {
        session.status = "complete";
        session.customer = Some(customer);
        session.subscription = Some(subscription.clone());
    }
    let object = checkout(account, id)?;
    account.happened("checkout.session.completed", object, None);
    Ok(subscription)
}

fn create_portal(account: &mut Account, params: &Params) -> Answer {
    let customer = params.required("customer")?;
    if account.customers.get(&customer).is_none_or(|it| it.deleted) {
        return Err(Problem::no_such("customer", &customer, Some("customer")));
    }
    let id = account.id("bps");
    Ok(json!({
        "id": id, "object": "billing_portal.session", "configuration": "bpc_fake", "created": account.now,
        "customer": customer, "flow": null, "livemode": false, "locale": null, "on_behalf_of": null,
        "return_url": params.text("return_url"), "url": format!("{}/_fake/portal/{customer}", account.base),
    }))
}

fn list_events(account: &Account, params: &Params) -> Answer {
    let mut kinds = params.texts("types");
    kinds.extend(params.text("type"));
    let created = params.below("created").unwrap_or_default();
    let [gte, gt, lte, lt] = [
        created.number::<i64>("gte")?,
        created.number::<i64>("gt")?,
        created.number::<i64>("lte")?,
        created.number::<i64>("lt")?,
    ];
    let named = |kind: &str| {
        kinds.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(begin) => kind.starts_with(begin),
            None => kind == wanted,
        })
    };
    // Stripe lists those of the last thirty days.
    let oldest = account.now - 30 * DAY;
    let fits = |it: &&Arc<Event>| {
        !it.thin
            && it.created >= oldest
            && (kinds.is_empty() || named(&it.kind))
            && gte.is_none_or(|at| it.created >= at)
            && gt.is_none_or(|at| it.created > at)
            && lte.is_none_or(|at| it.created <= at)
            && lt.is_none_or(|at| it.created < at)
    };
    let found = account.events.iter().rev().filter(fits).map(|it| it.body.clone());
    page(found.collect(), params, "/v1/events")
}

fn event(account: &Account, id: &str) -> Answer {
    let known = account.events.iter().find(|it| it.id == id && !it.thin);
    known
        .map(|it| it.body.clone())
        .ok_or_else(|| Problem::no_such("event", id, None))
}

fn create_test_clock(account: &mut Account, params: &Params) -> Answer {
    let frozen = params
        .number::<i64>("frozen_time")?
        .ok_or_else(|| Problem::missing("frozen_time"))?;
    let id = account.id("clock");
    let object = json!({
        "id": id, "object": "test_helpers.test_clock", "created": account.now,
        "deletes_after": account.now + 30 * DAY,
        "frozen_time": frozen, "livemode": false, "name": params.text("name"), "status": "ready",
        "status_details": {},
    });
    account.test_clocks.insert(id, object.clone());
    Ok(object)
}

fn test_clock(account: &Account, id: &str) -> Answer {
    let known = account.test_clocks.get(id);
    known
        .cloned()
        .ok_or_else(|| Problem::no_such("testclock", id, None))
}

/// There is one clock, and it only goes forward: what is made under a test clock lives by it like everything
/// else.
fn advance_test_clock(account: &mut Account, id: &str, params: &Params) -> Answer {
    test_clock(account, id)?;
    let to = params
        .number::<i64>("frozen_time")?
        .ok_or_else(|| Problem::missing("frozen_time"))?;
    account.run_to(to);
    let clock = account
        .test_clocks
        .get_mut(id)
        .ok_or_else(|| Problem::no_such("testclock", id, None))?;
    clock["frozen_time"] = json!(to);
    Ok(clock.clone())
}

fn limit(params: &Params) -> Result<usize, Problem> {
    let limit = params.number::<usize>("limit")?.unwrap_or(10);
    if (1..=100).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::invalid(
            "parameter_invalid_integer",
            "limit",
            "The limit is 1 to 100.",
        ))
    }
}

/// A page of what was found, in its order.
fn page(found: Vec<Value>, params: &Params, url: &str) -> Answer {
    let limit = limit(params)?;
    let position = |name: &str| match params.text(name) {
        None => Ok(None),
        Some(id) => {
            let at = found.iter().position(|it| it["id"] == id.as_str());
            at.map(Some)
                .ok_or_else(|| Problem::no_such("object", &id, Some(name)))
        }
    };
    let (after, before) = (position("starting_after")?, position("ending_before")?);
    let range = match (after, before) {
        (_, Some(end)) => end.saturating_sub(limit)..end,
        (after, None) => after.map_or(0, |at| at + 1)..found.len(),
    };
    let more = if before.is_some() {
        range.start > 0
    } else {
        range.len() > limit
    };
    let data = found[range].iter().take(limit).cloned().collect();
    Ok(objects::list(data, more, url))
}
