use std::path::{Path, PathBuf};

use tenantry_system::SigningKey;

use crate::{ConfigurationError, Secret};

/// The first line of a key that `tenantry dev` made; production refuses it.
pub const DEVELOPMENT_MARK: &str = "# made by `tenantry dev`, refused in production";

/// Where the configured signing keys are: in a setting, or in files.
#[derive(Debug, Clone, Copy)]
pub struct SigningKeyConfig<'a> {
    /// `auth.signing_key`: PKCS#8 PEM.
    pub key: &'a Secret,
    /// `auth.signing_key_file`, which counts where there is no key.
    pub file: Option<&'a Path>,
    /// `auth.previous_key_files`.
    pub previous: &'a [PathBuf],
    /// Whether keys that were made for development are accepted.
    pub development: bool,
}

impl SigningKeyConfig<'_> {
    /// Reads the signing keys, the present one first.
    ///
    /// # Errors
    /// [`ConfigurationError`] for a file or a text that is no key.
    pub fn read(&self) -> Result<Vec<SigningKey>, ConfigurationError> {
        let present = match self.file {
            Some(path) if self.key.is_empty() => self.read_file(path)?,
            _ => self.parse(self.key.reveal())?,
        };
        let mut keys = vec![present];
        for path in self.previous {
            keys.push(self.read_file(path)?);
        }
        Ok(keys)
    }

    fn read_file(&self, path: &Path) -> Result<SigningKey, ConfigurationError> {
        let failed = |problem: String| ConfigurationError::File {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        self.parse(&text).map_err(|error| failed(error.to_string()))
    }

    fn parse(&self, text: &str) -> Result<SigningKey, ConfigurationError> {
        let invalid = |problem: String| ConfigurationError::invalid("auth.signing_key", problem);
        let text = text.replace("\\n", "\n");
        let pem = match text.strip_prefix(DEVELOPMENT_MARK) {
            Some(_) if !self.development => return Err(invalid("this key was made for development".into())),
            Some(pem) => pem.trim_start(),
            None => &text,
        };
        SigningKey::from_pem(pem).map_err(|error| invalid(error.to_string()))
    }
}
