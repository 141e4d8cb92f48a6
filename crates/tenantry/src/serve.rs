//! `tenantry serve`: listen, answer, and end without losing anything.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tenantry_billing::usage::metering;
use tenantry_domain::usage::CallSpool as _;
use tenantry_http::{Api, HealthCheck, HttpConfig, ListenConfig, Quotas, Readiness};
use tenantry_persistence::Pool;
use tenantry_tenancy::Tenancy;
use tenantry_tenancy::operations::worker::Worker;
use tenantry_tenancy::webhooks::dispatcher::Dispatcher;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::boot::{Booted, boot};
use crate::config::{Configuration, Http, Profile, Server};
use crate::guard::Guard;
use crate::otlp_metrics::MetricsExport;
use crate::{CommandError, billing_command, health, jobs, mail, metrics, otlp, webhooks};

/// Serves until it is told to stop.
pub async fn run(config: &Configuration) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let guard = Guard::before_serving(config).await?;
    let synced = booted.plans.sync(&booted).await;
    synced.map_err(|error| CommandError::Other(format!("the plans cannot be stored: {error}")))?;
    let read = tenantry_compose::read_keys(&booted.app).await;
    read.map_err(|error| CommandError::Other(format!("the signing keys cannot be read: {error}")))?;
    let address = (config.server.host.as_str(), config.server.port);
    let listener = TcpListener::bind(address).map_err(|error| {
        CommandError::Other(format!(
            "cannot listen on {}:{}: {error}; see server.port",
            address.0, address.1
        ))
    })?;
    serve(config, booted, guard, (listener, StopSignals::listen()?)).await
}

/// The signals that stop a server. They are listened for before anybody is told where the server is: one that came earlier would end
/// the process at once, or be lost where a shell has it ignored.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Listens from now on.
    ///
    /// # Errors
    /// [`CommandError`] when the process has no place for a handler.
    pub fn listen() -> Result<Self, CommandError> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }
}

/// A listener on the port of the configuration, or on the next one that is free.
pub fn free_port(server: &Server) -> Result<TcpListener, CommandError> {
    let ports = server.port..=server.port.saturating_add(99);
    for port in ports.clone() {
        if let Ok(listener) = TcpListener::bind((server.host.as_str(), port)) {
            if port != server.port {
                crate::console::progress(&format!("port {} is taken, using {port}", server.port));
            }
            return Ok(listener);
        }
    }
    Err(CommandError::Other(format!(
        "none of the ports {}..={} is free",
        ports.start(),
        ports.end()
    )))
}

/// Serves on a listener until SIGINT or SIGTERM, then says no to readiness, waits for the load balancer, lets the
/// requests in flight finish, stores what is buffered, and closes the database connections. That the database was
/// asked before anybody heard of the address is a parameter.
pub async fn serve(
    config: &Configuration,
    booted: Booted,
    guard: Arc<Guard>,
    (listener, mut stop): (TcpListener, StopSignals),
) -> Result<(), CommandError> {
    let hangup = signal(SignalKind::hangup()).map_err(failed)?;
    spool(config, &booted)?;
    warn(config);
    let address = listener.local_addr().map_err(failed)?;
    lengthen(&listener, config.server.backlog).map_err(failed)?;
    let readiness = Arc::new(readiness(config, &booted, &guard));
    let api = api(config, &booted, &readiness);
    metrics::register(api.metrics(), &booted);
    metrics::guard(api.metrics(), &guard);
    let worker = config
        .jobs
        .enabled
        .then(|| Arc::new(jobs::worker(&booted, config)));
    let counting = metrics::jobs(api.metrics(), &booted, worker.as_deref());
    let lagging = metrics::metering(api.metrics(), &booted);
    let scraped = metrics::serve(config, api.metrics(), &booted.app)?;
    let exported = MetricsExport::new(&config.tracing, api.metrics()).map(MetricsExport::start);
    let workers = config.server.threads();
    let runtime = booted.runtime.clone();
    // Once on each worker's thread.
    let on_each = move || {
        let runtime = runtime.clone();
        actix_web::rt::spawn(async move { runtime.open_all().await });
        api.clone()
    };
    let server = tenantry_http::listen(on_each, listener, listen_settings(config)).map_err(failed)?;
    let handle = server.handle();
    let running = tokio::spawn(server);
    let loops = Loops::start(config, &booted);
    let every = Duration::from_secs(config.guard.every_minutes * 60);
    let mut watching = tokio::spawn(guard.watch(every, hangup));
    let jobs = JobsRunning::start(worker);
    let sending = Sending::start(webhooks::dispatcher(&booted, config));
    tracing::info!(%address, workers, "serving");

    tokio::select! {
        _ = stop.interrupt.recv() => {}
        _ = stop.terminate.recv() => {}
        _ = &mut watching => {}
    }
    watching.abort();
    tracing::info!("stopping: readiness is off, requests in flight finish");
    readiness.drain();
    // The load balancer looks at readiness from time to time, and sends requests until it has.
    tokio::time::sleep(Duration::from_secs(config.server.drain_seconds)).await;
    tokio::join!(jobs.stop(), sending.stop(), handle.stop(true));
    running
        .await
        .map_err(|error| CommandError::Other(error.to_string()))?
        .map_err(failed)?;
    if let Some(scraped) = scraped {
        scraped.stop(true).await;
    }
    counting.abort();
    lagging.abort();
    loops.stop(&booted).await;
    store_all(&booted, Duration::from_secs(config.server.shutdown_seconds)).await;
    if let Some(quotas) = &booted.quotas {
        quotas.close().await;
    }
    booted.runtime.close();
    booted.platform.close();
    tracing::info!("stopped");
    if let Some(exported) = exported {
        exported.finish().await;
    }
    otlp::finish().await;
    Ok(())
}

fn failed(error: std::io::Error) -> CommandError {
    CommandError::Other(format!("cannot serve: {error}"))
}

/// Logs settings that are allowed and weaken something.
fn warn(config: &Configuration) {
    mail::warn(config);
    for (setting, effect) in unset(config) {
        tracing::warn!(setting, "{setting} is not set: {effect}");
    }
    for setting in config.plaintext() {
        tracing::warn!(
            setting,
            "connections over a network without verified TLS are accepted"
        );
    }
}

/// The settings without which a server in production lacks something that its tenants see, and what that is. `dev` sets a folder itself,
/// and needs no custom domains.
fn unset(config: &Configuration) -> Vec<(&'static str, &'static str)> {
    let has_folder = !config.archive.directory.as_os_str().is_empty();
    let settings = [
        (
            has_folder,
            "archive.directory",
            "tenants cannot export their data over HTTP",
        ),
        (
            !config.domains.edge.is_empty(),
            "domains.edge",
            "tenants have no custom domains",
        ),
    ];
    let missing = settings.into_iter().filter(|(is_set, ..)| !is_set);
    match config.profile {
        Profile::Production => missing.map(|(_, setting, effect)| (setting, effect)).collect(),
        Profile::Development => Vec::new(),
    }
}

/// What readiness asks before it says that this server takes requests.
fn readiness(config: &Configuration, booted: &Booted, guard: &Arc<Guard>) -> Readiness {
    let database = Arc::new(DatabaseCheck(booted.runtime.clone()));
    let isolation = Arc::clone(guard);
    let mut readiness = Readiness::new()
        .with_check("database", database)
        .with_state("isolation", move || isolation.state());
    if let Some(redis) = booted.redis.clone() {
        let state = move || if redis.is_there() { "ok" } else { "degraded" };
        readiness = readiness.with_state("redis", state);
    }
    if booted.app.ports.event_export.is_some() {
        let export = booted.app.event_export();
        let state = move || if export.is_failing() { "degraded" } else { "ok" };
        readiness = readiness.with_state("event_export", state);
    }
    if !config.metering.spool_dir.as_os_str().is_empty() {
        let calls = Arc::clone(&booted.calls);
        let state = move || calls.tally().trouble.map_or("ok", |_| "degraded");
        readiness = readiness.with_state("spool", state);
    }
    health::with_components(readiness, config, booted, guard)
}

/// The API with the routes of the service, its limits and its quotas.
fn api(config: &Configuration, booted: &Booted, readiness: &Arc<Readiness>) -> Api {
    let http = HttpConfig {
        serve_metrics: config.metrics.enabled && config.metrics.port == 0,
        ..http_settings(&config.http)
    };
    let api = Api::new(Arc::clone(&booted.app), http, Arc::clone(readiness));
    let api = config.extension.extend(api);
    let api = match booted.limits.clone() {
        Some(limits) => api.with_limits(limits),
        None => api,
    };
    match booted.quotas.clone() {
        Some(gate) => api.with_quotas(Quotas::new(Arc::new(gate))),
        None => api,
    }
}

/// What runs beside the requests of a server.
struct Loops {
    /// They take out what they store, and give back what they have not stored when they end.
    storing: Vec<JoinHandle<()>>,
    /// They read what servers share: plans, keys, requests for lists of workspaces, audit entries to chain and to stream, and events to publish and to export.
    reading: Vec<JoinHandle<()>>,
    /// They keep connections to other servers, which are still needed to store.
    sharing: Vec<JoinHandle<()>>,
}

impl Loops {
    fn start(config: &Configuration, booted: &Booted) -> Self {
        let app = || Arc::clone(&booted.app);
        let every = Duration::from_millis(config.metering.flush_interval_ms);
        let redis = booted.redis.as_ref().map(|redis| tokio::spawn(redis.keep()));
        let announcing = booted.invalidations.clone();
        let announcing = announcing.map(|everywhere| tokio::spawn(everywhere.run()));
        let returning = booted.quotas.clone().map(|quotas| tokio::spawn(quotas.run()));
        let offering = booted.stripe.clone().map(|stripe| {
            let plans = Arc::clone(&booted.app.ports.plans);
            tokio::spawn(billing_command::offer(plans, stripe))
        });
        // Mail is for servers that have a worker.
        let mailing = config.jobs.enabled;
        let mailing = mailing.then(|| tokio::spawn(tenantry_compose::mail_workspaces(app())));
        Self {
            storing: vec![
                tokio::spawn(flush_views(app(), config.views.flush_seconds)),
                tokio::spawn(store_calls(app(), every)),
            ],
            reading: [
                tokio::spawn(booted.plans.clone().run()),
                tokio::spawn(tenantry_compose::follow_keys(app())),
                tokio::spawn(tenantry_compose::chain_audit(app())),
                tokio::spawn(tenantry_compose::raise_alerts(app())),
                tokio::spawn(tenantry_compose::stream_audit(app())),
                tokio::spawn(tenantry_compose::publish_events(app())),
                tokio::spawn(tenantry_compose::export_events(app())),
            ]
            .into_iter()
            .chain(mailing)
            .collect(),
            sharing: [announcing, redis, returning, offering]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    /// Ends them, after other servers got the invalidations of this one.
    async fn stop(self, booted: &Booted) {
        for task in self.storing {
            // What it had taken out to store is back when it has ended.
            task.abort();
            let _ = task.await;
        }
        self.reading.iter().for_each(JoinHandle::abort);
        if let Some(invalidations) = &booted.invalidations {
            invalidations.flush(Duration::from_secs(1)).await;
        }
        self.sharing.iter().for_each(JoinHandle::abort);
    }
}

/// Says at the start, and not when the first call is counted, that there is no place for calls to wait.
fn spool(config: &Configuration, booted: &Booted) -> Result<(), CommandError> {
    let folder = &config.metering.spool_dir;
    if folder.as_os_str().is_empty() && config.profile == Profile::Production {
        tracing::warn!(
            "metering.spool_dir is not set: a killed server loses the calls that are not stored yet"
        );
    }
    booted.calls.prepare().map_err(|error| {
        CommandError::Other(format!("{}: {error}; see metering.spool_dir", folder.display()))
    })
}

/// The standard library listens with a backlog of its own; listening once more gives the socket another.
fn lengthen(listener: &TcpListener, backlog: u32) -> std::io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    rustix::net::listen(listener, backlog).map_err(Into::into)
}

/// The worker of this server, when it has one.
struct JobsRunning(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl JobsRunning {
    fn start(worker: Option<Arc<Worker>>) -> Self {
        Self(worker.map(|worker| {
            let (stop, stopped) = oneshot::channel();
            let running = worker.run(async {
                // An error means that the sender is gone, which comes to the same.
                let _ = stopped.await;
            });
            (stop, tokio::spawn(running))
        }))
    }

    /// No more jobs are begun; those that run may finish, or go back into the queue.
    async fn stop(self) {
        let Some((stop, running)) = self.0 else { return };
        let _ = stop.send(());
        if let Err(error) = running.await {
            tracing::error!(%error, "the worker has failed; leases of its jobs will run out");
        }
    }
}

/// The dispatcher of webhooks of this server, when it has one.
struct Sending(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Sending {
    fn start(dispatcher: Option<Dispatcher>) -> Self {
        Self(dispatcher.map(|dispatcher| {
            let (stop, stopped) = oneshot::channel();
            let running = dispatcher.run(async {
                // An error means that the sender is gone, which comes to the same.
                let _ = stopped.await;
            });
            (stop, tokio::spawn(running))
        }))
    }

    /// No more requests are begun; those in flight may finish, and are sent again otherwise.
    async fn stop(self) {
        let Some((stop, running)) = self.0 else { return };
        let _ = stop.send(());
        if let Err(error) = running.await {
            tracing::error!(%error, "the dispatcher of webhooks has failed; its leases will run out");
        }
    }
}

fn http_settings(http: &Http) -> HttpConfig {
    HttpConfig {
        base_domain: (!http.base_domain.is_empty()).then(|| http.base_domain.clone()),
        body_limit_bytes: http.body_limit_bytes,
        cors_origins: http.cors_origins.clone(),
        hsts: http.hsts,
        trust_forwarded_for: http.trust_forwarded_for,
        request_timeout: Duration::from_millis(http.request_timeout_ms),
        body_timeout: Duration::from_millis(http.body_timeout_ms),
        event_stream_lifetime: Duration::from_secs(http.event_stream_seconds),
        event_streams: http.event_streams,
        event_streams_per_tenant: http.event_streams_per_tenant,
        ..HttpConfig::default()
    }
}

fn listen_settings(config: &Configuration) -> ListenConfig {
    let http = &config.http;
    let per_network = config.server.connections_per_network;
    ListenConfig {
        workers: config.server.threads(),
        max_connections: config.server.max_connections,
        // All connections come from the proxy where there is one.
        connections_per_network: (per_network > 0 && !http.trust_forwarded_for).then_some(per_network),
        head_timeout: Duration::from_millis(http.header_timeout_ms),
        idle_timeout: Duration::from_millis(http.keep_alive_ms),
        disconnect_timeout: Duration::from_millis(http.disconnect_timeout_ms),
        shutdown_seconds: config.server.shutdown_seconds,
    }
}

/// Stores what is counted in memory: views, when API keys were used, and refusals that were repeated.
async fn flush_views(app: Arc<Tenancy>, every_seconds: u64) {
    let mut ticks = tokio::time::interval(Duration::from_secs(every_seconds));
    loop {
        ticks.tick().await;
        let flushed = tenantry_compose::store_notes(&app).await;
        if flushed.views > 0 {
            tracing::debug!(
                views = flushed.views,
                tenants = flushed.tenants,
                "view counts stored"
            );
        }
    }
}

/// Stores what waits in this process, calls first since they are billed, and logs how much is left when the time is over.
async fn store_all(booted: &Booted, within: Duration) {
    let app = &booted.app;
    // So that they are counted below, also when the time is over before their turn.
    app.refusals().end_all();
    let all = async {
        // A batch that was being stored when its task ended is stored again, and the calls since then after it.
        for _ in 0..2 {
            metering::flush(app).await;
        }
        tenantry_compose::store_notes(app).await;
    };
    let in_time = tokio::time::timeout(within, all).await.is_ok();
    let calls = booted.calls.tally().pending;
    let (views, refusals) = (app.views().waiting(), app.refusals().waiting());
    if calls > 0 || views > 0 || refusals > 0 {
        tracing::warn!(
            calls,
            views,
            refusals,
            in_time,
            "not everything could be stored: calls stay in metering.spool_dir, where one is set; the rest is lost"
        );
    }
}

/// Brings the calls of this server into the ledger, and those of servers that have died.
async fn store_calls(app: Arc<Tenancy>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stored = metering::flush(&app).await;
        if stored.calls > 0 {
            tracing::debug!(calls = stored.calls, kept = stored.kept, "calls stored");
        }
    }
}

struct DatabaseCheck(Pool);

#[async_trait]
impl HealthCheck for DatabaseCheck {
    async fn check(&self) -> Result<(), String> {
        self.0.ping().await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_without_archives_or_custom_domains_is_warned() {
        let of = |profile| Configuration {
            profile,
            ..Configuration::default()
        };
        let mut config = of(Profile::Production);
        let named = |config: &Configuration| -> Vec<_> {
            let unset = unset(config).into_iter();
            unset.map(|(setting, _)| setting).collect()
        };
        assert_eq!(named(&config), ["archive.directory", "domains.edge"]);
        config.archive.directory = "/srv/exports".into();
        config.domains.edge = "edge.example.com".into();
        assert!(named(&config).is_empty());
        assert!(named(&of(Profile::Development)).is_empty());
    }
}
