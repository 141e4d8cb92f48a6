//! `tenantry keys`: the keys that sign access tokens.

use tenantry_domain::identity::PUBLICATION_SECONDS;
use tenantry_domain::kernel::SystemScope;
use tenantry_tenancy::OperatorCx;
use tenantry_tenancy::identity::signing_key::{self, KeyUsage, ListedKey, SigningKeyError};

use crate::boot::boot;
use crate::config::Settings;
use crate::console::moment;
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
    /// Create a signing key. It is published at once and signs later; the former key is accepted until its tokens have
    /// expired, and no session ends.
    #[command(after_help = "Example: tenantry keys rotate\n         \
                            tenantry keys rotate --publication-seconds 86400    (others cache the keys for a day)")]
    Rotate {
        /// How long the key is published before it signs: 360 to 604800 seconds. Other services that verify tokens must read
        /// /.well-known/jwks.json again within that time.
        #[arg(long, default_value_t = PUBLICATION_SECONDS)]
        publication_seconds: i64,
    },
    /// List the signing keys: name, state, and since or from when it signs.
    #[command(after_help = "Example: tenantry keys list")]
    List,
}

/// Runs the command.
pub async fn run(settings: &Settings, args: &Args) -> Result<(), CommandError> {
    let booted = boot(settings)?;
    let because = SystemScope::because("signing keys are administered from the command line");
    let cx = OperatorCx::command(&booted.app, because);
    let done = match args.action {
        Action::Rotate { publication_seconds } => rotate(&cx, publication_seconds).await,
        Action::List => list(&cx).await,
    };
    booted.finish().await;
    done
}

async fn rotate(cx: &OperatorCx, publication_seconds: i64) -> Result<(), CommandError> {
    let rotated = signing_key::rotate(cx, publication_seconds).await;
    let key = rotated.map_err(|error| match error {
        SigningKeyError::Invalid(errors) => invalid(&errors),
        error => other(&error),
    })?;
    console::say(&format!(
        "{} published, signs from {}",
        key.kid,
        moment(key.signs_from)
    ));
    Ok(())
}

async fn list(cx: &OperatorCx) -> Result<(), CommandError> {
    let keys = signing_key::list(cx).await.map_err(|error| other(&error))?;
    for key in &keys {
        console::say(&line(key));
    }
    Ok(())
}

fn line(key: &ListedKey) -> String {
    let state = match key.usage {
        KeyUsage::Stored(state) => state.as_str(),
        KeyUsage::Unreadable => "unreadable: no configured key opens it",
        KeyUsage::Configured { signs: true } => "configured, signing",
        KeyUsage::Configured { signs: false } => "configured, accepted",
    };
    match key.signs_from {
        Some(from) => format!("{} {state} (signs from {})", key.kid, moment(from)),
        None => format!("{} {state}", key.kid),
    }
}
