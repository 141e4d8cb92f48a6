use serde::{Deserialize, Serialize};

/// How strict the checks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// On somebody's own machine: keys are made as needed, sign-up is open.
    Development,
    /// For others: secrets must be given, and weak ones are refused.
    #[default]
    Production,
}

impl Profile {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }

    /// Its configuration file as of this version.
    pub(super) const fn compiled_in(self) -> &'static str {
        match self {
            Self::Development => include_str!("../../../../config/development.toml"),
            Self::Production => include_str!("../../../../config/production.toml"),
        }
    }
}
