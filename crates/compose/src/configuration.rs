use std::env::var_os;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use serde::Deserialize;
use tenantry_domain::identity::ApiKeyFormat;
use tenantry_persistence::Transport;
use tenantry_tenancy::{Forwarding, Policy};

use crate::signing_keys::SigningKeyConfig;
use crate::{Base, ComposeError, ConfigurationError, Secret};

/// The configuration that services over one database have in common, as the stock server reads them: from `TENANTRY__SECTION__KEY`, above
/// `<profile>.toml` in the folder that `TENANTRY_CONFIG_DIR` names (`config` where it names none; that folder may be missing). All
/// other settings in there are the server's own and are ignored.
///
/// A service that is started with the server's environment and files accepts the server's tokens and API keys, and the server
/// accepts its tokens. With another issuer, audience, key or API key environment each refuses what the other issued.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// Which database, as which roles.
    pub database: DatabaseUrls,
    /// Tokens and API keys.
    pub auth: Credentials,
    /// What stands in front of the service.
    pub http: Proxy,
    /// Whether keys that `tenantry dev` made are accepted (`TENANTRY_PROFILE=development`).
    #[serde(skip)]
    pub development: bool,
}

/// Which database, as which roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DatabaseUrls {
    /// `database.url`: as the runtime role `tenantry_app`.
    pub url: Secret,
    /// `database.platform_url`: as the role `tenantry_platform`.
    pub platform_url: Secret,
}

/// How tokens and API keys are written and verified.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// `auth.signing_key`: the Ed25519 key, PKCS#8 PEM.
    pub signing_key: Secret,
    /// `auth.signing_key_file`: a file with that key.
    pub signing_key_file: Option<PathBuf>,
    /// `auth.previous_key_files`: files with earlier keys, whose tokens are still accepted.
    pub previous_key_files: Vec<PathBuf>,
    /// `auth.issuer`: the issuer (`iss`) of access tokens.
    pub issuer: String,
    /// `auth.audience`: the audience (`aud`) of access tokens.
    pub audience: String,
    /// `auth.access_token_minutes`: the lifetime of access tokens, 1..=60.
    pub access_token_minutes: i64,
    /// `auth.api_key_environment`: the second part of the text of API keys; keys of another environment are refused.
    pub api_key_environment: String,
}

/// What stands in front of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Proxy {
    /// `http.trust_forwarded_for`: take the caller's address from the last entry of `X-Forwarded-For`; only behind a proxy that sets it.
    pub trust_forwarded_for: bool,
}

/// The stock server's.
impl Default for Credentials {
    fn default() -> Self {
        Self {
            signing_key: Secret::default(),
            signing_key_file: None,
            previous_key_files: Vec::new(),
            issuer: "tenantry".into(),
            audience: "tenantry-api".into(),
            access_token_minutes: 15,
            api_key_environment: "live".into(),
        }
    }
}

impl Configuration {
    /// Reads the configuration of this process.
    ///
    /// # Errors
    /// [`ConfigurationError`] for a file or variable that does not fit, and for a folder in `TENANTRY_CONFIG_DIR` without the profile's file.
    pub fn load() -> Result<Self, ConfigurationError> {
        let folder = var_os("TENANTRY_CONFIG_DIR").map(PathBuf::from);
        let profile = var_os("TENANTRY_PROFILE").map_or_else(
            || "production".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        Self::of(folder.as_deref(), &profile)
    }

    /// Reads the configuration of a profile, as [`load`](Self::load) does.
    ///
    /// # Errors
    /// As of [`load`](Self::load).
    pub fn of(folder: Option<&Path>, profile: &str) -> Result<Self, ConfigurationError> {
        let file = folder
            .unwrap_or(Path::new("config"))
            .join(format!("{profile}.toml"));
        let of_profile = if file.is_file() {
            Figment::from(Toml::file_exact(file))
        } else if folder.is_some() {
            return Err(ConfigurationError::NoFile { file });
        } else {
            Figment::new()
        };
        let read = of_profile
            .merge(Env::prefixed("TENANTRY__").split("__"))
            .extract::<Self>();
        let configuration = read.map_err(|error| ConfigurationError::unreadable(&error))?;
        Ok(Self {
            development: profile == "development",
            ..configuration
        })
    }

    /// What the use cases are put together from; connects to nothing yet.
    ///
    /// # Errors
    /// [`ComposeError::Configuration`] with the name of the setting.
    pub fn base(&self) -> Result<Base, ComposeError> {
        let Credentials {
            signing_key,
            signing_key_file,
            previous_key_files,
            issuer,
            audience,
            access_token_minutes,
            api_key_environment: _,
        } = &self.auth;
        let urls = &self.database;
        let runtime = checked("database.url", "tenantry_app", &urls.url)?;
        let platform = checked("database.platform_url", "tenantry_platform", &urls.platform_url)?;
        if signing_key.is_empty() && signing_key_file.is_none() {
            let problem = "the Ed25519 key of the server over this database is required, in PKCS#8 PEM, or signing_key_file";
            return Err(ConfigurationError::invalid("auth.signing_key", problem).into());
        }
        let keys = SigningKeyConfig {
            key: signing_key,
            file: signing_key_file.as_deref(),
            previous: previous_key_files,
            development: self.development,
        };
        Ok(Base {
            issuer: issuer.clone(),
            audience: audience.clone(),
            access_token_seconds: access_token_minutes.saturating_mul(60),
            ..Base::new(runtime, platform, keys.read()?)?
        })
    }

    /// The policy of the stock server, with the configured environment of API keys.
    ///
    /// # Errors
    /// [`ConfigurationError`] for an environment that is none.
    pub fn policy(&self) -> Result<Policy, ConfigurationError> {
        let api_keys = ApiKeyFormat::new(&self.auth.api_key_environment).ok_or_else(|| {
            let problem = "must be 1 to 16 characters of a-z and 0-9, for example live";
            ConfigurationError::invalid("auth.api_key_environment", problem)
        })?;
        Ok(Policy {
            api_keys,
            ..Policy::default()
        })
    }

    /// How callers' addresses are found.
    pub fn forwarding(&self) -> Forwarding {
        Forwarding::new(self.http.trust_forwarded_for)
    }
}

fn checked<'a>(key: &'static str, role: &str, url: &'a Secret) -> Result<&'a str, ConfigurationError> {
    if url.is_empty() {
        let problem = format!("a PostgreSQL URL for {role} is required");
        return Err(ConfigurationError::invalid(key, problem));
    }
    let read = Transport::of(url.reveal());
    read.map_err(|error| ConfigurationError::invalid(key, error.to_string()))?;
    Ok(url.reveal())
}
