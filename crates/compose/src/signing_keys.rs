use std::path::{Path, PathBuf};

use tenantry_system::SigningKey;

use crate::{ConfigurationError, Secret};

/// The first line of a key that `tenantry dev` made; production refuses it.
pub const DEVELOPMENT_MARK: &str = "# made by `tenantry dev`, refused in production";

/// The problem of a configuration without a signing key.
pub const NO_SIGNING_KEY: &str = "is not set; it needs an Ed25519 key in PKCS#8 PEM, or auth.signing_key_file the path of a file with it; \
                                  make one with: openssl genpkey -algorithm ed25519";

/// The problem of a key of `tenantry dev` in production.
const OF_DEVELOPMENT: &str = "a key of `tenantry dev` works with TENANTRY_PROFILE=development only; \
                              make another with: openssl genpkey -algorithm ed25519";

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
            Some(path) if self.key.is_empty() => self.read_file("auth.signing_key_file", path)?,
            None if self.key.is_empty() => {
                return Err(ConfigurationError::invalid("auth.signing_key", NO_SIGNING_KEY));
            }
            _ => self
                .parse(self.key.reveal())
                .map_err(|problem| ConfigurationError::invalid("auth.signing_key", problem))?,
        };
        let mut keys = vec![present];
        for path in self.previous {
            keys.push(self.read_file("auth.previous_key_files", path)?);
        }
        Ok(keys)
    }

    /// Reads the key of a file. An error has the setting that names the file, and the file.
    fn read_file(&self, setting: &'static str, path: &Path) -> Result<SigningKey, ConfigurationError> {
        let failed =
            |problem: String| ConfigurationError::invalid(setting, format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        self.parse(&text).map_err(failed)
    }

    fn parse(&self, text: &str) -> Result<SigningKey, String> {
        let text = text.replace("\\n", "\n");
        let pem = match text.strip_prefix(DEVELOPMENT_MARK) {
            Some(_) if !self.development => return Err(OF_DEVELOPMENT.to_owned()),
            Some(pem) => pem.trim_start(),
            None => &text,
        };
        SigningKey::from_pem(pem).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(key: &str, file: Option<&str>, previous: &[PathBuf]) -> String {
        let key = Secret::new(key.to_owned());
        let config = SigningKeyConfig {
            key: &key,
            file: file.map(Path::new),
            previous,
            development: false,
        };
        config.read().unwrap_err().to_string()
    }

    #[test]
    fn complaint_names_the_setting() {
        let missing = complaint("", None, &[]);
        assert!(
            missing.starts_with("setting auth.signing_key: is not set; "),
            "{missing}"
        );
        let path = complaint("/etc/signing-key.pem", None, &[]);
        assert!(
            path.starts_with("setting auth.signing_key: the signing key is not one PEM block"),
            "{path}"
        );
        let unreadable = complaint("", Some("/nope"), &[]);
        assert!(
            unreadable.starts_with("setting auth.signing_key_file: /nope: "),
            "{unreadable}"
        );
        let present = SigningKey::generate().to_pem();
        let previous = complaint(&present, None, &[PathBuf::from("/former")]);
        assert!(
            previous.starts_with("setting auth.previous_key_files: /former: "),
            "{previous}"
        );
    }

    #[test]
    fn key_of_development_is_named_as_such() {
        let key = format!("{DEVELOPMENT_MARK}\n{}", SigningKey::generate().to_pem());
        let complaint = complaint(&key, None, &[]);
        assert!(
            complaint.contains("works with TENANTRY_PROFILE=development only"),
            "{complaint}"
        );
    }
}
