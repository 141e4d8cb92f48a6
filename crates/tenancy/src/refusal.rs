//! Records of refused requests: failed logins, requests that name another tenant.
//!
//! Callers without an account can cause them, so the number of rows they leave is bounded. The first of a kind is
//! recorded at once. Repeats within an hour are counted in memory and recorded as one entry when the hour is over, with
//! the count and the times of the first and the last. Of one network a tenant gets at most [`OF_NETWORK`] kinds at a
//! time, of all networks together [`OF_TENANT`]; what is beyond that is counted under one kind for the network, or for the
//! tenant. A killed process loses the counts of the running hour, and no first entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::{ClientAddress, StoreError, SystemScope, TenantId, Time, UserId, cut_details};
use uuid::Uuid;

use crate::{Cx, OperatorCx, Origin, Tenancy};

/// The most kinds of refusals that one network has in a tenant at a time.
pub const OF_NETWORK: usize = 20;

/// The most kinds of refusals that a tenant has at a time.
pub const OF_TENANT: usize = 200;

/// The most kinds in this process; beyond them each tenant has one for each action.
const ALTOGETHER: usize = 100_000;

/// The most entries that wait for a database that is away.
const WAITING: usize = 10_000;

/// For how long repeats are counted.
const WINDOW: Duration = Duration::hours(1);

/// A refused request, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What happened, for example `login.failed`.
    pub action: &'static str,
    /// The kind of thing it is about.
    pub target_type: &'static str,
    /// Which one, where it is known.
    pub target: Option<Uuid>,
    /// The user who asked, where one is logged in.
    pub actor: Option<UserId>,
    /// From which address.
    pub ip: Option<String>,
    /// What else there is to say. What differs in it is another kind.
    pub details: Value,
}

/// Refusals of the last hour, counted in memory.
#[derive(Debug, Default)]
pub struct Refusals {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By tenant; of operators under none.
    open: HashMap<Option<TenantId>, HashMap<Kind, Window>>,
    /// What is over and was repeated.
    over: Vec<(Option<TenantId>, Window)>,
}

/// What counts as the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    action: &'static str,
    of: Of,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Of {
    One {
        network: ClientAddress,
        actor: Option<UserId>,
        target: Option<Uuid>,
        details: String,
    },
    Network(ClientAddress),
    Tenant,
}

#[derive(Debug)]
struct Window {
    refusal: Refusal,
    first: Time,
    last: Time,
    count: u64,
}

impl Refusals {
    /// Counts a refusal; the entry to record now, when it is the first of its kind. Should recording fail, the kind is
    /// given back with [`Refusals::forget`].
    fn note(&self, tenant: Option<TenantId>, refusal: Refusal, at: Time) -> Option<(Kind, Refusal)> {
        let mut state = self.state();
        state.end(tenant, at);
        let altogether: usize = state.open.values().map(HashMap::len).sum();
        let open = state.open.entry(tenant).or_default();
        let (kind, refusal) = kind_of(open, refusal, altogether);
        if let Some(window) = open.get_mut(&kind) {
            window.count += 1;
            window.last = window.last.max(at);
            return None;
        }
        let window = Window {
            refusal: refusal.clone(),
            first: at,
            last: at,
            count: 1,
        };
        open.insert(kind.clone(), window);
        Some((kind, refusal))
    }

    fn forget(&self, tenant: Option<TenantId>, kind: &Kind) {
        if let Some(open) = self.state().open.get_mut(&tenant) {
            open.remove(kind);
        }
    }

    /// Windows are changed by code that does not panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes the windows of a tenant that are over at `at`.
    fn end(&mut self, tenant: Option<TenantId>, at: Time) {
        let Some(open) = self.open.get_mut(&tenant) else {
            return;
        };
        let over = open.extract_if(|_, window| at - window.first >= WINDOW);
        let repeated = over.filter(|(_, window)| window.count > 1);
        self.over.extend(repeated.map(|(_, window)| (tenant, window)));
        self.over.truncate(WAITING);
        if open.is_empty() {
            self.open.remove(&tenant);
        }
    }
}

/// The kind that a refusal is counted under, and the refusal as it is recorded there.
fn kind_of(open: &HashMap<Kind, Window>, refusal: Refusal, altogether: usize) -> (Kind, Refusal) {
    let address = refusal.ip.as_ref().and_then(|ip| ip.parse().ok());
    let network = ClientAddress::of(address);
    let action = refusal.action;
    let kind = |of| Kind { action, of };
    let one = kind(Of::One {
        network,
        actor: refusal.actor,
        target: refusal.target,
        details: refusal.details.to_string(),
    });
    if open.contains_key(&one) {
        return (one, refusal);
    }
    let further = |of, ip| {
        let details = json!({"further": true});
        let refusal = Refusal {
            target: None,
            actor: None,
            ip,
            details,
            ..refusal.clone()
        };
        (kind(of), refusal)
    };
    if open.len() >= OF_TENANT || altogether >= ALTOGETHER {
        return further(Of::Tenant, None);
    }
    let same_network = |kind: &&Kind| matches!(kind.of, Of::One { network: other, .. } if other == network);
    if open.keys().filter(same_network).count() >= OF_NETWORK {
        return further(Of::Network(network), Some(network.to_string()));
    }
    (one, refusal)
}

/// Records a refusal in the audit log of the context's tenant, or counts it.
///
/// # Errors
/// Those of the store.
pub async fn record(cx: &Cx, refusal: Refusal) -> Result<(), StoreError> {
    let tenant = Some(cx.scope().tenant());
    let refusals = &cx.app().refusals;
    let refusal = Refusal {
        details: cut_details(refusal.details),
        ..refusal
    };
    let Some((kind, refusal)) = refusals.note(tenant, refusal, cx.now()) else {
        return Ok(());
    };
    let recorded = write(cx, &refusal).await;
    if recorded.is_err() {
        refusals.forget(tenant, &kind);
    }
    recorded
}

/// Records a refusal among operators' events, or counts it.
///
/// # Errors
/// Those of the store.
pub async fn record_of_operators(cx: &OperatorCx, refusal: Refusal) -> Result<(), StoreError> {
    let refusals = &cx.app().refusals;
    let refusal = Refusal {
        details: cut_details(refusal.details),
        ..refusal
    };
    let Some((kind, refusal)) = refusals.note(None, refusal, cx.now()) else {
        return Ok(());
    };
    let event = cx.record(refusal.action, None, refusal.details);
    let recorded = async { cx.begin().await?.commit(event).await }.await;
    if recorded.is_err() {
        refusals.forget(None, &kind);
    }
    recorded
}

/// Records the repeats whose hour is over; how many entries that are.
pub async fn flush(app: &Arc<Tenancy>) -> usize {
    let now = app.ports.clock.now();
    let over = {
        let mut state = app.refusals.state();
        let tenants: Vec<_> = state.open.keys().copied().collect();
        tenants.into_iter().for_each(|tenant| state.end(tenant, now));
        std::mem::take(&mut state.over)
    };
    store(app, over).await
}

/// Records all repeats, those of the running hour included: for the end of the process.
pub async fn finish(app: &Arc<Tenancy>) -> usize {
    let all = {
        let mut state = app.refusals.state();
        let open = std::mem::take(&mut state.open).into_iter();
        let repeated = open.flat_map(|(tenant, windows)| {
            let repeated = windows.into_values().filter(|window| window.count > 1);
            repeated.map(move |window| (tenant, window))
        });
        let mut all = std::mem::take(&mut state.over);
        all.extend(repeated);
        all
    };
    store(app, all).await
}

/// What cannot be stored now is kept for the next time; what belongs to a tenant that is gone is dropped.
async fn store(app: &Arc<Tenancy>, over: Vec<(Option<TenantId>, Window)>) -> usize {
    let mut stored = 0;
    for (tenant, window) in over {
        match store_one(app, tenant, &window).await {
            Ok(()) => stored += 1,
            Err(error) => {
                tracing::warn!(%error, "repeated refusals could not be recorded, they are kept");
                app.refusals.state().over.push((tenant, window));
            }
        }
    }
    stored
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
            let event = cx.record(repeats.action, None, repeats.details);
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
        details.insert("actor_id".into(), json!(actor));
    }
    let repeated = json!({"count": window.count, "first_at": window.first, "last_at": window.last});
    details.insert("repeated".into(), repeated);
    Value::Object(details)
}

async fn write(cx: &Cx, refusal: &Refusal) -> Result<(), StoreError> {
    cx.write(async |work| {
        let details = refusal.details.clone();
        let event = cx.security(refusal.action, refusal.target_type, refusal.target, details);
        work.audit().record(event).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn failed(ip: &str, email: &str) -> Refusal {
        Refusal {
            action: "login.failed",
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

    #[test]
    fn repeats_within_an_hour_are_one_entry_with_a_count() {
        let refusals = Refusals::default();
        let note = |second| refusals.note(tenant(1), failed("192.0.2.1", "a@x.example"), at(second));
        assert!(note(0).is_some());
        assert!((1..3_600).all(|second| note(second).is_none()));
        assert!(note(3_600).is_some(), "a new hour");
        let over = std::mem::take(&mut refusals.state().over);
        assert_eq!(over.len(), 1);
        let repeated = &summary(&over[0].1)["repeated"];
        assert_eq!(
            *repeated,
            json!({"count": 3_600, "first_at": at(0), "last_at": at(3_599)})
        );
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
        assert_eq!(entries, OF_TENANT + 1);
        assert!(
            refusals
                .note(tenant(2), failed("192.0.2.1", "a@x.example"), at(1))
                .is_some()
        );
        // Nothing is lost: each is in some count.
        let counts = |state: &State| -> u64 {
            let open = state.open[&tenant(1)].values();
            open.map(|window| window.count).sum()
        };
        assert_eq!(counts(&refusals.state()), 11_000);
    }

    #[test]
    fn what_could_not_be_recorded_is_recorded_the_next_time() {
        let refusals = Refusals::default();
        let (kind, _) = refusals.note(tenant(1), failed("192.0.2.1", ""), at(0)).unwrap();
        refusals.forget(tenant(1), &kind);
        assert!(refusals.note(tenant(1), failed("192.0.2.1", ""), at(0)).is_some());
    }
}
