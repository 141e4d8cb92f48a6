use serde::{Deserialize, Serialize};

/// A setting that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns its text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the setting is not set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() {
            "Secret()"
        } else {
            "Secret(…)"
        })
    }
}
