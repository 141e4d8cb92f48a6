//! What the fake remembers. Times are Unix seconds, amounts are in the currency's minor unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::money::Scheme;
use crate::{Card, Exhausted};

/// The API version whose shapes are spoken.
pub const API_VERSION: &str = "2026-09-30.endive";

#[derive(Debug, Clone)]
pub struct Customer {
    pub id: String,
    pub created: i64,
    pub name: Option<String>,
    pub email: Option<String>,
    pub metadata: Map<String, Value>,
    pub deleted: bool,
    pub card: Card,
    /// Negative: what is given back with the next invoice.
    pub balance: i64,
}

#[derive(Debug, Clone)]
pub struct Product {
    pub id: String,
    pub created: i64,
    pub name: String,
    pub metadata: Map<String, Value>,
}

#[derive(Debug, Clone)]
pub struct Price {
    pub id: String,
    pub created: i64,
    pub active: bool,
    pub product: String,
    pub currency: String,
    pub lookup_key: Option<String>,
    pub scheme: Scheme,
    /// How many months a period has; `None` is for a price that is paid once.
    pub months: Option<u32>,
    /// Where usage is counted that is paid afterwards.
    pub meter: Option<String>,
    pub metadata: Map<String, Value>,
}

#[derive(Debug, Clone)]
pub struct Meter {
    pub id: String,
    pub created: i64,
    pub display_name: String,
    pub event_name: String,
    /// `sum`, `count` or `last`.
    pub formula: String,
    pub customer_key: String,
    pub value_key: String,
}

#[derive(Debug, Clone)]
pub struct MeterEvent {
    pub identifier: String,
    pub event_name: String,
    pub customer: String,
    pub value: u64,
    pub timestamp: i64,
    pub received: i64,
    pub cancelled: bool,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub id: String,
    pub created: i64,
    /// From when on usage counts under this price.
    pub since: i64,
    pub period_start: i64,
    pub period_end: i64,
    pub price: String,
    /// None where usage is counted.
    pub quantity: Option<u64>,
    pub metadata: Map<String, Value>,
}

#[derive(Debug, Clone)]
pub struct Subscription {
    pub id: String,
    pub customer: String,
    pub created: i64,
    pub anchor: i64,
    pub status: &'static str,
    /// Each with a period of its own: what is paid by the year and what by the month may stand beside one
    /// another.
    pub items: Vec<Item>,
    pub metadata: Map<String, Value>,
    pub trial: Option<(i64, i64)>,
    /// Whether it ends with its trial when the customer has no card then; else it is billed all the same.
    pub cancels_without_card: bool,
    pub cancel_at_period_end: bool,
    pub canceled_at: Option<i64>,
    pub cancel_reason: Option<&'static str>,
    pub ended_at: Option<i64>,
    pub automatic_tax: bool,
    pub latest_invoice: Option<String>,
    /// Lines for the next invoice.
    pub pending: Vec<Line>,
    /// What has been announced of the running period: the end of the trial, the next invoice.
    pub announced_trial_end: bool,
    pub announced_invoice: bool,
}

#[derive(Debug, Clone)]
pub struct Line {
    pub id: String,
    pub description: String,
    pub amount: i64,
    pub quantity: u64,
    pub proration: bool,
    pub start: i64,
    pub end: i64,
    pub price: String,
    pub item: String,
    /// Whether it is usage, which is counted anew until the invoice is final.
    pub metered: bool,
}

#[derive(Debug, Clone)]
pub struct Invoice {
    pub id: String,
    pub customer: String,
    pub subscription: String,
    pub number: Option<String>,
    pub status: &'static str,
    pub reason: &'static str,
    pub currency: String,
    pub lines: Vec<Line>,
    pub created: i64,
    pub period_start: i64,
    pub period_end: i64,
    pub attempts: u32,
    pub next_attempt: Option<i64>,
    /// When a draft becomes final.
    pub finalizes_at: Option<i64>,
    pub finalized_at: Option<i64>,
    pub paid_at: Option<i64>,
    pub voided_at: Option<i64>,
    pub uncollectible_at: Option<i64>,
    pub starting_balance: i64,
    pub ending_balance: Option<i64>,
    pub amount_paid: i64,
}

impl Subscription {
    /// When the first of its items is to be billed.
    pub fn next_end(&self) -> i64 {
        self.items
            .iter()
            .map(|item| item.period_end)
            .min()
            .unwrap_or(i64::MAX)
    }

    /// When the last of its items has been paid for: it ends then, where it is to end with its period.
    pub fn last_end(&self) -> i64 {
        self.items
            .iter()
            .map(|item| item.period_end)
            .max()
            .unwrap_or(i64::MAX)
    }
}

impl Invoice {
    /// The lines together.
    pub fn total(&self) -> i64 {
        self.lines
            .iter()
            .fold(0, |sum, line| sum.saturating_add(line.amount))
    }

    /// What is to be paid of it, with what the customer has in hand.
    pub fn amount_due(&self) -> i64 {
        self.total().saturating_add(self.starting_balance.min(0)).max(0)
    }
}

#[derive(Debug, Clone)]
pub struct Checkout {
    pub id: String,
    pub customer: Option<String>,
    pub created: i64,
    pub expires_at: i64,
    pub status: &'static str,
    pub subscription: Option<String>,
    pub order: crate::params::Params,
    pub success_url: Option<String>,
    pub cancel_url: Option<String>,
    pub metadata: Map<String, Value>,
}

/// Something that has happened, as the list of events keeps it and endpoints are told.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub created: i64,
    pub kind: String,
    pub body: Value,
    /// Of the second generation: not in the list of events of the first.
    pub thin: bool,
}

/// Everything of the one account that there is.
#[derive(Debug, Clone)]
pub struct Account {
    pub base: String,
    pub now: i64,
    pub default_card: Card,
    pub exhausted: Exhausted,
    pub customers: BTreeMap<String, Customer>,
    pub products: BTreeMap<String, Product>,
    pub prices: BTreeMap<String, Price>,
    pub meters: BTreeMap<String, Meter>,
    pub meter_events: Vec<MeterEvent>,
    pub subscriptions: BTreeMap<String, Subscription>,
    pub invoices: BTreeMap<String, Invoice>,
    pub checkouts: BTreeMap<String, Checkout>,
    pub test_clocks: BTreeMap<String, Value>,
    /// They never change, and are many: what is copied of the account in order to try something shares them.
    pub events: Vec<Arc<Event>>,
    /// Up to then everything was done that was due.
    pub done_to: i64,
    /// In every id: two fakes one after the other have no id in common.
    run: String,
    sequence: u64,
}

impl Account {
    pub fn new(base: String, run: String, now: i64, default_card: Card, exhausted: Exhausted) -> Self {
        Self {
            base,
            run,
            now,
            default_card,
            exhausted,
            customers: BTreeMap::new(),
            products: BTreeMap::new(),
            prices: BTreeMap::new(),
            meters: BTreeMap::new(),
            meter_events: Vec::new(),
            subscriptions: BTreeMap::new(),
            invoices: BTreeMap::new(),
            checkouts: BTreeMap::new(),
            test_clocks: BTreeMap::new(),
            events: Vec::new(),
            done_to: i64::MIN,
            sequence: 0,
        }
    }

    /// An id that sorts after all before it.
    pub fn id(&mut self, prefix: &str) -> String {
        self.sequence += 1;
        format!("{prefix}_{}{:014}", self.run, self.sequence)
    }

    /// Remembers that something has happened to an object.
    pub fn happened(&mut self, kind: &str, object: Value, previous: Option<Value>) {
        let id = self.id("evt");
        let mut data = json!({ "object": object });
        if let Some(previous) = previous {
            data["previous_attributes"] = previous;
        }
        let body = json!({
            "id": id, "object": "event", "api_version": API_VERSION, "created": self.now, "data": data,
            "livemode": false, "pending_webhooks": 1, "request": { "id": null, "idempotency_key": null },
            "type": kind,
        });
        self.events.push(Arc::new(Event {
            id,
            created: self.now,
            kind: kind.to_owned(),
            body,
            thin: false,
        }));
    }

    /// Remembers that something has happened, in the form that only says to what.
    pub fn happened_thin(&mut self, kind: &str, meter: Option<&str>) {
        let id = self.id("evt_test");
        let created = crate::money::moment(self.now).format("%Y-%m-%dT%H:%M:%S%.3fZ");
        let mut body = json!({
            "id": id, "object": "v2.core.event", "type": kind, "created": created.to_string(),
            "livemode": false, "reason": null,
        });
        if let Some(meter) = meter {
            body["related_object"] =
                json!({ "id": meter, "type": "billing.meter", "url": format!("/v1/billing/meters/{meter}") });
        }
        self.events.push(Arc::new(Event {
            id,
            created: self.now,
            kind: kind.to_owned(),
            body,
            thin: true,
        }));
    }

    /// What a meter has counted for a customer from a moment up to another.
    pub fn counted(&self, meter: &Meter, customer: &str, start: i64, end: i64) -> u64 {
        let events = self.meter_events.iter().filter(|event| {
            !event.cancelled
                && event.event_name == meter.event_name
                && event.customer == customer
                && (start..end).contains(&event.timestamp)
        });
        match meter.formula.as_str() {
            "count" => u64::try_from(events.count()).unwrap_or(u64::MAX),
            // Of two of the same moment the one that came later.
            "last" => events
                .max_by_key(|event| event.timestamp)
                .map_or(0, |event| event.value),
            _ => events.fold(0, |sum, event| sum.saturating_add(event.value)),
        }
    }

    /// What a customer goes by: a text, and the ids of the customers whose id it is or whose metadata has it, with
    /// those of their subscriptions and meter events.
    pub fn names(&self, whom: &str) -> Vec<String> {
        let is_meant = |it: &&Customer| it.id == whom || it.metadata.values().any(|value| value == whom);
        let customers: Vec<&str> = self
            .customers
            .values()
            .filter(is_meant)
            .map(|it| it.id.as_str())
            .collect();
        let is_theirs = |customer: &str| customers.contains(&customer);
        let subscriptions = self
            .subscriptions
            .values()
            .filter(|it| is_theirs(&it.customer))
            .map(|it| &it.id);
        let events = self
            .meter_events
            .iter()
            .filter(|it| is_theirs(&it.customer))
            .map(|it| &it.identifier);
        let theirs = subscriptions.chain(events).map(String::as_str);
        std::iter::once(whom)
            .chain(theirs)
            .chain(customers.iter().copied())
            .map(str::to_owned)
            .collect()
    }

    /// The meter that takes events of this name.
    pub fn meter_named(&self, event_name: &str) -> Option<&Meter> {
        self.meters.values().find(|meter| meter.event_name == event_name)
    }
}
