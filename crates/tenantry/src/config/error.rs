/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("settings: {0}")]
    Read(String),
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
