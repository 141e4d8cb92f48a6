//! The backend put together: settings, composition, commands. The program `tenantry` is this and nothing else.
//!
//! A service that embeds the backend depends on this crate. Its own part is an [`Extension`]; [`Service`] makes a program of it,
//! with all of the commands (`serve`, `dev`, `migrate`, `doctor`, ...). Guard, limits, worker, loops that store what is counted,
//! plans, health, metrics and drain are on as in the stock program, unless the settings switch them off:
//!
//! ```no_run
//! # use tenantry::{Extension, Service};
//! fn main() -> std::process::ExitCode {
//!     Service::new(Extension::new("notes")).main()
//! }
//! ```
//!
//! Tests and services with a `main` of their own call [`compose`], which gives the application with a default for each port and
//! an override for those that are to be replaced.

#![cfg_attr(
    test,
    expect(
        clippy::too_many_lines,
        reason = "tests are tables of cases: longer with each case, and no harder to read"
    )
)]

mod all_tenants;
mod archive;
mod audit;
mod audit_stream;
mod billing_command;
mod boot;
#[cfg(test)]
mod command_records;
mod config;
mod console;
mod demo;
mod demo_payments;
mod dev;
mod doctor;
mod domains;
mod event_export;
mod events;
mod extension;
mod flag;
mod guard;
mod health;
mod jobs;
mod keys;
mod limits;
mod log;
mod log_lines;
mod mail;
mod metrics;
mod migrate;
mod naming;
mod operator;
mod otlp;
mod otlp_metrics;
mod person;
mod plan;
pub mod prelude;
mod quota;
mod reason;
mod routes;
mod seed;
mod serve;
mod sources;
mod tenant;
mod tenant_settings;
mod tombstones;
mod traces;
mod user;
mod webhooks;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use tenantry_billing as billing;
pub use tenantry_domain as domain;
pub use tenantry_domain::customization::{Definition, Editor, Kind, Pattern};
pub use tenantry_domain::events::{EventType, Field};
pub use tenantry_domain::permission;
pub use tenantry_http as http;
pub use tenantry_migration::migrator;
pub use tenantry_persistence as persistence;
pub use tenantry_persistence::tenant_entity;
pub use tenantry_tenancy as tenancy;
pub use tenantry_tenancy::Ports;
pub use tenantry_tenancy::audited;

pub use crate::boot::{BootError, Booted, Overrides, boot, compose};
pub use crate::config::{
    Challenge, ChallengeProvider, Configuration, ConfigurationError, Profile, Secret, Stream as AuditStream,
    StreamKind as AuditStreamKind, Webhooks,
};
pub use crate::extension::Extension;
pub use crate::routes::{RouteError, Routes};

#[doc(hidden)]
pub use utoipa as __utoipa;

use crate::sources::Sources;

/// A multi-tenant backend: tenants, users, projects and tasks, each tenant's rows to itself.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example: tenantry dev    (everything on this machine, with a demo)"
)]
struct Cli {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API on the database of the configuration.
    #[command(
        after_help = "Example: TENANTRY__DATABASE__URL='postgres://tenantry_app:…@db/tenantry?sslmode=verify-full' \\\n         \
                            TENANTRY__DATABASE__PLATFORM_URL='postgres://tenantry_platform:…@db/tenantry?sslmode=verify-full' \\\n         \
                            TENANTRY__AUTH__SIGNING_KEY_FILE=/run/secrets/signing-key.pem \\\n         \
                            tenantry serve"
    )]
    Serve,
    /// Serve a demo on a private PostgreSQL, or on the server that DATABASE_URL names.
    #[command(after_help = "Example: tenantry dev\n         \
                            DATABASE_URL=postgres://postgres:secret@localhost/tenantry tenantry dev")]
    Dev(dev::Args),
    /// Bring the schema up or down, or say where it is.
    #[command(
        after_help = "Example: DATABASE_URL='postgres://tenantry_owner:…@db/tenantry?sslmode=verify-full' tenantry migrate up"
    )]
    Migrate(migrate::Args),
    /// Examine whether a database keeps the rows of its tenants apart.
    #[command(after_help = "Example: tenantry doctor\n         \
                            tenantry doctor --fix > mend.sql\n         \
                            tenantry doctor --url postgres://me@db/shop --tenant-column org_id --role shop_web")]
    Doctor(Box<doctor::Args>),
    /// List, create, suspend, resume, delete, restore, purge, export and import tenants.
    #[command(after_help = "Example: tenantry tenant suspend acme --reason 'invoice unpaid'")]
    Tenant(tenant::Args),
    /// Verify archives of tenants.
    #[command(after_help = "Example: tenantry export verify acme.tar")]
    Export(archive::Args),
    /// List what is left of purged tenants, and purge again those that a restored backup brought back.
    #[command(after_help = "Example: tenantry tombstones list > tombstones.ndjson")]
    Tombstones(tombstones::Args),
    /// List plans, and put tenants on them.
    #[command(after_help = "Example: tenantry plan change acme --to pro --reason 'contract 4711'")]
    Plan(plan::Args),
    /// Add, list and deactivate those who run the platform.
    #[command(
        after_help = "Example: tenantry operator create --email olga@example.com --name 'Olga Operator' --role support"
    )]
    Operator(operator::Args),
    /// List and show feature flags and their versions, and go back to one.
    #[command(after_help = "Example: tenantry flags rollback new-checkout --to 3")]
    Flags(flag::Args),
    /// Set something for a tenant, and seal tenants' secrets with a new key.
    #[command(after_help = "Example: tenantry settings rotate-keys")]
    Settings(tenant_settings::Args),
    /// Import, export and erase users, or remove the second factor of one.
    #[command(
        after_help = "Example: tenantry user import --tenant acme --file users.ndjson --verified\n         \
                      tenantry user reset-mfa --tenant acme --email ada@acme.example"
    )]
    User(user::Args),
    /// Rotate, list and check the keys that sign access tokens and seal tenants' secrets.
    #[command(after_help = "Example: tenantry keys rotate")]
    Keys(keys::Args),
    /// Export events again that the broker has lost.
    #[command(after_help = "Example: tenantry events rewind --tenant acme --reason 'the stream was deleted'")]
    Events(events::Args),
    /// List, replay and cancel work that is done in the background.
    #[command(after_help = "Example: tenantry jobs list --state dead")]
    Jobs(jobs::Args),
    /// Report usage to the payment provider, compare numbers with it, list its messages.
    #[command(after_help = "Example: tenantry billing reconcile --period 2026-01")]
    Billing(billing_command::Args),
    /// Try how mail goes out.
    #[command(after_help = "Example: tenantry mail test --to ada@example.com")]
    Mail(mail::Args),
    /// Verify the hash chains of audit logs.
    #[command(after_help = "Example: tenantry audit verify --tenant acme")]
    Audit(audit::Args),
    /// Compare what quotas have counted with the ledger.
    #[command(after_help = "Example: tenantry quota reconcile --tenant acme")]
    Quota(quota::Args),
    /// Print the OpenAPI document.
    #[command(after_help = "Example: tenantry openapi > openapi.json")]
    Openapi,
}

/// The program of a service.
#[derive(Debug, Clone, Default)]
pub struct Service {
    extension: Extension,
}

impl Service {
    /// The program of the service that adds this to the backend. [`Service::default`] is the stock backend.
    pub fn new(extension: Extension) -> Self {
        Self { extension }
    }

    /// [`Service::command_line`] on a runtime of its own: all that a `main` needs.
    pub fn main(self) -> ExitCode {
        match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(self.command_line()),
            Err(error) => {
                console::error(&format!("cannot start: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    /// Reads the command line, runs the command, and says how it ended.
    pub async fn command_line(self) -> ExitCode {
        keep_pages_small();
        outlive_file_limits();
        let ended = run(self.parsed()).await;
        log::flush();
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                console::error(&error.to_string());
                ExitCode::FAILURE
            }
        }
    }

    /// The command line, which ends the process where it asks for help or cannot be understood.
    fn parsed(self) -> Cli {
        console::name_program(self.extension.name());
        let command = naming::named(Cli::command(), self.extension.name());
        let matches = command.clone().try_get_matches();
        let matches = matches.unwrap_or_else(|error| naming::with_usage(&command, error).exit());
        let parsed = Cli::from_arg_matches(&matches);
        let mut cli = parsed.unwrap_or_else(|error| error.format(&mut command.clone()).exit());
        cli.sources.extension = self.extension;
        cli
    }
}

/// The allocator asks for huge pages where the system leaves that to programs, and of each of their 2 MiB a little is used:
/// a server of 77 MiB does as much with 57. PostgreSQL that is started from here does without, too. Where the system knows
/// no huge pages there is nothing to keep small.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// A file that reaches the limit of the process (`ulimit -f`) ends the process by a signal, without a word. With a handler the write
/// fails instead, which is treated as a full disk is.
fn outlive_file_limits() {
    let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ));
}

/// The number of that signal on Linux, macOS and the BSDs.
const SIGXFSZ: i32 = 25;

/// Why a command failed: one line each, which says what to do.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Configuration(#[from] config::ConfigurationError),
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    #[error(transparent)]
    Database(#[from] tenantry_devdb::DevDbError),
    #[error(transparent)]
    Migration(#[from] tenantry_migration::MigrationError),
    #[error("{0}")]
    Other(String),
}

async fn run(cli: Cli) -> Result<(), CommandError> {
    let sources = cli.sources;
    if !matches!(cli.command, Command::Serve | Command::Dev(_)) {
        log::init_plain();
    }
    match cli.command {
        Command::Openapi => {
            let checked = sources.extension.check_routes();
            checked.map_err(|error| CommandError::Other(error.to_string()))?;
            let document = sources.extension.openapi();
            let json = document
                .to_pretty_json()
                .map_err(|error| CommandError::Other(error.to_string()))?;
            console::say(&json);
            Ok(())
        }
        Command::Dev(args) => dev::run(&sources, &args).await,
        Command::Serve => {
            let config = sources.of_server()?;
            log::init(&config.log, &config.tracing);
            serve::run(&config).await
        }
        Command::Migrate(args) => migrate::run(&sources, &args).await,
        Command::Doctor(args) => match doctor::run(&sources, &args).await {
            Ok(()) if args.keys => keys::run_check(&sources.of_command()?).await,
            examined => examined,
        },
        Command::Tenant(args) => tenant::run(&sources.of_command()?, &args).await,
        Command::Export(args) => archive::run(&sources.of_command()?, &args).await,
        Command::Tombstones(args) => tombstones::run(&sources.of_command()?, &args).await,
        Command::Plan(args) => plan::run(&sources.of_command()?, &args).await,
        Command::Operator(args) => operator::run(&sources.of_command()?, &args).await,
        Command::Flags(args) => flag::run(&sources.of_command()?, &args).await,
        Command::Settings(args) => tenant_settings::run(&sources.of_command()?, &args).await,
        Command::User(args) => user::run(&sources.of_command()?, &args).await,
        Command::Keys(args) => keys::run(&sources.of_command()?, &args).await,
        Command::Events(args) => events::run(&sources.of_command()?, &args).await,
        Command::Billing(args) => billing_command::run(&sources.of_command()?, &args).await,
        Command::Mail(args) => mail::run(&sources.of_other_command()?.mail, &args).await,
        Command::Audit(args) => audit::run(&sources.of_command()?, &args).await,
        Command::Quota(args) => quota::run(&sources.of_command()?, &args).await,
        Command::Jobs(args) => jobs::run(&sources.of_command()?, &args).await,
    }
}
