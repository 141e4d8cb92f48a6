//! `tenantry keys`: the keys that sign access tokens, and the data keys of tenants.

use std::sync::Arc;

use tenantry_domain::identity::PUBLICATION_SECONDS;
use tenantry_domain::kernel::{SystemScope, TenantId};
use tenantry_tenancy::identity::reseal;
use tenantry_tenancy::identity::signing_key::{self, KeyUsage, ListedKey, SigningKeyError};
use tenantry_tenancy::tenant::data_key::{self, DataKeyError, DataKeyState};
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::all_tenants::{FailedTenants, TenantPages};
use crate::boot::boot;
use crate::config::Configuration;
use crate::console::moment;
use crate::reason::Reason;
use crate::tenant::{find, invalid, other};
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
                            tenantry keys rotate --publication-seconds 86400    (others cache the keys for a day)\n         \
                            tenantry keys rotate --tenant acme    (its data key: secrets are sealed anew)\n         \
                            tenantry keys rotate --all-tenants    (the data key of each)")]
    Rotate {
        /// Rotate the data key of this tenant instead: a new key seals its secrets from now on, and those under former keys are
        /// sealed anew.
        #[arg(long, value_name = "SLUG", conflicts_with_all = ["publication_seconds", "all_tenants"])]
        tenant: Option<String>,
        /// Rotate the data key of every tenant instead.
        #[arg(long, conflicts_with = "publication_seconds")]
        all_tenants: bool,
        /// How long the key is published before it signs: 360 to 604800 seconds. Other services that verify tokens must read
        /// /.well-known/jwks.json again within that time.
        #[arg(long, default_value_t = PUBLICATION_SECONDS)]
        publication_seconds: i64,
        #[command(flatten)]
        reason: Reason,
    },
    /// List the signing keys: name, state, and since or from when it signs. With a tenant, its data keys.
    #[command(after_help = "Example: tenantry keys list\n         tenantry keys list --tenant acme")]
    List {
        /// List the data keys of this tenant instead.
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
    },
    /// Check the data keys: fails and names each tenant without one, each key that no key of the server opens, and each secret that
    /// no known key opens.
    #[command(after_help = "Example: tenantry keys check\n         tenantry keys check --tenant acme")]
    Check {
        /// Check this tenant only.
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
    },
}

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let because = SystemScope::because("signing keys are administered from the command line");
    let app = &booted.app;
    let done = match &args.action {
        Action::Rotate {
            tenant,
            all_tenants,
            publication_seconds,
            reason,
        } => {
            let cx = reason.context(app, because)?;
            match tenant {
                Some(slug) => rotate_of_one(&cx, slug).await,
                None if *all_tenants => rotate_of_all(&cx).await,
                None => rotate(&cx, *publication_seconds).await,
            }
        }
        Action::List { tenant: Some(slug) } => list_of(app, slug).await,
        Action::List { tenant: None } => list(&OperatorCx::command(app, because)).await,
        Action::Check { tenant } => check(app, tenant.as_deref()).await,
    };
    booted.finish().await;
    done
}

/// Checks the data keys of all tenants.
pub async fn run_check(config: &Configuration) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let done = check(&booted.app, None).await;
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

async fn rotate_of_one(cx: &OperatorCx, slug: &str) -> Result<(), CommandError> {
    let tenant = find(cx.app(), slug).await?;
    let unreadable = rotate_data_key(cx, tenant, slug).await?;
    if unreadable == 0 {
        return Ok(());
    }
    let what = format!("{unreadable} secret(s) or key(s) open with no key that is configured");
    Err(CommandError::Other(what))
}

/// Goes through all tenants, and through all of them also when something is wrong with one.
async fn rotate_of_all(cx: &OperatorCx) -> Result<(), CommandError> {
    let mut failed = FailedTenants::default();
    for (tenant, slug) in tenants(cx.app()).await? {
        match rotate_data_key(cx, tenant, &slug).await {
            Ok(0) => {}
            Ok(_) => failed.count(),
            failure => failed.note(&slug, failure.map(drop)),
        }
    }
    failed.summary()
}

/// Returns how many values no known key opens. What is interrupted here is finished by the job that the rotation asks for.
async fn rotate_data_key(cx: &OperatorCx, tenant: TenantId, slug: &str) -> Result<usize, CommandError> {
    let number = match data_key::rotate(cx, tenant).await {
        Ok(number) => number,
        // It seals nothing until it is in use, and its upkeep begins then.
        Err(error) => {
            let why = not_in_use(&error).ok_or_else(|| other(&error))?;
            console::say(&format!("{slug} {why}: its data keys are left as they are"));
            return Ok(0);
        }
    };
    let done = reseal::reseal(cx, tenant).await.map_err(|error| other(&error))?;
    console::say(&format!(
        "{slug} data key {number} seals, {} secret(s) sealed anew",
        done.resealed
    ));
    for what in &done.unreadable {
        console::error(&format!("{slug} {what} opens with no key that is configured"));
    }
    Ok(done.unreadable.len())
}

fn not_in_use(error: &DataKeyError) -> Option<&'static str> {
    let DataKeyError::Denied(denied) = error else {
        return None;
    };
    denied.not_in_use()
}

async fn list_of(app: &Arc<Tenancy>, slug: &str) -> Result<(), CommandError> {
    let tenant = find(app, slug).await?;
    let keys = data_key::list(app, tenant).await.map_err(|error| other(&error))?;
    for key in &keys {
        let state = match key.state {
            DataKeyState::Seals => "seals".to_owned(),
            DataKeyState::Opens { until } => format!("opens, destroyed after {}", moment(until)),
            DataKeyState::Unreadable => "unreadable: no configured key opens it".to_owned(),
        };
        let since = moment(key.created_at);
        console::say(&format!("{} {state} (created {since})", key.number));
    }
    Ok(())
}

async fn check(app: &Arc<Tenancy>, slug: Option<&str>) -> Result<(), CommandError> {
    let checked = match slug {
        Some(slug) => vec![(find(app, slug).await?, slug.to_owned())],
        None => tenants(app).await?,
    };
    let (count, mut failed) = (checked.len(), 0);
    for (tenant, slug) in checked {
        let found = match data_key::check(app, tenant).await {
            Ok(found) => found,
            Err(error) if not_in_use(&error).is_some() => Vec::new(),
            // The others are checked all the same.
            Err(error) => vec![error.to_string()],
        };
        failed += usize::from(!found.is_empty());
        found
            .iter()
            .for_each(|what| console::error(&format!("{slug} {what}")));
    }
    if failed > 0 {
        let what = format!(
            "{failed} of {count} tenant(s) have lost keys or secrets, have no data key, or could not be checked"
        );
        return Err(CommandError::Other(what));
    }
    console::say(&format!("the data keys and secrets of {count} tenant(s) open"));
    Ok(())
}

/// All tenants with their slugs.
async fn tenants(app: &Arc<Tenancy>) -> Result<Vec<(TenantId, String)>, CommandError> {
    let because = SystemScope::because("an operator administers the data keys of all tenants");
    let (mut all, mut pages) = (Vec::new(), TenantPages::new(app, because));
    while let Some(some) = pages.next().await? {
        let named = some
            .iter()
            .map(|tenant| (tenant.id, tenant.slug.as_str().to_owned()));
        all.extend(named);
    }
    Ok(all)
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
