//! `tenantry settings`: what an operator does to tenants' settings from the command line.

use std::collections::BTreeSet;

use serde_json::Value;
use tenantry_domain::customization::EffectiveSettings;
use tenantry_domain::kernel::{Invalid, SystemScope, TenantId, counted};
use tenantry_tenancy::admin::operator_mfa;
use tenantry_tenancy::customization::security_policy;
use tenantry_tenancy::customization::setting::{self, SettingError};
use tenantry_tenancy::identity::{reseal, signing_key};
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::all_tenants::TenantPages;
use crate::boot::boot;
use crate::config::Configuration;
use crate::reason::Reason;
use crate::tenant::{find, other};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the settings that hold for a tenant, each with its value and where it comes from: a level, or a bound of the server that overrules the tenant. Of a secret it says only that it is set.
    #[command(after_help = "Example: tenantry settings show acme")]
    Show {
        /// Slug of the tenant.
        slug: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Set something for a tenant, also what its admins cannot change.
    #[command(
        after_help = "Example: tenantry settings set acme security.session_idle_minutes 30\n         \
                            tenantry settings set acme security.session_idle_minutes null    (back to the plan's)"
    )]
    Set {
        /// Slug of the tenant.
        slug: String,
        /// Key of the setting, for example `security.session_idle_minutes`.
        key: String,
        /// As JSON; null goes back to the inherited value. What is no JSON is taken as text.
        value: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Seal the secrets of all tenants with the present signing key, so that former ones can be taken away.
    #[command(
        after_help = "Example: tenantry settings rotate-keys    (with auth.previous_key_files still there)"
    )]
    RotateKeys {
        #[command(flatten)]
        reason: Reason,
    },
}

const BECAUSE: SystemScope = SystemScope::because("an operator has secrets sealed with a new key");

/// Runs the command.
pub async fn run(settings: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(settings)?;
    let done = match &args.action {
        Action::Show { slug, reason } => {
            let because = SystemScope::because("a tenant's settings are read from the command line");
            show(&reason.context(&booted.app, because)?, slug).await
        }
        Action::Set {
            slug,
            key,
            value,
            reason,
        } => {
            let because = SystemScope::because("a tenant's settings are changed from the command line");
            let cx = reason.context(&booted.app, because)?;
            set(&cx, slug, key, value).await
        }
        Action::RotateKeys { reason } => rotate_keys(&reason.context(&booted.app, BECAUSE)?).await,
    };
    booted.finish().await;
    done
}

async fn show(cx: &OperatorCx, slug: &str) -> Result<(), CommandError> {
    let tenant = find(cx.app(), slug).await?;
    let settings = setting::show(cx, tenant).await.map_err(refused)?;
    let secrets = settings.secrets.keys().map(String::as_str);
    let keys: BTreeSet<&str> = settings.values.keys().copied().chain(secrets).collect();
    for key in keys {
        console::say(&shown(cx.app(), key, &settings));
    }
    Ok(())
}

async fn set(cx: &OperatorCx, slug: &str, key: &str, value: &str) -> Result<(), CommandError> {
    let tenant = find(cx.app(), slug).await?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    let value = Some(value).filter(|value| !value.is_null());
    let settings = setting::operate(cx, tenant, key, value).await.map_err(refused)?;
    console::say(&shown(cx.app(), key, &settings));
    Ok(())
}

/// The value that holds, and where it comes from: a level, or a bound of the server.
fn shown(app: &Tenancy, key: &str, settings: &EffectiveSettings) -> String {
    match settings.values.get(key) {
        Some(resolved) => match security_policy::bound_of_server(app, key, &resolved.value) {
            Some((value, bound)) => format!("{key} {value} ({bound})"),
            None => format!("{key} {} ({})", resolved.value, resolved.level.as_str()),
        },
        None if settings.secrets.contains_key(key) => format!("{key} is set"),
        None => format!("{key} is not set"),
    }
}

/// Goes through all tenants, and through all of them also when something is wrong with one.
async fn rotate_keys(cx: &OperatorCx) -> Result<(), CommandError> {
    reseal::announce(cx).await.map_err(refused)?;
    let readable = [reseal_signing_keys(cx).await?, reseal_operators(cx).await?];
    let (mut pages, mut failed) = (TenantPages::new(cx.app(), BECAUSE), 0);
    while let Some(tenants) = pages.next().await? {
        for tenant in &tenants {
            failed += usize::from(!rotate_keys_of(cx, tenant.id, tenant.slug.as_str()).await);
        }
    }
    reseal::conclude(cx, failed).await.map_err(refused)?;
    if failed > 0 {
        let what = format!(
            "{} could not be sealed anew: keep the former key",
            counted(&failed, "tenant")
        );
        return Err(CommandError::Other(what));
    }
    if readable.contains(&false) {
        let what =
            "signing keys or operators' second factors still need a former key: do not take it away yet";
        return Err(CommandError::Other(what.into()));
    }
    Ok(())
}

/// Returns whether no former key is needed for the signing keys any more.
async fn reseal_signing_keys(cx: &OperatorCx) -> Result<bool, CommandError> {
    let (resealed, unreadable) = signing_key::reseal(cx).await.map_err(|error| other(&error))?;
    if resealed > 0 {
        console::say(&format!("{} sealed anew", counted(&resealed, "signing key")));
    }
    for kid in &unreadable {
        console::error(&format!("signing key {kid} opens with no key that is configured"));
    }
    Ok(unreadable.is_empty())
}

/// Returns whether no former key is needed for the second factors of operators any more.
async fn reseal_operators(cx: &OperatorCx) -> Result<bool, CommandError> {
    let (resealed, unreadable) = operator_mfa::reseal(cx).await.map_err(|error| other(&error))?;
    if resealed > 0 {
        console::say(&format!(
            "{} of operators sealed anew",
            counted(&resealed, "second factor")
        ));
    }
    for id in &unreadable {
        console::error(&format!(
            "the second factor of operator {id} opens with no key that is configured"
        ));
    }
    Ok(unreadable.is_empty())
}

/// Whether no former key is needed for the tenant any more.
async fn rotate_keys_of(cx: &OperatorCx, tenant: TenantId, slug: &str) -> bool {
    match reseal::reseal(cx, tenant).await {
        Ok(done) => {
            console::say(&format!(
                "{slug} {} data key(s) and {} secret(s) sealed anew, {} secret(s) were already",
                done.resealed_keys, done.resealed, done.current
            ));
            for key in &done.unreadable {
                console::error(&format!("{slug} {key} opens with no key that is configured"));
            }
            done.unreadable.is_empty()
        }
        Err(error) => {
            let why = match &error {
                SettingError::Denied(denied) => denied.not_in_use(),
                _ => None,
            };
            match why {
                // It can still be restored or imported to its end, and has its secrets with the former key then.
                Some(why) => console::say(&format!("{slug} {why}: its secrets are left as they are")),
                None => console::error(&format!("{slug} {error}")),
            }
            why.is_some()
        }
    }
}

fn refused(error: SettingError) -> CommandError {
    match error {
        SettingError::Invalid(Invalid(errors)) => {
            let details = errors
                .iter()
                .map(|field| format!("{} {}", field.pointer, field.detail));
            CommandError::Other(details.collect::<Vec<_>>().join("; "))
        }
        error => other(&error),
    }
}
