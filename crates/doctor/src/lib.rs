//! Whether a PostgreSQL database keeps the rows of its tenants apart, read from its catalogue.
//!
//! The database need not be Tenantry's: any that says whose a row is by a column, and by a run-time setting whose
//! rows a transaction may touch, can be examined. [`Options`] say what those are called.
//!
//! * [`examine`] runs every check and gives a [`Report`]; it changes nothing and may run as any role.
//! * [`guard`] runs the critical ones in one round trip, for a server to ask before it serves.
//! * [`record`] writes down what a database is, so that later examinations report every difference.
//! * A report can be had [for people](Report::to_human), as [JSON](Report::to_json), as
//!   [SARIF](Report::to_sarif) for code scanning, and as [one script](Report::fix_script) that mends what it found.
//! * A [`Certificate`] is a page about a report for a customer's auditor.
//!
//! ```no_run
//! # async fn example(connection: &mut sqlx::PgConnection) -> Result<(), tenantry_doctor::DoctorError> {
//! use tenantry_doctor::{Options, examine};
//!
//! let options = Options {
//!     tenant_column: "org_id".to_owned(),
//!     setting: "acme.org".to_owned(),
//!     runtime_role: Some("acme_web".to_owned()),
//!     ..Options::default()
//! };
//! let report = examine(connection, &options).await?;
//! if !report.passed() {
//!     eprintln!("{}", report.to_human());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it cannot see
//!
//! It reads what the database is told to allow, not what an application does with it. Whoever may run any SQL as
//! the runtime role may also set the tenant: row-level security protects from mistakes, and not from injected SQL.
//! PostgreSQL shows some settings (`shared_preload_libraries`, `dynamic_library_path`) to superusers only. After `pg_upgrade` members that were added
//! to an extension cannot be told from its own, but by the digest that a manifest has of it.
//! A superuser can forge the age of PostgreSQL's own rows: functions, types and operators of known releases are compared by
//! digest, but its views by age alone. Contents of large objects, of other databases and of backups, and functions that build SQL are not looked into.

#![deny(missing_docs)]

mod catalogue;
mod certificate;
mod check;
mod command;
mod connect;
mod error;
mod examine;
mod expression;
mod finding;
mod format;
mod manifest;
mod options;
mod quote;
mod report;
mod severity;
mod subject;
mod token;

pub use certificate::{Certificate, CertifiedCheck, Occasion, Summary};
pub use connect::{connect, user_of};
pub use error::DoctorError;
pub use examine::{examine, guard, record};
pub use finding::{Finding, Mend, Object, Step};
pub use manifest::Manifest;
pub use options::Options;
pub use report::{CheckResult, Outcome, Report};
pub use severity::Severity;
