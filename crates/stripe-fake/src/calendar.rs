//! What happens because time passes: periods end, invoices become final, payments are tried again, trials and
//! sessions run out.

use serde_json::json;

use crate::account::{Account, Subscription};
use crate::collect::{DAY, HOUR};
use crate::{Card, objects};

/// What is due; of one moment in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Finalize,
    Attempt,
    Expire,
    CheckoutExpires,
    TrialWillEnd,
    InvoiceUpcoming,
    PeriodEnds,
}

impl Account {
    /// Lets time pass up to a moment, and does what was due on the way, each at its time.
    pub fn run_to(&mut self, target: i64) {
        // It is asked with each call, and nothing becomes due in the moment in which it is made.
        if target <= self.done_to {
            return;
        }
        while let Some((at, due, id)) = self.next_due(target) {
            self.now = self.now.max(at);
            match due {
                Due::Finalize => self.finalize_and_collect(&id),
                // That it was declined is told by the event.
                Due::Attempt => drop(self.attempt(&id)),
                Due::Expire => self.expire(&id),
                Due::CheckoutExpires => self.expire_checkout(&id),
                Due::TrialWillEnd => self.announce_trial_end(&id),
                Due::InvoiceUpcoming => self.announce_invoice(&id),
                Due::PeriodEnds => self.end_period(&id),
            }
        }
        self.now = self.now.max(target);
        self.done_to = target;
    }

    fn next_due(&self, target: i64) -> Option<(i64, Due, String)> {
        let mut due = Vec::new();
        for it in self.invoices.values() {
            due.extend(it.finalizes_at.map(|at| (at, Due::Finalize, &it.id)));
            due.extend(it.next_attempt.map(|at| (at, Due::Attempt, &it.id)));
        }
        for it in self.subscriptions.values() {
            due.extend(
                moments(it)
                    .into_iter()
                    .flatten()
                    .map(|(at, due)| (at, due, &it.id)),
            );
        }
        for it in self.checkouts.values().filter(|it| it.status == "open") {
            due.push((it.expires_at, Due::CheckoutExpires, &it.id));
        }
        let (at, due, id) = due.into_iter().filter(|(at, ..)| *at <= target).min()?;
        Some((at, due, id.clone()))
    }

    /// Makes a draft final and tries to collect it.
    pub fn finalize_and_collect(&mut self, id: &str) {
        self.finalize(id);
        if self.invoices.get(id).is_some_and(|it| it.status == "open") {
            // That it was declined is told by the event.
            drop(self.attempt(id));
        }
    }

    fn expire(&mut self, id: &str) {
        let Some(subscription) = self.subscriptions.get_mut(id) else {
            return;
        };
        subscription.status = "incomplete_expired";
        subscription.ended_at = Some(self.now);
        let invoice = subscription.latest_invoice.clone();
        if let Some(invoice) = invoice {
            // It is open, as the subscription waits for it.
            drop(self.write_off(&invoice, "void"));
        }
        let previous = json!({ "status": "incomplete" });
        self.tell_subscription("customer.subscription.updated", id, Some(previous));
    }

    /// Closes a checkout that nobody has paid in.
    pub fn expire_checkout(&mut self, id: &str) {
        if let Some(checkout) = self.checkouts.get_mut(id) {
            checkout.status = "expired";
        }
        if let Some(object) = self.checkouts.get(id).map(|it| objects::checkout(self, it)) {
            self.happened("checkout.session.expired", object, None);
        }
    }

    fn announce_trial_end(&mut self, id: &str) {
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.announced_trial_end = true;
        }
        self.tell_subscription("customer.subscription.trial_will_end", id, None);
    }

    fn announce_invoice(&mut self, id: &str) {
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.announced_invoice = true;
        }
        if let Some(invoice) = self.upcoming(id) {
            let mut object = objects::invoice(self, &invoice);
            object["id"] = serde_json::Value::Null;
            self.happened("invoice.upcoming", object, None);
        }
    }

    fn end_period(&mut self, id: &str) {
        let Some(ended) = self.subscriptions.get(id).cloned() else {
            return;
        };
        let card = self
            .customers
            .get(&ended.customer)
            .map_or(Card::Missing, |it| it.card);
        if ended.status == "trialing" && ended.cancels_without_card && card == Card::Missing {
            // As Stripe does it: there is no invoice.
            self.end(id, "payment_failed");
            return;
        }
        let at = ended.next_end();
        let (ending, following) = self.turn(&ended);
        let mut lines = ended.pending.clone();
        lines.extend(self.usage_so_far(&ended, &ending, at));
        if ended.cancel_at_period_end && at == ended.last_end() {
            let owed = lines.iter().any(|line| line.amount != 0);
            self.end(id, "cancellation_requested");
            if owed {
                self.bill_later(id, "subscription_cycle", lines);
            }
            return;
        }
        lines.extend(self.in_advance(&following));
        // The invoice says which period it closes.
        let mut previous = json!({ "latest_invoice": ended.latest_invoice });
        self.bill_later(id, "subscription_cycle", lines);
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            for item in following {
                if let Some(place) = subscription.items.iter_mut().find(|it| it.id == item.id) {
                    *place = item;
                }
            }
            (subscription.announced_trial_end, subscription.announced_invoice) = (false, false);
            if ended.status == "trialing" {
                (subscription.status, subscription.anchor) = ("active", at);
                previous["status"] = json!("trialing");
            }
        }
        self.tell_subscription("customer.subscription.updated", id, Some(previous));
    }
}

/// What is due of a subscription, and when.
fn moments(it: &Subscription) -> [Option<(i64, Due)>; 3] {
    let end = it.next_end();
    match it.status {
        "incomplete" => [Some((it.created + 23 * HOUR, Due::Expire)), None, None],
        "trialing" => [
            Some((end, Due::PeriodEnds)),
            (!it.announced_trial_end).then_some((end - 3 * DAY, Due::TrialWillEnd)),
            None,
        ],
        "active" | "past_due" => [
            Some((end, Due::PeriodEnds)),
            (!it.announced_invoice).then_some((end - 7 * DAY, Due::InvoiceUpcoming)),
            None,
        ],
        "unpaid" => [Some((end, Due::PeriodEnds)), None, None],
        _ => [None, None, None],
    }
}
