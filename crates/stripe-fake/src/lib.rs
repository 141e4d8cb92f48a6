//! A stand-in for Stripe, over real HTTP, for tests and for trying things out without an account.
//!
//! It keeps customers, prices, meters, subscriptions and invoices, has a clock that is moved by hand, bills
//! at the end of periods, tries failed payments again, signs and delivers webhooks, and fails where it is
//! told to. Its answers have the shapes of API version 2026-09-30.endive.
//!
//! What it does differently from Stripe, and on purpose: there is one account and one clock; nothing is
//! taxed; amounts are only ever charged to a pretended card; searching sees new objects at once.

mod account;
mod calendar;
mod collect;
mod control;
mod failure;
mod hold;
mod journal;
mod money;
mod objects;
mod orders;
mod params;
mod problem;
mod routes;
mod server;
mod state;
mod webhooks;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

pub use crate::account::API_VERSION;
pub use crate::failure::{Failure, Matcher};
use crate::hold::Gate;
pub use crate::hold::{Held, Hold};
pub use crate::state::Call;
use crate::state::Shared;
pub use crate::webhooks::{Delivery, sign};

/// How the card of a customer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// There is none; as of every customer that nobody has asked to pay yet.
    Missing,
    /// It always pays.
    Pays,
    /// It is declined so many times, and pays then.
    DeclinesTimes(u32),
    /// It is always declined.
    Declines,
}

/// What becomes of a subscription when a payment has failed for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// It is unpaid: further invoices are made and not collected.
    Unpaid,
    /// It is cancelled.
    Canceled,
    /// It stays past due.
    PastDue,
}

/// How the fake begins.
#[derive(Debug, Clone)]
pub struct FakeConfig {
    /// The port on 127.0.0.1; 0 is any that is free.
    pub port: u16,
    /// What callers must present.
    pub secret_key: String,
    /// What time it is, to the second.
    pub now: DateTime<Utc>,
    /// Whether time passes by itself. Then it may be moved ahead of everybody else's, which does not change when webhooks
    /// are signed.
    pub runs: bool,
    /// What each of its ids has in it. Two accounts of Stripe never give out the same id; two fakes do so unless this is
    /// another one for each. Where time passes by itself the time of the start is added to it.
    pub run: String,
    /// The card of new customers.
    pub card: Card,
    /// What becomes of subscriptions in the end that are not paid.
    pub exhausted: Exhausted,
    /// How long a call that is to time out gets no answer.
    pub hang: Duration,
    /// How often a webhook is sent before it is given up; at least 1.
    pub webhook_attempts: u32,
    /// How long it waits before the second time; each further wait is twice as long.
    pub webhook_backoff: Duration,
    /// The file in which calls are kept that change something: a fake that is started over it later has all that this one had,
    /// and its clock is as far ahead. Without one, nothing is kept.
    pub journal: Option<PathBuf>,
}

impl Default for FakeConfig {
    fn default() -> Self {
        Self {
            port: 0,
            secret_key: "sk_test_fake".into(),
            now: DateTime::from_timestamp(1_768_478_400, 0).unwrap_or_default(),
            runs: false,
            run: String::new(),
            card: Card::Missing,
            exhausted: Exhausted::Unpaid,
            hang: Duration::from_secs(30),
            webhook_attempts: 5,
            webhook_backoff: Duration::from_millis(50),
            journal: None,
        }
    }
}

/// A fake that is running, on a thread of its own; it ends with this value.
#[derive(Debug)]
pub struct StripeFake {
    shared: Arc<Shared>,
    url: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StripeFake {
    /// Starts it. It answers from then on.
    ///
    /// # Errors
    /// When the port is taken, the thread cannot be made, or the file of calls cannot be read.
    pub fn start(config: FakeConfig) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, config.port)))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::new(&config, url.clone())?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("stripe-fake".into())
            .spawn(move || runtime.block_on(server::serve(served, listener, stopped)))?;
        Ok(Self {
            shared,
            url,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it is, without a slash at the end: `http://127.0.0.1:9400`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What callers present.
    pub fn secret_key(&self) -> &str {
        &self.shared.secret_key
    }

    /// Returns the clock by which payments are due; tests move it.
    pub fn clock(&self) -> FakeClock {
        FakeClock(Arc::clone(&self.shared))
    }

    /// Tells everything that happens from now on to an address (`http` only), signed with a secret.
    pub fn webhook_to(&self, url: &str, secret: &str) {
        self.shared.endpoint(url, secret, Vec::new());
    }

    /// How webhooks are delivered from now on.
    pub fn webhooks(&self, delivery: Delivery) {
        self.shared.delivery(delivery);
    }

    /// Tells of an event once more; false when there is none of this id.
    pub fn resend(&self, event: &str) -> bool {
        self.shared.resend(event)
    }

    /// Waits until every webhook so far has been delivered or given up.
    pub async fn settled(&self) {
        self.shared.settled().await;
    }

    /// The next call that fits fails.
    pub fn fail_next(&self, matcher: Matcher, failure: Failure) {
        self.fail(matcher, failure, 1);
    }

    /// The next so many calls that fit fail.
    pub fn fail(&self, matcher: Matcher, failure: Failure, times: u32) {
        self.shared.fail(matcher, failure, times);
    }

    /// Keeps the so-manieth call that fits from now on from being answered until it is let go; the first is 1. Of a call that
    /// several are waiting for the first has it.
    pub fn hold(&self, matcher: Matcher, which: u32, held: Held) -> Hold {
        let gate = Arc::new(Gate::new(held));
        self.shared.hold(matcher, which, Arc::clone(&gate));
        Hold::new(gate)
    }

    /// What the card of a customer does from now on; false when there is no such customer.
    pub fn set_card(&self, customer: &str, card: Card) -> bool {
        self.shared.set_card(customer, card)
    }

    /// The customer pays an open invoice on its page; false when it is not open.
    pub fn pay_invoice(&self, invoice: &str) -> bool {
        self.shared.pay_invoice(invoice)
    }

    /// An open invoice is voided; false when it cannot be.
    pub fn void_invoice(&self, invoice: &str) -> bool {
        self.shared.write_off(invoice, "void").is_ok()
    }

    /// Nobody expects an open invoice to be paid any more; false when it is not open.
    pub fn mark_uncollectible(&self, invoice: &str) -> bool {
        self.shared.write_off(invoice, "uncollectible").is_ok()
    }

    /// Somebody deletes a customer in the dashboard; false when there is none of this id.
    pub fn delete_customer(&self, customer: &str) -> bool {
        self.shared.delete_customer(customer).is_ok()
    }

    /// Somebody does something in the dashboard that the API does, too: `POST`, `/v1/customers/cus_1`, `name=Acme`. It is no
    /// call that is counted or that fails.
    ///
    /// # Errors
    /// What the API would answer.
    pub fn dashboard(&self, method: &str, path: &str, form: &str) -> Result<Value, Value> {
        let params = params::Params::form(form.as_bytes());
        let path = path.trim_start_matches("/v1/");
        let done = self.shared.dashboard(method, path, &params);
        done.map_err(|problem| problem.body())
    }

    /// The customer pays in a checkout. Returns the subscription; `None` when there is no such open session.
    pub fn complete_checkout(&self, session: &str) -> Option<String> {
        self.shared.complete_checkout(session).ok()
    }

    /// What becomes of unpaid subscriptions from now on.
    pub fn after_retries(&self, exhausted: Exhausted) {
        self.shared.after_retries(exhausted);
    }

    /// All customers, deleted ones included, as the API shows them; the oldest first.
    pub fn customers(&self) -> Vec<Value> {
        self.shared
            .read(|account| account.customers.values().map(objects::customer).collect())
    }

    /// All subscriptions, ended ones included, the oldest first.
    pub fn subscriptions(&self) -> Vec<Value> {
        self.shared.read(|account| {
            let all = account.subscriptions.values();
            all.map(|it| objects::subscription(account, it)).collect()
        })
    }

    /// All invoices, the oldest first.
    pub fn invoices(&self) -> Vec<Value> {
        self.shared.read(|account| {
            let all = account.invoices.values();
            all.map(|it| objects::invoice(account, it)).collect()
        })
    }

    /// All prices, the oldest first.
    pub fn prices(&self) -> Vec<Value> {
        self.shared
            .read(|account| account.prices.values().map(objects::price_with_tiers).collect())
    }

    /// All events, the oldest first.
    pub fn events(&self) -> Vec<Value> {
        self.shared
            .read(|account| account.events.iter().map(|it| it.body.clone()).collect())
    }

    /// What a meter has counted for a customer, from a moment up to another (Unix seconds).
    pub fn meter_total(&self, event_name: &str, customer: &str, start: i64, end: i64) -> u64 {
        self.shared.read(|account| {
            let meter = account.meter_named(event_name);
            meter.map_or(0, |meter| account.counted(meter, customer, start, end))
        })
    }

    /// Every call of the API so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls()
    }

    /// How many webhooks were given up.
    pub fn undelivered(&self) -> usize {
        self.shared.undelivered()
    }
}

impl Drop for StripeFake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// The clock of a fake. Moving it does what is due on the way: it bills, collects, and ends what has run out.
#[derive(Debug, Clone)]
pub struct FakeClock(Arc<Shared>);

impl FakeClock {
    /// What time it is there.
    pub fn now(&self) -> DateTime<Utc> {
        money::moment(self.0.now())
    }

    /// Lets time pass; only whole seconds count.
    pub fn advance(&self, by: chrono::Duration) {
        self.0.advance_to(self.0.now() + by.num_seconds());
    }

    /// Lets time pass up to a moment; one that is over changes nothing.
    pub fn advance_to(&self, at: DateTime<Utc>) {
        self.0.advance_to(at.timestamp());
    }
}
