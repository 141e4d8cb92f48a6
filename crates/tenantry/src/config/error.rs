/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("settings: {0}")]
    Read(String),
    #[error("settings: there is no file {} (--config-dir or TENANTRY_CONFIG_DIR names its folder; without it, the settings that are compiled in apply)", file.display())]
    NoFile { file: std::path::PathBuf },
    #[error("setting {key}: {problem} (set it in {env} or the profile's TOML file)")]
    Invalid {
        key: &'static str,
        env: String,
        problem: String,
    },
}

impl SettingsError {
    pub fn invalid(key: &'static str, problem: impl Into<String>) -> Self {
        let env = format!("TENANTRY__{}", key.to_uppercase().replace('.', "__"));
        Self::Invalid {
            key,
            env,
            problem: problem.into(),
        }
    }
}
