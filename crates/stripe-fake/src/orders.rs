//! Subscriptions: how they begin, change and are ended by whoever calls.

use crate::Card;
use crate::account::{Account, Invoice, Item, Line, Subscription};
use crate::collect::DAY;
use crate::money::next_billing;
use crate::params::Params;
use crate::problem::Problem;

impl Account {
    /// Begins a subscription and returns its id.
    pub fn subscribe(&mut self, params: &Params) -> Result<String, Problem> {
        let customer = self.owner(&params.required("customer")?)?;
        let items = self.items(&params.list("items"))?;
        let trial_end = self.trial_end(params)?;
        let behaviour = params
            .text("payment_behavior")
            .unwrap_or_else(|| "allow_incomplete".into());
        if !matches!(
            behaviour.as_str(),
            "allow_incomplete" | "default_incomplete" | "error_if_incomplete"
        ) {
            return Err(Problem::invalid(
                "parameter_invalid",
                "payment_behavior",
                "Invalid payment_behavior",
            ));
        }
        let card = self.customers.get(&customer).map_or(Card::Missing, |it| it.card);
        let mut subscription = self.begin(params, customer, items, trial_end)?;
        let id = subscription.id.clone();
        if trial_end.is_some() {
            self.subscriptions.insert(id.clone(), subscription.clone());
            self.tell_subscription("customer.subscription.created", &id, None);
            let lines = self.in_advance(&subscription.items).into_iter().map(|line| Line {
                description: format!("Trial period for {}", line.description),
                amount: 0,
                ..line
            });
            let lines = lines.collect();
            self.bill_now(&id, "subscription_create", lines);
            return Ok(id);
        }
        let lines = self.in_advance(&subscription.items);
        let costs = lines.iter().any(|line| line.amount > 0);
        if costs && behaviour != "default_incomplete" && card == Card::Missing {
            return Err(Problem::refused(
                "resource_missing",
                "This customer has no attached payment source or default payment method.",
            ));
        }
        let before = (costs && behaviour == "error_if_incomplete").then(|| self.clone());
        subscription.status = if costs { "incomplete" } else { "active" };
        self.subscriptions.insert(id.clone(), subscription);
        self.tell_subscription("customer.subscription.created", &id, None);
        let Some(invoice) = self.bill(&id, "subscription_create", lines) else {
            return Ok(id);
        };
        self.finalize(&invoice);
        if costs && behaviour != "default_incomplete" {
            let outcome = self.attempt(&invoice);
            if let (Err(problem), Some(before)) = (outcome, before) {
                *self = before;
                return Err(problem);
            }
        }
        Ok(id)
    }

    fn begin(
        &mut self,
        params: &Params,
        customer: String,
        items: Vec<Item>,
        trial_end: Option<i64>,
    ) -> Result<Subscription, Problem> {
        let now = self.now;
        let mut subscription = Subscription {
            id: self.id("sub"),
            customer,
            created: now,
            anchor: trial_end.unwrap_or(now),
            status: if trial_end.is_some() { "trialing" } else { "active" },
            items,
            metadata: params.metadata().unwrap_or_default(),
            trial: trial_end.map(|end| (now, end)),
            cancels_without_card: cancels_without_card(params)?,
            cancel_at_period_end: params.truth("cancel_at_period_end")?.unwrap_or(false),
            canceled_at: None,
            cancel_reason: None,
            ended_at: None,
            automatic_tax: automatic_tax(params)?,
            latest_invoice: None,
            pending: Vec::new(),
            announced_trial_end: false,
            announced_invoice: false,
        };
        self.same_terms(&subscription)?;
        for item in &mut subscription.items {
            let months = self.months(item);
            item.period_end = trial_end.unwrap_or_else(|| next_billing(now, months, now));
        }
        Ok(subscription)
    }

    fn bill_now(&mut self, id: &str, reason: &'static str, lines: Vec<Line>) {
        if let Some(invoice) = self.bill(id, reason, lines) {
            self.finalize_and_collect(&invoice);
        }
    }

    fn trial_end(&self, params: &Params) -> Result<Option<i64>, Problem> {
        let days = params
            .number::<i64>("trial_period_days")?
            .filter(|days| *days > 0);
        if days.is_some_and(|days| days > 730) {
            return Err(Problem::invalid(
                "parameter_invalid",
                "trial_period_days",
                "At most 730 days.",
            ));
        }
        match params.text("trial_end").as_deref() {
            Some("now") | None => Ok(days.map(|days| self.now + days * DAY)),
            Some(_) => Ok(params.number("trial_end")?.filter(|end| *end > self.now)),
        }
    }

    fn owner(&self, id: &str) -> Result<String, Problem> {
        let known = self.customers.get(id).filter(|it| !it.deleted);
        known
            .map(|it| it.id.clone())
            .ok_or_else(|| Problem::no_such("customer", id, Some("customer")))
    }

    fn items(&mut self, given: &[Params]) -> Result<Vec<Item>, Problem> {
        if given.is_empty() {
            return Err(Problem::missing("items"));
        }
        let mut items = Vec::new();
        for params in given {
            items.push(self.item(params)?);
        }
        Ok(items)
    }

    fn item(&mut self, params: &Params) -> Result<Item, Problem> {
        let (id, created) = (self.id("si"), self.now);
        let named = params.required("price")?;
        let price = self
            .prices
            .get(&named)
            .ok_or_else(|| Problem::no_such("price", &named, Some("price")))?;
        if price.months.is_none() {
            return Err(Problem::invalid(
                "parameter_invalid",
                "price",
                "The price is not recurring.",
            ));
        }
        let quantity = params.number("quantity")?;
        if price.meter.is_some() && quantity.is_some() {
            let text = "You cannot set the quantity for metered plans.";
            return Err(Problem::invalid("parameter_invalid", "quantity", text));
        }
        Ok(Item {
            id,
            created,
            since: created,
            period_start: created,
            period_end: created,
            price: named,
            quantity: price.meter.is_none().then(|| quantity.unwrap_or(1)),
            metadata: params.metadata().unwrap_or_default(),
        })
    }

    /// All items of a subscription are paid in one currency, for intervals of which each is a multiple of the
    /// shortest, and each price is there once.
    fn same_terms(&self, subscription: &Subscription) -> Result<(), Problem> {
        let of: Vec<_> = subscription
            .items
            .iter()
            .filter_map(|it| self.prices.get(&it.price))
            .collect();
        let Some(first) = of.first() else {
            return Err(Problem::refused(
                "parameter_missing",
                "A subscription needs an item.",
            ));
        };
        let shortest = of.iter().filter_map(|it| it.months).min().unwrap_or(1);
        let fits = |it: &&crate::account::Price| {
            it.currency == first.currency && it.months.is_some_and(|months| months % shortest == 0)
        };
        if !of.iter().all(fits) {
            let text = "All prices on a subscription must have the same currency and fitting intervals.";
            return Err(Problem::invalid("parameter_invalid", "items", text));
        }
        let mut ids: Vec<&str> = of.iter().map(|it| it.id.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            let text = "Cannot add multiple subscription items with the same price.";
            return Err(Problem::invalid("parameter_invalid", "items", text));
        }
        Ok(())
    }

    /// Changes a subscription as a call says.
    pub fn change(&mut self, id: &str, params: &Params) -> Result<(), Problem> {
        let Some(before) = self.subscriptions.get(id).cloned() else {
            return Err(Problem::no_such("subscription", id, None));
        };
        if matches!(before.status, "canceled" | "incomplete_expired") {
            let text = "A canceled subscription can only update its cancellation_details and metadata.";
            return Err(Problem::refused("subscription_canceled", text));
        }
        let undo = self.clone();
        let outcome = self.changed(before, params);
        if outcome.is_err() {
            *self = undo;
        }
        outcome
    }

    fn changed(&mut self, before: Subscription, params: &Params) -> Result<(), Problem> {
        let id = before.id.clone();
        let mut after = before.clone();
        if let Some(metadata) = params.metadata() {
            after.metadata.extend(metadata);
            after.metadata.retain(|_, value| value.as_str() != Some(""));
        }
        if let Some(cancel) = params.truth("cancel_at_period_end")? {
            after.cancel_at_period_end = cancel;
            after.canceled_at = cancel.then_some(before.canceled_at.unwrap_or(self.now));
            after.cancel_reason = cancel.then_some("cancellation_requested");
        }
        if params.below("automatic_tax").is_some() {
            after.automatic_tax = automatic_tax(params)?;
        }
        let at = params.number("proration_date")?.unwrap_or(self.now);
        let (lines, moved) = self.replace_items(&mut after, &params.list("items"), at)?;
        let behaviour = params
            .text("proration_behavior")
            .unwrap_or_else(|| "create_prorations".into());
        let trial = before.status == "trialing";
        let ends_trial = trial && params.text("trial_end").as_deref() == Some("now");
        if !trial && behaviour != "none" {
            after.pending.extend(lines);
        }
        self.same_terms(&after)?;
        let resets = ends_trial || (!trial && self.licensed_months(&after) != self.licensed_months(&before));
        if resets {
            self.restart(&mut after);
        }
        if ends_trial {
            after.status = "active";
            after.trial = after.trial.map(|(start, _)| (start, self.now));
        }
        let changed = moved || resets;
        self.subscriptions.insert(id.clone(), after.clone());
        if resets || (behaviour == "always_invoice" && !after.pending.is_empty()) {
            let mut due = after.pending.clone();
            if resets {
                due.extend(self.in_advance(&after.items));
            }
            self.bill_now(&id, "subscription_update", due);
        }
        let mut previous = serde_json::json!({});
        if before.cancel_at_period_end != after.cancel_at_period_end {
            previous["cancel_at_period_end"] = before.cancel_at_period_end.into();
        }
        if changed {
            let object = crate::objects::subscription(self, &before);
            previous["items"] = object["items"].clone();
        }
        self.tell_subscription("customer.subscription.updated", &id, Some(previous));
        Ok(())
    }

    /// For how many months is paid in advance.
    fn licensed_months(&self, of: &Subscription) -> Option<u32> {
        let licensed = of.items.iter().filter(|item| item.quantity.is_some());
        licensed.map(|item| self.months(item)).max()
    }

    /// Lets all periods begin anew now.
    fn restart(&self, subscription: &mut Subscription) {
        subscription.anchor = self.now;
        for item in &mut subscription.items {
            let months = self.months(item);
            (item.since, item.period_start) = (self.now, self.now);
            item.period_end = next_billing(self.now, months, self.now);
        }
    }

    /// The period that an item which joins a subscription is in.
    fn joined(&self, item: Item, of: &Subscription) -> Item {
        let period_end = match of.trial.filter(|_| of.status == "trialing") {
            Some((_, end)) => end,
            None => next_billing(of.anchor, self.months(&item), self.now),
        };
        // What runs already says when its period began; the others begin in the middle of one.
        let same = of.items.iter().find(|it| it.period_end == period_end);
        let period_start = same.map_or(self.now, |it| it.period_start);
        Item {
            period_start,
            period_end,
            ..item
        }
    }

    /// Puts what a call says of items into a subscription. Returns what that costs and gives back for the
    /// running period, and whether anything is different.
    fn replace_items(
        &mut self,
        after: &mut Subscription,
        given: &[Params],
        at: i64,
    ) -> Result<(Vec<Line>, bool), Problem> {
        let mut lines = Vec::new();
        let mut moved = false;
        for params in given {
            let Some(named) = params.text("id") else {
                let item = self.item(params)?;
                let item = self.joined(item, after);
                lines.extend(self.prorated_line(&item, at, false));
                after.items.push(item);
                moved = true;
                continue;
            };
            let position = after.items.iter().position(|it| it.id == named);
            let position =
                position.ok_or_else(|| Problem::no_such("subscription item", &named, Some("items")))?;
            let old = after.items[position].clone();
            if params.truth("deleted")? == Some(true) {
                lines.extend(self.given_up(after, &old, at));
                after.items.remove(position);
                moved = true;
                continue;
            }
            let mut new = old.clone();
            if let Some(price) = params.text("price").filter(|price| *price != old.price) {
                let priced = self.item(&Params::default().with("price", &price))?;
                let quantity = priced.quantity.and(old.quantity.or(priced.quantity));
                new = Item {
                    price,
                    quantity,
                    since: at,
                    ..old.clone()
                };
            }
            if let Some(quantity) = params
                .number::<u64>("quantity")?
                .filter(|_| new.quantity.is_some())
            {
                new.quantity = Some(quantity);
            }
            if (&new.price, new.quantity) != (&old.price, old.quantity) {
                lines.extend(self.given_up(after, &old, at));
                lines.extend(self.prorated_line(&new, at, false));
                moved = true;
            }
            after.items[position] = new;
        }
        Ok((lines, moved))
    }

    /// What is given back for an item that goes, or asked for what was used of it.
    fn given_up(&mut self, of: &Subscription, item: &Item, at: i64) -> Vec<Line> {
        if item.quantity.is_some() {
            return self.prorated_line(item, at, true).into_iter().collect();
        }
        let start = item.period_start.max(item.since);
        let lines = self.metered_lines(item, &of.customer, start, at);
        lines
            .into_iter()
            .map(|line| Line {
                proration: true,
                ..line
            })
            .collect()
    }

    /// What an invoice would be after a change: the one at once, where the change is billed at once,
    /// otherwise the next.
    pub fn preview(&self, id: &str, change: &Params) -> Result<Option<Invoice>, Problem> {
        let mut then = self.clone();
        let latest = |account: &Self| {
            account
                .subscriptions
                .get(id)
                .and_then(|it| it.latest_invoice.clone())
        };
        let before = latest(&then);
        if !then.subscriptions.contains_key(id) {
            return Err(Problem::no_such("subscription", id, Some("subscription")));
        }
        then.change(id, change)?;
        let after = latest(&then);
        if after != before
            && let Some(invoice) = after.and_then(|id| then.invoices.get(&id).cloned())
        {
            return Ok(Some(invoice));
        }
        Ok(then.upcoming(id))
    }

    /// Ends a subscription at once because a call says so.
    pub fn cancel(&mut self, id: &str, params: &Params) -> Result<(), Problem> {
        let known = self.subscriptions.get(id).cloned();
        // As Stripe has it, what is over is not there any more to be ended.
        let ended = known.filter(|it| !matches!(it.status, "canceled" | "incomplete_expired"));
        let ended = ended.ok_or_else(|| Problem::no_such("subscription", id, None))?;
        let at = self.now;
        let mut lines = ended.pending.clone();
        if params.truth("prorate")?.unwrap_or(false) && ended.status != "trialing" {
            for item in &ended.items {
                lines.extend(self.prorated_line(item, at, true));
            }
        }
        let asked = params.truth("invoice_now")?.unwrap_or(false);
        if asked {
            lines.extend(self.usage_so_far(&ended, &ended.items, at));
        }
        self.end(id, "cancellation_requested");
        if asked && lines.iter().any(|line| line.amount != 0) {
            self.bill_now(id, "subscription_update", lines);
        }
        Ok(())
    }
}

/// What becomes of a subscription whose trial ends without a card.
fn cancels_without_card(params: &Params) -> Result<bool, Problem> {
    let settings = params.below("trial_settings").unwrap_or_default();
    let at_end = settings.below("end_behavior").unwrap_or_default();
    match at_end.text("missing_payment_method").as_deref() {
        Some("cancel") => Ok(true),
        Some("create_invoice") | None => Ok(false),
        Some(_) => Err(Problem::invalid(
            "parameter_invalid",
            "trial_settings[end_behavior][missing_payment_method]",
            "The fake knows cancel and create_invoice.",
        )),
    }
}

fn automatic_tax(params: &Params) -> Result<bool, Problem> {
    let below = params.below("automatic_tax").unwrap_or_default();
    Ok(below.truth("enabled")?.unwrap_or(false))
}
