//! What the payment provider tells of: kept once, answered at once, and acted on by a job that asks the provider how
//! things are now. A message is never believed further than that there is something to ask about.

use std::sync::Arc;

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::billing::{
    CustomerRef, EventRef, EventState, ForgedEvent, InvoiceRef, PaymentProvider, ProviderError,
    ProviderEvent, ReceivedEvent, SubscriptionRef,
};
use tenantry_domain::kernel::{StoreError, SystemScope};
use tenantry_domain::tenant::Denied;
use tenantry_tenancy::operations::job::{self, JobFailure, Nothing, SystemJobHandler};
use tenantry_tenancy::{Cx, OperatorCx, Origin, Tenancy};

use crate::billing::billing_surplus;
use crate::billing::billing_sync::sync;
use crate::billing::sync_error::SyncError;

/// Why a message was not kept.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Nobody takes payments here.
    #[error("payments are not set up")]
    Unavailable,
    /// It is not the provider's.
    #[error(transparent)]
    Forged(#[from] ForgedEvent),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps a message of the payment provider's, once, with the job that acts on it.
///
/// # Errors
/// [`ReceiveError`].
pub async fn receive(app: &Tenancy, body: &[u8], signature: &str) -> Result<(), ReceiveError> {
    let payments = app.ports.payments.as_ref().ok_or(ReceiveError::Unavailable)?;
    let event = payments.read_event(body, signature, app.ports.clock.now())?;
    let because = SystemScope::because("the payment provider tells of something");
    keep(app, because, event, Some(body.to_vec())).await?;
    Ok(())
}

/// The newest messages, for an operator.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    app: &Tenancy,
    because: SystemScope,
    state: Option<EventState>,
    limit: u32,
) -> Result<Vec<ReceivedEvent>, StoreError> {
    app.ports.provider_events.list(because, state, limit).await
}

/// Keeps an event unless it is known; whether it is new.
async fn keep(
    app: &Tenancy,
    because: SystemScope,
    event: ProviderEvent,
    body: Option<Vec<u8>>,
) -> Result<bool, StoreError> {
    let which = Which {
        event: event.id.clone(),
    };
    let job = job::of_system::<Process>(app, &which, event.id.to_string())?;
    let mut received = ReceivedEvent::new(event, body, app.ports.clock.now());
    if !concerns_us(&received.event.kind) {
        received.state = EventState::Ignored;
        received.reason = Some("nothing here depends on it".into());
        received.settled_at = Some(received.received_at);
        return app.ports.provider_events.receive(because, &received, None).await;
    }
    app.ports
        .provider_events
        .receive(because, &received, Some(&job))
        .await
}

/// Whether subscription, invoices or debts of somebody may be different after such an event.
fn concerns_us(kind: &str) -> bool {
    let families = ["customer.subscription.", "invoice.", "checkout.session."];
    families.iter().any(|family| kind.starts_with(family)) || kind == "customer.deleted"
}

/// Acts on an event.
#[derive(Debug, Clone, Copy)]
pub struct Process;

/// Which event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// By the provider's id.
    pub event: EventRef,
}

/// For so long it is hoped that a customer whom nobody knows is one of ours that is just being made.
const HOPE: Duration = Duration::hours(1);

/// What is to be noted of an event that has come to its end.
enum Settled {
    Done,
    Ignored(String),
}

impl SystemJobHandler for Process {
    const KIND: &'static str = "billing.provider_event";
    const MAX_ATTEMPTS: u32 = 50;
    type Payload = Which;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, which: Which) -> Result<(), JobFailure> {
        let Some(payments) = app.ports.payments.clone() else {
            return Err(JobFailure::Retry("payments are not set up".into()));
        };
        let events = &app.ports.provider_events;
        let received = events.begin(because, &which.event).await?;
        let received = received.ok_or_else(|| JobFailure::Permanent("the event is gone".into()))?;
        if matches!(received.state, EventState::Done | EventState::Ignored) {
            return Ok(());
        }
        let at = app.ports.clock.now();
        match act(app, because, payments.as_ref(), &received).await {
            Ok(Settled::Done) => {
                events
                    .settle(because, &which.event, (EventState::Done, None), at)
                    .await?;
                Ok(())
            }
            Ok(Settled::Ignored(reason)) => {
                let outcome = (EventState::Ignored, Some(reason.as_str()));
                events.settle(because, &which.event, outcome, at).await?;
                Ok(())
            }
            Err(failure) => {
                let last = received.attempts >= Self::MAX_ATTEMPTS || failure.is_permanent();
                let state = if last {
                    EventState::Dead
                } else {
                    EventState::Pending
                };
                let reason = failure.to_string();
                events
                    .settle(because, &which.event, (state, Some(&reason)), at)
                    .await?;
                Err(failure)
            }
        }
    }
}

async fn act(
    app: &Arc<Tenancy>,
    because: SystemScope,
    payments: &dyn PaymentProvider,
    received: &ReceivedEvent,
) -> Result<Settled, JobFailure> {
    let Some(customer) = customer_of(payments, &received.event).await? else {
        return Ok(Settled::Ignored("it names no customer".into()));
    };
    let Some(tenant) = app.ports.customers.tenant_of(because, &customer).await? else {
        if app.ports.clock.now() - received.received_at < HOPE {
            return Err(JobFailure::Retry(format!("no tenant is known to be {customer}")));
        }
        return Ok(Settled::Ignored(format!("no tenant is {customer}")));
    };
    let scope = match app.ports.gate.system(because, tenant).await {
        Ok(scope) => scope,
        Err(Denied::TenantGone | Denied::TenantNotFound) => {
            return Ok(Settled::Ignored("the tenant has been deleted".into()));
        }
        Err(denied) => return Err(JobFailure::Retry(denied.to_string())),
    };
    let cx = Cx::new(Arc::clone(app), scope, Origin::default());
    match sync(&cx, payments).await {
        Ok(Some(account)) => {
            if account.customer != Some(customer) {
                billing_surplus::end_former(&cx, payments, &account).await?;
            }
            Ok(Settled::Done)
        }
        // Who the customer is has been noted, and not yet in the tenant's own account.
        Ok(None) => Err(JobFailure::Retry(
            "the tenant is about to become a customer".into(),
        )),
        Err(SyncError::Provider(error @ ProviderError::Refused(_))) => {
            Err(JobFailure::Permanent(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The customer that the event is about, asked for where it does not say.
async fn customer_of(
    payments: &dyn PaymentProvider,
    event: &ProviderEvent,
) -> Result<Option<CustomerRef>, ProviderError> {
    if let Some(customer) = &event.customer {
        return Ok(Some(customer.clone()));
    }
    if let Some(subscription) = &event.subscription {
        return Ok(payments
            .subscription(subscription)
            .await?
            .map(|found| found.customer));
    }
    let id = event.object_id.as_deref();
    match event.object.as_deref() {
        Some("customer") => Ok(id.and_then(CustomerRef::parse)),
        Some("subscription") => match id.and_then(SubscriptionRef::parse) {
            Some(id) => Ok(payments.subscription(&id).await?.map(|found| found.customer)),
            None => Ok(None),
        },
        Some("invoice") => match id.and_then(InvoiceRef::parse) {
            Some(id) => Ok(payments.invoice(&id).await?.map(|found| found.customer)),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Asks the provider for events that it never told of, and forgets old messages.
#[derive(Debug, Clone, Copy)]
pub struct FetchMissed;

/// How far behind the last time of looking it is looked again: what happened just then may not have been listed yet.
const OVERLAP: Duration = Duration::hours(2);
/// How far back it is looked at all, at first. The provider keeps its events for 30 days.
const REACH: Duration = Duration::days(30);
/// For so many days messages are kept, for whoever looks into what happened. There are names and addresses in them.
const KEPT: Duration = Duration::days(30);
/// How long a message may be on its way. One that is fetched before it arrives is not missing.
const ON_ITS_WAY: Duration = Duration::minutes(5);

impl SystemJobHandler for FetchMissed {
    const KIND: &'static str = "billing.fetch_missed_events";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        fetch_missed(app, because).await.map(|_| ())
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::hours(1), Nothing {}))
    }
}

/// [`fetch_missed`] for a command, on record.
///
/// # Errors
/// [`JobFailure`].
pub async fn fetch_for_operator(operators: &OperatorCx, because: SystemScope) -> Result<u64, JobFailure> {
    operators.require_command()?;
    let record = operators.record("billing.events_fetched", None, json!({}));
    let fetched = fetch_missed(operators.app(), because);
    operators.act(record, "billing.event_fetch_failed", fetched).await
}

/// Keeps what the provider has not told of; how many events that were.
///
/// # Errors
/// [`JobFailure`].
pub async fn fetch_missed(app: &Tenancy, because: SystemScope) -> Result<u64, JobFailure> {
    let Some(payments) = app.ports.payments.clone() else {
        return Ok(0);
    };
    let now = app.ports.clock.now();
    let events = &app.ports.provider_events;
    let looked = events.looked_until(because).await?;
    let since = looked
        .map_or(now - REACH, |looked| looked - OVERLAP)
        .max(now - REACH);
    let (mut missed, mut overdue) = (0, 0);
    for event in payments.events_since(since).await? {
        let is_overdue = event.created_at < now - ON_ITS_WAY;
        if keep(app, because, event, None).await? {
            missed += 1;
            overdue += u64::from(is_overdue);
        }
    }
    events.look_until(because, now).await?;
    // Before the first look at an account its events had nowhere to arrive.
    if overdue > 0 && looked.is_some() {
        tracing::warn!(missed, overdue, "events of the payment provider had not arrived");
    } else if missed > 0 {
        tracing::info!(missed, "events of the payment provider were fetched");
    }
    events.clear_bodies(because, now - KEPT).await?;
    Ok(missed)
}
