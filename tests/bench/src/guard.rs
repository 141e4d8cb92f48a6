//! How long one check of the guard takes.

use std::time::Instant;

use tenantry_doctor::{Options, Outcome, connect, guard};
use tenantry_migration::{CATALOGUE, DEFINER_FUNCTIONS, GLOBAL_TABLES};

use crate::report::Guarded;
use crate::{Failure, median};

/// How often the check is made.
const RUNS: usize = 30;

/// Connects and runs the guard's checks against the migrated database, as `serve` does at its start and each hour.
///
/// # Errors
/// When the database cannot be checked, or the guard finds something: then it is not what a server checks.
pub async fn measure(url: &str) -> Result<Guarded, Failure> {
    let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let options = Options {
        global_tables: list(GLOBAL_TABLES),
        allowed_definer_functions: list(DEFINER_FUNCTIONS),
        expected: Some(CATALOGUE.parse()?),
        ..Options::default()
    };
    let mut times = Vec::new();
    let mut checks = 0;
    for _ in 0..RUNS {
        let began = Instant::now();
        let mut connection = connect(url).await?;
        let report = guard(&mut connection, &options).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if report.count(Outcome::Fail) > 0 {
            return Err(report.to_human().into());
        }
        checks = report.checks.len();
    }
    Ok(Guarded {
        checks,
        median_ms: median(times.iter().copied()),
        slowest_ms: times.iter().copied().fold(0.0, f64::max),
    })
}
