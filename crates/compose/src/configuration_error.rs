use std::path::PathBuf;

/// What is wrong with the configuration: one line that names the setting and where it is set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A file or variable does not fit.
    #[error("configuration: {0}")]
    Read(String),
    /// The named folder has no file of the profile.
    #[error("configuration: there is no file {} (--config-dir or TENANTRY_CONFIG_DIR names its folder; without it, the configuration that is compiled in applies)", file.display())]
    NoFile {
        /// The missing file.
        file: PathBuf,
    },
    /// A file that a setting names cannot be used.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A setting has a value that is not allowed.
    #[error("setting {key}: {problem} (set it in {env} or the profile's TOML file)")]
    Invalid {
        /// The setting, such as `auth.issuer`.
        key: &'static str,
        /// Its environment variable.
        env: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl ConfigurationError {
    /// A setting has a value that is not allowed.
    pub fn invalid(key: &'static str, problem: impl Into<String>) -> Self {
        let env = format!("TENANTRY__{}", key.to_uppercase().replace('.', "__"));
        Self::Invalid {
            key,
            env,
            problem: problem.into(),
        }
    }

    /// A file or variable that figment cannot read: one line that names key and source.
    pub fn unreadable(error: &figment::Error) -> Self {
        let Some(first) = error.clone().into_iter().next() else {
            return Self::Read(error.to_string());
        };
        let source = first.metadata.as_ref();
        let source = source.map_or_else(String::new, |metadata| metadata.name.to_string());
        let key = match first.path.join(".") {
            key if key.is_empty() => key,
            key => format!("{key}: "),
        };
        Self::Read(format!("{key}{} (in {source})", first.kind))
    }
}
