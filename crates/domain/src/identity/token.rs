use crate::identity::AuthMethods;
use crate::kernel::{Role, SessionId, TenantId, Time, UserId};

/// How far the clocks of a token's signer and its verifier may differ, in seconds: a token is accepted for that long after
/// its `exp`, and before its `iat` and `nbf`.
pub const TOKEN_LEEWAY_SECONDS: i64 = 30;

/// The longest life of an access token, in seconds.
pub const LONGEST_TOKEN_SECONDS: i64 = 3_600;

/// What an access token says. It is bound to exactly one tenant and one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `tid`: the tenant.
    pub tenant: TenantId,
    /// `sub`: the user.
    pub user: UserId,
    /// `sid`: the session.
    pub session: SessionId,
    /// `role` at the time of issue: a hint for clients. Decisions read the stored role.
    pub role: Role,
    /// `mfa_at`: when a second factor was last given for the token: at the login of its session, or by the step-up that issued it; then
    /// `amr` (RFC 8176) names it.
    pub factor_at: Option<Time>,
    /// How the user has authenticated in the session; `amr` once a second factor was given.
    pub methods: AuthMethods,
    /// `iat`.
    pub issued_at: Time,
    /// `exp`.
    pub expires_at: Time,
}

/// Why an access token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours: malformed, forged, wrong audience, algorithm or type.
    #[error("the access token is not valid")]
    Invalid,
    /// Ours, but past its time.
    #[error("the access token has expired")]
    Expired,
}

/// Signs and verifies access tokens (JWT, RFC 9068 `at+jwt`, EdDSA).
pub trait AccessTokens: Send + Sync {
    /// A signed token.
    fn sign(&self, claims: &AccessClaims) -> String;

    /// The claims of a token of ours.
    ///
    /// # Errors
    /// [`TokenError`].
    fn verify(&self, token: &str) -> Result<AccessClaims, TokenError>;

    /// The tenant that a token of ours was issued to, also after the token has expired; `None` for what is no token of ours.
    fn issued_to(&self, token: &str) -> Option<TenantId>;

    /// The public keys as a JWK Set (RFC 7517).
    fn jwks(&self) -> serde_json::Value;

    /// How long a token lives, in seconds.
    fn lifetime_seconds(&self) -> i64;
}
