use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::billing::{
    ChargedMeter, CheckoutRef, CustomerRef, Delivered, EventRef, ForgedEvent, InvoiceLine, InvoiceRef,
    InvoiceStatus, Link, NewCheckout, NewCustomer, NewSubscription, Offer, OpenCheckout, PaymentProvider,
    ProrationPreview, ProviderCustomer, ProviderError, ProviderEvent, ProviderInvoice, ProviderKey,
    ProviderSubscription, SubscriptionRef, SubscriptionStatus, UsageReport,
};
use tenantry_domain::kernel::{Clock, Period, TenantId, Time};
use tenantry_domain::usage::MeterKey;

/// The signature that [`MemoryPayments`] takes for its own.
pub const SIGNATURE: &str = "signed";

/// A payment provider in memory: for tests of many histories, and of what a real one never does.
///
/// Its clock is that of the world. What it is told to do at the end of a period and what becomes of a card is for the test
/// to say: it does nothing by itself.
pub struct MemoryPayments {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    made: u64,
    least_seats: u32,
    customers: BTreeMap<String, TenantId>,
    /// Where invoices of a customer go.
    emails: BTreeMap<String, String>,
    subscriptions: BTreeMap<String, ProviderSubscription>,
    invoices: BTreeMap<String, ProviderInvoice>,
    checkouts: BTreeMap<String, (CustomerRef, OpenCheckout)>,
    answers: BTreeMap<String, Answer>,
    events: Vec<ProviderEvent>,
    usage: BTreeMap<String, (UsageReport, bool)>,
    failures: VecDeque<Failing>,
    calls: Vec<String>,
}

#[derive(Clone)]
enum Answer {
    Customer(CustomerRef),
    Subscription(SubscriptionRef),
    Checkout(OpenCheckout),
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failing {
    /// Nothing is done.
    Before(ProviderError),
    /// It is done, and the answer is lost.
    After,
}

impl MemoryPayments {
    /// One that nobody has used.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
        })
    }

    /// The next call that changes something fails like this.
    pub fn fail_next(&self, failing: Failing) {
        self.state().failures.push_back(failing);
    }

    /// From now on a subscription has at least so many seats, so that a test about something else can add users.
    pub fn sell_at_least(&self, seats: u32) {
        self.state().least_seats = seats;
    }

    /// The calls there were, by name.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Where invoices of a customer go.
    pub fn email_of(&self, customer: &CustomerRef) -> Option<String> {
        self.state().emails.get(customer.as_str()).cloned()
    }

    /// Everybody who is a customer.
    pub fn customers(&self) -> Vec<(CustomerRef, TenantId)> {
        let state = self.state();
        let all = state.customers.iter();
        all.map(|(id, tenant)| (CustomerRef::parse(id).unwrap(), *tenant))
            .collect()
    }

    /// Everything that has happened.
    pub fn events(&self) -> Vec<ProviderEvent> {
        self.state().events.clone()
    }

    /// All subscriptions.
    pub fn subscriptions(&self) -> Vec<ProviderSubscription> {
        self.state().subscriptions.values().cloned().collect()
    }

    /// What was reported of usage and stands.
    pub fn usage(&self) -> Vec<UsageReport> {
        let state = self.state();
        let standing = state.usage.values().filter(|(_, standing)| *standing);
        standing.map(|(report, _)| report.clone()).collect()
    }

    /// Changes a subscription behind the application's back, as the provider does.
    pub fn change(&self, id: &SubscriptionRef, change: impl FnOnce(&mut ProviderSubscription)) -> EventRef {
        let mut state = self.state();
        let subscription = state.subscriptions.get_mut(id.as_str()).unwrap();
        change(subscription);
        let subscription = subscription.clone();
        self.tell(
            &mut state,
            "customer.subscription.updated",
            "subscription",
            id.as_str(),
            &subscription.customer,
        )
    }

    /// A subscription that somebody else has made.
    pub fn subscribe(&self, new: &NewSubscription, status: SubscriptionStatus) -> SubscriptionRef {
        let mut state = self.state();
        let id = self.subscription_in(&mut state, new);
        state.subscriptions.get_mut(id.as_str()).unwrap().status = status;
        id
    }

    /// An invoice of a subscription that could not be collected.
    pub fn fail_payment(&self, id: &SubscriptionRef) -> InvoiceRef {
        let mut state = self.state();
        let now = self.clock.now();
        let subscription = state.subscriptions.get_mut(id.as_str()).unwrap();
        subscription.status = SubscriptionStatus::PastDue;
        let subscription = subscription.clone();
        state.made += 1;
        let invoice = ProviderInvoice {
            id: InvoiceRef::parse(&format!("in_{}", state.made)).unwrap(),
            customer: subscription.customer.clone(),
            subscription: Some(id.clone()),
            number: Some(format!("N-{}", state.made)),
            status: Some(InvoiceStatus::Open),
            currency: usd(),
            total: 2_900,
            amount_due: 2_900,
            amount_paid: 0,
            period: subscription.period,
            attempts: 1,
            next_attempt_at: Some(now + Duration::days(3)),
            url: Some("https://pay.example/in".into()),
            created_at: now,
            lines: vec![InvoiceLine {
                description: "Pro".into(),
                amount: 2_900,
                quantity: 1,
                proration: false,
            }],
        };
        let (invoice_id, customer) = (invoice.id.clone(), subscription.customer);
        state.invoices.insert(invoice_id.to_string(), invoice);
        self.tell(
            &mut state,
            "invoice.payment_failed",
            "invoice",
            invoice_id.as_str(),
            &customer,
        );
        invoice_id
    }

    /// The invoice is paid after all.
    pub fn pay(&self, id: &InvoiceRef) {
        let mut state = self.state();
        let invoice = state.invoices.get_mut(id.as_str()).unwrap();
        invoice.status = Some(InvoiceStatus::Paid);
        (invoice.amount_paid, invoice.amount_due) = (invoice.total, 0);
        invoice.next_attempt_at = None;
        let invoice = invoice.clone();
        self.tell(
            &mut state,
            "invoice.paid",
            "invoice",
            id.as_str(),
            &invoice.customer,
        );
        if let Some(id) = &invoice.subscription {
            let owes = state
                .invoices
                .values()
                .any(|other| other.subscription.as_ref() == Some(id) && other.is_outstanding());
            let subscription = state.subscriptions.get_mut(id.as_str()).unwrap();
            if !owes && subscription.status != SubscriptionStatus::Canceled {
                subscription.status = SubscriptionStatus::Active;
            }
            self.tell(
                &mut state,
                "customer.subscription.updated",
                "subscription",
                id.as_str(),
                &invoice.customer,
            );
        }
    }

    /// The message that tells of an event.
    pub fn message(event: &ProviderEvent) -> Value {
        json!({
            "id": event.id, "kind": event.kind, "at": event.created_at, "object": event.object,
            "object_id": event.object_id, "customer": event.customer,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(
        &self,
        state: &mut State,
        kind: &str,
        object: &str,
        id: &str,
        customer: &CustomerRef,
    ) -> EventRef {
        let event = ProviderEvent {
            id: EventRef::parse(&format!("evt_{}", state.events.len() + 1)).unwrap(),
            kind: kind.to_owned(),
            created_at: self.clock.now(),
            object: Some(object.to_owned()),
            object_id: Some(id.to_owned()),
            customer: Some(customer.clone()),
            subscription: None,
        };
        state.events.push(event.clone());
        event.id
    }

    fn subscription_in(&self, state: &mut State, new: &NewSubscription) -> SubscriptionRef {
        state.made += 1;
        let (id, now) = (format!("sub_{}", state.made), self.clock.now());
        let trial_ends_at = (new.trial_days > 0).then(|| now + Duration::days(i64::from(new.trial_days)));
        let subscription = ProviderSubscription {
            id: SubscriptionRef::parse(&id).unwrap(),
            customer: new.customer.clone(),
            status: if trial_ends_at.is_some() {
                SubscriptionStatus::Trialing
            } else {
                SubscriptionStatus::Incomplete
            },
            offer: Some(new.offer.clone()),
            seats: new.seats.max(state.least_seats),
            charged: charged(now),
            period: Period {
                start: now,
                end: trial_ends_at.unwrap_or(now + Duration::days(30)),
            },
            trial_ends_at,
            cancel_at_period_end: false,
            canceled_at: None,
            ended_at: None,
            created_at: now,
        };
        let made = subscription.id.clone();
        state.subscriptions.insert(id.clone(), subscription);
        self.tell(
            state,
            "customer.subscription.created",
            "subscription",
            &id,
            &new.customer,
        );
        made
    }

    /// Does something once for a key; as far as the next failure lets it.
    fn once(
        &self,
        name: &str,
        key: &ProviderKey,
        work: impl FnOnce(&Self, &mut State) -> Result<Answer, ProviderError>,
    ) -> Result<Answer, ProviderError> {
        let mut state = self.state();
        state.calls.push(name.to_owned());
        let failing = state.failures.pop_front();
        if let Some(Failing::Before(error)) = failing {
            return Err(error);
        }
        let answer = match state.answers.get(key.as_str()) {
            Some(answer) => answer.clone(),
            None => {
                let answer = work(self, &mut state)?;
                state.answers.insert(key.to_string(), answer.clone());
                answer
            }
        };
        match failing {
            Some(Failing::After) => Err(ProviderError::Unavailable("the answer was lost".into())),
            _ => Ok(answer),
        }
    }

    fn subscription_now(&self, answer: Answer) -> Result<ProviderSubscription, ProviderError> {
        let Answer::Subscription(id) = answer else {
            return Err(ProviderError::Refused(
                "the key was used for something else".into(),
            ));
        };
        let state = self.state();
        let found = state.subscriptions.get(id.as_str());
        found
            .cloned()
            .ok_or_else(|| ProviderError::NotFound(id.to_string()))
    }

    fn altered(
        &self,
        name: &str,
        key: &ProviderKey,
        id: &SubscriptionRef,
        change: impl FnOnce(&mut ProviderSubscription),
    ) -> Result<ProviderSubscription, ProviderError> {
        let answer = self.once(name, key, |this, state| {
            let missing = || ProviderError::NotFound(id.to_string());
            let subscription = state.subscriptions.get_mut(id.as_str()).ok_or_else(missing)?;
            if subscription.status == SubscriptionStatus::Canceled {
                return Err(ProviderError::Refused("the subscription has ended".into()));
            }
            change(subscription);
            let customer = subscription.customer.clone();
            this.tell(
                state,
                "customer.subscription.updated",
                "subscription",
                id.as_str(),
                &customer,
            );
            Ok(Answer::Subscription(id.clone()))
        })?;
        self.subscription_now(answer)
    }
}

/// What the plans of the standard catalogue that can be bought charge.
fn charged(since: Time) -> Vec<ChargedMeter> {
    vec![ChargedMeter {
        meter: MeterKey::api_calls(),
        since,
    }]
}

fn usd() -> tenantry_domain::kernel::Currency {
    tenantry_domain::kernel::Currency::try_from("usd".to_owned()).unwrap()
}

#[async_trait]
impl PaymentProvider for MemoryPayments {
    async fn create_customer(
        &self,
        key: &ProviderKey,
        new: &NewCustomer,
    ) -> Result<CustomerRef, ProviderError> {
        let answer = self.once("create_customer", key, |_, state| {
            state.made += 1;
            let id = format!("cus_{}", state.made);
            state.customers.insert(id.clone(), new.tenant);
            if let Some(email) = &new.email {
                state.emails.insert(id.clone(), email.clone());
            }
            Ok(Answer::Customer(CustomerRef::parse(&id).unwrap()))
        })?;
        match answer {
            Answer::Customer(customer) => Ok(customer),
            _ => Err(ProviderError::Refused(
                "the key was used for something else".into(),
            )),
        }
    }

    async fn customers_of(&self, tenant: TenantId) -> Result<Vec<CustomerRef>, ProviderError> {
        let state = self.state();
        let of_tenant = state.customers.iter().filter(|(_, of)| **of == tenant);
        Ok(of_tenant.map(|(id, _)| CustomerRef::parse(id).unwrap()).collect())
    }

    async fn customer(&self, customer: &CustomerRef) -> Result<Option<ProviderCustomer>, ProviderError> {
        let state = self.state();
        let label = state.customers.get(customer.as_str()).copied();
        Ok(label.map(|tenant| ProviderCustomer {
            id: customer.clone(),
            label: Some(tenant),
            email: state.emails.get(customer.as_str()).cloned(),
        }))
    }

    async fn set_customer_email(
        &self,
        _: &ProviderKey,
        customer: &CustomerRef,
        email: &str,
    ) -> Result<(), ProviderError> {
        let mut state = self.state();
        if state.customers.contains_key(customer.as_str()) {
            state.emails.insert(customer.to_string(), email.to_owned());
        }
        Ok(())
    }

    async fn delete_customer(&self, customer: &CustomerRef) -> Result<(), ProviderError> {
        let mut state = self.state();
        state.customers.remove(customer.as_str());
        for subscription in state.subscriptions.values_mut() {
            if subscription.customer == *customer {
                subscription.status = SubscriptionStatus::Canceled;
            }
        }
        Ok(())
    }

    async fn create_subscription(
        &self,
        key: &ProviderKey,
        new: &NewSubscription,
    ) -> Result<ProviderSubscription, ProviderError> {
        let answer = self.once("create_subscription", key, |this, state| {
            Ok(Answer::Subscription(this.subscription_in(state, new)))
        })?;
        self.subscription_now(answer)
    }

    async fn subscription(
        &self,
        id: &SubscriptionRef,
    ) -> Result<Option<ProviderSubscription>, ProviderError> {
        Ok(self.state().subscriptions.get(id.as_str()).cloned())
    }

    async fn subscriptions_of(
        &self,
        customer: &CustomerRef,
    ) -> Result<Vec<ProviderSubscription>, ProviderError> {
        let state = self.state();
        let of_customer = state
            .subscriptions
            .values()
            .filter(|one| one.customer == *customer);
        Ok(of_customer.cloned().collect())
    }

    async fn change_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
        offer: &Offer,
        seats: u32,
    ) -> Result<ProviderSubscription, ProviderError> {
        let seats = seats.max(self.state().least_seats);
        self.altered("change_subscription", key, id, |subscription| {
            subscription.offer = Some(offer.clone());
            subscription.seats = seats;
        })
    }

    async fn preview_change(
        &self,
        _: &SubscriptionRef,
        _: &Offer,
        seats: u32,
    ) -> Result<ProrationPreview, ProviderError> {
        let line = InvoiceLine {
            description: "Remaining time".into(),
            amount: 1_700,
            quantity: seats.into(),
            proration: true,
        };
        Ok(ProrationPreview {
            currency: usd(),
            amount_due: 1_700,
            lines: vec![line],
        })
    }

    async fn cancel_at_period_end(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
        cancel: bool,
    ) -> Result<ProviderSubscription, ProviderError> {
        self.altered("cancel_at_period_end", key, id, |subscription| {
            subscription.cancel_at_period_end = cancel;
        })
    }

    async fn end_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
    ) -> Result<ProviderSubscription, ProviderError> {
        let ended_at = self.clock.now();
        let ended = self.subscription_now(Answer::Subscription(id.clone()))?;
        if ended.has_ended() {
            return Ok(ended);
        }
        self.altered("end_subscription", key, id, |subscription| {
            subscription.status = SubscriptionStatus::Canceled;
            (subscription.canceled_at, subscription.ended_at) = (Some(ended_at), Some(ended_at));
        })
    }

    async fn withdraw_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
    ) -> Result<ProviderSubscription, ProviderError> {
        let ended_at = self.clock.now();
        let now = self.subscription_now(Answer::Subscription(id.clone()))?;
        if !now.awaits_payment() {
            return Ok(now);
        }
        self.altered("withdraw_subscription", key, id, |subscription| {
            subscription.status = SubscriptionStatus::IncompleteExpired;
            subscription.ended_at = Some(ended_at);
        })
    }

    async fn checkout(&self, key: &ProviderKey, new: &NewCheckout) -> Result<OpenCheckout, ProviderError> {
        let answer = self.once("checkout", key, |this, state| {
            state.made += 1;
            let (id, now) = (format!("cs_{}", state.made), this.clock.now());
            let checkout = OpenCheckout {
                id: CheckoutRef::parse(&id).unwrap(),
                terms: Some(new.terms.clone()),
                link: Link {
                    url: format!("https://pay.example/{id}"),
                    expires_at: Some(now + Duration::days(1)),
                },
                created_at: now,
            };
            let owner = new.subscription.customer.clone();
            state.checkouts.insert(id, (owner, checkout.clone()));
            Ok(Answer::Checkout(checkout))
        })?;
        match answer {
            Answer::Checkout(checkout) => Ok(checkout),
            _ => Err(ProviderError::Refused(
                "the key was used for something else".into(),
            )),
        }
    }

    async fn open_checkouts(&self, customer: &CustomerRef) -> Result<Vec<OpenCheckout>, ProviderError> {
        let state = self.state();
        let open = state.checkouts.values().filter(|(of, _)| of == customer);
        Ok(open.map(|(_, checkout)| checkout.clone()).collect())
    }

    async fn expire_checkout(&self, id: &CheckoutRef) -> Result<bool, ProviderError> {
        self.state().checkouts.remove(id.as_str());
        Ok(true)
    }

    async fn portal(&self, customer: &CustomerRef, _: &str) -> Result<Link, ProviderError> {
        Ok(Link {
            url: format!("https://pay.example/portal/{customer}"),
            expires_at: None,
        })
    }

    async fn invoice(&self, id: &InvoiceRef) -> Result<Option<ProviderInvoice>, ProviderError> {
        Ok(self.state().invoices.get(id.as_str()).cloned())
    }

    async fn invoices_of(
        &self,
        customer: &CustomerRef,
        limit: u8,
    ) -> Result<Vec<ProviderInvoice>, ProviderError> {
        let state = self.state();
        let of_customer = state.invoices.values().filter(|one| one.customer == *customer);
        let mut newest: Vec<_> = of_customer.cloned().collect();
        newest.sort_by_key(|invoice| std::cmp::Reverse((invoice.created_at, invoice.id.clone())));
        newest.truncate(usize::from(limit));
        Ok(newest)
    }

    async fn upcoming_invoice(&self, _: &SubscriptionRef) -> Result<Option<ProviderInvoice>, ProviderError> {
        Ok(None)
    }

    async fn report_usage(&self, report: &UsageReport) -> Result<Delivered, ProviderError> {
        let mut state = self.state();
        state.calls.push("report_usage".to_owned());
        let failing = state.failures.pop_front();
        if let Some(Failing::Before(error)) = failing {
            return Err(error);
        }
        let known = state.usage.contains_key(report.identifier.as_str());
        let entry = (report.clone(), true);
        state.usage.entry(report.identifier.to_string()).or_insert(entry);
        match failing {
            Some(Failing::After) => Err(ProviderError::Unavailable("the answer was lost".into())),
            _ if known => Ok(Delivered::Before),
            _ => Ok(Delivered::Now),
        }
    }

    async fn cancel_usage(&self, _: &MeterKey, identifier: &ProviderKey) -> Result<(), ProviderError> {
        if let Some((_, standing)) = self.state().usage.get_mut(identifier.as_str()) {
            *standing = false;
        }
        Ok(())
    }

    async fn usage_of(
        &self,
        customer: &CustomerRef,
        meter: &MeterKey,
        period: Period,
    ) -> Result<u64, ProviderError> {
        let standing = self.usage().into_iter();
        let within = standing.filter(|report| {
            report.customer == *customer && report.meter == *meter && period.contains(report.at)
        });
        Ok(within.map(|report| report.quantity).sum())
    }

    async fn events_since(&self, since: Time) -> Result<Vec<ProviderEvent>, ProviderError> {
        let events = self.events().into_iter();
        Ok(events.filter(|event| event.created_at >= since).collect())
    }

    fn read_event(&self, body: &[u8], signature: &str, _: Time) -> Result<ProviderEvent, ForgedEvent> {
        if signature != SIGNATURE {
            return Err(ForgedEvent::Signature);
        }
        let value: Value = serde_json::from_slice(body).map_err(|_| ForgedEvent::Body)?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Ok(ProviderEvent {
            id: text("id")
                .and_then(|id| EventRef::parse(&id))
                .ok_or(ForgedEvent::Body)?,
            kind: text("kind").ok_or(ForgedEvent::Body)?,
            created_at: text("at")
                .and_then(|at| at.parse().ok())
                .ok_or(ForgedEvent::Body)?,
            object: text("object"),
            object_id: text("object_id"),
            customer: text("customer").and_then(|id| CustomerRef::parse(&id)),
            subscription: None,
        })
    }
}
