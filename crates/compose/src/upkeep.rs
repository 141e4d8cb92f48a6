use std::sync::Arc;
use std::time::Duration;

use tenantry_billing::usage::metering;
use tenantry_domain::identity::SHORTEST_PUBLICATION_SECONDS;
use tenantry_domain::kernel::StoreError;
use tenantry_tenancy::admin::operator_stream;
use tenantry_tenancy::audit::{chain, refusal, stream};
use tenantry_tenancy::events::{export, log, publish};
use tenantry_tenancy::identity::{signing_key, workspace};
use tenantry_tenancy::security::detection;
use tenantry_tenancy::webhooks::dispatcher::{Dispatcher, DispatcherConfig};
use tenantry_tenancy::{Flushed, Tenancy};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

/// How often a process reads the stored signing keys: much more often than a new key needs to be published for.
const KEYS_EVERY: Duration = Duration::from_secs(5);

/// The pause between two looks for audit entries to chain.
const CHAIN_EVERY: Duration = Duration::from_secs(1);

/// The pause between two looks for events to publish when this process records none.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// How long after it was recorded an event is published: its transaction has usually ended, and others come with it.
const PUBLISHED_AFTER: Duration = Duration::from_millis(50);

/// The pause between two looks for lists of workspaces to mail.
const MAILS_EVERY: Duration = Duration::from_secs(2);

const _: () = assert!(KEYS_EVERY.as_secs().cast_signed() * 10 < SHORTEST_PUBLICATION_SECONDS);

/// The intervals of what a process does beside its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// Between two reads of the stored signing keys. A new key is published for at least six minutes before it signs.
    pub keys: Duration,
    /// Between two writes of what is counted in memory.
    pub notes: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            keys: KEYS_EVERY,
            notes: Duration::from_secs(10),
        }
    }
}

impl Upkeep {
    /// Runs a service, as [`beside`] does, with these intervals.
    pub async fn beside<T>(self, app: &Arc<Tenancy>, service: impl Future<Output = T>) -> T {
        let storing = async {
            let mut ticks = ticks(self.notes);
            loop {
                ticks.tick().await;
                store_counts(app).await;
            }
        };
        let done = tokio::select! {
            done = service => done,
            () = follow(app, self.keys) => unreachable!("it reads keys for ever"),
            () = mail_workspaces(Arc::clone(app)) => unreachable!("it mails for ever"),
            () = raise_alerts(Arc::clone(app)) => unreachable!("it searches for ever"),
            () = chain_audit(Arc::clone(app)) => unreachable!("it chains for ever"),
            () = stream_audit(Arc::clone(app)) => unreachable!("it streams for ever"),
            () = publish_events(Arc::clone(app)) => unreachable!("it publishes for ever"),
            () = export_events(Arc::clone(app)) => unreachable!("it exports for ever"),
            () = deliver_webhooks(Arc::clone(app)) => unreachable!("it delivers for ever"),
            () = storing => unreachable!("it stores for ever"),
        };
        app.refusals().end_all();
        store_counts(app).await;
        done
    }
}

/// Runs a service, and while it runs reads the stored signing keys, mails lists of workspaces, publishes and exports events, delivers webhooks, chains audit entries, searches them for suspicious activity, and stores what is counted in memory:
/// calls, views, uses of API keys, refusals; once more when it has ended. The stock server has loops of its own for that.
pub async fn beside<T>(app: &Arc<Tenancy>, service: impl Future<Output = T>) -> T {
    Upkeep::default().beside(app, service).await
}

async fn store_counts(app: &Arc<Tenancy>) {
    metering::flush(app).await;
    store_notes(app).await;
}

/// Stores what requests leave in memory apart from calls: views, when API keys were used, and refusals that were repeated. What
/// cannot be stored now is kept. Returns how many views were stored.
pub async fn store_notes(app: &Arc<Tenancy>) -> Flushed {
    refusal::flush(app).await;
    app.activity().flush(app).await;
    app.key_uses().flush(app).await;
    app.views().flush(app).await
}

/// Reads the stored signing keys before a process serves, so that it accepts what other servers sign.
///
/// # Errors
/// Those of the store.
pub async fn read_keys(app: &Arc<Tenancy>) -> Result<(), StoreError> {
    let unreadable = signing_key::refresh(app).await?;
    for kid in unreadable {
        tracing::error!(
            kid,
            "no configured key opens this signing key: its tokens are refused here; auth.signing_key and \
             auth.previous_key_files must be those of the server that created it"
        );
    }
    Ok(())
}

/// Reads the stored signing keys every five seconds. While the database is unavailable, the keys that were read last are used.
pub async fn follow_keys(app: Arc<Tenancy>) {
    follow(&app, KEYS_EVERY).await;
}

async fn follow(app: &Arc<Tenancy>, every: Duration) {
    let mut ticks = ticks(every);
    loop {
        ticks.tick().await;
        if let Err(error) = signing_key::refresh(app).await {
            tracing::warn!(%error, "the signing keys could not be read");
        }
    }
}

/// Mails the lists of workspaces that are asked for. Any number of processes may do so. While the database or the mail server is
/// unavailable, the requests wait.
pub async fn mail_workspaces(app: Arc<Tenancy>) {
    let mut ticks = ticks(MAILS_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = workspace::answer_due(&app).await {
            tracing::warn!(%error, "lists of workspaces could not be mailed, trying again");
        }
    }
}

/// Chains the audit entries that this process has written, a second or two after each. While the database is unavailable, they
/// wait.
pub async fn chain_audit(app: Arc<Tenancy>) {
    let mut ticks = ticks(CHAIN_EVERY);
    loop {
        ticks.tick().await;
        chain::chain_due(&app).await;
    }
}

/// Searches the audit entries that this process has chained for suspicious activity, in a loop of its own, so that neither chaining nor
/// requests wait for it. While the database is unavailable, they wait.
pub async fn raise_alerts(app: Arc<Tenancy>) {
    let mut ticks = ticks(CHAIN_EVERY);
    loop {
        ticks.tick().await;
        detection::detect_due(&app).await;
    }
}

/// Streams audit entries to the receiver of the ports, of tenants and of operators, in a loop of its own: neither requests nor chaining wait
/// for the receiver. Any number of processes may do so.
pub async fn stream_audit(app: Arc<Tenancy>) {
    if app.ports.audit_receiver.is_none() {
        return std::future::pending().await;
    }
    let mut ticks = ticks(CHAIN_EVERY);
    loop {
        ticks.tick().await;
        // Both have a turn, so neither keeps the other waiting. The operators' log is the first after a pause: failures of tenants' logs,
        // whose entries anonymous callers can write, do not stand before it.
        while operator_stream::stream_due(&app).await | stream::stream_due(&app).await {}
    }
}

/// Publishes the events of all tenants in their feeds: those of this process some milliseconds after their transactions, those of others, also
/// of processes that were killed, within a second; then adds them to the log of all tenants. Any number of processes may do so. While the database
/// is unavailable, they wait.
pub async fn publish_events(app: Arc<Tenancy>) {
    let signals = app.event_signals();
    loop {
        publish::publish_due(&app).await;
        log::append_due(&app).await;
        tokio::select! {
            () = signals.recorded() => sleep(PUBLISHED_AFTER).await,
            () = sleep(PUBLISH_EVERY) => {}
        }
    }
}

/// Exports events to the broker of the ports, in a loop of its own: neither requests nor the feed wait for the broker. Any number of processes may
/// do so. While the broker is away, events wait.
pub async fn export_events(app: Arc<Tenancy>) {
    if app.ports.event_export.is_none() {
        return std::future::pending().await;
    }
    let mut publications = app.event_signals().publications();
    loop {
        publications.mark_unchanged();
        while export::export_due(&app).await {}
        tokio::select! {
            // An error says that the application is gone, and then so is this loop.
            _ = publications.changed() => {}
            () = sleep(PUBLISH_EVERY) => {}
        }
    }
}

/// Delivers the webhooks of all tenants, where the ports have a sender. Any number of processes may do so. Requests that are in flight when the
/// future is dropped are sent again later; [`Dispatcher::run`] waits for them.
pub async fn deliver_webhooks(app: Arc<Tenancy>) {
    let Some(dispatcher) = Dispatcher::new(app, DispatcherConfig::default()) else {
        return std::future::pending().await;
    };
    dispatcher.run(std::future::pending()).await;
}

/// Ticks that come late after a long round, rather than all at once.
fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
