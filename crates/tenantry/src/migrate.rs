//! `tenantry migrate`.

use tenantry_migration::{Bootstrap, RolePasswords};

use crate::config::{self, Configuration, ConfigurationError};
use crate::sources::Sources;
use crate::{CommandError, console};

/// Which way, and as whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum, default_value = "up")]
    direction: Direction,
    /// How many migrations at the most; all of them when absent (for down: one).
    #[arg(long)]
    steps: Option<u32>,
    /// First make the three roles and the database, as the administrator of database.admin_url; their passwords come
    /// from database.url, database.platform_url and database.owner_url.
    #[arg(long)]
    bootstrap: bool,
    /// With --bootstrap: give roles that are there already these passwords too.
    #[arg(long, requires = "bootstrap")]
    reset_passwords: bool,
    /// Needed for down and fresh, which destroy data.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Direction {
    /// Apply what is missing.
    Up,
    /// Take migrations back, newest first.
    Down,
    /// Say which are applied.
    Status,
    /// Drop everything and apply all.
    Fresh,
}

/// Runs the command as the owner of the tables: `DATABASE_URL`, else database.owner_url.
pub async fn run(sources: &Sources, args: &Args) -> Result<(), CommandError> {
    if args.bootstrap {
        let config = sources.of_database_command()?;
        config.check_transport()?;
        bootstrap(&config, args.reset_passwords).await?;
    }
    let url = owner_url(sources)?;
    if matches!(args.direction, Direction::Down | Direction::Fresh) && !args.yes {
        return Err(CommandError::Other(
            "this destroys data: say --yes if that is what you want".into(),
        ));
    }
    let schema = sources.extension.schema;
    match args.direction {
        Direction::Up => report("applied", &(schema.up)(url.clone(), args.steps).await?),
        Direction::Down => report(
            "taken back",
            &(schema.down)(url.clone(), args.steps.unwrap_or(1)).await?,
        ),
        Direction::Fresh => report("applied", &(schema.fresh)(url.clone()).await?),
        Direction::Status => {
            for (name, applied) in (schema.status)(url.clone()).await? {
                console::say(&format!("{} {name}", if applied { "applied" } else { "pending" }));
            }
        }
    }
    for name in (schema.unknown)(url).await? {
        console::progress(&format!(
            "{name} is applied and not known here; it stays as it is"
        ));
    }
    Ok(())
}

fn owner_url(sources: &Sources) -> Result<String, CommandError> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        sources
            .given()?
            .check_database_transport("database.owner_url", &url)?;
        return Ok(url);
    }
    let config = sources.of_database_command()?;
    if config.database.owner_url.is_empty() {
        let problem = "a PostgreSQL URL for tenantry_owner is required, or DATABASE_URL";
        return Err(sources.hinted(ConfigurationError::invalid("database.owner_url", problem).into()));
    }
    let url = config.database.owner_url.reveal();
    config.check_database_transport("database.owner_url", url)?;
    Ok(url.to_owned())
}

async fn bootstrap(config: &Configuration, reset_passwords: bool) -> Result<(), CommandError> {
    let required = |key: &'static str, url: &crate::config::Secret| {
        let problem = "a PostgreSQL URL is required for --bootstrap";
        if url.is_empty() {
            Err(ConfigurationError::invalid(key, problem))
        } else {
            Ok(url.reveal().to_owned())
        }
    };
    let database = &config.database;
    let admin_url = required("database.admin_url", &database.admin_url)?;
    let owner = required("database.owner_url", &database.owner_url)?;
    let app = required("database.url", &database.url)?;
    let platform = required("database.platform_url", &database.platform_url)?;
    // The roles get the passwords of these URLs, so they are held to what every later command asks of them.
    config::check_url("database.owner_url", &database.owner_url, config.profile)?;
    config::check_url("database.url", &database.url, config.profile)?;
    config::check_url("database.platform_url", &database.platform_url, config.profile)?;
    let plan = Bootstrap {
        admin_url,
        database: database_of(&owner).to_owned(),
        passwords: RolePasswords {
            owner: password_of("database.owner_url", &owner)?,
            app: password_of("database.url", &app)?,
            platform: password_of("database.platform_url", &platform)?,
        },
        reset_passwords,
    };
    tenantry_migration::bootstrap(&plan).await?;
    console::progress(&format!("roles and database {} are ready", plan.database));
    Ok(())
}

/// The database that a URL names.
pub fn database_of(url: &str) -> &str {
    let after_host = url.splitn(4, '/').nth(3).unwrap_or_default();
    after_host.split('?').next().unwrap_or_default()
}

fn password_of(key: &'static str, url: &str) -> Result<String, ConfigurationError> {
    let user = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.rsplit_once('@'))
        .map(|(user, _)| user);
    let password = user
        .and_then(|user| user.split_once(':'))
        .map(|(_, password)| password);
    let password =
        password.ok_or_else(|| ConfigurationError::invalid(key, "must hold a password for --bootstrap"))?;
    if password.contains('%') {
        return Err(ConfigurationError::invalid(
            key,
            "the password must not need percent-encoding for --bootstrap",
        ));
    }
    Ok(password.to_owned())
}

fn report(what: &str, names: &[String]) {
    if names.is_empty() {
        console::say(&format!("nothing to be {what}"));
    }
    for name in names {
        console::say(&format!("{what} {name}"));
    }
}
