//! `tenantry keys`: the keys that sign access tokens. And the task of a server that reads them.

use std::sync::Arc;
use std::time::Duration;

use tenantry_domain::identity::{PUBLICATION_SECONDS, SHORTEST_PUBLICATION_SECONDS};
use tenantry_domain::kernel::{StoreError, SystemScope, Time};
use tenantry_tenancy::identity::signing_key::{self, KeyUsage, ListedKey, SigningKeyError};
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::boot::boot;
use crate::config::Settings;
use crate::tenant::{invalid, other};
use crate::{CommandError, console};

/// How often a server reads the stored keys: much more often than a new key needs to be published for.
const EVERY: Duration = Duration::from_secs(5);

const _: () = assert!(EVERY.as_secs().cast_signed() * 10 < SHORTEST_PUBLICATION_SECONDS);

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

fn moment(at: Time) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Reads the stored keys before a server serves, so that it accepts what other servers sign.
///
/// # Errors
/// Those of the store.
pub async fn read(app: &Arc<Tenancy>) -> Result<(), StoreError> {
    let unreadable = signing_key::refresh(app).await?;
    for kid in unreadable {
        tracing::error!(
            kid,
            "no configured key opens this signing key: its tokens are refused here"
        );
    }
    Ok(())
}

/// Reads the stored keys again and again. While the database is away, the keys that were read last are used.
pub async fn follow(app: Arc<Tenancy>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = signing_key::refresh(&app).await {
            tracing::warn!(%error, "the signing keys could not be read");
        }
    }
}
