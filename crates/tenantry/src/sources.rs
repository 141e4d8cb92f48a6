//! Where a command takes its settings from.

use std::path::PathBuf;

use crate::config::{Configuration, Profile, Secret};
use crate::demo::{self, Demo};
use crate::{CommandError, Extension, console};

/// The options that every command has.
#[derive(Debug, clap::Args)]
pub struct Sources {
    /// The folder with development.toml and production.toml. Without it they are read from the folder `config`; where that is
    /// missing, those of this version apply, which are compiled in.
    #[arg(long, global = true, env = "TENANTRY_CONFIG_DIR")]
    pub config_dir: Option<PathBuf>,
    /// The folder of the demo: its private PostgreSQL, keys and passwords.
    #[arg(long, global = true, env = "TENANTRY_DATA_DIR", default_value = "data/dev")]
    pub data_dir: PathBuf,
    /// Which configuration file applies, and how strict the checks are. With `development`, commands use the running demo
    /// unless the configuration names a database.
    #[arg(long, global = true, env = "TENANTRY_PROFILE", value_enum)]
    pub profile: Option<Profile>,
    /// What the service adds to the backend.
    #[arg(skip)]
    pub extension: Extension,
}

impl Sources {
    /// The checked settings of a server. They never come from the demo.
    pub fn of_server(&self) -> Result<Configuration, CommandError> {
        let config = self.given()?;
        config.validate().map_err(|error| self.refused(error.into()))?;
        Ok(config)
    }

    /// The checked settings of a command that works on what tenants have.
    pub fn of_command(&self) -> Result<Configuration, CommandError> {
        let config = self.of_database_command()?;
        config.validate().map_err(|error| self.hinted(error.into()))?;
        Ok(config)
    }

    /// The settings, unchecked, of a command that needs a part of them.
    pub fn of_database_command(&self) -> Result<Configuration, CommandError> {
        let given = self.given()?;
        if given.profile == Profile::Production || given.database.is_named() {
            return Ok(given);
        }
        match demo::running(&self.data_dir)? {
            Some(demo) => self.beside(&demo),
            None => Err(CommandError::Other(format!(
                "no demo is running over {}: start it with `{} dev`, or name a database in TENANTRY__DATABASE__URL",
                self.data_dir.display(),
                console::program()
            ))),
        }
    }

    /// The settings, unchecked, of a command that needs no database; the demo's, where one runs.
    pub fn of_other_command(&self) -> Result<Configuration, CommandError> {
        let given = self.given()?;
        if given.profile == Profile::Production || given.database.is_named() {
            return Ok(given);
        }
        match demo::running(&self.data_dir)? {
            Some(demo) => self.beside(&demo),
            None => Ok(given),
        }
    }

    /// The configuration of the profile, unchecked and without the demo's. Outside of `tenantry dev` the strict profile is the
    /// default.
    pub fn given(&self) -> Result<Configuration, CommandError> {
        let profile = self.profile.unwrap_or(Profile::Production);
        self.load(profile)
    }

    /// The configuration of a profile, unchecked.
    pub fn load(&self, profile: Profile) -> Result<Configuration, CommandError> {
        let mut config = Configuration::load(self.config_dir.as_deref(), profile)?;
        config.extension = self.extension.clone();
        Ok(config)
    }

    /// Adds to an error that a demo is at hand, where the caller has not chosen a profile.
    pub fn hinted(&self, error: CommandError) -> CommandError {
        if self.profile.is_some() || !matches!(demo::running(&self.data_dir), Ok(Some(_))) {
            return error;
        }
        CommandError::Other(format!(
            "{error}; for the demo that runs here, set TENANTRY_PROFILE=development"
        ))
    }

    /// Adds to an error of a server that the demo is started by another command, where one runs.
    fn refused(&self, error: CommandError) -> CommandError {
        if !matches!(demo::running(&self.data_dir), Ok(Some(_))) {
            return error;
        }
        let program = console::program();
        CommandError::Other(format!(
            "{error}; `{program} serve` never uses the demo that runs here: `{program} dev` starts it"
        ))
    }

    /// The configuration of a running demo, below those of the environment. Says which they are.
    fn beside(&self, demo: &Demo) -> Result<Configuration, CommandError> {
        let mut config = Configuration::load_over(&demo.config)?;
        config.extension = self.extension.clone();
        console::progress(&format!(
            "using the demo at {} ({}): {}",
            demo.address,
            self.data_dir.display(),
            description(&config)
        ));
        Ok(config)
    }
}

/// What a command is about to use, without passwords.
fn description(config: &Configuration) -> String {
    let mut parts = vec![format!("database {}", place(&config.database.url))];
    if let Some(key) = &config.auth.signing_key_file {
        parts.push(format!("signing key {}", key.display()));
    }
    if !config.redis.url.is_empty() {
        parts.push(format!("Redis {}", place(&config.redis.url)));
    }
    let stripe = &config.billing.stripe;
    if !stripe.secret_key.is_empty() {
        let base = Some(stripe.api_base.as_str()).filter(|base| !base.is_empty());
        parts.push(format!("Stripe {}", base.unwrap_or("itself")));
    }
    parts.join(", ")
}

/// Host, port and path of a URL.
pub fn place(url: &Secret) -> &str {
    let rest = url.reveal().split_once("://").map_or("", |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    rest.rsplit_once('@').map_or(rest, |(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_described_without_passwords() {
        let mut config = Configuration::default();
        config.database.url = Secret::new("postgres://app:hush@127.0.0.1:5433/tenantry?x=hush".into());
        config.redis.url = Secret::new("redis://:hush@127.0.0.1".into());
        config.billing.stripe.secret_key = Secret::new("sk_test_hush".into());
        config.billing.stripe.api_base = "http://127.0.0.1:9".into();
        assert_eq!(
            description(&config),
            "database 127.0.0.1:5433/tenantry, Redis 127.0.0.1, Stripe http://127.0.0.1:9"
        );
    }
}
