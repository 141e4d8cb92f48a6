//! Configuration: defaults here, `<profile>.toml` above them, `TENANTRY__SECTION__KEY` on top. All of it is checked at
//! start, and every complaint names its key.
//!
//! A section is a file: its settings, their defaults, and what is checked of them alone.

mod alerts;
mod archive;
mod audit;
mod auth;
mod billing;
mod breached_passwords;
mod cache;
mod challenge;
mod database;
mod domains;
mod events;
mod guard;
mod http;
mod jobs;
mod limits;
mod log;
mod mail;
mod metering;
mod metrics;
mod order;
mod plans;
mod profile;
mod quotas;
mod range;
mod redis;
mod server;
mod signup;
mod stripe;
mod tenants;
#[cfg(test)]
mod tests;
mod tracing;
mod transport;
mod url;
mod views;
mod webhooks;

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::{Deserialize, Serialize};
use tenantry_compose::NO_SIGNING_KEY;
use tenantry_domain::identity::ApiKeyFormat;
use tenantry_domain::kernel::{is_language_tag, is_time_zone};

use crate::Extension;

pub use tenantry_compose::{ConfigurationError, Secret};

pub use alerts::Alerts;
pub use archive::Archive;
pub use audit::{Audit, Stream, StreamKind};
pub use auth::Auth;
pub use billing::Billing;
pub use breached_passwords::BreachedPasswords;
pub use cache::Cache;
pub use challenge::{Challenge, ChallengeProvider};
pub use database::Database;
pub use domains::Domains;
pub use events::{Events, Export as EventExportConfig, ExportKind as EventExportKind};
pub use guard::Guard;
pub use http::Http;
pub use jobs::Jobs;
pub use limits::{AgreedRates, Limits};
pub use log::{Log, LogFormat};
pub use mail::{Mail, SmtpTls};
pub use metering::Metering;
pub use metrics::Metrics;
pub use plans::Plans;
pub use profile::Profile;
pub use quotas::Quotas;
pub use redis::{Redis, RedisMode};
pub use server::Server;
pub use signup::Signup;
pub use stripe::Stripe;
pub use tenants::Tenants;
pub use tracing::{OtlpSignal, Tracing};
pub use url::check_url;
pub use views::Views;
pub use webhooks::Webhooks;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// Chosen by `--profile`, never by a file.
    #[serde(skip)]
    pub profile: Profile,
    /// What the service adds to the backend: chosen by its program, never by a file.
    #[serde(skip)]
    pub extension: Extension,
    pub server: Server,
    pub database: Database,
    pub http: Http,
    pub auth: Auth,
    pub signup: Signup,
    pub tenants: Tenants,
    pub domains: Domains,
    /// Outgoing webhooks.
    pub webhooks: Webhooks,
    /// The audit log of tenants and operators.
    pub audit: Audit,
    /// Events of tenants.
    pub events: Events,
    /// Where exports of tenants are kept.
    pub archive: Archive,
    pub views: Views,
    pub metering: Metering,
    pub jobs: Jobs,
    pub cache: Cache,
    pub metrics: Metrics,
    pub limits: Limits,
    pub quotas: Quotas,
    pub alerts: Alerts,
    pub redis: Redis,
    pub guard: Guard,
    pub plans: Plans,
    pub billing: Billing,
    pub mail: Mail,
    pub log: Log,
    pub tracing: Tracing,
}

impl Configuration {
    /// Reads the configuration of a profile from `<config_dir>/<profile>.toml`. Where no folder is named, `config` is one that may be
    /// missing: the profile's file of this version, which is compiled in, takes its place.
    ///
    /// # Errors
    /// [`ConfigurationError`] for a file that does not fit, and for a named folder without the profile's file.
    pub fn load(config_dir: Option<&Path>, profile: Profile) -> Result<Self, ConfigurationError> {
        let folder = config_dir.unwrap_or(Path::new("config"));
        let file = folder.join(format!("{}.toml", profile.as_str()));
        let of_profile = if file.is_file() {
            Figment::from(Toml::file_exact(file))
        } else if config_dir.is_some() {
            return Err(ConfigurationError::NoFile { file });
        } else {
            Figment::from(Toml::string(profile.compiled_in()))
        };
        let figment = Figment::from(Serialized::defaults(Self::default()))
            .merge(of_profile)
            .merge(Env::prefixed("TENANTRY__").split("__"));
        let mut config: Self = figment
            .extract()
            .map_err(|error| ConfigurationError::unreadable(&error))?;
        config.profile = profile;
        Ok(config)
    }

    /// The configuration of a running demo, with those of the environment on top.
    pub fn load_over(demo: &Self) -> Result<Self, ConfigurationError> {
        let figment =
            Figment::from(Serialized::defaults(demo)).merge(Env::prefixed("TENANTRY__").split("__"));
        let mut config: Self = figment
            .extract()
            .map_err(|error| ConfigurationError::unreadable(&error))?;
        config.profile = Profile::Development;
        Ok(config)
    }

    /// The same settings for a process with another working directory.
    pub fn with_absolute_paths(&self) -> Self {
        let mut config = self.clone();
        let optional = [
            &mut config.auth.signing_key_file,
            &mut config.redis.ca_file,
            &mut config.plans.file,
            &mut config.mail.smtp.ca_file,
            &mut config.webhooks.ca_file,
        ];
        let paths = optional.into_iter().flatten();
        let paths = paths
            .chain(&mut config.auth.previous_key_files)
            .chain(config.audit.stream.files_mut())
            .chain(&mut config.guard.catalogues);
        for path in paths.chain([&mut config.metering.spool_dir, &mut config.archive.directory]) {
            // An empty path is a setting that is not set, and has no absolute form.
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
        config
    }

    /// Everything that `serve` relies on.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        self.guard.check()?;
        self.database.check()?;
        self.http.check()?;
        self.auth.check(self.profile)?;
        self.billing.check()?;
        self.signup.check(self.profile)?;
        self.tenants.check()?;
        self.domains.check()?;
        self.webhooks.check(self.profile)?;
        self.views.check()?;
        self.metering.check()?;
        self.cache.check()?;
        self.limits.check()?;
        self.redis.check()?;
        self.jobs.check()?;
        self.server.check()?;
        self.check_order()?;
        self.quotas.check()?;
        self.alerts.check()?;
        self.audit.stream.check(self.profile)?;
        self.events.check(&self.redis)?;
        self.tracing.check()?;
        self.billing.stripe.check(self.profile)?;
        self.mail.check()?;
        check_url("database.url", &self.database.url, self.profile)?;
        check_url("database.platform_url", &self.database.platform_url, self.profile)?;
        self.check_transport()?;
        if !is_time_zone(&self.signup.timezone) {
            let problem = "must be the name of a time zone of the IANA database, for example Europe/Berlin";
            return Err(ConfigurationError::invalid("signup.timezone", problem));
        }
        if !is_language_tag(&self.signup.locale) {
            let problem = "must be a language tag of BCP 47, for example de-CH";
            return Err(ConfigurationError::invalid("signup.locale", problem));
        }
        if ApiKeyFormat::new(&self.auth.api_key_environment).is_none() {
            let problem = "must be 1 to 16 characters of a-z and 0-9, for example live";
            return Err(ConfigurationError::invalid("auth.api_key_environment", problem));
        }
        if self.profile == Profile::Production {
            let given = !self.auth.signing_key.is_empty() || self.auth.signing_key_file.is_some();
            if !given {
                return Err(ConfigurationError::invalid("auth.signing_key", NO_SIGNING_KEY));
            }
        }
        Ok(())
    }
}
