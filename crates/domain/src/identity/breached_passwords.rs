use async_trait::async_trait;

use crate::identity::Password;

/// Why a password was not compared with the breached ones, for the log. It has no part of the password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCompared(pub String);

/// Passwords that are known from breaches of any service.
#[async_trait]
pub trait BreachedPasswords: Send + Sync {
    /// Whether the password is one of them.
    ///
    /// # Errors
    /// [`NotCompared`] when the list was not reached, failed or has no place for another question. It answers within its timeout.
    async fn contains(&self, password: &Password) -> Result<bool, NotCompared>;
}
