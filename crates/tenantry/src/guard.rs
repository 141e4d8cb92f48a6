//! The guard: whether the database keeps tenants apart, before anything is served and from time to time afterwards.

use std::io::{IsTerminal as _, stdin};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::json;
use tenantry_doctor::{DoctorError, Options, Report, Severity, connect, guard, user_of};
use tenantry_domain::kernel::Clock as _;
use tenantry_http::{Component, ComponentState, Seen};
use tenantry_system::SystemClock;
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::CommandError;
use crate::config::{Configuration, Secret};
use crate::doctor::{definer_functions, failed, global_tables, migrated};
use crate::sources::place;

/// Timeout of a check of a running server.
const TIMEOUT: Duration = Duration::from_secs(60);

/// After a failed check the next one follows this soon.
const RETRY: Duration = Duration::from_secs(60);

/// Checks the database with the critical checks of the doctor, as the runtime role.
pub struct Guard {
    url: Secret,
    options: Options,
    serve_anyway: bool,
    last: watch::Sender<Found>,
}

/// The result of the last check that succeeded, and the error of a later one that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    at: DateTime<Utc>,
    findings: Vec<Line>,
    /// The worst of them.
    worst: Option<Severity>,
    /// Why a later check failed.
    problem: Option<String>,
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It found nothing.
    Ok,
    /// It found something.
    Findings,
    /// It could not be made: no connection, a timeout, no permission.
    Failed,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Ok, Self::Findings, Self::Failed];

    /// Its name in the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Findings => "findings",
            Self::Failed => "failed",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
struct Line {
    check: &'static str,
    object: String,
    found: String,
}

impl Guard {
    /// Checks before anything is served. Findings that are no more than a warning are logged, and told by readiness.
    ///
    /// # Errors
    /// When a check of severity error or critical fails and the settings do not say to serve anyway; each finding with what
    /// mends it. When the database cannot be asked.
    pub async fn before_serving(config: &Configuration) -> Result<Arc<Self>, CommandError> {
        let options = options(config)?;
        let url = config.database.url.clone();
        let report = check(&url, &options).await?;
        let found = Found::of(&report);
        let serve_anyway = config.guard.serve_anyway;
        if found.is_grave() && !serve_anyway {
            return Err(CommandError::Other(format!(
                "this database does not keep tenants apart, so nothing is served:\n{}\nmend it ({} doctor says how), \
                 or set TENANTRY__GUARD__SERVE_ANYWAY=true to serve in spite of it",
                lines(&report),
                crate::console::program()
            )));
        }
        if found.is_grave() {
            let findings = lines(&report);
            tracing::error!(
                findings,
                "tenants are NOT kept apart by this database; guard.serve_anyway is set"
            );
        } else if !found.findings.is_empty() {
            tracing::warn!(findings = lines(&report), "the guard found something to look at");
        }
        for (object, notice) in notices(&report) {
            tracing::info!(object, notice, "guard notice");
        }
        Ok(Arc::new(Self {
            url,
            options,
            serve_anyway,
            last: watch::Sender::new(found),
        }))
    }

    /// Checks again after each interval and whenever the signal arrives; after a failed check, within a minute. Ends when the
    /// terminal that the server was started from has hung up, for then the signal means that.
    pub async fn watch(self: Arc<Self>, every: Duration, hangup: Signal) {
        let check = || async {
            self.check_again().await;
            self.outcome()
        };
        check_from_time_to_time(every, hangup, check).await;
    }

    /// What readiness says: `ok`; `degraded` when the last check found something or failed; `overridden` when it found what
    /// nothing would be served with, had the settings not said to.
    pub fn state(&self) -> &'static str {
        let last = self.last.borrow();
        match last.outcome() {
            _ if self.serve_anyway && last.is_grave() => "overridden",
            Outcome::Ok => "ok",
            Outcome::Findings | Outcome::Failed => "degraded",
        }
    }

    /// The outcome of the last check.
    pub fn outcome(&self) -> Outcome {
        self.last.borrow().outcome()
    }

    /// The age of the last check that succeeded, in seconds.
    pub fn age(&self) -> f64 {
        self.last.borrow().age(SystemClock::new().now())
    }

    /// How many objects the last check found something about.
    pub fn findings(&self) -> usize {
        self.last.borrow().findings.len()
    }

    async fn check_again(&self) {
        let (url, options, runtime) = (self.url.clone(), self.options.clone(), Handle::current());
        // Comparing takes a moment, during which a thread of the runtime would do nothing else.
        let asked = spawn_blocking(move || {
            let asked = runtime.block_on(async { timeout(TIMEOUT, check(&url, &options)).await });
            match asked {
                Ok(Ok(report)) => Ok(report),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
            }
        });
        let problem = match asked.await {
            Ok(Ok(report)) => return self.note(&report),
            Ok(Err(problem)) => problem,
            Err(failed) => failed.to_string(),
        };
        tracing::error!(
            problem,
            "guard check failed; tenant isolation is not checked until one succeeds"
        );
        self.last.send_modify(|last| last.problem = Some(problem));
    }

    fn note(&self, report: &Report) {
        let found = Found::of(report);
        let former = self.last.send_replace(found.clone());
        match (found.findings.is_empty(), former.findings == found.findings) {
            (false, false) => tracing::error!(
                findings = lines(report),
                "the database no longer keeps tenants apart as it should"
            ),
            (true, false) => tracing::info!("the guard's findings are mended"),
            (_, true) => tracing::debug!(findings = found.findings.len(), "guard checked"),
        }
    }
}

#[async_trait]
impl Component for Guard {
    async fn look(&self) -> Seen {
        let last = self.last.borrow().clone();
        let first = last.findings.first().map(|first| {
            let Line { check, object, found } = first;
            let more = match last.findings.len() {
                1 => String::new(),
                number => format!(", and {} more", number - 1),
            };
            format!("{check} {object}: {found}{more}")
        });
        let failed = last
            .problem
            .as_ref()
            .map(|problem| format!("the last check failed: {problem}"));
        let reason = first.or(failed);
        let state = match reason {
            None => ComponentState::Ok,
            Some(_) => ComponentState::Degraded,
        };
        let facts = json!({
            "result": self.state(), "reason": reason, "checked_at": last.at, "age_seconds": self.age(),
            "findings": last.findings, "problem": last.problem,
        });
        Seen::new(state, facts)
    }
}

impl Found {
    fn of(report: &Report) -> Self {
        let findings = report.failures().flat_map(|check| {
            check.findings.iter().map(|finding| Line {
                check: check.id,
                object: finding.object.to_string(),
                found: finding.found.clone(),
            })
        });
        Self {
            at: SystemClock::new().now(),
            findings: findings.collect(),
            worst: report.worst(),
            problem: None,
        }
    }

    fn outcome(&self) -> Outcome {
        match (&self.problem, self.findings.is_empty()) {
            (Some(_), _) => Outcome::Failed,
            (None, false) => Outcome::Findings,
            (None, true) => Outcome::Ok,
        }
    }

    fn age(&self, now: DateTime<Utc>) -> f64 {
        (now - self.at).num_milliseconds().max(0) as f64 / 1_000.0
    }

    /// Whether it is a reason to serve nothing.
    fn is_grave(&self) -> bool {
        self.worst.is_some_and(|worst| worst >= Severity::Error)
    }
}

/// The user of the platform's URL is examined as well, whatever it is called. The users of the owner's and the administrator's
/// URLs may have every right.
fn options(config: &Configuration) -> Result<Options, CommandError> {
    let mut options = Options {
        global_tables: global_tables(&config.guard.global_tables),
        allowed_definer_functions: definer_functions(&[]),
        allowed_objects: config.guard.allow.clone(),
        expected: Some(migrated(&config.extension, &config.guard.catalogues)?),
        ..Options::default()
    };
    let platform = user_of(config.database.platform_url.reveal()).map_err(failed)?;
    if !options.platform_roles.contains(&platform) {
        options.platform_roles.push(platform);
    }
    let runtime = user_of(config.database.url.reveal()).map_err(failed)?;
    let urls = [&config.database.owner_url, &config.database.admin_url];
    for url in urls.into_iter().filter(|url| !url.is_empty()) {
        let user = user_of(url.reveal()).map_err(failed)?;
        let ours = options.owner_roles.iter().chain(&options.platform_roles);
        if !ours.chain([&runtime]).any(|ours| *ours == user) {
            options.allowed_objects.push(format!("role {user}"));
        }
    }
    Ok(options)
}

async fn check(url: &Secret, options: &Options) -> Result<Report, CommandError> {
    let unreachable = |error: DoctorError| {
        let host = place(url);
        CommandError::Other(format!(
            "cannot connect to the database at {host}: {error} (the setting is database.url)"
        ))
    };
    let mut connection = connect(url.reveal()).await.map_err(unreachable)?;
    guard(&mut connection, options).await.map_err(failed)
}

/// What is worth knowing, and no reason to do anything.
fn notices(report: &Report) -> impl Iterator<Item = (String, &str)> {
    let noticed = report
        .checks
        .iter()
        .filter(|check| check.outcome == tenantry_doctor::Outcome::Notice);
    let findings = noticed.flat_map(|check| &check.findings);
    findings.map(|finding| (finding.object.to_string(), finding.found.as_str()))
}

fn lines(report: &Report) -> String {
    let lines = report.failures().flat_map(|check| {
        check.findings.iter().map(move |finding| {
            let mend = finding
                .mend
                .as_ref()
                .map(|mend| format!("\n    mend: {}", mend.sql()))
                .unwrap_or_default();
            format!(
                "  {} {}: {} {}{mend}",
                check.id, check.title, finding.object.name, finding.found
            )
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn check_from_time_to_time<F>(every: Duration, mut hangup: Signal, check: impl Fn() -> F)
where
    F: Future<Output = Outcome>,
{
    let interactive = stdin().is_terminal();
    let mut wait = every;
    loop {
        tokio::select! {
            () = sleep(wait) => {}
            _ = hangup.recv() => {
                if interactive && !stdin().is_terminal() {
                    return;
                }
            }
        }
        wait = match check().await {
            Outcome::Failed => every.min(RETRY),
            Outcome::Ok | Outcome::Findings => every,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unreachable_database_is_named_with_its_setting() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let url = Secret::new(format!("postgres://tenantry_app:hush@127.0.0.1:{port}/tenantry"));
        let error = check(&url, &Options::default()).await.unwrap_err().to_string();
        assert!(error.contains("database.url"), "{error}");
        assert!(error.contains(&format!("127.0.0.1:{port}/tenantry")), "{error}");
        assert!(!error.contains("hush") && !error.contains('\n'), "{error}");
    }

    fn found(findings: usize, problem: Option<&str>) -> Found {
        let line = Line {
            check: "CAT005",
            object: "grant".to_owned(),
            found: "is not made by any migration".to_owned(),
        };
        Found {
            at: DateTime::UNIX_EPOCH,
            findings: vec![line; findings],
            worst: (findings > 0).then_some(Severity::Critical),
            problem: problem.map(str::to_owned),
        }
    }

    fn guard(last: Found) -> Guard {
        Guard {
            url: Secret::default(),
            options: Options::default(),
            serve_anyway: false,
            last: watch::Sender::new(last),
        }
    }

    #[test]
    fn a_failed_check_degrades_what_was_ok() {
        for (findings, problem, outcome, state) in [
            (0, None, Outcome::Ok, "ok"),
            (1, None, Outcome::Findings, "degraded"),
            (0, Some("connection refused"), Outcome::Failed, "degraded"),
            (1, Some("connection refused"), Outcome::Failed, "degraded"),
        ] {
            let guard = guard(found(findings, problem));
            assert_eq!((guard.outcome(), guard.state()), (outcome, state));
        }
    }

    #[test]
    fn the_age_counts_from_the_last_check_that_succeeded() {
        let late = DateTime::UNIX_EPOCH + chrono::Duration::milliseconds(90_500);
        assert!((found(0, Some("timeout")).age(late) - 90.5).abs() < f64::EPSILON);
        assert!(
            found(0, None)
                .age(DateTime::UNIX_EPOCH - chrono::Duration::hours(1))
                .abs()
                < f64::EPSILON
        );
    }

    #[tokio::test]
    async fn health_names_the_error_of_a_failed_check() {
        let seen = guard(found(0, Some("connection refused"))).look().await;
        let text = format!("{seen:?}");
        assert!(
            text.contains("the last check failed: connection refused"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn checks_are_repeated_by_the_clock() {
        let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
        let hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
        let watching = check_from_time_to_time(Duration::from_millis(1), hangup, || async {
            ran.send(()).unwrap();
            Outcome::Findings
        });
        tokio::select! {
            () = watching => panic!("the guard watches until the process ends"),
            () = async { for _ in 0..3 { runs.recv().await.unwrap(); } } => {}
        }
    }
}
