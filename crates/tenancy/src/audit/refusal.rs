//! Records of refused requests: failed logins, refused API keys, requests that name another tenant. Downloads of archives are recorded in
//! the same way, since one comes in any number of parts.
//!
//! Callers without an account can cause them, so the number of rows they leave is bounded. The first of a kind is
//! recorded at once. Repeats within an hour are counted in memory and recorded as one entry when the hour is over, with
//! the count and the times of the first and the last, and before that soon after 5, 10, 20, 50, 100 and so on, so that an attack is
//! found while it goes on. Of each [`RefusedAction`] a tenant gets at most [`OF_NETWORK`] kinds
//! from one network at a time, and from all networks together [`OF_TENANT`]; what is beyond that is counted under one kind
//! for the network, or for the tenant. So no number of failed logins hides a request that names another tenant.
//!
//! Refusals that are about a known user, or are of a known actor, have bounds apart from the others, and beyond these one kind for each
//! of [`OF_SUBJECTS`] users and actors. So no number of invented addresses hides that an account is guessed at. What is counted
//! under the tenant, the rules of suspicious activity count for the tenant. A killed process loses the counts of the running
//! hour, and no first entry.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::audit::cut_details;
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};
use tenantry_domain::operations::ClientAddress;
use tenantry_domain::tenant::{Actor, TenantScope};
use uuid::Uuid;

use crate::audit::about_erased;
use crate::kernel::slices::Slices;
use crate::kernel::steps::passes_step;
use crate::{Cx, OperatorCx, Origin, Tenancy};

/// The most kinds of refusals of an action that one network has in a tenant at a time.
pub const OF_NETWORK: usize = 20;

/// The most kinds of refusals of an action that a tenant has at a time.
pub const OF_TENANT: usize = 200;

/// The most users and actors of an action in a tenant that have a kind of their own when there are too many kinds.
pub const OF_SUBJECTS: usize = 1_000;

/// The most kinds in this process; beyond them each tenant has one for each action.
const ALTOGETHER: usize = 100_000;

/// The most entries that wait for a database that is away.
const WAITING: usize = 10_000;

/// For how long repeats are counted.
const WINDOW: Duration = Duration::hours(1);

/// What was refused. Each has bounds of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedAction {
    /// A login of a user.
    Login,
    /// A code of a user's second factor, or the password that goes with it.
    SecondFactor,
    /// A password that a logged-in user was asked for again.
    PasswordConfirmation,
    /// A password or a code that was not looked at, since the account waits.
    Locked,
    /// A failed login of a platform operator.
    OperatorLogin,
    /// A request of a platform operator whose role does not allow it.
    OperatorPermission,
    /// A request that names another tenant than its credential's.
    OtherTenant,
    /// A request with an API key that is not valid, or not for it.
    ApiKey,
    /// A request from an address that the security policy of the tenant does not allow.
    Network,
    /// A mail beyond the limits of the tenant.
    Mail,
    /// A download of an archive, which is not refused: its parts are counted in the same way.
    Download,
}

impl RefusedAction {
    /// The action in the audit log, or among operators' events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login.failed",
            Self::SecondFactor => "mfa.failed",
            Self::PasswordConfirmation => "password.confirmation_failed",
            Self::Locked => "account.locked",
            Self::OperatorLogin => "operator.login_failed",
            Self::OperatorPermission => "operator.refused",
            Self::OtherTenant => "tenant.mismatch",
            Self::ApiKey => "api_key.refused",
            Self::Network => "network.refused",
            Self::Mail => "mail.not_sent",
            Self::Download => "tenant.export_downloaded",
        }
    }
}

/// A refused request, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What was refused.
    pub action: RefusedAction,
    /// The kind of thing it is about.
    pub target_type: &'static str,
    /// Which one, where it is known.
    pub target: Option<Uuid>,
    /// Who asked, where that is known.
    pub actor: Option<RefusedActor>,
    /// From which address.
    pub ip: Option<String>,
    /// What else there is to say. What differs in it is another kind.
    pub details: Value,
}

/// What asked: a user, an API key or an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefusedActor {
    /// What it is, as the audit log says it.
    pub kind: &'static str,
    /// The user, key or operator, by the id.
    pub id: Uuid,
}

impl RefusedActor {
    /// The actor of a scope, where it has an id.
    pub fn of(scope: &TenantScope) -> Option<Self> {
        let (kind, id) = (scope.actor().as_str(), scope.actor().id()?);
        Some(Self { kind, id })
    }
}

impl Refusal {
    /// The user whom it is about, or who or what asked.
    fn about(&self) -> Option<About> {
        let user = self.target.filter(|_| self.target_type == "user");
        user.map(About::User).or(self.actor.map(About::Actor))
    }

    /// It as it is recorded with others like it.
    fn of_many(&self) -> Self {
        Self {
            target: None,
            actor: None,
            ip: None,
            details: json!({"further": true}),
            ..self.clone()
        }
    }
}

/// Refusals of the last hour, counted in memory.
#[derive(Debug, Default)]
pub struct Refusals {
    state: Mutex<State>,
}

impl Tenancy {
    /// Returns the refusals of the last hour, which are recorded once and counted.
    pub fn refusals(&self) -> Arc<Refusals> {
        self.state()
    }
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<Budget, HashMap<Kind, Window>>,
    /// How many windows are open, of all budgets together.
    windows: usize,
    /// What is over and was repeated.
    over: VecDeque<(Option<TenantId>, Window)>,
    /// How many counts were dropped since more than [`WAITING`] waited.
    dropped: u64,
}

/// What bounds are shared by: a tenant (of operators none) and an action, and whether it is known about whom it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    tenant: Option<TenantId>,
    action: RefusedAction,
    is_attributed: bool,
}

impl Budget {
    fn of(tenant: Option<TenantId>, refusal: &Refusal) -> Self {
        Self {
            tenant,
            action: refusal.action,
            is_attributed: refusal.about().is_some(),
        }
    }
}

/// What a refusal is attributed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    User(Uuid),
    Actor(RefusedActor),
}

/// What counts as the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    One {
        network: ClientAddress,
        actor: Option<RefusedActor>,
        target: Option<Uuid>,
        details: String,
    },
    About(About),
    Network(ClientAddress),
    Tenant,
}

/// Where a refusal is counted.
#[derive(Debug, Clone)]
struct Place {
    budget: Budget,
    kind: Kind,
}

#[derive(Debug, Clone)]
struct Window {
    refusal: Refusal,
    first: Time,
    last: Time,
    count: u64,
    /// How many of these entries have counted already.
    recorded: u64,
    /// When the others occurred.
    slices: Slices,
}

/// The first count that is recorded before the hour is over.
const FIRST_STEP: u64 = 5;

impl Refusals {
    /// Returns how many repeats wait to be recorded, the counts of the running hour not included.
    pub fn waiting(&self) -> usize {
        self.state().over.len()
    }

    /// Closes all windows, also those whose hour is not over, so that their repeats wait to be recorded: for the end of the
    /// process.
    pub fn end_all(&self) {
        self.state().end_all();
    }

    /// Counts a refusal; the entry to record now, when it is the first of its kind. Should recording fail, the kind is
    /// given back with [`Refusals::forget`].
    fn note(&self, tenant: Option<TenantId>, refusal: Refusal, at: Time) -> Option<(Place, Refusal)> {
        let budget = Budget::of(tenant, &refusal);
        let state = &mut *self.state();
        state.end(budget, at);
        let open = state.open.entry(budget).or_default();
        let (kind, refusal) = kind_of(open, refusal, state.windows);
        if let Some(window) = open.get_mut(&kind) {
            let step = window.add(at);
            if let Some(step) = step {
                state.wait((tenant, step));
            }
            return None;
        }
        let window = Window {
            refusal: refusal.clone(),
            first: at,
            last: at,
            count: 1,
            recorded: 1,
            slices: Slices::default(),
        };
        open.insert(kind.clone(), window);
        state.windows += 1;
        Some((Place { budget, kind }, refusal))
    }

    fn discard(&self, Place { budget, kind }: &Place) {
        let mut state = self.state();
        let open = state.open.get_mut(budget);
        if open.is_some_and(|open| open.remove(kind).is_some()) {
            state.windows -= 1;
        }
    }

    /// Windows are changed by code that does not panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Counts one more. Returns the window to record when that is a step.
    fn add(&mut self, at: Time) -> Option<Self> {
        let before = self.count;
        self.count += 1;
        self.last = self.last.max(at);
        self.slices.add(1, at);
        if !passes_step(before, self.count, FIRST_STEP) {
            return None;
        }
        let step = self.clone();
        self.recorded = self.count;
        self.slices = Slices::default();
        Some(step)
    }
}

impl State {
    /// Closes the windows of a budget that are over at `at`.
    fn end(&mut self, budget: Budget, at: Time) {
        let Some(open) = self.open.get_mut(&budget) else {
            return;
        };
        let over: Vec<_> = open
            .extract_if(|_, window| at - window.first >= WINDOW)
            .map(|(_, window)| (budget.tenant, window))
            .collect();
        if open.is_empty() {
            self.open.remove(&budget);
        }
        self.windows -= over.len();
        over.into_iter().for_each(|one| self.wait(one));
    }

    /// Keeps a repeat until it is recorded.
    fn wait(&mut self, (tenant, window): (Option<TenantId>, Window)) {
        if window.count == window.recorded {
            return;
        }
        if self.over.len() < WAITING {
            self.over.push_back((tenant, window));
        } else {
            self.dropped += window.count - window.recorded;
        }
    }

    /// Closes all windows, also those whose hour is not over.
    fn end_all(&mut self) {
        self.windows = 0;
        let open = std::mem::take(&mut self.open).into_iter();
        let all = open.flat_map(|(budget, windows)| {
            let windows = windows.into_values();
            windows.map(move |window| (budget.tenant, window))
        });
        all.for_each(|one| self.wait(one));
    }
}

/// The kind that a refusal is counted under, and the refusal as it is recorded there.
fn kind_of(open: &HashMap<Kind, Window>, refusal: Refusal, altogether: usize) -> (Kind, Refusal) {
    let address = refusal.ip.as_ref().and_then(|ip| ip.parse().ok());
    let network = ClientAddress::of(address);
    let one = Kind::One {
        network,
        actor: refusal.actor,
        target: refusal.target,
        details: refusal.details.to_string(),
    };
    if open.contains_key(&one) {
        return (one, refusal);
    }
    let of_network = |kind: &&Kind| matches!(kind, Kind::One { network: other, .. } if *other == network);
    let singles = || open.keys().filter(|kind| matches!(kind, Kind::One { .. }));
    let is_full = altogether >= ALTOGETHER;
    let about = refusal.about();
    let is_known = about.is_some_and(|about| open.contains_key(&Kind::About(about)));
    let is_crowded = is_known || is_full || singles().count() >= OF_TENANT;
    let is_busy = singles().filter(of_network).count() >= OF_NETWORK;
    match about {
        _ if !is_crowded && !is_busy => (one, refusal),
        Some(about) if is_known || (!is_full && subjects_of(open) < OF_SUBJECTS) => {
            (Kind::About(about), about.of_many(&refusal))
        }
        None if !is_crowded => {
            let ip = Some(network.to_string());
            let refusal = Refusal {
                ip,
                ..refusal.of_many()
            };
            (Kind::Network(network), refusal)
        }
        Some(_) => {
            let details = json!({"further": true, "attributed": true});
            let refusal = Refusal {
                details,
                ..refusal.of_many()
            };
            (Kind::Tenant, refusal)
        }
        None => (Kind::Tenant, refusal.of_many()),
    }
}

fn subjects_of(open: &HashMap<Kind, Window>) -> usize {
    open.keys().filter(|kind| matches!(kind, Kind::About(_))).count()
}

impl About {
    /// A refusal as it is recorded with others that are about the same.
    fn of_many(self, refusal: &Refusal) -> Refusal {
        let (target, actor) = match self {
            Self::User(user) => (Some(user), None),
            Self::Actor(actor) => (refusal.target, Some(actor)),
        };
        Refusal {
            target,
            actor,
            ..refusal.of_many()
        }
    }
}

/// Records a refusal in the audit log of the context's tenant, or counts it.
///
/// # Errors
/// Those of the store.
pub async fn record(cx: &Cx, refusal: Refusal) -> Result<(), StoreError> {
    let tenant = Some(cx.scope().tenant());
    let refusals = cx.app().refusals();
    let refusal = Refusal {
        details: cut_details(with_operator(cx.scope(), refusal.details)),
        ..refusal
    };
    let Some((place, refusal)) = refusals.note(tenant, refusal, cx.now()) else {
        return Ok(());
    };
    let recorded = write(cx, &refusal).await;
    if recorded.is_err() {
        refusals.discard(&place);
    }
    recorded
}

/// The details, with the operator of the platform who asks and their access: operators are no users of the tenant, and each is another
/// kind.
fn with_operator(scope: &TenantScope, mut details: Value) -> Value {
    if let (Actor::Operator { id, access, .. }, Value::Object(members)) = (scope.actor(), &mut details) {
        members.insert("operator_id".into(), json!(id));
        members.insert("support_access_id".into(), json!(access));
    }
    details
}

/// Records a refusal among operators' events, or counts it.
///
/// # Errors
/// Those of the store.
pub async fn record_of_operators(cx: &OperatorCx, refusal: Refusal) -> Result<(), StoreError> {
    let refusals = cx.app().refusals();
    let refusal = Refusal {
        details: cut_details(refusal.details),
        ..refusal
    };
    let Some((place, refusal)) = refusals.note(None, refusal, cx.now()) else {
        return Ok(());
    };
    let event = cx.record(refusal.action.as_str(), None, refusal.details);
    let recorded = async { cx.begin_for_guest().await?.commit(event).await }.await;
    if recorded.is_err() {
        refusals.discard(&place);
    }
    recorded
}

/// Records the repeats whose hour is over, or was ended by [`Refusals::end_all`]; how many entries that are.
pub async fn flush(app: &Arc<Tenancy>) -> usize {
    let now = app.ports.clock.now();
    {
        let refusals = app.refusals();
        let mut state = refusals.state();
        let budgets: Vec<_> = state.open.keys().copied().collect();
        budgets.into_iter().for_each(|budget| state.end(budget, now));
    }
    store(app).await
}

/// What cannot be stored now is kept for the next time; what belongs to a tenant that is gone is dropped.
async fn store(app: &Arc<Tenancy>) -> usize {
    let (waiting, dropped) = {
        let refusals = app.refusals();
        let mut state = refusals.state();
        (state.over.len(), std::mem::take(&mut state.dropped))
    };
    if dropped > 0 {
        tracing::warn!(
            refusals = dropped,
            "repeated refusals were dropped: too many waited to be recorded"
        );
    }
    let mut stored = 0;
    let refusals = app.refusals();
    for _ in 0..waiting {
        let Some((tenant, window)) = refusals.state().over.pop_front() else {
            break;
        };
        let mut taken = TakenOut {
            refusals: Arc::clone(&refusals),
            entry: Some((tenant, window.clone())),
        };
        match store_one(app, tenant, &window).await {
            Ok(()) => {
                taken.entry = None;
                stored += 1;
            }
            Err(error) => tracing::warn!(%error, "repeated refusals could not be recorded, they are kept"),
        }
    }
    stored
}

/// A repeat that is being recorded; unless it was, it waits again, also when nobody waits for that any more.
struct TakenOut {
    refusals: Arc<Refusals>,
    entry: Option<(Option<TenantId>, Window)>,
}

impl Drop for TakenOut {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.refusals.state().over.push_back(entry);
        }
    }
}

async fn store_one(app: &Arc<Tenancy>, tenant: Option<TenantId>, window: &Window) -> Result<(), StoreError> {
    let because = SystemScope::because("record repeated refusals");
    let repeats = Refusal {
        details: summary(window),
        ..window.refusal.clone()
    };
    let origin = Origin {
        ip: window.refusal.ip.clone(),
        user_agent: None,
    };
    match tenant {
        Some(tenant) => match Cx::enter(app, because, tenant).await? {
            Some(cx) => write(&cx.with_origin(origin), &repeats).await,
            None => Ok(()),
        },
        None => {
            let cx = OperatorCx::command(app, because);
            let event = cx.record(repeats.action.as_str(), None, repeats.details);
            cx.begin().await?.commit(event).await
        }
    }
}

/// The details of the first, and how often and when it was repeated.
fn summary(window: &Window) -> Value {
    let mut details = match &window.refusal.details {
        Value::Object(members) => members.clone(),
        _ => serde_json::Map::new(),
    };
    if let Some(actor) = window.refusal.actor {
        details.insert("actor_kind".into(), json!(actor.kind));
        details.insert("actor_id".into(), json!(actor.id));
    }
    let repeated = json!({
        "count": window.count, "since_last": window.count - window.recorded,
        "first_at": window.first, "last_at": window.last, "slices": window.slices.json(window.first),
    });
    details.insert("repeated".into(), repeated);
    Value::Object(details)
}

async fn write(cx: &Cx, refusal: &Refusal) -> Result<(), StoreError> {
    cx.write(async |work| {
        let details = refusal.details.clone();
        let event = cx.security(
            refusal.action.as_str(),
            refusal.target_type,
            refusal.target,
            details,
        );
        about_erased::record(cx, work, event).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use tenantry_domain::audit::{Outcome, Risk};

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn failed(ip: &str, email: &str) -> Refusal {
        Refusal {
            action: RefusedAction::Login,
            target_type: "user",
            target: None,
            actor: None,
            ip: Some(ip.into()),
            details: json!({"email": email}),
        }
    }

    fn tenant(number: u128) -> Option<TenantId> {
        Some(Uuid::from_u128(number).into())
    }

    /// Each action needs a line here.
    const EVERY_ACTION: [RefusedAction; 11] = [
        RefusedAction::Login,
        RefusedAction::SecondFactor,
        RefusedAction::PasswordConfirmation,
        RefusedAction::Locked,
        RefusedAction::OperatorLogin,
        RefusedAction::OperatorPermission,
        RefusedAction::OtherTenant,
        RefusedAction::ApiKey,
        RefusedAction::Network,
        RefusedAction::Mail,
        RefusedAction::Download,
    ];

    #[test]
    fn refusals_are_failures_of_at_least_medium_risk() {
        for action in EVERY_ACTION {
            let name = action.as_str();
            assert!(Risk::of(name, None) >= Risk::Medium, "{name}");
            let is_done = action == RefusedAction::Download;
            assert_eq!(Outcome::of(name) == Outcome::Success, is_done, "{name}");
        }
    }

    #[test]
    fn repeats_within_an_hour_are_one_entry_with_a_count() {
        let refusals = Refusals::default();
        let note = |second| refusals.note(tenant(1), failed("192.0.2.1", "a@x.example"), at(second));
        assert!(note(0).is_some());
        assert!((1..3_600).all(|second| note(second).is_none()));
        assert!(note(3_600).is_some(), "a new hour");
        let over = std::mem::take(&mut refusals.state().over);
        let counts: Vec<_> = over.iter().map(|(_, window)| window.count).collect();
        assert_eq!(counts, [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 3_600]);
        let repeated = &summary(&over[9].1)["repeated"];
        let minutes: Vec<_> = (2_000_i64..3_600)
            .step_by(60)
            .map(|first| (first, (first + 59).min(3_599)))
            .collect();
        let slices: Vec<_> = minutes
            .iter()
            .map(|(first, last)| json!([first, last, last - first + 1]))
            .collect();
        assert_eq!(
            *repeated,
            json!({
                "count": 3_600, "since_last": 1_600, "first_at": at(0), "last_at": at(3_599), "slices": slices,
            })
        );
        // With the first entry, each is counted once.
        let new = |(_, window): &(_, Window)| summary(window)["repeated"]["since_last"].as_u64().unwrap();
        assert_eq!(over.iter().map(new).sum::<u64>() + 1, 3_600);
    }

    #[test]
    fn kinds_of_a_network_and_of_a_tenant_are_bounded() {
        let refusals = Refusals::default();
        let mut entries = 0;
        for number in 0..1_000 {
            let email = format!("{number}@x.example");
            entries += usize::from(
                refusals
                    .note(tenant(1), failed("192.0.2.1", &email), at(0))
                    .is_some(),
            );
        }
        assert_eq!(entries, OF_NETWORK + 1);
        for number in 0..10_000 {
            let ip = format!("2001:db8:{number:x}::1");
            entries += usize::from(
                refusals
                    .note(tenant(1), failed(&ip, "a@x.example"), at(1))
                    .is_some(),
            );
        }
        // One for what the first network did beyond its bound, and one for what was beyond that of the tenant.
        assert_eq!(entries, OF_TENANT + 2);
        assert!(
            refusals
                .note(tenant(2), failed("192.0.2.1", "a@x.example"), at(1))
                .is_some()
        );
        // Nothing is lost: each is in some count.
        let counts = |state: &State| -> u64 {
            let budget = Budget::of(tenant(1), &failed("192.0.2.1", ""));
            state.open[&budget].values().map(|window| window.count).sum()
        };
        assert_eq!(counts(&refusals.state()), 11_000);
    }

    /// Failed logins cost an anonymous caller nothing; a request that names another tenant is worth an entry after any number
    /// of them, from the same network or from others.
    #[test]
    fn no_number_of_failed_logins_hides_another_action() {
        let refusals = Refusals::default();
        for number in 0..10_000 {
            let ip = format!("2001:db8:{:x}::1", number % 1_000);
            refusals.note(tenant(1), failed(&ip, &format!("{number}@x.example")), at(0));
        }
        let mismatch = |number: u32| Refusal {
            action: RefusedAction::OtherTenant,
            details: json!({"tenant_slug": number.to_string()}),
            ..failed("2001:db8:1::1", "")
        };
        for number in 0..5 {
            let entry = refusals.note(tenant(1), mismatch(number), at(1));
            let (_, entry) = entry.expect("it is the first of its kind");
            assert_eq!(entry, mismatch(number));
        }
    }

    #[test]
    fn repeats_beyond_the_bound_are_counted_as_dropped() {
        let mut state = State::default();
        let window = |count| Window {
            refusal: failed("192.0.2.1", ""),
            first: at(0),
            last: at(1),
            count,
            recorded: 1,
            slices: Slices::default(),
        };
        for _ in 0..WAITING {
            state.wait((tenant(1), window(2)));
        }
        state.wait((tenant(1), window(1)));
        assert_eq!(state.dropped, 0, "what was not repeated has its entry");
        state.wait((tenant(1), window(7)));
        assert_eq!((state.over.len(), state.dropped), (WAITING, 6));
    }

    #[test]
    fn what_could_not_be_recorded_is_recorded_the_next_time() {
        let refusals = Refusals::default();
        let (place, _) = refusals.note(tenant(1), failed("192.0.2.1", ""), at(0)).unwrap();
        refusals.discard(&place);
        assert!(refusals.note(tenant(1), failed("192.0.2.1", ""), at(0)).is_some());
    }

    /// Neither invented addresses nor guesses at other accounts hide that an account is guessed at.
    #[test]
    fn guesses_at_a_known_account_are_attributed_to_it() {
        let refusals = Refusals::default();
        for number in 0..10_000 {
            let ip = format!("2001:db8:{:x}::1", number % 500);
            refusals.note(tenant(1), failed(&ip, &format!("{number}@x.example")), at(0));
        }
        let guess = |number: u32, user: u128| {
            let ip = format!("2001:db8:{:x}::1", 0x1000 + number);
            Refusal {
                target: Some(Uuid::from_u128(user)),
                ..failed(&ip, "victim@x.example")
            }
        };
        let (_, entry) = refusals
            .note(tenant(1), guess(0, 1), at(1))
            .expect("it is the first");
        assert_eq!(entry, guess(0, 1));
        let mut entries = 0;
        for number in 1..5_000 {
            let user = u128::from(number % 2_000) + 1;
            let noted = refusals.note(tenant(1), guess(number, user), at(1));
            entries += usize::from(noted.is_some());
        }
        assert_eq!(entries, OF_TENANT - 1 + OF_SUBJECTS + 1);
        let budget = Budget::of(tenant(1), &guess(0, 1));
        let state = refusals.state();
        let counted: u64 = state.open[&budget].values().map(|window| window.count).sum();
        assert_eq!(counted, 5_000);
        let about = |user: u128| Kind::About(About::User(Uuid::from_u128(user)));
        let of_one = &state.open[&budget][&about(300)].refusal;
        assert_eq!((of_one.target, &of_one.ip), (Some(Uuid::from_u128(300)), &None));
        assert!(state.open[&budget].contains_key(&Kind::Tenant));
    }

    /// A key, its creator and an operator are counted apart.
    #[test]
    fn actors_are_told_apart_by_kind_and_id() {
        let refusals = Refusals::default();
        let mismatch = |kind| Refusal {
            action: RefusedAction::OtherTenant,
            target_type: "tenant",
            target: Some(Uuid::from_u128(9)),
            actor: Some(RefusedActor {
                kind,
                id: Uuid::from_u128(1),
            }),
            ..failed("192.0.2.1", "")
        };
        for kind in ["user", "api_key", "operator"] {
            assert!(
                refusals.note(tenant(1), mismatch(kind), at(0)).is_some(),
                "{kind}"
            );
            assert!(
                refusals.note(tenant(1), mismatch(kind), at(1)).is_none(),
                "{kind}"
            );
        }
        refusals.end_all();
        let over = std::mem::take(&mut refusals.state().over);
        let mut kinds: Vec<_> = over
            .iter()
            .map(|(_, window)| summary(window)["actor_kind"].clone())
            .collect();
        kinds.sort_by_key(ToString::to_string);
        assert_eq!(kinds, ["api_key", "operator", "user"]);
    }
}
