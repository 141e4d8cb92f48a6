//! Portal tokens: an admin's pages for endpoints of webhooks are opened with a token that opens nothing else.

use crate::identity::TokenError;
use crate::kernel::{SessionId, TenantId, Time, UserId};

/// The shortest and the longest life of a portal token, in seconds.
pub const PORTAL_TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 60..=3_600;

/// What a portal token says. It stands as long as the session in which it was issued, and no longer than its own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalClaims {
    /// `tid`: the tenant.
    pub tenant: TenantId,
    /// `sub`: the admin who has issued it.
    pub user: UserId,
    /// `sid`: the session in which it was issued.
    pub session: SessionId,
    /// `iat`.
    pub issued_at: Time,
    /// `exp`.
    pub expires_at: Time,
}

/// Signs and verifies portal tokens, whose audience is not that of access tokens.
pub trait PortalTokens: Send + Sync {
    /// A signed token.
    fn sign(&self, claims: &PortalClaims) -> String;

    /// The claims of a token of ours.
    ///
    /// # Errors
    /// [`TokenError`].
    fn verify(&self, token: &str) -> Result<PortalClaims, TokenError>;

    /// The tenant that a token of ours was issued for, also after it has expired.
    fn issued_to(&self, token: &str) -> Option<TenantId>;
}
