//! Structured logs on standard error, so that standard output is left to answers.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, registry};

use crate::config::{Log, LogFormat, Tracing};
use crate::log_lines::Lines;
use crate::otlp;

/// Logs as the settings want them. `RUST_LOG` narrows or widens it for one run.
pub fn init(config: &Log, tracing: &Tracing) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(lines_of_thread())
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_span_list(false)),
        LogFormat::Pretty => Box::new(lines),
    };
    let given = EnvFilter::try_from_default_env().ok();
    // Names and levels are all that a line of settings needs; what else an `EnvFilter` can do costs at every span.
    let named = config.level.parse::<Targets>().map(without_faults_of_others);
    // A second subscriber can only come from a test that has its own; that one is fine too.
    let (traces, logs) = (otlp::traces(tracing), otlp::logs(tracing));
    if traces.is_none() && logs.is_none() {
        // One filter of everything is cheaper than one of each layer.
        let _ = match (given, named) {
            (Some(filter), _) => registry().with(lines).with(filter).try_init(),
            (None, Ok(targets)) => registry().with(lines).with(targets).try_init(),
            (None, Err(_)) => registry()
                .with(lines)
                .with(EnvFilter::new(&config.level))
                .try_init(),
        };
        return;
    }
    // The filter is of the log and not of the whole: traces are not less for a quieter log.
    let lines: Vec<_> = std::iter::once(lines).chain(logs).collect();
    let lines = match (given, named) {
        (Some(filter), _) => lines.with_filter(filter).boxed(),
        (None, Ok(targets)) => lines.with_filter(targets).boxed(),
        (None, Err(_)) => lines.with_filter(EnvFilter::new(&config.level)).boxed(),
    };
    let _ = registry()
        .with(std::iter::once(lines).chain(traces).collect::<Vec<_>>())
        .try_init();
}

/// Where libraries log what is no fault of theirs or ours. The framework logs what clients do wrong to a connection as its own
/// errors; such requests are answered and counted, and our own line about them has the level DEBUG. The client of Stripe
/// warns of every answer of 4xx, also of those that are expected; our adapter logs the others.
const NO_FAULTS: [&str; 2] = ["actix_http::h1::dispatcher", "stripe::hyper"];

/// Switches off what is no fault, unless the configuration names the library.
fn without_faults_of_others(targets: Targets) -> Targets {
    let named: Vec<String> = targets.iter().map(|(target, _)| target.to_owned()).collect();
    let is_named = |quiet: &str| {
        let library = quiet.split("::").next().unwrap_or_default();
        named.iter().any(|target| target.starts_with(library))
    };
    let quiet = NO_FAULTS.into_iter().filter(|quiet| !is_named(quiet));
    quiet.fold(targets, |targets, quiet| {
        targets.with_target(quiet, LevelFilter::OFF)
    })
}

/// Standard error, which a thread of its own writes. A request that wrote its line itself would wait while nobody reads the pipe
/// (a stalled log driver), and with it the server: also its end, and what asks whether it is alive.
fn lines_of_thread() -> BoxMakeWriter {
    let lines = std::io::stderr().as_fd().try_clone_to_owned();
    match lines.and_then(|file| Lines::to(File::from(file))) {
        Ok(lines) => BoxMakeWriter::new(LINES.get_or_init(|| lines).clone()),
        Err(_) => BoxMakeWriter::new(std::io::stderr),
    }
}

static LINES: OnceLock<Lines> = OnceLock::new();

/// Waits until the lines of the log are written, at most a second: the process is about to end.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(Duration::from_secs(1));
    }
}

/// Returns how many lines of the log were dropped since the start, because their reader was too slow.
pub fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// Logs of commands that a person watches: warnings and worse.
pub fn init_plain() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,stripe::hyper=off"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .try_init();
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_clients_do_wrong_is_no_error_unless_it_is_asked_for() {
        let enabled = |level: &str| {
            let targets = without_faults_of_others(level.parse().unwrap());
            let of = |target| targets.would_enable(target, &Level::ERROR);
            (
                of(NO_FAULTS[0]),
                of("actix_http::h2"),
                of("stripe::hyper::client"),
                of("tenantry_stripe::failure"),
                of("tenantry_http::listen"),
            )
        };
        assert_eq!(enabled("info"), (false, true, false, true, true));
        assert_eq!(enabled("info,actix_http=warn"), (true, true, false, true, true));
        assert_eq!(enabled("info,stripe=warn"), (false, true, true, true, true));
    }
}
