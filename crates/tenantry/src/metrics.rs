//! What is measured besides requests, and the port that measurements may have of their own.

use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpServer};
use tenantry_billing::usage::metering::Metering;
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::{JobCensus, JobQueue as _};
use tenantry_domain::security::Severity;
use tenantry_domain::usage::CallSpool as _;
use tenantry_http::metrics::{Audience, MetricType, Metrics, Reading, answer};
use tenantry_http::tls_ask;
use tenantry_persistence::{PgJobQueue, Pool};
use tenantry_system::{CachedDirectory, QuotaStats};
use tenantry_tenancy::Tenancy;
use tenantry_tenancy::identity::new_password::UncheckedPasswords;
use tenantry_tenancy::identity::workspace::DroppedRequests;
use tenantry_tenancy::operations::worker::Worker;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::CommandError;
use crate::boot::Booted;
use crate::config::Configuration;
use crate::guard::{Guard, Outcome};

/// Adds pools, cache and Redis to what is measured.
pub fn register(metrics: &Metrics, booted: &Booted) {
    pool(
        metrics,
        &booted.runtime,
        ["database_connections_open", "database_connections_max"],
    );
    pool(
        metrics,
        &booted.platform,
        ["platform_connections_open", "platform_connections_max"],
    );
    let reading = |read: fn(&CachedDirectory) -> Reading| {
        let cache = Arc::clone(&booted.cache);
        move || read(&cache)
    };
    metrics.register(
        "cache_hits",
        "Memberships and names of tenants answered from memory",
        reading(|cache| Reading::Total(cache.stats().hits)),
    );
    metrics.register(
        "cache_loads",
        "Memberships and names of tenants read from the database",
        reading(|cache| Reading::Total(cache.stats().loads)),
    );
    metrics.register(
        "cache_entries",
        "Memberships and names of tenants that are remembered",
        reading(|cache| Reading::Level(cache.stats().entries as f64)),
    );
    let help = "Lines of the log that were dropped, because their reader was too slow";
    metrics.register(
        "log_lines_dropped",
        help,
        || Reading::Total(crate::log::dropped()),
    );
    redis(metrics, booted);
    quotas(metrics, booted);
    passwords(metrics, booted);
    mails(metrics, booted);
    audit(metrics, booted);
    events(metrics, booted);
    webhooks(metrics, booted);
    audit_stream(metrics, booted);
    alerts(metrics, booted);
}

/// Adds how many alerts were raised, of all tenants together.
fn alerts(metrics: &Metrics, booted: &Booted) {
    let tally = booted.app.alert_tally();
    let help = "Alerts about suspicious activity that this server has raised";
    metrics.register_labelled("security_alerts", help, MetricType::Counter, move || {
        let counts = tally.counts().into_iter();
        let labels = |rule: &str, severity: Severity| {
            vec![
                ("rule", rule.to_owned()),
                ("severity", severity.as_str().to_owned()),
            ]
        };
        counts
            .map(|((rule, severity), count)| (labels(rule, severity), count))
            .collect()
    });
}

/// Adds how many events were published.
fn events(metrics: &Metrics, booted: &Booted) {
    let signals = booted.app.event_signals();
    let help = "Events that this server has published in the feeds of tenants";
    metrics.register("events_published", help, move || {
        Reading::Total(signals.published())
    });
    event_export(metrics, booted);
}

/// Adds what was exported of events: nothing where there is no broker. An alert on them works once there is one.
fn event_export(metrics: &Metrics, booted: &Booted) {
    let export = booted.app.event_export();
    let help = "Events that the broker has taken from this server";
    metrics.register("events_exported", help, move || {
        Reading::Total(export.exported_total())
    });
    let export = booted.app.event_export();
    let help = "Events that were deleted because of their age before this server could export them";
    metrics.register("event_export_lost", help, move || Reading::Total(export.lost()));
    let export = booted.app.event_export();
    let help = "Batches of events that the broker has not taken from this server, by reason";
    metrics.register_labelled("event_export_failures", help, MetricType::Counter, move || {
        let failed = export.failed_attempts().into_iter();
        failed
            .map(|(reason, count)| (vec![("reason", reason.to_owned())], count))
            .collect()
    });
    let export = booted.app.event_export();
    let help = "Events that are published and not exported yet, of all tenants";
    metrics.register("event_export_waiting", help, move || {
        Reading::Level(export.backlog().events as f64)
    });
}

/// Adds what became of webhooks, and how far behind their delivery is.
fn webhooks(metrics: &Metrics, booted: &Booted) {
    let signals = booted.app.delivery_signals();
    let help = "Attempts to deliver webhooks that this server has made, by outcome";
    metrics.register_labelled("webhook_attempts", help, MetricType::Counter, move || {
        let attempts = signals.attempts().into_iter();
        attempts
            .map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count))
            .collect()
    });
    let signals = booted.app.delivery_signals();
    let help = "Webhooks that this server has delivered, given up or canceled, by state";
    metrics.register_labelled("webhook_deliveries", help, MetricType::Counter, move || {
        let ended = signals.ended().into_iter();
        ended
            .map(|(state, count)| (vec![("state", state.to_owned())], count))
            .collect()
    });
    let signals = booted.app.delivery_signals();
    let help = "Requests to receivers of webhooks that are in flight";
    metrics.register("webhook_requests_in_flight", help, move || {
        Reading::Level(signals.in_flight() as f64)
    });
    let signals = booted.app.delivery_signals();
    let help = "Webhook endpoints of all tenants with a message that is due";
    metrics.register("webhook_due_endpoints", help, move || {
        Reading::Level(signals.backlog().endpoints as f64)
    });
    let app = Arc::clone(&booted.app);
    let help = "How long the oldest due webhook of all tenants has waited";
    metrics.register("webhook_lag_seconds", help, move || {
        let since = app.delivery_signals().backlog().since;
        let waiting = since.map_or(0, |since| (app.ports.clock.now() - since).num_milliseconds());
        Reading::Level(waiting.max(0) as f64 / 1_000.0)
    });
}

/// Adds how far behind the chains of audit logs are.
fn audit(metrics: &Metrics, booted: &Booted) {
    let app = Arc::clone(&booted.app);
    let help = "Tenants with audit entries of this server that are not chained yet";
    metrics.register("audit_chain_waiting_tenants", help, move || {
        Reading::Level(app.audit_marks().waiting().0 as f64)
    });
    let app = Arc::clone(&booted.app);
    let help = "How long the oldest audit entry of this server has waited to be chained";
    metrics.register("audit_chain_lag_seconds", help, move || {
        let since = app.audit_marks().waiting().1;
        let waiting = since.map_or(0, |since| (app.ports.clock.now() - since).num_milliseconds());
        Reading::Level(waiting.max(0) as f64 / 1_000.0)
    });
}

/// Adds what was streamed of audit logs: nothing where there is no receiver. An alert on them works once there is one.
fn audit_stream(metrics: &Metrics, booted: &Booted) {
    let stream = booted.app.audit_stream();
    let help = "Audit records that the receiver has acknowledged to this server, by kind";
    metrics.register_labelled("audit_stream_sent", help, MetricType::Counter, move || {
        let sent = stream.sent().into_iter();
        sent.map(|(kind, count)| (vec![("kind", kind.to_owned())], count))
            .collect()
    });
    let stream = booted.app.audit_stream();
    let help =
        "Batches of audit records that this server has sent and the receiver has not acknowledged, by reason";
    metrics.register_labelled("audit_stream_failures", help, MetricType::Counter, move || {
        let failed = stream.failed().into_iter();
        failed
            .map(|(reason, count)| (vec![("reason", reason.to_owned())], count))
            .collect()
    });
    let stream = booted.app.audit_stream();
    let help = "Tenants with audit entries that were not sent yet";
    metrics.register("audit_stream_waiting_tenants", help, move || {
        Reading::Level(stream.waiting().tenants as f64)
    });
    let app = Arc::clone(&booted.app);
    let help = "Tenants whose next audit records the receiver refuses while it takes those of others";
    metrics.register("audit_stream_held_tenants", help, move || {
        Reading::Level(app.audit_stream().held_tenants(app.ports.clock.now()) as f64)
    });
    let app = Arc::clone(&booted.app);
    let help =
        "How long the oldest chained audit entry, or entry of the log of operators, has waited to be sent";
    metrics.register("audit_stream_lag_seconds", help, move || {
        let since = app.audit_stream().waiting().since;
        let waiting = since.map_or(0, |since| (app.ports.clock.now() - since).num_milliseconds());
        Reading::Level(waiting.max(0) as f64 / 1_000.0)
    });
}

/// Adds what the guard found.
pub fn guard(metrics: &Metrics, guard: &Arc<Guard>) {
    let found = Arc::clone(guard);
    let help = "Objects of the database that the last check of tenant isolation found fault with";
    metrics.register("guard_findings", help, move || {
        Reading::Level(found.findings() as f64)
    });
    let checked = Arc::clone(guard);
    let help = "Seconds since the last check of tenant isolation that succeeded";
    metrics.register("guard_check_age_seconds", help, move || {
        Reading::Level(checked.age())
    });
    let last = Arc::clone(guard);
    let help = "Outcome of the last check of tenant isolation: 1 for the one that holds";
    metrics.register_labelled("guard_check_outcome", help, MetricType::Gauge, move || {
        let holds = last.outcome();
        let outcomes = Outcome::ALL.map(|outcome| {
            (
                vec![("outcome", outcome.name().to_owned())],
                u64::from(outcome == holds),
            )
        });
        outcomes.into()
    });
}

/// How often the queue is counted; a scrape tells what was counted last.
const COUNTED_EVERY: Duration = Duration::from_secs(15);

/// Adds what a worker has done, and how long the queue is.
pub fn jobs(metrics: &Metrics, booted: &Booted, worker: Option<&Worker>) -> JoinHandle<()> {
    if let Some(tally) = worker.map(Worker::tally) {
        let help = "Jobs that this server has leased, and what came of them";
        metrics.register_labelled("jobs_run", help, MetricType::Counter, move || {
            let counts = tally.counts().into_iter();
            let labels = |kind, what: &str| vec![("kind", kind), ("outcome", what.to_owned())];
            counts
                .map(|(kind, what, count)| (labels(kind, what), count))
                .collect()
        });
    }
    let (counted, last) = watch::channel(JobCensus::default());
    metrics.register_labelled("jobs", "Jobs by state", MetricType::Gauge, move || {
        let census = *last.borrow();
        let states = [
            ("queued", census.queued),
            ("running", census.running),
            ("parked", census.parked),
            ("dead", census.dead),
        ];
        let labelled = states.map(|(state, count)| (vec![("state", state.to_owned())], count));
        labelled.into()
    });
    tokio::spawn(count_jobs(PgJobQueue::new(booted.platform.clone()), counted))
}

async fn count_jobs(queue: PgJobQueue, counted: watch::Sender<JobCensus>) {
    let because = SystemScope::because("measure how long the queue is");
    let mut ticks = tokio::time::interval(COUNTED_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match queue.census(because).await {
            Ok(census) => drop(counted.send_replace(census)),
            Err(error) => tracing::debug!(%error, "the queue could not be counted"),
        }
    }
}

/// Adds what is metered, and how far behind it is.
pub fn metering(metrics: &Metrics, booted: &Booted) -> JoinHandle<()> {
    let app = Arc::clone(&booted.app);
    let help = "Usage events from outside, by what became of them";
    metrics.register_labelled("usage_events", help, MetricType::Counter, move || {
        let tally = Metering::of(&app).tally();
        let outcomes = [
            ("accepted", tally.accepted),
            ("duplicate", tally.duplicates),
            ("failed", tally.failed),
        ];
        let labelled = outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
        labelled.into()
    });
    let app = Arc::clone(&booted.app);
    let spool = Arc::clone(&booted.calls);
    let help = "Calls by where they went: noted at all, remembered because nothing could be written, lost, or of tenants that nobody knows";
    metrics.register_labelled("metering_calls", help, MetricType::Counter, move || {
        let tally = spool.tally();
        let places = [
            ("noted", tally.noted),
            ("remembered", tally.remembered),
            ("lost", tally.lost),
            ("set_aside", Metering::of(&app).tally().set_aside),
        ];
        let labelled = places.map(|(place, count)| (vec![("place", place.to_owned())], count));
        labelled.into()
    });
    let spool = Arc::clone(&booted.calls);
    let help = "Calls of this server that are not in the ledger yet";
    metrics.register("metering_spool_pending", help, move || {
        Reading::Level(spool.tally().pending as f64)
    });
    let app = Arc::clone(&booted.app);
    let help = "Flushes of the spool after which something stayed in it";
    metrics.register("metering_flush_failures", help, move || {
        Reading::Total(Metering::of(&app).tally().flush_failures)
    });
    let app = Arc::clone(&booted.app);
    let help = "How long the last flush took that stored anything";
    metrics.register("metering_flush_seconds", help, move || {
        Reading::Level(Metering::of(&app).tally().flush.as_secs_f64())
    });
    let (measured, last) = watch::channel(0.0);
    let help = "How long the oldest change of usage has waited to be totalled";
    metrics.register("usage_rollup_lag_seconds", help, move || {
        Reading::Level(*last.borrow())
    });
    tokio::spawn(measure_lag(Arc::clone(&booted.app), measured))
}

async fn measure_lag(app: Arc<Tenancy>, measured: watch::Sender<f64>) {
    let because = SystemScope::because("measure how long changes of usage wait");
    let mut ticks = tokio::time::interval(COUNTED_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match app.ports.usage_upkeep.waiting_since(because).await {
            Ok(since) => {
                let waiting = since.map_or(0, |since| (app.ports.clock.now() - since).num_milliseconds());
                measured.send_replace(waiting.max(0) as f64 / 1_000.0);
            }
            Err(error) => tracing::debug!(%error, "the lag of usage could not be measured"),
        }
    }
}

/// Adds what was decided about quotas on the request path, and what is held of them.
fn quotas(metrics: &Metrics, booted: &Booted) {
    let Some(quotas) = booted.quotas.clone() else {
        return;
    };
    let decided = quotas.clone();
    let help =
        "Requests of tenants with a quota of calls: taken at once, after waiting, refused, or not decided";
    metrics.register_labelled("quota_decisions", help, MetricType::Counter, move || {
        let stats = decided.stats();
        let outcomes = [
            ("taken", stats.taken),
            ("waited", stats.waited),
            ("refused", stats.refused),
            ("failed", stats.failed),
        ];
        let labelled = outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
        labelled.into()
    });
    let reading = |read: fn(QuotaStats) -> Reading| {
        let quotas = quotas.clone();
        move || read(quotas.stats())
    };
    metrics.register(
        "quota_leases",
        "Parts of quotas that this server holds or has not returned yet",
        reading(|stats| Reading::Level(stats.leases as f64)),
    );
    metrics.register(
        "quota_leased_units",
        "Units of quotas that this server holds",
        reading(|stats| Reading::Level(stats.units as f64)),
    );
    metrics.register(
        "quota_asks",
        "How often a part of a quota was asked for or returned",
        reading(|stats| Reading::Total(stats.asked)),
    );
    metrics.register(
        "quota_asks_failed",
        "How often that failed or took too long",
        reading(|stats| Reading::Total(stats.unanswered)),
    );
    metrics.register(
        "quota_ask_seconds",
        "How long that took, all together",
        reading(|stats| Reading::TotalTime(Duration::from_micros(stats.asked_micros))),
    );
}

/// Adds passwords that were accepted without a comparison with breached ones.
fn passwords(metrics: &Metrics, booted: &Booted) {
    let app = Arc::clone(&booted.app);
    let help =
        "Passwords that were accepted without a comparison with breached ones, since the list did not answer";
    metrics.register("passwords_unchecked", help, move || {
        Reading::Total(app.state::<UncheckedPasswords>().total())
    });
}

/// Adds what became of mail.
fn mails(metrics: &Metrics, booted: &Booted) {
    let mailer = Arc::clone(&booted.mailer);
    let help = "Attempts to send a mail: sent, to be tried again, without an answer of the server, or refused for good";
    metrics.register_labelled("mails", help, MetricType::Counter, move || {
        let stats = mailer.stats();
        let outcomes = [
            ("sent", stats.sent),
            ("retried", stats.retried),
            ("in_doubt", stats.in_doubt),
            ("failed", stats.failed),
        ];
        let labelled = outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
        labelled.into()
    });
    let app = Arc::clone(&booted.app);
    let help = "Mails that were not sent because a limit of a tenant, an account or an address was reached";
    metrics.register_labelled("mails_withheld", help, MetricType::Counter, move || {
        let counts = app.unsent_mails().counts();
        let labelled = counts.map(|(limit, count)| (vec![("limit", limit.as_str().to_owned())], count));
        labelled.into()
    });
    let app = Arc::clone(&booted.app);
    let help = "Mails that were given up since the server got each several times and did not answer";
    metrics.register("mails_given_up", help, move || {
        Reading::Total(app.unsent_mails().given_up())
    });
    let app = Arc::clone(&booted.app);
    let help = "Requests for the workspaces of an address that were dropped";
    metrics.register_labelled(
        "workspace_requests_dropped",
        help,
        MetricType::Counter,
        move || {
            let counts = app.state::<DroppedRequests>().counts();
            let labelled =
                counts.map(|(reason, count)| (vec![("reason", reason.as_str().to_owned())], count));
            labelled.into()
        },
    );
}

/// Adds how Redis is, and who decides about rates.
fn redis(metrics: &Metrics, booted: &Booted) {
    let Some(redis) = booted.redis.clone() else { return };
    let level = |is: bool| Reading::Level(f64::from(u8::from(is)));
    let there = redis.clone();
    metrics.register("redis_up", "Whether Redis does what it is asked to", move || {
        level(there.is_there())
    });
    let Some(limiter) = booted.shared_limits.clone() else {
        return;
    };
    let (together, alone) = (Arc::clone(&limiter), limiter);
    metrics.register(
        "rate_limit_alone",
        "Whether this server decides alone, Redis being away",
        move || level(!redis.is_there()),
    );
    metrics.register(
        "rate_limit_decided_together",
        "Decisions made with the other servers, in Redis",
        move || Reading::Total(together.tally().together),
    );
    metrics.register(
        "rate_limit_decided_alone",
        "Decisions made alone, Redis being no help",
        move || Reading::Total(alone.tally().alone),
    );
}

/// Serves `/metrics`, and `/tls/ask` where there are custom domains, on the port of its own, when it has one.
pub fn serve(
    config: &Configuration,
    metrics: &Arc<Metrics>,
    tenancy: &Arc<Tenancy>,
) -> Result<Option<ServerHandle>, CommandError> {
    let (host, port) = (config.server.host.as_str(), config.metrics.port);
    if !config.metrics.enabled || port == 0 {
        return Ok(None);
    }
    let metrics = Data::from(Arc::clone(metrics));
    let failed = |error: std::io::Error| {
        CommandError::Other(format!(
            "cannot listen on {host}:{port}: {error}; see metrics.port"
        ))
    };
    let scrape =
        async |request: HttpRequest, metrics: Data<Metrics>| answer(&request, &metrics, Audience::Operators);
    let tenancy = Data::from(Arc::clone(tenancy));
    let ask = async |request: HttpRequest, tenancy: Data<Tenancy>| tls_ask::answer(&tenancy, &request).await;
    let app = move || {
        App::new()
            .app_data(metrics.clone())
            .app_data(tenancy.clone())
            .route("/metrics", web::get().to(scrape))
            .route("/tls/ask", web::get().to(ask))
    };
    let server = HttpServer::new(app).workers(1).disable_signals();
    let server = server.bind((host, port)).map_err(failed)?.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Some(handle))
}

fn pool(metrics: &Metrics, pool: &Pool, [open, max]: [&'static str; 2]) {
    let (now, limit) = (pool.clone(), pool.clone());
    metrics.register(open, "Connections that are open", move || {
        Reading::Level(now.open() as f64)
    });
    metrics.register(max, "Connections there may be", move || {
        Reading::Level(limit.max_size() as f64)
    });
}
