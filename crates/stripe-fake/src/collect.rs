//! Invoices: how they are made up, become final and are paid, and what an unpaid one does to its
//! subscription.

use serde_json::json;

use crate::account::{Account, Invoice, Item, Line, Subscription};
use crate::money::{moment, next_billing, prorated};
use crate::problem::Problem;
use crate::{Card, Exhausted, objects};

pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;

/// When a failed payment is tried again: so many days after the invoice became final.
const RETRIES: [i64; 4] = [1, 3, 5, 7];

impl Account {
    /// The line for what an item with a quantity costs in a period, in advance.
    pub fn licensed_line(&mut self, item: &Item, start: i64, end: i64) -> Option<Line> {
        let quantity = item.quantity?;
        let price = self.prices.get(&item.price)?;
        let (amount, name) = (price.scheme.amount(quantity), self.name_of(&item.price));
        Some(self.line(
            item,
            &format!("{quantity} × {name}"),
            amount,
            quantity,
            (start, end),
        ))
    }

    /// The lines for what was used of an item in a period: one for each step of its price.
    pub fn metered_lines(&mut self, item: &Item, customer: &str, start: i64, end: i64) -> Vec<Line> {
        let Some(price) = self.prices.get(&item.price) else {
            return Vec::new();
        };
        let Some(meter) = price.meter.as_ref().and_then(|id| self.meters.get(id)) else {
            return Vec::new();
        };
        let parts = price.scheme.parts(self.counted(meter, customer, start, end));
        let name = self.name_of(&item.price);
        parts
            .into_iter()
            .map(|(quantity, amount)| Line {
                metered: true,
                ..self.line(item, &name, amount, quantity, (start, end))
            })
            .collect()
    }

    /// The line for the rest of a running period, or for giving it back.
    pub fn prorated_line(&mut self, item: &Item, at: i64, back: bool) -> Option<Line> {
        let quantity = item.quantity?;
        let (start, end) = (item.period_start, item.period_end);
        let whole = self.prices.get(&item.price)?.scheme.amount(quantity);
        let part = prorated(whole, end - at, end - start);
        let what = if back { "Unused" } else { "Remaining" };
        let day = moment(at).format("%d %b %Y");
        let text = format!(
            "{what} time on {quantity} × {} after {day}",
            self.name_of(&item.price)
        );
        let amount = if back { -part } else { part };
        Some(Line {
            proration: true,
            ..self.line(item, &text, amount, quantity, (at, end))
        })
    }

    fn name_of(&self, price: &str) -> String {
        let product = self
            .prices
            .get(price)
            .and_then(|price| self.products.get(&price.product));
        product.map_or_else(|| price.to_owned(), |product| product.name.clone())
    }

    fn line(
        &mut self,
        item: &Item,
        text: &str,
        amount: i64,
        quantity: u64,
        (start, end): (i64, i64),
    ) -> Line {
        Line {
            id: self.id("il"),
            description: text.to_owned(),
            amount,
            quantity,
            proration: false,
            start,
            end,
            price: item.price.clone(),
            item: item.id.clone(),
            metered: false,
        }
    }

    /// What was used of items, each in its running period, up to a moment. Nothing is asked for what was used
    /// in a trial.
    pub fn usage_so_far(&mut self, of: &Subscription, items: &[Item], until: i64) -> Vec<Line> {
        if of.status == "trialing" {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for item in items {
            let start = item.period_start.max(item.since);
            lines.extend(self.metered_lines(item, &of.customer, start, until));
        }
        lines
    }

    /// What items cost in advance in the period that they are in.
    pub fn in_advance(&mut self, items: &[Item]) -> Vec<Line> {
        let line = |item: &Item| self.licensed_line(item, item.period_start, item.period_end);
        items.iter().filter_map(line).collect()
    }

    /// The items whose period ends first, as they are and as they will be in their next period.
    pub fn turn(&self, subscription: &Subscription) -> (Vec<Item>, Vec<Item>) {
        let start = subscription.next_end();
        let anchor = if subscription.status == "trialing" {
            start
        } else {
            subscription.anchor
        };
        let ending = subscription.items.iter().filter(|item| item.period_end == start);
        let ending: Vec<Item> = ending.cloned().collect();
        let following = ending.iter().map(|item| Item {
            period_start: start,
            period_end: next_billing(anchor, self.months(item), start),
            ..item.clone()
        });
        let following = following.collect();
        (ending, following)
    }

    /// The invoice that the running period will end in, as it would be now; it is not kept.
    pub fn upcoming(&mut self, id: &str) -> Option<Invoice> {
        let subscription = self.subscriptions.get(id)?.clone();
        if !matches!(subscription.status, "trialing" | "active" | "past_due") {
            return None;
        }
        let at = subscription.next_end();
        let (ending, following) = self.turn(&subscription);
        let mut lines = subscription.pending.clone();
        lines.extend(self.usage_so_far(&subscription, &ending, at));
        if !(subscription.cancel_at_period_end && at == subscription.last_end()) {
            lines.extend(self.in_advance(&following));
        } else if lines.iter().all(|line| line.amount == 0) {
            return None;
        }
        let mut invoice = self.draft(&subscription, "upcoming", lines);
        invoice.id = format!("upcoming_{}", invoice.id);
        invoice.created = at;
        invoice.starting_balance = self
            .customers
            .get(&subscription.customer)
            .map_or(0, |it| it.balance);
        Some(invoice)
    }

    /// How many months a period of an item has.
    pub fn months(&self, item: &Item) -> u32 {
        let price = self.prices.get(&item.price);
        price.and_then(|price| price.months).unwrap_or(1)
    }

    fn draft(&mut self, subscription: &Subscription, reason: &'static str, lines: Vec<Line>) -> Invoice {
        // Of the item that is billed now.
        let first = subscription.items.iter().min_by_key(|item| item.period_end);
        let price = first.and_then(|item| self.prices.get(&item.price));
        let currency = price.map_or_else(|| "usd".to_owned(), |price| price.currency.clone());
        Invoice {
            id: self.id("in"),
            customer: subscription.customer.clone(),
            subscription: subscription.id.clone(),
            number: None,
            status: "draft",
            reason,
            currency,
            lines,
            created: self.now,
            period_start: first.map_or(self.now, |item| item.period_start),
            period_end: first.map_or(self.now, |item| item.period_end),
            attempts: 0,
            next_attempt: None,
            finalizes_at: None,
            finalized_at: None,
            paid_at: None,
            voided_at: None,
            uncollectible_at: None,
            starting_balance: 0,
            ending_balance: None,
            amount_paid: 0,
        }
    }

    /// Makes an invoice that becomes final after an hour, so that what was used in the last minutes still
    /// gets into it.
    pub fn bill_later(&mut self, id: &str, reason: &'static str, lines: Vec<Line>) {
        let Some(invoice) = self.bill(id, reason, lines) else {
            return;
        };
        let collected = self.subscriptions.get(id).is_some_and(|it| it.status != "unpaid");
        let at = self.now + HOUR;
        if let Some(invoice) = self.invoices.get_mut(&invoice).filter(|_| collected) {
            invoice.finalizes_at = Some(at);
        }
    }

    /// Makes an invoice.
    pub fn bill(&mut self, id: &str, reason: &'static str, lines: Vec<Line>) -> Option<String> {
        let subscription = self.subscriptions.get(id)?.clone();
        let invoice = self.draft(&subscription, reason, lines);
        let number = invoice.id.clone();
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.pending.clear();
            subscription.latest_invoice = Some(number.clone());
        }
        self.invoices.insert(number.clone(), invoice);
        self.tell_invoice("invoice.created", &number);
        Some(number)
    }

    /// Makes a draft final. What is nothing is paid.
    pub fn finalize(&mut self, id: &str) {
        self.recount(id);
        let now = self.now;
        let number = self.id("FAKE").replace('_', "-");
        let Some(invoice) = self.invoices.get_mut(id).filter(|it| it.status == "draft") else {
            return;
        };
        (invoice.status, invoice.finalized_at, invoice.finalizes_at) = ("open", Some(now), None);
        invoice.number = Some(number);
        if let Some(customer) = self.customers.get_mut(&invoice.customer) {
            // What is left of a credit goes on; a negative total becomes one.
            invoice.starting_balance = customer.balance.min(0);
            customer.balance = customer.balance.min(0).saturating_add(invoice.total()).min(0);
            invoice.ending_balance = Some(customer.balance);
        }
        let nothing = invoice.amount_due() == 0;
        self.tell_invoice("invoice.finalized", id);
        if nothing {
            self.paid(id);
        }
    }

    /// Counts once more what was used in the time that lines of usage are for.
    fn recount(&mut self, id: &str) {
        let Some(invoice) = self.invoices.get(id).cloned() else {
            return;
        };
        let mut lines: Vec<Line> = Vec::new();
        let mut done: Vec<(String, String, i64)> = Vec::new();
        for line in invoice.lines {
            let key = (line.item.clone(), line.price.clone(), line.start);
            if !line.metered {
                lines.push(line);
            } else if !done.contains(&key) {
                let item = Item {
                    id: line.item,
                    created: 0,
                    since: 0,
                    period_start: line.start,
                    period_end: line.end,
                    price: line.price,
                    quantity: None,
                    metadata: serde_json::Map::new(),
                };
                let again = self.metered_lines(&item, &invoice.customer, line.start, line.end);
                lines.extend(again.into_iter().map(|it| Line {
                    proration: line.proration,
                    ..it
                }));
                done.push(key);
            }
        }
        if let Some(invoice) = self.invoices.get_mut(id) {
            invoice.lines = lines;
        }
    }

    /// Tries to collect an open invoice from the customer's card.
    pub fn attempt(&mut self, id: &str) -> Result<(), Problem> {
        let Some(invoice) = self.invoices.get_mut(id) else {
            return Err(Problem::no_such("invoice", id, None));
        };
        if invoice.status != "open" {
            let text = format!("Invoice is {}, it cannot be paid.", invoice.status);
            return Err(Problem::refused("invoice_not_open", &text));
        }
        invoice.attempts += 1;
        let charged = self
            .customers
            .get_mut(&invoice.customer)
            .is_some_and(|it| it.card.charge());
        if charged {
            self.paid(id);
            Ok(())
        } else {
            self.not_paid(id);
            Err(Problem::declined())
        }
    }

    /// An invoice is paid, by whatever way.
    pub fn paid(&mut self, id: &str) {
        let now = self.now;
        let Some(invoice) = self.invoices.get_mut(id) else {
            return;
        };
        (invoice.status, invoice.paid_at, invoice.next_attempt) = ("paid", Some(now), None);
        invoice.amount_paid = invoice.amount_due();
        let subscription = invoice.subscription.clone();
        self.tell_invoice("invoice.paid", id);
        self.tell_invoice("invoice.payment_succeeded", id);
        self.recover(&subscription, id);
    }

    fn not_paid(&mut self, id: &str) {
        let Some(invoice) = self.invoices.get_mut(id) else {
            return;
        };
        let subscription = invoice.subscription.clone();
        let status = self
            .subscriptions
            .get(&subscription)
            .map_or("canceled", |it| it.status);
        let tried = usize::try_from(invoice.attempts).unwrap_or(usize::MAX);
        let retried = matches!(status, "active" | "past_due" | "trialing");
        let after = RETRIES.get(tried.saturating_sub(1)).filter(|_| retried);
        invoice.next_attempt = after.and_then(|days| Some(invoice.finalized_at? + days * DAY));
        let exhausted = retried && invoice.next_attempt.is_none();
        self.tell_invoice("invoice.payment_failed", id);
        if retried && status != "past_due" {
            self.becomes(&subscription, "past_due");
        }
        match self.exhausted {
            Exhausted::Unpaid if exhausted => self.becomes(&subscription, "unpaid"),
            Exhausted::Canceled if exhausted => self.end(&subscription, "payment_failed"),
            Exhausted::Unpaid | Exhausted::Canceled | Exhausted::PastDue => {}
        }
    }

    /// Moves a subscription to another status and tells of it.
    pub fn becomes(&mut self, id: &str, status: &'static str) {
        let Some(subscription) = self.subscriptions.get_mut(id).filter(|it| it.status != status) else {
            return;
        };
        let before = std::mem::replace(&mut subscription.status, status);
        self.tell_subscription(
            "customer.subscription.updated",
            id,
            Some(json!({ "status": before })),
        );
    }

    /// Ends a subscription now. Its invoices are not collected any more.
    pub fn end(&mut self, id: &str, reason: &'static str) {
        let now = self.now;
        let Some(subscription) = self.subscriptions.get_mut(id) else {
            return;
        };
        subscription.status = "canceled";
        subscription.ended_at = Some(now);
        subscription.canceled_at = subscription.canceled_at.or(Some(now));
        subscription.cancel_reason = Some(reason);
        for invoice in self.invoices.values_mut().filter(|it| it.subscription == id) {
            (invoice.next_attempt, invoice.finalizes_at) = (None, None);
        }
        self.tell_subscription("customer.subscription.deleted", id, None);
    }

    /// Nobody is to pay an open invoice any more: it is `void` or `uncollectible`. It is owed no longer, so a subscription
    /// that waits for it is active again, and one that never began has expired.
    pub fn write_off(&mut self, id: &str, status: &'static str) -> Result<(), Problem> {
        let now = self.now;
        let Some(invoice) = self.invoices.get_mut(id) else {
            return Err(Problem::no_such("invoice", id, None));
        };
        // What is uncollectible may be voided still.
        if invoice.status != "open" && (invoice.status, status) != ("uncollectible", "void") {
            let text = format!("Invoice is {}, it cannot be {status}.", invoice.status);
            return Err(Problem::refused("invoice_not_open", &text));
        }
        (invoice.status, invoice.next_attempt) = (status, None);
        match status {
            "void" => invoice.voided_at = Some(now),
            _ => invoice.uncollectible_at = Some(now),
        }
        let (subscription, reason) = (invoice.subscription.clone(), invoice.reason);
        let kind = match status {
            "void" => "invoice.voided",
            _ => "invoice.marked_uncollectible",
        };
        self.tell_invoice(kind, id);
        let first = reason == "subscription_create";
        match self.subscriptions.get(&subscription).map(|it| it.status) {
            Some("incomplete") if first && status == "void" => {
                if let Some(subscription) = self.subscriptions.get_mut(&subscription) {
                    subscription.ended_at = Some(now);
                }
                self.becomes(&subscription, "incomplete_expired");
            }
            Some("past_due" | "unpaid") => self.recover(&subscription, id),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Makes a subscription active that waits for an invoice which is owed no longer.
    fn recover(&mut self, subscription: &str, invoice: &str) {
        let mut of_it = self
            .invoices
            .values()
            .filter(|it| it.subscription == subscription);
        let nothing_open = !of_it.any(|it| it.status == "open");
        let recovers = self.subscriptions.get(subscription).is_some_and(|it| {
            (nothing_open || it.latest_invoice.as_deref() == Some(invoice))
                && matches!(it.status, "incomplete" | "past_due" | "unpaid")
        });
        if recovers {
            self.becomes(subscription, "active");
        }
    }

    pub fn tell_invoice(&mut self, kind: &str, id: &str) {
        if let Some(object) = self.invoices.get(id).map(|it| objects::invoice(self, it)) {
            self.happened(kind, object, None);
        }
    }

    pub fn tell_subscription(&mut self, kind: &str, id: &str, previous: Option<serde_json::Value>) {
        if let Some(object) = self
            .subscriptions
            .get(id)
            .map(|it| objects::subscription(self, it))
        {
            self.happened(kind, object, previous);
        }
    }
}

impl Card {
    /// Whether it can be charged this time.
    const fn charge(&mut self) -> bool {
        match self {
            Self::Pays => true,
            Self::Missing | Self::Declines => false,
            Self::DeclinesTimes(0) => {
                *self = Self::Pays;
                true
            }
            Self::DeclinesTimes(left) => {
                *left -= 1;
                false
            }
        }
    }
}
