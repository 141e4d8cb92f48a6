//! `tenantry`: the backend as one program. This crate is wiring: settings, composition, commands.

mod billing;
mod boot;
mod config;
mod console;
mod demo;
mod demo_payments;
mod dev;
mod doctor;
mod flag;
mod guard;
mod health;
mod jobs;
mod keys;
mod limits;
mod log;
mod mail;
mod metrics;
mod migrate;
mod operator;
mod otlp;
mod otlp_metrics;
mod plan;
mod quota;
mod seed;
mod serve;
mod sources;
mod tenant;
mod tenant_settings;
mod traces;
mod user;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::sources::Sources;

/// The system's allocator keeps what password hashes use (19 MiB each) in an arena of every thread that ever made one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Serve the API on the database of the settings.
    #[command(
        after_help = "Example: TENANTRY__DATABASE__URL=postgres://tenantry_app:…@db/tenantry \\\n         \
                            TENANTRY__DATABASE__PLATFORM_URL=postgres://tenantry_platform:…@db/tenantry \\\n         \
                            tenantry serve"
    )]
    Serve,
    /// Serve a demo on a private PostgreSQL, or on the server that DATABASE_URL names.
    #[command(after_help = "Example: tenantry dev\n         \
                            DATABASE_URL=postgres://postgres:secret@localhost/tenantry tenantry dev")]
    Dev(dev::Args),
    /// Bring the schema up or down, or say where it is.
    #[command(
        after_help = "Example: DATABASE_URL=postgres://tenantry_owner:…@db/tenantry tenantry migrate up"
    )]
    Migrate(migrate::Args),
    /// Examine whether a database keeps the rows of its tenants apart.
    #[command(after_help = "Example: tenantry doctor\n         \
                            tenantry doctor --fix > mend.sql\n         \
                            tenantry doctor --url postgres://me@db/shop --tenant-column org_id --role shop_web")]
    Doctor(doctor::Args),
    /// List, found, suspend and resume tenants.
    #[command(after_help = "Example: tenantry tenant suspend acme --reason 'invoice unpaid'")]
    Tenant(tenant::Args),
    /// List plans, and put tenants on them.
    #[command(after_help = "Example: tenantry plan change acme --to pro")]
    Plan(plan::Args),
    /// Add, list and deactivate those who run the platform.
    #[command(
        after_help = "Example: tenantry operator create --email olga@example.com --name 'Olga Operator'"
    )]
    Operator(operator::Args),
    /// List and show feature flags and their versions, and go back to one.
    #[command(after_help = "Example: tenantry flags rollback new-checkout --to 3")]
    Flags(flag::Args),
    /// Set something for a tenant, and seal tenants' secrets with a new key.
    #[command(after_help = "Example: tenantry settings rotate-keys")]
    Settings(tenant_settings::Args),
    /// Import users who move in from another system.
    #[command(after_help = "Example: tenantry user import --tenant acme --file users.ndjson --verified")]
    User(user::Args),
    /// Rotate and list the keys that sign access tokens.
    #[command(after_help = "Example: tenantry keys rotate")]
    Keys(keys::Args),
    /// List, replay and cancel work that is done in the background.
    #[command(after_help = "Example: tenantry jobs list --state dead")]
    Jobs(jobs::Args),
    /// Tell the payment provider what was used, compare numbers with it, list what it told of.
    #[command(after_help = "Example: tenantry billing reconcile --period 2026-01")]
    Billing(billing::Args),
    /// Try how mail goes out.
    #[command(after_help = "Example: tenantry mail test --to ada@example.com")]
    Mail(mail::Args),
    /// Compare what quotas have counted with the ledger.
    #[command(after_help = "Example: tenantry quota reconcile --tenant acme")]
    Quota(quota::Args),
    /// Print the OpenAPI document.
    #[command(after_help = "Example: tenantry openapi > openapi.json")]
    Openapi,
}

#[tokio::main]
async fn main() -> ExitCode {
    keep_pages_small();
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The allocator asks for huge pages where the system leaves that to programs, and of each of their 2 MiB a little is used:
/// a server of 77 MiB does as much with 57. PostgreSQL that is started from here does without, too. Where the system knows
/// no huge pages there is nothing to keep small.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Why a command failed: one line each, which says what to do.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Settings(#[from] config::SettingsError),
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
            let document = tenantry_http::openapi();
            let json = document
                .to_pretty_json()
                .map_err(|error| CommandError::Other(error.to_string()))?;
            console::say(&json);
            Ok(())
        }
        Command::Dev(args) => dev::run(&sources, &args).await,
        Command::Serve => {
            let settings = sources.of_server()?;
            log::init(&settings.log, &settings.tracing);
            serve::run(&settings).await
        }
        Command::Migrate(args) => migrate::run(&sources, &args).await,
        Command::Doctor(args) => doctor::run(&sources, &args).await,
        Command::Tenant(args) => tenant::run(&sources.of_command()?, &args).await,
        Command::Plan(args) => plan::run(&sources.of_command()?, &args).await,
        Command::Operator(args) => operator::run(&sources.of_command()?, &args).await,
        Command::Flags(args) => flag::run(&sources.of_command()?, &args).await,
        Command::Settings(args) => tenant_settings::run(&sources.of_command()?, &args).await,
        Command::User(args) => user::run(&sources.of_command()?, &args).await,
        Command::Keys(args) => keys::run(&sources.of_command()?, &args).await,
        Command::Billing(args) => billing::run(&sources.of_command()?, &args).await,
        Command::Mail(args) => mail::run(&sources.of_other_command()?.mail, &args).await,
        Command::Quota(args) => quota::run(&sources.of_command()?, &args).await,
        Command::Jobs(args) => jobs::run(&sources.of_command()?, &args).await,
    }
}
