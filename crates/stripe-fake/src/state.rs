use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::account::{API_VERSION, Account};
use crate::collect::{DAY, HOUR};
use crate::failure::{Failure, Matcher};
use crate::hold::Gate;
use crate::journal::{Earlier, Entry, Journal};
use crate::params::Params;
use crate::problem::Problem;
use crate::webhooks::{Delivery, Parcel, shuffle};
use crate::{Card, Exhausted, FakeConfig, control, routes};

/// A call of the API that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `POST`.
    pub method: String,
    /// `/v1/customers`.
    pub path: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// What was answered, or would have been.
    pub status: u16,
    /// Whether it was the answer of an earlier call with this key.
    pub replayed: bool,
}

/// What a client gets to see.
#[derive(Debug)]
pub enum Outcome {
    Answer {
        status: u16,
        body: Value,
        replayed: bool,
    },
    /// 200, and no JSON.
    Garbage,
    /// No answer for a long time, and then none.
    Silence,
    /// None, at once.
    Closed,
}

impl From<Problem> for Outcome {
    fn from(problem: Problem) -> Self {
        Self::Answer {
            status: problem.status,
            body: problem.body(),
            replayed: false,
        }
    }
}

/// What came in.
#[derive(Debug)]
pub struct Incoming<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub key: Option<&'a str>,
    pub bearer: Option<&'a str>,
    pub params: Params,
}

/// What the API, the control API and the deliverer of webhooks share.
#[derive(Debug)]
pub struct Shared {
    pub secret_key: String,
    pub hang: Duration,
    pub webhook_attempts: u32,
    pub webhook_backoff: Duration,
    state: Mutex<State>,
    /// Something has happened that endpoints may have to be told.
    news: Notify,
    /// They have been told.
    quiet: Notify,
}

#[derive(Debug)]
struct State {
    account: Account,
    clock: Clock,
    remembered: BTreeMap<String, Remembered>,
    forgot_at: i64,
    rules: Vec<(Matcher, Failure, u32)>,
    holds: Vec<(Matcher, u32, Arc<Gate>)>,
    calls: Vec<Call>,
    endpoints: Vec<Endpoint>,
    delivery: Delivery,
    /// How many of the events have been handed to the deliverer.
    handed: usize,
    again: VecDeque<String>,
    busy: bool,
    undelivered: usize,
    /// Where calls that change something are kept.
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Clock {
    start: i64,
    since: Option<Instant>,
    /// How far it was moved by hand.
    ahead: i64,
}

impl Clock {
    fn now(&self) -> i64 {
        self.by_itself().saturating_add(self.ahead)
    }

    /// What time it would be if nobody had moved it.
    fn by_itself(&self) -> i64 {
        let passed = self.since.map_or(0, |since| since.elapsed().as_secs());
        self.start
            .saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    fn set(&mut self, at: i64) {
        self.ahead = at.saturating_sub(self.by_itself());
    }

    /// When webhooks are signed. Where time passes by itself that is the time of everybody else, who are not moved with it
    /// (as at Stripe, whose test clocks do not change when things are sent).
    fn signing(&self) -> i64 {
        if self.since.is_some() {
            self.by_itself()
        } else {
            self.now()
        }
    }
}

#[derive(Debug)]
struct Remembered {
    at: i64,
    call: String,
    params: Value,
    status: u16,
    body: Value,
}

#[derive(Debug)]
struct Endpoint {
    url: String,
    secret: String,
    /// Which events; none or `*` is all.
    kinds: Vec<String>,
}

impl Endpoint {
    fn wants(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind || wanted == "*")
    }
}

impl State {
    /// Lets the time that has passed by itself pass for the account.
    fn catch_up(&mut self) {
        let now = self.clock.now();
        self.account.run_to(now);
    }

    /// What the account has been moved to is the time.
    fn keep_time(&mut self) {
        if self.account.now > self.clock.now() {
            self.clock.set(self.account.now);
        }
    }

    /// Keeps a call for a fake that is started over the same file.
    fn keep(&mut self, at: i64, (method, path, key, params): (&str, &str, Option<&str>, &Params)) {
        self.keep_time();
        let ahead = self.clock.ahead;
        let Some(journal) = &mut self.journal else { return };
        let entry = Entry {
            at,
            ahead,
            method: method.to_owned(),
            path: path.to_owned(),
            key: key.map(str::to_owned),
            params: params.clone(),
        };
        if let Err(error) = journal.add(&entry) {
            tracing::warn!(%error, "what the fake does from now on is not kept");
            self.journal = None;
        }
    }

    /// Keys are forgotten after a day. They are looked through once an hour, not with each call.
    fn drop_expired(&mut self, now: i64) {
        if now >= self.forgot_at + HOUR {
            self.remembered.retain(|_, it| it.at > now - DAY);
            self.forgot_at = now;
        }
    }

    fn failure(&mut self, call: (&str, &str, &Params)) -> Option<Failure> {
        let position = self
            .rules
            .iter()
            .position(|(matcher, ..)| matcher.fits(&self.account, call))?;
        let (_, failure, times) = &mut self.rules[position];
        let failure = *failure;
        *times = times.saturating_sub(1);
        if *times == 0 {
            self.rules.remove(position);
        }
        Some(failure)
    }

    /// Where the call has to wait: each hold counts the calls that fit down to its own.
    fn gate(&mut self, call: (&str, &str, &Params)) -> Option<Arc<Gate>> {
        self.holds.retain(|(.., gate)| !gate.is_over());
        let mut reached = None;
        for (position, (matcher, left, _)) in self.holds.iter_mut().enumerate() {
            if matcher.fits(&self.account, call) {
                *left = left.saturating_sub(1);
                if *left == 0 && reached.is_none() {
                    reached = Some(position);
                }
            }
        }
        reached.map(|position| self.holds.remove(position).2)
    }
}

impl Shared {
    /// One at this address; with what an earlier one has done, where the settings name a file.
    pub fn new(config: &FakeConfig, url: String) -> std::io::Result<Self> {
        let now = config.now.timestamp();
        // Where time is real, somebody may keep what an earlier fake gave out.
        let run = if config.runs {
            format!("{}{:x}", config.run, config.now.timestamp_millis())
        } else {
            config.run.clone()
        };
        let (journal, earlier) = match &config.journal {
            Some(path) => {
                let (journal, earlier) = Journal::open(path, &run)?;
                (Some(journal), earlier)
            }
            None => {
                let entries = Vec::new();
                (None, Earlier { run, entries })
            }
        };
        let start = earlier.entries.first().map_or(now, |first| first.at);
        let shared = Self {
            secret_key: config.secret_key.clone(),
            hang: config.hang,
            webhook_attempts: config.webhook_attempts,
            webhook_backoff: config.webhook_backoff,
            state: Mutex::new(State {
                account: Account::new(url, earlier.run, start, config.card, config.exhausted),
                clock: Clock {
                    start,
                    since: None,
                    ahead: 0,
                },
                remembered: BTreeMap::new(),
                forgot_at: start,
                rules: Vec::new(),
                holds: Vec::new(),
                calls: Vec::new(),
                endpoints: Vec::new(),
                delivery: Delivery::InOrder,
                handed: 0,
                again: VecDeque::new(),
                busy: false,
                undelivered: 0,
                journal: None,
            }),
            news: Notify::new(),
            quiet: Notify::new(),
        };
        shared.repeat(&earlier.entries);
        let mut state = shared.state();
        state.clock = Clock {
            start: now,
            since: config.runs.then(Instant::now),
            ahead: earlier.entries.last().map_or(0, |last| last.ahead),
        };
        // The receivers of events are gone, and register again.
        state.endpoints.clear();
        state.handed = state.account.events.len();
        state.journal = journal;
        drop(state);
        Ok(shared)
    }

    /// Does what an earlier fake has done, each at its time.
    fn repeat(&self, entries: &[Entry]) {
        for entry in entries {
            self.act(|state| {
                state.clock.set(entry.at.max(state.account.now));
                state.catch_up();
            });
            if entry.path.starts_with("/_fake/") {
                drop(control::answer(self, &entry.method, &entry.path, &entry.params));
                continue;
            }
            let incoming = Incoming {
                method: &entry.method,
                path: &entry.path,
                key: entry.key.as_deref(),
                bearer: None,
                params: entry.params.clone(),
            };
            self.act(|state| drop(once(state, &incoming)));
        }
    }

    /// Keeps a call of the control API that has changed something.
    pub fn keep(&self, at: i64, method: &str, path: &str, params: &Params) {
        self.act(|state| state.keep(at, (method, path, None, params)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with everything, at the time that it is.
    fn act<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        state.catch_up();
        let result = action(&mut state);
        state.keep_time();
        drop(state);
        self.news.notify_one();
        result
    }

    pub fn read<T>(&self, look: impl FnOnce(&Account) -> T) -> T {
        self.act(|state| look(&state.account))
    }

    pub fn now(&self) -> i64 {
        self.state().clock.now()
    }

    /// When a webhook that is sent now is signed.
    pub fn signing_time(&self) -> i64 {
        self.state().clock.signing()
    }

    pub fn advance_to(&self, at: i64) {
        self.act(|state| state.account.run_to(at));
    }

    /// Answers a call of the API.
    pub fn call(&self, incoming: &Incoming<'_>) -> Outcome {
        self.act(|state| {
            let outcome = self.answered(state, incoming);
            let (status, replayed) = match &outcome {
                Outcome::Answer { status, replayed, .. } => (*status, *replayed),
                Outcome::Garbage => (200, false),
                Outcome::Silence | Outcome::Closed => (0, false),
            };
            state.calls.push(Call {
                method: incoming.method.to_owned(),
                path: incoming.path.to_owned(),
                key: incoming.key.map(str::to_owned),
                status,
                replayed,
            });
            outcome
        })
    }

    fn answered(&self, state: &mut State, incoming: &Incoming<'_>) -> Outcome {
        if incoming.bearer != Some(self.secret_key.as_str()) {
            return Problem::unauthenticated().into();
        }
        let failure = state.failure((incoming.method, incoming.path, &incoming.params));
        match failure {
            Some(Failure::TimeoutBeforeEffect) => return Outcome::Silence,
            Some(Failure::ResetBeforeEffect) => return Outcome::Closed,
            Some(Failure::TooManyRequests) => return Problem::too_many().into(),
            Some(Failure::ServerError) => return Problem::failed().into(),
            Some(
                Failure::TimeoutAfterEffect
                | Failure::ResetAfterEffect
                | Failure::ServerErrorAfterEffect
                | Failure::Garbage,
            )
            | None => {}
        }
        let done = once(state, incoming);
        match failure {
            Some(Failure::TimeoutAfterEffect) => Outcome::Silence,
            Some(Failure::ResetAfterEffect) => Outcome::Closed,
            Some(Failure::ServerErrorAfterEffect) => Problem::failed().into(),
            Some(Failure::Garbage) => Outcome::Garbage,
            Some(
                Failure::TimeoutBeforeEffect
                | Failure::ResetBeforeEffect
                | Failure::TooManyRequests
                | Failure::ServerError,
            )
            | None => done,
        }
    }

    /// Registers an endpoint. Returns its number.
    pub fn endpoint(&self, url: &str, secret: &str, kinds: Vec<String>) {
        self.act(|state| add_endpoint(state, url, secret, kinds));
    }

    pub fn delivery(&self, delivery: Delivery) {
        self.act(|state| state.delivery = delivery);
    }

    pub fn resend(&self, event: &str) -> bool {
        self.act(|state| {
            let known = state.account.events.iter().any(|it| it.id == event);
            if known {
                state.again.push_back(event.to_owned());
            }
            known
        })
    }

    pub fn fail(&self, matcher: Matcher, failure: Failure, times: u32) {
        if times > 0 {
            self.act(|state| state.rules.push((matcher, failure, times)));
        }
    }

    /// Holds the so-manieth call that fits from now on; the first is 1.
    pub fn hold(&self, matcher: Matcher, which: u32, gate: Arc<Gate>) {
        self.act(|state| state.holds.push((matcher, which.max(1), gate)));
    }

    /// Where a call of the API has to wait that has come just now.
    pub fn gate(&self, method: &str, path: &str, params: &Params) -> Option<Arc<Gate>> {
        self.act(|state| state.gate((method, path, params)))
    }

    pub fn set_card(&self, customer: &str, card: Card) -> bool {
        self.act(|state| match state.account.customers.get_mut(customer) {
            Some(customer) => {
                customer.card = card;
                true
            }
            None => false,
        })
    }

    pub fn pay_invoice(&self, invoice: &str) -> bool {
        self.act(|state| {
            let open = state
                .account
                .invoices
                .get(invoice)
                .is_some_and(|it| it.status == "open");
            if open {
                state.account.paid(invoice);
            }
            open
        })
    }

    pub fn write_off(&self, invoice: &str, status: &'static str) -> Result<(), Problem> {
        self.act(|state| state.account.write_off(invoice, status))
    }

    pub fn delete_customer(&self, customer: &str) -> Result<Value, Problem> {
        self.act(|state| routes::delete_customer(&mut state.account, customer))
    }

    pub fn dashboard(&self, method: &str, path: &str, params: &Params) -> Result<Value, Problem> {
        self.act(|state| routes::answer(&mut state.account, method, path, params))
    }

    pub fn complete_checkout(&self, session: &str) -> Result<String, Problem> {
        self.act(|state| routes::complete_checkout(&mut state.account, session))
    }

    pub fn after_retries(&self, exhausted: Exhausted) {
        self.act(|state| state.account.exhausted = exhausted);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub fn undelivered(&self) -> usize {
        self.state().undelivered
    }

    /// Waits until there may be something to tell.
    pub async fn something_to_tell(&self) {
        loop {
            let news = self.news.notified();
            {
                let mut state = self.state();
                if state.handed < state.account.events.len() || !state.again.is_empty() {
                    state.busy = true;
                    return;
                }
            }
            news.await;
        }
    }

    /// What endpoints are to be told now, in the order in which they are.
    pub fn parcels(&self) -> Vec<Parcel> {
        let mut state = self.state();
        let state = &mut *state;
        let mut events: Vec<_> = state.account.events[state.handed..].to_vec();
        state.handed = state.account.events.len();
        match &mut state.delivery {
            Delivery::InOrder => {}
            Delivery::Reordered(seed) => {
                shuffle(&mut events, *seed);
                *seed = seed.wrapping_add(1);
            }
            Delivery::Duplicated => events.extend(events.clone()),
            Delivery::Lost(left) => {
                let lost = usize::try_from(*left).unwrap_or(usize::MAX).min(events.len());
                events.drain(..lost);
                *left -= u32::try_from(lost).unwrap_or(*left);
            }
        }
        for id in std::mem::take(&mut state.again) {
            events.extend(state.account.events.iter().find(|it| it.id == id).cloned());
        }
        let mut parcels = Vec::new();
        for event in events {
            for endpoint in state.endpoints.iter().filter(|it| it.wants(&event.kind)) {
                parcels.push(Parcel {
                    url: endpoint.url.clone(),
                    secret: endpoint.secret.clone(),
                    body: event.body.to_string(),
                });
            }
        }
        parcels
    }

    pub fn given_up(&self) {
        self.state().undelivered += 1;
    }

    pub fn told(&self) {
        self.state().busy = false;
        self.quiet.notify_waiters();
    }

    pub async fn settled(&self) {
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            quiet.as_mut().enable();
            {
                let state = self.state();
                if !state.busy && state.handed == state.account.events.len() && state.again.is_empty() {
                    return;
                }
            }
            quiet.await;
        }
    }
}

fn add_endpoint(state: &mut State, url: &str, secret: &str, kinds: Vec<String>) {
    // What has happened before is nobody's business.
    if state.endpoints.is_empty() {
        state.handed = state.account.events.len();
    }
    state.endpoints.push(Endpoint {
        url: url.to_owned(),
        secret: secret.to_owned(),
        kinds,
    });
}

/// Carries a call out, unless one with its key has been: then that one's answer is given again.
fn once(state: &mut State, incoming: &Incoming<'_>) -> Outcome {
    let now = state.account.now;
    let call = format!("{} {}", incoming.method, incoming.path);
    let given = incoming.params.value();
    let key = incoming.key.filter(|_| incoming.method == "POST");
    state.drop_expired(now);
    let known = key.and_then(|key| state.remembered.get(key));
    if let Some(earlier) = known.filter(|earlier| earlier.at > now - DAY) {
        if earlier.call != call || earlier.params != given {
            return Problem::other_parameters().into();
        }
        return Outcome::Answer {
            status: earlier.status,
            body: earlier.body.clone(),
            replayed: true,
        };
    }
    let (status, body) = match route(state, incoming) {
        Ok(body) => (200, body),
        Err(problem) => (problem.status, problem.body()),
    };
    // One that fails may have used up ids.
    if incoming.method != "GET" {
        let Incoming {
            method, path, key, ..
        } = *incoming;
        state.keep(now, (method, path, key, &incoming.params));
    }
    // What was refused before anything was begun may be tried again with the same key.
    if let Some(key) = key.filter(|_| matches!(status, 200 | 402)) {
        let remembered = Remembered {
            at: now,
            call,
            params: given,
            status,
            body: body.clone(),
        };
        state.remembered.insert(key.to_owned(), remembered);
    }
    Outcome::Answer {
        status,
        body,
        replayed: false,
    }
}

fn route(state: &mut State, incoming: &Incoming<'_>) -> Result<Value, Problem> {
    let unknown = || Problem::no_route(incoming.method, incoming.path);
    let path = incoming.path.strip_prefix("/v1/").ok_or_else(unknown)?;
    if (incoming.method, path) == ("POST", "webhook_endpoints") {
        return create_endpoint(state, &incoming.params);
    }
    routes::answer(&mut state.account, incoming.method, path, &incoming.params)
}

fn create_endpoint(state: &mut State, params: &Params) -> Result<Value, Problem> {
    let url = params.required("url")?;
    let kinds = params.texts("enabled_events");
    if kinds.is_empty() {
        return Err(Problem::missing("enabled_events"));
    }
    let id = state.account.id("we");
    let secret = format!("whsec_{id}");
    add_endpoint(state, &url, &secret, kinds.clone());
    Ok(json!({
        "id": id, "object": "webhook_endpoint", "api_version": API_VERSION, "application": null,
        "created": state.account.now, "description": null, "enabled_events": kinds, "livemode": false,
        "metadata": {}, "secret": secret, "status": "enabled", "url": url,
    }))
}
