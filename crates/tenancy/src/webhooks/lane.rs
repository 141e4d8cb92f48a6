//! The run of a lane: the messages of one endpoint, while its lease stands.
//!
//! A run reads a few deliveries, sends as many at once as the endpoint takes, and stores the results of many in one transaction, which also
//! extends the lease and reads the next ones. A process that dies stores nothing more: what it has sent is sent again, with the same id.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::Duration as Span;
use tenantry_domain::kernel::{StoreError, TenantId, Time};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Capability;
use tenantry_domain::webhooks::{
    AttemptResult, ConnectionFault, Delivery, DeliveryOutcome, DeliveryState, DisablingRule, DueDelivery,
    EndpointCredentials, EndpointStep, FailureStreak, Lane, LaneLease, MessageId, SendError, WebhookEndpoint,
    WebhookRequest,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::Cx;
use crate::webhooks::delivery_state::{credentials, settle};
use crate::webhooks::disabled_notice;
use crate::webhooks::places::{BECAUSE, Places};

/// The most deliveries of one endpoint in memory, in flight or queued. Their data is as old as the reading.
const READ_AT_ONCE: u32 = 32;

/// How many results are stored at once while there is more to send.
const STORED_AT_ONCE: usize = 16;

/// How many deliveries of a disabled endpoint are canceled in one transaction.
const CANCELED_AT_ONCE: u32 = 5_000;

/// The pause after a transaction that has failed.
const PAUSE: Duration = Duration::from_millis(500);

/// How long an endpoint rests whose secrets cannot be opened.
const UNREADABLE_RESTS: Span = Span::minutes(10);

/// What was read of a lane.
pub(crate) struct Loaded {
    target: Target,
    due: Vec<DueDelivery>,
}

/// Where the messages of the lane go.
enum Target {
    /// To this endpoint.
    Endpoint(Box<WebhookEndpoint>, Arc<EndpointCredentials>),
    /// Nowhere: it is disabled or deleted, so what is queued is canceled.
    Nowhere,
    /// Nowhere until an operator has configured the key again.
    Unreadable,
}

/// Reads what is due of a lane, without the deliveries `except`: so many that the lane has [`READ_AT_ONCE`] in memory at the most. Those whose
/// event is not kept any more are canceled.
pub(crate) async fn load(
    cx: &Cx,
    work: &mut Work,
    (lane, found): (&Lane, Option<WebhookEndpoint>),
    except: &[Uuid],
) -> Result<Loaded, StoreError> {
    let nothing = |target| Loaded {
        target,
        due: Vec::new(),
    };
    let Some(endpoint) = found.filter(|endpoint| endpoint.state.is_enabled()) else {
        return Ok(nothing(Target::Nowhere));
    };
    let Some(credentials) = credentials(cx, work, &endpoint).await? else {
        tracing::error!(
            tenant = %cx.scope().tenant(), endpoint = %endpoint.id,
            "no known key opens the secrets of a webhook endpoint: nothing is sent to it"
        );
        return Ok(nothing(Target::Unreadable));
    };
    let now = cx.now();
    let queue = work.webhook_deliveries();
    let mut due = if endpoint.ordered {
        // The first one, or nothing while it is in flight or waits.
        let first = queue.first(lane.endpoint).await?;
        let first = first.filter(|first| first.due_at <= now && !except.contains(&first.id));
        first.into_iter().collect()
    } else {
        match missing(except.len()) {
            0 => Vec::new(),
            limit => queue.due(lane.endpoint, (limit, except), now).await?,
        }
    };
    let lost: Vec<Uuid> = due
        .iter()
        .filter(|one| one.data.is_none())
        .map(|one| one.id)
        .collect();
    if !lost.is_empty() {
        let canceled = work.webhook_deliveries().cancel_these(&lost).await?;
        cx.app()
            .delivery_signals()
            .note_ended(DeliveryState::Canceled, canceled);
        due.retain(|one| one.data.is_some());
    }
    Ok(Loaded {
        target: Target::Endpoint(Box::new(endpoint), Arc::new(credentials)),
        due,
    })
}

/// How many more deliveries a lane may have in memory.
fn missing(known: usize) -> u32 {
    u32::try_from(known).map_or(0, |known| READ_AT_ONCE.saturating_sub(known))
}

/// A lane that this process has leased.
pub(crate) struct LaneRun {
    places: Arc<Places>,
    cx: Cx,
    lane: Lane,
    lease: LaneLease,
    /// Until when the lease stands at the least.
    valid_until: Instant,
    /// When the tenant is entered again.
    slice_ends: Instant,
    target: Target,
    queue: VecDeque<DueDelivery>,
    flying: HashSet<Uuid>,
    sending: JoinSet<Sent>,
    results: Vec<AttemptResult>,
    share: Arc<Semaphore>,
    /// Whether the lane is given back as soon as nothing is in flight.
    ends: bool,
}

/// A request that has ended.
struct Sent {
    due: DueDelivery,
    at: Time,
    /// `None` when it was not begun, as the lease had expired.
    delivery: Option<Result<Delivery, SendError>>,
}

/// What follows a transaction of a run.
enum Goes {
    /// More is sent.
    On(Loaded),
    /// The lane was given back, or another process has it.
    Out,
}

impl LaneRun {
    pub(crate) fn new(
        places: &Arc<Places>,
        cx: &Cx,
        (lane, lease, valid_until): (Lane, LaneLease, Instant),
        loaded: Loaded,
    ) -> Self {
        Self {
            places: Arc::clone(places),
            cx: cx.clone(),
            lane,
            lease,
            valid_until,
            slice_ends: Instant::now() + places.config.slice,
            target: loaded.target,
            queue: loaded.due.into(),
            flying: HashSet::new(),
            sending: JoinSet::new(),
            results: Vec::new(),
            share: places.requests_of(cx.scope().tenant()),
            ends: false,
        }
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.cx.scope().tenant()
    }

    /// Whether the endpoint is slow, or has not shown yet that it is not.
    pub(crate) fn is_narrow(&self) -> bool {
        self.lane.state.is_narrow()
    }

    /// Sends until nothing is due, the endpoint rests, or another one needs the place.
    pub(crate) async fn run(mut self) {
        loop {
            if !self.enter_again().await {
                return;
            }
            self.start();
            if self.has_to_store() {
                if !self.store().await {
                    return;
                }
                continue;
            }
            let beat = self.beat();
            tokio::select! {
                Some(sent) = self.sending.join_next() => self.finish(sent),
                () = sleep_until(beat) => if !self.store().await { return; },
            }
        }
    }

    /// Asks from time to time whether the tenant may still have webhooks. Returns whether it may; what is in flight is given up otherwise.
    async fn enter_again(&mut self) -> bool {
        if Instant::now() < self.slice_ends {
            return true;
        }
        self.slice_ends = Instant::now() + self.places.config.slice;
        let tenant = self.tenant();
        self.ends |= self.places.is_crowded_for(tenant);
        match Cx::enter(&self.places.app, BECAUSE, tenant).await {
            Ok(Some(cx)) if cx.scope().allows(Capability::Webhooks) => {
                self.cx = cx;
                true
            }
            Ok(_) => false,
            Err(error) => {
                // What is in flight is not given up for this: the next transaction decides.
                tracing::warn!(%tenant, %error, "a tenant could not be entered again, trying later");
                true
            }
        }
    }

    /// Begins requests, as many as the endpoint takes.
    fn start(&mut self) {
        let window = self.window();
        let Target::Endpoint(endpoint, credentials) = &self.target else {
            return;
        };
        let is_stopping = self.places.is_stopping();
        self.ends |= is_stopping || Instant::now() >= self.valid_until;
        while !self.ends && self.sending.len() < window && !self.queue.is_empty() {
            let now = self.cx.now();
            let is_resting = self.lane.state.not_before(None, now).is_some();
            if is_resting || !self.lane.state.take(endpoint.rate_limit, now) {
                self.ends = true;
                return;
            }
            let Some(due) = self.queue.pop_front() else { return };
            self.flying.insert(due.id);
            let request = Request {
                places: Arc::clone(&self.places),
                share: Arc::clone(&self.share),
                is_narrow: self.lane.state.is_narrow(),
                endpoint: endpoint.url.clone(),
                credentials: Arc::clone(credentials),
                valid_until: self.valid_until,
            };
            self.sending.spawn(request.send(due));
        }
    }

    /// When the lease is extended at the latest. An endpoint that takes more than is in flight looks for what was queued meanwhile.
    fn beat(&self) -> Instant {
        let beat = self.valid_until - self.places.config.lease * 2 / 3;
        let takes_more = !self.ends && self.queue.is_empty() && self.sending.len() < self.window();
        if takes_more {
            beat.min(Instant::now() + self.places.config.poll)
        } else {
            beat
        }
    }

    /// How many requests may be in flight.
    fn window(&self) -> usize {
        match &self.target {
            Target::Endpoint(endpoint, _) if endpoint.ordered => 1,
            Target::Endpoint(..) => self.lane.state.window as usize,
            Target::Nowhere | Target::Unreadable => 0,
        }
    }

    /// Whether there is something to store or to read before anything else can be done.
    fn has_to_store(&self) -> bool {
        let is_idle = self.sending.is_empty();
        let is_empty = self.queue.is_empty() && !self.results.is_empty();
        is_idle || is_empty || self.results.len() >= STORED_AT_ONCE
    }

    /// Takes over what became of a request.
    fn finish(&mut self, sent: Result<Sent, tokio::task::JoinError>) {
        let Ok(Sent { due, at, delivery }) = sent else {
            tracing::error!(tenant = %self.tenant(), "a request of a webhook has panicked; it is sent again");
            self.ends = true;
            return;
        };
        self.flying.remove(&due.id);
        let Some(delivery) = delivery else {
            return;
        };
        let delivery = delivery.unwrap_or_else(|error| {
            tracing::error!(tenant = %self.tenant(), endpoint = %self.lane.endpoint, %error, "a webhook cannot be sent");
            Delivery {
                outcome: DeliveryOutcome::ConnectionFailed(ConnectionFault::Other),
                latency: Duration::ZERO,
            }
        });
        let now = self.cx.now();
        let schedule = (&self.places.config.schedule, self.random());
        let (state, next) = due.after(&delivery.outcome, schedule, now);
        self.lane
            .state
            .attempted(&delivery.outcome, delivery.latency, now);
        let signals = self.places.app.delivery_signals();
        signals.note_attempt(&delivery.outcome);
        signals.note_ended(state, 1);
        self.results.push(AttemptResult {
            delivery: due.id,
            at,
            outcome: delivery.outcome,
            latency: delivery.latency,
            state,
            next,
        });
    }

    fn random(&self) -> u32 {
        let [.., a, b, c, d] = *self.cx.ids().uuid().as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Stores the results and reads more. Returns whether the run goes on. While the database is unavailable it tries again, until the lease
    /// has expired.
    async fn store(&mut self) -> bool {
        loop {
            let held_until = Instant::now() + self.places.config.lease;
            let stored = {
                let _turn = self.places.transaction(self.tenant()).await;
                self.store_once().await
            };
            match stored {
                Ok(Goes::On(loaded)) => {
                    self.results.clear();
                    self.valid_until = held_until;
                    if !matches!(loaded.target, Target::Endpoint(..)) {
                        self.queue.clear();
                    }
                    self.target = loaded.target;
                    self.queue.extend(loaded.due);
                    return true;
                }
                Ok(Goes::Out) => return false,
                Err(error) if Instant::now() < self.valid_until => {
                    tracing::warn!(tenant = %self.tenant(), %error, "results of webhooks could not be stored, trying again");
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant(), %error, "results of webhooks are lost; the messages are sent again");
                    return false;
                }
            }
        }
    }

    async fn store_once(&self) -> Result<Goes, StoreError> {
        let (cx, lane) = (&self.cx, &self.lane);
        let rule = &self.places.config.rule;
        // It need not outlast a crash of the database: what is undone is sent again, as after a crash of this process.
        cx.write_behind(async |work| {
            // The endpoint before the lane: changes of an endpoint lock them in this order. Results that change nothing of it, which is the usual
            // case, do not wait for them.
            let mut found = work.webhook_endpoints().find(lane.endpoint).await?;
            let changes = |found: &WebhookEndpoint| Verdict::of(found, &self.results, rule).changes(found);
            if found.as_ref().is_some_and(changes) {
                found = work.webhook_endpoints().find_for_update(lane.endpoint).await?;
            }
            if !work.webhook_lanes().hold(lane.endpoint, self.lease).await? {
                return Ok(Goes::Out);
            }
            if !self.results.is_empty() {
                work.webhook_deliveries().store(&self.results).await?;
                if let Some(endpoint) = &found
                    && judge(cx, work, endpoint, &self.results, rule).await?
                {
                    found = work.webhook_endpoints().find(lane.endpoint).await?;
                }
            }
            self.go_on(work, found).await
        })
        .await
    }

    /// Reads what is due, or gives the lane back when there is nothing and nothing is in flight.
    async fn go_on(&self, work: &mut Work, found: Option<WebhookEndpoint>) -> Result<Goes, StoreError> {
        let (cx, lane, is_idle) = (&self.cx, &self.lane, self.sending.is_empty());
        let (rate, ordered) = found
            .as_ref()
            .map_or((None, false), |found| (found.rate_limit, found.ordered));
        let now = cx.now();
        let not_before = lane.state.not_before(rate, now);
        if self.ends {
            if is_idle {
                work.webhook_lanes()
                    .release(lane, (ordered, not_before), now)
                    .await?;
                return Ok(Goes::Out);
            }
            return Ok(Goes::On(Loaded {
                target: Target::Unreadable,
                due: Vec::new(),
            }));
        }
        let known: Vec<Uuid> = self
            .flying
            .iter()
            .copied()
            .chain(self.queue.iter().map(|due| due.id))
            .collect();
        let loaded = load(cx, work, (lane, found), &known).await?;
        let rests = match &loaded.target {
            Target::Endpoint(..) if !loaded.due.is_empty() || !self.queue.is_empty() || !is_idle => {
                return Ok(Goes::On(loaded));
            }
            Target::Endpoint(..) => not_before,
            Target::Unreadable => Some(now + UNREADABLE_RESTS),
            Target::Nowhere => {
                let canceled = work
                    .webhook_deliveries()
                    .cancel(lane.endpoint, CANCELED_AT_ONCE)
                    .await?;
                cx.app()
                    .delivery_signals()
                    .note_ended(DeliveryState::Canceled, canceled);
                if canceled == u64::from(CANCELED_AT_ONCE) {
                    return Ok(Goes::On(loaded));
                }
                None
            }
        };
        if !is_idle {
            return Ok(Goes::On(loaded));
        }
        work.webhook_lanes().release(lane, (ordered, rests), now).await?;
        Ok(Goes::Out)
    }
}

/// What results mean for their endpoint.
struct Verdict<'a> {
    streak: Option<FailureStreak>,
    /// The result that disables it.
    disabling: Option<&'a AttemptResult>,
}

impl<'a> Verdict<'a> {
    fn of(endpoint: &WebhookEndpoint, results: &'a [AttemptResult], rule: &DisablingRule) -> Self {
        let mut streak = endpoint.streak;
        if !endpoint.state.is_enabled() {
            return Self {
                streak,
                disabling: None,
            };
        }
        // An attempt before the last change may have been at a former URL, or before the endpoint was enabled again.
        let mut counted = results.iter().filter(|result| result.at >= endpoint.updated_at);
        let disabling = counted.find(|result| match rule.after(streak, &result.outcome, result.at) {
            EndpointStep::Keep(after) => {
                streak = after;
                false
            }
            EndpointStep::Disable(_) => true,
        });
        Self { streak, disabling }
    }

    fn changes(&self, endpoint: &WebhookEndpoint) -> bool {
        self.streak != endpoint.streak || self.disabling.is_some()
    }
}

/// Stores what results mean for their endpoint, which is locked if they change it. Returns whether it was disabled.
async fn judge(
    cx: &Cx,
    work: &mut Work,
    endpoint: &WebhookEndpoint,
    results: &[AttemptResult],
    rule: &DisablingRule,
) -> Result<bool, StoreError> {
    let Verdict { streak, disabling } = Verdict::of(endpoint, results, rule);
    if streak != endpoint.streak {
        work.webhook_endpoints().store_streak(endpoint.id, streak).await?;
    }
    let Some(result) = disabling else {
        return Ok(false);
    };
    let attempt = (&result.outcome, result.at);
    let Some(disabled) = settle(cx, work, endpoint.id, attempt, rule).await? else {
        return Ok(false);
    };
    disabled_notice::send(cx, work, &disabled).await?;
    Ok(true)
}

/// A request to an endpoint, which waits for its places first.
struct Request {
    places: Arc<Places>,
    share: Arc<Semaphore>,
    is_narrow: bool,
    endpoint: tenantry_domain::webhooks::EndpointUrl,
    credentials: Arc<EndpointCredentials>,
    valid_until: Instant,
}

impl Request {
    async fn send(self, due: DueDelivery) -> Sent {
        let app = Arc::clone(&self.places.app);
        // The semaphores are never closed. The tenant's own comes first, so that its requests wait without the places of others.
        let _of_tenant = self.share.acquire_owned().await.ok();
        let narrow = self.is_narrow.then(|| Arc::clone(&self.places.narrow_in_flight));
        let _of_narrow = match narrow {
            Some(narrow) => narrow.acquire_owned().await.ok(),
            None => None,
        };
        let _of_all = Arc::clone(&self.places.in_flight).acquire_owned().await.ok();
        let at = app.ports.clock.now();
        let body = due.body().filter(|_| Instant::now() < self.valid_until);
        let Some(body) = body else {
            return Sent {
                due,
                at,
                delivery: None,
            };
        };
        let request = WebhookRequest {
            id: MessageId::of(due.message.uuid()),
            at,
            url: self.endpoint,
            secrets: self.credentials.secrets.signing(at),
            headers: self.credentials.headers.clone(),
            body,
        };
        let _in_flight = app.delivery_signals().begin_request();
        let delivery = Some(self.places.sender.send(request).await);
        Sent { due, at, delivery }
    }
}
