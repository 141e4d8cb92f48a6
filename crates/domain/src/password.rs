use async_trait::async_trait;

use crate::{Invalid, StoreError};

/// A password in the clear, on its way to be hashed. It is never logged: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password as somebody presents it at login: no rule applies but a bound on the work.
    pub fn presented(text: String) -> Self {
        Self(text)
    }

    /// A password somebody chooses: 8 to 128 characters, after NIST SP 800-63B section 5.1.1.2 (length, no
    /// composition rules).
    ///
    /// # Errors
    /// At `pointer`, when the length is wrong.
    pub fn chosen(text: String, pointer: &str) -> Result<Self, Invalid> {
        if (8..=128).contains(&text.chars().count()) {
            Ok(Self(text))
        } else {
            Err(Invalid::one(
                pointer,
                "weak_password",
                "must have 8 to 128 characters",
            ))
        }
    }

    /// The text, for the hasher and for handing a generated password out once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A password hash as a PHC string. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// A hash as the hasher made it or the database kept it.
    pub fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string, for adapters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Why a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many are being hashed already.
    #[error("too many passwords are being hashed")]
    Busy,
    /// The hasher failed.
    #[error("password hashing failed: {0}")]
    Failed(String),
}

impl From<PasswordError> for StoreError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Unavailable("too many passwords are being hashed".into()),
            PasswordError::Failed(reason) => Self::Other(reason),
        }
    }
}

/// Hashes and verifies passwords off the async threads, a bounded number at once.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// The hash of a password.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the queue is full.
    async fn hash(&self, password: Password) -> Result<PasswordHash, PasswordError>;

    /// Whether the password matches. `None` (no such user) costs the same time and is false.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the queue is full.
    async fn verify(&self, password: Password, hash: Option<PasswordHash>) -> Result<bool, PasswordError>;

    /// A fresh random password of at least 128 bits.
    fn generate(&self) -> Password;
}
