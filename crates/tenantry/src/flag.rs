//! `tenantry flags`: the definitions of feature flags, from the command line of the server.

use std::sync::Arc;

use tenantry_domain::flags::{FlagDefinition, FlagVersion};
use tenantry_domain::kernel::SystemScope;
use tenantry_tenancy::flags::flag_definition::{self, DefinitionError, DefinitionReason};
use tenantry_tenancy::{OperatorCx, Precondition, Tenancy};

use crate::boot::boot;
use crate::config::Configuration;
use crate::reason::Reason;
use crate::tenant::{invalid, other};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all flags: key, type, lifecycle, on or off, version, description.
    #[command(after_help = "Example: tenantry flags list")]
    List,
    /// Print the definition of a flag, as the API takes it.
    #[command(after_help = "Example: tenantry flags show new-checkout\n         \
                            tenantry flags show new-checkout --version 3")]
    Show {
        /// Key of the flag.
        key: String,
        /// As it was then; as it is now when absent.
        #[arg(long)]
        version: Option<i64>,
    },
    /// List the versions of a flag, newest first: number, when, by whom.
    #[command(after_help = "Example: tenantry flags history new-checkout")]
    History {
        /// Key of the flag.
        key: String,
        /// How many at the most.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
    },
    /// Put a former version of a flag in force again, as the next version.
    #[command(after_help = "Example: tenantry flags rollback new-checkout --to 3")]
    Rollback {
        /// Key of the flag.
        key: String,
        /// The number of the version.
        #[arg(long)]
        to: i64,
        #[command(flatten)]
        reason: Reason,
    },
}

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let done = act(&booted.app, &args.action).await;
    booted.finish().await;
    done
}

async fn act(app: &Arc<Tenancy>, action: &Action) -> Result<(), CommandError> {
    let because = SystemScope::because("flags are looked after from the command line");
    let cx = OperatorCx::command(app, because);
    match action {
        Action::List => {
            let catalogue = flag_definition::catalogue(&cx).await.map_err(told)?;
            catalogue.flags().for_each(|flag| say(flag));
        }
        Action::Show { key, version } => {
            let flag = match version {
                Some(version) => {
                    let found = flag_definition::version::<FlagDefinition>(&cx, key, *version).await;
                    found.map(|found| found.definition)
                }
                None => flag_definition::get(&cx, key).await,
            };
            let json = serde_json::to_string_pretty(&flag.map_err(told)?);
            console::say(&json.map_err(|error| other(&error))?);
        }
        Action::History { key, limit } => {
            let versions = flag_definition::versions::<FlagDefinition>(&cx, key, None, *limit).await;
            let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
            versions.map_err(told)?.iter().take(limit).for_each(say_version);
        }
        Action::Rollback { key, to, reason } => {
            let cx = reason.context(app, because)?;
            let flag = flag_definition::roll_back(&cx, key, &Precondition::None, *to).await;
            say(&flag.map_err(told)?);
        }
    }
    Ok(())
}

fn say(flag: &FlagDefinition) {
    let switch = if flag.enabled { "on" } else { "off" };
    console::say(&format!(
        "{} {} {} {switch} version {} {}",
        flag.key,
        flag.kind.as_str(),
        flag.lifecycle.as_str(),
        flag.version,
        flag.description
    ));
}

fn say_version(version: &FlagVersion) {
    let by = version
        .operator
        .map_or_else(|| "a command".to_owned(), |operator| operator.to_string());
    let at = console::moment(version.created_at);
    console::say(&format!("{} {at} {by}", version.version));
}

fn told(error: DefinitionError) -> CommandError {
    match error {
        DefinitionError::Invalid(bad) => invalid(&bad),
        DefinitionError::NotFound => CommandError::Other(format!(
            "there is no such flag or version: see {} flags list",
            console::program()
        )),
        error @ (DefinitionError::Refused(_)
        | DefinitionError::Stale(_)
        | DefinitionError::NotInPlan(_)
        | DefinitionError::Denied(_)
        | DefinitionError::Own(DefinitionReason::Taken | DefinitionReason::InUse(_))
        | DefinitionError::Store(_)) => other(&error),
    }
}
